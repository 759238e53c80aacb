//! Mirroring by other programs: what they are told, and what their output means.
//!
//! Pure: texts in, facts out. Running them is the stages' work.
//!
//! | room | what for |
//! |---|---|
//! | [`lines`] | a byte stream as lines, terminal or not |
//! | [`Reader`] | these lines as what an engine said |
//! | [`oc_mirror`] | oc-mirror v2: its lines, its error file, its exit codes |
//! | [`oc_adm`] | `oc adm release mirror` |
//! | [`image_set`] | ImageSetConfiguration `v2alpha1` |
//! | [`mapping`] | `SRC=DST` files: oc-mirror's dry run, `oc image mirror -f` |
//! | [`tally`] | what was said, as events of the sync |

pub mod image_set;
pub mod lines;
pub mod mapping;
pub mod oc_adm;
pub mod oc_mirror;
pub mod tally;

use lines::Lines;

use crate::model::event::Level;

/// One thing that an engine said.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// It is going to copy this many images.
    Images(u64),
    /// It is at work on an image.
    Copying {
        image: String,
    },
    /// The image is in the mirror (or in the archive), it says.
    Copied {
        image: String,
    },
    Failed {
        image: String,
        why: String,
    },
    /// A blob that has to be moved, from a printed plan. Its size is rounded.
    PlannedBlob {
        source: String,
        digest: String,
        bytes: u64,
    },
    /// A manifest of a printed plan.
    PlannedManifest {
        digest: String,
        tag: Option<String>,
    },
    /// A blob begins to move; its end is not told.
    Uploading {
        repository: String,
        digest: String,
        bytes: u64,
    },
    /// The mirror had it in another repository.
    Mounted {
        repository: String,
        digest: String,
    },
    /// Images of a kind (`release`, `operator`, `additional`, `helm`) at the end: so many of so many.
    Result {
        kind: String,
        done: u64,
        of: u64,
    },
    /// A file that it wrote.
    Wrote {
        file: String,
    },
    /// What it is doing now, for people.
    Phase(String),
    Warning(String),
    Error(String),
}

/// A program that copies images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    OcMirror,
    OcAdm,
}

impl Engine {
    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Engine::OcMirror => "oc-mirror",
            Engine::OcAdm => "oc adm release mirror",
        }
    }
}

/// One line of its output.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Without control sequences.
    pub text: String,
    pub said: Option<Said>,
    /// It belongs in a log: it is no part of a picture that is drawn again, and no part of a plan.
    pub log: bool,
    pub level: Level,
}

/// Reads what an engine prints, cut anywhere.
#[derive(Debug, Clone)]
pub struct Reader {
    engine: Engine,
    lines: Lines,
}

impl Reader {
    pub fn new(engine: Engine) -> Self {
        Self { engine, lines: Lines::default() }
    }

    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Told> {
        let lines = self.lines.push(bytes);
        lines.into_iter().map(|text| self.told(text)).collect()
    }

    /// The program has ended.
    pub fn end(&mut self) -> Vec<Told> {
        let lines = self.lines.end();
        lines.into_iter().map(|text| self.told(text)).collect()
    }

    fn told(&self, text: String) -> Told {
        let (said, log) = match self.engine {
            Engine::OcMirror => (oc_mirror::read(&text), oc_mirror::is_log(&text)),
            Engine::OcAdm => {
                let said = oc_adm::read(&text);
                let plan = matches!(said, Some(Said::PlannedBlob { .. } | Said::PlannedManifest { .. }));
                (said, !plan)
            }
        };
        let level = match &said {
            Some(Said::Error(_) | Said::Failed { .. }) => Level::Error,
            Some(Said::Warning(_)) => Level::Warn,
            _ => Level::Info,
        };
        Told { text, said, log, level }
    }
}

/// The image that a text is about, as far as it can be told: a digest says it all, else the name.
pub(super) fn digest_in(text: &str) -> Option<&str> {
    let at = text.find("sha256:")?;
    text.get(at..at + 71).filter(|digest| super::digest::is_valid(digest))
}
