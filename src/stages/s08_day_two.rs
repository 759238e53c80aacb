//! 08, the end: what a disconnected cluster needs before anybody works with it. Trust in the mirror for the cluster's own
//! registry, the rules for what was mirrored besides the release, catalogs from the mirror, no samples, and where updates
//! are asked for. (openshift/release, steps `enable-qe-catalogsource-disconnected`, `set-sample-operator-disconnected`,
//! `mirror-images-tag-images`.)

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::engine::{Probe, Ran, Step, StepError};
use crate::host::Cmd;
use crate::model::event::{Action, Evidence, Level};
use crate::registry::outputs::resources;
use crate::spec::{NetworkVariant, Spec};

use super::settle::{Desired, bring, hold, items, live, name, rolled};
use super::world::{Cx, World, fact, get, must, wait_for};

/// One part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DayTwo {
    /// The cluster's own components pull from the mirror with its CA.
    Trust,
    /// Mirror rules that the installer did not write.
    Rules,
    Catalogs,
    Samples,
    /// Signatures of releases, and the update service.
    Updates,
}

/// Of ours, in `openshift-config`.
const TRUST: &str = "bartizan-mirror-ca";
const IMAGE_CONFIG: &str = "images.config.openshift.io";
const SAMPLES: &str = "configs.samples.operator.openshift.io";
const MARKETPLACE: &str = "openshift-marketplace";

/// What the cluster cannot reach, it should not ask for.
fn is_cut_off(spec: &Spec) -> bool {
    spec.network.variant != NetworkVariant::Private
}

/// What has to hold, or why nothing has to.
enum Wanted {
    Nothing(String),
    Objects(Vec<Desired>),
}

/// The objects that the mirror's stage left for the cluster (`sync/outputs`), of these kinds.
pub(super) async fn left(cx: &Cx, kinds: &[&str]) -> Result<Vec<Value>, StepError> {
    let bastion = cx.world.bastion(cx)?;
    let folder = format!("{}/sync/outputs", cx.need(fact::WORKDIR)?);
    let list =
        Cmd::sh("for file in \"$1\"/*.yaml; do [ -e \"$file\" ] && printf '%s\\n' \"$file\"; done; :").arg(&folder);
    let mut found = Vec::new();
    for path in must(cx, &bastion, list).await?.text().lines() {
        let Some(text) = get(&bastion, path).await? else { continue };
        // The snippet for install-config is no object; the file of another tool may hold what no cluster takes.
        let Ok(objects) = resources::read(path, &String::from_utf8_lossy(&text)) else { continue };
        found.extend(objects.into_iter().filter(|one| kinds.contains(&one.kind.as_str())).map(|one| one.value));
    }
    Ok(found)
}

/// Sources and mirrors of a mirror rule, whatever its kind.
pub(super) fn pairs(rule: &Value) -> Vec<(String, String)> {
    let lists = ["imageDigestMirrors", "imageTagMirrors", "repositoryDigestMirrors"];
    let entries = lists.iter().filter_map(|list| rule.pointer(&format!("/spec/{list}"))?.as_array()).flatten();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    entries
        .flat_map(|entry| {
            let mirrors = entry.get("mirrors").and_then(Value::as_array).cloned().unwrap_or_default();
            let source = entry.get("source").and_then(text).unwrap_or_default();
            mirrors.iter().filter_map(text).map(|mirror| (source.clone(), mirror)).collect::<Vec<_>>()
        })
        .collect()
}

const BY_DIGEST: [&str; 2] = ["imagedigestmirrorsets", "imagecontentsourcepolicies"];

/// The rules that the cluster has.
pub(super) async fn rules(cx: &Cx, kinds: &[&str]) -> Result<Vec<Value>, StepError> {
    let mut all = Vec::new();
    for kind in kinds {
        all.extend(items(live(cx, &[kind]).await?));
    }
    Ok(all)
}

/// Both kinds of rules by digest side by side stop the machine-config operator before these versions
/// (openshift/machine-config-operator#3898, #4027).
fn at_odds(version: &str) -> bool {
    let mut parts = version.splitn(3, '.').skip(1);
    let minor: u32 = parts.next().and_then(|text| text.parse().ok()).unwrap_or_default();
    let patch = parts.next().unwrap_or_default();
    let patch: u32 = patch.split('-').next().and_then(|text| text.parse().ok()).unwrap_or_default();
    matches!((minor, patch), (13, 0..27) | (14, 0..3))
}

async fn missing_rules(cx: &Cx) -> Result<Vec<Desired>, StepError> {
    let wanted = left(cx, &["ImageDigestMirrorSet", "ImageTagMirrorSet", "ImageContentSourcePolicy"]).await?;
    let by_digest: Vec<_> = rules(cx, &BY_DIGEST).await?.iter().flat_map(pairs).collect();
    let by_tag: Vec<_> = rules(cx, &["imagetagmirrorsets"]).await?.iter().flat_map(pairs).collect();
    let covered = |rule: &Value| {
        let have = if rule["kind"] == "ImageTagMirrorSet" { &by_tag } else { &by_digest };
        pairs(rule).iter().all(|pair| have.contains(pair))
    };
    let missing: Vec<Value> = wanted.into_iter().filter(|rule| !covered(rule)).collect();
    let sets = missing.iter().any(|rule| rule["kind"] == "ImageDigestMirrorSet");
    if sets && at_odds(&cx.world.spec.release.version) && !rules(cx, &BY_DIGEST[1..]).await?.is_empty() {
        return Err(StepError::fatal(format!(
            "in {} an ImageDigestMirrorSet beside an ImageContentSourcePolicy stops the machine-config operator",
            cx.world.spec.release.version
        ))
        .hint("turn the policies into sets first: oc adm migrate icsp; or install 4.13.27, 4.14.3 or later"));
    }
    Ok(missing.into_iter().map(Desired::whole).collect())
}

async fn trust(cx: &Cx) -> Result<Wanted, StepError> {
    let pem = cx.fact(fact::MIRROR_CA).unwrap_or_default();
    if pem.trim().is_empty() {
        return Ok(Wanted::Nothing("the mirror's certificate is signed by a public CA".into()));
    }
    let spec = &cx.world.spec;
    // A colon is no character of a key; two dots stand for it (openshift/api `config/v1` Image).
    let key = format!("{}..{}", spec.mirror.host, spec.mirror.port);
    let config = live(cx, &[IMAGE_CONFIG, "cluster"]).await?.unwrap_or_default();
    let named = config.pointer("/spec/additionalTrustedCA/name").and_then(Value::as_str).unwrap_or_default();
    let object = |name: &str| {
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": name, "namespace": "openshift-config" },
            "data": { key.as_str(): pem },
        })
    };
    if named.is_empty() || named == TRUST {
        let point = json!({ "spec": { "additionalTrustedCA": { "name": TRUST } } });
        return Ok(Wanted::Objects(vec![
            Desired::whole(object(TRUST)),
            Desired::patch(IMAGE_CONFIG, "cluster", point),
        ]));
    }
    // Somebody has one already: ours joins it.
    let part = Desired {
        namespace: "openshift-config".into(),
        ..Desired::patch("configmap", named, json!({ "data": { key.as_str(): pem } }))
    };
    Ok(Wanted::Objects(vec![part]))
}

async fn catalogs(cx: &Cx) -> Result<Wanted, StepError> {
    let mut wanted = Vec::new();
    let spec = &cx.world.spec;
    if is_cut_off(spec) {
        if live(cx, &["operatorhubs.config.openshift.io", "cluster"]).await?.is_some() {
            let off = json!({ "spec": { "disableAllDefaultSources": true } });
            wanted.push(Desired::patch("operatorhubs.config.openshift.io", "cluster", off));
        }
        // OLM v1 has its own, from 4.18 on (openshift/operator-framework-operator-controller, `openshift/catalogd`).
        for catalog in items(live(cx, &["clustercatalogs.olm.operatorframework.io"]).await?) {
            let theirs = catalog.pointer("/spec/source/image/ref").and_then(Value::as_str).unwrap_or_default();
            if theirs.starts_with("registry.redhat.io/") {
                let off = json!({ "spec": { "availabilityMode": "Unavailable" } });
                wanted.push(Desired::patch("clustercatalogs.olm.operatorframework.io", name(&catalog), off));
            }
        }
    }
    let v1 = live(cx, &["clustercatalogs.olm.operatorframework.io"]).await?.is_some();
    let kinds: &[&str] = if v1 { &["CatalogSource", "ClusterCatalog"] } else { &["CatalogSource"] };
    wanted.extend(left(cx, kinds).await?.into_iter().map(Desired::whole));
    Ok(match wanted.is_empty() {
        true => Wanted::Nothing("the default catalogs can be reached, and no other was mirrored".into()),
        false => Wanted::Objects(wanted),
    })
}

async fn samples(cx: &Cx) -> Result<Wanted, StepError> {
    if !is_cut_off(&cx.world.spec) {
        return Ok(Wanted::Nothing("the cluster reaches what the samples are made of".into()));
    }
    if live(cx, &[SAMPLES, "cluster"]).await?.is_none() {
        return Ok(Wanted::Nothing("the cluster has no samples operator".into()));
    }
    let off = json!({ "spec": { "managementState": "Removed" } });
    Ok(Wanted::Objects(vec![Desired::patch(SAMPLES, "cluster", off)]))
}

async fn updates(cx: &Cx) -> Result<Wanted, StepError> {
    let mut wanted: Vec<Desired> = left(cx, &["ConfigMap"]).await?.into_iter().map(Desired::whole).collect();
    let services = left(cx, &["UpdateService"]).await?;
    if !services.is_empty() {
        // Its kind comes with the update service's operator, which somebody has to install first.
        match live(cx, &["updateservices.updateservice.operator.openshift.io"]).await? {
            Some(_) => wanted.extend(services.into_iter().map(Desired::whole)),
            None => {
                let text = "an UpdateService was mirrored, and its operator (cincinnati-operator) is not installed: apply \
                            sync/outputs/updateService.yaml when it is";
                cx.note(Level::Warn, text).await;
            }
        }
    }
    if let Some(url) = &cx.world.spec.install.update_service {
        wanted.push(Desired::patch("clusterversions", "version", json!({ "spec": { "upstream": url } })));
    }
    Ok(match wanted.is_empty() {
        true => Wanted::Nothing("there are no signatures, and no update service is named".into()),
        false => Wanted::Objects(wanted),
    })
}

/// Catalogs that do not answer yet, with what they say.
pub(super) fn not_ready(sources: &[Value]) -> Vec<String> {
    let state = |source: &Value| {
        let state = source.pointer("/status/connectionState/lastObservedState").and_then(Value::as_str);
        state.unwrap_or("no state yet").to_owned()
    };
    let ill = sources.iter().map(|source| (name(source), state(source))).filter(|(_, state)| state != "READY");
    ill.map(|(name, state)| format!("{name} ({state})")).collect()
}

impl DayTwo {
    async fn wanted(self, cx: &Cx) -> Result<Wanted, StepError> {
        match self {
            DayTwo::Trust => trust(cx).await,
            DayTwo::Rules => Ok(match missing_rules(cx).await? {
                none if none.is_empty() => Wanted::Nothing("every rule of the mirror is in the cluster".into()),
                missing => Wanted::Objects(missing),
            }),
            DayTwo::Catalogs => catalogs(cx).await,
            DayTwo::Samples => samples(cx).await,
            DayTwo::Updates => updates(cx).await,
        }
    }
}

#[async_trait]
impl Step<World> for DayTwo {
    fn preview(&self, world: &World) -> Vec<Action> {
        let spec = &world.spec;
        let applied =
            |what: &str| Action::Exec { host: "bastion".into(), command: format!("oc apply --filename <{what}>") };
        match self {
            DayTwo::Trust => {
                let point = json!({ "spec": { "additionalTrustedCA": { "name": TRUST } } });
                let map = format!("configmap/{TRUST} in openshift-config");
                vec![applied(&map), Desired::patch(IMAGE_CONFIG, "cluster", point).preview()]
            }
            DayTwo::Rules => vec![applied("each mirror rule that the cluster lacks")],
            DayTwo::Catalogs => {
                let off = json!({ "spec": { "disableAllDefaultSources": true } });
                let patch = Desired::patch("operatorhubs.config.openshift.io", "cluster", off).preview();
                let mirrored =
                    spec.mirror.operators.iter().map(|_| applied("each CatalogSource of the mirror")).take(1);
                is_cut_off(spec).then_some(patch).into_iter().chain(mirrored).collect()
            }
            DayTwo::Samples => {
                let off = json!({ "spec": { "managementState": "Removed" } });
                is_cut_off(spec).then(|| Desired::patch(SAMPLES, "cluster", off).preview()).into_iter().collect()
            }
            DayTwo::Updates => vec![applied("signatures of the release")],
        }
    }

    async fn probe(&self, cx: &Cx) -> Result<Probe, StepError> {
        match self.wanted(cx).await? {
            Wanted::Nothing(why) => Ok(Probe::NotApplicable(why)),
            Wanted::Objects(all) => hold(cx, &all).await,
        }
    }

    async fn run(&self, cx: &Cx) -> Result<Ran, StepError> {
        let Wanted::Objects(all) = self.wanted(cx).await? else { return Ok(Ran::Ok) };
        let changed = bring(cx, &all).await?;
        if *self == DayTwo::Rules && changed > 0 {
            rolled(cx).await?;
        }
        if *self == DayTwo::Catalogs {
            let words = ["catalogsources.operators.coreos.com", "--namespace", MARKETPLACE];
            wait_for(cx, "the catalogs", Duration::from_secs(5), Duration::from_secs(600), || async {
                Ok(not_ready(&items(live(cx, &words).await?)).is_empty().then_some(()))
            })
            .await?;
        }
        Ok(Ran::Ok)
    }

    async fn verify(&self, cx: &Cx) -> Result<Vec<Evidence>, StepError> {
        match self.probe(cx).await? {
            Probe::True(evidence) => Ok(evidence),
            // Nothing is left to be done: the rules are all there.
            Probe::NotApplicable(why) if *self == DayTwo::Rules => {
                Ok(vec![Evidence::new("oc get the mirror rules", why)])
            }
            Probe::Missing(why) | Probe::NotApplicable(why) => Err(StepError::transient(why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_every_kind_have_pairs() {
        let rule =
            |list: &str| json!({ "spec": { list: [{ "source": "quay.io/a", "mirrors": ["r:5000/a", "s/a"] }] } });
        for list in ["imageDigestMirrors", "imageTagMirrors", "repositoryDigestMirrors"] {
            assert_eq!(pairs(&rule(list)).len(), 2, "{list}");
        }
        assert_eq!(pairs(&json!({ "spec": {} })), []);
        assert!(at_odds("4.13.26") && at_odds("4.14.0-rc.1") && !at_odds("4.13.27") && !at_odds("4.18.1"));
        let source = json!({ "metadata": { "name": "cs" }, "status": { "connectionState": { "lastObservedState": "CONNECTING" } } });
        assert_eq!(
            not_ready(&[source, json!({ "metadata": { "name": "b" } })]),
            ["cs (CONNECTING)", "b (no state yet)"]
        );
    }
}
