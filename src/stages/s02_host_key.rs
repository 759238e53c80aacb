//! 02: by which key the bastion is known before anybody talks to it, and how a key that was delivered in the user data is
//! replaced by one that never left the machine.

use std::time::Duration;

use async_trait::async_trait;

use crate::cloud::bastion::host_keys_from_console;
use crate::cloud::userdata::ROTATE;
use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::Cmd;
use crate::host::ssh::{fingerprint, public_half};
use crate::model::event::{Action, Evidence};
use crate::spec::HostKey;

use super::s02_bastion::hello;
use super::world::{Cx, World, action, cloud_error, fact, host_error, must, wait_for};

/// The keys are known and pinned.
pub struct Pin;

/// A delivered key is replaced on the first login.
pub struct Rotation;

/// OpenSSH's own place for it.
const KEY_FILE: &str = "/etc/ssh/ssh_host_ed25519_key";
/// sshd reads its keys when it is told to; connections that are open stay.
const RELOAD: [&str; 3] = ["systemctl", "try-reload-or-restart", "sshd.service"];
/// A machine boots and prints its keys within this time.
const BOOT: Duration = Duration::from_secs(900);
const SSHD: Duration = Duration::from_secs(300);

/// Whose keys the recorded ones are: those of a machine that was replaced count no more.
fn machine(cx: &Cx) -> Option<String> {
    cx.world.spec.bastion.host.clone().or_else(|| cx.fact(fact::BASTION_INSTANCE))
}

async fn pin(cx: &Cx, keys: &[String]) -> Result<(), StepError> {
    let machine = machine(cx).ok_or_else(|| StepError::fatal("there is no bastion yet"))?;
    cx.set_fact(fact::BASTION_HOST_KEYS, keys.join("\n")).await;
    cx.set_fact(fact::BASTION_HOST_KEYS_OF, machine).await;
    Ok(())
}

fn prints(keys: &[String]) -> Vec<String> {
    keys.iter().filter_map(|key| fingerprint(key)).collect()
}

/// The public half of the key that was made for this run's user data.
fn delivered(cx: &Cx) -> Result<String, StepError> {
    let key = cx.world.host_key.as_ref().ok_or_else(|| StepError::fatal("no host key was made to be delivered"))?;
    public_half(key).ok_or_else(|| StepError::fatal("the kept host key is no OpenSSH key"))
}

/// OpenSSH's own order of preference.
fn strength(key: &str) -> u8 {
    ["ssh-rsa ", "ecdsa-", "ssh-ed25519 "]
        .iter()
        .zip(1..)
        .find(|(kind, _)| key.starts_with(**kind))
        .map_or(0, |(_, at)| at)
}

async fn from_console(cx: &Cx) -> Result<Vec<String>, StepError> {
    let instance = cx.need(fact::BASTION_INSTANCE)?;
    let cloud = cx.world.cloud()?;
    let what = format!("the host keys of {instance} on its console");
    let read = wait_for(cx, &what, Duration::from_secs(2), BOOT, || async {
        let console = cloud.console_output(&instance).await.map_err(cloud_error)?;
        let keys = host_keys_from_console(&console);
        Ok((!keys.is_empty()).then_some(keys))
    });
    read.await.map_err(|error| {
        error.hint(
            "set bastion.host_key = \"ask\" to compare the fingerprint yourself, or look at the instance's console",
        )
    })
}

/// The key that the operator said yes to, of those that the machine shows.
async fn confirmed(cx: &Cx) -> Result<Vec<String>, StepError> {
    let target = cx.world.bastion_target(cx)?;
    let what = format!("an answer of sshd on {}", target.address);
    let shown = wait_for(cx, &what, Duration::from_secs(3), SSHD, || async {
        match cx.world.ssh.learn_host_key(&target).await {
            Ok(keys) => Ok(Some(keys)),
            Err(error) if error.is_link() => Ok(None),
            Err(error) => Err(host_error(error)),
        }
    })
    .await?;
    let accepted = cx.fact(fact::HOST_KEY_ACCEPTED).unwrap_or_default();
    let (yes, no): (Vec<String>, Vec<String>) =
        shown.into_iter().partition(|key| fingerprint(key).is_some_and(|print| print == accepted));
    if !yes.is_empty() {
        return Ok(yes);
    }
    let prints = prints(&no).join(", ");
    let best = no.iter().max_by_key(|key| strength(key)).and_then(|key| fingerprint(key)).unwrap_or_default();
    cx.set_fact(fact::HOST_KEY_SHOWN, best).await;
    let said = if accepted.is_empty() { String::new() } else { format!(", and none of them is {accepted}") };
    let by_hand = match cx.fact(fact::BASTION_INSTANCE) {
        Some(instance) => format!("aws ec2 get-console-output --latest --instance-id {instance}"),
        None => "its console".into(),
    };
    Err(StepError::fatal(format!("nobody has said yes to the host key of {}: it shows {prints}{said}", target.address))
        .hint(format!(
            "compare with {by_hand}; if one is right, accept it in the cockpit (accept-host-key), or `bartizan run \
             --resume --accept-host-key SHA256:…`"
        )))
}

#[async_trait]
impl Step<World> for Pin {
    fn preview(&self, world: &World) -> Vec<Action> {
        let spec = &world.spec;
        match (&spec.bastion.host_key, &spec.bastion.host) {
            (HostKey::Console, None) => vec![Action::Api { call: "ec2:GetConsoleOutput <bastion>".into() }],
            (HostKey::Ask, host) => {
                let address = host.as_deref().map_or("<bastion>", |host| host.split('@').next_back().unwrap_or(host));
                let port = spec.bastion.port.to_string();
                vec![action("local", &Cmd::new("ssh-keyscan").args(["-T", "10", "-p", port.as_str(), address]))]
            }
            _ => Vec::new(),
        }
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        let bastion = &cx.world.spec.bastion;
        if bastion.host.is_some() && bastion.host_key != HostKey::Ask {
            return Ok(Probe::NotApplicable("the key of bastion.host is the spec's".into()));
        }
        let ours = cx.fact(fact::BASTION_HOST_KEYS_OF).is_some_and(|of| Some(of) == machine(cx));
        let keys = cx.fact(fact::BASTION_HOST_KEYS).filter(|keys| ours && !keys.is_empty());
        Ok(match keys {
            None => Probe::Missing("its host key is not known".into()),
            Some(keys) => {
                let keys: Vec<String> = keys.lines().map(str::to_owned).collect();
                Probe::True(vec![Evidence::new("pinned host keys", prints(&keys).join(", "))])
            }
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let keys = match &cx.world.spec.bastion.host_key {
            HostKey::Known(key) => vec![key.clone()],
            HostKey::Console => from_console(cx).await?,
            HostKey::Delivered => vec![delivered(cx)?],
            HostKey::Ask => confirmed(cx).await?,
        };
        pin(cx, &keys).await?;
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        match self.probe(cx).await? {
            Probe::True(evidence) => Ok(evidence),
            Probe::Missing(why) | Probe::NotApplicable(why) => Err(StepError::transient(why)),
        }
    }
}

/// `rotate-host-key VERB KEY …` as root.
fn rotate(verb: &str, rest: &[&str]) -> Cmd {
    Cmd::sh(ROTATE).arg(verb).arg(KEY_FILE).args(rest.iter().copied()).sudo()
}

#[async_trait]
impl Step<World> for Rotation {
    fn preview(&self, world: &World) -> Vec<Action> {
        if world.spec.bastion.host_key != HostKey::Delivered {
            return Vec::new();
        }
        let shown = |verb: &str, rest: &str| Action::Exec {
            host: "bastion".into(),
            command: format!("sudo -n rotate-host-key {verb} {KEY_FILE} {rest}"),
        };
        vec![shown("next", "<delivered key>"), shown("swap", &RELOAD.join(" "))]
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        if cx.world.spec.bastion.host_key != HostKey::Delivered || !cx.world.makes_bastion() {
            return Ok(Probe::NotApplicable("no host key was delivered".into()));
        }
        let delivered = delivered(cx)?;
        let keys = cx.need(fact::BASTION_HOST_KEYS)?;
        if keys.lines().any(|key| key == delivered) {
            return Ok(Probe::Missing("the key of the user data is still trusted".into()));
        }
        let output = must(cx, &cx.world.bastion(cx)?, hello()).await?;
        let keys: Vec<String> = keys.lines().map(str::to_owned).collect();
        Ok(Probe::True(vec![
            Evidence::new("pinned host keys", prints(&keys).join(", ")),
            Evidence::new(hello().line(), output.text().replace('\n', " ")),
        ]))
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let delivered = delivered(cx)?;
        let bastion = cx.world.bastion(cx)?;
        let next = must(cx, &bastion, rotate("next", &[&delivered])).await?.text();
        if fingerprint(&next).is_none() || next == delivered {
            return Err(StepError::fatal(format!("the bastion made no host key of its own: it says {next:?}")));
        }
        // Whatever happens from here on, the machine has one of the two.
        pin(cx, &[delivered, next.clone()]).await?;
        must(cx, &bastion, rotate("swap", &RELOAD)).await?;
        let target = cx.world.bastion_target(cx)?;
        let what = format!("sshd on {} to show its new key", target.address);
        wait_for(cx, &what, Duration::from_secs(1), Duration::from_secs(60), || async {
            let shown = cx.world.ssh.learn_host_key(&target).await.unwrap_or_default();
            Ok(shown.contains(&next).then_some(()))
        })
        .await?;
        pin(cx, &[next]).await?;
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        // A new connection: the pool makes one for a target with other keys, and it trusts the new key alone.
        match self.probe(cx).await? {
            Probe::True(evidence) => Ok(evidence),
            Probe::Missing(why) | Probe::NotApplicable(why) => Err(StepError::transient(why)),
        }
    }
}
