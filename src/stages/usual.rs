//! How long steps and the bootstrap node's stages usually take here: what earlier runs have recorded. For steps it takes
//! the place of the plan's own ranges.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::model::event::{BootStage, Data, Event, Observed, Outcome};
use crate::model::plan::{Plan, StepId};

/// Runs that are looked at, the newest.
const RUNS: usize = 20;
/// Fewer successes than this are no experience.
const ENOUGH: usize = 2;
/// What the lines that matter have in them; most are about something else, and need not be taken apart.
const TELLING: [&str; 3] = ["\"kind\":\"step-ended\"", "\"kind\":\"run-opened\"", "\"object\":\"bootkube\""];

/// Seconds of what did something and succeeded.
#[derive(Default)]
struct Taken {
    steps: BTreeMap<StepId, Vec<u64>>,
    boot: BTreeMap<String, Vec<u64>>,
}

/// Puts what `runs` (oldest first) took into the plan: the shortest and the longest time of each step, and of each stage
/// of the bootstrap node. Only runs for the same base domain count, because what is usual depends on the site.
pub fn learn(plan: &mut Plan, runs: &[PathBuf], base_domain: &str) {
    let mut taken = Taken::default();
    for run in runs.iter().rev().take(RUNS) {
        // A run that cannot be read teaches nothing.
        let _unread = taken.read(run, base_domain);
    }
    for step in plan.stages.iter_mut().flat_map(|stage| stage.steps.iter_mut()) {
        if let Some((low, high)) = taken.steps.get(&step.id).and_then(|seconds| range(seconds)) {
            step.usual_s = (low, high.max(1));
        }
    }
    let boot = taken.boot.iter().filter_map(|(stage, seconds)| Some((stage.clone(), range(seconds)?)));
    plan.usual_boot_s = boot.collect();
}

fn range(seconds: &[u64]) -> Option<(u64, u64)> {
    let enough = seconds.len() >= ENOUGH;
    enough.then_some((*seconds.iter().min()?, *seconds.iter().max()?))
}

impl Taken {
    fn read(&mut self, run: &Path, base_domain: &str) -> std::io::Result<()> {
        let mut running = BTreeMap::new();
        for line in BufReader::new(File::open(run.join("run.jsonl"))?).lines() {
            let line = line?;
            if !TELLING.iter().any(|telling| line.contains(telling)) {
                continue;
            }
            match serde_json::from_str::<Event>(&line).map(|event| event.data) {
                Ok(Data::RunOpened { cluster, .. }) if cluster.base_domain != base_domain => return Ok(()),
                Ok(Data::StepEnded {
                    step, outcome: Outcome::Success | Outcome::Warning { .. }, elapsed_ms, ..
                }) => {
                    self.steps.entry(step).or_default().push(elapsed_ms / 1000);
                }
                // When a line was read says nothing of how long its stage took: only the node's own times do.
                Ok(Data::Observed(Observed::Bootkube { stage, state, since: Some(since), .. })) => {
                    self.stage(&mut running, stage, state, since);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A stage that failed and began again is measured from where it began last.
    fn stage(&mut self, running: &mut BTreeMap<String, Timestamp>, stage: String, state: BootStage, since: Timestamp) {
        match state {
            BootStage::Running => {
                running.entry(stage).or_insert(since);
            }
            BootStage::Done => {
                let took = running.remove(&stage).map(|began| since.duration_since(began).as_secs());
                if let Some(took) = took.and_then(|took| u64::try_from(took).ok()) {
                    self.boot.entry(stage).or_default().push(took);
                }
            }
            BootStage::Failed | BootStage::Warned => {
                running.remove(&stage);
            }
        }
    }
}
