//! The cluster, from the host that holds its kubeconfig: through a tunnel to the API, or by `oc` when there is none.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::{self, Changes, ClusterApi, Kind, api};
use crate::host::{Cmd, Host, HostError};
use crate::model::event::{Data, Level, LinkName, LinkState};
use crate::model::text::one_line;
use crate::spec::Secret;

use super::pods::{self, Seen, Way};
use super::{BackOff, Out};

/// How often the API is asked whether it is there, and `oc` for the whole picture.
const ASK_EVERY: Duration = Duration::from_secs(10);
const OC_EVERY: Duration = Duration::from_secs(7);
/// How long to wait for a kubeconfig that the installer has not written yet.
const NOT_YET: Duration = Duration::from_secs(3);
/// Unanswered questions before a new tunnel is opened.
const PATIENCE: u32 = 3;
/// Tunnels that failed in a row before `oc` is asked for a while.
const TUNNELS: u32 = 3;
/// How long `oc` is asked before a tunnel is tried again.
const OC_FOR: Duration = Duration::from_secs(120);

/// Which kubeconfig says where the cluster is and who we are.
#[derive(Debug, Clone)]
pub enum Kubeconfig {
    /// A file on the host; it may not be there yet.
    There(String),
    /// What a file of the operator's own machine holds.
    Here(Secret),
}

/// Follow a cluster that `host` can reach until cancelled.
///
/// # Errors
/// When the host refuses us.
pub async fn follow(host: Arc<dyn Host>, kubeconfig: &Kubeconfig, out: &Out) -> Result<(), HostError> {
    let (changes, mut seen) = (Changes::new(), Seen::default());
    let mut back_off = BackOff::new();
    let mut failed = 0;
    let mut complaint = String::new();
    while !out.cancel.is_cancelled() {
        let ended = tokio::select! {
            () = out.cancel.cancelled() => return Ok(()),
            ended = by_api(host.as_ref(), kubeconfig, &changes, &mut seen, out) => ended,
        };
        match ended {
            Ok(true) => {
                back_off.reset();
                failed = 0;
            }
            Ok(false) => failed += 1,
            Err(error @ HostError::Refused { .. }) => return Err(error),
            Err(error) => {
                failed += u32::from(!error.is_link());
                if !error.is_link() && complaint != error.to_string() {
                    complaint = error.to_string();
                    let text = format!("cluster: {complaint}");
                    out.sink.emit(Data::Note { level: Level::Warn, text }).await;
                }
            }
        }
        // `oc` on the host knows only the kubeconfigs there.
        if let (TUNNELS.., Kubeconfig::There(path)) = (failed, kubeconfig) {
            failed = 0;
            let here = Out { cancel: out.cancel.child_token(), ..out.clone() };
            let way = Way::Oc { host: host.as_ref(), kubeconfig: path };
            let both = async {
                tokio::join!(follow_by_oc(host.clone(), path, &changes, &here), pods::follow(way, &mut seen, &here))
            };
            let _time_is_up = tokio::time::timeout(OC_FOR, both).await;
        } else {
            out.pause(back_off.pause()).await;
        }
    }
    Ok(())
}

/// One tunnel, for as long as it works. True when it ever did.
async fn by_api(
    host: &dyn Host,
    kubeconfig: &Kubeconfig,
    changes: &Changes,
    seen: &mut Seen,
    out: &Out,
) -> Result<bool, HostError> {
    let path = match kubeconfig {
        Kubeconfig::There(path) => path,
        Kubeconfig::Here(_) => "the kubeconfig",
    };
    let wrong = |error: api::ApiError| HostError::Other {
        host: host.name().to_owned(),
        what: path.to_owned(),
        why: error.to_string(),
    };
    let kubeconfig = match kubeconfig {
        Kubeconfig::Here(text) => text.reveal().as_bytes().to_vec(),
        Kubeconfig::There(path) => loop {
            match host.get(path).await? {
                Some(kubeconfig) => break kubeconfig,
                None => tokio::time::sleep(NOT_YET).await,
            }
        },
    };
    let (name, port) = api::server(&kubeconfig).map_err(wrong)?;
    let tunnel = host.tunnel(&name, port).await?;
    let local: SocketAddr = tunnel.local();
    let client = ClusterApi::new(&kubeconfig, local).await.map_err(wrong)?;
    let alive = async {
        let (mut worked, mut unanswered) = (false, 0);
        loop {
            match client.version().await {
                Ok(_) | Err(api::ApiError::Refused { .. }) => (worked, unanswered) = (true, 0),
                Err(_) => unanswered += 1,
            }
            if unanswered >= PATIENCE {
                return worked;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    Ok(tokio::select! {
        worked = alive => worked,
        () = cluster::follow(&client, changes, &out.sink, &out.cancel) => true,
        () = pods::follow(Way::Api(&client), seen, out) => true,
    })
}

/// Ask `oc` on the host for everything, again and again, until cancelled.
pub async fn follow_by_oc(host: Arc<dyn Host>, path: &str, changes: &Changes, out: &Out) {
    let mut state = LinkState::Idle;
    let mut attempt = 0;
    loop {
        let asked = tokio::select! {
            () = out.cancel.cancelled() => return,
            asked = ask_oc(host.as_ref(), path, changes, out) => asked,
        };
        let next = match asked {
            Ok(()) => {
                attempt = 0;
                LinkState::Up
            }
            Err(why) => {
                attempt += 1;
                let in_ms = u64::try_from(OC_EVERY.as_millis()).unwrap_or(u64::MAX);
                LinkState::Retrying { in_ms, attempt, why }
            }
        };
        if state != next {
            state = next.clone();
            out.sink.emit(Data::Link { link: LinkName::Api, state: next }).await;
        }
        if !out.pause(OC_EVERY).await {
            return;
        }
    }
}

/// One round. A kind that the API does not know yet is no failure, as long as it answers.
async fn ask_oc(host: &dyn Host, path: &str, changes: &Changes, out: &Out) -> Result<(), String> {
    for kind in Kind::ALL {
        let namespaces: &[&str] = if kind.is_namespaced() { &["-A"] } else { &[] };
        let selector = kind.field_selector().map(|fields| format!("--field-selector={fields}"));
        let cmd = Cmd::new("oc")
            .args(["--kubeconfig", path, "--request-timeout=10s", "get", &kind.oc_name()])
            .args(namespaces.iter().copied())
            .args(selector)
            .args(["-o", "json"])
            .timeout(Some(Duration::from_secs(30)));
        let answer = host.exec(&cmd).await.map_err(|error| error.to_string())?;
        if !answer.ok() {
            let why = one_line(&answer.error_text(), 300);
            if why.contains("doesn't have a resource type") || why.contains("could not find the requested resource") {
                continue;
            }
            return Err(why);
        }
        let objects = cluster::list(&answer.stdout).map_err(|error| error.to_string())?;
        let mut names = BTreeSet::new();
        for object in &objects {
            let name = object.pointer("/metadata/name").and_then(serde_json::Value::as_str).unwrap_or_default();
            names.insert(name.to_owned());
            match kind.observe(object) {
                Ok(observed) => out.observed(changes.changed(kind, name, observed)).await,
                Err(error) => tracing::warn!(%error, "an object from oc is not understood"),
            }
        }
        out.observed(changes.only(kind, &names)).await;
    }
    Ok(())
}
