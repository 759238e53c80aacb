//! The users of a cluster's operators, when the cloud credential operator is in manual mode: for each secret that the
//! release's CredentialsRequests ask for, one IAM user with one customer-managed policy and one key. (Inline policies of a
//! user end at 2048 characters together, which some requests do not fit in.)
//!
//! Users and policies go through the [`Ledger`] like everything else, at a path of their own. A key is different: its
//! secret is told once, so one whose secret is not known any more is deleted and replaced.

mod request;

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::blueprint::{Item, Made};
use super::ledger::{Ledger, LedgerError};
use super::policy::{LONGEST, Policy};
use super::retry::Repeat;
use super::{AccessKey, Kind, Resource};
use crate::model::event::Object;
use crate::spec::secret::remember;
use crate::spec::{Secret, digest};

pub use request::{Request, RequestError, parse};

/// What one secret of the cluster needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// Of the secret.
    pub namespace: String,
    pub secret: String,
    pub user: String,
    pub policy_name: String,
    pub policy: Policy,
}

/// IAM's longest names.
const USER_NAME: usize = 64;
const POLICY_NAME: usize = 128;

/// The start of all names of one run: other runs may make a cluster of the same name in the same account.
pub fn prefix(cluster: &str, run: &str) -> String {
    format!("{cluster}-{}", short(run))
}

fn short(text: &str) -> String {
    digest(text).trim_start_matches("sha256:").chars().take(8).collect()
}

/// `name`, or its beginning and a digest of all of it when IAM would not take it.
fn cut(name: String, longest: usize) -> String {
    if name.len() <= longest {
        return name;
    }
    let sum = short(&name);
    let start: String = name.chars().take(longest - sum.len() - 1).collect();
    format!("{}-{sum}", start.trim_end_matches(['-', '_', '.']))
}

/// One identity for each secret, in the order of namespaces and names.
///
/// # Errors
/// When a policy is longer than IAM takes: the text says whose.
pub fn identities(prefix: &str, requests: Vec<Request>) -> Result<Vec<Identity>, String> {
    let mut identities = Vec::new();
    for ((namespace, secret), policy) in Request::by_secret(requests) {
        if policy.size() > LONGEST {
            let size = policy.size();
            return Err(format!(
                "the policy for the secret {namespace}/{secret} has {size} characters; IAM takes {LONGEST}"
            ));
        }
        identities.push(Identity {
            user: cut(format!("{prefix}-{namespace}-{secret}"), USER_NAME),
            policy_name: cut(format!("{prefix}_policy_{namespace}_{secret}"), POLICY_NAME),
            namespace,
            secret,
            policy,
        });
    }
    Ok(identities)
}

/// The policies and users in creation order.
pub fn items(run: &str, identities: &[Identity]) -> Vec<Item> {
    // The operator's own permissions end at /bartizan/ (assets/permissions.toml).
    let path = format!("/bartizan/{run}/");
    let policy = |identity: &Identity| {
        Item::new(Kind::Policy, &identity.policy_name)
            .with("PolicyName", &identity.policy_name)
            .with("Path", &path)
            .with("PolicyDocument", identity.policy.text())
            .then("PolicyDocument", identity.policy.text())
    };
    let user = |identity: &Identity| {
        Item::new(Kind::User, &identity.user)
            .with("UserName", &identity.user)
            .with("Path", &path)
            .then("PolicyArn", format!("{{{}}}", identity.policy_name))
    };
    identities.iter().flat_map(|identity| [policy(identity), user(identity)]).collect()
}

/// The ids of a user's keys.
pub fn keys(user: &Resource) -> Vec<&str> {
    user.property("AccessKeyIds").into_iter().flat_map(|ids| ids.split(',')).filter(|id| !id.is_empty()).collect()
}

/// The manifest of a secret with a key in it, as `ccoctl` and the cloud credential operator write it
/// (openshift/cloud-credential-operator, `pkg/operator/secretannotator`).
pub fn manifest(identity: &Identity, key: &AccessKey) -> Secret {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    Secret::holding(format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {}\n  namespace: {}\ntype: Opaque\nstringData:\n  \
         aws_access_key_id: {}\n  aws_secret_access_key: {}\n",
        identity.secret,
        identity.namespace,
        quoted(&key.id),
        quoted(key.secret.reveal()),
    ))
}

/// Name of the file that holds a [`manifest`].
pub fn manifest_name(identity: &Identity) -> String {
    format!("{}-{}-credentials.yaml", identity.namespace, identity.secret)
}

/// What a manifest holds: namespace and name of the secret, and the id of its key. Values of the secret are known to the
/// redactor from here on, also in a process that did not make them.
pub fn read_manifest(text: &str) -> Option<(String, String, Option<String>)> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Manifest {
        kind: String,
        metadata: Metadata,
        #[serde(default)]
        data: BTreeMap<String, String>,
        #[serde(default)]
        string_data: BTreeMap<String, String>,
    }
    #[derive(serde::Deserialize)]
    struct Metadata {
        name: String,
        namespace: String,
    }
    const ID: &str = "aws_access_key_id";
    let manifest: Manifest = yaml_serde::from_str(text).ok()?;
    if manifest.kind != "Secret" {
        return None;
    }
    for value in manifest.data.values() {
        remember(value);
        let decoded = BASE64_STANDARD.decode(value).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        remember(decoded.as_deref().unwrap_or_default());
    }
    // An id is no secret, and is in the record.
    manifest.string_data.iter().filter(|(name, _)| name.as_str() != ID).for_each(|(_, value)| remember(value));
    let id = manifest.string_data.get(ID).cloned();
    Some((manifest.metadata.namespace, manifest.metadata.name, id))
}

impl Ledger {
    /// Policies and users, made or adopted.
    ///
    /// # Errors
    /// When IAM could not be asked, or refuses.
    pub async fn ensure_users(&self, run: &str, identities: &[Identity]) -> Result<Made, LedgerError> {
        let mut made = Made::new();
        self.apply(&items(run, identities), &mut made).await?;
        Ok(made)
    }

    /// See to it that a user has no key but the one whose secret is known: `held` is its id. Without such a one a new key
    /// is made; the caller writes its secret down before it asks for the next.
    ///
    /// # Errors
    /// When IAM could not be asked, or refuses.
    pub async fn ensure_key(&self, user: &str, held: Option<&str>) -> Result<Option<AccessKey>, LedgerError> {
        let object = Object { kind: Kind::User.as_str().to_owned(), name: user.to_owned() };
        let found = self.look(&object, Kind::User, user).await?;
        let kept = held.filter(|held| keys(&found).contains(held));
        // Left by a process that died before it had written the secret down, or that never heard the answer.
        for stray in keys(&found).into_iter().filter(|id| Some(*id) != kept) {
            let call = format!("iam:DeleteAccessKey UserName={user} AccessKeyId={stray}");
            self.retrying(&call, || self.caller.cloud.delete_access_key(user, stray)).await?;
        }
        if kept.is_some() {
            return Ok(None);
        }
        let call = format!("iam:CreateAccessKey UserName={user}");
        self.patiently(&call, Repeat::MakesAnother, || self.caller.cloud.create_access_key(user)).await.map(Some)
    }
}
