//! What the operator's own view is made of. It is no part of the run: losing it loses nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::engine::command::Command;
use crate::model::event::{Action, Finding, Level, Object};
use crate::model::plan::{StageId, StepId};
use crate::model::run::RunModel;
use crate::record::Recorded;

use super::attention::{Call, Progress};
use super::command::{Context, Verb};
use super::doors::Door;
use super::glyph::Glyphs;
use super::history::{Place, Seek};
use super::keymap::{Key, Keymap};
use super::layout::{Arrangement, Layouts, PaneId, Phase, Seam, Shape};
use super::logs::{Ask, LogView, Numbered};
use super::panes;
use super::recovery::Previews;
use super::trend::Trend;

/// What a row is about. A chosen row stays chosen when the rows move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Stage(StageId),
    Step(StepId),
    Image(String),
    Phase(usize),
    Boot(String),
    Unit(String, String),
    ClusterVersion,
    Operator(String),
    Node(String),
    Machine(String),
    Pool(String),
    Csr(String),
    Resource(Object),
    Finding(String),
    /// The line that proves a finding.
    Evidence(String),
    /// What to do first about a finding.
    Next(String),
    /// Finding, check.
    Check(String, String),
    /// A finding and one of its recoveries.
    Recovery(String, String),
    /// By its place in the model.
    Activity(usize),
    /// A line of the log in view, by number.
    Line(u64),
}

/// What a screen may do to the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Access {
    #[default]
    Full,
    /// Another process drives the run.
    ReadOnly,
    /// There is no run any more, only its record.
    Replay,
}

/// What the pure part is told.
#[derive(Debug, Clone)]
pub enum Input {
    Key(Key, Timestamp),
    Paste(String),
    Resize(u16, u16),
    /// The terminal gained or lost the focus.
    Focus(bool),
    Tick(Timestamp),
    /// Log lines that were asked for.
    Lines {
        source: String,
        first: u64,
        lines: Vec<Numbered>,
    },
    /// The line that was looked for: its log, its number there, and its number among all logs.
    Found {
        source: String,
        number: u64,
        merged: u64,
    },
    Mouse(Pointer),
    /// This event has just been folded into the model.
    Recorded(Recorded),
    /// Where in the history the model on the screen is.
    Moved(Place),
    /// How an effect went.
    Told(Level, String),
}

/// What a mouse did, and in which cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pointer {
    Click {
        x: u16,
        y: u16,
    },
    /// Moved with the button down.
    Drag {
        x: u16,
        y: u16,
    },
    Release,
    Wheel {
        x: u16,
        y: u16,
        down: bool,
    },
}

/// Whether this screen may change the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Lock {
    #[default]
    Open,
    /// By a key, which also opens it.
    Locked,
    /// From the start, for good.
    Sealed,
}

/// What the pure part wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    Send(Command),
    Log(Ask),
    Copy(String),
    /// Write this text to a file of this name.
    Save {
        name: String,
        text: String,
    },
    /// Take the mouse, or leave it to the terminal.
    Mouse(bool),
    Screenshot,
    NextTheme,
    Notify {
        title: String,
        body: String,
    },
    Title(String),
    /// How far the run is, for the taskbar.
    Progress(Progress),
    Seek(Seek),
    Suspend,
    /// Leave the terminal to another program until it ends.
    Visit(Door),
    Redraw,
    Exit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptKind {
    Search,
    Filter,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Then {
    Send(Command),
    Leave,
}

/// A question before something is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Confirm {
    pub title: String,
    pub body: Vec<String>,
    /// What has to be typed: the name of the cluster whose things are destroyed.
    pub name: Option<String>,
    pub then: Then,
    /// A key counts only when the keyboard has been quiet for a moment: a held key confirms nothing.
    pub quiet_since: Timestamp,
    pub typed: String,
    /// The button on which Enter would fall.
    pub yes: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Overlay {
    Help {
        scroll: usize,
        /// What is looked for, and whether it is still being typed.
        text: String,
        typing: bool,
    },
    Palette {
        text: String,
        selected: usize,
    },
    Confirm(Confirm),
    Detail {
        target: Target,
        scroll: usize,
        /// The paragraph that is chosen to be copied alone.
        field: Option<usize>,
    },
    Prompt {
        kind: PromptKind,
        text: String,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Toast {
    pub level: Level,
    pub text: String,
    pub until: Timestamp,
}

/// Names that the model knows only by id.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Texts {
    /// Titles of checks by checklist and check: ids of checks count within their checklist only.
    pub checks: BTreeMap<(String, String), String>,
    /// What each step will do, as `bartizan plan` prints it.
    pub plans: BTreeMap<StepId, Vec<Action>>,
    /// What recoveries would do, where the run's world is known.
    pub previews: Previews,
}

impl Texts {
    /// What a step will do, one sentence each; more than `most` are counted.
    pub fn commands(&self, step: &StepId, most: usize) -> Vec<String> {
        let actions = self.plans.get(step).map_or(&[][..], Vec::as_slice);
        let mut out: Vec<String> = actions
            .iter()
            .take(most)
            .map(|action| format!("{}: {}", panes::place(action), panes::typed(action)))
            .collect();
        if actions.len() > most {
            out.push(format!("and {} more; the step's own page has them all", actions.len() - most));
        }
        out
    }

    /// The title of a check of a finding, else its id.
    pub fn check<'a>(&'a self, finding: &Finding, check: &'a str) -> &'a str {
        let list = finding.checklist.clone().unwrap_or_default();
        self.checks.get(&(list, check.to_owned())).map_or(check, String::as_str)
    }
}

/// The operator's view.
#[derive(Debug, Clone)]
pub struct Screen {
    pub size: (u16, u16),
    /// The pane that the operator chose; none: the one that matters now.
    pub focus: Option<PaneId>,
    pub zoom: bool,
    /// Panes that are hidden or have changed places.
    pub shape: Shape,
    pub cursors: BTreeMap<PaneId, Target>,
    pub log: LogView,
    pub overlay: Option<Overlay>,
    pub timeline: bool,
    pub place: Place,
    /// Keys of a sequence that is not complete.
    pub pending: Vec<Key>,
    pub toast: Option<Toast>,
    pub terminal_focused: bool,
    pub notify: bool,
    pub notified: Option<Timestamp>,
    /// A call that waits for its turn.
    pub call: Option<Call>,
    pub title: String,
    pub progress: Option<Progress>,
    pub access: Access,
    pub lock: Lock,
    /// The mouse is ours.
    pub mouse: bool,
    /// The line between panes that the mouse has taken hold of.
    pub grip: Option<Seam>,
    /// Nothing moves by itself: clocks show minutes, and what comes is drawn once a second.
    pub calm: bool,
    /// Changes were agreed to beforehand: only what destroys is asked about.
    pub agreed: bool,
    /// Where logs and panes are saved.
    pub saves: PathBuf,
    /// How fast things moved lately.
    pub trend: Trend,
    pub interrupted: Option<Timestamp>,
    pub now: Timestamp,
    pub glyphs: Glyphs,
    pub keymap: Keymap,
    pub layouts: Layouts,
    pub texts: Texts,
}

impl Screen {
    pub fn new(keymap: Keymap, layouts: Layouts, glyphs: Glyphs) -> Self {
        Self {
            size: (80, 24),
            focus: None,
            zoom: false,
            shape: Shape::default(),
            cursors: BTreeMap::new(),
            log: LogView::default(),
            overlay: None,
            timeline: false,
            place: Place::default(),
            pending: Vec::new(),
            toast: None,
            terminal_focused: true,
            notify: true,
            notified: None,
            call: None,
            title: String::new(),
            progress: None,
            access: Access::Full,
            lock: Lock::Open,
            mouse: false,
            grip: None,
            calm: false,
            agreed: false,
            saves: PathBuf::from("."),
            trend: Trend::default(),
            interrupted: None,
            now: Timestamp::UNIX_EPOCH,
            glyphs,
            keymap,
            layouts,
            texts: Texts::default(),
        }
    }

    /// The focused pane.
    pub fn pane(&self, model: &RunModel) -> PaneId {
        self.focus.unwrap_or_else(|| {
            if model.open_findings().iter().any(|record| record.finding.severity == Level::Error) {
                return PaneId::Checks;
            }
            match Phase::of(model) {
                Phase::Resources => PaneId::Resources,
                Phase::Sync => PaneId::Sync,
                Phase::Install if model.closed.is_some() => PaneId::Pipeline,
                Phase::Install if model.cluster_state.operators.is_empty() && !model.bootkube.is_empty() => {
                    PaneId::Bootkube
                }
                Phase::Install if !model.cluster_state.operators.is_empty() => PaneId::Operators,
                _ => PaneId::Pipeline,
            }
        })
    }

    pub fn arrange(&self, model: &RunModel) -> Arrangement {
        let area = ratatui::layout::Rect::new(0, 0, self.size.0, self.size.1);
        let zoom = self.zoom;
        self.layouts.arrange(area, Phase::of(model), self.pane(model), zoom, self.timeline, &self.shape)
    }

    /// The lines between panes that can be moved.
    pub fn seams(&self, model: &RunModel) -> Vec<Seam> {
        if self.zoom {
            return Vec::new();
        }
        let area = ratatui::layout::Rect::new(0, 0, self.size.0, self.size.1);
        self.layouts.seams(area, Phase::of(model), self.timeline, &self.shape)
    }

    /// The line that gives the focused pane more or less room, and whether it moves back for more.
    pub fn seam(&self, model: &RunModel, upright: bool) -> Option<(Seam, bool)> {
        let rect = self.arrange(model).rect(self.pane(model))?;
        Seam::of(self.seams(model), rect, upright)
    }

    /// Rows inside the borders of a pane.
    pub fn rows_in(&self, model: &RunModel, pane: PaneId) -> usize {
        self.arrange(model).rect(pane).map_or(1, |rect| usize::from(rect.height.saturating_sub(2)).max(1))
    }

    /// Key tables that count now, the nearest first.
    pub fn contexts(&self, model: &RunModel) -> Vec<Context> {
        let mut contexts = vec![Context::Pane(self.pane(model)), Context::Global];
        if self.timeline {
            contexts.insert(0, Context::Timeline);
        }
        contexts
    }

    /// The chosen row of a pane: what the operator chose if it is still there, else the row that matters.
    pub fn target(&self, model: &RunModel, pane: PaneId) -> Option<Target> {
        if pane == PaneId::Journal {
            return self.log.current().map(|(entry, _)| Target::Line(entry.last));
        }
        let targets = panes::targets(pane, model);
        self.cursors
            .get(&pane)
            .filter(|chosen| targets.contains(chosen))
            .cloned()
            .or_else(|| targets.get(panes::resting(pane, model, &targets)).cloned())
    }

    pub fn tell(&mut self, level: Level, text: impl Into<String>) {
        let until = self.now.checked_add(jiff::SignedDuration::from_secs(5)).unwrap_or(self.now);
        self.toast = Some(Toast { level, text: text.into(), until });
    }

    /// Something that has to be read: it stays for a while.
    pub fn warn(&mut self, text: impl Into<String>) {
        let until = self.now.checked_add(jiff::SignedDuration::from_secs(30)).unwrap_or(self.now);
        self.toast = Some(Toast { level: Level::Warn, text: text.into(), until });
    }

    /// The verbs of the palette that match, best first.
    pub fn palette(&self, text: &str) -> Vec<Verb> {
        super::overlays::palette::matches(text)
    }
}
