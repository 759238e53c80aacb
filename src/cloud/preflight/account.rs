//! Who we are, what we may do, and which machines the region has.

use super::{Asker, Check, State, again};
use crate::cloud::blueprint::image_query;
use crate::cloud::{Class, Kind, permissions};
use crate::spec::{CredentialsMode, Spec};

/// The credentials, and this machine's clock: AWS refuses what is signed with another time.
pub(super) async fn identity(ask: &Asker<'_>) -> Vec<Check> {
    const CREDENTIALS: &str = "credentials";
    const CLOCK: &str = "this machine's clock";
    let arn = match again(|| ask.cloud.whoami()).await {
        Ok(arn) => arn,
        Err(error) => {
            let (what, needed) = match error.class {
                Class::Clock => (CLOCK, "within five minutes of AWS's"),
                _ => (CREDENTIALS, "an identity that AWS knows"),
            };
            return vec![Check::new(State::Fail, what, error.to_string(), needed, error.advice())];
        }
    };
    let mut checks = vec![
        Check::ok(CREDENTIALS, arn.clone(), "an identity that AWS knows"),
        Check::ok(CLOCK, "AWS took what was signed with it", "within five minutes of AWS's"),
    ];
    if arn.ends_with(":root") {
        let ask = "ask the account's owner for a user or role of your own: nobody can take rights from the root user";
        checks.push(Check::new(State::Warn, "root user", arn.clone(), "a user or a role", ask));
    }
    // openshift/cloud-credential-operator keeps them in the cluster, where nobody renews them.
    if arn.contains(":assumed-role/") && ask.spec.credentials_mode() != CredentialsMode::Manual {
        checks.push(Check::new(
            State::Warn,
            "temporary credentials",
            arn,
            "the keys of a user, for credentials.mode Mint or Passthrough",
            "ask the account's administrator for a user with keys, or set credentials.mode = \"Manual\"",
        ));
    }
    checks
}

/// Keeps the zones for what is asked later.
pub(super) async fn zones(ask: &mut Asker<'_>) -> Check {
    let region = &ask.spec.aws.region;
    let (what, wanted) = (format!("zones of {region}"), usize::from(ask.spec.network.zones));
    let needed = wanted.to_string();
    match again(|| ask.cloud.zones()).await {
        Ok(zones) if zones.len() < wanted => {
            let asked = format!("set network.zones to {} or take another region", zones.len());
            Check::new(
                State::Fail,
                what,
                format!("{region} offers {}: {}", zones.len(), zones.join(" ")),
                needed,
                asked,
            )
        }
        Ok(zones) => {
            let check = Check::ok(what, zones.join(" "), needed);
            ask.zones = zones_of_subnets(ask).await;
            if ask.zones.is_empty() {
                ask.zones = zones.into_iter().take(wanted).collect();
            }
            check
        }
        Err(error) => Check::new(State::Fail, what, error.to_string(), needed, error.advice()),
    }
}

/// Where the machines of a network that is there will stand.
async fn zones_of_subnets(ask: &Asker<'_>) -> Vec<String> {
    let mut zones = Vec::new();
    for id in ask.spec.network.existing.iter().flat_map(|network| &network.private_subnets) {
        // A subnet that is not there is spoken of where the network is looked at.
        let subnet = again(|| ask.cloud.get(Kind::Subnet, id)).await.ok();
        zones.extend(subnet.and_then(|subnet| subnet.property("AvailabilityZone").map(str::to_owned)));
    }
    zones
}

/// What IAM says of every action that would be called. It knows nothing of conditions, so only what is needed on
/// everything is held against the identity.
pub(super) async fn permissions(ask: &Asker<'_>) -> Check {
    let actions = permissions::needed_actions(ask.spec);
    let (what, needed) = ("permissions", format!("{} actions", actions.len()));
    let denials = match again(|| ask.cloud.denied(&actions)).await {
        Ok(denials) => denials,
        Err(error) => return Check::unknown(what, &error, needed),
    };
    let limited = |action: &str| {
        let groups = permissions::needed(ask.spec).filter(|group| group.actions.iter().any(|one| one == action));
        groups.into_iter().all(|group| !group.resources.is_empty())
    };
    let (maybe, surely): (Vec<_>, Vec<_>) = denials.iter().partition(|denial| limited(&denial.action));
    let list = |denials: &[&crate::cloud::Denial]| {
        denials.iter().map(|denial| format!("{} ({})", denial.action, denial.why)).collect::<Vec<_>>().join(", ")
    };
    let asked = "ask the account's administrator to attach the policies that `bartizan plan --permissions` prints";
    if surely.is_empty() {
        return match maybe.len() {
            0 => Check::ok(what, format!("none of {} is denied", actions.len()), needed),
            count => Check::new(State::Warn, what, format!("{count} may be denied: {}", list(&maybe)), needed, asked),
        };
    }
    let of_organization = surely.iter().any(|denial| denial.why.contains("service control policy"));
    let asked = match of_organization {
        true => {
            "ask whoever runs the AWS organization to lift the service control policy: no permission in the account \
                 helps against it"
        }
        false => asked,
    };
    let found = format!("{} of {} are denied: {}", surely.len(), actions.len(), list(&surely));
    Check::new(State::Fail, what, found, needed, asked)
}

/// A kind of machine that will run: type, key of the spec, how many at once, and what OpenShift wants of each.
pub(super) struct Machine<'a> {
    pub instance_type: &'a str,
    pub key: &'static str,
    pub count: u64,
    least_vcpus: u32,
    least_gib: u64,
    /// In every zone, not only in the first.
    everywhere: bool,
}

/// What an installation runs at the same time: the bootstrap machine is of the control plane's type.
pub(super) fn wanted(spec: &Spec) -> Vec<Machine<'_>> {
    let install = &spec.install;
    // A single node wants the double of what one of three does (OpenShift docs, "Requirements for installing on a single
    // node").
    let alone = install.control_plane_replicas == 1;
    let mut machines = vec![Machine {
        instance_type: &install.control_plane_type,
        key: "install.control_plane_type",
        count: u64::from(install.control_plane_replicas) + 1,
        least_vcpus: if alone { 8 } else { 4 },
        least_gib: 16,
        everywhere: true,
    }];
    if install.compute_replicas > 0 {
        machines.push(Machine {
            instance_type: &install.compute_type,
            key: "install.compute_type",
            count: u64::from(install.compute_replicas),
            least_vcpus: 2,
            least_gib: 8,
            everywhere: true,
        });
    }
    if spec.bastion.host.is_none() {
        machines.push(Machine {
            instance_type: &spec.bastion.instance_type,
            key: "bastion.instance_type",
            count: 1,
            least_vcpus: 2,
            least_gib: 4,
            everywhere: false,
        });
    }
    machines
}

/// Each type where it is needed, large enough, of the release's architecture. What is found is kept for the quotas.
pub(super) async fn machines(ask: &mut Asker<'_>) -> Vec<Check> {
    let spec = ask.spec;
    let mut checks = Vec::new();
    for machine in wanted(spec) {
        let what = format!("{} ({})", machine.instance_type, machine.key);
        let places = if machine.everywhere { ask.zones.len() } else { 1 };
        let zones: Vec<String> = ask.zones.iter().take(places).cloned().collect();
        let needed =
            format!("in {}, at least {} vCPUs and {} GiB", zones.join(" "), machine.least_vcpus, machine.least_gib);
        let offering = match ask.offering(machine.instance_type).await {
            Ok(offering) => offering,
            Err(error) if error.class == Class::Input => {
                checks.push(Check::new(State::Fail, what, error.to_string(), needed, error.advice()));
                continue;
            }
            Err(error) => {
                checks.push(Check::unknown(what, &error, needed));
                continue;
            }
        };
        let missing: Vec<&String> = zones.iter().filter(|zone| !offering.zones.contains(zone)).collect();
        let gib = offering.memory_mib / 1024;
        let found = format!("{} vCPUs, {gib} GiB, in {}", offering.vcpus, offering.zones.join(" "));
        // The bastion's tools are for both.
        let arch = if spec.release.arch == "aarch64" { "arm64" } else { "x86_64" };
        let wrong_arch = machine.everywhere && !offering.architectures.iter().any(|one| one == arch);
        let small = offering.vcpus < machine.least_vcpus || gib < machine.least_gib;
        checks.push(if !missing.is_empty() {
            let missing = missing.iter().map(|zone| zone.as_str()).collect::<Vec<_>>().join(" ");
            let asked = format!("take another type for {} or fewer zones: it is not offered in {missing}", machine.key);
            Check::new(State::Fail, what, found, needed, asked)
        } else if wrong_arch {
            let asked = format!("take a type of {arch} for {}: release.arch is {}", machine.key, spec.release.arch);
            Check::new(State::Fail, what, format!("{} only", offering.architectures.join(" ")), needed, asked)
        } else if small {
            let asked = format!("take a larger type for {}: it is below what OpenShift asks for", machine.key);
            Check::new(State::Warn, what, found, needed, asked)
        } else {
            Check::ok(what, found, needed)
        });
    }
    checks.extend(image(ask).await);
    checks
}

/// The bastion's image: whether it is there, and of which architecture.
async fn image(ask: &mut Asker<'_>) -> Option<Check> {
    if ask.spec.bastion.host.is_some() {
        return None;
    }
    let query = image_query(ask.spec);
    let (what, needed) = ("bastion's image", "an image of this region for the bastion's type");
    let image = match again(|| ask.cloud.image(&query)).await {
        Ok(image) => image,
        Err(error) if matches!(error.class, Class::NotFound | Class::Input) => {
            return Some(Check::new(State::Fail, what, error.to_string(), needed, error.advice()));
        }
        Err(error) => return Some(Check::unknown(what, &error, needed)),
    };
    let found = format!("{} {} of {}, {}", image.id, image.name, image.owner, image.architecture);
    let offering = ask.offering(&ask.spec.bastion.instance_type.clone()).await;
    Some(match offering {
        Ok(offering) if !offering.architectures.contains(&image.architecture) => {
            let asked = "take an image (bastion.ami) or a bastion.instance_type of the other architecture";
            Check::new(State::Fail, what, found, needed, asked)
        }
        _ => Check::ok(what, found, needed),
    })
}
