//! A real registry and a release payload, for every test that needs one.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bartizan::registry::digest;
use bartizan::registry::plan::core_21;
use base64::Engine as _;
use serde_json::{Value, json};

pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const RELEASE_REPO: &str = "openshift-release-dev/ocp-release";
pub const COMPONENT_REPO: &str = "openshift-release-dev/ocp-v4.0-art-dev";

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
        self.issue_until(names, 2100)
    }

    /// The same, good until the beginning of a year.
    pub fn issue_until(&self, names: &[&str], year: i32) -> (String, String) {
        let names = names.iter().copied().chain(["localhost", "127.0.0.1"]).map(str::to_owned);
        let mut params = rcgen::CertificateParams::new(names.collect::<Vec<_>>()).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
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
        Self::start_with(names, "")
    }

    /// With more of a configuration file.
    pub fn start_with(names: &[&str], more: &str) -> Self {
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
            let port = crate::ports::free_port();
            let mut child = Self::spawn(dir.path(), port, more);
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

    fn spawn(dir: &Path, port: u16, more: &str) -> Child {
        let here = dir.display();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {here}/data}}\n  delete: {{enabled: true}}\n\
             http:\n  addr: 127.0.0.1:{port}\n  secret: not-a-secret\n  tls: {{certificate: {here}/cert.pem, key: {here}/key.pem}}\n\
             auth:\n  htpasswd: {{realm: test, path: {here}/htpasswd}}\n{more}"
        );
        std::fs::write(dir.join("config.yml"), config).unwrap();
        let mut command = Command::new("docker-registry");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("REGISTRY_") {
                command.env_remove(name);
            }
        }
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let access = std::fs::File::create(dir.join("access.log")).unwrap();
        command.arg("serve").arg(dir.join("config.yml")).stdin(Stdio::null()).stdout(access).stderr(log);
        command.spawn().expect("docker-registry (Debian package docker-registry)")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// It is out of reach from now on.
    pub fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
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

    /// Requests answered so far, and bytes of all their bodies: what its own access log says.
    pub fn access(&self) -> (usize, u64) {
        let log = std::fs::read_to_string(self.dir.path().join("access.log")).unwrap();
        // `127.0.0.1 - - [date] "GET /v2/… HTTP/1.1" 200 1234 "" "agent"`
        let bytes =
            log.lines().filter_map(|line| line.split('"').nth(2)?.split_whitespace().nth(1)?.parse::<u64>().ok());
        bytes.fold((0, 0), |(count, sum), bytes| (count + 1, sum + bytes))
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
    /// Bytes of each image's own layer, about.
    pub each: usize,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            version: "4.18.12",
            more: &["pod", "cluster-bootstrap", "rhel-coreos", "cluster-policy-controller"],
            large: 0,
            each: 20_000,
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
            let own = if name == "rhel-coreos" && recipe.large > 0 { recipe.large } else { recipe.each + at * 3_000 };
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

    /// Repository in the source, tag or digest, and bytes of every manifest, list and signature.
    pub fn manifests(&self) -> impl Iterator<Item = (&str, &str, &[u8])> {
        self.manifests
            .iter()
            .map(|(repo, tag, digest)| (repo.as_str(), tag.as_deref().unwrap_or(digest), self.blobs[digest].as_slice()))
    }

    /// Of its largest blob.
    pub fn largest(&self) -> (String, u64) {
        let sizes = self.blobs.iter().map(|(digest, blob)| (digest.clone(), blob.len() as u64));
        sizes.max_by_key(|(_, size)| *size).unwrap()
    }

    /// What a registry that has it answers to `GET path`: a content type and the content.
    pub fn get(&self, path: &str) -> Option<(&'static str, &[u8])> {
        let (place, reference) = path.strip_prefix("/v2/")?.rsplit_once('/')?;
        if place.ends_with("/blobs") {
            return Some(("application/octet-stream", self.blobs.get(reference)?));
        }
        let repo = place.strip_suffix("/manifests")?;
        let (_, _, digest) = self.manifests.iter().find(|(in_repo, tag, digest)| {
            in_repo == repo && (digest == reference || tag.as_deref() == Some(reference))
        })?;
        let content = self.blobs.get(digest)?;
        let document: Value = serde_json::from_slice(content).unwrap();
        let kinds = [DOCKER_MANIFEST, OCI_MANIFEST, OCI_INDEX];
        Some((kinds.into_iter().find(|kind| document["mediaType"] == *kind)?, content))
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

/// Where a registry keeps a manifest; without it the digest is gone.
pub fn revision(registry: &DockerRegistry, repo: &str, digest: &str) -> PathBuf {
    let revisions = registry.storage().join("repositories").join(repo).join("_manifests/revisions/sha256");
    revisions.join(digest.trim_start_matches("sha256:"))
}

/// Bytes that nothing can compress.
pub fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::new().fill(&mut bytes);
    bytes
}
