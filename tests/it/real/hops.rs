//! A real journal behind two real sshd, into the files of a run.

use std::sync::Arc;
use std::time::Duration;

use bartizan::host::Host;
use bartizan::host::ssh::{SshHost, SshPool, SshTarget};
use bartizan::model::event::{Data, LogLine};
use bartizan::record::{Hub, Recorder, SegmentReader};
use bartizan::watch::Out;
use bartizan::watch::journal::{self, Options, Position};
use tokio_util::sync::CancellationToken;

use crate::host::{Sshd, eventually};
use crate::journal::{BOOT, numbers, options, write, write_plain};

const SOURCE: &str = "journal:bootstrap";

/// What happens to the line, and to the journal meanwhile.
#[derive(Clone, Copy)]
enum Cut {
    /// The first hop's connections.
    Bastion,
    /// The second's.
    Bootstrap,
    /// Both, and nobody listens for a while.
    Both,
}

/// Follows into the record until it has `enough` lines; at each of the numbers one cut happens.
async fn follow(
    (host, options): (Arc<SshHost>, Options),
    run: &std::path::Path,
    (bastion, bootstrap): (&mut Sshd, &mut Sshd),
    cuts: &[(u64, Cut)],
    mut append: impl FnMut(),
    enough: u64,
) {
    let hub = Hub::start(Recorder::open(run).unwrap());
    let (model, mut events) = hub.follow().await;
    let mut have = model.logs.get(SOURCE).map_or(0, |log| log.lines);
    let cancel = CancellationToken::new();
    let out = Out::new(hub.sink(), cancel.clone());
    let task =
        tokio::spawn(async move { journal::follow(host as Arc<dyn Host>, options, &out, &mut |_| Vec::new()).await });
    let mut cuts = cuts.iter().peekable();
    let work = async {
        while have < enough {
            let event = events.next().await.expect("the record goes on");
            match &event.data {
                Data::Lines { first, count, .. } => have = first + count - 1,
                Data::Gap { why, .. } => panic!("a gap: {why}"),
                _ => {}
            }
            if let Some((_, cut)) = cuts.next_if(|(at, _)| have >= *at) {
                // Lines may still come out of a connection that the cut before this one broke.
                eventually("there is a line to cut", || bastion.connected() && bootstrap.connected()).await;
                if let Cut::Both = cut {
                    bastion.stop_listening();
                    bootstrap.stop_listening();
                }
                let broken = match cut {
                    Cut::Bastion => bastion.cut(),
                    Cut::Bootstrap => bootstrap.cut(),
                    Cut::Both => bastion.cut() + bootstrap.cut(),
                };
                assert!(broken > 0);
                append();
                if let Cut::Both = cut {
                    tokio::time::sleep(Duration::from_millis(1500)).await;
                    bootstrap.resume();
                    bastion.resume();
                }
            }
        }
    };
    let patience = Duration::from_secs(120 + enough / 500);
    tokio::time::timeout(patience, work).await.unwrap_or_else(|_| panic!("{have} of {enough} lines"));
    assert!(cuts.peek().is_none(), "every cut was made");
    cancel.cancel();
    task.await.unwrap().unwrap();
    hub.close().await.unwrap();
}

/// The bootstrap node behind the bastion, as a run kept in `place` knows it.
fn hosts(place: &std::path::Path, bastion: &Sshd, bootstrap: &Sshd) -> (SshPool, Arc<SshHost>) {
    let pool = SshPool::new(place).unwrap();
    pool.add(bastion.target("bastion")).unwrap();
    // As the product knows a new node: by the first key it shows behind the bastion.
    let second = SshTarget {
        via: Some("bastion".into()),
        host_keys: Vec::new(),
        accept_new: true,
        ..bootstrap.target("bootstrap")
    };
    let host = pool.add(second).unwrap();
    (pool, host)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_thousand_entries_are_recorded_once_and_in_order() {
    let (mut bastion, mut bootstrap) = (Sshd::start(), Sshd::start());
    let dir = tempfile::tempdir().unwrap();
    let (journals, run) = (dir.path().join("journals"), dir.path().join("run"));
    std::fs::create_dir(&journals).unwrap();
    let file = journals.join("node.journal");
    let mut last = 200_000;
    write_plain(&file, 1..=last);
    let mut append = || {
        write_plain(&file, last + 1..=last + 100);
        last += 100;
    };
    let (_pool, host) = hosts(&dir.path().join("ssh"), &bastion, &bootstrap);
    // In the middle of the flood, and when all is read and lines come as they are said.
    let cuts = [(1, Cut::Bastion), (70_000, Cut::Both), (150_000, Cut::Bootstrap), (200_300, Cut::Both)];
    follow((host, options(&journals)), &run, (&mut bastion, &mut bootstrap), &cuts, &mut append, 200_400).await;
    let lines: Vec<LogLine> = SegmentReader::new(&run).read(SOURCE, 1, 300_000).unwrap();
    assert_eq!(lines.len(), 200_400);
    assert!(numbers(&lines).into_iter().eq(1..=200_400));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_behind_two_hops_that_break_is_recorded_once_and_in_order() {
    let (mut bastion, mut bootstrap) = (Sshd::start(), Sshd::start());
    let dir = tempfile::tempdir().unwrap();
    let (journals, run) = (dir.path().join("journals"), dir.path().join("run"));
    std::fs::create_dir(&journals).unwrap();
    let file = journals.join("node.journal");
    let mut last = 3000;
    write(&file, 1..=last, BOOT);
    let mut append = || {
        write(&file, last + 1..=last + 200, BOOT);
        last += 200;
    };
    let hosts = |name: &str, bastion: &Sshd, bootstrap: &Sshd| hosts(&dir.path().join(name), bastion, bootstrap);

    let cuts = [
        (1, Cut::Bootstrap),
        (400, Cut::Bastion),
        (1100, Cut::Both),
        (2000, Cut::Bootstrap),
        (3100, Cut::Both),
        // All is read: the line breaks while nothing is said.
        (4000, Cut::Bastion),
    ];
    let (pool, host) = hosts("first", &bastion, &bootstrap);
    follow((host, options(&journals)), &run, (&mut bastion, &mut bootstrap), &cuts, &mut append, 4200).await;
    drop(pool);

    // Another process goes on from what the record has.
    append();
    let known = SegmentReader::new(&run).last(SOURCE, 4200).unwrap().expect("line 4200");
    let options = options(&journals).start(Position::after(&known));
    let (_pool, host) = hosts("second", &bastion, &bootstrap);
    follow((host, options), &run, (&mut bastion, &mut bootstrap), &[(4400, Cut::Both)], &mut append, 4600).await;

    let lines: Vec<LogLine> = SegmentReader::new(&run).read(SOURCE, 1, 10_000).unwrap();
    assert_eq!(numbers(&lines), (1..=4600).collect::<Vec<u64>>());
}
