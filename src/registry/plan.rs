//! From a release to the exact work: images → manifests → blobs, less what the mirror has.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use tokio_util::sync::CancellationToken;

use super::client::{Client, Repo};
use super::digest;
use super::error::{Class, Malformed, RegistryError, Side};
use super::manifest::{Blob, Content, Manifest, signature_tag};
use super::mapping::Mapped;
use super::release::{PullSpec, Release};
use crate::model::event::{PlannedImage, SyncEvent};
use crate::spec::Subset;

/// Requests in flight while planning and proving. Quay allows 50/s to one client.
pub(super) const PARALLEL: usize = 12;

/// Name of the release image itself among the images.
pub const RELEASE: &str = "release";

/// Component names of the subset `core-21`.
pub fn core_21() -> impl Iterator<Item = &'static str> {
    let text = include_str!("../../assets/core-21.txt");
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Where things go, and which.
#[derive(Debug, Clone)]
pub struct Target {
    /// `host:port` of the mirror.
    pub registry: String,
    pub release_repository: String,
    pub component_repository: String,
    /// Tag of the release image in the mirror, `4.18.12-x86_64`; also the beginning of the components' tags.
    pub release_tag: String,
    pub subset: Subset,
    pub additional: Vec<PullSpec>,
    /// Without wildcards.
    pub mapping: Vec<Mapped>,
    /// Only images with these names or digests.
    pub only: Option<Vec<String>>,
}

/// One image to have in the mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub name: String,
    pub source: PullSpec,
    pub target: Repo,
    /// Tag in the mirror: keeps the image from garbage collection.
    pub tag: String,
    /// The release lists it, or it is the release.
    pub of_release: bool,
}

impl Wanted {
    /// Whether this is its name, or its digest.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.source.digest.as_deref() == Some(name)
    }

    /// Where it will be: `mirror:5000/openshift/release@sha256:…`
    pub fn mirrored(&self) -> String {
        match &self.source.digest {
            Some(digest) => format!("{}@{digest}", self.target),
            None => format!("{}:{}", self.target, self.tag),
        }
    }
}

/// Everything that a mirror of this release holds, and what the operator should know about that. The release image is
/// the first. Names of `only` that are not there are an error.
pub fn wanted(release: &Release, target: &Target) -> Result<(Vec<Wanted>, Option<String>), Malformed> {
    let mut images = vec![Wanted {
        name: RELEASE.to_owned(),
        source: PullSpec { tag: None, digest: Some(release.digest.clone()), ..release.pull_spec.clone() },
        target: Repo::new(&target.registry, &target.release_repository),
        tag: target.release_tag.clone(),
        of_release: true,
    }];
    let core: BTreeSet<&str> = core_21().collect();
    let mut left_out = 0;
    for component in &release.components {
        if target.subset == Subset::Core21 && !core.contains(component.name.as_str()) {
            left_out += 1;
            continue;
        }
        images.push(Wanted {
            name: component.name.clone(),
            source: component.pull_spec.clone(),
            target: Repo::new(&target.registry, &target.component_repository),
            tag: format!("{}-{}", target.release_tag, component.name),
            of_release: true,
        });
    }
    let additional = target.additional.iter().map(|source| Mapped {
        source: source.clone(),
        target: Repo::new(&target.registry, &source.repo.name),
        tag: None,
        wildcard: None,
    });
    for Mapped { source, target, tag, .. } in additional.chain(target.mapping.iter().cloned()) {
        let by_digest = source.digest.as_deref().and_then(digest::hex).map(|hex| format!("sha256-{hex}"));
        let tag = tag.or_else(|| source.tag.clone()).or(by_digest).unwrap_or_else(|| "latest".into());
        // Names are how images are told apart: one source may have two places, and be asked for twice.
        let mut name = source.to_string();
        if let Some(other) = images.iter().find(|image| image.name == name) {
            if (&other.target, &other.tag) == (&target, &tag) {
                continue;
            }
            name = format!("{name} as {}:{tag}", target.name);
        }
        images.push(Wanted { name, source, target, tag, of_release: false });
    }
    if let Some(only) = &target.only {
        if let Some(stranger) = only.iter().find(|name| !images.iter().any(|image| image.is_called(name))) {
            let why =
                format!("release {} has no image \"{stranger}\"; expected a component name or digest", release.version);
            return Err(Malformed::new("only", why));
        }
        images.retain(|image| only.iter().any(|name| image.is_called(name)));
    }
    let warning = (left_out > 0).then(|| {
        format!(
            "subset core-21 leaves out {left_out} images of release {}: such a mirror cannot boot a cluster",
            release.version
        )
    });
    Ok((images, warning))
}

/// The work.
#[derive(Debug, Clone)]
pub struct Plan {
    pub images: Vec<Image>,
    /// Each digest once, in no particular order.
    pub blobs: Vec<PlannedBlob>,
}

#[derive(Debug, Clone)]
pub struct Image {
    pub wanted: Wanted,
    /// Of its manifest or list.
    pub digest: String,
    pub layers: u32,
    /// Of all its blobs.
    pub bytes: u64,
    /// What is still to be written, in this order: children, the image, signatures.
    pub writes: Vec<Write>,
    /// Tag and digest of every signature that the source has for it and its children.
    pub signatures: Vec<(String, String)>,
    /// Layers that stay where their `urls` point to.
    pub foreign: u32,
    /// The operator wants to do without it.
    pub left_out: bool,
    /// Why it cannot be copied.
    pub broken: Option<RegistryError>,
}

impl Image {
    /// One of which nothing is known but that it was wanted.
    fn unknown(wanted: Wanted) -> Self {
        let digest = wanted.source.digest.clone().unwrap_or_default();
        Self {
            wanted,
            digest,
            layers: 0,
            bytes: 0,
            writes: Vec::new(),
            signatures: Vec::new(),
            foreign: 0,
            left_out: false,
            broken: None,
        }
    }

    /// What was wanted, by the digest that was found.
    pub fn pinned(&self) -> Wanted {
        let mut wanted = self.wanted.clone();
        if !self.digest.is_empty() {
            wanted.source.digest = Some(self.digest.clone());
        }
        wanted
    }

    /// The mirror has it with all that belongs to it.
    pub fn is_present(&self) -> bool {
        self.broken.is_none() && !self.left_out && self.writes.is_empty()
    }
}

#[derive(Debug, Clone)]
pub struct Write {
    pub manifest: Manifest,
    /// Tag or digest.
    pub reference: String,
}

#[derive(Debug, Clone)]
pub struct PlannedBlob {
    pub blob: Blob,
    pub source: Repo,
    /// Repositories of the mirror that need it, and whether they have it.
    pub places: BTreeMap<Repo, bool>,
    /// Positions in [`Plan::images`].
    pub images: Vec<usize>,
}

impl PlannedBlob {
    /// Its bytes are somewhere in the mirror.
    pub fn is_stored(&self) -> bool {
        self.places.values().any(|present| *present)
    }
    /// Nothing is left to be done for it.
    pub fn is_placed(&self) -> bool {
        self.places.values().all(|present| *present)
    }
}

impl Plan {
    /// What the operator should know of images that are not as others.
    pub fn warnings(&self) -> Vec<String> {
        let foreign = self.images.iter().filter(|image| image.foreign > 0);
        let text = |image: &Image| {
            format!(
                "{}: {} of its layers may not be copied and stay at the addresses that its manifest names: a cluster \
                 without internet cannot pull it",
                image.wanted.name, image.foreign
            )
        };
        foreign.map(text).collect()
    }

    /// What the screen needs before the first byte moves.
    pub fn event(&self) -> SyncEvent {
        let sum = |filter: fn(&&PlannedBlob) -> bool| self.blobs.iter().filter(filter).map(|blob| blob.blob.size).sum();
        SyncEvent::Planned {
            images: self
                .images
                .iter()
                .map(|image| PlannedImage {
                    name: image.wanted.name.clone(),
                    digest: image.digest.clone(),
                    repository: image.wanted.target.name.clone(),
                    layers: image.layers,
                    bytes: image.bytes,
                })
                .collect(),
            blobs: self.blobs.len() as u64,
            bytes: sum(|_| true),
            present_bytes: sum(|blob| blob.is_stored()),
        }
    }
}

/// What was learnt of one image.
struct Described {
    image: Image,
    blobs: Vec<Blob>,
    /// The mirror has the manifest, and so (it checks) every blob.
    stored: bool,
}

/// Fetch all manifests and ask the mirror what it has. An image that the source lacks becomes a broken one; a failure
/// that would meet every image is an error. Of images that are called by one of `skip` nothing is asked.
pub async fn plan(
    source: &Client,
    mirror: &Client,
    images: Vec<Wanted>,
    skip: &BTreeSet<String>,
    cancel: &CancellationToken,
) -> Result<Plan, RegistryError> {
    let work = async {
        let described: Vec<Described> = futures::stream::iter(images)
            .map(|wanted| {
                if skip.iter().any(|name| wanted.is_called(name)) {
                    let image = Image { left_out: true, ..Image::unknown(wanted) };
                    return futures::future::ready(Ok(Described { image, blobs: Vec::new(), stored: false })).boxed();
                }
                describe(source, mirror, wanted).boxed()
            })
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        let (images, mut blobs) = assemble(described);
        let asked: Vec<(usize, Repo)> = blobs
            .iter()
            .enumerate()
            .flat_map(|(at, blob)| {
                blob.places.iter().filter(|(_, present)| !**present).map(move |(repo, _)| (at, repo.clone()))
            })
            .collect();
        let questions: Vec<(usize, Repo, String)> = asked
            .into_iter()
            .filter_map(|(at, repo)| blobs.get(at).map(|blob| (at, repo, blob.blob.digest.clone())))
            .collect();
        let answers: Vec<(usize, Repo, bool)> = futures::stream::iter(questions)
            .map(|(at, repo, digest)| {
                let question = async move {
                    let has = mirror.has_blob(&repo, &digest).await?;
                    Ok::<_, RegistryError>((at, repo, has))
                };
                question.boxed()
            })
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        for (at, repo, has) in answers {
            if let Some(blob) = blobs.get_mut(at) {
                blob.places.insert(repo, has);
            }
        }
        Ok(Plan { images, blobs })
    };
    tokio::select! {
        plan = work => plan,
        () = cancel.cancelled() => Err(RegistryError::new(source.side(), Class::Other, "planning", "cancelled")),
    }
}

async fn describe(source: &Client, mirror: &Client, wanted: Wanted) -> Result<Described, RegistryError> {
    match look(source, mirror, &wanted).await {
        Ok(described) => Ok(described),
        Err(error) if error.side == Side::Mirror => Err(error),
        Err(error) => {
            // The mirror may have it already, and then it does not matter that the source has lost it.
            if let Some(digest) = &wanted.source.digest
                && let Ok(Some(_)) = mirror.head_manifest(&wanted.target, digest).await
            {
                let there = PullSpec { repo: wanted.target.clone(), tag: None, digest: Some(digest.clone()) };
                let copy = Wanted { source: there, ..wanted.clone() };
                let mut described = look(mirror, mirror, &copy).await?;
                described.image.wanted = wanted;
                return Ok(described);
            }
            let image = Image { broken: Some(error), ..Image::unknown(wanted) };
            Ok(Described { image, blobs: Vec::new(), stored: false })
        }
    }
}

/// A manifest and all that it stands for.
#[derive(Default)]
struct Family {
    /// Children before lists, so that the first one is last.
    manifests: Vec<Manifest>,
    layers: u32,
    foreign: u32,
    blobs: Vec<Blob>,
}

/// Lists of lists are allowed (image-spec, `image-index.md`); nobody makes them deeper than this.
const DEEPEST: usize = 4;

async fn family(source: &Client, repo: &Repo, top: Manifest) -> Result<Family, RegistryError> {
    let malformed = |error: Malformed| RegistryError::malformed(source.side(), error.within(&repo.to_string()));
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let mut found = Family::default();
    let mut seen = BTreeSet::new();
    // A list waits there again until its children are done.
    let mut open = vec![(top, 0, false)];
    while let Some((manifest, depth, waited)) = open.pop() {
        if waited {
            found.manifests.push(manifest);
            continue;
        }
        match manifest.read().map_err(malformed)? {
            Content::Image { config, layers, foreign } => {
                found.layers = found.layers.saturating_add(count(layers.len() + foreign.len()));
                found.foreign = found.foreign.saturating_add(count(foreign.len()));
                found.blobs.extend(layers);
                found.blobs.push(config);
                found.manifests.push(manifest);
            }
            Content::List { .. } if depth == DEEPEST => {
                let why = format!("is a list inside of {DEEPEST} others; expected an image");
                return Err(malformed(Malformed::new(format!("manifest {}", manifest.digest), why)));
            }
            Content::List { children } => {
                open.push((manifest, depth, true));
                for child in children.iter().rev().filter(|child| seen.insert(child.digest.clone())) {
                    open.push((source.manifest(repo, &child.digest).await?, depth + 1, false));
                }
            }
        }
    }
    Ok(found)
}

async fn look(source: &Client, mirror: &Client, wanted: &Wanted) -> Result<Described, RegistryError> {
    let repo = &wanted.source.repo;
    let malformed = |error: Malformed| RegistryError::malformed(source.side(), error.within(&repo.to_string()));
    let top = source.manifest(repo, wanted.source.reference()).await?;
    let Family { manifests, layers, foreign, mut blobs } = family(source, repo, top.clone()).await?;
    let tagged = mirror.head_manifest(&wanted.target, &wanted.tag).await?.as_ref() == Some(&top.digest);
    let stored = tagged || mirror.head_manifest(&wanted.target, &top.digest).await?.is_some();
    let mut writes = Vec::new();
    if !stored {
        let write = |manifest: &Manifest| Write { manifest: manifest.clone(), reference: manifest.digest.clone() };
        writes.extend(manifests.iter().filter(|manifest| manifest.digest != top.digest).map(write));
    }
    if !tagged {
        writes.push(Write { manifest: top.clone(), reference: wanted.tag.clone() });
    }
    let (mut signed, mut signatures) = (Vec::new(), Vec::new());
    for manifest in &manifests {
        let Some(tag) = signature_tag(&manifest.digest) else { continue };
        let Some(signature) = source.head_manifest(repo, &tag).await? else { continue };
        signatures.push((tag.clone(), signature.clone()));
        if mirror.head_manifest(&wanted.target, &tag).await?.as_ref() == Some(&signature) {
            continue;
        }
        let signature = source.manifest(repo, &tag).await?;
        if let Content::Image { config, layers, .. } = signature.read().map_err(malformed)? {
            signed.extend(layers);
            signed.push(config);
            writes.push(Write { manifest: signature, reference: tag });
        }
    }
    // A signature can be new on an image that is not; its blobs are then asked for one by one.
    let stored = stored && signed.is_empty();
    blobs.extend(signed);
    let mut seen = BTreeSet::new();
    blobs.retain(|blob| seen.insert(blob.digest.clone()));
    let bytes = blobs.iter().map(|blob| blob.size).sum();
    let digest = top.digest;
    let image = Image { digest, layers, bytes, writes, signatures, foreign, ..Image::unknown(wanted.clone()) };
    Ok(Described { image, blobs, stored })
}

fn assemble(described: Vec<Described>) -> (Vec<Image>, Vec<PlannedBlob>) {
    let mut images = Vec::new();
    let mut blobs: Vec<PlannedBlob> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for (at, described) in described.into_iter().enumerate() {
        for blob in described.blobs {
            let place = *known.entry(blob.digest.clone()).or_insert_with(|| {
                blobs.push(PlannedBlob {
                    blob,
                    source: described.image.wanted.source.repo.clone(),
                    places: BTreeMap::new(),
                    images: Vec::new(),
                });
                blobs.len() - 1
            });
            if let Some(blob) = blobs.get_mut(place) {
                *blob.places.entry(described.image.wanted.target.clone()).or_default() |= described.stored;
                blob.images.push(at);
            }
        }
        images.push(described.image);
    }
    (images, blobs)
}
