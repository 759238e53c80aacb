//! VPC endpoints.

use aws_sdk_ec2::types::{ResourceType, VpcEndpoint, VpcEndpointType};

use super::Aws;
use super::ec2::{Seen, Which, answered, tagged, tags, unknown};
use super::error::failed;
use crate::cloud::{CloudError, Create, Kind, Resource};

fn seen(endpoint: &VpcEndpoint) -> Resource {
    // `available` in some answers and `Available` in others.
    let state = endpoint.state().map_or("", |state| state.as_str());
    let strings = |list: &'_ [String]| list.to_vec();
    let (subnets, tables) = (strings(endpoint.subnet_ids()), strings(endpoint.route_table_ids()));
    Seen::new(Kind::VpcEndpoint, endpoint.vpc_endpoint_id(), state, tags(endpoint.tags()))
        .with("VpcId", endpoint.vpc_id())
        .with("ServiceName", endpoint.service_name())
        .with("VpcEndpointType", endpoint.vpc_endpoint_type().map(VpcEndpointType::as_str))
        .list("RouteTableIds", tables.iter().map(String::as_str))
        .list("SubnetIds", subnets.iter().map(String::as_str))
        .list("SecurityGroupIds", endpoint.groups().iter().filter_map(|group| group.group_id()))
        .with("PrivateDnsEnabled", endpoint.private_dns_enabled())
        .with("FailureReason", endpoint.failure_reason().or(endpoint.last_error().and_then(|error| error.message())))
        .done()
}

pub(super) async fn create(aws: &Aws, create: &Create) -> Result<Resource, CloudError> {
    let call = "ec2:CreateVpcEndpoint";
    let made = aws
        .ec2
        .create_vpc_endpoint()
        .set_vpc_id(create.text("VpcId"))
        .set_service_name(create.text("ServiceName"))
        .set_vpc_endpoint_type(create.text("VpcEndpointType").map(|kind| VpcEndpointType::from(kind.as_str())))
        .set_route_table_ids(create.texts("RouteTableIds"))
        .set_subnet_ids(create.texts("SubnetIds"))
        .set_security_group_ids(create.texts("SecurityGroupIds"))
        .set_private_dns_enabled(create.flag("PrivateDnsEnabled"))
        .set_policy_document(create.text("PolicyDocument"))
        .client_token(&create.token)
        .set_tag_specifications(tagged(create, ResourceType::VpcEndpoint))
        .send()
        .await
        .map_err(failed(call))?;
    Ok(seen(&answered(call, made.vpc_endpoint)?))
}

pub(super) async fn list(aws: &Aws, which: Which<'_>) -> Result<Vec<Resource>, CloudError> {
    let asked = aws.ec2.describe_vpc_endpoints().set_vpc_endpoint_ids(which.ids()).set_filters(which.tags());
    let pages = asked.into_paginator().items().send();
    let endpoints = pages.try_collect().await.map_err(failed("ec2:DescribeVpcEndpoints"))?;
    Ok(endpoints.iter().map(seen).collect())
}

pub(super) async fn modify(aws: &Aws, id: &str, name: &str, value: &str) -> Result<(), CloudError> {
    let call = "ec2:ModifyVpcEndpoint";
    let change = aws.ec2.modify_vpc_endpoint().vpc_endpoint_id(id);
    let change = match name {
        "PrivateDnsEnabled" => change.private_dns_enabled(value == "true"),
        "PolicyDocument" if value.is_empty() => change.reset_policy(true),
        "PolicyDocument" => change.policy_document(value),
        _ => return Err(unknown(call, name)),
    };
    change.send().await.map(drop).map_err(failed(call))
}

/// The call succeeds even when nothing was deleted: what was not stands in the answer.
pub(super) async fn delete(aws: &Aws, id: &str) -> Result<(), CloudError> {
    let call = "ec2:DeleteVpcEndpoints";
    let answer = aws.ec2.delete_vpc_endpoints().vpc_endpoint_ids(id).send().await.map_err(failed(call))?;
    match answer.unsuccessful().first() {
        None => Ok(()),
        Some(item) => {
            let (code, message) = item.error().map_or((None, None), |error| (error.code(), error.message()));
            Err(CloudError::new(call, code.unwrap_or("Unsuccessful"), message.unwrap_or_default()))
        }
    }
}
