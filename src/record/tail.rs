//! The events of a run that another process writes: its file is the way to it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::recorder::{RecordError, parse_event};
use crate::model::event::Event;

/// Most bytes that are read at once, unless one line is longer.
const CHUNK: u64 = 1 << 20;

/// Reads on where it stopped; a line that is not whole yet is left for the next time.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    at: u64,
}

impl Tail {
    /// From the beginning of the run in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { path: dir.join("run.jsonl"), at: 0 }
    }

    /// What came since. Empty when nothing did.
    ///
    /// # Errors
    /// When the file cannot be read, or holds a whole line that is no event.
    pub fn read(&mut self) -> Result<Vec<Event>, RecordError> {
        let fresh = self.fresh().map_err(RecordError::io("reading", &self.path))?;
        let whole = fresh.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines = fresh.get(..whole).unwrap_or_default();
        let mut events = Vec::new();
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let event =
                parse_event(line).map_err(|why| RecordError::Broken { path: self.path.clone(), line: 0, why })?;
            self.at += line.len() as u64;
            events.push(event);
        }
        Ok(events)
    }

    fn fresh(&self) -> io::Result<Vec<u8>> {
        let mut file = File::open(&self.path)?;
        // A writer that takes over cuts a torn end off: what was whole stays.
        file.seek(SeekFrom::Start(self.at))?;
        let mut bytes = Vec::new();
        while file.by_ref().take(CHUNK).read_to_end(&mut bytes)? > 0 && !bytes.contains(&b'\n') {}
        Ok(bytes)
    }
}
