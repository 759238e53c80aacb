//! 05: what the bastion serves to the VPC besides the mirror, when the spec asks for it: a proxy with an account, and
//! registries that fetch what they are asked for. They end with the bastion.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::cloud::blueprint::{PROXY_PORT, PULL_THROUGH};
use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::{Cmd, Host, Stdin, quote};
use crate::model::event::{Action, Evidence};
use crate::registry::auth::Credentials;
use crate::registry::{Client, Side};
use crate::spec::install_config::ProxyInputs;
use crate::spec::secrets::auths;
use crate::spec::{BastionService, Secret, Spec};

use super::registry_service::{Runtime, runtime};
use super::s05_mirror_registry::{directory, htpasswd};
use super::unit::{Program, keep};
use super::world::{Cx, World, action, bytes, exec, fact, file, host_error, must, put, sha256};

/// Both of them, as far as they are wanted.
pub struct Services;

const SQUID_CONF: &str = include_str!("../../assets/bastion/squid.conf");
const SQUID_SH: &str = include_str!("../../assets/bastion/squid.sh");
/// Where there is no package (CoreOS): Canonical's image of it.
const SQUID_IMAGE: &str = "docker.io/ubuntu/squid:latest";
const PROXY_USER: &str = "bartizan";

fn wanted(spec: &Spec) -> bool {
    spec.bastion.host.is_none() && (spec.serves(BastionService::Proxy) || spec.serves(BastionService::PullThrough))
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
    if !cx.world.makes_bastion() || !cx.world.spec.serves(BastionService::Proxy) {
        return Ok(None);
    }
    let address = cx.need(fact::BASTION_PRIVATE_IP)?;
    let password = password(cx)?.reveal();
    let url = Secret::holding(format!("http://{PROXY_USER}:{password}@{address}:{PROXY_PORT}"));
    // The mirror is in the VPC, but clients compare names before they look them up.
    let no_proxy = vec![cx.world.spec.mirror.host.clone()];
    Ok(Some(ProxyInputs { http: url.clone(), https: url, no_proxy }))
}

async fn start_proxy(cx: &Cx, bastion: &Arc<dyn Host>) -> Result<(), StepError> {
    let dir = proxy_directory(cx)?;
    must(cx, bastion, Cmd::sh("umask 077; mkdir -p \"$1\"").arg(&dir)).await?;
    put(cx, bastion, &format!("{dir}/squid.conf.in"), bytes(squid_conf(&cx.need(fact::MACHINE_NETWORK)?)), 0o600)
        .await?;
    put(cx, bastion, &format!("{dir}/squid.sh"), bytes(SQUID_SH), 0o600).await?;
    let accounts = htpasswd(PROXY_USER, password(cx)?)?;
    put(cx, bastion, &format!("{dir}/passwd"), Stdin::Secret(accounts), 0o600).await?;
    let native = exec(cx, bastion, Cmd::sh("PATH=$PATH:/usr/sbin; command -v squid")).await?.ok();
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

/// The account of a registry in the operator's pull secret.
fn account(pull_secret: &Secret, registry: &str) -> Option<(String, Secret)> {
    let auth = auths(pull_secret).remove(registry)?;
    let decoded = BASE64_STANDARD.decode(auth.reveal()).ok().and_then(|bytes| String::from_utf8(bytes).ok())?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), Secret::new(password)))
}

/// Settings of distribution/distribution as environment variables: the same for a container and a program.
fn settings(
    remote: &str,
    account: Option<&(String, Secret)>,
    base: &str,
    listen: &str,
    secret: &str,
) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("REGISTRY_HTTP_ADDR", listen.to_owned()),
        ("REGISTRY_HTTP_SECRET", secret.to_owned()),
        ("REGISTRY_HTTP_TLS_CERTIFICATE", format!("{base}/certs/tls.crt")),
        ("REGISTRY_HTTP_TLS_KEY", format!("{base}/certs/tls.key")),
        ("REGISTRY_AUTH", "htpasswd".to_owned()),
        ("REGISTRY_AUTH_HTPASSWD_REALM", "bartizan".to_owned()),
        ("REGISTRY_AUTH_HTPASSWD_PATH", format!("{base}/auth/htpasswd")),
        ("REGISTRY_PROXY_REMOTEURL", format!("https://{remote}")),
    ];
    if let Some((user, password)) = account {
        settings.push(("REGISTRY_PROXY_USERNAME", user.clone()));
        settings.push(("REGISTRY_PROXY_PASSWORD", password.reveal().to_owned()));
    }
    settings
}

/// One `NAME=value` a line; `value` says how a value is written (podman takes it as it is, a shell wants quotes).
fn environment(settings: &[(&'static str, String)], value: impl Fn(&str) -> String) -> Stdin {
    let lines = settings.iter().map(|(name, text)| format!("{name}={}\n", value(text)));
    Stdin::Secret(Secret::holding(lines.collect::<String>()))
}

async fn start_pull_through(cx: &Cx, bastion: &Arc<dyn Host>, port: u16, remote: &str) -> Result<(), StepError> {
    let dir = format!("{}/pull-through-{port}", cx.need(fact::WORKDIR)?);
    let mirror = directory(cx)?;
    must(cx, bastion, Cmd::sh("umask 077; mkdir -p \"$1/data\"").arg(&dir)).await?;
    let account = account(&cx.world.secrets.pull_secret, remote);
    let secret = Secret::new(sha256(format!("pull-through {port} {}", cx.world.mirror_password.reveal()).as_bytes()));
    let name = format!("bartizan-pull-through-{port}");
    let file = format!("{dir}/environment");
    let cmd = match runtime(cx, bastion).await? {
        Runtime::Podman(podman) => {
            let content = settings(remote, account.as_ref(), "", ":5000", secret.reveal());
            put(cx, bastion, &file, environment(&content, str::to_owned), 0o600).await?;
            let image = &cx.world.spec.mirror.image;
            pull(cx, bastion, &podman, image).await?;
            // The mirror's own container reads the same files: they keep a label that both may read.
            Cmd::new(podman)
                .args(["run", "--rm", "--replace", "--name", &name, "-p", &format!("{port}:5000")])
                .args(["--env-file", &file, "-v", &format!("{dir}/data:/var/lib/registry:Z")])
                .args(["-v", &format!("{mirror}/certs:/certs:ro,z"), "-v", &format!("{mirror}/auth:/auth:ro,z")])
                .arg(image)
        }
        Runtime::Binary(path) => {
            let content = settings(remote, account.as_ref(), &mirror, &format!(":{port}"), secret.reveal());
            put(cx, bastion, &file, environment(&content, quote), 0o600).await?;
            let config = format!("version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {dir}/data\n");
            put(cx, bastion, &format!("{dir}/config.yml"), bytes(config), 0o600).await?;
            Cmd::new("/bin/sh").args(["-c", "set -a; . \"$1\"; exec \"$2\" serve \"$3\"", "sh"]).args([
                file,
                path,
                format!("{dir}/config.yml"),
            ])
        }
    };
    let description = format!("Pull-through registry of {remote}");
    keep(cx, bastion, &Program { name: &name, description: &description, cmd }).await
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

/// Nobody gets through without the account, and whoever has it does, to AWS.
async fn prove_proxy(cx: &Cx) -> Result<Vec<Evidence>, StepError> {
    let target = format!("sts.{}.amazonaws.com:443", cx.world.spec.aws.region);
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

async fn prove_pull_through(cx: &Cx, port: u16, remote: &str) -> Result<Evidence, StepError> {
    let mirror = &cx.world.spec.mirror;
    let bastion = cx.world.bastion(cx)?;
    let tunnel = bastion.tunnel("127.0.0.1", port).await.map_err(host_error)?;
    let registry = format!("{}:{port}", mirror.host);
    let mut net = cx.world.net.clone();
    net.retry.times = 1;
    net.roots.extend(cx.fact(fact::MIRROR_CA).filter(|pem| !pem.is_empty()));
    net.resolve.insert(0, (registry.clone(), tunnel.local()));
    let ask = |credentials: Credentials| async {
        let client =
            Client::new(&net, credentials, Side::Mirror).map_err(|error| StepError::fatal(error.to_string()))?;
        Ok::<_, StepError>(client.ping(&registry).await)
    };
    if ask(Credentials::default()).await?.is_ok() {
        return Err(StepError::fatal(format!("{registry} answers without an account")));
    }
    let known = Credentials::single(&registry, &mirror.user, cx.world.mirror_password.clone());
    let asked = format!("GET https://{registry}/v2/ as {} (from {remote})", mirror.user);
    match ask(known).await? {
        Ok(()) => Ok(Evidence::new(asked, "200; refused without the account")),
        Err(error) => Err(StepError::transient(format!("{asked}: {error}"))),
    }
}

async fn prove(cx: &Cx) -> Result<Vec<Evidence>, StepError> {
    let spec = &cx.world.spec;
    let mut evidence = Vec::new();
    if spec.serves(BastionService::Proxy) {
        evidence.extend(prove_proxy(cx).await?);
    }
    if spec.serves(BastionService::PullThrough) {
        for (port, remote) in PULL_THROUGH {
            evidence.push(prove_pull_through(cx, port, remote).await?);
        }
    }
    Ok(evidence)
}

#[async_trait]
impl Step<World> for Services {
    fn preview(&self, world: &World) -> Vec<Action> {
        let spec = &world.spec;
        let mut actions = Vec::new();
        if !wanted(spec) {
            return actions;
        }
        let workdir = format!("~/{}", spec.bastion.workdir);
        if spec.serves(BastionService::Proxy) {
            let dir = format!("{workdir}/squid");
            actions.extend(
                ["squid.conf.in", "squid.sh", "passwd"].map(|name| file("bastion", &format!("{dir}/{name}"), 0o600)),
            );
            actions.push(action("bastion", &Cmd::new("/bin/sh").args([format!("{dir}/squid.sh"), dir.clone()])));
        }
        if spec.serves(BastionService::PullThrough) {
            for (port, _) in PULL_THROUGH {
                actions.push(file("bastion", &format!("{workdir}/pull-through-{port}/environment"), 0o600));
                actions.push(Action::Http { request: format!("GET https://{}:{port}/v2/", spec.mirror.host) });
            }
        }
        actions
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        if !wanted(&cx.world.spec) {
            return Ok(Probe::NotApplicable("the VPC needs no other services of the bastion".into()));
        }
        Ok(match prove(cx).await {
            Ok(evidence) => Probe::True(evidence),
            Err(error) => Probe::Missing(error.causes.join(": ")),
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let spec = &cx.world.spec;
        let bastion = cx.world.bastion(cx)?;
        if spec.serves(BastionService::Proxy) {
            start_proxy(cx, &bastion).await?;
        }
        if spec.serves(BastionService::PullThrough) {
            for (port, remote) in PULL_THROUGH {
                start_pull_through(cx, &bastion, port, remote).await?;
            }
        }
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
        Err(last.unwrap_or_else(|| StepError::transient("the services were not asked")))
    }
}
