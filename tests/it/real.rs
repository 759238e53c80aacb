//! Real parts: sshd, docker-registry, skopeo, journalctl, and the program itself as its user starts it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should say where")]

mod attach;
pub(crate) mod canary;
mod engines;
mod hops;
mod install;
mod records;
mod site;
