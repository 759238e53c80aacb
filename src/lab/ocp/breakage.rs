//! What a scenario can break of the mirror, the bastion and the account, each in one way that somebody has met.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::OcpError;
use super::ca::Ca;
use super::cluster::Scene;
use crate::cloud::{Cloud, Kind, Tags, record};
use crate::lab::machines::Machine;

const STATE: &str = ".openshift_install_state.json";

/// On a machine: what is to go wrong there once.
pub(in crate::lab::ocp) const NO_MACHINES: &str = "/run/lab/no-machines";
pub(super) const GIVEN_UP: &str = "/run/lab/bootkube-given-up";

/// Certificates of Ignition configs are good for so long.
const DAY: Duration = Duration::from_secs(86_400);

impl Scene {
    pub(super) fn leave_mark(&self, machine: &str, mark: &str) -> Result<(), OcpError> {
        if let Some(machine) = self.machines.machine(machine) {
            machine.fs().mkdir_p("/run/lab")?;
            machine.fs().write(mark, b"")?;
        }
        Ok(())
    }

    /// Whether the mark was there; it is gone then.
    pub(in crate::lab::ocp) fn take_mark(machine: &Machine, mark: &str) -> bool {
        machine.fs().exists(mark) && machine.fs().remove(mark).is_ok()
    }

    /// The state that the installer keeps of its assets is two days old.
    pub(super) fn age_assets(&self) -> Result<(), OcpError> {
        for file in self.install_files(STATE)? {
            let (bastion, path) = file;
            let place = bastion.fs().real(&path)?;
            let state = std::fs::File::options().write(true).open(place)?;
            state.set_modified(SystemTime::now() - 2 * DAY)?;
        }
        Ok(())
    }

    /// Whether the assets of an install directory are over.
    pub(in crate::lab::ocp) fn are_old(machine: &Machine, folder: &str) -> bool {
        let made =
            machine.fs().real(&format!("{folder}/{STATE}")).and_then(|place| std::fs::metadata(place)?.modified());
        made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > DAY))
    }

    /// That file in every install directory that has it.
    fn install_files(&self, name: &str) -> Result<Vec<(Arc<Machine>, String)>, OcpError> {
        let Some(bastion) = self.machines.machine("bastion") else { return Ok(Vec::new()) };
        let home = format!("/home/{}/bartizan", bastion.user);
        let folders = bastion.fs().list(&home)?.into_iter().filter(|name| name.starts_with("install-"));
        let files = folders.map(|folder| format!("{home}/{folder}/{name}"));
        Ok(files.filter(|file| bastion.fs().exists(file)).map(|file| (bastion.clone(), file)).collect())
    }

    /// Somebody gives the registry a certificate of a CA that nobody trusts, and leaves the CA's file as it was.
    pub(super) fn foreign_certificate(&self) -> Result<(), OcpError> {
        let ca = Ca::open(&self.dir, "foreign-ca", "somebody's CA")?;
        for served in self.containers.served() {
            let fs = served.machine.fs();
            let names = super::twists::names(&fs.read(&served.certificate)?);
            let leaf = ca.server(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
            fs.write(&served.certificate, leaf.certificate.as_bytes())?;
            fs.write(&served.key, leaf.key.as_bytes())?;
            served.tls.reload_from_config(super::tls::config(leaf.certificate.as_bytes(), leaf.key.as_bytes(), None)?);
        }
        Ok(())
    }

    /// The registry's accounts are overwritten with another one.
    pub(super) fn forget_accounts(&self) -> Result<(), OcpError> {
        for served in self.containers.served() {
            if let Some(htpasswd) = &served.htpasswd {
                let hash = bcrypt::hash("another", 4).map_err(|why| OcpError::Machine(why.to_string()))?;
                served.machine.fs().write(htpasswd, format!("somebody:{hash}\n").as_bytes())?;
            }
        }
        Ok(())
    }

    /// An upload that was abandoned lies beside the registry's data, and the disk has room for the rest of the release
    /// only without it.
    pub(super) fn leave_junk(&self) -> Result<(), OcpError> {
        let (release, junk) = (self.payload.bytes(), vec![0; 24 << 20]);
        for served in self.containers.served() {
            let upload = format!("{}/docker/registry/v2/repositories/openshift/old/_uploads/5f0c2c1e", served.data);
            let fs = served.machine.fs();
            fs.mkdir_p(&upload)?;
            for part in 0..6 + release / (24 << 20) {
                fs.write(&format!("{upload}/data-{part}"), &junk)?;
            }
            fs.set_limit(fs.used_bytes() + release / 2);
        }
        Ok(())
    }

    /// The bastion's security group loses its rule for the mirror's port.
    pub(super) async fn close_mirror_port(&self) -> Result<(), OcpError> {
        let ports: Vec<u16> = self.containers.served().iter().map(|served| served.port).collect();
        for group in self.cloud.find(Kind::SecurityGroup, &Tags::new()).await? {
            let rules = group
                .properties
                .keys()
                .filter(|rule| ports.iter().any(|port| rule.starts_with(&format!("Ingress tcp/{port} "))));
            let gone: std::collections::BTreeMap<_, _> = rules.map(|rule| (rule.clone(), String::new())).collect();
            if !gone.is_empty() {
                self.cloud.modify(Kind::SecurityGroup, &group.id, &gone).await?;
            }
        }
        Ok(())
    }

    /// The mirror's name loses its record.
    pub(super) async fn lose_mirror_name(&self) -> Result<(), OcpError> {
        for name in self.containers.names() {
            for zone in self.cloud.find(Kind::HostedZone, &Tags::new()).await? {
                if zone.property(&record(&name)).is_some() {
                    let gone = [(record(&name), String::new())].into();
                    self.cloud.modify(Kind::HostedZone, &zone.id, &gone).await?;
                }
            }
        }
        Ok(())
    }

    /// Why no node comes to the mirror at `host`, in the words of Go's net package: by the bastion's group and the records
    /// that are in the cloud now.
    pub(in crate::lab) async fn mirror_trouble(&self, host: &str, port: u16) -> Result<Option<String>, OcpError> {
        let mut zones = self.cloud.find(Kind::HostedZone, &Tags::new()).await?;
        zones.retain(|zone| zone.property("Name").is_some_and(|name| host.ends_with(name)));
        if !zones.is_empty() && !zones.iter().any(|zone| zone.property(&record(host)).is_some()) {
            return Ok(Some(format!("dial tcp: lookup {host} on 10.0.0.2:53: no such host")));
        }
        let groups = self.cloud.find(Kind::SecurityGroup, &Tags::new()).await?;
        let mut of_bastion =
            groups.iter().filter(|group| group.tags.get("Name").is_some_and(|name| name.contains("bastion")));
        let rule = format!("Ingress tcp/{port} ");
        let open = |group: &crate::cloud::Resource| group.properties.keys().any(|known| known.starts_with(&rule));
        let closed = of_bastion.clone().next().is_some() && !of_bastion.any(open);
        Ok(closed.then(|| format!("dial tcp 10.0.0.10:{port}: i/o timeout")))
    }

    /// Somebody takes the mirror's login out of what the installer has kept of its install-config.
    pub(super) fn strip_login(&self) -> Result<(), OcpError> {
        for (bastion, file) in self.install_files(STATE)? {
            let wrong = |why: &dyn std::fmt::Display| OcpError::Machine(format!("{file}: {why}"));
            let mut state: Value = serde_json::from_slice(&bastion.fs().read(&file)?).map_err(|why| wrong(&why))?;
            let config = &mut state["*installconfig.InstallConfig"]["config"];
            let secret = config["pullSecret"].as_str().unwrap_or_default();
            let mut secret: Value = serde_json::from_str(secret).map_err(|why| wrong(&why))?;
            if let Some(auths) = secret["auths"].as_object_mut() {
                let names = self.containers.names();
                auths.retain(|registry, _| !names.iter().any(|name| registry.starts_with(name.as_str())));
            }
            config["pullSecret"] = secret.to_string().into();
            bastion.fs().write(&file, state.to_string().as_bytes())?;
        }
        Ok(())
    }

    /// A quota is too low for a while.
    pub(super) fn lower_quota(&self, code: &str, value: f64, seconds: u64) -> Result<(), OcpError> {
        let set = |value: Option<f64>| {
            let code = code.to_owned();
            self.cloud.with_state(|state| match value {
                Some(value) => state.settings.quotas.insert(code, value),
                None => state.settings.quotas.remove(&code),
            })
        };
        set(Some(value))?;
        // Long enough to be met however fast the lab's clock is.
        let pause = Duration::from_secs(seconds).div_f64(self.clock.speed()).max(Duration::from_secs(15));
        let (cloud, code) = (self.cloud.clone(), code.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            if let Err(why) = cloud.with_state(|state| state.settings.quotas.remove(&code)) {
                tracing::error!("the lab's quota stays low: {why}");
            }
        });
        Ok(())
    }
}
