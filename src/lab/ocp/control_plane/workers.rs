//! The workers: the machine API launches their instances, they fetch their config, and they join.

use std::time::Duration;

use super::super::OcpError;
use super::super::cluster::NodePlan;
use super::super::first_boot::fetch_config;
use super::super::scenario::Act;
use super::Plane;
use crate::cloud::{Cloud, Create, Kind, Resource, Tags};

/// Running On-Demand Standard instances, in vCPUs.
const VCPUS: &str = "ec2/L-1216C47A";
/// EC2's answer (`VcpuLimitExceeded`), as openshift/machine-api-provider-aws `pkg/actuators/machine/instances.go` hands
/// it on.
const TOO_MANY: &str = "error launching instance: You have requested more vCPU capacity than your current vCPU limit of \
LIMIT allows for the instance bucket that the specified instance type belongs to. Please visit \
http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.";

impl Plane {
    pub(super) async fn workers(&self, workers: &[NodePlan]) -> Result<(), OcpError> {
        self.cluster.until(|marks| marks.complete).await;
        for node in workers {
            self.machine(node, "Provisioning")?;
        }
        self.scene.sleep(40).await;
        // One after the other: what one takes of a quota is not there for the next.
        let held = self.scene.scenario.has(&Act::CsrHold);
        let launching = tokio::sync::Mutex::new(());
        futures::future::try_join_all(workers.iter().map(|node| async {
            let (name, instance) = self.launch(node, &launching).await?;
            self.machine_as(&name, node, "Provisioned", None)?;
            self.scene.sleep(20).await;
            fetch_config(&self.scene, &self.cluster, node, &instance.id, "worker").await?;
            self.join(node, !held).await?;
            self.machine_as(&name, node, "Running", None)
        }))
        .await?;
        Ok(())
    }

    /// The machine of a worker, by its name, and its instance. One that cannot be launched has failed for good: when
    /// somebody deletes it, its set makes another.
    async fn launch(&self, node: &NodePlan, one: &tokio::sync::Mutex<()>) -> Result<(String, Resource), OcpError> {
        let first = self.machine_name(node);
        for try_ in 1_u32.. {
            let name = if try_ == 1 { first.clone() } else { format!("{first}-{try_}") };
            let Some(limit) = ({
                let _launching = one.lock().await;
                match self.over_quota().await? {
                    None => return Ok((name.clone(), self.instance(&name).await?)),
                    over => over,
                }
            }) else {
                continue;
            };
            let why = TOO_MANY.replace("LIMIT", &limit.to_string());
            self.machine_as(&name, node, "Failed", Some(&why))?;
            while self.store.get("machines", "openshift-machine-api", &name).is_some() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            self.machine_as(&format!("{first}-{}", try_ + 1), node, "Provisioning", None)?;
            self.scene.sleep(15).await;
        }
        Err(OcpError::Machine(format!("{first} was tried too often")))
    }

    async fn instance(&self, name: &str) -> Result<Resource, OcpError> {
        let mut tags = self.cluster.owned();
        tags.insert("Name".to_owned(), name.to_owned());
        let properties = [
            ("InstanceType".to_owned(), "m6i.large".to_owned()),
            ("SubnetId".to_owned(), self.cluster.assets.subnet.clone()),
        ];
        let create = Create { kind: Kind::Instance, tags, properties: properties.into(), token: name.to_owned() };
        Ok(self.scene.cloud.create(&create).await?)
    }

    /// The quota that another worker would exceed.
    async fn over_quota(&self) -> Result<Option<u64>, OcpError> {
        let limit = self.scene.cloud.with_state(|state| state.settings.quotas.get(VCPUS).copied())?;
        let Some(limit) = limit else { return Ok(None) };
        let mut used = 0;
        for instance in self.scene.cloud.find(Kind::Instance, &Tags::new()).await? {
            let kind = instance.property("InstanceType").unwrap_or_default();
            if !instance.is_over() {
                used += u64::from(self.scene.cloud.offering(kind).await?.vcpus);
            }
        }
        let wanted = u64::from(self.scene.cloud.offering("m6i.large").await?.vcpus);
        Ok(((used + wanted) as f64 > limit).then_some(limit as u64))
    }
}
