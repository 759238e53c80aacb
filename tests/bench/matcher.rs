//! What a line costs that no signature knows: `cargo bench --bench matcher`. Wanted: about a microsecond.

use std::time::Instant;

use bartizan::diagnose::{Catalogue, Matcher};
use bartizan::model::event::{Level, LogLine};

const LINES: u32 = 500_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut matcher = Matcher::new(&Catalogue::builtin()?);
    let texts: Vec<String> = (0..1000)
        .map(|number| match number % 4 {
            0 => format!("Created \"{number:04}-crd.yaml\" customresourcedefinitions.v1.apiextensions.k8s.io/x{number} -n"),
            1 => format!("[#{number}] failed to fetch discovery: the server is currently unable to handle the request"),
            2 => format!("I0301 10:00:00.{number:06} 2247 kubelet.go:2421] \"SyncLoop ADD\" pods=[\"ns/pod-{number}\"]"),
            _ => format!("E0301 10:00:00.{number:06} 1 reflector.go:158] failed to list *v1.Node: dial tcp [::1]:6443: connect: connection refused"),
        })
        .collect();
    let mut line = LogLine {
        at: jiff::Timestamp::now(),
        unit: "bootkube".into(),
        level: Level::Info,
        text: String::new(),
        cursor: None,
    };
    let mut found = 0usize;
    let start = Instant::now();
    for (number, text) in (0..LINES).zip(texts.iter().cycle()) {
        line.text.clone_from(text);
        found += matcher.feed("journal:bootstrap", &line, Some(number.into())).len();
    }
    let each = start.elapsed().as_nanos() / u128::from(LINES);
    println!("{each} ns for a line, {found} findings");
    Ok(())
}
