//! Facts of a run that more than one floor knows by name; those of the stages alone are in `stages::world::fact`.

/// The fingerprint that the bastion shows and nobody has said yes to.
pub const HOST_KEY_SHOWN: &str = "bastion.host-key-shown";
/// The fingerprint that the operator said yes to.
pub const HOST_KEY_ACCEPTED: &str = "bastion.host-key-accepted";
pub const INFRA_ID: &str = "install.infra-id";
pub const BOOTSTRAP_ADDRESS: &str = "bootstrap.address";
/// Where an installation that something else drives is watched: such a run is nobody's to go on with.
pub const WATCHED: &str = "watch.of";
