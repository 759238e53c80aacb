//! Private hosted zones and their records.
//!
//! A zone is tagged after it was made. What stands between is not lost: its comment says whose it is, and the caller
//! reference is the token.

use aws_sdk_route53::types::{
    AliasTarget, Change, ChangeAction, ChangeBatch, HostedZone, HostedZoneConfig, ResourceRecord, ResourceRecordSet,
    RrType, Tag, TagResourceType, Vpc, VpcRegion,
};

use super::Aws;
use super::ec2::{Seen, Which, answered, unknown};
use super::error::failed;
use crate::cloud::{Class, CloudError, Create, Kind, Resource, Tags, alias, cname, record};

/// Seconds that a resolver may keep an answer.
const TTL: i64 = 60;
/// Tags that the comment repeats.
const MARKS: [&str; 2] = ["bartizan.run", "Name"];

fn plain(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or(id)
}

/// Without the dot at its end, and with the star that Route 53 writes as `\052`.
fn name(text: &str) -> String {
    text.trim_end_matches('.').replace("\\052", "*")
}

fn comment(tags: &Tags) -> String {
    let mark = |name: &&str| Some(format!("{name}={}", tags.get(*name)?));
    MARKS.iter().filter_map(mark).collect::<Vec<_>>().join(" ")
}

fn marks(comment: &str) -> Tags {
    let pairs = comment.split(' ').filter_map(|word| word.split_once('='));
    pairs.filter(|(name, _)| MARKS.contains(name)).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn seen(zone: &HostedZone, tags: Tags) -> Seen {
    let config = zone.config();
    let mut all = config.and_then(|config| config.comment()).map(marks).unwrap_or_default();
    all.extend(tags);
    Seen::new(Kind::HostedZone, Some(plain(zone.id())), "available", all)
        .with("Name", Some(name(zone.name())))
        .with("PrivateZone", config.map(|config| config.private_zone()))
}

pub(super) async fn create(aws: &Aws, create: &Create) -> Result<Resource, CloudError> {
    let call = "route53:CreateHostedZone";
    let id = match made_before(aws, create).await? {
        Some(id) => id,
        None => {
            let vpc = Vpc::builder().vpc_region(VpcRegion::from(aws.region.as_str())).set_vpc_id(create.text("VpcId"));
            let private = create.flag("PrivateZone").unwrap_or(true);
            let config = HostedZoneConfig::builder().comment(comment(&create.tags)).private_zone(private);
            let made = aws
                .route53
                .create_hosted_zone()
                .set_name(create.text("Name"))
                .caller_reference(&create.token)
                .set_vpc(private.then(|| vpc.build()))
                .hosted_zone_config(config.build())
                .send()
                .await
                .map_err(failed(call))?;
            plain(answered(call, made.hosted_zone())?.id()).to_owned()
        }
    };
    tag(aws, &id, &create.tags).await?;
    get(aws, &id).await
}

/// The zone that an earlier request with this token has made.
async fn made_before(aws: &Aws, create: &Create) -> Result<Option<String>, CloudError> {
    let asked = aws.route53.list_hosted_zones_by_name().set_dns_name(create.text("Name"));
    let zones = asked.send().await.map_err(failed("route53:ListHostedZonesByName"))?;
    let found = zones.hosted_zones().iter().find(|zone| zone.caller_reference() == create.token);
    Ok(found.map(|zone| plain(zone.id()).to_owned()))
}

async fn tag(aws: &Aws, id: &str, tags: &Tags) -> Result<(), CloudError> {
    let tags: Vec<Tag> = tags.iter().map(|(name, value)| Tag::builder().key(name).value(value).build()).collect();
    // The API takes ten at once.
    for some in tags.chunks(10) {
        let change = aws.route53.change_tags_for_resource().resource_type(TagResourceType::Hostedzone).resource_id(id);
        let change = change.set_add_tags(Some(some.to_vec()));
        change.send().await.map_err(failed("route53:ChangeTagsForResource"))?;
    }
    Ok(())
}

fn of(tags: &[Tag]) -> Tags {
    let pair = |tag: &Tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned()));
    tags.iter().filter_map(pair).collect()
}

pub(super) async fn get(aws: &Aws, id: &str) -> Result<Resource, CloudError> {
    let call = "route53:GetHostedZone";
    let answer = aws.route53.get_hosted_zone().id(id).send().await.map_err(failed(call))?;
    let asked = aws.route53.list_tags_for_resource().resource_type(TagResourceType::Hostedzone).resource_id(id);
    let tags = asked.send().await.map_err(failed("route53:ListTagsForResource"))?;
    let tags = tags.resource_tag_set().map(|set| of(set.tags())).unwrap_or_default();
    let vpcs = answer.vpcs().iter().filter_map(|vpc| vpc.vpc_id());
    let mut seen = seen(answered(call, answer.hosted_zone())?, tags).list("VpcId", vpcs);
    for set in records(aws, id).await? {
        let (key, value) = match (set.r#type(), set.alias_target()) {
            (RrType::A, Some(target)) => {
                (alias(&name(set.name())), format!("{} {}", target.hosted_zone_id(), name(target.dns_name())))
            }
            (RrType::A, None) => (record(&name(set.name())), values(&set)),
            (RrType::Cname, _) => (cname(&name(set.name())), name(&values(&set))),
            _ => continue,
        };
        seen = seen.with(key, Some(value));
    }
    Ok(seen.done())
}

fn values(set: &ResourceRecordSet) -> String {
    set.resource_records().iter().map(ResourceRecord::value).collect::<Vec<_>>().join(",")
}

async fn records(aws: &Aws, id: &str) -> Result<Vec<ResourceRecordSet>, CloudError> {
    let mut all = Vec::new();
    let mut asked = aws.route53.list_resource_record_sets().hosted_zone_id(id);
    loop {
        let page = asked.send().await.map_err(failed("route53:ListResourceRecordSets"))?;
        all.extend_from_slice(page.resource_record_sets());
        if !page.is_truncated() {
            return Ok(all);
        }
        asked = aws
            .route53
            .list_resource_record_sets()
            .hosted_zone_id(id)
            .set_start_record_name(page.next_record_name().map(str::to_owned))
            .set_start_record_type(page.next_record_type().cloned())
            .set_start_record_identifier(page.next_record_identifier().map(str::to_owned));
    }
}

pub(super) async fn find(aws: &Aws, which: Which<'_>) -> Result<Vec<Resource>, CloudError> {
    let pages = aws.route53.list_hosted_zones().into_paginator().items().send();
    let zones: Vec<HostedZone> = pages.try_collect().await.map_err(failed("route53:ListHostedZones"))?;
    let mut found = Vec::new();
    // Tags are told for ten zones at once.
    for some in zones.chunks(10) {
        let ids = some.iter().map(|zone| plain(zone.id()).to_owned()).collect();
        let asked = aws.route53.list_tags_for_resources().resource_type(TagResourceType::Hostedzone);
        let told = asked.set_resource_ids(Some(ids)).send().await.map_err(failed("route53:ListTagsForResources"))?;
        for zone in some {
            let sets = told.resource_tag_sets().iter();
            let tags = sets.filter(|set| set.resource_id() == Some(plain(zone.id()))).map(|set| of(set.tags()));
            let resource = seen(zone, tags.flatten().collect()).done();
            if !which.matches(&resource) {
                continue;
            }
            found.push(if which.is_narrow() { get(aws, &resource.id).await? } else { resource });
        }
    }
    Ok(found)
}

/// One record, set or taken away.
pub(super) async fn modify(aws: &Aws, id: &str, property: &str, value: &str) -> Result<(), CloudError> {
    let call = "route53:ChangeResourceRecordSets";
    let (kind, of) = property.split_once(' ').ok_or_else(|| unknown(call, property))?;
    let kind = match kind {
        "A" | "Alias" => RrType::A,
        "CNAME" => RrType::Cname,
        _ => return Err(unknown(call, property)),
    };
    let (action, set) = if value.is_empty() {
        // It is taken away as it stands, whatever it says.
        let standing = records(aws, id).await?;
        let set = standing.into_iter().find(|set| *set.r#type() == kind && name(set.name()) == name(of));
        let Some(set) = set else { return Ok(()) };
        (ChangeAction::Delete, set)
    } else {
        (ChangeAction::Upsert, wanted(property, of, kind, value).ok_or_else(|| unknown(call, property))?)
    };
    let change = Change::builder().action(action).resource_record_set(set).build();
    let batch = change.and_then(|change| ChangeBatch::builder().changes(change).build());
    let batch = batch.map_err(|error| CloudError::of(Class::Input, call, error.to_string()))?;
    let change = aws.route53.change_resource_record_sets().hosted_zone_id(id).change_batch(batch);
    change.send().await.map(drop).map_err(failed(call))
}

fn wanted(property: &str, of: &str, kind: RrType, value: &str) -> Option<ResourceRecordSet> {
    let set = ResourceRecordSet::builder().name(of).r#type(kind);
    if property.starts_with("Alias ") {
        let (zone, target) = value.split_once(' ')?;
        let target = AliasTarget::builder().hosted_zone_id(zone).dns_name(target).evaluate_target_health(false);
        return set.alias_target(target.build().ok()?).build().ok();
    }
    let values: Option<Vec<ResourceRecord>> =
        value.split(',').map(|value| ResourceRecord::builder().value(value).build().ok()).collect();
    set.ttl(TTL).set_resource_records(Some(values?)).build().ok()
}

pub(super) async fn delete(aws: &Aws, id: &str) -> Result<(), CloudError> {
    aws.route53.delete_hosted_zone().id(id).send().await.map(drop).map_err(failed("route53:DeleteHostedZone"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comment_says_whose_a_zone_is() {
        let tags = Tags::from([
            ("Name".into(), "edge-lab-bastion-zone".into()),
            ("bartizan.run".into(), "20261121-090000-1a2b".into()),
            ("team".into(), "edge".into()),
        ]);
        let marked = marks(&comment(&tags));
        assert_eq!(marked.get("Name"), tags.get("Name"));
        assert_eq!(marked.get("bartizan.run"), tags.get("bartizan.run"));
        assert_eq!(marked.len(), 2);
        assert_eq!(marks("HostedZone created by Route53 Registrar"), Tags::new());
    }
}
