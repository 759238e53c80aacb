//! Which fields an `install-config.yaml` may have, by minor version. Pure. The names are those of openshift/installer,
//! `pkg/types/installconfig.go`, `pkg/types/machinepools.go` and `pkg/types/aws/{platform,machinepool}.go`. A field whose
//! first version is not certain stands with the oldest one that is possible: what is said to be unknown is unknown.
//!
//! The installer itself can be asked too: [`explained`] reads what `openshift-install explain` prints.

use std::collections::BTreeSet;

use serde_json::Value;

/// Of the versions before 4.12 nothing is known here.
const ALWAYS: u32 = 0;

/// The first minor version whose installer takes `imageDigestSources`.
pub const IMAGE_DIGEST_SOURCES: u32 = 14;
/// The first minor version whose installer takes `platform.aws.vpc`.
pub const VPC_SUBNETS: u32 = 19;

/// A mapping of the file, its fields, and since when each is there. `[]` stands for every element of a list.
type Fields = (&'static str, &'static [(&'static str, u32)]);

const POOL: &[(&str, u32)] = &[
    ("architecture", ALWAYS),
    ("diskSetup", 20),
    ("fencing", 20),
    ("hyperthreading", ALWAYS),
    ("name", ALWAYS),
    ("platform", ALWAYS),
    ("replicas", ALWAYS),
];

const POOL_AWS: &[(&str, u32)] = &[
    ("additionalSecurityGroupIDs", 13),
    ("amiID", ALWAYS),
    ("cpuOptions", 20),
    ("hostPlacement", 20),
    ("iamProfile", 17),
    ("iamRole", ALWAYS),
    ("metadataService", ALWAYS),
    ("rootVolume", ALWAYS),
    ("type", ALWAYS),
    ("zones", ALWAYS),
];

const ROOT_VOLUME: &[(&str, u32)] =
    &[("iops", ALWAYS), ("kmsKeyARN", ALWAYS), ("size", ALWAYS), ("throughput", 20), ("type", ALWAYS)];

const FIELDS: &[Fields] = &[
    (
        "",
        &[
            ("additionalTrustBundle", ALWAYS),
            ("additionalTrustBundlePolicy", ALWAYS),
            ("apiVersion", ALWAYS),
            ("arbiter", 19),
            ("baseDomain", ALWAYS),
            ("bootstrapInPlace", ALWAYS),
            ("capabilities", ALWAYS),
            ("compute", ALWAYS),
            ("controlPlane", ALWAYS),
            ("cpuPartitioningMode", 13),
            ("credentialsMode", ALWAYS),
            ("featureGates", 15),
            ("featureSet", ALWAYS),
            ("fips", ALWAYS),
            ("imageContentSources", ALWAYS),
            ("imageDigestSources", IMAGE_DIGEST_SOURCES),
            ("kind", ALWAYS),
            ("metadata", ALWAYS),
            ("networking", ALWAYS),
            ("operatorPublishingStrategy", 16),
            ("platform", ALWAYS),
            ("proxy", ALWAYS),
            ("publish", ALWAYS),
            ("pullSecret", ALWAYS),
            ("sshKey", ALWAYS),
        ],
    ),
    (
        "platform.aws",
        &[
            ("amiID", ALWAYS),
            ("bestEffortDeleteIgnition", 16),
            ("defaultMachinePlatform", ALWAYS),
            ("eipAllocations", 17),
            ("experimentalPropagateUserTags", ALWAYS),
            ("hostedZone", ALWAYS),
            ("hostedZoneRole", 13),
            ("ipFamily", 20),
            ("lbType", ALWAYS),
            ("preserveBootstrapIgnition", 13),
            ("propagateUserTags", ALWAYS),
            ("publicIpv4Pool", 16),
            ("region", ALWAYS),
            ("serviceEndpoints", ALWAYS),
            ("subnets", ALWAYS),
            ("userProvisionedDNS", 18),
            ("userTags", ALWAYS),
            ("vpc", VPC_SUBNETS),
        ],
    ),
    ("platform.aws.vpc", &[("subnets", VPC_SUBNETS)]),
    ("platform.aws.vpc.subnets[]", &[("id", VPC_SUBNETS), ("roles", VPC_SUBNETS)]),
    ("platform.aws.vpc.subnets[].roles[]", &[("type", VPC_SUBNETS)]),
    ("platform.aws.serviceEndpoints[]", &[("name", ALWAYS), ("url", ALWAYS)]),
    ("platform.aws.defaultMachinePlatform", POOL_AWS),
    ("controlPlane", POOL),
    ("controlPlane.platform.aws", POOL_AWS),
    ("controlPlane.platform.aws.rootVolume", ROOT_VOLUME),
    ("compute[]", POOL),
    ("compute[].platform.aws", POOL_AWS),
    ("compute[].platform.aws.rootVolume", ROOT_VOLUME),
    (
        "networking",
        &[
            ("clusterNetwork", ALWAYS),
            ("clusterNetworkMTU", 14),
            ("clusterNetworks", ALWAYS),
            ("machineCIDR", ALWAYS),
            ("machineNetwork", ALWAYS),
            ("networkType", ALWAYS),
            ("ovnKubernetesConfig", 17),
            ("serviceCIDR", ALWAYS),
            ("serviceNetwork", ALWAYS),
            ("type", ALWAYS),
        ],
    ),
    ("networking.machineNetwork[]", &[("cidr", ALWAYS)]),
    ("networking.clusterNetwork[]", &[("cidr", ALWAYS), ("hostPrefix", ALWAYS), ("hostSubnetLength", ALWAYS)]),
    ("proxy", &[("httpProxy", ALWAYS), ("httpsProxy", ALWAYS), ("noProxy", ALWAYS)]),
    ("imageContentSources[]", &[("mirrors", ALWAYS), ("source", ALWAYS)]),
    (
        "imageDigestSources[]",
        &[("mirrors", IMAGE_DIGEST_SOURCES), ("source", IMAGE_DIGEST_SOURCES), ("sourcePolicy", 21)],
    ),
];

/// A field that is in the file and not in the version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// Dotted, as it stands in the file: `platform.aws.privateLink`.
    pub key: String,
    /// The first minor version that has it, when there is one.
    pub since: Option<u32>,
    /// What may be there instead.
    pub known: Vec<&'static str>,
}

/// The mappings of a file that are at `path`, with the dotted keys by which people find them.
fn places<'v>(root: &'v Value, path: &str) -> Vec<(String, &'v Value)> {
    let mut found = vec![(String::new(), root)];
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let (name, each) = part.strip_suffix("[]").map_or((part, false), |name| (name, true));
        let step = |(at, value): (String, &'v Value)| -> Vec<(String, &'v Value)> {
            let at = if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
            match value.get(name) {
                Some(Value::Array(list)) if each => list.iter().map(|one| (at.clone(), one)).collect(),
                Some(value) if !each => vec![(at, value)],
                _ => Vec::new(),
            }
        };
        found = found.into_iter().flat_map(step).collect();
    }
    found
}

/// What a version does not know of the file. The installer would warn, and go on without it.
pub fn unknown(root: &Value, minor: u32) -> Vec<Unknown> {
    let mut all = Vec::new();
    for (path, fields) in FIELDS {
        for (at, value) in places(root, path) {
            for name in value.as_object().into_iter().flat_map(serde_json::Map::keys) {
                let since = fields.iter().find(|(field, _)| field == name).map(|(_, since)| *since);
                if since.is_some_and(|since| since <= minor) {
                    continue;
                }
                let key = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                let known = fields.iter().filter(|(_, since)| *since <= minor).map(|(field, _)| *field).collect();
                all.push(Unknown { key, since, known });
            }
        }
    }
    all
}

/// The fields of a mapping (`""`, `platform.aws`) in a version; none when the mapping is not known here.
pub fn fields(path: &str, minor: u32) -> Vec<&'static str> {
    let found = FIELDS.iter().find(|(at, _)| *at == path).map_or(&[][..], |(_, fields)| fields);
    found.iter().filter(|(_, since)| *since <= minor).map(|(field, _)| *field).collect()
}

/// What the installer can be asked about, and is worth it.
pub const ASKED: [&str; 3] = ["", "platform.aws", "networking"];

/// Names of the fields in what `openshift-install explain` prints (openshift/installer `pkg/explain/printer.go`): below
/// `FIELDS:` each stands on a line of its own, indented by four, its type behind it.
pub fn explained(text: &str) -> BTreeSet<String> {
    let below = text.split_once("FIELDS:").map_or("", |(_, below)| below);
    let name = |line: &str| {
        let rest = line.strip_prefix("    ")?;
        let (name, kind) = rest.split_once(" <")?;
        let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric());
        (plain && kind.contains('>')).then(|| name.to_owned())
    };
    below.lines().filter_map(name).collect()
}

/// Keys of the file at `path` that the installer did not name when it was asked for them.
pub fn unexplained(root: &Value, path: &str, explained: &BTreeSet<String>) -> Vec<String> {
    let dotted = |name: &String| if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
    let at = places(root, path).into_iter();
    at.flat_map(|(_, value)| value.as_object().into_iter().flat_map(serde_json::Map::keys))
        .filter(|name| !explained.contains(*name))
        .map(dotted)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_installers_own_words() {
        let text = "KIND:     InstallConfig\nVERSION:  v1\n\nRESOURCE: <object>\n  AWS is the configuration used when \
                    installing on AWS.\n\nFIELDS:\n    amiID <string>\n      AMIID is the AMI.\n\n    region <string> \
                    -required-\n      Region specifies <where>.\n\n    subnets <[]string>\n      Subnets specifies.\n";
        let names = explained(text);
        assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), ["amiID", "region", "subnets"]);
        let root = json!({ "platform": { "aws": { "region": "us-east-2", "vpc": {} } } });
        assert_eq!(unexplained(&root, "platform.aws", &names), ["platform.aws.vpc"]);
        assert!(explained("error: couldn't find \"privateLink\" field").is_empty());
    }

    #[test]
    fn fields_come_with_versions() {
        let root = json!({
            "imageDigestSources": [{ "source": "a", "sourcePolicy": "NeverContactSource" }],
            "platform": { "aws": { "vpc": { "subnets": [{ "id": "x", "role": [] }] } } },
        });
        let keys = |minor: u32| unknown(&root, minor).into_iter().map(|one| (one.key, one.since)).collect::<Vec<_>>();
        let role = ("platform.aws.vpc.subnets.role".to_owned(), None);
        let policy = ("imageDigestSources.sourcePolicy".to_owned(), Some(21));
        assert_eq!(keys(21), std::slice::from_ref(&role));
        assert_eq!(keys(20), [role, policy]);
        let old: Vec<String> = keys(13).into_iter().map(|(key, _)| key).collect();
        assert!(old.contains(&"imageDigestSources".to_owned()) && old.contains(&"platform.aws.vpc".to_owned()));
        assert!(fields("platform.aws", 18).contains(&"subnets") && !fields("platform.aws", 18).contains(&"vpc"));
    }
}
