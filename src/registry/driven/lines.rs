//! Output of a program as lines, however it was written: with carriage returns, colours, cursor movement, and cut at
//! any byte.

use crate::model::text::strip_control;

/// Longest line; a longer one comes in pieces.
const LONGEST: usize = 64 << 10;

/// Takes bytes as they come, gives whole lines. The same bytes give the same lines, wherever they are cut.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// What has become whole. White space at the beginning is kept, it can mean something; empty lines are not.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let (text, ended) = match piece.split_last() {
                Some((b'\n' | b'\r', text)) => (text, true),
                _ => (piece, false),
            };
            let mut rest = text;
            while let Some((fits, after)) = rest.split_at_checked(LONGEST - self.pending.len()) {
                self.pending.extend_from_slice(fits);
                self.flush(&mut lines);
                rest = after;
            }
            self.pending.extend_from_slice(rest);
            if ended {
                self.flush(&mut lines);
            }
        }
        lines
    }

    /// The program has ended: a last line without its end is a line too.
    pub fn end(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        self.flush(&mut lines);
        lines
    }

    fn flush(&mut self, lines: &mut Vec<String>) {
        let raw = std::mem::take(&mut self.pending);
        let text = String::from_utf8_lossy(&raw);
        for piece in drawn(&text) {
            let clean = strip_control(piece);
            let clean = clean.trim_end();
            if !clean.is_empty() {
                lines.push(clean.to_owned());
            }
        }
    }
}

/// A line that is drawn over others is as many lines as there are places at which it is drawn: a sequence that moves
/// the cursor or clears what is below begins a new one.
fn drawn(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut rest, mut from) = (text, 0);
    while let Some(at) = rest.get(from..).and_then(|tail| tail.find("\u{1b}[")).map(|at| at + from) {
        let after = rest.get(at + 2..).unwrap_or_default();
        let end = after.find(|c: char| !matches!(c, ' '..='?'));
        let (moves, next) = match end.and_then(|end| Some((after.get(end..)?.chars().next()?, end))) {
            Some((last, end)) => ("ABEFGHJf".contains(last), at + 2 + end + last.len_utf8()),
            None => (false, rest.len()),
        };
        if moves {
            pieces.push(rest.get(..at).unwrap_or_default());
            (rest, from) = (rest.get(next..).unwrap_or_default(), 0);
        } else {
            from = next;
        }
    }
    pieces.push(rest);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut found = lines.push(bytes);
        found.extend(lines.end());
        found
    }

    #[test]
    fn a_redrawn_screen_is_lines() {
        let text = "one\r\n\u{1b}[1;94m two\u{1b}[0m\n\u{1b}[2A\u{1b}[J ✓ three\n\u{1b}[K 10 %\r 20 %\rlast";
        assert_eq!(all(text.as_bytes()), ["one", " two", " ✓ three", " 10 %", " 20 %", "last"]);
        assert_eq!(all(b"bad \xff utf"), ["bad \u{fffd} utf"]);
        assert_eq!(all(b"\x1b[\n\x1b[3"), Vec::<String>::new());
    }

    proptest::proptest! {
        #[test]
        fn where_bytes_are_cut_does_not_matter(text in ".{0,200}", more in proptest::collection::vec(proptest::num::u8::ANY, 0..80), cut in 0usize..300) {
            let bytes = [text.as_bytes(), &more].concat();
            let (one, two) = bytes.split_at(cut.min(bytes.len()));
            let mut lines = Lines::default();
            let mut found = lines.push(one);
            found.extend(lines.push(two));
            found.extend(lines.end());
            proptest::prop_assert!(found.iter().all(|line| !line.chars().any(char::is_control)), "{:?}", found);
            proptest::prop_assert_eq!(found, all(&bytes));
        }
    }
}
