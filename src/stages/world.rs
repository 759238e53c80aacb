//! What the steps work on: the spec, the secrets, the cloud, and the way to each host.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cloud::{Cloud, CloudError};
use crate::engine::{StepCx, StepError};
use crate::host::ssh::{SshPool, SshTarget};
use crate::host::{Cmd, Host, HostError, Output, Stdin};
use crate::model::event::{Action, LinkName};
use crate::registry::Net;
use crate::spec::secrets::Secrets;
use crate::spec::{HostKey, Secret, Spec};
use crate::watch::Tap;

use super::live::Live;

pub type Cx = StepCx<World>;

/// Everything that the ten stages can reach.
pub struct World {
    pub spec: Spec,
    pub secrets: Secrets,
    /// Of the account that the mirror has.
    pub mirror_password: Secret,
    /// PEM of the key that signs for the mirror's own CA.
    pub mirror_ca_key: Secret,
    /// Of the account that the bastion's proxy has, when it runs one.
    pub proxy_password: Option<Secret>,
    /// The host key that is delivered to a new bastion, when the spec wants that: a private key file.
    pub host_key: Option<Secret>,
    pub run_dir: PathBuf,
    /// `None` when this build or this spec makes nothing in a cloud.
    pub cloud: Option<Arc<dyn Cloud>>,
    pub ssh: SshPool,
    /// How this machine reaches a registry through a tunnel; tests put their CAs in.
    pub net: Net,
    /// Where watched lines go to be matched against signatures.
    pub tap: Tap,
    /// The followers of a running installation.
    pub live: tokio::sync::Mutex<Option<Live>>,
}

/// Facts of the run, by name. Each is set by one step.
pub mod fact {
    pub use crate::model::fact::{BOOTSTRAP_ADDRESS, HOST_KEY_ACCEPTED, HOST_KEY_SHOWN, INFRA_ID};

    pub const ACCOUNT: &str = "cloud.account";
    /// JSON list of what was looked at before anything was made.
    pub const PREFLIGHT: &str = "cloud.preflight";
    pub const VPC: &str = "network.vpc";
    pub const MACHINE_NETWORK: &str = "network.machine-network";
    /// `subnet-1=us-east-2a,subnet-2=us-east-2b`
    pub const PRIVATE_SUBNETS: &str = "network.private-subnets";
    pub const PUBLIC_SUBNETS: &str = "network.public-subnets";
    pub const BASTION_ADDRESS: &str = "bastion.address";
    pub const BASTION_PRIVATE_IP: &str = "bastion.private-ip";
    pub const BASTION_INSTANCE: &str = "bastion.instance";
    /// Host keys, one a line.
    pub const BASTION_HOST_KEYS: &str = "bastion.host-keys";
    /// The instance (or `user@host`) that has them.
    pub const BASTION_HOST_KEYS_OF: &str = "bastion.host-keys-of";
    /// The image of the bastion, JSON: the newest one of tomorrow is another.
    pub const BASTION_IMAGE: &str = "bastion.image";
    /// Who may reach its port 22, when the spec leaves it open.
    pub const BASTION_OPERATOR: &str = "bastion.operator-cidr";
    /// Absolute path of the work directory on the bastion.
    pub const WORKDIR: &str = "bastion.workdir";
    pub const HOME: &str = "bastion.home";
    /// PEM of the CA that signed the mirror's certificate.
    pub const MIRROR_CA: &str = "mirror.ca";
    /// Digest of the release.
    pub const RELEASE_DIGEST: &str = "release.digest";
    /// The release in the mirror, by digest.
    pub const MIRROR_PULL_SPEC: &str = "release.mirror-pull-spec";
    /// JSON list of `{source, mirrors}`.
    pub const IMAGE_SOURCES: &str = "release.image-sources";
    /// Names of images that the operator does without, one in a line.
    pub const LEFT_OUT: &str = "mirror.left-out";
    pub const INSTALL_DIR: &str = "install.dir";
    /// Counts install directories: each is used for one cluster.
    pub const INSTALL_NUMBER: &str = "install.number";
    pub const INSTALL_CONFIG_DIGEST: &str = "install.config-digest";
    /// JSON: what the machines of which install directory will be told.
    pub const IGNITION: &str = "install.ignition";
    /// Name of the `create cluster` job whose failure was reported.
    pub const INSTALL_FAILED: &str = "install.failed";
    /// `user=AKIA…`, one a line: which key of which user is in the cluster.
    pub const IDENTITY_KEYS: &str = "identity.keys";
    /// Name of the router's load balancer.
    pub const ROUTER: &str = "router.hostname";
    /// Where the log bundle of the bootstrap that failed last is kept, on this machine.
    pub const LOG_BUNDLE: &str = "install.log-bundle";
    /// Install directory whose bootstrap node is no longer followed.
    pub const BOOTSTRAP_LEFT: &str = "bootstrap.left";
}

impl World {
    /// Where the bastion is and who it has to be.
    ///
    /// # Errors
    /// When the run does not know its address yet.
    pub fn bastion_target(&self, cx: &Cx) -> Result<SshTarget, StepError> {
        let (user, address) = match &self.spec.bastion.host {
            Some(host) => host.split_once('@').map_or_else(
                || (self.spec.bastion_user().to_owned(), host.clone()),
                |(user, address)| (user.to_owned(), address.to_owned()),
            ),
            None => (self.spec.bastion_user().to_owned(), cx.need(fact::BASTION_ADDRESS)?),
        };
        let host_keys = match (cx.fact(fact::BASTION_HOST_KEYS), &self.spec.bastion.host_key) {
            (Some(keys), _) => keys.lines().map(str::to_owned).collect(),
            (None, HostKey::Known(key)) => vec![key.clone()],
            (None, _) => Vec::new(),
        };
        Ok(SshTarget {
            port: self.spec.bastion.port,
            identity: self.spec.bastion.identity_file.clone(),
            host_keys,
            ..SshTarget::new("bastion", address, user)
        })
    }

    /// The bastion over SSH, once its address and host key are known.
    ///
    /// # Errors
    /// When the run does not know them yet.
    pub fn bastion(&self, cx: &Cx) -> Result<Arc<dyn Host>, StepError> {
        let host = self.ssh.add(self.bastion_target(cx)?).map_err(host_error)?;
        Ok(host.with_sink(cx.sink.clone(), LinkName::Ssh))
    }

    /// The bootstrap node through the bastion. Its host key is new with every installation: what the console shows is
    /// pinned, else the first key seen behind the verified bastion.
    ///
    /// # Errors
    /// When its address is not known yet.
    pub async fn bootstrap(&self, cx: &Cx) -> Result<Arc<dyn Host>, StepError> {
        self.node(cx, "bootstrap", cx.need(fact::BOOTSTRAP_ADDRESS)?)
    }

    /// A node of the new cluster through the bastion, with the key that its Ignition config has let in.
    ///
    /// # Errors
    /// When the bastion is not known yet.
    pub fn node(&self, cx: &Cx, name: &str, address: String) -> Result<Arc<dyn Host>, StepError> {
        self.bastion(cx)?;
        let target = SshTarget {
            identity: self.spec.credentials.ssh_private_key.clone(),
            accept_new: true,
            via: Some("bastion".into()),
            ..SshTarget::new(name, address, "core")
        };
        Ok(self.ssh.add(target).map_err(host_error)?)
    }

    pub fn cloud(&self) -> Result<Arc<dyn Cloud>, StepError> {
        self.cloud.clone().ok_or_else(|| {
            StepError::fatal("there is no cloud to make things in")
                .hint("give [bastion] host = \"user@host\" and [network.existing], or run where AWS is built in")
        })
    }

    /// Does the run make machines and networks itself?
    pub fn makes_bastion(&self) -> bool {
        self.spec.bastion.host.is_none()
    }
}

/// What a host error means for a step.
pub fn host_error(error: HostError) -> StepError {
    match &error {
        HostError::Refused { .. } => StepError::fatal(error.to_string()),
        _ => StepError::transient(error.to_string()),
    }
}

/// What a cloud error means for a step: what AWS said, and what to do.
pub fn cloud_error(error: CloudError) -> StepError {
    let text = error.to_string();
    let mut wrong = if error.is_transient() { StepError::transient(text) } else { StepError::fatal(text) };
    wrong.causes.extend(error.quota().map(|quota| format!("quota {quota}")));
    wrong.hint(error.advice())
}

/// A command that takes longer is recorded when it runs, and not only when it has ended.
const A_MOMENT: Duration = Duration::from_millis(500);

/// Runs a command and records it.
///
/// # Errors
/// Only when it could not be run; its status is for the caller.
pub async fn exec(cx: &Cx, host: &Arc<dyn Host>, cmd: Cmd) -> Result<Output, StepError> {
    let started = Instant::now();
    let what = action(host.name(), &cmd);
    let mut work = std::pin::pin!(async {
        tokio::select! {
            result = host.exec(&cmd) => result.map_err(host_error),
            () = cx.cancel.cancelled() => Err(StepError::fatal("cancelled")),
        }
    });
    let result = match tokio::time::timeout(A_MOMENT, &mut work).await {
        Ok(result) => result,
        Err(_) => {
            cx.acting(what.clone()).await;
            work.await
        }
    };
    let exit = result.as_ref().ok().map(|output| output.status);
    cx.acted(what, exit, started.elapsed()).await;
    result
}

/// Runs a command that has to succeed.
///
/// # Errors
/// With what it wrote to standard error.
pub async fn must(cx: &Cx, host: &Arc<dyn Host>, cmd: Cmd) -> Result<Output, StepError> {
    let line = cmd.line();
    let output = exec(cx, host, cmd).await?;
    if output.ok() {
        return Ok(output);
    }
    let error = output.error_text();
    let words = error.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned();
    let short: String = line.chars().take(160).collect();
    Err(StepError::transient(format!("`{short}` on {} ended with status {}: {words}", host.name(), output.status)))
}

/// Writes a file on a host and records that.
///
/// # Errors
/// When it could not be written.
pub async fn put(cx: &Cx, host: &Arc<dyn Host>, path: &str, content: Stdin, mode: u32) -> Result<(), StepError> {
    let started = Instant::now();
    let result = host.put(path, content, mode).await.map_err(host_error);
    cx.acted(file(host.name(), path, mode), result.as_ref().ok().map(|()| 0), started.elapsed()).await;
    result
}

/// Reads a file of a host; `None` when it is not there.
///
/// # Errors
/// When the host could not be asked.
pub async fn get(host: &Arc<dyn Host>, path: &str) -> Result<Option<Vec<u8>>, StepError> {
    host.get(path).await.map_err(host_error)
}

pub fn bytes(text: impl Into<Vec<u8>>) -> Stdin {
    Stdin::Bytes(text.into().into())
}

/// A command in the plan and in the record.
pub fn action(host: &str, cmd: &Cmd) -> Action {
    Action::Exec { host: host.to_owned(), command: cmd.line() }
}

pub fn file(host: &str, path: &str, mode: u32) -> Action {
    Action::File { host: host.to_owned(), path: path.to_owned(), mode: format!("{mode:04o}") }
}

/// Hex SHA-256.
pub fn sha256(bytes: &[u8]) -> String {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits until `look` gives something, asking every `every`, at most `limit`.
///
/// # Errors
/// When the time is over or the step is cancelled; `what` says what was waited for.
pub async fn wait_for<T, F>(
    cx: &Cx,
    what: &str,
    every: Duration,
    limit: Duration,
    mut look: impl FnMut() -> F,
) -> Result<T, StepError>
where
    F: Future<Output = Result<Option<T>, StepError>>,
{
    let started = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if started.elapsed() > limit {
            return Err(StepError::transient(format!("waited {} s for {what}", limit.as_secs())));
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = cx.cancel.cancelled() => return Err(StepError::fatal("cancelled")),
        }
    }
}
