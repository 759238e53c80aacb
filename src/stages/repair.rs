//! The engine's hands: probes of checklists, and the fixes of recoveries as steps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::cloud::Kind;
use crate::cluster;
use crate::cluster::csr::Request;
use crate::diagnose::Checklists;
use crate::diagnose::recovery::{Fix, Recovery as Plan, Resume as ResumeAt};
use crate::engine::{Hands, Probe, Ran, Recovery, Resume, Step, StepError};
use crate::host::Cmd;
use crate::model::event::{Action, CsrState, Data, Evidence, Finding, ImageState, Level, SyncEvent};
use crate::model::plan::StepId;
use crate::registry::agent::Action as Asked;

use super::certificate;
use super::live;
use super::s02_bastion::free_kib;
use super::s04_tools::tool;
use super::s05_mirror_registry::{answers, ca_path, directory};
use super::s06_image_sync::{agent, complain, leave_out, left_out, whole_request};
use super::s10_cleanup::destroy_cluster;
use super::world::{Cx, World, action, cloud_error, exec, fact, get, must, sha256};

/// What the runner is given.
pub struct Repair {
    pub checklists: Checklists,
}

/// Facts as checklists know them.
fn facts(cx: &Cx) -> BTreeMap<String, String> {
    let spec = &cx.world.spec;
    let known = [
        ("registry", Some(spec.registry())),
        ("mirror_ca", ca_path(cx).ok()),
        ("storage", directory(cx).ok()),
        ("component_repository", Some(spec.mirror.component_repository.clone())),
        ("release_repository", Some(spec.mirror.release_repository.clone())),
        ("domain", Some(spec.domain())),
        ("region", Some(spec.aws.region.clone())),
        ("version", Some(spec.release.version.clone())),
        ("infra_id", cx.fact(fact::INFRA_ID)),
        ("vpc", cx.fact(fact::VPC)),
        ("install_dir", cx.fact(fact::INSTALL_DIR)),
        ("workdir", cx.fact(fact::WORKDIR)),
    ];
    known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

#[async_trait]
impl Hands<World> for Repair {
    async fn check(&self, cx: &Cx, finding: &Finding) {
        let bastion = cx.world.bastion(cx).ok();
        let bootstrap = match cx.fact(fact::BOOTSTRAP_ADDRESS) {
            Some(_) => cx.world.bootstrap(cx).await.ok(),
            None => None,
        };
        let local: Arc<dyn crate::host::Host> = Arc::new(crate::host::local::LocalHost::default());
        let hosts = move |name: &str| match name {
            "bastion" => bastion.clone(),
            "bootstrap" => bootstrap.clone(),
            "local" => Some(local.clone()),
            _ => None,
        };
        self.checklists.run(finding, &facts(cx), &hosts, &cx.sink).await;
    }

    fn recovery(&self, finding: &Finding) -> Option<Recovery<World>> {
        let plan = Plan::for_finding(finding)?;
        let fixes = plan.fixes.iter().map(|fix| step(fix)).collect();
        let resume = match plan.resume {
            ResumeAt::Live => Resume::Live,
            ResumeAt::Stage(stage) => Resume::From(stage),
        };
        Some(Recovery { id: plan.id, title: plan.title, automatic: plan.automatic, resume, fixes })
    }

    /// The diagnosis task reads failed steps from the run's events itself.
    async fn classify(&self, _cx: &Cx, _causes: &[String]) {}

    async fn resync(&self, cx: &Cx, image: &str) -> Result<(), StepError> {
        // Rows of another engine have names of their own; a digest means the same to all.
        let row =
            cx.model.sync.images.iter().find(|record| record.image.name == image && !record.image.digest.is_empty());
        let digest = row.map_or(image, |record| &record.image.digest).to_owned();
        let (again, rest): (Vec<_>, Vec<_>) =
            left_out(cx).into_iter().partition(|name| name == image || *name == digest);
        if !again.is_empty() {
            leave_out(cx, &rest).await?;
        }
        let cx = &cx.fresh(0).await;
        let request = whole_request(cx, Asked::OneImage, Some(vec![digest.clone()])).await?;
        let report = agent(cx, &one_image(&digest), &request).await?;
        complain(&report).map_or(Ok(()), Err)
    }

    async fn leave_out(&self, cx: &Cx, image: &str) -> Result<(), StepError> {
        let mut names = left_out(cx);
        if !names.iter().any(|name| name == image) {
            names.push(image.to_owned());
        }
        leave_out(cx, &names).await?;
        let (image, state) = (image.to_owned(), ImageState::Skipped);
        cx.sink.emit(Data::Sync(SyncEvent::ImageState { image, state, attempt: 1 })).await;
        Ok(())
    }

    async fn approve_csr(&self, cx: &Cx, name: &str) -> Result<(), StepError> {
        approve(cx, &[name.to_owned()]).await
    }
}

fn step(fix: &Fix) -> (StepId, Arc<dyn Step<World>>) {
    let named = |name: &str| StepId::new(format!("recovery/{name}"));
    match fix {
        Fix::ResyncImage { digest } => (named("resync-image"), Arc::new(ResyncImage { digest: digest.clone() })),
        Fix::FetchMirrorCa => (named("fetch-mirror-ca"), Arc::new(FetchMirrorCa)),
        Fix::DestroyCluster => (named("destroy-cluster"), Arc::new(DestroyCluster)),
        Fix::NewInstallDir => (named("new-install-dir"), Arc::new(NewInstallDir)),
        Fix::MakeRoom => (named("make-room"), Arc::new(MakeRoom)),
        Fix::ApproveCsrs => (named("approve-csrs"), Arc::new(ApproveCsrs)),
    }
}

/// The job for an image: several may be copied again at once.
fn one_image(image: &str) -> String {
    let mark: String = sha256(image.as_bytes()).chars().take(12).collect();
    format!("one-image-{mark}")
}

struct ResyncImage {
    digest: String,
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

    async fn probe(&self, _cx: &Cx) -> Result<Probe, StepError> {
        Ok(Probe::Missing(format!("{} is asked for in the mirror as it is copied", self.digest)))
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

struct FetchMirrorCa;

impl FetchMirrorCa {
    /// The CA and the certificate as they stand in the registry's directory.
    async fn read(cx: &Cx) -> Result<(String, String), StepError> {
        let bastion = cx.world.bastion(cx)?;
        let mut texts = Vec::new();
        for path in [ca_path(cx)?, format!("{}/certs/tls.crt", directory(cx)?)] {
            let found = get(&bastion, &path).await?.ok_or_else(|| StepError::fatal(format!("{path} is not there")))?;
            texts.push(String::from_utf8_lossy(&found).into_owned());
        }
        match <[String; 2]>::try_from(texts) {
            Ok([ca, server]) => Ok((ca, server)),
            Err(_) => Err(StepError::fatal("the registry's directory holds no pair")),
        }
    }
}

#[async_trait]
impl Step<World> for FetchMirrorCa {
    fn preview(&self, world: &World) -> Vec<Action> {
        vec![action("bastion", &Cmd::new("cat").arg(format!("~/{}/certs/ca.crt", world.spec.mirror.storage)))]
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        let (ca, _) = Self::read(cx).await?;
        Ok(if cx.fact(fact::MIRROR_CA).as_ref() == Some(&ca) {
            Probe::True(vec![Evidence::new(ca_path(cx)?, "is the CA that the run knows")])
        } else {
            Probe::Missing("the run knows another CA".into())
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let (ca, server) = Self::read(cx).await?;
        if let Some(complaint) = certificate::complaint(&server, &ca, &cx.world.spec.mirror.host) {
            return Err(StepError::fatal(format!("the registry's own directory holds no good pair: {complaint}"))
                .hint(
                    "put the CA that signed certs/tls.crt into certs/ca.crt, or delete both and run stage 05 again",
                ));
        }
        cx.set_fact(fact::MIRROR_CA, ca).await;
        Ok(Ran::Ok)
    }

    /// Over TLS with this CA, as a node will ask.
    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        let ca = cx.need(fact::MIRROR_CA)?;
        Ok(vec![Evidence::new("CA", certificate::subject(&ca).unwrap_or_default()), answers(cx).await?])
    }
}

struct DestroyCluster;

#[async_trait]
impl Step<World> for DestroyCluster {
    fn preview(&self, _world: &World) -> Vec<Action> {
        vec![action("bastion", &Cmd::new("openshift-install").args(["destroy", "cluster"]))]
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        Ok(match cx.fact(fact::INFRA_ID) {
            Some(infra_id) => Probe::Missing(format!("{infra_id} stands")),
            None => Probe::NotApplicable("no cluster was begun".into()),
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        live::stop(cx).await;
        destroy_cluster(cx).await?;
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        super::s10_cleanup::cluster_is_gone(cx).await
    }
}

struct NewInstallDir;

#[async_trait]
impl Step<World> for NewInstallDir {
    fn preview(&self, _world: &World) -> Vec<Action> {
        Vec::new()
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        Ok(Probe::Missing(format!("{} was used", cx.fact(fact::INSTALL_DIR).unwrap_or_default())))
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let number = cx.fact(fact::INSTALL_NUMBER).and_then(|number| number.parse::<u32>().ok()).unwrap_or(1);
        cx.set_fact(fact::INSTALL_NUMBER, (number + 1).to_string()).await;
        // What belonged to the old cluster is forgotten; its record stays.
        for key in [fact::INSTALL_DIR, fact::INFRA_ID, fact::BOOTSTRAP_ADDRESS] {
            cx.set_fact(key, "").await;
        }
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        Ok(vec![Evidence::new("next install directory", format!("install-{}", cx.need(fact::INSTALL_NUMBER)?))])
    }
}

struct MakeRoom;

/// Space that a finished sync should leave, besides its own bytes.
const SPARE_KIB: u64 = 64 * 1024;
const LARGEST_GIB: u64 = 2048;

/// Free space where the mirror keeps its data.
fn free(directory: &str) -> Cmd {
    Cmd::sh("df -Pk \"$1\" | tail -n 1").arg(directory)
}

/// What nobody uses: uploads that ended without a blob (all of them, no copier runs now) and oc-mirror's cache.
fn reclaim(directory: &str) -> Cmd {
    Cmd::sh("find \"$1/data\" -type d -name _uploads -exec rm -rf {} + 2>/dev/null; rm -rf \"$HOME/.oc-mirror/.cache\"; exit 0").arg(directory)
}

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

impl MakeRoom {
    fn wanted_kib(cx: &Cx) -> u64 {
        let sync = &cx.model.sync;
        sync.bytes.saturating_sub(sync.present_bytes + sync.moved()) / 1024 + SPARE_KIB
    }

    async fn free_kib(cx: &Cx) -> Result<u64, StepError> {
        let output = must(cx, &cx.world.bastion(cx)?, free(&directory(cx)?)).await?;
        free_kib(&output.text()).ok_or_else(|| StepError::fatal(format!("df says {:?}", output.text())))
    }
}

#[async_trait]
impl Step<World> for MakeRoom {
    fn preview(&self, world: &World) -> Vec<Action> {
        let directory = format!("~/{}", world.spec.mirror.storage);
        let mut actions = vec![action("bastion", &reclaim(&directory))];
        if world.makes_bastion() && world.cloud.is_some() {
            actions.push(Action::Api { call: "ec2:ModifyVolume Size=<twice as large>".into() });
            actions.push(action("bastion", &grow(&directory)));
        }
        actions
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        let (free, wanted) = (Self::free_kib(cx).await?, Self::wanted_kib(cx));
        Ok(if free > wanted {
            Probe::True(vec![Evidence::new("df", format!("{} MiB free", free / 1024))])
        } else {
            Probe::Missing(format!("{} MiB are free, {} are needed", free / 1024, wanted / 1024))
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let bastion = cx.world.bastion(cx)?;
        let directory = directory(cx)?;
        must(cx, &bastion, reclaim(&directory)).await?;
        if Self::free_kib(cx).await? > Self::wanted_kib(cx) {
            return Ok(Ran::Ok);
        }
        let (Some(cloud), Some(instance)) = (cx.world.cloud.clone(), cx.fact(fact::BASTION_INSTANCE)) else {
            return Err(StepError::fatal("nothing more can be freed, and this bastion's disk is not ours to grow")
                .hint("grow its disk or move mirror.storage, then retry"));
        };
        let now = cloud.get(Kind::Instance, &instance).await.map_err(cloud_error)?;
        let size = now.property("RootVolumeSize").and_then(|size| size.parse::<u64>().ok()).unwrap_or(0);
        let missing_gib = Self::wanted_kib(cx).div_ceil(1 << 20);
        let next = (size + missing_gib).max(size.saturating_mul(2)).min(LARGEST_GIB);
        if next <= size {
            return Err(StepError::fatal(format!("the bastion's disk has {size} GiB already")));
        }
        let size = BTreeMap::from([("RootVolumeSize".to_owned(), next.to_string())]);
        let call = format!("ec2:ModifyVolume of {instance} Size={next}");
        cloud.modify(Kind::Instance, &instance, &size).await.map_err(cloud_error)?;
        cx.acted(Action::Api { call }, Some(0), Duration::ZERO).await;
        // The kernel sees the new size a moment later.
        for _ in 0..10 {
            exec(cx, &bastion, grow(&directory)).await?;
            if Self::free_kib(cx).await? > Self::wanted_kib(cx) {
                return Ok(Ran::Ok);
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        Err(StepError::transient("the volume has grown, but the file system has not"))
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        match self.probe(cx).await? {
            Probe::True(evidence) => Ok(evidence),
            Probe::Missing(why) | Probe::NotApplicable(why) => Err(StepError::fatal(why)),
        }
    }
}

struct ApproveCsrs;

fn pending(cx: &Cx) -> Vec<String> {
    let csrs = &cx.model.cluster_state.csrs;
    csrs.iter().filter(|(_, csr)| csr.state == CsrState::Pending).map(|(name, _)| name.clone()).collect()
}

/// The pending requests that nothing speaks against; the operator is told of the others and why.
async fn harmless(cx: &Cx) -> Result<Vec<String>, StepError> {
    let cmd = oc(cx, &["get", "certificatesigningrequests", "-o", "json"])?;
    let output = must(cx, &cx.world.bastion(cx)?, cmd).await?;
    let objects = cluster::list(&output.stdout).map_err(|error| StepError::transient(error.to_string()))?;
    let mut names = Vec::new();
    for request in objects.iter().filter_map(|object| Request::parse(object).ok()) {
        if request.state != CsrState::Pending {
            continue;
        }
        let reasons = request.hesitations(jiff::Timestamp::now(), &[]);
        if reasons.is_empty() {
            names.push(request.name);
        } else {
            let text = format!("{} was not approved: {}", request.name, reasons.join("; "));
            cx.note(Level::Warn, text).await;
        }
    }
    Ok(names)
}

/// `oc …` with the new cluster's kubeconfig.
pub(super) fn oc(cx: &Cx, args: &[&str]) -> Result<Cmd, StepError> {
    let kubeconfig = format!("{}/auth/kubeconfig", cx.need(fact::INSTALL_DIR)?);
    Ok(tool(cx, "oc")?.arg("--kubeconfig").arg(kubeconfig).args(args.iter().copied()))
}

async fn approve(cx: &Cx, names: &[String]) -> Result<(), StepError> {
    let cmd = oc(cx, &["adm", "certificate", "approve"])?.args(names.iter().cloned());
    must(cx, &cx.world.bastion(cx)?, cmd).await.map(drop)
}

#[async_trait]
impl Step<World> for ApproveCsrs {
    fn preview(&self, _world: &World) -> Vec<Action> {
        vec![action(
            "bastion",
            &Cmd::new("oc").args(["adm", "certificate", "approve", "<each pending request of a node>"]),
        )]
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        Ok(match pending(cx).len() {
            0 => Probe::True(vec![Evidence::new("oc get csr", "none is pending")]),
            count => Probe::Missing(format!("{count} requests are pending")),
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        // Approving the client certificates brings the serving ones, a moment later.
        for _ in 0..3 {
            let names = harmless(cx).await?;
            if !names.is_empty() {
                approve(cx, &names).await?;
            }
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        match pending(cx).as_slice() {
            [] => Ok(vec![Evidence::new("oc get csr", "none is pending")]),
            names => Err(StepError::transient(format!("still pending: {}", names.join(", ")))),
        }
    }
}

/// Records that a thing is gone.
pub(super) async fn gone(cx: &Cx, object: crate::model::event::Object, id: String, proof: impl Into<String>) {
    cx.sink.commit(Data::Gone { object, id, proof: proof.into() }).await;
}
