//! API calls as an operator knows them, for the plan, the record and errors. Pure.

use std::collections::BTreeMap;

use super::{Create, Kind};

/// `ec2:CreateVpc`, `route53:CreateHostedZone`.
pub fn create_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Vpc => "ec2:CreateVpc",
        Kind::InternetGateway => "ec2:CreateInternetGateway",
        Kind::Subnet => "ec2:CreateSubnet",
        Kind::RouteTable => "ec2:CreateRouteTable",
        Kind::RouteTableAssociation => "ec2:AssociateRouteTable",
        Kind::SecurityGroup => "ec2:CreateSecurityGroup",
        Kind::VpcEndpoint => "ec2:CreateVpcEndpoint",
        Kind::ElasticIp => "ec2:AllocateAddress",
        Kind::NatGateway => "ec2:CreateNatGateway",
        Kind::KeyPair => "ec2:ImportKeyPair",
        Kind::Instance => "ec2:RunInstances",
        Kind::HostedZone => "route53:CreateHostedZone",
        Kind::Bucket => "s3:CreateBucket",
        Kind::LoadBalancer => "elasticloadbalancing:CreateLoadBalancer",
        Kind::Volume => "ec2:CreateVolume",
        Kind::User => "iam:CreateUser",
        Kind::Policy => "iam:CreatePolicy",
    }
}

/// `ec2:DescribeVpcs`
pub fn get_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Vpc => "ec2:DescribeVpcs",
        Kind::InternetGateway => "ec2:DescribeInternetGateways",
        Kind::Subnet => "ec2:DescribeSubnets",
        Kind::RouteTable | Kind::RouteTableAssociation => "ec2:DescribeRouteTables",
        Kind::SecurityGroup => "ec2:DescribeSecurityGroups",
        Kind::VpcEndpoint => "ec2:DescribeVpcEndpoints",
        Kind::ElasticIp => "ec2:DescribeAddresses",
        Kind::NatGateway => "ec2:DescribeNatGateways",
        Kind::KeyPair => "ec2:DescribeKeyPairs",
        Kind::Instance => "ec2:DescribeInstances",
        Kind::HostedZone => "route53:GetHostedZone",
        Kind::Bucket => "s3:HeadBucket",
        Kind::LoadBalancer => "elasticloadbalancing:DescribeLoadBalancers",
        Kind::Volume => "ec2:DescribeVolumes",
        Kind::User => "iam:GetUser",
        Kind::Policy => "iam:GetPolicy",
    }
}

/// `ec2:DeleteVpc`
pub fn delete_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Vpc => "ec2:DeleteVpc",
        Kind::InternetGateway => "ec2:DeleteInternetGateway",
        Kind::Subnet => "ec2:DeleteSubnet",
        Kind::RouteTable => "ec2:DeleteRouteTable",
        Kind::RouteTableAssociation => "ec2:DisassociateRouteTable",
        Kind::SecurityGroup => "ec2:DeleteSecurityGroup",
        Kind::VpcEndpoint => "ec2:DeleteVpcEndpoints",
        Kind::ElasticIp => "ec2:ReleaseAddress",
        Kind::NatGateway => "ec2:DeleteNatGateway",
        Kind::KeyPair => "ec2:DeleteKeyPair",
        Kind::Instance => "ec2:TerminateInstances",
        Kind::HostedZone => "route53:DeleteHostedZone",
        Kind::Bucket => "s3:DeleteBucket",
        Kind::LoadBalancer => "elasticloadbalancing:DeleteLoadBalancer",
        Kind::Volume => "ec2:DeleteVolume",
        Kind::User => "iam:DeleteUser",
        Kind::Policy => "iam:DeletePolicy",
    }
}

/// `ec2:ModifyVpcAttribute`, `ec2:CreateRoute`, by what the property is; `taken` when it is taken away.
pub fn modify_name(kind: Kind, property: &str, taken: bool) -> &'static str {
    match (kind, taken) {
        (Kind::InternetGateway, false) => "ec2:AttachInternetGateway",
        (Kind::InternetGateway, true) => "ec2:DetachInternetGateway",
        (Kind::RouteTable, false) => "ec2:CreateRoute",
        (Kind::RouteTable, true) => "ec2:DeleteRoute",
        (Kind::SecurityGroup, false) => "ec2:AuthorizeSecurityGroupIngress",
        (Kind::SecurityGroup, true) => "ec2:RevokeSecurityGroupIngress",
        (Kind::HostedZone, _) => "route53:ChangeResourceRecordSets",
        (Kind::Vpc, _) => "ec2:ModifyVpcAttribute",
        (Kind::Subnet, _) => "ec2:ModifySubnetAttribute",
        (Kind::VpcEndpoint, _) => "ec2:ModifyVpcEndpoint",
        (Kind::Volume, _) => "ec2:ModifyVolume",
        (Kind::ElasticIp, false) => "ec2:AssociateAddress",
        (Kind::ElasticIp, true) => "ec2:DisassociateAddress",
        (Kind::Bucket, false) => "s3:PutObject",
        (Kind::Bucket, true) => "s3:DeleteObject",
        (Kind::User, false) => "iam:AttachUserPolicy",
        (Kind::User, true) => "iam:DetachUserPolicy",
        (Kind::Policy, _) => "iam:CreatePolicyVersion",
        (Kind::LoadBalancer, _) => "elasticloadbalancing:ModifyLoadBalancerAttributes",
        (Kind::Instance, _) if property == "State" => "ec2:StopInstances",
        (Kind::Instance | Kind::NatGateway | Kind::KeyPair | Kind::RouteTableAssociation, _) => {
            "ec2:ModifyInstanceAttribute"
        }
    }
}

/// `ec2:CreateVpc CidrBlock=10.0.0.0/16 Tag:Name=edge-lab-vpc`
pub fn create(create: &Create) -> String {
    let mut call = create_name(create.kind).to_owned();
    for (name, value) in &create.properties {
        // It may hold what the operator chose to deliver, and nobody reads it here.
        if name == "UserData" {
            call.push_str(&format!(" UserData=<{} bytes>", value.len()));
            continue;
        }
        call.push_str(&format!(" {name}={}", word(value)));
    }
    if let Some(name) = create.tags.get("Name") {
        call.push_str(&format!(" Tag:Name={}", word(name)));
    }
    call
}

/// One call for each property: EC2 takes one attribute at a time.
pub fn modify(kind: Kind, id: &str, properties: &BTreeMap<String, String>) -> Vec<String> {
    properties
        .iter()
        .map(|(name, value)| {
            let call = match (kind, name.as_str(), value.as_str()) {
                (Kind::Instance, "State", "running") => "ec2:StartInstances",
                (Kind::Instance, "State", "rebooting") => "ec2:RebootInstances",
                _ => modify_name(kind, name, value.is_empty()),
            };
            format!("{call} {id} {}={}", word(name), word(value))
        })
        .collect()
}

/// A value in quotes where it has spaces; long ones (keys, user data) are cut.
fn word(value: &str) -> String {
    const LONGEST: usize = 120;
    let clean: String = value.chars().filter(|c| !c.is_control()).collect();
    let cut: String = clean.chars().take(LONGEST).collect();
    let dots = if cut.len() < clean.len() { "…" } else { "" };
    if cut.is_empty() || cut.contains(' ') { format!("\"{cut}{dots}\"") } else { format!("{cut}{dots}") }
}
