//! The journal of a node, followed by cursor.
//!
//! `journalctl -o json` over [`Host::stream`]; decoding is pure and apart ([`Entry::parse`]). The format is the one of
//! systemd 239 to 257 (`journalctl(1)`, "Journal JSON Format" in systemd's docs/JOURNAL_EXPORT_FORMATS.md).
//!
//! Every line carries its cursor. After a cut the journal is asked for what follows the last cursor. A cursor that the
//! journal no longer knows makes journalctl seek by time and step over an entry, so the cursor is asked for first: when
//! it is gone, the journal is read on by time and a [`Data::Gap`] says that lines may be missing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use jiff::Timestamp;
use serde_json::Value;

use crate::host::{Cmd, Host, HostError, StreamItem};
use crate::model::event::{Data, Level, LogLine, Observed};
use crate::model::text::one_line;
use crate::spec::secret::redact;

use super::{BackOff, Out};

/// Longest text of a line, in bytes. journald itself cuts at 48 KiB.
pub const LINE_LIMIT: usize = 16 * 1024;

/// The units of a bootstrap node that tell how far it is, in the order in which they run.
pub const BOOTSTRAP_UNITS: [&str; 10] = [
    "release-image",
    "node-image-pull",
    "node-image-overlay",
    "node-image-finish",
    "crio-configure",
    "crio",
    "kubelet",
    "bootkube",
    "approve-csr",
    "progress",
];

/// The units of a master on its first boot and after it.
pub const NODE_UNITS: [&str; 8] = [
    "machine-config-daemon-pull",
    "machine-config-daemon-firstboot",
    "nodeip-configuration",
    "ovs-configuration",
    "aws-kubelet-nodename",
    "aws-kubelet-providerid",
    "crio",
    "kubelet",
];

/// Units of which only warnings and worse are kept unless asked otherwise: they are louder than all others together.
pub const QUIET_UNITS: [&str; 2] = ["crio", "kubelet"];

const FIELDS: &str = "MESSAGE,PRIORITY,SYSLOG_IDENTIFIER,_PID,_SYSTEMD_UNIT,UNIT,CONTAINER_NAME,_TRANSPORT";
/// Lines are handed on when this many wait, or when the first has waited for [`BATCH_PAUSE`].
const BATCH: usize = 256;
const BATCH_PAUSE: Duration = Duration::from_millis(100);

/// Whose journal is followed, and which part of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of the source in the record: `journal:bootstrap`.
    pub source: String,
    /// Unit names without `.service`. None means all.
    pub units: Vec<String>,
    /// Of these, only [`Level::Warn`] and worse.
    pub quiet: Vec<String>,
    /// More arguments of journalctl, before all others: `--directory DIR`.
    pub arguments: Vec<String>,
    /// Where an earlier process stopped.
    pub start: Option<Position>,
}

impl Options {
    pub fn new<'a>(source: impl Into<String>, units: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            source: source.into(),
            units: units.into_iter().map(str::to_owned).collect(),
            quiet: QUIET_UNITS.map(str::to_owned).to_vec(),
            arguments: Vec::new(),
            start: None,
        }
    }

    /// The bootstrap node, as `journal:bootstrap`.
    pub fn bootstrap() -> Self {
        Self::new("journal:bootstrap", BOOTSTRAP_UNITS)
    }

    /// Another node of the cluster, as `journal:NAME`.
    pub fn node(name: &str) -> Self {
        Self::new(format!("journal:{name}"), NODE_UNITS)
    }

    pub fn start(mut self, start: Option<Position>) -> Self {
        self.start = start;
        self
    }

    /// The command that reads on from `from`, for ever.
    pub fn command(&self, from: &Origin) -> Cmd {
        let mut cmd = Cmd::new("journalctl").timeout(None).args(&self.arguments).args(["--no-pager", "-q"]);
        cmd = match from {
            Origin::Boot => cmd.args(["-b", "-f", "-n", "all"]),
            Origin::After(position) => cmd.args(["-f", &format!("--after-cursor={}", position.cursor)]),
            Origin::Time(at) => cmd.args(["-f", "-n", "all", &format!("--since=@{}", seconds_after(*at))]),
        };
        self.output(cmd)
    }

    /// Prints the entry of a cursor if the journal still has it, else another entry or none.
    fn question(&self, position: &Position) -> Cmd {
        let cmd = Cmd::new("journalctl").args(&self.arguments).args(["--no-pager", "-q", "-n", "1"]);
        self.output(cmd.arg(format!("--cursor={}", position.cursor)))
    }

    fn output(&self, cmd: Cmd) -> Cmd {
        let units = self.units.iter().flat_map(|unit| ["-u".to_owned(), format!("{unit}.service")]);
        cmd.args(["-o", "json", &format!("--output-fields={FIELDS}"), "--all"]).args(units)
    }
}

/// From where to read.
#[derive(Debug, Clone, PartialEq)]
pub enum Origin {
    /// The start of the present boot.
    Boot,
    After(Position),
    /// Later than this.
    Time(Timestamp),
}

/// The last line that is known, as in [`LogLine::cursor`] and [`LogLine::at`].
#[derive(Debug, Clone, PartialEq)]
pub struct Position {
    pub cursor: String,
    pub at: Timestamp,
}

impl Position {
    /// Where to go on after `line`.
    pub fn after(line: &LogLine) -> Option<Self> {
        Some(Self { cursor: line.cursor.clone()?, at: line.at })
    }
}

/// The microsecond after `at`, as seconds since the epoch.
fn seconds_after(at: Timestamp) -> String {
    let next = at.as_microsecond().saturating_add(1);
    format!("{}.{:06}", next.div_euclid(1_000_000), next.rem_euclid(1_000_000))
}

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

/// What reads along: called with every line after it is recorded; what it answers is emitted.
pub type Reader<'a> = &'a mut (dyn FnMut(&LogLine) -> Vec<Observed> + Send);

/// Follow a journal until cancelled. Lines go to `out` in order, each once; `reader` sees each of them.
///
/// # Errors
/// Only when the host refuses us, or says that it cannot do this at all. Everything else is tried again.
pub async fn follow(host: Arc<dyn Host>, options: Options, out: &Out, reader: Reader<'_>) -> Result<(), HostError> {
    let mut state =
        State { last: options.start.clone(), boot: None, batch: Vec::new(), oldest: None, options, out: out.clone() };
    let mut back_off = BackOff::new();
    let mut complaint = String::new();
    loop {
        let why = tokio::select! {
            () = out.cancel.cancelled() => None,
            ended = state.attach(host.as_ref(), reader, &mut back_off) => Some(ended),
        };
        state.flush(reader).await;
        match why {
            None => return Ok(()),
            Some(Err(error @ HostError::Refused { .. })) => return Err(error),
            // The link's health is shown by the host itself.
            Some(Err(HostError::Link { .. })) => complaint.clear(),
            Some(Err(error)) => state.complain(&mut complaint, error.to_string()).await,
            Some(Ok(why)) => state.complain(&mut complaint, why).await,
        }
        if !out.pause(back_off.pause()).await {
            return Ok(());
        }
    }
}

struct State {
    last: Option<Position>,
    boot: Option<String>,
    batch: Vec<LogLine>,
    /// When the first line of the batch came.
    oldest: Option<Instant>,
    options: Options,
    out: Out,
}

impl State {
    /// One connection: from where we are to where it breaks. `Ok` says why journalctl ended; empty when it just did.
    async fn attach(
        &mut self,
        host: &dyn Host,
        reader: Reader<'_>,
        back_off: &mut BackOff,
    ) -> Result<String, HostError> {
        let from = self.from(host).await?;
        let mut stream = host.stream(&self.options.command(&from)).await?;
        // A line that cannot be read is only judged when another follows: the last one may have been cut off.
        let mut unread: Option<(Vec<u8>, JournalError)> = None;
        let mut said = String::new();
        loop {
            let item = match tokio::time::timeout(BATCH_PAUSE, stream.next()).await {
                Ok(item) => item,
                Err(_quiet) => {
                    self.flush(reader).await;
                    match stream.next().await {
                        None => None,
                        item => item,
                    }
                }
            };
            match item {
                None => return Ok(said),
                Some(Err(error)) => return Err(error),
                Some(Ok(StreamItem::Err(line))) => said = one_line(&String::from_utf8_lossy(&line), 300),
                Some(Ok(StreamItem::Exit(status))) => {
                    if status != 0 && said.contains("Failed to seek to cursor") {
                        self.cursor_lost("the journal cannot read the cursor").await;
                        self.flush(reader).await;
                        return Ok(String::new());
                    }
                    return Ok(if said.is_empty() && status != 0 {
                        format!("journalctl ended with status {status}")
                    } else {
                        said
                    });
                }
                Some(Ok(StreamItem::Out(line))) => {
                    if let Some((line, error)) = unread.take() {
                        self.unreadable(&line, &error);
                    }
                    if line.is_empty() {
                        continue;
                    }
                    match Entry::parse(&line) {
                        Ok(entry) => {
                            back_off.reset();
                            self.take(entry, reader).await;
                        }
                        Err(error) => unread = Some((line, error)),
                    }
                }
            }
            if self.batch.len() >= BATCH || self.oldest.is_some_and(|oldest| oldest.elapsed() >= BATCH_PAUSE) {
                self.flush(reader).await;
            }
        }
    }

    /// Where to read on, after asking whether the journal still knows the last line.
    async fn from(&mut self, host: &dyn Host) -> Result<Origin, HostError> {
        let Some(last) = self.last.clone() else { return Ok(Origin::Boot) };
        if last.cursor.is_empty() {
            return Ok(Origin::Time(last.at));
        }
        let answer = host.exec(&self.options.question(&last)).await?;
        let first = answer.stdout.split(|byte| *byte == b'\n').next().unwrap_or_default();
        match Entry::parse(first) {
            Ok(entry) if entry.cursor != last.cursor => {
                self.cursor_lost("the last line that was read is no longer in the journal").await;
                Ok(Origin::Time(last.at))
            }
            Err(_) if answer.error_text().contains("Failed to seek to cursor") => {
                self.cursor_lost("the journal cannot read the cursor").await;
                Ok(Origin::Time(last.at))
            }
            // It is there, or there is no telling: then the stream itself will show.
            _ => Ok(Origin::After(last)),
        }
    }

    /// From now on by time, until a line gives a cursor again.
    async fn cursor_lost(&mut self, why: &str) {
        if let Some(last) = &mut self.last {
            last.cursor.clear();
        }
        self.gap(why).await;
    }

    async fn gap(&self, why: &str) {
        let source = self.options.source.clone();
        self.out.sink.emit(Data::Gap { source, lost: None, why: why.to_owned() }).await;
    }

    async fn take(&mut self, entry: Entry, reader: Reader<'_>) {
        if self.last.as_ref().is_some_and(|last| last.cursor == entry.cursor) {
            return;
        }
        if self.boot.as_ref().is_some_and(|boot| *boot != entry.boot) {
            self.flush(reader).await;
            self.gap("the node has rebooted; the last lines before that may be missing").await;
        }
        self.boot = Some(entry.boot.clone());
        self.last = Some(Position { cursor: entry.cursor.clone(), at: entry.at });
        let kept = entry.level >= Level::Warn || !self.options.quiet.contains(&entry.unit);
        if kept && !entry.is_duplicate() {
            self.keep(entry.into_line());
        }
    }

    /// Keep what could not be decoded: it may be the one line that matters.
    fn unreadable(&mut self, line: &[u8], error: &JournalError) {
        let text = redact(&one_line(&String::from_utf8_lossy(line), LINE_LIMIT));
        let at = self.last.as_ref().map_or_else(Timestamp::now, |last| last.at);
        let text = format!("[{error}] {text}");
        self.keep(LogLine { at, unit: "journalctl".into(), level: Level::Warn, text, cursor: None });
    }

    fn keep(&mut self, line: LogLine) {
        self.oldest.get_or_insert_with(Instant::now);
        self.batch.push(line);
    }

    async fn flush(&mut self, reader: Reader<'_>) {
        self.oldest = None;
        if self.batch.is_empty() {
            return;
        }
        let lines = std::mem::take(&mut self.batch);
        let seen: Vec<Observed> = lines.iter().flat_map(|line| reader(line)).collect();
        self.out.lines(&self.options.source, lines).await;
        self.out.observed(seen).await;
    }

    /// Say once why the journal cannot be read.
    async fn complain(&self, before: &mut String, why: String) {
        if !why.is_empty() && *before != why {
            let text = format!("{}: {why}; trying again", self.options.source);
            self.out.sink.emit(Data::Note { level: Level::Warn, text }).await;
            *before = why;
        }
    }
}
