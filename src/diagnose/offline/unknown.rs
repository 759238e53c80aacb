//! What can be said of a failure that no signature knows: what a program said as it gave up, the first error of every
//! file, units that failed, and how far each log went.

use std::collections::{BTreeMap, BTreeSet};

use super::sound::{
    headless, is_conflict, is_faint, is_field, is_tally, is_there, is_typed, is_vague, loudness, reason, says_error,
};
use super::{Located, advice, plain, text_of};
use crate::diagnose::line::{CAPTURE_LIMIT, WHY, cut, innermost, quoted};
use crate::diagnose::matcher::{EVIDENCE_LIMIT, Passed};
use crate::model::cause::{CARRIERS, UNKNOWN};
use crate::model::event::{Finding, Level, LogLine};

/// Behind everything that is known.
const RANK: u32 = 99;

/// Files of which the first error is kept, and bytes of it.
const FILES: usize = 200;
const TEXT_LIMIT: usize = 400;
/// An error that so many lines come after was not the last word.
const HORIZON: u64 = 40;
/// So few lines were chosen by somebody: what complains in them is what they are about, whoever says it. In a longer log
/// of a node something complains all the time.
pub(super) const EXCERPT: u64 = 60;
/// So few lines are quoted as they stand, where no program ends in them: who cut them out left in only what matters.
pub(super) const FEW: u64 = 6;
/// As loud as what is told beside findings that are known: an error, or words that say what is wrong and that it is.
const LOUD: u32 = 3;
/// Beside so many there is no room for less.
const FULL: usize = 3;
/// How a finding begins that quotes: where nothing is known, and beside what is.
const IN_ITS_OWN_WORDS: &str = "No signature knows this failure; in its own words: ";
const BESIDE: &str = "No signature knows what else is said: ";
/// Where no sentence ends; the last is how Ansible puts an answer in YAML below the task that failed.
const ENDS_INSIDE: &[&str] = &[",", ":", "=>"];
/// Bytes of words that can be understood by themselves.
const ENOUGH: usize = 400;
/// Bytes by which an error is known again.
const ALIKE: usize = 20;
/// Units of which it is kept that they failed.
const UNITS: usize = 100;
const FAILED_UNIT: &str = ".service: Failed with result";

/// A line and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    pub line: u64,
    pub text: String,
}

#[derive(Debug, Clone, Default)]
pub struct Unknown {
    /// By file, the first line that speaks of an error.
    pub first_errors: BTreeMap<String, Sighting>,
    /// As systemd calls them.
    pub failed_units: BTreeSet<String>,
    /// By file, its last line.
    pub last_lines: BTreeMap<String, Sighting>,
    /// Whether the log that is being read has said an error.
    erred: bool,
    /// What it says, as long as it is a few lines, and what signatures know of it.
    few: Vec<Said>,
    /// What it was given up with, and the first of the errors at its end.
    fatal: Option<Words>,
    error: Option<Words>,
    /// What complains in it, as long as it is an excerpt.
    complaints: Vec<Words>,
    /// Of the logs before it, what the first one was given up with, and whether a signature knows it.
    given_up: Option<(Located, bool)>,
    /// The first excerpt that complains.
    excerpt: Option<Excerpt>,
}

/// A line of a few.
#[derive(Debug, Clone)]
struct Said {
    number: u64,
    text: String,
    known: bool,
}

/// A log of so few lines that somebody chose them.
#[derive(Debug, Clone)]
struct Excerpt {
    file: String,
    complaints: Vec<Words>,
    /// All its lines, when they are a few.
    few: Vec<Said>,
    /// Whether a program ends in it.
    ends: bool,
}

/// A line that says what is wrong, and how loud.
#[derive(Debug, Clone)]
struct Words {
    number: u64,
    source: String,
    line: LogLine,
    severity: Level,
    loud: u32,
    /// Whether a signature knows them.
    known: bool,
}

impl Unknown {
    pub(super) fn look(&mut self, file: &str, number: u64, line: &[u8]) {
        if self.erred || self.first_errors.len() >= FILES {
            return;
        }
        if says_error(line) {
            self.erred = true;
            self.first_errors.insert(file.to_owned(), sighting(number, line));
        }
    }

    pub(super) fn look_closer(&mut self, line: &LogLine) {
        if let Some((unit, _)) = line.text.split_once(FAILED_UNIT)
            && self.failed_units.len() < UNITS
        {
            self.failed_units.insert(unit.rsplit(' ').next().unwrap_or(unit).to_owned());
        }
    }

    /// A line with which a program ends ([`super::sound::ends`]), for good when `how` is an error, and whether a signature
    /// knows it.
    pub(super) fn last_words(&mut self, how: Level, source: &str, number: u64, line: &LogLine, known: bool) {
        let after = |first: &Words| number > first.number + HORIZON;
        let place = match how {
            _ if innermost(&line.text).is_empty() => return,
            Level::Error => &mut self.fatal,
            _ if self.error.as_ref().is_none_or(after) => &mut self.error,
            _ => return,
        };
        *place = Some(Words { known, ..Words::new(how, source, number, line.clone()) });
    }

    /// What a program ended with before is over. Words that no signature knows belong to no phase.
    pub(super) fn over(&mut self, passed: Passed) {
        let over = |words: &mut Words| passed == Passed::All || words.known;
        for words in [&mut self.fatal, &mut self.error] {
            words.take_if(over);
        }
        self.complaints.retain_mut(|words| !over(words));
    }

    /// Whether a line may be what an excerpt is about.
    pub(super) fn complains(line: &[u8]) -> bool {
        // Heads of tables name what can be wrong, and so does who types a command.
        let idle = || is_typed(line) || is_tally(line) || is_there(line) || is_conflict(line) || is_field(line);
        !idle() && line.iter().any(u8::is_ascii_lowercase) && (loudness(line) > 0 || is_faint(line))
    }

    /// A line of an excerpt, and whether signatures know it.
    pub(super) fn say(&mut self, number: u64, line: &[u8], known: bool) {
        if number <= FEW && !is_typed(line) && line.iter().any(u8::is_ascii_lowercase) {
            self.few.push(Said { number, text: plain(headless(text_of(line).trim())), known });
        }
    }

    /// A line that [`Self::complains`] and that no signature knows.
    pub(super) fn complaint(&mut self, how: Option<Level>, source: &str, number: u64, line: LogLine) {
        self.complaints.push(Words::new(how.unwrap_or_default(), source, number, line));
    }

    /// The line after the last words, when these break off in the middle of a sentence. Whether it goes on with a complaint.
    pub(super) fn go_on(&mut self, number: u64, line: &[u8]) -> bool {
        let breaks_off = |words: &&mut Words| {
            words.number + 1 == number && ENDS_INSIDE.iter().any(|end| words.line.text.trim_end().ends_with(end))
        };
        let go_on = |words: &mut Words| {
            words.line.text = format!("{} {}", words.line.text.trim_end(), headless(text_of(line).trim()));
            words.loud = words.loud.max(loudness(line));
        };
        self.fatal.iter_mut().chain(&mut self.error).filter(breaks_off).for_each(go_on);
        self.complaints.last_mut().filter(breaks_off).map(go_on).is_some()
    }

    /// A log is over.
    pub(super) fn end(&mut self, file: &str, number: u64, line: &[u8]) {
        let (fatal, error) = (self.fatal.take(), self.error.take());
        let (complaints, mut few) = (std::mem::take(&mut self.complaints), std::mem::take(&mut self.few));
        if number <= EXCERPT && self.excerpt.is_none() && !complaints.is_empty() {
            few.retain(|_| number <= FEW);
            let ends = fatal.is_some() || error.is_some();
            self.excerpt = Some(Excerpt { file: file.to_owned(), complaints, few, ends });
        }
        self.erred = false;
        let error = error.filter(|first| number <= first.number + HORIZON);
        let says_why = |words: &Words| !is_vague(innermost(&words.line.text));
        let chosen = fatal.clone().filter(says_why).or(error.filter(says_why)).or(fatal);
        if let Some(words) = chosen
            && self.given_up.as_ref().is_none_or(|(known, _)| words.severity > known.finding.severity)
        {
            let (number, why, known) = (words.number, words.why(), words.known);
            self.given_up = Some((Located::new(words.finding(why), file, number), known));
        }
        if self.last_lines.len() < FILES {
            self.last_lines.insert(file.to_owned(), sighting(number, line));
        }
    }

    /// The finding that says in a program's own words what no signature knows, beside those that are `known`.
    pub(super) fn finding(&mut self, known: &[Located], files: usize) -> Option<Located> {
        let serious = || known.iter().map(|found| &found.finding).filter(|found| found.severity > Level::Info);
        let worst = serious().map(|found| found.severity).max();
        let least = if worst.is_none() { u32::from(!known.is_empty()) } else { LOUD - u32::from(known.len() < FULL) };
        let excerpt = self.excerpt.take().filter(|_| files == 1);
        let complaint = excerpt.and_then(|excerpt| excerpt.rest(known)).filter(|(_, loud)| *loud >= least);
        // Where all that is known only says that something is stuck or over, they may say why.
        let stuck = serious().all(|found| found.rank >= CARRIERS);
        let says_why = |words: &Located| stuck && loudness(words.finding.line.as_bytes()) >= LOUD;
        let given_up = self.given_up.take().filter(|(words, known)| worst.is_none() || says_why(words) && !known);
        let given_up = given_up
            .map(|(words, _)| words)
            .filter(|words| !is_told(&words.file, words.line, &words.finding.line, known));
        let mut words = complaint.map(|(words, _)| words).or(given_up)?;
        if let Some(worst) = worst {
            words.finding.severity = if says_why(&words) { worst } else { Level::Info };
        }
        if !known.is_empty() {
            words.finding.title = words.finding.title.replacen(IN_ITS_OWN_WORDS, BESIDE, 1);
        }
        Some(words)
    }
}

impl Excerpt {
    /// What is said in it beside what is `known`, and how loud.
    fn rest(mut self, known: &[Located]) -> Option<(Located, u32)> {
        let is_told = |number: u64, text: &str| is_told(&self.file, number, text, known);
        self.complaints.retain(|words| !is_told(words.number, &words.line.text));
        let (line, mut finding, loud) = loudest(self.complaints)?;
        // Where nothing is known the words with which a program ends say it all.
        self.few.retain(
            |said| if known.is_empty() { !self.ends } else { !said.known && !is_told(said.number, &said.text) },
        );
        self.few.dedup_by(|one, other| one.text == other.text);
        let few = self.few.iter().map(|said| said.text.as_str()).collect::<Vec<_>>().join("; ");
        if (1..=CAPTURE_LIMIT).contains(&few.len()) {
            finding.title = format!("{IN_ITS_OWN_WORDS}{few}");
        }
        Some((Located::new(finding, &self.file, line), loud))
    }
}

/// Whether words of a file are among what is `known`. What a program says of an error is often said once more by the one
/// that called it.
fn is_told(file: &str, line: u64, text: &str, known: &[Located]) -> bool {
    let end = text.rsplit(": ").next().unwrap_or_default();
    let same_end = |known: &Located| end.len() >= ALIKE && known.finding.title.contains(end);
    known.iter().any(|known| known.file == file && known.line == line || same_end(known))
}

impl Words {
    /// `how` a program ends with them: an error for good, a warning perhaps, otherwise not at all.
    fn new(how: Level, source: &str, number: u64, line: LogLine) -> Self {
        let (fatal, error) = (how >= Level::Error, how >= Level::Warn || line.level >= Level::Error);
        let loud = loudness(line.text.as_bytes()) + 2 * u32::from(error) + u32::from(fatal);
        let severity = if fatal { Level::Error } else { Level::Info };
        Self { number, source: source.to_owned(), line, severity, loud, known: false }
    }

    fn why(&self) -> String {
        quoted(&plain(&reason(&self.line.text)), CAPTURE_LIMIT)
    }

    fn loud(&self) -> u32 {
        if is_vague(innermost(&reason(&self.line.text))) { self.loud / 2 } else { self.loud }
    }

    fn finding(self, why: String) -> Finding {
        Finding {
            id: UNKNOWN.to_owned(),
            signature: UNKNOWN.to_owned(),
            title: format!("{IN_ITS_OWN_WORDS}{why}"),
            next: advice::on(&why).map(|advice| format!("{advice}; `bartizan signature new` makes a signature of it")),
            severity: self.severity,
            captures: [(WHY.to_owned(), why)].into(),
            source: self.source,
            unit: self.line.unit,
            at: self.line.at,
            line: cut(&self.line.text, EVIDENCE_LIMIT).to_owned(),
            line_number: Some(self.number),
            checklist: None,
            recovery: None,
            rank: RANK,
            explained_by: None,
        }
    }
}

/// Of the loudest of these (the first of such) its line and its finding, and how loud it is. What is too short to be
/// understood by itself is said with what the others say.
fn loudest(mut complaints: Vec<Words>) -> Option<(u64, Finding, u32)> {
    if complaints.iter().any(|words| words.loud > 0) {
        complaints.retain(|words| words.loud > 0);
    }
    complaints.sort_by_cached_key(|words| std::cmp::Reverse(words.loud()));
    let (mut said, mut known, mut length) = (Vec::new(), BTreeSet::new(), 0);
    for why in complaints.iter().map(Words::why) {
        let letters: String = why.chars().filter(|letter| letter.is_alphabetic()).collect();
        let more = length < ENOUGH && length + why.len() <= CAPTURE_LIMIT && known.insert(letters);
        if more || said.is_empty() {
            length += why.len();
            said.push(why);
        }
    }
    let loudest = complaints.into_iter().next()?;
    let (number, loud) = (loudest.number, loudest.loud());
    Some((number, loudest.finding(said.join("; ")), loud))
}

fn sighting(line: u64, text: &[u8]) -> Sighting {
    let kept = text.get(..text.len().min(TEXT_LIMIT)).unwrap_or(text);
    Sighting { line, text: plain(&String::from_utf8_lossy(kept)) }
}
