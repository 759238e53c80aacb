//! The processes of a machine: numbers, groups and signals for what are really tasks of this program.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::fs::Fs;
use super::io::lock;

pub(super) const HUP: i32 = 1;
pub(super) const INT: i32 = 2;
pub(super) const KILL: i32 = 9;
pub(super) const TERM: i32 = 15;

/// Signals by number, as `kill -l` names them.
pub(super) const SIGNALS: &[(i32, &str)] = &[
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (6, "ABRT"),
    (9, "KILL"),
    (10, "USR1"),
    (12, "USR2"),
    (13, "PIPE"),
    (14, "ALRM"),
    (15, "TERM"),
    (17, "CHLD"),
    (18, "CONT"),
];

/// `TERM`, `SIGTERM` or `15`.
pub(super) fn signal_number(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse() {
        return (0..=64).contains(&number).then_some(number);
    }
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    SIGNALS.iter().find(|(_, known)| *known == name).map(|(number, _)| *number)
}

#[derive(Default)]
struct State {
    group: u32,
    session: u32,
    command: String,
    user: String,
    /// Signals for which the shell has a trap.
    trapped: BTreeSet<i32>,
    ignored: BTreeSet<i32>,
    /// Trapped signals that came, oldest first.
    pending: VecDeque<i32>,
    /// The signal that ends this process.
    fatal: Option<i32>,
    /// A tool of the lab runs in it, which may end by itself when told.
    graceful: bool,
}

/// One process.
pub(super) struct Proc {
    pub pid: u32,
    pub parent: u32,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    exit: watch::Sender<Option<i32>>,
}

impl Proc {
    pub fn group(&self) -> u32 {
        lock(&self.state).group
    }
    pub fn command(&self) -> String {
        lock(&self.state).command.clone()
    }
    pub fn user(&self) -> String {
        lock(&self.state).user.clone()
    }
    /// Become the leader of a new session and group.
    pub fn lead(&self) {
        let mut state = lock(&self.state);
        state.group = self.pid;
        state.session = self.pid;
    }
    /// Whether the program in it is told before it is ended.
    pub fn graceful(&self) -> bool {
        lock(&self.state).graceful
    }
    pub fn set_graceful(&self) {
        lock(&self.state).graceful = true;
    }
    pub fn set_trap(&self, signal: i32, trapped: bool, ignored: bool) {
        let mut state = lock(&self.state);
        state.trapped.remove(&signal);
        state.ignored.remove(&signal);
        if trapped {
            state.trapped.insert(signal);
        } else if ignored {
            state.ignored.insert(signal);
        }
    }
    pub fn next_pending(&self) -> Option<i32> {
        lock(&self.state).pending.pop_front()
    }
    pub fn signal(&self, signal: i32) {
        if matches!(signal, 0 | 17 | 18) {
            return;
        }
        let mut state = lock(&self.state);
        if signal != KILL && state.ignored.contains(&signal) {
            return;
        }
        if signal != KILL && state.trapped.contains(&signal) {
            state.pending.push_back(signal);
        } else {
            state.fatal = Some(signal);
        }
        drop(state);
        self.changed.send_modify(|count| *count += 1);
    }
    /// Waits for the signal that ends the process.
    pub async fn fatal(&self) -> i32 {
        self.until(|state| state.fatal).await
    }
    /// Waits until a trapped signal came.
    pub async fn interrupted(&self) {
        self.until(|state| (!state.pending.is_empty()).then_some(())).await;
    }
    async fn until<T>(&self, found: impl Fn(&State) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(found) = found(&lock(&self.state)) {
                return found;
            }
            // The sender lives as long as `self`.
            let _ = changed.changed().await;
        }
    }
    /// Waits for the exit status.
    pub async fn ended(&self) -> i32 {
        let mut exit = self.exit.subscribe();
        loop {
            if let Some(status) = *exit.borrow_and_update() {
                return status;
            }
            let _ = exit.changed().await;
        }
    }
    pub fn status(&self) -> Option<i32> {
        *self.exit.borrow()
    }
}

/// The process table of a machine.
pub(super) struct Procs {
    next: AtomicU32,
    table: Mutex<BTreeMap<u32, Arc<Proc>>>,
    fs: Fs,
}

impl Procs {
    pub fn new(fs: Fs) -> Arc<Self> {
        // Not the numbers of the machine's last life, which may stand in files.
        let next = 1000 + fastrand::u32(0..20_000);
        let procs = Arc::new(Self { next: AtomicU32::new(next), table: Mutex::new(BTreeMap::new()), fs });
        let init = procs.make(1, 0, "/usr/lib/systemd/systemd", "root");
        init.lead();
        lock(&procs.table).insert(1, init);
        procs.show(1, 0, 1, "systemd");
        procs
    }
    fn make(&self, pid: u32, parent: u32, command: &str, user: &str) -> Arc<Proc> {
        let state = State { command: command.to_owned(), user: user.to_owned(), ..State::default() };
        let (changed, exit) = (watch::Sender::new(0), watch::Sender::new(None));
        Arc::new(Proc { pid, parent, state: Mutex::new(state), changed, exit })
    }
    /// A child of `parent`, in its group; without a parent the leader of a new session.
    pub fn start(self: &Arc<Self>, parent: Option<&Proc>, command: &str, user: &str) -> Guard {
        let pid = self.next.fetch_add(1, Ordering::Relaxed);
        let proc = self.make(pid, parent.map_or(1, |parent| parent.pid), command, user);
        proc.lead();
        if let Some(parent) = parent {
            let above = lock(&parent.state);
            let mut state = lock(&proc.state);
            (state.group, state.session) = (above.group, above.session);
            state.ignored = above.ignored.clone();
        }
        lock(&self.table).insert(pid, proc.clone());
        self.show(pid, proc.parent, proc.group(), command);
        Guard { proc, procs: self.clone() }
    }
    /// `/proc/PID`, as far as scripts look at it.
    fn show(&self, pid: u32, parent: u32, group: u32, command: &str) {
        let name = command.split_whitespace().next().unwrap_or("sh").rsplit('/').next().unwrap_or("sh");
        let dir = format!("/proc/{pid}");
        // A full disk does not keep a process from starting.
        let Ok(place) = self.fs.real(&dir) else { return };
        let _ = std::fs::create_dir_all(&place);
        let start = u64::from(pid) * 7 + 1000;
        let stat =
            format!("{pid} ({name}) S {parent} {group} {group} 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 {start} 0 0\n");
        let _ = std::fs::write(place.join("stat"), stat);
        let _ = std::fs::write(place.join("comm"), format!("{name}\n"));
        let _ = std::fs::write(place.join("cmdline"), command.replace(' ', "\0"));
    }
    /// A process becomes another program.
    pub fn becomes(&self, proc: &Proc, command: &str) {
        command.clone_into(&mut lock(&proc.state).command);
        self.show(proc.pid, proc.parent, proc.group(), command);
    }
    pub fn get(&self, pid: u32) -> Option<Arc<Proc>> {
        lock(&self.table).get(&pid).cloned()
    }
    pub fn all(&self) -> Vec<Arc<Proc>> {
        lock(&self.table).values().cloned().collect()
    }
    /// Send to every process of a group. Whether there was one.
    pub fn signal_group(&self, group: u32, signal: i32) -> bool {
        let members: Vec<_> = self.all().into_iter().filter(|proc| proc.pid != 1 && proc.group() == group).collect();
        for proc in &members {
            proc.signal(signal);
        }
        !members.is_empty()
    }
}

/// Keeps a process in the table; when dropped, it has ended.
pub(super) struct Guard {
    pub proc: Arc<Proc>,
    procs: Arc<Procs>,
}

impl Guard {
    pub fn end(self, status: i32) -> i32 {
        self.proc.exit.send_replace(Some(status));
        status
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        lock(&self.procs.table).remove(&self.proc.pid);
        if let Ok(place) = self.procs.fs.real(&format!("/proc/{}", self.proc.pid)) {
            let _ = std::fs::remove_dir_all(place);
        }
        self.proc.exit.send_if_modified(|status| {
            let gone = status.is_none();
            status.get_or_insert(128 + KILL);
            gone
        });
    }
}
