//! How a request reaches a registry: tokens, redirects, time limits.
//!
//! The rest of [`Client`]: what it asks is in [`super::client`], how it is asked is here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use backon::Retryable as _;
use base64::Engine as _;
use bytes::Bytes;
use futures::StreamExt as _;
use jiff::Timestamp;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};

use super::auth::{Challenge, Login, Token};
use super::client::{Client, Manner, Repo};
use super::error::{Class, RegistryError};
use super::upload::Passing;
use crate::spec::Secret;

/// Registries read a large blob again, or assemble it from its chunks, before they say that they have it: an answer to a
/// write is awaited for this many times as long as another.
const WRITE_PATIENCE: u32 = 5;
/// Nothing that we keep in memory as a document is larger.
const DOCUMENT_LIMIT: usize = 16 << 20;
const REDIRECTS: usize = 5;
/// Of a chunk that is sent: small enough to see that it moves.
const PIECE: usize = 128 << 10;
/// A token may end between its coming and its use, more than once when many share it.
const REFUSALS: u32 = 3;

/// A request that can be sent again.
pub(super) struct Ask {
    pub method: Method,
    pub url: Url,
    pub registry: String,
    /// For choosing the login.
    pub repository: String,
    pub scopes: Vec<String>,
    pub headers: HeaderMap,
    pub body: Payload,
    pub bulk: bool,
}

pub(super) enum Payload {
    Empty,
    Whole(Bytes),
    /// So large that its way is watched.
    Chunk(Bytes),
    /// Read while it is sent.
    Passing(Arc<Passing>),
}

impl Client {
    /// A request below `/v2/<repo>/` with the scope that it needs.
    pub(super) fn ask(&self, method: Method, repo: &Repo, path: &str, push: bool) -> Result<Ask, RegistryError> {
        let (host, name) = (api(&repo.registry), &repo.name);
        let mut text = format!("https://{host}/v2/");
        let mut scopes = Vec::new();
        if !name.is_empty() {
            text = format!("{text}{name}/{path}");
            let push = push || self.manner == Manner::Writes;
            scopes.push(format!("repository:{name}:{}", if push { "pull,push" } else { "pull" }));
        }
        let url = Url::parse(&text)
            .map_err(|error| RegistryError::new(self.side(), Class::Other, text.clone(), error.to_string()))?;
        let (registry, repository) = (repo.registry.clone(), repo.name.clone());
        Ok(Ask { registry, repository, scopes, ..Ask::new(method, url) })
    }

    /// Repeat what may pass.
    pub(super) async fn patiently<T, F, Fut>(&self, request: F) -> Result<T, RegistryError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, RegistryError>>,
    {
        request
            .retry(self.inner.retry.backoff())
            .when(RegistryError::is_retryable)
            .adjust(|error, pause| pause.map(|pause| error.retry_after.map_or(pause, |asked| pause.max(asked))))
            .await
    }

    /// Send with authorization; a 401 is answered with a fresh token; redirects of reads are followed.
    pub(super) async fn send(&self, ask: &Ask) -> Result<Response, RegistryError> {
        let (mut stale, mut refused) = (None, 0);
        loop {
            let authorization = self.authorization(ask, stale.as_ref()).await?;
            let response = self.once(ask, &ask.url, authorization.as_ref(), ask.bulk).await?;
            if response.status() == StatusCode::UNAUTHORIZED && refused < REFUSALS {
                refused += 1;
                let headers = response.headers().get_all(header::WWW_AUTHENTICATE);
                if let Some(challenge) = Challenge::parse(headers.iter().filter_map(|value| value.to_str().ok())) {
                    let mut known = self.inner.challenges.lock().unwrap_or_else(PoisonError::into_inner);
                    known.insert(ask.registry.clone(), challenge);
                    drop(known);
                    stale = Some(authorization);
                    continue;
                }
            }
            let reads = ask.method == Method::GET || ask.method == Method::HEAD;
            if reads && response.status().is_redirection() {
                return self.follow(ask, response, authorization.as_ref()).await;
            }
            return Ok(response);
        }
    }

    /// Signed URLs of content networks live for a minute, so they are used once and never kept. Our authorization stays
    /// with the registry: it must not reach another host, and S3 refuses a request that has two.
    async fn follow(
        &self,
        ask: &Ask,
        first: Response,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let mut url = ask.url.clone();
        let mut response = first;
        for _ in 0..REDIRECTS {
            let wrong = |why: &str| RegistryError::new(self.side(), Class::Other, ask.name(), why);
            let location = text(response.headers(), header::LOCATION.as_str())
                .ok_or_else(|| wrong("redirect without Location"))?;
            url = url.join(&location).map_err(|error| wrong(&format!("redirect to no URL: {error}")))?;
            if url.scheme() != "https" {
                return Err(wrong(&format!("refused to follow a redirect to {}://", url.scheme())));
            }
            let home = url.origin() == ask.url.origin();
            response = self.once(ask, &url, authorization.filter(|_| home), true).await?;
            if !response.status().is_redirection() {
                if home || response.status().is_success() {
                    return Ok(response);
                }
                let mut error = self.failure(ask, response).await.at_redirect();
                let host = url.host_str().unwrap_or_default();
                error.why = format!("redirected to {host}: {}", error.why);
                return Err(error);
            }
        }
        Err(RegistryError::new(self.side(), Class::Other, ask.name(), format!("more than {REDIRECTS} redirects")))
    }

    /// A place that an answer names, which must be at the same registry: our authorization goes there.
    pub(super) fn same_host(&self, ask: &Ask, place: &str) -> Result<Url, RegistryError> {
        let wrong = |why: String| RegistryError::new(self.side(), Class::Other, ask.name(), why);
        let mut url =
            ask.url.join(place).map_err(|error| wrong(format!("it names a place that is no URL: {error}")))?;
        if url.host_str() != ask.url.host_str() {
            let host = url.host_str().unwrap_or_default();
            return Err(wrong(format!("it names a place at another host, {host}")));
        }
        // A registry behind a proxy that ends TLS may not know its own scheme and port.
        let _https = url.set_scheme("https");
        let _same_host = url.set_port(ask.url.port());
        Ok(url)
    }

    async fn once(
        &self,
        ask: &Ask,
        url: &Url,
        authorization: Option<&HeaderValue>,
        bulk: bool,
    ) -> Result<Response, RegistryError> {
        let mut url = url.clone();
        let mut headers = ask.headers.clone();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(authorization) = authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        // reqwest lets a port in the URL win over the port of an override; without one the name is what counts.
        if let (Some(host), Some(port)) = (url.host_str().map(str::to_owned), url.port())
            && self.inner.resolve.iter().any(|(name, _)| host_of(name) == host)
        {
            if let Ok(value) = HeaderValue::from_str(&format!("{host}:{port}")) {
                headers.insert(header::HOST, value);
            }
            let _always_a_host = url.set_port(None);
        }
        // The Host header above is a header of HTTP/1.1; in HTTP/2 the name comes from the URL.
        let bulk = bulk || headers.contains_key(header::HOST);
        let http = if bulk { &self.inner.bulk } else { &self.inner.api };
        let mut request = http.request(ask.method.clone(), url).headers(headers);
        let reads = ask.method == Method::GET || ask.method == Method::HEAD;
        let patience = self.patience() * if reads { 1 } else { WRITE_PATIENCE };
        // Grows while a body is taken by the registry.
        let pulse = Arc::new(AtomicU64::new(0));
        match &ask.body {
            Payload::Empty if reads => {}
            Payload::Empty => request = request.header(header::CONTENT_LENGTH, 0),
            Payload::Whole(bytes) => request = request.body(bytes.clone()),
            Payload::Chunk(bytes) => {
                let (bytes, pulse) = (bytes.clone(), Arc::clone(&pulse));
                request = request.header(header::CONTENT_LENGTH, bytes.len());
                let stream = futures::stream::iter((0..bytes.len()).step_by(PIECE)).map(move |at| {
                    pulse.fetch_add(1, Ordering::Relaxed);
                    Ok::<_, std::io::Error>(bytes.slice(at..bytes.len().min(at + PIECE)))
                });
                request = request.body(reqwest::Body::wrap_stream(stream));
            }
            Payload::Passing(passing) => {
                let body = passing.body(&pulse).ok_or_else(|| {
                    let why = "the login was refused after the body had begun, which cannot be sent a second time";
                    RegistryError::new(self.side(), Class::Server, ask.name(), why)
                })?;
                request = request.header(header::CONTENT_LENGTH, passing.length).body(body);
            }
        }
        let mut answer = std::pin::pin!(request.send());
        let mut beat = 0;
        loop {
            match tokio::time::timeout(patience, &mut answer).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) => {
                    return Err(RegistryError::transport(self.side(), &ask.name(), &error.without_url()));
                }
                Err(_) => {
                    let before = std::mem::replace(&mut beat, pulse.load(Ordering::Relaxed));
                    if before == beat {
                        let why = format!("no answer in {} s", patience.as_secs());
                        return Err(RegistryError::new(self.side(), Class::Timeout, ask.name(), why));
                    }
                }
            }
        }
    }

    /// The header for this request. `stale` is what a 401 has just been the answer to.
    async fn authorization(
        &self,
        ask: &Ask,
        stale: Option<&Option<HeaderValue>>,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let challenge = {
            let known = self.inner.challenges.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(&ask.registry).cloned()
        };
        let login = self.inner.credentials.lookup(&ask.registry, &ask.repository);
        let denied = |why: String| RegistryError::new(self.side(), Class::Auth, ask.name(), why);
        match challenge {
            None => Ok(None),
            Some(Challenge::Basic) => match login {
                Some(Login::Basic { user, password }) => {
                    let value = basic(user, password).ok_or_else(|| denied("the login is no header value".into()))?;
                    if stale.is_some_and(|stale| stale.as_ref() == Some(&value)) {
                        return Err(denied(format!("unauthorized: {} refused user {user}", ask.registry)));
                    }
                    Ok(Some(value))
                }
                _ => Err(denied(format!("unauthorized: no user and password for {} in the auth file", ask.registry))),
            },
            Some(Challenge::Bearer { realm, service, scope }) => {
                let mut scopes = ask.scopes.clone();
                if stale.is_some_and(Option::is_some) {
                    scopes.extend(scope.filter(|scope| !scopes.contains(scope)));
                }
                let key = (ask.registry.clone(), scopes.join(" "));
                let mut tokens = self.inner.tokens.lock().await;
                let cached = tokens.get(&key).filter(|token| token.is_fresh(Timestamp::now())).and_then(bearer);
                if let Some(value) = cached.filter(|value| stale.is_none_or(|stale| stale.as_ref() != Some(value))) {
                    return Ok(Some(value));
                }
                let token = self.token(&realm, service.as_deref(), &scopes, login).await?;
                let value = bearer(&token).ok_or_else(|| denied("the token is no header value".into()))?;
                // Asked with the same scopes next time, the wider token serves as well.
                tokens.insert((ask.registry.clone(), ask.scopes.join(" ")), token.clone());
                tokens.insert(key, token);
                Ok(Some(value))
            }
        }
    }

    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scopes: &[String],
        login: Option<&Login>,
    ) -> Result<Token, RegistryError> {
        let what = format!("GET {realm}");
        let wrong = |why: &str| RegistryError::new(self.side(), Class::Auth, what.clone(), why);
        let mut url = Url::parse(realm).map_err(|error| wrong(&format!("the token realm is no URL: {error}")))?;
        if url.scheme() != "https" {
            return Err(wrong("refused to send credentials to a token server without TLS"));
        }
        let mut fields: Vec<(&str, &str)> = service.map(|service| ("service", service)).into_iter().collect();
        fields.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
        let mut ask = Ask::new(Method::GET, url.clone());
        let mut authorization = None;
        match login {
            Some(Login::Identity(token)) => {
                fields.extend([
                    ("grant_type", "refresh_token"),
                    ("client_id", "bartizan"),
                    ("refresh_token", token.reveal()),
                ]);
                let form = Url::parse_with_params("https://form.invalid/", &fields).ok();
                let form = form.as_ref().and_then(Url::query).unwrap_or_default().to_owned();
                ask.method = Method::POST;
                let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
                ask.headers.insert(header::CONTENT_TYPE, kind);
                ask.body = Payload::Whole(form.into());
            }
            other => {
                url.query_pairs_mut().extend_pairs(&fields);
                if let Some(Login::Basic { user, password }) = other {
                    authorization = basic(user, password);
                }
            }
        }
        ask.url = url;
        self.patiently(|| async {
            let response = self.once(&ask, &ask.url, authorization.as_ref(), false).await?;
            let response = self.expect(&ask, response, &[StatusCode::OK]).await?;
            let body = self.document(&ask, response).await?;
            Token::parse(&body, Timestamp::now()).map_err(|malformed| {
                RegistryError::new(self.side(), Class::Auth, format!("{what}, {}", malformed.place), malformed.why)
            })
        })
        .await
    }

    /// The response if its status is one of these, else the error that it is.
    pub(super) async fn expect(
        &self,
        ask: &Ask,
        response: Response,
        good: &[StatusCode],
    ) -> Result<Response, RegistryError> {
        if good.contains(&response.status()) { Ok(response) } else { Err(self.failure(ask, response).await) }
    }

    pub(super) async fn failure(&self, ask: &Ask, response: Response) -> RegistryError {
        let status = response.status().as_u16();
        let wait = text(response.headers(), header::RETRY_AFTER.as_str()).and_then(|text| text.parse().ok());
        let wait = wait.map(|seconds: u64| Duration::from_secs(seconds.min(60)));
        // The status says enough when the body breaks.
        let body = self.document(ask, response).await.unwrap_or_default();
        RegistryError::status(self.side(), &ask.name(), status, wait, &body)
    }

    pub(super) async fn document(&self, ask: &Ask, response: Response) -> Result<Bytes, RegistryError> {
        let mut stream = response.bytes_stream();
        let mut body = Vec::new();
        loop {
            match tokio::time::timeout(self.patience(), stream.next()).await {
                Ok(Some(Ok(piece))) if body.len() + piece.len() <= DOCUMENT_LIMIT => body.extend_from_slice(&piece),
                Ok(Some(Ok(_))) => {
                    let why = format!("the answer is larger than {DOCUMENT_LIMIT} bytes");
                    return Err(RegistryError::new(self.side(), Class::Other, ask.name(), why));
                }
                Ok(Some(Err(error))) => {
                    return Err(RegistryError::transport(self.side(), &ask.name(), &error.without_url()));
                }
                Ok(None) => return Ok(body.into()),
                Err(_) => {
                    let why = format!("the answer stopped for {} s", self.patience().as_secs());
                    return Err(RegistryError::new(self.side(), Class::Timeout, ask.name(), why));
                }
            }
        }
    }
}

impl Ask {
    fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            registry: String::new(),
            repository: String::new(),
            scopes: Vec::new(),
            headers: HeaderMap::new(),
            body: Payload::Empty,
            bulk: false,
        }
    }

    /// `GET https://host/path`, without the query: it may hold tokens and upload state.
    pub(super) fn name(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        format!("{} {url}", self.method)
    }
}

/// Host of a registry's API: Docker Hub has it under another name.
fn api(registry: &str) -> &str {
    if registry == "docker.io" { "registry-1.docker.io" } else { registry }
}

pub(super) fn host_of(name: &str) -> &str {
    name.split(':').next().unwrap_or(name)
}

pub(super) fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

fn basic(user: &str, password: &Secret) -> Option<HeaderValue> {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{}", password.reveal()));
    crate::spec::secret::remember(&pair);
    sensitive(&format!("Basic {pair}"))
}

fn bearer(token: &Token) -> Option<HeaderValue> {
    sensitive(&format!("Bearer {}", token.value.reveal()))
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
