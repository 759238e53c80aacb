//! Every recovery in the lab: a scenario breaks exactly what it is for, it is applied, and the pipeline goes on to a good
//! end. Applied a second time it changes nothing: no call to the cloud, no file of the mirror, no install directory.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bartizan::model::event::{Data, Event, Outcome};
use bartizan::record::read_events;
use serde_json::Value;

/// How a recovery is applied the first time.
#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    /// `--recover` sees the finding by itself.
    Seen,
    /// The run fails with this exit code; then `bartizan recover --apply`.
    After(i32),
    /// The run comes to no end by itself: it is killed when the scenario has done its worst, then `bartizan recover
    /// --apply`.
    Killed,
}

struct Row {
    recovery: &'static str,
    scenario: &'static str,
    how: How,
    /// The pipeline's end in this test.
    until: &'static str,
    speed: &'static str,
}

const fn row(
    recovery: &'static str,
    scenario: &'static str,
    how: How,
    until: &'static str,
    speed: &'static str,
) -> Row {
    Row { recovery, scenario, how, until, speed }
}

/// The longest first.
const TABLE: &[Row] = &[
    row("approve-csrs", "csr-pending", How::After(6), "08", "120"),
    row("trust-mirror-ca", "mirror-ca", How::Seen, "08", "60"),
    row("pull-secret", "pull-secret", How::Seen, "08", "60"),
    row("expired-assets", "assets-expired", How::Seen, "08", "60"),
    row("reinstall", "machines-missing", How::After(4), "08", "60"),
    row("set-clock", "clock-skew", How::Seen, "08", "60"),
    row("cluster-records", "dns-api-int", How::Seen, "08", "60"),
    row("cluster-rules", "mcs-unreachable", How::Seen, "08", "60"),
    row("restart-unit", "unit-given-up", How::Seen, "08", "60"),
    row("resync-image", "missing-image", How::Seen, "08", "60"),
    row("registry-service", "registry-down", How::Seen, "08", "60"),
    row("registry-certificate", "registry-certificate", How::Seen, "08", "60"),
    row("mirror-account", "mirror-account", How::Seen, "08", "60"),
    row("mirror-port", "mirror-port-closed", How::Seen, "08", "60"),
    row("mirror-record", "mirror-name-lost", How::Seen, "08", "60"),
    row("reboot-bastion", "bastion-hangs", How::Killed, "06", "60"),
    row("disk-prune", "disk-junk", How::Seen, "06", "60"),
    row("disk-grow", "disk-full", How::Seen, "06", "60"),
    row("await-quota", "quota-low", How::Seen, "01", "60"),
];

/// Installations at once: each keeps less than one core busy.
const AT_ONCE: usize = 3;
const LONGEST: Duration = Duration::from_secs(150);
const CLUSTER: &str = "edge-lab";

struct World {
    dir: tempfile::TempDir,
    lab: Child,
    speed: &'static str,
}

impl Drop for World {
    fn drop(&mut self) {
        // Whatever the test came to.
        let _ = self.lab.kill();
        let _ = self.lab.wait();
    }
}

fn bartizan() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bartizan"));
    command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::null());
    command
}

impl World {
    fn start(row: &Row) -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|why| why.to_string())?;
        let mut lab = bartizan()
            .args(["lab", "--scenario", row.scenario, "--speed", row.speed, "--payload-mb", "16", "--dir"])
            .arg(dir.path().join("lab"))
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|why| why.to_string())?;
        let said = lab.stdout.take().map(BufReader::new);
        // The last of what it says: it is up.
        let up =
            said.is_some_and(|said| said.lines().map_while(Result::ok).any(|line| line.starts_with("bartizan run ")));
        let world = Self { dir, lab, speed: row.speed };
        if up { Ok(world) } else { Err("the lab did not start".into()) }
    }

    fn lab(&self, name: &str) -> PathBuf {
        self.dir.path().join("lab").join(name)
    }

    /// The scenario has done its worst.
    fn has_happened(&self) -> bool {
        std::fs::read_to_string(self.lab("happened.json")).is_ok_and(|text| text.contains("true"))
    }

    fn run(&self) -> Option<PathBuf> {
        let mut runs = std::fs::read_dir(self.dir.path().join("state/runs")).ok()?;
        runs.next()?.ok().map(|run| run.path())
    }

    fn events(&self) -> Vec<Event> {
        self.run().and_then(|run| read_events(&run.join("run.jsonl")).ok()).unwrap_or_default()
    }

    /// Its exit code; `None` when it was killed, a moment after the scenario's twist.
    fn bartizan(&self, args: &[&str], until: &str, limit: Duration, killed: bool) -> Result<Option<i32>, String> {
        let mut command = bartizan();
        command.arg("--state").arg(self.dir.path().join("state")).args(args).arg("--cloud").arg(self.lab("cloud.json"));
        command.args(["--pace", self.speed, "--plain", "--until", until]);
        let mut child = command.spawn().map_err(|why| why.to_string())?;
        let started = Instant::now();
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status.code()),
                Ok(None) if killed && self.has_happened() => {
                    std::thread::sleep(Duration::from_secs(3));
                    let (_killed, _reaped) = (child.kill(), child.wait());
                    return Ok(None);
                }
                Ok(None) if started.elapsed() > limit => {
                    let (_killed, _reaped) = (child.kill(), child.wait());
                    return Err(format!("no end within {limit:?}: {}", self.last()));
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(100)),
                Err(why) => return Err(why.to_string()),
            }
        }
    }

    fn last(&self) -> String {
        let events = self.events();
        let texts = events.iter().rev().filter_map(|event| match &event.data {
            Data::Note { text, .. } => Some(text.clone()),
            Data::StepEnded { step, outcome: Outcome::Failed { causes }, .. } => {
                Some(format!("{step}: {}", causes.join(": ")))
            }
            Data::RunClosed { summary, .. } => Some(summary.clone()),
            Data::FindingOpened { finding } => Some(format!("{}: {}", finding.id, finding.line)),
            _ => None,
        });
        texts.take(8).collect::<Vec<_>>().join(" | ")
    }

    fn recover(&self, row: &Row) -> Result<Option<i32>, String> {
        let args = ["recover", "last", "--apply", row.recovery, "--confirm", CLUSTER];
        self.bartizan(&args, row.until, LONGEST, false)
    }

    /// Everything that a second application must leave as it is: how many changing calls the account has seen, what the
    /// registry is made of, and which install directories there are.
    fn state(&self) -> BTreeMap<String, String> {
        let cloud = std::fs::read(self.lab("cloud.json")).unwrap_or_default();
        let cloud: Value = serde_json::from_slice(&cloud).unwrap_or_default();
        let mut state = BTreeMap::from([("calls to the cloud".to_owned(), cloud["calls"].to_string())]);
        let home = self.lab("machines/hosts/bastion/root/home/ec2-user");
        for file in ["certs/ca.crt", "certs/tls.crt", "certs/tls.key", "auth/htpasswd", "config.yml"] {
            for storage in storages(&home) {
                if let Ok(bytes) = std::fs::read(storage.join(file)) {
                    state.insert(file.to_owned(), String::from_utf8_lossy(&bytes).into_owned());
                }
            }
        }
        for name in std::fs::read_dir(home.join("bartizan")).into_iter().flatten().flatten() {
            let name = name.file_name().to_string_lossy().into_owned();
            if name.starts_with("install-") {
                state.insert(name, "there".to_owned());
            }
        }
        state
    }
}

/// Directories in which a registry may keep itself.
fn storages(home: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(home).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.join("certs").is_dir()).collect()
}

/// Outcomes of the fixes after the last decision to recover with it.
fn fixes(events: &[Event], recovery: &str) -> Option<Vec<Outcome>> {
    let decided = events.iter().rposition(|event| {
        matches!(&event.data, Data::Decision { command, args, .. } if command == "recover" && args.first().is_some_and(|id| id == recovery))
    })?;
    let mut outcomes = Vec::new();
    for event in events.get(decided + 1..)? {
        match &event.data {
            Data::StepEnded { step, outcome, .. } if step.as_str().starts_with("recovery/") => {
                outcomes.push(outcome.clone())
            }
            Data::StepRetry { step, .. } if step.as_str().starts_with("recovery/") => {}
            Data::StepStarted { step, .. } if !step.as_str().starts_with("recovery/") => break,
            Data::Decision { .. } => break,
            _ => {}
        }
    }
    Some(outcomes)
}

/// What became of a row, or why not.
fn carry_out(row: &Row) -> Result<String, String> {
    let world = World::start(row)?;
    let spec = world.lab("cluster.toml").display().to_string();
    match row.how {
        How::Seen => {
            let code = world.bartizan(&["run", &spec, "--recover"], row.until, LONGEST, false)?;
            expect("with --recover", code, 0, &world)?;
        }
        How::After(exit) => {
            let code = world.bartizan(&["run", &spec], row.until, LONGEST, false)?;
            expect("left alone", code, exit, &world)?;
            expect("recovered", world.recover(row)?, 0, &world)?;
        }
        How::Killed => {
            let code = world.bartizan(&["run", &spec], row.until, LONGEST, true)?;
            if code.is_some() {
                return Err(format!("it ended by itself with {code:?}: {}", world.last()));
            }
            expect("recovered", world.recover(row)?, 0, &world)?;
        }
    }
    let first =
        fixes(&world.events(), row.recovery).ok_or_else(|| format!("it was never applied: {}", world.last()))?;
    if !first.iter().any(|outcome| matches!(outcome, Outcome::Success | Outcome::Warning { .. })) {
        return Err(format!("it changed nothing: {first:?}"));
    }
    let before = world.state();
    expect("a second time", world.recover(row)?, 0, &world)?;
    let second = fixes(&world.events(), row.recovery).unwrap_or_default();
    let idle = |outcome: &Outcome| matches!(outcome, Outcome::AlreadyTrue | Outcome::Skipped { .. });
    if second.is_empty() || !second.iter().all(idle) {
        return Err(format!("the second application did something: {second:?}"));
    }
    let after = world.state();
    if before != after {
        let changed: Vec<_> = after.iter().filter(|(name, value)| before.get(*name) != Some(value)).collect();
        return Err(format!("the second application changed {changed:?}"));
    }
    Ok(format!("{} fixes, exit 0; again: nothing changed", first.len()))
}

fn expect(what: &str, found: Option<i32>, wanted: i32, world: &World) -> Result<(), String> {
    if found == Some(wanted) { Ok(()) } else { Err(format!("{what}: exit {found:?}, not {wanted}: {}", world.last())) }
}

#[test]
fn every_recovery_puts_right_what_it_is_for_and_a_second_time_changes_nothing() {
    // One of them, for whoever works on it.
    let only = std::env::var("RECOVERY").ok();
    let rows = TABLE.iter().filter(|row| only.as_ref().is_none_or(|only| row.recovery == only));
    let queue = Mutex::new(rows.collect::<Vec<_>>().into_iter());
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
                    let Some(row) = next else { return };
                    let started = Instant::now();
                    let result = carry_out(row);
                    let mut results = results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    results.push((row, result, started.elapsed().as_secs()));
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    for (row, result, seconds) in &results {
        let words = result.as_ref().unwrap_or_else(|why| why);
        let mark = if result.is_ok() { "ok  " } else { "FAIL" };
        eprintln!("{mark} {:<22} {:<22} {seconds:>4} s  {words}", row.recovery, row.scenario);
    }
    let failed: Vec<_> =
        results.iter().filter(|(_, result, _)| result.is_err()).map(|(row, ..)| row.recovery).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

/// The wrong recovery of a run that has ended: the mirror has another CA now, so the install-config would be another one
/// too, and a second cluster must not be begun beside the one that stands.
#[test]
fn while_a_cluster_stands_no_other_install_config_is_begun() {
    let wrong = row("registry-certificate", "mirror-ca", How::After(5), "08", "60");
    let right = row("reinstall", "mirror-ca", How::After(5), "08", "60");
    let world = World::start(&wrong).expect("a lab");
    let spec = world.lab("cluster.toml").display().to_string();
    let run = |args: &[&str]| world.bartizan(args, wrong.until, LONGEST, false).expect("an end");
    assert_eq!(run(&["run", &spec]), Some(5), "{}", world.last());
    assert_eq!(world.recover(&wrong).expect("an end"), Some(3), "{}", world.last());
    assert!(world.last().contains("bartizan recover --apply reinstall"), "{}", world.last());
    assert!(!world.state().contains_key("install-2"));
    assert_eq!(world.recover(&right).expect("an end"), Some(0), "{}", world.last());
}
