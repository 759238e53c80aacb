//! The classic mistakes, each caught before the installer sees it: some in cluster.toml, some in the finished file, some in
//! the account, some on the bastion.

use bartizan::cloud::existing::Seen;
use bartizan::cloud::memory::MemoryCloud;
use bartizan::cloud::preflight::{failed, preflight};
use bartizan::cloud::{Cloud, Create, Kind, Resource, Tags};
use bartizan::spec::install_check::check;
use bartizan::spec::install_config::render;
use bartizan::spec::install_site::{ShortLived, elsewhere, same_release, short_lived};
use bartizan::spec::secrets::mirror_pull_secret;
use bartizan::spec::{CredentialsMode, ExistingNetwork, Secret, parse};
use bartizan::stages::certificate::{complaint, issue, new_ca_key};

use super::{inputs, spec};

/// A right file of this version.
fn good(minor: u32) -> String {
    let spec = spec(minor, "[network]\nzones = 2");
    render(&spec, &inputs(&spec)).unwrap_or_else(|error| panic!("{error}")).reveal().to_owned()
}

/// The right file with one edit has the problem.
#[track_caller]
fn caught(minor: u32, from: &str, to: &str, sentence: &str) {
    let good = good(minor);
    assert_eq!(check(&good, minor), []);
    assert!(good.contains(from), "{from:?} is not in\n{good}");
    let problems = check(&good.replacen(from, to, 1), minor);
    let said = problems.iter().any(|problem| problem.to_string().contains(sentence));
    assert!(said, "wanted\n  {sentence}\ngot\n  {problems:#?}");
}

/// cluster.toml with this in it is refused.
#[track_caller]
fn refused(more: &str, sentence: &str) {
    let text = format!(
        "[cluster]\nname = \"edge-lab\"\nbase_domain = \"example.com\"\n[release]\nversion = \"4.18.9\"\n[aws]\nregion = \
         \"us-east-2\"\n[credentials]\npull_secret = \"p\"\nssh_public_key = \"k\"\n[mirror]\nhost = \
         \"registry.edge-lab.example.com\"\n{more}\n"
    );
    let said = parse(&text, "cluster.toml").map(drop).unwrap_err().to_string();
    assert!(said.contains(sentence), "wanted\n  {sentence}\ngot\n  {said}");
}

fn resource(kind: Kind, id: &str, properties: &[(&str, &str)]) -> Resource {
    let properties = properties.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    Resource { kind, id: id.into(), state: "available".into(), tags: Tags::new(), properties }
}

const ONE: &str = "subnet-00000000000000001";
const TWO: &str = "subnet-00000000000000002";
const PUBLIC: &str = "subnet-00000000000000003";

/// A network of somebody else's that a 4.20 cluster could live in, broken in one place.
#[track_caller]
fn complained(break_it: impl FnOnce(&mut Seen, &mut ExistingNetwork), sentence: &str) {
    let subnet = |id: &str, block: &str, zone: &str| {
        (id.to_owned(), resource(Kind::Subnet, id, &[("CidrBlock", block), ("AvailabilityZone", zone)]))
    };
    let endpoint = |service: &str, kind: &str| {
        let name = format!("com.amazonaws.us-east-2.{service}");
        let with = [("ServiceName", name.as_str()), ("VpcEndpointType", kind), ("RouteTableIds", "rtb-main")];
        resource(Kind::VpcEndpoint, &format!("vpce-{service}"), &with)
    };
    let mut seen = Seen {
        vpc: resource(Kind::Vpc, "vpc-00000000000000009", &[("CidrBlock", "10.9.0.0/16")]),
        subnets: [
            subnet(ONE, "10.9.0.0/20", "us-east-2a"),
            subnet(TWO, "10.9.16.0/20", "us-east-2b"),
            subnet(PUBLIC, "10.9.32.0/20", "us-east-2a"),
        ]
        .into(),
        tables: vec![
            resource(Kind::RouteTable, "rtb-main", &[("Main", "true")]),
            resource(Kind::RouteTable, "rtb-public", &[("Route 0.0.0.0/0", "igw-1")]),
        ],
        associations: vec![resource(
            Kind::RouteTableAssociation,
            "rtbassoc-1",
            &[("SubnetId", PUBLIC), ("RouteTableId", "rtb-public")],
        )],
        endpoints: ["ec2", "elasticloadbalancing", "sts"]
            .map(|service| endpoint(service, "Interface"))
            .into_iter()
            .chain([endpoint("s3", "Gateway")])
            .collect(),
    };
    let bastion = seen.subnets.get_mut(PUBLIC).unwrap();
    bastion.tags.insert("kubernetes.io/cluster/unmanaged".into(), "true".into());
    let mut existing = ExistingNetwork {
        vpc_id: seen.vpc.id.clone(),
        private_subnets: vec![ONE.into(), TWO.into()],
        public_subnets: vec![PUBLIC.into()],
        ..ExistingNetwork::default()
    };
    let spec = spec(20, "");
    assert_eq!(seen.complaints(&spec, &existing), [""; 0]);
    break_it(&mut seen, &mut existing);
    let said = seen.complaints(&spec, &existing);
    assert!(said.iter().any(|one| one.contains(sentence)), "wanted\n  {sentence}\ngot\n  {said:#?}");
}

#[test]
fn mistake_01_private_link_which_the_installer_ignores() {
    caught(18, "    region:", "    privateLink: true\n    region:", "a private cluster is publish: Internal");
    caught(20, "    region:", "    private: true\n    region:", "a private cluster is publish: Internal");
}

#[test]
fn mistake_02_publish_left_out_or_public_without_public_subnets() {
    caught(18, "publish: Internal\n", "", "publish is missing: External is assumed, and then public subnets");
    let spec = spec(18, "[network]\nvariant = \"private\"\n[install]\npublish = \"External\"");
    let mut inputs = inputs(&spec);
    inputs.public_subnets.clear();
    let said = render(&spec, &inputs).unwrap_err().to_string();
    assert!(said.contains("install.publish is \"External\", and there is no public subnet in us-east-2a"), "{said}");
}

#[test]
fn mistake_03_public_subnets_in_an_internal_cluster() {
    let spec = spec(18, "");
    let text = render(&spec, &inputs(&spec)).unwrap();
    let public = &inputs(&spec).public_subnets[0].0;
    assert!(!text.reveal().contains(public), "{public} may get the cluster's load balancers");
    refused(
        &format!(
            "[network.existing]\nvpc_id = \"vpc-12345678\"\nprivate_subnets = [{ONE:?}]\npublic_subnets = [{ONE:?}]"
        ),
        "with a public one the cluster's load balancer may land there",
    );
    complained(
        |_, existing| existing.private_subnets = vec![PUBLIC.into(), TWO.into()],
        "is not disconnected: rtb-public",
    );
}

#[test]
fn mistake_04_the_bastions_subnet_without_its_tag() {
    complained(
        |seen, _| seen.subnets.get_mut(PUBLIC).unwrap().tags.clear(),
        "create-tags --resources subnet-00000000000000003 --tags Key=kubernetes.io/cluster/unmanaged,Value=true",
    );
}

#[test]
fn mistake_05_two_private_subnets_in_one_zone() {
    complained(
        |seen, _| {
            let subnet = seen.subnets.get_mut(TWO).unwrap();
            subnet.properties.insert("AvailabilityZone".into(), "us-east-2a".into());
        },
        "are both in us-east-2a: the installer takes one private subnet of a zone",
    );
    let spec = spec(20, "[network]\nzones = 2");
    let mut inputs = inputs(&spec);
    inputs.private_subnets[1].1 = "us-east-2a".into();
    let said = render(&spec, &inputs).unwrap_err().to_string();
    assert!(said.contains("in the zone us-east-2a: the installer takes one private subnet per zone"), "{said}");
}

#[test]
fn mistake_06_subnets_outside_of_the_machine_network() {
    complained(
        |seen, _| {
            let subnet = seen.subnets.get_mut(TWO).unwrap();
            subnet.properties.insert("CidrBlock".into(), "10.8.0.0/20".into());
        },
        "(10.8.0.0/20) lies outside of the machine network, which is 10.9.0.0/16",
    );
    caught(
        18,
        "- cidr: 10.0.0.0/16",
        "- cidr: 10.128.0.0/16",
        "networking.clusterNetwork is 10.128.0.0/14: it overlaps",
    );
}

#[test]
fn mistake_07_roles_on_some_subnets_or_not_all_of_them() {
    let id = "      - id: subnet-00000000000000001\n";
    let roles = |roles: &str| format!("{id}        roles:\n{roles}");
    caught(
        20,
        id,
        &roles("        - type: ClusterNode\n"),
        "has roles on 1 of 2 subnets: either all have roles or none",
    );
    caught(20, id, &roles("        - type: Node\n"), "has the role \"Node\": the roles are ClusterNode");
    caught(20, id, &roles("        - type: ControlPlaneExternalLB\n"), "publish is Internal; take the role out");
}

#[test]
fn mistake_08_a_vpc_without_dns() {
    for attribute in ["EnableDnsSupport", "EnableDnsHostnames"] {
        complained(
            |seen, _| drop(seen.vpc.properties.insert(attribute.into(), "false".into())),
            &format!("has {attribute}=false: names of endpoints and of the cluster would not resolve"),
        );
    }
}

#[test]
fn mistake_09_s3_without_a_gateway() {
    complained(|seen, _| drop(seen.endpoints.pop()), "has no endpoint com.amazonaws.us-east-2.s3");
    complained(
        |seen, _| drop(seen.endpoints[3].properties.insert("VpcEndpointType".into(), "Interface".into())),
        "vpce-s3 for S3 is no gateway: bootstrap nodes would not get their ignition",
    );
    refused("[network]\nextra_endpoints = [\"s3\"]", "bootstrap fails with an interface endpoint");
}

#[tokio::test]
async fn mistake_10_a_zone_or_a_record_of_an_earlier_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = MemoryCloud::open(folder.path().join("cloud.json")).unwrap();
    cloud.with_state(|account| account.settings.pace_ms = 1).unwrap();
    let make = async |kind: Kind, properties: &[(&str, &str)]| {
        let properties = properties.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let create = Create { kind, tags: Tags::new(), properties, token: String::new() };
        cloud.create(&create).await.unwrap().id
    };
    let vpc = make(Kind::Vpc, &[("CidrBlock", "10.9.0.0/16")]).await;
    make(Kind::HostedZone, &[("Name", "edge-lab.example.com"), ("VpcId", &vpc)]).await;
    let base = make(Kind::HostedZone, &[("Name", "example.com"), ("VpcId", &vpc)]).await;
    let record = [("A api.edge-lab.example.com".to_owned(), "10.0.0.7".to_owned())].into();
    cloud.modify(Kind::HostedZone, &base, &record).await.unwrap();
    let existing = format!("[network.existing]\nvpc_id = {vpc:?}\nprivate_subnets = [{ONE:?}]");
    let checks = preflight(&cloud, &spec(18, &existing)).await;
    let wrong: Vec<String> = failed(&checks).iter().map(|check| format!("{}: {}", check.what, check.found)).collect();
    for says in ["zone edge-lab.example.com: ", "record api.edge-lab.example.com: it stands in "] {
        assert!(wrong.iter().any(|one| one.starts_with(says)), "{says}: {wrong:#?}");
    }
    let bare =
        good(18).replacen("    subnets:\n    - subnet-00000000000000001\n    - subnet-00000000000000002\n", "", 1);
    let problems = check(&bare.replacen("    region:", "    hostedZone: Z0123456789\n    region:", 1), 18);
    assert!(
        problems.iter().any(|one| one.to_string().contains("only with subnets of an existing VPC")),
        "{problems:?}"
    );
}

#[test]
fn mistake_11_a_mirror_certificate_that_does_not_name_it_or_no_ca() {
    let host = "registry.edge-lab.example.com";
    let other = issue("edge-lab", "mirror.example.com", &[], &new_ca_key().unwrap()).unwrap();
    assert_eq!(complaint(&other.certificate, &other.ca, host).unwrap(), format!("it does not name {host}"));
    let spec = spec(18, "");
    let mut without = inputs(&spec);
    without.trust_bundle_pem.clear();
    let said = render(&spec, &without).unwrap_err().to_string();
    assert!(said.contains("nodes would refuse the mirror's certificate"), "{said}");
    without.trust_bundle_pem = other.certificate;
    let said = render(&spec, &without).unwrap_err().to_string();
    assert!(said.contains("additionalTrustBundle holds no CA"), "{said}");
}

#[test]
fn mistake_12_a_pull_secret_for_another_name_of_the_mirror() {
    let spec = spec(18, "");
    for other in ["registry.edge-lab.example.com:8443", "localhost:5000", "registry.edge-lab.example.com"] {
        let mut inputs = inputs(&spec);
        inputs.pull_secret_merged = mirror_pull_secret(other, "a", &Secret::new("another-mirror-password"));
        let said = render(&spec, &inputs).unwrap_err().to_string();
        assert!(said.contains("pullSecret has no entry for \"registry.edge-lab.example.com:5000\""), "{said}");
    }
    let mirror = "registry.edge-lab.example.com:5000/openshift/release\n";
    caught(18, mirror, "localhost:5000/openshift/release\n", "on a node that is the node itself");
}

#[test]
fn mistake_13_an_installer_of_another_release() {
    let (one, two) = (format!("sha256:{}", "1".repeat(64)), format!("sha256:{}", "2".repeat(64)));
    let version = format!("openshift-install 4.18.9\nrelease image quay.io/openshift-release-dev/ocp-release@{one}\n");
    assert!(same_release(&version, &one).unwrap().ends_with(&one));
    assert!(same_release(&version, &two).unwrap_err().contains("images that were not copied"));
    let tagged = "openshift-install 4.19\nrelease image registry.ci.openshift.org/origin/release:4.19\n";
    assert!(same_release(tagged, &one).unwrap_err().contains("by tag: mirrors are asked for digests alone"));
}

#[test]
fn mistake_15_an_installer_that_cannot_reach_the_cluster() {
    assert_eq!(elsewhere("10.0.0.10 fe80::1", "10.0.0.0/16"), None);
    let said = elsewhere("192.168.1.20 172.17.0.1", "10.0.0.0/16").unwrap();
    assert!(said.contains("192.168.1.20, 172.17.0.1, outside of the machine network 10.0.0.0/16"), "{said}");
}

#[test]
fn mistake_16_a_vpc_that_another_cluster_owns() {
    complained(
        |seen, _| drop(seen.vpc.tags.insert("kubernetes.io/cluster/other-x7k2p".into(), "owned".into())),
        "another cluster's destroy would delete what is in it",
    );
    refused("[aws.tags]\n\"kubernetes.io/cluster/x\" = \"owned\"", "the installer refuses a network that another");
}

#[test]
fn mistake_17_a_proxy_for_calls_that_have_an_endpoint() {
    let spec = spec(18, "[network]\nvariant = \"proxy\"");
    let text = render(&spec, &inputs(&spec)).unwrap().reveal().to_owned();
    for host in ["ec2", "elasticloadbalancing", "s3"].map(|service| format!("{service}.us-east-2.amazonaws.com")) {
        let problems = check(&text.replacen(&host, "elsewhere.example.com", 1), 18);
        assert!(problems.iter().any(|one| one.to_string().contains(&format!("proxy.noProxy lacks {host}"))), "{host}");
    }
    let wrong = text.replace("httpProxy: http://", "httpProxy: https://");
    assert!(check(&wrong, 18).iter().any(|one| one.key == "proxy.httpProxy"));
}

#[test]
fn mistake_18_service_endpoints_that_the_installer_cannot_use() {
    let with =
        |name: &str, url: &str| format!("    serviceEndpoints:\n    - name: {name}\n      url: {url}\n    region:");
    caught(
        18,
        "    region:",
        &with("ec", "https://a.example.com"),
        "has the name \"ec\": the services are autoscaling",
    );
    caught(18, "    region:", &with("ec2", "http://a.example.com"), "the installer asks it from where it runs");
    refused("[install]\nservice_endpoints = { ec2 = \"a.example.com\" }", "give https:// and the name of a host");
}

#[test]
fn mistake_19_credentials_that_end_by_themselves() {
    let section = "[default]\naws_access_key_id = A\naws_secret_access_key = B\naws_session_token = C\n";
    let of = |mode| short_lived(section, mode);
    assert!(matches!(of(CredentialsMode::Mint), Some(ShortLived::Refused(why)) if why.contains("until they end")));
    assert!(matches!(of(CredentialsMode::Passthrough), Some(ShortLived::Refused(_))));
    assert!(matches!(of(CredentialsMode::Manual), Some(ShortLived::Warned(_))));
    assert_eq!(short_lived("[default]\naws_access_key_id = A\n", CredentialsMode::Mint), None);
}

#[test]
fn mistake_20_both_lists_of_mirrors() {
    let both = "imageContentSources:\n- source: a.b/c\n  mirrors: [d.e/f]\nimageDigestSources:";
    caught(18, "imageDigestSources:", both, "the installer refuses both; keep imageDigestSources");
    caught(
        13,
        "imageContentSources:",
        "imageDigestSources:",
        "the installer has it from 4.14 on, and this one is 4.13",
    );
}

#[test]
fn mistake_21_a_name_that_is_too_long_or_in_capitals() {
    caught(18, "name: edge-lab\n", "name: Edge-Lab\n", "metadata.name is \"Edge-Lab\"");
    let long = format!("name: edge-{}\n", "x".repeat(30));
    caught(18, "name: edge-lab\n", &long, "it has 35 characters; the installer cuts it to 27");
}

#[test]
fn mistake_22_a_key_that_fips_refuses() {
    let spec = spec(18, "[install]\nfips = true");
    let mut inputs = inputs(&spec);
    inputs.ssh_public_key =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEkp6pYb2xSgVjgSRVmtqcYHVL6CZsA1k0mmLnL1lvQj me".into();
    let said = render(&spec, &inputs).unwrap_err().to_string();
    assert!(said.contains("sshKey is an ed25519 key: FIPS clusters refuse it"), "{said}");
}
