//! The kube API, reached through a local port that somebody else forwards to it.
//!
//! The certificate is checked against the name in the kubeconfig, not against the loopback address.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, LogParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::runtime::watcher;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::model::event::{Data, LinkName, LinkState};
use crate::model::text::one_line;
use crate::record::Sink;

use super::pods::Log;
use super::{Changes, Kind};

#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("the kubeconfig cannot be used: {0}")]
    Kubeconfig(String),
    #[error("cannot make a client for the API: {0}")]
    Client(String),
    /// No answer: the way to the API, or the API itself.
    #[error("no answer from the API to {asked}: {why}")]
    Unreachable { asked: String, why: String },
    /// It answered, with a status other than success.
    #[error("the API refused {asked}: {code} {why}")]
    Refused { asked: String, code: u16, why: String },
}

impl ApiError {
    fn of(asked: impl Into<String>, error: &kube::Error) -> Self {
        let asked = asked.into();
        match error {
            kube::Error::Api(status) => Self::Refused { asked, code: status.code, why: one_line(&status.message, 300) },
            other => Self::Unreachable { asked, why: chain(other) },
        }
    }
}

/// An error with all its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = next.source();
    }
    one_line(&text, 500)
}

/// A client of one cluster.
#[derive(Clone)]
pub struct ClusterApi {
    client: kube::Client,
    server: String,
}

/// The server of a kubeconfig: host and port, to know where a tunnel must lead.
///
/// # Errors
/// When it names no server.
pub fn server(kubeconfig: &[u8]) -> Result<(String, u16), ApiError> {
    let config = read(kubeconfig)?;
    let wrong = |why: &str| ApiError::Kubeconfig(why.to_owned());
    let context = config.current_context.as_deref().unwrap_or_default();
    let wanted = config.contexts.iter().find(|entry| entry.name == context).and_then(|entry| entry.context.as_ref());
    let cluster = config.clusters.iter().find(|entry| wanted.is_none_or(|wanted| wanted.cluster == entry.name));
    let url = cluster.and_then(|entry| entry.cluster.as_ref()?.server.as_deref()).ok_or(wrong("it names no server"))?;
    let url = reqwest::Url::parse(url).map_err(|error| wrong(&format!("its server is no URL: {error}")))?;
    let host = url.host_str().ok_or(wrong("its server has no host"))?;
    Ok((host.to_owned(), url.port_or_known_default().unwrap_or(6443)))
}

fn read(kubeconfig: &[u8]) -> Result<Kubeconfig, ApiError> {
    let wrong = |why: &str| ApiError::Kubeconfig(why.to_owned());
    let text = std::str::from_utf8(kubeconfig).map_err(|_| wrong("it is no text"))?;
    let config = Kubeconfig::from_yaml(text).map_err(|error| wrong(&chain(&error)))?;
    // It comes from another machine: it must not make this one run a program or read a file.
    let reaches_out = config.auth_infos.iter().filter_map(|entry| entry.auth_info.as_ref()).any(|user| {
        user.exec.is_some()
            || user.auth_provider.is_some()
            || user.token_file.is_some()
            || user.client_certificate.is_some()
            || user.client_key.is_some()
    });
    let reaches_out =
        reaches_out
            || config.clusters.iter().filter_map(|entry| entry.cluster.as_ref()).any(|cluster| {
                cluster.certificate_authority.is_some() || cluster.insecure_skip_tls_verify == Some(true)
            });
    if reaches_out {
        return Err(wrong("it names files or programs, or turns verification off; certificates must be embedded"));
    }
    Ok(config)
}

impl ClusterApi {
    /// A client that connects to `local` and expects there the server that the kubeconfig names.
    ///
    /// # Errors
    /// When the kubeconfig cannot be used. Nothing is sent yet.
    pub async fn new(kubeconfig: &[u8], local: SocketAddr) -> Result<Self, ApiError> {
        let (name, port) = server(kubeconfig)?;
        let mut config = kube::Config::from_custom_kubeconfig(read(kubeconfig)?, &KubeConfigOptions::default())
            .await
            .map_err(|error| ApiError::Kubeconfig(chain(&error)))?;
        let scheme = config.cluster_url.scheme_str().unwrap_or("https").to_owned();
        config.cluster_url = format!("{scheme}://{local}/")
            .parse()
            .map_err(|error| ApiError::Client(format!("no address can be made of {local}: {error}")))?;
        config.tls_server_name.get_or_insert(name.clone());
        // The way is the tunnel, whatever proxy this machine or the kubeconfig uses.
        config.proxy_url = None;
        config.connect_timeout = Some(Duration::from_secs(10));
        // Already there when the program started; here for whoever uses the library alone.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let client = kube::Client::try_from(config).map_err(|error| ApiError::Client(chain(&error)))?;
        Ok(Self { client, server: format!("{name}:{port}") })
    }

    /// Host and port of the API as the kubeconfig names them.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Version of the API server, `v1.33.5`.
    ///
    /// # Errors
    /// When it does not answer within 10 seconds, or refuses.
    pub async fn version(&self) -> Result<String, ApiError> {
        let asked = "GET /version";
        match tokio::time::timeout(Duration::from_secs(10), self.client.apiserver_version()).await {
            Ok(answer) => answer.map(|info| info.git_version).map_err(|error| ApiError::of(asked, &error)),
            Err(_) => Err(ApiError::Unreachable { asked: asked.into(), why: "no answer in 10 s".into() }),
        }
    }

    /// All objects of a kind, as they are now.
    ///
    /// # Errors
    /// When the API does not answer, or refuses.
    pub async fn list(&self, kind: Kind) -> Result<Vec<Value>, ApiError> {
        let asked = format!("list {}", kind.oc_name());
        let wanted = ListParams { field_selector: kind.field_selector().map(str::to_owned), ..ListParams::default() };
        let listed = self.objects(kind).list(&wanted).await;
        let listed = listed.map_err(|error| ApiError::of(asked, &error))?;
        Ok(listed.items.iter().filter_map(|object| serde_json::to_value(object).ok()).collect())
    }

    /// All pods of a namespace.
    ///
    /// # Errors
    /// When the API does not answer, or refuses.
    pub async fn pods(&self, namespace: &str) -> Result<Vec<Value>, ApiError> {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Pod"), "pods");
        let pods: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let listed = pods.list(&ListParams::default()).await;
        let listed = listed.map_err(|error| ApiError::of(format!("list pods in {namespace}"), &error))?;
        Ok(listed.items.iter().filter_map(|object| serde_json::to_value(object).ok()).collect())
    }

    /// The last `lines` of a container's log, each behind its time.
    ///
    /// # Errors
    /// When the API does not answer, or has no such log.
    pub async fn log(&self, namespace: &str, pod: &str, log: &Log, lines: u32) -> Result<String, ApiError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let wanted = LogParams {
            container: Some(log.container.clone()),
            previous: log.previous,
            tail_lines: Some(i64::from(lines)),
            timestamps: true,
            ..LogParams::default()
        };
        let asked = format!("read the log of {namespace}/{pod}");
        match tokio::time::timeout(Duration::from_secs(20), pods.logs(pod, &wanted)).await {
            Ok(answer) => answer.map_err(|error| ApiError::of(asked, &error)),
            Err(_) => Err(ApiError::Unreachable { asked, why: "no answer in 20 s".into() }),
        }
    }

    /// Approve a signing request through its `approval` subresource, as `oc adm certificate approve` does.
    ///
    /// # Errors
    /// When it does not exist any more, or the API refuses.
    pub async fn approve(&self, name: &str, reason: &str) -> Result<(), ApiError> {
        let requests: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        let now = jiff::Timestamp::now().to_string();
        let patch = json!({ "status": { "conditions": [{
            "type": "Approved", "status": "True", "reason": "BartizanApprove", "message": reason, "lastUpdateTime": now,
        }]}});
        let patched = requests.patch_approval(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        patched.map(drop).map_err(|error| ApiError::of(format!("approve certificatesigningrequest {name}"), &error))
    }

    fn objects(&self, kind: Kind) -> Api<DynamicObject> {
        let (group, version, name, plural) = kind.resource();
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, name), plural);
        Api::all_with(self.client.clone(), &resource)
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// Watch every kind until cancelled. Changes become events; so does the health of the link, when it changes.
/// What `changes` has seen before is not said again.
pub async fn follow(api: &ClusterApi, changes: &Changes, sink: &Sink, cancel: &CancellationToken) {
    let watches = Kind::ALL.map(|kind| watch(api, kind, changes, sink));
    tokio::select! {
        () = cancel.cancelled() => {}
        _never = futures::future::join_all(watches) => {}
    }
}

/// One kind. The operators' watch speaks for the link: all share one connection.
async fn watch(api: &ClusterApi, kind: Kind, changes: &Changes, sink: &Sink) {
    let config = watcher::Config { field_selector: kind.field_selector().map(str::to_owned), ..Default::default() };
    let mut stream = watcher::watcher(api.objects(kind), config).boxed();
    let speaks = kind == Kind::Operators;
    let mut pause = FIRST_PAUSE;
    let mut attempt = 0;
    let mut up = false;
    let mut listed = BTreeSet::new();
    while let Some(event) = stream.next().await {
        let unreachable = match &event {
            Ok(_) => None,
            Err(error) => unreachable(error),
        };
        if let Some(why) = unreachable {
            attempt += 1;
            up = false;
            if speaks {
                let in_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                let state = LinkState::Retrying { in_ms, attempt, why };
                sink.emit(Data::Link { link: LinkName::Api, state }).await;
            }
        // `Init` only says that it is about to ask.
        } else if speaks && !up && !matches!(event, Ok(watcher::Event::Init)) {
            up = true;
            attempt = 0;
            sink.emit(Data::Link { link: LinkName::Api, state: LinkState::Up }).await;
        }
        let said = match event {
            Err(_) => {
                tokio::time::sleep(pause.mul_f64(0.75 + 0.5 * fastrand::f64())).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
            Ok(watcher::Event::Init) => {
                listed.clear();
                Vec::new()
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed.insert(object.metadata.name.clone().unwrap_or_default());
                news(kind, &object, changes)
            }
            Ok(watcher::Event::InitDone) => {
                pause = FIRST_PAUSE;
                changes.only(kind, &listed)
            }
            Ok(watcher::Event::Apply(object)) => {
                pause = FIRST_PAUSE;
                news(kind, &object, changes)
            }
            Ok(watcher::Event::Delete(object)) => {
                let name = object.metadata.name.unwrap_or_default();
                changes.gone(kind, &name).into_iter().collect()
            }
        };
        for observed in said {
            sink.emit(Data::Observed(observed)).await;
        }
    }
}

fn news(kind: Kind, object: &DynamicObject, changes: &Changes) -> Vec<crate::model::event::Observed> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let value = serde_json::to_value(object).unwrap_or_default();
    match kind.observe(&value) {
        Ok(observed) => changes.changed(kind, &name, observed).into_iter().collect(),
        Err(error) => {
            tracing::warn!(%error, "an object from the API is not understood");
            Vec::new()
        }
    }
}

/// Why the API cannot be reached; `None` when it answered, though not as we wished (a CRD that is not there yet, a
/// watch that is too old).
fn unreachable(error: &watcher::Error) -> Option<String> {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => match error {
            kube::Error::Api(_) => None,
            other => Some(chain(other)),
        },
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => None,
    }
}
