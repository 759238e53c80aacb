//! A machine over SSH, through the operator's own `ssh`: their agent, hardware keys and configuration work as they expect.
//!
//! [`SshPool`] holds the targets of a run and writes `ssh_config` and `known_hosts` for them; [`SshHost`] is one of them.
//! A host has one control connection, made when it is first needed and again after a loss. Host keys are checked always.

mod config;
mod keypair;
mod link;
mod tunnel;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use openssh::{Child, Session, Stdio};
use tempfile::TempDir;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::{Cmd, Host, HostError, Output, Stdin, StreamItem, Tunnel, files, leash, pump};
use crate::model::event::{LinkName, LinkState};
use crate::record::Sink;

use config::Files;
pub use config::SshTarget;
pub use keypair::{new_key_pair, public_half};
use link::{Backoff, Connection, Report, Way};

/// sshd's MaxSessions is 10 by default; the connection itself takes one.
const CHANNELS: usize = 8;
/// An attempt with less time than this is not worth making.
const SHORTEST: Duration = Duration::from_millis(500);
/// For a connection to come up when the command itself has no limit.
const CONNECT: Duration = Duration::from_secs(60);
/// One attempt to connect, two hops included.
const ATTEMPT: Duration = Duration::from_secs(40);
/// For our own ssh process to say that it lives.
const ANSWER: Duration = Duration::from_secs(10);
/// For an established connection to open a channel. A dead peer is noticed by ServerAlive before this.
const OPEN: Duration = Duration::from_secs(60);

/// The SSH targets of a run.
pub struct SshPool {
    files: Files,
    sockets: Arc<TempDir>,
    hosts: Mutex<Hosts>,
}

#[derive(Default)]
struct Hosts {
    targets: BTreeMap<String, SshTarget>,
    hosts: BTreeMap<String, Arc<SshHost>>,
}

impl SshPool {
    /// `directory` gets `config` and `known_hosts`; keys that were learned in it before are kept.
    /// Control sockets go into a short-lived directory of their own, because their paths must be short.
    pub fn new(directory: &Path) -> Result<Self, HostError> {
        use std::os::unix::fs::DirBuilderExt;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|why| pool_error(format!("making {}", directory.display()), &why))?;
        let absolute =
            std::path::absolute(directory).map_err(|why| pool_error("finding the directory".into(), &why))?;
        let sockets = socket_directory().map_err(|why| pool_error("making a directory for sockets".into(), &why))?;
        Ok(Self { files: Files::new(&absolute), sockets: Arc::new(sockets), hosts: Mutex::default() })
    }

    /// Make a target known, or change it: then connections to its former self close as their users end.
    pub fn add(&self, target: SshTarget) -> Result<Arc<SshHost>, HostError> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        target.check(&hosts.targets)?;
        let name = target.name.clone();
        if let Some(host) = hosts.hosts.get(&name).filter(|_| hosts.targets.get(&name) == Some(&target)) {
            return Ok(Arc::clone(host));
        }
        let mut targets = hosts.targets.clone();
        targets.insert(name.clone(), target);
        self.files.write(&targets).map_err(|why| pool_error("writing the ssh configuration".into(), &why))?;
        hosts.targets = targets;
        let host = Arc::new(SshHost::new(&name, self.files.config(), Arc::clone(&self.sockets)));
        hosts.hosts.insert(name, Arc::clone(&host));
        Ok(host)
    }

    pub fn host(&self, name: &str) -> Result<Arc<SshHost>, HostError> {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.hosts.get(name).cloned().ok_or_else(|| HostError::Refused {
            host: name.to_owned(),
            why: "no such host is known to this run".to_owned(),
        })
    }

    /// What an operator types to be on that host by the same way.
    pub fn manual_command(&self, name: &str) -> String {
        Cmd::new("ssh").arg("-F").arg(self.files.config().to_string_lossy()).arg(name).line()
    }

    /// The machine behind `name` is a new one (every installation makes a new bootstrap): accept its key anew.
    pub fn forget_host_key(&self, name: &str) -> Result<(), HostError> {
        let _writing = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        self.files.forget(name).map_err(|why| pool_error("writing known_hosts".into(), &why))
    }

    /// The keys that a host shows now, to be put before the operator with their [`fingerprint`]s. Nothing is trusted by
    /// this. Asked from here, or from its jump host.
    pub async fn learn_host_key(&self, target: &SshTarget) -> Result<Vec<String>, HostError> {
        let scan = Cmd::new("ssh-keyscan").args(["-T", "10", "-p"]).arg(target.port.to_string()).arg(&target.address);
        let output = match &target.via {
            Some(via) => self.host(via)?.exec(&scan).await?,
            None => super::local::LocalHost::default().exec(&scan).await?,
        };
        let keys: Vec<String> = output
            .text()
            .lines()
            .filter_map(|line| line.split_once(' ').map(|(_, key)| key.trim().to_owned()))
            .filter(|key| ssh_key::PublicKey::from_openssh(key).is_ok())
            .collect();
        if keys.is_empty() {
            let why = format!("ssh-keyscan got no host key: {}", pump::clean(&output.error_text()));
            return Err(HostError::Link { host: target.name.clone(), why });
        }
        Ok(keys)
    }
}

/// `SHA256:…` of a host key line, as `ssh-keygen -l` and the console output show it.
pub fn fingerprint(host_key: &str) -> Option<String> {
    let key = ssh_key::PublicKey::from_openssh(host_key).ok()?;
    Some(key.fingerprint(ssh_key::HashAlg::Sha256).to_string())
}

fn pool_error(what: String, why: &dyn std::fmt::Display) -> HostError {
    HostError::Other { host: "local".to_owned(), what, why: why.to_string() }
}

/// A directory whose sockets fit into the 108 bytes of `sockaddr_un`, with what `ssh` adds while it makes them.
/// What earlier processes left behind by dying is removed.
fn socket_directory() -> std::io::Result<TempDir> {
    const LONGEST: usize = 40;
    let short = |path: &PathBuf| path.is_absolute() && path.as_os_str().len() <= LONGEST && path.is_dir();
    let base = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(short);
    let base = base.unwrap_or_else(|| PathBuf::from("/tmp"));
    let ours = format!("bartizan-{}-", rustix::process::getuid().as_raw());
    for entry in std::fs::read_dir(&base)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(&ours).and_then(|rest| rest.split('-').next()).and_then(|pid| pid.parse().ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw)
            && rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH)
        {
            // Another process may be tidying up too.
            let _gone = std::fs::remove_dir_all(entry.path());
        }
    }
    let private = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o700);
    tempfile::Builder::new().prefix(&format!("{ours}{}-", std::process::id())).permissions(private).tempdir_in(base)
}

/// A machine over SSH.
pub struct SshHost {
    name: String,
    reach: Arc<Reach>,
}

/// The way to a host and the connection over it.
struct Reach {
    way: Way,
    _sockets: Arc<TempDir>,
    state: tokio::sync::Mutex<State>,
    /// Why the last attempt failed, for those who gave up waiting.
    why: Mutex<String>,
    channels: Arc<Semaphore>,
}

/// Of the control connection.
#[derive(Default)]
struct State {
    connection: Option<Arc<Connection>>,
    backoff: Backoff,
}

impl SshHost {
    fn new(name: &str, config: PathBuf, sockets: Arc<TempDir>) -> Self {
        let way = Way {
            name: name.to_owned(),
            config,
            sockets: sockets.path().to_owned(),
            report: Arc::new(Report::default()),
        };
        let reach = Reach {
            way,
            _sockets: sockets,
            state: tokio::sync::Mutex::default(),
            why: Mutex::default(),
            channels: Arc::new(Semaphore::new(CHANNELS)),
        };
        Self { name: name.to_owned(), reach: Arc::new(reach) }
    }

    /// Tell `sink` from now on how the link is. The first sink stays.
    pub fn with_sink(self: &Arc<Self>, sink: Sink, link: LinkName) -> Arc<Self> {
        self.reach.way.report.to(sink, link);
        Arc::clone(self)
    }

    /// Close the connection. The next use makes a new one.
    pub async fn disconnect(&self) {
        self.reach.state.lock().await.connection = None;
    }

    /// Start `cmd`; everything up to its first byte is done by `until`.
    async fn spawn(&self, cmd: &Cmd, until: Instant) -> Result<Running, HostError> {
        let permit = timeout_at(until, Arc::clone(&self.reach.channels).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            return Err(self.error(format!("running {}", cmd.program), format!("all {CHANNELS} channels are in use")));
        };
        let line = leash::leashed(cmd).0.line();
        let mut opened = self.reach.channel(&line, until).await;
        if matches!(&opened, Err(error) if error.is_link()) && Instant::now() < until {
            // The connection was dead before anybody knew: no channel, so the command did not run.
            opened = self.reach.channel(&line, until).await;
        }
        let (mut child, connection) = opened?;
        let pipes = child.stdin().take().zip(child.stdout().take()).zip(child.stderr().take());
        let ((stdin, stdout), stderr) =
            pipes.ok_or_else(|| self.error(format!("running {}", cmd.program), "no pipes".to_owned()))?;
        let process = Process { child, connection, reach: Arc::clone(&self.reach), _permit: permit };
        Ok(Running { stdin, stdout, stderr, process })
    }

    fn error(&self, what: String, why: String) -> HostError {
        HostError::Other { host: self.name.clone(), what, why }
    }
}

impl Reach {
    /// The connection, made if need be: tries until `until` with growing pauses, unless the host refuses us.
    async fn connection(&self, until: Instant) -> Result<Arc<Connection>, HostError> {
        let Ok(mut state) = timeout_at(until, self.state.lock()).await else {
            return Err(self.lost());
        };
        if let Some(connection) = state.connection.take().filter(|connection| !connection.dead.is_cancelled()) {
            self.way.report.in_use().await;
            return Ok(Arc::clone(state.connection.insert(connection)));
        }
        loop {
            if let Some(when) = state.backoff.not_before {
                if when + SHORTEST >= until {
                    return Err(self.lost());
                }
                sleep_until(when).await;
            }
            let limit = until.saturating_duration_since(Instant::now()).min(ATTEMPT);
            match link::open(&self.way, limit).await {
                Ok(connection) => {
                    state.backoff = Backoff::default();
                    self.way.report.set(LinkState::Up).await;
                    return Ok(Arc::clone(state.connection.insert(Arc::new(connection))));
                }
                Err(HostError::Link { why, .. }) => {
                    let wait = state.backoff.failed();
                    {
                        let mut known = self.why.lock().unwrap_or_else(PoisonError::into_inner);
                        // What ssh said before tells more than that our patience ended.
                        if known.is_empty() || !why.starts_with(link::LATE) {
                            known.clone_from(&why);
                        }
                    }
                    let in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                    let attempt = state.backoff.failures;
                    self.way.report.set(LinkState::Retrying { in_ms, attempt, why }).await;
                }
                Err(error) => {
                    self.way.report.set(LinkState::Down { why: error.to_string() }).await;
                    return Err(error);
                }
            }
        }
    }

    fn lost(&self) -> HostError {
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let why = if why.is_empty() { "no connection in time".to_owned() } else { why };
        HostError::Link { host: self.way.name.clone(), why }
    }

    /// Open a channel and have `line` started in it.
    async fn channel(&self, line: &str, until: Instant) -> Result<(Child<Arc<Session>>, Arc<Connection>), HostError> {
        let connection = self.connection(until).await?;
        let mut command = connection.session.clone().arc_raw_command(line);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let limit = Instant::now() + OPEN;
        match timeout_at(until.min(limit), command.spawn()).await {
            Ok(Ok(child)) => Ok((child, connection)),
            Ok(Err(why)) => Err(self.failed(&connection, "opening a channel", &chain(&why)).await),
            Err(_) if until < limit => {
                Err(HostError::Link { host: self.way.name.clone(), why: "no channel opened in time".to_owned() })
            }
            Err(_) => Err(self.broken(&connection, "it opens no channel").await),
        }
    }

    /// Something over this connection failed: it is the connection's fault when its master does not answer.
    async fn failed(&self, connection: &Connection, what: &str, why: &str) -> HostError {
        match timeout(ANSWER, connection.session.check()).await {
            Ok(Ok(())) => {
                HostError::Other { host: self.way.name.clone(), what: what.to_owned(), why: pump::clean(why) }
            }
            _ => self.broken(connection, why).await,
        }
    }

    /// The connection failed in use.
    async fn broken(&self, connection: &Connection, why: &str) -> HostError {
        let why = pump::clean(why);
        // Who finds out late must not speak against the connection that has come since.
        if !connection.dead.is_cancelled() {
            connection.give_up();
            self.way.report.set(LinkState::Retrying { in_ms: 0, attempt: 1, why: why.clone() }).await;
        }
        HostError::Link { host: self.way.name.clone(), why }
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

struct Running {
    stdin: openssh::ChildStdin,
    stdout: openssh::ChildStdout,
    stderr: openssh::ChildStderr,
    process: Process,
}

/// A remote command with all that it needs to live.
struct Process {
    child: Child<Arc<Session>>,
    connection: Arc<Connection>,
    reach: Arc<Reach>,
    _permit: OwnedSemaphorePermit,
}

impl Process {
    /// To be awaited once the output has ended.
    async fn wait(self) -> Result<i32, HostError> {
        let Process { child, connection, reach, _permit } = self;
        match child.wait().await {
            Ok(status) => Ok(status.code().unwrap_or(255)),
            // The session reports this status as an error of its own.
            Err(openssh::Error::Remote(why)) if why.kind() == ErrorKind::NotFound => Ok(127),
            // No status: the connection is gone, or a signal ended the login shell, or the host allows no more sessions.
            Err(why) => Err(reach.failed(&connection, "running a command", &chain(&why)).await),
        }
    }
}

#[async_trait]
impl Host for SshHost {
    fn name(&self) -> &str {
        &self.name
    }

    /// Connects within the command's own timeout. After a [`HostError::Timeout`] the remote command is ended.
    async fn exec(&self, cmd: &Cmd) -> Result<Output, HostError> {
        let until = Instant::now() + cmd.timeout.unwrap_or(CONNECT);
        let Running { stdin, stdout, stderr, process } = self.spawn(cmd, until).await?;
        let work = pump::collect(&self.name, &cmd.stdin, Some(stdin), (stdout, stderr), process.wait());
        match cmd.timeout {
            None => work.await,
            Some(limit) => timeout_at(until, work).await.unwrap_or_else(|_| {
                Err(HostError::Timeout {
                    host: self.name.clone(),
                    command: cmd.program.clone(),
                    seconds: limit.as_secs(),
                })
            }),
        }
    }

    /// The command's timeout does not count here.
    async fn stream(&self, cmd: &Cmd) -> Result<BoxStream<'static, Result<StreamItem, HostError>>, HostError> {
        let Running { stdin, stdout, stderr, process } = self.spawn(cmd, Instant::now() + CONNECT).await?;
        let held = pump::feed(&cmd.stdin, stdin);
        Ok(pump::lines(stdout, stderr, process.wait(), held))
    }

    async fn put(&self, path: &str, content: Stdin, mode: u32) -> Result<(), HostError> {
        files::put(self, path, content, mode).await
    }

    async fn get(&self, path: &str) -> Result<Option<Vec<u8>>, HostError> {
        files::get(self, path).await
    }

    /// Outlives the control connection: a new one is made when someone connects to it.
    async fn tunnel(&self, host: &str, port: u16) -> Result<Box<dyn Tunnel>, HostError> {
        Ok(Box::new(tunnel::open(Arc::clone(&self.reach), host, port).await?))
    }
}
