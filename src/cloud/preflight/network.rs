//! Endpoint services, blocks of addresses, a network that is there, and names.

use super::{Asker, Check, State, again, makes_network};
use crate::cloud::blueprint::{interface_endpoints, service_name, vpc_name};
use crate::cloud::{Kind, Resource};
use crate::spec::cidr::Cidr;
use crate::spec::{ExistingNetwork, MirrorKind, NetworkVariant, Publish};

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

/// A network that the operator brings: what the installer and the nodes will trip over.
pub(super) async fn existing(ask: &Asker<'_>) -> Vec<Check> {
    let Some(network) = &ask.spec.network.existing else { return Vec::new() };
    let what = format!("network {}", network.vpc_id);
    let vpc = match again(|| ask.cloud.get(Kind::Vpc, &network.vpc_id)).await {
        Ok(vpc) => vpc,
        Err(error) if error.is_not_found() => {
            let asked = "correct network.existing.vpc_id, or aws.region";
            return vec![Check::new(State::Fail, what, error.to_string(), "a VPC of this region", asked)];
        }
        Err(error) => return vec![Check::unknown(what, &error, "a VPC of this region")],
    };
    let subnets = match ask.find(Kind::Subnet).await {
        Ok(subnets) => subnets,
        Err(error) => return vec![Check::unknown(what, &error, "its subnets")],
    };
    let subnets: Vec<Resource> =
        subnets.into_iter().filter(|subnet| subnet.property("VpcId") == Some(&vpc.id)).collect();
    let mut checks = vec![of_vpc(&what, &vpc)];
    checks.extend(of_subnets(ask, network, &vpc, &subnets));
    checks.push(s3(ask, &vpc).await);
    checks
}

fn of_vpc(what: &str, vpc: &Resource) -> Check {
    let needed = "DNS support and DNS hostnames on, owned by no cluster";
    for attribute in ["EnableDnsSupport", "EnableDnsHostnames"] {
        if vpc.property(attribute) == Some("false") {
            let asked = format!("ask the network's owner to set {attribute} of {}", vpc.id);
            let found = format!("{attribute}=false: names of endpoints and of the cluster would not resolve");
            return Check::new(State::Fail, what, found, needed, asked);
        }
    }
    let owner = vpc.tags.iter().find(|(name, value)| name.starts_with("kubernetes.io/cluster/") && *value == "owned");
    if let Some((name, _)) = owner {
        let found = format!("{name}=owned: destroying that cluster would delete what is in it");
        return Check::new(
            State::Fail,
            what,
            found,
            needed,
            "take another VPC, or ask its owner to change the tag to shared",
        );
    }
    Check::ok(what, vpc.property("CidrBlock").unwrap_or_default(), needed)
}

/// openshift/installer, `pkg/asset/installconfig/aws/validation.go` and `subnet.go`.
fn of_subnets(ask: &Asker<'_>, network: &ExistingNetwork, vpc: &Resource, subnets: &[Resource]) -> Vec<Check> {
    let mut checks = Vec::new();
    let named = || network.private_subnets.iter().chain(&network.public_subnets);
    let find = |id: &String| subnets.iter().find(|subnet| subnet.id == *id);
    let strange: Vec<&str> = named().filter(|id| find(id).is_none()).map(String::as_str).collect();
    if !strange.is_empty() {
        let found = format!("not in {}: {}", vpc.id, strange.join(" "));
        let asked = "correct network.existing.private_subnets and public_subnets";
        checks.push(Check::new(State::Fail, "subnets", found, "all in the VPC", asked));
    }
    let zone = |subnet: &Resource| subnet.property("AvailabilityZone").unwrap_or_default().to_owned();
    let mut zones: Vec<String> = network.private_subnets.iter().filter_map(find).map(zone).collect();
    let all = zones.len();
    zones.sort();
    zones.dedup();
    let needed = "one private subnet in a zone";
    checks.push(if zones.len() == all {
        Check::ok("private subnets", format!("in {}", zones.join(" ")), needed)
    } else {
        let asked = "name only one of them in network.existing.private_subnets: the installer refuses two in a zone";
        Check::new(State::Fail, "private subnets", format!("{all} in {} zones", zones.len()), needed, asked)
    });
    let machines = block(vpc);
    let outside: Vec<&str> = named()
        .filter_map(find)
        .filter(|subnet| {
            let start = block(subnet).map(|block| block.first());
            machines.zip(start).is_some_and(|(machines, start)| !machines.contains(start))
        })
        .map(|subnet| subnet.id.as_str())
        .collect();
    let needed = "the start of every subnet, the bastion's too, inside machineNetwork[0]";
    let shown = machines.map_or_else(|| "its block is not told".to_owned(), |block| block.to_string());
    checks.push(if outside.is_empty() {
        Check::ok("machine network", shown, needed)
    } else {
        let found = format!("{shown} does not hold {}", outside.join(" "));
        let asked = "take subnets of the VPC's first block: nodes and installer refuse addresses from elsewhere";
        Check::new(State::Fail, "machine network", found, needed, asked)
    });
    let untagged: Vec<&str> = subnets
        .iter()
        .filter(|subnet| !network.private_subnets.contains(&subnet.id))
        .filter(|subnet| !subnet.tags.keys().any(|name| name.starts_with("kubernetes.io/cluster/")))
        .map(|subnet| subnet.id.as_str())
        .collect();
    if !untagged.is_empty() {
        // From 4.19 on the installer refuses them; before, load balancers may land there.
        let state = if ask.spec.minor() >= 19 { State::Fail } else { State::Warn };
        let asked = format!(
            "ask the network's owner for: aws ec2 create-tags --resources {} --tags \
             Key=kubernetes.io/cluster/unmanaged,Value=true",
            untagged.join(" ")
        );
        let needed = "a tag kubernetes.io/cluster/unmanaged=true on subnets that the cluster is not to use";
        checks.push(Check::new(state, "other subnets", format!("without: {}", untagged.join(" ")), needed, asked));
    }
    checks
}

/// Nodes fetch their first configuration from S3; an interface endpoint alone does not answer to its names.
async fn s3(ask: &Asker<'_>, vpc: &Resource) -> Check {
    let service = service_name(ask.spec, "s3");
    let (what, needed) = ("S3 endpoint", "a gateway endpoint in the private route tables");
    let endpoints = match ask.find(Kind::VpcEndpoint).await {
        Ok(endpoints) => endpoints,
        Err(error) => return Check::unknown(what, &error, needed),
    };
    let gateway = endpoints.iter().find(|endpoint| {
        endpoint.property("VpcId") == Some(&vpc.id)
            && endpoint.property("ServiceName") == Some(&service)
            && endpoint.property("VpcEndpointType") == Some("Gateway")
    });
    match gateway {
        Some(endpoint) => Check::ok(what, endpoint.id.clone(), needed),
        None => {
            // With NAT the way to S3 is the internet.
            let private = ask.spec.network.variant == NetworkVariant::Private;
            let state = if private { State::Warn } else { State::Fail };
            let asked = format!("ask the network's owner for a gateway endpoint of {service} in {}", vpc.id);
            Check::new(state, what, "there is none", needed, asked)
        }
    }
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
