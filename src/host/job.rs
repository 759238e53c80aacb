//! Work on a host that outlives the connection.
//!
//! A job has a directory of its own with `command`, `log` (standard output), `err`, `pid` (its process group),
//! `started` and `heartbeat` (Unix seconds) and, once it has ended, `status` (its exit status, written in one step).
//! The scripts are plain POSIX shell; they use `cat chmod date head id mkdir mv nohup rm setsid sleep tail wc` and, where
//! the host runs systemd, `systemd-run`.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;

use super::tail::{Source, TailItem, Until, follow};
use super::{Cmd, Host, HostError, Output, Stdin, files};

/// What is to be done, under a name.
#[derive(Debug, Clone)]
pub struct JobSpec {
    /// Letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// Without standard input, and its timeout does not count. With `sudo` the whole job belongs to root.
    pub cmd: Cmd,
    /// Absolute path of the directory under which the job gets its own.
    pub dir: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobStatus {
    NotStarted,
    Running {
        pid: u32,
        /// Since the job's supervisor last said that it lives; it does so every five seconds.
        heartbeat_age: Duration,
    },
    Ended {
        /// 128 + N when signal N ended it.
        status: i32,
    },
    /// It is gone and left no status: the host was rebooted, or somebody killed it hard.
    Lost,
}

/// What became of a request to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    New {
        pid: u32,
    },
    /// The same command was running already.
    Adopted {
        pid: u32,
    },
}

/// A job on a host, started or not.
#[derive(Clone)]
pub struct Job {
    host: Arc<dyn Host>,
    spec: JobSpec,
}

/// `alive PLACE`: the supervisor, or what is left of its process group, is there. Sets `pid`. A process that got the same
/// number after a reboot does not have our directory among its arguments.
const ALIVE: &str = r#"alive() {
  pid=$(cat "$1/pid" 2>/dev/null)
  if [ -z "$pid" ]; then return 1; fi
  if kill -0 "$pid" 2>/dev/null; then
    if [ ! -r "/proc/$pid/cmdline" ]; then return 0; fi
    case $(cat "/proc/$pid/cmdline") in *"$1"*) return 0 ;; esac
    return 1
  fi
  kill -s 0 -- "-$pid" 2>/dev/null
}
"#;

/// `$1` place, `$2` command line, `$3` the supervisor's script.
/// The lock is a directory, because making one is atomic; that of a dead starter is broken.
const START: &str = r#"umask 077
mkdir -p "$1" || exit 1
tries=0
until mkdir "$1/lock" 2>/dev/null; do
  tries=$((tries + 1))
  if [ "$tries" -gt 200 ]; then echo "$1/lock is held by another start" >&2; exit 1; fi
  holder=$(cat "$1/lock/pid" 2>/dev/null)
  if [ -n "$holder" ]; then
    if ! kill -0 "$holder" 2>/dev/null; then rm -rf "$1/lock"; fi
  elif [ "$tries" -gt 100 ]; then
    rm -rf "$1/lock"
  fi
  sleep 0.1
done
echo "$$" >"$1/lock/pid"
trap 'rm -rf "$1/lock"' EXIT
if [ ! -e "$1/status" ] && alive "$1" 2>/dev/null; then
  if [ "$(cat "$1/command")" = "exec $2" ]; then echo "adopted $pid"; else echo "busy $pid"; fi
  exit 0
fi
rm -f "$1/status" "$1/pid" "$1/started" "$1/heartbeat"
for file in log err; do
  if [ -e "$1/$file" ]; then mv -f "$1/$file" "$1/$file.old"; fi
done
printf 'exec %s\n' "$2" >"$1/command"
printf '%s\n' "$3" >"$1/supervisor"
launched=
if [ -d /run/systemd/system ]; then
  if [ "$(id -u)" = 0 ]; then
    systemd-run --quiet --collect --setenv="HOME=$HOME" --setenv="PATH=$PATH" sh "$1/supervisor" "$1" </dev/null >/dev/null 2>&1 && launched=1
  elif [ -e "/var/lib/systemd/linger/$(id -un)" ]; then
    systemd-run --user --quiet --collect --setenv="PATH=$PATH" sh "$1/supervisor" "$1" </dev/null >/dev/null 2>&1 && launched=1
  fi
fi
if [ -z "$launched" ]; then
  setsid nohup sh "$1/supervisor" "$1" </dev/null >/dev/null 2>&1 &
fi
tries=0
until [ -s "$1/pid" ]; do
  tries=$((tries + 1))
  if [ "$tries" -gt 100 ]; then echo "the job did not come up" >&2; exit 1; fi
  sleep 0.1
done
echo "new $(cat "$1/pid")""#;

/// `$1` place. Leads the job's process group; a TERM to the group ends the command, and this notes its status. The
/// command file is one `exec`, so that nothing stands between and ends before the command does.
const SUPERVISOR: &str = r#"mask=$(umask)
umask 077
: >"$1/log"
: >"$1/err"
date +%s >"$1/started"
date +%s >"$1/heartbeat"
trap : TERM HUP INT
echo "$$" >"$1/pid.new" && mv -f "$1/pid.new" "$1/pid"
( while sleep 5 && kill -0 "$$" 2>/dev/null; do date +%s >"$1/heartbeat.new" && mv -f "$1/heartbeat.new" "$1/heartbeat"; done ) </dev/null >/dev/null 2>&1 &
beat=$!
umask "$mask"
sh "$1/command" </dev/null >>"$1/log" 2>>"$1/err"
status=$?
kill "$beat" 2>/dev/null
umask 077
echo "$status" >"$1/status.new" && mv -f "$1/status.new" "$1/status""#;

/// `$1` place. A job that ends between two looks has a status at the second.
const STATUS: &str = r#"if [ -e "$1/status" ]; then echo "ended $(cat "$1/status")"; exit 0; fi
if [ ! -e "$1/pid" ]; then echo none; exit 0; fi
if alive "$1" 2>/dev/null; then echo "running $pid $(date +%s) $(cat "$1/heartbeat")"; exit 0; fi
if [ -e "$1/status" ]; then echo "ended $(cat "$1/status")"; else echo lost; fi"#;

/// `$1` place, `$2` fifths of a second to wait before KILL.
const STOP: &str = r#"if [ -e "$1/status" ] || ! alive "$1" 2>/dev/null; then exit 0; fi
kill -s TERM -- "-$pid" 2>/dev/null || kill -TERM "$pid" 2>/dev/null
tries=0
while [ ! -e "$1/status" ] && alive "$1" 2>/dev/null && [ "$tries" -lt "$2" ]; do
  tries=$((tries + 1))
  sleep 0.2
done
if [ -e "$1/status" ]; then exit 0; fi
kill -s KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null
if [ ! -e "$1/status" ]; then
  umask 077
  echo 137 >"$1/status.new" && mv -f "$1/status.new" "$1/status"
fi"#;

impl Job {
    pub fn new(host: Arc<dyn Host>, spec: JobSpec) -> Result<Self, HostError> {
        let refuse = |why: &str| {
            let what = format!("preparing the job {:?}", spec.name);
            Err(HostError::Other { host: host.name().to_owned(), what, why: why.to_owned() })
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if spec.name.is_empty() || spec.name.starts_with('.') || !spec.name.chars().all(plain) {
            return refuse("its name may hold letters, digits, '-', '_' and '.' only");
        }
        // systemd-run would expand these two.
        if !spec.dir.starts_with('/') || spec.dir.contains(['$', '%', '\n']) {
            return refuse("its directory must be an absolute path without '$', '%' and line breaks");
        }
        if !matches!(spec.cmd.stdin, Stdin::Empty) {
            return refuse("it must take its input from a file");
        }
        Ok(Self { host, spec })
    }

    pub fn name(&self) -> &str {
        &self.spec.name
    }

    pub fn host(&self) -> &Arc<dyn Host> {
        &self.host
    }

    /// The job's own directory.
    pub fn place(&self) -> String {
        format!("{}/{}", self.spec.dir.trim_end_matches('/'), self.spec.name)
    }

    pub fn sudo(&self) -> bool {
        self.spec.cmd.sudo
    }

    /// Start it, or adopt it when the same command is running under this name. A job that has ended is started anew.
    pub async fn start(&self) -> Result<Started, HostError> {
        let line = Cmd { sudo: false, ..self.spec.cmd.clone() }.line();
        let output = self.run(START, vec![line, SUPERVISOR.to_owned()], Duration::from_secs(60)).await?;
        let text = output.text();
        let mut words = text.split_whitespace();
        match (words.next(), words.next().and_then(|pid| pid.parse().ok())) {
            (Some("new"), Some(pid)) => Ok(Started::New { pid }),
            (Some("adopted"), Some(pid)) => Ok(Started::Adopted { pid }),
            (Some("busy"), Some(pid)) => Err(HostError::Other {
                host: self.host.name().to_owned(),
                what: format!("starting the job {}", self.spec.name),
                why: format!("another command runs under this name (process group {pid}); stop it first"),
            }),
            _ => Err(self.odd("starting", &text)),
        }
    }

    pub async fn status(&self) -> Result<JobStatus, HostError> {
        let output = self.run(STATUS, Vec::new(), Duration::from_secs(60)).await?;
        let text = output.text();
        let words: Vec<&str> = text.split_whitespace().collect();
        let status = match words.as_slice() {
            ["none"] => Some(JobStatus::NotStarted),
            ["lost"] => Some(JobStatus::Lost),
            ["ended", status] => status.parse().ok().map(|status| JobStatus::Ended { status }),
            ["running", pid, now, beats @ ..] => pid.parse().ok().map(|pid| {
                let seconds = |text: &str| text.parse::<u64>().ok();
                let beat = beats.first().and_then(|beat| seconds(beat)).or_else(|| seconds(now));
                let age = seconds(now).zip(beat).map_or(0, |(now, beat)| now.saturating_sub(beat));
                JobStatus::Running { pid, heartbeat_age: Duration::from_secs(age) }
            }),
            _ => None,
        };
        status.ok_or_else(|| self.odd("asking for", &text))
    }

    /// End it and all that it started: TERM, and after `grace` KILL. It is no error when it does not run.
    pub async fn stop(&self, grace: Duration) -> Result<(), HostError> {
        let fifths = grace.as_millis().div_ceil(200).to_string();
        self.run(STOP, vec![fifths], grace + Duration::from_secs(60)).await.map(drop)
    }

    /// Its standard output from the byte `offset` on, until it has ended and all is read.
    pub fn follow(&self, offset: u64) -> BoxStream<'static, TailItem> {
        let source = Source { path: format!("{}/log", self.place()), sudo: self.sudo() };
        follow(Arc::clone(&self.host), source, offset, Until::JobEnds { place: self.place() })
    }

    /// The end of its standard error, for an error message; at most `bytes`.
    pub async fn last_words(&self, bytes: usize) -> Result<String, HostError> {
        const LAST: &str = r#"if [ -e "$1/err" ]; then tail -c "$2" "$1/err"; fi"#;
        let output = self.run(LAST, vec![bytes.to_string()], Duration::from_secs(60)).await?;
        Ok(output.text())
    }

    async fn run(&self, script: &str, args: Vec<String>, timeout: Duration) -> Result<Output, HostError> {
        let cmd = Cmd::sh(format!("{ALIVE}{script}")).arg(self.place()).args(args).timeout(Some(timeout));
        let output = self.host.exec(&Cmd { sudo: self.sudo(), ..cmd }).await?;
        if output.ok() {
            Ok(output)
        } else {
            Err(files::failed(&*self.host, format!("job {}", self.spec.name), &output))
        }
    }

    fn odd(&self, doing: &str, answer: &str) -> HostError {
        HostError::Other {
            host: self.host.name().to_owned(),
            what: format!("{doing} the job {}", self.spec.name),
            why: format!("odd answer {:?}", super::pump::clean(answer)),
        }
    }
}
