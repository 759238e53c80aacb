//! The fold: one event into the picture of a run. Pure and total.

use jiff::Timestamp;

use super::event::*;
use super::plan::StepId;
use super::progress::Rate;
use super::run::*;

/// Fold one event into the model. Total: events out of order, repeated or unknown never panic.
pub fn reduce(model: &mut RunModel, event: &Event) {
    if event.seq != 0 && event.seq <= model.seq {
        return;
    }
    model.seq = event.seq;
    let at = event.at;
    model.now = Some(model.now.map_or(at, |now| now.max(at)));
    match &event.data {
        Data::RunOpened { run, cluster, plan, operator, .. } => {
            model.run = run.clone();
            model.cluster = cluster.clone();
            model.operator = operator.clone();
            model.opened = Some(at);
            model.plan = plan.clone();
            model.steps = plan.steps().map(|step| (step.id.clone(), StepRecord::default())).collect();
            model.say(at, Level::Info, format!("run {run} opened by {operator}"));
        }
        Data::RunResumed { operator, from, .. } => {
            model.closed = None;
            for record in model.steps.values_mut() {
                if matches!(record.status, Status::Running | Status::Failed | Status::Cancelled) {
                    record.status = Status::Waiting;
                    record.progress = None;
                    record.retry_at = None;
                }
            }
            let place = from.as_ref().map_or(String::new(), |stage| format!(" from {stage}"));
            model.say(at, Level::Info, format!("run resumed{place} by {operator}"));
        }
        Data::RunClosed { outcome, exit, summary } => {
            model.closed = Some((*outcome, *exit, summary.clone()));
            let level = if *outcome == RunOutcome::Failed { Level::Error } else { Level::Info };
            model.say(at, level, summary.clone());
        }
        Data::StepStarted { step, attempt, host } => {
            let record = model.steps.entry(step.clone()).or_default();
            record.status = Status::Running;
            record.attempt = *attempt;
            if *attempt <= 1 {
                record.started = Some(at);
            }
            record.started.get_or_insert(at);
            record.attempt_started = Some(at);
            record.last_evidence = Some(at);
            record.ended = None;
            record.outcome = None;
            record.progress = None;
            record.retry_at = None;
            record.inferred = None;
            record.host = host.clone();
            let again = if *attempt > 1 { format!(" (attempt {attempt})") } else { String::new() };
            model.say(at, Level::Info, format!("{step} started{again}"));
        }
        Data::StepAction { step, action, exit, elapsed_ms } => {
            if let Some(record) = model.steps.get_mut(step) {
                record.last_evidence = Some(at);
                // The end of what was told of when it ran.
                let over = exit.is_some() || *elapsed_ms > 0;
                let runs = |known: &StepAction| known.runs() && known.action == *action;
                if over && let Some(place) = record.actions.iter().rposition(runs) {
                    record.actions.remove(place);
                }
                record.actions.push(StepAction { at, action: action.clone(), exit: *exit, elapsed_ms: *elapsed_ms });
                if record.actions.len() > 200 {
                    record.actions.remove(0);
                }
            }
        }
        Data::StepProgress { step, done, total, unit, note } => {
            if let Some(record) = model.steps.get_mut(step) {
                let mut rate = record.progress.take().map(|progress| progress.rate).unwrap_or_default();
                rate.add(at, *done);
                record.progress =
                    Some(StepProgress { done: *done, total: *total, unit: *unit, note: note.clone(), rate });
                record.last_evidence = Some(at);
            }
        }
        Data::StepEnded { step, attempt, outcome, evidence, .. } => {
            let record = model.steps.entry(step.clone()).or_default();
            record.attempt = *attempt;
            record.ended = Some(at);
            record.last_evidence = Some(at);
            record.status = status_of(outcome);
            record.outcome = Some(outcome.clone());
            record.evidence = evidence.clone();
            record.retry_at = None;
            let (level, text) = match outcome {
                Outcome::Success => (Level::Info, format!("{step} done")),
                Outcome::AlreadyTrue => (Level::Info, format!("{step} was already true")),
                Outcome::Warning { message } => (Level::Warn, format!("{step} done, with a warning: {message}")),
                Outcome::Skipped { why } => (Level::Info, format!("{step} skipped: {why}")),
                Outcome::Failed { causes } => (Level::Error, format!("{step} failed: {}", causes.join(": "))),
                Outcome::Cancelled => (Level::Warn, format!("{step} cancelled")),
            };
            model.say(at, level, text);
        }
        Data::StepRetry { step, next_attempt, after_ms, why } => {
            if let Some(record) = model.steps.get_mut(step) {
                let pause = jiff::SignedDuration::from_millis(i64::try_from(*after_ms).unwrap_or(i64::MAX));
                record.retry_at = at.checked_add(pause).ok();
                record.last_evidence = Some(at);
            }
            model.say(
                at,
                Level::Warn,
                format!("{step}: {why}; attempt {next_attempt} in {} s", after_ms.div_ceil(1000)),
            );
        }
        Data::StepInferred { step, outcome, because } => {
            let record = model.steps.entry(step.clone()).or_default();
            record.status = status_of(outcome);
            record.outcome = Some(outcome.clone());
            record.inferred = Some(because.clone());
        }
        Data::Rewound { stage, because } => {
            model.closed = None;
            let place = model.plan.stages.iter().position(|planned| planned.id == *stage);
            let ids: Vec<StepId> = place
                .map(|place| {
                    model
                        .plan
                        .stages
                        .iter()
                        .skip(place)
                        .flat_map(|stage| stage.steps.iter().map(|step| step.id.clone()))
                        .collect()
                })
                .unwrap_or_default();
            for id in ids {
                model.steps.insert(id, StepRecord::default());
            }
            // What was seen of the installation belongs to the machines that the rewind takes away.
            if stage.number() <= "08" {
                model.bootkube.clear();
                model.units.clear();
                model.installer = InstallerModel::default();
                model.cluster_state = ClusterModel::default();
            }
            model.say(at, Level::Warn, format!("going back to {stage}: {because}"));
        }
        Data::Drift { step, record_says, world_says } => {
            model.say(at, Level::Warn, format!("{step}: the record says {record_says}, the world says {world_says}"));
        }
        Data::Intent { object } => {
            let seq = event.seq;
            let before = model.objects.remove(object).unwrap_or_default();
            let record = match before.gone {
                None => ObjectRecord { order: seq, asked: Some(at), ..before },
                // A new one by the old one's name.
                Some(_) => ObjectRecord { id: before.id, order: seq, asked: Some(at), ..ObjectRecord::default() },
            };
            model.objects.insert(object.clone(), record);
        }
        Data::Created { object, id } => {
            let seq = event.seq;
            let record = model.objects.entry(object.clone()).or_default();
            record.id = Some(id.clone());
            record.gone = None;
            record.asked.get_or_insert(at);
            if record.order == 0 {
                record.order = seq;
            }
            model.say(at, Level::Info, format!("created {} {} ({id})", object.kind, object.name));
        }
        Data::Gone { object, id, proof } => {
            let record = model.objects.entry(object.clone()).or_default();
            record.id = Some(id.clone());
            record.gone = Some(proof.clone());
            record.ended = Some(at);
            record.waits_for = None;
            model.say(at, Level::Info, format!("gone: {} {} ({id}): {proof}", object.kind, object.name));
        }
        // An empty value takes the fact back.
        Data::Fact { key, value } if value.is_empty() => {
            model.facts.remove(key);
        }
        Data::Fact { key, value } => {
            model.facts.insert(key.clone(), value.clone());
        }
        Data::Lines { source, first, count, bytes } => {
            let log = model.logs.entry(source.clone()).or_default();
            log.lines = log.lines.max(first.saturating_sub(1).saturating_add(*count));
            log.bytes = log.bytes.saturating_add(*bytes);
            log.last = Some(at);
        }
        Data::Gap { source, lost, why } => {
            model.logs.entry(source.clone()).or_default().gaps.push((at, *lost, why.clone()));
            model.say(at, Level::Warn, format!("gap in {source}: {why}"));
        }
        Data::Link { link, state } => {
            let changed = model.links.get(link).is_none_or(|record| !same_kind(&record.state, state));
            let since = model.links.get(link).filter(|_| !changed).map_or(at, |record| record.since);
            model.links.insert(*link, LinkRecord { state: state.clone(), since, told: at });
            if changed {
                let name = format!("{link:?}").to_lowercase();
                match state {
                    LinkState::Up => model.say(at, Level::Info, format!("link {name} is up")),
                    LinkState::Retrying { why, .. } => {
                        model.say(at, Level::Warn, format!("link {name} lost, retrying: {why}"))
                    }
                    LinkState::Down { why } => model.say(at, Level::Error, format!("link {name} is down: {why}")),
                    LinkState::Idle => {}
                }
            }
        }
        Data::Sync(sync) => reduce_sync(model, at, sync),
        Data::Observed(observed) => reduce_observed(model, at, observed),
        Data::FindingOpened { finding } => match model.finding(&finding.id).filter(|record| record.cleared.is_none()) {
            Some(record) => {
                record.count = record.count.saturating_add(1);
                // Its cause may have been seen after it, and a line that says it better.
                record.finding = finding.clone();
            }
            None => {
                model.findings.push(FindingRecord {
                    finding: finding.clone(),
                    opened: at,
                    cleared: None,
                    count: 1,
                    checks: Vec::new(),
                });
                model.say(at, finding.severity, format!("finding {}: {}", finding.signature, finding.title));
            }
        },
        Data::FindingCleared { finding, because } => {
            if let Some(record) = model.finding(finding) {
                record.cleared = Some((at, because.clone()));
                let text = format!("finding {} cleared: {because}", record.finding.signature);
                model.say(at, Level::Info, text);
            }
        }
        Data::CheckResult { finding, check, state, action, evidence } => {
            if let Some(record) = model.finding(finding) {
                let result = CheckRecord {
                    check: check.clone(),
                    state: *state,
                    action: action.clone(),
                    evidence: evidence.clone(),
                };
                match record.checks.iter_mut().find(|known| known.check == *check) {
                    Some(known) => *known = result,
                    None => record.checks.push(result),
                }
            }
        }
        Data::Decision { command, args, operator, reason } => {
            let reason = reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
            model.say(at, Level::Info, format!("{operator} decided: {command} {}{reason}", args.join(" ")));
        }
        Data::Note { level, text } => model.say(at, *level, text.clone()),
        Data::Unknown => model.unknown_events += 1,
    }
}

fn status_of(outcome: &Outcome) -> Status {
    match outcome {
        Outcome::Success | Outcome::AlreadyTrue => Status::Done,
        Outcome::Warning { .. } => Status::Warned,
        Outcome::Skipped { .. } => Status::Skipped,
        Outcome::Failed { .. } => Status::Failed,
        Outcome::Cancelled => Status::Cancelled,
    }
}

fn same_kind(one: &LinkState, other: &LinkState) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

fn waiting(image: &PlannedImage, engine: Option<&String>) -> ImageRecord {
    ImageRecord {
        image: image.clone(),
        state: ImageState::Waiting,
        bytes: 0,
        rate: Rate::default(),
        attempt: 0,
        retries: 0,
        trouble: None,
        changed: None,
        engine: engine.cloned(),
    }
}

fn reduce_sync(model: &mut RunModel, at: Timestamp, event: &SyncEvent) {
    match event {
        SyncEvent::Planned { images, blobs, bytes, present_bytes } => {
            let sync = &mut model.sync;
            sync.planned = true;
            sync.blobs = *blobs;
            sync.bytes = *bytes;
            sync.present_bytes = *present_bytes;
            sync.proven = None;
            sync.left_out.clear();
            sync.moved = None;
            sync.images = images.iter().map(|image| waiting(image, None)).collect();
        }
        SyncEvent::Driven { engine, images } => {
            let sync = &mut model.sync;
            sync.planned = true;
            sync.proven = None;
            sync.left_out.clear();
            for image in images {
                match sync.images.iter_mut().find(|record| record.image.name == image.name) {
                    Some(record) => {
                        let known = std::mem::replace(record, waiting(image, Some(engine)));
                        // The engine knows no sizes; a plan of our own may.
                        if image.bytes == 0 {
                            record.image = known.image;
                        }
                    }
                    None => sync.images.push(waiting(image, Some(engine))),
                }
            }
        }
        SyncEvent::Progress { image, bytes, .. } => {
            if let Some(record) = model.sync.images.iter_mut().find(|record| record.image.name == *image) {
                record.bytes = record.bytes.max(*bytes);
                record.rate.add(at, *bytes);
                record.trouble = None;
                record.changed = Some(at);
            }
        }
        SyncEvent::Moved { bytes } => model.sync.moved = Some(*bytes),
        SyncEvent::ImageState { image, state, attempt } => {
            let mut failure = None;
            if let Some(record) = model.sync.images.iter_mut().find(|record| record.image.name == *image) {
                record.state = state.clone();
                record.attempt = *attempt;
                record.changed = Some(at);
                if *state != ImageState::Copying {
                    record.trouble = None;
                }
                if let ImageState::Failed { side, why, .. } = state {
                    failure = Some(format!("image {image} failed at the {side}: {why}"));
                }
            }
            if let Some(text) = failure {
                model.say(at, Level::Error, text);
            }
        }
        SyncEvent::Retry { image, side, class, .. } => {
            if let Some(record) = model.sync.images.iter_mut().find(|record| record.image.name == *image) {
                record.retries = record.retries.saturating_add(1);
                record.trouble = Some(format!("{side} {class}"));
            }
        }
        SyncEvent::Proven { images, missing, left_out } => {
            model.sync.proven = Some((*images, missing.clone()));
            model.sync.left_out.clone_from(left_out);
        }
    }
}

/// When something was so, by whoever was there. A clock that is ahead of ours says nothing of the future.
fn then(since: Option<Timestamp>, at: Timestamp) -> Timestamp {
    since.map_or(at, |since| since.min(at))
}

fn reduce_observed(model: &mut RunModel, at: Timestamp, observed: &Observed) {
    match observed {
        Observed::Installer { phase, message, deadline, since } => {
            let at = then(*since, at);
            let phases = &mut model.installer.phases;
            match phases.last_mut().filter(|last| last.name == *phase) {
                Some(last) => {
                    last.message = message.clone();
                    last.deadline = deadline.or(last.deadline);
                }
                None => {
                    if let Some(last) = phases.last_mut() {
                        last.ended = Some(at);
                    }
                    phases.push(InstallerPhase {
                        name: phase.clone(),
                        message: message.clone(),
                        started: at,
                        ended: None,
                        deadline: *deadline,
                    });
                }
            }
        }
        Observed::Bootkube { stage, state, evidence, since } => {
            let at = then(*since, at);
            let ended = (*state != BootStage::Running).then_some(at);
            match model.bootkube.iter_mut().find(|record| record.stage == *stage) {
                Some(record) => {
                    if *state == BootStage::Running && record.state != BootStage::Running {
                        record.starts = record.starts.saturating_add(1);
                        record.started = at;
                    }
                    record.state = *state;
                    record.ended = ended;
                    record.evidence = evidence.clone();
                }
                None => model.bootkube.push(BootStageRecord {
                    stage: stage.clone(),
                    state: *state,
                    started: at,
                    ended,
                    starts: 1,
                    evidence: evidence.clone(),
                }),
            }
        }
        Observed::Unit { host, unit, state, restarts } => {
            model.units.insert(
                (host.clone(), unit.clone()),
                UnitRecord { state: state.clone(), restarts: *restarts, changed: at },
            );
        }
        Observed::Operator(operator) => {
            let operators = &mut model.cluster_state.operators;
            let before = operators.get(&operator.name).and_then(|record| record.stable_since);
            let stable_since = (operator.progressing == Tri::False).then(|| before.unwrap_or(at));
            operators.insert(
                operator.name.clone(),
                OperatorRecord { operator: operator.clone(), changed: at, stable_since },
            );
        }
        Observed::OperatorGone { name } => {
            model.cluster_state.operators.remove(name);
        }
        Observed::ClusterVersion(version) => model.cluster_state.version = Some(version.clone()),
        Observed::Node { name, role, ready, version, message } => {
            let node = NodeRecord {
                role: role.clone(),
                ready: *ready,
                version: version.clone(),
                message: message.clone(),
                changed: at,
            };
            model.cluster_state.nodes.insert(name.clone(), node);
        }
        Observed::Csr { name, requester, signer, state } => {
            let csr = CsrRecord { requester: requester.clone(), signer: signer.clone(), state: *state, changed: at };
            model.cluster_state.csrs.insert(name.clone(), csr);
        }
        Observed::Machine { name, role, phase, message } => {
            let machine = MachineRecord { role: role.clone(), phase: phase.clone(), message: message.clone() };
            model.cluster_state.machines.insert(name.clone(), machine);
        }
        Observed::Pool { name, machines, ready, updated, degraded, message } => {
            let pool = PoolRecord {
                machines: *machines,
                ready: *ready,
                updated: *updated,
                degraded: *degraded,
                message: message.clone(),
                changed: at,
            };
            model.cluster_state.pools.insert(name.clone(), pool);
        }
        Observed::Pod(pod) => {
            model.cluster_state.pods.insert(format!("{}/{}", pod.namespace, pod.name), pod.clone());
        }
        Observed::Gone { what, name } => {
            let cluster = &mut model.cluster_state;
            match what {
                Vanished::Node => drop(cluster.nodes.remove(name)),
                Vanished::Csr => drop(cluster.csrs.remove(name)),
                Vanished::Machine => drop(cluster.machines.remove(name)),
                Vanished::Pool => drop(cluster.pools.remove(name)),
                Vanished::Pod => drop(cluster.pods.remove(name)),
            }
        }
        Observed::Warned(warning) => {
            let warnings = model.cluster_state.warnings.entry(warning.namespace.clone()).or_default();
            warnings.retain(|known| known.about != warning.about || known.reason != warning.reason);
            warnings.push(warning.clone());
            if warnings.len() > WARNING_LIMIT {
                warnings.remove(0);
            }
        }
        // Only what the run has asked for is the run's: an observation alone makes nothing its own.
        Observed::Resource { resource, state, standing, waits_for, hourly, .. } => {
            let Some(record) = model.objects.get_mut(resource).filter(|record| record.gone.is_none()) else { return };
            record.state.clone_from(state);
            record.waits_for.clone_from(waits_for);
            record.hourly = hourly.or(record.hourly);
            match standing {
                Standing::Making => record.ready = None,
                Standing::Ready => {
                    record.ready.get_or_insert(at);
                    record.leaving = None;
                }
                Standing::Leaving => {
                    record.leaving.get_or_insert(at);
                }
            }
        }
        Observed::Instance { name, id, state, address } => {
            let instance = InstanceRecord { id: id.clone(), state: state.clone(), address: address.clone() };
            model.cluster_state.instances.insert(name.clone(), instance);
        }
    }
}
