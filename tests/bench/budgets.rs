//! What the program costs, measured on the program itself in a pseudo-terminal: `cargo bench --bench budgets`.
//!
//! Budgets: first frame within 150 ms, idle at most 0.5 % of a core, a record of 100,000 events open within 500 ms, a seek in
//! it within 16 ms. `SECONDS` changes how long it idles (20).

#[path = "../it/ui/fixture.rs"]
mod fixture;
mod program;

use std::time::{Duration, Instant};

use bartizan::model::event::{Data, Level, SyncEvent, Unit};
use bartizan::model::plan::StepId;
use bartizan::record::{Recorded, Store, read_events};
use bartizan::ui::history::{History, Seek};

use program::{Failed, Program};

/// Events of the large record.
const EVENTS: usize = 100_000;
const STARTS: usize = 9;

/// A run with so many events, most of them progress, as real runs have.
fn large() -> fixture::Builder {
    let mut run = fixture::install_running();
    let step = StepId::new("08-install/bootstrap");
    while run.events.len() < EVENTS {
        let number = run.events.len() as u64;
        match number % 10 {
            0 => run.wait(1).log("journal:bootstrap", "kubelet", Level::Info, &format!("line {number} of a busy node")),
            1 => run.add(Data::Note { level: Level::Info, text: format!("note {number}") }),
            2..=5 => run.add(Data::Sync(SyncEvent::Moved { bytes: number * 1000 })),
            _ => run.add(Data::StepProgress {
                step: step.clone(),
                done: number,
                total: Some(EVENTS as u64),
                unit: Unit::Count,
                note: None,
            }),
        };
    }
    run
}

fn row(what: &str, measured: String, budget: &str, holds: bool) {
    println!("{what:<44} {measured:>14}   {budget:<12} {}", if holds { "holds" } else { "MISSED" });
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn main() -> Result<(), Failed> {
    let seconds: u64 = std::env::var("SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    println!("{:<44} {:>14}   {:<12}", "", "measured", "budget");
    let small = tempfile::tempdir()?;
    fixture::install_failed().keep(small.path());
    let starts = (0..STARTS).map(|_| Program::start(small.path(), &["replay"])?.until("08 install"));
    let start = median(starts.collect::<Result<_, _>>()?);
    row("start to first frame", format!("{start:.1?}"), "150 ms", start <= Duration::from_millis(150));

    let idle = Program::start(small.path(), &["watch"])?;
    idle.until("watching")?;
    std::thread::sleep(Duration::from_secs(2));
    let ((before, _), sent) = (idle.used()?, idle.bytes());
    std::thread::sleep(Duration::from_secs(seconds));
    let (after, memory) = idle.used()?;
    let share = (after - before) / seconds as f64 * 100.0;
    row("idle, watching a run", format!("{share:.2} %"), "0.5 %", share <= 0.5);
    let bytes = (idle.bytes() - sent) as f64 / seconds as f64;
    row("bytes a second while idle", format!("{bytes:.0}"), "100", bytes <= 100.0);
    row("memory, small run", format!("{memory:.0} MiB"), "150 MiB", memory <= 150.0);
    drop(idle);

    let state = tempfile::tempdir()?;
    let name = large().keep(state.path());
    let path = Store::open(Some(state.path()))?.find(&name)?.join("run.jsonl");
    let opened =
        median((0..3).map(|_| Program::start(state.path(), &["replay"])?.until("replay")).collect::<Result<_, _>>()?);
    row(
        "replay of 100,000 events to first frame",
        format!("{opened:.0?}"),
        "500 ms",
        opened <= Duration::from_millis(500),
    );
    let open = Program::start(state.path(), &["replay"])?;
    open.until("replay")?;
    std::thread::sleep(Duration::from_secs(1));
    let (_, memory) = open.used()?;
    row("memory, 100,000 events", format!("{memory:.0} MiB"), "150 MiB", memory <= 150.0);
    drop(open);

    let events: Vec<Recorded> = read_events(&path)?.into_iter().map(Recorded::new).collect();
    let mut history = History::replay(events);
    let mut seeks: Vec<Duration> = (0..400)
        .map(|number: isize| {
            let begun = Instant::now();
            history.seek(Seek::By((number * 7919) % 90_000 - 45_000));
            begun.elapsed()
        })
        .collect();
    seeks.sort();
    let seek = seeks.get(395).copied().unwrap_or_default();
    row("seek in it, p99", format!("{seek:.1?}"), "16 ms", seek <= Duration::from_millis(16));
    Ok(())
}
