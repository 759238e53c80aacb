//! How long it takes from the world to the screen: `cargo bench --bench latency`.
//!
//! The program itself in a pseudo-terminal watches an installation behind a real sshd: the cluster's API through a tunnel,
//! the bootstrap node's journal (a real journalctl) over a second hop, the installer's log by `tail`. Budgets: a change in
//! the API is on the screen within 300 ms, the finding of an evidence line within 250 ms. The times of the journal and of
//! the log begin before the line is written, so they hold what the other machine takes as well. `SAMPLES` is how many are
//! taken (30).

#[path = "../it/ports.rs"]
mod ports;
mod program;
#[path = "../it/sshd.rs"]
mod sshd;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bartizan::lab::ocp::ca::Ca;
use bartizan::lab::ocp::kube_api;
use bartizan::lab::ocp::kube_store::{Resource, Store, condition, now};
use base64::Engine;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use program::{Failed, Program};
use sshd::{Sshd, user};

const PATIENCE: Duration = Duration::from_secs(30);
/// Between two samples: long enough for everything to be at rest again.
const PAUSE: Duration = Duration::from_millis(700);

/// The program and what its terminal shows.
struct Watching {
    program: Program,
    screen: vt100::Parser,
    read: usize,
}

impl Watching {
    fn until(&mut self, text: &str) -> Result<(), Failed> {
        let begun = Instant::now();
        loop {
            let fresh = self.program.after(self.read);
            self.read += fresh.len();
            self.screen.process(&fresh);
            if self.screen.screen().contents().contains(text) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("{text:?} is not on the screen:\n{}", self.screen.screen().contents()).into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// How long `change`, told a new word each time, takes to be seen: `before` and the word.
    fn measure(
        &mut self,
        samples: usize,
        before: &str,
        mut change: impl FnMut(&str) -> Result<(), Failed>,
    ) -> Result<Vec<Duration>, Failed> {
        let mut times = Vec::new();
        for number in 0..samples {
            std::thread::sleep(PAUSE);
            let word =
                format!("w{number:03}{}", std::iter::repeat_with(fastrand::lowercase).take(6).collect::<String>());
            let begun = Instant::now();
            change(&word)?;
            self.until(&format!("{before}{word}"))?;
            times.push(begun.elapsed());
        }
        times.sort();
        Ok(times)
    }
}

fn row(what: &str, times: &[Duration], budget: Duration) {
    let at = |part: usize| {
        times.get((times.len() * part / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    let holds = if at(95) <= budget { "holds" } else { "MISSED" };
    println!("{what:<56} median {:>9.1?}  p95 {:>9.1?}  worst {:>9.1?}   {budget:?} {holds}", at(50), at(95), at(100));
}

/// What is installed: a directory of openshift-install on the bastion, a journal on the bootstrap node.
struct Place {
    dir: tempfile::TempDir,
    bastion: Sshd,
    bootstrap: Sshd,
}

impl Place {
    fn new() -> Result<Self, Failed> {
        let dir = tempfile::tempdir()?;
        let at = |name: &str| dir.path().join(name);
        for name in ["bastion", "bootstrap", "tools", "journals", "install"] {
            std::fs::create_dir(at(name))?;
        }
        let journals = at("journals");
        tool(&at("tools").join("journalctl"), &format!("exec /usr/bin/journalctl --directory {journals:?} \"$@\""))?;
        tool(&at("tools").join("sudo"), "shift; exec \"$@\"")?;
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", at("tools").display());
        let sshd = |home: &str| Sshd::with_environment(&[("PATH", &path), ("HOME", &at(home).to_string_lossy())]);
        let (bastion, bootstrap) = (sshd("bastion"), sshd("bootstrap"));
        let metadata = json!({"clusterName": "edge", "clusterID": "c", "infraID": "edge-x7k2p",
            "aws": {"region": "us-east-2", "identifier": [], "clusterDomain": "edge.example.com"}});
        std::fs::write(at("install").join("metadata.json"), metadata.to_string())?;
        // One key for both machines.
        std::fs::copy(bastion.identity(), at("key"))?;
        std::fs::write(bootstrap.authorized_keys(), std::fs::read(bastion.authorized_keys())?)?;
        Ok(Self { dir, bastion, bootstrap })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn installer(&self, level: &str, message: &str) -> Result<(), Failed> {
        let log = self.path("install/.openshift_install.log");
        let mut file = std::fs::File::options().create(true).append(true).open(log)?;
        writeln!(file, "time={:?} level={level} msg={message:?}", now())?;
        Ok(())
    }

    fn journal(&self, number: u64, message: &str) -> Result<(), Failed> {
        let mut child = Command::new("/lib/systemd/systemd-journal-remote")
            .args(["-o", &self.path("journals/node.journal").to_string_lossy(), "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let entry = format!(
            "__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP={number}\n_BOOT_ID=11111111111111111111111111111111\n_PID=100\n\
             PRIORITY=6\n_SYSTEMD_UNIT=bootkube.service\nSYSLOG_IDENTIFIER=bootkube.sh\nMESSAGE={message}\n\n",
            jiff::Timestamp::now().as_microsecond(),
        );
        child.stdin.take().ok_or("no stdin")?.write_all(entry.as_bytes())?;
        child.wait()?.success().then_some(()).ok_or("systemd-journal-remote failed")?;
        Ok(())
    }

    fn watch(&self, kubeconfig: &Path) -> Result<Watching, Failed> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let (bastion, key) = (format!("{}@127.0.0.1:{}", user(), self.bastion.port()), self.bastion.host_key());
        let bootstrap = format!("{}@127.0.0.1:{}", user(), self.bootstrap.port());
        let (dir, identity) = (text(self.path("install")), text(self.path("key")));
        let kubeconfig = kubeconfig.to_string_lossy();
        let args = [
            "watch",
            "--bastion",
            &bastion,
            "--dir",
            &dir,
            "--host-key",
            &key,
            "--identity-file",
            &identity,
            "--bootstrap",
            &bootstrap,
            "--kubeconfig",
            &kubeconfig,
        ];
        let program = Program::start_in((200, 60), &self.path("state"), &args)?;
        Ok(Watching { program, screen: vt100::Parser::new(60u16.try_into()?, 200u16.try_into()?, 0), read: 0 })
    }
}

fn tool(path: &Path, script: &str) -> Result<(), Failed> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, format!("#!/bin/sh\n{script}\n"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn operator(message: &str) -> serde_json::Value {
    let since = now();
    json!({"apiVersion": "config.openshift.io/v1", "kind": "ClusterOperator", "metadata": {"name": "dns"}, "status": {
    "versions": [{"name": "operator", "version": "4.18.12"}],
    "conditions": [
        condition("Available", "True", "AsExpected", "", &since),
        condition("Progressing", "False", "AsExpected", "", &since),
        condition("Degraded", "True", "Broken", message, &since),
    ]}})
}

fn main() -> Result<(), Failed> {
    let samples = std::env::var("SAMPLES").ok().and_then(|text| text.parse().ok()).unwrap_or(30);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _entered = runtime.enter();
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let place = Place::new()?;

    let store = Store::open(place.path("kube.json"));
    store.set_up(true);
    let ca = Ca::make("kube-ca")?;
    let server = ca.server(&["localhost", "127.0.0.1"])?;
    let api = kube_api::start(store.clone(), &server, ca.pem(), "v1.31.7", CancellationToken::new())?;
    let admin = ca.client("system:admin", "system:masters")?;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "c", "cluster": {"server": format!("https://localhost:{}", api.port()),
            "certificate-authority-data": encode(ca.pem())}}],
        "users": [{"name": "u", "user": {"client-certificate-data": encode(&admin.certificate),
            "client-key-data": encode(&admin.key)}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}]});
    let path = place.path("kubeconfig");
    std::fs::write(&path, kubeconfig.to_string())?;

    let operators = Resource::named("clusteroperators").ok_or("no such resource")?;
    store.put(operators, operator("begins"));
    place.installer("info", "Waiting up to 45m0s for bootstrapping to complete...")?;
    place.journal(1, "begins")?;
    let mut watching = place.watch(&path)?;
    watching.until("begins")?;

    let times = watching.measure(samples, "", |word| {
        store.put(operators, operator(&format!("{word} says the operator")));
        Ok(())
    })?;
    row("operator's message, through the tunnel", &times, Duration::from_millis(300));
    // What no log line says, but the finding does.
    let finding = "The certificate authority of ";
    let untrusted = |word: &str| {
        let registry = format!("{word}.example.com:5000");
        format!(
            "pinging container registry {registry}: Get \"https://{registry}/v2/\": x509: certificate signed by unknown authority"
        )
    };
    let times = watching.measure(samples, finding, |word| place.installer("error", &untrusted(word)))?;
    row("finding of a line of the installer, with tail", &times, Duration::from_millis(250));
    let mut number = 1;
    let times = watching.measure(samples, finding, |word| {
        number += 1;
        place.journal(number, &untrusted(word))
    })?;
    row("finding of a line of the journal, with journalctl", &times, Duration::from_millis(250));
    Ok(())
}
