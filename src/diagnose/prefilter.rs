//! One automaton over everything that the patterns of the catalogue cannot do without: which of them a line may match.
//!
//! From each pattern a piece of plain text is taken that must stand in every line which it matches; all pieces are looked
//! for at once. Only patterns whose piece was found are tried. The pieces have no quotes and backslashes in them, so that
//! they are found in lines that are still wrapped into JSON or logfmt as well.

use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use regex::Regex;
use regex_syntax::hir::{Hir, HirKind};

use super::signature::{Milestone, Signature};

/// What a pattern belongs to, by its place in the catalogue.
#[derive(Debug, Clone, Copy)]
pub(super) enum Owner {
    Signature(usize),
    Clears(usize),
    Milestone(usize),
}

/// Shorter pieces would be found in every other line.
const SHORTEST: usize = 4;
/// Alternatives of one pattern that are looked for by themselves.
const ALTERNATIVES: usize = 24;

/// Lines that are looked at though no pattern needs them: messages that are kept as bytes, and units that failed.
const BESIDES: &[&str] = &["\"MESSAGE\":[", ".service: Failed with result"];

/// Cheap to clone: the automaton is shared.
#[derive(Debug, Clone)]
pub(super) struct Prefilter {
    pieces: Arc<AhoCorasick>,
    /// By piece, the patterns that need it.
    needed_by: Arc<Vec<Vec<usize>>>,
    patterns: Arc<Vec<(Regex, Owner)>>,
}

impl Prefilter {
    pub(super) fn new(signatures: &[Signature], milestones: &[Milestone]) -> Result<Self, String> {
        let mut patterns = Vec::new();
        for (place, signature) in signatures.iter().enumerate() {
            patterns.extend(signature.patterns.iter().map(|pattern| (pattern.clone(), Owner::Signature(place))));
            patterns.extend(signature.clears_by.iter().map(|pattern| (pattern.clone(), Owner::Clears(place))));
        }
        for (place, milestone) in milestones.iter().enumerate() {
            patterns.push((milestone.pattern.clone(), Owner::Milestone(place)));
        }
        let mut pieces: Vec<String> = Vec::new();
        let mut needed_by: Vec<Vec<usize>> = Vec::new();
        let mut without = Vec::new();
        for (number, (pattern, _)) in patterns.iter().enumerate() {
            for piece in required(pattern).unwrap_or_else(|why| {
                without.push(why);
                Vec::new()
            }) {
                let place = pieces.iter().position(|known| *known == piece).unwrap_or_else(|| {
                    pieces.push(piece);
                    needed_by.push(Vec::new());
                    pieces.len() - 1
                });
                if let Some(needs) = needed_by.get_mut(place) {
                    needs.push(number);
                }
            }
        }
        if !without.is_empty() {
            return Err(without.join("; "));
        }
        pieces.extend(BESIDES.iter().map(|piece| (*piece).to_owned()));
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::DFA))
            .build(&pieces)
            .map_err(|error| error.to_string())?;
        Ok(Self { pieces: Arc::new(automaton), needed_by: Arc::new(needed_by), patterns: Arc::new(patterns) })
    }

    /// Whether any pattern may match this line, which can still be wrapped.
    pub(super) fn may_match(&self, line: &[u8]) -> bool {
        self.pieces.is_match(line)
    }

    /// Owners of the patterns that match, in the order of the catalogue.
    pub(super) fn touched(&self, text: &str) -> Vec<Owner> {
        let mut candidates = Vec::new();
        for found in self.pieces.find_overlapping_iter(text) {
            let needs = self.needed_by.get(found.pattern().as_usize());
            candidates.extend(needs.into_iter().flatten().copied());
        }
        candidates.sort_unstable();
        candidates.dedup();
        let known = candidates.into_iter().filter_map(|number| self.patterns.get(number));
        known.filter(|(pattern, _)| pattern.is_match(text)).map(|(_, owner)| *owner).collect()
    }
}

/// Pieces of text of which one stands in every line that the pattern matches.
pub(super) fn required(pattern: &Regex) -> Result<Vec<String>, String> {
    let hir = regex_syntax::parse(pattern.as_str()).map_err(|error| error.to_string())?;
    let short = || format!("no plain text of {SHORTEST} characters stands in every line that {pattern} matches");
    pieces(&hir).filter(|pieces| pieces.iter().all(|piece| piece.len() >= SHORTEST)).ok_or_else(short)
}

fn pieces(hir: &Hir) -> Option<Vec<String>> {
    match hir.kind() {
        HirKind::Literal(literal) => {
            let text = String::from_utf8_lossy(&literal.0);
            let parts = text.split(['"', '\\', '\n', '\t', '\u{fffd}']);
            parts.max_by_key(|part| part.len()).filter(|part| !part.is_empty()).map(|part| vec![part.to_owned()])
        }
        HirKind::Capture(capture) => pieces(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => pieces(&repetition.sub),
        HirKind::Concat(parts) => parts.iter().filter_map(pieces).max_by_key(|pieces| shortest(pieces)),
        HirKind::Alternation(parts) => {
            let each: Option<Vec<Vec<String>>> = parts.iter().map(pieces).collect();
            each.map(|each| each.concat()).filter(|all| all.len() <= ALTERNATIVES)
        }
        HirKind::Repetition(_) | HirKind::Empty | HirKind::Class(_) | HirKind::Look(_) => None,
    }
}

fn shortest(pieces: &[String]) -> usize {
    pieces.iter().map(String::len).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pattern_cannot_do_without() {
        for (pattern, wanted) in [
            ("abcd.*efghi", vec!["efghi"]),
            ("(?:first|second) it", vec!["first", "second"]),
            ("(?:one|three) word", vec![" word"]),
            (r#"(?P<x>\S+): \\?"quoted text\\?""#, vec!["quoted text"]),
            ("a(?:bcde)?fghij+", vec!["afghij"]),
        ] {
            let found = required(&Regex::new(pattern).expect("a pattern")).unwrap_or_default();
            let held = |piece: &String| wanted.iter().any(|text| text.contains(piece.as_str()));
            assert!(!found.is_empty() && found.iter().all(held), "{pattern}: {found:?}");
        }
        for pattern in [r"\d+", "(?:abcdef)?", "abc|abcdef", "(?i)abcdef"] {
            assert!(required(&Regex::new(pattern).expect("a pattern")).is_err(), "{pattern}");
        }
    }
}
