//! What an engine says, as events of the sync. Each fact is told once, however often it is said: a terminal redraws.

use std::collections::{BTreeSet, HashMap};

use super::{Said, digest_in, mapping, oc_mirror};
use crate::model::event::{ImageState, PlannedImage, SyncEvent};
use crate::registry::mapping::Mapped;
use crate::registry::notify::Notice;

/// The rows that an engine fills, and what is known of each.
#[derive(Debug, Clone)]
pub struct Tally {
    engine: String,
    rows: Vec<PlannedImage>,
    /// What a name in the output may be, by row: the source, the target.
    known_as: Vec<Vec<String>>,
    states: Vec<Heard>,
    by_digest: HashMap<String, Vec<usize>>,
    /// Of blobs that the registry told of.
    blobs: BTreeSet<String>,
    moved: u64,
}

/// Of one row. Later ones stay when an earlier one is said again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Heard {
    Nothing,
    Copying,
    Failed,
    Done,
}

impl Tally {
    /// `known_as` has the pull specs of each row, as they may stand in the output.
    pub fn new(engine: &str, rows: Vec<PlannedImage>, known_as: Vec<Vec<String>>) -> Self {
        let mut by_digest: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, row) in rows.iter().enumerate().filter(|(_, row)| !row.digest.is_empty()) {
            by_digest.entry(row.digest.clone()).or_default().push(at);
        }
        let states = vec![Heard::Nothing; rows.len()];
        Self { engine: engine.to_owned(), rows, known_as, states, by_digest, blobs: BTreeSet::new(), moved: 0 }
    }

    /// The rows of a mapping file.
    pub fn of_mapping(engine: &str, pairs: &[Mapped]) -> Self {
        let known_as = pairs.iter().map(|pair| vec![pair.source.to_string(), mapping::target(pair)]).collect();
        Self::new(engine, mapping::rows(pairs), known_as)
    }

    /// The rows, as the engine's own.
    pub fn opening(&self) -> SyncEvent {
        SyncEvent::Driven { engine: self.engine.clone(), images: self.rows.clone() }
    }

    /// Rows that are in the mirror, as far as was heard, and of how many.
    pub fn done(&self) -> (usize, usize) {
        (self.states.iter().filter(|state| **state == Heard::Done).count(), self.rows.len())
    }

    pub fn hear(&mut self, said: &Said) -> Vec<SyncEvent> {
        match said {
            Said::Copying { image } => self.set(image, Heard::Copying, || ImageState::Copying),
            Said::Copied { image } => self.set(image, Heard::Done, || ImageState::Done),
            Said::Failed { image, why } => self.set(image, Heard::Failed, || failed(why)),
            Said::Error(text) => match digest_in(text).map(str::to_owned) {
                Some(digest) => self.set(&digest, Heard::Failed, || failed(text)),
                None => Vec::new(),
            },
            Said::Images(_)
            | Said::PlannedBlob { .. }
            | Said::PlannedManifest { .. }
            | Said::Uploading { .. }
            | Said::Mounted { .. }
            | Said::Result { .. }
            | Said::Wrote { .. }
            | Said::Phase(_)
            | Said::Warning(_) => Vec::new(),
        }
    }

    /// Like [`Self::hear`], for the reason that is told after the fact.
    pub fn explain(&mut self, said: &Said) -> Vec<SyncEvent> {
        if let Said::Failed { image, .. } = said {
            for at in self.rows_of(image) {
                if let Some(state) = self.states.get_mut(at).filter(|state| **state == Heard::Failed) {
                    *state = Heard::Copying;
                }
            }
        }
        self.hear(said)
    }

    /// What the registry itself says: exact, whoever copies.
    pub fn notice(&mut self, notice: &Notice) -> Vec<SyncEvent> {
        if !notice.stores() {
            return Vec::new();
        }
        if notice.is_manifest() {
            return self.set(&notice.digest, Heard::Done, || ImageState::Done);
        }
        if notice.action == "mount" || !self.blobs.insert(notice.digest.clone()) {
            return Vec::new();
        }
        self.moved = self.moved.saturating_add(notice.size);
        vec![SyncEvent::Moved { bytes: self.moved }]
    }

    fn set(&mut self, image: &str, heard: Heard, state: impl Fn() -> ImageState) -> Vec<SyncEvent> {
        let mut events = Vec::new();
        for at in self.rows_of(image) {
            let (Some(row), Some(before)) = (self.rows.get(at), self.states.get_mut(at)) else { continue };
            // A failed one that is tried again may still come.
            if *before < heard {
                *before = heard;
                events.push(SyncEvent::ImageState { image: row.name.clone(), state: state(), attempt: 1 });
            }
        }
        events
    }

    fn rows_of(&self, image: &str) -> Vec<usize> {
        if let Some(rows) = digest_in(image).and_then(|digest| self.by_digest.get(digest)) {
            return rows.clone();
        }
        let is = |names: &Vec<String>| names.iter().any(|known| oc_mirror::same(image, known));
        (0..).zip(&self.known_as).filter(|(_, names)| is(names)).map(|(at, _)| at).collect()
    }
}

fn failed(why: &str) -> ImageState {
    let class = classify(why);
    let side =
        if why.contains("writing") || why.contains("unable to push") || class == "disk" { "mirror" } else { "source" };
    ImageState::Failed { side: side.into(), class: class.into(), why: why.to_owned() }
}

/// The class of an error of containers/image or of oc, by what they print.
pub fn classify(text: &str) -> &'static str {
    const WORDS: &[(&str, &[&str])] = &[
        ("manifest-unknown", &["manifest unknown", "MANIFEST_UNKNOWN", "name unknown", "manifest for "]),
        ("rate-limit", &["toomanyrequests", "too many requests", "TOOMANYREQUESTS", "429"]),
        ("auth", &["unauthorized", "authentication required", "access denied", "401", "403 Forbidden"]),
        ("name", &["certificate is valid for", "not valid for any names"]),
        ("ca", &["x509:", "certificate signed by unknown authority", "tls: failed to verify"]),
        ("disk", &["no space left on device", "507"]),
        ("dns", &["no such host", "server misbehaving"]),
        ("refused", &["connection refused"]),
        ("timeout", &["i/o timeout", "deadline exceeded", "TLS handshake timeout"]),
        ("digest", &["digest mismatch", "Digest did not match", "DIGEST_INVALID"]),
        (
            "server",
            &["unexpected EOF", "connection reset", "500 ", "502 ", "503 ", "504 ", "Bad Gateway", "REFUSED_STREAM"],
        ),
    ];
    WORDS.iter().find(|(_, words)| words.iter().any(|word| text.contains(word))).map_or("other", |(class, _)| class)
}
