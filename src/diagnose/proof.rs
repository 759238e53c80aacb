//! Whether a signature keeps its word: its examples are taken for it and for nothing before it, lines that look alike are
//! not, and each of its ways out is one that an example takes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::Matcher;
use super::signature::{Catalogue, Example, Signature};
use crate::model::event::{Data, Level, LogLine};

/// How often a line is said again, a minute apart: longer than any grace.
const MINUTES: i64 = 100;

/// What is wrong with a signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("a pattern cannot be made: {0}")]
    Pattern(String),
    #[error("this example is taken for nothing: {0}")]
    Missed(String),
    #[error("this example is taken for {by} before it: {line}")]
    Taken { by: String, line: String },
    #[error("this counter example is taken for it: {0}")]
    Mistaken(String),
    #[error("no example takes way {0}, counted from 1")]
    Way(usize),
}

/// Which signatures speak of a line, the first one first: it is said again after every grace, and lasting states are
/// waited for.
pub fn taken_for(catalogue: &Catalogue, example: &Example) -> Vec<String> {
    let mut matcher = Matcher::new(catalogue);
    let at = |minute: i64| Timestamp::from_second(minute * 60).unwrap_or_default();
    let mut told = Vec::new();
    for minute in 0..MINUTES {
        let (unit, text) = (example.unit.clone(), example.line.clone());
        let line = LogLine { at: at(minute), unit, level: Level::Info, text, cursor: None };
        told.extend(opened(matcher.feed(&example.source, &line, None)));
        if !told.is_empty() {
            break;
        }
    }
    told.extend(opened(matcher.tick(at(MINUTES))));
    told.dedup();
    told
}

fn opened(told: Vec<Data>) -> impl Iterator<Item = String> {
    told.into_iter().filter_map(|data| match data {
        Data::FindingOpened { finding } => Some(finding.signature),
        _ => None,
    })
}

/// Everything that is wrong with a signature of this catalogue.
pub fn faults(catalogue: &Catalogue, signature: &Signature) -> Vec<Fault> {
    if let Err(why) = signature.make() {
        return vec![Fault::Pattern(why)];
    }
    let mut faults = Vec::new();
    // What is below info is normal, and only of an excerpt it is told.
    for example in signature.examples.iter().filter(|_| signature.severity != Level::Debug) {
        let line = example.line.clone();
        match taken_for(catalogue, example).into_iter().next() {
            None => faults.push(Fault::Missed(line)),
            Some(by) if by != signature.id => faults.push(Fault::Taken { by, line }),
            Some(_) => {}
        }
    }
    let mistaken = |example: &&Example| taken_for(catalogue, example).contains(&signature.id);
    faults.extend(signature.counter_examples.iter().filter(mistaken).map(|one| Fault::Mistaken(one.line.clone())));
    let taken: BTreeSet<usize> =
        signature.examples.iter().filter_map(|example| signature.way(&BTreeMap::new(), &example.line)).collect();
    faults.extend((0..signature.ways()).filter(|way| !taken.contains(way)).map(|way| Fault::Way(way + 1)));
    faults
}
