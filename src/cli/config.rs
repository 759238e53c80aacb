//! `bartizan config` and what the screen takes from it: the operator's own settings, keys, layouts and themes.

use std::path::{Path, PathBuf};

use crate::ui::UiOptions;
use crate::ui::keymap::Keymap;
use crate::ui::layout::Layouts;
use crate::ui::memory::Memory;
use crate::ui::theme::Theme;

use super::look::memory;
use super::settings::{self, Settings};
use super::{Failure, exit};

/// Where the operator's own files are: `$BARTIZAN_CONFIG`, else the platform's place for them.
pub fn directory() -> Option<PathBuf> {
    let own = std::env::var_os("BARTIZAN_CONFIG").map(PathBuf::from);
    own.or_else(|| directories::ProjectDirs::from("", "", "bartizan").map(|known| known.config_dir().to_owned()))
}

/// Put the operator's own files into the options. What cannot be read is said on the screen.
/// `silent_on_notify`: no flag and no variable says how to call.
pub fn apply(options: &mut UiOptions, silent_on_notify: bool) {
    let settings = files(options);
    settings.apply(options, silent_on_notify);
}

/// Read the operator's own files into the options; the settings are given back.
fn files(options: &mut UiOptions) -> Settings {
    let Some(directory) = directory() else { return Settings::default() };
    let mut problems = Vec::new();
    let mut read = |path: PathBuf| match std::fs::read_to_string(&path) {
        Ok(text) => Some((path.display().to_string(), text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            problems.push(format!("{}: {error}", path.display()));
            None
        }
    };
    let own = read(directory.join("config.toml"));
    options.keymap = read(directory.join("keymap.toml"));
    options.layouts = read(directory.join("layouts.toml"));
    for path in themes(&directory) {
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if let Some((file, text)) = read(path)
            && let Err(error) = options.themes.add(&name, &text)
        {
            options.problems.push(format!("{file}: {error}"));
        }
    }
    options.problems.extend(problems);
    let path = directory.join("config.toml").display().to_string();
    let (settings, wrong) = own.map_or_else(Default::default, |(file, text)| Settings::parse(&file, &text));
    options.problems.extend(wrong);
    match settings.missing_theme(&path, &options.themes) {
        Some(problem) => {
            options.problems.push(problem);
            Settings { theme: None, ..settings }
        }
        None => settings,
    }
}

/// In the order of their names, so that one may inherit from one before it.
fn themes(directory: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(directory.join("themes")).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = files
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    paths.sort();
    paths
}

/// Print one of the files as it comes with the program; without a name: which files there are, and what is wrong.
pub fn show(state: Option<&Path>, file: Option<&str>) -> Result<u8, Failure> {
    if let Some(file) = file {
        let text = match file {
            "settings" => Some(settings::EXAMPLE),
            "keymap" => Some(Keymap::EMBEDDED),
            "layouts" => Some(Layouts::EMBEDDED),
            theme => Theme::text(theme),
        };
        let themes: Vec<&str> = Theme::names().collect();
        let known =
            || Failure::usage(format!("no file {file}; there are settings, keymap, layouts, {}", themes.join(", ")));
        print!("{}", text.ok_or_else(known)?);
        return Ok(exit::DONE);
    }
    let Some(directory) = directory() else {
        return Err(Failure::other("there is no home directory to look for files in"));
    };
    let mut options = UiOptions::default();
    let settings = files(&mut options);
    let mut wrong = options.problems.clone();
    let own = options.keymap.as_ref().map(|(file, text)| (file.as_str(), text.as_str()));
    wrong.extend(Keymap::load(own).err().map(|error| error.to_string()));
    let layouts = Layouts::embedded().map_err(Failure::other)?;
    let own = options.layouts.as_ref().map(|(file, text)| layouts.with(file, text));
    wrong.extend(own.and_then(Result::err).map(|error| error.to_string()));
    println!("{}", directory.display());
    let there = |file: &str| directory.join(file).is_file();
    for (what, name) in [("config.toml", "settings"), ("keymap.toml", "keymap"), ("layouts.toml", "layouts")] {
        let there = there(what);
        let how = if there {
            "yours, over the built-in one".to_owned()
        } else {
            format!("not there; `bartizan config {name}` prints the built-in one")
        };
        println!("  {what:14} {how}");
    }
    println!("  {:14} {}", "themes/*.toml", options.themes.names().join(", "));
    let memory = memory(state).and_then(|file| std::fs::read_to_string(file).ok());
    let memory = memory.and_then(|text| Memory::parse(&text).ok()).unwrap_or_default();
    println!("\nsettings (a flag of a command counts more than any of these):");
    for [name, value, origin] in settings.origins(&memory) {
        println!("  {name:14} {value:20} {origin}");
    }
    for problem in &wrong {
        println!("wrong: {problem}");
    }
    Ok(if wrong.is_empty() { exit::DONE } else { exit::USAGE })
}
