//! Notifications of a registry: what was stored, as it is stored, exact whoever stores it
//! (distribution/distribution, `notifications/event.go`).
//!
//! The registry posts envelopes to a listener on the same machine. The listener writes one JSON line for each event, so
//! that it can run as a job and be followed like one. It trusts only those who know its token.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use super::digest;
use super::error::Malformed;
use crate::spec::Secret;

/// Path that the registry posts to.
pub const PATH: &str = "/notifications";
/// An envelope has one event, or a few; this is more than any.
const LARGEST: u64 = 4 << 20;
const LONGEST_HEAD: u64 = 32 << 10;
/// A registry keeps its connection between two events.
const IDLE: Duration = Duration::from_secs(600);

/// One event. Only what is needed of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub at: Timestamp,
    /// `push`, `pull`, `mount`, `delete`.
    pub action: String,
    #[serde(default)]
    pub media_type: String,
    /// Bytes of the blob or manifest.
    #[serde(default)]
    pub size: u64,
    pub digest: String,
    pub repository: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

impl Notice {
    /// Something is in the mirror now.
    pub fn stores(&self) -> bool {
        self.action == "push" || self.action == "mount"
    }

    pub fn is_manifest(&self) -> bool {
        self.media_type.contains("manifest") || self.media_type.contains("image.index")
    }
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    action: String,
    timestamp: Timestamp,
    target: Target,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    size: u64,
    /// Of a deletion by tag there is none.
    #[serde(default)]
    digest: String,
    #[serde(default)]
    repository: String,
    #[serde(default)]
    tag: Option<String>,
}

/// The events of an envelope that are about something with a digest.
///
/// # Errors
/// When it is no envelope.
pub fn read(envelope: &[u8]) -> Result<Vec<Notice>, Malformed> {
    let envelope: Envelope =
        serde_json::from_slice(envelope).map_err(|error| Malformed::new("notification envelope", error.to_string()))?;
    let notice = |event: Event| {
        digest::is_valid(&event.target.digest).then_some(Notice {
            at: event.timestamp,
            action: event.action,
            media_type: event.target.media_type,
            size: event.target.size,
            digest: event.target.digest,
            repository: event.target.repository,
            tag: event.target.tag.filter(|tag| !tag.is_empty()),
        })
    };
    Ok(envelope.events.into_iter().filter_map(notice).collect())
}

/// Listens until told to stop. Each event is one JSON line of `out`.
pub async fn listen(listener: TcpListener, token: Secret, mut out: impl AsyncWrite + Unpin, cancel: CancellationToken) {
    let (say, mut said) = mpsc::channel::<Notice>(1024);
    let token = Arc::new(token);
    let connections = Arc::new(Mutex::new(tokio::task::JoinSet::new()));
    let accepting = {
        let connections = connections.clone();
        async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let mut set = connections.lock().await;
                        while set.try_join_next().is_some() {}
                        set.spawn(serve(stream, token.clone(), say.clone()));
                    }
                    // Too many open files: somebody will close one.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        }
    };
    let writing = async {
        while let Some(notice) = said.recv().await {
            let Ok(mut line) = serde_json::to_string(&notice) else { continue };
            line.push('\n');
            // Who reads it may be gone; the next one may not.
            let _gone = out.write_all(line.as_bytes()).await;
            let _gone = out.flush().await;
        }
    };
    tokio::select! {
        () = accepting => {}
        () = writing => {}
        () = cancel.cancelled() => {}
    }
    connections.lock().await.abort_all();
}

/// One connection: requests one after the other, each answered.
async fn serve(stream: TcpStream, token: Arc<Secret>, say: mpsc::Sender<Notice>) {
    let mut stream = BufReader::new(stream);
    loop {
        let answered = tokio::time::timeout(IDLE, answer(&mut stream, &token, &say)).await;
        let Ok(Some(status)) = answered else { return };
        let text = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        if stream.get_mut().write_all(text.as_bytes()).await.is_err() || status != OK {
            return;
        }
    }
}

const OK: &str = "200 OK";

/// Reads one request (RFC 9112, without chunks: the registry knows the length of what it posts) and takes its events.
async fn answer(stream: &mut BufReader<TcpStream>, token: &Secret, say: &mpsc::Sender<Notice>) -> Option<&'static str> {
    let mut head = Vec::new();
    let mut limited = (&mut *stream).take(LONGEST_HEAD);
    let mut length = 0_u64;
    let mut known = false;
    let mut first = String::new();
    loop {
        head.clear();
        limited.read_until(b'\n', &mut head).await.ok().filter(|read| *read > 0)?;
        let line = String::from_utf8_lossy(&head).trim_end().to_owned();
        if !head.ends_with(b"\n") {
            return Some("431 Request Header Fields Too Large");
        }
        if first.is_empty() {
            first = line;
            continue;
        }
        if line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(':') else { return Some("400 Bad Request") };
        match name.trim().to_ascii_lowercase().as_str() {
            "content-length" => match value.trim().parse() {
                Ok(bytes) => length = bytes,
                Err(_) => return Some("400 Bad Request"),
            },
            "transfer-encoding" => return Some("411 Length Required"),
            "authorization" => known = same(value.trim(), &format!("Bearer {}", token.reveal())),
            _ => {}
        }
    }
    if !known {
        return Some("401 Unauthorized");
    }
    if !first.starts_with(&format!("POST {PATH} ")) {
        return Some("404 Not Found");
    }
    if length > LARGEST {
        return Some("413 Content Too Large");
    }
    let mut body = vec![0; usize::try_from(length).ok()?];
    stream.read_exact(&mut body).await.ok()?;
    // An envelope that cannot be read would come again and again.
    for notice in read(&body).unwrap_or_default() {
        say.send(notice).await.ok()?;
    }
    Some(OK)
}

/// Takes as long for a wrong one as for the right one.
fn same(one: &str, other: &str) -> bool {
    let hash = |text: &str| ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    hash(one).as_ref() == hash(other).as_ref()
}
