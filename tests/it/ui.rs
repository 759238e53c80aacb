//! The cockpit as an operator meets it: what is drawn, and what keys do.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

mod commands;
#[cfg(feature = "lab")]
mod demo;
pub mod fixture;
mod frames;
mod keys;
pub mod live;
mod logs;
mod pictures;
mod recorded;
mod shape;

use bartizan::model::run::RunModel;
use bartizan::ui::glyph::Glyphs;
use bartizan::ui::keymap::{Key, Keymap};
use bartizan::ui::layout::Layouts;
use bartizan::ui::logs::{Library, known};
use bartizan::ui::theme::{Depth, Theme};
use bartizan::ui::{Effect, Input, Screen, screenshot, update};
use fixture::Builder;
use jiff::{SignedDuration, Timestamp};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;

/// A screen at a run, with a clock and logs.
struct Cockpit {
    run: Builder,
    library: Library,
    screen: Screen,
    theme: Theme,
    now: Timestamp,
}

impl Cockpit {
    fn new(run: Builder, width: u16, height: u16) -> Self {
        let screen = Screen::new(Keymap::load(None).unwrap(), Layouts::embedded().unwrap(), Glyphs::UNICODE);
        let library = Library::new(Box::new(run.shelf.clone()));
        let mut cockpit =
            Self { now: run.now(), run, library, screen, theme: Theme::load("dark", Depth::True).unwrap() };
        cockpit.tell(Input::Resize(width, height));
        cockpit
    }

    fn model(&self) -> &RunModel {
        &self.run.model
    }

    /// Give an input, and the log lines that it asks for; what else is to be done comes back.
    fn tell(&mut self, input: Input) -> Vec<Effect> {
        let mut out = Vec::new();
        let mut queue = vec![input];
        while let Some(input) = queue.pop() {
            for effect in update(&mut self.screen, &self.run.model, input) {
                match effect {
                    Effect::Log(ask) => queue.push(self.library.answer(ask, &known(&self.run.model))),
                    Effect::Title(_) => {}
                    effect => out.push(effect),
                }
            }
        }
        out
    }

    /// Keys one second apart, as in the key table, with blanks between.
    fn keys(&mut self, keys: &str) -> Vec<Effect> {
        keys.split(' ').flat_map(|key| self.key(key, 1000)).collect()
    }

    fn key(&mut self, key: &str, after_ms: i64) -> Vec<Effect> {
        self.now += SignedDuration::from_millis(after_ms);
        let key = Key::parse(key).unwrap_or_else(|| panic!("{key}"));
        self.tell(Input::Key(key, self.now))
    }

    fn typed(&mut self, text: &str) -> Vec<Effect> {
        text.chars().flat_map(|c| self.tell(Input::Key(Key::char(c), self.now))).collect()
    }

    fn cells(&self) -> Buffer {
        let (width, height) = self.screen.size;
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let draw = |frame: &mut ratatui::Frame| {
            bartizan::ui::draw(&self.run.model, &self.screen, &self.theme, frame, self.run.now());
        };
        terminal.draw(draw).unwrap().buffer.clone()
    }

    fn text(&self) -> String {
        screenshot::plain(&self.cells())
    }

    #[track_caller]
    fn shows(&self, text: &str) {
        assert!(self.text().contains(text), "{text:?} is not in\n{}", self.text());
    }

    #[track_caller]
    fn hides(&self, text: &str) {
        assert!(!self.text().contains(text), "{text:?} is in\n{}", self.text());
    }
}
