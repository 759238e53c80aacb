//! What `ssh` is told: the targets, and the `ssh_config` and `known_hosts` files of a run (see `ssh_config(5)`).
//!
//! An operator can use the same files: `ssh -F RUN/ssh/config bastion`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::host::HostError;

/// A machine that is reached over SSH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshTarget {
    /// `bastion`, `bootstrap`, `master-0`: what it is called in events, and its alias for `ssh`.
    pub name: String,
    /// Host name or IP address.
    pub address: String,
    pub port: u16,
    pub user: String,
    /// Private key file; without it the operator's agent and keys are used.
    pub identity: Option<PathBuf>,
    /// The keys that the host may have, `ssh-ed25519 AAAA…`.
    pub host_keys: Vec<String>,
    /// Trust the key that the host first shows. Only for hosts behind a jump host whose key is pinned.
    pub accept_new: bool,
    /// Name of the target to jump through.
    pub via: Option<String>,
}

impl SshTarget {
    /// Port 22, reached directly, with the operator's own keys; host keys are still to be pinned.
    pub fn new(name: impl Into<String>, address: impl Into<String>, user: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            address: address.into(),
            port: 22,
            user: user.into(),
            identity: None,
            host_keys: Vec::new(),
            accept_new: false,
            via: None,
        }
    }

    /// Nothing in it may mean anything to the config file's syntax, and its host key must be known beforehand.
    pub(super) fn check(&self, others: &BTreeMap<String, SshTarget>) -> Result<(), HostError> {
        let refuse = |why: String| Err(HostError::Refused { host: self.name.clone(), why });
        let word = |text: &str, more: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':')
                && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        if !word(&self.name, "-_.") {
            return refuse("its name may hold letters, digits, '-', '_' and '.' only".to_owned());
        }
        if !word(&self.address, "-_.:") {
            return refuse(format!("{:?} is no host name or address", self.address));
        }
        if !word(&self.user, "-_.@\\+") {
            return refuse(format!("{:?} is no user name", self.user));
        }
        if let Some(identity) = &self.identity {
            let text = identity.to_string_lossy();
            if text.contains(['"', '\n', '\r']) {
                return refuse(format!("{text:?} cannot be written in an ssh_config file"));
            }
            if !identity.is_file() {
                return refuse(format!("the key file {text} is not there"));
            }
        }
        for key in &self.host_keys {
            if let Err(why) = ssh_key::PublicKey::from_openssh(key) {
                return refuse(format!("{key:?} is no host key ({why}); a line such as \"ssh-ed25519 AAAA…\" is"));
            }
        }
        if let Some(via) = &self.via
            && !others.contains_key(via)
        {
            return refuse(format!("it is reached through {via}, which is not known"));
        }
        if self.host_keys.is_empty() && !self.accept_new {
            return refuse(format!(
                "no host key is pinned. Take it from the instance's console output, or from `ssh-keyscan -p {} {}` \
                 on a network that you trust, compare its fingerprint, and put it into host_keys",
                self.port, self.address
            ));
        }
        if self.host_keys.is_empty() && self.via.is_none() {
            return refuse("a new host key is only accepted through a jump host whose own key is pinned".to_owned());
        }
        Ok(())
    }
}

/// The files of a run that `ssh` reads.
#[derive(Debug, Clone)]
pub(super) struct Files {
    directory: PathBuf,
}

impl Files {
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }
    pub fn config(&self) -> PathBuf {
        self.directory.join("config")
    }
    pub fn known_hosts(&self) -> PathBuf {
        self.directory.join("known_hosts")
    }

    /// Write both files for these targets. Keys that were learned for other hosts stay.
    pub fn write(&self, targets: &BTreeMap<String, SshTarget>) -> std::io::Result<()> {
        let before = std::fs::read_to_string(self.known_hosts()).unwrap_or_default();
        replace(&self.known_hosts(), &known_hosts(&before, targets))?;
        replace(&self.config(), &self.render(targets))
    }

    /// Forget the key that `name` showed.
    pub fn forget(&self, name: &str) -> std::io::Result<()> {
        let Ok(before) = std::fs::read_to_string(self.known_hosts()) else { return Ok(()) };
        let kept = before
            .lines()
            .filter(|line| alias(line) != Some(name))
            .fold(String::new(), |kept, line| kept + line + "\n");
        replace(&self.known_hosts(), &kept)
    }

    fn render(&self, targets: &BTreeMap<String, SshTarget>) -> String {
        let mut text = String::from("# Written by bartizan. Use it: ssh -F THIS-FILE NAME\n");
        for target in targets.values() {
            let SshTarget { name, address, port, user, .. } = target;
            let strict = if target.host_keys.is_empty() { "accept-new" } else { "yes" };
            // HostKeyAlias: another machine that gets the same private IP later is another host.
            let known_hosts = path(&self.known_hosts());
            let _infallible = write!(
                text,
                "\nHost {name}\n  HostName {address}\n  Port {port}\n  User {user}\n  HostKeyAlias {name}\n  \
                 UserKnownHostsFile {known_hosts}\n  StrictHostKeyChecking {strict}\n"
            );
            if let Some(identity) = &target.identity {
                let _infallible = write!(text, "  IdentityFile {}\n  IdentitiesOnly yes\n", path(identity));
            }
            // Without one, a jump of the operator's own configuration counts.
            if let Some(jump) = &target.via {
                let _infallible = writeln!(text, "  ProxyJump {jump}");
            }
            text.push_str(COMMON);
        }
        text.push_str("\nMatch all\n");
        // After -F, ssh reads none of these by itself.
        if let Some(own) = std::env::home_dir().map(|home| home.join(".ssh/config")).filter(|own| own.exists()) {
            let _infallible = writeln!(text, "  Include {}", path(&own));
        }
        text.push_str("  Include /etc/ssh/ssh_config\n");
        text
    }
}

/// First value wins in an ssh_config, so these hold whatever the operator's own files say.
const COMMON: &str = "  GlobalKnownHostsFile /dev/null
  UpdateHostKeys no
  HashKnownHosts no
  BatchMode yes
  ConnectTimeout 15
  ServerAliveInterval 15
  ServerAliveCountMax 3
  ControlMaster no
  ControlPath none
  ForwardAgent no
";

/// Pinned keys as they are pinned now, and what else was learned.
fn known_hosts(before: &str, targets: &BTreeMap<String, SshTarget>) -> String {
    let pinned = |name: &str| targets.get(name).is_some_and(|target| !target.host_keys.is_empty());
    let mut text = String::new();
    for line in before.lines().filter(|line| alias(line).is_some_and(|name| !pinned(name))) {
        text.push_str(line);
        text.push('\n');
    }
    for target in targets.values() {
        for key in &target.host_keys {
            let key: Vec<&str> = key.split_whitespace().take(2).collect();
            let _infallible = writeln!(text, "{} {}", target.name, key.join(" "));
        }
    }
    text
}

fn alias(line: &str) -> Option<&str> {
    line.split_whitespace().next()
}

/// A path as a word of an ssh_config, where `%` begins a token.
fn path(path: &Path) -> String {
    format!("\"{}\"", path.to_string_lossy().replace('%', "%%"))
}

/// Write a whole file, mode 0600, in one step.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}
