//! This machine as a host: bartizan running on the bastion itself, and the local side of a run.
//!
//! Command lines go through `sh -c`, as they do over SSH, each in a process group of its own.

use std::net::SocketAddr;
use std::process::Stdio;

use async_trait::async_trait;
use futures::stream::BoxStream;
use rustix::process::{Pid, Signal};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use super::{Cmd, Host, HostError, Output, Stdin, StreamItem, Tunnel, files, leash, pump};

/// The machine that this process runs on.
#[derive(Debug, Clone)]
pub struct LocalHost {
    name: String,
}

impl Default for LocalHost {
    fn default() -> Self {
        Self::new("local")
    }
}

impl LocalHost {
    /// `name` as it is called in events: `local`, or `bastion` when this is the bastion.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    fn spawn(&self, cmd: &Cmd) -> Result<Running, HostError> {
        let (leashed, hold) = leash::leashed(cmd);
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(leashed.line())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|why| self.error(format!("starting {}", cmd.program), &why))?;
        let pipes = child.stdin.take().zip(child.stdout.take()).zip(child.stderr.take());
        let ((stdin, stdout), stderr) =
            pipes.ok_or_else(|| self.error(format!("starting {}", cmd.program), &"no pipes"))?;
        // A leashed group ends when its standard input closes, gently and even if we are killed.
        let group = if hold { None } else { group_of(&child) };
        Ok(Running { stdin, stdout, stderr, process: Process { child, group } })
    }

    fn error(&self, what: String, why: &dyn std::fmt::Display) -> HostError {
        HostError::Other { host: self.name.clone(), what, why: why.to_string() }
    }
}

struct Running {
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: ChildStderr,
    process: Process,
}

/// A process group that ends with this value.
struct Process {
    child: Child,
    group: Option<Pid>,
}

fn group_of(child: &Child) -> Option<Pid> {
    child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw)
}

impl Process {
    async fn wait(mut self, host: String) -> Result<i32, HostError> {
        use std::os::unix::process::ExitStatusExt;
        let status = self.child.wait().await.map_err(|why| HostError::Other {
            host,
            what: "waiting for a command".to_owned(),
            why: why.to_string(),
        })?;
        self.group = None;
        Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // It may have ended by itself in the meantime.
            let _gone = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}

/// Nothing is between us and the address.
struct Direct(SocketAddr);

impl Tunnel for Direct {
    fn local(&self) -> SocketAddr {
        self.0
    }
}

#[async_trait]
impl Host for LocalHost {
    fn name(&self) -> &str {
        &self.name
    }

    async fn exec(&self, cmd: &Cmd) -> Result<Output, HostError> {
        let Running { stdin, stdout, stderr, process } = self.spawn(cmd)?;
        let wait = process.wait(self.name.clone());
        let work = pump::collect(&self.name, &cmd.stdin, Some(stdin), (stdout, stderr), wait);
        match cmd.timeout {
            None => work.await,
            Some(limit) => tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
                Err(HostError::Timeout {
                    host: self.name.clone(),
                    command: cmd.program.clone(),
                    seconds: limit.as_secs(),
                })
            }),
        }
    }

    async fn stream(&self, cmd: &Cmd) -> Result<BoxStream<'static, Result<StreamItem, HostError>>, HostError> {
        let Running { stdin, stdout, stderr, process } = self.spawn(cmd)?;
        let held = pump::feed(&cmd.stdin, stdin);
        Ok(pump::lines(stdout, stderr, process.wait(self.name.clone()), held))
    }

    async fn put(&self, path: &str, content: Stdin, mode: u32) -> Result<(), HostError> {
        files::put(self, path, content, mode).await
    }

    async fn get(&self, path: &str) -> Result<Option<Vec<u8>>, HostError> {
        files::get(self, path).await
    }

    async fn tunnel(&self, host: &str, port: u16) -> Result<Box<dyn Tunnel>, HostError> {
        let mut found = tokio::net::lookup_host((host, port))
            .await
            .map_err(|why| self.error(format!("looking up {host}"), &why))?;
        let address = found.next().ok_or_else(|| self.error(format!("looking up {host}"), &"no address"))?;
        Ok(Box::new(Direct(address)))
    }
}
