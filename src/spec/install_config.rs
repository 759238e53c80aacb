//! `install-config.yaml` for the release at hand. Pure. Field names are those of openshift/installer,
//! `pkg/types/installconfig.go` and `pkg/types/aws/platform.go`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::install_check::check;
use super::install_fields::{IMAGE_DIGEST_SOURCES, VPC_SUBNETS};
use super::problem::Problem;
use super::{CredentialsMode, MirrorKind, NetworkVariant, Publish, Secret, Spec};

/// What is known only once the earlier stages are done.
#[derive(Debug, Clone)]
pub struct InstallInputs {
    /// The VPC's block; it must hold every subnet.
    pub machine_network: String,
    /// Id and availability zone of each private subnet.
    pub private_subnets: Vec<(String, String)>,
    /// The same of public ones; named only where something of the cluster is public.
    pub public_subnets: Vec<(String, String)>,
    /// CA of the mirror (and of a proxy), PEM.
    pub trust_bundle_pem: String,
    /// `dockerconfigjson` that has the mirror under `host:port`.
    pub pull_secret_merged: Secret,
    pub ssh_public_key: String,
    /// Source repository and its mirror (`host:port/repository`), both without tag and digest.
    pub image_sources: Vec<(String, String)>,
    /// An existing private zone of exactly the cluster's domain; else the installer makes one.
    pub hosted_zone: Option<String>,
    /// Only for regions without an RHCOS image.
    pub ami: Option<String>,
    /// For the `proxy` variant.
    pub proxy: Option<ProxyInputs>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyInputs {
    /// `http://user:password@host:3128`; the scheme must be http for both.
    pub http: Secret,
    pub https: Secret,
    /// Besides what the installer adds itself.
    pub no_proxy: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum InstallConfigError {
    /// What [`check`] says of the result, or what the inputs cannot satisfy.
    #[error("install-config would be refused: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Problems(Vec<Problem>),
    #[error("install-config cannot be written as YAML: {0}")]
    Yaml(String),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InstallConfig<'a> {
    api_version: &'static str,
    base_domain: &'a str,
    metadata: Metadata<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credentials_mode: Option<&'static str>,
    control_plane: Pool<'a>,
    compute: [Pool<'a>; 1],
    networking: Networking<'a>,
    platform: Platform<'a>,
    publish: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    fips: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<Proxy<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    image_digest_sources: Vec<ImageSource<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    image_content_sources: Vec<ImageSource<'a>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    additional_trust_bundle: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    additional_trust_bundle_policy: Option<&'static str>,
    ssh_key: &'a str,
    pull_secret: &'a str,
}

#[derive(Serialize)]
struct Metadata<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Pool<'a> {
    name: &'static str,
    architecture: &'static str,
    hyperthreading: &'static str,
    replicas: u8,
    platform: PoolPlatform<'a>,
}

#[derive(Serialize)]
struct PoolPlatform<'a> {
    aws: PoolAws<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PoolAws<'a> {
    #[serde(rename = "type")]
    instance_type: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    zones: Vec<&'a str>,
    metadata_service: MetadataService,
}

#[derive(Serialize)]
struct MetadataService {
    authentication: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Networking<'a> {
    network_type: &'static str,
    machine_network: [Block<'a>; 1],
    cluster_network: [ClusterNetwork<'a>; 1],
    service_network: [&'a str; 1],
}

#[derive(Serialize)]
struct Block<'a> {
    cidr: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ClusterNetwork<'a> {
    cidr: &'a str,
    host_prefix: u8,
}

#[derive(Serialize)]
struct Platform<'a> {
    aws: Aws<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Aws<'a> {
    region: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subnets: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vpc: Option<Vpc<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hosted_zone: Option<&'a str>,
    #[serde(rename = "amiID", skip_serializing_if = "Option::is_none")]
    ami_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    service_endpoints: Vec<ServiceEndpoint<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    user_tags: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct ServiceEndpoint<'a> {
    name: &'a str,
    url: &'a str,
}

#[derive(Serialize)]
struct Vpc<'a> {
    subnets: Vec<SubnetRef<'a>>,
}

#[derive(Serialize)]
struct SubnetRef<'a> {
    id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Proxy<'a> {
    http_proxy: &'a str,
    https_proxy: &'a str,
    no_proxy: String,
}

#[derive(Serialize)]
struct ImageSource<'a> {
    source: &'a str,
    mirrors: Vec<&'a str>,
}

/// Write the install-config, and [`check`] it. The text holds the pull secret, so it is a secret.
pub fn render(spec: &Spec, inputs: &InstallInputs) -> Result<Secret, InstallConfigError> {
    let minor = spec.minor();
    fits(spec, inputs)?;
    let architecture = if spec.release.arch == "aarch64" { "arm64" } else { "amd64" };
    let zones: BTreeSet<&str> = inputs.private_subnets.iter().map(|(_, zone)| zone.as_str()).collect();
    let pool = |name, replicas, instance_type| Pool {
        name,
        architecture,
        hyperthreading: "Enabled",
        replicas,
        platform: PoolPlatform {
            aws: PoolAws {
                instance_type,
                zones: zones.iter().copied().filter(|zone| !zone.is_empty()).collect(),
                metadata_service: MetadataService { authentication: "Required" },
            },
        },
    };
    // With a public one among them the balancers of an internal cluster may land there.
    let public = inputs.public_subnets.iter().filter(|_| spec.install.publish == Publish::External);
    let ids: Vec<&str> = inputs.private_subnets.iter().chain(public).map(|(id, _)| id.as_str()).collect();
    let (subnets, vpc) = if minor >= VPC_SUBNETS {
        (Vec::new(), Some(Vpc { subnets: ids.iter().map(|id| SubnetRef { id }).collect() }))
    } else {
        (ids, None)
    };
    let mut by_source: Vec<ImageSource<'_>> = Vec::new();
    for (source, mirror) in &inputs.image_sources {
        match by_source.iter_mut().find(|have| have.source == source) {
            Some(have) => have.mirrors.push(mirror),
            None => by_source.push(ImageSource { source, mirrors: vec![mirror] }),
        }
    }
    let (digest_sources, content_sources) =
        if minor >= IMAGE_DIGEST_SOURCES { (by_source, Vec::new()) } else { (Vec::new(), by_source) };
    let bundle = inputs.trust_bundle_pem.trim();
    let region = &spec.aws.region;
    let config = InstallConfig {
        api_version: "v1",
        base_domain: &spec.cluster.base_domain,
        metadata: Metadata { name: &spec.cluster.name },
        credentials_mode: match spec.credentials_mode() {
            // The default of the installer: it looks at what the credentials may do.
            CredentialsMode::Mint => None,
            CredentialsMode::Passthrough => Some("Passthrough"),
            CredentialsMode::Manual => Some("Manual"),
        },
        control_plane: pool("master", spec.install.control_plane_replicas, &spec.install.control_plane_type),
        compute: [pool("worker", spec.install.compute_replicas, &spec.install.compute_type)],
        networking: Networking {
            network_type: "OVNKubernetes",
            machine_network: [Block { cidr: &inputs.machine_network }],
            cluster_network: [ClusterNetwork {
                cidr: &spec.network.cluster_cidr,
                host_prefix: spec.network.host_prefix,
            }],
            service_network: [&spec.network.service_cidr],
        },
        platform: Platform {
            aws: Aws {
                region,
                subnets,
                vpc,
                hosted_zone: inputs.hosted_zone.as_deref(),
                ami_id: inputs.ami.as_deref(),
                service_endpoints: spec
                    .install
                    .service_endpoints
                    .iter()
                    .map(|(name, url)| ServiceEndpoint { name, url })
                    .collect(),
                user_tags: spec.aws.tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
            },
        },
        publish: match spec.install.publish {
            Publish::Internal => "Internal",
            Publish::External => "External",
        },
        fips: spec.install.fips,
        proxy: inputs.proxy.as_ref().filter(|_| spec.network.variant == NetworkVariant::Proxy).map(|proxy| Proxy {
            http_proxy: proxy.http.reveal(),
            https_proxy: proxy.https.reveal(),
            no_proxy: no_proxy(spec, &proxy.no_proxy),
        }),
        image_digest_sources: digest_sources,
        image_content_sources: content_sources,
        additional_trust_bundle: bundle,
        // Always: so that the pods of operators trust the mirror as the nodes do.
        additional_trust_bundle_policy: (!bundle.is_empty()).then_some("Always"),
        ssh_key: inputs.ssh_public_key.trim(),
        pull_secret: inputs.pull_secret_merged.reveal(),
    };
    let text = yaml_serde::to_string(&config).map_err(|error| InstallConfigError::Yaml(error.to_string()))?;
    let problems = check(&text, minor);
    if problems.is_empty() { Ok(Secret::holding(text)) } else { Err(InstallConfigError::Problems(problems)) }
}

/// Below it are the names of AWS's services in a region.
pub(super) fn amazon(region: &str) -> &'static str {
    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
}

/// Calls to the services that have an endpoint in the VPC must not go to the proxy. The installer adds the cluster's own
/// networks and names itself (openshift/installer `pkg/asset/manifests/proxy.go`).
fn no_proxy(spec: &Spec, extra: &[String]) -> String {
    let region = &spec.aws.region;
    let usual = ["ec2", "elasticloadbalancing", "s3"];
    let more = spec.network.extra_endpoints.iter().map(String::as_str).filter(|service| !usual.contains(service));
    let hosts = usual.into_iter().chain(more).map(|service| format!("{service}.{region}.{}", amazon(region)));
    let own = spec.install.service_endpoints.values();
    let own = own.filter_map(|url| Some(url.strip_prefix("https://")?.trim_end_matches('/').to_owned()));
    let mut all: Vec<String> = Vec::new();
    for host in hosts.chain(own).chain(extra.iter().cloned()) {
        if !all.contains(&host) {
            all.push(host);
        }
    }
    all.join(",")
}

/// What the inputs cannot satisfy.
fn fits(spec: &Spec, inputs: &InstallInputs) -> Result<(), InstallConfigError> {
    let problem = |key: &str, found: String, want: &str| Problem {
        file: "cluster.toml".into(),
        line: 1,
        key: key.into(),
        found,
        want: want.into(),
    };
    let mut problems = Vec::new();
    // Without roles the installer takes one private subnet per zone ("private subnet X is also in zone Y").
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for (id, zone) in inputs.private_subnets.iter().filter(|(_, zone)| !zone.is_empty()) {
        if let Some(other) = seen.insert(zone, id) {
            problems.push(problem(
                "network.existing.private_subnets",
                format!("has {other} and {id} in the zone {zone}"),
                "the installer takes one private subnet per zone; leave one out",
            ));
        }
    }
    if spec.install.publish == Publish::External {
        let without = |zone: &&str| !inputs.public_subnets.iter().any(|(_, other)| other == *zone);
        let zones: Vec<&str> = seen.keys().copied().filter(without).collect();
        if inputs.public_subnets.is_empty() || !zones.is_empty() {
            problems.push(problem(
                "install.publish",
                format!("is \"External\", and there is no public subnet in {}", zones.join(", ")),
                "name one of each zone in network.existing.public_subnets, or set it to \"Internal\"",
            ));
        }
    }
    if spec.mirror.kind == MirrorKind::Managed && inputs.trust_bundle_pem.trim().is_empty() {
        problems.push(problem(
            "mirror",
            "has a CA of its own, and the trust bundle is empty".into(),
            "nodes would refuse the mirror's certificate; run stage 05 again",
        ));
    }
    if problems.is_empty() { Ok(()) } else { Err(InstallConfigError::Problems(problems)) }
}
