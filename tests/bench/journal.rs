//! What a journal costs from the wire to the screen: `cargo bench --bench journal`.
//!
//! Wanted: 200,000 lines a second parsed, matched against every signature and recorded on one core; 50,000 lines a second
//! for ten seconds with every frame in its budget and nothing lost on disk; 150 MB of memory after 5,000,000 lines
//! (`BARTIZAN_BENCH_LINES`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bartizan::diagnose::{Catalogue, Matcher};
use bartizan::host::{Cmd, Host, HostError, Output, Stdin, StreamItem, Tunnel};
use bartizan::model::RunModel;
use bartizan::model::entry::Entry;
use bartizan::model::event::LogLine;
use bartizan::record::{Hub, Recorder, SegmentReader};
use bartizan::stages;
use bartizan::ui::glyph::Glyphs;
use bartizan::ui::history::History;
use bartizan::ui::keymap::Keymap;
use bartizan::ui::layout::Layouts;
use bartizan::ui::logs::{Ask, Numbered};
use bartizan::ui::theme::{Depth, Theme};
use bartizan::ui::{Effect, Input, Screen, render, update};
use bartizan::watch::Out;
use bartizan::watch::bootkube::{self, Recogniser};
use bartizan::watch::journal::{BOOTSTRAP, Options};
use futures::StreamExt;
use futures::stream::BoxStream;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use tokio_util::sync::CancellationToken;

const LINES: usize = 200_000;
const BATCH: usize = 256;
const SECONDS: usize = 10;
const RATE: usize = 50_000;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let catalogue = Catalogue::builtin()?;
    let corpus: Arc<Vec<Vec<u8>>> = Arc::new((0..10_000).map(entry).collect());
    let bytes: usize = corpus.iter().map(Vec::len).sum();
    println!("{} bytes a line, {} signatures", bytes / corpus.len(), catalogue.signatures().len());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let pace = Some(Duration::from_millis(10));
    runtime.block_on(through(&catalogue, &corpus, RATE * SECONDS, pace))?;
    let lines = std::env::var("BARTIZAN_BENCH_LINES").ok().and_then(|text| text.parse().ok()).unwrap_or(5_000_000);
    runtime.block_on(through(&catalogue, &corpus, lines, None))?;
    // Last, since what it takes of memory would be counted to the others.
    one_core(&catalogue, &corpus)
}

/// Line `number` of a bootstrap node's journal, as `journalctl -o json` prints it.
fn entry(number: usize) -> Vec<u8> {
    let text = match number % 6 {
        0 => format!(
            "Created \\\"{number:04}-crd.yaml\\\" customresourcedefinitions.v1.apiextensions.k8s.io/x{number} -n"
        ),
        1 => format!("[#{number}] failed to fetch discovery: the server is currently unable to handle the request"),
        2 => format!(
            "I0301 10:00:00.{number:06}    2247 kubelet.go:2421] \\\"SyncLoop ADD\\\" source=\\\"api\\\" pods=[\\\"ns/pod-{number}\\\"]"
        ),
        3 => format!(
            "E0301 10:00:00.{number:06}       1 reflector.go:158] \\\"Unhandled Error\\\" err=\\\"failed to list *v1.Node: Get https://api-int:6443/api/v1/nodes: dial tcp [::1]:6443: connect: connection refused\\\""
        ),
        4 => format!("\\tPod Status:openshift-kube-apiserver/kube-apiserver\\tPending {number}"),
        _ => format!(
            "2025-03-01 10:00:00.{number:06} +0000 UTC m=+0.089378130 container create df4a020d084815080874a376fedc671d535796b08548b67cd9ce2d156cdbecac (image=quay.io/openshift-release-dev/ocp-v4.0-art-dev@sha256:c4a6b6850701202f629c0e451de784b02f0de079650a1b9ccbf610448ebc9227, name=relaxed_hellman)"
        ),
    };
    let unit = if number % 6 == 3 { "kubelet" } else { "bootkube" };
    let micros = 1_740_823_200_000_000 + number * 20;
    format!(
        "{{\"PRIORITY\":\"6\",\"_TRANSPORT\":\"stdout\",\"__MONOTONIC_TIMESTAMP\":\"{number}\",\"_BOOT_ID\":\"8f2f4c0e4d2b4d0fa3f0c7c1f5b2a1d3\",\
         \"__CURSOR\":\"s=6e2b1c0d9f8e4a7b8c6d5e4f3a2b1c0d;i={number:x};b=8f2f4c0e4d2b4d0fa3f0c7c1f5b2a1d3;m={number:x};t={micros:x};x=a1b2c3d4e5f60718\",\
         \"SYSLOG_IDENTIFIER\":\"{unit}.sh\",\"_PID\":\"2247\",\"__REALTIME_TIMESTAMP\":\"{micros}\",\"_SYSTEMD_UNIT\":\"{unit}.service\",\"MESSAGE\":\"{text}\"}}"
    )
    .into_bytes()
}

/// What this thread has used of a core, which others may use too (proc(5), `schedstat`: nanoseconds).
fn used() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split_whitespace().next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok()).unwrap_or_default() / 1e9
}

fn rate(what: &str, lines: usize, begun: f64) {
    let seconds = used() - begun;
    println!("{what:<28}{:>10.0} lines/s {:>7.0} ns each", lines as f64 / seconds, seconds * 1e9 / lines as f64);
}

fn lines_of(corpus: &[Vec<u8>]) -> impl Iterator<Item = LogLine> {
    corpus.iter().cycle().take(LINES).filter_map(|line| Entry::parse(line).ok()).map(Entry::into_line)
}

/// Everything on this thread, piece by piece and then all of it.
fn one_core(catalogue: &Catalogue, corpus: &[Vec<u8>]) -> Result<(), Failure> {
    let begun = used();
    let parsed = lines_of(corpus).count();
    rate("parsed", parsed, begun);

    let known: Vec<LogLine> = lines_of(&corpus[..1000]).take(1000).collect();
    let mut matcher = Matcher::new(catalogue);
    let begun = used();
    for (number, line) in known.iter().cycle().take(LINES).enumerate() {
        matcher.feed(BOOTSTRAP, line, Some(number as u64));
    }
    rate("matched", LINES, begun);

    let dir = tempfile::tempdir()?;
    let mut recorder = Recorder::open(dir.path())?;
    let batch: Vec<LogLine> = known.iter().take(BATCH).cloned().collect();
    let begun = used();
    for _ in 0..LINES / BATCH {
        recorder.append_lines(jiff::Timestamp::now(), BOOTSTRAP, &batch)?;
    }
    rate("recorded and reduced", LINES / BATCH * BATCH, begun);

    let mut recogniser = Recogniser::new("4.18.12");
    let begun = used();
    for line in known.iter().cycle().take(LINES) {
        recogniser.feed(line);
    }
    rate("recognised", LINES, begun);

    let dir = tempfile::tempdir()?;
    let mut recorder = Recorder::open(dir.path())?;
    let (mut matcher, mut recogniser) = (Matcher::new(catalogue), Recogniser::new("4.18.12"));
    let mut batch = Vec::with_capacity(BATCH);
    let (mut count, mut found) = (0, 0);
    let begun = used();
    for line in lines_of(corpus) {
        count += 1;
        found += matcher.feed(BOOTSTRAP, &line, Some(count as u64)).len();
        recogniser.feed(&line);
        batch.push(line);
        if batch.len() == BATCH {
            recorder.append_lines(jiff::Timestamp::now(), BOOTSTRAP, &batch)?;
            batch.clear();
        }
    }
    rate("all of it on one core", count, begun);
    println!("{found} findings");
    Ok(())
}

/// A node that says `lines` lines, so many every `pace`, or as fast as they are taken.
struct Node {
    corpus: Arc<Vec<Vec<u8>>>,
    lines: usize,
    pace: Option<Duration>,
}

#[async_trait]
impl Host for Node {
    fn name(&self) -> &str {
        "bootstrap"
    }
    async fn exec(&self, _: &Cmd) -> Result<Output, HostError> {
        Ok(Output { status: 1, ..Output::default() })
    }
    async fn stream(&self, _: &Cmd) -> Result<BoxStream<'static, Result<StreamItem, HostError>>, HostError> {
        let (sender, receiver) = tokio::sync::mpsc::channel(64);
        let (corpus, lines, pace) = (self.corpus.clone(), self.lines, self.pace);
        tokio::spawn(async move {
            let handful = pace.map_or(500, |pace| RATE * pace.as_millis() as usize / 1000);
            let mut tick = tokio::time::interval(pace.unwrap_or(Duration::from_millis(1)));
            for start in (0..lines).step_by(handful) {
                if pace.is_some() {
                    tick.tick().await;
                }
                let said = (start..lines.min(start + handful)).filter_map(|number| corpus.get(number % corpus.len()));
                let said: Vec<Result<StreamItem, HostError>> =
                    said.map(|line| Ok(StreamItem::Out(line.clone()))).collect();
                if sender.send(said).await.is_err() {
                    return;
                }
            }
            sender.closed().await;
        });
        Ok(tokio_stream::wrappers::ReceiverStream::new(receiver).flat_map(futures::stream::iter).boxed())
    }
    async fn put(&self, _: &str, _: Stdin, _: u32) -> Result<(), HostError> {
        Ok(())
    }
    async fn get(&self, _: &str) -> Result<Option<Vec<u8>>, HostError> {
        Ok(None)
    }
    async fn tunnel(&self, _: &str, _: u16) -> Result<Box<dyn Tunnel>, HostError> {
        Err(HostError::Link { host: "bootstrap".into(), why: "no tunnels here".into() })
    }
}

/// The whole way: follower, record, matcher, and a screen that draws thirty times a second beside them.
async fn through(
    catalogue: &Catalogue,
    corpus: &Arc<Vec<Vec<u8>>>,
    lines: usize,
    pace: Option<Duration>,
) -> Result<(), Failure> {
    // What is kept: kubelet's lines below a warning are not, and here all of them are errors.
    let kept = (0..lines).filter_map(|number| corpus.get(number % corpus.len()));
    let kept = kept.filter(|line| Entry::parse(line).is_ok_and(|entry| !entry.is_duplicate())).count() as u64;
    let dir = tempfile::tempdir()?;
    let hub = Hub::start(Recorder::open(dir.path())?);
    let (tap, tapped) = tokio::sync::mpsc::channel(32);
    let (model, follower) = hub.follow().await;
    let matching = stages::diagnosis::start(catalogue, dir.path(), &model, tapped, follower, hub.sink());
    let over = Arc::new(AtomicBool::new(false));
    let (shown, events) = hub.follow().await;
    let queue = events.into_queue(1024);
    let (screen_over, run_dir) = (over.clone(), dir.path().to_owned());
    let screen = std::thread::spawn(move || frames(shown, queue, &run_dir, &screen_over));

    let cancel = CancellationToken::new();
    let out = Out::new(hub.sink(), cancel.clone()).tap(tap);
    let node = Arc::new(Node { corpus: corpus.clone(), lines, pace });
    let begun = Instant::now();
    let following =
        tokio::spawn(
            async move { bootkube::follow(node, Recogniser::new("4.18.12"), Options::bootstrap(), &out).await },
        );
    let mut have = 0;
    while have < kept {
        tokio::time::sleep(Duration::from_millis(20)).await;
        have = hub.sink().model().await.logs.get(BOOTSTRAP).map_or(0, |log| log.lines);
        if begun.elapsed() > Duration::from_secs(300) {
            return Err(format!("{have} of {kept} lines after {:?}", begun.elapsed()).into());
        }
    }
    let took = begun.elapsed();
    // While all of it is still held.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    over.store(true, Ordering::Relaxed);
    cancel.cancel();
    following.await??;
    let frames = screen.join().map_err(|_| "the screen broke")??;
    matching.abort();
    hub.close().await?;

    let mut read = SegmentReader::new(dir.path());
    let last = read.read(BOOTSTRAP, kept, 10)?;
    let events = std::fs::read(dir.path().join("run.jsonl"))?;
    let events = events.iter().filter(|byte| **byte == b'\n').count();
    let rate = lines as f64 / took.as_secs_f64();
    println!(
        "{lines} lines in {:.1} s ({rate:.0} a second), {kept} to be kept, {} missing",
        took.as_secs_f64(),
        kept - have.min(kept)
    );
    println!("  the last one is on disk: {}; {events} events", last.len() == 1);
    println!("  {frames}");
    status
        .lines()
        .filter(|line| line.starts_with("VmHWM") || line.starts_with("VmRSS"))
        .for_each(|line| println!("  {line}"));
    Ok(())
}

/// A screen of 200×60 that follows the journal; says what its frames took of a core.
fn frames(
    model: RunModel,
    mut events: tokio::sync::mpsc::Receiver<bartizan::record::Recorded>,
    run_dir: &std::path::Path,
    over: &AtomicBool,
) -> Result<String, String> {
    let fail = |error: &dyn std::fmt::Display| error.to_string();
    let mut logs = SegmentReader::new(run_dir);
    let mut screen = Screen::new(
        Keymap::load(None).map_err(|error| fail(&error))?,
        Layouts::embedded().map_err(|error| fail(&error))?,
        Glyphs::UNICODE,
    );
    let theme = Theme::load("dark", Depth::True).map_err(|error| fail(&error))?;
    let mut history = History::new(Vec::new(), model);
    let area = Rect::new(0, 0, 200, 60);
    let mut queue = vec![Input::Resize(area.width, area.height)];
    let mut times = Vec::new();
    let mut read = Duration::ZERO;
    while !over.load(Ordering::Relaxed) {
        let (begun, on_core) = (Instant::now(), used());
        while let Ok(event) = events.try_recv() {
            history.push(event);
        }
        queue.push(Input::Moved(history.place()));
        queue.push(Input::Tick(jiff::Timestamp::now()));
        let mut asked = Vec::new();
        while let Some(input) = queue.pop() {
            for effect in update(&mut screen, history.model(), input) {
                if let Effect::Log(Ask::Read { source, first, count }) = effect {
                    asked.push((source, first, count));
                }
            }
        }
        let mut buffer = Buffer::empty(area);
        render(history.model(), &screen, &theme, area, &mut buffer, jiff::Timestamp::now());
        times.push(Duration::from_secs_f64(used() - on_core));
        // The program reads logs beside the screen's task.
        let reading = Instant::now();
        for (source, first, count) in asked {
            let lines = logs.read(&source, first, count).unwrap_or_default();
            let lines = lines.into_iter().map(|line| Numbered { line, home: None }).collect();
            queue.push(Input::Lines { source, first, lines });
        }
        read = read.max(reading.elapsed());
        std::thread::sleep(Duration::from_millis(33).saturating_sub(begun.elapsed()));
    }
    times.sort();
    let at = |part: usize| times.get(times.len() * part / 100).or(times.last()).copied().unwrap_or_default();
    Ok(format!(
        "{} frames: median {:.2?}, p99 {:.2?}, worst {:.2?}; reading the log at most {read:.2?}",
        times.len(),
        at(50),
        at(99),
        times.last().copied().unwrap_or_default()
    ))
}
