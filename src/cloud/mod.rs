//! The cloud as the ten stages need it. `memory` keeps it in a file for the lab.

pub mod memory;

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
    /// Of a route table with a subnet.
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

/// A thing in the cloud as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    pub kind: Kind,
    pub id: String,
    /// `available`, `pending`, `running`, `shutting-down`, `terminated`, `deleting` …
    pub state: String,
    pub tags: Tags,
    /// `CidrBlock`, `VpcId`, `SubnetId`, `PrivateIpAddress`, `PublicIpAddress`, `GroupId` …
    pub properties: BTreeMap<String, String>,
}

/// What to make. `properties` as in [`Resource`]; `tags` go on at creation.
#[derive(Debug, Clone, PartialEq)]
pub struct Create {
    pub kind: Kind,
    pub tags: Tags,
    pub properties: BTreeMap<String, String>,
    /// Same token, same object.
    pub token: String,
}

/// The outside world of accounts, networks and machines. All calls are safe to repeat.
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
    /// Change properties (attributes, rules, routes, size) of what exists.
    async fn modify(&self, kind: Kind, id: &str, properties: &BTreeMap<String, String>) -> Result<(), CloudError>;
    async fn delete(&self, kind: Kind, id: &str) -> Result<(), CloudError>;

    /// Text of the serial console; empty until the machine has booted.
    async fn console_output(&self, instance: &str) -> Result<String, CloudError>;
    /// The call as an operator knows it, for the plan and the record: `ec2:CreateVpc CidrBlock=10.0.0.0/16`.
    fn describe(&self, create: &Create) -> String;
}
