//! From the text of `cluster.toml` to a [`Spec`], or to the list of all that is wrong with it.

use std::path::Path;

use serde::Deserialize;

use super::keys::{Walked, walk};
use super::problem::{Problem, SpecErrors};
use super::validate::{Check, validate};
use super::{Spec, files};

/// A commented `cluster.toml` with every key.
pub fn example() -> &'static str {
    include_str!("../../assets/cluster.example.toml")
}

/// SHA-256 of a spec's text, so that a resumed run can tell whether it was edited: `sha256:…`.
pub fn digest(text: &str) -> String {
    use std::fmt::Write;
    let sum = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    sum.as_ref().iter().fold("sha256:".to_owned(), |mut hex, byte| {
        let _infallible = write!(hex, "{byte:02x}");
        hex
    })
}

/// Read and check a file, and the files that it names. Paths in the result are absolute: a run keeps them elsewhere.
pub fn load(path: &Path) -> Result<Spec, SpecErrors> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let want = match error.kind() {
            std::io::ErrorKind::NotFound => "write one with: bartizan init",
            _ => "the spec must be a readable text file",
        };
        let found = format!("cannot be read ({})", error.kind());
        SpecErrors(vec![Problem { file: file.clone(), line: 1, key: String::new(), found, want: want.into() }])
    })?;
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    examine(&text, &file, &whole, true)
}

/// Check a text as if it stood in `file_name`; the files that it names are not looked at.
pub fn parse(text: &str, file_name: &str) -> Result<Spec, SpecErrors> {
    examine(text, file_name, Path::new(file_name), false)
}

/// `file` is what the problems call it, `path` where it is.
fn examine(text: &str, file: &str, path: &Path, with_files: bool) -> Result<Spec, SpecErrors> {
    let Walked { table, lines, problems } = walk(text, file);
    let syntax = problems.iter().any(|problem| problem.key.is_empty());
    let mut spec = Spec::deserialize(toml::Value::Table(table)).map_err(|error| {
        let mut all = problems.clone();
        all.push(Problem {
            file: file.to_owned(),
            line: 1,
            key: String::new(),
            found: format!("cannot be read as a spec ({})", error.message()),
            want: "compare it with what bartizan init writes".into(),
        });
        SpecErrors(all)
    })?;
    let spoken = problems.iter().map(|problem| problem.key.clone()).collect();
    let mut check = Check { file, lines: &lines, spoken, problems };
    if !syntax {
        validate(&spec, &mut check);
        let folder = path.parent().unwrap_or(Path::new(""));
        for (_, path) in files::paths_mut(&mut spec) {
            *path = files::resolve(path, folder);
        }
        if with_files {
            files::check(&mut spec, &mut check);
        }
    }
    let mut problems = check.problems;
    problems.sort_by_key(|problem| problem.line);
    if problems.is_empty() { Ok(spec) } else { Err(SpecErrors(problems)) }
}
