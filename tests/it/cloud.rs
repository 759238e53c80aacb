//! The cloud side of a run: one set of everything whatever happens, and nothing left afterwards.

mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bartizan::cloud::bastion::{self, BastionInputs, ensure_bastion, host_keys_from_console, survey_bastion};
use bartizan::cloud::ledger::{Ledger, LedgerError, Patience};
use bartizan::cloud::memory::{Fault, MemoryCloud, State};
use bartizan::cloud::teardown::{self, Report, teardown};
use bartizan::cloud::vpc::{self, Network, ensure_network, survey_network};
use bartizan::cloud::{Cloud, Create, Kind, Tags};
use bartizan::model::event::{Action, Data, Event};
use bartizan::model::plan::StepId;
use bartizan::model::{RunModel, reduce};
use bartizan::record::Sink;
use bartizan::record::sink::Entry;
use bartizan::spec::{Spec, example, parse};
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

const PATIENCE: Patience = Patience {
    first: Duration::from_millis(1),
    slowest: Duration::from_millis(5),
    appear: Duration::from_millis(500),
    settle: Duration::from_millis(40),
    ready: Duration::from_secs(5),
    gone: Duration::from_secs(5),
    unblocked: Duration::from_millis(60),
};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEkp6pYb2xSgVjgSRVmtqcYHVL6CZsA1k0mmLnL1lvQj";

/// A run on disk and a cloud in a file: what outlives the process.
pub struct World {
    folder: tempfile::TempDir,
    pub spec: Spec,
    pub model: Arc<Mutex<RunModel>>,
    /// Calls that changed something, as they were recorded.
    pub calls: Arc<Mutex<Vec<String>>>,
}

impl World {
    pub fn new(network: &str) -> Self {
        let text = example().replace("[network]", &format!("[network]\n{network}"));
        let spec = parse(&text, "cluster.toml").unwrap_or_else(|errors| panic!("{errors}"));
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let model = RunModel { run: "run-1".into(), ..RunModel::default() };
        let world = Self { folder, spec, model: Arc::new(Mutex::new(model)), calls: Arc::default() };
        world.state(|state| state.settings.pace_ms = 2);
        world
    }

    pub fn cloud(&self) -> MemoryCloud {
        MemoryCloud::open(self.folder.path().join("cloud.json")).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn state<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        self.cloud().with_state(change).unwrap_or_else(|error| panic!("{error}"))
    }

    /// What a new process has; its recorder dies at the `dies_at`th committed event, with that event on disk.
    pub fn ledger(&self, dies_at: Option<usize>) -> (Ledger, tokio::task::JoinHandle<Unanswered>) {
        let (sink, entries) = Sink::channel(16);
        let model = self.model.lock().map(|model| model.clone()).unwrap_or_default();
        let recorder = tokio::spawn(record(entries, self.model.clone(), self.calls.clone(), dies_at));
        let cloud = Arc::new(self.cloud());
        let step = StepId::new("01-infrastructure/network");
        let ledger = Ledger::new(cloud, sink, CancellationToken::new(), step, &self.spec, &model);
        (ledger.with_patience(PATIENCE), recorder)
    }

    async fn make(&self, ledger: &Ledger) -> Result<Network, LedgerError> {
        let network = ensure_network(ledger, &self.spec).await?;
        let inputs = BastionInputs::new(&network, "198.51.100.7/32", KEY)?;
        ensure_bastion(ledger, &self.spec, &inputs).await?;
        Ok(network)
    }

    /// A whole process: make everything, or die on the way.
    async fn process(&self, dies_at: Option<usize>) -> Option<Result<Network, LedgerError>> {
        let (ledger, mut recorder) = self.ledger(dies_at);
        let made = tokio::select! {
            made = self.make(&ledger) => made,
            _died = &mut recorder => return None,
        };
        drop(ledger);
        let _joined = recorder.await;
        Some(made)
    }

    pub async fn tear_down(&self, infra_id: Option<&str>) -> Result<Report, LedgerError> {
        let (ledger, recorder) = self.ledger(None);
        let report = teardown(&ledger, infra_id).await;
        drop(ledger);
        let _joined = recorder.await;
        report
    }

    /// How many of each kind stand in the cloud, ours or not.
    pub fn census(&self) -> BTreeMap<Kind, usize> {
        self.state(|state| {
            let mut census = BTreeMap::new();
            for stored in state.objects.values().filter(|stored| !stored.resource.is_gone()) {
                *census.entry(stored.resource.kind).or_default() += 1;
            }
            census
        })
    }
}

/// Whom a dead recorder never answers: as long as this is kept nobody goes on.
type Unanswered = Option<tokio::sync::oneshot::Sender<()>>;

async fn record(
    mut entries: Receiver<Entry>,
    model: Arc<Mutex<RunModel>>,
    calls: Arc<Mutex<Vec<String>>>,
    dies_at: Option<usize>,
) -> Unanswered {
    let mut commits = 0;
    while let Some(entry) = entries.recv().await {
        let Entry::Event(data, done) = entry else { continue };
        if let (Data::StepAction { action: Action::Api { call }, exit: Some(0), .. }, Ok(mut calls)) =
            (&*data, calls.lock())
        {
            calls.push(call.clone());
        }
        if let Ok(mut model) = model.lock() {
            let event = Event { seq: model.seq + 1, at: jiff::Timestamp::now(), data: *data };
            reduce(&mut model, &event);
        }
        if let Some(done) = done {
            commits += 1;
            if Some(commits) == dies_at {
                return Some(done);
            }
            let _gone = done.send(());
        }
    }
    None
}

#[tokio::test]
async fn twice_is_once() {
    for (network, kinds) in [
        ("zones = 3", &[(Kind::Subnet, 6), (Kind::RouteTable, 4), (Kind::VpcEndpoint, 4), (Kind::HostedZone, 1)][..]),
        ("zones = 2\nvariant = \"private\"", &[(Kind::NatGateway, 2), (Kind::ElasticIp, 2), (Kind::VpcEndpoint, 1)]),
        ("variant = \"proxy\"", &[(Kind::VpcEndpoint, 3), (Kind::SecurityGroup, 2), (Kind::Instance, 1)]),
    ] {
        let world = World::new(network);
        let first = world.process(None).await.unwrap().unwrap();
        let census = world.census();
        for (kind, count) in kinds {
            assert_eq!(census.get(kind), Some(count), "{kind:?} of {network}");
        }
        let calls = world.state(|state| state.calls);
        let (ledger, recorder) = world.ledger(None);
        let (seen, survey) = survey_network(&ledger, &world.spec).await.unwrap();
        assert_eq!(seen.as_ref(), Some(&first), "{:?}", survey.missing);
        let inputs = BastionInputs::new(&first, "198.51.100.8/32", KEY).unwrap();
        let (_, survey) = survey_bastion(&ledger, &world.spec, &inputs).await.unwrap();
        assert_eq!(survey.missing.len(), 1, "the operator moved: {:?}", survey.missing);
        drop(ledger);
        recorder.await.unwrap();
        let second = world.process(None).await.unwrap().unwrap();
        assert_eq!(first, second);
        assert_eq!(world.census(), census);
        assert_eq!(world.state(|state| state.calls), calls, "nothing is asked for again");
        world.state(|state| {
            for stored in state.objects.values().filter(|stored| stored.resource.kind != Kind::RouteTableAssociation) {
                let tags = &stored.resource.tags;
                assert_eq!(tags.get("bartizan.run").unwrap(), "run-1");
                assert!(
                    !tags.iter().any(|(name, value)| name.starts_with("kubernetes.io/cluster/") && value == "owned")
                );
            }
        });
        // The record is lost, the tags are not.
        *world.model.lock().unwrap() = RunModel { run: "run-1".into(), ..RunModel::default() };
        assert_eq!(world.process(None).await.unwrap().unwrap(), first);
        assert_eq!(world.census(), census);
    }
}

#[tokio::test]
async fn the_plan_names_the_calls_that_are_made() {
    let world = World::new("zones = 2");
    world.process(None).await.unwrap().unwrap();
    let verbs = |calls: &[String]| -> Vec<String> {
        calls.iter().filter_map(|call| call.split(' ').next()).map(str::to_owned).collect()
    };
    let made = verbs(&world.calls.lock().unwrap());
    let plan: Vec<String> = vpc::preview(&world.spec)
        .into_iter()
        .chain(bastion::preview(&world.spec))
        .map(|action| match action {
            Action::Api { call } => call,
            other => panic!("{other:?}"),
        })
        // Looks change nothing and are no actions of a step.
        .filter(|call| !call.contains(":Describe"))
        .collect();
    let mut planned = verbs(&plan);
    // What only looks is no change.
    planned.retain(|verb| !verb.contains(":Describe"));
    assert_eq!(planned, made);
    assert!(plan.contains(&"ec2:CreateVpc CidrBlock=10.0.0.0/16 Tag:Name=edge-lab-vpc".to_owned()));
    assert!(
        plan.contains(
            &"ec2:CreateSubnet AvailabilityZone=us-east-2a CidrBlock=10.0.48.0/20 VpcId=<edge-lab-vpc> \
              Tag:Name=edge-lab-private-a"
                .to_owned()
        ),
        "{plan:#?}"
    );
}

#[tokio::test]
async fn a_lost_answer_at_any_call_leaves_one_set() {
    let whole = World::new("zones = 1");
    whole.process(None).await.unwrap().unwrap();
    let (calls, census) = (whole.state(|state| state.calls), whole.census());
    assert!(calls > 20);
    for fault in [Fault::LostResponse, Fault::LostRequest, Fault::Throttle] {
        for at in 1..=calls {
            let world = World::new("zones = 1");
            world.state(|state| state.faults.insert(at, fault));
            let first = world.process(None).await.unwrap();
            first.unwrap_or_else(|error| panic!("{fault:?} at {at}: {error}"));
            assert_eq!(world.census(), census, "{fault:?} at {at}");
            world.process(None).await.unwrap().unwrap_or_else(|error| panic!("{fault:?} at {at}: {error}"));
            assert_eq!(world.census(), census, "{fault:?} at {at}");
        }
    }
}

#[tokio::test]
async fn a_kill_at_any_event_leaves_one_set_and_then_nothing() {
    let census = {
        let world = World::new("zones = 1");
        world.process(None).await.unwrap().unwrap();
        world.census()
    };
    let mut at = 1;
    loop {
        let world = World::new("zones = 1");
        // New objects are seen only after a while: the next process must not take that for absence.
        world.state(|state| state.settings.visible_after_ms = 3);
        if let Some(ended) = world.process(Some(at)).await {
            ended.unwrap();
            break;
        }
        if at % 2 == 0 {
            world.process(None).await.unwrap().unwrap_or_else(|error| panic!("killed at {at}: {error}"));
            assert_eq!(world.census(), census, "killed at {at}");
        }
        let report = world.tear_down(None).await.unwrap();
        assert_eq!(report.blocked, [], "killed at {at}");
        assert_eq!(world.census(), BTreeMap::new(), "killed at {at}");
        assert_eq!(world.model.lock().unwrap().standing_objects(), []);
        at += 1;
    }
    assert!(at > 30, "{at}");
}

fn foreign(kind: Kind, properties: &[(&str, &str)], tags: &[(&str, &str)]) -> Create {
    let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Create { kind, tags: map(tags), properties: map(properties), token: String::new() }
}

#[tokio::test]
async fn teardown_takes_ours_and_names_what_blocks() {
    let world = World::new("zones = 2\nvariant = \"private\"");
    let cloud = world.cloud();
    // The same names, another run.
    let theirs = [("Name", "edge-lab-vpc"), ("bartizan.run", "run-0")];
    let vpc = cloud.create(&foreign(Kind::Vpc, &[("CidrBlock", "10.9.0.0/16")], &theirs)).await.unwrap();
    let subnet = [("CidrBlock", "10.9.0.0/20"), ("VpcId", &vpc.id)];
    cloud.create(&foreign(Kind::Subnet, &subnet, &theirs)).await.unwrap();
    cloud.create(&foreign(Kind::ElasticIp, &[], &[])).await.unwrap();
    let before = world.census();

    let network = world.process(None).await.unwrap().unwrap();
    let standing = world.model.lock().unwrap().standing_objects().len();
    assert_eq!(teardown::preview(&world.model.lock().unwrap()).len(), standing);
    let (in_subnet, _) = &network.private_subnets[0];
    let guest = cloud.create(&foreign(Kind::Instance, &[("SubnetId", in_subnet)], &[("Name", "guest")])).await.unwrap();
    let owned = [("kubernetes.io/cluster/edge-lab-x7k2p", "owned")];
    let group = [("VpcId", network.vpc.as_str()), ("GroupName", "edge-lab-x7k2p-node")];
    let left = cloud.create(&foreign(Kind::SecurityGroup, &group, &owned)).await.unwrap();

    let report = world.tear_down(Some("edge-lab-x7k2p")).await.unwrap();
    assert_eq!(report.gone, [], "the cluster goes first");
    assert_eq!(report.blocked.len(), 1);
    assert_eq!(report.blocked[0].id, left.id);
    cloud.delete(Kind::SecurityGroup, &left.id).await.unwrap();

    let report = world.tear_down(Some("edge-lab-x7k2p")).await.unwrap();
    let why: Vec<&str> = report.blocked.iter().map(|blocked| blocked.why.as_str()).collect();
    assert_eq!(report.blocked.len(), 2, "{why:#?}");
    assert!(why[0].contains("DependencyViolation") && why[0].contains(&guest.id), "{why:#?}");
    assert!(why[1].contains(in_subnet.as_str()), "{why:#?}");
    assert!(report.gone.iter().all(|gone| !gone.proof.is_empty()));

    cloud.delete(Kind::Instance, &guest.id).await.unwrap();
    let report = world.tear_down(None).await.unwrap();
    assert_eq!(report.blocked, []);
    assert_eq!(world.census(), before, "others' objects are untouched");
    assert_eq!(world.model.lock().unwrap().standing_objects(), []);
    assert!(report.gone.iter().any(|gone| gone.proof.contains("InvalidVpcID.NotFound")), "{report:#?}");
    assert_eq!(world.tear_down(None).await.unwrap(), Report::default());

    // A second life after the first: the tokens of the dead are not used again.
    world.process(None).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_lost_answer_at_any_deletion_leaves_nothing() {
    let mut after = 1;
    loop {
        // Whoever asks again finds it done.
        let world = World::new("zones = 1");
        world.process(None).await.unwrap().unwrap();
        let made = world.state(|state| state.calls);
        let fault = if after % 2 == 0 { Fault::LostResponse } else { Fault::LostRequest };
        world.state(|state| state.faults.insert(made + after, fault));
        let first = world.tear_down(None).await.unwrap();
        assert_eq!(first.blocked, [], "{fault:?} at {after}");
        let done = world.state(|state| state.calls) < made + after;
        assert_eq!(world.census(), BTreeMap::new(), "{fault:?} at {after}");
        assert_eq!(world.model.lock().unwrap().standing_objects(), []);
        if done {
            break;
        }
        after += 1;
    }
    assert!(after > 15, "{after}");
}

#[tokio::test]
async fn an_existing_network_is_taken_as_it_is() {
    let world = World::new("");
    let cloud = world.cloud();
    let vpc = cloud.create(&foreign(Kind::Vpc, &[("CidrBlock", "10.9.0.0/16")], &[])).await.unwrap();
    let place = [("CidrBlock", "10.9.0.0/20"), ("VpcId", &vpc.id), ("AvailabilityZone", "us-east-2b")];
    let subnet = cloud.create(&foreign(Kind::Subnet, &place, &[])).await.unwrap();
    let main = [("VpcId", vpc.id.as_str()), ("Main", "true")];
    let table = cloud.create(&foreign(Kind::RouteTable, &main, &[])).await.unwrap();
    let text = |add: &str| {
        format!(
            "[network.existing]\nvpc_id = \"{}\"\nprivate_subnets = [\"{}\"]\nadd_endpoints = [{add}]\n\n[bastion]",
            vpc.id, subnet.id
        )
    };
    let spec = |add: &str| parse(&example().replace("[bastion]", &text(add)), "cluster.toml").unwrap();
    let (ledger, recorder) = world.ledger(None);
    let refused = ensure_network(&ledger, &spec("\"s3\", \"sts\"")).await.unwrap_err().to_string();
    assert!(refused.contains("has no endpoint com.amazonaws.us-east-2.ec2") && !refused.contains("sts"), "{refused}");
    assert_eq!(world.census().values().sum::<usize>(), 3, "nothing is made before all of it fits");

    for attribute in ["EnableDnsSupport", "EnableDnsHostnames"] {
        cloud.set_property(&vpc.id, attribute, "true").unwrap();
    }
    let whole = spec("\"s3\", \"sts\", \"ec2\", \"elasticloadbalancing\"");
    let (network, survey) = survey_network(&ledger, &whole).await.unwrap();
    assert!(network.is_none() && survey.missing.len() == 5, "{survey:#?}");
    for _ in 0..2 {
        let network = ensure_network(&ledger, &whole).await.unwrap();
        assert_eq!(network.private_subnets, [(subnet.id.clone(), "us-east-2b".to_owned())]);
        assert_eq!(network.vpc_cidr, "10.9.0.0/16");
        assert_eq!(world.census().values().sum::<usize>(), 8, "four endpoints and their group");
    }
    let (network, _) = survey_network(&ledger, &whole).await.unwrap();
    assert!(network.is_some());
    drop(ledger);
    recorder.await.unwrap();
    let report = world.tear_down(None).await.unwrap();
    assert_eq!((report.gone.len(), report.blocked), (5, Vec::new()));
    let left: Vec<String> = world.state(|state| state.objects.keys().cloned().collect());
    let theirs = BTreeSet::from([vpc.id.clone(), subnet.id.clone(), table.id]);
    assert_eq!(left.into_iter().collect::<BTreeSet<_>>(), theirs, "what is theirs stays");
}

#[tokio::test]
async fn the_file_is_private_and_shared() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new("");
    let makers: Vec<_> = (0..4)
        .map(|_| {
            let cloud = world.cloud();
            std::thread::spawn(move || (0..25).filter(|_| cloud.with_state(|state| state.made += 1).is_ok()).count())
        })
        .collect();
    let made: usize = makers.into_iter().map(|maker| maker.join().unwrap_or(0)).sum();
    assert_eq!(made, 100);
    assert_eq!(world.state(|state| state.made), 100);
    let mode = std::fs::metadata(world.folder.path().join("cloud.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let nothing = world.cloud().find(Kind::Vpc, &Tags::new()).await.unwrap();
    assert!(nothing.is_empty());
}

#[test]
fn host_keys_are_read_from_the_console() {
    let console = format!(
        "[   21.1] cloud-init[812]: -----BEGIN SSH HOST KEY KEYS-----\n\
         [   21.2] cloud-init[812]: ssh-ed25519 AAAAold root@ip-10-0-0-10\n\
         -----END SSH HOST KEY KEYS-----\n\
         -----BEGIN SSH HOST KEY KEYS-----\r\n[   9.2] cloud-init[812]: {KEY} root@ip-10-0-0-10\r\n\
         -----END SSH HOST KEY KEYS-----\r\n{KEY} not-a-host-key\n"
    );
    assert_eq!(host_keys_from_console(&console), [KEY]);
    assert!(host_keys_from_console("").is_empty());
}
