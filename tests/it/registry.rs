//! Registries: a real `docker-registry` on both sides, `skopeo` as the judge, and a server that misbehaves on purpose.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should say where")]

#[cfg(feature = "lab")]
mod choices;
#[cfg(feature = "lab")]
mod faults;
#[cfg(feature = "lab")]
mod mirrors;
mod parts;
mod proxy;
#[cfg(feature = "lab")]
mod trouble;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use bartizan::model::event::{ImageState, SyncEvent};
use bartizan::registry::agent::{Action, Ended, Line, Message, Request, run};
use bartizan::registry::auth::{Challenge, Credentials, Token};
use bartizan::registry::client::{Client, Net, Repo, Retry};
use bartizan::registry::digest;
use bartizan::registry::error::{RegistryError, Side};
use bartizan::registry::manifest::Manifest;
use bartizan::registry::plan::core_21;
use bartizan::registry::release::{PullSpec, parse_image_references};
use bartizan::spec::{Secret, Subset};
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio_util::sync::CancellationToken;

use parts::{COMPONENT_REPO, OCI_INDEX, OCI_MANIFEST, revision};
pub use parts::{Ca, DockerRegistry, Recipe, SyntheticRelease};

/// Two registries, a release in one of them, and an auth file for both.
struct World {
    source: DockerRegistry,
    mirror: DockerRegistry,
    release: SyntheticRelease,
    dir: tempfile::TempDir,
}

impl World {
    fn new(recipe: &Recipe) -> Self {
        let (source, mirror) = (DockerRegistry::start(&[]), DockerRegistry::start(&["mirror.lab.test"]));
        let release = SyntheticRelease::build(&source.host(), recipe);
        release.install(&source);
        let world = Self { source, mirror, release, dir: tempfile::tempdir().unwrap() };
        world.write_auth(&world.mirror.host(), world.mirror.auth());
        world
    }

    fn authfile(&self) -> PathBuf {
        self.dir.path().join("auth.json")
    }

    fn write_auth(&self, mirror: &str, auth: Value) {
        use std::os::unix::fs::PermissionsExt as _;
        let auths = json!({"auths": {self.source.host(): self.source.auth(), mirror: auth}});
        std::fs::write(self.authfile(), auths.to_string()).unwrap();
        std::fs::set_permissions(self.authfile(), std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn request(&self, action: Action) -> Request {
        Request {
            action,
            source: self.release.pull_spec.clone(),
            arch: "x86_64".into(),
            mirror: self.mirror.host(),
            release_repository: "openshift/release-images".into(),
            component_repository: "openshift/release".into(),
            release_tag: None,
            authfile: self.authfile(),
            source_ca: vec![self.source.ca_file()],
            resolve: Vec::new(),
            mirror_ca: vec![self.mirror.ca_file()],
            jobs: 4,
            subset: Subset::All,
            additional: Vec::new(),
            mapping: Vec::new(),
            offline: false,
            skip: Vec::new(),
            skip_file: None,
            accept_incomplete: false,
            bandwidth: None,
            only: None,
            outputs: None,
        }
    }

    /// Repository in the mirror and digest of everything that must be there.
    fn expected(&self) -> Vec<(String, String)> {
        let components =
            self.release.components.values().map(|digest| ("openshift/release".to_owned(), digest.clone()));
        let release = ("openshift/release-images".to_owned(), self.release.digest.clone());
        components.chain([release]).collect()
    }

    /// `skopeo inspect --raw` in the mirror.
    fn skopeo(&self, reference: &str) -> Option<Vec<u8>> {
        let output = Command::new("skopeo")
            .args(["inspect", "--raw", "--authfile"])
            .arg(self.authfile())
            .arg("--cert-dir")
            .arg(self.mirror.ca_file().parent().unwrap())
            .arg(format!("docker://{}/{reference}", self.mirror.host()))
            .output()
            .expect("skopeo (Debian package skopeo)");
        output.status.success().then_some(output.stdout)
    }
}

fn impatient() -> Net {
    let retry = Retry { times: 3, first: Duration::from_millis(20), longest: Duration::from_millis(100) };
    Net { retry, ..Net::default() }
}

async fn agent(request: Request, net: Net) -> (u8, Vec<Message>) {
    let mut out = Vec::new();
    let exit = run(request, net, &mut out, CancellationToken::new()).await;
    let text = String::from_utf8(out).unwrap();
    let messages: Vec<Message> =
        text.lines().map(|line| serde_json::from_str::<Line>(line).expect(line).message).collect();
    assert!(matches!(messages.last(), Some(Message::Done { exit: said, .. }) if *said == exit), "{text}");
    (exit, messages)
}

fn last_states(messages: &[Message]) -> BTreeMap<String, ImageState> {
    let states = messages.iter().filter_map(|message| match message {
        Message::Sync(SyncEvent::ImageState { image, state, .. }) => Some((image.clone(), state.clone())),
        _ => None,
    });
    states.collect()
}

fn errors(messages: &[Message]) -> Vec<(String, String, String)> {
    let errors = messages.iter().filter_map(|message| match message {
        Message::Error { side, class, why, .. } => Some((side.clone(), class.clone(), why.clone())),
        _ => None,
    });
    errors.collect()
}

fn moved(messages: &[Message]) -> u64 {
    match messages.last() {
        Some(Message::Done { moved, .. }) => *moved,
        _ => panic!("no last line"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_is_mirrored_by_digest_and_proven_and_mended() {
    // One layer is large enough to go in chunks.
    let world = World::new(&Recipe { large: 70 << 20, ..Recipe::default() });
    let outputs = world.dir.path().join("outputs");
    let request = Request { outputs: Some(outputs.clone()), ..world.request(Action::Sync) };
    let (exit, messages) = agent(request, impatient()).await;
    assert_eq!(exit, 0, "{:?}", errors(&messages));

    let planned = messages.iter().find_map(|message| match message {
        Message::Sync(SyncEvent::Planned { images, bytes, present_bytes, .. }) => {
            Some((images.len(), *bytes, *present_bytes))
        }
        _ => None,
    });
    assert_eq!(planned, Some((world.release.components.len() + 1, world.release.bytes(), 0)));
    assert_eq!(moved(&messages), world.release.bytes(), "each blob moves once");
    assert!(matches!(messages.last(), Some(Message::Done { mounted_blobs: 1, .. })), "the base layer is mounted");
    let (_, read) = world.source.access();
    assert!(read < world.release.bytes() + 200_000, "{read} bytes came from the source, manifests included");
    for (image, state) in last_states(&messages) {
        assert!(matches!(state, ImageState::Done | ImageState::Mounted), "{image}: {state:?}");
    }
    for (repo, digest) in world.expected() {
        let raw = world.skopeo(&format!("{repo}@{digest}")).unwrap_or_else(|| panic!("{repo}@{digest} is missing"));
        assert_eq!(digest::of(&raw), digest);
    }
    let tagged = world.skopeo("openshift/release-images:4.18.12-x86_64").expect("the release has its tag");
    assert_eq!(digest::of(&tagged), world.release.digest);
    let signature = world.release.components["cli"].replace(':', "-");
    assert!(world.skopeo(&format!("openshift/release:{signature}.sig")).is_some(), "signatures are mirrored");

    let mapping = std::fs::read_to_string(outputs.join("mapping.txt")).unwrap();
    assert_eq!(mapping.lines().count(), world.release.components.len() + 1);
    let idms: Value = yaml_serde::from_str(&std::fs::read_to_string(outputs.join("idms.yaml")).unwrap()).unwrap();
    let pair = &idms["spec"]["imageDigestMirrors"][1];
    assert_eq!(pair["source"], format!("{}/{COMPONENT_REPO}", world.source.host()));
    assert_eq!(pair["mirrors"][0], format!("{}/openshift/release", world.mirror.host()));

    // Again: everything is there.
    let (exit, messages) = agent(world.request(Action::Sync), impatient()).await;
    assert_eq!((exit, moved(&messages)), (0, 0));
    assert!(last_states(&messages).values().all(|state| *state == ImageState::Present));

    // A digest vanishes from the mirror: the proof says which, and a sync of that one mends it.
    let etcd = &world.release.components["etcd"];
    std::fs::remove_dir_all(revision(&world.mirror, "openshift/release", etcd)).unwrap();
    let (exit, messages) = agent(world.request(Action::Prove), impatient()).await;
    assert_eq!(exit, 9);
    let missing = messages.iter().find_map(|message| match message {
        Message::Sync(SyncEvent::Proven { missing, .. }) => Some(missing.clone()),
        _ => None,
    });
    assert_eq!(missing, Some(vec![format!("etcd: {}/openshift/release@{etcd}", world.mirror.host())]));
    let only = Some(vec!["etcd".to_owned()]);
    let (exit, messages) = agent(Request { only, ..world.request(Action::OneImage) }, impatient()).await;
    assert_eq!(exit, 0, "{:?}", errors(&messages));
    let (exit, _) = agent(world.request(Action::Prove), impatient()).await;
    assert_eq!(exit, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_was_killed_goes_on_where_it_was() {
    let world = World::new(&Recipe::default());
    let request = Request { jobs: 1, ..world.request(Action::Sync) };
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let killed = tokio::spawn(run(request, impatient(), theirs, CancellationToken::new()));
    let mut lines = BufReader::new(ours).lines();
    let mut done = 0;
    while let Some(line) = lines.next_line().await.unwrap() {
        done += usize::from(line.contains(r#""is":"done""#));
        if done == 3 {
            break;
        }
    }
    killed.abort();
    assert!(killed.await.is_err_and(|error| error.is_cancelled()), "it was still at work");

    let (exit, messages) = agent(world.request(Action::Sync), impatient()).await;
    assert_eq!(exit, 0, "{:?}", errors(&messages));
    assert!(moved(&messages) > 0 && moved(&messages) < world.release.bytes());
    assert!(last_states(&messages).values().any(|state| *state == ImageState::Present));
    for (repo, digest) in world.expected() {
        assert!(world.skopeo(&format!("{repo}@{digest}")).is_some(), "{repo}@{digest} is missing");
    }

    // Cancelled politely, it says so.
    let cancel = CancellationToken::new();
    cancel.cancel();
    let mut out = Vec::new();
    assert_eq!(run(world.request(Action::Sync), impatient(), &mut out, cancel).await, 9);
    let last: Line = serde_json::from_str(String::from_utf8(out).unwrap().lines().last().unwrap()).unwrap();
    assert!(matches!(last.message, Message::Done { outcome: Ended::Cancelled, .. }), "{last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_the_source_lacks_does_not_stop_the_others() {
    let world = World::new(&Recipe::default());
    let etcd = world.release.components["etcd"].clone();
    let hidden = revision(&world.source, COMPONENT_REPO, &etcd);
    std::fs::rename(&hidden, world.dir.path().join("hidden")).unwrap();

    let (exit, messages) = agent(world.request(Action::Sync), impatient()).await;
    assert_eq!(exit, 9);
    let found = errors(&messages);
    assert_eq!(found.len(), 1, "{found:?}");
    let (side, class, why) = &found[0];
    assert_eq!((side.as_str(), class.as_str()), ("source", "manifest-unknown"));
    assert!(why.contains("manifest unknown") && why.contains(&etcd), "{why}");
    for (image, state) in last_states(&messages) {
        match image.as_str() {
            "etcd" => assert!(matches!(state, ImageState::Failed { .. }), "{state:?}"),
            _ => assert!(matches!(state, ImageState::Done | ImageState::Mounted), "{image}: {state:?}"),
        }
    }
    let digest = &world.release.digest;
    assert!(world.skopeo(&format!("openshift/release-images@{digest}")).is_some());
    assert!(
        world.skopeo("openshift/release-images:4.18.12-x86_64").is_none(),
        "an incomplete mirror has no release tag"
    );

    std::fs::rename(world.dir.path().join("hidden"), &hidden).unwrap();
    let only = Some(vec![etcd]);
    let (exit, messages) = agent(Request { only, ..world.request(Action::OneImage) }, impatient()).await;
    assert_eq!(exit, 0, "{:?}", errors(&messages));
    assert!(world.skopeo("openshift/release-images:4.18.12-x86_64").is_some(), "now it is complete");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_the_mirror_is_told_by_class() {
    let world = World::new(&Recipe { more: &[], ..Recipe::default() });
    let first = |messages: &[Message]| errors(messages).into_iter().next().expect("an error");

    let wrong = Request { mirror_ca: vec![world.source.ca_file()], ..world.request(Action::Sync) };
    let (exit, messages) = agent(wrong, impatient()).await;
    let (side, class, why) = first(&messages);
    assert_eq!((exit, side.as_str(), class.as_str()), (9, "mirror", "ca"), "{why}");
    assert!(why.contains("certificate"), "{why}");

    // The name is not in the certificate.
    let net = |name: &str| {
        let there = ([127, 0, 0, 1], world.mirror.port).into();
        Net { resolve: vec![(name.to_owned(), there)], ..impatient() }
    };
    let mirror = "other.lab.test:5000".to_owned();
    let (_, messages) = agent(Request { mirror, ..world.request(Action::Plan) }, net("other.lab.test:5000")).await;
    assert_eq!(first(&messages).1, "name");

    // The name is right, and really somewhere else.
    let mirror = "mirror.lab.test:5000".to_owned();
    world.write_auth(&mirror, world.mirror.auth());
    let core = Request { mirror, subset: Subset::Core21, ..world.request(Action::Sync) };
    let (exit, messages) = agent(core, net("mirror.lab.test:5000")).await;
    assert_eq!(exit, 0, "{:?}", errors(&messages));

    world.write_auth(&world.mirror.host(), json!({"username": "bartizan", "password": "wrong-password"}));
    let (exit, messages) = agent(world.request(Action::Sync), impatient()).await;
    let (side, class, why) = first(&messages);
    assert_eq!((exit, side.as_str(), class.as_str()), (9, "mirror", "auth"), "{why}");
    assert!(!why.contains("wrong-password"));

    let request = Request { mirror: "127.0.0.1:1".into(), ..world.request(Action::Prove) };
    let (_, messages) = agent(request, impatient()).await;
    assert_eq!(first(&messages).1, "refused");

    std::fs::set_permissions(world.authfile(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let (_, messages) = agent(world.request(Action::Prove), impatient()).await;
    assert!(first(&messages).2.contains("expected 0600"));
}

#[test]
fn the_core_21_are_21() {
    let names: std::collections::BTreeSet<&str> = core_21().collect();
    assert_eq!((names.len(), core_21().count()), (21, 21));
}

/// Texts that are nearly right, or not at all.
fn malformed(valid: String) -> impl Strategy<Value = Vec<u8>> {
    let valid = valid.into_bytes();
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..6);
    let edited = edits.prop_map(move |edits| {
        let mut text = valid.clone();
        for (at, byte, how) in edits {
            let at = at.index(text.len().max(1));
            match how {
                0 if at < text.len() => text[at] = byte,
                1 if at < text.len() => drop(text.remove(at)),
                2 => text.insert(at, byte),
                _ => text.truncate(at),
            }
        }
        text
    });
    prop_oneof![8 => edited, 1 => prop::collection::vec(any::<u8>(), 0..200)]
}

fn valid_references() -> String {
    let digest = digest::of(b"x");
    json!({"kind": "ImageStream", "apiVersion": "image.openshift.io/v1", "metadata": {"name": "4.18.12"},
        "spec": {"tags": [
            {"name": "cli", "from": {"kind": "DockerImage", "name": format!("quay.io/a/b@{digest}")}},
            {"name": "etcd", "from": {"kind": "DockerImage", "name": format!("quay.io/a/b@{digest}")}}]}})
    .to_string()
}

fn valid_manifest(list: bool) -> String {
    let blob = json!({"mediaType": OCI_MANIFEST, "digest": digest::of(b"x"), "size": 7,
                      "platform": {"os": "linux", "architecture": "amd64"}});
    if list {
        json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [blob, blob]}).to_string()
    } else {
        json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": blob, "layers": [blob]}).to_string()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_image_references_are_read_or_refused_with_a_place(text in malformed(valid_references())) {
        match parse_image_references(&text) {
            Ok((version, components)) => {
                prop_assert!(!version.is_empty() && !components.is_empty());
                prop_assert!(components.iter().all(|component| digest::is_valid(&component.digest)));
            }
            Err(error) => prop_assert!(!error.place.is_empty() && !error.why.is_empty(), "{error}"),
        }
    }

    #[test]
    fn any_manifest_is_read_or_refused_with_a_place(
        (list, text) in any::<bool>().prop_flat_map(|list| (Just(list), malformed(valid_manifest(list)))),
        declared in any::<bool>(),
    ) {
        let kind = declared.then_some(if list { OCI_INDEX } else { OCI_MANIFEST });
        let found = digest::of(&text);
        if let Err(error) = Manifest::new(Bytes::from(text), kind, found.clone()).read() {
            prop_assert!(error.place.contains(&found) && !error.why.is_empty(), "{error}");
        }
    }

    #[test]
    fn any_answer_of_a_registry_is_understood_or_refused(
        status in 300..600_u16,
        body in malformed(r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#.into()),
        token in malformed(r#"{"token":"aaaa.bbbb.cccc","expires_in":300}"#.into()),
        challenge in ".{0,80}",
    ) {
        let error = RegistryError::status(Side::Source, "GET https://quay.io/v2/", status, None, &body);
        let text = error.to_string();
        prop_assert!(text.contains("source") && text.contains("quay.io") && text.contains(&status.to_string()), "{text}");
        prop_assert!(text.len() < 3000 && !text.chars().any(char::is_control), "{text:?}");
        if let Err(error) = Token::parse(&token, jiff::Timestamp::UNIX_EPOCH) {
            prop_assert!(error.place.starts_with("token answer"), "{error}");
        }
        let _none = Challenge::parse([challenge.as_str(), &format!("Bearer {challenge}")].into_iter());
    }

    #[test]
    fn any_auth_file_and_pull_spec_is_read_or_refused(
        auth in malformed(r#"{"auths":{"quay.io":{"auth":"YTphYWFhYWE="},"x":{"identitytoken":"tttttttt"}}}"#.into()),
        spec in malformed(format!("quay.io:443/a/b:4.18@{}", digest::of(b"x"))),
    ) {
        let text = String::from_utf8_lossy(&auth);
        if let Err(error) = Credentials::parse(&text) {
            prop_assert!(error.place.starts_with("auth file"), "{error}");
        }
        match PullSpec::parse(&String::from_utf8_lossy(&spec)) {
            Ok(spec) => prop_assert_eq!(PullSpec::parse(&spec.to_string()).unwrap(), spec),
            Err(error) => prop_assert!(error.place.starts_with("pull spec"), "{}", error),
        }
    }
}
