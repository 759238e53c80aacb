//! What is asked of a cloud before anything is made in it, and what it answers.

use serde::{Deserialize, Serialize};

use crate::spec::Secret;

/// Which image to look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageQuery {
    /// By its id, whoever made it.
    Id(String),
    /// The newest one of a maker.
    Newest {
        /// Account id of the maker, `137112412989`. An image of another owner is never taken, whatever its name.
        owner: String,
        /// With wildcards, `al2023-ami-2023.*-kernel-6.1-x86_64`.
        name: String,
        /// `x86_64` or `arm64`, as EC2 says it.
        architecture: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// `ami-0123456789abcdef0`
    pub id: String,
    pub name: String,
    /// Account id.
    pub owner: String,
    pub architecture: String,
    /// `/dev/xvda`, `/dev/sda1`
    pub root_device: String,
    /// Least size of the root disk, GiB.
    pub root_gib: u32,
}

/// Where an instance type is to be had, and what it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offering {
    /// Zones of the region, sorted; empty when the region does not offer it.
    pub zones: Vec<String>,
    pub vcpus: u32,
    pub memory_mib: u64,
    /// `x86_64`, `arm64`
    pub architectures: Vec<String>,
}

/// An action that this identity may not do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// `ec2:CreateVpc`
    pub action: String,
    /// `no policy allows it`, `a policy denies it`, `a service control policy denies it` …
    pub why: String,
}

/// What still uses a VPC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocker {
    /// `network-interface`, `vpc-endpoint`, `security-group`, `subnet`, `load-balancer`, `nat-gateway`, `instance` …
    pub what: String,
    pub id: String,
    /// Its name, or for an interface whose it is: `ELB net/edge-lab-int/50dc6c495c0c9188`.
    pub name: String,
}

/// What a machine calls AWS with.
#[derive(Debug, Clone)]
pub struct AccessKey {
    pub id: String,
    /// Told once, when the key is made.
    pub secret: Secret,
}

impl std::fmt::Display for Blocker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.what, self.id)?;
        if self.name.is_empty() { Ok(()) } else { write!(f, " ({})", self.name) }
    }
}
