//! 05: one registry by one name. Its certificate is made once and kept: a new one would make every trust bundle that
//! is out there wrong.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::job::{Job, JobSpec};
use crate::host::{Cmd, Host, Stdin};
use crate::model::event::{Action, Data, Evidence, LinkName, LinkState, Object};
use crate::registry::auth::Credentials;
use crate::registry::{Client, Net, Side};
use crate::spec::{MirrorKind, MirrorRuntime, Secret};

use super::certificate;
use super::world::{Cx, World, action, bytes, exec, fact, file, get, host_error, must, put};

/// CA, certificate, key, account.
pub struct Identity;

/// The process, and the proof that it answers as who it should be.
pub struct Service;

/// Of the managed registry, in the plan, the record and the process list.
pub(super) const NAME: &str = "bartizan-registry";
pub(super) const IMAGE: &str = "docker.io/library/registry:2";

/// Absolute directory of the managed registry.
pub(super) fn directory(cx: &Cx) -> Result<String, StepError> {
    let storage = &cx.world.spec.mirror.storage;
    Ok(if storage.starts_with('/') { storage.clone() } else { format!("{}/{storage}", cx.need(fact::HOME)?) })
}

fn planned_directory(world: &World) -> String {
    let storage = &world.spec.mirror.storage;
    if storage.starts_with('/') { storage.clone() } else { format!("~/{storage}") }
}

/// The file in which the CA stands on the bastion.
pub(super) fn ca_path(cx: &Cx) -> Result<String, StepError> {
    Ok(match cx.world.spec.mirror.kind {
        MirrorKind::Managed => format!("{}/certs/ca.crt", directory(cx)?),
        MirrorKind::Existing => format!("{}/mirror-ca.crt", cx.need(fact::WORKDIR)?),
    })
}

async fn text_of(host: &Arc<dyn Host>, path: &str) -> Result<Option<String>, StepError> {
    Ok(get(host, path).await?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// As `htpasswd -B` of Apache has it. The registry hashes anew for every request: at 10 that costs more than copying.
const HASH_COST: u32 = 5;

/// The account's line: `user:$2b$…` (only bcrypt is understood by distribution/distribution).
pub(super) fn htpasswd(user: &str, password: &Secret) -> Result<Secret, StepError> {
    let hash = bcrypt::hash(password.reveal(), HASH_COST)
        .map_err(|error| StepError::fatal(format!("hashing the mirror's password: {error}")))?;
    Ok(Secret::holding(format!("{user}:{hash}\n")))
}

fn knows(htpasswd: &str, user: &str, password: &Secret) -> bool {
    htpasswd
        .lines()
        .filter_map(|line| line.split_once(':'))
        .any(|(name, hash)| name == user && bcrypt::verify(password.reveal(), hash.trim()).unwrap_or(false))
}

#[async_trait]
impl Step<World> for Identity {
    fn preview(&self, world: &World) -> Vec<Action> {
        if world.spec.mirror.kind == MirrorKind::Existing {
            return Vec::new();
        }
        let base = planned_directory(world);
        [("certs/ca.crt", 0o644), ("certs/tls.crt", 0o644), ("certs/tls.key", 0o600), ("auth/htpasswd", 0o600)]
            .iter()
            .map(|(name, mode)| file("bastion", &format!("{base}/{name}"), *mode))
            .collect()
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        let bastion = cx.world.bastion(cx)?;
        let mirror = &cx.world.spec.mirror;
        let Some(ca) = text_of(&bastion, &ca_path(cx)?).await? else {
            return Ok(Probe::Missing("the bastion has no CA of the mirror".into()));
        };
        if cx.fact(fact::MIRROR_CA).as_ref() != Some(&ca) {
            return Ok(Probe::Missing("the run does not know this CA".into()));
        }
        let evidence = Evidence::new(ca_path(cx)?, certificate::subject(&ca).unwrap_or_default());
        if mirror.kind == MirrorKind::Existing {
            return Ok(Probe::True(vec![evidence]));
        }
        let base = directory(cx)?;
        let Some(server) = text_of(&bastion, &format!("{base}/certs/tls.crt")).await? else {
            return Ok(Probe::Missing("there is no certificate".into()));
        };
        if let Some(complaint) = certificate::complaint(&server, &ca, &mirror.host) {
            return Ok(Probe::Missing(format!("the certificate: {complaint}")));
        }
        let accounts = text_of(&bastion, &format!("{base}/auth/htpasswd")).await?.unwrap_or_default();
        if !knows(&accounts, &mirror.user, &cx.world.mirror_password) {
            return Ok(Probe::Missing(format!("{} has no account, or with another password", mirror.user)));
        }
        Ok(Probe::True(vec![
            evidence,
            Evidence::new(format!("{base}/certs/tls.crt"), format!("names {}", mirror.host)),
        ]))
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let bastion = cx.world.bastion(cx)?;
        let mirror = &cx.world.spec.mirror;
        if mirror.kind == MirrorKind::Existing {
            let ca = match &mirror.ca_file {
                Some(path) => std::fs::read_to_string(path)
                    .map_err(|error| StepError::fatal(format!("reading {}: {error}", path.display())))?,
                None => String::new(),
            };
            put(cx, &bastion, &ca_path(cx)?, bytes(ca.clone()), 0o644).await?;
            cx.set_fact(fact::MIRROR_CA, ca).await;
            return Ok(Ran::Ok);
        }
        let base = directory(cx)?;
        let (ca_file, server_file) = (format!("{base}/certs/ca.crt"), format!("{base}/certs/tls.crt"));
        let known = (text_of(&bastion, &ca_file).await?, text_of(&bastion, &server_file).await?);
        let key_is_there = get(&bastion, &format!("{base}/certs/tls.key")).await?.is_some();
        let ca = match known {
            // What stands there and is right stays: nodes may trust it already.
            (Some(ca), Some(server))
                if key_is_there && certificate::complaint(&server, &ca, &mirror.host).is_none() =>
            {
                ca
            }
            _ => {
                let addresses: Vec<String> = cx.fact(fact::BASTION_PRIVATE_IP).into_iter().collect();
                let issued = certificate::issue(&cx.world.spec.cluster.name, &mirror.host, &addresses)?;
                put(cx, &bastion, &format!("{base}/certs/tls.key"), Stdin::Secret(issued.key), 0o600).await?;
                put(cx, &bastion, &server_file, bytes(issued.certificate), 0o644).await?;
                put(cx, &bastion, &ca_file, bytes(issued.ca.clone()), 0o644).await?;
                issued.ca
            }
        };
        let accounts = htpasswd(&mirror.user, &cx.world.mirror_password)?;
        put(cx, &bastion, &format!("{base}/auth/htpasswd"), Stdin::Secret(accounts), 0o600).await?;
        cx.set_fact(fact::MIRROR_CA, ca).await;
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        match self.probe(cx).await? {
            Probe::True(evidence) => Ok(evidence),
            Probe::Missing(why) | Probe::NotApplicable(why) => Err(StepError::transient(why)),
        }
    }
}

/// How the registry runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Runtime {
    /// Absolute paths of the programs: a unit has no PATH of the operator's.
    Podman(String),
    Binary(String),
}

pub(super) async fn runtime(cx: &Cx, bastion: &Arc<dyn Host>) -> Result<Runtime, StepError> {
    let wanted = cx.world.spec.mirror.runtime;
    let look = |name: &'static str| Cmd::sh("command -v \"$1\"").arg(name);
    if wanted != MirrorRuntime::Binary {
        let output = exec(cx, bastion, look("podman")).await?;
        if output.ok() {
            return Ok(Runtime::Podman(output.text()));
        }
    }
    if wanted != MirrorRuntime::Podman {
        for name in ["docker-registry", "registry"] {
            let output = exec(cx, bastion, look(name)).await?;
            if output.ok() {
                return Ok(Runtime::Binary(output.text()));
            }
        }
    }
    Err(StepError::fatal("the bastion has neither podman nor a registry program")
        .hint("install podman there, or set mirror.kind to \"existing\""))
}

/// `config.yml` of distribution/distribution for a program on the host, where `secret` signs upload locations: without
/// a fixed one every restart would lose the uploads under way.
fn config(base: &str, port: u16, secret: &str) -> String {
    format!(
        "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {base}/data\n  delete:\n    enabled: true\n\
         http:\n  addr: :{port}\n  secret: {secret}\n  tls:\n    certificate: {base}/certs/tls.crt\n    key: {base}/certs/tls.key\n\
         auth:\n  htpasswd:\n    realm: bartizan\n    path: {base}/auth/htpasswd\n"
    )
}

/// The same for the container, as its environment.
fn environment(secret: &str) -> String {
    format!(
        "REGISTRY_HTTP_SECRET={secret}\nREGISTRY_HTTP_TLS_CERTIFICATE=/certs/tls.crt\nREGISTRY_HTTP_TLS_KEY=/certs/tls.key\n\
         REGISTRY_AUTH=htpasswd\nREGISTRY_AUTH_HTPASSWD_REALM=bartizan\nREGISTRY_AUTH_HTPASSWD_PATH=/auth/htpasswd\n\
         REGISTRY_STORAGE_DELETE_ENABLED=true\n"
    )
}

/// The registry's own command, in the foreground.
fn command(runtime: &Runtime, base: &str, port: u16) -> Cmd {
    match runtime {
        Runtime::Podman(path) => Cmd::new(path.clone())
            .args(["run", "--rm", "--replace", "--name", NAME, "-p"])
            .arg(format!("{port}:5000"))
            .args(["--env-file", &format!("{base}/environment")])
            .args(["-v", &format!("{base}/data:/var/lib/registry:Z")])
            .args(["-v", &format!("{base}/certs:/certs:ro,Z")])
            .args(["-v", &format!("{base}/auth:/auth:ro,Z")])
            .arg(IMAGE),
        // Every REGISTRY_ variable of the operator's shell would be read as configuration.
        Runtime::Binary(path) => Cmd::sh(
            "for name in $(env | sed -n 's/^\\(REGISTRY_[A-Z_]*\\)=.*/\\1/p'); do unset \"$name\"; done; exec \"$1\" serve \"$2\"",
        )
        .arg(path.clone())
        .arg(format!("{base}/config.yml")),
    }
}

pub(super) fn job(host: Arc<dyn Host>, cmd: Cmd, workdir: &str) -> Result<Job, StepError> {
    let spec = JobSpec { name: NAME.into(), cmd: cmd.timeout(None), dir: format!("{workdir}/jobs") };
    Job::new(host, spec).map_err(host_error)
}

/// The unit that brings the registry back after a reboot.
fn unit(runtime: &Runtime, base: &str, port: u16) -> String {
    let line = command(runtime, base, port).line();
    // `%` and `$` are systemd's own.
    let line = line.replace('%', "%%").replace('$', "$$");
    format!(
        "[Unit]\nDescription=Mirror registry of bartizan\nWants=network-online.target\nAfter=network-online.target\n\n\
         [Service]\nExecStart={line}\nRestart=on-failure\nRestartSec=5\nTimeoutStartSec=120\n\n[Install]\nWantedBy=default.target\n"
    )
}

/// Is there a systemd that keeps this user's units?
fn user_systemd() -> Cmd {
    Cmd::sh("[ -d /run/systemd/system ] && systemctl --user show-environment >/dev/null 2>&1 && loginctl enable-linger")
}

fn by_systemd(what: &[&str]) -> Cmd {
    Cmd::new("systemctl").arg("--user").args(what.iter().copied()).timeout(Some(Duration::from_secs(180)))
}

impl Service {
    async fn start(&self, cx: &Cx, bastion: &Arc<dyn Host>) -> Result<(), StepError> {
        let base = directory(cx)?;
        let workdir = cx.need(fact::WORKDIR)?;
        let port = cx.world.spec.mirror.port;
        let runtime = runtime(cx, bastion).await?;
        must(cx, bastion, Cmd::new("mkdir").args(["-p", &format!("{base}/data")])).await?;
        // Derived, so that it is the same after a restart, and told nobody.
        let secret =
            Secret::new(super::world::sha256(format!("upload {}", cx.world.mirror_password.reveal()).as_bytes()));
        match &runtime {
            Runtime::Podman(podman) => {
                let content = Secret::holding(environment(secret.reveal()));
                put(cx, bastion, &format!("{base}/environment"), Stdin::Secret(content), 0o600).await?;
                let there = exec(cx, bastion, Cmd::new(podman).args(["image", "exists", IMAGE])).await?;
                if !there.ok() {
                    let pull = Cmd::new(podman).args(["pull", "-q", IMAGE]).timeout(Some(Duration::from_secs(300)));
                    must(cx, bastion, pull).await?;
                }
            }
            Runtime::Binary(_) => {
                let content = Secret::holding(config(&base, port, secret.reveal()));
                put(cx, bastion, &format!("{base}/config.yml"), Stdin::Secret(content), 0o600).await?;
            }
        }
        if exec(cx, bastion, user_systemd()).await?.ok() {
            let path = format!("{}/.config/systemd/user/{NAME}.service", cx.need(fact::HOME)?);
            put(cx, bastion, &path, bytes(unit(&runtime, &base, port)), 0o644).await?;
            must(cx, bastion, by_systemd(&["daemon-reload"])).await?;
            must(cx, bastion, by_systemd(&["enable", NAME])).await?;
            must(cx, bastion, by_systemd(&["restart", NAME])).await?;
        } else {
            let job = job(bastion.clone(), command(&runtime, &base, port), &workdir)?;
            job.stop(Duration::from_secs(10)).await.map_err(host_error)?;
            job.start().await.map_err(host_error)?;
        }
        Ok(())
    }
}

/// Asks the registry for its API root as the account, over TLS against its own CA, by its own name.
pub(super) async fn answers(cx: &Cx) -> Result<Evidence, StepError> {
    let spec = &cx.world.spec;
    let bastion = cx.world.bastion(cx)?;
    // A managed registry is on the bastion itself, whatever its resolver makes of the name.
    let target = if spec.mirror.kind == MirrorKind::Managed { "127.0.0.1" } else { spec.mirror.host.as_str() };
    let tunnel = bastion.tunnel(target, spec.mirror.port).await.map_err(host_error)?;
    let local: SocketAddr = tunnel.local();
    let mut net: Net = cx.world.net.clone();
    // Asked again by whoever waits for it: a registry that starts is refused for a moment.
    net.retry.times = 1;
    net.roots.extend(cx.fact(fact::MIRROR_CA).filter(|pem| !pem.is_empty()));
    net.resolve.insert(0, (spec.registry(), local));
    let credentials = Credentials::single(&spec.registry(), &spec.mirror.user, cx.world.mirror_password.clone());
    let client = Client::new(&net, credentials, Side::Mirror).map_err(|error| StepError::fatal(error.to_string()))?;
    let asked = format!("GET https://{}/v2/ as {}", spec.registry(), spec.mirror.user);
    match client.ping(&spec.registry()).await {
        Ok(()) => {
            cx.sink.emit(Data::Link { link: LinkName::Registry, state: LinkState::Up }).await;
            Ok(Evidence::new(asked, "200, with the certificate of its own CA"))
        }
        Err(error) => {
            let why = error.to_string();
            cx.sink.emit(Data::Link { link: LinkName::Registry, state: LinkState::Down { why: why.clone() } }).await;
            Err(StepError::transient(format!("{asked}: {why}")))
        }
    }
}

#[async_trait]
impl Step<World> for Service {
    fn preview(&self, world: &World) -> Vec<Action> {
        let root = Action::Http { request: format!("GET https://{}/v2/", world.spec.registry()) };
        if world.spec.mirror.kind == MirrorKind::Existing {
            return vec![root];
        }
        let base = planned_directory(world);
        let port = world.spec.mirror.port;
        let runtime = match world.spec.mirror.runtime {
            MirrorRuntime::Binary => Runtime::Binary("docker-registry".into()),
            MirrorRuntime::Auto | MirrorRuntime::Podman => Runtime::Podman("podman".into()),
        };
        vec![
            file("bastion", &format!("{base}/environment"), 0o600),
            action("bastion", &command(&runtime, &base, port)),
            root,
        ]
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        Ok(match answers(cx).await {
            Ok(evidence) => Probe::True(vec![evidence]),
            Err(error) => Probe::Missing(error.causes.join(": ")),
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        if cx.world.spec.mirror.kind == MirrorKind::Existing {
            return Ok(Ran::Ok);
        }
        let bastion = cx.world.bastion(cx)?;
        let object = Object { kind: "registry".into(), name: NAME.into() };
        cx.sink.commit(Data::Intent { object: object.clone() }).await;
        self.start(cx, &bastion).await?;
        cx.sink.commit(Data::Created { object, id: directory(cx)? }).await;
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        let mut last = None;
        for _ in 0..20 {
            match answers(cx).await {
                Ok(evidence) => return Ok(vec![evidence]),
                Err(error) => last = Some(error),
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
                () = cx.cancel.cancelled() => break,
            }
        }
        Err(last.unwrap_or_else(|| StepError::transient("the registry was not asked")))
    }
}
