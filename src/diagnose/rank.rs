//! Which finding explains which. Specific over generic, cause over symptom, earlier over later.

use super::place::glob;
use super::signature::{Catalogue, Signature};
use crate::model::cause::{CARRIERS, UNKNOWN, likeliest_first};
use crate::model::event::{Finding, Level};

/// Of the signatures (by place in the catalogue) that match one line, those that speak: one, and what it wants beside it.
pub(super) fn speakers(catalogue: &Catalogue, hits: &[usize]) -> Vec<usize> {
    let known: Vec<(usize, &Signature)> =
        hits.iter().filter_map(|hit| catalogue.signatures.get(*hit).map(|signature| (*hit, signature))).collect();
    let stands_back = |signature: &Signature| {
        known.iter().any(|(_, other)| overrides(other, signature) > overrides(signature, other))
    };
    let lowest = |wanted: &dyn Fn(&Signature) -> bool| {
        known.iter().filter(|(_, signature)| wanted(signature)).min_by_key(|(hit, signature)| (signature.rank, *hit))
    };
    let Some((winner, signature)) = lowest(&|signature| !stands_back(signature)).or_else(|| lowest(&|_| true)) else {
        return Vec::new();
    };
    let beside = known.iter().filter(|(_, other)| covers(&signature.beside, &other.id)).map(|(hit, _)| *hit);
    std::iter::once(*winner).chain(beside).collect()
}

/// How strongly a signature wants another one to stand back: what names it outweighs what covers it among others.
fn overrides(one: &Signature, other: &Signature) -> u8 {
    let named = |pattern: &String| if *pattern == other.id { 2 } else { u8::from(glob(pattern, &other.id)) };
    if one.id == other.id { 0 } else { one.overrides.iter().map(named).max().unwrap_or(0) }
}

/// The one among `all`, the findings that are open together, that explains this one: of the nearest to the cause, the
/// earliest.
pub(super) fn explanation<'a>(catalogue: &Catalogue, finding: &Finding, all: &[&'a Finding]) -> Option<&'a Finding> {
    let symptom = catalogue.place(&finding.signature)?;
    let explains = |other: &&Finding| {
        let cause = catalogue.place(&other.signature);
        other.id != finding.id && cause.is_some_and(|cause| catalogue.explains(cause, symptom))
    };
    let mut causes: Vec<&Finding> = all.iter().copied().filter(explains).collect();
    causes.sort_by_key(|other| (other.rank, other.at));
    causes.into_iter().find(|other| !behind(other, all).any(|known| known.id == finding.id))
}

/// This one, and what explains it, by however many others: none of them is explained by it, for nothing explains itself.
pub(super) fn behind<'a>(from: &'a Finding, all: &[&'a Finding]) -> impl Iterator<Item = &'a Finding> {
    let cause = |finding: &&'a Finding| {
        let cause = finding.explained_by.as_ref()?;
        all.iter().find(|other| other.id == *cause).copied()
    };
    std::iter::successors(Some(from), cause).take(all.len())
}

/// Work out `explained_by` anew among findings that were made apart from each other, and put causes first.
pub fn arrange(catalogue: &Catalogue, findings: &mut Vec<Finding>) {
    // Where signatures explain each other in a ring, the one that is nearest to the cause is the one that is left.
    findings.sort_by_key(|finding| (std::cmp::Reverse(finding.rank), finding.id.clone()));
    for place in 0..findings.len() {
        let all: Vec<&Finding> = findings.iter().collect();
        let cause = all
            .get(place)
            .filter(|finding| finding.explained_by.is_none())
            .and_then(|finding| explanation(catalogue, finding, &all).map(|other| other.id.clone()));
        if let Some((finding, cause)) = findings.get_mut(place).zip(cause) {
            finding.explained_by = Some(cause);
        }
    }
    likeliest_first(findings, |finding| finding);
}

/// How much speaks for each of these (in their order) being the cause, 0 to 1, and why. What comes later is not more
/// likely than what comes before it.
pub fn weigh(catalogue: &Catalogue, findings: &[Finding]) -> Vec<(f64, Vec<String>)> {
    let mut most: f64 = 1.0;
    let mut weighed = Vec::new();
    for (place, finding) in findings.iter().enumerate() {
        let (value, reasons) = weigh_one(catalogue, finding, findings.get(..place).unwrap_or(&[]), findings);
        most = most.min(value);
        weighed.push(((most * 100.0).round() / 100.0, reasons));
    }
    weighed
}

fn weigh_one(catalogue: &Catalogue, finding: &Finding, before: &[Finding], all: &[Finding]) -> (f64, Vec<String>) {
    let mut reasons = Vec::new();
    let mut value = 0.0;
    let mut say = |weight: f64, why: String| {
        value += weight;
        reasons.push(format!("{weight:+.2} {why}"));
    };
    let carrier = catalogue.get(&finding.signature).is_some_and(|known| known.carrier) || finding.rank >= CARRIERS;
    match carrier {
        _ if finding.signature == UNKNOWN => say(0.3, "it is what the program said that gave up".to_owned()),
        true => say(0.45, "it says that something is stuck, not why".to_owned()),
        false => say(0.85, "it names a cause".to_owned()),
    }
    if finding.is_mild() {
        say(-0.5, "it stops no installation by itself".to_owned());
    }
    if finding.is_early() {
        say(-0.4, "it was not seen for longer than is usual".to_owned());
    }
    if let Some(cause) = &finding.explained_by {
        say(-0.35, format!("{cause} explains it"));
    }
    let symptoms = all.iter().filter(|other| other.explained_by.as_deref() == Some(finding.id.as_str())).count();
    if symptoms > 0 {
        let plural = if symptoms == 1 { "finding" } else { "findings" };
        say(0.05 + 0.02 * (symptoms.min(3) as f64), format!("it explains {symptoms} other {plural}"));
    }
    if let Some(times) = finding.captures.get("times") {
        say(0.03, format!("it was said {times} times"));
    }
    let rival = before.iter().find(|other| other.explained_by.is_none() && other.severity >= Level::Warn);
    if let Some(rival) = rival.filter(|_| finding.explained_by.is_none()) {
        say(-0.15, format!("{} is nearer to the beginning of things", rival.signature));
    }
    (value.clamp(0.05, 0.98), reasons)
}

fn covers(globs: &[String], id: &str) -> bool {
    globs.iter().any(|pattern| glob(pattern, id))
}
