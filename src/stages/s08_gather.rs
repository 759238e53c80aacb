//! 08, when the bootstrap has failed: the log bundle. `create cluster` gathers one by itself when it can; `wait-for
//! bootstrap-complete` does not (openshift/installer, cmd/openshift-install/create.go and gather.go). It is made on the
//! bastion, because only from there the nodes can be reached, and kept with the run.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::StepError;
use crate::host::Cmd;
use crate::host::job::{Job, JobSpec, JobStatus};
use crate::model::event::Level;
use crate::watch::mcs;

use super::s06_image_sync::ended;
use super::s07_install_config::installer;
use super::world::{Cx, action, fact, get, host_error, must};

/// For the script on the bootstrap machine, which asks every master in turn.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
const LOOK: Duration = Duration::from_secs(2);
/// The newest one of an install directory.
const NEWEST: &str =
    "newest=; for file in \"$1\"/log-bundle-*.tar.gz; do [ -e \"$file\" ] && newest=$file; done; echo \"$newest\"";

/// Sees to it that the bundle of this installation is with the run, and says where. What cannot be gathered is said and
/// stops nobody.
pub(super) async fn keep_bundle(cx: &Cx) {
    match bundle(cx).await {
        Ok(kept) => {
            let kept = kept.display().to_string();
            let text = format!("the log bundle of the bootstrap is kept: `bartizan watch --bundle {kept}` opens it");
            cx.note(Level::Info, text).await;
            cx.set_fact(fact::LOG_BUNDLE, kept).await;
        }
        Err(error) => cx.note(Level::Warn, format!("there is no log bundle: {}", error.causes.join(": "))).await,
    }
}

async fn bundle(cx: &Cx) -> Result<PathBuf, StepError> {
    let there = match newest(cx).await? {
        Some(there) => there,
        None => {
            gather(cx).await?;
            newest(cx).await?.ok_or_else(|| StepError::fatal("openshift-install gather bootstrap left no bundle"))?
        }
    };
    let name = there.rsplit('/').next().unwrap_or("log-bundle.tar.gz");
    let kept = cx.world.run_dir.join(name);
    if kept.is_file() {
        return Ok(kept);
    }
    let bytes = get(&cx.world.bastion(cx)?, &there)
        .await?
        .ok_or_else(|| StepError::transient(format!("{there} has gone away")))?;
    // Whole or not at all: a file of that name is not fetched again.
    let partial = kept.with_extension("part");
    let mut options = std::fs::OpenOptions::new();
    let written = options.write(true).create(true).truncate(true).mode(0o600).open(&partial);
    written
        .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&partial, &kept))
        .map_err(|why| StepError::transient(format!("writing {}: {why}", kept.display())))?;
    Ok(kept)
}

async fn newest(cx: &Cx) -> Result<Option<String>, StepError> {
    let asked = Cmd::sh(NEWEST).arg(cx.need(fact::INSTALL_DIR)?);
    let found = must(cx, &cx.world.bastion(cx)?, asked).await?.text();
    Ok((!found.is_empty()).then_some(found))
}

/// Runs `gather bootstrap` as a job.
async fn gather(cx: &Cx) -> Result<(), StepError> {
    let now = cx.fresh(0).await;
    let directory = cx.need(fact::INSTALL_DIR)?;
    let mut cmd = installer(cx, &["gather", "bootstrap"])?.timeout(None);
    let masters: Vec<&str> = mcs::fetched(&now.model, "master").collect();
    // Either all addresses are named, or it finds them in its own state.
    if let Some(bootstrap) = now.fact(fact::BOOTSTRAP_ADDRESS).filter(|known| !known.is_empty() && !masters.is_empty())
    {
        cmd = cmd.args(["--bootstrap", &bootstrap]);
        cmd = masters.iter().fold(cmd, |cmd, master| cmd.args(["--master", master]));
    }
    let base = directory.rsplit('/').next().unwrap_or("install");
    let spec = JobSpec {
        name: format!("{base}-gather-bootstrap"),
        cmd: cmd.clone(),
        dir: format!("{}/jobs", cx.need(fact::WORKDIR)?),
    };
    let job = Job::new(cx.world.bastion(cx)?, spec).map_err(host_error)?;
    job.start().await.map_err(host_error)?;
    cx.acted(action("bastion", &cmd), None, Duration::ZERO).await;
    cx.note(Level::Info, "gathering the logs of the bootstrap machine".to_owned()).await;
    let begun = Instant::now();
    loop {
        match job.status().await {
            Ok(JobStatus::Running { .. }) => {}
            Ok(JobStatus::Ended { status: 0 }) => return Ok(()),
            Ok(over) => {
                let words = job.last_words(2000).await.unwrap_or_default();
                let mut error = StepError::fatal(format!("openshift-install gather bootstrap: {}", ended(&over)));
                error.causes.extend(words.lines().last().map(crate::spec::secret::redact));
                return Err(error);
            }
            Err(error) if error.is_link() => {}
            Err(error) => return Err(host_error(error)),
        }
        if begun.elapsed() > PATIENCE {
            return Err(StepError::fatal(
                "openshift-install gather bootstrap takes too long; it goes on on the bastion",
            ));
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = cx.cancel.cancelled() => return Err(StepError::fatal("cancelled")),
        }
    }
}
