//! `oc` (and `kubectl`): what it shows of the lab's cluster, of releases, and the approval of certificate requests.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Words, err, oc_write, out, path, read, table};
use crate::lab::machines::{Tool, ToolCx, marker};
use crate::lab::ocp::cluster::Scene;
use crate::lab::ocp::control_plane::{approve, has_condition};
use crate::lab::ocp::credentials;
use crate::lab::ocp::day_two;
use crate::lab::ocp::kube_store::{Resource, log};
use crate::lab::ocp::payload::Payload;

const VALUED: &[&str] = &[
    "o",
    "output",
    "n",
    "namespace",
    "kubeconfig",
    "registry-config",
    "a",
    "command",
    "c",
    "container",
    "tail",
    "to",
    "from",
    "field-selector",
    "l",
    "selector",
    "for",
    "timeout",
    "p",
    "type",
    "sort-by",
    "as",
    "context",
    "request-timeout",
    "tail",
    "c",
    "icsp-file",
    "idms-file",
    "certificate-authority",
    "cloud",
    "install-config",
    "f",
    "filename",
    "command-os",
    "patch",
    "image-for",
    "to-release-image",
    "to-image",
];

pub struct Oc {
    pub scene: Arc<Scene>,
    pub name: &'static str,
}

#[async_trait]
impl Tool for Oc {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn run(&self, mut cx: ToolCx) -> i32 {
        let words = Words::parse(&cx.args, VALUED);
        let mut verbs = words.plain.iter().map(String::as_str);
        match (verbs.next().unwrap_or_default(), verbs.next().unwrap_or_default()) {
            ("version", _) => self.version(&mut cx, &words).await,
            ("adm", "release") if verbs.next() == Some("mirror") => {
                super::mirroring::oc_adm_release_mirror(&self.scene, &mut cx, &words).await
            }
            ("adm", "release") => self.release(&mut cx, &words).await,
            (verb, second) => {
                if let Err(why) = self.reach(&cx, &words) {
                    err(&mut cx, why).await;
                    return 1;
                }
                if let Some(cluster) = self.scene.any_cluster() {
                    day_two::settle(&self.scene, &cluster);
                }
                match (verb, second) {
                    ("apply", _) => oc_write::apply(&self.scene, &mut cx, &words).await,
                    ("adm", "upgrade") => oc_write::upgrade(&self.scene, &mut cx, &words).await,
                    ("debug", _) => oc_write::debug(&self.scene, &mut cx, &words).await,
                    ("get", _) => self.get(&mut cx, &words).await,
                    ("adm", "certificate") | ("certificate", _) => self.certificate(&mut cx, &words).await,
                    ("whoami", _) => {
                        out(&mut cx, "system:admin\n").await;
                        0
                    }
                    ("describe", _) => self.describe(&mut cx, &words).await,
                    ("patch", _) => self.patch(&mut cx, &words).await,
                    ("delete", _) => self.delete(&mut cx, &words).await,
                    ("logs", pod) => self.logs(&mut cx, &words, pod).await,
                    ("label" | "annotate" | "wait", _) => 0,
                    (other, _) => {
                        err(&mut cx, format!("error: unknown command \"{other}\" for \"{}\"\n", self.name)).await;
                        1
                    }
                }
            }
        }
    }
}

impl Oc {
    async fn logs(&self, cx: &mut ToolCx, words: &Words, name: &str) -> i32 {
        let namespace = words.get(&["n", "namespace"]).unwrap_or("default");
        let Some(pod) = self.scene.kube.get("pods", namespace, name) else {
            err(cx, format!("Error from server (NotFound): pods \"{name}\" not found\n")).await;
            return 1;
        };
        match log(&pod, words.get(&["c", "container"]).unwrap_or_default(), words.has(&["previous", "p"])) {
            Some(said) => out(cx, said).await,
            None => {
                err(
                    cx,
                    format!(
                        "Error from server (BadRequest): previous terminated container in pod \"{name}\" not found\n"
                    ),
                )
                .await;
                return 1;
            }
        }
        0
    }

    /// The API must answer, and the kubeconfig must be that of the cluster.
    fn reach(&self, cx: &ToolCx, words: &Words) -> Result<(), String> {
        let file = words.get(&["kubeconfig"]).or_else(|| cx.env.get("KUBECONFIG").map(String::as_str));
        let text = match file {
            Some(file) => read(cx, file).ok_or_else(|| format!("error: stat {file}: no such file or directory\n"))?,
            None => read(cx, "~/.kube/config").ok_or_else(|| {
                "error: Missing or incomplete configuration info.  Please point to an existing, complete config file:\n\n\n  1. Via the command-line flag --kubeconfig\n  2. Via the KUBECONFIG environment variable\n  3. In your home directory as ~/.kube/config\n\nTo view or setup config directly use the 'config' command.\n".to_owned()
            })?,
        };
        let server = text.lines().find_map(|line| line.trim().strip_prefix("server: https://")).unwrap_or_default();
        let cluster = self.scene.any_cluster();
        let same = cluster.as_ref().is_some_and(|cluster| server == format!("api.{}:6443", cluster.assets.domain));
        if !same {
            let host = server.split(':').next().unwrap_or_default();
            return Err(format!(
                "Unable to connect to the server: dial tcp: lookup {host} on 10.0.0.2:53: no such host\n"
            ));
        }
        if !self.scene.kube.is_up() {
            return Err(format!(
                "The connection to the server {server} was refused - did you specify the right host or port?\n"
            ));
        }
        if cluster.is_some_and(|cluster| cluster.assets.kubeconfig != text) {
            return Err("Unable to connect to the server: tls: failed to verify certificate: x509: certificate signed by unknown authority\n".into());
        }
        Ok(())
    }

    async fn version(&self, cx: &mut ToolCx, words: &Words) -> i32 {
        let version = &self.scene.payload.version;
        let text = match words.get(&["o", "output"]) {
            Some("json") => format!(
                "{:#}\n",
                json!({ "clientVersion": { "gitVersion": version }, "releaseClientVersion": version, "kustomizeVersion": "v5.4.2" })
            ),
            _ => format!("Client Version: {version}\nKustomize Version: v5.4.2\n"),
        };
        out(cx, text).await;
        0
    }

    async fn get(&self, cx: &mut ToolCx, words: &Words) -> i32 {
        let wanted = words.word(1).to_owned();
        let (kinds, name) = match wanted.split_once('/') {
            Some((kind, name)) => (kind.to_owned(), name.to_owned()),
            None => (wanted, words.word(2).to_owned()),
        };
        let format = words.get(&["o", "output"]).unwrap_or_default().to_owned();
        let namespace = match words.has(&["A", "all-namespaces"]) {
            true => None,
            false => Some(words.get(&["n", "namespace"]).unwrap_or("default")),
        };
        let mut text = String::new();
        let mut items = Vec::new();
        for kind in kinds.split(',') {
            let Some(resource) = Resource::named(kind) else {
                err(cx, format!("error: the server doesn't have a resource type \"{kind}\"\n")).await;
                return 1;
            };
            let namespace = namespace.filter(|_| resource.namespaced);
            let (_, mut objects) = self.scene.kube.list(resource.plural, namespace);
            if !name.is_empty() {
                objects.retain(|object| object["metadata"]["name"] == *name);
                if objects.is_empty() {
                    if words.has(&["ignore-not-found"]) {
                        return 0;
                    }
                    let full = match resource.group.is_empty() {
                        true => resource.plural.to_owned(),
                        false => format!("{}.{}", resource.plural, resource.group),
                    };
                    err(cx, format!("Error from server (NotFound): {full} \"{name}\" not found\n")).await;
                    return 1;
                }
            }
            let objects: Vec<Value> = objects.iter().map(|object| (**object).clone()).collect();
            if objects.is_empty() && !matches!(format.split('=').next(), Some("json" | "jsonpath" | "yaml")) {
                err(
                    cx,
                    match namespace {
                        Some(namespace) => format!("No resources found in {namespace} namespace.\n"),
                        None => "No resources found\n".to_owned(),
                    },
                )
                .await;
            } else if matches!(format.as_str(), "" | "wide") {
                let mut rows = Vec::new();
                if !words.has(&["no-headers"]) {
                    rows.push(columns(resource.plural));
                }
                rows.extend(objects.iter().map(|object| row(resource.plural, object)));
                text.push_str(&table(&rows));
            }
            items.extend(objects);
        }
        let single = !name.is_empty();
        match format.split_once('=').unwrap_or((format.as_str(), "")) {
            ("json" | "yaml", _) => {
                let value = match items.first() {
                    Some(item) if single => item.clone(),
                    _ => {
                        json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "" }, "items": items })
                    }
                };
                text = if format == "json" {
                    format!("{value:#}\n")
                } else {
                    yaml_serde::to_string(&value).unwrap_or_default()
                };
            }
            ("name", _) => {
                text = items
                    .iter()
                    .map(|item| {
                        format!(
                            "{}/{}\n",
                            item["kind"].as_str().unwrap_or_default().to_lowercase(),
                            item["metadata"]["name"].as_str().unwrap_or_default()
                        )
                    })
                    .collect();
            }
            ("jsonpath", template) => {
                let value = match items.first() {
                    Some(item) if single => item.clone(),
                    _ => json!({ "items": items }),
                };
                text = jsonpath(template, &value);
            }
            _ => {}
        }
        out(cx, text).await;
        0
    }

    async fn certificate(&self, cx: &mut ToolCx, words: &Words) -> i32 {
        let skip = if words.word(0) == "adm" { 3 } else { 2 };
        let mut failed = 0;
        for name in words.plain.iter().skip(skip) {
            let name = name.rsplit('/').next().unwrap_or_default();
            if approve(&self.scene.kube, name) {
                out(cx, format!("certificatesigningrequest.certificates.k8s.io/{name} approved\n")).await;
            } else {
                err(cx, format!("Error from server (NotFound): certificatesigningrequests.certificates.k8s.io \"{name}\" not found\n")).await;
                failed = 1;
            }
        }
        failed
    }

    /// Kind, namespace and names of `VERB KIND NAME…` and `VERB KIND/NAME`.
    async fn named(&self, cx: &mut ToolCx, words: &Words) -> Option<(&'static Resource, String, Vec<String>)> {
        let mut names: Vec<String> = words.plain.iter().skip(2).cloned().collect();
        let kind = match words.word(1).split_once('/') {
            Some((kind, name)) => {
                names.push(name.to_owned());
                kind
            }
            None => words.word(1),
        };
        let Some(resource) = Resource::named(kind) else {
            err(cx, format!("error: the server doesn't have a resource type \"{kind}\"\n")).await;
            return None;
        };
        let namespace = if resource.namespaced { words.get(&["n", "namespace"]).unwrap_or("default") } else { "" };
        Some((resource, namespace.to_owned(), names))
    }

    async fn missing(cx: &mut ToolCx, resource: &Resource, name: &str) -> i32 {
        let group = if resource.group.is_empty() { String::new() } else { format!(".{}", resource.group) };
        err(cx, format!("Error from server (NotFound): {}{group} \"{name}\" not found\n", resource.plural)).await;
        1
    }

    /// `--type merge` (RFC 7386), and what of `--type json` sets a value.
    async fn patch(&self, cx: &mut ToolCx, words: &Words) -> i32 {
        let Some((resource, namespace, names)) = self.named(cx, words).await else { return 1 };
        let patch = words.get(&["p", "patch"]).and_then(|text| serde_json::from_str::<Value>(text).ok());
        let Some(patch) = patch else {
            err(cx, "error: unable to parse the patch: it is no JSON\n").await;
            return 1;
        };
        for name in names {
            let changed = self.scene.kube.update(resource, &namespace, &name, |object| match &patch {
                Value::Array(changes) => changes.iter().for_each(|change| set(object, change)),
                merge_patch => oc_write::merge(object, merge_patch),
            });
            if !changed {
                return Self::missing(cx, resource, &name).await;
            }
            out(cx, format!("{}.{}/{name} patched\n", resource.kind.to_lowercase(), resource.group)).await;
        }
        0
    }

    async fn delete(&self, cx: &mut ToolCx, words: &Words) -> i32 {
        let Some((resource, namespace, names)) = self.named(cx, words).await else { return 1 };
        for name in names {
            if self.scene.kube.get(resource.plural, &namespace, &name).is_none() {
                if words.has(&["ignore-not-found"]) {
                    continue;
                }
                return Self::missing(cx, resource, &name).await;
            }
            self.scene.kube.delete(resource, &namespace, &name);
            out(cx, format!("{}.{} \"{name}\" deleted\n", resource.kind.to_lowercase(), resource.group)).await;
        }
        0
    }

    async fn describe(&self, cx: &mut ToolCx, words: &Words) -> i32 {
        let (kind, name) = words.word(1).split_once('/').unwrap_or((words.word(1), words.word(2)));
        let Some(resource) = Resource::named(kind) else {
            err(cx, format!("error: the server doesn't have a resource type \"{kind}\"\n")).await;
            return 1;
        };
        let namespace = if resource.namespaced { words.get(&["n", "namespace"]).unwrap_or("default") } else { "" };
        let Some(object) = self.scene.kube.get(resource.plural, namespace, name) else {
            err(cx, format!("Error from server (NotFound): {} \"{name}\" not found\n", resource.plural)).await;
            return 1;
        };
        let body = yaml_serde::to_string(&object["status"]).unwrap_or_default();
        out(cx, format!("Name:         {name}\nKind:         {}\nStatus:\n{body}", resource.kind)).await;
        0
    }

    /// `oc adm release info|extract`.
    async fn release(&self, cx: &mut ToolCx, words: &Words) -> i32 {
        let payload = &self.scene.payload;
        let image = words.word(3).to_owned();
        if !image.is_empty() && !image.contains(&payload.release.digest) && !image.ends_with(&payload.tag()) {
            err(cx, format!("error: unable to read image {image}: manifest unknown: manifest unknown\n")).await;
            return 1;
        }
        match words.word(2) {
            "info" => {
                let text = match words.get(&["o", "output"]) {
                    Some("json") => {
                        let value = json!({
                            "image": if image.is_empty() { Payload::pull_spec(&payload.release) } else { image },
                            "digest": payload.release.digest,
                            "metadata": { "kind": "cincinnati-metadata-v0", "version": payload.version },
                            "references": payload.image_references(),
                        });
                        format!("{value:#}\n")
                    }
                    Some(template) if template.starts_with("template") => format!("{}\n", payload.version),
                    _ => match words.get(&["image-for"]) {
                        Some(name) => match payload.component(name) {
                            Some(image) => format!("{}\n", Payload::pull_spec(image)),
                            None => {
                                err(cx, format!("error: no image tag \"{name}\" exists in the release image\n")).await;
                                return 1;
                            }
                        },
                        None => {
                            let mut text = format!(
                                "Name:           {0}\nDigest:         {1}\nCreated:        2025-03-01T10:00:00Z\nOS/Arch:        linux/amd64\nManifests:      {2}\n\nPull From: {3}\n\nRelease Metadata:\n  Version:  {0}\n\nImages:\n",
                                payload.version,
                                payload.release.digest,
                                payload.components.len(),
                                Payload::pull_spec(&payload.release)
                            );
                            for image in &payload.components {
                                text.push_str(&format!("  {:<48} {}\n", image.name, Payload::pull_spec(image)));
                            }
                            text
                        }
                    },
                };
                out(cx, text).await;
                0
            }
            "extract" if words.has(&["credentials-requests"]) => {
                let folder = path(cx, words.get(&["to"]).unwrap_or("."));
                let included = words.has(&["included"]);
                if let Some(config) =
                    words.get(&["install-config"]).filter(|config| included && read(cx, config).is_none())
                {
                    err(cx, format!("error: open {config}: no such file or directory\n")).await;
                    return 1;
                }
                for (name, text) in credentials::extract(words.get(&["cloud"]), included) {
                    if cx.machine.fs().write(&format!("{folder}/{name}"), text.as_bytes()).is_err() {
                        err(cx, format!("error: open {folder}/{name}: no space left on device\n")).await;
                        return 1;
                    }
                }
                out(cx, format!("Extracted release payload from digest {}\n", payload.release.digest)).await;
                0
            }
            "extract" => {
                let folder = path(cx, words.get(&["to"]).unwrap_or("."));
                if let Some(command) = words.get(&["command"]) {
                    let place = format!("{folder}/{command}");
                    let _ = cx.machine.fs().mkdir_p(&folder);
                    if cx.machine.fs().write(&place, marker(command).as_bytes()).is_err() {
                        err(cx, format!("error: open {place}: no space left on device\n")).await;
                        return 1;
                    }
                    let _ = cx.machine.fs().set_mode(&place, 0o755);
                }
                0
            }
            other => {
                err(cx, format!("error: unknown command \"{other}\" for \"oc adm release\"\n")).await;
                1
            }
        }
    }
}

/// `add` or `replace` of RFC 6902, of a field.
fn set(object: &mut Value, change: &Value) {
    let (Some(path), Some(value)) = (change["path"].as_str(), change.get("value")) else { return };
    let nested = path.rsplit('/').filter(|part| !part.is_empty());
    let patch = nested.fold(value.clone(), |inner, field| json!({ field: inner }));
    oc_write::merge(object, &patch);
}

fn columns(plural: &str) -> Vec<String> {
    let names: &[&str] = match plural {
        "clusteroperators" => &["NAME", "VERSION", "AVAILABLE", "PROGRESSING", "DEGRADED", "SINCE", "MESSAGE"],
        "clusterversions" => &["NAME", "VERSION", "AVAILABLE", "PROGRESSING", "SINCE", "STATUS"],
        "nodes" => &["NAME", "STATUS", "ROLES", "AGE", "VERSION"],
        "certificatesigningrequests" => &["NAME", "AGE", "SIGNERNAME", "REQUESTOR", "REQUESTEDDURATION", "CONDITION"],
        "machines" => &["NAME", "PHASE", "TYPE", "REGION", "ZONE", "AGE"],
        "configmaps" => &["NAME", "DATA", "AGE"],
        "routes" => &["NAME", "HOST/PORT", "PATH", "SERVICES", "PORT", "TERMINATION", "WILDCARD"],
        "events" => &["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"],
        _ => &["NAME", "AGE"],
    };
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn status_of<'v>(object: &'v Value, kind: &str) -> Option<&'v Value> {
    object["status"]["conditions"].as_array()?.iter().find(|one| one["type"] == kind)
}

fn row(plural: &str, object: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = text(&object["metadata"]["name"]);
    let created = age(&text(&object["metadata"]["creationTimestamp"]));
    let field = |kind: &str, field: &str| status_of(object, kind).map(|one| text(&one[field])).unwrap_or_default();
    match plural {
        "clusteroperators" => {
            let message = match (
                field("Available", "status").as_str(),
                field("Degraded", "status").as_str(),
                field("Progressing", "status").as_str(),
            ) {
                ("False", ..) => field("Available", "message"),
                (_, "True", _) => field("Degraded", "message"),
                (.., "True") => field("Progressing", "message"),
                _ => String::new(),
            };
            vec![
                name,
                text(&object["status"]["versions"][0]["version"]),
                field("Available", "status"),
                field("Progressing", "status"),
                field("Degraded", "status"),
                age(&field("Available", "lastTransitionTime")),
                message,
            ]
        }
        "clusterversions" => {
            let done = &object["status"]["history"][0];
            let version = if done["state"] == "Completed" { text(&done["version"]) } else { String::new() };
            vec![
                name,
                version,
                field("Available", "status"),
                field("Progressing", "status"),
                age(&field("Progressing", "lastTransitionTime")),
                field("Progressing", "message"),
            ]
        }
        "nodes" => {
            let mut roles: Vec<&str> = object["metadata"]["labels"]
                .as_object()
                .into_iter()
                .flatten()
                .filter_map(|(label, _)| label.strip_prefix("node-role.kubernetes.io/"))
                .collect();
            roles.sort_unstable();
            let ready = if field("Ready", "status") == "True" { "Ready" } else { "NotReady" };
            vec![name, ready.into(), roles.join(","), created, text(&object["status"]["nodeInfo"]["kubeletVersion"])]
        }
        "certificatesigningrequests" => {
            let state = match (
                has_condition(object, "Approved"),
                has_condition(object, "Denied"),
                object["status"]["certificate"].is_string(),
            ) {
                (_, true, _) => "Denied",
                (true, _, true) => "Approved,Issued",
                (true, ..) => "Approved",
                _ => "Pending",
            };
            vec![
                name,
                created,
                text(&object["spec"]["signerName"]),
                text(&object["spec"]["username"]),
                "<none>".into(),
                state.into(),
            ]
        }
        "machines" => {
            let label = |key: &str| text(&object["metadata"]["labels"][format!("machine.openshift.io/{key}")]);
            vec![
                name,
                text(&object["status"]["phase"]),
                label("instance-type"),
                label("region"),
                label("zone"),
                created,
            ]
        }
        "configmaps" => vec![name, object["data"].as_object().map_or(0, serde_json::Map::len).to_string(), created],
        "routes" => vec![
            name,
            text(&object["spec"]["host"]),
            String::new(),
            "console".into(),
            "https".into(),
            "reencrypt/Redirect".into(),
            "None".into(),
        ],
        "events" => vec![
            created,
            text(&object["type"]),
            text(&object["reason"]),
            format!("namespace/{}", text(&object["metadata"]["namespace"])),
            text(&object["message"]),
        ],
        _ => vec![name, created],
    }
}

/// Time since, as kubectl shortens it.
fn age(since: &str) -> String {
    let Ok(since) = since.parse::<jiff::Timestamp>() else { return String::new() };
    let seconds = jiff::Timestamp::now().duration_since(since).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => format!("{}m{}s", seconds / 60, seconds % 60),
        600..7200 => format!("{}m", seconds / 60),
        _ => format!("{}h", seconds / 3600),
    }
}

/// The part of JSONPath that scripts use: `{.a.b}`, `{.items[*].metadata.name}`, `[?(@.type=="X")]`, plain text between.
fn jsonpath(template: &str, value: &Value) -> String {
    let template = template.trim_matches(['\'', '"']);
    let mut text = String::new();
    let mut rest = template;
    if !rest.contains('{') {
        return find(rest, value);
    }
    while let Some(at) = rest.find('{') {
        text.push_str(rest.get(..at).unwrap_or_default());
        let after = rest.get(at + 1..).unwrap_or_default();
        let end = after.find('}').unwrap_or(after.len());
        let inner = after.get(..end).unwrap_or_default();
        match inner.strip_prefix('"') {
            Some(literal) => text.push_str(&literal.trim_end_matches('"').replace("\\n", "\n").replace("\\t", "\t")),
            None => text.push_str(&find(inner, value)),
        }
        rest = after.get(end + 1..).unwrap_or_default();
    }
    text.push_str(rest);
    text
}

fn find(path: &str, value: &Value) -> String {
    let mut found = vec![value];
    let mut rest = path.trim_start_matches('$');
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let end = after.find(']').unwrap_or(after.len());
            let inside = after.get(..end).unwrap_or_default();
            found = found.into_iter().flat_map(|value| pick(inside, value)).collect();
            rest = after.get(end + 1..).unwrap_or_default();
        } else {
            let after = rest.trim_start_matches('.');
            // A dot in a key is written `\.`.
            let end = (0..after.len()).find(|at| match after.as_bytes().get(*at) {
                Some(b'[') => true,
                Some(b'.') => *at == 0 || after.as_bytes().get(at - 1) != Some(&b'\\'),
                _ => false,
            });
            let (key, next) = after.split_at(end.unwrap_or(after.len()));
            let key = key.replace("\\.", ".");
            if !key.is_empty() {
                found = found.into_iter().filter_map(|value| value.get(&key)).collect();
            }
            if next.len() == rest.len() {
                break;
            }
            rest = next;
        }
    }
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    found.into_iter().map(plain).collect::<Vec<_>>().join(" ")
}

fn pick<'v>(inside: &str, value: &'v Value) -> Vec<&'v Value> {
    if inside == "*" {
        return value.as_array().into_iter().flatten().collect();
    }
    if let Some(condition) = inside.strip_prefix("?(@.").and_then(|text| text.strip_suffix(')')) {
        let (key, wanted) = condition.split_once("==").unwrap_or((condition, ""));
        let wanted = wanted.trim().trim_matches(['"', '\'']);
        return value.as_array().into_iter().flatten().filter(|item| item[key.trim()] == *wanted).collect();
    }
    inside.parse::<usize>().ok().and_then(|index| value.get(index)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_paths_of_scripts() {
        let value = json!({
            "data": { "status": "complete" },
            "items": [{ "metadata": { "name": "a" } }, { "metadata": { "name": "b" } }],
            "status": { "conditions": [{ "type": "X", "status": "True" }] },
        });
        assert_eq!(jsonpath("{.data.status}", &value), "complete");
        assert_eq!(jsonpath("{.items[*].metadata.name}", &value), "a b");
        assert_eq!(jsonpath("'{.status.conditions[?(@.type==\"X\")].status}'", &value), "True");
        assert_eq!(jsonpath("{.items[1].metadata.name}{\"\\n\"}", &value), "b\n");
        assert_eq!(jsonpath("{.nothing.here}", &value), "");
        assert_eq!(crate::lab::ocp::control_plane::kubernetes("4.18.12"), "v1.31.7");
    }
}
