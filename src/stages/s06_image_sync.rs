//! 06: the release into the mirror, by digest. The copier is this program's own `agent`, as a job on the bastion; its
//! output is followed by byte offset, so the connection may come and go. Other engines are driven in the same way; the
//! proof is the same for all.

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;

use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::job::{Job, JobSpec, JobStatus, Started};
use crate::host::tail::TailItem;
use crate::host::{Cmd, Stdin};
use crate::model::event::{Action as Doing, Data, Evidence, Level, SyncEvent, Unit};
use crate::model::text::one_line;
use crate::registry::agent::{Action, Line, Message, Request};
use crate::registry::driven::mapping::target;
use crate::spec::{MirrorEngine, MirrorKind, Subset, Workflow};

use super::keeper::Keeper;
use super::s02_bastion::free_kib;
use super::s03_credentials::authfile;
use super::s04_tools::tool;
use super::s05_mirror_registry::{ca_path, directory};
use super::world::{Cx, World, action, bytes, exec, fact, get, host_error, put};
use super::{driven, outputs};

/// Plan, copy.
pub struct Copy;

/// Every digest answers in the mirror.
pub struct Proof;

/// Longest line of the copier that is kept.
pub(super) const LINE_LIMIT: usize = 4096;

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
        offline: spec.mirror.workflow == Workflow::FromDisk,
        skip: Vec::new(),
        skip_file: Some(skip_file(&workdir).into()),
        // Each was asked for by name, and what it means was said then.
        accept_incomplete: true,
        bandwidth: spec.mirror.bytes_per_second(),
        only,
        outputs: Some(format!("{workdir}/sync").into()),
    })
}

fn skip_file(workdir: &str) -> String {
    format!("{workdir}/sync/skip")
}

/// Images that the operator does without.
pub(super) fn left_out(cx: &Cx) -> Vec<String> {
    cx.fact(fact::LEFT_OUT).map(|names| names.lines().map(str::to_owned).collect()).unwrap_or_default()
}

/// Does without them from now on. A copier that is at work reads it as well.
pub(super) async fn leave_out(cx: &Cx, names: &[String]) -> Result<(), StepError> {
    cx.set_fact(fact::LEFT_OUT, names.join("\n")).await;
    put_skips(&cx.fresh(0).await).await
}

async fn put_skips(cx: &Cx) -> Result<(), StepError> {
    let text = left_out(cx).iter().map(|name| format!("{name}\n")).collect::<String>();
    put(cx, &cx.world.bastion(cx)?, &skip_file(&cx.need(fact::WORKDIR)?), bytes(text), 0o644).await
}

/// What the evidence says of them.
fn without(cx: &Cx) -> Option<Evidence> {
    let gaps = &cx.model.sync.left_out;
    (!gaps.is_empty()).then(|| Evidence::new("left out, and not in the mirror", gaps.join(", ")))
}

/// The request with what another engine was to bring besides the release, by its own plan.
pub(super) async fn whole_request(cx: &Cx, what: Action, only: Option<Vec<String>>) -> Result<Request, StepError> {
    let mut asked = request(cx, what, only)?;
    let mirror = &cx.world.spec.mirror;
    if !mirror.needs_oc_mirror() {
        return Ok(asked);
    }
    if mirror.engine == MirrorEngine::OcMirror {
        // It has its own places for them.
        asked.additional.clear();
    }
    let own = [&mirror.release_repository, &mirror.component_repository];
    let others = driven::planned(cx).await?.into_iter().filter(|pair| !own.contains(&&pair.target.name));
    // A catalog that was filtered is built anew: it can be asked for, and nobody else can bring it.
    let others = others.filter(|pair| what == Action::Prove || pair.source.digest.is_some());
    asked.mapping = others.map(|pair| format!("{}={}", pair.source, target(&pair))).collect();
    Ok(asked)
}

/// Asks for everything that was to come, whoever brought it.
async fn proof(cx: &Cx) -> Result<Report, StepError> {
    let asked = whole_request(cx, Action::Prove, None).await?;
    let mirror = &cx.world.spec.mirror;
    if mirror.needs_oc_mirror() && driven::planned(cx).await?.is_empty() {
        return Err(StepError::transient("oc-mirror's plan is not on the bastion: it is not known what to ask for"));
    }
    agent(cx, "prove", &asked).await
}

/// How one run of the copier ended.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub missing: Vec<String>,
    /// Not there either, and known to be.
    pub left_out: Vec<String>,
    pub errors: Vec<String>,
    pub exit: Option<u8>,
    /// Bytes that had to be moved, by the plan.
    wanted: u64,
}

/// The CA of a source that is no public one, for whoever copies.
pub(super) async fn put_source_ca(cx: &Cx) -> Result<(), StepError> {
    let Some(path) = &cx.world.spec.release.ca_file else { return Ok(()) };
    let pem = std::fs::read(path).map_err(|error| StepError::fatal(format!("reading {}: {error}", path.display())))?;
    let file = format!("{}/source-ca.crt", cx.need(fact::WORKDIR)?);
    put(cx, &cx.world.bastion(cx)?, &file, bytes(pem), 0o644).await
}

/// Runs the copier to its end under `name`, or goes on following the one that runs.
pub(super) async fn agent(cx: &Cx, name: &str, request: &Request) -> Result<Report, StepError> {
    let bastion = cx.world.bastion(cx)?;
    let workdir = cx.need(fact::WORKDIR)?;
    put_source_ca(cx).await?;
    let path = format!("{workdir}/sync/{name}.json");
    let text = serde_json::to_string_pretty(request)
        .map_err(|error| StepError::fatal(format!("writing the request: {error}")))?;
    put(cx, &bastion, &path, Stdin::Bytes(text.into_bytes().into()), 0o600).await?;
    put_skips(cx).await?;
    let cmd = tool(cx, "bartizan")?.args(["agent", &path]).timeout(None);
    let job =
        Job::new(bastion.clone(), JobSpec { name: name.to_owned(), cmd: cmd.clone(), dir: format!("{workdir}/jobs") })
            .map_err(host_error)?;
    let started = job.start().await.map_err(host_error)?;
    let keeper = Keeper::new(&cx.fresh(0).await, &job, "agent", started);
    cx.acted(action("bastion", &cmd), None, Duration::ZERO).await;
    // Of one that runs already, a part of what it planned is on the disk.
    let new = matches!(started, Started::New { .. });
    let report = follow(cx, &job, keeper, new).await?;
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

/// Turns the copier's lines into events. They are read from the first on, because the report is of all of them; an event
/// that comes a second time changes nothing.
async fn follow(cx: &Cx, job: &Job, keeper: Keeper, new: bool) -> Result<Report, StepError> {
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
                Ok(line) => {
                    let planned = matches!(line.message, Message::Sync(SyncEvent::Planned { .. }));
                    told(cx, line, (&keeper, offset_after), &mut report).await;
                    if planned
                        && new
                        && let Err(error) = room(cx, report.wanted).await
                    {
                        job.stop(Duration::from_secs(5)).await.map_err(host_error)?;
                        return Err(error);
                    }
                }
                Err(_) => keeper.keep(cx, Level::Warn, one_line(&text, LINE_LIMIT), offset_after).await,
            },
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
        Message::Done { failed, left_out, exit, .. } => {
            report.exit = Some(exit);
            report.left_out = left_out;
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

/// Of what is copied, the part that a registry needs besides for its uploads under way.
const MARGIN: u64 = 20;

/// Whether what is still to be copied fits where a managed registry keeps it.
async fn room(cx: &Cx, wanted: u64) -> Result<(), StepError> {
    if cx.world.spec.mirror.kind != MirrorKind::Managed || wanted == 0 {
        return Ok(());
    }
    let base = directory(cx)?;
    let asked = exec(cx, &cx.world.bastion(cx)?, Cmd::sh("df -Pk \"$1\" | tail -n 1").arg(&base)).await;
    // Not to know, because the link went down just now, is no reason to end a copier that goes on without us.
    let free = asked.ok().filter(|output| output.ok()).and_then(|output| free_kib(&output.text()));
    let Some(free) = free.map(|kib| kib.saturating_mul(1024)) else {
        return Ok(());
    };
    let needed = wanted.saturating_add(wanted / MARGIN);
    if free >= needed {
        return Ok(());
    }
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    Err(StepError::fatal(format!(
        "no space left on device: {} are to be copied, {} with the uploads under way, and {base} has {} free",
        gib(wanted),
        gib(needed),
        gib(free),
    ))
    .hint("give the bastion a larger disk (bastion.disk_gib), or name another place with mirror.storage"))
}

/// Our own copier, and what it says at the end.
async fn by_ourselves(cx: &Cx) -> Result<Ran, StepError> {
    let report = agent(cx, "sync", &request(cx, Action::Sync, None)?).await?;
    match complain(&report) {
        Some(error) => Err(error),
        None if !report.left_out.is_empty() => Ok(lacking(&report)),
        None if cx.world.spec.mirror.subset == Subset::Core21 => Ok(Ran::Warning(
            "the core-21 subset cannot boot a cluster: set mirror.subset to \"all\" before stage 08".into(),
        )),
        None => Ok(Ran::Ok),
    }
}

/// It is done, as far as it was to be.
fn lacking(report: &Report) -> Ran {
    match report.left_out.len() {
        0 => Ran::Ok,
        _ => Ran::Warning(format!(
            "left out and not in the mirror: {}. A cluster that needs it fails with \"manifest unknown\"",
            report.left_out.join(", ")
        )),
    }
}

/// `oc adm release mirror`, with our own plan before it.
async fn by_oc_adm(cx: &Cx) -> Result<Ran, StepError> {
    let report = agent(cx, "plan", &request(cx, Action::Plan, None)?).await?;
    if let Some(error) = complain(&report) {
        return Err(error);
    }
    driven::by_oc_adm(cx).await?;
    complete(cx).await
}

/// What another engine left out of the release: the signatures, which nodes from 4.21 on want to see. `oc` knows nothing
/// of them, oc-mirror only some versions do.
async fn complete(cx: &Cx) -> Result<Ran, StepError> {
    let mirror = &cx.world.spec.mirror;
    if mirror.workflow == Workflow::FromDisk {
        // The source is out of reach.
        return Ok(Ran::Ok);
    }
    let own = [&mirror.release_repository, &mirror.component_repository];
    let model = cx.fresh(0).await.model;
    let rows = model.sync.images.iter().map(|record| &record.image).filter(|image| own.contains(&&image.repository));
    let mut all: Vec<String> = rows.map(|image| image.name.clone()).collect();
    let mut request = request(cx, Action::OneImage, None)?;
    match mirror.engine {
        // It brings them itself.
        MirrorEngine::OcMirror => request.additional.clear(),
        _ => all.extend(request.additional.iter().cloned()),
    }
    request.only = Some(all);
    let report = agent(cx, "signatures", &request).await?;
    complain(&report).map_or(Ok(Ran::Ok), Err)
}

#[async_trait]
impl Step<World> for Copy {
    fn preview(&self, world: &World) -> Vec<Doing> {
        let spec = &world.spec;
        let workdir = format!("~/{}", spec.bastion.workdir);
        let mut all = Vec::new();
        if spec.mirror.engine == MirrorEngine::Bartizan {
            let cmd = Cmd::new("bartizan").args(["agent", &format!("{workdir}/sync/sync.json")]);
            all.extend([
                action("bastion", &cmd),
                Doing::Http { request: format!("GET {} and every image it lists, by digest", spec.pull_spec()) },
                Doing::Http {
                    request: format!("PUT https://{}/v2/{}/…", spec.registry(), spec.mirror.component_repository),
                },
            ]);
        }
        all.extend(driven::preview(spec, &workdir).iter().map(|cmd| action("bastion", cmd)));
        all
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        let proven = cx.model.sync.proven.as_ref().filter(|(_, missing)| missing.is_empty());
        // Asking for 190 digests takes seconds; a record of yesterday is no proof of today.
        let Some((images, _)) = proven else { return Ok(Probe::Missing("the mirror was not proven".into())) };
        let report = proof(cx).await?;
        Ok(match complain(&report) {
            None => Probe::True(vec![Evidence::new("HEAD of every digest in the mirror", format!("{images} answer"))]),
            Some(error) => Probe::Missing(error.causes.join(": ")),
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let mirror = &cx.world.spec.mirror;
        let mut ran = Ran::Ok;
        match mirror.engine {
            MirrorEngine::Bartizan => ran = by_ourselves(cx).await?,
            MirrorEngine::OcAdm => ran = by_oc_adm(cx).await?,
            MirrorEngine::OcMirror => {}
        }
        if mirror.needs_oc_mirror() {
            driven::by_oc_mirror(cx).await?;
        }
        if mirror.engine == MirrorEngine::OcMirror {
            ran = complete(cx).await?;
        }
        Ok(ran)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        let (done, all) = cx.model.sync.done();
        let mut evidence = vec![Evidence::new("images in the mirror", format!("{done} of {all}"))];
        // oc-mirror does not tell; the proof does.
        evidence.extend(cx.fact(fact::RELEASE_DIGEST).map(|digest| Evidence::new("release", digest)));
        Ok(evidence)
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
        let report = proof(cx).await?;
        let verdict = complain(&report).map_or_else(|| Ok(lacking(&report)), Err);
        // What is missing is worth a report as well.
        cx.tell("writing what others read of the mirror", outputs::keep(&cx.fresh(0).await).await).await;
        verdict
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        let (images, missing) =
            cx.model.sync.proven.clone().ok_or_else(|| StepError::transient("nothing was proven"))?;
        if !missing.is_empty() {
            return Err(StepError::transient(format!("missing in the mirror: {}", missing.join(", "))));
        }
        let asked = images + cx.model.sync.left_out.len() as u64;
        let mut evidence =
            vec![Evidence::new("HEAD of every digest in the mirror", format!("{images} of {asked} answer"))];
        evidence.extend(without(cx));
        let bastion = cx.world.bastion(cx)?;
        let mapping = format!("{}/sync/mapping.txt", cx.need(fact::WORKDIR)?);
        if get(&bastion, &mapping).await?.is_some() {
            let count = exec(cx, &bastion, Cmd::new("wc").args(["-l", &mapping])).await?.text();
            evidence.push(Evidence::new(mapping, count));
        }
        Ok(evidence)
    }
}
