//! What AWS does to whoever calls it: throttling, lost answers, slow states, refusals. The real program comes through, and
//! tells of what has changed behind its back.

use super::census::made;
use super::kill::{IMAGES, World, ended_well, sshd};
use super::moto::Moto;
use super::proxy::Fault;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throttled_unanswered_and_slow_it_makes_one_set_and_takes_it_away() {
    let moto = Moto::with_images(IMAGES).await;
    let home = tempfile::tempdir().unwrap();
    let sshd = sshd(home.path());
    let plain = World::new(moto.url(), 500, &sshd).await;
    let before = plain.account.census().await;
    let run = plain.install(false, None).await;
    ended_well(&run, "the run").unwrap_or_else(|wrong| panic!("{wrong}"));
    let one_set = made(&before, &plain.account.census().await);

    // As it was made, until somebody comes.
    let status = plain.status().await;
    assert_eq!(status.status.code(), Some(0), "{}", status.output);
    let endpoints = plain.account.ec2("DescribeVpcEndpoints").await;
    let endpoint =
        endpoints.split("<vpcEndpointId>").nth(1).and_then(|rest| rest.split('<').next()).unwrap().to_owned();
    plain.account.ec2(&format!("DeleteVpcEndpoints&VpcEndpointId.1={endpoint}")).await;
    let status = plain.status().await;
    assert_eq!(status.status.code(), Some(1), "{}", status.output);
    let line = status.output.lines().find(|line| line.contains(&endpoint)).unwrap_or_default();
    assert!(line.contains("missing") && line.contains("vpc-endpoint"), "{}", status.output);
    assert!(status.output.contains("1 differences"), "{}", status.output);
    ended_well(&plain.cleanup(None).await, "the cleanup").unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(plain.account.census().await, before);

    let world = World::new(moto.url(), 501, &sshd).await;
    let before = world.account.census().await;
    world.proxy.slow(3);
    for action in ["ec2:CreateSubnet", "ec2:DescribeVpcs", "ec2:CreateRoute", "ec2:TerminateInstances"] {
        world.proxy.fault(action, Fault::Code("RequestLimitExceeded"), 3);
    }
    for action in
        ["ec2:CreateVpc", "ec2:CreateVpcEndpoint", "ec2:RunInstances", "ec2:AllocateAddress", "ec2:DeleteSubnet"]
    {
        world.proxy.fault(action, Fault::LostAnswer, 1);
    }
    world.proxy.fault("ec2:CreateInternetGateway", Fault::LostRequest, 1);
    world.proxy.fault("ec2:RunInstances", Fault::Code("InsufficientInstanceCapacity"), 1);
    world.proxy.fault("ec2:DeleteVpc", Fault::Code("DependencyViolation"), 2);
    let run = world.install(false, None).await;
    ended_well(&run, "the troubled run").unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(made(&before, &world.account.census().await), one_set);
    let cleanup = world.cleanup(None).await;
    ended_well(&cleanup, "the troubled cleanup").unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(world.account.census().await, before);
    let at = |action: &str| cleanup.changes.iter().rposition(|change| change == action);
    let order = [
        "ec2:TerminateInstances",
        "ec2:DeleteVpcEndpoints",
        "ec2:DeleteSecurityGroup",
        "ec2:DeleteSubnet",
        "ec2:DetachInternetGateway",
        "ec2:DeleteInternetGateway",
        "ec2:DeleteVpc",
    ];
    for pair in order.windows(2) {
        assert!(at(pair[0]).is_some() && at(pair[0]) < at(pair[1]), "{pair:?} in {:?}", cleanup.changes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_helped_ends_the_run_and_says_why() {
    let moto = Moto::with_images(IMAGES).await;
    let home = tempfile::tempdir().unwrap();
    let sshd = sshd(home.path());
    let world = World::new(moto.url(), 510, &sshd).await;
    let before = world.account.census().await;
    world.proxy.fault("ec2:CreateVpc", Fault::Code("VpcLimitExceeded"), 9);
    let run = world.install(false, None).await;
    assert_eq!(run.status.code(), Some(4), "{}", run.output);
    assert!(run.output.contains("VpcLimitExceeded"), "{}", run.output);
    ended_well(&world.cleanup(None).await, "the cleanup").unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(world.account.census().await, before, "nothing was made, nothing is left");
}

/// A cleanup that leaves something says what, why and whom to ask, and has an exit code of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cleanup_that_is_not_complete_says_so_and_is_gone_on_with() {
    let moto = Moto::with_images(IMAGES).await;
    let home = tempfile::tempdir().unwrap();
    let sshd = sshd(home.path());
    let world = World::new(moto.url(), 511, &sshd).await;
    let before = world.account.census().await;
    ended_well(&world.install(false, None).await, "the run").unwrap_or_else(|wrong| panic!("{wrong}"));
    world.proxy.fault("ec2:DeleteSecurityGroup", Fault::Code("UnauthorizedOperation"), 99);
    let cleanup = world.cleanup(None).await;
    assert_eq!(cleanup.status.code(), Some(11), "{}", cleanup.output);
    for words in ["objects could not be deleted", "security-group sg-", "UnauthorizedOperation", "DependencyViolation"]
    {
        assert!(cleanup.output.contains(words), "no {words:?} in {}", cleanup.output);
    }
    assert!(!world.findings().0.is_empty(), "{}", cleanup.output);
    let left = made(&before, &world.account.census().await);
    assert!(left.contains_key("security-group") && !left.contains_key("instance"), "{left:?}");
    world.proxy.heal();
    ended_well(&world.cleanup(None).await, "the second cleanup").unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(world.account.census().await, before);
}
