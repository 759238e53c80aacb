//! The processes of a managed registry: their configuration, their commands, their units.
//!
//! distribution/distribution 2 or 3, in podman or as a program of the host, with one configuration file for either; and
//! Red Hat's mirror registry by its own installer (quay/mirror-registry).

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::engine::StepError;
use crate::host::job::{Job, JobSpec, JobStatus};
use crate::host::{Cmd, Host, Stdin};
use crate::model::text::one_line;
use crate::registry::notify;
use crate::spec::{MirrorRuntime, RegistrySoftware, Secret, Spec};

use super::notices;
use super::s05_mirror_registry::{NAME, directory};
use super::s06_image_sync::ended;
use super::unit::{Program, by_systemd, keep, user_systemd};
use super::world::{Cx, World, exec, fact, get, host_error, must, put, sha256, wait_for};

/// Names of the units, as systemd knows them.
pub(super) fn units(spec: &Spec) -> Vec<String> {
    match spec.mirror.registry {
        RegistrySoftware::Distribution => vec![NAME.to_owned()],
        RegistrySoftware::Quay => QUAY_UNITS.map(str::to_owned).to_vec(),
    }
}

pub(super) fn config_file(base: &str) -> String {
    format!("{base}/config.yml")
}

/// `config.yml` of distribution/distribution (`configuration/configuration.go`), the same for 2 and 3. Its `secret` signs
/// upload locations: without a fixed one every restart would lose the uploads under way.
fn config(world: &World, base: &str) -> Result<Secret, StepError> {
    let secret = sha256(format!("upload {}", world.mirror_password.reveal()).as_bytes());
    let mut config = json!({
        "version": "0.1",
        "log": { "level": "info" },
        "storage": {
            "filesystem": { "rootdirectory": format!("{base}/data") },
            "delete": { "enabled": true },
        },
        "http": {
            "addr": format!(":{}", world.spec.mirror.port),
            "secret": secret,
            "tls": { "certificate": format!("{base}/certs/tls.crt"), "key": format!("{base}/certs/tls.key") },
        },
        "auth": { "htpasswd": { "realm": "bartizan", "path": format!("{base}/auth/htpasswd") } },
        // Images with layers that may not be passed on keep the addresses of these.
        "validation": { "manifests": { "urls": { "allow": ["^https?://"] } } },
        "health": { "storagedriver": { "enabled": true, "interval": "10s", "threshold": 3 } },
    });
    if let (true, Some(config)) = (notices::wanted(&world.spec), config.as_object_mut()) {
        config.insert("notifications".to_owned(), notifications(world));
    }
    let text = yaml_serde::to_string(&config)
        .map_err(|error| StepError::fatal(format!("writing the registry's configuration: {error}")))?;
    Ok(Secret::holding(text))
}

/// What is pulled is of no interest, and while nobody listens the registry keeps in memory what it has to tell.
fn notifications(world: &World) -> Value {
    let url = format!("http://127.0.0.1:{}{}", notices::port(&world.spec), notify::PATH);
    json!({ "endpoints": [{
        "name": "bartizan",
        "url": url,
        "headers": { "Authorization": [format!("Bearer {}", notices::token(world).reveal())] },
        "timeout": "2s",
        "threshold": 3,
        "backoff": "1s",
        "ignore": { "actions": ["pull"] },
    }] })
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

/// The registry's own command, in the foreground. A container has the host's network, so that it serves at full speed
/// and reaches the listener for its notifications, and its files at the same paths.
pub(super) fn command(runtime: &Runtime, spec: &Spec, base: &str) -> Cmd {
    serve(runtime, spec, NAME, base, &config_file(base))
}

/// The same for any registry below `base` with a configuration of its own.
pub(super) fn serve(runtime: &Runtime, spec: &Spec, name: &str, base: &str, config: &str) -> Cmd {
    match runtime {
        Runtime::Podman(path) => Cmd::new(path.clone())
            .args(["run", "--rm", "--replace", "--name", name, "--network", "host"])
            .args(["-v", &format!("{base}:{base}:z")])
            .arg(&spec.mirror.image)
            .arg(config),
        // Every REGISTRY_ variable of the operator's shell would be read as configuration.
        Runtime::Binary(path) => Cmd::sh(
            "for name in $(env | sed -n 's/^\\(REGISTRY_[A-Z_]*\\)=.*/\\1/p'); do unset \"$name\"; done; exec \"$1\" serve \"$2\"",
        )
        .arg(path.clone())
        .arg(config),
    }
}

pub(super) fn job(host: Arc<dyn Host>, name: &str, cmd: Cmd, workdir: &str) -> Result<Job, StepError> {
    let spec = JobSpec { name: name.to_owned(), cmd: cmd.timeout(None), dir: format!("{workdir}/jobs") };
    Job::new(host, spec).map_err(host_error)
}

/// Whether the configuration on the bastion is the one that is wanted.
pub(super) async fn is_configured(cx: &Cx) -> Result<bool, StepError> {
    if cx.world.spec.mirror.registry == RegistrySoftware::Quay {
        return Ok(true);
    }
    let (bastion, base) = (cx.world.bastion(cx)?, directory(cx)?);
    let found = get(&bastion, &config_file(&base)).await?.unwrap_or_default();
    Ok(sha256(&found) == sha256(config(&cx.world, &base)?.reveal().as_bytes()))
}

/// Starts it, or starts it again.
pub(super) async fn start(cx: &Cx, bastion: &Arc<dyn Host>) -> Result<(), StepError> {
    if cx.world.spec.mirror.registry == RegistrySoftware::Quay {
        return start_quay(cx, bastion).await;
    }
    let base = directory(cx)?;
    let spec = &cx.world.spec;
    let runtime = runtime(cx, bastion).await?;
    if let Runtime::Podman(podman) = &runtime {
        let there = exec(cx, bastion, Cmd::new(podman).args(["image", "exists", &spec.mirror.image])).await?;
        if !there.ok() {
            let pull = Cmd::new(podman).args(["pull", "-q", &spec.mirror.image]);
            must(cx, bastion, pull.timeout(Some(Duration::from_secs(300)))).await?;
        }
    }
    must(cx, bastion, Cmd::new("mkdir").args(["-p", &format!("{base}/data")])).await?;
    put(cx, bastion, &config_file(&base), Stdin::Secret(config(&cx.world, &base)?), 0o600).await?;
    let cmd = command(&runtime, spec, &base);
    keep(cx, bastion, &Program { name: NAME, description: "Mirror registry of bartizan", cmd }).await
}

const QUAY_UNITS: [&str; 3] = ["quay-app", "quay-redis", "quay-pod"];

/// The installer of Red Hat's mirror registry. It takes the first user's password as an argument only: it is read from a
/// file on the bastion, so that neither our records nor the job's command hold it; and the installer shows it at its
/// end, so that what it says is cut there.
const INSTALL_QUAY: &str = r#"rc=$(mktemp) || exit 1
{ "$1" install --quayHostname "$2" --quayRoot "$3/quay" --quayStorage "$3/data" --sqliteStorage "$3/sqlite" \
  --sslCert "$3/certs/tls.crt" --sslKey "$3/certs/tls.key" --initUser "$4" --initPassword "$(cat "$3/quay-password")" 2>&1
  echo "$?" >"$rc"; } | sed 's/with credentials.*/with credentials (…)/'
status=$(cat "$rc"); rm -f "$rc"; exit "$status""#;

/// As it stands in the plan.
pub(super) fn install_quay(installer: &str, spec: &Spec, base: &str) -> Cmd {
    Cmd::sh(INSTALL_QUAY).args([installer, &spec.registry(), base, &spec.mirror.user]).timeout(None)
}

async fn start_quay(cx: &Cx, bastion: &Arc<dyn Host>) -> Result<(), StepError> {
    let (base, workdir) = (directory(cx)?, cx.need(fact::WORKDIR)?);
    let installed = Cmd::sh("[ -e \"$HOME/.config/systemd/user/quay-app.service\" ]");
    if exec(cx, bastion, installed).await?.ok() {
        must(cx, bastion, by_systemd(&["restart", "quay-pod", "quay-redis", "quay-app"])).await?;
        return Ok(());
    }
    let look = Cmd::sh(
        "if [ -x \"$1/bin/mirror-registry\" ]; then printf '%s\\n' \"$1/bin/mirror-registry\"; else command -v mirror-registry; fi",
    );
    let found = exec(cx, bastion, look.arg(&workdir)).await?;
    if !found.ok() {
        return Err(StepError::fatal("the bastion has no mirror-registry, the installer of Red Hat's mirror registry")
            .hint(format!(
                "unpack mirror-registry.tar.gz from console.redhat.com/openshift/downloads into {workdir}/bin"
            )));
    }
    // Without it the units end with the last login.
    exec(cx, bastion, user_systemd()).await?;
    must(cx, bastion, Cmd::new("mkdir").args(["-p", &format!("{base}/data"), &format!("{base}/sqlite")])).await?;
    let password = format!("{base}/quay-password");
    put(cx, bastion, &password, Stdin::Secret(cx.world.mirror_password.clone()), 0o600).await?;
    let install =
        job(bastion.clone(), "mirror-registry-install", install_quay(&found.text(), &cx.world.spec, &base), &workdir)?;
    install.start().await.map_err(host_error)?;
    let what = "mirror-registry install";
    let done = wait_for(cx, what, Duration::from_secs(2), Duration::from_secs(1200), || async {
        Ok(Some(install.status().await.map_err(host_error)?)
            .filter(|status| !matches!(status, JobStatus::Running { .. })))
    })
    .await?;
    must(cx, bastion, Cmd::new("rm").args(["-f", &password])).await?;
    if done != (JobStatus::Ended { status: 0 }) {
        let tail = Cmd::new("tail").args(["-n", "3", &format!("{}/log", install.place())]);
        let words = exec(cx, bastion, tail).await?.text();
        return Err(
            StepError::transient(format!("mirror-registry install: {}", ended(&done))).during(one_line(&words, 600))
        );
    }
    Ok(())
}
