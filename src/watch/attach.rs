//! An installation that something else started: found, and followed until told to stop.
//!
//! Needs nothing of ours on any machine and leaves nothing there: files are read, journals are read, the API is watched.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;

use crate::host::{Host, HostError};
use crate::model::event::{Data, Level};
use crate::model::{RunModel, fact};
use crate::spec::Secret;

use super::bootkube::{self, Recogniser};
use super::cluster::{self, Kubeconfig};
use super::install_dir::InstallDir;
use super::installer::{self, Phases};
use super::{Out, journal, mcs};

/// How often the install directory is looked into for what is not there yet.
const LOOK: Duration = Duration::from_secs(3);
/// How long to wait before a node that refused us is asked again.
const REFUSED: Duration = Duration::from_secs(60);

/// Phases of the installer after which there is no bootstrap node any more.
const WITHOUT_BOOTSTRAP: [&str; 6] = ["bootstrap-destroy", "initialize", "stable", "console", "complete", "destroy"];

/// The way to a node whose address has become known.
#[async_trait]
pub trait Reach: Send + Sync {
    /// The node `name` (`bootstrap`, or its address), with `key`, else with what the operator has.
    ///
    /// # Errors
    /// When there is no way to it.
    async fn node(&self, name: &str, address: &str, key: Option<&Secret>) -> Result<Arc<dyn Host>, HostError>;
}

/// What is watched, and from where.
pub struct Installation {
    /// Has the install directory, and reaches the cluster's network.
    pub host: Arc<dyn Host>,
    /// Absolute path of the install directory, when there is one to look into.
    pub dir: Option<String>,
    /// Other than the one in the install directory.
    pub kubeconfig: Option<Kubeconfig>,
    /// Address of the bootstrap node, when the operator knows better than the install directory.
    pub bootstrap: Option<String>,
    /// Keep also what kubelet and crio say below a warning.
    pub every_line: bool,
    pub reach: Arc<dyn Reach>,
}

impl Installation {
    /// Follow all there is until cancelled.
    pub async fn follow(&self, out: &Out) {
        tokio::join!(self.log(out), self.cluster(out), self.bootstrap(out));
    }

    fn dir(&self) -> Option<InstallDir<'_>> {
        self.dir.as_deref().map(|path| InstallDir { host: self.host.as_ref(), path })
    }

    async fn log(&self, out: &Out) {
        if let Some(dir) = &self.dir {
            installer::follow_file(self.host.clone(), dir, 0, Phases::new(), out).await;
        }
    }

    async fn cluster(&self, out: &Out) {
        let in_dir = || self.dir().map(|dir| Kubeconfig::There(dir.kubeconfig()));
        let Some(kubeconfig) = self.kubeconfig.clone().or_else(in_dir) else { return };
        if let Err(error) = cluster::follow(self.host.clone(), &kubeconfig, out).await {
            note(out, Level::Error, format!("the cluster can no longer be followed: {error}")).await;
        }
    }

    /// The bootstrap node, from when its address is known to when the installer takes it away.
    async fn bootstrap(&self, out: &Out) {
        let here = Out { cancel: out.cancel.child_token(), ..out.clone() };
        let left = async {
            while !self.is_left(out).await {
                if !out.pause(LOOK).await {
                    return;
                }
            }
            here.cancel.cancel();
        };
        tokio::join!(left, self.bootstrap_node(&here));
    }

    /// Without an install directory nothing tells that it went: then the node is asked for ever.
    async fn is_left(&self, out: &Out) -> bool {
        let left = |model: &RunModel| {
            let last = model.installer.phases.last();
            last.is_some_and(|phase| WITHOUT_BOOTSTRAP.contains(&phase.name.as_str()))
        };
        self.dir.is_some() && left(&*out.sink.model().await)
    }

    async fn bootstrap_node(&self, out: &Out) {
        let Some((address, version)) = self.found(out).await else { return };
        out.sink.emit(Data::Fact { key: fact::BOOTSTRAP_ADDRESS.into(), value: address.clone() }).await;
        let mut keys = vec![None];
        let mut complaint = String::new();
        while !out.cancel.is_cancelled() {
            for key in &keys {
                let refused = match self.reach.node("bootstrap", &address, key.as_ref()).await {
                    Ok(node) => self.journal(node, &version, out).await,
                    Err(error) => Err(error),
                };
                let read = || async { out.sink.model().await.logs.contains_key(journal::BOOTSTRAP) };
                match refused {
                    Ok(()) => return,
                    // Another machine has its address now.
                    Err(error) if read().await => {
                        note(out, Level::Warn, format!("the bootstrap node is no longer followed: {error}")).await;
                        return;
                    }
                    Err(error) if complaint == error.to_string() => {}
                    Err(error) => {
                        complaint = error.to_string();
                        note(out, Level::Warn, format!("the bootstrap node cannot be followed: {complaint}")).await;
                    }
                }
            }
            if keys.len() == 1
                && let Some(dir) = self.dir()
                && let Ok(Some(key)) = dir.bootstrap_key().await
            {
                let text = "the bootstrap node is asked with the key that the installer made for itself";
                note(out, Level::Info, text.to_owned()).await;
                keys.push(Some(key));
                continue;
            }
            out.pause(REFUSED).await;
        }
    }

    async fn journal(&self, node: Arc<dyn Host>, version: &str, out: &Out) -> Result<(), HostError> {
        let known = out.sink.model().await;
        let mut options = journal::Options::bootstrap();
        if self.every_line {
            options.quiet.clear();
        }
        let others = async {
            tokio::join!(mcs::follow(node.clone(), Vec::new(), out), self.masters(out));
            // Whether there is more to follow, the journal says.
            std::future::pending().await
        };
        tokio::select! {
            ended = bootkube::follow(node.clone(), Recogniser::resume(version, &known.bootkube), options, out) => ended,
            () = others => Ok(()),
        }
    }

    /// The masters, as they ask the bootstrap node for their config.
    async fn masters(&self, out: &Out) {
        let mut followed = BTreeSet::new();
        // Those that are followed are left with it.
        let mut journals = JoinSet::new();
        loop {
            let model = out.sink.model().await;
            for address in mcs::fetched(&model, "master") {
                if followed.insert(address.to_owned()) {
                    let mut options = journal::Options::node(address);
                    if self.every_line {
                        options.quiet.clear();
                    }
                    journals.spawn(master(self.reach.clone(), address.to_owned(), options, out.clone()));
                }
            }
            if !out.pause(LOOK).await {
                return;
            }
        }
    }

    /// The bootstrap node's address and the version that is installed, once both are known.
    async fn found(&self, out: &Out) -> Option<(String, String)> {
        loop {
            let looked = match (self.dir(), &self.bootstrap) {
                (None, Some(address)) => return Some((address.clone(), String::new())),
                (None, None) => return None,
                (Some(dir), given) => self.look(dir, given.as_deref(), out).await,
            };
            // A lost link is shown by the host itself.
            if let Ok(Some(found)) = looked {
                return Some(found);
            }
            if !out.pause(LOOK).await {
                return None;
            }
        }
    }

    async fn look(
        &self,
        dir: InstallDir<'_>,
        given: Option<&str>,
        out: &Out,
    ) -> Result<Option<(String, String)>, HostError> {
        let identity = dir.identity().await?;
        if !identity.infra_id.is_empty() && out.sink.model().await.fact(fact::INFRA_ID) != Some(&identity.infra_id) {
            let value = identity.infra_id.clone();
            out.sink.emit(Data::Fact { key: fact::INFRA_ID.into(), value }).await;
        }
        let address = match given {
            Some(address) => Some(address.to_owned()),
            None => dir.bootstrap_address(&identity.infra_id).await?,
        };
        Ok(address.map(|address| (address, identity.cluster.version)))
    }
}

async fn master(reach: Arc<dyn Reach>, address: String, options: journal::Options, out: Out) {
    let followed = match reach.node(&address, &address, None).await {
        Ok(node) => journal::follow(node, options, &out, &mut |_| Vec::new()).await,
        Err(error) => Err(error),
    };
    if let Err(error) = followed {
        note(&out, Level::Warn, format!("the journal of {address} cannot be followed: {error}")).await;
    }
}

async fn note(out: &Out, level: Level, text: String) {
    out.sink.emit(Data::Note { level, text }).await;
}
