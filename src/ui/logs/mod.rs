//! The journal pane's view of one log: a bounded window of lines, follow and pause, search, filter, repeats collapsed.
//!
//! The log itself is in the segment files. The view asks for the stretch that it lacks ([`LogView::want`]) and is given
//! it by [`LogView::add`]; it never blocks and never holds more than [`LIMIT`] lines. A search and a filter reach all of
//! the log all the same: stretch after stretch is asked for and looked through, and the title says how far they are.

pub mod library;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::event::LogLine;
use crate::model::run::RunModel;

use super::search::{Filter, Search, pattern};
pub use library::{Ask, Library, known};

/// All logs together, by time.
pub const ALL: &str = "all";
/// Most lines that the window holds.
pub const LIMIT: usize = 50_000;
/// And most bytes.
const LIMIT_BYTES: usize = 24 << 20;
/// Lines asked for at once.
const CHUNK: u64 = 2_000;
/// Lines looked through at once: some milliseconds.
const SCAN: u64 = 4_000;
/// Bytes of one line that are kept here; the record has all of it.
const LINE_LIMIT: usize = 16 * 1024;

/// Following the end, or standing still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Following,
    /// Lines by number: the chosen one, the topmost one, and how many there were when the view stopped.
    Paused {
        cursor: u64,
        top: u64,
        total: u64,
    },
}

/// One row group: a line, or a run of equal lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Number of its first line; its name.
    pub first: u64,
    /// Number of its last line, whose time is shown.
    pub last: u64,
    pub count: u32,
}

/// A line, and where it stands when the view is of all logs: its own log and its number there.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbered {
    pub line: LogLine,
    pub home: Option<(Arc<str>, u64)>,
}

/// Lines from `first` up to before `end` that passed the filter.
#[derive(Debug, Clone)]
struct Window {
    first: u64,
    end: u64,
    lines: VecDeque<(u64, Numbered)>,
    bytes: usize,
}

impl Window {
    fn at(first: u64) -> Self {
        Self { first, end: first, lines: VecDeque::new(), bytes: 0 }
    }
    fn full(&self) -> bool {
        self.lines.len() >= LIMIT || self.bytes >= LIMIT_BYTES
    }
    fn over(&self) -> bool {
        self.lines.len() > LIMIT || self.bytes > LIMIT_BYTES
    }
    fn get(&self, number: u64) -> Option<&Numbered> {
        let place = self.lines.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        self.lines.get(place).map(|(_, line)| line)
    }
    fn push_back(&mut self, number: u64, line: Numbered) {
        self.bytes += line.line.text.len();
        self.lines.push_back((number, line));
    }
    fn push_front(&mut self, number: u64, line: Numbered) {
        self.bytes += line.line.text.len();
        self.lines.push_front((number, line));
    }
    fn pop_front(&mut self) {
        if let Some((number, line)) = self.lines.pop_front() {
            self.bytes -= line.line.text.len();
            self.first = number + 1;
        }
    }
    fn pop_back(&mut self) {
        if let Some((number, line)) = self.lines.pop_back() {
            self.bytes -= line.line.text.len();
            self.end = number;
        }
    }
    /// Forget what is at or after `end`.
    fn cut(&mut self, end: u64) {
        while self.lines.back().is_some_and(|(number, _)| *number >= end) {
            self.pop_back();
        }
        self.end = self.end.min(end);
    }
}

#[derive(Debug, Clone)]
pub struct LogView {
    /// What the operator chose; none: whatever the run is doing.
    pub chosen: Option<String>,
    source: String,
    window: Window,
    /// The window without the filter, from before it was typed.
    unfiltered: Option<Window>,
    entries: VecDeque<Entry>,
    total: u64,
    /// First lines of the stretches that were asked for and have not come: for the window, for the search.
    asked: Option<u64>,
    asked_scan: Option<u64>,
    pub mode: Mode,
    pub search: Option<Search>,
    pub filter: Option<Filter>,
    /// Where the view was before the search or the filter.
    anchor: Option<Mode>,
    /// The other end of the lines to be copied.
    pub mark: Option<u64>,
    pub wrap: bool,
    pub times: bool,
    /// Cells scrolled to the right.
    pub skip: usize,
}

impl Default for LogView {
    fn default() -> Self {
        Self {
            chosen: None,
            source: String::new(),
            window: Window::at(1),
            unfiltered: None,
            entries: VecDeque::new(),
            total: 0,
            asked: None,
            asked_scan: None,
            mode: Mode::Following,
            search: None,
            filter: None,
            anchor: None,
            mark: None,
            wrap: false,
            times: true,
            skip: 0,
        }
    }
}

impl LogView {
    /// Sources that this run has, in the order of `[` and `]`; all of them together come last.
    pub fn sources(model: &RunModel) -> Vec<String> {
        let mut names: Vec<String> = known(model).into_iter().map(|(name, _)| name).collect();
        if names.len() > 1 {
            names.push(ALL.to_owned());
        }
        names
    }

    /// The log that tells most about what the run is doing now.
    fn natural(model: &RunModel) -> String {
        let has = |name: &&&str| model.logs.contains_key(**name);
        let wanted: &[&str] = match model.current_stage().map(|stage| stage.number().to_owned()).as_deref() {
            Some("06") => &["sync"],
            Some("08") => &["journal:bootstrap", "installer"],
            _ => &["installer", "journal:bootstrap", "sync"],
        };
        let first = || known(model).into_iter().next().map(|(name, _)| name);
        wanted.iter().find(has).map(|name| (*name).to_owned()).or_else(first).unwrap_or_default()
    }

    pub fn source(&self) -> &str {
        &self.source
    }
    /// Lines of the log as far as the record has them.
    pub fn total(&self) -> u64 {
        self.total
    }
    /// Number of the first line in the window; it moves when the window does.
    pub fn first(&self) -> u64 {
        self.window.first
    }
    pub fn entries(&self) -> &VecDeque<Entry> {
        &self.entries
    }
    pub fn line(&self, number: u64) -> Option<&LogLine> {
        self.window.get(number).map(|line| &line.line)
    }
    /// The log that a line is in, and its number there.
    pub fn home(&self, number: u64) -> Option<(Arc<str>, u64)> {
        match &self.window.get(number)?.home {
            Some(home) => Some(home.clone()),
            None => Some((self.source.as_str().into(), number)),
        }
    }

    /// Lines that came while the view stood still.
    pub fn fresh(&self) -> u64 {
        match self.mode {
            Mode::Following => 0,
            Mode::Paused { total, .. } => self.total.saturating_sub(total),
        }
    }

    /// How much of the log the search or the filter has seen, in percent; none: all of it.
    pub fn seen(&self) -> Option<u8> {
        let (first, end) = match (&self.filter, &self.search) {
            (Some(_), _) => (self.window.first, self.window.end),
            (None, Some(search)) => (search.first, search.end),
            (None, None) => return None,
        };
        let seen = end.saturating_sub(first).min(self.total);
        (seen < self.total).then(|| crate::model::progress::percent(seen, self.total))
    }

    /// Bring the view in step with the model. What is returned is to be read.
    pub fn want(&mut self, model: &RunModel) -> Vec<Ask> {
        let is_there = |name: &String| name == ALL || model.logs.contains_key(name);
        let source = self.chosen.clone().filter(is_there).unwrap_or_else(|| Self::natural(model));
        if source != self.source {
            self.source = source;
            self.mode = Mode::Following;
            self.restart(1);
        }
        let lines = if self.source == ALL {
            known(model).iter().fold(0u64, |sum, (_, lines)| sum.saturating_add(*lines))
        } else {
            model.logs.get(&self.source).map_or(0, |log| log.lines)
        };
        // A number that no log reaches stays far from overflow.
        self.total = lines.min(u64::MAX / 4);
        // Looking back in time: what comes later is not there yet.
        if self.window.end > self.total + 1 {
            self.window.cut(self.total + 1);
            self.window.first = self.window.first.min(self.total + 1);
            if let Some(search) = &mut self.search {
                search.cut(self.total + 1);
            }
            self.rebuild();
            if self.entries.is_empty() {
                self.mode = Mode::Following;
            }
        }
        let asks = [self.want_window(), self.want_scan()];
        let ask = |(first, count): (u64, u64)| Ask::Read {
            source: self.source.clone(),
            first,
            count: usize::try_from(count).unwrap_or(0),
        };
        asks.into_iter().flatten().map(ask).collect()
    }

    fn want_window(&mut self) -> Option<(u64, u64)> {
        let missing = (self.total + 1).saturating_sub(self.window.end);
        let following = self.mode == Mode::Following;
        let empty = self.window.first == self.window.end;
        if following && self.filter.is_none() && missing > if empty { CHUNK } else { 4 * CHUNK } {
            self.move_to((self.total + 1).saturating_sub(CHUNK).max(1));
        }
        let stretch = if self.filter.is_some() { SCAN } else { CHUNK };
        let (from, count) = if self.window.end <= self.total && (following || self.needs_later()) {
            (self.window.end, (self.total + 1 - self.window.end).min(stretch))
        } else if self.needs_earlier() {
            let from = self.window.first.saturating_sub(stretch).max(1);
            (from, self.window.first - from)
        } else {
            return None;
        };
        (self.asked.replace(from) != Some(from)).then_some((from, count))
    }

    fn needs_later(&self) -> bool {
        let Mode::Paused { top, .. } = self.mode else { return true };
        // Enough for some screens; a filter leaves few lines, and all of the log is looked through for them.
        let below = self.entries.len() - self.index(top).min(self.entries.len());
        !self.window.full() && (self.filter.is_some() || below < CHUNK as usize / 2)
    }

    fn needs_earlier(&self) -> bool {
        if self.window.first <= 1 {
            return false;
        }
        let above = match self.mode {
            Mode::Paused { top, .. } => self.entries.front().is_none_or(|front| top <= front.first),
            Mode::Following => self.entries.is_empty(),
        };
        // A filter leaves few lines: all of the log is looked through for them.
        above || (self.filter.is_some() && !self.window.full())
    }

    /// What a search has not seen. With a filter it sees what the filter lets through.
    fn want_scan(&mut self) -> Option<(u64, u64)> {
        let search = self.search.as_ref().filter(|_| self.filter.is_none())?;
        let (from, count) = if search.first > 1 {
            let from = search.first.saturating_sub(SCAN).max(1);
            (from, search.first - from)
        } else if search.end <= self.total {
            (search.end, (self.total + 1 - search.end).min(SCAN))
        } else {
            return None;
        };
        (self.asked_scan.replace(from) != Some(from)).then_some((from, count))
    }

    /// An empty window at this line.
    fn move_to(&mut self, first: u64) {
        self.window = Window::at(first);
        self.entries.clear();
        self.asked = None;
    }

    /// [`LogView::move_to`], and what was found is no longer true.
    fn restart(&mut self, first: u64) {
        self.move_to(first);
        self.unfiltered = None;
        self.mark = None;
        self.asked_scan = None;
        if let Some(search) = &mut self.search {
            search.restart(first);
        }
    }

    /// Ask again for what has not come.
    pub fn ask_again(&mut self) {
        self.asked = None;
        self.asked_scan = None;
    }

    /// Lines that were asked for.
    pub fn add(&mut self, source: &str, first: u64, lines: Vec<Numbered>) {
        if source != self.source || lines.is_empty() {
            return;
        }
        let end = first + lines.len() as u64;
        if self.asked_scan == Some(first) {
            self.asked_scan = None;
        }
        if self.filter.is_none()
            && let Some(search) = &mut self.search
        {
            search.look(first, &lines);
        }
        if self.asked != Some(first) {
            return;
        }
        self.asked = None;
        let passes = |line: &Numbered| self.filter.as_ref().is_none_or(|filter| filter.passes(&line.line));
        let kept: Vec<(u64, Numbered)> =
            (first..).zip(lines).filter(|(_, line)| passes(line)).map(|(number, line)| (number, clip(line))).collect();
        if first == self.window.end {
            for (number, line) in kept {
                self.window.push_back(number, line);
                self.extend(number);
            }
            self.window.end = end;
            while self.mode == Mode::Following && self.window.over() {
                self.window.pop_front();
            }
            while self.entries.front().is_some_and(|entry| entry.last < self.window.first) {
                self.entries.pop_front();
            }
        } else if end == self.window.first {
            for (number, line) in kept.into_iter().rev() {
                self.window.push_front(number, line);
            }
            self.window.first = first;
            while self.window.over() {
                self.window.pop_back();
            }
            self.rebuild();
        }
        if self.filter.is_some()
            && let Some(search) = &mut self.search
        {
            search.restart(self.window.first);
            for (number, line) in &self.window.lines {
                search.note(*number, &line.line);
            }
        }
    }

    /// The line is at the end of the window: into the last entry, or a new one.
    fn extend(&mut self, number: u64) {
        let Some(line) = self.line(number) else { return };
        let again = self.entries.back().is_some_and(|back| {
            self.line(back.last).is_some_and(|before| before.unit == line.unit && before.text == line.text)
        });
        match self.entries.back_mut().filter(|_| again) {
            Some(back) => {
                back.last = number;
                back.count = back.count.saturating_add(1);
            }
            None => self.entries.push_back(Entry { first: number, last: number, count: 1 }),
        }
    }

    fn rebuild(&mut self) {
        self.entries.clear();
        let mut before: Option<&LogLine> = None;
        for (number, Numbered { line, .. }) in &self.window.lines {
            match self.entries.back_mut() {
                Some(back) if before.is_some_and(|before| before.unit == line.unit && before.text == line.text) => {
                    back.last = *number;
                    back.count = back.count.saturating_add(1);
                }
                _ => self.entries.push_back(Entry { first: *number, last: *number, count: 1 }),
            }
            before = Some(line);
        }
    }
}

/// A line of a bounded length.
fn clip(mut line: Numbered) -> Numbered {
    let text = &mut line.line.text;
    if text.len() > LINE_LIMIT {
        let more = text.len() / 1024 - LINE_LIMIT / 1024;
        text.truncate(text.floor_char_boundary(LINE_LIMIT));
        text.shrink_to_fit();
        text.push_str(&format!(" … {more} KiB more in the record"));
    }
    line
}

mod moves;
