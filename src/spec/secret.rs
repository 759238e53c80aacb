//! Values that must not be seen. A secret has no `Debug`, no `Display` and no `Serialize`.

use std::sync::{Arc, Mutex, OnceLock};

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
        if !known.iter().any(|have| have == part) {
            known.push(part.to_owned());
        }
    }
    known.sort_by_key(|part| std::cmp::Reverse(part.len()));
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
