//! What the account has to hold for the cluster: records, rules, and the bastion's machine.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use crate::cloud::{Kind, Resource, Tags, alias, cname, describe, ingress, record};
use crate::engine::{Probe, Ran, Step, StepError};
use crate::model::event::{Action, Evidence};
use crate::stages::s02_bastion::{hello, wake};
use crate::stages::world::{Cx, World, cloud_error, exec, fact};

/// Why nothing can be said of a cluster in the cloud.
fn absent(cx: &Cx) -> Option<String> {
    match (&cx.world.cloud, cx.fact(fact::INFRA_ID)) {
        (None, _) => Some("this run reaches no cloud".into()),
        (_, None) => Some("no cluster was begun".into()),
        _ => None,
    }
}

/// What the installer has made of a kind.
async fn owned(cx: &Cx, kind: Kind) -> Result<Vec<Resource>, StepError> {
    let tag = format!("kubernetes.io/cluster/{}", cx.need(fact::INFRA_ID)?);
    let tags = Tags::from([(tag, "owned".to_owned())]);
    cx.world.cloud()?.find(kind, &tags).await.map_err(cloud_error)
}

/// Changes what is there, and records the calls.
async fn modify(cx: &Cx, target: &Resource, properties: &BTreeMap<String, String>) -> Result<(), StepError> {
    cx.world.cloud()?.modify(target.kind, &target.id, properties).await.map_err(cloud_error)?;
    for call in describe::modify(target.kind, &target.id, properties) {
        cx.acted(Action::Api { call }, Some(0), Duration::ZERO).await;
    }
    Ok(())
}

/// `api` and `api-int` lead to the internal load balancer of the cluster, in its private zone (openshift/installer,
/// `pkg/infrastructure/aws/clusterapi/aws.go`).
pub(super) struct ClusterRecords;

const NAMES: [&str; 2] = ["api-int", "api"];

/// A zone, and the records that it lacks.
struct Lack {
    zone: Resource,
    records: BTreeMap<String, String>,
}

impl ClusterRecords {
    fn names(world: &World) -> [String; 2] {
        NAMES.map(|name| format!("{name}.{}", world.spec.domain()))
    }

    /// `Err` says why there is nothing to write to or nothing to lead to.
    async fn lack(cx: &Cx) -> Result<Result<Lack, String>, StepError> {
        let domain = cx.world.spec.domain();
        let zones = owned(cx, Kind::HostedZone).await?;
        let zone = zones
            .into_iter()
            .find(|zone| zone.property("Name").is_some_and(|name| name.trim_end_matches('.') == domain));
        let Some(zone) = zone else { return Ok(Err(format!("the cluster has no private zone {domain}"))) };
        let internal = format!("{}-int", cx.need(fact::INFRA_ID)?);
        let balancers = owned(cx, Kind::LoadBalancer).await?;
        let named = |one: &&Resource| {
            [one.property("LoadBalancerName"), one.property("Name"), one.tags.get("Name").map(String::as_str)]
                .contains(&Some(internal.as_str()))
        };
        let target = balancers.iter().find(named).and_then(|one| {
            Some((
                one.property("DNSName")?.to_ascii_lowercase(),
                one.property("CanonicalHostedZoneId").map(str::to_owned),
            ))
        });
        let Some((host, balancer_zone)) = target else {
            return Ok(Err(format!("there is no load balancer {internal}")));
        };
        let mut records = BTreeMap::new();
        for name in Self::names(&cx.world) {
            let known = [alias(&name), record(&name), cname(&name)];
            let found = known.iter().find_map(|property| zone.property(property));
            // An alias has the balancer's zone before its name; addresses of a balancer change.
            let leads = found.and_then(|value| value.rsplit(' ').next()).is_some_and(|value| {
                value.trim_end_matches('.').trim_start_matches("dualstack.").eq_ignore_ascii_case(&host)
            });
            if leads {
                continue;
            }
            records.extend(
                known.into_iter().filter(|property| zone.property(property).is_some()).map(|old| (old, String::new())),
            );
            match &balancer_zone {
                Some(id) => records.insert(alias(&name), format!("{id} {host}")),
                None => records.insert(cname(&name), host.clone()),
            };
        }
        Ok(Ok(Lack { zone, records }))
    }
}

#[async_trait]
impl Step<World> for ClusterRecords {
    fn preview(&self, world: &World) -> Vec<Action> {
        let call =
            |name: String| format!("route53:ChangeResourceRecordSets <private zone> {name} → <internal load balancer>");
        Self::names(world).map(|name| Action::Api { call: call(name) }).to_vec()
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        if let Some(why) = absent(cx) {
            return Ok(Probe::NotApplicable(why));
        }
        Ok(match Self::lack(cx).await? {
            Err(why) => Probe::NotApplicable(why),
            Ok(lack) if lack.records.is_empty() => {
                let asked = format!("route53:ListResourceRecordSets {}", lack.zone.id);
                Probe::True(vec![Evidence::new(
                    asked,
                    format!("{} lead to the balancer", Self::names(&cx.world).join(", ")),
                )])
            }
            Ok(lack) => Probe::Missing(format!(
                "{} lacks {}",
                lack.zone.id,
                lack.records.into_keys().collect::<Vec<_>>().join(", ")
            )),
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let mut lack = Self::lack(cx).await?.map_err(StepError::fatal)?;
        // A name has one kind of record at a time.
        let stale: BTreeMap<String, String> = lack
            .records
            .iter()
            .filter(|(_, value)| value.is_empty())
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        lack.records.retain(|_, value| !value.is_empty());
        if !stale.is_empty() {
            modify(cx, &lack.zone, &stale).await?;
        }
        modify(cx, &lack.zone, &lack.records).await?;
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        proof(self, cx).await
    }
}

async fn proof<S: Step<World>>(step: &S, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
    match step.probe(cx).await? {
        Probe::True(evidence) => Ok(evidence),
        Probe::Missing(why) | Probe::NotApplicable(why) => Err(StepError::transient(why)),
    }
}

/// Nodes reach the API at 6443 and their configuration at 22623 through the internal load balancer, which keeps the address
/// of who asks: the groups of the control plane and of the balancer have to let the machine network in
/// (openshift/installer, `pkg/asset/manifests/aws/cluster.go`).
pub(super) struct ClusterRules;

const PORTS: [(u16, &str); 2] = [(6443, "Kubernetes API"), (22623, "machine config server")];
const GROUPS: [&str; 2] = ["-controlplane", "-apiserver-lb"];

impl ClusterRules {
    /// What each group lacks.
    async fn lack(cx: &Cx) -> Result<Vec<(Resource, BTreeMap<String, String>)>, StepError> {
        let network = cx.fact(fact::MACHINE_NETWORK).unwrap_or_else(|| cx.world.spec.network.vpc_cidr.clone());
        let mut groups = owned(cx, Kind::SecurityGroup).await?;
        groups.retain(|group| {
            let name = group.property("GroupName").unwrap_or_default();
            GROUPS.iter().any(|end| name.ends_with(end))
        });
        Ok(groups
            .into_iter()
            .map(|group| {
                let open = |port: u16| {
                    let rule = format!("Ingress tcp/{port} ");
                    group.properties.keys().any(|known| known.starts_with(&rule) || known.starts_with("Ingress all"))
                };
                let lacks = PORTS.iter().filter(|(port, _)| !open(*port));
                let lacks = lacks.map(|(port, what)| (ingress("tcp", *port, &network), (*what).to_owned())).collect();
                (group, lacks)
            })
            .collect())
    }
}

#[async_trait]
impl Step<World> for ClusterRules {
    fn preview(&self, world: &World) -> Vec<Action> {
        let network = &world.spec.network.vpc_cidr;
        let call = |port: u16| format!("ec2:AuthorizeSecurityGroupIngress <infraID>-controlplane tcp/{port} {network}");
        PORTS.map(|(port, _)| Action::Api { call: call(port) }).to_vec()
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        if let Some(why) = absent(cx) {
            return Ok(Probe::NotApplicable(why));
        }
        let groups = Self::lack(cx).await?;
        if groups.is_empty() {
            return Ok(Probe::NotApplicable("the cluster has no groups of a control plane".into()));
        }
        let lacks: Vec<String> =
            groups.iter().flat_map(|(group, lacks)| lacks.keys().map(|rule| format!("{} {rule}", group.id))).collect();
        Ok(if lacks.is_empty() {
            let evidence = |(group, _): (Resource, _)| {
                Evidence::new(format!("ec2:DescribeSecurityGroups {}", group.id), "lets 6443 and 22623 in")
            };
            Probe::True(groups.into_iter().map(evidence).collect())
        } else {
            Probe::Missing(format!("not allowed: {}", lacks.join(", ")))
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        for (group, lacks) in Self::lack(cx).await? {
            if !lacks.is_empty() {
                modify(cx, &group, &lacks).await?;
            }
        }
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        proof(self, cx).await
    }
}

/// A bastion that answers nobody is started again from outside. Its addresses and its disk stay.
pub(super) struct RebootBastion;

/// How long a machine takes from the call to its first answer, at most.
const BOOT: Duration = Duration::from_secs(600);

impl RebootBastion {
    async fn answers(cx: &Cx) -> Result<Evidence, String> {
        let ask = async { exec(cx, &cx.world.bastion(cx)?, hello()).await };
        match tokio::time::timeout(Duration::from_secs(20), ask).await {
            Ok(Ok(output)) if output.ok() => Ok(Evidence::new(hello().line(), output.text().replace('\n', " "))),
            Ok(Ok(output)) => Err(format!("its shell ends with status {}", output.status)),
            Ok(Err(error)) => Err(error.causes.join(": ")),
            Err(_) => Err("no answer within 20 s".into()),
        }
    }
}

#[async_trait]
impl Step<World> for RebootBastion {
    fn preview(&self, world: &World) -> Vec<Action> {
        if world.makes_bastion() {
            vec![Action::Api { call: "ec2:RebootInstances <bastion>".into() }]
        } else {
            Vec::new()
        }
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        if cx.fact(fact::BASTION_INSTANCE).is_none() || cx.world.cloud.is_none() {
            return Ok(Probe::NotApplicable("this bastion's machine is not ours to start again".into()));
        }
        Ok(match Self::answers(cx).await {
            Ok(evidence) => Probe::True(vec![evidence]),
            Err(why) => Probe::Missing(format!("the bastion does not answer: {why}")),
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let cloud = cx.world.cloud()?;
        let id = cx.need(fact::BASTION_INSTANCE)?;
        let machine = cloud.get(Kind::Instance, &id).await.map_err(cloud_error)?;
        // It may be at another address afterwards.
        if machine.is_halted() && wake(cx).await?.is_some() {
            return Ok(Ran::Ok);
        }
        let state = match machine.state.as_str() {
            "running" => "rebooting",
            "stopped" => "running",
            other => return Err(StepError::fatal(format!("the bastion {id} is {other}"))),
        };
        let change = BTreeMap::from([("State".to_owned(), state.to_owned())]);
        cloud.modify(Kind::Instance, &id, &change).await.map_err(cloud_error)?;
        let verb = if state == "rebooting" { "RebootInstances" } else { "StartInstances" };
        cx.acted(Action::Api { call: format!("ec2:{verb} {id}") }, Some(0), Duration::ZERO).await;
        // The old system takes a moment to go down, and answers until then.
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        let started = std::time::Instant::now();
        loop {
            match Self::answers(cx).await {
                Ok(evidence) => return Ok(vec![evidence]),
                Err(why) if started.elapsed() > BOOT => {
                    return Err(StepError::fatal(format!("the bastion was started again and does not answer: {why}")));
                }
                Err(_) => tokio::time::sleep(Duration::from_secs(3)).await,
            }
        }
    }
}
