//! What AWS refuses leads to its finding, in the words of the code, with the request and the next step.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bartizan::cloud::memory::{MemoryCloud, Settings};
use bartizan::cloud::{
    AccessKey, Blocker, Class, Cloud, CloudError, Create, Denial, Image, ImageQuery, Kind, Offering, Resource, Tags,
    describe,
};
use bartizan::diagnose::{Catalogue, Matcher};
use bartizan::engine::{StepCx, StepError};
use bartizan::host::ssh::SshPool;
use bartizan::model::event::{Data, Finding, Object};
use bartizan::model::plan::StepId;
use bartizan::model::run::{ObjectRecord, RunModel};
use bartizan::record::Sink;
use bartizan::registry::Net;
use bartizan::spec::secrets::Secrets;
use bartizan::spec::{Secret, example, parse};
use bartizan::stages::world::cloud_error;
use bartizan::stages::{World, steps};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

pub const REQUEST: &str = "6ae1c8c4-1b1d-4f3c-9d1f-2a6c55a0e9b1";

/// A code, what AWS says with it, and what it is to be taken for.
const CODES: &[(&str, &str, &str)] = &[
    ("AuthFailure", "AWS was not able to validate the provided access credentials", "AWS-CREDS"),
    ("InvalidClientTokenId", "The security token included in the request is invalid.", "AWS-CREDS"),
    ("SignatureDoesNotMatch", "The request signature we calculated does not match", "AWS-CREDS"),
    ("SignatureDoesNotMatch", "Signature expired: 20250301T101112Z is now earlier than 20250301T102112Z", "AWS-CLOCK"),
    ("ExpiredToken", "The security token included in the request is expired", "AWS-CREDS"),
    ("RequestExpired", "Request has expired.", "AWS-CLOCK"),
    ("UnauthorizedOperation", "You are not authorized to perform this operation.", "AWS-DENIED"),
    (
        "UnauthorizedOperation",
        "You are not authorized to perform: ec2:CreateVpc with an explicit deny in a service control policy",
        "AWS-SCP",
    ),
    ("AccessDenied", "User: arn:aws:iam::1:user/u is not authorized to perform: iam:CreateUser", "AWS-DENIED"),
    ("AccessDeniedException", "Access denied", "AWS-DENIED"),
    ("OptInRequired", "You are not subscribed to this service.", "AWS-ACCOUNT"),
    ("PendingVerification", "Your request for accessing resources in this region is being validated", "AWS-ACCOUNT"),
    ("Blocked", "This account is currently blocked", "AWS-ACCOUNT"),
    ("VcpuLimitExceeded", "You have requested more vCPU capacity than your current vCPU limit of 5", "AWS-VCPU"),
    ("InstanceLimitExceeded", "Your quota allows for 0 more running instance(s).", "AWS-VCPU"),
    ("VpcLimitExceeded", "The maximum number of VPCs has been reached.", "AWS-LIMITS"),
    ("AddressLimitExceeded", "The maximum number of addresses has been reached.", "AWS-LIMITS"),
    ("NatGatewayLimitExceeded", "The maximum number of NAT gateways has been reached.", "AWS-LIMITS"),
    ("InternetGatewayLimitExceeded", "The maximum number of internet gateways has been reached.", "AWS-LIMITS"),
    ("VpcEndpointLimitExceeded", "The maximum number of endpoints has been reached.", "AWS-LIMITS"),
    ("SecurityGroupLimitExceeded", "The maximum number of security groups has been reached.", "AWS-LIMITS"),
    ("RulesPerSecurityGroupLimitExceeded", "The maximum number of rules has been reached.", "AWS-LIMITS"),
    ("VolumeLimitExceeded", "Maximum number of bytes exceeded", "AWS-LIMITS"),
    ("TooManyBuckets", "You have attempted to create more buckets than allowed", "AWS-LIMITS"),
    ("TooManyHostedZones", "Limits Exceeded", "AWS-LIMITS"),
    ("TooManyLoadBalancers", "Exceeded quota of account", "AWS-LIMITS"),
    ("LimitExceeded", "Cannot exceed quota for UsersPerAccount: 5000", "AWS-LIMITS"),
    (
        "InsufficientInstanceCapacity",
        "We currently do not have sufficient m6i.large capacity in the Availability Zone you requested (us-east-2a).",
        "AWS-CAPACITY",
    ),
    ("InsufficientHostCapacity", "Insufficient capacity.", "AWS-CAPACITY"),
    (
        "Unsupported",
        "Your requested instance type (m6i.large) is not supported in your requested Availability Zone (us-east-2a).",
        "AWS-OFFERING",
    ),
    ("InsufficientFreeAddressesInSubnet", "Insufficient free addresses in subnet.", "AWS-SUBNET-FULL"),
    ("RequestLimitExceeded", "Request limit exceeded.", "AWS-THROTTLE"),
    ("Throttling", "Rate exceeded", "AWS-THROTTLE"),
    ("ThrottlingException", "Rate exceeded", "AWS-THROTTLE"),
    ("PriorRequestNotComplete", "The request was rejected", "AWS-THROTTLE"),
    ("SlowDown", "Please reduce your request rate.", "AWS-THROTTLE"),
    ("InvalidVpcID.NotFound", "The vpc ID 'vpc-0a1b' does not exist", "AWS-GONE"),
    ("InvalidSubnetID.NotFound", "The subnet ID 'subnet-0a1b' does not exist", "AWS-GONE"),
    ("InvalidGroup.NotFound", "The security group 'sg-0a1b' does not exist", "AWS-GONE"),
    ("InvalidRouteTableID.NotFound", "The routeTable ID 'rtb-0a1b' does not exist", "AWS-GONE"),
    ("InvalidInternetGatewayID.NotFound", "The internetGateway ID 'igw-0a1b' does not exist", "AWS-GONE"),
    ("InvalidAllocationID.NotFound", "The allocation ID 'eipalloc-0a1b' does not exist", "AWS-GONE"),
    ("InvalidInstanceID.NotFound", "The instance ID 'i-0a1b' does not exist", "AWS-GONE"),
    ("InvalidKeyPair.NotFound", "The key pair 'x' does not exist", "AWS-KEYPAIR"),
    ("InvalidVpcEndpointId.NotFound", "The Vpc Endpoint Id 'vpce-0a1b' does not exist", "AWS-GONE"),
    ("NatGatewayNotFound", "The Nat Gateway nat-0a1b was not found", "AWS-GONE"),
    ("InvalidRoute.NotFound", "no route with destination-cidr-block 0.0.0.0/0", "AWS-GONE"),
    ("InvalidPermission.NotFound", "The specified rule does not exist in this security group.", "AWS-GONE"),
    ("NoSuchEntity", "The user with name x cannot be found.", "AWS-GONE"),
    ("NoSuchBucket", "The specified bucket does not exist", "AWS-GONE"),
    ("NoSuchHostedZone", "No hosted zone found with ID: Z1", "AWS-GONE"),
    (
        "InvalidParameterValue",
        "Value (x) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name",
        "AWS-LAG",
    ),
    ("DependencyViolation", "The vpc 'vpc-0a1b' has dependencies and cannot be deleted.", "AWS-INUSE"),
    ("VolumeInUse", "Volume vol-0a1b is currently attached to i-0a1b", "AWS-INUSE"),
    ("InvalidIPAddress.InUse", "Address 10.0.0.5 is in use.", "AWS-INUSE"),
    ("Gateway.NotAttached", "resource igw-0a1b is not attached to network vpc-0a1b", "AWS-GONE"),
    ("IncorrectState", "The vpc endpoint is not in a valid state", "AWS-INUSE"),
    ("IncorrectInstanceState", "The instance 'i-0a1b' is not in a state from which it can be stopped.", "AWS-INUSE"),
    ("OperationNotPermitted", "You are not allowed to manage 'ela-attach' attachments.", "AWS-FORBIDDEN"),
    ("CannotDelete", "the specified group: \"sg-0a1b\" name: \"default\" cannot be deleted by a user", "AWS-FORBIDDEN"),
    ("RouteAlreadyExists", "The route identified by 0.0.0.0/0 already exists.", "AWS-EXISTS"),
    ("InvalidPermission.Duplicate", "the specified rule \"peer: 10.0.0.0/16, TCP, 443\" already exists", "AWS-EXISTS"),
    ("InvalidGroup.Duplicate", "The security group 'x' already exists for VPC 'vpc-0a1b'", "AWS-EXISTS"),
    ("InvalidKeyPair.Duplicate", "The keypair 'x' already exists.", "AWS-EXISTS"),
    ("Resource.AlreadyAssociated", "the specified association already exists", "AWS-EXISTS"),
    ("InvalidSubnet.Conflict", "The CIDR '10.0.0.0/20' conflicts with another subnet", "AWS-EXISTS"),
    ("EntityAlreadyExists", "User with name x already exists.", "AWS-EXISTS"),
    ("BucketAlreadyOwnedByYou", "Your previous request to create the named bucket succeeded", "AWS-EXISTS"),
    (
        "HostedZoneAlreadyExists",
        "A hosted zone has already been created with the specified caller reference.",
        "AWS-EXISTS",
    ),
    (
        "ConflictingDomainExists",
        "The VPC is already associated with another hosted zone with the same name",
        "AWS-EXISTS",
    ),
    ("BucketAlreadyExists", "The requested bucket name is not available.", "AWS-EXISTS"),
    (
        "IdempotentParameterMismatch",
        "The client token you have provided is associated with another resource",
        "AWS-TOKEN",
    ),
    ("DeleteConflict", "Cannot delete entity, must delete access keys first.", "AWS-INUSE"),
    ("BucketNotEmpty", "The bucket you tried to delete is not empty", "AWS-INUSE"),
    ("HostedZoneNotEmpty", "The specified hosted zone contains non-required resource record sets", "AWS-INUSE"),
    ("InvalidAMIID.NotFound", "The image id '[ami-0a1b]' does not exist", "AWS-AMI"),
    ("InvalidAMIID.Unavailable", "The image ID 'ami-0a1b' is not available", "AWS-AMI"),
    ("InvalidBlockDeviceMapping", "Volume of size 8GB is smaller than snapshot", "AWS-INPUT"),
    ("Client.InternalError", "Client error on launch", "AWS-KMS"),
];

fn catalogue() -> &'static Catalogue {
    // All patterns together take a moment to compile.
    static BUILTIN: std::sync::OnceLock<Catalogue> = std::sync::OnceLock::new();
    BUILTIN.get_or_init(|| Catalogue::builtin().unwrap())
}

/// The one finding that a step's failure leads to.
#[track_caller]
pub fn finding(step: &str, causes: &[String]) -> Finding {
    let told = Matcher::new(catalogue()).feed_error(step, causes, Timestamp::UNIX_EPOCH);
    let mut found: Vec<Finding> = told
        .into_iter()
        .filter_map(|data| match data {
            Data::FindingOpened { finding } => Some(finding),
            _ => None,
        })
        .collect();
    assert_eq!(found.len(), 1, "{causes:?} leads to {found:#?}");
    found.remove(0)
}

/// It names the request, says what to do, and has a checklist.
#[track_caller]
pub fn is_whole(finding: &Finding, code: &str) {
    assert!(finding.line.contains(code), "{finding:?}");
    assert_eq!(finding.captures.get("request_id").map(String::as_str), Some(REQUEST), "{code}: {finding:?}");
    assert!(finding.next.as_ref().is_some_and(|next| next.len() > 10), "{finding:?}");
    // It says all that it has to say.
    let signature = catalogue().get(&finding.signature).unwrap();
    let names = [&signature.title, &signature.fix].into_iter().flat_map(|text| text.split('{').skip(1));
    let missing = |name: &&str| !finding.captures.contains_key(*name);
    let missing: Vec<&str> = names.filter_map(|rest| rest.split('}').next()).filter(missing).collect();
    assert!(missing.is_empty() || finding.signature == "AWS-INUSE", "{code}: {missing:?} in {}", finding.title);
    assert!(finding.checklist.is_some(), "{code}");
}

#[test]
fn every_code_leads_to_its_finding_with_the_request_and_what_to_do() {
    for (code, message, signature) in CODES {
        let mut error = CloudError::new("ec2:SomeCall", *code, *message);
        error.request_id = Some(REQUEST.into());
        assert_ne!(error.class, Class::Other, "{code} has no entry in aws-errors.toml");
        let StepError { causes, .. } = cloud_error(error);
        let found = finding("01-infrastructure/network", &causes);
        assert_eq!(found.signature, *signature, "{code}: {causes:?}");
        is_whole(&found, code);
        assert!(causes.last().is_some_and(|hint| hint.starts_with("try: ")), "{code}: {causes:?}");
    }
}

/// The memory cloud, where one call is refused.
struct Refusing {
    inner: MemoryCloud,
    call: &'static str,
    code: &'static str,
    message: &'static str,
}

impl Refusing {
    fn refuse(&self, call: &str) -> Result<(), CloudError> {
        if call != self.call {
            return Ok(());
        }
        let mut error = CloudError::new(call, self.code, self.message);
        error.request_id = Some(REQUEST.into());
        Err(error)
    }
}

#[async_trait]
impl Cloud for Refusing {
    async fn whoami(&self) -> Result<String, CloudError> {
        self.refuse("sts:GetCallerIdentity")?;
        self.inner.whoami().await
    }
    async fn zones(&self) -> Result<Vec<String>, CloudError> {
        self.inner.zones().await
    }
    async fn endpoint_services(&self) -> Result<Vec<String>, CloudError> {
        self.inner.endpoint_services().await
    }
    async fn quota(&self, service: &str, code: &str) -> Result<Option<f64>, CloudError> {
        self.inner.quota(service, code).await
    }
    async fn offering(&self, instance_type: &str) -> Result<Offering, CloudError> {
        self.inner.offering(instance_type).await
    }
    async fn image(&self, query: &ImageQuery) -> Result<Image, CloudError> {
        self.inner.image(query).await
    }
    async fn denied(&self, actions: &[&str]) -> Result<Vec<Denial>, CloudError> {
        self.inner.denied(actions).await
    }
    async fn blockers(&self, vpc: &str) -> Result<Vec<Blocker>, CloudError> {
        self.inner.blockers(vpc).await
    }
    async fn create(&self, create: &Create) -> Result<Resource, CloudError> {
        self.refuse(describe::create_name(create.kind))?;
        self.inner.create(create).await
    }
    async fn get(&self, kind: Kind, id: &str) -> Result<Resource, CloudError> {
        self.inner.get(kind, id).await
    }
    async fn find(&self, kind: Kind, tags: &Tags) -> Result<Vec<Resource>, CloudError> {
        self.inner.find(kind, tags).await
    }
    async fn modify(&self, kind: Kind, id: &str, properties: &BTreeMap<String, String>) -> Result<(), CloudError> {
        self.inner.modify(kind, id, properties).await
    }
    async fn delete(&self, kind: Kind, id: &str) -> Result<(), CloudError> {
        self.refuse(describe::delete_name(kind))?;
        self.inner.delete(kind, id).await
    }
    async fn console_output(&self, instance: &str) -> Result<String, CloudError> {
        self.inner.console_output(instance).await
    }
    async fn create_access_key(&self, user: &str) -> Result<AccessKey, CloudError> {
        self.inner.create_access_key(user).await
    }
    async fn delete_access_key(&self, user: &str, id: &str) -> Result<(), CloudError> {
        self.inner.delete_access_key(user, id).await
    }
}

/// What a step says when AWS refuses one of its calls, or what `account` says.
async fn failure(
    step: &str,
    (call, code, message): (&'static str, &'static str, &'static str),
    account: impl FnOnce(&mut Settings),
) -> StepError {
    let folder = tempfile::tempdir().unwrap();
    let inner = MemoryCloud::open(folder.path().join("cloud.json")).unwrap();
    inner.with_state(|state| state.settings.pace_ms = 1).unwrap();
    inner.with_state(|state| account(&mut state.settings)).unwrap();
    let mut model = RunModel { run: "run-1".into(), ..RunModel::default() };
    if step.starts_with("10") {
        let properties = BTreeMap::from([("CidrBlock".to_owned(), "10.0.0.0/16".to_owned())]);
        let create = Create { kind: Kind::Vpc, tags: Tags::new(), properties, token: String::new() };
        let id = Some(inner.create(&create).await.unwrap().id);
        let object = Object { kind: "vpc".into(), name: "edge-lab-vpc".into() };
        model.objects.insert(object, ObjectRecord { id, ..ObjectRecord::default() });
    }
    let world = World {
        spec: parse(example(), "cluster.toml").unwrap(),
        secrets: Secrets { pull_secret: Secret::new("{}"), mirror_password: None },
        mirror_password: Secret::new("not-asked-for"),
        mirror_ca_key: Secret::new("not-asked-for"),
        proxy_password: None,
        host_key: None,
        run_dir: folder.path().to_owned(),
        cloud: Some(Arc::new(Refusing { inner, call, code, message })),
        ssh: SshPool::new(folder.path()).unwrap(),
        net: Net::default(),
        tap: tokio::sync::mpsc::channel(1).0,
        live: tokio::sync::Mutex::new(None),
    };
    let (sink, mut entries) = Sink::channel(64);
    let recorder = tokio::spawn(async move {
        while let Some(entry) = entries.recv().await {
            if let bartizan::record::sink::Entry::Event(_, Some(done)) = entry {
                let _nobody_waits = done.send(());
            }
        }
    });
    let cx = StepCx {
        world: Arc::new(world),
        step: StepId::new(step),
        attempt: 1,
        sink,
        cancel: CancellationToken::new(),
        model: Arc::new(model),
    };
    let error = steps()[&cx.step].run(&cx).await.expect_err("it must fail");
    recorder.abort();
    error
}

#[tokio::test]
async fn a_refused_call_of_a_stage_opens_its_finding() {
    for (step, call, code, message, signature) in [
        ("01-infrastructure/preflight", "sts:GetCallerIdentity", "ExpiredToken", "The token is expired", "AWS-CREDS"),
        ("01-infrastructure/preflight", "sts:GetCallerIdentity", "RequestExpired", "Request has expired.", "AWS-CLOCK"),
        ("01-infrastructure/network", "ec2:CreateVpc", "VpcLimitExceeded", "The maximum number of VPCs", "AWS-LIMITS"),
        (
            "01-infrastructure/network",
            "ec2:CreateSubnet",
            "UnauthorizedOperation",
            "You are not authorized",
            "AWS-DENIED",
        ),
        ("01-infrastructure/network", "ec2:CreateVpcEndpoint", "InvalidServiceName", "It does not exist", "AWS-INPUT"),
        ("10-cleanup/infrastructure", "ec2:DeleteVpc", "UnauthorizedOperation", "You are not authorized", "AWS-DENIED"),
        (
            "10-cleanup/infrastructure",
            "ec2:DeleteVpc",
            "OperationNotPermitted",
            "termination protection",
            "AWS-FORBIDDEN",
        ),
    ] {
        let error = failure(step, (call, code, message), |_| {}).await;
        let found = finding(step, &error.causes);
        assert_eq!(found.signature, signature, "{step} {code}: {:?}", error.causes);
        assert_eq!(found.captures.get("call").map(String::as_str), Some(call), "{found:?}");
        is_whole(&found, code);
    }
}

#[tokio::test]
async fn a_failed_preflight_shows_every_check_and_makes_nothing() {
    let error = failure("01-infrastructure/preflight", ("", "", ""), |account| {
        account.denied = vec!["ec2:CreateVpc".into()];
        account.quotas.insert("vpc/L-F678F1CE".into(), 0.0);
    })
    .await;
    let shown: Vec<&str> = error.evidence.iter().map(|evidence| evidence.answer.as_str()).collect();
    assert!(shown.len() > 10 && shown.iter().any(|answer| answer.starts_with("ok: ")), "{shown:#?}");
    assert_eq!(shown.iter().filter(|answer| answer.starts_with("fail: ")).count(), 2, "{shown:#?}");
    assert!(!error.retry);
    assert!(error.causes[0].starts_with("2 of "), "{:?}", error.causes);
    assert!(error.causes[2].contains("ask the account's administrator to raise vpc/L-F678F1CE"), "{:?}", error.causes);
    let found = finding("01-infrastructure/preflight", &error.causes);
    assert_eq!(found.signature, "AWS-PREFLIGHT");
    assert!(found.title.contains("permissions: 1 of"), "{}", found.title);
}
