//! `bartizan diagnose` and `bartizan signature`: what is known of failures, held against files.

use std::io::{BufRead, Write};
use std::path::PathBuf;

use crate::diagnose::offline::{self, Limits, Located, Report, report::Entry};
use crate::diagnose::signature::user_files;
use crate::diagnose::{Catalogue, Checklists, proof, template};
use crate::model::cause::UNKNOWN;

use super::{Failure, exit};

/// The built-in signatures and the user's own.
pub fn catalogue() -> Result<Catalogue, Failure> {
    let Some(own) = signatures() else { return Catalogue::builtin().map_err(Failure::other) };
    Catalogue::with_user(&own).map_err(|error| Failure::usage(error.to_string()))
}

/// Where the user's own are.
fn signatures() -> Option<PathBuf> {
    super::config::directory().map(|own| own.join("signatures"))
}

pub fn diagnose(paths: &[PathBuf], as_json: bool, phase: Option<&str>) -> Result<u8, Failure> {
    let catalogue = catalogue()?;
    let checklists = Checklists::builtin().map_err(Failure::other)?;
    if let Some(phase) = phase.filter(|phase| !catalogue.phases().contains(phase)) {
        let known = catalogue.phases().into_iter().collect::<Vec<_>>().join(", ");
        return Err(Failure::usage(format!("there is no phase {phase}; there are {known}")));
    }
    let report = offline::diagnose_all(&catalogue, paths, Limits::default())
        .map_err(|error| Failure::usage(error.to_string()))?;
    let entries = report.entries(&catalogue, &checklists, phase);
    let mut out = std::io::stdout().lock();
    let written = if as_json { objects(&mut out, &entries) } else { sentences(&mut out, &report, &entries) };
    or_seen_enough(written)
}

/// Whoever read it may have seen enough.
fn or_seen_enough(written: std::io::Result<()>) -> Result<u8, Failure> {
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(exit::DONE),
        written => written.map(|()| exit::DONE).map_err(Failure::other),
    }
}

fn objects(out: &mut impl Write, entries: &[Entry]) -> std::io::Result<()> {
    for entry in entries {
        let line = serde_json::to_string(entry).map_err(std::io::Error::other)?;
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn sentences(out: &mut impl Write, report: &Report, entries: &[Entry]) -> std::io::Result<()> {
    for entry in entries {
        writeln!(out, "{}. {}", entry.rank, entry.title)?;
        writeln!(
            out,
            "   {} {}, {}, confidence {:.2}",
            entry.signature, entry.severity, entry.phase, entry.confidence
        )?;
        let mine =
            |located: &&Located| located.finding.signature == entry.signature && located.finding.title == entry.title;
        for reason in report.findings.iter().find(mine).iter().flat_map(|located| &located.reasons) {
            writeln!(out, "      {reason}")?;
        }
        for evidence in &entry.evidence {
            writeln!(out, "   {}:{}: {}", evidence.source, evidence.line, evidence.text)?;
        }
        for check in &entry.checks {
            writeln!(out, "   look: {}\n         {}", check.title, check.command)?;
        }
        if !entry.fix.is_empty() {
            writeln!(out, "   fix:  {}; then go on from {}", entry.fix, entry.resume_from)?;
        }
    }
    writeln!(out, "{} findings in {} lines of {} files", entries.len(), report.lines, report.files)?;
    report.skipped.iter().try_for_each(|skipped| writeln!(out, "left out: {skipped}"))?;
    if entries.iter().any(|entry| entry.severity != "info" && entry.signature != UNKNOWN) {
        return Ok(());
    }
    let unknown = &report.unknown;
    if unknown.first_errors.is_empty() && unknown.failed_units.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nNo known failure. What there is to see:")?;
    for unit in &unknown.failed_units {
        writeln!(out, "  failed unit: {unit}")?;
    }
    for (file, seen) in &unknown.first_errors {
        writeln!(out, "  first error: {file}:{}: {}", seen.line, seen.text)?;
    }
    for (file, seen) in &unknown.last_lines {
        writeln!(out, "  last line:   {file}:{}: {}", seen.line, seen.text)?;
    }
    writeln!(out, "`bartizan signature new LINE` makes a signature out of such a line.")
}

/// Prints a signature for a line, to be completed.
pub fn new_signature(line: &str, id: &str) -> Result<u8, Failure> {
    let line = match line {
        "-" => {
            let mut read = String::new();
            std::io::stdin().lock().read_line(&mut read).map_err(Failure::other)?;
            read
        }
        line => line.to_owned(),
    };
    let text = template::signature(id, &line).map_err(|error| Failure::usage(error.to_string()))?;
    print!("{text}");
    Ok(exit::DONE)
}

/// Holds the signatures of these files, or else the user's own, against their examples.
pub fn check_signatures(mut files: Vec<PathBuf>) -> Result<u8, Failure> {
    if files.is_empty() {
        let own = signatures().ok_or_else(|| Failure::usage("there is no configuration directory: name files"))?;
        files = user_files(&own).map_err(|error| Failure::usage(error.to_string()))?;
        if files.is_empty() {
            return Err(Failure::usage(format!("there are no signatures in {}: name files", own.display())));
        }
    }
    let catalogue = Catalogue::with_files(&files).map_err(|error| Failure::usage(error.to_string()))?;
    let areas: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    let (mut out, mut wrong) = (std::io::stdout().lock(), 0);
    for signature in catalogue.signatures().iter().filter(|known| areas.contains(&known.area)) {
        let faults = proof::faults(&catalogue, signature);
        let word = if faults.is_empty() { "good" } else { "wrong" };
        let written = writeln!(out, "{}: {word}", signature.id)
            .and_then(|()| faults.iter().try_for_each(|fault| writeln!(out, "  {fault}")));
        or_seen_enough(written)?;
        wrong += usize::from(!faults.is_empty());
    }
    match wrong {
        0 => Ok(exit::DONE),
        _ => Err(Failure::usage(format!("{wrong} of these signatures do not hold"))),
    }
}
