//! The floors: each may use those below it, never above, and the four outside worlds do not know each other.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn floor(module: &str) -> u8 {
    match module {
        "model" | "spec" => 1,
        "record" => 2,
        "host" | "cloud" | "registry" | "cluster" => 3,
        "engine" | "watch" | "diagnose" => 4,
        "stages" => 5,
        "ui" | "headless" | "export" | "lab" | "telemetry" => 6,
        _ => 7,
    }
}

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Names right after `crate::`, also those of `crate::{a, b::c}`.
fn used(text: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = Vec::new();
    for part in text.split("crate::").skip(1) {
        match part.strip_prefix('{') {
            Some(group) => {
                let group = group.split('}').next().unwrap_or("");
                found.extend(group.split(',').map(|name| word(name.trim())));
            }
            None => found.push(word(part)),
        }
    }
    found
}

#[test]
fn no_arrow_points_up() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut wrong = BTreeMap::new();
    for file in files {
        let relative = file.strip_prefix(&src).unwrap().to_string_lossy().into_owned();
        let module = relative.split(['/', '.']).next().unwrap().to_owned();
        if ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let code: String =
            text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        for other in used(&code) {
            let known = src.join(&other).is_dir() || src.join(format!("{other}.rs")).is_file();
            let up = floor(&other) > floor(&module);
            let sideways = floor(&other) == floor(&module) && other != module && [3, 4].contains(&floor(&module));
            // The model and the spec stand beside each other; a lab serves what the stages ask for and the copier.
            if known && (up || sideways) {
                wrong.insert(relative.clone(), other);
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that point up or sideways: {wrong:#?}");
}

#[test]
fn every_room_says_what_it_is_for() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//!"), "{} does not say what it is for", file.display());
    }
}
