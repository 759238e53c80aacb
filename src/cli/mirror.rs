//! `bartizan mirror`: the copier alone, from the machine that it runs on.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio_util::sync::CancellationToken;

use super::copy::CopyArgs;
use super::{Failure, exit};
use crate::model::event::{Data, Event, ImageState, SyncEvent};
use crate::model::text::strip_control;
use crate::model::{RunModel, reduce};
use crate::registry::Net;
use crate::registry::agent::{self, Action, Ended, Line, Message, Request};
use crate::spec::{Subset, rate};

#[derive(Debug, clap::Args)]
pub struct MirrorArgs {
    #[command(flatten)]
    copy: CopyArgs,
    /// Blobs in flight.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// Bytes per second at most, with K, M or G for powers of 1024 (as curl --limit-rate).
    #[arg(long, value_name = "RATE", value_parser = rate)]
    bandwidth: Option<u64>,
    /// Only these images of all, by name or digest.
    #[arg(long, value_name = "IMAGE")]
    only: Vec<String>,
    /// Do without this image, by name or digest. Without one of the release no cluster can be installed: see
    /// --accept-incomplete.
    #[arg(long, value_name = "IMAGE")]
    skip: Vec<String>,
    /// Call a mirror good that lacks images of the release which --skip names.
    #[arg(long, requires = "skip")]
    accept_incomplete: bool,
    /// `core-21`: only the components that a registry can be tried with; it cannot boot a cluster.
    #[arg(long, value_parser = subset, default_value = "all")]
    subset: Subset,
    /// Say what there is to do, to the byte, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// One JSON object per line.
    #[arg(long, conflicts_with = "plain")]
    json: bool,
    /// One line per change; the default.
    #[arg(long)]
    plain: bool,
    /// Where mapping.txt, idms.yaml and image-digest-sources.yaml go. Default: below the state directory.
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
}

fn subset(text: &str) -> Result<Subset, String> {
    match text {
        "all" => Ok(Subset::All),
        "core-21" => Ok(Subset::Core21),
        other => Err(format!("found \"{other}\"; expected all or core-21")),
    }
}

pub async fn mirror(state: Option<&Path>, args: MirrorArgs) -> Result<u8, Failure> {
    let json = args.json;
    let request = request(state, args)?;
    let cancel = CancellationToken::new();
    tokio::spawn(super::look::cancel_on_signals(cancel.clone()));
    if json {
        let code = agent::run(request, Net::default(), tokio::io::stdout(), cancel.clone()).await;
        return Ok(if cancel.is_cancelled() { exit::INTERRUPTED } else { code });
    }
    let (theirs, ours) = tokio::io::duplex(1 << 16);
    let work = agent::run(request, Net::default(), theirs, cancel.clone());
    let tell = async {
        let mut lines = BufReader::new(ours).lines();
        let mut teller = Teller::default();
        while let Ok(Some(line)) = lines.next_line().await {
            let Ok(line) = serde_json::from_str::<Line>(&line) else { continue };
            for text in teller.of(line) {
                // Whoever read us may have gone; the work is what counts.
                let _gone = writeln!(std::io::stdout(), "{}", strip_control(&text));
            }
        }
    };
    let (code, ()) = tokio::join!(work, tell);
    Ok(if cancel.is_cancelled() { exit::INTERRUPTED } else { code })
}

fn request(state: Option<&Path>, args: MirrorArgs) -> Result<Request, Failure> {
    let outputs = match args.output_dir {
        Some(dir) => dir,
        None => {
            let store = crate::record::Store::open(state).map_err(Failure::other)?;
            store.home().join("mirror").join(args.copy.to.replace(['/', ':'], "_"))
        }
    };
    let action = if args.dry_run { Action::Plan } else { Action::Sync };
    Ok(Request {
        jobs: args.jobs,
        subset: args.subset,
        only: (!args.only.is_empty()).then_some(args.only),
        skip: args.skip,
        accept_incomplete: args.accept_incomplete,
        bandwidth: args.bandwidth,
        outputs: Some(outputs),
        ..args.copy.request(action)?
    })
}

/// Sentences for what the copier says. Progress at most every two seconds.
#[derive(Default)]
struct Teller {
    model: RunModel,
    told: Option<Timestamp>,
}

impl Teller {
    const EVERY: SignedDuration = SignedDuration::from_secs(2);

    fn of(&mut self, line: Line) -> Vec<String> {
        let at = line.at;
        match line.message {
            Message::Sync(event) => self.sync(at, event),
            Message::Release { version, digest, images, mirror_tag, .. } => {
                vec![format!("release {version} {digest}: {images} images to {mirror_tag}")]
            }
            Message::Warning { text } => vec![format!("warning: {text}")],
            Message::Error { side, class, why, .. } => vec![format!("error: {side}: {class}: {why}")],
            Message::Done { outcome, proven, failed, moved, mounted_blobs, elapsed_ms, .. } => {
                let word = match outcome {
                    Ended::Done => "done",
                    Ended::Failed => "failed",
                    Ended::Cancelled => "interrupted; the same command goes on where it was",
                };
                let mut lines = vec![format!(
                    "{word}: {moved} bytes moved, {mounted_blobs} blobs mounted, {proven} images proven, {}.{} s",
                    elapsed_ms / 1000,
                    elapsed_ms % 1000 / 100
                )];
                lines.extend(failed.iter().map(|name| format!("missing: {name}")));
                lines
            }
        }
    }

    fn sync(&mut self, at: Timestamp, event: SyncEvent) -> Vec<String> {
        let event = Event { seq: self.model.seq + 1, at, data: Data::Sync(event) };
        reduce(&mut self.model, &event);
        let Data::Sync(event) = event.data else { return Vec::new() };
        match event {
            SyncEvent::Planned { images, blobs, bytes, present_bytes } => vec![format!(
                "plan: {} images, {blobs} blobs, {bytes} bytes; {present_bytes} bytes are there, {} bytes to move",
                images.len(),
                bytes.saturating_sub(present_bytes)
            )],
            SyncEvent::ImageState { image, state: ImageState::Failed { side, class, why }, .. } => {
                vec![format!("failed: {image}: {side}: {class}: {why}")]
            }
            SyncEvent::Retry { image, side, class, why } => {
                vec![format!("again: {image}: {side}: {class}: {why}")]
            }
            SyncEvent::ImageState { image, state: ImageState::Skipped, .. } => vec![format!("left out: {image}")],
            SyncEvent::Proven { images, missing, left_out } => match missing.len() {
                0 if !left_out.is_empty() => {
                    vec![format!("proof: {images} answer, {} were left out and do not", left_out.len())]
                }
                0 => vec![format!("proof: all {images} digests and signatures answer in the mirror")],
                count => vec![format!("proof: {images} answer, {count} do not")],
            },
            _ if self.told.is_none_or(|told| at.duration_since(told) >= Self::EVERY) && self.model.sync.planned => {
                self.told = Some(at);
                vec![crate::headless::sync_line(&self.model, at)]
            }
            _ => Vec::new(),
        }
    }
}
