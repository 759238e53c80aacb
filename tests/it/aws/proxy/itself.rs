//! The proxy does what AWS does: seen without the SDK.

use super::{Fault, Proxy};
use crate::aws::moto::Moto;

/// A call of EC2 through the proxy: status and body; `None` when no answer came.
async fn call(proxy: &Proxy, body: &str) -> Option<(u16, String)> {
    let scope = "AWS4-HMAC-SHA256 Credential=AK/20260101/us-east-2/ec2/aws4_request, Signature=x";
    let form = crate::aws::census::client()
        .post(format!("{}/", proxy.url()))
        .body(format!("Action={body}&Version=2016-11-15"));
    let form = form.header("content-type", "application/x-www-form-urlencoded").header("authorization", scope);
    let answer = form.send().await.ok()?;
    Some((answer.status().as_u16(), answer.text().await.ok()?))
}

async fn made(proxy: &Proxy, body: &str, id: &str) -> String {
    let (status, text) = call(proxy, body).await.unwrap();
    assert_eq!(status, 200, "{text}");
    super::order::element(&text, id).unwrap()
}

async fn refused(proxy: &Proxy, body: &str) -> String {
    let (status, text) = call(proxy, body).await.unwrap();
    assert!(status >= 400, "{text}");
    super::order::element(&text, "Code").unwrap()
}

#[tokio::test]
async fn it_refuses_delays_and_repeats_as_aws_does() {
    let moto = Moto::start().await;
    let proxy = Proxy::start(moto.url(), "200000000001").await;
    proxy.slow(2);
    proxy.fault("ec2:CreateVpc", Fault::Code("VpcLimitExceeded"), 1);
    proxy.fault("ec2:CreateVpc", Fault::LostRequest, 1);
    let vpc = "CreateVpc&CidrBlock=10.0.0.0/16";
    assert_eq!(refused(&proxy, vpc).await, "VpcLimitExceeded");
    assert_eq!(call(&proxy, vpc).await, None);
    let vpc = made(&proxy, vpc, "vpcId").await;
    let subnet = format!("CreateSubnet&VpcId={vpc}&CidrBlock=10.0.0.0/20&AvailabilityZone=us-east-2a");
    let subnet = made(&proxy, &subnet, "subnetId").await;

    // A lost answer and its token.
    let endpoint = format!(
        "CreateVpcEndpoint&VpcId={vpc}&ServiceName=com.amazonaws.us-east-2.ec2&VpcEndpointType=Interface\
         &SubnetId.1={subnet}&ClientToken=once"
    );
    proxy.fault("ec2:CreateVpcEndpoint", Fault::LostAnswer, 1);
    assert_eq!(call(&proxy, &endpoint).await, None);
    let id = made(&proxy, &endpoint, "vpcEndpointId").await;
    assert_eq!(made(&proxy, &endpoint, "vpcEndpointId").await, id);
    assert_eq!(
        refused(&proxy, &endpoint.replace("us-east-2.ec2", "us-east-2.sts")).await,
        "IdempotentParameterMismatch"
    );
    let look = || async { call(&proxy, "DescribeVpcEndpoints").await.unwrap().1 };
    assert!(look().await.contains("<state>available</state>"), "two looks were taken by the creation");

    // What is in use stays, also while it goes.
    let gateway = made(&proxy, "CreateInternetGateway", "internetGatewayId").await;
    made(&proxy, &format!("AttachInternetGateway&InternetGatewayId={gateway}&VpcId={vpc}"), "requestId").await;
    let run = format!(
        "RunInstances&ImageId=ami-1&MinCount=1&MaxCount=1&InstanceType=t3.micro&NetworkInterface.1.DeviceIndex=0\
         &NetworkInterface.1.SubnetId={subnet}&NetworkInterface.1.AssociatePublicIpAddress=true"
    );
    let instance = made(&proxy, &run, "instanceId").await;
    let detach = format!("DetachInternetGateway&InternetGatewayId={gateway}&VpcId={vpc}");
    assert_eq!(refused(&proxy, &detach).await, "DependencyViolation");
    assert_eq!(refused(&proxy, &format!("DeleteSubnet&SubnetId={subnet}")).await, "DependencyViolation");
    made(&proxy, &format!("TerminateInstances&InstanceId.1={instance}"), "requestId").await;
    assert_eq!(refused(&proxy, &detach).await, "DependencyViolation", "it is only on its way");
    let look = || async { call(&proxy, "DescribeInstances").await.unwrap().1 };
    assert!(look().await.contains("shutting-down"));
    assert!(look().await.contains("shutting-down"));
    assert!(look().await.contains("terminated"));
    made(&proxy, &detach, "requestId").await;
    assert_eq!(proxy.changes().len(), 16);
    assert!(proxy.refused().is_empty());
}
