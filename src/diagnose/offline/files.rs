//! Files, directories and archives: which are read, as what, and where their lines come from.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use encoding_rs_io::DecodeReaderBytes;
use flate2::bufread::GzDecoder;

use super::forms::Origin;
use super::objects::is_objects;
use super::{Limits, OfflineError, plain};
use crate::diagnose::place::ANYWHERE;

const BUFFER: usize = 1 << 20;
/// What begins a gzip stream, and where and how a tar archive says that it is one.
const GZIP: [u8; 2] = [0x1f, 0x8b];
const TAR: (usize, &[u8]) = (257, b"ustar");
/// What begins a text in UTF-16, as PowerShell's `>` writes it.
const UTF16: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];
/// What begins packings that are not unpacked here, and what unpacks them.
const PACKED: [(&[u8], &str, &str); 4] = [
    (b"PK\x03\x04", "a zip archive", "unzip"),
    (b"\xfd7zXZ\0", "packed by xz", "xz -d"),
    (b"BZh", "packed by bzip2", "bzip2 -d"),
    (b"\x28\xb5\x2f\xfd", "packed by zstd", "zstd -d"),
];
/// Archives inside archives are looked into this deep.
const NESTED: u8 = 2;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// Lines.
    Log,
    /// A service record of the bootstrap machine.
    Record,
    /// Objects of the cluster's API.
    Objects,
    /// The events of a run of this program.
    Events,
}

/// Whoever reads all that is in files, directories and archives, in the order in which it is found there.
pub trait Files: Sized {
    fn limits(&self) -> Limits;

    /// Bytes that may still be read.
    fn left(&self) -> u64;

    /// Files that were read.
    fn count(&mut self) -> &mut usize;

    /// This was left out.
    fn skip(&mut self, name: &str, why: &str);

    /// One file of text. Its name is that of its archive, a colon, and that of the file in it.
    fn read(&mut self, holds: Holds, name: &str, from: impl BufRead);

    /// What a person named.
    ///
    /// # Errors
    /// When it cannot be read, or holds nothing that is known.
    fn path(&mut self, path: &Path) -> Result<(), OfflineError> {
        let unread =
            |error: std::io::Error| OfflineError::Read { path: path.display().to_string(), why: error.to_string() };
        if path == Path::new("-") {
            return self.any("standard input", std::io::stdin().lock(), 0);
        }
        if path.is_dir() {
            let before = *self.count();
            self.directory(path, 0).map_err(unread)?;
            if *self.count() == before {
                let why = "there is nothing in it that is known as a log".to_owned();
                return Err(OfflineError::Read { path: path.display().to_string(), why });
            }
            return Ok(());
        }
        let file = File::open(path).map_err(unread)?;
        self.any(&path.display().to_string(), file, 0)
    }

    fn directory(&mut self, path: &Path, depth: usize) -> std::io::Result<()> {
        let entries = std::fs::read_dir(path)?;
        let mut paths: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let name = path.display().to_string();
            let result = std::fs::symlink_metadata(&path).map_err(|error| error.to_string()).and_then(|kind| {
                if kind.is_dir() && depth < self.limits().depth {
                    return self.directory(&path, depth + 1).map_err(|error| error.to_string());
                }
                if !kind.is_file() || !(is_archive(&name) || is_log(&name) || is_objects(&name)) {
                    return Ok(());
                }
                let file = File::open(&path).map_err(|error| error.to_string())?;
                self.any(&name, file, 0).map_err(|error| error.to_string())
            });
            if let Err(why) = result {
                self.skip(&name, &why);
            }
        }
        Ok(())
    }

    /// Anything by what it begins with.
    fn any(&mut self, name: &str, from: impl Read, nested: u8) -> Result<(), OfflineError> {
        let mut from = BufReader::with_capacity(BUFFER, from);
        let unread = |error: std::io::Error| OfflineError::Read { path: plain(name), why: error.to_string() };
        let zipped = from.fill_buf().map_err(unread)?.starts_with(&GZIP);
        if zipped && nested <= NESTED {
            // What is passed over costs decompression as well.
            let unzipped = GzDecoder::new(from).take(self.limits().bytes);
            let name = name.strip_suffix(".gz").unwrap_or(name).to_owned();
            // A stream of its own type would nest without end.
            let unzipped: Box<dyn Read + '_> = Box::new(unzipped);
            return self.any(&name, unzipped, nested + 1);
        }
        let start = from.fill_buf().map_err(unread)?;
        if UTF16.iter().any(|mark| start.starts_with(mark)) {
            self.one(name, BufReader::with_capacity(BUFFER, DecodeReaderBytes::new(from)));
            return Ok(());
        }
        if let Some((_, what, with)) = PACKED.iter().find(|(mark, ..)| start.starts_with(mark)) {
            let why = format!("it is {what}: unpack it (`{with}`) and name what comes out");
            return Err(OfflineError::Read { path: plain(name), why });
        }
        if start.get(TAR.0..).is_some_and(|rest| rest.starts_with(TAR.1)) {
            return self.archive(name, from, nested);
        }
        let sample = start.get(..start.len().min(4096)).unwrap_or(start);
        if sample.iter().filter(|byte| **byte == 0).count() * 8 > sample.len() {
            let why = "it is neither text nor an archive that is known".to_owned();
            return Err(OfflineError::Read { path: plain(name), why });
        }
        self.one(name, from);
        Ok(())
    }

    /// One file of text.
    fn one(&mut self, name: &str, from: impl BufRead) {
        if *self.count() >= self.limits().files {
            return self.skip(name, "there are more files than are read");
        }
        *self.count() += 1;
        let holds = match name {
            _ if is_record(name) => Holds::Record,
            _ if is_objects(name) => Holds::Objects,
            _ if file_name(name) == "run.jsonl" => Holds::Events,
            _ => Holds::Log,
        };
        self.read(holds, name, from);
    }

    fn archive(&mut self, name: &str, from: impl Read, nested: u8) -> Result<(), OfflineError> {
        let unread = |error: std::io::Error| OfflineError::Read { path: plain(name), why: error.to_string() };
        let mut archive = tar::Archive::new(from);
        for (number, entry) in archive.entries().map_err(unread)?.enumerate() {
            if number >= self.limits().files || self.left() == 0 {
                self.skip(name, "there is more in it than is read");
                break;
            }
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) if number == 0 => return Err(unread(error)),
                Err(error) => {
                    self.skip(name, &error.to_string());
                    break;
                }
            };
            let inner = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let wanted = is_log(&inner) || is_objects(&inner) || is_record(&inner) || is_archive(&inner);
            if !entry.header().entry_type().is_file() || !wanted {
                continue;
            }
            let place = format!("{name}:{}", plain(&inner));
            let entry: Box<dyn Read + '_> = Box::new(entry);
            if let Err(error) = self.any(&place, entry, nested) {
                self.skip(&place, &error.to_string());
            }
        }
        Ok(())
    }
}

/// Reads the next line, without its end, cut to `limit`; `left` is what may be read at all. False at the end.
///
/// # Errors
/// When there is more than may be read, or it cannot be.
pub fn next_line(from: &mut impl BufRead, line: &mut Vec<u8>, limit: usize, left: &mut u64) -> std::io::Result<bool> {
    line.clear();
    if *left == 0 {
        return Err(std::io::Error::other("there is more than is read"));
    }
    let read = from.by_ref().take(limit as u64).read_until(b'\n', line)?;
    *left = left.saturating_sub(read as u64);
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if read > 0 {
        loop {
            let buffer = from.fill_buf()?;
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let passed = end.map_or(buffer.len(), |end| end + 1);
            from.consume(passed);
            *left = left.saturating_sub(passed as u64);
            if passed == 0 || end.is_some() || *left == 0 {
                break;
            }
        }
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(read > 0)
}

fn file_name(path: &str) -> &str {
    path.rsplit(['/', ':']).next().unwrap_or(path)
}

fn is_archive(name: &str) -> bool {
    [".tar.gz", ".tgz", ".tar"].iter().any(|end| name.ends_with(end))
}

/// Files of a bundle or a directory that hold log lines.
fn is_log(name: &str) -> bool {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    [".log", ".txt", ".jsonl", ".journal.json", ".journal"].iter().any(|end| name.ends_with(end))
}

/// `bootstrap/services/bootkube.json` of a bundle.
fn is_record(name: &str) -> bool {
    let mut parts = name.rsplit('/');
    parts.next().is_some_and(|file| file.ends_with(".json")) && parts.next() == Some("services")
}

/// Where a file's lines come from, by the layout of a log bundle or of a run, or by its name.
pub fn origin(path: &str) -> Origin {
    let parts: Vec<&str> = path.rsplit(['/', ':']).take(4).collect();
    let part = |place: usize| parts.get(place).copied().unwrap_or("");
    let stem = part(0).strip_suffix(".gz").unwrap_or(part(0));
    let stem = stem.strip_suffix(".log").or_else(|| stem.strip_suffix(".json")).unwrap_or(stem);
    let at = |source: String, unit: &str| Origin { source: source.into(), unit: unit.to_owned() };
    let unit = if stem == "journal" { "" } else { stem };
    match (part(1), part(2), part(3)) {
        ("journals" | "containers" | "pods" | "services", "bootstrap", _) => at("journal:bootstrap".into(), unit),
        ("journals" | "containers", node, "control-plane") => at(format!("journal:{node}"), unit),
        ("serial", ..) => at(format!("serial:{}", stem.strip_suffix("-serial").unwrap_or(stem)), "console"),
        ("clusterapi", ..) => at("installer".into(), stem),
        // A run of this program: the source is the file's name.
        ("logs", ..) if stem.starts_with("journal_") => at(stem.replacen('_', ":", 1), ""),
        ("logs", ..) if stem.starts_with("serial_") => at(stem.replacen('_', ":", 1), "console"),
        ("logs", ..) if stem == "sync" => at("sync".into(), ""),
        ("logs", ..) if stem == "installer" => at("installer".into(), "installer"),
        _ if stem.starts_with(".openshift_install") => at("installer".into(), "installer"),
        _ => at(ANYWHERE.into(), ""),
    }
}
