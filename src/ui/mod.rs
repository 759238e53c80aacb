//! The cockpit: a [`RunModel`] on a terminal, and keys turned into commands.
//!
//! Two pure functions do the work: [`update`] changes the operator's own view and returns effects, [`draw`] turns model,
//! view, theme and time into cells. [`run`] is the thin part around them that owns the terminal. Nothing here knows SSH,
//! a cloud, a cluster or files other than a screenshot; log lines come through [`Logs`].
//!
//! [`RunModel`]: crate::model::run::RunModel

pub mod attention;
pub mod background;
pub mod command;
pub mod doors;
pub mod draw;
pub mod glyph;
pub mod history;
pub mod keymap;
pub mod layout;
pub mod logs;
pub mod memory;
pub mod notify;
pub mod overlays;
pub mod panes;
pub mod recovery;
mod run;
pub mod screen;
pub mod screenshot;
pub mod search;
mod signals;
pub mod terminal;
pub mod text;
pub mod theme;
pub mod trend;
mod update;
pub mod verbs;
pub mod widgets;

use std::path::PathBuf;

pub use draw::{draw, render};
pub use run::run;
pub use screen::{Access, Effect, Input, Screen, Texts};
pub use signals::Signals;
pub use update::update;

use crate::model::event::LogLine;
use crate::record::Recorded;

use background::Background;
use glyph::Glyphs;
use theme::{Depth, Themes};

/// Lines of the logs of a run, by source and number.
pub trait Logs: Send {
    /// At most `count` lines of `source`, the first of them number `first` (from 1). Fewer when there are no more.
    fn read(&mut self, source: &str, first: u64, count: usize) -> Vec<LogLine>;
}

/// How the operator left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The run was not over; the engine has been told to detach.
    Detached,
    /// The run was over, or this screen only watched it.
    Closed,
    /// By this signal. The engine has been told to detach.
    Signal(i32),
}

#[derive(Debug, thiserror::Error)]
pub enum UiError {
    #[error("the terminal: {0}")]
    Terminal(#[from] std::io::Error),
    #[error(transparent)]
    Keymap(#[from] keymap::KeymapError),
    #[error(transparent)]
    Theme(#[from] theme::ThemeError),
    #[error(transparent)]
    Layout(#[from] layout::LayoutError),
}

/// What the environment says of the terminal.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TerminalFacts {
    pub term: String,
    pub colorterm: String,
    /// `LC_ALL`, else `LC_CTYPE`, else `LANG`.
    pub locale: String,
    pub no_color: bool,
    /// What `COLORFGBG` says; the terminal itself is asked when the screen opens.
    pub background: Background,
    pub kind: notify::Kind,
    /// Over SSH frames are rarer.
    pub ssh: bool,
    pub tmux: bool,
}

impl TerminalFacts {
    pub fn from_env() -> Self {
        let get = |name: &str| std::env::var(name).unwrap_or_default();
        let first = |names: [&str; 3]| names.into_iter().map(get).find(|value| !value.is_empty()).unwrap_or_default();
        Self {
            term: get("TERM"),
            colorterm: get("COLORTERM"),
            locale: first(["LC_ALL", "LC_CTYPE", "LANG"]),
            // https://no-color.org: present and not empty; https://bixense.com/clicolors: zero.
            no_color: !get("NO_COLOR").is_empty() || get("CLICOLOR") == "0",
            background: Background::of_variable(&get("COLORFGBG")),
            kind: notify::Kind::from_env(),
            ssh: !get("SSH_TTY").is_empty(),
            tmux: !get("TMUX").is_empty(),
        }
    }
}

/// How the cockpit starts.
#[derive(Debug, Default)]
pub struct UiOptions {
    /// Name of a theme; none: the one switched to last, else `light` or `dark` as the terminal is, else `neutral`.
    pub theme: Option<String>,
    /// ASCII marks; none: as `TERM` and the locale allow.
    pub ascii: Option<bool>,
    /// The operator's own key table: name of the file, its text.
    pub keymap: Option<(String, String)>,
    /// The operator's own layouts: name of the file, its text.
    pub layouts: Option<(String, String)>,
    pub themes: Themes,
    /// What was wrong with the operator's own files, to be said at the start.
    pub problems: Vec<String>,
    /// Where the screen is kept as it was left, for the next time.
    pub memory: Option<PathBuf>,
    /// This screen may change nothing.
    pub read_only: bool,
    /// Nor may it in a run of one of these clusters.
    pub sealed: Vec<String>,
    pub access: Access,
    /// How a person is called when a run fails, waits for a decision, or ends and nobody looks.
    pub notify: notify::Way,
    /// Ways to other programs and back.
    pub doors: Option<Box<dyn doors::Doors>>,
    /// Directory for screenshots; it is made when the first one is taken.
    pub screenshots: PathBuf,
    /// Show this record instead of a live run.
    pub replay: Option<Vec<Recorded>>,
    /// Events of which the initial model is the fold, so that a live run can be looked back at from its beginning.
    pub past: Vec<Recorded>,
    pub texts: Texts,
    pub terminal: TerminalFacts,
    /// Listened to since before the run was taken hold of; none: from now on.
    pub signals: Option<Signals>,
    /// Nothing is to move by itself.
    pub reduced_motion: bool,
    /// Changes were agreed to beforehand; what destroys is asked about all the same.
    pub agreed: bool,
}

impl UiOptions {
    /// Options for the terminal that this process has.
    pub fn from_env() -> Self {
        Self { screenshots: PathBuf::from("."), terminal: TerminalFacts::from_env(), ..Self::default() }
    }

    /// The theme for a terminal of which the background is known, or not.
    pub fn theme(&self) -> &str {
        self.theme.as_deref().unwrap_or(match self.terminal.background {
            Background::Light => "light",
            Background::Dark => "dark",
            Background::Unknown => "neutral",
        })
    }

    /// The terminal has to be asked about its background: nobody chose a theme, and it is one that answers.
    fn asks(&self) -> bool {
        let mute = matches!(self.terminal.term.as_str(), "" | "dumb" | "linux") || self.terminal.term.starts_with("vt");
        self.theme.is_none() && !mute && self.depth() > Depth::Ansi16
    }

    pub fn depth(&self) -> Depth {
        Depth::detect(self.terminal.no_color, &self.terminal.colorterm, &self.terminal.term)
    }

    pub fn glyphs(&self) -> Glyphs {
        match self.ascii {
            Some(true) => Glyphs::ASCII,
            Some(false) => Glyphs::UNICODE,
            None => Glyphs::for_terminal(&self.terminal.term, &self.terminal.locale),
        }
    }
}
