//! 05: registries beside a managed mirror that fetch what they are asked for, when the spec asks for them. They have the
//! mirror's certificate and account, and end with the bastion.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;

use crate::cloud::blueprint::PULL_THROUGH;
use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::{Cmd, Host, Stdin};
use crate::model::event::{Action, Evidence};
use crate::registry::auth::{Credentials, Login};
use crate::registry::{Client, Side};
use crate::spec::Secret;

use super::registry_service::{runtime, serve};
use super::s05_mirror_registry::directory;
use super::unit::{Program, keep};
use super::world::{Cx, World, fact, file, host_error, must, put, sha256};

/// Both of them, and the proof that each answers to the account alone.
pub struct PullThrough;

fn wanted(world: &World) -> bool {
    world.makes_bastion() && world.spec.bastion.pull_through
}

fn config_file(base: &str, port: u16) -> String {
    format!("{base}/config-{port}.yml")
}

/// `config.yml` of distribution/distribution as a pull-through cache (docs, "Registry as a pull through cache").
fn config(world: &World, base: &str, port: u16, upstream: &str) -> Result<Secret, StepError> {
    let credentials = Credentials::parse(world.secrets.pull_secret.reveal())
        .map_err(|error| StepError::fatal(format!("the pull secret: {error}")))?;
    let mut proxy = json!({ "remoteurl": format!("https://{upstream}") });
    if let Some(Login::Basic { user, password }) = credentials.lookup(upstream, "") {
        proxy["username"] = json!(user);
        proxy["password"] = json!(password.reveal());
    }
    let config = json!({
        "version": "0.1",
        "log": { "level": "info" },
        "storage": { "filesystem": { "rootdirectory": format!("{base}/data-{port}") } },
        "http": {
            "addr": format!(":{port}"),
            "secret": sha256(format!("pull-through {port} {}", world.mirror_password.reveal()).as_bytes()),
            "tls": { "certificate": format!("{base}/certs/tls.crt"), "key": format!("{base}/certs/tls.key") },
        },
        "auth": { "htpasswd": { "realm": "bartizan", "path": format!("{base}/auth/htpasswd") } },
        "proxy": proxy,
    });
    let text = yaml_serde::to_string(&config)
        .map_err(|error| StepError::fatal(format!("writing a registry's configuration: {error}")))?;
    Ok(Secret::holding(text))
}

async fn start(cx: &Cx, bastion: &Arc<dyn Host>, port: u16, upstream: &str) -> Result<(), StepError> {
    let base = directory(cx)?;
    let name = format!("bartizan-pull-through-{port}");
    must(cx, bastion, Cmd::new("mkdir").args(["-p", &format!("{base}/data-{port}")])).await?;
    let path = config_file(&base, port);
    put(cx, bastion, &path, Stdin::Secret(config(&cx.world, &base, port, upstream)?), 0o600).await?;
    let cmd = serve(&runtime(cx, bastion).await?, &cx.world.spec, &name, &base, &path);
    let description = format!("Pull-through registry of {upstream}");
    keep(cx, bastion, &Program { name: &name, description: &description, cmd }).await
}

async fn prove(cx: &Cx, port: u16, upstream: &str) -> Result<Evidence, StepError> {
    let mirror = &cx.world.spec.mirror;
    let tunnel = cx.world.bastion(cx)?.tunnel("127.0.0.1", port).await.map_err(host_error)?;
    let registry = format!("{}:{port}", mirror.host);
    let mut net = cx.world.net.clone();
    net.retry.times = 1;
    net.roots.extend(cx.fact(fact::MIRROR_CA).filter(|pem| !pem.is_empty()));
    net.resolve.insert(0, (registry.clone(), tunnel.local()));
    let ask = |credentials: Credentials| {
        Client::new(&net, credentials, Side::Mirror).map_err(|error| StepError::fatal(error.to_string()))
    };
    if ask(Credentials::default())?.ping(&registry).await.is_ok() {
        return Err(StepError::fatal(format!("{registry} answers without an account")));
    }
    let known = Credentials::single(&registry, &mirror.user, cx.world.mirror_password.clone());
    let asked = format!("GET https://{registry}/v2/ as {} (from {upstream})", mirror.user);
    match ask(known)?.ping(&registry).await {
        Ok(()) => Ok(Evidence::new(asked, "200; refused without the account")),
        Err(error) => Err(StepError::transient(format!("{asked}: {error}"))),
    }
}

async fn prove_all(cx: &Cx) -> Result<Vec<Evidence>, StepError> {
    let mut evidence = Vec::new();
    for (port, upstream) in PULL_THROUGH {
        evidence.push(prove(cx, port, upstream).await?);
    }
    Ok(evidence)
}

#[async_trait]
impl Step<World> for PullThrough {
    fn preview(&self, world: &World) -> Vec<Action> {
        if !wanted(world) {
            return Vec::new();
        }
        let storage = &world.spec.mirror.storage;
        let base = if storage.starts_with('/') { storage.clone() } else { format!("~/{storage}") };
        let host = &world.spec.mirror.host;
        let of = |(port, _): (u16, &str)| {
            let request = format!("GET https://{host}:{port}/v2/");
            [file("bastion", &config_file(&base, port), 0o600), Action::Http { request }]
        };
        PULL_THROUGH.into_iter().flat_map(of).collect()
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        if !wanted(&cx.world) {
            return Ok(Probe::NotApplicable("no pull-through registries were asked for".into()));
        }
        Ok(match prove_all(cx).await {
            Ok(evidence) => Probe::True(evidence),
            Err(error) => Probe::Missing(error.causes.join(": ")),
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let bastion = cx.world.bastion(cx)?;
        for (port, upstream) in PULL_THROUGH {
            start(cx, &bastion, port, upstream).await?;
        }
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        let mut last = None;
        for _ in 0..20 {
            match prove_all(cx).await {
                Ok(evidence) => return Ok(evidence),
                Err(error) => last = Some(error),
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
                () = cx.cancel.cancelled() => break,
            }
        }
        Err(last.unwrap_or_else(|| StepError::transient("the registries were not asked")))
    }
}
