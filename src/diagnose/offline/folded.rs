//! Messages that YAML has broken into several lines, as `oc get -o yaml` prints them: the reason stands on the last one.

/// Lines that are put together at most, and bytes.
const LINES: usize = 40;
const BYTES: usize = 16 << 10;

/// `message: words` whose value may go on below it.
#[derive(Debug)]
pub(super) struct Folded {
    /// Where it began.
    pub number: u64,
    pub line: Vec<u8>,
    /// Of its key.
    indent: usize,
    lines: usize,
}

impl Folded {
    pub fn begins(line: &[u8], number: u64) -> Option<Self> {
        let rest = line.trim_ascii_start();
        let value = rest.strip_prefix(b"- ").unwrap_or(rest);
        value.starts_with(b"message: ").then(|| Self {
            number,
            line: line.to_vec(),
            indent: line.len() - value.len(),
            lines: 1,
        })
    }

    /// A line that stands deeper than the key goes on with its value.
    pub fn takes(&mut self, line: &[u8]) -> bool {
        let rest = line.trim_ascii();
        let deeper = line.len() - line.trim_ascii_start().len() > self.indent;
        if rest.is_empty() || !deeper || self.lines >= LINES || self.line.len() + rest.len() > BYTES {
            return false;
        }
        self.lines += 1;
        self.line.push(b' ');
        self.line.extend_from_slice(rest);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_ends_where_the_next_key_stands() {
        let text = "  - lastTransitionTime: \"2025-04-18T08:01:49Z\"\n    message: 'Node a is reporting: \"failed\n      to \
                    retrieve: no such user\"'\n    reason: 1 nodes";
        let mut lines = text.lines().zip(1..);
        assert!(lines.by_ref().take(1).all(|(line, number)| Folded::begins(line.as_bytes(), number).is_none()));
        let (line, number) = lines.next().unwrap();
        let mut folded = Folded::begins(line.as_bytes(), number).unwrap();
        let taken = lines.map(|(line, _)| folded.takes(line.as_bytes())).collect::<Vec<_>>();
        assert_eq!(taken, [true, false]);
        let whole = String::from_utf8_lossy(&folded.line);
        assert_eq!(whole, "    message: 'Node a is reporting: \"failed to retrieve: no such user\"'");
    }

    #[test]
    fn an_entry_of_a_list_has_its_key_behind_the_dash() {
        let mut folded = Folded::begins(b"- message: one", 1).unwrap();
        assert!(!folded.takes(b"  reason: two"));
        assert!(folded.takes(b"    and more"));
    }
}
