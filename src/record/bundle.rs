//! One file for a colleague or a support case: the record, its logs, and a list of what is in it.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::recorder::RecordError;
use crate::spec::secret::redact;

/// Packs the run in `dir` into `to` (tar.gz, 0600). Everything passes the redactor once more. Gives the names of the
/// files in it.
///
/// # Errors
/// When a file cannot be read or `to` cannot be written.
pub fn export(dir: &Path, to: &Path) -> Result<Vec<String>, RecordError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(to)
        .map_err(RecordError::io("making", to))?;
    let mut tar = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    let run = dir.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned());
    let mut names = Vec::new();
    for path in contents(dir)? {
        let bytes = fs::read(&path).map_err(RecordError::io("reading", &path))?;
        let text = redact(&String::from_utf8_lossy(&bytes));
        let relative = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy().into_owned();
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        tar.append_data(&mut header, format!("{run}/{relative}"), text.as_bytes())
            .map_err(RecordError::io("writing", to))?;
        names.push(relative);
    }
    tar.into_inner()
        .and_then(GzEncoder::finish)
        .and_then(|file: File| file.sync_all())
        .map_err(RecordError::io("writing", to))?;
    Ok(names)
}

/// The record and the log texts. Indexes are left out: they can be made again, and redaction may have moved bytes.
fn contents(dir: &Path) -> Result<Vec<PathBuf>, RecordError> {
    let logs = dir.join("logs");
    let mut paths = vec![dir.join("run.jsonl")];
    let entries = fs::read_dir(&logs).map_err(RecordError::io("reading", &logs))?;
    paths.extend(
        entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "log")),
    );
    paths.sort();
    Ok(paths)
}
