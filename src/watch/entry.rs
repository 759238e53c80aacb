//! One entry of a journal, as `journalctl -o json` prints it. Pure.
//!
//! The format is the one of systemd 239 to 257: systemd's docs/JOURNAL_EXPORT_FORMATS.md, "Journal JSON Format".

use jiff::Timestamp;
use serde_json::Value;

use crate::model::event::{Level, LogLine};
use crate::model::text::one_line;
use crate::spec::secret::redact;

/// Longest text of a line, in bytes. journald itself cuts at 48 KiB.
pub const LINE_LIMIT: usize = 16 * 1024;

/// Why a line of `journalctl -o json` could not be read.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum JournalError {
    #[error("a journal line is no JSON object: {why} at column {column}")]
    Json { column: usize, why: String },
    #[error("a journal line's {field} should be {wanted}, found {found}")]
    Field { field: &'static str, wanted: &'static str, found: String },
}

/// An entry of the journal, decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub at: Timestamp,
    pub boot: String,
    pub cursor: String,
    /// Without `.service`.
    pub unit: String,
    pub identifier: String,
    /// Set on lines that podman's journald log driver wrote.
    pub container: Option<String>,
    pub level: Level,
    /// One line, clean, at most [`LINE_LIMIT`] bytes.
    pub text: String,
}

impl Entry {
    /// Decode one line of output.
    pub fn parse(line: &[u8]) -> Result<Self, JournalError> {
        let fields: serde_json::Map<String, Value> = serde_json::from_slice(line)
            .map_err(|error| JournalError::Json { column: error.column(), why: kind_of(&error) })?;
        let text_of = |key: &str| fields.get(key).map(decode).unwrap_or_default();
        let cursor = text_of("__CURSOR");
        if cursor.is_empty() {
            return Err(JournalError::Field { field: "__CURSOR", wanted: "a cursor", found: "nothing".into() });
        }
        let stamp = text_of("__REALTIME_TIMESTAMP");
        let at = stamp.parse().ok().and_then(|micros| Timestamp::from_microsecond(micros).ok()).ok_or_else(|| {
            JournalError::Field {
                field: "__REALTIME_TIMESTAMP",
                wanted: "microseconds since the epoch",
                found: if stamp.is_empty() { "nothing".into() } else { format!("{:?}", one_line(&stamp, 80)) },
            }
        })?;
        // PID 1 speaks about units from its own scope; the unit that it means is in UNIT.
        let (by_manager, own) = (text_of("UNIT"), text_of("_SYSTEMD_UNIT"));
        let manager = text_of("_PID") == "1" && !by_manager.is_empty();
        let unit = if manager { by_manager } else { own };
        let identifier = one_line(&text_of("SYSLOG_IDENTIFIER"), 80);
        let unit = one_line(unit.strip_suffix(".service").unwrap_or(&unit), 80);
        let text = redact(&one_line(&text_of("MESSAGE"), LINE_LIMIT));
        Ok(Self {
            at,
            boot: text_of("_BOOT_ID"),
            cursor: one_line(&cursor, 512),
            unit: if unit.is_empty() { identifier.clone() } else { unit },
            identifier,
            container: fields.get("CONTAINER_NAME").map(decode).filter(|name| !name.is_empty()),
            level: own_level(&text).unwrap_or_else(|| level_of(&text_of("PRIORITY"))),
            text,
        })
    }

    /// The same line is in the journal a second time, or is podman's chatter about a container's life.
    ///
    /// Up to 4.20 podman writes what bootkube's containers say to the journal, and bootkube.sh says it again.
    pub fn is_duplicate(&self) -> bool {
        self.unit == "bootkube" && (self.container.is_some() || self.identifier == "podman")
    }

    pub fn into_line(self) -> LogLine {
        LogLine { at: self.at, unit: self.unit, level: self.level, text: self.text, cursor: Some(self.cursor) }
    }
}

/// The sort of a JSON error without the input in it and without its place, which is given apart.
fn kind_of(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or("unreadable").to_owned()
}

/// A field comes as a string; as bytes when it is not printable; as an array of these when it occurs more than once;
/// as null when it is too long and `--all` was not given.
fn decode(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "[too long for the journal's output]".to_owned(),
        Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_number) => {
            let bytes: Vec<u8> =
                items.iter().map(|item| item.as_u64().and_then(|n| u8::try_from(n).ok()).unwrap_or(b'?')).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        Value::Array(items) => items.iter().map(decode_once).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// One occurrence of a repeated field; it may be bytes again, but no deeper.
fn decode_once(value: &Value) -> String {
    match value {
        Value::Array(items) if items.iter().any(|item| !item.is_number()) => value.to_string(),
        Value::Array(_) | Value::String(_) => decode(value),
        other => other.to_string(),
    }
}

fn level_of(priority: &str) -> Level {
    match priority {
        "0" | "1" | "2" | "3" => Level::Error,
        "4" => Level::Warn,
        "7" => Level::Debug,
        _ => Level::Info,
    }
}

/// The level that the text itself carries: kubelet (klog) and crio (logrus) write all levels with one PRIORITY.
fn own_level(text: &str) -> Option<Level> {
    if let Some(rest) = text.strip_prefix("time=") {
        let level = rest.split_once(" level=")?.1.split(' ').next()?;
        return match level {
            "trace" | "debug" => Some(Level::Debug),
            "info" => Some(Level::Info),
            "warning" => Some(Level::Warn),
            "error" | "fatal" | "panic" => Some(Level::Error),
            _ => None,
        };
    }
    let (letter, rest) = text.split_at_checked(1)?;
    let digits = rest.get(..4)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) || rest.as_bytes().get(4) != Some(&b' ') {
        return None;
    }
    match letter {
        "I" => Some(Level::Info),
        "W" => Some(Level::Warn),
        "E" | "F" => Some(Level::Error),
        _ => None,
    }
}
