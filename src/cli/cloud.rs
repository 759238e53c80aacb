//! Which cloud a run works in: a lab's file where one is named, else AWS.

use std::path::Path;
use std::sync::Arc;

use crate::cloud::Cloud;
use crate::cloud::memory::MemoryCloud;
use crate::spec::Spec;

use super::Failure;

/// `None` where the spec leaves nothing to make or to check in a cloud: its bastion is there already, and no network is
/// named. No call is made yet.
pub(super) async fn open(file: Option<&Path>, spec: &Spec) -> Result<Option<Arc<dyn Cloud>>, Failure> {
    if let Some(file) = file {
        let cloud = MemoryCloud::open(file);
        return Ok(Some(Arc::new(cloud.map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?)));
    }
    if spec.bastion.host.is_some() && spec.network.existing.is_none() {
        return Ok(None);
    }
    real(spec).await
}

#[cfg(feature = "aws")]
async fn real(spec: &Spec) -> Result<Option<Arc<dyn Cloud>>, Failure> {
    let aws = crate::cloud::aws::connect(&spec.aws).await.map_err(|error| Failure::usage(error.to_string()))?;
    Ok(Some(Arc::new(aws)))
}

#[cfg(not(feature = "aws"))]
async fn real(spec: &Spec) -> Result<Option<Arc<dyn Cloud>>, Failure> {
    if spec.bastion.host.is_some() {
        return Ok(None);
    }
    Err(Failure::usage(
        "this build has no AWS in it and can make no bastion there: build it with its default features, give [bastion] \
         host = \"user@host\" of one that is there, or try `bartizan demo`",
    ))
}
