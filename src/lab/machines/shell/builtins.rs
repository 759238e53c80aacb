//! What a shell does itself: variables, jobs, traps, flow, and the few commands that are faster inside.

use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::test::test;
use super::{Run, Shell, Stop};
use crate::lab::machines::coreutils::text::{echo, format_printf};
use crate::lab::machines::fs::{Kind, join, tidy};
use crate::lab::machines::io::reason;
use crate::lab::machines::proc::{SIGNALS, signal_number};
use crate::lab::machines::program::{PATH, which};

const NAMES: &[&str] = &[
    ":", ".", "[", "alias", "bg", "break", "builtin", "cd", "command", "continue", "declare", "disown", "echo", "eval",
    "exec", "exit", "export", "false", "fg", "getopts", "hash", "jobs", "kill", "let", "local", "printf", "pwd",
    "read", "readonly", "return", "set", "shift", "shopt", "source", "test", "times", "trap", "true", "type",
    "typeset", "ulimit", "umask", "unalias", "unset", "wait",
];

pub(super) fn is_builtin(name: &str) -> bool {
    NAMES.contains(&name)
}

impl Shell {
    pub(super) async fn builtin(&mut self, args: Vec<String>) -> Run {
        let name = args.first().cloned().unwrap_or_default();
        let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
        match name.as_str() {
            ":" | "true" | "alias" | "unalias" | "hash" | "shopt" | "ulimit" | "times" | "fg" | "bg" => Ok(0),
            "false" => Ok(1),
            "disown" => {
                self.jobs.clear();
                Ok(0)
            }
            "echo" => self.print(echo(&words)).await,
            "printf" => match format_printf(&words) {
                Ok(text) => self.print(text).await,
                Err(why) => self.wrong("printf", &why).await,
            },
            "pwd" => self.print(format!("{}\n", self.cx.cwd)).await,
            "test" => self.test("test", &words).await,
            "[" => match words.split_last() {
                Some((&"]", words)) => self.test("[", words).await,
                _ => self.wrong("[", "missing `]'").await,
            },
            "cd" => self.cd(&words).await,
            "export" | "readonly" | "local" | "declare" | "typeset" => self.declare(&name, &words).await,
            "unset" => {
                for word in words.iter().filter(|word| !word.starts_with('-')) {
                    if words.first() == Some(&"-f") || self.vars.remove(*word).is_none() {
                        self.functions.remove(*word);
                    }
                }
                Ok(0)
            }
            "set" => self.set_options(&words).await,
            "shift" => {
                let count = words.first().and_then(|count| count.parse().ok()).unwrap_or(1);
                if count > self.args.len() {
                    return self.wrong("shift", "can't shift that many").await;
                }
                self.args.drain(..count);
                Ok(0)
            }
            "break" | "continue" => {
                let levels = words.first().and_then(|count| count.parse().ok()).unwrap_or(1);
                Err(if name == "break" { Stop::Break(levels) } else { Stop::Continue(levels) })
            }
            "return" | "exit" => {
                let status = match words.first().map(|status| status.parse::<i32>()) {
                    None => self.status,
                    Some(Ok(status)) => status & 255,
                    Some(Err(_)) => 2,
                };
                Err(if name == "return" { Stop::Return(status) } else { Stop::Exit(status) })
            }
            "eval" => self.eval(&words.join(" ")).await,
            "." | "source" => self.source(&words).await,
            "exec" => {
                let args: Vec<String> =
                    words.iter().skip_while(|word| **word == "--").map(|w| (*w).to_owned()).collect();
                if args.is_empty() {
                    return Ok(0);
                }
                let mut cx = self.cx.clone();
                cx.env = self.environment();
                self.cx.fds.clear();
                // The program that takes over knows nothing of our traps.
                self.traps.clear();
                self.arm();
                Err(Stop::Exit(cx.exec(args).await))
            }
            "command" | "builtin" | "type" => self.locate(&name, &words).await,
            "umask" => match words.first().map(|mask| u32::from_str_radix(mask, 8)) {
                None => self.print(format!("{:04o}\n", self.cx.umask)).await,
                Some(Ok(mask)) => {
                    self.cx.umask = mask & 0o777;
                    Ok(0)
                }
                Some(Err(_)) => self.wrong("umask", "illegal mode").await,
            },
            "let" => {
                let mut value = 0;
                for word in &words {
                    value = self.arithmetic(word).await?;
                }
                Ok(i32::from(value == 0))
            }
            "read" => self.read(&words).await,
            "trap" => self.trap(&words).await,
            "wait" => self.wait(&words).await,
            "kill" => self.kill(&words).await,
            "jobs" => {
                let running = self.jobs.values().filter(|proc| proc.status().is_none());
                let lines: String = running.map(|proc| format!("{} {}\n", proc.pid, proc.command())).collect();
                self.print(lines).await
            }
            name => Err(self.unsupported(name).await),
        }
    }

    async fn wrong(&mut self, name: &str, why: &str) -> Run {
        self.say(format!("{name}: {why}")).await;
        Ok(if matches!(name, "[" | "test") { 2 } else { 1 })
    }

    async fn print(&mut self, text: impl AsRef<[u8]>) -> Run {
        match self.cx.out(text).await {
            Ok(()) => Ok(0),
            // As SIGPIPE does to a shell.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Stop::Exit(141)),
            Err(error) => self.wrong("write error", &reason(&error)).await,
        }
    }

    async fn test(&mut self, name: &str, words: &[&str]) -> Run {
        match test(self.cx.machine.fs(), &self.cx.cwd, words) {
            Ok(yes) => Ok(i32::from(!yes)),
            Err(why) => self.wrong(name, &why).await,
        }
    }

    async fn cd(&mut self, words: &[&str]) -> Run {
        let words: Vec<_> = words.iter().filter(|word| !matches!(**word, "--" | "-L" | "-P")).collect();
        let target = match words.first() {
            None => self.get("HOME").unwrap_or_else(|| "/".to_owned()),
            Some(&&"-") => self.get("OLDPWD").unwrap_or_default(),
            Some(word) => (**word).to_owned(),
        };
        let path = tidy(&join(&self.cx.cwd, &target));
        match self.cx.machine.fs().meta(&path, true) {
            Ok(meta) if meta.kind == Kind::Dir => {}
            Ok(_) => return self.wrong("cd", &format!("{target}: Not a directory")).await,
            Err(error) => return self.wrong("cd", &format!("{target}: {}", reason(&error))).await,
        }
        let before = std::mem::replace(&mut self.cx.cwd, path.clone());
        self.put("OLDPWD", before, false);
        self.put("PWD", path.clone(), true);
        if words.first() == Some(&&"-") { self.print(format!("{path}\n")).await } else { Ok(0) }
    }

    async fn declare(&mut self, kind: &str, words: &[&str]) -> Run {
        let flags: String = words.iter().filter(|word| word.starts_with('-')).copied().collect();
        let names: Vec<&&str> = words.iter().filter(|word| !word.starts_with('-')).collect();
        if flags.contains(['a', 'A']) {
            return Err(self.unsupported("an array").await);
        }
        if names.is_empty() {
            let mut lines: Vec<String> = self
                .environment()
                .iter()
                .map(|(name, value)| format!("export {name}='{}'\n", value.replace('\'', r"'\''")))
                .collect();
            lines.sort();
            return self.print(lines.concat()).await;
        }
        for word in names {
            let (name, value) = word.split_once('=').map_or((*word, None), |(name, value)| (name, Some(value)));
            let valid = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && !name.is_empty();
            if !valid {
                return self.wrong(kind, &format!("`{word}': not a valid identifier")).await;
            }
            if matches!(kind, "local" | "declare" | "typeset") {
                let before = self.vars.get(name).cloned();
                if let Some(frame) = self.locals.last_mut() {
                    frame.entry(name.to_owned()).or_insert(before);
                    if value.is_none() {
                        self.vars.remove(name);
                    }
                }
            }
            if let Some(value) = value {
                self.assign(name, value.to_owned()).await?;
            }
            if kind == "export" || kind == "readonly" || flags.contains('x') || flags.contains('r') {
                let var = self.vars.entry(name.to_owned()).or_default();
                var.exported = !flags.contains('n') && (var.exported || kind == "export" || flags.contains('x'));
                var.readonly |= kind == "readonly" || flags.contains('r');
            }
        }
        // `local x=$(false)` is true, as everywhere.
        Ok(0)
    }

    async fn set_options(&mut self, words: &[&str]) -> Run {
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let on = word.starts_with('-');
            match *word {
                "--" => {
                    self.args = words.map(|word| (*word).to_owned()).collect();
                    return Ok(0);
                }
                "-o" | "+o" => match words.next().copied() {
                    Some("errexit") => self.options.errexit = on,
                    Some("nounset") => self.options.nounset = on,
                    Some("noglob") => self.options.noglob = on,
                    Some("xtrace") => self.options.xtrace = on,
                    Some("pipefail") => self.options.pipefail = on,
                    Some("posix" | "monitor" | "errtrace" | "noclobber" | "physical" | "functrace") | None => {}
                    Some(name) => return self.wrong("set", &format!("{name}: invalid option name")).await,
                },
                word if word.len() > 1 && (on || word.starts_with('+')) => {
                    for letter in word.chars().skip(1) {
                        // `-eo pipefail`
                        if letter == 'o' {
                            match words.next() {
                                Some(&"pipefail") => self.options.pipefail = on,
                                Some(&"errexit") => self.options.errexit = on,
                                Some(&"nounset") => self.options.nounset = on,
                                _ => {}
                            }
                        } else if letter != 'E' && !self.set_option(letter, on) {
                            return self.wrong("set", &format!("-{letter}: invalid option")).await;
                        }
                    }
                }
                word => {
                    let first = std::iter::once(word.to_owned());
                    self.args = first.chain(words.map(|word| (*word).to_owned())).collect();
                    return Ok(0);
                }
            }
        }
        Ok(0)
    }

    async fn source(&mut self, words: &[&str]) -> Run {
        let Some(path) = words.first() else { return self.wrong(".", "filename argument required").await };
        match self.cx.machine.fs().read(&self.cx.path(path)) {
            Ok(text) => match self.eval(&String::from_utf8_lossy(&text)).await {
                Err(Stop::Return(status)) => Ok(status),
                result => result,
            },
            Err(error) => Err(self.fatal(format!("{path}: {}", reason(&error)), 1).await),
        }
    }

    async fn locate(&mut self, kind: &str, words: &[&str]) -> Run {
        let verbose = match words.first() {
            Some(&"-v") => Some(false),
            Some(&"-V") => Some(true),
            _ if kind == "type" => Some(true),
            _ => None,
        };
        let skip = words.iter().take_while(|word| word.starts_with('-')).count();
        let rest = words.get(skip..).unwrap_or_default();
        let Some(verbose) = verbose else {
            let args: Vec<String> = rest.iter().map(|word| (*word).to_owned()).collect();
            let Some(name) = args.first() else { return Ok(0) };
            if is_builtin(name) {
                return Box::pin(self.builtin(args)).await;
            }
            let mut cx = self.cx.clone();
            cx.env = self.environment();
            return Ok(self.foreground(async move { cx.spawn(args).await }).await);
        };
        let path = self.get("PATH").unwrap_or_else(|| PATH.to_owned());
        let mut status = 0;
        for name in rest {
            let found = if self.functions.contains_key(*name) || is_builtin(name) {
                Some((*name).to_owned())
            } else {
                which(&self.cx.machine, name, &self.cx.cwd, &path)
            };
            match found {
                Some(found) if verbose => self.print(format!("{name} is {found}\n")).await?,
                Some(found) => self.print(format!("{found}\n")).await?,
                None => {
                    if verbose {
                        self.say(format!("{kind}: {name}: not found")).await;
                    }
                    status = if kind == "type" || verbose { 1 } else { 127 };
                    continue;
                }
            };
        }
        Ok(if status == 127 { 1 } else { status })
    }

    async fn read(&mut self, words: &[&str]) -> Run {
        let (mut raw, mut limit, mut timeout, mut end) = (false, usize::MAX, None, b'\n');
        let mut words = words.iter();
        let mut names: Vec<String> = Vec::new();
        while let Some(word) = words.next() {
            match *word {
                "-r" => raw = true,
                "-s" | "-e" => {}
                "-p" => drop(words.next()),
                "-d" => end = words.next().and_then(|word| word.bytes().next()).unwrap_or(0),
                "-n" | "-N" => limit = words.next().and_then(|count| count.parse().ok()).unwrap_or(limit),
                "-t" => timeout = words.next().and_then(|count| count.parse::<f64>().ok()),
                name => names.push(name.to_owned()),
            }
        }
        if names.is_empty() {
            names.push("REPLY".to_owned());
        }
        let mut input = self.cx.fd(0);
        let line = async move {
            let mut line = Vec::new();
            loop {
                // One byte at a time: what follows the line is for whoever reads next.
                let mut byte = [0];
                match input.read(&mut byte).await {
                    Ok(0) | Err(_) => return (line, true),
                    Ok(_) if byte[0] == end => {
                        if !raw && line.last() == Some(&b'\\') {
                            line.pop();
                            continue;
                        }
                        return (line, false);
                    }
                    Ok(_) => line.push(byte[0]),
                }
                if line.len() >= limit {
                    return (line, false);
                }
            }
        };
        let wait = timeout.filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
        let wait = wait.map_or(Duration::from_secs(86_400 * 365), |seconds| Duration::from_secs_f64(seconds.min(1e6)));
        let proc = self.cx.proc.clone();
        let (line, ended) = tokio::select! {
            line = line => line,
            () = tokio::time::sleep(wait) => return Ok(142),
            () = proc.interrupted() => return Ok(130),
        };
        let mut line = String::from_utf8_lossy(&line).into_owned();
        if !raw {
            line = line.replace('\\', "");
        }
        let ifs = self.get("IFS").unwrap_or_else(|| " \t\n".to_owned());
        let space = |c: char| ifs.contains(c) && c.is_ascii_whitespace();
        let mut rest = line.trim_matches(space);
        let last = names.pop().unwrap_or_default();
        for name in names {
            let at = rest.find(|c| ifs.contains(c)).unwrap_or(rest.len());
            let (value, after) = rest.split_at(at);
            self.assign(&name, value.to_owned()).await?;
            let after = after.trim_start_matches(space);
            // One delimiter that is no white space, with the white space around it.
            rest = match after.chars().next() {
                Some(c) if ifs.contains(c) => after.get(c.len_utf8()..).unwrap_or_default().trim_start_matches(space),
                _ => match rest.get(at..).and_then(|text| text.chars().next()) {
                    Some(c) if !space(c) => rest.get(at + c.len_utf8()..).unwrap_or_default().trim_start_matches(space),
                    _ => after,
                },
            };
        }
        self.assign(&last, rest.to_owned()).await?;
        Ok(i32::from(ended))
    }

    async fn trap(&mut self, words: &[&str]) -> Run {
        let words: Vec<&str> = words.iter().copied().filter(|word| *word != "--").collect();
        let Some((command, signals)) = words.split_first() else {
            let lines: String = self.traps.iter().map(|(name, text)| format!("trap -- '{text}' {name}\n")).collect();
            return self.print(lines).await;
        };
        let (command, signals) = match (*command, signals) {
            // `trap INT` and `trap - INT` reset.
            (signal, []) => ("-", vec![signal]),
            (command, signals) => (command, signals.to_vec()),
        };
        for signal in signals {
            let name = match signal {
                "EXIT" | "0" => "EXIT".to_owned(),
                "ERR" | "DEBUG" | "RETURN" => continue,
                signal => match signal_number(signal) {
                    Some(number) => match SIGNALS.iter().find(|(known, _)| *known == number) {
                        Some((_, name)) => (*name).to_owned(),
                        None => continue,
                    },
                    None => return self.wrong("trap", &format!("{signal}: invalid signal specification")).await,
                },
            };
            if command == "-" {
                self.traps.remove(&name);
            } else {
                self.traps.insert(name.clone(), command.to_owned());
            }
            if let Some(number) = signal_number(&name) {
                self.cx.proc.set_trap(number, command != "-" && !command.is_empty(), command.is_empty());
            }
        }
        self.arm();
        Ok(0)
    }

    async fn wait(&mut self, words: &[&str]) -> Run {
        let pids: Vec<u32> = match words.iter().find(|word| **word != "-n") {
            None => self.jobs.keys().copied().collect(),
            Some(_) => words.iter().filter_map(|word| word.trim_start_matches('%').parse().ok()).collect(),
        };
        let mut status = 0;
        for pid in pids {
            let Some(job) = self.jobs.get(&pid).cloned() else {
                status = 127;
                continue;
            };
            let proc = self.cx.proc.clone();
            tokio::select! {
                biased;
                ended = job.ended() => status = ended,
                // A trap runs at once; `wait` says that it did not wait to the end.
                () = proc.interrupted() => return Ok(128 + 15),
            }
            self.jobs.remove(&pid);
        }
        Ok(if words.is_empty() { 0 } else { status })
    }

    async fn kill(&mut self, words: &[&str]) -> Run {
        let words: Vec<String> = words
            .iter()
            .map(|word| match word.strip_prefix('%').map(str::parse::<usize>) {
                Some(Ok(number)) => {
                    self.jobs.keys().nth(number.saturating_sub(1)).map_or((*word).to_owned(), u32::to_string)
                }
                _ => (*word).to_owned(),
            })
            .collect();
        let mut cx = self.cx.clone();
        cx.args = [vec!["kill".to_owned()], words].concat();
        let status = crate::lab::machines::system::kill(&mut cx).await.unwrap_or(1);
        Ok(status)
    }
}
