//! What the matcher remembers: findings that are open, those within their grace, and what ends them.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::line::{CAPTURE_LIMIT, Captures, WHY, cut, fill, shortened};
use super::matcher::{EVIDENCE_LIMIT, FINDING_LIMIT, Matcher, Passed, Seen, WINDOW};
use super::place::meant;
use super::rank;
use super::recovery::Recovery;
use super::signature::{Signature, placeholders};
use crate::model::event::{Data, Finding, Level};

/// Lines before this one in which a name may stand that a line leaves open.
const NEAR: usize = 3;
/// A reason shorter than this may be said better by one of so many other lines.
const POOR: usize = 60;
const TRIES: u8 = 3;
/// Findings that are remembered which were over before they were open, or are normal.
const FADED: usize = 3;
/// An open finding is said again at most this often.
const SAY_AGAIN: SignedDuration = SignedDuration::from_secs(30);

/// Seen, but within its grace.
#[derive(Debug)]
pub(super) struct Waiting {
    pub finding: Finding,
    pub signature: usize,
    pub first: Timestamp,
    pub last: Timestamp,
    pub milestone: Option<Arc<str>>,
    tries: u8,
}

#[derive(Debug)]
pub(super) struct Open {
    pub finding: Finding,
    pub signature: usize,
    said: Timestamp,
    times: u64,
    milestone: Option<Arc<str>>,
    tries: u8,
}

impl Waiting {
    /// Seen again at `at`: whether that belongs to what waits, or begins anew.
    fn goes_on(&self, signature: &Signature, at: Timestamp) -> bool {
        at >= self.first && (signature.lasts || !over(self.last, at, signature.grace))
    }
}

/// By id.
pub(super) type Waitings = BTreeMap<String, Waiting>;
pub(super) type Opens = BTreeMap<String, Open>;

impl Matcher {
    /// A finding that somebody else has opened and that is still open.
    pub fn take_up(&mut self, finding: Finding) {
        let place = self.catalogue.place(&finding.signature);
        let Some(signature) = place.filter(|_| self.open.len() < FINDING_LIMIT) else { return };
        let (id, said) = (finding.id.clone(), finding.at);
        self.open.entry(id).or_insert(Open { finding, signature, said, times: 1, milestone: None, tries: 0 });
    }

    /// A signature matched `text`, which is the line or part of it: complete its captures and raise it, unless it is
    /// within its grace. Gives the finding's id, and whether the text by itself says that it is this one.
    pub(super) fn found(
        &mut self,
        place: usize,
        text: &str,
        seen: &Seen<'_>,
        told: &mut Vec<Data>,
    ) -> Option<(String, bool)> {
        let catalogue = Arc::clone(&self.catalogue);
        let signature = catalogue.signatures.get(place)?;
        let is_normal = signature.severity == Level::Debug;
        if is_normal && self.faded.len() >= FADED {
            return None;
        }
        // A log says the same thing thousands of times: what is known already is not worked out again.
        if signature.about.is_empty() && self.known(&signature.id, signature, seen, told) {
            self.say_better(&signature.id, signature, text, seen, told);
            return Some((signature.id.clone(), true));
        }
        let mut captures = Self::said_by(signature, text, seen);
        // The lines before it may name another one the next time.
        let by_itself = signature.about.iter().all(|name| captures.contains_key(name));
        if !signature.about.is_empty() && by_itself {
            let id = self.id(signature, &captures);
            if self.known(&id, signature, seen, told) {
                self.say_better(&id, signature, text, seen, told);
                return Some((id, true));
            }
        }
        let milestone = self.milestone(seen);
        let cause = self.complete(place, signature, seen, &mut captures);
        let id = self.id(signature, &captures);
        let mut finding = Finding {
            id: id.clone(),
            signature: signature.id.clone(),
            title: signature.title_with(&captures, seen.text),
            next: signature.fix_with(&captures, seen.text),
            severity: signature.severity,
            captures,
            source: seen.source.to_owned(),
            unit: seen.unit.to_owned(),
            at: seen.at,
            line: cut(seen.text, EVIDENCE_LIMIT).to_owned(),
            line_number: seen.number,
            checklist: signature.checklist.clone(),
            recovery: None,
            rank: signature.rank,
            explained_by: cause,
        };
        finding.recovery = Recovery::for_finding(&finding).map(|recovery| recovery.id);
        if is_normal {
            if self.faded.iter().all(|(known, _)| known.id != id) {
                self.faded.push((finding, None));
            }
            return None;
        }
        if self.open.contains_key(&id) {
            self.again(&id, milestone, seen.at, told);
        } else if signature.grace.is_zero() || seen.last_word {
            self.waiting.remove(&id);
            self.raise(place, finding, milestone, seen.at, told);
        } else {
            self.wait(place, signature, finding, milestone, seen.at, told);
        }
        Some((id, by_itself))
    }

    /// What a line that a signature matches in `text` says, and where.
    fn said_by(signature: &Signature, text: &str, seen: &Seen<'_>) -> Captures {
        let mut captures = Self::caught(signature, text);
        captures.insert("unit".into(), seen.unit.to_owned());
        captures.insert("source".into(), seen.source.to_owned());
        fill(signature, seen.text, &mut captures);
        captures
    }

    /// The last milestone of the unit that says this.
    fn milestone(&self, seen: &Seen<'_>) -> Option<Arc<str>> {
        self.unit(seen)?.milestone.clone()
    }

    /// What tells a finding of this signature from another.
    fn id(&self, signature: &Signature, captures: &Captures) -> String {
        let about: Vec<&str> =
            signature.about.iter().filter_map(|name| captures.get(name).map(String::as_str)).collect();
        match about.is_empty() || self.open.len() + self.waiting.len() >= FINDING_LIMIT {
            true => signature.id.clone(),
            false => format!("{}:{}", signature.id, about.join(":")),
        }
    }

    /// Whether it is open, or waits and goes on waiting: that is noted, and there is nothing to find out.
    pub(super) fn known(&mut self, id: &str, signature: &Signature, seen: &Seen<'_>, told: &mut Vec<Data>) -> bool {
        if self.open.contains_key(id) {
            self.again(id, self.milestone(seen), seen.at, told);
            return true;
        }
        !seen.last_word && self.still_early(id, signature, self.milestone(seen), seen.at)
    }

    /// Whether it waits already and goes on waiting, which is noted.
    fn still_early(&mut self, id: &str, signature: &Signature, milestone: Option<Arc<str>>, at: Timestamp) -> bool {
        let Some(waiting) = self.waiting.get_mut(id).filter(|waiting| waiting.goes_on(signature, at)) else {
            return false;
        };
        if over(waiting.first, at, signature.grace) {
            return false;
        }
        waiting.last = at;
        waiting.milestone = milestone;
        true
    }

    /// Of a known finding whose line gave hardly a reason, or did not tell which of its causes it is, another line may give
    /// more of one.
    fn say_better(&mut self, id: &str, signature: &Signature, text: &str, seen: &Seen<'_>, told: &mut Vec<Data>) {
        let (finding, tries, open) = match (self.open.get_mut(id), self.waiting.get_mut(id)) {
            (Some(open), _) => (&mut open.finding, &mut open.tries, true),
            (None, Some(waiting)) => (&mut waiting.finding, &mut waiting.tries, false),
            (None, None) => return,
        };
        if *tries == 0 || finding.source != seen.source || finding.unit != seen.unit {
            return;
        }
        let why = finding.captures.get(WHY).map_or("", String::as_str);
        let (before, put_off) = (why.len(), is_put_off(why));
        let poor = (before < POOR || put_off) && placeholders(&signature.title).any(|name| name == WHY);
        let vague = signature.ways() > 0 && signature.way(&finding.captures, &finding.line).is_none();
        if !(poor || vague) {
            return;
        }
        *tries -= 1;
        let captures = Self::said_by(signature, text, seen);
        let why = captures.get(WHY).map_or("", String::as_str);
        let after = why.len();
        let fuller = poor && (after >= before + POOR / 4 || put_off && !why.is_empty() && !is_put_off(why));
        let named = vague && signature.way(&captures, seen.text).is_some();
        if !(fuller || named) {
            return;
        }
        let mut said = finding.captures.clone();
        said.extend(captures);
        finding.next = signature.fix_with(&said, seen.text);
        // A shorter reason may tell the cause, it leaves out names.
        if fuller || after >= before {
            finding.title = signature.title_with(&said, seen.text);
            finding.captures = said;
            finding.line = cut(seen.text, EVIDENCE_LIMIT).to_owned();
            finding.line_number = seen.number;
        }
        finding.recovery = Recovery::for_finding(finding).map(|recovery| recovery.id);
        if open {
            told.push(Data::FindingOpened { finding: finding.clone() });
        }
    }

    /// Look for names that the line left open in the lines before it, and for a carrier in the cause too.
    /// Gives the cause's id.
    fn complete(
        &self,
        place: usize,
        signature: &Signature,
        seen: &Seen<'_>,
        captures: &mut Captures,
    ) -> Option<String> {
        let unit = self.unit(seen)?;
        let near = if signature.carrier { WINDOW } else { NEAR };
        unit.window.iter().rev().take(near).for_each(|line| fill(signature, line, captures));
        if !signature.carrier {
            return None;
        }
        let oldest = unit.lines.saturating_sub(WINDOW as u64);
        let near = unit.causes.iter().rev().take_while(|(line, _)| *line >= oldest);
        let mut causes = near.filter_map(|(_, id)| self.open.get(id));
        // What is named as a consequence of this is no cause of it.
        let cause = &causes.find(|open| !self.catalogue.explains(place, open.signature))?.finding;
        captures.insert("cause".into(), cause.signature.clone());
        for (name, value) in &cause.captures {
            captures.entry(name.clone()).or_insert_with(|| value.clone());
        }
        Some(cause.id.clone())
    }

    /// Seen within its grace: raised when it is still said after that without a pause as long as the grace itself.
    fn wait(
        &mut self,
        place: usize,
        signature: &Signature,
        finding: Finding,
        milestone: Option<Arc<str>>,
        at: Timestamp,
        told: &mut Vec<Data>,
    ) {
        let id = finding.id.clone();
        let full = self.waiting.len() >= FINDING_LIMIT;
        let new = Waiting { finding, signature: place, first: at, last: at, milestone, tries: TRIES };
        match self.waiting.get_mut(&id) {
            Some(waiting) if waiting.goes_on(signature, at) => {
                waiting.last = at;
                waiting.milestone = new.milestone;
                if over(waiting.first, at, signature.grace) {
                    self.waiting.remove(&id);
                    self.raise(place, new.finding, None, at, told);
                }
            }
            None if full => {}
            _ => {
                self.waiting.insert(id, new);
            }
        }
        if signature.lasts {
            self.set_due();
        }
    }

    pub(super) fn raise(
        &mut self,
        place: usize,
        mut finding: Finding,
        milestone: Option<Arc<str>>,
        at: Timestamp,
        told: &mut Vec<Data>,
    ) {
        if self.open.len() >= FINDING_LIMIT {
            return;
        }
        if finding.explained_by.is_none() {
            let cause = rank::explanation(&self.catalogue, &finding, &self.findings());
            finding.explained_by = cause.map(|cause| cause.id.clone());
        }
        told.push(Data::FindingOpened { finding: finding.clone() });
        let id = finding.id.clone();
        self.open.insert(id.clone(), Open { finding, signature: place, said: at, times: 1, milestone, tries: TRIES });
        self.explain_others(&id, told);
    }

    /// A cause that comes after its symptoms still explains them.
    fn explain_others(&mut self, cause: &str, told: &mut Vec<Data>) {
        let (all, Some(known)) = (self.findings(), self.open.get(cause)) else { return };
        let behind: Vec<&str> = rank::behind(&known.finding, &all).map(|finding| finding.id.as_str()).collect();
        let by_it = |(id, open): &(&String, &Open)| {
            open.finding.explained_by.is_none()
                && self.catalogue.explains(known.signature, open.signature)
                && !behind.contains(&id.as_str())
        };
        let explained: Vec<String> = self.open.iter().filter(by_it).map(|(id, _)| id.clone()).collect();
        for id in explained {
            if let Some(open) = self.open.get_mut(&id) {
                open.finding.explained_by = Some(cause.to_owned());
                told.push(Data::FindingOpened { finding: open.finding.clone() });
            }
        }
    }

    fn findings(&self) -> Vec<&Finding> {
        self.open.values().map(|open| &open.finding).collect()
    }

    fn again(&mut self, id: &str, milestone: Option<Arc<str>>, at: Timestamp, told: &mut Vec<Data>) {
        let Some(open) = self.open.get_mut(id) else { return };
        open.times = open.times.saturating_add(1);
        open.milestone = milestone;
        if over(open.said, at, SAY_AGAIN) {
            open.said = at;
            open.finding.captures.insert("times".into(), open.times.to_string());
            told.push(Data::FindingOpened { finding: open.finding.clone() });
        }
    }

    /// Forget what waits and clear what is open, where `which` (given the finding and its signature) says so.
    pub(super) fn end(&mut self, told: &mut Vec<Data>, because: &str, which: impl Fn(&Finding, usize) -> bool) {
        let past = self.waiting.iter().filter(|(_, waiting)| which(&waiting.finding, waiting.signature));
        let past: Vec<String> = past.map(|(id, _)| id.clone()).collect();
        self.fade(past, because);
        let over: Vec<String> = self
            .open
            .iter()
            .filter(|(_, open)| which(&open.finding, open.signature))
            .map(|(id, _)| id.clone())
            .collect();
        self.close(over, because, told);
    }

    fn fade(&mut self, ids: Vec<String>, because: &str) {
        for id in ids {
            let faded = self.waiting.remove(&id).filter(|_| self.faded.len() < FADED);
            self.faded.extend(faded.map(|waiting| (waiting.finding, Some(because.to_owned()))));
        }
    }

    fn close(&mut self, ids: Vec<String>, because: &str, told: &mut Vec<Data>) {
        for id in ids {
            self.open.remove(&id);
            for open in self.open.values_mut().filter(|open| open.finding.explained_by.as_deref() == Some(&id)) {
                open.finding.explained_by = None;
            }
            told.push(Data::FindingCleared { finding: id, because: because.to_owned() });
        }
    }

    /// A milestone was passed: earlier trouble of the places that it ends is over.
    pub(super) fn pass(&mut self, place: usize, seen: &Seen<'_>, told: &mut Vec<Data>) {
        let Some(milestone) = self.catalogue.milestones.get(place).cloned() else { return };
        let all = milestone.phases.is_empty();
        let ended = |finding: &Finding, signature: usize| {
            let same_machine = !finding.source.starts_with("journal:")
                || !seen.source.starts_with("journal:")
                || finding.source == seen.source;
            let phase = self.signature(signature).map(|signature| &signature.phase);
            let of_it = all || phase.is_some_and(|phase| milestone.phases.contains(phase));
            of_it && same_machine && meant(&milestone.ends, &finding.source, &finding.unit)
        };
        let mine = |finding: &Finding| all && finding.source == seen.source && finding.unit == seen.unit;
        let because = shortened(seen.text, CAPTURE_LIMIT);
        let moved = |before: &Option<Arc<str>>| before.as_deref() != Some(seen.text);
        let past = |waiting: &Waiting| {
            ended(&waiting.finding, waiting.signature) || mine(&waiting.finding) && moved(&waiting.milestone)
        };
        let stays = |open: &Open| self.signature(open.signature).is_some_and(|signature| signature.stays);
        let over = |open: &Open| {
            ended(&open.finding, open.signature) || mine(&open.finding) && moved(&open.milestone) && !stays(open)
        };
        let waiting = self.waiting.iter().filter(|(_, waiting)| past(waiting)).map(|(id, _)| id.clone());
        let waiting: Vec<String> = waiting.collect();
        let open = self.open.iter().filter(|(_, open)| over(open)).map(|(id, _)| id.clone()).collect();
        self.fade(waiting, &because);
        self.close(open, &because, told);
        if meant(&milestone.ends, seen.source, seen.unit) {
            let passed = if all { Passed::All } else { Passed::Phases };
            self.passed = self.passed.max(Some(passed));
        }
        if let Some(unit) = self.unit_mut(seen).filter(|_| all) {
            unit.milestone = Some(seen.text.into());
        }
    }
}

/// Says only that a try that failed before is not made again yet, or that all of them were in vain.
fn is_put_off(why: &str) -> bool {
    let words =
        ["backoff condition", "Back-off ", "back-off ", "Unable to attach or mount volumes", "Unable to mount volumes"];
    words.iter().any(|words| why.contains(words))
}

/// At least `grace` lies between the two.
pub(super) fn over(first: Timestamp, at: Timestamp, grace: SignedDuration) -> bool {
    at.duration_since(first) >= grace
}
