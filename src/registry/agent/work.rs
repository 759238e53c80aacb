//! What a [`Request`] asks for, done.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::skips::Skips;
use super::{Action, Message, Request, Tally, say_to};
use crate::registry::auth::Credentials;
use crate::registry::client::{Client, Manner, Net, Repo};
use crate::registry::copy::copy;
use crate::registry::error::{Class, Malformed, RegistryError, Side};
use crate::registry::journal::Journal;
use crate::registry::mapping::{self, Mapped};
use crate::registry::outputs::{self, DigestSource, digest_sources, idms, image_digest_sources};
use crate::registry::plan::{Target, Wanted, plan, wanted};
use crate::registry::prove::{
    Claim, Proof, claims, planned_signatures, prove, required_signatures, signature_claims, without,
};
use crate::registry::release::{PullSpec, Release, is_repository, resolve};

#[derive(Debug, thiserror::Error)]
pub(super) enum AgentError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("request: {0}")]
    Request(#[from] Malformed),
    #[error("{path}: {why}")]
    File { path: String, class: Class, why: String },
}

impl AgentError {
    pub(super) fn message(&self) -> Message {
        let (side, class, causes) = match self {
            AgentError::Registry(error) => (
                error.side.as_str(),
                error.kind(),
                vec![format!("{} registry", error.side), error.what.clone(), error.why.clone()],
            ),
            AgentError::Request(error) => ("request", Class::Other, vec![error.place.clone(), error.why.clone()]),
            AgentError::File { path, class, why } => ("request", *class, vec![path.clone(), why.clone()]),
        };
        Message::Error { side: side.into(), class: class.as_str().into(), why: self.to_string(), causes }
    }
}

pub(super) async fn work(
    request: &Request,
    mut net: Net,
    say: &mpsc::Sender<Message>,
    tally: &mut Tally,
    cancel: &CancellationToken,
) -> Result<(), AgentError> {
    let known = |net: &Net, host: &str| net.resolve.iter().any(|(name, _)| name == host);
    for (host, address) in &request.resolve {
        if !known(&net, host) {
            net.resolve.push((host.clone(), *address));
        }
    }
    let pull_spec = PullSpec::parse(&request.source).map_err(|error| error.within("source"))?;
    let mut additional = Vec::new();
    for (at, text) in request.additional.iter().enumerate() {
        additional.push(PullSpec::parse(text).map_err(|error| error.within(&format!("additional[{at}]")))?);
    }
    for (key, name) in
        [("release_repository", &request.release_repository), ("component_repository", &request.component_repository)]
    {
        if !is_repository(name) {
            return Err(Malformed::new(key, format!("found \"{name}\"; expected a name like openshift/release")).into());
        }
    }
    if request.action == Action::OneImage && request.only.as_ref().is_none_or(Vec::is_empty) {
        return Err(Malformed::new("only", "is empty; the action one-image expects names or digests of images").into());
    }
    let credentials = read_credentials(&request.authfile).await?;
    let source_net = Net { bandwidth: request.bandwidth, ..with_roots(&net, &request.source_ca).await? };
    let source = Client::new(&source_net, credentials.clone(), Side::Source)?;
    let mirror = Client::new(&with_roots(&net, &request.mirror_ca).await?, credentials, Side::Mirror)?;
    let mirror = mirror.in_manner(match request.action {
        Action::Sync | Action::OneImage => Manner::Writes,
        Action::Plan => Manner::Looks,
        Action::Prove => Manner::Reads,
    });

    mirror.ping(&request.mirror).await?;
    let release = find(request, &pull_spec, &source, &mirror).await?;
    let mut target = Target {
        registry: request.mirror.clone(),
        release_repository: request.release_repository.clone(),
        component_repository: request.component_repository.clone(),
        release_tag: tag_of(request, &release),
        subset: request.subset,
        additional,
        mapping: expanded(&source, mapping::parse(&request.mapping.join("\n"), &request.mirror)?).await?,
        only: None,
    };
    let (all, warning) = wanted(&release, &target)?;
    let skips = Skips::of(request).await;
    skips.check(&all)?;
    target.only = request.only.clone();
    let (mut images, _) = wanted(&release, &target)?;
    let sources = digest_sources(&all);
    if let Some(directory) = &request.outputs {
        write_outputs(directory, &all, &sources).await?;
    }
    let first = all.first();
    let message = Message::Release {
        version: release.version.clone(),
        digest: release.digest.clone(),
        mirror_pull_spec: first.map(Wanted::mirrored).unwrap_or_default(),
        mirror_tag: format!("{}/{}:{}", target.registry, target.release_repository, target.release_tag),
        images: images.len() as u64,
        digest_sources: sources,
    };
    say_to(say, message).await;
    if let Some(text) = warning {
        say_to(say, Message::Warning { text }).await;
    }

    let (mut signatures, mut unproven) = (None, None);
    if request.action != Action::Prove {
        let plan = Arc::new(plan(&source, &mirror, images.clone(), &skips.now(), cancel).await?);
        // The list of one image would take the place of the list of all.
        if request.action != Action::OneImage {
            say_to(say, Message::Sync(plan.event())).await;
        }
        for text in plan.warnings() {
            say_to(say, Message::Warning { text }).await;
        }
        if request.action == Action::Plan {
            let broken = plan.images.iter().filter(|image| image.broken.is_some());
            tally.failed = broken.map(|image| image.wanted.name.clone()).collect();
            for error in plan.images.iter().filter_map(|image| image.broken.clone()) {
                say_to(say, AgentError::Registry(error).message()).await;
            }
            tally.complete = tally.failed.is_empty();
            return Ok(());
        }
        let (events, mut heard) = mpsc::channel(1024);
        let journal = request.outputs.as_ref().map(|directory| Journal::open(&directory.join("uploads.json")));
        let journal = journal.unwrap_or_default();
        let jobs = usize::from(request.jobs);
        let sides = (&source, &mirror);
        let copying = copy(sides, Arc::clone(&plan), jobs, journal, skips.follow(), events, cancel);
        let forwarding = async {
            while let Some(event) = heard.recv().await {
                say_to(say, Message::Sync(event)).await;
            }
        };
        let both = async { tokio::join!(copying, forwarding) };
        let (copied, ()) = tokio::select! {
            ended = both => ended,
            () = skips.keep_looking() => return Ok(()),
        };
        tally.moved = copied.moved;
        tally.mounted_blobs = copied.mounted;
        for (_, error) in &copied.failed {
            say_to(say, AgentError::Registry(error.clone()).message()).await;
        }
        tally.failed = copied.failed.iter().map(|(name, _)| name.clone()).collect();
        // What had only a tag is known by digest now.
        images = plan.images.iter().map(|image| image.pinned()).collect();
        signatures = Some(planned_signatures(&plan));
        if copied.stopped.is_some() || copied.cancelled {
            return Ok(());
        }
    }
    let signatures = match signatures {
        Some(planned) => planned,
        None if request.offline => Vec::new(),
        None => signature_claims(&source, &images).await.unwrap_or_else(|error| {
            // The digests can be proven without the source; whether there are signatures cannot.
            unproven = Some(format!("signatures could not be compared with the source: {error}"));
            Vec::new()
        }),
    };
    if let Some(text) = unproven {
        say_to(say, Message::Warning { text }).await;
    }
    let mut asked = [claims(&images), signatures].concat();
    let known: Vec<_> = asked.iter().map(|claim| (claim.repo.clone(), claim.reference.clone())).collect();
    let required = required_signatures(&release.version, &images).into_iter();
    asked.extend(required.filter(|claim| !known.contains(&(claim.repo.clone(), claim.reference.clone()))));
    finish(request, &mirror, (&all, &skips.now()), asked, say, tally).await
}

/// A pair for each tag that a wildcard stands for.
async fn expanded(source: &Client, mapped: Vec<Mapped>) -> Result<Vec<Mapped>, AgentError> {
    let mut all = Vec::new();
    for one in mapped {
        let tags = if one.wildcard.is_some() { source.tags(&one.source.repo).await? } else { Vec::new() };
        let found = mapping::expand(&one, &tags);
        if let (true, Some(pattern)) = (found.is_empty(), &one.wildcard) {
            let why = format!("none of the {} tags of {} is like {pattern}", tags.len(), one.source.repo);
            return Err(Malformed::new("mapping", why).into());
        }
        all.extend(found);
    }
    Ok(all)
}

/// Ask the mirror for what it should have now.
async fn finish(
    request: &Request,
    mirror: &Client,
    (all, skip): (&[Wanted], &BTreeSet<String>),
    asked: Vec<Claim>,
    say: &mpsc::Sender<Message>,
    tally: &mut Tally,
) -> Result<(), AgentError> {
    // Some were mended: perhaps the whole is complete now, and may have its tag.
    let mended = request.only.is_some() && request.action != Action::Prove;
    if let (true, Some(release)) = (mended, all.first()) {
        let whole = prove(mirror, &without(claims(all), all, skip)).await?;
        let release_is_whole = !all.iter().any(|image| image.of_release && is_left_out(image, &whole.left_out));
        if whole.missing.is_empty()
            && release_is_whole
            && mirror.head_manifest(&release.target, &release.tag).await? != release.source.digest
        {
            let manifest = mirror.manifest(&release.target, release.source.reference()).await?;
            mirror.put_manifest(&release.target, &release.tag, &manifest).await?;
        }
        say_to(say, Message::Sync(whole.event())).await;
    }
    let proof = prove(mirror, &without(asked, all, skip)).await?;
    if !mended {
        say_to(say, Message::Sync(proof.event())).await;
    }
    for text in meaning(all, &proof) {
        say_to(say, Message::Warning { text }).await;
    }
    tally.proven = proof.proven;
    tally.left_out = proof.left_out;
    let gaps: Vec<&Wanted> =
        all.iter().filter(|image| image.of_release && is_left_out(image, &tally.left_out)).collect();
    if let (Some(gap), false) = (gaps.first(), request.accept_incomplete) {
        let why = format!(
            "\"{}\" is part of the release and was left out: no cluster can be installed from such a mirror; say that \
             this is accepted, or copy it",
            gap.name
        );
        say_to(say, AgentError::Request(Malformed::new("skip", why)).message()).await;
        tally.failed.extend(gaps.iter().map(|image| image.name.clone()));
    }
    tally.complete = proof.missing.is_empty() && tally.failed.is_empty();
    if tally.failed.is_empty() {
        tally.failed = proof.missing;
    }
    Ok(())
}

fn is_left_out(image: &Wanted, left_out: &[String]) -> bool {
    left_out.iter().any(|text| text.strip_prefix(&image.name).is_some_and(|rest| rest.starts_with(": ")))
}

/// What it means that these are not there.
fn meaning(all: &[Wanted], proof: &Proof) -> Vec<String> {
    let gaps = all.iter().filter(|image| is_left_out(image, &proof.left_out));
    let text = |image: &Wanted| {
        let means = if image.of_release {
            "a cluster of this release cannot be installed or updated without it"
        } else {
            "what pulls it in the cluster will fail with \"manifest unknown\""
        };
        format!("{} was left out and is not in the mirror: {means}", image.name)
    };
    gaps.map(text).collect()
}

/// The release as the source tells it; to prove a mirror, its own copy will do when the source is out of reach.
async fn find(
    request: &Request,
    pull_spec: &PullSpec,
    source: &Client,
    mirror: &Client,
) -> Result<Release, RegistryError> {
    let asked = match request.offline && request.action == Action::Prove {
        true => Err(unreachable(pull_spec)),
        false => resolve(source, pull_spec, &request.arch).await,
    };
    let error = match asked {
        Err(error) if request.action == Action::Prove && error.side == Side::Source => error,
        other => return other,
    };
    let tag = request.release_tag.clone().or_else(|| pull_spec.tag.clone());
    let repo = Repo::new(&request.mirror, &request.release_repository);
    let copy = PullSpec { repo, tag, digest: pull_spec.digest.clone() };
    match resolve(mirror, &copy, &request.arch).await {
        Ok(release) => Ok(Release { pull_spec: pull_spec.clone(), ..release }),
        Err(_) => Err(error),
    }
}

fn unreachable(pull_spec: &PullSpec) -> RegistryError {
    let why = "it is out of reach, and the mirror has no copy of the release under its tag";
    RegistryError::new(Side::Source, Class::Other, pull_spec.to_string(), why)
}

fn tag_of(request: &Request, release: &Release) -> String {
    // A tag has no `+`, which versions of local builds may have.
    let version = release.version.replace('+', "_");
    request.release_tag.clone().unwrap_or_else(|| format!("{version}-{}", request.arch))
}

async fn read_file(path: &Path) -> Result<String, AgentError> {
    tokio::fs::read_to_string(path).await.map_err(|error| AgentError::File {
        path: path.display().to_string(),
        class: Class::Other,
        why: error.to_string(),
    })
}

async fn read_credentials(path: &Path) -> Result<Credentials, AgentError> {
    use std::os::unix::fs::PermissionsExt as _;
    let wrong = |why: String| AgentError::File { path: path.display().to_string(), class: Class::Auth, why };
    let metadata = tokio::fs::metadata(path).await.map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(wrong(format!("has mode {mode:04o}, so that others can read the passwords; expected 0600")));
    }
    let text = read_file(path).await?;
    Credentials::parse(&text).map_err(|error| wrong(error.to_string()))
}

async fn with_roots(net: &Net, files: &[PathBuf]) -> Result<Net, AgentError> {
    let mut net = net.clone();
    for file in files {
        net.roots.push(read_file(file).await?);
    }
    Ok(net)
}

async fn write_outputs(directory: &Path, images: &[Wanted], sources: &[DigestSource]) -> Result<(), AgentError> {
    let wrong = |error: std::io::Error| AgentError::File {
        path: directory.display().to_string(),
        class: Class::Other,
        why: error.to_string(),
    };
    tokio::fs::create_dir_all(directory).await.map_err(wrong)?;
    for (name, content) in [
        ("mapping.txt", outputs::mapping(images)),
        ("idms.yaml", idms("bartizan", sources)),
        ("image-digest-sources.yaml", image_digest_sources(sources)),
    ] {
        tokio::fs::write(directory.join(name), content).await.map_err(wrong)?;
    }
    Ok(())
}
