//! OCI registries: planning, copying and proving a release.
//!
//! What is mirrored is what the release payload itself lists, by digest. Manifests travel as the bytes that they are:
//! they are read with `oci-spec` and never written by it, because a mirror that changes a byte changes the digest.
//!
//! | room | what for |
//! |---|---|
//! | [`client`] | one HTTP client for the distribution API: what can be asked |
//! | `send` | how it is asked: tokens, redirects, time limits |
//! | [`auth`] | `auth.json` by the rules of containers, and what registries answer to it |
//! | [`blob`] | reading a blob that may break in the middle |
//! | [`upload`] | writing one, streamed or in chunks |
//! | `chunk` | the memory for chunks |
//! | [`journal`] | uploads that are open, for the next process |
//! | `pace` | a cap on bytes per second |
//! | [`manifest`] | reading manifests and lists |
//! | [`release`] | a pull spec, the payload behind it, and its components |
//! | [`mapping`] | mapping files: pairs of source and destination |
//! | [`plan`] | images → manifests → blobs, less what the mirror has |
//! | [`copy`] | doing the plan |
//! | [`prove`] | asking the mirror for every digest |
//! | [`outputs`] | what others read of a mirror |
//! | [`driven`] | other engines: what they are told, what their output means |
//! | [`notify`] | a registry's own word of what it stored |
//! | [`agent`] | all of it as a job on the bastion that tells of itself in JSON lines |

pub mod agent;
pub mod auth;
pub mod blob;
mod chunk;
pub mod client;
pub mod copy;
pub mod digest;
pub mod driven;
pub mod error;
pub mod journal;
pub mod manifest;
pub mod mapping;
pub mod notify;
pub mod outputs;
mod pace;
pub mod plan;
pub mod prove;
pub mod release;
mod send;
pub mod upload;

pub use client::{Client, Net};
pub use error::{Class, RegistryError, Side};
