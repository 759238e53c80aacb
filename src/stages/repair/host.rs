//! Units and clocks of a host: the bastion, or a node through it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::{Cmd, Host};
use crate::model::event::{Action, Evidence};
use crate::stages::world::{Cx, World, action, exec, fact, must};

const PATIENCE: u32 = 20;

/// The host of that name; `Err` says why there is none to repair.
async fn host(cx: &Cx, name: &str) -> Result<Result<Arc<dyn Host>, String>, StepError> {
    if name == "bastion" {
        return Ok(Ok(cx.world.bastion(cx)?));
    }
    if name == "bootstrap" {
        let directory = cx.fact(fact::INSTALL_DIR);
        if cx.fact(fact::BOOTSTRAP_ADDRESS).is_none() || cx.fact(fact::BOOTSTRAP_LEFT) == directory {
            return Ok(Err("there is no bootstrap machine now".into()));
        }
        return Ok(Ok(cx.world.bootstrap(cx).await?));
    }
    Ok(match super::cluster::address(cx, name).await? {
        Some(address) => Ok(cx.world.node(cx, name, address)?),
        None => Err(format!("the cluster has no node {name}")),
    })
}

/// Starts a unit again that systemd has given up.
pub(super) struct RestartUnit {
    pub host: String,
    pub unit: String,
}

fn state(unit: &str) -> Cmd {
    Cmd::new("systemctl").args(["show", "--property", "ActiveState", "--value"]).arg(format!("{unit}.service"))
}

/// Without waiting for it: a oneshot unit is done when its work is.
fn restart(unit: &str) -> Cmd {
    Cmd::sh("systemctl reset-failed \"$1\"; exec systemctl restart --no-block \"$1\"")
        .arg(format!("{unit}.service"))
        .sudo()
}

#[async_trait]
impl Step<World> for RestartUnit {
    fn preview(&self, _world: &World) -> Vec<Action> {
        vec![action(&self.host, &restart(&self.unit))]
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        let host = match host(cx, &self.host).await? {
            Ok(host) => host,
            Err(why) => return Ok(Probe::NotApplicable(why)),
        };
        let answer = must(cx, &host, state(&self.unit)).await?.text();
        Ok(match answer.as_str() {
            "failed" => Probe::Missing(format!("{} has failed on {}", self.unit, self.host)),
            _ => Probe::True(vec![Evidence::new(state(&self.unit).line(), answer)]),
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let host = host(cx, &self.host).await?.map_err(StepError::fatal)?;
        must(cx, &host, restart(&self.unit)).await?;
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        // One that fails again does so within its first seconds.
        tokio::time::sleep(Duration::from_secs(2)).await;
        match self.probe(cx).await? {
            Probe::True(evidence) => Ok(evidence),
            Probe::Missing(why) | Probe::NotApplicable(why) => Err(StepError::transient(why)),
        }
    }
}

/// Steps a clock to the time that every machine in a VPC is given, and sees that it is kept.
pub(super) struct SetClock {
    pub host: String,
}

fn tracking() -> Cmd {
    Cmd::new("chronyc").args(["-n", "tracking"])
}

/// Off by less than this, certificates and signatures are in order.
const OFF_S: f64 = 1.0;

/// The Amazon Time Sync Service needs no internet (169.254.169.123, EC2 user guide). A source that is there already is kept.
fn step_clock() -> Cmd {
    Cmd::sh(STEP_CLOCK).sudo().timeout(Some(Duration::from_secs(120)))
}

const STEP_CLOCK: &str = r#"conf=/etc/chrony.conf
if [ -e /etc/chrony/chrony.conf ]; then conf=/etc/chrony/chrony.conf; fi
if ! grep -rqs 169.254.169.123 "$conf" /etc/chrony.d /run/chrony.d /run/chrony-dhcp; then
  printf '%s\n' 'server 169.254.169.123 prefer iburst minpoll 4 maxpoll 4' >>"$conf" || exit 1
fi
systemctl restart chronyd || exit 1
chronyc waitsync 10 0 0 1 >/dev/null 2>&1
chronyc makestep"#;

/// Seconds that the clock is off, and whether it follows a source (chrony `client.c`, `process_cmd_tracking`).
fn off(tracking: &str) -> Option<(f64, bool)> {
    let field = |name: &str| {
        tracking
            .lines()
            .find_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == name))
            .map(|(_, text)| text.trim())
    };
    let seconds: f64 = field("System time")?.split_whitespace().next()?.parse().ok()?;
    Some((seconds.abs(), field("Leap status") != Some("Not synchronised")))
}

#[async_trait]
impl Step<World> for SetClock {
    fn preview(&self, _world: &World) -> Vec<Action> {
        vec![action(&self.host, &step_clock())]
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        let host = match host(cx, &self.host).await? {
            Ok(host) => host,
            Err(why) => return Ok(Probe::NotApplicable(why)),
        };
        let answer = exec(cx, &host, tracking()).await?;
        let Some((seconds, follows)) = off(&answer.text()).filter(|_| answer.ok()) else {
            return Ok(Probe::Missing(format!("chrony of {} says nothing", self.host)));
        };
        Ok(if follows && seconds < OFF_S {
            Probe::True(vec![Evidence::new(tracking().line(), format!("{seconds} s off"))])
        } else {
            Probe::Missing(format!("the clock of {} is {seconds} s off", self.host))
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let host = host(cx, &self.host).await?.map_err(StepError::fatal)?;
        must(cx, &host, step_clock()).await?;
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        let mut last = String::new();
        for _ in 0..PATIENCE {
            match self.probe(cx).await? {
                Probe::True(evidence) => return Ok(evidence),
                Probe::Missing(why) | Probe::NotApplicable(why) => last = why,
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Err(StepError::transient(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chrony_says_how_far_a_clock_is_off() {
        let good = "Reference ID    : A9FEA97B (169.254.169.123)\nStratum         : 4\nRef time (UTC)  : Thu Mar 06 10:11:12 2025\n\
                    System time     : 0.000004211 seconds slow of NTP time\nLeap status     : Normal\n";
        assert_eq!(off(good), Some((0.000_004_211, true)));
        let bad = "Reference ID    : 00000000 ()\nSystem time     : 7200.120000000 seconds fast of NTP time\nLeap status     : Not synchronised\n";
        assert_eq!(off(bad), Some((7200.12, false)));
        assert_eq!(off("506 Cannot talk to daemon"), None);
    }
}
