//! What is known before anything is made: each thing that is not ready says what to ask of whom, and nothing is made.

use std::collections::BTreeMap;
use std::process::Command;

use bartizan::cloud::memory::{MemoryCloud, State as Account};
use bartizan::cloud::preflight::{Check, State, failed, preflight};
use bartizan::cloud::{Cloud, Create, Kind, Offering, Tags};
use bartizan::spec::{Spec, example, parse};

struct Site {
    folder: tempfile::TempDir,
    cloud: MemoryCloud,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cloud = MemoryCloud::open(folder.path().join("cloud.json")).unwrap();
        let site = Self { folder, cloud };
        site.set(|account| account.settings.pace_ms = 1);
        site
    }

    fn set(&self, change: impl FnOnce(&mut Account)) {
        self.cloud.with_state(change).unwrap();
    }

    async fn make(&self, kind: Kind, tags: &[(&str, &str)], properties: &[(&str, &str)]) -> String {
        let map = |pairs: &[(&str, &str)]| -> Tags {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let create = Create { kind, tags: map(tags), properties: map(properties), token: String::new() };
        self.cloud.create(&create).await.unwrap().id
    }

    async fn look(&self, changes: &[(&str, &str)]) -> Vec<Check> {
        preflight(&self.cloud, &spec(changes)).await
    }
}

fn spec(changes: &[(&str, &str)]) -> Spec {
    let text = changes.iter().fold(example().to_owned(), |text, (section, line)| {
        assert!(text.contains(section), "{section}");
        text.replacen(section, &format!("{section}\n{line}"), 1)
    });
    parse(&text, "cluster.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

#[track_caller]
fn find<'a>(checks: &'a [Check], what: &str) -> &'a Check {
    let found = checks.iter().find(|check| check.what.contains(what));
    found.unwrap_or_else(|| panic!("nothing says {what} in {checks:#?}"))
}

#[tokio::test]
async fn a_ready_account_passes_and_what_nobody_may_read_is_no_failure() {
    let checks = Site::new().look(&[]).await;
    assert!(failed(&checks).is_empty(), "{checks:#?}");
    assert_eq!(find(&checks, "credentials").state, State::Ok);
    // This account tells none of its quotas.
    let vpcs = find(&checks, "vpc/L-F678F1CE");
    assert_eq!(vpcs.state, State::Unknown);
    assert!(vpcs.found.contains("new accounts have 5"), "{vpcs:?}");
    assert!(checks.iter().all(|check| check.state != State::Warn), "{checks:#?}");
}

#[tokio::test]
async fn a_small_quota_says_by_how_much_and_whom_to_ask_where() {
    let site = Site::new();
    site.set(|account| {
        account.settings.quotas =
            BTreeMap::from([("ec2/L-1216C47A".to_owned(), 40.0), ("vpc/L-F678F1CE".to_owned(), 1.0)]);
    });
    // Three masters, the bootstrap machine, two workers and the bastion: 28 vCPUs with four each.
    assert!(failed(&site.look(&[]).await).is_empty());
    let vpc = site.make(Kind::Vpc, &[], &[("CidrBlock", "10.9.0.0/16")]).await;
    let subnet = [("VpcId", vpc.as_str()), ("CidrBlock", "10.9.0.0/20"), ("AvailabilityZone", "us-east-2a")];
    let subnet = site.make(Kind::Subnet, &[], &subnet).await;
    for _ in 0..4 {
        let machine = [("InstanceType", "m5.xlarge"), ("SubnetId", subnet.as_str()), ("ImageId", "ami-1")];
        site.make(Kind::Instance, &[], &machine).await;
    }
    // Of another family: of another quota.
    site.make(Kind::Instance, &[], &[("InstanceType", "g5.xlarge"), ("SubnetId", &subnet), ("ImageId", "ami-1")]).await;
    let checks = site.look(&[]).await;
    let vcpus = find(&checks, "L-1216C47A");
    assert_eq!((vcpus.state, vcpus.found.as_str()), (State::Fail, "16 of 40 vCPUs in use"));
    assert!(
        vcpus.ask.starts_with("ask the account's administrator to raise ec2/L-1216C47A")
            && vcpus
                .ask
                .contains("in us-east-2 from 40 to 44: https://us-east-2.console.aws.amazon.com/servicequotas/"),
        "{}",
        vcpus.ask
    );
    assert_eq!(find(&checks, "vpc/L-F678F1CE").state, State::Fail);
    assert_eq!(failed(&checks).len(), 2);
}

#[tokio::test]
async fn what_is_denied_missing_or_in_the_way_is_told_before_anything_is_made() {
    let site = Site::new();
    let offering = Offering {
        zones: vec!["us-east-2b".into()],
        vcpus: 4,
        memory_mib: 16 * 1024,
        architectures: vec!["x86_64".into()],
    };
    site.set(|account| {
        account.settings.denied = vec!["ec2:CreateVpc".into()];
        account.settings.offerings.insert("m6i.xlarge".into(), offering);
    });
    site.make(Kind::Vpc, &[("Name", "somebody's")], &[("CidrBlock", "10.0.0.0/16")]).await;
    let vpc = site.make(Kind::Vpc, &[], &[("CidrBlock", "10.9.0.0/16")]).await;
    let zone = [("Name", "edge-lab.example.com"), ("VpcId", &vpc), ("PrivateZone", "true")];
    site.make(Kind::HostedZone, &[], &zone).await;
    let before = std::fs::read(site.folder.path().join("cloud.json")).unwrap();
    let checks = site.look(&[("[network]", "extra_endpoints = [\"bedrock\"]")]).await;
    let denied = find(&checks, "permissions");
    assert_eq!(denied.state, State::Fail);
    assert!(denied.found.contains("ec2:CreateVpc (no policy allows it)") && denied.ask.contains("plan --permissions"));
    let machine = find(&checks, "m6i.xlarge (install.control_plane_type)");
    assert_eq!(machine.state, State::Fail);
    assert!(machine.ask.contains("not offered in us-east-2a"), "{machine:?}");
    let services = find(&checks, "endpoint services");
    assert!(services.state == State::Fail && services.found.contains("com.amazonaws.us-east-2.bedrock"));
    let overlap = find(&checks, "network.vpc_cidr");
    assert!(overlap.state == State::Warn && overlap.found.contains("10.0.0.0/16"), "{overlap:?}");
    // A zone of another VPC may be a cluster that lives.
    assert_eq!(find(&checks, "zone edge-lab.example.com").state, State::Warn);
    let account =
        |bytes: &[u8]| serde_json::from_slice::<Account>(bytes).unwrap().objects.into_keys().collect::<Vec<_>>();
    let after = std::fs::read(site.folder.path().join("cloud.json")).unwrap();
    assert_eq!(account(&before), account(&after));
}

#[tokio::test]
async fn an_existing_network_is_held_against_what_the_installer_refuses() {
    let site = Site::new();
    let vpc = site.make(Kind::Vpc, &[("kubernetes.io/cluster/old", "owned")], &[("CidrBlock", "10.0.0.0/16")]).await;
    let mut subnets = Vec::new();
    for (number, zone) in ["us-east-2a", "us-east-2a", "us-east-2b"].iter().enumerate() {
        let block = format!("10.0.{}.0/20", number * 16);
        let properties = [("VpcId", vpc.as_str()), ("CidrBlock", &block), ("AvailabilityZone", zone)];
        subnets.push(site.make(Kind::Subnet, &[], &properties).await);
    }
    let network = |private: &[&String]| {
        let private: Vec<String> = private.iter().map(|id| format!("{id:?}")).collect();
        format!("[network.existing]\nvpc_id = {vpc:?}\nprivate_subnets = [{}]\n\n[bastion]", private.join(", "))
    };
    let look = async |private: &[&String], minor: &str| {
        let text = example().replace("[bastion]", &network(private)).replace("4.18.12", minor);
        preflight(&site.cloud, &parse(&text, "cluster.toml").unwrap_or_else(|errors| panic!("{errors}"))).await
    };
    let checks = look(&[&subnets[0], &subnets[1]], "4.19.3").await;
    let refused: Vec<&str> = failed(&checks).into_iter().map(|check| check.found.as_str()).collect();
    for says in [
        "kubernetes.io/cluster/old=owned".to_owned(),
        format!("{} and {} are both in us-east-2a", subnets[0], subnets[1]),
        format!("--resources {}", subnets[2]),
        "has no endpoint com.amazonaws.us-east-2.s3".to_owned(),
    ] {
        assert!(refused.iter().any(|found| found.contains(&says)), "{says}: {refused:#?}");
    }
    assert!(failed(&checks).iter().all(|check| !check.ask.is_empty()));
    assert!(!checks.iter().any(|check| check.what.contains("vpc/L-F678F1CE")), "no VPC is made");
}

#[cfg(feature = "lab")]
fn write_spec(folder: &std::path::Path) -> std::path::PathBuf {
    let public = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEkp6pYb2xSgVjgSRVmtqcYHVL6CZsA1k0mmLnL1lvQj";
    std::fs::write(folder.join("id.pub"), public).unwrap();
    std::fs::write(folder.join("pull-secret.json"), r#"{"auths": {"quay.io": {"auth": "bGFiOmxhYg=="}}}"#).unwrap();
    let file = folder.join("cluster.toml");
    std::fs::write(&file, example().replace("~/.ssh/id_ed25519.pub", "id.pub")).unwrap();
    file
}

#[cfg(feature = "lab")]
fn bartizan(args: &[&std::ffi::OsStr]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_bartizan")).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[cfg(feature = "lab")]
#[test]
fn doctor_says_the_same_in_words_and_as_json_and_makes_nothing() {
    let site = Site::new();
    site.set(|account| {
        account.settings.quotas.insert("vpc/L-F678F1CE".into(), 0.0);
    });
    let (spec, cloud) = (write_spec(site.folder.path()), site.folder.path().join("cloud.json"));
    let doctor = |more: &[&str]| {
        let args = ["doctor".as_ref(), spec.as_os_str(), "--cloud".as_ref(), cloud.as_os_str()];
        let (code, out, _) = bartizan(&args.into_iter().chain(more.iter().map(AsRef::as_ref)).collect::<Vec<_>>());
        (code, out)
    };
    let (code, words) = doctor(&[]);
    assert_eq!(code, Some(4), "{words}");
    assert!(words.contains("fail    quota vpc/L-F678F1CE 'VPCs per Region': 0 of 0 VPCs in use"), "{words}");
    assert!(words.contains(" from 0 to 1: https://"), "{words}");
    let (code, answer) = doctor(&["--json"]);
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((code, &answer["ready"]), (Some(4), &serde_json::Value::Bool(false)));
    let checks: Vec<Check> = serde_json::from_value(answer["checks"].clone()).unwrap();
    assert_eq!(failed(&checks).len(), 1, "{checks:#?}");
    assert_eq!(site.cloud.with_state(|account| account.objects.len()).unwrap(), 0);
}

#[cfg(feature = "lab")]
#[test]
fn what_is_made_is_told_with_its_cost_and_a_mistyped_name_destroys_none_of_it() {
    let site = Site::new();
    let (spec, cloud) = (write_spec(site.folder.path()), site.folder.path().join("cloud.json"));
    let state = site.folder.path().join("state");
    let with = |args: &[&str]| {
        let common = ["--state".as_ref(), state.as_os_str()];
        let last = ["--plain".as_ref(), "--cloud".as_ref(), cloud.as_os_str()];
        let args = args.iter().map(|arg| arg.as_ref());
        bartizan(&common.into_iter().chain(args).chain(last).collect::<Vec<&std::ffi::OsStr>>())
    };
    let (code, out, err) = with(&["run", spec.to_str().unwrap(), "--until", "01"]);
    assert_eq!(code, Some(0), "{out}{err}");
    // Three interface endpoints in one zone.
    assert!(out.contains("vpc-endpoint edge-lab-sts") && out.contains("all together about $0.03 per hour"), "{out}");
    let account = || site.cloud.with_state(|account| (account.calls, account.objects.len())).unwrap();
    let before = account();
    assert!(before.1 > 5);
    for wrong in ["edge-la", "edge-lab2", "EDGE-LAB", "", "edge-lab.example.com"] {
        let (code, _, err) = with(&["cleanup", "last", "--confirm", wrong]);
        assert_eq!(code, Some(2), "{err}");
        assert!(err.contains("nothing was touched"), "{err}");
        assert_eq!(account(), before, "{wrong:?} changed something");
    }
    let (code, out, err) = with(&["cleanup", "last", "--confirm", "edge-lab"]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("gone: vpc edge-lab-vpc") && account().1 == 0, "{out}");
}
