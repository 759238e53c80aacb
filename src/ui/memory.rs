//! What the screen was like when it was left, for the next time: what is shown and how, and where the operator was.

use serde::{Deserialize, Serialize};

use crate::model::run::RunModel;

use super::layout::{PaneId, Shape};
use super::logs::{LogView, Mode};
use super::screen::Screen;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Memory {
    /// The theme that was switched to.
    pub theme: Option<String>,
    pub wrap: bool,
    pub times: bool,
    pub mouse: bool,
    /// The run that the rest is about.
    pub run: String,
    pub pane: Option<PaneId>,
    pub zoom: bool,
    /// The log in view, and its filter.
    pub source: Option<String>,
    pub filter: String,
    /// The line that was read, when the log was paused, and the mark.
    pub line: Option<u64>,
    pub mark: Option<u64>,
    pub shape: Shape,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            theme: None,
            wrap: false,
            times: true,
            mouse: false,
            run: String::new(),
            pane: None,
            zoom: false,
            source: None,
            filter: String::new(),
            line: None,
            mark: None,
            shape: Shape::default(),
        }
    }
}

impl Memory {
    /// Of a screen as it is.
    pub fn of(screen: &Screen, model: &RunModel, theme: Option<String>) -> Self {
        let line = match screen.log.mode {
            Mode::Paused { cursor, .. } => Some(cursor),
            Mode::Following => None,
        };
        Self {
            theme,
            wrap: screen.log.wrap,
            times: screen.log.times,
            mouse: screen.mouse,
            run: model.run.clone(),
            pane: screen.focus,
            zoom: screen.zoom,
            source: screen.log.chosen.clone().or_else(|| line.map(|_| screen.log.source().to_owned())),
            filter: screen.log.filter.as_ref().map_or_else(String::new, |filter| filter.text.clone()),
            line,
            mark: screen.log.mark,
            shape: screen.shape.clone(),
        }
    }

    /// Make a screen as it was. Where the operator was counts for the same run only.
    pub fn restore(self, screen: &mut Screen, model: &RunModel) {
        screen.log.wrap = self.wrap;
        screen.log.times = self.times;
        screen.mouse = self.mouse;
        screen.shape = self.shape;
        if self.run != model.run || self.run.is_empty() {
            return;
        }
        screen.focus = self.pane;
        screen.zoom = self.zoom;
        let known = |source: &String| LogView::sources(model).contains(source);
        let source = self.source.filter(known);
        screen.log.choose(source.clone());
        if let (Some(source), Some(line)) = (source, self.line) {
            let height = screen.rows_in(model, PaneId::Journal);
            screen.log.show(&source, line, height);
            screen.log.mark = self.mark;
        }
        if !self.filter.is_empty() {
            screen.log.set_filter(&self.filter);
        }
    }

    /// # Errors
    /// When the text is no such file.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// # Errors
    /// None that is known: all of it has a form in TOML.
    pub fn write(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}
