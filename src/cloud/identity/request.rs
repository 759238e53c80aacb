//! CredentialsRequests: what each of the cluster's operators asks to be allowed, as the release has it
//! (openshift/cloud-credential-operator, `pkg/apis/cloudcredential/v1`). Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::cloud::policy::{Effect, Policy, Statement};

/// One request for AWS.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub name: String,
    /// Where its secret has to be.
    pub namespace: String,
    pub secret: String,
    pub statements: Vec<Statement>,
}

/// What is wrong with a file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {at}: {why}")]
pub struct RequestError {
    pub file: String,
    /// `document 2`, and the line when it is known.
    pub at: String,
    pub why: String,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: Metadata,
    spec: Option<Spec>,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    secret_ref: SecretRef,
    provider_spec: Option<ProviderSpec>,
}

#[derive(Deserialize)]
struct SecretRef {
    name: String,
    namespace: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProviderSpec {
    kind: String,
    /// Of other providers too, where it means other things.
    #[serde(default)]
    statement_entries: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    effect: Effect,
    action: Vec<String>,
    resource: String,
    #[serde(default)]
    policy_condition: Map<String, Value>,
}

/// The requests for AWS in a file; a file may hold several documents, also for other clouds. What belongs to another
/// feature set or cluster profile is left out: `oc` without `--included` gives that too, and a secret for a namespace that
/// will never be there breaks the bootstrap.
pub fn parse(file: &str, text: &str) -> Result<Vec<Request>, RequestError> {
    let mut requests = Vec::new();
    for (index, document) in yaml_serde::Deserializer::from_str(text).enumerate() {
        let at = format!("document {}", index + 1);
        let wrong = |why: String| RequestError { file: file.to_owned(), at: at.clone(), why };
        let document =
            Option::<Document>::deserialize(document).map_err(|error| wrong(format!("it cannot be read: {error}")))?;
        let Some(document) = document.filter(|document| document.kind == "CredentialsRequest") else { continue };
        let wrong = |why: String| {
            let name = document.metadata.name.clone();
            RequestError { file: file.to_owned(), at: format!("{at} ({name})"), why }
        };
        let spec = document.spec.as_ref().ok_or_else(|| wrong("it has no spec".into()))?;
        let provider = spec.provider_spec.as_ref().filter(|provider| provider.kind == "AWSProviderSpec");
        let Some(provider) = provider.filter(|_| is_included(&document.metadata.annotations)) else { continue };
        let entry = |(index, entry): (usize, &Value)| {
            let entry: Entry = serde_json::from_value(entry.clone())
                .map_err(|error| wrong(format!("spec.providerSpec.statementEntries[{index}]: {error}")))?;
            Ok(Statement {
                sid: None,
                effect: entry.effect,
                action: entry.action,
                resource: vec![entry.resource],
                condition: entry.policy_condition,
            })
        };
        let statements = provider.statement_entries.iter().enumerate().map(entry).collect::<Result<Vec<_>, _>>()?;
        if statements.is_empty() || statements.iter().any(|statement| statement.action.is_empty()) {
            return Err(wrong("it asks for no action (spec.providerSpec.statementEntries)".into()));
        }
        for (what, name) in [("name", &spec.secret_ref.name), ("namespace", &spec.secret_ref.namespace)] {
            if !is_name(name) {
                return Err(wrong(format!("spec.secretRef.{what} is not a name that Kubernetes takes")));
            }
        }
        requests.push(Request {
            name: document.metadata.name.clone(),
            namespace: spec.secret_ref.namespace.clone(),
            secret: spec.secret_ref.name.clone(),
            statements,
        });
    }
    Ok(requests)
}

/// RFC 1123 subdomain; it also becomes part of a path.
fn is_name(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    (1..=253).contains(&text.len()) && text.bytes().all(good) && !text.starts_with(['-', '.']) && !text.contains("..")
}

/// Part of a self-managed cluster with the default features (openshift/library-go, `pkg/manifest/manifest.go`).
fn is_included(annotations: &BTreeMap<String, String>) -> bool {
    let says = |name: &str, wanted: &str| annotations.get(name).is_some_and(|value| value == wanted);
    let features = annotations.get("release.openshift.io/feature-set");
    let default = features.is_none_or(|sets| sets.is_empty() || sets.split(',').any(|set| set.trim() == "Default"));
    let mut profiles = annotations.keys().filter(|name| name.starts_with("include.release.openshift.io/")).peekable();
    let ours = profiles.peek().is_none() || says("include.release.openshift.io/self-managed-high-availability", "true");
    default && ours && !says("release.openshift.io/delete", "true")
}

impl Request {
    /// The statements of all requests for one secret: it holds one key.
    pub fn by_secret(requests: Vec<Self>) -> BTreeMap<(String, String), Policy> {
        let mut policies: BTreeMap<(String, String), Policy> = BTreeMap::new();
        for request in requests {
            let policy = policies.entry((request.namespace, request.secret)).or_insert_with(|| Policy::new(Vec::new()));
            for statement in request.statements {
                if !policy.statement.contains(&statement) {
                    policy.statement.push(statement);
                }
            }
        }
        policies
    }
}
