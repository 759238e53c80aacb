//! Uploads that are open at the mirror, so that the next process goes on with them.
//!
//! A small file that can be lost or deleted at any time: what it does not know is uploaded again from its first byte.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::client::Repo;

/// An upload that the mirror has part of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Open {
    pub location: String,
    /// Bytes that the mirror has acknowledged.
    pub offset: u64,
}

/// Held by one process at a time; another one works without.
#[derive(Debug, Default)]
pub struct Journal(Option<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    /// Locked while we live.
    file: File,
    uploads: BTreeMap<String, Open>,
}

impl Journal {
    /// The journal in this file; one that remembers nothing when it cannot be opened or another process has it.
    pub fn open(path: &Path) -> Self {
        let options = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let Ok(mut file) = options else { return Self::default() };
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Self::default();
        }
        let mut text = String::new();
        let read = file.read_to_string(&mut text).ok().and_then(|_| serde_json::from_str(&text).ok());
        Self(Some(Mutex::new(Inner { file, uploads: read.unwrap_or_default() })))
    }

    pub(super) fn find(&self, repo: &Repo, digest: &str) -> Option<Open> {
        let inner = self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        inner.uploads.get(&key(repo, digest)).cloned()
    }

    pub(super) fn note(&self, repo: &Repo, digest: &str, open: Open) {
        self.change(|uploads| {
            uploads.insert(key(repo, digest), open);
            true
        });
    }

    pub(super) fn forget(&self, repo: &Repo, digest: &str) {
        self.change(|uploads| uploads.remove(&key(repo, digest)).is_some());
    }

    fn change(&self, how: impl FnOnce(&mut BTreeMap<String, Open>) -> bool) {
        let Some(inner) = &self.0 else { return };
        let mut inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { file, uploads } = &mut *inner;
        if how(uploads) {
            let text = serde_json::to_vec(uploads).unwrap_or_default();
            // A half-written journal is not read; that costs one upload.
            let _costs_time_only =
                file.rewind().and_then(|()| file.write_all(&text)).and_then(|()| file.set_len(text.len() as u64));
        }
    }
}

fn key(repo: &Repo, digest: &str) -> String {
    format!("{repo}@{digest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_process_finds_what_was_open_and_a_second_one_at_once_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("uploads.json");
        let repo = Repo::new("mirror:5000", "a/b");
        let open = |offset| Open { location: "https://mirror:5000/v2/a/b/blobs/uploads/1".into(), offset };
        let first = Journal::open(&path);
        first.note(&repo, "sha256:1", open(16));
        first.note(&repo, "sha256:2", open(16));
        first.note(&repo, "sha256:1", open(32));
        first.forget(&repo, "sha256:2");
        assert_eq!(Journal::open(&path).find(&repo, "sha256:1"), None, "one process at a time");
        drop(first);
        let next = Journal::open(&path);
        assert_eq!((next.find(&repo, "sha256:1"), next.find(&repo, "sha256:2")), (Some(open(32)), None));
        drop(next);
        std::fs::write(&path, "{\"half").unwrap();
        assert_eq!(Journal::open(&path).find(&repo, "sha256:1"), None);
    }
}
