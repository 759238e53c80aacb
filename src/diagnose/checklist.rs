//! What an engineer would look at next: `assets/checklists/*.toml`, typed, and run on hosts.
//!
//! Every probe only reads. What a log line gave (captures) goes into commands as argument words and nowhere else; a word
//! that would begin like an option is refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;
use serde::Deserialize;

use super::signature::{Catalogue, CatalogueError};
use crate::host::{Cmd, Host, Output};
use crate::model::event::{Action, CheckState, Data, Finding};
use crate::record::Sink;

/// Name and text of every checklist file. A test holds this against the folder.
pub const FILES: &[(&str, &str)] = &[
    ("cloud", include_str!("../../assets/checklists/cloud.toml")),
    ("registry", include_str!("../../assets/checklists/registry.toml")),
    ("bootstrap", include_str!("../../assets/checklists/bootstrap.toml")),
    ("cluster", include_str!("../../assets/checklists/cluster.toml")),
];

/// Facts of the run that probes may ask for: `registry` is host:port of the mirror, `mirror_ca` the file with its CA on
/// the bastion, `storage` the directory of its data, `domain` is NAME.BASE_DOMAIN, paths are those on the bastion.
pub const FACTS: &[&str] = &[
    "registry",
    "mirror_ca",
    "storage",
    "component_repository",
    "release_repository",
    "domain",
    "region",
    "version",
    "infra_id",
    "vpc",
    "install_dir",
    "workdir",
];

/// Where a probe can run besides the hosts by name: the node whose log held the evidence.
const NODE: &str = "node";
const HOSTS: &[&str] = &["local", "bastion", "bootstrap", NODE];
const TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of an answer that are kept as evidence.
const EVIDENCE_LIMIT: usize = 300;

/// All checklists by id.
#[derive(Debug, Clone)]
pub struct Checklists(BTreeMap<String, Checklist>);

#[derive(Debug, Clone)]
pub struct Checklist {
    pub id: String,
    /// The question that it answers.
    pub title: String,
    pub checks: Vec<Check>,
}

#[derive(Debug, Clone)]
pub struct Check {
    pub id: String,
    pub title: String,
    host: String,
    sudo: bool,
    script: Option<String>,
    args: Vec<Word>,
    expect: Template,
    fails: String,
}

/// A probe with everything filled in.
#[derive(Debug, Clone)]
pub struct PlannedCheck {
    pub id: String,
    pub title: String,
    pub host: String,
    /// Or why it cannot be made.
    pub cmd: Result<Cmd, String>,
    pub expect: Expect,
}

/// What the answer must be.
#[derive(Debug, Clone, Default)]
pub struct Expect {
    pub exit: Option<i32>,
    /// Standard output matches.
    pub matches: Option<Regex>,
    /// Standard output does not match.
    pub lacks: Option<Regex>,
    /// Standard output holds this text.
    pub contains: Option<String>,
    /// What it means when it is not so.
    pub fails: String,
}

#[derive(Debug, Clone)]
struct Template {
    exit: Option<i32>,
    matches: Option<Regex>,
    lacks: Option<Regex>,
    contains: Option<Word>,
}

/// A word with `{name}` in it; `{{` and `}}` stand for braces.
#[derive(Debug, Clone, PartialEq)]
struct Word(Vec<Part>);

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Name(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    checklist: Vec<RawChecklist>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawChecklist {
    id: String,
    title: String,
    check: Vec<RawCheck>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCheck {
    id: String,
    title: String,
    host: String,
    #[serde(default)]
    run: Vec<String>,
    script: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    sudo: bool,
    expect: RawExpect,
    fails: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExpect {
    exit: Option<i32>,
    matches: Option<String>,
    lacks: Option<String>,
    contains: Option<String>,
}

impl Checklists {
    /// The checklists that this program was built with.
    pub fn builtin() -> Result<Self, CatalogueError> {
        Self::parse(FILES)
    }

    /// Read checklist files, `(name, text)`.
    pub fn parse(files: &[(&str, &str)]) -> Result<Self, CatalogueError> {
        let mut all = BTreeMap::new();
        for (name, text) in files {
            let file: File = toml::from_str(text)
                .map_err(|error| CatalogueError::File { file: (*name).to_owned(), why: error.to_string() })?;
            for raw in file.checklist {
                let id = raw.id.clone();
                let wrong = |why: String| CatalogueError::Entry { file: (*name).to_owned(), id: id.clone(), why };
                let checklist = raw.check().map_err(wrong)?;
                if all.insert(id.clone(), checklist).is_some() {
                    return Err(wrong("there are two of this id".into()));
                }
            }
        }
        Ok(Self(all))
    }

    pub fn get(&self, id: &str) -> Option<&Checklist> {
        self.0.get(id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Checklist> {
        self.0.values()
    }

    /// Every checklist is some signature's, every signature's exists, every name in a probe is a fact, or a capture of a
    /// signature that opens it.
    pub fn check(&self, catalogue: &Catalogue) -> Result<(), CatalogueError> {
        let wrong = |id: &str, why: String| CatalogueError::Entry { file: "checklists".into(), id: id.to_owned(), why };
        for signature in catalogue.signatures() {
            if let Some(id) = signature.checklist.as_deref().filter(|id| self.get(id).is_none()) {
                return Err(wrong(id, format!("{} asks for it, and it is not there", signature.id)));
            }
        }
        for checklist in self.iter() {
            let users: Vec<_> =
                catalogue.signatures().iter().filter(|known| known.checklist.as_ref() == Some(&checklist.id)).collect();
            if users.is_empty() {
                return Err(wrong(&checklist.id, "no signature opens it".into()));
            }
            for name in checklist.checks.iter().flat_map(Check::names) {
                if !FACTS.contains(&name) && !users.iter().any(|known| known.capture_names().contains(name)) {
                    return Err(wrong(&checklist.id, format!("{name} is neither a fact nor a capture")));
                }
            }
        }
        Ok(())
    }

    /// The probes for a finding, in order. `facts` are those of the run; what the finding's line says goes before them.
    pub fn plan(&self, finding: &Finding, facts: &BTreeMap<String, String>) -> Vec<PlannedCheck> {
        let checklist = finding.checklist.as_deref().and_then(|id| self.get(id));
        checklist.map_or(Vec::new(), |list| list.checks.iter().map(|check| check.plan(finding, facts)).collect())
    }

    /// The probes for a finding as a person would make them, where there is no connection: host and title, command. What
    /// nobody knows stands in angle brackets.
    pub fn by_hand(&self, finding: &Finding) -> Vec<(String, String)> {
        let checklist = finding.checklist.as_deref().and_then(|id| self.get(id));
        let checks = checklist.into_iter().flat_map(|list| &list.checks);
        checks
            .map(|check| {
                let unknown = check.names().map(|name| (name.to_owned(), format!("<{name}>"))).collect();
                let planned = check.plan(finding, &unknown);
                let command = planned.cmd.map_or_else(|why| why, |cmd| cmd.line());
                (format!("{}: {}", planned.host, planned.title), command)
            })
            .collect()
    }

    /// Make the probes one after the other and tell what they say.
    pub async fn run(
        &self,
        finding: &Finding,
        facts: &BTreeMap<String, String>,
        hosts: &(dyn Fn(&str) -> Option<Arc<dyn Host>> + Send + Sync),
        sink: &Sink,
    ) {
        for planned in self.plan(finding, facts) {
            let action =
                planned.cmd.as_ref().ok().map(|cmd| Action::Exec { host: planned.host.clone(), command: cmd.line() });
            let tell = |state: CheckState, evidence: String| Data::CheckResult {
                finding: finding.id.clone(),
                check: planned.id.clone(),
                state,
                action: action.clone(),
                evidence,
            };
            let (state, evidence) = match (&planned.cmd, hosts(&planned.host)) {
                (Err(why), _) => (CheckState::Unknown, why.clone()),
                (_, None) => (CheckState::Unknown, format!("{} cannot be reached", planned.host)),
                (Ok(cmd), Some(host)) => {
                    sink.emit(tell(CheckState::Running, planned.title.clone())).await;
                    match host.exec(cmd).await {
                        Ok(output) => judge(&planned.expect, &output),
                        Err(error) => (CheckState::Unknown, plain(&error.to_string())),
                    }
                }
            };
            sink.emit(tell(state, evidence)).await;
        }
    }
}

impl Check {
    fn names(&self) -> impl Iterator<Item = &str> {
        let words = self.args.iter().chain(&self.expect.contains);
        words.flat_map(|word| &word.0).filter_map(|part| match part {
            Part::Name(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    fn plan(&self, finding: &Finding, facts: &BTreeMap<String, String>) -> PlannedCheck {
        let value = |name: &str| finding.captures.get(name).or_else(|| facts.get(name)).map(String::as_str);
        let host = match self.host.as_str() {
            NODE => finding.source.split_once(':').map(|(_, node)| node.to_owned()),
            host => Some(host.to_owned()),
        };
        let mut expect = Expect {
            exit: self.expect.exit,
            matches: self.expect.matches.clone(),
            lacks: self.expect.lacks.clone(),
            contains: None,
            fails: self.fails.clone(),
        };
        let mut make = || -> Result<Cmd, String> {
            expect.contains = self.expect.contains.as_ref().map(|word| word.fill(&value)).transpose()?;
            let mut words = self.args.iter().map(|word| word.fill(&value));
            let cmd = match &self.script {
                Some(script) => Cmd::sh(script),
                None => Cmd::new(words.next().transpose()?.unwrap_or_default()),
            };
            let mut cmd = cmd.args(words.collect::<Result<Vec<String>, String>>()?).timeout(Some(TIMEOUT));
            cmd.sudo = self.sudo;
            if host.is_none() {
                return Err("nobody knows which node this is about".into());
            }
            Ok(cmd)
        };
        let cmd = make();
        let host = host.unwrap_or_else(|| NODE.to_owned());
        PlannedCheck { id: self.id.clone(), title: self.title.clone(), host, cmd, expect }
    }
}

impl Word {
    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let after = rest.get(first.len_utf8()..).unwrap_or("");
            if (first == '{' || first == '}') && after.starts_with(first) {
                plain.push(first);
                rest = after.get(1..).unwrap_or("");
            } else if first == '{' {
                let (name, after) = after.split_once('}').ok_or_else(|| format!("a brace is open in {text}"))?;
                if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
                    return Err(format!("{{{name}}} is no name; write {{{{ for a brace"));
                }
                parts.push(Part::Text(std::mem::take(&mut plain)));
                parts.push(Part::Name(name.to_owned()));
                rest = after;
            } else {
                plain.push(first);
                rest = after;
            }
        }
        parts.push(Part::Text(plain));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Self(parts))
    }

    fn fill<'a>(&self, value: &impl Fn(&str) -> Option<&'a str>) -> Result<String, String> {
        let mut filled = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Name(name) => {
                    let found = value(name).ok_or_else(|| format!("the run does not know {name} yet"))?;
                    if found.chars().any(char::is_control) || (filled.is_empty() && found.starts_with('-')) {
                        return Err(format!("{name} is not fit for a command line"));
                    }
                    filled.push_str(found);
                }
            }
        }
        Ok(filled)
    }
}

impl RawChecklist {
    fn check(self) -> Result<Checklist, String> {
        if self.check.is_empty() {
            return Err("it has no checks".into());
        }
        let mut checks: Vec<Check> = Vec::new();
        for raw in self.check {
            let id = raw.id.clone();
            if checks.iter().any(|known| known.id == id) {
                return Err(format!("there are two checks called {id}"));
            }
            checks.push(raw.check().map_err(|why| format!("{id}: {why}"))?);
        }
        Ok(Checklist { id: self.id, title: self.title, checks })
    }
}

impl RawCheck {
    fn check(self) -> Result<Check, String> {
        if !HOSTS.contains(&self.host.as_str()) {
            return Err(format!("the host is {}; it can be {}", self.host, HOSTS.join(", ")));
        }
        let words = match (&self.script, self.run.is_empty(), self.args.is_empty()) {
            (Some(_), true, _) => &self.args,
            (None, false, true) => &self.run,
            _ => return Err("it needs run, or script with args".into()),
        };
        let args = words.iter().map(|word| Word::parse(word)).collect::<Result<Vec<_>, _>>()?;
        if self.script.is_none() && !matches!(args.first().map(|word| word.0.as_slice()), Some([Part::Text(_)])) {
            return Err("the program must be named".into());
        }
        let regex = |text: Option<String>| text.map(|text| Regex::new(&text)).transpose().map_err(|e| e.to_string());
        let expect = Template {
            exit: self.expect.exit,
            matches: regex(self.expect.matches)?,
            lacks: regex(self.expect.lacks)?,
            contains: self.expect.contains.map(|word| Word::parse(&word)).transpose()?,
        };
        Ok(Check {
            id: self.id,
            title: self.title,
            host: self.host,
            sudo: self.sudo,
            script: self.script,
            args,
            expect,
            fails: self.fails,
        })
    }
}

/// Hold an answer against what it must be. The evidence is the line that decided.
pub fn judge(expect: &Expect, output: &Output) -> (CheckState, String) {
    let text = output.text();
    let first = |text: &str| text.lines().find(|line| !line.trim().is_empty()).map(plain);
    let said = first(&text).or_else(|| first(&output.error_text())).unwrap_or_else(|| "no output".to_owned());
    if matches!(output.status, 126 | 127) {
        return (CheckState::Unknown, format!("the probe cannot be made there: {said}"));
    }
    let failed = |what: String| (CheckState::Failed, format!("{what}. {}", expect.fails));
    if let Some(wanted) = expect.exit.filter(|wanted| *wanted != output.status) {
        let error = first(&output.error_text()).unwrap_or(said);
        return failed(format!("status {} instead of {wanted}: {error}", output.status));
    }
    if let Some(found) = expect.lacks.as_ref().and_then(|pattern| pattern.find(&text)) {
        let start = text.get(..found.start()).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1);
        let line = text.get(start..).and_then(first).unwrap_or(said);
        return failed(line);
    }
    if let Some(missing) = expect.contains.as_ref().filter(|wanted| !text.contains(wanted.as_str())) {
        return failed(format!("{missing} is not in it: {said}"));
    }
    if expect.matches.as_ref().is_some_and(|pattern| !pattern.is_match(&text)) {
        return failed(said);
    }
    let decided = expect.matches.as_ref().and_then(|pattern| text.lines().find(|line| pattern.is_match(line)));
    (CheckState::Passed, decided.map_or(said, plain))
}

/// One line without control characters, of bounded length.
fn plain(line: &str) -> String {
    line.trim().chars().filter(|c| !c.is_control()).take(EVIDENCE_LIMIT).collect()
}
