//! What the cluster's API holds, as `oc` prints it and as the panes show it.

use std::collections::BTreeSet;

use bartizan::cluster::operators::{COLUMNS, row};
use bartizan::cluster::{Changes, Kind, list};
use bartizan::model::event::{Data, Event, Observed, Operator, Vanished};
use bartizan::model::{RunModel, reduce};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Lists of operators (`oc get co -o json`) and what `oc get co` printed of them. Five are recordings of real clusters
/// (openshift/oc, pkg/cli/admin/upgrade/status/examples), without what is not shown; the two of an installation are put
/// together of conditions as the operators write them. The first line of a table is when it was printed.
macro_rules! situations {
    ($($name:literal),*) => {
        [$((
            $name,
            include_bytes!(concat!("../fixtures/operators/", $name, ".json")).as_slice(),
            include_str!(concat!("../fixtures/operators/", $name, ".txt")),
        )),*]
    };
}

fn printed(operators: &[Operator], now: Timestamp) -> String {
    let head = ["NAME", "VERSION", "AVAILABLE", "PROGRESSING", "DEGRADED", "SINCE", "MESSAGE"].map(str::to_owned);
    let rows: Vec<[String; COLUMNS]> = std::iter::once(head).chain(operators.iter().map(|one| row(one, now))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let line = |row: &[String; COLUMNS]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[test]
fn the_operators_are_what_oc_get_co_prints() {
    for (name, objects, table) in situations![
        "install-early",
        "install-half-way",
        "update-early",
        "update-half-way",
        "degraded",
        "unavailable",
        "done"
    ] {
        let operators: Vec<Operator> = list(objects)
            .unwrap()
            .iter()
            .map(|object| match Kind::Operators.observe(object).unwrap() {
                Observed::Operator(operator) => operator,
                other => panic!("{other:?}"),
            })
            .collect();
        let (now, table) = table.split_once('\n').unwrap();
        assert_eq!(printed(&operators, now.parse().unwrap()), table, "{name}");
        assert!(operators.len() > 30, "{name}");
        // What a row can be opened to.
        let ingress = operators.iter().find(|operator| operator.name == "ingress").unwrap();
        assert!(ingress.namespaces.iter().any(|namespace| namespace.starts_with("openshift-ingress")), "{ingress:?}");
    }
}

/// Takes what an API holds, list after list, into a model.
#[derive(Default)]
struct Panes {
    changes: Changes,
    model: RunModel,
}

impl Panes {
    fn list(&mut self, kind: Kind, objects: &[Value]) -> usize {
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap().to_owned();
        let names: BTreeSet<String> = objects.iter().map(name).collect();
        let news = objects
            .iter()
            .filter_map(|object| self.changes.changed(kind, &name(object), kind.observe(object).unwrap()));
        let told: Vec<Observed> = news.chain(self.changes.only(kind, &names)).collect();
        for observed in &told {
            let seq = self.model.seq + 1;
            reduce(&mut self.model, &Event { seq, at: Timestamp::now(), data: Data::Observed(observed.clone()) });
        }
        told.len()
    }
}

#[test]
fn what_went_away_is_cleared_from_the_panes() {
    let named = |name: &str| json!({"metadata": {"name": name}});
    let mut panes = Panes::default();
    for kind in [Kind::Nodes, Kind::Csrs, Kind::Machines, Kind::Pools, Kind::Operators] {
        assert_eq!(panes.list(kind, &[named("a"), named("b")]), 2, "{kind:?}");
        assert_eq!(panes.list(kind, &[named("b")]), 1, "{kind:?}");
        assert_eq!(panes.list(kind, &[named("b")]), 0, "{kind:?}");
    }
    let state = &panes.model.cluster_state;
    fn one<T>(rows: &std::collections::BTreeMap<String, T>) -> bool {
        rows.len() == 1 && rows.contains_key("b")
    }
    assert!(one(&state.nodes) && one(&state.csrs) && one(&state.machines) && one(&state.pools), "{state:?}");
    assert!(one(&state.operators), "{state:?}");
    let gone = Kind::Pools.gone("b");
    assert_eq!(gone, Some(Observed::Gone { what: Vanished::Pool, name: "b".into() }));
}

#[test]
fn a_degraded_pool_says_why() {
    let pool = json!({"metadata": {"name": "master"}, "status": {
        "machineCount": 3, "readyMachineCount": 2, "updatedMachineCount": 1, "degradedMachineCount": 1, "conditions": [
            {"type": "Updating", "status": "True", "message": "All nodes are updating to rendered-master-1"},
            {"type": "RenderDegraded", "status": "False"},
            {"type": "NodeDegraded", "status": "True", "message": "Node m-0 is reporting: \"rendered-master-1 not found\""}]}});
    let Observed::Pool { machines, ready, updated, degraded, message, .. } = Kind::Pools.observe(&pool).unwrap() else {
        panic!("no pool")
    };
    assert_eq!((machines, ready, updated, degraded), (3, 2, 1, 1));
    assert!(message.starts_with("Node m-0 is reporting"), "{message}");
}

#[test]
fn a_warning_that_comes_again_and_again_is_told_when_it_came_twice_as_often() {
    let warning = |count: u32| {
        json!({"metadata": {"name": "router.17", "namespace": "openshift-ingress"}, "type": "Warning",
            "reason": "FailedScheduling", "message": "0/3 nodes are available", "count": count,
            "lastTimestamp": "2025-03-01T10:30:00Z", "eventTime": null,
            "involvedObject": {"kind": "Pod", "name": "router-default-1", "namespace": "openshift-ingress"}})
    };
    let mut panes = Panes::default();
    let told: usize = (1..=100).map(|count| panes.list(Kind::Warnings, &[warning(count)])).sum();
    assert_eq!(told, 7, "1, 2, 4, 8, 16, 32 and 64");
    let kept = &panes.model.cluster_state.warnings["openshift-ingress"];
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].about.as_str(), kept[0].count), ("pod/router-default-1", 64));
    // They go by themselves after some hours; what they said stays.
    assert_eq!(panes.list(Kind::Warnings, &[]), 0);
}
