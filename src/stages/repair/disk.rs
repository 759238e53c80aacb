//! Room on the disk of the mirror.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use crate::cloud::{Cloud, Kind, Resource, describe};
use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::Cmd;
use crate::model::event::{Action, Evidence};
use crate::stages::s02_bastion::free_kib;
use crate::stages::s05_mirror_registry::directory;
use crate::stages::world::{Cx, World, action, cloud_error, exec, fact, must};

/// Space that a finished sync should leave, besides its own bytes.
const SPARE_KIB: u64 = 64 * 1024;
const LARGEST_GIB: u64 = 2048;

/// Free space where the mirror keeps its data.
fn free(directory: &str) -> Cmd {
    Cmd::sh("df -Pk \"$1\" | tail -n 1").arg(directory)
}

/// What nobody uses: uploads that ended without a blob (all of them, no copier runs now), oc-mirror's cache, and images that
/// no container of the bastion's podman has.
fn reclaim(directory: &str) -> Cmd {
    Cmd::sh(RECLAIM).arg(directory).timeout(Some(Duration::from_secs(600)))
}

const RECLAIM: &str = r#"find "$1/data" -type d -name _uploads -exec rm -rf {} + 2>/dev/null
rm -rf "$HOME/.oc-mirror/.cache"
if command -v podman >/dev/null; then podman image prune -f >/dev/null 2>&1; fi
exit 0"#;

/// After the volume grew: the partition that holds the file system, then the file system itself.
fn grow(directory: &str) -> Cmd {
    Cmd::sh(GROW).sudo().arg(directory).timeout(Some(Duration::from_secs(120)))
}

const GROW: &str = r#"set -- $(df -PT "$1" | tail -n 1)
device=$1; kind=$2; mount=$7
case $device in
  /dev/nvme*p[0-9]*) growpart "${device%p*}" "${device##*p}" ;;
  /dev/*[0-9]) growpart "${device%[0-9]}" "${device#"${device%[0-9]}"}" ;;
esac
case $kind in
  xfs) xfs_growfs "$mount" ;;
  *) resize2fs "$device" ;;
esac"#;

fn wanted_kib(cx: &Cx) -> u64 {
    let sync = &cx.model.sync;
    sync.bytes.saturating_sub(sync.present_bytes + sync.moved()) / 1024 + SPARE_KIB
}

async fn room_kib(cx: &Cx) -> Result<u64, StepError> {
    let output = must(cx, &cx.world.bastion(cx)?, free(&directory(cx)?)).await?;
    free_kib(&output.text()).ok_or_else(|| StepError::fatal(format!("df says {:?}", output.text())))
}

async fn enough(cx: &Cx) -> Result<Probe, StepError> {
    let (free, wanted) = (room_kib(cx).await?, wanted_kib(cx));
    Ok(if free > wanted {
        Probe::True(vec![Evidence::new("df", format!("{} MiB free", free / 1024))])
    } else {
        Probe::Missing(format!("{} MiB are free, {} are needed", free / 1024, wanted / 1024))
    })
}

async fn proof(cx: &Cx) -> Result<Vec<Evidence>, StepError> {
    match enough(cx).await? {
        Probe::True(evidence) => Ok(evidence),
        Probe::Missing(why) | Probe::NotApplicable(why) => Err(StepError::fatal(why)),
    }
}

/// Takes away what nobody uses.
pub(super) struct PruneDisk;

#[async_trait]
impl Step<World> for PruneDisk {
    fn preview(&self, world: &World) -> Vec<Action> {
        vec![action("bastion", &reclaim(&format!("~/{}", world.spec.mirror.storage)))]
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        enough(cx).await
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        must(cx, &cx.world.bastion(cx)?, reclaim(&directory(cx)?)).await?;
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        proof(cx).await
    }
}

/// The volume of an instance: a bastion has one.
async fn root_volume(cloud: &dyn Cloud, instance: &str) -> Result<Resource, StepError> {
    let machine = cloud.get(Kind::Instance, instance).await.map_err(cloud_error)?;
    // It was made with the machine, and has its tags.
    let tags = machine.tags.iter().filter(|(name, _)| name.starts_with("bartizan."));
    let tags = tags.map(|(name, value)| (name.clone(), value.clone())).collect();
    let volumes = cloud.find(Kind::Volume, &tags).await.map_err(cloud_error)?;
    let own = volumes.into_iter().find(|volume| volume.property("InstanceId") == Some(instance));
    own.ok_or_else(|| StepError::fatal(format!("{instance} has no volume with its tags")))
}

/// Makes the volume larger, then what is on it.
pub(super) struct GrowDisk;

#[async_trait]
impl Step<World> for GrowDisk {
    fn preview(&self, world: &World) -> Vec<Action> {
        if !world.makes_bastion() || world.cloud.is_none() {
            return Vec::new();
        }
        vec![
            Action::Api { call: "ec2:ModifyVolume Size=<twice as large>".into() },
            action("bastion", &grow(&format!("~/{}", world.spec.mirror.storage))),
        ]
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        enough(cx).await
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let bastion = cx.world.bastion(cx)?;
        let directory = directory(cx)?;
        let (Some(cloud), Some(instance)) = (cx.world.cloud.clone(), cx.fact(fact::BASTION_INSTANCE)) else {
            return Err(StepError::fatal("this bastion's disk is not ours to grow")
                .hint("grow its disk or move mirror.storage, then retry"));
        };
        let volume = root_volume(&*cloud, &instance).await?;
        let size = volume.property("Size").and_then(|size| size.parse::<u64>().ok()).unwrap_or(0);
        let missing_gib = wanted_kib(cx).div_ceil(1 << 20);
        let next = (size + missing_gib).max(size.saturating_mul(2)).min(LARGEST_GIB);
        if next <= size {
            return Err(StepError::fatal(format!("the bastion's disk has {size} GiB already")));
        }
        let change = BTreeMap::from([("Size".to_owned(), next.to_string())]);
        let call = describe::modify(Kind::Volume, &volume.id, &change).join("; ");
        cloud.modify(Kind::Volume, &volume.id, &change).await.map_err(cloud_error)?;
        cx.acted(Action::Api { call }, Some(0), Duration::ZERO).await;
        // The kernel sees the new size a moment later.
        for _ in 0..10 {
            exec(cx, &bastion, grow(&directory)).await?;
            if room_kib(cx).await? > wanted_kib(cx) {
                return Ok(Ran::Ok);
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        Err(StepError::transient("the volume has grown, but the file system has not"))
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        proof(cx).await
    }
}
