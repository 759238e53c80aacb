//! Values that must not be seen. A secret has no `Debug`, no `Display` and no `Serialize`.

use std::borrow::Cow;
use std::sync::{Arc, PoisonError, RwLock};

use aho_corasick::{AhoCorasick, MatchKind};
use serde_json::Value;

/// A secret text. It registers itself with the redactor as it is made, so that every way out of the process can be
/// cleaned of it by [`redact`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

/// Shorter texts are not redacted: they would eat ordinary words.
const SHORTEST: usize = 6;

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        let text: String = text.into();
        remember(&text);
        Self(Arc::from(text))
    }

    /// A larger text that holds secrets which are known already (an install-config, a script's input). Its own lines are
    /// ordinary words and are not redacted.
    pub fn holding(text: impl Into<String>) -> Self {
        Self(Arc::from(text.into()))
    }

    /// The value itself. Every use is a place to review.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// The secrets that are known, the longest first, and the one automaton that looks for all of them.
#[derive(Default)]
struct Known {
    secrets: Vec<String>,
    /// Made when it is first needed after a secret was added.
    finder: Option<Arc<Finder>>,
}

enum Finder {
    /// Every line of every log goes through here: one pass over it, however many secrets there are.
    Automaton(AhoCorasick),
    /// Too much for an automaton.
    OneByOne(Vec<String>),
}

impl Finder {
    fn new(secrets: &[String]) -> Self {
        let built = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(secrets);
        built.map_or_else(|_| Self::OneByOne(secrets.to_vec()), Self::Automaton)
    }

    fn is_in(&self, text: &str) -> bool {
        match self {
            Self::Automaton(automaton) => automaton.is_match(text),
            Self::OneByOne(secrets) => secrets.iter().any(|secret| text.contains(secret)),
        }
    }

    fn replace(&self, text: &str) -> String {
        match self {
            Self::Automaton(automaton) => {
                let mut clean = String::with_capacity(text.len());
                automaton.replace_all_with(text, &mut clean, |_, _, clean| {
                    clean.push_str(REDACTED);
                    true
                });
                clean
            }
            Self::OneByOne(secrets) => {
                secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), REDACTED))
            }
        }
    }
}

const REDACTED: &str = "[redacted]";

/// The one process-wide table: secrets must be cleaned from text that knows nothing of where it came from
/// (log lines, errors of libraries), so there is no value to hand the table along with.
static KNOWN: RwLock<Known> = RwLock::new(Known { secrets: Vec::new(), finder: None });

/// `None` when no secret is known.
fn finder() -> Option<Arc<Finder>> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    if known.finder.is_some() || known.secrets.is_empty() {
        return known.finder.clone();
    }
    drop(known);
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    let Known { secrets, finder } = &mut *known;
    Some(Arc::clone(finder.get_or_insert_with(|| Arc::new(Finder::new(secrets)))))
}

/// Have `text` redacted from now on wherever text leaves the process.
pub fn remember(text: &str) {
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    let Known { secrets, finder } = &mut *known;
    for part in text.lines().map(str::trim).filter(|part| part.len() >= SHORTEST) {
        // A tool may have written it into JSON, and we that line into our own.
        let mut form = part.to_owned();
        for _ in 0..3 {
            let escaped = escape(&form);
            if !secrets.contains(&form) {
                secrets.push(form);
                *finder = None;
            }
            form = escaped;
        }
    }
    secrets.sort_by_key(|part| std::cmp::Reverse(part.len()));
}

/// What stands between the quotes when JSON holds `text`.
fn escape(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted.get(1..quoted.len() - 1).map_or_else(|| quoted.clone(), str::to_owned)
}

/// `text` with every known secret replaced.
pub fn redact(text: &str) -> String {
    redacted(Cow::Borrowed(text)).into_owned()
}

/// As [`redact`], without a copy where there is nothing to take out.
pub fn redacted(text: Cow<'_, str>) -> Cow<'_, str> {
    match finder().filter(|finder| finder.is_in(&text)) {
        Some(finder) => Cow::Owned(finder.replace(&text)),
        None => text,
    }
}

/// JSON `text` with every known secret replaced in its strings: one that has quotes or backslashes cannot break the shape.
pub fn redact_json(text: &str) -> Cow<'_, str> {
    let Some(finder) = finder().filter(|finder| finder.is_in(text)) else { return Cow::Borrowed(text) };
    let Ok(mut value) = serde_json::from_str(text) else { return Cow::Owned(finder.replace(text)) };
    clean(&mut value);
    Cow::Owned(value.to_string())
}

fn clean(value: &mut Value) {
    match value {
        Value::String(text) => *text = redact(text),
        Value::Array(items) => items.iter_mut().for_each(clean),
        Value::Object(fields) => {
            let cleaned = std::mem::take(fields).into_iter().map(|(key, mut value)| {
                clean(&mut value);
                (redact(&key), value)
            });
            *fields = cleaned.collect();
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_with_quotes_is_found_in_json_too_and_breaks_none() {
        let secret = r#"ca"na\ry'tail\"#;
        remember(secret);
        let said = format!("oc: {secret}");
        let inner = serde_json::json!({ "password": secret }).to_string();
        let given = serde_json::json!({ "text": said, "line": inner, "list": [secret] }).to_string();
        let text = redact_json(&given);
        assert_eq!(
            text.parse::<Value>().unwrap(),
            serde_json::json!({ "text": "oc: [redacted]", "line": r#"{"password":"[redacted]"}"#, "list": ["[redacted]"] })
        );
        assert_eq!(redact(&inner), r#"{"password":"[redacted]"}"#);
    }
}
