//! What an operator sees of `cluster.toml` and `install-config.yaml`.

use std::path::Path;

use bartizan::spec::install_check::check;
use bartizan::spec::install_config::{InstallInputs, render};
use bartizan::spec::keys::KEYS;
use bartizan::spec::secret::redact;
use bartizan::spec::secrets::{auths, merge_pull_secret, mirror_pull_secret};
use bartizan::spec::{Secret, Secrets, Spec, SpecErrors, digest, example, load, parse};
use proptest::prelude::*;

const GOOD: &str = r#"[cluster]
name = "edge-lab"
base_domain = "example.com"

[release]
version = "4.18.12"

[aws]
region = "us-east-2"

[credentials]
pull_secret = "pull-secret.json"
ssh_public_key = "id.pub"

[mirror]
host = "registry.edge-lab.example.com"
"#;

fn sentences(text: &str) -> String {
    match parse(text, "cluster.toml") {
        Ok(_) => "valid".into(),
        Err(errors) => errors.to_string(),
    }
}

/// One edit of a good file, and the one sentence that it earns.
#[test]
fn every_mistake_gets_its_sentence() {
    assert_eq!(sentences(GOOD), "valid");
    let table = [
        (
            "host = \"registry.edge-lab.example.com\"",
            "host = \"localhost\"",
            "cluster.toml:16: mirror.host is \"localhost\": nodes could not reach it; give the bastion's DNS name, for \
             example registry.edge-lab.example.com",
        ),
        (
            "host = \"registry.edge-lab.example.com\"",
            "host = \"10.0.10.10\"",
            "cluster.toml:16: mirror.host is \"10.0.10.10\": certificate, pull secret and mirror rules share one DNS \
             name; give for example registry.edge-lab.example.com",
        ),
        (
            "host = \"registry.edge-lab.example.com\"",
            "host = \"registry.edge-lab.example.com:5000\"",
            "cluster.toml:16: mirror.host is \"registry.edge-lab.example.com:5000\": give the name alone; the port goes \
             into mirror.port",
        ),
        (
            "name = \"edge-lab\"",
            "name = \"Edge_Lab\"",
            "cluster.toml:2: cluster.name is \"Edge_Lab\": it becomes part of DNS names (RFC 1123): lower-case letters, \
             digits and -, for example edge-lab",
        ),
        (
            "version = \"4.18.12\"",
            "version = \"4.18\"",
            "cluster.toml:6: release.version is \"4.18\": give the whole version, for example 4.18.12",
        ),
        (
            "version = \"4.18.12\"",
            "version = 4.18",
            "cluster.toml:6: release.version is 4.18: give a text, for example \"4.18.12\"",
        ),
        (
            "version = \"4.18.12\"",
            "version = \"4.11.3\"",
            "cluster.toml:6: release.version is \"4.11.3\": bartizan knows 4.12 to 4.29, not 4.11; give for example \
             4.18.12",
        ),
        (
            "base_domain",
            "base_domian",
            "cluster.toml:3: cluster.base_domian is not known: did you mean \
             cluster.base_domain?\ncluster.toml:1: cluster.base_domain is missing",
        ),
        ("[mirror]", "[miror]", "cluster.toml:15: miror is not known: did you mean mirror?"),
        ("region = \"us-east-2\"", "zones = 2", "cluster.toml:9: aws.zones is not known: did you mean network.zones?"),
        (
            "[aws]\nregion = \"us-east-2\"",
            "",
            "cluster.toml:15: aws.region is missing: add it to [aws], for example region = \"us-east-2\"",
        ),
        (
            "[mirror]",
            "[network]\nzones = 4\n[mirror]",
            "cluster.toml:16: network.zones is 4: give a whole number from 1 to 3, for example 1",
        ),
        (
            "[mirror]",
            "[network]\nvpc_cidr = \"10.0.1.0/16\"\n[mirror]",
            "cluster.toml:16: network.vpc_cidr is \"10.0.1.0/16\": a block starts at its first address; give \
             10.0.0.0/16",
        ),
        (
            "[mirror]",
            "[network]\nvpc_cidr = \"10.128.0.0/16\"\n[mirror]",
            "cluster.toml:15: network.cluster_cidr is \"10.128.0.0/14\": it overlaps network.vpc_cidr (10.128.0.0/16); \
             the three must be apart",
        ),
        (
            "[mirror]",
            "[network]\nvariant = \"privat\"\n[mirror]",
            "cluster.toml:16: network.variant is \"privat\": give \"disconnected\" or \"private\" or \"proxy\"",
        ),
        (
            "[mirror]",
            "[network.existing]\nvpc_id = \"vpc-12345678\"\n[mirror]",
            "cluster.toml:15: network.existing.private_subnets is missing: add it to [network.existing], for example \
             private_subnets = [\"subnet-0123456789abcdef0\"]",
        ),
        (
            "[mirror]",
            "[bastion]\nhost = \"bastion.example.com\"\n[mirror]",
            "cluster.toml:16: bastion.host is \"bastion.example.com\": give user@host, for example \
             ec2-user@bastion.example.com; its port goes into bastion.port",
        ),
        (
            "[mirror]",
            "[bastion]\nhost_key = \"ssh-ed25519 oops\"\n[mirror]",
            "cluster.toml:16: bastion.host_key is \"ssh-ed25519 oops\": give type and key as in known_hosts",
        ),
        (
            "[mirror]",
            "[install]\ncontrol_plane_replicas = 2\n[mirror]",
            "cluster.toml:16: install.control_plane_replicas is 2: etcd wants 1 or 3 members; give 1 or 3",
        ),
        (
            "[mirror]",
            "[tools]\nsource = \"directory\"\n[mirror]",
            "cluster.toml:15: tools.directory is missing: tools.source is \"directory\"; name the folder",
        ),
        (
            "[mirror]",
            "[mirror]\nadditional_images = [\"ubi9\"]",
            "cluster.toml:16: mirror.additional_images has \"ubi9\": give whole pull specs",
        ),
        (
            "[mirror]",
            "[aws.tags]\n\"kubernetes.io/cluster/x\" = \"owned\"\n[mirror]",
            "cluster.toml:15: aws.tags has \"kubernetes.io/cluster/x\": the installer refuses a network",
        ),
        (
            "[mirror]",
            "[install]\ncompute_type = \"m6g.large\"\n[mirror]",
            "cluster.toml:16: install.compute_type is \"m6g.large\": release.arch is x86_64, and this machine is not; \
             give for example m6i.xlarge",
        ),
        (
            "[mirror]",
            "[mirror]\nbandwidth = \"20 Mbit\"",
            "cluster.toml:16: mirror.bandwidth is \"20 Mbit\": give bytes per second, with K, M or G",
        ),
        (
            "[mirror]",
            "[mirror]\nbandwidth = \"20M\"\nengine = \"oc-mirror\"",
            "cluster.toml:16: mirror.bandwidth is set: only bartizan's own copier can be slowed down",
        ),
        ("[cluster]", "cluster = 3", "cluster.toml:1: cluster is 3: make it a section: [cluster]"),
        ("name = \"edge-lab\"", "name = edge-lab", "cluster.toml:2: this is not TOML ("),
    ];
    for (from, to, sentence) in table {
        assert!(GOOD.contains(from));
        let text = GOOD.replacen(from, to, 1);
        let all = sentences(&text);
        for part in sentence.split('\n') {
            assert!(all.lines().any(|line| line.starts_with(part)), "wanted\n  {part}\ngot\n  {all}");
        }
    }
    let both = GOOD.replacen("edge-lab", "Edge", 1).replacen("us-east-2", "Ohio", 1).replacen("4.18.12", "5", 1);
    assert_eq!(sentences(&both).lines().count(), 3, "all problems at once");
}

#[test]
fn the_example_is_valid_and_has_every_key() {
    let spec = parse(example(), "cluster.toml").unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(spec.registry(), "registry.edge-lab.example.com:5000");
    // Uncommented, it still is: the examples in the comments are right ones.
    let is_key = |line: &str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains([' ', ':']));
    let full: Vec<&str> = example()
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if is_key(rest) || rest.starts_with('[') => rest,
            _ => line,
        })
        .filter(|line| !line.starts_with("ca_file = \"mirror"))
        .collect();
    let full = full.join("\n");
    let spec = parse(&full, "cluster.toml").unwrap_or_else(|errors| panic!("{errors}"));
    let mut have = Vec::new();
    leaves(&serde_json::to_value(&spec).unwrap(), "", &mut have);
    for key in KEYS {
        assert!(have.contains(&key.path.to_owned()), "{} is no field of Spec", key.path);
        let name = key.path.rsplit('.').next().unwrap();
        let stands = example().lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{name} = ")));
        assert!(stands, "{} is not in the example", key.path);
    }
    for path in have {
        assert!(KEYS.iter().any(|key| key.path == path), "{path} is not in the table of keys");
    }
}

fn leaves(value: &serde_json::Value, at: &str, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) if !KEYS.iter().any(|key| key.path == at) => {
            for (name, inner) in map {
                let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                leaves(inner, &path, found);
            }
        }
        _ => found.push(at.to_owned()),
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    let written = std::fs::write(folder.join(name), text);
    assert!(written.is_ok(), "{written:?}");
}

#[test]
fn files_are_looked_at_and_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let path = folder.join("cluster.toml");
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEkp6pYb2xSgVjgSRVmtqcYHVL6CZsA1k0mmLnL1lvQj me";
    write(folder, "cluster.toml", GOOD);
    let errors = load(&path).unwrap_err().to_string();
    assert!(errors.contains("cluster.toml:12: credentials.pull_secret is "), "{errors}");
    assert!(errors.contains("there is no such file; paths are relative to the folder of the spec"), "{errors}");

    // "me:canary-token-7" and "me:canary-token-8"
    let secret = r#"{ "auths": { "quay.io": { "auth": "bWU6Y2FuYXJ5LXRva2VuLTc=", "email": "a@b.c" } } }"#;
    write(folder, "pull-secret.json", secret);
    write(folder, "id.pub", key);
    let spec = load(&path).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(spec.credentials.pull_secret, folder.join("pull-secret.json"));
    let secrets = Secrets::load(&spec).unwrap();
    assert!(secrets.mirror_password.is_none());
    assert_eq!(auths(&secrets.pull_secret).len(), 1);
    assert_eq!(redact("login with canary-token-7 or bWU6Y2FuYXJ5LXRva2VuLTc="), "login with [redacted] or [redacted]");

    write(folder, "pull-secret.json", r#"{"auths": {"quay.io": {"auth": "canary-broken-9"}}}"#);
    write(folder, "cluster.toml", &format!("{GOOD}\n[install]\nfips = true\n"));
    let errors = load(&path).unwrap_err().to_string();
    assert!(errors.contains("its entry for quay.io has no usable \"auth\""), "{errors}");
    assert!(errors.contains("FIPS clusters refuse ed25519 keys"), "{errors}");
    assert!(!errors.contains("canary"), "{errors}");

    write(folder, "cluster.toml", &GOOD.replace("\"pull-secret.json\"", r#"'{"auths": {"q": {"auth": "canary"}}}'"#));
    let errors = load(&path).unwrap_err().to_string();
    assert!(errors.contains("credentials.pull_secret is not the name of a file"), "{errors}");
    assert!(!errors.contains("canary"), "{errors}");

    let missing = load(&folder.join("no.toml")).unwrap_err().to_string();
    assert!(missing.ends_with("cannot be read (entity not found): write one with: bartizan init"), "{missing}");
    assert_eq!(digest("abc"), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

fn inputs(spec: &Spec) -> InstallInputs {
    let certificate = rcgen::generate_simple_self_signed(vec![spec.mirror.host.clone()]);
    let mirror = |repository: &str| format!("{}/{repository}", spec.registry());
    InstallInputs {
        machine_network: "10.0.0.0/16".into(),
        public_subnets: Vec::new(),
        private_subnets: vec![
            ("subnet-0123456789abcdef0".into(), "us-east-2a".into()),
            ("subnet-0123456789abcdef1".into(), "us-east-2b".into()),
        ],
        trust_bundle_pem: certificate.map(|made| made.cert.pem()).unwrap_or_default(),
        pull_secret_merged: mirror_pull_secret(&spec.registry(), "bartizan", &Secret::new("canary-mirror-password")),
        ssh_public_key: "ssh-rsa AAAA me\n".into(),
        image_sources: vec![
            ("quay.io/openshift-release-dev/ocp-release".into(), mirror("openshift/release-images")),
            ("quay.io/openshift-release-dev/ocp-v4.0-art-dev".into(), mirror("openshift/release")),
        ],
        hosted_zone: None,
        ami: None,
        proxy: None,
    }
}

#[test]
fn depth_is_no_way_to_break_it() {
    assert!(sentences(&format!("a = {}", "[".repeat(100_000))).contains("this is not TOML"));
    assert_ne!(sentences(&format!("[{}]", vec!["a"; 50_000].join("."))), "valid");
    assert!(!check(&format!("a: {}", "[".repeat(2_000)), 18).is_empty());
}

#[test]
fn the_mirror_joins_the_pull_secret() {
    let red_hat = Secret::new(r#"{"auths":{"quay.io":{"auth":"bWU6Y2FuYXJ5LXRva2VuLTc="}}}"#);
    let both = merge_pull_secret(&red_hat, "r.example.com:5000", "me", &Secret::new("canary-password")).unwrap();
    let names: Vec<String> = auths(&both).into_keys().collect();
    assert_eq!(names, ["quay.io", "r.example.com:5000"]);
}

/// A good text with something wrong done to it: lines lost, doubled, cut or replaced by anything. `sign` stands between
/// key and value.
fn malformed(source: String, sign: char) -> impl Strategy<Value = String> {
    let edit = (any::<prop::sample::Index>(), 0..6u8, any::<prop::sample::Index>(), "\\PC{0,40}");
    prop::collection::vec(edit, 1..6).prop_map(move |edits| {
        let mut lines: Vec<String> = source.lines().map(str::to_owned).collect();
        for (at, kind, cut, junk) in edits {
            let index = at.index(lines.len().max(1)).min(lines.len().saturating_sub(1));
            let Some(line) = lines.get(index).cloned() else { continue };
            let valued = |value: String| line.split_once(sign).map(|(key, _)| format!("{key}{sign} {value}"));
            match kind {
                0 => drop(lines.remove(index)),
                1 => lines.insert(index, line),
                2 => lines[index] = line.chars().take(cut.index(line.chars().count() + 1)).collect(),
                3 => lines[index] = junk,
                4 => lines[index] = valued(junk.clone()).unwrap_or(junk),
                _ => lines[index] = valued(format!("{junk:?}")).unwrap_or(line),
            }
        }
        lines.join("\n")
    })
}

fn good_install_config() -> String {
    let text = parse(GOOD, "cluster.toml").ok().and_then(|spec| render(&spec, &inputs(&spec)).ok());
    text.map(|text| text.reveal().to_owned()).unwrap_or_default()
}

fn has_places(errors: &SpecErrors, text: &str) -> bool {
    let last = text.lines().count().max(1);
    !errors.0.is_empty()
        && errors.0.iter().all(|problem| (1..=last).contains(&problem.line) && !problem.want.is_empty())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn malformed_specs_have_places(
        text in prop_oneof![malformed(GOOD.to_owned(), '='), malformed(example().replace("\n# ", "\n"), '=')],
    ) {
        if let Err(errors) = parse(&text, "cluster.toml") {
            prop_assert!(has_places(&errors, &text), "{errors}");
            prop_assert!(!errors.to_string().chars().any(|c| c.is_control() && c != '\n'));
        }
    }

    #[test]
    fn malformed_install_configs_have_places(text in malformed(good_install_config(), ':')) {
        for problem in check(&text, 18) {
            prop_assert!((1..=text.lines().count().max(1)).contains(&problem.line), "{problem}");
            prop_assert!(!problem.to_string().chars().any(char::is_control), "{problem}");
        }
    }

    #[test]
    fn anything_at_all_is_no_panic(text in any::<String>()) {
        if let Err(errors) = parse(&text, "cluster.toml") {
            prop_assert!(has_places(&errors, &text), "{errors}");
        }
        let _problems = check(&text, 18);
    }
}
