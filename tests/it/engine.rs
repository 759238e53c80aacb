//! The engine with steps whose effects can be counted: killed at every event, a restart ends the same, and nothing is
//! done twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bartizan::engine::runner::Steps;
use bartizan::engine::{
    Command, Ending, Hands, Options, Probe, Ran, Recovery, Resume, Runner, Step, StepCx, StepError,
};
use bartizan::model::RunModel;
use bartizan::model::event::*;
use bartizan::model::plan::{Plan, StageId, StagePlan, StepId, StepPlan};
use bartizan::model::run::Status;
use bartizan::record::{Hub, Recorder};
use tokio::sync::mpsc;

/// The outside: it outlives every engine.
#[derive(Default)]
struct Outside {
    made: Mutex<Vec<String>>,
    /// Steps that fail for good until this is true.
    repaired: std::sync::atomic::AtomicBool,
    tries: AtomicU32,
}

struct Make {
    name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    /// Fails twice with an error that another attempt may cure.
    Flaky,
    /// Fails until somebody repairs.
    Broken,
    /// Waits until it is cancelled.
    Endless,
}

#[async_trait]
impl Step<Outside> for Make {
    fn preview(&self, _: &Outside) -> Vec<Action> {
        vec![]
    }
    async fn probe(&self, cx: &StepCx<Outside>) -> Result<Probe, StepError> {
        let there = cx.world.made.lock().unwrap().iter().any(|made| made == self.name);
        Ok(if there { Probe::True(vec![Evidence::new("look", self.name)]) } else { Probe::Missing("not made".into()) })
    }
    async fn run(&self, cx: &StepCx<Outside>) -> Result<Ran, StepError> {
        match self.kind {
            Kind::Flaky if cx.world.tries.fetch_add(1, Ordering::SeqCst) < 2 => {
                return Err(StepError::transient("not yet"));
            }
            Kind::Broken if !cx.world.repaired.load(Ordering::SeqCst) => {
                return Err(StepError::fatal("broken").exit(5));
            }
            Kind::Endless => {
                cx.cancel.cancelled().await;
                return Err(StepError::fatal("cancelled"));
            }
            _ => {}
        }
        let object = Object { kind: "thing".into(), name: self.name.into() };
        cx.sink.commit(Data::Intent { object: object.clone() }).await;
        cx.world.made.lock().unwrap().push(self.name.to_owned());
        cx.sink.commit(Data::Created { object, id: self.name.into() }).await;
        Ok(Ran::Ok)
    }
    async fn verify(&self, cx: &StepCx<Outside>) -> Result<Vec<Evidence>, StepError> {
        match self.probe(cx).await? {
            Probe::True(evidence) => Ok(evidence),
            _ => Err(StepError::transient("not there after all")),
        }
    }
}

struct Repairs {
    resume: Resume,
}

struct Repair;

#[async_trait]
impl Step<Outside> for Repair {
    fn preview(&self, _: &Outside) -> Vec<Action> {
        vec![]
    }
    async fn probe(&self, _: &StepCx<Outside>) -> Result<Probe, StepError> {
        Ok(Probe::Missing("broken".into()))
    }
    async fn run(&self, cx: &StepCx<Outside>) -> Result<Ran, StepError> {
        cx.world.repaired.store(true, Ordering::SeqCst);
        Ok(Ran::Ok)
    }
    async fn verify(&self, _: &StepCx<Outside>) -> Result<Vec<Evidence>, StepError> {
        Ok(vec![Evidence::new("repaired", "yes")])
    }
}

#[async_trait]
impl Hands<Outside> for Repairs {
    async fn check(&self, _: &StepCx<Outside>, _: &Finding) {}
    fn recoveries(&self, finding: &Finding) -> Vec<Recovery<Outside>> {
        let repair = (finding.signature == "BROKEN").then(|| Recovery {
            id: "repair".into(),
            title: "repair it".into(),
            automatic: true,
            resume: self.resume.clone(),
            fixes: vec![(StepId::new("recovery/repair"), Arc::new(Repair) as Arc<dyn Step<Outside>>)],
        });
        repair.into_iter().collect()
    }
    async fn classify(&self, cx: &StepCx<Outside>, causes: &[String]) {
        let finding = Finding {
            id: "BROKEN".into(),
            signature: "BROKEN".into(),
            title: "it is broken".into(),
            next: None,
            severity: Level::Error,
            captures: BTreeMap::new(),
            source: "step".into(),
            unit: cx.step.to_string(),
            at: jiff::Timestamp::now(),
            line: causes.join(": "),
            line_number: None,
            checklist: None,
            recovery: Some("repair".into()),
            rank: 1,
            explained_by: None,
        };
        cx.sink.emit(Data::FindingOpened { finding }).await;
    }
    async fn resync(&self, _: &StepCx<Outside>, _: &str) -> Result<(), StepError> {
        Ok(())
    }
    async fn leave_out(&self, _: &StepCx<Outside>, _: &str) -> Result<(), StepError> {
        Ok(())
    }
    async fn approve_csr(&self, _: &StepCx<Outside>, _: &str) -> Result<(), StepError> {
        Ok(())
    }
}

fn plan(kinds: &[(&'static str, &'static str, Kind)]) -> (Plan, Steps<Outside>) {
    let mut stages: Vec<StagePlan> = Vec::new();
    let mut steps: Steps<Outside> = BTreeMap::new();
    for (stage, name, kind) in kinds {
        let id = StepId::new(format!("{stage}/{name}"));
        if stages.last().is_none_or(|last| last.id.as_str() != *stage) {
            stages.push(StagePlan { id: StageId::new(*stage), goal: String::new(), exit: 6, steps: vec![] });
        }
        stages.last_mut().unwrap().steps.push(StepPlan {
            id: id.clone(),
            title: (*name).into(),
            attempts: 3,
            timeout_s: 60,
            usual_s: (0, 1),
            exit: None,
        });
        steps.insert(id, Arc::new(Make { name, kind: *kind }));
    }
    (Plan { stages, ..Plan::default() }, steps)
}

const SIX: [(&str, &str, Kind); 6] = [
    ("01-a", "one", Kind::Plain),
    ("01-a", "two", Kind::Plain),
    ("02-b", "three", Kind::Plain),
    ("02-b", "four", Kind::Plain),
    ("03-c", "five", Kind::Plain),
    ("03-c", "six", Kind::Plain),
];

/// Runs until the end, or until event `kill` is on disk and everything is dropped on the spot.
fn engine(
    dir: &std::path::Path,
    outside: &Arc<Outside>,
    kinds: &[(&'static str, &'static str, Kind)],
    options: Options,
    resume: Resume,
    commands: Vec<Command>,
    kill: Option<u64>,
) -> Option<(Ending, RunModel)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (plan, steps) = plan(kinds);
    let result = runtime.block_on(async {
        let recorder = Recorder::open(dir).unwrap();
        let fresh = recorder.model().opened.is_none();
        let hub = Hub::start(recorder);
        let sink = hub.sink();
        let (_, mut watched) = hub.follow().await;
        let opened = Data::RunOpened {
            format: FORMAT,
            run: "r".into(),
            bartizan: "0".into(),
            cluster: ClusterName::default(),
            spec_digest: String::new(),
            plan: plan.clone(),
            operator: "op".into(),
        };
        sink.commit(if fresh { opened } else { Data::RunResumed { operator: "op".into(), pid: 1, from: None } }).await;
        let (sender, queue) = mpsc::channel(8);
        let hands = Arc::new(Repairs { resume });
        let runner = Runner {
            world: outside.clone(),
            plan,
            steps,
            sink: sink.clone(),
            hands,
            options,
            probes: tokio_util::task::TaskTracker::new(),
        };
        let (_, events) = hub.follow().await;
        let run = tokio::spawn(runner.run(queue, events));
        for command in commands {
            tokio::time::sleep(Duration::from_millis(300)).await;
            sender.send(command).await.unwrap();
        }
        if let Some(kill) = kill {
            while let Some(event) = watched.next().await {
                if event.seq >= kill {
                    return None;
                }
                if matches!(event.data, Data::RunClosed { .. }) {
                    break;
                }
            }
        }
        let ending = run.await.unwrap();
        let model = RunModel::clone(&*sink.model().await);
        hub.close().await.unwrap();
        Some((ending, model))
    });
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

fn plainly(dir: &std::path::Path, outside: &Arc<Outside>, kill: Option<u64>) -> Option<(Ending, RunModel)> {
    engine(dir, outside, &SIX, Options { operator: "op".into(), ..Options::default() }, Resume::Live, vec![], kill)
}

#[test]
fn killed_at_every_event_a_restart_makes_one_of_everything() {
    let first = tempfile::tempdir().unwrap();
    let (ending, model) = plainly(first.path(), &Arc::default(), None).unwrap();
    assert_eq!((ending.outcome, ending.exit), (RunOutcome::Done, 0));
    for kill in 1..model.seq {
        let dir = tempfile::tempdir().unwrap();
        let outside: Arc<Outside> = Arc::default();
        assert!(plainly(dir.path(), &outside, Some(kill)).is_none());
        let (ending, model) = plainly(dir.path(), &outside, None).unwrap();
        assert_eq!(ending.outcome, RunOutcome::Done, "killed at {kill}");
        let made = outside.made.lock().unwrap().clone();
        assert_eq!(made, ["one", "two", "three", "four", "five", "six"], "killed at {kill}");
        assert!(model.steps.values().all(|step| step.status == Status::Done), "killed at {kill}");
    }
}

#[test]
fn a_step_is_tried_again_and_a_record_that_is_wrong_is_called_drift() {
    let dir = tempfile::tempdir().unwrap();
    let outside: Arc<Outside> = Arc::default();
    let kinds = [("01-a", "one", Kind::Plain), ("01-a", "two", Kind::Flaky)];
    let options = || Options { operator: "op".into(), ..Options::default() };
    let (ending, model) = engine(dir.path(), &outside, &kinds, options(), Resume::Live, vec![], None).unwrap();
    assert_eq!(ending.exit, 0);
    assert_eq!(model.step(&StepId::new("01-a/two")).unwrap().attempt, 3);
    outside.made.lock().unwrap().retain(|made| made != "one");
    let (ending, model) = engine(dir.path(), &outside, &kinds, options(), Resume::Live, vec![], None).unwrap();
    assert_eq!(ending.exit, 0);
    assert!(model.activity.iter().any(|line| line.text.contains("the record says done, the world says not made")));
    assert_eq!(outside.made.lock().unwrap().iter().filter(|made| *made == "one").count(), 1);
}

#[test]
fn a_failure_has_its_class_and_a_recovery_goes_on_from_its_stage() {
    let kinds = [("01-a", "one", Kind::Plain), ("02-b", "two", Kind::Broken), ("03-c", "three", Kind::Plain)];
    let dir = tempfile::tempdir().unwrap();
    let outside: Arc<Outside> = Arc::default();
    let plain = Options { operator: "op".into(), ..Options::default() };
    let (ending, model) = engine(dir.path(), &outside, &kinds, plain.clone(), Resume::Live, vec![], None).unwrap();
    assert_eq!((ending.outcome, ending.exit), (RunOutcome::Failed, 5));
    assert!(ending.summary.contains("02-b/two failed: broken"));
    assert_eq!(model.step(&StepId::new("03-c/three")).unwrap().status, Status::Waiting);
    for resume in [Resume::Live, Resume::From(StageId::new("01-a"))] {
        let dir = tempfile::tempdir().unwrap();
        let outside: Arc<Outside> = Arc::default();
        let options = Options { recover: true, ..plain.clone() };
        let (ending, model) = engine(dir.path(), &outside, &kinds, options, resume, vec![], None).unwrap();
        assert_eq!(ending.exit, 0);
        assert!(model.open_findings().is_empty());
        assert_eq!(outside.made.lock().unwrap().as_slice(), ["one", "two", "three"]);
    }
}

#[test]
fn the_operator_can_skip_stop_and_detach() {
    let kinds = [("01-a", "one", Kind::Endless), ("02-b", "two", Kind::Plain), ("03-c", "three", Kind::Plain)];
    let dir = tempfile::tempdir().unwrap();
    let outside: Arc<Outside> = Arc::default();
    let options = || Options { operator: "op".into(), interactive: true, ..Options::default() };
    let commands = vec![Command::StopAfter(StageId::new("02-b")), Command::Skip(StepId::new("01-a/one"))];
    let (ending, model) = engine(dir.path(), &outside, &kinds, options(), Resume::Live, commands, None).unwrap();
    assert_eq!(ending.outcome, RunOutcome::Stopped);
    assert_eq!(model.step(&StepId::new("01-a/one")).unwrap().status, Status::Skipped);
    assert_eq!(outside.made.lock().unwrap().as_slice(), ["two"]);
    let dir = tempfile::tempdir().unwrap();
    let (ending, _) =
        engine(dir.path(), &Arc::default(), &kinds, options(), Resume::Live, vec![Command::Detach], None).unwrap();
    assert_eq!((ending.outcome, ending.exit), (RunOutcome::Stopped, 8));
}
