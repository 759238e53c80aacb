//! 07: the installer's manifests, with what has to be different in them: the secrets of the operators' users, what the
//! operator brought, and no DNS zones where the ingress operator cannot reach Route 53.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use yaml_serde::Value;

use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::{Cmd, Host, Stdin};
use crate::model::event::{Action, Evidence};
use crate::spec::manifests::{self, ManifestFile};
use crate::spec::{CredentialsMode, Secret};

use super::outputs;
use super::s07_identities;
use super::s07_install_config::{METADATA, installer};
use super::world::{Cx, World, action, bytes, exec, fact, file, get, must, put, sha256};

/// `openshift-install create manifests`, and our changes.
pub struct Manifests;

/// What `create manifests` leaves in every version.
const MANIFEST: &str = "manifests/cluster-config.yaml";

/// The DNS of the cluster (openshift/installer, `pkg/asset/manifests/dns.go`).
const DNS: &str = "manifests/cluster-dns-02-config.yml";

/// The DNS manifest without its zones: the ingress operator then leaves the records to others. `None` when it has none.
///
/// # Errors
/// When the text is not that manifest.
fn without_zones(text: &str) -> Result<Option<String>, String> {
    let mut manifest: Value = yaml_serde::from_str(text).map_err(|error| error.to_string())?;
    if manifest.get("kind").and_then(Value::as_str) != Some("DNS") {
        return Err("its kind is not DNS".into());
    }
    let spec = manifest.get_mut("spec").and_then(Value::as_mapping_mut).ok_or("it has no spec")?;
    let taken = ["publicZone", "privateZone"].map(|zone| spec.shift_remove(zone).is_some());
    if !taken.contains(&true) {
        return Ok(None);
    }
    yaml_serde::to_string(&manifest).map(Some).map_err(|error| error.to_string())
}

async fn dns(cx: &Cx, bastion: &Arc<dyn Host>, path: &str) -> Result<Option<String>, StepError> {
    let found = get(bastion, path).await?.ok_or_else(|| StepError::fatal(format!("there is no {path}")))?;
    let text = String::from_utf8_lossy(&found);
    without_zones(&text).map_err(|why| {
        StepError::fatal(format!("{path}: {why}"))
            .during(format!("taking the zones out of the manifests of {}", cx.world.spec.release.version))
    })
}

/// Files that go from beside the install directory into it: from where, to where.
async fn copies(cx: &Cx, bastion: &Arc<dyn Host>) -> Result<Vec<(String, String)>, StepError> {
    let directory = cx.need(fact::INSTALL_DIR)?;
    let rules = outputs::for_installer(cx).await?.into_iter();
    let rules = rules.map(|(path, name)| (path, format!("{directory}/manifests/{name}")));
    if cx.world.spec.credentials_mode() != CredentialsMode::Manual {
        return Ok(rules.collect());
    }
    let files = s07_identities::files(cx, bastion).await?;
    let place = |path: String| {
        let name = path.rsplit('/').next().unwrap_or_default();
        let folder = if name.ends_with(".key") { "tls" } else { "manifests" };
        (path.clone(), format!("{directory}/{folder}/{name}"))
    };
    Ok(files.into_iter().map(place).chain(rules).collect())
}

/// What the operator brought, by name.
fn brought(world: &World) -> Result<Vec<ManifestFile>, StepError> {
    let Some(folder) = &world.spec.install.manifests else { return Ok(Vec::new()) };
    manifests::folder(folder).map_err(|why| StepError::fatal(why).during("reading the manifests of install.manifests"))
}

/// The manifests are there and as they should be; else what is missing.
async fn look(cx: &Cx) -> Result<Result<Vec<Evidence>, String>, StepError> {
    let bastion = cx.world.bastion(cx)?;
    let directory = cx.need(fact::INSTALL_DIR)?;
    let listing = Cmd::sh("cd \"$1\" && { if [ -e \"$2\" ]; then echo \"$2\"; else ls \"$3\"; fi; } 2>/dev/null")
        .args([directory.as_str(), METADATA, MANIFEST]);
    let output = exec(cx, &bastion, listing.clone()).await?;
    if !output.ok() {
        return Ok(Err("there are no manifests".into()));
    }
    let mut evidence = vec![Evidence::new(listing.line(), output.text())];
    if output.text() == METADATA {
        return Ok(Ok(evidence));
    }
    for (from, to) in copies(cx, &bastion).await? {
        let Some(found) = get(&bastion, &to).await? else {
            return Ok(Err(format!("{to} is not there")));
        };
        if get(&bastion, &from).await?.is_none_or(|kept| sha256(&kept) != sha256(&found)) {
            return Ok(Err(format!("{to} is not what {from} is")));
        }
        evidence.push(Evidence::new(to, "as made"));
    }
    for file in brought(&cx.world)? {
        let path = format!("{directory}/manifests/{}", file.name);
        match get(&bastion, &path).await? {
            None => return Ok(Err(format!("{path} is not there"))),
            // The DNS manifest may be the operator's, and is changed below.
            Some(found) if path != format!("{directory}/{DNS}") && found != file.text.as_bytes() => {
                return Ok(Err(format!("{path} is not what {} is", file.name)));
            }
            Some(_) => {}
        }
        let kinds: Vec<String> = file.objects.iter().map(|one| format!("{} {}", one.kind, one.name)).collect();
        evidence.push(Evidence::new(path, kinds.join(", ")));
    }
    if cx.world.spec.writes_apps_record() {
        let path = format!("{directory}/{DNS}");
        if dns(cx, &bastion, &path).await?.is_some() {
            return Ok(Err(format!("{path} still has the zones that the ingress operator cannot reach")));
        }
        evidence.push(Evidence::new(path, "no privateZone, no publicZone"));
    }
    Ok(Ok(evidence))
}

#[async_trait]
impl Step<World> for Manifests {
    fn preview(&self, world: &World) -> Vec<Action> {
        let directory = format!("~/{}/install-1", world.spec.bastion.workdir);
        let cmd =
            Cmd::new("openshift-install").args(["create", "manifests", "--dir", &directory, "--log-level", "debug"]);
        let mut actions = vec![action("bastion", &cmd)];
        if world.spec.credentials_mode() == CredentialsMode::Manual {
            actions.push(file("bastion", &format!("{directory}/manifests/<one for each secret>.yaml"), 0o600));
        }
        if world.spec.install.manifests.is_some() {
            actions.push(file("bastion", &format!("{directory}/manifests/<each of install.manifests>"), 0o640));
        }
        if world.spec.writes_apps_record() {
            actions.push(file("bastion", &format!("{directory}/{DNS}"), 0o640));
        }
        actions
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        Ok(match look(cx).await? {
            Ok(evidence) => Probe::True(evidence),
            Err(why) => Probe::Missing(why),
        })
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let bastion = cx.world.bastion(cx)?;
        let directory = cx.need(fact::INSTALL_DIR)?;
        if get(&bastion, &format!("{directory}/{MANIFEST}")).await?.is_none() {
            let cmd = installer(cx, &["create", "manifests"])?.timeout(Some(Duration::from_secs(540)));
            must(cx, &bastion, cmd).await?;
        }
        for (from, to) in copies(cx, &bastion).await? {
            let Some(kept) = get(&bastion, &from).await? else { continue };
            let text = String::from_utf8(kept).map_err(|_| StepError::fatal(format!("{from} is not text")))?;
            put(cx, &bastion, &to, Stdin::Secret(Secret::holding(text)), 0o600).await?;
        }
        for file in brought(&cx.world)? {
            put(cx, &bastion, &format!("{directory}/manifests/{}", file.name), bytes(file.text), 0o640).await?;
        }
        if cx.world.spec.writes_apps_record() {
            let path = format!("{directory}/{DNS}");
            if let Some(text) = dns(cx, &bastion, &path).await? {
                // The mode that the installer gives it.
                put(cx, &bastion, &path, bytes(text), 0o640).await?;
            }
        }
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        look(cx).await?.map_err(StepError::fatal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As openshift-install 4.18 writes it for `publish: External`.
    const TEXT: &str = "apiVersion: config.openshift.io/v1
kind: DNS
metadata:
  creationTimestamp: null
  name: cluster
spec:
  baseDomain: edge-lab.example.com
  platform:
    aws: null
    type: \"\"
  privateZone:
    tags:
      Name: edge-lab-x7k2p-int
      kubernetes.io/cluster/edge-lab-x7k2p: owned
  publicZone:
    id: Z0123456789ABCDEFGHIJ
status: {}
";

    #[test]
    fn the_zones_go_and_the_rest_stays() {
        let edited = without_zones(TEXT).unwrap().unwrap();
        let wanted = "apiVersion: config.openshift.io/v1\nkind: DNS\nmetadata:\n  creationTimestamp: null\n  name: \
                      cluster\nspec:\n  baseDomain: edge-lab.example.com\n  platform:\n    aws: null\n    type: \
                      ''\nstatus: {}\n";
        assert_eq!(edited, wanted);
        assert_eq!(without_zones(&edited).unwrap(), None);
        assert!(without_zones("kind: Ingress\nspec: {}\n").is_err());
        assert!(without_zones("kind: DNS\n").is_err());
        assert!(without_zones("kind: [").is_err());
    }
}
