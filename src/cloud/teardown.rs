//! Taking down everything that the record says stands, by id, in the order that EC2 enforces, each with its proof.
//! Nothing is ever looked for by name, and nothing of others is touched.

use super::ledger::{Ledger, LedgerError};
use super::{Kind, Tags, describe};
use crate::model::event::{Action, Object};
use crate::model::run::RunModel;

/// What became of each object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub gone: Vec<Gone>,
    pub blocked: Vec<Blocked>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    pub object: Object,
    /// Empty when it was never made.
    pub id: String,
    /// What the cloud answered when asked for it.
    pub proof: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    pub object: Object,
    pub id: String,
    /// Who or what is in the way.
    pub why: String,
}

/// Users before what they use.
const ORDER: [Kind; 16] = [
    Kind::HostedZone,
    Kind::Instance,
    Kind::LoadBalancer,
    Kind::NatGateway,
    Kind::ElasticIp,
    Kind::VpcEndpoint,
    Kind::Volume,
    Kind::SecurityGroup,
    Kind::RouteTableAssociation,
    Kind::Subnet,
    Kind::RouteTable,
    Kind::InternetGateway,
    Kind::Vpc,
    Kind::KeyPair,
    Kind::Bucket,
    Kind::User,
];

/// What a cluster may have left, by the kinds that can carry its tag.
const OF_A_CLUSTER: [Kind; 6] =
    [Kind::Instance, Kind::LoadBalancer, Kind::Volume, Kind::SecurityGroup, Kind::HostedZone, Kind::Bucket];

fn rank(kind: Kind) -> usize {
    ORDER.iter().position(|other| *other == kind).unwrap_or(ORDER.len())
}

/// The deletions that [`teardown`] would make, in order.
pub fn preview(model: &RunModel) -> Vec<Action> {
    let mut standing: Vec<(Kind, String)> = model
        .standing_objects()
        .into_iter()
        .filter_map(|(object, record)| {
            let id = record.id.clone().unwrap_or_else(|| format!("<{}>", object.name));
            Some((Kind::parse(&object.kind)?, id))
        })
        .collect();
    standing.sort_by_key(|(kind, _)| rank(*kind));
    let call = |(kind, id): (Kind, String)| Action::Api { call: format!("{} {id}", describe::delete_name(kind)) };
    standing.into_iter().map(call).collect()
}

/// Take everything down. With `infra_id`, nothing is touched while anything of that cluster stands: the cluster's own
/// destroy has to come first, because it needs the network. An error means that the cloud could not be asked at all.
pub async fn teardown(ledger: &Ledger, infra_id: Option<&str>) -> Result<Report, LedgerError> {
    let mut report = Report::default();
    if let Some(infra_id) = infra_id {
        report.blocked = left_by_cluster(ledger, infra_id).await?;
        if !report.blocked.is_empty() {
            return Ok(report);
        }
    }
    let mut standing = ledger.standing();
    standing.sort_by_key(|(kind, _, record)| (rank(*kind), std::cmp::Reverse(record.order)));
    let total = standing.len();
    for (done, (_, object, record)) in standing.into_iter().enumerate() {
        ledger.progress(done, Some(total), format!("{} {}", object.kind, object.name)).await;
        match ledger.remove(&object).await {
            Ok((id, proof)) => report.gone.push(Gone { object, id, proof }),
            Err(LedgerError::Cancelled) => return Err(LedgerError::Cancelled),
            Err(error) => {
                report.blocked.push(Blocked { object, id: record.id.unwrap_or_default(), why: error.to_string() });
            }
        }
    }
    Ok(report)
}

async fn left_by_cluster(ledger: &Ledger, infra_id: &str) -> Result<Vec<Blocked>, LedgerError> {
    let tag = format!("kubernetes.io/cluster/{infra_id}");
    let tags = Tags::from([(tag.clone(), "owned".to_owned())]);
    let mut left = Vec::new();
    for kind in OF_A_CLUSTER {
        let call = format!("{} Tag:{tag}=owned", describe::get_name(kind));
        let found = ledger.quietly(&call, || ledger.cloud.find(kind, &tags)).await?;
        left.extend(found.into_iter().map(|resource| Blocked {
            object: Object {
                kind: kind.as_str().to_owned(),
                name: resource.tags.get("Name").cloned().unwrap_or_else(|| resource.id.clone()),
            },
            id: resource.id,
            why: format!("it belongs to the cluster {infra_id}; destroy the cluster first"),
        }));
    }
    Ok(left)
}
