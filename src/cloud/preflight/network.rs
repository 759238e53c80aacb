//! Endpoint services, blocks of addresses, a network that is there, and names.

use super::{Asker, Check, State, again, makes_network};
use crate::cloud::blueprint::{interface_endpoints, service_name, vpc_name};
use crate::cloud::existing::Seen;
use crate::cloud::{CloudError, Kind, Resource};
use crate::spec::cidr::Cidr;
use crate::spec::{ExistingNetwork, MirrorKind, Publish};

/// Not every service has an endpoint in every region.
pub(super) async fn services(ask: &Asker<'_>) -> Option<Check> {
    if !makes_network(ask.spec) {
        return None;
    }
    let wanted: Vec<String> = interface_endpoints(ask.spec)
        .into_iter()
        .chain(["s3"])
        .map(|service| service_name(ask.spec, service))
        .collect();
    let (what, needed) = ("endpoint services", wanted.join(" "));
    let offered = match again(|| ask.cloud.endpoint_services()).await {
        Ok(offered) => offered,
        Err(error) => return Some(Check::unknown(what, &error, needed)),
    };
    let missing: Vec<&str> = wanted.iter().filter(|service| !offered.contains(service)).map(String::as_str).collect();
    Some(if missing.is_empty() {
        Check::ok(what, format!("{} of {} offered", wanted.len(), offered.len()), needed)
    } else {
        let asked = "take them out of network.extra_endpoints, or take another region";
        let found = format!("{} has no {}", ask.spec.aws.region, missing.join(", "));
        Check::new(State::Fail, what, found, needed, asked)
    })
}

fn block(resource: &Resource) -> Option<Cidr> {
    resource.property("CidrBlock")?.parse().ok()
}

/// The new VPC's block against those that are there: equal blocks live side by side, but can never be connected.
pub(super) async fn blocks(ask: &Asker<'_>) -> Vec<Check> {
    if !makes_network(ask.spec) {
        return Vec::new();
    }
    let what = format!("network.vpc_cidr {}", ask.spec.network.vpc_cidr);
    let needed = "a block of its own";
    let vpcs = match ask.find(Kind::Vpc).await {
        Ok(vpcs) => vpcs,
        Err(error) => return vec![Check::unknown(what, &error, needed)],
    };
    let Ok(ours) = ask.spec.network.vpc_cidr.parse::<Cidr>() else { return Vec::new() };
    let overlaps: Vec<String> = vpcs
        .iter()
        .filter_map(|vpc| Some(format!("{} ({})", vpc.id, block(vpc).filter(|block| block.overlaps(&ours))?)))
        .collect();
    let mut checks = vec![if overlaps.is_empty() {
        Check::ok(what, format!("none of {} VPCs overlaps", vpcs.len()), needed)
    } else {
        let asked = "take another block in cluster.toml if the two are ever to be peered or share a transit gateway";
        Check::new(State::Warn, what, format!("it overlaps {}", overlaps.join(", ")), needed, asked)
    }];
    let name = vpc_name(ask.spec);
    let domain = ask.spec.domain();
    let left: Vec<String> = vpcs
        .iter()
        .filter(|vpc| vpc.tags.get("bartizan.cluster") == Some(&domain) && vpc.tags.get("Name") == Some(&name))
        .map(|vpc| format!("{} of run {}", vpc.id, vpc.tags.get("bartizan.run").map_or("?", String::as_str)))
        .collect();
    if !left.is_empty() {
        let asked = "if that run is over, take its things down with `bartizan cleanup RUN`";
        let what = format!("networks of {domain}");
        checks.push(Check::new(State::Warn, what, left.join(", "), "no other run of this cluster", asked));
    }
    checks
}

/// A network that the operator brings: all that stands in the way of an installation.
pub(super) async fn existing(ask: &Asker<'_>) -> Vec<Check> {
    let Some(network) = &ask.spec.network.existing else { return Vec::new() };
    let (what, needed) = (format!("network {}", network.vpc_id), "fit for a cluster and its bastion");
    let seen = match look(ask, network).await {
        Ok(seen) => seen,
        Err(error) if error.is_not_found() => {
            let asked = "correct network.existing.vpc_id, or aws.region";
            return vec![Check::new(State::Fail, what, error.to_string(), needed, asked)];
        }
        Err(error) => return vec![Check::unknown(what, &error, needed)],
    };
    let complaints = seen.complaints(ask.spec, network);
    if complaints.is_empty() {
        let block = seen.vpc.property("CidrBlock").unwrap_or_default();
        return vec![Check::ok(what, format!("{block}, {} subnets", seen.subnets.len()), needed)];
    }
    let asked = "correct [network.existing], or ask the network's owner to change it";
    complaints.into_iter().map(|complaint| Check::new(State::Fail, what.clone(), complaint, needed, asked)).collect()
}

async fn look(ask: &Asker<'_>, network: &ExistingNetwork) -> Result<Seen, CloudError> {
    let vpc = again(|| ask.cloud.get(Kind::Vpc, &network.vpc_id)).await?;
    let inside = |found: Vec<Resource>| {
        found.into_iter().filter(|one| one.property("VpcId") == Some(&network.vpc_id) && !one.is_over())
    };
    Ok(Seen {
        subnets: inside(ask.find(Kind::Subnet).await?).map(|subnet| (subnet.id.clone(), subnet)).collect(),
        tables: inside(ask.find(Kind::RouteTable).await?).collect(),
        endpoints: inside(ask.find(Kind::VpcEndpoint).await?).collect(),
        associations: ask.find(Kind::RouteTableAssociation).await?,
        vpc,
    })
}

/// Zones of Route 53 that are in the way, or that have to be there.
pub(super) async fn names(ask: &Asker<'_>) -> Vec<Check> {
    let spec = ask.spec;
    let domain = spec.domain();
    let what = format!("zone {domain}");
    let needed = "no zone and no record of another cluster by that name";
    let zones = match ask.find(Kind::HostedZone).await {
        Ok(zones) => zones,
        Err(error) => return vec![Check::unknown(what, &error, needed)],
    };
    let name = |zone: &Resource| zone.property("Name").unwrap_or_default().trim_end_matches('.').to_owned();
    let mut checks = Vec::new();
    let existing = spec.network.existing.as_ref().map(|network| network.vpc_id.as_str());
    let same: Vec<&Resource> = zones.iter().filter(|zone| name(zone) == domain).collect();
    let attached = |zone: &&&Resource| existing.is_some_and(|vpc| has(zone, "VpcId", vpc));
    checks.push(if let Some(zone) = same.iter().find(attached) {
        let found = format!("{} is attached to {}", zone.id, existing.unwrap_or_default());
        let asked = "take another cluster.name; or, if that cluster is gone, ask the account's administrator to delete the zone";
        Check::new(State::Fail, what.clone(), found, needed, asked)
    } else if let Some(zone) = same.first() {
        let asked = "if a cluster of that name lives in another VPC, take another cluster.name; else delete the zone";
        Check::new(State::Warn, what.clone(), format!("{} is there", zone.id), needed, asked)
    } else {
        Check::ok(what.clone(), format!("in none of {} zones", zones.len()), needed)
    });
    let api = format!("api.{domain}");
    let left = zones.iter().find(|zone| {
        zone.properties.keys().any(|key| {
            let record = key.strip_prefix("A ").or_else(|| key.strip_prefix("Alias "));
            record.is_some_and(|record| record.trim_end_matches('.') == api)
        })
    });
    if let Some(zone) = left {
        let asked = "delete the record if that cluster is gone, else take another cluster.name";
        let found = format!("it stands in {} ({})", zone.id, name(zone));
        checks.push(Check::new(State::Fail, format!("record {api}"), found, "not there", asked));
    }
    if spec.install.publish == Publish::External {
        let public = zones
            .iter()
            .find(|zone| name(zone) == spec.cluster.base_domain && zone.property("PrivateZone") != Some("true"));
        let what = format!("public zone {}", spec.cluster.base_domain);
        let needed = "for install.publish External";
        checks.push(match public {
            Some(zone) => Check::ok(what, zone.id.clone(), needed),
            None => {
                let asked =
                    "ask whoever keeps the domain for a public hosted zone, or set install.publish = \"Internal\"";
                Check::new(State::Fail, what, "there is none in this account", needed, asked)
            }
        });
    }
    let host = &spec.mirror.host;
    if spec.bastion.host.is_none()
        && spec.mirror.kind == MirrorKind::Managed
        && let Some(zone) = zones.iter().find(|zone| name(zone) == *host)
    {
        let asked = "if it is left over of an earlier run, take that down; else take another mirror.host";
        let found = format!("{} is there", zone.id);
        checks.push(Check::new(State::Warn, format!("zone {host}"), found, "a zone of our own for the mirror", asked));
    }
    checks
}

/// A list property holds a value.
fn has(resource: &Resource, property: &str, value: &str) -> bool {
    resource.property(property).is_some_and(|list| list.split(',').any(|one| one == value))
}
