//! One automaton over everything that the patterns of the catalogue cannot do without: which of them a line may match.
//!
//! From each pattern a piece of plain text is taken that must stand in every line which it matches; all pieces are looked
//! for at once. Only patterns whose piece was found are tried. The pieces have no quotes and backslashes in them, so that
//! they are found in lines that are still wrapped into JSON or logfmt as well.
//!
//! Two things make it fast. The pieces are short and begin with letters that are rare, so that the automaton mostly rests
//! in a few states near the first one. And a line is walked at several places at once: a step of the automaton has to wait
//! for the one before it, but not for those of the other walks.

use std::ops::ControlFlow;
use std::sync::Arc;

use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::dfa::DFA;
use aho_corasick::{Anchored, MatchKind};

use super::pattern::{ENOUGH, Pattern, own};
use super::signature::{Milestone, Signature};

/// What a pattern belongs to, by its place in the catalogue.
#[derive(Debug, Clone, Copy)]
pub(super) enum Owner {
    Signature(usize),
    Clears(usize),
    Milestone(usize),
}

/// Shorter pieces would be found in every other line, longer ones make the automaton larger than a processor's cache.
const SHORTEST: usize = 4;
const LONGEST: usize = 10;
/// Bytes of ordinary log lines, the most frequent ones first; all others are rarer.
const FREQUENT: &[u8] = b" eotnairs0dclp12u-m3f/h45.86g79=:by";
/// Shorter lines are not worth more than one walk.
const SHORT: usize = 64;

/// Lines that are looked at though no pattern needs them: messages that are kept as bytes, and units that failed.
const BESIDES: &[&str] = &["MESSAGE\":[", ": Failed w"];

/// Cheap to clone: the automaton is shared.
#[derive(Debug, Clone)]
pub(super) struct Prefilter {
    pieces: Arc<DFA>,
    /// By piece, the patterns that need it.
    needed_by: Arc<Vec<Vec<usize>>>,
    patterns: Arc<Vec<(Arc<Pattern>, Owner)>>,
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
            for piece in pattern.required(SHORTEST).unwrap_or_else(|why| {
                without.push(why);
                Vec::new()
            }) {
                let piece = rarest(&piece).to_owned();
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
        let automaton = DFA::builder()
            .match_kind(MatchKind::Standard)
            .prefilter(false)
            .build(&pieces)
            .map_err(|error| error.to_string())?;
        Ok(Self { pieces: Arc::new(automaton), needed_by: Arc::new(needed_by), patterns: Arc::new(patterns) })
    }

    /// Whether any pattern may match this line, which can still be wrapped.
    pub(super) fn may_match(&self, line: &[u8]) -> bool {
        self.walk(line, |_| ControlFlow::Break(())).is_break()
    }

    /// Go through `text` and tell the numbers of the pieces in it, some of them twice, in no order.
    fn walk(&self, text: &[u8], mut found: impl FnMut(usize) -> ControlFlow<()>) -> ControlFlow<()> {
        let Ok(start) = self.pieces.start_state(Anchored::No) else { return ControlFlow::Continue(()) };
        let mut step = |state: &mut StateID, byte: &u8| {
            *state = self.pieces.next_state(Anchored::No, *state, *byte);
            if self.pieces.is_special(*state) && self.pieces.is_match(*state) {
                for index in 0..self.pieces.match_len(*state) {
                    found(self.pieces.match_pattern(*state, index).as_usize())?;
                }
            }
            ControlFlow::Continue(())
        };
        if text.len() < SHORT {
            let mut state = start;
            return text.iter().try_for_each(|byte| step(&mut state, byte));
        }
        // Each walk begins before the place where the first piece begins that the walk before it does not see the end of.
        let length = (text.len() + 3 * LONGEST).div_ceil(4);
        let from = |walk: usize| text.get(walk * (text.len() - length) / 3..).unwrap_or_default();
        let [mut first, mut second, mut third, mut fourth] = [start; 4];
        for (((a, b), c), d) in from(0).iter().zip(from(1)).zip(from(2)).zip(from(3)) {
            step(&mut first, a)?;
            step(&mut second, b)?;
            step(&mut third, c)?;
            step(&mut fourth, d)?;
        }
        ControlFlow::Continue(())
    }

    /// Owners of the patterns that match, in the order of the catalogue.
    pub(super) fn touched(&self, text: &str) -> Vec<Owner> {
        let mut candidates = Vec::new();
        let _to_the_end = self.walk(text.as_bytes(), |piece| {
            candidates.extend(self.needed_by.get(piece).into_iter().flatten().copied());
            ControlFlow::Continue(())
        });
        candidates.sort_unstable();
        candidates.dedup();
        let known = candidates.into_iter().filter_map(|number| self.patterns.get(number));
        known.filter(|(pattern, _)| pattern.is_match(text)).map(|(_, owner)| *owner).collect()
    }
}

/// The part of a piece that is looked for: what few lines say, what begins with rare letters, and has many of them.
fn rarest(piece: &str) -> &str {
    let rarity = |byte: &u8| FREQUENT.iter().position(|known| known == byte).unwrap_or(FREQUENT.len());
    let own = own(piece);
    let score = |at: usize, part: &str| {
        let own = own.iter().skip(at).take(part.len()).filter(|own| **own).count();
        let begins = part.bytes().zip([3, 2]).map(|(byte, weight)| weight * rarity(&byte)).sum::<usize>();
        (own.min(ENOUGH), begins + part.as_bytes().iter().map(rarity).sum::<usize>())
    };
    let places = 0..=piece.len().saturating_sub(LONGEST);
    let parts = places.filter_map(|at| Some((at, piece.get(at..at + LONGEST)?)));
    parts.rev().max_by_key(|(at, part)| score(*at, part)).map_or(piece, |(_, part)| part)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wherever a piece stands in a line of whatever length, it is found.
    #[test]
    fn a_piece_is_found_at_every_place() {
        let piece = "zebra quiz";
        let pieces = DFA::builder().prefilter(false).build([piece]).expect("an automaton");
        let (needed_by, patterns) = (Arc::new(vec![Vec::new()]), Arc::new(Vec::new()));
        let prefilter = Prefilter { pieces: Arc::new(pieces), needed_by, patterns };
        for length in piece.len()..300 {
            assert!(!prefilter.may_match(&vec![b'.'; length]));
            for at in 0..=length - piece.len() {
                let mut line = vec![b'.'; length];
                line[at..at + piece.len()].copy_from_slice(piece.as_bytes());
                assert!(prefilter.may_match(&line), "at {at} of {length}");
            }
        }
    }
}
