//! What EC2 refuses, with its own error codes: what depends on what, and what may be there once only.

use super::state::State;
use crate::cloud::{Class, CloudError, Create, Kind, Resource};
use crate::spec::cidr::Cidr;

pub(super) fn id_prefix(kind: Kind) -> &'static str {
    match kind {
        Kind::Vpc => "vpc-",
        Kind::InternetGateway => "igw-",
        Kind::Subnet => "subnet-",
        Kind::RouteTable => "rtb-",
        Kind::RouteTableAssociation => "rtbassoc-",
        Kind::SecurityGroup => "sg-",
        Kind::VpcEndpoint => "vpce-",
        Kind::ElasticIp => "eipalloc-",
        Kind::NatGateway => "nat-",
        Kind::KeyPair => "key-",
        Kind::Instance => "i-",
        Kind::HostedZone => "Z",
        Kind::Bucket => "",
        Kind::LoadBalancer => "lb-",
        Kind::Volume => "vol-",
        Kind::User | Kind::Policy => "",
    }
}

pub(super) fn not_found(call: &str, kind: Kind, id: &str) -> CloudError {
    let code = match kind {
        Kind::Vpc => "InvalidVpcID.NotFound",
        Kind::InternetGateway => "InvalidInternetGatewayID.NotFound",
        Kind::Subnet => "InvalidSubnetID.NotFound",
        Kind::RouteTable => "InvalidRouteTableID.NotFound",
        Kind::RouteTableAssociation => "InvalidAssociationID.NotFound",
        Kind::SecurityGroup => "InvalidGroup.NotFound",
        Kind::VpcEndpoint => "InvalidVpcEndpointId.NotFound",
        Kind::ElasticIp => "InvalidAllocationID.NotFound",
        Kind::NatGateway => "NatGatewayNotFound",
        Kind::KeyPair => "InvalidKeyPair.NotFound",
        Kind::Instance => "InvalidInstanceID.NotFound",
        Kind::HostedZone => "NoSuchHostedZone",
        Kind::Bucket => "NoSuchBucket",
        Kind::LoadBalancer => "LoadBalancerNotFound",
        Kind::Volume => "InvalidVolume.NotFound",
        Kind::User | Kind::Policy => "NoSuchEntity",
    };
    CloudError::new(call, code, id)
}

fn property<'c>(create: &'c Create, name: &str) -> &'c str {
    create.properties.get(name).map_or("", String::as_str)
}

/// Objects of a kind that are still there.
fn standing(state: &State, kind: Kind) -> impl Iterator<Item = &Resource> {
    let all = state.objects.values().map(|stored| &stored.resource);
    all.filter(move |resource| resource.kind == kind && !resource.is_gone())
}

/// Everything that the new object refers to is there, and nothing like it that may exist once only.
pub(super) fn may_create(state: &State, create: &Create, call: &str) -> Result<(), CloudError> {
    let kinds = Kind::ALL
        .into_iter()
        .filter(|kind| !matches!(kind, Kind::HostedZone | Kind::Bucket | Kind::User | Kind::Policy));
    for (name, value) in create.properties.iter().filter(|(name, _)| name.ends_with("Id") || name.ends_with("Ids")) {
        for id in value.split(',') {
            let kind = kinds.clone().find(|kind| id.starts_with(id_prefix(*kind)));
            if let Some(kind) = kind.filter(|kind| !standing(state, *kind).any(|resource| resource.id == id)) {
                return Err(not_found(&format!("{call} {name}"), kind, id));
            }
        }
    }
    let vpc = property(create, "VpcId");
    let beside = |kind: Kind| standing(state, kind).filter(|other| other.property("VpcId") == Some(vpc));
    let same = |name: &'static str| move |other: &&Resource| other.property(name) == Some(property(create, name));
    match create.kind {
        Kind::Vpc if property(create, "CidrBlock").parse::<Cidr>().is_err() => {
            Err(CloudError::new(call, "InvalidParameterValue", "CidrBlock"))
        }
        Kind::Subnet => {
            let block: Cidr = property(create, "CidrBlock")
                .parse()
                .map_err(|_| CloudError::new(call, "InvalidParameterValue", "CidrBlock"))?;
            let conflict = beside(Kind::Subnet).find(|other| {
                other.property("CidrBlock").and_then(|text| text.parse().ok()).is_some_and(|b: Cidr| b.overlaps(&block))
            });
            conflict.map_or(Ok(()), |other| Err(CloudError::new(call, "InvalidSubnet.Conflict", &other.id)))
        }
        Kind::SecurityGroup => beside(Kind::SecurityGroup)
            .find(same("GroupName"))
            .map_or(Ok(()), |other| Err(CloudError::new(call, "InvalidGroup.Duplicate", &other.id))),
        Kind::KeyPair => standing(state, Kind::KeyPair)
            .find(same("KeyName"))
            .map_or(Ok(()), |other| Err(CloudError::new(call, "InvalidKeyPair.Duplicate", &other.id))),
        Kind::User => standing(state, Kind::User)
            .find(same("UserName"))
            .map_or(Ok(()), |other| Err(CloudError::new(call, "EntityAlreadyExists", &other.id))),
        Kind::Policy => standing(state, Kind::Policy)
            .find(same("PolicyName"))
            .map_or(Ok(()), |other| Err(CloudError::new(call, "EntityAlreadyExists", &other.id))),
        Kind::VpcEndpoint => endpoint(state, create, call),
        Kind::NatGateway => standing(state, Kind::NatGateway)
            .find(same("AllocationId"))
            .map_or(Ok(()), |other| Err(CloudError::new(call, "Resource.AlreadyAssociated", &other.id))),
        Kind::Instance => {
            let key = property(create, "KeyName");
            let known =
                key.is_empty() || standing(state, Kind::KeyPair).any(|pair| pair.property("KeyName") == Some(key));
            if known { Ok(()) } else { Err(not_found(call, Kind::KeyPair, key)) }
        }
        _ => Ok(()),
    }
}

fn endpoint(state: &State, create: &Create, call: &str) -> Result<(), CloudError> {
    let vpc = property(create, "VpcId");
    let service = property(create, "ServiceName");
    let mut others = standing(state, Kind::VpcEndpoint).filter(|other| other.property("VpcId") == Some(vpc));
    if let Some(other) = others.find(|other| other.property("ServiceName") == Some(service)) {
        let why = format!("there is a conflicting DNS domain for {service}: {}", other.id);
        return Err(CloudError::new(call, "InvalidParameter", why));
    }
    let private_dns = property(create, "PrivateDnsEnabled") == "true";
    let attribute = |name: &str| {
        state.objects.get(vpc).and_then(|stored| stored.resource.property(name)).is_some_and(|value| value == "true")
    };
    if private_dns && !(attribute("EnableDnsSupport") && attribute("EnableDnsHostnames")) {
        let why =
            "Enabling private DNS requires both enableDnsSupport and enableDnsHostnames VPC attributes set to true";
        return Err(CloudError::new(call, "InvalidParameter", why));
    }
    Ok(())
}

pub(super) fn may_modify(
    state: &State,
    kind: Kind,
    id: &str,
    name: &str,
    value: &str,
    call: &str,
) -> Result<(), CloudError> {
    if kind == Kind::InternetGateway && name == "VpcId" {
        let attached = state.objects.get(id).and_then(|stored| stored.resource.property("VpcId"));
        if value.is_empty() {
            let Some(vpc) = attached else { return Ok(()) };
            let public = standing(state, Kind::Instance)
                .filter(|instance| instance.property("PublicIpAddress").is_some())
                .chain(standing(state, Kind::NatGateway))
                .find(|resource| resource.property("VpcId") == Some(vpc));
            return public.map_or(Ok(()), |resource| {
                let why = format!(
                    "Network {vpc} has some mapped public address(es): {} {}",
                    resource.kind.as_str(),
                    resource.id
                );
                Err(CloudError::new(call, "DependencyViolation", why))
            });
        }
        let taken = standing(state, Kind::InternetGateway)
            .any(|other| other.id != id && other.property("VpcId") == Some(value));
        if taken || attached.is_some_and(|vpc| vpc != value) {
            return Err(CloudError::new(call, "Resource.AlreadyAssociated", value));
        }
    }
    let refers = (kind == Kind::RouteTable && name.starts_with("Route ")) || name.ends_with("Id");
    if refers && !value.is_empty() && !state.objects.contains_key(value) {
        return Err(CloudError::of(Class::NotFound, call, format!("{value} does not exist")));
    }
    Ok(())
}

/// Nothing that stands refers to it, as far as EC2 minds.
pub(super) fn may_delete(state: &State, target: &Resource, call: &str) -> Result<(), CloudError> {
    if target.kind == Kind::HostedZone
        && let Some(record) =
            target.properties.keys().find(|name| ["A ", "Alias ", "CNAME "].iter().any(|kind| name.starts_with(kind)))
    {
        return Err(CloudError::new(call, "HostedZoneNotEmpty", format!("{} has {record}", target.id)));
    }
    if target.kind == Kind::Instance && target.property("DisableApiTermination") == Some("true") {
        let why = format!("The instance '{}' may not be terminated", target.id);
        return Err(CloudError::new(call, "OperationNotPermitted", why));
    }
    if target.kind == Kind::InternetGateway
        && let Some(vpc) = target.property("VpcId")
    {
        return Err(CloudError::new(call, "DependencyViolation", format!("{} is attached to {vpc}", target.id)));
    }
    let mentions = |other: &Resource| {
        other.properties.iter().any(|(name, value)| {
            value.split(',').any(|part| part == target.id) || name.split(' ').any(|part| part == target.id)
        })
    };
    let blockers: Vec<String> = state
        .objects
        .values()
        .map(|stored| &stored.resource)
        .filter(|other| other.id != target.id && !other.is_gone() && blocks(other.kind, target.kind) && mentions(other))
        .map(|other| format!("{} {}", other.kind.as_str(), other.id))
        .collect();
    if blockers.is_empty() {
        return Ok(());
    }
    let code = match target.kind {
        Kind::ElasticIp => "InvalidIPAddress.InUse",
        Kind::Policy => "DeleteConflict",
        _ => "DependencyViolation",
    };
    Err(CloudError::new(call, code, format!("{} is used by {}", target.id, blockers.join(", "))))
}

/// `user` keeps `used` from being deleted. Routes to gateways that are gone are allowed (blackholes).
fn blocks(user: Kind, used: Kind) -> bool {
    match (user, used) {
        (Kind::RouteTableAssociation, used) => used == Kind::RouteTable,
        (Kind::RouteTable, Kind::NatGateway | Kind::InternetGateway) => false,
        (Kind::VpcEndpoint, Kind::RouteTable) => false,
        (Kind::HostedZone, _) => false,
        // An address is given back as its machine ends.
        (Kind::ElasticIp, Kind::Instance) => false,
        _ => true,
    }
}
