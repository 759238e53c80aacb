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
use tokio::sync::Semaphore;

use super::blob::BlobReader;
use super::client::{Client, Repo};
use super::error::{Class, RegistryError};
use super::journal::{Journal, Open};
use super::manifest::Blob;
use super::send::{Ask, Payload, text};

/// Larger blobs go in chunks.
pub(super) const STREAMED: u64 = 64 << 20;
/// Each PATCH costs the registry an fsync; below 16 MiB that is what one waits for.
pub(super) const CHUNK: u64 = 16 << 20;
/// Chunks in memory at once: more of them would only wait for the same link.
pub(super) const CHUNKS: usize = 2;

/// What became of the wish to mount.
#[derive(Debug)]
pub enum Mount {
    Mounted,
    /// Not mounted; the registry opened an upload instead.
    Session(Session),
}

/// An upload at the mirror, and how much of it is there.
#[derive(Debug, Clone)]
pub struct Session {
    location: Url,
    pub offset: u64,
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
        let response = self.expect(&ask, response, &[StatusCode::CREATED, StatusCode::ACCEPTED]).await?;
        if response.status() == StatusCode::CREATED {
            return Ok(Mount::Mounted);
        }
        let location = self.location(&ask, &response)?;
        Ok(Mount::Session(Session { location, offset: 0 }))
    }

    async fn open_upload(&self, repo: &Repo) -> Result<Session, RegistryError> {
        let ask = self.ask(Method::POST, repo, "blobs/uploads/", true)?;
        let response = self.send(&ask).await?;
        let response = self.expect(&ask, response, &[StatusCode::ACCEPTED]).await?;
        Ok(Session { location: self.location(&ask, &response)?, offset: 0 })
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
        Ok(Some(Session { location, offset: told }))
    }

    /// Send a blob into `repo`; `reader` begins at the session's offset. `chunks` are those that may be in memory.
    pub(super) async fn upload(
        &self,
        repo: &Repo,
        blob: &Blob,
        mut reader: BlobReader,
        session: Option<Session>,
        chunks: &Semaphore,
        journal: &Journal,
    ) -> Result<(), RegistryError> {
        let mut session = match session {
            Some(session) => session,
            None => self.open_upload(repo).await?,
        };
        if blob.size <= STREAMED && session.offset == 0 {
            let passing = Passing::new(reader, blob.size);
            let sent = self.finish(repo, &session.location, blob, Payload::Passing(Arc::clone(&passing))).await;
            return sent.map_err(|error| passing.broke().unwrap_or(error));
        }
        while session.offset < blob.size {
            let Ok(_room) = chunks.acquire().await else {
                return Err(RegistryError::new(self.side(), Class::Other, repo.to_string(), "the copier was stopped"));
            };
            let (mut pieces, mut length) = (Vec::new(), 0);
            while length < CHUNK.min(blob.size - session.offset) {
                let Some(piece) = reader.next().await? else { break };
                length += piece.len() as u64;
                pieces.push(piece);
            }
            let sent = self.chunk(repo, session, pieces, length).await;
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

    /// One chunk. A registry that kept part of a PATCH that broke (registry:3 does) gets the rest.
    async fn chunk(
        &self,
        repo: &Repo,
        session: Session,
        pieces: Vec<Bytes>,
        length: u64,
    ) -> Result<Session, RegistryError> {
        let (start, end) = (session.offset, session.offset + length);
        let (mut session, mut pieces) = (session, Arc::new(pieces));
        let mut failures = 0;
        loop {
            let body = Payload::Pieces(Arc::clone(&pieces), end - session.offset);
            let error = match self.patch(repo, &session.location, session.offset, end - session.offset, body).await {
                Ok(location) => return Ok(Session { location, offset: end }),
                Err(error) => error,
            };
            failures += 1;
            let Some(pause) = self.retry().pause(failures, &error) else { return Err(error) };
            tokio::time::sleep(pause).await;
            match self.upload_status(repo, &session.location, session.offset).await {
                Ok(Some(found)) if (start..=end).contains(&found.offset) && found.offset >= session.offset => {
                    pieces = Arc::new(after(&pieces, found.offset - session.offset));
                    session = found;
                    if session.offset == end {
                        return Ok(session);
                    }
                }
                _ => return Err(error),
            }
        }
    }

    async fn patch(
        &self,
        repo: &Repo,
        location: &Url,
        start: u64,
        length: u64,
        body: Payload,
    ) -> Result<Url, RegistryError> {
        let mut ask = self.upload_ask(Method::PATCH, repo, location, body)?;
        let range = format!("{start}-{}", (start + length).saturating_sub(1));
        if let Ok(range) = HeaderValue::from_str(&range) {
            ask.headers.insert(header::CONTENT_RANGE, range);
        }
        let response = self.send(&ask).await?;
        let response = self.expect(&ask, response, &[StatusCode::ACCEPTED]).await?;
        self.location(&ask, &response)
    }

    async fn finish(&self, repo: &Repo, location: &Url, blob: &Blob, body: Payload) -> Result<(), RegistryError> {
        let mut ask = self.upload_ask(Method::PUT, repo, location, body)?;
        ask.url.query_pairs_mut().append_pair("digest", &blob.digest);
        let response = self.send(&ask).await?;
        self.expect(&ask, response, &[StatusCode::CREATED, StatusCode::NO_CONTENT]).await.map(drop)
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
        let wrong = |why: String| RegistryError::new(self.side(), Class::Other, ask.name(), why);
        let location = text(response.headers(), header::LOCATION.as_str());
        let location = location.ok_or_else(|| wrong("the answer has no Location".into()))?;
        let mut url = ask.url.join(&location).map_err(|error| wrong(format!("Location is no URL: {error}")))?;
        if url.host_str() != ask.url.host_str() {
            let host = url.host_str().unwrap_or_default();
            return Err(wrong(format!("the upload was sent to another host, {host}")));
        }
        // A registry behind a proxy that ends TLS may not know its own scheme and port.
        let _https = url.set_scheme("https");
        let _same_host = url.set_port(ask.url.port());
        Ok(url)
    }
}

/// What is behind the first `count` bytes.
fn after(pieces: &[Bytes], count: u64) -> Vec<Bytes> {
    let mut skip = usize::try_from(count).unwrap_or(usize::MAX);
    let rest = pieces.iter().map(|piece| {
        let cut = skip.min(piece.len());
        skip -= cut;
        piece.slice(cut..)
    });
    rest.filter(|piece| !piece.is_empty()).collect()
}
