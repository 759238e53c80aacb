//! A real sshd on loopback.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test stops where it cannot go on")]
#![allow(dead_code, reason = "shared by tests and a bench; neither needs all of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bartizan::host::ssh::SshTarget;

use crate::ports::free_port;

/// A real sshd on a loopback port, with keys of its own. It and its sessions end with this value.
pub struct Sshd {
    directory: tempfile::TempDir,
    port: u16,
    /// What its sessions find in their environment, as `NAME=value`.
    environment: Vec<String>,
    listener: Option<std::process::Child>,
    sessions: Vec<i32>,
}

impl Sshd {
    pub fn start() -> Self {
        Self::with_environment(&[])
    }

    /// One whose sessions find these variables. The values are without blanks and quotes.
    pub fn with_environment(variables: &[(&str, &str)]) -> Self {
        assert!(
            Path::new("/usr/sbin/sshd").exists(),
            "this test needs a real sshd: apt-get install openssh-server (it need not be running)"
        );
        if rustix::process::getuid().is_root() {
            // sshd run by root insists on it.
            std::fs::create_dir_all("/run/sshd").expect("/run/sshd");
        }
        let directory = tempfile::tempdir().expect("a directory");
        for key in ["host", "user"] {
            keygen(&directory.path().join(key));
        }
        std::fs::copy(directory.path().join("user.pub"), directory.path().join("authorized")).expect("authorized keys");
        // With that SHLVL bash leaves the developer's own .bashrc alone.
        let environment = variables.iter().chain(&[("SHLVL", "1")]).map(|(name, value)| format!("{name}={value}"));
        let environment = environment.collect();
        let mut sshd = Self { directory, port: free_port(), environment, listener: None, sessions: Vec::new() };
        sshd.resume();
        sshd
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The private key that may log in.
    pub fn identity(&self) -> PathBuf {
        self.directory.path().join("user")
    }

    /// Public keys that may log in.
    pub fn authorized_keys(&self) -> PathBuf {
        self.directory.path().join("authorized")
    }

    /// `ssh-ed25519 AAAA…`
    pub fn host_key(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("host.pub")).expect("the host key").trim().to_owned()
    }

    /// The private half of its host key.
    pub fn host_key_file(&self) -> PathBuf {
        self.directory.path().join("host")
    }

    /// What it says of those who come.
    #[cfg(all(feature = "aws", feature = "lab"))]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).expect("its log")
    }

    /// Another machine at the same place: it has this host key from now on, or a new one.
    #[cfg(all(feature = "aws", feature = "lab"))]
    pub fn becomes(&mut self, private: Option<&str>) {
        use std::os::unix::fs::OpenOptionsExt as _;
        self.stop_listening();
        let file = self.host_key_file();
        let public = file.with_extension("pub");
        let _never_there = (std::fs::remove_file(&file), std::fs::remove_file(&public));
        match private {
            None => keygen(&file),
            Some(text) => {
                let made = std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&file);
                std::io::Write::write_all(&mut made.expect("the key"), text.as_bytes()).expect("the key");
                let half = Command::new("ssh-keygen").arg("-y").arg("-f").arg(&file).output().expect("ssh-keygen");
                std::fs::write(public, half.stdout).expect("its public half");
            }
        }
        self.resume();
    }

    /// Of the process that listens.
    pub fn pid(&self) -> u32 {
        self.listener.as_ref().map(|child| child.id()).expect("it listens")
    }

    /// It as a target called `name`, with its key pinned.
    pub fn target(&self, name: &str) -> SshTarget {
        SshTarget {
            port: self.port,
            identity: Some(self.identity()),
            host_keys: vec![self.host_key()],
            ..SshTarget::new(name, "127.0.0.1", user())
        }
    }

    /// Listen (again).
    pub fn resume(&mut self) {
        let at = |name: &str| self.directory.path().join(name).to_string_lossy().into_owned();
        let config = format!(
            "Port {}\nListenAddress 127.0.0.1\nHostKey {}\nPidFile none\nAuthorizedKeysFile {}\nStrictModes no\n\
             UsePAM no\nPasswordAuthentication no\nMaxSessions 10\nMaxStartups 100\nSetEnv {}\n",
            self.port,
            at("host"),
            at("authorized"),
            self.environment.join(" ")
        );
        std::fs::write(at("sshd_config"), config).expect("sshd_config");
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-f", &at("sshd_config"), "-E", &at("log")])
            .stdin(Stdio::null())
            .spawn()
            .expect("sshd");
        self.listener = Some(child);
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "sshd does not listen: {}", std::fs::read_to_string(at("log")).unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Listen no more; connections that are up stay.
    pub fn stop_listening(&mut self) {
        if let Some(mut listener) = self.listener.take() {
            self.sessions.extend(children(listener.id()));
            listener.kill().expect("killing sshd");
            listener.wait().expect("sshd's end");
        }
    }

    /// Whether somebody is connected.
    pub fn connected(&self) -> bool {
        self.listener.as_ref().is_some_and(|listener| !children(listener.id()).is_empty())
    }

    /// Cut all connections that are up; how many.
    pub fn cut(&mut self) -> usize {
        if let Some(listener) = &self.listener {
            self.sessions.extend(children(listener.id()));
        }
        let sessions = std::mem::take(&mut self.sessions);
        for pid in sessions.iter().filter_map(|pid| rustix::process::Pid::from_raw(*pid)) {
            // It may just have ended by itself.
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        sessions.len()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.cut();
        self.stop_listening();
    }
}

fn keygen(path: &Path) {
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status();
    assert!(made.expect("ssh-keygen").success());
}

pub fn user() -> String {
    let output = Command::new("id").arg("-un").output().expect("id");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn children(parent: u32) -> Vec<i32> {
    let listed = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
