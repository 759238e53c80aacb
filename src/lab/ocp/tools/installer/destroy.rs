//! `destroy bootstrap` and `destroy cluster`.

use std::collections::BTreeMap;

use super::create::BOOTSTRAP_SSH;
use super::{Fatal, Session};
use crate::cloud::{Cloud, Kind};

impl Session {
    pub(super) async fn destroy_bootstrap(&mut self) -> Result<(), Fatal> {
        let id = self.infra_id()?;
        self.info("Destroying the bootstrap resources...").await;
        self.info(format!(
            "Waiting up to 5m0s for bootstrap machine deletion openshift-cluster-api-guests/{id}-bootstrap..."
        ))
        .await;
        let tags = [("Name".to_owned(), format!("{id}-bootstrap"))].into();
        for instance in self.scene.cloud.find(Kind::Instance, &tags).await? {
            self.scene.cloud.delete(Kind::Instance, &instance.id).await?;
        }
        let tags = [("Name".to_owned(), format!("openshift-bootstrap-data-{id}"))].into();
        for bucket in self.scene.cloud.find(Kind::Bucket, &tags).await? {
            self.scene.cloud.delete(Kind::Bucket, &bucket.id).await?;
        }
        // From here on nobody outside the cluster gets to the masters' port 22.
        let tags = [("Name".to_owned(), format!("{id}-controlplane"))].into();
        for group in self.scene.cloud.find(Kind::SecurityGroup, &tags).await? {
            let closed: BTreeMap<String, String> = group
                .properties
                .iter()
                .filter(|(rule, words)| rule.starts_with("Ingress tcp/22 ") && *words == BOOTSTRAP_SSH)
                .map(|(rule, _)| (rule.clone(), String::new()))
                .collect();
            self.scene.cloud.modify(Kind::SecurityGroup, &group.id, &closed).await?;
        }
        if let Some(cluster) = self.scene.cluster(&id) {
            for node in cluster.masters() {
                self.scene.machines.unroute(&node.address);
                self.scene.machines.link(&node.name, false).await;
            }
        }
        self.scene.sleep(20).await;
        self.info("Shutting down local Cluster API controllers...").await;
        for controller in ["Cluster API", "aws infrastructure provider"] {
            self.info(format!("Stopped controller: {controller}")).await;
        }
        self.info("Shutting down local Cluster API control plane...").await;
        self.info("Local Cluster API system has completed operations").await;
        self.info("Finished destroying bootstrap resources").await;
        Ok(())
    }

    pub(super) async fn destroy_cluster(&mut self) -> Result<(), Fatal> {
        let id = self.infra_id()?;
        let tags: BTreeMap<_, _> = [(format!("kubernetes.io/cluster/{id}"), "owned".to_owned())].into();
        // Machines first; what they use goes when they are gone.
        let order = [
            Kind::Instance,
            Kind::LoadBalancer,
            Kind::Bucket,
            Kind::HostedZone,
            Kind::SecurityGroup,
            Kind::Subnet,
            Kind::Vpc,
        ];
        for kind in order {
            for attempt in 0..100 {
                let found = self.scene.cloud.find(kind, &tags).await?;
                if found.is_empty() {
                    break;
                }
                for resource in &found {
                    if kind == Kind::HostedZone {
                        // The installer empties the zones that it deletes.
                        let records: BTreeMap<String, String> = resource
                            .properties
                            .keys()
                            .filter(|name| ["A ", "Alias ", "CNAME "].iter().any(|kind| name.starts_with(kind)))
                            .map(|name| (name.clone(), String::new()))
                            .collect();
                        self.scene.cloud.modify(kind, &resource.id, &records).await?;
                    }
                    match self.scene.cloud.delete(kind, &resource.id).await {
                        Ok(()) if attempt == 0 => {
                            let arn = format!("arn:aws:ec2:{}", resource.id);
                            let line = if kind == Kind::Instance { "Terminating" } else { "Deleted" };
                            self.info(format!("{line} arn={arn} id={}", resource.id)).await;
                        }
                        Ok(()) => {}
                        Err(error) if error.is_not_found() => {}
                        Err(why) => self.debug(format!("{why}")).await,
                    }
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
        self.scene.demolish(&id).await;
        for file in ["metadata.json", ".openshift_install_state.json", "auth", ".clusterapi_output"] {
            let _ = self.log.machine.fs().remove(&self.file(file));
        }
        self.info("Time elapsed: 3m20s").await;
        self.info("Uninstallation complete!").await;
        Ok(())
    }
}
