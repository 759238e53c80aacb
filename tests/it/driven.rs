//! Engines of others: what they print is understood on a terminal and without one, wherever it is cut; as jobs on a
//! machine behind a real sshd and with a registry's own notifications.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should say where")]

mod shapes;

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output, Stdio};

use bartizan::model::event::{ImageState, SyncEvent};
use bartizan::registry::driven::oc_mirror::failures;
use bartizan::registry::driven::tally::Tally;
use bartizan::registry::driven::{Engine, Reader, Said};
use bartizan::registry::mapping;
use bartizan::registry::notify::Notice;
use proptest::prelude::*;

use crate::registry::{DockerRegistry, Recipe, SyntheticRelease};
use shapes::{TOOLS, digest};

fn heard(engine: Engine, pieces: &[&[u8]]) -> Vec<Said> {
    let mut reader = Reader::new(engine);
    let mut told: Vec<_> = pieces.iter().flat_map(|piece| reader.feed(piece)).collect();
    told.extend(reader.end());
    assert!(told.iter().all(|told| !told.text.chars().any(char::is_control)), "{told:?}");
    told.into_iter().filter_map(|told| told.said).collect()
}

fn oc_mirror(pieces: &[&[u8]]) -> Vec<Said> {
    heard(Engine::OcMirror, pieces)
}

fn oc_adm(pieces: &[&[u8]]) -> Vec<Said> {
    heard(Engine::OcAdm, pieces)
}

/// What the sync shows of each image in the end.
fn states(said: &[Said]) -> BTreeMap<String, ImageState> {
    let pairs = mapping::parse(&shapes::mapping(), shapes::REGISTRY).unwrap();
    let mut tally = Tally::of_mapping("oc-mirror", &pairs);
    let mut states = BTreeMap::new();
    let mut told = 0;
    for event in said.iter().flat_map(|said| tally.hear(said)) {
        let SyncEvent::ImageState { image, state, .. } = event else { panic!("{event:?}") };
        told += 1;
        states.insert(image, state);
    }
    assert!(told <= 2 * pairs.len(), "{told} events of {} images", pairs.len());
    states
}

#[test]
fn a_terminal_and_a_log_tell_the_same_of_oc_mirror() {
    for fails in [false, true] {
        for text in [shapes::oc_mirror_plain(fails), shapes::oc_mirror_terminal(fails)] {
            let said = oc_mirror(&[text.as_bytes()]);
            assert!(said.contains(&Said::Images(4)), "{said:#?}");
            assert!(said.contains(&Said::Result { kind: "release".into(), done: 3, of: 3 }));
            assert!(
                said.contains(&Said::Wrote { file: "/ws/working-dir/cluster-resources/idms-oc-mirror.yaml".into() })
            );
            let states = states(&said);
            for name in ["release", "etcd", "cluster-dns-operator"] {
                assert_eq!(states.get(name), Some(&ImageState::Done), "{name}: {said:#?}");
            }
            match states.get(TOOLS) {
                Some(ImageState::Done) => assert!(!fails),
                Some(ImageState::Failed { side, .. }) => assert!(fails && side == "source"),
                other => panic!("{other:?}: {said:#?}"),
            }
        }
    }
}

#[test]
fn oc_tells_its_plan_its_blobs_and_its_images() {
    let said = oc_adm(&[shapes::oc_adm(false).as_bytes()]);
    let blob = |letter, bytes| Said::PlannedBlob {
        source: "quay.io/openshift-release-dev/ocp-v4.0-art-dev".into(),
        digest: digest(letter),
        bytes,
    };
    assert_eq!(said[..4], [Said::Images(3), blob('1', 83_298_877), blob('2', 97_465_139), blob('3', 1_229)]);
    assert!(said.contains(&Said::PlannedManifest { digest: digest('b'), tag: Some("4.18.9-x86_64-etcd".into()) }));
    let repository = format!("{}/openshift/release", shapes::REGISTRY);
    assert!(said.contains(&Said::Uploading { repository: repository.clone(), digest: digest('2'), bytes: 97_465_139 }));
    assert!(said.contains(&Said::Mounted { repository, digest: digest('4') }));
    let good = states(&said);
    assert_eq!(good.values().filter(|state| **state == ImageState::Done).count(), 3, "{good:?}");

    let bad = states(&oc_adm(&[shapes::oc_adm(true).as_bytes()]));
    assert!(
        matches!(&bad["cluster-dns-operator"], ImageState::Failed { class, .. } if class == "manifest-unknown"),
        "{bad:?}"
    );
    assert_eq!(bad["etcd"], ImageState::Done);
}

#[test]
fn it_does_not_matter_where_the_output_is_cut() {
    let shapes = [
        (Engine::OcMirror, shapes::oc_mirror_plain(true)),
        (Engine::OcMirror, shapes::oc_mirror_terminal(true)),
        (Engine::OcAdm, shapes::oc_adm(true)),
    ];
    for (engine, text) in &shapes {
        let bytes = text.as_bytes();
        let whole = heard(*engine, &[bytes]);
        for at in 0..=bytes.len() {
            let (one, two) = bytes.split_at(at);
            assert_eq!(heard(*engine, &[one, two]), whole, "cut at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(heard(*engine, &single), whole);
    }
}

#[test]
fn the_error_file_names_images_and_reasons() {
    let file = format!(
        "error mirroring image docker://{TOOLS} error: reading manifest latest: manifest unknown\n\
         error mirroring image quay.io/x/bundle@{} (Operator bundles: [odf.v4.18.1] - Operators: [odf-operator]) error: 502 Bad Gateway\r\n\
         something else\n",
        digest('d')
    );
    let found = failures(file.as_bytes());
    let found: Vec<(&str, &str)> = found.iter().map(|one| (one.image.as_str(), one.why.as_str())).collect();
    let bundle = format!("quay.io/x/bundle@{}", digest('d'));
    assert_eq!(found, [(TOOLS, "reading manifest latest: manifest unknown"), (bundle.as_str(), "502 Bad Gateway")]);
}

fn pieces() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "2025/11/25 12:50:51 \u{1b}[1;94m [INFO]  \u{1b}[0m : ",
        "Success copying ",
        " ➡️ ",
        "images to copy ",
        "✓ ",
        " / ",
        "error mirroring image ",
        "error: ",
        "uploading: ",
        "sha256:",
        "\u{1b}[2A",
        "\r",
        "\n",
        "(1m40s)",
        "      ",
        "-> ",
        "MiB",
    ]);
    let piece = prop_oneof![known.prop_map(str::to_owned), ".{0,12}", "[0-9a-f]{64}"];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_they_print_nothing_breaks(text in pieces(), cut in 0usize..400) {
        let bytes = text.as_bytes();
        let (one, two) = bytes.split_at(cut.min(bytes.len()));
        prop_assert_eq!(oc_mirror(&[one, two]), oc_mirror(&[bytes]));
        prop_assert_eq!(oc_adm(&[one, two]), oc_adm(&[bytes]));
        let _states = states(&oc_mirror(&[bytes]));
        let _failures = failures(bytes);
    }
}

/// Two registries and a release in the first.
struct Pair {
    source: DockerRegistry,
    mirror: DockerRegistry,
    release: SyntheticRelease,
    dir: tempfile::TempDir,
}

impl Pair {
    /// `more` of the mirror's configuration.
    fn new(more: &str) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let (source, mirror) = (DockerRegistry::start(&[]), DockerRegistry::start_with(&[], more));
        let release = SyntheticRelease::build(&source.host(), &Recipe::default());
        release.install(&source);
        let dir = tempfile::tempdir().unwrap();
        let auths = serde_json::json!({"auths": {source.host(): source.auth(), mirror.host(): mirror.auth()}});
        let authfile = dir.path().join("auth.json");
        std::fs::write(&authfile, auths.to_string()).unwrap();
        std::fs::set_permissions(&authfile, std::fs::Permissions::from_mode(0o600)).unwrap();
        Self { source, mirror, release, dir }
    }

    /// `mirror` or `verify-mirror`.
    fn bartizan(&self, verb: &str, more: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_bartizan"))
            .args([verb, "--release", &self.release.pull_spec, "--to", &format!("{}/ocp/mirror", self.mirror.host())])
            .args(["--authfile", "auth.json", "--source-ca"])
            .arg(self.source.ca_file())
            .arg("--mirror-ca")
            .arg(self.mirror.ca_file())
            .args(more)
            .current_dir(self.dir.path())
            .output()
            .unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The real registry's own word, by the program that listens on the bastion.
#[test]
fn a_registry_tells_the_listener_what_it_stored() {
    use std::io::{BufRead as _, BufReader};

    let port = crate::ports::free_port();
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "right-token\n").unwrap();
    let mut listener = Command::new(env!("CARGO_BIN_EXE_bartizan"))
        .args(["listen", "--address", &format!("127.0.0.1:{port}"), "--token-file"])
        .arg(&token)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let post = |token: &str, body: &str| {
        use std::io::{Read as _, Write as _};
        let mut stream = loop {
            match std::net::TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => break stream,
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
            }
        };
        write!(
            stream,
            "POST /notifications HTTP/1.1\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    let stranger = format!(
        r#"{{"events":[{{"action":"push","timestamp":"2025-01-01T00:00:00Z","target":{{"digest":"{}","repository":"x"}}}}]}}"#,
        digest('e')
    );
    assert_eq!(post("wrong", &stranger), "HTTP/1.1 401");
    assert_eq!(post("right-token", "no envelope"), "HTTP/1.1 200");

    let endpoint = format!(
        "notifications:\n  endpoints:\n    - name: bartizan\n      url: http://127.0.0.1:{port}/notifications\n      \
         headers: {{Authorization: [Bearer right-token]}}\n      timeout: 2s\n      threshold: 3\n      backoff: 1s\n      ignore: {{actions: [pull]}}\n"
    );
    let pair = Pair::new(&endpoint);
    let filled = pair.bartizan("mirror", &["--output-dir", "out"]);
    assert_eq!(filled.status.code(), Some(0), "{}", said(&filled));
    let release = &pair.release;
    let wanted: BTreeSet<String> = release.components.values().cloned().chain([release.digest.clone()]).collect();
    let (mut seen, mut bytes) = (BTreeSet::new(), BTreeMap::new());
    for line in BufReader::new(listener.stdout.take().unwrap()).lines() {
        let notice: Notice = serde_json::from_str(&line.unwrap()).unwrap();
        assert_ne!(notice.digest, digest('e'), "a stranger was believed");
        assert!(notice.stores(), "{notice:?}");
        if notice.is_manifest() {
            seen.insert(notice.digest);
        } else {
            bytes.insert(notice.digest, notice.size);
        }
        if wanted.is_subset(&seen) {
            break;
        }
    }
    assert_eq!(bytes.values().sum::<u64>(), release.bytes(), "every blob, to the byte");
    listener.kill().unwrap();
    listener.wait().unwrap();
}

/// The proof alone, whoever filled the mirror.
#[test]
fn a_mirror_that_lacks_something_is_found_out() {
    let pair = Pair::new("");
    let bartizan = |verb: &str, more: &[&str]| pair.bartizan(verb, more);
    let (release, mirror) = (&pair.release, &pair.mirror);
    let filled = bartizan("mirror", &["--output-dir", "out"]);
    assert_eq!(filled.status.code(), Some(0), "{}", said(&filled));
    let whole = bartizan("verify-mirror", &[]);
    assert_eq!(whole.status.code(), Some(0), "{}", said(&whole));
    assert!(said(&whole).contains("answer in the mirror"), "{}", said(&whole));

    let manifests = mirror.storage().join("repositories/ocp/mirror/_manifests");
    let hex = |digest: &str| digest.trim_start_matches("sha256:").to_owned();
    std::fs::remove_dir_all(manifests.join("revisions/sha256").join(hex(&release.components["etcd"]))).unwrap();
    std::fs::remove_dir_all(manifests.join(format!("tags/sha256-{}.sig", hex(&release.digest)))).unwrap();
    let lacking = bartizan("verify-mirror", &["--json"]);
    assert_eq!(lacking.status.code(), Some(9), "{}", said(&lacking));
    let verdict: serde_json::Value = serde_json::from_str(&said(&lacking)).unwrap();
    let missing: Vec<&str> = verdict["missing"].as_array().unwrap().iter().filter_map(|one| one.as_str()).collect();
    assert_eq!(missing.len(), 2, "{missing:?}");
    assert!(missing[0].starts_with("etcd: ") && missing[1].starts_with("release signature: "), "{missing:?}");
    assert_eq!(verdict["complete"], false);
}

/// In the lab, whose programs print what the real ones print.
#[cfg(feature = "lab")]
#[test]
fn the_demo_shows_every_engine() {
    for (engine, name) in [("oc-mirror", "oc-mirror"), ("oc-adm", "oc adm release mirror")] {
        let state = tempfile::tempdir().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_bartizan"))
            .arg("--state")
            .arg(state.path())
            .args(["demo", "--engine", engine, "--until", "06", "--plain", "--speed", "100", "--payload-mb", "24"])
            .output()
            .unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(0), "{engine}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains(&format!("images by {name}, which tells of whole images only")), "{engine}: {text}");
        assert!(text.contains("digests answer in the mirror"), "{engine}: {text}");
    }
}
