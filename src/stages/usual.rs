//! How long steps usually take here: what earlier runs have recorded takes the place of the plan's own ranges.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::model::event::{Data, Event, Outcome};
use crate::model::plan::{Plan, StepId};

/// Runs that are looked at, the newest.
const RUNS: usize = 20;
/// Fewer successes than this are no experience.
const ENOUGH: usize = 2;

/// Seconds that a step took when it did something and succeeded.
type Taken = BTreeMap<StepId, Vec<u64>>;

/// Puts what `runs` (oldest first) took into the plan: the shortest and the longest time of each step. Only runs for the
/// same base domain count, because what is usual depends on the site.
pub fn learn(plan: &mut Plan, runs: &[PathBuf], base_domain: &str) {
    let mut taken = Taken::new();
    for run in runs.iter().rev().take(RUNS) {
        // A run that cannot be read teaches nothing.
        let _unread = read(run, base_domain, &mut taken);
    }
    for step in plan.stages.iter_mut().flat_map(|stage| stage.steps.iter_mut()) {
        let seconds = taken.get(&step.id).filter(|seconds| seconds.len() >= ENOUGH);
        if let Some((low, high)) = seconds.and_then(|all| Some((*all.iter().min()?, *all.iter().max()?))) {
            step.usual_s = (low, high.max(1));
        }
    }
}

fn read(run: &Path, base_domain: &str, taken: &mut Taken) -> std::io::Result<()> {
    for line in BufReader::new(File::open(run.join("run.jsonl"))?).lines() {
        let line = line?;
        // Most lines are about something else, and need not be taken apart.
        if !line.contains("\"kind\":\"step-ended\"") && !line.contains("\"kind\":\"run-opened\"") {
            continue;
        }
        match serde_json::from_str::<Event>(&line).map(|event| event.data) {
            Ok(Data::RunOpened { cluster, .. }) if cluster.base_domain != base_domain => return Ok(()),
            Ok(Data::StepEnded { step, outcome: Outcome::Success | Outcome::Warning { .. }, elapsed_ms, .. }) => {
                taken.entry(step).or_default().push(elapsed_ms / 1000);
            }
            _ => {}
        }
    }
    Ok(())
}
