//! What is asked before anything is made: the region, quotas, offerings, images, permissions; and what is in the way.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::{ArchitectureType, Image as Ami, InstanceType, LocationType};
use aws_sdk_iam::types::PolicyEvaluationDecisionType as Decision;

use super::Aws;
use super::ec2::{Which, filter};
use super::error::failed;
use super::{balancer, group, instance, nat, subnet};
use crate::cloud::permissions;
use crate::cloud::{Blocker, Class, CloudError, Denial, Image, ImageQuery, Offering, Resource};

pub(super) async fn whoami(aws: &Aws) -> Result<String, CloudError> {
    let who = aws.sts.get_caller_identity().send().await.map_err(failed("sts:GetCallerIdentity"))?;
    Ok(who.arn().unwrap_or_default().to_owned())
}

pub(super) async fn zones(aws: &Aws) -> Result<Vec<String>, CloudError> {
    // Local and Wavelength zones have other names and cannot hold a control plane.
    let asked = aws.ec2.describe_availability_zones().filters(filter("zone-type", "availability-zone"));
    let asked = asked.filters(filter("state", "available"));
    let told = asked.send().await.map_err(failed("ec2:DescribeAvailabilityZones"))?;
    let zones = told.availability_zones().iter().filter(|zone| {
        zone.opt_in_status().is_none_or(|status| status.as_str() != "not-opted-in") && zone.zone_name().is_some()
    });
    let mut names: Vec<String> = zones.filter_map(|zone| zone.zone_name()).map(str::to_owned).collect();
    names.sort_unstable();
    Ok(names)
}

pub(super) async fn endpoint_services(aws: &Aws) -> Result<Vec<String>, CloudError> {
    let mut names = BTreeSet::new();
    let mut next = None;
    loop {
        let asked = aws.ec2.describe_vpc_endpoint_services().set_next_token(next);
        let page = asked.send().await.map_err(failed("ec2:DescribeVpcEndpointServices"))?;
        names.extend(page.service_names().iter().cloned());
        next = page.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
        if next.is_none() {
            return Ok(names.into_iter().collect());
        }
    }
}

/// The quota of the account, else what AWS gives everybody.
pub(super) async fn quota(aws: &Aws, service: &str, code: &str) -> Result<Option<f64>, CloudError> {
    let asked = aws.quotas.get_service_quota().service_code(service).quota_code(code);
    match asked.send().await.map_err(failed("servicequotas:GetServiceQuota")) {
        Ok(told) => return Ok(told.quota().and_then(|quota| quota.value())),
        Err(error) if error.is_not_found() => {}
        Err(error) if error.class == Class::Denied => return Ok(None),
        Err(error) => return Err(error),
    }
    let asked = aws.quotas.get_aws_default_service_quota().service_code(service).quota_code(code);
    match asked.send().await.map_err(failed("servicequotas:GetAWSDefaultServiceQuota")) {
        Ok(told) => Ok(told.quota().and_then(|quota| quota.value())),
        // Not every partition and region has the service.
        Err(error) if matches!(error.class, Class::NotFound | Class::Denied | Class::Unreachable) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) async fn offering(aws: &Aws, instance_type: &str) -> Result<Offering, CloudError> {
    let asked = aws.ec2.describe_instance_type_offerings().location_type(LocationType::AvailabilityZone);
    let pages = asked.filters(filter("instance-type", instance_type)).into_paginator().items().send();
    let offers = pages.try_collect().await.map_err(failed("ec2:DescribeInstanceTypeOfferings"))?;
    let mut zones: Vec<String> = offers.iter().filter_map(|offer| offer.location()).map(str::to_owned).collect();
    zones.sort_unstable();
    let asked = aws.ec2.describe_instance_types().instance_types(InstanceType::from(instance_type));
    let told = match asked.send().await.map_err(failed("ec2:DescribeInstanceTypes")) {
        // Unknown here: no zone offers it.
        Err(error) if matches!(error.class, Class::Input | Class::NotFound) => None,
        other => Some(other?),
    };
    let info = told.as_ref().and_then(|told| told.instance_types().first());
    let vcpus = info.and_then(|info| info.v_cpu_info()?.default_v_cpus());
    let memory = info.and_then(|info| info.memory_info()?.size_in_mib());
    let processor = info.and_then(|info| info.processor_info());
    let architectures = processor.map(|processor| processor.supported_architectures()).unwrap_or_default();
    Ok(Offering {
        zones,
        vcpus: vcpus.and_then(|count| u32::try_from(count).ok()).unwrap_or_default(),
        memory_mib: memory.and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
        architectures: architectures.iter().map(ArchitectureType::as_str).map(str::to_owned).collect(),
    })
}

pub(super) async fn image(aws: &Aws, query: &ImageQuery) -> Result<Image, CloudError> {
    let call = "ec2:DescribeImages";
    let asked = aws.ec2.describe_images();
    let asked = match query {
        ImageQuery::Id(id) => asked.image_ids(id),
        ImageQuery::Newest { owner, name, architecture } => asked
            .owners(owner)
            .filters(filter("name", name))
            .filters(filter("architecture", architecture))
            .filters(filter("state", "available"))
            .filters(filter("root-device-type", "ebs")),
    };
    let images: Vec<Ami> = asked.into_paginator().items().send().try_collect().await.map_err(failed(call))?;
    let trusted = |ami: &&Ami| match query {
        ImageQuery::Id(_) => true,
        ImageQuery::Newest { owner, .. } => ami.owner_id() == Some(owner) || ami.image_owner_alias() == Some(owner),
    };
    let newest = images.iter().filter(trusted).max_by_key(|ami| ami.creation_date());
    let newest = newest.ok_or_else(|| {
        let what = match query {
            ImageQuery::Id(id) => format!("there is no image {id} in {}", aws.region),
            ImageQuery::Newest { owner, name, architecture } => {
                format!("{} has no image {name} ({architecture}) of {owner}", aws.region)
            }
        };
        CloudError::of(Class::Input, call, what)
    })?;
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let root_device = text(newest.root_device_name());
    let disks = newest.block_device_mappings().iter();
    let root = disks.filter(|disk| disk.device_name() == Some(&root_device)).find_map(|disk| disk.ebs()?.volume_size());
    Ok(Image {
        id: text(newest.image_id()),
        name: text(newest.name()),
        owner: text(newest.owner_id()),
        architecture: newest.architecture().map_or_else(String::new, |value| value.as_str().to_owned()),
        root_device,
        root_gib: root.and_then(|size| u32::try_from(size).ok()).unwrap_or_default(),
    })
}

/// What IAM's simulator says of this identity; where that may not be asked, what EC2 says to dry runs.
pub(super) async fn denied(aws: &Aws, actions: &[&str]) -> Result<Vec<Denial>, CloudError> {
    match simulated(aws, actions).await {
        Ok(denials) => Ok(denials),
        Err(refused) => match dry(aws, actions).await? {
            Some(denials) => Ok(denials),
            None => Err(refused),
        },
    }
}

/// Policies are of the role; who asks has a session of it.
async fn principal(aws: &Aws) -> Result<String, CloudError> {
    let arn = whoami(aws).await?;
    let Some(role) = arn.split_once(":assumed-role/").and_then(|(_, rest)| rest.split('/').next()) else {
        return Ok(arn);
    };
    let told = aws.iam.get_role().role_name(role).send().await.map_err(failed("iam:GetRole"))?;
    Ok(told.role().map_or(arn, |role| role.arn().to_owned()))
}

async fn simulated(aws: &Aws, actions: &[&str]) -> Result<Vec<Denial>, CloudError> {
    let call = "iam:SimulatePrincipalPolicy";
    let principal = principal(aws).await?;
    // The root user has no policies: nothing but an organization limits it, and that cannot be asked.
    if principal.ends_with(":root") {
        return Ok(Vec::new());
    }
    let mut denials = Vec::new();
    let account = principal.split(':').nth(4).unwrap_or_default();
    let mut by_resource: BTreeMap<Option<String>, Vec<String>> = BTreeMap::new();
    for action in actions {
        let resource = permissions::resource_of(action, &aws.region, account);
        by_resource.entry(resource).or_default().push((*action).to_owned());
    }
    let mut chunks: Vec<(Option<String>, Vec<String>)> = Vec::new();
    for (resource, names) in &by_resource {
        chunks.extend(names.chunks(50).map(|some| (resource.clone(), some.to_vec())));
    }
    for (resource, some) in chunks {
        let asked = aws.iam.simulate_principal_policy().policy_source_arn(&principal);
        let asked = asked.set_action_names(Some(some)).set_resource_arns(resource.map(|one| vec![one]));
        let results = asked.into_paginator().items().send().try_collect().await.map_err(failed(call))?;
        for result in results.iter().filter(|result| *result.eval_decision() != Decision::Allowed) {
            let organization = result.organizations_decision_detail();
            let boundary = result.permissions_boundary_decision_detail();
            let why = if organization.is_some_and(|detail| !detail.allowed_by_organizations()) {
                "a service control policy denies it"
            } else if boundary.is_some_and(|detail| !detail.allowed_by_permissions_boundary()) {
                "the permissions boundary does not allow it"
            } else if *result.eval_decision() == Decision::ExplicitDeny {
                "a policy denies it"
            } else {
                "no policy allows it"
            };
            denials.push(Denial { action: result.eval_action_name().to_owned(), why: why.to_owned() });
        }
    }
    Ok(denials)
}

/// Those calls of EC2 that need nothing to be there. `None` when none of `actions` can be asked so.
///
/// What only stands in for AWS may do what it was only to check, so it is not asked about calls that make something of
/// size.
async fn dry(aws: &Aws, actions: &[&str]) -> Result<Option<Vec<Denial>>, CloudError> {
    let mut denials = Vec::new();
    let mut asked = false;
    for action in actions {
        let answer = match *action {
            "ec2:CreateInternetGateway" => {
                aws.ec2.create_internet_gateway().dry_run(true).send().await.map(drop).map_err(failed(action))
            }
            "ec2:AllocateAddress" => {
                aws.ec2.allocate_address().dry_run(true).send().await.map(drop).map_err(failed(action))
            }
            "ec2:CreateVpc" if !aws.elsewhere => {
                let call = aws.ec2.create_vpc().cidr_block("10.0.0.0/16").dry_run(true);
                call.send().await.map(drop).map_err(failed(action))
            }
            "ec2:DescribeInstances" => {
                aws.ec2.describe_instances().dry_run(true).send().await.map(drop).map_err(failed(action))
            }
            "ec2:DescribeVpcs" => aws.ec2.describe_vpcs().dry_run(true).send().await.map(drop).map_err(failed(action)),
            _ => continue,
        };
        asked = true;
        match answer {
            Ok(()) => {}
            Err(error) if error.code == "DryRunOperation" => {}
            Err(error) if error.class == Class::Denied => {
                let error = aws.explained(error).await;
                denials.push(Denial { action: (*action).to_owned(), why: error.message });
            }
            // A quota that is reached says that the call is allowed.
            Err(error) if error.class == Class::Quota => {}
            Err(error) => return Err(error),
        }
    }
    Ok(asked.then_some(denials))
}

pub(super) async fn blockers(aws: &Aws, vpc: &str) -> Result<Vec<Blocker>, CloudError> {
    let inside = |resource: &Resource| {
        let vpcs = resource.property("VpcId").unwrap_or_default();
        vpcs.split(',').any(|id| id == vpc) && !resource.is_gone()
    };
    let blocker = |resource: Resource| {
        let own = resource.tags.get("Name").map(String::as_str);
        let name = own.or(resource.property("LoadBalancerName")).or(resource.property("GroupName"));
        Blocker {
            what: resource.kind.as_str().to_owned(),
            name: name.or(resource.property("Name")).unwrap_or_default().to_owned(),
            id: resource.id,
        }
    };
    let all = crate::cloud::Tags::new();
    let all = Which::Tags(&all);
    let mut found = Vec::new();
    let lists = [
        instance::list(aws, all).await?,
        balancer::list(aws, all).await?,
        nat::list(aws, all).await?,
        super::endpoint::list(aws, all).await?,
        // The group `default` goes with the VPC.
        group::list(aws, all)
            .await?
            .into_iter()
            .filter(|group| group.property("GroupName") != Some("default"))
            .collect(),
        subnet::list(aws, all).await?,
        subnet::table::list(aws, all)
            .await?
            .into_iter()
            .filter(|table| table.property("Main") != Some("true"))
            .collect(),
        super::vpc::gateway::list(aws, all).await?,
    ];
    found.extend(lists.into_iter().flatten().filter(inside).map(blocker));
    let asked = aws.ec2.describe_network_interfaces().filters(filter("vpc-id", vpc)).into_paginator().items().send();
    let interfaces = asked.try_collect().await.map_err(failed("ec2:DescribeNetworkInterfaces"))?;
    found.extend(interfaces.iter().map(|interface| Blocker {
        what: "network-interface".into(),
        id: interface.network_interface_id().unwrap_or_default().to_owned(),
        name: interface.description().unwrap_or_default().to_owned(),
    }));
    let asked = aws.ec2.describe_vpc_peering_connections();
    let pages = asked.filters(filter("requester-vpc-info.vpc-id", vpc)).into_paginator().items().send();
    let peers = pages.try_collect().await.map_err(failed("ec2:DescribeVpcPeeringConnections"))?;
    found.extend(peers.iter().map(|peer| Blocker {
        what: "vpc-peering-connection".into(),
        id: peer.vpc_peering_connection_id().unwrap_or_default().to_owned(),
        name: String::new(),
    }));
    Ok(found)
}
