//! What a line costs that no signature knows, and how fast a large log is diagnosed: `cargo bench --bench matcher`.
//! Wanted: about a microsecond for a line, 150 MB/s on one core. `BARTIZAN_BENCH_MB` is the size of the logs, and
//! `BARTIZAN_BENCH_LOG` one of your own.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use bartizan::diagnose::offline::{Limits, diagnose_with};
use bartizan::diagnose::{Catalogue, Matcher};
use bartizan::model::event::{Level, LogLine};

const LINES: u32 = 500_000;
const MEGABYTES: u64 = 512;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let catalogue = Catalogue::builtin()?;
    println!("{} ms for {} signatures", start.elapsed().as_millis(), catalogue.signatures().len());
    stream(&catalogue);
    if let Some(path) = std::env::var_os("BARTIZAN_BENCH_LOG") {
        let path = PathBuf::from(path);
        return timed(&catalogue, &path.display().to_string(), &path);
    }
    file(&catalogue, "ordinary", noise().into_iter().map(bootkube).cycle())?;
    file(&catalogue, "waiting", waiting().into_iter().map(bootkube).cycle())?;
    file(&catalogue, "a node's mixed", Node::default())
}

fn bootkube(text: String) -> String {
    format!("bootkube.sh[4242]: {text}")
}

/// Lines of a node that joins, in no order; the names of containers, requests and sandboxes in them never come twice.
struct Node {
    lines: Vec<&'static str>,
    /// Of a linear congruential generator (Knuth, MMIX).
    state: u64,
}

/// Images of a release, about, and pods of a node.
const IMAGES: u64 = 190;
const PODS: u64 = 60;

impl Default for Node {
    fn default() -> Self {
        Self { lines: include_str!("node.txt").lines().collect(), state: 1 }
    }
}

impl Node {
    fn next_number(&mut self) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.state >> 16
    }

    fn filled(&mut self, name: &str) -> String {
        let mut hex = |count: usize| {
            let text: String = (0..count.div_ceil(12)).map(|_| format!("{:012x}", self.next_number())).collect();
            text.get(..count).unwrap_or_default().to_owned()
        };
        match name {
            "hex" => hex(64),
            "uuid" => [8, 4, 4, 4, 12].map(hex).join("-"),
            "pod" => format!("{:08x}-0000-4000-8000-00000000cafe", self.next_number() % PODS + 1),
            "digest" => format!("{:064x}", (self.next_number() % IMAGES + 1) * 0x0123_4567_89ab_cdef),
            "nano" => format!("{:09}", self.next_number() % 1_000_000_000),
            "micro" => format!("{:06}", self.next_number() % 1_000_000),
            _ => (self.next_number() % 60_000 + 1000).to_string(),
        }
    }
}

impl Iterator for Node {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let count = self.lines.len() as u64;
        let place = usize::try_from(self.next_number() % count).ok()?;
        let mut rest = *self.lines.get(place)?;
        let mut text = String::new();
        while let Some((before, after)) = rest.split_once('{') {
            text.push_str(before);
            let is_name = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase());
            rest = match after.split_once('}').filter(|(name, _)| is_name(name)) {
                Some((name, after)) => {
                    text.push_str(&self.filled(name));
                    after
                }
                None => {
                    text.push('{');
                    after
                }
            };
        }
        Some(text + rest)
    }
}

/// Lines as every installation prints them.
fn noise() -> Vec<String> {
    let line = |number: usize| match number % 5 {
        0 => format!("Created \"{number:04}-crd.yaml\" customresourcedefinitions.v1.apiextensions.k8s.io/x{number} -n"),
        1 => format!("[#{number}] failed to fetch discovery: the server is currently unable to handle the request"),
        2 => format!(
            "I0301 10:00:00.{number:06} 2247 kubelet.go:2421] \"SyncLoop ADD\" source=\"api\" pods=[\"ns/pod-{number}\"]"
        ),
        3 => format!(
            "E0301 10:00:00.{number:06} 1 reflector.go:158] failed to list *v1.Node: dial tcp [::1]:6443: connect: connection refused"
        ),
        _ => format!(
            "2025-03-01 10:00:00.{number:06} +0000 UTC m=+0.089378130 container create df4a020d084815080874a376fedc671d535796b08548b67cd9ce2d156cdbecac (image=quay.io/openshift-release-dev/ocp-v4.0-art-dev@sha256:c4a6b6850701202f629c0e451de784b02f0de079650a1b9ccbf610448ebc9227, name=relaxed_hellman)"
        ),
    };
    (0..1000).map(line).collect()
}

/// Lines of a kubelet that waits for an API which does not come: nearly all of them are evidence of something.
fn waiting() -> Vec<String> {
    let line = |number: usize| match number % 5 {
        0 => format!(
            "E0301 10:00:00.{number:06} 2247 kubelet_node_status.go:99] \"Unable to register node with API server\" err=\"Post \\\"https://api-int.c1.example.com:6443/api/v1/nodes\\\": dial tcp 10.0.1.5:6443: connect: connection refused\" node=\"ip-10-0-0-8\""
        ),
        1 => format!(
            "E0301 10:00:00.{number:06} 2247 controller.go:145] \"Failed to ensure lease exists, will retry\" err=\"Get \\\"https://api-int.c1.example.com:6443/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/ip-10-0-0-8?timeout=10s\\\": dial tcp: lookup api-int.c1.example.com on 10.0.0.2:53: no such host\" interval=\"7s\""
        ),
        2 => format!(
            "I0301 10:00:00.{number:06} 2247 kubelet_node_status.go:724] \"Recording event message for node\" node=\"ip-10-0-0-8\" event=\"NodeHasSufficientMemory\""
        ),
        3 => format!(
            "E0301 10:00:00.{number:06} 2247 kubelet.go:2902] \"Container runtime network not ready\" networkReady=\"NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: No CNI configuration file in /etc/kubernetes/cni/net.d/. Has your network provider started?\""
        ),
        _ => format!(
            "E0301 10:00:00.{number:06} 2247 kuberuntime_image.go:55] \"Failed to pull image\" err=\"initializing source docker://quay.io/openshift-release-dev/ocp-v4.0-art-dev@sha256:c4a6b6850701202f629c0e451de784b02f0de079650a1b9ccbf610448ebc9227: (Mirrors also failed: [mirror.example.com:8443/openshift/release@sha256:c4a6: reading manifest sha256:c4a6 in mirror.example.com:8443/openshift/release: manifest unknown]): quay.io/openshift-release-dev/ocp-v4.0-art-dev@sha256:c4a6: pinging container registry quay.io: Get \\\"https://quay.io/v2/\\\": dial tcp 3.4.5.6:443: i/o timeout\" image=\"quay.io/openshift-release-dev/ocp-v4.0-art-dev@sha256:c4a6\""
        ),
    };
    (0..1000).map(line).collect()
}

fn stream(catalogue: &Catalogue) {
    let mut matcher = Matcher::new(catalogue);
    let texts = noise();
    let (at, text) = (jiff::Timestamp::now(), String::new());
    let mut line = LogLine { at, unit: "bootkube".into(), level: Level::Info, text, cursor: None };
    let mut found = 0usize;
    let start = Instant::now();
    for (number, text) in (0..LINES).zip(texts.iter().cycle()) {
        line.text.clone_from(text);
        found += matcher.feed("journal:bootstrap", &line, Some(number.into())).len();
    }
    let each = start.elapsed().as_nanos() / u128::from(LINES);
    println!("{each} ns for a line, {found} findings");
}

fn file(
    catalogue: &Catalogue,
    what: &str,
    texts: impl Iterator<Item = String>,
) -> Result<(), Box<dyn std::error::Error>> {
    let megabytes = std::env::var("BARTIZAN_BENCH_MB").ok().and_then(|text| text.parse().ok()).unwrap_or(MEGABYTES);
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("journal.log");
    let mut file = BufWriter::new(std::fs::File::create(&path)?);
    let mut size = 0u64;
    for (number, text) in texts.enumerate() {
        let second = number / 100;
        let (hour, minute, second) = (second / 3600 % 24, second / 60 % 60, second % 60);
        let line = format!("Mar 01 {hour:02}:{minute:02}:{second:02} ip-10-0-0-8 {text}\n");
        file.write_all(line.as_bytes())?;
        size += line.len() as u64;
        if size > megabytes << 20 {
            break;
        }
    }
    file.flush()?;
    timed(catalogue, what, &path)
}

fn timed(catalogue: &Catalogue, what: &str, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let report = diagnose_with(catalogue, path, Limits::default())?;
    let seconds = start.elapsed().as_secs_f64();
    let size = std::fs::metadata(path)?.len();
    let rate = size as f64 / seconds / 1e6;
    println!(
        "{rate:.0} MB/s of {what} lines: {} MB, {} lines, {} findings in {seconds:.1} s",
        size >> 20,
        report.lines,
        report.findings.len()
    );
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().filter(|line| line.starts_with("VmHWM")).for_each(|line| println!("{line}"));
    Ok(())
}
