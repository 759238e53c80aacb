//! Reading manifests and lists (OCI image-spec; Docker image manifest v2, schema 2). They are never written anew.

use bytes::Bytes;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};

use super::digest;
use super::error::Malformed;

const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// With `+json` or `+prettyjws` behind it: Docker's image manifest v2, schema 1.
const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+";

/// Everything that we can mirror, in one header.
pub(super) const ACCEPT: &str = concat!(
    "application/vnd.docker.distribution.manifest.list.v2+json, ",
    "application/vnd.oci.image.index.v1+json, ",
    "application/vnd.docker.distribution.manifest.v2+json, ",
    "application/vnd.oci.image.manifest.v1+json"
);

/// A manifest or list: the bytes, what they are, and their digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub bytes: Bytes,
    pub content_type: String,
    pub digest: String,
}

/// What a manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Image {
        config: Blob,
        layers: Vec<Blob>,
        /// Layers that registries need not have: their content is at other places, which clients know (`urls`).
        foreign: Vec<Blob>,
    },
    List {
        children: Vec<Child>,
    },
}

/// Content that a manifest points to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Blob {
    pub digest: String,
    /// Bytes.
    pub size: u64,
}

/// An image of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    pub digest: String,
    /// `linux/amd64`, when the list says.
    pub platform: Option<String>,
}

impl Manifest {
    /// Bytes as they came, with the `Content-Type` that came with them and the digest that they have.
    pub fn new(bytes: Bytes, content_type: Option<&str>, digest: String) -> Self {
        let declared = content_type.map(|text| text.split(';').next().unwrap_or_default().trim());
        let known = [DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST];
        let content_type = match declared.filter(|declared| known.contains(declared)) {
            Some(declared) => declared.to_owned(),
            None => inner_type(&bytes).or_else(|| declared.map(str::to_owned)).unwrap_or_else(|| OCI_MANIFEST.into()),
        };
        Self { bytes, content_type, digest }
    }

    /// An old one, which is no list of blobs that a mirror could keep by digest.
    pub fn is_schema1(&self) -> bool {
        self.content_type.starts_with(SCHEMA1)
    }

    /// What it points to. Every digest in the answer is a valid one.
    pub fn read(&self) -> Result<Content, Malformed> {
        let place = format!("manifest {}", self.digest);
        let wrong = |error: oci_spec::OciSpecError| Malformed::new(place.clone(), error.to_string());
        match self.content_type.as_str() {
            DOCKER_LIST | OCI_INDEX => {
                let list = ImageIndex::from_reader(self.bytes.as_ref()).map_err(wrong)?;
                let children = list.manifests().iter().enumerate().map(|(at, descriptor)| {
                    let digest = checked(descriptor, &place, &format!("manifests[{at}].digest"))?.digest;
                    let platform = descriptor.platform().as_ref();
                    let platform = platform.map(|on| format!("{}/{}", on.os(), on.architecture()));
                    Ok(Child { digest, platform })
                });
                Ok(Content::List { children: children.collect::<Result<_, Malformed>>()? })
            }
            DOCKER_MANIFEST | OCI_MANIFEST => {
                let image = ImageManifest::from_reader(self.bytes.as_ref()).map_err(wrong)?;
                let config = checked(image.config(), &place, "config.digest")?;
                let (mut layers, mut foreign) = (Vec::new(), Vec::new());
                for (at, layer) in image.layers().iter().enumerate() {
                    let blob = checked(layer, &place, &format!("layers[{at}].digest"))?;
                    if is_foreign(layer) { foreign.push(blob) } else { layers.push(blob) }
                }
                Ok(Content::Image { config, layers, foreign })
            }
            other => Err(Malformed::new(
                place,
                format!("is a {other}; expected an image manifest or list (Docker schema 2 or OCI)"),
            )),
        }
    }
}

fn checked(descriptor: &Descriptor, place: &str, key: &str) -> Result<Blob, Malformed> {
    let digest = descriptor.digest().to_string();
    if !digest::is_valid(&digest) {
        let why = format!("found \"{digest}\"; expected sha256: and 64 hex digits");
        return Err(Malformed::new(format!("{place}, {key}"), why));
    }
    Ok(Blob { digest, size: descriptor.size() })
}

/// Layers that may not be passed on (image-spec, `layer.md`; Docker's `foreign` ones).
fn is_foreign(layer: &Descriptor) -> bool {
    let kind = layer.media_type().to_string();
    let kept = kind.contains(".foreign.") || kind.contains("nondistributable");
    kept && layer.urls().as_ref().is_some_and(|urls| !urls.is_empty())
}

/// The media type that a manifest says of itself, or the one its shape tells.
fn inner_type(bytes: &[u8]) -> Option<String> {
    let document: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    if let Some(declared) = document.get("mediaType").and_then(serde_json::Value::as_str) {
        return Some(declared.to_owned());
    }
    if document.get("schemaVersion").and_then(serde_json::Value::as_u64) == Some(1) {
        return Some(format!("{SCHEMA1}json"));
    }
    document.get("manifests").map(|_| OCI_INDEX.to_owned())
}

/// The tag beside an image under which cosign keeps its signature.
pub fn signature_tag(digest: &str) -> Option<String> {
    digest::hex(digest).map(|hex| format!("sha256-{hex}.sig"))
}
