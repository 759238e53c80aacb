//! The first boot of a node, as its serial console shows it: Ignition asks the machine config server until it has its
//! config (coreos/ignition `internal/resource/http.go`). Before that there is no SSH.

use std::time::{Duration, Instant};

use super::OcpError;
use super::cluster::{Cluster, NodePlan, Scene};
use super::network::MACHINE_CONFIG_SERVER;

/// EC2 keeps so much of a console.
const KEPT: usize = 64 << 10;
/// The cloud is told of a console no more often than this.
const FLUSH: Duration = Duration::from_secs(1);
/// Ignition's longest pause between two attempts.
const PAUSE: Duration = Duration::from_secs(5);
const SYSTEM: &str = "Red Hat Enterprise Linux CoreOS 418.94.202503061016-0";

/// The serial console of one instance.
pub struct Console<'s> {
    scene: &'s Scene,
    instance: String,
    text: String,
    booted: Instant,
    told: Option<Instant>,
}

impl<'s> Console<'s> {
    /// Power on: the kernel, and Ignition with its pid.
    pub fn boot(scene: &'s Scene, instance: &str) -> Self {
        let mut console =
            Self { scene, instance: instance.to_owned(), text: String::new(), booted: Instant::now(), told: None };
        console.say("Linux version 5.14.0-427.61.1.el9_4.x86_64 (mockbuild@x86-64-03.build.eng.rdu2.redhat.com)");
        console.say("systemd[1]: Running in initrd.");
        for line in ["Ignition 2.20.0", "Stage: fetch-offline", "fetch-offline: fetch-offline passed", "Stage: fetch"] {
            console.ignition(line);
        }
        console.ignition("GET http://169.254.169.254/2019-10-01/user-data: attempt #1");
        console.ignition("GET result: OK");
        console
    }

    fn say(&mut self, line: &str) {
        let up = self.booted.elapsed().as_secs_f64() * self.scene.clock.speed();
        self.raw(&format!("[{up:12.6}] {line}"));
    }

    fn ignition(&mut self, line: &str) {
        self.say(&format!("ignition[754]: {line}"));
    }

    fn raw(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push_str("\r\n");
        if self.text.len() > KEPT {
            let cut = self.text.len() - KEPT;
            let from = self.text.char_indices().map(|(at, _)| at).find(|at| *at >= cut).unwrap_or(0);
            self.text.drain(..from);
        }
    }

    fn flush(&mut self, now: bool) -> Result<(), OcpError> {
        if now || self.told.is_none_or(|told| told.elapsed() >= FLUSH) {
            self.told = Some(Instant::now());
            self.scene.cloud.set_console_output(&self.instance, &self.text)?;
        }
        Ok(())
    }

    /// What the console shows when the machine is up.
    pub fn up(&mut self, host: &str) -> Result<(), OcpError> {
        self.ignition("Ignition finished successfully");
        self.say("systemd[1]: Switching root.");
        self.raw("");
        self.raw(SYSTEM);
        self.raw("Kernel 5.14.0-427.61.1.el9_4.x86_64 on an x86_64 (-)");
        self.raw("");
        self.raw(&format!("{} login: ", host.split('.').next().unwrap_or(host)));
        self.flush(true)
    }
}

/// Until the node of `instance` has its config. `pool` is `master` or `worker`.
pub async fn fetch_config(
    scene: &Scene,
    cluster: &Cluster,
    node: &NodePlan,
    instance: &str,
    pool: &str,
) -> Result<(), OcpError> {
    let host = format!("api-int.{}", cluster.assets.domain);
    let url = format!("https://{host}:{MACHINE_CONFIG_SERVER}/config/{pool}");
    let mut console = Console::boot(scene, instance);
    let pause = PAUSE.div_f64(scene.clock.speed()).max(FLUSH);
    for attempt in 1_u32.. {
        console.ignition(&format!("GET {url}: attempt #{attempt}"));
        let trouble = match scene.in_the_way(cluster, &host, MACHINE_CONFIG_SERVER).await? {
            // A balancer without a healthy target closes the connection.
            None if !cluster.marks().serves_ignition => Some("EOF".to_owned()),
            other => other,
        };
        let Some(why) = trouble else { break };
        console.ignition(&format!("GET error: Get \"{url}\": {why}"));
        console.flush(false)?;
        tokio::time::sleep(pause).await;
    }
    console.ignition("GET result: OK");
    console.ignition(&format!("fetched referenced config at {url} with SHA512: 3f1c0a"));
    console.up(&node.node)?;
    requested(scene, node, pool);
    Ok(())
}

/// Where the bootstrap machine keeps what its machine config server says.
pub const REQUESTS: &str = "/var/log/pods/openshift-machine-config-operator_bootstrap-machine-config-operator-bootstrap_0/machine-config-server/0.log";

/// The machine config server notes who asked (openshift/machine-config-operator `pkg/server/api.go`).
fn requested(scene: &Scene, node: &NodePlan, pool: &str) {
    let Some(bootstrap) = scene.machines.machine("bootstrap") else { return };
    let now = scene.clock.now();
    let (at, klog) = (now.strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00"), now.strftime("%m%d %H:%M:%S.%6f"));
    let line = format!(
        "{at} stderr F I{klog}       1 api.go:65] Pool \"{pool}\" requested by address:\"{}:4021\" \
         User-Agent:\"Ignition/2.20.0\" Accept-Header: \"application/vnd.coreos.ignition+json;version=3.4.0, */*;q=0.1\"\n",
        node.address
    );
    // It only tells; nobody waits for it.
    let _ = bootstrap.fs().append(REQUESTS, line.as_bytes());
}
