//! Manifests and Ignition configs that the installer writes into its directory, and those that it takes from there.

use serde_json::{Value, json};

use super::config::{Config, invalid};
use super::{Fatal, Session};
use crate::lab::ocp::tools::ignition;

impl Session {
    /// The install config, from its file (which is consumed) or from the state of an earlier command.
    pub(super) async fn config(&mut self) -> Result<Config, Fatal> {
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

    pub(super) async fn manifests(&mut self) -> Result<Config, Fatal> {
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

    pub(super) fn write_ignition(&self, config: &Config) -> Result<(), Fatal> {
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

    /// Namespace and name of every secret in the manifests.
    pub(super) fn secrets(&self) -> Vec<String> {
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
}
