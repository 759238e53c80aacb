//! What happens to a run's things behind its back: doubles, drift, leftovers of a cluster, protected machines.

use bartizan::cloud::blueprint::planned;
use bartizan::cloud::drift::{self, Drift, Sort, Subject};
use bartizan::cloud::teardown::sweep;

use super::*;

const OURS: [(&str, &str); 2] = [("bartizan.run", "run-1"), ("bartizan.cluster", "edge-lab.example.com")];

impl World {
    async fn drift(&self, cluster: Option<(&str, bool)>) -> Drift {
        let model = self.model.lock().unwrap().clone();
        let mut spec = self.spec.clone();
        spec.bastion.operator_cidr = Some("198.51.100.7/32".into());
        let items = planned(&spec);
        let subject = Subject { model: &model, items: &items, cluster };
        drift::compare(Arc::new(self.cloud()), PATIENCE, &subject).await.unwrap()
    }

    fn id(&self, kind: &str, name: &str) -> String {
        let object = bartizan::model::event::Object { kind: kind.into(), name: name.into() };
        self.model.lock().unwrap().objects.get(&object).and_then(|record| record.id.clone()).unwrap()
    }
}

fn named(name: &'static str) -> Vec<(&'static str, &'static str)> {
    OURS.into_iter().chain([("Name", name)]).collect()
}

#[tokio::test]
async fn of_two_after_a_lost_answer_the_recorded_one_stays() {
    let world = World::new("zones = 1");
    let cloud = world.cloud();
    let first = world.process(None).await.unwrap().unwrap();
    let census = world.census();
    let twin = foreign(Kind::Vpc, &[("CidrBlock", "10.0.0.0/16")], &named("edge-lab-vpc"));
    let double = cloud.create(&twin).await.unwrap();
    assert_eq!(world.process(None).await.unwrap().unwrap(), first, "the recorded one is kept");
    assert_eq!(world.census(), census);
    assert!(cloud.get(Kind::Vpc, &double.id).await.unwrap_err().is_not_found());

    // One that somebody uses is for a person to decide about.
    let double = cloud.create(&twin).await.unwrap();
    let inside = [("CidrBlock", "10.0.0.0/20"), ("VpcId", double.id.as_str())];
    let subnet = cloud.create(&foreign(Kind::Subnet, &inside, &[])).await.unwrap();
    let error = world.process(None).await.unwrap().unwrap_err();
    assert!(
        matches!(&error, LedgerError::Ambiguous { ids, .. } if ids.contains(&double.id) && ids.contains(&first.vpc))
    );
    cloud.delete(Kind::Subnet, &subnet.id).await.unwrap();

    // What nobody has recorded goes with what is recorded.
    cloud.create(&foreign(Kind::InternetGateway, &[], &named("edge-lab-igw"))).await.unwrap();
    assert_eq!(world.tear_down(None).await.unwrap().blocked, []);
    assert_eq!(world.census(), BTreeMap::new());
}

#[tokio::test]
async fn drift_tells_what_is_gone_changed_added_and_nobodys() {
    let world = World::new("zones = 1");
    let cloud = world.cloud();
    let network = world.process(None).await.unwrap().unwrap();
    let calls = world.state(|state| state.calls);
    let drift = world.drift(None).await;
    assert_eq!(drift.differences, [], "as it was made");
    assert_eq!(drift.agreeing, world.model.lock().unwrap().standing_objects().len());

    let group = world.id("security-group", "edge-lab-bastion-access");
    cloud.set_property(&group, "Ingress tcp/22 0.0.0.0/0", "only for today").unwrap();
    let table = world.id("route-table", "edge-lab-private-table-a");
    cloud.set_property(&table, "Route 0.0.0.0/0", "igw-0123").unwrap();
    cloud.set_property(&network.vpc, "EnableDnsHostnames", "false").unwrap();
    let pair = world.id("key-pair", "edge-lab-bastion-key");
    cloud.delete(Kind::KeyPair, &pair).await.unwrap();
    let orphan = cloud.create(&foreign(Kind::ElasticIp, &[], &named("edge-lab-forgotten"))).await.unwrap();
    let theirs = [("Name", "edge-lab-vpc"), ("bartizan.run", "run-10"), OURS[1]];
    cloud.create(&foreign(Kind::ElasticIp, &[], &theirs)).await.unwrap();
    let owned = [("kubernetes.io/cluster/edge-lab-x7k2p", "owned")];
    let left = cloud.create(&foreign(Kind::Volume, &[], &owned)).await.unwrap();
    let before = world.state(|state| state.calls);

    let drift = world.drift(Some(("edge-lab-x7k2p", true))).await;
    let found: Vec<(Sort, &str)> = drift.differences.iter().map(|one| (one.sort, one.id.as_str())).collect();
    let expected = [
        (Sort::Missing, pair.as_str()),
        (Sort::Changed, network.vpc.as_str()),
        (Sort::Added, table.as_str()),
        (Sort::Added, group.as_str()),
        (Sort::Orphan, orphan.id.as_str()),
        (Sort::Leftover, left.id.as_str()),
    ];
    assert_eq!(found, expected, "{:#?}", drift.differences);
    // While it stands, a cluster's things are its own.
    let standing = world.drift(Some(("edge-lab-x7k2p", false))).await.differences;
    assert!(standing.iter().all(|one| one.sort != Sort::Leftover));
    assert_eq!(world.state(|state| state.calls), before, "it only looks");
    assert!(calls < before);
}

#[tokio::test]
async fn a_cluster_is_swept_by_its_own_tag_alone() {
    let world = World::new("zones = 1");
    let cloud = world.cloud();
    let network = world.process(None).await.unwrap().unwrap();
    let (subnet, _) = network.private_subnets[0].clone();
    let near = [("kubernetes.io/cluster/edge-lab-x7k2", "owned"), ("Name", "edge-lab-x7k2-master-0")];
    let shared = [("kubernetes.io/cluster/edge-lab-x7k2p", "shared"), ("Name", "theirs")];
    cloud.create(&foreign(Kind::Volume, &[], &near)).await.unwrap();
    cloud.create(&foreign(Kind::ElasticIp, &[], &shared)).await.unwrap();
    let before = world.census();
    let owned = [("kubernetes.io/cluster/edge-lab-x7k2p", "owned")];
    let group = [("VpcId", network.vpc.as_str()), ("GroupName", "edge-lab-x7k2p-node")];
    let group = cloud.create(&foreign(Kind::SecurityGroup, &group, &owned)).await.unwrap();
    for _ in 0..3 {
        let machine = [("SubnetId", subnet.as_str()), ("SecurityGroupIds", group.id.as_str())];
        cloud.create(&foreign(Kind::Instance, &machine, &owned)).await.unwrap();
    }
    let zone = [("Name", "edge-lab.example.com"), ("A *.apps.edge-lab.example.com", "10.0.0.9")];
    cloud.create(&foreign(Kind::HostedZone, &zone, &owned)).await.unwrap();

    let (ledger, recorder) = world.ledger(None);
    let report = sweep(&ledger, "edge-lab-x7k2p").await.unwrap();
    drop(ledger);
    recorder.await.unwrap();
    assert_eq!(report.blocked, []);
    assert_eq!(report.gone.len(), 5);
    assert_eq!(world.census(), before, "what only looks like it stays");
}

#[tokio::test]
async fn a_protected_bastion_goes_and_another_runs_things_stay() {
    let world = World::new("zones = 1");
    let cloud = world.cloud();
    world.process(None).await.unwrap().unwrap();
    cloud.set_property(&world.id("instance", "edge-lab-bastion"), "DisableApiTermination", "true").unwrap();
    // By hand, somebody has made it theirs.
    let pair = world.id("key-pair", "edge-lab-bastion-key");
    let tag = |run: &str| {
        world.state(|state| {
            let tags = &mut state.objects.get_mut(&pair).unwrap().resource.tags;
            tags.insert("bartizan.run".into(), run.into());
        });
    };
    tag("run-2");
    let report = world.tear_down(None).await.unwrap();
    let why: Vec<&str> = report.blocked.iter().map(|blocked| blocked.why.as_str()).collect();
    assert!(why.len() == 1 && why[0].contains("another run, run-2"), "{why:#?}");
    assert_eq!(world.census(), BTreeMap::from([(Kind::KeyPair, 1)]));
    tag("run-1");
    assert_eq!(world.tear_down(None).await.unwrap().blocked, []);
    assert_eq!(world.census(), BTreeMap::new());
}

/// Port 22 is open to where the operator is, and not to where they were. What somebody else has opened stays open.
#[tokio::test]
async fn port_22_follows_the_operator() {
    let world = World::new("zones = 1");
    let network = world.process(None).await.unwrap().unwrap();
    let group = world.id("security-group", "edge-lab-bastion-access");
    world.cloud().set_property(&group, "Ingress tcp/22 192.0.2.5/32", "a colleague").unwrap();
    let (ledger, recorder) = world.ledger(None);
    let inputs = BastionInputs::new(&network, "203.0.113.9/32", KEY).unwrap();
    ensure_bastion(&ledger, &world.spec, &inputs).await.unwrap();
    drop(ledger);
    recorder.await.unwrap();
    let now = world.cloud().get(Kind::SecurityGroup, &group).await.unwrap();
    let open: Vec<&String> = now.properties.keys().filter(|name| name.starts_with("Ingress tcp/22 ")).collect();
    assert_eq!(open, ["Ingress tcp/22 192.0.2.5/32", "Ingress tcp/22 203.0.113.9/32"]);
}

/// A machine that somebody has stopped is the machine: it is started, and with the others taken away.
#[tokio::test]
async fn what_stands_still_is_neither_made_again_nor_left_behind() {
    let world = World::new("zones = 1");
    world.process(None).await.unwrap().unwrap();
    let machine = world.id("instance", "edge-lab-bastion");
    let census = world.census();
    let stop = [("State".to_owned(), String::new())].into();
    world.cloud().modify(Kind::Instance, &machine, &stop).await.unwrap();
    world.process(None).await.unwrap().unwrap();
    assert_eq!((world.census(), world.id("instance", "edge-lab-bastion")), (census, machine.clone()));
    assert_eq!(world.cloud().get(Kind::Instance, &machine).await.unwrap().state, "running");
    assert!(world.calls.lock().unwrap().iter().any(|call| call.starts_with("ec2:StartInstances")));

    world.cloud().modify(Kind::Instance, &machine, &stop).await.unwrap();
    assert_eq!(world.tear_down(None).await.unwrap().blocked, []);
    assert_eq!(world.census(), BTreeMap::new());
}

/// Somebody stops the bastion in the middle of a run: whoever watches reads so while the link is still tried.
#[tokio::test]
async fn a_bastion_that_no_longer_answers_is_asked_about() {
    use bartizan::diagnose::Catalogue;
    use bartizan::model::event::{LinkName, LinkState};
    use bartizan::stages::{diagnosis, lookout};
    let world = World::new("zones = 1");
    world.process(None).await.unwrap().unwrap();
    let machine = world.id("instance", "edge-lab-bastion");
    let stage = crate::stage::Stage::new(world.spec.clone(), None, |_| {}).await;
    let before = world.cloud().get(Kind::Instance, &machine).await.unwrap();
    stage
        .know(&[("bastion.instance", &machine), ("bastion.address", before.property("PublicIpAddress").unwrap())])
        .await;
    let cx = stage.cx("02-bastion/machine").await;
    let (_tap, tapped) = tokio::sync::mpsc::channel(1);
    let (model, events) = stage.follow().await;
    diagnosis::start(&Catalogue::builtin().unwrap(), &cx.world.run_dir, &model, tapped, events, cx.sink.clone());
    let (model, events) = stage.follow().await;
    let watch = lookout::Watch { grace: Duration::from_millis(20), every: Duration::from_millis(20) };
    lookout::start(Arc::new(world.cloud()), &model, events, cx.sink.clone(), watch);
    let link = |state| Data::Link { link: LinkName::Ssh, state };
    let reads = async |signature: &'static str, open: bool| {
        for _ in 0..500 {
            let model = stage.model().await;
            let found = model.findings.iter().find(|record| record.finding.signature == signature);
            if found.is_some_and(|record| record.cleared.is_none() == open) {
                return found.unwrap().finding.title.clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{signature} is not {}: {:#?}", if open { "open" } else { "cleared" }, stage.model().await.findings);
    };
    let stop = [("State".to_owned(), String::new())].into();
    world.cloud().modify(Kind::Instance, &machine, &stop).await.unwrap();
    stage.record(link(LinkState::Down { why: "Connection timed out".into() })).await;
    let title = reads("BASTION-STOPPED", true).await;
    assert!(title.contains(&machine), "{title}");
    // Somebody starts it: it has another address, at which nobody looks for it yet.
    world.cloud().modify(Kind::Instance, &machine, &[("State".to_owned(), "running".to_owned())].into()).await.unwrap();
    reads("BASTION-MOVED", true).await;
    stage.record(link(LinkState::Up)).await;
    reads("BASTION-STOPPED", false).await;
    reads("BASTION-MOVED", false).await;
    world.cloud().delete(Kind::Instance, &machine).await.unwrap();
    stage.record(link(LinkState::Retrying { in_ms: 1, attempt: 2, why: "Connection refused".into() })).await;
    reads("BASTION-LOST", true).await;
}
