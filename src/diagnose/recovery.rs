//! What puts a finding right: `assets/recoveries.toml`, typed. The stages carry it out.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::Deserialize;

use super::matcher::STEP;
use super::place::{Place, within};
use super::signature::CatalogueError;
use crate::model::event::{Finding, Level};
use crate::model::plan::{StageId, StepId};

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

/// One thing to do. Each is probed before it is done, so that what holds already is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fix {
    /// A step of the plan is made true again: it knows what it has to look like.
    Ensure { step: StepId },
    /// The step that failed is tried until it holds: for what only time, or somebody else, gives.
    Await { step: StepId },
    /// Copy the image of this manifest digest (`sha256:` and 64 hex digits) into the mirror.
    ResyncImage { digest: String },
    /// A new certificate of the mirror by the CA that the nodes trust.
    RenewCertificate,
    /// Take the CA of the mirror from the registry's own directory on the bastion.
    FetchMirrorCa,
    /// Take away from the mirror's disk what nobody uses.
    PruneDisk,
    /// Make the volume of the mirror larger, and the file system on it.
    GrowDisk,
    /// The records of the API in the cluster's private zone.
    ClusterRecords,
    /// What the cluster's machines have to let in from their own network.
    ClusterRules,
    /// Put the clock of a host right, and keep it right.
    SetClock { host: String },
    /// Start a unit of a host that has failed.
    RestartUnit { host: String, unit: String },
    /// Approve pending certificate requests of nodes, after looking at who asks.
    ApproveCsrs,
    /// Destroy what the installer made, by infraID.
    DestroyCluster { because: Because },
    /// The next installation uses a directory of its own.
    NewInstallDir,
    /// Start the bastion's machine again, from outside.
    RebootBastion,
}

/// What has to be true before a cluster is destroyed; it is looked at again then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// It is not complete, or would be another one now: a person asks for it.
    Asked,
    /// Its install-config would be another one now.
    ConfigChanged,
    /// Its nodes have no login for the mirror.
    LoginMissing,
    /// The certificates in its Ignition configs are over before it was complete.
    Expired,
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

/// A fix as the file names it: `prune-disk`, or `ensure STEP`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
enum FixName {
    Ensure(StepId),
    Own(Own),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Own {
    AwaitStep,
    ResyncImage,
    RenewCertificate,
    FetchMirrorCa,
    PruneDisk,
    GrowDisk,
    ClusterRecords,
    ClusterRules,
    SetClock,
    RestartUnit,
    ApproveCsrs,
    DestroyCluster,
    DestroyIfConfigChanged,
    DestroyIfLoginMissing,
    DestroyIfExpired,
    NewInstallDir,
    RebootBastion,
}

impl TryFrom<String> for FixName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(' ') {
            Some(("ensure", step)) => Ok(Self::Ensure(StepId::new(step))),
            Some(_) => Err(format!("{text:?} is neither a fix nor `ensure STEP`")),
            None => Own::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(&text))
                .map(Self::Own)
                .map_err(|error| error.to_string()),
        }
    }
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
    /// What can be offered for a finding, the cheapest first: each is for a cause that the one before it leaves.
    pub fn all_for(finding: &Finding) -> Vec<Self> {
        entries().iter().filter(|entry| entry.fits(finding)).filter_map(|entry| entry.make(finding)).collect()
    }

    /// A finding to apply a recovery for that an operator wants without one: `None` when it needs to know what was found.
    pub fn wanted(id: &str) -> Option<Finding> {
        let entry = entries().iter().find(|entry| entry.id == id)?;
        let (source, unit) = entry.sources.first().map(|place| Place::parse(place).sample()).unwrap_or_default();
        let finding = Finding {
            id: format!("operator:{id}"),
            signature: entry.signatures.first()?.clone(),
            title: entry.title.clone(),
            next: None,
            severity: Level::Info,
            captures: BTreeMap::new(),
            source,
            unit,
            at: jiff::Timestamp::UNIX_EPOCH,
            line: String::new(),
            line_number: None,
            checklist: None,
            recovery: Some(id.to_owned()),
            rank: u32::MAX,
            explained_by: None,
        };
        (entry.fits(&finding) && entry.make(&finding).is_some()).then_some(finding)
    }

    /// The first of them.
    pub fn for_finding(finding: &Finding) -> Option<Self> {
        entries().iter().filter(|entry| entry.fits(finding)).find_map(|entry| entry.make(finding))
    }

    /// Steps of the plan that recoveries ensure.
    pub fn ensured() -> impl Iterator<Item = &'static StepId> {
        entries().iter().flat_map(|entry| &entry.fixes).filter_map(|fix| match fix {
            FixName::Ensure(step) => Some(step),
            FixName::Own(_) => None,
        })
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
    fn make(&self, finding: &Finding) -> Option<Fix> {
        let own = match self {
            FixName::Ensure(step) => return Some(Fix::Ensure { step: step.clone() }),
            FixName::Own(own) => own,
        };
        Some(match own {
            Own::AwaitStep if finding.source == STEP => Fix::Await { step: StepId::new(finding.unit.clone()) },
            Own::AwaitStep => return None,
            Own::ResyncImage => {
                let digest = finding.captures.get("digest").filter(|digest| is_digest(digest))?;
                Fix::ResyncImage { digest: digest.clone() }
            }
            Own::RenewCertificate => Fix::RenewCertificate,
            Own::FetchMirrorCa => Fix::FetchMirrorCa,
            Own::PruneDisk => Fix::PruneDisk,
            Own::GrowDisk => Fix::GrowDisk,
            Own::ClusterRecords => Fix::ClusterRecords,
            Own::ClusterRules => Fix::ClusterRules,
            Own::SetClock => Fix::SetClock { host: host_of(finding) },
            Own::RestartUnit => {
                let unit = finding.captures.get("failed").unwrap_or(&finding.unit);
                let unit = unit.trim_end_matches(".service");
                RESTARTABLE
                    .contains(&unit)
                    .then(|| Fix::RestartUnit { host: host_of(finding), unit: unit.to_owned() })?
            }
            Own::ApproveCsrs => Fix::ApproveCsrs,
            Own::DestroyCluster => Fix::DestroyCluster { because: Because::Asked },
            Own::DestroyIfConfigChanged => Fix::DestroyCluster { because: Because::ConfigChanged },
            Own::DestroyIfLoginMissing => Fix::DestroyCluster { because: Because::LoginMissing },
            Own::DestroyIfExpired => Fix::DestroyCluster { because: Because::Expired },
            Own::NewInstallDir => Fix::NewInstallDir,
            Own::RebootBastion => Fix::RebootBastion,
        })
    }
}

/// Units of a node that take up their work where they left it. Their names go to a root shell: no others do.
const RESTARTABLE: [&str; 10] = [
    "approve-csr",
    "bootkube",
    "chronyd",
    "crio",
    "crio-configure",
    "kubelet",
    "node-image-overlay",
    "node-image-pull",
    "progress",
    "release-image",
];

/// Whose line it was: `journal:bootstrap` is the bootstrap machine's, and what a step says is about the bastion.
fn host_of(finding: &Finding) -> String {
    let node = finding.source.split_once(':').filter(|(kind, _)| matches!(*kind, "journal" | "serial"));
    node.map_or("bastion", |(_, name)| name).to_owned()
}

/// A whole `sha256:…`: log lines are often cut.
fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
