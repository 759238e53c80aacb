//! A run from its first event to its last: record, world, engine, front end.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::cloud::Cloud;
use crate::diagnose::Checklists;
use crate::diagnose::checklist::Checklist;
use crate::engine::{Command, Ending, Options, Runner};
use crate::headless::{self, Format, Person};
use crate::host::ssh::{SshPool, new_key_pair};
use crate::model::event::{ClusterName, Data, Event, FORMAT, LogLine, RunOutcome};
use crate::model::fact;
use crate::model::plan::StageId;
use crate::record::lease::{self, Holder, operator, taken_over_by};
use crate::record::{Hub, Recorded, Recorder, SegmentReader, Store, read_events};
use crate::registry::Net;
use crate::spec::secrets::{Secrets, generate_password};
use crate::spec::{HostKey, Secret, Spec};
use crate::stages::{self, Alone, Repair, World};
use crate::telemetry;
use crate::ui;

use super::doors::RunDoors;
use super::{Failure, Front, cloud, exit, opened, upgrade};

#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The spec. With --resume: the one that the run was started with.
    #[arg(default_value = "cluster.toml")]
    pub file: PathBuf,
    /// Go on with the newest unfinished run of this spec, or with the one named.
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = "last")]
    pub resume: Option<String>,
    /// With --resume: when another bartizan drives the run, ask it to leave and go on in its place. It is recorded.
    #[arg(long, requires = "resume")]
    pub take_over: bool,
    /// Begin at this stage (06, image-sync, 06-image-sync).
    #[arg(long, value_name = "STAGE")]
    pub from: Option<String>,
    /// End after this stage; default 09-verify.
    #[arg(long, value_name = "STAGE")]
    pub until: Option<String>,
    /// Apply recoveries that need no person.
    #[arg(long)]
    pub recover: bool,
    /// Say yes beforehand to whatever changes something and destroys nothing: questions on the screen and in lines are not
    /// asked, and where nobody can be asked, recoveries of that class are applied. What destroys still wants its name.
    #[arg(long, value_name = "CLASS")]
    pub yes: Option<Yes>,
    /// Say yes to the host key of the bastion that has this fingerprint (SHA256:…); for bastion.host_key = "ask".
    #[arg(long, value_name = "FINGERPRINT", value_parser = fingerprint)]
    pub accept_host_key: Option<String>,
    #[command(flatten)]
    pub front: Front,
    /// Use the cloud kept in this file (a lab's).
    #[cfg(feature = "lab")]
    #[arg(long, value_name = "FILE")]
    pub cloud: Option<PathBuf>,
    /// How many times faster than life that lab is.
    #[cfg(feature = "lab")]
    #[arg(long, default_value_t = 1.0, requires = "cloud")]
    pub pace: f64,
}

/// What is agreed to before it is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Yes {
    /// What changes something and takes nothing away for good.
    Change,
}

/// As `ssh-keygen -l` shows it.
fn fingerprint(text: &str) -> Result<String, String> {
    let parsed: Result<ssh_key::Fingerprint, _> = text.parse();
    match parsed {
        Ok(print) if print.is_sha256() => Ok(text.to_owned()),
        _ => Err("give it as ssh-keygen -l shows it, SHA256: and 43 characters".into()),
    }
}

/// The last stage that a plain `run` does: nothing is destroyed by going on to the end.
pub(super) const LAST: &str = "09-verify";

pub async fn run(state: Option<&Path>, args: RunArgs) -> Result<u8, Failure> {
    let spec = load(&args.file)?;
    #[cfg(feature = "lab")]
    let cloud_file = args.cloud.clone();
    #[cfg(not(feature = "lab"))]
    let cloud_file: Option<PathBuf> = None;
    #[cfg(feature = "lab")]
    let pace = args.pace;
    #[cfg(not(feature = "lab"))]
    let pace = 1.0;
    let cloud = cloud::open(cloud_file.as_deref(), &spec.0).await?;
    let session = Session {
        state,
        spec,
        cloud,
        pace,
        own_world: false,
        resume: args.resume,
        take_over: args.take_over,
        from: args.from,
        until: Some(args.until.unwrap_or_else(|| LAST.to_owned())),
        recover: args.recover,
        agreed: args.yes.is_some(),
        first: None,
        accept_host_key: args.accept_host_key,
        front: args.front,
        upgrade: None,
    };
    session.drive().await
}

pub async fn cleanup(
    state: Option<&Path>,
    run: &str,
    confirm: &str,
    front: Front,
    cloud: Option<PathBuf>,
) -> Result<u8, Failure> {
    let store = Store::open(state).map_err(Failure::other)?;
    // What an upgrade belongs to has the record of everything that was made.
    let dir = upgrade::owner(&store, opened::find(&store, run)?)?;
    let spec = load(&dir.join("cluster.toml"))?;
    if confirm != spec.0.cluster.name {
        return Err(Failure::usage(format!(
            "--confirm {confirm} is not the name of this run's cluster ({}); nothing was touched",
            spec.0.cluster.name
        )));
    }
    let cloud = cloud::open(cloud.as_deref(), &spec.0).await?;
    let session = Session {
        state,
        spec,
        cloud,
        pace: 1.0,
        own_world: false,
        resume: Some(dir.to_string_lossy().into_owned()),
        take_over: false,
        from: Some("10-cleanup".into()),
        until: None,
        recover: false,
        agreed: false,
        first: None,
        accept_host_key: None,
        front,
        upgrade: None,
    };
    session.drive().await
}

/// A spec and its text.
pub(super) fn load(file: &Path) -> Result<(Spec, String), Failure> {
    let spec = crate::spec::load(file).map_err(|errors| Failure::usage(errors.to_string()))?;
    let text = std::fs::read_to_string(file).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
    Ok((spec, text))
}

pub(super) struct Session<'a> {
    pub state: Option<&'a Path>,
    pub spec: (Spec, String),
    pub cloud: Option<Arc<dyn Cloud>>,
    /// How many times faster than ours the clock of that world runs.
    pub pace: f64,
    /// A world of its own that nobody can come back to: an unfinished run of the same name is another's.
    pub own_world: bool,
    pub resume: Option<String>,
    /// Ask whoever drives that run to leave.
    pub take_over: bool,
    pub from: Option<String>,
    pub until: Option<String>,
    pub recover: bool,
    /// Changes are agreed to beforehand.
    pub agreed: bool,
    /// A recovery to apply first, and the finding that it is for when there is a choice.
    pub first: Option<super::recover::Asked>,
    /// Fingerprint that the operator says yes to.
    pub accept_host_key: Option<String>,
    pub front: Front,
    /// An upgrade of what another run installed.
    pub upgrade: Option<Base>,
}

/// The run that an upgrade goes on from.
pub(super) struct Base {
    pub run: String,
    /// What it knows of the site.
    pub facts: Vec<(String, String)>,
}

/// Log lines of a run for the screen.
pub(super) struct SegmentLogs(pub SegmentReader);

impl ui::Logs for SegmentLogs {
    fn read(&mut self, source: &str, first: u64, count: usize) -> Vec<LogLine> {
        // A log that cannot be read has no lines to show; the record says so elsewhere.
        self.0.read(source, first, count).unwrap_or_default()
    }
}

/// How long another bartizan may take to leave its run.
const HANDOVER: Duration = Duration::from_secs(30);

/// Whoever drives the run in `dir` leaves it to us.
fn take_over(dir: &Path) -> Result<Option<Holder>, Failure> {
    let before = lease::take_over(dir, HANDOVER).map_err(|error| Failure::usage(error.to_string()))?;
    if let Some(before) = &before {
        eprintln!("{} (process {}) has left the run", before.operator, before.pid);
    }
    Ok(before)
}

impl Session<'_> {
    pub async fn drive(self) -> Result<u8, Failure> {
        let (spec, text) = &self.spec;
        let store = Store::open(self.state).map_err(Failure::other)?;
        let plan = match self.upgrade {
            Some(_) => stages::plan::upgrade(),
            None => stages::plan(),
        };
        let mut plan = plan.map_err(Failure::other)?;
        stages::usual::learn(&mut plan, &store.folders().map_err(Failure::other)?, &spec.cluster.base_domain);
        let stage = |wanted: &Option<String>| -> Result<Option<StageId>, Failure> {
            let Some(wanted) = wanted else { return Ok(None) };
            let found = plan.find_stage(wanted).map(|stage| stage.id.clone());
            found.map(Some).ok_or_else(|| {
                let known: Vec<&str> = plan.stages.iter().map(|stage| stage.id.as_str()).collect();
                Failure::usage(format!("no stage {wanted}; there are {}", known.join(", ")))
            })
        };
        let (from, until) = (stage(&self.from)?, stage(&self.until)?);
        let digest = crate::spec::digest(text);
        let (run, dir, resumed) = self.place(&store, &digest)?;
        // From here on somebody may want the run from us.
        let signals = ui::Signals::listen().map_err(Failure::other)?;
        let before = if self.take_over { take_over(&dir)? } else { None };
        let recorder = Recorder::open(&dir).map_err(Failure::other)?;
        // Passwords belong to the run that made them.
        let owner = match &self.upgrade {
            Some(base) => base.run.clone(),
            None => recorder.model().fact(fact::UPGRADE_OF).unwrap_or(&run).to_owned(),
        };
        let secrets = Secrets::load(spec).map_err(|error| Failure::usage(error.to_string()))?;
        let mirror_password = match &secrets.mirror_password {
            Some(password) => password.clone(),
            None => kept_password(&store, &owner)?,
        };
        let proxy_password = match spec.runs_proxy() {
            true => Some(kept_password(&store, &format!("{owner}-proxy"))?),
            false => None,
        };
        let host_key = match &spec.bastion.host_key {
            HostKey::Delivered => Some(kept_host_key(&store, &owner)?),
            _ => None,
        };
        let mirror_ca_key =
            store.secret(&format!("{owner}-mirror-ca"), stages::certificate::new_ca_key).map_err(Failure::other)?;
        telemetry::start(&dir).map_err(|error| Failure::other(format!("starting the log: {error}")))?;
        let verb = if resumed { "going on with" } else { "beginning" };
        tracing::info!("{verb} run {run} of {}, kept in {}", spec.domain(), dir.display());
        // The spec as it was asked for stays with the run: cleanup needs it when the file has changed or gone.
        keep_spec(&dir, spec)?;

        // Going over the stages from the first would build up again what a cleanup has taken down.
        let cleanup = stages::cleanup_begun(recorder.model()).filter(|_| from.is_none());
        if cleanup.is_some() && until.as_ref().is_some_and(|until| cleanup.as_ref() != Some(until)) {
            return Err(Failure::usage(format!(
                "run {run} is being taken down: go on with `bartizan cleanup {run} --confirm {}`, or build it up again \
                 with --from 01",
                spec.cluster.name
            )));
        }
        let from = from.or(cleanup);
        let first = self.first.as_ref().map(|asked| asked.resolve(recorder.model())).transpose()?;
        let mut hub = Hub::start(recorder);
        let sink = hub.sink();
        if let Some(before) = before {
            let (command, args) =
                ("take-over".to_owned(), vec![format!("from {} (process {})", before.operator, before.pid)]);
            sink.commit(Data::Decision { command, args, operator: operator(), reason: None }).await;
        }
        let (shown, shown_events) = hub.follow().await;
        let past = read_events(&dir.join("run.jsonl")).unwrap_or_default();
        let operator = operator();
        if resumed {
            sink.commit(Data::RunResumed { operator: operator.clone(), pid: std::process::id(), from: from.clone() })
                .await;
        } else {
            let cluster = ClusterName {
                name: spec.cluster.name.clone(),
                base_domain: spec.cluster.base_domain.clone(),
                version: spec.release.version.clone(),
                region: spec.aws.region.clone(),
            };
            let bartizan = env!("CARGO_PKG_VERSION").to_owned();
            let spec_digest = digest.clone();
            let (run, plan, operator) = (run.clone(), plan.clone(), operator.clone());
            sink.commit(Data::RunOpened { format: FORMAT, run, bartizan, cluster, spec_digest, plan, operator }).await;
            if let Some(base) = &self.upgrade {
                sink.commit(Data::Fact { key: fact::UPGRADE_OF.into(), value: base.run.clone() }).await;
                for (key, value) in base.facts.clone() {
                    sink.commit(Data::Fact { key, value }).await;
                }
            }
        }

        if let Some(print) = &self.accept_host_key {
            let (command, args) = ("accept-host-key".to_owned(), vec![print.clone()]);
            sink.commit(Data::Decision { command, args, operator: operator.clone(), reason: None }).await;
            sink.commit(Data::Fact { key: fact::HOST_KEY_ACCEPTED.into(), value: print.clone() }).await;
        }

        let (tap, tapped) = mpsc::channel(32);
        let (model, follower) = hub.follow().await;
        let catalogue = super::diagnose::catalogue()?.at_pace(self.pace);
        stages::diagnosis::start(&catalogue, &dir, &model, tapped, follower, sink.clone());
        if let Some(cloud) = self.cloud.clone() {
            let (model, follower) = hub.follow().await;
            stages::lookout::start(cloud, &model, follower, sink.clone(), stages::lookout::Watch::default());
        }
        let world = Arc::new(World {
            spec: spec.clone(),
            secrets,
            mirror_password,
            mirror_ca_key,
            proxy_password,
            host_key,
            run_dir: dir.clone(),
            cloud: self.cloud.clone(),
            ssh: SshPool::new(&dir.join("ssh")).map_err(Failure::other)?,
            net: Net::default(),
            tap,
            live: tokio::sync::Mutex::new(None),
        });
        let plans = stages::steps().iter().map(|(id, step)| (id.clone(), step.preview(&world))).collect();
        let checklists = Checklists::builtin().map_err(Failure::other)?;
        let format = self.front.format();
        // Whoever reads lines at a terminal can decide; a pipe cannot.
        let asks = format == Some(Format::Plain)
            && !self.front.headless
            && std::io::stdin().is_terminal()
            && std::io::stdout().is_terminal();
        let interactive = format.is_none() || asks;
        let alone = match (self.recover, self.agreed && !interactive) {
            (true, _) => Alone::Automatic,
            (false, true) => Alone::Changes,
            (false, false) => Alone::Nothing,
        };
        let (commands, command_queue) = mpsc::channel(64);
        let runner = Runner {
            world: world.clone(),
            plan: model.plan.clone(),
            steps: stages::steps(),
            sink: sink.clone(),
            hands: Arc::new(Repair { checklists: checklists.clone(), alone }),
            options: Options { from, until, recover: alone != Alone::Nothing, first, interactive, operator },
            probes: TaskTracker::new(),
        };
        let (_, engine_events) = hub.follow().await;
        let engine = tokio::spawn(runner.run(command_queue, engine_events));
        let front = async {
            Ok::<_, Failure>(match format {
                Some(format) => {
                    // The first line of JSON tells in which format the others are, also when the run is an older one.
                    let opening = past.into_iter().next().filter(|_| resumed && format == Format::Json);
                    let person = if asks { Some(person(commands.clone(), self.agreed)?) } else { None };
                    headless_front((shown, shown_events), opening, format, person, commands, engine, signals).await?
                }
                None => {
                    let logs = Box::new(SegmentLogs(SegmentReader::new(&dir)));
                    let mut options = screen_options(&self.front, &checklists);
                    options.signals = Some(signals);
                    // A run that begins has said nothing of its cluster yet.
                    options.read_only |= options.sealed.contains(&spec.cluster.name);
                    options.agreed = self.agreed;
                    options.screenshots = dir.join("screenshots");
                    options.texts.plans = plans;
                    options.memory = Some(store.home().join("screen.toml"));
                    options.doors = Some(Box::new(RunDoors::new(&dir)));
                    let shown_world = world.clone();
                    options.texts.previews =
                        ui::recovery::Previews::new(move |plan| stages::repair::preview(plan, &shown_world));
                    options.past = past.into_iter().map(Recorded::new).collect();
                    let left = ui::run(options, shown, shown_events.into_queue(1024), commands.clone(), logs).await;
                    if !engine.is_finished() {
                        // Whatever made the screen end, the engine is told to leave its jobs at work.
                        let _ended = commands.send(Command::Detach).await;
                    }
                    let ending = engine.await.map_err(|error| Failure::other(format!("the engine broke: {error}")))?;
                    left.map_err(Failure::other)?;
                    println!("{}", crate::spec::secret::redact(&ending.summary));
                    if let Some(by) = taken_over_by(&dir) {
                        println!(
                            "{} took this run over (process {}); `bartizan watch {run}` follows it",
                            by.operator, by.pid
                        );
                    }
                    println!("run {run} is kept in {}; `bartizan replay {run}` shows it again", dir.display());
                    ending
                }
            })
        };
        let ending = tokio::select! {
            ending = front => ending?,
            error = hub.broken() => {
                let next = "what runs on the bastion goes on; make room, then `bartizan run --resume`";
                return Err(Failure::other(format!("nothing can be recorded any more: {error}; {next}")));
            }
        };
        hub.close().await.map_err(Failure::other)?;
        Ok(ending.exit)
    }

    /// The run to go on with, or a new one.
    fn place(&self, store: &Store, digest: &str) -> Result<(String, PathBuf, bool), Failure> {
        let unfinished = |model: &crate::model::RunModel| {
            !watched(model)
                && model.opened.is_some()
                && model.closed.as_ref().is_none_or(|(outcome, ..)| *outcome != RunOutcome::Done)
        };
        let name = &self.spec.0.cluster.name;
        let domain = &self.spec.0.cluster.base_domain;
        match self.resume.as_deref() {
            Some("last") => {
                let found = store
                    .newest(|model| {
                        unfinished(model) && model.cluster.name == *name && model.cluster.base_domain == *domain
                    })
                    .map_err(Failure::other)?;
                let found =
                    found.ok_or_else(|| Failure::usage(format!("there is no unfinished run of {name}.{domain}")))?;
                Ok((found.run, found.dir, true))
            }
            Some(wanted) => {
                let dir = opened::find(store, wanted)?;
                let run = dir.file_name().map_or_else(|| wanted.to_owned(), |name| name.to_string_lossy().into_owned());
                Ok((run, dir, true))
            }
            None => {
                let open = store
                    .newest(|model| {
                        model.closed.is_none()
                            && !watched(model)
                            && model.cluster.name == *name
                            && model.cluster.base_domain == *domain
                    })
                    .map_err(Failure::other)?;
                if let Some(open) = open.filter(|_| !self.own_world) {
                    return Err(Failure::usage(format!(
                        "run {} of {name}.{domain} was not ended (spec {}): go on with `--resume`, or take it down with \
                         `bartizan cleanup {} --confirm {name}`",
                        open.run,
                        digest.get(..12).unwrap_or(digest),
                        open.run
                    )));
                }
                let (run, dir) = store.new_run(Timestamp::now());
                Ok((run, dir, false))
            }
        }
    }
}

/// Something else drives it.
fn watched(model: &crate::model::RunModel) -> bool {
    model.fact(fact::WATCHED).is_some()
}

/// The host key that is delivered to a run's bastion: the same one until the bastion has its own.
fn kept_host_key(store: &Store, run: &str) -> Result<Secret, Failure> {
    let make = || new_key_pair("").map(|(private, _)| private).map_err(std::io::Error::other);
    store.secret(&format!("{run}-host-key"), make).map_err(Failure::other)
}

/// The password that was made up for a run's mirror: outside the run's folder, because that is what people hand on.
fn kept_password(store: &Store, run: &str) -> Result<Secret, Failure> {
    store
        .secret(run, || generate_password().map_err(|_| std::io::Error::other("no random numbers")))
        .map_err(Failure::other)
}

/// The spec with absolute paths, beside its run.
fn keep_spec(dir: &Path, spec: &Spec) -> Result<(), Failure> {
    let path = dir.join("cluster.toml");
    let text = toml::to_string(spec).map_err(|error| Failure::other(format!("writing {}: {error}", path.display())))?;
    std::fs::write(&path, text).map_err(|error| Failure::other(format!("writing {}: {error}", path.display())))
}

pub(super) fn screen_options(front: &Front, checks: &Checklists) -> ui::UiOptions {
    let mut options = ui::UiOptions::from_env();
    options.theme.clone_from(&front.theme);
    options.ascii = front.ascii.then_some(true);
    options.read_only = front.read_only;
    options.reduced_motion = front.reduced_motion;
    options.notify = front.notify.clone().unwrap_or_default();
    super::config::apply(&mut options, front.notify.is_none());
    options.texts = texts(checks);
    options
}

/// Titles of the checks.
pub(super) fn texts(checks: &Checklists) -> ui::Texts {
    let titled = |list: &Checklist| -> Vec<_> {
        list.checks.iter().map(|check| ((list.id.clone(), check.id.clone()), check.title.clone())).collect()
    };
    ui::Texts { checks: checks.iter().flat_map(titled).collect(), ..ui::Texts::default() }
}

/// Who reads the lines and types answers.
fn person(commands: mpsc::Sender<Command>, agreed: bool) -> Result<Person, Failure> {
    let (typed, answers) = mpsc::channel(8);
    // A blocked read ends with the process.
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if typed.blocking_send(line).is_err() {
                break;
            }
        }
    });
    Ok(Person { ask: headless::Ask::new(agreed).map_err(Failure::other)?, answers, commands })
}

/// Lines until the end; an interrupt detaches, a second one ends at once.
async fn headless_front(
    (model, events): (crate::model::RunModel, crate::record::Follower),
    opening: Option<Event>,
    format: Format,
    person: Option<Person>,
    commands: mpsc::Sender<Command>,
    engine: tokio::task::JoinHandle<Ending>,
    mut signals: ui::Signals,
) -> Result<Ending, Failure> {
    let shown = tokio::spawn(async move {
        let mut out = std::io::stdout();
        if let Some(opening) = opening {
            writeln!(out, "{}", serde_json::to_string(&opening)?)?;
        }
        headless::show(model, events, format, person, out).await
    });
    let interrupted = tokio::spawn(async move {
        for command in [Command::Detach, Command::Cancel] {
            signals.any().await;
            if commands.send(command).await.is_err() {
                return;
            }
        }
        // The engine holds the other end until it is done.
        std::future::pending::<()>().await;
    });
    let ending =
        engine.await.map_err(|error| Failure { exit: exit::OTHER, text: format!("the engine broke: {error}") })?;
    interrupted.abort();
    // A reader that went away (`| head`) is no failure of the run.
    let _closed_pipe = shown.await;
    Ok(ending)
}

pub(super) async fn interrupt() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut int, mut term, mut hup) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
        _ = hup.recv() => {}
    }
    Ok(())
}
