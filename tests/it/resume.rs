//! `kill -9` at any moment, `run --resume`, and the same end: one set of everything, nothing done twice.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bartizan::cloud::memory::MemoryCloud;
use bartizan::cloud::{Cloud, Kind, Tags};
use bartizan::lab::ocp::journal::number;
use bartizan::model::event::{Data, Event, LogLine};
use bartizan::model::{RunModel, reduce};
use bartizan::record::read_events;
use bartizan::watch::journal::BOOTSTRAP_UNITS;

use crate::whole::{ALONE, journal_of_the_node};

const KILLS: usize = 30;
/// Of them in one lab, so that they are spread over whole installations.
const KILLS_A_LAB: usize = 11;
/// A resumed run takes seconds to come back to where it was: longer lives reach further.
const LIFE_MS: std::ops::Range<u64> = 50..6500;
const LONGEST: Duration = Duration::from_secs(120);

/// A lab in a process of its own, which nobody kills, and the run that is made in it.
struct World {
    dir: tempfile::TempDir,
    lab: Child,
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
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}

impl World {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut lab = bartizan()
            .args(["lab", "--scenario", "happy", "--speed", "60", "--payload-mb", "8", "--dir"])
            .arg(dir.path().join("lab"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(lab.stdout.take().unwrap()).lines();
        // The last of what it says: it is up.
        assert!(said.map_while(Result::ok).any(|line| line.starts_with("bartizan run ")), "the lab did not start");
        Self { dir, lab }
    }

    fn lab(&self) -> PathBuf {
        self.dir.path().join("lab")
    }

    /// The run's directory, once it has an event that makes it one.
    fn run(&self) -> Option<PathBuf> {
        let runs = std::fs::read_dir(self.dir.path().join("state/runs")).ok()?;
        let mut begun = runs
            .map(|run| run.unwrap().path())
            .filter(|run| read_events(&run.join("run.jsonl")).is_ok_and(|events| !events.is_empty()));
        let run = begun.next();
        assert_eq!(begun.next(), None, "a second run was begun");
        run
    }

    fn process(&self, until: &str) -> Child {
        let (lab, state) = (self.lab(), self.dir.path().join("state"));
        let mut command = bartizan();
        command
            .arg("--state")
            .arg(state)
            .arg("run")
            .arg(lab.join("cluster.toml"))
            .arg("--cloud")
            .arg(lab.join("cloud.json"));
        if self.run().is_some() {
            command.args(["--resume", "last"]);
        }
        command.args(["--plain", "--until", until]).stdout(Stdio::null()).spawn().unwrap()
    }

    /// To the end of `until`, with at most `kills` on the way. How many there were, each with what was last recorded.
    fn storm(&self, until: &str, kills: usize) -> usize {
        for kill in 0..=kills {
            let mut process = self.process(until);
            let life = if kill < kills { Duration::from_millis(fastrand::u64(LIFE_MS)) } else { LONGEST };
            match ended(&mut process, life) {
                Some(code) => {
                    assert_eq!(code, Some(0), "after {kill} kills the run did not end well: {:?}", self.last_event());
                    return kill;
                }
                None => {
                    process.kill().unwrap();
                    process.wait().unwrap();
                    assert!(kill < kills, "it came to no end in {LONGEST:?}: {:?}", self.last_event());
                    eprintln!("killed after {life:?} at {}", self.last_event());
                }
            }
        }
        kills
    }

    fn last_event(&self) -> String {
        let text = self.run().map(|run| std::fs::read_to_string(run.join("run.jsonl")).unwrap()).unwrap_or_default();
        text.lines().last().unwrap_or("nothing").chars().take(200).collect()
    }

    fn events(&self) -> Vec<Event> {
        read_events(&self.run().unwrap().join("run.jsonl")).unwrap()
    }

    fn model(&self) -> RunModel {
        let mut model = RunModel::default();
        self.events().iter().for_each(|event| reduce(&mut model, event));
        model
    }

    /// None when nobody was ever there to read that source.
    fn lines(&self, source: &str) -> Vec<LogLine> {
        let log = self.run().unwrap().join("logs").join(format!("{source}.log"));
        let text = if log.exists() { std::fs::read_to_string(log).unwrap() } else { String::new() };
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What stands in the cloud, by kind and `Name`.
    fn standing(&self) -> BTreeMap<(Kind, String), usize> {
        let cloud = MemoryCloud::open(self.lab().join("cloud.json")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut standing = BTreeMap::new();
        for kind in Kind::ALL {
            for resource in runtime.block_on(cloud.find(kind, &Tags::new())).unwrap() {
                if !["terminated", "deleted", "shutting-down"].contains(&resource.state.as_str()) {
                    let name = resource.tags.get("Name").cloned().unwrap_or_else(|| resource.id.clone());
                    *standing.entry((kind, name)).or_default() += 1;
                }
            }
        }
        standing
    }
}

/// The exit code, if it ends in time.
fn ended(process: &mut Child, limit: Duration) -> Option<Option<i32>> {
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(status) = process.try_wait().unwrap() {
            return Some(status.code());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

fn one_set_of_everything_stands(world: &World) {
    let standing = world.standing();
    for ((kind, name), count) in &standing {
        assert_eq!(*count, 1, "{kind:?} {name}");
    }
    let count = |kind| standing.keys().filter(|(found, _)| *found == kind).count();
    assert_eq!(count(Kind::Vpc), 1, "{standing:#?}");
    assert_eq!(count(Kind::VpcEndpoint), 4, "{standing:#?}");
    let instances: Vec<&String> =
        standing.keys().filter(|(kind, _)| *kind == Kind::Instance).map(|(_, name)| name).collect();
    assert_eq!(instances.iter().filter(|name| name.ends_with("bastion")).count(), 1, "{instances:?}");
    assert_eq!(instances.iter().filter(|name| name.contains("-master-")).count(), 3, "{instances:?}");
    assert_eq!(instances.iter().filter(|name| name.ends_with("-bootstrap")).count(), 0, "{instances:?}");
    let clusters: BTreeSet<&str> =
        instances.iter().filter_map(|name| name.split("-master-").nth(1).and(name.split("-master-").next())).collect();
    assert_eq!(clusters.len(), 1, "{instances:?}");
}

fn nothing_was_done_twice(world: &World) {
    let events = world.events();
    let numbers: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
    let mut created = BTreeMap::new();
    for event in &events {
        if let Data::Created { object, id } = &event.data {
            assert_eq!(created.insert(object.clone(), id.clone()), None, "{object:?} was made twice");
        }
    }
    let clusters: Vec<_> = created.keys().filter(|object| object.kind == "cluster").collect();
    assert!(clusters.len() == 1 && clusters.iter().all(|cluster| cluster.name == "install-1"), "{clusters:?}");
    let cursors: Vec<_> = world.lines("installer").into_iter().map(|line| line.cursor).collect();
    assert_eq!(cursors.iter().collect::<BTreeSet<_>>().len(), cursors.len(), "lines of the installer came twice");
}

/// Unit by unit the record holds what the node wrote, each line once. The node may have gone while nobody was there: then
/// the end is missing, and the record says so.
fn the_journal_has_no_hole(world: &World) {
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in world.lines("journal_bootstrap") {
        seen.entry(line.unit).or_default().push(line.text);
    }
    let told = world
        .events()
        .iter()
        .any(|event| matches!(&event.data, Data::Gap { source, .. } if source == "journal:bootstrap"));
    let mut missing = 0;
    for (unit, lines) in journal_of_the_node(&world.lab()) {
        if BOOTSTRAP_UNITS.contains(&unit.as_str()) {
            let read = seen.remove(&unit).unwrap_or_default();
            assert_eq!(read.as_slice(), lines.get(..read.len()).unwrap_or_default(), "journal of {unit}");
            missing += lines.len() - read.len();
        }
    }
    assert!(seen.is_empty(), "nobody wrote {seen:?}");
    assert!(missing == 0 || told, "{missing} lines of the journal are missing, and nobody was told");
    let numbers: Vec<u64> = world.lines("journal_bootstrap").iter().filter_map(|line| number(&line.text)).collect();
    assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), numbers.len(), "{numbers:?}");
    eprintln!("{} numbered lines, {missing} lines gone with the node", numbers.len());
}

fn every_step_is_done(world: &World, from: &str, until: &str) {
    let model = world.model();
    for stage in model.plan.stages.iter().filter(|stage| (from..=until).contains(&stage.id.number())) {
        let status = model.stage_status(&stage.id);
        assert_eq!(status.done, status.total, "{} {:?}", stage.id, status.status);
    }
}

/// `ssh` of ours ends by itself, because the pipe that it hangs on is gone with us.
fn no_ssh_is_left(dir: &Path) {
    let ours = dir.to_str().unwrap();
    let left = || -> Vec<String> {
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let lines = processes.filter_map(|process| std::fs::read_to_string(process.path().join("cmdline")).ok());
        lines.filter(|line| line.starts_with("ssh\0") && line.contains(ours)).collect()
    };
    let start = Instant::now();
    while !left().is_empty() && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(left(), Vec::<String>::new());
}

#[test]
fn killed_at_thirty_moments_it_comes_to_the_same_end() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let seed =
        std::env::var("RESUME_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    eprintln!("RESUME_SEED={seed}");
    fastrand::seed(seed);
    let mut killed = 0;
    while killed < KILLS {
        let world = World::start();
        let here = (KILLS - killed).min(KILLS_A_LAB);
        let before = world.storm("09", here);
        one_set_of_everything_stands(&world);
        nothing_was_done_twice(&world);
        every_step_is_done(&world, "01", "09");
        the_journal_has_no_hole(&world);
        killed += before + world.storm("10", (KILLS - killed - before).min(3));
        assert_eq!(world.standing(), BTreeMap::new());
        assert!(world.model().standing_objects().is_empty(), "{:?}", world.model().standing_objects());
        nothing_was_done_twice(&world);
        every_step_is_done(&world, "10", "10");
        no_ssh_is_left(world.dir.path());
        eprintln!("{killed} kills");
    }
}

/// Who drives is asked to leave as soon as its lock can be seen, before anything is on its screen.
#[test]
fn a_driver_in_its_first_moment_leaves_when_it_is_asked_to() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let world = World::start();
    for _ in 0..3 {
        let mut first = world.process("01-infrastructure");
        let begun = Instant::now();
        let before = loop {
            assert!(begun.elapsed() < LONGEST, "nobody took the run");
            if let Some(run) = world.run()
                && let Ok(Some(holder)) = bartizan::record::lease::take_over(&run, LONGEST)
            {
                break holder;
            }
        };
        assert_eq!(u32::try_from(before.pid).unwrap(), first.id());
        assert_eq!(ended(&mut first, LONGEST), Some(Some(8)), "it has detached");
    }
}

/// The one who comes says so, the one who leaves detaches, and both stand in the record.
#[test]
fn a_run_is_taken_over_on_purpose_and_that_is_recorded() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let world = World::start();
    let mut first = world.process("09-verify");
    let begun = Instant::now();
    let at_work = || {
        let events = world.run().and_then(|run| read_events(&run.join("run.jsonl")).ok()).unwrap_or_default();
        events.iter().any(|event| matches!(event.data, Data::StepEnded { .. }))
    };
    while !at_work() {
        assert!(begun.elapsed() < LONGEST, "the first did not begin");
        std::thread::sleep(Duration::from_millis(50));
    }
    let (lab, state) = (world.lab(), world.dir.path().join("state"));
    let resume = |more: &[&str]| {
        let mut command = bartizan();
        command
            .arg("--state")
            .arg(&state)
            .arg("run")
            .arg(lab.join("cluster.toml"))
            .arg("--cloud")
            .arg(lab.join("cloud.json"));
        command.args(["--resume", "last", "--plain", "--until", "03-credentials"]).args(more).stderr(Stdio::piped());
        command.output().unwrap()
    };
    let refused = resume(&[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("--take-over"), "{said}");
    let taken = resume(&["--take-over"]);
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    assert_eq!(ended(&mut first, LONGEST), Some(Some(8)), "the first has detached");
    let events = read_events(&world.run().unwrap().join("run.jsonl")).unwrap();
    let decided: Vec<&str> = events
        .iter()
        .filter_map(|event| match &event.data {
            Data::Decision { command, .. } => Some(command.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(decided, ["detach", "take-over"]);
}
