//! Subnets, route tables, and which subnet has which table.

use aws_sdk_ec2::types::{AttributeBooleanValue, ResourceType, Route, RouteTable, RouteTableAssociation, Subnet};

use super::Aws;
use super::ec2::{Seen, Which, absent, answered, filter, tagged, tags, unknown};
use super::error::failed;
use crate::cloud::{Class, CloudError, Create, Kind, Resource, Tags, route};

fn seen(subnet: &Subnet) -> Resource {
    let state = subnet.state().map_or("", |state| state.as_str());
    Seen::new(Kind::Subnet, subnet.subnet_id(), state, tags(subnet.tags()))
        .with("CidrBlock", subnet.cidr_block())
        .with("VpcId", subnet.vpc_id())
        .with("AvailabilityZone", subnet.availability_zone())
        .with("AvailableIpAddressCount", subnet.available_ip_address_count())
        .with("MapPublicIpOnLaunch", subnet.map_public_ip_on_launch())
        .done()
}

pub(super) async fn create(aws: &Aws, create: &Create) -> Result<Resource, CloudError> {
    let call = "ec2:CreateSubnet";
    let made = aws
        .ec2
        .create_subnet()
        .set_vpc_id(create.text("VpcId"))
        .set_cidr_block(create.text("CidrBlock"))
        .set_availability_zone(create.text("AvailabilityZone"))
        .set_tag_specifications(tagged(create, ResourceType::Subnet))
        .send()
        .await
        .map_err(failed(call))?;
    Ok(seen(&answered(call, made.subnet)?))
}

pub(super) async fn list(aws: &Aws, which: Which<'_>) -> Result<Vec<Resource>, CloudError> {
    let asked = aws.ec2.describe_subnets().set_subnet_ids(which.ids()).set_filters(which.tags());
    let subnets = asked.into_paginator().items().send().try_collect().await.map_err(failed("ec2:DescribeSubnets"))?;
    Ok(subnets.iter().map(seen).collect())
}

pub(super) async fn modify(aws: &Aws, id: &str, name: &str, value: &str) -> Result<(), CloudError> {
    let call = "ec2:ModifySubnetAttribute";
    if name != "MapPublicIpOnLaunch" {
        return Err(unknown(call, name));
    }
    let value = AttributeBooleanValue::builder().value(value == "true").build();
    let change = aws.ec2.modify_subnet_attribute().subnet_id(id).map_public_ip_on_launch(value);
    change.send().await.map(drop).map_err(failed(call))
}

pub(super) async fn delete(aws: &Aws, id: &str) -> Result<(), CloudError> {
    aws.ec2.delete_subnet().subnet_id(id).send().await.map(drop).map_err(failed("ec2:DeleteSubnet"))
}

pub(super) mod table {
    use super::*;

    fn seen(table: &RouteTable) -> Resource {
        let main = table.associations().iter().any(|association| association.main() == Some(true));
        let mut seen = Seen::new(Kind::RouteTable, table.route_table_id(), "available", tags(table.tags()))
            .with("VpcId", table.vpc_id())
            .with("Main", Some(main));
        for entry in table.routes() {
            let destination = entry.destination_cidr_block().or(entry.destination_prefix_list_id());
            if let Some(destination) = destination {
                seen = seen.with(route(destination), target(entry));
            }
        }
        seen.done()
    }

    fn target(route: &Route) -> Option<&str> {
        route
            .gateway_id()
            .or(route.nat_gateway_id())
            .or(route.network_interface_id())
            .or(route.transit_gateway_id())
            .or(route.vpc_peering_connection_id())
    }

    pub async fn create(aws: &Aws, create: &Create) -> Result<Resource, CloudError> {
        let call = "ec2:CreateRouteTable";
        let made = aws
            .ec2
            .create_route_table()
            .set_vpc_id(create.text("VpcId"))
            .client_token(&create.token)
            .set_tag_specifications(tagged(create, ResourceType::RouteTable))
            .send()
            .await
            .map_err(failed(call))?;
        Ok(seen(&answered(call, made.route_table)?))
    }

    pub async fn list(aws: &Aws, which: Which<'_>) -> Result<Vec<Resource>, CloudError> {
        let asked = aws.ec2.describe_route_tables().set_route_table_ids(which.ids()).set_filters(which.tags());
        let pages = asked.into_paginator().items().send();
        let tables = pages.try_collect().await.map_err(failed("ec2:DescribeRouteTables"))?;
        Ok(tables.iter().map(seen).collect())
    }

    /// One route, made or taken away.
    pub async fn modify(aws: &Aws, id: &str, name: &str, target: &str) -> Result<(), CloudError> {
        let call = "ec2:CreateRoute";
        let destination = name.strip_prefix("Route ").ok_or_else(|| unknown(call, name))?;
        if target.is_empty() {
            let delete = aws.ec2.delete_route().route_table_id(id).destination_cidr_block(destination);
            return match delete.send().await.map_err(failed("ec2:DeleteRoute")) {
                Err(error) if error.code == "InvalidRoute.NotFound" => Ok(()),
                other => other.map(drop),
            };
        }
        let route = aws.ec2.create_route().route_table_id(id).destination_cidr_block(destination);
        let route = if target.starts_with("nat-") { route.nat_gateway_id(target) } else { route.gateway_id(target) };
        match route.send().await.map_err(failed(call)) {
            Err(error) if error.class == Class::Exists => {
                let tables = list(aws, Which::Id(id)).await?;
                if tables.iter().any(|table| table.property(name) == Some(target)) {
                    return Ok(());
                }
                // To a gateway that is gone: the table has not noticed, or keeps it as a black hole.
                let replace = aws.ec2.replace_route().route_table_id(id).destination_cidr_block(destination);
                let nat = target.starts_with("nat-");
                let replace = if nat { replace.nat_gateway_id(target) } else { replace.gateway_id(target) };
                replace.send().await.map(drop).map_err(failed("ec2:ReplaceRoute"))
            }
            other => other.map(drop),
        }
    }

    pub async fn delete(aws: &Aws, id: &str) -> Result<(), CloudError> {
        let delete = aws.ec2.delete_route_table().route_table_id(id);
        delete.send().await.map(drop).map_err(failed("ec2:DeleteRouteTable"))
    }
}

pub(super) mod association {
    use super::*;

    const KIND: Kind = Kind::RouteTableAssociation;

    /// The same pair has the same association.
    pub async fn create(aws: &Aws, create: &Create) -> Result<Resource, CloudError> {
        let call = "ec2:AssociateRouteTable";
        let (table, subnet) = (create.text("RouteTableId"), create.text("SubnetId"));
        let associate = aws.ec2.associate_route_table().set_route_table_id(table.clone()).set_subnet_id(subnet.clone());
        let made = match associate.send().await.map_err(failed(call)) {
            Err(error) if error.class == Class::Exists => {
                let standing = list(aws, "association.subnet-id", subnet.as_deref().unwrap_or_default()).await?;
                let same = |other: &Resource| {
                    other.property("RouteTableId") == table.as_deref()
                        && other.property("SubnetId") == subnet.as_deref()
                };
                return standing.into_iter().find(same).ok_or(error);
            }
            other => other?,
        };
        let state = made.association_state().and_then(|state| state.state());
        let id = answered(call, made.association_id())?;
        Ok(Seen::new(KIND, Some(id), state.map_or("associated", |state| state.as_str()), Tags::new())
            .with("RouteTableId", table)
            .with("SubnetId", subnet)
            .done())
    }

    async fn list(aws: &Aws, by: &str, value: &str) -> Result<Vec<Resource>, CloudError> {
        let pages = aws.ec2.describe_route_tables().filters(filter(by, value)).into_paginator().items().send();
        let tables = pages.try_collect().await.map_err(failed("ec2:DescribeRouteTables"))?;
        Ok(tables.iter().flat_map(|table| table.associations()).map(seen).collect())
    }

    fn seen(association: &RouteTableAssociation) -> Resource {
        // Not every stand-in tells the state.
        let state = association.association_state().and_then(|state| state.state());
        let state = state.map_or("associated", |state| state.as_str());
        Seen::new(KIND, association.route_table_association_id(), state, Tags::new())
            .with("RouteTableId", association.route_table_id())
            .with("SubnetId", association.subnet_id())
            .done()
    }

    pub async fn get(aws: &Aws, id: &str) -> Result<Resource, CloudError> {
        let found = list(aws, "association.route-table-association-id", id).await?;
        found.into_iter().find(|association| association.id == id).ok_or_else(|| absent(KIND, id))
    }

    /// Every one of the region.
    pub async fn all(aws: &Aws) -> Result<Vec<Resource>, CloudError> {
        let pages = aws.ec2.describe_route_tables().into_paginator().items().send();
        let tables = pages.try_collect().await.map_err(failed("ec2:DescribeRouteTables"))?;
        Ok(tables.iter().flat_map(|table| table.associations()).map(seen).collect())
    }

    pub async fn delete(aws: &Aws, id: &str) -> Result<(), CloudError> {
        let delete = aws.ec2.disassociate_route_table().association_id(id);
        delete.send().await.map(drop).map_err(failed("ec2:DisassociateRouteTable"))
    }
}
