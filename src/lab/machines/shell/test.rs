//! `test`, `[` and `[[`.

use std::time::SystemTime;

use brush_parser::ast::{BinaryPredicate as Binary, ExtendedTestExpr as Expr, UnaryPredicate as Unary};
use futures::future::BoxFuture;

use super::pattern::Pattern;
use super::{Shell, Stop};
use crate::lab::machines::fs::{Fs, Kind, join};

/// `test` by the POSIX rules on the number of arguments.
pub(crate) fn test(fs: &Fs, cwd: &str, args: &[&str]) -> Result<bool, String> {
    match args {
        [] => Ok(false),
        [one] => Ok(!one.is_empty()),
        ["!", rest @ ..] if rest.len() < 3 || !is_binary(rest[0]) => Ok(!test(fs, cwd, rest)?),
        [op, operand] if op.starts_with('-') => unary(fs, cwd, op, operand),
        [left, op, right] if is_binary(op) => binary(fs, cwd, left, op, right),
        ["(", inner, ")"] => Ok(!inner.is_empty()),
        ["(", inner @ .., ")"] if args.len() == 4 => test(fs, cwd, inner),
        // Longer ones are obsolete; `-o` binds less than `-a`.
        args => {
            for (connective, or) in [("-o", true), ("-a", false)] {
                if let Some(at) = args.iter().position(|word| *word == connective) {
                    let (left, right) = (args.get(..at).unwrap_or_default(), args.get(at + 1..).unwrap_or_default());
                    let (left, right) = (test(fs, cwd, left)?, test(fs, cwd, right)?);
                    return Ok(if or { left || right } else { left && right });
                }
            }
            match args.first() {
                Some(&"!") => Ok(!test(fs, cwd, args.get(1..).unwrap_or_default())?),
                _ => Err("too many arguments".to_owned()),
            }
        }
    }
}

fn is_binary(op: &str) -> bool {
    matches!(op, "=" | "==" | "!=" | "<" | ">" | "-eq" | "-ne" | "-lt" | "-le" | "-gt" | "-ge" | "-nt" | "-ot" | "-ef")
}

fn unary(fs: &Fs, cwd: &str, op: &str, operand: &str) -> Result<bool, String> {
    let path = join(cwd, operand);
    let meta = |follow| if operand.is_empty() { None } else { fs.meta(&path, follow).ok() };
    Ok(match op {
        "-n" => !operand.is_empty(),
        "-z" => operand.is_empty(),
        "-e" | "-a" | "-r" | "-w" | "-O" | "-G" => meta(true).is_some(),
        "-f" => meta(true).is_some_and(|meta| meta.kind == Kind::File),
        "-d" => meta(true).is_some_and(|meta| meta.kind == Kind::Dir),
        "-s" => meta(true).is_some_and(|meta| meta.len > 0),
        "-x" => meta(true).is_some_and(|meta| meta.mode & 0o111 != 0),
        "-L" | "-h" => meta(false).is_some_and(|meta| matches!(meta.kind, Kind::Link(_))),
        "-c" => meta(true).is_some_and(|meta| meta.kind == Kind::Device),
        "-b" | "-p" | "-S" | "-t" | "-k" | "-u" | "-g" => false,
        op => return Err(format!("{op}: unary operator expected")),
    })
}

fn binary(fs: &Fs, cwd: &str, left: &str, op: &str, right: &str) -> Result<bool, String> {
    let number = |text: &str| text.trim().parse::<i64>().map_err(|_| format!("{text}: integer expression expected"));
    let modified = |path: &str| fs.meta(&join(cwd, path), true).ok().map(|meta| meta.modified);
    let newer = |left: Option<SystemTime>, right: Option<SystemTime>| left.is_some() && left > right;
    Ok(match op {
        "=" | "==" => left == right,
        "!=" => left != right,
        "<" => left < right,
        ">" => left > right,
        "-eq" => number(left)? == number(right)?,
        "-ne" => number(left)? != number(right)?,
        "-lt" => number(left)? < number(right)?,
        "-le" => number(left)? <= number(right)?,
        "-gt" => number(left)? > number(right)?,
        "-ge" => number(left)? >= number(right)?,
        "-nt" => newer(modified(left), modified(right)),
        "-ot" => newer(modified(right), modified(left)),
        "-ef" => {
            let inode = |path: &str| fs.meta(&join(cwd, path), true).ok().map(|meta| meta.inode);
            inode(left).is_some() && inode(left) == inode(right)
        }
        op => return Err(format!("{op}: binary operator expected")),
    })
}

impl Shell {
    pub(super) fn extended_test<'a>(&'a mut self, expr: &'a Expr) -> BoxFuture<'a, Result<bool, Stop>> {
        Box::pin(async move {
            match expr {
                Expr::And(left, right) => Ok(self.extended_test(left).await? && self.extended_test(right).await?),
                Expr::Or(left, right) => Ok(self.extended_test(left).await? || self.extended_test(right).await?),
                Expr::Not(inner) => Ok(!self.extended_test(inner).await?),
                Expr::Parenthesized(inner) => self.extended_test(inner).await,
                Expr::UnaryTest(Unary::ShellVariableIsSetAndAssigned, word) => {
                    let name = self.text(&word.value).await?;
                    Ok(self.get(&name).is_some())
                }
                Expr::UnaryTest(predicate, word) => {
                    let operand = self.text(&word.value).await?;
                    let op = predicate.to_string();
                    self.verdict(unary(self.cx.machine.fs(), &self.cx.cwd, &op, &operand)).await
                }
                Expr::BinaryTest(predicate, left, right) => {
                    let left = self.text(&left.value).await?;
                    match predicate {
                        Binary::StringExactlyMatchesPattern | Binary::StringDoesNotExactlyMatchPattern => {
                            let matches = Pattern::new(&self.pattern(&right.value).await?).matches(&left);
                            Ok(matches == matches!(predicate, Binary::StringExactlyMatchesPattern))
                        }
                        Binary::StringMatchesRegex => {
                            let right = self.text(&right.value).await?;
                            let found = regex::Regex::new(&right).map(|regex| regex.is_match(&left));
                            self.verdict(found.map_err(|_| format!("{right}: invalid regular expression"))).await
                        }
                        Binary::StringContainsSubstring => {
                            let right = self.text(&right.value).await?;
                            Ok(left.contains(&right))
                        }
                        predicate => {
                            let right = self.text(&right.value).await?;
                            let op = predicate.to_string();
                            self.verdict(binary(self.cx.machine.fs(), &self.cx.cwd, &left, &op, &right)).await
                        }
                    }
                }
            }
        })
    }

    async fn verdict(&mut self, verdict: Result<bool, String>) -> Result<bool, Stop> {
        match verdict {
            Ok(verdict) => Ok(verdict),
            Err(why) => {
                self.say(why).await;
                Ok(false)
            }
        }
    }
}
