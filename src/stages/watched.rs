//! An installation that something else drives, as the steps that it goes through: worked out of what its installer and its
//! cluster say, never done by us.

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::cluster::operators::is_installed;
use crate::model::event::{Data, Event, Evidence, Level, LogLine, Observed, Outcome};
use crate::model::plan::{Plan, StepId};
use crate::watch::{Tap, installer};

/// The steps of stage 08 that an installer goes through by itself, and the phases in which it is at each.
const STEPS: [(&str, &[&str]); 3] = [
    ("08-install/infrastructure", &["prepare", "infrastructure", "network", "machines"]),
    ("08-install/bootstrap", &["kubernetes-api", "bootstrap", "etcd-member", "bootstrap-destroy"]),
    ("08-install/operators", &["initialize", "stable", "console"]),
];
const COMPLETE: &str = "complete";

/// With what the installer gives up, at level error or fatal (openshift/installer, cmd/openshift-install).
const LAST_WORDS: [&str; 7] = [
    "Bootstrap failed to complete",
    "Failed waiting for Kubernetes API",
    "Failed to wait for bootstrapping to complete",
    "failed to initialize the cluster",
    "Cluster initialization failed",
    "These cluster operators were not stable",
    "failed to fetch ",
];

/// Of the whole plan the part that can be seen from outside.
pub fn plan(mut whole: Plan) -> Plan {
    for stage in &mut whole.stages {
        stage.steps.retain(|step| STEPS.iter().any(|(name, _)| *name == step.id.as_str()));
    }
    whole.stages.retain(|stage| !stage.steps.is_empty());
    whole
}

/// How it ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    Installed,
    /// What the installer gave up with, and its exit code for that.
    Failed {
        words: String,
        exit: u8,
    },
}

/// Where the installation is.
#[derive(Debug, Default)]
pub struct Steps {
    /// There is an installer's log; without one the cluster speaks for itself.
    has_log: bool,
    /// The step at work; as many as there are when all are done.
    at: Option<usize>,
    attempts: [u32; STEPS.len()],
    since: Option<Timestamp>,
    end: Option<End>,
}

impl Steps {
    pub fn new(has_log: bool) -> Self {
        Self { has_log, ..Self::default() }
    }

    /// How it ended, unless it goes on.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// What an event of the run says about the steps.
    pub fn feed(&mut self, event: &Event) -> Vec<Data> {
        match &event.data {
            Data::Observed(Observed::Installer { phase, message, .. }) if phase == COMPLETE => {
                self.go(STEPS.len(), message, event.at)
            }
            // What an installer says after it gave up, also the words that it did it with, begins nothing anew.
            Data::Observed(Observed::Installer { message, .. })
                if matches!(self.end, Some(End::Failed { .. })) && !installer::begins_phase(message) =>
            {
                Vec::new()
            }
            Data::Observed(Observed::Installer { phase, message, .. }) => {
                let step = STEPS.iter().position(|(_, phases)| phases.contains(&phase.as_str()));
                step.map(|step| self.go(step, message, event.at)).unwrap_or_default()
            }
            Data::Observed(Observed::ClusterVersion(version)) if !self.has_log => {
                let step = STEPS.len() - usize::from(!is_installed(version));
                self.go(step, &version.message, event.at)
            }
            _ => Vec::new(),
        }
    }

    /// What a line of the installer's log says: that it gives up.
    pub fn hear(&mut self, line: &LogLine, now: Timestamp) -> Vec<Data> {
        let over = line.level >= Level::Error && LAST_WORDS.iter().any(|words| line.text.starts_with(words));
        let Some((at, (step, _))) = self.at.and_then(|at| Some((at, STEPS.get(at)?))).filter(|_| over) else {
            return Vec::new();
        };
        let exit = match (at, line.text.starts_with("These cluster operators")) {
            (0, _) => 4,
            (1, _) => 5,
            (_, false) => 6,
            (_, true) => 7,
        };
        if self.end.is_some() {
            return Vec::new();
        }
        self.end = Some(End::Failed { words: line.text.clone(), exit });
        vec![self.ended(at, step, Outcome::Failed { causes: vec![line.text.clone()] }, Vec::new(), now)]
    }

    /// The installation is at `step` now; a step before it that was at work is done.
    fn go(&mut self, step: usize, words: &str, now: Timestamp) -> Vec<Data> {
        if self.at == Some(step) && self.end.is_none() {
            return Vec::new();
        }
        let mut told = Vec::new();
        if let (Some(at), None) = (self.at, &self.end)
            && let Some((name, _)) = STEPS.get(at).filter(|_| at < step)
        {
            let asked = if self.has_log { "the installer's log" } else { "clusterversion/version" };
            let evidence = vec![Evidence::new(asked, words)];
            told.push(self.ended(at, name, Outcome::Success, evidence, now));
        }
        for (skipped, (name, _)) in STEPS.iter().enumerate().take(step).skip(self.at.map_or(0, |at| at + 1)) {
            if self.attempts.get(skipped) == Some(&0) {
                let (step, because) = (StepId::new(*name), format!("what comes after it has begun: {words}"));
                told.push(Data::StepInferred { step, outcome: Outcome::AlreadyTrue, because });
            }
        }
        if let Some((name, _)) = STEPS.get(step) {
            let attempt = self.attempts.get_mut(step).map_or(1, |attempts| {
                *attempts += 1;
                *attempts
            });
            told.push(Data::StepStarted { step: StepId::new(*name), attempt, host: None });
        }
        self.at = Some(step);
        self.since = Some(now);
        self.end = (step == STEPS.len()).then_some(End::Installed);
        told
    }

    fn ended(&self, at: usize, step: &str, outcome: Outcome, evidence: Vec<Evidence>, now: Timestamp) -> Data {
        let took = self.since.map_or(0, |since| now.duration_since(since).as_millis());
        Data::StepEnded {
            step: StepId::new(step),
            attempt: self.attempts.get(at).copied().unwrap_or(1),
            outcome,
            elapsed_ms: u64::try_from(took).unwrap_or(0),
            evidence,
        }
    }
}

/// Pass lines on to whoever matches them, and give those of the installer at level error to `heard` as well.
pub async fn overhear(mut tapped: mpsc::Receiver<(String, Vec<LogLine>)>, onward: Tap, heard: mpsc::Sender<LogLine>) {
    while let Some((source, lines)) = tapped.recv().await {
        if source == installer::SOURCE {
            for line in lines.iter().filter(|line| line.level >= Level::Error) {
                // Nobody listening is no reason not to match.
                let _unheard = heard.send(line.clone()).await;
            }
        }
        if onward.send((source, lines)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::plan::StageId;
    use crate::model::run::Status;
    use crate::model::{RunModel, reduce};

    /// What the record makes of phases (with the message behind a colon) and lines, one after the other.
    fn model(said: &[Result<&str, &str>]) -> (RunModel, Steps) {
        let plan = plan(super::super::plan().unwrap());
        let (mut model, mut steps) = (RunModel::default(), Steps::new(true));
        model.steps = plan.steps().map(|step| (step.id.clone(), Default::default())).collect();
        model.plan = plan;
        let mut seq = 0;
        for said in said {
            let at = Timestamp::from_second(1_700_000_000 + seq).unwrap();
            let told = match *said {
                Ok(text) => {
                    let (phase, message) = text.split_once(": ").unwrap_or((text, text));
                    let (phase, message) = (phase.into(), message.into());
                    let observed = Observed::Installer { phase, message, deadline: None, since: None };
                    steps.feed(&Event { seq: 1, at, data: Data::Observed(observed) })
                }
                Err(text) => {
                    let (unit, level) = ("installer".into(), Level::Error);
                    steps.hear(&LogLine { at, unit, level, text: text.into(), cursor: None }, at)
                }
            };
            for data in told {
                seq += 1;
                reduce(&mut model, &Event { seq: seq.unsigned_abs(), at, data });
            }
        }
        (model, steps)
    }

    fn statuses(model: &RunModel) -> Vec<Status> {
        model.plan.steps().map(|step| model.steps[&step.id].status).collect()
    }

    #[test]
    fn steps_follow_the_phases_wherever_one_comes_in() {
        use Status::{Done, Failed, Running, Waiting};
        let (model, steps) = model(&[Ok("prepare"), Ok("machines"), Ok("bootstrap")]);
        assert_eq!((statuses(&model), steps.end()), (vec![Done, Running, Waiting], None));
        assert_eq!(model.plan.stages[0].id, StageId::new("08-install"));

        let (model, steps) = self::model(&[Ok("initialize"), Ok("stable"), Ok("console"), Ok("complete")]);
        assert_eq!((statuses(&model), steps.end()), (vec![Done, Done, Done], Some(&End::Installed)));

        // Somebody goes on with `wait-for` after a failure.
        let error = "Bootstrap failed to complete: timed out waiting for the condition";
        let (model, steps) = self::model(&[Ok("machines"), Ok("bootstrap"), Err("some error"), Err(error), Err(error)]);
        assert_eq!(statuses(&model), [Done, Failed, Waiting]);
        assert_eq!(steps.end(), Some(&End::Failed { words: error.into(), exit: 5 }));
        // The same words are also news of the phase, now before and now after they are heard.
        let news = format!("bootstrap: {error}");
        let (model, _) = self::model(&[Ok("bootstrap"), Ok(&news), Err(error), Ok(&news)]);
        assert_eq!(statuses(&model), [Done, Failed, Waiting]);
        let again = "bootstrap: Waiting up to 45m0s (until 1:00PM UTC) for bootstrapping to complete...";
        let (model, steps) = self::model(&[Ok("bootstrap"), Err(error), Ok(again), Ok("initialize")]);
        assert_eq!((statuses(&model), steps.end()), (vec![Done, Done, Running], None));
    }
}
