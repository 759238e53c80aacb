//! What is copied is what was chosen: images that are left out, also in the middle; wildcards; images of other makes.

use std::sync::Mutex;

use axum::http::header;

use super::faults::{Server, answer, word};
use super::parts::{DOCKER_MANIFEST, noise};
use super::*;

/// The rows, and what does not answer because it was left out.
fn left_out(messages: &[Message]) -> Vec<String> {
    match messages.last() {
        Some(Message::Done { left_out, .. }) => left_out.clone(),
        _ => panic!("no last line"),
    }
}

fn warnings(messages: &[Message]) -> String {
    let warnings = messages.iter().filter_map(|message| match message {
        Message::Warning { text } => Some(text.as_str()),
        _ => None,
    });
    warnings.collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_out_is_said_to_be_missing_and_a_part_of_the_release_only_by_consent() {
    let world = World::new(&Recipe::default());
    let extra = format!("{}/{COMPONENT_REPO}@{}", world.source.host(), digest::of(b"never built"));
    // Something besides the release that the source does not have: without it all is well.
    let more = Request { additional: vec![extra.clone()], ..world.request(Action::Sync) };
    let (exit, messages) = agent(more.clone(), impatient()).await;
    assert_eq!((exit, errors(&messages).len()), (9, 1));
    let (exit, messages) = agent(Request { skip: vec![extra.clone()], ..more }, impatient()).await;
    assert_eq!(exit, 0, "{:?}", errors(&messages));
    assert_eq!(last_states(&messages)[&extra], ImageState::Skipped);
    assert!(left_out(&messages)[0].starts_with(&format!("{extra}: ")), "{:?}", left_out(&messages));
    assert!(warnings(&messages).contains("manifest unknown"), "{}", warnings(&messages));
    assert!(world.skopeo("openshift/release-images:4.18.12-x86_64").is_some(), "the release is whole");

    // A part of the release, in a fresh mirror.
    let world = World::new(&Recipe::default());
    let skip = vec!["etcd".to_owned()];
    let without = Request { skip, ..world.request(Action::Sync) };
    let (exit, messages) = agent(without.clone(), impatient()).await;
    assert_eq!(exit, 9);
    assert!(errors(&messages)[0].2.contains("no cluster can be installed"), "{:?}", errors(&messages));
    let accepted = Request { accept_incomplete: true, ..without.clone() };
    let (exit, messages) = agent(accepted, impatient()).await;
    assert_eq!(exit, 0, "{:?}", errors(&messages));
    assert!(warnings(&messages).contains("cannot be installed or updated without it"), "{}", warnings(&messages));
    let etcd = &world.release.components["etcd"];
    assert!(world.skopeo(&format!("openshift/release@{etcd}")).is_none());
    assert!(world.skopeo("openshift/release-images:4.18.12-x86_64").is_none(), "what lacks a part has no release tag");
    for (skip, why) in [("release", "names all others"), ("nobody", "no image \"nobody\"")] {
        let (_, messages) = agent(Request { skip: vec![skip.to_owned()], ..without.clone() }, impatient()).await;
        assert!(errors(&messages)[0].2.contains(why), "{:?}", errors(&messages));
    }

    // Copied after all.
    let only = Some(vec!["etcd".to_owned()]);
    let (exit, messages) = agent(Request { only, ..world.request(Action::OneImage) }, impatient()).await;
    assert_eq!(exit, 0, "{:?}", errors(&messages));
    assert!(world.skopeo("openshift/release-images:4.18.12-x86_64").is_some(), "now it is whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_never_comes_can_be_left_while_it_is_copied() {
    let world = World::new(&Recipe::default());
    // A source that begins and then says nothing more.
    let content = noise(400_000);
    let (layer, config) = (digest::of(&content), b"{}".to_vec());
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest::of(&config), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+zstd", "digest": layer, "size": content.len()}]})
    .to_string();
    let ca = Ca::new();
    let silent = Server::start(&ca, move |parts, _| match parts.uri.path() {
        path if path.ends_with("/manifests/1") => {
            answer(200, &[(header::CONTENT_TYPE, OCI_MANIFEST)], manifest.clone())
        }
        path if path.ends_with(&layer) => {
            let begin = Ok::<_, std::io::Error>(Bytes::copy_from_slice(&content[..1000]));
            let body = futures::StreamExt::chain(futures::stream::iter([begin]), futures::stream::pending());
            let mut answer = answer(200, &[], axum::body::Body::from_stream(body));
            answer.headers_mut().insert(header::CONTENT_LENGTH, content.len().into());
            answer
        }
        path if path.contains("/blobs/") => answer(200, &[], config.clone()),
        _ => answer(404, &[], "{}"),
    });
    let file = world.dir.path().join("skip");
    let image = format!("{}/tools/silent:1", silent.host());
    let ca_file = world.dir.path().join("silent.crt");
    std::fs::write(&ca_file, &ca.pem).unwrap();
    let mut request = Request {
        additional: vec![image.clone()],
        skip_file: Some(file.clone()),
        outputs: Some(world.dir.path().join("outputs")),
        ..world.request(Action::Sync)
    };
    request.source_ca.push(ca_file);
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let work = tokio::spawn(run(request, impatient(), theirs, CancellationToken::new()));
    let mut lines = BufReader::new(ours).lines();
    let mut messages = Vec::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        let message = serde_json::from_str::<Line>(&line).unwrap().message;
        // All others are done, and this one hangs.
        if matches!(&message, Message::Sync(SyncEvent::ImageState { image: name, state: ImageState::Copying, .. }) if *name == image)
        {
            std::fs::write(&file, format!("{image}\n")).unwrap();
        }
        messages.push(message);
    }
    assert_eq!(work.await.unwrap(), 0, "{:?}", errors(&messages));
    assert_eq!(last_states(&messages)[&image], ImageState::Skipped);
    assert_eq!(left_out(&messages).len(), 1);
    for (repo, digest) in world.expected() {
        assert!(world.skopeo(&format!("{repo}@{digest}")).is_some(), "{repo}@{digest} is missing");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wildcards_lists_of_lists_foreign_layers_and_schema_1() {
    let mut world = World::new(&Recipe { more: &[], ..Recipe::default() });
    // As it is, it takes no image with layers elsewhere.
    let allow = "validation: {manifests: {urls: {allow: ['^https?://']}}}\n";
    world.mirror = DockerRegistry::start_with(&[], allow);
    world.write_auth(&world.mirror.host(), world.mirror.auth());
    let config = b"{}".to_vec();
    let content = noise(10_000);
    let image = |layers: Value| {
        json!({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "layers": layers,
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": digest::of(b"{}"), "size": 2}})
        .to_string()
    };
    let layer = json!({"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": digest::of(&content), "size": content.len()});
    let foreign = json!({"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "digest": digest::of(b"far"), "size": 3,
        "urls": ["https://mcr.example.com/layer"]});
    let list = |child: &str| {
        json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests":
            [{"mediaType": OCI_INDEX, "digest": digest::of(child.as_bytes()), "size": child.len()}]})
        .to_string()
    };
    let plain = image(json!([layer]));
    let windows = image(json!([foreign, layer]));
    let inner = list(&plain);
    let outer = list(&inner);
    let old = json!({"schemaVersion": 1, "name": "tools/old", "tag": "1", "fsLayers": [], "history": []}).to_string();
    let manifests = Mutex::new(
        [("v1.1", &plain), ("v1.2", &outer), ("windows", &windows), ("old", &old)]
            .map(|(tag, text)| (tag.to_owned(), text.clone()))
            .into_iter()
            .chain([&plain, &inner, &outer].map(|text| (digest::of(text.as_bytes()), text.clone())))
            .collect::<BTreeMap<String, String>>(),
    );
    let ca = Ca::new();
    let blobs = [config, content];
    let server = Server::start(&ca, move |parts, _| {
        let (place, last) = parts.uri.path().rsplit_once('/').unwrap();
        match place {
            // Two pages.
            "/v2/tools/one/tags" if parts.uri.query().is_none() => {
                let next = "</v2/tools/one/tags/list?last=v1.1>; rel=\"next\"";
                answer(200, &[(header::LINK, next)], r#"{"name":"tools/one","tags":["v1.1"]}"#)
            }
            "/v2/tools/one/tags" => answer(200, &[], r#"{"tags":["v1.2","v2.0","windows","old"]}"#),
            _ if place.ends_with("/manifests") => match manifests.lock().unwrap().get(last) {
                Some(text) => {
                    let document: Value = serde_json::from_str(text).unwrap();
                    let old = "application/vnd.docker.distribution.manifest.v1+prettyjws";
                    let kind = document["mediaType"].as_str().unwrap_or(old);
                    assert!(word(parts, header::ACCEPT).contains("image.index"));
                    answer(200, &[(header::CONTENT_TYPE, kind)], text.clone())
                }
                None => answer(404, &[], "{}"),
            },
            _ => match blobs.iter().find(|blob| digest::of(blob) == last) {
                Some(blob) => answer(200, &[], blob.clone()),
                None => answer(404, &[], "{}"),
            },
        }
    });
    let ca_file = world.dir.path().join("server.crt");
    std::fs::write(&ca_file, &ca.pem).unwrap();
    let (from, to) = (server.host(), world.mirror.host());
    let with = |line: String| {
        let mut request = Request { mapping: vec![line], only: None, ..world.request(Action::Sync) };
        request.source_ca.push(ca_file.clone());
        request
    };
    let (exit, messages) = agent(with(format!("{from}/tools/one:v1.*={to}/tools/copy # two")), impatient()).await;
    assert_eq!(exit, 0, "{:?}", errors(&messages));
    for (tag, text) in [("v1.1", &plain), ("v1.2", &outer)] {
        assert_eq!(world.skopeo(&format!("tools/copy:{tag}")).as_deref(), Some(text.as_bytes()), "{tag}");
    }
    assert!(world.skopeo(&format!("tools/copy@{}", digest::of(inner.as_bytes()))).is_some(), "the list in the list");

    let (exit, messages) = agent(with(format!("{from}/tools/one:windows={to}/tools/win:1")), impatient()).await;
    assert_eq!(exit, 0, "{:?}", errors(&messages));
    assert!(warnings(&messages).contains("1 of its layers may not be copied"), "{}", warnings(&messages));
    assert_eq!(world.skopeo("tools/win:1").as_deref(), Some(windows.as_bytes()));

    for (line, why) in [("old", "schema 1"), ("none*", "is like none*")] {
        let (exit, messages) = agent(with(format!("{from}/tools/one:{line}={to}/tools/x")), impatient()).await;
        assert!(exit == 9 && errors(&messages)[0].2.contains(why), "{:?}", errors(&messages));
    }
}
