//! What goes wrong in the lab, and when: `assets/scenarios/*.toml`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::OcpError;

const FILES: &[(&str, &str)] = &[
    ("happy", include_str!("../../../assets/scenarios/happy.toml")),
    ("mirror-ca", include_str!("../../../assets/scenarios/mirror-ca.toml")),
    ("missing-image", include_str!("../../../assets/scenarios/missing-image.toml")),
    ("disk-full", include_str!("../../../assets/scenarios/disk-full.toml")),
    ("link-drop", include_str!("../../../assets/scenarios/link-drop.toml")),
    ("etcd-stuck", include_str!("../../../assets/scenarios/etcd-stuck.toml")),
    ("csr-pending", include_str!("../../../assets/scenarios/csr-pending.toml")),
    ("bastion-hangs", include_str!("../../../assets/scenarios/bastion-hangs.toml")),
    ("disk-junk", include_str!("../../../assets/scenarios/disk-junk.toml")),
    ("mirror-account", include_str!("../../../assets/scenarios/mirror-account.toml")),
    ("mirror-name-lost", include_str!("../../../assets/scenarios/mirror-name-lost.toml")),
    ("mirror-port-closed", include_str!("../../../assets/scenarios/mirror-port-closed.toml")),
    ("assets-expired", include_str!("../../../assets/scenarios/assets-expired.toml")),
    ("machines-missing", include_str!("../../../assets/scenarios/machines-missing.toml")),
    ("unit-given-up", include_str!("../../../assets/scenarios/unit-given-up.toml")),
    ("pull-secret", include_str!("../../../assets/scenarios/pull-secret.toml")),
    ("quota-low", include_str!("../../../assets/scenarios/quota-low.toml")),
    ("registry-certificate", include_str!("../../../assets/scenarios/registry-certificate.toml")),
    ("registry-down", include_str!("../../../assets/scenarios/registry-down.toml")),
    ("mcs-unreachable", include_str!("../../../assets/scenarios/mcs-unreachable.toml")),
    ("dns-api-int", include_str!("../../../assets/scenarios/dns-api-int.toml")),
    ("clock-skew", include_str!("../../../assets/scenarios/clock-skew.toml")),
    ("operator-degraded", include_str!("../../../assets/scenarios/operator-degraded.toml")),
    ("worker-never-joins", include_str!("../../../assets/scenarios/worker-never-joins.toml")),
    ("installer-killed", include_str!("../../../assets/scenarios/installer-killed.toml")),
    ("bootstrap-reboot", include_str!("../../../assets/scenarios/bootstrap-reboot.toml")),
];

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    #[serde(skip)]
    pub name: String,
    /// One line for a menu.
    pub title: String,
    /// For people: what happens, and what helps.
    pub description: String,
    pub expect: Expect,
    #[serde(default, rename = "twist")]
    pub twists: Vec<Twist>,
}

/// Exit codes of `bartizan demo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Left alone.
    pub exit: u8,
    /// With `--recover`; the same when left out.
    pub recovered: Option<u8>,
}

/// One thing that goes wrong, once in the life of a lab.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Twist {
    pub when: Moment,
    #[serde(flatten)]
    pub act: Act,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Moment {
    /// The lab is up, and nothing was asked of it yet.
    Beginning,
    /// The first upload reaches the mirror.
    SyncStarted,
    /// Two fifths of the release's bytes are in the mirror.
    SyncAt40Percent,
    /// `openshift-install create cluster` is about to begin.
    ClusterAsked,
    /// `openshift-install create cluster` made the bootstrap machine.
    InstallStarted,
    /// bootkube.sh began this stage for the first time.
    EtcdBootstrap,
    /// `kube-system/bootstrap` says complete.
    BootstrapComplete,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Act {
    /// Delete one image of the release from the mirror.
    #[serde(rename = "mirror.delete")]
    MirrorDelete { image: String },
    /// A new certificate for the mirror, by another CA whose file takes the place of the old one.
    #[serde(rename = "mirror.reissue-certificate")]
    MirrorReissue,
    /// The bastion's disk has room for this part of the release's bytes.
    #[serde(rename = "disk.limit")]
    DiskLimit { room_percent: u64 },
    /// SSH connections die, and none can be made.
    #[serde(rename = "link.drop")]
    LinkDrop { host: String, seconds: u64 },
    /// The third etcd member never becomes healthy.
    #[serde(rename = "etcd.stuck")]
    EtcdStuck,
    /// No one approves the workers' certificate requests.
    #[serde(rename = "csr.hold")]
    CsrHold,
    /// The mirror registry is stopped.
    #[serde(rename = "registry.stop")]
    RegistryStop,
    /// The mirror serves a certificate of a CA that nobody trusts; the CA's file stays as it was.
    #[serde(rename = "registry.foreign-certificate")]
    ForeignCertificate,
    /// The mirror's accounts are overwritten.
    #[serde(rename = "registry.forget-accounts")]
    ForgetAccounts,
    /// An abandoned upload takes the room that the release needs.
    #[serde(rename = "disk.junk")]
    DiskJunk,
    /// The bastion answers nobody until it is started again.
    #[serde(rename = "bastion.hang")]
    BastionHang,
    /// The bastion's security group loses its rule for the mirror's port.
    #[serde(rename = "bastion.close-port")]
    ClosePort,
    /// The mirror's name loses its record.
    #[serde(rename = "bastion.lose-name")]
    LoseName,
    /// The mirror's login is taken out of the install-config.
    #[serde(rename = "install-config.strip-login")]
    StripLogin,
    /// The assets lie for two days before the cluster is made of them.
    #[serde(rename = "assets.expire")]
    AssetsExpire,
    /// EC2 has no machines for the control plane, once.
    #[serde(rename = "machines.none")]
    MachinesNone,
    /// bootkube dies, and systemd gives it up.
    #[serde(rename = "bootkube.give-up")]
    BootkubeGivenUp,
    /// A quota is too low for so many seconds.
    #[serde(rename = "quota.low")]
    QuotaLow { code: String, value: f64, seconds: u64 },
    /// The rule for a port is taken out of the security group `<infraID>-<group>`.
    #[serde(rename = "group.revoke")]
    GroupRevoke { group: String, port: u16 },
    /// A name of the cluster loses its record in the private zone, or leads to this address from now on.
    #[serde(rename = "dns.change")]
    DnsChange { host: String, address: Option<String> },
    /// The clock of a machine is off by so much; behind when negative.
    #[serde(rename = "clock.set")]
    ClockSet { host: String, seconds: i64 },
    /// The VPC endpoint of a service (`s3`) is deleted.
    #[serde(rename = "endpoint.delete")]
    EndpointDelete { service: String },
    /// A quota (`ec2/L-1216C47A`) is so low from now on.
    #[serde(rename = "quota.set")]
    QuotaSet { code: String, value: f64 },
    /// SIGKILL for `openshift-install create cluster`.
    #[serde(rename = "installer.kill")]
    InstallerKill,
    /// Somebody resets the bootstrap machine.
    #[serde(rename = "bootstrap.reset")]
    BootstrapReset,
}

impl Scenario {
    pub fn names() -> impl Iterator<Item = &'static str> {
        FILES.iter().map(|(name, _)| *name)
    }

    pub fn named(name: &str) -> Result<Self, OcpError> {
        let (name, text) = FILES
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| OcpError::Scenario(format!("no scenario is called {name:?}; there are {}", list())))?;
        Self::parse(name, text)
    }

    fn parse(name: &str, text: &str) -> Result<Self, OcpError> {
        let mut scenario: Self =
            toml::from_str(text).map_err(|why| OcpError::Scenario(format!("assets/scenarios/{name}.toml: {why}")))?;
        scenario.name = name.into();
        Ok(scenario)
    }

    /// The exit code to expect.
    pub fn exit(&self, recover: bool) -> u8 {
        if recover { self.expect.recovered.unwrap_or(self.expect.exit) } else { self.expect.exit }
    }

    pub fn has(&self, act: &Act) -> bool {
        self.twists.iter().any(|twist| twist.act == *act)
    }
}

fn list() -> String {
    Scenario::names().collect::<Vec<_>>().join(", ")
}

/// Which twists have happened. A twist happens once, also over a restart of the lab.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Happened(BTreeMap<usize, bool>);

impl Happened {
    /// The twists that are due at `moment` for the first time.
    pub fn due<'a>(&mut self, scenario: &'a Scenario, moment: &Moment) -> Vec<&'a Twist> {
        let due: Vec<_> = scenario
            .twists
            .iter()
            .enumerate()
            .filter(|(index, twist)| twist.when == *moment && !self.0.contains_key(index))
            .collect();
        due.into_iter()
            .map(|(index, twist)| {
                self.0.insert(index, true);
                twist
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_valid_and_every_file_is_one() {
        let mut files: Vec<String> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/scenarios"))
            .unwrap()
            .map(|file| file.unwrap().file_name().to_string_lossy().replace(".toml", ""))
            .collect();
        let mut names: Vec<String> = Scenario::names().map(str::to_owned).collect();
        files.sort();
        names.sort();
        assert_eq!(files, names);
        let payload = super::super::payload::Payload::make("4.18.12", "x86_64", 1, None).unwrap();
        for name in Scenario::names() {
            let scenario = Scenario::named(name).unwrap();
            assert!(!scenario.title.is_empty() && scenario.description.len() > 40, "{name}");
            assert_eq!(scenario.twists.is_empty(), name == "happy");
            for twist in &scenario.twists {
                match &twist.act {
                    Act::MirrorDelete { image } => assert!(payload.component(image).is_some(), "{name}: {image}"),
                    Act::DiskLimit { room_percent } => assert!((1..100).contains(room_percent)),
                    Act::LinkDrop { seconds, .. } => assert!(*seconds > 0),
                    Act::QuotaLow { seconds, value, .. } => assert!(*seconds > 0 && *value >= 0.0),
                    Act::DnsChange { host, .. } => assert!(["api", "api-int"].contains(&host.as_str())),
                    Act::ClockSet { seconds, .. } => assert_ne!(*seconds, 0),
                    Act::QuotaSet { code, value } => assert!(code.starts_with("ec2/L-") && *value > 0.0),
                    // They say nothing that could be wrong.
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn a_twist_happens_once() {
        let scenario = Scenario::named("link-drop").unwrap();
        let mut happened = Happened::default();
        assert_eq!(happened.due(&scenario, &Moment::SyncAt40Percent).len(), 1);
        assert_eq!(happened.due(&scenario, &Moment::SyncAt40Percent).len(), 0);
    }

    #[test]
    fn a_mistake_names_the_file() {
        let wrong = Scenario::parse(
            "x",
            "title = \"a\"\ndescription = \"b\"\nexpect = { exit = 0 }\n[[twist]]\nwhen = \"never\"\ndo = \"etcd.stuck\"\n",
        );
        assert!(wrong.unwrap_err().to_string().contains("assets/scenarios/x.toml"));
    }
}
