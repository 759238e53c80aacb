//! The rows of a mapping file: what oc-mirror's dry run says it is going to copy (`dry-run/mapping.txt`).

use crate::model::event::PlannedImage;
use crate::registry::client::Repo;
use crate::registry::mapping::Mapped;

/// `mirror:5000/openshift/release:4.18.9-x86_64-etcd`
pub fn target(pair: &Mapped) -> String {
    match &pair.tag {
        Some(tag) => format!("{}:{tag}", pair.target),
        None => pair.target.to_string(),
    }
}

/// Names for the rows of the sync, in the order of the lines: the component's own for those of a release, else the
/// source's. Our own plan has the same names, so that a row can be copied again by either.
pub fn names(pairs: &[Mapped]) -> Vec<String> {
    let release = pairs.iter().find(|pair| is_release(&pair.target)).and_then(|pair| pair.tag.clone());
    let mut taken = std::collections::BTreeSet::new();
    pairs
        .iter()
        .map(|pair| {
            let component = || {
                let tag = pair.tag.as_deref()?;
                tag.strip_prefix(release.as_deref()?)?.strip_prefix('-').filter(|_| is_component(&pair.target))
            };
            let name = match component() {
                Some(component) => component.to_owned(),
                None if is_release(&pair.target) => "release".to_owned(),
                None => pair.source.to_string(),
            };
            if taken.insert(name.clone()) {
                return name;
            }
            let whole = format!("{name} as {}:{}", pair.target.name, pair.tag.as_deref().unwrap_or("latest"));
            taken.insert(whole.clone());
            whole
        })
        .collect()
}

/// oc-mirror's own names for the two repositories.
fn is_release(repo: &Repo) -> bool {
    repo.name.ends_with("openshift/release-images")
}
fn is_component(repo: &Repo) -> bool {
    repo.name.ends_with("openshift/release")
}

/// The rows of the sync. Sizes are not known.
pub fn rows(pairs: &[Mapped]) -> Vec<PlannedImage> {
    let row = |(pair, name): (&Mapped, String)| PlannedImage {
        name,
        digest: pair.source.digest.clone().unwrap_or_default(),
        repository: pair.target.name.clone(),
        layers: 0,
        bytes: 0,
    };
    pairs.iter().zip(names(pairs)).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::mapping::parse;

    #[test]
    fn rows_have_the_names_of_components() {
        let digest = format!("sha256:{}", "b".repeat(64));
        let text = format!(
            "docker://quay.io/openshift-release-dev/ocp-release@{digest}=docker://reg:5000/openshift/release-images:4.18.9-x86_64\n\
             docker://quay.io/openshift-release-dev/ocp-v4.0-art-dev@{digest}=docker://reg:5000/openshift/release:4.18.9-x86_64-etcd\n\
             registry.redhat.io/rhel9/support-tools:latest reg:5000/rhel9/support-tools:latest reg:5000/copy:1\n"
        );
        let pairs = parse(&text, "reg:5000").unwrap();
        let tools = "registry.redhat.io/rhel9/support-tools:latest";
        assert_eq!(names(&pairs), ["release", "etcd", tools, &format!("{tools} as copy:1")]);
        assert_eq!(rows(&pairs)[1].digest, digest);
    }
}
