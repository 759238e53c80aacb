//! Secrets that are looked for afterwards, wherever they must not be.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::read::GzDecoder;
use regex::bytes::{Regex, RegexBuilder};

use crate::host::argvs;

#[derive(Default)]
pub struct Canaries(BTreeMap<&'static str, String>);

impl Canaries {
    pub fn add(&mut self, name: &'static str, secret: &str) -> String {
        self.0.insert(name, secret.to_owned());
        secret.to_owned()
    }

    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.0.values().map(String::as_str)
    }

    /// Finds any of them, in any of its forms.
    pub fn finder(&self) -> Regex {
        let forms: Vec<String> = self.all().flat_map(forms).map(|form| regex::escape(&form)).collect();
        RegexBuilder::new(&forms.join("|")).unicode(false).build().unwrap()
    }

    /// The files below `place` that hold one.
    pub fn files(&self, place: &Path) -> Vec<PathBuf> {
        let finder = self.finder();
        let files = files(place);
        assert!(!files.is_empty(), "nothing in {}", place.display());
        files.into_iter().filter(|file| finder.is_match(&std::fs::read(file).unwrap())).collect()
    }
}

/// As it is, as JSON writes it, and in base64 behind anything, so also as `user:password`.
fn forms(secret: &str) -> Vec<String> {
    let json = serde_json::to_string(secret).unwrap();
    let mut forms = vec![secret.to_owned(), json.trim_matches('"').to_owned(), json[1..json.len() - 1].to_owned()];
    for before in 0..3 {
        let text = [&b"xx"[..before], secret.as_bytes()].concat();
        // Only the characters that nothing before or after has a part in.
        let (first, last) = ((before * 8).div_ceil(6), text.len() * 8 / 6);
        forms.push(BASE64_STANDARD.encode(&text)[first..last].to_owned());
    }
    forms
}

fn files(place: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place).unwrap().flatten();
    entries
        .flat_map(|entry| match entry.file_type().unwrap() {
            kind if kind.is_dir() => files(&entry.path()),
            kind if kind.is_file() => vec![entry.path()],
            _ => Vec::new(),
        })
        .collect()
}

/// Looks at the arguments of every process, twenty times a second and more: secrets may be born on the way.
pub struct Watch {
    stop: Arc<AtomicBool>,
    task: JoinHandle<BTreeSet<String>>,
}

impl Watch {
    pub fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !stopped.load(Ordering::Relaxed) {
                seen.extend(argvs());
                std::thread::sleep(Duration::from_millis(20));
            }
            seen
        });
        Self { stop, task }
    }

    /// Every argument list that was seen.
    pub fn end(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.join().unwrap()
    }
}

/// Everything that an exported bundle holds.
pub fn unpacked(bundle: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    GzDecoder::new(std::fs::File::open(bundle).unwrap()).read_to_end(&mut bytes).unwrap();
    assert!(String::from_utf8_lossy(&bytes).contains("run.jsonl"));
    bytes
}

#[test]
fn a_canary_is_found_in_every_form() {
    let mut canaries = Canaries::default();
    let secret = canaries.add("one", "pa\"ss\\word-1234");
    let finder = canaries.finder();
    for user in ["", "a", "ab", "abc"] {
        let auth = BASE64_STANDARD.encode(format!("{user}:{secret}"));
        assert!(finder.is_match(auth.as_bytes()), "{auth}");
        assert!(finder.is_match(BASE64_STANDARD.encode(format!("{user}{secret}\n")).as_bytes()));
    }
    assert!(finder.is_match(serde_json::to_string(&secret).unwrap().as_bytes()));
    assert!(!finder.is_match(b"pa ss word-1234 [redacted]"));
}
