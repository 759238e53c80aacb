//! Simple commands: assignments, functions, builtins and programs.

use std::collections::HashMap;

use brush_parser::ast::{
    Assignment, AssignmentName, AssignmentValue, CommandPrefixOrSuffixItem, FunctionBody, IoRedirect, SimpleCommand,
    Word,
};
use tokio::io::AsyncWriteExt;

use super::super::program::Fds;
use super::{Run, Shell, Stop, Var, builtins};

impl Shell {
    pub(super) async fn simple(&mut self, command: &SimpleCommand, replace: bool) -> Run {
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
    pub(super) async fn invoke(
        &mut self,
        args: Vec<String>,
        values: Vec<(String, String)>,
        fds: Fds,
        replace: bool,
    ) -> Run {
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

    pub(super) async fn call(&mut self, body: &FunctionBody, args: Vec<String>) -> Run {
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

    pub(super) fn restore(&mut self, name: String, var: Option<Var>) {
        match var {
            Some(var) => self.vars.insert(name, var),
            None => self.vars.remove(&name),
        };
    }
}
