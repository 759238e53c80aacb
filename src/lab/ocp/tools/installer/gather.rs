//! `gather bootstrap`: the log bundle.

use super::{BOOTSTRAP, Fatal, Session};

impl Session {
    pub(super) async fn bootstrap_failed(&mut self) -> Result<(), Fatal> {
        self.info("Pulling Cluster API artifacts").await;
        self.info("Pulling VM console logs").await;
        self.info("Pulling debug logs from the bootstrap machine").await;
        self.scene.sleep(20).await;
        let bundle = self.file(&format!("log-bundle-{}.tar.gz", self.scene.clock.now().strftime("%Y%m%d%H%M%S")));
        let _ = self.log.machine.fs().write(&bundle, &self.bundle().unwrap_or_default());
        self.info(format!("Bootstrap gather logs captured here \"{bundle}\"")).await;
        Err(Fatal(BOOTSTRAP, String::new()))
    }

    /// The service records of the bootstrap machine, as in a real log bundle.
    pub(super) fn bundle(&self) -> Option<Vec<u8>> {
        let machine = self.scene.machines.machine("bootstrap")?;
        let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        let mut archive = tar::Builder::new(gzip);
        for name in machine.fs().list("/var/log/openshift").ok()?.into_iter().filter(|name| name.ends_with(".json")) {
            let bytes = machine.fs().read(&format!("/var/log/openshift/{name}")).ok()?;
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            archive.append_data(&mut header, format!("log-bundle/bootstrap/services/{name}"), bytes.as_slice()).ok()?;
        }
        archive.into_inner().ok()?.finish().ok()
    }

    pub(super) async fn gather(&mut self) -> Result<(), Fatal> {
        self.info("Pulling debug logs from the bootstrap machine").await;
        let Some(bytes) = self.bundle() else {
            return Err(Fatal(
                1,
                "failed to get bootstrap and control plane host addresses from \"metadata.json\"".into(),
            ));
        };
        let bundle = self.file(&format!("log-bundle-{}.tar.gz", self.scene.clock.now().strftime("%Y%m%d%H%M%S")));
        self.log.machine.fs().write(&bundle, &bytes).map_err(|why| Fatal(1, why.to_string()))?;
        self.info(format!("Bootstrap gather logs captured here \"{bundle}\"")).await;
        Ok(())
    }
}
