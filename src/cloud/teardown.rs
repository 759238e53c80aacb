//! Taking down everything that the record says stands, by id, in the order that EC2 enforces, each with its proof; and what
//! a cluster has left, by its own tag. Nothing of others is touched.

use super::ledger::{Ledger, LedgerError, Until};
use super::{Kind, Resource, Tags, describe};
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
const ORDER: [Kind; 17] = [
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
    Kind::Policy,
];

/// What takes minutes to go. All of a kind are asked before the first is waited for.
const SLOW: [Kind; 4] = [Kind::Instance, Kind::LoadBalancer, Kind::NatGateway, Kind::VpcEndpoint];

/// What a cluster may have left, by the kinds that can carry its tag: users before what they use.
pub(super) const OF_A_CLUSTER: [Kind; 9] = [
    Kind::Instance,
    Kind::LoadBalancer,
    Kind::HostedZone,
    Kind::Volume,
    Kind::ElasticIp,
    Kind::SecurityGroup,
    Kind::Bucket,
    Kind::User,
    Kind::Policy,
];

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

/// Take everything down that the record says stands. With `infra_id`, nothing is touched while anything of that cluster
/// stands: it needs the network to be destroyed. An error means that the cloud could not be asked at all.
pub async fn teardown(ledger: &Ledger, infra_id: Option<&str>) -> Result<Report, LedgerError> {
    let mut report = Report::default();
    if let Some(infra_id) = infra_id {
        let why = format!("it belongs to the cluster {infra_id}; destroy the cluster first");
        let left = of_cluster(ledger, infra_id).await?.into_iter();
        report.blocked = left.map(|(object, resource)| Blocked { object, id: resource.id, why: why.clone() }).collect();
        if !report.blocked.is_empty() {
            return Ok(report);
        }
    }
    let mut standing = ledger.standing();
    standing.sort_by_key(|(kind, _, record)| (rank(*kind), std::cmp::Reverse(record.order)));
    let total = standing.len();
    let mut done = 0;
    for alike in standing.chunk_by(|(one, ..), (other, ..)| one == other) {
        for (kind, object, record) in alike.iter().filter(|(kind, ..)| alike.len() > 1 && SLOW.contains(kind)) {
            if let Some(id) = &record.id {
                ledger.begin_removal(*kind, id, object).await?;
            }
        }
        for (_, object, record) in alike {
            ledger.progress(done, Some(total), format!("{} {}", object.kind, object.name)).await;
            done += 1;
            // What one thing could not be freed of is in the way of the next, too: that is seen at once.
            let patience = if report.blocked.is_empty() { Until::Unblocked } else { Until::Refused };
            match ledger.remove_until(object, patience).await {
                Ok((id, proof)) => report.gone.push(Gone { object: object.clone(), id, proof }),
                Err(LedgerError::Cancelled) => return Err(LedgerError::Cancelled),
                Err(error) => report.blocked.push(Blocked {
                    object: object.clone(),
                    id: record.id.clone().unwrap_or_default(),
                    why: error.to_string(),
                }),
            }
        }
    }
    Ok(report)
}

/// Delete what carries the tag `kubernetes.io/cluster/<infra_id>=owned`, as `openshift-install destroy cluster` would:
/// what it has left, or all of it when there is no way to run it any more. The infra id ends in characters that were drawn
/// for this cluster, so the tag is nobody else's. What no [`Kind`] stands for (roles and instance profiles) stays.
pub async fn sweep(ledger: &Ledger, infra_id: &str) -> Result<Report, LedgerError> {
    let mut report = Report::default();
    let found = of_cluster(ledger, infra_id).await?;
    let total = found.len();
    for (object, resource) in found.iter().filter(|(_, resource)| SLOW.contains(&resource.kind)) {
        ledger.begin_removal(resource.kind, &resource.id, object).await?;
    }
    for (done, (object, resource)) in found.into_iter().enumerate() {
        ledger.progress(done, Some(total), format!("{} {} of {infra_id}", object.kind, object.name)).await;
        match ledger.take_away(resource.kind, &resource.id, &object, Until::Unblocked).await {
            Ok(proof) => report.gone.push(Gone { object, id: resource.id, proof }),
            Err(LedgerError::Cancelled) => return Err(LedgerError::Cancelled),
            Err(error) => report.blocked.push(Blocked { object, id: resource.id, why: error.to_string() }),
        }
    }
    Ok(report)
}

/// All that stand and carry a cluster's tag, in the order of their deletion.
pub(super) async fn of_cluster(ledger: &Ledger, infra_id: &str) -> Result<Vec<(Object, Resource)>, LedgerError> {
    let tags = Tags::from([(format!("kubernetes.io/cluster/{infra_id}"), "owned".to_owned())]);
    let mut found = Vec::new();
    for kind in OF_A_CLUSTER {
        let alive = ledger.caller.find(kind, &tags).await?.into_iter().filter(|resource| !resource.is_over());
        found.extend(alive.map(|resource| {
            let name = resource.tags.get("Name").cloned().unwrap_or_else(|| resource.id.clone());
            (Object { kind: kind.as_str().to_owned(), name }, resource)
        }));
    }
    Ok(found)
}
