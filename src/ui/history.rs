//! Looking back: the model as it was after any event, in a replay or on a live run.
//!
//! Keyframes at equal distances make a seek cost at most that many folds. There are never more than [`KEYFRAMES`]: a run
//! that grows beyond them has them twice as far apart, so that what they take of memory has an end.

use jiff::{SignedDuration, Timestamp};

use crate::model::event::{Data, Outcome, RunOutcome};
use crate::model::{RunModel, reduce};
use crate::record::Recorded;

/// Events between two keyframes at first.
const EVERY: usize = 1000;
/// Most keyframes that are kept.
const KEYFRAMES: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    By(isize),
    /// Twentieths of the run.
    Jump(isize),
    /// To this many thousandths of the run.
    Share(u16),
    NextFailure,
    NextStage,
    PreviousStage,
    Beginning,
    Now,
    Play,
    Faster,
    Slower,
}

/// Where in the history the screen is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// Events that the shown model has seen, of how many.
    pub position: usize,
    pub total: usize,
    /// The shown model is not the newest one.
    pub back: bool,
    pub playing: bool,
    pub speed: u32,
    pub at: Timestamp,
    pub began: Timestamp,
    pub ended: Timestamp,
    /// The first failures, in thousandths of the run: marks on the slider.
    pub failures: [Option<u16>; 4],
}

impl Default for Place {
    fn default() -> Self {
        let epoch = Timestamp::UNIX_EPOCH;
        Self {
            position: 0,
            total: 0,
            back: false,
            playing: false,
            speed: 1,
            at: epoch,
            began: epoch,
            ended: epoch,
            failures: [None; 4],
        }
    }
}

/// All events of a run and a place in them.
#[derive(Debug)]
pub struct History {
    events: Vec<Recorded>,
    /// One after each `every` events, from the beginning.
    keyframes: Vec<RunModel>,
    every: usize,
    newest: RunModel,
    stages: Vec<usize>,
    failures: Vec<usize>,
    last_stage: Option<String>,
    /// Events seen by the model on the screen; none: the newest.
    position: Option<usize>,
    shown: RunModel,
    clock: Option<Timestamp>,
    playing: bool,
    speed: u32,
}

impl History {
    /// A history whose events are `past`; `model` is their fold, or a fold over more than they are.
    pub fn new(past: Vec<Recorded>, model: RunModel) -> Self {
        let base = if past.is_empty() { model.clone() } else { RunModel::default() };
        let mut history = History {
            events: Vec::with_capacity(past.len()),
            keyframes: vec![base.clone()],
            every: EVERY,
            newest: base,
            stages: Vec::new(),
            failures: Vec::new(),
            last_stage: None,
            position: None,
            shown: RunModel::default(),
            clock: None,
            playing: false,
            speed: 1,
        };
        for event in past {
            history.push(event);
        }
        if model.seq > history.newest.seq {
            history.newest = model;
        }
        history
    }

    /// A recorded run, opened at its beginning and playing.
    pub fn replay(events: Vec<Recorded>) -> Self {
        let mut history = Self::new(events, RunModel::default());
        history.go(1);
        history.playing = true;
        history
    }

    /// Fold a new event in.
    pub fn push(&mut self, event: Recorded) {
        let index = self.events.len();
        reduce(&mut self.newest, &event);
        match &event.data {
            Data::StepStarted { step, .. } => {
                let stage = step.stage();
                if self.last_stage.as_deref() != Some(stage.as_str()) {
                    self.stages.push(index);
                    self.last_stage = Some(stage.0);
                }
            }
            Data::StepEnded { outcome: Outcome::Failed { .. }, .. }
            | Data::FindingOpened { .. }
            | Data::RunClosed { outcome: RunOutcome::Failed, .. } => self.failures.push(index),
            _ => {}
        }
        self.events.push(event);
        if self.events.len().is_multiple_of(self.every) {
            self.keyframes.push(self.newest.clone());
        }
        if self.keyframes.len() > KEYFRAMES {
            let mut place = 0;
            self.keyframes.retain(|_| {
                place += 1;
                place % 2 == 1
            });
            self.every *= 2;
        }
    }

    /// The model for the screen.
    pub fn model(&self) -> &RunModel {
        if self.position.is_some() { &self.shown } else { &self.newest }
    }

    pub fn newest(&self) -> &RunModel {
        &self.newest
    }

    /// The model after `count` events.
    pub fn at(&self, count: usize) -> RunModel {
        let count = count.min(self.events.len());
        let frame = (count / self.every).min(self.keyframes.len().saturating_sub(1));
        let mut model = self.keyframes.get(frame).cloned().unwrap_or_default();
        for event in self.events.iter().take(count).skip(frame * self.every) {
            reduce(&mut model, event);
        }
        model
    }

    fn go(&mut self, count: usize) {
        let count = count.clamp(usize::from(!self.events.is_empty()), self.events.len());
        // One step forward is one fold.
        if self.position == count.checked_sub(1) && self.position.is_some() {
            if let Some(event) = self.events.get(count - 1) {
                reduce(&mut self.shown, event);
            }
        } else if self.position != Some(count) {
            self.shown = self.at(count);
        }
        self.position = Some(count);
        self.clock = self.shown.now;
    }

    fn here(&self) -> usize {
        self.position.unwrap_or(self.events.len())
    }

    pub fn seek(&mut self, seek: Seek) {
        let (here, total) = (self.here(), self.events.len());
        let jump = |by: isize| by.saturating_mul(isize::try_from(total.div_ceil(20)).unwrap_or(1));
        match seek {
            Seek::By(by) => self.go(here.saturating_add_signed(by)),
            Seek::Jump(by) => self.go(here.saturating_add_signed(jump(by))),
            Seek::Share(share) => self.go(total.saturating_mul(usize::from(share.min(1000))) / 1000),
            Seek::NextFailure => {
                if let Some(index) = self.failures.iter().find(|index| **index + 1 > here) {
                    self.go(index + 1);
                    self.playing = false;
                }
            }
            Seek::NextStage => {
                if let Some(index) = self.stages.iter().find(|index| **index + 1 > here) {
                    self.go(index + 1);
                }
            }
            Seek::PreviousStage => {
                let index = self.stages.iter().rfind(|index| **index + 1 < here).copied().unwrap_or(0);
                self.go(index + 1);
            }
            Seek::Beginning => self.go(1),
            Seek::Now => {
                self.position = None;
                self.playing = false;
                self.clock = None;
            }
            Seek::Play => {
                self.playing = !self.playing;
                if self.playing && self.here() >= total {
                    self.go(1);
                } else if self.playing {
                    self.go(here);
                }
            }
            Seek::Faster => self.speed = (self.speed * 2).min(64),
            Seek::Slower => self.speed = (self.speed / 2).max(1),
        }
    }

    /// Let `passed` go by, at the speed of the play. True when the place changed.
    pub fn play(&mut self, passed: std::time::Duration) -> bool {
        let (true, Some(clock)) = (self.playing, self.clock) else { return false };
        let passed =
            SignedDuration::try_from(passed).unwrap_or_default().saturating_mul(i32::try_from(self.speed).unwrap_or(1));
        let clock = clock.checked_add(passed).unwrap_or(clock);
        let mut here = self.here();
        while let Some(event) = self.events.get(here).filter(|event| event.at <= clock) {
            reduce(&mut self.shown, event);
            here += 1;
        }
        self.position = Some(here);
        self.clock = Some(clock);
        if here >= self.events.len() {
            self.playing = false;
        }
        true
    }

    pub fn playing(&self) -> bool {
        self.playing
    }

    /// The time that the screen shows; none: the wall clock decides.
    pub fn clock(&self) -> Option<Timestamp> {
        self.position.and(self.clock)
    }

    pub fn place(&self) -> Place {
        let time = |event: Option<&Recorded>| event.map_or(Timestamp::UNIX_EPOCH, |event| event.at);
        let total = self.events.len();
        let mut failures = [None; 4];
        for (slot, index) in failures.iter_mut().zip(self.failures.iter()) {
            *slot = u16::try_from(index * 1000 / total.max(1)).ok();
        }
        Place {
            position: self.here(),
            total,
            back: self.position.is_some_and(|position| position < total),
            playing: self.playing,
            speed: self.speed,
            at: self.clock().or(self.model().now).unwrap_or(Timestamp::UNIX_EPOCH),
            began: time(self.events.first()),
            ended: time(self.events.last()),
            failures,
        }
    }
}
