//! 02: the proxy on a bastion that we made, when the spec asks for it: squid, for the VPC, with an account. It ends with
//! the bastion.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::cloud::blueprint::PROXY_PORT;
use crate::cloud::permissions;
use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::{Cmd, Host, Stdin};
use crate::model::event::{Action, Evidence};
use crate::spec::Secret;
use crate::spec::install_config::ProxyInputs;

use super::s02_bastion::{SQUID, look_for};
use super::s05_mirror_registry::htpasswd;
use super::unit::{Program, keep};
use super::world::{Cx, World, action, bytes, exec, fact, file, host_error, must, put};

/// squid, its account, and the proof that nobody gets through without it.
pub struct Proxy;

const SQUID_CONF: &str = include_str!("../../assets/bastion/squid.conf");
const SQUID_SH: &str = include_str!("../../assets/bastion/squid.sh");
/// Where there is no package (CoreOS): Canonical's image of it.
const SQUID_IMAGE: &str = "docker.io/ubuntu/squid:latest";
const PROXY_USER: &str = "bartizan";

fn wanted(world: &World) -> bool {
    world.makes_bastion() && world.spec.runs_proxy()
}

/// Of the proxy's account.
fn password(cx: &Cx) -> Result<&Secret, StepError> {
    cx.world.proxy_password.as_ref().ok_or_else(|| StepError::fatal("no password was made for the proxy"))
}

fn proxy_directory(cx: &Cx) -> Result<String, StepError> {
    Ok(format!("{}/squid", cx.need(fact::WORKDIR)?))
}

fn squid_conf(vpc: &str) -> String {
    SQUID_CONF.replace("@PORT@", &PROXY_PORT.to_string()).replace("@VPC@", vpc)
}

/// For install-config: how nodes reach the proxy.
///
/// # Errors
/// When the bastion's address is not known yet.
pub(super) fn proxy_inputs(cx: &Cx) -> Result<Option<ProxyInputs>, StepError> {
    if !wanted(&cx.world) {
        return Ok(None);
    }
    let address = cx.need(fact::BASTION_PRIVATE_IP)?;
    let password = password(cx)?.reveal();
    let url = Secret::holding(format!("http://{PROXY_USER}:{password}@{address}:{PROXY_PORT}"));
    // The mirror is in the VPC, but clients compare names before they look them up.
    let no_proxy = vec![cx.world.spec.mirror.host.clone()];
    Ok(Some(ProxyInputs { http: url.clone(), https: url, no_proxy }))
}

async fn start(cx: &Cx, bastion: &Arc<dyn Host>) -> Result<(), StepError> {
    let dir = proxy_directory(cx)?;
    must(cx, bastion, Cmd::sh("umask 077; mkdir -p \"$1\"").arg(&dir)).await?;
    put(cx, bastion, &format!("{dir}/squid.conf.in"), bytes(squid_conf(&cx.need(fact::MACHINE_NETWORK)?)), 0o600)
        .await?;
    put(cx, bastion, &format!("{dir}/squid.sh"), bytes(SQUID_SH), 0o600).await?;
    let accounts = htpasswd(PROXY_USER, password(cx)?)?;
    put(cx, bastion, &format!("{dir}/passwd"), Stdin::Secret(accounts), 0o600).await?;
    let native = exec(cx, bastion, look_for(SQUID)).await?.ok();
    let cmd = if native {
        Cmd::new("/bin/sh").args([format!("{dir}/squid.sh"), dir])
    } else {
        let podman = must(cx, bastion, Cmd::sh("command -v podman")).await.map_err(|error| {
            error.hint("the bastion has neither squid nor podman; take an image that has one of them")
        })?;
        pull(cx, bastion, &podman.text(), SQUID_IMAGE).await?;
        // The host's network shows squid who asks; the operator's own user id lets it read its files, and root it would
        // refuse to be.
        Cmd::new(podman.text())
            .args(["run", "--rm", "--replace", "--name", "bartizan-proxy", "--network", "host", "--userns", "keep-id"])
            .args([
                "-v",
                &format!("{dir}:/squid:Z"),
                "--entrypoint",
                "/bin/sh",
                SQUID_IMAGE,
                "/squid/squid.sh",
                "/squid",
            ])
    };
    keep(cx, bastion, &Program { name: "bartizan-proxy", description: "Proxy of bartizan", cmd }).await
}

async fn pull(cx: &Cx, bastion: &Arc<dyn Host>, podman: &str, image: &str) -> Result<(), StepError> {
    if exec(cx, bastion, Cmd::new(podman).args(["image", "exists", image])).await?.ok() {
        return Ok(());
    }
    must(cx, bastion, Cmd::new(podman).args(["pull", "-q", image]).timeout(Some(Duration::from_secs(300)))).await?;
    Ok(())
}

/// The status that the proxy answers to a CONNECT.
async fn connect(cx: &Cx, target: &str, password: Option<&Secret>) -> Result<u16, StepError> {
    let bastion = cx.world.bastion(cx)?;
    let tunnel = bastion.tunnel("127.0.0.1", PROXY_PORT).await.map_err(host_error)?;
    let asked = async {
        let mut stream = BufReader::new(TcpStream::connect(tunnel.local()).await?);
        let account = password.map_or_else(String::new, |password| {
            let pair = BASE64_STANDARD.encode(format!("{PROXY_USER}:{}", password.reveal()));
            format!("Proxy-Authorization: Basic {pair}\r\n")
        });
        stream.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{account}\r\n").as_bytes()).await?;
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        Ok::<String, std::io::Error>(line)
    };
    let line = tokio::time::timeout(Duration::from_secs(30), asked)
        .await
        .map_err(|_| StepError::transient("the proxy gave no answer in 30 s"))?
        .map_err(|error| StepError::transient(format!("asking the proxy: {error}")))?;
    let status = line.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| StepError::transient(format!("the proxy said {line:?}")))
}

/// What answers in every region.
fn sts(world: &World) -> String {
    let region = &world.spec.aws.region;
    format!("sts.{region}.{}:443", permissions::domain(region))
}

/// Nobody gets through without the account, and whoever has it does, to AWS.
async fn prove(cx: &Cx) -> Result<Vec<Evidence>, StepError> {
    let target = sts(&cx.world);
    let stranger = connect(cx, &target, None).await?;
    if stranger != 407 {
        return Err(StepError::transient(format!("the proxy answers {stranger} without an account, not 407")));
    }
    let known = connect(cx, &target, Some(password(cx)?)).await?;
    if known != 200 {
        return Err(StepError::transient(format!("the proxy answers {known} for {target} with its account, not 200")));
    }
    let metadata = connect(cx, "169.254.169.254:443", Some(password(cx)?)).await?;
    if metadata != 403 {
        return Err(StepError::fatal(format!("the proxy answers {metadata} for the machine's metadata, not 403")));
    }
    Ok(vec![
        Evidence::new(format!("CONNECT {target} without an account"), "407"),
        Evidence::new(format!("CONNECT {target} as {PROXY_USER}"), "200"),
        Evidence::new("CONNECT 169.254.169.254:443", "403"),
    ])
}

#[async_trait]
impl Step<World> for Proxy {
    fn preview(&self, world: &World) -> Vec<Action> {
        if !wanted(world) {
            return Vec::new();
        }
        let dir = format!("~/{}/squid", world.spec.bastion.workdir);
        let target = format!("CONNECT {}", sts(world));
        let mut actions: Vec<Action> = ["squid.conf.in", "squid.sh", "passwd"]
            .iter()
            .map(|name| file("bastion", &format!("{dir}/{name}"), 0o600))
            .collect();
        actions.push(action("bastion", &Cmd::new("/bin/sh").args([format!("{dir}/squid.sh"), dir])));
        actions.push(Action::Http { request: target });
        actions
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        if !wanted(&cx.world) {
            return Ok(Probe::NotApplicable("no proxy was asked for".into()));
        }
        Ok(match prove(cx).await {
            Ok(evidence) => Probe::True(evidence),
            Err(error) => Probe::Missing(error.causes.join(": ")),
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let bastion = cx.world.bastion(cx)?;
        start(cx, &bastion).await?;
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        let mut last = None;
        for _ in 0..20 {
            match prove(cx).await {
                Ok(evidence) => return Ok(evidence),
                Err(error) => last = Some(error),
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
                () = cx.cancel.cancelled() => break,
            }
        }
        Err(last.unwrap_or_else(|| StepError::transient("the proxy was not asked")))
    }
}
