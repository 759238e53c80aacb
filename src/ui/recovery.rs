//! A recovery in words, for the row that offers it and for the question before it: what is lost by it first, then what it
//! does, then how.

use std::fmt;
use std::sync::Arc;

use crate::diagnose::recovery::{Because, Danger, Fix, Recovery, Resume};
use crate::model::event::{Action, Finding};

/// What a recovery would run and call, asked of whoever knows the world; nothing is known of a recorded run's.
#[derive(Clone, Default)]
pub struct Previews(Option<Arc<Preview>>);

type Preview = dyn Fn(&Recovery) -> Vec<Action> + Send + Sync;

impl Previews {
    pub fn new(preview: impl Fn(&Recovery) -> Vec<Action> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(preview)))
    }

    fn of(&self, recovery: &Recovery) -> Vec<Action> {
        self.0.as_ref().map(|preview| preview(recovery)).unwrap_or_default()
    }
}

impl fmt::Debug for Previews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Previews(known)" } else { "Previews(unknown)" })
    }
}

impl PartialEq for Previews {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            (one, two) => one.is_none() && two.is_none(),
        }
    }
}

/// What applying it means.
#[derive(Debug, Clone, PartialEq)]
pub struct RecoveryText {
    pub title: String,
    /// What is lost, what is done in order, where the run goes on, and the commands and calls.
    pub plan: Vec<String>,
    /// It takes something away that it cannot bring back.
    pub destroys: bool,
}

impl RecoveryText {
    /// Ids of the recoveries that a finding offers, the cheapest first.
    pub fn offered(finding: &Finding) -> Vec<String> {
        let known: Vec<String> = Recovery::all_for(finding).into_iter().map(|recovery| recovery.id).collect();
        // A record of another version may offer what this one does not know.
        let other = finding.recovery.iter().filter(|id| !known.contains(id)).cloned();
        other.chain(known.iter().cloned()).collect()
    }

    /// One of them.
    pub fn of(finding: &Finding, id: &str, previews: &Previews) -> Option<Self> {
        let Some(recovery) = Recovery::all_for(finding).into_iter().find(|recovery| recovery.id == id) else {
            // What is not known is asked about as if it destroyed.
            let offered = finding.recovery.as_deref() == Some(id);
            return offered.then(|| Self { title: id.to_owned(), plan: Vec::new(), destroys: true });
        };
        let destroys = recovery.danger == Danger::Destroy;
        let mut plan = vec![format!("loses: {}", recovery.loses)];
        if destroys {
            plan.push("this cannot be undone".to_owned());
        }
        plan.extend(recovery.fixes.iter().enumerate().map(|(place, fix)| format!("{}. {}", place + 1, sentence(fix))));
        plan.push(match &recovery.resume {
            Resume::Live => "then what runs tries again by itself".to_owned(),
            Resume::Stage(stage) => format!("then the run goes on from {stage}"),
        });
        plan.extend(previews.of(&recovery).iter().map(command));
        Some(Self { title: recovery.title, plan, destroys })
    }
}

/// One command or call, as it will be recorded.
pub fn command(action: &Action) -> String {
    match action {
        Action::Exec { host, command } => format!("{host}$ {command}"),
        Action::Api { call } => call.clone(),
        Action::Http { request } => request.clone(),
        Action::File { host, path, mode } => format!("{host}: write {path} ({mode})"),
    }
}

fn sentence(fix: &Fix) -> String {
    match fix {
        Fix::Ensure { step } => format!("see that {step} holds, and make what is missing"),
        Fix::Await { step } => format!("try {step} until it holds"),
        Fix::ResyncImage { digest } => format!("copy {digest} into the mirror and prove it"),
        Fix::RenewCertificate => "make a new certificate for the mirror, by the CA that the nodes trust".to_owned(),
        Fix::FetchMirrorCa => "take the mirror's CA from the registry's own directory on the bastion".to_owned(),
        Fix::PruneDisk => "take away from the mirror's disk what nobody uses".to_owned(),
        Fix::GrowDisk => "make the mirror's volume and file system larger".to_owned(),
        Fix::ClusterRecords => "write api and api-int into the cluster's private zone".to_owned(),
        Fix::ClusterRules => "let the machine network in at 6443 and 22623".to_owned(),
        Fix::SetClock { host } => format!("step the clock of {host}, and let chrony follow 169.254.169.123"),
        Fix::RestartUnit { host, unit } => format!("start {unit} on {host} again"),
        Fix::ApproveCsrs => "approve pending certificate requests of nodes, after looking at who asks".to_owned(),
        Fix::DestroyCluster { because } => {
            let when = match because {
                Because::Asked => "",
                Because::ConfigChanged => ", if its install-config would be another one now",
                Because::LoginMissing => ", if its nodes have no login for the mirror",
                Because::Expired => ", if its assets are older than a day",
            };
            format!("destroy what the installer made, by infraID{when}")
        }
        Fix::NewInstallDir => "use a new installation directory".to_owned(),
        Fix::RebootBastion => "start the bastion's machine again, and wait until it answers".to_owned(),
    }
}
