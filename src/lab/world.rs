//! The whole lab: machines, source registry, cloud file and scenario, started together in one directory. The product needs
//! the spec and the cloud file, and nothing else of it; a lab that is started again in the same directory goes on.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cloud::memory::MemoryCloud;
use crate::cloud::{Cloud, Kind, Resource, Tags};
use crate::host::ssh::new_key_pair;
use crate::lab::machines::{Clock, MachineSpec, Machines};
use crate::lab::ocp::ca::Ca;
use crate::lab::ocp::cluster::Scene;
use crate::lab::ocp::kube_store::Store;
use crate::lab::ocp::payload::Payload;
use crate::lab::ocp::scenario::{Act, Happened, Moment, Scenario};
use crate::lab::ocp::source::Source;
use crate::lab::ocp::tools;
use crate::lab::ocp::tools::podman::Containers;

pub use crate::lab::ocp::OcpError as LabError;

/// What is installed in the demo.
const NAME: &str = "edge-lab";
const BASE_DOMAIN: &str = "example.com";
const VERSION: &str = "4.18.12";
const REGION: &str = "us-east-2";

#[derive(Debug, Clone)]
pub struct LabOptions {
    /// Where everything of the lab is kept; made when it is not there.
    pub dir: PathBuf,
    /// One of [`Scenario::names`].
    pub scenario: String,
    /// How many times faster than life.
    pub speed: f64,
    /// Size of the release in megabytes.
    pub payload_mb: u64,
}

/// A lab that runs. It ends with [`Lab::stop`].
pub struct Lab {
    scene: Arc<Scene>,
    kept: Kept,
}

/// What has to be the same after a restart.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    bastion_port: u16,
    mirror_port: u16,
    /// User and password of the pull secret.
    account: (String, String),
}

impl Lab {
    pub async fn start(options: LabOptions) -> Result<Self, LabError> {
        // Somebody else may have installed it already; it is the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = options.dir.clone();
        std::fs::create_dir_all(&dir)?;
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700))?;
        let scenario = Scenario::named(&options.scenario)?;
        let kept = Kept::open(&dir)?;
        let ssh = reserve(kept.bastion_port).await?;
        let source_ca = Ca::open(&dir, "source-ca", "lab source registry CA")?;
        let megabytes = options.payload_mb;
        let cache = dir.join("payload.json");
        let payload = tokio::task::spawn_blocking(move || Payload::make(VERSION, "x86_64", megabytes, Some(&cache)));
        let payload = Arc::new(payload.await.map_err(|why| LabError::Machine(why.to_string()))??);
        let cancel = CancellationToken::new();
        let clock = Clock::new(options.speed);
        let rate = rate(payload.bytes(), clock.speed());
        let source = Source::start(payload.clone(), &source_ca, kept.account.clone(), rate, cancel.clone())?;
        let machines = Machines::start(dir.join("machines"), clock.clone())
            .await
            .map_err(|why| LabError::Machine(why.to_string()))?;
        let cloud = MemoryCloud::open(dir.join("cloud.json"))?;
        cloud.with_state(|state| {
            state.settings.region = REGION.into();
            state.settings.public_ip = Some(Ipv4Addr::LOCALHOST.to_string());
            state.settings.pace_ms = (1000.0 / clock.speed()).max(20.0) as u64;
        })?;
        let (stored, sync) = mpsc::unbounded_channel();
        let happened = std::fs::read(dir.join("happened.json")).ok();
        let scene = Arc::new(Scene {
            clock,
            scenario,
            payload,
            cloud,
            source,
            source_ca,
            kube: Store::open(dir.join("kube.json")),
            containers: Containers::new(machines.clone(), dir.join("containers.json"), stored),
            machines,
            cancel: cancel.clone(),
            happened: std::sync::Mutex::new(
                happened.and_then(|bytes| serde_json::from_slice::<Happened>(&bytes).ok()).unwrap_or_default(),
            ),
            clusters: std::sync::Mutex::default(),
            dir,
        });
        scene.machines.route("quay.io", Some(443), source);
        for tool in tools::all(&scene) {
            scene.machines.add_tool(tool);
        }
        let lab = Self { scene: scene.clone(), kept };
        lab.write_files()?;
        scene.relaunch()?;
        scene.happens(&Moment::Beginning).await;
        let follower = scene.clone();
        spawn(&cancel, async move { follower.follow_sync(sync).await });
        spawn(&cancel, forward(scene.clone(), ssh));
        spawn(&cancel, follow_bastion(scene));
        Ok(lab)
    }

    /// The `cluster.toml` of the demo.
    pub fn spec_toml(&self) -> String {
        let file = |name: &str| self.scene.dir.join(name).display().to_string();
        let mut text = format!("[cluster]\nname = \"{NAME}\"\nbase_domain = \"{BASE_DOMAIN}\"\n\n");
        text.push_str(&format!("[release]\nversion = \"{VERSION}\"\nca_file = {:?}\n\n", file("source-ca.crt")));
        text.push_str(&format!("[aws]\nregion = \"{REGION}\"\n\n"));
        text.push_str(&format!(
            "[bastion]\nport = {}\nidentity_file = {:?}\noperator_cidr = \"127.0.0.1/32\"\n\n",
            self.kept.bastion_port,
            file("id_ed25519"),
        ));
        text.push_str(&format!(
            "[credentials]\npull_secret = {:?}\nssh_public_key = {:?}\nssh_private_key = {:?}\n\n",
            file("pull-secret.json"),
            file("id_ed25519.pub"),
            file("id_ed25519"),
        ));
        text.push_str("[tools]\nsource = \"present\"\n\n");
        text.push_str(&format!(
            "[mirror]\nhost = \"registry.{NAME}.{BASE_DOMAIN}\"\nport = {}\n",
            self.kept.mirror_port
        ));
        text
    }

    /// Where [`Lab::spec_toml`] is written.
    pub fn spec_file(&self) -> PathBuf {
        self.scene.dir.join("cluster.toml")
    }

    pub fn cloud_file(&self) -> PathBuf {
        self.scene.dir.join("cloud.json")
    }

    /// The parts, for tests that look behind the product's back.
    pub fn scene(&self) -> &Arc<Scene> {
        &self.scene
    }

    /// Until somebody stops the lab.
    pub async fn wait(&self) {
        self.scene.cancel.cancelled().await;
    }

    pub async fn stop(&self) {
        self.scene.cancel.cancel();
        self.scene.machines.stop().await;
    }

    fn write_files(&self) -> Result<(), LabError> {
        let dir = &self.scene.dir;
        let (user, password) = &self.kept.account;
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let entry = json!({ "auth": auth, "email": "lab@example.com" });
        let secret =
            json!({ "auths": { "quay.io": entry, "cloud.openshift.com": entry, "registry.redhat.io": entry } });
        private(&dir.join("pull-secret.json"), secret.to_string().as_bytes())?;
        let key = dir.join("id_ed25519");
        if !key.exists() {
            let (private_key, public_key) =
                new_key_pair("bartizan-lab").map_err(|why| LabError::Key(why.to_string()))?;
            private(&key, private_key.reveal().as_bytes())?;
            private(&dir.join("id_ed25519.pub"), format!("{public_key}\n").as_bytes())?;
        }
        private(&self.spec_file(), self.spec_toml().as_bytes())
    }
}

impl Kept {
    fn open(dir: &Path) -> Result<Self, LabError> {
        let file = dir.join("lab.json");
        if let Some(kept) = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            return Ok(kept);
        }
        let password = (0..32).map(|_| fastrand::alphanumeric()).collect();
        let free = || -> std::io::Result<(std::net::TcpListener, u16)> {
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let port = listener.local_addr()?.port();
            Ok((listener, port))
        };
        // Both are held until both are known, so that they differ.
        let ((_one, bastion_port), (_other, mirror_port)) = (free()?, free()?);
        let kept = Self { bastion_port, mirror_port, account: ("openshift-release-dev+lab".into(), password) };
        private(&file, &serde_json::to_vec(&kept)?)?;
        Ok(kept)
    }
}

/// Bytes a second, so that a whole release takes a while that can be watched.
fn rate(bytes: u64, speed: f64) -> u64 {
    let seconds = (150.0 / speed).clamp(1.0, 30.0);
    (bytes as f64 / seconds) as u64
}

fn private(file: &Path, bytes: &[u8]) -> Result<(), LabError> {
    use std::io::Write;
    let mut open = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    open.write_all(bytes)?;
    Ok(())
}

fn spawn(cancel: &CancellationToken, work: impl Future<Output = ()> + Send + 'static) {
    let cancel = cancel.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = work => {}
        }
    });
}

/// The bastion's SSH port, which the spec names before there is a bastion. A lab that was killed may hold it a moment.
async fn reserve(port: u16) -> Result<TcpListener, LabError> {
    let mut tries = 0;
    loop {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(listener) => return Ok(listener),
            Err(why) if tries >= 50 => return Err(why.into()),
            Err(_) => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Connections to the reserved port go to the bastion, once there is one.
async fn forward(scene: Arc<Scene>, listener: TcpListener) {
    loop {
        let Ok((mut from, _)) = listener.accept().await else { continue };
        let Some(bastion) = scene.machines.machine("bastion") else { continue };
        let ssh: SocketAddr = bastion.ssh();
        tokio::spawn(async move {
            if let Ok(mut to) = TcpStream::connect(ssh).await {
                let _ = (from.set_nodelay(true), to.set_nodelay(true));
                // A connection that breaks is closed on both sides; there is nobody to tell.
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            }
        });
    }
}

/// Boot the bastion when its instance runs, end it with the instance, and let its disk grow with the volume.
async fn follow_bastion(scene: Arc<Scene>) {
    let mut volume: Option<u64> = None;
    let mut reboots = String::new();
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if scene.scenario.has(&Act::ClosePort) || scene.scenario.has(&Act::LoseName) {
            guard_mirror(&scene).await;
        }
        let Ok(instances) = scene.cloud.find(Kind::Instance, &Tags::new()).await else { continue };
        let bastion = instances
            .into_iter()
            .find(|one| one.state == "running" && one.tags.get("Name").is_some_and(|name| name.ends_with("bastion")));
        let running = scene.machines.machine("bastion");
        match (bastion, running) {
            (Some(instance), None) => match boot(&scene, &instance).await {
                Ok(()) => volume = Some(gib(&instance)),
                Err(why) => tracing::error!("the lab's bastion did not boot: {why}"),
            },
            (Some(instance), Some(_)) if instance.property("Reboots").is_some_and(|times| times != reboots) => {
                reboots = instance.property("Reboots").unwrap_or_default().to_owned();
                scene.containers.stop_all();
                scene.machines.shut_down("bastion").await;
            }
            (Some(instance), Some(machine)) => {
                let size = gib(&instance);
                let before = *volume.get_or_insert(size);
                if size > before {
                    machine.fs().set_device_bytes(machine.fs().limit() + ((size - before) << 30));
                    volume = Some(size);
                }
            }
            (None, Some(_)) => {
                scene.containers.stop_all();
                scene.machines.shut_down("bastion").await;
                volume = None;
            }
            (None, None) => {}
        }
    }
}

/// Nodes come to the mirror as far as the bastion's rules and records let them.
async fn guard_mirror(scene: &Scene) {
    for served in scene.containers.served() {
        for name in scene.containers.names() {
            match scene.mirror_trouble(&name, served.port).await {
                Ok(trouble) => scene.machines.set_trouble(&name, served.port, trouble),
                Err(why) => tracing::error!("the lab's rules could not be read: {why}"),
            }
        }
    }
}

fn gib(instance: &Resource) -> u64 {
    instance.properties.get("RootVolumeSize").and_then(|text| text.parse().ok()).unwrap_or(120)
}

async fn boot(scene: &Scene, instance: &Resource) -> Result<(), LabError> {
    let key_name = instance.properties.get("KeyName");
    let pairs = scene.cloud.find(Kind::KeyPair, &Tags::new()).await?;
    let keys = pairs
        .iter()
        .filter(|pair| pair.properties.get("KeyName") == key_name)
        .filter_map(|pair| pair.properties.get("PublicKeyMaterial").cloned())
        .collect();
    let spec = MachineSpec {
        name: "bastion".into(),
        address: instance.properties.get("PrivateIpAddress").cloned().unwrap_or_default(),
        user: "ec2-user".into(),
        authorized_keys: keys,
        disk_bytes: gib(instance) << 30,
    };
    let machine = scene.machines.boot(spec).await.map_err(|why| LabError::Machine(why.to_string()))?;
    let console = format!(
        "[    0.000000] Linux version 6.1.129-138.220.amzn2023.x86_64\n[   12.402113] cloud-init[1642]: Cloud-init v. 22.2.2 finished\n-----BEGIN SSH HOST KEY KEYS-----\n{}\n-----END SSH HOST KEY KEYS-----\n",
        machine.host_key().trim(),
    );
    scene.cloud.set_console_output(&instance.id, &console)?;
    scene.containers.restart(&machine);
    Ok(())
}
