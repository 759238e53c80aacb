//! 08: the installer as a job on the bastion. Its log, the bootstrap node's journal and the cluster are followed; its
//! exit status decides. What it left half done is taken further as its own documentation says: `wait-for
//! bootstrap-complete`, `destroy bootstrap`, `wait-for install-complete` (openshift/installer, docs/user/overview.md).

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use crate::cloud::{Kind, cost};
use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::Cmd;
use crate::host::job::{Job, JobSpec, JobStatus};
use crate::model::RunModel;
use crate::model::event::{Action, Data, Evidence, Level, Object, Observed, Standing};
use crate::model::text::one_line;
use crate::watch::installer::SOURCE;

use super::live;
use super::s06_image_sync::ended;
use super::s07_install_config::installer;
use super::s08_gather::keep_bundle;
use super::world::{Cx, World, action, exec, fact, get, host_error};

/// Until the machines run.
pub struct Infrastructure;

/// Until the masters have taken over.
pub struct Bootstrap;

/// Until every operator is available and stable.
pub struct Operators;

const LOOK: Duration = Duration::from_millis(700);

/// Phases of the installer's log in order (see `assets/installer.toml`); the place of `phase` in it.
fn place(phase: &str) -> usize {
    const ORDER: [&str; 12] = [
        "prepare",
        "infrastructure",
        "network",
        "machines",
        "kubernetes-api",
        "bootstrap",
        "etcd-member",
        "bootstrap-destroy",
        "initialize",
        "stable",
        "console",
        "complete",
    ];
    ORDER.iter().position(|known| *known == phase).unwrap_or(0)
}

/// What part of the installer's work is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Create,
    WaitBootstrap,
    DestroyBootstrap,
    WaitInstall,
}

impl Part {
    fn args(self) -> [&'static str; 2] {
        match self {
            Part::Create => ["create", "cluster"],
            Part::WaitBootstrap => ["wait-for", "bootstrap-complete"],
            Part::DestroyBootstrap => ["destroy", "bootstrap"],
            Part::WaitInstall => ["wait-for", "install-complete"],
        }
    }
}

fn job(cx: &Cx, part: Part) -> Result<(Job, Cmd), StepError> {
    let directory = cx.need(fact::INSTALL_DIR)?;
    let base = directory.rsplit('/').next().unwrap_or("install");
    let args = part.args();
    let cmd = installer(cx, &args)?.timeout(None);
    let spec = JobSpec {
        name: format!("{base}-{}", args.join("-")),
        cmd: cmd.clone(),
        dir: format!("{}/jobs", cx.need(fact::WORKDIR)?),
    };
    Ok((Job::new(cx.world.bastion(cx)?, spec).map_err(host_error)?, cmd))
}

/// Starts a part, or adopts it when it runs.
async fn begin(cx: &Cx, part: Part) -> Result<Job, StepError> {
    let (job, cmd) = job(cx, part)?;
    job.start().await.map_err(host_error)?;
    cx.acted(action("bastion", &cmd), None, Duration::ZERO).await;
    Ok(job)
}

/// The installer's exit code for it.
const BOOTSTRAP_FAILED: i32 = 5;

/// The installer's exit codes are ours: 3 config, 4 infrastructure, 5 bootstrap, 6 install, 7 operators, 8 interrupted.
async fn failure(cx: &Cx, failed: &Job, status: i32) -> StepError {
    let words = failed.last_words(4000).await.unwrap_or_default();
    let fatal = words.lines().rev().find(|line| line.contains("level=fatal") || line.contains("level=error"));
    let last = fatal.or(words.lines().last()).unwrap_or("it said nothing");
    let error = StepError::fatal(format!("openshift-install ended with status {status}")).during(format!(
        "{} in {}",
        failed.name(),
        cx.fact(fact::INSTALL_DIR).unwrap_or_default()
    ));
    if status == BOOTSTRAP_FAILED {
        keep_bundle(cx).await;
    }
    let mut error = match u8::try_from(status) {
        Ok(code @ 3..=8) => error.exit(code),
        _ => error,
    };
    error.causes.push(one_line(&crate::spec::secret::redact(last), 600));
    // It is the answer of one step only: who tries again after that wants the installation taken further.
    if let Ok((create, _)) = job(cx, Part::Create) {
        cx.set_fact(fact::INSTALL_FAILED, create.name()).await;
    }
    error
}

/// Was the operator told already that `create cluster` failed in this install directory?
async fn told(cx: &Cx) -> Result<bool, StepError> {
    let create = job(cx, Part::Create)?.0;
    Ok(cx.fresh(0).await.fact(fact::INSTALL_FAILED).as_deref() == Some(create.name()))
}

/// metadata.json tells what the cluster is called in the cloud; without it nothing can be destroyed, so it is kept here
/// as soon as it is there.
pub(super) async fn keep_metadata(cx: &Cx) -> Result<bool, StepError> {
    let now = cx.fresh(0).await;
    let object = cluster(cx)?;
    let recorded = now.model.objects.get(&object).is_some_and(|record| record.id.is_some());
    if recorded && now.fact(fact::INFRA_ID).is_some() {
        return Ok(true);
    }
    let directory = cx.need(fact::INSTALL_DIR)?;
    let Some(text) = get(&cx.world.bastion(cx)?, &format!("{directory}/metadata.json")).await? else {
        return Ok(false);
    };
    let Some(infra_id) = serde_json::from_slice::<serde_json::Value>(&text)
        .ok()
        .and_then(|metadata| Some(metadata.get("infraID")?.as_str()?.to_owned()))
    else {
        return Ok(false);
    };
    let kept = cx.world.run_dir.join(format!("{infra_id}.metadata.json"));
    std::fs::write(&kept, &text)
        .map_err(|error| StepError::transient(format!("writing {}: {error}", kept.display())))?;
    // A process may have died between the two.
    if !recorded {
        cx.sink.commit(Data::Created { object, id: infra_id.clone() }).await;
    }
    cx.set_fact(fact::INFRA_ID, infra_id).await;
    Ok(true)
}

/// The cluster as a thing of this run, one for each install directory.
pub(super) fn cluster(cx: &Cx) -> Result<Object, StepError> {
    let directory = cx.need(fact::INSTALL_DIR)?;
    let base = directory.rsplit('/').next().unwrap_or("install").to_owned();
    Ok(Object { kind: "cluster".into(), name: base })
}

/// The cluster of this install directory, while it stands; `Err` says why there is none.
pub(super) fn standing(cx: &Cx) -> Result<Result<String, String>, StepError> {
    let Some(infra_id) = cx.fact(fact::INFRA_ID) else { return Ok(Err("no cluster was begun".into())) };
    let gone = cx.model.objects.get(&cluster(cx)?).is_some_and(|record| record.gone.is_some());
    Ok(if gone { Err(format!("{infra_id} is gone")) } else { Ok(infra_id) })
}

/// For whoever watches: what the cluster is now, with what its machines cost.
pub(super) async fn show_cluster(cx: &Cx, state: &str, standing: Standing) -> Result<(), StepError> {
    let resource = Observed::Resource {
        resource: cluster(cx)?,
        id: cx.fresh(0).await.fact(fact::INFRA_ID).unwrap_or_default(),
        state: state.to_owned(),
        standing,
        waits_for: None,
        hourly: cost::cluster(&cx.world.spec),
    };
    cx.sink.emit(Data::Observed(resource)).await;
    Ok(())
}

/// Where the bootstrap node is: by its tag, else by what Cluster API wrote beside the log.
async fn bootstrap_address(cx: &Cx, infra_id: &str) -> Result<Option<String>, StepError> {
    if let Some(cloud) = &cx.world.cloud {
        let tags = BTreeMap::from([("Name".to_owned(), format!("{infra_id}-bootstrap"))]);
        let found = cloud.find(Kind::Instance, &tags).await.map_err(super::world::cloud_error)?;
        let running = found.iter().find(|instance| instance.state == "running");
        if let Some(address) = running.and_then(|instance| instance.property("PrivateIpAddress")) {
            return Ok(Some(address.to_owned()));
        }
    }
    let directory = cx.need(fact::INSTALL_DIR)?;
    let machine =
        format!("{directory}/.clusterapi_output/Machine-openshift-cluster-api-guests-{infra_id}-bootstrap.yaml");
    let Some(text) = get(&cx.world.bastion(cx)?, &machine).await? else { return Ok(None) };
    let machine: serde_json::Value = yaml_serde::from_slice(&text).unwrap_or_default();
    let addresses = machine.pointer("/status/addresses").and_then(serde_json::Value::as_array);
    Ok(addresses.into_iter().flatten().find_map(|address| {
        let internal = address.get("type")?.as_str()? == "InternalIP";
        internal.then(|| address.get("address")?.as_str().map(str::to_owned)).flatten()
    }))
}

/// Looks after the followers while the installer works: metadata, the bootstrap node's address, its journal.
async fn attend(cx: &Cx) -> Result<(), StepError> {
    live::follow_install(cx).await?;
    if !keep_metadata(cx).await? {
        return Ok(());
    }
    let now = cx.fresh(0).await;
    live::follow_consoles(&now).await;
    let phase = now.model.installer.phases.last().map_or(0, |phase| place(&phase.name));
    if phase >= place("bootstrap-destroy") {
        live::leave_bootstrap(cx).await;
        return Ok(());
    }
    if now.fact(fact::BOOTSTRAP_ADDRESS).is_none()
        && let Some(address) = bootstrap_address(cx, &now.need(fact::INFRA_ID)?).await?
    {
        // Every bootstrap has new host keys, and addresses come back.
        cx.world.ssh.forget_host_key("bootstrap").map_err(host_error)?;
        cx.set_fact(fact::BOOTSTRAP_ADDRESS, address).await;
    }
    let now = cx.fresh(0).await;
    if now.fact(fact::BOOTSTRAP_ADDRESS).is_some_and(|address| !address.is_empty()) {
        live::follow_bootstrap(&now).await?;
        live::follow_masters(&now).await?;
    }
    Ok(())
}

/// How watching a job ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Watched {
    /// What was waited for is there, or the job has ended well.
    Enough,
    /// The job was ended from outside, and this is how: that says nothing of what it waited for.
    Cut(String),
}

/// What an end that is no answer of the installer looks like: a signal (128 and more), its own handling of an interrupt
/// (8), or a host that went away with it.
fn cut_off(status: &JobStatus) -> Option<String> {
    match status {
        JobStatus::Ended { status: 8 } => Some("it was interrupted".to_owned()),
        JobStatus::Ended { status } if *status > 128 => Some(format!("signal {} ended it", status - 128)),
        JobStatus::Lost => Some("it is gone and left no status".to_owned()),
        JobStatus::Ended { .. } | JobStatus::Running { .. } | JobStatus::NotStarted => None,
    }
}

/// Waits until `enough` holds of the model or the job ends. A lost link is waited for.
pub(super) async fn watch(cx: &Cx, job: &Job, enough: impl Fn(&RunModel) -> bool) -> Result<Watched, StepError> {
    let mut since_status = 3_u32;
    loop {
        match attend(cx).await {
            Err(error) if !error.retry => return Err(error),
            Err(_) | Ok(()) => {}
        }
        if enough(&cx.fresh(0).await.model) {
            return Ok(Watched::Enough);
        }
        since_status += 1;
        if since_status >= 4 {
            since_status = 0;
            match job.status().await {
                Ok(JobStatus::Running { .. }) => {}
                Ok(over) => {
                    read_on(cx).await?;
                    return match (cut_off(&over), over) {
                        (_, JobStatus::Ended { status: 0 }) => Ok(Watched::Enough),
                        _ if enough(&cx.fresh(0).await.model) => Ok(Watched::Enough),
                        (Some(how), _) => Ok(Watched::Cut(how)),
                        (None, JobStatus::Ended { status }) => Err(failure(cx, job, status).await),
                        (None, over) => Err(StepError::fatal(format!("openshift-install: {}", ended(&over)))),
                    };
                }
                Err(error) if error.is_link() => {}
                Err(error) => return Err(host_error(error)),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = cx.cancel.cancelled() => return Err(StepError::fatal("cancelled")),
        }
    }
}

/// Lets the followers read what an ended job left in its log: the cause, or what was waited for after all.
async fn read_on(cx: &Cx) -> Result<(), StepError> {
    let lines = |model: &RunModel| model.logs.get(SOURCE).map_or(0, |log| log.lines);
    let mut before = lines(&cx.fresh(0).await.model);
    for _ in 0..15 {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
            () = cx.cancel.cancelled() => return Err(StepError::fatal("cancelled")),
        }
        match attend(cx).await {
            Err(error) if !error.retry => return Err(error),
            Err(_) | Ok(()) => {}
        }
        let now = lines(&cx.fresh(0).await.model);
        if now == before && now > 0 {
            break;
        }
        before = now;
    }
    Ok(())
}

fn reached(model: &RunModel, phase: &str) -> bool {
    model.installer.phases.iter().any(|seen| place(&seen.name) >= place(phase))
}

fn preview(part: Part, world: &World) -> Action {
    let directory = format!("~/{}/install-1", world.spec.bastion.workdir);
    let cmd = Cmd::new("openshift-install").args(part.args()).args(["--dir", &directory, "--log-level", "debug"]);
    action("bastion", &cmd)
}

async fn status(cx: &Cx, part: Part) -> Result<JobStatus, StepError> {
    job(cx, part)?.0.status().await.map_err(host_error)
}

pub(super) fn phase_evidence(cx: &Cx, phase: &str) -> Option<Evidence> {
    let seen = cx.model.installer.phases.iter().find(|seen| place(&seen.name) >= place(phase))?;
    Some(Evidence::new(".openshift_install.log", seen.message.clone()))
}

#[async_trait]
impl Step<World> for Infrastructure {
    fn preview(&self, world: &World) -> Vec<Action> {
        vec![preview(Part::Create, world)]
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        Ok(match phase_evidence(cx, "kubernetes-api") {
            Some(evidence) if cx.fact(fact::INFRA_ID).is_some() => Probe::True(vec![evidence]),
            _ => Probe::Missing("the machines do not run yet".into()),
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        cx.sink.commit(Data::Intent { object: cluster(cx)? }).await;
        show_cluster(cx, "installing", Standing::Making).await?;
        let before = status(cx, Part::Create).await?;
        let job = match before {
            JobStatus::NotStarted | JobStatus::Running { .. } => begin(cx, Part::Create).await?,
            // It must not be started twice in one directory: how far it came is in its log.
            JobStatus::Ended { .. } | JobStatus::Lost => job(cx, Part::Create)?.0,
        };
        let advice = |error: StepError| {
            error.hint(
                "if the machines run, skip this step: the next one waits for them. Else destroy what is there and begin \
                 in a new install directory (the recovery does both)",
            )
        };
        let watched =
            watch(cx, &job, |model| reached(model, "kubernetes-api")).await.map_err(|error| match before {
                JobStatus::NotStarted | JobStatus::Running { .. } => error,
                JobStatus::Ended { .. } | JobStatus::Lost => advice(error),
            })?;
        match watched {
            Watched::Enough => Ok(Ran::Ok),
            Watched::Cut(how) => {
                Err(advice(StepError::fatal(format!("openshift-install create cluster made not all machines: {how}"))))
            }
        }
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        let phase = phase_evidence(cx, "kubernetes-api")
            .ok_or_else(|| StepError::fatal("openshift-install never waited for the Kubernetes API"))?;
        let infra_id = cx.need(fact::INFRA_ID)?;
        show_cluster(cx, "up", Standing::Ready).await?;
        Ok(vec![phase, Evidence::new("metadata.json", format!("infraID {infra_id}"))])
    }
}

/// `create cluster`, when it can bring the cluster further: it runs, or it is done. `None` when it was cut off, or ended
/// badly and the operator knows that.
pub(super) async fn creating(cx: &Cx) -> Result<Option<Job>, StepError> {
    let job = job(cx, Part::Create)?.0;
    match job.status().await.map_err(host_error)? {
        JobStatus::Running { .. } | JobStatus::Ended { status: 0 } => Ok(Some(job)),
        JobStatus::NotStarted => Err(StepError::fatal("openshift-install create cluster was not started")),
        over if cut_off(&over).is_some() => Ok(None),
        _ if told(cx).await? => Ok(None),
        // The followers first: the log holds the cause.
        JobStatus::Ended { .. } | JobStatus::Lost => Ok(Some(job)),
    }
}

/// What a `create cluster` that was cut off has left running on the bastion: its local control plane (etcd, kube-apiserver,
/// the Cluster API controllers) holds files in the install directory that `destroy bootstrap` needs.
async fn sweep(cx: &Cx) -> Result<(), StepError> {
    const SWEEP: &str =
        r#"group=$(cat "$1/pid") && command -v pkill >/dev/null && pkill -KILL -g "$group" -f "$2"; exit 0"#;
    let (create, _) = job(cx, Part::Create)?;
    let cmd = Cmd::sh(SWEEP).arg(create.place()).arg(cx.need(fact::INSTALL_DIR)?);
    exec(cx, &cx.world.bastion(cx)?, cmd).await.map(drop)
}

/// A part of the work to its end. One that is cut off is begun again, a few times.
async fn carry_out(cx: &Cx, part: Part) -> Result<(), StepError> {
    const TIMES: u32 = 3;
    let name = part.args().join(" ");
    for _ in 0..TIMES {
        // Only its end counts: the bootstrap machine must not go while its etcd member is still in use.
        match watch(cx, &begin(cx, part).await?, |_| false).await? {
            Watched::Enough => return Ok(()),
            Watched::Cut(how) => cx.note(Level::Warn, format!("{name} did not come to its end: {how}")).await,
        }
    }
    Err(StepError::fatal(format!("openshift-install {name} was cut off {TIMES} times")))
}

/// What `create cluster` did not come to: waits until the bootstrap is complete, then takes its machine away.
pub(super) async fn complete_bootstrap(cx: &Cx) -> Result<(), StepError> {
    sweep(cx).await?;
    for part in [Part::WaitBootstrap, Part::DestroyBootstrap] {
        if status(cx, part).await? == (JobStatus::Ended { status: 0 }) {
            continue;
        }
        cx.note(Level::Warn, format!("create cluster has ended; going on with {}", part.args().join(" "))).await;
        carry_out(cx, part).await?;
    }
    Ok(())
}

/// Like [`complete_bootstrap`], and what comes after it.
async fn complete_install(cx: &Cx) -> Result<(), StepError> {
    if phase_evidence(cx, "initialize").is_none() {
        complete_bootstrap(cx).await?;
    }
    let part = Part::WaitInstall;
    cx.note(Level::Warn, format!("create cluster has ended; going on with {}", part.args().join(" "))).await;
    carry_out(cx, part).await
}

async fn say_cut(cx: &Cx, how: &str) {
    cx.note(Level::Warn, format!("openshift-install create cluster did not come to its end: {how}")).await;
}

/// The installer's own completion signal (ConfigMap kube-system/bootstrap), or that it went on to the next phase.
fn bootstrapped(model: &RunModel) -> bool {
    reached(model, "etcd-member")
}

#[async_trait]
impl Step<World> for Bootstrap {
    fn preview(&self, _world: &World) -> Vec<Action> {
        let journal = crate::watch::journal::Options::bootstrap();
        vec![
            action("bootstrap", &journal.command(&crate::watch::journal::Origin::Boot)),
            action("bootstrap", &Cmd::new("cat").sudo().arg("/var/log/openshift/bootkube.json")),
        ]
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        let Some(evidence) = phase_evidence(cx, "etcd-member") else {
            return Ok(Probe::Missing("the bootstrap is not complete".into()));
        };
        if phase_evidence(cx, "initialize").is_some() {
            return Ok(Probe::True(vec![evidence]));
        }
        Ok(match status(cx, Part::Create).await? {
            JobStatus::Running { .. } | JobStatus::Ended { status: 0 } => Probe::True(vec![evidence]),
            _ => Probe::Missing("the installer ended before it took the bootstrap machine away".into()),
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let Some(create) = creating(cx).await? else {
            complete_bootstrap(cx).await?;
            return Ok(Ran::Ok);
        };
        if let Watched::Cut(how) = watch(cx, &create, bootstrapped).await? {
            say_cut(cx, &how).await;
            complete_bootstrap(cx).await?;
        }
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        let mut evidence: Vec<Evidence> = phase_evidence(cx, "etcd-member").into_iter().collect();
        if let Some(stage) = cx.model.bootkube.last() {
            evidence
                .push(Evidence::new("bootkube on the bootstrap node", format!("{}: {}", stage.stage, stage.evidence)));
        }
        if evidence.is_empty() {
            let (job, _) = job(cx, Part::WaitBootstrap)?;
            match job.status().await.map_err(host_error)? {
                JobStatus::Ended { status: 0 } => {
                    evidence.push(Evidence::new("openshift-install wait-for bootstrap-complete", "status 0"));
                }
                status => return Err(StepError::fatal(format!("bootstrap is not complete: {}", ended(&status)))),
            }
        }
        Ok(evidence)
    }
}

#[async_trait]
impl Step<World> for Operators {
    fn preview(&self, _world: &World) -> Vec<Action> {
        ["clusteroperators", "clusterversions", "nodes", "certificatesigningrequests", "machines"]
            .map(|kind| Action::Http { request: format!("LIST and WATCH {kind} at api-int:6443, through the bastion") })
            .to_vec()
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        let Some(evidence) = phase_evidence(cx, "complete") else {
            return Ok(Probe::Missing("the cluster is not complete".into()));
        };
        live::settle_bootstrap(cx).await;
        Ok(Probe::True(vec![evidence]))
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let Some(create) = creating(cx).await? else {
            complete_install(cx).await?;
            return Ok(Ran::Ok);
        };
        if let Watched::Cut(how) = watch(cx, &create, |_| false).await? {
            say_cut(cx, &how).await;
            complete_install(&cx.fresh(cx.attempt).await).await?;
        }
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        live::settle_bootstrap(cx).await;
        live::stop(cx).await;
        let mut evidence: Vec<Evidence> = phase_evidence(cx, "complete").into_iter().collect();
        let operators = &cx.model.cluster_state.operators;
        let available =
            operators.values().filter(|record| record.operator.available == crate::model::event::Tri::True).count();
        evidence.push(Evidence::new("oc get co", format!("{available} of {} available", operators.len())));
        let kubeconfig = format!("{}/auth/kubeconfig", cx.need(fact::INSTALL_DIR)?);
        let look = Cmd::new("ls").arg(kubeconfig);
        let there = exec(cx, &cx.world.bastion(cx)?, look.clone()).await?;
        if !there.ok() {
            return Err(StepError::fatal("the installer left no kubeconfig"));
        }
        evidence.push(Evidence::new(look.line(), there.text()));
        Ok(evidence)
    }
}
