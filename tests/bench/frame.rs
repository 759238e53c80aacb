//! What the screen costs, as a table beside its budgets: `cargo bench --bench frame`.
//!
//! Frames of four moments of a run in three sizes, bytes that a frame sends, a key under a busy log, a seek in a long
//! record, and reading that record. Everything but the terminal itself is the program's own code.

#[path = "../it/ui/fixture.rs"]
mod fixture;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bartizan::model::RunModel;
use bartizan::model::event::{Event, Level};
use bartizan::record::Recorded;
use bartizan::ui::glyph::Glyphs;
use bartizan::ui::history::{History, Seek};
use bartizan::ui::keymap::{Key, Keymap};
use bartizan::ui::layout::Layouts;
use bartizan::ui::logs::{Library, known};
use bartizan::ui::theme::{Depth, Theme};
use bartizan::ui::{Effect, Input, Screen, render, update};
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::{Terminal, TerminalOptions, Viewport};

const FRAMES: usize = 200;
const EVENTS: usize = 100_000;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// A screen at a run, with its logs.
struct Desk {
    run: fixture::Builder,
    screen: Screen,
    library: Library,
    theme: Theme,
}

impl Desk {
    fn new(run: fixture::Builder, width: u16, height: u16) -> Outcome<Self> {
        let screen = Screen::new(Keymap::load(None)?, Layouts::embedded()?, Glyphs::UNICODE);
        let library = Library::new(Box::new(run.shelf.clone()));
        let mut desk = Self { run, screen, library, theme: Theme::load("dark", Depth::True)? };
        desk.tell(Input::Resize(width, height));
        Ok(desk)
    }

    fn tell(&mut self, input: Input) {
        let mut queue = vec![input];
        while let Some(input) = queue.pop() {
            for effect in update(&mut self.screen, &self.run.model, input) {
                if let Effect::Log(ask) = effect {
                    queue.push(self.library.answer(ask, &known(&self.run.model)));
                }
            }
        }
    }

    fn key(&mut self, key: &str) {
        let key = Key::parse(key).unwrap_or(Key::char('j'));
        self.tell(Input::Key(key, self.run.now()));
    }

    fn frame(&self) -> Duration {
        let area = Rect::new(0, 0, self.screen.size.0, self.screen.size.1);
        let mut buffer = Buffer::empty(area);
        let begun = Instant::now();
        render(&self.run.model, &self.screen, &self.theme, area, &mut buffer, self.run.now());
        begun.elapsed()
    }
}

fn row(what: &str, measured: String, budget: &str) {
    println!("{what:<44} {measured:>34}   {budget}");
}

/// The middle one and the one that 99 of 100 do not exceed.
fn two(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1))).copied();
    (at(50).unwrap_or_default(), at(99).unwrap_or_default())
}

fn shown((median, worst): (Duration, Duration)) -> String {
    format!("median {median:.2?}, p99 {worst:.2?}")
}

fn busy(mut run: fixture::Builder) -> fixture::Builder {
    for place in 0..2000 {
        let text = format!("line {place} of a log that is long enough to be cut");
        run.log("journal:bootstrap", "kubelet", Level::Info, &text);
    }
    run
}

fn frames() -> Outcome<()> {
    for (name, make) in [
        ("sync", fixture::sync_running as fn() -> fixture::Builder),
        ("sync of 200 images", fixture::sync_large),
        ("install", fixture::install_running),
        ("failed", fixture::install_failed),
    ] {
        for (width, height) in [(80, 24), (120, 40), (200, 60)] {
            let desk = Desk::new(busy(make()), width, height)?;
            let times = two((0..FRAMES).map(|_| desk.frame()).collect());
            let budget = if width == 200 { "2 ms" } else { "" };
            row(&format!("frame, {name}, {width}x{height}"), shown(times), budget);
        }
    }
    Ok(())
}

/// What is written, counted.
#[derive(Clone, Default)]
struct Count(Arc<Mutex<usize>>);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if let Ok(mut count) = self.0.lock() {
            *count += bytes.len();
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Count {
    fn take(&self) -> usize {
        self.0.lock().map(|mut count| std::mem::take(&mut *count)).unwrap_or(0)
    }
}

fn bytes() -> Outcome<()> {
    for (width, height) in [(80, 24), (120, 40), (200, 60)] {
        let count = Count::default();
        let viewport = Viewport::Fixed(Rect::new(0, 0, width, height));
        let mut terminal = Terminal::with_options(CrosstermBackend::new(count.clone()), TerminalOptions { viewport })?;
        let mut desk = Desk::new(busy(fixture::install_running()), width, height)?;
        desk.key("3");
        let mut draw = |desk: &Desk| -> Outcome<usize> {
            let Desk { run, screen, theme, .. } = desk;
            terminal.draw(|frame| bartizan::ui::draw(&run.model, screen, theme, frame, run.now()))?;
            Ok(count.take())
        };
        let first = draw(&desk)?;
        let same = draw(&desk)?;
        // Ten minutes, second by second.
        let mut seconds = Vec::new();
        for _ in 0..600 {
            desk.run.wait(1);
            desk.tell(Input::Tick(desk.run.now()));
            seconds.push(draw(&desk)?);
        }
        let clock = seconds.iter().sum::<usize>() / seconds.len();
        let worst = seconds.into_iter().max().unwrap_or_default();
        desk.run.log("journal:bootstrap", "kubelet", Level::Info, "one more line");
        desk.tell(Input::Tick(desk.run.now()));
        let line = draw(&desk)?;
        desk.key("pageup");
        let page = draw(&desk)?;
        row(
            &format!("bytes of a frame, {width}x{height}"),
            format!("first {first}, same {same}, clock {clock} (most {worst}), line {line}, page {page}"),
            "same and clock 100",
        );
    }
    Ok(())
}

/// Five thousand lines a second arrive for some seconds; at odd moments a key is pressed. Frames are as far apart as in
/// the program, so a key waits for its frame as there.
fn key_to_frame() -> Outcome<()> {
    const APART: Duration = Duration::from_millis(33);
    let mut desk = Desk::new(busy(fixture::install_running()), 200, 60)?;
    desk.key("3");
    let (begun, mut drawn) = (Instant::now(), Instant::now());
    let (mut lines, mut presses) = (0u64, 0u32);
    let mut waiting: Option<Instant> = None;
    let mut times = Vec::new();
    while begun.elapsed() < Duration::from_secs(5) {
        let due = begun.elapsed().as_millis() as u64 * 5;
        while lines < due {
            lines += 1;
            let text = format!("line {lines} while somebody types");
            desk.run.log("journal:bootstrap", "kubelet", Level::Info, &text);
        }
        desk.tell(Input::Tick(desk.run.now()));
        if waiting.is_none() && begun.elapsed() > Duration::from_millis(u64::from(presses) * 47) {
            waiting = Some(Instant::now());
            presses += 1;
            desk.key(["k", "j", "pageup", "end"].get(presses as usize % 4).copied().unwrap_or("k"));
        }
        if drawn.elapsed() >= APART {
            desk.frame();
            drawn = Instant::now();
            times.extend(waiting.take().map(|pressed| pressed.elapsed()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    row(&format!("key to frame at {} lines/s", lines / 5), shown(two(times)), "50 ms p99");
    Ok(())
}

fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib / 1024)
}

fn record() -> Outcome<()> {
    let mut run = fixture::sync_large();
    let mut tick = 0;
    while run.events.len() < EVENTS {
        tick += 1;
        fixture::sync_second(run.wait(1), tick);
        run.log("sync", "agent", Level::Info, "a line beside it");
    }
    run.events.truncate(EVENTS);
    let text: Vec<String> = run.events.iter().map(|event| serde_json::to_string(&**event)).collect::<Result<_, _>>()?;
    drop(run);
    let before = resident();
    let begun = Instant::now();
    let events: Vec<Recorded> =
        text.iter().map(|line| serde_json::from_str::<Event>(line).map(Recorded::new)).collect::<Result<_, _>>()?;
    let parsed = begun.elapsed();
    let mut history = History::new(events, RunModel::default());
    let all = begun.elapsed();
    row(&format!("replay of {EVENTS} events"), format!("parsed {parsed:.0?}, ready {all:.0?}"), "500 ms");
    if let (Some(before), Some(after)) = (before, resident()) {
        row("memory of that history", format!("{} MiB", after.saturating_sub(before)), "150 MiB for all");
    }
    let mut times = Vec::new();
    for place in 0..500u64 {
        let share = u16::try_from(place * 7919 % 1000)?;
        let begun = Instant::now();
        history.seek(Seek::Share(share));
        times.push(begun.elapsed());
    }
    row("seek to anywhere in it", shown(two(times)), "16 ms");
    Ok(())
}

fn main() -> Outcome<()> {
    row("what", "measured".into(), "budget");
    frames()?;
    bytes()?;
    key_to_frame()?;
    record()
}
