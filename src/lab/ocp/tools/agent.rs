//! `bartizan agent REQUEST.json` on the lab's bastion: the product's own copier, in this process, with the bastion's files
//! and with the names of the lab.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::{err, out, path, read};
use crate::lab::machines::{Machine, Tool, ToolCx};
use crate::lab::ocp::cluster::Scene;
use crate::registry::agent::{self, Request};
use crate::registry::client::Net;

pub struct Bartizan(pub Arc<Scene>);

#[async_trait]
impl Tool for Bartizan {
    fn name(&self) -> &'static str {
        "bartizan"
    }

    fn on(&self, host: &str) -> bool {
        host == "bastion"
    }

    async fn run(&self, mut cx: ToolCx) -> i32 {
        match cx.args.first().map(String::as_str) {
            Some("--version" | "-V") => {
                out(&mut cx, format!("bartizan {}\n", env!("CARGO_PKG_VERSION"))).await;
                0
            }
            Some("agent") => {
                let file = cx.args.get(1).cloned().unwrap_or_default();
                let request = read(&cx, &file)
                    .ok_or_else(|| format!("{file}: no such file"))
                    .and_then(|text| serde_json::from_str::<Value>(&text).map_err(|why| format!("{file}: {why}")))
                    .and_then(|request| here(&cx, request).map_err(|why| format!("{file}: {why}")));
                match request {
                    Ok(request) => {
                        let net = net(&self.0, &request.mirror, &cx.machine);
                        i32::from(agent::run(request, net, &mut cx.stdout, cx.cancel.clone()).await)
                    }
                    Err(why) => {
                        err(&mut cx, format!("bartizan agent: {why}\n")).await;
                        2
                    }
                }
            }
            // The lab's registries post no notifications.
            Some("listen") => {
                cx.cancel.cancelled().await;
                0
            }
            _ => {
                err(&mut cx, "error: the lab's bastion only knows `bartizan agent REQUEST`\n").await;
                2
            }
        }
    }
}

/// The request with the paths of the bastion's files as this process reaches them.
fn here(cx: &ToolCx, mut request: Value) -> Result<Request, String> {
    let real = |value: &mut Value| -> Result<(), String> {
        if let Some(text) = value.as_str() {
            let place = cx.machine.fs().real(&path(cx, text)).map_err(|why| format!("{text}: {why}"))?;
            *value = Value::String(place.display().to_string());
        }
        Ok(())
    };
    for key in ["authfile", "outputs"] {
        if let Some(value) = request.get_mut(key) {
            real(value)?;
        }
    }
    for key in ["source_ca", "mirror_ca"] {
        for value in request.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
            real(value)?;
        }
    }
    serde_json::from_value(request).map_err(|why| why.to_string())
}

/// The network as the bastion sees it. `registry` is the mirror's `host:port`.
pub fn net(scene: &Scene, registry: &str, machine: &Machine) -> Net {
    let mut resolve = vec![("quay.io".to_owned(), scene.source)];
    let (host, port) = registry.rsplit_once(':').unwrap_or((registry, "443"));
    if let Some(address) = port.parse().ok().and_then(|port| super::net::resolve(scene, host, port)) {
        resolve.push((registry.to_owned(), address));
    }
    Net { roots: vec![super::net::anchors(scene, machine)], resolve, ..Net::default() }
}
