//! A bastion that nobody described in a spec, as the operator's own `ssh` knows it: address, user, port, jumps and the host
//! keys that are trusted already.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::host::Cmd;
use crate::host::Host;
use crate::host::local::LocalHost;
use crate::host::ssh::{SshHost, SshPool, SshTarget, fingerprint};

use super::Failure;

/// What the operator said of it.
pub(super) struct Login<'a> {
    /// `user@host`, `user@host:port`, or a name of the ssh configuration.
    pub wanted: &'a str,
    pub identity: Option<&'a Path>,
    /// The host key to expect.
    pub host_key: Option<&'a str>,
    /// Fingerprint of the host key to say yes to.
    pub accept: Option<&'a str>,
}

/// What `ssh -G` answers.
#[derive(Debug, Default, PartialEq)]
struct Resolved {
    address: String,
    port: u16,
    user: String,
    identities: Vec<String>,
    known_hosts: Vec<String>,
    alias: Option<String>,
    jumps: Vec<String>,
    proxy_command: Option<String>,
}

/// `HOST` and `HOST:PORT`; an IPv6 address with a port is in brackets.
pub(super) fn with_port(text: &str) -> (&str, Option<u16>) {
    let found = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match found {
        Some((host, port)) if !host.contains(':') => (host, Some(port)),
        Some((host, port)) if host.starts_with('[') && host.ends_with(']') => {
            (host.trim_start_matches('[').trim_end_matches(']'), Some(port))
        }
        _ => (text.trim_start_matches('[').trim_end_matches(']'), None),
    }
}

/// The bastion, known to `pool` by that name, its host key pinned.
///
/// # Errors
/// With a sentence that says what to do: mostly that its host key is not known.
pub(super) async fn reach(pool: &SshPool, login: &Login<'_>) -> Result<Arc<SshHost>, Failure> {
    let known = resolve(login.wanted).await?;
    let mut via = None;
    for (number, jump) in known.jumps.iter().enumerate() {
        let name = format!("jump-{}", number + 1);
        let hop = resolve(jump).await?;
        let target = SshTarget { via: via.clone(), ..target(pool, &name, jump, &hop, None).await? };
        pool.add(target).map_err(Failure::other)?;
        via = Some(name);
    }
    let target = target(pool, "bastion", login.wanted, &known, Some((login, via.clone()))).await?;
    pool.add(SshTarget { via, ..target }).map_err(Failure::other)
}

async fn resolve(wanted: &str) -> Result<Resolved, Failure> {
    let (login, port) = match wanted.split_once('@') {
        Some((user, host)) => {
            let (host, port) = with_port(host);
            (format!("{user}@{host}"), port)
        }
        None => {
            let (host, port) = with_port(wanted);
            (host.to_owned(), port)
        }
    };
    let mut cmd = Cmd::new("ssh").arg("-G");
    if let Some(port) = port {
        cmd = cmd.args(["-p".to_owned(), port.to_string()]);
    }
    let output = LocalHost::default().exec(&cmd.arg("--").arg(login)).await.map_err(Failure::other)?;
    if !output.ok() {
        return Err(Failure::usage(format!("ssh does not understand {wanted}: {}", output.error_text())));
    }
    let known = parse(&output.text());
    if let Some(command) = &known.proxy_command {
        return Err(Failure::usage(format!(
            "your ssh configuration reaches {wanted} by ProxyCommand {command}; only ProxyJump is followed here"
        )));
    }
    Ok(known)
}

/// Keys are in lower case, one a line (ssh(1), -G).
fn parse(output: &str) -> Resolved {
    let mut known = Resolved { port: 22, ..Resolved::default() };
    for (key, value) in output.lines().filter_map(|line| line.split_once(' ')) {
        let value = value.trim();
        let words = || value.split_whitespace().map(str::to_owned);
        match key {
            "hostname" => value.clone_into(&mut known.address),
            "port" => known.port = value.parse().unwrap_or(22),
            "user" => value.clone_into(&mut known.user),
            "identityfile" => known.identities.push(value.to_owned()),
            "userknownhostsfile" | "globalknownhostsfile" => known.known_hosts.extend(words()),
            "hostkeyalias" => known.alias = Some(value.to_owned()),
            "proxyjump" if value != "none" => known.jumps = value.split(',').map(str::to_owned).collect(),
            "proxycommand" if value != "none" => known.proxy_command = Some(value.to_owned()),
            _ => {}
        }
    }
    known
}

async fn target(
    pool: &SshPool,
    name: &str,
    wanted: &str,
    known: &Resolved,
    said: Option<(&Login<'_>, Option<String>)>,
) -> Result<SshTarget, Failure> {
    let identity = match &said {
        Some((Login { identity: Some(identity), .. }, _)) => Some((*identity).to_owned()),
        _ => configured(known),
    };
    let target = SshTarget {
        port: known.port,
        identity,
        via: said.as_ref().and_then(|(_, via)| via.clone()),
        ..SshTarget::new(name, known.address.clone(), known.user.clone())
    };
    let host_keys = match &said {
        Some((Login { host_key: Some(key), .. }, _)) => vec![(*key).to_owned()],
        Some((Login { accept: Some(print), .. }, _)) => accepted(pool, &target, print).await?,
        _ => trusted(known).await,
    };
    if host_keys.is_empty() {
        return Err(unknown(pool, &target, wanted).await);
    }
    Ok(SshTarget { host_keys, ..target })
}

/// A key file that the configuration names for this host. The usual ones, which `ssh` lists for every host, are tried
/// without being named, after the agent's.
fn configured(known: &Resolved) -> Option<PathBuf> {
    let home = std::env::home_dir()?;
    let files = known.identities.iter().map(|file| match file.strip_prefix("~/") {
        Some(rest) => home.join(rest),
        None => PathBuf::from(file),
    });
    let usual = |file: &PathBuf| {
        file.parent() == Some(home.join(".ssh").as_path())
            && file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("id_"))
    };
    files.filter(|file| !usual(file)).find(|file| file.is_file())
}

/// The keys that the operator's known_hosts files have for it.
async fn trusted(known: &Resolved) -> Vec<String> {
    let name = known.alias.as_ref().unwrap_or(&known.address);
    let name =
        if known.port == 22 || known.alias.is_some() { name.clone() } else { format!("[{name}]:{}", known.port) };
    let mut keys = Vec::new();
    for file in &known.known_hosts {
        let file = match (file.strip_prefix("~/"), std::env::home_dir()) {
            (Some(rest), Some(home)) => home.join(rest).to_string_lossy().into_owned(),
            _ => file.clone(),
        };
        let find = Cmd::new("ssh-keygen").args(["-F", &name, "-f", &file]);
        let found = LocalHost::default().exec(&find).await.map(|output| output.text()).unwrap_or_default();
        keys.extend(found.lines().filter_map(key_of));
    }
    keys
}

/// `HOST TYPE KEY` of a known_hosts file; lines with a marker (authorities, revoked keys) are not keys to expect.
fn key_of(line: &str) -> Option<String> {
    if line.starts_with(['#', '@']) {
        return None;
    }
    let mut words = line.split_whitespace().skip(1);
    let key = format!("{} {}", words.next()?, words.next()?);
    ssh_key::PublicKey::from_openssh(&key).is_ok().then_some(key)
}

async fn accepted(pool: &SshPool, target: &SshTarget, print: &str) -> Result<Vec<String>, Failure> {
    let shown = pool.learn_host_key(target).await.map_err(Failure::other)?;
    let matching: Vec<String> =
        shown.iter().filter(|key| fingerprint(key).as_deref() == Some(print)).cloned().collect();
    if matching.is_empty() {
        let shown: Vec<String> = shown.iter().filter_map(|key| fingerprint(key)).collect();
        return Err(Failure::usage(format!(
            "{} shows no host key with the fingerprint {print}, but {}",
            target.address,
            shown.join(", ")
        )));
    }
    Ok(matching)
}

async fn unknown(pool: &SshPool, target: &SshTarget, wanted: &str) -> Failure {
    match pool.learn_host_key(target).await {
        Ok(shown) => {
            let shown: Vec<String> = shown.iter().filter_map(|key| fingerprint(key)).collect();
            Failure::usage(format!(
                "the host key of {wanted} is not in your known_hosts. It shows {}: compare with the instance's console \
                 output, then give --accept-host-key FINGERPRINT, or connect once with ssh",
                shown.join(", ")
            ))
        }
        Err(error) => Failure::other(format!("{wanted} cannot be reached: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_and_without_a_port() {
        for (text, wanted) in [
            ("bastion", ("bastion", None)),
            ("10.0.0.5:2222", ("10.0.0.5", Some(2222))),
            ("fd00::5", ("fd00::5", None)),
            ("[fd00::5]:2222", ("fd00::5", Some(2222))),
            ("[fd00::5]", ("fd00::5", None)),
        ] {
            assert_eq!(with_port(text), wanted);
        }
    }

    #[test]
    fn what_ssh_knows_of_a_host() {
        let known = parse(
            "user ec2-user\nhostname 10.0.0.5\nport 2222\nproxyjump me@gate,inner\nidentityfile ~/.ssh/id_rsa\n\
             identityfile ~/keys/edge.pem\nuserknownhostsfile /a /b\nproxycommand none\n",
        );
        assert_eq!((known.address.as_str(), known.port, known.user.as_str()), ("10.0.0.5", 2222, "ec2-user"));
        assert_eq!(known.jumps, ["me@gate", "inner"]);
        assert_eq!(known.known_hosts, ["/a", "/b"]);
        assert_eq!(known.proxy_command, None);
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0lAHNPbMYxjKvvpPDIIxxS5eWpjPNvAb3VUOzlQ9bD";
        assert_eq!(key_of(&format!("[10.0.0.5]:2222 {key} comment")).as_deref(), Some(key));
        assert_eq!(key_of(&format!("@revoked 10.0.0.5 {key}")), None);
        assert_eq!(key_of("# Host 10.0.0.5 found: line 3"), None);
    }
}
