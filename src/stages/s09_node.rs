//! 09: what a node says of the mirror, of names, and of the internet. One debug pod on one node of each role.

use std::time::Duration;

use serde_json::Value;

use crate::engine::StepError;
use crate::host::Cmd;
use crate::model::event::{Evidence, Level};
use crate::model::text::one_line;
use crate::registry::outputs::DigestSource;
use crate::spec::NetworkVariant;

use super::repair::oc;
use super::settle::{items, live, name};
use super::world::{Cx, exec, fact};

const SCRIPT: &str = include_str!("../../assets/verify/node.sh");

/// What a cut-off node must not reach: where releases, operators and clients come from.
const INTERNET: [&str; 3] = ["quay.io", "registry.redhat.io", "mirror.openshift.com"];

/// curl's status when it got through to a server, whatever that then said of certificates or paths.
const REACHED: [i32; 4] = [0, 22, 35, 60];

/// What a node answered.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    /// Exit status of the pull.
    pull: Option<i32>,
    /// Where it was asked for, in order.
    asked: Vec<String>,
    last: String,
    /// Name and address; empty when it did not resolve.
    names: Vec<(String, String)>,
    internet: Vec<(String, i32)>,
    /// The container engine found that the node went down without saying so, and threw its images away.
    wiped: bool,
}

fn read(output: &str) -> Said {
    let mut said = Said::default();
    for line in output.lines() {
        let (key, rest) = line.split_once(' ').unwrap_or((line, ""));
        let pair = || rest.split_once(' ').map_or((rest.to_owned(), ""), |(one, other)| (one.to_owned(), other));
        match key {
            "pull" => said.pull = rest.trim().parse().ok(),
            "asked" => said.asked.push(rest.trim().trim_matches(['\\', '"']).to_owned()),
            "said" => said.last = one_line(rest, 400),
            "name" => {
                let (name, answer) = pair();
                said.names.push((name, answer.split_whitespace().next().unwrap_or_default().to_owned()));
            }
            "internet" => {
                let (host, status) = pair();
                said.internet.push((host, status.trim().parse().unwrap_or(-1)));
            }
            "wiped" => said.wiped = rest.trim().parse::<u32>().is_ok_and(|count| count > 0),
            _ => {}
        }
    }
    said
}

/// What is wrong with it; evidence when nothing is.
fn judge(node: &str, said: &Said, registry: &str, cut_off: bool) -> Result<Vec<Evidence>, String> {
    let image = "an image of the release, by digest";
    if said.pull != Some(0) {
        return Err(format!("{node} could not pull {image}: {}", said.last));
    }
    let from = said.asked.last().map_or("", String::as_str);
    if !from.starts_with(&format!("{registry}/")) {
        return Err(format!("{node} pulled {image} from {from:?} and not from {registry}"));
    }
    let mut evidence = vec![Evidence::new(format!("{node}: skopeo --debug inspect"), format!("it came from {from}"))];
    let unknown: Vec<&str> =
        said.names.iter().filter(|(_, address)| address.is_empty()).map(|(name, _)| name.as_str()).collect();
    if !unknown.is_empty() {
        return Err(format!("{node} cannot resolve {}", unknown.join(", ")));
    }
    evidence.extend(said.names.iter().map(|(name, to)| Evidence::new(format!("{node}: getent hosts {name}"), to)));
    for (host, status) in &said.internet {
        let reached = REACHED.contains(status);
        if reached && cut_off {
            return Err(format!("{node} reaches https://{host} without a proxy: it is not cut off from the internet"));
        }
        let answer = if reached { "answers" } else { "cannot be reached" };
        evidence.push(Evidence::new(format!("{node}: curl --noproxy '*' https://{host}/v2/"), answer));
    }
    Ok(evidence)
}

/// A node of each role, ready ones first.
fn chosen(nodes: &[Value]) -> Vec<String> {
    let has = |node: &Value, role: &str| {
        node.pointer("/metadata/labels")
            .and_then(|labels| labels.get(format!("node-role.kubernetes.io/{role}")))
            .is_some()
    };
    let mut found: Vec<String> = Vec::new();
    for roles in [["master", "control-plane"], ["worker", "worker"]] {
        let one = nodes
            .iter()
            .find(|node| roles.iter().any(|role| has(node, role)) && !found.contains(&name(node).to_owned()));
        found.extend(one.map(|node| name(node).to_owned()));
    }
    found
}

/// The release by the name of its source: the mirror rules have to lead it to the mirror.
fn release(cx: &Cx) -> Result<String, StepError> {
    let sources: Vec<DigestSource> = serde_json::from_str(&cx.need(fact::IMAGE_SOURCES)?)
        .map_err(|error| StepError::fatal(format!("the recorded image sources are broken: {error}")))?;
    let spec = &cx.world.spec;
    let mirror = format!("{}/{}", spec.registry(), spec.mirror.release_repository);
    let of_release = sources.iter().find(|source| source.mirrors.contains(&mirror)).or(sources.first());
    let source = of_release.ok_or_else(|| StepError::fatal("the mirror stands in for no repository"))?;
    Ok(format!("{}@{}", source.source, cx.need(fact::RELEASE_DIGEST)?))
}

pub(super) fn names(cx: &Cx) -> Vec<String> {
    let domain = cx.world.spec.domain();
    ["api", "api-int", "console-openshift-console.apps", "oauth-openshift.apps"]
        .iter()
        .map(|name| format!("{name}.{domain}"))
        .chain([cx.world.spec.mirror.host.clone()])
        .collect()
}

/// The same question to one node of each role.
pub(super) async fn pull(cx: &Cx) -> Result<Vec<Evidence>, StepError> {
    let spec = &cx.world.spec;
    let cut_off = spec.network.variant != NetworkVariant::Private;
    let (image, names, registry) = (release(cx)?, names(cx).join(" "), spec.registry());
    let mut evidence = Vec::new();
    for node in chosen(&items(live(cx, &["nodes"]).await?)) {
        let said = ask(cx, &node, &[&image, &names, &INTERNET.join(" ")]).await?;
        evidence.extend(judge(&node, &said, &registry, cut_off).map_err(|why| {
            StepError::transient(why).saw(evidence.clone()).during("asking a node where its images come from")
        })?);
        if said.wiped {
            let text = format!(
                "{node} went down without a clean shutdown: its container engine threw its images away and pulled all of \
                 them again; the mirror has to be there whenever a node comes back"
            );
            cx.note(Level::Warn, text.clone()).await;
            evidence.push(Evidence::new(format!("{node}: journalctl -b -u crio.service"), text));
        } else {
            evidence.push(Evidence::new(format!("{node}: journalctl -b -u crio.service"), "no unclean shutdown"));
        }
    }
    Ok(evidence)
}

async fn ask(cx: &Cx, node: &str, args: &[&str]) -> Result<Said, StepError> {
    let words = ["debug", &format!("node/{node}"), "--", "chroot", "/host", "/bin/sh", "-c", SCRIPT, "sh"];
    let cmd = oc(cx, &words)?.args(args.iter().copied()).timeout(Some(Duration::from_secs(180)));
    let output = exec(cx, &cx.world.bastion(cx)?, cmd).await?;
    let said = read(&output.text());
    if said.pull.is_none() {
        let error = one_line(output.error_text().lines().last().unwrap_or("it said nothing"), 300);
        return Err(StepError::transient(format!("oc debug node/{node} ended with status {}: {error}", output.status))
            .hint("its image is imagestream openshift/tools, which comes with the release; look at the pod's events"));
    }
    Ok(said)
}

/// As a plan shows it.
pub(super) fn preview() -> Cmd {
    Cmd::new("oc").args(["debug", "node/<one of each role>", "--", "chroot", "/host", "/bin/sh", "-c", "<questions>"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const GOOD: &str = "Starting pod/x-debug ...\npull 0\nasked \\\"reg:5000/openshift/release-images@sha256:aa\\\"\nsaid \
                        level=debug msg=\"IsRunningImageAllowed\"\nname api.a.b 10.0.5.9   api.a.b\ninternet quay.io \
                        28\nwiped 0\n";

    #[test]
    fn a_node_that_is_cut_off_and_pulls_from_the_mirror() {
        let said = read(GOOD);
        let evidence = judge("n", &said, "reg:5000", true).unwrap();
        assert_eq!(evidence[0].answer, "it came from reg:5000/openshift/release-images@sha256:aa");
        assert_eq!(evidence[1].answer, "10.0.5.9");
        assert!(!said.wiped && evidence.iter().any(|one| one.answer == "cannot be reached"));
        for (from, to, wanted) in [
            ("pull 0", "pull 1", "could not pull"),
            ("reg:5000/", "quay.io/", "and not from reg:5000"),
            (" 10.0.5.9   api.a.b", "", "cannot resolve api.a.b"),
            ("quay.io 28", "quay.io 0", "not cut off"),
            // The proxy's certificate, or the server's refusal: somebody answered.
            ("quay.io 28", "quay.io 60", "not cut off"),
        ] {
            let why = judge("n", &read(&GOOD.replace(from, to)), "reg:5000", true).unwrap_err();
            assert!(why.contains(wanted), "{why}");
        }
        assert!(judge("n", &read(&GOOD.replace("quay.io 28", "quay.io 0")), "reg:5000", false).is_ok());
        assert!(read(&GOOD.replace("wiped 0", "wiped 2")).wiped);
        assert_eq!(read("error: unable to create the debug pod").pull, None);
    }

    #[test]
    fn one_node_of_each_role() {
        let node = |name: &str, roles: &[&str]| {
            let labels: serde_json::Map<String, Value> =
                roles.iter().map(|role| (format!("node-role.kubernetes.io/{role}"), json!(""))).collect();
            json!({ "metadata": { "name": name, "labels": labels } })
        };
        let nodes = [node("a", &["worker"]), node("b", &["control-plane", "master"]), node("c", &["worker"])];
        assert_eq!(chosen(&nodes), ["b", "a"]);
        assert_eq!(chosen(&[node("only", &["master", "worker"])]), ["only"]);
    }
}
