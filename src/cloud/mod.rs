//! The cloud as the ten stages need it. `aws` is the real one; `memory` keeps one in a file for the lab.
//!
//! [`blueprint`] says what a network and a bastion consist of, [`ledger`] makes it one thing at a time so that a crash
//! at any moment leaves nothing unknown, [`teardown`] takes it away with proof, [`drift`] tells what
//! has changed meanwhile.

pub mod apps;
#[cfg(feature = "aws")]
pub mod aws;
pub mod bastion;
pub mod blueprint;
pub mod cost;
pub mod describe;
pub mod drift;
mod error;
pub mod existing;
pub mod identity;
mod inquiry;
pub mod ledger;
pub mod memory;
pub mod permissions;
pub mod policy;
pub mod preflight;
mod retry;
pub mod survey;
pub mod teardown;
pub mod userdata;
pub mod vpc;

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use error::{Class, CloudError};
pub use inquiry::{AccessKey, Blocker, Denial, Image, ImageQuery, Offering};
pub use retry::Patience;

pub type Tags = BTreeMap<String, String>;

/// Kinds of things that we make, with their properties by the names of the EC2 API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Vpc,
    InternetGateway,
    Subnet,
    RouteTable,
    /// Of a route table with a subnet. It has no tags; the same pair is the same object.
    RouteTableAssociation,
    SecurityGroup,
    VpcEndpoint,
    ElasticIp,
    NatGateway,
    KeyPair,
    Instance,
    HostedZone,
    Bucket,
    /// Classic, network or application.
    LoadBalancer,
    Volume,
    /// Of IAM; its id is its name.
    User,
    /// Of IAM, customer-managed; its id is its ARN. Users have it by their property `PolicyArn`.
    Policy,
}

impl Kind {
    pub const ALL: [Kind; 17] = [
        Kind::Vpc,
        Kind::InternetGateway,
        Kind::Subnet,
        Kind::RouteTable,
        Kind::RouteTableAssociation,
        Kind::SecurityGroup,
        Kind::VpcEndpoint,
        Kind::ElasticIp,
        Kind::NatGateway,
        Kind::KeyPair,
        Kind::Instance,
        Kind::HostedZone,
        Kind::Bucket,
        Kind::LoadBalancer,
        Kind::Volume,
        Kind::User,
        Kind::Policy,
    ];

    /// As in events: `route-table`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Vpc => "vpc",
            Kind::InternetGateway => "internet-gateway",
            Kind::Subnet => "subnet",
            Kind::RouteTable => "route-table",
            Kind::RouteTableAssociation => "route-table-association",
            Kind::SecurityGroup => "security-group",
            Kind::VpcEndpoint => "vpc-endpoint",
            Kind::ElasticIp => "elastic-ip",
            Kind::NatGateway => "nat-gateway",
            Kind::KeyPair => "key-pair",
            Kind::Instance => "instance",
            Kind::HostedZone => "hosted-zone",
            Kind::Bucket => "bucket",
            Kind::LoadBalancer => "load-balancer",
            Kind::Volume => "volume",
            Kind::User => "user",
            Kind::Policy => "policy",
        }
    }

    /// The kind of an event's object; `None` for things that are not of the cloud.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The API takes a client token: a repeated request gives the first one's object (botocore's model; for a hosted
    /// zone the caller reference, for a bucket its name). For the others only tags tell that an object was made.
    pub fn has_token(self) -> bool {
        use Kind::*;
        matches!(self, RouteTable | VpcEndpoint | NatGateway | Instance | Volume | HostedZone | Bucket)
    }
}

/// A thing in the cloud as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    pub kind: Kind,
    pub id: String,
    /// `available`, `pending`, `running`, `shutting-down`, `terminated`, `deleting` …; `available` for kinds to which the
    /// API gives no state (gateways, groups, addresses, key pairs, zones, buckets).
    pub state: String,
    pub tags: Tags,
    /// `CidrBlock`, `VpcId`, `SubnetId`, `PrivateIpAddress`, `PublicIpAddress`, `GroupId` …
    ///
    /// A list is joined by commas. What EC2 keeps as rules, routes and records has one property each: see [`route`],
    /// [`ingress`], [`record`], [`alias`] and [`cname`]; no secret is ever among them.
    pub properties: BTreeMap<String, String>,
}

/// What to make. `properties` as in [`Resource`]; `tags` go on at creation.
#[derive(Debug, Clone, PartialEq)]
pub struct Create {
    pub kind: Kind,
    pub tags: Tags,
    pub properties: BTreeMap<String, String>,
    /// Same token, same object, for the kinds that [`Kind::has_token`].
    pub token: String,
}

impl Create {
    /// The thing that this would make, made by an earlier request of the same run.
    pub fn is(&self, resource: &Resource) -> bool {
        let same = |tag: &str| self.tags.get(tag).is_some_and(|value| resource.tags.get(tag) == Some(value));
        self.kind == resource.kind && same("Name") && same("bartizan.run") && !resource.is_over()
    }
}

/// The outside world of accounts, networks and machines. Every call is made once: who calls decides about another try.
#[async_trait]
pub trait Cloud: Send + Sync {
    /// The identity's ARN, account included, for preflight and for the record.
    async fn whoami(&self) -> Result<String, CloudError>;
    /// Availability zones of the region that can be used, sorted.
    async fn zones(&self) -> Result<Vec<String>, CloudError>;
    /// Names of endpoint services in the region, `com.amazonaws.us-east-2.ec2`.
    async fn endpoint_services(&self) -> Result<Vec<String>, CloudError>;
    /// What a quota (`vpc`, `L-F678F1CE`) allows here; `None` when this identity or this region is not told.
    async fn quota(&self, service: &str, code: &str) -> Result<Option<f64>, CloudError>;
    async fn offering(&self, instance_type: &str) -> Result<Offering, CloudError>;
    async fn image(&self, query: &ImageQuery) -> Result<Image, CloudError>;
    /// Those of `actions` (`ec2:CreateVpc`) that this identity may not do. As good as the account lets itself be asked: an
    /// error of class [`Class::Denied`] says that it does not.
    async fn denied(&self, actions: &[&str]) -> Result<Vec<Denial>, CloudError>;
    /// What still uses a VPC, ours or not.
    async fn blockers(&self, vpc: &str) -> Result<Vec<Blocker>, CloudError>;

    /// What an earlier request with the same token has made is answered instead of a second one; so is what stands in the
    /// way (a group of that name, a subnet of that block) when its tags show that it [is the same](Create::is).
    async fn create(&self, create: &Create) -> Result<Resource, CloudError>;
    async fn get(&self, kind: Kind, id: &str) -> Result<Resource, CloudError>;
    /// All that carry every one of these tags, terminated and deleted ones left out. Without tags: all of the region.
    async fn find(&self, kind: Kind, tags: &Tags) -> Result<Vec<Resource>, CloudError>;
    /// Change properties (attributes, rules, routes, size) of what exists. An empty value takes the property away.
    /// Safe to repeat.
    async fn modify(&self, kind: Kind, id: &str, properties: &BTreeMap<String, String>) -> Result<(), CloudError>;
    /// With what cannot stand without it: a bucket's objects, a user's keys and policies.
    async fn delete(&self, kind: Kind, id: &str) -> Result<(), CloudError>;

    /// Text of the serial console; empty until the machine has booted.
    async fn console_output(&self, instance: &str) -> Result<String, CloudError>;
    /// A new key of a user. IAM keeps two at most, and tells a secret only once.
    async fn create_access_key(&self, user: &str) -> Result<AccessKey, CloudError>;
    /// Take a key away; one that is not there is no error. The ids of a user's keys: property `AccessKeyIds`.
    async fn delete_access_key(&self, user: &str, id: &str) -> Result<(), CloudError>;
    /// How long its states take.
    fn patience(&self) -> Patience {
        Patience::default()
    }
    /// The call as an operator knows it, for the plan and the record: `ec2:CreateVpc CidrBlock=10.0.0.0/16`.
    fn describe(&self, create: &Create) -> String {
        describe::create(create)
    }
}

/// Property of a route table: its value is the id of the gateway.
pub fn route(destination: &str) -> String {
    format!("Route {destination}")
}

/// Property of a security group, `Ingress tcp/443 10.0.0.0/16`: its value is the description of the rule.
pub fn ingress(protocol: &str, port: u16, source: &str) -> String {
    format!("Ingress {protocol}/{port} {source}")
}

/// Property of a hosted zone, an A record: its value is the address.
pub fn record(name: &str) -> String {
    format!("A {name}")
}

/// Property of a hosted zone, an A record that follows a load balancer: its value is the balancer's
/// `CanonicalHostedZoneId` and its `DNSName`, with a space between.
pub fn alias(name: &str) -> String {
    format!("Alias {name}")
}

/// Property of a hosted zone, a CNAME record: its value is the other name.
pub fn cname(name: &str) -> String {
    format!("CNAME {name}")
}

impl Resource {
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str)
    }

    /// It can be used by what comes next.
    pub fn is_ready(&self) -> bool {
        matches!(self.state.as_str(), "available" | "running" | "active" | "associated" | "attached")
    }

    /// It will never be ready, or is on its way out.
    pub fn is_over(&self) -> bool {
        matches!(self.state.as_str(), "deleting" | "deleted" | "failed" | "rejected" | "shutting-down" | "terminated")
    }

    /// A machine that stands still: with its disk and its private address it can be started again.
    pub fn is_halted(&self) -> bool {
        matches!(self.state.as_str(), "stopped" | "stopping")
    }

    /// It was asked to go, and goes.
    pub fn is_leaving(&self) -> bool {
        matches!(self.state.as_str(), "deleting" | "shutting-down")
    }

    /// It stands in lists for a while, but nothing of it is left.
    pub fn is_gone(&self) -> bool {
        matches!(self.state.as_str(), "deleted" | "terminated")
    }
}
