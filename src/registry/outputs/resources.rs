//! Objects for a cluster that another engine wrote, read as what they are: oc-mirror's `cluster-resources`.

use serde::Deserialize as _;
use serde_json::Value;

use crate::registry::error::Malformed;

/// Kinds that a mirror gives to a cluster.
const KINDS: &[&str] = &[
    "ImageDigestMirrorSet",
    "ImageTagMirrorSet",
    "ImageContentSourcePolicy",
    "CatalogSource",
    "ClusterCatalog",
    "UpdateService",
    "ConfigMap",
];

/// One object.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    pub kind: String,
    pub name: String,
    pub value: Value,
}

impl Resource {
    /// It says where nodes pull from.
    pub fn is_rule(&self) -> bool {
        matches!(self.kind.as_str(), "ImageDigestMirrorSet" | "ImageTagMirrorSet")
    }

    /// Pull spec of the catalog that it offers, if it offers one.
    pub fn catalog(&self) -> Option<&str> {
        match self.kind.as_str() {
            "CatalogSource" => self.value.pointer("/spec/image")?.as_str(),
            "ClusterCatalog" => self.value.pointer("/spec/source/image/ref")?.as_str(),
            _ => None,
        }
    }
}

/// The objects of a file, which may have several documents.
///
/// # Errors
/// When it is no YAML, or has an object that no mirror gives to a cluster.
pub fn read(name: &str, text: &str) -> Result<Vec<Resource>, Malformed> {
    let mut found = Vec::new();
    for document in yaml_serde::Deserializer::from_str(text) {
        let value = Value::deserialize(document).map_err(|error| Malformed::new(name, error.to_string()))?;
        if value.is_null() {
            continue;
        }
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let (Some(kind), Some(called)) = (text("/kind"), text("/metadata/name")) else {
            return Err(Malformed::new(name, "has a document without kind or metadata.name"));
        };
        if !KINDS.contains(&kind.as_str()) {
            return Err(Malformed::new(name, format!("has a {kind}; expected {}", KINDS.join(", "))));
        }
        found.push(Resource { kind, name: called, value });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_documents_and_strangers() {
        let idms = "apiVersion: config.openshift.io/v1\nkind: ImageDigestMirrorSet\nmetadata:\n  name: idms-release-0\nspec: {}\n";
        let source = "---\nkind: CatalogSource\nmetadata:\n  name: cs\nspec:\n  image: reg:5000/redhat/index:v4.18\n";
        let found = read("x.yaml", &format!("---\n{idms}{source}")).unwrap();
        assert_eq!(found.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["idms-release-0", "cs"]);
        assert_eq!(found[1].catalog(), Some("reg:5000/redhat/index:v4.18"));
        for wrong in ["kind: Secret\nmetadata:\n  name: x\n", "kind: [", "kind: ConfigMap\n"] {
            assert!(read("x.yaml", wrong).is_err(), "{wrong}");
        }
    }
}
