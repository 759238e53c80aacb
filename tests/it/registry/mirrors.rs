//! Mirrors with rules of their own, in memory: distribution 3 and Quay. And mirrors whose connections break.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderName, header};
use axum_server::tls_rustls::RustlsConfig;
use futures::StreamExt as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::faults::{Answer, answer, word};
use super::*;

#[derive(Clone, Copy, PartialEq)]
enum Rules {
    /// distribution/distribution 3: an upload goes on behind what a broken PATCH left, `Content-Range` is checked.
    Three,
    /// Quay: tokens, a repository is made with the first token to push into it, `Range` that counts otherwise, 202 for manifests.
    Quay,
}

/// A request that is not served as the rules say.
enum Fault {
    Answer(Answer),
    /// The body is not read, and no answer comes.
    Stall,
}

type Faulty = Box<dyn Fn(&Parts) -> Option<Fault> + Send + Sync>;

#[derive(Default)]
struct Stored {
    /// What each repository has, blobs and manifests.
    repositories: BTreeMap<String, BTreeSet<String>>,
    tags: BTreeMap<String, String>,
    contents: BTreeMap<String, (String, Bytes)>,
    uploads: BTreeMap<String, Vec<u8>>,
    /// What a token is good for, and how often it was used.
    tokens: BTreeMap<String, (BTreeSet<String>, usize)>,
    received: usize,
    /// Uploads, ever.
    opened: usize,
    /// Method and path with query of all that was asked.
    asked: Vec<String>,
}

/// A mirror of one kind. It ends with the value.
struct Mirror {
    port: u16,
    ca: Ca,
    stored: Arc<Mutex<Stored>>,
    handle: axum_server::Handle<std::net::SocketAddr>,
}

impl Mirror {
    fn start(rules: Rules, faulty: Faulty) -> Self {
        let ca = Ca::new();
        let certificate = ca.issue(&[]);
        Self::with_certificate(ca, &certificate, rules, faulty)
    }

    fn with_certificate(ca: Ca, (certificate, key): &(String, String), rules: Rules, faulty: Faulty) -> Self {
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
        let stored: Arc<Mutex<Stored>> = Arc::default();
        let (held, faulty) = (Arc::clone(&stored), Arc::new(faulty));
        let app = axum::Router::new().fallback(move |request: axum::extract::Request| {
            let (held, faulty) = (Arc::clone(&held), Arc::clone(&faulty));
            async move {
                let (parts, body) = request.into_parts();
                held.lock().unwrap().asked.push(format!("{} {}", parts.method, parts.uri));
                match faulty(&parts) {
                    Some(Fault::Answer(answer)) => return answer,
                    Some(Fault::Stall) => std::future::pending().await,
                    None => {}
                }
                serve(rules, &held, &parts, body).await
            }
        });
        let handle = axum_server::Handle::new();
        let server = axum_server::from_tcp_rustls(listener, RustlsConfig::from_config(Arc::new(config))).unwrap();
        tokio::spawn(server.handle(handle.clone()).serve(app.into_make_service()));
        Self { port, ca, stored, handle }
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Whether all that is to be there is there.
    fn check(&self, world: &World) {
        let stored = self.stored.lock().unwrap();
        for (digest, (_, content)) in &stored.contents {
            assert_eq!(digest::of(content), *digest);
        }
        for (repository, digest) in world.expected() {
            assert!(stored.repositories[&repository].contains(&digest), "{repository}@{digest}");
        }
        let tag = format!("openshift/release-images:{}-x86_64", world.release.version);
        assert_eq!(stored.tags.get(&tag), Some(&world.release.digest));
        let signature = world.release.components["cli"].replace(':', "-");
        assert!(stored.tags.contains_key(&format!("openshift/release:{signature}.sig")));
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.handle.shutdown();
    }
}

/// A sync into `mirror`, reached at `host`.
async fn sync(world: &World, mirror: &Mirror, host: String, action: Action) -> (u8, Vec<Message>) {
    world.write_auth(&host, json!({"username": "bartizan", "password": "mirror-password"}));
    let ca = world.dir.path().join("mirror.crt");
    std::fs::write(&ca, &mirror.ca.pem).unwrap();
    let request = Request {
        mirror: host,
        mirror_ca: vec![ca],
        outputs: Some(world.dir.path().join("outputs")),
        ..world.request(action)
    };
    let retry = Retry { times: 8, ..impatient().retry };
    agent(request, Net { patience: Duration::from_secs(1), retry, ..Net::default() }).await
}

fn refused(code: &str) -> Answer {
    let status = match code {
        "DIGEST_INVALID" | "MANIFEST_BLOB_UNKNOWN" => 400,
        "RANGE" => 416,
        _ => 404,
    };
    answer(status, &[], json!({"errors": [{"code": code, "message": code.to_lowercase()}]}).to_string())
}

const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

async fn serve(rules: Rules, held: &Mutex<Stored>, parts: &Parts, body: Body) -> Answer {
    let path = parts.uri.path().to_owned();
    let query: BTreeMap<String, String> =
        reqwest::Url::parse(&format!("https://x{}", parts.uri)).unwrap().query_pairs().into_owned().collect();
    if let Some(answer) = authorize(rules, &mut held.lock().unwrap(), parts) {
        return answer;
    }
    if path == "/v2/" {
        return answer(200, &[], "{}");
    }
    let rest = path.strip_prefix("/v2/").unwrap();
    if let Some((repo, upload)) = rest.split_once("/blobs/uploads/") {
        return uploads(rules, held, parts, (repo, upload), &query, body).await;
    }
    let (place, reference) = rest.rsplit_once('/').unwrap();
    let (repo, kind) = place.rsplit_once('/').unwrap();
    let whole = if parts.method == "PUT" { axum::body::to_bytes(body, 1 << 24).await.unwrap() } else { Bytes::new() };
    let mut stored = held.lock().unwrap();
    if parts.method == "PUT" {
        return put_manifest(rules, &mut stored, parts, (repo, reference), whole);
    }
    assert!(["blobs", "manifests"].contains(&kind), "{path}");
    let digest = stored.tags.get(&format!("{repo}:{reference}")).cloned().unwrap_or_else(|| reference.to_owned());
    let there = stored.repositories.get(repo).is_some_and(|repo| repo.contains(&digest));
    match stored.contents.get(&digest).filter(|_| there) {
        Some((kind, content)) => {
            let content = if parts.method == "HEAD" { Bytes::new() } else { content.clone() };
            answer(200, &[(header::CONTENT_TYPE, kind), (DIGEST, &digest)], content)
        }
        None => refused("MANIFEST_UNKNOWN"),
    }
}

fn put_manifest(
    rules: Rules,
    stored: &mut Stored,
    parts: &Parts,
    (repo, reference): (&str, &str),
    bytes: Bytes,
) -> Answer {
    let manifest: Value = serde_json::from_slice(&bytes).unwrap();
    let pointers = ["config", "layers", "manifests"].into_iter().filter_map(|key| manifest.get(key));
    let pointers = pointers.flat_map(|one| one.as_array().cloned().unwrap_or_else(|| vec![one.clone()]));
    let wanted: Vec<String> = pointers.map(|one| one["digest"].as_str().unwrap().to_owned()).collect();
    let repository = stored.repositories.entry(repo.to_owned()).or_default();
    if !wanted.iter().all(|digest| repository.contains(digest)) {
        return refused("MANIFEST_BLOB_UNKNOWN");
    }
    let digest = digest::of(&bytes);
    repository.insert(digest.clone());
    stored.contents.insert(digest.clone(), (word(parts, header::CONTENT_TYPE), bytes));
    if !reference.starts_with("sha256:") {
        stored.tags.insert(format!("{repo}:{reference}"), digest.clone());
    }
    answer(if rules == Rules::Quay { 202 } else { 201 }, &[(DIGEST, &digest)], "")
}

/// `Some`: not allowed, or a token.
fn authorize(rules: Rules, stored: &mut Stored, parts: &Parts) -> Option<Answer> {
    let shown = word(parts, header::AUTHORIZATION);
    if rules == Rules::Three {
        return shown.is_empty().then(|| answer(401, &[(header::WWW_AUTHENTICATE, "Basic realm=\"it\"")], ""));
    }
    let path = parts.uri.path();
    if path == "/v2/auth" {
        assert!(shown.starts_with("Basic "), "{shown}");
        let query: Vec<(String, String)> =
            reqwest::Url::parse(&format!("https://x{}", parts.uri)).unwrap().query_pairs().into_owned().collect();
        let mut granted = BTreeSet::new();
        for (_, scope) in query.iter().filter(|(key, _)| key == "scope") {
            let [_, repo, actions] = scope.split(':').collect::<Vec<_>>()[..] else { panic!("{scope}") };
            if actions.contains("push") {
                stored.repositories.entry(repo.to_owned()).or_default();
            }
            if stored.repositories.contains_key(repo) {
                granted.extend(actions.split(',').map(|action| format!("{repo}:{action}")));
            }
        }
        let token = format!("token-{}", stored.tokens.len());
        stored.tokens.insert(token.clone(), (granted, 0));
        return Some(answer(200, &[], json!({"token": token}).to_string()));
    }
    let repo = path.strip_prefix("/v2/").and_then(|rest| rest.split("/blobs/").next()?.split("/manifests/").next());
    let repo = repo.filter(|repo| !repo.is_empty());
    let action = if ["GET", "HEAD"].contains(&parts.method.as_str()) { "pull" } else { "push" };
    let known = shown.strip_prefix("Bearer ").and_then(|token| stored.tokens.get_mut(token));
    // A token is good for forty requests.
    let good = known.is_some_and(|(granted, used)| {
        *used += 1;
        *used <= 40 && repo.is_none_or(|repo| granted.contains(&format!("{repo}:{action}")))
    });
    let scope = repo.map(|repo| format!(",scope=\"repository:{repo}:{action}\"")).unwrap_or_default();
    let host = word(parts, header::HOST);
    let challenge = format!("Bearer realm=\"https://{host}/v2/auth\",service=\"{host}\"{scope}");
    (!good).then(|| answer(401, &[(header::WWW_AUTHENTICATE, &challenge)], ""))
}

async fn uploads(
    rules: Rules,
    held: &Mutex<Stored>,
    parts: &Parts,
    (repo, upload): (&str, &str),
    query: &BTreeMap<String, String>,
    body: Body,
) -> Answer {
    let place = |stored: &Stored, upload: &str| {
        let offset = stored.uploads[upload].len();
        match rules {
            Rules::Three => format!("/v2/{repo}/blobs/uploads/{upload}?_state={offset}"),
            Rules::Quay => format!("http://{}/v2/{repo}/blobs/uploads/{upload}", word(parts, header::HOST)),
        }
    };
    if parts.method == "POST" {
        let mut stored = held.lock().unwrap();
        if let (Some(digest), Some(from)) = (query.get("mount"), query.get("from"))
            && stored.repositories.get(from).is_some_and(|from| from.contains(digest))
        {
            stored.repositories.entry(repo.to_owned()).or_default().insert(digest.clone());
            return answer(201, &[(DIGEST, digest)], "");
        }
        stored.opened += 1;
        let upload = format!("upload-{}", stored.opened);
        stored.uploads.insert(upload.clone(), Vec::new());
        return answer(202, &[(header::LOCATION, &place(&stored, &upload))], "");
    }
    let begin = match held.lock().unwrap().uploads.get(upload) {
        Some(bytes) => bytes.len(),
        None => return refused("BLOB_UPLOAD_UNKNOWN"),
    };
    if parts.method == "GET" {
        let stored = held.lock().unwrap();
        let range = match rules {
            Rules::Three => format!("0-{}", begin.saturating_sub(1)),
            Rules::Quay => format!("bytes=0-{begin}"),
        };
        return answer(204, &[(header::LOCATION, &place(&stored, upload)), (header::RANGE, &range)], "");
    }
    if rules == Rules::Three && query.get("_state") != Some(&begin.to_string()) {
        return refused("BLOB_UPLOAD_INVALID");
    }
    let range = word(parts, header::CONTENT_RANGE);
    if !range.is_empty() && range.split('-').next() != Some(&begin.to_string()) {
        return refused("RANGE");
    }
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let mut stored = held.lock().unwrap();
        let Ok(piece) = piece else {
            if rules == Rules::Quay
                && let Some(bytes) = stored.uploads.get_mut(upload)
            {
                bytes.truncate(begin);
            }
            return answer(500, &[], "");
        };
        stored.received += piece.len();
        stored.uploads.get_mut(upload).unwrap().extend_from_slice(&piece);
    }
    let mut stored = held.lock().unwrap();
    if parts.method == "PATCH" {
        let range = format!("0-{}", stored.uploads[upload].len().saturating_sub(1));
        return answer(202, &[(header::LOCATION, &place(&stored, upload)), (header::RANGE, &range)], "");
    }
    let content = stored.uploads.remove(upload).unwrap();
    let digest = &query["digest"];
    if digest::of(&content) != *digest {
        return refused("DIGEST_INVALID");
    }
    stored.repositories.entry(repo.to_owned()).or_default().insert(digest.clone());
    stored.contents.insert(digest.clone(), ("application/octet-stream".into(), content.into()));
    answer(201, &[], "")
}

/// Something before a server that cuts some connections when so many bytes have gone to it.
struct Cutter {
    port: u16,
    cuts: Arc<AtomicUsize>,
}

impl Cutter {
    /// Ends as many connections as `most`, each behind another number of bytes; those of small requests never carry so much.
    async fn before(port: u16, most: usize) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap().port();
        let cuts: Arc<AtomicUsize> = Arc::default();
        let counted = Arc::clone(&cuts);
        tokio::spawn(async move {
            for number in 0_usize.. {
                let Ok((client, _)) = listener.accept().await else { return };
                let cuts = Arc::clone(&counted);
                tokio::spawn(async move {
                    let server = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    let ((mut from, mut to), (mut back, mut home)) = (client.into_split(), server.into_split());
                    let (mut up, mut down) = (vec![0; 16 << 10], vec![0; 16 << 10]);
                    let mut left = 150_000 + number % 7 * 130_000;
                    loop {
                        tokio::select! {
                            count = from.read(&mut up) => match count {
                                Ok(count @ 1..) if left > count || cuts.load(Ordering::Relaxed) >= most => {
                                    left = left.saturating_sub(count);
                                    if home.write_all(&up[..count]).await.is_err() { return }
                                }
                                Ok(1..) => {
                                    cuts.fetch_add(1, Ordering::Relaxed);
                                    return;
                                }
                                _ => return,
                            },
                            count = back.read(&mut down) => match count {
                                Ok(count @ 1..) => if to.write_all(&down[..count]).await.is_err() { return },
                                _ => return,
                            },
                        }
                    }
                });
            }
        });
        Self { port: here, cuts }
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distribution_3_and_quay_are_filled_by_their_own_rules() {
    let world = World::new(&Recipe { large: 70 << 20, ..Recipe::default() });
    for rules in [Rules::Three, Rules::Quay] {
        let mirror = Mirror::start(rules, Box::new(|_| None));
        // Of a mirror that has nothing yet, not even repositories, it can be said what there is to do.
        let (exit, messages) = sync(&world, &mirror, mirror.host(), Action::Plan).await;
        assert_eq!(exit, 0, "{:?}", errors(&messages));
        assert!(mirror.stored.lock().unwrap().repositories.is_empty(), "a plan makes nothing");
        let (exit, messages) = sync(&world, &mirror, mirror.host(), Action::Sync).await;
        assert_eq!(exit, 0, "{:?}", errors(&messages));
        assert_eq!(moved(&messages), world.release.bytes());
        mirror.check(&world);
        assert!(
            mirror.stored.lock().unwrap().asked.iter().any(|asked| asked.starts_with("PATCH")),
            "a large one in chunks"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_the_mirror_that_break_cost_a_chunk_each_and_no_byte_is_wrong() {
    let world = World::new(&Recipe { large: 70 << 20, ..Recipe::default() });
    for rules in [Rules::Three, Rules::Quay] {
        let mirror = Mirror::start(rules, Box::new(|_| None));
        let cutter = Cutter::before(mirror.port, 3).await;
        let (exit, messages) = sync(&world, &mirror, cutter.host(), Action::Sync).await;
        assert_eq!(exit, 0, "{:?}", errors(&messages));
        mirror.check(&world);
        let cuts = cutter.cuts.load(Ordering::Relaxed);
        assert!(cuts >= 2, "{cuts}");
        let received = mirror.stored.lock().unwrap().received as u64;
        // One that goes in a stream comes again as a whole, a chunk as a chunk.
        let most = world.release.bytes() + cuts as u64 * (8 << 20);
        assert!(received <= most, "{received} bytes came, {} were wanted, {cuts} cuts", world.release.bytes());
    }
    // registry:2 loses an upload whose PATCH broke: then the blob begins anew.
    world.write_auth(&world.mirror.host(), world.mirror.auth());
    let cutter = Cutter::before(world.mirror.port, 3).await;
    world.write_auth(&cutter.host(), world.mirror.auth());
    let request = Request { mirror: cutter.host(), ..world.request(Action::Sync) };
    let retry = Retry { times: 8, ..impatient().retry };
    let (exit, messages) = agent(request, Net { retry, ..Net::default() }).await;
    assert_eq!(exit, 0, "{:?}", errors(&messages));
    assert!(cutter.cuts.load(Ordering::Relaxed) >= 2);
    world.write_auth(&world.mirror.host(), world.mirror.auth());
    for (repo, digest) in world.expected() {
        let raw = world.skopeo(&format!("{repo}@{digest}")).unwrap_or_else(|| panic!("{repo}@{digest} is missing"));
        assert_eq!(digest::of(&raw), digest);
    }
}

/// The first request of each kind for each path.
fn first(method: &'static str) -> impl Fn(&Parts) -> bool {
    let seen = Mutex::new(BTreeSet::new());
    move |parts| parts.method == method && seen.lock().unwrap().insert(parts.uri.path().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_that_stumbles_is_filled_all_the_same() {
    let world = World::new(&Recipe { more: &["pod", "rhel-coreos"], large: 12 << 20, ..Recipe::default() });
    let page = "<html><head><title>429 Too Many Requests</title></head><body>nginx</body></html>";
    let asked = AtomicUsize::new(0);
    let limited: Faulty = Box::new(move |parts| {
        let now = parts.method == "PUT" && asked.fetch_add(1, Ordering::Relaxed) % 7 == 2;
        now.then(|| Fault::Answer(answer(429, &[(header::CONTENT_TYPE, "text/html")], page)))
    });
    let gateway = first("HEAD");
    let gateway: Faulty = Box::new(move |parts| gateway(parts).then(|| Fault::Answer(answer(502, &[], ""))));
    // It takes nothing and says nothing, once.
    let stalled = AtomicUsize::new(0);
    let stalls: Faulty = Box::new(move |parts| {
        let blob = parts.method == "PUT" && parts.uri.path().contains("/blobs/");
        (blob && stalled.fetch_add(1, Ordering::Relaxed) == 3).then_some(Fault::Stall)
    });
    // No mounting: the blob is sent twice.
    let unable: Faulty = Box::new(|parts| {
        let mount = parts.method == "POST" && parts.uri.query().is_some_and(|query| query.contains("mount="));
        mount.then(|| Fault::Answer(answer(405, &[], "")))
    });
    // A proxy that lets no large body through; chunks are small enough.
    let large: Faulty = Box::new(|parts| {
        let length: usize = word(parts, header::CONTENT_LENGTH).parse().unwrap_or(0);
        (length > 10 << 20).then(|| Fault::Answer(answer(413, &[], "<h1>413 Request Entity Too Large</h1>")))
    });
    for (what, faulty, twice) in [
        ("rate limit", limited, 0),
        ("gateway", gateway, 0),
        ("stall", stalls, 0),
        ("no mounting", unable, 1),
        ("small bodies", large, 0),
    ] {
        let mirror = Mirror::start(Rules::Three, faulty);
        let (exit, messages) = sync(&world, &mirror, mirror.host(), Action::Sync).await;
        assert_eq!(exit, 0, "{what}: {:?}", errors(&messages));
        mirror.check(&world);
        let more = moved(&messages) - world.release.bytes();
        assert_eq!(more > 0, twice == 1, "{what}: {more} bytes more");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_whose_certificate_has_expired_is_told_of() {
    let world = World::new(&Recipe { more: &[], ..Recipe::default() });
    let ca = Ca::new();
    let certificate = ca.issue_until(&[], 2020);
    let mirror = Mirror::with_certificate(ca, &certificate, Rules::Three, Box::new(|_| None));
    let (exit, messages) = sync(&world, &mirror, mirror.host(), Action::Sync).await;
    let found = errors(&messages);
    assert_eq!((exit, found[0].0.as_str(), found[0].1.as_str()), (9, "mirror", "ca"), "{found:?}");
    assert!(found[0].2.contains("has expired"), "{found:?}");
}
