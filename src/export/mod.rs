//! A recorded run made into something that can be handed on: a picture, a film, a page.
//!
//! All of them show what the cockpit would have shown, made from the record by the same `draw`. What goes in has passed the
//! scrubber, so that nothing that comes out has to be searched again. Nothing here writes a file.

pub mod cast;
pub mod chart;
pub mod report;

use jiff::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::model::event::{Data, Event, LogLine, Outcome, RunOutcome};
use crate::model::{RunModel, reduce};
use crate::record::scrub::{Removal, Scrub};
use crate::ui::glyph::Glyphs;
use crate::ui::keymap::Keymap;
use crate::ui::layout::Layouts;
use crate::ui::logs::{Ask, Numbered};
use crate::ui::theme::{Depth, Theme};
use crate::ui::{self, Access, Effect, Input, Logs, Screen, Texts, UiError};

/// Events and lines of a run, cleaned.
pub struct Recording {
    pub events: Vec<Event>,
    logs: Box<dyn Logs>,
    scrub: Scrub,
}

impl Recording {
    /// `logs` are cleaned as they are read.
    pub fn new(events: Vec<Event>, logs: Box<dyn Logs>, mut scrub: Scrub) -> Self {
        let events = events.into_iter().map(|event| clean(event, &mut scrub)).collect();
        Self { events, logs, scrub }
    }

    /// What was taken out so far.
    pub fn removed(&self) -> Vec<Removal> {
        self.scrub.removed()
    }

    /// The run as it ended, or as far as it came.
    pub fn model(&self) -> RunModel {
        let mut model = RunModel::default();
        self.events.iter().for_each(|event| reduce(&mut model, event));
        model
    }

    /// Where to look when nobody says: the first failure if there was one, else the end.
    pub fn telling(&self) -> usize {
        let failure = |event: &Event| {
            matches!(
                event.data,
                Data::StepEnded { outcome: Outcome::Failed { .. }, .. }
                    | Data::RunClosed { outcome: RunOutcome::Failed, .. }
            )
        };
        let found = self.events.iter().position(failure);
        // What was found out about a failure comes right after it.
        let soon = |at: usize| (at + 40).min(self.events.len());
        found.map_or(self.events.len(), soon)
    }
}

fn clean(event: Event, scrub: &mut Scrub) -> Event {
    let Ok(mut value) = serde_json::to_value(&event) else { return event };
    let before = value.clone();
    scrub.json("run.jsonl", &mut value);
    if value == before { event } else { serde_json::from_value(value).unwrap_or(event) }
}

impl Logs for Recording {
    fn read(&mut self, source: &str, first: u64, count: usize) -> Vec<LogLine> {
        let mut lines = self.logs.read(source, first, count);
        for line in &mut lines {
            line.text = self.scrub.text(source, &line.text);
        }
        lines
    }
}

/// How the cockpit looks in a picture.
#[derive(Debug, Clone)]
pub struct Look {
    pub columns: u16,
    pub rows: u16,
    pub theme: String,
    pub ascii: bool,
}

/// The cockpit without a terminal.
pub struct Stage {
    screen: Screen,
    theme: Theme,
    model: RunModel,
    area: Rect,
}

impl Stage {
    /// # Errors
    /// When there is no such theme.
    pub fn new(look: &Look, texts: Texts) -> Result<Self, UiError> {
        let glyphs = if look.ascii { Glyphs::ASCII } else { Glyphs::UNICODE };
        let mut screen = Screen::new(Keymap::load(None)?, Layouts::embedded()?, glyphs);
        screen.access = Access::Replay;
        screen.texts = texts;
        screen.size = (look.columns, look.rows);
        let theme = Theme::load(&look.theme, Depth::True)?;
        Ok(Self { screen, theme, model: RunModel::default(), area: Rect::new(0, 0, look.columns, look.rows) })
    }

    /// One event further.
    pub fn fold(&mut self, event: &Event) {
        reduce(&mut self.model, event);
    }

    pub fn model(&self) -> &RunModel {
        &self.model
    }

    /// What the screen shows at `now`.
    pub fn frame(&mut self, logs: &mut dyn Logs, now: Timestamp) -> Buffer {
        let mut queue = vec![Input::Tick(now)];
        // Each answer may ask for a stretch before it; what is on the screen needs few of them.
        let mut reads = 8;
        while let Some(input) = queue.pop() {
            for effect in ui::update(&mut self.screen, &self.model, input) {
                if let Effect::Log(Ask::Read { source, first, count }) = effect
                    && reads > 0
                {
                    reads -= 1;
                    let lines = logs.read(&source, first, count);
                    let lines = lines.into_iter().map(|line| Numbered { line, home: None }).collect();
                    queue.push(Input::Lines { source, first, lines });
                }
            }
        }
        let mut buffer = Buffer::empty(self.area);
        ui::render(&self.model, &self.screen, &self.theme, self.area, &mut buffer, now);
        buffer
    }
}

/// The screen after `count` events of a recording.
///
/// # Errors
/// When there is no such theme.
pub fn screen(recording: &mut Recording, look: &Look, texts: Texts, count: usize) -> Result<Buffer, UiError> {
    let mut stage = Stage::new(look, texts)?;
    recording.events.iter().take(count).for_each(|event| stage.fold(event));
    let now = stage.model.now.unwrap_or(Timestamp::UNIX_EPOCH);
    Ok(stage.frame(recording, now))
}
