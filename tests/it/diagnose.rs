//! Known failures are recognised, clean runs are not accused, and hostile text changes nothing.

use bartizan::diagnose::signature::{Catalogue, Example};
use bartizan::diagnose::Matcher;
use bartizan::model::event::{Data, Finding, Level, LogLine};
use jiff::Timestamp;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_740_823_200 + second).expect("a time of 2025")
}

fn line(unit: &str, second: i64, text: &str) -> LogLine {
    LogLine { at: at(second), unit: unit.into(), level: Level::Info, text: text.into(), cursor: None }
}

fn opened(told: &[Data]) -> Vec<Finding> {
    let finding = |data: &Data| match data {
        Data::FindingOpened { finding } => Some(finding.clone()),
        _ => None,
    };
    told.iter().filter_map(finding).collect()
}

fn catalogue() -> Catalogue {
    Catalogue::builtin().expect("the built-in signatures are valid")
}

/// What a line is first taken for: said again after every grace, lasting states waited for.
fn taken_for(catalogue: &Catalogue, example: &Example) -> Vec<String> {
    let mut matcher = Matcher::new(catalogue);
    let mut found = Vec::new();
    for minute in 0..100 {
        let text = line(&example.unit, minute * 60, &example.line);
        found.extend(opened(&matcher.feed(&example.source, &text, None)));
    }
    found.extend(opened(&matcher.tick(at(100 * 60))));
    found.iter().map(|finding| finding.signature.clone()).collect()
}

#[test]
fn every_example_is_taken_for_its_own_entry() {
    let catalogue = catalogue();
    let mut wrong = Vec::new();
    for signature in catalogue.signatures() {
        for example in &signature.examples {
            let found = taken_for(&catalogue, example);
            let expected = (signature.severity != Level::Debug).then_some(&signature.id);
            if found.first() != expected {
                wrong.push(format!("{}: {:?} is taken for {found:?}", signature.id, example));
            }
        }
        for example in &signature.counter_examples {
            let found = taken_for(&catalogue, example);
            if found.contains(&signature.id) {
                wrong.push(format!("{}: {:?} must not be taken for it", signature.id, example));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
