//! Going about in a log: the chosen line, follow and pause, to a match, into a filter and out of it.

use super::*;

impl LogView {
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

    /// Numbers of the first and the last line between the mark and the chosen line.
    pub fn marked(&self) -> Option<(u64, u64)> {
        let mark = self.mark?;
        let (entry, _) = self.current()?;
        Some((mark.min(entry.first), mark.max(entry.last)))
    }

    /// What is to be copied: the lines between the mark and the chosen one, else the chosen one.
    pub fn copied(&self) -> Option<String> {
        let write = |line: &LogLine| format!("{} {}: {}", line.at, line.unit, line.text);
        let Some((first, last)) = self.marked() else { return self.current().map(|(_, line)| write(line)) };
        let lines = self.window.lines.iter().filter(|(number, _)| (first..=last).contains(number));
        Some(lines.map(|(_, line)| write(&line.line)).collect::<Vec<_>>().join("\n"))
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
        if wanted > last && resume && self.window.end > self.total {
            self.follow();
        } else if let Some(entry) = self.entries.get(wanted.min(last)) {
            self.go(entry.first, height);
        }
    }

    /// Choose a line and keep it in sight. A line that is not in the window moves the window there.
    pub fn go(&mut self, number: u64, height: usize) {
        self.pause(height);
        if number < self.window.first || number >= self.window.end {
            self.jump(number, height);
            return;
        }
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

    /// The window at this line, wherever that is.
    fn jump(&mut self, number: u64, height: usize) {
        self.move_to(number.saturating_sub(CHUNK / 4).max(1));
        let top = number.saturating_sub(height as u64 / 2).max(1);
        self.mode = Mode::Paused { cursor: number, top, total: self.total };
    }

    /// Go to a line of a source, wherever it is. Neither search nor filter stays.
    pub fn show(&mut self, source: &str, number: u64, height: usize) {
        if self.source == source {
            self.unfilter(height);
            self.search = None;
        } else {
            self.choose(Some(source.to_owned()));
            self.source = source.to_owned();
            self.restart(number);
        }
        self.go(number, height);
    }

    pub fn set_search(&mut self, text: &str) {
        self.asked_scan = None;
        self.search =
            pattern(text).filter(|_| !text.is_empty()).map(|pattern| Search::new(text, pattern, self.window.first));
        if let Some(search) = &mut self.search {
            for (number, line) in &self.window.lines {
                search.note(*number, &line.line);
            }
            search.end = self.window.end;
        }
    }

    pub fn set_filter(&mut self, text: &str) {
        let raw = self.unfiltered.take().unwrap_or_else(|| self.window.clone());
        self.filter = Filter::parse(text);
        self.window = match &self.filter {
            Some(filter) => {
                let mut window = Window { lines: VecDeque::new(), bytes: 0, ..raw };
                let passing = raw.lines.iter().filter(|(_, line)| filter.passes(&line.line));
                passing.for_each(|(number, line)| window.push_back(*number, line.clone()));
                self.unfiltered = Some(raw);
                window
            }
            None => raw,
        };
        self.asked = None;
        self.rebuild();
    }

    /// Remember the place to which [`LogView::clear`] returns.
    pub fn set_anchor(&mut self) {
        self.anchor.get_or_insert(self.mode);
    }

    /// Take away the mark, the search, or the filter, one at a time. False when there was none of them.
    pub fn clear(&mut self, height: usize) -> bool {
        if self.mark.take().is_some() {
            return true;
        }
        if self.search.take().is_none() {
            if self.filter.is_none() {
                return false;
            }
            self.set_filter("");
        }
        if self.search.is_none()
            && self.filter.is_none()
            && let Some(mode) = self.anchor.take()
        {
            self.mode = mode;
            if let Mode::Paused { cursor, top, total } = mode
                && (cursor < self.window.first || cursor >= self.window.end)
            {
                self.jump(cursor, height);
                self.mode = Mode::Paused { cursor, top, total };
            }
        }
        true
    }

    /// Drop the filter, stay on the line.
    pub fn unfilter(&mut self, height: usize) {
        self.pause(height);
        if self.filter.is_some() {
            self.set_filter("");
            if let Mode::Paused { cursor, total, .. } = self.mode {
                if cursor < self.window.first || cursor >= self.window.end {
                    self.jump(cursor, height);
                } else if let Some(top) = self.entries.get(self.index(cursor).saturating_sub(height / 2)) {
                    self.mode = Mode::Paused { cursor, top: top.first, total };
                }
            }
        }
        self.anchor = None;
    }

    /// To the next (or the previous) match; from the end of the log the newest one. False when there is none.
    pub fn find(&mut self, forward: bool, height: usize) -> bool {
        let Some(search) = &self.search else { return false };
        let matches = &search.matches;
        let target = match (self.mode, self.current()) {
            (Mode::Paused { .. }, Some((entry, _))) if forward => {
                matches.get(matches.partition_point(|number| *number <= entry.last)).or(matches.front())
            }
            (Mode::Paused { .. }, Some((entry, _))) => {
                let before = matches.partition_point(|number| *number < entry.first).checked_sub(1);
                before.and_then(|place| matches.get(place)).or(matches.back())
            }
            _ if forward => matches.front(),
            _ => matches.back(),
        };
        let Some(target) = target.copied() else { return false };
        self.go(target, height);
        true
    }

    /// Which match the chosen line is, from 1, of how many.
    pub fn match_count(&self) -> Option<(usize, usize)> {
        let search = self.search.as_ref()?;
        let place = match (self.mode, self.current()) {
            (Mode::Paused { .. }, Some((entry, _))) => {
                let upto = search.matches.partition_point(|number| *number <= entry.last);
                let on = upto.checked_sub(1).and_then(|place| search.matches.get(place));
                if on.is_some_and(|number| *number >= entry.first) { upto } else { 0 }
            }
            _ => 0,
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
        self.choose(sources.get(next).cloned());
    }

    /// This source; none: whatever the run is doing.
    pub fn choose(&mut self, source: Option<String>) {
        self.chosen = source;
        self.search = None;
        self.filter = None;
        self.anchor = None;
        self.unfiltered = None;
    }
}
