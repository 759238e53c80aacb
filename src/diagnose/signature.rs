//! The catalogue of failure signatures: `assets/signatures/*.toml`, typed and checked.
//!
//! Which lines mean what was learned from the sources of openshift/installer, cluster-bootstrap, containers/image, the
//! operators, and from hive's `install-log-regexes` ConfigMap.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use foldhash::quality::RandomState;
use jiff::SignedDuration;
use serde::Deserialize;

use super::line::WHY;
use super::parallel::side_by_side;
use super::pattern::{Pattern, Patterns};
use super::place::{Place, glob};
use super::prefilter::Prefilter;
use crate::cloud::CloudError;
use crate::model::event::Level;

/// Name and text of every signature file. A test holds this against the folder.
pub const FILES: &[(&str, &str)] = &[
    ("aws", include_str!("../../assets/signatures/aws.toml")),
    ("infra", include_str!("../../assets/signatures/infra.toml")),
    ("ssh", include_str!("../../assets/signatures/ssh.toml")),
    ("registry", include_str!("../../assets/signatures/registry.toml")),
    ("sync", include_str!("../../assets/signatures/sync.toml")),
    ("config", include_str!("../../assets/signatures/config.toml")),
    ("bootstrap", include_str!("../../assets/signatures/bootstrap.toml")),
    ("bootkube", include_str!("../../assets/signatures/bootkube.toml")),
    ("nodes", include_str!("../../assets/signatures/nodes.toml")),
    ("operators", include_str!("../../assets/signatures/operators.toml")),
    ("machines", include_str!("../../assets/signatures/machines.toml")),
    ("day2", include_str!("../../assets/signatures/day2.toml")),
    ("general", include_str!("../../assets/signatures/general.toml")),
];

#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error("{file}: {why}")]
    File { file: String, why: String },
    #[error("{file}: {id}: {why}")]
    Entry { file: String, id: String, why: String },
}

/// Everything that is known about failures.
#[derive(Debug, Clone)]
pub struct Catalogue {
    pub(super) signatures: Vec<Signature>,
    by_id: HashMap<String, usize, RandomState>,
    /// By place, the places of those that explain it; worked out when it is first asked for.
    causes: Vec<OnceLock<Vec<usize>>>,
    pub(super) milestones: Vec<Milestone>,
    pub(super) prefilter: Prefilter,
}

/// A shape of line that means something, and what it means.
#[derive(Debug, Clone)]
pub struct Signature {
    /// `REG-CA`
    pub id: String,
    /// What an engineer would say, one sentence without a full stop. `{registry}` stands for a capture.
    pub title: String,
    /// Signature file that it is in.
    pub area: String,
    /// Part of the installation that it is about.
    pub phase: String,
    /// What puts it right, one sentence. Captures as in the title.
    pub fix: String,
    /// Where the pipeline goes on after that: a stage, or `live` when what failed tries again by itself.
    pub resume: String,
    /// Public reports and sources that it was learned from.
    pub refs: Vec<String>,
    /// Says that the installation has failed: nothing that was seen before it is early.
    pub verdict: bool,
    pub severity: Level,
    /// Lower is nearer to the cause.
    pub rank: u32,
    /// Only says that something is stuck; the cause is in the lines before it.
    pub carrier: bool,
    /// Normal for this long.
    pub grace: SignedDuration,
    /// The line is printed once and stays true until a clearing line, so silence means that it lasts.
    pub lasts: bool,
    /// Looks at the whole line even when part of it names what failed behind a mirror, and wins there.
    pub whole: bool,
    /// Its unit goes on in spite of it: what the unit does next does not end it.
    pub stays: bool,
    pub checklist: Option<String>,
    /// Captures that tell one finding of this signature from another.
    pub about: Vec<String>,
    /// Signatures (globs) that stand back when both match one line.
    pub overrides: Vec<String>,
    /// Signatures that are reported as well when both match one line.
    pub beside: Vec<String>,
    /// Signatures (globs) whose open findings explain this one.
    pub explained_by: Vec<String>,
    pub(super) places: Vec<Place>,
    pub(super) patterns: Vec<Arc<Pattern>>,
    /// Names that the matching pattern left open are looked for with these, in the whole line and its window.
    pub(super) fill: Vec<Arc<Pattern>>,
    pub(super) clears_by: Vec<Arc<Pattern>>,
    /// Causes that share its lines but not its way out; the first that fits speaks.
    ways: Vec<Way>,
    pub examples: Vec<Example>,
    pub counter_examples: Vec<Example>,
}

/// One cause of several that a signature stands for.
#[derive(Debug, Clone)]
struct Way {
    /// Words of the line, or of why it failed.
    when: Arc<Pattern>,
    title: Option<String>,
    fix: String,
}

/// A line of the test of a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    pub source: String,
    pub unit: String,
    pub line: String,
}

/// A line after which earlier trouble of some places is over.
#[derive(Debug, Clone)]
pub(super) struct Milestone {
    pub(super) pattern: Arc<Pattern>,
    pub(super) places: Vec<Place>,
    /// Places whose findings are over. Findings of the milestone's own unit are over when an earlier, different
    /// milestone was the last one of that unit as they were opened: a unit that starts again says the same line again.
    pub(super) ends: Vec<Place>,
    /// When named, only what went wrong in these is over, whichever milestone came before.
    pub(super) phases: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Added to those of every signature of the file.
    #[serde(default)]
    fill: Vec<String>,
    /// Of signatures that do not say otherwise.
    #[serde(default)]
    phase: Option<String>,
    #[serde(default)]
    resume: Option<String>,
    #[serde(default)]
    signature: Vec<Raw>,
    #[serde(default)]
    milestone: Vec<RawMilestone>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    id: String,
    title: String,
    patterns: Vec<String>,
    #[serde(default)]
    scope: Vec<String>,
    rank: u32,
    phase: Option<String>,
    #[serde(default)]
    fix: String,
    resume: Option<String>,
    #[serde(default)]
    refs: Vec<String>,
    #[serde(default)]
    verdict: bool,
    #[serde(default = "error")]
    severity: Level,
    #[serde(default)]
    carrier: bool,
    /// Seconds.
    #[serde(default)]
    grace: u32,
    #[serde(default)]
    lasts: bool,
    #[serde(default)]
    whole: bool,
    #[serde(default)]
    stays: bool,
    #[serde(default)]
    clears_by: Vec<String>,
    #[serde(default)]
    about: Vec<String>,
    #[serde(default)]
    overrides: Vec<String>,
    #[serde(default)]
    beside: Vec<String>,
    #[serde(default)]
    explained_by: Vec<String>,
    #[serde(default)]
    fill: Vec<String>,
    #[serde(default)]
    ways: Vec<RawWay>,
    checklist: Option<String>,
    examples: Vec<RawExample>,
    #[serde(default)]
    counter_examples: Vec<RawExample>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWay {
    when: String,
    title: Option<String>,
    fix: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawExample {
    Line(String),
    From { from: String, line: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMilestone {
    pattern: String,
    scope: Vec<String>,
    ends: Vec<String>,
    #[serde(default)]
    phases: Vec<String>,
}

fn error() -> Level {
    Level::Error
}

/// The signature files of a directory; none where there is no directory.
///
/// # Errors
/// When it cannot be read.
pub fn user_files(directory: &Path) -> Result<Vec<PathBuf>, CatalogueError> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unread(directory, &error)),
        Ok(entries) => entries,
    };
    let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "toml"));
    paths.sort();
    Ok(paths)
}

fn unread(path: &Path, error: &std::io::Error) -> CatalogueError {
    CatalogueError::File { file: path.display().to_string(), why: error.to_string() }
}

/// What a file has.
struct Entries {
    signatures: Vec<Signature>,
    milestones: Vec<Milestone>,
}

impl Entries {
    /// `make` the expressions of a user's file, so that they are known to be good.
    fn read(name: &str, text: &str, make: bool) -> Result<Self, CatalogueError> {
        let file: File = toml::from_str(text)
            .map_err(|error| CatalogueError::File { file: name.to_owned(), why: error.to_string() })?;
        let (mut signatures, mut milestones) = (Vec::new(), Vec::new());
        let mut patterns = Patterns::default();
        for mut raw in file.signature {
            let id = raw.id.clone();
            raw.fill.extend(file.fill.iter().cloned());
            raw.phase = raw.phase.or_else(|| file.phase.clone());
            raw.resume = raw.resume.or_else(|| file.resume.clone());
            let signature = raw.check(name, &mut patterns).map_err(|why| entry(name, &id, why))?;
            if make {
                signature.make().map_err(|why| entry(name, &id, why))?;
            }
            signatures.push(signature);
        }
        for raw in file.milestone {
            let pattern = patterns.get(&raw.pattern).map_err(|why| entry(name, "milestone", why))?;
            let places = raw.scope.iter().map(|place| Place::parse(place)).collect();
            let ends = raw.ends.iter().map(|place| Place::parse(place)).collect();
            milestones.push(Milestone { pattern, places, ends, phases: raw.phases });
        }
        Ok(Self { signatures, milestones })
    }
}

impl Catalogue {
    /// The catalogue that this program was built with.
    pub fn builtin() -> Result<Self, CatalogueError> {
        Self::parse(FILES)
    }

    /// The built-in ones and those of the user: `signatures/*.toml` in the configuration directory.
    pub fn with_user(directory: &Path) -> Result<Self, CatalogueError> {
        Self::with_files(&user_files(directory)?)
    }

    /// The built-in ones and those of these files. A signature of theirs takes the place of a built-in one of the same id.
    pub fn with_files(paths: &[PathBuf]) -> Result<Self, CatalogueError> {
        let mut texts = Vec::new();
        for path in paths {
            let text = std::fs::read_to_string(path).map_err(|error| unread(path, &error))?;
            texts.push((path.display().to_string(), text));
        }
        // The user's first: of two of the same id the first stays.
        let mut files: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let own = files.len();
        files.extend_from_slice(FILES);
        Self::read(&files, own)
    }

    /// Read signature files, `(name, text)`.
    pub fn parse(files: &[(&str, &str)]) -> Result<Self, CatalogueError> {
        Self::read(files, 0)
    }

    /// The first `own` files take precedence over those after them.
    fn read(files: &[(&str, &str)], own: usize) -> Result<Self, CatalogueError> {
        let numbered: Vec<_> = files.iter().enumerate().collect();
        let read = side_by_side(&numbered, |(place, (name, text))| Entries::read(name, text, *place < own));
        let (mut signatures, mut milestones) = (Vec::<Signature>::new(), Vec::new());
        let mut taken = BTreeSet::new();
        for (place, read) in read.into_iter().enumerate() {
            let Entries { signatures: of_file, milestones: others } = read?;
            if place == own {
                taken = signatures.iter().map(|known| known.id.clone()).collect();
            }
            signatures.extend(of_file.into_iter().filter(|signature| !taken.contains(&signature.id)));
            milestones.extend(others);
        }
        let prefilter = Prefilter::new(&signatures, &milestones)
            .map_err(|why| CatalogueError::File { file: "all patterns together".into(), why })?;
        let (mut by_id, causes) = (HashMap::default(), vec![OnceLock::new(); signatures.len()]);
        for (place, signature) in signatures.iter().enumerate() {
            if by_id.insert(signature.id.clone(), place).is_some() {
                return Err(entry(&signature.area, &signature.id, "there are two of this id"));
            }
        }
        let catalogue = Self { signatures, by_id, causes, milestones, prefilter };
        catalogue.check_relations()?;
        Ok(catalogue)
    }

    /// For a world whose clock runs `pace` times faster than ours (a lab): what is normal for a minute there is normal
    /// for a `pace`th of it here.
    pub fn at_pace(mut self, pace: f64) -> Self {
        for signature in &mut self.signatures {
            let seconds = signature.grace.as_secs_f64() / pace.max(1.0);
            signature.grace = SignedDuration::try_from_secs_f64(seconds).unwrap_or(signature.grace);
        }
        self
    }

    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Parts of the installation that signatures are about.
    pub fn phases(&self) -> BTreeSet<&str> {
        self.signatures.iter().map(|signature| signature.phase.as_str()).collect()
    }

    pub fn get(&self, id: &str) -> Option<&Signature> {
        self.signatures.get(self.place(id)?)
    }

    pub(super) fn place(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    /// Whether one signature is named as the cause of another, by their places. What two say of each other, their ranks
    /// decide.
    pub(super) fn explains(&self, cause: usize, symptom: usize) -> bool {
        let causes = self.causes.get(symptom).map(|causes| causes.get_or_init(|| self.causes_of(symptom)));
        causes.is_some_and(|causes| causes.binary_search(&cause).is_ok())
    }

    fn causes_of(&self, symptom: usize) -> Vec<usize> {
        let Some(symptom) = self.signatures.get(symptom) else { return Vec::new() };
        let named = |of: &Signature, other: &Signature| of.explained_by.iter().any(|pattern| glob(pattern, &other.id));
        let explains = |(_, cause): &(usize, &Signature)| {
            named(symptom, cause) && (cause.rank < symptom.rank || !named(cause, symptom))
        };
        self.signatures.iter().enumerate().filter(explains).map(|(place, _)| place).collect()
    }

    fn check_relations(&self) -> Result<(), CatalogueError> {
        for signature in &self.signatures {
            for other in signature.overrides.iter().chain(&signature.beside).chain(&signature.explained_by) {
                let one_of_several = || self.signatures.iter().any(|known| glob(other, &known.id));
                if self.place(other).is_none() && !one_of_several() {
                    return Err(entry(&signature.area, &signature.id, format!("no signature is called {other}")));
                }
            }
        }
        Ok(())
    }
}

fn entry(file: &str, id: &str, why: impl Into<String>) -> CatalogueError {
    CatalogueError::Entry { file: file.to_owned(), id: id.to_owned(), why: why.into() }
}

impl Raw {
    fn check(self, area: &str, patterns: &mut Patterns) -> Result<Signature, String> {
        if self.patterns.is_empty() {
            return Err("it has no patterns".into());
        }
        if self.examples.is_empty() {
            return Err("it has no example".into());
        }
        let own = patterns.all(&self.patterns)?;
        let fill = self.fill.iter().map(|text| patterns.later(text)).collect();
        let way = |RawWay { when, title, fix }| Way { when: patterns.later(&when), title, fix };
        let ways = self.ways.into_iter().map(way).collect();
        let places: Vec<Place> = self.scope.iter().map(|place| Place::parse(place)).collect();
        let examples = self.examples.into_iter().map(|raw| raw.at(&places)).collect();
        let counter_examples = self.counter_examples.into_iter().map(|raw| raw.at(&places)).collect();
        let signature = Signature {
            id: self.id,
            title: self.title,
            area: area.to_owned(),
            phase: self.phase.unwrap_or_else(|| area.to_owned()),
            fix: self.fix,
            resume: self.resume.unwrap_or_else(|| "live".to_owned()),
            refs: self.refs,
            verdict: self.verdict,
            severity: self.severity,
            rank: self.rank,
            carrier: self.carrier,
            grace: SignedDuration::from_secs(i64::from(self.grace)),
            lasts: self.lasts,
            whole: self.whole,
            stays: self.stays,
            checklist: self.checklist,
            about: self.about,
            overrides: self.overrides,
            beside: self.beside,
            explained_by: self.explained_by,
            places,
            patterns: own,
            fill,
            clears_by: patterns.all(&self.clears_by)?,
            ways,
            examples,
            counter_examples,
        };
        let names = signature.capture_names();
        let words: Vec<&str> =
            signature.about.iter().map(String::as_str).chain(signature.sentences().flat_map(placeholders)).collect();
        if let Some(word) = words.into_iter().find(|word| !names.contains(*word)) {
            return Err(format!("no pattern captures {word}"));
        }
        Ok(signature)
    }
}

impl RawExample {
    fn at(self, places: &[Place]) -> Example {
        let (from, line) = match self {
            RawExample::Line(line) => (None, line),
            RawExample::From { from, line } => (Some(from), line),
        };
        let (source, unit) = match from {
            Some(from) => match from.split_once('/') {
                Some((source, unit)) => (source.to_owned(), unit.to_owned()),
                None => (from, "unit".to_owned()),
            },
            None => places.first().map_or(("sync".to_owned(), "unit".to_owned()), Place::sample),
        };
        Example { source, unit, line }
    }
}

/// Captures that every finding has: which unit said it, and of which log.
pub(super) const EVERYWHERE: &[&str] = &["unit", "source"];

impl Signature {
    /// Names that a finding of this signature may carry.
    pub fn capture_names(&self) -> BTreeSet<&str> {
        let patterns = self.patterns.iter().chain(&self.fill);
        patterns.flat_map(|pattern| pattern.names()).chain(EVERYWHERE.iter().copied()).collect()
    }

    /// Make its expressions now.
    ///
    /// # Errors
    /// When one of them is too large.
    pub fn make(&self) -> Result<(), String> {
        let ways = self.ways.iter().map(|way| &way.when);
        let mut all = self.patterns.iter().chain(&self.fill).chain(&self.clears_by).chain(ways);
        all.try_for_each(|pattern| pattern.regex().map(drop))
    }

    /// Titles and ways out.
    fn sentences(&self) -> impl Iterator<Item = &str> {
        let of_ways = self.ways.iter().flat_map(|way| way.title.iter().chain([&way.fix]));
        [&self.title, &self.fix].into_iter().chain(of_ways).map(String::as_str)
    }

    /// How many causes it tells apart by [`Self::way`].
    pub fn ways(&self) -> usize {
        self.ways.len()
    }

    /// Which of its causes a line names, or the `why` that was captured.
    pub fn way(&self, captures: &BTreeMap<String, String>, line: &str) -> Option<usize> {
        let says = |way: &Way, text: &str| way.when.is_match(text);
        let why = captures.get(WHY);
        self.ways.iter().position(|way| says(way, line) || why.is_some_and(|why| says(way, why)))
    }

    /// The title with its captures put in.
    pub(super) fn title_with(&self, captures: &BTreeMap<String, String>, line: &str) -> String {
        let way = self.way(captures, line).and_then(|way| self.ways.get(way)?.title.as_ref());
        filled(way.unwrap_or(&self.title), captures)
    }

    /// What puts it right, with the captures of a finding put in: its own sentence, else what is known of the code of
    /// AWS that the line names.
    pub fn fix_with(&self, captures: &BTreeMap<String, String>, line: &str) -> Option<String> {
        let way = self.way(captures, line).and_then(|way| self.ways.get(way));
        let fix = way.map_or(&self.fix, |way| &way.fix);
        if !fix.is_empty() {
            return Some(filled(fix, captures));
        }
        let code = captures.get("code")?;
        Some(CloudError::new("", code, line).advice().to_owned()).filter(|advice| !advice.is_empty())
    }
}

/// `text` with captures put in where their names stand in braces. Of what nothing is known nothing is said: "the
/// certificate of {host} is not trusted" loses its "of" too.
fn filled(text: &str, captures: &BTreeMap<String, String>) -> String {
    const LEADS: &[&str] = &[" of", " at", " for", " to", " from", " in", " on", " by"];
    let mut parts = text.split('{');
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let Some((name, rest)) = named(part) else {
            filled.push('{');
            filled.push_str(part);
            continue;
        };
        if let Some(value) = captures.get(name) {
            filled.push_str(value);
        } else {
            let before = filled.trim_end();
            let before = LEADS.iter().find_map(|lead| before.strip_suffix(lead)).unwrap_or(before);
            filled.truncate(before.trim_end_matches([':', ',']).len());
        }
        filled.push_str(rest);
    }
    filled.trim().to_owned()
}

/// Names in braces.
pub(super) fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).filter_map(named).map(|(name, _)| name)
}

/// The name of a capture and what stands behind it, of what follows a brace. `{.status}` of a command is none.
fn named(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = text.split_once('}')?;
    let is_name = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    is_name.then_some((name, rest))
}

#[cfg(test)]
mod tests {
    use super::filled;

    #[test]
    fn of_what_is_not_known_nothing_is_said() {
        let captures = [("why".to_owned(), "{host} is {".to_owned())].into();
        let filled = |text: &str| filled(text, &captures);
        assert_eq!(
            filled("The certificate of {host} is not trusted: {why}"),
            "The certificate is not trusted: {host} is {"
        );
        assert_eq!(filled("{host} refuses, at {place}"), "refuses");
        assert_eq!(filled("set {why} or {"), "set {host} is { or {");
        assert_eq!(filled("oc get x -o jsonpath='{.status}'"), "oc get x -o jsonpath='{.status}'");
    }
}
