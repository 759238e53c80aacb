//! A machine on which commands run: over SSH, or this one.
//!
//! A command is an argument vector and is quoted once, in [`Cmd::line`]. Secrets go in by standard input only.
//!
//! [`ssh`] and [`local`] implement [`Host`]; [`job`] (work that outlives the connection) and [`tail`] (a log followed
//! by byte offset) are written against it and need nothing on the host but a POSIX shell and a handful of coreutils.

mod files;
pub mod job;
mod leash;
pub mod local;
mod pump;
pub mod ssh;
pub mod tail;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::spec::Secret;

/// A command to run on a host.
#[derive(Debug, Clone, Default)]
pub struct Cmd {
    pub program: String,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Through `sudo -n`.
    pub sudo: bool,
    pub stdin: Stdin,
    /// Give up after this long; none for streams.
    pub timeout: Option<Duration>,
}

#[derive(Debug, Clone, Default)]
pub enum Stdin {
    #[default]
    Empty,
    Bytes(Arc<[u8]>),
    Secret(Secret),
}

/// What a command left.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Output {
    pub status: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// A line of a stream.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamItem {
    Out(Vec<u8>),
    Err(Vec<u8>),
    /// The command ended. Nothing follows.
    Exit(i32),
}

#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The connection failed or went away; the command may or may not have run.
    #[error("lost the connection to {host}: {why}")]
    Link { host: String, why: String },
    /// The host refused us; trying again will not help.
    #[error("{host} refused the connection: {why}")]
    Refused { host: String, why: String },
    #[error("{command} on {host} gave no answer in {seconds} s")]
    Timeout { host: String, command: String, seconds: u64 },
    #[error("{command} on {host} ended with status {status}: {stderr}")]
    Failed { host: String, command: String, status: i32, stderr: String },
    #[error("{what} on {host}: {why}")]
    Other { host: String, what: String, why: String },
}

impl HostError {
    /// Worth trying again over a new connection.
    pub fn is_link(&self) -> bool {
        matches!(self, HostError::Link { .. })
    }
}

/// An open way from a loopback port of this machine to `host:port` as the host sees it. Closed when dropped.
pub trait Tunnel: Send + Sync {
    fn local(&self) -> std::net::SocketAddr;
}

#[async_trait]
pub trait Host: Send + Sync {
    /// `local`, `bastion`, `bootstrap`: as it is called in events.
    fn name(&self) -> &str;

    /// Run to the end. A status other than 0 is no error here.
    async fn exec(&self, cmd: &Cmd) -> Result<Output, HostError>;

    /// Lines as they come. Dropping the stream ends the command.
    async fn stream(&self, cmd: &Cmd) -> Result<BoxStream<'static, Result<StreamItem, HostError>>, HostError>;

    /// Write a file whole: into a temporary beside it, then renamed. `mode` as in chmod.
    async fn put(&self, path: &str, content: Stdin, mode: u32) -> Result<(), HostError>;

    /// A whole file, or `None` when there is none.
    async fn get(&self, path: &str) -> Result<Option<Vec<u8>>, HostError>;

    async fn tunnel(&self, host: &str, port: u16) -> Result<Box<dyn Tunnel>, HostError>;
}

impl Cmd {
    pub fn new(program: impl Into<String>) -> Self {
        Self { program: program.into(), timeout: Some(Duration::from_secs(60)), ..Self::default() }
    }
    /// A script for `sh -c`; arguments come in as `$1`, `$2`, … so that nothing is pasted into it.
    pub fn sh(script: impl Into<String>) -> Self {
        Self::new("sh").arg("-c").arg(script).arg("sh")
    }
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }
    pub fn args<T: Into<String>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }
    pub fn sudo(mut self) -> Self {
        self.sudo = true;
        self
    }
    pub fn stdin(mut self, stdin: Stdin) -> Self {
        self.stdin = stdin;
        self
    }
    pub fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// The command line for a POSIX shell, each word quoted where it must be.
    pub fn line(&self) -> String {
        let mut words = Vec::new();
        if self.sudo {
            words.extend(["sudo".to_owned(), "-n".to_owned()]);
        }
        if !self.env.is_empty() {
            words.push("env".to_owned());
            words.extend(self.env.iter().map(|(key, value)| format!("{key}={}", quote(value))));
        }
        words.push(quote(&self.program));
        words.extend(self.args.iter().map(|arg| quote(arg)));
        words.join(" ")
    }
}

/// One word for a POSIX shell.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

impl Output {
    pub fn ok(&self) -> bool {
        self.status == 0
    }
    /// Standard output as text without the white space around it.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }
    pub fn error_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim().to_owned()
    }
}
