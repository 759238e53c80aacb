//! What an installation stands on besides its file: the installer's own release, where it runs, the credentials it is
//! given. Pure: each takes what somebody else has read.

use std::net::Ipv4Addr;

use super::CredentialsMode;
use super::cidr::Cidr;

/// The release that an installer was built for, from what `openshift-install version` prints.
pub fn built_for(version: &str) -> Option<&str> {
    version.lines().find_map(|line| line.trim().strip_prefix("release image ")).map(str::trim)
}

/// Does the installer ask for the release that is in the mirror? `digest` is that of the mirrored one.
///
/// # Errors
/// When it asks for another: nodes would look for images that nobody copied.
pub fn same_release(version: &str, digest: &str) -> Result<String, String> {
    let Some(image) = built_for(version) else {
        return Err(
            "openshift-install names no release image; take it from the release itself: oc adm release extract \
                    --command=openshift-install"
                .into(),
        );
    };
    match image.rsplit_once('@') {
        Some((_, built)) if built == digest => Ok(image.to_owned()),
        Some((_, built)) => Err(format!(
            "the installer was built for {built}, and {digest} is in the mirror: nodes would ask for images that were \
             not copied; take the installer of that release, or name the other one in release.pull_spec"
        )),
        None => Err(format!(
            "the installer was built for {image}, by tag: mirrors are asked for digests alone, and the nodes would go to \
             the source; name the release by digest in release.pull_spec"
        )),
    }
}

/// Is this machine inside the network of the nodes? `addresses` is what `hostname -I` prints. `None` when it is, else why
/// that may go wrong.
pub fn elsewhere(addresses: &str, machine_network: &str) -> Option<String> {
    let network: Cidr = machine_network.parse().ok()?;
    let own: Vec<Ipv4Addr> = addresses.split_whitespace().filter_map(|text| text.parse().ok()).collect();
    if own.is_empty() || own.iter().any(|address| network.contains(*address)) {
        return None;
    }
    Some(format!(
        "the installer runs on {}, outside of the machine network {machine_network}: unless a route and the private zone \
         lead there, it waits for a Kubernetes API that it cannot reach, although the cluster is fine",
        own.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    ))
}

/// Credentials that end by themselves, in a section of an AWS credentials file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShortLived {
    /// The cluster would keep them.
    Refused(String),
    /// Only the installer uses them.
    Warned(String),
}

/// Does the section hold a session token, and what does that mean in this mode?
pub fn short_lived(section: &str, mode: CredentialsMode) -> Option<ShortLived> {
    let token = |line: &str| line.split_once('=').is_some_and(|(key, _)| key.trim() == "aws_session_token");
    section.lines().any(token).then(|| match mode {
        CredentialsMode::Manual => ShortLived::Warned(
            "the profile has a session token: the installer needs its credentials for an hour and more, and destroy \
             needs them again"
                .into(),
        ),
        CredentialsMode::Mint | CredentialsMode::Passthrough => ShortLived::Refused(format!(
            "the profile has a session token, and with credentials.mode {mode:?} the cluster keeps these credentials and \
             works until they end; take those of a user, or set credentials.mode = \"Manual\""
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_installer() {
        let text = "openshift-install 4.18.12\nbuilt from commit 4f6b\nrelease image \
                    quay.io/openshift-release-dev/ocp-release@sha256:aa\nrelease architecture amd64\n";
        assert_eq!(built_for(text), Some("quay.io/openshift-release-dev/ocp-release@sha256:aa"));
        assert!(same_release(text, "sha256:aa").is_ok());
        assert!(same_release("openshift-install 4.18.12\n", "sha256:aa").is_err());
    }
}
