//! 05: one registry by one name. Its certificate is made once and kept: a new one would make every trust bundle that
//! is out there wrong.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::{Host, Stdin, Tunnel};
use crate::model::event::{Action, Data, Evidence, LinkName, LinkState, Object};
use crate::registry::auth::Credentials;
use crate::registry::{Client, Net, Side};
use crate::spec::{MirrorKind, MirrorRuntime, RegistrySoftware, Secret};

use super::certificate;
use super::registry_service::{self as service, Runtime};
use super::unit::by_systemd;
use super::world::{Cx, World, action, bytes, exec, fact, file, get, host_error, put};

/// CA, certificate, key, account.
pub struct Identity;

/// The process, and the proof that it answers as who it should be.
pub struct Service;

/// Of the managed registry, in the plan, the record and the process list.
pub(super) const NAME: &str = "bartizan-registry";

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
                let issued =
                    certificate::issue(&cx.world.spec.cluster.name, &mirror.host, &addresses, &cx.world.mirror_ca_key)?;
                put(cx, &bastion, &format!("{base}/certs/tls.key"), Stdin::Secret(issued.key), 0o600).await?;
                put(cx, &bastion, &server_file, bytes(issued.certificate), 0o644).await?;
                put(cx, &bastion, &ca_file, bytes(issued.ca.clone()), 0o644).await?;
                issued.ca
            }
        };
        // Quay has accounts of its own; the registries beside it read this one.
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

/// A way to the mirror as the account, over TLS against its own CA, by its own name. It lasts as long as the tunnel.
pub(super) async fn mirror(cx: &Cx) -> Result<(Client, Box<dyn Tunnel>), StepError> {
    let spec = &cx.world.spec;
    let registry = spec.registry();
    let bastion = cx.world.bastion(cx)?;
    // A managed registry is on the bastion itself, whatever its resolver makes of the name.
    let target = if spec.mirror.kind == MirrorKind::Managed { "127.0.0.1" } else { spec.mirror.host.as_str() };
    let tunnel = bastion.tunnel(target, spec.mirror.port).await.map_err(host_error)?;
    let local: SocketAddr = tunnel.local();
    let mut net: Net = cx.world.net.clone();
    // Asked again by whoever waits for it: a registry that starts is refused for a moment.
    net.retry.times = 1;
    net.roots.extend(cx.fact(fact::MIRROR_CA).filter(|pem| !pem.is_empty()));
    net.resolve.insert(0, (registry.clone(), local));
    let credentials = Credentials::single(&registry, &spec.mirror.user, cx.world.mirror_password.clone());
    let client = Client::new(&net, credentials, Side::Mirror).map_err(|error| StepError::fatal(error.to_string()))?;
    Ok((client, tunnel))
}

/// Asks the registry for its API root.
pub(super) async fn answers(cx: &Cx) -> Result<Evidence, StepError> {
    let registry = cx.world.spec.registry();
    let (client, _tunnel) = mirror(cx).await?;
    let asked = format!("GET https://{registry}/v2/ as {}", cx.world.spec.mirror.user);
    match client.ping(&registry).await {
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

/// That it comes back after a reboot; nothing to say when no systemd keeps it.
async fn survives(cx: &Cx) -> Result<Option<Evidence>, StepError> {
    if cx.world.spec.mirror.kind == MirrorKind::Existing {
        return Ok(None);
    }
    let bastion = cx.world.bastion(cx)?;
    let units = service::units(&cx.world.spec);
    let ask = by_systemd(&["is-enabled"]).args(units);
    let output = exec(cx, &bastion, ask.clone()).await?;
    Ok(output.ok().then(|| Evidence::new(ask.line(), output.text().replace('\n', " "))))
}

#[async_trait]
impl Step<World> for Service {
    fn preview(&self, world: &World) -> Vec<Action> {
        let root = Action::Http { request: format!("GET https://{}/v2/", world.spec.registry()) };
        if world.spec.mirror.kind == MirrorKind::Existing {
            return vec![root];
        }
        let base = planned_directory(world);
        let spec = &world.spec;
        if spec.mirror.registry == RegistrySoftware::Quay {
            return vec![action("bastion", &service::install_quay("mirror-registry", spec, &base)), root];
        }
        let runtime = match spec.mirror.runtime {
            MirrorRuntime::Binary => Runtime::Binary("docker-registry".into()),
            MirrorRuntime::Auto | MirrorRuntime::Podman => Runtime::Podman("podman".into()),
        };
        let config = file("bastion", &service::config_file(&base), 0o600);
        vec![config, action("bastion", &service::command(&runtime, spec, &base)), root]
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        let evidence = match answers(cx).await {
            Ok(evidence) => evidence,
            Err(error) => return Ok(Probe::Missing(error.causes.join(": "))),
        };
        if cx.world.spec.mirror.kind == MirrorKind::Managed && !service::is_configured(cx).await? {
            return Ok(Probe::Missing("it runs with another configuration".into()));
        }
        Ok(Probe::True(vec![evidence]))
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        if cx.world.spec.mirror.kind == MirrorKind::Existing {
            return Ok(Ran::Ok);
        }
        let bastion = cx.world.bastion(cx)?;
        let object = Object { kind: "registry".into(), name: NAME.into() };
        cx.sink.commit(Data::Intent { object: object.clone() }).await;
        service::start(cx, &bastion).await?;
        cx.sink.commit(Data::Created { object, id: directory(cx)? }).await;
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        let mut evidence = vec![patiently(cx).await?];
        evidence.extend(survives(cx).await?);
        Ok(evidence)
    }
}

/// A registry that was just started needs a moment.
async fn patiently(cx: &Cx) -> Result<Evidence, StepError> {
    let mut last = None;
    for _ in 0..20 {
        match answers(cx).await {
            Ok(evidence) => return Ok(evidence),
            Err(error) => last = Some(error),
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
            () = cx.cancel.cancelled() => break,
        }
    }
    Err(last.unwrap_or_else(|| StepError::transient("the registry was not asked")))
}
