//! Hosts against a real sshd on loopback: commands, files, tunnels, jobs and logs, also while the connection is cut.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bartizan::host::job::{Job, JobSpec, JobStatus, Started};
use bartizan::host::local::LocalHost;
use bartizan::host::ssh::{SshHost, SshPool, SshTarget, fingerprint};
use bartizan::host::tail::{TailItem, Until, follow};
use bartizan::host::{Cmd, Host, HostError, Stdin, StreamItem, quote};
use bartizan::model::event::{Data, LinkName, LinkState};
use bartizan::record::Sink;
use bartizan::record::sink::Entry;
use bartizan::spec::Secret;
use futures::StreamExt;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub use crate::sshd::{Sshd, user};

/// The arguments of every process but this, each with a NUL after it.
pub fn argvs() -> impl Iterator<Item = String> {
    argvs_with_pid().map(|(_, argv)| argv)
}

/// The same, with the process's id.
pub fn argvs_with_pid() -> impl Iterator<Item = (i32, String)> {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_string_lossy().parse::<i32>().ok());
    pids.filter(|pid| u32::try_from(*pid).is_ok_and(|pid| pid != std::process::id())).filter_map(|pid| {
        let argv = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some((pid, String::from_utf8_lossy(&argv).into_owned()))
    })
}

/// Whether a `sleep` of that many seconds runs.
fn sleeping(seconds: &str) -> bool {
    argvs().any(|argv| argv == format!("sleep\0{seconds}\0"))
}

/// An odd number of seconds to sleep, by which a process of this test run is found again.
fn mark(number: u32) -> String {
    format!("29{number}.{}", std::process::id())
}

pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !holds() {
        assert!(Instant::now() < deadline, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A bastion behind a real sshd, and what it needs to live.
struct Bastion {
    sshd: Sshd,
    pool: SshPool,
    host: Arc<SshHost>,
    directory: tempfile::TempDir,
}

impl Bastion {
    fn new() -> Self {
        let sshd = Sshd::start();
        let directory = tempfile::tempdir().expect("a directory");
        let pool = SshPool::new(&directory.path().join("run/ssh")).expect("a pool");
        let host = pool.add(sshd.target("bastion")).expect("a target");
        Self { sshd, pool, host, directory }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_string_lossy().into_owned()
    }

    fn job(&self, name: &str, cmd: Cmd) -> Job {
        let spec = JobSpec { name: name.to_owned(), cmd, dir: self.path("jobs") };
        Job::new(Arc::clone(&self.host) as Arc<dyn Host>, spec).expect("a job")
    }
}

const HOSTILE: &[&str] =
    &["", " ", "a b", "'", "\"", "$HOME", "`id`", "$(id)", ";id", "\n", "é\t\\", "-n", "*", "~", "\u{1b}[2J"];

#[tokio::test]
async fn commands_run_as_they_were_given() {
    let bastion = Bastion::new();
    for host in [&*bastion.host as &dyn Host, &LocalHost::default()] {
        let script = r#"printf "%s\n" "$V"; for word; do printf "%s|" "$word"; done; echo oops >&2; exit 7"#;
        let cmd = Cmd::sh(script).args(HOSTILE.iter().copied()).env("V", "it's $HOME");
        let output = host.exec(&cmd).await.unwrap();
        assert_eq!(output.status, 7);
        let words: String = HOSTILE.iter().map(|word| format!("{word}|")).collect();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("it's $HOME\n{words}"));
        assert_eq!(output.stderr, b"oops\n");
        assert_eq!(host.exec(&Cmd::new("no-such-program")).await.unwrap().status, 127);
        assert_eq!(host.exec(&Cmd::sh("kill -KILL $$")).await.unwrap().status, 137);

        let slow = Cmd::new("sleep").arg(mark(1)).timeout(Some(Duration::from_secs(1)));
        assert!(matches!(host.exec(&slow).await, Err(HostError::Timeout { .. })));
        eventually("the timed-out command is gone", || !sleeping(&mark(1))).await;

        let lines: Vec<_> =
            host.stream(&Cmd::sh("echo one; echo two >&2; printf three; exit 4")).await.unwrap().collect().await;
        let lines: Vec<StreamItem> = lines.into_iter().map(Result::unwrap).collect();
        assert!(lines.contains(&StreamItem::Err(b"two".to_vec())));
        let rest: Vec<_> = lines.into_iter().filter(|item| !matches!(item, StreamItem::Err(_))).collect();
        let want = [StreamItem::Out(b"one".to_vec()), StreamItem::Out(b"three".to_vec()), StreamItem::Exit(4)];
        assert_eq!(rest, want);
    }
}

#[tokio::test]
async fn a_secret_goes_in_by_standard_input_only() {
    let bastion = Bastion::new();
    let canary = "canary-7f1d2b-secret";
    for host in [&*bastion.host as &dyn Host, &LocalHost::default()] {
        let cmd = Cmd::sh("cat; sleep 1").stdin(Stdin::Secret(Secret::new(canary)));
        let (output, seen) = tokio::join!(host.exec(&cmd), async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            argvs().any(|argv| argv.contains(canary))
        });
        assert_eq!(output.unwrap().text(), canary);
        assert!(!seen);
    }
}

#[tokio::test]
async fn files_arrive_whole_with_their_mode() {
    use std::os::unix::fs::PermissionsExt;
    let bastion = Bastion::new();
    let large: Arc<[u8]> = (0..40 << 20).map(|n: u32| (n ^ (n >> 11)) as u8).collect();
    for (name, host) in [("ssh", &*bastion.host as &dyn Host), ("local", &LocalHost::default())] {
        let path = bastion.path(&format!("{name}/it's a dir/-file"));
        assert_eq!(host.get(&path).await.unwrap(), None);
        host.put(&path, Stdin::Empty, 0o600).await.unwrap();
        assert_eq!(host.get(&path).await.unwrap(), Some(Vec::new()));
        host.put(&path, Stdin::Bytes(Arc::clone(&large)), 0o755).await.unwrap();
        assert!(host.get(&path).await.unwrap().unwrap() == *large);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
        host.put(&path, Stdin::Secret(Secret::new("canary-in-a-file")), 0o600).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let directory = Path::new(&path).parent().unwrap();
        assert_eq!(std::fs::read_dir(directory).unwrap().count(), 1, "nothing is left beside it");
        let refused = host.put(&directory.to_string_lossy(), Stdin::Empty, 0o600).await;
        assert!(matches!(refused, Err(HostError::Failed { .. })), "a directory is not replaced");
    }
}

#[tokio::test]
async fn a_cut_upload_changes_nothing() {
    let mut bastion = Bastion::new();
    let path = bastion.path("file");
    bastion.host.put(&path, Stdin::Bytes(b"before".as_slice().into()), 0o600).await.unwrap();
    let host = Arc::clone(&bastion.host);
    let large: Arc<[u8]> = vec![7; 200 << 20].into();
    let target = path.clone();
    let upload = tokio::spawn(async move { host.put(&target, Stdin::Bytes(large), 0o600).await });
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(bastion.sshd.cut() > 0);
    assert!(upload.await.unwrap().unwrap_err().is_link());
    assert_eq!(bastion.host.get(&path).await.unwrap().unwrap(), b"before");
    let directory = bastion.directory.path().to_owned();
    eventually("the part is removed", || {
        std::fs::read_dir(&directory)
            .unwrap()
            .flatten()
            .all(|entry| !entry.file_name().to_string_lossy().contains(".part."))
    })
    .await;
}

#[tokio::test]
async fn host_keys_are_pinned() {
    let sshd = Sshd::start();
    let other = Sshd::start();
    let directory = tempfile::tempdir().unwrap();
    let pool = SshPool::new(directory.path()).unwrap();

    let unpinned = SshTarget { host_keys: Vec::new(), ..sshd.target("bastion") };
    let why = pool.add(unpinned.clone()).err().unwrap().to_string();
    assert!(why.contains("ssh-keyscan"), "{why}");
    assert!(pool.add(SshTarget { accept_new: true, ..unpinned.clone() }).is_err(), "not without a verified jump host");
    let learned = pool.learn_host_key(&unpinned).await.unwrap();
    let bare = |key: &str| key.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    assert_eq!(learned, [bare(&sshd.host_key())]);
    assert!(fingerprint(&learned[0]).unwrap().starts_with("SHA256:"));

    let wrong = pool.add(SshTarget { host_keys: vec![other.host_key()], ..sshd.target("bastion") }).unwrap();
    let started = Instant::now();
    let error = wrong.exec(&Cmd::new("true")).await.unwrap_err();
    assert!(
        matches!(&error, HostError::Refused { why, .. } if why.contains("host key is not the pinned one")),
        "{error}"
    );
    assert!(started.elapsed() < Duration::from_secs(10), "a refusal is told at once");

    let right = pool.add(SshTarget { host_keys: learned, ..unpinned }).unwrap();
    assert!(right.exec(&Cmd::new("true")).await.unwrap().ok());
    let key = SshTarget { identity: Some(other.identity()), ..sshd.target("intruder") };
    let error = pool.add(key).unwrap().exec(&Cmd::new("true")).await.unwrap_err();
    assert!(matches!(&error, HostError::Refused { why, .. } if why.contains("login was refused")), "{error}");
    let hostile = SshTarget { address: "-oProxyCommand=id".to_owned(), ..sshd.target("hostile") };
    assert!(matches!(pool.add(hostile), Err(HostError::Refused { .. })));
}

#[tokio::test]
async fn a_second_hop_goes_through_the_first() {
    let mut bastion = Bastion::new();
    let bootstrap = Sshd::start();
    let target = SshTarget {
        via: Some("bastion".to_owned()),
        host_keys: Vec::new(),
        accept_new: true,
        ..bootstrap.target("bootstrap")
    };
    let host = bastion.pool.add(target.clone()).unwrap();
    let output = host.exec(&Cmd::sh("echo ${SSH_CONNECTION##* }")).await.unwrap();
    assert_eq!(output.text(), bootstrap.port().to_string());
    assert!(bastion.sshd.cut() > 0, "the way is by the bastion");

    // As an operator would use the same files.
    let manual = format!("{} true", bastion.pool.manual_command("bootstrap"));
    assert!(LocalHost::default().exec(&Cmd::sh(manual)).await.unwrap().ok());

    // The next installation has the same address and another key.
    let reborn = Sshd::start();
    let target = SshTarget { port: reborn.port(), identity: Some(reborn.identity()), ..target };
    let host = bastion.pool.add(target).unwrap();
    assert!(matches!(host.exec(&Cmd::new("true")).await, Err(HostError::Refused { .. })));
    bastion.pool.forget_host_key("bootstrap").unwrap();
    assert!(host.exec(&Cmd::new("true")).await.unwrap().ok());
}

#[tokio::test]
async fn a_tunnel_carries_bytes_also_over_a_new_connection() {
    let mut bastion = Bastion::new();
    let echo = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = echo.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = echo.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = client.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    let tunnel = bastion.host.tunnel("127.0.0.1", port).await.unwrap();
    assert_ne!(tunnel.local().port(), port);
    for round in 0..2 {
        let sent: Vec<u8> = (0..1 << 20).map(|n: u32| (n % 251) as u8).collect();
        let (mut read, mut write) = tokio::net::TcpStream::connect(tunnel.local()).await.unwrap().into_split();
        let mut got = vec![0; sent.len()];
        let (wrote, read) = tokio::join!(write.write_all(&sent), read.read_exact(&mut got));
        wrote.unwrap();
        read.unwrap();
        assert!(got == sent, "round {round}");
        bastion.sshd.cut();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let local = tunnel.local();
    drop(tunnel);
    eventually("the port is closed", || std::net::TcpStream::connect(local).is_err()).await;
}

#[tokio::test]
async fn a_dropped_stream_ends_its_command() {
    let mut bastion = Bastion::new();
    let local = LocalHost::default();
    for (mark, host) in [(mark(11), &*bastion.host as &dyn Host), (mark(12), &local)] {
        let mut stream = host.stream(&Cmd::sh("echo up; sleep $1 & sleep $1").arg(&mark)).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), StreamItem::Out(b"up".to_vec()));
        eventually("the command runs", || sleeping(&mark)).await;
        drop(stream);
        eventually("the command is gone", || !sleeping(&mark)).await;
    }
    // The same when the connection goes, and the stream says so.
    let mut stream = bastion.host.stream(&Cmd::sh("echo up; sleep $1").arg(mark(13))).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), StreamItem::Out(b"up".to_vec()));
    bastion.sshd.cut();
    assert!(stream.next().await.unwrap().unwrap_err().is_link());
    assert!(stream.next().await.is_none());
    eventually("the command is gone", || !sleeping(&mark(13))).await;
}

#[tokio::test]
async fn the_link_tells_how_it_is() {
    let mut bastion = Bastion::new();
    let (sink, mut entries) = Sink::channel(100);
    let host = bastion.host.with_sink(sink, LinkName::Ssh);
    for _ in 0..3 {
        assert!(host.exec(&Cmd::new("true")).await.unwrap().ok());
    }
    bastion.sshd.stop_listening();
    bastion.sshd.cut();
    let short = Cmd::new("true").timeout(Some(Duration::from_secs(3)));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let started = Instant::now();
    let error = host.exec(&short).await.unwrap_err();
    assert!(error.is_link() && error.to_string().contains("Connection refused"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
    bastion.sshd.resume();
    assert!(host.exec(&Cmd::new("true")).await.unwrap().ok());

    let mut states = Vec::new();
    while let Ok(entry) = entries.try_recv() {
        match entry {
            Entry::Event(data, _) => match *data {
                Data::Link { link: LinkName::Ssh, state } => states.push(state),
                other => panic!("{other:?}"),
            },
            Entry::Lines { .. } | Entry::Model(_) | Entry::Finish => panic!("lines"),
        }
    }
    assert_eq!(states.first(), Some(&LinkState::Up));
    assert_eq!(states.last(), Some(&LinkState::Up));
    let between = &states[1..states.len() - 1];
    assert!(
        between.len() >= 2 && between.iter().all(|state| matches!(state, LinkState::Retrying { .. })),
        "{states:?}"
    );
}

#[tokio::test]
async fn a_job_outlives_the_connection() {
    let mut bastion = Bastion::new();
    let script = r#"echo begun; echo "trouble" >&2; until [ -e "$1" ]; do sleep 0.1; done; umask; exit 3"#;
    let enough = bastion.path("enough");
    let cmd = Cmd::sh(script).arg(&enough);
    let job = bastion.job("install", cmd.clone());
    assert_eq!(job.status().await.unwrap(), JobStatus::NotStarted);
    let Started::New { pid } = job.start().await.unwrap() else { panic!("it is new") };
    bastion.sshd.cut();
    // Two at once find the one that runs.
    let again = bastion.job("install", cmd);
    let (one, two) = tokio::join!(job.start(), again.start());
    assert_eq!((one.unwrap(), two.unwrap()), (Started::Adopted { pid }, Started::Adopted { pid }));
    assert!(
        matches!(job.status().await.unwrap(), JobStatus::Running { pid: running, heartbeat_age } if running == pid && heartbeat_age.as_secs() < 10)
    );
    let busy = bastion.job("install", Cmd::new("true")).start().await.unwrap_err().to_string();
    assert!(busy.contains("another command"), "{busy}");
    std::fs::write(&enough, "").unwrap();
    let lines: Vec<TailItem> = job.follow(0).collect().await;
    assert_eq!(lines[0], TailItem::Line { text: "begun".to_owned(), offset_after: 6 });
    assert_eq!(lines.len(), 2);
    assert_eq!(job.status().await.unwrap(), JobStatus::Ended { status: 3 });
    assert_eq!(job.last_words(100).await.unwrap(), "trouble");
    std::fs::remove_file(&enough).unwrap();
    assert!(matches!(job.start().await.unwrap(), Started::New { .. }), "one that has ended is started anew");
    job.stop(Duration::from_secs(5)).await.unwrap();
    assert_eq!(job.status().await.unwrap(), JobStatus::Ended { status: 143 });
}

#[tokio::test]
async fn many_starters_start_one() {
    let bastion = Bastion::new();
    // Over SSH and on the machine itself.
    let local = |job: &Job, cmd: &Cmd| {
        let spec = JobSpec { name: job.name().to_owned(), cmd: cmd.clone(), dir: bastion.path("jobs") };
        Job::new(Arc::new(LocalHost::default()), spec).unwrap()
    };
    let cmd = Cmd::new("sleep").arg(mark(21));
    let mut jobs: Vec<Job> = (0..3).map(|_| bastion.job("sync", cmd.clone())).collect();
    jobs.extend((0..3).map(|n| local(&jobs[n], &cmd)).collect::<Vec<_>>());
    let started = futures::future::join_all(jobs.iter().map(Job::start)).await;
    let new = started.iter().filter(|started| matches!(started, Ok(Started::New { .. }))).count();
    let adopted = started.iter().filter(|started| matches!(started, Ok(Started::Adopted { .. }))).count();
    assert_eq!((new, adopted), (1, 5), "{started:?}");

    // What ignores TERM is killed, and what was killed behind our back is lost.
    jobs[0].stop(Duration::from_secs(5)).await.unwrap();
    eventually("the command is gone", || !sleeping(&mark(21))).await;
    let stubborn = bastion.job("stubborn", Cmd::sh("trap '' TERM; echo up; sleep $1; sleep $1").arg(mark(22)));
    stubborn.start().await.unwrap();
    let up = stubborn.follow(0).next().await;
    assert!(matches!(up, Some(TailItem::Line { .. })), "{up:?}");
    stubborn.stop(Duration::from_secs(1)).await.unwrap();
    assert_eq!(stubborn.status().await.unwrap(), JobStatus::Ended { status: 137 });
    eventually("the command is gone", || !sleeping(&mark(22))).await;

    let lost = bastion.job("lost", Cmd::new("sleep").arg(mark(23)));
    let Started::New { pid } = lost.start().await.unwrap() else { panic!("it is new") };
    LocalHost::default().exec(&Cmd::sh(r#"kill -s KILL -- "-$1""#).arg(pid.to_string())).await.unwrap();
    let mut status = lost.status().await.unwrap();
    for _ in 0..20 {
        if status == JobStatus::Lost {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        status = lost.status().await.unwrap();
    }
    assert_eq!(status, JobStatus::Lost);
    assert_eq!(lost.follow(0).count().await, 0, "the log of a lost job ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_followed_through_cut_connections() {
    const LINES: u64 = 10_000;
    let mut bastion = Bastion::new();
    let script = r#"n=0; while [ "$n" -lt "$1" ]; do n=$((n + 1)); echo "line $n of the log"; [ $((n % 100)) = 0 ] && sleep 0.06; done; printf "no newline""#;
    let job = bastion.job("sync", Cmd::sh(script).arg(LINES.to_string()));
    // The log is followed before there is one.
    let items = tokio::spawn(job.follow(0).collect::<Vec<_>>());
    tokio::time::sleep(Duration::from_millis(500)).await;
    job.start().await.unwrap();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        bastion.sshd.cut();
    }
    bastion.sshd.stop_listening();
    bastion.sshd.cut();
    tokio::time::sleep(Duration::from_secs(3)).await;
    bastion.sshd.resume();
    let items = items.await.unwrap();

    let lines: Vec<(&str, u64)> = items
        .iter()
        .filter_map(|item| match item {
            TailItem::Line { text, offset_after } => Some((text.as_str(), *offset_after)),
            _ => None,
        })
        .collect();
    let mut want: Vec<String> = (1..=LINES).map(|n| format!("line {n} of the log")).collect();
    want.push("no newline".to_owned());
    assert!(lines.iter().map(|(text, _)| *text).eq(want.iter().map(String::as_str)), "{} lines", lines.len());
    let mut offset = 0;
    for (text, after) in &lines[..lines.len() - 1] {
        offset += text.len() as u64 + 1;
        assert_eq!(*after, offset);
    }
    assert!(items.contains(&TailItem::Reattached));
    assert!(!items.iter().any(|item| matches!(item, TailItem::Gap { .. })));
    assert_eq!(job.status().await.unwrap(), JobStatus::Ended { status: 0 });

    // A later process goes on from any line.
    let (_, from) = lines[4_999];
    let rest: Vec<TailItem> = job.follow(from).collect().await;
    assert_eq!(rest.len() as u64, LINES - 5_000 + 1);
    assert!(matches!(&rest[0], TailItem::Line { text, .. } if text == "line 5001 of the log"));
}

#[tokio::test]
async fn a_replaced_file_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log").to_string_lossy().into_owned();
    let told = tokio_util::sync::CancellationToken::new();
    let host: Arc<dyn Host> = Arc::new(LocalHost::default());
    let mut items = follow(host, path.as_str(), 0, Until::Told(told.clone()));
    let line = |text: &str, offset_after| Some(TailItem::Line { text: text.to_owned(), offset_after });
    std::fs::write(&path, "one\ntwo\nthr").unwrap();
    assert_eq!(items.next().await, line("one", 4));
    assert_eq!(items.next().await, line("two", 8));
    tokio::time::sleep(Duration::from_millis(500)).await;
    std::fs::write(&path, "1\n").unwrap();
    assert!(matches!(items.next().await, Some(TailItem::Gap { .. })));
    assert_eq!(items.next().await, line("1", 2));
    // Longer than before, so that only its content shows that it is another.
    std::fs::write(&path, "another file\n").unwrap();
    assert!(matches!(items.next().await, Some(TailItem::Gap { .. })));
    assert_eq!(items.next().await, line("another file", 13));
    std::fs::write(&path, "another file\nlast").unwrap();
    told.cancel();
    assert_eq!(items.next().await, line("last", 17));
    assert_eq!(items.next().await, None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn a_quoted_word_is_that_word(word in "[^\u{0}]*") {
        let line = Cmd::new("printf").args(["%s", word.as_str()]).line();
        let output = Command::new("sh").arg("-c").arg(line).output().unwrap();
        prop_assert_eq!(String::from_utf8(output.stdout).unwrap(), word.clone());
        let echoed = Command::new("sh").arg("-c").arg(format!("printf %s {}", quote(&word))).output().unwrap();
        prop_assert_eq!(String::from_utf8(echoed.stdout).unwrap(), word);
    }
}
