//! Lines in, findings out. Pure: no clock but the lines' own times, no I/O.
//!
//! One prefilter over all patterns says which signatures may match; only then are places, captures and relations looked
//! at. A line that nobody knows costs one pass over a small table.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use foldhash::quality::RandomState;
use jiff::Timestamp;

use super::line::{
    CAPTURE_LIMIT, Captures, MARKS, behind_mirrors, captures, cut, decoded, goes_on, is_mirrors_part, shortened,
};
use super::open::{Opens, Waiting, Waitings, over};
use super::place::{anywhere, within};
use super::prefilter::Owner;
use super::said::{Evidence, Key, Known, Said};
use super::signature::{Catalogue, Signature};
use super::{observed, rank};
use crate::model::cause::likeliest_first;
use crate::model::event::{Data, Finding, ImageState, Level, LogLine, Observed, SyncEvent};

/// Lines of the same unit in which a carrier looks for its cause.
pub(super) const WINDOW: usize = 5;
/// Bytes of a line that are looked at.
const LINE_LIMIT: usize = 16 * 1024;
/// Bytes of an evidence line that are kept.
pub(super) const EVIDENCE_LIMIT: usize = 4000;
/// Units that are remembered, and findings that can be open or waiting at once: what hostile input can cost.
const UNIT_LIMIT: usize = 1000;
pub(super) const FINDING_LIMIT: usize = 2000;

/// Where [`Matcher::feed_error`] says that its lines come from.
pub const STEP: &str = "step";
/// `.openshift_install.log`: what it says at level error, it says at the end.
const INSTALLER: &str = "installer";
/// The image sync.
const SYNC: &str = "sync";
/// Where observed states come from.
pub const CLUSTER: &str = "cluster";

/// Holds lines against the catalogue and remembers what is open.
#[derive(Debug)]
pub struct Matcher {
    pub(super) catalogue: Arc<Catalogue>,
    units: HashMap<String, HashMap<String, Unit, RandomState>, RandomState>,
    unit_count: usize,
    pub(super) waiting: Waitings,
    pub(super) open: Opens,
    /// The first that waited when a line said that it was over, and that line; and what is normal, which none need say.
    pub(super) faded: Vec<(Finding, Option<String>)>,
    /// When the next lasting one of `waiting` is due.
    due: Option<Timestamp>,
    pub(super) state: observed::State,
    said: Said,
    pub(super) passed: Option<Passed>,
}

/// What a milestone says of earlier trouble of its own place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Passed {
    /// That of some phases is over, as far as signatures tell which it belongs to.
    Phases,
    All,
}

#[derive(Debug, Default)]
pub(super) struct Unit {
    pub window: VecDeque<String>,
    /// Findings that a line of the window was evidence of, with how many lines ago.
    pub causes: VecDeque<(u64, String)>,
    pub lines: u64,
    pub milestone: Option<Arc<str>>,
}

/// A line as signatures see it.
pub(super) struct Seen<'a> {
    pub source: &'a str,
    pub unit: &'a str,
    pub text: &'a str,
    pub at: Timestamp,
    pub number: Option<u64>,
    /// Said of what has failed for good: there is nothing to wait for.
    pub last_word: bool,
}

impl<'a> Seen<'a> {
    pub fn new(source: &'a str, unit: &'a str, text: &'a str, at: Timestamp, level: Level) -> Self {
        let unit = unit.strip_suffix(".service").unwrap_or(unit);
        let last_word = (source == INSTALLER || anywhere(source)) && level >= Level::Error;
        Self { source, unit, text, at, number: None, last_word }
    }

    /// Whether what it says depends on the line before it: behind a mirror on a line of its own, or the rest of an error.
    fn goes_on(&self) -> bool {
        is_mirrors_part(self.text) || goes_on(self.text)
    }
}

impl Matcher {
    pub fn new(catalogue: &Catalogue) -> Self {
        Self {
            catalogue: Arc::new(catalogue.clone()),
            units: HashMap::default(),
            unit_count: 0,
            waiting: BTreeMap::new(),
            open: BTreeMap::new(),
            faded: Vec::new(),
            due: None,
            state: observed::State::default(),
            said: Said::default(),
            passed: None,
        }
    }

    /// Start over with another log.
    pub(super) fn forget(&mut self) {
        self.units.clear();
        self.unit_count = 0;
        self.waiting.clear();
        self.open.clear();
        self.faded.clear();
        self.due = None;
        self.state = observed::State::default();
        self.said.forget();
        self.passed = None;
    }

    /// What, since this was asked, a line has said to be over.
    pub(super) fn take_passed(&mut self) -> Option<Passed> {
        self.passed.take()
    }

    /// The signatures that it knows.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Findings that are open now, causes first.
    pub fn open(&self) -> Vec<&Finding> {
        let mut open: Vec<&Finding> = self.open.values().map(|open| &open.finding).collect();
        likeliest_first(&mut open, |finding| finding);
        open
    }

    /// One line of a log. `number` is its place in the source, when it is in the segments.
    pub fn feed(&mut self, source: &str, line: &LogLine, number: Option<u64>) -> Vec<Data> {
        let mut told = Vec::new();
        if self.due.is_some_and(|due| line.at >= due) {
            told.extend(self.tick(line.at));
        }
        let mut seen = Seen { number, ..Seen::new(source, &line.unit, &line.text, line.at, line.level) };
        let other = self.otherwise(&seen);
        let may_match = |text: &str| self.catalogue.prefilter.may_match(text.as_bytes());
        let remembered = if seen.goes_on() {
            None
        } else if may_match(&line.text) || other.as_deref().is_some_and(may_match) {
            Some(self.said.of(&seen))
        } else {
            self.pass_by(&seen, None);
            return told;
        };
        let (key, known) = remembered.unzip();
        let text = decoded(cut(&line.text, LINE_LIMIT));
        seen.text = &text;
        let begun = if goes_on(&text) { self.previous(&seen) } else { None };
        let whole = begun.map(|begun| format!("{begun} {}", text.trim_start()));
        if let Some(whole) = &whole {
            seen.text = whole;
        }
        let evidence = match known.flatten().filter(|known| self.still_known(known, &seen, &mut told)) {
            Some(known) => known,
            None => self.look(&seen, key, &mut told),
        };
        self.keep_causes(&seen, &evidence);
        self.remember(&seen);
        told
    }

    /// A line as patterns may want to see it as well: with the program's name before it; what Terraform told
    /// openshift-install with the mark of that, or without it.
    fn otherwise(&self, seen: &Seen<'_>) -> Option<String> {
        let [mark, _] = MARKS;
        if seen.source == INSTALLER && seen.last_word && seen.text.starts_with("Error: ") {
            return Some(format!("{mark}{}", seen.text));
        }
        let unmarked = MARKS.iter().find_map(|mark| seen.text.strip_prefix(mark)).map(str::to_owned);
        unmarked.or_else(|| self.catalogue.prefilter.tagged(seen.unit, seen.text))
    }

    /// The line of the same unit before this one.
    fn previous(&self, seen: &Seen<'_>) -> Option<&str> {
        self.unit(seen)?.window.back().map(String::as_str)
    }

    /// A line like one that was understood before: what it is evidence of, when that goes on, which is noted. What
    /// only later lines may need of it is left to [`Self::pass_by`].
    pub(super) fn recall(&mut self, seen: &Seen<'_>) -> Option<(Known, Vec<Data>)> {
        if seen.goes_on() || self.due.is_some_and(|due| seen.at >= due) {
            return None;
        }
        let known = self.said.of(seen).1?;
        let mut told = Vec::new();
        self.still_known(&known, seen, &mut told).then_some((known, told))
    }

    /// A line that says nothing new: only what comes after it may need it.
    pub(super) fn pass_by(&mut self, seen: &Seen<'_>, evidence: Option<&[Evidence]>) {
        let text = decoded(cut(seen.text, LINE_LIMIT));
        let seen = Seen { text: &text, ..*seen };
        self.keep_causes(&seen, evidence.unwrap_or_default());
        self.remember(&seen);
    }

    /// The error chain of a step that failed, outermost first. There is no grace for what has failed already.
    pub fn feed_error(&mut self, step: &str, causes: &[String], at: Timestamp) -> Vec<Data> {
        let text = causes.join(": ");
        let mut told = Vec::new();
        let text = cut(&text, LINE_LIMIT);
        let seen = Seen { source: STEP, unit: step, text, at, number: None, last_word: true };
        self.look(&seen, None, &mut told);
        told
    }

    /// A step ended well: what was found in its errors is over.
    pub fn feed_step_done(&mut self, step: &str) -> Vec<Data> {
        let mut told = Vec::new();
        self.end(&mut told, &format!("{step} is done"), |finding, _| finding.source == STEP && finding.unit == step);
        told
    }

    /// The state of something alive.
    pub fn feed_observed(&mut self, what: &Observed, at: Timestamp) -> Vec<Data> {
        observed::feed(self, what, at)
    }

    /// What the image sync says of an image.
    pub fn feed_sync(&mut self, what: &SyncEvent, at: Timestamp) -> Vec<Data> {
        let mut told = Vec::new();
        match what {
            SyncEvent::ImageState { image, state: ImageState::Failed { side, why, .. }, .. } => {
                let text = format!("{side}: {why}");
                let (unit, text) = (format!("image:{image}"), cut(&text, LINE_LIMIT));
                self.look(
                    &Seen { source: SYNC, unit: &unit, text, at, number: None, last_word: true },
                    None,
                    &mut told,
                );
            }
            SyncEvent::ImageState {
                image,
                state: ImageState::Done | ImageState::Present | ImageState::Mounted,
                ..
            } => {
                let unit = format!("image:{image}");
                let mine = |finding: &Finding| finding.source == SYNC && finding.unit == unit;
                self.end(&mut told, &format!("{image} is in the mirror"), |finding, _| mine(finding));
            }
            SyncEvent::Proven { missing, .. } if missing.is_empty() => {
                self.end(&mut told, "every digest answers in the mirror", |finding, _| finding.source == SYNC);
            }
            SyncEvent::ImageState { .. }
            | SyncEvent::Driven { .. }
            | SyncEvent::Moved { .. }
            | SyncEvent::Planned { .. }
            | SyncEvent::Progress { .. }
            | SyncEvent::Retry { .. }
            | SyncEvent::Proven { .. } => {}
        }
        told
    }

    /// Time passes. Call it once a second or so, with the time of the newest line when a log is read afterwards.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Data> {
        let signatures = &self.catalogue.signatures;
        let lasting = |waiting: &Waiting| signatures.get(waiting.signature).filter(|signature| signature.lasts);
        let due: Vec<String> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| lasting(waiting).is_some_and(|known| over(waiting.first, now, known.grace)))
            .map(|(id, _)| id.clone())
            .collect();
        let mut told = Vec::new();
        for id in due {
            if let Some(waiting) = self.waiting.remove(&id) {
                self.raise(waiting.signature, waiting.finding, waiting.milestone, now, &mut told);
            }
        }
        self.set_due();
        told
    }

    pub(super) fn set_due(&mut self) {
        let signatures = &self.catalogue.signatures;
        self.due = self
            .waiting
            .values()
            .filter_map(|waiting| {
                let signature = signatures.get(waiting.signature).filter(|signature| signature.lasts)?;
                waiting.first.checked_add(signature.grace).ok()
            })
            .min();
    }

    /// A state that was observed, as a line. What this unit's earlier states meant and this one does not is over.
    pub(super) fn feed_state(&mut self, unit: &str, text: &str, at: Timestamp) -> Vec<Data> {
        let mut told = Vec::new();
        let text = cut(text, LINE_LIMIT);
        let seen = Seen { source: CLUSTER, unit, text, at, number: None, last_word: false };
        let evidence = if text.is_empty() { Known::default() } else { self.look(&seen, None, &mut told) };
        let still = |id: &String| evidence.iter().any(|(_, known)| known == id);
        let mine = |finding: &Finding| finding.source == CLUSTER && finding.unit == unit && !still(&finding.id);
        self.end(&mut told, &format!("{unit} changed"), |finding, _| mine(finding));
        told
    }

    /// Classify a line, raise and clear. Gives the findings that it is evidence of; `key` is what it is remembered by.
    fn look(&mut self, seen: &Seen<'_>, key: Option<Key>, told: &mut Vec<Data>) -> Known {
        let other = self.otherwise(seen);
        // One of the two stands in the other.
        let longer = other.as_deref().filter(|other| other.len() > seen.text.len()).unwrap_or(seen.text);
        let candidates = self.catalogue.prefilter.candidates(longer);
        if candidates.is_empty() && !seen.goes_on() {
            return Known::default();
        }
        let mut texts = vec![seen.text];
        texts.extend(other.as_deref());
        self.look_closer(seen, &texts, &candidates, key, told)
    }

    fn keep_causes(&mut self, seen: &Seen<'_>, evidence: &[Evidence]) {
        if evidence.is_empty() {
            return;
        }
        let Some(unit) = self.unit_mut(seen) else { return };
        unit.causes.extend(evidence.iter().map(|(_, id)| (unit.lines, id.clone())));
        while unit.causes.len() > WINDOW {
            unit.causes.pop_front();
        }
    }

    /// The findings that a line, in all its `texts`, is evidence of which is not known to be; `key` is what it is remembered
    /// by.
    fn look_closer(
        &mut self,
        seen: &Seen<'_>,
        texts: &[&str],
        candidates: &[usize],
        key: Option<Key>,
        told: &mut Vec<Data>,
    ) -> Known {
        let (mut matched, mut clears, mut milestones) = (Vec::<(usize, &str)>::new(), Vec::new(), Vec::new());
        for text in texts {
            let (hits, clear, passed) = self.touched(seen, candidates, text);
            let known: Vec<usize> = matched.iter().map(|(place, _)| *place).collect();
            matched.extend(hits.into_iter().filter(|place| !known.contains(place)).map(|place| (place, *text)));
            clears.extend(clear);
            let new = passed.into_iter().filter(|place| !milestones.contains(place)).collect::<Vec<_>>();
            milestones.extend(new);
        }
        let mut lasting = clears.is_empty() && milestones.is_empty();
        for place in clears {
            let because = shortened(seen.text, CAPTURE_LIMIT);
            self.end(told, &because, |finding, signature| signature == place && finding.source == seen.source);
        }
        for place in milestones {
            self.pass(place, seen, told);
        }
        let whole = matched.iter().any(|(place, _)| self.signature(*place).is_some_and(|known| known.whole));
        if !whole {
            let mut within = Vec::new();
            for text in behind_mirrors(seen.text, self.previous(seen)) {
                let (hits, ..) = self.touched(seen, &self.catalogue.prefilter.candidates(text), text);
                within.extend(hits.into_iter().map(|place| (place, text)));
            }
            if !within.is_empty() {
                matched = within;
            }
        }
        let hits: Vec<usize> = matched.iter().map(|(place, _)| *place).collect();
        let (speakers, mut evidence) = (rank::speakers(&self.catalogue, &hits), Vec::new());
        for place in &speakers {
            let text = matched.iter().find(|(other, _)| other == place).map_or(seen.text, |(_, text)| text);
            if let Some((id, by_itself)) = self.found(*place, text, seen, told) {
                lasting &= by_itself;
                evidence.push((*place, id));
            }
            // What is reported beside it has no patience of its own.
            if !evidence.first().is_some_and(|(_, id)| self.open.contains_key(id)) {
                lasting &= speakers.len() == 1;
                break;
            }
        }
        let evidence = Known::from(evidence);
        if let Some(key) = key.filter(|_| lasting) {
            self.said.keep(key, Arc::clone(&evidence));
        }
        evidence
    }

    /// Signatures (by place, with their ranks) that match this text here, whatever is open.
    pub(super) fn hits(&self, seen: &Seen<'_>, text: &str) -> Vec<(usize, u32)> {
        let (hits, ..) = self.touched(seen, &self.catalogue.prefilter.candidates(text), text);
        hits.into_iter().filter_map(|place| Some((place, self.signature(place)?.rank))).collect()
    }

    /// Whether all of this is open, or waits and goes on waiting, which is noted.
    fn still_known(&mut self, evidence: &[Evidence], seen: &Seen<'_>, told: &mut Vec<Data>) -> bool {
        let catalogue = Arc::clone(&self.catalogue);
        evidence.iter().all(|(place, id)| {
            catalogue.signatures.get(*place).is_some_and(|signature| self.known(id, signature, seen, told))
        })
    }

    /// Signatures, clearings and milestones (by place in the catalogue) that look at this place and may match.
    fn touched(&self, seen: &Seen<'_>, candidates: &[usize], text: &str) -> (Vec<usize>, Vec<usize>, Vec<usize>) {
        let (mut hits, mut clears, mut milestones) = (Vec::new(), Vec::new(), Vec::new());
        let looks =
            |place: usize| self.signature(place).filter(|signature| within(&signature.places, seen.source, seen.unit));
        for owner in self.catalogue.prefilter.touched(candidates, text) {
            match owner {
                Owner::Signature(place) if looks(place).is_some() && !hits.contains(&place) => hits.push(place),
                Owner::Clears(place) if looks(place).is_some() && !clears.contains(&place) => clears.push(place),
                Owner::Milestone(place) => {
                    let milestone = self.catalogue.milestones.get(place);
                    if milestone.is_some_and(|known| within(&known.places, seen.source, seen.unit)) {
                        milestones.push(place);
                    }
                }
                Owner::Signature(_) | Owner::Clears(_) => {}
            }
        }
        (hits, clears, milestones)
    }

    /// What a line that a signature matches says: of the pattern that catches most, the earlier one when equal.
    pub(super) fn caught(signature: &Signature, text: &str) -> Captures {
        let caught = signature.patterns.iter().filter_map(|pattern| captures(pattern, text)).collect::<Vec<_>>();
        caught.into_iter().rev().max_by_key(BTreeMap::len).unwrap_or_default()
    }

    pub(super) fn signature(&self, place: usize) -> Option<&Signature> {
        self.catalogue.signatures.get(place)
    }

    pub(super) fn unit(&self, seen: &Seen<'_>) -> Option<&Unit> {
        self.units.get(seen.source)?.get(seen.unit)
    }

    pub(super) fn unit_mut(&mut self, seen: &Seen<'_>) -> Option<&mut Unit> {
        if self.unit(seen).is_none() {
            if self.unit_count >= UNIT_LIMIT {
                return None;
            }
            self.unit_count += 1;
            let units = self.units.entry(seen.source.to_owned()).or_default();
            units.insert(seen.unit.to_owned(), Unit::default());
        }
        self.units.get_mut(seen.source)?.get_mut(seen.unit)
    }

    /// Put the line into its unit's window.
    fn remember(&mut self, seen: &Seen<'_>) {
        let Some(unit) = self.unit_mut(seen) else { return };
        unit.lines += 1;
        let mut kept =
            if unit.window.len() >= WINDOW { unit.window.pop_front().unwrap_or_default() } else { String::new() };
        kept.clear();
        kept.push_str(cut(seen.text, EVIDENCE_LIMIT));
        unit.window.push_back(kept);
    }
}
