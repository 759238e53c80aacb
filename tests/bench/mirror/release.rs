//! A release of any size with stable digests: many images, some layers shared by all or by some, sizes with a long tail.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use bartizan::registry::digest;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::Result;
use super::parts::{COMPONENT_REPO, DockerRegistry, OCI_MANIFEST, RELEASE_REPO};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Parts of all bytes that the five shared layers have, in thousandths.
const SHARED: [u64; 5] = [60, 40, 20, 10, 4];
/// Sizes of own layers fall as rank to this power.
const TAIL: f64 = 0.8;
const VERSION: &str = "4.18.99";

pub struct Release {
    pub pull_spec: String,
    /// Repository, tag in the mirror, digest.
    pub images: Vec<(String, String, String)>,
    pub blobs: usize,
    /// Bytes of all blobs, each once.
    pub unique: u64,
    /// Bytes of all blobs of all images.
    pub total: u64,
}

#[derive(Clone)]
struct Blob {
    digest: String,
    size: u64,
}

struct Writer {
    root: PathBuf,
    blobs: usize,
    unique: u64,
}

impl Release {
    /// `images` components of about `bytes` together, and the release that lists them, into a registry's files.
    pub fn install(registry: &DockerRegistry, images: usize, bytes: u64) -> Result<Self> {
        let mut writer = Writer { root: registry.storage(), blobs: 0, unique: 0 };
        let mut seed = 1;
        let mut layer = |writer: &mut Writer, size: u64| {
            seed += 1;
            let mut content = vec![0; usize::try_from(size).unwrap_or(0)];
            fastrand::Rng::with_seed(seed).fill(&mut content);
            // What podman unpacks has to be an archive.
            writer.blob(&archive(&format!("usr/lib/layer-{seed}"), &content)?)
        };
        let mut shared = Vec::new();
        for part in SHARED {
            shared.push(layer(&mut writer, bytes * part / 1000)?);
        }
        let own = bytes - bytes * SHARED.iter().sum::<u64>() / 1000;
        let weights: Vec<f64> = (1..=images * 2).map(|rank| (rank as f64).powf(-TAIL)).collect();
        let all: f64 = weights.iter().sum();
        let sizes: Vec<u64> = weights.iter().map(|weight| (own as f64 * weight / all) as u64).collect();
        let (mut tags, mut list, mut total) = (Vec::new(), Vec::new(), 0);
        for at in 0..images {
            let mut layers = vec![shared[0].clone(), shared[1 + at % 4].clone()];
            // A large one with a small one.
            for rank in [at, images * 2 - 1 - at] {
                layers.push(layer(&mut writer, sizes[rank])?);
            }
            let name = format!("component-{at:03}");
            let digest = writer.image(COMPONENT_REPO, None, &name, &layers)?;
            total += layers.iter().map(|layer| layer.size).sum::<u64>();
            tags.push(json!({"name": name, "from": {"kind": "DockerImage", "name": format!("{}/{COMPONENT_REPO}@{digest}", registry.host())}}));
            list.push((COMPONENT_REPO.to_owned(), format!("{VERSION}-x86_64-{name}"), digest));
        }
        let references = json!({"kind": "ImageStream", "apiVersion": "image.openshift.io/v1", "metadata": {"name": VERSION},
            "spec": {"tags": tags}});
        let manifests =
            writer.blob(&archive("release-manifests/image-references", references.to_string().as_bytes())?)?;
        let tag = format!("{VERSION}-x86_64");
        let digest = writer.image(RELEASE_REPO, Some(&tag), "release", &[shared[0].clone(), manifests])?;
        list.push((RELEASE_REPO.to_owned(), tag.clone(), digest));
        let pull_spec = format!("{}/{RELEASE_REPO}:{tag}", registry.host());
        Ok(Self { pull_spec, images: list, blobs: writer.blobs, unique: writer.unique, total })
    }
}

fn archive(path: &str, content: &[u8]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, path, content)?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::none());
    gzip.write_all(&tar.into_inner()?)?;
    Ok(gzip.finish()?)
}

/// As distribution's filesystem driver lays things out.
impl Writer {
    fn store(&self, content: &[u8]) -> Result<String> {
        let digest = digest::of(content);
        let hex = hex(&digest);
        let path = self.root.join("blobs/sha256").join(hex.get(..2).unwrap_or_default()).join(hex);
        std::fs::create_dir_all(&path)?;
        std::fs::write(path.join("data"), content)?;
        Ok(digest)
    }

    fn blob(&mut self, content: &[u8]) -> Result<Blob> {
        let blob = Blob { digest: self.store(content)?, size: content.len() as u64 };
        for repo in [RELEASE_REPO, COMPONENT_REPO] {
            self.link(&Path::new(repo).join("_layers/sha256").join(hex(&blob.digest)), &blob.digest)?;
        }
        self.blobs += 1;
        self.unique += blob.size;
        Ok(blob)
    }

    fn image(&mut self, repo: &str, tag: Option<&str>, name: &str, layers: &[Blob]) -> Result<String> {
        let config = json!({"architecture": "amd64", "os": "linux", "config": {"Labels": {"name": name}},
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|layer| &layer.digest).collect::<Vec<_>>()}});
        let config = self.blob(config.to_string().as_bytes())?;
        let point = |kind: &str, blob: &Blob| json!({"mediaType": kind, "digest": blob.digest, "size": blob.size});
        let layers: Vec<Value> = layers.iter().map(|layer| point(LAYER, layer)).collect();
        let manifest =
            json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": point(CONFIG, &config), "layers": layers});
        let digest = self.store(manifest.to_string().as_bytes())?;
        let manifests = Path::new(repo).join("_manifests");
        self.link(&manifests.join("revisions/sha256").join(hex(&digest)), &digest)?;
        if let Some(tag) = tag {
            self.link(&manifests.join("tags").join(tag).join("current"), &digest)?;
            self.link(&manifests.join("tags").join(tag).join("index/sha256").join(hex(&digest)), &digest)?;
        }
        Ok(digest)
    }

    fn link(&self, path: &Path, digest: &str) -> Result<()> {
        let path = self.root.join("repositories").join(path);
        std::fs::create_dir_all(&path)?;
        Ok(std::fs::write(path.join("link"), digest)?)
    }
}

fn hex(digest: &str) -> &str {
    digest.trim_start_matches("sha256:")
}
