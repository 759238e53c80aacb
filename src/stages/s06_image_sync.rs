//! 06: the release into the mirror, by digest. The copier is this program's own `agent`, as a job on the bastion; its
//! output is followed by byte offset, so the connection may come and go.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;

use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::job::{Job, JobSpec, JobStatus, Started};
use crate::host::tail::TailItem;
use crate::host::{Cmd, Host, Stdin};
use crate::model::event::{Action as Doing, Data, Evidence, Level, LogLine, SyncEvent, Unit};
use crate::model::text::one_line;
use crate::registry::agent::{Action, Line, Message, Request};
use crate::spec::{MirrorEngine, MirrorKind, Spec, Subset};

use super::live;
use super::s03_credentials::authfile;
use super::s04_tools::tool;
use super::s05_mirror_registry::ca_path;
use super::world::{Cx, World, action, bytes, exec, fact, get, host_error, must, put};

/// Plan, copy.
pub struct Copy;

/// Every digest answers in the mirror.
pub struct Proof;

/// Longest line of the copier that is kept.
const LINE_LIMIT: usize = 4096;

pub(super) fn request(cx: &Cx, what: Action, only: Option<Vec<String>>) -> Result<Request, StepError> {
    let workdir = cx.need(fact::WORKDIR)?;
    let spec = &cx.world.spec;
    let source_ca = spec.release.ca_file.iter().map(|_| format!("{workdir}/source-ca.crt").into()).collect();
    let loopback = std::net::SocketAddr::from(([127, 0, 0, 1], spec.mirror.port));
    let resolve = match spec.mirror.kind {
        MirrorKind::Managed => vec![(spec.registry(), loopback)],
        MirrorKind::Existing => Vec::new(),
    };
    Ok(Request {
        action: what,
        source: spec.pull_spec(),
        arch: spec.release.arch.clone(),
        mirror: spec.registry(),
        release_repository: spec.mirror.release_repository.clone(),
        component_repository: spec.mirror.component_repository.clone(),
        release_tag: Some(spec.release_tag()),
        authfile: authfile(&workdir).into(),
        source_ca,
        mirror_ca: vec![ca_path(cx)?.into()],
        resolve,
        jobs: spec.mirror.jobs,
        subset: spec.mirror.subset,
        additional: spec.mirror.additional_images.clone(),
        mapping: Vec::new(),
        bandwidth: None,
        only,
        outputs: Some(format!("{workdir}/sync").into()),
    })
}

/// How one run of the copier ended.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub missing: Vec<String>,
    pub errors: Vec<String>,
    pub exit: Option<u8>,
    /// Bytes that had to be moved, by the plan.
    wanted: u64,
}

/// Runs the copier to its end under `name`, or goes on following the one that runs.
pub(super) async fn agent(cx: &Cx, name: &str, request: &Request) -> Result<Report, StepError> {
    let bastion = cx.world.bastion(cx)?;
    let workdir = cx.need(fact::WORKDIR)?;
    if let Some(path) = &cx.world.spec.release.ca_file {
        let pem =
            std::fs::read(path).map_err(|error| StepError::fatal(format!("reading {}: {error}", path.display())))?;
        put(cx, &bastion, &format!("{workdir}/source-ca.crt"), bytes(pem), 0o644).await?;
    }
    let path = format!("{workdir}/sync/{name}.json");
    let text = serde_json::to_string_pretty(request)
        .map_err(|error| StepError::fatal(format!("writing the request: {error}")))?;
    put(cx, &bastion, &path, Stdin::Bytes(text.into_bytes().into()), 0o600).await?;
    let cmd = tool(cx, "bartizan")?.args(["agent", &path]).timeout(None);
    let job =
        Job::new(bastion.clone(), JobSpec { name: name.to_owned(), cmd: cmd.clone(), dir: format!("{workdir}/jobs") })
            .map_err(host_error)?;
    let keeper = Keeper::new(&cx.fresh(0).await, &job, job.start().await.map_err(host_error)?);
    cx.acted(action("bastion", &cmd), None, Duration::ZERO).await;
    let report = follow(cx, &job, keeper).await?;
    if report.exit.is_none() {
        let words = job.last_words(600).await.map_err(host_error)?;
        let status = job.status().await.map_err(host_error)?;
        return Err(StepError::transient(format!("the copier ended without a last line ({})", ended(&status)))
            .during(one_line(&words, 400)));
    }
    Ok(report)
}

pub(super) fn ended(status: &JobStatus) -> String {
    match status {
        JobStatus::NotStarted => "it was not started".into(),
        JobStatus::Running { .. } => "it still runs".into(),
        JobStatus::Ended { status } => format!("status {status}"),
        JobStatus::Lost => "it is gone without a status: was the host rebooted?".into(),
    }
}

/// Keeps lines of a job's output, each once: a process before this one may have kept the first of them.
struct Keeper {
    /// Job and process: a job that is started again has a new output.
    job: String,
    /// Up to this byte.
    kept: u64,
}

/// Turns the copier's lines into events. They are read from the first on, because the report is of all of them; an event
/// that comes a second time changes nothing.
async fn follow(cx: &Cx, job: &Job, keeper: Keeper) -> Result<Report, StepError> {
    let mut report = Report::default();
    let mut lines = job.follow(0);
    loop {
        let item = tokio::select! {
            item = lines.next() => item,
            () = cx.cancel.cancelled() => {
                // Detaching leaves the copier at work; a cancelled run ends it in its own step.
                return Err(StepError::fatal("cancelled"));
            }
        };
        match item {
            None => return Ok(report),
            Some(TailItem::Reattached) => cx.note(Level::Info, "the copier went on while the link was down").await,
            Some(TailItem::Gap { why }) => {
                cx.sink.emit(Data::Gap { source: "sync".into(), lost: None, why }).await;
            }
            Some(TailItem::Line { text, offset_after }) => match serde_json::from_str::<Line>(&text) {
                Ok(line) => told(cx, line, (&keeper, offset_after), &mut report).await,
                Err(_) => keeper.keep(cx, Level::Warn, one_line(&text, LINE_LIMIT), offset_after).await,
            },
        }
    }
}

impl Keeper {
    /// Goes on behind the last line that is kept, when it is of the same process. Cursors are `JOB.PID#OFFSET`.
    fn new(cx: &Cx, job: &Job, started: Started) -> Self {
        let (Started::New { pid } | Started::Adopted { pid }) = started;
        let job = format!("{}.{pid}", job.name());
        let cursor = live::last_line(&cx.world.run_dir, &cx.model, "sync").and_then(|line| line.cursor);
        let kept = cursor.and_then(|cursor| cursor.strip_prefix(&job)?.strip_prefix('#')?.parse().ok());
        Self { job, kept: kept.unwrap_or(0) }
    }

    async fn keep(&self, cx: &Cx, level: Level, text: String, offset: u64) {
        if offset <= self.kept {
            return;
        }
        let cursor = Some(format!("{}#{offset}", self.job));
        let line = LogLine { at: jiff::Timestamp::now(), unit: "agent".into(), level, text, cursor };
        cx.sink.lines("sync", vec![line.clone()]).await;
        if level >= Level::Warn {
            // Nobody matching is no reason to stop copying.
            let _unmatched = cx.world.tap.send(("sync".into(), line)).await;
        }
    }
}

async fn told(cx: &Cx, line: Line, (keeper, offset): (&Keeper, u64), report: &mut Report) {
    match line.message {
        Message::Sync(event) => {
            match &event {
                SyncEvent::Proven { missing, .. } => report.missing.clone_from(missing),
                SyncEvent::ImageState {
                    image,
                    state: crate::model::event::ImageState::Failed { side, class, why },
                    ..
                } => {
                    let text = format!("{image}: {side}: {class}: {}", one_line(why, LINE_LIMIT));
                    keeper.keep(cx, Level::Error, text, offset).await;
                }
                SyncEvent::Planned { bytes, present_bytes, .. } => {
                    report.wanted = bytes.saturating_sub(*present_bytes);
                }
                SyncEvent::Moved { bytes } => cx.progress(*bytes, Some(report.wanted), Unit::Bytes, None).await,
                _ => {}
            }
            cx.sink.emit(Data::Sync(event)).await;
        }
        Message::Release { version, digest, mirror_pull_spec, images, digest_sources, .. } => {
            keeper.keep(cx, Level::Info, format!("release {version} {digest}: {images} images"), offset).await;
            cx.set_fact(fact::RELEASE_DIGEST, digest).await;
            cx.set_fact(fact::MIRROR_PULL_SPEC, mirror_pull_spec).await;
            if let Ok(sources) = serde_json::to_string(&digest_sources) {
                cx.set_fact(fact::IMAGE_SOURCES, sources).await;
            }
        }
        Message::Warning { text } => keeper.keep(cx, Level::Warn, one_line(&text, LINE_LIMIT), offset).await,
        Message::Error { side, class, why, causes } => {
            let chain = if causes.is_empty() { why } else { causes.join(": ") };
            let text = format!("{side}: {class}: {}", one_line(&chain, LINE_LIMIT));
            keeper.keep(cx, Level::Error, text.clone(), offset).await;
            report.errors.push(text);
        }
        Message::Done { failed, exit, .. } => {
            report.exit = Some(exit);
            if exit != 0 && report.missing.is_empty() {
                report.missing = failed;
            }
        }
    }
}

/// A report that is not good, as an error that says what is missing and why.
pub(super) fn complain(report: &Report) -> Option<StepError> {
    if report.exit == Some(0) && report.missing.is_empty() {
        return None;
    }
    let missing = match report.missing.len() {
        0 => "the sync failed".to_owned(),
        count => format!(
            "{count} images are not in the mirror ({})",
            report.missing.iter().take(5).cloned().collect::<Vec<_>>().join(", ")
        ),
    };
    let mut error = StepError::transient(missing);
    error.causes.extend(report.errors.iter().take(3).cloned());
    // A full disk or a wrong password is the same a minute later.
    error.retry = !["disk", "auth", "ca", "name", "manifest-unknown"]
        .iter()
        .any(|class| report.errors.iter().any(|text| text.contains(&format!(": {class}: "))));
    Some(error)
}

/// ImageSetConfiguration for the driven engine (oc-mirror v2).
fn image_set(spec: &Spec) -> String {
    let mut text = format!(
        "kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror:\n  platform:\n    release: {}\n    graph: false\n",
        spec.pull_spec()
    );
    if !spec.mirror.additional_images.is_empty() {
        text.push_str("  additionalImages:\n");
        for image in &spec.mirror.additional_images {
            text.push_str(&format!("    - name: {image}\n"));
        }
    }
    text
}

/// `oc-mirror --v2`, mirror to mirror. Its own REGISTRY_AUTH_FILE bug is why the auth file is an argument.
fn oc_mirror(program: Cmd, spec: &Spec, workdir: &str) -> Cmd {
    program
        .args(["--v2", "--config"])
        .arg(format!("{workdir}/sync/image-set.yaml"))
        .arg("--authfile")
        .arg(authfile(workdir))
        .arg("--workspace")
        .arg(format!("file://{workdir}/sync/oc-mirror"))
        .arg(format!("docker://{}", spec.registry()))
        .timeout(None)
}

/// Drives oc-mirror; what it brought is proven by our own eyes afterwards.
async fn by_oc_mirror(cx: &Cx) -> Result<Ran, StepError> {
    let bastion: Arc<dyn Host> = cx.world.bastion(cx)?;
    let workdir = cx.need(fact::WORKDIR)?;
    let spec = &cx.world.spec;
    put(cx, &bastion, &format!("{workdir}/sync/image-set.yaml"), bytes(image_set(spec)), 0o600).await?;
    let cmd =
        oc_mirror(tool(cx, "oc-mirror")?, spec, &workdir).env("SSL_CERT_FILE", format!("{workdir}/sync/ca-bundle.crt"));
    // Go reads one bundle: the system's and ours together.
    let bundle = Cmd::sh("cat /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt \"$1\" 2>/dev/null >\"$2\"; [ -s \"$2\" ]")
        .arg(ca_path(cx)?)
        .arg(format!("{workdir}/sync/ca-bundle.crt"));
    must(cx, &bastion, bundle).await?;
    let job = Job::new(bastion, JobSpec { name: "oc-mirror".into(), cmd: cmd.clone(), dir: format!("{workdir}/jobs") })
        .map_err(host_error)?;
    let keeper = Keeper::new(cx, &job, job.start().await.map_err(host_error)?);
    cx.acted(action("bastion", &cmd), None, Duration::ZERO).await;
    let mut lines = job.follow(keeper.kept);
    loop {
        let item = tokio::select! {
            item = lines.next() => item,
            () = cx.cancel.cancelled() => return Err(StepError::fatal("cancelled")),
        };
        match item {
            None => break,
            Some(TailItem::Line { text, offset_after }) => {
                let text = one_line(&text, LINE_LIMIT);
                let level = if text.contains("[ERROR]") { Level::Error } else { Level::Info };
                keeper.keep(cx, level, text, offset_after).await;
            }
            Some(_) => {}
        }
    }
    match job.status().await.map_err(host_error)? {
        JobStatus::Ended { status: 0 } => Ok(Ran::Ok),
        // A sum of 2 release, 4 operator, 8 additional, 16 helm images.
        status => Err(StepError::transient(format!("oc-mirror ended with {}", ended(&status)))),
    }
}

#[async_trait]
impl Step<World> for Copy {
    fn preview(&self, world: &World) -> Vec<Doing> {
        let spec = &world.spec;
        let workdir = format!("~/{}", spec.bastion.workdir);
        match spec.mirror.engine {
            MirrorEngine::Builtin => {
                let cmd = Cmd::new("bartizan").args(["agent", &format!("{workdir}/sync/sync.json")]);
                vec![
                    action("bastion", &cmd),
                    Doing::Http { request: format!("GET {} and every image it lists, by digest", spec.pull_spec()) },
                    Doing::Http {
                        request: format!("PUT https://{}/v2/{}/…", spec.registry(), spec.mirror.component_repository),
                    },
                ]
            }
            MirrorEngine::OcMirror => vec![action("bastion", &oc_mirror(Cmd::new("oc-mirror"), spec, &workdir))],
        }
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        let proven = cx.model.sync.proven.as_ref().filter(|(_, missing)| missing.is_empty());
        // Asking for 190 digests takes seconds; a record of yesterday is no proof of today.
        let Some((images, _)) = proven else { return Ok(Probe::Missing("the mirror was not proven".into())) };
        let report = agent(cx, "prove", &request(cx, Action::Prove, None)?).await?;
        Ok(match complain(&report) {
            None => Probe::True(vec![Evidence::new("HEAD of every digest in the mirror", format!("{images} answer"))]),
            Some(error) => Probe::Missing(error.causes.join(": ")),
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        if cx.world.spec.mirror.engine == MirrorEngine::OcMirror {
            return by_oc_mirror(cx).await;
        }
        let report = agent(cx, "sync", &request(cx, Action::Sync, None)?).await?;
        match complain(&report) {
            Some(error) => Err(error),
            None if cx.world.spec.mirror.subset == Subset::Core21 => Ok(Ran::Warning(
                "the core-21 subset cannot boot a cluster: set mirror.subset to \"all\" before stage 08".into(),
            )),
            None => Ok(Ran::Ok),
        }
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        let (done, all) = cx.model.sync.done();
        if cx.world.spec.mirror.engine == MirrorEngine::OcMirror {
            return Ok(vec![Evidence::new("oc-mirror", "ended with status 0; the proof follows")]);
        }
        Ok(vec![
            Evidence::new("release", cx.need(fact::RELEASE_DIGEST)?),
            Evidence::new("images in the mirror", format!("{done} of {all}")),
        ])
    }
}

#[async_trait]
impl Step<World> for Proof {
    fn preview(&self, world: &World) -> Vec<Doing> {
        let base = format!("https://{}/v2/{}", world.spec.registry(), world.spec.mirror.component_repository);
        vec![Doing::Http { request: format!("HEAD {base}/manifests/sha256:… for every digest of the release") }]
    }

    async fn probe(&self, _cx: &Cx) -> Result<Probe, StepError> {
        Ok(Probe::Missing("asked anew each time".into()))
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let report = agent(cx, "prove", &request(cx, Action::Prove, None)?).await?;
        complain(&report).map_or(Ok(Ran::Ok), Err)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        let (images, missing) =
            cx.model.sync.proven.clone().ok_or_else(|| StepError::transient("nothing was proven"))?;
        if !missing.is_empty() {
            return Err(StepError::transient(format!("missing in the mirror: {}", missing.join(", "))));
        }
        let mut evidence =
            vec![Evidence::new("HEAD of every digest in the mirror", format!("{images} of {images} answer"))];
        let bastion = cx.world.bastion(cx)?;
        let mapping = format!("{}/sync/mapping.txt", cx.need(fact::WORKDIR)?);
        if get(&bastion, &mapping).await?.is_some() {
            let count = exec(cx, &bastion, Cmd::new("wc").args(["-l", &mapping])).await?.text();
            evidence.push(Evidence::new(mapping, count));
        }
        Ok(evidence)
    }
}
