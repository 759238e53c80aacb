//! One HTTP client for the distribution API (opencontainers/distribution-spec, `spec.md`).
//!
//! What can be asked of a registry; how it is asked is in [`super::send`]. A [`Client`] talks to any number of registries of one side (source or
//! mirror) with one set of credentials. It may touch the network and nothing else.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use reqwest::header::{self, HeaderValue};
use reqwest::{Method, StatusCode};

use super::auth::{Challenge, Credentials, Token};
use super::digest;
use super::error::{Class, RegistryError, Side};
use super::manifest::{ACCEPT, Manifest};
use super::pace::Pace;
use super::send::{Payload, host_of, text};

/// Of a list of tags; with the usual hundred on each that is more than any repository has.
const PAGES: usize = 1000;

/// A manifest was taken. Quay says 202.
const STORED: [StatusCode; 3] = [StatusCode::CREATED, StatusCode::ACCEPTED, StatusCode::OK];

const SCHEMA1: &str = "it is an image of Docker's schema 1, which was given up in 2017 and cannot be kept by its digest; \
                       build it anew, or copy it once with skopeo copy --format v2s2 and mirror the copy";

/// How registries are reached. System roots are always trusted, and `HTTPS_PROXY`/`NO_PROXY` are honoured.
#[derive(Debug, Clone)]
pub struct Net {
    /// PEM texts, each with one or more certificates, trusted besides the system's.
    pub roots: Vec<String>,
    /// Where a `host` or `host:port` really is, as `curl --connect-to`: names, TLS and `Host` stay as they are.
    pub resolve: Vec<(String, SocketAddr)>,
    pub retry: Retry,
    /// An answer is awaited for this long, and each piece of a body.
    pub patience: Duration,
    /// Bytes of blobs per second that are read, at most.
    pub bandwidth: Option<u64>,
}

impl Default for Net {
    fn default() -> Self {
        let patience = Duration::from_secs(60);
        Self { roots: Vec::new(), resolve: Vec::new(), retry: Retry::default(), patience, bandwidth: None }
    }
}

/// Patience with errors that may pass.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Attempts after the first.
    pub times: usize,
    /// Doubles with every attempt, with jitter.
    pub first: Duration,
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { times: 5, first: Duration::from_secs(1), longest: Duration::from_secs(30) }
    }
}

impl Retry {
    pub(super) fn backoff(self) -> ExponentialBuilder {
        ExponentialBuilder::default()
            .with_min_delay(self.first)
            .with_max_delay(self.longest)
            .with_max_times(self.times)
            .with_jitter()
    }

    /// The pause before attempt `n` (from 1) after `error`, or none when it is not worth one.
    pub(super) fn pause(self, n: usize, error: &RegistryError) -> Option<Duration> {
        let pause = self.backoff().build().nth(n.saturating_sub(1)).filter(|_| error.is_retryable())?;
        Some(error.retry_after.map_or(pause, |asked| pause.max(asked)))
    }
}

/// The proxy of the environment, but not for names that we know the address of: a proxy would not find them. `None` leaves
/// it to the environment alone.
fn past_proxy(net: &Net, variable: impl Fn(&str) -> Option<String>) -> Option<reqwest::Result<reqwest::Proxy>> {
    let first = |names: &[&str]| names.iter().find_map(|name| variable(name)).filter(|value| !value.is_empty());
    let proxy = first(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]).filter(|_| !net.resolve.is_empty())?;
    let not = net.resolve.iter().map(|(name, _)| host_of(name).to_owned()).chain(first(&["no_proxy", "NO_PROXY"]));
    let not = reqwest::NoProxy::from_string(&not.collect::<Vec<_>>().join(","));
    Some(reqwest::Proxy::https(proxy).map(|proxy| proxy.no_proxy(not)))
}

/// A repository of a registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repo {
    /// `host[:port]`
    pub registry: String,
    /// `namespace/name`
    pub name: String,
}

impl Repo {
    pub fn new(registry: impl Into<String>, name: impl Into<String>) -> Self {
        Self { registry: registry.into(), name: name.into() }
    }
}

impl std::fmt::Display for Repo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.registry, self.name)
    }
}

/// Cheap to clone; all clones share connections and tokens.
#[derive(Clone)]
pub struct Client {
    pub(super) inner: Arc<Inner>,
    pub(super) manner: Manner,
}

/// With what right registries are asked that give out tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// To pull.
    Reads,
    /// To pull, and what is not shown to us is not there: Quay says 401 of repositories that do not exist.
    Looks,
    /// To pull and push, whatever is asked: Quay makes a repository when a token to push into it is asked for, and until
    /// then nothing can be asked of it (quay/quay, `endpoints/v2/v2auth.py`).
    Writes,
}

pub(super) struct Inner {
    pub(super) side: Side,
    /// Small requests, HTTP/2 where it is offered: Quay gives it ten times the request budget.
    pub(super) api: reqwest::Client,
    /// Bodies: a connection each, so that one TCP window does not carry them all.
    pub(super) bulk: reqwest::Client,
    pub(super) resolve: Vec<(String, SocketAddr)>,
    pub(super) retry: Retry,
    patience: Duration,
    pace: Option<Pace>,
    /// A large body was refused for its size.
    pub(super) small_bodies: AtomicBool,
    pub(super) credentials: Credentials,
    pub(super) challenges: Mutex<HashMap<String, Challenge>>,
    /// By registry and scopes. Held while a token is fetched, so that it is fetched once.
    pub(super) tokens: tokio::sync::Mutex<HashMap<(String, String), Token>>,
}

impl Client {
    pub fn new(net: &Net, credentials: Credentials, side: Side) -> Result<Self, RegistryError> {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            // Another part of the program may have chosen it already; it is the same one.
            let _chosen = rustls::crypto::ring::default_provider().install_default();
        });
        let wrong = |what: &str, error: &reqwest::Error| {
            let error = RegistryError::transport(side, what, error);
            RegistryError::new(side, Class::Ca, what, error.why)
        };
        let mut roots = Vec::new();
        for pem in &net.roots {
            let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes())
                .map_err(|error| wrong("reading a CA certificate (PEM)", &error))?;
            if certificates.is_empty() {
                let why = "it holds no certificate; expected -----BEGIN CERTIFICATE-----";
                return Err(RegistryError::new(side, Class::Ca, "reading a CA certificate (PEM)", why));
            }
            roots.extend(certificates);
        }
        let build = |http1: bool| {
            let mut builder = reqwest::Client::builder()
                .user_agent(concat!("bartizan/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .tls_certs_merge(roots.clone())
                .connect_timeout(Duration::from_secs(15))
                .pool_idle_timeout(Duration::from_secs(30));
            if http1 {
                builder = builder.http1_only();
            }
            for (name, address) in &net.resolve {
                builder = builder.resolve(host_of(name), *address);
            }
            if let Some(proxy) = past_proxy(net, |name| std::env::var(name).ok()) {
                builder = builder.proxy(proxy.map_err(|error| wrong("reading HTTPS_PROXY", &error))?);
            }
            builder.build().map_err(|error| wrong("setting up TLS", &error))
        };
        Ok(Self {
            inner: Arc::new(Inner {
                side,
                api: build(false)?,
                bulk: build(true)?,
                resolve: net.resolve.clone(),
                retry: net.retry,
                patience: net.patience,
                pace: net.bandwidth.map(Pace::new),
                small_bodies: AtomicBool::new(false),
                credentials,
                challenges: Mutex::default(),
                tokens: tokio::sync::Mutex::default(),
            }),
            manner: Manner::Reads,
        })
    }

    /// The same client, asking with another right.
    pub fn in_manner(self, manner: Manner) -> Self {
        Self { manner, ..self }
    }

    /// The registry says that it has it not.
    fn is_absent(&self, status: StatusCode) -> bool {
        status == StatusCode::NOT_FOUND || (self.manner == Manner::Looks && status == StatusCode::UNAUTHORIZED)
    }

    pub fn side(&self) -> Side {
        self.inner.side
    }

    pub(super) fn retry(&self) -> Retry {
        self.inner.retry
    }

    pub(super) fn patience(&self) -> Duration {
        self.inner.patience
    }

    pub(super) fn pace(&self) -> Option<&Pace> {
        self.inner.pace.as_ref()
    }

    /// The registry answers and accepts our credentials.
    pub async fn ping(&self, registry: &str) -> Result<(), RegistryError> {
        let ask = self.ask(Method::GET, &Repo::new(registry, ""), "", false)?;
        self.patiently(|| async {
            let response = self.send(&ask).await?;
            self.expect(&ask, response, &[StatusCode::OK]).await.map(drop)
        })
        .await
    }

    /// A manifest or list as the bytes that it is; by digest they are checked.
    pub async fn manifest(&self, repo: &Repo, reference: &str) -> Result<Manifest, RegistryError> {
        let mut ask = self.ask(Method::GET, repo, &format!("manifests/{reference}"), false)?;
        ask.headers.insert(header::ACCEPT, HeaderValue::from_static(ACCEPT));
        self.patiently(|| async {
            let response = self.send(&ask).await?;
            let response = self.expect(&ask, response, &[StatusCode::OK]).await?;
            let content_type = text(response.headers(), header::CONTENT_TYPE.as_str());
            let named = text(response.headers(), "docker-content-digest");
            let bytes = self.document(&ask, response).await?;
            let found = digest::of(&bytes);
            let manifest = Manifest::new(bytes, content_type.as_deref(), found.clone());
            if manifest.is_schema1() {
                // Its digest leaves out the signatures that it carries, so that nothing here would agree.
                return Err(RegistryError::new(self.side(), Class::Other, ask.name(), SCHEMA1));
            }
            let wanted = if digest::is_valid(reference) { Some(reference.to_owned()) } else { named };
            if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
                let why = format!("the content has digest {found}, expected {wanted}");
                return Err(RegistryError::new(self.side(), Class::Digest, ask.name(), why));
            }
            Ok(manifest)
        })
        .await
    }

    /// The digest behind a tag or digest, or `None` when the registry has it not.
    pub async fn head_manifest(&self, repo: &Repo, reference: &str) -> Result<Option<String>, RegistryError> {
        let mut ask = self.ask(Method::HEAD, repo, &format!("manifests/{reference}"), false)?;
        ask.headers.insert(header::ACCEPT, HeaderValue::from_static(ACCEPT));
        let answer = self
            .patiently(|| async {
                let response = self.send(&ask).await?;
                if self.is_absent(response.status()) {
                    return Ok(None);
                }
                let response = self.expect(&ask, response, &[StatusCode::OK]).await?;
                Ok(Some(text(response.headers(), "docker-content-digest")))
            })
            .await?;
        match answer {
            None => Ok(None),
            Some(Some(digest)) => Ok(Some(digest)),
            // The header is optional in the specification; the content is not.
            Some(None) => self.manifest(repo, reference).await.map(|manifest| Some(manifest.digest)),
        }
    }

    /// Store exactly these bytes under a tag or digest.
    pub async fn put_manifest(&self, repo: &Repo, reference: &str, manifest: &Manifest) -> Result<(), RegistryError> {
        let mut ask = self.ask(Method::PUT, repo, &format!("manifests/{reference}"), true)?;
        let content_type = HeaderValue::from_str(&manifest.content_type).map_err(|_| {
            RegistryError::new(self.side(), Class::Other, ask.name(), "the content type is no header value")
        })?;
        ask.headers.insert(header::CONTENT_TYPE, content_type);
        ask.body = Payload::Whole(manifest.bytes.clone());
        self.patiently(|| async {
            let response = self.send(&ask).await?;
            let response = self.expect(&ask, response, &STORED).await?;
            let stored = text(response.headers(), "docker-content-digest");
            match stored.filter(|stored| *stored != manifest.digest) {
                None => Ok(()),
                Some(stored) => {
                    let why = format!("it was stored as {stored}, expected {}", manifest.digest);
                    Err(RegistryError::new(self.side(), Class::Digest, ask.name(), why))
                }
            }
        })
        .await
    }

    /// Whether this repository has the blob.
    pub async fn has_blob(&self, repo: &Repo, digest: &str) -> Result<bool, RegistryError> {
        let ask = self.ask(Method::HEAD, repo, &format!("blobs/{digest}"), false)?;
        self.patiently(|| async {
            let response = self.send(&ask).await?;
            if self.is_absent(response.status()) {
                return Ok(false);
            }
            self.expect(&ask, response, &[StatusCode::OK]).await.map(|_| true)
        })
        .await
    }

    /// Tags of a repository, page after page (distribution-spec, "Listing Tags").
    pub async fn tags(&self, repo: &Repo) -> Result<Vec<String>, RegistryError> {
        #[derive(serde::Deserialize)]
        struct Answer {
            tags: Option<Vec<String>>,
        }
        let mut ask = self.ask(Method::GET, repo, "tags/list", false)?;
        let mut all = Vec::new();
        for _ in 0..PAGES {
            let page = || async {
                let response = self.send(&ask).await?;
                let response = self.expect(&ask, response, &[StatusCode::OK]).await?;
                let next = text(response.headers(), header::LINK.as_str()).and_then(|link| next_page(&link));
                let body = self.document(&ask, response).await?;
                let answer: Answer = serde_json::from_slice(&body)
                    .map_err(|error| RegistryError::new(self.side(), Class::Other, ask.name(), error.to_string()))?;
                Ok((answer.tags.unwrap_or_default(), next))
            };
            let (tags, next) = self.patiently(page).await?;
            all.extend(tags);
            match next {
                Some(next) => ask.url = self.same_host(&ask, &next)?,
                None => return Ok(all),
            }
        }
        let why = format!("the list of tags has more than {PAGES} pages");
        Err(RegistryError::new(self.side(), Class::Other, ask.name(), why))
    }
}

/// The place behind `<…>; rel="next"` of a `Link` header (RFC 8288).
fn next_page(link: &str) -> Option<String> {
    link.split('<').skip(1).find_map(|one| {
        let (place, parameters) = one.split_once('>')?;
        let next = |parameter: &str| {
            let parameter = parameter.trim().trim_end_matches(',').trim_end();
            parameter.strip_prefix("rel=").is_some_and(|rel| rel.trim_matches('"').eq_ignore_ascii_case("next"))
        };
        parameters.split(';').any(next).then(|| place.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::next_page;

    #[test]
    fn the_next_page_is_found_among_links() {
        let next = next_page("</v2/a/tags/list?last=b&n=2>; rel=\"next\"");
        assert_eq!(next.as_deref(), Some("/v2/a/tags/list?last=b&n=2"));
        assert_eq!(next_page("<https://q/1>; rel=prev, <https://q/2>;rel=next").as_deref(), Some("https://q/2"));
        assert_eq!(next_page("<https://q/1>; rel=\"prev\""), None);
        assert_eq!(next_page("nothing"), None);
    }
}
