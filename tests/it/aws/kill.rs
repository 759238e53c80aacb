//! Killed at every changing call, the real program comes to one set of everything, and a cleanup that is killed as often to
//! none. Somebody else's things, with tags that are nearly ours, stay as they are.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bartizan::model::event::{Data, Event};
use bartizan::record::read_events;
use tokio::process::Command;

use super::census::{Account, made};
use super::moto::Moto;
use super::proxy::{Ended, Moment, Proxy};
use crate::host::Sshd;

/// What the bastion runs.
pub(super) const IMAGES: &str = r#"[{"ami_id": "ami-0123456789abcdef0", "name": "al2023-ami-2023.6.20250303.0-kernel-6.1-x86_64",
    "description": "Amazon Linux 2023", "owner_id": "137112412989", "public": true, "virtualization_type": "hvm",
    "architecture": "x86_64", "state": "available", "platform": null, "image_type": "machine", "hypervisor": "xen",
    "root_device_name": "/dev/xvda", "root_device_type": "ebs", "sriov": "simple",
    "creation_date": "2025-03-03T00:00:00.000Z"}]"#;

/// Kill points at work at once. Most of their time is waiting.
const AT_ONCE: usize = 6;

/// More lines of some sections of the spec.
#[derive(Debug, Clone, Copy)]
pub(super) struct More<'t> {
    pub network: &'t str,
    pub bastion: &'t str,
    pub mirror: &'t str,
}

impl Default for More<'_> {
    fn default() -> Self {
        // Nothing has to be installed on the machine.
        Self { network: "", bastion: "", mirror: "runtime = \"binary\"" }
    }
}

/// One account, one state directory, one spec.
pub(super) struct World {
    dir: tempfile::TempDir,
    pub proxy: Proxy,
    pub account: Account,
}

impl World {
    fn account_number(number: usize) -> String {
        format!("{:012}", 100_000_000_000 + number)
    }

    pub async fn new(moto: &str, number: usize, sshd: &Sshd) -> Self {
        Self::with(moto, number, sshd, More::default()).await
    }

    pub async fn with(moto: &str, number: usize, sshd: &Sshd, more: More<'_>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let account = Self::account_number(number);
        let proxy = Proxy::start(moto, &account).await;
        proxy.on_loopback(&sshd.host_key());
        write(dir.path(), "pull-secret.json", r#"{"auths": {"quay.io": {"auth": "bGFiOnNlY3JldC1vZi10aGUtbGFi"}}}"#);
        let identity = sshd.identity();
        let More { network, bastion, mirror } = more;
        let spec = format!(
            "[cluster]\nname = \"edge-lab\"\nbase_domain = \"example.com\"\n\n[release]\nversion = \"4.18.12\"\n\n\
             [aws]\nregion = \"us-east-2\"\n\n[network]\n{network}\n\n\
             [bastion]\n{bastion}\nport = {}\nuser = {:?}\nidentity_file = {identity:?}\noperator_cidr = \"127.0.0.1/32\"\n\
             ami = \"ami-0123456789abcdef0\"\n\n\
             [credentials]\npull_secret = \"pull-secret.json\"\nssh_public_key = {:?}\n\n\
             [mirror]\n{mirror}\nhost = \"registry.edge-lab.example.com\"\n",
            sshd.port(),
            crate::host::user(),
            identity.with_extension("pub"),
        );
        write(dir.path(), "cluster.toml", &spec);
        let account = Account::new(moto, &account);
        account.bystander("20260101-000000-beef").await;
        Self { dir, proxy, account }
    }

    pub fn state(&self) -> std::path::PathBuf {
        self.dir.path().join("state")
    }

    pub fn bartizan(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bartizan"));
        command
            .arg("--state")
            .arg(self.state())
            .args(args)
            .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "example")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .current_dir(self.dir.path());
        command
    }

    pub async fn install(&self, resume: bool, kill: Option<(usize, Moment)>) -> Ended {
        self.install_until("02", resume, kill).await
    }

    async fn install_until(&self, until: &str, resume: bool, kill: Option<(usize, Moment)>) -> Ended {
        let file = self.dir.path().join("cluster.toml");
        let mut args = vec!["run", file.to_str().unwrap(), "--until", until, "--plain"];
        if resume {
            args.extend(["--resume", "last"]);
        }
        self.proxy.drive(&mut self.bartizan(&args), kill).await
    }

    /// The newest run.
    pub fn run(&self) -> String {
        let runs = std::fs::read_dir(self.state().join("runs")).unwrap();
        let runs = runs.map(|run| run.unwrap().file_name().to_string_lossy().into_owned());
        runs.max().expect("a run")
    }

    /// Go on with the newest run, whatever its end, with more arguments.
    pub async fn resume(&self, more: &[&str]) -> Ended {
        let (file, run) = (self.dir.path().join("cluster.toml"), self.run());
        let args = ["run", file.to_str().unwrap(), "--until", "02", "--plain", "--resume", &run];
        self.proxy.drive(&mut self.bartizan(&[&args, more].concat()), None).await
    }

    pub fn events(&self) -> Vec<Event> {
        read_events(&self.state().join("runs").join(self.run()).join("run.jsonl")).unwrap()
    }

    /// Signatures of the findings that were opened, and of those that were cleared.
    pub fn findings(&self) -> (Vec<String>, Vec<String>) {
        let (mut opened, mut cleared) = (BTreeMap::new(), Vec::new());
        for event in self.events() {
            match event.data {
                Data::FindingOpened { finding } => {
                    opened.insert(finding.id, finding.signature);
                }
                Data::FindingCleared { finding, .. } => cleared.extend(opened.get(&finding).cloned()),
                _ => {}
            }
        }
        (opened.into_values().collect(), cleared)
    }

    /// Machines of ours that are not terminated.
    pub async fn machines(&self) -> Vec<String> {
        let ours = format!("DescribeInstances&Filter.1.Name=tag:bartizan.run&Filter.1.Value.1={}", self.run());
        let text = self.account.ec2(&ours).await;
        let pieces = text.split("<instanceId>").skip(1).filter(|piece| !piece.contains("<name>terminated</name>"));
        pieces.filter_map(|piece| Some(piece.split_once('<')?.0.to_owned())).collect()
    }

    pub async fn status(&self) -> Ended {
        self.proxy.drive(&mut self.bartizan(&["status", "last", "--cloud"]), None).await
    }

    pub async fn cleanup(&self, kill: Option<(usize, Moment)>) -> Ended {
        self.proxy.drive(&mut self.bartizan(&["cleanup", "last", "--confirm", "edge-lab", "--plain"]), kill).await
    }
}

/// The machine that every bastion is, with a home of its own.
pub(super) fn sshd(home: &Path) -> Sshd {
    Sshd::with_environment(&[("HOME", home.to_str().unwrap())])
}

fn write(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join(name), text).unwrap();
}

pub(super) fn ended_well(ended: &Ended, what: &str) -> Result<(), String> {
    if ended.status.success() {
        return Ok(());
    }
    let last: Vec<&str> = ended.output.lines().rev().take(12).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    Err(format!("{what} ended with {}:\n{}", ended.status, last.join("\n")))
}

/// A network, and at which of its calls the process is killed.
struct Variant {
    name: &'static str,
    network: &'static str,
    until: &'static str,
    /// Only at those that no other variant has; none: at every one.
    only: &'static [&'static str],
}

const VARIANTS: [Variant; 4] = [
    Variant { name: "disconnected", network: "", until: "02", only: &[] },
    Variant {
        name: "private, with NAT",
        network: "variant = \"private\"",
        until: "01",
        only: &["ec2:AllocateAddress", "ec2:CreateNatGateway", "ec2:DeleteNatGateway", "ec2:ReleaseAddress"],
    },
    Variant {
        name: "proxy",
        network: "variant = \"proxy\"",
        until: "01",
        only: &["ec2:CreateVpcEndpoint", "ec2:DeleteVpcEndpoints"],
    },
    Variant {
        name: "existing",
        network: "[network.existing]\nvpc_id = \"VPC\"\nprivate_subnets = [\"SUBNET\"]\n\
                  add_endpoints = [\"s3\", \"ec2\", \"elasticloadbalancing\", \"sts\"]",
        until: "01",
        only: &["ec2:CreateSecurityGroup", "ec2:AuthorizeSecurityGroupIngress", "ec2:DeleteSecurityGroup"],
    },
];

impl Variant {
    async fn world(&self, moto: &str, number: usize, sshd: &Sshd) -> World {
        let account = Account::new(moto, &World::account_number(number));
        let mut network = self.network.to_owned();
        if network.contains("VPC") {
            let (vpc, subnet) = account.network().await;
            network = network.replace("VPC", &vpc).replace("SUBNET", &subnet);
        }
        World::with(moto, number, sshd, More { network: &network, ..More::default() }).await
    }

    /// The calls of a run at which to die, by their number.
    fn points(&self, changes: &[String]) -> Vec<(usize, Moment)> {
        // `KILL_AT=7,12` looks at these calls only.
        let only = std::env::var("KILL_AT").ok();
        let chosen = |call: usize| only.as_ref().is_none_or(|list| list.split(',').any(|one| *one == call.to_string()));
        let new = |call: &String| self.only.is_empty() || self.only.contains(&call.as_str());
        let calls = changes.iter().enumerate().filter(|(_, call)| new(call)).map(|(number, _)| number + 1);
        calls.filter(|call| chosen(*call)).flat_map(|call| [(call, Moment::Before), (call, Moment::After)]).collect()
    }
}

/// A kill of the installation, and one of the cleanup after it.
type Point = [Option<(usize, Moment)>; 2];

/// What the kills came to: the calls that they hit, and what was wrong afterwards.
struct Outcome {
    variant: usize,
    point: Point,
    killed: [Option<String>; 2],
    wrong: Option<String>,
}

async fn killed(world: &World, until: &str, point: Point, one_set: &BTreeMap<&'static str, usize>) -> Outcome {
    let before = world.account.census().await;
    let mut killed = [None, None];
    let wrong = async {
        let first = world.install_until(until, false, point[0]).await;
        killed[0] = first.killed_at.clone();
        if first.killed_at.is_none() {
            ended_well(&first, "the undisturbed run")?;
        } else {
            ended_well(&world.install_until(until, true, None).await, "the resumed run")?;
        }
        let after = world.account.census().await;
        let set = made(&before, &after);
        if set != *one_set {
            return Err(format!("{set:?} stand, not {one_set:?}"));
        }
        let first = world.cleanup(point[1]).await;
        killed[1] = first.killed_at.clone();
        if first.killed_at.is_none() {
            ended_well(&first, "the undisturbed cleanup")?;
        } else {
            ended_well(&world.cleanup(None).await, "the repeated cleanup")?;
        }
        let left = world.account.census().await;
        if left != before {
            return Err(format!("left: {:?}; lost: {:?}", made(&before, &left), made(&left, &before)));
        }
        match world.proxy.refused() {
            refused if refused.is_empty() => Ok(()),
            refused => Err(format!("calls that are not known: {refused:?}")),
        }
    };
    let wrong = wrong.await.err();
    Outcome { variant: 0, point, killed, wrong }
}

#[test]
fn at_every_changing_call_it_comes_to_one_set_and_then_to_none() {
    let _alone = crate::whole::ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(every_point());
}

async fn every_point() {
    let moto = Moto::with_images(IMAGES).await;
    let home = tempfile::tempdir().unwrap();
    let sshd = Arc::new(sshd(home.path()));
    let url = moto.url().to_owned();
    // What each variant makes when nobody disturbs it, and where it can be killed.
    let mut sets = Vec::new();
    let mut points: Vec<(usize, Point)> = Vec::new();
    for (number, variant) in VARIANTS.iter().enumerate() {
        let world = variant.world(&url, number, &sshd).await;
        let before = world.account.census().await;
        let run = world.install_until(variant.until, false, None).await;
        ended_well(&run, variant.name).unwrap_or_else(|wrong| panic!("{wrong}"));
        let one_set = made(&before, &world.account.census().await);
        let least: &[&str] = match number {
            0 => &["vpc", "internet-gateway", "subnet", "security-group", "vpc-endpoint", "instance", "hosted-zone"],
            1 => &["vpc", "nat-gateway", "elastic-ip"],
            _ => &["vpc-endpoint", "security-group"],
        };
        assert!(least.iter().all(|kind| one_set.contains_key(kind)), "{}: {one_set:?}", variant.name);
        let cleanup = world.cleanup(None).await;
        ended_well(&cleanup, "the cleanup").unwrap_or_else(|wrong| panic!("{}: {wrong}", variant.name));
        assert_eq!(made(&before, &world.account.census().await), BTreeMap::new(), "{}", variant.name);
        let [first, second] = [&run, &cleanup].map(|ended| variant.points(&ended.changes));
        println!("{}: {} kills of the installation, {} of the cleanup", variant.name, first.len(), second.len());
        let pairs = (0..first.len().max(second.len())).map(|at| [first.get(at).copied(), second.get(at).copied()]);
        points.extend(pairs.map(|point| (number, point)));
        sets.push(one_set);
    }

    let next = Arc::new(AtomicUsize::new(0));
    let (sets, points) = (Arc::new(sets), Arc::new(points));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let (next, url, sets, sshd, points) = (next.clone(), url.clone(), sets.clone(), sshd.clone(), points.clone());
        workers.spawn(async move {
            let mut outcomes = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some((at, point)) = points.get(number).copied() else { return outcomes };
                let variant = &VARIANTS[at];
                let world = variant.world(&url, VARIANTS.len() + number, &sshd).await;
                let outcome = killed(&world, variant.until, point, &sets[at]).await;
                outcomes.push((number, Outcome { variant: at, ..outcome }));
            }
        });
    }
    let mut outcomes: Vec<(usize, Outcome)> = workers.join_all().await.into_iter().flatten().collect();
    outcomes.sort_by_key(|(number, _)| *number);
    for (_, outcome) in &outcomes {
        let shown = |side: usize| {
            let call = outcome.killed[side].as_deref().unwrap_or("-");
            match outcome.point[side] {
                Some((number, moment)) => format!("{:<6} {number:>2} {call}", format!("{moment:?}")),
                None => "-".to_owned(),
            }
        };
        let came_to = outcome.wrong.as_deref().unwrap_or("one set, then none");
        println!("{:<18} {:<48} {:<48} {came_to}", VARIANTS[outcome.variant].name, shown(0), shown(1));
    }
    let wrong = outcomes.iter().filter(|(_, outcome)| outcome.wrong.is_some()).count();
    assert_eq!(wrong, 0, "of {} points", outcomes.len());
}
