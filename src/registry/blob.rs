//! Reading a blob that may break in the middle, and writing one.
//!
//! The source may fail and is asked again from where it stopped. The mirror gets whole chunks only: registry:2 loses an
//! upload whose PATCH broke (distribution/distribution#3755), so a source that stalls must not hold one open.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use reqwest::header::{self, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use tokio::sync::Semaphore;

use super::client::{Client, Repo};
use super::digest;
use super::error::{Class, RegistryError};
use super::manifest::Blob;
use super::send::{Ask, Payload, text};

/// Smaller blobs go in one request.
const MONOLITHIC: u64 = 64 << 20;
/// Each PATCH costs the registry an fsync; below 16 MiB that is what one waits for.
const CHUNK: u64 = 32 << 20;
/// Unit of the memory budget.
const MIB: u64 = 1 << 20;
/// A body that gives nothing for this long is dead.
const STALL: Duration = Duration::from_secs(60);

/// A blob as a sequence of pieces, checked to the last byte, resumed where it broke.
pub struct BlobReader {
    client: Client,
    repo: Repo,
    blob: Blob,
    offset: u64,
    /// Bytes to throw away because the server ignored our range.
    skip: u64,
    running: digest::Running,
    body: Option<BoxStream<'static, reqwest::Result<Bytes>>>,
    /// In a row, without a byte in between.
    failures: usize,
    verified: bool,
}

impl BlobReader {
    pub fn new(client: &Client, repo: &Repo, blob: &Blob) -> Self {
        Self {
            client: client.clone(),
            repo: repo.clone(),
            blob: blob.clone(),
            offset: 0,
            skip: 0,
            running: digest::Running::default(),
            body: None,
            failures: 0,
            verified: false,
        }
    }

    /// The next piece; `None` once everything was read and has the right digest.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            if self.verified {
                return Ok(None);
            }
            if self.offset == self.blob.size {
                let found = std::mem::take(&mut self.running).finish();
                if found != self.blob.digest {
                    return Err(self.wrong(format!("the content has digest {found}")));
                }
                (self.verified, self.body) = (true, None);
                return Ok(None);
            }
            match self.piece().await {
                Ok(piece) if piece.is_empty() => {}
                Ok(piece) => {
                    self.failures = 0;
                    self.running.update(&piece);
                    self.offset += piece.len() as u64;
                    if self.offset > self.blob.size {
                        return Err(self.wrong(format!("it is longer than its {} bytes", self.blob.size)));
                    }
                    return Ok(Some(piece));
                }
                Err(error) => {
                    self.body = None;
                    self.failures += 1;
                    match self.client.retry().pause(self.failures, &error) {
                        Some(pause) => tokio::time::sleep(pause).await,
                        None => return Err(error),
                    }
                }
            }
        }
    }

    async fn piece(&mut self) -> Result<Bytes, RegistryError> {
        let mut body = match self.body.take() {
            Some(body) => body,
            None => self.open().await?,
        };
        let piece = match tokio::time::timeout(STALL, body.next()).await {
            Ok(Some(Ok(piece))) => piece,
            Ok(Some(Err(error))) => {
                let what = self.what();
                return Err(RegistryError::transport(self.client.side(), &what, &error.without_url()));
            }
            Ok(None) => {
                let why = format!("unexpected EOF at byte {} of {}", self.offset, self.blob.size);
                return Err(RegistryError::new(self.client.side(), Class::Server, self.what(), why));
            }
            Err(_) => {
                let why = format!("nothing came for {} s at byte {}", STALL.as_secs(), self.offset);
                return Err(RegistryError::new(self.client.side(), Class::Timeout, self.what(), why));
            }
        };
        self.body = Some(body);
        let skipped = self.skip.min(piece.len() as u64);
        self.skip -= skipped;
        Ok(piece.slice(usize::try_from(skipped).unwrap_or(piece.len())..))
    }

    async fn open(&mut self) -> Result<BoxStream<'static, reqwest::Result<Bytes>>, RegistryError> {
        let mut ask = self.client.ask(Method::GET, &self.repo, &format!("blobs/{}", self.blob.digest), false)?;
        ask.bulk = true;
        if self.offset > 0
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={}-", self.offset))
        {
            ask.headers.insert(header::RANGE, range);
        }
        let response = self.client.send(&ask).await?;
        let response = self.client.expect(&ask, response, &[StatusCode::OK, StatusCode::PARTIAL_CONTENT]).await?;
        self.skip = 0;
        if response.status() == StatusCode::OK {
            self.skip = self.offset;
        } else {
            let range = text(response.headers(), header::CONTENT_RANGE.as_str()).unwrap_or_default();
            let expected = format!("bytes {}-{}/{}", self.offset, self.blob.size.saturating_sub(1), self.blob.size);
            if range != expected {
                let why = format!("Content-Range is \"{range}\"; expected \"{expected}\"");
                return Err(RegistryError::new(self.client.side(), Class::Server, ask.name(), why));
            }
        }
        Ok(response.bytes_stream().boxed())
    }

    fn what(&self) -> String {
        format!("GET https://{}/v2/{}/blobs/{}", self.repo.registry, self.repo.name, self.blob.digest)
    }

    fn wrong(&self, why: String) -> RegistryError {
        let why = format!("{why}, expected {}", self.blob.digest);
        RegistryError::new(self.client.side(), Class::Digest, self.what(), why)
    }
}

/// What became of the wish to mount.
#[derive(Debug)]
pub enum Mount {
    Mounted,
    /// Not mounted; the registry opened an upload instead.
    Session(Url),
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
        self.location(&ask, &response).map(Mount::Session)
    }

    async fn open_upload(&self, repo: &Repo) -> Result<Url, RegistryError> {
        let ask = self.ask(Method::POST, repo, "blobs/uploads/", true)?;
        let response = self.send(&ask).await?;
        let response = self.expect(&ask, response, &[StatusCode::ACCEPTED]).await?;
        self.location(&ask, &response)
    }

    /// Send a whole blob into `repo`. `memory` counts MiB in flight; `session` is an upload that is already open.
    /// `moved` is told the length of every piece as it comes from the source.
    pub async fn upload(
        &self,
        repo: &Repo,
        blob: &Blob,
        source: &mut BlobReader,
        session: Option<Url>,
        memory: &Semaphore,
        moved: &(dyn Fn(u64) + Sync),
    ) -> Result<(), RegistryError> {
        let mut location = match session {
            Some(session) => session,
            None => self.open_upload(repo).await?,
        };
        let chunk = if blob.size < MONOLITHIC { MONOLITHIC } else { CHUNK };
        let mut start = 0;
        loop {
            let expected = chunk.min(blob.size - start);
            let weight = u32::try_from(expected.div_ceil(MIB).max(1)).unwrap_or(u32::MAX);
            let Ok(_room) = memory.acquire_many(weight).await else {
                return Err(RegistryError::new(self.side(), Class::Other, repo.to_string(), "the copier was stopped"));
            };
            let (mut pieces, mut length) = (Vec::new(), 0);
            // The last chunk is read to the end, so that it is only sent when the digest is right.
            while length < expected || start + length == blob.size {
                match source.next().await? {
                    Some(piece) => {
                        length += piece.len() as u64;
                        moved(piece.len() as u64);
                        pieces.push(piece);
                    }
                    None => break,
                }
            }
            let end = start + length == blob.size;
            let body = Payload::Pieces(Arc::new(pieces), length);
            if end && start == 0 {
                return self.finish(repo, &location, blob, body).await;
            }
            location = self.patch(repo, &location, start, length, body).await?;
            start += length;
            if end {
                return self.finish(repo, &location, blob, Payload::Empty).await;
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
