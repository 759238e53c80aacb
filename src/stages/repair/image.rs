//! An image that the mirror lacks.

use std::collections::BTreeSet;

use async_trait::async_trait;

use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::Cmd;
use crate::model::event::{Action, Evidence, ImageState};
use crate::registry::agent::Action as Asked;
use crate::registry::client::Repo;
use crate::stages::s05_mirror_registry::mirror;
use crate::stages::s06_image_sync::{agent, complain, whole_request};
use crate::stages::world::{Cx, World, action, sha256};

/// The job for an image: several may be copied again at once.
pub(super) fn one_image(image: &str) -> String {
    let mark: String = sha256(image.as_bytes()).chars().take(12).collect();
    format!("one-image-{mark}")
}

pub(super) struct ResyncImage {
    pub digest: String,
}

#[async_trait]
impl Step<World> for ResyncImage {
    fn preview(&self, world: &World) -> Vec<Action> {
        let workdir = &world.spec.bastion.workdir;
        vec![action(
            "bastion",
            &Cmd::new("bartizan").args(["agent", &format!("~/{workdir}/sync/{}.json", one_image(&self.digest))]),
        )]
    }

    /// Asked for in every repository that it may be in: a registry has manifests by repository.
    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        let registry = cx.world.spec.registry();
        let images = cx.model.sync.images.iter().map(|record| &record.image);
        let repositories: BTreeSet<&str> =
            images.filter(|image| image.digest == self.digest).map(|image| image.repository.as_str()).collect();
        let missing = || Probe::Missing(format!("the mirror does not have {}", self.digest));
        if repositories.is_empty() {
            return Ok(missing());
        }
        let (client, _tunnel) = mirror(cx).await?;
        let mut evidence = Vec::new();
        for repository in repositories {
            match client.head_manifest(&Repo::new(&registry, repository), &self.digest).await {
                Ok(Some(digest)) if digest == self.digest => {
                    let asked = format!("HEAD https://{registry}/v2/{repository}/manifests/{digest}");
                    evidence.push(Evidence::new(asked, "200"));
                }
                Ok(_) => return Ok(missing()),
                Err(error) => return Err(StepError::transient(error.to_string())),
            }
        }
        Ok(Probe::True(evidence))
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let only = Some(vec![self.digest.clone()]);
        let report = agent(cx, &one_image(&self.digest), &whole_request(cx, Asked::OneImage, only).await?).await?;
        complain(&report).map_or(Ok(Ran::Ok), Err)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        let (images, missing) =
            cx.model.sync.proven.clone().ok_or_else(|| StepError::transient("nothing was proven"))?;
        let mine = cx.model.sync.images.iter().find(|record| record.image.digest == self.digest);
        let there = mine.is_none_or(|record| !matches!(record.state, ImageState::Failed { .. }));
        if !missing.is_empty() || !there {
            return Err(StepError::transient(format!("still missing in the mirror: {}", missing.join(", "))));
        }
        Ok(vec![Evidence::new("HEAD of every digest in the mirror", format!("{images} of {images} answer"))])
    }
}
