//! cloud-config of cloud-init (module reference: `cc_ssh`, `cc_users_groups`).

use yaml_serde::{Mapping, Value};

use super::{FirstBoot, UserDataError};

const BASE: &str = include_str!("../../../assets/userdata/cloud-config.yaml");
/// cloud-init knows its own by the first line.
const HEADER: &str = "#cloud-config\n";

pub(super) fn render(boot: &FirstBoot<'_>) -> Result<String, UserDataError> {
    let broken = |error: yaml_serde::Error| UserDataError::Broken(error.to_string());
    let mut config: Mapping = yaml_serde::from_str(BASE).map_err(broken)?;
    let keys = vec![Value::from(boot.authorized_key)];
    config.insert("ssh_authorized_keys".into(), Value::Sequence(keys));
    if let Some(key) = boot.host_key {
        // With keys that are given, cloud-init makes none of its own.
        let mut pair = Mapping::new();
        pair.insert("ed25519_private".into(), key.private.reveal().into());
        pair.insert("ed25519_public".into(), key.public.as_str().into());
        config.insert("ssh_keys".into(), Value::Mapping(pair));
    }
    // The image's own login, unless it is to be another one.
    if boot.user != "ec2-user" {
        let mut user = Mapping::new();
        user.insert("name".into(), boot.user.into());
        user.insert("lock_passwd".into(), true.into());
        user.insert("sudo".into(), "ALL=(ALL) NOPASSWD:ALL".into());
        user.insert("ssh_authorized_keys".into(), Value::Sequence(vec![boot.authorized_key.into()]));
        config.insert("users".into(), Value::Sequence(vec!["default".into(), Value::Mapping(user)]));
    }
    let body = yaml_serde::to_string(&config).map_err(broken)?;
    Ok(format!("{HEADER}{body}"))
}
