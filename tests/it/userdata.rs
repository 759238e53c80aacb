//! What a new bastion is told, and how a delivered host key ends: cloud-init's and Ignition's documents against their
//! specifications, and the rotation against a real sshd.

use std::process::Command;
use std::sync::Arc;

use bartizan::cloud::userdata::{FirstBoot, HostKeyPair, LIMIT, ROTATE, UserDataError, render};
use bartizan::host::ssh::{SshPool, fingerprint, new_key_pair, public_half};
use bartizan::host::{Cmd, Host};
use bartizan::spec::BastionOs;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ignition_config::{Config, v3_2};
use serde_json::Value;

use crate::host::Sshd;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEkp6pYb2xSgVjgSRVmtqcYHVL6CZsA1k0mmLnL1lvQj op@laptop";
const ALL: [BastionOs; 4] = [BastionOs::Rhel9, BastionOs::Al2023, BastionOs::Fcos, BastionOs::Rhcos];

fn boot(host_key: Option<&HostKeyPair>) -> FirstBoot<'_> {
    FirstBoot { user: "ec2-user", authorized_key: KEY, host_key }
}

fn pair() -> HostKeyPair {
    let (private, public) = new_key_pair("").unwrap();
    HostKeyPair { private, public }
}

fn cloud_config(text: &str) -> Value {
    // cloud-init takes user data for a cloud-config by this first line.
    assert!(text.starts_with("#cloud-config\n"), "{text}");
    yaml_serde::from_str(text).unwrap()
}

/// Keys and types of cloud-init's schema (`cloudinit/config/schemas/schema-cloud-config-v1.json`) for the modules in use.
fn fits_the_schema(config: &Value) {
    for (key, value) in config.as_object().unwrap() {
        let fits = match key.as_str() {
            "ssh_pwauth" | "disable_root" | "ssh_deletekeys" | "package_update" | "package_upgrade" => {
                value.is_boolean()
            }
            "ssh_genkeytypes" => {
                let known = |kind: &Value| ["ecdsa", "ed25519", "rsa"].contains(&kind.as_str().unwrap_or(""));
                value.as_array().is_some_and(|kinds| kinds.iter().all(known))
            }
            "ssh" => *value == serde_json::json!({ "emit_keys_to_console": true }),
            "ssh_authorized_keys" => value.as_array().is_some_and(|keys| keys.iter().all(Value::is_string)),
            "ssh_keys" => value.as_object().is_some_and(|keys| {
                keys.iter().all(|(name, key)| {
                    ["ed25519_private", "ed25519_public"].contains(&name.as_str()) && key.is_string()
                })
            }),
            "users" => value.as_array().is_some_and(|users| users.first() == Some(&Value::from("default"))),
            _ => false,
        };
        assert!(fits, "{key}: {value}");
    }
}

fn ignition(text: &str) -> v3_2::Config {
    let (config, warnings) = Config::parse_str(text).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    match config {
        Config::V3_2(config) => config,
        other => panic!("another version: {other:?}"),
    }
}

#[test]
fn cloud_init_takes_it() {
    let plain = cloud_config(render(BastionOs::Rhel9, &boot(None)).unwrap().reveal());
    fits_the_schema(&plain);
    assert_eq!(plain["ssh_authorized_keys"], serde_json::json!([KEY]));
    assert_eq!(plain["ssh"]["emit_keys_to_console"], true, "the host keys are read from the console");
    assert!(plain.get("ssh_keys").is_none() && plain.get("users").is_none());

    let key = pair();
    let text = render(BastionOs::Al2023, &FirstBoot { user: "admin", ..boot(Some(&key)) }).unwrap();
    let config = cloud_config(text.reveal());
    fits_the_schema(&config);
    assert_eq!(config["ssh_keys"]["ed25519_private"], key.private.reveal());
    assert_eq!(config["ssh_keys"]["ed25519_public"], key.public);
    assert_eq!(config["users"][1]["name"], "admin");
}

#[test]
fn ignition_takes_it() {
    let plain = ignition(render(BastionOs::Fcos, &FirstBoot { user: "core", ..boot(None) }).unwrap().reveal());
    let users = plain.passwd.unwrap().users.unwrap();
    assert_eq!(users[0].name, "core");
    assert_eq!(users[0].ssh_authorized_keys, Some(vec![KEY.to_owned()]));
    let units = plain.systemd.unwrap().units.unwrap();
    let unit = |name: &str| units.iter().find(|unit| unit.name == name).unwrap();
    assert_eq!(unit("zincati.service").mask, Some(true), "no restart in the middle of an installation");
    let printed = unit("bartizan-host-keys.service");
    assert!(printed.enabled == Some(true) && printed.contents.as_ref().unwrap().contains("BEGIN SSH HOST KEY KEYS"));
    assert_eq!(plain.storage, None);

    let key = pair();
    let delivered = ignition(render(BastionOs::Rhcos, &boot(Some(&key))).unwrap().reveal());
    let files = delivered.storage.unwrap().files.unwrap();
    let content = |path: &str| {
        let file = files.iter().find(|file| file.path == path).unwrap();
        let source = file.contents.clone().unwrap().source.unwrap();
        let bytes = BASE64_STANDARD.decode(source.strip_prefix("data:;base64,").unwrap()).unwrap();
        (String::from_utf8(bytes).unwrap(), file.mode.unwrap())
    };
    assert_eq!(content("/etc/ssh/ssh_host_ed25519_key"), (key.private.reveal().to_owned(), 0o600));
    assert_eq!(content("/etc/ssh/ssh_host_ed25519_key.pub"), (format!("{}\n", key.public), 0o644));
}

#[test]
fn no_secret_is_in_it_unless_that_was_chosen() {
    for os in ALL {
        let text = render(os, &boot(None)).unwrap();
        let text = text.reveal();
        // Ignition's own words for what is not set.
        let plain = text.to_lowercase().replace("\"passwd\":", "").replace("\"passwordhash\":null", "");
        for secret in ["private key", "password", "passwd", "auths", "token"] {
            assert!(!plain.contains(secret), "{os:?}: {plain}");
        }
        assert!(text.len() < 4096, "it is the little that is needed before the first login: {}", text.len());
        let long = format!("ssh-rsa {}", "A".repeat(LIMIT));
        let refused = render(os, &FirstBoot { authorized_key: &long, ..boot(None) });
        assert!(matches!(refused, Err(UserDataError::TooLarge { size }) if size > LIMIT));
    }
}

#[test]
fn a_new_key_is_one_that_openssh_reads() {
    let key = pair();
    assert_eq!(public_half(&key.private).unwrap(), key.public);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, key.private.reveal()).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let read = Command::new("ssh-keygen").args(["-y", "-f"]).arg(&file).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&read.stdout).trim(), key.public);
    assert_ne!(pair().public, key.public);
}

/// sshd starts with the delivered key; the rotation gives it one of its own, which alone is trusted from then on. The
/// process may die between any two of its steps.
#[tokio::test]
async fn a_delivered_host_key_is_replaced_on_the_first_login() {
    let sshd = Sshd::start();
    let file = sshd.host_key_file().to_string_lossy().into_owned();
    let delivered: String = sshd.host_key().split(' ').take(2).collect::<Vec<_>>().join(" ");
    let dir = tempfile::tempdir().unwrap();
    let pool = SshPool::new(dir.path()).unwrap();
    let first = pool.add(sshd.target("bastion")).unwrap();
    let run = |host: Arc<dyn Host>, verb: &'static str, rest: Vec<String>| {
        let cmd = Cmd::sh(ROTATE).arg(verb).arg(&file).args(rest);
        async move {
            let output = host.exec(&cmd).await.unwrap();
            assert!(output.ok(), "{}", output.error_text());
            output.text()
        }
    };
    let next = run(first.clone(), "next", vec![delivered.clone()]).await;
    assert!(fingerprint(&next).is_some() && next != delivered, "{next}");
    assert_eq!(run(first.clone(), "next", vec![delivered.clone()]).await, next, "asked again, it makes no other");
    // It is not in use yet: the old key still opens the door.
    assert!(pool.learn_host_key(&sshd.target("bastion")).await.unwrap().contains(&delivered));

    let reload = vec!["kill".to_owned(), "-HUP".to_owned(), sshd.pid().to_string()];
    let swapped = run(first.clone(), "swap", reload.clone()).await;
    assert_eq!(swapped, "");
    assert_eq!(run(first.clone(), "next", vec![delivered.clone()]).await, next, "the open connection goes on");
    run(first.clone(), "swap", reload).await;

    let mut target = sshd.target("bastion");
    target.host_keys = vec![next.clone()];
    let mut shown = Vec::new();
    for _ in 0..100 {
        shown = pool.learn_host_key(&target).await.unwrap_or_default();
        if shown.contains(&next) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(shown, [next.as_str()], "sshd shows the new key alone");
    let second = pool.add(target).unwrap();
    assert!(second.exec(&Cmd::new("true")).await.unwrap().ok());
    let public = std::fs::read_to_string(format!("{file}.pub")).unwrap();
    assert!(public.starts_with(&next), "{public}");

    // Whoever still has the delivered key is nobody now.
    let mut old = sshd.target("bastion");
    old.host_keys = vec![delivered];
    let stranger = pool.add(old).unwrap();
    let refused = stranger.exec(&Cmd::new("true").timeout(Some(std::time::Duration::from_secs(20)))).await;
    assert!(refused.is_err(), "{refused:?}");
}
