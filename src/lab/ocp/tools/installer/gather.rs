//! `gather bootstrap`: the log bundle, in the layout of openshift/installer
//! `data/data/bootstrap/files/usr/local/bin/installer-gather.sh` and `installer-masters-gather.sh`.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::{BOOTSTRAP, Fatal, Session};
use crate::cloud::{Cloud, Kind};
use crate::lab::machines::Machine;
use crate::lab::ocp::first_boot::REQUESTS;

/// Units of which the scripts take the journal, on the bootstrap machine and on a master.
const BOOTSTRAP_UNITS: [&str; 8] =
    ["release-image", "crio-configure", "bootkube", "kubelet", "crio", "approve-csr", "ironic", "master-bmh-update"];
const MASTER_UNITS: [&str; 4] = ["kubelet", "crio", "machine-config-daemon-host", "pivot"];
/// Objects that they take, by the name of their file.
const RESOURCES: [(&str, &str); 7] = [
    ("clusteroperators", "clusteroperators"),
    ("clusterversion", "clusterversions"),
    ("csr", "certificatesigningrequests"),
    ("events", "events"),
    ("machineconfigpools", "machineconfigpools"),
    ("nodes", "nodes"),
    ("pods", "pods"),
];

/// The bundle while it is made.
struct Bundle {
    root: String,
    tar: tar::Builder<GzEncoder<Vec<u8>>>,
}

impl Bundle {
    fn new(root: String) -> Self {
        Self { root, tar: tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default())) }
    }

    fn add(&mut self, name: &str, bytes: &[u8]) -> Option<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        self.tar.append_data(&mut header, format!("{}/{name}", self.root), bytes).ok()
    }

    fn finish(self) -> Option<Vec<u8>> {
        self.tar.into_inner().ok()?.finish().ok()
    }

    /// What both scripts take of a machine; `folder` is empty for the bootstrap machine.
    async fn machine(&mut self, machine: &Machine, folder: &str, journals: &str, units: &[&str]) -> Option<()> {
        let (_, failed, _) = machine.run("systemctl list-units --state=failed").await;
        self.add(&format!("{folder}failed-units.txt"), failed.as_bytes())?;
        for unit in units {
            let asked = format!("journalctl --boot --no-pager --output=short --unit={unit}");
            let (_, journal, _) = machine.run(&asked).await;
            self.add(&format!("{folder}{journals}/{unit}.log"), journal.as_bytes())?;
        }
        Some(())
    }
}

impl Session {
    pub(super) async fn bootstrap_failed(&mut self) -> Result<(), Fatal> {
        self.info("Pulling Cluster API artifacts").await;
        self.info("Pulling VM console logs").await;
        self.info("Pulling debug logs from the bootstrap machine").await;
        self.scene.sleep(20).await;
        match self.bundle().await {
            Ok(bundle) => self.info(format!("Bootstrap gather logs captured here \"{bundle}\"")).await,
            Err(why) => {
                let text = format!("Attempted to gather debug logs after installation failure: {why}");
                self.say("error", text).await;
            }
        }
        Err(Fatal(BOOTSTRAP, String::new()))
    }

    pub(super) async fn gather(&mut self) -> Result<(), Fatal> {
        self.info("Pulling debug logs from the bootstrap machine").await;
        let bundle = self.bundle().await.map_err(|why| Fatal(1, why))?;
        self.info(format!("Bootstrap gather logs captured here \"{bundle}\"")).await;
        Ok(())
    }

    /// Makes the bundle; gives its path.
    async fn bundle(&mut self) -> Result<String, String> {
        let unreachable = "failed to create SSH client: dial tcp 10.0.0.8:22: connect: connection timed out";
        let bootstrap = self.scene.machines.machine("bootstrap").ok_or(unreachable)?;
        let id = self.scene.clock.now().strftime("%Y%m%d%H%M%S").to_string();
        let bytes =
            self.pack(&bootstrap, &id).await.ok_or("failed to run remote command: Process exited with status 1")?;
        let path = self.file(&format!("log-bundle-{id}.tar.gz"));
        self.log.machine.fs().write(&path, &bytes).map_err(|why| why.to_string())?;
        Ok(path)
    }

    async fn pack(&self, bootstrap: &Machine, id: &str) -> Option<Vec<u8>> {
        let mut bundle = Bundle::new(format!("log-bundle-{id}"));
        bundle.add("gather.log", b"Gathering bootstrap service records ...\nGathering bootstrap journals ...\n")?;
        bundle.machine(bootstrap, "", "bootstrap/journals", &BOOTSTRAP_UNITS).await?;
        let (_, journal, _) = bootstrap.run("journalctl --boot --no-pager --output=with-unit").await;
        let mut whole = GzEncoder::new(Vec::new(), Compression::fast());
        whole.write_all(journal.as_bytes()).ok()?;
        bundle.add("bootstrap/journals/journal.log.gz", &whole.finish().ok()?)?;
        for name in bootstrap.fs().list("/var/log/openshift").unwrap_or_default() {
            if let Some(bytes) =
                bootstrap.fs().read(&format!("/var/log/openshift/{name}")).ok().filter(|_| name.ends_with(".json"))
            {
                bundle.add(&format!("bootstrap/services/{name}"), &bytes)?;
            }
        }
        // crictl prints what a container says without what the kubelet puts before it.
        if let Ok(requests) = bootstrap.fs().read(REQUESTS) {
            let text = String::from_utf8_lossy(&requests).into_owned();
            let said: String = text
                .lines()
                .filter_map(|line| line.splitn(4, ' ').nth(3))
                .fold(String::new(), |all, line| all + line + "\n");
            bundle.add(
                "bootstrap/containers/machine-config-server-0123456789abcdef0123456789abcdef.log",
                said.as_bytes(),
            )?;
        }
        if self.scene.kube.is_up() {
            for (file, plural) in RESOURCES {
                let (_, items) = self.scene.kube.list(plural, None);
                let items: Vec<&Value> = items.iter().map(AsRef::as_ref).collect();
                let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
                bundle.add(&format!("resources/{file}.json"), list.to_string().as_bytes())?;
            }
        }
        let Some(cluster) = self.infra_id().ok().and_then(|id| self.scene.cluster(&id)) else { return bundle.finish() };
        for node in cluster.masters() {
            if let Some(machine) = self.scene.machines.machine(&node.name) {
                bundle
                    .machine(&machine, &format!("control-plane/{}/", node.address), "journals", &MASTER_UNITS)
                    .await?;
            }
        }
        for instance in self.scene.cloud.find(Kind::Instance, &cluster.owned()).await.ok()? {
            let console = self.scene.cloud.console_output(&instance.id).await.unwrap_or_default();
            if let Some(name) = instance.tags.get("Name").filter(|_| !console.is_empty()) {
                bundle.add(&format!("serial/{name}-serial.log"), console.as_bytes())?;
            }
        }
        bundle.finish()
    }
}
