//! IAM users, their policies, and the keys that machines have of them.

pub(super) mod policy;

use aws_sdk_iam::types::{Tag, User};

use super::Aws;
use super::ec2::{Seen, Which, answered, unknown};
use super::error::failed;
use crate::cloud::{AccessKey, Class, CloudError, Create, Kind, Resource, Tags};
use crate::spec::Secret;

fn of(tags: &[Tag]) -> Tags {
    tags.iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect()
}

fn tags(call: &str, tags: &Tags) -> Result<Vec<Tag>, CloudError> {
    let tags = tags.iter().map(|(name, value)| Tag::builder().key(name).value(value).build());
    tags.collect::<Result<_, _>>().map_err(|error| CloudError::of(Class::Input, call, error.to_string()))
}

/// Where to look for what carries these tags: IAM filters by path only, and what a run makes has the run in its path.
fn path(tags: &Tags) -> Option<String> {
    match tags.get("bartizan.run") {
        Some(run) => Some(format!("/bartizan/{run}/")),
        None => tags.contains_key("bartizan.cluster").then(|| "/bartizan/".to_owned()),
    }
}

fn seen(user: &User, tags: Tags) -> Seen {
    Seen::new(Kind::User, Some(user.user_name()), "available", tags)
        .with("UserName", Some(user.user_name()))
        .with("Path", Some(user.path()))
        .with("Arn", Some(user.arn()))
}

pub(super) async fn create(aws: &Aws, create: &Create) -> Result<Resource, CloudError> {
    let call = "iam:CreateUser";
    let make = aws.iam.create_user().set_user_name(create.text("UserName")).set_path(create.text("Path"));
    let made = make.set_tags(Some(tags(call, &create.tags)?)).send().await.map_err(failed(call))?;
    // It is not asked for again: IAM may not know it everywhere for a while.
    Ok(seen(answered(call, made.user())?, create.tags.clone()).done())
}

pub(super) async fn get(aws: &Aws, name: &str) -> Result<Resource, CloudError> {
    let call = "iam:GetUser";
    let answer = aws.iam.get_user().user_name(name).send().await.map_err(failed(call))?;
    let user = answered(call, answer.user())?;
    let (keys, attached) = (keys(aws, name).await?, attached(aws, name).await?);
    let seen = seen(user, of(user.tags())).list("AccessKeyIds", keys.iter().map(String::as_str));
    Ok(seen.list("PolicyArn", attached.iter().map(String::as_str)).done())
}

async fn keys(aws: &Aws, name: &str) -> Result<Vec<String>, CloudError> {
    let pages = aws.iam.list_access_keys().user_name(name).into_paginator().items().send();
    let keys = pages.try_collect().await.map_err(failed("iam:ListAccessKeys"))?;
    Ok(keys.iter().filter_map(|key| key.access_key_id()).map(str::to_owned).collect())
}

/// ARNs of the managed policies that a user has.
async fn attached(aws: &Aws, name: &str) -> Result<Vec<String>, CloudError> {
    let pages = aws.iam.list_attached_user_policies().user_name(name).into_paginator().items().send();
    let policies = pages.try_collect().await.map_err(failed("iam:ListAttachedUserPolicies"))?;
    Ok(policies.iter().filter_map(|policy| policy.policy_arn()).map(str::to_owned).collect())
}

/// IAM finds nobody by tags: the one of that name is asked, else everybody who is at the right place.
pub(super) async fn find(aws: &Aws, tags: &Tags) -> Result<Vec<Resource>, CloudError> {
    if let Some(name) = tags.get("Name") {
        return match get(aws, name).await {
            Ok(user) => Ok(Some(user).filter(|user| Which::Tags(tags).matches(user)).into_iter().collect()),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        };
    }
    let pages = aws.iam.list_users().set_path_prefix(path(tags)).into_paginator().items().send();
    let users = pages.try_collect().await.map_err(failed("iam:ListUsers"))?;
    let which = Which::Tags(tags);
    let mut found = Vec::new();
    for user in &users {
        let pages = aws.iam.list_user_tags().user_name(user.user_name()).into_paginator().items().send();
        let resource = match pages.try_collect().await.map_err(failed("iam:ListUserTags")) {
            Ok(tags) => seen(user, of(&tags)).done(),
            // Gone while we looked.
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        if which.matches(&resource) {
            found.push(if which.is_narrow() { get(aws, user.user_name()).await? } else { resource });
        }
    }
    Ok(found)
}

/// Which managed policies a user has: those of the list, and no other.
pub(super) async fn modify(aws: &Aws, name: &str, property: &str, arns: &str) -> Result<(), CloudError> {
    let call = "iam:AttachUserPolicy";
    if property != "PolicyArn" {
        return Err(unknown(call, property));
    }
    let wanted: Vec<&str> = arns.split(',').filter(|arn| !arn.is_empty()).collect();
    for arn in attached(aws, name).await?.iter().filter(|arn| !wanted.contains(&arn.as_str())) {
        detach(aws, name, arn).await?;
    }
    for arn in wanted {
        aws.iam.attach_user_policy().user_name(name).policy_arn(arn).send().await.map_err(failed(call))?;
    }
    Ok(())
}

async fn detach(aws: &Aws, name: &str, arn: &str) -> Result<(), CloudError> {
    let detach = aws.iam.detach_user_policy().user_name(name).policy_arn(arn);
    match detach.send().await.map_err(failed("iam:DetachUserPolicy")) {
        Err(error) if error.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}

/// IAM deletes nobody who has keys or policies.
pub(super) async fn delete(aws: &Aws, name: &str) -> Result<(), CloudError> {
    for key in keys(aws, name).await? {
        delete_key(aws, name, &key).await?;
    }
    for arn in attached(aws, name).await? {
        detach(aws, name, &arn).await?;
    }
    aws.iam.delete_user().user_name(name).send().await.map(drop).map_err(failed("iam:DeleteUser"))
}

pub(super) async fn create_key(aws: &Aws, user: &str) -> Result<AccessKey, CloudError> {
    let call = "iam:CreateAccessKey";
    let made = aws.iam.create_access_key().user_name(user).send().await.map_err(failed(call))?;
    let key = answered(call, made.access_key())?;
    Ok(AccessKey { id: key.access_key_id().to_owned(), secret: Secret::new(key.secret_access_key()) })
}

pub(super) async fn delete_key(aws: &Aws, user: &str, id: &str) -> Result<(), CloudError> {
    let delete = aws.iam.delete_access_key().user_name(user).access_key_id(id);
    match delete.send().await.map_err(failed("iam:DeleteAccessKey")) {
        Err(error) if error.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}
