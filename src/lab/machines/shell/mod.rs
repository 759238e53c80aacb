//! A small POSIX shell: the `brush-parser` crate reads bash's grammar, this interprets the tree.
//!
//! It starts no process: commands are applets and tools of the lab ([`super::program`]), subshells and background jobs
//! are tasks. What it cannot do it refuses with a message on standard error and status 2.

mod arith;
mod builtins;
mod expand;
pub(super) mod pattern;
pub(super) mod test;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;

use brush_parser::ast::{
    AndOr, AndOrList, Assignment, AssignmentName, AssignmentValue, CaseItemPostAction, Command,
    CommandPrefixOrSuffixItem, CompoundCommand, CompoundList, FunctionBody, IoFileRedirectKind, IoFileRedirectTarget,
    IoRedirect, Pipeline, Program, RedirectList, SeparatorOperator, SimpleCommand, Word,
};
use brush_parser::{Parser, ParserOptions};
use futures::future::{BoxFuture, join_all};
use tokio::io::AsyncWriteExt;

pub(super) use expand::ansi_c;
use pattern::Pattern;

use super::fs::Open;
use super::io::{Fd, bytes, pipe, reason};
use super::proc::{self, Guard, Proc, TERM, signal_number};
use super::program::{Cx, Fds, supervise};

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

/// The tree of a script, or what is wrong with it.
fn parse(text: &str) -> Result<Program, String> {
    if text.len() > MAX_TEXT {
        return Err("the command is too long".to_owned());
    }
    check_depth(text)?;
    let options = ParserOptions { enable_extended_globbing: false, ..ParserOptions::default() };
    Parser::new(std::io::Cursor::new(text), &options).parse_program().map_err(|error| {
        let error = error.to_string();
        format!("syntax error: {}", error.lines().next().unwrap_or_default())
    })
}

/// Refuse what the parser would need too much stack or time for.
fn check_depth(text: &str) -> Result<(), String> {
    let (mut brackets, mut parens, mut run, mut words) = (0usize, 0usize, 0usize, 0usize);
    let mut digits = 0;
    for c in text.chars() {
        match c {
            '(' => {
                parens += 1;
                run += 1;
            }
            ')' => parens = parens.saturating_sub(1),
            '{' => brackets += 1,
            '}' => brackets = brackets.saturating_sub(1),
            _ => {}
        }
        if c != '(' && !c.is_whitespace() {
            run = 0;
        }
        digits = if c.is_ascii_digit() { digits + 1 } else { 0 };
        if brackets > MAX_BRACKETS || parens > MAX_BRACKETS || run > MAX_PARENS {
            return Err("too many brackets inside each other".to_owned());
        }
        if digits == 19 && text.contains('~') {
            return Err("the number is too large".to_owned());
        }
    }
    for word in text.split(|c: char| c.is_whitespace() || c == ';') {
        match word {
            "if" | "while" | "until" | "case" | "for" | "!" => words += 1,
            "fi" | "done" | "esac" => words = words.saturating_sub(1),
            _ => {}
        }
        if words > 200 {
            return Err("too many commands inside each other".to_owned());
        }
    }
    Ok(())
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

    fn list<'a>(&'a mut self, list: &'a CompoundList) -> BoxFuture<'a, Run> {
        Box::pin(async move {
            let mut status = 0;
            for item in &list.0 {
                status = match item.1 {
                    SeparatorOperator::Sequence => self.and_or(&item.0).await?,
                    SeparatorOperator::Async => {
                        self.start(&item.0);
                        0
                    }
                };
                self.status = status;
            }
            Ok(status)
        })
    }

    fn start(&mut self, list: &AndOrList) {
        let (mut sub, guard) = self.subshell(&list.to_string());
        let pid = guard.proc.pid;
        self.background = Some(pid);
        self.jobs.insert(pid, guard.proc.clone());
        sub.cx.fds.insert(0, Fd::Null);
        sub.tolerant = 0;
        sub.replace = single(list);
        let list = list.clone();
        self.cx.machine.spawn(async move {
            let run = Box::pin(async move {
                sub.status = match sub.and_or(&list).await {
                    Ok(status) | Err(Stop::Exit(status) | Stop::Return(status)) => status,
                    Err(_) => sub.status,
                };
                sub.finish().await
            });
            supervise(guard, run).await;
        });
    }

    async fn and_or(&mut self, list: &AndOrList) -> Run {
        let mut left = list.additional.len();
        let mut status = self.pipeline(&list.first, left > 0).await?;
        for next in &list.additional {
            left -= 1;
            let (AndOr::And(pipeline) | AndOr::Or(pipeline)) = next;
            if matches!(next, AndOr::And(_)) == (status == 0) {
                status = self.pipeline(pipeline, left > 0).await?;
            }
        }
        Ok(status)
    }

    async fn pipeline(&mut self, pipeline: &Pipeline, more: bool) -> Run {
        let tolerant = more || pipeline.bang;
        self.tolerant += u32::from(tolerant);
        let result = match pipeline.seq.as_slice() {
            [command] => self.command(command).await,
            commands => Ok(self.piped(commands).await),
        };
        self.tolerant -= u32::from(tolerant);
        let mut status = result?;
        if pipeline.bang {
            status = i32::from(status == 0);
        }
        self.status = status;
        self.signals().await?;
        let counts = match pipeline.seq.as_slice() {
            [Command::Simple(_) | Command::ExtendedTest(..)] => true,
            [Command::Compound(compound, _)] => {
                matches!(compound, CompoundCommand::Subshell(_) | CompoundCommand::Arithmetic(_))
            }
            [_] => false,
            _ => true,
        };
        if status != 0 && self.options.errexit && counts && !tolerant && self.tolerant == 0 {
            return Err(Stop::Exit(status));
        }
        Ok(status)
    }

    async fn piped(&mut self, commands: &[Command]) -> i32 {
        let mut stages: Vec<BoxFuture<'_, i32>> = Vec::new();
        let mut input = None;
        for (index, command) in commands.iter().enumerate() {
            let (mut sub, guard) = self.subshell(&command.to_string());
            sub.replace = true;
            if let Some(reader) = input.take() {
                sub.cx.fds.insert(0, Fd::In(reader));
            }
            if index + 1 < commands.len() {
                let (reader, writer) = pipe();
                sub.cx.fds.insert(1, Fd::Out(writer));
                input = Some(reader);
            }
            stages.push(Box::pin(supervise(guard, Box::pin(sub.only(command)))));
        }
        let pipefail = self.options.pipefail;
        self.foreground(async move {
            let statuses = join_all(stages).await;
            let failed = statuses.iter().rev().find(|status| **status != 0 && pipefail);
            failed.or(statuses.last()).copied().unwrap_or(0)
        })
        .await
    }

    fn command<'a>(&'a mut self, command: &'a Command) -> BoxFuture<'a, Run> {
        Box::pin(async move {
            let replace = std::mem::take(&mut self.replace);
            if self.level >= MAX_LEVEL {
                return Err(self.fatal("too many commands inside each other", 2).await);
            }
            self.level += 1;
            let result = match command {
                Command::Simple(simple) => self.simple(simple, replace).await,
                Command::Compound(compound, redirects) => self.redirected(compound, redirects.as_ref()).await,
                Command::Function(function) => {
                    self.functions.insert(function.fname.value.clone(), Arc::new(function.body.clone()));
                    Ok(0)
                }
                Command::ExtendedTest(test, None) => self.extended_test(&test.expr).await.map(|yes| i32::from(!yes)),
                Command::ExtendedTest(_, Some(_)) => Err(self.unsupported("[[ … ]] with a redirection").await),
            };
            self.level -= 1;
            result
        })
    }

    async fn redirected(&mut self, compound: &CompoundCommand, redirects: Option<&RedirectList>) -> Run {
        let Some(redirects) = redirects else { return self.compound(compound).await };
        let redirects: Vec<&IoRedirect> = redirects.0.iter().collect();
        let Some(fds) = self.redirect(&redirects).await? else { return Ok(1) };
        let before = std::mem::replace(&mut self.cx.fds, fds);
        let result = self.compound(compound).await;
        self.cx.fds = before;
        result
    }

    async fn compound(&mut self, compound: &CompoundCommand) -> Run {
        match compound {
            CompoundCommand::BraceGroup(group) => self.list(&group.list).await,
            CompoundCommand::Subshell(group) => {
                let (mut sub, guard) = self.subshell("sh");
                let run = supervise(
                    guard,
                    Box::pin(async move {
                        sub.status = match sub.list(&group.list).await {
                            Ok(status) | Err(Stop::Exit(status) | Stop::Return(status)) => status,
                            Err(_) => sub.status,
                        };
                        sub.finish().await
                    }),
                );
                Ok(self.foreground(run).await)
            }
            CompoundCommand::IfClause(clause) => {
                if self.condition(&clause.condition).await? {
                    return self.list(&clause.then).await;
                }
                for branch in clause.elses.iter().flatten() {
                    let taken = match &branch.condition {
                        Some(condition) => self.condition(condition).await?,
                        None => true,
                    };
                    if taken {
                        return self.list(&branch.body).await;
                    }
                }
                Ok(0)
            }
            CompoundCommand::WhileClause(clause) => self.repeat(&clause.0, &clause.1.list, true).await,
            CompoundCommand::UntilClause(clause) => self.repeat(&clause.0, &clause.1.list, false).await,
            CompoundCommand::ForClause(clause) => {
                let values = match &clause.values {
                    Some(words) => self.fields(&words.iter().collect::<Vec<_>>()).await?,
                    None => self.args.clone(),
                };
                let mut status = 0;
                for value in values {
                    self.assign(&clause.variable_name, value).await?;
                    match self.list(&clause.body.list).await {
                        Ok(last) => status = last,
                        Err(stop) => match leave(stop)? {
                            true => return Ok(0),
                            false => continue,
                        },
                    }
                }
                Ok(status)
            }
            CompoundCommand::CaseClause(clause) => {
                let value = self.text(&clause.value.value).await?;
                let mut fall = false;
                let mut status = 0;
                for case in &clause.cases {
                    let mut hit = fall;
                    for pattern in &case.patterns {
                        hit = hit || Pattern::new(&self.pattern(&pattern.value).await?).matches(&value);
                    }
                    if !hit {
                        continue;
                    }
                    status = match &case.cmd {
                        Some(list) => self.list(list).await?,
                        None => 0,
                    };
                    match case.post_action {
                        CaseItemPostAction::ExitCase => return Ok(status),
                        CaseItemPostAction::UnconditionallyExecuteNextCaseItem => fall = true,
                        CaseItemPostAction::ContinueEvaluatingCases => fall = false,
                    }
                }
                Ok(status)
            }
            CompoundCommand::Arithmetic(command) => {
                Ok(i32::from(self.expand_arithmetic(&command.expr.value).await? == 0))
            }
            CompoundCommand::ArithmeticForClause(clause) => {
                if let Some(first) = &clause.initializer {
                    self.expand_arithmetic(&first.value).await?;
                }
                let mut status = 0;
                loop {
                    if let Some(condition) = &clause.condition
                        && self.expand_arithmetic(&condition.value).await? == 0
                    {
                        return Ok(status);
                    }
                    match self.list(&clause.body.list).await {
                        Ok(last) => status = last,
                        Err(stop) => {
                            if leave(stop)? {
                                return Ok(0);
                            }
                        }
                    }
                    if let Some(step) = &clause.updater {
                        self.expand_arithmetic(&step.value).await?;
                    }
                    tokio::task::yield_now().await;
                }
            }
            CompoundCommand::Coprocess(_) => Err(self.unsupported("a coprocess").await),
        }
    }

    async fn condition(&mut self, list: &CompoundList) -> Result<bool, Stop> {
        self.tolerant += 1;
        let result = self.list(list).await;
        self.tolerant -= 1;
        Ok(result? == 0)
    }

    async fn repeat(&mut self, condition: &CompoundList, body: &CompoundList, wanted: bool) -> Run {
        let mut status = 0;
        loop {
            // A loop that waits for nothing must not keep a thread of the lab for itself.
            tokio::task::yield_now().await;
            let go_on = match self.condition(condition).await {
                Ok(yes) => yes == wanted,
                Err(stop) => match leave(stop)? {
                    true => return Ok(0),
                    false => continue,
                },
            };
            if !go_on {
                return Ok(status);
            }
            match self.list(body).await {
                Ok(last) => status = last,
                Err(stop) => {
                    if leave(stop)? {
                        return Ok(0);
                    }
                }
            }
        }
    }

    async fn simple(&mut self, command: &SimpleCommand, replace: bool) -> Run {
        let mut assignments: Vec<&Assignment> = Vec::new();
        let mut redirects: Vec<&IoRedirect> = Vec::new();
        let mut args: Vec<String> = Vec::new();
        self.substituted = None;
        for item in command.prefix.iter().flat_map(|prefix| &prefix.0) {
            match item {
                CommandPrefixOrSuffixItem::IoRedirect(redirect) => redirects.push(redirect),
                CommandPrefixOrSuffixItem::AssignmentWord(assignment, _) => assignments.push(assignment),
                CommandPrefixOrSuffixItem::Word(word) => args.extend(self.fields(&[word]).await?),
                CommandPrefixOrSuffixItem::ProcessSubstitution(..) => {
                    return Err(self.unsupported("process substitution").await);
                }
            }
        }
        if let Some(word) = &command.word_or_name {
            args.extend(self.fields(&[word]).await?);
        }
        let declares = args
            .first()
            .is_some_and(|name| matches!(name.as_str(), "export" | "readonly" | "local" | "declare" | "typeset"));
        for item in command.suffix.iter().flat_map(|suffix| &suffix.0) {
            match item {
                CommandPrefixOrSuffixItem::IoRedirect(redirect) => redirects.push(redirect),
                CommandPrefixOrSuffixItem::AssignmentWord(assignment, word) if declares => {
                    let (AssignmentName::VariableName(name), AssignmentValue::Scalar(value)) =
                        (&assignment.name, &assignment.value)
                    else {
                        return Err(self.unsupported(&format!("array {}", word.value)).await);
                    };
                    let value = self.text(&value.value).await?;
                    args.push(format!("{name}={value}"));
                }
                CommandPrefixOrSuffixItem::Word(word) | CommandPrefixOrSuffixItem::AssignmentWord(_, word) => {
                    args.extend(self.fields(&[word]).await?);
                }
                CommandPrefixOrSuffixItem::ProcessSubstitution(..) => {
                    return Err(self.unsupported("process substitution").await);
                }
            }
        }
        let mut values = Vec::new();
        for assignment in assignments {
            let AssignmentName::VariableName(name) = &assignment.name else {
                return Err(self.unsupported("an array").await);
            };
            let AssignmentValue::Scalar(Word { value, .. }) = &assignment.value else {
                return Err(self.unsupported("an array").await);
            };
            let mut value = self.text(value).await?;
            if assignment.append {
                value.insert_str(0, &self.get(name).unwrap_or_default());
            }
            if args.is_empty() {
                // `a=1 b=$a`
                self.assign(name, value).await?;
            } else {
                values.push((name.clone(), value));
            }
        }
        let Some(fds) = self.redirect(&redirects).await? else { return Ok(1) };
        if self.options.xtrace {
            let line = format!("+ {}\n", args.join(" "));
            let _ = self.cx.fd(2).write_all(line.as_bytes()).await;
        }
        if args.is_empty() {
            return Ok(self.substituted.unwrap_or(0));
        }
        self.invoke(args, values, fds, replace).await
    }

    /// Run a command whose words are expanded.
    async fn invoke(&mut self, args: Vec<String>, values: Vec<(String, String)>, fds: Fds, replace: bool) -> Run {
        let name = args.first().cloned().unwrap_or_default();
        let function = self.functions.get(&name).cloned();
        if function.is_none() && !builtins::is_builtin(&name) {
            let mut cx = self.cx.clone();
            cx.fds = fds;
            cx.env = self.environment();
            cx.env.extend(values);
            return Ok(if replace {
                // This process becomes the command: the shell must not keep its descriptors open.
                self.cx.fds.clear();
                let status = self.foreground(cx.exec(args)).await;
                self.traps.remove("EXIT");
                status
            } else {
                self.foreground(async move { cx.spawn(args).await }).await
            });
        }
        let hidden: Vec<_> = values.iter().map(|(name, _)| (name.clone(), self.vars.get(name).cloned())).collect();
        for (name, value) in values {
            self.put(&name, value, true);
        }
        let permanent = name == "exec" && args.len() == 1;
        let before = std::mem::replace(&mut self.cx.fds, fds);
        let result = match function {
            Some(body) => self.call(&body, args).await,
            None => self.builtin(args).await,
        };
        if !permanent {
            self.cx.fds = before;
        }
        for (name, var) in hidden {
            self.restore(name, var);
        }
        result
    }

    async fn call(&mut self, body: &FunctionBody, args: Vec<String>) -> Run {
        let before = std::mem::replace(&mut self.args, args.into_iter().skip(1).collect());
        self.locals.push(HashMap::new());
        let result = self.redirected(&body.0, body.1.as_ref()).await;
        for (name, var) in self.locals.pop().unwrap_or_default() {
            self.restore(name, var);
        }
        self.args = before;
        match result {
            Err(Stop::Return(status)) => Ok(status),
            result => result,
        }
    }

    fn restore(&mut self, name: String, var: Option<Var>) {
        match var {
            Some(var) => self.vars.insert(name, var),
            None => self.vars.remove(&name),
        };
    }

    /// The descriptors after redirections; none when a file could not be opened, which is said.
    async fn redirect(&mut self, redirects: &[&IoRedirect]) -> Result<Option<Fds>, Stop> {
        let mut fds = self.cx.fds.clone();
        for redirect in redirects {
            let done = match redirect {
                IoRedirect::File(fd, kind, target) => self.redirect_file(&mut fds, *fd, kind, target).await?,
                IoRedirect::OutputAndError(word, append) => {
                    let path = self.text(&word.value).await?;
                    let how = if *append { Open::Append } else { Open::Write };
                    let opened = self.open(&fds, &path, how);
                    opened.map(|file| {
                        fds.insert(1, file.clone());
                        fds.insert(2, file);
                    })
                }
                IoRedirect::HereString(fd, word) => {
                    let text = self.text(&word.value).await?;
                    fds.insert(fd.unwrap_or(0), bytes(format!("{text}\n").into_bytes()));
                    Ok(())
                }
                IoRedirect::HereDocument(fd, doc) => {
                    let mut text = doc.doc.value.clone();
                    if doc.remove_tabs {
                        text = text.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect();
                    }
                    if doc.requires_expansion {
                        text = self.heredoc(&text).await?;
                    }
                    fds.insert(fd.unwrap_or(0), bytes(text.into_bytes()));
                    Ok(())
                }
            };
            if let Err(why) = done {
                self.say(why).await;
                return Ok(None);
            }
        }
        Ok(Some(fds))
    }

    async fn redirect_file(
        &mut self,
        fds: &mut Fds,
        fd: Option<i32>,
        kind: &IoFileRedirectKind,
        target: &IoFileRedirectTarget,
    ) -> Result<Result<(), String>, Stop> {
        let reads = matches!(
            kind,
            IoFileRedirectKind::Read | IoFileRedirectKind::ReadAndWrite | IoFileRedirectKind::DuplicateInput
        );
        let number = fd.unwrap_or(i32::from(!reads));
        let word = match target {
            IoFileRedirectTarget::Fd(from) => from.to_string(),
            IoFileRedirectTarget::Filename(word) | IoFileRedirectTarget::Duplicate(word) => {
                self.text(&word.value).await?
            }
            IoFileRedirectTarget::ProcessSubstitution(..) => {
                return Err(self.unsupported("process substitution").await);
            }
        };
        let how = match kind {
            IoFileRedirectKind::Read => Open::Read,
            IoFileRedirectKind::Write | IoFileRedirectKind::Clobber => Open::Write,
            IoFileRedirectKind::Append => Open::Append,
            IoFileRedirectKind::ReadAndWrite => Open::Both,
            IoFileRedirectKind::DuplicateInput | IoFileRedirectKind::DuplicateOutput => {
                if word == "-" {
                    fds.remove(&number);
                    return Ok(Ok(()));
                }
                let source = word.trim_end_matches('-').parse().ok().and_then(|from: i32| fds.get(&from).cloned());
                return Ok(match source {
                    Some(source) => {
                        fds.insert(number, source);
                        Ok(())
                    }
                    None if word.parse::<i32>().is_err() && fd.is_none() && !reads => {
                        self.open(fds, &word, Open::Write).map(|file| {
                            fds.insert(1, file.clone());
                            fds.insert(2, file);
                        })
                    }
                    None => Err(format!("{word}: Bad file descriptor")),
                });
            }
        };
        Ok(self.open(fds, &word, how).map(|file| {
            fds.insert(number, file);
        }))
    }

    fn open(&self, fds: &Fds, path: &str, how: Open) -> Result<Fd, String> {
        let number = match path {
            "/dev/stdin" => Some(0),
            "/dev/stdout" => Some(1),
            "/dev/stderr" => Some(2),
            path => path.strip_prefix("/dev/fd/").and_then(|number| number.parse().ok()),
        };
        if let Some(number) = number {
            return fds.get(&number).cloned().ok_or_else(|| format!("{path}: Bad file descriptor"));
        }
        let opened = match path {
            "" => Err(std::io::ErrorKind::NotFound.into()),
            path => self.cx.machine.fs().open(&self.cx.path(path), how, 0o666 & !self.cx.umask),
        };
        opened.map_err(|error| format!("{path}: {}", reason(&error)))
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

/// Whether a list is one simple command.
fn single(list: &AndOrList) -> bool {
    list.additional.is_empty() && !list.first.bang && matches!(list.first.seq.as_slice(), [Command::Simple(_)])
}

/// What `break` and `continue` do to the loop they reach: whether it ends.
fn leave(stop: Stop) -> Result<bool, Stop> {
    match stop {
        Stop::Break(0 | 1) => Ok(true),
        Stop::Break(levels) => Err(Stop::Break(levels - 1)),
        Stop::Continue(0 | 1) => Ok(false),
        Stop::Continue(levels) => Err(Stop::Continue(levels - 1)),
        stop => Err(stop),
    }
}
