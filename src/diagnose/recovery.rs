//! What puts a finding right: `assets/recoveries.toml`, typed. The stages carry it out.

use std::sync::OnceLock;

use serde::Deserialize;

use super::place::{Place, within};
use super::signature::CatalogueError;
use crate::model::event::Finding;
use crate::model::plan::StageId;

const FILE: &str = include_str!("../../assets/recoveries.toml");

/// A way out of a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    pub id: String,
    pub title: String,
    /// What is lost by it, as the confirmation says it.
    pub loses: String,
    pub danger: Danger,
    /// In order.
    pub fixes: Vec<Fix>,
    pub resume: Resume,
    /// May be carried out without a person (`--recover`).
    pub automatic: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Danger {
    /// Changes something that can be changed back.
    Change,
    /// Destroys something.
    Destroy,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fix {
    /// Copy the image of this manifest digest (`sha256:` and 64 hex digits) into the mirror.
    ResyncImage { digest: String },
    /// Take the CA of the mirror from the registry's own directory on the bastion.
    FetchMirrorCa,
    /// Destroy what the installer made, by infraID.
    DestroyCluster,
    /// The next installation uses a directory of its own.
    NewInstallDir,
    /// Free or grow the disk of the mirror.
    MakeRoom,
    /// Approve pending certificate requests of nodes, after looking at who asks.
    ApproveCsrs,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// The unit on the node tries again by itself.
    Live,
    Stage(StageId),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    recovery: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    title: String,
    loses: String,
    danger: Danger,
    signatures: Vec<String>,
    /// Symptoms among `signatures` get it only when this is their cause.
    cause: Option<String>,
    #[serde(default)]
    sources: Vec<String>,
    #[serde(default)]
    needs: Vec<String>,
    fixes: Vec<FixName>,
    resume: String,
    automatic: bool,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FixName {
    ResyncImage,
    FetchMirrorCa,
    DestroyCluster,
    NewInstallDir,
    MakeRoom,
    ApproveCsrs,
}

fn parse(text: &str) -> Result<Vec<Entry>, CatalogueError> {
    let file = |why: String| CatalogueError::File { file: "recoveries.toml".to_owned(), why };
    toml::from_str::<File>(text).map(|file| file.recovery).map_err(|error| file(error.to_string()))
}

/// The built-in ones. A test reads them with errors.
fn entries() -> &'static [Entry] {
    static ENTRIES: OnceLock<Vec<Entry>> = OnceLock::new();
    ENTRIES.get_or_init(|| parse(FILE).unwrap_or_default())
}

impl Recovery {
    /// What can be offered for a finding.
    pub fn for_finding(finding: &Finding) -> Option<Self> {
        entries().iter().filter(|entry| entry.fits(finding)).find_map(|entry| entry.make(finding))
    }

    /// Its id, when it needs no person.
    pub(super) fn automatic_for(finding: &Finding) -> Option<String> {
        Self::for_finding(finding).filter(|recovery| recovery.automatic).map(|recovery| recovery.id)
    }

    /// Check the built-in file: every entry reads and names signatures of the catalogue.
    pub fn check(catalogue: &super::Catalogue) -> Result<usize, CatalogueError> {
        let entries = parse(FILE)?;
        for entry in &entries {
            let wrong =
                |why: String| CatalogueError::Entry { file: "recoveries.toml".to_owned(), id: entry.id.clone(), why };
            for id in entry.signatures.iter().chain(&entry.cause) {
                let signature = catalogue.get(id).ok_or_else(|| wrong(format!("no signature is called {id}")))?;
                let names = signature.capture_names();
                if let Some(need) = entry.needs.iter().find(|need| !names.contains(need.as_str())) {
                    return Err(wrong(format!("{id} never captures {need}")));
                }
            }
        }
        Ok(entries.len())
    }
}

impl Entry {
    fn fits(&self, finding: &Finding) -> bool {
        let places: Vec<Place> = self.sources.iter().map(|place| Place::parse(place)).collect();
        let caused = |cause: &String| {
            finding.signature == *cause || finding.captures.get("cause").is_some_and(|known| known == cause)
        };
        self.signatures.contains(&finding.signature)
            && self.cause.as_ref().is_none_or(caused)
            && within(&places, &finding.source, &finding.unit)
            && self.needs.iter().all(|need| finding.captures.contains_key(need))
    }

    fn make(&self, finding: &Finding) -> Option<Recovery> {
        let fixes: Option<Vec<Fix>> = self.fixes.iter().map(|name| name.make(finding)).collect();
        let resume = match self.resume.as_str() {
            "live" => Resume::Live,
            stage => Resume::Stage(StageId::new(stage)),
        };
        Some(Recovery {
            id: self.id.clone(),
            title: self.title.clone(),
            loses: self.loses.clone(),
            danger: self.danger,
            fixes: fixes?,
            resume,
            automatic: self.automatic,
        })
    }
}

impl FixName {
    fn make(self, finding: &Finding) -> Option<Fix> {
        Some(match self {
            FixName::ResyncImage => {
                let digest = finding.captures.get("digest").filter(|digest| is_digest(digest))?;
                Fix::ResyncImage { digest: digest.clone() }
            }
            FixName::FetchMirrorCa => Fix::FetchMirrorCa,
            FixName::DestroyCluster => Fix::DestroyCluster,
            FixName::NewInstallDir => Fix::NewInstallDir,
            FixName::MakeRoom => Fix::MakeRoom,
            FixName::ApproveCsrs => Fix::ApproveCsrs,
        })
    }
}

/// A whole `sha256:…`: log lines are often cut.
fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
