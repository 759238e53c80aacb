//! Who may do what: the permissions of the operator's account, and the users of the cluster's operators.

use std::collections::BTreeSet;

use bartizan::cloud::bastion::BastionInputs;
use bartizan::cloud::blueprint::{self, Item, assumed_zones};
use bartizan::cloud::permissions::{needed_actions, policies};
use bartizan::cloud::policy::{LONGEST, Policy};
use bartizan::cloud::{Kind, describe};
use bartizan::spec::{Spec, example, parse};

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
