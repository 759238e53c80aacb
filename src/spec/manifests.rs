//! Manifests that an operator brings for the installer. Reads the folder that the spec names, and checks what it can before
//! a bootstrap node chokes on it. Format facts: openshift/installer `pkg/asset/manifests`, machine-config-operator
//! `docs/MachineConfiguration.md`.

use std::path::Path;

use serde::Deserialize as _;
use serde_json::Value;

use super::problem::shown;

/// One object of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub kind: String,
    pub name: String,
    /// Empty for what belongs to the whole cluster.
    pub namespace: String,
}

/// A file of the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFile {
    pub name: String,
    pub text: String,
    pub objects: Vec<Manifest>,
}

/// Every `*.yaml` and `*.yml` of a folder, in the order of their names.
///
/// # Errors
/// What is wrong, with the name of the file.
pub fn folder(path: &Path) -> Result<Vec<ManifestFile>, String> {
    let failed = |path: &Path, error: std::io::Error| format!("reading {}: {error}", path.display());
    let entries = std::fs::read_dir(path).map_err(|error| failed(path, error))?;
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.is_file() && path.extension().is_some_and(|end| end == "yaml" || end == "yml"));
    paths.sort();
    if paths.is_empty() {
        return Err(format!("{} holds no manifest (*.yaml)", path.display()));
    }
    let read = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).map_err(|error| failed(path, error))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let objects = objects(&text).map_err(|why| format!("{name}: {why}"))?;
        Ok(ManifestFile { name, text, objects })
    };
    paths.iter().map(read).collect()
}

/// The objects of a file, which may have several documents.
///
/// # Errors
/// What is wrong with it.
pub fn objects(text: &str) -> Result<Vec<Manifest>, String> {
    let mut found = Vec::new();
    for document in yaml_serde::Deserializer::from_str(text) {
        let value = Value::deserialize(document).map_err(|error| format!("it is no YAML: {error}"))?;
        if value.is_null() {
            continue;
        }
        let field = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let object =
            Manifest { kind: field("/kind"), name: field("/metadata/name"), namespace: field("/metadata/namespace") };
        if object.kind.is_empty() || object.name.is_empty() || field("/apiVersion").is_empty() {
            return Err("a document has no apiVersion, kind or metadata.name".into());
        }
        if object.kind == "MachineConfig" {
            machine_config(&value).map_err(|why| format!("MachineConfig {}: {why}", shown(&object.name)))?;
        }
        found.push(object);
    }
    if found.is_empty() { Err("it holds no object".into()) } else { Ok(found) }
}

/// A MachineConfig that the machine config operator can render: a role, and Ignition that Ignition understands.
///
/// # Errors
/// What is wrong with it.
pub fn machine_config(value: &Value) -> Result<(), String> {
    let role = value.pointer("/metadata/labels/machineconfiguration.openshift.io~1role").and_then(Value::as_str);
    if role.is_none_or(str::is_empty) {
        return Err(
            "it has no label machineconfiguration.openshift.io/role, so no pool takes it; give master or worker".into(),
        );
    }
    let Some(config) = value.pointer("/spec/config") else { return Ok(()) };
    ignition(&config.to_string()).map(drop)
}

/// The config, when it is one: known version, no key that Ignition does not know, no path twice (it would not boot).
///
/// # Errors
/// What is wrong with it.
pub fn ignition(text: &str) -> Result<Value, String> {
    let (_, warnings) =
        ignition_config::Config::parse_str(text).map_err(|error| format!("its Ignition config is none: {error}"))?;
    if let Some(warning) = warnings.first() {
        return Err(format!("its Ignition config has an {warning}"));
    }
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let list = |pointer: &str| value.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    for (pointer, key, what) in [("/storage/files", "path", "path"), ("/systemd/units", "name", "unit")] {
        let mut seen = std::collections::BTreeSet::new();
        for entry in list(pointer) {
            let name = entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            if !seen.insert(name.clone()) {
                return Err(format!("its Ignition config has the {what} {} twice", shown(&name)));
            }
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_bootstrap_node_would_choke_on() {
        let good = "apiVersion: machineconfiguration.openshift.io/v1\nkind: MachineConfig\nmetadata:\n  name: 99-x\n  labels:\n    machineconfiguration.openshift.io/role: master\nspec:\n  config:\n    ignition:\n      version: 3.2.0\n    storage:\n      files:\n      - path: /etc/a\n        mode: 420\n        contents:\n          source: data:,a\n";
        assert_eq!(objects(good).unwrap().len(), 1);
        for (from, to, wanted) in [
            ("    machineconfiguration.openshift.io/role: master\n", "    a: b\n", "no pool takes it"),
            ("version: 3.2.0", "version: 2.2.0", "unsupported config version"),
            ("        mode: 420\n", "        mode: 420\n        filesystem: root\n", "unused key"),
            ("kind: MachineConfig", "kind: [", "no YAML"),
            ("  name: 99-x\n", "", "metadata.name"),
        ] {
            let why = objects(&good.replace(from, to)).unwrap_err();
            assert!(why.contains(wanted), "{why}");
        }
        let file = "      - path: /etc/a\n        contents:\n          source: data:,b\n";
        assert!(objects(&format!("{good}{file}")).unwrap_err().contains("\"/etc/a\" twice"));
        assert!(objects("---\n").is_err());
    }
}
