//! Which finding explains which. Specific over generic, cause over symptom, earlier over later.

use super::place::glob;
use super::signature::{Catalogue, Signature};
use crate::model::event::{Finding, Level};

/// A capture of findings that were seen, but for a shorter time than is unusual.
pub(super) const EARLY: &str = "early";

/// Stands where the id of a signature would: a program has given up, and nobody knows the words it did it with.
pub const UNKNOWN: &str = "UNKNOWN";

/// A matching signature and how its relations to the others on the same line came out.
///
/// Of the signatures (by place in the catalogue) that match one line, those that speak: one, and what it wants beside it.
pub(super) fn speakers(catalogue: &Catalogue, hits: &[usize]) -> Vec<usize> {
    let known: Vec<(usize, &Signature)> =
        hits.iter().filter_map(|hit| catalogue.signatures.get(*hit).map(|signature| (*hit, signature))).collect();
    let stands_back = |id: &str| known.iter().any(|(_, other)| other.id != id && covers(&other.overrides, id));
    let lowest = |wanted: &dyn Fn(&Signature) -> bool| {
        known.iter().filter(|(_, signature)| wanted(signature)).min_by_key(|(hit, signature)| (signature.rank, *hit))
    };
    let Some((winner, signature)) = lowest(&|signature| !stands_back(&signature.id)).or_else(|| lowest(&|_| true))
    else {
        return Vec::new();
    };
    let beside = known.iter().filter(|(_, other)| covers(&signature.beside, &other.id)).map(|(hit, _)| *hit);
    std::iter::once(*winner).chain(beside).collect()
}

/// The finding among `others` that explains one of `signature`: of the nearest to the cause, the earliest. What two
/// signatures say of each other, their ranks decide.
pub(super) fn explanation<'a>(
    catalogue: &Catalogue,
    signature: &Signature,
    id: &str,
    others: impl Iterator<Item = &'a Finding>,
) -> Option<&'a Finding> {
    let mutual = |other: &Finding| {
        let known = catalogue.get(&other.signature);
        other.signature == signature.id || known.is_some_and(|known| covers(&known.explained_by, &signature.id))
    };
    others
        .filter(|other| other.id != id && covers(&signature.explained_by, &other.signature))
        .filter(|other| other.rank < signature.rank || !mutual(other))
        .min_by_key(|other| (other.rank, other.at))
}

/// Work out `explained_by` anew among findings that were made apart from each other, and put causes first.
pub fn arrange(catalogue: &Catalogue, findings: &mut [Finding]) {
    let all: Vec<Finding> = findings.to_vec();
    for finding in findings.iter_mut().filter(|finding| finding.explained_by.is_none()) {
        if let Some(signature) = catalogue.get(&finding.signature) {
            finding.explained_by =
                explanation(catalogue, signature, &finding.id, all.iter()).map(|other| other.id.clone());
        }
    }
    findings.sort_by_key(order);
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
    if finding.severity <= Level::Info && !finding.captures.contains_key(EARLY) {
        say(-0.5, "it stops no installation by itself".to_owned());
    }
    if finding.captures.contains_key(EARLY) {
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

/// From here on a rank says that the signature only carries a cause: something is stuck, or over.
pub const CARRIERS: u32 = 90;

/// Causes before what they explain, and before what only says that something is stuck; worse before milder, near to the
/// cause before far from it, earlier before later.
pub fn order(finding: &Finding) -> impl Ord + use<> {
    let kind = match finding.rank {
        _ if finding.severity <= Level::Info && !finding.captures.contains_key(EARLY) => 2,
        CARRIERS.. => 1,
        _ => 0,
    };
    let explained = finding.explained_by.is_some();
    (explained, kind, std::cmp::Reverse(finding.severity), finding.rank, finding.at, finding.id.clone())
}

fn covers(globs: &[String], id: &str) -> bool {
    globs.iter().any(|pattern| glob(pattern, id))
}
