//! A recorded run, wherever it is: in the store, in a folder, or in a bundle that somebody sent.

use std::path::{Path, PathBuf};

use crate::model::event::Event;
use crate::model::{RunModel, reduce};
use crate::record::{Store, bundle, read_events};
use crate::spec::problem::nearest;
use crate::spec::secrets::Secrets;
use crate::spec::{Secret, load};

use super::Failure;

/// A run that can be read.
pub struct Opened {
    pub dir: PathBuf,
    pub events: Vec<Event>,
    /// Where a bundle was unpacked; it goes when this does.
    _unpacked: Option<tempfile::TempDir>,
}

impl Opened {
    pub fn model(&self) -> RunModel {
        let mut model = RunModel::default();
        self.events.iter().for_each(|event| reduce(&mut model, event));
        model
    }

    /// Its name.
    pub fn run(&self) -> String {
        self.dir.file_name().map_or_else(|| "run".to_owned(), |name| name.to_string_lossy().into_owned())
    }
}

/// The run meant by `run`: its name, the end of its name, `last`, a folder, or a bundle.
pub fn open(state: Option<&Path>, run: &str) -> Result<Opened, Failure> {
    let path = Path::new(run);
    let (dir, unpacked) = if path.is_file() {
        let place = tempfile::Builder::new().prefix("bartizan-bundle-").tempdir().map_err(Failure::other)?;
        let dir = bundle::unpack(path, place.path()).map_err(|error| {
            let gathered = "a log bundle of openshift-install is opened by `bartizan watch --bundle`";
            Failure::usage(format!("{error}; {gathered}"))
        })?;
        (dir, Some(place))
    } else {
        let store = Store::open(state).map_err(Failure::other)?;
        (find(&store, run)?, None)
    };
    let events = read_events(&dir.join("run.jsonl")).map_err(Failure::other)?;
    Ok(Opened { dir, events, _unpacked: unpacked })
}

/// The folder of the run meant by `run`, or which one was probably meant.
pub fn find(store: &Store, run: &str) -> Result<PathBuf, Failure> {
    store.find(run).map_err(|error| Failure::usage(meant(store, run, error.to_string())))
}

/// An error, with the run that was probably meant: by its name, or by the end of it.
fn meant(store: &Store, run: &str, error: String) -> String {
    let names = store.names().unwrap_or_default();
    let tail = |name: &str| name.rsplit('-').next().unwrap_or(name).to_owned();
    let tails: Vec<String> = names.iter().map(|name| tail(name)).collect();
    let known = names.iter().chain(&tails).map(String::as_str);
    match nearest(run, known.chain(["last"])) {
        Some("last") if !names.is_empty() => format!("{error}; did you mean last?"),
        Some(near) if !names.is_empty() => {
            let name = names.iter().rev().find(|name| name.ends_with(near)).map_or(near, String::as_str);
            format!("{error}; did you mean {name}?")
        }
        _ if names.is_empty() => "there are no runs yet; `bartizan demo` makes one without an account".to_owned(),
        _ => error,
    }
}

/// Makes the secrets of a run known to the redactor, as far as they are still there.
pub fn remember_secrets(state: Option<&Path>, opened: &Opened) {
    if let Ok(spec) = load(&opened.dir.join("cluster.toml")) {
        // A pull secret that has gone cannot be found in the record either way; the patterns look for its shape.
        let _gone = Secrets::load(&spec);
    }
    let Ok(store) = Store::open(state) else { return };
    let Ok(entries) = std::fs::read_dir(store.home().join("secrets")) else { return };
    let run = opened.run();
    for entry in entries.filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().starts_with(&run)
            && let Ok(text) = std::fs::read_to_string(entry.path())
        {
            let _remembered = Secret::new(text);
        }
    }
}
