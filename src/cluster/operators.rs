//! ClusterOperator and ClusterVersion as `oc get co` and `oc get clusterversion` show them, and which operator is at
//! the root of the trouble of others.
//!
//! The columns follow the CRD's printer columns (openshift/api, config/v1); MESSAGE is not among them but computed by
//! OpenShift's kube-apiserver, and so it is here.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use jiff::{SignedDuration, Timestamp};
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use crate::model::event::{ClusterVersion, Operator, Tri};
use crate::model::text::one_line;

use super::{Condition, MESSAGE_LIMIT, ParseError, condition, tri, view};

#[derive(Default, Deserialize)]
#[serde(default)]
struct OperatorObject {
    status: OperatorStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OperatorStatus {
    versions: Vec<OperandVersion>,
    conditions: Vec<Condition>,
    #[serde(rename = "relatedObjects")]
    related: Vec<Related>,
}

/// Something that the operator looks after.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Related {
    resource: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OperandVersion {
    name: String,
    version: String,
}

/// Read a ClusterOperator.
///
/// # Errors
/// When it has not that shape.
pub fn operator(object: &Value) -> Result<Operator, ParseError> {
    let (name, OperatorObject { status }) = view("clusteroperator", object)?;
    let conditions = &status.conditions;
    let (available, progressing, degraded) =
        (tri(conditions, "Available"), tri(conditions, "Progressing"), tri(conditions, "Degraded"));
    let telling = if available == Tri::False {
        condition(conditions, "Available")
    } else if degraded == Tri::True {
        condition(conditions, "Degraded")
    } else if progressing == Tri::True {
        condition(conditions, "Progressing")
    } else {
        None
    };
    let version = status.versions.iter().find(|version| version.name == "operator");
    let namespaces = status.related.iter().filter(|related| related.resource == "namespaces");
    Ok(Operator {
        name,
        version: version.map(|version| one_line(&version.version, 100)).filter(|version| !version.is_empty()),
        available,
        progressing,
        degraded,
        since: condition(conditions, "Available")
            .and_then(|condition| condition.last_transition_time.as_deref()?.parse::<Timestamp>().ok()),
        message: telling.map(Condition::lines).unwrap_or_default(),
        conditions: conditions.iter().map(Condition::observed).collect(),
        namespaces: namespaces.map(|related| one_line(&related.name, 100)).collect(),
    })
}

/// The columns of `oc get co`, in its order: name, version, available, progressing, degraded, since, message.
pub const COLUMNS: usize = 7;

/// A row of `oc get co` as it is printed at `now`: nothing for what is absent, SINCE as Kubernetes prints ages, of a
/// message only the first line (k8s.io/cli-runtime, pkg/printers/tableprinter.go).
pub fn row(operator: &Operator, now: Timestamp) -> [String; COLUMNS] {
    let word = |tri: Tri| match tri {
        Tri::True => "True",
        Tri::False => "False",
        Tri::Unknown => "Unknown",
        Tri::Absent => "",
    };
    let message = match operator.message.split_once('\n') {
        Some((first, _)) => format!("{first}..."),
        None => operator.message.clone(),
    };
    [
        operator.name.clone(),
        operator.version.clone().unwrap_or_default(),
        word(operator.available).to_owned(),
        word(operator.progressing).to_owned(),
        word(operator.degraded).to_owned(),
        operator.since.map(|since| age(now.duration_since(since))).unwrap_or_default(),
        message,
    ]
}

/// An age as Kubernetes prints it (k8s.io/apimachinery, pkg/util/duration/duration.go, HumanDuration).
pub fn age(age: SignedDuration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    let pair = |one: i64, unit: char, rest: i64, small: char| match rest {
        0 => format!("{one}{unit}"),
        rest => format!("{one}{unit}{rest}{small}"),
    };
    match seconds {
        // Clocks differ a little.
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => pair(years, 'y', days % 365, 'd'),
        252_288_000.. => format!("{years}y"),
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct VersionObject {
    status: VersionStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct VersionStatus {
    desired: Desired,
    conditions: Vec<Condition>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Desired {
    version: String,
}

/// Read a ClusterVersion.
///
/// # Errors
/// When it has not that shape.
pub fn version(object: &Value) -> Result<ClusterVersion, ParseError> {
    let (_, VersionObject { status }) = view("clusterversion", object)?;
    let conditions = &status.conditions;
    let text = |kind: &str| {
        let message = condition(conditions, kind).and_then(|condition| condition.message.as_deref());
        one_line(message.unwrap_or_default(), MESSAGE_LIMIT)
    };
    let failing = tri(conditions, "Failing");
    let message = text("Progressing");
    Ok(ClusterVersion {
        desired: one_line(&status.desired.version, 100),
        available: tri(conditions, "Available"),
        progressing: tri(conditions, "Progressing"),
        failing,
        done: progress(&message).and_then(|progress| progress.done),
        failing_message: if failing == Tri::True { text("Failing") } else { String::new() },
        message,
    })
}

/// What a Progressing message of the ClusterVersion tells.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    pub version: String,
    /// Manifests done, of how many.
    pub done: Option<(u32, u32)>,
    /// The rest, such as `waiting on authentication, console`.
    pub rest: Option<String>,
}

static WORKING: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^Working towards (\S+?):?(?: (\d+) of (\d+) done \((\d+)% complete\))?(?:, (.*))?$").ok()
});

/// Read `Working towards 4.20.3: 731 of 959 done (76% complete), waiting on console`.
pub fn progress(message: &str) -> Option<Progress> {
    let found = WORKING.as_ref()?.captures(message)?;
    let number = |group: usize| found.get(group)?.as_str().parse().ok();
    Some(Progress {
        version: found.get(1)?.as_str().to_owned(),
        done: number(2).zip(number(3)),
        rest: found.get(5).map(|rest| rest.as_str().to_owned()),
    })
}

/// The installation is over: Available, not failing, nothing more to do.
pub fn is_installed(version: &ClusterVersion) -> bool {
    version.available == Tri::True && version.failing != Tri::True && version.progressing == Tri::False
}

/// How an operator stands, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    Ok,
    /// The operator has not said anything yet: its object was made beforehand.
    Pending,
    Progressing,
    Degraded,
    Unavailable,
}

pub fn health(operator: &Operator) -> Health {
    match operator {
        Operator { available: Tri::Absent, progressing: Tri::Absent, degraded: Tri::Absent, .. } => Health::Pending,
        Operator { available: Tri::False | Tri::Unknown | Tri::Absent, .. } => Health::Unavailable,
        Operator { degraded: Tri::True, .. } => Health::Degraded,
        Operator { progressing: Tri::True, .. } => Health::Progressing,
        _ => Health::Ok,
    }
}

/// What an operator cannot work without, for the operators that are seen to suffer for others.
const NEEDS: [(&str, &[&str]); 7] = [
    ("console", &["authentication", "ingress"]),
    ("authentication", &["ingress", "openshift-apiserver"]),
    ("ingress", &[WORKERS]),
    ("monitoring", &[WORKERS]),
    ("image-registry", &[WORKERS]),
    ("openshift-apiserver", &["kube-apiserver"]),
    ("kube-apiserver", &["etcd"]),
];

/// Not an operator: nodes on which pods of users may run.
pub const WORKERS: &str = "workers";
/// Nothing works without it.
const NETWORK: &str = "network";

/// An operator in trouble.
#[derive(Debug, Clone, PartialEq)]
pub struct Trouble {
    pub name: String,
    pub health: Health,
    /// The operator upstream that explains it ([`WORKERS`] when no node takes pods of users); none for a root.
    pub because: Option<String>,
}

/// Operators that are not well: roots first, then the worst first, then by name.
pub fn troubles<'a>(operators: impl IntoIterator<Item = &'a Operator>, workers_ready: usize) -> Vec<Trouble> {
    let health: BTreeMap<&str, Health> =
        operators.into_iter().map(|operator| (operator.name.as_str(), health(operator))).collect();
    let ill = |name: &str| match name {
        WORKERS => workers_ready == 0,
        name => health.get(name).is_some_and(|health| *health >= Health::Degraded),
    };
    let mut troubles: Vec<Trouble> = health
        .iter()
        .filter(|(_, health)| **health > Health::Pending)
        .map(|(name, health)| Trouble { name: (*name).to_owned(), health: *health, because: root(name, &ill) })
        .collect();
    troubles.sort_by_key(|trouble| (trouble.because.is_some(), Reverse(trouble.health), trouble.name.clone()));
    troubles
}

/// The furthest ill thing upstream of `name`.
fn root(name: &str, ill: &dyn Fn(&str) -> bool) -> Option<String> {
    if name != NETWORK && ill(NETWORK) {
        return Some(NETWORK.to_owned());
    }
    let mut cause = None;
    let mut at = name.to_owned();
    // The table has no circle; the bound is for the day when someone draws one.
    for _ in 0..NEEDS.len() {
        let needs = NEEDS.iter().find(|(operator, _)| *operator == at).map_or(&[][..], |(_, needs)| needs);
        let Some(upstream) = needs.iter().find(|need| ill(need)) else { break };
        at = (*upstream).to_owned();
        cause = Some(at.clone());
    }
    cause
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, available: Tri, progressing: Tri, degraded: Tri) -> Operator {
        Operator { name: name.into(), available, progressing, degraded, ..Operator::default() }
    }

    #[test]
    fn the_root_is_named_and_comes_first() {
        let operators = [
            named("console", Tri::False, Tri::False, Tri::True),
            named("authentication", Tri::False, Tri::False, Tri::True),
            named("ingress", Tri::False, Tri::True, Tri::True),
            named("etcd", Tri::True, Tri::False, Tri::False),
            named("dns", Tri::True, Tri::True, Tri::False),
            named("olm", Tri::Absent, Tri::Absent, Tri::Absent),
        ];
        let found: Vec<_> =
            troubles(&operators, 2).into_iter().map(|trouble| (trouble.name, trouble.because)).collect();
        let because = |name: &str| Some(name.to_owned());
        assert_eq!(
            found,
            [
                ("ingress".to_owned(), None),
                ("dns".to_owned(), None),
                ("authentication".to_owned(), because("ingress")),
                ("console".to_owned(), because("ingress")),
            ]
        );
        assert_eq!(troubles(&operators, 0).last().unwrap().because, because(WORKERS));
    }

    #[test]
    fn working_towards_in_all_its_forms() {
        let full =
            progress("Working towards 4.20.3: 731 of 959 done (76% complete), waiting on authentication, console");
        let full = full.unwrap();
        assert_eq!((full.version.as_str(), full.done), ("4.20.3", Some((731, 959))));
        assert_eq!(full.rest.as_deref(), Some("waiting on authentication, console"));
        assert_eq!(progress("Working towards 4.20.3").unwrap().done, None);
        assert_eq!(progress("Cluster version is 4.20.3"), None);
    }
}
