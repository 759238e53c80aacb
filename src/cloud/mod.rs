//! The cloud as the ten stages need it. `memory` keeps it in a file for the lab.
//!
//! [`blueprint`] says what a network and a bastion consist of, [`ledger`] makes it one thing at a time so that a crash
//! at any moment leaves nothing unknown, [`teardown`] takes it away with proof.

pub mod bastion;
pub mod blueprint;
pub mod describe;
pub mod existing;
pub mod ledger;
pub mod memory;
pub mod survey;
pub mod teardown;
pub mod userdata;
pub mod vpc;

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub type Tags = BTreeMap<String, String>;

#[derive(Debug, Clone, thiserror::Error)]
pub enum CloudError {
    #[error("{call}: throttled: {why}")]
    Throttled { call: String, why: String },
    /// The object is not there (or not yet).
    #[error("{call}: not found: {why}")]
    NotFound { call: String, why: String },
    /// Something else still uses the object.
    #[error("{call}: in use: {why}")]
    InUse { call: String, why: String },
    #[error("{call}: not allowed: {why}")]
    Denied { call: String, why: String },
    #[error("{call}: {why}")]
    Other { call: String, why: String },
}

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
    LoadBalancer,
    Volume,
}

impl Kind {
    pub const ALL: [Kind; 15] = [
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
    /// [`ingress`] and [`record`].
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

/// The outside world of accounts, networks and machines.
#[async_trait]
pub trait Cloud: Send + Sync {
    /// Account and identity, for preflight and for the record.
    async fn whoami(&self) -> Result<String, CloudError>;
    async fn zones(&self) -> Result<Vec<String>, CloudError>;
    /// Names of endpoint services in the region, `com.amazonaws.us-east-2.ec2`.
    async fn endpoint_services(&self) -> Result<Vec<String>, CloudError>;

    async fn create(&self, create: &Create) -> Result<Resource, CloudError>;
    async fn get(&self, kind: Kind, id: &str) -> Result<Resource, CloudError>;
    /// All that carry every one of these tags, terminated and deleted ones left out.
    async fn find(&self, kind: Kind, tags: &Tags) -> Result<Vec<Resource>, CloudError>;
    /// Change properties (attributes, rules, routes, size) of what exists. An empty value takes the property away.
    /// Safe to repeat.
    async fn modify(&self, kind: Kind, id: &str, properties: &BTreeMap<String, String>) -> Result<(), CloudError>;
    async fn delete(&self, kind: Kind, id: &str) -> Result<(), CloudError>;

    /// Text of the serial console; empty until the machine has booted.
    async fn console_output(&self, instance: &str) -> Result<String, CloudError>;
    /// The call as an operator knows it, for the plan and the record: `ec2:CreateVpc CidrBlock=10.0.0.0/16`.
    fn describe(&self, create: &Create) -> String;
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
        matches!(
            self.state.as_str(),
            "deleting" | "deleted" | "failed" | "rejected" | "shutting-down" | "terminated" | "stopped" | "stopping"
        )
    }

    /// It stands in lists for a while, but nothing of it is left.
    pub fn is_gone(&self) -> bool {
        matches!(self.state.as_str(), "deleted" | "terminated")
    }
}

impl CloudError {
    /// The same call may do better in a moment.
    pub fn is_throttled(&self) -> bool {
        matches!(self, CloudError::Throttled { .. })
    }
    pub fn is_not_found(&self) -> bool {
        matches!(self, CloudError::NotFound { .. })
    }
    pub fn is_in_use(&self) -> bool {
        matches!(self, CloudError::InUse { .. })
    }
    /// The cloud's reason alone.
    pub fn why(&self) -> &str {
        match self {
            CloudError::Throttled { why, .. }
            | CloudError::NotFound { why, .. }
            | CloudError::InUse { why, .. }
            | CloudError::Denied { why, .. }
            | CloudError::Other { why, .. } => why,
        }
    }
}
