//! Lists, pipelines and compound commands.

use std::sync::Arc;

use brush_parser::ast::{
    AndOr, AndOrList, CaseItemPostAction, Command, CompoundCommand, CompoundList, IoRedirect, Pipeline, RedirectList,
    SeparatorOperator,
};
use futures::future::{BoxFuture, join_all};

use super::super::io::{Fd, pipe};
use super::super::program::supervise;
use super::pattern::Pattern;
use super::{MAX_LEVEL, Run, Shell, Stop};

impl Shell {
    pub(super) fn list<'a>(&'a mut self, list: &'a CompoundList) -> BoxFuture<'a, Run> {
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

    pub(super) fn start(&mut self, list: &AndOrList) {
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

    pub(super) async fn and_or(&mut self, list: &AndOrList) -> Run {
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

    pub(super) async fn pipeline(&mut self, pipeline: &Pipeline, more: bool) -> Run {
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

    pub(super) async fn piped(&mut self, commands: &[Command]) -> i32 {
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

    pub(super) fn command<'a>(&'a mut self, command: &'a Command) -> BoxFuture<'a, Run> {
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

    pub(super) async fn redirected(&mut self, compound: &CompoundCommand, redirects: Option<&RedirectList>) -> Run {
        let Some(redirects) = redirects else { return self.compound(compound).await };
        let redirects: Vec<&IoRedirect> = redirects.0.iter().collect();
        let Some(fds) = self.redirect(&redirects).await? else { return Ok(1) };
        let before = std::mem::replace(&mut self.cx.fds, fds);
        let result = self.compound(compound).await;
        self.cx.fds = before;
        result
    }

    pub(super) async fn compound(&mut self, compound: &CompoundCommand) -> Run {
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

    pub(super) async fn condition(&mut self, list: &CompoundList) -> Result<bool, Stop> {
        self.tolerant += 1;
        let result = self.list(list).await;
        self.tolerant -= 1;
        Ok(result? == 0)
    }

    pub(super) async fn repeat(&mut self, condition: &CompoundList, body: &CompoundList, wanted: bool) -> Run {
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
}

/// Whether a list is one simple command.
pub(super) fn single(list: &AndOrList) -> bool {
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
