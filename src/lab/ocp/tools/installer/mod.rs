//! `openshift-install`: reads the install-config that it is given, makes the machines in the lab's cloud, and waits for
//! what they do. Messages, levels and exit codes as in openshift/installer `cmd/openshift-install`.

mod config;
mod create;
mod destroy;
mod gather;
mod manifests;
mod wait;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Mutex;

use super::{Words, err, out, path};
use crate::cloud::CloudError;
use crate::lab::machines::{Machine, Tool, ToolCx};
use crate::lab::ocp::OcpError;
use crate::lab::ocp::cluster::{Cluster, Scene};
use crate::lab::ocp::payload::Payload;
use crate::lab::ocp::scenario::Moment;
use crate::spec::{Spec, install_fields};

/// Exit codes of openshift-install 4.16 and later.
const CONFIG: i32 = 3;
const INFRASTRUCTURE: i32 = 4;
const BOOTSTRAP: i32 = 5;
const INSTALL: i32 = 6;
const OPERATORS: i32 = 7;
const INTERRUPTED: i32 = 8;

pub struct Installer(pub Arc<Scene>);

#[async_trait]
impl Tool for Installer {
    fn name(&self) -> &'static str {
        "openshift-install"
    }

    fn on(&self, host: &str) -> bool {
        host == "bastion"
    }

    async fn run(&self, mut cx: ToolCx) -> i32 {
        let words = Words::parse(&cx.args, &["dir", "log-level", "key", "bootstrap", "master", "file"]);
        let folder = path(&cx, words.get(&["dir"]).unwrap_or("."));
        let level = words.get(&["log-level"]).unwrap_or("info").to_owned();
        let version = self.0.payload.version.clone();
        let cancel = cx.cancel.clone();
        if words.word(0) == "version" || words.word(0).is_empty() {
            let image = Payload::pull_spec(&self.0.payload.release);
            out(&mut cx, format!("openshift-install {version}\nbuilt from commit 4f6b1d5d3c1e2a3b4c5d6e7f8091a2b3c4d5e6f7\nrelease image {image}\nrelease architecture amd64\n")).await;
            return 0;
        }
        let log = Log {
            machine: cx.machine.clone(),
            path: format!("{folder}/.openshift_install.log"),
            debug: level == "debug",
        };
        if words.word(0) == "explain" {
            let (known, text) = explain(&version, words.word(1));
            if known {
                out(&mut cx, text).await;
                return 0;
            }
            err(&mut cx, text).await;
            return 1;
        }
        let mut session = Session { scene: self.0.clone(), folder, log, env: cx.env, stderr: Mutex::new(cx.stderr) };
        session.debug(format!("OpenShift Installer {version}")).await;
        session.debug("Built from commit 4f6b1d5d3c1e2a3b4c5d6e7f8091a2b3c4d5e6f7").await;
        let verb = format!("{} {}", words.word(0), words.word(1));
        let work = session.perform(&verb);
        tokio::select! {
            code = work => code,
            () = cancel.cancelled() => INTERRUPTED,
        }
    }
}

struct Log {
    machine: Arc<Machine>,
    path: String,
    debug: bool,
}

struct Session {
    scene: Arc<Scene>,
    folder: String,
    log: Log,
    env: BTreeMap<String, String>,
    /// In a lock only because a stream cannot be shared otherwise.
    stderr: Mutex<Box<dyn AsyncWrite + Send + Unpin>>,
}

/// A fatal error: exit code and message.
struct Fatal(i32, String);

impl From<CloudError> for Fatal {
    fn from(why: CloudError) -> Self {
        let why =
            format!("failed to fetch Cluster: failed to generate asset \"Cluster\": failed to create cluster: {why}");
        Self(INFRASTRUCTURE, why)
    }
}

impl From<OcpError> for Fatal {
    fn from(why: OcpError) -> Self {
        Self(1, why.to_string())
    }
}

impl Session {
    async fn perform(&mut self, verb: &str) -> i32 {
        if verb == "create cluster" {
            self.scene.happens(&Moment::ClusterAsked).await;
        }
        let done = match verb {
            "create install-config" | "create manifests" => self.manifests().await.map(|_| ()),
            "create ignition-configs" => match self.manifests().await {
                Ok(config) => self.write_ignition(&config),
                Err(why) => Err(why),
            },
            "create cluster" => self.create().await,
            "wait-for bootstrap-complete" => self.wait_bootstrap().await,
            "wait-for install-complete" => self.wait_install().await,
            "destroy cluster" => self.destroy_cluster().await,
            "destroy bootstrap" => self.destroy_bootstrap().await,
            "gather bootstrap" => self.gather().await,
            other => Err(Fatal(1, format!("unknown command {other:?} for \"openshift-install\""))),
        };
        match done {
            Ok(()) => 0,
            Err(Fatal(code, message)) => {
                if !message.is_empty() {
                    let level = if matches!(code, BOOTSTRAP | INSTALL) { "error" } else { "fatal" };
                    self.say(level, message).await;
                }
                code
            }
        }
    }

    async fn say(&mut self, level: &str, message: impl Into<String>) {
        let message = message.into();
        let at = self.scene.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let line = format!("time=\"{at}\" level={level} msg={}\n", quoted(&message));
        // A log on a full disk has holes; so has the real one.
        let _ = self.log.machine.fs().append(&self.log.path, line.as_bytes());
        if level != "debug" || self.log.debug {
            let stderr = self.stderr.get_mut();
            for line in message.lines() {
                // The log file has it in any case.
                let _ = stderr.write_all(format!("level={level} msg={line}\n").as_bytes()).await;
            }
        }
    }

    async fn debug(&mut self, message: impl Into<String>) {
        self.say("debug", message).await;
    }

    async fn info(&mut self, message: impl Into<String>) {
        self.say("info", message).await;
    }

    fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    fn load(&self, name: &str) -> Option<String> {
        let bytes = self.log.machine.fs().read(&self.file(name)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn store(&self, name: &str, text: impl AsRef<[u8]>) -> Result<(), Fatal> {
        self.log
            .machine
            .fs()
            .write(&self.file(name), text.as_ref())
            .map_err(|why| Fatal(1, format!("failed to write {name}: {why}")))
    }

    fn cluster(&self) -> Result<Arc<Cluster>, Fatal> {
        let id = self.infra_id()?;
        self.scene.cluster(&id).ok_or_else(|| Fatal(1, format!("no cluster {id} answers")))
    }

    fn infra_id(&self) -> Result<String, Fatal> {
        let metadata: Option<Value> = self.load("metadata.json").and_then(|text| serde_json::from_str(&text).ok());
        metadata.and_then(|metadata| metadata["infraID"].as_str().map(str::to_owned)).ok_or_else(|| {
            Fatal(
                1,
                format!(
                    "Failed while preparing to destroy cluster: open {}: no such file or directory",
                    self.file("metadata.json")
                ),
            )
        })
    }
}

/// The fields of a part of install-config in a version; whether there is such a part.
fn explain(version: &str, path: &str) -> (bool, String) {
    let part = path.strip_prefix("installconfig").unwrap_or_default().trim_start_matches('.');
    let fields = install_fields::fields(part, Spec::minor_of(version).unwrap_or_default());
    if fields.is_empty() {
        return (false, format!("level=fatal msg=failed to load schema for the path {path:?}: not found\n"));
    }
    let mut text = "KIND:     InstallConfig\nVERSION:  v1\n\nRESOURCE: <object>\n\nFIELDS:\n".to_owned();
    text.extend(fields.iter().map(|field| format!("    {field} <string>\n      One of the fields of {path}.\n\n")));
    (true, text)
}

/// As logrus quotes a value.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t"))
}

fn elapsed(seconds: f64) -> String {
    let seconds = seconds as u64;
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_quoted_as_logrus_does() {
        assert_eq!(quoted("plain"), "plain");
        assert_eq!(quoted("a \"b\"\nc"), "\"a \\\"b\\\"\\nc\"");
    }
}
