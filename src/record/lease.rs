//! Who drives a run: the lock of its folder, with a note of who holds it; and how another process comes to hold it.
//!
//! A driver that is asked to leave detaches as it would at SIGTERM: long work on the bastion goes on meanwhile.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// How often a lock is tried for: somebody who only looks holds it for a moment.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// The process that drives a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub pid: i32,
    /// Who started it.
    pub operator: String,
}

fn file(dir: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(dir.join("lock"))
}

/// Holds the run in `dir` for as long as the file lives, and notes who does. `None` when somebody else does.
pub(super) fn take(dir: &Path) -> io::Result<Option<File>> {
    let mut lock = file(dir)?;
    for _ in 0..TRIES {
        if lock.try_lock().is_ok() {
            let pid = rustix::process::getpid().as_raw_nonzero().get();
            let note = serde_json::to_string(&Holder { pid, operator: operator() }).unwrap_or_default();
            lock.set_len(0)?;
            lock.write_all(note.as_bytes())?;
            return Ok(Some(lock));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(None)
}

/// Who drives the run in `dir` now.
pub fn holder(dir: &Path) -> Option<Holder> {
    let mut lock = OpenOptions::new().read(true).open(dir.join("lock")).ok()?;
    if lock.try_lock_shared().is_ok() {
        return None;
    }
    let mut note = String::new();
    lock.read_to_string(&mut note).ok()?;
    serde_json::from_str(&note).ok()
}

/// The name of whoever started this process.
pub fn operator() -> String {
    std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "operator".into())
}

/// Why a run could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeOver {
    #[error(
        "nobody can be asked to leave: the lock does not say who holds it; end that bartizan yourself, then resume"
    )]
    Nameless,
    #[error("process {pid} cannot be asked to leave: {why}")]
    Refused { pid: i32, why: String },
    #[error("process {pid} did not leave within {seconds} s; look at its terminal, or end it, then resume")]
    Stays { pid: i32, seconds: u64 },
}

/// Asks whoever drives the run in `dir` to leave, and waits until it has. `None` when nobody did.
///
/// # Errors
/// When it does not leave.
pub fn take_over(dir: &Path, patience: Duration) -> Result<Option<Holder>, TakeOver> {
    let Ok(lock) = file(dir) else { return Ok(None) };
    if lock.try_lock_shared().is_ok() {
        return Ok(None);
    }
    // Whoever has just taken it is about to write who that is.
    let note = || {
        let note = holder(dir);
        if note.is_none() {
            std::thread::sleep(PAUSE);
        }
        note
    };
    let holder = (0..TRIES).find_map(|_| note()).ok_or(TakeOver::Nameless)?;
    let pid = Pid::from_raw(holder.pid).ok_or(TakeOver::Nameless)?;
    let me =
        serde_json::to_string(&Holder { pid: rustix::process::getpid().as_raw_nonzero().get(), operator: operator() });
    // Only to let the other say who came; it leaves without.
    let _unsaid = std::fs::write(dir.join("handover"), me.unwrap_or_default());
    kill_process(pid, Signal::TERM)
        .map_err(|error| TakeOver::Refused { pid: holder.pid, why: io::Error::from(error).kind().to_string() })?;
    let begun = Instant::now();
    while lock.try_lock_shared().is_err() {
        if begun.elapsed() > patience {
            return Err(TakeOver::Stays { pid: holder.pid, seconds: patience.as_secs() });
        }
        std::thread::sleep(PAUSE);
    }
    Ok(Some(holder))
}

/// Who has asked this process to leave its run, if anybody did. Asking again gives nobody.
pub fn taken_over_by(dir: &Path) -> Option<Holder> {
    let path = dir.join("handover");
    let text = std::fs::read_to_string(&path).ok()?;
    let _gone = std::fs::remove_file(&path);
    serde_json::from_str(&text).ok()
}
