//! The program itself in a pseudo-terminal, on a record or beside one that grows: what it does to the terminal, whatever
//! happens to it.

use std::time::{Duration, Instant};

use bartizan::model::event::{Data, Level, LogLine};
use bartizan::record::{Recorder, Store};
use jiff::Timestamp;
use portable_pty::CommandBuilder;
use rustix::process::{Signal, kill_process};

use crate::ui::fixture::{self, Builder};
use crate::ui::live::Live;

fn start(state: &std::path::Path, args: &[&str], vars: &[(&str, &str)]) -> Live {
    let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_bartizan"));
    command.arg("--state");
    command.arg(state);
    command.args(args);
    Live::start(command, vars)
}

/// A replay of `run`, at its end.
fn replay(run: &Builder, vars: &[(&str, &str)]) -> (tempfile::TempDir, Live) {
    let state = tempfile::tempdir().unwrap();
    run.keep(state.path());
    let mut live = start(state.path(), &["replay"], vars);
    live.wait_for("replay");
    live.type_keys("\u{1b}[F");
    live.wait_for("08 install");
    (state, live)
}

fn state_of(live: &Live) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", live.pid().as_raw_nonzero())).unwrap();
    stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
}

#[test]
fn ctrl_z_gives_the_terminal_to_the_shell_and_fg_brings_the_screen_back() {
    let (_state, mut live) = replay(&fixture::install_failed(), &[]);
    for round in 0..2 {
        // By the key, and by whoever else sends the signal.
        if round == 0 {
            live.type_keys("\u{1a}")
        } else {
            kill_process(live.pid(), Signal::TSTP).unwrap()
        }
        live.wait_until("stopped", |live| state_of(live) == 'T' && !live.is_taken());
        live.is_given_back();
        live.resize(100, 28);
        kill_process(live.pid(), Signal::CONT).unwrap();
        live.wait_until("back", Live::is_taken);
        live.wait_for("08 install");
        // Not before the key below: crossterm's reader leaves a key that comes with a resize until the next one.
        if round == 0 {
            live.resize(110, 30);
        }
    }
    live.type_keys("q");
    assert!(live.child.wait().unwrap().success());
    live.wait_until("given back", |live| !live.is_taken());
    live.is_given_back();
}

#[test]
fn signals_and_a_panic_give_the_terminal_back() {
    for signal in [Signal::TERM, Signal::HUP] {
        let (_state, mut live) = replay(&fixture::install_failed(), &[]);
        kill_process(live.pid(), signal).unwrap();
        live.child.wait().unwrap();
        live.wait_until("given back", |live| !live.is_taken());
        live.is_given_back();
    }
    let state = tempfile::tempdir().unwrap();
    fixture::install_failed().keep(state.path());
    let mut live = start(state.path(), &["replay"], &[("BARTIZAN_PANIC", "1")]);
    live.wait_for("BARTIZAN_PANIC asked for this");
    live.child.wait().unwrap();
    live.wait_until("given back", |live| !live.is_taken());
    live.is_given_back();
}

fn sgr_codes(raw: &[u8]) -> Vec<Vec<u16>> {
    let text = String::from_utf8_lossy(raw).into_owned();
    let parts = text.split("\u{1b}[").skip(1);
    let codes = parts.filter_map(|part| {
        let end = part.find(|c: char| !c.is_ascii_digit() && c != ';')?;
        part[end..].starts_with('m').then(|| part[..end].split(';').map(|code| code.parse().unwrap_or(0)).collect())
    });
    codes.collect()
}

#[test]
fn without_colour_nothing_is_coloured_and_the_choice_is_still_seen() {
    let (_state, mut live) = replay(&fixture::install_failed(), &[("NO_COLOR", "1")]);
    live.type_keys("1jj");
    live.wait_until("a choice is seen", |live| live.reversed_rows() > 0);
    for codes in sgr_codes(&live.raw()) {
        assert!(codes.iter().all(|code| !matches!(code, 30..=49 | 90..=107) || matches!(code, 39 | 49)), "{codes:?}");
    }
}

#[test]
fn a_terminal_of_sixteen_colours_gets_no_others() {
    let (_state, live) = replay(&fixture::install_failed(), &[("TERM", "xterm")]);
    let codes = sgr_codes(&live.raw());
    // crossterm writes the sixteen as 38;5;0 to 38;5;15.
    assert!(codes.iter().any(|codes| codes.starts_with(&[38, 5])), "nothing is coloured");
    for codes in codes {
        for pair in codes.windows(3).filter(|three| matches!(three[0], 38 | 48)) {
            assert!(pair[1] == 5 && pair[2] < 16, "{codes:?}");
        }
    }
}

#[test]
fn a_dumb_terminal_gets_lines_and_not_one_escape() {
    let state = tempfile::tempdir().unwrap();
    fixture::install_failed().keep(state.path());
    for vars in [[("TERM", "dumb")], [("ACCESSIBLE", "1")]] {
        let mut live = start(state.path(), &["replay"], &vars);
        assert!(live.child.wait().unwrap().success());
        live.wait_for("FINDING REG-CA");
        assert!(!live.raw().contains(&0x1b), "{}", live.text());
    }
}

#[test]
fn what_a_log_holds_is_seen_and_does_nothing() {
    let mut run = fixture::install_running();
    let attacks = [
        "one \u{1b}]52;c;cm0gLXJmIC8=\u{7} two",
        "three \u{1b}]0;owned\u{7}\u{1b}[2J\u{1b}[1;1H four",
        "five \u{202e}desrever\u{2066} six",
        "seven \u{0}\u{8}\u{9b}31m eight",
        "nine \u{1b}]8;;http://evil.example.com\u{1b}\\ten\u{1b}P+q544e\u{1b}\\",
        "eleven \u{1b}[6n\u{5} twelve",
    ];
    for text in attacks {
        run.log("journal:bootstrap", "kubelet", Level::Error, text);
        run.add(Data::Note { level: Level::Error, text: text.into() });
    }
    let (_state, mut live) = replay(&run, &[]);
    live.type_keys("3z");
    for word in ["one", "four", "five", "six", "eight", "nine", "twelve"] {
        live.wait_for(word);
    }
    live.type_keys("7");
    live.wait_for("twelve");
    let raw = String::from_utf8_lossy(&live.raw()).into_owned();
    for harm in
        ["]52;", "owned", "\u{202e}", "\u{2066}", "\u{0}", "\u{9b}", "]8;;", "\u{1b}P", "[6n", "\u{5}", "cm0gLXJmIC8"]
    {
        assert!(!raw.contains(harm), "{harm:?} reached the terminal");
    }
}

#[test]
fn a_second_terminal_follows_fifty_thousand_lines_a_second_through_a_storm_of_sizes() {
    let state = tempfile::tempdir().unwrap();
    let name = fixture::install_running().keep(state.path());
    let dir = Store::open(Some(state.path())).unwrap().find(&name).unwrap();
    let mut recorder = Recorder::open(&dir).unwrap();
    let mut live = start(state.path(), &["watch"], &[]);
    live.wait_for("watching");
    live.type_keys("3");
    let writer = std::thread::spawn(move || {
        let begun = Instant::now();
        let mut number = 0;
        // A tenth of a second at a time, two seconds long.
        for tick in 1..=20 {
            let lines: Vec<LogLine> = (0..5000)
                .map(|_| {
                    number += 1;
                    let text = format!("burst line {number} of a node that has much to say");
                    LogLine { at: Timestamp::now(), unit: "kubelet".into(), level: Level::Info, text, cursor: None }
                })
                .collect();
            recorder.append_lines(Timestamp::now(), "journal:bootstrap", &lines).unwrap();
            std::thread::sleep((Duration::from_millis(100) * tick).saturating_sub(begun.elapsed()));
        }
        recorder
    });
    for round in 0..40u16 {
        live.resize(20 + round * 37 % 180, 3 + round * 13 % 57);
        std::thread::sleep(Duration::from_millis(40));
    }
    live.resize(110, 30);
    let _recorder = writer.join().unwrap();
    live.wait_for("burst line 100000 ");
    // It still listens.
    live.type_keys("?");
    live.wait_for("Help");
    live.type_keys("\u{1b}");
    live.wait_until("help is closed", |live| !live.text().contains("Help"));
    live.type_keys("q");
    assert!(live.child.wait().unwrap().success());
    live.wait_until("given back", |live| !live.is_taken());
    live.is_given_back();
}

#[test]
fn first_steps_are_shown_and_a_slip_of_the_finger_is_understood() {
    let state = tempfile::tempdir().unwrap();
    let empty = tempfile::tempdir().unwrap();
    let say = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bartizan"));
        command
            .arg("--state")
            .arg(state.path())
            .args(args)
            .current_dir(empty.path())
            .stdin(std::process::Stdio::null());
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, text) = say(&[]);
    assert!(code == Some(0) && text.contains("no cluster.toml") && text.contains("bartizan init"), "{text}");
    let (code, text) = say(&["init", "--set", "cluster.name=edge-9", "--set", "bastion.port=2222"]);
    assert!(code == Some(0) && text.contains("still to be put right") && text.contains("pull_secret"), "{text}");
    assert!(std::fs::read_to_string(empty.path().join("cluster.toml")).unwrap().contains("\nport = 2222\n"));
    let (code, text) = say(&["init", "--set", "cluster.nmae=x", "other.toml"]);
    assert!(code == Some(2) && text.contains("did you mean cluster.name?"), "{text}");
    let (code, text) = say(&["repaly"]);
    assert!(code == Some(2) && text.contains("replay"), "{text}");
    let name = fixture::install_failed().keep(state.path());
    let (_, text) = say(&[]);
    assert!(text.contains(&name) && text.contains("left in 08-install") && text.contains("bartizan replay"), "{text}");
    let (code, text) = say(&["replay", "lsat"]);
    assert!(code == Some(2) && text.contains("no run lsat"), "{text}");
    let pages = empty.path().join("man");
    let (code, _) = say(&["man", pages.to_str().unwrap()]);
    let page = std::fs::read_to_string(pages.join("bartizan-export-cast.1")).unwrap();
    assert!(code == Some(0) && page.contains("asciinema"), "{page}");
    let (_, text) = say(&["doctor", "--json"]);
    let checks: serde_json::Value = serde_json::from_str(&text).unwrap();
    let whats: Vec<&str> =
        checks["checks"].as_array().unwrap().iter().filter_map(|check| check["what"].as_str()).collect();
    for what in ["terminal", "marks", "ssh", "state directory", "AWS credentials"] {
        assert!(whats.contains(&what), "{whats:?}");
    }
}

/// An editor or an `ssh` of ours, that writes what it was called with, and waits for Enter.
fn program(dir: &std::path::Path, name: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join(name);
    std::fs::write(&path, format!("#!/bin/sh\necho \"this is {name}:\" \"$@\"\nhead -c 1 >/dev/null\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn the_way_to_a_shell_on_the_bastion_and_to_an_editor_and_back() {
    let bin = tempfile::tempdir().unwrap();
    let editor = program(bin.path(), "my-editor");
    program(bin.path(), "ssh");
    let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap());
    let state = tempfile::tempdir().unwrap();
    let name = fixture::install_failed().keep(state.path());
    let dir = Store::open(Some(state.path())).unwrap().find(&name).unwrap();
    let vars = [("PATH", path.as_str()), ("EDITOR", editor.to_str().unwrap())];
    let mut live = start(state.path(), &["watch"], &vars);
    live.wait_for("watching");
    live.type_keys("gb");
    live.wait_for("no ssh connection yet");
    // As the run writes it when it reaches its hosts.
    std::fs::create_dir_all(dir.join("ssh")).unwrap();
    std::fs::write(dir.join("ssh/config"), "Host bastion\n  HostName 192.0.2.7\n").unwrap();
    live.type_keys("gb");
    live.wait_for("this is ssh: -F");
    assert!(!live.is_taken(), "the terminal is the shell's");
    live.wait_for("bastion");
    live.type_keys("q\r");
    live.wait_until("back", |live| live.is_taken() && live.text().contains("watching"));
    // The log at the chosen line, as a file of its own.
    live.type_keys("3kk");
    live.wait_for("paused");
    live.type_keys("ge");
    live.wait_for("this is my-editor: +");
    live.wait_for("journal_bootstrap.log");
    let text = std::fs::read_to_string(dir.join("view/journal_bootstrap.log")).unwrap();
    assert!(text.contains("x509: certificate signed by unknown authority"), "{text}");
    live.type_keys("\r");
    live.wait_until("back", |live| live.is_taken() && live.text().contains("paused"));
    live.type_keys("q");
    assert!(live.child.wait().unwrap().success(), "what was typed into the shell was not for the cockpit");
    live.wait_until("given back", |live| !live.is_taken());
    live.is_given_back();
}

#[test]
fn a_setting_comes_from_a_flag_or_a_variable_or_the_file_and_config_says_which() {
    let (config, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(config.path().join("config.toml"), "reduced_motion = true\ntheem = \"light\"\n").unwrap();
    let say = |args: &[&str], vars: &[(&str, &str)]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bartizan"));
        command.arg("--state").arg(state.path()).args(args).env("BARTIZAN_CONFIG", config.path());
        command.env_remove("BARTIZAN_THEME").envs(vars.iter().copied());
        let output = command.output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let text = say(&["config"], &[("BARTIZAN_THEME", "mono")]);
    let row = |name: &str| text.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_default().to_owned();
    assert!(row("theme ").contains("mono") && row("theme ").contains("BARTIZAN_THEME"), "{text}");
    assert!(row("reduced_motion").contains("true") && row("reduced_motion").contains("config.toml"), "{text}");
    assert!(row("notify").contains("default") && text.contains("theem: there is no such setting; did you mean theme?"));
    assert!(say(&["config", "settings"], &[]).contains("#reduced_motion = false"));
    // The run whose end was mistyped, and one that looks like nothing.
    let name = fixture::install_failed().keep(state.path());
    let end = name.rsplit('-').next().unwrap();
    let slip: String = end.chars().rev().collect();
    let wrong = if slip == end { format!("{end}0") } else { format!("{}{}", &end[..3], "zz") };
    for args in [&["status", &wrong][..], &["replay", &wrong], &["cleanup", &wrong, "--confirm", "x"]] {
        let text = say(args, &[]);
        assert!(text.contains(&format!("did you mean {name}?")), "{args:?}: {text}");
    }
    // What is wrong in the file is said on the screen, too; the clocks have no seconds.
    let live = start(state.path(), &["watch"], &[("BARTIZAN_CONFIG", config.path().to_str().unwrap())]);
    live.wait_for("theem: there is no such setting");
}

/// Lines alone are enough to decide: what can be done has numbers, and what changes something is asked once more.
#[cfg(feature = "lab")]
#[test]
fn a_run_that_waits_is_answered_in_lines() {
    let state = tempfile::tempdir().unwrap();
    let demo = ["demo", "--plain", "--scenario", "missing-image", "--speed", "60", "--payload-mb", "40"];
    let mut live = start(state.path(), &[&demo[..], &["--until", "08-install"]].concat(), &[]);
    live.wait_long_for("[wait]:", Duration::from_secs(180));
    live.type_keys("\r");
    live.wait_for("Type a number");
    live.type_keys("1\r");
    live.wait_for("yes or no [no]:");
    live.type_keys("yes\r");
    live.wait_long_for("done up to 08-install", Duration::from_secs(240));
    assert_eq!(live.child.wait().unwrap().exit_code(), 0);
    assert!(!live.raw().contains(&0x1b), "an escape sequence among the lines");
}
