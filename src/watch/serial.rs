//! The serial console of an instance: what a node says while nobody can log in to it.
//!
//! EC2 gives the end of the console as one text, at most 64 KiB (`GetConsoleOutput`). What is new in it is what follows the
//! lines that were read before: [`Console`]. How far the node's first boot is, [`FirstBoot`] reads from the lines. Both are
//! pure.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::Timestamp;
use regex::Regex;

use crate::cloud::{Class, Cloud};
use crate::model::event::{Data, Level, LogLine, Observed};
use crate::model::text::one_line;
use crate::spec::secret::redact;

use super::Out;

/// Lines that are compared to find where an earlier look stopped.
pub const REMEMBERED: usize = 100;
const UNIT: &str = "console";
const LINE_LIMIT: usize = 4 * 1024;
/// Between two looks, while there is news and when there is none.
const SOON: Duration = Duration::from_secs(5);
const LATE: Duration = Duration::from_secs(20);

/// Name of the source in the record.
pub fn source(node: &str) -> String {
    format!("serial:{node}")
}

/// Tells the new lines of a console from those that were read.
#[derive(Debug, Default)]
pub struct Console {
    seen: VecDeque<String>,
}

/// What a look at the console brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    pub lines: Vec<String>,
    /// Nothing of it was read before: between the two looks lines may have been lost.
    pub gap: bool,
}

impl Console {
    /// Go on behind the last lines of the record.
    pub fn resume(lines: impl IntoIterator<Item = String>) -> Self {
        let mut console = Self::default();
        lines.into_iter().for_each(|line| console.remember(line));
        console
    }

    /// What is new in the console's text. A last line that has no end yet is left for the next look.
    pub fn feed(&mut self, text: &str) -> News {
        let whole = text.rfind('\n').and_then(|end| text.get(..end)).unwrap_or_default();
        let lines: Vec<String> = whole
            .split('\n')
            .map(|line| redact(&one_line(line.trim_end_matches('\r'), LINE_LIMIT)))
            .filter(|line| !line.trim().is_empty())
            .collect();
        let known = (1..=lines.len()).rev().find(|end| self.ends_at(&lines, *end));
        let gap = known.is_none() && !self.seen.is_empty() && !lines.is_empty();
        let lines: Vec<String> = lines.into_iter().skip(known.unwrap_or(0)).collect();
        lines.iter().for_each(|line| self.remember(line.clone()));
        News { lines, gap }
    }

    /// The lines before `end` are those that were read last.
    fn ends_at(&self, lines: &[String], end: usize) -> bool {
        let before = lines.iter().take(end).rev();
        !self.seen.is_empty() && before.zip(self.seen.iter().rev()).all(|(line, seen)| line == seen)
    }

    fn remember(&mut self, line: String) {
        if self.seen.len() >= REMEMBERED {
            self.seen.pop_front();
        }
        self.seen.push_back(line);
    }
}

/// How far Ignition is on a node (coreos/ignition `internal/resource/http.go`, `internal/exec/engine.go`).
#[derive(Debug, Default)]
pub struct FirstBoot {
    /// It asks the machine config server now.
    asking: bool,
    state: String,
}

static ASKS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"ignition\[\d+\]: .*GET \S+/config/[\w-]+\S*: attempt #\d+").ok());
static REFUSED: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r#"ignition\[\d+\]: .*GET (?:error: Get "[^"]*": (?P<why>.+)|result: (?P<status>.+))"#).ok()
});
static FAILED: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?:ignition\[\d+\]: .*(?:failed to (?:acquire|fetch) config|Ignition failed): ?(?P<why>.*)|Ignition has failed)").ok()
});

impl FirstBoot {
    /// What a line changes: the state of the unit `ignition` of `node`.
    pub fn feed(&mut self, node: &str, line: &str) -> Option<Observed> {
        let state = self.state_after(line)?;
        if state == self.state {
            return None;
        }
        self.state.clone_from(&state);
        Some(Observed::Unit { host: node.to_owned(), unit: "ignition".to_owned(), state, restarts: 0 })
    }

    fn state_after(&mut self, line: &str) -> Option<String> {
        let is = |expression: &LazyLock<Option<Regex>>| expression.as_ref().is_some_and(|known| known.is_match(line));
        if is(&ASKS) {
            self.asking = true;
            return self.state.is_empty().then(|| "asks for its config".to_owned());
        }
        if let Some(failed) = FAILED.as_ref().and_then(|failed| failed.captures(line)) {
            let why = failed.name("why").map_or("", |why| why.as_str());
            return Some(format!("failed: {why}").trim_end_matches(": ").to_owned());
        }
        if line.contains("Ignition finished successfully") || line.contains(" login: ") {
            return Some("finished".to_owned());
        }
        let answer = REFUSED.as_ref().filter(|_| self.asking)?.captures(line)?;
        if answer.name("status").is_some_and(|status| status.as_str().trim() == "OK") {
            self.asking = false;
            return Some("has its config".to_owned());
        }
        let why = answer.name("why").or(answer.name("status")).map_or("", |why| why.as_str());
        Some(format!("waits for its config: {}", one_line(why, 200)))
    }
}

/// Look at the console of `instance` until it is gone or nobody wants to know any more. `console` knows what the record has.
pub async fn follow(cloud: Arc<dyn Cloud>, node: &str, instance: &str, mut console: Console, out: &Out) {
    let source = source(node);
    let mut boot = FirstBoot::default();
    let mut pause = SOON;
    let mut complained = false;
    loop {
        let looked = tokio::select! {
            () = out.cancel.cancelled() => return,
            looked = cloud.console_output(instance) => looked,
        };
        match looked {
            Ok(text) => {
                let news = console.feed(&text);
                pause = if news.lines.is_empty() { (pause * 2).min(LATE) } else { SOON };
                if news.gap {
                    let why = "the console holds nothing of what was read before: lines may be missing".to_owned();
                    out.sink.emit(Data::Gap { source: source.clone(), lost: None, why }).await;
                }
                let seen: Vec<Observed> = news.lines.iter().filter_map(|line| boot.feed(node, line)).collect();
                out.observed(seen).await;
                let at = Timestamp::now();
                let line = |text| LogLine { at, unit: UNIT.into(), level: Level::Info, text, cursor: None };
                let lines: Vec<LogLine> = news.lines.into_iter().map(line).collect();
                if !lines.is_empty() {
                    out.lines(&source, lines).await;
                }
            }
            Err(error) if error.is_not_found() => return,
            Err(error) => {
                if !complained {
                    complained = true;
                    let text = format!("the console of {node} cannot be read: {error}");
                    out.sink.emit(Data::Note { level: Level::Warn, text }).await;
                }
                if error.class == Class::Denied {
                    return;
                }
                pause = LATE;
            }
        }
        if !out.pause(pause).await {
            return;
        }
    }
}
