//! The networks that are made, and those that are taken as they are.

use std::collections::{BTreeMap, BTreeSet};

use bartizan::cloud::blueprint::{
    BastionInputs, Item, assumed_zones, bastion, counts, image_query, network, planned, preview,
};
use bartizan::cloud::existing::Seen;
use bartizan::cloud::{ImageQuery, Kind, Resource, Tags};
use bartizan::model::event::Action;
use bartizan::spec::cidr::Cidr;
use bartizan::spec::sizing::bastion_disk_gib;
use bartizan::spec::subnets::{free, subnets, usable};
use bartizan::spec::{ExistingNetwork, Spec, example, parse};
use proptest::prelude::*;

fn spec(network: &str, bastion: &str) -> Spec {
    let text = example()
        .replace("[network]", &format!("[network]\n{network}"))
        .replace("[bastion]", &format!("[bastion]\n{bastion}"));
    parse(&text, "cluster.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

fn refused(network: &str, bastion: &str) -> String {
    let text = example()
        .replace("[network]", &format!("[network]\n{network}"))
        .replace("[bastion]", &format!("[bastion]\n{bastion}"));
    parse(&text, "cluster.toml").unwrap_err().to_string()
}

fn calls(items: &[Item]) -> String {
    let call = |action: Action| match action {
        Action::Api { call } => call,
        other => panic!("{other:?}"),
    };
    preview(items).into_iter().map(call).collect::<Vec<_>>().join("\n")
}

fn of(spec: &Spec) -> Vec<Item> {
    network(spec, &assumed_zones(spec))
}

fn named<'a>(items: &'a [Item], name: &str) -> &'a Item {
    items.iter().find(|item| item.name == name).unwrap_or_else(|| panic!("there is no {name}"))
}

#[test]
fn the_networks_are_made_in_this_order() {
    for (variant, text) in [
        ("disconnected", "zones = 2"),
        ("private", "zones = 2\nvariant = \"private\""),
        ("private-one-nat", "zones = 3\nvariant = \"private\"\nnat = \"one\""),
        ("proxy", "variant = \"proxy\"\nextra_endpoints = [\"kms\"]"),
    ] {
        insta::with_settings!({ snapshot_path => "../snapshots", prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(format!("network-{variant}"), calls(&of(&spec(text, ""))));
        });
    }
}

/// Whatever the variant: what is referred to stands before, nothing of ours is owned by a cluster, and the ways out are
/// where they belong.
#[test]
fn every_network_keeps_the_rules() {
    for variant in ["disconnected", "private", "proxy"] {
        for zones in 1..=3 {
            let spec = spec(&format!("zones = {zones}\nvariant = \"{variant}\""), "");
            let items = planned(&spec);
            let mut before: BTreeSet<&str> = BTreeSet::new();
            for item in &items {
                for value in item.properties.values().chain(item.then.values()) {
                    for name in value.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
                        let name = name.split('.').next().unwrap();
                        assert!(before.contains(name) || name == item.name, "{} needs {name}", item.name);
                    }
                }
                assert!(before.insert(&item.name), "{} twice", item.name);
                let owned = item
                    .tags
                    .iter()
                    .any(|(name, value)| name.starts_with("kubernetes.io/cluster/") && value == "owned");
                assert!(!owned, "{}", item.name);
            }
            for item in items.iter().filter(|item| item.kind == Kind::Subnet) {
                let public = item.name.contains("-public-");
                assert_eq!(item.tags.contains_key("kubernetes.io/cluster/unmanaged"), public, "{}", item.name);
                assert_eq!(item.tags.contains_key("kubernetes.io/role/internal-elb"), !public, "{}", item.name);
            }
            let tables = items.iter().filter(|item| item.kind == Kind::RouteTable && item.name.contains("-private-"));
            let ways_out = tables.filter(|table| table.then.contains_key("Route 0.0.0.0/0")).count();
            assert_eq!(ways_out, if variant == "private" { zones } else { 0 }, "{variant} with {zones}");
            let s3 = named(&items, "edge-lab-s3");
            assert_eq!(s3.properties["RouteTableIds"].split(',').count(), zones + 1, "S3 from every table");
            let count = counts(&items).into_iter().collect::<BTreeMap<_, _>>();
            assert_eq!((count[&Kind::Subnet], count[&Kind::Instance]), (2 * zones, 1));
        }
    }
}

#[test]
fn only_the_operator_and_the_vpc_reach_the_bastion() {
    let rules = |text: &str, bastion_text: &str| -> BTreeSet<String> {
        let spec = spec(text, &format!("operator_cidr = \"198.51.100.7/32\"\n{bastion_text}"));
        let items = bastion(&spec, &BastionInputs::assumed(&spec));
        named(&items, "edge-lab-bastion-access").then.keys().cloned().collect()
    };
    let own = |more: &[&str]| -> BTreeSet<String> {
        let usual = ["Ingress tcp/22 198.51.100.7/32", "Ingress tcp/5000 10.0.0.0/16"];
        usual.iter().chain(more).map(|rule| (*rule).to_owned()).collect()
    };
    assert_eq!(rules("", ""), own(&[]));
    assert_eq!(rules("variant = \"proxy\"", ""), own(&["Ingress tcp/3128 10.0.0.0/16"]));
    assert_eq!(rules("", "proxy = true"), own(&["Ingress tcp/3128 10.0.0.0/16"]));
}

#[test]
fn the_bastion_is_what_was_asked_for() {
    let items = |bastion_text: &str| {
        let spec = spec("", bastion_text);
        bastion(&spec, &BastionInputs::assumed(&spec))
    };
    let usual = items("");
    let machine = named(&usual, "edge-lab-bastion");
    for (name, value) in [
        ("HttpTokens", "required"),
        ("HttpPutResponseHopLimit", "1"),
        ("RootVolumeType", "gp3"),
        ("RootVolumeEncrypted", "true"),
        ("RootVolumeSize", "120"),
        ("AssociatePublicIpAddress", "true"),
    ] {
        assert_eq!(machine.properties.get(name).map(String::as_str), Some(value), "{name}");
    }
    let elastic = items("elastic_ip = true\ndisk_gib = 800");
    assert_eq!(named(&elastic, "edge-lab-bastion-address").then["InstanceId"], "{edge-lab-bastion}");
    assert_eq!(named(&elastic, "edge-lab-bastion").properties["RootVolumeSize"], "800");
    // EC2 keeps no ECDSA keys: such a key comes with the user data alone.
    let plain = spec("", "");
    let mut inputs = BastionInputs::assumed(&plain);
    inputs.public_key = "ecdsa-sha2-nistp521 AAAA op".into();
    assert!(
        bastion(&plain, &inputs)
            .iter()
            .all(|item| item.kind != Kind::KeyPair && !item.properties.contains_key("KeyName"))
    );

    let query = |bastion_text: &str| match image_query(&spec("", bastion_text)) {
        ImageQuery::Newest { owner, name, architecture } => format!("{owner} {name} {architecture}"),
        ImageQuery::Id(id) => id,
    };
    assert_eq!(query(""), "309956199498 RHEL-9.*_HVM-*-x86_64-*-Hourly2-GP3 x86_64");
    assert_eq!(
        query("os = \"fcos\"\ninstance_type = \"m6g.large\""),
        "125523088429 fedora-coreos-*.*.3.*-aarch64 arm64"
    );
    assert_eq!(query("os = \"rhcos\"\nami = \"ami-0123456789abcdef0\""), "ami-0123456789abcdef0");
    assert_eq!(spec("", "os = \"fcos\"").bastion_user(), "core");
}

#[test]
fn the_disk_fits_what_is_mirrored() {
    let size = |bastion: &str, mirror: &str| {
        let text = example()
            .replace("[bastion]", &format!("[bastion]\n{bastion}"))
            .replace("[mirror]", &format!("[mirror]\n{mirror}"));
        bastion_disk_gib(&parse(&text, "cluster.toml").unwrap_or_else(|errors| panic!("{errors}")))
    };
    let images: Vec<String> = (0..80).map(|number| format!("\"quay.io/a/b:{number}\"")).collect();
    let many = format!("additional_images = [{}]", images.join(", "));
    assert_eq!(size("", ""), 120);
    assert_eq!(size("", &many), 230);
    assert!(size("", &many) > size("", ""));
    assert_eq!(size("disk_gib = 64", &many), 64, "the operator knows better");
}

#[test]
fn what_does_not_fit_is_refused_with_the_numbers() {
    for (network, bastion, sentence) in [
        (
            "vpc_cidr = \"10.0.0.0/22\"",
            "",
            "network.vpc_cidr is \"10.0.0.0/22\": cut into sixteen it gives subnets of 59 addresses, and nodes, endpoints and \
             load balancers need 25 in each zone",
        ),
        ("vpc_cidr = \"10.0.0.0/15\"", "", "network.vpc_cidr is \"10.0.0.0/15\": give a block from /16 to /20"),
        ("nat = \"one\"", "", "network.nat is \"one\": NAT gateways are made for variant = \"private\""),
        ("", "os = \"al2023\"", "bastion.os is \"al2023\": Amazon Linux 2023 has neither podman nor a registry"),
        ("", "os = \"rhcos\"", "bastion.ami is missing: RHCOS images have no list that is public"),
        ("", "host = \"a@b.c\"\nproxy = true", "bastion.proxy is true: a proxy is run on a bastion that"),
        (
            "",
            "host = \"a@b.c\"\nhost_key = \"delivered\"",
            "bastion.host_key is \"delivered\": bastion.host is there already",
        ),
    ] {
        let said = refused(network, bastion);
        assert!(said.contains(sentence), "wanted\n  {sentence}\ngot\n  {said}");
    }
    let crowded = example()
        .replace("[network]", "[network]\nvpc_cidr = \"10.0.0.0/20\"")
        .replace("[install]", "[install]\ncompute_replicas = 250");
    let said = parse(&crowded, "cluster.toml").unwrap_err().to_string();
    assert!(
        said.contains("a private subnet of it has 251 addresses") && said.contains("need\n             273")
            || said.contains("need 273"),
        "{said}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any block, any number of zones: the subnets lie inside, apart from each other, and are as large as said.
    #[test]
    fn subnets_are_apart(first in any::<u32>(), prefix in 16u8..=20, zones in 1u8..=3) {
        let mask = u32::MAX << (32 - u32::from(prefix));
        let block: Cidr = format!("{}/{prefix}", std::net::Ipv4Addr::from(first & mask)).parse().unwrap();
        let cut = subnets(&block, zones).unwrap();
        prop_assert_eq!((cut.public.len(), cut.private.len()), (usize::from(zones), usize::from(zones)));
        let all: Vec<&Cidr> = cut.public.iter().chain(&cut.private).collect();
        for (number, one) in all.iter().enumerate() {
            let last = one.address((1u32 << (32 - one.prefix())) - 1).unwrap();
            prop_assert!(block.contains(one.first()) && block.contains(last), "{} in {}", one, block);
            prop_assert!(free(one) == usable(&block) && free(one) >= 251);
            prop_assert!(all.iter().skip(number + 1).all(|other| !one.overlaps(other)));
        }
        // More zones move nothing that is there.
        let more = subnets(&block, 3).unwrap();
        prop_assert!(more.private.starts_with(&cut.private) && more.public.starts_with(&cut.public));
    }
}

fn resource(kind: Kind, id: &str, properties: &[(&str, &str)], tags: &[(&str, &str)]) -> Resource {
    let owned = |pairs: &[(&str, &str)]| -> Tags {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    };
    Resource { kind, id: id.into(), state: "available".into(), tags: owned(tags), properties: owned(properties) }
}

const ONE: &str = "subnet-00000000000000001";
const TWO: &str = "subnet-00000000000000002";
const PUBLIC: &str = "subnet-00000000000000003";

/// A network that fits; each test breaks it in one place.
fn good() -> (Seen, ExistingNetwork) {
    let unmanaged = [("kubernetes.io/cluster/unmanaged", "true")];
    let subnet = |id: &str, block: &str, zone: &str, tags: &[(&str, &str)]| {
        let subnet = resource(Kind::Subnet, id, &[("CidrBlock", block), ("AvailabilityZone", zone)], tags);
        (id.to_owned(), subnet)
    };
    let endpoint = |id: &str, service: &str, more: &[(&str, &str)]| {
        let name = format!("com.amazonaws.us-east-2.{service}");
        let mut made = resource(Kind::VpcEndpoint, id, more, &[]);
        made.properties.insert("ServiceName".into(), name);
        made
    };
    let interface = [("VpcEndpointType", "Interface"), ("PrivateDnsEnabled", "true")];
    let associate = |subnet: &str, table: &str| {
        resource(Kind::RouteTableAssociation, "rtbassoc-1", &[("SubnetId", subnet), ("RouteTableId", table)], &[])
    };
    let dns = [("CidrBlock", "10.9.0.0/16"), ("EnableDnsSupport", "true"), ("EnableDnsHostnames", "true")];
    let seen = Seen {
        vpc: resource(Kind::Vpc, "vpc-00000000000000009", &dns, &[]),
        subnets: [
            subnet(ONE, "10.9.0.0/20", "us-east-2a", &[]),
            subnet(TWO, "10.9.16.0/20", "us-east-2b", &[]),
            subnet(PUBLIC, "10.9.32.0/20", "us-east-2a", &unmanaged),
        ]
        .into(),
        tables: vec![
            resource(Kind::RouteTable, "rtb-main", &[("Main", "true")], &[]),
            resource(Kind::RouteTable, "rtb-public", &[("Route 0.0.0.0/0", "igw-1")], &[]),
        ],
        associations: vec![associate(PUBLIC, "rtb-public")],
        endpoints: vec![
            endpoint("vpce-s3", "s3", &[("VpcEndpointType", "Gateway"), ("RouteTableIds", "rtb-public,rtb-main")]),
            endpoint("vpce-ec2", "ec2", &interface),
            endpoint("vpce-elb", "elasticloadbalancing", &interface),
            endpoint("vpce-sts", "sts", &interface),
        ],
    };
    let existing = ExistingNetwork {
        vpc_id: seen.vpc.id.clone(),
        private_subnets: vec![ONE.into(), TWO.into()],
        public_subnets: vec![PUBLIC.into()],
        add_endpoints: Vec::new(),
    };
    (seen, existing)
}

#[test]
fn an_existing_network_is_looked_at_before_it_is_used() {
    let new = parse(&example().replace("4.18.12", "4.20.1"), "cluster.toml").unwrap();
    let (seen, existing) = good();
    assert_eq!(seen.complaints(&new, &existing), [""; 0]);
    assert_eq!(seen.missing(&new, &existing, "run-1"), []);
    let network = seen.network(&existing);
    assert_eq!(network.vpc_cidr, "10.9.0.0/16");
    assert_eq!(network.private_subnets[1], (TWO.to_owned(), "us-east-2b".to_owned()));

    type Break = fn(&mut Seen, &mut ExistingNetwork);
    let table: [(&str, Break); 15] = [
        ("has EnableDnsSupport=false", |seen, _| set(&mut seen.vpc, "EnableDnsSupport", "false")),
        ("network.service_cidr 172.30.0.0/16 overlaps", |seen, _| set(&mut seen.vpc, "CidrBlock", "172.30.0.0/16")),
        ("subnet-00000000000000007 is not in vpc-", |_, existing| {
            existing.public_subnets.push("subnet-00000000000000007".into())
        }),
        ("are both in us-east-2a", |seen, _| set(seen.subnets.get_mut(TWO).unwrap(), "AvailabilityZone", "us-east-2a")),
        ("lies outside of the machine network", |seen, _| {
            set(seen.subnets.get_mut(TWO).unwrap(), "CidrBlock", "10.8.0.0/20")
        }),
        ("has 11 addresses, and its machines", |seen, _| {
            set(seen.subnets.get_mut(TWO).unwrap(), "CidrBlock", "10.9.16.0/28")
        }),
        ("is not disconnected: rtb-main has a default route to nat-1", |seen, _| {
            set(&mut seen.tables[0], "Route 0.0.0.0/0", "nat-1")
        }),
        ("the route table of subnet-00000000000000001 was not found", |seen, _| drop(seen.tables.remove(0))),
        ("is not public", |seen, _| seen.associations.clear()),
        ("has no endpoint com.amazonaws.us-east-2.sts; make one, or name \"sts\"", |seen, _| {
            drop(seen.endpoints.pop())
        }),
        ("vpce-s3 for S3 is no gateway", |seen, _| set(&mut seen.endpoints[0], "VpcEndpointType", "Interface")),
        ("vpce-s3 for S3 is not in rtb-main", |seen, _| set(&mut seen.endpoints[0], "RouteTableIds", "rtb-public")),
        ("vpce-ec2 (ec2) has no private DNS", |seen, _| set(&mut seen.endpoints[1], "PrivateDnsEnabled", "false")),
        ("carries kubernetes.io/cluster/other-x7=owned", |seen, _| {
            seen.vpc.tags.insert("kubernetes.io/cluster/other-x7".into(), "owned".into());
        }),
        ("--resources subnet-00000000000000003 --tags Key=kubernetes.io/cluster/unmanaged,Value=true", |seen, _| {
            seen.subnets.get_mut(PUBLIC).unwrap().tags.clear();
        }),
    ];
    for (sentence, break_it) in table {
        let (mut seen, mut existing) = good();
        break_it(&mut seen, &mut existing);
        let said = seen.complaints(&new, &existing);
        assert!(said.iter().any(|one| one.contains(sentence)), "wanted\n  {sentence}\ngot\n  {said:#?}");
    }
    // An older installer does not mind the others.
    let old = parse(example(), "cluster.toml").unwrap();
    let (mut seen, existing) = good();
    seen.subnets.get_mut(PUBLIC).unwrap().tags.clear();
    assert_eq!(seen.complaints(&old, &existing), [""; 0]);
}

fn set(resource: &mut Resource, name: &str, value: &str) {
    resource.properties.insert(name.into(), value.into());
}

#[test]
fn only_the_endpoints_that_are_named_are_added() {
    let spec = parse(example(), "cluster.toml").unwrap();
    let (mut seen, mut existing) = good();
    seen.endpoints.clear();
    existing.add_endpoints = ["s3", "ec2", "elasticloadbalancing", "sts"].map(str::to_owned).into();
    assert_eq!(seen.complaints(&spec, &existing), [""; 0], "they will be made");
    let items = seen.missing(&spec, &existing, "run-1");
    let names: Vec<&str> = items.iter().map(|item| item.name.as_str()).collect();
    assert_eq!(
        names,
        ["edge-lab-s3", "edge-lab-endpoints", "edge-lab-ec2", "edge-lab-elasticloadbalancing", "edge-lab-sts"]
    );
    assert_eq!(items[0].properties["RouteTableIds"], "rtb-main,rtb-public");
    assert_eq!(items[2].properties["SubnetIds"], format!("{ONE},{TWO}"));
    assert!(items[1].then.contains_key("Ingress tcp/443 10.9.0.0/16"));
    // Made by this run they are still the run's; made by somebody else they are left alone.
    let (whole, _) = good();
    let mut own = whole.endpoints[1].clone();
    own.tags.insert("bartizan.run".into(), "run-1".into());
    seen.endpoints = vec![own, whole.endpoints[3].clone()];
    let names: Vec<String> = seen.missing(&spec, &existing, "run-1").into_iter().map(|item| item.name).collect();
    assert!(names.contains(&"edge-lab-ec2".to_owned()) && !names.contains(&"edge-lab-sts".to_owned()), "{names:?}");
}
