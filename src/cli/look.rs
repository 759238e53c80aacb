//! The verbs that drive nothing: plan, watch, replay, status, runs; and the copier.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cloud::blueprint;
use crate::cloud::cost::{self, Class};
use crate::diagnose::Checklists;
use crate::headless::{Format, Lines};
use crate::model::event::{Action, Data, Event};
use crate::model::text::dollars;
use crate::model::{RunModel, reduce};
use crate::record::{Recorded, SegmentReader, Store, Tail};
use crate::registry::{Net, agent};
use crate::spec::secrets::Secrets;
use crate::stages::{self, World};
use crate::ui;

use super::doors::RunDoors;
use super::opened::{Opened, open};
use super::session::{SegmentLogs, load, screen_options};
use super::{Failure, Front, exit};

pub fn plan(file: &Path, as_json: bool) -> Result<u8, Failure> {
    let (spec, _) = load(file)?;
    let plan = stages::plan().map_err(Failure::other)?;
    let secrets = Secrets::load(&spec).map_err(|error| Failure::usage(error.to_string()))?;
    let scratch = tempfile::tempdir().map_err(|error| Failure::other(format!("making a directory: {error}")))?;
    let ssh = crate::host::ssh::SshPool::new(scratch.path()).map_err(Failure::other)?;
    // A preview makes no call, so any cloud shows what would be asked of the real one.
    let cloud = crate::cloud::memory::MemoryCloud::open(scratch.path().join("cloud.json")).map_err(Failure::other)?;
    let makes = spec.bastion.host.is_none();
    let world = World {
        mirror_password: crate::spec::Secret::new("planned-password"),
        mirror_ca_key: crate::spec::Secret::new("planned-key"),
        proxy_password: None,
        host_key: None,
        secrets,
        run_dir: scratch.path().to_owned(),
        cloud: makes.then(|| std::sync::Arc::new(cloud) as std::sync::Arc<dyn crate::cloud::Cloud>),
        ssh,
        net: Net::default(),
        tap: mpsc::channel(1).0,
        live: tokio::sync::Mutex::new(None),
        spec,
    };
    let planned = blueprint::planned(&world.spec);
    let counts = blueprint::counts(&planned);
    let costs = cost::estimate(&world.spec, &planned);
    let steps = stages::steps();
    let previews: BTreeMap<_, Vec<Action>> =
        steps.iter().map(|(id, step)| (id.clone(), step.preview(&world))).collect();
    if as_json {
        let stages: Vec<_> = plan
            .stages
            .iter()
            .map(|stage| {
                let steps: Vec<_> = stage
                    .steps
                    .iter()
                    .map(|step| json!({ "id": step.id, "title": step.title, "attempts": step.attempts, "actions": previews.get(&step.id) }))
                    .collect();
                json!({ "id": stage.id, "goal": stage.goal, "exit": stage.exit, "steps": steps })
            })
            .collect();
        let made: serde_json::Map<_, _> =
            counts.iter().map(|(kind, count)| (kind.as_str().to_owned(), json!(count))).collect();
        let costs: Vec<_> = costs
            .iter()
            .map(|line| {
                let monthly = line.hourly.map(|hourly| cost::monthly(hourly) as f64 / 1e6);
                json!({ "what": line.what, "count": line.count, "monthly_usd": monthly, "class": Class::of(line.hourly).words() })
            })
            .collect();
        let text = json!({ "makes": made, "costs": costs, "prices_of": cost::as_of(), "stages": stages });
        let text = serde_json::to_string_pretty(&text).map_err(Failure::other)?;
        println!("{text}");
        return Ok(exit::DONE);
    }
    for stage in &plan.stages {
        println!("{}: {}", stage.id, stage.goal);
        for step in &stage.steps {
            println!("  {}: {}", step.id.name(), step.title);
            for action in previews.get(&step.id).into_iter().flatten() {
                println!("    {}", sentence(action));
            }
        }
    }
    let counted: Vec<String> = counts.iter().map(|(kind, count)| format!("{count} {}", kind.as_str())).collect();
    println!("makes before the cluster: {}", if counted.is_empty() { "nothing".into() } else { counted.join(", ") });
    println!("a month of it, and of the cluster:");
    for line in &costs {
        let monthly = line.hourly.map_or_else(String::new, |hourly| dollars(cost::monthly(hourly)));
        println!("  {:>3} {:<42} {:>10}  {}", line.count, line.what, monthly, Class::of(line.hourly).words());
    }
    println!("  {}", cost::total(&costs));
    Ok(exit::DONE)
}

/// What to hand to whoever gives permissions: the documents to standard output, what to do with them to standard error.
pub fn permissions(file: &Path) -> Result<u8, Failure> {
    let (spec, _) = load(file)?;
    let policies = crate::cloud::permissions::policies(&spec);
    for (_, policy) in &policies {
        println!("{}", serde_json::to_string_pretty(policy).map_err(Failure::other)?);
    }
    let names: Vec<&str> = policies.iter().map(|(name, _)| name.as_str()).collect();
    eprintln!(
        "{} policies ({}): make each of them a customer-managed policy, and attach all to the user or role that runs \
         bartizan",
        names.len(),
        names.join(", ")
    );
    Ok(exit::DONE)
}

/// An action as it can be read, on one line.
fn sentence(action: &Action) -> String {
    match action {
        Action::Exec { host, command } => format!("{host}$ {}", command.replace('\n', "; ")),
        Action::Api { call } => call.clone(),
        Action::Http { request } => request.clone(),
        Action::File { host, path, mode } => format!("{host}: write {path} ({mode})"),
    }
}

/// Where the screen is kept as it was left.
pub(super) fn memory(state: Option<&Path>) -> Option<std::path::PathBuf> {
    Store::open(state).ok().map(|store| store.home().join("screen.toml"))
}

pub async fn watch(state: Option<&Path>, run: &str, front: &Front) -> Result<u8, Failure> {
    let opened = open(state, run)?;
    let model = opened.model();
    let Opened { dir, events, .. } = &opened;
    let (sender, receiver) = mpsc::channel(1024);
    let (mut tail, mut last) = (Tail::new(dir), model.seq);
    let follower = tokio::spawn(async move {
        loop {
            // A line that a crash has torn is mended by whoever goes on with the run.
            let events = tail.read().unwrap_or_default();
            if events.is_empty() {
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            for event in events {
                if event.seq > last {
                    last = event.seq;
                    if sender.send(Recorded::new(event)).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
    let result = match front.format() {
        None => {
            let mut options = screen_options(front, &Checklists::builtin().map_err(Failure::other)?);
            options.access = ui::screen::Access::ReadOnly;
            options.memory = memory(state);
            options.screenshots = dir.join("screenshots");
            options.past = events.iter().cloned().map(Recorded::new).collect();
            options.doors = Some(Box::new(RunDoors::new(dir)));
            let (nobody, _) = mpsc::channel(1);
            let logs = Box::new(SegmentLogs(SegmentReader::new(dir)));
            ui::run(options, model, receiver, nobody, logs).await.map(drop).map_err(Failure::other)
        }
        Some(format) => {
            // The first line says in which format the others are.
            if let (Format::Json, Some(first)) = (format, events.first()) {
                say(&mut Lines::default(), &model, first, format)?;
            }
            print(model, receiver, format).await
        }
    };
    follower.abort();
    result.map(|()| exit::DONE)
}

async fn print(mut model: RunModel, mut events: mpsc::Receiver<Recorded>, format: Format) -> Result<(), Failure> {
    let mut lines = Lines::default();
    let mut over = model.closed.is_some();
    while !over {
        let Some(event) = events.recv().await else { break };
        reduce(&mut model, &event);
        say(&mut lines, &model, &event, format)?;
        over = matches!(event.data, Data::RunClosed { .. });
    }
    Ok(())
}

fn say(lines: &mut Lines, model: &RunModel, event: &Event, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => println!("{}", serde_json::to_string(event).map_err(Failure::other)?),
        Format::Plain => lines.of(model, event).iter().for_each(|line| println!("{line}")),
    }
    Ok(())
}

pub async fn replay(state: Option<&Path>, run: &str, front: &Front) -> Result<u8, Failure> {
    let opened = open(state, run)?;
    let Opened { dir, events, .. } = &opened;
    if let Some(format) = front.format() {
        let (mut model, mut lines) = (RunModel::default(), Lines::default());
        for event in events {
            reduce(&mut model, event);
            say(&mut lines, &model, event, format)?;
        }
        return Ok(exit::DONE);
    }
    let mut options = screen_options(front, &Checklists::builtin().map_err(Failure::other)?);
    options.memory = memory(state);
    options.replay = Some(events.iter().cloned().map(Recorded::new).collect());
    options.doors = Some(Box::new(RunDoors::new(dir)));
    let (nobody, _) = mpsc::channel(1);
    let (_silent, nothing) = mpsc::channel(1);
    let logs = Box::new(SegmentLogs(SegmentReader::new(dir)));
    ui::run(options, RunModel::default(), nothing, nobody, logs).await.map_err(Failure::other)?;
    Ok(exit::DONE)
}

pub fn status(state: Option<&Path>, run: &str, as_json: bool) -> Result<u8, Failure> {
    let opened = open(state, run)?;
    let (dir, model) = (&opened.dir, opened.model());
    let findings: Vec<_> = model.open_findings().iter().map(|record| record.finding.clone()).collect();
    if as_json {
        let stages: BTreeMap<_, _> = model
            .plan
            .stages
            .iter()
            .map(|stage| (stage.id.to_string(), format!("{:?}", model.stage_status(&stage.id).status).to_lowercase()))
            .collect();
        let closed = model
            .closed
            .as_ref()
            .map(|(outcome, exit, summary)| json!({ "outcome": outcome, "exit": exit, "summary": summary }));
        println!(
            "{}",
            json!({ "run": model.run, "dir": dir, "stages": stages, "closed": closed, "findings": findings })
        );
        return Ok(exit::DONE);
    }
    println!("{} {}.{} {}", model.run, model.cluster.name, model.cluster.base_domain, model.cluster.version);
    for stage in &model.plan.stages {
        let status = model.stage_status(&stage.id);
        println!("  {} {}", stage.id, format!("{:?}", status.status).to_lowercase());
    }
    for finding in findings {
        println!("  {}: {} | {}", finding.signature, finding.title, finding.line);
    }
    match &model.closed {
        Some((_, code, summary)) => println!("ended: {summary} (exit {code})"),
        None => println!("not ended; `bartizan watch {}` follows it, `bartizan run --resume` goes on", model.run),
    }
    Ok(exit::DONE)
}

pub fn runs(state: Option<&Path>) -> Result<u8, Failure> {
    for summary in Store::open(state).and_then(|store| store.list()).map_err(Failure::other)? {
        let cluster = &summary.model.cluster;
        let end = summary
            .model
            .closed
            .map_or_else(|| "not ended".to_owned(), |(_, exit, text)| format!("exit {exit}: {text}"));
        println!("{}  {}.{} {}  {end}", summary.run, cluster.name, cluster.base_domain, cluster.version);
    }
    Ok(exit::DONE)
}

pub async fn agent(request: &Path) -> Result<u8, Failure> {
    let text = std::fs::read(request).map_err(|error| Failure::usage(format!("{}: {error}", request.display())))?;
    let parsed =
        serde_json::from_slice(&text).map_err(|error| Failure::usage(format!("{}: {error}", request.display())))?;
    let cancel = CancellationToken::new();
    tokio::spawn(cancel_on_signals(cancel.clone()));
    Ok(agent::run(parsed, Net::default(), tokio::io::stdout(), cancel).await)
}

/// Ends work politely at SIGTERM and SIGINT.
pub(super) async fn cancel_on_signals(cancel: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    if let (Ok(mut term), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancel.cancel();
    }
}
