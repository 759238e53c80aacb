//! What the program costs, measured on the program itself in a pseudo-terminal: `cargo bench --bench budgets`.
//!
//! Budgets: first frame within 150 ms, idle at most 0.5 % of a core, a record of 100,000 events open within 500 ms, a seek in
//! it within 16 ms. `SECONDS` changes how long it idles (20).

#[path = "../it/ui/fixture.rs"]
mod fixture;

use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bartizan::model::event::{Data, Level, SyncEvent, Unit};
use bartizan::model::plan::StepId;
use bartizan::record::{Recorded, Store, read_events};
use bartizan::ui::history::{History, Seek};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

type Failed = Box<dyn std::error::Error>;

/// Events of the large record.
const EVENTS: usize = 100_000;
const STARTS: usize = 9;

/// The program in a terminal of 160×45.
struct Program {
    child: Box<dyn Child + Send + Sync>,
    seen: Arc<Mutex<Vec<u8>>>,
    begun: Instant,
    _master: Box<dyn MasterPty + Send>,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

impl Program {
    fn start(state: &Path, args: &[&str]) -> Result<Self, Failed> {
        let pair = native_pty_system().openpty(PtySize { rows: 45, cols: 160, pixel_width: 0, pixel_height: 0 })?;
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_bartizan"));
        command.arg("--state");
        command.arg(state);
        command.args(args);
        command.env("TERM", "xterm-256color");
        command.env("LC_ALL", "C.UTF-8");
        command.env_remove("SSH_TTY");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (kept, mut reader) = (seen.clone(), pair.master.try_clone_reader()?);
        let begun = Instant::now();
        let child = pair.slave.spawn_command(command)?;
        std::thread::spawn(move || {
            let mut bytes = [0; 65536];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                if let Ok(mut kept) = kept.lock() {
                    kept.extend_from_slice(bytes.get(..count).unwrap_or_default());
                }
            }
        });
        Ok(Self { child, seen, begun, _master: pair.master })
    }

    fn bytes(&self) -> usize {
        self.seen.lock().map_or(0, |seen| seen.len())
    }

    /// Until `text` is on the screen.
    fn until(&self, text: &str) -> Result<Duration, Failed> {
        loop {
            let found = self.seen.lock().is_ok_and(|seen| String::from_utf8_lossy(&seen).contains(text));
            let passed = self.begun.elapsed();
            if found {
                return Ok(passed);
            }
            if passed > Duration::from_secs(30) {
                return Err(format!("{text:?} is not on the screen").into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Seconds of a core that it has used, and the memory that it has, in MiB.
    fn used(&self) -> Result<(f64, f64), Failed> {
        let pid = self.child.process_id().ok_or("no process")?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let field = |number: usize| fields.get(number).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        // Linux counts them in hundredths of a second; pages have 4 KiB on the machines that this runs on.
        Ok(((field(11) + field(12)) / 100.0, field(21) * 4096.0 / f64::from(1 << 20)))
    }
}

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
