//! What the install directory of `openshift-install` tells to whoever did not start it. Reading only.
//!
//! Formats: openshift/installer, pkg/types/clustermetadata.go (`metadata.json`), pkg/asset/state.go
//! (`.openshift_install_state.json`), pkg/infrastructure/clusterapi (`.clusterapi_output`), data/data/aws (Terraform, up
//! to 4.15).

use serde::Deserialize;
use serde_json::Value;

use crate::host::{Cmd, Host, HostError};
use crate::model::event::ClusterName;
use crate::model::text::one_line;
use crate::spec::Secret;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Name of the log in an install directory.
pub const LOG: &str = ".openshift_install.log";

/// What is known of an installation before anything of it is followed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Identity {
    pub cluster: ClusterName,
    /// `edge-x7k2p`; empty until `metadata.json` is there.
    pub infra_id: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    cluster_name: String,
    #[serde(rename = "infraID")]
    infra_id: String,
    aws: AwsMetadata,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AwsMetadata {
    region: String,
    cluster_domain: String,
}

/// Read `metadata.json`; `None` when it holds something else. The version is not in it.
pub fn metadata(text: &[u8]) -> Option<Identity> {
    let read: Metadata = serde_json::from_slice(text).ok()?;
    let clean = |text: &str| one_line(text, 253);
    let name = clean(&read.cluster_name);
    let domain = clean(&read.aws.cluster_domain);
    let base_domain = domain.strip_prefix(&format!("{name}.")).unwrap_or(&domain).to_owned();
    let region = clean(&read.aws.region);
    let infra_id = clean(&read.infra_id);
    let cluster = ClusterName { name, base_domain, version: String::new(), region };
    (!infra_id.is_empty()).then_some(Identity { cluster, infra_id })
}

/// The version in `OpenShift Installer 4.18.12`, the first line that every run of the installer logs.
pub fn version(line: &str) -> Option<String> {
    let rest = line.split("OpenShift Installer ").nth(1)?;
    let word = rest.split(['"', ' ', '\\']).next()?.trim_start_matches('v');
    word.starts_with(|c: char| c.is_ascii_digit()).then(|| one_line(word, 60))
}

/// The address of a machine that Cluster API made: the internal one, because whoever asks is inside.
pub fn capi_address(machine: &[u8]) -> Option<String> {
    let machine: Value = yaml_serde::from_slice(machine).ok()?;
    let addresses = machine.pointer("/status/addresses")?.as_array()?;
    let of = |wanted: &str| {
        let known = addresses.iter().find(|address| address.get("type").and_then(Value::as_str) == Some(wanted));
        known?.get("address")?.as_str().map(str::to_owned)
    };
    of("InternalIP").or_else(|| of("ExternalIP"))
}

/// The private address of the bootstrap instance in a Terraform state.
pub fn terraform_address(state: &[u8]) -> Option<String> {
    let state: Value = serde_json::from_slice(state).ok()?;
    let resources = state.get("resources")?.as_array()?;
    let bootstrap = resources.iter().find(|resource| {
        let text = |key: &str| resource.get(key).and_then(Value::as_str).unwrap_or_default();
        text("type") == "aws_instance" && text("name") == "bootstrap"
    })?;
    bootstrap.pointer("/instances/0/attributes/private_ip")?.as_str().map(str::to_owned)
}

/// The private key that the installer makes for itself; the bootstrap node lets it in, also when install-config has no
/// `sshKey`.
pub fn bootstrap_key(state: &[u8]) -> Option<Secret> {
    let state: Value = serde_json::from_slice(state).ok()?;
    let encoded = state.get("*tls.BootstrapSSHKeyPair")?.get("Priv")?.as_str()?;
    let key = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    key.contains("PRIVATE KEY").then(|| Secret::new(key))
}

/// An install directory on a host.
#[derive(Clone, Copy)]
pub struct InstallDir<'a> {
    pub host: &'a dyn Host,
    pub path: &'a str,
}

impl InstallDir<'_> {
    fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.path.trim_end_matches('/'))
    }

    /// Whether an installer has been at work here.
    ///
    /// # Errors
    /// When the host cannot be asked.
    pub async fn exists(&self) -> Result<bool, HostError> {
        let script = r#"[ -e "$1" ] || [ -e "$2" ] || [ -e "$3" ]"#;
        let files = [LOG, ".openshift_install_state.json", "metadata.json"].map(|name| self.file(name));
        Ok(self.host.exec(&Cmd::sh(script).args(files)).await?.ok())
    }

    /// What cluster it is, as far as the directory tells now.
    ///
    /// # Errors
    /// When the host cannot be asked.
    pub async fn identity(&self) -> Result<Identity, HostError> {
        let known = self.host.get(&self.file("metadata.json")).await?;
        let mut identity = known.as_deref().and_then(metadata).unwrap_or_default();
        let script = r#"grep -a "OpenShift Installer " "$1" 2>/dev/null | tail -n 1"#;
        let line = self.host.exec(&Cmd::sh(script).arg(self.file(LOG))).await?;
        identity.cluster.version = version(&line.text()).unwrap_or_default();
        Ok(identity)
    }

    /// Where the bootstrap node is, once the installer has written it down.
    ///
    /// # Errors
    /// When the host cannot be asked.
    pub async fn bootstrap_address(&self, infra_id: &str) -> Result<Option<String>, HostError> {
        let machine =
            self.file(&format!(".clusterapi_output/Machine-openshift-cluster-api-guests-{infra_id}-bootstrap.yaml"));
        let machine = if infra_id.is_empty() { None } else { self.host.get(&machine).await? };
        if let Some(address) = machine.as_deref().and_then(capi_address) {
            return Ok(Some(address));
        }
        for state in ["terraform.bootstrap.tfstate", "terraform.cluster.tfstate", "terraform.tfstate"] {
            let state = self.host.get(&self.file(state)).await?;
            if let Some(address) = state.as_deref().and_then(terraform_address) {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }

    /// See [`bootstrap_key`].
    ///
    /// # Errors
    /// When the host cannot be asked.
    pub async fn bootstrap_key(&self) -> Result<Option<Secret>, HostError> {
        let state = self.host.get(&self.file(".openshift_install_state.json")).await?;
        Ok(state.as_deref().and_then(bootstrap_key))
    }

    /// Where the kubeconfig will be.
    pub fn kubeconfig(&self) -> String {
        self.file("auth/kubeconfig")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_files_of_an_install_directory_tell() {
        let text = br#"{"clusterName":"edge","clusterID":"c","infraID":"edge-x7k2p","aws":{"region":"us-east-2",
            "identifier":[{"kubernetes.io/cluster/edge-x7k2p":"owned"}],"clusterDomain":"edge.example.com"}}"#;
        let identity = metadata(text).unwrap();
        assert_eq!((identity.infra_id.as_str(), identity.cluster.base_domain.as_str()), ("edge-x7k2p", "example.com"));
        assert_eq!((metadata(b"{}"), metadata(b"[")), (None, None));
        let line = r#"time="2025-03-01T10:00:00Z" level=debug msg="OpenShift Installer 4.18.12""#;
        assert_eq!(version(line).as_deref(), Some("4.18.12"));
        assert_eq!(version("OpenShift Installer v4.19.0-rc.1 ").as_deref(), Some("4.19.0-rc.1"));
        assert_eq!(version("OpenShift Installer unreleased-master"), None);
        let machine = b"status:\n  addresses:\n  - {address: ip-10-0-1-5, type: InternalDNS}\n  - {address: 3.4.5.6, type: ExternalIP}\n  - {address: 10.0.1.5, type: InternalIP}\n";
        assert_eq!(capi_address(machine).as_deref(), Some("10.0.1.5"));
        assert_eq!(capi_address(b"status: {}"), None);
        let state = br#"{"version":4,"resources":[{"type":"aws_instance","name":"master","instances":[{"attributes":{"private_ip":"10.0.0.9"}}]},
            {"type":"aws_instance","name":"bootstrap","instances":[{"attributes":{"private_ip":"10.0.0.7"}}]}]}"#;
        assert_eq!(terraform_address(state).as_deref(), Some("10.0.0.7"));
        let key = STANDARD.encode("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n");
        let state = format!(r#"{{"*tls.BootstrapSSHKeyPair":{{"Priv":"{key}","Pub":"c3No"}}}}"#);
        assert!(bootstrap_key(state.as_bytes()).is_some_and(|key| key.reveal().starts_with("-----BEGIN")));
        assert!(bootstrap_key(br#"{"*tls.BootstrapSSHKeyPair":{"Priv":"c3No"}}"#).is_none());
    }
}
