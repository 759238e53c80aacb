//! The OpenShift side of the lab: a synthetic release and the two registries it is in, the tools of the bastion
//! (`openshift-install`, `oc`, `podman` …), the machines of a new cluster with what they write to their journals, its
//! kube API, and the scenario that decides what goes wrong.
//!
//! Everything happens on loopback and below the lab's directory. The product is driven here exactly as it is against a
//! real cluster: nothing in this folder is known to it.

pub mod bootstrap;
mod breakage;
pub mod ca;
pub mod cluster;
pub mod control_plane;
pub mod credentials;
pub mod day_two;
pub mod first_boot;
pub mod journal;
pub mod kube_api;
pub mod kube_store;
pub mod mirror;
pub mod network;
pub mod payload;
pub mod pull;
pub mod registries;
pub mod scenario;
pub mod source;
pub mod tls;
pub mod tools;
pub mod twists;

use std::path::Path;

/// What keeps the lab from working. None of it is meant to happen.
#[derive(Debug, thiserror::Error)]
pub enum OcpError {
    #[error("{path}: {why}")]
    File { path: String, why: std::io::Error },
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("TLS: {0}")]
    Tls(String),
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Scenario(String),
    #[error("cloud: {0}")]
    Cloud(#[from] crate::cloud::CloudError),
    #[error("machine: {0}")]
    Machine(String),
    #[error("SSH key: {0}")]
    Key(String),
}

impl OcpError {
    fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.display().to_string();
        move |why| Self::File { path, why }
    }

    fn pem(why: rustls::pki_types::pem::Error) -> Self {
        Self::Tls(format!("no PEM: {why}"))
    }
}
