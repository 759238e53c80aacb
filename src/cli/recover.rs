//! Apply a recovery to a run that has ended, then go on with it.

use std::path::{Path, PathBuf};

use crate::diagnose::Recovery;
use crate::diagnose::recovery::Danger;
use crate::engine::First;
use crate::model::RunModel;
use crate::model::event::Finding;
use crate::model::text::strip_control;

use super::opened::open;
use super::session::{Session, load};
use super::{Failure, Front, cloud, exit};

#[derive(Debug, clap::Args)]
pub struct RecoverArgs {
    /// The run: its name, the end of its name, or `last`.
    #[arg(default_value = "last")]
    run: String,
    /// The recovery to apply; without it what is offered is listed, and nothing is done.
    #[arg(long, value_name = "RECOVERY")]
    apply: Option<String>,
    /// The finding that it is for; default the likeliest one that offers it.
    #[arg(long, value_name = "FINDING")]
    finding: Option<String>,
    /// The cluster's name, typed, for one that destroys.
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,
    /// End after this stage; default 09-verify.
    #[arg(long, value_name = "STAGE")]
    until: Option<String>,
    #[command(flatten)]
    front: Front,
    /// Use the cloud kept in this file (a lab's).
    #[cfg(feature = "lab")]
    #[arg(long, value_name = "FILE")]
    cloud: Option<PathBuf>,
    /// How many times faster than life that lab is.
    #[cfg(feature = "lab")]
    #[arg(long, default_value_t = 1.0, requires = "cloud")]
    pace: f64,
}

/// What the operator asks for, by id.
#[derive(Debug, Clone)]
pub struct Asked {
    pub recovery: String,
    pub finding: Option<String>,
}

/// Findings of a run: open ones, the likeliest first, then those that are over, the newest first.
fn findings(model: &RunModel) -> Vec<&Finding> {
    let over = model.findings.iter().rev().filter(|record| record.cleared.is_some());
    model.open_findings().into_iter().chain(over).map(|record| &record.finding).collect()
}

impl Asked {
    /// The finding of the run that it is for.
    pub fn resolve(&self, model: &RunModel) -> Result<First, Failure> {
        let of = |finding: &&&Finding| {
            self.finding.as_ref().is_none_or(|id| finding.id == *id)
                && Recovery::all_for(finding).iter().any(|offered| offered.id == self.recovery)
        };
        let found = findings(model).iter().find(of).map(|finding| (*finding).clone());
        // Some make sense without a finding: an operator sees what no log says.
        let wanted = || Recovery::wanted(&self.recovery).filter(|_| self.finding.is_none());
        let finding = found.or_else(wanted).ok_or_else(|| {
            let whose = self.finding.as_ref().map_or("any finding of this run".to_owned(), Clone::clone);
            Failure::usage(format!("the recovery {} is not offered for {whose}", self.recovery))
        })?;
        Ok(First { finding, recovery: self.recovery.clone() })
    }
}

pub async fn recover(state: Option<&Path>, args: RecoverArgs) -> Result<u8, Failure> {
    let opened = open(state, &args.run)?;
    let (dir, model) = (opened.dir.clone(), opened.model());
    let Some(recovery) = args.apply else {
        list(&model);
        return Ok(exit::DONE);
    };
    let asked = Asked { recovery, finding: args.finding };
    let first = asked.resolve(&model)?;
    let chosen = Recovery::all_for(&first.finding).into_iter().find(|offered| offered.id == first.recovery);
    let spec = load(&dir.join("cluster.toml"))?;
    let name = &spec.0.cluster.name;
    if let Some(chosen) = chosen.filter(|chosen| chosen.danger == Danger::Destroy)
        && args.confirm.as_ref() != Some(name)
    {
        return Err(Failure::usage(format!(
            "{} loses {}; say --confirm {name} to apply it. Nothing was touched",
            chosen.id, chosen.loses
        )));
    }
    #[cfg(feature = "lab")]
    let (file, pace): (Option<PathBuf>, f64) = (args.cloud, args.pace);
    #[cfg(not(feature = "lab"))]
    let (file, pace): (Option<PathBuf>, f64) = (None, 1.0);
    let cloud = cloud::open(file.as_deref(), &spec.0).await?;
    let session = Session {
        take_over: false,
        state,
        spec,
        cloud,
        pace,
        own_world: false,
        resume: Some(dir.to_string_lossy().into_owned()),
        from: None,
        until: Some(args.until.unwrap_or_else(|| super::session::LAST.to_owned())),
        recover: false,
        agreed: false,
        first: Some(asked),
        accept_host_key: None,
        front: args.front,
        upgrade: None,
    };
    session.drive().await
}

fn list(model: &RunModel) {
    let mut any = false;
    for record in model.open_findings() {
        for recovery in Recovery::all_for(&record.finding) {
            any = true;
            let danger = if recovery.danger == Danger::Destroy { ", destroys" } else { "" };
            println!("{}  {}", recovery.id, recovery.title);
            println!("    for {}: {}", record.finding.id, strip_control(&record.finding.title));
            println!("    loses {}{danger}", recovery.loses);
        }
    }
    if !any {
        println!("no open finding of this run offers a recovery");
    }
}
