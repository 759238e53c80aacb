//! Carrying out what a scenario says.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use x509_parser::prelude::{FromDer, X509Certificate};

use super::OcpError;
use super::breakage::{GIVEN_UP, NO_MACHINES};
use super::ca::Ca;
use super::cluster::Scene;
use super::mirror::Stored;
use super::scenario::{Act, Moment};
use crate::cloud::{Cloud, Kind, Tags, alias, cname, record};

impl Scene {
    /// `moment` has come: do what is due.
    pub async fn happens(&self, moment: &Moment) {
        let due: Vec<_> = {
            let mut happened = self.happened.lock().unwrap_or_else(PoisonError::into_inner);
            let due: Vec<_> = happened.due(&self.scenario, moment).into_iter().cloned().collect();
            if let Ok(bytes) = serde_json::to_vec(&*happened) {
                // Without the note a restarted lab does it again.
                let _ = std::fs::write(self.dir.join("happened.json"), bytes);
            }
            due
        };
        for twist in due {
            tracing::info!("the lab's scenario: {:?}", twist.act);
            if let Err(why) = self.act(&twist.act).await {
                tracing::error!("the lab's scenario could not go on: {why}");
            }
        }
    }

    async fn act(&self, act: &Act) -> Result<(), OcpError> {
        match act {
            Act::MirrorDelete { image } => {
                if let Some(image) = self.payload.component(image) {
                    for mirror in self.containers.mirrors() {
                        mirror.delete_everywhere(&image.digest);
                    }
                }
            }
            Act::MirrorReissue => self.reissue().await?,
            Act::DiskLimit { room_percent } => {
                if let Some(bastion) = self.machines.machine("bastion") {
                    let room = self.payload.bytes() * room_percent / 100;
                    bastion.fs().set_limit(bastion.fs().used_bytes() + room);
                }
            }
            Act::LinkDrop { host, seconds } => {
                // Long enough to be noticed however fast the lab's clock is.
                let pause = Duration::from_secs(*seconds).div_f64(self.clock.speed()).max(Duration::from_secs(3));
                let (machines, host) = (self.machines.clone(), host.clone());
                machines.link(&host, false).await;
                tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    machines.link(&host, true).await;
                });
            }
            Act::RegistryStop => self.containers.end_all(),
            Act::ForeignCertificate => self.foreign_certificate()?,
            Act::ForgetAccounts => self.forget_accounts()?,
            Act::DiskJunk => self.leave_junk()?,
            Act::BastionHang => self.machines.link("bastion", false).await,
            Act::ClosePort => self.close_mirror_port().await?,
            Act::AssetsExpire => self.age_assets()?,
            Act::MachinesNone => self.leave_mark("bastion", NO_MACHINES)?,
            Act::BootkubeGivenUp => self.leave_mark("bootstrap", GIVEN_UP)?,
            Act::StripLogin => self.strip_login()?,
            Act::LoseName => self.lose_mirror_name().await?,
            Act::QuotaLow { code, value, seconds } => self.lower_quota(code, *value, *seconds)?,
            Act::GroupRevoke { group, port } => self.revoke(group, *port).await?,
            Act::DnsChange { host, address } => self.change_record(host, address.as_deref()).await?,
            Act::ClockSet { host, seconds } => self.machines.skew(host).set(*seconds),
            Act::EndpointDelete { service } => self.delete_endpoint(service).await?,
            Act::QuotaSet { code, value } => {
                self.cloud.with_state(|state| state.settings.quotas.insert(code.clone(), *value))?;
            }
            Act::InstallerKill => {
                if let Some(bastion) = self.machines.machine("bastion") {
                    let installs = |line: &str| {
                        let program = line.split(' ').next().unwrap_or_default();
                        program.ends_with("openshift-install") && line.contains(" create cluster")
                    };
                    if !bastion.kill(installs) {
                        return Err(OcpError::Scenario("no installer runs".into()));
                    }
                }
            }
            Act::BootstrapReset => {
                if let Some(cluster) = self.any_cluster() {
                    cluster.reset.notify_one();
                }
            }
            // Looked up where it matters.
            Act::EtcdStuck | Act::CsrHold => {}
        }
        Ok(())
    }

    async fn revoke(&self, group: &str, port: u16) -> Result<(), OcpError> {
        let Some(cluster) = self.any_cluster() else { return Ok(()) };
        let name = format!("{}-{group}", cluster.assets.infra_id);
        for group in self.cloud.find(Kind::SecurityGroup, &cluster.owned()).await? {
            let rules = group.properties.keys().filter(|rule| rule.starts_with(&format!("Ingress tcp/{port} ")));
            let gone = rules.map(|rule| (rule.clone(), String::new())).collect();
            if group.property("GroupName") == Some(&name) {
                self.cloud.modify(Kind::SecurityGroup, &group.id, &gone).await?;
            }
        }
        Ok(())
    }

    async fn change_record(&self, host: &str, address: Option<&str>) -> Result<(), OcpError> {
        let Some(cluster) = self.any_cluster() else { return Ok(()) };
        let name = format!("{host}.{}", cluster.assets.domain);
        for zone in self.cloud.find(Kind::HostedZone, &cluster.owned()).await? {
            let known = [record(&name), alias(&name), cname(&name)];
            let mut changes: BTreeMap<String, String> = known.map(|record| (record, String::new())).into();
            if let Some(address) = address {
                changes.insert(record(&name), address.to_owned());
            }
            self.cloud.modify(Kind::HostedZone, &zone.id, &changes).await?;
        }
        Ok(())
    }

    async fn delete_endpoint(&self, service: &str) -> Result<(), OcpError> {
        for endpoint in self.cloud.find(Kind::VpcEndpoint, &Tags::new()).await? {
            let name = endpoint.property("ServiceName").unwrap_or_default();
            if name.rsplit('.').next() == Some(service) {
                self.cloud.delete(Kind::VpcEndpoint, &endpoint.id).await?;
            }
        }
        Ok(())
    }

    /// The mirror gets a certificate of a second CA, and the CA's file beside the certificate is replaced.
    async fn reissue(&self) -> Result<(), OcpError> {
        for served in self.containers.served() {
            let cluster = self.any_cluster().map_or_else(|| "lab".to_owned(), |cluster| cluster.assets.name.clone());
            let ca = Ca::open(&self.dir, "mirror-ca-2", &format!("{cluster} mirror CA 2"))?;
            let fs = served.machine.fs();
            let names = names(&fs.read(&served.certificate)?);
            let leaf = ca.server(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
            let folder = served.certificate.rsplit_once('/').map_or("", |(folder, _)| folder);
            for file in fs.list(folder)? {
                let path = format!("{folder}/{file}");
                if path != served.certificate && fs.read(&path).is_ok_and(|bytes| is_ca(&bytes)) {
                    fs.write(&path, ca.pem().as_bytes())?;
                }
            }
            fs.write(&served.certificate, format!("{}{}", leaf.certificate, ca.pem()).as_bytes())?;
            fs.write(&served.key, leaf.key.as_bytes())?;
            served.tls.reload_from_config(super::tls::config(leaf.certificate.as_bytes(), leaf.key.as_bytes(), None)?);
        }
        Ok(())
    }

    /// Follow what the mirror stores, for the moments of the sync.
    pub async fn follow_sync(&self, mut stored: tokio::sync::mpsc::UnboundedReceiver<Stored>) {
        let (total, mut bytes) = (self.payload.bytes(), 0);
        while let Some(event) = stored.recv().await {
            match event {
                Stored::Begun => self.happens(&Moment::SyncStarted).await,
                Stored::Blob(size) => {
                    bytes += size;
                    if bytes * 10 >= total * 4 {
                        self.happens(&Moment::SyncAt40Percent).await;
                    }
                }
            }
        }
    }
}

/// Subject alternative names of the first certificate.
pub(super) fn names(pem: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    if let Ok((_, block)) = x509_parser::pem::parse_x509_pem(pem)
        && let Ok((_, certificate)) = X509Certificate::from_der(&block.contents)
        && let Ok(Some(extension)) = certificate.subject_alternative_name()
    {
        for name in &extension.value.general_names {
            match name {
                x509_parser::extensions::GeneralName::DNSName(name) => names.push((*name).to_owned()),
                x509_parser::extensions::GeneralName::IPAddress([a, b, c, d]) => names.push(format!("{a}.{b}.{c}.{d}")),
                _ => {}
            }
        }
    }
    names
}

fn is_ca(pem: &[u8]) -> bool {
    x509_parser::pem::parse_x509_pem(pem).is_ok_and(|(_, block)| {
        X509Certificate::from_der(&block.contents).is_ok_and(|(_, certificate)| certificate.is_ca())
    })
}
