//! What this machine, the spec and the account have and lack for an installation. Changes nothing.

mod local;

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cloud::preflight::{Check, State, failed, preflight};
use crate::host::ssh::{SshPool, SshTarget, fingerprint};
use crate::model::text::strip_control;
use crate::spec::{HostKey, Spec};

use super::{Failure, cloud, exit};

#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    #[arg(default_value = "cluster.toml")]
    file: PathBuf,
    /// The checks as one JSON object.
    #[arg(long)]
    json: bool,
    /// Look at the cloud kept in this file (a lab's).
    #[cfg(feature = "lab")]
    #[arg(long, value_name = "FILE")]
    cloud: Option<PathBuf>,
}

pub async fn doctor(state: Option<&Path>, args: DoctorArgs) -> Result<u8, Failure> {
    let mut checks = local::checks(state).await?;
    let mut of_account = Vec::new();
    match crate::spec::load(&args.file) {
        Ok(spec) => {
            let found = format!("{} {} in {}", spec.domain(), spec.release.version, spec.aws.region);
            checks.push(check(State::Ok, args.file.display(), found, ""));
            checks.extend(host_key(&spec).await?);
            #[cfg(feature = "lab")]
            let file = args.cloud.as_deref();
            #[cfg(not(feature = "lab"))]
            let file = None;
            if let Some(cloud) = cloud::open(file, &spec).await? {
                of_account = preflight(&*cloud, &spec).await;
            }
        }
        Err(errors) if args.file.exists() => {
            let errors = errors.to_string();
            let asked = format!("correct {}", args.file.display());
            checks.push(check(State::Fail, args.file.display(), errors.replace('\n', "; "), asked));
        }
        Err(_) => checks.push(check(
            State::Unknown,
            args.file.display(),
            "it is not there, so that the account was not looked at",
            "`bartizan init` writes one",
        )),
    }
    let code = match (failed(&checks).len(), failed(&of_account).len()) {
        (0, 0) => exit::DONE,
        (0, _) => exit::INFRASTRUCTURE,
        _ => exit::OTHER,
    };
    checks.extend(of_account);
    if args.json {
        println!("{}", json!({ "ready": code == exit::DONE, "checks": checks }));
        return Ok(code);
    }
    for check in &checks {
        println!("{:<7} {}", check.state.word(), strip_control(&check.sentence()).replace('\n', " "));
    }
    let count = |state: State| checks.iter().filter(|check| check.state == state).count();
    let (fail, warn, unknown) = (count(State::Fail), count(State::Warn), count(State::Unknown));
    println!("{} checks: {fail} failed, {warn} warnings, {unknown} could not be made", checks.len());
    Ok(code)
}

fn check(state: State, what: impl std::fmt::Display, found: impl Into<String>, ask: impl Into<String>) -> Check {
    Check { what: what.to_string(), found: found.into(), needed: String::new(), state, ask: ask.into() }
}

/// This machine alone: for a bundle.
pub async fn of_this_machine(state: Option<&Path>) -> Result<Vec<Check>, Failure> {
    local::checks(state).await
}

/// A bastion of the operator's own needs its host key in the spec: what it says of itself, to be compared.
async fn host_key(spec: &Spec) -> Result<Option<Check>, Failure> {
    let known = matches!(spec.bastion.host_key, HostKey::Known(_));
    let Some(host) = spec.bastion.host.as_deref().filter(|_| !known) else { return Ok(None) };
    let address = host.split_once('@').map_or(host, |(_, address)| address);
    let scratch = tempfile::tempdir().map_err(|error| Failure::other(format!("making a directory: {error}")))?;
    let pool = SshPool::new(scratch.path()).map_err(Failure::other)?;
    let mut target = SshTarget::new("bastion", address, spec.bastion_user());
    target.port = spec.bastion.port;
    let asked = match pool.learn_host_key(&target).await {
        Ok(keys) => {
            let says = |key: &String| format!("host_key = \"{key}\" ({})", fingerprint(key).unwrap_or_default());
            let keys: Vec<String> = keys.iter().map(says).collect();
            format!("compare with the bastion's console, then set one of: {}", keys.join(", "))
        }
        Err(error) => error.to_string(),
    };
    let found = format!("{address} has to be known before the first connection");
    Ok(Some(check(State::Fail, "bastion.host_key", found, asked)))
}
