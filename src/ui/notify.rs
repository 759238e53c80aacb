//! Sequences that the terminal acts on: window title, notification, clipboard. Everything in them is cleaned first.

use base64::Engine;

use super::text::printable;

/// Most bytes of an OSC 52 payload: terminals cut longer ones silently (k9s and its clipboard library stop here too).
const CLIPBOARD_LIMIT: usize = 74_994;

/// Inside tmux a sequence for the outer terminal is wrapped, and its escapes are doubled.
fn wrapped(sequence: String, tmux: bool) -> String {
    if tmux { format!("\u{1b}Ptmux;{}\u{1b}\\", sequence.replace('\u{1b}', "\u{1b}\u{1b}")) } else { sequence }
}

/// OSC 0, icon name and window title.
pub fn title(text: &str) -> String {
    format!("\u{1b}]0;{}\u{7}", printable(text))
}

/// OSC 9 and a bell.
pub fn notification(title: &str, body: &str, tmux: bool) -> String {
    let text: String = format!("{title}: {body}").chars().take(200).collect();
    // ConEmu reads `9;` followed by a number and `;` as another command.
    let text = printable(&text).replace(';', ",");
    format!("{}\u{7}", wrapped(format!("\u{1b}]9;{text}\u{7}"), tmux))
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
        assert_eq!(notification("a;b", hostile, false), "\u{1b}]9;a,b: xy\u{7}\u{7}");
        assert_eq!(clipboard("one\u{1b}[31m\ntwo", false).unwrap(), "\u{1b}]52;c;b25lCnR3bw==\u{7}");
        assert!(clipboard(&"a".repeat(60_000), false).is_none());
        assert_eq!(clipboard("a", true).unwrap(), "\u{1b}Ptmux;\u{1b}\u{1b}]52;c;YQ==\u{7}\u{1b}\\");
    }
}
