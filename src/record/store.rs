//! Where runs are kept: `$XDG_STATE_HOME/bartizan/runs`, one folder a run.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::recorder::{RecordError, read_events};
use crate::model::{RunModel, reduce};
use crate::spec::Secret;

/// The runs of this user.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

/// A line of `bartizan runs`.
#[derive(Debug)]
pub struct RunSummary {
    pub run: String,
    pub dir: PathBuf,
    pub model: RunModel,
}

impl Store {
    /// In `state`, or where the XDG rules put it.
    ///
    /// # Errors
    /// When there is no home directory, or the folder cannot be made.
    pub fn open(state: Option<&Path>) -> Result<Self, RecordError> {
        let base = match state {
            Some(state) => state.to_owned(),
            None => directories::ProjectDirs::from("", "", "bartizan")
                .and_then(|dirs| {
                    dirs.state_dir().map(Path::to_owned).or_else(|| Some(dirs.data_local_dir().to_owned()))
                })
                .ok_or_else(|| RecordError::Io {
                    what: "finding the home directory for",
                    path: PathBuf::from("bartizan/runs"),
                    source: std::io::Error::other("HOME is not set; give --state DIR"),
                })?,
        };
        let dir = base.join("runs");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(RecordError::io("making", &dir))?;
        Ok(Self { dir })
    }

    /// The state directory, which holds the runs.
    pub fn home(&self) -> &Path {
        self.dir.parent().unwrap_or(&self.dir)
    }

    /// A folder for a new run; the name sorts by time.
    pub fn new_run(&self, now: Timestamp) -> (String, PathBuf) {
        let run = format!("{}-{:04x}", now.strftime("%Y%m%d-%H%M%S"), fastrand::u16(..));
        let dir = self.dir.join(&run);
        (run, dir)
    }

    /// The run meant by `wanted`: its name, the end of its name, or `last`; or a folder that holds a run.
    ///
    /// # Errors
    /// [`RecordError::NoSuchRun`].
    pub fn find(&self, wanted: &str) -> Result<PathBuf, RecordError> {
        let path = Path::new(wanted);
        if path.join("run.jsonl").is_file() {
            return Ok(path.to_owned());
        }
        let names = self.names()?;
        let found = match wanted {
            "last" => names.last(),
            _ => names.iter().rev().find(|name| *name == wanted || name.ends_with(wanted)),
        };
        found.map(|name| self.dir.join(name)).ok_or_else(|| RecordError::NoSuchRun { wanted: wanted.to_owned() })
    }

    /// The newest run for which `wanted` holds.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn newest(&self, wanted: impl Fn(&RunModel) -> bool) -> Result<Option<RunSummary>, RecordError> {
        for name in self.names()?.into_iter().rev() {
            if let Some(summary) = self.summary(&name)
                && wanted(&summary.model)
            {
                return Ok(Some(summary));
            }
        }
        Ok(None)
    }

    /// Every run that can be read, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Vec<RunSummary>, RecordError> {
        Ok(self.names()?.iter().filter_map(|name| self.summary(name)).collect())
    }

    /// A secret that was made up for a run: read back, or made by `make` and kept 0600 beside the runs, never in one.
    ///
    /// # Errors
    /// When it can neither be read nor made.
    pub fn secret(&self, run: &str, make: impl FnOnce() -> std::io::Result<Secret>) -> Result<Secret, RecordError> {
        let dir = self.dir.with_file_name("secrets");
        let path = dir.join(run);
        if let Ok(text) = fs::read_to_string(&path) {
            return Ok(Secret::new(text));
        }
        let write = || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
            let secret = make()?;
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(secret.reveal().as_bytes())?;
            file.sync_all()?;
            Ok(secret)
        };
        write().map_err(RecordError::io("keeping a secret in", &path))
    }

    /// A run by its name, if it can be read.
    pub fn summary(&self, name: &str) -> Option<RunSummary> {
        let dir = self.dir.join(name);
        let events = read_events(&dir.join("run.jsonl")).ok()?;
        let mut model = RunModel::default();
        events.iter().for_each(|event| reduce(&mut model, event));
        Some(RunSummary { run: name.to_owned(), dir, model })
    }

    /// Names of the runs, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn names(&self) -> Result<Vec<String>, RecordError> {
        let entries = fs::read_dir(&self.dir).map_err(RecordError::io("reading", &self.dir))?;
        let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names)
    }
}
