//! `bartizan edge`: the manifests of a site without a helper machine, into a folder that `install.manifests` may name.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::stages::edge;

use super::{Failure, exit, session};

#[derive(Debug, clap::Args)]
pub struct EdgeArgs {
    #[arg(default_value = "cluster.toml")]
    pub file: PathBuf,
    /// The folder; made when it is not there.
    #[arg(long, short, default_value = "manifests", value_name = "DIR")]
    pub output: PathBuf,
}

pub fn run(args: &EdgeArgs) -> Result<u8, Failure> {
    let (spec, _) = session::load(&args.file)?;
    let (rendered, ca) = edge::render(&spec).map_err(|error| Failure::usage(error.causes.join(": ")))?;
    let failed = |path: &Path, error: std::io::Error| Failure::other(format!("writing {}: {error}", path.display()));
    std::fs::create_dir_all(&args.output).map_err(|error| failed(&args.output, error))?;
    for one in &rendered {
        let path = args.output.join(&one.name);
        // One of them holds the key of the registry.
        let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(one.text.reveal().as_bytes())).map_err(|error| failed(&path, error))?;
        println!("{}", path.display());
    }
    if let Some(ca) = ca {
        let path = args.output.join("edge-registry-ca.pem");
        std::fs::write(&path, ca).map_err(|error| failed(&path, error))?;
        println!("{} (for additionalTrustBundle, and for whoever pushes)", path.display());
    }
    eprintln!("warning: {}", edge::WARNING);
    Ok(exit::DONE)
}
