//! The network: subnets, gateways, routes and endpoints of the three variants.

use super::{Item, letter, private_subnet_name, public_subnet_name, reference, vpc_name};
use crate::cloud::permissions::partition;
use crate::cloud::{Kind, ingress, route};
use crate::spec::cidr::Cidr;
use crate::spec::subnets::subnets;
use crate::spec::{NatLayout, NetworkVariant, Spec};

/// Short names of the interface endpoints of a spec's variant.
pub fn interface_endpoints(spec: &Spec) -> Vec<&str> {
    let usual: &[&str] = match spec.network.variant {
        NetworkVariant::Disconnected => &["ec2", "elasticloadbalancing", "sts"],
        NetworkVariant::Private => &[],
        NetworkVariant::Proxy => &["ec2", "elasticloadbalancing"],
    };
    let extra = spec.network.extra_endpoints.iter().map(String::as_str).filter(|service| !usual.contains(service));
    usual.iter().copied().chain(extra).collect()
}

/// `com.amazonaws.us-east-2.ec2`. In China the name of all but gateways begins with another `cn.` (eksctl,
/// `pkg/cfn/builder/vpc_endpoint.go`).
pub fn service_name(spec: &Spec, service: &str) -> String {
    let region = &spec.aws.region;
    let more = if partition(region) == "aws-cn" && service != "s3" { "cn." } else { "" };
    format!("{more}com.amazonaws.{region}.{service}")
}

/// The network in creation order (openshift/release, step `aws-provision-vpc-disconnected`, with one NAT gateway per zone
/// for the private variant as in the installer's `01_vpc.yaml`). Of a network that is there already: the endpoints that may
/// have to be made in it.
pub fn network(spec: &Spec, zones: &[String]) -> Vec<Item> {
    if let Some(existing) = &spec.network.existing {
        let place = Place {
            vpc: existing.vpc_id.clone(),
            vpc_cidr: "<CidrBlock>".into(),
            tables: vec!["<route tables>".into()],
            subnets: existing.private_subnets.clone(),
        };
        let services: Vec<&str> = existing.add_endpoints.iter().map(String::as_str).collect();
        return endpoints(spec, &place, &services);
    }
    let cluster = &spec.cluster.name;
    let vpc = vpc_name(spec);
    let in_vpc = |kind: Kind, name: String| Item::new(kind, name).with("VpcId", reference(&vpc));
    let igw = format!("{cluster}-igw");
    let mut items = vec![
        Item::new(Kind::Vpc, &vpc)
            .with("CidrBlock", &spec.network.vpc_cidr)
            .then("EnableDnsSupport", "true")
            .then("EnableDnsHostnames", "true"),
        Item::new(Kind::InternetGateway, &igw).then("VpcId", reference(&vpc)),
    ];
    let blocks = spec.network.vpc_cidr.parse::<Cidr>().ok().and_then(|block| subnets(&block, spec.network.zones));
    let subnet = |name: String, zone: &str, block: Option<&Cidr>| {
        in_vpc(Kind::Subnet, name)
            .with("CidrBlock", block.map_or_else(String::new, Cidr::to_string))
            .with("AvailabilityZone", zone)
    };
    // From 4.19 on the installer refuses a VPC with other subnets that carry no kubernetes.io/cluster/ tag.
    items.extend(zones.iter().enumerate().map(|(number, zone)| {
        let block = blocks.as_ref().and_then(|blocks| blocks.public.get(number));
        subnet(public_subnet_name(spec, zone), zone, block).tag("kubernetes.io/cluster/unmanaged", "true")
    }));
    items.extend(zones.iter().enumerate().map(|(number, zone)| {
        let block = blocks.as_ref().and_then(|blocks| blocks.private.get(number));
        subnet(private_subnet_name(spec, zone), zone, block).tag("kubernetes.io/role/internal-elb", "")
    }));
    let public_table = format!("{cluster}-public");
    items.push(in_vpc(Kind::RouteTable, public_table.clone()).then(route("0.0.0.0/0"), reference(&igw)));
    let private_table = |zone: &str| format!("{cluster}-private-table-{}", letter(zone));
    let gateways = match (spec.network.variant, spec.network.nat) {
        (NetworkVariant::Private, NatLayout::Zone) => zones,
        (NetworkVariant::Private, NatLayout::One) => zones.get(..1).unwrap_or(zones),
        (NetworkVariant::Disconnected | NetworkVariant::Proxy, _) => &[],
    };
    let nat = |zone: &str| format!("{cluster}-nat-{}", letter(zone));
    for zone in gateways {
        let address = format!("{cluster}-nat-address-{}", letter(zone));
        items.push(Item::new(Kind::ElasticIp, &address).with("Domain", "vpc"));
        items.push(
            Item::new(Kind::NatGateway, nat(zone))
                .with("SubnetId", reference(&public_subnet_name(spec, zone)))
                .with("AllocationId", reference(&address)),
        );
    }
    for zone in zones {
        let mut table = in_vpc(Kind::RouteTable, private_table(zone));
        // With one gateway every zone goes through it.
        if let Some(gateway) = gateways.iter().find(|other| *other == zone).or(gateways.first()) {
            table = table.then(route("0.0.0.0/0"), reference(&nat(gateway)));
        }
        items.push(table);
    }
    let association = |table: &str, subnet: String| {
        Item::new(Kind::RouteTableAssociation, format!("{subnet}-association"))
            .with("RouteTableId", reference(table))
            .with("SubnetId", reference(&subnet))
    };
    items.extend(zones.iter().map(|zone| association(&public_table, public_subnet_name(spec, zone))));
    items.extend(zones.iter().map(|zone| association(&private_table(zone), private_subnet_name(spec, zone))));
    // The proxy variant keeps them in the public subnets, beside the proxy.
    let place = |zone: &String| match spec.network.variant {
        NetworkVariant::Proxy => reference(&public_subnet_name(spec, zone)),
        _ => reference(&private_subnet_name(spec, zone)),
    };
    items.extend(endpoints(
        spec,
        &Place {
            vpc: reference(&vpc),
            vpc_cidr: spec.network.vpc_cidr.clone(),
            tables: std::iter::once(reference(&public_table))
                .chain(zones.iter().map(|zone| reference(&private_table(zone))))
                .collect(),
            subnets: zones.iter().map(place).collect(),
        },
        &[&["s3"], interface_endpoints(spec).as_slice()].concat(),
    ));
    items
}

/// Where endpoints are put: ids, or references to what is made before them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub vpc: String,
    pub vpc_cidr: String,
    /// Route tables of the S3 gateway.
    pub tables: Vec<String>,
    /// One for each zone.
    pub subnets: Vec<String>,
}

/// Endpoints by their short names, with the group that guards them.
pub fn endpoints(spec: &Spec, place: &Place, services: &[&str]) -> Vec<Item> {
    let cluster = &spec.cluster.name;
    let in_vpc = |kind: Kind, name: String| Item::new(kind, name).with("VpcId", &place.vpc);
    let mut items = Vec::new();
    // With an interface endpoint for S3, ignition of the bootstrap node fails: it must be a gateway.
    if services.contains(&"s3") {
        items.push(
            in_vpc(Kind::VpcEndpoint, format!("{cluster}-s3"))
                .with("ServiceName", service_name(spec, "s3"))
                .with("VpcEndpointType", "Gateway")
                .with("RouteTableIds", place.tables.join(",")),
        );
    }
    let interfaces: Vec<&&str> = services.iter().filter(|service| **service != "s3").collect();
    if interfaces.is_empty() {
        return items;
    }
    let group = format!("{cluster}-endpoints");
    items.push(
        in_vpc(Kind::SecurityGroup, group.clone())
            .with("GroupName", &group)
            .with("Description", "HTTPS from the VPC to its interface endpoints")
            .then(ingress("tcp", 443, &place.vpc_cidr), "from the VPC"),
    );
    items.extend(interfaces.into_iter().map(|service| {
        in_vpc(Kind::VpcEndpoint, format!("{cluster}-{}", service.replace('.', "-")))
            .with("ServiceName", service_name(spec, service))
            .with("VpcEndpointType", "Interface")
            .with("SubnetIds", place.subnets.join(","))
            .with("SecurityGroupIds", reference(&group))
            .with("PrivateDnsEnabled", "true")
    }));
    items
}
