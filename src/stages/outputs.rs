//! What others read of the mirror, on the bastion (`sync/outputs`) and in the run (`outputs`).

use std::collections::BTreeMap;
use std::path::Path;

use crate::engine::StepError;
use crate::host::Cmd;
use crate::registry::digest;
use crate::registry::driven::mapping::target;
use crate::registry::mapping::Mapped;
use crate::registry::outputs::report::Report;
use crate::registry::outputs::resources::{self, Resource};
use crate::registry::outputs::{
    DigestSource, catalog_name, catalog_source, cluster_catalog, icsp, idms, image_digest_sources, itms,
    signature_config_map,
};
use crate::spec::Spec;
use crate::spec::operators::Catalog;

use super::driven;
use super::world::{Cx, bytes, exec, fact, get, must, put};

/// Of the objects that are made here.
const NAME: &str = "bartizan";

/// The digest rules that install-config has as `imageDigestSources`.
const OWN_DIGESTS: &str = "idms.yaml";

/// Writes all of it anew.
///
/// # Errors
/// When the bastion or the run's directory cannot be written.
pub(super) async fn keep(cx: &Cx) -> Result<(), StepError> {
    let bastion = cx.world.bastion(cx)?;
    let base = format!("{}/sync", cx.need(fact::WORKDIR)?);
    let spec = &cx.world.spec;
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    if let Some(sources) = cx.fact(fact::IMAGE_SOURCES) {
        let sources: Vec<DigestSource> = serde_json::from_str(&sources)
            .map_err(|error| StepError::fatal(format!("the recorded image sources are broken: {error}")))?;
        files.extend(digest_rules(spec, &sources));
    }
    let planned = if spec.mirror.needs_oc_mirror() { driven::planned(cx).await? } else { Vec::new() };
    let mapping = get(&bastion, &format!("{base}/mapping.txt")).await?.unwrap_or_default();
    files.insert("mapping.txt".into(), String::from_utf8_lossy(&mapping).into_owned());
    let made = of_oc_mirror(cx, &mut files).await?;
    files.extend(by_tag(spec, &planned, &made));
    files.extend(catalogs(spec, &planned, &made));
    if let Some(release) = cx.fact(fact::RELEASE_DIGEST)
        && !made.iter().any(|one| one.kind == "ConfigMap")
    {
        let signatures = signatures(cx, &release).await?;
        if !signatures.is_empty() {
            files.insert("signature-configmap.yaml".into(), signature_config_map(&release, &signatures));
        }
    }
    let release = cx.fact(fact::RELEASE_DIGEST).unwrap_or_default();
    let report =
        Report::new(&spec.pull_spec(), &release, &spec.registry(), &cx.model.sync, files.keys().cloned().collect());
    files.insert("report.json".into(), report.json());
    files.insert("report.md".into(), report.markdown());
    must(cx, &bastion, Cmd::new("mkdir").args(["-p", &format!("{base}/outputs")])).await?;
    for (name, text) in &files {
        put(cx, &bastion, &format!("{base}/outputs/{name}"), bytes(text.clone()), 0o644).await?;
    }
    in_run(&cx.world.run_dir.join("outputs"), &files)
        .map_err(|error| StepError::transient(format!("writing outputs into the run: {error}")))
}

/// Rules that install-config has no place for, by which nodes pull from their first boot on: for tags, and those that
/// oc-mirror made for operators. Path on the bastion, and name among the manifests.
///
/// # Errors
/// When the bastion cannot be asked.
pub(super) async fn for_installer(cx: &Cx) -> Result<Vec<(String, String)>, StepError> {
    if cx.world.spec.minor() < 13 {
        return Ok(Vec::new());
    }
    let bastion = cx.world.bastion(cx)?;
    let folder = format!("{}/sync/outputs", cx.need(fact::WORKDIR)?);
    let mut found = Vec::new();
    for path in yaml_files(cx, &folder).await? {
        let name = path.rsplit('/').next().unwrap_or(&path).to_owned();
        let text = get(&bastion, &path).await?.unwrap_or_default();
        // What is no object of a cluster has been told of when it was written.
        let objects = resources::read(&name, &String::from_utf8_lossy(&text)).unwrap_or_default();
        if !objects.is_empty() && objects.iter().all(Resource::is_rule) && name != OWN_DIGESTS {
            found.push((path, format!("mirror-{name}")));
        }
    }
    Ok(found)
}

async fn yaml_files(cx: &Cx, folder: &str) -> Result<Vec<String>, StepError> {
    let list =
        Cmd::sh("for file in \"$1\"/*.yaml; do [ -e \"$file\" ] && printf '%s\\n' \"$file\"; done; :").arg(folder);
    Ok(must(cx, &cx.world.bastion(cx)?, list).await?.text().lines().map(str::to_owned).collect())
}

fn in_run(directory: &Path, files: &BTreeMap<String, String>) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    files.iter().try_for_each(|(name, text)| std::fs::write(directory.join(name), text))
}

/// For the installer, and for a cluster of this minor version: sets came with 4.13.
fn digest_rules(spec: &Spec, sources: &[DigestSource]) -> [(String, String); 2] {
    let rules = match spec.minor() {
        ..=12 => ("icsp.yaml".into(), icsp(NAME, sources)),
        _ => (OWN_DIGESTS.into(), idms(NAME, sources)),
    };
    [("image-digest-sources.yaml".into(), image_digest_sources(sources)), rules]
}

/// Images that are pulled by tag: additional ones. oc-mirror writes the rules for its own.
fn by_tag(spec: &Spec, planned: &[Mapped], made: &[Resource]) -> Option<(String, String)> {
    if spec.minor() < 13 || made.iter().any(|one| one.kind == "ImageTagMirrorSet") {
        return None;
    }
    let tagged = planned.iter().filter(|pair| pair.source.digest.is_none());
    let mut sources: BTreeMap<String, String> =
        tagged.map(|pair| (pair.source.repo.to_string(), pair.target.to_string())).collect();
    if planned.is_empty() {
        for image in spec.mirror.additional_images.iter().filter(|image| !image.contains('@')) {
            let repository = image.rsplit_once(':').map_or(image.as_str(), |(repository, _)| repository);
            let Some((_, name)) = repository.split_once('/') else { continue };
            sources.insert(repository.to_owned(), format!("{}/{name}", spec.registry()));
        }
    }
    let sources: Vec<DigestSource> =
        sources.into_iter().map(|(source, mirror)| DigestSource { source, mirrors: vec![mirror] }).collect();
    (!sources.is_empty()).then(|| ("itms.yaml".to_owned(), itms(NAME, &sources)))
}

/// Catalogs that oc-mirror wrote no objects for.
fn catalogs(spec: &Spec, planned: &[Mapped], made: &[Resource]) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for catalog in spec.mirror.operators.iter().filter_map(|text| Catalog::parse(text).ok()) {
        let Some(pair) = planned.iter().find(|pair| pair.source.to_string() == catalog.image) else { continue };
        let (image, name) = (target(pair), catalog_name(&catalog.image));
        let has = |kind: &str| made.iter().any(|one| one.kind == kind && one.catalog() == Some(&image));
        if !has("CatalogSource") {
            let object = format!("cs-{name}");
            files.push((format!("{object}.yaml"), catalog_source(&object, &image)));
        }
        if spec.minor() >= 18 && !has("ClusterCatalog") {
            let object = format!("cc-{name}");
            files.push((format!("{object}.yaml"), cluster_catalog(&object, &image)));
        }
    }
    files
}

/// The objects that oc-mirror left, each file read before it is passed on.
async fn of_oc_mirror(cx: &Cx, files: &mut BTreeMap<String, String>) -> Result<Vec<Resource>, StepError> {
    let mut made = Vec::new();
    if !cx.world.spec.mirror.needs_oc_mirror() {
        return Ok(made);
    }
    let bastion = cx.world.bastion(cx)?;
    let folder = driven::cluster_resources(cx)?;
    for path in yaml_files(cx, &folder).await? {
        let name = path.rsplit('/').next().unwrap_or(&path).to_owned();
        let Some(text) = get(&bastion, &path).await? else { continue };
        let text = String::from_utf8_lossy(&text).into_owned();
        match resources::read(&name, &text) {
            Ok(found) => {
                made.extend(found);
                files.insert(name, text);
            }
            Err(error) => cx.note(crate::model::event::Level::Warn, format!("oc-mirror's {error}")).await,
        }
    }
    Ok(made)
}

/// Releases that Red Hat signs.
const SIGNED: &str = "quay.io/openshift-release-dev/ocp-release";
/// `sha256=<hex>/signature-1`, and on until there is none (openshift/cluster-update-keys, `stores`).
const STORE: &str = "https://mirror.openshift.com/pub/openshift-v4/signatures/openshift/release";
/// A release has one, after a change of keys two.
const MOST: usize = 4;

async fn signatures(cx: &Cx, release: &str) -> Result<Vec<Vec<u8>>, StepError> {
    let mut found = Vec::new();
    let Some(hex) = digest::hex(release).filter(|_| cx.world.spec.pull_spec().starts_with(SIGNED)) else {
        return Ok(found);
    };
    let bastion = cx.world.bastion(cx)?;
    for number in 1..=MOST {
        let url = format!("{STORE}/sha256={hex}/signature-{number}");
        let output = exec(cx, &bastion, Cmd::new("curl").args(["-fsS", "--max-time", "20", &url])).await?;
        if !output.ok() || output.stdout.is_empty() {
            break;
        }
        found.push(output.stdout);
    }
    Ok(found)
}
