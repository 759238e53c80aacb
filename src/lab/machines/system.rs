//! What an operating system does around files and programs: units, processes, ports, disks, packages.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_util::sync::CancellationToken;

use super::coreutils::{command_options, options};
use super::fs::Open;
use super::io::{Fd, lock, pipe};
use super::journal::Entry;
use super::proc::{KILL, Proc, TERM, signal_number};
use super::program::{Cx, Fds, supervise};
use super::shell::Shell;
use super::shell::pattern::Pattern;
use super::{Machine, home_of};

/// systemd gives up after this many starts in a row.
const MAX_RESTARTS: u32 = 5;
/// How long a unit may take to stop before it is killed.
const STOP: Duration = Duration::from_secs(10);
/// Units that run on every machine and have no file.
const BASIC: &[&str] =
    &["sshd.service", "chronyd.service", "NetworkManager.service", "systemd-journald.service", "firewalld.service"];

pub(super) async fn nothing(_: &mut Cx) -> io::Result<i32> {
    Ok(0)
}

/// `dnf`, `yum`, `apt-get`: there is nothing to install from, and nothing missing.
pub(super) async fn packages(cx: &mut Cx) -> io::Result<i32> {
    for word in cx.words().iter().filter(|word| !word.starts_with('-')).skip(1) {
        cx.out(format!("Package {word} is already installed.\n")).await?;
    }
    cx.out("Nothing to do.\nComplete!\n").await.map(|()| 0)
}

/// `update-ca-trust` and `update-ca-certificates`: the anchors, one after the other, become the bundle.
pub(super) async fn trust(cx: &mut Cx) -> io::Result<i32> {
    let fs = cx.machine.fs();
    let mut bundle = Vec::new();
    for dir in ["/etc/pki/ca-trust/source/anchors", "/usr/local/share/ca-certificates"] {
        for name in fs.list(dir).unwrap_or_default() {
            bundle.extend(fs.read(&format!("{dir}/{name}"))?);
        }
    }
    for path in ["/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/pki/tls/certs/ca-bundle.crt"] {
        if let Err(error) = fs.write(path, &bundle) {
            return Ok(cx.fail(path, &error).await);
        }
    }
    Ok(0)
}

/// `chronyc tracking` tells how far the clock is off; `makestep` puts it right at once, for root only.
pub(super) async fn chronyc(cx: &mut Cx) -> io::Result<i32> {
    let words = cx.words();
    let seconds = cx.machine.skew().seconds();
    match words.iter().find(|word| !word.starts_with('-')).map(String::as_str) {
        Some("makestep" | "burst") if cx.user != "root" => {
            cx.out("501 Not authorised\n").await?;
            Ok(1)
        }
        Some("makestep") => {
            cx.machine.skew().set(0);
            cx.out("200 OK\n").await.map(|()| 0)
        }
        Some("burst" | "online" | "waitsync") => cx.out("200 OK\n").await.map(|()| 0),
        _ => {
            let (off, side) = match seconds {
                0 => ("0.000004".to_owned(), "fast"),
                slow if slow < 0 => (format!("{}.000000", slow.unsigned_abs()), "slow"),
                fast => (format!("{fast}.000000"), "fast"),
            };
            cx.out(format!(
                "Reference ID    : A9FEA97B (169.254.169.123)\nStratum         : 4\n\
                 System time     : {off} seconds {side} of NTP time\nLeap status     : Normal\n"
            ))
            .await
            .map(|()| 0)
        }
    }
}

pub(super) async fn ss(cx: &mut Cx) -> io::Result<i32> {
    let mut text = "State  Recv-Q Send-Q Local Address:Port Peer Address:Port\n".to_owned();
    if cx.words().iter().any(|word| word.contains('H')) {
        text.clear();
    }
    for port in cx.machine.ports() {
        text.push_str(&format!("LISTEN 0      4096         0.0.0.0:{port}        0.0.0.0:*\n"));
    }
    cx.out(text).await.map(|()| 0)
}

pub(super) async fn lsblk(cx: &mut Cx) -> io::Result<i32> {
    let fs = cx.machine.fs();
    let gib = |bytes: u64| format!("{}G", bytes >> 30);
    let (disk, part) = (gib(fs.device_bytes()), gib(fs.limit()));
    cx.out(format!("NAME        SIZE TYPE MOUNTPOINTS\nnvme0n1     {disk} disk\n└─nvme0n1p4 {part} part /\n"))
        .await
        .map(|()| 0)
}

pub(super) async fn growpart(cx: &mut Cx) -> io::Result<i32> {
    let fs = cx.machine.fs();
    let (old, new) = (fs.limit() / 512, fs.device_bytes() / 512);
    if new <= old {
        cx.out("NOCHANGE: partition 4 could not be grown\n").await?;
        return Ok(1);
    }
    cx.out(format!("CHANGED: partition=4 start=1050624 old: size={old} new: size={new}\n")).await.map(|()| 0)
}

/// `xfs_growfs` and `resize2fs`: the file system becomes as large as the disk.
pub(super) async fn grow_fs(cx: &mut Cx) -> io::Result<i32> {
    let fs = cx.machine.fs();
    let (old, new) = (fs.limit(), fs.device_bytes());
    if new > old {
        fs.set_limit(new);
    }
    cx.out(format!("data blocks changed from {} to {}\n", old / 4096, fs.limit() / 4096)).await.map(|()| 0)
}

pub(super) async fn loginctl(cx: &mut Cx) -> io::Result<i32> {
    let words = cx.words();
    let user = words.get(1).unwrap_or(&cx.user).clone();
    let path = format!("/var/lib/systemd/linger/{user}");
    match words.first().map(String::as_str) {
        Some("enable-linger") => cx.machine.fs().write(&path, b"")?,
        Some("disable-linger") if cx.machine.fs().exists(&path) => cx.machine.fs().remove(&path)?,
        Some("show-user") => {
            let linger = if cx.machine.fs().exists(&path) { "yes" } else { "no" };
            let value = words.iter().any(|word| word == "--value");
            cx.out(if value { format!("{linger}\n") } else { format!("Linger={linger}\n") }).await?;
        }
        _ => {}
    }
    Ok(0)
}

/// `kill [-s SIGNAL | -SIGNAL] [--] PID…`, where a negative number is a group.
pub(super) async fn kill(cx: &mut Cx) -> io::Result<i32> {
    let mut words = cx.words().into_iter().peekable();
    let mut signal = TERM;
    if let Some(first) = words.next_if(|word| word.starts_with('-') && word != "--") {
        let name = match first.as_str() {
            "-s" | "-n" => words.next().unwrap_or_default(),
            "-l" => {
                let names: Vec<&str> = super::proc::SIGNALS.iter().map(|(_, name)| *name).collect();
                return cx.out(names.join(" ") + "\n").await.map(|()| 0);
            }
            first => first.trim_start_matches('-').to_owned(),
        };
        signal = match signal_number(&name) {
            Some(signal) => signal,
            None => {
                cx.complain(format!("{name}: invalid signal specification")).await;
                return Ok(1);
            }
        };
    }
    words.next_if_eq("--");
    let mut status = 0;
    for word in words {
        let procs = cx.machine.procs();
        let found = match word.strip_prefix('-').unwrap_or(&word).parse::<u32>() {
            Ok(group) if word.starts_with('-') => procs.signal_group(group, signal),
            Ok(0) => procs.signal_group(cx.proc.group(), signal),
            Ok(pid) => match procs.get(pid) {
                Some(proc) => {
                    proc.signal(signal);
                    true
                }
                None => false,
            },
            Err(_) => {
                cx.complain(format!("{word}: arguments must be process or job IDs")).await;
                status = 1;
                continue;
            }
        };
        if !found {
            cx.complain(format!("({word}) - No such process")).await;
            status = 1;
        }
    }
    Ok(status)
}

pub(super) async fn ps(cx: &mut Cx) -> io::Result<i32> {
    // `ps -p PID -o …`, `ps -ef`, `ps aux`: one shape for all.
    let words = cx.words();
    let only = words.iter().position(|word| word == "-p").and_then(|at| words.get(at + 1)).cloned();
    let only: Option<Vec<u32>> = only.map(|list| list.split(',').filter_map(|pid| pid.parse().ok()).collect());
    let column = words.iter().position(|word| word == "-o").and_then(|at| words.get(at + 1)).cloned();
    let mut text = match &column {
        Some(column) if column.ends_with('=') => String::new(),
        Some(column) => format!("{}\n", column.to_uppercase()),
        None => "    PID    PPID    PGID USER     COMMAND\n".to_owned(),
    };
    let mut found = false;
    for proc in cx.machine.procs().all() {
        if only.as_ref().is_some_and(|only| !only.contains(&proc.pid)) {
            continue;
        }
        found = true;
        let (pid, parent, group, command) = (proc.pid, proc.parent, proc.group(), proc.command());
        let field = |name: &str| match name.trim_end_matches('=') {
            "pid" => pid.to_string(),
            "ppid" => parent.to_string(),
            "pgid" | "pgrp" => group.to_string(),
            "user" => proc.user(),
            "comm" => command.split(' ').next().unwrap_or_default().to_owned(),
            "stat" | "state" => "S".to_owned(),
            _ => command.clone(),
        };
        text.push_str(&match &column {
            Some(column) => column.split(',').map(field).collect::<Vec<_>>().join(" ") + "\n",
            None => format!("{pid:7} {parent:7} {group:7} {:8} {command}\n", proc.user()),
        });
    }
    cx.out(text).await?;
    Ok(i32::from(!found))
}

/// `pgrep [-f] [-x] [-g GROUP] PATTERN` and `pkill`.
pub(super) async fn pgrep(cx: &mut Cx) -> io::Result<i32> {
    let kills = cx.name() == "pkill";
    let mut signal = TERM;
    let mut words: Vec<String> = cx.words();
    let mut group: Option<u32> = None;
    if let Some(at) = words.iter().position(|word| word == "-g").filter(|at| at + 1 < words.len()) {
        group = words.drain(at..at + 2).nth(1).and_then(|number| number.parse().ok());
    }
    let (options, rest): (Vec<_>, Vec<_>) = words.into_iter().partition(|word| word.starts_with('-'));
    for option in &options {
        if kills && let Some(number) = signal_number(option.trim_start_matches('-')) {
            signal = number;
        }
    }
    let full = options.iter().any(|option| option.contains('f'));
    let Some(Ok(regex)) = rest.last().map(|pattern| regex::Regex::new(pattern)) else { return Ok(2) };
    let mut found = false;
    for proc in cx.machine.procs().all() {
        let command = proc.command();
        let name = command.split(' ').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        if proc.pid == cx.proc.pid || proc.pid == 1 || !regex.is_match(if full { &command } else { name }) {
            continue;
        }
        if group.is_some_and(|group| group != proc.group()) {
            continue;
        }
        found = true;
        if kills {
            proc.signal(signal);
        } else {
            cx.out(format!("{}\n", proc.pid)).await?;
        }
    }
    Ok(i32::from(!found))
}

/// What systemd knows about the units of a machine.
#[derive(Default)]
pub(super) struct Units(Mutex<BTreeMap<String, Unit>>);

#[derive(Clone, Default)]
struct Unit {
    active: Phase,
    proc: Option<Arc<Proc>>,
    stop: CancellationToken,
    status: i32,
    restarts: u32,
    /// Of one that is no program here: cancelled when it is started again.
    revived: Option<CancellationToken>,
}

impl Units {
    pub(super) fn fail(&self, name: &str) -> CancellationToken {
        let revived = CancellationToken::new();
        let unit = Unit { active: Phase::Failed, status: 1, revived: Some(revived.clone()), ..Unit::default() };
        lock(&self.0).insert(name.to_owned(), unit);
        revived
    }
}

/// `ActiveState`.
#[derive(Clone, Copy, Default, PartialEq)]
enum Phase {
    #[default]
    Inactive,
    Activating,
    Running,
    Failed,
}

impl Phase {
    fn text(self) -> (&'static str, &'static str) {
        match self {
            Phase::Inactive => ("inactive", "dead"),
            Phase::Activating => ("activating", "auto-restart"),
            Phase::Running => ("active", "running"),
            Phase::Failed => ("failed", "failed"),
        }
    }
}

/// What a unit file says, as far as it matters here.
#[derive(Clone, Default)]
struct Service {
    name: String,
    description: String,
    before: Vec<String>,
    commands: Vec<String>,
    oneshot: bool,
    remain: bool,
    restart: String,
    wait: Duration,
    user: String,
    dir: Option<String>,
    env: BTreeMap<String, String>,
    stdout: Option<String>,
    stderr: Option<String>,
    wanted_by: Vec<String>,
    transient: bool,
}

impl Service {
    /// One `Key=value`; unknown keys are ignored, as systemd does.
    fn set(&mut self, key: &str, value: &str) {
        let value = value.trim();
        match key.trim() {
            "Description" => value.clone_into(&mut self.description),
            "ExecStart" if value.is_empty() => self.commands.clear(),
            "ExecStart" => self.commands.push(value.to_owned()),
            "ExecStartPre" => self.before.push(value.to_owned()),
            "Type" => self.oneshot = value == "oneshot",
            "RemainAfterExit" => self.remain = matches!(value, "yes" | "true" | "1"),
            "Restart" => value.clone_into(&mut self.restart),
            "RestartSec" => {
                let number = value.trim_end_matches("ms").trim_end_matches(['s', 'm']);
                let unit = if value.ends_with("ms") { 0.001 } else { 1.0 };
                let seconds = number.parse::<f64>().unwrap_or(0.1) * unit;
                self.wait = Duration::from_secs_f64(if seconds.is_finite() { seconds.clamp(0.0, 3600.0) } else { 0.1 });
            }
            "User" => value.clone_into(&mut self.user),
            "WorkingDirectory" => self.dir = Some(value.trim_start_matches('-').to_owned()),
            "StandardOutput" => self.stdout = Some(value.to_owned()),
            "StandardError" => self.stderr = Some(value.to_owned()),
            "WantedBy" => self.wanted_by.extend(value.split_whitespace().map(str::to_owned)),
            "Environment" => {
                for word in value.split_whitespace() {
                    if let Some((name, value)) = word.trim_matches('"').split_once('=') {
                        self.env.insert(name.to_owned(), value.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
}

fn dirs(user: Option<&str>) -> Vec<String> {
    match user {
        Some(user) => vec![format!("{}/.config/systemd/user", home_of(user)), "/usr/lib/systemd/user".to_owned()],
        None => ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system"].map(str::to_owned).to_vec(),
    }
}

fn load(machine: &Machine, unit: &str, user: Option<&str>) -> Option<Service> {
    let dir = dirs(user).into_iter().find(|dir| machine.fs().exists(&format!("{dir}/{unit}")))?;
    let text = machine.fs().read(&format!("{dir}/{unit}")).ok()?;
    let text = String::from_utf8_lossy(&text).replace("\\\n", " ");
    let user = user.unwrap_or("root");
    let mut service = Service {
        name: unit.to_owned(),
        description: unit.to_owned(),
        user: user.to_owned(),
        wait: Duration::from_millis(100),
        ..Service::default()
    };
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';', '['])) {
        if let Some((key, value)) = line.split_once('=') {
            service.set(key, &value.replace("%h", &home_of(user)).replace("%n", unit));
        }
    }
    Some(service)
}

fn unit_name(name: &str) -> String {
    if name.contains('.') { name.to_owned() } else { format!("{name}.service") }
}

fn is_enabled(machine: &Machine, unit: &str, user: Option<&str>) -> bool {
    dirs(user).iter().any(|dir| {
        let wants = machine.fs().list(dir).unwrap_or_default().into_iter().filter(|name| name.ends_with(".wants"));
        wants.map(|wants| format!("{dir}/{wants}/{unit}")).any(|path| machine.fs().exists(&path))
    })
}

/// At boot.
pub(super) fn start_enabled(machine: &Arc<Machine>) {
    for (dir, user) in [(dirs(None), None), (dirs(Some(&machine.user)), Some(machine.user.as_str()))] {
        let Some(dir) = dir.first() else { continue };
        for wants in machine.fs().list(dir).unwrap_or_default().iter().filter(|name| name.ends_with(".wants")) {
            for unit in machine.fs().list(&format!("{dir}/{wants}")).unwrap_or_default() {
                if let Some(service) = load(machine, &unit, user) {
                    drop(start(machine, service));
                }
            }
        }
    }
}

/// About a unit, by process 1.
fn note(machine: &Machine, unit: &str, priority: u8, text: String) {
    machine.journal().append(Entry {
        unit: "init.scope".to_owned(),
        identifier: "systemd".to_owned(),
        priority,
        message: text.into_bytes(),
        pid: 1,
        container: None,
        about_unit: Some(unit.to_owned()),
    });
}

/// Start a unit in the background; the receiver is told when it is up (or done, for `oneshot`), with its status.
fn start(machine: &Arc<Machine>, service: Service) -> tokio::sync::oneshot::Receiver<i32> {
    let (up, ready) = tokio::sync::oneshot::channel();
    let stop = CancellationToken::new();
    let unit = Unit { active: Phase::Running, stop: stop.clone(), ..Unit::default() };
    let unit = if service.oneshot { Unit { active: Phase::Activating, ..unit } } else { unit };
    lock(&machine.units.0).insert(service.name.clone(), unit);
    let here = machine.clone();
    machine.spawn(async move {
        let mut up = Some(up);
        let name = service.name.clone();
        let change = |change: &dyn Fn(&mut Unit)| {
            if let Some(unit) = lock(&here.units.0).get_mut(&name) {
                change(unit);
            }
        };
        loop {
            note(&here, &name, 6, format!("Started {}.", service.description));
            if !service.oneshot
                && let Some(up) = up.take()
            {
                // The one who asked may be gone.
                let _ = up.send(0);
            }
            let status = run_service(&here, &service, &change).await;
            let stopped = stop.is_cancelled();
            if status == 0 || stopped {
                note(&here, &name, 6, format!("{name}: Deactivated successfully."));
            } else {
                note(&here, &name, 5, format!("{name}: Main process exited, code=exited, status={status}/FAILURE"));
                note(&here, &name, 4, format!("{name}: Failed with result 'exit-code'."));
            }
            let again = match service.restart.as_str() {
                "always" => true,
                "on-failure" | "on-abnormal" => status != 0,
                _ => false,
            };
            let restarts = lock(&here.units.0).get(&name).map_or(0, |unit| unit.restarts);
            if !again || stopped || restarts >= MAX_RESTARTS {
                let active = match status {
                    0 if service.oneshot && service.remain && !stopped => Phase::Running,
                    status if status == 0 || stopped => Phase::Inactive,
                    _ => Phase::Failed,
                };
                change(&|unit| {
                    (unit.active, unit.proc, unit.status) = (active, None, status);
                });
                if service.transient && active == Phase::Inactive {
                    lock(&here.units.0).remove(&name);
                }
                if let Some(up) = up.take() {
                    let _ = up.send(status);
                }
                return;
            }
            change(&|unit| {
                unit.active = Phase::Activating;
                unit.restarts += 1;
            });
            tokio::select! {
                () = tokio::time::sleep(service.wait) => {}
                () = stop.cancelled() => {}
            }
            note(&here, &name, 6, format!("{name}: Scheduled restart job, restart counter is at {}.", restarts + 1));
            change(&|unit| unit.active = Phase::Running);
        }
    });
    ready
}

/// How the task of a unit writes down what became of it.
type Change<'a> = dyn Fn(&dyn Fn(&mut Unit)) + Sync + 'a;

async fn run_service(machine: &Arc<Machine>, service: &Service, change: &Change<'_>) -> i32 {
    let mut status = 0;
    for command in service.before.iter().chain(&service.commands) {
        // `-` forgives a failure; `@`, `+`, `!` and `:` are about rights.
        let text = command.trim_start_matches(['-', '@', '+', '!', ':']);
        let guard = machine.procs().start(None, text, &service.user);
        let proc = guard.proc.clone();
        change(&|unit| unit.proc = Some(proc.clone()));
        let ((out, writer), identifier) = (pipe(), text.split_whitespace().next().unwrap_or_default());
        let identifier = identifier.rsplit('/').next().unwrap_or_default().to_owned();
        let journal = Fd::Out(writer);
        let output = |to: &Option<String>, journal: &Fd| match to.as_deref() {
            Some(to) if to.starts_with("append:") || to.starts_with("file:") || to.starts_with("truncate:") => {
                let (how, path) = to.split_once(':').unwrap_or(("append", to));
                let how = if how == "truncate" { Open::Write } else { Open::Append };
                machine.fs().open(path, how, 0o644).unwrap_or(Fd::Null)
            }
            Some("null") => Fd::Null,
            _ => journal.clone(),
        };
        let stdout = output(&service.stdout, &journal);
        let stderr = if service.stderr.is_some() { output(&service.stderr, &journal) } else { stdout.clone() };
        drop(journal);
        let fds = Fds::from([(0, Fd::Null), (1, stdout), (2, stderr)]);
        let mut cx = machine.context(proc.clone(), service.env.clone(), fds);
        cx.cwd = service.dir.clone().unwrap_or_else(|| "/".to_owned());
        let (line, pid) = (text.to_owned(), proc.pid);
        let run = supervise(
            guard,
            Box::pin(async move { Shell::new(cx, vec!["systemd".to_owned()]).command_line(&line).await }),
        );
        let log = async {
            let mut lines = BufReader::new(Fd::In(out)).split(b'\n');
            while let Ok(Some(message)) = lines.next_segment().await {
                machine.journal().append(Entry {
                    unit: service.name.clone(),
                    identifier: identifier.clone(),
                    priority: 6,
                    message,
                    pid,
                    container: None,
                    about_unit: None,
                });
            }
        };
        (status, ()) = tokio::join!(run, log);
        if status != 0 && !command.starts_with('-') {
            return status;
        }
    }
    if status != 0 { 0 } else { status }
}

async fn stop(machine: &Machine, name: &str) {
    let unit = lock(&machine.units.0).get(name).cloned();
    let Some(unit) = unit else { return };
    unit.stop.cancel();
    let Some(proc) = unit.proc else {
        if let Some(unit) = lock(&machine.units.0).get_mut(name) {
            unit.active = Phase::Inactive;
        }
        return;
    };
    let procs = machine.procs();
    procs.signal_group(proc.group(), TERM);
    if tokio::time::timeout(STOP, proc.ended()).await.is_err() {
        procs.signal_group(proc.group(), KILL);
        proc.ended().await;
    }
    // The task of the unit writes down what became of it.
    for _ in 0..100 {
        let running = lock(&machine.units.0).get(name).is_some_and(|unit| unit.proc.is_some());
        if !running {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(super) async fn systemctl(cx: &mut Cx) -> io::Result<i32> {
    let flags = "user system now no-pager q quiet no-block f force l full value all a no-legend plain no-ask-password \
                 no-reload wait failed";
    let args = options!(cx, flags, "p property n lines t type o state");
    let machine = cx.machine.clone();
    let caller = cx.user.clone();
    let user = args.has("user").then_some(caller.as_str());
    let Some((verb, names)) = args.rest.split_first() else { return Ok(0) };
    let quiet = args.has("q quiet");
    let mut status = 0;
    match verb.as_str() {
        "daemon-reload" | "daemon-reexec" | "reset-failed" | "mask" | "unmask" | "preset" => return Ok(0),
        "is-system-running" => return cx.out("running\n").await.map(|()| 0),
        "list-units" | "list-unit-files" => {
            let units = lock(&machine.units.0).clone();
            let patterns: Vec<Pattern> = names.iter().map(|name| Pattern::new(name)).collect();
            for (name, unit) in units {
                if patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(&name)) {
                    let (active, sub) = unit.active.text();
                    cx.out(format!("{name} loaded {active} {sub} {name}\n")).await?;
                }
            }
            return Ok(0);
        }
        _ => {}
    }
    for name in names {
        let name = unit_name(name);
        let service = load(&machine, &name, user);
        let state = lock(&machine.units.0).get(&name).cloned();
        let basic = BASIC.contains(&name.as_str());
        let active = match &state {
            Some(unit) => unit.active,
            None if basic => Phase::Running,
            None => Phase::Inactive,
        };
        let known = service.is_some() || state.is_some() || basic;
        let missing =
            !known && !matches!(verb.as_str(), "is-active" | "is-enabled" | "is-failed" | "show" | "status" | "cat");
        if missing {
            cx.complain(format!("Failed to {verb} {name}: Unit {name} not found.")).await;
            status = 5;
            continue;
        }
        match verb.as_str() {
            "start" | "restart" | "try-restart" | "reload" | "reload-or-restart" | "enable" | "disable" | "stop" => {
                if matches!(verb.as_str(), "enable" | "disable") {
                    let wanted = service.as_ref().map(|service| service.wanted_by.clone()).unwrap_or_default();
                    for target in wanted {
                        let dir = dirs(user).into_iter().next().unwrap_or_default();
                        let link = format!("{dir}/{target}.wants/{name}");
                        if verb == "enable" && !machine.fs().exists(&link) {
                            machine.fs().mkdir_p(&format!("{dir}/{target}.wants"))?;
                            machine.fs().symlink(&format!("{dir}/{name}"), &link)?;
                            cx.complain(format!("Created symlink {link} → {dir}/{name}.")).await;
                        } else if verb == "disable" && machine.fs().exists(&link) {
                            machine.fs().remove(&link)?;
                        }
                    }
                }
                if name == "chronyd.service" && verb.contains("restart") {
                    // `makestep 1.0 3` of chrony.conf: it may step after a start.
                    machine.skew().set(0);
                }
                let now = args.has("now");
                if matches!(verb.as_str(), "stop" | "restart" | "try-restart" | "reload-or-restart")
                    || verb == "disable" && now
                {
                    stop(&machine, &name).await;
                }
                let starts =
                    matches!(verb.as_str(), "start" | "restart" | "reload-or-restart") || verb == "enable" && now;
                if starts && let Some(revived) = state.as_ref().and_then(|unit| unit.revived.as_ref()) {
                    revived.cancel();
                    if let Some(unit) = lock(&machine.units.0).get_mut(&name) {
                        unit.active = Phase::Running;
                    }
                }
                let idle = !verb.starts_with("re") && matches!(active, Phase::Running | Phase::Activating);
                if starts
                    && !idle
                    && let Some(service) = service
                {
                    let ready = start(&machine, service);
                    if !args.has("no-block") && ready.await.unwrap_or(1) != 0 {
                        cx.complain(format!(
                            "Job for {name} failed because the control process exited with error code."
                        ))
                        .await;
                        status = 1;
                    }
                }
            }
            "is-active" | "is-failed" => {
                if !quiet {
                    cx.out(format!("{}\n", active.text().0)).await?;
                }
                let good = if verb == "is-active" { active == Phase::Running } else { active == Phase::Failed };
                status = if good {
                    0
                } else if verb == "is-active" {
                    3
                } else {
                    1
                };
            }
            "is-enabled" => {
                let enabled = basic || is_enabled(&machine, &name, user);
                if !quiet && known {
                    cx.out(if enabled { "enabled\n" } else { "disabled\n" }).await?;
                } else if !known {
                    cx.complain(format!("Failed to get unit file state for {name}: No such file or directory")).await;
                }
                status = i32::from(!enabled);
            }
            "show" => {
                let (active_text, sub) = active.text();
                let pid = state.as_ref().and_then(|unit| unit.proc.as_ref()).map_or(0, |proc| proc.pid);
                let exit = state.as_ref().map_or(0, |unit| unit.status);
                let restarts = state.as_ref().map_or(0, |unit| unit.restarts);
                let result = if active == Phase::Failed { "exit-code" } else { "success" };
                let load_state = if known { "loaded" } else { "not-found" };
                let enabled = if is_enabled(&machine, &name, user) { "enabled" } else { "disabled" };
                let properties = [
                    ("Id", name.clone()),
                    ("LoadState", load_state.to_owned()),
                    ("ActiveState", active_text.to_owned()),
                    ("SubState", sub.to_owned()),
                    ("MainPID", pid.to_string()),
                    ("Result", result.to_owned()),
                    ("ExecMainStatus", exit.to_string()),
                    ("NRestarts", restarts.to_string()),
                    ("UnitFileState", enabled.to_owned()),
                ];
                let wanted: Vec<&str> = args.all("p property").iter().flat_map(|list| list.split(',')).collect();
                for (key, value) in properties {
                    if !wanted.is_empty() && !wanted.contains(&key) {
                        continue;
                    }
                    cx.out(if args.has("value") { format!("{value}\n") } else { format!("{key}={value}\n") }).await?;
                }
            }
            "status" => {
                if !known {
                    cx.complain(format!("Unit {name} could not be found.")).await;
                    status = 4;
                    continue;
                }
                let (text, sub) = active.text();
                let pid = state
                    .as_ref()
                    .and_then(|unit| unit.proc.as_ref())
                    .map_or(String::new(), |proc| format!("\n   Main PID: {}", proc.pid));
                cx.out(format!("● {name}\n     Loaded: loaded\n     Active: {text} ({sub}){pid}\n")).await?;
                status = if active == Phase::Running { 0 } else { 3 };
            }
            "cat" => {
                let path =
                    dirs(user).into_iter().map(|dir| format!("{dir}/{name}")).find(|path| machine.fs().exists(path));
                match path {
                    Some(path) => {
                        cx.out([format!("# {path}\n").into_bytes(), machine.fs().read(&path)?].concat()).await?
                    }
                    None => {
                        cx.complain(format!("No files found for {name}.")).await;
                        status = 1;
                    }
                }
            }
            "kill" => {
                if let Some(proc) = state.and_then(|unit| unit.proc) {
                    machine.procs().signal_group(proc.group(), TERM);
                }
            }
            verb => {
                cx.complain(format!("Unknown command verb {verb}.")).await;
                return Ok(1);
            }
        }
    }
    Ok(status)
}

pub(super) async fn systemd_run(cx: &mut Cx) -> io::Result<i32> {
    let flags =
        "user system collect G quiet q wait pipe P no-block scope same-dir d remain-after-exit r no-ask-password t pty";
    let args =
        command_options!(cx, flags, "unit u p property setenv E working-directory uid gid description service-type");
    if args.rest.is_empty() {
        cx.complain("Command line to execute required.").await;
        return Ok(1);
    }
    let machine = cx.machine.clone();
    let name = match args.value("unit u") {
        Some(name) => unit_name(name),
        None => format!("run-{:08x}.service", fastrand::u32(..)),
    };
    let quoted: Vec<String> = args.rest.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    if args.has("scope") {
        return Ok(cx.spawn(args.rest).await);
    }
    if lock(&machine.units.0).get(&name).is_some_and(|unit| matches!(unit.active, Phase::Running | Phase::Activating)) {
        cx.complain(format!(
            "Failed to start transient service unit: Unit {name} was already loaded or has a fragment file."
        ))
        .await;
        return Ok(1);
    }
    let mut service = Service {
        name: name.clone(),
        description: args.rest.join(" "),
        commands: vec![quoted.join(" ")],
        user: if args.has("user") { cx.user.clone() } else { args.value("uid").unwrap_or("root").to_owned() },
        wait: Duration::from_millis(100),
        remain: args.has("remain-after-exit r"),
        transient: true,
        ..Service::default()
    };
    for property in args.all("p property") {
        if let Some((key, value)) = property.split_once('=') {
            service.set(key, value);
        }
    }
    for assignment in args.all("setenv E") {
        let (key, value) = assignment.split_once('=').map_or_else(
            || (assignment, cx.env.get(assignment).cloned().unwrap_or_default()),
            |(key, value)| (key, value.to_owned()),
        );
        service.env.insert(key.to_owned(), value);
    }
    service.dir = args.value("working-directory").map(str::to_owned).or(service.dir);
    if args.has("same-dir d") {
        service.dir = Some(cx.cwd.clone());
    }
    let waits = args.has("wait pipe P");
    service.oneshot = waits || args.value("service-type") == Some("oneshot");
    let ready = start(&machine, service);
    if !args.has("quiet q") {
        let line = format!("Running as unit: {name}\n");
        tokio::io::AsyncWriteExt::write_all(&mut cx.fd(2), line.as_bytes()).await?;
    }
    Ok(if args.has("no-block") { 0 } else { ready.await.unwrap_or(1) })
}
