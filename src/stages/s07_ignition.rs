//! 07: what the machines will be told, read before any is made. The Ignition configs are made in a copy of the install
//! directory: in it they would be eaten by `create cluster`, and stand for whatever is changed in the manifests after them.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::Cmd;
use crate::model::event::{Action, Evidence, Level};
use crate::registry::outputs::DigestSource;

use super::ignition::{Configs, Wanted, examine};
use super::s07_install_config::{METADATA, installer_in};
use super::world::{Cx, World, action, exec, fact, get, must, sha256};

/// `create ignition-configs`, and what is in them.
pub struct Ignition;

/// Less than this before the certificates end there is no time for a bootstrap.
const MARGIN: jiff::SignedDuration = jiff::SignedDuration::from_hours(2);

/// What was read, for a directory with these manifests.
#[derive(Serialize, Deserialize)]
struct Read {
    directory: String,
    /// Of names and sums of all manifests.
    manifests: String,
    until: Option<Timestamp>,
    evidence: Vec<(String, String)>,
}

fn read(cx: &Cx) -> Option<Read> {
    // What another version of this program recorded is as good as nothing.
    serde_json::from_str(&cx.fact(fact::IGNITION)?).ok()
}

/// When the certificates of this install directory end.
pub(super) fn until(cx: &Cx, directory: &str) -> Option<Timestamp> {
    read(cx).filter(|read| read.directory == directory)?.until
}

/// Too late for a bootstrap with what was made then?
pub(super) fn too_late(until: Timestamp, now: Timestamp) -> bool {
    until.duration_since(now) < MARGIN
}

fn copy(directory: &str) -> String {
    format!("{directory}.ignition")
}

/// Everything that the installer will read, as one sum.
fn summed(directory: &str) -> Cmd {
    Cmd::sh("cd \"$1\" && find manifests openshift tls -type f 2>/dev/null | sort | xargs sha256sum").arg(directory)
}

async fn manifests(cx: &Cx, directory: &str) -> Result<String, StepError> {
    let output = exec(cx, &cx.world.bastion(cx)?, summed(directory)).await?;
    Ok(sha256(&output.stdout))
}

#[async_trait]
impl Step<World> for Ignition {
    fn preview(&self, world: &World) -> Vec<Action> {
        let there = copy(&format!("~/{}/install-1", world.spec.bastion.workdir));
        let cmd = Cmd::new("openshift-install").args(["create", "ignition-configs", "--dir", &there]);
        vec![action("bastion", &cmd), action("bastion", &Cmd::new("rm").args(["-rf", &there]))]
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        let directory = cx.need(fact::INSTALL_DIR)?;
        let bastion = cx.world.bastion(cx)?;
        let metadata = format!("{directory}/{METADATA}");
        if get(&bastion, &metadata).await?.is_some() {
            return Ok(Probe::True(vec![Evidence::new(metadata, "the machines are being made with it")]));
        }
        let Some(read) = read(cx).filter(|read| read.directory == directory) else {
            return Ok(Probe::Missing("nobody has looked at what the machines will be told".into()));
        };
        if read.manifests != manifests(cx, &directory).await? {
            return Ok(Probe::Missing("the manifests were changed since".into()));
        }
        match read.until {
            Some(until) if too_late(until, Timestamp::now()) => {
                Ok(Probe::Missing(format!("the certificates end at {until}")))
            }
            _ => {
                Ok(Probe::True(read.evidence.into_iter().map(|(asked, answer)| Evidence::new(asked, answer)).collect()))
            }
        }
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let bastion = cx.world.bastion(cx)?;
        let directory = cx.need(fact::INSTALL_DIR)?;
        let there = copy(&directory);
        let fresh = "umask 077; rm -rf \"$2\" && cp -a \"$1\" \"$2\"";
        must(cx, &bastion, Cmd::sh(fresh).args([directory.as_str(), there.as_str()])).await?;
        let cmd = installer_in(cx, &["create", "ignition-configs"], &there)?.timeout(Some(Duration::from_secs(540)));
        let made = must(cx, &bastion, cmd).await;
        let mut files = Vec::new();
        if made.is_ok() {
            for name in ["bootstrap", "master", "worker"] {
                files.push(get(&bastion, &format!("{there}/{name}.ign")).await?.unwrap_or_default());
            }
        }
        // They hold the pull secret and the keys of the cluster.
        must(cx, &bastion, Cmd::new("rm").args(["-rf", &there])).await?;
        made.map_err(|error| error.during("letting the installer make the Ignition configs in a copy"))?;
        let [bootstrap, master, worker] = files.as_slice() else {
            return Err(StepError::fatal("the installer made no Ignition configs"));
        };
        let spec = &cx.world.spec;
        let sources: Vec<DigestSource> = serde_json::from_str(&cx.need(fact::IMAGE_SOURCES)?)
            .map_err(|error| StepError::fatal(format!("the recorded image sources are broken: {error}")))?;
        let key = &spec.credentials.ssh_public_key;
        let ssh_key = std::fs::read_to_string(key)
            .map_err(|error| StepError::fatal(format!("reading {}: {error}", key.display())))?;
        let (domain, registry, trust) = (spec.domain(), spec.registry(), cx.need(fact::MIRROR_CA)?);
        let wanted =
            Wanted { domain: &domain, registry: &registry, trust: &trust, sources: &sources, ssh_key: &ssh_key };
        let configs = Configs { bootstrap, master, worker };
        let found = examine(&configs, &wanted, Timestamp::now()).map_err(|wrong| {
            let mut error = StepError::fatal(wrong.join("; ")).during("reading what the machines will be told");
            error.causes.push("try: correct cluster.toml or the manifests, and run stage 07 again".into());
            error
        })?;
        if let Some(until) = found.until {
            let text = format!("the certificates of {directory} end at {until}: the bootstrap has to be over by then");
            cx.note(Level::Info, text).await;
        }
        let read = Read {
            manifests: manifests(cx, &directory).await?,
            directory,
            until: found.until,
            evidence: found.evidence.into_iter().map(|one| (one.asked, one.answer)).collect(),
        };
        let text = serde_json::to_string(&read).map_err(|error| StepError::fatal(error.to_string()))?;
        cx.set_fact(fact::IGNITION, text).await;
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        match self.probe(cx).await? {
            Probe::True(evidence) => Ok(evidence),
            Probe::Missing(why) | Probe::NotApplicable(why) => Err(StepError::fatal(why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_less_two_hours() {
        let made: Timestamp = "2026-03-01T10:00:00Z".parse().unwrap();
        let until = made + jiff::SignedDuration::from_hours(24);
        assert!(!too_late(until, made + jiff::SignedDuration::from_hours(21)));
        assert!(too_late(until, made + jiff::SignedDuration::from_hours(23)));
        assert!(too_late(until, made + jiff::SignedDuration::from_hours(30)));
    }
}
