//! Security groups and their rules.

use aws_sdk_ec2::types::{IpPermission, IpRange, PrefixListId, ResourceType, SecurityGroup, UserIdGroupPair};

use super::Aws;
use super::ec2::{Seen, Which, answered, filter, tagged, tags, unknown};
use super::error::failed;
use crate::cloud::{Class, CloudError, Create, Kind, Resource};

fn seen(group: &SecurityGroup) -> Resource {
    let mut seen = Seen::new(Kind::SecurityGroup, group.group_id(), "available", tags(group.tags()))
        .with("GroupName", group.group_name())
        .with("Description", group.description())
        .with("VpcId", group.vpc_id());
    for permission in group.ip_permissions() {
        for (source, description) in sources(permission) {
            // A rule without words is there all the same.
            let words = if description.is_empty() { "-" } else { description };
            seen = seen.with(format!("Ingress {} {source}", ports(permission)), Some(words));
        }
    }
    seen.done()
}

/// `tcp/443`, `tcp/6001-6002`, `all`
fn ports(permission: &IpPermission) -> String {
    let protocol = permission.ip_protocol().unwrap_or("-1");
    match (protocol, permission.from_port(), permission.to_port()) {
        ("-1", _, _) => "all".into(),
        (protocol, Some(from), Some(to)) if from == to => format!("{protocol}/{from}"),
        (protocol, Some(from), Some(to)) => format!("{protocol}/{from}-{to}"),
        (protocol, _, _) => protocol.to_owned(),
    }
}

fn sources(permission: &IpPermission) -> Vec<(&str, &str)> {
    let ranges = permission.ip_ranges().iter().map(|range| (range.cidr_ip(), range.description()));
    let groups = permission.user_id_group_pairs().iter().map(|pair| (pair.group_id(), pair.description()));
    let lists = permission.prefix_list_ids().iter().map(|list| (list.prefix_list_id(), list.description()));
    let all = ranges.chain(groups).chain(lists);
    all.filter_map(|(source, description)| Some((source?, description.unwrap_or_default()))).collect()
}

/// The rule of a property `Ingress tcp/443 10.0.0.0/16`; see [`crate::cloud::ingress`].
fn rule(property: &str, description: Option<&str>) -> Option<IpPermission> {
    let (ports, source) = property.strip_prefix("Ingress ")?.split_once(' ')?;
    let description = description.map(str::to_owned);
    let rule = match ports.split_once('/') {
        None if ports == "all" => IpPermission::builder().ip_protocol("-1"),
        None => IpPermission::builder().ip_protocol(ports).from_port(-1).to_port(-1),
        Some((protocol, ports)) => {
            let (from, to) = ports.split_once('-').unwrap_or((ports, ports));
            IpPermission::builder().ip_protocol(protocol).from_port(from.parse().ok()?).to_port(to.parse().ok()?)
        }
    };
    let rule = if source.starts_with("sg-") {
        let pair = UserIdGroupPair::builder().group_id(source).set_description(description);
        rule.user_id_group_pairs(pair.build())
    } else if source.starts_with("pl-") {
        rule.prefix_list_ids(PrefixListId::builder().prefix_list_id(source).set_description(description).build())
    } else {
        rule.ip_ranges(IpRange::builder().cidr_ip(source).set_description(description).build())
    };
    Some(rule.build())
}

pub(super) async fn create(aws: &Aws, create: &Create) -> Result<Resource, CloudError> {
    let call = "ec2:CreateSecurityGroup";
    let made = aws
        .ec2
        .create_security_group()
        .set_vpc_id(create.text("VpcId"))
        .set_group_name(create.text("GroupName"))
        .set_description(create.text("Description"))
        .set_tag_specifications(tagged(create, ResourceType::SecurityGroup))
        .send()
        .await
        .map_err(failed(call))?;
    Ok(Seen::new(Kind::SecurityGroup, Some(answered(call, made.group_id())?), "available", create.tags.clone())
        .with("VpcId", create.text("VpcId"))
        .with("GroupName", create.text("GroupName"))
        .done())
}

pub(super) async fn list(aws: &Aws, which: Which<'_>) -> Result<Vec<Resource>, CloudError> {
    let asked = aws.ec2.describe_security_groups().set_group_ids(which.ids()).set_filters(which.tags());
    let pages = asked.into_paginator().items().send();
    let groups = pages.try_collect().await.map_err(failed("ec2:DescribeSecurityGroups"))?;
    Ok(groups.iter().map(seen).collect())
}

/// One rule, made or taken away.
pub(super) async fn modify(aws: &Aws, id: &str, name: &str, description: &str) -> Result<(), CloudError> {
    let call = "ec2:AuthorizeSecurityGroupIngress";
    if description.is_empty() {
        let rule = rule(name, None).ok_or_else(|| unknown(call, name))?;
        let revoke = aws.ec2.revoke_security_group_ingress().group_id(id).ip_permissions(rule);
        return match revoke.send().await.map_err(failed("ec2:RevokeSecurityGroupIngress")) {
            Err(error) if error.code == "InvalidPermission.NotFound" => Ok(()),
            other => other.map(drop),
        };
    }
    let rule = rule(name, Some(description)).ok_or_else(|| unknown(call, name))?;
    let allow = aws.ec2.authorize_security_group_ingress().group_id(id).ip_permissions(rule.clone());
    match allow.send().await.map_err(failed(call)) {
        Err(error) if error.class == Class::Exists => {
            let words = aws.ec2.update_security_group_rule_descriptions_ingress().group_id(id).ip_permissions(rule);
            words.send().await.map(drop).map_err(failed("ec2:UpdateSecurityGroupRuleDescriptionsIngress"))
        }
        other => other.map(drop),
    }
}

pub(super) async fn delete(aws: &Aws, id: &str) -> Result<(), CloudError> {
    let delete = aws.ec2.delete_security_group().group_id(id);
    match delete.send().await.map_err(failed("ec2:DeleteSecurityGroup")) {
        Err(mut error) if error.is_in_use() => {
            // EC2 does not say by whom.
            let users = users(aws, id).await.unwrap_or_default();
            if !users.is_empty() {
                error.message = format!("{} (used by {})", error.message, users.join(", "));
            }
            Err(error)
        }
        other => other.map(drop),
    }
}

/// Interfaces that have the group, and groups whose rules name it.
async fn users(aws: &Aws, id: &str) -> Result<Vec<String>, CloudError> {
    let asked = aws.ec2.describe_network_interfaces().filters(filter("group-id", id));
    let pages = asked.into_paginator().items().send();
    let interfaces = pages.try_collect().await.map_err(failed("ec2:DescribeNetworkInterfaces"))?;
    let asked = aws.ec2.describe_security_groups().filters(filter("ip-permission.group-id", id));
    let pages = asked.into_paginator().items().send();
    let groups = pages.try_collect().await.map_err(failed("ec2:DescribeSecurityGroups"))?;
    let interfaces = interfaces.iter().map(|interface| {
        let name = interface.description().unwrap_or_default();
        format!("{} {name}", interface.network_interface_id().unwrap_or_default()).trim_end().to_owned()
    });
    let others = groups.iter().filter_map(|group| group.group_id()).filter(|other| *other != id).map(str::to_owned);
    Ok(interfaces.chain(others).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::ingress;

    #[test]
    fn a_rule_is_its_property() {
        let properties = [
            ingress("tcp", 443, "10.0.0.0/16"),
            "Ingress tcp/6001-6002 10.0.0.0/16".into(),
            "Ingress all sg-0123456789abcdef0".into(),
            "Ingress tcp/443 pl-0123456789abcdef0".into(),
        ];
        let rules = properties.iter().map(|property| rule(property, Some("why")).unwrap()).collect();
        let group = SecurityGroup::builder().group_id("sg-1").set_ip_permissions(Some(rules)).build();
        let seen = seen(&group);
        for property in properties {
            assert_eq!(seen.property(&property), Some("why"), "{property}: {seen:?}");
        }
        assert_eq!(rule("Ingress tcp/x 10.0.0.0/16", None), None);
    }
}
