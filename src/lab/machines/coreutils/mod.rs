//! The handful of GNU tools that scripts lean on, as functions over the virtual root.
//!
//! Options that scripts use are there; others are refused with the tool's own "invalid option" and status 2 or 1, so
//! that a script never believes in something that did not happen.

mod archive;
mod files;
mod find;
pub(super) mod info;
mod sed;
mod stat;
pub(super) mod text;
mod text_files;
mod wrap;

use std::io;

use futures::future::BoxFuture;

use super::program::Cx;
use super::{journal, system};

/// A program of the lab: its exit status, or an error of its own output.
pub(super) type Applet = for<'a> fn(&'a mut Cx) -> BoxFuture<'a, io::Result<i32>>;

macro_rules! applets {
    ($($name:literal => $run:path),* $(,)?) => {
        const APPLETS: &[(&str, Applet)] = &[$(($name, |cx| Box::pin($run(cx)))),*];
    };
}

applets! {
    "[" => info::test,
    "apt-get" => system::packages,
    "base64" => text_files::base64,
    "basename" => info::basename,
    "bash" => wrap::shell,
    "cat" => text_files::cat,
    "chcon" => system::nothing,
    "chgrp" => files::chown,
    "chmod" => files::chmod,
    "chown" => files::chown,
    "chronyc" => system::chronyc,
    "cmp" => text_files::diff,
    "cp" => files::cp,
    "cut" => text::cut,
    "date" => info::date,
    "df" => stat::df,
    "diff" => text_files::diff,
    "dirname" => info::dirname,
    "dnf" => system::packages,
    "du" => stat::du,
    "echo" => info::echo,
    "env" => wrap::env,
    "expr" => info::expr,
    "fallocate" => files::truncate,
    "false" => info::no,
    "find" => find::find,
    "free" => info::free,
    "getenforce" => info::getenforce,
    "getent" => info::getent,
    "grep" => text::grep,
    "groups" => info::groups,
    "growpart" => system::growpart,
    "gunzip" => archive::gzip,
    "gzip" => archive::gzip,
    "head" => text_files::head,
    "hostname" => info::hostname,
    "hostnamectl" => info::hostname,
    "id" => info::id,
    "install" => files::install,
    "journalctl" => journal::journalctl,
    "kill" => system::kill,
    "ln" => files::ln,
    "loginctl" => system::loginctl,
    "ls" => stat::ls,
    "lsblk" => system::lsblk,
    "mkdir" => files::mkdir,
    "mktemp" => files::mktemp,
    "mv" => files::mv,
    "nice" => wrap::nice,
    "nohup" => wrap::nohup,
    "nproc" => info::nproc,
    "pgrep" => system::pgrep,
    "pkill" => system::pgrep,
    "printenv" => wrap::env,
    "printf" => info::printf,
    "ps" => system::ps,
    "pwd" => info::pwd,
    "readlink" => stat::readlink,
    "realpath" => stat::readlink,
    "resize2fs" => system::grow_fs,
    "restorecon" => system::nothing,
    "rm" => files::rm,
    "rmdir" => files::rmdir,
    "sed" => sed::sed,
    "semanage" => system::nothing,
    "seq" => info::seq,
    "setsebool" => system::nothing,
    "setsid" => wrap::setsid,
    "sh" => wrap::shell,
    "sha256sum" => text_files::sha256sum,
    "sleep" => info::sleep,
    "sort" => text::sort,
    "ss" => system::ss,
    "stat" => stat::stat,
    "stdbuf" => wrap::nice,
    "sudo" => wrap::sudo,
    "sync" => system::nothing,
    "systemctl" => system::systemctl,
    "systemd-run" => system::systemd_run,
    "tail" => text_files::tail,
    "tar" => archive::tar,
    "tee" => text_files::tee,
    "test" => info::test,
    "timeout" => wrap::timeout,
    "touch" => files::touch,
    "tr" => text::tr,
    "true" => info::yes,
    "truncate" => files::truncate,
    "uname" => info::uname,
    "uniq" => text::uniq,
    "unlink" => files::rm,
    "update-ca-certificates" => system::trust,
    "update-ca-trust" => system::trust,
    "uptime" => info::uptime,
    "wc" => text_files::wc,
    "which" => info::which,
    "whoami" => info::whoami,
    "xargs" => wrap::xargs,
    "xfs_growfs" => system::grow_fs,
    "yum" => system::packages,
}

pub(super) fn applet(name: &str) -> Option<Applet> {
    APPLETS.iter().find(|(known, _)| *known == name).map(|(_, applet)| *applet)
}

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    APPLETS.iter().map(|(name, _)| *name)
}

/// Arguments taken apart: flags, options with values, and the rest.
pub(super) struct Args {
    flags: Vec<String>,
    values: Vec<(String, String)>,
    pub rest: Vec<String>,
}

impl Args {
    /// `flags` and `values` list the options, short ones as letters and long ones by name (`"n lines"`). An unknown
    /// option is an error: its text.
    pub fn parse(words: &[String], flags: &str, values: &str) -> Result<Self, String> {
        Self::read(words, flags, values, false)
    }

    /// The same for tools that run a command: options end where it starts.
    pub fn before_command(words: &[String], flags: &str, values: &str) -> Result<Self, String> {
        Self::read(words, flags, values, true)
    }

    fn read(words: &[String], flags: &str, values: &str, stop: bool) -> Result<Self, String> {
        let known = |list: &str, name: &str| list.split_whitespace().any(|known| known == name);
        let mut args = Self { flags: Vec::new(), values: Vec::new(), rest: Vec::new() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word == "--" {
                args.rest.extend(words.by_ref().cloned());
            } else if let Some(long) = word.strip_prefix("--") {
                let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
                if known(values, name) {
                    let value = match value {
                        Some(value) => value.to_owned(),
                        None => words.next().ok_or(format!("option '--{name}' requires an argument"))?.clone(),
                    };
                    args.values.push((name.to_owned(), value));
                } else if known(flags, name) {
                    // `--color=auto` and the like.
                    args.flags.push(name.to_owned());
                    args.values.extend(value.map(|value| (name.to_owned(), value.to_owned())));
                } else {
                    return Err(format!("unrecognized option '{word}'"));
                }
            } else if word.len() > 1 && word.starts_with('-') {
                for (at, letter) in word.char_indices().skip(1) {
                    let name = letter.to_string();
                    if known(values, &name) {
                        let rest = word.get(at + letter.len_utf8()..).unwrap_or_default();
                        let value = match rest {
                            "" => words.next().ok_or(format!("option requires an argument -- '{letter}'"))?.clone(),
                            rest => rest.to_owned(),
                        };
                        args.values.push((name, value));
                        break;
                    }
                    if !known(flags, &name) {
                        return Err(format!("invalid option -- '{letter}'"));
                    }
                    args.flags.push(name);
                }
            } else {
                args.rest.push(word.clone());
                if stop {
                    args.rest.extend(words.by_ref().cloned());
                }
            }
        }
        Ok(args)
    }

    /// Whether one of these flags was given (`"r recursive"`).
    pub fn has(&self, names: &str) -> bool {
        names.split_whitespace().any(|name| self.flags.iter().any(|flag| flag == name))
    }
    /// The last value of one of these options.
    pub fn value(&self, names: &str) -> Option<&str> {
        let named = |(name, _): &&(String, String)| names.split_whitespace().any(|known| known == name);
        self.values.iter().rev().find(named).map(|(_, value)| value.as_str())
    }
    pub fn all(&self, names: &str) -> Vec<&str> {
        let named = |(name, _): &&(String, String)| names.split_whitespace().any(|known| known == name);
        self.values.iter().filter(named).map(|(_, value)| value.as_str()).collect()
    }
}

/// Parse, or complain and return from the applet with status 2.
macro_rules! options {
    ($cx:expr, $flags:expr, $values:expr) => {
        match $crate::lab::machines::coreutils::Args::parse(&$cx.words(), $flags, $values) {
            Ok(args) => args,
            Err(why) => {
                $cx.complain(why).await;
                return Ok(2);
            }
        }
    };
}
macro_rules! command_options {
    ($cx:expr, $flags:expr, $values:expr) => {
        match $crate::lab::machines::coreutils::Args::before_command(&$cx.words(), $flags, $values) {
            Ok(args) => args,
            Err(why) => {
                $cx.complain(why).await;
                return Ok(2);
            }
        }
    };
}
pub(super) use {command_options, options};

/// `10`, `10K`, `2M`, `1G`.
pub(super) fn size(text: &str) -> Option<u64> {
    let text = text.trim_end_matches(['B', 'b']);
    let text = text.trim_end_matches('i');
    let (number, factor) = match text.chars().last()?.to_ascii_uppercase() {
        'K' => (text.get(..text.len() - 1)?, 1 << 10),
        'M' => (text.get(..text.len() - 1)?, 1 << 20),
        'G' => (text.get(..text.len() - 1)?, 1 << 30),
        'T' => (text.get(..text.len() - 1)?, 1 << 40),
        _ => (text, 1),
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applets_are_in_order_and_once() {
        assert!(APPLETS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
