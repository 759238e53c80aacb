//! Times of a whole frame at three sizes: `cargo bench --bench frame`. The budget is 2 ms at 200×60 in a release build.

#[path = "../it/ui/fixture.rs"]
mod fixture;

use std::time::{Duration, Instant};

use bartizan::model::event::Level;
use bartizan::ui::glyph::Glyphs;
use bartizan::ui::keymap::Keymap;
use bartizan::ui::layout::Layouts;
use bartizan::ui::theme::{Depth, Theme};
use bartizan::ui::{Effect, Input, Logs, Screen, render, update};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

const FRAMES: usize = 200;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for (name, make) in [
        ("sync", fixture::sync_running as fn() -> fixture::Builder),
        ("sync-200", fixture::sync_large),
        ("install", fixture::install_running),
        ("failed", fixture::install_failed),
    ] {
        for (width, height) in [(80, 24), (120, 40), (200, 60)] {
            let mut run = make();
            for place in 0..2000 {
                run.log(
                    "journal:bootstrap",
                    "kubelet",
                    Level::Info,
                    &format!("line {place} of a log that is long enough to be cut"),
                );
            }
            let (keymap, layouts) = (Keymap::load(None)?, Layouts::embedded()?);
            let mut screen = Screen::new(keymap, layouts, Glyphs::UNICODE);
            let theme = Theme::load("dark", Depth::True)?;
            let mut queue = vec![Input::Resize(width, height)];
            while let Some(input) = queue.pop() {
                for effect in update(&mut screen, &run.model, input) {
                    if let Effect::ReadLog { source, first, count } = effect {
                        let lines = run.read(&source, first, count);
                        queue.push(Input::Lines { source, first, lines });
                    }
                }
            }
            let area = Rect::new(0, 0, width, height);
            let mut times: Vec<Duration> = (0..FRAMES)
                .map(|_| {
                    let mut buffer = Buffer::empty(area);
                    let begun = Instant::now();
                    render(&run.model, &screen, &theme, area, &mut buffer, run.now());
                    begun.elapsed()
                })
                .collect();
            times.sort();
            let (median, worst) = (times[FRAMES / 2], times[FRAMES * 99 / 100]);
            let begun = Instant::now();
            fixture::sync_second(run.wait(1), 11);
            let folded =
                if name == "sync-200" { format!("  50 updates {:>10.2?}", begun.elapsed()) } else { String::new() };
            println!("{name:8} {width:3}x{height:<3} median {median:>10.2?}  p99 {worst:>10.2?}{folded}");
        }
    }
    Ok(())
}
