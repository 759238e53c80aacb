//! AWS, through its SDK: one room for each family of things, every call made once and its error given a class.
//!
//! `config` is the way there, `error` what comes back when it fails, `inquiry` what is asked beforehand.

mod balancer;
mod bucket;
mod config;
mod ec2;
mod endpoint;
mod error;
mod group;
mod iam;
mod inquiry;
mod instance;
mod nat;
mod subnet;
mod vpc;
mod zone;

use std::collections::BTreeMap;

use async_trait::async_trait;

pub use config::{connect, loader};
use ec2::{Which, absent, not_ours, unknown};

use super::{
    AccessKey, Blocker, Class, Cloud, CloudError, Create, Denial, Image, ImageQuery, Kind, Offering, Patience,
    Resource, Tags, describe,
};

/// An account and a region.
#[derive(Debug, Clone)]
pub struct Aws {
    region: String,
    patience: Patience,
    /// The endpoint is not AWS's own.
    elsewhere: bool,
    ec2: aws_sdk_ec2::Client,
    elb: aws_sdk_elasticloadbalancing::Client,
    elb2: aws_sdk_elasticloadbalancingv2::Client,
    iam: aws_sdk_iam::Client,
    quotas: aws_sdk_servicequotas::Client,
    route53: aws_sdk_route53::Client,
    s3: aws_sdk_s3::Client,
    sts: aws_sdk_sts::Client,
}

impl Aws {
    /// Another patience than what AWS's own states need: for an endpoint that is quicker.
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    async fn list(&self, kind: Kind, which: Which<'_>) -> Result<Vec<Resource>, CloudError> {
        let one = |resource: Result<Resource, CloudError>| resource.map(|resource| vec![resource]);
        match (kind, which) {
            (Kind::Vpc, _) => vpc::list(self, which).await,
            (Kind::InternetGateway, _) => vpc::gateway::list(self, which).await,
            (Kind::Subnet, _) => subnet::list(self, which).await,
            (Kind::RouteTable, _) => subnet::table::list(self, which).await,
            (Kind::RouteTableAssociation, Which::Id(id)) => one(subnet::association::get(self, id).await),
            (Kind::RouteTableAssociation, Which::Tags(tags)) if tags.is_empty() => subnet::association::all(self).await,
            // It has no tags.
            (Kind::RouteTableAssociation, Which::Tags(_)) => Ok(Vec::new()),
            (Kind::SecurityGroup, _) => group::list(self, which).await,
            (Kind::VpcEndpoint, _) => endpoint::list(self, which).await,
            (Kind::ElasticIp, _) => nat::address::list(self, which).await,
            (Kind::NatGateway, _) => nat::list(self, which).await,
            (Kind::KeyPair, _) => instance::key::list(self, which).await,
            (Kind::Instance, _) => instance::list(self, which).await,
            (Kind::Volume, _) => instance::volume::list(self, which).await,
            (Kind::HostedZone, Which::Id(id)) => one(zone::get(self, id).await),
            (Kind::HostedZone, Which::Tags(_)) => zone::find(self, which).await,
            (Kind::Bucket, Which::Id(id)) => one(bucket::get(self, id).await),
            (Kind::Bucket, Which::Tags(_)) => bucket::find(self, which).await,
            (Kind::LoadBalancer, _) => balancer::list(self, which).await,
            (Kind::User, Which::Id(id)) => one(iam::get(self, id).await),
            (Kind::User, Which::Tags(tags)) => iam::find(self, tags).await,
            (Kind::Policy, Which::Id(id)) => one(iam::policy::get(self, id).await),
            (Kind::Policy, Which::Tags(tags)) => iam::policy::find(self, tags).await,
        }
    }

    async fn make(&self, create: &Create) -> Result<Resource, CloudError> {
        match create.kind {
            Kind::Vpc => vpc::create(self, create).await,
            Kind::InternetGateway => vpc::gateway::create(self, create).await,
            Kind::Subnet => subnet::create(self, create).await,
            Kind::RouteTable => subnet::table::create(self, create).await,
            Kind::RouteTableAssociation => subnet::association::create(self, create).await,
            Kind::SecurityGroup => group::create(self, create).await,
            Kind::VpcEndpoint => endpoint::create(self, create).await,
            Kind::ElasticIp => nat::address::create(self, create).await,
            Kind::NatGateway => nat::create(self, create).await,
            Kind::KeyPair => instance::key::create(self, create).await,
            Kind::Instance => instance::create(self, create).await,
            Kind::HostedZone => zone::create(self, create).await,
            Kind::Bucket => bucket::create(self, create).await,
            Kind::User => iam::create(self, create).await,
            Kind::Policy => iam::policy::create(self, create).await,
            Kind::LoadBalancer | Kind::Volume => Err(not_ours(describe::create_name(create.kind))),
        }
    }

    async fn change(&self, kind: Kind, id: &str, name: &str, value: &str) -> Result<(), CloudError> {
        match kind {
            Kind::Vpc => vpc::modify(self, id, name, value).await,
            Kind::InternetGateway => vpc::gateway::modify(self, id, name, value).await,
            Kind::Subnet => subnet::modify(self, id, name, value).await,
            Kind::RouteTable => subnet::table::modify(self, id, name, value).await,
            Kind::SecurityGroup => group::modify(self, id, name, value).await,
            Kind::VpcEndpoint => endpoint::modify(self, id, name, value).await,
            Kind::ElasticIp => nat::address::modify(self, id, name, value).await,
            Kind::Instance => instance::modify(self, id, name, value).await,
            Kind::HostedZone => zone::modify(self, id, name, value).await,
            Kind::Bucket => bucket::modify(self, id, name, value).await,
            Kind::User => iam::modify(self, id, name, value).await,
            Kind::Policy => iam::policy::modify(self, id, name, value).await,
            Kind::Volume => instance::volume::modify(self, id, name, value).await,
            Kind::RouteTableAssociation | Kind::NatGateway | Kind::KeyPair | Kind::LoadBalancer => {
                Err(unknown(describe::modify_name(kind, name, value.is_empty()), name))
            }
        }
    }

    async fn take_away(&self, kind: Kind, id: &str) -> Result<(), CloudError> {
        match kind {
            Kind::Vpc => vpc::delete(self, id).await,
            Kind::InternetGateway => vpc::gateway::delete(self, id).await,
            Kind::Subnet => subnet::delete(self, id).await,
            Kind::RouteTable => subnet::table::delete(self, id).await,
            Kind::RouteTableAssociation => subnet::association::delete(self, id).await,
            Kind::SecurityGroup => group::delete(self, id).await,
            Kind::VpcEndpoint => endpoint::delete(self, id).await,
            Kind::ElasticIp => nat::address::delete(self, id).await,
            Kind::NatGateway => nat::delete(self, id).await,
            Kind::KeyPair => instance::key::delete(self, id).await,
            Kind::Instance => instance::delete(self, id).await,
            Kind::Volume => instance::volume::delete(self, id).await,
            Kind::HostedZone => zone::delete(self, id).await,
            Kind::Bucket => bucket::delete(self, id).await,
            Kind::LoadBalancer => balancer::delete(self, id).await,
            Kind::User => iam::delete(self, id).await,
            Kind::Policy => iam::policy::delete(self, id).await,
        }
    }

    /// What an answer is to who asked: a refusal says what it hides.
    async fn told<T>(&self, answer: Result<T, CloudError>) -> Result<T, CloudError> {
        match answer {
            Err(error) if error.class == Class::Denied => Err(self.explained(error).await),
            other => other,
        }
    }
}

#[async_trait]
impl Cloud for Aws {
    fn patience(&self) -> Patience {
        self.patience
    }

    async fn whoami(&self) -> Result<String, CloudError> {
        inquiry::whoami(self).await
    }

    async fn zones(&self) -> Result<Vec<String>, CloudError> {
        self.told(inquiry::zones(self).await).await
    }

    async fn endpoint_services(&self) -> Result<Vec<String>, CloudError> {
        self.told(inquiry::endpoint_services(self).await).await
    }

    async fn quota(&self, service: &str, code: &str) -> Result<Option<f64>, CloudError> {
        inquiry::quota(self, service, code).await
    }

    async fn offering(&self, instance_type: &str) -> Result<Offering, CloudError> {
        self.told(inquiry::offering(self, instance_type).await).await
    }

    async fn image(&self, query: &ImageQuery) -> Result<Image, CloudError> {
        self.told(inquiry::image(self, query).await).await
    }

    async fn denied(&self, actions: &[&str]) -> Result<Vec<Denial>, CloudError> {
        inquiry::denied(self, actions).await
    }

    async fn blockers(&self, vpc: &str) -> Result<Vec<Blocker>, CloudError> {
        self.told(inquiry::blockers(self, vpc).await).await
    }

    async fn create(&self, create: &Create) -> Result<Resource, CloudError> {
        match self.make(create).await {
            Err(error) if error.class == Class::Exists => {
                let marks = ["Name", "bartizan.run"].into_iter().filter_map(|name| create.tags.get_key_value(name));
                let marks: Tags = marks.map(|(name, value)| (name.clone(), value.clone())).collect();
                // Nobody's in particular: nothing to find it by.
                if marks.len() < 2 {
                    return Err(error);
                }
                let found = self.list(create.kind, Which::Tags(&marks)).await?;
                found.into_iter().find(|resource| create.is(resource)).ok_or(error)
            }
            other => self.told(other).await,
        }
    }

    async fn get(&self, kind: Kind, id: &str) -> Result<Resource, CloudError> {
        let found = self.told(self.list(kind, Which::Id(id)).await).await?;
        found.into_iter().next().ok_or_else(|| absent(kind, id))
    }

    async fn find(&self, kind: Kind, tags: &Tags) -> Result<Vec<Resource>, CloudError> {
        let which = Which::Tags(tags);
        let mut found = self.told(self.list(kind, which).await).await?;
        // What is found is adopted and deleted: that the tags are ours is not left to somebody's filter.
        found.retain(|resource| !resource.is_gone() && which.matches(resource));
        Ok(found)
    }

    async fn modify(&self, kind: Kind, id: &str, properties: &BTreeMap<String, String>) -> Result<(), CloudError> {
        for (name, value) in properties {
            self.told(self.change(kind, id, name, value).await).await?;
        }
        Ok(())
    }

    async fn delete(&self, kind: Kind, id: &str) -> Result<(), CloudError> {
        self.told(self.take_away(kind, id).await).await
    }

    async fn console_output(&self, instance: &str) -> Result<String, CloudError> {
        self.told(instance::console(self, instance).await).await
    }

    async fn create_access_key(&self, user: &str) -> Result<AccessKey, CloudError> {
        self.told(iam::create_key(self, user).await).await
    }

    async fn delete_access_key(&self, user: &str, id: &str) -> Result<(), CloudError> {
        self.told(iam::delete_key(self, user, id).await).await
    }
}
