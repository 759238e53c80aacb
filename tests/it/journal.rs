//! A real `journalctl` over journals that `systemd-journal-remote` writes, on a connection that keeps breaking.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on stops")]

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bartizan::host::{self, Cmd, Host, HostError, Output, StreamItem, Tunnel};
use bartizan::model::entry::{Entry, LINE_LIMIT};
use bartizan::model::event::{Data, Level, LogLine};
use bartizan::record::Sink;
use bartizan::record::sink::Entry as Recorded;
use bartizan::watch::journal::{self, Options, Position};
use bartizan::watch::{Out, bootkube};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

/// This machine, over a line that breaks after so many lines of output, in the middle of the next one.
pub struct ShakyHost {
    cuts: Mutex<Vec<usize>>,
    pub connections: AtomicUsize,
}

impl ShakyHost {
    pub fn new(cuts: &[usize]) -> Arc<Self> {
        let cuts = Mutex::new(cuts.iter().rev().copied().collect());
        Arc::new(Self { cuts, connections: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl Host for ShakyHost {
    fn name(&self) -> &str {
        "bootstrap"
    }

    async fn exec(&self, cmd: &Cmd) -> Result<Output, HostError> {
        let done = Command::new("sh").arg("-c").arg(cmd.line()).stdin(Stdio::null()).output().await.unwrap();
        Ok(Output { status: done.status.code().unwrap_or(-1), stdout: done.stdout, stderr: done.stderr })
    }

    async fn stream(&self, cmd: &Cmd) -> Result<BoxStream<'static, Result<StreamItem, HostError>>, HostError> {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let cut = self.cuts.lock().unwrap().pop();
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!("exec {}", cmd.line()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).split(b'\n');
        let stderr = BufReader::new(child.stderr.take().unwrap()).split(b'\n');
        let lines = futures::stream::unfold((stdout, 0_usize, false), move |(mut stdout, count, broken)| async move {
            if broken {
                return None;
            }
            let line = stdout.next_segment().await.ok()??;
            if Some(count) == cut {
                let half = line[..line.len() / 2].to_vec();
                return Some((vec![Ok(StreamItem::Out(half)), Err(link())], (stdout, count, true)));
            }
            Some((vec![Ok(StreamItem::Out(line))], (stdout, count + 1, false)))
        });
        let errors = futures::stream::unfold(stderr, |mut stderr| async move {
            let line = stderr.next_segment().await.ok()??;
            Some((vec![Ok(StreamItem::Err(line))], stderr))
        });
        let exit = futures::stream::once(async move {
            let status = child.wait().await.ok().and_then(|status| status.code());
            vec![Ok(StreamItem::Exit(status.unwrap_or(-1)))]
        });
        // The child must live as long as the stream, and its exit comes last.
        let all = futures::stream::select(lines.boxed(), errors.boxed()).chain(exit);
        Ok(all.flat_map(futures::stream::iter).boxed())
    }

    async fn put(&self, _: &str, _: host::Stdin, _: u32) -> Result<(), HostError> {
        Err(link())
    }
    async fn get(&self, _: &str) -> Result<Option<Vec<u8>>, HostError> {
        Ok(None)
    }
    async fn tunnel(&self, _: &str, _: u16) -> Result<Box<dyn Tunnel>, HostError> {
        Err(link())
    }
}

fn link() -> HostError {
    HostError::Link { host: "bootstrap".into(), why: "cut by the test".into() }
}

pub const BOOT: &str = "11111111111111111111111111111111";

/// Entry `number` in the export format, in one of the shapes that are met on a bootstrap node.
fn export(number: u64, boot: &str) -> Vec<u8> {
    let mut entry = format!(
        "__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP={}\n_BOOT_ID={boot}\n",
        1_700_000_000_000_000 + number * 1000,
        number * 1000
    )
    .into_bytes();
    let unit = "_PID=100\n_SYSTEMD_UNIT=bootkube.service\nSYSLOG_IDENTIFIER=bootkube.sh\nPRIORITY=6\n";
    let manager = "_PID=1\n_SYSTEMD_UNIT=init.scope\nUNIT=bootkube.service\nPRIORITY=4\nSYSLOG_IDENTIFIER=systemd\n";
    entry.extend_from_slice(if number % 7 == 3 { manager } else { unit }.as_bytes());
    let mut binary = |text: &[u8]| {
        entry.extend_from_slice(b"MESSAGE\n");
        entry.extend_from_slice(&(text.len() as u64).to_le_bytes());
        entry.extend_from_slice(text);
        entry.push(b'\n');
    };
    match number % 7 {
        0 => binary(format!("\u{1b}[31mline {number}\u{1b}[0m in colour").as_bytes()),
        1 => {
            binary(&[format!("line {number} ").as_bytes(), &[0xff, 0xfe], b"not text"].concat());
        }
        2 => entry.extend_from_slice(format!("MESSAGE=line {number}\nMESSAGE=said twice\n").as_bytes()),
        4 => entry.extend_from_slice(format!("MESSAGE=line {number} {}\n", "x".repeat(6000)).as_bytes()),
        5 => binary(format!("line {number}\nand a second line").as_bytes()),
        _ => entry.extend_from_slice(format!("MESSAGE=line {number}\n").as_bytes()),
    }
    entry.push(b'\n');
    if number.is_multiple_of(5) {
        // What podman's log driver writes of the same line up to 4.20.
        entry.extend_from_slice(
            format!(
                "__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP={}\n_BOOT_ID={boot}\n_PID=200\n\
                 _SYSTEMD_UNIT=bootkube.service\nSYSLOG_IDENTIFIER=etcd-render\nCONTAINER_NAME=etcd-render\n\
                 PRIORITY=6\nMESSAGE=line {number}\n\n",
                1_700_000_000_000_001 + number * 1000,
                number * 1000 + 1,
            )
            .as_bytes(),
        );
    }
    entry
}

/// Append entries to a journal file, as journald would.
pub fn write(file: &Path, numbers: impl Iterator<Item = u64>, boot: &str) {
    import(file, &numbers.flat_map(|number| export(number, boot)).collect::<Vec<u8>>());
}

fn import(file: &Path, entries: &[u8]) {
    let mut child = std::process::Command::new("/lib/systemd/systemd-journal-remote")
        .arg("-o")
        .arg(file)
        .arg("-")
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("systemd-journal-remote is installed (apt: systemd-journal-remote)");
    child.stdin.take().unwrap().write_all(entries).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Append entries that all have the same simple shape: for journals with very many.
pub fn write_plain(file: &Path, numbers: impl Iterator<Item = u64>) {
    let entry = |number: u64| {
        let (real, monotonic) = (1_700_000_000_000_000 + number * 1000, number * 1000);
        format!(
            "__REALTIME_TIMESTAMP={real}\n__MONOTONIC_TIMESTAMP={monotonic}\n_BOOT_ID={BOOT}\n_PID=100\n\
             _SYSTEMD_UNIT=bootkube.service\nSYSLOG_IDENTIFIER=bootkube.sh\nPRIORITY=6\nMESSAGE=line {number}\n\n"
        )
    };
    import(file, numbers.map(entry).collect::<String>().as_bytes());
}

pub fn options(directory: &Path) -> Options {
    let mut options = Options::new("journal:bootstrap", ["bootkube", "kubelet"]);
    options.arguments = vec!["--directory".into(), directory.display().to_string()];
    options
}

#[derive(Default)]
struct Seen {
    lines: Vec<LogLine>,
    events: Vec<Data>,
}

/// Follow until `enough` says so, or half a minute is over.
async fn follow(
    host: Arc<dyn Host>,
    options: Options,
    mut meanwhile: impl FnMut(usize),
    enough: impl Fn(&Seen) -> bool,
) -> Seen {
    let (sink, mut records) = Sink::channel(64);
    let cancel = CancellationToken::new();
    let out = Out::new(sink, cancel.clone());
    let task = tokio::spawn(async move { journal::follow(host, options, &out, &mut |_| Vec::new()).await });
    let mut seen = Seen::default();
    let collect = async {
        while let Some(record) = records.recv().await {
            match record {
                Recorded::Lines { source, lines } => {
                    assert_eq!(source, "journal:bootstrap");
                    seen.lines.extend(lines);
                    meanwhile(seen.lines.len());
                }
                Recorded::Event(data, _) => seen.events.push(*data),
                Recorded::Model(_) | Recorded::Finish => {}
            }
            if enough(&seen) {
                break;
            }
        }
    };
    let _late = tokio::time::timeout(Duration::from_secs(30), collect).await;
    cancel.cancel();
    // What was on its way is recorded still.
    while let Some(record) = records.recv().await {
        match record {
            Recorded::Lines { lines, .. } => seen.lines.extend(lines),
            Recorded::Event(data, _) => seen.events.push(*data),
            Recorded::Model(_) | Recorded::Finish => {}
        }
    }
    task.await.unwrap().unwrap();
    seen
}

pub fn numbers(lines: &[LogLine]) -> Vec<u64> {
    let number = |line: &LogLine| line.text.split("line ").nth(1)?.split(' ').next()?.parse().ok();
    lines.iter().map(|line| number(line).unwrap_or_else(|| panic!("no number in {:?}", line.text))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_lines_over_a_line_that_breaks_come_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.journal");
    write(&file, 1..=400, BOOT);
    let host = ShakyHost::new(&[0, 57, 1, 130, 3, 90, 200]);
    let mut parts = [(300, 401..=700), (650, 701..=800)].into_iter().peekable();
    let more = |have: usize| {
        if let Some((_, part)) = parts.next_if(|(at, _)| have >= *at) {
            write(&file, part, BOOT);
        }
    };
    let first = follow(host.clone(), options(dir.path()), more, |seen| seen.lines.len() >= 800).await;

    // Another process goes on from the last line of the record.
    write(&file, 801..=1000, BOOT);
    let mut rest = options(dir.path());
    rest.start = Position::after(first.lines.last().unwrap());
    assert!(rest.start.is_some());
    let host_again = ShakyHost::new(&[20, 20]);
    let second = follow(host_again, rest, |_| {}, |seen| seen.lines.len() >= 200).await;

    let lines: Vec<LogLine> = first.lines.into_iter().chain(second.lines).collect();
    assert_eq!(numbers(&lines), (1..=1000).collect::<Vec<u64>>());
    assert_eq!(host.connections.load(Ordering::SeqCst), 8);
    assert!(first.events.is_empty() && second.events.is_empty(), "{:?} {:?}", first.events, second.events);
    assert!(lines.iter().all(|line| line.unit == "bootkube" && !line.text.chars().any(char::is_control)));
    let text = |number: usize| lines[number - 1].text.as_str();
    assert_eq!(text(14), "line 14 in colour");
    assert_eq!(text(8), "line 8 \u{fffd}\u{fffd}not text");
    // The journal does not keep the order of a field's values.
    assert!(["line 9 said twice", "said twice line 9"].contains(&text(9)), "{}", text(9));
    assert_eq!(text(12), "line 12 and a second line");
    assert_eq!(text(11).len(), "line 11 ".len() + 6000);
    assert_eq!(lines[9].level, Level::Warn);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_is_gone_leaves_a_gap_and_loses_nothing_more() {
    let old = tempfile::tempdir().unwrap();
    write(&old.path().join("node.journal"), 1..=5, BOOT);
    let before = follow(ShakyHost::new(&[]), options(old.path()), |_| {}, |seen| seen.lines.len() >= 5).await;
    // The journal was vacuumed meanwhile: line 5 is not in it.
    let new = tempfile::tempdir().unwrap();
    write(&new.path().join("node.journal"), 6..=20, BOOT);
    let last = Position::after(before.lines.last().unwrap()).unwrap();
    for cursor in [last.cursor.as_str(), "no cursor"] {
        let start = Position { cursor: cursor.to_owned(), at: last.at };
        let options = options(new.path()).start(Some(start));
        let after = follow(ShakyHost::new(&[4]), options, |_| {}, |seen| seen.lines.len() >= 15).await;
        assert_eq!(numbers(&after.lines), (6..=20).collect::<Vec<u64>>(), "{cursor}");
        let gaps = after.events.iter().filter(|event| matches!(event, Data::Gap { lost: None, .. })).count();
        assert_eq!((gaps, after.events.len()), (1, 1), "{cursor}: {:?}", after.events);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reboot_is_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.journal");
    write(&file, 1..=10, BOOT);
    let more = |have: usize| {
        if have == 9 {
            write(&file, 11..=20, "22222222222222222222222222222222");
        }
    };
    let seen = follow(ShakyHost::new(&[10]), options(dir.path()), more, |seen| seen.lines.len() >= 20).await;
    assert_eq!(numbers(&seen.lines), (1..=20).collect::<Vec<u64>>());
    assert!(matches!(seen.events.as_slice(), [Data::Gap { why, .. }] if why.contains("rebooted")));
}

#[test]
fn the_command_is_the_one_that_an_operator_would_type() {
    let line = Options::bootstrap().command(&journal::Origin::Boot).line();
    assert!(line.starts_with("journalctl --no-pager -q -b -f -n all -o json --output-fields=MESSAGE,PRIORITY,"));
    assert!(line.contains(" --all -u release-image.service ") && line.ends_with(" -u progress.service"));
    let position = Position { cursor: "s=a;i=5".into(), at: jiff::Timestamp::UNIX_EPOCH };
    let line = Options::bootstrap().command(&journal::Origin::After(position)).line();
    assert!(line.contains(" '--after-cursor=s=a;i=5' ") && !line.contains(" -b "));
}

#[test]
fn whose_line_it_is_and_how_bad() {
    let entry = |fields: &str| {
        let line = format!(r#"{{"__CURSOR":"c","__REALTIME_TIMESTAMP":"1700000000000000","_BOOT_ID":"b",{fields}}}"#);
        Entry::parse(line.as_bytes()).unwrap()
    };
    let died =
        entry(r#""_PID":"1","_SYSTEMD_UNIT":"init.scope","UNIT":"bootkube.service","PRIORITY":"4","MESSAGE":"m""#);
    assert_eq!((died.unit.as_str(), died.level), ("bootkube", Level::Warn));
    let kubelet =
        entry(r#""_SYSTEMD_UNIT":"kubelet.service","PRIORITY":"6","MESSAGE":"E0318 10:00:00.1 1 x.go:1] bad""#);
    assert_eq!((kubelet.unit.as_str(), kubelet.level), ("kubelet", Level::Error));
    let crio = entry(r#""_SYSTEMD_UNIT":"crio.service","PRIORITY":"6","MESSAGE":"time=\"t\" level=warning msg=\"w\"""#);
    assert_eq!(crio.level, Level::Warn);
    assert!(entry(r#""MESSAGE":null"#).text.contains("too long"));
    assert_eq!(entry(r#""MESSAGE":[27,91,49,109,104,105]"#).text, "hi");
    assert_eq!(entry(r#""MESSAGE":["a",[98,99]]"#).text, "a bc");
    let cut = entry(&format!(r#""MESSAGE":"{}""#, "y".repeat(40_000))).text;
    assert!(cut.len() < LINE_LIMIT + 64 && cut.ends_with("bytes more]"));
    let error = Entry::parse(br#"{"__CURSOR":"c","__REALTIME_TIMESTAMP":"soon"}"#).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"a journal line's __REALTIME_TIMESTAMP should be microseconds since the epoch, found "soon""#
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn stages_are_told_after_their_lines() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.journal");
    write(&file, 1..=3, BOOT);
    let (sink, mut records) = Sink::channel(64);
    let out = Out::new(sink, CancellationToken::new());
    let cancel = out.cancel.clone();
    let recogniser = bootkube::Recogniser::new("4.20.1");
    let options = options(dir.path());
    let task = tokio::spawn(async move { bootkube::follow(ShakyHost::new(&[]), recogniser, options, &out).await });
    let record = tokio::time::timeout(Duration::from_secs(20), records.recv()).await.unwrap();
    assert!(matches!(record, Some(Recorded::Lines { lines, .. }) if lines.len() == 3));
    cancel.cancel();
    task.await.unwrap().unwrap();
}

mod malformed {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn any_line_is_an_entry_or_an_error_with_a_place(line in crate::watch::mangled(&[
            r#"{"__CURSOR":"s=1;i=2","__REALTIME_TIMESTAMP":"1700000000000000","_BOOT_ID":"b","MESSAGE":[27,91,"x",null],"PRIORITY":"3","UNIT":["a","b"],"_PID":1}"#,
        ])) {
            match Entry::parse(&line) {
                Ok(entry) => prop_assert!(!entry.text.chars().any(char::is_control)),
                Err(error) => prop_assert!(error.to_string().contains("journal line")),
            }
        }
    }
}
