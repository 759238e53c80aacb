//! A program on the bastion that outlives every connection: a unit of the user's systemd, or a job where there is none.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::StepError;
use crate::host::job::{Job, JobSpec};
use crate::host::{Cmd, Host};

use super::world::{Cx, bytes, exec, fact, host_error, must, put};

/// What is kept running.
pub struct Program<'a> {
    /// Of the unit and of the job.
    pub name: &'a str,
    pub description: &'a str,
    /// In the foreground, with absolute paths: a unit has no PATH of the operator's.
    pub cmd: Cmd,
}

/// Start it, or start it again; with a systemd it comes back after a reboot.
pub async fn keep(cx: &Cx, bastion: &Arc<dyn Host>, program: &Program<'_>) -> Result<(), StepError> {
    if exec(cx, bastion, user_systemd()).await?.ok() {
        let path = format!("{}/.config/systemd/user/{}.service", cx.need(fact::HOME)?, program.name);
        put(cx, bastion, &path, bytes(unit(program)), 0o644).await?;
        must(cx, bastion, by_systemd(&["daemon-reload"])).await?;
        must(cx, bastion, by_systemd(&["enable", program.name])).await?;
        must(cx, bastion, by_systemd(&["restart", program.name])).await?;
        return Ok(());
    }
    let dir = format!("{}/jobs", cx.need(fact::WORKDIR)?);
    let spec = JobSpec { name: program.name.to_owned(), cmd: program.cmd.clone().timeout(None), dir };
    let job = Job::new(bastion.clone(), spec).map_err(host_error)?;
    job.stop(Duration::from_secs(10)).await.map_err(host_error)?;
    job.start().await.map_err(host_error)?;
    Ok(())
}

fn unit(program: &Program<'_>) -> String {
    // `%` and `$` are systemd's own.
    let line = program.cmd.line().replace('%', "%%").replace('$', "$$");
    format!(
        "[Unit]\nDescription={}\nWants=network-online.target\nAfter=network-online.target\n\n[Service]\nExecStart={line}\n\
         Restart=on-failure\nRestartSec=5\nTimeoutStartSec=120\n\n[Install]\nWantedBy=default.target\n",
        program.description
    )
}

/// Is there a systemd that keeps this user's units, also when nobody is logged in?
pub fn user_systemd() -> Cmd {
    Cmd::sh("[ -d /run/systemd/system ] && systemctl --user show-environment >/dev/null 2>&1 && loginctl enable-linger")
}

pub fn by_systemd(what: &[&str]) -> Cmd {
    Cmd::new("systemctl").arg("--user").args(what.iter().copied()).timeout(Some(Duration::from_secs(180)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_comes_back_after_a_reboot_and_its_command_is_taken_as_it_is() {
        let cmd = Cmd::new("/usr/bin/podman").args(["run", "--name", "a b", "50%", "$HOME"]);
        let text = unit(&Program { name: "mirror", description: "Mirror", cmd });
        for line in [
            "ExecStart=/usr/bin/podman run --name 'a b' 50%% '$$HOME'",
            "Restart=on-failure",
            "After=network-online.target",
            "WantedBy=default.target",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
