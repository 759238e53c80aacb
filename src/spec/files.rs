//! The files that a spec names: are they there, and are they what they should be? Reads only; no content reaches a
//! problem's text.

use std::path::{Path, PathBuf};

use super::problem::shown;
use super::validate::Check;
use super::{Spec, secrets};

/// Every path of the spec that is on this machine, with its key.
pub fn paths_mut(spec: &mut Spec) -> Vec<(&'static str, &mut PathBuf)> {
    let mut paths = vec![
        ("credentials.pull_secret", &mut spec.credentials.pull_secret),
        ("credentials.ssh_public_key", &mut spec.credentials.ssh_public_key),
    ];
    for (key, path) in [
        ("release.ca_file", &mut spec.release.ca_file),
        ("bastion.identity_file", &mut spec.bastion.identity_file),
        ("credentials.ssh_private_key", &mut spec.credentials.ssh_private_key),
        ("credentials.manifests", &mut spec.credentials.manifests),
        ("install.manifests", &mut spec.install.manifests),
        ("tools.directory", &mut spec.tools.directory),
        ("mirror.password_file", &mut spec.mirror.password_file),
        ("mirror.ca_file", &mut spec.mirror.ca_file),
    ] {
        paths.extend(path.as_mut().map(|path| (key, path)));
    }
    paths
}

/// Make `path` absolute: `~/` is the home directory, anything relative belongs to `folder`.
pub fn resolve(path: &Path, folder: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::var_os("HOME")) {
        (Ok(rest), Some(home)) => Path::new(&home).join(rest),
        _ => folder.join(path),
    }
}

/// Look at every file; problems go to `check`.
pub fn check(spec: &mut Spec, check: &mut Check<'_>) {
    let fips = spec.install.fips;
    for (key, path) in paths_mut(spec) {
        let folder = match key {
            "tools.directory" => Some("the tools"),
            "credentials.manifests" => Some("the manifests of the secrets"),
            "install.manifests" => Some("more manifests"),
            _ => None,
        };
        if let Some(content) = folder {
            if !path.is_dir() {
                let want = format!("there is no such folder; name the one with {content}");
                check.fail(key, format!("is {}", name(path)), want);
            }
            continue;
        }
        let Some(text) = read(key, path, check) else { continue };
        let wrong = match key {
            "credentials.pull_secret" => secrets::parse_pull_secret(&text).err().map(|error| error.to_string()),
            "credentials.ssh_public_key" => public_key(&text, fips),
            "mirror.password_file" => password(&text),
            "release.ca_file" | "mirror.ca_file" => certificates(&text),
            _ if !text.contains("PRIVATE KEY-----") => {
                Some("it holds no private key; name the one without .pub".into())
            }
            _ => None,
        };
        if let Some(want) = wrong {
            check.fail(key, format!("is {}", name(path)), want);
        }
    }
}

/// A secret that was pasted in place of a file name must not be printed.
fn name(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.contains(['{', '"']) { "not the name of a file".into() } else { shown(&text) }
}

fn read(key: &str, path: &Path, check: &mut Check<'_>) -> Option<String> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8(bytes).ok();
            if text.is_none() {
                check.fail(key, format!("is {}", name(path)), "the file is not text");
            }
            text
        }
        Err(error) => {
            let want = match error.kind() {
                std::io::ErrorKind::NotFound => {
                    "there is no such file; paths are relative to the folder of the spec".into()
                }
                std::io::ErrorKind::PermissionDenied => {
                    "the file cannot be read by this user; check its mode".to_owned()
                }
                _ => format!("the file cannot be read ({}); name a readable file", error.kind()),
            };
            check.fail(key, format!("is {}", name(path)), want);
            None
        }
    }
}

fn public_key(text: &str, fips: bool) -> Option<String> {
    if text.contains("PRIVATE KEY-----") {
        return Some("it holds a private key; name the file that ends in .pub".into());
    }
    let Ok(key) = ssh_key::PublicKey::from_openssh(text.trim()) else {
        return Some(
            "it holds no OpenSSH public key; make one with ssh-keygen, and name the file that ends in .pub".into(),
        );
    };
    (fips && key.algorithm() == ssh_key::Algorithm::Ed25519).then(|| {
        "install.fips is true, and FIPS clusters refuse ed25519 keys; make one with ssh-keygen -t ecdsa -b 521".into()
    })
}

fn password(text: &str) -> Option<String> {
    let text = text.trim_end_matches(['\r', '\n']);
    let good = text.len() >= 8 && text.len() <= 72 && text.chars().all(|c| c.is_ascii_graphic());
    (!good).then(|| {
        "it must hold one password of 8 to 72 visible ASCII characters (bcrypt reads no further) and nothing else"
            .into()
    })
}

fn certificates(text: &str) -> Option<String> {
    let want = "it must hold certificates in PEM (-----BEGIN CERTIFICATE-----)";
    let mut count = 0;
    for pem in x509_parser::pem::Pem::iter_from_buffer(text.as_bytes()) {
        match pem {
            Ok(pem) if pem.label == "CERTIFICATE" && pem.parse_x509().is_ok() => count += 1,
            Ok(pem) if pem.label.contains("PRIVATE KEY") => {
                return Some("it holds a private key; name the file with the certificates alone".into());
            }
            _ => return Some(want.into()),
        }
    }
    (count == 0).then(|| want.into())
}
