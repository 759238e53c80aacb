//! Lines from public reports: is the cause that an engineer would name the first one that is named? And lines that only
//! look frightening: is nothing made of them?

use std::path::Path;

use bartizan::diagnose::Catalogue;
use bartizan::diagnose::offline::{Limits, Report, diagnose_with};
use bartizan::model::event::Level;
use serde::Deserialize;

use super::catalogue;

#[derive(Deserialize)]
struct File {
    case: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    /// Address of the report, or the program that prints the lines.
    #[serde(alias = "from")]
    url: String,
    /// Signatures that are accepted as the first answer, the best one first.
    #[serde(default)]
    cause: Vec<String>,
    text: String,
}

fn cases(name: &str) -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/diagnosis").join(name);
    let text = std::fs::read_to_string(path).expect("the fixture");
    toml::from_str::<File>(&text).expect("the fixture is valid").case
}

fn report(catalogue: &Catalogue, text: &str) -> Report {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("excerpt");
    std::fs::write(&path, text).expect("written");
    diagnose_with(catalogue, &path, Limits::default()).expect("a report")
}

/// How many have the right cause first, and among the first three; the others are printed.
fn measure(name: &str) -> (usize, usize, usize) {
    let catalogue = catalogue();
    let (mut first, mut three, cases) = (0, 0, cases(name));
    for case in &cases {
        for cause in &case.cause {
            assert!(catalogue.get(cause).is_some(), "{}: there is no {cause}", case.url);
        }
        let found = report(&catalogue, case.text.trim_matches('\n')).findings;
        let ids: Vec<&str> = found.iter().map(|found| found.finding.signature.as_str()).collect();
        let right = |id: &&str| case.cause.iter().any(|cause| cause == id);
        first += usize::from(ids.first().is_some_and(right));
        three += usize::from(ids.iter().take(3).any(right));
        if !ids.first().is_some_and(right) {
            println!("{}: wanted {:?}, found {ids:?}", case.url, case.cause);
        }
    }
    println!("{name}: {first} of {} first, {three} among the first three", cases.len());
    (first, three, cases.len())
}

#[test]
fn reports_that_the_patterns_were_tuned_with() {
    let (first, three, all) = measure("tuning.toml");
    assert!(all >= 60 && first * 100 >= all * 95 && three * 100 >= all * 98, "{first} and {three} of {all}");
}

#[test]
fn reports_that_no_pattern_was_written_for() {
    let (first, three, all) = measure("held-out.toml");
    assert!(all >= 60 && first * 100 >= all * 85 && three * 100 >= all * 95, "{first} and {three} of {all}");
}

#[test]
fn frightening_lines_of_healthy_installations() {
    let catalogue = catalogue();
    let cases = cases("harmless.toml");
    assert!(cases.len() >= 30);
    let mut accused = Vec::new();
    for case in &cases {
        for found in report(&catalogue, case.text.trim_matches('\n')).findings {
            if found.finding.severity > Level::Info {
                accused.push(format!("{}: {} {}", case.url, found.finding.signature, found.finding.line));
            }
        }
    }
    assert!(accused.is_empty(), "{}", accused.join("\n"));
}
