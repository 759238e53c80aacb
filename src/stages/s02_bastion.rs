//! 02: the bastion, and the first connection to it with a host key that was known before.

use std::time::Duration;

use async_trait::async_trait;

use crate::cloud::Image;
use crate::cloud::bastion::{self, Bastion};
use crate::cloud::blueprint::BastionInputs;
use crate::cloud::ledger::{Ledger, Lost};
use crate::cloud::userdata::HostKeyPair;
use crate::cloud::vpc::Network;
use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::Cmd;
use crate::host::ssh::public_half;
use crate::model::event::{Action, Evidence};
use crate::spec::{BastionOs, MirrorKind, MirrorRuntime, Spec};

use super::s01_infrastructure::{ledger, ledger_error};
use super::s08_install::cluster;
use super::world::{Cx, World, action, cloud_error, exec, fact, must};

/// Key pair, security group, instance, address, DNS record.
pub struct Machine;

/// The first command over SSH.
pub struct Connection;

/// Programs that the image lacks.
pub struct Packages;

/// The work directory and the room that the mirror needs.
pub struct Room;

/// Least free space for a release of one architecture, in GiB; less is a warning (the plan knows the exact bytes).
const ROOM_GIB: u64 = 40;

/// `id=zone,id=zone`, as stage 01 records subnets.
pub(super) fn pairs(text: &str) -> Vec<(String, String)> {
    text.split(',').filter_map(|pair| pair.split_once('=')).map(|(id, zone)| (id.to_owned(), zone.to_owned())).collect()
}

fn inputs(cx: &Cx, operator: &str) -> Result<BastionInputs, StepError> {
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
    BastionInputs::new(&network, operator, &public_key).map_err(ledger_error)
}

/// Who may reach port 22, as far as it is known.
fn operator(cx: &Cx) -> Option<String> {
    cx.world.spec.bastion.operator_cidr.clone().or_else(|| cx.fact(fact::BASTION_OPERATOR))
}

/// A service of AWS that says who asks.
const WHO_ASKS: &str = "https://checkip.amazonaws.com/";

/// Where the operator is, when port 22 is open to somewhere else: people move, and providers give them other addresses.
async fn moved(cx: &Cx) -> Option<String> {
    let known = cx.fact(fact::BASTION_OPERATOR).filter(|_| cx.world.spec.bastion.operator_cidr.is_none())?;
    // Who cannot ask goes on with what is known.
    own_address(cx, Duration::from_secs(5)).await.ok().filter(|now| *now != known)
}

/// This machine's address as the internet sees it.
async fn own_address(cx: &Cx, limit: Duration) -> Result<String, StepError> {
    let started = std::time::Instant::now();
    let asked = async {
        let client = reqwest::Client::builder().timeout(limit).build()?;
        client.get(WHO_ASKS).send().await?.error_for_status()?.text().await
    };
    let answer = asked.await;
    let request = Action::Http { request: format!("GET {WHO_ASKS}") };
    cx.acted(request, Some(i32::from(answer.is_err())), started.elapsed()).await;
    let hint = "give this machine's public address, for example operator_cidr = \"203.0.113.7/32\"";
    let text = answer.map_err(|error| {
        let error = error.without_url();
        StepError::transient(format!("asking {WHO_ASKS} who may reach port 22: {error}")).hint(hint)
    })?;
    let address: std::net::Ipv4Addr = text.trim().parse().map_err(|_| {
        StepError::fatal("bastion.operator_cidr is not set, and this machine has no public IPv4 address").hint(hint)
    })?;
    Ok(format!("{address}/32"))
}

/// The image that this run's bastion has: looked up once.
async fn image(cx: &Cx, ledger: &Ledger) -> Result<Image, StepError> {
    let known = cx.fact(fact::BASTION_IMAGE).and_then(|text| serde_json::from_str::<Image>(&text).ok());
    let other = |image: &Image| cx.world.spec.bastion.ami.as_ref().is_some_and(|ami| *ami != image.id);
    if let Some(image) = known.filter(|image| !other(image)) {
        return Ok(image);
    }
    let image = bastion::image(ledger, &cx.world.spec).await.map_err(|error| {
        ledger_error(error).hint("name an image of your own in bastion.ami when this region has none of bastion.os")
    })?;
    let text = serde_json::to_string(&image).map_err(|error| StepError::fatal(error.to_string()))?;
    cx.set_fact(fact::BASTION_IMAGE, text).await;
    Ok(image)
}

/// Where the bastion is, for all that comes.
async fn keep(cx: &Cx, made: &Bastion) {
    cx.set_fact(fact::BASTION_INSTANCE, &made.instance).await;
    cx.set_fact(fact::BASTION_PRIVATE_IP, &made.private_ip).await;
    cx.set_fact(fact::BASTION_ADDRESS, made.address()).await;
}

/// A bastion that went behind our back. Another one takes its place; but not that of the one by which a cluster lives.
async fn lost(cx: &Cx, ledger: &Ledger) -> Result<Option<Lost>, StepError> {
    let spec = &cx.world.spec;
    let lost = ledger.lost(&bastion::object(spec)).await.map_err(ledger_error)?;
    let begun = cluster(cx).ok().and_then(|object| cx.model.objects.get(&object));
    match lost {
        Some(lost) if begun.is_some_and(|record| record.gone.is_none()) => {
            let infra_id = cx.fact(fact::INFRA_ID).unwrap_or_else(|| spec.cluster.name.clone());
            let text = format!(
                "the bastion {} is {}, and with it the mirror and the install directory, by which the cluster {infra_id} \
                 lives",
                lost.id, lost.how
            );
            Err(StepError::fatal(text).hint(format!(
                "`bartizan cleanup {} --confirm {}` deletes what carries the cluster's tag, and then the network; begin anew \
                 after that",
                cx.model.run, spec.cluster.name
            )))
        }
        lost => Ok(lost),
    }
}

/// The bastion, running again if somebody has stopped it, at the address that it has now. `None` when it is gone.
pub(super) async fn wake(cx: &Cx) -> Result<Option<()>, StepError> {
    let woken = bastion::wake(&ledger(cx)?, &cx.world.spec).await.map_err(ledger_error)?;
    let Some(made) = woken else { return Ok(None) };
    keep(cx, &made).await;
    Ok(Some(()))
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
        let (Some(_), Some(operator)) = (cx.fact(fact::BASTION_INSTANCE), operator(cx)) else {
            return Ok(Probe::Missing("nothing was made yet".into()));
        };
        if let Some(now) = moved(cx).await {
            return Ok(Probe::Missing(format!("port 22 is open to {operator}, and this machine is {now} now")));
        }
        let inputs = inputs(cx, &operator)?;
        let spec = &cx.world.spec;
        let (made, survey) = bastion::survey_bastion(&ledger(cx)?, spec, &inputs).await.map_err(ledger_error)?;
        let Some(made) = made else { return Ok(Probe::Missing(survey.missing.join(", "))) };
        // A machine that was stopped and started again has another public address.
        let known = [(fact::BASTION_INSTANCE, made.instance.as_str()), (fact::BASTION_ADDRESS, made.address())];
        for (key, now) in known {
            if let Some(was) = cx.fact(key).filter(|was| was != now) {
                return Ok(Probe::Missing(format!("{key} was {was} and is {now}")));
            }
        }
        Ok(Probe::True(survey.evidence))
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let spec = &cx.world.spec;
        let operator = match (moved(cx).await, operator(cx)) {
            (None, Some(operator)) => operator,
            (now, _) => {
                let own = match now {
                    Some(now) => now,
                    None => own_address(cx, Duration::from_secs(20)).await?,
                };
                cx.set_fact(fact::BASTION_OPERATOR, own.clone()).await;
                own
            }
        };
        let ledger = ledger(cx)?;
        let lost = lost(cx, &ledger).await?;
        let host_key = match &cx.world.host_key {
            Some(private) => {
                let public =
                    public_half(private).ok_or_else(|| StepError::fatal("the kept host key is no OpenSSH key"))?;
                Some(HostKeyPair { private: private.clone(), public })
            }
            None => None,
        };
        let mut inputs = inputs(cx, &operator)?.tell(spec, host_key.as_ref()).map_err(ledger_error)?;
        inputs.image = Some(image(cx, &ledger).await?);
        let made = bastion::ensure_bastion(&ledger, spec, &inputs).await.map_err(ledger_error)?;
        keep(cx, &made).await;
        Ok(match lost {
            Some(lost) => Ran::Warning(format!(
                "the bastion {} is {}; {} takes its place, and what was on it is brought again",
                lost.id, lost.how, made.instance
            )),
            None => Ran::Ok,
        })
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        let instance = cx.need(fact::BASTION_INSTANCE)?;
        let state = cx.world.cloud()?.get(crate::cloud::Kind::Instance, &instance).await.map_err(cloud_error)?.state;
        if state != "running" {
            return Err(StepError::transient(format!("{instance} is {state}")));
        }
        Ok(vec![Evidence::new(format!("ec2:DescribeInstances {instance}"), state)])
    }
}

/// Who and where: the first thing asked of a bastion.
pub(super) fn hello() -> Cmd {
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

/// Where the packages of RHEL and Amazon Linux put it; users have no such folder on their PATH.
pub(super) const SQUID: &str = "/usr/sbin/squid";

/// Programs that will be needed, with their packages.
fn wanted(spec: &Spec) -> Vec<(&'static str, &'static str)> {
    let mut programs = Vec::new();
    // CoreOS has podman in its image, and runs everything in it.
    if spec.bastion.host.is_some() || spec.bastion.os.is_coreos() {
        return programs;
    }
    let registry = spec.mirror.kind == MirrorKind::Managed && spec.mirror.runtime != MirrorRuntime::Binary;
    if registry && spec.bastion.os != BastionOs::Al2023 {
        programs.push(("podman", "podman"));
    }
    if spec.runs_proxy() {
        programs.push((SQUID, "squid"));
    }
    programs
}

pub(super) fn look_for(program: &str) -> Cmd {
    Cmd::sh("command -v \"$1\"").arg(program)
}

fn install(packages: &[&str]) -> Cmd {
    Cmd::new("dnf")
        .args(["-y", "-q", "--setopt=install_weak_deps=False", "install"])
        .args(packages.iter().copied())
        .sudo()
        .timeout(Some(Duration::from_secs(1200)))
}

/// The packages whose programs are not there.
async fn lacking(cx: &Cx) -> Result<Vec<&'static str>, StepError> {
    let bastion = cx.world.bastion(cx)?;
    let mut lacking = Vec::new();
    for (program, package) in wanted(&cx.world.spec) {
        if !exec(cx, &bastion, look_for(program)).await?.ok() {
            lacking.push(package);
        }
    }
    Ok(lacking)
}

#[async_trait]
impl Step<World> for Packages {
    fn preview(&self, world: &World) -> Vec<Action> {
        let packages: Vec<&str> = wanted(&world.spec).into_iter().map(|(_, package)| package).collect();
        if packages.is_empty() { Vec::new() } else { vec![action("bastion", &install(&packages))] }
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        let programs = wanted(&cx.world.spec);
        if programs.is_empty() {
            return Ok(Probe::NotApplicable("nothing has to be installed".into()));
        }
        let lacking = lacking(cx).await?;
        Ok(if lacking.is_empty() {
            Probe::True(programs.into_iter().map(|(program, _)| Evidence::new(look_for(program).line(), "0")).collect())
        } else {
            Probe::Missing(format!("{} not installed", lacking.join(" and ")))
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let lacking = lacking(cx).await?;
        must(cx, &cx.world.bastion(cx)?, install(&lacking)).await.map_err(|error| {
            error.hint("the image needs repositories (RHEL: the RHUI of an hourly image, or a registered system)")
        })?;
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        match self.probe(cx).await? {
            Probe::True(evidence) => Ok(evidence),
            Probe::Missing(why) | Probe::NotApplicable(why) => Err(StepError::transient(why)),
        }
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
