//! Certificate signing requests of nodes: what they ask for, and what speaks against approving them.
//!
//! The reasons follow the checks of openshift/cluster-machine-approver (pkg/controller/csr_check.go).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::model::event::{CsrState, Observed};
use crate::model::text::one_line;

use super::{Condition, ParseError, condition, view};

/// Signer of a kubelet's client certificate.
pub const CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Signer of a kubelet's serving certificate.
pub const SERVING: &str = "kubernetes.io/kubelet-serving";
const BOOTSTRAPPER: &str = "system:serviceaccount:openshift-machine-config-operator:node-bootstrapper";
const NODE: &str = "system:node:";
/// The machine approver leaves older requests alone.
const OLD: SignedDuration = SignedDuration::from_hours(2);

#[derive(Default, Deserialize)]
#[serde(default)]
struct CsrObject {
    metadata: Metadata,
    spec: CsrSpec,
    status: CsrStatus,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    creation_timestamp: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CsrSpec {
    username: String,
    signer_name: String,
    usages: Vec<String>,
    request: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CsrStatus {
    conditions: Vec<Condition>,
    certificate: Option<String>,
}

/// A signing request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub name: String,
    pub requester: String,
    pub signer: String,
    pub state: CsrState,
    pub created: Option<Timestamp>,
    pub usages: Vec<String>,
    /// Common name and organisations of the subject; `None` when the request cannot be read.
    pub subject: Option<(String, Vec<String>)>,
}

impl Request {
    /// Read a CertificateSigningRequest (`certificates.k8s.io/v1`).
    ///
    /// # Errors
    /// When it has not that shape.
    pub fn parse(object: &Value) -> Result<Self, ParseError> {
        let (name, CsrObject { metadata, spec, status }) = view("certificatesigningrequest", object)?;
        let has = |kind: &str| condition(&status.conditions, kind).is_some_and(|condition| condition.status != "False");
        let state = if has("Denied") || has("Failed") {
            CsrState::Denied
        } else if has("Approved") && status.certificate.is_some_and(|certificate| !certificate.is_empty()) {
            CsrState::Issued
        } else if has("Approved") {
            CsrState::Approved
        } else {
            CsrState::Pending
        };
        Ok(Self {
            name,
            requester: one_line(&spec.username, 300),
            signer: one_line(&spec.signer_name, 300),
            state,
            created: metadata.creation_timestamp.and_then(|time| time.parse().ok()),
            usages: spec.usages.iter().map(|usage| one_line(usage, 80)).collect(),
            subject: subject(&spec.request),
        })
    }

    pub fn observed(&self) -> Observed {
        Observed::Csr {
            name: self.name.clone(),
            requester: self.requester.clone(),
            signer: self.signer.clone(),
            state: self.state,
        }
    }

    /// The node that asks, by the subject of its request.
    pub fn node(&self) -> Option<&str> {
        self.subject.as_ref()?.0.strip_prefix(NODE)
    }

    /// Reasons to look twice before approving: none for what a node of this cluster asks as it joins.
    /// `nodes` are the names of nodes that are known, joined or expected; none given, none checked.
    pub fn hesitations(&self, now: Timestamp, nodes: &[String]) -> Vec<String> {
        let mut reasons = Vec::new();
        match self.state {
            CsrState::Pending => {}
            CsrState::Denied => reasons.push("it has been denied before".to_owned()),
            CsrState::Approved | CsrState::Issued => reasons.push("it is approved already".to_owned()),
        }
        let node = self.node();
        match (&self.subject, node) {
            (None, _) => reasons.push("the request in it cannot be read".to_owned()),
            (Some((name, _)), None) => reasons.push(format!("it asks for {name:?}, which is no node")),
            (Some((_, groups)), Some(_)) if *groups != ["system:nodes"] => {
                reasons.push(format!("it asks for the groups {groups:?} instead of system:nodes"));
            }
            _ => {}
        }
        match self.signer.as_str() {
            CLIENT if self.requester == BOOTSTRAPPER => {}
            CLIENT | SERVING if node.is_some_and(|node| self.requester == format!("{NODE}{node}")) => {}
            CLIENT | SERVING => reasons.push(format!("{} asks for it, who is not that node", self.requester)),
            other => reasons.push(format!("its signer is {other:?}: no certificate of a kubelet")),
        }
        let wanted = if self.signer == SERVING { "server auth" } else { "client auth" };
        let usual = ["digital signature", "key encipherment", wanted];
        if let Some(odd) = self.usages.iter().find(|usage| !usual.contains(&usage.as_str())) {
            reasons.push(format!("it asks for the usage {odd:?}"));
        }
        if let Some(node) = node.filter(|node| !nodes.is_empty() && !nodes.iter().any(|known| known == node)) {
            reasons.push(format!("no node or machine is known as {node:?}"));
        }
        if self.created.is_some_and(|created| now.duration_since(created) > OLD) {
            reasons.push("it is more than 2 hours old; a node that still runs will have asked again".to_owned());
        }
        reasons
    }
}

/// Common name and organisations out of `spec.request`: base64 of PEM of PKCS #10.
fn subject(request: &str) -> Option<(String, Vec<String>)> {
    let pem = STANDARD.decode(request.trim()).ok()?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).ok()?;
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).ok()?;
    let subject = &request.certification_request_info.subject;
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    let groups = subject.iter_organization().filter_map(|group| group.as_str().ok());
    Some((one_line(name, 300), groups.map(|group| one_line(group, 300)).collect()))
}
