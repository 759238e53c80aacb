//! How a node pulls an image by digest: the mirror rules, the trust bundle and the credentials of its Ignition config,
//! against the real mirror; and the errors that podman prints (containers/image `docker/docker_image_src.go`).

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::payload::MANIFEST_TYPE;
use super::tls;
use crate::lab::machines::{Machine, Skew};

/// quay.io, which nobody in a disconnected VPC reaches.
const QUAY: &str = "34.225.41.113:443";

/// What a node knows about registries.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PullConfig {
    /// `imageDigestSources`: a source repository and its mirrors.
    pub mirrors: Vec<(String, Vec<String>)>,
    /// `additionalTrustBundle`, PEM.
    pub trust: String,
    /// Content of the pull secret.
    pub pull_secret: String,
}

impl PullConfig {
    /// Ask for the manifest of `spec` (`quay.io/…@sha256:…`) as podman on `node` would. `Err` is podman's error.
    pub async fn pull(&self, node: &Machine, spec: &str) -> Result<(), String> {
        let (repository, digest) = spec.split_once('@').unwrap_or((spec, ""));
        let mirrors = self
            .mirrors
            .iter()
            .filter(|(source, _)| repository == source || repository.starts_with(&format!("{source}/")));
        let (mut failures, mut any) = (Vec::new(), false);
        for (source, mirrors) in mirrors {
            for mirror in mirrors {
                any = true;
                let place = repository.replacen(source.as_str(), mirror, 1);
                match self.ask(node, &place, digest).await {
                    Ok(()) => return Ok(()),
                    Err(why) => failures.push(format!("{place}@{digest}: {why}")),
                }
            }
        }
        let timeout =
            format!("pinging container registry quay.io: Get \"https://quay.io/v2/\": dial tcp {QUAY}: i/o timeout");
        Err(match any {
            true => format!(
                "initializing source docker://{spec}: (Mirrors also failed: [{}]): {spec}: {timeout}",
                failures.join("\n")
            ),
            false => format!("initializing source docker://{spec}: {timeout}"),
        })
    }

    async fn ask(&self, node: &Machine, place: &str, digest: &str) -> Result<(), String> {
        let (registry, repository) = place.split_once('/').unwrap_or((place, ""));
        let (host, port) = match registry.split_once(':') {
            Some((host, port)) => (host, port.parse().unwrap_or(443)),
            None => (registry, 443),
        };
        let ping = format!("pinging container registry {registry}: Get \"https://{registry}/v2/\"");
        if let Some(trouble) = node.trouble(host, port) {
            return Err(format!("{ping}: {trouble}"));
        }
        let Some(address) = node.resolve(host, port) else {
            return Err(format!("{ping}: dial tcp: lookup {host} on 10.0.0.2:53: no such host"));
        };
        let client = self.client(host, address, node.skew()).map_err(|why| format!("{ping}: {why}"))?;
        let url = format!("https://{host}:{}", address.port());
        let answer =
            client.get(format!("{url}/v2/")).send().await.map_err(|why| format!("{ping}: {}", go(&why, host, port)))?;
        let mut request =
            client.get(format!("{url}/v2/{repository}/manifests/{digest}")).header("accept", MANIFEST_TYPE);
        if answer.status() == reqwest::StatusCode::UNAUTHORIZED
            && let Some((user, password)) = self.account(registry)
        {
            request = request.basic_auth(user, Some(password));
        }
        let reading = format!("reading manifest {digest} in {place}");
        let answer = request.send().await.map_err(|why| format!("{reading}: {}", go(&why, host, port)))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let body: Value = answer.json().await.unwrap_or_default();
        let error = &body["errors"][0];
        let message = error["message"].as_str().unwrap_or_default();
        Err(match status.as_u16() {
            401 => format!("{reading}: unauthorized: authentication required"),
            404 => format!("{reading}: {}", if message.is_empty() { "manifest unknown" } else { message }),
            _ => format!("{reading}: received unexpected HTTP status: {status}"),
        })
    }

    fn client(&self, host: &str, address: std::net::SocketAddr, clock: &Skew) -> Result<reqwest::Client, String> {
        let roots = tls::roots(self.trust.as_bytes()).map_err(|why| why.to_string())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_details(provider, Arc::new(NodeTime(clock.clone())))
            .with_safe_default_protocol_versions()
            .map_err(|why| why.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .no_proxy()
            .resolve(host, address)
            .timeout(Duration::from_secs(20))
            .build()
            .map_err(|why| why.to_string())
    }

    fn account(&self, registry: &str) -> Option<(String, String)> {
        use base64::Engine;
        let secret: Value = serde_json::from_str(&self.pull_secret).ok()?;
        let auth = secret["auths"][registry]["auth"].as_str()?;
        let text = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(auth).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        Some((user.into(), password.into()))
    }
}

/// An error in the words of Go's net/http and crypto/x509.
fn go(why: &reqwest::Error, host: &str, port: u16) -> String {
    let mut chain = String::new();
    let mut cause: Option<&dyn Error> = Some(why);
    while let Some(error) = cause {
        chain.push_str(&format!("{error:?} {error}\n"));
        cause = error.source();
    }
    let fails = "tls: failed to verify certificate: x509: ";
    if chain.contains("UnknownIssuer") || chain.contains("BadSignature") {
        format!("{fails}certificate signed by unknown authority")
    } else if chain.contains("NotValidForName") {
        format!("{fails}certificate is not valid for any names, but wanted to match {host}")
    } else if chain.contains("Expired") || chain.contains("NotValidYet") {
        format!("{fails}certificate has expired or is not yet valid{}", times(&chain).unwrap_or_default())
    } else if chain.contains("ConnectionRefused") {
        format!("dial tcp 10.0.0.10:{port}: connect: connection refused")
    } else {
        format!("dial tcp 10.0.0.10:{port}: i/o timeout")
    }
}

/// `: current time … is before …`, from what rustls says of the two.
fn times(chain: &str) -> Option<String> {
    let side = if chain.contains("NotValidYet") { "before" } else { "after" };
    let said = chain.split("verification time ").nth(1)?;
    let mut numbers = said.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<i64>().ok());
    let mut time = || Timestamp::from_second(numbers.next()?).ok();
    Some(format!(": current time {} is {side} {}", time()?, time()?))
}

/// The time as a node knows it.
#[derive(Debug)]
struct NodeTime(Skew);

impl TimeProvider for NodeTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(self.0.now().as_second()).ok()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_behind_is_told_as_go_tells_it() {
        let said = "invalid peer certificate: certificate not valid yet: verification time 1740823200 (UNIX), but certificate \
                    is not valid until 1741082400 (259200 seconds in future) NotValidYetContext";
        let wanted = ": current time 2025-03-01T10:00:00Z is before 2025-03-04T10:00:00Z";
        assert_eq!(times(said).as_deref(), Some(wanted));
    }
}
