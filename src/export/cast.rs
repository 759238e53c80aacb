//! A run as a film for asciinema: asciicast v2 (<https://docs.asciinema.org/manual/asciicast/v2/>), drawn from the record.
//!
//! Time goes at one speed throughout, so that what took long looks long.

use std::io::{self, Write};

use jiff::{SignedDuration, Timestamp};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use serde_json::json;

use super::{Look, Recording, Stage};
use crate::ui::screenshot;
use crate::ui::{Texts, UiError};

/// Frames in a second of the film.
const FRAMES: f64 = 8.0;
/// How long the last picture stays, in seconds.
const CURTAIN: f64 = 3.0;

#[derive(Debug, thiserror::Error)]
pub enum CastError {
    #[error("the record holds no events")]
    Empty,
    #[error(transparent)]
    Ui(#[from] UiError),
    #[error("writing the film: {0}")]
    Write(#[from] io::Error),
}

/// What was made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Film {
    pub frames: usize,
    pub seconds: f64,
    /// Times faster than life.
    pub speed: f64,
}

/// Writes `recording` as a film of at most `seconds`; a shorter run plays at its own speed.
///
/// # Errors
/// When there is nothing to show, no such theme, or `out` cannot be written.
pub fn write(
    recording: &mut Recording,
    look: &Look,
    texts: Texts,
    seconds: f64,
    out: &mut impl Write,
) -> Result<Film, CastError> {
    let (Some(first), Some(last)) = (recording.events.first(), recording.events.last()) else {
        return Err(CastError::Empty);
    };
    let (began, ended) = (first.at, last.at);
    let lasted = ended.duration_since(began).as_secs_f64().max(0.0);
    let speed = (lasted / seconds.max(1.0)).max(1.0);
    let mut stage = Stage::new(look, texts)?;
    let events = std::mem::take(&mut recording.events);
    let model = {
        let mut model = crate::model::RunModel::default();
        events.iter().take(1).for_each(|event| crate::model::reduce(&mut model, event));
        model
    };
    let header = json!({
        "version": 2,
        "width": look.columns,
        "height": look.rows,
        "timestamp": began.as_second(),
        "title": format!("bartizan: {}.{} {}, {speed:.0} times life", model.cluster.name, model.cluster.base_domain,
            model.cluster.version),
        "env": { "TERM": "xterm-256color", "SHELL": "/bin/sh" },
    });
    writeln!(out, "{header}")?;
    let mut shown = Buffer::empty(Rect::new(0, 0, look.columns, look.rows));
    let frames = ((lasted / speed) * FRAMES).ceil() as usize;
    let (mut place, mut written) = (0, 0);
    for number in 0..=frames {
        let at = number as f64 / FRAMES;
        let clock = later(began, at * speed).min(ended);
        while let Some(event) = events.get(place).filter(|event| event.at <= clock || number == frames) {
            stage.fold(event);
            place += 1;
        }
        let frame = stage.frame(recording, clock);
        let mut bytes = screenshot::changes(&shown, &frame);
        if written == 0 {
            bytes.insert_str(0, "\u{1b}[?25l\u{1b}[0m\u{1b}[2J\u{1b}[H");
        }
        if !bytes.is_empty() {
            writeln!(out, "{}", json!([at, "o", bytes]))?;
            written += 1;
        }
        shown = frame;
    }
    recording.events = events;
    let end = frames as f64 / FRAMES + CURTAIN;
    writeln!(out, "{}", json!([end, "o", format!("\u{1b}[0m\u{1b}[{};1H\u{1b}[?25h", look.rows)]))?;
    Ok(Film { frames: written, seconds: end, speed })
}

fn later(at: Timestamp, seconds: f64) -> Timestamp {
    at.checked_add(SignedDuration::from_secs_f64(seconds)).unwrap_or(at)
}
