//! Instances, key pairs and volumes.

use aws_sdk_ec2::primitives::Blob;
use aws_sdk_ec2::types::{
    AttributeBooleanValue, BlockDeviceMapping, EbsBlockDevice, HttpTokensState, IamInstanceProfileSpecification,
    Instance, InstanceMetadataEndpointState, InstanceMetadataOptionsRequest, InstanceNetworkInterfaceSpecification,
    InstanceType, KeyPairInfo, ResourceType, Volume, VolumeType,
};
use base64::Engine as _;

use super::Aws;
use super::ec2::{Seen, Which, absent, answered, tagged, tags, unknown};
use super::error::failed;
use crate::cloud::{Class, Cloud, CloudError, Create, ImageQuery, Kind, Resource};

/// Of Amazon Linux, where the image is named by a parameter and cannot be asked for its own.
const USUAL_ROOT: &str = "/dev/xvda";

fn seen(instance: &Instance) -> Resource {
    let state = instance.state().and_then(|state| state.name()).map_or("", |name| name.as_str());
    let cpu = instance.cpu_options();
    let cpus = cpu.and_then(|cpu| Some(cpu.core_count()? * cpu.threads_per_core()?));
    let place = instance.placement().and_then(|place| place.availability_zone());
    Seen::new(Kind::Instance, instance.instance_id(), state, tags(instance.tags()))
        .with("InstanceType", instance.instance_type().map(InstanceType::as_str))
        .with("VCpus", cpus)
        .with("ImageId", instance.image_id())
        .with("KeyName", instance.key_name())
        .with("VpcId", instance.vpc_id())
        .with("SubnetId", instance.subnet_id())
        .with("AvailabilityZone", place)
        .with("PrivateIpAddress", instance.private_ip_address())
        .with("PrivateDnsName", instance.private_dns_name())
        .with("PublicIpAddress", instance.public_ip_address())
        .with("PublicDnsName", instance.public_dns_name())
        .list("SecurityGroupIds", instance.security_groups().iter().filter_map(|group| group.group_id()))
        .with("FailureReason", instance.state_reason().and_then(|reason| reason.message()))
        .done()
}

/// The root disk, if the request says anything of it.
async fn root_disk(aws: &Aws, create: &Create) -> Result<Option<BlockDeviceMapping>, CloudError> {
    let size = create.number("RootVolumeSize");
    let (kind, encrypted) = (create.text("RootVolumeType"), create.flag("RootVolumeEncrypted"));
    if size.is_none() && kind.is_none() && encrypted.is_none() {
        return Ok(None);
    }
    let device = match (create.text("RootDeviceName"), create.text("ImageId")) {
        (Some(device), _) => device,
        (None, Some(image)) if image.starts_with("ami-") => aws.image(&ImageQuery::Id(image)).await?.root_device,
        _ => USUAL_ROOT.to_owned(),
    };
    let disk = EbsBlockDevice::builder()
        .set_volume_size(size)
        .set_volume_type(kind.map(|kind| VolumeType::from(kind.as_str())))
        .set_encrypted(encrypted)
        .delete_on_termination(true);
    Ok(Some(BlockDeviceMapping::builder().device_name(device).ebs(disk.build()).build()))
}

pub(super) async fn create(aws: &Aws, create: &Create) -> Result<Resource, CloudError> {
    let call = "ec2:RunInstances";
    let interface = InstanceNetworkInterfaceSpecification::builder()
        .device_index(0)
        .set_subnet_id(create.text("SubnetId"))
        .set_groups(create.texts("SecurityGroupIds"))
        .set_private_ip_address(create.text("PrivateIpAddress"))
        .set_associate_public_ip_address(create.flag("AssociatePublicIpAddress"))
        .delete_on_termination(true);
    let metadata = InstanceMetadataOptionsRequest::builder()
        .http_endpoint(InstanceMetadataEndpointState::Enabled)
        .set_http_tokens(create.text("HttpTokens").map(|tokens| HttpTokensState::from(tokens.as_str())))
        .set_http_put_response_hop_limit(create.number("HttpPutResponseHopLimit"));
    let whole = [ResourceType::Instance, ResourceType::Volume, ResourceType::NetworkInterface]
        .into_iter()
        .filter_map(|kind| tagged(create, kind))
        .flatten()
        .collect::<Vec<_>>();
    let profile = create.text("IamInstanceProfile");
    let user_data = create.text("UserData").map(|text| base64::engine::general_purpose::STANDARD.encode(text));
    let made = aws
        .ec2
        .run_instances()
        .min_count(1)
        .max_count(1)
        .client_token(&create.token)
        .set_image_id(create.text("ImageId"))
        .set_instance_type(create.text("InstanceType").map(|name| InstanceType::from(name.as_str())))
        .set_key_name(create.text("KeyName"))
        .set_user_data(user_data)
        .network_interfaces(interface.build())
        .metadata_options(metadata.build())
        .set_block_device_mappings(root_disk(aws, create).await?.map(|disk| vec![disk]))
        .set_iam_instance_profile(profile.map(|name| IamInstanceProfileSpecification::builder().name(name).build()))
        .set_tag_specifications(Some(whole).filter(|whole| !whole.is_empty()))
        .send()
        .await
        .map_err(failed(call))?;
    Ok(seen(answered(call, made.instances().first())?))
}

pub(super) async fn list(aws: &Aws, which: Which<'_>) -> Result<Vec<Resource>, CloudError> {
    let asked = aws.ec2.describe_instances().set_instance_ids(which.ids()).set_filters(which.tags());
    let pages = asked.into_paginator().items().send();
    let reservations = pages.try_collect().await.map_err(failed("ec2:DescribeInstances"))?;
    Ok(reservations.iter().flat_map(|reservation| reservation.instances()).map(seen).collect())
}

pub(super) async fn modify(aws: &Aws, id: &str, name: &str, value: &str) -> Result<(), CloudError> {
    match (name, value) {
        ("State", "rebooting") => {
            aws.ec2.reboot_instances().instance_ids(id).send().await.map(drop).map_err(failed("ec2:RebootInstances"))
        }
        ("State", "running") => {
            aws.ec2.start_instances().instance_ids(id).send().await.map(drop).map_err(failed("ec2:StartInstances"))
        }
        ("State", _) => {
            aws.ec2.stop_instances().instance_ids(id).send().await.map(drop).map_err(failed("ec2:StopInstances"))
        }
        ("DisableApiTermination", _) => {
            let value = AttributeBooleanValue::builder().value(value == "true").build();
            let change = aws.ec2.modify_instance_attribute().instance_id(id).disable_api_termination(value);
            change.send().await.map(drop).map_err(failed("ec2:ModifyInstanceAttribute"))
        }
        _ => Err(unknown("ec2:ModifyInstanceAttribute", name)),
    }
}

pub(super) async fn delete(aws: &Aws, id: &str) -> Result<(), CloudError> {
    let end = aws.ec2.terminate_instances().instance_ids(id);
    end.send().await.map(drop).map_err(failed("ec2:TerminateInstances"))
}

/// What the console shows now, where the hypervisor can tell (Nitro); else what it showed a while ago.
pub(super) async fn console(aws: &Aws, id: &str) -> Result<String, CloudError> {
    let call = "ec2:GetConsoleOutput";
    let output = match aws.ec2.get_console_output().instance_id(id).latest(true).send().await.map_err(failed(call)) {
        Err(error) if matches!(error.class, Class::Input | Class::Other | Class::Capacity) => {
            aws.ec2.get_console_output().instance_id(id).send().await.map_err(failed(call))?
        }
        other => other?,
    };
    let text: String = output.output().unwrap_or_default().split_whitespace().collect();
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub(super) mod key {
    use super::*;

    fn seen(pair: &KeyPairInfo) -> Resource {
        Seen::new(Kind::KeyPair, pair.key_pair_id(), "available", tags(pair.tags()))
            .with("KeyName", pair.key_name())
            .with("PublicKeyMaterial", pair.public_key())
            .done()
    }

    pub async fn create(aws: &Aws, create: &Create) -> Result<Resource, CloudError> {
        let call = "ec2:ImportKeyPair";
        let made = aws
            .ec2
            .import_key_pair()
            .set_key_name(create.text("KeyName"))
            .set_public_key_material(create.text("PublicKeyMaterial").map(Blob::new))
            .set_tag_specifications(tagged(create, ResourceType::KeyPair))
            .send()
            .await
            .map_err(failed(call))?;
        let id = answered(call, made.key_pair_id())?;
        let seen = Seen::new(Kind::KeyPair, Some(id), "available", create.tags.clone());
        Ok(seen.with("KeyName", create.text("KeyName")).done())
    }

    pub async fn list(aws: &Aws, which: Which<'_>) -> Result<Vec<Resource>, CloudError> {
        let asked = aws.ec2.describe_key_pairs().set_key_pair_ids(which.ids()).set_filters(which.tags());
        let answer = asked.include_public_key(true).send().await.map_err(failed("ec2:DescribeKeyPairs"))?;
        Ok(answer.key_pairs().iter().map(seen).collect())
    }

    /// By its name, which not only AWS understands. The call succeeds for keys that are not there: so it is looked first.
    pub async fn delete(aws: &Aws, id: &str) -> Result<(), CloudError> {
        let pairs = list(aws, Which::Id(id)).await?;
        let name = pairs.iter().find_map(|pair| pair.property("KeyName")).ok_or_else(|| absent(Kind::KeyPair, id))?;
        aws.ec2.delete_key_pair().key_name(name).send().await.map(drop).map_err(failed("ec2:DeleteKeyPair"))
    }
}

pub(super) mod volume {
    use super::*;

    fn seen(volume: &Volume) -> Resource {
        let state = volume.state().map_or("", |state| state.as_str());
        let on = volume.attachments().iter().find_map(|attachment| attachment.instance_id());
        Seen::new(Kind::Volume, volume.volume_id(), state, tags(volume.tags()))
            .with("Size", volume.size())
            .with("VolumeType", volume.volume_type().map(VolumeType::as_str))
            .with("AvailabilityZone", volume.availability_zone())
            .with("InstanceId", on)
            .done()
    }

    pub async fn list(aws: &Aws, which: Which<'_>) -> Result<Vec<Resource>, CloudError> {
        let asked = aws.ec2.describe_volumes().set_volume_ids(which.ids()).set_filters(which.tags());
        let pages = asked.into_paginator().items().send();
        let volumes = pages.try_collect().await.map_err(failed("ec2:DescribeVolumes"))?;
        Ok(volumes.iter().map(seen).collect())
    }

    /// A volume can only become larger.
    pub async fn modify(aws: &Aws, id: &str, name: &str, value: &str) -> Result<(), CloudError> {
        let call = "ec2:ModifyVolume";
        let size: Option<i32> = value.parse().ok().filter(|_| name == "Size");
        let size = size.ok_or_else(|| unknown(call, name))?;
        aws.ec2.modify_volume().volume_id(id).size(size).send().await.map(drop).map_err(failed(call))
    }

    pub async fn delete(aws: &Aws, id: &str) -> Result<(), CloudError> {
        aws.ec2.delete_volume().volume_id(id).send().await.map(drop).map_err(failed("ec2:DeleteVolume"))
    }
}
