//! Log lines on disk, by source, with random access by line number.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::model::event::LogLine;
use crate::spec::secret::redact_json;

/// Bytes of one entry of the index: where a line ends in the log, little endian.
const ENTRY: u64 = 8;

/// `journal:bootstrap` → `journal_bootstrap`: a source as a file name.
fn file_name(source: &str) -> String {
    source.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c } else { '_' }).collect()
}

fn paths(logs: &Path, source: &str) -> (PathBuf, PathBuf) {
    let name = file_name(source);
    (logs.join(format!("{name}.log")), logs.join(format!("{name}.idx")))
}

/// Appends lines. One for each source of a run, used by the recorder alone.
#[derive(Debug)]
pub(super) struct SegmentWriter {
    log: BufWriter<File>,
    index: BufWriter<File>,
    lines: u64,
    end: u64,
}

/// What was appended: the number of the first line, how many, and their bytes.
pub(super) struct Appended {
    pub first: u64,
    pub count: u64,
    pub bytes: u64,
}

impl SegmentWriter {
    /// Opens the files of `source` and cuts them to `committed` lines: what no event speaks of was never there.
    pub fn open(logs: &Path, source: &str, committed: u64) -> io::Result<Self> {
        let (log_path, index_path) = paths(logs, source);
        let open = |path: &Path| OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let (mut log, mut index) = (open(&log_path)?, open(&index_path)?);
        let lines = committed.min(index.metadata()?.len() / ENTRY);
        let end = if lines == 0 { 0 } else { read_entry(&mut index, lines - 1)? };
        index.set_len(lines * ENTRY)?;
        log.set_len(end)?;
        log.seek(SeekFrom::End(0))?;
        index.seek(SeekFrom::End(0))?;
        Ok(Self { log: BufWriter::new(log), index: BufWriter::new(index), lines, end })
    }

    pub fn append(&mut self, lines: &[LogLine]) -> io::Result<Appended> {
        let start = self.end;
        for line in lines {
            let text = serde_json::to_string(line)?;
            let text = redact_json(&text);
            self.log.write_all(text.as_bytes())?;
            self.log.write_all(b"\n")?;
            self.end += text.len() as u64 + 1;
            self.index.write_all(&self.end.to_le_bytes())?;
        }
        self.log.flush()?;
        self.index.flush()?;
        let first = self.lines + 1;
        self.lines += lines.len() as u64;
        Ok(Appended { first, count: lines.len() as u64, bytes: self.end - start })
    }
}

/// Makes the index of a log anew: of a text that was changed, or came without one.
pub(super) fn index(log: &Path) -> io::Result<()> {
    let mut reader = io::BufReader::new(File::open(log)?);
    let mut index = BufWriter::new(File::create(log.with_extension("idx"))?);
    let (mut end, mut line) = (0u64, Vec::new());
    loop {
        line.clear();
        let read = io::BufRead::read_until(&mut reader, b'\n', &mut line)?;
        if read == 0 {
            return index.flush();
        }
        end += read as u64;
        index.write_all(&end.to_le_bytes())?;
    }
}

fn read_entry(index: &mut File, number: u64) -> io::Result<u64> {
    let mut entry = [0; ENTRY as usize];
    index.seek(SeekFrom::Start(number * ENTRY))?;
    index.read_exact(&mut entry)?;
    Ok(u64::from_le_bytes(entry))
}

/// Reads lines by number while another process or task writes them.
#[derive(Debug)]
pub struct SegmentReader {
    logs: PathBuf,
    open: BTreeMap<String, (File, File)>,
}

impl SegmentReader {
    pub fn new(run_dir: &Path) -> Self {
        Self { logs: run_dir.join("logs"), open: BTreeMap::new() }
    }

    /// Up to `count` lines of `source` from line `first` (numbered from 1). Fewer when there are fewer.
    ///
    /// # Errors
    /// When the files exist and cannot be read. A source without files has no lines.
    pub fn read(&mut self, source: &str, first: u64, count: usize) -> io::Result<Vec<LogLine>> {
        if !self.open.contains_key(source) {
            let (log, index) = paths(&self.logs, source);
            match (File::open(log), File::open(index)) {
                (Ok(log), Ok(index)) => self.open.insert(source.to_owned(), (log, index)),
                (Err(error), _) | (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                (Err(error), _) | (_, Err(error)) => return Err(error),
            };
        }
        let Some((log, index)) = self.open.get_mut(source) else { return Ok(Vec::new()) };
        let lines = index.metadata()?.len() / ENTRY;
        let from = first.max(1) - 1;
        let to = from.saturating_add(count as u64).min(lines);
        if from >= to {
            return Ok(Vec::new());
        }
        let start = if from == 0 { 0 } else { read_entry(index, from - 1)? };
        let end = read_entry(index, to - 1)?;
        let mut bytes = Vec::new();
        log.seek(SeekFrom::Start(start))?;
        log.take(end.saturating_sub(start)).read_to_end(&mut bytes)?;
        Ok(bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }

    /// The last line of `source`, which tells where to go on from.
    ///
    /// # Errors
    /// As [`SegmentReader::read`].
    pub fn last(&mut self, source: &str, lines: u64) -> io::Result<Option<LogLine>> {
        Ok(self.read(source, lines.max(1), 1)?.pop())
    }
}
