//! Who may do what: the permissions of the operator's account, and the users of the cluster's operators.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use bartizan::cloud::bastion::BastionInputs;
use bartizan::cloud::blueprint::{self, Item, assumed_zones};
use bartizan::cloud::identity::{
    self, Identity, keys, manifest, manifest_name, parse as parse_requests, read_manifest,
};
use bartizan::cloud::ledger::LedgerError;
use bartizan::cloud::memory::Fault;
use bartizan::cloud::permissions::{needed_actions, policies};
use bartizan::cloud::policy::{LONGEST, Policy};
use bartizan::cloud::{Cloud, Create, Kind, alias, cname, describe};
use bartizan::model::RunModel;
use bartizan::spec::secret::redact;
use bartizan::spec::{Spec, example, parse};

use crate::cloud::World;

fn spec(network: &str, credentials: &str) -> Spec {
    let text = example()
        .replace("[network]", &format!("[network]\n{network}"))
        .replace("[credentials]", &format!("[credentials]\n{credentials}"));
    parse(&text, "cluster.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

fn variants() -> Vec<Spec> {
    vec![
        spec("", ""),
        spec("variant = \"private\"\nzones = 3", ""),
        spec("variant = \"proxy\"", "mode = \"Passthrough\""),
        spec("variant = \"private\"", "mode = \"Manual\""),
    ]
}

/// Every call that making and taking away these items takes.
fn calls(items: &[Item]) -> BTreeSet<String> {
    let mut calls = BTreeSet::new();
    for item in items {
        let names = [describe::create_name(item.kind), describe::get_name(item.kind), describe::delete_name(item.kind)];
        calls.extend(names.map(str::to_owned));
        for property in item.then.keys() {
            calls.extend([false, true].map(|taken| describe::modify_name(item.kind, property, taken).to_owned()));
        }
    }
    calls
}

#[test]
fn whatever_is_made_may_be_made() {
    for spec in variants() {
        let zones = assumed_zones(&spec);
        let inputs = BastionInputs {
            operator_cidr: "198.51.100.7/32".into(),
            public_key: "ssh-ed25519 AAAA".into(),
            vpc: "vpc-1".into(),
            vpc_cidr: "10.0.0.0/16".into(),
            subnet: "subnet-1".into(),
            public: true,
            image: None,
            user_data: None,
        };
        let mut items = blueprint::network(&spec, &zones);
        items.extend(blueprint::bastion(&spec, &inputs));
        let allowed: BTreeSet<String> = needed_actions(&spec).into_iter().map(str::to_owned).collect();
        let mut called = calls(&items);
        // What a cluster may have left is looked for before anything of ours goes.
        called
            .extend([Kind::Instance, Kind::LoadBalancer, Kind::Volume].map(|kind| describe::get_name(kind).to_owned()));
        // The name of the kind's getter is not that of the right: s3:HeadBucket asks for s3:ListBucket.
        called.remove("s3:HeadBucket");
        let missing: Vec<_> = called.difference(&allowed).collect();
        assert!(missing.is_empty(), "{:?} lacks {missing:?}", spec.network.variant);
        assert!(allowed.contains("sts:GetCallerIdentity"));
    }
    let nat = |spec: &Spec| needed_actions(spec).contains(&"ec2:CreateNatGateway");
    let users = |spec: &Spec| needed_actions(spec).contains(&"iam:AttachUserPolicy");
    let table: Vec<(bool, bool)> = variants().iter().map(|spec| (nat(spec), users(spec))).collect();
    assert_eq!(table, [(false, true), (true, false), (false, false), (true, true)]);
}

/// Names of calls that are not the names of the rights for them (service authorization reference).
const RIGHTS: [(&str, &str); 7] = [
    ("s3:HeadBucket", "s3:ListBucket"),
    ("s3:ListBuckets", "s3:ListAllMyBuckets"),
    ("s3:DeleteObjects", "s3:DeleteObject"),
    ("s3:ListObjectVersions", "s3:ListBucketVersions"),
    ("s3:PutPublicAccessBlock", "s3:PutBucketPublicAccessBlock"),
    ("servicequotas:GetAwsDefaultServiceQuota", "servicequotas:GetAWSDefaultServiceQuota"),
    ("route53:ListHostedZonesByVpc", "route53:ListHostedZonesByVPC"),
];

/// Every call that stands in the code for AWS: `aws.ec2.create_vpc()` is `ec2:CreateVpc`.
#[test]
fn whatever_is_called_is_granted() {
    let clients = [
        ("ec2", "ec2"),
        ("elb", "elasticloadbalancing"),
        ("elb2", "elasticloadbalancing"),
        ("iam", "iam"),
        ("quotas", "servicequotas"),
        ("route53", "route53"),
        ("s3", "s3"),
        ("sts", "sts"),
    ];
    let call = regex::Regex::new(r"\b(?:aws|self)\s*\.(\w+)\s*\.(\w+)\(\)").unwrap();
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/cloud/aws"))];
    let mut called = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            for found in call.captures_iter(&std::fs::read_to_string(&path).unwrap()) {
                let Some((_, service)) = clients.iter().find(|(client, _)| *client == &found[1]) else { continue };
                let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
                called.insert(format!("{service}:{}", found[2].split('_').map(capital).collect::<String>()));
            }
        }
    }
    assert!(called.len() > 80, "{} calls were found", called.len());
    let granted: BTreeSet<String> = variants().iter().flat_map(needed_actions).map(str::to_owned).collect();
    let right =
        |call: &String| RIGHTS.iter().find(|(name, _)| name == call).map_or(call.clone(), |(_, to)| (*to).into());
    let missing: Vec<String> = called.iter().map(right).filter(|right| !granted.contains(right)).collect();
    assert!(missing.is_empty(), "nobody grants {missing:?}");
    let unused: Vec<_> = RIGHTS.iter().filter(|(name, _)| !called.contains(*name)).collect();
    assert!(unused.len() <= 1, "{unused:?}");
}

#[test]
fn the_policies_can_be_pasted() {
    for spec in variants() {
        let policies = policies(&spec);
        let mut granted = BTreeSet::new();
        for (name, policy) in &policies {
            assert!(policy.size() <= LONGEST, "{name}: {} characters", policy.size());
            assert_eq!(policy.version, "2012-10-17");
            let text = serde_json::to_string_pretty(policy).unwrap();
            assert_eq!(&serde_json::from_str::<Policy>(&text).unwrap(), policy);
            for statement in &policy.statement {
                assert!(!statement.action.is_empty() && !statement.resource.is_empty());
                granted.extend(statement.action.iter().cloned());
            }
        }
        assert_eq!(granted, needed_actions(&spec).into_iter().map(str::to_owned).collect());
        assert!(policies.len() <= 4, "{} policies", policies.len());
    }
    // Users and policies can be made, changed and deleted at our own path only.
    let mut gov = spec("", "");
    gov.aws.region = "us-gov-west-1".into();
    let text: String = policies_text(&gov);
    assert!(text.contains("arn:aws-us-gov:iam::*:user/bartizan/*"), "{text}");
    let open = |policy: &Policy| {
        policy
            .statement
            .iter()
            .any(|one| one.resource == ["*"] && one.action.iter().any(|action| action == "iam:AttachUserPolicy"))
    };
    assert!(!policies(&gov).iter().any(|(_, policy)| open(policy)));
}

fn policies_text(spec: &Spec) -> String {
    policies(spec).iter().map(|(_, policy)| policy.text()).collect()
}

/// The CredentialsRequests of the lab's release, in the format of a real one.
pub fn requests() -> Vec<identity::Request> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/credentials-requests");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let parsed = files.iter().map(|path| {
        let text = std::fs::read_to_string(path).unwrap();
        parse_requests(&path.display().to_string(), &text).unwrap_or_else(|error| panic!("{error}"))
    });
    parsed.flatten().collect()
}

pub fn identities(run: &str) -> Vec<Identity> {
    identity::identities(&identity::prefix("edge-lab", run), requests()).unwrap()
}

#[test]
fn requests_become_policies() {
    let identities = identities("run-1");
    let secrets: Vec<String> = identities.iter().map(|one| format!("{}/{}", one.namespace, one.secret)).collect();
    assert_eq!(
        secrets,
        [
            "openshift-cloud-credential-operator/cloud-credential-operator-iam-ro-creds",
            "openshift-cloud-network-config-controller/cloud-credentials",
            "openshift-cluster-csi-drivers/ebs-cloud-credentials",
            "openshift-image-registry/installer-cloud-credentials",
            "openshift-ingress-operator/cloud-credentials",
            "openshift-machine-api/aws-cloud-credentials",
        ]
    );
    let mut users = BTreeSet::new();
    for identity in &identities {
        assert!(identity.user.len() <= 64, "{}", identity.user);
        assert!(identity.policy_name.len() <= 128, "{}", identity.policy_name);
        assert!(users.insert(identity.user.clone()));
        // What IAM would read: the document element by element, in its own words.
        let text = identity.policy.text();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["Version"], "2012-10-17");
        let statements = document["Statement"].as_array().unwrap();
        assert!(!statements.is_empty());
        for statement in statements {
            let names: BTreeSet<&str> = statement.as_object().unwrap().keys().map(String::as_str).collect();
            assert!(names.is_subset(&BTreeSet::from(["Sid", "Effect", "Action", "Resource", "Condition"])));
            assert!(["Allow", "Deny"].contains(&statement["Effect"].as_str().unwrap()));
            let actions = statement["Action"].as_array().unwrap();
            assert!(actions.iter().all(|action| action.as_str().unwrap().split(':').count() == 2));
            assert_eq!(statement["Resource"], serde_json::json!(["*"]));
        }
        assert!(text.chars().filter(|c| !c.is_whitespace()).count() <= 6144);
    }
    let machines = identities.last().unwrap().policy.text();
    assert!(machines.contains(r#""Condition":{"Bool":{"kms:GrantIsForAWSResource":true}}"#), "{machines}");
    assert_eq!(identity::prefix("edge-lab", "a"), identity::prefix("edge-lab", "a"));
    assert_ne!(identity::prefix("edge-lab", "a"), identity::prefix("edge-lab", "b"));
}

#[test]
fn a_malformed_request_has_its_place() {
    let good = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/assets/credentials-requests/0000_50_cluster-ingress-operator_00-ingress-credentials-request.yaml"
    ))
    .unwrap();
    let wrong = |from: &str, to: &str| {
        assert!(good.contains(from));
        parse_requests("x.yaml", &format!("kind: Other\n---\n{}", good.replace(from, to))).unwrap_err().to_string()
    };
    let second = "x.yaml: document 2 (openshift-ingress): ";
    assert_eq!(
        wrong("effect: Allow", "effect: Maybe"),
        format!("{second}spec.providerSpec.statementEntries[0]: unknown variant `Maybe`, expected `Allow` or `Deny`")
    );
    assert_eq!(
        wrong("resource:", "resources:"),
        format!(
            "{second}spec.providerSpec.statementEntries[0]: unknown field `resources`, expected one of `effect`, `action`, \
             `resource`, `policyCondition`"
        )
    );
    assert_eq!(
        wrong("namespace: openshift-ingress-operator", "namespace: ../../etc"),
        format!("{second}spec.secretRef.namespace is not a name that Kubernetes takes")
    );
    assert!(wrong("    - effect", "   - effect").starts_with("x.yaml: document 2: it cannot be read: "));
    assert!(parse_requests("x.yaml", "").unwrap().is_empty());
}

#[test]
fn long_names_stay_apart() {
    let request = |secret: &str| identity::Request {
        name: "x".into(),
        namespace: "openshift-cloud-network-config-controller".into(),
        secret: secret.into(),
        statements: requests().remove(0).statements,
    };
    let long = "cloud-credentials-that-are-rather-long-".repeat(3);
    let both = vec![request(&format!("{long}a")), request(&format!("{long}b"))];
    let made = identity::identities(&identity::prefix("a-cluster-name-of-21ch", "run"), both).unwrap();
    assert_ne!(made[0].user, made[1].user);
    assert_ne!(made[0].policy_name, made[1].policy_name);
    assert!(made.iter().all(|one| one.user.len() <= 64 && one.policy_name.len() <= 128));
}

/// Where the manifests are: it outlives every process.
type Bastion = Mutex<BTreeMap<String, String>>;

/// A process: users, then for each its key, written down at once. With `dies_before` it never writes that one down.
async fn process(
    world: &World,
    bastion: &Bastion,
    dies_at: Option<usize>,
    dies_before: Option<usize>,
) -> Option<Result<(), LedgerError>> {
    let identities = identities("run-1");
    let (ledger, mut recorder) = world.ledger(dies_at);
    let work = async {
        ledger.ensure_users("run-1", &identities).await?;
        for (index, identity) in identities.iter().enumerate() {
            let file = bastion.lock().unwrap().get(&manifest_name(identity)).cloned();
            let held = file.and_then(|text| read_manifest(&text)).and_then(|(_, _, key)| key);
            let made = ledger.ensure_key(&identity.user, held.as_deref()).await?;
            if Some(index) == dies_before {
                return Ok(());
            }
            if let Some(key) = made {
                let text = manifest(identity, &key).reveal().to_owned();
                bastion.lock().unwrap().insert(manifest_name(identity), text);
            }
        }
        Ok(())
    };
    let done = tokio::select! {
        done = work => done,
        _died = &mut recorder => return None,
    };
    drop(ledger);
    let _joined = recorder.await;
    Some(done)
}

/// Exactly one user, policy and key for each, and the key is the one in the manifest.
async fn assert_one_of_each(world: &World, bastion: &Bastion, when: &str) {
    let identities = identities("run-1");
    let wanted = BTreeMap::from([(Kind::User, identities.len()), (Kind::Policy, identities.len())]);
    assert_eq!(world.census(), wanted, "{when}");
    for identity in &identities {
        let user = world.cloud().get(Kind::User, &identity.user).await.unwrap();
        let text = bastion.lock().unwrap().get(&manifest_name(identity)).cloned().unwrap_or_default();
        let (namespace, name, key) = read_manifest(&text).unwrap_or_else(|| panic!("{when}: {}", identity.user));
        assert_eq!((namespace, name), (identity.namespace.clone(), identity.secret.clone()));
        assert_eq!(keys(&user), [key.unwrap().as_str()], "{when}");
        assert!(user.property("PolicyArn").unwrap().ends_with(&identity.policy_name), "{when}");
    }
}

async fn assert_nothing_left(world: &World, when: &str) {
    let report = world.tear_down(None).await.unwrap();
    assert!(report.blocked.is_empty(), "{when}: {:?}", report.blocked);
    assert!(world.census().is_empty(), "{when}: {:?}", world.census());
}

#[tokio::test]
async fn twice_is_once_and_no_key_is_made_anew() {
    let (world, bastion) = (World::new(""), Bastion::default());
    process(&world, &bastion, None, None).await.unwrap().unwrap();
    assert_one_of_each(&world, &bastion, "once").await;
    let (calls, before) = (world.state(|state| state.calls), bastion.lock().unwrap().clone());
    process(&world, &bastion, None, None).await.unwrap().unwrap();
    assert_eq!(world.state(|state| state.calls), calls, "nothing was changed");
    assert_eq!(*bastion.lock().unwrap(), before);
    // No secret is in what was recorded, and each is known to the redactor.
    let recorded = format!("{:?} {:?}", world.model.lock().unwrap(), world.calls.lock().unwrap());
    for text in before.values() {
        let secret = text.lines().find_map(|line| line.split("aws_secret_access_key: ").nth(1)).unwrap();
        let secret = secret.trim_matches('"');
        assert!(secret.len() > 20 && !recorded.contains(secret));
        assert!(!redact(&format!("oc said {secret}")).contains(secret));
    }
    // A manifest that is lost: its key is replaced, the others stay.
    let lost = manifest_name(&identities("run-1")[2]);
    bastion.lock().unwrap().remove(&lost);
    process(&world, &bastion, None, None).await.unwrap().unwrap();
    assert_one_of_each(&world, &bastion, "one lost").await;
    let changed = bastion.lock().unwrap().iter().filter(|(name, text)| before.get(*name) != Some(text)).count();
    assert_eq!(changed, 1);
    assert_nothing_left(&world, "at the end").await;
}

#[tokio::test]
async fn killed_between_any_two_calls() {
    let (world, bastion) = (World::new(""), Bastion::default());
    process(&world, &bastion, None, None).await.unwrap().unwrap();
    let calls = world.state(|state| state.calls);
    assert_eq!(calls, 4 * 6, "policy, user, attachment and key for each");
    let mut ended = 0;
    for fault in [Fault::LostRequest, Fault::LostResponse] {
        for call in 1..=calls {
            let (world, bastion) = (World::new(""), Bastion::default());
            let when = format!("{fault:?} at call {call}");
            world.state(|state| state.faults.insert(call, fault));
            // What may be asked again is asked again; at the rest the process ends, and another one goes on.
            ended += usize::from(process(&world, &bastion, None, None).await.unwrap().is_err());
            process(&world, &bastion, None, None).await.unwrap().unwrap_or_else(|error| panic!("{when}: {error}"));
            assert_one_of_each(&world, &bastion, &when).await;
            assert_nothing_left(&world, &when).await;
        }
    }
    assert!(ended >= 2 * 6, "a key is never asked for twice by the same process: {ended}");
}

#[tokio::test]
async fn killed_at_any_event_or_before_a_key_is_written_down() {
    let mut deaths = 0;
    for commit in 1.. {
        let (world, bastion) = (World::new(""), Bastion::default());
        if process(&world, &bastion, Some(commit), None).await.is_some() {
            break;
        }
        deaths += 1;
        let when = format!("dead at event {commit}");
        if commit % 2 == 0 {
            // Whoever gives up at that point has nothing left over either.
            assert_nothing_left(&world, &when).await;
            continue;
        }
        process(&world, &bastion, None, None).await.unwrap().unwrap_or_else(|error| panic!("{when}: {error}"));
        assert_one_of_each(&world, &bastion, &when).await;
        assert_nothing_left(&world, &when).await;
    }
    assert_eq!(deaths, 2 * 2 * 6, "an intent and an answer for each policy and user");
    for index in 0..identities("run-1").len() {
        let (world, bastion) = (World::new(""), Bastion::default());
        // Three times in a row: IAM keeps two keys, and no more.
        for _ in 0..3 {
            process(&world, &bastion, None, Some(index)).await.unwrap().unwrap();
        }
        process(&world, &bastion, None, None).await.unwrap().unwrap();
        assert_one_of_each(&world, &bastion, &format!("key {index} was never written down")).await;
        assert_nothing_left(&world, "after that").await;
    }
}

#[tokio::test]
async fn a_policy_that_was_changed_is_put_right() {
    let (world, bastion) = (World::new(""), Bastion::default());
    process(&world, &bastion, None, None).await.unwrap().unwrap();
    let identity = identities("run-1").remove(0);
    let user = world.cloud().get(Kind::User, &identity.user).await.unwrap();
    let arn = user.property("PolicyArn").unwrap();
    world.cloud().set_property(arn, "PolicyDocument", "{}").unwrap();
    process(&world, &bastion, None, None).await.unwrap().unwrap();
    let policy = world.cloud().get(Kind::Policy, arn).await.unwrap();
    assert_eq!(policy.property("PolicyDocument"), Some(identity.policy.text().as_str()));
    assert_nothing_left(&world, "at the end").await;
}

const HOST: &str = "internal-a1b2-123.us-east-2.elb.amazonaws.com";
const INFRA: &str = "edge-lab-x7k2p";

/// A cluster's zone and the router's balancer, as installer and cluster leave them.
async fn cluster(world: &World, balancer: bool) -> String {
    let tags: bartizan::cloud::Tags = [(format!("kubernetes.io/cluster/{INFRA}"), "owned".to_owned())].into();
    let create = |kind: Kind, properties: &[(&str, &str)]| Create {
        kind,
        tags: tags.clone(),
        properties: properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        token: format!("{kind:?}"),
    };
    let domain = format!("{}.", world.spec.domain());
    let zone = world.cloud().create(&create(Kind::HostedZone, &[("Name", &domain)])).await.unwrap();
    if balancer {
        let named = [("DNSName", HOST), ("CanonicalHostedZoneId", "Z3AADJGX6KTTL2")];
        world.cloud().create(&create(Kind::LoadBalancer, &named)).await.unwrap();
    }
    zone.id
}

async fn write(world: &World, dies_at: Option<usize>) -> Option<Result<(), LedgerError>> {
    let (ledger, mut recorder) = world.ledger(dies_at);
    let written = tokio::select! {
        written = ledger.write_apps(&world.spec, INFRA, HOST) => written,
        _died = &mut recorder => return None,
    };
    drop(ledger);
    let _joined = recorder.await;
    Some(written)
}

async fn record(world: &World, zone: &str, property: &str) -> Option<String> {
    world.cloud().get(Kind::HostedZone, zone).await.unwrap().property(property).map(str::to_owned)
}

#[tokio::test]
async fn apps_leads_to_the_router_and_goes_again() {
    let name = "*.apps.edge-lab.example.com";
    for balancer in [true, false] {
        let world = World::new("");
        let zone = cluster(&world, balancer).await;
        let (property, value) = match balancer {
            true => (alias(name), format!("Z3AADJGX6KTTL2 {HOST}")),
            false => (cname(name), HOST.to_owned()),
        };
        for dies_at in [Some(1), Some(2), None] {
            let _died_or_not = write(&world, dies_at).await;
        }
        assert_eq!(record(&world, &zone, &property).await, Some(value));
        let (ledger, recorder) = world.ledger(None);
        let read = ledger.read_apps(&world.spec, INFRA, HOST).await.unwrap().unwrap();
        assert!(read.answer.contains(HOST), "{read:?}");
        assert!(ledger.read_apps(&world.spec, INFRA, "other.example.com").await.unwrap().is_none());
        for _ in 0..2 {
            let proof = ledger.remove_apps(&world.spec, INFRA).await.unwrap();
            assert_eq!(proof, format!("{zone} has no {name}"));
        }
        drop(ledger);
        let _joined = recorder.await;
        assert_eq!(record(&world, &zone, &property).await, None);
        let model: RunModel = world.model.lock().unwrap().clone();
        assert!(model.objects.values().all(|record| record.gone.is_some()), "{:?}", model.objects);
    }
}

#[tokio::test]
async fn apps_needs_the_zone_of_this_cluster() {
    let world = World::new("");
    let refused = write(&world, None).await.unwrap().unwrap_err().to_string();
    assert_eq!(refused, "there is no private zone edge-lab.example.com that belongs to edge-lab-x7k2p");
    let (ledger, recorder) = world.ledger(None);
    let proof = ledger.remove_apps(&world.spec, INFRA).await.unwrap();
    assert_eq!(proof, "there is no private zone edge-lab.example.com of edge-lab-x7k2p");
    drop(ledger);
    let _joined = recorder.await;
    // A lost answer: the record is there once, and is found again.
    let zone = cluster(&world, true).await;
    let next = world.state(|state| state.calls) + 1;
    world.state(|state| state.faults.insert(next, Fault::LostResponse));
    write(&world, None).await.unwrap().unwrap();
    let calls = world.state(|state| state.calls);
    write(&world, None).await.unwrap().unwrap();
    assert_eq!(world.state(|state| state.calls), calls, "it is right already");
    assert!(record(&world, &zone, &alias("*.apps.edge-lab.example.com")).await.is_some());
}
