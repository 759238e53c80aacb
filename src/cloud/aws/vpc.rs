//! VPCs and internet gateways.

use aws_sdk_ec2::types::{AttributeBooleanValue, ResourceType, Vpc, VpcAttributeName};

use super::Aws;
use super::ec2::{Seen, Which, answered, tagged, tags, unknown};
use super::error::failed;
use crate::cloud::{Class, CloudError, Create, Kind, Resource};

fn seen(vpc: &Vpc) -> Seen {
    let blocks = vpc.cidr_block_association_set().iter().filter_map(|block| block.cidr_block());
    Seen::new(Kind::Vpc, vpc.vpc_id(), vpc.state().map_or("", |state| state.as_str()), tags(vpc.tags()))
        .with("CidrBlock", vpc.cidr_block())
        .list("CidrBlocks", blocks)
        .with("IsDefault", vpc.is_default())
}

pub(super) async fn create(aws: &Aws, create: &Create) -> Result<Resource, CloudError> {
    let call = "ec2:CreateVpc";
    let made = aws
        .ec2
        .create_vpc()
        .set_cidr_block(create.text("CidrBlock"))
        .set_tag_specifications(tagged(create, ResourceType::Vpc))
        .send()
        .await
        .map_err(failed(call))?;
    Ok(seen(&answered(call, made.vpc)?).done())
}

pub(super) async fn list(aws: &Aws, which: Which<'_>) -> Result<Vec<Resource>, CloudError> {
    let asked = aws.ec2.describe_vpcs().set_vpc_ids(which.ids()).set_filters(which.tags());
    let vpcs = asked.into_paginator().items().send().try_collect().await.map_err(failed("ec2:DescribeVpcs"))?;
    let mut found = Vec::new();
    for vpc in &vpcs {
        let mut seen = seen(vpc);
        // One attribute a call: not for all VPCs of a region.
        if let Some(id) = vpc.vpc_id().filter(|_| which.is_narrow()) {
            for (name, attribute) in [
                ("EnableDnsSupport", VpcAttributeName::EnableDnsSupport),
                ("EnableDnsHostnames", VpcAttributeName::EnableDnsHostnames),
            ] {
                let asked = aws.ec2.describe_vpc_attribute().vpc_id(id).attribute(attribute);
                let told = asked.send().await.map_err(failed("ec2:DescribeVpcAttribute"))?;
                let value = told.enable_dns_support().or(told.enable_dns_hostnames());
                seen = seen.with(name, value.and_then(|value| value.value()));
            }
        }
        found.push(seen.done());
    }
    Ok(found)
}

pub(super) async fn modify(aws: &Aws, id: &str, name: &str, value: &str) -> Result<(), CloudError> {
    let call = "ec2:ModifyVpcAttribute";
    let value = AttributeBooleanValue::builder().value(value == "true").build();
    let change = aws.ec2.modify_vpc_attribute().vpc_id(id);
    let change = match name {
        "EnableDnsSupport" => change.enable_dns_support(value),
        "EnableDnsHostnames" => change.enable_dns_hostnames(value),
        _ => return Err(unknown(call, name)),
    };
    change.send().await.map(drop).map_err(failed(call))
}

pub(super) async fn delete(aws: &Aws, id: &str) -> Result<(), CloudError> {
    aws.ec2.delete_vpc().vpc_id(id).send().await.map(drop).map_err(failed("ec2:DeleteVpc"))
}

pub(super) mod gateway {
    use aws_sdk_ec2::types::InternetGateway;

    use super::*;

    fn seen(gateway: &InternetGateway) -> Resource {
        let attached = gateway.attachments().iter().find_map(|attachment| attachment.vpc_id());
        let id = gateway.internet_gateway_id();
        Seen::new(Kind::InternetGateway, id, "available", tags(gateway.tags())).with("VpcId", attached).done()
    }

    pub async fn create(aws: &Aws, create: &Create) -> Result<Resource, CloudError> {
        let call = "ec2:CreateInternetGateway";
        let tags = tagged(create, ResourceType::InternetGateway);
        let made = aws.ec2.create_internet_gateway().set_tag_specifications(tags).send().await.map_err(failed(call))?;
        Ok(seen(&answered(call, made.internet_gateway)?))
    }

    pub async fn list(aws: &Aws, which: Which<'_>) -> Result<Vec<Resource>, CloudError> {
        let asked = aws.ec2.describe_internet_gateways();
        let asked = asked.set_internet_gateway_ids(which.ids()).set_filters(which.tags());
        let pages = asked.into_paginator().items().send();
        let gateways = pages.try_collect().await.map_err(failed("ec2:DescribeInternetGateways"))?;
        Ok(gateways.iter().map(seen).collect())
    }

    async fn attached(aws: &Aws, id: &str) -> Result<Option<String>, CloudError> {
        let gateways = list(aws, Which::Id(id)).await?;
        Ok(gateways.into_iter().find_map(|mut gateway| gateway.properties.remove("VpcId")))
    }

    /// Attach to the VPC, or detach.
    pub async fn modify(aws: &Aws, id: &str, name: &str, vpc: &str) -> Result<(), CloudError> {
        let call = "ec2:AttachInternetGateway";
        if name != "VpcId" {
            return Err(unknown(call, name));
        }
        if vpc.is_empty() {
            let Some(vpc) = attached(aws, id).await? else { return Ok(()) };
            let detach = aws.ec2.detach_internet_gateway().internet_gateway_id(id).vpc_id(vpc);
            return match detach.send().await.map_err(failed("ec2:DetachInternetGateway")) {
                // Gateway.NotAttached: somebody was first.
                Err(error) if error.is_not_found() => Ok(()),
                other => other.map(drop),
            };
        }
        let attach = aws.ec2.attach_internet_gateway().internet_gateway_id(id).vpc_id(vpc);
        match attach.send().await.map_err(failed(call)) {
            Err(error) if error.class == Class::Exists && attached(aws, id).await?.as_deref() == Some(vpc) => Ok(()),
            other => other.map(drop),
        }
    }

    pub async fn delete(aws: &Aws, id: &str) -> Result<(), CloudError> {
        let delete = aws.ec2.delete_internet_gateway().internet_gateway_id(id);
        delete.send().await.map(drop).map_err(failed("ec2:DeleteInternetGateway"))
    }
}
