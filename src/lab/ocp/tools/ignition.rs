//! The Ignition configs that the lab's installer makes: the paths and the forms of openshift/installer
//! `pkg/asset/ignition`, with what people look for in them.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::lab::ocp::OcpError;
use crate::lab::ocp::pull::PullConfig;

/// Names and texts of the three files. `manifests` are paths below the install directory with their texts.
pub(super) fn configs(
    domain: &str,
    ssh_key: &str,
    pull: &PullConfig,
    manifests: &[(String, String)],
) -> Result<[(&'static str, String); 3], OcpError> {
    let root = certificate("root-ca", 10 * 365)?;
    let day = certificate("kubelet-signer", 1)?;
    let mut files = vec![
        file("/etc/containers/registries.conf", &registries(pull), 0o644),
        file("/root/.docker/config.json", &pull.pull_secret, 0o600),
        file("/opt/openshift/tls/root-ca.crt", &root, 0o600),
        file("/opt/openshift/tls/kubelet-signer.crt", &day, 0o600),
    ];
    if !pull.trust.is_empty() {
        files.push(file("/etc/pki/ca-trust/source/anchors/ca.crt", &pull.trust, 0o600));
    }
    files.extend(manifests.iter().map(|(path, text)| file(&format!("/opt/openshift/{path}"), text, 0o644)));
    let bootstrap = json!({
        "ignition": { "version": "3.2.0" },
        "passwd": { "users": [{ "name": "core", "sshAuthorizedKeys": [ssh_key] }] },
        "storage": { "files": files },
    });
    let pointer = |role: &str| {
        json!({ "ignition": {
            "version": "3.2.0",
            "config": { "merge": [{ "source": format!("https://api-int.{domain}:22623/config/{role}") }] },
            "security": { "tls": { "certificateAuthorities": [{ "source": data(&root) }] } },
        } })
        .to_string()
    };
    Ok([("bootstrap.ign", bootstrap.to_string()), ("master.ign", pointer("master")), ("worker.ign", pointer("worker"))])
}

fn data(text: &str) -> String {
    format!("data:text/plain;charset=utf-8;base64,{}", BASE64_STANDARD.encode(text))
}

fn file(path: &str, text: &str, mode: u32) -> Value {
    json!({ "overwrite": true, "path": path, "user": { "name": "root" }, "mode": mode, "contents": { "source": data(text) } })
}

fn registries(pull: &PullConfig) -> String {
    let mut text = "unqualified-search-registries = [\"registry.access.redhat.com\", \"docker.io\"]\n".to_owned();
    for (source, mirrors) in &pull.mirrors {
        text.push_str(&format!(
            "\n[[registry]]\n  prefix = \"\"\n  location = \"{source}\"\n  mirror-by-digest-only = true\n"
        ));
        for mirror in mirrors {
            text.push_str(&format!("\n  [[registry.mirror]]\n    location = \"{mirror}\"\n"));
        }
    }
    text
}

/// A CA that is good for so many days from now.
fn certificate(name: &str, days: i64) -> Result<String, OcpError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let part = |value: i8| u8::try_from(value).unwrap_or(1);
    let midnight = rcgen::date_time_ymd(i32::from(now.year()), part(now.month()), part(now.day()));
    let seconds = i64::from(now.hour()) * 3600 + i64::from(now.minute()) * 60 + days * 86_400;
    params.not_before = midnight;
    params.not_after = midnight + std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    Ok(params.self_signed(&key)?.pem())
}
