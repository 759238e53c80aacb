//! Customer-managed policies and their versions.

use aws_sdk_iam::types::{Policy, PolicyScopeType};

use super::{of, path, tags};
use crate::cloud::aws::Aws;
use crate::cloud::aws::ec2::{Seen, Which, answered, unknown};
use crate::cloud::aws::error::failed;
use crate::cloud::{CloudError, Create, Kind, Resource, Tags};

/// How many versions IAM keeps of a policy, the one in use included.
const VERSIONS: usize = 5;

fn seen(policy: &Policy, tags: Tags) -> Seen {
    Seen::new(Kind::Policy, policy.arn(), "available", tags)
        .with("PolicyName", policy.policy_name())
        .with("Path", policy.path())
}

pub(in crate::cloud::aws) async fn create(aws: &Aws, create: &Create) -> Result<Resource, CloudError> {
    let call = "iam:CreatePolicy";
    let document = create.text("PolicyDocument");
    let make = aws.iam.create_policy().set_policy_name(create.text("PolicyName")).set_path(create.text("Path"));
    let make = make.set_policy_document(document.clone()).set_tags(Some(tags(call, &create.tags)?));
    let made = make.send().await.map_err(failed(call))?;
    // It is not asked for again: IAM may not know it everywhere for a while.
    let seen = seen(answered(call, made.policy())?, create.tags.clone());
    Ok(seen.with("PolicyDocument", document).done())
}

pub(in crate::cloud::aws) async fn get(aws: &Aws, arn: &str) -> Result<Resource, CloudError> {
    let call = "iam:GetPolicy";
    let answer = aws.iam.get_policy().policy_arn(arn).send().await.map_err(failed(call))?;
    let policy = answered(call, answer.policy())?;
    let call = "iam:GetPolicyVersion";
    let version = aws.iam.get_policy_version().policy_arn(arn).set_version_id(policy.default_version_id.clone());
    let version = version.send().await.map_err(failed(call))?;
    let document = answered(call, version.policy_version())?.document().map(decoded);
    Ok(seen(policy, of(policy.tags())).with("PolicyDocument", document).done())
}

/// IAM answers documents with everything escaped that a URL would not take (RFC 3986).
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'%').then(|| after.get(..2)).flatten();
        let escaped = escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// IAM finds no policy by its tags: all that are at the right place are asked.
pub(in crate::cloud::aws) async fn find(aws: &Aws, tags: &Tags) -> Result<Vec<Resource>, CloudError> {
    let list = aws.iam.list_policies().scope(PolicyScopeType::Local).set_path_prefix(path(tags));
    let policies = list.into_paginator().items().send().try_collect().await.map_err(failed("iam:ListPolicies"))?;
    // The name is a tag too.
    let named = |policy: &&Policy| {
        path(tags).is_none() || tags.get("Name").is_none_or(|name| policy.policy_name() == Some(name.as_str()))
    };
    let mut found = Vec::new();
    for policy in policies.iter().filter(named) {
        match get(aws, policy.arn().unwrap_or_default()).await {
            Ok(resource) if Which::Tags(tags).matches(&resource) => found.push(resource),
            Ok(_) => {}
            // Gone while we looked.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Versions that are not in use, the oldest first.
async fn spare(aws: &Aws, arn: &str) -> Result<Vec<String>, CloudError> {
    let pages = aws.iam.list_policy_versions().policy_arn(arn).into_paginator().items().send();
    let mut versions = pages.try_collect().await.map_err(failed("iam:ListPolicyVersions"))?;
    versions.retain(|version| !version.is_default_version());
    versions.sort_by_key(|version| version.create_date().map(|date| date.as_nanos()));
    Ok(versions.iter().filter_map(|version| version.version_id()).map(str::to_owned).collect())
}

async fn delete_version(aws: &Aws, arn: &str, version: &str) -> Result<(), CloudError> {
    let delete = aws.iam.delete_policy_version().policy_arn(arn).version_id(version);
    match delete.send().await.map_err(failed("iam:DeletePolicyVersion")) {
        Err(error) if error.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}

/// Another document, in use at once.
pub(in crate::cloud::aws) async fn modify(
    aws: &Aws,
    arn: &str,
    property: &str,
    document: &str,
) -> Result<(), CloudError> {
    let call = "iam:CreatePolicyVersion";
    if property != "PolicyDocument" || document.is_empty() {
        return Err(unknown(call, property));
    }
    let spare = spare(aws, arn).await?;
    let too_many = (spare.len() + 2).saturating_sub(VERSIONS);
    for version in spare.iter().take(too_many) {
        delete_version(aws, arn, version).await?;
    }
    let version = aws.iam.create_policy_version().policy_arn(arn).policy_document(document).set_as_default(true);
    version.send().await.map(drop).map_err(failed(call))
}

/// IAM deletes no policy that has other versions, or that somebody has.
pub(in crate::cloud::aws) async fn delete(aws: &Aws, arn: &str) -> Result<(), CloudError> {
    for version in spare(aws, arn).await? {
        delete_version(aws, arn, &version).await?;
    }
    aws.iam.delete_policy().policy_arn(arn).send().await.map(drop).map_err(failed("iam:DeletePolicy"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_come_escaped() {
        assert_eq!(decoded("%7B%22Version%22%3A%222012-10-17%22%7D"), r#"{"Version":"2012-10-17"}"#);
        assert_eq!(decoded("plain, 100%"), "plain, 100%");
        assert_eq!(decoded("%zz%4"), "%zz%4");
    }
}
