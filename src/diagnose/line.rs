//! Taking a line apart.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::pattern::Pattern;
use super::signature::Signature;

/// Bytes of a capture that are kept.
pub(super) const CAPTURE_LIMIT: usize = 600;

/// What stands behind a message that a program or a task wrote into fields: zap's stack, Ansible's outputs, the place in
/// the source that logrus names.
const BEHIND: &[&str] = &[
    r#"","stacktrace":"#,
    r#"", "stderr_lines":"#,
    r#"", "stdout":"#,
    r#"", "stdout_lines":"#,
    r#"" func=github.com/"#,
    r#"" func="github.com/"#,
];

/// Between a message of klog and the error that it is about.
const ERR: &str = r#"" err=""#;

/// What openshift-install puts before `Error: ` of Terraform, on a terminal and elsewhere.
pub(super) const MARKS: [&str; 2] = ["ERROR ", "level=error msg="];

/// Bytes that the innermost part of an error chain needs to be understood by itself.
const INNERMOST: usize = 200;

/// Bytes from which on it may be a bound that ends a reason.
const BOUND: usize = 80;

/// The capture that says why.
pub(super) const WHY: &str = "why";

/// What a line said, by name.
pub(super) type Captures = BTreeMap<String, String>;

/// Quotes and line ends inside quoted messages, as often as they were quoted, and real line ends: a message that was
/// written as one is looked at as one.
pub(super) fn decoded(text: &str) -> Cow<'_, str> {
    if memchr::memchr2(b'\\', b'\n', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['\\', '\n']) {
        plain.push_str(rest.get(..at).unwrap_or(""));
        let tail = rest.get(at..).unwrap_or("");
        let after = tail.trim_start_matches('\\');
        let escapes = tail.len() > after.len();
        match after.chars().next() {
            Some('"' | '\'') if escapes => rest = after,
            Some('n' | 't') if escapes => {
                plain.push(' ');
                rest = after.get(1..).unwrap_or("");
            }
            Some('\n') => {
                plain.push(' ');
                rest = after.get(1..).unwrap_or("");
            }
            _ => {
                plain.push('\\');
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

/// Whether a line is the rest of the one before it, as AWS SDK v1 words its errors.
pub(super) fn goes_on(text: &str) -> bool {
    text.trim_start_matches(['>', ' ', '\t']).starts_with("caused by: ")
}

/// Closes the list of what mirrors said, see [`behind_mirrors`].
const CLOSES: &str = "])";

/// Whether a line by itself may be what a mirror said, see [`behind_mirrors`].
pub(super) fn is_mirrors_part(text: &str) -> bool {
    text.starts_with('[') && (text.ends_with(']') || text.contains(CLOSES))
}

/// The texts behind which a mirror hid its error: `(Mirrors also failed: [REF: ERROR]…): REF: ERROR`, as
/// containers/image words it (docker_image_src.go). With several mirrors the parts are on lines of their own.
pub(super) fn behind_mirrors<'a>(text: &'a str, previous: Option<&str>) -> Vec<&'a str> {
    const OPENS: &str = "Mirrors also failed: [";
    let opens =
        |line: &str| (line.contains(OPENS) || line.starts_with('[')) && !line.contains(CLOSES) && line.ends_with(']');
    let rest = match text.find(OPENS) {
        Some(at) => text.get(at + OPENS.len()..),
        None if is_mirrors_part(text) && previous.is_some_and(opens) => text.get(1..),
        None => None,
    };
    let Some(rest) = rest else { return Vec::new() };
    let inner = rest.rfind("]): ").or_else(|| rest.rfind(CLOSES)).and_then(|at| rest.get(..at));
    let inner = inner.unwrap_or_else(|| rest.strip_suffix(']').unwrap_or(rest));
    inner.split("]\n[").flat_map(|part| part.split("] [")).collect()
}

pub(super) fn captures(pattern: &Pattern, text: &str) -> Option<Captures> {
    let found = pattern.captures(text)?;
    let named = pattern.names();
    let kept = named.filter_map(|name| {
        let value = found.name(name)?;
        let end = if name == WHY { whole_words(text, value.range()) } else { value.end() };
        Some((name, without_ends(text.get(value.start()..end)?)))
    });
    Some(
        kept.filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.to_owned(), shortened(value, CAPTURE_LIMIT).replace(ERR, ": ")))
            .collect(),
    )
}

/// Where a reason ends. The bound of a pattern may stop it within a word: then it is the rest of the line, to be shortened
/// as others are.
fn whole_words(text: &str, value: Range<usize>) -> usize {
    let is_letter = |at: usize| text.as_bytes().get(at).is_some_and(u8::is_ascii_alphanumeric);
    let inside = value.len() >= BOUND && is_letter(value.end - 1) && is_letter(value.end);
    if inside { text.len() } else { value.end }
}

/// Without what stands behind the message.
fn message(text: &str) -> &str {
    BEHIND.iter().fold(text, |text, fields| text.split_once(fields).map_or(text, |(message, _)| message))
}

/// Without what stands behind it, and the ends of quotes that began before it.
fn without_ends(text: &str) -> &str {
    let text = message(text).trim();
    let ends = |quote: &&char| text.ends_with(**quote) && text.matches(**quote).count() % 2 == 1;
    match ['"', '\''].iter().find(ends) {
        Some(quote) => without_ends(text.strip_suffix(*quote).unwrap_or(text)),
        None => text,
    }
}

/// Look for names that are still missing.
pub(super) fn fill(signature: &Signature, text: &str, into: &mut Captures) {
    for pattern in &signature.fill {
        if pattern.names().any(|name| !into.contains_key(name)) {
            for (name, value) in captures(pattern, text).unwrap_or_default() {
                into.entry(name).or_insert(value);
            }
        }
    }
}

/// At most about `limit` bytes of a line: the whole where it is short enough, else the innermost parts of its error.
pub(super) fn quoted(text: &str, limit: usize) -> String {
    let whole = without_mark(text);
    if whole.len() <= limit {
        return whole.to_owned();
    }
    let whole = without_repeats(whole);
    shortened(if whole.len() <= limit { &whole } else { innermost(&whole) }, limit)
}

/// The message without what says that it is an error.
fn without_mark(text: &str) -> &str {
    let marks = ["[ERROR]", "│", ":", "Error:", "error:", "fatal:"];
    marks.iter().fold(message(text).trim(), |text, mark| text.strip_prefix(mark).unwrap_or(text).trim_start())
}

/// The innermost parts of an error chain, as many as can be understood by themselves.
pub(super) fn innermost(text: &str) -> &str {
    let text = without_mark(text);
    let tail = text.rmatch_indices(": ").filter_map(|(at, _)| text.get(at + 2..)).find(|tail| tail.len() >= INNERMOST);
    tail.unwrap_or(text)
}

/// At most about `limit` bytes. Of what is longer each kind of part once, and of what is still longer the beginning and the
/// end: error chains say at the end why.
pub(super) fn shortened(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let text = without_repeats(text);
    if text.len() <= limit {
        return text;
    }
    let end = text.get(text.ceil_char_boundary(text.len() - limit * 2 / 3)..).unwrap_or("");
    format!("{} ... {end}", cut(&text, limit / 3).trim_end())
}

/// A list without the parts that say what one before them has said, of another name or not.
fn without_repeats(text: &str) -> String {
    let mut said = BTreeSet::new();
    let parts = text.split_inclusive([',', ';']).filter(|part| {
        // What stands in quotes, and numbers, are the names, but for the fields of JSON.
        let is_field = part.trim_start_matches([' ', '{', '[']).starts_with('"') && part.contains("\":");
        let step = if is_field { 1 } else { 2 };
        let unquoted = part.split('"').step_by(step).flat_map(str::chars);
        said.insert(unquoted.filter(|letter| letter.is_alphabetic()).collect::<String>())
    });
    parts.collect::<String>().trim_end_matches([',', ';', ' ']).to_owned()
}

/// At most `limit` bytes, whole characters.
pub(super) fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_that_a_bound_stops_within_a_word_goes_on_to_its_end() {
        let text = format!("failed: {} /var/lib/image: Permission denied", "a path ".repeat(20));
        let reason = |end: usize| text.get(..whole_words(&text, 0..end));
        // Within `path`, behind it, and what is too short to have been bounded.
        assert_eq!(reason(96), Some(&*text));
        assert_eq!(reason(98), text.get(..98));
        assert_eq!(reason(3), Some("fai"));
    }
}
