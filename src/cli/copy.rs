//! What the verbs that need no run ask of the copier: between which registries, and which images.

use std::path::{Path, PathBuf};

use super::Failure;
use crate::registry::agent::{Action, Request};
use crate::registry::auth;
use crate::registry::release::is_repository;
use crate::spec::Subset;

#[derive(Debug, clap::Args)]
pub struct CopyArgs {
    /// The release, quay.io/openshift-release-dev/ocp-release:4.18.12-x86_64 or by digest.
    #[arg(long, value_name = "PULLSPEC")]
    release: String,
    /// The mirror and the repository in it, as `oc adm release mirror --to`.
    #[arg(long, value_name = "HOST:PORT/REPOSITORY")]
    pub to: String,
    /// Logins for both sides (a pull secret, auth.json or config.json). Default: where podman and docker keep theirs.
    #[arg(long, short = 'a', value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// PEM file with CAs of the source, besides the system's.
    #[arg(long, value_name = "FILE")]
    source_ca: Vec<PathBuf>,
    /// PEM file with CAs of the mirror, besides the system's.
    #[arg(long, value_name = "FILE")]
    mirror_ca: Vec<PathBuf>,
    /// One more image, in the repository of the same name.
    #[arg(long, value_name = "PULLSPEC")]
    image: Vec<String>,
    /// SRC=DST lines of more images: of `oc image mirror -f`, or oc-mirror's dry-run/mapping.txt; `-` is standard input.
    #[arg(long, short = 'f', value_name = "FILE")]
    mapping: Option<PathBuf>,
    /// Architecture, when the release is a list of several.
    #[arg(long, default_value = "x86_64")]
    arch: String,
}

impl CopyArgs {
    /// The whole of it, six blobs at a time, with nothing written beside.
    ///
    /// # Errors
    /// When the place is none, or a file cannot be read.
    pub fn request(self, action: Action) -> Result<Request, Failure> {
        let (mirror, repository) = self.to.split_once('/').unwrap_or((&self.to, ""));
        if mirror.is_empty() || !is_repository(repository) {
            return Err(Failure::usage(format!("--to {}: expected HOST:PORT/REPOSITORY", self.to)));
        }
        let authfile = match self.authfile {
            Some(file) => file,
            None => auth::default_file(|name| std::env::var_os(name).map(PathBuf::from)).ok_or_else(|| {
                Failure::usage(
                    "no auth file where podman or docker keep theirs; name one with --authfile (a pull secret will do)",
                )
            })?,
        };
        let mapping = match &self.mapping {
            None => String::new(),
            Some(file) if file == Path::new("-") => std::io::read_to_string(std::io::stdin())
                .map_err(|error| Failure::usage(format!("reading standard input: {error}")))?,
            Some(file) => {
                std::fs::read_to_string(file).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?
            }
        };
        Ok(Request {
            action,
            source: self.release,
            arch: self.arch,
            mirror: mirror.to_owned(),
            release_repository: repository.to_owned(),
            component_repository: repository.to_owned(),
            release_tag: None,
            authfile,
            source_ca: self.source_ca,
            mirror_ca: self.mirror_ca,
            resolve: Vec::new(),
            jobs: 6,
            subset: Subset::All,
            additional: self.image,
            mapping: mapping.lines().map(str::to_owned).collect(),
            offline: false,
            skip: Vec::new(),
            skip_file: None,
            accept_incomplete: false,
            only: None,
            bandwidth: None,
            outputs: None,
        })
    }
}
