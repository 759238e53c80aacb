//! Copying by a program of others, as a job on the bastion: its lines become rows of the sync, and the registry's own
//! notifications make them exact. Whether all is there is asked afterwards, whoever copied.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;

use crate::engine::{Ran, StepError};
use crate::host::job::{Job, JobSpec, JobStatus};
use crate::host::tail::TailItem;
use crate::host::{Cmd, Host};
use crate::model::event::{Data, ImageState, Level, SyncEvent, Unit};
use crate::model::text::one_line;
use crate::registry::driven::image_set::ImageSet;
use crate::registry::driven::tally::{Tally, classify};
use crate::registry::driven::{Engine, Reader, Said, oc_mirror};
use crate::registry::mapping::{self, Mapped};
use crate::registry::notify::Notice;
use crate::spec::operators::Catalog;
use crate::spec::{MirrorEngine, Spec, Workflow};

use super::keeper::Keeper;
use super::notices;
use super::s03_credentials::authfile;
use super::s04_tools::tool;
use super::s05_mirror_registry::ca_path;
use super::s06_image_sync::{LINE_LIMIT, ended, left_out, put_source_ca};
use super::world::{Cx, action, bytes, fact, get, host_error, must, put};

/// Where oc-mirror works, below the work directory.
const WORKSPACE: &str = "sync/oc-mirror";
/// What its plan was, for the proof.
const MAPPING: &str = "sync/oc-mirror-mapping.txt";
/// The registry tells of what it stored after it has answered for it.
const LAST_NOTICES: Duration = Duration::from_secs(2);

/// Everything that may be at work on the bastion for the sync.
pub(super) const JOBS: [&str; 7] = [
    "sync",
    "oc-mirror-plan",
    "oc-mirror",
    "oc-mirror-to-disk",
    "oc-mirror-from-disk",
    "oc-adm-release-mirror",
    notices::JOB,
];

/// Runs a program with both streams in one, none of the variables that oc-mirror's own registry would take for its
/// configuration (openshift/oc-mirror#1453), and the mask that it wants.
const CLEAN: &str = "umask 022; for name in $(env | sed -n 's/^\\(REGISTRY_[A-Z_]*\\)=.*/\\1/p'); do unset \"$name\"; done; exec \"$@\" 2>&1";

fn clean(program: &Cmd) -> Cmd {
    let mut cmd = Cmd::sh(CLEAN).arg(program.program.clone()).args(program.args.clone()).timeout(None);
    cmd.env.clone_from(&program.env);
    cmd
}

/// What oc-mirror is to bring: all of it when it is the engine, else the catalogs; and nothing of what is left out, as
/// far as it has a name of its own.
pub(super) fn image_set(spec: &Spec, left_out: &[String]) -> ImageSet {
    let blocked: Vec<String> = left_out.iter().filter(|name| name.contains('/')).cloned().collect();
    let mirror = &spec.mirror;
    // Every text was read once, when the spec was checked.
    let operators = mirror.operators.iter().filter_map(|text| Catalog::parse(text).ok()).collect();
    match mirror.engine {
        MirrorEngine::OcMirror => {
            let additional =
                mirror.additional_images.iter().filter(|image| !blocked.contains(image)).cloned().collect();
            ImageSet { release: Some(spec.pull_spec()), operators, additional, blocked }
        }
        MirrorEngine::Bartizan | MirrorEngine::OcAdm => ImageSet { operators, blocked, ..ImageSet::default() },
    }
}

/// `docker://HOST:PORT[/NAMESPACE]`
fn destination(spec: &Spec) -> String {
    match spec.mirror.oc_mirror_namespace() {
        Some(namespace) if !namespace.is_empty() => format!("docker://{}/{namespace}", spec.registry()),
        _ => format!("docker://{}", spec.registry()),
    }
}

fn archive(spec: &Spec, workdir: &str) -> String {
    spec.mirror.archive.clone().unwrap_or_else(|| format!("{workdir}/sync/archive"))
}

/// One run of oc-mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Direct,
    ToDisk,
    FromDisk,
}

impl Way {
    fn of(workflow: Workflow) -> &'static [Way] {
        match workflow {
            Workflow::Direct => &[Way::Direct],
            Workflow::ViaDisk => &[Way::ToDisk, Way::FromDisk],
            Workflow::FromDisk => &[Way::FromDisk],
        }
    }

    fn job(self) -> &'static str {
        match self {
            Way::Direct => "oc-mirror",
            Way::ToDisk => "oc-mirror-to-disk",
            Way::FromDisk => "oc-mirror-from-disk",
        }
    }

    /// The directory that has its `working-dir`.
    fn workspace(self, spec: &Spec, workdir: &str) -> String {
        match self {
            Way::Direct => format!("{workdir}/{WORKSPACE}"),
            Way::ToDisk | Way::FromDisk => archive(spec, workdir),
        }
    }

    fn cmd(self, program: Cmd, spec: &Spec, workdir: &str) -> Cmd {
        let place = format!("file://{}", self.workspace(spec, workdir));
        let cmd = program
            .args(["--v2", "--config", &format!("{workdir}/sync/image-set.yaml")])
            .args(["--authfile", &authfile(workdir)])
            .timeout(None);
        // 4.19 and 4.20 leave them out unless told not to; before, there was no such flag.
        let cmd = if spec.minor() >= 19 { cmd.arg("--remove-signatures=false") } else { cmd };
        match self {
            Way::Direct => cmd.args(["--workspace", &place]).arg(destination(spec)),
            Way::ToDisk => cmd.arg(place),
            Way::FromDisk => cmd.args(["--from", &place]).arg(destination(spec)),
        }
    }
}

/// `oc adm release mirror` into the two repositories.
fn oc_adm(program: Cmd, spec: &Spec, workdir: &str) -> Cmd {
    let (registry, mirror) = (spec.registry(), &spec.mirror);
    program
        .args(["adm", "release", "mirror", "--registry-config", &authfile(workdir)])
        .arg(format!("--from={}", spec.pull_spec()))
        .arg(format!("--to={registry}/{}", mirror.component_repository))
        .arg(format!("--to-release-image={registry}/{}:{}", mirror.release_repository, spec.release_tag()))
        .timeout(None)
}

/// The commands that the driven engines are started with, for the plan.
pub(super) fn preview(spec: &Spec, workdir: &str) -> Vec<Cmd> {
    let mut all = Vec::new();
    if spec.mirror.engine == MirrorEngine::OcAdm {
        all.push(oc_adm(Cmd::new("oc"), spec, workdir));
    }
    if spec.mirror.needs_oc_mirror() {
        all.extend(Way::of(spec.mirror.workflow).iter().map(|way| way.cmd(Cmd::new("oc-mirror"), spec, workdir)));
    }
    all
}

/// The system's CAs and ours in one file, which is what Go reads.
async fn with_ca(cx: &Cx, program: Cmd) -> Result<Cmd, StepError> {
    let workdir = cx.need(fact::WORKDIR)?;
    put_source_ca(cx).await?;
    let bundle = format!("{workdir}/sync/ca-bundle.crt");
    let cmd = Cmd::sh("cat /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt \"$1\" \"$2\" 2>/dev/null >\"$3\"; [ -s \"$3\" ]")
        .arg(ca_path(cx)?)
        .arg(format!("{workdir}/source-ca.crt"))
        .arg(&bundle);
    must(cx, &cx.world.bastion(cx)?, Cmd::new("mkdir").args(["-p", &format!("{workdir}/sync")])).await?;
    must(cx, &cx.world.bastion(cx)?, cmd).await?;
    Ok(program.env("SSL_CERT_FILE", bundle))
}

fn job(cx: &Cx, bastion: &Arc<dyn Host>, name: &str, cmd: &Cmd) -> Result<Job, StepError> {
    let dir = format!("{}/jobs", cx.need(fact::WORKDIR)?);
    Job::new(bastion.clone(), JobSpec { name: name.to_owned(), cmd: clean(cmd), dir }).map_err(host_error)
}

/// What is left of one run of an engine.
struct Left {
    status: JobStatus,
    errors: Vec<String>,
}

/// Runs an engine to its end under `name`, or goes on following the one that runs.
async fn drive(cx: &Cx, engine: Engine, name: &str, cmd: &Cmd, tally: &mut Tally) -> Result<Left, StepError> {
    let bastion = cx.world.bastion(cx)?;
    let job = job(cx, &bastion, name, cmd)?;
    // A plan copies nothing.
    let listener = if tally.done().1 > 0 { notices::listen(cx).await? } else { None };
    let unit = if engine == Engine::OcMirror { "oc-mirror" } else { "oc" };
    let keeper = Keeper::new(&cx.fresh(0).await, &job, unit, job.start().await.map_err(host_error)?);
    cx.acted(action("bastion", cmd), None, Duration::ZERO).await;
    let mut notices = match &listener {
        Some(listener) => notices::follow(listener),
        None => futures::stream::pending().boxed(),
    };
    let errors = follow(cx, &job, engine, &keeper, tally, &mut notices).await?;
    if let Some(listener) = &listener {
        let _quiet = tokio::time::timeout(LAST_NOTICES, async {
            while let Some(notice) = notices.next().await {
                show(cx, tally, |tally| tally.notice(&notice)).await;
            }
        })
        .await;
        listener.stop(Duration::from_secs(5)).await.map_err(host_error)?;
    }
    Ok(Left { status: job.status().await.map_err(host_error)?, errors })
}

async fn follow(
    cx: &Cx,
    job: &Job,
    engine: Engine,
    keeper: &Keeper,
    tally: &mut Tally,
    notices: &mut BoxStream<'static, Notice>,
) -> Result<Vec<String>, StepError> {
    let mut errors = Vec::new();
    let mut reader = Reader::new(engine);
    let mut lines = job.follow(0);
    let mut listening = true;
    loop {
        let item = tokio::select! {
            item = lines.next() => item,
            notice = notices.next(), if listening => {
                match notice {
                    Some(notice) => show(cx, tally, |tally| tally.notice(&notice)).await,
                    // Then its lines alone have to do.
                    None => listening = false,
                }
                continue;
            }
            // Detaching leaves the engine at work; a cancelled run ends it in its own step.
            () = cx.cancel.cancelled() => return Err(StepError::fatal("cancelled")),
        };
        let (told, offset) = match item {
            None => (reader.end(), u64::MAX),
            Some(TailItem::Line { text, offset_after }) => (reader.feed(format!("{text}\n").as_bytes()), offset_after),
            Some(TailItem::Reattached) => {
                cx.note(Level::Info, format!("{} went on while the link was down", engine.name())).await;
                continue;
            }
            Some(TailItem::Gap { why }) => {
                cx.sink.emit(Data::Gap { source: "sync".into(), lost: None, why }).await;
                continue;
            }
        };
        for told in told {
            if told.log {
                keeper.keep(cx, told.level, one_line(&told.text, LINE_LIMIT), offset).await;
            }
            let Some(said) = told.said else { continue };
            match &said {
                Said::Error(text) => errors.push(one_line(text, LINE_LIMIT)),
                Said::Phase(text) => {
                    let (done, of) = tally.done();
                    cx.progress(done as u64, Some(of as u64), Unit::Count, Some(one_line(text, 200))).await;
                }
                _ => {}
            }
            show(cx, tally, |tally| tally.hear(&said)).await;
        }
        if offset == u64::MAX {
            return Ok(errors);
        }
    }
}

async fn show(cx: &Cx, tally: &mut Tally, hear: impl FnOnce(&mut Tally) -> Vec<SyncEvent>) {
    let events = hear(tally);
    if events.is_empty() {
        return;
    }
    for event in events {
        cx.sink.emit(Data::Sync(event)).await;
    }
    let (done, of) = tally.done();
    cx.progress(done as u64, Some(of as u64), Unit::Count, None).await;
}

/// What oc-mirror planned last, for the proof; nothing when it never did.
pub(super) async fn planned(cx: &Cx) -> Result<Vec<Mapped>, StepError> {
    let bastion = cx.world.bastion(cx)?;
    let file = format!("{}/{MAPPING}", cx.need(fact::WORKDIR)?);
    let text = get(&bastion, &file).await?.unwrap_or_default();
    read_mapping(cx, &String::from_utf8_lossy(&text))
}

fn read_mapping(cx: &Cx, text: &str) -> Result<Vec<Mapped>, StepError> {
    mapping::parse(text, &cx.world.spec.registry())
        .map_err(|error| StepError::fatal(format!("oc-mirror's mapping.txt: {error}")))
}

/// Asks oc-mirror what it would copy.
async fn plan(cx: &Cx, program: &Cmd) -> Result<Vec<Mapped>, StepError> {
    let bastion = cx.world.bastion(cx)?;
    let workdir = cx.need(fact::WORKDIR)?;
    let spec = &cx.world.spec;
    // Archives that are still to be made are planned by where their content is to go.
    let way = if spec.mirror.workflow == Workflow::FromDisk { Way::FromDisk } else { Way::Direct };
    let cmd = way.cmd(program.clone(), spec, &workdir).arg("--dry-run");
    cx.progress(0, None, Unit::Count, Some("oc-mirror looks for images".into())).await;
    let mut nothing = Tally::new(Engine::OcMirror.name(), Vec::new(), Vec::new());
    let left = drive(cx, Engine::OcMirror, "oc-mirror-plan", &cmd, &mut nothing).await?;
    if left.status != (JobStatus::Ended { status: 0 }) {
        return Err(failed(Engine::OcMirror, &left, &[]).during("oc-mirror --dry-run"));
    }
    let file = format!("{}/working-dir/dry-run/mapping.txt", way.workspace(spec, &workdir));
    let text = get(&bastion, &file)
        .await?
        .ok_or_else(|| StepError::transient(format!("oc-mirror --dry-run wrote no {file}")))?;
    let pairs = read_mapping(cx, &String::from_utf8_lossy(&text))?;
    put(cx, &bastion, &format!("{workdir}/{MAPPING}"), bytes(text), 0o644).await?;
    Ok(pairs)
}

/// Drives oc-mirror through its ways.
///
/// # Errors
/// With the images that it could not bring.
pub(super) async fn by_oc_mirror(cx: &Cx) -> Result<Ran, StepError> {
    let bastion = cx.world.bastion(cx)?;
    let workdir = cx.need(fact::WORKDIR)?;
    let spec = &cx.world.spec;
    let program = with_ca(cx, tool(cx, "oc-mirror")?).await?;
    put(cx, &bastion, &format!("{workdir}/sync/image-set.yaml"), bytes(image_set(spec, &left_out(cx)).yaml()), 0o600)
        .await?;
    let ways = Way::of(spec.mirror.workflow);
    let mut at_work = None;
    for (at, way) in ways.iter().enumerate() {
        let job = job(cx, &bastion, way.job(), &way.cmd(program.clone(), spec, &workdir))?;
        if matches!(job.status().await.map_err(host_error)?, JobStatus::Running { .. }) {
            at_work = Some(at);
        }
    }
    // Two of them at once would want the same port.
    let pairs = if at_work.is_some() { planned(cx).await? } else { plan(cx, &program).await? };
    for way in ways.iter().skip(at_work.unwrap_or(0)) {
        let mut tally = Tally::of_mapping(Engine::OcMirror.name(), &pairs);
        cx.sink.emit(Data::Sync(tally.opening())).await;
        let cmd = way.cmd(program.clone(), spec, &workdir);
        let left = drive(cx, Engine::OcMirror, way.job(), &cmd, &mut tally).await?;
        if left.status != (JobStatus::Ended { status: 0 }) {
            let failures = failures(cx, &way.workspace(spec, &workdir), &mut tally).await?;
            return Err(failed(Engine::OcMirror, &left, &failures));
        }
    }
    Ok(Ran::Ok)
}

/// What the newest error file of oc-mirror says, also as rows of the sync.
async fn failures(cx: &Cx, workspace: &str, tally: &mut Tally) -> Result<Vec<oc_mirror::Failure>, StepError> {
    const NEWEST: &str = "newest=; for file in \"$1\"/working-dir/logs/mirroring_errors_*.txt; do [ -e \"$file\" ] && newest=$file; done; [ -z \"$newest\" ] || cat \"$newest\"";
    let bastion = cx.world.bastion(cx)?;
    let file = must(cx, &bastion, Cmd::sh(NEWEST).arg(workspace)).await?.stdout;
    let failures = oc_mirror::failures(&file);
    for failure in &failures {
        let said = Said::Failed { image: failure.image.clone(), why: failure.why.clone() };
        show(cx, tally, |tally| tally.explain(&said)).await;
    }
    Ok(failures)
}

/// How an engine ended, as an error that says what is missing and why.
fn failed(engine: Engine, left: &Left, failures: &[oc_mirror::Failure]) -> StepError {
    let name = engine.name();
    let kinds = match (&left.status, engine) {
        (JobStatus::Ended { status }, Engine::OcMirror) => oc_mirror::failed_kinds(*status),
        _ => Vec::new(),
    };
    let what = match kinds.as_slice() {
        [] | ["generic"] => format!("{name} ended with {}", ended(&left.status)),
        kinds => format!("{name} could not bring all {} images ({})", kinds.join(" and "), ended(&left.status)),
    };
    let mut error = StepError::transient(what);
    let named = failures.iter().map(|failure| format!("{}: {}", failure.image, one_line(&failure.why, 400)));
    let said = left.errors.iter().rev().map(|text| one_line(text, 400));
    error.causes.extend(named.chain(said).take(3));
    // A wrong password and a missing image are the same a minute later.
    let lasting = |text: &String| ["auth", "ca", "name", "disk", "manifest-unknown"].contains(&classify(text));
    error.retry = !error.causes.iter().any(lasting);
    error
}

/// Drives `oc adm release mirror`. The rows are those of our own plan, which knows every size.
///
/// # Errors
/// With the images that it could not bring.
pub(super) async fn by_oc_adm(cx: &Cx) -> Result<Ran, StepError> {
    let workdir = cx.need(fact::WORKDIR)?;
    let spec = &cx.world.spec;
    let program = with_ca(cx, tool(cx, "oc")?).await?;
    let model = cx.fresh(0).await.model;
    let rows: Vec<_> = model.sync.images.iter().map(|record| record.image.clone()).collect();
    let known_as = rows.iter().map(|row| {
        let tag = match row.name.as_str() {
            "release" => spec.release_tag(),
            name => format!("{}-{name}", spec.release_tag()),
        };
        vec![format!("{}/{}:{tag}", spec.registry(), row.repository)]
    });
    let mut tally = Tally::new(Engine::OcAdm.name(), rows.clone(), known_as.collect());
    let there: Vec<String> = model
        .sync
        .images
        .iter()
        .filter(|record| record.state == ImageState::Present)
        .map(|record| record.image.name.clone())
        .collect();
    cx.sink.emit(Data::Sync(tally.opening())).await;
    for image in there {
        let state = ImageState::Present;
        cx.sink.emit(Data::Sync(SyncEvent::ImageState { image, state, attempt: 1 })).await;
    }
    let cmd = oc_adm(program, spec, &workdir);
    let left = drive(cx, Engine::OcAdm, "oc-adm-release-mirror", &cmd, &mut tally).await?;
    match left.status {
        JobStatus::Ended { status: 0 } => Ok(Ran::Ok),
        _ => Err(failed(Engine::OcAdm, &left, &[])),
    }
}

/// Where oc-mirror leaves objects for the cluster.
///
/// # Errors
/// When the run does not know its work directory.
pub(super) fn cluster_resources(cx: &Cx) -> Result<String, StepError> {
    let spec = &cx.world.spec;
    let last = Way::of(spec.mirror.workflow).last().copied().unwrap_or(Way::Direct);
    Ok(format!("{}/working-dir/cluster-resources", last.workspace(spec, &cx.need(fact::WORKDIR)?)))
}
