//! The users of the cluster's operators and the record `*.apps` through the real SDK.

use std::collections::BTreeMap;

use bartizan::cloud::identity::{keys, manifest_name};
use bartizan::cloud::policy::Policy;
use bartizan::cloud::{Kind, Tags, alias};
use bartizan::model::RunModel;

use super::moto::Moto;
use super::network::{IMAGES, World, wanted};
use crate::identity::identities;

const RUN: &str = "20261121-090000-1a2b";

/// What a process does; `held` is what the manifests on the bastion have, by their names.
async fn make(world: &World, held: &mut BTreeMap<String, String>) {
    let (ledger, recorder) = world.ledger();
    let identities = identities(RUN);
    ledger.ensure_users(RUN, &identities).await.unwrap_or_else(|error| panic!("{error}"));
    for identity in &identities {
        let name = manifest_name(identity);
        let key = ledger.ensure_key(&identity.user, held.get(&name).map(String::as_str)).await;
        if let Some(key) = key.unwrap_or_else(|error| panic!("{error}")) {
            assert!(key.secret.reveal().len() > 20);
            held.insert(name, key.id);
        }
    }
    drop(ledger);
    recorder.await.unwrap();
}

async fn ours(world: &World, kind: Kind) -> usize {
    world.cloud.find(kind, &Tags::from([("bartizan.run".into(), RUN.into())])).await.unwrap().len()
}

#[tokio::test]
async fn users_policies_and_keys_live_and_go() {
    let moto = Moto::with_images(IMAGES).await;
    let world = World::new(&moto, "").await;
    // Somebody else's, beside ours.
    let theirs = [("Name", "theirs"), ("bartizan.run", "20260101-000000-beef")];
    let user = [("UserName", "theirs"), ("Path", "/bartizan/20260101-000000-beef/")];
    world.cloud.create(&wanted(Kind::User, &user, &theirs)).await.unwrap();

    let mut held = BTreeMap::new();
    make(&world, &mut held).await;
    let calls = world.calls();
    assert_eq!(calls.iter().filter(|call| call.starts_with("iam:Create")).count(), 18, "{calls:?}");
    let identities = identities(RUN);
    assert_eq!((ours(&world, Kind::User).await, ours(&world, Kind::Policy).await), (6, 6));
    for identity in &identities {
        let user = world.cloud.get(Kind::User, &identity.user).await.unwrap();
        assert_eq!(keys(&user), [held[&manifest_name(identity)].as_str()]);
        assert_eq!(user.property("Path"), Some("/bartizan/20261121-090000-1a2b/"));
        let arn = user.property("PolicyArn").unwrap();
        let policy = world.cloud.get(Kind::Policy, arn).await.unwrap();
        let document: Policy = serde_json::from_str(policy.property("PolicyDocument").unwrap()).unwrap();
        assert_eq!(document, identity.policy);
    }

    let before = held.clone();
    make(&world, &mut held).await;
    assert_eq!(world.calls(), [""; 0], "nothing is asked for again");
    // The record is lost and so is one manifest; the tags are not. Only that key is another one.
    *world.model.lock().unwrap() = RunModel { run: RUN.into(), ..RunModel::default() };
    let lost = manifest_name(&identities[1]);
    held.remove(&lost);
    make(&world, &mut held).await;
    assert_eq!((ours(&world, Kind::User).await, ours(&world, Kind::Policy).await), (6, 6));
    let changed: Vec<_> = held.iter().filter(|(name, key)| before.get(*name) != Some(*key)).collect();
    assert_eq!(changed.len(), 1, "{changed:?}");

    // More versions than IAM keeps; the last one is used, and goes with the others.
    let arn = world.cloud.get(Kind::User, &identities[0].user).await.unwrap().properties["PolicyArn"].clone();
    for sid in ["a", "b", "c", "d", "e", "f"] {
        let mut policy = identities[0].policy.clone();
        policy.statement[0].sid = Some(sid.into());
        let one = [("PolicyDocument".to_owned(), policy.text())].into();
        world.cloud.modify(Kind::Policy, &arn, &one).await.unwrap_or_else(|error| panic!("{sid}: {error}"));
        let now = world.cloud.get(Kind::Policy, &arn).await.unwrap();
        assert_eq!(now.property("PolicyDocument"), Some(policy.text().as_str()));
    }

    assert_eq!(world.tear_down().await.blocked, []);
    assert_eq!((ours(&world, Kind::User).await, ours(&world, Kind::Policy).await), (0, 0));
    for identity in &identities {
        assert!(world.cloud.get(Kind::User, &identity.user).await.unwrap_err().is_not_found());
    }
    assert!(world.cloud.get(Kind::User, "theirs").await.is_ok());
}

#[tokio::test]
async fn apps_leads_to_the_balancer_by_its_own_zone() {
    const INFRA: &str = "edge-lab-x7k2p";
    let moto = Moto::with_images(IMAGES).await;
    let world = World::new(&moto, "").await;
    let cloud = &world.cloud;
    let vpc = cloud.create(&wanted(Kind::Vpc, &[("CidrBlock", "10.9.0.0/16")], &[])).await.unwrap().id;
    let zone = [("Name", "edge-lab.example.com"), ("VpcId", &*vpc), ("PrivateZone", "true")];
    let owned = [("kubernetes.io/cluster/edge-lab-x7k2p", "owned"), ("Name", "edge-lab-x7k2p-int")];
    let zone = cloud.create(&wanted(Kind::HostedZone, &zone, &owned)).await.unwrap().id;
    // No balancer answers to that name: the record is a name for a name.
    let host = "internal-a1b2-123.us-east-2.elb.amazonaws.com";
    let (ledger, recorder) = world.ledger();
    for _ in 0..2 {
        ledger.write_apps(&world.spec, INFRA, host).await.unwrap_or_else(|error| panic!("{error}"));
        let read = ledger.read_apps(&world.spec, INFRA, host).await.unwrap().unwrap();
        assert_eq!(read.answer, format!("CNAME *.apps.edge-lab.example.com → {host}"));
    }
    // One that follows its addresses takes the place of the other.
    let followed = [(alias("*.apps.edge-lab.example.com"), format!("Z3AADJGX6KTTL2 {host}"))].into();
    assert!(cloud.delete(Kind::HostedZone, &zone).await.unwrap_err().is_in_use());
    ledger.remove_apps(&world.spec, INFRA).await.unwrap();
    cloud.modify(Kind::HostedZone, &zone, &followed).await.unwrap();
    assert!(ledger.read_apps(&world.spec, INFRA, host).await.unwrap().is_some());
    let proof = ledger.remove_apps(&world.spec, INFRA).await.unwrap();
    assert_eq!(proof, format!("{zone} has no *.apps.edge-lab.example.com"));
    drop(ledger);
    recorder.await.unwrap();
    cloud.delete(Kind::HostedZone, &zone).await.unwrap();
}
