//! Which machines have asked the machine config server of the bootstrap node for their Ignition config: the first sign of
//! life of a master, long before anybody can log in to it.
//!
//! The server is a static pod, so what it says is in a file of the kubelet and not in the journal
//! (openshift/machine-config-operator `pkg/server/api.go`: `Pool "master" requested by address:"10.0.1.5:4021"
//! User-Agent:"Ignition/2.20.0" …`; up to 4.12 the pool has no quotes).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::Timestamp;
use regex::Regex;

use crate::host::{Cmd, Host, HostError};
use crate::model::RunModel;
use crate::model::event::{Level, LogLine, Observed};
use crate::model::text::one_line;
use crate::spec::secret::redact;

use super::{BackOff, Out};

/// Name of the source in the record.
pub const SOURCE: &str = "containers:bootstrap";
pub const UNIT: &str = "machine-config-server";
/// Requests that are kept in mind to be told once.
pub const REMEMBERED: usize = 1000;
const LINE_LIMIT: usize = 2 * 1024;
const EVERY: Duration = Duration::from_secs(7);
/// In what the kubelet keeps of the container (k8s.io/kubernetes `pkg/kubelet/kuberuntime`): all of its lives.
const ASK: &str = "for file in /var/log/pods/*/machine-config-server/*.log; do [ -e \"$file\" ] && grep -a 'requested by' \"$file\"; done; true";

static REQUEST: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r#"Pool "?(?P<pool>[\w.-]+)"? requested by (?:address:)?"?\[?(?P<address>[0-9A-Fa-f.:]+?)\]?:\d+"?(?: User-Agent:"(?P<agent>[^"]*)"|\s|$)"#,
    )
    .ok()
});

/// What the container runtime puts before a line: time, stream, and whether it is whole.
static PREFIX: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^(?P<at>\d{4}-\d\d-\d\dT\S+) (?:stdout|stderr) [FP] ").ok());

/// Counts requests by who made them.
#[derive(Debug, Default)]
pub struct Requests {
    /// Pool and address.
    seen: BTreeMap<(String, String), u32>,
}

impl Requests {
    /// What a line of the server changes: the unit `config/POOL` of the machine, by its address.
    pub fn feed(&mut self, line: &str) -> Option<Observed> {
        let found = REQUEST.as_ref()?.captures(line)?;
        let part = |name: &str| found.name(name).map_or("", |part| part.as_str());
        let (pool, address) = (part("pool").to_owned(), part("address").to_owned());
        let times = self.seen.entry((pool.clone(), address.clone())).or_default();
        *times += 1;
        let by = if part("agent").is_empty() { String::new() } else { format!(" by {}", one_line(part("agent"), 60)) };
        let again = if *times > 1 { format!(", {times} times") } else { String::new() };
        let (unit, state) = (format!("config/{pool}"), format!("finished: fetched{by}{again}"));
        Some(Observed::Unit { host: address, unit, state, restarts: 0 })
    }
}

/// The machines that have fetched the config of `pool`, by address.
pub fn fetched<'m>(model: &'m RunModel, pool: &str) -> impl Iterator<Item = &'m str> {
    let unit = format!("config/{pool}");
    model.units.keys().filter(move |(_, known)| *known == unit).map(|(address, _)| address.as_str())
}

/// A line as the kubelet keeps it, or as `crictl logs` prints it.
fn line(text: &str, now: Timestamp) -> LogLine {
    let found = PREFIX.as_ref().and_then(|prefix| prefix.captures(text));
    let at = found.as_ref().and_then(|found| found.name("at")?.as_str().parse().ok());
    let said = found.and_then(|found| text.get(found.get(0)?.end()..)).unwrap_or(text);
    let text = redact(&one_line(said, LINE_LIMIT));
    LogLine { at: at.unwrap_or(now), unit: UNIT.into(), level: Level::Info, text, cursor: None }
}

/// Ask the bootstrap node again and again until cancelled, or until it refuses us. `known` are the lines that the record
/// has.
pub async fn follow(host: Arc<dyn Host>, known: impl IntoIterator<Item = LogLine>, out: &Out) {
    let mut requests = Requests::default();
    let mut seen: BTreeSet<(Timestamp, String)> = BTreeSet::new();
    for line in known {
        requests.feed(&line.text);
        seen.insert((line.at, line.text));
    }
    let mut back_off = BackOff::new();
    let ask = Cmd::sh(ASK).sudo();
    loop {
        let asked = tokio::select! {
            () = out.cancel.cancelled() => return,
            asked = host.exec(&ask) => asked,
        };
        let pause = match asked {
            Ok(answer) => {
                let now = Timestamp::now();
                let text = String::from_utf8_lossy(&answer.stdout).into_owned();
                let lines = text.lines().map(|text| line(text, now));
                let new: Vec<LogLine> = lines.filter(|line| seen.insert((line.at, line.text.clone()))).collect();
                while seen.len() > REMEMBERED {
                    seen.pop_first();
                }
                if !new.is_empty() {
                    let told: Vec<Observed> = new.iter().filter_map(|line| requests.feed(&line.text)).collect();
                    out.observed(told).await;
                    out.lines(SOURCE, new).await;
                }
                back_off.reset();
                EVERY
            }
            Err(HostError::Refused { .. }) => return,
            // What cannot be asked now is asked again; the host itself tells of its link.
            Err(_) => back_off.pause().max(EVERY),
        };
        if !out.pause(pause).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_every_release_writes_them() {
        let mut requests = Requests::default();
        let mut told = |line: &str| match requests.feed(line) {
            Some(Observed::Unit { host, unit, state, .. }) => format!("{host} {unit} {state}"),
            _ => String::new(),
        };
        let new = r#"2025-03-01T10:09:02.271833001+00:00 stderr F I0301 10:09:02.271833       1 api.go:65] Pool "master" requested by address:"10.0.1.5:4021" User-Agent:"Ignition/2.20.0" Accept-Header: "*/*;q=0.1""#;
        assert_eq!(told(new), "10.0.1.5 config/master finished: fetched by Ignition/2.20.0");
        assert_eq!(told(new), "10.0.1.5 config/master finished: fetched by Ignition/2.20.0, 2 times");
        let old = r#"I1104 16:39:29.536108       1 api.go:117] Pool master requested by address:"10.0.2.113:40148" User-Agent:"Ignition/2.6.0" Accept-Header: "x""#;
        assert_eq!(told(old), "10.0.2.113 config/master finished: fetched by Ignition/2.6.0");
        assert_eq!(told(r#"Pool "worker" requested by [fd00::5]:4021"#), "fd00::5 config/worker finished: fetched");
        assert_eq!(told("refusing to serve bootstrap configuration to pool \"worker\""), "");
        let kept = line(new, Timestamp::UNIX_EPOCH);
        assert_eq!((kept.at.as_second(), kept.text.starts_with("I0301 10:09:02")), (1_740_823_742, true));
        assert_eq!(line(old, Timestamp::UNIX_EPOCH).at, Timestamp::UNIX_EPOCH);
    }
}
