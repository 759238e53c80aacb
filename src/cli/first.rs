//! `bartizan` alone: what is here, and what can be done with it. Nothing is asked of the network.

use std::path::Path;

use jiff::Timestamp;

use crate::model::event::RunOutcome;
use crate::model::fact;
use crate::record::lease::{Holder, holder};
use crate::record::store::RunSummary;
use crate::record::{RecordError, Store};
use crate::spec::{self, HostKey, Spec, SpecErrors};
use crate::ui::text::age;

use super::{Failure, exit};

/// How many runs are shown.
const RUNS: usize = 4;
const SPEC: &str = "cluster.toml";

/// What was found.
struct Here {
    spec: Option<Result<Spec, SpecErrors>>,
    /// The newest first.
    runs: Vec<(RunSummary, Option<Holder>)>,
    all_runs: usize,
    now: Timestamp,
}

pub fn first(state: Option<&Path>) -> Result<u8, Failure> {
    let here = look(state).map_err(Failure::other)?;
    println!(
        "bartizan {}: drives, watches and repairs a disconnected OpenShift installation on AWS",
        env!("CARGO_PKG_VERSION")
    );
    println!("\nHere:");
    lines(&here.facts());
    println!("\nWhat you can do:");
    lines(&here.ways());
    Ok(exit::DONE)
}

fn lines(rows: &[(String, String)]) {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, text) in rows {
        println!("  {name:<width$}  {text}");
    }
}

fn look(state: Option<&Path>) -> Result<Here, RecordError> {
    let store = Store::open(state)?;
    let names = store.names()?;
    let runs = names.iter().rev().filter_map(|name| store.summary(name)).take(RUNS);
    let runs = runs.map(|run| {
        let holder = holder(&run.dir);
        (run, holder)
    });
    let runs = runs.collect();
    let spec = Path::new(SPEC).is_file().then(|| spec::load(Path::new(SPEC)));
    Ok(Here { spec, runs, all_runs: names.len(), now: Timestamp::now() })
}

impl Here {
    fn facts(&self) -> Vec<(String, String)> {
        let mut rows = Vec::new();
        let row = |name: &str, text: String| (name.to_owned(), text);
        rows.push(row(
            "spec",
            match &self.spec {
                None => format!("no {SPEC} in this directory"),
                Some(Ok(spec)) => format!("{SPEC}: {} {} in {}", spec.domain(), spec.release.version, spec.aws.region),
                Some(Err(SpecErrors(problems))) => {
                    let first = problems.first().map(ToString::to_string).unwrap_or_default();
                    let more = problems.len().saturating_sub(1);
                    if more == 0 { first } else { format!("{first} (and {more} more)") }
                }
            },
        ));
        if let Some(Ok(spec)) = &self.spec {
            rows.push(row("bastion", bastion(spec)));
        }
        if self.runs.is_empty() {
            rows.push(row("runs", "none yet".to_owned()));
        }
        for (place, (run, holder)) in self.runs.iter().enumerate() {
            rows.push(row(
                if place == 0 { "runs" } else { "" },
                format!("{}  {}", run.run, self.told(run, holder.as_ref())),
            ));
        }
        if self.all_runs > self.runs.len() {
            rows.push(row("", format!("and {} older: bartizan runs", self.all_runs - self.runs.len())));
        }
        rows
    }

    /// A run in one line.
    fn told(&self, run: &RunSummary, holder: Option<&Holder>) -> String {
        let model = &run.model;
        let age = model.now.map_or_else(String::new, |at| {
            format!(", {} ago", age(u64::try_from(self.now.duration_since(at).as_secs()).unwrap_or(0)))
        });
        let stage = model.current_stage().map_or_else(|| "the end".to_owned(), ToString::to_string);
        let state = match (&model.closed, holder) {
            (_, Some(holder)) => {
                return format!(
                    "{}: in {stage}, driven by {} (process {})",
                    model.cluster.name, holder.operator, holder.pid
                );
            }
            (Some((RunOutcome::Done, ..)), _) => "done".to_owned(),
            (Some((RunOutcome::Failed, exit, _)), _) => format!("failed in {stage} (exit {exit})"),
            (Some(_), _) | (None, _) => format!("left in {stage}"),
        };
        format!("{}: {state}{age}", model.cluster.name)
    }

    /// What makes most sense first.
    fn ways(&self) -> Vec<(String, String)> {
        let mut ways: Vec<(&str, &str)> = Vec::new();
        let newest = self.runs.first();
        match newest {
            Some((_, Some(_))) => ways.push(("bartizan watch", "look over the shoulder of the run that is going on")),
            Some((run, None)) => {
                let watched = run.model.fact(fact::WATCHED).is_some();
                let unfinished = !watched && !matches!(run.model.closed, Some((RunOutcome::Done, ..)));
                if unfinished && matches!(self.spec, Some(Ok(_))) {
                    ways.push(("bartizan run --resume", "go on with the newest run, from where it stands"));
                }
                ways.push(("bartizan replay", "see the newest run again, with a slider"));
                ways.push(("bartizan export report", "the newest run as one page to hand on"));
            }
            None => {}
        }
        match &self.spec {
            None => ways.push(("bartizan init", "answer a few questions and have a cluster.toml")),
            Some(Err(_)) => ways.push(("$EDITOR cluster.toml", "put right what is named above")),
            Some(Ok(_)) => {
                ways.push(("bartizan doctor", "what this machine and the account have and lack for it"));
                ways.push(("bartizan plan", "every step with its commands and what it costs; touches nothing"));
                ways.push(("bartizan run", "install it, in the cockpit"));
            }
        }
        #[cfg(feature = "lab")]
        ways.push(("bartizan demo", "a whole installation in a lab that is built in: no account, two minutes"));
        if self.spec.is_none() {
            ways.push(("bartizan doctor", "what this machine has and lacks"));
        }
        ways.push(("bartizan help", "everything else; bartizan help COMMAND for one of them"));
        ways.into_iter().map(|(command, why)| (command.to_owned(), why.to_owned())).collect()
    }
}

fn bastion(spec: &Spec) -> String {
    let Some(host) = &spec.bastion.host else { return "stage 02 makes one".to_owned() };
    match spec.bastion.host_key {
        HostKey::Known(_) => format!("{host}, its host key is in the spec"),
        _ => format!("{host}; its host key is shown to you before the first connection"),
    }
}
