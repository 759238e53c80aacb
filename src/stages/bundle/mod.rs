//! What a log bundle of `openshift-install gather bootstrap` tells, as the run that it was: its lines in the order of their
//! times, what they mean, the findings, and the state of the cluster at the end.
//!
//! The layout is that of openshift/installer, data/data/bootstrap/files/usr/local/bin/installer-gather.sh and
//! installer-masters-gather.sh. An install directory with such a bundle in it can be read as a whole.

mod kept;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::cluster::Kind;
use crate::cluster::pods::trouble;
use crate::diagnose::Catalogue;
use crate::diagnose::offline::{self, Limits, OfflineError, Report};
use crate::model::event::{BootStage, Data, Level, LogLine, Observed};
use crate::watch::bootkube::Recogniser;
use crate::watch::installer::{self, Phases};
use crate::watch::journal::BOOTSTRAP;
use crate::watch::mcs::{self, Requests};
use crate::watch::serial::FirstBoot;
use crate::watch::{install_dir, records};

use kept::{Kept, Line};

/// Lines that are told of at once.
const HANDFUL: usize = 256;

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Moment {
    Data(Box<Data>),
    Lines { source: String, lines: Vec<LogLine> },
}

/// All that a bundle tells.
#[derive(Debug, Default)]
pub struct Story {
    /// Of the release that was installed; empty when nothing tells.
    pub version: String,
    /// Oldest first.
    pub moments: Vec<(Timestamp, Moment)>,
    /// There is a log of the installer.
    pub has_installer: bool,
    /// The bootstrap machine had done all that it was to do.
    pub bootstrapped: bool,
    pub lines: usize,
    pub findings: usize,
    /// What was left out, and why.
    pub skipped: Vec<String>,
}

/// Reads a bundle (a tar.gz, or the directory that one was unpacked to). With `every_line` also what kubelet and crio say
/// below a warning.
///
/// # Errors
/// When it cannot be read, or nothing in it tells of an installation.
pub fn open(catalogue: &Catalogue, path: &Path, every_line: bool) -> Result<Story, OfflineError> {
    use offline::files::Files as _;
    let mut kept = Kept::new(every_line);
    kept.path(path)?;
    kept.arrange();
    if kept.lines.is_empty() && kept.objects.is_empty() && kept.records.is_empty() {
        let why = "nothing in it tells of an installation; `bartizan diagnose` reads logs of any kind".to_owned();
        return Err(OfflineError::Read { path: path.display().to_string(), why });
    }
    let report = offline::diagnose_all(catalogue, &[PathBuf::from(path)], Limits::default())?;
    Ok(tell(kept, &report))
}

fn tell(kept: Kept, report: &Report) -> Story {
    let newest = kept.objects.iter().filter_map(|object| offline::objects::newest(object, 0)).max();
    let now = newest.unwrap_or_default();
    let seen: Vec<Observed> = kept.objects.iter().filter_map(|object| observed(object, now)).collect();
    let version = version(&kept.lines, &seen);
    let mut teller = Teller::new(&version);
    let mut story = Story { version, lines: kept.lines.len(), skipped: kept.skipped, ..Story::default() };
    let first = kept.lines.first().map(|line| line.line.at);
    for (source, lost) in kept.lost {
        let why = "only the newest lines of a file are shown".to_owned();
        let gap = Data::Gap { source: source.to_string(), lost: Some(lost), why };
        story.add(first.unwrap_or_default(), gap);
    }
    // Which line of which file is which line of the record.
    let mut places: BTreeMap<(usize, u64), (String, u64, Timestamp)> = BTreeMap::new();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for Line { file, number, source, line, .. } in kept.lines {
        story.has_installer |= &*source == installer::SOURCE && line.unit == installer::SOURCE;
        for observed in teller.feed(&source, &line) {
            story.add(line.at, Data::Observed(observed));
        }
        let count = counts.entry(source.to_string()).or_default();
        *count += 1;
        places.insert((file, number), (source.to_string(), *count, line.at));
        story.line(&source, line);
    }
    let told = kept.records.iter().flat_map(|(_, entries)| entries.iter().map(|entry| entry.at));
    let last = story.moments.last().map(|(at, _)| *at).into_iter().chain(newest).chain(told).max().unwrap_or_default();
    for service in records::SERVICES {
        for (_, entries) in kept.records.iter().filter(|(name, _)| name == service) {
            for observed in teller.boot.confirm(service, entries) {
                teller.note(&observed);
                let at = match &observed {
                    Observed::Bootkube { since: Some(since), .. } => *since,
                    _ => last,
                };
                story.add(at, Data::Observed(observed));
            }
        }
    }
    for (host, unit) in kept.failed {
        if !teller.units.contains(&(host.clone(), unit.clone())) {
            story.add(last, Data::Observed(Observed::Unit { host, unit, state: "failed".into(), restarts: 0 }));
        }
    }
    seen.into_iter().for_each(|observed| story.add(last, Data::Observed(observed)));
    for located in report.findings.iter().rev() {
        let file = kept.names.iter().position(|name| *name == located.file);
        let mut finding = located.finding.clone();
        finding.line_number = None;
        if let Some((source, number, at)) = file.and_then(|file| places.get(&(file, located.line))) {
            (finding.source, finding.line_number, finding.at) = (source.clone(), Some(*number), *at);
        }
        let at = if finding.at == Timestamp::UNIX_EPOCH { last } else { finding.at.min(last) };
        finding.at = at;
        story.findings += 1;
        story.add(at, Data::FindingOpened { finding });
    }
    story.bootstrapped = teller.bootstrapped;
    // What was found out at the end belongs to where it was.
    story.moments.sort_by_key(|(at, _)| *at);
    story
}

/// An object as it is shown; of all events warnings alone, and pods that do not get on.
fn observed(object: &serde_json::Value, now: Timestamp) -> Option<Observed> {
    let text = |path: &str| object.pointer(path).and_then(serde_json::Value::as_str);
    if text("/kind") == Some("Pod") {
        return trouble(object, now).map(|trouble| Observed::Pod(trouble.pod));
    }
    let kind = Kind::ALL.into_iter().find(|kind| Some(kind.resource().2) == text("/kind"))?;
    if kind == Kind::Warnings && text("/type") != Some("Warning") {
        return None;
    }
    kind.observe(object).ok()
}

fn version(lines: &[Line], seen: &[Observed]) -> String {
    let of_cluster = seen.iter().find_map(|observed| match observed {
        Observed::ClusterVersion(version) => Some(version.desired.clone()),
        _ => None,
    });
    let of_installer = || {
        let said = lines.iter().filter(|line| &*line.source == installer::SOURCE);
        said.filter_map(|line| install_dir::version(&line.line.text)).next_back()
    };
    of_cluster.filter(|version| !version.is_empty()).or_else(of_installer).unwrap_or_default()
}

/// What lines mean, whoever says them.
struct Teller {
    boot: Recogniser,
    phases: Phases,
    requests: Requests,
    consoles: BTreeMap<String, FirstBoot>,
    units: std::collections::BTreeSet<(String, String)>,
    bootstrapped: bool,
}

impl Teller {
    fn new(version: &str) -> Self {
        Self {
            boot: Recogniser::new(version),
            phases: Phases::new(),
            requests: Requests::default(),
            consoles: BTreeMap::new(),
            units: Default::default(),
            bootstrapped: false,
        }
    }

    fn feed(&mut self, source: &str, line: &LogLine) -> Vec<Observed> {
        let told = match source.split_once(':') {
            _ if source == BOOTSTRAP => self.boot.feed(line),
            _ if source == mcs::SOURCE => self.requests.feed(&line.text).into_iter().collect(),
            Some(("serial", node)) => {
                let boot = self.consoles.entry(node.to_owned()).or_default();
                boot.feed(node, &line.text).into_iter().collect()
            }
            _ if source == installer::SOURCE && line.unit == installer::SOURCE => {
                let (at, level, message) = (line.at, line.level, line.text.clone());
                self.phases.feed(&installer::Entry { at, level, message, fields: String::new() }).into_iter().collect()
            }
            _ => Vec::new(),
        };
        told.iter().for_each(|observed| self.note(observed));
        told
    }

    fn note(&mut self, observed: &Observed) {
        match observed {
            Observed::Unit { host, unit, .. } => {
                self.units.insert((host.clone(), unit.clone()));
            }
            Observed::Bootkube { stage, state: BootStage::Done, .. } if stage == LAST_STAGE => self.bootstrapped = true,
            _ => {}
        }
    }
}

/// Of bootkube.service, in every release.
const LAST_STAGE: &str = "bootkube-complete";

impl Story {
    fn add(&mut self, at: Timestamp, data: Data) {
        self.moments.push((at, Moment::Data(Box::new(data))));
    }

    fn line(&mut self, from: &str, line: LogLine) {
        if let Some((at, Moment::Lines { source, lines })) = self.moments.last_mut()
            && source == from
            && lines.len() < HANDFUL
            && at.as_second() == line.at.as_second()
        {
            *at = line.at;
            lines.push(line);
            return;
        }
        self.moments.push((line.at, Moment::Lines { source: from.to_owned(), lines: vec![line] }));
    }

    /// What it tells in all, for people.
    pub fn note(&self) -> Data {
        let left_out = match self.skipped.len() {
            0 => String::new(),
            many => format!(", {many} left out: {}", self.skipped.join("; ")),
        };
        let text = format!("the bundle has {} lines and {} findings{left_out}", self.lines, self.findings);
        Data::Note { level: if left_out.is_empty() { Level::Info } else { Level::Warn }, text }
    }
}
