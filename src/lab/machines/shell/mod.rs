//! A small POSIX shell: the `brush-parser` crate reads bash's grammar, this interprets the tree.
//!
//! It starts no process: commands are applets and tools of the lab ([`super::program`]), subshells and background jobs
//! are tasks. What it cannot do it refuses with a message on standard error and status 2.

mod arith;
mod builtins;
mod command;
mod expand;
mod flow;
mod parse;
pub(super) mod pattern;
mod redirect;
pub(super) mod test;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;

use brush_parser::ast::{Command, FunctionBody, Program, SeparatorOperator};
use tokio::io::AsyncWriteExt;

pub(super) use expand::ansi_c;
use flow::single;
use parse::parse;

use super::proc::{self, Guard, Proc, TERM, signal_number};
use super::program::Cx;

/// Command lines longer than this are refused.
const MAX_TEXT: usize = 1 << 20;
/// The parser recurses and, for brackets, tries several readings of each.
const MAX_BRACKETS: usize = 24;
const MAX_PARENS: usize = 8;
/// Compound commands and functions inside each other.
const MAX_LEVEL: usize = 120;

/// Why a list ended early.
pub(super) enum Stop {
    Break(u32),
    Continue(u32),
    Return(i32),
    Exit(i32),
}

type Run = Result<i32, Stop>;

#[derive(Clone, Default)]
struct Var {
    value: String,
    exported: bool,
    readonly: bool,
}

#[derive(Clone, Default)]
struct Options {
    errexit: bool,
    nounset: bool,
    noglob: bool,
    xtrace: bool,
    pipefail: bool,
}

impl Options {
    fn letters(&self) -> String {
        let letters = [('e', self.errexit), ('u', self.nounset), ('f', self.noglob), ('x', self.xtrace)];
        letters.iter().filter(|(_, on)| *on).map(|(letter, _)| *letter).collect()
    }
}

/// One shell and all that it knows.
pub(super) struct Shell {
    cx: Cx,
    /// `$0`
    name: String,
    args: Vec<String>,
    vars: HashMap<String, Var>,
    functions: HashMap<String, Arc<FunctionBody>>,
    options: Options,
    /// By signal name, and `EXIT`.
    traps: BTreeMap<String, String>,
    /// What `local` hid, one map per running function.
    locals: Vec<HashMap<String, Option<Var>>>,
    /// `$$`, which a subshell shares with its parent.
    pid: u32,
    status: i32,
    /// `$!`
    background: Option<u32>,
    jobs: BTreeMap<u32, Arc<Proc>>,
    /// The status of the last command substitution in the words of the command being run.
    substituted: Option<i32>,
    /// In how many places around here `set -e` does not count.
    tolerant: u32,
    level: usize,
    /// The next simple command takes over this process.
    replace: bool,
}

impl Shell {
    /// A shell in the process of `cx`; `args` has `$0` first.
    pub fn new(cx: Cx, args: Vec<String>) -> Self {
        let mut args = args.into_iter();
        let name = args.next().unwrap_or_else(|| "sh".to_owned());
        let vars = cx
            .env
            .iter()
            .map(|(name, value)| (name.clone(), Var { value: value.clone(), exported: true, readonly: false }));
        let mut shell = Self {
            name,
            args: args.collect(),
            vars: vars.collect(),
            functions: HashMap::new(),
            options: Options::default(),
            traps: BTreeMap::new(),
            locals: Vec::new(),
            pid: cx.proc.pid,
            status: 0,
            background: None,
            jobs: BTreeMap::new(),
            substituted: None,
            tolerant: 0,
            level: 0,
            replace: false,
            cx,
        };
        shell.put("PWD", shell.cx.cwd.clone(), true);
        shell.put("PPID", shell.cx.proc.parent.to_string(), false);
        shell.put("IFS", " \t\n".to_owned(), false);
        shell
    }

    /// Run the text of `-c`: a single command takes over the shell's process, as in bash.
    pub async fn command_line(mut self, text: &str) -> i32 {
        match parse(text) {
            Err(why) => self.refuse(&why).await,
            Ok(program) => {
                self.replace = match program.complete_commands.as_slice() {
                    [list] => match list.0.as_slice() {
                        [item] => matches!(item.1, SeparatorOperator::Sequence) && single(&item.0),
                        _ => false,
                    },
                    _ => false,
                };
                self.program(&program).await
            }
        }
    }

    /// Run a script to its end, with its EXIT trap.
    pub async fn script(mut self, text: &str) -> i32 {
        match parse(text) {
            Err(why) => self.refuse(&why).await,
            Ok(program) => self.program(&program).await,
        }
    }

    fn set_option(&mut self, letter: char, on: bool) -> bool {
        match letter {
            'e' => self.options.errexit = on,
            'u' => self.options.nounset = on,
            'f' => self.options.noglob = on,
            'x' => self.options.xtrace = on,
            'a' | 'b' | 'h' | 'm' | 'n' | 'v' | 'C' | 'l' | 'i' | 's' | 'B' | 'H' => {}
            _ => return false,
        }
        true
    }

    /// An option of `sh` by its letter or name.
    pub fn set_named(&mut self, name: &str) {
        match name {
            "pipefail" => self.options.pipefail = true,
            name => {
                for letter in name.chars() {
                    self.set_option(letter, true);
                }
            }
        }
    }

    async fn refuse(&mut self, why: &str) -> i32 {
        self.say(why).await;
        2
    }

    /// `name: text` on standard error.
    async fn say(&self, text: impl Display) {
        let line = format!("{}: {text}\n", self.name);
        // Nobody may be listening any more.
        let _ = self.cx.fd(2).write_all(line.as_bytes()).await;
    }

    /// An error that ends a shell that nobody types into.
    async fn fatal(&mut self, text: impl Display, status: i32) -> Stop {
        self.say(text).await;
        Stop::Exit(status)
    }

    async fn unsupported(&mut self, what: &str) -> Stop {
        self.fatal(format!("{what}: not supported by the lab's shell"), 2).await
    }

    async fn program(&mut self, program: &Program) -> i32 {
        let mut result = Ok(0);
        for list in &program.complete_commands {
            result = self.list(list).await;
            if result.is_err() {
                break;
            }
        }
        if result.is_ok() {
            // Signals that came during the last command.
            result = match self.signals().await {
                Err(stop) => Err(stop),
                Ok(()) => Ok(self.status),
            };
        }
        self.status = match result {
            Ok(status) | Err(Stop::Exit(status) | Stop::Return(status)) => status,
            Err(Stop::Break(_) | Stop::Continue(_)) => self.status,
        };
        self.finish().await
    }

    /// Run the EXIT trap; the status of the shell.
    async fn finish(&mut self) -> i32 {
        let Some(command) = self.traps.remove("EXIT") else { return self.status };
        let status = self.status;
        self.options.errexit = false;
        match self.eval(&command).await {
            Err(Stop::Exit(status)) => status,
            _ => status,
        }
    }

    async fn eval(&mut self, text: &str) -> Run {
        let program = match parse(text) {
            Ok(program) => program,
            Err(why) => return Err(self.fatal(why, 2).await),
        };
        let mut status = 0;
        for list in &program.complete_commands {
            status = self.list(list).await?;
        }
        Ok(status)
    }

    /// Run the traps of signals that came.
    async fn signals(&mut self) -> Result<(), Stop> {
        while let Some(signal) = self.cx.proc.next_pending() {
            let name = proc::SIGNALS.iter().find(|(number, _)| *number == signal).map(|(_, name)| *name);
            match name.and_then(|name| self.traps.get(name)).cloned() {
                Some(command) => {
                    let status = self.status;
                    self.eval(&command).await?;
                    self.status = status;
                }
                None => return Err(Stop::Exit(128 + signal)),
            }
        }
        Ok(())
    }

    /// Wait for a child. A signal for which only an EXIT trap stands ends the wait, as in bash.
    async fn foreground(&mut self, child: impl Future<Output = i32>) -> i32 {
        let impatient = self.traps.contains_key("EXIT")
            && !["HUP", "INT", "TERM"].iter().any(|signal| self.traps.contains_key(*signal));
        let proc = self.cx.proc.clone();
        tokio::select! {
            biased;
            status = child => status,
            () = proc.interrupted(), if impatient => 128 + TERM,
        }
    }

    /// The signals that an EXIT trap has to see.
    fn arm(&self) {
        for signal in ["HUP", "INT", "TERM"] {
            let command = self.traps.get(signal);
            let ignored = command.is_some_and(String::is_empty);
            let trapped = !ignored && (command.is_some() || self.traps.contains_key("EXIT"));
            self.cx.proc.set_trap(signal_number(signal).unwrap_or(TERM), trapped, ignored);
        }
    }

    /// A copy in a process of its own. Traps are not inherited.
    fn subshell(&self, command: &str) -> (Shell, Guard) {
        let guard = self.cx.machine.procs().start(Some(&self.cx.proc), command, &self.cx.user);
        let mut cx = self.cx.clone();
        cx.proc = guard.proc.clone();
        let shell = Shell {
            cx,
            name: self.name.clone(),
            args: self.args.clone(),
            vars: self.vars.clone(),
            functions: self.functions.clone(),
            options: self.options.clone(),
            traps: BTreeMap::new(),
            locals: self.locals.clone(),
            pid: self.pid,
            status: self.status,
            background: self.background,
            jobs: BTreeMap::new(),
            substituted: None,
            tolerant: self.tolerant,
            level: self.level,
            replace: false,
        };
        (shell, guard)
    }

    /// Run one command as the whole life of this (sub)shell.
    async fn only(mut self, command: &Command) -> i32 {
        self.status = match self.command(command).await {
            Ok(status) | Err(Stop::Exit(status) | Stop::Return(status)) => status,
            Err(_) => self.status,
        };
        self.finish().await
    }

    fn get(&self, name: &str) -> Option<String> {
        match name {
            "RANDOM" => Some(fastrand::u16(..32768).to_string()),
            "SECONDS" | "EPOCHSECONDS" => Some(jiff::Timestamp::now().as_second().to_string()),
            "EUID" | "UID" => Some(if self.cx.user == "root" { "0" } else { "1000" }.to_owned()),
            name => self.vars.get(name).map(|var| var.value.clone()),
        }
    }

    fn put(&mut self, name: &str, value: String, export: bool) {
        let var = self.vars.entry(name.to_owned()).or_default();
        var.value = value;
        var.exported |= export;
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        if self.vars.get(name).is_some_and(|var| var.readonly) {
            return Err(format!("{name}: readonly variable"));
        }
        self.put(name, value, false);
        Ok(())
    }

    async fn assign(&mut self, name: &str, value: String) -> Result<(), Stop> {
        match self.set(name, value) {
            Ok(()) => Ok(()),
            Err(why) => Err(self.fatal(why, 1).await),
        }
    }

    fn environment(&self) -> BTreeMap<String, String> {
        let exported = self.vars.iter().filter(|(_, var)| var.exported);
        exported.map(|(name, var)| (name.clone(), var.value.clone())).collect()
    }
}
