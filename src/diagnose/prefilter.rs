//! One automaton over all patterns of the catalogue: which of them a line may match.

use regex::Regex;
use regex::bytes::{RegexSet, RegexSetBuilder};

use super::signature::{Milestone, Signature};

/// What a pattern belongs to, by its place in the catalogue.
#[derive(Debug, Clone, Copy)]
pub(super) enum Owner {
    Signature(usize),
    Clears(usize),
    Milestone(usize),
}

/// Cheap to clone: the automaton is shared.
#[derive(Debug, Clone)]
pub(super) struct Prefilter {
    set: RegexSet,
    owners: Vec<Owner>,
}

impl Prefilter {
    pub(super) fn new(signatures: &[Signature], milestones: &[Milestone]) -> Result<Self, regex::Error> {
        let mut owners = Vec::new();
        let mut patterns = Vec::new();
        for (place, signature) in signatures.iter().enumerate() {
            patterns.extend(signature.patterns.iter().map(Regex::as_str));
            owners.resize(patterns.len(), Owner::Signature(place));
            patterns.extend(signature.clears_by.iter().map(Regex::as_str));
            owners.resize(patterns.len(), Owner::Clears(place));
        }
        for (place, milestone) in milestones.iter().enumerate() {
            patterns.push(milestone.pattern.as_str());
            owners.push(Owner::Milestone(place));
        }
        // ASCII classes keep the automaton small; captures are made with the patterns as they are.
        let set = RegexSetBuilder::new(&patterns).unicode(false).size_limit(1 << 26).dfa_size_limit(1 << 25).build()?;
        Ok(Self { set, owners })
    }

    /// Owners of the patterns that match.
    pub(super) fn touched(&self, text: &str) -> impl Iterator<Item = Owner> {
        let touched: Vec<usize> = self.set.matches(text.as_bytes()).into_iter().collect();
        touched.into_iter().filter_map(|pattern| self.owners.get(pattern).copied())
    }
}
