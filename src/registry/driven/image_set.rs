//! ImageSetConfiguration `mirror.openshift.io/v2alpha1`: what oc-mirror v2 is told to mirror
//! (openshift/oc-mirror, `v2/internal/pkg/api/v2alpha1/type_config.go`).

use serde::Serialize;

use crate::spec::operators::Catalog;

/// What is wanted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageSet {
    /// Pull spec of the release; none when another engine brings it.
    pub release: Option<String>,
    pub operators: Vec<Catalog>,
    pub additional: Vec<String>,
    /// Pull specs of images to do without.
    pub blocked: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Config<'a> {
    kind: &'a str,
    api_version: &'a str,
    mirror: Mirror<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Mirror<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Platform<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    operators: Vec<Operator<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    additional_images: Vec<Named<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    blocked_images: Vec<Named<'a>>,
}

#[derive(Serialize)]
struct Platform<'a> {
    release: &'a str,
    graph: bool,
}

#[derive(Serialize)]
struct Operator<'a> {
    catalog: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    packages: Vec<Package<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Package<'a> {
    name: &'a str,
    /// With channels named, the package's own default may not be among them, and then oc-mirror refuses.
    #[serde(skip_serializing_if = "Option::is_none")]
    default_channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    channels: Vec<Named<'a>>,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
}

fn named(names: &[String]) -> Vec<Named<'_>> {
    names.iter().map(|name| Named { name }).collect()
}

impl ImageSet {
    pub fn is_empty(&self) -> bool {
        self.release.is_none() && self.operators.is_empty() && self.additional.is_empty()
    }

    /// The file. No graph image: the update service of a cluster is not what an installation needs.
    pub fn yaml(&self) -> String {
        let operators = self.operators.iter().map(|catalog| Operator {
            catalog: &catalog.image,
            packages: catalog
                .packages
                .iter()
                .map(|package| Package {
                    name: &package.name,
                    default_channel: package.channels.first().map(String::as_str),
                    channels: named(&package.channels),
                })
                .collect(),
        });
        let config = Config {
            kind: "ImageSetConfiguration",
            api_version: "mirror.openshift.io/v2alpha1",
            mirror: Mirror {
                platform: self.release.as_deref().map(|release| Platform { release, graph: false }),
                operators: operators.collect(),
                additional_images: named(&self.additional),
                blocked_images: named(&self.blocked),
            },
        };
        // Texts and lists of texts always have a YAML form.
        yaml_serde::to_string(&config).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_for() {
        let set = ImageSet {
            release: Some("quay.io/openshift-release-dev/ocp-release:4.18.9-x86_64".into()),
            operators: vec![Catalog::parse("registry.redhat.io/redhat/redhat-operator-index:v4.18 web-terminal odf-operator:stable-4.18,stable-4.17").unwrap()],
            additional: vec!["registry.redhat.io/ubi9/ubi:latest".into()],
            blocked: vec!["registry.redhat.io/ubi9/ubi:8".into()],
        };
        let found: serde_json::Value = yaml_serde::from_str(&set.yaml()).unwrap();
        let wanted = serde_json::json!({
            "kind": "ImageSetConfiguration",
            "apiVersion": "mirror.openshift.io/v2alpha1",
            "mirror": {
                "platform": { "release": "quay.io/openshift-release-dev/ocp-release:4.18.9-x86_64", "graph": false },
                "operators": [{
                    "catalog": "registry.redhat.io/redhat/redhat-operator-index:v4.18",
                    "packages": [
                        { "name": "web-terminal" },
                        { "name": "odf-operator", "defaultChannel": "stable-4.18", "channels": [{ "name": "stable-4.18" }, { "name": "stable-4.17" }] },
                    ],
                }],
                "additionalImages": [{ "name": "registry.redhat.io/ubi9/ubi:latest" }],
                "blockedImages": [{ "name": "registry.redhat.io/ubi9/ubi:8" }],
            },
        });
        assert_eq!(found, wanted);
        let none: serde_json::Value = yaml_serde::from_str(&ImageSet::default().yaml()).unwrap();
        assert_eq!(none["mirror"], serde_json::json!({}));
    }
}
