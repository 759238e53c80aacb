//! Taking a line apart.

use std::collections::BTreeMap;

use regex::Regex;

use super::signature::Signature;

/// Bytes of a capture that are kept.
pub(super) const CAPTURE_LIMIT: usize = 300;

/// What a line said, by name.
pub(super) type Captures = BTreeMap<String, String>;

/// The texts behind which a mirror hid its error: `(Mirrors also failed: [REF: ERROR]…): REF: ERROR`, as
/// containers/image words it (docker_image_src.go). With several mirrors the parts are on lines of their own.
pub(super) fn behind_mirrors<'a>(text: &'a str, previous: Option<&str>) -> Vec<&'a str> {
    const OPENS: &str = "Mirrors also failed: [";
    const CLOSES: &str = "])";
    let rest = match text.find(OPENS) {
        Some(at) => text.get(at + OPENS.len()..),
        None => text.strip_prefix('[').filter(|_| {
            previous.is_some_and(|line| {
                (line.contains(OPENS) || line.starts_with('[')) && !line.contains(CLOSES) && line.ends_with(']')
            })
        }),
    };
    let Some(rest) = rest else { return Vec::new() };
    let inner = rest.rfind("]): ").or_else(|| rest.rfind(CLOSES)).and_then(|at| rest.get(..at));
    let inner = inner.unwrap_or_else(|| rest.strip_suffix(']').unwrap_or(rest));
    inner.split("]\n[").flat_map(|part| part.split("] [")).collect()
}

pub(super) fn captures(pattern: &Regex, text: &str) -> Option<Captures> {
    let found = pattern.captures(text)?;
    let named = pattern.capture_names().flatten();
    let kept = named.filter_map(|name| found.name(name).map(|value| (name, value.as_str().trim())));
    Some(
        kept.filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.to_owned(), cut(value, CAPTURE_LIMIT).to_owned()))
            .collect(),
    )
}

/// Look for names that are still missing.
pub(super) fn fill(signature: &Signature, text: &str, into: &mut Captures) {
    for pattern in &signature.fill {
        if pattern.capture_names().flatten().any(|name| !into.contains_key(name)) {
            for (name, value) in captures(pattern, text).unwrap_or_default() {
                into.entry(name).or_insert(value);
            }
        }
    }
}

/// At most `limit` bytes, whole characters.
pub(super) fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}
