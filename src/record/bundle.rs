//! One file for a colleague or a support case: the record, its logs, the spec, what the machine was, and a list of what was
//! taken out. It is a run like any other to whoever opens it: `bartizan replay FILE`.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use super::recorder::RecordError;
use super::scrub::{Removal, Scrub};
use super::segments;

/// Version of the bundle's shape.
const BUNDLE: u32 = 1;
/// What a bundle may hold when it is opened: nobody's disk is filled by a file that somebody sent.
const LARGEST: u64 = 16 << 30;

/// `bundle.json`: what is in it, what is not, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    pub bundle: u32,
    /// Version of the bartizan that packed it.
    pub bartizan: String,
    /// Name and length of every other file.
    pub files: Vec<(String, u64)>,
    pub removed: Vec<Removal>,
    /// Files of the run that were left out, and why.
    pub left_out: Vec<(String, String)>,
}

/// Packs the run in `dir` into `to` (tar.gz, 0600). Every text passes `scrub`; `more` are files that are not in the run's
/// folder, name and text.
///
/// # Errors
/// When a file cannot be read or `to` cannot be written.
pub fn export(dir: &Path, to: &Path, scrub: &mut Scrub, more: &[(String, String)]) -> Result<Contents, RecordError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(to)
        .map_err(RecordError::io("making", to))?;
    let mut tar = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    let run = dir.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned());
    let mut add = |name: &str, text: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        tar.append_data(&mut header, format!("{run}/{name}"), text.as_bytes()).map_err(RecordError::io("writing", to))
    };
    let (paths, left_out) = contents(dir)?;
    let mut files = Vec::new();
    for path in paths {
        let name = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy().into_owned();
        let bytes = fs::read(&path).map_err(RecordError::io("reading", &path))?;
        let text = String::from_utf8_lossy(&bytes);
        let is_json = name == "run.jsonl" || name.starts_with("logs/");
        let clean = if is_json {
            text.lines().fold(String::new(), |mut out, line| {
                out.push_str(&scrub.json_line(&name, line));
                out.push('\n');
                out
            })
        } else {
            scrub.lines(&name, &text)
        };
        add(&name, &clean)?;
        files.push((name, clean.len() as u64));
    }
    for (name, text) in more {
        let clean = scrub.lines(name, text);
        add(name, &clean)?;
        files.push((name.clone(), clean.len() as u64));
    }
    let bartizan = env!("CARGO_PKG_VERSION").to_owned();
    let contents = Contents { bundle: BUNDLE, bartizan, files, removed: scrub.removed(), left_out };
    add("REMOVED.txt", &contents.removed_text())?;
    let listed = serde_json::to_string_pretty(&contents).unwrap_or_default();
    add("bundle.json", &listed)?;
    tar.into_inner()
        .and_then(GzEncoder::finish)
        .and_then(|file: File| file.sync_all())
        .map_err(RecordError::io("writing", to))?;
    Ok(contents)
}

impl Contents {
    /// The list of what was taken out, for people.
    pub fn removed_text(&self) -> String {
        let mut text = String::from("Taken out of this bundle, by kind and file:\n");
        for Removal { kind, file, count } in &self.removed {
            let _infallible = writeln!(text, "  {count:>6} × {kind} in {file}");
        }
        if self.removed.is_empty() {
            text.push_str("  nothing was found that had to be\n");
        }
        text.push_str("Left out:\n");
        for (name, why) in &self.left_out {
            let _infallible = writeln!(text, "  {name}: {why}");
        }
        text
    }
}

type LeftOut = Vec<(String, String)>;

/// The record, the log texts, the spec and the program's own log; and everything else with the reason why not.
fn contents(dir: &Path) -> Result<(Vec<PathBuf>, LeftOut), RecordError> {
    let mut paths = vec![dir.join("run.jsonl")];
    paths.extend(["cluster.toml", "bartizan.log"].map(|name| dir.join(name)).into_iter().filter(|path| path.is_file()));
    let logs = dir.join("logs");
    if logs.is_dir() {
        let entries = fs::read_dir(&logs).map_err(RecordError::io("reading", &logs))?;
        paths.extend(
            entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| path.extension().is_some_and(|e| e == "log")),
        );
    }
    paths.sort();
    let mut left_out = Vec::new();
    let entries = fs::read_dir(dir).map_err(RecordError::io("reading", dir))?;
    for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let why = match name.as_str() {
            "run.jsonl" | "cluster.toml" | "bartizan.log" | "logs" | "lock" => continue,
            "ssh" => "keys of hosts and control sockets",
            "outputs" => "files for the cluster, not about the run",
            "screenshots" => "pictures cannot be searched for secrets",
            name if name.ends_with(".metadata.json") => "what destroys the cluster stays with its owner",
            _ => "not a part of the record",
        };
        left_out.push((name, why.to_owned()));
    }
    left_out.sort();
    Ok((paths, left_out))
}

/// Unpacks a bundle into a directory of its own, below `into`, and makes the indexes of its logs again. Gives the run's
/// folder.
///
/// # Errors
/// When the file is no bundle, or holds something that a bundle does not.
pub fn unpack(file: &Path, into: &Path) -> Result<PathBuf, RecordError> {
    let broken = |why: String| RecordError::Broken { path: file.to_owned(), line: 0, why };
    let opened = File::open(file).map_err(RecordError::io("opening", file))?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(into).map_err(RecordError::io("making", into))?;
    let mut archive = tar::Archive::new(GzDecoder::new(opened).take(LARGEST));
    let entries = archive.entries().map_err(|error| broken(format!("is no bundle: {error}")))?;
    for entry in entries {
        let mut entry = entry.map_err(|error| broken(format!("is no bundle: {error}")))?;
        if !entry.header().entry_type().is_file() {
            return Err(broken("holds something that is no plain file".into()));
        }
        // The crate refuses names that lead out of `into`.
        let inside = entry.unpack_in(into).map_err(|error| broken(format!("cannot be unpacked: {error}")))?;
        if !inside {
            return Err(broken("names a file outside of itself".into()));
        }
    }
    let mut runs = fs::read_dir(into)
        .map_err(RecordError::io("reading", into))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("run.jsonl").is_file());
    let run = runs.next().ok_or_else(|| broken("holds no run".into()))?;
    let logs = run.join("logs");
    if logs.is_dir() {
        for entry in fs::read_dir(&logs).map_err(RecordError::io("reading", &logs))?.filter_map(Result::ok) {
            segments::index(&entry.path()).map_err(RecordError::io("indexing", &entry.path()))?;
        }
    }
    Ok(run)
}
