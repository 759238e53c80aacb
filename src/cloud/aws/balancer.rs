//! Load balancers of both generations. The cluster makes them; they are found for its records, and deleted where its own
//! destroy has left them. A classic one's id is its name, any other's its ARN.

use aws_sdk_elasticloadbalancing as classic;
use aws_sdk_elasticloadbalancingv2 as newer;
use classic::types::LoadBalancerDescription;
use newer::types::{LoadBalancer, LoadBalancerTypeEnum};

use super::Aws;
use super::ec2::{Seen, Which, absent};
use super::error::failed;
use crate::cloud::{CloudError, Kind, Resource, Tags};

const DESCRIBE: &str = "elasticloadbalancing:DescribeLoadBalancers";
const TAGS: &str = "elasticloadbalancing:DescribeTags";
const DELETE: &str = "elasticloadbalancing:DeleteLoadBalancer";

/// How many balancers' tags are told at once.
const AT_ONCE: usize = 20;

fn seen(balancer: &LoadBalancer, tags: Tags) -> Seen {
    let state = balancer.state().and_then(|state| state.code()).map_or("available", |code| match code.as_str() {
        "provisioning" => "pending",
        other => other,
    });
    Seen::new(Kind::LoadBalancer, balancer.load_balancer_arn(), state, tags)
        .with("LoadBalancerName", balancer.load_balancer_name())
        .with("Type", balancer.r#type().map(LoadBalancerTypeEnum::as_str))
        .with("Scheme", balancer.scheme().map(|scheme| scheme.as_str()))
        .with("VpcId", balancer.vpc_id())
        .with("DNSName", balancer.dns_name())
        .with("CanonicalHostedZoneId", balancer.canonical_hosted_zone_id())
}

fn seen_classic(balancer: &LoadBalancerDescription, tags: Tags) -> Seen {
    Seen::new(Kind::LoadBalancer, balancer.load_balancer_name(), "available", tags)
        .with("LoadBalancerName", balancer.load_balancer_name())
        .with("Type", Some("classic"))
        .with("Scheme", balancer.scheme())
        .with("VpcId", balancer.vpc_id())
        .with("DNSName", balancer.dns_name())
        .with("CanonicalHostedZoneId", balancer.canonical_hosted_zone_name_id())
}

fn is_arn(id: &str) -> bool {
    id.starts_with("arn:")
}

pub(super) async fn list(aws: &Aws, which: Which<'_>) -> Result<Vec<Resource>, CloudError> {
    let mut found = Vec::new();
    let (newer, classic) = match which {
        Which::Id(id) if is_arn(id) => (newer_ones(aws, Some(id)).await?, Vec::new()),
        Which::Id(id) => (Vec::new(), classic_ones(aws, Some(id)).await?),
        Which::Tags(_) => (newer_ones(aws, None).await?, classic_ones(aws, None).await?),
    };
    for some in newer.chunks(AT_ONCE) {
        let arns = some.iter().filter_map(|one| one.load_balancer_arn()).map(str::to_owned).collect();
        let told = aws.elb2.describe_tags().set_resource_arns(Some(arns)).send().await.map_err(failed(TAGS))?;
        for one in some {
            let sets = told.tag_descriptions().iter().filter(|set| set.resource_arn() == one.load_balancer_arn());
            let pairs = sets.flat_map(|set| set.tags()).filter_map(|tag| Some((tag.key()?, tag.value())));
            found.push(seen(one, owned(pairs)).done());
        }
    }
    for some in classic.chunks(AT_ONCE) {
        let names = some.iter().filter_map(|one| one.load_balancer_name()).map(str::to_owned).collect();
        let told = aws.elb.describe_tags().set_load_balancer_names(Some(names)).send().await.map_err(failed(TAGS))?;
        for one in some {
            let sets =
                told.tag_descriptions().iter().filter(|set| set.load_balancer_name() == one.load_balancer_name());
            let pairs = sets.flat_map(|set| set.tags()).map(|tag| (tag.key(), tag.value()));
            found.push(seen_classic(one, owned(pairs)).done());
        }
    }
    found.retain(|resource| which.matches(resource));
    Ok(found)
}

fn owned<'t>(pairs: impl Iterator<Item = (&'t str, Option<&'t str>)>) -> Tags {
    pairs.map(|(name, value)| (name.to_owned(), value.unwrap_or_default().to_owned())).collect()
}

async fn newer_ones(aws: &Aws, arn: Option<&str>) -> Result<Vec<LoadBalancer>, CloudError> {
    let arns = arn.map(|arn| vec![arn.to_owned()]);
    let pages = aws.elb2.describe_load_balancers().set_load_balancer_arns(arns).into_paginator().items().send();
    pages.try_collect().await.map_err(failed(DESCRIBE))
}

async fn classic_ones(aws: &Aws, name: Option<&str>) -> Result<Vec<LoadBalancerDescription>, CloudError> {
    let names = name.map(|name| vec![name.to_owned()]);
    let pages = aws.elb.describe_load_balancers().set_load_balancer_names(names).into_paginator().items().send();
    pages.try_collect().await.map_err(failed(DESCRIBE))
}

/// The API says yes to those that are not there, too.
pub(super) async fn delete(aws: &Aws, id: &str) -> Result<(), CloudError> {
    if list(aws, Which::Id(id)).await?.is_empty() {
        return Err(absent(Kind::LoadBalancer, id));
    }
    if is_arn(id) {
        aws.elb2.delete_load_balancer().load_balancer_arn(id).send().await.map(drop).map_err(failed(DELETE))
    } else {
        aws.elb.delete_load_balancer().load_balancer_name(id).send().await.map(drop).map_err(failed(DELETE))
    }
}
