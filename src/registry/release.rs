//! A release: the pull spec that names it, the payload behind it, and the components that the payload lists.
//!
//! The format of `image-references` is that of `oc adm release new` (openshift/oc, `pkg/cli/admin/release`).

use std::collections::BTreeSet;
use std::io::Read;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::blob::BlobReader;
use super::client::{Client, Repo};
use super::digest;
use super::error::{Class, Malformed, RegistryError, short};
use super::manifest::{Blob, Content, Manifest};

/// `host[:port]/repository[:tag][@digest]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullSpec {
    pub repo: Repo,
    pub tag: Option<String>,
    pub digest: Option<String>,
}

impl PullSpec {
    /// Read a full pull spec. The host is required: a mirror must not guess.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let shown = short(text, 120);
        let wrong = |why: &str| {
            let why = format!("{why}; expected host[:port]/repository[:tag][@sha256:…]");
            Malformed::new(format!("pull spec \"{shown}\""), why)
        };
        let text = text.trim();
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if digest::is_valid(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(wrong("the digest is not sha256: and 64 hex digits")),
            None => (text, None),
        };
        let (host, path) = rest.split_once('/').ok_or_else(|| wrong("it has no repository"))?;
        let is_host = host.contains(['.', ':']) || host == "localhost";
        let host_chars = |c: char| c.is_ascii_alphanumeric() || ".-:".contains(c);
        if !is_host || !host.chars().all(host_chars) {
            return Err(wrong("it does not begin with the name of a registry"));
        }
        if let Some((name, port)) = host.split_once(':')
            && (name.is_empty() || port.parse::<u16>().is_err())
        {
            return Err(wrong("the port is not a number up to 65535"));
        }
        let (name, tag) = match path.split_once(':') {
            Some((name, tag)) => (name, Some(tag)),
            None => (path, None),
        };
        let tag_chars = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if tag.is_some_and(|tag| tag.is_empty() || tag.len() > 128 || !tag.chars().all(tag_chars)) {
            return Err(wrong("the tag has other characters than letters, digits, '_', '.', '-'"));
        }
        if !is_repository(name) {
            return Err(wrong(
                "the repository has other characters than lower-case letters, digits, '_', '.', '-', '/'",
            ));
        }
        // As nodes know it (distribution/reference, `normalize.go`).
        let official = host == "docker.io" && !name.contains('/');
        let name = if official { format!("library/{name}") } else { name.to_owned() };
        Ok(Self { repo: Repo::new(host, name), tag: tag.map(str::to_owned), digest })
    }

    /// What to ask the registry for: the digest, else the tag, else `latest`.
    pub fn reference(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }
}

impl std::fmt::Display for PullSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.repo)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Whether a text can be a repository (distribution-spec, "Pull").
pub fn is_repository(name: &str) -> bool {
    let part = |part: &str| {
        let chars = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        part.chars().all(chars) && edge(part.chars().next()) && edge(part.chars().last())
    };
    name.len() <= 255 && name.split('/').all(part)
}

/// What a payload says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// `4.18.12`
    pub version: String,
    pub pull_spec: PullSpec,
    /// Of the release image, or of the list when it is one.
    pub digest: String,
    /// In the payload's order; names are unique.
    pub components: Vec<Component>,
}

/// One image of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    pub name: String,
    /// With a digest, without a tag.
    pub pull_spec: PullSpec,
    pub digest: String,
}

/// Architecture of a payload, as registries name it.
pub fn platform(arch: &str) -> String {
    let arch = match arch {
        "x86_64" | "multi" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("linux/{arch}")
}

/// Find the payload behind a pull spec and read what it lists. `arch` chooses from a list (`x86_64`, `aarch64`, …).
pub async fn resolve(client: &Client, pull_spec: &PullSpec, arch: &str) -> Result<Release, RegistryError> {
    let top = client.manifest(&pull_spec.repo, pull_spec.reference()).await?;
    let digest = top.digest.clone();
    let layers = layers(client, &pull_spec.repo, top, arch).await?;
    for layer in layers.iter().rev() {
        if let Some(found) = read_layer(client, &pull_spec.repo, layer).await? {
            let place = format!("{pull_spec}, layer {}, {IMAGE_REFERENCES}", layer.digest);
            let malformed = |error: Malformed| RegistryError::malformed(client.side(), error.within(&place));
            let (version, components) = parse_image_references(&found.references).map_err(malformed)?;
            if let Some(metadata) = found.metadata {
                check_metadata(&metadata, &version).map_err(malformed)?;
            }
            return Ok(Release { version, pull_spec: pull_spec.clone(), digest, components });
        }
    }
    let why = format!(
        "none of its {} layers holds {IMAGE_REFERENCES}; expected a release image (quay.io/openshift-release-dev/ocp-release:…)",
        layers.len()
    );
    Err(RegistryError::new(client.side(), Class::Other, pull_spec.to_string(), why))
}

async fn layers(client: &Client, repo: &Repo, top: Manifest, arch: &str) -> Result<Vec<Blob>, RegistryError> {
    let malformed = |error: Malformed| RegistryError::malformed(client.side(), error.within(&repo.to_string()));
    let children = match top.read().map_err(malformed)? {
        Content::Image { layers, .. } => return Ok(layers),
        Content::List { children } => children,
    };
    let wanted = platform(arch);
    let Some(child) = children.iter().find(|child| child.platform.as_deref() == Some(wanted.as_str())) else {
        let have: Vec<&str> = children.iter().filter_map(|child| child.platform.as_deref()).collect();
        let why = format!("the list has no image for {wanted}; it has {}", have.join(", "));
        return Err(RegistryError::new(client.side(), Class::ManifestUnknown, format!("{repo}@{}", top.digest), why));
    };
    match client.manifest(repo, &child.digest).await?.read().map_err(malformed)? {
        Content::Image { layers, .. } => Ok(layers),
        Content::List { .. } => {
            let why = "is a list inside a list; expected an image";
            Err(RegistryError::new(client.side(), Class::Other, format!("{repo}@{}", child.digest), why))
        }
    }
}

const IMAGE_REFERENCES: &str = "release-manifests/image-references";
const RELEASE_METADATA: &str = "release-manifests/release-metadata";
/// A real one is about 200 KB.
const DOCUMENT_LIMIT: u64 = 16 << 20;
/// A layer that unpacks to more than this is no release payload.
const UNPACKED_LIMIT: u64 = 4 << 30;

struct Found {
    references: Vec<u8>,
    metadata: Option<Vec<u8>>,
}

/// Stream a layer through the unpacker, which runs on a thread of its own.
async fn read_layer(client: &Client, repo: &Repo, layer: &Blob) -> Result<Option<Found>, RegistryError> {
    let (sender, receiver) = mpsc::channel(16);
    let unpack = tokio::task::spawn_blocking(move || search(Pieces { receiver, rest: Bytes::new() }));
    let mut reader = BlobReader::new(client, repo, layer);
    let mut broke = None;
    loop {
        match reader.next().await {
            Ok(Some(piece)) => {
                // The unpacker has what it wants, or gave up.
                if sender.send(piece).await.is_err() {
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => {
                broke = Some(error);
                break;
            }
        }
    }
    drop(sender);
    let place = format!("{repo}, layer {}", layer.digest);
    let found = match unpack.await {
        Ok(found) => found,
        Err(_) => Err(std::io::Error::other("the unpacker stopped")),
    };
    match (broke, found) {
        (Some(error), _) => Err(error),
        (None, Ok(found)) => Ok(found),
        (None, Err(error)) => {
            Err(RegistryError::new(client.side(), Class::Other, place, format!("cannot be unpacked: {error}")))
        }
    }
}

/// The pieces of a layer as something to read.
struct Pieces {
    receiver: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.rest.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.rest = piece,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.rest.len());
        let piece = self.rest.split_to(count);
        if let Some(place) = buffer.get_mut(..count) {
            place.copy_from_slice(&piece);
        }
        Ok(count)
    }
}

/// Look through a layer, a tar that may be gzipped.
fn search(mut layer: impl Read) -> std::io::Result<Option<Found>> {
    let mut magic = Vec::new();
    layer.by_ref().take(4).read_to_end(&mut magic)?;
    let whole = std::io::Cursor::new(magic.clone()).chain(layer);
    match magic.as_slice() {
        [0x1f, 0x8b, ..] => search_tar(MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            Err(std::io::Error::other("it is compressed with zstd; release payloads are gzip or plain tar"))
        }
        _ => search_tar(whole),
    }
}

fn search_tar(tar: impl Read) -> std::io::Result<Option<Found>> {
    let mut archive = tar::Archive::new(tar.take(UNPACKED_LIMIT));
    let (mut references, mut metadata) = (None, None);
    for entry in archive.entries()? {
        let entry = entry?;
        let path = entry.path_bytes().into_owned();
        let path = String::from_utf8_lossy(&path);
        let wanted = match path.trim_start_matches("./").trim_start_matches('/') {
            IMAGE_REFERENCES => &mut references,
            RELEASE_METADATA => &mut metadata,
            _ => continue,
        };
        let mut content = Vec::new();
        entry.take(DOCUMENT_LIMIT).read_to_end(&mut content)?;
        *wanted = Some(content);
        if references.is_some() && metadata.is_some() {
            break;
        }
    }
    Ok(references.map(|references| Found { references, metadata }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImageStream {
    kind: String,
    api_version: String,
    metadata: Metadata,
    spec: ImageStreamSpec,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
struct ImageStreamSpec {
    tags: Vec<Tag>,
}

#[derive(Deserialize)]
struct Tag {
    name: String,
    from: Option<From>,
}

#[derive(Deserialize)]
struct From {
    kind: String,
    name: String,
}

/// Version and components from the text of `image-references`.
pub fn parse_image_references(text: &[u8]) -> Result<(String, Vec<Component>), Malformed> {
    let stream: ImageStream = serde_json::from_slice(text).map_err(|error| {
        Malformed::new(format!("line {} column {}", error.line(), error.column()), error.to_string())
    })?;
    let expect = |place: &str, found: &str, expected: &str| {
        let found = short(found, 120);
        if found == expected {
            Ok(())
        } else {
            Err(Malformed::new(place, format!("found \"{found}\"; expected \"{expected}\"")))
        }
    };
    expect("kind", &stream.kind, "ImageStream")?;
    expect("apiVersion", &stream.api_version, "image.openshift.io/v1")?;
    let version = stream.metadata.name;
    let version_chars = |c: char| c.is_ascii_alphanumeric() || ".-+_".contains(c);
    if version.is_empty() || version.len() > 100 || !version.chars().all(version_chars) {
        let why = format!("found \"{}\"; expected a version like 4.18.12", short(&version, 120));
        return Err(Malformed::new("metadata.name", why));
    }
    if stream.spec.tags.is_empty() {
        return Err(Malformed::new("spec.tags", "is empty; expected one tag for each component"));
    }
    let mut seen = BTreeSet::new();
    let mut components = Vec::new();
    for (at, tag) in stream.spec.tags.into_iter().enumerate() {
        let place = format!("spec.tags[{at}]");
        let name_chars = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if tag.name.is_empty() || tag.name.len() > 100 || !tag.name.chars().all(name_chars) {
            let why = format!("found \"{}\"; expected the name of a component", short(&tag.name, 120));
            return Err(Malformed::new(format!("{place}.name"), why));
        }
        if !seen.insert(tag.name.clone()) {
            return Err(Malformed::new(format!("{place}.name"), format!("\"{}\" is there twice", tag.name)));
        }
        let from = tag.from.ok_or_else(|| Malformed::new(format!("{place}.from"), "is missing"))?;
        expect(&format!("{place}.from.kind"), &from.kind, "DockerImage")?;
        let place = format!("{place}.from.name");
        let pull_spec = PullSpec::parse(&from.name).map_err(|error| error.within(&place))?;
        let why = |what: &str| {
            let why = format!("found \"{}\", {what}; expected host/repository@sha256:…", short(&from.name, 200));
            Malformed::new(place.clone(), why)
        };
        let digest = pull_spec.digest.clone().ok_or_else(|| why("which has no digest"))?;
        if pull_spec.tag.is_some() {
            return Err(why("which has a tag"));
        }
        components.push(Component { name: tag.name, pull_spec, digest });
    }
    Ok((version, components))
}

/// `release-metadata` must speak of the same version.
fn check_metadata(text: &[u8], version: &str) -> Result<(), Malformed> {
    #[derive(Deserialize)]
    struct Cincinnati {
        version: String,
    }
    let place = "release-metadata beside it";
    let said: Cincinnati =
        serde_json::from_slice(text).map_err(|error| Malformed::new(place, format!("version: {error}")))?;
    if said.version == version {
        return Ok(());
    }
    let why = format!("found version \"{}\"; expected \"{version}\"", short(&said.version, 100));
    Err(Malformed::new(place, why))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]
mod tests {
    use super::*;

    #[test]
    fn pull_specs() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let spec = PullSpec::parse(&format!("quay.io:443/a/b_c.d:4.18.9-x86_64@{digest}")).unwrap();
        assert_eq!((spec.repo.registry.as_str(), spec.repo.name.as_str()), ("quay.io:443", "a/b_c.d"));
        assert_eq!((spec.tag.as_deref(), spec.reference()), (Some("4.18.9-x86_64"), digest.as_str()));
        assert_eq!(spec.to_string(), format!("quay.io:443/a/b_c.d:4.18.9-x86_64@{digest}"));
        assert_eq!(PullSpec::parse("docker.io/nginx:1").unwrap().to_string(), "docker.io/library/nginx:1");
        for wrong in
            ["", "ubi9", "library/ubi9", "quay.io/", "quay.io/A", "quay.io/a:", "quay.io/a@sha256:12", "q.io:x/a"]
        {
            assert!(PullSpec::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn errors_say_which_tag() {
        let text = r#"{"kind":"ImageStream","apiVersion":"image.openshift.io/v1","metadata":{"name":"4.18.1"},
            "spec":{"tags":[{"name":"etcd","from":{"kind":"DockerImage","name":"quay.io/a/b:latest"}}]}}"#;
        let error = parse_image_references(text.as_bytes()).unwrap_err().to_string();
        assert!(
            error.starts_with("spec.tags[0].from.name: found \"quay.io/a/b:latest\", which has no digest"),
            "{error}"
        );
    }
}
