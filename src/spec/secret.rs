//! Values that must not be seen. A secret has no `Debug`, no `Display` and no `Serialize`.

use std::sync::{Arc, Mutex, OnceLock};

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

/// The one process-wide table: secrets must be cleaned from text that knows nothing of where it came from
/// (log lines, errors of libraries), so there is no value to hand the table along with.
fn known() -> &'static Mutex<Vec<String>> {
    static KNOWN: OnceLock<Mutex<Vec<String>>> = OnceLock::new();
    KNOWN.get_or_init(|| Mutex::new(Vec::new()))
}

/// Have `text` redacted from now on wherever text leaves the process.
pub fn remember(text: &str) {
    let mut known = known().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for part in text.lines().map(str::trim).filter(|part| part.len() >= SHORTEST) {
        // A tool may have written it into JSON, and we that line into our own.
        let mut form = part.to_owned();
        for _ in 0..3 {
            let escaped = escape(&form);
            if !known.contains(&form) {
                known.push(form);
            }
            form = escaped;
        }
    }
    known.sort_by_key(|part| std::cmp::Reverse(part.len()));
}

/// What stands between the quotes when JSON holds `text`.
fn escape(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted.get(1..quoted.len() - 1).map_or_else(|| quoted.clone(), str::to_owned)
}

/// `text` with every known secret replaced.
pub fn redact(text: &str) -> String {
    let known = known().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut clean = text.to_owned();
    for secret in known.iter().filter(|secret| text.contains(secret.as_str())) {
        clean = clean.replace(secret.as_str(), "[redacted]");
    }
    clean
}

/// JSON `text` with every known secret replaced in its strings: one that has quotes or backslashes cannot break the shape.
pub fn redact_json(text: &str) -> String {
    let plainly = redact(text);
    if plainly == text {
        return plainly;
    }
    let Ok(mut value) = serde_json::from_str(text) else { return plainly };
    clean(&mut value);
    value.to_string()
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
        let text = redact_json(&serde_json::json!({ "text": said, "line": inner, "list": [secret] }).to_string());
        assert_eq!(
            text.parse::<Value>().unwrap(),
            serde_json::json!({ "text": "oc: [redacted]", "line": r#"{"password":"[redacted]"}"#, "list": ["[redacted]"] })
        );
        assert_eq!(redact(&inner), r#"{"password":"[redacted]"}"#);
    }
}
