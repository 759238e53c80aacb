//! 09: what was verified, in the run's directory, for people (`verify.txt`) and for programs (`verify.json`). It is written
//! after every check, so that a verification that ends early leaves what was seen until then.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::StepError;
use crate::model::event::Evidence;
use crate::spec::secret::redact;

use super::world::{Cx, fact};

/// One check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Checked {
    /// Of the step: `version`, `pull`.
    check: String,
    title: String,
    passed: bool,
    at: Timestamp,
    /// Outermost first; empty when it passed.
    causes: Vec<String>,
    evidence: Vec<Evidence>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Report {
    run: String,
    cluster: String,
    version: String,
    /// Digest of the release.
    release: String,
    checks: Vec<Checked>,
}

impl Report {
    fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }

    fn text(&self) -> String {
        let verdict = if self.passed() { "every check so far passed" } else { "not every check passed" };
        let mut text =
            format!("{} {}, release {}\nrun {}: {verdict}\n", self.cluster, self.version, self.release, self.run);
        for check in &self.checks {
            let mark = if check.passed { "pass" } else { "FAIL" };
            text.push_str(&format!("\n{mark}  {}: {} ({})\n", check.check, check.title, check.at.strftime("%F %TZ")));
            text.extend(check.causes.iter().map(|cause| format!("      ! {cause}\n")));
            text.extend(check.evidence.iter().map(|one| format!("      {}\n        {}\n", one.asked, one.answer)));
        }
        text
    }
}

/// Adds what a step saw, or puts it in the place of what it saw before.
pub(super) async fn keep(cx: &Cx, outcome: &Result<Vec<Evidence>, StepError>) -> Result<(), StepError> {
    let plan = cx.model.plan.steps().find(|step| step.id == cx.step);
    let (causes, evidence) = match outcome {
        Ok(evidence) => (Vec::new(), evidence.clone()),
        Err(error) => (error.causes.clone(), error.evidence.clone()),
    };
    let check = cx.step.to_string().rsplit('/').next().unwrap_or_default().to_owned();
    let seen = Checked {
        title: plan.map(|step| step.title.clone()).unwrap_or_default(),
        check,
        passed: outcome.is_ok(),
        at: Timestamp::now(),
        causes,
        evidence,
    };
    let head = Report {
        run: cx.model.run.clone(),
        cluster: cx.world.spec.domain(),
        version: cx.world.spec.release.version.clone(),
        release: cx.fact(fact::RELEASE_DIGEST).unwrap_or_default(),
        checks: Vec::new(),
    };
    add(&cx.world.run_dir, head, seen)
        .map_err(|error| StepError::transient(format!("writing the report of the verification: {error}")))
}

fn add(folder: &Path, head: Report, seen: Checked) -> std::io::Result<()> {
    let path = folder.join("verify.json");
    // A report of another release is over; a broken one is written anew.
    let old: Option<Report> = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let mut checks = old.filter(|old| old.release == head.release).map(|old| old.checks).unwrap_or_default();
    match checks.iter_mut().find(|check| check.check == seen.check) {
        Some(check) => *check = seen,
        None => checks.push(seen),
    }
    let report = Report { checks, ..head };
    let json = serde_json::to_string_pretty(&report).map_err(std::io::Error::other)?;
    std::fs::write(&path, redact(&json) + "\n")?;
    std::fs::write(folder.join("verify.txt"), redact(&report.text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_is_made_again_takes_its_own_place() {
        let folder = tempfile::tempdir().unwrap();
        let head = || Report {
            run: "r".into(),
            cluster: "edge-lab.example.com".into(),
            version: "4.18.9".into(),
            release: "sha256:aa".into(),
            checks: Vec::new(),
        };
        let seen = |check: &str, passed: bool| Checked {
            check: check.into(),
            title: "a title".into(),
            passed,
            at: Timestamp::UNIX_EPOCH,
            causes: if passed { Vec::new() } else { vec!["it is not".into()] },
            evidence: vec![Evidence::new("oc get x", "y")],
        };
        add(folder.path(), head(), seen("version", false)).unwrap();
        add(folder.path(), head(), seen("nodes", true)).unwrap();
        let text = || std::fs::read_to_string(folder.path().join("verify.txt")).unwrap();
        assert!(text().contains("not every check passed") && text().contains("! it is not"), "{}", text());
        add(folder.path(), head(), seen("version", true)).unwrap();
        assert!(text().contains("every check so far passed") && !text().contains("FAIL"), "{}", text());
        let json = std::fs::read_to_string(folder.path().join("verify.json")).unwrap();
        let report: Report = serde_json::from_str(&json).unwrap();
        assert_eq!(report.checks.iter().map(|check| check.check.as_str()).collect::<Vec<_>>(), ["version", "nodes"]);
        let other = Report { release: "sha256:bb".into(), ..head() };
        add(folder.path(), other, seen("nodes", true)).unwrap();
        assert!(!text().contains("version:"), "{}", text());
    }
}
