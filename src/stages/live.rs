//! The followers of a running installation. They belong to the run, not to a step: three steps of stage 08 read what
//! they record.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::engine::StepError;
use crate::host::Host;
use crate::model::RunModel;
use crate::model::event::{Data, Level, LogLine};
use crate::record::{SegmentReader, Sink};
use crate::watch::cluster::Kubeconfig;
use crate::watch::installer::Phases;
use crate::watch::journal::{self, Position};
use crate::watch::{Out, bootkube, cluster, installer, mcs};

use super::consoles::Consoles;
use super::masters::Masters;
use super::world::{Cx, fact};

/// What is followed now. Dropping it ends the followers.
pub struct Live {
    tasks: JoinSet<()>,
    cancel: CancellationToken,
    /// Ends before the others: the bootstrap node goes away on success.
    bootstrap: Option<Bootstrap>,
    /// It is being left.
    left: bool,
    consoles: Consoles,
}

struct Bootstrap {
    cancel: CancellationToken,
    /// Without the bootstrap node's rules nobody gets to port 22 of the masters, so they are left with it.
    masters: Masters,
    /// Lines of its journal that were in the record when it began to be followed.
    lines_before: u64,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// The last recorded line of a source: where to go on from.
pub(super) fn last_line(run_dir: &Path, model: &RunModel, source: &str) -> Option<LogLine> {
    let lines = model.logs.get(source)?.lines;
    SegmentReader::new(run_dir).last(source, lines).ok().flatten()
}

/// The last recorded lines of a source, at most `count`.
pub(super) fn last_lines(run_dir: &Path, model: &RunModel, source: &str, count: usize) -> Vec<LogLine> {
    let lines = model.logs.get(source).map_or(0, |log| log.lines);
    let first = lines.saturating_sub(count as u64) + 1;
    SegmentReader::new(run_dir).read(source, first, count).unwrap_or_default()
}

fn out(cx: &Cx, cancel: &CancellationToken) -> Out {
    Out::new(cx.sink.clone(), cancel.child_token()).tap(cx.world.tap.clone())
}

/// Follows the installer's log and the cluster, unless they are followed already.
///
/// # Errors
/// When the run does not know the install directory yet.
pub async fn follow_install(cx: &Cx) -> Result<(), StepError> {
    let mut live = cx.world.live.lock().await;
    if live.is_some() {
        return Ok(());
    }
    let bastion = cx.world.bastion(cx)?;
    let directory = cx.need(fact::INSTALL_DIR)?;
    let cancel = CancellationToken::new();
    let mut tasks = JoinSet::new();

    // The source is named by its directory: a new one is a new log that begins at its first byte.
    let source = "installer";
    let known = last_line(&cx.world.run_dir, &cx.model, source);
    let offset = known.and_then(|line| line.cursor).and_then(|cursor| offset_in(&cursor, &directory)).unwrap_or(0);
    let out_installer = out(cx, &cancel);
    let phases = Phases::resume(&cx.model.installer.phases);
    let host = bastion.clone();
    tasks.spawn(async move { installer::follow_file(host, &directory, offset, phases, &out_installer).await });

    let out_cluster = out(cx, &cancel);
    let kubeconfig = format!("{}/auth/kubeconfig", cx.need(fact::INSTALL_DIR)?);
    tasks.spawn(async move {
        if let Err(error) = cluster::follow(bastion, &Kubeconfig::There(kubeconfig), &out_cluster).await {
            let text = format!("the cluster can no longer be followed: {error}");
            out_cluster.sink.emit(Data::Note { level: Level::Error, text }).await;
        }
    });
    *live = Some(Live { tasks, cancel, bootstrap: None, left: false, consoles: Consoles::default() });
    Ok(())
}

/// `DIRECTORY#OFFSET` as the installer follower writes cursors.
fn offset_in(cursor: &str, directory: &str) -> Option<u64> {
    cursor.strip_prefix(directory)?.strip_prefix('#')?.parse().ok()
}

/// Follows the serial consoles of machines that nobody can log in to yet.
pub(super) async fn follow_consoles(cx: &Cx) {
    if let Some(Live { tasks, cancel, consoles, .. }) = cx.world.live.lock().await.as_mut() {
        consoles.look(cx, tasks, cancel).await;
    }
}

/// Follows the bootstrap node, once its address is known.
///
/// # Errors
/// When the node cannot be named.
pub async fn follow_bootstrap(cx: &Cx) -> Result<(), StepError> {
    let host: Arc<dyn Host> = cx.world.bootstrap(cx).await?;
    let mut live = cx.world.live.lock().await;
    let Some(live) = live.as_mut().filter(|live| live.bootstrap.is_none()) else { return Ok(()) };
    let cancel = live.cancel.child_token();
    live.bootstrap =
        Some(Bootstrap { cancel: cancel.clone(), masters: Masters::default(), lines_before: journal_lines(&cx.model) });
    let out = out(cx, &cancel);
    let start = last_line(&cx.world.run_dir, &cx.model, JOURNAL).as_ref().and_then(Position::after);
    let version = cx.world.spec.release.version.clone();
    let recogniser = bootkube::Recogniser::resume(&version, &cx.model.bootkube);
    let (server, requests) = (host.clone(), out.clone());
    let known = last_lines(&cx.world.run_dir, &cx.model, mcs::SOURCE, mcs::REMEMBERED);
    live.tasks.spawn(async move { mcs::follow(server, known, &requests).await });
    live.tasks.spawn(async move {
        if let Err(error) = bootkube::follow(host, recogniser, journal::Options::bootstrap().start(start), &out).await {
            let text = format!("the bootstrap node can no longer be followed: {error}");
            out.sink.emit(Data::Note { level: Level::Error, text }).await;
        }
    });
    Ok(())
}

/// Follows the masters that have asked the bootstrap node for their config.
///
/// # Errors
/// When one of them cannot be named.
pub(super) async fn follow_masters(cx: &Cx) -> Result<(), StepError> {
    let mut live = cx.world.live.lock().await;
    let Some(Live { tasks, bootstrap: Some(bootstrap), .. }) = live.as_mut() else { return Ok(()) };
    let cancel = bootstrap.cancel.clone();
    bootstrap.masters.look(cx, tasks, &cancel).await
}

/// Of the bootstrap node.
pub(super) const JOURNAL: &str = "journal:bootstrap";
/// For the last lines of a node that goes away.
const LAST_LINES: Duration = Duration::from_secs(3);

fn journal_lines(model: &RunModel) -> u64 {
    model.logs.get(JOURNAL).map_or(0, |log| log.lines)
}

/// Whether the recorded journal goes to the node's last stage: what report-progress.sh says at its end
/// (openshift/installer, data/data/bootstrap/files/usr/local/bin/report-progress.sh). The service records would say the
/// same of lines that nobody has read.
fn has_the_end(run_dir: &Path, lines: u64) -> bool {
    const TAIL: u64 = 300;
    let first = lines.saturating_sub(TAIL) + 1;
    let tail = SegmentReader::new(run_dir).read(JOURNAL, first, TAIL as usize).unwrap_or_default();
    tail.iter().any(|line| line.unit == "progress" && line.text.starts_with("Reporting install progress"))
}

/// The bootstrap node is going away, as it should. What it wrote last may still be on its way. If it went while nobody
/// read its journal, the record says so.
pub async fn leave_bootstrap(cx: &Cx) {
    let now = cx.fresh(0).await;
    let directory = now.fact(fact::INSTALL_DIR).unwrap_or_default();
    if now.fact(fact::BOOTSTRAP_LEFT).as_ref() == Some(&directory) {
        return;
    }
    let mut live = cx.world.live.lock().await;
    let Some(live) = live.as_mut().filter(|live| !live.left) else { return };
    live.left = true;
    let followed = live.bootstrap.take();
    let (sink, run_dir) = (cx.sink.clone(), cx.world.run_dir.clone());
    tokio::spawn(async move {
        let mut read = false;
        if let Some(bootstrap) = followed {
            tokio::time::sleep(LAST_LINES).await;
            bootstrap.cancel.cancel();
            let lines = journal_lines(&*sink.model().await);
            read = lines > bootstrap.lines_before && has_the_end(&run_dir, lines);
        }
        if read {
            sink.emit(Data::Fact { key: fact::BOOTSTRAP_LEFT.into(), value: directory }).await;
        } else {
            unread(&sink, directory).await;
        }
    });
}

/// Sees to it that the record says how the bootstrap node's journal ended, also when the process that should have said so
/// was killed, or is about to end.
pub async fn settle_bootstrap(cx: &Cx) {
    const LOOKS: u32 = 14;
    leave_bootstrap(cx).await;
    for _ in 0..LOOKS {
        let now = cx.fresh(0).await;
        if now.fact(fact::BOOTSTRAP_LEFT) == now.fact(fact::INSTALL_DIR) {
            return;
        }
        if cx.world.live.lock().await.is_none() {
            break;
        }
        tokio::time::sleep(LAST_LINES / 6).await;
    }
    unread(&cx.sink, cx.fact(fact::INSTALL_DIR).unwrap_or_default()).await;
}

/// The journal may have had more lines than were read.
async fn unread(sink: &Sink, directory: String) {
    let why = "the bootstrap node went away before its journal was read to the end".to_owned();
    sink.emit(Data::Gap { source: JOURNAL.into(), lost: None, why }).await;
    sink.commit(Data::Fact { key: fact::BOOTSTRAP_LEFT.into(), value: directory }).await;
}

/// Ends all followers and waits for them.
pub async fn stop(cx: &Cx) {
    let live = cx.world.live.lock().await.take();
    if let Some(mut live) = live {
        live.cancel.cancel();
        while live.tasks.join_next().await.is_some() {}
    }
}
