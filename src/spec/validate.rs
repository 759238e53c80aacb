//! What a spec must satisfy beyond its shape. Pure: the files that it names are looked at in [`super::files`].

mod bastion;
mod network;

use std::collections::{BTreeMap, BTreeSet};

use super::operators::Catalog;
use super::problem::{Problem, shown};
use super::{CredentialsMode, MirrorEngine, MirrorKind, MirrorSpec, Spec, Subset, ToolsSource, Workflow, rate};

/// Collects problems with their places; a key that already has one gets no second.
pub struct Check<'a> {
    pub file: &'a str,
    pub lines: &'a BTreeMap<String, usize>,
    pub spoken: BTreeSet<String>,
    pub problems: Vec<Problem>,
}

impl Check<'_> {
    pub fn fail(&mut self, key: &str, found: impl Into<String>, want: impl Into<String>) {
        if !self.spoken.insert(key.to_owned()) {
            return;
        }
        let section = key.rsplit_once('.').map_or(key, |(section, _)| section);
        let line = self.lines.get(key).or_else(|| self.lines.get(section)).copied().unwrap_or(1);
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line,
            key: key.to_owned(),
            found: found.into(),
            want: want.into(),
        });
    }

    /// Fail with the value as what was found.
    pub(super) fn bad(&mut self, key: &str, value: &str, want: impl Into<String>) {
        self.fail(key, format!("is {}", shown(value)), want);
    }
}

/// All rules, in the order of the sections.
pub fn validate(spec: &Spec, check: &mut Check<'_>) {
    names(spec, check);
    release(spec, check);
    aws(spec, check);
    network::network(spec, check);
    bastion::bastion(spec, check);
    credentials(spec, check);
    tools(spec, check);
    mirror(spec, check);
    if !matches!(spec.install.control_plane_replicas, 1 | 3) {
        let have = spec.install.control_plane_replicas.to_string();
        check.fail("install.control_plane_replicas", format!("is {have}"), "etcd wants 1 or 3 members; give 1 or 3");
    }
    for (key, value) in [
        ("install.control_plane_type", &spec.install.control_plane_type),
        ("install.compute_type", &spec.install.compute_type),
        ("bastion.instance_type", &spec.bastion.instance_type),
    ] {
        if !is_instance_type(value) {
            check.bad(key, value, "give an EC2 instance type, for example m6i.xlarge");
        }
    }
    for (key, value) in [
        ("install.control_plane_type", &spec.install.control_plane_type),
        ("install.compute_type", &spec.install.compute_type),
    ] {
        let arm = spec.release.arch == "aarch64";
        if is_instance_type(value) && is_graviton(value) != arm {
            let example = if arm { "m6g.xlarge" } else { "m6i.xlarge" };
            let want =
                format!("release.arch is {}, and this machine is not; give for example {example}", spec.release.arch);
            check.bad(key, value, want);
        }
    }
    if spec.install.control_plane_replicas == 3 && spec.install.compute_replicas == 1 {
        let want = "the ingress routers need two machines; give 2 or more, or 0 to run on the control plane";
        check.fail("install.compute_replicas", "is 1", want);
    }
    if let Some(url) = &spec.install.update_service
        && !url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty() && is_printable(rest))
    {
        let want = "give the https:// address of the graph, which ends in /api/upgrades_info/v1/graph";
        check.bad("install.update_service", url, want);
    }
    for (name, url) in &spec.install.service_endpoints {
        let key = "install.service_endpoints";
        if !super::install_check::SERVICES.contains(&name.as_str()) {
            let want = format!("the services are {}", super::install_check::SERVICES.join(", "));
            check.fail(key, format!("has {}", shown(name)), want);
        } else if !url.strip_prefix("https://").is_some_and(|host| is_domain(host.trim_end_matches('/'))) {
            check.fail(key, format!("has {}", shown(url)), "give https:// and the name of a host");
        }
    }
}

fn credentials(spec: &Spec, check: &mut Check<'_>) {
    if spec.credentials.manifests.is_some() && spec.credentials_mode() != CredentialsMode::Manual {
        let want = "only Manual takes secrets of your own; set credentials.mode = \"Manual\" or leave it out";
        check.fail("credentials.manifests", "is given", want);
    }
}

fn names(spec: &Spec, check: &mut Check<'_>) {
    /// openshift-install cuts the name to 27 characters for its infraID; AWS names built on it end at 32.
    const LONGEST_NAME: usize = 27;
    let name = &spec.cluster.name;
    if !is_label(name) {
        let want = "it becomes part of DNS names (RFC 1123): lower-case letters, digits and -, for example edge-lab";
        check.bad("cluster.name", name, want);
    } else if name.len() > LONGEST_NAME {
        let want = format!("it has {} characters; names of AWS objects leave room for {LONGEST_NAME}", name.len());
        check.bad("cluster.name", name, want);
    }
    let base = &spec.cluster.base_domain;
    if !is_domain(base) || !base.contains('.') {
        check.bad("cluster.base_domain", base, "give a DNS domain in lower case, for example example.com");
    } else if spec.domain().len() + "console-openshift-console.apps.".len() > 253 {
        check.bad("cluster.base_domain", base, "the names of routes below it would pass 253 characters; shorten it");
    }
}

fn release(spec: &Spec, check: &mut Check<'_>) {
    let version = &spec.release.version;
    match Spec::minor_of(version) {
        Some(12..=29) => {}
        Some(minor) => check.bad(
            "release.version",
            version,
            format!("bartizan knows 4.12 to 4.29, not 4.{minor}; give for example 4.18.12"),
        ),
        None => check.bad("release.version", version, "give the whole version, for example 4.18.12"),
    }
    if !["x86_64", "aarch64"].contains(&spec.release.arch.as_str()) {
        check.bad("release.arch", &spec.release.arch, "give x86_64 or aarch64 (as in the release's tag)");
    }
    if let Some(pull_spec) = &spec.release.pull_spec
        && !is_pull_spec(pull_spec)
    {
        let want = "give registry/repository with a tag or a digest, for example \
                    quay.io/openshift-release-dev/ocp-release:4.18.12-x86_64";
        check.bad("release.pull_spec", pull_spec, want);
    }
}

fn aws(spec: &Spec, check: &mut Check<'_>) {
    if !is_region(&spec.aws.region) {
        check.bad("aws.region", &spec.aws.region, "give the code of a region, for example us-east-2");
    }
    for (name, value) in &spec.aws.tags {
        if name.starts_with("kubernetes.io/cluster/") {
            let want = "the installer refuses a network that another cluster owns, and its destroy would delete it; \
                        leave this tag out";
            check.fail("aws.tags", format!("has {}", shown(name)), want);
        } else if name.is_empty() || name.len() > 128 || name.to_lowercase().starts_with("aws:") {
            let want = "AWS takes 1 to 128 characters that do not start with aws:";
            check.fail("aws.tags", format!("has the name {}", shown(name)), want);
        } else if ["Name", "bartizan.run", "bartizan.cluster"].contains(&name.as_str()) {
            let want = "bartizan finds its own objects by this tag; choose another name";
            check.fail("aws.tags", format!("has {}", shown(name)), want);
        } else if value.len() > 256 {
            let want = "AWS takes at most 256 characters";
            check.fail("aws.tags", format!("has a long value for {}", shown(name)), want);
        }
    }
}

fn tools(spec: &Spec, check: &mut Check<'_>) {
    if spec.tools.source == ToolsSource::Directory && spec.tools.directory.is_none() {
        let want = "tools.source is \"directory\"; name the folder with the client tarballs, for example \
                    directory = \"clients\"";
        check.fail("tools.directory", "is missing", want);
    }
    if !spec.tools.url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty() && is_printable(rest)) {
        check.bad("tools.url", &spec.tools.url, "give an https:// address, the tools are checked against its sums");
    }
}

fn mirror(spec: &Spec, check: &mut Check<'_>) {
    let mirror = &spec.mirror;
    let host = &mirror.host;
    let example = format!("registry.{}", spec.domain());
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().ok();
    let numeric = host.chars().all(|c| c.is_ascii_digit() || c == '.');
    if host == "localhost" || host.ends_with(".localhost") || address.is_some_and(|address| address.is_loopback()) {
        let want = format!("nodes could not reach it; give the bastion's DNS name, for example {example}");
        check.bad("mirror.host", host, want);
    } else if host.contains(':') && address.is_none() {
        check.bad("mirror.host", host, "give the name alone; the port goes into mirror.port");
    } else if address.is_some() || numeric {
        let want = format!("certificate, pull secret and mirror rules share one DNS name; give for example {example}");
        check.bad("mirror.host", host, want);
    } else if !is_domain(host) || !host.contains('.') {
        check.bad("mirror.host", host, format!("give a whole DNS name in lower case, for example {example}"));
    }
    for (key, repository) in [
        ("mirror.release_repository", &mirror.release_repository),
        ("mirror.component_repository", &mirror.component_repository),
    ] {
        if !is_repository(repository) {
            let want = "give path components of lower-case letters, digits and . _ -, for example openshift/release";
            check.bad(key, repository, want);
        }
    }
    let visible = |c: char| c.is_ascii_graphic() && c != ':';
    if mirror.user.is_empty() || !mirror.user.chars().all(visible) {
        check.bad("mirror.user", &mirror.user, "give a name without spaces and colons, for example bartizan");
    }
    if mirror.kind == MirrorKind::Existing && mirror.password_file.is_none() {
        let want = "mirror.kind is \"existing\"; name the file that holds the password of mirror.user, for example \
                    password_file = \"mirror-password\"";
        check.fail("mirror.password_file", "is missing", want);
    }
    if mirror.kind == MirrorKind::Managed && mirror.ca_file.is_some() {
        let want = "a managed mirror gets a CA of its own; leave this out, or set mirror.kind = \"existing\"";
        check.fail("mirror.ca_file", "is set", want);
    }
    if !is_remote_path(&mirror.storage) {
        check.bad("mirror.storage", &mirror.storage, "give a folder on the bastion, for example bartizan/registry");
    }
    if !is_pull_spec(&mirror.image) {
        check.bad("mirror.image", &mirror.image, "give a whole pull spec, for example docker.io/library/registry:2");
    }
    engine(mirror, check);
    for image in &mirror.additional_images {
        if !is_pull_spec(image) {
            let want = "give whole pull specs, for example registry.redhat.io/ubi9/ubi:latest";
            check.fail("mirror.additional_images", format!("has {}", shown(image)), want);
        }
    }
}

/// The rules of the engines that are not our own.
fn engine(mirror: &MirrorSpec, check: &mut Check<'_>) {
    for text in &mirror.operators {
        if let Err(want) = Catalog::parse(text) {
            check.fail("mirror.operators", format!("has {}", shown(text)), want);
        }
    }
    if mirror.engine == MirrorEngine::OcMirror && mirror.oc_mirror_namespace().is_none() {
        let want = "oc-mirror has names of its own: give openshift/release-images and openshift/release, both below the \
                    same namespace or none";
        check.bad("mirror.release_repository", &mirror.release_repository, want);
    }
    if mirror.engine != MirrorEngine::Bartizan && mirror.subset == Subset::Core21 {
        let want = "only bartizan's own copier takes a part of a release; set mirror.engine = \"bartizan\"";
        check.fail("mirror.subset", "is \"core-21\"", want);
    }
    if let Some(text) = &mirror.bandwidth {
        if rate(text).is_err() {
            check.bad(
                "mirror.bandwidth",
                text,
                "give bytes per second, with K, M or G behind the number, for example 20M",
            );
        } else if mirror.engine != MirrorEngine::Bartizan {
            let want =
                "only bartizan's own copier can be slowed down; leave it out, or set mirror.engine = \"bartizan\"";
            check.fail("mirror.bandwidth", "is set", want);
        }
    }
    if mirror.workflow != Workflow::Direct && !mirror.needs_oc_mirror() {
        let want = "only oc-mirror has archives; leave it out, or set mirror.engine = \"oc-mirror\"";
        check.fail("mirror.workflow", "is set", want);
    }
    if let Some(archive) = &mirror.archive
        && (!archive.starts_with('/') || !is_remote_path(archive))
    {
        check.bad("mirror.archive", archive, "give an absolute path on the bastion, for example /mnt/archive");
    }
}

/// A DNS label of RFC 1123.
pub fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// Labels between dots, 253 characters at most.
pub fn is_domain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

fn is_user(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=32).contains(&text.len()) && text.bytes().all(good) && !text.starts_with('-')
}

fn is_printable(text: &str) -> bool {
    text.chars().all(|c| !c.is_control() && !c.is_whitespace())
}

fn is_remote_path(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_./-".contains(&byte);
    !text.is_empty()
        && text != "/"
        && text.bytes().all(good)
        && !text.starts_with('-')
        && !text.split('/').any(|part| part == "..")
}

fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let word = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    let number = |part: &&str| !part.is_empty() && part.len() <= 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    (3..=4).contains(&parts.len())
        && parts.first().is_some_and(|part| (2..=6).contains(&part.len()))
        && parts.iter().take(parts.len() - 1).all(word)
        && parts.last().is_some_and(number)
}

fn is_instance_type(text: &str) -> bool {
    let good = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    text.split_once('.').is_some_and(|(family, size)| good(family) && good(size))
}

/// An arm64 machine: a g follows the generation (`m6g`, `c7gn`, `t4g`), or the first of them, `a1`.
pub fn is_graviton(instance_type: &str) -> bool {
    let family = instance_type.split('.').next().unwrap_or("");
    let kind =
        family.trim_start_matches(|c: char| !c.is_ascii_digit()).trim_start_matches(|c: char| c.is_ascii_digit());
    family == "a1" || kind.starts_with('g')
}

/// `vpc-` and 8 or 17 hexadecimal digits.
pub fn is_aws_id(text: &str, prefix: &str) -> bool {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.strip_prefix(prefix).is_some_and(|rest| [8, 17].contains(&rest.len()) && rest.bytes().all(hex))
}

/// A repository name of the OCI distribution spec.
pub fn is_repository(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let part = |part: &str| part.bytes().all(inner) && edge(part.bytes().next()) && edge(part.bytes().last());
    text.len() <= 255 && text.split('/').all(part)
}

/// `registry/repository:tag` or `registry/repository@sha256:…`.
pub fn is_pull_spec(text: &str) -> bool {
    let Some((registry, rest)) = text.split_once('/') else { return false };
    let (host, port) = registry.split_once(':').unwrap_or((registry, "443"));
    let named = host.contains('.') || registry.contains(':') || host == "localhost";
    if !named || !is_domain(host) || port.parse::<u16>().is_err() {
        return false;
    }
    if let Some((repository, digest)) = rest.split_once('@') {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let sum = digest.strip_prefix("sha256:");
        return is_repository(repository) && sum.is_some_and(|sum| sum.len() == 64 && sum.bytes().all(hex));
    }
    rest.rsplit_once(':').is_some_and(|(repository, tag)| {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        is_repository(repository) && (1..=128).contains(&tag.len()) && tag.bytes().all(good)
    })
}
