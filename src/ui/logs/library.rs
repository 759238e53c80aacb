//! The reading side of the logs, off the screen's own task: stretches of lines, all logs by time, the next error, a file.
//!
//! All logs together are one more log, [`ALL`]. Its order is an index that is made when it is first asked for: by the
//! time of the lines, whichever log they are in. What comes later is put behind what was there, so that a line keeps its
//! number. The index knows the level of every line, which makes the way to the next error a walk through memory.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use crate::model::event::{Level, LogLine};
use crate::model::run::RunModel;
use crate::ui::Logs;
use crate::ui::screen::Input;
use crate::ui::search::Filter;
use crate::ui::text;

use super::{ALL, Numbered};

/// Lines read at once where all of a log is read.
const STRETCH: usize = 4_096;
/// Lines of one log that are read along with those wanted rather than asked for apart.
const GAP: u64 = 32;

/// What the screen wants to know of the logs.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// At most `count` lines from number `first` on.
    Read { source: String, first: u64, count: usize },
    /// The next line (or the one before) of at least this level, in any log, by time.
    Level { source: String, number: u64, level: Level, forward: bool },
    /// All lines of a log that pass the filter, into a file of this directory.
    Save { source: String, filter: String, directory: PathBuf },
}

/// Logs by name and how many lines each has, as far as the model knows.
pub type Known = Vec<(String, u64)>;

/// The logs that a person reads.
pub fn known(model: &RunModel) -> Known {
    let read = |name: &str| {
        matches!(name, "installer" | "sync") || name.starts_with("journal:") || name.starts_with("serial:")
    };
    model.logs.iter().filter(|(name, _)| read(name)).map(|(name, log)| (name.clone(), log.lines)).collect()
}

/// A line in the order of all logs.
#[derive(Debug, Clone, Copy)]
struct Place {
    at: Timestamp,
    source: u16,
    level: Level,
    number: u64,
}

pub struct Library {
    logs: Box<dyn Logs>,
    order: Vec<Place>,
    /// Sources by their number in the order, and the lines of each that are in it.
    sources: Vec<(Arc<str>, u64)>,
}

impl Library {
    pub fn new(logs: Box<dyn Logs>) -> Self {
        Self { logs, order: Vec::new(), sources: Vec::new() }
    }

    /// What the screen is to be told.
    pub fn answer(&mut self, ask: Ask, known: &Known) -> Input {
        match ask {
            Ask::Read { source, first, count } => {
                let lines = self.read(&source, first, count, known);
                Input::Lines { source, first, lines }
            }
            Ask::Level { source, number, level, forward } => {
                self.index(known);
                match self.next(&source, number, level, forward) {
                    Some((source, number, merged)) => Input::Found { source, number, merged },
                    None => {
                        let what = if level >= Level::Error { "error" } else { "warning" };
                        let wher = if forward { "after" } else { "before" };
                        Input::Told(Level::Info, format!("no {what} {wher} this line, in any log"))
                    }
                }
            }
            Ask::Save { source, filter, directory } => match self.save(&source, &filter, &directory, known) {
                Ok((path, count)) => {
                    Input::Told(Level::Info, format!("{} lines written to {}", text::exact(count), path.display()))
                }
                Err(error) => Input::Told(Level::Error, format!("{}: {error}", directory.display())),
            },
        }
    }

    fn read(&mut self, source: &str, first: u64, count: usize, known: &Known) -> Vec<Numbered> {
        if source != ALL {
            let lines = self.logs.read(source, first, count);
            return lines.into_iter().map(|line| Numbered { line, home: None }).collect();
        }
        self.index(known);
        let from = usize::try_from(first.saturating_sub(1)).unwrap_or(usize::MAX).min(self.order.len());
        let places =
            self.order.get(from..from.saturating_add(count).min(self.order.len())).unwrap_or_default().to_vec();
        let mut found = self.gather(&places);
        places
            .iter()
            .map_while(|place| {
                let line = found.remove(&(place.source, place.number))?;
                let (name, _) = self.sources.get(usize::from(place.source))?;
                Some(Numbered { line, home: Some((name.clone(), place.number)) })
            })
            .collect()
    }

    /// The lines at these places, neighbours of one log in one reading.
    fn gather(&mut self, places: &[Place]) -> BTreeMap<(u16, u64), LogLine> {
        let mut wanted: Vec<(u16, u64)> = places.iter().map(|place| (place.source, place.number)).collect();
        wanted.sort_unstable();
        let mut found = BTreeMap::new();
        for run in wanted.chunk_by(|one, next| one.0 == next.0 && next.1 - one.1 <= GAP) {
            let (Some((source, first)), Some((_, last))) = (run.first(), run.last()) else { continue };
            let Some((name, _)) = self.sources.get(usize::from(*source)) else { continue };
            let count = usize::try_from(last - first + 1).unwrap_or(0);
            let lines = self.logs.read(name, *first, count);
            found.extend(lines.into_iter().zip(*first..).map(|(line, number)| ((*source, number), line)));
        }
        found
    }

    /// Bring the order of all lines up to what is known.
    fn index(&mut self, known: &Known) {
        let old = self.order.len();
        for (name, lines) in known {
            let source = match self.sources.iter().position(|(known, _)| **known == **name) {
                Some(source) => source,
                None => {
                    self.sources.push((name.as_str().into(), 0));
                    self.sources.len() - 1
                }
            };
            let Ok(number) = u16::try_from(source) else { continue };
            let Some((_, done)) = self.sources.get_mut(source) else { continue };
            while *done < *lines {
                let count = STRETCH.min(usize::try_from(*lines - *done).unwrap_or(STRETCH));
                let read = self.logs.read(name, *done + 1, count);
                if read.is_empty() {
                    // Its file is behind its event; the next time has it.
                    break;
                }
                let places = read.iter().zip(*done + 1..);
                self.order.extend(places.map(|(line, place)| Place {
                    at: line.at,
                    source: number,
                    level: line.level,
                    number: place,
                }));
                *done += read.len() as u64;
            }
        }
        if let Some(new) = self.order.get_mut(old..) {
            new.sort_by_key(|place| place.at);
        }
    }

    /// Source, number there and number among all of the next line of at least this level.
    fn next(&self, source: &str, number: u64, level: Level, forward: bool) -> Option<(String, u64, u64)> {
        let here = if source == ALL {
            usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX)
        } else {
            let source = self.sources.iter().position(|(name, _)| **name == *source)?;
            let of_it = |place: &Place| usize::from(place.source) == source;
            self.order.iter().position(|place| of_it(place) && place.number >= number).unwrap_or(self.order.len())
        };
        let wanted = |place: &Place| place.level >= level;
        let found = if forward {
            let from = here.saturating_add(1);
            self.order.get(from..)?.iter().position(wanted).map(|further| from + further)
        } else {
            self.order.get(..here.min(self.order.len()))?.iter().rposition(wanted)
        }?;
        let place = self.order.get(found)?;
        let (name, _) = self.sources.get(usize::from(place.source))?;
        Some((name.to_string(), place.number, found as u64 + 1))
    }

    fn save(&mut self, source: &str, filter: &str, directory: &Path, known: &Known) -> std::io::Result<(PathBuf, u64)> {
        let filter = Filter::parse(filter);
        std::fs::create_dir_all(directory)?;
        let name: String = source.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let path = directory.join(format!("{name}-{}.log", Timestamp::now().strftime("%Y%m%dT%H%M%S")));
        let mut out = BufWriter::new(std::fs::File::create(&path)?);
        let (mut first, mut count) = (1, 0);
        loop {
            let lines = self.read(source, first, STRETCH, known);
            if lines.is_empty() {
                break;
            }
            first += lines.len() as u64;
            for Numbered { line, home } in lines {
                if filter.as_ref().is_none_or(|filter| filter.passes(&line)) {
                    let home = home.map_or(String::new(), |(source, _)| format!("{source} "));
                    writeln!(out, "{} {home}{} {}", line.at, text::printable(&line.unit), text::printable(&line.text))?;
                    count += 1;
                }
            }
        }
        out.flush()?;
        Ok((path, count))
    }
}
