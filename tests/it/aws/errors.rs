//! What AWS refuses, from its answer on the wire to what the operator reads: the real step, the SDK, the finding.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_ec2::config::Credentials;
use bartizan::cloud::aws::{Aws, loader};
use bartizan::cloud::preflight::{Check, State};
use bartizan::cloud::{Cloud, Patience};
use bartizan::engine::StepError;
use bartizan::spec::{Spec, example, parse};

use super::kill::IMAGES;
use super::moto::Moto;
use super::proxy::{Fault, Proxy};
use crate::stage::Stage;
use crate::trouble::{finding, is_whole};

const PREFLIGHT: &str = "01-infrastructure/preflight";
const NETWORK: &str = "01-infrastructure/network";
const MACHINE: &str = "02-bastion/machine";
const CLEANUP: &str = "10-cleanup/infrastructure";

const ENCODED: &str =
    "You are not authorized to perform this operation. Encoded authorization failure message: 4GIOHlTkIa";
const DECODED: &str = r#"{"allowed": false, "explicitDeny": false, "matchedStatements": {"items": []}, "context": {"action":
    "ec2:CreateInternetGateway", "resource": "arn:aws:ec2:us-east-2:123456789012:internet-gateway/*"}}"#;

/// Step, call, what is answered, the finding, and what the operator reads besides its title.
const CASES: &[(&str, &str, Fault, &str, &str)] = &[
    (
        PREFLIGHT,
        "sts:GetCallerIdentity",
        Fault::Says("InvalidClientTokenId", "The security token included in the request is invalid."),
        "AWS-CREDS",
        "security token",
    ),
    (
        PREFLIGHT,
        "sts:GetCallerIdentity",
        Fault::Says("ExpiredToken", "The security token included in the request is expired"),
        "AWS-CREDS",
        "expired",
    ),
    (
        PREFLIGHT,
        "sts:GetCallerIdentity",
        Fault::Says(
            "SignatureDoesNotMatch",
            "Signature expired: 20261121T101112Z is now earlier than 20261121T101612Z (20261121T103112Z - 15 min.)",
        ),
        "AWS-CLOCK",
        "clock",
    ),
    (PREFLIGHT, "sts:GetCallerIdentity", Fault::Says("Throttling", "Rate exceeded"), "AWS-THROTTLE", "Rate exceeded"),
    (NETWORK, "ec2:CreateVpc", Fault::Code("AuthFailure"), "AWS-CREDS", "credentials"),
    (NETWORK, "ec2:CreateVpc", Fault::Later("AuthFailure", 11), "AWS-CLOCK", "clock is 11 min behind AWS"),
    (NETWORK, "ec2:CreateVpc", Fault::Says("RequestExpired", "Request has expired."), "AWS-CLOCK", "clock"),
    (
        NETWORK,
        "ec2:CreateInternetGateway",
        Fault::Says("UnauthorizedOperation", ENCODED),
        "AWS-DENIED",
        "ec2:CreateInternetGateway on arn:aws:ec2:us-east-2:123456789012:internet-gateway/*: no policy allows it",
    ),
    (
        NETWORK,
        "ec2:CreateSubnet",
        Fault::Says(
            "UnauthorizedOperation",
            "You are not authorized to perform: ec2:CreateSubnet with an explicit deny in a service control policy",
        ),
        "AWS-SCP",
        "organization",
    ),
    (NETWORK, "ec2:CreateVpc", Fault::Says("OptInRequired", "You are not subscribed."), "AWS-ACCOUNT", "subscribed"),
    (NETWORK, "ec2:CreateVpc", Fault::Code("VpcLimitExceeded"), "AWS-LIMITS", "vpc/L-F678F1CE"),
    (NETWORK, "ec2:CreateInternetGateway", Fault::Code("InternetGatewayLimitExceeded"), "AWS-LIMITS", "vpc/L-A4707A72"),
    (NETWORK, "ec2:AllocateAddress", Fault::Code("AddressLimitExceeded"), "AWS-LIMITS", "ec2/L-0263D0A3"),
    (NETWORK, "ec2:CreateNatGateway", Fault::Code("NatGatewayLimitExceeded"), "AWS-LIMITS", "vpc/L-FE5A380F"),
    (NETWORK, "ec2:CreateVpcEndpoint", Fault::Code("VpcEndpointLimitExceeded"), "AWS-LIMITS", "vpc/L-29B6F2EB"),
    (
        NETWORK,
        "ec2:CreateRouteTable",
        Fault::Says("RequestLimitExceeded", "Request limit exceeded."),
        "AWS-THROTTLE",
        "Request limit exceeded",
    ),
    (
        NETWORK,
        "ec2:CreateSubnet",
        Fault::Says("InvalidVpcID.NotFound", "The vpc ID 'vpc-0a1b' does not exist"),
        "AWS-GONE",
        "vpc-0a1b",
    ),
    (MACHINE, "ec2:CreateSecurityGroup", Fault::Code("SecurityGroupLimitExceeded"), "AWS-LIMITS", "vpc/L-E79EC296"),
    (
        MACHINE,
        "ec2:RunInstances",
        Fault::Says(
            "VcpuLimitExceeded",
            "You have requested more vCPU capacity than your current vCPU limit of 1 allows for the instance bucket that \
             the specified instance type belongs to.",
        ),
        "AWS-VCPU",
        "ec2/L-1216C47A",
    ),
    (
        MACHINE,
        "ec2:RunInstances",
        Fault::Says(
            "InsufficientInstanceCapacity",
            "We currently do not have sufficient m6i.large capacity in the Availability Zone you requested (us-east-2a). You \
             can currently get m6i.large capacity by not specifying an Availability Zone in your request or choosing \
             us-east-2b, us-east-2c.",
        ),
        "AWS-CAPACITY",
        "us-east-2b",
    ),
    (
        MACHINE,
        "ec2:RunInstances",
        Fault::Says(
            "Unsupported",
            "Your requested instance type (m6i.large) is not supported in your requested Availability Zone (us-east-2a).",
        ),
        "AWS-OFFERING",
        "m6i.large",
    ),
    (
        MACHINE,
        "ec2:RunInstances",
        Fault::Says("InsufficientFreeAddressesInSubnet", "There are not enough free addresses in subnet 'subnet-0a1b'"),
        "AWS-SUBNET-FULL",
        "subnet",
    ),
    (
        MACHINE,
        "ec2:RunInstances",
        Fault::Says("PendingVerification", "Your request for accessing resources in this region is being validated"),
        "AWS-ACCOUNT",
        "being validated",
    ),
    (
        MACHINE,
        "ec2:RunInstances",
        Fault::Says("InvalidAMIID.NotFound", "The image id '[ami-0123456789abcdef0]' does not exist"),
        "AWS-AMI",
        "bastion.ami",
    ),
    (
        MACHINE,
        "ec2:RunInstances",
        Fault::Says(
            "IdempotentParameterMismatch",
            "The client token you have provided is associated with another resource",
        ),
        "AWS-TOKEN",
        "token",
    ),
    (
        MACHINE,
        "route53:POST hostedzone",
        Fault::Says("TooManyHostedZones", "Limits Exceeded: MAX_HOSTED_ZONES_BY_OWNER"),
        "AWS-LIMITS",
        "MAX_HOSTED_ZONES_BY_OWNER",
    ),
    (
        CLEANUP,
        "ec2:DeleteVpcEndpoints",
        Fault::Unsuccessful("OperationNotPermitted", "Endpoint is requester-managed"),
        "AWS-FORBIDDEN",
        "requester-managed",
    ),
    (
        CLEANUP,
        "ec2:DeleteSubnet",
        Fault::Says("DependencyViolation", "The subnet 'subnet-0a1b' has dependencies and cannot be deleted."),
        "AWS-INUSE",
        "eni-",
    ),
    (
        CLEANUP,
        "ec2:DeleteVpc",
        Fault::Says("DependencyViolation", "The vpc 'vpc-0a1b' has dependencies and cannot be deleted."),
        "AWS-INUSE",
        "dependencies",
    ),
];

/// Everything takes a moment here.
const SOON: Patience = Patience {
    first: Duration::from_millis(2),
    slowest: Duration::from_millis(10),
    appear: Duration::from_millis(100),
    settle: Duration::from_millis(100),
    ready: Duration::from_secs(20),
    gone: Duration::from_secs(20),
    unblocked: Duration::from_millis(100),
};

struct Scene {
    proxy: Proxy,
    stage: Stage,
    cloud: Arc<dyn Cloud>,
    spec: Spec,
    _key: tempfile::TempDir,
}

impl Scene {
    async fn new(moto: &Moto, number: usize) -> Self {
        let proxy = Proxy::start(moto.url(), &format!("{:012}", 300_000_000_000 + number)).await;
        proxy.told(|told| told.decoded = Some(DECODED));
        let key = tempfile::tempdir().unwrap();
        let file = key.path().join("id.pub");
        std::fs::write(&file, super::network::KEY).unwrap();
        let text = example()
            .replace("[network]", "[network]\nzones = 1\nvariant = \"private\"")
            .replace("[bastion]", "[bastion]\nami = \"ami-0123456789abcdef0\"\noperator_cidr = \"198.51.100.7/32\"");
        let mut spec = parse(&text, "cluster.toml").unwrap_or_else(|errors| panic!("{errors}"));
        spec.credentials.ssh_public_key = file;
        let keys = Credentials::new("AKIAIOSFODNN7EXAMPLE", "example", None, None, "test");
        let config = loader(&spec.aws).unwrap().endpoint_url(proxy.url()).credentials_provider(keys).load().await;
        let cloud: Arc<dyn Cloud> = Arc::new(Aws::new(&config, &spec.aws).with_patience(SOON));
        let stage = Stage::new(spec.clone(), Some(cloud.clone()), |_| {}).await;
        Self { proxy, stage, cloud, spec, _key: key }
    }

    async fn must(&self, step: &str) {
        self.stage.once(step).await.unwrap_or_else(|error| panic!("{step}: {:?}", error.causes));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_refusal_ends_in_a_finding_that_says_what_to_do() {
    let moto = Moto::with_images(IMAGES).await;
    // Where the step begins with what the one before has made.
    let made = Scene::new(&moto, 900).await;
    made.must(NETWORK).await;
    let mut wrong = Vec::new();
    for (number, (step, call, fault, signature, reads)) in CASES.iter().enumerate() {
        let scene = match *step {
            MACHINE => None,
            _ => Some(Scene::new(&moto, number).await),
        };
        let scene = scene.as_ref().unwrap_or(&made);
        if *step == CLEANUP {
            scene.must(NETWORK).await;
            if reads == &"eni-" {
                scene.must(MACHINE).await;
            }
        }
        scene.proxy.fault(call, fault.clone(), 200);
        let error = scene.stage.once(step).await.expect_err(call);
        scene.proxy.heal();
        let StepError { causes, .. } = error;
        let found = finding(step, &causes);
        let code = match fault {
            Fault::Code(code) | Fault::Says(code, _) | Fault::Later(code, _) | Fault::Unsuccessful(code, _) => *code,
            Fault::LostAnswer | Fault::LostRequest => unreachable!("they are no refusals"),
        };
        let next = found.next.clone().unwrap_or_default();
        println!("{step:<28} {call:<27} {code:<29} {:<15} {}\n{:>30} {next}", found.signature, found.title, "→");
        let all = format!("{} {} {next}", causes.join(": "), found.title);
        if found.signature != *signature || !all.contains(reads) {
            wrong.push(format!("{call} {code}: {} instead of {signature}; {reads:?} in: {all}", found.signature));
        }
        if !matches!(fault, Fault::Unsuccessful(..)) {
            is_whole(&found, code);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Where the quota was raised, the capacity came back and the zone was free, the same step comes through.
    made.must(MACHINE).await;
    made.must(CLEANUP).await;
}

fn check<'c>(checks: &'c [Check], what: &str) -> &'c Check {
    checks.iter().find(|check| check.what.starts_with(what)).unwrap_or_else(|| panic!("no {what} in {checks:#?}"))
}

/// IAM's simulator, the quotas and the offerings, as the SDK reads them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_preflight_reads_what_iam_and_service_quotas_say() {
    let moto = Moto::with_images(IMAGES).await;
    let scene = Scene::new(&moto, 901).await;
    let preflight = || bartizan::cloud::preflight::preflight(&*scene.cloud, &scene.spec);
    // Nobody may ask: nothing stands in the way, and what is known of new accounts is said.
    let checks = preflight().await;
    assert_eq!(check(&checks, "credentials").state, State::Ok);
    assert!(check(&checks, "credentials").found.starts_with("arn:aws:"), "{checks:#?}");
    assert_eq!(check(&checks, "quota ec2/L-1216C47A").state, State::Unknown);
    assert_ne!(check(&checks, "permissions").state, State::Fail);

    scene.proxy.told(|told| {
        told.simulator = Some(
            [("ec2:CreateVpc", "organization"), ("ec2:RunInstances", "boundary"), ("iam:CreateUser", "explicitDeny")]
                .map(|(action, why)| (action.to_owned(), why))
                .into(),
        );
        told.quotas = Some([("ec2/L-1216C47A".to_owned(), 16.0), ("vpc/L-F678F1CE".to_owned(), 9.0)].into());
    });
    let checks = preflight().await;
    let denied = check(&checks, "permissions");
    assert_eq!(denied.state, State::Fail);
    for text in [
        "ec2:CreateVpc (a service control policy denies it)",
        "ec2:RunInstances (the permissions boundary does not allow it)",
    ] {
        assert!(denied.found.contains(text), "{}", denied.found);
    }
    assert!(denied.ask.contains("organization"), "{}", denied.ask);
    let vcpus = check(&checks, "quota ec2/L-1216C47A");
    assert_eq!(vcpus.state, State::Fail);
    assert!(vcpus.ask.contains("from 16 to"), "{vcpus:?}");
    assert!(check(&checks, "quota vpc/L-F678F1CE").found.ends_with("of 9 VPCs in use"), "{checks:#?}");
    // Nobody has raised it: it has AWS's default.
    assert!(check(&checks, "quota ec2/L-0263D0A3").found.contains("of 5 "), "{checks:#?}");
    let told = scene.proxy.told(|told| told.clone());
    assert!(told.pages > 0, "the decisions come in pages");
    let asked = bartizan::cloud::permissions::needed_actions(&scene.spec);
    assert_eq!(told.simulated.len(), asked.len());
}
