//! What stands in an account, asked of moto itself: behind the proxy and without the product's own code.

use std::collections::{BTreeMap, BTreeSet};

/// The listing of a kind, and the element that holds its id.
const LISTS: [(&str, &str, &str); 11] = [
    ("vpc", "DescribeVpcs", "vpcId"),
    ("internet-gateway", "DescribeInternetGateways", "internetGatewayId"),
    ("subnet", "DescribeSubnets", "subnetId"),
    ("route-table", "DescribeRouteTables", "routeTableId"),
    ("route-table-association", "DescribeRouteTables", "routeTableAssociationId"),
    ("security-group", "DescribeSecurityGroups", "groupId"),
    ("vpc-endpoint", "DescribeVpcEndpoints", "vpcEndpointId"),
    ("elastic-ip", "DescribeAddresses", "allocationId"),
    ("nat-gateway", "DescribeNatGateways", "natGatewayId"),
    ("key-pair", "DescribeKeyPairs", "keyPairId"),
    ("instance", "DescribeInstances", "instanceId"),
];

/// Kind and id.
pub type Census = BTreeSet<(&'static str, String)>;

/// A client for loopback.
pub fn client() -> reqwest::Client {
    // Whoever was first has set the same provider.
    let _already_set = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

pub struct Account {
    moto: String,
    account: String,
    client: reqwest::Client,
}

impl Account {
    pub fn new(moto: &str, account: &str) -> Self {
        Self { moto: moto.to_owned(), account: account.to_owned(), client: client() }
    }

    async fn send(&self, request: reqwest::RequestBuilder, service: &str) -> String {
        let scope = format!("AWS4-HMAC-SHA256 Credential=AK/20260101/us-east-2/{service}/aws4_request, Signature=x");
        let answer = request.header("authorization", scope).header("x-moto-account-id", &self.account).send();
        let answer = answer.await.expect("an answer of moto");
        let (status, text) = (answer.status(), answer.text().await.expect("its text"));
        assert!(status.is_success(), "{text}");
        text
    }

    /// A call of EC2, as `CreateVpc&CidrBlock=10.9.0.0/16`; its answer.
    pub async fn ec2(&self, call: &str) -> String {
        let body = format!("Action={call}&Version=2016-11-15");
        let form = self.client.post(format!("{}/", self.moto)).body(body);
        self.send(form.header("content-type", "application/x-www-form-urlencoded"), "ec2").await
    }

    /// A VPC with a group and a machine, and an address: somebody else's, with tags that are nearly ours.
    pub async fn bystander(&self, run: &str) {
        let tags = |kind: &str| {
            let tag = |number: u8, name: &str, value: &str| {
                format!("&TagSpecification.1.Tag.{number}.Key={name}&TagSpecification.1.Tag.{number}.Value={value}")
            };
            let (name, of) = (tag(1, "Name", "edge-lab-vpc"), tag(2, "bartizan.run", run));
            format!(
                "&TagSpecification.1.ResourceType={kind}{name}{of}{}",
                tag(3, "bartizan.cluster", "edge-lab.example.com")
            )
        };
        let vpc = self.ec2(&format!("CreateVpc&CidrBlock=10.0.0.0/16{}", tags("vpc"))).await;
        let vpc = element(&vpc, "vpcId");
        let subnet = format!("CreateSubnet&VpcId={vpc}&CidrBlock=10.0.0.0/20{}", tags("subnet"));
        let subnet = element(&self.ec2(&subnet).await, "subnetId");
        let group = format!("CreateSecurityGroup&VpcId={vpc}&GroupName=edge-lab-endpoints&GroupDescription=theirs");
        self.ec2(&format!("{group}{}", tags("security-group"))).await;
        self.ec2(&format!("AllocateAddress&Domain=vpc{}", tags("elastic-ip"))).await;
        let machine = "RunInstances&ImageId=ami-1&MinCount=1&MaxCount=1&InstanceType=t3.micro";
        self.ec2(&format!("{machine}&SubnetId={subnet}{}", tags("instance"))).await;
    }

    /// Somebody's network, with one private subnet; VPC and subnet.
    pub async fn network(&self) -> (String, String) {
        let vpc = element(&self.ec2("CreateVpc&CidrBlock=10.9.0.0/16").await, "vpcId");
        for attribute in ["EnableDnsSupport", "EnableDnsHostnames"] {
            self.ec2(&format!("ModifyVpcAttribute&VpcId={vpc}&{attribute}.Value=true")).await;
        }
        let subnet = format!("CreateSubnet&VpcId={vpc}&CidrBlock=10.9.0.0/20&AvailabilityZone=us-east-2a");
        let subnet = element(&self.ec2(&subnet).await, "subnetId");
        (vpc, subnet)
    }

    /// Everything that is there and is not on its way out.
    pub async fn census(&self) -> Census {
        let mut census = Census::new();
        for (kind, action, id) in LISTS {
            census.extend(standing(&self.ec2(action).await, id).into_iter().map(|id| (kind, id)));
        }
        let zones = self.send(self.client.get(format!("{}/2013-04-01/hostedzone", self.moto)), "route53").await;
        census.extend(elements(&zones, "Id").into_iter().map(|id| ("hosted-zone", id)));
        let form = self.client.post(format!("{}/", self.moto)).body("Action=ListUsers&Version=2010-05-08");
        let users = self.send(form.header("content-type", "application/x-www-form-urlencoded"), "iam").await;
        census.extend(elements(&users, "UserName").into_iter().map(|id| ("user", id)));
        census
    }
}

/// How many of each kind are in `after` and not in `before`.
pub fn made(before: &Census, after: &Census) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for (kind, _) in after.difference(before) {
        *counts.entry(*kind).or_default() += 1;
    }
    counts
}

fn elements(body: &str, name: &str) -> Vec<String> {
    let open = format!("<{name}>");
    body.split(&open).skip(1).filter_map(|piece| Some(piece.split_once('<')?.0.to_owned())).collect()
}

fn element(body: &str, name: &str) -> String {
    elements(body, name).into_iter().next().unwrap_or_else(|| panic!("no {name} in {body}"))
}

/// Ids of an EC2 listing, without those that are deleted or terminated.
fn standing(body: &str, id: &str) -> BTreeSet<String> {
    let open = format!("<{id}>");
    let over =
        ["<state>deleted</state>", "<state>deleting</state>", "<name>terminated</name>", "<name>shutting-down</name>"];
    body.split(&open)
        .skip(1)
        .filter(|piece| !over.iter().any(|state| piece.contains(state)))
        .filter_map(|piece| Some(piece.split_once('<')?.0.to_owned()))
        .collect()
}
