//! The writer of a run, and reading it back.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::model::event::{Data, Event, FORMAT, LogLine};
use crate::model::{RunModel, reduce};
use crate::spec::secret::redact_json;

use super::lease;
use super::segments::SegmentWriter;

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("{what} {path}: {source}", path = path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} is driven by another bartizan; `bartizan watch` follows it, and `bartizan run --resume --take-over` takes it from there", path = path.display())]
    Locked { path: PathBuf },
    #[error("{path}{place}: {why}", path = path.display(), place = if *line == 0 { String::new() } else { format!(":{line}") })]
    Broken { path: PathBuf, line: u64, why: String },
    #[error("{path} was written in format {found}; this bartizan reads up to {FORMAT}: use a newer one", path = path.display())]
    Newer { path: PathBuf, found: u32 },
    #[error("no run {wanted}; `bartizan runs` lists them")]
    NoSuchRun { wanted: String },
}

impl RecordError {
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// The one writer of a run.
#[derive(Debug)]
pub struct Recorder {
    dir: PathBuf,
    file: File,
    segments: BTreeMap<String, SegmentWriter>,
    model: RunModel,
    /// Held, not read: the lock goes with it.
    _lock: File,
}

impl Recorder {
    /// Opens the run in `dir` for writing, making it when it is new, and folds what it holds.
    ///
    /// # Errors
    /// [`RecordError::Locked`] when another process writes it; otherwise when the files cannot be read or made.
    pub fn open(dir: &Path) -> Result<Self, RecordError> {
        let logs = dir.join("logs");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&logs).map_err(RecordError::io("making", &logs))?;
        let lock = lease::take(dir)
            .map_err(RecordError::io("locking", dir))?
            .ok_or_else(|| RecordError::Locked { path: dir.to_owned() })?;
        let path = dir.join("run.jsonl");
        let mut file = private(&path).map_err(RecordError::io("opening", &path))?;
        let (events, whole) = read_whole(&path)?;
        file.set_len(whole).map_err(RecordError::io("cutting the torn end of", &path))?;
        file.seek(SeekFrom::End(0)).map_err(RecordError::io("seeking in", &path))?;
        let mut model = RunModel::default();
        for event in &events {
            reduce(&mut model, event);
        }
        Ok(Self { dir: dir.to_owned(), file, segments: BTreeMap::new(), model, _lock: lock })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The fold of everything recorded so far.
    pub fn model(&self) -> &RunModel {
        &self.model
    }

    /// Gives the fact its number and writes it. What comes back is what stands in the file, secrets taken out.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn append(&mut self, at: Timestamp, data: Data) -> Result<Event, RecordError> {
        let path = self.dir.join("run.jsonl");
        let event = Event { seq: self.model.seq + 1, at, data };
        let text = serde_json::to_string(&event).map_err(|error| RecordError::Io {
            what: "writing",
            path: path.clone(),
            source: error.into(),
        })?;
        let clean = redact_json(&text);
        let event = match &clean {
            Cow::Borrowed(_) => event,
            Cow::Owned(clean) => serde_json::from_str(clean).unwrap_or(event),
        };
        self.file.write_all(format!("{clean}\n").as_bytes()).map_err(RecordError::io("writing", &path))?;
        reduce(&mut self.model, &event);
        Ok(event)
    }

    /// Keeps log lines and records that they are there.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn append_lines(&mut self, at: Timestamp, source: &str, lines: &[LogLine]) -> Result<Event, RecordError> {
        let logs = self.dir.join("logs");
        if !self.segments.contains_key(source) {
            let committed = self.model.logs.get(source).map_or(0, |log| log.lines);
            let writer =
                SegmentWriter::open(&logs, source, committed).map_err(RecordError::io("opening a log in", &logs))?;
            self.segments.insert(source.to_owned(), writer);
        }
        let Some(writer) = self.segments.get_mut(source) else {
            return Err(RecordError::NoSuchRun { wanted: source.to_owned() });
        };
        let appended = writer.append(lines).map_err(RecordError::io("writing a log in", &logs))?;
        self.append(
            at,
            Data::Lines {
                source: source.to_owned(),
                first: appended.first,
                count: appended.count,
                bytes: appended.bytes,
            },
        )
    }

    /// Waits until everything is on the disk itself.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn sync(&mut self) -> Result<(), RecordError> {
        self.file.sync_data().map_err(RecordError::io("syncing", &self.dir))
    }
}

fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// All events of a run file. A torn last line is left out.
///
/// # Errors
/// [`RecordError::Broken`] with the line when a line in the middle is no event.
pub fn read_events(path: &Path) -> Result<Vec<Event>, RecordError> {
    read_whole(path).map(|(events, _)| events)
}

/// Events, and the length of the file up to the end of the last whole one.
fn read_whole(path: &Path) -> Result<(Vec<Event>, u64), RecordError> {
    let file = File::open(path).map_err(RecordError::io("opening", path))?;
    let mut reader = BufReader::new(file);
    let mut events = Vec::new();
    let (mut whole, mut line, mut number) = (0, Vec::new(), 0);
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).map_err(RecordError::io("reading", path))?;
        if read == 0 || line.last() != Some(&b'\n') {
            return Ok((events, whole));
        }
        number += 1;
        let event =
            parse_event(&line).map_err(|why| RecordError::Broken { path: path.to_owned(), line: number, why })?;
        if let Data::RunOpened { format, .. } = event.data
            && format > FORMAT
        {
            return Err(RecordError::Newer { path: path.to_owned(), found: format });
        }
        whole += read as u64;
        events.push(event);
    }
}

/// One line of a run file.
///
/// # Errors
/// A sentence with the column.
pub fn parse_event(line: &[u8]) -> Result<Event, String> {
    serde_json::from_slice(line).map_err(|error| format!("not an event: {error}"))
}
