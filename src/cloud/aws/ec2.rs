//! What all rooms of EC2 share: tags, filters, and building a [`Resource`].

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{Filter, ResourceType, Tag, TagSpecification};

use crate::cloud::{Class, CloudError, Create, Kind, Resource, Tags, describe};

/// Which objects of a kind to look at.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which<'a> {
    Id(&'a str),
    /// All that carry every one of them; without any: all of the region.
    Tags(&'a Tags),
}

impl<'a> Which<'a> {
    /// For the calls that refuse unknown ids.
    pub fn ids(self) -> Option<Vec<String>> {
        match self {
            Which::Id(id) => Some(vec![id.to_owned()]),
            Which::Tags(_) => None,
        }
    }
    pub fn tags(self) -> Option<Vec<Filter>> {
        match self {
            Which::Id(_) => None,
            Which::Tags(tags) if tags.is_empty() => None,
            Which::Tags(tags) => Some(tags.iter().map(|(name, value)| filter(&format!("tag:{name}"), value)).collect()),
        }
    }
    /// Few enough to ask more about each of them.
    pub fn is_narrow(self) -> bool {
        !matches!(self, Which::Tags(tags) if tags.is_empty())
    }
    /// For the services that filter nothing themselves.
    pub fn matches(self, resource: &Resource) -> bool {
        match self {
            Which::Id(id) => resource.id == id,
            Which::Tags(tags) => tags.iter().all(|(name, value)| resource.tags.get(name) == Some(value)),
        }
    }
}

pub(super) fn filter(name: &str, value: &str) -> Filter {
    Filter::builder().name(name).values(value).build()
}

/// EC2 takes no list without tags.
pub(super) fn tagged(create: &Create, kind: ResourceType) -> Option<Vec<TagSpecification>> {
    let tags = create.tags.iter().map(|(name, value)| Tag::builder().key(name).value(value).build()).collect();
    let specification = TagSpecification::builder().resource_type(kind).set_tags(Some(tags)).build();
    (!create.tags.is_empty()).then(|| vec![specification])
}

pub(super) fn tags(tags: &[Tag]) -> Tags {
    let pair = |tag: &Tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned()));
    tags.iter().filter_map(pair).collect()
}

/// A resource in the making; `None` and empty values are left out.
pub(super) struct Seen(Resource);

impl Seen {
    pub fn new(kind: Kind, id: Option<&str>, state: &str, tags: Tags) -> Self {
        let id = id.unwrap_or_default().to_owned();
        Self(Resource { kind, id, state: state.to_lowercase(), tags, properties: BTreeMap::new() })
    }
    pub fn with(mut self, name: impl Into<String>, value: Option<impl ToString>) -> Self {
        if let Some(value) = value.map(|value| value.to_string()).filter(|value| !value.is_empty()) {
            self.0.properties.insert(name.into(), value);
        }
        self
    }
    pub fn list<'v>(self, name: &str, values: impl IntoIterator<Item = &'v str>) -> Self {
        let mut values: Vec<&str> = values.into_iter().collect();
        values.sort_unstable();
        self.with(name, Some(values.join(",")))
    }
    pub fn done(self) -> Resource {
        self.0
    }
}

/// The object that a call made and answered with.
pub(super) fn answered<T>(call: &str, object: Option<T>) -> Result<T, CloudError> {
    object.ok_or_else(|| CloudError::of(Class::Unreachable, call, "the answer names no object"))
}

pub(super) fn absent(kind: Kind, id: &str) -> CloudError {
    CloudError::of(Class::NotFound, describe::get_name(kind), format!("there is no {} {id}", kind.as_str()))
}

/// A kind that is only found and deleted: what makes it is the cluster.
pub(super) fn not_ours(call: &str) -> CloudError {
    CloudError::of(Class::Input, call, "bartizan makes none of these")
}

/// A property that a call does not know.
pub(super) fn unknown(call: &str, name: &str) -> CloudError {
    CloudError::of(Class::Input, call, format!("{name} cannot be changed"))
}

impl Create {
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.properties.get(name).filter(|value| !value.is_empty()).cloned()
    }
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.text(name).map(|value| value == "true")
    }
    pub(super) fn number(&self, name: &str) -> Option<i32> {
        self.text(name)?.parse().ok()
    }
    pub(super) fn texts(&self, name: &str) -> Option<Vec<String>> {
        Some(self.text(name)?.split(',').map(str::to_owned).collect())
    }
}
