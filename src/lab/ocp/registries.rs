//! What the lab's two registries have in common: paths and errors of the OCI distribution API, as
//! distribution/distribution answers them (`registry/api/errcode`, `registry/api/v2`).

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::{Value, json};

pub type Answer = Response<Body>;

/// A path below `/v2/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Base,
    Catalog,
    Tags { repository: String },
    Manifest { repository: String, reference: String },
    Blob { repository: String, digest: String },
    Uploads { repository: String },
    Upload { repository: String, id: String },
}

impl Place {
    pub fn parse(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/v2")?.trim_start_matches('/');
        if rest.is_empty() {
            return Some(Self::Base);
        }
        if rest == "_catalog" {
            return Some(Self::Catalog);
        }
        let words: Vec<&str> = rest.split('/').collect();
        let (name, tail) = match words.as_slice() {
            [name @ .., "tags", "list"] => (name, Self::Tags { repository: String::new() }),
            [name @ .., "manifests", reference] => {
                (name, Self::Manifest { repository: String::new(), reference: (*reference).into() })
            }
            [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => {
                (name, Self::Uploads { repository: String::new() })
            }
            [name @ .., "blobs", "uploads", id] => (name, Self::Upload { repository: String::new(), id: (*id).into() }),
            [name @ .., "blobs", digest] => (name, Self::Blob { repository: String::new(), digest: (*digest).into() }),
            _ => return None,
        };
        let plain = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte))
                && !part.starts_with('.')
        };
        if name.is_empty() || !name.iter().all(plain) {
            return None;
        }
        let full = name.join("/");
        Some(match tail {
            Self::Tags { .. } => Self::Tags { repository: full },
            Self::Manifest { reference, .. } => Self::Manifest { repository: full, reference },
            Self::Uploads { .. } => Self::Uploads { repository: full },
            Self::Upload { id, .. } => Self::Upload { repository: full, id },
            Self::Blob { digest, .. } => Self::Blob { repository: full, digest },
            other => other,
        })
    }

    pub fn repository(&self) -> Option<&str> {
        match self {
            Self::Base | Self::Catalog => None,
            Self::Tags { repository }
            | Self::Manifest { repository, .. }
            | Self::Blob { repository, .. }
            | Self::Uploads { repository }
            | Self::Upload { repository, .. } => Some(repository),
        }
    }
}

/// `sha256:` and 64 hexadecimal digits: also what keeps a digest from being a path.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

/// A tag as the distribution specification allows it.
pub fn is_tag(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

pub fn failure(status: StatusCode, code: &str, message: &str, detail: Value) -> Answer {
    let mut error = json!({ "code": code, "message": message });
    if !detail.is_null() {
        error["detail"] = detail;
    }
    let body = json!({ "errors": [error] }).to_string() + "\n";
    answer(status, &[("content-type", "application/json; charset=utf-8")], body)
}

pub fn manifest_unknown(reference: &str) -> Answer {
    let detail = if is_digest(reference) { json!({ "Digest": reference }) } else { json!({ "Tag": reference }) };
    failure(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown", detail)
}

pub fn blob_unknown(digest: &str) -> Answer {
    failure(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown to registry", json!({ "digest": digest }))
}

pub fn unauthorized(challenge: &str) -> Answer {
    let mut answer = failure(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required", Value::Null);
    if let Ok(value) = HeaderValue::from_str(challenge) {
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    answer
}

pub fn answer(status: StatusCode, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    answer.headers_mut().insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (name.parse::<header::HeaderName>(), HeaderValue::from_str(value)) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

/// `bytes=5-` or `bytes=5-9`, as first byte and (optional) last.
pub fn range(headers: &HeaderMap, size: u64) -> Option<(u64, u64)> {
    let text = headers.get(header::RANGE)?.to_str().ok()?.strip_prefix("bytes=")?;
    let (first, last) = text.split_once('-')?;
    let first: u64 = first.parse().ok()?;
    let last = last.parse().unwrap_or(u64::MAX).min(size.saturating_sub(1));
    (first <= last).then_some((first, last))
}

/// User and password of an `Authorization: Basic` header.
pub fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    use base64::Engine;
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let text = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.into(), password.into()))
}

/// The body of a blob, or of the part of it that was asked for. `parts` gives it from an offset on.
pub fn blob(
    head: bool,
    digest: &str,
    size: u64,
    headers: &HeaderMap,
    parts: impl Fn(u64) -> futures::stream::BoxStream<'static, std::io::Result<Bytes>>,
) -> Answer {
    let asked = range(headers, size);
    let (first, last) = asked.unwrap_or((0, size.saturating_sub(1)));
    let length = if size == 0 { 0 } else { last - first + 1 };
    let body = if head || length == 0 { Body::empty() } else { Body::from_stream(take(parts(first), length)) };
    let length = length.to_string();
    let mut list = vec![
        ("content-type", "application/octet-stream"),
        ("docker-content-digest", digest),
        ("content-length", length.as_str()),
        ("accept-ranges", "bytes"),
        ("cache-control", "max-age=31536000"),
    ];
    let place = format!("bytes {first}-{last}/{size}");
    let status = match asked {
        Some(_) => {
            list.push(("content-range", place.as_str()));
            StatusCode::PARTIAL_CONTENT
        }
        None => StatusCode::OK,
    };
    answer(status, &list, body)
}

fn take(
    parts: futures::stream::BoxStream<'static, std::io::Result<Bytes>>,
    length: u64,
) -> impl futures::Stream<Item = std::io::Result<Bytes>> + Send {
    parts.scan(length, |left, part| {
        let part = part.map(|mut bytes| {
            bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= bytes.len() as u64;
            bytes
        });
        let empty = part.as_ref().is_ok_and(Bytes::is_empty);
        futures::future::ready((!empty).then_some(part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_place_and_never_climbs() {
        let manifest = Place::Manifest { repository: "a/b/c".into(), reference: "sha256:1".into() };
        assert_eq!(Place::parse("/v2/a/b/c/manifests/sha256:1"), Some(manifest));
        assert_eq!(Place::parse("/v2/"), Some(Place::Base));
        assert_eq!(Place::parse("/v2/a/blobs/uploads/"), Some(Place::Uploads { repository: "a".into() }));
        assert_eq!(Place::parse("/v2/../x/tags/list"), None);
        assert!(!is_digest("sha256:../../etc"));
        assert!(!is_tag(".."));
    }
}
