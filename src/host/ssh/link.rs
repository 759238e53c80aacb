//! One control connection: an `ssh` master process of our own, and the `openssh` session that speaks to it.
//!
//! The master runs `cat` on the far side with a pipe of ours as its input: when this process goes away, even by
//! SIGKILL, the pipe closes and the master with it. No stale connection is ever left behind.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use openssh::Session;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::host::HostError;
use crate::host::pump::clean;
use crate::model::event::{Data, LinkName, LinkState};
use crate::record::Sink;

/// A living (or just died) control connection. It closes when dropped.
pub(super) struct Connection {
    pub session: Arc<Session>,
    /// Directory for sockets, and a name in it that no other connection has.
    pub socket: PathBuf,
    pub dead: CancellationToken,
    close: CancellationToken,
    _closes: DropGuard,
}

impl Connection {
    /// It does not answer: have it gone.
    pub fn give_up(&self) {
        self.dead.cancel();
        self.close.cancel();
    }
}

/// What a new connection needs to know.
pub(super) struct Way {
    pub name: String,
    pub config: PathBuf,
    pub sockets: PathBuf,
    pub report: Arc<Report>,
}

/// Connect within `limit`.
pub(super) async fn open(way: &Way, limit: Duration) -> Result<Connection, HostError> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let socket = way.sockets.join(SERIAL.fetch_add(1, Ordering::Relaxed).to_string());
    let log = socket.with_extension("log");
    let other = |why: &dyn std::fmt::Display| HostError::Other {
        host: way.name.clone(),
        what: "starting ssh".to_owned(),
        why: why.to_string(),
    };
    let mut command = Command::new("ssh");
    command.arg("-F").arg(&way.config).args(["-M", "-S"]).arg(&socket).args(["-T", "-a", "-x"]);
    for option in
        ["ControlPersist=no", "BatchMode=yes", "RemoteCommand=none", "ClearAllForwardings=yes", "PermitLocalCommand=no"]
    {
        command.args(["-o", option]);
    }
    let stderr = std::fs::File::create(&log).map_err(|why| other(&why))?;
    let mut child = command
        .args([way.name.as_str(), "exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(stderr)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|why| other(&why))?;
    let session = Session::resume_mux(socket.clone().into_boxed_path(), None);
    let ready = timeout(limit, wait_ready(&mut child, &session, &socket)).await;
    if !matches!(ready, Ok(true)) {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        remove(&socket, &log);
        let late = format!("{LATE} {} s", limit.as_secs());
        return Err(refusal(&way.name, if said.trim().is_empty() { &late } else { &said }));
    }
    let (dead, close) = (CancellationToken::new(), CancellationToken::new());
    let ending = (dead.clone(), close.clone());
    tokio::spawn(supervise(child, socket.clone(), log, ending, Arc::clone(&way.report)));
    let _closes = close.clone().drop_guard();
    Ok(Connection { session: Arc::new(session), socket, dead, close, _closes })
}

/// Our own words for an attempt that ended without any of ssh's.
pub const LATE: &str = "no connection within";

/// Whether the master came to listen on its socket, which it does once it is logged in.
async fn wait_ready(child: &mut Child, session: &Session, socket: &Path) -> bool {
    loop {
        if socket.exists() && session.check().await.is_ok() {
            return true;
        }
        if !matches!(child.try_wait(), Ok(None)) {
            return false;
        }
        sleep(Duration::from_millis(15)).await;
    }
}

/// Stay with the master until it ends or is to end.
async fn supervise(
    mut child: Child,
    socket: PathBuf,
    log: PathBuf,
    (dead, close): (CancellationToken, CancellationToken),
    report: Arc<Report>,
) {
    // Waiting for a child closes its standard input unless somebody else has it.
    let stdin = child.stdin.take();
    tokio::select! {
        _ended = child.wait() => {
            dead.cancel();
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let why = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("the connection closed");
            report.set(LinkState::Retrying { in_ms: 0, attempt: 1, why: clean(why) }).await;
        }
        () = close.cancelled() => {
            drop(stdin);
            if timeout(Duration::from_secs(1), child.wait()).await.is_err() {
                let _already_gone = child.kill().await;
            }
        }
    }
    remove(&socket, &log);
}

fn remove(socket: &Path, log: &Path) {
    for path in [socket, log] {
        // ssh removes its socket itself unless it was killed.
        let _absent = std::fs::remove_file(path);
    }
}

/// What `ssh` says when trying again will not help, and what will. Texts of OpenSSH's ssh.c, sshconnect.c, sshconnect2.c,
/// packet.c, readconf.c and channels.c.
const REFUSALS: &[(&str, &str)] = &[
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "the host key is not the pinned one: another machine answers at this address, or it was installed anew. \
         Compare with the instance's console output before you pin the new key",
    ),
    (
        "Host key verification failed",
        "the host key is not the pinned one. Compare with the instance's console output before you pin it",
    ),
    (
        "Permission denied",
        "the login was refused: check the user name (bastion: ec2-user or ubuntu; cluster nodes: core), \
         the key file, and `ssh-add -l`",
    ),
    ("Too many authentication failures", "the agent offers too many keys: name the right one as identity"),
    ("Unable to negotiate with", "the host and this ssh have no algorithm in common"),
    ("Bad owner or permissions", "an ssh configuration file of the operator may be written by others"),
    ("Bad configuration option", "an ssh configuration file of the operator has an option that this ssh does not know"),
    ("terminating, ", "an ssh configuration file of the operator is wrong"),
    ("administratively prohibited", "the jump host does not forward: its sshd needs AllowTcpForwarding yes"),
];

fn refusal(host: &str, said: &str) -> HostError {
    let host = host.to_owned();
    match REFUSALS.iter().find(|(text, _)| said.contains(text)) {
        Some((text, hint)) => {
            let line = said.lines().find(|line| line.contains(text)).unwrap_or(text);
            HostError::Refused { host, why: format!("{hint} (ssh: {})", clean(line).trim_matches(['@', ' '])) }
        }
        None => HostError::Link { host, why: clean(said) },
    }
}

/// Tells the run how the link is, on change.
#[derive(Default)]
pub(super) struct Report {
    to: OnceLock<(Sink, LinkName)>,
    last: Mutex<Option<LinkState>>,
}

impl Report {
    pub fn to(&self, sink: Sink, link: LinkName) {
        // The first one stays.
        let _second = self.to.set((sink, link));
    }

    /// A connection is in use; news only to who has just begun to listen.
    pub async fn in_use(&self) {
        if self.to.get().is_some() && self.last.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            self.set(LinkState::Up).await;
        }
    }

    pub async fn set(&self, state: LinkState) {
        let Some((sink, link)) = self.to.get() else { return };
        let changed = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            let changed = last.as_ref() != Some(&state);
            *last = Some(state.clone());
            changed
        };
        if changed {
            sink.emit(Data::Link { link: *link, state }).await;
        }
    }
}

/// When to try again.
#[derive(Default)]
pub(super) struct Backoff {
    pub failures: u32,
    pub not_before: Option<Instant>,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(500);
    const CEILING: Duration = Duration::from_secs(30);

    /// Note a failure; how long to wait now: doubling to a ceiling, and jittered so that not all knock at once.
    pub fn failed(&mut self) -> Duration {
        let full = Self::FIRST.saturating_mul(1 << self.failures.min(10)).min(Self::CEILING);
        self.failures = self.failures.saturating_add(1);
        let wait = full.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.not_before = Some(Instant::now() + wait);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ssh_says_is_classified() {
        let refused = [
            "@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r\n@@@\nHost key verification failed.",
            "No ED25519 host key is known for bastion and you have requested strict checking.\r\nHost key verification failed.",
            "core@10.0.0.8: Permission denied (publickey,gssapi-keyex,gssapi-with-mic).",
            "channel 0: open failed: administratively prohibited: open failed\nstdio forwarding failed",
            "/root/.ssh/config: line 3: Bad configuration option: foo",
        ];
        for said in refused {
            assert!(matches!(refusal("bastion", said), HostError::Refused { .. }), "{said}");
        }
        let link = [
            "ssh: connect to host 10.0.0.8 port 22: Connection refused",
            "ssh: connect to host 10.0.0.8 port 22: Connection timed out",
            "kex_exchange_identification: read: Connection reset by peer",
            "ssh: Could not resolve hostname bastion.example: Temporary failure in name resolution",
            "Connection closed by UNKNOWN port 65535",
        ];
        for said in link {
            assert!(refusal("bastion", said).is_link(), "{said}");
        }
    }

    #[test]
    fn back_off_grows_to_its_ceiling() {
        let mut backoff = Backoff::default();
        for failure in 0..40 {
            let wait = backoff.failed();
            assert!(wait <= Backoff::CEILING, "{failure}: {wait:?}");
            assert!(wait >= Backoff::FIRST / 2, "{failure}: {wait:?}");
        }
        assert!(backoff.failed() >= Backoff::CEILING / 2);
    }
}
