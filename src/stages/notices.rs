//! The listener for a managed registry's notifications, as a job beside an engine.

use futures::StreamExt;
use futures::stream::BoxStream;

use crate::engine::StepError;
use crate::host::job::{Job, JobSpec};
use crate::host::tail::TailItem;
use crate::host::{Cmd, Stdin};
use crate::registry::notify::Notice;
use crate::spec::{MirrorKind, RegistrySoftware, Secret, Spec};

use super::s04_tools::tool;
use super::world::{Cx, World, fact, host_error, put, sha256};

pub(super) const JOB: &str = "notifications";

/// Whether the registry is told to notify us: one of ours, and somebody else fills it.
pub(super) fn wanted(spec: &Spec) -> bool {
    let ours = spec.mirror.kind == MirrorKind::Managed && spec.mirror.registry == RegistrySoftware::Distribution;
    ours && spec.mirror.is_driven()
}

/// The port beside the registry's.
pub(super) fn port(spec: &Spec) -> u16 {
    spec.mirror.port.checked_add(1).unwrap_or(spec.mirror.port - 1)
}

/// What the registry shows the listener. Derived, so that both know it after a restart, and told nobody.
pub(super) fn token(world: &World) -> Secret {
    Secret::new(sha256(format!("notifications {}", world.mirror_password.reveal()).as_bytes()))
}

/// Starts the listener, when there is something to listen to.
///
/// # Errors
/// When the bastion cannot be asked.
pub(super) async fn listen(cx: &Cx) -> Result<Option<Job>, StepError> {
    let spec = &cx.world.spec;
    if !wanted(spec) {
        return Ok(None);
    }
    let bastion = cx.world.bastion(cx)?;
    let workdir = cx.need(fact::WORKDIR)?;
    let file = format!("{workdir}/sync/notifications.token");
    put(cx, &bastion, &file, Stdin::Secret(token(&cx.world)), 0o600).await?;
    let address = format!("127.0.0.1:{}", port(spec));
    let cmd: Cmd = tool(cx, "bartizan")?.args(["listen", "--address", &address, "--token-file", &file]).timeout(None);
    let job =
        Job::new(bastion, JobSpec { name: JOB.into(), cmd, dir: format!("{workdir}/jobs") }).map_err(host_error)?;
    job.start().await.map_err(host_error)?;
    Ok(Some(job))
}

/// What it hears, from its start on.
pub(super) fn follow(listener: &Job) -> BoxStream<'static, Notice> {
    let notice = |item| async move {
        match item {
            TailItem::Line { text, .. } => serde_json::from_str(&text).ok(),
            TailItem::Gap { .. } | TailItem::Reattached => None,
        }
    };
    listener.follow(0).filter_map(notice).boxed()
}
