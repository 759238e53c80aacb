//! `bartizan verify-mirror`: the proof alone, from the machine that it runs on. And `bartizan listen`, the listener for a
//! registry's notifications that bartizan starts on the bastion.

use std::path::Path;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio_util::sync::CancellationToken;

use super::copy::CopyArgs;
use super::{Failure, exit};
use crate::model::event::SyncEvent;
use crate::model::text::strip_control;
use crate::registry::agent::{self, Action, INCOMPLETE, Line, Message, Request};
use crate::registry::release::is_repository;
use crate::registry::{Net, notify};
use crate::spec::Secret;

#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    copy: CopyArgs,
    /// The repository of the release image itself, when it has one of its own (openshift/release-images).
    #[arg(long, value_name = "REPOSITORY")]
    release_repository: Option<String>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// What was found.
#[derive(Debug, Default, Serialize)]
struct Verdict {
    complete: bool,
    version: String,
    digest: String,
    /// Digests and signatures that answer.
    proven: u64,
    /// `name: place`
    missing: Vec<String>,
    warnings: Vec<String>,
    errors: Vec<String>,
}

/// 0 when everything answers, else 9.
pub async fn verify_mirror(args: VerifyArgs) -> Result<u8, Failure> {
    let json = args.json;
    let request = request(args)?;
    let cancel = CancellationToken::new();
    tokio::spawn(super::look::cancel_on_signals(cancel.clone()));
    let (theirs, ours) = tokio::io::duplex(1 << 16);
    let asking = agent::run(request, Net::default(), theirs, cancel.clone());
    let (code, verdict) = tokio::join!(asking, hear(ours));
    if json {
        println!("{}", serde_json::to_string_pretty(&verdict).map_err(Failure::other)?);
    } else {
        print!("{}", strip_control(&plain(&verdict)));
    }
    Ok(if cancel.is_cancelled() { exit::INTERRUPTED } else { code })
}

async fn hear(from: impl tokio::io::AsyncRead + Unpin) -> Verdict {
    let mut verdict = Verdict::default();
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(line) = serde_json::from_str::<Line>(&line) else { continue };
        match line.message {
            Message::Release { version, digest, .. } => (verdict.version, verdict.digest) = (version, digest),
            Message::Sync(SyncEvent::Proven { images, missing, .. }) => {
                (verdict.proven, verdict.missing) = (images, missing);
            }
            Message::Warning { text } => verdict.warnings.push(text),
            Message::Error { side, class, why, .. } => verdict.errors.push(format!("{side}: {class}: {why}")),
            Message::Done { exit, .. } => verdict.complete = exit == 0,
            Message::Sync(_) => {}
        }
    }
    verdict
}

fn plain(verdict: &Verdict) -> String {
    let mut text = String::new();
    if !verdict.digest.is_empty() {
        text.push_str(&format!("release {} {}\n", verdict.version, verdict.digest));
    }
    verdict.warnings.iter().for_each(|warning| text.push_str(&format!("warning: {warning}\n")));
    verdict.errors.iter().for_each(|error| text.push_str(&format!("error: {error}\n")));
    verdict.missing.iter().for_each(|missing| text.push_str(&format!("missing: {missing}\n")));
    text.push_str(&match (verdict.complete, verdict.missing.len()) {
        (true, _) => format!("all {} digests and signatures answer in the mirror\n", verdict.proven),
        (false, 0) => format!("nothing is proven (exit {INCOMPLETE})\n"),
        (false, missing) => format!("{} answer, {missing} do not (exit {INCOMPLETE})\n", verdict.proven),
    });
    text
}

fn request(args: VerifyArgs) -> Result<Request, Failure> {
    let mut request = args.copy.request(Action::Prove)?;
    if let Some(repository) = args.release_repository {
        if !is_repository(&repository) {
            return Err(Failure::usage(format!("--release-repository {repository}: expected a repository")));
        }
        request.release_repository = repository;
    }
    Ok(request)
}

/// Writes each notification of a registry as one JSON line, until it is told to stop.
pub async fn listen(address: std::net::SocketAddr, token_file: &Path) -> Result<u8, Failure> {
    let token = std::fs::read_to_string(token_file)
        .map_err(|error| Failure::usage(format!("{}: {error}", token_file.display())))?;
    let token = Secret::new(token.trim().to_owned());
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|error| Failure::other(format!("listening on {address}: {error}")))?;
    let cancel = CancellationToken::new();
    tokio::spawn(super::look::cancel_on_signals(cancel.clone()));
    notify::listen(listener, token, tokio::io::stdout(), cancel).await;
    Ok(exit::DONE)
}
