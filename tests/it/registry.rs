//! Registries: a real `docker-registry` on both sides, `skopeo` as the judge, and a server that misbehaves on purpose.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should say where")]

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bartizan::model::event::{ImageState, SyncEvent};
use bartizan::registry::agent::{Action, Ended, Line, Message, Request, run};
use bartizan::registry::auth::{Challenge, Credentials, Token};
use bartizan::registry::client::{Client, Net, Repo, Retry};
use bartizan::registry::digest;
use bartizan::registry::error::{RegistryError, Side};
use bartizan::registry::manifest::Manifest;
use bartizan::registry::plan::core_21;
use bartizan::registry::release::{PullSpec, parse_image_references};
use bartizan::spec::{Secret, Subset};
use base64::Engine as _;
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio_util::sync::CancellationToken;

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const RELEASE_REPO: &str = "openshift-release-dev/ocp-release";
const COMPONENT_REPO: &str = "openshift-release-dev/ocp-v4.0-art-dev";

/// A certificate authority for one test.
pub struct Ca {
    pub pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Ca {
    pub fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "bartizan test CA");
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::DigitalSignature];
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: rcgen::Issuer::new(params, key) }
    }

    /// Certificate and key, PEM, for these names besides `localhost` and `127.0.0.1`.
    pub fn issue(&self, names: &[&str]) -> (String, String) {
        let names = names.iter().copied().chain(["localhost", "127.0.0.1"]).map(str::to_owned);
        let params = rcgen::CertificateParams::new(names.collect::<Vec<_>>()).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// Debian's `docker-registry` on a loopback port, with TLS and htpasswd. It ends with the value.
pub struct DockerRegistry {
    pub port: u16,
    pub ca: Ca,
    pub user: String,
    pub password: String,
    dir: tempfile::TempDir,
    child: Child,
}

impl DockerRegistry {
    /// `names`: what its certificate is for besides `localhost` and `127.0.0.1`.
    pub fn start(names: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::new();
        let (certificate, key) = ca.issue(names);
        let (user, password) = ("bartizan".to_owned(), format!("password-{:016x}", fastrand::u64(..)));
        let hash = bcrypt::hash(&password, 4).unwrap();
        std::fs::write(dir.path().join("cert.pem"), certificate).unwrap();
        std::fs::write(dir.path().join("key.pem"), key).unwrap();
        std::fs::write(dir.path().join("ca.crt"), &ca.pem).unwrap();
        std::fs::write(dir.path().join("htpasswd"), format!("{user}:{hash}\n")).unwrap();
        for _ in 0..5 {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            drop(listener);
            let mut child = Self::spawn(dir.path(), port);
            for _ in 0..200 {
                if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Self { port, ca, user, password, dir, child };
                }
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            let _already_gone = child.kill();
            child.wait().unwrap();
        }
        panic!("docker-registry did not start; is the Debian package docker-registry installed?");
    }

    fn spawn(dir: &Path, port: u16) -> Child {
        let here = dir.display();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {here}/data}}\n  delete: {{enabled: true}}\n\
             http:\n  addr: 127.0.0.1:{port}\n  secret: not-a-secret\n  tls: {{certificate: {here}/cert.pem, key: {here}/key.pem}}\n\
             auth:\n  htpasswd: {{realm: test, path: {here}/htpasswd}}\n"
        );
        std::fs::write(dir.join("config.yml"), config).unwrap();
        let mut command = Command::new("docker-registry");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("REGISTRY_") {
                command.env_remove(name);
            }
        }
        let log = std::fs::File::create(dir.join("log")).unwrap();
        command.arg("serve").arg(dir.join("config.yml")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().expect("docker-registry (Debian package docker-registry)")
    }

    /// `127.0.0.1:port`
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Directory of `docker/registry/v2`.
    pub fn storage(&self) -> PathBuf {
        self.dir.path().join("data/docker/registry/v2")
    }

    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// Its entry for an `auth.json`.
    pub fn auth(&self) -> Value {
        let pair = format!("{}:{}", self.user, self.password);
        json!({"auth": base64::engine::general_purpose::STANDARD.encode(pair)})
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_gone = self.child.wait();
    }
}

/// A release payload of the true structure.
pub struct SyntheticRelease {
    pub version: String,
    /// `registry/repository:tag`
    pub pull_spec: String,
    pub digest: String,
    /// Digest of every component, by name.
    pub components: BTreeMap<String, String>,
    blobs: HashMap<String, Vec<u8>>,
    /// Repository, tag when it has one, digest.
    manifests: Vec<(String, Option<String>, String)>,
}

/// What to build.
pub struct Recipe {
    pub version: &'static str,
    /// Besides the 21 core ones.
    pub more: &'static [&'static str],
    /// Bytes of one large layer, in `rhel-coreos`; 0 for none.
    pub large: usize,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            version: "4.18.12",
            more: &["pod", "cluster-bootstrap", "rhel-coreos", "cluster-policy-controller"],
            large: 0,
        }
    }
}

impl SyntheticRelease {
    /// Images whose pull specs are at `registry` (`host:port`). The component `pod` is a list of two images, `cli` and
    /// the release itself are signed, two components are the same image.
    pub fn build(registry: &str, recipe: &Recipe) -> Self {
        let mut release = Self {
            version: recipe.version.to_owned(),
            pull_spec: format!("{registry}/{RELEASE_REPO}:{}-x86_64", recipe.version),
            digest: String::new(),
            components: BTreeMap::new(),
            blobs: HashMap::new(),
            manifests: Vec::new(),
        };
        let base = release.layer(&[("etc/os-release", &noise(900_000))]);
        let middle: Vec<_> = (0..3).map(|_| release.layer(&[("usr/lib/common", &noise(200_000))])).collect();
        let names = core_21().chain(recipe.more.iter().copied());
        for (at, name) in names.enumerate() {
            if name == "oauth-server" {
                release.components.insert(name.to_owned(), release.components["oauth-proxy"].clone());
                continue;
            }
            let own = if name == "rhel-coreos" && recipe.large > 0 { recipe.large } else { 20_000 + at * 3_000 };
            let layers = [base.clone(), middle[at % 3].clone(), release.layer(&[("usr/bin/it", &noise(own))])];
            let kind = if at % 2 == 0 { DOCKER_MANIFEST } else { OCI_MANIFEST };
            let digest = match name {
                "pod" => {
                    let children = ["amd64", "arm64"].map(|arch| {
                        let digest = release.image(COMPONENT_REPO, None, OCI_MANIFEST, arch, &layers);
                        let size = release.blobs[&digest].len();
                        json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": size,
                               "platform": {"os": "linux", "architecture": arch}})
                    });
                    let list = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children});
                    release.manifest(COMPONENT_REPO, None, &list)
                }
                _ => release.image(COMPONENT_REPO, None, kind, "amd64", &layers),
            };
            release.components.insert(name.to_owned(), digest);
        }
        let tags: Vec<Value> = release
            .components
            .iter()
            .map(|(name, digest)| {
                json!({"name": name, "annotations": {"io.openshift.build.versions": ""},
                       "from": {"kind": "DockerImage", "name": format!("{registry}/{COMPONENT_REPO}@{digest}")},
                       "generation": null, "importPolicy": {}, "referencePolicy": {"type": "Source"}})
            })
            .collect();
        let references = json!({"kind": "ImageStream", "apiVersion": "image.openshift.io/v1",
            "metadata": {"name": recipe.version, "creationTimestamp": "2025-04-01T00:00:00Z"},
            "spec": {"lookupPolicy": {"local": false}, "tags": tags}, "status": {"dockerImageRepository": ""}});
        let metadata = json!({"kind": "cincinnati-metadata-v0", "version": recipe.version, "previous": []});
        let manifests = release.layer(&[
            ("release-manifests/0000_00_cvo.yaml", b"kind: Namespace\n"),
            ("release-manifests/image-references", references.to_string().as_bytes()),
            ("release-manifests/release-metadata", metadata.to_string().as_bytes()),
        ]);
        let tag = format!("{}-x86_64", recipe.version);
        release.digest = release.image(RELEASE_REPO, Some(&tag), DOCKER_MANIFEST, "amd64", &[base, manifests]);
        for (repo, digest) in
            [(RELEASE_REPO, release.digest.clone()), (COMPONENT_REPO, release.components["cli"].clone())]
        {
            let signature = release.layer(&[("signature", digest.as_bytes())]);
            let tag = format!("{}.sig", digest.replace(':', "-"));
            release.image(repo, Some(&tag), OCI_MANIFEST, "amd64", &[signature]);
        }
        release
    }

    /// Bytes of all blobs that are no manifests.
    pub fn bytes(&self) -> u64 {
        self.blobs.iter().filter(|(digest, _)| !self.is_manifest(digest)).map(|(_, blob)| blob.len() as u64).sum()
    }

    fn is_manifest(&self, digest: &str) -> bool {
        self.manifests.iter().any(|(_, _, manifest)| manifest == digest)
    }

    /// Put it into a registry by writing its files, so that no client is needed.
    pub fn install(&self, registry: &DockerRegistry) {
        let root = registry.storage();
        let link = |path: PathBuf, digest: &str| {
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("link"), digest).unwrap();
        };
        for (digest, blob) in &self.blobs {
            let hex = digest.trim_start_matches("sha256:");
            let path = root.join("blobs/sha256").join(&hex[..2]).join(hex);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("data"), blob).unwrap();
            // A manifest with such a link would be found even without its revision.
            if self.is_manifest(digest) {
                continue;
            }
            for repo in [RELEASE_REPO, COMPONENT_REPO] {
                link(root.join("repositories").join(repo).join("_layers/sha256").join(hex), digest);
            }
        }
        for (repo, tag, digest) in &self.manifests {
            link(revision(registry, repo, digest), digest);
            if let Some(tag) = tag {
                let tag = root.join("repositories").join(repo).join("_manifests/tags").join(tag);
                link(tag.join("current"), digest);
                link(tag.join("index/sha256").join(digest.trim_start_matches("sha256:")), digest);
            }
        }
    }

    fn blob(&mut self, content: Vec<u8>) -> String {
        let digest = digest::of(&content);
        self.blobs.insert(digest.clone(), content);
        digest
    }

    fn layer(&mut self, files: &[(&str, &[u8])]) -> (String, usize) {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, path, *content).unwrap();
        }
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        gzip.write_all(&archive.into_inner().unwrap()).unwrap();
        let content = gzip.finish().unwrap();
        let size = content.len();
        (self.blob(content), size)
    }

    fn image(&mut self, repo: &str, tag: Option<&str>, kind: &str, arch: &str, layers: &[(String, usize)]) -> String {
        let config = json!({"architecture": arch, "os": "linux", "config": {"Labels": {"io.openshift.release": self.version}},
                            "rootfs": {"type": "layers", "diff_ids": []}, "history": [], "of": layers});
        let config = config.to_string().into_bytes();
        let (config_type, layer_type) = if kind == DOCKER_MANIFEST {
            ("application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip")
        } else {
            ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip")
        };
        let size = config.len();
        let config = json!({"mediaType": config_type, "digest": self.blob(config), "size": size});
        let layers: Vec<Value> = layers
            .iter()
            .map(|(digest, size)| json!({"mediaType": layer_type, "digest": digest, "size": size}))
            .collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers});
        self.manifest(repo, tag, &manifest)
    }

    fn manifest(&mut self, repo: &str, tag: Option<&str>, manifest: &Value) -> String {
        // Written with indentation: who re-serialises it changes the digest.
        let digest = self.blob(serde_json::to_vec_pretty(manifest).unwrap());
        self.manifests.push((repo.to_owned(), tag.map(str::to_owned), digest.clone()));
        digest
    }
}

fn revision(registry: &DockerRegistry, repo: &str, digest: &str) -> PathBuf {
    let revisions = registry.storage().join("repositories").join(repo).join("_manifests/revisions/sha256");
    revisions.join(digest.trim_start_matches("sha256:"))
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::new().fill(&mut bytes);
    bytes
}

/// Two registries, a release in one of them, and an auth file for both.
struct World {
    source: DockerRegistry,
    mirror: DockerRegistry,
    release: SyntheticRelease,
    dir: tempfile::TempDir,
}

impl World {
    fn new(recipe: &Recipe) -> Self {
        let (source, mirror) = (DockerRegistry::start(&[]), DockerRegistry::start(&["mirror.lab.test"]));
        let release = SyntheticRelease::build(&source.host(), recipe);
        release.install(&source);
        let world = Self { source, mirror, release, dir: tempfile::tempdir().unwrap() };
        world.write_auth(&world.mirror.host(), world.mirror.auth());
        world
    }

    fn authfile(&self) -> PathBuf {
        self.dir.path().join("auth.json")
    }

    fn write_auth(&self, mirror: &str, auth: Value) {
        use std::os::unix::fs::PermissionsExt as _;
        let auths = json!({"auths": {self.source.host(): self.source.auth(), mirror: auth}});
        std::fs::write(self.authfile(), auths.to_string()).unwrap();
        std::fs::set_permissions(self.authfile(), std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn request(&self, action: Action) -> Request {
        Request {
            action,
            source: self.release.pull_spec.clone(),
            arch: "x86_64".into(),
            mirror: self.mirror.host(),
            release_repository: "openshift/release-images".into(),
            component_repository: "openshift/release".into(),
            release_tag: None,
            authfile: self.authfile(),
            source_ca: vec![self.source.ca_file()],
            mirror_ca: vec![self.mirror.ca_file()],
            jobs: 4,
            subset: Subset::All,
            additional: Vec::new(),
            only: None,
            outputs: None,
        }
    }

    /// Repository in the mirror and digest of everything that must be there.
    fn expected(&self) -> Vec<(String, String)> {
        let components =
            self.release.components.values().map(|digest| ("openshift/release".to_owned(), digest.clone()));
        let release = ("openshift/release-images".to_owned(), self.release.digest.clone());
        components.chain([release]).collect()
    }

    /// `skopeo inspect --raw` in the mirror.
    fn skopeo(&self, reference: &str) -> Option<Vec<u8>> {
        let output = Command::new("skopeo")
            .args(["inspect", "--raw", "--authfile"])
            .arg(self.authfile())
            .arg("--cert-dir")
            .arg(self.mirror.ca_file().parent().unwrap())
            .arg(format!("docker://{}/{reference}", self.mirror.host()))
            .output()
            .expect("skopeo (Debian package skopeo)");
        output.status.success().then_some(output.stdout)
    }
}

fn impatient() -> Net {
    let retry = Retry { times: 3, first: Duration::from_millis(20), longest: Duration::from_millis(100) };
    Net { retry, ..Net::default() }
}

async fn agent(request: Request, net: Net) -> (u8, Vec<Message>) {
    let mut out = Vec::new();
    let exit = run(request, net, &mut out, CancellationToken::new()).await;
    let text = String::from_utf8(out).unwrap();
    let messages: Vec<Message> =
        text.lines().map(|line| serde_json::from_str::<Line>(line).expect(line).message).collect();
    assert!(matches!(messages.last(), Some(Message::Done { exit: said, .. }) if *said == exit), "{text}");
    (exit, messages)
}

fn last_states(messages: &[Message]) -> BTreeMap<String, ImageState> {
    let states = messages.iter().filter_map(|message| match message {
        Message::Sync(SyncEvent::ImageState { image, state, .. }) => Some((image.clone(), state.clone())),
        _ => None,
    });
    states.collect()
}

fn errors(messages: &[Message]) -> Vec<(String, String, String)> {
    let errors = messages.iter().filter_map(|message| match message {
        Message::Error { side, class, why, .. } => Some((side.clone(), class.clone(), why.clone())),
        _ => None,
    });
    errors.collect()
}

fn moved(messages: &[Message]) -> u64 {
    match messages.last() {
        Some(Message::Done { moved, .. }) => *moved,
        _ => panic!("no last line"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_is_mirrored_by_digest_and_proven_and_mended() {
    // One layer is large enough to go in chunks.
    let world = World::new(&Recipe { large: 70 << 20, ..Recipe::default() });
    let outputs = world.dir.path().join("outputs");
    let request = Request { outputs: Some(outputs.clone()), ..world.request(Action::Sync) };
    let (exit, messages) = agent(request, impatient()).await;
    assert_eq!(exit, 0, "{:?}", errors(&messages));

    let planned = messages.iter().find_map(|message| match message {
        Message::Sync(SyncEvent::Planned { images, bytes, present_bytes, .. }) => {
            Some((images.len(), *bytes, *present_bytes))
        }
        _ => None,
    });
    assert_eq!(planned, Some((world.release.components.len() + 1, world.release.bytes(), 0)));
    assert_eq!(moved(&messages), world.release.bytes(), "each blob moves once");
    assert!(matches!(messages.last(), Some(Message::Done { mounted_blobs: 1, .. })), "the base layer is mounted");
    for (image, state) in last_states(&messages) {
        assert!(matches!(state, ImageState::Done | ImageState::Mounted), "{image}: {state:?}");
    }
    for (repo, digest) in world.expected() {
        let raw = world.skopeo(&format!("{repo}@{digest}")).unwrap_or_else(|| panic!("{repo}@{digest} is missing"));
        assert_eq!(digest::of(&raw), digest);
    }
    let tagged = world.skopeo("openshift/release-images:4.18.12-x86_64").expect("the release has its tag");
    assert_eq!(digest::of(&tagged), world.release.digest);
    let signature = world.release.components["cli"].replace(':', "-");
    assert!(world.skopeo(&format!("openshift/release:{signature}.sig")).is_some(), "signatures are mirrored");

    let mapping = std::fs::read_to_string(outputs.join("mapping.txt")).unwrap();
    assert_eq!(mapping.lines().count(), world.release.components.len() + 1);
    let idms: Value = yaml_serde::from_str(&std::fs::read_to_string(outputs.join("idms.yaml")).unwrap()).unwrap();
    let pair = &idms["spec"]["imageDigestMirrors"][1];
    assert_eq!(pair["source"], format!("{}/{COMPONENT_REPO}", world.source.host()));
    assert_eq!(pair["mirrors"][0], format!("{}/openshift/release", world.mirror.host()));

    // Again: everything is there.
    let (exit, messages) = agent(world.request(Action::Sync), impatient()).await;
    assert_eq!((exit, moved(&messages)), (0, 0));
    assert!(last_states(&messages).values().all(|state| *state == ImageState::Present));

    // A digest vanishes from the mirror: the proof says which, and a sync of that one mends it.
    let etcd = &world.release.components["etcd"];
    std::fs::remove_dir_all(revision(&world.mirror, "openshift/release", etcd)).unwrap();
    let (exit, messages) = agent(world.request(Action::Prove), impatient()).await;
    assert_eq!(exit, 9);
    let missing = messages.iter().find_map(|message| match message {
        Message::Sync(SyncEvent::Proven { missing, .. }) => Some(missing.clone()),
        _ => None,
    });
    assert_eq!(missing, Some(vec![format!("etcd: {}/openshift/release@{etcd}", world.mirror.host())]));
    let only = Some(vec!["etcd".to_owned()]);
    let (exit, messages) = agent(Request { only, ..world.request(Action::OneImage) }, impatient()).await;
    assert_eq!(exit, 0, "{:?}", errors(&messages));
    let (exit, _) = agent(world.request(Action::Prove), impatient()).await;
    assert_eq!(exit, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_was_killed_goes_on_where_it_was() {
    let world = World::new(&Recipe::default());
    let request = Request { jobs: 1, ..world.request(Action::Sync) };
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let killed = tokio::spawn(run(request, impatient(), theirs, CancellationToken::new()));
    let mut lines = BufReader::new(ours).lines();
    let mut done = 0;
    while let Some(line) = lines.next_line().await.unwrap() {
        done += usize::from(line.contains(r#""is":"done""#));
        if done == 3 {
            break;
        }
    }
    killed.abort();
    assert!(killed.await.is_err_and(|error| error.is_cancelled()), "it was still at work");

    let (exit, messages) = agent(world.request(Action::Sync), impatient()).await;
    assert_eq!(exit, 0, "{:?}", errors(&messages));
    assert!(moved(&messages) > 0 && moved(&messages) < world.release.bytes());
    assert!(last_states(&messages).values().any(|state| *state == ImageState::Present));
    for (repo, digest) in world.expected() {
        assert!(world.skopeo(&format!("{repo}@{digest}")).is_some(), "{repo}@{digest} is missing");
    }

    // Cancelled politely, it says so.
    let cancel = CancellationToken::new();
    cancel.cancel();
    let mut out = Vec::new();
    assert_eq!(run(world.request(Action::Sync), impatient(), &mut out, cancel).await, 9);
    let last: Line = serde_json::from_str(String::from_utf8(out).unwrap().lines().last().unwrap()).unwrap();
    assert!(matches!(last.message, Message::Done { outcome: Ended::Cancelled, .. }), "{last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_the_source_lacks_does_not_stop_the_others() {
    let world = World::new(&Recipe::default());
    let etcd = world.release.components["etcd"].clone();
    let hidden = revision(&world.source, COMPONENT_REPO, &etcd);
    std::fs::rename(&hidden, world.dir.path().join("hidden")).unwrap();

    let (exit, messages) = agent(world.request(Action::Sync), impatient()).await;
    assert_eq!(exit, 9);
    let found = errors(&messages);
    assert_eq!(found.len(), 1, "{found:?}");
    let (side, class, why) = &found[0];
    assert_eq!((side.as_str(), class.as_str()), ("source", "manifest-unknown"));
    assert!(why.contains("manifest unknown") && why.contains(&etcd), "{why}");
    for (image, state) in last_states(&messages) {
        match image.as_str() {
            "etcd" => assert!(matches!(state, ImageState::Failed { .. }), "{state:?}"),
            _ => assert!(matches!(state, ImageState::Done | ImageState::Mounted), "{image}: {state:?}"),
        }
    }
    let digest = &world.release.digest;
    assert!(world.skopeo(&format!("openshift/release-images@{digest}")).is_some());
    assert!(
        world.skopeo("openshift/release-images:4.18.12-x86_64").is_none(),
        "an incomplete mirror has no release tag"
    );

    std::fs::rename(world.dir.path().join("hidden"), &hidden).unwrap();
    let only = Some(vec![etcd]);
    let (exit, messages) = agent(Request { only, ..world.request(Action::OneImage) }, impatient()).await;
    assert_eq!(exit, 0, "{:?}", errors(&messages));
    assert!(world.skopeo("openshift/release-images:4.18.12-x86_64").is_some(), "now it is complete");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_the_mirror_is_told_by_class() {
    let world = World::new(&Recipe { more: &[], ..Recipe::default() });
    let first = |messages: &[Message]| errors(messages).into_iter().next().expect("an error");

    let wrong = Request { mirror_ca: vec![world.source.ca_file()], ..world.request(Action::Sync) };
    let (exit, messages) = agent(wrong, impatient()).await;
    let (side, class, why) = first(&messages);
    assert_eq!((exit, side.as_str(), class.as_str()), (9, "mirror", "ca"), "{why}");
    assert!(why.contains("certificate"), "{why}");

    // The name is not in the certificate.
    let net = |name: &str| {
        let there = ([127, 0, 0, 1], world.mirror.port).into();
        Net { resolve: vec![(name.to_owned(), there)], ..impatient() }
    };
    let mirror = "other.lab.test:5000".to_owned();
    let (_, messages) = agent(Request { mirror, ..world.request(Action::Plan) }, net("other.lab.test:5000")).await;
    assert_eq!(first(&messages).1, "name");

    // The name is right, and really somewhere else.
    let mirror = "mirror.lab.test:5000".to_owned();
    world.write_auth(&mirror, world.mirror.auth());
    let core = Request { mirror, subset: Subset::Core21, ..world.request(Action::Sync) };
    let (exit, messages) = agent(core, net("mirror.lab.test:5000")).await;
    assert_eq!(exit, 0, "{:?}", errors(&messages));

    world.write_auth(&world.mirror.host(), json!({"username": "bartizan", "password": "wrong-password"}));
    let (exit, messages) = agent(world.request(Action::Sync), impatient()).await;
    let (side, class, why) = first(&messages);
    assert_eq!((exit, side.as_str(), class.as_str()), (9, "mirror", "auth"), "{why}");
    assert!(!why.contains("wrong-password"));

    let request = Request { mirror: "127.0.0.1:1".into(), ..world.request(Action::Prove) };
    let (_, messages) = agent(request, impatient()).await;
    assert_eq!(first(&messages).1, "refused");

    std::fs::set_permissions(world.authfile(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let (_, messages) = agent(world.request(Action::Prove), impatient()).await;
    assert!(first(&messages).2.contains("expected 0600"));
}

#[test]
fn the_core_21_are_21() {
    let names: std::collections::BTreeSet<&str> = core_21().collect();
    assert_eq!((names.len(), core_21().count()), (21, 21));
}

#[cfg(feature = "lab")]
mod faults {
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

    use super::*;

    type Answer = Response<Body>;

    /// A server whose every answer is made up by a test. It ends with the value.
    struct Server {
        port: u16,
        seen: Arc<Mutex<Vec<Parts>>>,
        handle: axum_server::Handle<std::net::SocketAddr>,
    }

    impl Server {
        fn start(ca: &Ca, answer: impl Fn(&Parts, u16) -> Answer + Send + Sync + 'static) -> Self {
            let _same = rustls::crypto::ring::default_provider().install_default();
            let (certificate, key) = ca.issue(&[]);
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

        fn host(&self) -> String {
            format!("127.0.0.1:{}", self.port)
        }

        fn seen(&self) -> Vec<Parts> {
            self.seen.lock().unwrap().clone()
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.handle.shutdown();
        }
    }

    fn answer(status: u16, headers: &[(header::HeaderName, &str)], body: impl Into<Body>) -> Answer {
        let mut response = Response::new(body.into());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in headers {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        response
    }

    /// `Content-Length` says all, the connection ends after `sent`.
    fn truncated(status: u16, headers: &[(header::HeaderName, &str)], all: &[u8], sent: usize) -> Answer {
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

    fn word(parts: &Parts, name: header::HeaderName) -> String {
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
        let full = Server::start(&world.mirror.ca, |parts, _| match parts.method.as_str() {
            "GET" => answer(200, &[], "{}"),
            "HEAD" => answer(404, &[], ""),
            "POST" => answer(202, &[(header::LOCATION, "/v2/x/blobs/uploads/1?_state=s")], ""),
            _ => {
                let body = json!({"errors": [{"code": "UNKNOWN", "message": "unknown error",
                    "detail": {"DriverName": "filesystem", "Enclosed": {"Op": "write", "Path": "/data", "Err": 28}}}]});
                answer(500, &[], body.to_string())
            }
        });
        let (exit, messages) = agent(Request { mirror: full.host(), ..world.request(Action::Sync) }, impatient()).await;
        assert_eq!(exit, 9);
        let found = errors(&messages);
        assert!(
            !found.is_empty() && found.iter().all(|(side, class, _)| side == "mirror" && class == "disk"),
            "{found:?}"
        );
        assert!(found[0].2.contains("no space left on device"), "{found:?}");
        let writes = full.seen().iter().filter(|parts| parts.method == "PUT").count();
        assert!(writes <= 6, "{writes} writes after the disk was full");
    }
}

/// Texts that are nearly right, or not at all.
fn malformed(valid: String) -> impl Strategy<Value = Vec<u8>> {
    let valid = valid.into_bytes();
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..6);
    let edited = edits.prop_map(move |edits| {
        let mut text = valid.clone();
        for (at, byte, how) in edits {
            let at = at.index(text.len().max(1));
            match how {
                0 if at < text.len() => text[at] = byte,
                1 if at < text.len() => drop(text.remove(at)),
                2 => text.insert(at, byte),
                _ => text.truncate(at),
            }
        }
        text
    });
    prop_oneof![8 => edited, 1 => prop::collection::vec(any::<u8>(), 0..200)]
}

fn valid_references() -> String {
    let digest = digest::of(b"x");
    json!({"kind": "ImageStream", "apiVersion": "image.openshift.io/v1", "metadata": {"name": "4.18.12"},
        "spec": {"tags": [
            {"name": "cli", "from": {"kind": "DockerImage", "name": format!("quay.io/a/b@{digest}")}},
            {"name": "etcd", "from": {"kind": "DockerImage", "name": format!("quay.io/a/b@{digest}")}}]}})
    .to_string()
}

fn valid_manifest(list: bool) -> String {
    let blob = json!({"mediaType": OCI_MANIFEST, "digest": digest::of(b"x"), "size": 7,
                      "platform": {"os": "linux", "architecture": "amd64"}});
    if list {
        json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [blob, blob]}).to_string()
    } else {
        json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": blob, "layers": [blob]}).to_string()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_image_references_are_read_or_refused_with_a_place(text in malformed(valid_references())) {
        match parse_image_references(&text) {
            Ok((version, components)) => {
                prop_assert!(!version.is_empty() && !components.is_empty());
                prop_assert!(components.iter().all(|component| digest::is_valid(&component.digest)));
            }
            Err(error) => prop_assert!(!error.place.is_empty() && !error.why.is_empty(), "{error}"),
        }
    }

    #[test]
    fn any_manifest_is_read_or_refused_with_a_place(
        (list, text) in any::<bool>().prop_flat_map(|list| (Just(list), malformed(valid_manifest(list)))),
        declared in any::<bool>(),
    ) {
        let kind = declared.then_some(if list { OCI_INDEX } else { OCI_MANIFEST });
        let found = digest::of(&text);
        if let Err(error) = Manifest::new(Bytes::from(text), kind, found.clone()).read() {
            prop_assert!(error.place.contains(&found) && !error.why.is_empty(), "{error}");
        }
    }

    #[test]
    fn any_answer_of_a_registry_is_understood_or_refused(
        status in 300..600_u16,
        body in malformed(r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#.into()),
        token in malformed(r#"{"token":"aaaa.bbbb.cccc","expires_in":300}"#.into()),
        challenge in ".{0,80}",
    ) {
        let error = RegistryError::status(Side::Source, "GET https://quay.io/v2/", status, None, &body);
        let text = error.to_string();
        prop_assert!(text.contains("source") && text.contains("quay.io") && text.contains(&status.to_string()), "{text}");
        prop_assert!(text.len() < 3000 && !text.chars().any(char::is_control), "{text:?}");
        if let Err(error) = Token::parse(&token, jiff::Timestamp::UNIX_EPOCH) {
            prop_assert!(error.place.starts_with("token answer"), "{error}");
        }
        let _none = Challenge::parse([challenge.as_str(), &format!("Bearer {challenge}")].into_iter());
    }

    #[test]
    fn any_auth_file_and_pull_spec_is_read_or_refused(
        auth in malformed(r#"{"auths":{"quay.io":{"auth":"YTphYWFhYWE="},"x":{"identitytoken":"tttttttt"}}}"#.into()),
        spec in malformed(format!("quay.io:443/a/b:4.18@{}", digest::of(b"x"))),
    ) {
        let text = String::from_utf8_lossy(&auth);
        if let Err(error) = Credentials::parse(&text) {
            prop_assert!(error.place.starts_with("auth file"), "{error}");
        }
        match PullSpec::parse(&String::from_utf8_lossy(&spec)) {
            Ok(spec) => prop_assert_eq!(PullSpec::parse(&spec.to_string()).unwrap(), spec),
            Err(error) => prop_assert!(error.place.starts_with("pull spec"), "{}", error),
        }
    }
}
