//! 01: the network. Everything is made through the ledger: intent, find, create, record.

use async_trait::async_trait;

use crate::cloud::ledger::{Ledger, LedgerError};
use crate::cloud::preflight::{self, Check, State, failed, preflight};
use crate::cloud::vpc;
use crate::engine::{Probe, Ran, Step, StepError};
use crate::model::event::{Action, Evidence};

use super::world::{Cx, World, cloud_error, fact};

/// Who we are, and whether the region has what the network needs.
pub struct Preflight;

/// The VPC and what belongs to it.
pub struct Network;

pub(super) fn ledger(cx: &Cx) -> Result<Ledger, StepError> {
    let cloud = cx.world.cloud()?;
    Ok(Ledger::new(cloud, cx.sink.clone(), cx.cancel.clone(), cx.step.clone(), &cx.world.spec, &cx.model))
}

pub(super) fn ledger_error(error: LedgerError) -> StepError {
    if let LedgerError::Cloud { what, source } = error {
        return cloud_error(source).during(what);
    }
    if error.is_transient() { StepError::transient(error.to_string()) } else { StepError::fatal(error.to_string()) }
}

fn subnets(pairs: &[(String, String)]) -> String {
    pairs.iter().map(|(id, zone)| format!("{id}={zone}")).collect::<Vec<_>>().join(",")
}

#[async_trait]
impl Step<World> for Preflight {
    fn preview(&self, world: &World) -> Vec<Action> {
        if world.cloud.is_none() {
            return Vec::new();
        }
        preflight::CALLS.map(|call| Action::Api { call: call.to_owned() }).to_vec()
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        if cx.world.cloud.is_none() && !cx.world.makes_bastion() {
            return Ok(Probe::NotApplicable("the bastion and the network are there already".into()));
        }
        match cx.fact(fact::ACCOUNT) {
            Some(account) => {
                let mut evidence = vec![Evidence::new("sts:GetCallerIdentity", account)];
                evidence.extend(checked(cx));
                Ok(Probe::True(evidence))
            }
            None => Ok(Probe::Missing("the account was not asked yet".into())),
        }
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let cloud = cx.world.cloud()?;
        let account = cloud.whoami().await.map_err(cloud_error)?;
        let checks = preflight(&*cloud, &cx.world.spec).await;
        let seen = checks.iter().map(Check::evidence).collect();
        let bad = failed(&checks);
        if !bad.is_empty() {
            let mut error =
                StepError::fatal(format!("{} of {} checks failed; nothing was made", bad.len(), checks.len()));
            error.causes.extend(bad.into_iter().map(Check::sentence));
            return Err(error.saw(seen));
        }
        let checked = serde_json::to_string(&checks).unwrap_or_default();
        cx.set_fact(fact::PREFLIGHT, checked).await;
        cx.set_fact(fact::ACCOUNT, account).await;
        let warnings: Vec<String> =
            checks.iter().filter(|check| check.state == State::Warn).map(Check::sentence).collect();
        Ok(if warnings.is_empty() { Ran::Ok } else { Ran::Warning(warnings.join("; ")) })
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        cx.need(fact::ACCOUNT)?;
        Ok(checked(cx))
    }
}

/// What the preflight has seen, as the run knows it.
fn checked(cx: &Cx) -> Vec<Evidence> {
    let checks: Vec<Check> =
        cx.fact(fact::PREFLIGHT).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    checks.iter().map(Check::evidence).collect()
}

#[async_trait]
impl Step<World> for Network {
    fn preview(&self, world: &World) -> Vec<Action> {
        if world.cloud.is_none() { Vec::new() } else { vpc::preview(&world.spec) }
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        if cx.world.cloud.is_none() {
            return Ok(match &cx.world.spec.network.existing {
                Some(_) => Probe::NotApplicable("network.existing is used as it is".into()),
                None if cx.world.makes_bastion() => Probe::Missing("there is no network".into()),
                None => Probe::NotApplicable("the bastion's network is used as it is".into()),
            });
        }
        if cx.fact(fact::VPC).is_none() {
            return Ok(Probe::Missing("nothing was made yet".into()));
        }
        let (network, survey) = vpc::survey_network(&ledger(cx)?, &cx.world.spec).await.map_err(ledger_error)?;
        Ok(match network {
            Some(_) => Probe::True(survey.evidence),
            None => Probe::Missing(survey.missing.join(", ")),
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let network = vpc::ensure_network(&ledger(cx)?, &cx.world.spec).await.map_err(ledger_error)?;
        cx.set_fact(fact::VPC, network.vpc).await;
        cx.set_fact(fact::MACHINE_NETWORK, network.vpc_cidr).await;
        cx.set_fact(fact::PRIVATE_SUBNETS, subnets(&network.private_subnets)).await;
        cx.set_fact(fact::PUBLIC_SUBNETS, subnets(&network.public_subnets)).await;
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        match self.probe(cx).await? {
            Probe::True(evidence) => Ok(evidence),
            Probe::Missing(why) | Probe::NotApplicable(why) => Err(StepError::transient(why)),
        }
    }
}
