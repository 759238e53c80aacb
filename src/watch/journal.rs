//! The journal of a node, followed by cursor.
//!
//! `journalctl -o json` over [`Host::stream`], decoded by [`Entry::parse`].
//!
//! Every line carries its cursor. After a cut the journal is asked for what follows the last cursor. A cursor that the
//! journal no longer knows makes journalctl seek by time and step over an entry, so the cursor is asked for first: when
//! it is gone, the journal is read on by time and a [`Data::Gap`] says that lines may be missing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::Timestamp;

use crate::host::{Cmd, Host, HostError, StreamItem};
use crate::model::entry::{Entry, JournalError, LINE_LIMIT};
use crate::model::event::{BootStage, Data, Level, LogLine, Observed};
use crate::model::text::one_line;
use crate::spec::secret::redact;

use super::{BackOff, Out};

/// Name of the bootstrap node's journal in the record.
pub const BOOTSTRAP: &str = "journal:bootstrap";

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
        Self::new(BOOTSTRAP, BOOTSTRAP_UNITS)
    }

    /// Another node of the cluster, as `journal:NAME`.
    pub fn node(name: &str) -> Self {
        Self::new(format!("journal:{name}"), NODE_UNITS)
    }

    pub fn start(mut self, start: Option<Position>) -> Self {
        self.start = start;
        self
    }

    /// The command that reads on from `from`, for ever. With `-f` and without `-n all` journalctl stops after ten lines
    /// until something new is written, also behind a cursor. With `-f` it sees only the present boot.
    pub fn command(&self, from: &Origin) -> Cmd {
        self.read(from, true)
    }

    fn read(&self, from: &Origin, follow: bool) -> Cmd {
        let mut cmd = Cmd::new("journalctl").timeout(None).args(&self.arguments).args(["--no-pager", "-q"]);
        if *from == Origin::Boot {
            cmd = cmd.arg("-b");
        }
        if follow {
            cmd = cmd.arg("-f");
        }
        cmd = cmd.args(["-n", "all"]);
        cmd = match from {
            Origin::Boot => cmd,
            Origin::After(position) => cmd.arg(format!("--after-cursor={}", position.cursor)),
            Origin::Time(at) => cmd.arg(format!("--since=@{}", seconds(*at))),
        };
        self.output(cmd)
    }

    /// Prints the newest entry of all, to know which boot is the present one.
    fn newest(&self) -> Cmd {
        let cmd = Cmd::new("journalctl").args(&self.arguments).args(["--no-pager", "-q", "-n", "1", "-o", "json"]);
        cmd.arg("--output-fields=_BOOT_ID")
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
    /// At this time and later.
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

/// Seconds since the epoch with microseconds, as journalctl takes them behind an `@`.
fn seconds(at: Timestamp) -> String {
    let micros = at.as_microsecond();
    format!("{}.{:06}", micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000))
}

/// What reads along: called with every line after it is recorded; what it answers is emitted.
pub type Reader<'a> = &'a mut (dyn FnMut(&LogLine) -> Vec<Observed> + Send);

/// Follow a journal until cancelled. Lines go to `out` in order, each once; `reader` sees each of them.
///
/// # Errors
/// Only when the host refuses us, or says that it cannot do this at all. Everything else is tried again.
pub async fn follow(host: Arc<dyn Host>, options: Options, out: &Out, reader: Reader<'_>) -> Result<(), HostError> {
    let mut state = State {
        last: options.start.clone(),
        same: options.start.iter().map(|start| start.cursor.clone()).collect(),
        boot: None,
        batch: Vec::new(),
        oldest: None,
        options,
        out: out.clone(),
    };
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

/// Without what the same handful of lines says again of a stage that stays in its state: a manifest that is made thousands
/// of times is evidence once in a while.
fn newest(seen: Vec<Observed>) -> Vec<Observed> {
    let mut later: BTreeMap<String, BootStage> = BTreeMap::new();
    let mut kept: Vec<Observed> = Vec::with_capacity(seen.len());
    for observed in seen.into_iter().rev() {
        if let Observed::Bootkube { stage, state, .. } = &observed
            && later.insert(stage.clone(), *state) == Some(*state)
        {
            continue;
        }
        kept.push(observed);
    }
    kept.reverse();
    kept
}

/// What journalctl says of a cursor that is none.
const BAD_CURSOR: &str = "Failed to seek to cursor";

fn first_entry(output: &[u8]) -> Option<Entry> {
    Entry::parse(output.split(|byte| *byte == b'\n').next()?).ok()
}

struct State {
    last: Option<Position>,
    /// Cursors of all lines of the same microsecond as the last one: reading on by time brings them again.
    same: Vec<String>,
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
        let mut from = self.from(host).await?;
        if from != Origin::Boot {
            let newest = host.exec(&self.options.newest()).await?;
            let present = first_entry(&newest.stdout).map(|entry| entry.boot);
            // Following shows only the present boot: first what is left of the earlier one.
            if present.is_some() && present != self.boot {
                let stream = host.stream(&self.options.read(&from, false)).await?;
                let said = self.drain(stream, reader, back_off).await?;
                if !said.is_empty() {
                    return Ok(said);
                }
                from = match &self.last {
                    Some(last) if self.boot == present => Origin::After(last.clone()),
                    _ => Origin::Boot,
                };
            }
        }
        let stream = host.stream(&self.options.read(&from, true)).await?;
        self.drain(stream, reader, back_off).await
    }

    /// Take what a journalctl prints until it ends.
    async fn drain(
        &mut self,
        mut stream: BoxStream<'static, Result<StreamItem, HostError>>,
        reader: Reader<'_>,
        back_off: &mut BackOff,
    ) -> Result<String, HostError> {
        // A line that cannot be read is only judged when another follows: the last one may have been cut off.
        let mut unread: Option<(Vec<u8>, JournalError)> = None;
        let mut said = String::new();
        loop {
            let item = match tokio::time::timeout(BATCH_PAUSE, stream.next()).await {
                Ok(item) => item,
                Err(_quiet) => {
                    self.flush(reader).await;
                    stream.next().await
                }
            };
            match item {
                None => return Ok(said),
                Some(Err(error)) => return Err(error),
                Some(Ok(StreamItem::Err(line))) => said = one_line(&String::from_utf8_lossy(&line), 300),
                Some(Ok(StreamItem::Exit(status))) => {
                    if status != 0 && said.contains(BAD_CURSOR) {
                        self.cursor_lost("the journal cannot read the cursor").await;
                        said.clear();
                    } else if status != 0 && said.is_empty() {
                        said = format!("journalctl ended with status {status}");
                    }
                    return Ok(said);
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
        match first_entry(&answer.stdout) {
            Some(entry) if entry.cursor == last.cursor => {
                self.boot = Some(entry.boot);
                Ok(Origin::After(last))
            }
            Some(_) => {
                self.cursor_lost("the last line that was read is no longer in the journal").await;
                Ok(Origin::Time(last.at))
            }
            None if answer.error_text().contains(BAD_CURSOR) => {
                self.cursor_lost("the journal cannot read the cursor").await;
                Ok(Origin::Time(last.at))
            }
            // There is no telling: then the stream itself will show.
            None => Ok(Origin::After(last)),
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
        if self.same.contains(&entry.cursor) {
            return;
        }
        if self.last.as_ref().is_none_or(|last| last.at != entry.at) {
            self.same.clear();
        }
        self.same.push(entry.cursor.clone());
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
        let seen = newest(lines.iter().flat_map(reader).collect());
        // What lines mean is recorded before them: whoever dies between the two reads them again, and knows it already.
        self.out.observed(seen).await;
        self.out.lines(&self.options.source, lines).await;
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
