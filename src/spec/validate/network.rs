//! Rules for `[network]`.

use std::collections::BTreeSet;

use super::super::cidr::{Cidr, CidrError};
use super::super::problem::shown;
use super::super::subnets::{needed, usable};
use super::super::{NatLayout, NetworkVariant, Spec};
use super::{Check, is_aws_id};

pub(super) fn network(spec: &Spec, check: &mut Check<'_>) {
    let network = &spec.network;
    let vpc = vpc_block(spec, check);
    let pods = block(check, "network.cluster_cidr", &network.cluster_cidr, 8..=24, "10.128.0.0/14");
    let services = block(check, "network.service_cidr", &network.service_cidr, 12..=24, "172.30.0.0/16");
    let pairs = [
        ("network.cluster_cidr", pods, "network.vpc_cidr", vpc),
        ("network.service_cidr", services, "network.vpc_cidr", vpc),
        ("network.service_cidr", services, "network.cluster_cidr", pods),
    ];
    for (key, one, other_key, other) in pairs {
        if let (Some(one), Some(other)) = (one, other)
            && one.overlaps(&other)
        {
            let want = format!("it overlaps {other_key} ({other}); the three must be apart");
            check.bad(key, &one.to_string(), want);
        }
    }
    // OVN-Kubernetes keeps these for itself (ovn-kubernetes docs, "join" and "transit switch" subnets).
    for (reserved, name) in [("100.64.0.0/16", "join"), ("100.88.0.0/16", "transit switch")] {
        let Ok(reserved) = reserved.parse::<Cidr>() else { continue };
        for (key, have) in
            [("network.vpc_cidr", vpc), ("network.cluster_cidr", pods), ("network.service_cidr", services)]
        {
            if let Some(have) = have.filter(|have| have.overlaps(&reserved)) {
                let want = format!("OVN-Kubernetes uses {reserved} for its {name} network; choose another block");
                check.bad(key, &have.to_string(), want);
            }
        }
    }
    if let Some(pods) = pods {
        let nodes = u32::from(spec.install.control_plane_replicas) + u32::from(spec.install.compute_replicas);
        let room = network.host_prefix.checked_sub(pods.prefix()).map(|bits| 1u64 << bits);
        if room.is_none_or(|room| room < u64::from(nodes) + 1) {
            let want = format!(
                "network.cluster_cidr {pods} must hold one block of this size for each of {nodes} nodes and the \
                 bootstrap; give for example 23"
            );
            check.fail("network.host_prefix", format!("is {}", network.host_prefix), want);
        }
    }
    endpoints(check, "network.extra_endpoints", &network.extra_endpoints);
    if network.extra_endpoints.iter().any(|service| service == "s3") {
        let want = "S3 is always there as a gateway, and bootstrap fails with an interface endpoint; leave it out";
        check.fail("network.extra_endpoints", "has \"s3\"", want);
    }
    if network.nat == NatLayout::One && (network.variant != NetworkVariant::Private || network.existing.is_some()) {
        let want = "NAT gateways are made for variant = \"private\" in a network of our own only; leave it out";
        check.fail("network.nat", "is \"one\"", want);
    }
    let Some(existing) = &network.existing else { return };
    endpoints(check, "network.existing.add_endpoints", &existing.add_endpoints);
    if !is_aws_id(&existing.vpc_id, "vpc-") {
        check.bad(
            "network.existing.vpc_id",
            &existing.vpc_id,
            "give the id of a VPC, for example vpc-0123456789abcdef0",
        );
    }
    if existing.private_subnets.is_empty() {
        check.fail("network.existing.private_subnets", "is empty", "name at least one private subnet for the nodes");
    }
    for (key, subnets) in [
        ("network.existing.private_subnets", &existing.private_subnets),
        ("network.existing.public_subnets", &existing.public_subnets),
    ] {
        let mut seen = BTreeSet::new();
        for subnet in subnets {
            if !is_aws_id(subnet, "subnet-") {
                let want = "give ids of subnets, for example subnet-0123456789abcdef0";
                check.fail(key, format!("has {}", shown(subnet)), want);
            } else if !seen.insert(subnet) {
                check.fail(key, format!("has {} twice", shown(subnet)), "name each subnet once");
            }
        }
    }
    if let Some(both) = existing.public_subnets.iter().find(|subnet| existing.private_subnets.contains(subnet)) {
        let want = "it is among the private ones; with a public one the cluster's load balancer may land there";
        check.fail("network.existing.public_subnets", format!("has {}", shown(both)), want);
    }
}

/// Short names of endpoint services.
fn endpoints(check: &mut Check<'_>, key: &str, services: &[String]) {
    for service in services {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        if service.is_empty() || !service.chars().all(plain) || service.starts_with("com.amazonaws.") {
            let want = "give the short name of an AWS endpoint service, for example ssm";
            check.fail(key, format!("has {}", shown(service)), want);
        }
    }
}

/// The VPC's block: large enough for the machines that are asked for.
fn vpc_block(spec: &Spec, check: &mut Check<'_>) -> Option<Cidr> {
    const KEY: &str = "network.vpc_cidr";
    let text = &spec.network.vpc_cidr;
    if let Ok(small) = text.parse::<Cidr>()
        && (21..=28).contains(&small.prefix())
        && spec.network.existing.is_none()
    {
        let want = format!(
            "cut into sixteen it gives subnets of {} addresses, and nodes, endpoints and load balancers need {} in each \
             zone and room to grow; give a block from /16 to /20, for example 10.0.0.0/16",
            usable(&small),
            needed(spec)
        );
        check.bad(KEY, text, want);
        return None;
    }
    let block = block(check, KEY, text, 16..=20, "10.0.0.0/16")?;
    if spec.network.existing.is_none() && usable(&block) < needed(spec) {
        let want = format!(
            "a private subnet of it has {} addresses, and the machines of one zone with endpoints and load balancers need \
             {}; give a larger block, more zones or fewer machines",
            usable(&block),
            needed(spec)
        );
        check.bad(KEY, text, want);
    }
    Some(block)
}

fn block(
    check: &mut Check<'_>,
    key: &str,
    text: &str,
    sizes: std::ops::RangeInclusive<u8>,
    example: &str,
) -> Option<Cidr> {
    match text.parse::<Cidr>() {
        Ok(cidr) if sizes.contains(&cidr.prefix()) => return Some(cidr),
        Ok(_) => {
            let want = format!("give a block from /{} to /{}, for example {example}", sizes.start(), sizes.end());
            check.bad(key, text, want);
        }
        Err(CidrError::HostBits(block)) => {
            check.bad(key, text, format!("a block starts at its first address; give {block}"))
        }
        Err(CidrError::Shape) => check.bad(key, text, format!("give an IPv4 network, for example {example}")),
    }
    None
}
