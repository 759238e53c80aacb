//! How fast things moved in the last minute: one sample a second, drawn as small columns.

use std::collections::VecDeque;

use jiff::Timestamp;

/// Samples that are kept.
const SAMPLES: usize = 60;

/// A counter that only grows, seen once a second.
#[derive(Debug, Clone, Default, PartialEq)]
struct Series {
    last: Option<u64>,
    steps: VecDeque<u64>,
}

impl Series {
    fn add(&mut self, value: u64) {
        let step = self.last.map(|last| value.saturating_sub(last));
        self.last = Some(value);
        self.steps.extend(step);
        if self.steps.len() > SAMPLES {
            self.steps.pop_front();
        }
    }
}

/// What is drawn: bytes of the image sync, lines of the log in view.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trend {
    bytes: Series,
    lines: Series,
    source: String,
    at: Option<Timestamp>,
}

impl Trend {
    /// A look at the counters; at most one a second counts.
    pub fn sample(&mut self, at: Timestamp, bytes: u64, source: &str, lines: u64) {
        if self.at.is_some_and(|before| at.duration_since(before).as_millis() < 900) {
            return;
        }
        if self.source != source {
            self.lines = Series::default();
            source.clone_into(&mut self.source);
        }
        self.at = Some(at);
        self.bytes.add(bytes);
        self.lines.add(lines);
    }

    /// The past is no part of it.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    pub fn bytes(&self, width: usize, ascii: bool) -> String {
        columns(&self.bytes.steps, width, ascii)
    }

    pub fn lines(&self, width: usize, ascii: bool) -> String {
        columns(&self.lines.steps, width, ascii)
    }

    /// Lines a second, over the last samples.
    pub fn line_rate(&self) -> Option<u64> {
        let last = self.lines.steps.iter().rev().take(5);
        let count = last.len() as u64;
        (count >= 3).then(|| last.sum::<u64>() / count)
    }
}

/// The newest `width` steps, each as high as its share of the largest; nothing before there are some.
fn columns(steps: &VecDeque<u64>, width: usize, ascii: bool) -> String {
    const UNICODE: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const ASCII: [char; 5] = ['_', '.', '-', '=', '#'];
    let marks: &[char] = if ascii { &ASCII } else { &UNICODE };
    let shown = steps.iter().skip(steps.len().saturating_sub(width));
    let most = shown.clone().max().copied().unwrap_or(0);
    if steps.len() < 3 || most == 0 {
        return String::new();
    }
    let top = marks.len() as u128 - 1;
    let mark = |step: &u64| {
        let height = (u128::from(*step) * top).div_ceil(u128::from(most));
        usize::try_from(height).ok().and_then(|height| marks.get(height)).copied().unwrap_or(' ')
    };
    shown.map(mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_step_is_the_highest_column() {
        let mut trend = Trend::default();
        for (second, value) in [0, 0, 10, 30, 70, 70].into_iter().enumerate() {
            let at = Timestamp::from_second(i64::try_from(second).unwrap()).unwrap();
            trend.sample(at, value, "sync", value);
            trend.sample(at, value + 1000, "sync", value);
        }
        assert_eq!(trend.bytes(10, false), "▁▃▅█▁");
        assert_eq!(trend.bytes(2, true), "#_");
        assert_eq!(trend.line_rate(), Some(14));
        trend.sample(Timestamp::from_second(9).unwrap(), 70, "installer", 5);
        assert_eq!(trend.lines(10, false), "");
    }
}
