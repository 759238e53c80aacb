//! What oc-mirror v2 says (openshift/oc-mirror, `v2/internal/pkg/{cli,batch,log,spinners}`).
//!
//! Every line of its log has a time and a coloured level, terminal or not. Images are told when they are finished: on a
//! terminal by spinners that are drawn again and again, else by one line each.

use super::lines::Lines;
use super::{Said, digest_in};

const TO: &str = "➡";
/// oc-mirror and mpb draw these in turn.
const SPINNER: std::ops::RangeInclusive<char> = '\u{2800}'..='\u{28ff}';

/// One line without control sequences.
pub fn read(line: &str) -> Option<Said> {
    match level(line) {
        Some(("ERROR", text)) => Some(error(text)),
        Some(("WARN", text)) => Some(Said::Warning(text.to_owned())),
        Some(("INFO", text)) => info(text),
        Some(_) => None,
        None => spinner(line),
    }
}

/// A line of its log, not of what it draws on a terminal.
pub fn is_log(line: &str) -> bool {
    level(line).is_some()
}

/// `2025/11/25 12:50:51  [INFO]   : text`
fn level(line: &str) -> Option<(&str, &str)> {
    let (before, rest) = line.split_once('[')?;
    let (level, text) = rest.split_once(']')?;
    let known = ["INFO", "WARN", "ERROR", "DEBUG", "TRACE"].contains(&level);
    let dated = before.chars().all(|c| c.is_ascii_digit() || "/: ".contains(c));
    let text = text.trim_start().strip_prefix(':').filter(|_| known && dated)?;
    // What follows the colon's own space may be indented: the results are.
    Some((level, text.trim()))
}

fn info(text: &str) -> Option<Said> {
    if let Some(rest) = text.strip_prefix("Success copying ") {
        let image = rest.split(TO).next().unwrap_or(rest).trim();
        return Some(Said::Copied { image: bare(image) });
    }
    if let Some((_, count)) = text.split_once("images to copy ") {
        return count.trim().parse().ok().map(Said::Images);
    }
    if let Some(result) = result(text) {
        return Some(result);
    }
    if let Some(file) = text.strip_suffix(" file created") {
        return Some(Said::Wrote { file: file.trim().to_owned() });
    }
    // Collecting can take hours, and there is nothing else to see.
    let words = text.trim_start_matches(|c: char| !c.is_ascii_alphanumeric() && c != '/');
    let phase = [
        "workflow mode",
        "going to discover",
        "collecting ",
        "rebuilding",
        "Start copying",
        "Generating",
        "mirror time",
    ];
    (phase.iter().any(|begin| words.starts_with(begin)) || words.starts_with("Success collecting"))
        .then(|| Said::Phase(words.to_owned()))
}

/// ` ✓  192 / 192 release images mirrored successfully`
fn result(text: &str) -> Option<Said> {
    let text = text.strip_prefix(['✓', '✗'])?.trim_start();
    let (done, rest) = text.split_once(" / ")?;
    let mut words = rest.split_whitespace();
    let (of, kind) = (words.next()?.parse().ok()?, words.next()?);
    (words.next() == Some("images")).then(|| Said::Result {
        kind: kind.to_owned(),
        done: done.trim().parse().ok().unwrap_or(0),
        of,
    })
}

fn error(text: &str) -> Said {
    if let Some(failure) = failure(text) {
        return Said::Failed { image: failure.image, why: failure.why };
    }
    // `Failed to copy ocpReleaseContent docker://…`; before 4.19 `Failed copying image …`.
    for begin in ["Failed to copy ", "Failed copying "] {
        if let Some(image) = text.strip_prefix(begin).and_then(|rest| rest.split_whitespace().nth(1)) {
            return Said::Failed { image: bare(image), why: text.to_owned() };
        }
    }
    Said::Error(text.to_owned())
}

/// ` ✓   (1m40s)  support-tools:latest ➡️  reg:8443/rhel9/ `: only the last part of the origin's path is shown.
fn spinner(line: &str) -> Option<Said> {
    let line = line.trim_start();
    let mark = line.chars().next()?;
    let rest = line.get(mark.len_utf8()..)?;
    let (name, _) = rest.split_once(TO)?;
    let name = match name.trim().strip_prefix('(') {
        Some(timed) => timed.split_once(')')?.1.trim(),
        None => name.trim(),
    };
    if name.is_empty() || name.contains(char::is_whitespace) {
        return None;
    }
    match mark {
        '✓' => Some(Said::Copied { image: bare(name) }),
        '✗' | 'x' => Some(Said::Failed { image: bare(name), why: "oc-mirror could not copy it".to_owned() }),
        mark if SPINNER.contains(&mark) => Some(Said::Copying { image: bare(name) }),
        _ => None,
    }
}

/// Without the transport.
fn bare(image: &str) -> String {
    image.trim_start_matches("docker://").to_owned()
}

/// An image that could not be mirrored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub image: String,
    pub why: String,
}

/// `error mirroring image ORIGIN [(Operator bundles: … - Operators: …)] error: TEXT`, with whatever stands before.
fn failure(text: &str) -> Option<Failure> {
    let (_, rest) = text.split_once("error mirroring image ")?;
    let (image, rest) = rest.split_once(' ')?;
    let (_, why) = rest.split_once("error: ")?;
    Some(Failure { image: bare(image), why: why.to_owned() })
}

/// A `mirroring_errors_<time>.txt`: the images that are not in the mirror, and why.
pub fn failures(file: &[u8]) -> Vec<Failure> {
    let mut lines = Lines::default();
    let mut found = lines.push(file);
    found.extend(lines.end());
    found.iter().filter_map(|line| failure(line)).collect()
}

/// What a status says: a sum of kinds of images that failed (`v2/internal/pkg/errcode`). Nothing for 0, and for one that
/// is none of its own.
pub fn failed_kinds(status: i32) -> Vec<&'static str> {
    if !(1..32).contains(&status) {
        return Vec::new();
    }
    [(1, "generic"), (2, "release"), (4, "operator"), (8, "additional"), (16, "helm")]
        .iter()
        .filter(|(bit, _)| status & bit != 0)
        .map(|(_, kind)| *kind)
        .collect()
}

/// Whether two names are of the same image: by digest when both have one, else by name, where a spinner shows only the
/// last part of it.
pub fn same(said: &str, known: &str) -> bool {
    match (digest_in(said), digest_in(known)) {
        (Some(said), Some(known)) => said == known,
        _ => said == known || known.strip_suffix(said).is_some_and(|before| before.ends_with('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_a_sum() {
        assert_eq!(failed_kinds(0), Vec::<&str>::new());
        assert_eq!(failed_kinds(12), ["operator", "additional"]);
        assert_eq!(failed_kinds(1), ["generic"]);
        assert_eq!(failed_kinds(137), Vec::<&str>::new());
    }

    #[test]
    fn names_of_images() {
        let digest = format!("sha256:{}", "a".repeat(64));
        assert!(same(
            &format!("ocp-v4.0-art-dev@{digest}"),
            &format!("quay.io/openshift-release-dev/ocp-v4.0-art-dev@{digest}")
        ));
        assert!(same("support-tools:latest", "registry.redhat.io/rhel9/support-tools:latest"));
        assert!(!same("tools:latest", "registry.redhat.io/rhel9/support-tools:latest"));
    }
}
