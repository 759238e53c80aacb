//! Quotas: what is allowed, what is in use, what would come on top. Which there are is in `assets/quotas.toml`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use super::account::wanted;
use super::{Asker, Check, State, again};
use crate::cloud::blueprint::{Item, planned};
use crate::cloud::{CloudError, Kind, Resource, permissions};
use crate::spec::Spec;

/// Root disk of a node (openshift/installer, `pkg/types/aws/defaults`).
const NODE_GIB: u64 = 120;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    quota: Vec<Quota>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Quota {
    of: Of,
    #[serde(default)]
    families: Vec<String>,
    service: String,
    code: String,
    name: String,
    unit: String,
    new_account: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Of {
    Vcpus,
    ElasticIps,
    Vpcs,
    InternetGateways,
    NatGateways,
    GatewayEndpoints,
    InterfaceEndpoints,
    NetworkLoadBalancers,
    ClassicLoadBalancers,
    Gp3Tib,
}

// A test reads it: without it no quota would be looked at.
static QUOTAS: LazyLock<Vec<Quota>> = LazyLock::new(|| {
    toml::from_str::<File>(include_str!("../../../assets/quotas.toml")).map(|file| file.quota).unwrap_or_default()
});

impl Quota {
    fn id(&self) -> String {
        format!("{}/{}", self.service, self.code)
    }

    /// Where to ask for more.
    fn console(&self, region: &str) -> String {
        let host = match permissions::partition(region) {
            "aws-us-gov" => "console.amazonaws-us-gov.com",
            "aws-cn" => "console.amazonaws.cn",
            _ => "console.aws.amazon.com",
        };
        format!("https://{region}.{host}/servicequotas/home/services/{}/quotas/{}", self.service, self.code)
    }

    fn counts(&self, instance_type: &str) -> bool {
        self.families.iter().any(|family| family == letters(instance_type))
    }
}

/// `m` of `m6i.xlarge`.
fn letters(instance_type: &str) -> &str {
    let end = instance_type.find(|c: char| c.is_ascii_digit()).unwrap_or(instance_type.len());
    instance_type.get(..end).unwrap_or(instance_type)
}

/// One check for each quota of which something is needed.
pub(super) async fn checks(ask: &Asker<'_>) -> Vec<Check> {
    let mut checks = Vec::new();
    for quota in QUOTAS.iter() {
        match needed(ask, quota) {
            Ok(0) => {}
            Ok(needed) => checks.push(check(ask, quota, needed).await),
            Err(error) => checks.push(Check::unknown(format!("quota {}", quota.id()), &error, quota.unit.clone())),
        }
    }
    checks
}

/// How many more there would be.
fn needed(ask: &Asker<'_>, quota: &Quota) -> Result<u64, CloudError> {
    let spec = ask.spec;
    let made = planned(spec);
    let count = |kind: Kind, which: fn(&Item) -> bool| {
        u64::try_from(made.iter().filter(|item| item.kind == kind && which(item)).count()).unwrap_or(u64::MAX)
    };
    let gateway = |item: &Item| item.properties.get("VpcEndpointType").is_some_and(|kind| kind == "Gateway");
    Ok(match quota.of {
        Of::Vcpus => {
            let mut vcpus = 0;
            for machine in wanted(spec).iter().filter(|machine| quota.counts(machine.instance_type)) {
                match ask.offerings.get(machine.instance_type) {
                    Some(Ok(offering)) => vcpus += u64::from(offering.vcpus) * machine.count,
                    Some(Err(error)) => return Err(error.clone()),
                    None => {}
                }
            }
            vcpus
        }
        Of::ElasticIps => count(Kind::ElasticIp, |_| true),
        // Each stands in a zone of its own.
        Of::NatGateways => count(Kind::NatGateway, |_| true).min(1),
        Of::Vpcs => count(Kind::Vpc, |_| true),
        Of::InternetGateways => count(Kind::InternetGateway, |_| true),
        Of::GatewayEndpoints => count(Kind::VpcEndpoint, gateway),
        Of::InterfaceEndpoints => count(Kind::VpcEndpoint, |item| {
            item.properties.get("VpcEndpointType").is_some_and(|kind| kind == "Interface")
        }),
        // Of the API, and of the ingress.
        Of::NetworkLoadBalancers | Of::ClassicLoadBalancers => 1,
        Of::Gp3Tib => disks(spec, &made).div_ceil(1024),
    })
}

/// GiB of all disks, the bootstrap machine's included.
fn disks(spec: &Spec, made: &[Item]) -> u64 {
    let nodes = u64::from(spec.install.control_plane_replicas) + 1 + u64::from(spec.install.compute_replicas);
    let size = |item: &Item| item.properties.get("RootVolumeSize").and_then(|size| size.parse::<u64>().ok());
    nodes * NODE_GIB + made.iter().filter_map(size).sum::<u64>()
}

/// How many there are of what the quota counts.
async fn used(ask: &Asker<'_>, quota: &Quota) -> Result<u64, CloudError> {
    let count = |kind: Kind, which: fn(&Resource) -> bool| async move {
        let found = ask.find(kind).await?;
        Ok(u64::try_from(found.iter().filter(|resource| which(resource)).count()).unwrap_or(u64::MAX))
    };
    match quota.of {
        Of::Vcpus => vcpus(ask, quota).await,
        Of::ElasticIps => count(Kind::ElasticIp, |_| true).await,
        Of::Vpcs => count(Kind::Vpc, |_| true).await,
        Of::InternetGateways => count(Kind::InternetGateway, |_| true).await,
        Of::NatGateways => fullest_zone(ask).await,
        Of::GatewayEndpoints => {
            count(Kind::VpcEndpoint, |endpoint| endpoint.property("VpcEndpointType") == Some("Gateway")).await
        }
        // A quota per VPC, and the VPC is new.
        Of::InterfaceEndpoints => Ok(0),
        Of::NetworkLoadBalancers => {
            count(Kind::LoadBalancer, |balancer| balancer.property("Type") == Some("network")).await
        }
        Of::ClassicLoadBalancers => {
            count(Kind::LoadBalancer, |balancer| balancer.property("Type") == Some("classic")).await
        }
        Of::Gp3Tib => {
            let volumes = ask.find(Kind::Volume).await?;
            let gp3 = volumes.iter().filter(|volume| volume.property("VolumeType") == Some("gp3"));
            let size = |volume: &Resource| volume.property("Size").and_then(|size| size.parse::<u64>().ok());
            Ok(gp3.filter_map(size).sum::<u64>().div_ceil(1024))
        }
    }
}

/// vCPUs of the machines that run: the quota does not tell its use.
async fn vcpus(ask: &Asker<'_>, quota: &Quota) -> Result<u64, CloudError> {
    let mut types: BTreeMap<String, u64> = BTreeMap::new();
    for machine in ask.find(Kind::Instance).await? {
        let runs = matches!(machine.state.as_str(), "pending" | "running");
        if let Some(instance_type) = machine.property("InstanceType").filter(|kind| runs && quota.counts(kind)) {
            *types.entry(instance_type.to_owned()).or_default() += 1;
        }
    }
    let mut used = 0;
    for (instance_type, count) in types {
        let offering = match ask.offerings.get(&instance_type) {
            Some(known) => known.clone()?,
            None => again(|| ask.cloud.offering(&instance_type)).await?,
        };
        used += count * u64::from(offering.vcpus);
    }
    Ok(used)
}

/// NAT gateways in that of our zones which has most of them: the quota is per zone.
async fn fullest_zone(ask: &Asker<'_>) -> Result<u64, CloudError> {
    let gateways = ask.find(Kind::NatGateway).await?;
    if gateways.is_empty() {
        return Ok(0);
    }
    let subnets = ask.find(Kind::Subnet).await?;
    let zone_of =
        |id: &str| subnets.iter().find(|subnet| subnet.id == id).and_then(|subnet| subnet.property("AvailabilityZone"));
    let in_zone = |zone: &String| {
        let here = |gateway: &&Resource| gateway.property("SubnetId").and_then(zone_of) == Some(zone.as_str());
        u64::try_from(gateways.iter().filter(here).count()).unwrap_or(u64::MAX)
    };
    Ok(ask.zones.iter().map(in_zone).max().unwrap_or(0))
}

async fn check(ask: &Asker<'_>, quota: &Quota, more: u64) -> Check {
    let what = format!("quota {} '{}'", quota.id(), quota.name);
    let Quota { unit, .. } = quota;
    let needed = format!("{more} more {unit}");
    let region = &ask.spec.aws.region;
    let console = quota.console(region);
    let limit = match again(|| ask.cloud.quota(&quota.service, &quota.code)).await {
        Ok(Some(limit)) => limit.max(0.0) as u64,
        Ok(None) => {
            let found = format!("not told; new accounts have {} {unit}", quota.new_account);
            return Check::new(State::Unknown, what, found, needed, format!("look at {console}"));
        }
        Err(error) => {
            let asked = format!("look at {console}, or ask for servicequotas:GetServiceQuota");
            return Check::new(State::Unknown, what, error.to_string(), needed, asked);
        }
    };
    let used = match used(ask, quota).await {
        Ok(used) => used,
        Err(error) => return Check::unknown(what, &error, needed),
    };
    let found = format!("{used} of {limit} {unit} in use");
    let wanted = used.saturating_add(more);
    if wanted <= limit {
        return Check::ok(what, found, needed);
    }
    let asked = format!(
        "ask the account's administrator to raise {} '{}' in {region} from {limit} to {wanted}: {console}",
        quota.id(),
        quota.name
    );
    Check::new(State::Fail, what, found, needed, asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_quota_of_the_file_is_valid_and_there_once() {
        let file: File = toml::from_str(include_str!("../../../assets/quotas.toml")).unwrap();
        let mut ids: Vec<String> = file.quota.iter().map(Quota::id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), file.quota.len());
        for quota in &file.quota {
            assert!(quota.code.starts_with("L-") && quota.code.len() == 10, "{}", quota.code);
            assert_eq!(quota.of == Of::Vcpus, !quota.families.is_empty(), "{}", quota.code);
        }
    }

    #[test]
    fn a_family_is_the_letters_before_the_first_digit() {
        assert_eq!(letters("m6i.xlarge"), "m");
        assert_eq!(letters("im4gn.large"), "im");
        assert_eq!(letters("x"), "x");
    }
}
