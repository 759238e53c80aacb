//! Rules for `[bastion]`.

use super::super::cidr::{Cidr, CidrError};
use super::super::{BastionOs, HostKey, MirrorKind, Spec};
use super::{Check, is_aws_id, is_domain, is_remote_path, is_user};

pub(super) fn bastion(spec: &Spec, check: &mut Check<'_>) {
    let bastion = &spec.bastion;
    if let Some(host) = &bastion.host {
        let good = host.split_once('@').is_some_and(|(user, host)| {
            is_user(user) && (is_domain(&host.to_ascii_lowercase()) || host.parse::<std::net::IpAddr>().is_ok())
        });
        if !good {
            let want = "give user@host, for example ec2-user@bastion.example.com; its port goes into bastion.port";
            check.bad("bastion.host", host, want);
        }
    }
    match &bastion.host_key {
        HostKey::Known(key) if ssh_key::PublicKey::from_openssh(key).is_err() => {
            let want = "give type and key as in known_hosts but without the host, for example the line that \
                        ssh-keyscan -t ed25519 HOST prints, from ssh-ed25519 on; or one of \"console\", \"delivered\" \
                        and \"ask\"";
            check.bad("bastion.host_key", key, want);
        }
        HostKey::Known(_) if bastion.host.is_none() => {
            let want = "a machine that is yet to be made has no key; give \"console\", \"delivered\" or \"ask\"";
            check.fail("bastion.host_key", "is a key", want);
        }
        HostKey::Delivered if bastion.host.is_some() => {
            let want = "bastion.host is there already; give its key, or \"ask\" to compare the fingerprint";
            check.fail("bastion.host_key", "is \"delivered\"", want);
        }
        _ => {}
    }
    if let Some(user) = bastion.user.as_deref().filter(|user| !is_user(user)) {
        check.bad("bastion.user", user, "give the login of the image, for example ec2-user");
    }
    made_bastion(spec, check);
    if let Some(ami) = bastion.ami.as_deref().filter(|ami| !is_aws_id(ami, "ami-")) {
        check.bad("bastion.ami", ami, "give the id of an image, for example ami-0123456789abcdef0");
    }
    if let Some(text) = &bastion.operator_cidr {
        match text.parse::<Cidr>() {
            Ok(cidr) if cidr.prefix() >= 8 => {}
            Ok(_) => check.bad(
                "bastion.operator_cidr",
                text,
                "that opens SSH to much of the world; give your own address, for example 198.51.100.7/32",
            ),
            Err(CidrError::HostBits(block)) => {
                check.bad("bastion.operator_cidr", text, format!("a block starts at its first address; give {block}"));
            }
            Err(CidrError::Shape) => {
                check.bad("bastion.operator_cidr", text, "give an IPv4 network, for example 198.51.100.7/32");
            }
        }
    }
    if !is_remote_path(&bastion.workdir) || bastion.workdir.starts_with('/') {
        let want = "give a folder below the home directory of the bastion's user, for example bartizan";
        check.bad("bastion.workdir", &bastion.workdir, want);
    }
}

/// What only a bastion that we make can have.
fn made_bastion(spec: &Spec, check: &mut Check<'_>) {
    let bastion = &spec.bastion;
    if bastion.host.is_some() {
        if bastion.proxy {
            let want = "a proxy is run on a bastion that bartizan makes, and goes with it; leave this out";
            check.fail("bastion.proxy", "is true", want);
        }
        return;
    }
    if bastion.os == BastionOs::Rhcos && bastion.ami.is_none() {
        let want = "RHCOS images have no list that is public; name the one of your installer's stream metadata \
                    (openshift-install coreos print-stream-json)";
        check.fail("bastion.ami", "is missing", want);
    }
    if bastion.os == BastionOs::Al2023 && bastion.ami.is_none() && spec.mirror.kind == MirrorKind::Managed {
        let want = "Amazon Linux 2023 has neither podman nor a registry in its repositories, and mirror.kind is \
                    \"managed\"; give rhel9 or fcos, or an ami that has one of them";
        check.bad("bastion.os", bastion.os.as_str(), want);
    }
    if bastion.host_key == HostKey::Delivered && spec.install.fips {
        let want = "FIPS mode refuses the Ed25519 key that would be delivered; give \"console\"";
        check.fail("bastion.host_key", "is \"delivered\"", want);
    }
    if bastion.os.is_coreos() && spec.install.fips {
        let want = "the installer for FIPS clusters runs on RHEL 9 in FIPS mode only; give rhel9";
        check.bad("bastion.os", bastion.os.as_str(), want);
    }
}
