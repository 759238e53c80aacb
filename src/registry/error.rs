//! What can go wrong with a registry, by class, so that others can decide without reading prose.

use std::error::Error as StdError;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Which of the two registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    Source,
    Mirror,
}

impl Side {
    pub fn as_str(self) -> &'static str {
        match self {
            Side::Source => "source",
            Side::Mirror => "mirror",
        }
    }
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Kinds of failure that need different cures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// No credentials, wrong ones, or not allowed.
    Auth,
    /// The certificate is not trusted (or not valid now).
    Ca,
    /// The certificate is for another name.
    Name,
    Dns,
    Refused,
    Timeout,
    /// The registry has no room left.
    Disk,
    /// The registry has no such manifest, repository or blob.
    ManifestUnknown,
    RateLimit,
    /// The proxy between us and the registry refused, or is not there.
    Proxy,
    /// 5xx, or a connection that ended early.
    Server,
    /// Content is not what its digest says.
    Digest,
    Other,
}

impl Class {
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Auth => "auth",
            Class::Ca => "ca",
            Class::Name => "name",
            Class::Dns => "dns",
            Class::Refused => "refused",
            Class::Timeout => "timeout",
            Class::Disk => "disk",
            Class::ManifestUnknown => "manifest-unknown",
            Class::RateLimit => "rate-limit",
            Class::Proxy => "proxy",
            Class::Server => "server",
            Class::Digest => "digest",
            Class::Other => "other",
        }
    }

    /// The same request may succeed a little later.
    pub fn is_retryable(self) -> bool {
        matches!(self, Class::Dns | Class::Refused | Class::Timeout | Class::RateLimit | Class::Server | Class::Digest)
    }
}

/// A failed request to a registry, or an answer that makes no sense.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{side} registry: {what}: {why}")]
pub struct RegistryError {
    pub side: Side,
    kind: Class,
    /// `GET https://…` or the place in a document.
    pub what: String,
    /// The text underneath, cleaned.
    pub why: String,
    pub status: Option<u16>,
    /// What the registry asked us to wait.
    pub retry_after: Option<Duration>,
}

/// A document from outside that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {why}")]
pub struct Malformed {
    /// Which document, and where in it: `image-references, spec.tags[3].from.name`.
    pub place: String,
    /// What was found, and what would be right.
    pub why: String,
}

impl Malformed {
    pub fn new(place: impl Into<String>, why: impl Into<String>) -> Self {
        Self { place: clean(&place.into()), why: clean(&why.into()) }
    }

    /// `place` inside a larger document.
    pub fn within(mut self, outer: &str) -> Self {
        self.place = format!("{outer}, {}", self.place);
        self
    }
}

impl RegistryError {
    pub fn new(side: Side, class: Class, what: impl Into<String>, why: impl AsRef<str>) -> Self {
        Self { side, kind: class, what: what.into(), why: clean(why.as_ref()), status: None, retry_after: None }
    }

    pub fn malformed(side: Side, malformed: Malformed) -> Self {
        Self::new(side, Class::Other, malformed.place, malformed.why)
    }

    pub fn kind(&self) -> Class {
        self.kind
    }

    /// One of `auth ca name dns refused timeout disk manifest-unknown rate-limit proxy server digest other`.
    pub fn class(&self) -> &'static str {
        self.kind.as_str()
    }

    pub fn is_retryable(&self) -> bool {
        self.kind.is_retryable()
    }

    /// The same error will meet every other request to this registry.
    pub fn is_fatal_for_registry(&self) -> bool {
        matches!(
            self.kind,
            Class::Disk | Class::Auth | Class::Ca | Class::Name | Class::Dns | Class::Refused | Class::Proxy
        )
    }

    /// From a request that got no answer.
    pub(super) fn transport(side: Side, what: &str, error: &reqwest::Error) -> Self {
        let (class, note) = classify(error);
        let mut why = chain(error);
        if let Some(note) = note {
            why = format!("{why} ({note})");
        }
        Self::new(side, class, what, why)
    }

    /// From an answer that is no success.
    pub fn status(side: Side, what: &str, status: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let said = Said::read(body);
        let class = match status {
            _ if said.no_space || status == 507 => Class::Disk,
            401 | 403 => Class::Auth,
            407 => Class::Proxy,
            // The upload is not where we believe it to be.
            416 => Class::Server,
            404 if said.upload_lost => Class::Server,
            404 => Class::ManifestUnknown,
            429 => Class::RateLimit,
            408 | 500..=599 => Class::Server,
            400 if said.unknown_content => Class::ManifestUnknown,
            400 if said.bad_digest => Class::Digest,
            _ if said.rate => Class::RateLimit,
            _ => Class::Other,
        };
        let plain = match class {
            Class::Disk => "no space left on device",
            Class::Auth => "unauthorized",
            Class::ManifestUnknown => "manifest unknown",
            Class::RateLimit => "too many requests",
            _ if status == 413 => "request entity too large (a proxy before the registry limits bodies)",
            _ => "",
        };
        let mut why = format!("HTTP {status}");
        if !plain.is_empty() && !said.text.to_lowercase().contains(plain) {
            why = format!("{why}: {plain}");
        }
        if !said.text.is_empty() {
            why = format!("{why}: {}", said.text);
        }
        Self { status: Some(status), retry_after, ..Self::new(side, class, what, why) }
    }

    /// It is worth another try, because that will be made in another way.
    pub(super) fn passing(mut self) -> Self {
        self.kind = Class::Server;
        self
    }

    /// An expired signed URL of a content network says 403; that says nothing about our credentials.
    pub(super) fn at_redirect(mut self) -> Self {
        if self.kind == Class::Auth {
            self.kind = Class::Server;
        }
        self
    }
}

/// What an error body said. Registries answer `{"errors":[{code,message,detail}]}` (distribution-spec, "Error Codes");
/// proxies before them answer HTML.
#[derive(Default)]
struct Said {
    text: String,
    no_space: bool,
    bad_digest: bool,
    unknown_content: bool,
    upload_lost: bool,
    rate: bool,
}

impl Said {
    fn read(body: &[u8]) -> Self {
        let raw = String::from_utf8_lossy(body);
        let mut said = Said { no_space: raw.to_lowercase().contains("no space left on device"), ..Said::default() };
        let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
        let errors = json.as_ref().and_then(|json| json.get("errors")).and_then(serde_json::Value::as_array);
        if let Some(errors) = errors {
            let mut parts = Vec::new();
            for error in errors.iter().take(3) {
                let word = |key: &str| error.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
                let code = word("code");
                said.bad_digest |= code == "DIGEST_INVALID" || code == "SIZE_INVALID";
                said.unknown_content |= code == "MANIFEST_BLOB_UNKNOWN" || code == "BLOB_UNKNOWN";
                said.upload_lost |= code.starts_with("BLOB_UPLOAD_");
                said.rate |= code == "TOOMANYREQUESTS";
                // The filesystem driver of distribution puts errno there: 28 is ENOSPC.
                let errno = error.pointer("/detail/Enclosed/Err").or_else(|| error.pointer("/detail/Err"));
                said.no_space |= errno.and_then(serde_json::Value::as_i64) == Some(28);
                let detail = match error.get("detail") {
                    None | Some(serde_json::Value::Null) => String::new(),
                    Some(detail) => format!(" ({})", short(&detail.to_string(), 160)),
                };
                parts.push(format!("{code}: {}{detail}", word("message")));
            }
            said.text = short(&parts.join("; "), 400);
        } else if raw.trim_start().starts_with('<') {
            said.text = short(&without_tags(&raw), 120);
        } else {
            said.text = short(&raw, 200);
        }
        said.text = clean(&said.text);
        said
    }
}

fn without_tags(html: &str) -> String {
    let title = html.find("<title>").and_then(|from| {
        let rest = html.get(from + 7..)?;
        rest.get(..rest.find("</title>")?)
    });
    if let Some(title) = title {
        return title.to_owned();
    }
    let mut inside = false;
    html.chars()
        .filter(|c| {
            match c {
                '<' => inside = true,
                '>' => {
                    inside = false;
                    return false;
                }
                _ => {}
            }
            !inside
        })
        .collect()
}

/// At most `limit` characters of it.
pub(super) fn short(text: &str, limit: usize) -> String {
    let text = text.trim();
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Remote text on one line, without control characters and secrets.
pub(super) fn clean(text: &str) -> String {
    let flat: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    crate::spec::secret::redact(&flat.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The chain of an error, outermost first, without repetitions.
fn chain(error: &dyn StdError) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    parts.join(": ")
}

/// The class of a transport error, and how Go programs put it (people search for those words).
fn classify(error: &reqwest::Error) -> (Class, Option<&'static str>) {
    let mut next: Option<&dyn StdError> = Some(error);
    let mut class = if error.is_timeout() { Class::Timeout } else { Class::Server };
    while let Some(inner) = next {
        if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
            return classify_tls(tls);
        }
        let text = inner.to_string();
        if text.contains("dns error") || text.contains("failed to lookup address") {
            return (Class::Dns, Some("no such host"));
        }
        // hyper-util, `connect/proxy/tunnel.rs`: the proxy answered, and not with a tunnel.
        if text.contains("tunnel error") {
            return (Class::Proxy, Some("the proxy refused; see HTTPS_PROXY and NO_PROXY"));
        }
        next = match inner.downcast_ref::<std::io::Error>() {
            None => inner.source(),
            Some(io) => {
                use std::io::ErrorKind as Kind;
                match io.kind() {
                    Kind::ConnectionRefused | Kind::HostUnreachable | Kind::NetworkUnreachable => {
                        class = Class::Refused
                    }
                    Kind::TimedOut => class = Class::Timeout,
                    _ => {}
                }
                // An I/O error is no link of the chain itself: what it wraps is not its source.
                io.get_ref().map(|inner| inner as &dyn StdError)
            }
        };
    }
    if error.is_builder() {
        class = Class::Other;
    }
    (class, None)
}

fn classify_tls(error: &rustls::Error) -> (Class, Option<&'static str>) {
    use rustls::CertificateError as Bad;
    match error {
        rustls::Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            (Class::Name, Some("x509: certificate is not valid for this name"))
        }
        rustls::Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            (Class::Ca, Some("x509: certificate has expired or is not yet valid"))
        }
        rustls::Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            (Class::Ca, Some("x509: certificate signed by unknown authority"))
        }
        rustls::Error::InvalidCertificate(_) => (Class::Ca, Some("x509: certificate is not acceptable")),
        _ => (Class::Server, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_found_in_the_errno_of_distribution() {
        let body = br#"{"errors":[{"code":"UNKNOWN","message":"unknown error","detail":{"DriverName":"filesystem","Enclosed":{"Op":"write","Path":"/x","Err":28}}}]}"#;
        let error = RegistryError::status(Side::Mirror, "PATCH https://m/", 500, None, body);
        assert_eq!(error.class(), "disk");
        assert!(error.to_string().contains("no space left on device"), "{error}");
        assert!(!error.is_retryable());
    }

    #[test]
    fn a_lost_upload_is_begun_again() {
        // What registry:2 says to every request on an upload whose PATCH broke.
        let body = br#"{"errors":[{"code":"BLOB_UPLOAD_INVALID","message":"blob upload invalid"}]}"#;
        let error = RegistryError::status(Side::Mirror, "PATCH https://m/", 404, None, body);
        assert_eq!((error.class(), error.is_retryable()), ("server", true));
    }

    #[test]
    fn html_is_trimmed_to_its_title() {
        let body = b"<html><head><title>429 Too Many Requests</title></head><body>\x1b[31mnginx</body></html>";
        let error = RegistryError::status(Side::Source, "GET https://q/", 429, None, body);
        assert_eq!((error.class(), error.is_retryable()), ("rate-limit", true));
        assert_eq!(error.why, "HTTP 429: 429 Too Many Requests");
    }
}
