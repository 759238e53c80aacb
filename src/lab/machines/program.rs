//! Starting a program on a machine: an argument vector becomes an applet, a tool, or a script for the shell.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::fs::{Kind, Open, join};
use super::io::{Fd, reason};
use super::proc::{Guard, KILL, Proc};
use super::shell::Shell;
use super::tool::ToolCx;
use super::{Machine, coreutils};

pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";
/// A tool that was cancelled may tidy up for this long.
const GRACE: Duration = Duration::from_secs(3);
/// Scripts that start scripts that start scripts…
const MAX_DEPTH: usize = 40;

/// The open descriptors of a process.
pub(super) type Fds = BTreeMap<i32, Fd>;

/// A process that runs a program: what an applet sees.
#[derive(Clone)]
pub(super) struct Cx {
    pub machine: Arc<Machine>,
    pub proc: Arc<Proc>,
    /// With the program's name first.
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub cwd: String,
    pub user: String,
    pub umask: u32,
    pub fds: Fds,
    pub depth: usize,
}

impl Cx {
    pub fn name(&self) -> &str {
        self.args.first().map_or("", |name| name.rsplit('/').next().unwrap_or(name))
    }
    /// The arguments after the name.
    pub fn words(&self) -> Vec<String> {
        self.args.get(1..).unwrap_or_default().to_vec()
    }
    pub fn fd(&self, number: i32) -> Fd {
        self.fds.get(&number).cloned().unwrap_or(Fd::Null)
    }
    pub fn path(&self, path: &str) -> String {
        join(&self.cwd, path)
    }
    pub async fn out(&self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.fd(1).write_all(bytes.as_ref()).await
    }
    /// `name: text` on standard error.
    pub async fn complain(&self, text: impl std::fmt::Display) {
        let line = format!("{}: {text}\n", self.name());
        // Nobody may be listening any more.
        let _ = self.fd(2).write_all(line.as_bytes()).await;
    }
    /// The usual message about a file, and status 1.
    pub async fn fail(&self, path: &str, error: &io::Error) -> i32 {
        self.complain(format!("{path}: {}", reason(error))).await;
        1
    }
    /// A file to read; `-` is standard input.
    pub fn open(&self, path: &str) -> io::Result<Fd> {
        match path {
            "-" | "/dev/stdin" => Ok(self.fd(0)),
            path => {
                let path = self.path(path);
                if self.machine.fs().is_dir(&path) {
                    return Err(io::ErrorKind::IsADirectory.into());
                }
                self.machine.fs().open(&path, Open::Read, 0)
            }
        }
    }
    pub async fn read_all(&self, path: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(path)?.read_to_end(&mut bytes).await?;
        Ok(bytes)
    }
    /// Run another program in this process: `exec`, and what `sudo`, `env`, `nohup` and `timeout` do.
    pub fn exec(mut self, args: Vec<String>) -> BoxFuture<'static, i32> {
        self.machine.procs().becomes(&self.proc, &args.join(" "));
        self.args = args;
        self.depth += 1;
        Box::pin(run(self))
    }
    /// Run another program in a process of its own, and wait.
    pub async fn spawn(&self, args: Vec<String>) -> i32 {
        let guard = self.machine.procs().start(Some(&self.proc), &args.join(" "), &self.user);
        let cx = Self { proc: guard.proc.clone(), args, depth: self.depth + 1, ..self.clone() };
        supervise(guard, Box::pin(run(cx))).await
    }
    /// Run another program in a process of its own, and do not wait.
    pub fn detach(&self, args: Vec<String>) -> Arc<Proc> {
        let guard = self.machine.procs().start(Some(&self.proc), &args.join(" "), &self.user);
        let proc = guard.proc.clone();
        let cx = Self { proc: proc.clone(), args, depth: self.depth + 1, ..self.clone() };
        self.machine.spawn(async move {
            supervise(guard, Box::pin(run(cx))).await;
        });
        proc
    }
}

/// Run until the end or until a signal that nobody handles.
pub(super) async fn supervise(guard: Guard, mut run: BoxFuture<'_, i32>) -> i32 {
    let proc = guard.proc.clone();
    let status = tokio::select! {
        biased;
        signal = proc.fatal() => {
            let limit = if proc.graceful() && signal != KILL { GRACE } else { Duration::ZERO };
            match limit {
                Duration::ZERO => 128 + signal,
                limit => tokio::time::timeout(limit, &mut run).await.unwrap_or(128 + signal),
            }
        }
        status = &mut run => status,
    };
    guard.end(status)
}

/// What a command name leads to.
pub(super) enum Program {
    Applet(coreutils::Applet),
    Tool(Arc<dyn super::Tool>),
    /// The path of a shell script, and the arguments of its interpreter.
    Script(String),
}

pub(super) enum NoProgram {
    NotFound,
    Denied(String),
    Format,
}

/// Where a command name would be found: the path of its file.
pub(super) fn which(machine: &Machine, name: &str, cwd: &str, path: &str) -> Option<String> {
    let is_program =
        |path: &str| machine.fs().meta(path, true).is_ok_and(|meta| meta.kind == Kind::File && meta.mode & 0o111 != 0);
    if name.contains('/') {
        let path = join(cwd, name);
        return is_program(&path).then_some(name.to_owned());
    }
    path.split(':').map(|dir| join(&join(cwd, dir), name)).find(|path| is_program(path))
}

pub(super) fn find(machine: &Machine, name: &str, cwd: &str, path: &str) -> Result<Program, NoProgram> {
    let file = if name.contains('/') {
        let file = join(cwd, name);
        match machine.fs().meta(&file, true) {
            Err(_) => return Err(NoProgram::NotFound),
            Ok(meta) if meta.kind == Kind::Dir => return Err(NoProgram::Denied("Is a directory".to_owned())),
            Ok(meta) if meta.mode & 0o111 == 0 => return Err(NoProgram::Denied("Permission denied".to_owned())),
            Ok(_) => file,
        }
    } else {
        which(machine, name, cwd, path).ok_or(NoProgram::NotFound)?
    };
    // A program may be a link to another name, as in busybox; what runs is the file's own.
    let file = machine.fs().canonical(&file).map_err(|_| NoProgram::NotFound)?;
    let start = machine.fs().real(&file).and_then(|place| {
        use std::io::Read;
        let mut start = Vec::new();
        std::fs::File::open(place)?.take(512).read_to_end(&mut start)?;
        Ok(start)
    });
    let start = start.map_err(|_| NoProgram::Denied("Permission denied".to_owned()))?;
    let first = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let first = String::from_utf8_lossy(first).into_owned();
    if let Some(tool) = first.strip_prefix("#!bartizan-tool ") {
        let tool = tool.trim();
        return match (machine.tool(tool), coreutils::applet(tool)) {
            (Some(tool), _) => Ok(Program::Tool(tool)),
            (None, Some(applet)) => Ok(Program::Applet(applet)),
            (None, None) => Err(NoProgram::Format),
        };
    }
    if first.starts_with("#!") {
        let shell = first.split_whitespace().any(|word| ["sh", "bash", "dash"].iter().any(|name| word.ends_with(name)));
        return if shell { Ok(Program::Script(file)) } else { Err(NoProgram::Format) };
    }
    if start.contains(&0) {
        // A binary that was really brought here runs as the lab's tool of its name (`oc`, `oc-4.20`, `oc.x86_64`).
        let base = file.rsplit('/').next().unwrap_or_default();
        let stem = base.split_once(['-', '.', '_']).map_or(base, |(stem, _)| stem);
        return machine.tool(base).or_else(|| machine.tool(stem)).map(Program::Tool).ok_or(NoProgram::Format);
    }
    Ok(Program::Script(file))
}

/// Run `cx.args` in `cx.proc`.
async fn run(mut cx: Cx) -> i32 {
    let Some(name) = cx.args.first().cloned() else { return 0 };
    if cx.depth > MAX_DEPTH {
        cx.complain("too many programs inside each other").await;
        return 126;
    }
    let path = cx.env.get("PATH").cloned().unwrap_or_else(|| PATH.to_owned());
    let program = match find(&cx.machine, &name, &cx.cwd, &path) {
        Ok(program) => program,
        Err(error) => {
            let (status, why) = match error {
                NoProgram::NotFound if name.contains('/') => (127, "No such file or directory".to_owned()),
                NoProgram::NotFound => (127, "command not found".to_owned()),
                NoProgram::Denied(why) => (126, why),
                NoProgram::Format => (126, "cannot execute binary file: Exec format error".to_owned()),
            };
            let _ = cx.fd(2).write_all(format!("bash: {name}: {why}\n").as_bytes()).await;
            return status;
        }
    };
    match program {
        Program::Applet(applet) => match applet(&mut cx).await {
            Ok(status) => status,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 141,
            Err(error) => {
                cx.complain(format!("write error: {}", reason(&error))).await;
                1
            }
        },
        Program::Tool(tool) => run_tool(cx, tool).await,
        Program::Script(file) => match cx.machine.fs().read(&file) {
            Err(error) => cx.fail(&file, &error).await,
            Ok(script) => {
                let mut args = cx.words();
                args.insert(0, name);
                Shell::new(cx, args).script(&String::from_utf8_lossy(&script)).await
            }
        },
    }
}

async fn run_tool(cx: Cx, tool: Arc<dyn super::Tool>) -> i32 {
    cx.proc.set_graceful();
    let cancel = CancellationToken::new();
    let tool_cx = ToolCx {
        machine: cx.machine.clone(),
        args: cx.words(),
        env: cx.env.clone(),
        cwd: cx.cwd.clone(),
        user: cx.user.clone(),
        stdin: Box::new(cx.fd(0)),
        stdout: Box::new(cx.fd(1)),
        stderr: Box::new(cx.fd(2)),
        cancel: cancel.clone(),
    };
    let proc = cx.proc.clone();
    let machine = cx.machine.clone();
    // The descriptors belong to the tool now: whoever reads its output sees the end when it ends.
    drop(cx);
    let (done, status) = tokio::sync::oneshot::channel();
    let told = cancel.clone();
    // In a task of its own, so that it can tidy up although the process that waits for it is gone.
    machine.spawn(async move {
        let end = async {
            tokio::select! {
                signal = proc.fatal() => {
                    told.cancel();
                    if signal == KILL { return 128 + signal }
                }
                () = told.cancelled() => {}
            }
            tokio::time::sleep(GRACE).await;
            128 + super::proc::TERM
        };
        let status = tokio::select! {
            biased;
            status = tool.run(tool_cx) => status,
            status = end => status,
        };
        let _ = done.send(status);
    });
    let _cancel = cancel.drop_guard();
    status.await.unwrap_or(137)
}
