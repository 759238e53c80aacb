//! Pods of operators that are not well, and of nodes that are not ready: which of them do not get on, and the end of what
//! they said. Through the API, or by `oc` where there is no way to it.
//!
//! Nobody has to ask: what explains an operator's message is in the record when its row is opened, also long after.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::cluster::operators::{Health, health};
use crate::cluster::pods::{Log, Trouble, trouble};
use crate::cluster::{self, ClusterApi};
use crate::host::{Cmd, Host};
use crate::model::RunModel;
use crate::model::event::{Level, LogLine, Observed, Pod, Vanished};

use super::Out;
use super::serial::Console;

const EVERY: Duration = Duration::from_secs(20);
/// Until the operators are known.
const FIRST: Duration = Duration::from_secs(4);
/// Namespaces that are looked into, and logs that are read, in one round.
const NAMESPACES: usize = 12;
const LOGS: usize = 8;
/// Lines that are read of a log, and those of them that the pod's row shows.
const LINES: u32 = 100;
const SHOWN: usize = 12;
/// Rounds after which the log of a pod that stays as it is is read again.
const AGAIN: u64 = 6;
/// Without these no node becomes ready.
const OF_NODES: [&str; 3] = ["openshift-multus", "openshift-ovn-kubernetes", "openshift-machine-config-operator"];

/// Name of a namespace's source in the record.
pub fn source(namespace: &str) -> String {
    format!("pods:{namespace}")
}

/// How the cluster is asked.
pub enum Way<'a> {
    Api(&'a ClusterApi),
    Oc { host: &'a dyn Host, kubeconfig: &'a str },
}

impl Way<'_> {
    async fn list(&self, namespace: &str) -> Option<Vec<Value>> {
        match self {
            Way::Api(api) => api.pods(namespace).await.ok(),
            Way::Oc { .. } => {
                let answer = self.oc(&["-n", namespace, "get", "pods", "-o", "json"]).await?;
                cluster::list(&answer).ok()
            }
        }
    }

    async fn log(&self, pod: &Pod, log: &Log) -> Option<String> {
        let Pod { namespace, name, .. } = pod;
        match self {
            Way::Api(api) => api.log(namespace, name, log, LINES).await.ok(),
            Way::Oc { .. } => {
                let tail = format!("--tail={LINES}");
                let mut args = vec!["-n", namespace, "logs", name, "-c", &log.container, "--timestamps", &tail];
                if log.previous {
                    args.push("--previous");
                }
                Some(String::from_utf8_lossy(&self.oc(&args).await?).into_owned())
            }
        }
    }

    async fn oc(&self, args: &[&str]) -> Option<Vec<u8>> {
        let Way::Oc { host, kubeconfig } = self else { return None };
        let cmd = Cmd::new("oc")
            .args(["--kubeconfig", kubeconfig, "--request-timeout=10s"])
            .args(args.iter().copied())
            .timeout(Some(Duration::from_secs(30)));
        let answer = host.exec(&cmd).await.ok()?;
        answer.ok().then_some(answer.stdout)
    }
}

/// What is known of pods, whichever way it came.
#[derive(Debug, Default)]
pub struct Seen {
    pods: BTreeMap<String, Pod>,
    /// By pod, container, and which of its lives.
    logs: BTreeMap<(String, String, bool), Console>,
    round: u64,
}

/// Where to look now: operators that are worse than busy, nodes that are not ready, and pods that were in trouble.
fn namespaces(model: &RunModel, seen: &Seen) -> Vec<String> {
    let mut wanted = BTreeSet::new();
    let state = &model.cluster_state;
    for record in state.operators.values().filter(|record| health(&record.operator) >= Health::Degraded) {
        wanted.extend(record.operator.namespaces.iter().map(String::as_str));
    }
    if state.nodes.values().any(|node| !node.ready) {
        wanted.extend(OF_NODES);
    }
    wanted.extend(seen.pods.values().map(|pod| pod.namespace.as_str()));
    // Names that are in no cluster's namespaces, as some operators list them, cost a question and nothing more.
    wanted.remove("");
    let all: Vec<String> = wanted.into_iter().map(str::to_owned).collect();
    if all.len() <= NAMESPACES {
        return all;
    }
    let first = usize::try_from(seen.round).unwrap_or(0).wrapping_mul(NAMESPACES) % all.len();
    all.iter().cycle().skip(first).take(NAMESPACES).cloned().collect()
}

/// Look again and again, until whoever called has enough of it.
pub async fn follow(way: Way<'_>, seen: &mut Seen, out: &Out) {
    let mut pause = FIRST;
    while out.pause(pause).await {
        look(&way, seen, out).await;
        pause = EVERY;
    }
}

/// One round.
pub async fn look(way: &Way<'_>, seen: &mut Seen, out: &Out) {
    let model = out.sink.model().await;
    let (now, mut left) = (Timestamp::now(), LOGS);
    for namespace in namespaces(&model, seen) {
        // What cannot be asked now is asked in the next round.
        let Some(objects) = way.list(&namespace).await else { continue };
        let mut ill = BTreeSet::new();
        for Trouble { mut pod, log } in objects.iter().filter_map(|object| trouble(object, now)) {
            let id = format!("{}/{}", pod.namespace, pod.name);
            ill.insert(id.clone());
            let known = seen.pods.get(&id);
            let same = known.is_some_and(|known| Pod { tail: Vec::new(), ..known.clone() } == pod);
            if same && !seen.round.is_multiple_of(AGAIN) {
                continue;
            }
            pod.tail = known.map(|known| known.tail.clone()).unwrap_or_default();
            if let Some(log) = log.filter(|_| left > 0) {
                left -= 1;
                if let Some(text) = way.log(&pod, &log).await {
                    pod.tail = keep(&pod, &log, &text, seen, out).await;
                }
            }
            if seen.pods.get(&id) != Some(&pod) {
                seen.pods.insert(id, pod.clone());
                out.observed([Observed::Pod(pod)]).await;
            }
        }
        let well: Vec<String> = seen
            .pods
            .iter()
            .filter(|(id, pod)| pod.namespace == namespace && !ill.contains(*id))
            .map(|(id, _)| id.clone())
            .collect();
        for name in well {
            seen.pods.remove(&name);
            seen.logs.retain(|(pod, ..), _| *pod != name);
            out.observed([Observed::Gone { what: Vanished::Pod, name }]).await;
        }
    }
    seen.round = seen.round.wrapping_add(1);
}

/// Records what is new of a log; gives its last lines.
async fn keep(pod: &Pod, log: &Log, text: &str, seen: &mut Seen, out: &Out) -> Vec<String> {
    let id = (format!("{}/{}", pod.namespace, pod.name), log.container.clone(), log.previous);
    let text = if text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") };
    let console = seen.logs.entry(id).or_default();
    let news = console.feed(&text);
    let unit = format!("{}/{}", pod.name, log.container);
    let lines: Vec<LogLine> = news.lines.iter().map(|text| line(&unit, text)).collect();
    let shown: Vec<String> = Console::default().feed(&text).lines.iter().map(|text| line(&unit, text).text).collect();
    if !lines.is_empty() {
        out.lines(&source(&pod.namespace), lines).await;
    }
    shown.into_iter().rev().take(SHOWN).rev().collect()
}

/// A line with the time that the API puts before it.
fn line(unit: &str, text: &str) -> LogLine {
    let timed = text.split_once(' ').and_then(|(at, rest)| Some((at.parse().ok()?, rest)));
    let (at, said) = timed.unwrap_or_else(|| (Timestamp::now(), text));
    let mut start = said.bytes();
    // klog says it with one letter: `E0301 10:09:02.271833 …`.
    let level = match (start.next(), start.next().is_some_and(|byte| byte.is_ascii_digit())) {
        (Some(b'E' | b'F'), true) => Level::Error,
        (Some(b'W'), true) => Level::Warn,
        _ => Level::Info,
    };
    LogLine { at, unit: unit.to_owned(), level, text: said.to_owned(), cursor: None }
}
