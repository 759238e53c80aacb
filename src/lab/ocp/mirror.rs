//! A registry that `podman run … registry:2` starts: Basic authentication by htpasswd, uploads, and data in the
//! machine's own file system in the layout of distribution/distribution (`registry/storage/paths.go`), so that a full
//! disk is a full disk.

#![allow(clippy::result_large_err, reason = "the error is the answer itself, and goes out as it is")]

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use axum::response::IntoResponse;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::payload;
use super::registries::{self, Answer, Place, is_digest, is_tag};
use crate::lab::machines::Machine;

/// Uploads are written in pieces of this size.
const PIECE: usize = 256 * 1024;

/// Of interest to the scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// Somebody wants to upload.
    Begun,
    /// A blob of this many bytes is complete.
    Blob(u64),
}

pub struct Mirror {
    machine: Arc<Machine>,
    /// Where the data is on the machine.
    root: String,
    /// Where the container believes it is; errors say so.
    inside: String,
    /// The htpasswd file, when there is authentication. It is read when it is needed: distribution sees its changes too.
    htpasswd: Option<String>,
    realm: String,
    /// Password and hash that bcrypt has accepted, by user.
    accepted: Mutex<BTreeMap<String, (String, String)>>,
    uploads: Mutex<BTreeMap<String, Hashing>>,
    stored: mpsc::UnboundedSender<Stored>,
    gone: CancellationToken,
}

/// An upload that goes on.
struct Hashing {
    context: ring::digest::Context,
    size: u64,
}

impl Mirror {
    pub fn new(
        machine: Arc<Machine>,
        root: String,
        inside: String,
        htpasswd: Option<String>,
        stored: mpsc::UnboundedSender<Stored>,
        gone: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            machine,
            root,
            inside,
            htpasswd,
            realm: "Registry Realm".into(),
            accepted: Mutex::default(),
            uploads: Mutex::default(),
            stored,
            gone,
        })
    }

    pub fn router(self: &Arc<Self>) -> Router {
        Router::new().fallback(serve).with_state(self.clone())
    }

    fn path(&self, rest: &str) -> String {
        format!("{}/docker/registry/v2/{rest}", self.root)
    }

    fn blob_path(digest: &str) -> String {
        let hex = digest.trim_start_matches("sha256:");
        format!("blobs/sha256/{}/{hex}/data", hex.get(..2).unwrap_or_default())
    }

    fn link(repository: &str, kind: &str, digest: &str) -> String {
        format!("repositories/{repository}/{kind}/sha256/{}/link", digest.trim_start_matches("sha256:"))
    }

    fn has(&self, path: &str) -> bool {
        self.machine.fs().exists(&self.path(path))
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.machine.fs().read(&self.path(path)).ok()
    }

    fn write(&self, path: &str, bytes: &[u8]) -> Result<(), Answer> {
        let full = self.path(path);
        if let Some((parent, _)) = full.rsplit_once('/') {
            self.machine.fs().mkdir_p(parent).map_err(|why| self.broken(path, &why))?;
        }
        self.machine.fs().write(&full, bytes).map_err(|why| self.broken(path, &why))
    }

    /// As `errcode.ErrorCodeUnknown` with a `fs.PathError` in it.
    fn broken(&self, path: &str, why: &std::io::Error) -> Answer {
        let reason = match why.raw_os_error() == Some(28) || why.kind() == ErrorKind::StorageFull {
            true => "no space left on device".to_owned(),
            false => why.to_string(),
        };
        let detail = format!("write {}/docker/registry/v2/{path}: {reason}", self.inside);
        registries::failure(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "unknown error", json!(detail))
    }

    async fn allowed(self: &Arc<Self>, headers: &HeaderMap) -> bool {
        let Some(htpasswd) = &self.htpasswd else { return true };
        let Some((user, password)) = registries::basic(headers) else { return false };
        let text = self.machine.fs().read(htpasswd).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let hash = text.lines().find_map(|line| line.trim().strip_prefix(&format!("{user}:")).map(str::to_owned));
        let Some(hash) = hash else { return false };
        let known = self.accepted.lock().unwrap_or_else(PoisonError::into_inner).get(&user).cloned();
        let pair = (password, hash);
        if known.as_ref() == Some(&pair) {
            return true;
        }
        let (tried, against) = pair.clone();
        let good = tokio::task::spawn_blocking(move || bcrypt::verify(tried, &against).unwrap_or(false)).await;
        let good = good.unwrap_or(false);
        if good {
            self.accepted.lock().unwrap_or_else(PoisonError::into_inner).insert(user, pair);
        }
        good
    }

    fn manifest_digest(&self, repository: &str, reference: &str) -> Option<String> {
        if is_digest(reference) {
            return self.has(&Self::link(repository, "_manifests/revisions", reference)).then(|| reference.to_owned());
        }
        if !is_tag(reference) {
            return None;
        }
        let link = self.read(&format!("repositories/{repository}/_manifests/tags/{reference}/current/link"))?;
        String::from_utf8(link).ok().filter(|digest| is_digest(digest))
    }

    fn get_manifest(&self, head: bool, repository: &str, reference: &str) -> Answer {
        let Some(digest) = self.manifest_digest(repository, reference) else {
            return registries::manifest_unknown(reference);
        };
        let Some(bytes) = self.read(&Self::blob_path(&digest)) else { return registries::manifest_unknown(reference) };
        let kind = serde_json::from_slice::<Value>(&bytes)
            .ok()
            .and_then(|manifest| manifest["mediaType"].as_str().map(str::to_owned))
            .unwrap_or_else(|| "application/vnd.oci.image.manifest.v1+json".into());
        let length = bytes.len().to_string();
        let headers = [
            ("content-type", kind.as_str()),
            ("docker-content-digest", digest.as_str()),
            ("content-length", length.as_str()),
            ("etag", digest.as_str()),
        ];
        registries::answer(StatusCode::OK, &headers, if head { Vec::new() } else { bytes })
    }

    fn put_manifest(&self, repository: &str, reference: &str, bytes: &[u8]) -> Result<Answer, Answer> {
        let digest = payload::digest(bytes);
        let Ok(manifest) = serde_json::from_slice::<Value>(bytes) else {
            return Err(registries::failure(
                StatusCode::BAD_REQUEST,
                "MANIFEST_INVALID",
                "manifest invalid",
                json!({}),
            ));
        };
        if is_digest(reference) && reference != digest {
            return Err(registries::failure(
                StatusCode::BAD_REQUEST,
                "DIGEST_INVALID",
                "provided digest did not match uploaded content",
                json!({}),
            ));
        }
        if !is_digest(reference) && !is_tag(reference) {
            return Err(registries::failure(
                StatusCode::NOT_FOUND,
                "TAG_INVALID",
                "manifest tag did not match URI",
                json!({}),
            ));
        }
        let blobs = manifest["layers"].as_array().into_iter().flatten().chain([&manifest["config"]]);
        for blob in blobs.filter_map(|blob| blob["digest"].as_str()) {
            if !self.has(&Self::link(repository, "_layers", blob)) {
                return Err(registries::failure(
                    StatusCode::BAD_REQUEST,
                    "MANIFEST_BLOB_UNKNOWN",
                    "blob unknown to registry",
                    json!({ "digest": blob }),
                ));
            }
        }
        for child in manifest["manifests"].as_array().into_iter().flatten().filter_map(|child| child["digest"].as_str())
        {
            if self.manifest_digest(repository, child).is_none() {
                return Err(registries::failure(
                    StatusCode::BAD_REQUEST,
                    "MANIFEST_BLOB_UNKNOWN",
                    "blob unknown to registry",
                    json!({ "digest": child }),
                ));
            }
        }
        self.write(&Self::blob_path(&digest), bytes)?;
        self.write(&Self::link(repository, "_manifests/revisions", &digest), digest.as_bytes())?;
        if !is_digest(reference) {
            let tag = format!("repositories/{repository}/_manifests/tags/{reference}");
            self.write(&format!("{tag}/current/link"), digest.as_bytes())?;
            let hex = digest.trim_start_matches("sha256:");
            self.write(&format!("{tag}/index/sha256/{hex}/link"), digest.as_bytes())?;
        }
        let location = format!("/v2/{repository}/manifests/{digest}");
        let headers = [("location", location.as_str()), ("docker-content-digest", digest.as_str())];
        Ok(registries::answer(StatusCode::CREATED, &headers, Body::empty()))
    }

    /// Take one image away, as `DELETE /v2/<repository>/manifests/<digest>` and a garbage collection would.
    /// Gives the number of repositories that had it.
    pub fn delete_everywhere(&self, digest: &str) -> usize {
        let mut gone = 0;
        for repository in self.repositories() {
            if self.delete_manifest(&repository, digest) {
                gone += 1;
            }
        }
        gone
    }

    fn delete_manifest(&self, repository: &str, digest: &str) -> bool {
        let link = self.path(&Self::link(repository, "_manifests/revisions", digest));
        if self.machine.fs().remove(&link).is_err() {
            return false;
        }
        for tag in self.tags(repository) {
            if self.manifest_digest(repository, &tag).as_deref() == Some(digest) {
                // A tag that is left over names nothing and answers 404.
                let _ = self
                    .machine
                    .fs()
                    .remove(&self.path(&format!("repositories/{repository}/_manifests/tags/{tag}/current/link")));
            }
        }
        true
    }

    fn tags(&self, repository: &str) -> Vec<String> {
        let folder = format!("repositories/{repository}/_manifests/tags");
        let mut tags = self.machine.fs().list(&self.path(&folder)).unwrap_or_default();
        tags.retain(|tag| self.has(&format!("{folder}/{tag}/current/link")));
        tags.sort();
        tags
    }

    fn repositories(&self) -> Vec<String> {
        let (mut found, mut open) = (Vec::new(), vec![String::new()]);
        while let Some(name) = open.pop() {
            for entry in self.machine.fs().list(&self.path(&format!("repositories/{name}"))).unwrap_or_default() {
                if entry.starts_with('_') {
                    if entry == "_manifests" {
                        found.push(name.trim_end_matches('/').to_owned());
                    }
                } else {
                    open.push(format!("{name}{entry}/"));
                }
            }
        }
        found.sort();
        found
    }

    fn begin(&self, repository: &str, query: &str) -> Result<Answer, Answer> {
        let parameters = parameters(query);
        if let (Some(digest), Some(from)) = (parameters.get("mount"), parameters.get("from")) {
            let there = is_digest(digest)
                && Place::parse(&format!("/v2/{from}/tags/list")).is_some()
                && self.has(&Self::link(from, "_layers", digest))
                && self.has(&Self::blob_path(digest));
            if there {
                self.write(&Self::link(repository, "_layers", digest), digest.as_bytes())?;
                return Ok(created(repository, digest));
            }
        }
        // Nobody listens any more when the lab stops.
        let _ = self.stored.send(Stored::Begun);
        let id = uuid();
        self.write(&format!("repositories/{repository}/_uploads/{id}/data"), b"")?;
        let hashing = Hashing { context: ring::digest::Context::new(&ring::digest::SHA256), size: 0 };
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), hashing);
        Ok(going_on(repository, &id, 0, StatusCode::ACCEPTED))
    }

    /// Add a body to an upload. A body that breaks off ends the upload, as registry 2.8 does.
    async fn add(&self, repository: &str, id: &str, headers: &HeaderMap, body: Body) -> Result<(), Answer> {
        let hashing = self.uploads.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        let Some(mut hashing) = hashing else { return Err(no_upload()) };
        let start = headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok()).and_then(|text| {
            text.split('-').next().and_then(|first| first.trim_start_matches("bytes ").parse::<u64>().ok())
        });
        if start.is_some_and(|start| start != hashing.size) {
            let size = hashing.size;
            self.uploads.lock().unwrap_or_else(PoisonError::into_inner).insert(id.into(), hashing);
            return Err(going_on(repository, id, size, StatusCode::RANGE_NOT_SATISFIABLE));
        }
        let data = format!("repositories/{repository}/_uploads/{id}/data");
        let full = self.path(&data);
        let mut stream = body.into_data_stream();
        let mut piece = BytesMut::with_capacity(PIECE);
        loop {
            let next = stream.next().await;
            match &next {
                Some(Ok(bytes)) => piece.extend_from_slice(bytes),
                Some(Err(why)) => {
                    let _ = self.machine.fs().remove(&full);
                    let detail = json!(why.to_string());
                    return Err(registries::failure(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "UNKNOWN",
                        "unknown error",
                        detail,
                    ));
                }
                None => {}
            }
            if piece.len() >= PIECE || (next.is_none() && !piece.is_empty()) {
                if let Err(why) = self.machine.fs().append(&full, &piece) {
                    // The rest of the body is read, or the client would not see the answer.
                    while let Some(Ok(_)) = stream.next().await {}
                    let _ = self.machine.fs().remove(&full);
                    return Err(self.broken(&data, &why));
                }
                hashing.context.update(&piece);
                hashing.size += piece.len() as u64;
                piece.clear();
            }
            if next.is_none() {
                break;
            }
        }
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner).insert(id.into(), hashing);
        Ok(())
    }

    fn finish(&self, repository: &str, id: &str, digest: &str) -> Result<Answer, Answer> {
        let hashing = self.uploads.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        let Some(hashing) = hashing else { return Err(no_upload()) };
        let folder = format!("repositories/{repository}/_uploads/{id}");
        let found = payload::hex_digest(hashing.context.finish().as_ref());
        if found != digest {
            let _ = self.machine.fs().remove(&self.path(&format!("{folder}/data")));
            return Err(registries::failure(
                StatusCode::BAD_REQUEST,
                "DIGEST_INVALID",
                "provided digest did not match uploaded content",
                json!({ "Digest": digest, "Reason": {} }),
            ));
        }
        let blob = Self::blob_path(digest);
        let target = self.path(&blob);
        if let Some((parent, _)) = target.rsplit_once('/') {
            self.machine.fs().mkdir_p(parent).map_err(|why| self.broken(&blob, &why))?;
        }
        self.machine
            .fs()
            .rename(&self.path(&format!("{folder}/data")), &target)
            .map_err(|why| self.broken(&blob, &why))?;
        let _ = self.machine.fs().remove(&self.path(&folder));
        self.write(&Self::link(repository, "_layers", digest), digest.as_bytes())?;
        let _ = self.stored.send(Stored::Blob(hashing.size));
        Ok(created(repository, digest))
    }
}

async fn serve(State(mirror): State<Arc<Mirror>>, request: Request<Body>) -> Answer {
    if mirror.gone.is_cancelled() {
        return registries::answer(StatusCode::SERVICE_UNAVAILABLE, &[("connection", "close")], Body::empty());
    }
    let (parts, body) = request.into_parts();
    if !mirror.allowed(&parts.headers).await {
        return registries::unauthorized(&format!("Basic realm=\"{}\"", mirror.realm));
    }
    match handle(&mirror, &parts.method, &parts.uri, &parts.headers, body).await {
        Ok(answer) | Err(answer) => answer,
    }
}

async fn handle(
    mirror: &Arc<Mirror>,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
) -> Result<Answer, Answer> {
    let Some(place) = Place::parse(uri.path()) else {
        return Err((StatusCode::NOT_FOUND, "404 page not found\n").into_response());
    };
    let head = method == Method::HEAD;
    let query = uri.query().unwrap_or_default();
    let json_type = [("content-type", "application/json; charset=utf-8")];
    Ok(match (method.as_str(), place) {
        ("GET" | "HEAD", Place::Base) => registries::answer(StatusCode::OK, &json_type, "{}"),
        ("GET", Place::Catalog) => {
            let body = json!({ "repositories": mirror.repositories() }).to_string();
            registries::answer(StatusCode::OK, &json_type, body)
        }
        ("GET", Place::Tags { repository }) => {
            let tags = mirror.tags(&repository);
            if tags.is_empty() && !mirror.has(&format!("repositories/{repository}")) {
                let detail = json!({ "name": repository });
                return Err(registries::failure(
                    StatusCode::NOT_FOUND,
                    "NAME_UNKNOWN",
                    "repository name not known to registry",
                    detail,
                ));
            }
            registries::answer(StatusCode::OK, &json_type, json!({ "name": repository, "tags": tags }).to_string())
        }
        ("GET" | "HEAD", Place::Manifest { repository, reference }) => {
            mirror.get_manifest(head, &repository, &reference)
        }
        ("PUT", Place::Manifest { repository, reference }) => {
            let bytes = axum::body::to_bytes(body, 4 << 20).await.map_err(|_| {
                registries::failure(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", "manifest invalid", json!({}))
            })?;
            mirror.put_manifest(&repository, &reference, &bytes)?
        }
        ("DELETE", Place::Manifest { repository, reference }) => {
            if !is_digest(&reference) {
                return Err(registries::failure(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "UNSUPPORTED",
                    "The operation is unsupported.",
                    json!(null),
                ));
            }
            if !mirror.delete_manifest(&repository, &reference) {
                return Err(registries::manifest_unknown(&reference));
            }
            registries::answer(StatusCode::ACCEPTED, &[], Body::empty())
        }
        ("GET" | "HEAD", Place::Blob { repository, digest }) => {
            let path = mirror.path(&Mirror::blob_path(&digest));
            let linked = is_digest(&digest) && mirror.has(&Mirror::link(&repository, "_layers", &digest));
            let file = mirror.machine.fs().real(&path).ok().filter(|_| linked);
            let size = file.as_ref().and_then(|file| std::fs::metadata(file).ok()).map(|meta| meta.len());
            let (Some(file), Some(size)) = (file, size) else { return Err(registries::blob_unknown(&digest)) };
            registries::blob(head, &digest, size, headers, |first| file_parts(file.clone(), first))
        }
        ("POST", Place::Uploads { repository }) => {
            let started = mirror.begin(&repository, query)?;
            let digest = parameters(query).get("digest").cloned();
            match (digest, upload_id(&started)) {
                // The whole blob in one request.
                (Some(digest), Some(id)) => {
                    mirror.add(&repository, &id, &HeaderMap::new(), body).await?;
                    mirror.finish(&repository, &id, &digest)?
                }
                _ => started,
            }
        }
        ("PATCH", Place::Upload { repository, id }) => {
            mirror.add(&repository, &id, headers, body).await?;
            let size =
                mirror.uploads.lock().unwrap_or_else(PoisonError::into_inner).get(&id).map_or(0, |open| open.size);
            going_on(&repository, &id, size, StatusCode::ACCEPTED)
        }
        ("PUT", Place::Upload { repository, id }) => {
            let digest = parameters(query).get("digest").cloned().filter(|digest| is_digest(digest));
            let Some(digest) = digest else {
                return Err(registries::failure(
                    StatusCode::BAD_REQUEST,
                    "DIGEST_INVALID",
                    "digest missing",
                    json!(null),
                ));
            };
            mirror.add(&repository, &id, &HeaderMap::new(), body).await?;
            mirror.finish(&repository, &id, &digest)?
        }
        ("GET", Place::Upload { repository, id }) => {
            let size = mirror.uploads.lock().unwrap_or_else(PoisonError::into_inner).get(&id).map(|open| open.size);
            match size {
                Some(size) => going_on(&repository, &id, size, StatusCode::NO_CONTENT),
                None => return Err(no_upload()),
            }
        }
        ("DELETE", Place::Upload { repository, id }) => {
            if mirror.uploads.lock().unwrap_or_else(PoisonError::into_inner).remove(&id).is_none() {
                return Err(no_upload());
            }
            let _ = mirror.machine.fs().remove(&mirror.path(&format!("repositories/{repository}/_uploads/{id}")));
            registries::answer(StatusCode::NO_CONTENT, &[], Body::empty())
        }
        _ => registries::failure(
            StatusCode::METHOD_NOT_ALLOWED,
            "UNSUPPORTED",
            "The operation is unsupported.",
            json!(null),
        ),
    })
}

fn file_parts(file: std::path::PathBuf, first: u64) -> futures::stream::BoxStream<'static, std::io::Result<Bytes>> {
    use tokio::io::AsyncSeekExt;
    let open = async move {
        let mut file = tokio::fs::File::open(file).await?;
        file.seek(std::io::SeekFrom::Start(first)).await?;
        Ok::<_, std::io::Error>(tokio_util::io::ReaderStream::with_capacity(file, PIECE))
    };
    Box::pin(futures::stream::once(open).flat_map(|opened| match opened {
        Ok(stream) => stream.boxed(),
        Err(why) => futures::stream::once(async { Err(why) }).boxed(),
    }))
}

fn created(repository: &str, digest: &str) -> Answer {
    let location = format!("/v2/{repository}/blobs/{digest}");
    let headers = [("location", location.as_str()), ("docker-content-digest", digest)];
    registries::answer(StatusCode::CREATED, &headers, Body::empty())
}

fn going_on(repository: &str, id: &str, size: u64, status: StatusCode) -> Answer {
    let location = format!("/v2/{repository}/blobs/uploads/{id}?_state=lab");
    let range = format!("0-{}", size.saturating_sub(1));
    let headers = [
        ("location", location.as_str()),
        ("docker-upload-uuid", id),
        ("range", range.as_str()),
        ("content-length", "0"),
    ];
    registries::answer(status, &headers, Body::empty())
}

fn no_upload() -> Answer {
    registries::failure(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry", json!(null))
}

fn upload_id(answer: &Answer) -> Option<String> {
    answer.headers().get("docker-upload-uuid")?.to_str().ok().map(str::to_owned)
}

fn parameters(query: &str) -> BTreeMap<String, String> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| {
            (key.to_owned(), value.replace("%3A", ":").replace("%3a", ":").replace("%2F", "/").replace("%2f", "/"))
        })
        .collect()
}

/// A random identifier in the usual form.
pub fn uuid() -> String {
    let bits = fastrand::u128(..);
    let text = format!("{bits:032x}");
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default().to_owned();
    format!("{}-{}-4{}-a{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
}
