//! Images that the operator does without: those of the request, and those that come while it is being done.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

use super::Request;
use crate::registry::error::Malformed;
use crate::registry::plan::{RELEASE, Wanted};

/// Between two looks into the file.
const LOOK: Duration = Duration::from_secs(1);

/// Names and digests, as they are known now.
pub(super) struct Skips {
    named: BTreeSet<String>,
    file: Option<PathBuf>,
    known: watch::Sender<BTreeSet<String>>,
}

impl Skips {
    pub async fn of(request: &Request) -> Self {
        let named: BTreeSet<String> = request.skip.iter().cloned().collect();
        let skips = Self { named, file: request.skip_file.clone(), known: watch::Sender::default() };
        skips.look().await;
        skips
    }

    pub fn now(&self) -> BTreeSet<String> {
        self.known.borrow().clone()
    }

    /// Told of every change.
    pub fn follow(&self) -> watch::Receiver<BTreeSet<String>> {
        self.known.subscribe()
    }

    /// Looks into the file until dropped.
    pub async fn keep_looking(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            self.look().await;
        }
    }

    async fn look(&self) {
        let more = match &self.file {
            Some(file) => read(file).await,
            None => BTreeSet::new(),
        };
        let all: BTreeSet<String> = self.named.union(&more).cloned().collect();
        self.known.send_if_modified(|known| std::mem::replace(known, all.clone()) != all);
    }

    /// Names that mean nothing, and the one image that nobody can do without.
    ///
    /// # Errors
    /// Which one, and what would be right.
    pub fn check(&self, images: &[Wanted]) -> Result<(), Malformed> {
        for name in &self.named {
            match images.iter().find(|image| image.is_called(name)) {
                None => return Err(Malformed::new("skip", format!("there is no image \"{name}\" in the plan"))),
                Some(image) if image.name == RELEASE => {
                    return Err(Malformed::new(
                        "skip",
                        "the release image itself cannot be left out: it names all others",
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// One name in a line; a file that is not there has none.
async fn read(file: &Path) -> BTreeSet<String> {
    let text = tokio::fs::read_to_string(file).await.unwrap_or_default();
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}
