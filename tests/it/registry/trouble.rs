//! Whole syncs from a source that misbehaves, and syncs that are killed: the mirror is right in the end, or it is said why not.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use axum::body::Body;
use axum::http::header;
use axum::http::request::Parts;
use futures::StreamExt as _;

use super::faults::{Answer, Server, answer, truncated, word};
use super::*;

/// A source that serves a release from memory, as `twist` lets it.
struct Source {
    server: Server,
    ca: Ca,
    release: Arc<OnceLock<SyntheticRelease>>,
}

type Twist = Box<dyn Fn(&Parts, &[u8], u16) -> Option<Answer> + Send + Sync>;

impl Source {
    fn start(recipe: &Recipe, twist: Twist) -> Self {
        let ca = Ca::new();
        let certificate = ca.issue(&[]);
        Self::with_certificate(ca, certificate, recipe, twist)
    }

    fn with_certificate(ca: Ca, certificate: (String, String), recipe: &Recipe, twist: Twist) -> Self {
        let release: Arc<OnceLock<SyntheticRelease>> = Arc::default();
        let held = Arc::clone(&release);
        let server = Server::with_certificate(certificate, move |parts, port| {
            let path = parts.uri.path().replacen("/store/", "/v2/", 1);
            let found = held.get().and_then(|release| release.get(&path));
            let (kind, content) = found.unwrap_or(("", &[]));
            if let Some(answer) = twist(parts, content, port) {
                return answer;
            }
            match (path.as_str(), found) {
                ("/v2/", _) => answer(200, &[], "{}"),
                (_, None) => answer(404, &[], "{}"),
                (path, Some(_)) if path.contains("/blobs/") => range(parts, content),
                _ => answer(200, &[(header::CONTENT_TYPE, kind)], content.to_vec()),
            }
        });
        assert!(release.set(SyntheticRelease::build(&server.host(), recipe)).is_ok());
        Self { server, ca, release }
    }

    fn release(&self) -> &SyntheticRelease {
        self.release.get().unwrap()
    }
}

/// The content, or what is behind the asked byte.
fn range(parts: &Parts, content: &[u8]) -> Answer {
    let range = word(parts, header::RANGE);
    match range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-')).map(|at| at.parse::<usize>().unwrap())
    {
        None => answer(200, &[], content.to_vec()),
        Some(at) => {
            let range = format!("bytes {at}-{}/{}", content.len() - 1, content.len());
            answer(206, &[(header::CONTENT_RANGE, &range)], content[at..].to_vec())
        }
    }
}

/// What a sync from `source` into a fresh `docker-registry` says, and that registry.
struct Synced {
    mirror: DockerRegistry,
    dir: tempfile::TempDir,
}

impl Synced {
    fn new() -> Self {
        Self { mirror: DockerRegistry::start(&[]), dir: tempfile::tempdir().unwrap() }
    }

    fn request(&self, source: &Source) -> Request {
        use std::os::unix::fs::PermissionsExt as _;
        let (auth, ca) = (self.dir.path().join("auth.json"), self.dir.path().join("source.crt"));
        let login = json!({"username": "robot", "password": "robot-password"});
        let auths = json!({"auths": {source.server.host(): login, self.mirror.host(): self.mirror.auth()}});
        std::fs::write(&auth, auths.to_string()).unwrap();
        std::fs::set_permissions(&auth, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&ca, &source.ca.pem).unwrap();
        Request {
            action: Action::Sync,
            source: source.release().pull_spec.clone(),
            arch: "x86_64".into(),
            mirror: self.mirror.host(),
            release_repository: "ocp/release-images".into(),
            component_repository: "ocp/release".into(),
            release_tag: None,
            authfile: auth,
            source_ca: vec![ca],
            mirror_ca: vec![self.mirror.ca_file()],
            resolve: Vec::new(),
            jobs: 4,
            subset: Subset::All,
            additional: Vec::new(),
            mapping: Vec::new(),
            offline: false,
            skip: Vec::new(),
            skip_file: None,
            accept_incomplete: false,
            only: None,
            bandwidth: None,
            outputs: Some(self.dir.path().join("outputs")),
        }
    }

    /// Every file in the mirror's store is what its name says. Gives their number.
    fn store(&self) -> usize {
        let files = stored(&self.mirror);
        for (digest, data) in &files {
            assert_eq!(digest::of(&std::fs::read(data).unwrap()), *digest, "a wrong blob in the mirror");
        }
        files.len()
    }

    fn has(&self, repo: &str, digest: &str) -> bool {
        revision(&self.mirror, repo, digest).join("link").exists()
    }
}

/// Digest and file of everything that a registry has stored.
fn stored(registry: &DockerRegistry) -> Vec<(String, PathBuf)> {
    let prefixes = directories(&registry.storage().join("blobs/sha256"));
    let blobs = prefixes.iter().flat_map(|prefix| directories(prefix));
    let named =
        blobs.map(|blob| (format!("sha256:{}", blob.file_name().unwrap().to_str().unwrap()), blob.join("data")));
    named.filter(|(_, data)| data.exists()).collect()
}

fn bytes(registry: &DockerRegistry) -> u64 {
    stored(registry).iter().map(|(_, data)| data.metadata().map_or(0, |data| data.len())).sum()
}

fn directories(path: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(path).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

const SMALL: Recipe = Recipe { version: "4.18.12", more: &["pod"], large: 0, each: 20_000 };

fn is_blob(parts: &Parts) -> bool {
    parts.method == "GET" && parts.uri.path().contains("/blobs/")
}

/// Whether this path is asked for the first time.
fn first() -> impl Fn(&Parts) -> bool {
    let seen = Mutex::new(BTreeSet::new());
    move |parts| seen.lock().unwrap().insert(parts.uri.path().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_stumbles_is_mirrored_to_the_last_byte() {
    let again = first();
    let cut: Twist = Box::new(move |parts, content, _| {
        (is_blob(parts) && again(parts)).then(|| truncated(200, &[], content, content.len() / 2))
    });
    let again = first();
    let short: Twist = Box::new(move |parts, content, _| {
        (is_blob(parts) && again(parts)).then(|| answer(200, &[], content[..content.len() / 2].to_vec()))
    });
    let again = first();
    let limited: Twist = Box::new(move |parts, _, _| {
        let page = "<html><head><title>429 Too Many Requests</title></head><body>nginx</body></html>";
        again(parts).then(|| answer(429, &[(header::CONTENT_TYPE, "text/html")], page))
    });
    let again = first();
    let failing: Twist =
        Box::new(move |parts, _, _| (is_blob(parts) && again(parts)).then(|| answer(502, &[], "<h1>Bad Gateway</h1>")));
    // A token is good for fifteen requests.
    let served = Mutex::new((0, 0));
    let forgetful: Twist = Box::new(move |parts, _, port| {
        let mut served = served.lock().unwrap();
        if parts.uri.path() == "/token" {
            *served = (served.0 + 1, 0);
            return Some(answer(200, &[], format!(r#"{{"token":"token-{}"}}"#, served.0)));
        }
        served.1 += 1;
        let good = format!("Bearer token-{}", served.0);
        if served.1 <= 15 && word(parts, header::AUTHORIZATION) == good {
            return None;
        }
        let challenge = format!(r#"Bearer realm="https://127.0.0.1:{port}/token",service="it""#);
        Some(answer(401, &[(header::WWW_AUTHENTICATE, &challenge)], ""))
    });
    // Signed URLs of another host, each good for one request; the first body of each blob breaks.
    let (again, used, count) = (first(), Mutex::new(BTreeSet::new()), Mutex::new(0));
    let elsewhere: Twist = Box::new(move |parts, content, port| {
        let path = parts.uri.path();
        if let Some(rest) = path.strip_prefix("/store/") {
            // S3 refuses a request with two kinds of login.
            if !word(parts, header::AUTHORIZATION).is_empty() {
                return Some(answer(400, &[], "<Error><Code>InvalidArgument</Code></Error>"));
            }
            if !used.lock().unwrap().insert(format!("{rest}{:?}", parts.uri.query())) {
                return Some(answer(403, &[], "<Error><Message>Request has expired</Message></Error>"));
            }
            return again(parts).then(|| truncated(200, &[], content, content.len() / 3));
        }
        if is_blob(parts) {
            let mut count = count.lock().unwrap();
            *count += 1;
            let there = format!("https://localhost:{port}{}?signature={count}", path.replacen("/v2/", "/store/", 1));
            return Some(answer(302, &[(header::LOCATION, &there)], ""));
        }
        None
    });
    // It trickles: alive, and yet dead. One image is enough to see it.
    let again = first();
    let trickle: Twist = Box::new(move |parts, content, _| {
        let slow = is_blob(parts) && content.len() > 500_000 && again(parts);
        slow.then(|| {
            let begin = Ok::<_, std::io::Error>(Bytes::copy_from_slice(&content[..1000]));
            let drops = futures::stream::unfold(1000, {
                let content = Bytes::copy_from_slice(content);
                move |at| {
                    let content = content.clone();
                    async move {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        Some((Ok(content.slice(at..=at)), at + 1))
                    }
                }
            });
            let mut response = answer(200, &[], Body::from_stream(futures::stream::iter([begin]).chain(drops)));
            response.headers_mut().insert(header::CONTENT_LENGTH, content.len().into());
            response
        })
    });
    for (what, twist) in [
        ("cut in the middle", cut),
        ("too short", short),
        ("rate limit", limited),
        ("gateway", failing),
        ("short-lived tokens", forgetful),
        ("expiring redirects", elsewhere),
        ("slow loris", trickle),
    ] {
        let (source, synced) = (Source::start(&SMALL, twist), Synced::new());
        let net = Net { patience: Duration::from_secs(3), ..impatient() };
        let (exit, messages) = agent(synced.request(&source), net).await;
        assert_eq!(exit, 0, "{what}: {:?}", errors(&messages));
        let release = source.release();
        assert_eq!(moved(&messages), release.bytes(), "{what}");
        synced.store();
        assert!(synced.has("ocp/release-images", &release.digest), "{what}");
        for digest in release.components.values() {
            assert!(synced.has("ocp/release", digest), "{what}");
        }
        let retried = messages
            .iter()
            .any(|message| matches!(message, Message::Sync(SyncEvent::Retry { side, .. }) if side == "source"));
        let quietly = ["short-lived tokens", "rate limit"].contains(&what);
        assert!(retried || quietly, "{what}: nobody was told");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_digest_never_reaches_the_mirror() {
    // The large layer goes in one stream, so that most of it is sent before its last byte is known.
    let recipe = Recipe { large: 3 << 20, more: &["rhel-coreos"], ..SMALL };
    let lie: Twist = Box::new(|parts, content, _| {
        (is_blob(parts) && content.len() > 2 << 20).then(|| {
            let mut wrong = content.to_vec();
            *wrong.last_mut().unwrap() ^= 1;
            answer(200, &[], wrong)
        })
    });
    let (source, synced) = (Source::start(&recipe, lie), Synced::new());
    let (exit, messages) = agent(synced.request(&source), impatient()).await;
    assert_eq!(exit, 9);
    let found = errors(&messages);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].0.as_str(), found[0].1.as_str()), ("source", "digest"), "{found:?}");
    assert!(synced.store() > 20, "the others came through");
    let release = source.release();
    assert!(!synced.has("ocp/release", &release.components["rhel-coreos"]));
    let tags = synced.mirror.storage().join("repositories/ocp/release-images/_manifests/tags");
    assert!(!tags.join("4.18.12-x86_64").exists(), "an incomplete mirror has no release tag");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_is_said_to_be_one() {
    let ca = Ca::new();
    let certificate = ca.issue_until(&[], 2020);
    let (source, synced) = (Source::with_certificate(ca, certificate, &SMALL, Box::new(|_, _, _| None)), Synced::new());
    let (exit, messages) = agent(synced.request(&source), impatient()).await;
    let found = errors(&messages);
    assert_eq!((exit, found[0].0.as_str(), found[0].1.as_str()), (9, "source", "ca"), "{found:?}");
    assert!(found[0].2.contains("has expired"), "{found:?}");
    assert_eq!(synced.store(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_blob_goes_on_behind_its_last_chunk_in_the_next_process() {
    const MIB: usize = 1 << 20;
    let recipe = Recipe { large: 70 * MIB, more: &["rhel-coreos"], ..SMALL };
    // The link dies, without a word, in the middle of the fifth chunk.
    let again = first();
    let dies: Twist = Box::new(move |parts, content, _| {
        (is_blob(parts) && content.len() > 64 * MIB && again(parts)).then(|| {
            let begin = Ok::<_, std::io::Error>(Bytes::copy_from_slice(&content[..37 * MIB]));
            let body = futures::stream::iter([begin]).chain(futures::stream::pending());
            let mut response = answer(200, &[], Body::from_stream(body));
            response.headers_mut().insert(header::CONTENT_LENGTH, content.len().into());
            response
        })
    });
    let (source, synced) = (Source::start(&recipe, dies), Synced::new());
    let request = synced.request(&source);
    let killed = tokio::spawn(run(request.clone(), impatient(), tokio::io::sink(), CancellationToken::new()));
    let journal = synced.dir.path().join("outputs/uploads.json");
    let acknowledged = || {
        let journal: Option<Value> = serde_json::from_slice(&std::fs::read(&journal).unwrap_or_default()).ok();
        journal.and_then(|uploads| uploads.as_object()?.values().next()?["offset"].as_u64()).unwrap_or(0)
    };
    for _ in 0..600 {
        if acknowledged() >= 32 << 20 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let there = acknowledged();
    assert!(there >= 32 << 20, "{there}");
    killed.abort();
    assert!(killed.await.is_err_and(|error| error.is_cancelled()));

    let (exit, messages) = agent(request, impatient()).await;
    assert_eq!(exit, 0, "{:?}", errors(&messages));
    let (large, size) = source.release().largest();
    let asked: Vec<String> = source
        .server
        .seen()
        .iter()
        .filter(|parts| parts.uri.path().ends_with(&large))
        .map(|parts| word(parts, header::RANGE))
        .collect();
    assert_eq!(asked, [String::new(), format!("bytes={there}-")]);
    assert!(moved(&messages) <= source.release().bytes() - there);
    assert!(size > 64 << 20);
    synced.store();
    assert_eq!(acknowledged(), 0, "a finished upload is forgotten");
}

/// The program itself, as people start it.
fn mirror(world: &World, more: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_bartizan"))
        .arg("--state")
        .arg(world.dir.path().join("state"))
        .args(["mirror", "--release", &world.release.pull_spec])
        .args(["--to", &format!("{}/ocp", world.mirror.host()), "--authfile"])
        .arg(world.authfile())
        .arg("--source-ca")
        .arg(world.source.ca_file())
        .arg("--mirror-ca")
        .arg(world.mirror.ca_file())
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_ten_points_it_reads_nothing_twice_but_what_was_in_flight() {
    let world = World::new(&Recipe { each: 500_000, ..Recipe::default() });
    let (_, largest) = world.release.largest();
    // Every process reads the manifests and the payload's layer; a job and two lanes for small blobs are in flight.
    let (planning, in_flight) = (200_000, 3 * largest);
    let mut kills = 0;
    while kills < 10 {
        let (read, begin) = (world.source.access().1, bytes(&world.mirror));
        let enough = begin + fastrand::u64(1..1_000_000);
        let mut child = mirror(&world, &["--jobs", "1", "--json"]);
        while bytes(&world.mirror) < enough && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        if child.wait().unwrap().signal() != Some(9) {
            break;
        }
        kills += 1;
        // The registries end what they were doing.
        std::thread::sleep(Duration::from_millis(300));
        let (read, written) = (world.source.access().1 - read, bytes(&world.mirror) - begin);
        assert!(read <= written + in_flight + planning, "{read} bytes were read and only {written} written");
    }
    assert!(kills >= 5, "only {kills} were still at work");
    let (read, missing) = (world.source.access().1, world.release.bytes().saturating_sub(bytes(&world.mirror)));
    let output = mirror(&world, &["--jobs", "4", "--json"]).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let read = world.source.access().1 - read;
    assert!(read <= missing + planning, "{read} bytes were read, {missing} were missing");
    for digest in world.release.components.values().chain([&world.release.digest]) {
        let raw = world.skopeo(&format!("ocp@{digest}")).unwrap_or_else(|| panic!("{digest} is missing"));
        assert_eq!(digest::of(&raw), *digest);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_alone_mirrors_more_images_and_mapping_files_byte_by_byte() {
    let world = World::new(&Recipe::default());
    let (source, mirror_host) = (world.source.host(), world.mirror.host());
    let [etcd, cli] =
        ["etcd", "cli"].map(|name| format!("{source}/{COMPONENT_REPO}@{}", world.release.components[name]));
    let mapping = world.dir.path().join("mapping.txt");
    std::fs::write(
        &mapping,
        format!("# two places\n{cli}={mirror_host}/tools/cli:1\n{cli} {mirror_host}/tools/again:2\n"),
    )
    .unwrap();
    let more = ["--plain", "--image", &etcd, "--mapping", mapping.to_str().unwrap()];
    let said = |more: &[&str]| {
        let output = mirror(&world, more).wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };

    let (exit, text) = said(&[&more[..], &["--dry-run"]].concat());
    assert_eq!(exit, Some(0), "{text}");
    let planned = format!("{0} bytes; 0 bytes are there, {0} bytes to move", world.release.bytes());
    assert!(text.contains(&planned), "{text}");
    assert_eq!(stored(&world.mirror).len(), 0, "a dry run writes nothing");

    let (exit, text) = said(&more);
    assert_eq!(exit, Some(0), "{text}");
    assert!(text.contains(&format!("done: {} bytes moved", world.release.bytes())), "{text}");
    for (repo, reference, expected) in world.release.manifests() {
        let mark = if reference.starts_with("sha256:") { '@' } else { ':' };
        let raw =
            world.skopeo(&format!("ocp{mark}{reference}")).unwrap_or_else(|| panic!("{repo} {reference} is missing"));
        assert!(raw == expected, "{repo} {reference} has other bytes");
    }
    for place in ["tools/cli:1", "tools/again:2"] {
        assert_eq!(digest::of(&world.skopeo(place).unwrap()), world.release.components["cli"]);
    }
    assert!(world.skopeo(&format!("{COMPONENT_REPO}@{}", world.release.components["etcd"])).is_some());

    let (exit, text) = said(&["--plain", "--subset", "core-21"]);
    assert!(exit == Some(0) && text.contains("cannot boot a cluster") && text.contains(" 0 bytes to move"), "{text}");
    let (exit, _) = said(&["--mapping", "/nowhere"]);
    assert_eq!(exit, Some(2));
}
