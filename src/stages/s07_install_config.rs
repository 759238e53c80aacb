//! 07: install-config. The installer eats what it reads, and its state makes later edits silently
//! ineffective: so every install directory is used for one cluster, and a copy of install-config stays beside it.

use async_trait::async_trait;
use jiff::Timestamp;

use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::{Cmd, Stdin};
use crate::model::event::{Action, Evidence};
use crate::registry::outputs::DigestSource;
use crate::spec::Secret;
use crate::spec::install_config::{InstallInputs, render};

use super::s02_bastion::pairs;
use super::s03_credentials::{aws_credentials, merged};
use super::s04_tools::tool;
use super::s07_asked;
use super::s07_ignition::{too_late, until};
use super::s08_install::standing;
use super::world::{Cx, World, exec, fact, file, get, must, put, sha256};

/// install-config.yaml, checked as the installer would.
pub struct InstallConfig;

fn number(cx: &Cx) -> u32 {
    cx.fact(fact::INSTALL_NUMBER).and_then(|number| number.parse().ok()).unwrap_or(1)
}

fn directory(cx: &Cx) -> Result<String, StepError> {
    Ok(format!("{}/install-{}", cx.need(fact::WORKDIR)?, number(cx)))
}

/// Once the cluster is being made the manifests are eaten; this tells of that.
pub(super) const METADATA: &str = "metadata.json";

/// `openshift-install …` in the install directory, with what the bastion needs in its environment.
pub(super) fn installer(cx: &Cx, args: &[&str]) -> Result<Cmd, StepError> {
    installer_in(cx, args, &cx.need(fact::INSTALL_DIR)?)
}

/// The same in another directory.
pub(super) fn installer_in(cx: &Cx, args: &[&str], directory: &str) -> Result<Cmd, StepError> {
    let mut cmd = tool(cx, "openshift-install")?.args(args.iter().copied()).arg("--dir").arg(directory);
    cmd = cmd.args(["--log-level", "debug"]);
    let workdir = cx.need(fact::WORKDIR)?;
    if cx.world.spec.aws.profile.is_some() {
        cmd = cmd.env("AWS_SHARED_CREDENTIALS_FILE", aws_credentials(&workdir));
    }
    if cx.world.spec.release.pull_spec.is_some()
        && let Some(release) = cx.fact(fact::MIRROR_PULL_SPEC)
    {
        // Only a release that the installer was not built for has to be named.
        cmd = cmd.env("OPENSHIFT_INSTALL_RELEASE_IMAGE_OVERRIDE", release);
    }
    Ok(cmd)
}

fn rendered(cx: &Cx) -> Result<Secret, StepError> {
    let spec = &cx.world.spec;
    let existing = spec.network.existing.as_ref();
    let private_subnets = match (cx.fact(fact::PRIVATE_SUBNETS), existing) {
        (Some(subnets), _) => pairs(&subnets),
        (None, Some(existing)) => existing.private_subnets.iter().map(|id| (id.clone(), String::new())).collect(),
        (None, None) => {
            return Err(StepError::fatal("no private subnets are known")
                .hint("give [network.existing] vpc_id and private_subnets, or let bartizan make the network"));
        }
    };
    let public_subnets = match (cx.fact(fact::PUBLIC_SUBNETS), existing) {
        (Some(subnets), _) => pairs(&subnets),
        (None, Some(existing)) => existing.public_subnets.iter().map(|id| (id.clone(), String::new())).collect(),
        (None, None) => Vec::new(),
    };
    let sources: Vec<DigestSource> = serde_json::from_str(&cx.need(fact::IMAGE_SOURCES)?)
        .map_err(|error| StepError::fatal(format!("the recorded image sources are broken: {error}")))?;
    let key = &spec.credentials.ssh_public_key;
    let ssh_public_key = std::fs::read_to_string(key)
        .map_err(|error| StepError::fatal(format!("reading {}: {error}", key.display())))?;
    let inputs = InstallInputs {
        machine_network: cx.fact(fact::MACHINE_NETWORK).unwrap_or_else(|| spec.network.vpc_cidr.clone()),
        private_subnets,
        public_subnets,
        trust_bundle_pem: cx.need(fact::MIRROR_CA)?,
        pull_secret_merged: merged(&cx.world)?,
        ssh_public_key: ssh_public_key.trim().to_owned(),
        image_sources: sources
            .into_iter()
            .flat_map(|source| source.mirrors.into_iter().map(move |mirror| (source.source.clone(), mirror)))
            .collect(),
        hosted_zone: None,
        ami: None,
        proxy: super::s02_proxy::proxy_inputs(cx)?,
    };
    render(spec, &inputs).map_err(|error| StepError::fatal(error.to_string()))
}

#[async_trait]
impl Step<World> for InstallConfig {
    fn preview(&self, world: &World) -> Vec<Action> {
        let workdir = format!("~/{}", world.spec.bastion.workdir);
        vec![
            file("bastion", &format!("{workdir}/install-1/install-config.yaml"), 0o600),
            file("bastion", &format!("{workdir}/install-1.install-config.yaml"), 0o600),
        ]
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        let directory = directory(cx)?;
        if cx.fact(fact::INSTALL_DIR).as_ref() != Some(&directory) {
            return Ok(Probe::Missing(format!("{directory} is not written yet")));
        }
        let digest = sha256(rendered(cx)?.reveal().as_bytes());
        let bastion = cx.world.bastion(cx)?;
        let kept = get(&bastion, &format!("{directory}.install-config.yaml")).await?;
        if let Some(until) = until(cx, &directory).filter(|until| too_late(*until, Timestamp::now()))
            && get(&bastion, &format!("{directory}/{METADATA}")).await?.is_none()
        {
            // Whatever is made in it is signed with them.
            return Ok(Probe::Missing(format!("the certificates of {directory} end at {until}: a new one is needed")));
        }
        Ok(match kept {
            None => Probe::Missing("the copy of install-config.yaml is not there".into()),
            Some(kept) if sha256(&kept) != digest => {
                Probe::Missing("install-config.yaml would be another one now".into())
            }
            Some(_) => Probe::True(vec![Evidence::new(format!("sha256 of {directory}.install-config.yaml"), digest)]),
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let bastion = cx.world.bastion(cx)?;
        let mut directory = directory(cx)?;
        let used = |directory: &str| {
            Cmd::sh("[ -e \"$1/metadata.json\" ] || [ -e \"$1/.openshift_install_state.json\" ]").arg(directory)
        };
        if exec(cx, &bastion, used(&directory)).await?.ok() {
            if cx.fact(fact::INSTALL_DIR).is_some()
                && let Ok(infra_id) = standing(cx)?
            {
                let why = format!("{infra_id} stands, which {directory} was made for with another install-config.yaml");
                return Err(StepError::fatal(why)
                    .hint("destroy it first: `bartizan recover --apply reinstall` does, and begins again from 07"));
            }
            // State of another configuration: a new directory, so that nothing of it is silently used.
            let next = number(cx) + 1;
            cx.set_fact(fact::INSTALL_NUMBER, next.to_string()).await;
            directory = format!("{}/install-{next}", cx.need(fact::WORKDIR)?);
        }
        let config = rendered(cx)?;
        must(cx, &bastion, Cmd::sh("umask 077; mkdir -p \"$1\"").arg(&directory)).await?;
        put(cx, &bastion, &format!("{directory}.install-config.yaml"), Stdin::Secret(config.clone()), 0o600).await?;
        put(cx, &bastion, &format!("{directory}/install-config.yaml"), Stdin::Secret(config.clone()), 0o600).await?;
        cx.set_fact(fact::INSTALL_CONFIG_DIGEST, sha256(config.reveal().as_bytes())).await;
        cx.set_fact(fact::INSTALL_DIR, directory).await;
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        let mut evidence = match self.probe(cx).await? {
            Probe::True(evidence) => evidence,
            Probe::Missing(why) | Probe::NotApplicable(why) => return Err(StepError::fatal(why)),
        };
        evidence.extend(s07_asked::ask(cx, &rendered(cx)?).await?);
        Ok(evidence)
    }
}
