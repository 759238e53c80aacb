//! What is handed on: that it is what it says, that others' programs can read it, and that no secret is in it.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use bartizan::model::event::{Data, Level};
use serde_json::Value;

use crate::ui::fixture;

/// Secrets as they come in logs, each with a part that must never leave.
const LEAKS: [(&str, &str); 6] = [
    ("using AKIAIOSFODNN7EXAMPLE of kay", "AKIAIOSFODNN7EXAMPLE"),
    ("proxy http://kay:hunter2secret@proxy:3128 answered", "hunter2secret"),
    ("wrote {\"auths\":{\"quay.io\":{\"auth\":\"b3BlbnNoaWZ0OmNhbmFyeQ==\"}}}", "b3BlbnNoaWZ0OmNhbmFyeQ"),
    ("htpasswd bartizan:$2y$05$abcdefghijklmnopqrstuuWQ2f0yqKpvvYyM5QhQvBvCXk2Q8yJ7K", "WQ2f0yqKpvvYyM5Q"),
    ("kubeadmin password: \"GT4PF-WYjVR-TYRYS-Zjq9Z\"", "GT4PF-WYjVR"),
    ("the mirror said kept-canary-51c2", "kept-canary-51c2"),
];

/// A run that failed, with leaks in its events and its logs, kept below `state`.
fn kept(state: &Path) -> String {
    let mut run = fixture::install_failed();
    for (leak, _) in LEAKS {
        run.log("journal:bootstrap", "kubelet", Level::Error, leak);
        run.add(Data::Note { level: Level::Error, text: leak.to_owned() });
    }
    let finding = run.model.findings[0].finding.clone();
    run.add(Data::FindingOpened {
        finding: bartizan::model::event::Finding { line: LEAKS[1].0.to_owned(), ..finding },
    });
    let name = run.keep(state);
    // A password that was made up for the run lies beside it; nothing about its shape gives it away.
    std::fs::create_dir_all(state.join("secrets")).unwrap();
    std::fs::write(state.join("secrets").join(&name), "kept-canary-51c2").unwrap();
    name
}

fn bartizan(state: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bartizan"));
    let output = command.arg("--state").arg(state).args(args).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    for (_, leak) in LEAKS {
        assert!(!text.contains(leak), "{leak} is in it");
    }
    text
}

/// Parsed by a program that is not ours; gives the tags in it.
fn tags(xml: &str) -> Vec<String> {
    let script = "import sys, xml.etree.ElementTree as tree\n\
                  for one in tree.fromstring(sys.stdin.read()).iter(): print(one.tag.split('}')[-1])";
    let mut python = Command::new("python3");
    let mut python = python.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut python.stdin.take().unwrap(), xml.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "no XML: {xml}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_page_needs_nothing_but_itself_and_tells_how_it_went() {
    let state = tempfile::tempdir().unwrap();
    kept(state.path());
    let output = bartizan(state.path(), &["export", "report", "last", "-o", "-"]);
    let page = clean(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("removed: ") && said.contains("password in a URL"), "{said}");
    let tags = tags(&page);
    for tag in ["svg", "rect", "table", "style"] {
        assert!(tags.iter().any(|one| one == tag), "no {tag}");
    }
    for reference in ["href=", "src=", "url(", "@import", "<script"] {
        assert!(!page.contains(reference), "{reference}");
    }
    for told in
        ["08-install", "mirror certificate is not trusted", "✖ fail", "REG-CA", "OpenShift", "password in a URL"]
    {
        assert!(page.contains(told), "{told} is not told");
    }
}

#[test]
fn a_picture_is_valid_and_has_its_text_beside_it() {
    let state = tempfile::tempdir().unwrap();
    kept(state.path());
    let to = state.path().join("shot.svg");
    bartizan(state.path(), &["export", "screen", "--size", "110x30", "--at", "end", "-o", to.to_str().unwrap()]);
    let picture = clean(&std::fs::read(&to).unwrap());
    assert!(tags(&picture).iter().filter(|tag| *tag == "text").count() > 20);
    let text = clean(&std::fs::read(to.with_extension("txt")).unwrap());
    assert_eq!(text.lines().count(), 30);
    assert!(text.contains("08 install") && picture.contains("mirror certificate"), "{text}");
    // Colours come from the theme, and none of them is needed.
    let mono = bartizan(state.path(), &["export", "screen", "--theme", "mono", "--ascii", "-o", "-"]);
    tags(&clean(&mono.stdout));
}

#[test]
fn a_film_is_an_asciicast_that_ends_at_the_last_screen() {
    let state = tempfile::tempdir().unwrap();
    kept(state.path());
    let output = bartizan(state.path(), &["export", "cast", "last", "--seconds", "4", "--size", "100x30", "-o", "-"]);
    let film = clean(&output.stdout);
    let mut lines = film.lines();
    let header: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!((&header["version"], &header["width"], &header["height"]), (&2.into(), &100.into(), &30.into()));
    let mut screen = vt100::Parser::new(30u16.try_into().unwrap(), 100u16.try_into().unwrap(), 0);
    let (mut before, mut frames) = (0.0, 0);
    for line in lines {
        let frame: Value = serde_json::from_str(line).unwrap();
        let at = frame[0].as_f64().unwrap();
        assert!(at >= before && frame[1] == "o", "{line}");
        (before, frames) = (at, frames + 1);
        screen.process(frame[2].as_str().unwrap().as_bytes());
    }
    assert!(frames > 10 && before < 9.0, "{frames} frames, {before} s");
    let last = screen.screen().contents();
    assert!(last.contains("✖ 08 install") && last.contains("mirror certificate is not trusted"), "{last}");
}

#[test]
fn a_bundle_opens_as_the_run_that_it_was() {
    let state = tempfile::tempdir().unwrap();
    let name = kept(state.path());
    let bundle = state.path().join("handed-on.tar.gz");
    let bundle = bundle.to_str().unwrap();
    let output = bartizan(state.path(), &["export", "last", "--hide-addresses", "-o", bundle]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for file in ["run.jsonl", "logs/journal_bootstrap.log", "doctor.json", "versions.txt"] {
        assert!(said.contains(file), "{said}");
    }
    // Somebody else's machine: no store there.
    let elsewhere = tempfile::tempdir().unwrap();
    let lines = clean(&bartizan(elsewhere.path(), &["replay", bundle, "--json"]).stdout);
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!((first["kind"].as_str(), first["format"].as_u64()), (Some("run-opened"), Some(1)));
    let plain = clean(&bartizan(elsewhere.path(), &["replay", bundle, "--plain"]).stdout);
    assert!(plain.contains("FINDING REG-CA") && plain.contains("[removed: password in a URL]"), "{plain}");
    let status = clean(&bartizan(elsewhere.path(), &["status", bundle]).stdout);
    assert!(status.contains("08-install failed"), "{status}");
    let text = clean(&bartizan(elsewhere.path(), &["export", "screen", bundle, "-o", "-"]).stdout);
    assert!(text.contains("<svg"));
    assert!(elsewhere.path().join("runs").read_dir().unwrap().next().is_none(), "{name} was left behind");
}
