//! `skopeo inspect`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Words, err, home, net, out, path, read};
use crate::lab::machines::{Tool, ToolCx};
use crate::lab::ocp::cluster::Scene;
use crate::lab::ocp::payload::MANIFEST_TYPE;
use crate::lab::ocp::pull::PullConfig;

pub struct Skopeo(pub Arc<Scene>);

#[async_trait]
impl Tool for Skopeo {
    fn name(&self) -> &'static str {
        "skopeo"
    }

    fn on(&self, host: &str) -> bool {
        host == "bastion" || host.starts_with("master-") || host.starts_with("worker-")
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
        if let Some(cluster) = self.0.any_cluster().filter(|_| net::is_node(&cx.machine)) {
            return on_node(&mut cx, &cluster.assets.pull, &image).await;
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

/// With the node's own mirror rules, trust and account; `--debug` tells which places were asked.
async fn on_node(cx: &mut ToolCx, pull: &PullConfig, image: &str) -> i32 {
    let repository = image.split('@').next().unwrap_or_default();
    let at = super::super::kube_store::now();
    let mut text = String::new();
    for (source, mirrors) in pull.mirrors.iter().filter(|(source, _)| repository.starts_with(source.as_str())) {
        for mirror in mirrors {
            let place = image.replacen(source.as_str(), mirror, 1);
            text.push_str(&format!("time=\"{at}\" level=debug msg=\"Trying to access \\\"{place}\\\"\"\n"));
        }
    }
    let status = match pull.pull(&cx.machine, image).await {
        Ok(()) => 0,
        Err(why) => {
            text.push_str(&format!("time=\"{at}\" level=debug msg=\"Trying to access \\\"{image}\\\"\"\n"));
            text.push_str(&format!(
                "time=\"{at}\" level=fatal msg=\"Error parsing image name: {}\"\n",
                why.replace('"', "\\\"")
            ));
            1
        }
    };
    err(cx, text).await;
    status
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
