//! This machine: the terminal, the programs, the places where things are kept, the credentials that lie about. It only looks.

use std::io::IsTerminal;
use std::path::Path;

use crate::cloud::preflight::{Check, State};
use crate::host::local::LocalHost;
use crate::host::{Cmd, Host};
use crate::record::Store;
use crate::ui::TerminalFacts;
use crate::ui::glyph::Glyphs;
use crate::ui::notify::Way;
use crate::ui::theme::Depth;

use super::check;
use crate::cli::Failure;

/// A record takes about this much of a disk; a bundle as much again.
const ROOM: u64 = 512 << 20;

/// Everything about this machine.
pub async fn checks(state: Option<&Path>) -> Result<Vec<Check>, Failure> {
    let mut checks = terminal(&TerminalFacts::from_env(), crossterm::terminal::size().ok());
    checks.extend(tmux().await?);
    checks.extend(tools().await?);
    checks.extend(places(state));
    checks.push(credentials());
    Ok(checks)
}

/// What the cockpit can do in this terminal.
fn terminal(facts: &TerminalFacts, size: Option<(u16, u16)>) -> Vec<Check> {
    let mut checks = Vec::new();
    let shown = std::io::stdout().is_terminal();
    checks.push(match size.filter(|_| shown) {
        _ if facts.term == "dumb" || facts.term.is_empty() => check(
            State::Warn,
            "terminal",
            format!("TERM is {:?}: there are lines instead of a screen", facts.term),
            "set TERM to what your terminal is, for example xterm-256color",
        ),
        None => check(State::Ok, "terminal", "no terminal here: runs print lines", ""),
        Some((columns, rows)) if columns < 80 || rows < 24 => check(
            State::Warn,
            "terminal",
            format!("{columns}x{rows}: the cockpit shows one pane at a time, or less"),
            "make it 80x24 or larger; from 160x45 on everything is seen at once",
        ),
        Some((columns, rows)) => check(State::Ok, "terminal", format!("{columns}x{rows}, TERM={}", facts.term), ""),
    });
    let (colours, ask) = match Depth::detect(facts.no_color, &facts.colorterm, &facts.term) {
        Depth::Mono if facts.no_color => ("none, because NO_COLOR is set: bold and reverse tell", ""),
        Depth::Mono => ("none: bold and reverse tell", ""),
        Depth::Ansi16 => ("16", "for more: export TERM=xterm-256color, or COLORTERM=truecolor where that is true"),
        Depth::Indexed => ("256", ""),
        Depth::True => ("all", ""),
    };
    checks.push(check(State::Ok, "colours", colours, ask));
    let ascii = Glyphs::for_terminal(&facts.term, &facts.locale).ascii;
    checks.push(if ascii {
        check(
            State::Warn,
            "marks",
            format!("ASCII, because the locale is {:?}", facts.locale),
            "export LC_ALL=C.UTF-8 for lines and marks",
        )
    } else {
        check(State::Ok, "marks", "Unicode", "")
    });
    let way = match Way::Auto.resolved(&facts.kind) {
        Way::Osc99 => "OSC 99",
        Way::Osc777 => "OSC 777",
        _ => "OSC 9 and the bell",
    };
    checks.push(check(State::Ok, "notifications", format!("by {way}; --notify changes it"), ""));
    checks
}

/// What tmux lets through.
async fn tmux() -> Result<Vec<Check>, Failure> {
    if std::env::var_os("TMUX").is_none() {
        return Ok(Vec::new());
    }
    let local = LocalHost::default();
    let mut checks = Vec::new();
    for (option, good, what) in [
        ("allow-passthrough", ["on", "all"], "notifications reach the terminal"),
        ("set-clipboard", ["on", "external"], "copying reaches the clipboard"),
    ] {
        let said = local.exec(&Cmd::sh("tmux show-options -gv \"$1\"").arg(option)).await.map_err(Failure::other)?;
        let value = said.text();
        checks.push(if good.contains(&value.as_str()) {
            check(State::Ok, format!("tmux {option}"), value, "")
        } else {
            check(State::Warn, format!("tmux {option}"), value, format!("tmux set -g {option} on: so that {what}"))
        });
    }
    Ok(checks)
}

/// Programs.
async fn tools() -> Result<Vec<Check>, Failure> {
    let local = LocalHost::default();
    let mut checks = Vec::new();
    for (tool, why, lacking) in [
        ("ssh", "every stage after 01 runs over it", State::Fail),
        ("ssh-keyscan", "it shows the host key of a bastion that you bring", State::Warn),
        ("ssh-add", "an agent can hold the keys", State::Warn),
    ] {
        let found = local.exec(&Cmd::sh("command -v \"$1\"").arg(tool)).await.map_err(Failure::other)?;
        checks.push(match found.ok() {
            true => check(State::Ok, tool, found.text(), ""),
            false => check(lacking, tool, "it is not there", format!("install OpenSSH's client: {why}")),
        });
    }
    let version = local.exec(&Cmd::sh("ssh -V 2>&1")).await.map_err(Failure::other)?;
    if version.ok() {
        checks.push(check(State::Ok, "ssh version", version.text(), ""));
    }
    let agent = local.exec(&Cmd::sh("ssh-add -l >/dev/null 2>&1; echo $?")).await.map_err(Failure::other)?;
    checks.push(match agent.text().as_str() {
        "0" => check(State::Ok, "ssh agent", "it holds keys", ""),
        "1" => check(State::Ok, "ssh agent", "it runs and holds no key; keys in files are used", ""),
        _ => check(
            State::Ok,
            "ssh agent",
            "none; keys in files are used (a key with a passphrase needs one: ssh-add)",
            "",
        ),
    });
    let editor = ["VISUAL", "EDITOR"].iter().find_map(|name| std::env::var(name).ok());
    let editor = editor.unwrap_or_else(|| "vi, as neither VISUAL nor EDITOR is set".into());
    checks.push(check(State::Ok, "editor", editor, ""));
    Ok(checks)
}

/// Where runs are kept.
fn places(state: Option<&Path>) -> Vec<Check> {
    let store = match Store::open(state) {
        Ok(store) => store,
        Err(error) => {
            let ask = "give --state DIR or BARTIZAN_STATE where you may write";
            return vec![check(State::Fail, "state directory", error.to_string(), ask)];
        }
    };
    let home = store.home();
    let mut checks = Vec::new();
    let probe = tempfile::Builder::new().prefix(".doctor-").tempfile_in(home);
    checks.push(match probe {
        Ok(_) => {
            let runs = store.names().map_or(0, |names| names.len());
            check(State::Ok, "state directory", format!("{} holds {runs} runs", home.display()), "")
        }
        Err(error) => {
            let found = format!("{} cannot be written: {error}", home.display());
            check(State::Fail, "state directory", found, "give --state DIR or BARTIZAN_STATE where you may write")
        }
    });
    if let Ok(disk) = rustix::fs::statvfs(home) {
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let found = format!("{} free", crate::headless::size(free));
        checks.push(match free < ROOM {
            true => check(State::Warn, "room for records", found, "make room, or give --state DIR on another disk"),
            false => check(State::Ok, "room for records", found, ""),
        });
    }
    checks
}

/// Where AWS credentials would come from. Whether they work is asked with a spec, by the account's own checks.
fn credentials() -> Check {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let home = directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_owned()).unwrap_or_default();
    let files = ["config", "credentials"].map(|name| home.join(".aws").join(name));
    let found = if set("AWS_ACCESS_KEY_ID").is_some() {
        "AWS_ACCESS_KEY_ID is set".to_owned()
    } else if let Some(profile) = set("AWS_PROFILE") {
        format!("AWS_PROFILE is {profile}")
    } else if set("AWS_WEB_IDENTITY_TOKEN_FILE").is_some() || set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").is_some() {
        "a role of this machine".to_owned()
    } else if let Some(file) = files.iter().find(|file| file.is_file()) {
        file.display().to_string()
    } else {
        let ask = "aws configure sso (or export AWS_PROFILE); the demo and a bastion and network of your own need none";
        return check(State::Warn, "AWS credentials", "nothing in the environment and no ~/.aws", ask);
    };
    check(State::Ok, "AWS credentials", found, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poor_terminal_is_told_with_what_helps() {
        let facts = TerminalFacts { term: "xterm".into(), locale: "C".into(), ..TerminalFacts::default() };
        let checks = terminal(&facts, Some((60, 20)));
        let marks = checks.iter().find(|check| check.what == "marks").unwrap();
        assert!(marks.state == State::Warn && marks.ask.contains("UTF-8"), "{marks:?}");
        let dumb = TerminalFacts { term: "dumb".into(), ..TerminalFacts::default() };
        assert!(terminal(&dumb, None).first().unwrap().found.contains("lines instead of a screen"));
    }
}
