//! S3 buckets.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketLocationConstraint, CreateBucketConfiguration, Delete, ObjectIdentifier, PublicAccessBlockConfiguration, Tag,
    Tagging,
};

use super::Aws;
use super::ec2::{Seen, Which, unknown};
use super::error::failed;
use crate::cloud::{Class, CloudError, Create, Kind, Resource, Tags};

fn own(create: &Create) -> Result<Vec<Tag>, CloudError> {
    let tags = create.tags.iter().map(|(name, value)| Tag::builder().key(name).value(value).build());
    tags.collect::<Result<_, _>>().map_err(|error| CloudError::of(Class::Input, "s3:CreateBucket", error.to_string()))
}

/// Closed to the public, with its tags from the first moment where S3 takes them so, and set again where it does not.
pub(super) async fn create(aws: &Aws, create: &Create) -> Result<Resource, CloudError> {
    let call = "s3:CreateBucket";
    let name = create.text("Bucket").unwrap_or_default();
    let tags = own(create)?;
    // The first region has no name in this place.
    let place = (aws.region != "us-east-1").then(|| BucketLocationConstraint::from(aws.region.as_str()));
    let config = CreateBucketConfiguration::builder().set_location_constraint(place).set_tags(Some(tags.clone()));
    let make = aws.s3.create_bucket().bucket(&name).create_bucket_configuration(config.build());
    match make.send().await.map_err(failed(call)) {
        // Ours already: by this token, if its tags say nothing else.
        Err(error) if error.code == "BucketAlreadyOwnedByYou" => {
            let standing = get(aws, &name).await?;
            if !standing.tags.is_empty() && !create.is(&standing) {
                return Err(error);
            }
        }
        other => drop(other?),
    }
    let tagging = Tagging::builder().set_tag_set(Some(tags)).build();
    let tagging = tagging.map_err(|error| CloudError::of(Class::Input, call, error.to_string()))?;
    let tag = aws.s3.put_bucket_tagging().bucket(&name).tagging(tagging);
    tag.send().await.map_err(failed("s3:PutBucketTagging"))?;
    let closed = PublicAccessBlockConfiguration::builder()
        .block_public_acls(true)
        .ignore_public_acls(true)
        .block_public_policy(true)
        .restrict_public_buckets(true);
    let close = aws.s3.put_public_access_block().bucket(&name).public_access_block_configuration(closed.build());
    close.send().await.map_err(failed("s3:PutBucketPublicAccessBlock"))?;
    get(aws, &name).await
}

pub(super) async fn get(aws: &Aws, name: &str) -> Result<Resource, CloudError> {
    aws.s3.head_bucket().bucket(name).send().await.map_err(failed("s3:HeadBucket"))?;
    Ok(Seen::new(Kind::Bucket, Some(name), "available", tags(aws, name).await?).with("Bucket", Some(name)).done())
}

async fn tags(aws: &Aws, name: &str) -> Result<Tags, CloudError> {
    match aws.s3.get_bucket_tagging().bucket(name).send().await.map_err(failed("s3:GetBucketTagging")) {
        Ok(told) => Ok(told.tag_set().iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect()),
        // NoSuchTagSet: it has none.
        Err(error) if error.code == "NoSuchTagSet" => Ok(Tags::new()),
        Err(error) => Err(error),
    }
}

pub(super) async fn find(aws: &Aws, which: Which<'_>) -> Result<Vec<Resource>, CloudError> {
    let pages = aws.s3.list_buckets().bucket_region(&aws.region).into_paginator().send();
    let pages = pages.try_collect().await.map_err(failed("s3:ListBuckets"))?;
    let mut found = Vec::new();
    for name in pages.iter().flat_map(|page| page.buckets()).filter_map(|bucket| bucket.name()) {
        let tags = match tags(aws, name).await {
            Ok(tags) => tags,
            // Others' buckets need not be ours to read; one may go while we look.
            Err(error) if matches!(error.class, Class::Denied | Class::NotFound) => continue,
            Err(error) => return Err(error),
        };
        let resource = Seen::new(Kind::Bucket, Some(name), "available", tags).with("Bucket", Some(name)).done();
        if which.matches(&resource) {
            found.push(resource);
        }
    }
    Ok(found)
}

/// `Object <key>`: its content.
pub(super) async fn modify(aws: &Aws, name: &str, property: &str, content: &str) -> Result<(), CloudError> {
    let call = "s3:PutObject";
    let key = property.strip_prefix("Object ").ok_or_else(|| unknown(call, property))?;
    if content.is_empty() {
        let delete = aws.s3.delete_object().bucket(name).key(key);
        return delete.send().await.map(drop).map_err(failed("s3:DeleteObject"));
    }
    let body = ByteStream::from(content.as_bytes().to_vec());
    aws.s3.put_object().bucket(name).key(key).body(body).send().await.map(drop).map_err(failed(call))
}

/// With everything in it, older versions too.
pub(super) async fn delete(aws: &Aws, name: &str) -> Result<(), CloudError> {
    loop {
        let call = "s3:ListObjectVersions";
        let page = aws.s3.list_object_versions().bucket(name).send().await.map_err(failed(call))?;
        let versions = page.versions().iter().map(|version| (version.key(), version.version_id()));
        let markers = page.delete_markers().iter().map(|marker| (marker.key(), marker.version_id()));
        let objects: Result<Vec<ObjectIdentifier>, _> = versions
            .chain(markers)
            .map(|(key, version)| {
                ObjectIdentifier::builder()
                    .key(key.unwrap_or_default())
                    .set_version_id(version.map(str::to_owned))
                    .build()
            })
            .collect();
        let objects = objects.map_err(|error| CloudError::of(Class::Input, call, error.to_string()))?;
        if objects.is_empty() {
            break;
        }
        let call = "s3:DeleteObjects";
        let batch = Delete::builder().set_objects(Some(objects)).quiet(true).build();
        let batch = batch.map_err(|error| CloudError::of(Class::Input, call, error.to_string()))?;
        let told = aws.s3.delete_objects().bucket(name).delete(batch).send().await.map_err(failed(call))?;
        if let Some(error) = told.errors().first() {
            let message = format!("{}: {}", error.key().unwrap_or_default(), error.message().unwrap_or_default());
            return Err(CloudError::new(call, error.code().unwrap_or_default(), message));
        }
    }
    aws.s3.delete_bucket().bucket(name).send().await.map(drop).map_err(failed("s3:DeleteBucket"))
}
