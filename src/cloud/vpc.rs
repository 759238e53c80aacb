//! The network: made from its blueprint, or taken as it is.

use super::blueprint::{Made, assumed_zones, interface_endpoints, network, preview as preview_items};
use super::blueprint::{private_subnet_name, public_subnet_name, service_name, vpc_name};
use super::ledger::{Ledger, LedgerError};
use super::survey::Survey;
use super::{Kind, Resource};
use crate::model::event::Action;
use crate::spec::{ExistingNetwork, Spec};

/// What later stages need of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    pub vpc: String,
    pub vpc_cidr: String,
    /// Id and zone.
    pub private_subnets: Vec<(String, String)>,
    pub public_subnets: Vec<(String, String)>,
}

/// The calls that [`ensure_network`] would make in an empty account.
pub fn preview(spec: &Spec) -> Vec<Action> {
    match &spec.network.existing {
        None => preview_items(&network(spec, &assumed_zones(spec))),
        Some(existing) => {
            let subnets = existing.private_subnets.iter().chain(&existing.public_subnets);
            std::iter::once(format!("ec2:DescribeVpcs {}", existing.vpc_id))
                .chain(subnets.map(|subnet| format!("ec2:DescribeSubnets {subnet}")))
                .map(|call| Action::Api { call })
                .collect()
        }
    }
}

/// Make what is missing of the network, wait until it can be used.
pub async fn ensure_network(ledger: &Ledger, spec: &Spec) -> Result<Network, LedgerError> {
    if let Some(existing) = &spec.network.existing {
        return adopt(ledger, existing).await;
    }
    let zones = zones(ledger, spec).await?;
    services_exist(ledger, spec).await?;
    let mut made = Made::new();
    ledger.apply(&network(spec, &zones), &mut made).await?;
    Ok(network_of(spec, &zones, &made))
}

/// What is there of the network; the network itself when that is all of it. Changes nothing.
pub async fn survey_network(ledger: &Ledger, spec: &Spec) -> Result<(Option<Network>, Survey), LedgerError> {
    if let Some(existing) = &spec.network.existing {
        let subnets = existing.private_subnets.iter().chain(&existing.public_subnets);
        let ids: Vec<(Kind, &str)> = std::iter::once((Kind::Vpc, existing.vpc_id.as_str()))
            .chain(subnets.map(|subnet| (Kind::Subnet, subnet.as_str())))
            .collect();
        let survey = ledger.survey_ids(&ids).await?;
        let network = if survey.is_complete() { Some(adopt(ledger, existing).await?) } else { None };
        return Ok((network, survey));
    }
    let zones = zones(ledger, spec).await?;
    let survey = ledger.survey(&network(spec, &zones)).await?;
    Ok((survey.is_complete().then(|| network_of(spec, &zones, &survey.made)), survey))
}

/// The first zones of the region, as many as the spec wants.
async fn zones(ledger: &Ledger, spec: &Spec) -> Result<Vec<String>, LedgerError> {
    let zones = ledger.quietly("ec2:DescribeAvailabilityZones", || ledger.cloud.zones()).await?;
    let wanted = usize::from(spec.network.zones);
    if zones.len() < wanted {
        let text = format!("network.zones is {wanted}, and {} offers {}", spec.aws.region, zones.len());
        return Err(LedgerError::Unfit(text));
    }
    Ok(zones.into_iter().take(wanted).collect())
}

fn network_of(spec: &Spec, zones: &[String], made: &Made) -> Network {
    let id = |name: String| made.get(&name).map(|resource| resource.id.clone()).unwrap_or_default();
    Network {
        vpc: id(vpc_name(spec)),
        vpc_cidr: spec.network.vpc_cidr.clone(),
        private_subnets: zones.iter().map(|zone| (id(private_subnet_name(spec, zone)), zone.clone())).collect(),
        public_subnets: zones.iter().map(|zone| (id(public_subnet_name(spec, zone)), zone.clone())).collect(),
    }
}

/// Not every service has an endpoint in every region: better known before anything is made.
async fn services_exist(ledger: &Ledger, spec: &Spec) -> Result<(), LedgerError> {
    let offered = ledger.quietly("ec2:DescribeVpcEndpointServices", || ledger.cloud.endpoint_services()).await?;
    let wanted = interface_endpoints(spec).into_iter().chain(["s3"]).map(|service| service_name(spec, service));
    let missing: Vec<String> = wanted.filter(|service| !offered.contains(service)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let text = format!("{} has no endpoint service {}", spec.aws.region, missing.join(", "));
    Err(LedgerError::Unfit(text))
}

async fn adopt(ledger: &Ledger, existing: &ExistingNetwork) -> Result<Network, LedgerError> {
    let vpc = ledger.look_once(Kind::Vpc, &existing.vpc_id).await?;
    for attribute in ["EnableDnsSupport", "EnableDnsHostnames"] {
        if vpc.property(attribute) == Some("false") {
            let text =
                format!("{} has {attribute}=false: names of endpoints and of the cluster would not resolve", vpc.id);
            return Err(LedgerError::Unfit(text));
        }
    }
    let mut network = Network {
        vpc: vpc.id.clone(),
        vpc_cidr: vpc.property("CidrBlock").unwrap_or_default().to_owned(),
        private_subnets: Vec::new(),
        public_subnets: Vec::new(),
    };
    for id in &existing.private_subnets {
        network.private_subnets.push(placed(&vpc, ledger.look_once(Kind::Subnet, id).await?)?);
    }
    for id in &existing.public_subnets {
        network.public_subnets.push(placed(&vpc, ledger.look_once(Kind::Subnet, id).await?)?);
    }
    Ok(network)
}

fn placed(vpc: &Resource, subnet: Resource) -> Result<(String, String), LedgerError> {
    if subnet.property("VpcId") != Some(vpc.id.as_str()) {
        return Err(LedgerError::Unfit(format!("{} is not in {}", subnet.id, vpc.id)));
    }
    let zone = subnet.property("AvailabilityZone").unwrap_or_default().to_owned();
    Ok((subnet.id, zone))
}
