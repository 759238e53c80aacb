//! `oc-mirror --v2` and `oc adm release mirror`. Both really copy, and print what the real ones print when there is no
//! terminal.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{Words, err, home, out, path, read};
use crate::lab::machines::{Tool, ToolCx};
use crate::lab::ocp::cluster::Scene;
use crate::lab::ocp::payload::{COMPONENT_REPOSITORY, Image, Payload, RELEASE_REPOSITORY};
use crate::registry::agent::{self, Request};

/// A copy under way: what became of each image, as it becomes known.
struct Copying {
    lines: tokio::io::Lines<BufReader<tokio::io::DuplexStream>>,
    end: tokio::task::JoinHandle<u8>,
    /// The copier wants a file that nobody else reads.
    _authfile: tempfile::NamedTempFile,
}

/// What the copier said.
enum Told {
    Copied(String),
    Failed { image: String, why: String },
    Error(String),
}

impl Copying {
    fn start(scene: &Arc<Scene>, cx: &ToolCx, authfile: &str, to: (&str, &str, &str)) -> Result<Self, String> {
        let (registry, release, components) = to;
        let private = tempfile::NamedTempFile::new_in(&scene.dir).and_then(|file| {
            std::fs::write(file.path(), read(cx, authfile).unwrap_or_default())?;
            Ok(file)
        });
        let private = private.map_err(|why| format!("unable to read the auth file: {why}"))?;
        let request = json!({
            "action": "sync",
            "source": format!("quay.io/{RELEASE_REPOSITORY}:{}", scene.payload.tag()),
            "mirror": registry,
            "release_repository": release,
            "component_repository": components,
            "authfile": private.path(),
        });
        let request: Request = serde_json::from_value(request).map_err(|why| why.to_string())?;
        let mut lab = super::agent::net(scene, registry, &cx.machine);
        // Go reads this in place of the system's bundle.
        lab.roots
            .extend(cx.env.get("SSL_CERT_FILE").and_then(|file| read(cx, file)).filter(|pem| pem.contains("BEGIN")));
        let (writer, reader) = tokio::io::duplex(1 << 16);
        let cancel = cx.cancel.clone();
        let end = tokio::spawn(async move { agent::run(request, lab, writer, cancel).await });
        Ok(Self { lines: BufReader::new(reader).lines(), end, _authfile: private })
    }

    async fn next(&mut self) -> Option<Told> {
        loop {
            let line = self.lines.next_line().await.ok()??;
            let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
            if let Some(why) = message["error"]["why"].as_str() {
                return Some(Told::Error(why.to_owned()));
            }
            let sync = &message["sync"];
            if sync["sync"] != "image-state" {
                continue;
            }
            let image = sync["image"].as_str().unwrap_or_default().to_owned();
            match sync["state"]["is"].as_str() {
                Some("done" | "present") => return Some(Told::Copied(image)),
                Some("failed") => {
                    let why = sync["state"]["why"].as_str().unwrap_or_default().to_owned();
                    return Some(Told::Failed { image, why });
                }
                _ => {}
            }
        }
    }

    async fn ended_well(self) -> bool {
        self.end.await.is_ok_and(|code| code == 0)
    }
}

pub struct OcMirror(pub Arc<Scene>);

const VALUED: &[&str] = &[
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

#[async_trait]
impl Tool for OcMirror {
    fn name(&self) -> &'static str {
        "oc-mirror"
    }

    fn on(&self, host: &str) -> bool {
        host == "bastion"
    }

    async fn run(&self, mut cx: ToolCx) -> i32 {
        let words = Words::parse(&cx.args, VALUED);
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
        if cx.env.keys().any(|name| name.starts_with("REGISTRY_AUTH_")) {
            err(&mut cx, "panic: configuring application: unable to configure authorization (file): no authorization handler registered\n").await;
            return 2;
        }
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
        say(&mut cx, "INFO", &format!("Success collecting release {release}")).await;
        if words.has(&["dry-run"]) {
            return self.dry_run(&mut cx, &words, &target).await;
        }
        self.copy(&mut cx, &words, &target).await
    }
}

impl OcMirror {
    /// Where oc-mirror puts an image.
    fn place(&self, image: &Image, target: &str) -> String {
        let tag = self.0.payload.tag();
        if image.repository == RELEASE_REPOSITORY {
            format!("{target}/openshift/release-images:{tag}")
        } else {
            format!("{target}/openshift/release:{tag}-{}", image.name)
        }
    }

    async fn dry_run(&self, cx: &mut ToolCx, words: &Words, target: &str) -> i32 {
        let line = |image| format!("docker://{}=docker://{}\n", Payload::pull_spec(image), self.place(image, target));
        let text: String = self.0.payload.images().map(line).collect();
        let file = format!("{}/working-dir/dry-run/mapping.txt", path(cx, words.get(&["workspace"]).unwrap_or(".")));
        if let Err(why) = cx.machine.fs().write(&file, text.as_bytes()) {
            say(cx, "ERROR", &format!("[Executor] {why}")).await;
            return 1;
        }
        say(cx, "INFO", &format!("📄 list of all images for mirroring in : {file}")).await;
        say(cx, "INFO", "👋 Goodbye, thank you for using oc-mirror").await;
        0
    }

    async fn copy(&self, cx: &mut ToolCx, words: &Words, target: &str) -> i32 {
        let authfile =
            words.get(&["authfile"]).map_or_else(|| format!("{}/.docker/config.json", home(cx)), str::to_owned);
        let (registry, prefix) =
            target.split_once('/').map_or((target, String::new()), |(registry, rest)| (registry, format!("{rest}/")));
        let repositories = (format!("{prefix}openshift/release-images"), format!("{prefix}openshift/release"));
        let to = (registry, repositories.0.as_str(), repositories.1.as_str());
        let mut copying = match Copying::start(&self.0, cx, &authfile, to) {
            Ok(copying) => copying,
            Err(why) => {
                say(cx, "ERROR", &why).await;
                return 1;
            }
        };
        say(cx, "INFO", "🚀 Start copying the images...").await;
        let total = self.0.payload.images().count();
        say(cx, "INFO", &format!("📌 images to copy {total}")).await;
        let started = Instant::now();
        let (mut done, mut failures) = (0, String::new());
        let origin = |name: &str| self.0.payload.component(name).map_or_else(|| name.to_owned(), Payload::pull_spec);
        while let Some(told) = copying.next().await {
            match told {
                Told::Error(why) => say(cx, "ERROR", &format!("[Executor] {why}")).await,
                Told::Copied(image) => {
                    done += 1;
                    say(cx, "INFO", &format!("Success copying {} ➡️  {target}/openshift/", origin(&image))).await;
                }
                Told::Failed { image, why } => {
                    let origin = origin(&image);
                    say(cx, "ERROR", &format!("Failed to copy ocpReleaseContent {origin}")).await;
                    failures.push_str(&format!("error mirroring image {origin} error: {why}\n"));
                }
            }
        }
        let good = copying.ended_well().await;
        say(cx, "INFO", "=== Results ===").await;
        if good {
            say(cx, "INFO", &format!(" ✓  {total} / {total} release images mirrored successfully")).await;
            self.resources(cx, words, target).await;
        } else {
            let line = format!(
                " ✗  {done} / {total} release images mirrored: Some release images failed to be mirrored - please check the logs"
            );
            say(cx, "INFO", &line).await;
            for failure in failures.lines() {
                say(cx, "ERROR", &format!("[Worker] {failure}")).await;
            }
            let at = jiff::Zoned::now().strftime("%Y%m%d_%H%M%S").to_string();
            let workspace = path(cx, words.get(&["workspace"]).unwrap_or("."));
            let file = format!("{workspace}/working-dir/logs/mirroring_errors_{at}.txt");
            // On a full disk the lines above are all there is.
            let _ = cx.machine.fs().write(&file, failures.as_bytes());
        }
        say(cx, "INFO", &format!("mirror time     : {:.1?}", started.elapsed())).await;
        say(cx, "INFO", "👋 Goodbye, thank you for using oc-mirror").await;
        if good { 0 } else { 2 }
    }

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

/// `oc adm release mirror --from=… --to=REG/REPO --to-release-image=REG/REPO:TAG`: all manifests at its end.
pub(super) async fn oc_adm_release_mirror(scene: &Arc<Scene>, cx: &mut ToolCx, words: &Words) -> i32 {
    let to = words.get(&["to"]).unwrap_or_default().to_owned();
    let release = words.get(&["to-release-image"]).unwrap_or_default().to_owned();
    let (Some((registry, components)), Some(from)) = (to.split_once('/'), words.get(&["from"])) else {
        err(cx, "error: must specify --from and --to\n").await;
        return 1;
    };
    if !from.ends_with(&scene.payload.tag()) && !from.ends_with(&scene.payload.release.digest) {
        err(cx, format!("error: unable to retrieve release image info: unable to read image {from}: manifest unknown: manifest unknown\n")).await;
        return 1;
    }
    let release_repository = release
        .strip_prefix(&format!("{registry}/"))
        .and_then(|rest| Some(rest.rsplit_once(':')?.0.to_owned()))
        .unwrap_or_else(|| components.to_owned());
    let authfile =
        words.get(&["a", "registry-config"]).map_or_else(|| format!("{}/.docker/config.json", home(cx)), str::to_owned);
    let images: Vec<&Image> = scene.payload.images().collect();
    err(cx, format!("info: Mirroring {} images to {to} ...\n", images.len())).await;
    let started = Instant::now();
    let mut copying = match Copying::start(scene, cx, &authfile, (registry, &release_repository, components)) {
        Ok(copying) => copying,
        Err(why) => {
            err(cx, format!("error: {why}\n")).await;
            return 1;
        }
    };
    err(cx, format!("info: Planning completed in {:.2?}\n", started.elapsed())).await;
    let mut copied = Vec::new();
    while let Some(told) = copying.next().await {
        match told {
            Told::Copied(image) => copied.push(image),
            Told::Error(why) => err(cx, format!("error: {why}\n")).await,
            Told::Failed { image, why } => {
                let digest = scene.payload.component(&image).map(|image| image.digest.clone()).unwrap_or_default();
                err(cx, format!("error: unable to retrieve source image quay.io/{COMPONENT_REPOSITORY} manifest {digest}: {why}\n")).await;
            }
        }
    }
    let tag = scene.payload.tag();
    for image in images.iter().filter(|image| copied.contains(&image.name)) {
        let place =
            if image.repository == RELEASE_REPOSITORY { release.clone() } else { format!("{to}:{tag}-{}", image.name) };
        out(cx, format!("{} {place}\n", image.digest)).await;
    }
    err(cx, format!("info: Mirroring completed in {:.2?} (0B/s)\n", started.elapsed())).await;
    if !copying.ended_well().await {
        err(cx, "error: one or more errors occurred while uploading images\n").await;
        return 1;
    }
    out(cx, format!("\nSuccess\nUpdate image:  {release}\nMirror prefix: {to}\n")).await;
    0
}
