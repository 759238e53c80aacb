//! IAM users, and the keys that machines have of them.

use aws_sdk_iam::types::Tag;

use super::Aws;
use super::ec2::{Seen, Which, answered, unknown};
use super::error::failed;
use crate::cloud::{AccessKey, CloudError, Create, Kind, Resource, Tags, policy};
use crate::spec::Secret;

fn of(tags: &[Tag]) -> Tags {
    tags.iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect()
}

pub(super) async fn create(aws: &Aws, create: &Create) -> Result<Resource, CloudError> {
    let call = "iam:CreateUser";
    let tags = create.tags.iter().map(|(name, value)| Tag::builder().key(name).value(value).build());
    let tags = tags.collect::<Result<Vec<Tag>, _>>();
    let tags = tags.map_err(|error| CloudError::of(crate::cloud::Class::Input, call, error.to_string()))?;
    let name = create.text("UserName");
    let make = aws.iam.create_user().set_user_name(name).set_path(create.text("Path")).set_tags(Some(tags));
    let made = make.send().await.map_err(failed(call))?;
    get(aws, answered(call, made.user())?.user_name()).await
}

pub(super) async fn get(aws: &Aws, name: &str) -> Result<Resource, CloudError> {
    let call = "iam:GetUser";
    let answer = aws.iam.get_user().user_name(name).send().await.map_err(failed(call))?;
    let user = answered(call, answer.user())?;
    let keys = keys(aws, name).await?;
    let mut seen = Seen::new(Kind::User, Some(user.user_name()), "available", of(user.tags()))
        .with("UserName", Some(user.user_name()))
        .with("Path", Some(user.path()))
        .with("Arn", Some(user.arn()))
        .list("AccessKeyIds", keys.iter().map(String::as_str));
    for inline in inline(aws, name).await? {
        // That it is there; what it says was written by us.
        seen = seen.with(policy(&inline), Some("inline"));
    }
    Ok(seen.done())
}

async fn keys(aws: &Aws, name: &str) -> Result<Vec<String>, CloudError> {
    let pages = aws.iam.list_access_keys().user_name(name).into_paginator().items().send();
    let keys = pages.try_collect().await.map_err(failed("iam:ListAccessKeys"))?;
    Ok(keys.iter().filter_map(|key| key.access_key_id()).map(str::to_owned).collect())
}

async fn inline(aws: &Aws, name: &str) -> Result<Vec<String>, CloudError> {
    let pages = aws.iam.list_user_policies().user_name(name).into_paginator().items().send();
    pages.try_collect().await.map_err(failed("iam:ListUserPolicies"))
}

/// IAM finds nobody by tags: every user is asked for its own.
pub(super) async fn find(aws: &Aws, which: Which<'_>) -> Result<Vec<Resource>, CloudError> {
    let pages = aws.iam.list_users().into_paginator().items().send();
    let users = pages.try_collect().await.map_err(failed("iam:ListUsers"))?;
    let mut found = Vec::new();
    for user in &users {
        let pages = aws.iam.list_user_tags().user_name(user.user_name()).into_paginator().items().send();
        let tags = pages.try_collect().await.map_err(failed("iam:ListUserTags"));
        let tags = match tags {
            Ok(tags) => of(&tags),
            // Gone while we looked.
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        let resource = Seen::new(Kind::User, Some(user.user_name()), "available", tags).done();
        if which.matches(&resource) {
            found.push(if which.is_narrow() { get(aws, user.user_name()).await? } else { resource });
        }
    }
    Ok(found)
}

/// An inline policy, put or taken away.
pub(super) async fn modify(aws: &Aws, name: &str, property: &str, document: &str) -> Result<(), CloudError> {
    let call = "iam:PutUserPolicy";
    let inline = property.strip_prefix("Policy ").ok_or_else(|| unknown(call, property))?;
    if document.is_empty() {
        let delete = aws.iam.delete_user_policy().user_name(name).policy_name(inline);
        return match delete.send().await.map_err(failed("iam:DeleteUserPolicy")) {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        };
    }
    let put = aws.iam.put_user_policy().user_name(name).policy_name(inline).policy_document(document);
    put.send().await.map(drop).map_err(failed(call))
}

/// IAM deletes nobody who has keys or policies.
pub(super) async fn delete(aws: &Aws, name: &str) -> Result<(), CloudError> {
    for key in keys(aws, name).await? {
        delete_key(aws, name, &key).await?;
    }
    for inline in inline(aws, name).await? {
        modify(aws, name, &policy(&inline), "").await?;
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
