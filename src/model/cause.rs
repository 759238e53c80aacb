//! Which finding is most likely the cause: the order that they are shown and repaired in.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::event::{Finding, Level};

/// Stands where the id of a signature would: a program has given up, and nobody knows the words it did it with.
pub const UNKNOWN: &str = "UNKNOWN";

/// From here on a rank says that the signature only carries a cause: something is stuck, or over.
pub const CARRIERS: u32 = 90;

/// A capture of findings that were seen, but for a shorter time than is unusual: how bad they would be.
const EARLY: &str = "early";

/// What an operator is called in the captures of a finding, and those that wait for others: the login for ingress, the
/// console for the login.
const OPERATOR: &str = "operator";
const FOLLOWERS: &[&str] = &["authentication", "console"];

impl Finding {
    /// Tell of it that it was not seen for longer than is usual.
    pub fn set_early(&mut self) {
        self.captures.insert(EARLY.to_owned(), self.severity.word().to_owned());
        self.severity = self.severity.min(Level::Info);
    }

    pub fn is_early(&self) -> bool {
        self.captures.contains_key(EARLY)
    }

    /// Whether it stops no installation by itself.
    pub fn is_mild(&self) -> bool {
        self.severity <= Level::Info && !self.is_early()
    }

    /// How bad it is. Lines without a time do not say how long something lasts, so it may be as bad as if it did.
    fn would_be(&self) -> Level {
        let timeless = self.at == Timestamp::UNIX_EPOCH;
        let early = self.captures.get(EARLY).filter(|_| timeless);
        early.and_then(|would_be| Level::of(would_be)).unwrap_or(self.severity)
    }

    /// Whether its evidence is a row of a table, `pod-1 0/1 Error 3 2m`: it does not say why.
    fn is_row(&self) -> bool {
        let is_ready = |word: &str| {
            let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            word.split_once('/').is_some_and(|(ready, all)| is_number(ready) && is_number(all))
        };
        self.line.split_whitespace().skip(1).take(2).any(is_ready)
    }

    /// How many operators it is behind the one that it waits for.
    fn follows(&self) -> usize {
        let operator = self.captures.get(OPERATOR);
        FOLLOWERS.iter().position(|name| operator.is_some_and(|operator| operator == name)).map_or(0, |place| place + 1)
    }

    /// Causes before what they explain, and before what only says that something is stuck; worse before milder, near to
    /// the cause before far from it, who is waited for before who waits, what says why before what does not, earlier before later, where there are no times by
    /// their lines.
    fn order(&self) -> impl Ord + use<> {
        let kind = match self.rank {
            _ if self.is_mild() => 2,
            CARRIERS.. if self.signature != UNKNOWN => 1,
            _ => 0,
        };
        (
            self.explained_by.is_some(),
            kind,
            Reverse(self.would_be()),
            self.rank,
            self.follows(),
            self.is_row(),
            self.at,
            self.line_number,
        )
    }
}

/// Findings of one signature that stand before what stops no installation by itself.
const SAME: usize = 2;

/// Put causes first. Of findings of one signature the first that says of what it is one speaks for the others: these stand
/// behind what else is wrong.
pub fn likeliest_first<T>(found: &mut Vec<T>, finding: impl Fn(&T) -> &Finding) {
    found.sort_by_cached_key(|one| finding(one).order());
    let named = |known: &Finding| known.id != known.signature;
    let names: BTreeSet<String> =
        found.iter().map(&finding).filter(|known| named(known)).map(|known| known.signature.clone()).collect();
    let mut spoken: BTreeMap<String, usize> = BTreeMap::new();
    let mut placed: Vec<_> = found
        .drain(..)
        .map(|one| {
            let known = finding(&one);
            let nameless = !named(known) && names.contains(&known.signature);
            let before = spoken.entry(known.signature.clone()).or_default();
            let place = (known.explained_by.is_some(), *before >= SAME, known.is_mild(), nameless || *before > 0);
            *before += 1;
            (place, one)
        })
        .collect();
    placed.sort_by_key(|(place, _)| *place);
    found.extend(placed.into_iter().map(|(_, one)| one));
}
