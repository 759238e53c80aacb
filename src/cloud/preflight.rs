//! What has to hold of an account, a region and a spec before anything is made. Every check says what was found, what is
//! needed, and what to ask of whom. It only reads, and what nobody may read is unknown, which never stands in the way.

mod account;
mod network;
mod quota;

use std::collections::BTreeMap;

use backon::{ExponentialBuilder, Retryable};
use serde::{Deserialize, Serialize};

use super::{Cloud, CloudError, Kind, Offering, Resource, Tags};
use crate::model::event::Evidence;
use crate::spec::Spec;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// `quota ec2/L-1216C47A`, `m6i.xlarge in us-east-2a` …
    pub what: String,
    pub found: String,
    pub needed: String,
    pub state: State,
    /// What to do, and whom to ask for it; empty when all is well.
    pub ask: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Ok,
    /// It will go on, but somebody should know.
    Warn,
    Fail,
    /// It could not be looked at.
    Unknown,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "fail",
            State::Unknown => "unknown",
        }
    }
}

impl Check {
    fn new(
        state: State,
        what: impl Into<String>,
        found: impl Into<String>,
        needed: impl Into<String>,
        ask: impl Into<String>,
    ) -> Self {
        Self { what: what.into(), found: found.into(), needed: needed.into(), state, ask: ask.into() }
    }

    fn ok(what: impl Into<String>, found: impl Into<String>, needed: impl Into<String>) -> Self {
        Self::new(State::Ok, what, found, needed, "")
    }

    /// The cloud could not be asked.
    fn unknown(what: impl Into<String>, error: &CloudError, needed: impl Into<String>) -> Self {
        Self::new(State::Unknown, what, error.to_string(), needed, error.advice())
    }

    /// All of it in one sentence: `quota vpc/L-F678F1CE: 5 of 5 VPCs in use, 1 more needed: ask …`.
    pub fn sentence(&self) -> String {
        let mut text = format!("{}: {}", self.what, self.found);
        if !self.needed.is_empty() && self.state != State::Ok {
            text.push_str(&format!(", needed: {}", self.needed));
        }
        if !self.ask.is_empty() {
            text.push_str(&format!(": {}", self.ask));
        }
        text
    }

    /// As the record keeps it.
    pub fn evidence(&self) -> Evidence {
        let needed = if self.needed.is_empty() { String::new() } else { format!(" (needed: {})", self.needed) };
        let ask = if self.ask.is_empty() { String::new() } else { format!("; {}", self.ask) };
        Evidence::new(self.what.clone(), format!("{}: {}{needed}{ask}", self.state.word(), self.found))
    }
}

/// What has to be done before it can go on, if anything.
pub fn failed(checks: &[Check]) -> Vec<&Check> {
    checks.iter().filter(|check| check.state == State::Fail).collect()
}

/// The calls that [`preflight`] makes, for the plan.
pub const CALLS: [&str; 10] = [
    "sts:GetCallerIdentity",
    "ec2:DescribeAvailabilityZones",
    "iam:SimulatePrincipalPolicy",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstanceTypeOfferings",
    "servicequotas:GetServiceQuota",
    "ec2:DescribeInstances",
    "ec2:DescribeVpcs",
    "ec2:DescribeVpcEndpointServices",
    "route53:ListHostedZones",
];

/// Look at everything, in the order in which it would be missed. When the credentials do not work, nothing else is asked.
pub async fn preflight(cloud: &dyn Cloud, spec: &Spec) -> Vec<Check> {
    let mut ask = Asker { cloud, spec, zones: Vec::new(), offerings: BTreeMap::new() };
    let mut checks = account::identity(&ask).await;
    if !failed(&checks).is_empty() {
        return checks;
    }
    checks.push(account::zones(&mut ask).await);
    if !failed(&checks).is_empty() {
        return checks;
    }
    checks.push(account::permissions(&ask).await);
    checks.extend(account::machines(&mut ask).await);
    checks.extend(quota::checks(&ask).await);
    checks.extend(network::services(&ask).await);
    checks.extend(network::blocks(&ask).await);
    checks.extend(network::existing(&ask).await);
    checks.extend(network::names(&ask).await);
    checks
}

/// Asks the cloud, each call as often as it is throttled.
struct Asker<'a> {
    cloud: &'a dyn Cloud,
    spec: &'a Spec,
    /// Zones that would be used.
    zones: Vec<String>,
    /// By instance type.
    offerings: BTreeMap<String, Result<Offering, CloudError>>,
}

impl Asker<'_> {
    async fn find(&self, kind: Kind) -> Result<Vec<Resource>, CloudError> {
        again(|| self.cloud.find(kind, &NONE)).await
    }

    async fn offering(&mut self, instance_type: &str) -> Result<Offering, CloudError> {
        if let Some(known) = self.offerings.get(instance_type) {
            return known.clone();
        }
        let answer = again(|| self.cloud.offering(instance_type)).await;
        self.offerings.insert(instance_type.to_owned(), answer.clone());
        answer
    }
}

static NONE: Tags = Tags::new();

/// A call that is made again while the cloud throttles.
async fn again<T, F: Future<Output = Result<T, CloudError>>>(make: impl FnMut() -> F) -> Result<T, CloudError> {
    make.retry(ExponentialBuilder::default().with_max_times(5).with_jitter()).when(CloudError::is_throttled).await
}

/// The network is made, and not there already.
fn makes_network(spec: &Spec) -> bool {
    spec.network.existing.is_none()
}
