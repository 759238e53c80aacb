//! What a new bastion is told at its first boot: who may log in, and by which host key it can be known. Everything else is
//! brought over SSH, where it can be seen, repeated, and kept from whoever may read user data (any process on the machine,
//! and anybody with `ec2:DescribeInstanceAttribute`). Pure.

mod cloud_init;
mod ignition;

use crate::spec::{BastionOs, Secret};

/// EC2 takes so many bytes before they are encoded (user guide, "Run commands when you launch an EC2 instance").
pub const LIMIT: usize = 16 * 1024;

/// Replaces the delivered host key on the first login.
pub const ROTATE: &str = include_str!("../../../assets/userdata/rotate-host-key.sh");

/// A host key that was made here for a machine that is not there yet.
#[derive(Debug, Clone)]
pub struct HostKeyPair {
    /// In OpenSSH's own format.
    pub private: Secret,
    /// `ssh-ed25519 AAAA…`
    pub public: String,
}

/// What the first boot needs.
#[derive(Debug, Clone)]
pub struct FirstBoot<'a> {
    pub user: &'a str,
    /// The operator's public key, one line.
    pub authorized_key: &'a str,
    /// Only when the operator chose to have it delivered.
    pub host_key: Option<&'a HostKeyPair>,
}

#[derive(Debug, thiserror::Error)]
pub enum UserDataError {
    #[error("the user data has {size} bytes, and EC2 takes {LIMIT}; use a shorter SSH key")]
    TooLarge { size: usize },
    /// Of what is built into this program; a test rules it out.
    #[error("writing the user data: {0}")]
    Broken(String),
}

/// The user data for an operating system, plain text: cloud-init's or Ignition's.
///
/// # Errors
/// When it would be too large.
pub fn render(os: BastionOs, boot: &FirstBoot<'_>) -> Result<Secret, UserDataError> {
    let text = if os.is_coreos() { ignition::render(boot)? } else { cloud_init::render(boot)? };
    if text.len() > LIMIT {
        return Err(UserDataError::TooLarge { size: text.len() });
    }
    Ok(Secret::holding(text))
}
