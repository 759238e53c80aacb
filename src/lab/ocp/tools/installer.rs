//! `openshift-install`: reads the install-config that it is given, makes the machines in the lab's cloud, and waits for
//! what they do. Messages, levels and exit codes as in openshift/installer `cmd/openshift-install`.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use serde_json::{Value, json};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Mutex;

use super::{Words, err, ignition, out, path};
use crate::cloud::{Cloud, CloudError, Create, Kind, Resource};
use crate::lab::machines::{Machine, Tool, ToolCx};
use crate::lab::ocp::OcpError;
use crate::lab::ocp::ca::Ca;
use crate::lab::ocp::cluster::{Assets, Cluster, NodePlan, Scene};
use crate::lab::ocp::control_plane;
use crate::lab::ocp::mirror::uuid;
use crate::lab::ocp::payload::Payload;
use crate::lab::ocp::pull::PullConfig;
use crate::lab::ocp::scenario::Moment;
use crate::spec::{Spec, install_fields};

/// Exit codes of openshift-install 4.16 and later.
const CONFIG: i32 = 3;
const INFRASTRUCTURE: i32 = 4;
const BOOTSTRAP: i32 = 5;
const INSTALL: i32 = 6;
const OPERATORS: i32 = 7;
const INTERRUPTED: i32 = 8;

pub struct Installer(pub Arc<Scene>);

#[async_trait]
impl Tool for Installer {
    fn name(&self) -> &'static str {
        "openshift-install"
    }

    fn on(&self, host: &str) -> bool {
        host == "bastion"
    }

    async fn run(&self, mut cx: ToolCx) -> i32 {
        let words = Words::parse(&cx.args, &["dir", "log-level", "key", "bootstrap", "master", "file"]);
        let folder = path(&cx, words.get(&["dir"]).unwrap_or("."));
        let level = words.get(&["log-level"]).unwrap_or("info").to_owned();
        let version = self.0.payload.version.clone();
        let cancel = cx.cancel.clone();
        if words.word(0) == "version" || words.word(0).is_empty() {
            let image = Payload::pull_spec(&self.0.payload.release);
            out(&mut cx, format!("openshift-install {version}\nbuilt from commit 4f6b1d5d3c1e2a3b4c5d6e7f8091a2b3c4d5e6f7\nrelease image {image}\nrelease architecture amd64\n")).await;
            return 0;
        }
        let log = Log {
            machine: cx.machine.clone(),
            path: format!("{folder}/.openshift_install.log"),
            debug: level == "debug",
        };
        if words.word(0) == "explain" {
            let (known, text) = explain(&version, words.word(1));
            if known {
                out(&mut cx, text).await;
                return 0;
            }
            err(&mut cx, text).await;
            return 1;
        }
        let mut session = Session { scene: self.0.clone(), folder, log, env: cx.env, stderr: Mutex::new(cx.stderr) };
        session.debug(format!("OpenShift Installer {version}")).await;
        session.debug("Built from commit 4f6b1d5d3c1e2a3b4c5d6e7f8091a2b3c4d5e6f7").await;
        let verb = format!("{} {}", words.word(0), words.word(1));
        let work = session.perform(&verb);
        tokio::select! {
            code = work => code,
            () = cancel.cancelled() => INTERRUPTED,
        }
    }
}

struct Log {
    machine: Arc<Machine>,
    path: String,
    debug: bool,
}

struct Session {
    scene: Arc<Scene>,
    folder: String,
    log: Log,
    env: BTreeMap<String, String>,
    /// In a lock only because a stream cannot be shared otherwise.
    stderr: Mutex<Box<dyn AsyncWrite + Send + Unpin>>,
}

/// Describes a resource of the cluster, with the tags that all of them have.
type Maker<'m> = dyn Fn(Kind, String, &[(&str, &str)]) -> Create + Sync + 'm;

/// A fatal error: exit code and message.
struct Fatal(i32, String);

impl From<CloudError> for Fatal {
    fn from(why: CloudError) -> Self {
        let why =
            format!("failed to fetch Cluster: failed to generate asset \"Cluster\": failed to create cluster: {why}");
        Self(INFRASTRUCTURE, why)
    }
}

impl From<OcpError> for Fatal {
    fn from(why: OcpError) -> Self {
        Self(1, why.to_string())
    }
}

/// What the installer needs of install-config.yaml.
#[derive(Debug, Clone)]
struct Config {
    raw: Value,
    name: String,
    base_domain: String,
    region: String,
    subnets: Vec<String>,
    masters: usize,
    workers: usize,
}

impl Session {
    async fn perform(&mut self, verb: &str) -> i32 {
        let done = match verb {
            "create install-config" | "create manifests" => self.manifests().await.map(|_| ()),
            "create ignition-configs" => match self.manifests().await {
                Ok(config) => self.write_ignition(&config),
                Err(why) => Err(why),
            },
            "create cluster" => self.create().await,
            "wait-for bootstrap-complete" => self.wait_bootstrap().await,
            "wait-for install-complete" => self.wait_install().await,
            "destroy cluster" => self.destroy_cluster().await,
            "destroy bootstrap" => self.destroy_bootstrap().await,
            "gather bootstrap" => self.gather().await,
            other => Err(Fatal(1, format!("unknown command {other:?} for \"openshift-install\""))),
        };
        match done {
            Ok(()) => 0,
            Err(Fatal(code, message)) => {
                if !message.is_empty() {
                    let level = if matches!(code, BOOTSTRAP | INSTALL) { "error" } else { "fatal" };
                    self.say(level, message).await;
                }
                code
            }
        }
    }

    async fn say(&mut self, level: &str, message: impl Into<String>) {
        let message = message.into();
        let at = self.scene.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let line = format!("time=\"{at}\" level={level} msg={}\n", quoted(&message));
        // A log on a full disk has holes; so has the real one.
        let _ = self.log.machine.fs().append(&self.log.path, line.as_bytes());
        if level != "debug" || self.log.debug {
            let stderr = self.stderr.get_mut();
            for line in message.lines() {
                // The log file has it in any case.
                let _ = stderr.write_all(format!("level={level} msg={line}\n").as_bytes()).await;
            }
        }
    }

    async fn debug(&mut self, message: impl Into<String>) {
        self.say("debug", message).await;
    }

    async fn info(&mut self, message: impl Into<String>) {
        self.say("info", message).await;
    }

    fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    fn load(&self, name: &str) -> Option<String> {
        let bytes = self.log.machine.fs().read(&self.file(name)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn store(&self, name: &str, text: impl AsRef<[u8]>) -> Result<(), Fatal> {
        self.log
            .machine
            .fs()
            .write(&self.file(name), text.as_ref())
            .map_err(|why| Fatal(1, format!("failed to write {name}: {why}")))
    }

    /// The install config, from its file (which is consumed) or from the state of an earlier command.
    async fn config(&mut self) -> Result<Config, Fatal> {
        if let Some(text) = self.load("install-config.yaml") {
            let config = Config::parse(&text)?;
            self.info("Consuming Install Config from target directory").await;
            let _ = self.log.machine.fs().remove(&self.file("install-config.yaml"));
            let state = json!({ "*installconfig.InstallConfig": { "config": config.raw } });
            self.store(".openshift_install_state.json", format!("{state:#}"))?;
            return Ok(config);
        }
        let state: Option<Value> =
            self.load(".openshift_install_state.json").and_then(|text| serde_json::from_str(&text).ok());
        match state {
            Some(state) => Config::from_value(state["*installconfig.InstallConfig"]["config"].clone()),
            None => Err(invalid("no install-config.yaml in the target directory, and no terminal to ask for it")),
        }
    }

    async fn manifests(&mut self) -> Result<Config, Fatal> {
        let config = self.config().await?;
        self.info("Credentials loaded from the \"default\" profile in file \"/home/ec2-user/.aws/credentials\"").await;
        let domain = format!("{}.{}", config.name, config.base_domain);
        self.store("manifests/cluster-config.yaml", format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: cluster-config-v1\n  namespace: kube-system\ndata:\n  cluster: {domain}\n"))?;
        self.store("manifests/cluster-infrastructure-02-config.yml", format!("apiVersion: config.openshift.io/v1\nkind: Infrastructure\nmetadata:\n  name: cluster\nstatus:\n  apiServerURL: https://api.{domain}:6443\n"))?;
        self.store(
            "openshift/99_openshift-cluster-api_master-machines-0.yaml",
            "apiVersion: machine.openshift.io/v1beta1\nkind: Machine\n",
        )?;
        let zone = format!("{}-lab00", config.name);
        self.store("manifests/cluster-dns-02-config.yml", format!("apiVersion: config.openshift.io/v1\nkind: DNS\nmetadata:\n  creationTimestamp: null\n  name: cluster\nspec:\n  baseDomain: {domain}\n  platform:\n    aws: null\n    type: \"\"\n  privateZone:\n    tags:\n      Name: {zone}-int\n      kubernetes.io/cluster/{zone}: owned\nstatus: {{}}\n"))?;
        if !config.pull().mirrors.is_empty() {
            let (name, object) = match config.raw.get("imageDigestSources") {
                Some(rules) => (
                    "image-digest-mirror-set.yaml",
                    json!({ "apiVersion": "config.openshift.io/v1", "kind": "ImageDigestMirrorSet", "metadata": { "name": "image-digest-mirror" }, "spec": { "imageDigestMirrors": rules } }),
                ),
                None => (
                    "image-content-source-policy.yaml",
                    json!({ "apiVersion": "operator.openshift.io/v1alpha1", "kind": "ImageContentSourcePolicy", "metadata": { "name": "image-policy-0" }, "spec": { "repositoryDigestMirrors": config.raw["imageContentSources"] } }),
                ),
            };
            self.store(&format!("manifests/{name}"), yaml_serde::to_string(&object).unwrap_or_default())?;
        }
        self.info(format!("Manifests created in: {0}/manifests and {0}/openshift", self.folder)).await;
        Ok(config)
    }

    fn write_ignition(&self, config: &Config) -> Result<(), Fatal> {
        let mut manifests = Vec::new();
        for folder in ["manifests", "openshift"] {
            for name in self.log.machine.fs().list(&self.file(folder)).unwrap_or_default() {
                let path = format!("{folder}/{name}");
                let text = self.load(&path).unwrap_or_default();
                manifests.push((path, text));
            }
        }
        let domain = format!("{}.{}", config.name, config.base_domain);
        let key = config.raw["sshKey"].as_str().unwrap_or_default().trim();
        for (name, text) in ignition::configs(&domain, key, &config.pull(), &manifests)? {
            self.store(name, text)?;
        }
        Ok(())
    }

    async fn create(&mut self) -> Result<(), Fatal> {
        self.debug("Fetching Metadata...").await;
        self.debug("Loading Metadata...").await;
        if self.load("metadata.json").is_some() {
            return Err(Fatal(1, "failed to fetch Metadata: failed to load asset \"Cluster\": local infrastructure provisioning artifacts already exist. There may already be a running cluster".into()));
        }
        let consumed = self.load("manifests/cluster-config.yaml").is_some();
        let config = self.config().await?;
        let dns = self.load("manifests/cluster-dns-02-config.yml");
        let no_zones = dns.is_some_and(|text| !text.contains("privateZone:"));
        let manual = config.raw["credentialsMode"] == "Manual";
        let secrets = manual.then(|| self.secrets());
        if consumed {
            for what in ["Openshift Manifests", "Master Machines", "Worker Machines", "Common Manifests"] {
                self.info(format!("Consuming {what} from target directory")).await;
            }
            for folder in ["manifests", "openshift"] {
                let _ = self.log.machine.fs().remove(&self.file(folder));
            }
        }
        let started = std::time::Instant::now();
        let assets = Assets { secrets, no_zones, ..self.provision(&config).await? };
        let cluster = self.scene.launch(assets)?;
        self.info("Control-plane machines are ready").await;
        self.info("Cluster API resources have been created. Waiting for cluster to become ready...").await;
        self.scene.happens(&Moment::InstallStarted).await;
        self.bootstrap_complete(&cluster).await?;
        self.destroy_bootstrap().await?;
        self.install_complete(&cluster).await?;
        let minutes = started.elapsed().as_secs_f64() * self.scene.clock.speed();
        self.debug("Time elapsed per stage:").await;
        for (stage, part) in [
            ("Infrastructure Pre-provisioning", 0.02),
            ("Network-infrastructure Provisioning", 0.05),
            ("Machine Provisioning", 0.05),
            ("Bootstrap Complete", 0.5),
            ("API", 0.1),
            ("Bootstrap Destroy", 0.04),
            ("Cluster Operators Available", 0.3),
            ("Cluster Operators Stable", 0.04),
        ] {
            self.debug(format!("{stage:>35}: {}", elapsed(minutes * part))).await;
        }
        self.info(format!("Time elapsed: {}", elapsed(minutes))).await;
        Ok(())
    }

    /// Network, machines, and the files that tell of them.
    async fn provision(&mut self, config: &Config) -> Result<Assets, Fatal> {
        let scene = self.scene.clone();
        let random: String = (0..5).map(|_| fastrand::alphanumeric().to_ascii_lowercase()).collect();
        let infra_id = format!("{}-{random}", config.name.chars().take(21).collect::<String>());
        let domain = format!("{}.{}", config.name, config.base_domain);
        let owned = format!("kubernetes.io/cluster/{infra_id}");
        let id = uuid();
        let capi = format!("sigs.k8s.io/cluster-api-provider-aws/cluster/{infra_id}");
        let metadata = json!({
            "clusterName": config.name,
            "clusterID": id,
            "infraID": infra_id,
            "aws": {
                "region": config.region,
                "identifier": [{ owned.as_str(): "owned" }, { "openshiftClusterID": id }, { capi.as_str(): "owned" }],
                "clusterDomain": domain,
            },
            "featureSet": "",
            "customFeatureSet": null,
        });
        self.store("metadata.json", metadata.to_string())?;
        let release = self.env.get("OPENSHIFT_INSTALL_RELEASE_IMAGE_OVERRIDE").cloned();
        if let Some(image) = &release {
            self.say(
                "warning",
                format!("Found override for release image ({image}). Please be warned, this is not advised"),
            )
            .await;
        }
        let release = release
            .filter(|image| image.contains("@sha256:"))
            .unwrap_or_else(|| Payload::pull_spec(&scene.payload.release));
        self.info("Credentials loaded from the \"default\" profile in file \"/home/ec2-user/.aws/credentials\"").await;
        self.info("Skipping quota checks").await;
        self.info("Creating infrastructure resources...").await;
        self.info("Reconciling IAM roles for control-plane and compute nodes").await;
        self.info("Creating IAM role for master").await;
        self.info("Creating IAM role for worker").await;
        self.info("Started local control plane with envtest").await;
        self.info(format!("Stored kubeconfig for envtest in: {}/.clusterapi_output/envtest.kubeconfig", self.folder))
            .await;
        self.info(
            "Running process: Cluster API with args [-v=2 --diagnostics-address=0 --health-addr=127.0.0.1:38475]",
        )
        .await;
        self.info("Running process: aws infrastructure provider with args [-v=4 --diagnostics-address=0]").await;
        self.info("Creating infra manifests...").await;
        self.info(format!(
            "Created manifest *v1beta2.AWSCluster, namespace=openshift-cluster-api-guests name={infra_id}"
        ))
        .await;
        self.info("Done creating infra manifests").await;
        self.info(format!("Creating kubeconfig entry for capi cluster {infra_id}")).await;
        let ca = Ca::make("kube-apiserver-lb-signer")?;
        let admin = ca.client("system:admin", "system:masters")?;
        let server = ca.server(&[&format!("api.{domain}"), &format!("api-int.{domain}"), "localhost", "127.0.0.1"])?;
        let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let kubeconfig = format!(
            "clusters:\n- cluster:\n    certificate-authority-data: {}\n    server: https://api.{domain}:6443\n  name: {1}\ncontexts:\n- context:\n    cluster: {1}\n    user: admin\n  name: admin\ncurrent-context: admin\nkind: Config\napiVersion: v1\npreferences: {{}}\nusers:\n- name: admin\n  user:\n    client-certificate-data: {2}\n    client-key-data: {3}\n",
            base64(ca.pem()),
            config.name,
            base64(&admin.certificate),
            base64(&admin.key),
        );
        self.store("auth/kubeconfig", &kubeconfig)?;
        let word = || (0..5).map(|_| fastrand::alphanumeric()).collect::<String>();
        self.store("auth/kubeadmin-password", [word(), word(), word(), word()].join("-"))?;
        for file in ["auth/kubeconfig", "auth/kubeadmin-password"] {
            let _ = self.log.machine.fs().set_mode(&self.file(file), 0o640);
        }
        let until = self.until(15);
        self.info(format!("Waiting up to 15m0s (until {until}) for network infrastructure to become ready...")).await;
        scene.sleep(25).await;
        let made = |kind: Kind, name: String, properties: &[(&str, &str)]| Create {
            kind,
            tags: [
                ("Name".to_owned(), name.clone()),
                (owned.clone(), "owned".to_owned()),
                (capi.clone(), "owned".to_owned()),
            ]
            .into(),
            properties: properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            token: name,
        };
        let subnet = match config.subnets.first() {
            Some(subnet) => scene.cloud.get(Kind::Subnet, subnet).await?,
            None => self.own_network(&made, &infra_id).await?,
        };
        let vpc = subnet.properties.get("VpcId").cloned().unwrap_or_default();
        let group = made(
            Kind::SecurityGroup,
            format!("{infra_id}-controlplane"),
            &[
                ("GroupName", &format!("{infra_id}-controlplane")),
                ("VpcId", &vpc),
                ("Description", "Kubernetes cluster control plane"),
            ],
        );
        let group = scene.cloud.create(&group).await?;
        scene
            .cloud
            .create(&made(
                Kind::LoadBalancer,
                format!("{infra_id}-int"),
                &[("Name", &format!("{infra_id}-int")), ("Scheme", "internal"), ("SubnetId", &subnet.id)],
            ))
            .await?;
        self.info("Network infrastructure is ready").await;
        self.info("Creating Route53 records for control plane load balancer").await;
        scene.cloud.create(&made(Kind::HostedZone, domain.clone(), &[("Name", &domain), ("VpcId", &vpc)])).await?;
        self.info("Created private Hosted Zone").await;
        self.debug("Created private API record in private zone").await;
        let bucket = format!("openshift-bootstrap-data-{infra_id}");
        scene.cloud.create(&made(Kind::Bucket, bucket.clone(), &[("Bucket", &bucket)])).await?;
        let mut nodes = Vec::new();
        let names: Vec<String> = std::iter::once("bootstrap".to_owned())
            .chain((0..config.masters).map(|index| format!("master-{index}")))
            .collect();
        for name in &names {
            let full = format!("{infra_id}-{name}");
            self.info(format!("Created manifest *v1beta1.Machine, namespace=openshift-cluster-api-guests name={full}"))
                .await;
            let create = made(
                Kind::Instance,
                full.clone(),
                &[
                    ("SubnetId", &subnet.id),
                    ("InstanceType", "m6i.xlarge"),
                    ("SecurityGroupIds", &group.id),
                    ("ImageId", "ami-0f736c64d5751d7e6"),
                ],
            );
            let instance = scene.cloud.create(&create).await?;
            nodes.push(node_plan(name, &instance));
        }
        for index in 0..config.workers {
            let address = format!("10.0.{}.{}", 60 + index, 20 + index);
            let node = format!("ip-{}.{}.compute.internal", address.replace('.', "-"), config.region);
            nodes.push(NodePlan { name: format!("worker-{index}"), instance: String::new(), address, node });
        }
        let machines: Vec<String> = names.iter().map(|name| format!("{infra_id}-{name}")).collect();
        let until = self.until(15);
        self.info(format!("Waiting up to 15m0s (until {until}) for machines [{}] to provision...", machines.join(" ")))
            .await;
        for machine in &machines {
            self.debug(format!("Machine {machine} has not yet provisioned: Pending")).await;
        }
        scene.sleep(35).await;
        for (machine, node) in machines.iter().zip(&nodes) {
            self.debug(format!("Machine {machine} is ready. Phase: Provisioned")).await;
            let yaml = format!(
                "apiVersion: cluster.x-k8s.io/v1beta1\nkind: Machine\nmetadata:\n  name: {machine}\n  namespace: openshift-cluster-api-guests\nspec:\n  providerID: aws:///{0}a/{1}\nstatus:\n  addresses:\n  - address: {2}\n    type: InternalIP\n  - address: {3}\n    type: InternalDNS\n  phase: Provisioned\n",
                config.region, node.instance, node.address, node.node,
            );
            self.store(&format!(".clusterapi_output/Machine-openshift-cluster-api-guests-{machine}.yaml"), yaml)?;
        }
        Ok(Assets {
            infra_id,
            name: config.name.clone(),
            domain,
            region: config.region.clone(),
            version: scene.payload.version.clone(),
            release,
            pull: config.pull(),
            ssh_key: config.raw["sshKey"].as_str().unwrap_or_default().trim().to_owned(),
            ca: (ca.pem().to_owned(), String::new()),
            server: (server.certificate, server.key),
            subnet: subnet.id,
            nodes,
            kubeconfig,
            secrets: None,
            no_zones: false,
        })
    }

    /// Namespace and name of every secret in the manifests.
    fn secrets(&self) -> Vec<String> {
        let folder = self.file("manifests");
        let names = self.log.machine.fs().list(&folder).unwrap_or_default();
        let manifest = |name: String| -> Option<String> {
            let value: Value = yaml_serde::from_str(&self.load(&format!("manifests/{name}"))?).ok()?;
            let metadata = &value["metadata"];
            let secret = (value["kind"] == "Secret").then_some(metadata)?;
            Some(format!("{}/{}", secret["namespace"].as_str()?, secret["name"].as_str()?))
        };
        names.into_iter().filter_map(manifest).collect()
    }

    /// A network of its own, when the install config names no subnets.
    async fn own_network(&self, made: &Maker<'_>, infra_id: &str) -> Result<Resource, Fatal> {
        let cloud = &self.scene.cloud;
        let vpc = cloud.create(&made(Kind::Vpc, format!("{infra_id}-vpc"), &[("CidrBlock", "10.0.0.0/16")])).await?;
        let subnet = made(
            Kind::Subnet,
            format!("{infra_id}-subnet-private"),
            &[("CidrBlock", "10.0.0.0/20"), ("VpcId", &vpc.id)],
        );
        Ok(cloud.create(&subnet).await?)
    }

    fn until(&self, minutes: i64) -> String {
        let end = self.scene.clock.now() + jiff::SignedDuration::from_mins(minutes);
        end.strftime("%-I:%M%p UTC").to_string()
    }

    async fn bootstrap_complete(&mut self, cluster: &Arc<Cluster>) -> Result<(), Fatal> {
        let url = format!("https://api.{}:6443", cluster.assets.domain);
        let until = self.until(20);
        self.info(format!("Waiting up to 20m0s (until {until}) for the Kubernetes API at {url}...")).await;
        let refused = format!(
            "Still waiting for the Kubernetes API: Get \"{url}/version\": dial tcp 10.0.5.9:6443: connect: connection refused"
        );
        if !self.wait(20, Some(&refused), || self.scene.kube.is_up()).await {
            self.say("error", format!("Bootstrap failed to complete: Get \"{url}/version\": dial tcp 10.0.5.9:6443: connect: connection refused")).await;
            self.say("error", "Failed waiting for Kubernetes API. This error usually happens when there is a problem on the bootstrap host that prevents creating a temporary control plane.").await;
            return self.bootstrap_failed().await;
        }
        self.info(format!("API {} up", control_plane::kubernetes(&cluster.assets.version))).await;
        let minutes = 45;
        let until = self.until(minutes);
        self.info(format!("Waiting up to {minutes}m0s (until {until}) for bootstrapping to complete...")).await;
        if !self.wait(45, None, || cluster.marks().complete).await {
            self.unhappy_operators().await;
            self.say("error", "Bootstrap failed to complete: timed out waiting for the condition").await;
            self.say("error", "Failed to wait for bootstrapping to complete. This error usually happens when there is a problem with control plane hosts that prevents the control plane operators from creating the control plane.").await;
            return self.bootstrap_failed().await;
        }
        self.debug("Bootstrap status: complete").await;
        self.info("Waiting for the bootstrap etcd member to be removed...").await;
        self.scene.sleep(15).await;
        self.info("Bootstrap etcd member has been removed").await;
        Ok(())
    }

    async fn bootstrap_failed(&mut self) -> Result<(), Fatal> {
        self.info("Pulling Cluster API artifacts").await;
        self.info("Pulling VM console logs").await;
        self.info("Pulling debug logs from the bootstrap machine").await;
        self.scene.sleep(20).await;
        let bundle = self.file(&format!("log-bundle-{}.tar.gz", self.scene.clock.now().strftime("%Y%m%d%H%M%S")));
        let _ = self.log.machine.fs().write(&bundle, &self.bundle().unwrap_or_default());
        self.info(format!("Bootstrap gather logs captured here \"{bundle}\"")).await;
        Err(Fatal(BOOTSTRAP, String::new()))
    }

    /// The service records of the bootstrap machine, as in a real log bundle.
    fn bundle(&self) -> Option<Vec<u8>> {
        let machine = self.scene.machines.machine("bootstrap")?;
        let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        let mut archive = tar::Builder::new(gzip);
        for name in machine.fs().list("/var/log/openshift").ok()?.into_iter().filter(|name| name.ends_with(".json")) {
            let bytes = machine.fs().read(&format!("/var/log/openshift/{name}")).ok()?;
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            archive.append_data(&mut header, format!("log-bundle/bootstrap/services/{name}"), bytes.as_slice()).ok()?;
        }
        archive.into_inner().ok()?.finish().ok()
    }

    async fn install_complete(&mut self, cluster: &Arc<Cluster>) -> Result<(), Fatal> {
        let domain = cluster.assets.domain.clone();
        let until = self.until(40);
        self.info(format!(
            "Waiting up to 40m0s (until {until}) for the cluster at https://api.{domain}:6443 to initialize..."
        ))
        .await;
        let (mut last, mut waited) = (String::new(), 0);
        while !cluster.marks().initialized {
            if waited >= 40 * 60 {
                let unhappy = self.unhappy_operators().await;
                self.say("error", "Cluster initialization failed because one or more operators are not functioning properly.\nThe cluster should be accessible for troubleshooting as detailed in the documentation linked below,\nhttps://docs.openshift.com/container-platform/latest/support/troubleshooting/troubleshooting-installations.html\nThe 'wait-for install-complete' subcommand can then be used to continue the installation").await;
                return Err(Fatal(
                    INSTALL,
                    format!(
                        "failed to initialize the cluster: Cluster operators {} are not available",
                        unhappy.join(", ")
                    ),
                ));
            }
            let message = self.progress();
            if message != last && !message.is_empty() {
                self.debug(format!("Still waiting for the cluster to initialize: {message}")).await;
                last = message;
            }
            self.scene.sleep(2).await;
            waited += 2;
        }
        self.debug("Cluster is initialized").await;
        let until = self.until(30);
        self.info(format!(
            "Waiting up to 30m0s (until {until}) to ensure each cluster operator has finished progressing..."
        ))
        .await;
        if !self.wait(30, None, || cluster.marks().stable).await {
            return Err(Fatal(OPERATORS, "These cluster operators were not stable: [kube-apiserver]".into()));
        }
        let (_, operators) = self.scene.kube.list("clusteroperators", None);
        for operator in &operators {
            let name = operator["metadata"]["name"].as_str().unwrap_or_default();
            self.debug(format!("Cluster Operator {name} is stable")).await;
        }
        self.info("All cluster operators have completed progressing").await;
        self.info("Checking to see if there is a route at openshift-console/console...").await;
        self.scene.sleep(2).await;
        self.info("Install complete!").await;
        self.info(format!("To access the cluster as the system:admin user when using 'oc', run\n    export KUBECONFIG={}/auth/kubeconfig", self.folder)).await;
        self.info(format!("Access the OpenShift web-console here: https://console-openshift-console.apps.{domain}"))
            .await;
        let password = self.load("auth/kubeadmin-password").unwrap_or_default();
        self.info(format!("Login to the console with user: \"kubeadmin\", and password: \"{password}\"")).await;
        Ok(())
    }

    fn progress(&self) -> String {
        let version = self.scene.kube.get("clusterversions", "", "version");
        version
            .and_then(|version| {
                version["status"]["conditions"].as_array()?.iter().find(|one| one["type"] == "Progressing")?["message"]
                    .as_str()
                    .map(str::to_owned)
            })
            .unwrap_or_default()
    }

    /// Say what is wrong with the operators; gives those that are not available.
    async fn unhappy_operators(&mut self) -> Vec<String> {
        let (_, operators) = self.scene.kube.list("clusteroperators", None);
        let mut unavailable = Vec::new();
        for operator in &operators {
            let name = operator["metadata"]["name"].as_str().unwrap_or_default();
            for one in operator["status"]["conditions"].as_array().into_iter().flatten() {
                let (kind, status) =
                    (one["type"].as_str().unwrap_or_default(), one["status"].as_str().unwrap_or_default());
                let bad = matches!((kind, status), ("Available", "False") | ("Degraded", "True"));
                if bad {
                    let text = |field: &str| one[field].as_str().unwrap_or_default();
                    self.say(
                        "error",
                        format!(
                            "Cluster operator {name} {kind} is {status} with {}: {}",
                            text("reason"),
                            text("message")
                        ),
                    )
                    .await;
                }
                if bad && kind == "Available" {
                    unavailable.push(name.to_owned());
                }
            }
        }
        unavailable
    }

    /// Whether `is` came true within so many minutes of the lab. `still` is said at first, and every 15th time after.
    async fn wait(&self, minutes: u64, still: Option<&str>, is: impl Fn() -> bool) -> bool {
        let at = || self.scene.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        for poll in 0..minutes * 30 {
            if is() {
                return true;
            }
            if let Some(still) = still.filter(|_| poll % 15 == 0) {
                let line = format!("time=\"{}\" level=debug msg={}\n", at(), quoted(still));
                let _ = self.log.machine.fs().append(&self.log.path, line.as_bytes());
            }
            self.scene.sleep(2).await;
        }
        is()
    }

    fn cluster(&self) -> Result<Arc<Cluster>, Fatal> {
        let id = self.infra_id()?;
        self.scene.cluster(&id).ok_or_else(|| Fatal(1, format!("no cluster {id} answers")))
    }

    fn infra_id(&self) -> Result<String, Fatal> {
        let metadata: Option<Value> = self.load("metadata.json").and_then(|text| serde_json::from_str(&text).ok());
        metadata.and_then(|metadata| metadata["infraID"].as_str().map(str::to_owned)).ok_or_else(|| {
            Fatal(
                1,
                format!(
                    "Failed while preparing to destroy cluster: open {}: no such file or directory",
                    self.file("metadata.json")
                ),
            )
        })
    }

    async fn wait_bootstrap(&mut self) -> Result<(), Fatal> {
        let cluster = self.cluster()?;
        self.bootstrap_complete(&cluster).await?;
        self.info("It is now safe to remove the bootstrap resources").await;
        Ok(())
    }

    async fn wait_install(&mut self) -> Result<(), Fatal> {
        let cluster = self.cluster()?;
        self.install_complete(&cluster).await
    }

    async fn destroy_bootstrap(&mut self) -> Result<(), Fatal> {
        let id = self.infra_id()?;
        self.info("Destroying the bootstrap resources...").await;
        self.info(format!(
            "Waiting up to 5m0s for bootstrap machine deletion openshift-cluster-api-guests/{id}-bootstrap..."
        ))
        .await;
        let tags = [("Name".to_owned(), format!("{id}-bootstrap"))].into();
        for instance in self.scene.cloud.find(Kind::Instance, &tags).await? {
            self.scene.cloud.delete(Kind::Instance, &instance.id).await?;
        }
        let tags = [("Name".to_owned(), format!("openshift-bootstrap-data-{id}"))].into();
        for bucket in self.scene.cloud.find(Kind::Bucket, &tags).await? {
            self.scene.cloud.delete(Kind::Bucket, &bucket.id).await?;
        }
        self.scene.sleep(20).await;
        self.info("Shutting down local Cluster API controllers...").await;
        for controller in ["Cluster API", "aws infrastructure provider"] {
            self.info(format!("Stopped controller: {controller}")).await;
        }
        self.info("Shutting down local Cluster API control plane...").await;
        self.info("Local Cluster API system has completed operations").await;
        self.info("Finished destroying bootstrap resources").await;
        Ok(())
    }

    async fn destroy_cluster(&mut self) -> Result<(), Fatal> {
        let id = self.infra_id()?;
        let tags: BTreeMap<_, _> = [(format!("kubernetes.io/cluster/{id}"), "owned".to_owned())].into();
        // Machines first; what they use goes when they are gone.
        let order = [
            Kind::Instance,
            Kind::LoadBalancer,
            Kind::Bucket,
            Kind::HostedZone,
            Kind::SecurityGroup,
            Kind::Subnet,
            Kind::Vpc,
        ];
        for kind in order {
            for attempt in 0..100 {
                let found = self.scene.cloud.find(kind, &tags).await?;
                if found.is_empty() {
                    break;
                }
                for resource in &found {
                    if kind == Kind::HostedZone {
                        // The installer empties the zones that it deletes.
                        let records: BTreeMap<String, String> = resource
                            .properties
                            .keys()
                            .filter(|name| ["A ", "Alias ", "CNAME "].iter().any(|kind| name.starts_with(kind)))
                            .map(|name| (name.clone(), String::new()))
                            .collect();
                        self.scene.cloud.modify(kind, &resource.id, &records).await?;
                    }
                    match self.scene.cloud.delete(kind, &resource.id).await {
                        Ok(()) if attempt == 0 => {
                            let arn = format!("arn:aws:ec2:{}", resource.id);
                            let line = if kind == Kind::Instance { "Terminating" } else { "Deleted" };
                            self.info(format!("{line} arn={arn} id={}", resource.id)).await;
                        }
                        Ok(()) => {}
                        Err(error) if error.is_not_found() => {}
                        Err(why) => self.debug(format!("{why}")).await,
                    }
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
        self.scene.demolish(&id).await;
        for file in ["metadata.json", ".openshift_install_state.json", "auth", ".clusterapi_output"] {
            let _ = self.log.machine.fs().remove(&self.file(file));
        }
        self.info("Time elapsed: 3m20s").await;
        self.info("Uninstallation complete!").await;
        Ok(())
    }

    async fn gather(&mut self) -> Result<(), Fatal> {
        self.info("Pulling debug logs from the bootstrap machine").await;
        let Some(bytes) = self.bundle() else {
            return Err(Fatal(
                1,
                "failed to get bootstrap and control plane host addresses from \"metadata.json\"".into(),
            ));
        };
        let bundle = self.file(&format!("log-bundle-{}.tar.gz", self.scene.clock.now().strftime("%Y%m%d%H%M%S")));
        self.log.machine.fs().write(&bundle, &bytes).map_err(|why| Fatal(1, why.to_string()))?;
        self.info(format!("Bootstrap gather logs captured here \"{bundle}\"")).await;
        Ok(())
    }
}

fn node_plan(name: &str, instance: &Resource) -> NodePlan {
    let property = |key: &str| instance.properties.get(key).cloned().unwrap_or_default();
    NodePlan {
        name: name.into(),
        instance: instance.id.clone(),
        address: property("PrivateIpAddress"),
        node: property("PrivateDnsName"),
    }
}

fn invalid(why: &str) -> Fatal {
    Fatal(
        CONFIG,
        format!(
            "failed to fetch Metadata: failed to load asset \"Install Config\": failed to create install config: {why}"
        ),
    )
}

impl Config {
    fn parse(text: &str) -> Result<Self, Fatal> {
        let raw: Value = yaml_serde::from_str(text).map_err(|why| {
            invalid(&format!("failed to unmarshal install-config.yaml: error converting YAML to JSON: yaml: {why}"))
        })?;
        Self::from_value(raw)
    }

    fn from_value(raw: Value) -> Result<Self, Fatal> {
        let text = |pointer: &str| raw.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let need = |pointer: &str, key: &str| {
            text(pointer)
                .filter(|value| !value.is_empty())
                .ok_or_else(|| invalid(&format!("invalid \"install-config.yaml\" file: {key}: Required value")))
        };
        if raw["apiVersion"] != "v1" {
            return Err(invalid(
                "invalid \"install-config.yaml\" file: apiVersion: Required value: install-config version required",
            ));
        }
        let secret = need("/pullSecret", "pullSecret")?;
        if serde_json::from_str::<Value>(&secret).map_or(true, |secret| !secret["auths"].is_object()) {
            return Err(invalid(
                "invalid \"install-config.yaml\" file: pullSecret: Invalid value: \"\": auths required",
            ));
        }
        if raw.get("imageContentSources").is_some() && raw.get("imageDigestSources").is_some() {
            return Err(invalid(
                "invalid \"install-config.yaml\" file: imageContentSources: Invalid value: cannot set imageContentSources and imageDigestSources at the same time",
            ));
        }
        if let Some(trust) = text("/additionalTrustBundle")
            && crate::lab::ocp::tls::roots(trust.as_bytes()).map_or(true, |roots| roots.is_empty())
        {
            return Err(invalid(
                "invalid \"install-config.yaml\" file: additionalTrustBundle: Invalid value: invalid block",
            ));
        }
        let subnets = raw
            .pointer("/platform/aws/subnets")
            .or_else(|| raw.pointer("/platform/aws/vpc/subnets"))
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|subnet| subnet.as_str().or_else(|| subnet["id"].as_str()).map(str::to_owned))
            .collect();
        let count =
            |pointer: &str, default: u64| raw.pointer(pointer).and_then(Value::as_u64).unwrap_or(default) as usize;
        Ok(Self {
            name: need("/metadata/name", "metadata.name")?,
            base_domain: need("/baseDomain", "baseDomain")?,
            region: need("/platform/aws/region", "platform.aws.region")?,
            subnets,
            masters: count("/controlPlane/replicas", 3).min(5),
            workers: count("/compute/0/replicas", 3).min(10),
            raw,
        })
    }

    fn pull(&self) -> PullConfig {
        let rules = self.raw.get("imageDigestSources").or_else(|| self.raw.get("imageContentSources"));
        let mirrors = rules
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|rule| {
                let mirrors =
                    rule["mirrors"].as_array()?.iter().filter_map(|mirror| mirror.as_str().map(str::to_owned));
                Some((rule["source"].as_str()?.to_owned(), mirrors.collect()))
            })
            .collect();
        let text = |key: &str| self.raw[key].as_str().unwrap_or_default().to_owned();
        PullConfig { mirrors, trust: text("additionalTrustBundle"), pull_secret: text("pullSecret") }
    }
}

/// The fields of a part of install-config in a version; whether there is such a part.
fn explain(version: &str, path: &str) -> (bool, String) {
    let part = path.strip_prefix("installconfig").unwrap_or_default().trim_start_matches('.');
    let fields = install_fields::fields(part, Spec::minor_of(version).unwrap_or_default());
    if fields.is_empty() {
        return (false, format!("level=fatal msg=failed to load schema for the path {path:?}: not found\n"));
    }
    let mut text = "KIND:     InstallConfig\nVERSION:  v1\n\nRESOURCE: <object>\n\nFIELDS:\n".to_owned();
    text.extend(fields.iter().map(|field| format!("    {field} <string>\n      One of the fields of {path}.\n\n")));
    (true, text)
}

/// As logrus quotes a value.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t"))
}

fn elapsed(seconds: f64) -> String {
    let seconds = seconds as u64;
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_without_a_pull_secret_is_refused_with_the_installers_words() {
        let Err(Fatal(code, why)) = Config::parse("apiVersion: v1\nbaseDomain: example.com\nmetadata: {name: a}\n")
        else {
            panic!("it was taken");
        };
        assert_eq!(code, CONFIG);
        assert!(why.contains("pullSecret: Required value"), "{why}");
    }

    #[test]
    fn messages_are_quoted_as_logrus_does() {
        assert_eq!(quoted("plain"), "plain");
        assert_eq!(quoted("a \"b\"\nc"), "\"a \\\"b\\\"\\nc\"");
    }
}
