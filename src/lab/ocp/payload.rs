//! A synthetic release of the true structure: a release image that names its components by digest, and components
//! that share layers. Big layers are made on demand, byte by byte the same from the same seed, so nothing of the
//! payload is kept in memory or on disk but its descriptions.
//!
//! The structure is that of `oc adm release new`: openshift/oc `pkg/cli/admin/release`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{OcpError, credentials};

pub const RELEASE_REPOSITORY: &str = "openshift-release-dev/ocp-release";
pub const COMPONENT_REPOSITORY: &str = "openshift-release-dev/ocp-v4.0-art-dev";
pub const MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG_TYPE: &str = "application/vnd.docker.container.image.v1+json";
const LAYER_TYPE: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// Components by their names in the release, with their share of the filler. The first sixteen are those that
/// bootkube.sh looks up.
const COMPONENTS: &[(&str, u64)] = &[
    ("machine-config-operator", 9),
    ("etcd", 8),
    ("pod", 1),
    ("cluster-etcd-operator", 6),
    ("cluster-config-api", 3),
    ("cluster-config-operator", 4),
    ("cluster-kube-apiserver-operator", 6),
    ("cluster-kube-controller-manager-operator", 5),
    ("cluster-kube-scheduler-operator", 5),
    ("cluster-ingress-operator", 5),
    ("cluster-node-tuning-operator", 6),
    ("cluster-authentication-operator", 5),
    ("cloud-credential-operator", 7),
    ("hyperkube", 30),
    ("cluster-policy-controller", 5),
    ("cluster-bootstrap", 3),
    ("rhel-coreos", 60),
    ("cli", 12),
    ("installer", 26),
    ("cluster-version-operator", 5),
    ("cluster-network-operator", 6),
    ("ovn-kubernetes", 20),
    ("machine-api-operator", 6),
    ("prometheus", 14),
    ("haproxy-router", 8),
    ("coredns", 5),
    ("console", 12),
    ("oauth-server", 5),
    ("aws-cloud-controller-manager", 6),
    ("must-gather", 10),
];

/// Bytes of tar in one stored block of a layer: whole 512-byte tar records, and below the limit of deflate.
const BLOCK: usize = 65_024;
/// Different filler blocks; each is stamped with where it is, so that no two layers are alike.
const POOL: usize = 32;

pub struct Payload {
    pub version: String,
    pub arch: String,
    pub release: Image,
    /// By name in the release.
    pub components: Vec<Image>,
    blobs: BTreeMap<String, Body>,
    pool: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct Image {
    pub name: String,
    pub repository: &'static str,
    pub digest: String,
    pub manifest: Bytes,
}

#[derive(Debug, Clone)]
enum Body {
    Small(Bytes),
    Layer(Layer),
}

/// A tar.gz of one file, as stored deflate blocks.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Layer {
    seed: u64,
    path: String,
    blocks: u64,
    crc: u32,
    digest: String,
    diff_id: String,
}

impl Payload {
    /// `megabytes` of unique blobs, about. What costs time (hashing) is remembered in `cache`.
    pub fn make(version: &str, arch: &str, megabytes: u64, cache: Option<&Path>) -> Result<Self, OcpError> {
        let mut maker = Maker { known: cached(cache), pool: pool(), blobs: BTreeMap::new() };
        let total = megabytes.max(1) * 1_000_000;
        let base = maker.layer("base", total * 3 / 100);
        let middle = [maker.layer("rhel-9-a", total / 50), maker.layer("rhel-9-b", total / 50)];
        let own = total - total * 7 / 100;
        let weights: u64 = COMPONENTS.iter().map(|(_, weight)| weight).sum();
        let mut components = Vec::new();
        for (index, (name, weight)) in COMPONENTS.iter().enumerate() {
            let middle = if index % 2 == 0 { &middle[0] } else { &middle[1] };
            let layers = [base.clone(), middle.clone(), maker.layer(name, own * weight / weights)];
            let labels = json!({
                "io.openshift.build.commit.id": commit(name),
                "io.openshift.build.source-location": format!("https://github.com/openshift/{name}"),
                "io.openshift.release.operator": (name.starts_with("cluster-")).to_string(),
            });
            components.push(maker.image(name, COMPONENT_REPOSITORY, arch, &labels, &layers));
        }
        let references = references(version, &components);
        let mut files = vec![
            ("release-manifests/image-references".to_owned(), to_text(&references)),
            ("release-manifests/release-metadata".to_owned(), to_text(&metadata(version))),
        ];
        files.extend(
            credentials::REQUESTS.iter().map(|(name, text)| (format!("release-manifests/{name}"), (*text).to_owned())),
        );
        let manifests = maker.archive(&files)?;
        let labels = json!({ "io.openshift.release": version, "io.openshift.release.base-image-digest": base.digest });
        let release = maker.image("release", RELEASE_REPOSITORY, arch, &labels, &[base, manifests]);
        if let Some(cache) = cache {
            std::fs::write(cache, serde_json::to_vec(&maker.known)?).map_err(OcpError::file(cache))?;
        }
        Ok(Self {
            version: version.into(),
            arch: arch.into(),
            release,
            components,
            blobs: maker.blobs,
            pool: maker.pool,
        })
    }

    /// `4.18.12-x86_64`
    pub fn tag(&self) -> String {
        format!("{}-{}", self.version, self.arch)
    }

    pub fn images(&self) -> impl Iterator<Item = &Image> {
        self.components.iter().chain([&self.release])
    }

    pub fn component(&self, name: &str) -> Option<&Image> {
        self.images().find(|image| image.name == name)
    }

    pub fn pull_spec(image: &Image) -> String {
        format!("quay.io/{}@{}", image.repository, image.digest)
    }

    pub fn blob_size(&self, digest: &str) -> Option<u64> {
        self.blobs.get(digest).map(|body| match body {
            Body::Small(bytes) => bytes.len() as u64,
            Body::Layer(layer) => layer.size(),
        })
    }

    /// Of all unique blobs.
    pub fn bytes(&self) -> u64 {
        self.blobs.keys().filter_map(|digest| self.blob_size(digest)).sum()
    }

    pub fn blobs(&self) -> impl Iterator<Item = &str> {
        self.blobs.keys().map(String::as_str)
    }

    /// Up to 256 KiB of a blob from `offset`; `None` at its end or when there is no such blob.
    pub fn read(&self, digest: &str, offset: u64) -> Option<Bytes> {
        match self.blobs.get(digest)? {
            Body::Small(bytes) => {
                let from = usize::try_from(offset).ok()?;
                (from < bytes.len()).then(|| bytes.slice(from..))
            }
            Body::Layer(layer) => layer.read(&self.pool, offset, 4),
        }
    }

    /// The file `image-references` of the release image.
    pub fn image_references(&self) -> serde_json::Value {
        references(&self.version, &self.components)
    }
}

impl Layer {
    /// A gzip header, a block with the tar header, the filler, a block that ends the tar, and the checksum.
    fn size(&self) -> u64 {
        10 + (5 + 512) + self.blocks * (5 + BLOCK as u64) + (5 + 1024) + 8
    }

    fn tar_size(&self) -> u64 {
        512 + self.blocks * BLOCK as u64 + 1024
    }

    fn head(&self) -> Vec<u8> {
        let mut head = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
        stored(&mut head, &self.tar_header(), false);
        head
    }

    fn tar_header(&self) -> [u8; 512] {
        let mut header = tar::Header::new_gnu();
        // A path that does not fit is no path of ours.
        let _ = header.set_path(&self.path);
        header.set_size(self.blocks * BLOCK as u64);
        header.set_mode(0o755);
        header.set_cksum();
        *header.as_bytes()
    }

    fn filler(&self, pool: &[u8], block: u64) -> Vec<u8> {
        let place = (self.seed ^ block.wrapping_mul(0x9e37_79b9)) as usize % POOL;
        let mut filler = pool[place * BLOCK..(place + 1) * BLOCK].to_vec();
        filler[..8].copy_from_slice(&self.seed.to_le_bytes());
        filler[8..16].copy_from_slice(&block.to_le_bytes());
        filler
    }

    fn tail(&self) -> Vec<u8> {
        let mut tail = Vec::new();
        stored(&mut tail, &[0; 1024], true);
        tail.extend(self.crc.to_le_bytes());
        tail.extend((self.tar_size() as u32).to_le_bytes());
        tail
    }

    fn read(&self, pool: &[u8], offset: u64, pieces: usize) -> Option<Bytes> {
        if offset >= self.size() {
            return None;
        }
        let (head, piece) = (10 + 5 + 512, 5 + BLOCK as u64);
        // Piece 0 is the head, then one piece for each block, then the tail.
        let (mut index, mut skip) = match offset.checked_sub(head) {
            None => (0, offset),
            Some(rest) if rest / piece < self.blocks => (1 + rest / piece, rest % piece),
            Some(rest) => (1 + self.blocks, rest - self.blocks * piece),
        };
        let mut out = Vec::new();
        for _ in 0..pieces {
            let bytes = match index {
                0 => self.head(),
                block if block <= self.blocks => {
                    let mut bytes = Vec::with_capacity(5 + BLOCK);
                    stored(&mut bytes, &self.filler(pool, block - 1), false);
                    bytes
                }
                last if last == self.blocks + 1 => self.tail(),
                _ => break,
            };
            out.extend_from_slice(bytes.get(skip as usize..).unwrap_or_default());
            skip = 0;
            index += 1;
        }
        Some(out.into())
    }
}

/// A deflate block without compression.
fn stored(out: &mut Vec<u8>, bytes: &[u8], last: bool) {
    let length = bytes.len() as u16;
    out.push(u8::from(last));
    out.extend(length.to_le_bytes());
    out.extend((!length).to_le_bytes());
    out.extend_from_slice(bytes);
}

struct Maker {
    known: BTreeMap<String, Layer>,
    pool: Vec<u8>,
    blobs: BTreeMap<String, Body>,
}

#[derive(Clone)]
struct Described {
    digest: String,
    size: u64,
    diff_id: String,
}

impl Maker {
    fn layer(&mut self, name: &str, size: u64) -> Described {
        let blocks = (size / BLOCK as u64).max(1);
        let layer = match self.known.get(name).filter(|layer| layer.blocks == blocks) {
            Some(layer) => layer.clone(),
            None => {
                let layer = self.hash(name, blocks);
                self.known.insert(name.into(), layer.clone());
                layer
            }
        };
        let described = Described { digest: layer.digest.clone(), size: layer.size(), diff_id: layer.diff_id.clone() };
        self.blobs.insert(layer.digest.clone(), Body::Layer(layer));
        described
    }

    fn hash(&self, name: &str, blocks: u64) -> Layer {
        let seed = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        let mut layer = Layer {
            seed,
            path: format!("usr/lib/{name}/{name}.bin"),
            blocks,
            crc: 0,
            digest: String::new(),
            diff_id: String::new(),
        };
        let mut crc = flate2::Crc::new();
        let mut diff = ring::digest::Context::new(&ring::digest::SHA256);
        let mut whole = ring::digest::Context::new(&ring::digest::SHA256);
        let mut tar = |bytes: &[u8]| {
            crc.update(bytes);
            diff.update(bytes);
        };
        tar(&layer.tar_header());
        whole.update(&layer.head());
        for block in 0..blocks {
            let filler = layer.filler(&self.pool, block);
            tar(&filler);
            let mut bytes = Vec::with_capacity(5 + BLOCK);
            stored(&mut bytes, &filler, false);
            whole.update(&bytes);
        }
        tar(&[0; 1024]);
        layer.crc = crc.sum();
        whole.update(&layer.tail());
        layer.diff_id = hex_digest(diff.finish().as_ref());
        layer.digest = hex_digest(whole.finish().as_ref());
        layer
    }

    fn archive(&mut self, files: &[(String, String)]) -> Result<Described, OcpError> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append_data(&mut header, path, text.as_bytes())?;
        }
        let tar = tar.into_inner()?;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&tar)?;
        let bytes = gzip.finish()?;
        let size = bytes.len() as u64;
        Ok(Described { digest: self.small(bytes), size, diff_id: digest(&tar) })
    }

    fn small(&mut self, bytes: Vec<u8>) -> String {
        let digest = digest(&bytes);
        self.blobs.insert(digest.clone(), Body::Small(bytes.into()));
        digest
    }

    fn image(
        &mut self,
        name: &str,
        repository: &'static str,
        arch: &str,
        labels: &serde_json::Value,
        layers: &[Described],
    ) -> Image {
        let architecture = if arch == "aarch64" { "arm64" } else { "amd64" };
        let config = to_text(&json!({
            "architecture": architecture,
            "os": "linux",
            "created": "2025-03-01T10:00:00Z",
            "config": { "Labels": labels, "Entrypoint": [format!("/usr/bin/{name}")] },
            "rootfs": {
                "type": "layers",
                "diff_ids": layers.iter().map(|layer| &layer.diff_id).collect::<Vec<_>>(),
            },
            "history": layers.iter().map(|_| json!({ "created": "2025-03-01T10:00:00Z" })).collect::<Vec<_>>(),
        }));
        let size = config.len();
        let config = self.small(config.into_bytes());
        let manifest = to_text(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": { "mediaType": CONFIG_TYPE, "size": size, "digest": config },
            "layers": layers
                .iter()
                .map(|layer| json!({ "mediaType": LAYER_TYPE, "size": layer.size, "digest": layer.digest }))
                .collect::<Vec<_>>(),
        }));
        Image { name: name.into(), repository, digest: digest(manifest.as_bytes()), manifest: manifest.into() }
    }
}

fn cached(cache: Option<&Path>) -> BTreeMap<String, Layer> {
    // A cache that cannot be read is made anew.
    cache
        .and_then(|path| std::fs::read(path).ok())
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

fn pool() -> Vec<u8> {
    let mut pool = vec![0; POOL * BLOCK];
    fastrand::Rng::with_seed(7).fill(&mut pool);
    pool
}

fn references(version: &str, components: &[Image]) -> serde_json::Value {
    let tags: Vec<_> = components
        .iter()
        .map(|image| {
            json!({
                "name": image.name,
                "annotations": {
                    "io.openshift.build.commit.id": commit(&image.name),
                    "io.openshift.build.commit.ref": format!("release-{}", minor(version)),
                    "io.openshift.build.source-location": format!("https://github.com/openshift/{}", image.name),
                },
                "from": { "kind": "DockerImage", "name": Payload::pull_spec(image) },
                "generation": 2,
                "importPolicy": { "importMode": "Legacy" },
                "referencePolicy": { "type": "Source" },
            })
        })
        .collect();
    json!({
        "kind": "ImageStream",
        "apiVersion": "image.openshift.io/v1",
        "metadata": {
            "name": version,
            "creationTimestamp": "2025-03-01T10:00:00Z",
            "annotations": {
                "release.openshift.io/from-image-stream": format!("ocp/{}-art-latest", minor(version)),
                "release.openshift.io/from-release": format!("registry.ci.openshift.org/ocp/release:{version}"),
            },
        },
        "spec": { "lookupPolicy": { "local": false }, "tags": tags },
        "status": { "dockerImageRepository": "" },
    })
}

fn metadata(version: &str) -> serde_json::Value {
    json!({
        "kind": "cincinnati-metadata-v0",
        "version": version,
        "previous": [],
        "metadata": { "url": format!("https://access.redhat.com/errata/RHSA-2025:{version}") },
    })
}

/// `4.18` of `4.18.12`.
pub fn minor(version: &str) -> String {
    version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}

fn commit(name: &str) -> String {
    digest(name.as_bytes()).chars().skip(7).take(40).collect()
}

fn to_text(value: &serde_json::Value) -> String {
    format!("{value:#}")
}

/// `sha256:…`
pub fn digest(bytes: &[u8]) -> String {
    hex_digest(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

pub fn hex_digest(hash: &[u8]) -> String {
    hash.iter().fold("sha256:".to_owned(), |mut text, byte| {
        text.push_str(&format!("{byte:02x}"));
        text
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn whole(payload: &Payload, digest: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(part) = payload.read(digest, bytes.len() as u64) {
            bytes.extend_from_slice(&part);
        }
        bytes
    }

    #[test]
    fn every_blob_is_what_its_digest_and_size_say_and_layers_are_real_archives() {
        let payload = Payload::make("4.18.12", "x86_64", 20, None).unwrap();
        for blob in payload.blobs() {
            let bytes = whole(&payload, blob);
            assert_eq!(digest(&bytes), blob);
            assert_eq!(payload.blob_size(blob), Some(bytes.len() as u64));
            let middle = bytes.len() as u64 / 2 + 3;
            assert!(bytes[middle as usize..].starts_with(&payload.read(blob, middle).unwrap()));
        }
        for image in payload.images() {
            let manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
            let config: serde_json::Value =
                serde_json::from_slice(&whole(&payload, manifest["config"]["digest"].as_str().unwrap())).unwrap();
            for (layer, diff_id) in
                manifest["layers"].as_array().unwrap().iter().zip(config["rootfs"]["diff_ids"].as_array().unwrap())
            {
                let mut tar = Vec::new();
                flate2::read::GzDecoder::new(whole(&payload, layer["digest"].as_str().unwrap()).as_slice())
                    .read_to_end(&mut tar)
                    .unwrap();
                assert_eq!(digest(&tar), diff_id.as_str().unwrap());
            }
        }
    }

    #[test]
    fn the_release_image_names_every_component_by_digest() {
        let payload = Payload::make("4.18.12", "x86_64", 5, None).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&payload.release.manifest).unwrap();
        let last = manifest["layers"].as_array().unwrap().last().unwrap()["digest"].as_str().unwrap();
        let bytes = whole(&payload, last);
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
        let references: serde_json::Value = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap())
            .find(|entry| entry.path().unwrap().ends_with("image-references"))
            .map(|entry| serde_json::from_reader(entry).unwrap())
            .unwrap();
        assert_eq!(references["kind"], "ImageStream");
        let tags = references["spec"]["tags"].as_array().unwrap();
        assert!(tags.len() >= 24);
        for tag in tags {
            let (repository, digest) = tag["from"]["name"].as_str().unwrap().split_once('@').unwrap();
            assert_eq!(repository, "quay.io/openshift-release-dev/ocp-v4.0-art-dev");
            assert_eq!(payload.component(tag["name"].as_str().unwrap()).unwrap().digest, digest);
        }
    }
}
