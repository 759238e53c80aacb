//! Reading a blob that may break in the middle.
//!
//! The source may fail and is asked again from where it stopped. The last piece is handed out only when the whole has
//! the right digest, so whoever passes pieces on as they come never passes on a wrong whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use reqwest::header::{self, HeaderValue};
use reqwest::{Method, StatusCode};
use tokio::time::Instant;

use super::client::{Client, Repo};
use super::digest;
use super::error::{Class, RegistryError};
use super::manifest::Blob;
use super::send::text;

/// A body that gives less than this many bytes per second is dead, though it trickles.
const TRICKLE: u64 = 64;

/// Told of every failure that is going to be retried.
pub type OnRetry = Arc<dyn Fn(&RegistryError) + Send + Sync>;

/// A blob as a sequence of pieces, checked to the last byte, resumed where it broke.
pub struct BlobReader {
    client: Client,
    repo: Repo,
    blob: Blob,
    offset: u64,
    /// Bytes to throw away because the server ignored our range.
    skip: u64,
    /// `None` when the beginning was read by an earlier process: then the mirror alone compares digests.
    running: Option<digest::Running>,
    body: Option<BoxStream<'static, reqwest::Result<Bytes>>>,
    /// In a row, without a byte in between.
    failures: usize,
    /// Of the window in which a body has to give something: time spent waiting for it, and what it gave.
    window: (Duration, u64),
    ended: bool,
    arrived: Option<Arc<AtomicU64>>,
    on_retry: Option<OnRetry>,
}

impl BlobReader {
    pub fn new(client: &Client, repo: &Repo, blob: &Blob) -> Self {
        Self {
            client: client.clone(),
            repo: repo.clone(),
            blob: blob.clone(),
            offset: 0,
            skip: 0,
            running: Some(digest::Running::default()),
            body: None,
            failures: 0,
            window: (Duration::ZERO, 0),
            ended: false,
            arrived: None,
            on_retry: None,
        }
    }

    /// Begin at this byte.
    pub fn from(mut self, offset: u64) -> Self {
        if offset > 0 {
            (self.offset, self.running) = (offset, None);
        }
        self
    }

    /// Count what has come in `arrived`, and tell of failures.
    pub fn watched(mut self, arrived: Arc<AtomicU64>, on_retry: OnRetry) -> Self {
        arrived.store(self.offset, Ordering::Relaxed);
        (self.arrived, self.on_retry) = (Some(arrived), Some(on_retry));
        self
    }

    /// The next piece; `None` after the last. The last one comes only when the digest of all is right.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            if self.ended {
                return Ok(None);
            }
            if self.offset == self.blob.size {
                self.check()?;
                return Ok(None);
            }
            match self.piece().await {
                Ok(piece) if piece.is_empty() => {}
                Ok(piece) => {
                    self.failures = 0;
                    let length = piece.len() as u64;
                    self.offset += length;
                    if self.offset > self.blob.size {
                        return Err(self.wrong(format!("it is longer than its {} bytes", self.blob.size)));
                    }
                    if let Some(running) = &mut self.running {
                        running.update(&piece);
                    }
                    if let Some(arrived) = &self.arrived {
                        arrived.fetch_add(length, Ordering::Relaxed);
                    }
                    if let Some(pace) = self.client.pace() {
                        pace.keep(length).await;
                    }
                    if self.offset == self.blob.size {
                        self.check()?;
                    }
                    return Ok(Some(piece));
                }
                Err(error) => {
                    self.body = None;
                    self.window = (Duration::ZERO, 0);
                    self.failures += 1;
                    match self.client.retry().pause(self.failures, &error) {
                        Some(pause) => {
                            if let Some(tell) = &self.on_retry {
                                tell(&error);
                            }
                            tokio::time::sleep(pause).await;
                        }
                        None => return Err(error),
                    }
                }
            }
        }
    }

    fn check(&mut self) -> Result<(), RegistryError> {
        if let Some(running) = self.running.take() {
            let found = running.finish();
            if found != self.blob.digest {
                return Err(self.wrong(format!("the content has digest {found}")));
            }
        }
        (self.ended, self.body) = (true, None);
        Ok(())
    }

    async fn piece(&mut self) -> Result<Bytes, RegistryError> {
        let mut body = match self.body.take() {
            Some(body) => body,
            None => self.open().await?,
        };
        let patience = self.client.patience();
        let begun = Instant::now();
        let piece = match tokio::time::timeout(patience, body.next()).await {
            Ok(Some(Ok(piece))) => piece,
            Ok(Some(Err(error))) => {
                let what = self.what();
                return Err(RegistryError::transport(self.client.side(), &what, &error.without_url()));
            }
            Ok(None) => {
                let why = format!("unexpected EOF at byte {} of {}", self.offset, self.blob.size);
                return Err(RegistryError::new(self.client.side(), Class::Server, self.what(), why));
            }
            Err(_) => return Err(self.stalled(patience, 0)),
        };
        // Time that we spent on something else is not the source's.
        self.window.0 += begun.elapsed();
        self.window.1 += piece.len() as u64;
        if self.window.0 >= patience {
            let (waited, came) = std::mem::take(&mut self.window);
            if came < TRICKLE * waited.as_secs().max(1) && came < self.blob.size - self.offset {
                return Err(self.stalled(waited, came));
            }
        }
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
            if let Some(length) = response.content_length().filter(|length| *length != self.blob.size) {
                let why = format!("it has {length} bytes; expected {}", self.blob.size);
                return Err(RegistryError::new(self.client.side(), Class::Digest, ask.name(), why));
            }
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

    fn stalled(&self, waited: Duration, came: u64) -> RegistryError {
        let why = format!("{came} bytes came in {} s at byte {}", waited.as_secs(), self.offset);
        RegistryError::new(self.client.side(), Class::Timeout, self.what(), why)
    }

    fn wrong(&self, why: String) -> RegistryError {
        let why = format!("{why}, expected {}", self.blob.digest);
        RegistryError::new(self.client.side(), Class::Digest, self.what(), why)
    }
}
