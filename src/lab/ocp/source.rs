//! The registry that the release comes from, as quay.io answers: Bearer tokens for the pull secret's user, blobs by
//! range, and no more bytes a second than the lab's uplink has.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum_server::tls_rustls::RustlsConfig;
use bytes::Bytes;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::OcpError;
use super::ca::Ca;
use super::payload::{MANIFEST_TYPE, Payload};
use super::registries::{self, Answer, Place};
use super::tls;

/// Tokens live this long.
const LIFE: Duration = Duration::from_secs(1800);

pub struct Source {
    payload: Arc<Payload>,
    /// User and password of the pull secret.
    account: (String, String),
    tokens: Mutex<BTreeMap<String, Instant>>,
    uplink: Uplink,
}

impl Source {
    /// Serve `payload` until `cancel`; the address is on loopback. `rate` in bytes a second.
    pub fn start(
        payload: Arc<Payload>,
        ca: &Ca,
        account: (String, String),
        rate: u64,
        cancel: CancellationToken,
    ) -> Result<SocketAddr, OcpError> {
        let leaf = ca.server(&["quay.io", "localhost", "127.0.0.1"])?;
        let config = tls::config(leaf.certificate.as_bytes(), leaf.key.as_bytes(), None)?;
        let source = Arc::new(Self { payload, account, tokens: Mutex::default(), uplink: Uplink::new(rate) });
        let router = Router::new().fallback(serve).with_state(source);
        let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
        tls::serve(listener, RustlsConfig::from_config(config), router, cancel)
    }

    fn allowed(&self, headers: &HeaderMap) -> bool {
        let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        token
            .and_then(|text| text.strip_prefix("Bearer "))
            .and_then(|token| tokens.get(token))
            .is_some_and(|end| *end > Instant::now())
    }

    fn token(&self, headers: &HeaderMap) -> Answer {
        if registries::basic(headers).as_ref() != Some(&self.account) {
            let error = json!({ "error": "Could not find robot with specified username" });
            return registries::answer(
                StatusCode::UNAUTHORIZED,
                &[("content-type", "application/json")],
                error.to_string(),
            );
        }
        let token: String = (0..48).map(|_| fastrand::alphanumeric()).collect();
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, end| *end > Instant::now());
        tokens.insert(token.clone(), Instant::now() + LIFE);
        let body = json!({ "token": token, "expires_in": LIFE.as_secs() }).to_string();
        registries::answer(StatusCode::OK, &[("content-type", "application/json")], body)
    }

    fn manifest(&self, head: bool, repository: &str, reference: &str) -> Answer {
        let tag = self.payload.tag();
        let image = self.payload.images().find(|image| {
            image.repository == repository
                && (image.digest == reference || (image.name == "release" && reference == tag))
        });
        let Some(image) = image else { return registries::manifest_unknown(reference) };
        let length = image.manifest.len().to_string();
        let headers = [
            ("content-type", MANIFEST_TYPE),
            ("docker-content-digest", image.digest.as_str()),
            ("content-length", length.as_str()),
        ];
        let body = if head { Bytes::new() } else { image.manifest.clone() };
        registries::answer(StatusCode::OK, &headers, body)
    }
}

async fn serve(State(source): State<Arc<Source>>, method: Method, uri: Uri, headers: HeaderMap) -> Answer {
    if uri.path() == "/v2/auth" {
        return source.token(&headers);
    }
    let Some(place) = Place::parse(uri.path()) else {
        return registries::failure(StatusCode::NOT_FOUND, "NAME_INVALID", "invalid repository name", json!(null));
    };
    if !source.allowed(&headers) {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("quay.io");
        let scope = match place.repository() {
            Some(repository) => format!(",scope=\"repository:{repository}:pull\""),
            None => String::new(),
        };
        let challenge = format!("Bearer realm=\"https://{host}/v2/auth\",service=\"quay.io\"{scope}");
        return registries::unauthorized(&challenge);
    }
    let head = method == Method::HEAD;
    if !head && method != Method::GET {
        return registries::failure(
            StatusCode::METHOD_NOT_ALLOWED,
            "UNSUPPORTED",
            "The operation is unsupported.",
            json!({}),
        );
    }
    match place {
        Place::Base => registries::answer(StatusCode::OK, &[("content-type", "application/json")], "true"),
        Place::Manifest { repository, reference } => source.manifest(head, &repository, &reference),
        Place::Tags { repository } => {
            let tags =
                if repository == source.payload.release.repository { vec![source.payload.tag()] } else { vec![] };
            let body = json!({ "name": repository, "tags": tags }).to_string();
            registries::answer(StatusCode::OK, &[("content-type", "application/json")], body)
        }
        Place::Blob { digest, .. } => match source.payload.blob_size(&digest) {
            None => registries::blob_unknown(&digest),
            Some(size) => {
                registries::blob(head, &digest, size, &headers, |first| parts(source.clone(), digest.clone(), first))
            }
        },
        Place::Catalog | Place::Uploads { .. } | Place::Upload { .. } => registries::failure(
            StatusCode::UNAUTHORIZED,
            "UNAUTHORIZED",
            "access to the requested resource is not authorized",
            json!({}),
        ),
    }
}

fn parts(
    source: Arc<Source>,
    digest: String,
    first: u64,
) -> futures::stream::BoxStream<'static, std::io::Result<Bytes>> {
    let start = (source, digest, first);
    Box::pin(futures::stream::unfold(start, |(source, digest, offset)| async move {
        let part = source.payload.read(&digest, offset)?;
        source.uplink.pass(part.len() as u64).await;
        let next = offset + part.len() as u64;
        Some((Ok(part), (source, digest, next)))
    }))
}

/// A line that everybody shares.
struct Uplink {
    rate: u64,
    /// When what was promised so far has passed.
    free: Mutex<Instant>,
}

impl Uplink {
    fn new(rate: u64) -> Self {
        Self { rate: rate.max(1), free: Mutex::new(Instant::now()) }
    }

    async fn pass(&self, bytes: u64) {
        let until = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            *free = (*free).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / self.rate as f64);
            *free
        };
        tokio::time::sleep_until(until).await;
    }
}
