//! What others read of a mirror: a mapping file, `imageDigestSources`, an IDMS.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

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

/// An `ImageDigestMirrorSet` (`config.openshift.io/v1`).
pub fn idms(name: &str, sources: &[DigestSource]) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Idms<'a> {
        api_version: &'a str,
        kind: &'a str,
        metadata: BTreeMap<&'a str, &'a str>,
        spec: BTreeMap<&'a str, &'a [DigestSource]>,
    }
    yaml(&Idms {
        api_version: "config.openshift.io/v1",
        kind: "ImageDigestMirrorSet",
        metadata: BTreeMap::from([("name", name)]),
        spec: BTreeMap::from([("imageDigestMirrors", sources)]),
    })
}

/// The snippet for `install-config.yaml`.
pub fn image_digest_sources(sources: &[DigestSource]) -> String {
    yaml(&BTreeMap::from([("imageDigestSources", sources)]))
}

fn yaml(value: &impl Serialize) -> String {
    // Texts and lists of texts always have a YAML form.
    yaml_serde::to_string(value).unwrap_or_default()
}
