//! What others read of a mirror: a mapping file, `imageDigestSources`, mirror sets, catalog sources, signatures, a report.
//!
//! | room | what for |
//! |---|---|
//! | here | what the plan says, as the objects of a cluster |
//! | [`resources`] | such objects that another engine wrote |
//! | [`report`] | what was mirrored, for people and for programs |

pub mod report;
pub mod resources;

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::plan::Wanted;

/// One entry of `imageDigestSources` (install-config) and of `imageDigestMirrors` (IDMS).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestSource {
    /// `quay.io/openshift-release-dev/ocp-v4.0-art-dev`
    pub source: String,
    pub mirrors: Vec<String>,
}

/// Which repositories stand in for which, collected from what is mirrored: a CI payload comes from other repositories
/// than a released one.
pub fn digest_sources(images: &[Wanted]) -> Vec<DigestSource> {
    let mut sources: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for image in images {
        sources.entry(image.source.repo.to_string()).or_default().insert(image.target.to_string());
    }
    sources
        .into_iter()
        .map(|(source, mirrors)| DigestSource { source, mirrors: mirrors.into_iter().collect() })
        .collect()
}

/// `SRC=DST` lines for `oc image mirror -f`.
pub fn mapping(images: &[Wanted]) -> String {
    images.iter().map(|image| format!("{}={}:{}\n", image.source, image.target, image.tag)).collect()
}

/// An `ImageDigestMirrorSet` (`config.openshift.io/v1`, from 4.13 on).
pub fn idms(name: &str, sources: &[DigestSource]) -> String {
    object(
        "config.openshift.io/v1",
        "ImageDigestMirrorSet",
        json!({ "name": name }),
        "imageDigestMirrors",
        &json!(sources),
    )
}

/// An `ImageTagMirrorSet`: the same for images that are pulled by tag.
pub fn itms(name: &str, sources: &[DigestSource]) -> String {
    object("config.openshift.io/v1", "ImageTagMirrorSet", json!({ "name": name }), "imageTagMirrors", &json!(sources))
}

/// An `ImageContentSourcePolicy`, which is what clusters up to 4.12 know.
pub fn icsp(name: &str, sources: &[DigestSource]) -> String {
    let (version, kind) = ("operator.openshift.io/v1alpha1", "ImageContentSourcePolicy");
    object(version, kind, json!({ "name": name }), "repositoryDigestMirrors", &json!(sources))
}

/// An operator catalog for OLM: a `CatalogSource` that serves `image`, a pull spec in the mirror.
pub fn catalog_source(name: &str, image: &str) -> String {
    yaml(&json!({
        "apiVersion": "operators.coreos.com/v1alpha1",
        "kind": "CatalogSource",
        "metadata": { "name": name, "namespace": "openshift-marketplace" },
        "spec": { "sourceType": "grpc", "image": image },
    }))
}

/// The same for OLM v1, from 4.18 on.
pub fn cluster_catalog(name: &str, image: &str) -> String {
    yaml(&json!({
        "apiVersion": "olm.operatorframework.io/v1",
        "kind": "ClusterCatalog",
        "metadata": { "name": name },
        "spec": { "priority": 0, "source": { "type": "Image", "image": { "ref": image } } },
    }))
}

/// `redhat-operator-index-v4-18` of `…/redhat-operator-index:v4.18`: part of the name of a catalog's objects, as
/// oc-mirror makes it.
pub fn catalog_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let last = last.split('@').next().unwrap_or(last);
    last.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

/// The signatures of a release for the cluster's version operator, which asks no other place without internet
/// (openshift/cluster-version-operator, `verify/store/configmap`). `signatures` as they were served, from `signature-1`.
pub fn signature_config_map(digest: &str, signatures: &[Vec<u8>]) -> String {
    let name = digest.replace(':', "-");
    let data: BTreeMap<String, String> = (1..)
        .zip(signatures)
        .map(|(number, bytes)| (format!("{name}-{number}"), BASE64_STANDARD.encode(bytes)))
        .collect();
    yaml(&json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": "openshift-config-managed",
            "labels": { "release.openshift.io/verification-signatures": "" },
        },
        "binaryData": data,
    }))
}

fn object(version: &str, kind: &str, metadata: Value, key: &str, list: &Value) -> String {
    yaml(&json!({ "apiVersion": version, "kind": kind, "metadata": metadata, "spec": { key: list } }))
}

/// The snippet for `install-config.yaml`.
pub fn image_digest_sources(sources: &[DigestSource]) -> String {
    yaml(&BTreeMap::from([("imageDigestSources", sources)]))
}

fn yaml(value: &impl Serialize) -> String {
    // Texts and lists of texts always have a YAML form.
    yaml_serde::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_have_the_fields_that_clusters_read() {
        let sources = [DigestSource { source: "quay.io/a/b".into(), mirrors: vec!["reg:5000/c".into()] }];
        let read = |text: &str| yaml_serde::from_str::<Value>(text).unwrap();
        for (text, kind, pointer) in [
            (idms("x", &sources), "ImageDigestMirrorSet", "/spec/imageDigestMirrors/0"),
            (itms("x", &sources), "ImageTagMirrorSet", "/spec/imageTagMirrors/0"),
            (icsp("x", &sources), "ImageContentSourcePolicy", "/spec/repositoryDigestMirrors/0"),
        ] {
            let value = read(&text);
            assert_eq!((value["kind"].as_str(), value["metadata"]["name"].as_str()), (Some(kind), Some("x")));
            assert_eq!(value.pointer(pointer), Some(&json!({ "source": "quay.io/a/b", "mirrors": ["reg:5000/c"] })));
        }
        let digest = format!("sha256:{}", "a".repeat(64));
        let map = read(&signature_config_map(&digest, &[b"one".to_vec(), b"two".to_vec()]));
        let key = digest.replace(':', "-");
        assert_eq!(map["binaryData"], json!({ format!("{key}-1"): "b25l", format!("{key}-2"): "dHdv" }));
        assert_eq!(map["metadata"]["labels"], json!({ "release.openshift.io/verification-signatures": "" }));
        assert_eq!(
            catalog_name("registry.redhat.io/redhat/redhat-operator-index:v4.18"),
            "redhat-operator-index-v4-18"
        );
        assert_eq!(read(&catalog_source("cs", "reg:5000/i:1"))["spec"]["image"], "reg:5000/i:1");
        assert_eq!(read(&cluster_catalog("cc", "reg:5000/i:1"))["spec"]["source"]["image"]["ref"], "reg:5000/i:1");
    }
}
