//! The service records of the bootstrap node: `/var/log/openshift/<service>.json`.
//!
//! Each is one JSON array that is written anew at every event (openshift/installer,
//! data/data/bootstrap/files/usr/local/bin/bootstrap-service-record.sh). The journal tells of stages sooner; the
//! records confirm it on connecting, after a cut, and when a unit dies.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::Notify;

use crate::host::{Cmd, Host, HostError};
use crate::model::event::{Data, Level};
use crate::model::text::one_line;
use crate::spec::secret::redact;

use super::bootkube::Recogniser;
use super::{BackOff, Out};

const DIRECTORY: &str = "/var/log/openshift";
/// The services that keep a record and whose stages matter.
pub const SERVICES: [&str; 4] = ["release-image", "bootkube", "approve-csr", "progress"];
/// Of a larger file only the end is read: a release image that cannot be pulled adds two entries per attempt.
const WHOLE_LIMIT: u64 = 1 << 20;
const TAIL_ENTRIES: u32 = 400;

#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub at: Timestamp,
    pub phase: Phase,
    pub stage: Option<String>,
    /// The last lines of the unit's journal when it failed; `None` when all went well.
    pub error: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    ServiceStart,
    ServiceEnd {
        success: bool,
    },
    StageStart,
    StageEnd {
        success: bool,
    },
    /// Pre- and post-commands, and what a newer release may add.
    Other(String),
}

impl Record {
    /// The line of its error that says most: the last one that speaks of an error, else the last.
    pub fn last_words(&self) -> String {
        let text = self.error.as_deref().unwrap_or("the service record says failure");
        let telling = text.lines().rev().find(|line| line.contains("rror") || line.contains("nable"));
        telling.or(text.lines().next_back()).unwrap_or(text).to_owned()
    }
}

#[derive(Debug, thiserror::Error, PartialEq)]
pub enum RecordError {
    #[error("a service record is no JSON array: {why} at line {line}, column {column}")]
    Json { line: usize, column: usize, why: String },
    #[error("entry {entry} of a service record: {key} should be {wanted}, found {found}")]
    Entry { entry: usize, key: &'static str, wanted: &'static str, found: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRecord {
    #[serde(default)]
    timestamp: String,
    #[serde(default)]
    phase: String,
    #[serde(default)]
    stage: Option<String>,
    #[serde(default)]
    result: Option<String>,
    #[serde(default)]
    error_message: Option<String>,
}

/// Read a record file.
///
/// # Errors
/// Says at which place or in which entry (from 1) it stopped making sense.
pub fn parse(file: &[u8]) -> Result<Vec<Record>, RecordError> {
    let raw: Vec<RawRecord> = serde_json::from_slice(file).map_err(|error| RecordError::Json {
        line: error.line(),
        column: error.column(),
        why: error.to_string().split(" at line ").next().unwrap_or_default().to_owned(),
    })?;
    let quoted = |text: &str| format!("{:?}", one_line(text, 80));
    raw.into_iter()
        .zip(1..)
        .map(|(raw, entry)| {
            let at = raw.timestamp.parse().map_err(|_| RecordError::Entry {
                entry,
                key: "timestamp",
                wanted: "a time such as 2025-03-01T10:00:00Z",
                found: quoted(&raw.timestamp),
            })?;
            let success = match raw.result.as_deref() {
                None | Some("success") => true,
                Some("failure") => false,
                Some(other) => {
                    let found = quoted(other);
                    return Err(RecordError::Entry { entry, key: "result", wanted: "success or failure", found });
                }
            };
            let phase = match raw.phase.as_str() {
                "service start" => Phase::ServiceStart,
                "service end" => Phase::ServiceEnd { success },
                "stage start" => Phase::StageStart,
                "stage end" => Phase::StageEnd { success },
                other => Phase::Other(one_line(other, 80)),
            };
            let clean = |text: String| redact(&crate::model::text::strip_control(&text));
            let stage = raw.stage.map(|stage| one_line(&stage, 80)).filter(|stage| !stage.is_empty());
            Ok(Record { at, phase, stage, error: raw.error_message.map(clean) })
        })
        .collect()
}

/// Look at the records on connecting, whenever `look` calls, and every `every`; feed what changed to the recogniser.
/// Ends when cancelled.
pub async fn follow(
    host: Arc<dyn Host>,
    recogniser: Arc<Mutex<Recogniser>>,
    look: Arc<Notify>,
    every: Duration,
    out: &Out,
) {
    let mut seen = BTreeMap::new();
    let mut back_off = BackOff::new();
    let mut complaint = String::new();
    loop {
        let looked = tokio::select! {
            () = out.cancel.cancelled() => return,
            looked = look_once(host.as_ref(), &recogniser, &mut seen, out) => looked,
        };
        let wait = match looked {
            Ok(()) => {
                back_off.reset();
                every
            }
            Err(HostError::Refused { .. }) => return,
            Err(error) => {
                if !error.is_link() && complaint != error.to_string() {
                    complaint = error.to_string();
                    let text = format!("service records: {complaint}");
                    out.sink.emit(Data::Note { level: Level::Debug, text }).await;
                }
                back_off.pause().max(Duration::from_secs(2))
            }
        };
        tokio::select! {
            () = out.cancel.cancelled() => return,
            // The record is written just after the line: give it a moment.
            () = async { look.notified().await; tokio::time::sleep(Duration::from_secs(1)).await } => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn look_once(
    host: &dyn Host,
    recogniser: &Mutex<Recogniser>,
    seen: &mut BTreeMap<String, String>,
    out: &Out,
) -> Result<(), HostError> {
    for service in SERVICES {
        let path = format!("{DIRECTORY}/{service}.json");
        let stat = host.exec(&Cmd::new("stat").args(["-c", "%s %i %Y", path.as_str()]).sudo()).await?;
        let stamp = stat.text();
        if !stat.ok() || seen.get(service) == Some(&stamp) {
            continue;
        }
        let size: u64 = stamp.split(' ').next().and_then(|size| size.parse().ok()).unwrap_or(0);
        let cmd = if size > WHOLE_LIMIT {
            Cmd::new("jq").arg("-c").arg(format!(".[-{TAIL_ENTRIES}:]")).arg(path).sudo()
        } else {
            Cmd::new("cat").arg(path).sudo()
        };
        let file = host.exec(&cmd).await?;
        if !file.ok() {
            continue;
        }
        match parse(&file.stdout) {
            Ok(records) => {
                seen.insert(service.to_owned(), stamp);
                let changes = recogniser.lock().unwrap_or_else(PoisonError::into_inner).confirm(service, &records);
                out.observed(changes).await;
            }
            Err(error) => {
                seen.insert(service.to_owned(), stamp);
                let text = format!("{service}.json: {error}");
                out.sink.emit(Data::Note { level: Level::Debug, text }).await;
            }
        }
    }
    Ok(())
}
