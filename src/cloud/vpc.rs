//! The network: made from its blueprint, or taken as it is.

use super::Kind;
use super::blueprint::{Made, assumed_zones, interface_endpoints, network, preview as preview_items};
use super::blueprint::{private_subnet_name, public_subnet_name, service_name, vpc_name};
use super::existing::Seen;
use super::ledger::{Ledger, LedgerError};
use super::survey::Survey;
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
            let looks = [
                format!("ec2:DescribeVpcs {}", existing.vpc_id),
                "ec2:DescribeSubnets".into(),
                "ec2:DescribeRouteTables".into(),
                "ec2:DescribeVpcEndpoints".into(),
            ];
            let looks = looks.into_iter().map(|call| Action::Api { call });
            looks.chain(preview_items(&network(spec, &assumed_zones(spec)))).collect()
        }
    }
}

/// Make what is missing of the network, wait until it can be used.
pub async fn ensure_network(ledger: &Ledger, spec: &Spec) -> Result<Network, LedgerError> {
    if let Some(existing) = &spec.network.existing {
        let seen = fitting(ledger, spec, existing).await?;
        let items = seen.missing(spec, existing, ledger.run());
        if !items.is_empty() {
            let services: Vec<&str> = existing.add_endpoints.iter().map(String::as_str).collect();
            services_exist(ledger, spec, &services).await?;
        }
        ledger.apply(&items, &mut Made::new()).await?;
        return Ok(seen.network(existing));
    }
    let zones = zones(ledger, spec).await?;
    services_exist(ledger, spec, &[&["s3"], interface_endpoints(spec).as_slice()].concat()).await?;
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
        let mut survey = ledger.survey_ids(&ids).await?;
        if !survey.is_complete() {
            return Ok((None, survey));
        }
        let seen = fitting(ledger, spec, existing).await?;
        let added = ledger.survey(&seen.missing(spec, existing, ledger.run())).await?;
        survey.join(added);
        return Ok((survey.is_complete().then(|| seen.network(existing)), survey));
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
async fn services_exist(ledger: &Ledger, spec: &Spec, services: &[&str]) -> Result<(), LedgerError> {
    let offered = ledger.quietly("ec2:DescribeVpcEndpointServices", || ledger.cloud.endpoint_services()).await?;
    let wanted = services.iter().map(|service| service_name(spec, service));
    let missing: Vec<String> = wanted.filter(|service| !offered.contains(service)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let text = format!("{} has no endpoint service {}", spec.aws.region, missing.join(", "));
    Err(LedgerError::Unfit(text))
}

/// The existing network, if nothing about it stands in the way.
async fn fitting(ledger: &Ledger, spec: &Spec, existing: &ExistingNetwork) -> Result<Seen, LedgerError> {
    let seen = Seen::look(ledger, existing).await?;
    let complaints = seen.complaints(spec, existing);
    if complaints.is_empty() { Ok(seen) } else { Err(LedgerError::Unfit(complaints.join("; "))) }
}
