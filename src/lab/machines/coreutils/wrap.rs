//! Programs that run another program: `sh`, `sudo`, `env`, `nohup`, `setsid`, `timeout`, `xargs`.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::command_options;
use crate::lab::machines::fs::Open;
use crate::lab::machines::home_of;
use crate::lab::machines::proc::{HUP, KILL, TERM, signal_number};
use crate::lab::machines::program::{Cx, PATH};
use crate::lab::machines::shell::Shell;

/// `sh` and `bash`: `-c script name args…`, a file, or standard input.
pub(super) async fn shell(cx: &mut Cx) -> io::Result<i32> {
    let name = cx.name().to_owned();
    let mut words = cx.words().into_iter().peekable();
    let (mut command, mut input, mut set) = (false, false, Vec::new());
    while let Some(word) = words.next_if(|word| word.len() > 1 && word.starts_with(['-', '+'])) {
        if word == "--" {
            break;
        }
        if word.starts_with("--") {
            continue;
        }
        let on = word.starts_with('-');
        for letter in word.chars().skip(1) {
            match letter {
                'c' => command = true,
                's' => input = true,
                'l' | 'i' => {}
                'o' => match words.next().as_deref() {
                    Some("pipefail") => set.push("pipefail"),
                    Some("errexit") => set.push("e"),
                    Some("nounset") => set.push("u"),
                    _ => {}
                },
                'e' if on => set.push("e"),
                'u' if on => set.push("u"),
                'x' if on => set.push("x"),
                'f' if on => set.push("f"),
                _ => {}
            }
        }
    }
    let mut args: Vec<String>;
    let text;
    if command {
        let Some(script) = words.next() else {
            cx.complain("-c: option requires an argument").await;
            return Ok(2);
        };
        text = script;
        args = words.collect();
        if args.is_empty() {
            args.push(name);
        }
    } else if let Some(file) = words.next_if(|_| !input) {
        text = match cx.machine.fs().read(&cx.path(&file)) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => {
                cx.fail(&file, &error).await;
                return Ok(127);
            }
        };
        args = std::iter::once(file).chain(words).collect();
    } else {
        // The whole input is the script; commands in it find nothing left to read.
        text = String::from_utf8_lossy(&cx.read_all("-").await?).into_owned();
        args = std::iter::once(name).chain(words).collect();
    }
    let mut shell = Shell::new(cx.clone(), args);
    // Nobody but the shell may hold the descriptors, or readers wait for ever.
    cx.fds.clear();
    for option in set {
        shell.set_named(option);
    }
    Ok(if command { shell.command_line(&text).await } else { shell.script(&text).await })
}

async fn become_program(cx: &mut Cx, args: Vec<String>) -> i32 {
    let next = cx.clone();
    cx.fds.clear();
    next.exec(args).await
}

pub(super) async fn sudo(cx: &mut Cx) -> io::Result<i32> {
    let args = command_options!(cx, "n E H S i k K v s non-interactive preserve-env", "u user g group p D");
    let user = args.value("u user").unwrap_or("root").to_owned();
    if user != "root" && user != cx.machine.user {
        cx.complain(format!("unknown user {user}")).await;
        return Ok(1);
    }
    let assignments = args.rest.iter().take_while(|word| word.contains('=') && !word.starts_with('/')).count();
    let (env, command) = args.rest.split_at(assignments);
    if !args.has("E preserve-env") {
        let kept = ["PATH", "LANG", "TERM", "PWD"];
        cx.env.retain(|name, _| kept.contains(&name.as_str()));
        cx.env.insert("PATH".to_owned(), PATH.to_owned());
        cx.env.insert("SUDO_USER".to_owned(), cx.user.clone());
    }
    let home = home_of(&user);
    for (name, value) in [("HOME", home.as_str()), ("USER", &user), ("LOGNAME", &user), ("SHELL", "/bin/bash")] {
        cx.env.insert(name.to_owned(), value.to_owned());
    }
    cx.env.extend(
        env.iter().filter_map(|word| word.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    cx.user = user;
    if args.has("i") {
        cx.cwd = home;
    }
    let mut command = command.to_vec();
    if args.has("i s") {
        let line: Vec<String> = command.iter().map(|word| quoted(word)).collect();
        command = if line.is_empty() {
            vec!["bash".to_owned()]
        } else {
            vec!["bash".to_owned(), "-c".to_owned(), line.join(" ")]
        };
    }
    if command.is_empty() {
        return Ok(i32::from(!args.has("v k K")));
    }
    if command.first().is_some_and(|name| {
        cx.env
            .get("PATH")
            .is_some_and(|path| crate::lab::machines::program::which(&cx.machine, name, &cx.cwd, path).is_none())
    }) {
        cx.complain(format!("{}: command not found", command.first().map_or("", String::as_str))).await;
        return Ok(1);
    }
    Ok(become_program(cx, command).await)
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// `env` and `printenv`.
pub(super) async fn env(cx: &mut Cx) -> io::Result<i32> {
    if cx.name() == "printenv" {
        let words = cx.words();
        if words.is_empty() {
            let text: String = cx.env.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
            return cx.out(text).await.map(|()| 0);
        }
        let found: Vec<String> =
            words.iter().filter_map(|name| cx.env.get(name)).map(|value| format!("{value}\n")).collect();
        cx.out(found.concat()).await?;
        return Ok(i32::from(found.len() < words.len()));
    }
    let args = command_options!(cx, "i 0 ignore-environment", "u unset C chdir");
    if args.has("i ignore-environment") {
        cx.env.clear();
    }
    for name in args.all("u unset") {
        cx.env.remove(name);
    }
    if let Some(dir) = args.value("C chdir") {
        cx.cwd = cx.path(dir);
    }
    let count = args.rest.iter().take_while(|word| word.contains('=')).count();
    let (assignments, command) = args.rest.split_at(count);
    for word in assignments {
        if let Some((name, value)) = word.split_once('=') {
            cx.env.insert(name.to_owned(), value.to_owned());
        }
    }
    if command.is_empty() {
        let text: String = cx.env.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        return cx.out(text).await.map(|()| 0);
    }
    Ok(become_program(cx, command.to_vec()).await)
}

/// `nice`, `ionice`, `stdbuf`: the command alone.
pub(super) async fn nice(cx: &mut Cx) -> io::Result<i32> {
    let args = command_options!(cx, "", "n adjustment o e i");
    Ok(become_program(cx, args.rest).await)
}

pub(super) async fn nohup(cx: &mut Cx) -> io::Result<i32> {
    let args = command_options!(cx, "", "");
    cx.proc.set_trap(HUP, false, true);
    Ok(become_program(cx, args.rest).await)
}

pub(super) async fn setsid(cx: &mut Cx) -> io::Result<i32> {
    let args = command_options!(cx, "w f c wait fork", "");
    if args.rest.is_empty() {
        cx.complain("no command specified").await;
        return Ok(1);
    }
    // A group leader cannot become a session leader: setsid(1) forks then.
    if cx.proc.group() == cx.proc.pid || args.has("f fork") {
        let child = cx.detach(args.rest.clone());
        child.lead();
        return Ok(if args.has("w wait") { child.ended().await } else { 0 });
    }
    cx.proc.lead();
    Ok(become_program(cx, args.rest).await)
}

pub(super) async fn timeout(cx: &mut Cx) -> io::Result<i32> {
    let args = command_options!(cx, "v foreground preserve-status verbose", "s signal k kill-after");
    let Some((limit, command)) = args.rest.split_first() else {
        cx.complain("missing operand").await;
        return Ok(125);
    };
    let seconds = |text: &str| {
        let number = text.trim_end_matches(['s', 'm', 'h', 'd']);
        let unit = match text.get(number.len()..) {
            Some("m") => 60.0,
            Some("h") => 3600.0,
            Some("d") => 86_400.0,
            _ => 1.0,
        };
        number
            .parse::<f64>()
            .ok()
            .filter(|n| n.is_finite() && *n >= 0.0)
            .map(|n| Duration::from_secs_f64((n * unit).min(1e8)))
    };
    let Some(limit) = seconds(limit) else {
        cx.complain(format!("invalid time interval '{limit}'")).await;
        return Ok(125);
    };
    let child = cx.detach(command.to_vec());
    cx.fds.clear();
    // The child must not outlive us.
    let guard = OnDrop(child.clone());
    if limit.is_zero() {
        return Ok(child.ended().await);
    }
    tokio::select! {
        status = child.ended() => return Ok(status),
        () = tokio::time::sleep(limit) => {}
    }
    child.signal(args.value("s signal").and_then(signal_number).unwrap_or(TERM));
    let grace = args.value("k kill-after").and_then(seconds).unwrap_or(Duration::from_secs(86_400));
    tokio::select! {
        status = child.ended() => {
            return Ok(if args.has("preserve-status") { status } else { 124 });
        }
        () = tokio::time::sleep(grace) => child.signal(KILL),
    }
    drop(guard);
    Ok(128 + KILL)
}

struct OnDrop(std::sync::Arc<crate::lab::machines::proc::Proc>);
impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.signal(TERM);
    }
}

pub(super) async fn xargs(cx: &mut Cx) -> io::Result<i32> {
    let args = command_options!(cx, "0 r t null no-run-if-empty", "n I P L d max-args max-procs");
    let mut input = String::new();
    cx.fd(0).read_to_string(&mut input).await?;
    let items: Vec<String> = match (args.has("0 null"), args.value("I"), args.value("d")) {
        (true, _, _) => input.split('\0').filter(|item| !item.is_empty()).map(str::to_owned).collect(),
        (_, Some(_), _) => {
            input.lines().map(|line| line.trim_start().to_owned()).filter(|line| !line.is_empty()).collect()
        }
        (_, _, Some(delimiter)) => {
            let delimiter = crate::lab::machines::shell::ansi_c(delimiter);
            input.split(delimiter.as_str()).map(|item| item.trim_end_matches('\n').to_owned()).collect()
        }
        _ => input.split_whitespace().map(|item| item.replace(['\'', '"'], "")).collect(),
    };
    if items.is_empty() && args.has("r no-run-if-empty") {
        return Ok(0);
    }
    let command = if args.rest.is_empty() { vec!["echo".to_owned()] } else { args.rest.clone() };
    let mut child = cx.clone();
    child.fds.insert(0, cx.machine.fs().open("/dev/null", Open::Read, 0)?);
    let mut failed = false;
    if let Some(place) = args.value("I") {
        for item in items {
            failed |= child.spawn(command.iter().map(|word| word.replace(place, &item)).collect()).await != 0;
        }
    } else {
        let most = args.value("n L max-args").and_then(|count| count.parse().ok()).unwrap_or(5000).max(1);
        let mut groups: Vec<&[String]> = items.chunks(most).collect();
        if groups.is_empty() {
            groups.push(&[]);
        }
        for group in groups {
            failed |= child.spawn([command.as_slice(), group].concat()).await != 0;
        }
    }
    Ok(if failed { 123 } else { 0 })
}
