//! NAT gateways and Elastic IPs.

use aws_sdk_ec2::types::{Address, DomainType, NatGateway, ResourceType};

use super::Aws;
use super::ec2::{Seen, Which, answered, tagged, tags, unknown};
use super::error::failed;
use crate::cloud::{Class, CloudError, Create, Kind, Resource};

fn seen(nat: &NatGateway) -> Resource {
    let address = nat.nat_gateway_addresses().first();
    let state = nat.state().map_or("", |state| state.as_str());
    Seen::new(Kind::NatGateway, nat.nat_gateway_id(), state, tags(nat.tags()))
        .with("VpcId", nat.vpc_id())
        .with("SubnetId", nat.subnet_id())
        .with("AllocationId", address.and_then(|address| address.allocation_id()))
        .with("PublicIpAddress", address.and_then(|address| address.public_ip()))
        .with("FailureReason", nat.failure_message())
        .done()
}

pub(super) async fn create(aws: &Aws, create: &Create) -> Result<Resource, CloudError> {
    let call = "ec2:CreateNatGateway";
    let made = aws
        .ec2
        .create_nat_gateway()
        .set_subnet_id(create.text("SubnetId"))
        .set_allocation_id(create.text("AllocationId"))
        .client_token(&create.token)
        .set_tag_specifications(tagged(create, ResourceType::Natgateway))
        .send()
        .await
        .map_err(failed(call))?;
    Ok(seen(&answered(call, made.nat_gateway)?))
}

pub(super) async fn list(aws: &Aws, which: Which<'_>) -> Result<Vec<Resource>, CloudError> {
    let asked = aws.ec2.describe_nat_gateways().set_nat_gateway_ids(which.ids()).set_filter(which.tags());
    let pages = asked.into_paginator().items().send();
    let gateways = pages.try_collect().await.map_err(failed("ec2:DescribeNatGateways"))?;
    Ok(gateways.iter().map(seen).collect())
}

pub(super) async fn delete(aws: &Aws, id: &str) -> Result<(), CloudError> {
    aws.ec2.delete_nat_gateway().nat_gateway_id(id).send().await.map(drop).map_err(failed("ec2:DeleteNatGateway"))
}

pub(super) mod address {
    use super::*;

    fn seen(address: &Address) -> Resource {
        Seen::new(Kind::ElasticIp, address.allocation_id(), "available", tags(address.tags()))
            .with("PublicIpAddress", address.public_ip())
            .with("AssociationId", address.association_id())
            .with("InstanceId", address.instance_id())
            .with("NetworkInterfaceId", address.network_interface_id())
            .done()
    }

    pub async fn create(aws: &Aws, create: &Create) -> Result<Resource, CloudError> {
        let call = "ec2:AllocateAddress";
        let tags = tagged(create, ResourceType::ElasticIp);
        let allocate = aws.ec2.allocate_address().domain(DomainType::Vpc).set_tag_specifications(tags);
        let made = allocate.send().await.map_err(failed(call))?;
        let id = answered(call, made.allocation_id())?;
        let seen = Seen::new(Kind::ElasticIp, Some(id), "available", create.tags.clone());
        Ok(seen.with("PublicIpAddress", made.public_ip()).done())
    }

    pub async fn list(aws: &Aws, which: Which<'_>) -> Result<Vec<Resource>, CloudError> {
        let asked = aws.ec2.describe_addresses().set_allocation_ids(which.ids()).set_filters(which.tags());
        let answer = asked.send().await.map_err(failed("ec2:DescribeAddresses"))?;
        Ok(answer.addresses().iter().map(seen).collect())
    }

    /// Give it to an instance, or take it back.
    pub async fn modify(aws: &Aws, id: &str, name: &str, instance: &str) -> Result<(), CloudError> {
        let call = "ec2:AssociateAddress";
        if name != "InstanceId" {
            return Err(unknown(call, name));
        }
        if !instance.is_empty() {
            let associate = aws.ec2.associate_address().allocation_id(id).instance_id(instance);
            return match associate.allow_reassociation(false).send().await.map_err(failed(call)) {
                Err(error) if error.class == Class::Exists => {
                    let addresses = list(aws, Which::Id(id)).await?;
                    let same = addresses.iter().any(|address| address.property("InstanceId") == Some(instance));
                    if same { Ok(()) } else { Err(error) }
                }
                other => other.map(drop),
            };
        }
        let addresses = list(aws, Which::Id(id)).await?;
        let Some(association) = addresses.iter().find_map(|address| address.property("AssociationId")) else {
            return Ok(());
        };
        let release = aws.ec2.disassociate_address().association_id(association);
        match release.send().await.map_err(failed("ec2:DisassociateAddress")) {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    pub async fn delete(aws: &Aws, id: &str) -> Result<(), CloudError> {
        aws.ec2.release_address().allocation_id(id).send().await.map(drop).map_err(failed("ec2:ReleaseAddress"))
    }
}
