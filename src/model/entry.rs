//! One entry of a journal, as `journalctl -o json` prints it. Pure.
//!
//! The format is the one of systemd 239 to 257: systemd's docs/JOURNAL_EXPORT_FORMATS.md, "Journal JSON Format".

use std::borrow::Cow;

use jiff::Timestamp;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::event::{Level, LogLine};
use super::text::one_line;
use crate::spec::secret;

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
        if line.trim_ascii_start().first() != Some(&b'{') {
            return Err(JournalError::Json { column: 1, why: "expected an object".into() });
        }
        let fields = Fields::read(line)?;
        if fields.cursor.is_empty() {
            return Err(JournalError::Field { field: "__CURSOR", wanted: "a cursor", found: "nothing".into() });
        }
        let stamp = &fields.realtime.0;
        let at = fields.at().ok_or_else(|| JournalError::Field {
            field: "__REALTIME_TIMESTAMP",
            wanted: "microseconds since the epoch",
            found: if stamp.is_empty() { "nothing".into() } else { format!("{:?}", one_line(stamp, 80)) },
        })?;
        let text = one_line(&fields.message.0, LINE_LIMIT);
        let text = match secret::redacted(Cow::Borrowed(&text)) {
            Cow::Borrowed(_) => text,
            Cow::Owned(clean) => clean,
        };
        Ok(Self {
            at,
            unit: fields.unit(),
            identifier: one_line(&fields.identifier.0, 80),
            cursor: one_line(&fields.cursor.0, 512),
            boot: fields.boot.0.into_owned(),
            container: Some(fields.container.0.into_owned()).filter(|name| !name.is_empty()),
            level: own_level(&text).unwrap_or_else(|| level_of(&fields.priority.0)),
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

/// What somebody kept of an entry: any field may be missing, and nothing is left out of the text.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    pub at: Option<Timestamp>,
    pub unit: String,
    pub text: String,
}

impl Kept {
    /// `None` when the line is no entry of a journal.
    pub fn parse(line: &[u8]) -> Option<Self> {
        if !line.starts_with(b"{") || memchr::memmem::find(line, b"\"MESSAGE\"").is_none() {
            return None;
        }
        let fields = Fields::read(line).ok()?;
        Some(Self { at: fields.at(), unit: fields.unit(), text: fields.message.0.into_owned() })
    }
}

/// The fields of an entry that are asked for.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields<'a> {
    #[serde(rename = "__CURSOR", borrow)]
    cursor: Field<'a>,
    #[serde(rename = "__REALTIME_TIMESTAMP", borrow)]
    realtime: Field<'a>,
    #[serde(rename = "_BOOT_ID", borrow)]
    boot: Field<'a>,
    #[serde(rename = "_PID", borrow)]
    pid: Field<'a>,
    #[serde(rename = "UNIT", borrow)]
    about: Field<'a>,
    #[serde(rename = "_SYSTEMD_UNIT", borrow)]
    unit: Field<'a>,
    #[serde(rename = "SYSLOG_IDENTIFIER", borrow)]
    identifier: Field<'a>,
    #[serde(rename = "CONTAINER_NAME", borrow)]
    container: Field<'a>,
    #[serde(rename = "PRIORITY", borrow)]
    priority: Field<'a>,
    #[serde(rename = "MESSAGE", borrow)]
    message: Field<'a>,
}

impl<'a> Fields<'a> {
    fn read(line: &'a [u8]) -> Result<Self, JournalError> {
        serde_json::from_slice(line)
            .map_err(|error| JournalError::Json { column: error.column(), why: kind_of(&error) })
    }

    fn at(&self) -> Option<Timestamp> {
        self.realtime.0.parse().ok().and_then(|micros| Timestamp::from_microsecond(micros).ok())
    }

    /// Without `.service`. PID 1 speaks about units from its own scope; the unit that it means is in UNIT.
    fn unit(&self) -> String {
        let manager = self.pid.0 == "1" && !self.about.is_empty();
        let unit = if manager { &self.about } else { &self.unit };
        let unit = if unit.is_empty() { &self.identifier } else { unit };
        one_line(unit.0.strip_suffix(".service").unwrap_or(&unit.0), 80)
    }
}

/// A field as text, in whatever shape it came; empty when it is not there. Most are plain strings and are not copied.
#[derive(Default)]
struct Field<'a>(Cow<'a, str>);

impl Field<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Field<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shapes;

        impl<'de> Visitor<'de> for Shapes {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a field of a journal entry")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Cow::Owned(decode(&Value::Null)))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
                Ok(Cow::Owned(value.to_string()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(Cow::Owned(number.to_string()))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
                Ok(Cow::Owned(number.to_string()))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
                Ok(Cow::Owned(number.to_string()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
                Value::deserialize(SeqAccessDeserializer::new(items)).map(|value| Cow::Owned(decode(&value)))
            }
            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Self::Value, A::Error> {
                Value::deserialize(MapAccessDeserializer::new(fields)).map(|value| Cow::Owned(decode(&value)))
            }
        }

        deserializer.deserialize_any(Shapes).map(Field)
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
        return Level::of(rest.split_once(" level=")?.1.split(' ').next()?);
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
