//! `create cluster`: the network and the machines, and the files that tell of them.

use base64::Engine;
use serde_json::json;

use super::config::Config;
use super::{Fatal, INFRASTRUCTURE, Session, elapsed};
use crate::cloud::{Cloud, Create, Kind, Resource, alias, ingress};
use crate::lab::ocp::breakage::NO_MACHINES;
use crate::lab::ocp::ca::Ca;
use crate::lab::ocp::cluster::{Assets, NodePlan, Scene};
use crate::lab::ocp::mirror::uuid;
use crate::lab::ocp::network::MACHINE_CONFIG_SERVER;
use crate::lab::ocp::payload::Payload;
use crate::lab::ocp::scenario::Moment;

/// The rule that goes with the bootstrap machine.
pub(super) const BOOTSTRAP_SSH: &str = "Bootstrap SSH Access";
/// The zone that network load balancers of us-east-2 are in.
const BALANCER_ZONE: &str = "ZLMOA37VPKANP";

/// Describes a resource of the cluster, with the tags that all of them have.
type Maker<'m> = dyn Fn(Kind, String, &[(&str, &str)]) -> Create + Sync + 'm;

impl Session {
    pub(super) async fn create(&mut self) -> Result<(), Fatal> {
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
        let old = Scene::are_old(&self.log.machine, &self.folder);
        if old {
            for name in ["kubelet-signer", "kube-apiserver-lb-signer"] {
                let line = format!("Bootstrap Ignition-Config Certificate {name}.crt expired at 2025-03-01T10:00:00Z.");
                self.say("warning", line).await;
            }
        }
        let assets = Assets { secrets, no_zones, ..self.provision(&config).await? };
        if Scene::take_mark(&self.log.machine, NO_MACHINES) {
            let why = "failed to fetch Cluster: failed to generate asset \"Cluster\": failed to create cluster: control-plane machines were not provisioned within 15m0s: client rate limiter Wait returned an error: context deadline exceeded";
            return Err(Fatal(INFRASTRUCTURE, why.into()));
        }
        let cluster = self.scene.launch(assets)?;
        if old {
            // Nothing trusts anything there.
            cluster.cancel.cancel();
        }
        self.info("Control-plane machines are ready").await;
        self.info("Cluster API resources have been created. Waiting for cluster to become ready...").await;
        self.scene.happens(&Moment::InstallStarted).await;
        if self.bootstrap_complete(&cluster).await.is_err() {
            return self.bootstrap_failed().await;
        }
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
    pub(super) async fn provision(&mut self, config: &Config) -> Result<Assets, Fatal> {
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
        let machines = config.machine_network();
        let rules = [
            (6443, "Kubernetes API traffic for cluster"),
            (MACHINE_CONFIG_SERVER, "MCS traffic from cluster network"),
            (22, BOOTSTRAP_SSH),
        ];
        let rules = rules.map(|(port, words)| (ingress("tcp", port, &machines), words.to_owned())).into();
        scene.cloud.modify(Kind::SecurityGroup, &group.id, &rules).await?;
        let dns = format!("{infra_id}-int-4f1d2c3b5a697887.elb.{}.amazonaws.com", config.region);
        scene
            .cloud
            .create(&made(
                Kind::LoadBalancer,
                format!("{infra_id}-int"),
                &[
                    ("Name", &format!("{infra_id}-int")),
                    ("Scheme", "internal"),
                    ("SubnetId", &subnet.id),
                    ("DNSName", &dns),
                    ("CanonicalHostedZoneId", BALANCER_ZONE),
                ],
            ))
            .await?;
        self.info("Network infrastructure is ready").await;
        self.info("Creating Route53 records for control plane load balancer").await;
        let zone = made(Kind::HostedZone, domain.clone(), &[("Name", &domain), ("VpcId", &vpc)]);
        let zone = scene.cloud.create(&zone).await?;
        self.info("Created private Hosted Zone").await;
        let target = format!("{BALANCER_ZONE} {dns}");
        let records = ["api", "api-int"].map(|host| (alias(&format!("{host}.{domain}")), target.clone())).into();
        scene.cloud.modify(Kind::HostedZone, &zone.id, &records).await?;
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

    /// A network of its own, when the install config names no subnets.
    pub(super) async fn own_network(&self, made: &Maker<'_>, infra_id: &str) -> Result<Resource, Fatal> {
        let cloud = &self.scene.cloud;
        let vpc = cloud.create(&made(Kind::Vpc, format!("{infra_id}-vpc"), &[("CidrBlock", "10.0.0.0/16")])).await?;
        let subnet = made(
            Kind::Subnet,
            format!("{infra_id}-subnet-private"),
            &[("CidrBlock", "10.0.0.0/20"), ("VpcId", &vpc.id)],
        );
        Ok(cloud.create(&subnet).await?)
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
