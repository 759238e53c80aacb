//! The end check of a mirror, whoever filled it: every digest answers.

use std::collections::BTreeSet;

use futures::{FutureExt as _, StreamExt as _};

use super::client::{Client, Repo};
use super::error::RegistryError;
use super::manifest::signature_tag;
use super::plan::{PARALLEL, Plan, Wanted};
use crate::model::event::SyncEvent;

/// One question to the mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Name of the image, for the answer.
    pub name: String,
    pub repo: Repo,
    /// Tag or digest.
    pub reference: String,
    /// What must answer; `None`: anything.
    pub digest: Option<String>,
    /// The operator does without it: that it does not answer is told, and no failure.
    pub left_out: bool,
}

/// What the mirror answered.
#[derive(Debug, Clone, Default)]
pub struct Proof {
    pub proven: u64,
    /// `name: mirror/repository@sha256:…`, in the order of the claims.
    pub missing: Vec<String>,
    /// The same, of what the operator does without.
    pub left_out: Vec<String>,
}

impl Proof {
    pub fn event(&self) -> SyncEvent {
        let (missing, left_out) = (self.missing.clone(), self.left_out.clone());
        SyncEvent::Proven { images: self.proven, missing, left_out }
    }
}

/// Marks the claims on images that are called by one of `skip`, and on their signatures.
pub fn without(claims: Vec<Claim>, images: &[Wanted], skip: &BTreeSet<String>) -> Vec<Claim> {
    let skipped = images.iter().filter(|image| skip.iter().any(|name| image.is_called(name)));
    let names: BTreeSet<String> = skipped.flat_map(|image| [image.name.clone(), signature_of(&image.name)]).collect();
    claims.into_iter().map(|claim| Claim { left_out: names.contains(&claim.name), ..claim }).collect()
}

fn signature_of(name: &str) -> String {
    format!("{name} signature")
}

/// That the mirror has these images by digest.
pub fn claims(images: &[Wanted]) -> Vec<Claim> {
    let claim = |image: &Wanted| Claim {
        name: image.name.clone(),
        repo: image.target.clone(),
        reference: image.source.digest.clone().unwrap_or_else(|| image.tag.clone()),
        digest: image.source.digest.clone(),
        left_out: false,
    };
    images.iter().map(claim).collect()
}

/// That the mirror has the signatures that were found while planning.
pub fn planned_signatures(plan: &Plan) -> Vec<Claim> {
    let claims = plan.images.iter().flat_map(|image| {
        image.signatures.iter().map(|(tag, digest)| Claim {
            name: signature_of(&image.wanted.name),
            repo: image.wanted.target.clone(),
            reference: tag.clone(),
            digest: Some(digest.clone()),
            left_out: false,
        })
    });
    claims.collect()
}

/// That the mirror has the signatures that the source has beside these images (OpenShift 4.21 and later refuse to start
/// images without).
pub async fn signature_claims(source: &Client, images: &[Wanted]) -> Result<Vec<Claim>, RegistryError> {
    let questions: Vec<(Wanted, String)> = images
        .iter()
        .filter_map(|image| Some((image.clone(), signature_tag(image.source.digest.as_deref()?)?)))
        .collect();
    let answers: Vec<Result<Option<Claim>, RegistryError>> = futures::stream::iter(questions)
        .map(|(image, tag)| {
            let question = async move {
                let digest = source.head_manifest(&image.source.repo, &tag).await?;
                Ok(digest.map(|digest| Claim {
                    name: signature_of(&image.name),
                    repo: image.target,
                    reference: tag,
                    digest: Some(digest),
                    left_out: false,
                }))
            };
            question.boxed()
        })
        .buffered(PARALLEL)
        .collect()
        .await;
    answers.into_iter().filter_map(Result::transpose).collect()
}

/// That the mirror has the signatures without which nodes of this version refuse to start an image: the default
/// `ClusterImagePolicy` asks for those of the release from 4.21 on, and of its components from 4.22 on
/// (openshift/cluster-update-keys, `manifests.rhel/0000_90_openshift-cluster-image-policy.yaml`). It does not matter
/// whether the source is there to be asked.
pub fn required_signatures(version: &str, images: &[Wanted]) -> Vec<Claim> {
    const SIGNED: &[(&str, u32)] = &[
        ("quay.io/openshift-release-dev/ocp-release", 21),
        ("quay.io/openshift-release-dev/ocp-v4.0-art-dev", 22),
        ("quay.io/openshift-release-dev/ocp-v5.0-art-dev", 22),
    ];
    let minor = crate::spec::Spec::minor_of(version).unwrap_or(0);
    let claim = |image: &Wanted| {
        let repository = image.source.repo.to_string();
        SIGNED.iter().find(|(signed, from)| *signed == repository && minor >= *from)?;
        Some(Claim {
            name: signature_of(&image.name),
            repo: image.target.clone(),
            reference: signature_tag(image.source.digest.as_deref()?)?,
            digest: None,
            left_out: false,
        })
    };
    images.iter().filter_map(claim).collect()
}

/// Ask the mirror. An error is one of asking; a "no" is not.
pub async fn prove(mirror: &Client, claims: &[Claim]) -> Result<Proof, RegistryError> {
    let answers: Vec<Result<(bool, Option<String>), RegistryError>> = futures::stream::iter(claims.to_vec())
        .map(|claim| {
            let question = async move {
                let found = mirror.head_manifest(&claim.repo, &claim.reference).await?;
                let lacking = match (found, &claim.digest) {
                    (None, _) => Some(format!("{}: {}", claim.name, place(&claim))),
                    (Some(found), Some(digest)) if found != *digest => {
                        Some(format!("{}: {} is {found}, expected {digest}", claim.name, place(&claim)))
                    }
                    _ => None,
                };
                Ok((claim.left_out, lacking))
            };
            question.boxed()
        })
        .buffered(PARALLEL)
        .collect()
        .await;
    let mut proof = Proof::default();
    for answer in answers {
        match answer? {
            (_, None) => proof.proven += 1,
            (false, Some(missing)) => proof.missing.push(missing),
            (true, Some(missing)) => proof.left_out.push(missing),
        }
    }
    Ok(proof)
}

fn place(claim: &Claim) -> String {
    let mark = if claim.reference.starts_with("sha256:") { '@' } else { ':' };
    format!("{}{mark}{}", claim.repo, claim.reference)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::release::PullSpec;

    #[test]
    fn signatures_are_required_from_the_version_on_that_checks_them() {
        let image = |name: &str, repository: &str| Wanted {
            name: name.into(),
            source: PullSpec::parse(&format!("{repository}@sha256:{}", "a".repeat(64))).unwrap(),
            target: Repo::new("mirror:5000", "openshift/release"),
            tag: name.into(),
            of_release: true,
        };
        let images = [
            image("release", "quay.io/openshift-release-dev/ocp-release"),
            image("etcd", "quay.io/openshift-release-dev/ocp-v4.0-art-dev"),
            image("own", "registry.ci.openshift.org/ocp/4.22"),
        ];
        let names =
            |version| required_signatures(version, &images).into_iter().map(|claim| claim.name).collect::<Vec<_>>();
        assert_eq!(names("4.20.9"), Vec::<String>::new());
        assert_eq!(names("4.21.0"), ["release signature"]);
        assert_eq!(names("4.22.1"), ["release signature", "etcd signature"]);
    }
}
