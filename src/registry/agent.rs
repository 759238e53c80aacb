//! Planning, copying and proving as a job: a request in, one JSON object per line out.
//!
//! It runs on the bastion (`bartizan agent REQUEST.json`), where it outlives the SSH connection. Secrets come from the
//! auth file that the request names. The last line always says how it ended, and the same request can be given again
//! at any time: what is done already is found and not done twice.

mod skips;
mod work;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::client::Net;
use super::outputs::DigestSource;
use crate::model::event::SyncEvent;
use crate::spec::Subset;

/// What to do, and with what. No field holds a secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub action: Action,
    /// Pull spec of the release.
    pub source: String,
    /// Architecture of the payload, as in its tag.
    #[serde(default = "default_arch")]
    pub arch: String,
    /// `host:port`, the mirror's one identity.
    pub mirror: String,
    pub release_repository: String,
    pub component_repository: String,
    /// Tag of the release in the mirror; default `<version>-<arch>`.
    #[serde(default)]
    pub release_tag: Option<String>,
    /// `auth.json` with the logins of both sides; mode 0600.
    pub authfile: PathBuf,
    /// PEM files with CAs to trust besides the system's, for each side.
    #[serde(default)]
    pub source_ca: Vec<PathBuf>,
    #[serde(default)]
    pub mirror_ca: Vec<PathBuf>,
    /// Where a registry is, past the resolver: a managed mirror is on the bastion itself.
    #[serde(default)]
    pub resolve: Vec<(String, std::net::SocketAddr)>,
    /// Blobs in flight.
    #[serde(default = "default_jobs")]
    pub jobs: u8,
    #[serde(default)]
    pub subset: Subset,
    /// More pull specs to mirror.
    #[serde(default)]
    pub additional: Vec<String>,
    /// Lines `SRC=DST` of a mapping file; every destination is at `mirror`.
    #[serde(default)]
    pub mapping: Vec<String>,
    /// The source is out of reach: a proof asks only the mirror.
    #[serde(default)]
    pub offline: bool,
    /// Images to do without, by name or digest.
    #[serde(default)]
    pub skip: Vec<String>,
    /// A file with more of them, one in a line, that is read again and again: an image can be left while it is copied.
    #[serde(default)]
    pub skip_file: Option<PathBuf>,
    /// A mirror without an image of the release is good as well, when that was left out by name.
    #[serde(default)]
    pub accept_incomplete: bool,
    /// Only these images, by name or digest.
    #[serde(default)]
    pub only: Option<Vec<String>>,
    /// Bytes per second that are taken from the source, at most.
    #[serde(default)]
    pub bandwidth: Option<u64>,
    /// Directory for `mapping.txt`, `idms.yaml`, `image-digest-sources.yaml` and the journal of open uploads.
    #[serde(default)]
    pub outputs: Option<PathBuf>,
}

fn default_arch() -> String {
    "x86_64".into()
}
fn default_jobs() -> u8 {
    6
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Plan, copy, prove.
    Sync,
    /// Say what a sync would do.
    Plan,
    /// Ask the mirror for every digest.
    Prove,
    /// A sync of the images in `only`; the release's tag is set when nothing is missing afterwards.
    OneImage,
}

/// One line of output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub at: Timestamp,
    #[serde(flatten)]
    pub message: Message,
}

/// `{"at":…,"sync":{…}}`, `{"at":…,"release":{…}}`, …
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Message {
    Sync(SyncEvent),
    /// The release was found and read.
    Release {
        version: String,
        digest: String,
        /// `mirror:5000/openshift/release-images@sha256:…`
        mirror_pull_spec: String,
        /// The tag that a complete mirror has.
        mirror_tag: String,
        images: u64,
        digest_sources: Vec<DigestSource>,
    },
    /// The operator should know.
    Warning {
        text: String,
    },
    Error {
        /// `source`, `mirror` or `request`.
        side: String,
        /// As in `RegistryError::class`.
        class: String,
        why: String,
        /// Outermost first.
        causes: Vec<String>,
    },
    /// Always the last line.
    Done {
        outcome: Ended,
        /// Images that are in the mirror for certain.
        proven: u64,
        /// Names of images that are not.
        failed: Vec<String>,
        /// What does not answer because the operator does without it.
        #[serde(default)]
        left_out: Vec<String>,
        /// Bytes moved from the source to the mirror.
        moved: u64,
        mounted_blobs: u64,
        elapsed_ms: u64,
        exit: u8,
    },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    Done,
    #[default]
    Failed,
    Cancelled,
}

/// The exit code of a mirror that is not complete.
pub const INCOMPLETE: u8 = 9;

/// Do what the request says; 0 when all of it is true, else 9.
pub async fn run(
    request: Request,
    net_base: Net,
    mut out: impl AsyncWrite + Unpin + Send,
    cancel: CancellationToken,
) -> u8 {
    let started = Instant::now();
    let (say, mut said) = mpsc::channel::<Message>(256);
    let work = async {
        let mut tally = Tally::default();
        let cancelled = cancel.clone();
        tokio::select! {
            result = work::work(&request, net_base, &say, &mut tally, &cancel) => {
                if let Err(error) = result {
                    say_to(&say, error.message()).await;
                }
            }
            // Work that does not watch the token itself gets this long to end.
            () = async { cancelled.cancelled().await; tokio::time::sleep(Duration::from_secs(2)).await } => {}
        }
        drop(say);
        tally
    };
    let write = async {
        while let Some(message) = said.recv().await {
            write_line(&mut out, message).await;
        }
    };
    let (tally, ()) = tokio::join!(work, write);
    let outcome = match tally.complete {
        true => Ended::Done,
        false if cancel.is_cancelled() => Ended::Cancelled,
        false => Ended::Failed,
    };
    let exit = if outcome == Ended::Done { 0 } else { INCOMPLETE };
    let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let Tally { proven, failed, left_out, moved, mounted_blobs, .. } = tally;
    let done = Message::Done { outcome, proven, failed, left_out, moved, mounted_blobs, elapsed_ms, exit };
    write_line(&mut out, done).await;
    exit
}

async fn write_line(out: &mut (impl AsyncWrite + Unpin), message: Message) {
    let line = Line { at: Timestamp::now(), message };
    if let Ok(mut text) = serde_json::to_string(&line) {
        text.push('\n');
        // A reader that went away is no reason to stop: the work is what counts, and it can be proven again.
        let _gone = out.write_all(text.as_bytes()).await;
        let _gone = out.flush().await;
    }
}

async fn say_to(say: &mpsc::Sender<Message>, message: Message) {
    let _ended = say.send(message).await;
}

#[derive(Debug, Default)]
struct Tally {
    complete: bool,
    proven: u64,
    failed: Vec<String>,
    left_out: Vec<String>,
    moved: u64,
    mounted_blobs: u64,
}
