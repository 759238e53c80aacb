//! The bastion: its image, its machine, and who may reach what on it.

use super::{Item, assumed_zones, bastion_address_name, bastion_name, public_subnet_name, reference, vpc_name};
use crate::cloud::permissions::partition;
use crate::cloud::{Image, ImageQuery, Kind, ingress, record};
use crate::spec::sizing::bastion_disk_gib;
use crate::spec::validate::is_graviton;
use crate::spec::{BastionOs, ExistingNetwork, MirrorKind, Secret, Spec};

/// What a bastion needs to know of the operator and of the network.
#[derive(Debug, Clone)]
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
    /// The image, once it was looked up.
    pub image: Option<Image>,
    /// What the machine is told at its first boot, once it was written.
    pub user_data: Option<Secret>,
}

impl BastionInputs {
    /// For a plan that is made before anybody was asked.
    pub fn assumed(spec: &Spec) -> Self {
        let zone = assumed_zones(spec).into_iter().next().unwrap_or_default();
        let existing = spec.network.existing.as_ref();
        let subnet = |existing: &ExistingNetwork| {
            existing.public_subnets.iter().chain(&existing.private_subnets).next().cloned().unwrap_or_default()
        };
        Self {
            operator_cidr: spec.bastion.operator_cidr.clone().unwrap_or_else(|| "<this machine>/32".into()),
            public_key: format!("ssh-ed25519 <{}>", spec.credentials.ssh_public_key.display()),
            vpc: existing.map_or_else(|| format!("<{}>", vpc_name(spec)), |existing| existing.vpc_id.clone()),
            vpc_cidr: spec.network.vpc_cidr.clone(),
            subnet: existing.map_or_else(|| format!("<{}>", public_subnet_name(spec, &zone)), subnet),
            public: existing.is_none_or(|existing| !existing.public_subnets.is_empty()),
            image: None,
            user_data: None,
        }
    }
}

/// Where the newest image of an operating system is found; one of the spec's own is taken as it is.
pub fn image_query(spec: &Spec) -> ImageQuery {
    if let Some(ami) = &spec.bastion.ami {
        return ImageQuery::Id(ami.clone());
    }
    let arm = is_graviton(&spec.bastion.instance_type);
    let architecture = if arm { "arm64" } else { "x86_64" };
    let partition = partition(&spec.aws.region);
    // Accounts and names: Red Hat's "Red Hat Images (AMI) available on AWS", Amazon Linux's user guide, the stream metadata
    // of Fedora CoreOS (the third number 3 is the stable stream).
    let (owner, name) = match spec.bastion.os {
        BastionOs::Rhel9 => (
            if partition == "aws-us-gov" { "219670896067" } else { "309956199498" },
            format!("RHEL-9.*_HVM-*-{architecture}-*-Hourly2-GP3"),
        ),
        // Amazon's own account has another number in each partition, and everywhere the same alias.
        BastionOs::Al2023 => (
            if partition == "aws" { "137112412989" } else { "amazon" },
            format!("al2023-ami-2023.*-kernel-*-{architecture}"),
        ),
        BastionOs::Fcos | BastionOs::Rhcos => {
            let machine = if arm { "aarch64" } else { "x86_64" };
            ("125523088429", format!("fedora-coreos-*.*.3.*-{machine}"))
        }
    };
    ImageQuery::Newest { owner: owner.into(), name, architecture: architecture.into() }
}

/// EC2 keeps RSA and Ed25519 keys only (user guide, "Amazon EC2 key pairs"); others come with the user data alone.
fn is_importable(public_key: &str) -> bool {
    public_key.starts_with("ssh-rsa ") || public_key.starts_with("ssh-ed25519 ")
}

/// The ports that the bastion opens to the VPC, with what answers there.
pub fn bastion_ports(spec: &Spec) -> Vec<(u16, &'static str)> {
    let mut ports = Vec::new();
    if spec.mirror.kind == MirrorKind::Managed {
        ports.push((spec.mirror.port, "mirror registry from the VPC"));
    }
    if spec.bastion.pull_through {
        ports.extend(PULL_THROUGH.map(|(port, _)| (port, "pull-through registry from the VPC")));
    }
    if spec.runs_proxy() {
        ports.push((PROXY_PORT, "proxy from the VPC"));
    }
    ports
}

/// What the rule for port 22 says of itself: others' rules have other words.
pub(in crate::cloud) const FROM_THE_OPERATOR: &str = "SSH from the operator";
/// Registries that fetch what they are asked for, with where from.
pub const PULL_THROUGH: [(u16, &str); 2] = [(6001, "quay.io"), (6002, "registry.redhat.io")];
/// squid's own.
pub const PROXY_PORT: u16 = 3128;

/// The bastion in creation order. The registry's name gets a private zone of its own, so that it does not stand in the way
/// of the zone that the installer makes for the cluster's domain.
pub fn bastion(spec: &Spec, inputs: &BastionInputs) -> Vec<Item> {
    let name = bastion_name(spec);
    let group_name = format!("{name}-access");
    let key = format!("{name}-key");
    let importable = is_importable(&inputs.public_key);
    let mut group = Item::new(Kind::SecurityGroup, &group_name)
        .with("VpcId", &inputs.vpc)
        .with("GroupName", &group_name)
        .with("Description", "SSH from the operator, services from the VPC")
        .then(ingress("tcp", 22, &inputs.operator_cidr), FROM_THE_OPERATOR);
    for (port, what) in bastion_ports(spec) {
        group = group.then(ingress("tcp", port, &inputs.vpc_cidr), what);
    }
    let image = inputs.image.as_ref();
    let elastic = spec.bastion.elastic_ip && inputs.public;
    let least = image.map_or(0, |image| image.root_gib);
    let mut machine = Item::new(Kind::Instance, &name)
        .with("ImageId", image.map_or_else(|| format!("<{}>", spec.bastion.os.as_str()), |image| image.id.clone()))
        .with("InstanceType", &spec.bastion.instance_type)
        .with("SubnetId", &inputs.subnet)
        .with("SecurityGroupIds", reference(&group_name))
        .with("AssociatePublicIpAddress", inputs.public.to_string())
        .with("HttpTokens", "required")
        .with("HttpPutResponseHopLimit", "1")
        .with("RootVolumeType", "gp3")
        .with("RootVolumeEncrypted", "true")
        .with("RootVolumeSize", bastion_disk_gib(spec).max(least).to_string());
    if let Some(image) = image {
        machine = machine.with("RootDeviceName", &image.root_device);
    }
    if let Some(user_data) = &inputs.user_data {
        machine = machine.with("UserData", user_data.reveal());
    }
    let mut items = Vec::new();
    if importable {
        items.push(Item::new(Kind::KeyPair, &key).with("KeyName", &key).with("PublicKeyMaterial", &inputs.public_key));
        machine = machine.with("KeyName", &key);
    }
    items.extend([group, machine]);
    if elastic {
        items.push(
            Item::new(Kind::ElasticIp, bastion_address_name(spec))
                .with("Domain", "vpc")
                .then("InstanceId", reference(&name)),
        );
    }
    if spec.mirror.kind == MirrorKind::Managed {
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
