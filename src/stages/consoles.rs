//! The serial consoles of the cluster's machines, followed while nobody can log in to them: before Ignition has finished
//! there is no SSH, and the console is all that tells what a machine waits for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cloud::{Kind, Resource, Tags};
use crate::model::RunModel;
use crate::watch::Out;
use crate::watch::serial::{self, Console, REMEMBERED};

use super::live::{JOURNAL, last_lines};
use super::world::{Cx, fact};

/// How often EC2 is asked which machines there are.
const LOOK: Duration = Duration::from_secs(15);
const BOOTSTRAP: &str = "bootstrap";

/// Consoles that are followed, by instance.
#[derive(Default)]
pub(super) struct Consoles {
    followed: BTreeMap<String, CancellationToken>,
    looked: Option<Instant>,
}

impl Consoles {
    /// Follows those of new machines, and leaves those of machines that can be reached by now.
    pub(super) async fn look(&mut self, cx: &Cx, tasks: &mut JoinSet<()>, cancel: &CancellationToken) {
        let (Some(cloud), Some(infra_id)) = (cx.world.cloud.clone(), cx.fact(fact::INFRA_ID)) else { return };
        if infra_id.is_empty() || self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return;
        }
        self.looked = Some(Instant::now());
        let owned = Tags::from([(format!("kubernetes.io/cluster/{infra_id}"), "owned".to_owned())]);
        // Who cannot list the machines has been told so by other steps; the next look is soon.
        let Ok(machines) = cloud.find(Kind::Instance, &owned).await else { return };
        for machine in &machines {
            let Some(node) = machine.tags.get("Name").and_then(|name| name.strip_prefix(&format!("{infra_id}-")))
            else {
                continue;
            };
            let reached = machine.is_over() || is_reached(&cx.model, machine, node);
            match self.followed.get(&machine.id) {
                Some(console) if reached => console.cancel(),
                None if !reached => {
                    let stop = cancel.child_token();
                    self.followed.insert(machine.id.clone(), stop.clone());
                    let out = Out::new(cx.sink.clone(), stop).tap(cx.world.tap.clone());
                    let console = known(cx, node);
                    let (cloud, node, id) = (cloud.clone(), node.to_owned(), machine.id.clone());
                    tasks.spawn(async move { serial::follow(cloud, &node, &id, console, &out).await });
                }
                _ => {}
            }
        }
    }
}

/// Its journal is read, or it is a node that is ready.
fn is_reached(model: &RunModel, machine: &Resource, node: &str) -> bool {
    if node == BOOTSTRAP {
        return model.logs.get(JOURNAL).is_some_and(|log| log.lines > 0);
    }
    let known = machine.property("PrivateDnsName").and_then(|name| model.cluster_state.nodes.get(name));
    known.is_some_and(|node| node.ready)
}

/// The console as far as the record has it.
fn known(cx: &Cx, node: &str) -> Console {
    let source = serial::source(node);
    let tail = last_lines(&cx.world.run_dir, &cx.model, &source, REMEMBERED);
    Console::resume(tail.into_iter().map(|line| line.text))
}
