//! `bartizan upgrade`: a cluster that a run installed, to another release. It is a run of its own, with the facts of the
//! first one: mirror first, then the signature, then the version operator.

use std::path::{Path, PathBuf};

use crate::model::event::Data;
use crate::model::fact;
use crate::record::{Store, read_events};
use crate::spec::Spec;

use super::opened;
use super::session::{Base, Session, load};
use super::{Failure, Front, cloud};

#[derive(Debug, clap::Args)]
pub struct UpgradeArgs {
    /// The release: its version, or its digest (sha256:…) together with --version.
    #[arg(long, value_name = "VERSION|DIGEST")]
    pub to: String,
    /// The version of a release that is named by digest.
    #[arg(long, value_name = "VERSION")]
    pub version: Option<String>,
    /// The run that installed the cluster: its name, the end of its name, or `last`.
    #[arg(default_value = "last")]
    pub run: String,
    #[command(flatten)]
    pub front: Front,
    /// Use the cloud kept in this file (a lab's).
    #[cfg(feature = "lab")]
    #[arg(long, value_name = "FILE")]
    pub cloud: Option<PathBuf>,
}

/// The run that an upgrade belongs to: for everything that outlives it, as passwords and a teardown.
///
/// # Errors
/// When that run is gone.
pub(super) fn owner(store: &Store, dir: PathBuf) -> Result<PathBuf, Failure> {
    let of = read_events(&dir.join("run.jsonl")).unwrap_or_default().into_iter().find_map(|event| match event.data {
        Data::Fact { key, value } if key == fact::UPGRADE_OF => Some(value),
        _ => None,
    });
    of.map_or(Ok(dir), |run| store.find(&run).map_err(Failure::other))
}

/// Facts that belong to a release, not to the site.
fn of_release(key: &str) -> bool {
    key.starts_with("release.") || key.starts_with("install.ignition")
}

fn aimed(mut spec: Spec, args: &UpgradeArgs) -> Result<Spec, Failure> {
    let repository = spec.pull_spec();
    let named = repository.split('@').next().unwrap_or_default();
    let repository = match named.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository.to_owned(),
        _ => named.to_owned(),
    };
    match (args.to.starts_with("sha256:"), &args.version) {
        (true, Some(version)) => {
            spec.release.version.clone_from(version);
            spec.release.pull_spec = Some(format!("{repository}@{}", args.to));
        }
        (true, None) => {
            return Err(Failure::usage("--to names a digest: give its version too, for example --version 4.18.15"));
        }
        (false, None) => {
            spec.release.version.clone_from(&args.to);
            spec.release.pull_spec =
                spec.release.pull_spec.map(|_| format!("{repository}:{}-{}", args.to, spec.release.arch));
        }
        (false, Some(_)) => return Err(Failure::usage("--version goes with a digest; --to is a version already")),
    }
    // The rules of a spec hold for this one too.
    let text = toml::to_string(&spec).map_err(Failure::other)?;
    crate::spec::parse(&text, "the spec of the run, with --to")
        .map(|_| spec)
        .map_err(|errors| Failure::usage(errors.to_string()))
}

pub async fn run(state: Option<&Path>, args: UpgradeArgs) -> Result<u8, Failure> {
    let store = Store::open(state).map_err(Failure::other)?;
    let dir = owner(&store, opened::find(&store, &args.run)?)?;
    let run = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (spec, _) = load(&dir.join("cluster.toml"))?;
    let spec = aimed(spec, &args)?;
    let text = toml::to_string(&spec).map_err(Failure::other)?;
    let mut facts: Vec<(String, String)> = Vec::new();
    for event in read_events(&dir.join("run.jsonl")).map_err(Failure::other)? {
        if let Data::Fact { key, value } = event.data
            && !of_release(&key)
        {
            facts.retain(|(known, _)| *known != key);
            facts.push((key, value));
        }
    }
    #[cfg(feature = "lab")]
    let cloud = cloud::open(args.cloud.as_deref(), &spec).await?;
    #[cfg(not(feature = "lab"))]
    let cloud = cloud::open(None, &spec).await?;
    let session = Session {
        state,
        spec: (spec, text),
        cloud,
        pace: 1.0,
        own_world: false,
        resume: None,
        from: None,
        until: None,
        recover: false,
        agreed: false,
        take_over: false,
        first: None,
        accept_host_key: None,
        front: args.front,
        upgrade: Some(Base { run, facts }),
    };
    session.drive().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(to: &str, version: Option<&str>) -> UpgradeArgs {
        UpgradeArgs {
            to: to.into(),
            version: version.map(str::to_owned),
            run: "last".into(),
            front: Front::default(),
            #[cfg(feature = "lab")]
            cloud: None,
        }
    }

    #[test]
    fn by_version_and_by_digest() {
        let spec = || crate::spec::parse(crate::spec::example(), "cluster.toml").unwrap();
        let by_version = aimed(spec(), &args("4.18.15", None)).unwrap();
        assert_eq!(by_version.pull_spec(), "quay.io/openshift-release-dev/ocp-release:4.18.15-x86_64");
        let digest = format!("sha256:{}", "a".repeat(64));
        let by_digest = aimed(spec(), &args(&digest, Some("4.18.15"))).unwrap();
        assert_eq!(by_digest.pull_spec(), format!("quay.io/openshift-release-dev/ocp-release@{digest}"));
        assert!(aimed(spec(), &args(&digest, None)).is_err());
        assert!(aimed(spec(), &args("4.18", None)).unwrap_err().text.contains("give the whole version"));
    }
}
