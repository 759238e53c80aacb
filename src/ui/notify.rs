//! Sequences that the terminal acts on: window title, notification, taskbar, clipboard. Everything in them is cleaned first.

use base64::Engine;

use super::attention::Progress;
use super::text::printable;

/// Most bytes of an OSC 52 payload: terminals cut longer ones silently (k9s and its clipboard library stop here too).
const CLIPBOARD_LIMIT: usize = 74_994;
/// Longest text of a notification, in characters.
const TEXT_LIMIT: usize = 200;

/// How a person is called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Way {
    /// As the terminal understands it.
    #[default]
    Auto,
    /// iTerm2's: one text.
    Osc9,
    /// urxvt's, foot's and VTE's: title and body.
    Osc777,
    /// kitty's.
    Osc99,
    Bell,
    /// This program, with title and body as its last arguments.
    Command(Vec<String>),
    Off,
}

/// The names that [`Way::parse`] knows, for help and errors.
pub const WAYS: &str = "auto, osc9, osc777, osc99, bell, off, or command:PROGRAM";

impl Way {
    /// `auto`, `osc9` … or `command:notify-send -a bartizan`.
    ///
    /// # Errors
    /// A sentence with what is possible.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(command) = text.strip_prefix("command:") {
            let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
            return if words.is_empty() { Err(format!("give {WAYS}")) } else { Ok(Self::Command(words)) };
        }
        Ok(match text {
            "auto" => Self::Auto,
            "osc9" => Self::Osc9,
            "osc777" => Self::Osc777,
            "osc99" => Self::Osc99,
            "bell" => Self::Bell,
            "off" => Self::Off,
            _ => return Err(format!("{text:?} is no way to notify: give {WAYS}")),
        })
    }

    /// What `auto` is in a terminal of this kind. Through tmux it is not known which terminal is behind: OSC 9 and the bell
    /// are what most understand, and tmux shows the bell itself.
    pub fn resolved(self, kind: &Kind) -> Self {
        match self {
            Self::Auto if kind.term.contains("kitty") => Self::Osc99,
            Self::Auto if kind.term.starts_with("foot") || kind.term.starts_with("rxvt") || kind.vte => Self::Osc777,
            Self::Auto => Self::Osc9,
            other => other,
        }
    }
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Osc9 => f.write_str("osc9"),
            Self::Osc777 => f.write_str("osc777"),
            Self::Osc99 => f.write_str("osc99"),
            Self::Bell => f.write_str("bell"),
            Self::Off => f.write_str("off"),
            Self::Command(words) => write!(f, "command:{}", words.join(" ")),
        }
    }
}

/// Which terminal this is, as far as it says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kind {
    pub term: String,
    /// `TERM_PROGRAM`.
    pub program: String,
    /// `VTE_VERSION` is set.
    pub vte: bool,
    pub windows_terminal: bool,
    pub conemu: bool,
}

impl Kind {
    pub fn from_env() -> Self {
        let get = |name: &str| std::env::var(name).unwrap_or_default();
        Self {
            term: get("TERM"),
            program: get("TERM_PROGRAM"),
            vte: !get("VTE_VERSION").is_empty(),
            windows_terminal: !get("WT_SESSION").is_empty(),
            conemu: get("ConEmuANSI") == "ON",
        }
    }

    /// It shows OSC 9;4 as progress. Others would show it as a notification, so it is sent to no terminal that is not known.
    pub fn has_taskbar(&self) -> bool {
        self.conemu
            || self.windows_terminal
            || matches!(self.program.as_str(), "ghostty" | "WezTerm")
            || self.term == "xterm-ghostty"
    }
}

/// Inside tmux a sequence for the outer terminal is wrapped, and its escapes are doubled.
fn wrapped(sequence: String, tmux: bool) -> String {
    if tmux { format!("\u{1b}Ptmux;{}\u{1b}\\", sequence.replace('\u{1b}', "\u{1b}\u{1b}")) } else { sequence }
}

/// OSC 0, icon name and window title.
pub fn title(text: &str) -> String {
    format!("\u{1b}]0;{}\u{7}", printable(text))
}

/// OSC 9;4: state and parts of a hundred.
pub fn taskbar(progress: Progress) -> String {
    let (state, part) = match progress {
        Progress::Nothing => (0, 0),
        Progress::Going(part) => (1, part),
        Progress::Failed(part) => (2, part),
        Progress::Waiting(part) => (4, part),
    };
    format!("\u{1b}]9;4;{state};{part}\u{1b}\\")
}

/// What calls a person by this way; empty when nothing has to be sent to the terminal.
pub fn notification(way: &Way, title: &str, body: &str, tmux: bool) -> String {
    let short = |text: &str| -> String {
        let text: String = text.chars().take(TEXT_LIMIT).collect();
        // Fields are parted by semicolons, and ConEmu reads `9;` and a number as another command.
        printable(&text).replace(';', ",")
    };
    let (title, body) = (short(title), short(body));
    match way {
        Way::Auto | Way::Osc9 => {
            let text: String = format!("{title}: {body}").chars().take(TEXT_LIMIT).collect();
            format!("{}\u{7}", wrapped(format!("\u{1b}]9;{text}\u{7}"), tmux))
        }
        Way::Osc777 => format!("{}\u{7}", wrapped(format!("\u{1b}]777;notify;{title};{body}\u{1b}\\"), tmux)),
        Way::Osc99 => {
            let head = wrapped(format!("\u{1b}]99;i=bartizan:d=0:p=title;{title}\u{1b}\\"), tmux);
            let rest = wrapped(format!("\u{1b}]99;i=bartizan:d=1:p=body;{body}\u{1b}\\"), tmux);
            format!("{head}{rest}\u{7}")
        }
        Way::Bell => "\u{7}".to_owned(),
        Way::Command(_) | Way::Off => String::new(),
    }
}

/// OSC 52, which sets the clipboard on the operator's side of an SSH connection; none when the text is too long for it.
pub fn clipboard(text: &str, tmux: bool) -> Option<String> {
    let clean: Vec<_> = text.lines().map(printable).collect();
    let encoded = base64::engine::general_purpose::STANDARD.encode(clean.join("\n"));
    (encoded.len() <= CLIPBOARD_LIMIT).then(|| wrapped(format!("\u{1b}]52;c;{encoded}\u{7}"), tmux))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_cannot_end_the_sequence() {
        let hostile = "x\u{7}\u{1b}]52;c;AAAA\u{7}\u{9c}y";
        assert_eq!(title(hostile), "\u{1b}]0;xy\u{7}");
        assert_eq!(notification(&Way::Osc9, "a;b", hostile, false), "\u{1b}]9;a,b: xy\u{7}\u{7}");
        assert_eq!(notification(&Way::Osc777, "a;b", hostile, false), "\u{1b}]777;notify;a,b;xy\u{1b}\\\u{7}");
        let kitty = notification(&Way::Osc99, "a", hostile, true);
        assert_eq!(kitty.matches("\u{1b}Ptmux;").count(), 2);
        assert!(kitty.contains("p=body;xy\u{1b}\u{1b}\\"), "{kitty:?}");
        assert_eq!(clipboard("one\u{1b}[31m\ntwo", false).unwrap(), "\u{1b}]52;c;b25lCnR3bw==\u{7}");
        assert!(clipboard(&"a".repeat(60_000), false).is_none());
        assert_eq!(clipboard("a", true).unwrap(), "\u{1b}Ptmux;\u{1b}\u{1b}]52;c;YQ==\u{7}\u{1b}\\");
    }

    #[test]
    fn the_terminal_decides_how_it_is_told_and_progress_goes_only_where_it_is_known() {
        let kind = |term: &str, vte| Kind { term: term.into(), vte, ..Kind::default() };
        for (kind, way) in [
            (kind("xterm-kitty", false), Way::Osc99),
            (kind("foot", false), Way::Osc777),
            (kind("xterm-256color", true), Way::Osc777),
            (kind("xterm-256color", false), Way::Osc9),
        ] {
            assert_eq!(Way::Auto.resolved(&kind), way);
            assert_eq!(Way::Bell.resolved(&kind), Way::Bell);
            assert!(!kind.has_taskbar());
        }
        assert!(Kind { program: "ghostty".into(), ..Kind::default() }.has_taskbar());
        assert_eq!(taskbar(Progress::Failed(40)), "\u{1b}]9;4;2;40\u{1b}\\");
        assert_eq!(
            Way::parse("command:notify-send -u critical").unwrap(),
            Way::Command(["notify-send", "-u", "critical"].map(str::to_owned).to_vec())
        );
        assert!(Way::parse("smoke").unwrap_err().contains("osc777"));
    }
}
