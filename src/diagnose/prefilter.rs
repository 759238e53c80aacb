//! What the patterns of the catalogue cannot do without, all of it looked for at once: which of them a line may match.
//!
//! From each pattern texts are taken of which one must stand in every line that it matches, and of each text a few bytes
//! that the lines of an ordinary log hardly say. A line is looked at in steps, a few bytes at a time: a table of bits,
//! small enough for a processor's nearest cache, says of nearly all of them that no text holds them. Only patterns whose
//! text was found are tried. The texts have no quotes and backslashes in them, so that they are found in lines that are
//! still wrapped into JSON or logfmt as well.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use regex::Regex;

use super::ordinary::{Ordinary, rare};
use super::parallel::side_by_side;
use super::pattern::Pattern;
use super::signature::{Milestone, Signature};

/// What a pattern belongs to, by its place in the catalogue.
#[derive(Debug, Clone, Copy)]
pub(super) enum Owner {
    Signature(usize),
    Clears(usize),
    Milestone(usize),
}

/// Bytes that are looked at together.
const GRAM: usize = 4;
/// From one look to the next.
const STEP: usize = 2;
/// Wherever a text stands, one of the looks falls on the grams in this many bytes of it.
const SHORTEST: usize = GRAM + STEP - 1;
/// Letters that are rare enough: fewer texts are better then.
const RARE: usize = 80;
/// Of a gram's hash, and how the table of bits divides them.
const BITS: u32 = 17;
const WORDS: usize = 1 << (BITS - u32::BITS.ilog2());

/// Lines that are looked at though no pattern needs them: messages that are kept as bytes, units that failed, and what
/// goes on with the line before it.
const BESIDES: &[&str] = &["MESSAGE\":[", ": Failed w", "caused by: "];

/// Cheap to clone: its tables are shared.
#[derive(Debug, Clone)]
pub(super) struct Prefilter {
    texts: Arc<Texts>,
    patterns: Arc<Vec<(Arc<Pattern>, Owner)>>,
    /// Programs that patterns want to see named before their words, as a console prints them: `ignition[812]: `.
    tags: Option<Regex>,
}

/// Texts that are looked for.
#[derive(Debug)]
struct Texts {
    /// Which hashes of grams are known.
    bits: Box<[u32; WORDS]>,
    /// By the word of the table.
    spots: Vec<Vec<Spot>>,
    /// With the patterns that need them.
    known: Vec<(String, Vec<usize>)>,
}

/// Where a gram stands: in which text, how far behind its start.
#[derive(Debug)]
struct Spot {
    gram: u32,
    text: usize,
    behind: usize,
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
        let ordinary = Ordinary::new();
        let worth = |texts: &[String]| {
            if texts.iter().any(|text| text.len() < SHORTEST) {
                return i64::MIN;
            }
            let woken: i64 = texts.iter().map(|text| i64::from(ordinary.holding(text))).sum();
            let rare = texts.iter().map(|text| rare(text)).min().unwrap_or(0).min(RARE);
            -1000 * woken + 10 * i64::try_from(rare).unwrap_or(0) - i64::try_from(texts.len()).unwrap_or(0)
        };
        let mut texts: BTreeMap<String, Vec<usize>> =
            BESIDES.iter().map(|text| ((*text).to_owned(), Vec::new())).collect();
        let mut without = Vec::new();
        let required = side_by_side(&patterns, |(pattern, _)| pattern.required(SHORTEST, &worth));
        for (number, group) in required.into_iter().enumerate() {
            match group {
                Ok(group) => group.into_iter().for_each(|text| texts.entry(text).or_default().push(number)),
                Err(why) => without.push(why),
            }
        }
        // What is no expression by itself is none of a program's name.
        let tags = patterns.iter().filter_map(|(pattern, _)| pattern.tag());
        let tags: BTreeSet<&str> = tags.filter(|tag| regex_syntax::parse(tag).is_ok()).collect();
        let tags = tags.into_iter().collect::<Vec<_>>().join("|");
        let tags = if tags.is_empty() { None } else { Regex::new(&format!("^(?:{tags})$")).ok() };
        match without.is_empty() {
            true => Ok(Self { texts: Arc::new(Texts::new(texts, &ordinary)), patterns: Arc::new(patterns), tags }),
            false => Err(without.join("; ")),
        }
    }

    /// What a unit said, with its program's name before it, when patterns want to see that.
    pub(super) fn tagged(&self, unit: &str, text: &str) -> Option<String> {
        let program = if unit == "bootkube" { "bootkube.sh" } else { unit };
        self.tags.as_ref()?.is_match(program).then(|| format!("{program}[1]: {text}"))
    }

    /// Whether any pattern may match this line, which can still be wrapped: what it says across the end of a line that it
    /// quotes is not seen before it is unwrapped.
    pub(super) fn may_match(&self, line: &[u8]) -> bool {
        let line_end = |at: usize| line.get(at + 1) == Some(&b'n');
        self.texts.find(line, |_| ControlFlow::Break(())).is_break() || memchr::memchr_iter(b'\\', line).any(line_end)
    }

    /// The patterns that may match, in the order of the catalogue.
    pub(super) fn candidates(&self, text: &str) -> Vec<usize> {
        let mut candidates = Vec::new();
        let _to_the_end = self.texts.find(text.as_bytes(), |needed_by| {
            candidates.extend_from_slice(needed_by);
            ControlFlow::Continue(())
        });
        candidates.sort_unstable();
        candidates.dedup();
        candidates
    }

    /// Whether any signature knows this line of a unit, wherever it stands.
    pub(super) fn knows(&self, unit: &str, text: &str) -> bool {
        let knows =
            |text: &str| self.touched(&self.candidates(text), text).any(|owner| matches!(owner, Owner::Signature(_)));
        knows(text) || self.tagged(unit, text).is_some_and(|tagged| knows(&tagged))
    }

    /// Owners of those of the candidates that match.
    pub(super) fn touched(&self, candidates: &[usize], text: &str) -> impl Iterator<Item = Owner> {
        let known = candidates.iter().filter_map(|number| self.patterns.get(*number));
        known.filter(move |(pattern, _)| pattern.is_match(text)).map(|(_, owner)| *owner)
    }
}

impl Texts {
    /// Texts of at least [`SHORTEST`] bytes, with the patterns that need them.
    fn new(texts: BTreeMap<String, Vec<usize>>, ordinary: &Ordinary) -> Self {
        let mut bits = Box::new([0; WORDS]);
        let mut spots: Vec<Vec<Spot>> = (0..WORDS).map(|_| Vec::new()).collect();
        let known: Vec<(String, Vec<usize>)> = texts.into_iter().collect();
        for (place, (text, _)) in known.iter().enumerate() {
            let from = ordinary.rarest(text, SHORTEST);
            for (gram, behind) in text.as_bytes().windows(GRAM).zip(0..).skip(from).take(STEP) {
                let gram = number(gram);
                let (word, bit) = slot(gram);
                if let (Some(bits), Some(spots)) = (bits.get_mut(word), spots.get_mut(word)) {
                    *bits |= bit;
                    spots.push(Spot { gram, text: place, behind });
                }
            }
        }
        Self { bits, spots, known }
    }

    /// Tell who needs the texts that stand in this line, in no order.
    fn find(&self, line: &[u8], mut found: impl FnMut(&[usize]) -> ControlFlow<()>) -> ControlFlow<()> {
        for (gram, look) in line.windows(GRAM).step_by(STEP).zip(0..) {
            let gram = number(gram);
            let (word, bit) = slot(gram);
            if self.bits.get(word).is_some_and(|word| word & bit != 0) {
                for spot in self.spots.get(word).into_iter().flatten().filter(|spot| spot.gram == gram) {
                    let rest = (look * STEP).checked_sub(spot.behind).and_then(|start| line.get(start..));
                    if let Some((text, needed_by)) = self.known.get(spot.text)
                        && rest.is_some_and(|rest| rest.starts_with(text.as_bytes()))
                    {
                        found(needed_by)?;
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }
}

fn number(gram: &[u8]) -> u32 {
    <[u8; GRAM]>::try_from(gram).map_or(0, u32::from_le_bytes)
}

/// A word of the table of bits, and a bit of it.
fn slot(gram: u32) -> (usize, u32) {
    let hash = gram.wrapping_mul(0x9e37_79b1) >> (u32::BITS - BITS);
    ((hash / u32::BITS) as usize % WORDS, 1 << (hash % u32::BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wherever a text stands in a line of whatever length, it is found.
    #[test]
    fn a_text_is_found_at_every_place() {
        for wanted in ["zebra", "zebra quiz", "the server is waiting for a zebra"] {
            let texts = Texts::new([(wanted.to_owned(), Vec::new())].into(), &Ordinary::new());
            let prefilter = Prefilter { texts: Arc::new(texts), patterns: Arc::new(Vec::new()), tags: None };
            for length in wanted.len()..100 {
                assert!(!prefilter.may_match(&vec![b'z'; length]));
                for at in 0..=length - wanted.len() {
                    let mut line = vec![b'.'; length];
                    line[at..at + wanted.len()].copy_from_slice(wanted.as_bytes());
                    assert!(prefilter.may_match(&line), "{wanted} at {at} of {length}");
                }
            }
        }
    }
}
