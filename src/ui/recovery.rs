//! A recovery in words, for the row that offers it and for the question before it.

use crate::diagnose::recovery::{Danger, Fix, Recovery, Resume};
use crate::model::event::Finding;

/// What applying it means.
#[derive(Debug, Clone, PartialEq)]
pub struct RecoveryText {
    pub title: String,
    /// What is lost, what is done in order, and where the run goes on.
    pub plan: Vec<String>,
    /// It takes something away that it cannot bring back.
    pub destroys: bool,
}

impl RecoveryText {
    /// The recovery that a finding offers; none when it offers none.
    pub fn of(finding: &Finding) -> Option<Self> {
        let id = finding.recovery.as_ref()?;
        let Some(recovery) = Recovery::for_finding(finding).filter(|recovery| recovery.id == *id) else {
            // A record of another version: what is not known is asked about as if it destroyed.
            return Some(Self { title: id.clone(), plan: Vec::new(), destroys: true });
        };
        let mut plan = vec![format!("loses: {}", recovery.loses)];
        plan.extend(recovery.fixes.iter().enumerate().map(|(place, fix)| format!("{}. {}", place + 1, sentence(fix))));
        plan.push(match &recovery.resume {
            Resume::Live => "then the unit on the node tries again by itself".to_owned(),
            Resume::Stage(stage) => format!("then the run goes on from {stage}"),
        });
        Some(Self { title: recovery.title, plan, destroys: recovery.danger == Danger::Destroy })
    }
}

fn sentence(fix: &Fix) -> String {
    match fix {
        Fix::ResyncImage { digest } => format!("copy {digest} into the mirror and prove it"),
        Fix::FetchMirrorCa => "take the mirror's CA from the registry's own directory on the bastion".to_owned(),
        Fix::DestroyCluster => "destroy what the installer made, by infraID".to_owned(),
        Fix::NewInstallDir => "use a new installation directory".to_owned(),
        Fix::MakeRoom => "free or grow the disk of the mirror".to_owned(),
        Fix::ApproveCsrs => "approve pending certificate requests of nodes, after looking at who asks".to_owned(),
    }
}
