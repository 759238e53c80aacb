//! 08: `*.apps`, while the installer waits for the operators that want it. It must not wait for the installer to end: the
//! installer ends only when this record is there.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::Value;

use crate::cloud::apps;
use crate::engine::{Probe, Ran, Step, StepError};
use crate::model::event::{Action, Evidence};

use super::repair::oc;
use super::s01_infrastructure::{ledger, ledger_error};
use super::s08_install::{Watched, complete_bootstrap, creating, phase_evidence, watch};
use super::world::{Cx, World, action, fact, host_error};

/// The record that an ingress operator without a way to Route 53 cannot write.
pub struct Apps;

const LOOK: Duration = Duration::from_secs(2);
const SERVICE: [&str; 7] = ["get", "service", "router-default", "--namespace", "openshift-ingress", "--output", "json"];

/// The name of the load balancer that a service got.
fn hostname(service: &[u8]) -> Option<String> {
    let service: Value = serde_json::from_slice(service).ok()?;
    let host = service.pointer("/status/loadBalancer/ingress/0/hostname")?.as_str()?;
    let good = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
    (!host.is_empty() && host.chars().all(good)).then(|| host.to_owned())
}

/// Waits until the router has a load balancer. The API may not answer for a while, nor the link.
async fn router(cx: &Cx) -> Result<String, StepError> {
    let started = Instant::now();
    let bastion = cx.world.bastion(cx)?;
    let cmd = oc(cx, &SERVICE)?;
    loop {
        match bastion.exec(&cmd).await {
            Ok(output) if output.ok() => {
                if let Some(host) = hostname(&output.stdout) {
                    cx.acted(action("bastion", &cmd), Some(0), started.elapsed()).await;
                    return Ok(host);
                }
            }
            Ok(_) => {}
            Err(error) if error.is_link() => {}
            Err(error) => return Err(host_error(error)),
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = cx.cancel.cancelled() => return Err(StepError::fatal("cancelled")),
        }
    }
}

#[async_trait]
impl Step<World> for Apps {
    fn preview(&self, world: &World) -> Vec<Action> {
        if !world.spec.writes_apps_record() {
            return Vec::new();
        }
        let call = format!("route53:ChangeResourceRecordSets <private zone> {}", apps::name(&world.spec));
        vec![action("bastion", &crate::host::Cmd::new("oc").args(SERVICE)), Action::Api { call }]
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        let spec = &cx.world.spec;
        if !spec.writes_apps_record() {
            return Ok(Probe::NotApplicable("the ingress operator reaches Route 53".into()));
        }
        let (Some(host), Some(infra_id)) = (cx.fact(fact::ROUTER), cx.fact(fact::INFRA_ID)) else {
            return Ok(Probe::Missing("the router has no load balancer yet".into()));
        };
        if cx.world.cloud.is_none() {
            return Ok(Probe::True(vec![Evidence::new("oc get service router-default", host)]));
        }
        let found = ledger(cx)?.read_apps(spec, &infra_id, &host).await.map_err(ledger_error)?;
        Ok(match found {
            Some(evidence) => Probe::True(vec![evidence]),
            None => Probe::Missing(format!("{} does not lead to {host}", apps::name(spec))),
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let spec = &cx.world.spec;
        let host = match creating(cx).await? {
            Some(create) => tokio::select! {
                host = router(cx) => host?,
                over = watch(cx, &create, |_| false) => match over? {
                    Watched::Enough => router(cx).await?,
                    // Somebody has to go on with it, or the router will never be there.
                    Watched::Cut(_) => {
                        let now = cx.fresh(cx.attempt).await;
                        if phase_evidence(&now, "initialize").is_none() {
                            complete_bootstrap(&now).await?;
                        }
                        router(&now).await?
                    }
                }
            },
            None => {
                if phase_evidence(cx, "initialize").is_none() {
                    complete_bootstrap(cx).await?;
                }
                router(cx).await?
            }
        };
        cx.set_fact(fact::ROUTER, &host).await;
        let name = apps::name(spec);
        if cx.world.cloud.is_none() {
            let zone = spec.domain();
            return Ok(Ran::Warning(format!(
                "nothing here can write to Route 53: make {name} lead to {host} in the private zone {zone} now, the \
                 installer waits for it"
            )));
        }
        ledger(cx)?.write_apps(spec, &cx.need(fact::INFRA_ID)?, &host).await.map_err(ledger_error)?;
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        match self.probe(cx).await? {
            Probe::True(evidence) => Ok(evidence),
            Probe::Missing(why) | Probe::NotApplicable(why) => Err(StepError::transient(why)),
        }
    }
}

/// Takes the record away, if this run wrote one. The cluster's own destroy comes after it.
pub(super) async fn remove(cx: &Cx) -> Result<(), StepError> {
    let now = cx.fresh(cx.attempt).await;
    let Some(infra_id) = now.fact(fact::INFRA_ID) else { return Ok(()) };
    let object = apps::object(&cx.world.spec, &infra_id);
    let stands = now.model.objects.get(&object).is_some_and(|record| record.gone.is_none());
    if stands && cx.world.cloud.is_some() {
        ledger(&now)?.remove_apps(&cx.world.spec, &infra_id).await.map_err(ledger_error)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_balancer_of_a_service() {
        let with = |status: &str| hostname(format!("{{\"kind\":\"Service\",\"status\":{status}}}").as_bytes());
        let host = "internal-a1b2c3-123.us-east-2.elb.amazonaws.com";
        let ready = format!("{{\"loadBalancer\":{{\"ingress\":[{{\"hostname\":\"{host}\"}}]}}}}");
        assert_eq!(with(&ready).as_deref(), Some(host));
        assert_eq!(with("{\"loadBalancer\":{}}"), None);
        assert_eq!(with("{\"loadBalancer\":{\"ingress\":[{\"hostname\":\"a b; c\"}]}}"), None);
        assert_eq!(hostname(b"error: the server is busy"), None);
    }
}
