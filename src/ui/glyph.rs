//! The marks on the screen, for terminals that can draw them and for those that cannot.

use ratatui::symbols::border;

use crate::model::event::{BootStage, CheckState, ImageState, Level, LinkState};
use crate::model::run::Status;

use super::theme::Token;

/// What a row says about itself. Each one has a glyph, a word and a colour; the colour never stands alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    Ok,
    Run,
    Wait,
    Warn,
    Fail,
    Skip,
    Unknown,
    Stale,
}

impl Mark {
    pub const ALL: [Mark; 8] =
        [Mark::Ok, Mark::Run, Mark::Wait, Mark::Warn, Mark::Fail, Mark::Skip, Mark::Unknown, Mark::Stale];

    pub fn word(self) -> &'static str {
        match self {
            Mark::Ok => "ok",
            Mark::Run => "run",
            Mark::Wait => "wait",
            Mark::Warn => "warn",
            Mark::Fail => "fail",
            Mark::Skip => "skip",
            Mark::Unknown => "unknown",
            Mark::Stale => "stale",
        }
    }

    pub fn token(self) -> Token {
        match self {
            Mark::Ok => Token::Ok,
            Mark::Run => Token::Run,
            Mark::Wait => Token::Wait,
            Mark::Warn => Token::Warn,
            Mark::Fail => Token::Fail,
            Mark::Skip => Token::Skip,
            Mark::Unknown => Token::Unknown,
            Mark::Stale => Token::Stale,
        }
    }
}

impl From<Status> for Mark {
    fn from(status: Status) -> Self {
        match status {
            Status::Waiting => Mark::Wait,
            Status::Running => Mark::Run,
            Status::Done => Mark::Ok,
            Status::Warned => Mark::Warn,
            Status::Skipped => Mark::Skip,
            Status::Failed => Mark::Fail,
            Status::Cancelled => Mark::Stale,
        }
    }
}

impl From<BootStage> for Mark {
    fn from(stage: BootStage) -> Self {
        match stage {
            BootStage::Running => Mark::Run,
            BootStage::Done => Mark::Ok,
            BootStage::Failed => Mark::Fail,
            BootStage::Warned => Mark::Warn,
        }
    }
}

impl From<CheckState> for Mark {
    fn from(state: CheckState) -> Self {
        match state {
            CheckState::Running => Mark::Run,
            CheckState::Passed => Mark::Ok,
            CheckState::Failed => Mark::Fail,
            CheckState::Unknown => Mark::Unknown,
        }
    }
}

impl From<&ImageState> for Mark {
    fn from(state: &ImageState) -> Self {
        match state {
            ImageState::Waiting => Mark::Wait,
            ImageState::Copying => Mark::Run,
            ImageState::Present | ImageState::Mounted | ImageState::Done => Mark::Ok,
            ImageState::Skipped => Mark::Skip,
            ImageState::Failed { .. } => Mark::Fail,
        }
    }
}

impl From<Level> for Mark {
    fn from(level: Level) -> Self {
        match level {
            Level::Debug | Level::Info => Mark::Ok,
            Level::Warn => Mark::Warn,
            Level::Error => Mark::Fail,
        }
    }
}

/// A set of glyphs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Glyphs {
    pub ascii: bool,
    pub ellipsis: &'static str,
    pub dot: &'static str,
    pub dash: &'static str,
    pub times: &'static str,
    pub bar: &'static str,
    pub rest: &'static str,
    pub sub: &'static str,
    pub border: border::Set<'static>,
}

const ASCII_BORDER: border::Set<'static> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

impl Glyphs {
    pub const UNICODE: Glyphs = Glyphs {
        ascii: false,
        ellipsis: "…",
        dot: "·",
        dash: "–",
        times: "×",
        bar: "█",
        rest: "░",
        sub: "└",
        border: border::ROUNDED,
    };
    pub const ASCII: Glyphs = Glyphs {
        ascii: true,
        ellipsis: "..",
        dot: "-",
        dash: "-",
        times: "x",
        bar: "#",
        rest: ".",
        sub: "`-",
        border: ASCII_BORDER,
    };

    pub fn mark(&self, mark: Mark) -> &'static str {
        let (unicode, ascii) = match mark {
            Mark::Ok => ("✔", "[ok]"),
            Mark::Run => ("▶", "[>>]"),
            Mark::Wait => ("…", "[..]"),
            Mark::Warn => ("!", "[!!]"),
            Mark::Fail => ("✖", "[XX]"),
            Mark::Skip => ("-", "[--]"),
            Mark::Unknown => ("?", "[??]"),
            Mark::Stale => ("~", "[~~]"),
        };
        if self.ascii { ascii } else { unicode }
    }

    pub fn link(&self, state: Option<&LinkState>) -> (&'static str, Token) {
        let (unicode, ascii, token) = match state {
            Some(LinkState::Up) => ("●", "(*)", Token::LinkUp),
            Some(LinkState::Retrying { .. }) => ("◐", "(~)", Token::LinkRetry),
            Some(LinkState::Down { .. }) => ("✖", "(X)", Token::LinkDown),
            Some(LinkState::Idle) | None => ("○", "( )", Token::Muted),
        };
        (if self.ascii { ascii } else { unicode }, token)
    }

    /// Unicode unless the terminal or the locale says that it cannot.
    pub fn for_terminal(term: &str, locale: &str) -> Glyphs {
        let locale = locale.to_ascii_lowercase();
        let utf8 = locale.contains("utf-8") || locale.contains("utf8");
        if utf8 && !matches!(term, "linux" | "dumb" | "vt100" | "vt220" | "ansi") { Self::UNICODE } else { Self::ASCII }
    }
}
