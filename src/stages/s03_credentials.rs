//! 03: the least that the later stages need, 0600, and proven by reading it back.

use async_trait::async_trait;

use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::{Cmd, Stdin};
use crate::model::event::{Action, Evidence};
use crate::spec::Secret;
use crate::spec::install_site::{ShortLived, short_lived};
use crate::spec::secrets::merge_pull_secret;

use super::world::{Cx, World, exec, fact, file, get, must, put, sha256};

/// The pull secret with an entry for the mirror's one identity.
pub struct PullSecret;

/// One profile of the operator's AWS credentials, when the spec names one.
pub struct CloudProfile;

pub(super) fn authfile(workdir: &str) -> String {
    format!("{workdir}/auth.json")
}

pub(super) fn aws_credentials(workdir: &str) -> String {
    format!("{workdir}/aws-credentials")
}

/// What the auth file has to hold.
pub(super) fn merged(world: &World) -> Result<Secret, StepError> {
    let mirror = &world.spec.mirror;
    merge_pull_secret(&world.secrets.pull_secret, &world.spec.registry(), &mirror.user, &world.mirror_password)
        .map_err(|error| StepError::fatal(format!("merging the pull secret: {error}")))
}

/// Mode and owner, as `stat` has them.
fn mode_of(path: &str) -> Cmd {
    Cmd::new("stat").args(["-c", "%a"]).arg(path)
}

/// A secret file is there with this content, and for its owner only.
async fn holds(cx: &Cx, path: &str, secret: &Secret) -> Result<Probe, StepError> {
    let bastion = cx.world.bastion(cx)?;
    let Some(found) = get(&bastion, path).await? else {
        return Ok(Probe::Missing(format!("{path} is not there")));
    };
    if sha256(&found) != sha256(secret.reveal().as_bytes()) {
        return Ok(Probe::Missing(format!("{path} has other content")));
    }
    let mode = exec(cx, &bastion, mode_of(path)).await?.text();
    Ok(match mode.as_str() {
        "600" => Probe::True(vec![
            Evidence::new(mode_of(path).line(), mode),
            Evidence::new(format!("sha256 of {path}"), "as written"),
        ]),
        _ => Probe::Missing(format!("{path} has mode {mode}")),
    })
}

async fn prove(cx: &Cx, path: &str, secret: &Secret) -> Result<Vec<Evidence>, StepError> {
    match holds(cx, path, secret).await? {
        Probe::True(evidence) => Ok(evidence),
        Probe::Missing(why) | Probe::NotApplicable(why) => Err(StepError::transient(why)),
    }
}

#[async_trait]
impl Step<World> for PullSecret {
    fn preview(&self, world: &World) -> Vec<Action> {
        vec![file("bastion", &authfile(&format!("~/{}", world.spec.bastion.workdir)), 0o600)]
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        holds(cx, &authfile(&cx.need(fact::WORKDIR)?), &merged(&cx.world)?).await
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let path = authfile(&cx.need(fact::WORKDIR)?);
        put(cx, &cx.world.bastion(cx)?, &path, Stdin::Secret(merged(&cx.world)?), 0o600).await?;
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        prove(cx, &authfile(&cx.need(fact::WORKDIR)?), &merged(&cx.world)?).await
    }
}

/// The section `[profile]` of an AWS credentials file, as a file of its own named `default`.
fn profile(text: &str, wanted: &str) -> Option<String> {
    let header = |line: &str| line.trim().strip_prefix('[')?.strip_suffix(']').map(str::trim).map(str::to_owned);
    let mut lines = text.lines().skip_while(|line| header(line).as_deref() != Some(wanted)).skip(1).peekable();
    lines.peek()?;
    let body: Vec<&str> = lines.take_while(|line| header(line).is_none()).filter(|line| line.contains('=')).collect();
    (!body.is_empty()).then(|| format!("[default]\n{}\n", body.join("\n")))
}

/// The credentials that the spec's profile has on this machine.
fn credentials(world: &World) -> Result<Option<Secret>, StepError> {
    let Some(wanted) = &world.spec.aws.profile else { return Ok(None) };
    let path = match std::env::var_os("AWS_SHARED_CREDENTIALS_FILE") {
        Some(path) => std::path::PathBuf::from(path),
        None => directories::BaseDirs::new()
            .map(|dirs| dirs.home_dir().join(".aws/credentials"))
            .ok_or_else(|| StepError::fatal("HOME is not set, so there is no ~/.aws/credentials"))?,
    };
    let text = std::fs::read_to_string(&path)
        .map_err(|error| StepError::fatal(format!("reading {}: {error}", path.display())))?;
    let found = profile(&text, wanted).ok_or_else(|| {
        StepError::fatal(format!("{} has no profile [{wanted}]", path.display()))
            .hint("set aws.profile to one that it has; a profile of short-lived tokens would not outlive the install")
    })?;
    for value in found.lines().filter_map(|line| line.split_once('=')).map(|(_, value)| value.trim()) {
        crate::spec::secret::remember(value);
    }
    Ok(Some(Secret::holding(found)))
}

#[async_trait]
impl Step<World> for CloudProfile {
    fn preview(&self, world: &World) -> Vec<Action> {
        match world.spec.aws.profile {
            Some(_) => vec![file("bastion", &aws_credentials(&format!("~/{}", world.spec.bastion.workdir)), 0o600)],
            None => Vec::new(),
        }
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        match credentials(&cx.world)? {
            None => {
                Ok(Probe::NotApplicable("aws.profile is not set: the bastion has its own role or environment".into()))
            }
            Some(secret) => holds(cx, &aws_credentials(&cx.need(fact::WORKDIR)?), &secret).await,
        }
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let mut warned = None;
        if let Some(secret) = credentials(&cx.world)? {
            match short_lived(secret.reveal(), cx.world.spec.credentials_mode()) {
                Some(ShortLived::Refused(why)) => return Err(StepError::fatal(why)),
                Some(ShortLived::Warned(why)) => warned = Some(why),
                None => {}
            }
            let path = aws_credentials(&cx.need(fact::WORKDIR)?);
            put(cx, &cx.world.bastion(cx)?, &path, Stdin::Secret(secret), 0o600).await?;
        }
        Ok(warned.map_or(Ran::Ok, Ran::Warning))
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        let secret = credentials(&cx.world)?.ok_or_else(|| StepError::fatal("the profile is gone"))?;
        let mut evidence = prove(cx, &aws_credentials(&cx.need(fact::WORKDIR)?), &secret).await?;
        // The installer will use it; better to know now that AWS takes it. Not every bastion has the CLI.
        let ask = Cmd::new("aws")
            .args(["sts", "get-caller-identity", "--query", "Arn", "--output", "text"])
            .env("AWS_SHARED_CREDENTIALS_FILE", aws_credentials(&cx.need(fact::WORKDIR)?));
        let bastion = cx.world.bastion(cx)?;
        if exec(cx, &bastion, Cmd::sh("command -v aws")).await?.ok() {
            let output = must(cx, &bastion, ask.clone()).await?;
            evidence.push(Evidence::new(ask.line(), output.text()));
        }
        Ok(evidence)
    }
}

#[cfg(test)]
mod tests {
    use super::profile;

    #[test]
    fn only_the_named_profile_travels() {
        let file = "[default]\naws_access_key_id = A\n\n[ static ]\naws_access_key_id = B\n# note\naws_secret_access_key = S\n[other]\nx = y\n";
        let text = profile(file, "static").unwrap();
        assert_eq!(text, "[default]\naws_access_key_id = B\naws_secret_access_key = S\n");
        assert_eq!(profile(file, "absent"), None);
        assert_eq!(profile("[empty]\n[next]\na = b", "empty"), None);
    }
}
