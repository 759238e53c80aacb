//! A registry that misbehaves on purpose.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Response, StatusCode, header};
use axum_server::tls_rustls::RustlsConfig;
use bartizan::registry::blob::BlobReader;
use bartizan::registry::manifest::Blob;
use futures::StreamExt as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::parts::noise;
use super::*;

pub type Answer = Response<Body>;

/// A server whose every answer is made up by a test. It ends with the value.
pub struct Server {
    pub port: u16,
    seen: Arc<Mutex<Vec<Parts>>>,
    handle: axum_server::Handle<std::net::SocketAddr>,
}

impl Server {
    pub fn start(ca: &Ca, answer: impl Fn(&Parts, u16) -> Answer + Send + Sync + 'static) -> Self {
        Self::with_certificate(ca.issue(&[]), answer)
    }

    pub fn with_certificate(
        (certificate, key): (String, String),
        answer: impl Fn(&Parts, u16) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let _same = rustls::crypto::ring::default_provider().install_default();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
        let app = axum::Router::new().fallback(move |request: axum::extract::Request| {
            let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
            async move {
                let (parts, body) = request.into_parts();
                let _whole = axum::body::to_bytes(body, usize::MAX).await;
                log.lock().unwrap().push(parts.clone());
                answer(&parts, port)
            }
        });
        let handle = axum_server::Handle::new();
        let server = axum_server::from_tcp_rustls(listener, RustlsConfig::from_config(Arc::new(config))).unwrap();
        tokio::spawn(server.handle(handle.clone()).serve(app.into_make_service()));
        Self { port, seen, handle }
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn seen(&self) -> Vec<Parts> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handle.shutdown();
    }
}

pub fn answer(status: u16, headers: &[(header::HeaderName, &str)], body: impl Into<Body>) -> Answer {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

/// `Content-Length` says all, the connection ends after `sent`.
pub fn truncated(status: u16, headers: &[(header::HeaderName, &str)], all: &[u8], sent: usize) -> Answer {
    let part = Ok(Bytes::copy_from_slice(&all[..sent]));
    // Later, so that what came before has left.
    let cut = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Err(std::io::Error::other("cut"))
    };
    let body = Body::from_stream(futures::stream::iter([part]).chain(futures::stream::once(cut)));
    let mut response = answer(status, headers, body);
    response.headers_mut().insert(header::CONTENT_LENGTH, all.len().into());
    response
}

pub fn word(parts: &Parts, name: header::HeaderName) -> String {
    parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

fn client(ca: &Ca, credentials: Credentials) -> Client {
    Client::new(&Net { roots: vec![ca.pem.clone()], ..impatient() }, credentials, Side::Source).unwrap()
}

async fn read(client: &Client, repo: &Repo, blob: &Blob) -> Result<Vec<u8>, RegistryError> {
    let mut reader = BlobReader::new(client, repo, blob);
    let mut all = Vec::new();
    while let Some(piece) = reader.next().await? {
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

#[tokio::test]
async fn a_token_that_ends_in_the_middle_is_fetched_anew() {
    let ca = Ca::new();
    let content = br#"{"schemaVersion":2}"#;
    let wanted = digest::of(content);
    let served = Mutex::new((0, 0));
    let server = Server::start(&ca, move |parts, port| {
        let mut served = served.lock().unwrap();
        if parts.uri.path() == "/token" {
            served.0 += 1;
            return answer(200, &[], format!(r#"{{"token":"token-{}"}}"#, served.0));
        }
        served.1 += 1;
        // The first token is good for two requests.
        let good = if served.1 <= 3 { "Bearer token-1" } else { "Bearer token-2" };
        if word(parts, header::AUTHORIZATION) != good {
            let challenge = format!(r#"Bearer realm="https://127.0.0.1:{port}/token",service="it""#);
            return answer(401, &[(header::WWW_AUTHENTICATE, &challenge)], "");
        }
        answer(200, &[(header::CONTENT_TYPE, OCI_MANIFEST)], &content[..])
    });
    let repo = Repo::new(server.host(), "a/b");
    let client = client(&ca, Credentials::single(&server.host(), "robot", Secret::new("robot-password")));
    for _ in 0..4 {
        assert_eq!(client.manifest(&repo, &wanted).await.unwrap().bytes, &content[..]);
    }
    let seen = server.seen();
    let tokens: Vec<&Parts> = seen.iter().filter(|parts| parts.uri.path() == "/token").collect();
    assert_eq!(tokens.len(), 2, "one token for two requests, then one for the rest");
    assert_eq!(tokens[0].uri.query(), Some("service=it&scope=repository%3Aa%2Fb%3Apull"));
    assert!(word(tokens[0], header::AUTHORIZATION).starts_with("Basic "));
}

#[tokio::test]
async fn a_redirected_blob_that_breaks_is_resumed_without_leaking_the_login() {
    let ca = Ca::new();
    let content = noise(300_000);
    let blob = Blob { digest: digest::of(&content), size: content.len() as u64 };
    let store = content.clone();
    let cdn = Server::start(&ca, move |parts, _| {
        let range = word(parts, header::RANGE);
        match range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-')).map(|at| at.parse().unwrap()) {
            None => truncated(200, &[], &store, 100_000),
            Some(at) => {
                let at: usize = at;
                let range = format!("bytes {at}-{}/{}", store.len() - 1, store.len());
                answer(206, &[(header::CONTENT_RANGE, &range)], store[at..].to_vec())
            }
        }
    });
    // Another host name, and another signature each time.
    let (there, count) = (cdn.port, Mutex::new(0));
    let registry = Server::start(&ca, move |parts, _| {
        if word(parts, header::AUTHORIZATION).is_empty() {
            return answer(401, &[(header::WWW_AUTHENTICATE, "Basic realm=x")], "");
        }
        let mut count = count.lock().unwrap();
        *count += 1;
        answer(302, &[(header::LOCATION, &format!("https://localhost:{there}/store?signature={count}"))], "")
    });
    let client = client(&ca, Credentials::single(&registry.host(), "robot", Secret::new("robot-password")));
    let repo = Repo::new(registry.host(), "a/b");
    assert!(read(&client, &repo, &blob).await.unwrap() == content);
    let reached = cdn.seen();
    assert_eq!(reached.len(), 2);
    assert!(reached.iter().all(|parts| word(parts, header::AUTHORIZATION).is_empty()), "no login for the store");
    let signatures: Vec<&str> = reached.iter().filter_map(|parts| parts.uri.query()).collect();
    assert_eq!(signatures, ["signature=1", "signature=2"], "a Location is used once");

    // A server that knows no ranges, and one that sends something else.
    let (store, count) = (content.clone(), Mutex::new(0));
    let plain = Server::start(&ca, move |_, _| {
        let mut count = count.lock().unwrap();
        *count += 1;
        if *count == 1 { truncated(200, &[], &store, 100_000) } else { answer(200, &[], store.clone()) }
    });
    assert!(read(&client, &Repo::new(plain.host(), "a/b"), &blob).await.unwrap() == content);
    let size = content.len();
    let liar = Server::start(&ca, move |_, _| answer(200, &[], vec![0; size]));
    let error = read(&client, &Repo::new(liar.host(), "a/b"), &blob).await.unwrap_err();
    assert_eq!(error.class(), "digest", "{error}");
}

#[tokio::test]
async fn a_gateway_that_says_429_in_html_is_waited_for() {
    let ca = Ca::new();
    let content = br#"{"schemaVersion":2}"#;
    let count = Mutex::new(0);
    let server = Server::start(&ca, move |parts, _| {
        let mut count = count.lock().unwrap();
        *count += 1;
        if *count <= 2 || parts.uri.path().contains("never") {
            let page = "<html><head><title>429 Too Many Requests</title></head><body>nginx</body></html>";
            return answer(429, &[(header::CONTENT_TYPE, "text/html")], page);
        }
        answer(200, &[(header::CONTENT_TYPE, OCI_MANIFEST)], &content[..])
    });
    let client = client(&ca, Credentials::default());
    let repo = Repo::new(server.host(), "a/b");
    assert_eq!(client.manifest(&repo, "latest").await.unwrap().digest, digest::of(content));
    let error = client.manifest(&repo, "never").await.unwrap_err();
    assert_eq!(error.class(), "rate-limit");
    assert_eq!(error.why, "HTTP 429: 429 Too Many Requests");
}

#[tokio::test]
async fn a_full_mirror_stops_everything_at_once() {
    let world = World::new(&Recipe { more: &[], ..Recipe::default() });
    // Some say it with a status, some only with the errno of their file system.
    for (status, errno) in [(500, 28), (507, 0)] {
        full(&world, status, errno).await;
    }
}

async fn full(world: &World, status: u16, errno: i32) {
    let full = Server::start(&world.mirror.ca, move |parts, _| match parts.method.as_str() {
        "GET" => answer(200, &[], "{}"),
        "HEAD" => answer(404, &[], ""),
        "POST" => answer(202, &[(header::LOCATION, "/v2/x/blobs/uploads/1?_state=s")], ""),
        _ => {
            let body = json!({"errors": [{"code": "UNKNOWN", "message": "unknown error",
                "detail": {"DriverName": "filesystem", "Enclosed": {"Op": "write", "Path": "/data", "Err": errno}}}]});
            answer(status, &[], body.to_string())
        }
    });
    let (exit, messages) = agent(Request { mirror: full.host(), ..world.request(Action::Sync) }, impatient()).await;
    assert_eq!(exit, 9);
    let found = errors(&messages);
    assert!(!found.is_empty() && found.iter().all(|(side, class, _)| side == "mirror" && class == "disk"), "{found:?}");
    assert!(found[0].2.contains("no space left on device"), "{found:?}");
    let writes = full.seen().iter().filter(|parts| parts.method == "PUT").count();
    assert!(writes <= 6, "{writes} writes after the disk was full");
}
