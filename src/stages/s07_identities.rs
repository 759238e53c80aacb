//! 07: credentials of the cluster's operators, when the cloud credential operator is in manual mode: one user for each of
//! the CredentialsRequests of exactly this release, or what the operator brought. The secrets are kept beside the install
//! directory, 0600: `create manifests` makes the place where they go, and a second install directory needs them again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::cloud::Kind;
use crate::cloud::identity::{self, Identity, identities, items, keys, manifest, manifest_name, prefix, read_manifest};
use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::{Cmd, Host, Output, Stdin};
use crate::model::event::{Action, Evidence, Level, Unit};
use crate::spec::{CredentialsMode, Secret};

use super::s01_infrastructure::{ledger, ledger_error};
use super::s03_credentials::authfile;
use super::s04_tools::tool;
use super::s05_mirror_registry::ca_path;
use super::world::{Cx, World, action, exec, fact, file, get, must, put, sha256};

/// Users, policies, keys, and the manifests of their secrets.
pub struct Identities;

/// Where the manifests are kept until there is an install directory that wants them.
fn kept(workdir: &str) -> String {
    format!("{workdir}/identities")
}

fn requests(workdir: &str) -> String {
    format!("{workdir}/credentials-requests")
}

async fn list(cx: &Cx, bastion: &Arc<dyn Host>, folder: &str) -> Result<Option<Vec<String>>, StepError> {
    let output = exec(cx, bastion, Cmd::new("ls").arg(folder)).await?;
    let names = || output.text().lines().map(|name| format!("{folder}/{name}")).collect();
    Ok(output.ok().then(names))
}

/// The manifests as they stand on the bastion, absolute paths.
pub(super) async fn files(cx: &Cx, bastion: &Arc<dyn Host>) -> Result<Vec<String>, StepError> {
    Ok(list(cx, bastion, &kept(&cx.need(fact::WORKDIR)?)).await?.unwrap_or_default())
}

/// `oc adm release extract`; `included` leaves to `oc` what belongs to this cluster, which older ones cannot do.
fn extract(oc: Cmd, install_config: &str, to: &str, authfile: &str, release: &str, included: bool) -> Cmd {
    let mut cmd = oc.args(["adm", "release", "extract", "--credentials-requests", "--cloud", "aws"]);
    if included {
        cmd = cmd.args(["--included", "--install-config", install_config]);
    }
    cmd.args(["--to", to, "--registry-config", authfile, release]).timeout(Some(Duration::from_secs(300)))
}

async fn fetch_requests(cx: &Cx, bastion: &Arc<dyn Host>) -> Result<(), StepError> {
    let workdir = cx.need(fact::WORKDIR)?;
    let folder = requests(&workdir);
    // Half a set must never look like a whole one.
    let (new, config) = (format!("{folder}.new"), format!("{}.install-config.yaml", cx.need(fact::INSTALL_DIR)?));
    let release = cx.need(fact::MIRROR_PULL_SPEC)?;
    let run = async |included: bool| -> Result<Output, StepError> {
        must(cx, bastion, Cmd::sh("rm -rf \"$1\" && mkdir -p \"$1\"").arg(&new)).await?;
        let mut oc = tool(cx, "oc")?;
        if cx.fact(fact::MIRROR_CA).is_some_and(|ca| !ca.trim().is_empty()) {
            oc = oc.env("SSL_CERT_FILE", ca_path(cx)?);
        }
        exec(cx, bastion, extract(oc, &config, &new, &authfile(&workdir), &release, included)).await
    };
    let mut output = run(true).await?;
    if !output.ok() && output.error_text().contains("unknown flag") {
        output = run(false).await?;
    }
    if !output.ok() {
        let said = output.error_text();
        let words = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned();
        return Err(StepError::transient(format!("oc ended with status {}: {words}", output.status))
            .during("extracting the CredentialsRequests of the release"));
    }
    must(cx, bastion, Cmd::sh("rm -rf \"$1\" && mv \"$1.new\" \"$1\"").arg(folder)).await.map(drop)
}

/// What the release asks for, of the requests that were extracted; `None` before that.
async fn wanted(cx: &Cx, bastion: &Arc<dyn Host>) -> Result<Option<Vec<Identity>>, StepError> {
    let Some(files) = list(cx, bastion, &requests(&cx.need(fact::WORKDIR)?)).await? else { return Ok(None) };
    let mut all = Vec::new();
    for path in files.iter().filter(|path| path.ends_with(".yaml") || path.ends_with(".yml")) {
        let Some(found) = get(bastion, path).await? else { continue };
        let parsed = identity::parse(path, &String::from_utf8_lossy(&found));
        all.extend(parsed.map_err(|error| not_understood(error.to_string()))?);
    }
    let prefix = prefix(&cx.world.spec.cluster.name, &cx.model.run);
    identities(&prefix, all).map(Some).map_err(not_understood)
}

fn not_understood(why: String) -> StepError {
    StepError::fatal(why)
        .during("reading the CredentialsRequests of the release")
        .hint("make the secrets yourself, for example with ccoctl, and name their folder in credentials.manifests")
}

/// The key in a manifest that stands on the bastion for its owner alone.
async fn held(cx: &Cx, bastion: &Arc<dyn Host>, identity: &Identity) -> Result<Option<String>, StepError> {
    let path = format!("{}/{}", kept(&cx.need(fact::WORKDIR)?), manifest_name(identity));
    let Some(found) = get(bastion, &path).await? else { return Ok(None) };
    let Some((namespace, name, key)) = read_manifest(&String::from_utf8_lossy(&found)) else { return Ok(None) };
    let mode = exec(cx, bastion, Cmd::new("stat").args(["-c", "%a"]).arg(&path)).await?.text();
    Ok(key.filter(|_| (namespace, name) == (identity.namespace.clone(), identity.secret.clone()) && mode == "600"))
}

async fn probe_users(cx: &Cx) -> Result<Probe, StepError> {
    let bastion = cx.world.bastion(cx)?;
    let Some(identities) = wanted(cx, &bastion).await? else {
        return Ok(Probe::Missing("the release's CredentialsRequests are not extracted yet".into()));
    };
    let survey = ledger(cx)?.survey(&items(&cx.model.run, &identities)).await.map_err(ledger_error)?;
    if !survey.is_complete() {
        return Ok(Probe::Missing(survey.missing.join(", ")));
    }
    let mut evidence = Vec::new();
    for identity in &identities {
        let Some(user) = survey.made.get(&identity.user).filter(|user| user.kind == Kind::User) else { continue };
        let Some(key) = held(cx, &bastion, identity).await? else {
            return Ok(Probe::Missing(format!("{} is not there", manifest_name(identity))));
        };
        if keys(user) != [key.as_str()] {
            let have = if keys(user).is_empty() { "none".to_owned() } else { keys(user).join(", ") };
            return Ok(Probe::Missing(format!("{} has the keys {have}; its manifest has {key}", identity.user)));
        }
        let answer = format!("{} with the key {key}, for {}/{}", user.state, identity.namespace, identity.secret);
        evidence.push(Evidence::new(format!("iam:GetUser {}", identity.user), answer));
    }
    if evidence.is_empty() {
        return Err(not_understood("the release asks for no credentials at all".into()));
    }
    Ok(Probe::True(evidence))
}

async fn make_users(cx: &Cx) -> Result<(), StepError> {
    let bastion = cx.world.bastion(cx)?;
    let ledger = ledger(cx)?;
    fetch_requests(cx, &bastion).await?;
    let identities = wanted(cx, &bastion).await?.unwrap_or_default();
    ledger.ensure_users(&cx.model.run, &identities).await.map_err(ledger_error)?;
    let folder = kept(&cx.need(fact::WORKDIR)?);
    must(cx, &bastion, Cmd::sh("umask 077; mkdir -p \"$1\"").arg(&folder)).await?;
    let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let mut known = Vec::new();
    for (done, identity) in identities.iter().enumerate() {
        let note = Some(format!("key of {}", identity.user));
        cx.progress(wide(done), Some(wide(identities.len())), Unit::Count, note).await;
        let held = held(cx, &bastion, identity).await?;
        let made = ledger.ensure_key(&identity.user, held.as_deref()).await.map_err(ledger_error)?;
        if let Some(key) = &made {
            let path = format!("{folder}/{}", manifest_name(identity));
            put(cx, &bastion, &path, Stdin::Secret(manifest(identity, key)), 0o600).await?;
        }
        known.extend(made.map(|key| key.id).or(held).map(|id| format!("{}={id}", identity.user)));
    }
    // What the release does not ask for would end up in the cluster too.
    let asked = |path: &String| identities.iter().any(|one| *path == format!("{folder}/{}", manifest_name(one)));
    let others: Vec<String> = files(cx, &bastion).await?.into_iter().filter(|path| !asked(path)).collect();
    if !others.is_empty() {
        must(cx, &bastion, Cmd::new("rm").arg("-f").args(others)).await?;
    }
    cx.set_fact(fact::IDENTITY_KEYS, known.join("\n")).await;
    Ok(())
}

/// The operator's own manifests: name and content. With `ccoctl` the key that signs service account tokens lies beside
/// them and has to be the cluster's.
fn given(folder: &Path) -> Result<Vec<(String, Secret)>, StepError> {
    let failed = |path: &Path, error: std::io::Error| StepError::fatal(format!("reading {}: {error}", path.display()));
    let entries = std::fs::read_dir(folder).map_err(|error| failed(folder, error))?;
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "yaml" || end == "yml"));
    if paths.is_empty() {
        return Err(StepError::fatal(format!("{} holds no manifest (*.yaml)", folder.display())));
    }
    paths.sort();
    let signer = folder.join("../tls/bound-service-account-signing-key.key");
    paths.extend(Some(signer).filter(|path| path.is_file()));
    let mut files = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
        // Registers the values of what is a secret.
        let _what_it_is_for = read_manifest(&text);
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        files.push((name, Secret::holding(text)));
    }
    Ok(files)
}

async fn probe_given(cx: &Cx, folder: &Path) -> Result<Probe, StepError> {
    let bastion = cx.world.bastion(cx)?;
    let there = kept(&cx.need(fact::WORKDIR)?);
    let mut evidence = Vec::new();
    for (name, content) in given(folder)? {
        let path = format!("{there}/{name}");
        match get(&bastion, &path).await? {
            Some(found) if sha256(&found) == sha256(content.reveal().as_bytes()) => {
                evidence.push(Evidence::new(path, "as it stands here"));
            }
            _ => return Ok(Probe::Missing(format!("{path} is not there as it stands here"))),
        }
    }
    Ok(Probe::True(evidence))
}

#[async_trait]
impl Step<World> for Identities {
    fn preview(&self, world: &World) -> Vec<Action> {
        if world.spec.credentials_mode() != CredentialsMode::Manual {
            return Vec::new();
        }
        let workdir = format!("~/{}", world.spec.bastion.workdir);
        let manifests = file("bastion", &format!("{}/<one for each secret>.yaml", kept(&workdir)), 0o600);
        if world.spec.credentials.manifests.is_some() {
            return vec![manifests];
        }
        let config = format!("{workdir}/install-1.install-config.yaml");
        let release = format!("{}/{}@<digest>", world.spec.registry(), world.spec.mirror.release_repository);
        let to = requests(&workdir);
        let cmd = extract(Cmd::new("oc"), &config, &to, &authfile(&workdir), &release, true);
        let calls = ["iam:CreatePolicy", "iam:CreateUser", "iam:AttachUserPolicy", "iam:CreateAccessKey"];
        let calls = calls.map(|call| Action::Api { call: format!("{call} <one for each request>") });
        std::iter::once(action("bastion", &cmd)).chain(calls).chain([manifests]).collect()
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        let spec = &cx.world.spec;
        match (spec.credentials_mode(), &spec.credentials.manifests) {
            (CredentialsMode::Manual, Some(folder)) => probe_given(cx, folder).await,
            (CredentialsMode::Manual, None) if cx.world.cloud.is_none() => {
                Ok(Probe::Missing("there are no users for the cluster's operators".into()))
            }
            (CredentialsMode::Manual, None) => probe_users(cx).await,
            (mode, _) => {
                Ok(Probe::NotApplicable(format!("credentials.mode is {mode:?}: the cluster sees to it itself")))
            }
        }
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        match &cx.world.spec.credentials.manifests {
            Some(folder) => {
                let bastion = cx.world.bastion(cx)?;
                let there = kept(&cx.need(fact::WORKDIR)?);
                must(cx, &bastion, Cmd::sh("umask 077; rm -rf \"$1\" && mkdir -p \"$1\"").arg(&there)).await?;
                for (name, content) in given(folder)? {
                    put(cx, &bastion, &format!("{there}/{name}"), Stdin::Secret(content), 0o600).await?;
                }
            }
            None if cx.world.cloud.is_none() => {
                return Err(StepError::fatal("there is no cloud to make users in").hint(
                    "name a folder with your own secrets in credentials.manifests, or set credentials.mode = \"Mint\" \
                     where the cluster reaches IAM",
                ));
            }
            None => make_users(cx).await?,
        }
        let text = "a cluster with manual credentials refuses minor upgrades until those of the next minor are there and \
                    the annotation cloudcredential.openshift.io/upgradeable-to says so";
        cx.note(Level::Warn, text).await;
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        match self.probe(cx).await? {
            Probe::True(evidence) => Ok(evidence),
            Probe::Missing(why) | Probe::NotApplicable(why) => Err(StepError::transient(why)),
        }
    }
}
