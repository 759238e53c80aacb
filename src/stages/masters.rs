//! The journals of masters, from their first boot on: each is followed once it has fetched its config from the bootstrap
//! node, which is before it is a node of the cluster. What is not there yet is tried again.

use std::collections::BTreeSet;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cloud::{Kind, Tags};
use crate::engine::StepError;
use crate::model::event::{Data, Level};
use crate::watch::journal::{self, Options, Position};
use crate::watch::{Out, mcs};

use super::live::last_line;
use super::world::{Cx, fact, host_error};

const POOL: &str = "master";

/// Masters that are followed, by address.
#[derive(Default)]
pub(super) struct Masters {
    followed: BTreeSet<String>,
}

impl Masters {
    /// Follows those that have asked for their config since the last look.
    pub(super) async fn look(
        &mut self,
        cx: &Cx,
        tasks: &mut JoinSet<()>,
        cancel: &CancellationToken,
    ) -> Result<(), StepError> {
        let asked: Vec<String> = mcs::fetched(&cx.model, POOL).map(str::to_owned).collect();
        for address in asked {
            if self.followed.contains(&address) {
                continue;
            }
            let name = name(cx, &address).await;
            // Addresses come back, with other keys.
            cx.world.ssh.forget_host_key(&name).map_err(host_error)?;
            let host = cx.world.node(cx, &name, address.clone())?;
            self.followed.insert(address);
            let options = Options::node(&name);
            let start = last_line(&cx.world.run_dir, &cx.model, &options.source).as_ref().and_then(Position::after);
            let out = Out::new(cx.sink.clone(), cancel.child_token()).tap(cx.world.tap.clone());
            tasks.spawn(async move {
                if let Err(error) = journal::follow(host, options.start(start), &out, &mut |_| Vec::new()).await {
                    let text = format!("the journal of {name} cannot be followed: {error}");
                    out.sink.emit(Data::Note { level: Level::Warn, text }).await;
                }
            });
        }
        Ok(())
    }
}

/// `master-0`, as its instance is called in the cloud; its address where no cloud can be asked.
async fn name(cx: &Cx, address: &str) -> String {
    let (Some(cloud), Some(infra_id)) = (&cx.world.cloud, cx.fact(fact::INFRA_ID)) else { return address.to_owned() };
    let owned = Tags::from([(format!("kubernetes.io/cluster/{infra_id}"), "owned".to_owned())]);
    // Without an answer it is followed under its address.
    let machines = cloud.find(Kind::Instance, &owned).await.unwrap_or_default();
    let known = machines.iter().find(|machine| machine.property("PrivateIpAddress") == Some(address));
    let name = known.and_then(|machine| machine.tags.get("Name")?.strip_prefix(&format!("{infra_id}-")));
    name.unwrap_or(address).to_owned()
}
