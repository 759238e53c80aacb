//! What the operator asked for: `cluster.toml`, typed and checked before anything is touched. It may read the files that
//! the operator named, and nothing else.

pub mod cidr;
pub mod files;
pub mod install_check;
pub mod install_config;
pub mod install_fields;
pub mod install_site;
pub mod keys;
pub mod load;
pub mod manifests;
mod mirror;
pub mod operators;
pub mod problem;
pub mod secret;
pub mod secrets;
pub mod sizing;
pub mod subnets;
pub mod template;
pub mod validate;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use load::{digest, example, load, parse};
pub use mirror::{MirrorEngine, MirrorKind, MirrorRuntime, MirrorSpec, RegistrySoftware, Subset, Workflow, rate};
pub use problem::{Problem, SpecErrors};
pub use secret::Secret;
pub use secrets::Secrets;

/// The whole of `cluster.toml`. Every field has a default unless its doc says "required".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    pub cluster: ClusterSpec,
    pub release: ReleaseSpec,
    #[serde(default)]
    pub aws: AwsSpec,
    #[serde(default)]
    pub network: NetworkSpec,
    #[serde(default)]
    pub bastion: BastionSpec,
    pub credentials: CredentialsSpec,
    #[serde(default)]
    pub tools: ToolsSpec,
    pub mirror: MirrorSpec,
    #[serde(default)]
    pub install: InstallSpec,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSpec {
    /// Required. RFC 1123 label.
    pub name: String,
    /// Required. `example.com`; the cluster's domain is `<name>.<base_domain>`.
    pub base_domain: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseSpec {
    /// Required. `4.18.12`.
    pub version: String,
    /// Default `x86_64`.
    #[serde(default = "default_arch")]
    pub arch: String,
    /// Default `quay.io/openshift-release-dev/ocp-release:<version>-<arch>`; may name a digest.
    #[serde(default)]
    pub pull_spec: Option<String>,
    /// PEM file with the CA of the source registry, on this machine, when it is not a public one.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AwsSpec {
    /// `us-east-2`. Required, unless the platform is none.
    pub region: String,
    pub profile: Option<String>,
    /// Extra tags on everything that is made.
    pub tags: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkSpec {
    pub variant: NetworkVariant,
    /// Default `10.0.0.0/16`; /16 to /20.
    pub vpc_cidr: String,
    /// 1 to 3.
    pub zones: u8,
    /// NAT gateways of the `private` variant.
    pub nat: NatLayout,
    /// Interface endpoints besides ec2, elasticloadbalancing, sts (S3 is always a gateway).
    pub extra_endpoints: Vec<String>,
    /// An existing VPC: nothing of the network is made or removed then, but the endpoints that it names.
    pub existing: Option<ExistingNetwork>,
    pub cluster_cidr: String,
    pub host_prefix: u8,
    pub service_cidr: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkVariant {
    /// No default route from the private subnets.
    #[default]
    Disconnected,
    /// NAT for the private subnets.
    Private,
    /// Egress by a proxy on the bastion.
    Proxy,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NatLayout {
    /// One per zone: a zone that fails takes no other with it.
    #[default]
    Zone,
    /// One for all: a third of the price.
    One,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExistingNetwork {
    pub vpc_id: String,
    pub private_subnets: Vec<String>,
    #[serde(default)]
    pub public_subnets: Vec<String>,
    /// Endpoints (`s3`, `ec2` …) that may be made in it when they are not there.
    #[serde(default)]
    pub add_endpoints: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BastionSpec {
    /// `user@host` of an existing bastion: stages 01 and 02 make nothing then.
    pub host: Option<String>,
    pub port: u16,
    /// Private key for the bastion; default: what the operator's ssh finds.
    pub identity_file: Option<PathBuf>,
    /// How its host key is known before the first connection.
    pub host_key: HostKey,
    /// Operating system of one that we make.
    pub os: BastionOs,
    /// Login of the image; default [`BastionOs::user`].
    pub user: Option<String>,
    pub instance_type: String,
    /// An image of one's own instead of the newest of `os`.
    pub ami: Option<String>,
    /// Size of its disk in GiB; default from what is mirrored ([`sizing`]).
    pub disk_gib: Option<u32>,
    /// Who may reach port 22; default this machine's address.
    pub operator_cidr: Option<String>,
    /// A public address that outlives a stop of the machine.
    pub elastic_ip: bool,
    /// Run registries beside a managed mirror that fetch from quay.io (6001) and registry.redhat.io (6002) what they are
    /// asked for.
    pub pull_through: bool,
    /// Run squid for the VPC, with an account. The `proxy` variant has it always.
    pub proxy: bool,
    /// Working directory on the bastion, relative to the home directory.
    pub workdir: String,
}

/// Where the host key comes from that is pinned before the first connection. In the file: the word, or the key itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum HostKey {
    /// From the instance's console, where its first boot prints it.
    #[default]
    Console,
    /// Made here, delivered in the user data, and replaced on the first login.
    Delivered,
    /// The operator says yes to the fingerprint that the machine shows.
    Ask,
    /// As in known_hosts, without the host: `ssh-ed25519 AAAA…`.
    Known(String),
}

impl From<String> for HostKey {
    fn from(text: String) -> Self {
        match text.as_str() {
            "console" => HostKey::Console,
            "delivered" => HostKey::Delivered,
            "ask" => HostKey::Ask,
            _ => HostKey::Known(text),
        }
    }
}

impl From<HostKey> for String {
    fn from(key: HostKey) -> Self {
        match key {
            HostKey::Console => "console".into(),
            HostKey::Delivered => "delivered".into(),
            HostKey::Ask => "ask".into(),
            HostKey::Known(key) => key,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BastionOs {
    /// Red Hat Enterprise Linux 9: podman, and what FIPS clusters need.
    #[default]
    Rhel9,
    /// Amazon Linux 2023; its repositories have no podman.
    Al2023,
    /// Fedora CoreOS: podman in the image, configured by Ignition.
    Fcos,
    /// Red Hat Enterprise Linux CoreOS, by `ami` only.
    Rhcos,
}

impl BastionOs {
    pub fn is_coreos(self) -> bool {
        matches!(self, BastionOs::Fcos | BastionOs::Rhcos)
    }
    /// The login of its images.
    pub fn user(self) -> &'static str {
        if self.is_coreos() { "core" } else { "ec2-user" }
    }
    /// As in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            BastionOs::Rhel9 => "rhel9",
            BastionOs::Al2023 => "al2023",
            BastionOs::Fcos => "fcos",
            BastionOs::Rhcos => "rhcos",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialsSpec {
    /// Required. Red Hat pull secret (JSON) on this machine.
    pub pull_secret: PathBuf,
    /// Required. Public key for `core` on the nodes.
    pub ssh_public_key: PathBuf,
    /// Private half, for the second hop to the bootstrap node; default: the agent.
    #[serde(default)]
    pub ssh_private_key: Option<PathBuf>,
    /// How the cluster's operators get cloud credentials; default: [`Spec::credentials_mode`].
    #[serde(default)]
    pub mode: Option<CredentialsMode>,
    /// For `Manual`: a folder on this machine with the operator's own secrets as manifests (`*.yaml`), for example what
    /// `ccoctl aws create-all` left. No users are made then.
    #[serde(default)]
    pub manifests: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum CredentialsMode {
    /// The cloud credential operator makes users: it has to reach IAM from the cluster.
    Mint,
    /// The operators share the installer's credentials.
    Passthrough,
    /// One user for each of the release's CredentialsRequests, made from outside.
    Manual,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ToolsSpec {
    pub source: ToolsSource,
    /// For `directory`: a folder on this machine with the tarballs (or binaries) and `sha256sum.txt`.
    pub directory: Option<PathBuf>,
    /// For `download`.
    pub url: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToolsSource {
    #[default]
    Download,
    Directory,
    /// They are on the bastion's PATH already.
    Present,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InstallSpec {
    /// 1 or 3.
    pub control_plane_replicas: u8,
    pub control_plane_type: String,
    pub compute_replicas: u8,
    pub compute_type: String,
    pub publish: Publish,
    pub fips: bool,
    /// AWS services by another name: `ec2` → `https://…`. The installer asks them from the bastion.
    pub service_endpoints: std::collections::BTreeMap<String, String>,
    /// A folder on this machine with more manifests (`*.yaml`) for the installer.
    pub manifests: Option<PathBuf>,
    /// Where the cluster asks for updates: the graph of an update service of one's own.
    pub update_service: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Publish {
    #[default]
    Internal,
    External,
}

fn default_arch() -> String {
    "x86_64".into()
}
impl Default for NetworkSpec {
    fn default() -> Self {
        Self {
            variant: NetworkVariant::default(),
            vpc_cidr: "10.0.0.0/16".into(),
            zones: 1,
            nat: NatLayout::default(),
            extra_endpoints: Vec::new(),
            existing: None,
            cluster_cidr: "10.128.0.0/14".into(),
            host_prefix: 23,
            service_cidr: "172.30.0.0/16".into(),
        }
    }
}

impl Default for BastionSpec {
    fn default() -> Self {
        Self {
            host: None,
            port: 22,
            identity_file: None,
            host_key: HostKey::default(),
            os: BastionOs::default(),
            user: None,
            instance_type: "m6i.large".into(),
            ami: None,
            disk_gib: None,
            operator_cidr: None,
            elastic_ip: false,
            pull_through: false,
            proxy: false,
            workdir: "bartizan".into(),
        }
    }
}

impl Default for ToolsSpec {
    fn default() -> Self {
        Self {
            source: ToolsSource::default(),
            directory: None,
            url: "https://mirror.openshift.com/pub/openshift-v4/clients/ocp".into(),
        }
    }
}

impl Default for InstallSpec {
    fn default() -> Self {
        Self {
            control_plane_replicas: 3,
            control_plane_type: "m6i.xlarge".into(),
            compute_replicas: 2,
            compute_type: "m6i.large".into(),
            publish: Publish::default(),
            fips: false,
            service_endpoints: std::collections::BTreeMap::new(),
            manifests: None,
            update_service: None,
        }
    }
}

impl Spec {
    /// 18 of `4.18.12` or `4.18.0-rc.2`; `None` when the text is no whole version of OpenShift 4.
    pub fn minor_of(version: &str) -> Option<u32> {
        let digits = |text: &str| (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        let (minor, patch) = version.strip_prefix("4.")?.split_once('.')?;
        let (patch, label) = patch.split_once('-').unwrap_or((patch, "0"));
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
        let labelled = !label.is_empty() && label.bytes().all(good);
        (digits(minor) && digits(patch) && labelled).then(|| minor.parse().ok()).flatten()
    }
    /// The minor version of the release; 0 only for a spec that was never validated.
    pub fn minor(&self) -> u32 {
        Self::minor_of(&self.release.version).unwrap_or(0)
    }
    /// `<name>.<base_domain>`
    pub fn domain(&self) -> String {
        format!("{}.{}", self.cluster.name, self.cluster.base_domain)
    }
    /// As the spec says, else by the network: IAM has no endpoint in a VPC, so nothing in a disconnected cluster can make
    /// users.
    pub fn credentials_mode(&self) -> CredentialsMode {
        self.credentials.mode.unwrap_or(match self.network.variant {
            NetworkVariant::Disconnected => CredentialsMode::Manual,
            NetworkVariant::Private | NetworkVariant::Proxy => CredentialsMode::Mint,
        })
    }
    /// Route 53 has no endpoint in a VPC either: without a way out the ingress operator cannot write `*.apps`.
    pub fn writes_apps_record(&self) -> bool {
        self.network.variant == NetworkVariant::Disconnected
    }
    /// `host:port`, the registry's one identity.
    pub fn registry(&self) -> String {
        format!("{}:{}", self.mirror.host, self.mirror.port)
    }
    /// The login on a bastion that we make.
    pub fn bastion_user(&self) -> &str {
        self.bastion.user.as_deref().unwrap_or(self.bastion.os.user())
    }
    /// Does a bastion that we make run a proxy?
    pub fn runs_proxy(&self) -> bool {
        self.bastion.proxy || self.network.variant == NetworkVariant::Proxy
    }
    /// Where the release comes from.
    pub fn pull_spec(&self) -> String {
        self.release.pull_spec.clone().unwrap_or_else(|| {
            format!("quay.io/openshift-release-dev/ocp-release:{}-{}", self.release.version, self.release.arch)
        })
    }
    /// The tag that the release gets in the mirror.
    pub fn release_tag(&self) -> String {
        format!("{}-{}", self.release.version, self.release.arch)
    }
}
