//! Killed at every changing call, the real program comes to one set of everything, and a cleanup that is killed as often to
//! none. Somebody else's things, with tags that are nearly ours, stay as they are.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::process::Command;

use super::census::{Account, made};
use super::moto::Moto;
use super::proxy::{Ended, Moment, Proxy};
use crate::host::Sshd;

/// What the bastion runs.
const IMAGES: &str = r#"[{"ami_id": "ami-0123456789abcdef0", "name": "al2023-ami-2023.6.20250303.0-kernel-6.1-x86_64",
    "description": "Amazon Linux 2023", "owner_id": "137112412989", "public": true, "virtualization_type": "hvm",
    "architecture": "x86_64", "state": "available", "platform": null, "image_type": "machine", "hypervisor": "xen",
    "root_device_name": "/dev/xvda", "root_device_type": "ebs", "sriov": "simple",
    "creation_date": "2025-03-03T00:00:00.000Z"}]"#;

/// Kill points at work at once. Most of their time is waiting.
const AT_ONCE: usize = 6;

/// One account, one state directory, one spec.
struct World {
    dir: tempfile::TempDir,
    proxy: Proxy,
    account: Account,
}

impl World {
    async fn new(moto: &str, number: usize, sshd: &Sshd) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let account = format!("{:012}", 100_000_000_000 + number);
        let proxy = Proxy::start(moto, &account).await;
        proxy.on_loopback(&sshd.host_key());
        write(dir.path(), "pull-secret.json", r#"{"auths": {"quay.io": {"auth": "bGFiOnNlY3JldC1vZi10aGUtbGFi"}}}"#);
        let identity = sshd.identity();
        let spec = format!(
            "[cluster]\nname = \"edge-lab\"\nbase_domain = \"example.com\"\n\n[release]\nversion = \"4.18.12\"\n\n\
             [aws]\nregion = \"us-east-2\"\n\n\
             [bastion]\nport = {}\nuser = {:?}\nidentity_file = {identity:?}\noperator_cidr = \"127.0.0.1/32\"\n\
             ami = \"ami-0123456789abcdef0\"\nworkdir = {:?}\n\n\
             [credentials]\npull_secret = \"pull-secret.json\"\nssh_public_key = {:?}\n\n\
             [mirror]\nhost = \"registry.edge-lab.example.com\"\n",
            sshd.port(),
            crate::host::user(),
            dir.path().join("work"),
            identity.with_extension("pub"),
        );
        write(dir.path(), "cluster.toml", &spec);
        let account = Account::new(moto, &account);
        account.bystander("20260101-000000-beef").await;
        Self { dir, proxy, account }
    }

    fn bartizan(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bartizan"));
        command
            .arg("--state")
            .arg(self.dir.path().join("state"))
            .args(args)
            .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "example")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .current_dir(self.dir.path());
        command
    }

    async fn install(&self, resume: bool, kill: Option<(usize, Moment)>) -> Ended {
        let mut args = vec!["run", "cluster.toml", "--until", "02", "--plain"];
        if resume {
            args.extend(["--resume", "last"]);
        }
        self.proxy.drive(&mut self.bartizan(&args), kill).await
    }

    async fn cleanup(&self, kill: Option<(usize, Moment)>) -> Ended {
        self.proxy.drive(&mut self.bartizan(&["cleanup", "last", "--confirm", "edge-lab", "--plain"]), kill).await
    }
}

fn write(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join(name), text).unwrap();
}

fn ended_well(ended: &Ended, what: &str) -> Result<(), String> {
    if ended.status.success() {
        return Ok(());
    }
    let last: Vec<&str> = ended.output.lines().rev().take(12).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    Err(format!("{what} ended with {}:\n{}", ended.status, last.join("\n")))
}

/// What one kill came to: the call that it hit, and what was wrong afterwards.
struct Outcome {
    killed: [Option<String>; 2],
    wrong: Option<String>,
}

/// Killed at a call of the installation and, of the cleanup, at the call of the same number.
async fn killed(world: &World, at: (usize, Moment), one_set: &BTreeMap<&'static str, usize>) -> Outcome {
    let before = world.account.census().await;
    let mut killed = [None, None];
    let wrong = async {
        let first = world.install(false, Some(at)).await;
        killed[0] = first.killed_at.clone();
        if first.killed_at.is_none() {
            ended_well(&first, "the undisturbed run")?;
        } else {
            ended_well(&world.install(true, None).await, "the resumed run")?;
        }
        let after = world.account.census().await;
        let set = made(&before, &after);
        if set != *one_set {
            return Err(format!("{set:?} stand, not {one_set:?}"));
        }
        let first = world.cleanup(Some(at)).await;
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
    Outcome { killed, wrong }
}

#[ignore = "until stages 01 and 02 reach AWS"]
#[test]
fn at_every_changing_call_it_comes_to_one_set_and_then_to_none() {
    let _alone = crate::whole::ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(every_point());
}

async fn every_point() {
    let moto = Moto::with_images(IMAGES).await;
    let sshd = Sshd::start();
    // What a run makes that nobody disturbs.
    let world = World::new(moto.url(), 0, &sshd).await;
    let before = world.account.census().await;
    let run = world.install(false, None).await;
    ended_well(&run, "the first run").unwrap_or_else(|wrong| panic!("{wrong}"));
    let one_set = made(&before, &world.account.census().await);
    for kind in ["vpc", "internet-gateway", "subnet", "security-group", "vpc-endpoint", "instance", "hosted-zone"] {
        assert!(one_set.contains_key(kind), "{one_set:?}");
    }
    let cleanup = world.cleanup(None).await;
    ended_well(&cleanup, "the first cleanup").unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(made(&before, &world.account.census().await), BTreeMap::new());

    let points: Vec<(usize, Moment)> = (1..=run.changes.len().max(cleanup.changes.len()))
        .flat_map(|call| [(call, Moment::Before), (call, Moment::After)])
        .collect();
    let next = Arc::new(AtomicUsize::new(0));
    let (url, one_set, sshd) = (moto.url().to_owned(), Arc::new(one_set), Arc::new(sshd));
    let points = Arc::new(points);
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let (next, url, one_set, sshd, points) =
            (next.clone(), url.clone(), one_set.clone(), sshd.clone(), points.clone());
        workers.spawn(async move {
            let mut outcomes = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(at) = points.get(number) else { return outcomes };
                let world = World::new(&url, number + 1, &sshd).await;
                outcomes.push((number, killed(&world, *at, &one_set).await));
            }
        });
    }
    let mut outcomes: Vec<(usize, Outcome)> = workers.join_all().await.into_iter().flatten().collect();
    outcomes.sort_by_key(|(number, _)| *number);
    let mut wrong = 0;
    for (number, outcome) in &outcomes {
        let (call, moment) = points[*number];
        let [creation, deletion] = outcome.killed.each_ref().map(|call| call.as_deref().unwrap_or("-"));
        let came_to = outcome.wrong.as_deref().unwrap_or("one set, then none");
        let moment = format!("{moment:?}");
        println!("{call:>3} {moment:<7} {creation:<38} {deletion:<38} {came_to}");
        wrong += usize::from(outcome.wrong.is_some());
    }
    println!("{} kills of the installation, {} of the cleanup", run.changes.len() * 2, cleanup.changes.len() * 2);
    assert_eq!(wrong, 0, "of {} points", outcomes.len());
}
