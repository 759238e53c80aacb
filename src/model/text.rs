//! Remote text is hostile: what came from another machine is cleaned here before it becomes an event.
//!
//! Pure. Two things can be done to a text: take out all that would steer a terminal or reorder what is read, and
//! bring it to one line of a bounded length.

/// `text` without control sequences (CSI, OSC, DCS and their C1 forms), other control characters, and characters that
/// are not seen but change what is seen (bidirectional overrides, zero-width marks, tags). Newlines stay, a tab
/// becomes a space, a carriage return is dropped.
pub fn strip_control(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\n' => clean.push('\n'),
            '\t' | '\u{2028}' | '\u{2029}' => clean.push(' '),
            '\u{1b}' => match chars.next() {
                Some('[') => skip_csi(&mut chars),
                Some(']' | 'P' | 'X' | '^' | '_') => skip_string(&mut chars),
                // Intermediate bytes, then one final byte.
                Some(' '..='/') => while chars.next().is_some_and(|c| (' '..='/').contains(&c)) {},
                _ => {}
            },
            '\u{9b}' => skip_csi(&mut chars),
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => skip_string(&mut chars),
            c if c.is_control() || is_invisible(c) => {}
            c => clean.push(c),
        }
    }
    clean
}

/// `$0.43` of millionths of a dollar; what is less than a cent has a third figure.
pub fn dollars(micro: u64) -> String {
    if micro > 0 && micro < 10_000 {
        return format!("${:.3}", micro as f64 / 1e6);
    }
    let cents = micro.saturating_add(5_000) / 10_000;
    format!("${}.{:02}", cents / 100, cents % 100)
}

/// `text` cleaned as by [`strip_control`], on one line, of at most `limit` bytes; what was cut is counted at the end.
pub fn one_line(text: &str, limit: usize) -> String {
    let mut line =
        if is_plain(text) { text.trim_end().to_owned() } else { strip_control(text).trim_end().replace('\n', " ") };
    if line.len() > limit {
        let cut = line.floor_char_boundary(limit);
        let more = line.len() - cut;
        line.truncate(cut);
        line.push_str(&format!("… [{more} bytes more]"));
    }
    line
}

/// `text` as it stands in XML and HTML, between tags and in attributes. What XML cannot hold at all is left out.
pub fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => out.push(c),
        }
    }
    out
}

/// Printable ASCII on one line, as nearly every line of a log is: there is nothing to clean.
fn is_plain(text: &str) -> bool {
    // No early end: this is looked at many bytes at a time.
    text.bytes().fold(true, |plain, byte| plain & (b' '..=b'~').contains(&byte))
}

/// Up to the final byte of a control sequence. A sequence that never ends eats at most what cannot be part of one.
fn skip_csi(chars: &mut std::str::Chars<'_>) {
    loop {
        let ahead = chars.clone().next();
        match ahead {
            Some(' '..='?') => {
                chars.next();
            }
            Some('@'..='~') => {
                chars.next();
                return;
            }
            _ => return,
        }
    }
}

/// Up to the string terminator (BEL, ST, `ESC \`). One without end goes to the end of its line, not further.
fn skip_string(chars: &mut std::str::Chars<'_>) {
    while let Some(c) = chars.clone().next() {
        if c == '\n' {
            return;
        }
        chars.next();
        match c {
            '\u{7}' | '\u{9c}' => return,
            '\u{1b}' => {
                if chars.clone().next() == Some('\\') {
                    chars.next();
                }
                return;
            }
            _ => {}
        }
    }
}

/// Not ink, and yet it changes what is read: marks of direction, zero-width characters, tags. Joiners are not meant.
pub fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_go_and_words_stay() {
        for (given, want) in [
            ("\u{1b}[1;31mERROR\u{1b}[0m disk", "ERROR disk"),
            ("\u{9b}31mred", "red"),
            ("\u{1b}]0;owned\u{7}title", "title"),
            ("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("\u{1b}Pq#0\u{1b}\\after", "after"),
            ("\u{1b}(Bcharset", "charset"),
            ("\u{1b}cfull reset", "full reset"),
            ("a\u{202e}b\u{2066}c\u{200b}d", "abcd"),
            ("bell\u{7}back\u{8}space\r\nnext\tcolumn", "bellbackspace\nnext column"),
            ("\u{1b}[12", ""),
            ("\u{1b}]never ends\nnext", "\nnext"),
            ("tab\u{0}null", "tabnull"),
            ("größe 大 🚀", "größe 大 🚀"),
        ] {
            assert_eq!(strip_control(given), want, "{given:?}");
        }
    }

    #[test]
    fn a_long_line_is_cut_at_a_character_and_says_so() {
        assert_eq!(one_line("one\ntwo\n", 100), "one two");
        assert_eq!(one_line("ääää", 5), "ää… [4 bytes more]");
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(1000))]
        #[test]
        fn nothing_that_steers_a_terminal_is_left(text in proptest::string::string_regex("(?s).{0,80}").unwrap(), raw: Vec<u8>) {
            for text in [text, String::from_utf8_lossy(&raw).into_owned()] {
                let clean = strip_control(&text);
                proptest::prop_assert!(!clean.chars().any(|c| c != '\n' && c.is_control()));
                proptest::prop_assert_eq!(strip_control(&clean), clean.clone());
                proptest::prop_assert!(!one_line(&text, 20).contains('\n'));
            }
        }
    }
}
