//! The kube API on loopback: discovery, get, list, watch and the approval of certificate requests, for clients that
//! show the certificate of the kubeconfig (or its token).

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, header};
use axum_server::tls_rustls::RustlsConfig;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::OcpError;
use super::ca::Leaf;
use super::kube_store::{Change, RESOURCES, Resource, Store, log};
use super::tls::{self, Peer};

struct Api {
    store: Arc<Store>,
    version: String,
    cancel: CancellationToken,
}

/// Serve until `cancel`. `kubernetes` is what `/version` says.
pub fn start(
    store: Arc<Store>,
    leaf: &Leaf,
    ca: &str,
    kubernetes: &str,
    cancel: CancellationToken,
) -> Result<SocketAddr, OcpError> {
    let config = tls::config(leaf.certificate.as_bytes(), leaf.key.as_bytes(), Some(ca))?;
    let api = Arc::new(Api { store, version: kubernetes.into(), cancel: cancel.clone() });
    let router = Router::new().fallback(serve).with_state(api);
    let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
    tls::serve(listener, RustlsConfig::from_config(config), router, cancel)
}

async fn serve(
    State(api): State<Arc<Api>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request<Body>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    if !api.store.is_up() || api.cancel.is_cancelled() {
        return json_answer(
            StatusCode::SERVICE_UNAVAILABLE,
            &status(503, "ServiceUnavailable", "apiserver is shutting down"),
        );
    }
    match path.as_str() {
        "/version" => return json_answer(StatusCode::OK, &api.version()),
        "/readyz" | "/healthz" | "/livez" => return text("ok"),
        _ => {}
    }
    if !peer.certified && !bearer(&parts.headers) {
        return json_answer(StatusCode::UNAUTHORIZED, &status(401, "Unauthorized", "Unauthorized"));
    }
    if let Some(discovery) = discovery(&path) {
        return json_answer(StatusCode::OK, &discovery);
    }
    let Some(place) = Place::parse(&path) else {
        return json_answer(
            StatusCode::NOT_FOUND,
            &status(404, "NotFound", "the server could not find the requested resource"),
        );
    };
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    match (&parts.method, &place.name) {
        (&Method::GET, None) if query.watch => api.watch(&place, &query),
        (&Method::GET, None) => api.list(&place, &query),
        (&Method::GET, Some(name)) if place.subresource.as_deref() == Some("log") => {
            let pod = api.store.get(place.resource.plural, place.namespace(), name);
            match pod.as_ref().map(|pod| log(pod, &query.container, query.previous)) {
                Some(Some(said)) => Response::new(Body::from(said)),
                Some(None) => {
                    let why = format!("previous terminated container {:?} in pod {name:?} not found", query.container);
                    json_answer(StatusCode::BAD_REQUEST, &status(400, "BadRequest", &why))
                }
                None => missing(place.resource, name),
            }
        }
        (&Method::GET, Some(name)) => match api.store.get(place.resource.plural, place.namespace(), name) {
            Some(object) => json_answer(StatusCode::OK, &object),
            None => missing(place.resource, name),
        },
        (&Method::PUT | &Method::PATCH, Some(name)) => match axum::body::to_bytes(body, 1 << 20).await {
            Ok(bytes) => api.change(&place, name, &bytes),
            Err(_) => json_answer(StatusCode::BAD_REQUEST, &status(400, "BadRequest", "the body could not be read")),
        },
        _ => json_answer(
            StatusCode::METHOD_NOT_ALLOWED,
            &status(405, "MethodNotAllowed", "the server does not allow this method on the requested resource"),
        ),
    }
}

fn bearer(headers: &HeaderMap) -> bool {
    // The kubeadmin token of the lab; the lab has no other accounts.
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|text| text == "Bearer sha256~lab")
}

impl Api {
    fn version(&self) -> Value {
        let mut parts = self.version.trim_start_matches('v').split('.');
        json!({
            "major": parts.next().unwrap_or("1"),
            "minor": parts.next().unwrap_or("31"),
            "gitVersion": self.version,
            "gitCommit": "lab",
            "gitTreeState": "clean",
            "buildDate": "2025-03-01T10:00:00Z",
            "goVersion": "go1.22.12 (Red Hat 1.22.12-1.el9_5) X:strictfipsruntime",
            "compiler": "gc",
            "platform": "linux/amd64",
        })
    }

    fn list(&self, place: &Place, query: &Query) -> Response<Body> {
        let (version, objects) = self.store.list(place.resource.plural, place.namespace.as_deref());
        let items: Vec<_> = objects.into_iter().filter(|object| query.takes(object)).collect();
        json_answer(
            StatusCode::OK,
            &json!({
                "kind": format!("{}List", place.resource.kind),
                "apiVersion": place.resource.api_version(),
                "metadata": { "resourceVersion": version.to_string() },
                "items": items,
            }),
        )
    }

    fn watch(self: &Arc<Self>, place: &Place, query: &Query) -> Response<Body> {
        let since = match query.since {
            0 => self.store.version(),
            since => since,
        };
        let initial = if query.since == 0 {
            let (_, objects) = self.store.list(place.resource.plural, place.namespace.as_deref());
            objects.into_iter().filter(|object| query.takes(object)).map(|object| event("ADDED", &object)).collect()
        } else {
            Vec::new()
        };
        let (missed, changes) = match self.store.watch(since) {
            Ok(found) => found,
            Err(_) => {
                let gone = status(410, "Expired", &format!("too old resource version: {since}"));
                return stream_answer(futures::stream::iter([Ok(event("ERROR", &gone))]));
            }
        };
        let first: Vec<_> = initial
            .into_iter()
            .chain(missed.into_iter().filter(|change| relevant(change, place, query)).map(|change| line(&change)))
            .map(Ok::<_, std::io::Error>)
            .collect();
        let start = Watching {
            api: self.clone(),
            changes,
            place: place.clone(),
            query: query.clone(),
            end: tokio::time::Instant::now() + std::time::Duration::from_secs(query.timeout),
            bookmark: tokio::time::interval(std::time::Duration::from_secs(15)),
        };
        let rest = futures::stream::unfold(start, |mut watching| async move {
            let line = watching.next().await?;
            Some((Ok(line), watching))
        });
        use futures::StreamExt;
        stream_answer(futures::stream::iter(first).chain(rest))
    }

    fn change(&self, place: &Place, name: &str, bytes: &[u8]) -> Response<Body> {
        let Some(old) = self.store.get(place.resource.plural, place.namespace(), name) else {
            return missing(place.resource, name);
        };
        let Ok(patch) = serde_json::from_slice::<Value>(bytes) else {
            return json_answer(StatusCode::BAD_REQUEST, &status(400, "BadRequest", "the body is no JSON"));
        };
        let mut object = (*old).clone();
        match place.subresource.as_deref() {
            // Only what these subresources are for is taken.
            Some("approval") => object["status"]["conditions"] = patch["status"]["conditions"].clone(),
            Some("status") => merge(&mut object["status"], &patch["status"]),
            _ => merge(&mut object, &patch),
        }
        json_answer(StatusCode::OK, &self.store.put(place.resource, object))
    }
}

struct Watching {
    api: Arc<Api>,
    changes: tokio::sync::broadcast::Receiver<Change>,
    place: Place,
    query: Query,
    end: tokio::time::Instant,
    bookmark: tokio::time::Interval,
}

impl Watching {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            tokio::select! {
                () = self.api.cancel.cancelled() => return None,
                () = tokio::time::sleep_until(self.end) => return None,
                change = self.changes.recv() => match change {
                    Ok(change) if relevant(&change, &self.place, &self.query) => return Some(line(&change)),
                    Ok(_) => {}
                    // A watcher that is too slow has to list again.
                    Err(_) => return None,
                },
                _ = self.bookmark.tick(), if self.query.bookmarks => {
                    let resource = self.place.resource;
                    return Some(event("BOOKMARK", &json!({
                        "kind": resource.kind,
                        "apiVersion": resource.api_version(),
                        "metadata": { "resourceVersion": self.api.store.version().to_string(), "creationTimestamp": null },
                        "spec": {},
                    })));
                }
            }
        }
    }
}

fn relevant(change: &Change, place: &Place, query: &Query) -> bool {
    change.plural == place.resource.plural
        && place.namespace.as_ref().is_none_or(|namespace| change.object["metadata"]["namespace"] == **namespace)
        && query.takes(&change.object)
}

fn line(change: &Change) -> Bytes {
    event(change.kind, &change.object)
}

fn event(kind: &str, object: &Value) -> Bytes {
    (json!({ "type": kind, "object": object }).to_string() + "\n").into()
}

/// A JSON merge patch (RFC 7386).
fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    target.remove(key);
                } else {
                    merge(target.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (target, patch) => *target = patch.clone(),
    }
}

#[derive(Debug, Clone)]
struct Place {
    resource: &'static Resource,
    namespace: Option<String>,
    name: Option<String>,
    subresource: Option<String>,
}

impl Place {
    fn parse(path: &str) -> Option<Self> {
        let words: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match words.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
            rest => (None, rest),
        };
        let plural = rest.first()?;
        Some(Self {
            resource: Resource::at(group, version, plural)?,
            namespace,
            name: rest.get(1).map(|name| (*name).to_owned()),
            subresource: rest.get(2).map(|part| (*part).to_owned()),
        })
    }

    fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }
}

#[derive(Debug, Clone)]
struct Query {
    watch: bool,
    bookmarks: bool,
    since: u64,
    timeout: u64,
    name: Option<String>,
    /// Of a log.
    container: String,
    previous: bool,
}

impl Query {
    fn parse(text: &str) -> Self {
        let value = |key: &str| {
            text.split('&')
                .filter_map(|pair| pair.split_once('='))
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value)
        };
        let yes = |key: &str| matches!(value(key), Some("true" | "1"));
        let selector = value("fieldSelector").map(|text| text.replace("%3D", "=").replace("%3d", "="));
        Self {
            watch: yes("watch"),
            bookmarks: yes("allowWatchBookmarks"),
            since: value("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0),
            timeout: value("timeoutSeconds").and_then(|text| text.parse().ok()).unwrap_or(290),
            container: value("container").unwrap_or_default().to_owned(),
            previous: yes("previous"),
            name: selector.and_then(|text| text.strip_prefix("metadata.name=").map(str::to_owned)),
        }
    }

    fn takes(&self, object: &Value) -> bool {
        self.name.as_ref().is_none_or(|name| object["metadata"]["name"] == **name)
    }
}

fn discovery(path: &str) -> Option<Value> {
    let groups = || {
        let mut groups: Vec<&Resource> = Vec::new();
        for resource in RESOURCES.iter().filter(|resource| !resource.group.is_empty()) {
            if !groups.iter().any(|known| known.group == resource.group) {
                groups.push(resource);
            }
        }
        groups
    };
    let words: Vec<&str> = path.trim_matches('/').split('/').collect();
    match words.as_slice() {
        ["api"] => Some(json!({ "kind": "APIVersions", "versions": ["v1"] })),
        ["apis"] => {
            let list: Vec<Value> = groups()
                .iter()
                .map(|resource| {
                    let version = json!({ "groupVersion": resource.api_version(), "version": resource.version });
                    json!({ "name": resource.group, "versions": [version], "preferredVersion": version })
                })
                .collect();
            Some(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": list }))
        }
        ["api", version] => resources("", version),
        ["apis", group, version] => resources(group, version),
        _ => None,
    }
}

fn resources(group: &str, version: &str) -> Option<Value> {
    let found: Vec<_> = RESOURCES.iter().filter(|known| known.group == group && known.version == version).collect();
    let first = found.first()?;
    let list: Vec<Value> = found
        .iter()
        .map(|resource| {
            json!({
                "name": resource.plural,
                "singularName": resource.kind.to_lowercase(),
                "namespaced": resource.namespaced,
                "kind": resource.kind,
                "verbs": ["get", "list", "watch", "patch", "update"],
                "shortNames": resource.short,
            })
        })
        .collect();
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": first.api_version(),
        "resources": list,
    }))
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    })
}

fn missing(resource: &Resource, name: &str) -> Response<Body> {
    let full = if resource.group.is_empty() {
        resource.plural.to_owned()
    } else {
        format!("{}.{}", resource.plural, resource.group)
    };
    json_answer(StatusCode::NOT_FOUND, &status(404, "NotFound", &format!("{full} \"{name}\" not found")))
}

fn text(body: &'static str) -> Response<Body> {
    Response::new(Body::from(body))
}

fn json_answer(code: StatusCode, value: &Value) -> Response<Body> {
    let mut answer = Response::new(Body::from(value.to_string()));
    *answer.status_mut() = code;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    answer
}

fn stream_answer(lines: impl futures::Stream<Item = std::io::Result<Bytes>> + Send + 'static) -> Response<Body> {
    let mut answer = Response::new(Body::from_stream(lines));
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    answer
}
