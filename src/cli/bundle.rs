//! `bartizan watch --bundle`: an installation that failed somewhere else, out of the log bundle that was gathered there,
//! recorded with the times of its lines and shown in the same panes.

use std::path::Path;

use jiff::Timestamp;

use crate::host::local::LocalHost;
use crate::model::event::{ClusterName, Data, Event, Evidence, FORMAT, Outcome, RunOutcome};
use crate::model::fact;
use crate::model::plan::StepId;
use crate::record::lease::operator;
use crate::record::{RecordError, Recorder, Store};
use crate::stages::bundle::{self, Moment, Story};
use crate::stages::watched::{End, Steps, plan};
use crate::stages::{self};
use crate::watch::install_dir::{Identity, InstallDir};

use super::{Failure, Front, exit, look};

/// The steps that a bundle without the installer's log tells of.
const BEFORE: &str = "08-install/infrastructure";
const BOOTSTRAP: &str = "08-install/bootstrap";

pub async fn watch(state: Option<&Path>, path: &Path, every_line: bool, front: &Front) -> Result<u8, Failure> {
    let store = Store::open(state).map_err(Failure::other)?;
    let catalogue = super::diagnose::catalogue()?;
    let mut story = bundle::open(&catalogue, path, every_line).map_err(|error| Failure::usage(error.to_string()))?;
    let mut cluster = identity(path).await.cluster;
    cluster.version = std::mem::take(&mut story.version);
    let (run, dir) = store.new_run(Timestamp::now());
    let recorder = Recorder::open(&dir).map_err(Failure::other)?;
    Telling { recorder, steps: Steps::new(true) }.all(&run, path, cluster, story).map_err(Failure::other)?;
    match front.format() {
        Some(_) => look::replay(state, &run, front).await,
        None => {
            let code = look::watch(state, &run, front).await?;
            println!("run {run} is kept in {}; `bartizan replay {run}` shows it again", dir.display());
            Ok(code)
        }
    }
}

/// What an install directory around the bundle tells; else only a name.
async fn identity(path: &Path) -> Identity {
    let dir = if path.is_dir() { Some(path) } else { path.parent() };
    let there = match dir.and_then(Path::to_str).filter(|dir| !dir.is_empty()) {
        Some(path) => InstallDir { host: &LocalHost::default(), path }.identity().await.unwrap_or_default(),
        None => Identity::default(),
    };
    if !there.cluster.name.is_empty() {
        return there;
    }
    let name = path.file_name().map_or_else(|| "bundle".into(), |name| name.to_string_lossy());
    let name = name.strip_suffix(".tar.gz").unwrap_or(&name).to_owned();
    Identity { cluster: ClusterName { name, ..ClusterName::default() }, ..there }
}

struct Telling {
    recorder: Recorder,
    steps: Steps,
}

impl Telling {
    fn all(mut self, run: &str, path: &Path, cluster: ClusterName, story: Story) -> Result<(), RecordError> {
        let first = story.moments.first().map_or_else(Timestamp::now, |(at, _)| *at);
        let last = story.moments.last().map_or(first, |(at, _)| *at);
        let plan = plan(stages::plan().unwrap_or_default());
        let (bartizan, operator) = (env!("CARGO_PKG_VERSION").to_owned(), operator());
        let (run, spec_digest) = (run.to_owned(), String::new());
        let opened = Data::RunOpened { format: FORMAT, run, bartizan, cluster, spec_digest, plan, operator };
        self.recorder.append(first, opened)?;
        let value = path.display().to_string();
        self.recorder.append(first, Data::Fact { key: fact::WATCHED.into(), value })?;
        if !story.has_installer {
            self.begin(first)?;
        }
        let note = story.note();
        let (has_installer, bootstrapped) = (story.has_installer, story.bootstrapped);
        for (at, moment) in story.moments {
            match moment {
                Moment::Data(data) => self.tell(at, *data)?,
                Moment::Lines { source, lines } => {
                    self.recorder.append_lines(at, &source, &lines)?;
                    for line in lines.iter().filter(|_| source == crate::watch::installer::SOURCE) {
                        for data in self.steps.hear(line, at) {
                            self.recorder.append(at, data)?;
                        }
                    }
                }
            }
        }
        if !has_installer {
            self.end(last, bootstrapped)?;
        }
        self.recorder.append(last, note)?;
        let (outcome, exit, summary) = match self.steps.end() {
            Some(End::Installed) => (RunOutcome::Done, exit::DONE, "the installation is complete".to_owned()),
            Some(End::Failed { words, exit }) => (RunOutcome::Failed, *exit, words.clone()),
            None => (RunOutcome::Stopped, exit::DONE, "what the bundle tells ends here".to_owned()),
        };
        self.recorder.append(last, Data::RunClosed { outcome, exit, summary })?;
        self.recorder.sync()
    }

    fn tell(&mut self, at: Timestamp, data: Data) -> Result<(), RecordError> {
        let event: Event = self.recorder.append(at, data)?;
        for data in self.steps.feed(&event) {
            self.recorder.append(at, data)?;
        }
        Ok(())
    }

    /// There was a bootstrap machine, so what comes before it was done.
    fn begin(&mut self, at: Timestamp) -> Result<(), RecordError> {
        let because = "the bundle was gathered on the bootstrap machine".to_owned();
        let (step, outcome) = (StepId::new(BEFORE), Outcome::AlreadyTrue);
        self.recorder.append(at, Data::StepInferred { step, outcome, because })?;
        let started = Data::StepStarted { step: StepId::new(BOOTSTRAP), attempt: 1, host: None };
        self.recorder.append(at, started).map(drop)
    }

    fn end(&mut self, at: Timestamp, bootstrapped: bool) -> Result<(), RecordError> {
        let model = self.recorder.model();
        let cause = model.open_findings().first().map(|record| record.finding.title.clone());
        let began = model.opened.unwrap_or(at);
        let outcome = match bootstrapped {
            true => Outcome::Success,
            false => {
                let told = "the bundle was gathered before the bootstrap was complete".to_owned();
                Outcome::Failed { causes: std::iter::once(told).chain(cause).collect() }
            }
        };
        let evidence = match model.bootkube.last() {
            Some(stage) => vec![Evidence::new(stage.stage.clone(), stage.evidence.clone())],
            None => Vec::new(),
        };
        let elapsed_ms = u64::try_from(at.duration_since(began).as_millis()).unwrap_or(0);
        let step = StepId::new(BOOTSTRAP);
        self.recorder.append(at, Data::StepEnded { step, attempt: 1, outcome, elapsed_ms, evidence }).map(drop)
    }
}
