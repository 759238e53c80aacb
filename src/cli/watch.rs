//! `bartizan watch`: follow a run that another bartizan drives, or an installation that something else started.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::diagnose::Checklists;
use crate::headless;
use crate::host::local::LocalHost;
use crate::host::ssh::{SshPool, SshTarget};
use crate::host::{Cmd, Host, HostError};
use crate::model::event::{ClusterName, Data, FORMAT, LinkName, LogLine, RunOutcome};
use crate::model::{RunModel, fact};
use crate::record::lease::operator;
use crate::record::{Follower, Hub, Recorder, SegmentReader, Sink, Store};
use crate::spec::Secret;
use crate::stages::watched::{End, Steps, overhear, plan};
use crate::stages::{self};
use crate::telemetry;
use crate::ui;
use crate::watch::Out;
use crate::watch::attach::{Installation, Reach};
use crate::watch::cluster::Kubeconfig;
use crate::watch::install_dir::{Identity, InstallDir};

use super::bastion::{self, Login};
use super::doors::RunDoors;
use super::session::{SegmentLogs, interrupt, screen_options};
use super::{Failure, Front, bundle, exit, look};

/// How long after the installer gave up a run without a screen waits for somebody to go on with it.
const GIVEN_UP: Duration = Duration::from_secs(60);
/// For the last lines of an installation that is complete.
const LAST_LINES: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
pub struct WatchArgs {
    /// A run that another bartizan drives: its name, the end of its name, or `last`.
    #[arg(default_value = "last", conflicts_with_all = ["bastion", "dir", "kubeconfig", "bundle"])]
    run: String,
    /// Watch an installation that something else started, from this host: USER@HOST, USER@HOST:PORT, or a name of your
    /// ssh configuration. Nothing is written there.
    #[arg(long, value_name = "USER@HOST", requires = "dir")]
    bastion: Option<String>,
    /// The install directory of openshift-install, on the bastion or (without --bastion) here.
    #[arg(long, value_name = "INSTALL_DIR")]
    dir: Option<String>,
    /// A kubeconfig on this machine; default auth/kubeconfig of the install directory.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Open a log bundle of `openshift-install gather bootstrap` (log-bundle-*.tar.gz), the directory that it was unpacked
    /// to, or an install directory with one in it.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["bastion", "dir", "kubeconfig"])]
    bundle: Option<PathBuf>,
    /// The private key for the bastion and the bootstrap node; default your agent and keys.
    #[arg(long, value_name = "FILE")]
    identity_file: Option<PathBuf>,
    /// The bootstrap node's address, when the install directory does not tell it: HOST, HOST:PORT or USER@HOST:PORT.
    #[arg(long, value_name = "HOST", requires = "dir")]
    bootstrap: Option<String>,
    /// The bastion's host key, `ssh-ed25519 AAAA…`; default what your known_hosts has.
    #[arg(long, value_name = "KEY", requires = "bastion")]
    host_key: Option<String>,
    /// Say yes to the host key of the bastion that has this fingerprint (SHA256:…).
    #[arg(long, value_name = "FINGERPRINT", requires = "bastion", conflicts_with = "host_key")]
    accept_host_key: Option<String>,
    /// Keep also what kubelet and crio say below a warning.
    #[arg(long)]
    every_line: bool,
    #[command(flatten)]
    front: Front,
}

pub async fn watch(state: Option<&Path>, args: WatchArgs) -> Result<u8, Failure> {
    if let Some(path) = &args.bundle {
        return bundle::watch(state, path, args.every_line, &args.front).await;
    }
    if args.dir.is_none() && args.kubeconfig.is_none() {
        return look::watch(state, &args.run, &args.front).await;
    }
    let store = Store::open(state).map_err(Failure::other)?;
    let earlier = store.folders().map_err(Failure::other)?;
    let (run, dir) = store.new_run(Timestamp::now());
    let found = find(&args, &dir).await;
    match found {
        Ok(found) => found.show(&args, run, &dir, &earlier).await,
        Err(failure) => {
            // There is no run: nothing was seen.
            let _absent = std::fs::remove_dir_all(&dir);
            Err(failure)
        }
    }
}

/// An installation that can be watched.
struct Found {
    installation: Installation,
    identity: Identity,
    /// Where it is, for people.
    place: String,
    bastion: Option<Arc<crate::host::ssh::SshHost>>,
}

async fn find(args: &WatchArgs, run_dir: &Path) -> Result<Found, Failure> {
    let pool = Arc::new(SshPool::new(&run_dir.join("ssh")).map_err(Failure::other)?);
    let kubeconfig = args.kubeconfig.as_deref().map(kubeconfig).transpose()?;
    let mut via = None;
    let bastion = match &args.bastion {
        Some(wanted) => {
            let login = Login {
                wanted,
                identity: args.identity_file.as_deref(),
                host_key: args.host_key.as_deref(),
                accept: args.accept_host_key.as_deref(),
            };
            let host = bastion::reach(&pool, &login).await?;
            via = Some("bastion".to_owned());
            Some(host)
        }
        None => None,
    };
    let host: Arc<dyn Host> = match &bastion {
        Some(bastion) => bastion.clone(),
        None => Arc::new(LocalHost::default()),
    };
    let dir = match &args.dir {
        Some(dir) => Some(absolute(host.as_ref(), dir).await?),
        None => None,
    };
    let identity = match &dir {
        Some(path) => InstallDir { host: host.as_ref(), path }.identity().await.map_err(Failure::other)?,
        None => Identity::default(),
    };
    let on = args.bastion.as_ref().map_or_else(String::new, |bastion| format!("{bastion}:"));
    let place = match (&dir, &args.kubeconfig) {
        (Some(dir), _) => format!("{on}{dir}"),
        (None, Some(kubeconfig)) => kubeconfig.display().to_string(),
        (None, None) => String::new(),
    };
    let reach = Arc::new(Nodes {
        pool,
        via,
        identity: args.identity_file.clone(),
        keys: tempfile::tempdir().map_err(Failure::other)?,
    });
    let bootstrap = args.bootstrap.clone();
    let installation = Installation { host, dir, kubeconfig, bootstrap, every_line: args.every_line, reach };
    Ok(Found { installation, identity, place, bastion })
}

fn kubeconfig(path: &Path) -> Result<Kubeconfig, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("the kubeconfig {}: {error}", path.display())))?;
    crate::cluster::api::server(text.as_bytes())
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    Ok(Kubeconfig::Here(Secret::holding(text)))
}

/// The install directory as the host calls it.
async fn absolute(host: &dyn Host, dir: &str) -> Result<String, Failure> {
    let asked = Cmd::sh(r#"cd -- "$1" && pwd -P"#).arg(dir);
    let output = host.exec(&asked).await.map_err(Failure::other)?;
    let path = output.text();
    if output.ok() && path.starts_with('/') {
        return Ok(path);
    }
    let why = crate::model::text::one_line(&output.error_text(), 200);
    Err(Failure::usage(format!(
        "there is no install directory {dir} on {}: {why}. Give the directory in which openshift-install was started \
         (--dir of `openshift-install create cluster`), as that host calls it",
        host.name()
    )))
}

/// The cluster's nodes, through the bastion or from here.
struct Nodes {
    pool: Arc<SshPool>,
    via: Option<String>,
    identity: Option<PathBuf>,
    /// Where keys that were read are kept for `ssh`, until the end.
    keys: tempfile::TempDir,
}

#[async_trait]
impl Reach for Nodes {
    async fn node(&self, name: &str, address: &str, key: Option<&Secret>) -> Result<Arc<dyn Host>, HostError> {
        let (user, address) = address.rsplit_once('@').unwrap_or(("core", address));
        let (host, port) = bastion::with_port(address);
        let identity = match key {
            None => self.identity.clone(),
            Some(key) => Some(self.keep(key)?),
        };
        let target = SshTarget {
            identity,
            accept_new: self.via.is_some(),
            via: self.via.clone(),
            port: port.unwrap_or(22),
            ..SshTarget::new(name, host, user)
        };
        // Its key is new with every installation. Behind the verified bastion the first one is taken; so it is on it.
        let host_keys = match self.via {
            Some(_) => Vec::new(),
            None => self.pool.learn_host_key(&target).await?,
        };
        Ok(self.pool.add(SshTarget { host_keys, ..target })?)
    }
}

impl Nodes {
    fn keep(&self, key: &Secret) -> Result<PathBuf, HostError> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = self.keys.path().join("bootstrap");
        let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| file.write_all(key.reveal().as_bytes()));
        written.map(|()| path).map_err(|why| HostError::Other {
            host: "local".into(),
            what: "keeping the bootstrap node's key".into(),
            why: why.to_string(),
        })
    }
}

impl Found {
    async fn show(self, args: &WatchArgs, run: String, dir: &Path, earlier: &[PathBuf]) -> Result<u8, Failure> {
        let recorder = Recorder::open(dir).map_err(Failure::other)?;
        telemetry::start(dir).map_err(|error| Failure::other(format!("starting the log: {error}")))?;
        tracing::info!("watching {}, recorded in {}", self.place, dir.display());
        let mut hub = Hub::start(recorder);
        let sink = hub.sink();
        let (shown, shown_events) = hub.follow().await;
        self.open(&sink, run.clone(), earlier).await?;
        if let Some(bastion) = &self.bastion {
            bastion.with_sink(sink.clone(), LinkName::Ssh);
        }

        let (tap, tapped) = mpsc::channel(32);
        let (onward, matched) = mpsc::channel(32);
        let (heard, hearing) = mpsc::channel(64);
        tokio::spawn(overhear(tapped, onward, heard));
        let (model, follower) = hub.follow().await;
        let catalogue = super::diagnose::catalogue()?;
        stages::diagnosis::start(&catalogue, dir, &model, matched, follower, sink.clone());

        let cancel = CancellationToken::new();
        let out = Out::new(sink.clone(), cancel.clone()).tap(tap);
        let (_, events) = hub.follow().await;
        let headless = args.front.format();
        let steps = Steps::new(self.installation.dir.is_some());
        let ending = tokio::spawn(go_along(steps, events, hearing, sink.clone(), cancel.clone()));
        let installation = self.installation;
        let following = tokio::spawn(async move { installation.follow(&out).await });

        let front = async {
            Ok::<_, Failure>(match headless {
                Some(format) => {
                    let printing = tokio::spawn(async move {
                        headless::show(shown, shown_events, format, None, std::io::stdout()).await
                    });
                    let end = tokio::select! {
                        end = ending => end.ok().flatten(),
                        _ = interrupt() => None,
                    };
                    cancel.cancel();
                    let _ended = following.await;
                    let code = close(&sink, end).await;
                    // A reader that went away (`| head`) is no failure.
                    let _closed_pipe = printing.await;
                    code
                }
                None => {
                    let mut options = screen_options(&args.front, &Checklists::builtin().map_err(Failure::other)?);
                    options.access = ui::screen::Access::ReadOnly;
                    options.screenshots = dir.join("screenshots");
                    options.doors = Some(Box::new(RunDoors::new(dir)));
                    let (nobody, _) = mpsc::channel(1);
                    let logs = Box::new(SegmentLogs(SegmentReader::new(dir)));
                    let left = ui::run(options, shown, shown_events.into_queue(1024), nobody, logs).await;
                    cancel.cancel();
                    let _ended = following.await;
                    close(&sink, None).await;
                    left.map_err(Failure::other)?;
                    println!("run {run} is kept in {}; `bartizan replay {run}` shows it again", dir.display());
                    exit::DONE
                }
            })
        };
        let code = tokio::select! {
            code = front => code?,
            error = hub.broken() => {
                return Err(Failure::other(format!("nothing can be recorded any more: {error}; make room, then watch again")));
            }
        };
        hub.close().await.map_err(Failure::other)?;
        Ok(code)
    }

    async fn open(&self, sink: &Sink, run: String, earlier: &[PathBuf]) -> Result<(), Failure> {
        let mut plan = plan(stages::plan().map_err(Failure::other)?);
        if !self.identity.cluster.base_domain.is_empty() {
            stages::usual::learn(&mut plan, earlier, &self.identity.cluster.base_domain);
        }
        let mut cluster: ClusterName = self.identity.cluster.clone();
        if cluster.name.is_empty() {
            cluster.name = self.place.rsplit('/').find(|part| !part.is_empty()).unwrap_or("cluster").to_owned();
        }
        let (bartizan, operator) = (env!("CARGO_PKG_VERSION").to_owned(), operator());
        let spec_digest = String::new();
        sink.commit(Data::RunOpened { format: FORMAT, run, bartizan, cluster, spec_digest, plan, operator }).await;
        sink.commit(Data::Fact { key: fact::WATCHED.into(), value: self.place.clone() }).await;
        if !self.identity.infra_id.is_empty() {
            sink.emit(Data::Fact { key: fact::INFRA_ID.into(), value: self.identity.infra_id.clone() }).await;
        }
        Ok(())
    }
}

/// Tell of the steps as the installation goes through them; gives how it ended once it did.
async fn go_along(
    mut steps: Steps,
    mut events: Follower,
    mut heard: mpsc::Receiver<LogLine>,
    sink: Sink,
    cancel: CancellationToken,
) -> Option<End> {
    // When it is over, unless somebody goes on with it.
    let mut over: Option<Instant> = None;
    loop {
        over = match steps.end() {
            Some(End::Installed) => over.or(Some(Instant::now() + LAST_LINES)),
            Some(End::Failed { .. }) => over.or(Some(Instant::now() + GIVEN_UP)),
            None => None,
        };
        let ended = async {
            match over {
                Some(over) => sleep_until(over).await,
                None => std::future::pending().await,
            }
        };
        let told = tokio::select! {
            () = cancel.cancelled() => return None,
            () = ended => return steps.end().cloned(),
            event = events.next() => steps.feed(&*event?),
            line = heard.recv() => steps.hear(&line?, Timestamp::now()),
        };
        for data in told {
            sink.emit(data).await;
        }
    }
}

/// The watching is over; gives the exit code.
async fn close(sink: &Sink, end: Option<End>) -> u8 {
    let model: Arc<RunModel> = sink.model().await;
    let (outcome, code, summary) = match end {
        Some(End::Installed) => (RunOutcome::Done, exit::DONE, "the installation is complete".to_owned()),
        Some(End::Failed { words, exit }) => {
            let cause = model.open_findings().first().map(|record| format!("; {}", record.finding.title));
            (RunOutcome::Failed, exit, format!("{words}{}", cause.unwrap_or_default()))
        }
        None => (RunOutcome::Stopped, exit::DONE, "no longer watched; the installation goes on".to_owned()),
    };
    sink.commit(Data::RunClosed { outcome, exit: code, summary }).await;
    code
}
