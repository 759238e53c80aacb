//! What becomes of a bastion behind our back, and how one is known before anybody talks to it: the real program, AWS behind
//! its proxy, and a real sshd for the machine.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use bartizan::cloud::Cloud;
use bartizan::cloud::Kind;
use bartizan::cloud::memory::MemoryCloud;
use bartizan::host::ssh::fingerprint;
use bartizan::model::event::{Data, Object};
use bartizan::spec::{example, parse};

use super::kill::{IMAGES, More, World, ended_well, sshd};
use super::moto::Moto;
use crate::host::Sshd;
use crate::stage::Stage;
use crate::trouble::finding;

/// A program of the machine that is not the real one.
fn program(folder: &Path, name: &str, script: &str) {
    let file = folder.join(name);
    std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(file, PermissionsExt::from_mode(0o755)).unwrap();
}

/// One whose sessions find the programs of this folder first.
fn with_programs(home: &Path, folder: &Path, path: &str) -> Sshd {
    let path = format!("{}:{path}", folder.display());
    Sshd::with_environment(&[("HOME", home.to_str().unwrap()), ("PATH", &path)])
}

fn bastion(lines: &str) -> More<'_> {
    More { bastion: lines, ..More::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bastion_that_was_stopped_is_started_and_one_that_was_terminated_is_made_again() {
    let moto = Moto::with_images(IMAGES).await;
    let home = tempfile::tempdir().unwrap();
    let sshd = sshd(home.path());
    let world = World::new(moto.url(), 600, &sshd).await;
    let before = world.account.census().await;
    ended_well(&world.install(false, None).await, "the run").unwrap_or_else(|wrong| panic!("{wrong}"));
    let [first] = world.machines().await.try_into().expect("one machine");

    world.account.ec2(&format!("StopInstances&InstanceId.1={first}")).await;
    let ended = world.resume(&[]).await;
    ended_well(&ended, "the run with a stopped bastion").unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(ended.changes, ["ec2:StartInstances"], "{}", ended.output);
    assert!(ended.output.contains(&format!("({first}) was stopped, and not by this run")), "{}", ended.output);
    assert_eq!(world.machines().await, [first.as_str()]);
    let stopped = vec!["BASTION-STOPPED".to_owned()];
    assert_eq!(world.findings(), (stopped.clone(), stopped));

    world.account.ec2(&format!("TerminateInstances&InstanceId.1={first}")).await;
    let ended = world.resume(&[]).await;
    ended_well(&ended, "the run with a lost bastion").unwrap_or_else(|wrong| panic!("{wrong}"));
    let [second] = world.machines().await.try_into().expect("one machine");
    assert_ne!(second, first);
    let said = format!("{second} takes its place, and what was on it is brought again");
    assert!(ended.output.contains(&said), "{}", ended.output);
    let (opened, cleared) = world.findings();
    assert!(opened.contains(&"BASTION-LOST".to_owned()) && cleared.contains(&"BASTION-LOST".to_owned()), "{opened:?}");

    // What is stopped, or stops, is taken away like what runs.
    world.account.ec2(&format!("StopInstances&InstanceId.1={second}")).await;
    ended_well(&world.cleanup(None).await, "the cleanup").unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(world.account.census().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_machine_in_the_bastions_place_is_not_talked_to() {
    let moto = Moto::with_images(IMAGES).await;
    let home = tempfile::tempdir().unwrap();
    let mut sshd = sshd(home.path());
    let world = World::new(moto.url(), 601, &sshd).await;
    ended_well(&world.install(false, None).await, "the run").unwrap_or_else(|wrong| panic!("{wrong}"));
    sshd.becomes(None);
    let logins = sshd.log().matches("Accepted publickey").count();
    let ended = world.resume(&[]).await;
    assert_eq!(ended.status.code(), Some(4), "{}", ended.output);
    assert!(world.findings().0.contains(&"SSH-HOSTKEY".to_owned()), "{}", ended.output);
    assert_eq!(sshd.log().matches("Accepted publickey").count(), logins);
}

/// By the mirror on it a cluster lives: another bastion would be of no use to it.
#[tokio::test]
async fn the_bastion_of_a_cluster_is_not_replaced_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let memory = MemoryCloud::open(dir.path().join("cloud.json")).unwrap();
    memory.with_state(|state| state.settings.pace_ms = 1).unwrap();
    let key = dir.path().join("id.pub");
    std::fs::write(&key, super::network::KEY).unwrap();
    let mut spec =
        parse(&example().replace("[bastion]", "[bastion]\noperator_cidr = \"198.51.100.7/32\""), "x").unwrap();
    spec.credentials.ssh_public_key = key;
    let stage = Stage::new(spec, Some(std::sync::Arc::new(memory.clone())), |_| {}).await;
    for step in ["01-infrastructure/network", "02-bastion/machine"] {
        stage.once(step).await.unwrap_or_else(|error| panic!("{step}: {:?}", error.causes));
    }
    let object = Object { kind: "cluster".into(), name: "install-1".into() };
    stage.record(Data::Intent { object: object.clone() }).await;
    stage.know(&[("install.dir", "/root/bartizan/install-1"), ("install.infra-id", "edge-lab-x7k2p")]).await;
    let machine = stage.model().await.fact("bastion.instance").unwrap().to_owned();
    memory.delete(Kind::Instance, &machine).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;

    let error = stage.once("02-bastion/machine").await.unwrap_err();
    assert!(!error.retry, "{:?}", error.causes);
    let found = finding("02-bastion/machine", &error.causes);
    assert_eq!(found.signature, "BASTION-LOST");
    assert!(found.title.contains(&machine) && found.title.contains("terminated"), "{}", found.title);
    assert!(error.causes.iter().any(|cause| cause.contains("bartizan cleanup")), "{:?}", error.causes);
    let left = memory.find(Kind::Instance, &bartizan::cloud::Tags::new()).await.unwrap();
    assert_eq!(left, [], "no other was made");
    // Once the cluster is gone, nothing speaks against another one.
    stage.record(Data::Gone { object, id: "edge-lab-x7k2p".into(), proof: "none".into() }).await;
    stage.once("02-bastion/machine").await.unwrap_or_else(|error| panic!("{:?}", error.causes));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_key_that_is_asked_about_is_trusted_after_a_yes_alone() {
    let moto = Moto::with_images(IMAGES).await;
    let home = tempfile::tempdir().unwrap();
    let sshd = sshd(home.path());
    let world = World::with(moto.url(), 602, &sshd, bastion("host_key = \"ask\"")).await;
    let shown = fingerprint(&sshd.host_key()).unwrap();
    let ended = world.install(false, None).await;
    assert_eq!(ended.status.code(), Some(4), "{}", ended.output);
    for words in ["nobody has said yes to the host key", &shown, "get-console-output", "--accept-host-key"] {
        assert!(ended.output.contains(words), "no {words:?} in {}", ended.output);
    }
    let other = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let ended = world.resume(&["--accept-host-key", other]).await;
    assert_eq!(ended.status.code(), Some(4), "{}", ended.output);
    assert!(ended.output.contains(&format!("none of them is {other}")), "{}", ended.output);
    assert!(!sshd.log().contains("Accepted publickey"), "nobody logged in: {}", sshd.log());

    ended_well(&world.resume(&["--accept-host-key", &shown]).await, "after the yes").unwrap_or_else(|e| panic!("{e}"));
    assert!(sshd.log().contains("Accepted publickey"));
    // It is asked once.
    ended_well(&world.resume(&[]).await, "another time").unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_key_that_was_delivered_is_another_one_after_the_first_login() {
    let moto = Moto::with_images(IMAGES).await;
    let (home, fakes) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut sshd = with_programs(home.path(), fakes.path(), "/usr/bin:/bin:/usr/sbin:/sbin");
    sshd.stop_listening();
    // The machine's own key stands elsewhere here, and its sshd is no service.
    let mine = sshd.host_key_file();
    program(
        fakes.path(),
        "sudo",
        &format!(
            "[ \"$1\" != -n ] || shift\nleft=$#\nwhile [ $left -gt 0 ]; do\n  word=$1; shift; left=$((left - 1))\n  \
             [ \"$word\" != /etc/ssh/ssh_host_ed25519_key ] || word={:?}\n  set -- \"$@\" \"$word\"\ndone\nexec \"$@\"",
            mine.to_str().unwrap()
        ),
    );
    let pid = fakes.path().join("sshd.pid");
    let systemctl =
        format!("[ \"$*\" = 'try-reload-or-restart sshd.service' ] && kill -HUP \"$(cat {})\"", pid.display());
    program(fakes.path(), "systemctl", &systemctl);
    let world = World::with(moto.url(), 603, &sshd, bastion("host_key = \"delivered\"")).await;

    // cloud-init: it reads what the machine is told, puts the key in its place and starts sshd.
    let boot = async {
        let told = loop {
            match world.proxy.user_data() {
                Some(told) => break told,
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        let config: serde_json::Value = yaml_serde::from_str(&told).unwrap();
        let private = config["ssh_keys"]["ed25519_private"].as_str().unwrap().to_owned();
        sshd.becomes(Some(&private));
        std::fs::write(&pid, sshd.pid().to_string()).unwrap();
        (sshd, private)
    };
    let (ended, (sshd, private)) = tokio::join!(world.install(false, None), boot);
    ended_well(&ended, "the run").unwrap_or_else(|wrong| panic!("{wrong}"));
    let now = sshd.host_key();
    let delivered = bartizan::host::ssh::public_half(&bartizan::spec::Secret::new(&private)).unwrap();
    assert!(!now.starts_with(&delivered), "{now}");
    let known = std::fs::read_to_string(world.state().join("runs").join(world.run()).join("ssh/known_hosts")).unwrap();
    let blob = |key: &str| key.split(' ').nth(1).unwrap().to_owned();
    assert!(known.contains(&blob(&now)) && !known.contains(&blob(&delivered)), "{known}");
    // The key that left the machine stands in no record.
    let secret = private.lines().nth(2).unwrap();
    let record = std::fs::read_to_string(world.state().join("runs").join(world.run()).join("run.jsonl")).unwrap();
    assert!(!record.contains(secret) && !ended.output.contains(secret));
    let again = world.resume(&[]).await;
    ended_well(&again, "another time").unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(sshd.host_key(), now, "it is replaced once");
}

/// CoreOS: what it is told at its first boot is Ignition of a few hundred bytes, and the rest comes over SSH.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coreos_bastion_is_told_little_and_given_the_rest() {
    use ignition_config::Config;
    let moto = Moto::with_images(IMAGES).await;
    let home = tempfile::tempdir().unwrap();
    let sshd = sshd(home.path());
    let world = World::with(moto.url(), 604, &sshd, bastion("os = \"fcos\"")).await;
    ended_well(&world.install(false, None).await, "the run").unwrap_or_else(|wrong| panic!("{wrong}"));
    let told = world.proxy.user_data().unwrap();
    assert!(told.len() < 4096, "{}", told.len());
    let (config, warnings) = Config::parse_str(&told).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let Config::V3_2(config) = config else { panic!("another version: {told}") };
    let users = config.passwd.unwrap().users.unwrap();
    assert_eq!(users[0].ssh_authorized_keys.as_ref().map(Vec::len), Some(1));
    assert_eq!(config.storage, None, "no file, and so no secret, is in it");
    let outcome = |step: &str| {
        world.events().into_iter().find_map(|event| match event.data {
            Data::StepEnded { step: ended, outcome, .. } if ended.as_str() == step => Some(outcome),
            _ => None,
        })
    };
    assert!(outcome("02-bastion/host-key").is_some_and(|outcome| outcome.is_good()), "its console told its key");
    let packages = format!("{:?}", outcome("02-bastion/packages"));
    assert!(packages.contains("nothing has to be installed"), "{packages}");
    assert!(home.path().join("bartizan/jobs").is_dir(), "the rest came over SSH");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_image_lacks_is_installed_and_seen_to_be_there() {
    let moto = Moto::with_images(IMAGES).await;
    let (home, fakes) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // A machine that has everything but podman.
    let usual = fakes.path().join("usual");
    std::fs::create_dir(&usual).unwrap();
    for entry in ["/usr/bin", "/bin"].into_iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()) {
        let entry = entry.unwrap();
        if entry.file_name() != "podman" && !usual.join(entry.file_name()).exists() {
            // The second folder may be the first one by another name.
            let _there = symlink(entry.path(), usual.join(entry.file_name()));
        }
    }
    let here = fakes.path().display();
    program(fakes.path(), "sudo", "[ \"$1\" != -n ] || shift\nexec \"$@\"");
    program(
        fakes.path(),
        "dnf",
        &format!(
            "echo \"$*\" >>{here}/dnf.log\nif [ ! -e {here}/online ]; then\n  touch {here}/online\n  \
             echo \"Error: Failed to download metadata for repo 'rhel-9-appstream-rhui-rpms'\" >&2\n  exit 1\nfi\n\
             ln -s /bin/true {here}/podman"
        ),
    );
    let sshd = with_programs(home.path(), fakes.path(), usual.to_str().unwrap());
    let world = World::with(moto.url(), 605, &sshd, More { mirror: "", ..bastion("os = \"rhel9\"") }).await;
    let ended = world.install(false, None).await;
    ended_well(&ended, "the run").unwrap_or_else(|wrong| panic!("{wrong}"));
    let asked = std::fs::read_to_string(fakes.path().join("dnf.log")).unwrap();
    let asked: Vec<&str> = asked.lines().collect();
    assert_eq!(asked, ["-y -q --setopt=install_weak_deps=False install podman"; 2]);
    for words in ["Failed to download metadata", "the image needs repositories"] {
        assert!(ended.output.contains(words), "no {words:?} in {}", ended.output);
    }
    // Nothing is asked for twice.
    ended_well(&world.resume(&[]).await, "another time").unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(std::fs::read_to_string(fakes.path().join("dnf.log")).unwrap().lines().count(), 2);
}
