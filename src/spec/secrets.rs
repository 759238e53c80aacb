//! The secrets that a spec points to. They are read once, and every value inside them is known to the redactor from then
//! on.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::rand::SecureRandom;
use serde_json::{Value, json};

use super::Spec;
use super::secret::{Secret, remember};

/// What is needed of the operator's secrets.
#[derive(Clone)]
pub struct Secrets {
    /// The Red Hat pull secret, compact JSON.
    pub pull_secret: Secret,
    /// Of `mirror.password_file`; `None` when bartizan is to make one up ([`generate_password`]).
    pub mirror_password: Option<Secret>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error("{file} cannot be read: {why}")]
    Unreadable { file: String, why: String },
    #[error("it is not JSON; save the pull secret as console.redhat.com gives it")]
    NotJson,
    #[error("it has no \"auths\"; save the whole pull secret, not a part of it")]
    NoAuths,
    #[error("its entry for {0} has no usable \"auth\" (base64 of user:password); get the pull secret anew")]
    BadAuth(String),
}

impl Secrets {
    pub fn load(spec: &Spec) -> Result<Self, SecretError> {
        let read = |path: &std::path::Path| {
            std::fs::read_to_string(path).map_err(|error| SecretError::Unreadable {
                file: path.display().to_string(),
                why: error.kind().to_string(),
            })
        };
        let pull_secret = parse_pull_secret(&read(&spec.credentials.pull_secret)?)?;
        let password = spec.mirror.password_file.as_deref().map(read).transpose()?;
        let mirror_password = password.map(|text| Secret::new(text.trim_end_matches(['\r', '\n'])));
        Ok(Self { pull_secret, mirror_password })
    }
}

/// Check a pull secret and make it compact (a `dockerconfigjson`: `{"auths": {"quay.io": {"auth": "…"}}}`).
pub fn parse_pull_secret(text: &str) -> Result<Secret, SecretError> {
    let value: Value = serde_json::from_str(text).map_err(|_| SecretError::NotJson)?;
    let auths = value.get("auths").and_then(Value::as_object).filter(|auths| !auths.is_empty());
    for (registry, entry) in auths.ok_or(SecretError::NoAuths)? {
        let bad = || SecretError::BadAuth(registry.chars().filter(|c| !c.is_control()).take(80).collect());
        let auth = entry.get("auth").and_then(Value::as_str).ok_or_else(bad)?;
        let decoded = BASE64_STANDARD.decode(auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let (_, password) = decoded.as_deref().and_then(|text| text.split_once(':')).ok_or_else(bad)?;
        remember(auth);
        remember(password);
    }
    Ok(Secret::new(value.to_string()))
}

/// The auth entries of a pull secret by registry; each value is the base64 text.
pub fn auths(pull_secret: &Secret) -> BTreeMap<String, Secret> {
    let value: Value = serde_json::from_str(pull_secret.reveal()).unwrap_or_default();
    let entries = value.get("auths").and_then(Value::as_object);
    entries
        .into_iter()
        .flatten()
        .filter_map(|(registry, entry)| Some((registry.clone(), Secret::new(entry.get("auth")?.as_str()?))))
        .collect()
}

/// A pull secret that knows only `registry` (`host:port`): all that a node needs which reaches nothing else.
pub fn mirror_pull_secret(registry: &str, user: &str, password: &Secret) -> Secret {
    let auth = basic_auth(user, password);
    Secret::new(json!({ "auths": { registry: { "auth": auth.reveal() } } }).to_string())
}

/// `pull_secret` with an entry for `registry` (`host:port`) added or replaced.
pub fn merge_pull_secret(
    pull_secret: &Secret,
    registry: &str,
    user: &str,
    password: &Secret,
) -> Result<Secret, SecretError> {
    let mut value: Value = serde_json::from_str(pull_secret.reveal()).map_err(|_| SecretError::NotJson)?;
    let auths = value.get_mut("auths").and_then(Value::as_object_mut).ok_or(SecretError::NoAuths)?;
    auths.insert(registry.to_owned(), json!({ "auth": basic_auth(user, password).reveal() }));
    Ok(Secret::new(value.to_string()))
}

fn basic_auth(user: &str, password: &Secret) -> Secret {
    Secret::new(BASE64_STANDARD.encode(format!("{user}:{}", password.reveal())))
}

/// A password that nobody has to type: 32 characters that no shell, URL or htpasswd file needs to quote.
pub fn generate_password() -> Result<Secret, ring::error::Unspecified> {
    let mut bytes = [0u8; 24];
    ring::rand::SystemRandom::new().fill(&mut bytes)?;
    Ok(Secret::new(base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(bytes)))
}
