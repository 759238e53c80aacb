//! How large the bastion's disk has to be for what will be mirrored. Estimates, in GiB, on the safe side.

use super::{MirrorEngine, MirrorKind, Spec, Subset};

/// One part of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    pub what: &'static str,
    pub gib: u32,
}

/// System, clients, installer directory and logs.
const SYSTEM: u32 = 30;
/// One release of one architecture takes 20 to 25 in a registry.
const RELEASE: u32 = 40;
const CORE: u32 = 10;
const IMAGE: u32 = 2;
/// Less than this leaves no room for a second release.
const LEAST: u32 = 120;

/// What needs room on the bastion.
pub fn shares(spec: &Spec) -> Vec<Share> {
    let release = if spec.mirror.subset == Subset::All { RELEASE } else { CORE };
    let images = IMAGE.saturating_mul(u32::try_from(spec.mirror.additional_images.len()).unwrap_or(u32::MAX));
    let content = release.saturating_add(images);
    let mut shares = vec![Share { what: "system and tools", gib: SYSTEM }];
    if spec.mirror.kind == MirrorKind::Managed {
        shares.push(Share { what: "the mirror", gib: content });
    }
    if spec.mirror.engine == MirrorEngine::OcMirror {
        shares.push(Share { what: "the cache of oc-mirror", gib: content });
    }
    shares
}

/// Size of the bastion's disk: what the spec says, else the sum of its shares in tens.
pub fn bastion_disk_gib(spec: &Spec) -> u32 {
    /// EBS gp3 ends here.
    const MOST: u32 = 16384;
    let sum = shares(spec).iter().fold(0u32, |sum, share| sum.saturating_add(share.gib));
    spec.bastion.disk_gib.unwrap_or(sum.div_ceil(10).saturating_mul(10).clamp(LEAST, MOST))
}
