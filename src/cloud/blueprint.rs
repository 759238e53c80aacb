//! What a network and a bastion consist of, as a list in creation order. The plan that an operator reads and the calls
//! that are made come from the same list. Pure.
//!
//! A value may name an item that stands before it: `{edge-lab-vpc}` is its id, `{edge-lab-bastion.PrivateIpAddress}` one of
//! its properties.

mod bastion;
mod network;

use std::collections::BTreeMap;

use super::{Create, Kind, Resource, Tags, describe};
use crate::model::event::Action;
use crate::spec::Spec;

pub(super) use bastion::FROM_THE_OPERATOR;
pub use bastion::{BastionInputs, PROXY_PORT, PULL_THROUGH, bastion, bastion_ports, image_query};
pub use network::{Place, endpoints, interface_endpoints, network, service_name};

/// One thing to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    pub kind: Kind,
    /// Unique within the run, whatever the kind; also the tag `Name`.
    pub name: String,
    /// Besides those that everything gets.
    pub tags: Tags,
    pub properties: BTreeMap<String, String>,
    /// Properties that are set one call at a time once it is there.
    pub then: BTreeMap<String, String>,
}

/// Items that are there, by name.
pub type Made = BTreeMap<String, Resource>;

impl Item {
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into(), tags: Tags::new(), properties: BTreeMap::new(), then: BTreeMap::new() }
    }
    pub(super) fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(name.into(), value.into());
        self
    }
    pub(super) fn then(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.then.insert(name.into(), value.into());
        self
    }
    fn tag(mut self, name: &str, value: &str) -> Self {
        self.tags.insert(name.into(), value.into());
        self
    }
}

/// `us-east-2b` → `b`: the end of the names of what stands in that zone.
fn letter(zone: &str) -> &str {
    zone.get(zone.len().saturating_sub(1)..).unwrap_or(zone)
}

fn reference(name: &str) -> String {
    format!("{{{name}}}")
}

/// Names of the items that others need to know.
pub fn vpc_name(spec: &Spec) -> String {
    format!("{}-vpc", spec.cluster.name)
}
pub fn public_subnet_name(spec: &Spec, zone: &str) -> String {
    format!("{}-public-{}", spec.cluster.name, letter(zone))
}
pub fn private_subnet_name(spec: &Spec, zone: &str) -> String {
    format!("{}-private-{}", spec.cluster.name, letter(zone))
}
pub fn bastion_name(spec: &Spec) -> String {
    format!("{}-bastion", spec.cluster.name)
}
pub fn bastion_address_name(spec: &Spec) -> String {
    format!("{}-bastion-address", spec.cluster.name)
}

/// Zones for a plan that is made before the cloud was asked.
pub fn assumed_zones(spec: &Spec) -> Vec<String> {
    ["a", "b", "c"]
        .iter()
        .take(usize::from(spec.network.zones))
        .map(|zone| format!("{}{zone}", spec.aws.region))
        .collect()
}

/// `template` with its references replaced by `answer`; the reference that has no answer is the error.
pub fn fill(template: &str, answer: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        // Documents have braces too.
        let reference = after.split_once('}').filter(|(name, _)| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        });
        match reference {
            Some((name, after)) => {
                text.push_str(&answer(name).ok_or_else(|| name.to_owned())?);
                rest = after;
            }
            None => {
                text.push('{');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    Ok(text)
}

/// Names of the items that an item refers to.
pub(super) fn references(item: &Item) -> Vec<&str> {
    let values = item.properties.values().chain(item.then.values());
    let inside = values.flat_map(|value| value.split('{').skip(1)).filter_map(|piece| piece.split_once('}'));
    inside.map(|(name, _)| name.split('.').next().unwrap_or(name)).collect()
}

/// The answer to a reference, of what is made.
pub fn answer(made: &Made, reference: &str) -> Option<String> {
    if let Some(resource) = made.get(reference) {
        return Some(resource.id.clone());
    }
    let (name, property) = reference.rsplit_once('.')?;
    made.get(name)?.property(property).map(str::to_owned)
}

/// The calls that would be made, in order. Ids that nobody can know yet are shown as `<name>`.
pub fn preview(items: &[Item]) -> Vec<Action> {
    let shown =
        |template: &str| fill(template, |name| Some(format!("<{name}>"))).unwrap_or_else(|_| template.to_owned());
    let filled = |properties: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        properties.iter().map(|(name, value)| (name.clone(), shown(value))).collect()
    };
    let mut actions = Vec::new();
    for item in items {
        let mut tags = item.tags.clone();
        tags.insert("Name".into(), item.name.clone());
        let create = Create { kind: item.kind, tags, properties: filled(&item.properties), token: String::new() };
        actions.push(Action::Api { call: describe::create(&create) });
        let calls = describe::modify(item.kind, &format!("<{}>", item.name), &filled(&item.then));
        actions.extend(calls.into_iter().map(|call| Action::Api { call }));
    }
    actions
}

/// Everything that a run would make before the cluster, with what is not known yet as `<name>`: for counts and prices.
pub fn planned(spec: &Spec) -> Vec<Item> {
    let mut items = network(spec, &assumed_zones(spec));
    if spec.bastion.host.is_none() {
        items.extend(bastion(spec, &BastionInputs::assumed(spec)));
    }
    items
}

/// How many of each kind, in the order in which they are made first: `2 subnets`.
pub fn counts(items: &[Item]) -> Vec<(Kind, usize)> {
    let mut counts: Vec<(Kind, usize)> = Vec::new();
    for item in items {
        match counts.iter_mut().find(|(kind, _)| *kind == item.kind) {
            Some((_, count)) => *count += 1,
            None => counts.push((item.kind, 1)),
        }
    }
    counts
}
