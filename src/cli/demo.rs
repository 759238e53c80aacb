//! The embedded lab as something to run: `demo` installs into it, `lab` only keeps it up.

#![cfg(feature = "lab")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::lab::world::{Lab, LabOptions};

use super::session::{Session, load};
use super::{Failure, Front, exit};

/// The lab itself.
#[derive(Debug, clap::Args)]
pub struct LabArgs {
    /// What goes wrong: happy, mirror-ca, missing-image, disk-full, link-drop, etcd-stuck, csr-pending.
    #[arg(long, default_value = "happy")]
    scenario: String,
    /// How many times faster than life.
    #[arg(long, default_value_t = 20.0, value_parser = speed)]
    speed: f64,
    /// Where the lab keeps everything; default a directory that is removed at the end.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Size of the release in megabytes.
    #[arg(long, default_value_t = 220)]
    payload_mb: u64,
}

#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    #[command(flatten)]
    lab: LabArgs,
    /// Who copies the release.
    #[arg(long, value_parser = ["bartizan", "oc-mirror", "oc-adm"])]
    engine: Option<String>,
    /// Apply recoveries that need no person.
    #[arg(long)]
    recover: bool,
    /// Say yes beforehand to whatever changes something and destroys nothing.
    #[arg(long, value_name = "CLASS")]
    yes: Option<super::session::Yes>,
    /// End after this stage; default 10-cleanup.
    #[arg(long, value_name = "STAGE")]
    until: Option<String>,
    #[command(flatten)]
    front: Front,
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if speed.is_finite() && (0.1..=1000.0).contains(&speed) => Ok(speed),
        _ => Err("give a number from 0.1 to 1000".to_owned()),
    }
}

/// A directory of the operator's choice, or one that goes away.
enum Place {
    Kept(PathBuf),
    Scratch(tempfile::TempDir),
}

impl Place {
    fn new(dir: Option<PathBuf>) -> Result<Self, Failure> {
        match dir {
            Some(dir) => Ok(Self::Kept(std::path::absolute(dir).map_err(Failure::other)?)),
            None => {
                tempfile::Builder::new().prefix("bartizan-lab-").tempdir().map(Self::Scratch).map_err(Failure::other)
            }
        }
    }
    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Scratch(scratch) => scratch.path(),
        }
    }
}

impl LabArgs {
    async fn start(self) -> Result<(Lab, Place), Failure> {
        let place = Place::new(self.dir)?;
        let options = LabOptions {
            dir: place.path().to_owned(),
            scenario: self.scenario,
            speed: self.speed,
            payload_mb: self.payload_mb,
        };
        let lab = Lab::start(options).await.map_err(|error| Failure::usage(error.to_string()))?;
        Ok((lab, place))
    }
}

pub async fn demo(state: Option<&Path>, args: DemoArgs) -> Result<u8, Failure> {
    let pace = args.lab.speed;
    let (lab, place) = args.lab.start().await?;
    if let Some(engine) = args.engine {
        let spec = std::fs::read_to_string(lab.spec_file()).map_err(Failure::other)?;
        let spec = spec.replace("[mirror]\n", &format!("[mirror]\nengine = \"{engine}\"\n"));
        std::fs::write(lab.spec_file(), spec).map_err(Failure::other)?;
    }
    let spec = load(&lab.spec_file())?;
    let cloud = crate::cloud::memory::MemoryCloud::open(lab.cloud_file()).map_err(Failure::other)?;
    let session = Session {
        state,
        spec,
        cloud: Some(Arc::new(cloud)),
        pace,
        own_world: true,
        resume: None,
        take_over: false,
        from: None,
        until: args.until,
        recover: args.recover,
        agreed: args.yes.is_some(),
        first: None,
        accept_host_key: None,
        front: args.front,
        upgrade: None,
    };
    let result = session.drive().await;
    lab.stop().await;
    drop(place);
    result
}

pub async fn lab(args: LabArgs) -> Result<u8, Failure> {
    let pace = args.speed;
    let (lab, place) = args.start().await?;
    println!("spec  {}", lab.spec_file().display());
    println!("cloud {}", lab.cloud_file().display());
    println!("bartizan run {} --cloud {} --pace {pace}", lab.spec_file().display(), lab.cloud_file().display());
    tokio::select! {
        () = lab.wait() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    lab.stop().await;
    drop(place);
    Ok(exit::DONE)
}
