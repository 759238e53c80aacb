//! Which finding explains which. Specific over generic, cause over symptom, earlier over later.

use super::place::glob;
use super::signature::{Catalogue, Signature};
use crate::model::event::Finding;

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

/// The finding among `others` that explains one of `signature`: of the nearest to the cause, the earliest.
pub(super) fn explanation<'a>(
    signature: &Signature,
    id: &str,
    others: impl Iterator<Item = &'a Finding>,
) -> Option<&'a Finding> {
    others
        .filter(|other| other.id != id && other.rank < signature.rank)
        .filter(|other| covers(&signature.explained_by, &other.signature))
        .min_by_key(|other| (other.rank, other.at))
}

/// Work out `explained_by` anew among findings that were made apart from each other, and put causes first.
pub fn arrange(catalogue: &Catalogue, findings: &mut [Finding]) {
    let all: Vec<Finding> = findings.to_vec();
    for finding in findings.iter_mut().filter(|finding| finding.explained_by.is_none()) {
        if let Some(signature) = catalogue.get(&finding.signature) {
            finding.explained_by = explanation(signature, &finding.id, all.iter()).map(|other| other.id.clone());
        }
    }
    findings.sort_by_key(order);
}

/// Causes before what they explain, worse before milder, near to the cause before far from it, earlier before later.
pub fn order(finding: &Finding) -> (bool, std::cmp::Reverse<crate::model::event::Level>, u32, jiff::Timestamp, String) {
    let explained = finding.explained_by.is_some();
    (explained, std::cmp::Reverse(finding.severity), finding.rank, finding.at, finding.id.clone())
}

fn covers(globs: &[String], id: &str) -> bool {
    globs.iter().any(|pattern| glob(pattern, id))
}
