//! Every kind of network and its bastion through the real SDK: made once, adopted the second time, taken away without a
//! trace, with somebody else's things beside them untouched.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_ec2::config::Credentials;
use bartizan::cloud::aws::{Aws, loader};
use bartizan::cloud::bastion::{BastionInputs, ensure_bastion, survey_bastion};
use bartizan::cloud::ledger::{Ledger, Patience};
use bartizan::cloud::teardown::{Report, teardown};
use bartizan::cloud::vpc::{Network, ensure_network, survey_network};
use bartizan::cloud::{Class, Cloud, Create, ImageQuery, Kind, Tags};
use bartizan::model::event::{Action, Data, Event};
use bartizan::model::plan::StepId;
use bartizan::model::{RunModel, reduce};
use bartizan::record::Sink;
use bartizan::record::sink::Entry;
use bartizan::spec::{Spec, example, parse};
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

use super::census::{Account, made};
use super::moto::Moto;

pub const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEkp6pYb2xSgVjgSRVmtqcYHVL6CZsA1k0mmLnL1lvQj";

/// One image, as moto wants it.
pub const IMAGES: &str = r#"[{"ami_id": "ami-0123456789abcdef0", "name": "al2023-ami-2023.9.1-kernel-6.1-x86_64",
    "description": "Amazon Linux", "owner_id": "137112412989", "public": true, "virtualization_type": "hvm",
    "architecture": "x86_64", "state": "available", "platform": null, "image_type": "machine", "hypervisor": "xen",
    "root_device_name": "/dev/xvda", "root_device_type": "ebs", "sriov": "simple"}]"#;

/// A run of ours in an account of moto's.
pub struct World {
    pub cloud: Arc<dyn Cloud>,
    account: Account,
    pub spec: Spec,
    pub model: Arc<Mutex<RunModel>>,
    /// Changing calls, as they were recorded.
    calls: Arc<Mutex<Vec<String>>>,
}

async fn aws(moto: &Moto, spec: &Spec, account: &str) -> Aws {
    // moto takes the access key of an assumed role for its account; the account number as a key does the same.
    let keys = Credentials::new(account, "example", None, None, "test");
    let config = loader(&spec.aws).unwrap().endpoint_url(moto.url()).credentials_provider(keys).load().await;
    Aws::new(&config, &spec.aws)
}

impl World {
    pub async fn new(moto: &Moto, network: &str) -> Self {
        let text = example()
            .replace("[network]", &format!("[network]\n{network}"))
            .replace("[bastion]", "[bastion]\nami = \"ami-0123456789abcdef0\"");
        let spec = parse(&text, "cluster.toml").unwrap_or_else(|errors| panic!("{errors}"));
        let cloud = Arc::new(aws(moto, &spec, "123456789012").await);
        let model = RunModel { run: "20261121-090000-1a2b".into(), ..RunModel::default() };
        let account = Account::new(moto.url(), "123456789012");
        Self { cloud, account, spec, model: Arc::new(Mutex::new(model)), calls: Arc::default() }
    }

    pub fn ledger(&self) -> (Ledger, tokio::task::JoinHandle<()>) {
        let (sink, entries) = Sink::channel(16);
        let model = self.model.lock().unwrap().clone();
        let recorder = tokio::spawn(record(entries, self.model.clone(), self.calls.clone()));
        let step = StepId::new("01-infrastructure/network");
        let ledger = Ledger::new(self.cloud.clone(), sink, CancellationToken::new(), step, &self.spec, &model);
        let soon = Duration::from_millis(20);
        (ledger.with_patience(Patience { first: soon, slowest: soon, ..Patience::default() }), recorder)
    }

    /// Network and bastion: what is made, or what is there already.
    async fn make(&self) -> Network {
        let (ledger, recorder) = self.ledger();
        let network = ensure_network(&ledger, &self.spec).await.unwrap_or_else(|error| panic!("{error}"));
        let inputs = BastionInputs::new(&network, "198.51.100.7/32", KEY).unwrap();
        ensure_bastion(&ledger, &self.spec, &inputs).await.unwrap_or_else(|error| panic!("{error}"));
        drop(ledger);
        recorder.await.unwrap();
        network
    }

    /// What a survey misses.
    async fn missing(&self) -> Vec<String> {
        let (ledger, recorder) = self.ledger();
        let (network, survey) = survey_network(&ledger, &self.spec).await.unwrap();
        let mut missing = survey.missing;
        if let Some(network) = network {
            let inputs = BastionInputs::new(&network, "198.51.100.7/32", KEY).unwrap();
            missing.extend(survey_bastion(&ledger, &self.spec, &inputs).await.unwrap().1.missing);
        }
        drop(ledger);
        recorder.await.unwrap();
        missing
    }

    pub async fn tear_down(&self) -> Report {
        let (ledger, recorder) = self.ledger();
        let report = teardown(&ledger, None).await.unwrap();
        drop(ledger);
        recorder.await.unwrap();
        report
    }

    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
}

async fn record(mut entries: Receiver<Entry>, model: Arc<Mutex<RunModel>>, calls: Arc<Mutex<Vec<String>>>) {
    while let Some(entry) = entries.recv().await {
        let Entry::Event(data, done) = entry else { continue };
        if let Data::StepAction { action: Action::Api { call }, .. } = &*data {
            calls.lock().unwrap().push(call.clone());
        }
        let mut model = model.lock().unwrap();
        let event = Event { seq: model.seq + 1, at: jiff::Timestamp::now(), data: *data };
        reduce(&mut model, &event);
        if let Some(done) = done {
            let _gone = done.send(());
        }
    }
}

/// Made, made again, forgotten and found by its tags, taken away; `counts` is what there is to be of some kinds.
async fn lives(moto: &Moto, network: &str, counts: &[(&'static str, usize)]) {
    let world = World::new(moto, network).await;
    world.account.bystander("20260101-000000-beef").await;
    let before = world.account.census().await;

    let first = world.make().await;
    let whole = world.account.census().await;
    let ours = made(&before, &whole);
    for (kind, count) in counts {
        assert_eq!(ours.get(kind).copied().unwrap_or_default(), *count, "{kind} of {network}: {ours:?}");
    }
    assert!(world.calls().len() > 20);
    assert_eq!(world.missing().await, [""; 0], "{network}");
    assert_eq!(world.make().await, first);
    assert_eq!(world.calls(), [""; 0], "nothing is asked for again");

    // The record is lost, the tags are not.
    *world.model.lock().unwrap() = RunModel { run: "20261121-090000-1a2b".into(), ..RunModel::default() };
    assert_eq!(world.make().await, first);
    assert_eq!(world.account.census().await, whole, "{network}");

    let report = world.tear_down().await;
    assert_eq!(report.blocked, []);
    assert!(report.gone.iter().all(|gone| !gone.proof.is_empty()));
    assert_eq!(world.account.census().await, before, "others' things are as they were, ours are gone");
    for kind in Kind::ALL {
        let tags = Tags::from([("bartizan.run".to_owned(), "20261121-090000-1a2b".to_owned())]);
        assert_eq!(world.cloud.find(kind, &tags).await.unwrap(), [], "{kind:?}");
    }
}

#[tokio::test]
async fn without_a_way_out() {
    let moto = Moto::with_images(IMAGES).await;
    let counts =
        [("vpc", 1), ("subnet", 6), ("vpc-endpoint", 4), ("nat-gateway", 0), ("instance", 1), ("hosted-zone", 1)];
    lives(&moto, "zones = 3", &counts).await;
}

#[tokio::test]
async fn with_nat() {
    let moto = Moto::with_images(IMAGES).await;
    let counts = [("nat-gateway", 2), ("vpc-endpoint", 1), ("internet-gateway", 1), ("instance", 1)];
    lives(&moto, "zones = 2\nvariant = \"private\"", &counts).await;
}

#[tokio::test]
async fn with_one_nat_for_all() {
    let moto = Moto::with_images(IMAGES).await;
    let counts = [("nat-gateway", 1), ("vpc-endpoint", 1), ("subnet", 4), ("instance", 1)];
    lives(&moto, "zones = 2\nvariant = \"private\"\nnat = \"one\"", &counts).await;
}

#[tokio::test]
async fn with_a_proxy() {
    let moto = Moto::with_images(IMAGES).await;
    lives(&moto, "variant = \"proxy\"", &[("vpc-endpoint", 3), ("security-group", 3), ("nat-gateway", 0)]).await;
}

pub fn wanted(kind: Kind, properties: &[(&str, &str)], tags: &[(&str, &str)]) -> Create {
    let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Create { kind, tags: map(tags), properties: map(properties), token: "token-of-the-first".into() }
}

#[tokio::test]
async fn in_a_network_that_is_there() {
    let moto = Moto::with_images(IMAGES).await;
    let theirs = World::new(&moto, "").await.cloud;
    let vpc = theirs.create(&wanted(Kind::Vpc, &[("CidrBlock", "10.9.0.0/16")], &[])).await.unwrap();
    for attribute in ["EnableDnsSupport", "EnableDnsHostnames"] {
        theirs.modify(Kind::Vpc, &vpc.id, &[(attribute.to_owned(), "true".to_owned())].into()).await.unwrap();
    }
    let place = [("CidrBlock", "10.9.0.0/20"), ("VpcId", &vpc.id), ("AvailabilityZone", "us-east-2b")];
    let subnet = theirs.create(&wanted(Kind::Subnet, &place, &[])).await.unwrap();

    let mut world = World::new(&moto, "").await;
    let text = format!(
        "[network.existing]\nvpc_id = \"{}\"\nprivate_subnets = [\"{}\"]\n\
         add_endpoints = [\"s3\", \"ec2\", \"elasticloadbalancing\", \"sts\"]\n\n\
         [bastion]\nami = \"ami-0123456789abcdef0\"",
        vpc.id, subnet.id
    );
    world.spec = parse(&example().replace("[bastion]", &text), "cluster.toml").unwrap_or_else(|e| panic!("{e}"));
    let before = world.account.census().await;
    let network = world.make().await;
    assert_eq!(network.private_subnets, [(subnet.id.clone(), "us-east-2b".to_owned())]);
    let ours = made(&before, &world.account.census().await);
    assert_eq!((ours.get("vpc"), ours.get("route-table")), (None, None), "{ours:?}");
    assert_eq!((ours.get("instance"), ours.get("vpc-endpoint")), (Some(&1), Some(&4)), "{ours:?}");
    assert_eq!(world.tear_down().await.blocked, []);
    assert_eq!(world.account.census().await, before);
    let after = theirs.get(Kind::Subnet, &subnet.id).await.unwrap();
    assert_eq!(after.tags, subnet.tags, "nothing of theirs is changed");
}

#[tokio::test]
async fn a_second_request_is_not_a_second_thing() {
    let moto = Moto::with_images(IMAGES).await;
    let world = World::new(&moto, "").await;
    let cloud = &world.cloud;
    let vpc = cloud.create(&wanted(Kind::Vpc, &[("CidrBlock", "10.9.0.0/16")], &[])).await.unwrap().id;
    let ours = [("Name", "edge-lab-thing"), ("bartizan.run", "run-1")];
    let theirs = [("Name", "edge-lab-thing"), ("bartizan.run", "run-2")];
    for (kind, properties) in [
        (Kind::SecurityGroup, &[("VpcId", &*vpc), ("GroupName", "edge-lab-thing"), ("Description", "a thing")][..]),
        (Kind::Subnet, &[("VpcId", &*vpc), ("CidrBlock", "10.9.0.0/20")]),
        (Kind::KeyPair, &[("KeyName", "edge-lab-thing"), ("PublicKeyMaterial", KEY)]),
        (Kind::HostedZone, &[("Name", "registry.example.com"), ("VpcId", &*vpc), ("PrivateZone", "true")]),
        (Kind::Bucket, &[("Bucket", "edge-lab-thing")]),
        (Kind::User, &[("UserName", "edge-lab-thing"), ("Path", "/bartizan/run-1/")]),
    ] {
        let first = cloud.create(&wanted(kind, properties, &ours)).await.unwrap_or_else(|e| panic!("{kind:?}: {e}"));
        let again = cloud.create(&wanted(kind, properties, &ours)).await.unwrap_or_else(|e| panic!("{kind:?}: {e}"));
        assert_eq!(first.id, again.id, "{kind:?}");
        assert_eq!(again.tags.get("bartizan.run").map(String::as_str), Some("run-1"), "{kind:?}");
        let other = Create { token: "another".into(), ..wanted(kind, properties, &theirs) };
        if kind != Kind::HostedZone {
            let error = cloud.create(&other).await.unwrap_err();
            assert_eq!(error.class, Class::Exists, "{kind:?}: {error}");
            assert!(!error.advice().is_empty());
        }
        cloud.delete(kind, &first.id).await.unwrap_or_else(|e| panic!("{kind:?}: {e}"));
        assert!(cloud.get(kind, &first.id).await.unwrap_err().is_not_found(), "{kind:?}");
    }
}

#[tokio::test]
async fn what_a_preflight_asks_is_answered() {
    let moto = Moto::with_images(IMAGES).await;
    let world = World::new(&moto, "").await;
    world.account.bystander("20260101-000000-beef").await;
    let cloud = &world.cloud;
    assert!(cloud.whoami().await.unwrap().starts_with("arn:aws:"));
    assert_eq!(cloud.zones().await.unwrap(), ["us-east-2a", "us-east-2b", "us-east-2c"]);
    assert!(cloud.endpoint_services().await.unwrap().contains(&"com.amazonaws.us-east-2.sts".to_owned()));
    assert_eq!(cloud.quota("vpc", "L-F678F1CE").await.unwrap(), Some(5.0));
    let offering = cloud.offering("m6i.large").await.unwrap();
    assert_eq!((offering.vcpus, offering.memory_mib), (2, 8192));
    assert!(offering.zones.contains(&"us-east-2a".to_owned()), "{offering:?}");
    let newest = |owner: &str| ImageQuery::Newest {
        owner: owner.into(),
        name: "al2023-ami-2023.*-x86_64".into(),
        architecture: "x86_64".into(),
    };
    let image = cloud.image(&newest("137112412989")).await.unwrap();
    assert_eq!((image.id.as_str(), image.root_device.as_str()), ("ami-0123456789abcdef0", "/dev/xvda"));
    assert_eq!(cloud.image(&newest("666666666666")).await.unwrap_err().class, Class::Input);

    let vpcs = cloud.find(Kind::Vpc, &Tags::from([("Name".into(), "edge-lab-vpc".into())])).await.unwrap();
    let blockers = cloud.blockers(&vpcs[0].id).await.unwrap();
    for what in ["instance", "subnet", "security-group", "network-interface"] {
        assert!(blockers.iter().any(|blocker| blocker.what == what), "{what}: {blockers:?}");
    }
    let error = cloud.delete(Kind::Vpc, &vpcs[0].id).await.unwrap_err();
    assert!(error.is_in_use() && error.code == "DependencyViolation", "{error:?}");
    let error = cloud.get(Kind::Vpc, "vpc-0123456789abcdef0").await.unwrap_err();
    assert!(error.is_not_found() && error.request_id.is_some(), "{error:?}");
}

#[tokio::test]
async fn records_and_objects_come_and_go() {
    use bartizan::cloud::{alias, cname, record};
    let moto = Moto::with_images(IMAGES).await;
    let world = World::new(&moto, "").await;
    let cloud = &world.cloud;
    let vpc = cloud.create(&wanted(Kind::Vpc, &[("CidrBlock", "10.9.0.0/16")], &[])).await.unwrap().id;
    let zone = [("Name", "edge-lab.example.com"), ("VpcId", &*vpc), ("PrivateZone", "true")];
    let zone = cloud.create(&wanted(Kind::HostedZone, &zone, &[])).await.unwrap().id;
    let records = [
        (record("registry.edge-lab.example.com"), "10.9.0.10"),
        (alias("*.apps.edge-lab.example.com"), "Z3AADJGX6KTTL2 a1b2.elb.us-east-2.amazonaws.com"),
        (cname("other.edge-lab.example.com"), "a1b2.elb.us-east-2.amazonaws.com"),
    ];
    for (name, value) in &records {
        let one = [(name.clone(), (*value).to_owned())].into();
        cloud.modify(Kind::HostedZone, &zone, &one).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        cloud.modify(Kind::HostedZone, &zone, &one).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(cloud.get(Kind::HostedZone, &zone).await.unwrap().property(name), Some(*value));
    }
    assert!(cloud.delete(Kind::HostedZone, &zone).await.unwrap_err().is_in_use());
    let none = records.into_iter().map(|(name, _)| (name, String::new())).collect();
    cloud.modify(Kind::HostedZone, &zone, &none).await.unwrap();
    cloud.delete(Kind::HostedZone, &zone).await.unwrap();

    cloud.create(&wanted(Kind::Bucket, &[("Bucket", "edge-lab-ignition")], &[("Name", "x")])).await.unwrap();
    let object = [("Object bastion.ign".to_owned(), "{}".to_owned())].into();
    cloud.modify(Kind::Bucket, "edge-lab-ignition", &object).await.unwrap();
    cloud.delete(Kind::Bucket, "edge-lab-ignition").await.unwrap();
    assert!(cloud.get(Kind::Bucket, "edge-lab-ignition").await.unwrap_err().is_not_found());

    cloud.create(&wanted(Kind::User, &[("UserName", "edge-lab-ebs")], &[])).await.unwrap();
    let key = cloud.create_access_key("edge-lab-ebs").await.unwrap();
    let user = cloud.get(Kind::User, "edge-lab-ebs").await.unwrap();
    assert_eq!(user.property("AccessKeyIds"), Some(&*key.id));
    assert!(!format!("{user:?}{key:?}").contains(key.secret.reveal()));
    cloud.delete(Kind::User, "edge-lab-ebs").await.unwrap();
}
