//! Ed25519 keys in the formats of OpenSSH (PROTOCOL.key).

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::KeyPair;
use ssh_key::private::{Ed25519Keypair, Ed25519PrivateKey, KeypairData};

use crate::host::HostError;
use crate::spec::Secret;

/// A new key: the private half as a file of OpenSSH's, and the public one, `ssh-ed25519 AAAA… comment`.
pub fn new_key_pair(comment: &str) -> Result<(Secret, String), HostError> {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| wrong("the system has no random numbers"))?;
    let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| wrong("the seed is no key"))?;
    let public = pair.public_key().as_ref().try_into().map_err(|_| wrong("the key has a wrong length"))?;
    let pair = Ed25519Keypair {
        public: ssh_key::public::Ed25519PublicKey(public),
        private: Ed25519PrivateKey::from_bytes(&seed),
    };
    let key = ssh_key::PrivateKey::new(KeypairData::Ed25519(pair), comment).map_err(|why| wrong(&why.to_string()))?;
    let private = key.to_openssh(ssh_key::LineEnding::LF).map_err(|why| wrong(&why.to_string()))?;
    let public = key.public_key().to_openssh().map_err(|why| wrong(&why.to_string()))?;
    Ok((Secret::new(private.to_string()), public.trim().to_owned()))
}

/// The public half of a private key file's text, `ssh-ed25519 AAAA…`, without its comment.
pub fn public_half(private: &Secret) -> Option<String> {
    let key = ssh_key::PrivateKey::from_openssh(private.reveal()).ok()?;
    let line = key.public_key().to_openssh().ok()?;
    Some(line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}

fn wrong(why: &str) -> HostError {
    HostError::Other { host: "local".into(), what: "making an SSH key".into(), why: why.to_owned() }
}
