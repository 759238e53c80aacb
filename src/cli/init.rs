//! Writes a commented `cluster.toml`: asks for what it needs and explains it, or takes the answers from the command line.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use crate::spec::template::{field, spoken, toml_value, with};
use crate::spec::{self, Problem, SpecErrors};

use super::{Failure, exit};

#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// The file to write.
    #[arg(default_value = "cluster.toml")]
    file: PathBuf,
    /// Set a key instead of being asked (again for more): --set cluster.name=edge-1 --set aws.region=eu-central-1.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Ask nothing; leave the examples where nothing is set.
    #[arg(long)]
    defaults: bool,
}

/// What is asked, in this order. The rest has defaults that fit most.
const QUESTIONS: [&str; 11] = [
    "cluster.name",
    "cluster.base_domain",
    "release.version",
    "aws.region",
    "network.variant",
    BASTION,
    "mirror.host",
    "credentials.pull_secret",
    "credentials.ssh_public_key",
    "install.control_plane_replicas",
    "install.compute_replicas",
];
const BASTION: &str = "bastion.host";

pub fn init(args: &InitArgs) -> Result<u8, Failure> {
    let file = &args.file;
    if file.exists() {
        return Err(Failure::usage(format!("{} is there already; nothing was written", file.display())));
    }
    let mut text = spec::example().to_owned();
    for set in &args.set {
        let (path, answer) =
            set.split_once('=').ok_or_else(|| Failure::usage(format!("--set {set}: give KEY=VALUE")))?;
        text = answered(&text, path.trim(), answer.trim()).map_err(Failure::usage)?;
    }
    let asks = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if asks && args.set.is_empty() && !args.defaults {
        text = ask(&text, &mut std::io::stdin().lock(), &mut std::io::stdout())
            .map_err(|error| Failure::usage(format!("{error}; nothing was written")))?;
    }
    let mut new = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(file)
        .map_err(|error| Failure::usage(format!("{}: {error}; nothing was written", file.display())))?;
    new.write_all(text.as_bytes()).map_err(|error| Failure::other(format!("writing {}: {error}", file.display())))?;
    println!("wrote {}: every key is in it, with what it means", file.display());
    match spec::load(file) {
        Ok(_) => println!("next: `bartizan doctor`, then `bartizan plan`"),
        Err(SpecErrors(problems)) => {
            println!("still to be put right before `bartizan doctor` and `bartizan plan`:");
            problems.iter().for_each(|problem| println!("  {problem}"));
        }
    }
    Ok(exit::DONE)
}

/// The text with the answer in it, if it can be right.
fn answered(text: &str, path: &str, answer: &str) -> Result<String, String> {
    let value = toml_value(path, answer)?;
    let text = with(text, path, &value)
        .ok_or_else(|| format!("{path} belongs to a section that is commented out; write the file, then edit it"))?;
    let wrong = |problem: &&Problem| problem.key == path;
    match spec::parse(&text, "cluster.toml") {
        Err(SpecErrors(problems)) if problems.iter().any(|problem| wrong(&problem)) => {
            let told = problems.iter().find(wrong).map(|problem| format!("{path} {}: {}", problem.found, problem.want));
            Err(told.unwrap_or_default())
        }
        _ => Ok(text),
    }
}

/// Ask everything, one question after the other, as lines: it can be read aloud, and answered from a pipe.
fn ask(text: &str, input: &mut impl BufRead, out: &mut impl Write) -> std::io::Result<String> {
    writeln!(
        out,
        "A few questions. Enter takes what is in [brackets]; the file explains the rest. Ctrl-C writes nothing."
    )?;
    let mut text = text.to_owned();
    for (number, path) in QUESTIONS.iter().enumerate() {
        let Some(known) = field(&text, path) else { continue };
        let default = default(&text, path, &known.value);
        writeln!(out, "\n{}/{} {path}", number + 1, QUESTIONS.len())?;
        if !known.meaning.is_empty() {
            writeln!(out, "  {}", known.meaning)?;
        }
        if *path == BASTION {
            writeln!(out, "  For example {}. Enter: bartizan makes one.", spoken(&known.value))?;
        }
        loop {
            write!(out, "  {path} [{default}]: ")?;
            out.flush()?;
            let mut line = String::new();
            if input.read_line(&mut line)? == 0 {
                return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the answers ended"));
            }
            let answer = match line.trim() {
                "" if *path == BASTION => break,
                "" => default.as_str(),
                answer => answer,
            };
            match answered(&text, path, answer) {
                Ok(better) => {
                    text = better;
                    break;
                }
                Err(why) => writeln!(out, "  {why}")?,
            }
        }
        if *path == BASTION && field(&text, BASTION).is_some_and(|bastion| bastion.set) {
            // Its key is shown and asked about at the first connection.
            text = answered(&text, "bastion.host_key", "ask").unwrap_or(text);
        }
    }
    writeln!(out)?;
    Ok(text)
}

/// What Enter takes.
fn default(text: &str, path: &str, value: &str) -> String {
    let answer = |path: &str| field(text, path).map(|field| spoken(&field.value)).unwrap_or_default();
    match path {
        BASTION => "make one".to_owned(),
        "mirror.host" => format!("registry.{}.{}", answer("cluster.name"), answer("cluster.base_domain")),
        "credentials.pull_secret" => first_file(&["pull-secret.json", "~/pull-secret.json", "~/.docker/config.json"]),
        "credentials.ssh_public_key" => {
            first_file(&["~/.ssh/id_ed25519.pub", "~/.ssh/id_rsa.pub", "~/.ssh/id_ecdsa.pub"])
        }
        "aws.region" => {
            let set = ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| std::env::var(name).ok());
            set.unwrap_or_else(|| spoken(value))
        }
        _ => spoken(value),
    }
}

/// The first of these that is there, else the first.
fn first_file(paths: &[&str]) -> String {
    let home = directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_owned()).unwrap_or_default();
    let there = |path: &&&str| match path.strip_prefix("~/") {
        Some(rest) => home.join(rest).is_file(),
        None => Path::new(path).is_file(),
    };
    (*paths.iter().find(there).or(paths.first()).unwrap_or(&"")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_checked_one_by_one_and_the_comments_stay() {
        let given =
            "Edge_1\nedge-1\nlab.example.com\n4.17.3\neu-central-1\n\nkay@bastion.lab.example.com\n\nps.json\n\n1\n0\n";
        let mut said = Vec::new();
        let text = ask(spec::example(), &mut given.as_bytes(), &mut said).unwrap();
        let said = String::from_utf8(said).unwrap();
        assert!(said.contains("cluster.name is \"Edge_1\""), "{said}");
        let spec = spec::parse(&text, "x").unwrap();
        assert_eq!(
            (spec.domain().as_str(), spec.mirror.host.as_str()),
            ("edge-1.lab.example.com", "registry.edge-1.lab.example.com")
        );
        assert_eq!(spec.bastion.host.as_deref(), Some("kay@bastion.lab.example.com"));
        assert!(text.contains("# A DNS label") && text.contains("host_key = \"ask\""));
        assert!(ask(spec::example(), &mut "a\n".as_bytes(), &mut Vec::new()).is_err());
    }
}
