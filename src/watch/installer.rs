//! The installer's own log, `.openshift_install.log`: logrus text, one message per line, always at trace level.
//!
//! [`parse`] and [`Phases`] are pure. Which message begins which phase is data (`assets/installer.toml`). The log ends
//! with the kubeadmin password in clear: it is taken out before a line leaves this file.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::{Stream, StreamExt};
use jiff::{SignedDuration, Timestamp};
use regex::Regex;
use serde::Deserialize;

use crate::host::tail::{self, TailItem, Until};
use crate::host::{Host, HostError};
use crate::model::event::{Data, Level, LogLine, Observed};
use crate::model::run::InstallerPhase;
use crate::model::text::one_line;
use crate::record::Sink;
use crate::spec::secret;

use super::Out;

/// Name of the source in the record.
pub const SOURCE: &str = "installer";
const UNIT: &str = "installer";
const LINE_LIMIT: usize = 16 * 1024;
const MESSAGE_LIMIT: usize = 600;
const BATCH: usize = 256;
const BATCH_PAUSE: Duration = Duration::from_millis(100);

/// A line of the log. The message is unquoted, on one line, clean, and without the password.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub at: Timestamp,
    pub level: Level,
    pub message: String,
    /// `key=value` fields after the message, as they are.
    pub fields: String,
}

#[derive(Debug, thiserror::Error, PartialEq)]
pub enum LineError {
    #[error("an installer log line should begin with {wanted} at column {column}")]
    Shape { column: usize, wanted: &'static str },
    #[error("an installer log line has no time at column {column}, found {found:?}")]
    Time { column: usize, found: String },
    #[error("an installer log line has no level at column {column}, found {found:?}")]
    Level { column: usize, found: String },
    #[error("the message of an installer log line is not closed: no quote after column {column}")]
    Open { column: usize },
}

/// Read one line: `time="2025-03-01T10:00:00Z" level=info msg="…" key=value`.
///
/// # Errors
/// Says at which column (from 1) it stopped being one.
pub fn parse(line: &str) -> Result<Entry, LineError> {
    let place = |rest: &str| line.len() - rest.len() + 1;
    let shape = |rest: &str, wanted| LineError::Shape { column: place(rest), wanted };
    let rest = line.strip_prefix("time=").ok_or(LineError::Shape { column: 1, wanted: "time=" })?;
    let (stamp, after) = word(rest).ok_or(LineError::Open { column: place(rest) })?;
    let at = stamp.parse().map_err(|_| LineError::Time { column: place(rest), found: one_line(&stamp, 60) })?;
    let rest = after.strip_prefix(" level=").ok_or_else(|| shape(after, " level="))?;
    let (level, after) = word(rest).ok_or(LineError::Open { column: place(rest) })?;
    let wrong = || LineError::Level { column: place(rest), found: one_line(&level, 60) };
    let level = Level::of(&level).ok_or_else(wrong)?;
    let rest = after.strip_prefix(" msg=").ok_or_else(|| shape(after, " msg="))?;
    let (message, after) = word(rest).ok_or(LineError::Open { column: place(rest) })?;
    Ok(Entry { at, level, message: clean(&message), fields: clean(after) })
}

/// A word of logrus: quoted as Go's `%q` does, or bare up to the next space. Also what follows it.
fn word(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(' ').unwrap_or(text.len());
        return Some((text.get(..end)?.to_owned(), text.get(end..)?));
    };
    let mut value = Vec::with_capacity(quoted.len());
    let mut chars = quoted.char_indices();
    while let Some((place, c)) = chars.next() {
        match c {
            '"' => return Some((String::from_utf8_lossy(&value).into_owned(), quoted.get(place + 1..)?)),
            '\\' => {
                let (_, escape) = chars.next()?;
                let digits = match escape {
                    'x' => 2,
                    'u' => 4,
                    'U' => 8,
                    _ => 0,
                };
                if digits > 0 {
                    let code: String = (0..digits).map_while(|_| chars.next().map(|(_, digit)| digit)).collect();
                    let code = u32::from_str_radix(&code, 16).unwrap_or(u32::from('\u{fffd}'));
                    match u8::try_from(code) {
                        Ok(byte) if digits == 2 => value.push(byte),
                        _ => push(&mut value, char::from_u32(code).unwrap_or('\u{fffd}')),
                    }
                    continue;
                }
                push(
                    &mut value,
                    match escape {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        'a' => '\u{7}',
                        'b' => '\u{8}',
                        'f' => '\u{c}',
                        'v' => '\u{b}',
                        other => other,
                    },
                );
            }
            c => push(&mut value, c),
        }
    }
    None
}

fn push(bytes: &mut Vec<u8>, c: char) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

static PASSWORD: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r#"(?i)(password:? ?\\*")([^"\\]*)"#).ok());

/// One clean line. A password that the installer prints is remembered as a secret, and taken out.
fn clean(text: &str) -> String {
    let line = one_line(text, LINE_LIMIT);
    let Some(password) = PASSWORD.as_ref().filter(|_| line.contains("assword")) else { return secret::redact(&line) };
    for found in password.captures_iter(&line) {
        secret::remember(found.get(2).map_or("", |value| value.as_str()));
    }
    secret::redact(&password.replace_all(&line, "${1}[redacted]"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PhaseEntry {
    phase: String,
    line: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PhaseFile {
    phase: Vec<PhaseEntry>,
}

static TABLE: LazyLock<Vec<(String, Regex)>> = LazyLock::new(|| {
    let file: PhaseFile =
        toml::from_str(include_str!("../../assets/installer.toml")).unwrap_or_else(|_| PhaseFile { phase: Vec::new() });
    file.phase.into_iter().filter_map(|entry| Some((entry.phase, Regex::new(&entry.line).ok()?))).collect()
});

/// Which phase the installer is in.
#[derive(Debug, Default)]
pub struct Phases {
    phase: String,
    message: String,
}

impl Phases {
    pub fn new() -> Self {
        Self::default()
    }

    /// Go on from what an earlier process had recorded.
    pub fn resume(seen: &[InstallerPhase]) -> Self {
        seen.last().map(|last| Self { phase: last.name.clone(), message: last.message.clone() }).unwrap_or_default()
    }

    /// What an entry changes: a new phase with its deadline, or news of the present one.
    pub fn feed(&mut self, entry: &Entry) -> Option<Observed> {
        let message = one_line(&entry.message, MESSAGE_LIMIT);
        let found = TABLE.iter().find_map(|(phase, line)| Some((phase, line.captures(&entry.message)?)));
        let deadline = match found {
            Some((phase, captures)) => {
                self.phase.clone_from(phase);
                captures.name("wait").and_then(|wait| deadline(entry.at, wait.as_str()))
            }
            None if self.phase.is_empty() || self.message == message => return None,
            None if entry.level == Level::Error || NEWS.iter().any(|news| message.starts_with(news)) => None,
            None => return None,
        };
        self.message.clone_from(&message);
        Some(Observed::Installer { phase: self.phase.clone(), message, deadline, since: Some(entry.at) })
    }
}

/// Whether this message is how a phase begins, and not only news of one.
pub fn begins_phase(message: &str) -> bool {
    TABLE.iter().any(|(_, line)| line.is_match(message))
}

/// Messages worth showing as the state of the phase they are in.
const NEWS: [&str; 11] = [
    "Still waiting for the",
    "Bootstrap status: ",
    "API v",
    "Network infrastructure is ready",
    "Control-plane machines are ready",
    "Created manifest ",
    "Machine ",
    "Bootstrap etcd member has been removed",
    "It is now safe to remove the bootstrap resources",
    "Cluster is initialized",
    "Condition ",
];

/// The moment at which a wait that begins at `at` is given up; `wait` is a duration as Go prints it, `45m0s`.
fn deadline(at: Timestamp, wait: &str) -> Option<Timestamp> {
    let mut seconds = 0_f64;
    let mut number = String::new();
    let mut chars = wait.chars().peekable();
    while let Some(c) = chars.next() {
        let scale = match c {
            '0'..='9' | '.' => {
                number.push(c);
                continue;
            }
            'h' => 3600.0,
            'm' if chars.peek() == Some(&'s') => {
                chars.next();
                0.001
            }
            'm' => 60.0,
            's' => 1.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * scale;
        number.clear();
    }
    at.checked_add(SignedDuration::try_from_secs_f64(seconds).ok()?).ok()
}

/// Follow the log of the install directory `directory`. Each item of `lines` is a line and the byte offset behind it; both
/// become its cursor, `DIRECTORY#OFFSET`, because the next installation has a log of its own. The caller
/// sees to it that the stream goes on after a cut. Ends when the stream ends or the follower is cancelled.
pub async fn follow<E>(
    lines: impl Stream<Item = Result<(u64, String), E>> + Send,
    mut phases: Phases,
    directory: &str,
    out: &Out,
) -> Result<(), E> {
    let mut lines = std::pin::pin!(lines.ready_chunks(BATCH));
    let mut at = Timestamp::now();
    loop {
        let chunk = tokio::select! {
            () = out.cancel.cancelled() => return Ok(()),
            chunk = lines.next() => chunk,
        };
        let Some(chunk) = chunk else { return Ok(()) };
        let full = chunk.len() == BATCH;
        let mut batch = Vec::with_capacity(chunk.len());
        let mut seen = Vec::new();
        let mut failed = None;
        for item in chunk {
            let (offset, text) = match item {
                Ok(line) => line,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            };
            let (level, text) = match parse(&text) {
                Ok(entry) => {
                    at = entry.at;
                    seen.extend(phases.feed(&entry));
                    (entry.level, format!("{}{}", entry.message, entry.fields))
                }
                // Kept as it is: what a crash prints is no logrus line.
                Err(_) => (Level::Info, clean(&text)),
            };
            batch.push(LogLine { at, unit: UNIT.into(), level, text, cursor: Some(format!("{directory}#{offset}")) });
        }
        // In this order: who dies between the two reads the lines again, where the other way round a phase were lost.
        out.observed(seen).await;
        out.lines(SOURCE, batch).await;
        if let Some(error) = failed {
            return Err(error);
        }
        // Lines that trickle in are gathered, so that each does not become an event of its own.
        if !full && !out.pause(BATCH_PAUSE).await {
            return Ok(());
        }
    }
}

/// As [`follow`], of the log in `directory` on `host`, from the byte `offset` on. It need not be there yet.
pub async fn follow_file(host: Arc<dyn Host>, directory: &str, offset: u64, phases: Phases, out: &Out) {
    let until = Until::Told(out.cancel.clone());
    let path = format!("{directory}/{}", super::install_dir::LOG);
    let lines = tail::follow(host, path, offset, until).filter_map(|item| line_of(&out.sink, item));
    // The stream itself sees to lost links; it has no error to give.
    let _ended: Result<(), HostError> = follow(lines.map(Ok), phases, directory, out).await;
}

async fn line_of(sink: &Sink, item: TailItem) -> Option<(u64, String)> {
    match item {
        TailItem::Line { text, offset_after } => Some((offset_after, text)),
        TailItem::Gap { why } => {
            sink.emit(Data::Gap { source: SOURCE.into(), lost: None, why }).await;
            None
        }
        TailItem::Reattached => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_of_the_table_is_valid() {
        let file: PhaseFile = toml::from_str(include_str!("../../assets/installer.toml")).unwrap();
        assert_eq!(TABLE.len(), file.phase.len());
        assert!(PASSWORD.is_some());
    }

    #[test]
    fn a_wait_is_read_as_go_prints_it() {
        let at = Timestamp::UNIX_EPOCH;
        for (wait, seconds) in [("45m0s", 2700), ("1h2m3s", 3723), ("20m", 1200), ("1500ms", 1)] {
            assert_eq!(deadline(at, wait).map(Timestamp::as_second), Some(seconds), "{wait}");
        }
        assert_eq!(deadline(at, "soon"), None);
        assert_eq!(deadline(at, "999999999999999999999h"), None);
    }
}
