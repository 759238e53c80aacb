//! The installer's directory, and what it made.

use async_trait::async_trait;

use crate::diagnose::recovery::Because;
use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::Cmd;
use crate::model::event::{Action, Evidence};
use crate::stages::live;
use crate::stages::s07_install_config::InstallConfig;
use crate::stages::s08_install::{phase_evidence, standing};
use crate::stages::s10_cleanup::{cluster_is_gone, destroy_cluster};
use crate::stages::world::{Cx, World, action, exec, fact, must};

/// Good for so long are the certificates that Ignition brings (openshift/installer, `pkg/asset/tls`).
const DAY_MINUTES: &str = "+1440";

/// Why what the installer made has to go; `Err` says why it may stay.
async fn reason(cx: &Cx, because: Because) -> Result<Result<String, String>, StepError> {
    let infra_id = match standing(cx)? {
        Ok(infra_id) => infra_id,
        Err(why) => return Ok(Err(why)),
    };
    let complete = phase_evidence(cx, "complete").is_some();
    let changed = match InstallConfig.probe(cx).await? {
        Probe::Missing(why) => Some(format!("{infra_id} stands: {why}")),
        _ => None,
    };
    Ok(match because {
        Because::Asked if !complete => Ok(format!("{infra_id} stands, and is not complete")),
        Because::Asked | Because::ConfigChanged => {
            changed.ok_or_else(|| format!("{infra_id} would be installed the same again"))
        }
        Because::LoginMissing => match changed {
            Some(why) => Ok(why),
            None => login(cx).await?,
        },
        Because::Expired if complete => Err(format!("{infra_id} is complete")),
        Because::Expired => {
            let state = format!("{}/.openshift_install_state.json", cx.need(fact::INSTALL_DIR)?);
            let old = Cmd::new("find").arg(&state).args(["-mmin", DAY_MINUTES]);
            match must(cx, &cx.world.bastion(cx)?, old).await?.text().is_empty() {
                true => Err(format!("{state} is less than a day old")),
                false => Ok(format!("{infra_id} stands, and its assets are more than a day old")),
            }
        }
    })
}

/// Whether the nodes lack the login, by what the bootstrap machine has: all get the same one.
async fn login(cx: &Cx) -> Result<Result<String, String>, StepError> {
    if cx.fact(fact::BOOTSTRAP_ADDRESS).is_none() || cx.fact(fact::BOOTSTRAP_LEFT) == cx.fact(fact::INSTALL_DIR) {
        return Ok(Err("there is no bootstrap machine that could be asked".into()));
    }
    let registry = cx.world.spec.registry();
    let ask = Cmd::sh("grep -qF \"\\\"$1\\\"\" /root/.docker/config.json").sudo().arg(&registry);
    Ok(match exec(cx, &cx.world.bootstrap(cx).await?, ask).await?.status {
        0 => Err(format!("the nodes have a login for {registry}")),
        1 => Ok(format!("the pull secret of the nodes has no login for {registry}")),
        status => return Err(StepError::transient(format!("asking the bootstrap machine ended with status {status}"))),
    })
}

pub(super) struct DestroyCluster {
    pub because: Because,
}

#[async_trait]
impl Step<World> for DestroyCluster {
    fn preview(&self, _world: &World) -> Vec<Action> {
        vec![action("bastion", &Cmd::new("openshift-install").args(["destroy", "cluster"]))]
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        Ok(match reason(cx, self.because).await? {
            Ok(why) => Probe::Missing(why),
            Err(why) => Probe::NotApplicable(why),
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        live::stop(cx).await;
        destroy_cluster(cx).await?;
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        cluster_is_gone(cx).await
    }
}

pub(super) struct NewInstallDir;

#[async_trait]
impl Step<World> for NewInstallDir {
    fn preview(&self, _world: &World) -> Vec<Action> {
        Vec::new()
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        let Some(directory) = cx.fact(fact::INSTALL_DIR) else {
            return Ok(Probe::True(vec![Evidence::new("install directory", "the next one is new")]));
        };
        // One that holds the state of a cluster is not left.
        Ok(match standing(cx)? {
            Ok(infra_id) => Probe::NotApplicable(format!("{directory} is the one of {infra_id}, which stands")),
            Err(_) => Probe::Missing(format!("{directory} was used")),
        })
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
