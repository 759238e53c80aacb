//! A run on disk: what a crash leaves, what a reader meets, and that the fold never minds.

use bartizan::model::event::*;
use bartizan::model::plan::{StageId, StepId};
use bartizan::model::{RunModel, reduce};
use bartizan::record::recorder::parse_event;
use bartizan::record::scrub::Scrub;
use bartizan::record::{Hub, RecordError, Recorder, SegmentReader, Store, Tail, bundle, lease, read_events};
use bartizan::spec::Secret;
use jiff::Timestamp;
use proptest::prelude::*;
use std::io::Write;

fn opened() -> Data {
    Data::RunOpened {
        format: FORMAT,
        run: "r".into(),
        bartizan: "0".into(),
        cluster: ClusterName::default(),
        spec_digest: String::new(),
        plan: bartizan::stages::plan().unwrap(),
        operator: "op".into(),
    }
}

fn line(text: &str) -> LogLine {
    LogLine {
        at: Timestamp::UNIX_EPOCH,
        unit: "u".into(),
        level: Level::Info,
        text: text.into(),
        cursor: Some(text.into()),
    }
}

#[test]
fn a_torn_line_is_cut_and_log_lines_without_their_event_were_never_there() {
    let dir = tempfile::tempdir().unwrap();
    {
        let mut recorder = Recorder::open(dir.path()).unwrap();
        recorder.append(Timestamp::now(), opened()).unwrap();
        recorder.append_lines(Timestamp::now(), "journal:bootstrap", &[line("1"), line("2")]).unwrap();
        recorder.append_lines(Timestamp::now(), "journal:bootstrap", &[line("3")]).unwrap();
    }
    // The last event is torn in the middle: so line 3 was never told of.
    let path = dir.path().join("run.jsonl");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
    {
        let mut recorder = Recorder::open(dir.path()).unwrap();
        assert_eq!(recorder.model().logs["journal:bootstrap"].lines, 2);
        recorder.append_lines(Timestamp::now(), "journal:bootstrap", &[line("3 again"), line("4")]).unwrap();
    }
    let lines = SegmentReader::new(dir.path()).read("journal:bootstrap", 1, 10).unwrap();
    assert_eq!(lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["1", "2", "3 again", "4"]);
    assert_eq!(SegmentReader::new(dir.path()).last("journal:bootstrap", 4).unwrap().unwrap().text, "4");
    let seqs: Vec<u64> = read_events(&path).unwrap().iter().map(|event| event.seq).collect();
    assert_eq!(seqs, [1, 2, 3]);
}

#[test]
fn a_run_has_one_writer_and_private_files() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Some(dir.path())).unwrap();
    let (name, run) = store.new_run(Timestamp::now());
    let mut first = Recorder::open(&run).unwrap();
    first.append(Timestamp::now(), opened()).unwrap();
    assert!(matches!(Recorder::open(&run), Err(RecordError::Locked { .. })));
    assert_eq!(std::fs::metadata(&run).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(std::fs::metadata(run.join("run.jsonl")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(store.find("last").unwrap(), run);
    assert_eq!(store.find(&name[name.len() - 4..]).unwrap(), run);
    drop(first);
    assert!(Recorder::open(&run).is_ok());
}

#[test]
fn a_broken_middle_and_a_newer_format_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.jsonl");
    std::fs::write(&path, "{\"seq\":1,\"at\":\"2026-01-01T00:00:00Z\",\"kind\":\"note\",\"level\":\"info\",\"text\":\"x\"}\nrubbish\n{}\n")
        .unwrap();
    let text = read_events(&path).unwrap_err().to_string();
    assert!(text.contains("run.jsonl:2: not an event"), "{text}");
    let mut event = Event { seq: 1, at: Timestamp::now(), data: opened() };
    if let Data::RunOpened { format, .. } = &mut event.data {
        *format = FORMAT + 1;
    }
    std::fs::write(&path, format!("{}\n", serde_json::to_string(&event).unwrap())).unwrap();
    assert!(read_events(&path).unwrap_err().to_string().contains("use a newer one"));
}

#[test]
fn a_kind_of_tomorrow_is_kept_and_counted() {
    let event = parse_event(br#"{"seq":7,"at":"2026-01-01T00:00:00Z","kind":"quantum-leap","x":{"y":[1]}}"#).unwrap();
    let mut model = RunModel::default();
    reduce(&mut model, &event);
    assert_eq!(model.unknown_events, 1);
}

#[test]
fn secrets_do_not_reach_the_run_or_its_bundle() {
    let dir = tempfile::tempdir().unwrap();
    let secret = Secret::new("canary-7d1f-registry-password");
    {
        let mut recorder = Recorder::open(dir.path()).unwrap();
        recorder.append(Timestamp::now(), opened()).unwrap();
        let text = format!("login with {} failed", secret.reveal());
        let event = recorder.append(Timestamp::now(), Data::Note { level: Level::Error, text: text.clone() }).unwrap();
        assert_eq!(event.data, Data::Note { level: Level::Error, text: "login with [redacted] failed".into() });
        recorder.append_lines(Timestamp::now(), "sync", &[line(&text)]).unwrap();
    }
    let mut file = std::fs::OpenOptions::new().append(true).open(dir.path().join("logs/sync.log")).unwrap();
    writeln!(file, "{}", secret.reveal()).unwrap();
    std::fs::write(dir.path().join("cluster.toml"), "# AKIAIOSFODNN7EXAMPLE was here\n").unwrap();
    let place = tempfile::tempdir().unwrap();
    let bundle_path = place.path().join("bundle.tar.gz");
    let more = [("doctor.json".to_owned(), "http://kay:hunter2@proxy.example.com:3128".to_owned())];
    let contents = bundle::export(dir.path(), &bundle_path, &mut Scrub::new(false).unwrap(), &more).unwrap();
    let kinds: Vec<&str> = contents.removed.iter().map(|one| one.kind.as_str()).collect();
    for kind in ["secret of this installation", "AWS access key id", "password in a URL"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    let mut unpacked = Vec::new();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(&bundle_path).unwrap()));
    for entry in archive.entries().unwrap() {
        std::io::copy(&mut entry.unwrap(), &mut unpacked).unwrap();
    }
    let text = String::from_utf8(unpacked).unwrap();
    assert!(text.contains("[redacted]") && text.contains("1 × AWS access key id in cluster.toml"), "{text}");
    for gone in [secret.reveal(), "AKIAIOSFODNN7EXAMPLE", "hunter2"] {
        assert!(!text.contains(gone), "{gone}");
    }
    // It is a run like any other, with its lines where the events say.
    let opened = bundle::unpack(&bundle_path, &place.path().join("in")).unwrap();
    assert_eq!(read_events(&opened.join("run.jsonl")).unwrap().len(), 3);
    let lines = SegmentReader::new(&opened).read("sync", 1, 9).unwrap();
    assert_eq!(lines[0].text, "login with [redacted] failed");
}

#[test]
fn a_bundle_that_leads_out_of_itself_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.tar.gz");
    let encoder = flate2::write::GzEncoder::new(std::fs::File::create(&bad).unwrap(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(encoder);
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..7].copy_from_slice(b"../evil");
    header.set_size(1);
    header.set_cksum();
    tar.append(&header, &b"x"[..]).unwrap();
    tar.into_inner().unwrap().finish().unwrap();
    assert!(bundle::unpack(&bad, &dir.path().join("in")).is_err());
    assert!(!dir.path().join("evil").exists());
    std::fs::write(&bad, "no archive").unwrap();
    assert!(bundle::unpack(&bad, &dir.path().join("in")).unwrap_err().to_string().contains("no bundle"));
}

#[test]
fn whoever_holds_a_run_is_known_and_nobody_is_when_it_is_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::open(dir.path()).unwrap();
    recorder.append(Timestamp::now(), opened()).unwrap();
    let holder = lease::holder(dir.path()).unwrap();
    assert_eq!(holder.pid, i32::try_from(std::process::id()).unwrap());
    let mut tail = Tail::new(dir.path());
    assert_eq!(tail.read().unwrap().len(), 1);
    recorder.append(Timestamp::now(), Data::Note { level: Level::Info, text: "x".into() }).unwrap();
    // A line that is not whole yet waits.
    std::fs::OpenOptions::new()
        .append(true)
        .open(dir.path().join("run.jsonl"))
        .unwrap()
        .write_all(b"{\"seq\":3")
        .unwrap();
    assert_eq!(tail.read().unwrap().iter().map(|event| event.seq).collect::<Vec<_>>(), [2]);
    assert!(tail.read().unwrap().is_empty());
    drop(recorder);
    assert_eq!(lease::holder(dir.path()), None);
    assert!(lease::take_over(dir.path(), std::time::Duration::ZERO).unwrap().is_none());
}

#[tokio::test]
async fn a_slow_follower_gets_every_event() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(Recorder::open(dir.path()).unwrap());
    let sink = hub.sink();
    sink.commit(opened()).await;
    let (_, mut slow) = hub.follow().await;
    for number in 0..10_000 {
        sink.emit(Data::Note { level: Level::Info, text: number.to_string() }).await;
    }
    sink.commit(Data::RunClosed { outcome: RunOutcome::Done, exit: 0, summary: String::new() }).await;
    let mut last = 1;
    while let Some(event) = slow.next().await {
        assert_eq!(event.seq, last + 1);
        last = event.seq;
        if matches!(event.data, Data::RunClosed { .. }) {
            break;
        }
    }
    assert_eq!(last, 10_002);
    hub.close().await.unwrap();
}

fn any_event() -> impl Strategy<Value = Data> {
    let step =
        prop_oneof![Just("06-image-sync/copy"), Just("08-install/bootstrap"), Just("no/such")].prop_map(StepId::new);
    let text = "[a-z]{0,8}";
    prop_oneof![
        (step.clone(), 0..4u32).prop_map(|(step, attempt)| Data::StepStarted { step, attempt, host: None }),
        (step.clone(), any::<u64>(), any::<Option<u64>>()).prop_map(|(step, done, total)| Data::StepProgress {
            step,
            done,
            total,
            unit: Unit::Bytes,
            note: None
        }),
        (step.clone(), any::<bool>()).prop_map(|(step, good)| Data::StepEnded {
            step,
            attempt: 1,
            outcome: if good { Outcome::Success } else { Outcome::Failed { causes: vec!["x".into()] } },
            elapsed_ms: 1,
            evidence: vec![],
        }),
        (step, any::<u64>()).prop_map(|(step, after_ms)| Data::StepRetry {
            step,
            next_attempt: 2,
            after_ms,
            why: "w".into()
        }),
        prop_oneof![Just("07-install-config"), Just("nowhere")]
            .prop_map(|stage| Data::Rewound { stage: StageId::new(stage), because: "b".into() }),
        (text, any::<u64>(), any::<u64>()).prop_map(|(source, first, count)| Data::Lines {
            source,
            first,
            count,
            bytes: count
        }),
        (text, text).prop_map(|(key, value)| Data::Fact { key, value }),
        (text, any::<u64>()).prop_map(|(image, bytes)| Data::Sync(SyncEvent::Progress { image, bytes, rate: None })),
        (text, text).prop_map(|(stage, evidence)| {
            Data::Observed(Observed::Bootkube { stage, state: BootStage::Running, evidence, since: None })
        }),
        text.prop_map(|finding| Data::FindingCleared { finding, because: "b".into() }),
        Just(opened()),
        Just(Data::Unknown),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Any prefix, any repetition: a model, never a panic; and a keyframe plus the rest is the whole.
    #[test]
    fn the_fold_minds_nothing(data in prop::collection::vec(any_event(), 0..60), cut in 0usize..60, again in 0usize..60) {
        let events: Vec<Event> = data
            .into_iter()
            .zip(1..)
            .map(|(data, seq)| Event { seq, at: Timestamp::from_second(i64::try_from(seq).unwrap()).unwrap(), data })
            .collect();
        let mut whole = RunModel::default();
        events.iter().for_each(|event| reduce(&mut whole, event));
        let cut = cut.min(events.len());
        let mut keyframe = RunModel::default();
        events[..cut].iter().for_each(|event| reduce(&mut keyframe, event));
        // What was seen already comes again: nothing changes.
        events[again.min(cut)..cut].iter().for_each(|event| reduce(&mut keyframe, event));
        events[cut..].iter().for_each(|event| reduce(&mut keyframe, event));
        prop_assert_eq!(whole, keyframe);
    }

    #[test]
    fn malformed_events_are_errors_with_a_place(text in ".{0,200}") {
        if let Err(why) = parse_event(text.as_bytes()) {
            prop_assert!(why.contains("column"), "{}", why);
        }
    }

    #[test]
    fn damaged_events_are_errors_or_events(at in 0usize..400, byte in any::<u8>()) {
        let mut bytes = serde_json::to_vec(&Event { seq: 1, at: Timestamp::UNIX_EPOCH, data: opened() }).unwrap();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Err(why) = parse_event(&bytes) {
            prop_assert!(why.contains("not an event"));
        }
    }
}
