//! How a VPC's block is cut. Arithmetic only.
//!
//! The layout of openshift/release's step `aws-provision-vpc-disconnected`: sixteenths, public ones 0 to 2, private ones 3
//! to 5, so that a network can grow from one zone to three without moving.

use super::cidr::Cidr;
use super::{NetworkVariant, Spec};

/// Blocks by zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnets {
    pub public: Vec<Cidr>,
    pub private: Vec<Cidr>,
}

/// A sixteenth has four more bits.
const BITS: u8 = 4;
/// Private subnets begin after the public ones of three zones.
const FIRST_PRIVATE: u32 = 3;
/// AWS keeps the first four addresses of a subnet and the last one (VPC user guide, "Subnet CIDR blocks").
const KEPT: u64 = 5;

fn size(prefix: u32) -> u64 {
    32u32.checked_sub(prefix).map_or(0, |bits| (1u64 << bits).saturating_sub(KEPT))
}

/// Addresses that can be given out in a subnet.
pub fn free(subnet: &Cidr) -> u64 {
    size(u32::from(subnet.prefix()))
}

/// The same for one of the subnets of a VPC with this block.
pub fn usable(block: &Cidr) -> u64 {
    size(u32::from(block.prefix()) + u32::from(BITS))
}

/// The subnets of a VPC; `None` when the block is too small to be cut.
pub fn subnets(block: &Cidr, zones: u8) -> Option<Subnets> {
    let prefix = block.prefix().checked_add(BITS)?;
    let cut = |first: u32| -> Option<Vec<Cidr>> {
        (0..u32::from(zones)).map(|zone| block.subnet(prefix, first + zone)).collect()
    };
    Some(Subnets { public: cut(0)?, private: cut(FIRST_PRIVATE)? })
}

/// Addresses that the fullest private subnet needs: its machines, one for each endpoint, and the load balancers of API and
/// routers, which want eight free ones each (Elastic Load Balancing user guide).
pub fn needed(spec: &Spec) -> u64 {
    const BALANCERS: u64 = 16;
    const BOOTSTRAP: u64 = 1;
    let zones = u64::from(spec.network.zones.max(1));
    let of_zone = |machines: u8| u64::from(machines).div_ceil(zones);
    let endpoints = match spec.network.variant {
        NetworkVariant::Disconnected => 3,
        NetworkVariant::Private | NetworkVariant::Proxy => 0,
    } + u64::try_from(spec.network.extra_endpoints.len()).unwrap_or(u64::MAX);
    let machines = of_zone(spec.install.control_plane_replicas) + of_zone(spec.install.compute_replicas);
    (machines + BOOTSTRAP + BALANCERS).saturating_add(endpoints)
}
