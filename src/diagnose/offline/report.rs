//! What a diagnosis says to programs: one object for a finding.

use serde::Serialize;

use super::{Located, Report, plain, sound};
use crate::diagnose::line::{cut, quoted};
use crate::diagnose::matcher::CLUSTER;
use crate::diagnose::{Catalogue, Checklists};
use crate::model::cause::UNKNOWN;
use crate::model::event::{Finding, Level};

/// A finding, the most likely cause being of rank 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    pub rank: usize,
    pub signature: String,
    pub phase: String,
    /// `info`, `warning` or `error`.
    pub severity: &'static str,
    /// That it is the cause, 0 to 1.
    pub confidence: f64,
    /// The cause as it is shown above its evidence.
    #[serde(skip)]
    pub title: String,
    /// The same by itself: with the words of the evidence, where the title does not have them.
    pub cause: String,
    pub evidence: Vec<Evidence>,
    pub checks: Vec<Check>,
    pub fix: String,
    /// A stage, or `live` when what failed tries again by itself.
    pub resume_from: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    pub source: String,
    /// From 1.
    pub line: u64,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    pub title: String,
    pub command: String,
}

/// Bytes of a quoted line, and of those that tell whether it stands in a title already.
const QUOTED: usize = 420;
const ALIKE: usize = 20;
const QUOTES: [char; 2] = ['"', '\''];
/// Bytes in front of a reason that may say of what it is one: `panic` does not.
const TELLING: usize = 12;

fn told(finding: &Finding) -> String {
    let title = &finding.title;
    let line = plain(&finding.line);
    let words = quoted(sound::placed(&line), QUOTED);
    // A title has left out the quotes that end with it.
    let bare = words.trim_matches(QUOTES);
    let words = if bare.matches('"').count().is_multiple_of(2) { bare } else { &words };
    let begins = cut(bare, ALIKE);
    let ends = bare.get(bare.ceil_char_boundary(bare.len().saturating_sub(ALIKE))..).unwrap_or(bare);
    if finding.source == CLUSTER || words.is_empty() || title.contains(begins) {
        return title.clone();
    }
    match title.contains(ends) {
        true => with_the_whole(title, words).unwrap_or_else(|| title.clone()),
        false => format!("{title} ({words})"),
    }
}

/// A title whose reason is the end of a short line, with the whole line: what stands before says of what.
fn with_the_whole(title: &str, words: &str) -> Option<String> {
    let (title, bare) = (title.trim_end_matches(QUOTES), words.trim_end_matches(QUOTES));
    let mut reasons = title.match_indices(": ").filter_map(|(at, colon)| title.split_at_checked(at + colon.len()));
    let (says, reason) = reasons.find(|(_, reason)| reason.len() >= ALIKE && bare.ends_with(reason))?;
    let before = bare.strip_suffix(reason)?.trim_matches([' ', ':', '*']);
    let tells = before.len() >= TELLING && words.len() <= QUOTED && !says.contains(before);
    tells.then(|| format!("{says}{words}"))
}

impl Report {
    /// The findings for programs, those of one phase when it is named.
    pub fn entries(&self, catalogue: &Catalogue, checklists: &Checklists, phase: Option<&str>) -> Vec<Entry> {
        let entry = |located: &Located| {
            let finding = &located.finding;
            let signature = catalogue.get(&finding.signature);
            if signature.is_none() && finding.signature != UNKNOWN {
                return None;
            }
            let first = (located.file.clone(), located.line, finding.line.clone());
            let evidence = std::iter::once(first).chain(located.also.iter().cloned());
            let checks = checklists.by_hand(finding).into_iter();
            Some(Entry {
                rank: 0,
                signature: finding.signature.clone(),
                phase: signature.map_or("unknown", |known| &known.phase).to_owned(),
                severity: finding.severity.max(Level::Info).word(),
                confidence: located.confidence,
                title: finding.title.clone(),
                cause: told(finding),
                evidence: evidence.map(|(source, line, text)| Evidence { source, line, text }).collect(),
                checks: checks.map(|(title, command)| Check { title, command }).collect(),
                fix: finding.next.clone().unwrap_or_default(),
                resume_from: signature.map_or("live", |known| &known.resume).to_owned(),
            })
        };
        let mut entries: Vec<Entry> = self.findings.iter().filter_map(entry).collect();
        entries.retain(|entry| phase.is_none_or(|wanted| entry.phase == wanted));
        entries.iter_mut().zip(1..).for_each(|(entry, rank)| entry.rank = rank);
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_before_a_reason_says_of_what_it_is_one() {
        let whole = |title, line| with_the_whole(title, line);
        let waited = "waiting for Kubernetes API: context deadline exceeded";
        assert_eq!(
            whole("Not in time: context deadline exceeded", waited).as_deref(),
            Some(&*format!("Not in time: {waited}"))
        );
        let quoted = "failed to parse data at key \"config.yaml\": unknown field \"grafana\"";
        assert_eq!(
            whole("The YAML cannot be read: unknown field \"grafana\"", quoted).as_deref(),
            Some(&*format!("The YAML cannot be read: {quoted}"))
        );
        assert_eq!(whole("The program ends: index 5 is out of range", "panic: index 5 is out of range"), None);
        let named = "aws_instance.a: the quota of machines is too small";
        assert_eq!(whole("Terraform could not make aws_instance.a: the quota of machines is too small", named), None);
        let long = format!("{}: context deadline exceeded", "a".repeat(QUOTED));
        assert_eq!(whole("Not in time: context deadline exceeded", &long), None);
    }
}
