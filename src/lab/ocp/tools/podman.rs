//! `podman` as far as a mirror registry needs it: a container of `registry:2` really serves, with the certificate, key
//! and htpasswd that it was given. `docker-registry serve CONFIG` does the same without podman.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use axum_server::tls_rustls::RustlsConfig;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Words, err, home, input, out, path, read, table};
use crate::lab::machines::{Machine, Machines, Tool, ToolCx};
use crate::lab::ocp::OcpError;
use crate::lab::ocp::cluster::Scene;
use crate::lab::ocp::mirror::{Mirror, Stored};
use crate::lab::ocp::payload;
use crate::lab::ocp::tls;

const VALUED: &[&str] = &[
    "name",
    "n",
    "v",
    "volume",
    "e",
    "env",
    "env-file",
    "p",
    "publish",
    "restart",
    "f",
    "filter",
    "format",
    "authfile",
    "u",
    "username",
    "password",
    "cert-dir",
    "network",
    "net",
    "user",
    "pull",
    "security-opt",
    "label",
    "l",
    "health-cmd",
    "health-interval",
    "log-driver",
    "cgroups",
    "sdnotify",
    "cidfile",
    "t",
    "time",
    "tail",
    "replace-with",
    "hostname",
    "h",
    "mount",
    "memory",
    "m",
    "userns",
    "type",
    "health-retries",
    "health-timeout",
    "stop-timeout",
    "tz",
    "umask",
    "secret",
];

/// How a registry is to run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Run {
    pub machine: String,
    pub name: String,
    pub image: String,
    pub env: BTreeMap<String, String>,
    /// Path on the host and in the container.
    pub volumes: Vec<(String, String)>,
    pub port: u16,
    pub started: String,
}

/// The certificate that a running registry serves, and from which files.
#[derive(Clone)]
pub struct Served {
    pub machine: Arc<Machine>,
    pub htpasswd: Option<String>,
    /// Where it keeps its data.
    pub data: String,
    pub certificate: String,
    pub key: String,
    pub port: u16,
    pub address: std::net::SocketAddr,
    pub tls: RustlsConfig,
}

struct Container {
    run: Run,
    stop: CancellationToken,
    mirror: Arc<Mirror>,
    served: Served,
    names: Vec<String>,
}

pub struct Containers {
    machines: Arc<Machines>,
    stored: mpsc::UnboundedSender<Stored>,
    running: Mutex<BTreeMap<String, Container>>,
    /// Containers that were started detached and exist, running or not.
    file: PathBuf,
    kept: Mutex<BTreeMap<String, Run>>,
}

impl Containers {
    pub fn new(machines: Arc<Machines>, file: PathBuf, stored: mpsc::UnboundedSender<Stored>) -> Self {
        let kept = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { machines, stored, running: Mutex::default(), file, kept: Mutex::new(kept) }
    }

    pub fn mirrors(&self) -> Vec<Arc<Mirror>> {
        self.lock().values().map(|container| container.mirror.clone()).collect()
    }

    pub fn served(&self) -> Vec<Served> {
        self.lock().values().map(|container| container.served.clone()).collect()
    }

    /// Where a registry that publishes `port` listens.
    pub fn address(&self, port: u16) -> Option<std::net::SocketAddr> {
        self.lock().values().find(|container| container.run.port == port).map(|container| container.served.address)
    }

    /// The names in the certificates of what runs.
    pub fn names(&self) -> Vec<String> {
        self.lock().values().flat_map(|container| container.names.clone()).collect()
    }

    /// Start again what ran when the lab ended.
    pub fn restart(&self, machine: &Arc<Machine>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for run in kept.into_values().filter(|run| run.machine == machine.name) {
            if let Err(why) = self.start(machine, run) {
                tracing::error!("the lab's registry did not start again: {why}");
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Container>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, change: impl FnOnce(&mut BTreeMap<String, Run>)) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut kept);
        if let Ok(bytes) = serde_json::to_vec(&*kept) {
            // Only a restarted lab needs it.
            let _ = std::fs::write(&self.file, bytes);
        }
    }

    /// Serve. The error is what the registry's log would say.
    fn start(&self, machine: &Arc<Machine>, run: Run) -> Result<CancellationToken, String> {
        if self.lock().contains_key(&run.name) {
            return Err(format!("the container name \"{}\" is already in use", run.name));
        }
        let setting = |name: &str| run.env.get(name).map(String::as_str);
        let file = |name: &str| -> Result<(String, Vec<u8>), String> {
            let inside = setting(name).ok_or_else(|| format!("configuration error: {name} is not set"))?;
            let place = outside(&run.volumes, inside);
            let bytes = machine.fs().read(&place).map_err(|_| format!("open {inside}: no such file or directory"))?;
            Ok((place, bytes))
        };
        let (certificate_path, certificate) = file("REGISTRY_HTTP_TLS_CERTIFICATE")?;
        let (key_path, key) = file("REGISTRY_HTTP_TLS_KEY")?;
        let htpasswd = match setting("REGISTRY_AUTH_HTPASSWD_PATH") {
            Some(_) => Some(file("REGISTRY_AUTH_HTPASSWD_PATH")?.0),
            None => None,
        };
        let config = tls::config(&certificate, &key, None).map_err(|why| why.to_string())?;
        let names = server_names(&certificate);
        let inside = setting("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY").unwrap_or("/var/lib/registry").to_owned();
        let root = outside(&run.volumes, &inside);
        machine.fs().mkdir_p(&root).map_err(|why| format!("mkdir {inside}: {why}"))?;
        let taken = |why: std::io::Error| format!("listen tcp 0.0.0.0:{}: bind: {why}", run.port);
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, run.port)).map_err(taken)?;
        let stop = CancellationToken::new();
        let (data, htpasswd_path) = (root.clone(), htpasswd.clone());
        let mirror = Mirror::new(machine.clone(), root, inside, htpasswd, self.stored.clone(), stop.clone());
        let tls = RustlsConfig::from_config(config);
        let address =
            tls::serve(listener, tls.clone(), mirror.router(), stop.clone()).map_err(|why| why.to_string())?;
        for name in names.iter().chain([&machine.address]) {
            self.machines.route(name, Some(run.port), address);
        }
        machine.listen(run.port, true);
        let served = Served {
            machine: machine.clone(),
            htpasswd: htpasswd_path,
            data,
            certificate: certificate_path,
            key: key_path,
            port: run.port,
            address,
            tls,
        };
        let name = run.name.clone();
        let container = Container { run, stop: stop.clone(), mirror, served, names };
        self.lock().insert(name, container);
        Ok(stop)
    }

    fn stop(&self, name: &str) -> bool {
        let Some(container) = self.lock().remove(name) else { return false };
        container.stop.cancel();
        container.served.machine.listen(container.run.port, false);
        for name in &container.names {
            self.machines.unroute(name);
        }
        true
    }

    /// Every registry ends, as by `podman stop`: its names still lead to the machine, where nothing listens.
    pub fn end_all(&self) {
        let closed = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let running: Vec<_> =
            self.lock().iter().map(|(name, one)| (name.clone(), one.run.port, one.names.clone())).collect();
        for (name, port, names) in running {
            self.stop(&name);
            names.iter().for_each(|host| self.machines.route(host, Some(port), closed));
        }
    }

    /// The machine is gone, and all that ran on it.
    pub fn stop_all(&self) {
        let names: Vec<String> = self.lock().keys().cloned().collect();
        for name in names {
            self.stop(&name);
        }
    }

    fn known(&self, machine: &str) -> Vec<(Run, bool)> {
        let mut all: BTreeMap<String, (Run, bool)> = BTreeMap::new();
        for (name, run) in self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            all.insert(name.clone(), (run.clone(), false));
        }
        for (name, container) in self.lock().iter() {
            all.insert(name.clone(), (container.run.clone(), true));
        }
        all.into_values().filter(|(run, _)| run.machine == machine).collect()
    }
}

/// A path in the container, as the host calls it.
fn outside(volumes: &[(String, String)], inside: &str) -> String {
    volumes
        .iter()
        .filter(|(_, target)| inside == target || inside.starts_with(&format!("{}/", target.trim_end_matches('/'))))
        .max_by_key(|(_, target)| target.len())
        .map_or_else(
            || inside.to_owned(),
            |(host, target)| format!("{host}{}", inside.get(target.trim_end_matches('/').len()..).unwrap_or_default()),
        )
}

fn server_names(pem: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    if let Ok((_, block)) = x509_parser::pem::parse_x509_pem(pem)
        && let Ok((_, certificate)) = X509Certificate::from_der(&block.contents)
        && let Ok(Some(extension)) = certificate.subject_alternative_name()
    {
        for name in &extension.value.general_names {
            match name {
                x509_parser::extensions::GeneralName::DNSName(name) => names.push((*name).to_owned()),
                x509_parser::extensions::GeneralName::IPAddress([a, b, c, d]) if *a != 127 => {
                    names.push(format!("{a}.{b}.{c}.{d}"))
                }
                _ => {}
            }
        }
    }
    names
}

pub struct Podman(pub Arc<Scene>);

#[async_trait]
impl Tool for Podman {
    fn name(&self) -> &'static str {
        "podman"
    }

    fn on(&self, host: &str) -> bool {
        !host.starts_with("local")
    }

    async fn run(&self, mut cx: ToolCx) -> i32 {
        let first = cx.args.iter().position(|arg| !arg.starts_with('-'));
        if first.is_none() || cx.args.first().is_some_and(|arg| arg == "--version" || arg == "-v") {
            out(&mut cx, "podman version 5.2.2\n").await;
            return 0;
        }
        let (verb, rest) = match first.and_then(|at| cx.args.get(at..)) {
            Some([verb, rest @ ..]) => (verb.clone(), rest.to_vec()),
            _ => (String::new(), Vec::new()),
        };
        let containers = &self.0.containers;
        match verb.as_str() {
            "version" => out(&mut cx, "Client:       Podman Engine\nVersion:      5.2.2\nAPI Version:  5.2.2\n").await,
            "run" | "create" => return self.start(&mut cx, &rest).await,
            "pull" => {
                let words = Words::parse(&rest, VALUED);
                let image = words.word(0).to_owned();
                err(&mut cx, format!("Trying to pull {image}...\nGetting image source signatures\nWriting manifest to image destination\n")).await;
                out(&mut cx, format!("{}\n", identity(&image))).await;
            }
            "image" => {
                let id = rest.get(1).map(|image| identity(image)).unwrap_or_default();
                if rest.first().is_some_and(|word| word == "inspect") {
                    out(&mut cx, format!("[{{\"Id\": \"{id}\"}}]\n")).await;
                }
            }
            "images" => {
                let row = ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"].map(str::to_owned).to_vec();
                let image = ["docker.io/library/registry", "2", "26b2eb03618e", "17 months ago", "26 MB"];
                out(&mut cx, table(&[row, image.map(str::to_owned).to_vec()])).await;
            }
            "ps" => return self.list(&mut cx, &rest).await,
            "start" | "restart" => {
                for name in Words::parse(&rest, VALUED).plain {
                    let run = containers.known(&cx.machine.name).into_iter().find(|(run, _)| run.name == name);
                    let Some((run, running)) = run else { return missing(&mut cx, &name).await };
                    if running && verb == "start" {
                        continue;
                    }
                    containers.stop(&name);
                    if let Err(why) = containers.start(&cx.machine, run) {
                        err(&mut cx, format!("Error: unable to start container \"{name}\": {why}\n")).await;
                        return 126;
                    }
                    out(&mut cx, format!("{name}\n")).await;
                }
            }
            "stop" | "kill" => {
                for name in Words::parse(&rest, VALUED).plain {
                    if !containers.known(&cx.machine.name).iter().any(|(run, _)| run.name == name) {
                        if rest.iter().any(|word| word == "--ignore" || word == "-i") {
                            continue;
                        }
                        return missing(&mut cx, &name).await;
                    }
                    containers.stop(&name);
                    out(&mut cx, format!("{name}\n")).await;
                }
            }
            "rm" => {
                let words = Words::parse(&rest, &["time", "t", "filter"]);
                for name in &words.plain {
                    let known = containers.known(&cx.machine.name).into_iter().find(|(run, _)| run.name == *name);
                    match known {
                        Some((_, true)) if !words.has(&["f", "force", "fv"]) => {
                            err(&mut cx, format!("Error: cannot remove container {} as it is running - running or paused containers cannot be removed without force: container state improper\n", identity(name))).await;
                            return 2;
                        }
                        Some(_) => {
                            containers.stop(name);
                            containers.keep(|kept| {
                                kept.remove(name);
                            });
                            out(&mut cx, format!("{name}\n")).await;
                        }
                        None if words.has(&["f", "force", "ignore", "i"]) => {}
                        None => return missing(&mut cx, name).await,
                    }
                }
            }
            "container" if rest.first().is_some_and(|word| word == "exists") => {
                let name = rest.get(1).cloned().unwrap_or_default();
                return i32::from(!containers.known(&cx.machine.name).iter().any(|(run, _)| run.name == name));
            }
            "inspect" | "container" => return self.inspect(&mut cx, &rest).await,
            "logs" => {
                let name = Words::parse(&rest, VALUED).word(0).to_owned();
                match containers.known(&cx.machine.name).into_iter().find(|(run, _)| run.name == name) {
                    Some((run, true)) => err(&mut cx, format!("time=\"{}\" level=info msg=\"listening on [::]:5000, tls\" go.version=go1.20.8 version=2.8.3\n", run.started)).await,
                    Some(_) => {}
                    None => return missing(&mut cx, &name).await,
                }
            }
            "login" => return login(&mut cx, &rest).await,
            "info" => out(&mut cx, "host:\n  arch: amd64\n  os: linux\nstore:\n  graphRoot: /var/lib/containers/storage\nversion:\n  Version: 5.2.2\n").await,
            "system" | "volume" | "network" | "rmi" | "logout" | "secret" | "generate" => {}
            other => {
                err(&mut cx, format!("Error: unrecognized command `podman {other}`\nTry 'podman --help' for more information\n")).await;
                return 125;
            }
        }
        0
    }
}

impl Podman {
    async fn start(&self, cx: &mut ToolCx, rest: &[String]) -> i32 {
        let words = Words::parse(rest, VALUED);
        let image = words.word(0).to_owned();
        if !is_registry(&image) {
            err(cx, format!("Error: initializing source docker://{image}: the lab's podman only knows images of registry:2 and registry:3\n")).await;
            return 125;
        }
        let mut env = BTreeMap::new();
        for file in words.all(&["env-file"]) {
            let Some(text) = read(cx, file) else {
                err(cx, format!("Error: open {file}: no such file or directory\n")).await;
                return 125;
            };
            env.extend(
                text.lines()
                    .filter_map(|line| line.split_once('='))
                    .map(|(key, value)| (key.trim().to_owned(), value.to_owned())),
            );
        }
        for pair in words.all(&["e", "env"]) {
            match pair.split_once('=') {
                Some((key, value)) => env.insert(key.to_owned(), value.to_owned()),
                None => cx.env.get(pair).and_then(|value| env.insert(pair.to_owned(), value.clone())),
            };
        }
        let mut volumes = Vec::new();
        for volume in words.all(&["v", "volume"]) {
            let mut parts = volume.split(':');
            let (host, inside) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let host = path(cx, host);
            if !cx.machine.fs().exists(&host) {
                err(cx, format!("Error: statfs {host}: no such file or directory\n")).await;
                return 125;
            }
            volumes.push((host, inside.to_owned()));
        }
        // The image's entry point takes a configuration file in place of a command.
        if let Some(file) = words.plain.get(1).filter(|word| word.ends_with(".yml")) {
            match read(cx, &outside(&volumes, file))
                .ok_or_else(|| format!("open {file}: no such file or directory"))
                .and_then(|text| settings(&text).map_err(|why| why.to_string()))
            {
                Ok((settings, port)) => {
                    env.extend(settings);
                    env.entry("REGISTRY_HTTP_ADDR".to_owned()).or_insert(format!(":{port}"));
                }
                Err(why) => {
                    err(cx, format!("configuration error: {why}\n")).await;
                    return 1;
                }
            }
        }
        let inside = env.get("REGISTRY_HTTP_ADDR").and_then(|address| address.rsplit(':').next()?.parse().ok());
        let published = words.get(&["p", "publish"]).and_then(|text| {
            let mut parts = text.trim_end_matches("/tcp").rsplit(':');
            let inside: u16 = parts.next()?.parse().ok()?;
            parts.next().map_or(Some(inside), |host| host.parse().ok())
        });
        let name = words.get(&["name"]).map_or_else(|| "hopeful_bhabha".to_owned(), str::to_owned);
        if words.has(&["replace"]) {
            self.0.containers.stop(&name);
            self.0.containers.keep(|kept| {
                kept.remove(&name);
            });
        }
        if self.0.containers.known(&cx.machine.name).iter().any(|(run, _)| run.name == name) {
            err(cx, format!("Error: creating container storage: the container name \"{name}\" is already in use by {}. You have to remove that container to be able to reuse that name: that name is already in use\n", identity(&name))).await;
            return 125;
        }
        let run = Run {
            machine: cx.machine.name.clone(),
            name: name.clone(),
            image,
            env,
            volumes,
            port: published.or(inside).unwrap_or(5000),
            started: crate::lab::ocp::kube_store::now(),
        };
        let stop = match self.0.containers.start(&cx.machine, run.clone()) {
            Ok(stop) => stop,
            Err(why) if why.contains("bind:") => {
                err(cx, format!("Error: rootlessport {why}\n")).await;
                return 126;
            }
            Err(why) => {
                err(cx, format!("time=\"{}\" level=fatal msg=\"{why}\"\n", run.started)).await;
                return 1;
            }
        };
        if words.has(&["d", "detach", "dt", "itd"]) {
            self.0.containers.keep(|kept| {
                kept.insert(name.clone(), run);
            });
            out(cx, format!("{}\n", identity(&name))).await;
            return 0;
        }
        err(
            cx,
            format!(
                "time=\"{}\" level=info msg=\"listening on [::]:5000, tls\" go.version=go1.20.8 version=2.8.3\n",
                run.started
            ),
        )
        .await;
        tokio::select! {
            () = cx.cancel.cancelled() => {
                self.0.containers.stop(&name);
                if !words.has(&["rm"]) {
                    self.0.containers.keep(|kept| { kept.insert(name.clone(), run); });
                }
                0
            }
            () = stop.cancelled() => 0,
        }
    }

    async fn list(&self, cx: &mut ToolCx, rest: &[String]) -> i32 {
        let words = Words::parse(rest, VALUED);
        let wanted = words
            .all(&["filter", "f"])
            .iter()
            .find_map(|filter| filter.strip_prefix("name=").map(|name| name.trim_matches(['^', '$']).to_owned()));
        let mut known = self.0.containers.known(&cx.machine.name);
        known.retain(|(run, running)| {
            (*running || words.has(&["a", "all", "aq"]))
                && wanted.as_ref().is_none_or(|name| run.name.contains(name.as_str()))
        });
        let state = |running: bool| if running { "Up 2 minutes" } else { "Exited (2) 1 minute ago" };
        let mut text = String::new();
        if words.has(&["q", "quiet", "aq"]) {
            known.iter().for_each(|(run, _)| text.push_str(&format!("{}\n", short(&run.name))));
        } else if words.get(&["format"]) == Some("json") {
            let list: Vec<_> = known.iter().map(|(run, running)| json!({ "Id": identity(&run.name), "Names": [run.name], "Image": run.image, "State": if *running { "running" } else { "exited" }, "Status": state(*running) })).collect();
            text = format!("{:#}\n", json!(list));
        } else if let Some(format) = words.get(&["format"]) {
            for (run, running) in &known {
                let line = format
                    .replace("{{.Names}}", &run.name)
                    .replace("{{.Status}}", state(*running))
                    .replace("{{.Image}}", &run.image)
                    .replace("{{.ID}}", &short(&run.name))
                    .replace("{{.State}}", if *running { "running" } else { "exited" });
                text.push_str(&format!("{line}\n"));
            }
        } else {
            let mut rows = vec![
                ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"].map(str::to_owned).to_vec(),
            ];
            rows.extend(known.iter().map(|(run, running)| {
                let port = format!("0.0.0.0:{0}->5000/tcp", run.port);
                vec![
                    short(&run.name),
                    run.image.clone(),
                    "/etc/docker/regis...".into(),
                    "2 minutes ago".into(),
                    state(*running).into(),
                    port,
                    run.name.clone(),
                ]
            }));
            text = table(&rows);
        }
        out(cx, text).await;
        0
    }

    async fn inspect(&self, cx: &mut ToolCx, rest: &[String]) -> i32 {
        let words = Words::parse(rest, VALUED);
        let name = words.plain.iter().find(|word| *word != "inspect").cloned().unwrap_or_default();
        let known = self.0.containers.known(&cx.machine.name).into_iter().find(|(run, _)| run.name == name);
        let Some((run, running)) = known else { return missing(cx, &name).await };
        let status = if running { "running" } else { "exited" };
        let text = match words.get(&["format", "f"]) {
            Some(format) => format
                .replace("{{.State.Status}}", status)
                .replace("{{.State.Running}}", if running { "true" } else { "false" })
                .replace("{{.ImageName}}", &run.image)
                .replace("{{.Config.Image}}", &run.image)
                .replace("{{.Id}}", &identity(&run.name)),
            None => format!(
                "{:#}",
                json!([{ "Id": identity(&run.name), "Name": run.name, "ImageName": run.image, "State": { "Status": status, "Running": running, "StartedAt": run.started } }])
            ),
        };
        out(cx, format!("{text}\n")).await;
        0
    }
}

async fn missing(cx: &mut ToolCx, name: &str) -> i32 {
    err(cx, format!("Error: no container with name or ID \"{name}\" found: no such container\n")).await;
    125
}

fn is_registry(image: &str) -> bool {
    let bare = image.trim_start_matches("docker://").split('@').next().unwrap_or_default();
    let last = bare.rsplit('/').next().unwrap_or_default();
    last.split(':').next() == Some("registry")
}

fn identity(name: &str) -> String {
    payload::digest(name.as_bytes()).trim_start_matches("sha256:").to_owned()
}

fn short(name: &str) -> String {
    identity(name).chars().take(12).collect()
}

/// Write the credentials; the registry itself says later whether they are good.
async fn login(cx: &mut ToolCx, rest: &[String]) -> i32 {
    use base64::Engine;
    let words = Words::parse(rest, VALUED);
    let password = match words.get(&["password", "p"]) {
        Some(password) => password.to_owned(),
        None => input(cx).await.trim_end().to_owned(),
    };
    let user = words.get(&["username", "u"]).unwrap_or_default();
    let file = match words.get(&["authfile"]).or_else(|| cx.env.get("REGISTRY_AUTH_FILE").map(String::as_str)) {
        Some(file) => path(cx, file),
        None => format!("{}/.config/containers/auth.json", home(cx)),
    };
    let old = cx.machine.fs().read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let mut auths: serde_json::Value = old.unwrap_or_else(|| json!({ "auths": {} }));
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    auths["auths"][words.word(0)] = json!({ "auth": auth });
    if cx.machine.fs().write(&file, format!("{auths:#}").as_bytes()).is_err() {
        err(cx, "Error: no space left on device\n").await;
        return 125;
    }
    let _ = cx.machine.fs().set_mode(&file, 0o600);
    out(cx, "Login Succeeded!\n").await;
    0
}

/// `docker-registry serve config.yml`, `registry serve config.yml`.
pub struct RegistryBinary {
    pub scene: Arc<Scene>,
    pub name: &'static str,
}

#[async_trait]
impl Tool for RegistryBinary {
    fn name(&self) -> &'static str {
        self.name
    }

    /// Not there from the start: podman is.
    fn on(&self, _host: &str) -> bool {
        false
    }

    async fn run(&self, mut cx: ToolCx) -> i32 {
        if cx.args.first().is_some_and(|arg| arg == "--version") {
            out(&mut cx, format!("{} github.com/docker/distribution 2.8.2+ds1\n", self.name)).await;
            return 0;
        }
        let file = cx.args.get(1).cloned().unwrap_or_default();
        let run = match read(&cx, &file)
            .ok_or_else(|| format!("open {file}: no such file or directory"))
            .and_then(|text| settings(&text).map_err(|why| why.to_string()))
        {
            Ok((env, port)) => Run {
                machine: cx.machine.name.clone(),
                name: self.name.into(),
                image: self.name.into(),
                env,
                port,
                ..Run::default()
            },
            Err(why) => {
                err(&mut cx, format!("configuration error: {why}\n")).await;
                return 1;
            }
        };
        match self.scene.containers.start(&cx.machine, run) {
            Ok(stop) => {
                tokio::select! {
                    () = cx.cancel.cancelled() => { self.scene.containers.stop(self.name); }
                    () = stop.cancelled() => {}
                }
                0
            }
            Err(why) => {
                err(&mut cx, format!("level=fatal msg=\"{why}\"\n")).await;
                1
            }
        }
    }
}

/// The configuration file as environment variables.
fn settings(text: &str) -> Result<(BTreeMap<String, String>, u16), OcpError> {
    let config: serde_json::Value =
        yaml_serde::from_str(text).map_err(|why| OcpError::Machine(format!("error parsing configuration: {why}")))?;
    let mut env = BTreeMap::new();
    for (name, pointer) in [
        ("REGISTRY_HTTP_TLS_CERTIFICATE", "/http/tls/certificate"),
        ("REGISTRY_HTTP_TLS_KEY", "/http/tls/key"),
        ("REGISTRY_AUTH_HTPASSWD_PATH", "/auth/htpasswd/path"),
        ("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", "/storage/filesystem/rootdirectory"),
    ] {
        if let Some(value) = config.pointer(pointer).and_then(serde_json::Value::as_str) {
            env.insert(name.to_owned(), value.to_owned());
        }
    }
    let address = config.pointer("/http/addr").and_then(serde_json::Value::as_str).unwrap_or(":5000");
    Ok((env, address.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(5000)))
}
