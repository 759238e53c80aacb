//! What the machines will be told is read before any is made.

use bartizan::registry::outputs::DigestSource;
use bartizan::stages::ignition::{Configs, Found, Wanted, examine};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

const DOMAIN: &str = "edge-lab.example.com";
const REGISTRY: &str = "registry.edge-lab.example.com:5000";
const KEY: &str = "ssh-rsa AAAAB3NzaC1yc2E edge";
const SOURCE: &str = "quay.io/openshift-release-dev/ocp-release";

struct Site {
    bootstrap: Value,
    master: Value,
    worker: Value,
}

fn data(text: &str) -> String {
    format!("data:text/plain;charset=utf-8;base64,{}", BASE64_STANDARD.encode(text))
}

fn file(path: &str, text: &str) -> Value {
    json!({ "path": path, "mode": 420, "overwrite": true, "contents": { "source": data(text) } })
}

/// As openshift-install writes it: the certificate that is good for the shortest time is good for a day.
fn site() -> Site {
    let mut params = rcgen::CertificateParams::new(vec!["kubelet".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2026, 3, 2);
    let key = rcgen::KeyPair::generate().unwrap();
    let day = params.self_signed(&key).unwrap().pem();
    params.not_after = rcgen::date_time_ymd(2036, 3, 2);
    let root = params.self_signed(&key).unwrap().pem();
    let mirror = format!("{REGISTRY}/openshift/release-images");
    let registries = format!(
        "[[registry]]\n  prefix = \"\"\n  location = \"{SOURCE}\"\n  mirror-by-digest-only = true\n  [[registry.mirror]]\n    \
         location = \"{mirror}\"\n"
    );
    let rules = format!("kind: ImageDigestMirrorSet\nspec:\n  imageDigestMirrors:\n  - mirrors:\n    - {mirror}\n");
    let auth = json!({ "auths": { REGISTRY: { "auth": "YTpi" } } }).to_string();
    let bootstrap = json!({
        "ignition": { "version": "3.2.0" },
        "passwd": { "users": [{ "name": "core", "sshAuthorizedKeys": ["ssh-rsa AAAAB3NzaC1yc2E\n"] }] },
        "storage": { "files": [
            file("/etc/containers/registries.conf", &registries),
            file("/etc/pki/ca-trust/source/anchors/ca.crt", &super::ca()),
            file("/root/.docker/config.json", &auth),
            file("/opt/openshift/tls/root-ca.crt", &root),
            file("/opt/openshift/tls/kubelet-client.crt", &day),
            file("/opt/openshift/manifests/image-digest-mirror-set.yaml", &rules),
        ] },
    });
    let pointer = |role: &str| {
        json!({ "ignition": {
            "version": "3.2.0",
            "config": { "merge": [{ "source": format!("https://api-int.{DOMAIN}:22623/config/{role}") }] },
            "security": { "tls": { "certificateAuthorities": [{ "source": data(&root) }] } },
        } })
    };
    Site { bootstrap, master: pointer("master"), worker: pointer("worker") }
}

fn look(site: &Site, now: &str) -> Result<Found, Vec<String>> {
    let sources =
        [DigestSource { source: SOURCE.into(), mirrors: vec![format!("{REGISTRY}/openshift/release-images")] }];
    let trust = super::ca();
    let wanted = Wanted { domain: DOMAIN, registry: REGISTRY, trust: &trust, sources: &sources, ssh_key: KEY };
    let [bootstrap, master, worker] = [&site.bootstrap, &site.master, &site.worker].map(Value::to_string);
    let configs = Configs { bootstrap: bootstrap.as_bytes(), master: master.as_bytes(), worker: worker.as_bytes() };
    examine(&configs, &wanted, now.parse().unwrap())
}

#[test]
fn good_configs_say_when_their_certificates_end() {
    let found = look(&site(), "2026-03-01T01:00:00Z").unwrap();
    assert_eq!(found.until, Some("2026-03-02T00:00:00Z".parse::<Timestamp>().unwrap()));
    let said: Vec<String> = found.evidence.iter().map(|one| format!("{}: {}", one.asked, one.answer)).collect();
    for wanted in
        ["ca.crt: has the mirror's CA", "kubelet-client.crt: is the first to end", "master.ign: asks https://api-int"]
    {
        assert!(said.iter().any(|one| one.contains(wanted)), "{wanted}: {said:#?}");
    }
    assert!(said.iter().any(|one| one.contains("in 23 h")));
}

#[test]
fn mistake_14_files_that_are_older_than_their_certificates() {
    let wrong = look(&site(), "2026-03-02T06:00:00Z").unwrap_err();
    assert!(wrong[0].contains("kubelet-client.crt ended at 2026-03-02T00:00:00Z: the files are older than a day"));
}

#[test]
fn what_would_keep_a_machine_from_booting_is_named() {
    let files = |site: &mut Site| site.bootstrap["storage"]["files"].as_array_mut().unwrap().clone();
    type Break = Box<dyn Fn(&mut Site)>;
    let without = |path: &'static str| -> Break {
        Box::new(move |site| {
            site.bootstrap["storage"]["files"].as_array_mut().unwrap().retain(|file| file["path"] != path);
        })
    };
    let table: Vec<(&str, Break)> = vec![
        ("lacks the mirror's CA: every pull would end with x509", without("/etc/pki/ca-trust/source/anchors/ca.crt")),
        ("has no mirror registry.edge-lab", without("/etc/containers/registries.conf")),
        ("no entry for registry.edge-lab.example.com:5000: 401", without("/root/.docker/config.json")),
        (
            "only the bootstrap machine would use the mirror",
            without("/opt/openshift/manifests/image-digest-mirror-set.yaml"),
        ),
        ("core has not our key", Box::new(|site| site.bootstrap["passwd"] = json!({}))),
        (
            "\"/root/.docker/config.json\" twice",
            Box::new(move |site| {
                let double = files(site)[2].clone();
                site.bootstrap["storage"]["files"].as_array_mut().unwrap().push(double);
            }),
        ),
        (
            "it asks \"https://api-int.other:22623/config/master\"",
            Box::new(|site| {
                site.master["ignition"]["config"]["merge"][0]["source"] =
                    json!("https://api-int.other:22623/config/master");
            }),
        ),
        ("worker.ign: it trusts no CA", Box::new(|site| site.worker["ignition"]["security"] = json!({}))),
        ("unsupported config version", Box::new(|site| site.worker["ignition"]["version"] = json!("2.2.0"))),
    ];
    for (sentence, break_it) in table {
        let mut site = site();
        break_it(&mut site);
        let wrong = look(&site, "2026-03-01T01:00:00Z").unwrap_err();
        assert!(wrong.iter().any(|one| one.contains(sentence)), "wanted\n  {sentence}\ngot\n  {wrong:#?}");
    }
}
