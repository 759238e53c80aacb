//! The lab's programs: each prints what the real one prints, as far as people and scripts look at it.

pub mod agent;
mod ignition;
pub mod images;
pub mod installer;
pub mod mirroring;
pub mod net;
pub mod oc;
mod oc_write;
pub mod podman;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::cluster::Scene;
use crate::lab::machines::{Tool, ToolCx};

/// All of them.
pub fn all(scene: &Arc<Scene>) -> Vec<Arc<dyn Tool>> {
    vec![
        Arc::new(installer::Installer(scene.clone())),
        Arc::new(oc::Oc { scene: scene.clone(), name: "oc" }),
        Arc::new(oc::Oc { scene: scene.clone(), name: "kubectl" }),
        Arc::new(mirroring::OcMirror(scene.clone())),
        Arc::new(images::Skopeo(scene.clone())),
        Arc::new(podman::Podman(scene.clone())),
        Arc::new(podman::RegistryBinary { scene: scene.clone(), name: "docker-registry" }),
        Arc::new(podman::RegistryBinary { scene: scene.clone(), name: "registry" }),
        Arc::new(net::Curl(scene.clone())),
        Arc::new(net::Dig(scene.clone())),
        Arc::new(net::Getent(scene.clone())),
        Arc::new(net::Nc(scene.clone())),
        Arc::new(net::Openssl(scene.clone())),
        Arc::new(net::Crictl(scene.clone())),
        Arc::new(agent::Bartizan(scene.clone())),
    ]
}

/// Writing to a stream whose reader may be gone is no error of a tool.
pub(super) async fn out(cx: &mut ToolCx, text: impl AsRef<str>) {
    let _ = cx.stdout.write_all(text.as_ref().as_bytes()).await;
    let _ = cx.stdout.flush().await;
}

pub(super) async fn err(cx: &mut ToolCx, text: impl AsRef<str>) {
    let _ = cx.stderr.write_all(text.as_ref().as_bytes()).await;
    let _ = cx.stderr.flush().await;
}

pub(super) async fn input(cx: &mut ToolCx) -> String {
    let mut text = Vec::new();
    // What was read before an error is what there is.
    let _ = (&mut cx.stdin).take(1 << 20).read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}

/// A path as the tool's working directory sees it.
pub(super) fn path(cx: &ToolCx, path: &str) -> String {
    let path = path.strip_prefix("file://").unwrap_or(path);
    let full = match (path.strip_prefix('/'), path.strip_prefix("~/")) {
        (Some(_), _) => path.to_owned(),
        (None, Some(rest)) => format!("{}/{rest}", home(cx)),
        (None, None) => format!("{}/{path}", cx.cwd),
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in full.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    format!("/{}", parts.join("/"))
}

pub(super) fn home(cx: &ToolCx) -> String {
    cx.env.get("HOME").cloned().unwrap_or_else(|| format!("/home/{}", cx.user))
}

pub(super) fn read(cx: &ToolCx, file: &str) -> Option<String> {
    let bytes = cx.machine.fs().read(&path(cx, file)).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// A command line taken apart: options (with or without a value) and the other words.
#[derive(Debug, Default)]
pub(super) struct Words {
    options: BTreeMap<String, Vec<String>>,
    pub plain: Vec<String>,
}

impl Words {
    /// `valued` are the options (without dashes) that take the next word when there is no `=`. After the first plain
    /// word that `stop` accepts, everything is plain.
    pub fn parse(args: &[String], valued: &[&str]) -> Self {
        let mut words = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if arg == "--" {
                words.plain.extend(args.by_ref().cloned());
                break;
            }
            let Some(name) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-').filter(|rest| !rest.is_empty()))
            else {
                words.plain.push(arg.clone());
                continue;
            };
            let (name, value) = match name.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                None if valued.contains(&name) => (name.to_owned(), args.next().cloned().unwrap_or_default()),
                // `-oyaml`, `-p5000:5000`: the value directly after a one-letter option.
                None if !arg.starts_with("--")
                    && name.len() > 1
                    && name.get(..1).is_some_and(|first| valued.contains(&first)) =>
                {
                    (name.get(..1).unwrap_or_default().to_owned(), name.get(1..).unwrap_or_default().to_owned())
                }
                None => (name.to_owned(), String::new()),
            };
            words.options.entry(name).or_default().push(value);
        }
        words
    }

    pub fn has(&self, names: &[&str]) -> bool {
        names
            .iter()
            .any(|name| self.options.get(*name).is_some_and(|values| values.iter().all(|value| value != "false")))
    }

    pub fn get(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.options.get(*name)?.last().map(String::as_str))
    }

    pub fn all(&self, names: &[&str]) -> Vec<&str> {
        names.iter().filter_map(|name| self.options.get(*name)).flatten().map(String::as_str).collect()
    }

    pub fn word(&self, index: usize) -> &str {
        self.plain.get(index).map_or("", String::as_str)
    }
}

/// Columns as kubectl and podman print them.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (index, cell) in row.iter().enumerate() {
            match widths.get_mut(index) {
                Some(width) => *width = (*width).max(cell.len()),
                None => widths.push(cell.len()),
            }
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}   "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_words_are_told_apart() {
        let args: Vec<String> =
            ["get", "co", "-ojson", "--kubeconfig=/k", "-n", "kube-system", "-k"].map(str::to_owned).to_vec();
        let words = Words::parse(&args, &["o", "n", "kubeconfig"]);
        assert_eq!(words.plain, ["get", "co"]);
        assert_eq!(words.get(&["o", "output"]), Some("json"));
        assert_eq!(words.get(&["n"]), Some("kube-system"));
        assert!(words.has(&["k"]) && !words.has(&["w"]));
    }
}
