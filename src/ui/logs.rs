//! The journal pane's view of one log: a bounded window of lines, follow and pause, search, filter, repeats collapsed.
//!
//! The log itself is in the segment files. The view asks for the stretch that it lacks ([`LogView::want`]) and is given
//! it by [`LogView::add`]; it never blocks and never holds more than [`LIMIT`] lines.

use std::collections::VecDeque;

use crate::model::event::{Level, LogLine};
use crate::model::run::RunModel;

use super::search::{Filter, Search, pattern};

/// Most lines that the window holds.
pub const LIMIT: usize = 50_000;
/// Lines asked for at once.
const CHUNK: u64 = 2_000;
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

#[derive(Debug, Clone)]
pub struct LogView {
    /// What the operator chose; none: whatever the run is doing.
    pub chosen: Option<String>,
    source: String,
    first: u64,
    window: VecDeque<LogLine>,
    entries: VecDeque<Entry>,
    total: u64,
    asked: Option<u64>,
    pub mode: Mode,
    pub search: Option<Search>,
    pub filter: Option<Filter>,
    /// Where the view was before the search or the filter.
    anchor: Option<Mode>,
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
            first: 1,
            window: VecDeque::new(),
            entries: VecDeque::new(),
            total: 0,
            asked: None,
            mode: Mode::Following,
            search: None,
            filter: None,
            anchor: None,
            wrap: false,
            times: true,
            skip: 0,
        }
    }
}

impl LogView {
    /// Sources that this run has, in the order of `[` and `]`.
    pub fn sources(model: &RunModel) -> Vec<&str> {
        model
            .logs
            .keys()
            .map(String::as_str)
            .filter(|name| {
                matches!(*name, "installer" | "sync") || name.starts_with("journal:") || name.starts_with("serial:")
            })
            .collect()
    }

    /// The log that tells most about what the run is doing now.
    fn natural(model: &RunModel) -> String {
        let sources = Self::sources(model);
        let wanted: &[&str] = match model.current_stage().map(|stage| stage.number().to_owned()).as_deref() {
            Some("06") => &["sync"],
            Some("08") => &["journal:bootstrap", "installer"],
            _ => &["installer", "journal:bootstrap", "sync"],
        };
        let pick = wanted.iter().find(|name| sources.contains(name)).or(sources.first());
        pick.map_or(String::new(), |name| (*name).to_owned())
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
        self.first
    }
    pub fn entries(&self) -> &VecDeque<Entry> {
        &self.entries
    }
    fn end(&self) -> u64 {
        self.first + self.window.len() as u64
    }
    pub fn line(&self, number: u64) -> Option<&LogLine> {
        self.window.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// Lines that came while the view stood still.
    pub fn fresh(&self) -> u64 {
        match self.mode {
            Mode::Following => 0,
            Mode::Paused { total, .. } => self.total.saturating_sub(total),
        }
    }

    /// Bring the view in step with the model. What is returned is to be read: source, first line, count.
    pub fn want(&mut self, model: &RunModel) -> Option<(String, u64, usize)> {
        let source = match &self.chosen {
            Some(chosen) if model.logs.contains_key(chosen) => chosen.clone(),
            _ => Self::natural(model),
        };
        if source != self.source {
            self.source = source;
            self.mode = Mode::Following;
            self.reset(1);
        }
        // A number that no log reaches stays far from overflow.
        self.total = model.logs.get(&self.source).map_or(0, |log| log.lines.min(u64::MAX / 4));
        // Looking back in time: what comes later is not there yet.
        if self.end() > self.total + 1 {
            let keep = self.total.saturating_add(1).saturating_sub(self.first);
            self.window.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
            self.rebuild();
            if self.entries.is_empty() {
                self.mode = Mode::Following;
            }
        }
        let missing = (self.total + 1).saturating_sub(self.end());
        let following = self.mode == Mode::Following;
        if following && (missing > LIMIT as u64 || self.window.is_empty() && missing > CHUNK) {
            self.reset((self.total + 1).saturating_sub(CHUNK).max(1));
        }
        let (from, count) = if self.needs_earlier() {
            let from = self.first.saturating_sub(CHUNK).max(1);
            (from, self.first - from)
        } else if self.end() <= self.total && (following || self.window.len() < LIMIT) {
            (self.end(), (self.total + 1 - self.end()).min(CHUNK))
        } else {
            return None;
        };
        if self.asked == Some(from) {
            return None;
        }
        self.asked = Some(from);
        Some((self.source.clone(), from, usize::try_from(count).unwrap_or(0)))
    }

    fn needs_earlier(&self) -> bool {
        match self.mode {
            Mode::Paused { top, .. } => {
                self.first > 1 && !self.window.is_empty() && self.entries.front().is_none_or(|front| top <= front.first)
            }
            Mode::Following => {
                self.first > 1 && self.entries.is_empty() && self.window.len() < LIMIT && !self.window.is_empty()
            }
        }
    }

    fn reset(&mut self, first: u64) {
        self.window.clear();
        self.entries.clear();
        self.first = first;
        self.asked = None;
        if let Some(search) = &mut self.search {
            search.matches.clear();
        }
    }

    /// Ask again for what has not come.
    pub fn ask_again(&mut self) {
        self.asked = None;
    }

    /// Lines that were asked for.
    pub fn add(&mut self, source: &str, first: u64, lines: Vec<LogLine>) {
        if source != self.source {
            return;
        }
        if self.asked == Some(first) && !lines.is_empty() {
            self.asked = None;
        }
        let count = lines.len() as u64;
        let clip = |mut line: LogLine| {
            if line.text.len() > LINE_LIMIT {
                let more = line.text.len() / 1024 - LINE_LIMIT / 1024;
                let end = line.text.floor_char_boundary(LINE_LIMIT);
                line.text.truncate(end);
                line.text.push_str(&format!(" … {more} KiB more in the record"));
            }
            line
        };
        if first == self.end() {
            for line in lines {
                self.window.push_back(clip(line));
                self.extend(self.end() - 1);
            }
            if self.mode == Mode::Following && self.window.len() > LIMIT {
                let surplus = self.window.len() - LIMIT;
                self.window.drain(..surplus);
                self.first += surplus as u64;
                while self.entries.front().is_some_and(|entry| entry.last < self.first) {
                    self.entries.pop_front();
                }
            }
        } else if count > 0 && first + count == self.first {
            for line in lines.into_iter().rev() {
                self.window.push_front(clip(line));
            }
            self.first = first;
            self.window.truncate(LIMIT);
            self.rebuild();
        }
    }

    fn extend(&mut self, number: u64) {
        let Some(line) = self.line(number) else { return };
        if self.filter.as_ref().is_some_and(|filter| !filter.passes(line)) {
            return;
        }
        let again = self.entries.back().filter(|back| {
            self.line(back.last).is_some_and(|before| before.unit == line.unit && before.text == line.text)
        });
        if again.is_some() {
            if let Some(back) = self.entries.back_mut() {
                back.last = number;
                back.count = back.count.saturating_add(1);
            }
            return;
        }
        let hit = self.search.as_ref().is_some_and(|search| search.pattern.is_match(&line.text));
        self.entries.push_back(Entry { first: number, last: number, count: 1 });
        if let Some(search) = self.search.as_mut().filter(|_| hit) {
            search.matches.push(number);
        }
    }

    fn rebuild(&mut self) {
        self.entries.clear();
        if let Some(search) = &mut self.search {
            search.matches.clear();
        }
        for number in self.first..self.end() {
            self.extend(number);
        }
    }

    /// Place in `entries` of the entry that holds this line or the next one.
    pub fn index(&self, number: u64) -> usize {
        self.entries.partition_point(|entry| entry.last < number).min(self.entries.len().saturating_sub(1))
    }

    /// First visible and chosen entry for a pane of `height` rows, when each entry takes `rows` of them.
    pub fn viewport(&self, height: usize, rows: impl Fn(&Entry) -> usize) -> (usize, usize) {
        let last = self.entries.len().saturating_sub(1);
        let (top, cursor) = match self.mode {
            Mode::Following => (last, last),
            Mode::Paused { cursor, top, .. } => (self.index(top), self.index(cursor)),
        };
        let mut start = cursor;
        let mut used = self.entries.get(cursor).map_or(0, &rows);
        let stop = if self.mode == Mode::Following { 0 } else { top.min(cursor) };
        while start > stop {
            let Some(entry) = self.entries.get(start - 1) else { break };
            used += rows(entry);
            if used > height {
                break;
            }
            start -= 1;
        }
        (start, cursor)
    }

    /// The chosen line.
    pub fn current(&self) -> Option<(Entry, &LogLine)> {
        let entry = match self.mode {
            Mode::Following => self.entries.back(),
            Mode::Paused { cursor, .. } => self.entries.get(self.index(cursor)),
        }?;
        Some((*entry, self.line(entry.last)?))
    }

    /// Stand still where the view is.
    pub fn pause(&mut self, height: usize) {
        if self.mode == Mode::Following {
            let last = self.entries.len().saturating_sub(1);
            let top = self.entries.get(last.saturating_sub(height.saturating_sub(1)));
            let (Some(cursor), Some(top)) = (self.entries.get(last), top) else { return };
            self.mode = Mode::Paused { cursor: cursor.first, top: top.first, total: self.total };
        }
    }

    pub fn follow(&mut self) {
        self.mode = Mode::Following;
        self.anchor = None;
        self.asked = None;
    }

    /// Move the chosen line; upwards pauses, past the end follows again when `resume`.
    pub fn step(&mut self, by: isize, height: usize, resume: bool) {
        if self.entries.is_empty() || (self.mode == Mode::Following && by >= 0) {
            return;
        }
        self.pause(height);
        let Mode::Paused { cursor, .. } = self.mode else { return };
        let last = self.entries.len() - 1;
        let wanted = self.index(cursor).saturating_add_signed(by);
        if wanted > last && resume && self.end() > self.total {
            self.follow();
        } else if let Some(entry) = self.entries.get(wanted.min(last)) {
            self.go(entry.first, height);
        }
    }

    /// Choose a line and keep it in sight.
    pub fn go(&mut self, number: u64, height: usize) {
        self.pause(height);
        let Mode::Paused { top, total, .. } = self.mode else { return };
        let place = self.index(number);
        let mut first = self.index(top);
        if place < first {
            first = place;
        } else if place >= first + height.max(1) {
            first = place + 1 - height.max(1);
        }
        if let (Some(entry), Some(top)) = (self.entries.get(place), self.entries.get(first)) {
            self.mode = Mode::Paused { cursor: entry.first, top: top.first, total };
        }
    }

    pub fn set_search(&mut self, text: &str) {
        self.search = pattern(text).filter(|_| !text.is_empty()).map(|pattern| Search {
            text: text.to_owned(),
            pattern,
            matches: Vec::new(),
        });
        if self.search.is_some() {
            self.rebuild();
        }
    }

    pub fn set_filter(&mut self, text: &str) {
        self.filter = Filter::parse(text);
        self.rebuild();
        self.asked = None;
    }

    /// Go to a line of a source, wherever it is.
    pub fn show(&mut self, source: &str, number: u64) {
        self.chosen = Some(source.to_owned());
        self.source = source.to_owned();
        self.filter = None;
        self.search = None;
        self.anchor = None;
        self.reset(number.saturating_sub(CHUNK / 4).max(1));
        self.mode = Mode::Paused { cursor: number, top: number.saturating_sub(4), total: self.total };
    }

    /// Remember the place to which [`LogView::clear`] returns.
    pub fn set_anchor(&mut self) {
        self.anchor.get_or_insert(self.mode);
    }

    /// Take away the search, else the filter. False when there was neither.
    pub fn clear(&mut self) -> bool {
        if self.search.take().is_none() {
            if self.filter.take().is_none() {
                return false;
            }
            self.rebuild();
        }
        if self.search.is_none()
            && self.filter.is_none()
            && let Some(mode) = self.anchor.take()
        {
            self.mode = mode;
        }
        true
    }

    /// Drop the filter, stay on the line.
    pub fn unfilter(&mut self, height: usize) {
        self.pause(height);
        if self.filter.take().is_some() {
            self.rebuild();
            if let Mode::Paused { cursor, .. } = self.mode {
                let top = self.entries.get(self.index(cursor).saturating_sub(height / 2)).map(|entry| entry.first);
                if let (Mode::Paused { top: known, .. }, Some(top)) = (&mut self.mode, top) {
                    *known = top;
                }
            }
        }
        self.anchor = None;
    }

    /// To the next (or the previous) match; from the end of the log the newest one. False when there is none.
    pub fn find(&mut self, forward: bool, height: usize) -> bool {
        let Some(search) = &self.search else { return false };
        let Some(target) = self
            .nearest(search.matches.iter().copied(), forward)
            .or_else(|| if forward { search.matches.first().copied() } else { search.matches.last().copied() })
        else {
            return false;
        };
        self.go(target, height);
        true
    }

    /// To the next (or the previous) line of level error. False when there is none.
    pub fn find_error(&mut self, forward: bool, height: usize) -> bool {
        let errors =
            self.entries.iter().filter(|entry| self.line(entry.last).is_some_and(|line| line.level == Level::Error));
        match self.nearest(errors.map(|entry| entry.first), forward) {
            Some(target) => {
                self.go(target, height);
                true
            }
            None => false,
        }
    }

    fn nearest(&self, mut numbers: impl DoubleEndedIterator<Item = u64>, forward: bool) -> Option<u64> {
        let cursor = match self.mode {
            Mode::Following => u64::MAX,
            Mode::Paused { cursor, .. } => cursor,
        };
        if forward { numbers.find(|number| *number > cursor) } else { numbers.rfind(|number| *number < cursor) }
    }

    /// Which match the chosen line is, from 1, of how many.
    pub fn match_count(&self) -> Option<(usize, usize)> {
        let search = self.search.as_ref()?;
        let place = match self.mode {
            Mode::Following => 0,
            Mode::Paused { cursor, .. } => search.matches.binary_search(&cursor).map_or(0, |place| place + 1),
        };
        Some((place, search.matches.len()))
    }

    /// The next source, or the one before.
    pub fn switch(&mut self, model: &RunModel, forward: bool) {
        let sources = Self::sources(model);
        let count = sources.len();
        if count == 0 {
            return;
        }
        let place = sources.iter().position(|name| *name == self.source).unwrap_or(0);
        let next = if forward { (place + 1) % count } else { (place + count - 1) % count };
        self.chosen = sources.get(next).map(|name| (*name).to_owned());
        self.search = None;
        self.filter = None;
        self.anchor = None;
    }
}
