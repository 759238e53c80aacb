//! `oc-mirror --v2` and `skopeo inspect`. oc-mirror really copies, with its own lines when there is no terminal.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{Words, err, home, net, out, path, read};
use crate::lab::machines::{Tool, ToolCx};
use crate::lab::ocp::cluster::Scene;
use crate::lab::ocp::payload::{COMPONENT_REPOSITORY, MANIFEST_TYPE, Payload, RELEASE_REPOSITORY};
use crate::registry::agent::{self, Request};

pub struct OcMirror(pub Arc<Scene>);

#[async_trait]
impl Tool for OcMirror {
    fn name(&self) -> &'static str {
        "oc-mirror"
    }

    fn on(&self, host: &str) -> bool {
        host == "bastion"
    }

    async fn run(&self, mut cx: ToolCx) -> i32 {
        let valued = [
            "c",
            "config",
            "workspace",
            "authfile",
            "parallel-images",
            "parallel-layers",
            "retry-times",
            "retry-delay",
            "image-timeout",
            "cache-dir",
            "log-level",
            "p",
            "port",
        ];
        let words = Words::parse(&cx.args, &valued);
        let version = self.0.payload.version.clone();
        if words.word(0) == "version" {
            out(&mut cx, format!("Client Version: version.Info{{Major:\"\", Minor:\"\", GitVersion:\"{version}\", GoVersion:\"go1.22.12\"}}\n")).await;
            return 0;
        }
        if !words.has(&["v2"]) {
            say(&mut cx, "ERROR", "One of --v1 or --v2 is required").await;
            return 1;
        }
        let target = words.plain.iter().find_map(|word| word.strip_prefix("docker://")).unwrap_or_default().to_owned();
        let config = words.get(&["c", "config"]).and_then(|file| read(&cx, file));
        if target.is_empty() || config.is_none() {
            say(&mut cx, "ERROR", "use the --config flag and a docker:// destination").await;
            return 1;
        }
        let authfile =
            words.get(&["authfile"]).map_or_else(|| format!("{}/.docker/config.json", home(&cx)), str::to_owned);
        for line in [
            "👋 Hello, welcome to oc-mirror",
            "⚙️  setting up the environment for you...",
            "🔀 workflow mode: mirrorToMirror",
            "🕵️  going to discover the necessary images...",
            "🔍 collecting release images...",
        ] {
            say(&mut cx, "INFO", line).await;
        }
        let release = format!("quay.io/{RELEASE_REPOSITORY}:{}", self.0.payload.tag());
        let (registry, prefix) = target
            .split_once('/')
            .map_or((target.as_str(), String::new()), |(registry, rest)| (registry, format!("{rest}/")));
        let request = json!({
            "action": "sync",
            "source": release,
            "mirror": registry,
            "release_repository": format!("{prefix}openshift/release-images"),
            "component_repository": format!("{prefix}openshift/release"),
            "authfile": super::agent::real(&cx, &authfile),
        });
        let request: Request = match serde_json::from_value(request) {
            Ok(request) => request,
            Err(why) => {
                say(&mut cx, "ERROR", &why.to_string()).await;
                return 1;
            }
        };
        say(&mut cx, "INFO", &format!("Success collecting release {release}")).await;
        say(&mut cx, "INFO", "🚀 Start copying the images...").await;
        let total = self.0.payload.images().count();
        say(&mut cx, "INFO", &format!("📌 images to copy {total}")).await;
        let lab = super::agent::net(&self.0, registry, &cx.machine);
        let (writer, reader) = tokio::io::duplex(1 << 16);
        let cancel = cx.cancel.clone();
        let copying = tokio::spawn(async move { agent::run(request, lab, writer, cancel).await });
        let started = std::time::Instant::now();
        let mut lines = BufReader::new(reader).lines();
        let mut done = 0;
        while let Ok(Some(line)) = lines.next_line().await {
            let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
            let sync = &message["sync"];
            if sync["sync"] != "image-state" {
                continue;
            }
            let name = sync["image"].as_str().unwrap_or_default();
            let origin = self.0.payload.component(name).map_or_else(|| name.to_owned(), Payload::pull_spec);
            match sync["state"]["is"].as_str() {
                Some("done" | "present") => {
                    done += 1;
                    say(&mut cx, "INFO", &format!("Success copying {origin} ➡️ {target}/openshift/")).await;
                }
                Some("failed") => {
                    say(&mut cx, "ERROR", &format!("Failed to copy ocpReleaseContent {origin}")).await;
                    let why = sync["state"]["why"].as_str().unwrap_or_default();
                    say(&mut cx, "ERROR", &format!("[Worker] error mirroring image {origin} error: {why}")).await;
                }
                _ => {}
            }
        }
        let good = copying.await.is_ok_and(|code| code == 0);
        say(&mut cx, "INFO", "=== Results ===").await;
        if good {
            say(&mut cx, "INFO", &format!(" ✓  {total} / {total} release images mirrored successfully")).await;
            self.resources(&mut cx, &words, &target).await;
        } else {
            let line = format!(
                " ✗  {done} / {total} release images mirrored: Some release images failed to be mirrored - please check the logs"
            );
            say(&mut cx, "INFO", &line).await;
        }
        say(&mut cx, "INFO", &format!("mirror time     : {:.1?}", started.elapsed())).await;
        say(&mut cx, "INFO", "👋 Goodbye, thank you for using oc-mirror").await;
        if good { 0 } else { 2 }
    }
}

impl OcMirror {
    async fn resources(&self, cx: &mut ToolCx, words: &Words, target: &str) {
        say(cx, "INFO", "📄 Generating IDMS file...").await;
        let rule = |source: &str, mirror: &str| json!({ "source": format!("quay.io/{source}"), "mirrors": [format!("{target}/openshift/{mirror}")] });
        let idms = json!({
            "apiVersion": "config.openshift.io/v1",
            "kind": "ImageDigestMirrorSet",
            "metadata": { "name": "idms-release-0" },
            "spec": { "imageDigestMirrors": [rule(COMPONENT_REPOSITORY, "release"), rule(RELEASE_REPOSITORY, "release-images")] },
        });
        let workspace = path(cx, words.get(&["workspace"]).unwrap_or("."));
        let file = format!("{workspace}/working-dir/cluster-resources/idms-oc-mirror.yaml");
        let text = yaml_serde::to_string(&idms).unwrap_or_default();
        if cx.machine.fs().write(&file, text.as_bytes()).is_ok() {
            say(cx, "INFO", &format!("{file} file created")).await;
        }
    }
}

/// A line as Go's `log` and oc-mirror's colours make it, terminal or not.
async fn say(cx: &mut ToolCx, level: &str, text: &str) {
    let at = jiff::Zoned::now().strftime("%Y/%m/%d %H:%M:%S");
    let (colour, pad) = if level == "ERROR" { ("1;91", "") } else { ("1;94", " ") };
    out(cx, format!("{at} \u{1b}[{colour}m [{level}] {pad}\u{1b}[0m : {text}\n")).await;
}

pub struct Skopeo(pub Arc<Scene>);

#[async_trait]
impl Tool for Skopeo {
    fn name(&self) -> &'static str {
        "skopeo"
    }

    fn on(&self, host: &str) -> bool {
        host == "bastion"
    }

    async fn run(&self, mut cx: ToolCx) -> i32 {
        let words = Words::parse(&cx.args, &["authfile", "creds", "cert-dir", "format", "retry-times"]);
        if words.has(&["version", "v"]) {
            out(&mut cx, "skopeo version 1.16.1\n").await;
            return 0;
        }
        let image = words.word(1).trim_start_matches("docker://").to_owned();
        if words.word(0) != "inspect" || image.is_empty() {
            err(&mut cx, "the lab's skopeo only knows `inspect`\n").await;
            return 1;
        }
        let (registry, rest) = image.split_once('/').unwrap_or((image.as_str(), ""));
        let (repository, reference) = match rest.split_once('@') {
            Some(found) => found,
            None => rest.rsplit_once(':').unwrap_or((rest, "latest")),
        };
        let user = words
            .get(&["creds"])
            .and_then(|text| text.split_once(':'))
            .map(|(user, password)| (user.to_owned(), password.to_owned()));
        let user = user.or_else(|| account(&cx, &words, registry));
        let mut ca = String::new();
        if let Some(folder) = words.get(&["cert-dir"]).map(|folder| path(&cx, folder)) {
            for file in cx.machine.fs().list(&folder).unwrap_or_default().iter().filter(|file| file.ends_with(".crt")) {
                ca.push_str(&read(&cx, &format!("{folder}/{file}")).unwrap_or_default());
            }
        }
        let url = format!("https://{registry}/v2/{repository}/manifests/{reference}");
        let mut asked = net::Asked {
            method: "GET",
            url: &url,
            headers: vec![("accept".into(), MANIFEST_TYPE.into())],
            user: user.clone(),
            ca: Some(ca),
            insecure: words.get(&["tls-verify"]) == Some("false"),
            timeout: Duration::from_secs(30),
        };
        if registry == "quay.io" {
            let realm = format!("https://quay.io/v2/auth?service=quay.io&scope=repository:{repository}:pull");
            let token = net::Asked { url: &realm, headers: Vec::new(), ca: None, ..asked };
            let token: Value = match net::ask(&self.0, &cx.machine, &token).await {
                Ok(answer) => answer.json().await.unwrap_or_default(),
                Err(_) => Value::Null,
            };
            let bearer = format!("Bearer {}", token["token"].as_str().unwrap_or_default());
            asked = net::Asked {
                method: "GET",
                url: &url,
                headers: vec![("accept".into(), MANIFEST_TYPE.into()), ("authorization".into(), bearer)],
                user: None,
                ca: None,
                insecure: false,
                timeout: Duration::from_secs(30),
            };
        }
        let failed = |why: String| {
            format!(
                "time=\"{}\" level=fatal msg=\"Error parsing image name \\\"docker://{image}\\\": {why}\"\n",
                super::super::kube_store::now()
            )
        };
        let answer = match net::ask(&self.0, &cx.machine, &asked).await {
            Ok(answer) => answer,
            Err((60, _)) => {
                let why = format!(
                    "pinging container registry {registry}: Get \\\"https://{registry}/v2/\\\": tls: failed to verify certificate: x509: certificate signed by unknown authority"
                );
                err(&mut cx, failed(why)).await;
                return 1;
            }
            Err((_, why)) => {
                err(&mut cx, failed(format!("pinging container registry {registry}: {why}"))).await;
                return 1;
            }
        };
        let status = answer.status().as_u16();
        if status != 200 {
            let why = if status == 401 { "unauthorized: authentication required" } else { "manifest unknown" };
            err(&mut cx, failed(format!("reading manifest {reference} in {registry}/{repository}: {why}"))).await;
            return 1;
        }
        let bytes = answer.bytes().await.unwrap_or_default();
        let digest = crate::lab::ocp::payload::digest(&bytes);
        let manifest: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let text = if words.has(&["raw"]) {
            String::from_utf8_lossy(&bytes).into_owned()
        } else if words.get(&["format"]).is_some_and(|format| format.contains("Digest")) {
            format!("{digest}\n")
        } else {
            let layers: Vec<&Value> =
                manifest["layers"].as_array().into_iter().flatten().map(|layer| &layer["digest"]).collect();
            format!(
                "{:#}\n",
                json!({ "Name": format!("{registry}/{repository}"), "Digest": digest, "RepoTags": [], "Architecture": "amd64", "Os": "linux", "Layers": layers })
            )
        };
        out(&mut cx, text).await;
        0
    }
}

/// User and password for a registry from an auth file.
fn account(cx: &ToolCx, words: &Words, registry: &str) -> Option<(String, String)> {
    use base64::Engine;
    let file = match words.get(&["authfile"]).or_else(|| cx.env.get("REGISTRY_AUTH_FILE").map(String::as_str)) {
        Some(file) => file.to_owned(),
        None => format!("{}/.docker/config.json", home(cx)),
    };
    let auths: Value = serde_json::from_str(&read(cx, &file)?).ok()?;
    let auth = auths["auths"][registry]["auth"].as_str()?;
    let text = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(auth).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}
