//! What `oc` changes in the lab's cluster: `apply` and `adm upgrade`; and `debug`, which runs a command on a node.

use std::sync::Arc;

use serde::Deserialize as _;
use serde_json::{Value, json};

use super::{Words, err, out, read};
use crate::lab::machines::ToolCx;
use crate::lab::ocp::cluster::Scene;
use crate::lab::ocp::day_two;
use crate::lab::ocp::kube_store::Resource;

/// `oc apply -f FILE`.
pub(super) async fn apply(scene: &Scene, cx: &mut ToolCx, words: &Words) -> i32 {
    let file = words.get(&["f", "filename"]).unwrap_or_default().to_owned();
    let Some(text) = read(cx, &file) else {
        err(cx, format!("error: the path {file:?} does not exist\n")).await;
        return 1;
    };
    let objects: Result<Vec<Value>, _> =
        yaml_serde::Deserializer::from_str(&text).map(Value::deserialize).collect::<Result<_, yaml_serde::Error>>();
    let Ok(objects) = objects else {
        err(cx, format!("error: error parsing {file}: error converting YAML to JSON\n")).await;
        return 1;
    };
    for object in objects {
        let field = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (kind, name, version) = (field("/kind"), field("/metadata/name"), field("/apiVersion"));
        let Some(resource) = Resource::named(&kind) else {
            let mapping = format!("no matches for kind \"{kind}\" in version \"{version}\"");
            err(cx, format!("error: resource mapping not found for name: \"{name}\" namespace: \"\": {mapping}\n"))
                .await;
            return 1;
        };
        let old = scene.kube.get(resource.plural, &field("/metadata/namespace"), &name);
        let mut whole = old.as_deref().cloned().unwrap_or_default();
        merge(&mut whole, &object);
        scene.kube.put(resource, whole);
        let done = if old.is_some() { "configured" } else { "created" };
        out(cx, format!("{}/{name} {done}\n", kind.to_lowercase())).await;
    }
    0
}

/// RFC 7386.
pub(super) fn merge(object: &mut Value, change: &Value) {
    let Value::Object(changes) = change else {
        object.clone_from(change);
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    let Some(fields) = object.as_object_mut() else { return };
    for (key, change) in changes {
        match change {
            Value::Null => drop(fields.remove(key)),
            change => merge(fields.entry(key.clone()).or_insert(Value::Null), change),
        }
    }
}

/// `oc adm upgrade --to-image`.
pub(super) async fn upgrade(scene: &Arc<Scene>, cx: &mut ToolCx, words: &Words) -> i32 {
    let image = words.get(&["to-image"]).unwrap_or_default().to_owned();
    if !words.has(&["allow-explicit-upgrade"]) {
        let why = "the requested upgrade image is not one of the available updates";
        err(cx, format!("error: {why}, you must pass --allow-explicit-upgrade to continue\n")).await;
        return 1;
    }
    day_two::upgrade(scene, &image);
    out(cx, format!("Requested update to release image {image}\n")).await;
    0
}

/// `oc debug node/NAME -- chroot /host COMMAND…`.
pub(super) async fn debug(scene: &Arc<Scene>, cx: &mut ToolCx, words: &Words) -> i32 {
    let wanted = words.word(1).strip_prefix("node/").unwrap_or_default().to_owned();
    let cluster = scene.any_cluster();
    let found = cluster.and_then(|cluster| {
        let node = cluster.assets.nodes.iter().find(|node| node.node == wanted)?.clone();
        Some((cluster, node))
    });
    let Some((cluster, node)) = found else {
        err(cx, format!("Error from server (NotFound): nodes \"{wanted}\" not found\n")).await;
        return 1;
    };
    let machine = match scene.boot(&cluster, &node).await {
        Ok(machine) => machine,
        Err(why) => {
            err(cx, format!("error: unable to create the debug pod: {why}\n")).await;
            return 1;
        }
    };
    let _ = machine.fs().mkdir_p("/var/lib/kubelet");
    let _ = machine.fs().write("/var/lib/kubelet/config.json", cluster.assets.pull.pull_secret.as_bytes());
    err(cx, format!("Starting pod/{}-debug ...\nTo use host binaries, run `chroot /host`\n", wanted.replace('.', "-")))
        .await;
    let command: Vec<String> = words.plain.iter().skip(2).cloned().collect();
    let command = command.strip_prefix(&["chroot".to_owned(), "/host".to_owned()]).unwrap_or(&command);
    let quoted: Vec<String> = command.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
    let (status, stdout, stderr) = machine.run(&quoted.join(" ")).await;
    out(cx, stdout).await;
    err(cx, stderr).await;
    err(cx, "\nRemoving debug pod ...\n").await;
    status
}
