//! Which verbs are possible now, what they are aimed at, and how they ask.

use std::collections::BTreeMap;

use crate::engine::command::Command;
use crate::model::event::{CsrState, ImageState, RunOutcome};
use crate::model::fact;
use crate::model::plan::{StageId, StepId};
use crate::model::run::{RunModel, Status};

use super::command::{Danger, Verb};
use super::layout::{PaneId, Shape};
use super::logs::{ALL, LogView};
use super::panes;
use super::recovery::RecoveryText;
use super::screen::{Access, Lock, Screen, Target};
use super::update::chosen;

/// What the sync calls the release image.
const RELEASE: &str = "release";

/// A verb with its object, ready to be asked about.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    pub command: Command,
    pub danger: Danger,
    pub title: String,
    /// What will happen, to what, and by which commands.
    pub body: Vec<String>,
    /// For [`Danger::Destroy`]: the name to be typed.
    pub name: Option<String>,
}

impl Order {
    /// It has to be asked about. Changes can be agreed to beforehand; what destroys, and whom to trust, cannot.
    pub fn asks(&self, agreed: bool) -> bool {
        match self.danger {
            Danger::Safe => false,
            Danger::Change => !agreed || matches!(self.command, Command::Answer { .. }),
            Danger::Destroy => true,
        }
    }
}

/// Verbs that may take away what they cannot bring back, by what they are aimed at.
pub const MAY_DESTROY: [Verb; 3] = [Verb::Retry, Verb::Recover, Verb::LeaveOut];

fn is_there(state: &ImageState) -> bool {
    matches!(state, ImageState::Done | ImageState::Present | ImageState::Mounted)
}

/// Possible now, or why not.
pub fn enabled(verb: Verb, screen: &Screen, model: &RunModel) -> Result<(), String> {
    let no = |why: &str| Err(why.to_owned());
    let orders = matches!(
        verb,
        Verb::Retry
            | Verb::Skip
            | Verb::Cancel
            | Verb::StopAfter
            | Verb::RunChecks
            | Verb::Recover
            | Verb::Resync
            | Verb::LeaveOut
            | Verb::ApproveCsr
            | Verb::AcceptHostKey
    );
    if orders {
        return match screen.access {
            _ if screen.lock == Lock::Locked => no("this screen is locked; the lock command opens it"),
            _ if screen.lock == Lock::Sealed => no("this screen was started with --read-only"),
            Access::ReadOnly => no("this screen only watches"),
            Access::Replay => no("a record cannot be changed"),
            Access::Full if screen.place.back => no("this is the past; End returns to now"),
            Access::Full => match (&model.closed, aim(verb, screen, model)) {
                (Some((RunOutcome::Done, ..)), _) => no("the run is done"),
                (_, Ok(_)) => Ok(()),
                (_, Err(why)) => no(why),
            },
        };
    }
    match verb {
        Verb::FindNext | Verb::FindPrevious if screen.log.search.is_none() => no("nothing is searched for; / searches"),
        Verb::Lock if screen.lock == Lock::Sealed => no("this screen was started with --read-only"),
        Verb::Lock if screen.access != Access::Full => no("this screen changes nothing anyway"),
        Verb::Hide if screen.arrange(model).panes.len() < 2 => no("it is the only pane here"),
        Verb::MovePane if screen.arrange(model).panes.len() < 2 => no("there is no other pane here"),
        Verb::Wider | Verb::Narrower | Verb::Taller | Verb::Shorter if screen.zoom => {
            no("the pane has all of the screen")
        }
        Verb::Wider | Verb::Narrower if screen.seam(model, true).is_none() => no("no pane stands beside it"),
        Verb::Taller | Verb::Shorter if screen.seam(model, false).is_none() => no("no pane stands above or below it"),
        Verb::ShowAll if screen.shape == Shape::default() => no("all panes are where the layout has them"),
        Verb::NextError | Verb::PreviousError | Verb::NextWarning | Verb::PreviousWarning
            if screen.log.source().is_empty() =>
        {
            no("there is no log yet")
        }
        Verb::Context if screen.log.filter.is_none() && screen.log.source() != ALL => no("nothing is filtered"),
        Verb::Merge if LogView::sources(model).len() < 2 => no("there is no other log yet"),
        Verb::NextSource | Verb::PreviousSource if LogView::sources(model).len() < 2 => no("there is no other log yet"),
        Verb::Search
        | Verb::Filter
        | Verb::FindNext
        | Verb::FindPrevious
        | Verb::Context
        | Verb::Mark
        | Verb::Merge
        | Verb::Follow
        | Verb::Wrap
        | Verb::Times
        | Verb::Left
        | Verb::Right
            if screen.pane(model) != PaneId::Journal =>
        {
            no("this is for the journal; 3 goes there")
        }
        Verb::Open | Verb::Copy if chosen(screen, model).is_none() => no("nothing is here yet"),
        Verb::CopyCommand
            if chosen(screen, model).and_then(|target| panes::command_of(screen, model, &target)).is_none() =>
        {
            no("no command belongs to this row")
        }
        Verb::StepForward
        | Verb::StepBack
        | Verb::JumpForward
        | Verb::JumpBack
        | Verb::Play
        | Verb::NextFailure
        | Verb::NextStage
        | Verb::PreviousStage
        | Verb::Beginning
            if screen.place.total == 0 =>
        {
            no("nothing has been recorded yet")
        }
        _ => Ok(()),
    }
}

fn failed_step(model: &RunModel) -> Option<StepId> {
    model.steps.iter().find(|(_, record)| record.status == Status::Failed).map(|(id, _)| id.clone())
}

fn waiting_retry(model: &RunModel) -> Option<StepId> {
    model.steps.iter().find(|(_, record)| record.retry_at.is_some()).map(|(id, _)| id.clone())
}

/// The finding that the chosen row belongs to, else the likeliest one.
fn finding(screen: &Screen, model: &RunModel) -> Option<String> {
    let open = model.open_findings();
    let chosen = match screen.target(model, PaneId::Checks) {
        Some(
            Target::Finding(id)
            | Target::Evidence(id)
            | Target::Next(id)
            | Target::Check(id, _)
            | Target::Recovery(id, _),
        ) => Some(id),
        _ => None,
    };
    chosen
        .filter(|id| open.iter().any(|record| record.finding.id == *id))
        .or_else(|| open.first().map(|record| record.finding.id.clone()))
}

/// The command that a verb stands for now.
fn aim(verb: Verb, screen: &Screen, model: &RunModel) -> Result<Command, &'static str> {
    let target = chosen(screen, model);
    let chosen_step = match &target {
        Some(Target::Step(id)) => model.step(id).map(|record| (id.clone(), record.status)),
        _ => None,
    };
    match verb {
        Verb::Retry => match chosen_step {
            Some((id, Status::Failed | Status::Cancelled)) => Ok(Command::Retry(Some(id))),
            _ => failed_step(model)
                .or_else(|| waiting_retry(model))
                .map(|id| Command::Retry(Some(id)))
                .ok_or("no step has failed"),
        },
        Verb::Skip => match chosen_step {
            Some((id, Status::Failed | Status::Running)) => Ok(Command::Skip(id)),
            _ => failed_step(model)
                .or_else(|| model.current_step().map(|(id, _)| id.clone()))
                .map(Command::Skip)
                .ok_or("no step runs or has failed"),
        },
        Verb::Cancel if model.closed.is_some() => Err("the run has ended"),
        Verb::Cancel => model.current_step().map(|_| Command::Cancel).ok_or("no step runs"),
        Verb::StopAfter => {
            let stage = match target {
                Some(Target::Stage(stage)) => Some(stage),
                Some(Target::Step(step)) => Some(step.stage()),
                _ => model.current_stage().cloned(),
            };
            let open = |stage: &StageId| {
                matches!(model.stage_status(stage).status, Status::Waiting | Status::Running | Status::Failed)
            };
            match stage {
                Some(stage) if open(&stage) => Ok(Command::StopAfter(stage)),
                _ => Err("that stage is over"),
            }
        }
        Verb::RunChecks => {
            finding(screen, model).map(|finding| Command::RunChecks { finding }).ok_or("there is no open finding")
        }
        Verb::Recover => {
            let id = finding(screen, model).ok_or("there is no open finding")?;
            let open = model.open_findings().into_iter().find(|record| record.finding.id == id);
            // The row that is chosen, else the first that is offered.
            let recovery = match target {
                Some(Target::Recovery(of, recovery)) if of == id => Some(recovery),
                _ => open.and_then(|record| record.finding.recovery.clone()),
            };
            let recovery = recovery.ok_or("there is no recovery for this finding")?;
            Ok(Command::Recover { finding: id, recovery: Some(recovery) })
        }
        Verb::Resync => match target {
            Some(Target::Image(image)) => Ok(Command::Resync { image }),
            _ => Err("no image is chosen"),
        },
        Verb::LeaveOut => match target {
            Some(Target::Image(image)) if image == RELEASE => Err("the release image names all others"),
            Some(Target::Image(image)) => match model.sync.images.iter().find(|record| record.image.name == image) {
                Some(record) if record.state == ImageState::Skipped => {
                    Err("it is left out already; copy it again instead")
                }
                Some(record) if is_there(&record.state) => Err("it is in the mirror"),
                _ => Ok(Command::LeaveOut { image }),
            },
            _ => Err("no image is chosen"),
        },
        Verb::ApproveCsr => match target {
            Some(Target::Csr(name)) => match model.cluster_state.csrs.get(&name) {
                Some(record) if record.state == CsrState::Pending => Ok(Command::ApproveCsr { name }),
                _ => Err("this request does not wait for approval"),
            },
            _ => Err("no certificate signing request is chosen"),
        },
        Verb::AcceptHostKey => match model.fact(fact::HOST_KEY_SHOWN) {
            Some(shown) if model.fact(fact::HOST_KEY_ACCEPTED) != Some(shown) => {
                Ok(Command::Answer { fact: fact::HOST_KEY_ACCEPTED.to_owned(), value: shown.to_owned() })
            }
            _ => Err("no host key waits for a yes"),
        },
        _ => Err("this is not for the engine"),
    }
}

/// Most commands that a question shows.
const MOST: usize = 5;

/// How many things stand, of which kinds.
fn standing(model: &RunModel) -> String {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for (object, _) in model.standing_objects() {
        *kinds.entry(object.kind.as_str()).or_default() += 1;
    }
    let count: usize = kinds.values().sum();
    let kinds: Vec<String> = kinds.into_iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    if count == 0 {
        "the record knows of nothing that stands".to_owned()
    } else {
        format!("{count} things stand: {}", kinds.join(", "))
    }
}

/// What the verb would do, with the question that goes before it.
pub fn order(verb: Verb, screen: &Screen, model: &RunModel) -> Option<Order> {
    let command = aim(verb, screen, model).ok()?;
    let mut danger = verb.command().danger;
    let (title, mut body) = match &command {
        Command::Retry(step) => {
            let step = step.as_ref()?;
            if step.stage().number() == "10" {
                danger = Danger::Destroy;
            }
            let mut body = vec!["Its probe looks first at what exists; what is there is adopted.".to_owned()];
            if danger == Danger::Destroy {
                body.push(standing(model));
            }
            body.extend(screen.texts.commands(step, MOST));
            (format!("Try {step} again?"), body)
        }
        Command::Skip(step) => (
            format!("Leave {step} out?"),
            vec!["Later steps go on as if it were true. This is recorded with your name.".to_owned()],
        ),
        Command::Cancel => {
            let step = model.current_step().map_or(String::new(), |(id, _)| id.to_string());
            (
                format!("Stop {step} and the run?"),
                vec!["What was made stays; `run --resume` goes on from here.".to_owned()],
            )
        }
        Command::StopAfter(stage) => {
            (format!("End the run after {stage}?"), vec!["Nothing is taken away; `run --resume` goes on.".to_owned()])
        }
        Command::Recover { finding, recovery } => {
            let record = model.open_findings().into_iter().find(|record| record.finding.id == *finding)?;
            let recovery = recovery.as_ref().or(record.finding.recovery.as_ref())?;
            let text = RecoveryText::of(&record.finding, recovery, &screen.texts.previews)?;
            if text.destroys {
                danger = Danger::Destroy;
            }
            let mut body = vec![text.title, format!("for: {}", record.finding.title)];
            if text.destroys {
                body.push(standing(model));
            }
            body.extend(text.plan);
            ("Apply this recovery?".to_owned(), body)
        }
        Command::ApproveCsr { name } => {
            let csr = model.cluster_state.csrs.get(name)?;
            (
                format!("Approve {name}?"),
                vec![
                    format!("requester {}", csr.requester),
                    format!("signer {}", csr.signer),
                    format!("oc adm certificate approve {name}"),
                ],
            )
        }
        Command::Answer { value, .. } => (
            "Is this the bastion's host key?".to_owned(),
            vec![
                value.clone(),
                "Compare it with the instance's console. Whoever has this key will be trusted with the pull secret."
                    .into(),
            ],
        ),
        Command::Resync { image } => (format!("Copy {image} again?"), Vec::new()),
        Command::LeaveOut { image } => {
            // Others have the pull spec that they come from as their name.
            let of_release = !image.contains('/');
            let means = if of_release {
                danger = Danger::Destroy;
                "It is part of the release: a cluster cannot be installed or updated without it."
            } else {
                "What pulls it in the cluster will fail with \"manifest unknown\"."
            };
            let body = vec![
                means.to_owned(),
                "The proof of the mirror names it as missing. A step that has failed must be tried again.".to_owned(),
            ];
            (format!("Do without {image}?"), body)
        }
        Command::RunChecks { finding } => (format!("Run the checks of {finding}?"), Vec::new()),
        Command::Detach => ("Leave?".to_owned(), Vec::new()),
    };
    if danger != Danger::Safe {
        let cluster = &model.cluster;
        body.push(format!("cluster {}.{} in {}, run {}", cluster.name, cluster.base_domain, cluster.region, model.run));
    }
    let name = (danger == Danger::Destroy).then(|| model.cluster.name.clone());
    Some(Order { command, danger, title, body, name })
}
