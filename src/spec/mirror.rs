//! `[mirror]`: the registry, and who fills it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MirrorSpec {
    /// Required. The one name by which everybody reaches the mirror. Never localhost (nodes could not reach it).
    pub host: String,
    #[serde(default = "default_mirror_port")]
    pub port: u16,
    #[serde(default = "default_release_repository")]
    pub release_repository: String,
    #[serde(default = "default_component_repository")]
    pub component_repository: String,
    /// `managed`: stage 05 makes and runs it on the bastion. `existing`: it is only proven.
    #[serde(default)]
    pub kind: MirrorKind,
    #[serde(default = "default_mirror_user")]
    pub user: String,
    /// File with the password on this machine; default: made up once and kept in the run (0600).
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// CA of an existing mirror, PEM, on this machine.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// How a managed registry runs on the bastion.
    #[serde(default)]
    pub runtime: MirrorRuntime,
    /// Where a managed registry keeps its data on the bastion, relative to the home directory unless absolute.
    #[serde(default = "default_mirror_storage")]
    pub storage: String,
    /// What a managed registry is.
    #[serde(default)]
    pub registry: RegistrySoftware,
    /// Image of a managed distribution registry, 2 or 3.
    #[serde(default = "default_registry_image")]
    pub image: String,
    /// Who copies the release. Operator catalogs are always oc-mirror's.
    #[serde(default)]
    pub engine: MirrorEngine,
    /// The way of oc-mirror.
    #[serde(default)]
    pub workflow: Workflow,
    /// Absolute path of the directory on the bastion with oc-mirror's archives; default `sync/archive` in the work
    /// directory.
    #[serde(default)]
    pub archive: Option<String>,
    /// Blobs in flight.
    #[serde(default = "default_jobs")]
    pub jobs: u8,
    /// Bytes per second that are taken from the source, at most, as [`rate`] reads them: `20M`. Default: no limit.
    #[serde(default)]
    pub bandwidth: Option<String>,
    /// `all` or `core-21` (which cannot boot a cluster).
    #[serde(default)]
    pub subset: Subset,
    /// More pull specs to mirror.
    #[serde(default)]
    pub additional_images: Vec<String>,
    /// Operator catalogs, each as [`operators::Catalog`] reads it.
    #[serde(default)]
    pub operators: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MirrorKind {
    #[default]
    Managed,
    Existing,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MirrorRuntime {
    /// podman when it is there, else a `docker-registry` or `registry` binary.
    #[default]
    Auto,
    Podman,
    Binary,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MirrorEngine {
    /// Our own copier, as a job on the bastion.
    #[default]
    Bartizan,
    /// `oc-mirror --v2`.
    OcMirror,
    /// `oc adm release mirror`.
    OcAdm,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegistrySoftware {
    /// distribution/distribution, 2 or 3.
    #[default]
    Distribution,
    /// Red Hat's mirror registry: Quay, by its own installer.
    Quay,
}

/// How oc-mirror brings images to the mirror.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workflow {
    /// Registry to registry.
    #[default]
    Direct,
    /// Into archives, then from them.
    ViaDisk,
    /// From archives that were brought to the bastion: it needs no internet.
    FromDisk,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subset {
    #[default]
    #[serde(rename = "all")]
    All,
    #[serde(rename = "core-21")]
    Core21,
}

fn default_mirror_port() -> u16 {
    5000
}
fn default_release_repository() -> String {
    "openshift/release-images".into()
}
fn default_component_repository() -> String {
    "openshift/release".into()
}
fn default_mirror_user() -> String {
    "bartizan".into()
}
fn default_mirror_storage() -> String {
    "bartizan/registry".into()
}
fn default_registry_image() -> String {
    "docker.io/library/registry:2".into()
}
fn default_jobs() -> u8 {
    6
}

/// Bytes per second: a number, with K, M or G for powers of 1024 behind it or not, as `curl --limit-rate` has it.
///
/// # Errors
/// What to write instead.
pub fn rate(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("found \"{text}\"; expected bytes per second, with K, M or G behind the number or not, like 20M");
    let (digits, shift) = match text.split_at_checked(text.len().saturating_sub(1)) {
        Some((digits, "K" | "k")) => (digits, 10),
        Some((digits, "M" | "m")) => (digits, 20),
        Some((digits, "G" | "g")) => (digits, 30),
        _ => (text, 0),
    };
    let number: u64 = Some(digits)
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(wrong)?;
    number.checked_mul(1 << shift).filter(|rate| *rate > 0).ok_or_else(wrong)
}

impl MirrorSpec {
    /// The limit in bytes per second; none when there is none, or when it was refused as the spec was checked.
    pub fn bytes_per_second(&self) -> Option<u64> {
        self.bandwidth.as_deref().and_then(|text| rate(text).ok())
    }

    /// oc-mirror has something to do.
    pub fn needs_oc_mirror(&self) -> bool {
        self.engine == MirrorEngine::OcMirror || !self.operators.is_empty()
    }

    /// Another program than our own copier brings images.
    pub fn is_driven(&self) -> bool {
        self.engine != MirrorEngine::Bartizan || !self.operators.is_empty()
    }

    /// The part of the repositories before oc-mirror's own names for them; `None` when they are others.
    pub fn oc_mirror_namespace(&self) -> Option<&str> {
        let namespace = |repository: &'_ str, name: &str| {
            let rest = repository.strip_suffix(name)?;
            (rest.is_empty() || rest.ends_with('/')).then_some(rest.len())
        };
        let at = namespace(&self.release_repository, "openshift/release-images")?;
        let same = namespace(&self.component_repository, "openshift/release")? == at
            && self.release_repository.get(..at) == self.component_repository.get(..at);
        self.release_repository.get(..at).filter(|_| same).map(|text| text.trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::rate;

    #[test]
    fn rates_are_read_as_curl_reads_them() {
        assert_eq!([rate("512"), rate("20M"), rate("1g")], [Ok(512), Ok(20 << 20), Ok(1 << 30)]);
        for wrong in ["", "M", "0", "1.5M", "20Mbit", "99999999999G", "+5"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
