//! The record against the cloud: what is recorded and gone, what is not as it was made, what carries the run's tag and is
//! not recorded, what a cluster has left. Changes nothing and records nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::blueprint::{Item, Made, answer, fill};
use super::ledger::LedgerError;
use super::retry::{Caller, Patience};
use super::teardown::OF_A_CLUSTER;
use super::{Cloud, Kind, Resource, Tags};
use crate::model::event::Object;
use crate::model::run::{ObjectRecord, RunModel};

/// How the cloud differs from the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sort {
    /// Recorded, and gone.
    Missing,
    /// Not as it was made: an attribute, a rule, a route.
    Changed,
    /// Something that nobody asked for was added: a rule, a route.
    Added,
    /// Asked for, and nobody knows whether it was made.
    Unanswered,
    /// It carries the run's tag and is not recorded.
    Orphan,
    /// It carries the tag of a cluster that is gone.
    Leftover,
}

impl Sort {
    pub fn as_str(self) -> &'static str {
        match self {
            Sort::Missing => "missing",
            Sort::Changed => "changed",
            Sort::Added => "added",
            Sort::Unanswered => "unanswered",
            Sort::Orphan => "orphan",
            Sort::Leftover => "leftover",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Difference {
    pub sort: Sort,
    pub kind: Kind,
    pub name: String,
    /// Empty where it is not known.
    pub id: String,
    /// What is so, against what should be.
    pub says: String,
}

/// What was looked at, and what differs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// Recorded things that are there, as they were made.
    pub agreeing: usize,
    /// By what differs, kind and name.
    pub differences: Vec<Difference>,
}

/// What the comparison is about.
pub struct Subject<'a> {
    pub model: &'a RunModel,
    /// What the spec wants, in creation order. Values in angle brackets are not known and not compared.
    pub items: &'a [Item],
    /// Of the cluster, and whether it is gone as far as the record knows.
    pub cluster: Option<(&'a str, bool)>,
}

/// Compare. An error means that the cloud could not be asked.
pub async fn compare(cloud: Arc<dyn Cloud>, patience: Patience, subject: &Subject<'_>) -> Result<Drift, LedgerError> {
    let caller = Caller::new(cloud, CancellationToken::new(), patience);
    let mut drift = Drift::default();
    let mut made = Made::new();
    let items: BTreeMap<&str, &Item> = subject.items.iter().map(|item| (item.name.as_str(), item)).collect();
    let mut standing: Vec<(Kind, &Object, &ObjectRecord)> = subject
        .model
        .objects
        .iter()
        .filter(|(_, record)| record.gone.is_none())
        .filter_map(|(object, record)| Some((Kind::parse(&object.kind)?, object, record)))
        .collect();
    // What refers stands after what it refers to.
    standing.sort_by_key(|(.., record)| record.order);
    let mut known = BTreeSet::new();
    for (kind, object, record) in standing {
        let difference = |sort: Sort, says: String| Difference {
            sort,
            kind,
            name: object.name.clone(),
            id: record.id.clone().unwrap_or_default(),
            says,
        };
        let Some(id) = &record.id else {
            drift.differences.push(difference(Sort::Unanswered, "it was asked for, and no answer was recorded".into()));
            continue;
        };
        known.insert((kind, id.clone()));
        let Some(resource) = caller.alive(kind, id).await? else {
            drift.differences.push(difference(Sort::Missing, "it is recorded and not there".into()));
            continue;
        };
        let before = drift.differences.len();
        if !resource.is_ready() {
            drift.differences.push(difference(Sort::Changed, format!("it is {}", resource.state)));
        }
        if let Some(item) = items.get(object.name.as_str()) {
            let found = unlike(item, &resource, &made);
            drift.differences.extend(found.into_iter().map(|(sort, says)| difference(sort, says)));
        }
        drift.agreeing += usize::from(drift.differences.len() == before);
        made.insert(object.name.clone(), resource);
    }
    let ours = Tags::from([("bartizan.run".to_owned(), subject.model.run.clone())]);
    for kind in Kind::ALL {
        let stray = caller.find(kind, &ours).await?.into_iter();
        for resource in stray.filter(|resource| !resource.is_over() && !known.contains(&(kind, resource.id.clone()))) {
            // A machine's disk carries its tags, and goes with it.
            let attached = resource.property("InstanceId").map(str::to_owned);
            if attached.is_some_and(|instance| known.contains(&(Kind::Instance, instance))) {
                continue;
            }
            let says = format!("it carries the tag bartizan.run={} and is not recorded", subject.model.run);
            drift.differences.push(found(Sort::Orphan, resource, says));
        }
    }
    if let Some((infra_id, true)) = subject.cluster {
        let tag = format!("kubernetes.io/cluster/{infra_id}");
        let owned = Tags::from([(tag.clone(), "owned".to_owned())]);
        for kind in OF_A_CLUSTER {
            let left = caller.find(kind, &owned).await?.into_iter().filter(|resource| !resource.is_over());
            let says = format!("it carries {tag}=owned, and that cluster is gone");
            drift.differences.extend(left.map(|resource| found(Sort::Leftover, resource, says.clone())));
        }
    }
    drift.differences.sort();
    Ok(drift)
}

fn found(sort: Sort, resource: Resource, says: String) -> Difference {
    let name = resource.tags.get("Name").cloned().unwrap_or_default();
    Difference { sort, kind: resource.kind, name, id: resource.id, says }
}

/// How a thing differs from what its item asks for. What the cloud does not tell is not compared.
fn unlike(item: &Item, resource: &Resource, made: &Made) -> Vec<(Sort, String)> {
    let mut unlike = Vec::new();
    let unknown = |text: &str| text.contains('<');
    let wanted = |template: &str| fill(template, |reference| answer(made, reference)).ok();
    for (name, template) in &item.properties {
        let (Some(want), Some(have)) = (wanted(template), resource.property(name)) else { continue };
        if !unknown(&want) && set(&want) != set(have) {
            unlike.push((Sort::Changed, format!("{name} is {have}, it was made with {want}")));
        }
    }
    for (name, template) in &item.then {
        let Some(want) = wanted(template).filter(|want| !unknown(name) && !unknown(want)) else { continue };
        match resource.property(name) {
            // A rule's value is its description, which is nobody's harm.
            Some(_) if name.starts_with("Ingress ") => {}
            Some(have) if have == want => {}
            Some(have) => unlike.push((Sort::Changed, format!("{name} is {have}, it should be {want}"))),
            None => unlike.push((Sort::Changed, format!("{name} is not there, it should be {want}"))),
        }
    }
    let lists = match item.kind {
        Kind::RouteTable => "Route ",
        Kind::SecurityGroup => "Ingress ",
        _ => return unlike,
    };
    // Of a rule whose source is not known, any source is the right one.
    let expected = |name: &str| {
        item.then.keys().any(|key| match key.split_once('<') {
            Some((start, _)) => name.starts_with(start),
            None => key == name,
        })
    };
    // What EC2 itself puts into a table: the way inside the VPC, and those of gateway endpoints.
    let its_own = |name: &str, value: &str| value == "local" || name.starts_with("Route pl-");
    for (name, value) in resource.properties.iter().filter(|(name, _)| name.starts_with(lists)) {
        if expected(name) || its_own(name, value) {
            continue;
        }
        unlike.push((Sort::Added, format!("{name} → {value} was added")));
    }
    unlike
}

/// Lists are in no order.
fn set(text: &str) -> BTreeSet<&str> {
    text.split(',').collect()
}
