//! Writing a blob into a repository of the mirror.
//!
//! Most blobs pass through in one PUT while they are being read: one write for the registry, and next to no memory for us.
//! Large ones go in chunks, each read whole before its PATCH begins: registry:2 loses an upload whose PATCH broke
//! (distribution/distribution#3755), and a source that stalls must not hold one open. After each chunk the journal knows
//! where the upload is, so that another process can go on with it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use reqwest::header::{self, HeaderValue};
use reqwest::{Method, StatusCode, Url};

use super::blob::BlobReader;
use super::chunk::{CHUNK, Chunks};
use super::client::{Client, Repo};
use super::error::{Class, RegistryError};
use super::journal::{Journal, Open};
use super::manifest::Blob;
use super::send::{Ask, Payload, text};

/// Larger blobs go in chunks.
pub(super) const STREAMED: u64 = 64 << 20;

/// What became of the wish to mount.
#[derive(Debug)]
pub enum Mount {
    Mounted,
    /// Not mounted; the registry opened an upload instead.
    Session(Session),
    /// Neither: it knows no mounting, or not from there.
    Refused,
}

/// An upload at the mirror, and how much of it is there.
#[derive(Debug, Clone)]
pub struct Session {
    location: Url,
    pub offset: u64,
    /// Bytes that a chunk has to have at least (`OCI-Chunk-Min-Length`).
    least: u64,
}

/// A body that is read from the source while it is sent. It can be sent once.
pub(super) struct Passing {
    reader: Mutex<Option<BlobReader>>,
    /// What the reader stumbled over, which the transport would tell as its own failure.
    broke: Mutex<Option<RegistryError>>,
    pub length: u64,
}

impl Passing {
    fn new(reader: BlobReader, length: u64) -> Arc<Self> {
        Arc::new(Self { reader: Mutex::new(Some(reader)), broke: Mutex::default(), length })
    }

    /// The pieces; `None` when they were asked for before. `pulse` grows with every piece.
    pub fn body(self: &Arc<Self>, pulse: &Arc<AtomicU64>) -> Option<reqwest::Body> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let (this, pulse) = (Arc::clone(self), Arc::clone(pulse));
        Some(reqwest::Body::wrap_stream(futures::stream::unfold(Some(reader), move |reader| {
            let (this, pulse) = (Arc::clone(&this), Arc::clone(&pulse));
            async move {
                let mut reader = reader?;
                match reader.next().await {
                    Ok(piece) => {
                        pulse.fetch_add(1, Ordering::Relaxed);
                        Some((Ok(piece?), Some(reader)))
                    }
                    Err(error) => {
                        let why = std::io::Error::other(error.to_string());
                        *this.broke.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                        Some((Err(why), None))
                    }
                }
            }
        })))
    }

    fn broke(&self) -> Option<RegistryError> {
        self.broke.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Client {
    /// Take a blob over from another repository of the same registry.
    pub async fn mount(&self, to: &Repo, from: &str, digest: &str) -> Result<Mount, RegistryError> {
        let mut ask = self.ask(Method::POST, to, "blobs/uploads/", true)?;
        ask.scopes.push(format!("repository:{from}:pull"));
        ask.url.query_pairs_mut().append_pair("mount", digest).append_pair("from", from);
        let response = self.send(&ask).await?;
        match response.status() {
            StatusCode::CREATED => Ok(Mount::Mounted),
            StatusCode::ACCEPTED => Ok(Mount::Session(self.session(&ask, &response)?)),
            // What is really wrong is wrong with an upload as well.
            status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => Ok(Mount::Refused),
            _ => Err(self.failure(&ask, response).await),
        }
    }

    fn session(&self, ask: &Ask, response: &reqwest::Response) -> Result<Session, RegistryError> {
        let least = text(response.headers(), "oci-chunk-min-length").and_then(|least| least.parse().ok());
        Ok(Session { location: self.location(ask, response)?, offset: 0, least: least.unwrap_or(0) })
    }

    async fn open_upload(&self, repo: &Repo) -> Result<Session, RegistryError> {
        let ask = self.ask(Method::POST, repo, "blobs/uploads/", true)?;
        let response = self.send(&ask).await?;
        let response = self.expect(&ask, response, &[StatusCode::ACCEPTED]).await?;
        self.session(&ask, &response)
    }

    /// The upload that an earlier process left, if the mirror still has it.
    pub(super) async fn resume_upload(
        &self,
        repo: &Repo,
        blob: &Blob,
        journal: &Journal,
    ) -> Result<Option<Session>, RegistryError> {
        let Some(Open { location, offset }) = journal.find(repo, &blob.digest) else { return Ok(None) };
        // Only a location at this registry is worth our login.
        let here = self.ask(Method::GET, repo, "blobs/uploads/", true)?.url;
        let found = match Url::parse(&location) {
            Ok(location) if location.origin() == here.origin() => self.upload_status(repo, &location, offset).await?,
            _ => None,
        };
        let found = found.filter(|session| (offset..=blob.size).contains(&session.offset));
        if found.is_none() {
            journal.forget(repo, &blob.digest);
        }
        Ok(found)
    }

    /// How far an upload is that had `offset` bytes when it last answered; `None` when it is lost.
    async fn upload_status(&self, repo: &Repo, location: &Url, offset: u64) -> Result<Option<Session>, RegistryError> {
        let mut ask = self.ask(Method::GET, repo, "blobs/uploads/", true)?;
        ask.url = location.clone();
        let response = self.send(&ask).await?;
        if !matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::ACCEPTED) {
            return Ok(None);
        }
        let range = text(response.headers(), header::RANGE.as_str()).unwrap_or_default();
        let end = range.rsplit('-').next().and_then(|end| end.parse::<u64>().ok());
        // `0-END`, and `0-0` both for one byte and for none. Quay's END is one too high; there the own count is the truth.
        let told = end.map_or(offset, |end| if end == offset { offset } else { end + 1 });
        let location = self.location(&ask, &response).unwrap_or_else(|_| location.clone());
        Ok(Some(Session { location, offset: told, least: 0 }))
    }

    /// Send a blob into `repo`; `reader` begins at the session's offset. `chunks` are those that may be in memory.
    pub(super) async fn upload(
        &self,
        repo: &Repo,
        blob: &Blob,
        mut reader: BlobReader,
        session: Option<Session>,
        chunks: &Chunks,
        journal: &Journal,
    ) -> Result<(), RegistryError> {
        let mut session = match session {
            Some(session) => session,
            None => self.open_upload(repo).await?,
        };
        let whole = !self.inner.small_bodies.load(Ordering::Relaxed);
        if blob.size <= STREAMED && session.offset == 0 && (whole || blob.size <= CHUNK) {
            let passing = Passing::new(reader, blob.size);
            let sent = self.finish(repo, &session.location, blob, Payload::Passing(Arc::clone(&passing))).await;
            return sent.map_err(|error| {
                let error = passing.broke().unwrap_or(error);
                let fits = blob.size <= CHUNK || error.status != Some(StatusCode::PAYLOAD_TOO_LARGE.as_u16());
                // In chunks it may fit.
                if fits { error } else { self.only_small_bodies(error) }
            });
        }
        let size = CHUNK.max(session.least);
        // What was read beyond a chunk begins the next one.
        let mut rest = Bytes::new();
        while session.offset < blob.size {
            let mut chunk = chunks.empty().await;
            let wanted = size.min(blob.size - session.offset);
            while let Some(room) = chunk.room(wanted) {
                if rest.is_empty() {
                    let Some(piece) = reader.next().await? else { break };
                    rest = piece;
                }
                chunk.push(&rest.split_to(room.min(rest.len())));
            }
            let sent = self.chunk(repo, session, chunk.into_bytes()).await;
            session = sent.inspect_err(|error| {
                if error.status == Some(416) {
                    journal.forget(repo, &blob.digest);
                }
            })?;
            let open = Open { location: session.location.to_string(), offset: session.offset };
            journal.note(repo, &blob.digest, open);
        }
        let done = self.finish(repo, &session.location, blob, Payload::Empty).await;
        // Complete or refused, there is nothing to go on with; with no answer there may be.
        if done.as_ref().err().is_none_or(|error| error.kind() == Class::Digest || !error.is_retryable()) {
            journal.forget(repo, &blob.digest);
        }
        done
    }

    /// Something before the registry limits bodies: from now on nothing goes in one that fits in a chunk.
    fn only_small_bodies(&self, error: RegistryError) -> RegistryError {
        self.inner.small_bodies.store(true, Ordering::Relaxed);
        error.passing()
    }

    /// One chunk. A registry that kept part of a PATCH that broke (registry:3 does) gets the rest.
    async fn chunk(&self, repo: &Repo, session: Session, bytes: Bytes) -> Result<Session, RegistryError> {
        let (start, end) = (session.offset, session.offset + bytes.len() as u64);
        let (mut session, mut bytes) = (session, bytes);
        let mut failures = 0;
        loop {
            let error = match self.patch(repo, &session.location, session.offset, bytes.clone()).await {
                Ok(location) => return Ok(Session { location, offset: end, ..session }),
                Err(error) => error,
            };
            failures += 1;
            let Some(pause) = self.retry().pause(failures, &error) else { return Err(error) };
            tokio::time::sleep(pause).await;
            match self.upload_status(repo, &session.location, session.offset).await {
                Ok(Some(found)) if (start..=end).contains(&found.offset) && found.offset >= session.offset => {
                    let kept = usize::try_from(found.offset - session.offset).unwrap_or(bytes.len());
                    bytes = bytes.slice(kept.min(bytes.len())..);
                    session = Session { least: session.least, ..found };
                    if session.offset == end {
                        return Ok(session);
                    }
                }
                _ => return Err(error),
            }
        }
    }

    async fn patch(&self, repo: &Repo, location: &Url, start: u64, bytes: Bytes) -> Result<Url, RegistryError> {
        let range = format!("{start}-{}", (start + bytes.len() as u64).saturating_sub(1));
        let mut ask = self.upload_ask(Method::PATCH, repo, location, Payload::Chunk(bytes))?;
        if let Ok(range) = HeaderValue::from_str(&range) {
            ask.headers.insert(header::CONTENT_RANGE, range);
        }
        let response = self.send(&ask).await?;
        let response = self.expect(&ask, response, &[StatusCode::ACCEPTED, StatusCode::NO_CONTENT]).await?;
        self.location(&ask, &response)
    }

    async fn finish(&self, repo: &Repo, location: &Url, blob: &Blob, body: Payload) -> Result<(), RegistryError> {
        let mut ask = self.upload_ask(Method::PUT, repo, location, body)?;
        ask.url.query_pairs_mut().append_pair("digest", &blob.digest);
        let response = self.send(&ask).await?;
        let good = [StatusCode::CREATED, StatusCode::NO_CONTENT, StatusCode::OK, StatusCode::ACCEPTED];
        self.expect(&ask, response, &good).await.map(drop)
    }

    fn upload_ask(&self, method: Method, repo: &Repo, location: &Url, body: Payload) -> Result<Ask, RegistryError> {
        let mut ask = self.ask(method, repo, "blobs/uploads/", true)?;
        ask.url = location.clone();
        ask.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        ask.body = body;
        ask.bulk = true;
        Ok(ask)
    }

    /// The newest place of an upload, which must be at the same registry: our authorization goes there.
    fn location(&self, ask: &Ask, response: &reqwest::Response) -> Result<Url, RegistryError> {
        match text(response.headers(), header::LOCATION.as_str()) {
            Some(location) => self.same_host(ask, &location),
            None => Err(RegistryError::new(self.side(), Class::Other, ask.name(), "the answer has no Location")),
        }
    }
}
