//! `bartizan watch` on an installation that something else started, behind two real sshd: all of it is seen, and nothing
//! is left behind.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bartizan::model::event::{BootStage, Data, Event, LinkName, LinkState, Observed, RunOutcome};
use bartizan::model::run::Status;
use bartizan::model::{RunModel, reduce};
use serde_json::json;

use crate::host::{Sshd, argvs, user};

/// A bastion and a bootstrap node that never heard of us, and the operator's machine.
pub struct Place {
    dir: tempfile::TempDir,
    bastion: Sshd,
    pub bootstrap: Sshd,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["bastion", "bootstrap", "tools", "journals", "records"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        // The node's own journal and service records, and a sudo that asks nothing, as on RHCOS.
        tool(&at("tools"), "journalctl", &format!("exec /usr/bin/journalctl --directory {:?} \"$@\"", at("journals")));
        let sudo = "shift\nfor word; do shift; case $word in /var/log/openshift/*) word=RECORDS/${word##*/} ;; esac; \
                    set -- \"$@\" \"$word\"; done\nexec \"$@\"";
        tool(&at("tools"), "sudo", &sudo.replace("RECORDS", &at("records").to_string_lossy()));
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", at("tools").display());
        let sshd = |home: &str| Sshd::with_environment(&[("PATH", &path), ("HOME", &at(home).to_string_lossy())]);
        let (bastion, bootstrap) = (sshd("bastion"), sshd("bootstrap"));
        let place = Self { bastion, bootstrap, dir };
        let install = place.install_dir();
        std::fs::create_dir_all(&install).unwrap();
        let metadata = json!({"clusterName": "edge", "clusterID": "c", "infraID": "edge-x7k2p",
            "aws": {"region": "us-east-2", "identifier": [], "clusterDomain": "edge.example.com"}});
        std::fs::write(install.join("metadata.json"), metadata.to_string()).unwrap();
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn install_dir(&self) -> PathBuf {
        self.path("bastion/clusters/edge")
    }

    /// The installer logs a line.
    pub fn installer(&self, level: &str, message: &str) {
        let mut file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.install_dir().join(".openshift_install.log"))
            .unwrap();
        writeln!(file, "time=\"2025-03-01T10:00:00Z\" level={level} msg={message:?}").unwrap();
    }

    /// The node's journal gets an entry of bootkube.
    pub fn journal(&self, number: u64, message: &str) {
        let mut child = Command::new("/lib/systemd/systemd-journal-remote")
            .args(["-o", &self.path("journals/node.journal").to_string_lossy(), "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("systemd-journal-remote is installed (apt: systemd-journal-remote)");
        let entry = format!(
            "__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP={number}\n_BOOT_ID={}\n_PID=100\nPRIORITY=6\n\
             _SYSTEMD_UNIT=bootkube.service\nSYSLOG_IDENTIFIER=bootkube.sh\nMESSAGE={message}\n\n",
            1_740_823_200_000_000 + number,
            crate::journal::BOOT,
        );
        child.stdin.take().unwrap().write_all(entry.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    fn watch(&self, more: &[&str]) -> Watching {
        let bastion = format!("{}@127.0.0.1:{}", user(), self.bastion.port());
        let host_key = self.bastion.host_key();
        let there = ["--bastion", &bastion, "--host-key", &host_key];
        self.watch_here(&[&there, more].concat())
    }

    /// Without a bastion: the install directory is on this machine.
    pub fn watch_here(&self, more: &[&str]) -> Watching {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bartizan"));
        command
            .args(["--state", &self.path("state").to_string_lossy(), "watch", "--json"])
            .args(["--dir", &self.install_dir().to_string_lossy()])
            .args(["--identity-file", &self.path("key").to_string_lossy()])
            .args(more);
        Watching::start(command, &self.path("output"))
    }

    /// Every file of both machines, with what tells that nobody touched it.
    fn listing(&self) -> BTreeMap<PathBuf, (u64, i64, i64, Vec<u8>)> {
        fn walk(dir: &Path, into: &mut BTreeMap<PathBuf, (u64, i64, i64, Vec<u8>)>) {
            for entry in std::fs::read_dir(dir).unwrap().flatten() {
                let (path, known) = (entry.path(), entry.metadata().unwrap());
                let text = if known.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
                into.insert(path.clone(), (known.ino(), known.mtime(), known.mtime_nsec(), text));
                if known.is_dir() {
                    walk(&path, into);
                }
            }
        }
        let mut found = BTreeMap::new();
        ["bastion", "bootstrap"].iter().for_each(|home| walk(&self.path(home), &mut found));
        found
    }
}

fn tool(dir: &Path, name: &str, script: &str) {
    let path = dir.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

pub struct Watching {
    child: Child,
    output: PathBuf,
    errors: PathBuf,
}

impl Watching {
    pub fn start(mut command: Command, output: &Path) -> Self {
        let errors = output.with_extension("errors");
        let child = command
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(output).unwrap())
            .stderr(std::fs::File::create(&errors).unwrap())
            .spawn()
            .unwrap();
        Self { child, output: output.to_owned(), errors }
    }

    /// Until it ends by itself.
    pub fn wait(&mut self, patience: Duration) -> Option<i32> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end: {:#?}", self.events());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn model(&self) -> RunModel {
        let mut model = RunModel::default();
        self.events().iter().for_each(|event| reduce(&mut model, event));
        model
    }

    fn events(&self) -> Vec<Event> {
        let text = std::fs::read_to_string(&self.output).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    pub fn until(&mut self, what: &str, holds: impl Fn(&[Event]) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds(&self.events()) {
            let errors = std::fs::read_to_string(&self.errors).unwrap();
            assert!(self.child.try_wait().unwrap().is_none(), "it ended: {errors}");
            assert!(Instant::now() < deadline, "still not: {what}: {:#?}", self.events());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn end(mut self) -> (Option<i32>, RunModel) {
        let pid = rustix::process::Pid::from_child(&self.child);
        // It may have ended by itself.
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        let code = self.child.wait().unwrap().code();
        (code, self.model())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // After `end` there is nothing to kill.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

pub fn stage(events: &[Event], wanted: &str, state: BootStage) -> bool {
    events.iter().any(|event| {
        matches!(&event.data, Data::Observed(Observed::Bootkube { stage, state: seen, .. }) if stage == wanted && *seen == state)
    })
}

pub fn phase(events: &[Event], wanted: &str) -> bool {
    events
        .iter()
        .any(|event| matches!(&event.data, Data::Observed(Observed::Installer { phase, .. }) if phase == wanted))
}

#[test]
fn an_installation_is_watched_that_knows_nothing_of_us() {
    let mut place = Place::new();
    std::fs::copy(place.bastion.identity(), place.path("key")).unwrap();
    std::fs::set_permissions(place.path("key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    // The bootstrap node lets in only the key that the installer made for itself.
    let own = std::fs::read(place.bootstrap.identity()).unwrap();
    let state = {
        use base64::Engine as _;
        json!({"*tls.BootstrapSSHKeyPair": {"Priv": base64::prelude::BASE64_STANDARD.encode(&own), "Pub": ""}})
    };
    std::fs::write(place.install_dir().join(".openshift_install_state.json"), state.to_string()).unwrap();
    place.installer("debug", "OpenShift Installer 4.18.12");
    place.installer("info", "Creating infrastructure resources...");
    place.installer("info", "Waiting up to 45m0s (until 10:45AM UTC) for bootstrapping to complete...");
    place.journal(1, "Moving OpenShift manifests in with the rest of them");
    let before = place.listing();

    let node = format!("{}@127.0.0.1:{}", user(), place.bootstrap.port());
    let mut watching = place.watch(&["--bootstrap", &node]);
    watching.until("the bootstrap phase", |events| phase(events, "bootstrap"));
    watching.until("the first stage", |events| stage(events, "openshift-manifests", BootStage::Running));
    assert_eq!(place.listing(), before, "somebody wrote to the bastion or to the bootstrap node");

    // Live: the next stage begins, and it breaks.
    place.journal(2, "Rendering api manifests...");
    watching.until("the second stage", |events| stage(events, "api-bootstrap", BootStage::Running));
    place.journal(
        3,
        "Error: initializing source docker://mirror.example.com:8443/ocp@sha256:1: pinging container registry \
         mirror.example.com:8443: Get \"https://mirror.example.com:8443/v2/\": tls: failed to verify certificate: x509: \
         certificate signed by unknown authority",
    );
    watching.until("the finding", |events| {
        events
            .iter()
            .any(|event| matches!(&event.data, Data::FindingOpened { finding } if finding.line.contains("x509")))
    });

    // The first hop breaks and comes back: all goes on where it was.
    let up = |events: &[Event]| {
        let up = |event: &&Event| matches!(event.data, Data::Link { link: LinkName::Ssh, state: LinkState::Up });
        events.iter().filter(up).count()
    };
    let ups = up(&watching.events());
    place.bastion.stop_listening();
    assert!(place.bastion.cut() > 0);
    place.journal(4, "Rendering cluster config manifests...");
    place.installer("error", "Bootstrap failed to complete: timed out waiting for the condition");
    place.bastion.resume();
    watching.until("the link is up again", |events| up(events) > ups);
    watching.until("the third stage", |events| stage(events, "config-bootstrap", BootStage::Running));
    watching.until("the failed step", |events| {
        events
            .iter()
            .any(|event| matches!(&event.data, Data::StepEnded { step, .. } if step.as_str() == "08-install/bootstrap"))
    });

    let after = {
        let mut now = place.listing();
        // This one the installer wrote.
        now.retain(|path, _| !path.ends_with(".openshift_install.log"));
        now
    };
    let (code, model) = watching.end();
    assert_eq!(code, Some(0));
    assert!(before.keys().all(|path| path.ends_with(".openshift_install.log") || after.get(path) == before.get(path)));
    assert_eq!(after.len() + 1, before.len(), "{:?}", after.keys());
    let mark = place.dir.path().to_string_lossy().into_owned();
    let deadline = Instant::now() + Duration::from_secs(20);
    let left = || argvs().filter(|argv| argv.contains("journalctl") && argv.contains(&mark)).collect::<Vec<_>>();
    while !left().is_empty() || place.bastion.connected() || place.bootstrap.connected() {
        assert!(Instant::now() < deadline, "left behind: {:?}", left());
        std::thread::sleep(Duration::from_millis(50));
    }

    // The record is a run like any other.
    assert_eq!((model.cluster.name.as_str(), model.cluster.version.as_str()), ("edge", "4.18.12"));
    assert_eq!(model.closed.as_ref().unwrap().0, RunOutcome::Stopped);
    let statuses: Vec<Status> = model.plan.steps().map(|step| model.steps[&step.id].status).collect();
    assert_eq!(statuses, [Status::Done, Status::Failed, Status::Waiting]);
    // What had begun before anybody watched began then.
    let began = jiff::Timestamp::from_microsecond(1_740_823_200_000_001).unwrap();
    assert_eq!((model.bootkube[0].stage.as_str(), model.bootkube[0].started), ("openshift-manifests", began));
    assert_eq!(model.installer.phases[0].started.to_string(), "2025-03-01T10:00:00Z");
    let log = model.logs["journal:bootstrap"].clone();
    assert_eq!((log.lines, log.gaps.len()), (4, 0));
    let secret = String::from_utf8_lossy(&own).lines().nth(2).unwrap().to_owned();
    let told = std::fs::read_to_string(place.path("output")).unwrap();
    assert!(!told.contains(&secret), "the node's key was told");
    let replay = Command::new(env!("CARGO_BIN_EXE_bartizan"))
        .args(["--state", &place.path("state").to_string_lossy(), "replay", "--plain"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&replay.stdout);
    assert!(replay.status.success() && said.contains("bootstrap: api-bootstrap running"), "{said}");
}

#[test]
fn a_watch_says_what_is_missing_before_it_records_anything() {
    let place = Place::new();
    std::fs::copy(place.bastion.identity(), place.path("key")).unwrap();
    let state = place.path("state").to_string_lossy().into_owned();
    let bastion = format!("{}@127.0.0.1:{}", user(), place.bastion.port());
    let run = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_bartizan"))
            .args(["--state", &state, "watch", "--plain", "--bastion", &bastion, "--dir", "nowhere"])
            .args(["--identity-file", &place.path("key").to_string_lossy()])
            .args(more)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = run(&["--host-key", &place.bastion.host_key()]);
    assert!(code == Some(2) && said.contains("there is no install directory nowhere on bastion"), "{said}");
    let print = bartizan::host::ssh::fingerprint(&place.bastion.host_key()).unwrap();
    let (code, said) = run(&[]);
    assert!(code == Some(2) && said.contains(&print) && said.contains("--accept-host-key"), "{said}");
    let (_, said) = run(&["--accept-host-key", &print]);
    assert!(said.contains("there is no install directory"), "{said}");
    let (_, said) = run(&["--accept-host-key", "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]);
    assert!(said.contains("shows no host key with the fingerprint"), "{said}");
    assert_eq!(std::fs::read_dir(place.path("state/runs")).unwrap().count(), 0);
}

#[test]
fn a_watch_that_can_record_nothing_any_more_ends_and_says_so() {
    let place = Place::new();
    place.installer("info", "Waiting up to 45m0s for bootstrapping to complete...");
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let errors = std::fs::File::create(place.path("errors")).unwrap();
    // No file may become larger than 64 KiB (bash(1), ulimit), as if the disk were full.
    let mut child = Command::new("bash")
        .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$@\"", "bash", env!("CARGO_BIN_EXE_bartizan")])
        .args(["--state", &text(place.path("state")), "watch", "--plain", "--dir", &text(place.install_dir())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .unwrap();
    for number in 0..1500 {
        place.installer("info", &format!("line {number} of an installation that says more than there is room for"));
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it goes on: {:?}", child.wait());
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let said = std::fs::read_to_string(place.path("errors")).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("nothing can be recorded any more") && said.contains("make room"), "{said}");
}
