//! What a network and a bastion consist of, as a list in creation order. The plan that an operator reads and the calls
//! that are made come from the same list. Pure.
//!
//! A value may name an item that stands before it: `{edge-lab-vpc}` is its id, `{edge-lab-bastion.PrivateIpAddress}` one of
//! its properties.

use std::collections::BTreeMap;

use super::{Create, Kind, Resource, Tags, describe, ingress, record, route};
use crate::model::event::Action;
use crate::spec::cidr::Cidr;
use crate::spec::validate::is_graviton;
use crate::spec::{MirrorKind, NetworkVariant, Spec};

/// One thing to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    pub kind: Kind,
    /// Unique within the run, whatever the kind; also the tag `Name`.
    pub name: String,
    /// Besides those that everything gets.
    pub tags: Tags,
    pub properties: BTreeMap<String, String>,
    /// Properties that are set one call at a time once it is there.
    pub then: BTreeMap<String, String>,
}

/// Items that are there, by name.
pub type Made = BTreeMap<String, Resource>;

impl Item {
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into(), tags: Tags::new(), properties: BTreeMap::new(), then: BTreeMap::new() }
    }
    pub(super) fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(name.into(), value.into());
        self
    }
    pub(super) fn then(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.then.insert(name.into(), value.into());
        self
    }
    fn tag(mut self, name: &str, value: &str) -> Self {
        self.tags.insert(name.into(), value.into());
        self
    }
}

/// `us-east-2b` → `b`: the end of the names of what stands in that zone.
fn letter(zone: &str) -> &str {
    zone.get(zone.len().saturating_sub(1)..).unwrap_or(zone)
}

fn reference(name: &str) -> String {
    format!("{{{name}}}")
}

/// Names of the items that others need to know.
pub fn vpc_name(spec: &Spec) -> String {
    format!("{}-vpc", spec.cluster.name)
}
pub fn public_subnet_name(spec: &Spec, zone: &str) -> String {
    format!("{}-public-{}", spec.cluster.name, letter(zone))
}
pub fn private_subnet_name(spec: &Spec, zone: &str) -> String {
    format!("{}-private-{}", spec.cluster.name, letter(zone))
}
pub fn bastion_name(spec: &Spec) -> String {
    format!("{}-bastion", spec.cluster.name)
}

/// Zones for a plan that is made before the cloud was asked.
pub fn assumed_zones(spec: &Spec) -> Vec<String> {
    ["a", "b", "c"]
        .iter()
        .take(usize::from(spec.network.zones))
        .map(|zone| format!("{}{zone}", spec.aws.region))
        .collect()
}

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

/// `com.amazonaws.us-east-2.ec2`
pub fn service_name(spec: &Spec, service: &str) -> String {
    format!("com.amazonaws.{}.{service}", spec.aws.region)
}

/// The network in creation order (openshift/release, step `aws-provision-vpc-disconnected`, with one NAT gateway per zone
/// for the private variant as in the installer's `01_vpc.yaml`). Empty for a network that is there already.
pub fn network(spec: &Spec, zones: &[String]) -> Vec<Item> {
    if spec.network.existing.is_some() {
        return Vec::new();
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
    let block = spec.network.vpc_cidr.parse::<Cidr>().ok();
    let subnet = |name: String, zone: &str, number: usize| {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let block = block.and_then(|block| block.subnet(block.prefix().saturating_add(4), number));
        in_vpc(Kind::Subnet, name)
            .with("CidrBlock", block.map_or_else(String::new, |block| block.to_string()))
            .with("AvailabilityZone", zone)
    };
    // From 4.19 on the installer refuses a VPC with other subnets that carry no kubernetes.io/cluster/ tag.
    items.extend(zones.iter().enumerate().map(|(number, zone)| {
        subnet(public_subnet_name(spec, zone), zone, number).tag("kubernetes.io/cluster/unmanaged", "true")
    }));
    items.extend(zones.iter().enumerate().map(|(number, zone)| {
        subnet(private_subnet_name(spec, zone), zone, 3 + number).tag("kubernetes.io/role/internal-elb", "")
    }));
    let public_table = format!("{cluster}-public");
    items.push(in_vpc(Kind::RouteTable, public_table.clone()).then(route("0.0.0.0/0"), reference(&igw)));
    let private_table = |zone: &str| format!("{cluster}-private-table-{}", letter(zone));
    for zone in zones {
        let mut table = in_vpc(Kind::RouteTable, private_table(zone));
        if spec.network.variant == NetworkVariant::Private {
            let address = format!("{cluster}-nat-address-{}", letter(zone));
            let nat = format!("{cluster}-nat-{}", letter(zone));
            items.push(Item::new(Kind::ElasticIp, &address).with("Domain", "vpc"));
            items.push(
                Item::new(Kind::NatGateway, &nat)
                    .with("SubnetId", reference(&public_subnet_name(spec, zone)))
                    .with("AllocationId", reference(&address)),
            );
            table = table.then(route("0.0.0.0/0"), reference(&nat));
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
    // With an interface endpoint for S3, ignition of the bootstrap node fails: it must be a gateway.
    let tables: Vec<String> = std::iter::once(reference(&public_table))
        .chain(zones.iter().map(|zone| reference(&private_table(zone))))
        .collect();
    items.push(
        in_vpc(Kind::VpcEndpoint, format!("{cluster}-s3"))
            .with("ServiceName", service_name(spec, "s3"))
            .with("VpcEndpointType", "Gateway")
            .with("RouteTableIds", tables.join(",")),
    );
    let services = interface_endpoints(spec);
    if services.is_empty() {
        return items;
    }
    let group = format!("{cluster}-endpoints");
    items.push(
        in_vpc(Kind::SecurityGroup, group.clone())
            .with("GroupName", &group)
            .with("Description", "HTTPS from the VPC to its interface endpoints")
            .then(ingress("tcp", 443, &spec.network.vpc_cidr), "from the VPC"),
    );
    // The proxy variant keeps them in the public subnets, beside the proxy.
    let place = |zone: &String| match spec.network.variant {
        NetworkVariant::Proxy => reference(&public_subnet_name(spec, zone)),
        _ => reference(&private_subnet_name(spec, zone)),
    };
    let subnets = zones.iter().map(place).collect::<Vec<_>>().join(",");
    items.extend(services.iter().map(|service| {
        in_vpc(Kind::VpcEndpoint, format!("{cluster}-{}", service.replace('.', "-")))
            .with("ServiceName", service_name(spec, service))
            .with("VpcEndpointType", "Interface")
            .with("SubnetIds", &subnets)
            .with("SecurityGroupIds", reference(&group))
            .with("PrivateDnsEnabled", "true")
    }));
    items
}

/// What a bastion needs to know of the operator and of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BastionInputs {
    /// Who may reach port 22.
    pub operator_cidr: String,
    /// The operator's public key, one line.
    pub public_key: String,
    pub vpc: String,
    pub vpc_cidr: String,
    pub subnet: String,
    /// The subnet has a way to the internet, so that the instance gets a public address.
    pub public: bool,
}

/// Newest Amazon Linux 2023; RunInstances resolves it (EC2 user guide, "Use a Systems Manager parameter instead of an AMI
/// ID").
fn default_image(spec: &Spec) -> String {
    let arch = if is_graviton(&spec.bastion.instance_type) { "arm64" } else { "x86_64" };
    format!("resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-{arch}")
}

/// The bastion in creation order. The registry's name gets a private zone of its own, so that it does not stand in the way
/// of the zone that the installer makes for the cluster's domain.
pub fn bastion(spec: &Spec, inputs: &BastionInputs) -> Vec<Item> {
    const DEFAULT_DISK_GIB: u32 = 120;
    let name = bastion_name(spec);
    let managed = spec.mirror.kind == MirrorKind::Managed;
    let group_name = format!("{name}-access");
    let key = format!("{name}-key");
    let mut group = Item::new(Kind::SecurityGroup, &group_name)
        .with("VpcId", &inputs.vpc)
        .with("GroupName", &group_name)
        .with("Description", "SSH from the operator, the mirror from the VPC")
        .then(ingress("tcp", 22, &inputs.operator_cidr), "SSH from the operator");
    if managed {
        group = group.then(ingress("tcp", spec.mirror.port, &inputs.vpc_cidr), "mirror registry from the VPC");
    }
    if spec.network.variant == NetworkVariant::Proxy {
        group = group.then(ingress("tcp", 3128, &inputs.vpc_cidr), "proxy from the VPC");
    }
    let mut items = vec![
        Item::new(Kind::KeyPair, &key).with("KeyName", &key).with("PublicKeyMaterial", &inputs.public_key),
        group,
        Item::new(Kind::Instance, &name)
            .with("ImageId", spec.bastion.ami.clone().unwrap_or_else(|| default_image(spec)))
            .with("InstanceType", &spec.bastion.instance_type)
            .with("KeyName", &key)
            .with("SubnetId", &inputs.subnet)
            .with("SecurityGroupIds", reference(&group_name))
            .with("AssociatePublicIpAddress", inputs.public.to_string())
            .with("HttpTokens", "required")
            .with("RootVolumeType", "gp3")
            .with("RootVolumeEncrypted", "true")
            .with("RootVolumeSize", spec.bastion.disk_gib.unwrap_or(DEFAULT_DISK_GIB).to_string()),
    ];
    if managed {
        let host = &spec.mirror.host;
        items.push(
            Item::new(Kind::HostedZone, format!("{name}-zone"))
                .with("Name", host)
                .with("VpcId", &inputs.vpc)
                .with("PrivateZone", "true")
                .then(record(host), reference(&format!("{name}.PrivateIpAddress"))),
        );
    }
    items
}

/// `template` with its references replaced by `answer`; the reference that has no answer is the error.
pub fn fill(template: &str, answer: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        // Documents have braces too.
        let reference = after.split_once('}').filter(|(name, _)| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        });
        match reference {
            Some((name, after)) => {
                text.push_str(&answer(name).ok_or_else(|| name.to_owned())?);
                rest = after;
            }
            None => {
                text.push('{');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    Ok(text)
}

/// Names of the items that an item refers to.
pub(super) fn references(item: &Item) -> Vec<&str> {
    let values = item.properties.values().chain(item.then.values());
    let inside = values.flat_map(|value| value.split('{').skip(1)).filter_map(|piece| piece.split_once('}'));
    inside.map(|(name, _)| name.split('.').next().unwrap_or(name)).collect()
}

/// The answer to a reference, of what is made.
pub fn answer(made: &Made, reference: &str) -> Option<String> {
    if let Some(resource) = made.get(reference) {
        return Some(resource.id.clone());
    }
    let (name, property) = reference.rsplit_once('.')?;
    made.get(name)?.property(property).map(str::to_owned)
}

/// The calls that would be made, in order. Ids that nobody can know yet are shown as `<name>`.
pub fn preview(items: &[Item]) -> Vec<Action> {
    let shown =
        |template: &str| fill(template, |name| Some(format!("<{name}>"))).unwrap_or_else(|_| template.to_owned());
    let filled = |properties: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        properties.iter().map(|(name, value)| (name.clone(), shown(value))).collect()
    };
    let mut actions = Vec::new();
    for item in items {
        let mut tags = item.tags.clone();
        tags.insert("Name".into(), item.name.clone());
        let create = Create { kind: item.kind, tags, properties: filled(&item.properties), token: String::new() };
        actions.push(Action::Api { call: describe::create(&create) });
        let calls = describe::modify(item.kind, &format!("<{}>", item.name), &filled(&item.then));
        actions.extend(calls.into_iter().map(|call| Action::Api { call }));
    }
    actions
}
