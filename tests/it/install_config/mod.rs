//! install-config.yaml as it is written: every shape for every version, held against files.

mod mistakes;
mod nodes;

use std::path::{Path, PathBuf};

use bartizan::spec::install_check::check;
use bartizan::spec::install_config::{InstallInputs, ProxyInputs, render};
use bartizan::spec::secrets::mirror_pull_secret;
use bartizan::spec::{Secret, Spec, parse};
use serde_json::Value;

/// The versions that are asked for; the last that each had when this was written does not matter.
const MINORS: std::ops::RangeInclusive<u32> = 12..=21;

/// Name, and what its cluster.toml has in place of a marker.
const SHAPES: [(&str, &str); 6] = [
    ("sno", "[install]\ncontrol_plane_replicas = 1\ncompute_replicas = 0\ncontrol_plane_type = \"m6i.2xlarge\""),
    ("compact", "[install]\ncontrol_plane_replicas = 3\ncompute_replicas = 0"),
    ("ha", "[network]\nzones = 3\n[install]\ncompute_replicas = 3"),
    (
        "proxy",
        "[network]\nvariant = \"proxy\"\nextra_endpoints = [\"kms\"]\n[install]\n\
         service_endpoints = { sts = \"https://sts.example.com\" }",
    ),
    ("public", "[network]\nvariant = \"private\"\n[install]\npublish = \"External\""),
    (
        "arm-fips",
        "[aws.tags]\nteam = \"edge\"\n[install]\nfips = true\ncontrol_plane_type = \"m6g.xlarge\"\n\
         compute_type = \"m6g.large\"",
    ),
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/install-config")
}

pub(crate) fn ca() -> String {
    std::fs::read_to_string(fixtures().join("mirror-ca.pem")).unwrap()
}

pub(crate) fn spec(minor: u32, more: &str) -> Spec {
    let arch = if more.contains("m6g") { "aarch64" } else { "x86_64" };
    let text = format!(
        "[cluster]\nname = \"edge-lab\"\nbase_domain = \"example.com\"\n[release]\nversion = \"4.{minor}.9\"\narch = \
         \"{arch}\"\n[aws]\nregion = \"us-east-2\"\n[credentials]\npull_secret = \"p\"\nssh_public_key = \"k\"\n[mirror]\nhost \
         = \"registry.edge-lab.example.com\"\n{more}\n"
    );
    parse(&text, "cluster.toml").unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

pub(crate) fn inputs(spec: &Spec) -> InstallInputs {
    let subnets = |first: u32| -> Vec<(String, String)> {
        let zones = ["us-east-2a", "us-east-2b", "us-east-2c"].iter().zip(first..);
        let zones = zones.take(usize::from(spec.network.zones));
        zones.map(|(zone, number)| (format!("subnet-{number:017x}"), (*zone).to_owned())).collect()
    };
    let mirror = |repository: &str| format!("{}/{repository}", spec.registry());
    let proxy = || {
        let url = Secret::holding("http://bartizan:golden-proxy@10.0.0.10:3128".to_owned());
        ProxyInputs { http: url.clone(), https: url, no_proxy: vec![spec.mirror.host.clone()] }
    };
    InstallInputs {
        machine_network: "10.0.0.0/16".into(),
        private_subnets: subnets(1),
        public_subnets: subnets(0x101),
        trust_bundle_pem: ca(),
        pull_secret_merged: mirror_pull_secret(&spec.registry(), "bartizan", &Secret::new("golden-mirror-password")),
        ssh_public_key: "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQDgolden edge\n".into(),
        image_sources: vec![
            ("quay.io/openshift-release-dev/ocp-release".into(), mirror("openshift/release-images")),
            ("quay.io/openshift-release-dev/ocp-v4.0-art-dev".into(), mirror("openshift/release")),
        ],
        hosted_zone: None,
        ami: None,
        proxy: spec.runs_proxy().then(proxy),
    }
}

/// With `BARTIZAN_BLESS=1` what is written now becomes what is right.
#[test]
fn every_shape_of_every_version_is_as_it_stands_in_its_file() {
    let bless = std::env::var_os("BARTIZAN_BLESS").is_some();
    let mut expected = 1;
    for (shape, more) in SHAPES {
        for minor in MINORS {
            expected += 1;
            let spec = spec(minor, more);
            let text = render(&spec, &inputs(&spec)).unwrap_or_else(|error| panic!("4.{minor} {shape}: {error}"));
            let file = fixtures().join(format!("4.{minor}-{shape}.yaml"));
            if bless {
                std::fs::write(&file, text.reveal()).unwrap();
            }
            let golden = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            assert_eq!(text.reveal(), golden, "{}", file.display());
            assert_eq!(check(&golden, minor), [], "{}", file.display());
        }
    }
    assert_eq!(std::fs::read_dir(fixtures()).unwrap().count(), expected, "files that no shape has");
}

/// Read from the files, not from what is rendered: a wrong blessing is seen here.
#[test]
fn the_files_have_what_their_version_knows_and_nothing_else() {
    for (shape, _) in SHAPES {
        for minor in MINORS {
            let name = format!("4.{minor}-{shape}.yaml");
            let text = std::fs::read_to_string(fixtures().join(&name)).unwrap();
            let root: Value = yaml_serde::from_str(&text).unwrap();
            let has = |pointer: &str| root.pointer(pointer).is_some();
            assert_eq!(has("/imageDigestSources"), minor >= 14, "{name}");
            assert_eq!(has("/imageContentSources"), minor < 14, "{name}");
            assert_eq!(has("/platform/aws/vpc"), minor >= 19, "{name}");
            assert_eq!(has("/platform/aws/subnets"), minor < 19, "{name}");
            assert_eq!(root["additionalTrustBundlePolicy"], "Always", "{name}");
            assert!(!has("/bootstrapInPlace") && !has("/platform/aws/privateLink"), "{name}");
            let replicas = (&root["controlPlane"]["replicas"], &root["compute"][0]["replicas"]);
            let subnets = root
                .pointer("/platform/aws/vpc/subnets")
                .or(root.pointer("/platform/aws/subnets"))
                .and_then(Value::as_array)
                .map_or(0, Vec::len);
            match shape {
                "sno" => assert_eq!((replicas, subnets), ((&1.into(), &0.into()), 1), "{name}"),
                "compact" => assert_eq!((replicas, subnets), ((&3.into(), &0.into()), 1), "{name}"),
                "ha" => assert_eq!((replicas, subnets), ((&3.into(), &3.into()), 3), "{name}"),
                "public" => {
                    assert_eq!((root["publish"].as_str(), subnets), (Some("External"), 2), "{name}");
                    // Where the cluster has a way to IAM it sees to its users itself.
                    assert!(!has("/credentialsMode"), "{name}");
                }
                "proxy" => assert_eq!(
                    root["proxy"]["noProxy"],
                    "ec2.us-east-2.amazonaws.com,elasticloadbalancing.us-east-2.amazonaws.com,\
                     s3.us-east-2.amazonaws.com,kms.us-east-2.amazonaws.com,sts.example.com,\
                     registry.edge-lab.example.com",
                    "{name}"
                ),
                _ => {
                    assert_eq!((&root["fips"], &root["controlPlane"]["architecture"]), (&true.into(), &"arm64".into()));
                    assert_eq!(root["platform"]["aws"]["userTags"]["team"], "edge", "{name}");
                }
            }
            if !["public", "proxy"].contains(&shape) {
                assert_eq!(
                    (root["publish"].as_str(), root["credentialsMode"].as_str()),
                    (Some("Internal"), Some("Manual"))
                );
            }
        }
    }
}
