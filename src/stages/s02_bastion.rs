//! 02: the bastion, and the first connection to it with a host key that was known before.

use std::time::Duration;

use async_trait::async_trait;

use crate::cloud::bastion::{self, host_keys_from_console};
use crate::cloud::blueprint::BastionInputs;
use crate::cloud::vpc::Network;
use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::Cmd;
use crate::model::event::{Action, Evidence};

use super::s01_infrastructure::{ledger, ledger_error};
use super::world::{Cx, World, action, cloud_error, exec, fact, must, wait_for};

/// Key pair, security group, instance, DNS record; and its host keys from the console.
pub struct Machine;

/// The first command over SSH.
pub struct Connection;

/// The work directory and the room that the mirror needs.
pub struct Room;

/// Least free space for a release of one architecture, in GiB; less is a warning (the plan knows the exact bytes).
const ROOM_GIB: u64 = 40;

/// `id=zone,id=zone`, as stage 01 records subnets.
pub(super) fn pairs(text: &str) -> Vec<(String, String)> {
    text.split(',').filter_map(|pair| pair.split_once('=')).map(|(id, zone)| (id.to_owned(), zone.to_owned())).collect()
}

fn inputs(cx: &Cx) -> Result<BastionInputs, StepError> {
    let spec = &cx.world.spec;
    let network = Network {
        vpc: cx.need(fact::VPC)?,
        vpc_cidr: cx.need(fact::MACHINE_NETWORK)?,
        private_subnets: pairs(&cx.need(fact::PRIVATE_SUBNETS)?),
        public_subnets: pairs(&cx.need(fact::PUBLIC_SUBNETS)?),
    };
    let key = &spec.credentials.ssh_public_key;
    let public_key = std::fs::read_to_string(key)
        .map_err(|error| StepError::fatal(format!("reading {}: {error}", key.display())))?;
    let operator = spec.bastion.operator_cidr.clone().ok_or_else(|| {
        StepError::fatal("bastion.operator_cidr is not set: who may reach port 22?")
            .hint("give this machine's public address, for example operator_cidr = \"203.0.113.7/32\"")
    })?;
    BastionInputs::new(&network, &operator, &public_key).map_err(ledger_error)
}

#[async_trait]
impl Step<World> for Machine {
    fn preview(&self, world: &World) -> Vec<Action> {
        bastion::preview(&world.spec)
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        if let Some(host) = &cx.world.spec.bastion.host {
            return Ok(Probe::NotApplicable(format!("{host} is there already")));
        }
        if cx.fact(fact::BASTION_HOST_KEYS).is_none() {
            return Ok(Probe::Missing("nothing was made yet".into()));
        }
        let spec = &cx.world.spec;
        let (made, survey) = bastion::survey_bastion(&ledger(cx)?, spec, &inputs(cx)?).await.map_err(ledger_error)?;
        let known = made.is_some_and(|made| cx.fact(fact::BASTION_INSTANCE) == Some(made.instance));
        Ok(if known { Probe::True(survey.evidence) } else { Probe::Missing(survey.missing.join(", ")) })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let spec = &cx.world.spec;
        let inputs = inputs(cx)?;
        let made = bastion::ensure_bastion(&ledger(cx)?, spec, &inputs).await.map_err(ledger_error)?;
        let address = made.public_ip.clone().unwrap_or_else(|| made.private_ip.clone());
        cx.set_fact(fact::BASTION_INSTANCE, made.instance.clone()).await;
        cx.set_fact(fact::BASTION_PRIVATE_IP, made.private_ip).await;
        cx.set_fact(fact::BASTION_ADDRESS, address).await;
        let cloud = cx.world.cloud()?;
        let what = format!("the host keys of {} on its console", made.instance);
        let keys = wait_for(cx, &what, Duration::from_secs(2), Duration::from_secs(900), || async {
            let console = cloud.console_output(&made.instance).await.map_err(cloud_error)?;
            let keys = host_keys_from_console(&console);
            Ok((!keys.is_empty()).then_some(keys))
        })
        .await?;
        cx.set_fact(fact::BASTION_HOST_KEYS, keys.join("\n")).await;
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        let instance = cx.need(fact::BASTION_INSTANCE)?;
        let state = cx.world.cloud()?.get(crate::cloud::Kind::Instance, &instance).await.map_err(cloud_error)?.state;
        if state != "running" {
            return Err(StepError::transient(format!("{instance} is {state}")));
        }
        let keys = cx.need(fact::BASTION_HOST_KEYS)?.lines().count();
        Ok(vec![
            Evidence::new(format!("ec2:DescribeInstances {instance}"), state),
            Evidence::new(format!("ec2:GetConsoleOutput {instance}"), format!("{keys} host keys")),
        ])
    }
}

/// Who and where: the first thing asked of a bastion.
fn hello() -> Cmd {
    Cmd::sh("printf '%s\\n' \"$HOME\"; id -un; uname -sm")
}

#[async_trait]
impl Step<World> for Connection {
    fn preview(&self, _world: &World) -> Vec<Action> {
        vec![action("bastion", &hello())]
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        let (Some(home), Some(workdir)) = (cx.fact(fact::HOME), cx.fact(fact::WORKDIR)) else {
            return Ok(Probe::Missing("nobody was there yet".into()));
        };
        let output = exec(cx, &cx.world.bastion(cx)?, hello()).await?;
        let same = output.text().lines().next() == Some(home.as_str());
        Ok(if output.ok() && same {
            Probe::True(vec![Evidence::new(hello().line(), output.text().replace('\n', " "))])
        } else {
            Probe::Missing(format!("another home than {home} ({workdir})"))
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let bastion = cx.world.bastion(cx)?;
        let output = must(cx, &bastion, hello()).await?;
        let home = output.text().lines().next().unwrap_or_default().trim_end_matches('/').to_owned();
        if !home.starts_with('/') {
            return Err(StepError::fatal(format!("the bastion says that its home directory is {home:?}")));
        }
        let workdir = &cx.world.spec.bastion.workdir;
        let workdir = if workdir.starts_with('/') { workdir.clone() } else { format!("{home}/{workdir}") };
        cx.set_fact(fact::HOME, home).await;
        cx.set_fact(fact::WORKDIR, workdir).await;
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        let output = must(cx, &cx.world.bastion(cx)?, hello()).await?;
        let way = cx.world.ssh.manual_command("bastion");
        Ok(vec![
            Evidence::new(hello().line(), output.text().replace('\n', " ")),
            Evidence::new("the same by hand", way),
        ])
    }
}

fn make_workdir(workdir: &str) -> Cmd {
    Cmd::sh("umask 077; mkdir -p \"$1/jobs\" && chmod 700 \"$1\" && df -Pk \"$1\" | tail -n 1").arg(workdir)
}

#[async_trait]
impl Step<World> for Room {
    fn preview(&self, world: &World) -> Vec<Action> {
        vec![action("bastion", &make_workdir(&format!("~/{}", world.spec.bastion.workdir)))]
    }

    async fn probe(&self, _cx: &Cx) -> Result<Probe, StepError> {
        Ok(Probe::Missing("the disk is asked each time".into()))
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let output = must(cx, &cx.world.bastion(cx)?, make_workdir(&cx.need(fact::WORKDIR)?)).await?;
        let free = free_kib(&output.text()).unwrap_or(0) / (1 << 20);
        Ok(if free < ROOM_GIB {
            Ran::Warning(format!("{free} GiB are free where a release needs 20 to 25 and {ROOM_GIB} are comfortable"))
        } else {
            Ran::Ok
        })
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        let cmd = make_workdir(&cx.need(fact::WORKDIR)?);
        let output = must(cx, &cx.world.bastion(cx)?, cmd.clone()).await?;
        Ok(vec![Evidence::new(cmd.line(), output.text())])
    }
}

/// The fourth column of `df -Pk`.
pub(super) fn free_kib(line: &str) -> Option<u64> {
    line.split_whitespace().nth(3)?.parse().ok()
}
