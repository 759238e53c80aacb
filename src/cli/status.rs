//! Where a run stands: as its record has it, and with `--cloud` whether the cloud agrees.

use std::path::Path;

use serde_json::json;

use crate::cloud::blueprint;
use crate::cloud::drift::{self, Drift, Subject};
use crate::cloud::ledger::Patience;
use crate::model::RunModel;
use crate::model::event::Object;
use crate::stages::world::fact;

use super::opened::open;
use super::session::load;
use super::{Failure, cloud, exit};

/// Compare the record of a run with the cloud. Nothing is changed, and nothing recorded.
pub async fn with_cloud(
    state: Option<&Path>,
    run: &str,
    as_json: bool,
    cloud_file: Option<&Path>,
) -> Result<u8, Failure> {
    let opened = open(state, run)?;
    let (dir, model) = (&opened.dir, opened.model());
    let (mut spec, _) = load(&dir.join("cluster.toml"))?;
    let Some(cloud) = cloud::open(cloud_file, &spec).await? else {
        return Err(Failure::usage("this run made nothing in a cloud: its bastion and its network were there already"));
    };
    // Who may reach port 22, as it was found out when nobody had said it.
    spec.bastion.operator_cidr =
        spec.bastion.operator_cidr.or_else(|| model.facts.get(fact::BASTION_OPERATOR).cloned());
    let items = blueprint::planned(&spec);
    let subject = Subject { model: &model, items: &items, cluster: cluster(&model) };
    let drift = drift::compare(cloud, Patience::default(), &subject)
        .await
        .map_err(|error| Failure::other(format!("the cloud cannot be compared with: {error}")))?;
    if as_json {
        println!("{}", json!({ "run": model.run, "agreeing": drift.agreeing, "differences": drift.differences }));
    } else {
        println!("{} {}.{}", model.run, model.cluster.name, model.cluster.base_domain);
        lines(&drift).iter().for_each(|line| println!("{line}"));
    }
    Ok(if drift.differences.is_empty() { exit::DONE } else { exit::OTHER })
}

/// The newest cluster of the run, and whether the record has it gone.
fn cluster(model: &RunModel) -> Option<(&str, bool)> {
    let infra_id = model.facts.get(fact::INFRA_ID)?;
    let of_it = |object: &Object| object.kind == "cluster";
    let gone = model
        .objects
        .iter()
        .filter(|(object, record)| of_it(object) && record.id.as_ref() == Some(infra_id))
        .all(|(_, record)| record.gone.is_some());
    Some((infra_id, gone))
}

fn lines(drift: &Drift) -> Vec<String> {
    let mut lines: Vec<String> = drift
        .differences
        .iter()
        .map(|one| {
            let sort = one.sort.as_str();
            let name = if one.name.is_empty() { &one.id } else { &one.name };
            let id = if one.id.is_empty() || one.id == *name { String::new() } else { format!(" ({})", one.id) };
            format!("  {sort:<10} {} {name}{id}: {}", one.kind.as_str(), one.says)
        })
        .collect();
    lines.push(match drift.differences.len() {
        0 => format!("{} things are as they were made, and there is nothing else of this run", drift.agreeing),
        count => format!("{} things are as they were made; {count} differences", drift.agreeing),
    });
    lines
}
