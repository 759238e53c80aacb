//! The cluster itself: operators, version, nodes, machines and signing requests, through its API.
//!
//! [`Kind::observe`] turns an object into what is shown of it; it is the same for objects that a watch brings
//! ([`api`]) and for those that `oc get -o json` prints. Nothing here knows how the API is reached.

pub mod api;
pub mod csr;
pub mod nodes;
pub mod operators;
pub mod pods;
pub mod warnings;

pub use api::{ApiError, ClusterApi, follow};

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::Value;

use crate::model::event::{self as model, Observed, Tri, Vanished};
use crate::model::text::one_line;

/// Longest message that is kept, in bytes.
pub(crate) const MESSAGE_LIMIT: usize = 4096;
/// The same of the message that an operator's row shows: some list the errors of every node.
const LINES_LIMIT: usize = 16 * 1024;

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Operators,
    Version,
    Nodes,
    Csrs,
    Machines,
    Pools,
    /// The Events of type Warning.
    Warnings,
}

impl Kind {
    pub const ALL: [Kind; 7] =
        [Kind::Operators, Kind::Version, Kind::Nodes, Kind::Csrs, Kind::Machines, Kind::Pools, Kind::Warnings];

    /// API group, version, kind and plural.
    pub fn resource(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Kind::Operators => ("config.openshift.io", "v1", "ClusterOperator", "clusteroperators"),
            Kind::Version => ("config.openshift.io", "v1", "ClusterVersion", "clusterversions"),
            Kind::Nodes => ("", "v1", "Node", "nodes"),
            Kind::Csrs => ("certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests"),
            Kind::Machines => ("machine.openshift.io", "v1beta1", "Machine", "machines"),
            Kind::Pools => ("machineconfiguration.openshift.io", "v1", "MachineConfigPool", "machineconfigpools"),
            Kind::Warnings => ("", "v1", "Event", "events"),
        }
    }

    /// Which objects of the resource are meant; `None` means all.
    pub fn field_selector(self) -> Option<&'static str> {
        (self == Kind::Warnings).then_some("type=Warning")
    }

    /// Whether its objects are in namespaces.
    pub fn is_namespaced(self) -> bool {
        matches!(self, Kind::Machines | Kind::Warnings)
    }

    /// As `oc get` knows it, unmistakably.
    pub fn oc_name(self) -> String {
        let (group, version, _, plural) = self.resource();
        if group.is_empty() { plural.to_owned() } else { format!("{plural}.{version}.{group}") }
    }

    /// What is shown of an object of this kind.
    ///
    /// # Errors
    /// When it has not the shape of its kind; says where.
    pub fn observe(self, object: &Value) -> Result<Observed, ParseError> {
        match self {
            Kind::Operators => operators::operator(object).map(Observed::Operator),
            Kind::Version => operators::version(object).map(Observed::ClusterVersion),
            Kind::Nodes => nodes::node(object),
            Kind::Csrs => csr::Request::parse(object).map(|request| request.observed()),
            Kind::Machines => nodes::machine(object),
            Kind::Pools => nodes::pool(object),
            Kind::Warnings => warnings::warning(object).map(Observed::Warned),
        }
    }

    /// What is to be said when an object of this kind is no longer there.
    pub fn gone(self, name: &str) -> Option<Observed> {
        let name = name.to_owned();
        let what = match self {
            Kind::Operators => return Some(Observed::OperatorGone { name }),
            Kind::Nodes => Vanished::Node,
            Kind::Csrs => Vanished::Csr,
            Kind::Machines => Vanished::Machine,
            Kind::Pools => Vanished::Pool,
            // The one object of its kind stays; Events go after three hours, and with them nothing.
            Kind::Version | Kind::Warnings => return None,
        };
        Some(Observed::Gone { what, name })
    }
}

/// An object that is not what its kind promises.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ParseError {
    #[error("{what} is no JSON: {why} at line {line}, column {column}")]
    Json { what: &'static str, line: usize, column: usize, why: String },
    #[error("{what} {name:?}: {why}")]
    Shape { what: &'static str, name: String, why: String },
    #[error("{what} has no metadata.name")]
    Nameless { what: &'static str },
}

/// The objects of what `oc get KIND -o json` prints.
///
/// # Errors
/// When it is not a list in JSON.
pub fn list(output: &[u8]) -> Result<Vec<Value>, ParseError> {
    #[derive(Deserialize)]
    struct List {
        items: Vec<Value>,
    }
    serde_json::from_slice::<List>(output).map(|list| list.items).map_err(|error| ParseError::Json {
        what: "the list of objects",
        line: error.line(),
        column: error.column(),
        why: error.to_string().split(" at line ").next().unwrap_or_default().to_owned(),
    })
}

/// An object read into the few fields that are needed.
pub(crate) fn view<T: serde::de::DeserializeOwned>(
    what: &'static str,
    object: &Value,
) -> Result<(String, T), ParseError> {
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    if name.is_empty() {
        return Err(ParseError::Nameless { what });
    }
    let name = one_line(name, 253);
    T::deserialize(object).map(|view| (name.clone(), view)).map_err(|error| ParseError::Shape {
        what,
        name,
        why: one_line(&error.to_string(), 300),
    })
}

/// A condition of a status.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: Option<String>,
    pub message: Option<String>,
    pub last_transition_time: Option<String>,
}

impl Condition {
    /// Its message, or its reason when the message is empty; one clean line.
    pub fn text(&self) -> String {
        one_line(self.words(), MESSAGE_LIMIT)
    }

    fn words(&self) -> &str {
        let message = self.message.as_deref().filter(|message| !message.trim().is_empty());
        message.or(self.reason.as_deref()).unwrap_or_default()
    }

    /// As [`Condition::text`], each line of it still a line.
    pub fn lines(&self) -> String {
        let lines = self.words().split(['\n', '\r', '\u{c}']).map(|line| one_line(line, LINES_LIMIT));
        let mut text = lines.collect::<Vec<_>>().join("\n");
        text.truncate(text.floor_char_boundary(LINES_LIMIT));
        text
    }

    pub fn observed(&self) -> model::Condition {
        model::Condition {
            kind: one_line(&self.kind, 100),
            status: status(Some(&self.status)),
            reason: one_line(self.reason.as_deref().unwrap_or_default(), 200),
            message: one_line(self.message.as_deref().unwrap_or_default(), MESSAGE_LIMIT),
            since: self.last_transition_time.as_deref().and_then(|at| at.parse().ok()),
        }
    }
}

pub(crate) fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.kind == kind)
}

pub(crate) fn tri(conditions: &[Condition], kind: &str) -> Tri {
    status(condition(conditions, kind).map(|condition| condition.status.as_str()))
}

fn status(word: Option<&str>) -> Tri {
    match word {
        Some("True") => Tri::True,
        Some("False") => Tri::False,
        Some("Unknown") => Tri::Unknown,
        _ => Tri::Absent,
    }
}

/// What was last said of every object, so that only changes are said. Shared by all who watch the same cluster.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    said: Arc<Mutex<BTreeMap<(Kind, String), Observed>>>,
}

impl Changes {
    pub fn new() -> Self {
        Self::default()
    }

    /// Take note of it; give it back when it is new.
    pub fn changed(&self, kind: Kind, name: &str, observed: Observed) -> Option<Observed> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (kind, name.to_owned());
        let known = match (said.get(&key), &observed) {
            // A warning that is seen again and again is worth a word when it was seen twice as often.
            (Some(Observed::Warned(before)), Observed::Warned(now)) => {
                before.about == now.about
                    && before.message == now.message
                    && (before.count..before.count.saturating_mul(2).max(2)).contains(&now.count)
            }
            (before, now) => before == Some(now),
        };
        if known {
            return None;
        }
        said.insert(key, observed.clone());
        Some(observed)
    }

    /// An object went away.
    pub fn gone(&self, kind: Kind, name: &str) -> Option<Observed> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.remove(&(kind, name.to_owned()))?;
        kind.gone(name)
    }

    /// Only these are left of a kind.
    pub fn only(&self, kind: Kind, names: &std::collections::BTreeSet<String>) -> Vec<Observed> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let lost: Vec<String> = said
            .keys()
            .filter(|(of, name)| *of == kind && !names.contains(name))
            .map(|(_, name)| name.clone())
            .collect();
        drop(said);
        lost.iter().filter_map(|name| self.gone(kind, name)).collect()
    }
}
