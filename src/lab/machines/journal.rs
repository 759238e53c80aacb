//! A machine's journal, and the `journalctl` that reads it.
//!
//! The output is that of systemd 252 (`src/journal/journalctl.c`, `src/shared/logs-show.c`; "Journal JSON Format" in
//! `docs/JOURNAL_EXPORT_FORMATS.md`): values are strings, times are microseconds, and a message is a string, `null`
//! (too long without `--all`), an array of bytes (not printable) or an array of strings (more than one field).

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::clock::Skew;
use super::coreutils::info::moment;
use super::io::lock;
use super::program::Cx;

/// Between two values of `MESSAGE` of one entry (ASCII record separator).
const SEVERAL: u8 = 0x1e;
/// journalctl prints longer fields only with `--all` (`JSON_THRESHOLD`).
const THRESHOLD: usize = 4096;

/// One entry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// `bootkube.service`
    pub unit: String,
    /// `SYSLOG_IDENTIFIER`
    pub identifier: String,
    /// 0 (emergency) to 7 (debug).
    pub priority: u8,
    /// Two values of the field stand around a byte 0x1e.
    pub message: Vec<u8>,
    pub pid: u32,
    /// `CONTAINER_NAME`
    pub container: Option<String>,
    /// What a line of process 1 is about: it has `_SYSTEMD_UNIT=init.scope`, and this as `UNIT`.
    pub about_unit: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    entry: Entry,
    /// From 1.
    seq: u64,
    realtime: i64,
    /// Place in [`Ids::boots`].
    #[serde(default)]
    boot: usize,
}

struct State {
    records: Vec<Arc<Record>>,
    file: Option<std::fs::File>,
}

/// The journal of one machine. It is kept in the lab's directory: cursors stay good when the lab starts again.
pub struct Journal {
    state: Mutex<State>,
    length: watch::Sender<usize>,
    ids: Ids,
    clock: Skew,
}

#[derive(Serialize, Deserialize)]
struct Ids {
    machine: String,
    seqnum: String,
    /// Oldest first; never empty.
    boots: Vec<Boot>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Boot {
    id: String,
    at: i64,
}

impl Boot {
    fn new() -> Self {
        Self { id: random_id(), at: micros() - 20_000_000 }
    }
}

impl Ids {
    /// As an earlier life of the lab left them.
    fn kept(path: &Path) -> Option<Self> {
        let ids: Self = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        (!ids.boots.is_empty()).then_some(ids)
    }
}

fn random_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

fn micros() -> i64 {
    Timestamp::now().as_microsecond()
}

impl Journal {
    pub(super) fn open(dir: &Path, clock: Skew) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let ids_path: PathBuf = dir.join("ids.json");
        let ids = match Ids::kept(&ids_path) {
            Some(ids) => ids,
            None => {
                let ids = Ids { machine: random_id(), seqnum: random_id(), boots: vec![Boot::new()] };
                std::fs::write(&ids_path, serde_json::to_vec(&ids)?)?;
                ids
            }
        };
        let path = dir.join("entries.jsonl");
        let mut text = std::fs::read_to_string(&path).unwrap_or_default();
        // A line that a crash cut in the middle never was an entry.
        text.truncate(text.rfind('\n').map_or(0, |at| at + 1));
        let mut records: Vec<Arc<Record>> = Vec::new();
        for record in text.lines().filter_map(|line| serde_json::from_str::<Record>(line).ok()) {
            if record.seq == records.len() as u64 + 1 {
                records.push(Arc::new(record));
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        file.set_len(text.len() as u64)?;
        let length = watch::Sender::new(records.len());
        Ok(Self { state: Mutex::new(State { records, file: Some(file) }), length, ids, clock })
    }

    /// The machine whose journal is in `dir` has another boot the next time that it runs.
    pub(super) fn next_boot(dir: &Path) -> io::Result<()> {
        let path = dir.join("ids.json");
        let Some(mut ids) = Ids::kept(&path) else { return Ok(()) };
        ids.boots.push(Boot::new());
        std::fs::write(path, serde_json::to_vec(&ids)?)
    }

    pub fn append(&self, entry: Entry) {
        let mut state = lock(&self.state);
        let last = state.records.last().map_or(0, |record| record.realtime);
        let realtime = self.clock.now().as_microsecond().max(last + 1);
        let boot = self.ids.boots.len() - 1;
        let record = Record { entry, seq: state.records.len() as u64 + 1, realtime, boot };
        if let (Some(file), Ok(mut line)) = (&mut state.file, serde_json::to_vec(&record)) {
            line.push(b'\n');
            if file.write_all(&line).is_err() {
                // The lab goes on without a journal that outlives it.
                state.file = None;
            }
        }
        state.records.push(Arc::new(record));
        let length = state.records.len();
        drop(state);
        self.length.send_replace(length);
    }

    /// 32 hexadecimal digits, as in `_BOOT_ID`.
    pub fn boot_id(&self) -> String {
        self.boot(usize::MAX).id.clone()
    }
    /// One of its boots, the present one when there are not so many.
    fn boot(&self, place: usize) -> &Boot {
        static NONE: Boot = Boot { id: String::new(), at: 0 };
        self.ids.boots.get(place).or(self.ids.boots.last()).unwrap_or(&NONE)
    }
    /// `journalctl --list-boots`: oldest first, the present one is 0.
    fn boots(&self) -> String {
        let count = self.ids.boots.len();
        self.ids
            .boots
            .iter()
            .enumerate()
            .map(|(place, boot)| format!("{:2} {}\n", place as i64 + 1 - count as i64, boot.id))
            .collect()
    }
    pub fn len(&self) -> usize {
        lock(&self.state).records.len()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    pub(super) fn machine_id(&self) -> &str {
        &self.ids.machine
    }
    /// The boot id as the kernel writes it.
    pub(super) fn boot_uuid(&self) -> String {
        let id = self.boot_id();
        let part = |from: usize, to: usize| id.get(from..to).unwrap_or_default();
        [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
    }

    /// What `-b` says: an offset from the present boot, a number from the first (1), or an id. One that is not there has no
    /// entries.
    fn place_of(&self, text: &str) -> i64 {
        let (count, id) = (self.ids.boots.len() as i64, text.replace('-', ""));
        if let Some(place) = self.ids.boots.iter().position(|boot| boot.id == id) {
            return place as i64 + 1 - count;
        }
        match text.parse::<i64>() {
            Ok(offset) if offset <= 0 => offset,
            Ok(number) => number - count,
            Err(_) => 1,
        }
    }

    fn since(&self, seen: usize) -> Vec<Arc<Record>> {
        lock(&self.state).records.get(seen..).unwrap_or_default().to_vec()
    }

    fn monotonic(&self, record: &Record) -> i64 {
        (record.realtime - self.boot(record.boot).at).max(0)
    }

    fn cursor(&self, record: &Record) -> String {
        let (seqnum, boot) = (&self.ids.seqnum, &self.boot(record.boot).id);
        let (seq, monotonic, realtime) = (record.seq, self.monotonic(record), record.realtime);
        let hash = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ realtime.unsigned_abs();
        format!("s={seqnum};i={seq:x};b={boot};m={monotonic:x};t={realtime:x};x={hash:x}")
    }

    /// How many entries lie up to the one of a cursor; none if it is no cursor.
    fn seek(&self, cursor: &str) -> Option<usize> {
        let (mut seqnum, mut seq, mut boot, mut monotonic, mut realtime) = (None, None, None, None, None);
        for part in cursor.split(';') {
            let (key, value) = part.split_once('=')?;
            let number = || u64::from_str_radix(value, 16).ok();
            let id = || (value.len() == 32 && u128::from_str_radix(value, 16).is_ok()).then(|| value.to_owned());
            match key {
                "s" => seqnum = Some(id()?),
                "i" => seq = Some(number()?),
                "b" => boot = Some(id()?),
                "m" => monotonic = Some(number()?),
                "t" => realtime = Some(number()?),
                "x" => drop(number()?),
                _ => {}
            }
        }
        let state = lock(&self.state);
        match (seqnum, seq, boot, monotonic, realtime) {
            (Some(seqnum), Some(seq), ..) if seqnum == self.ids.seqnum => {
                Some(usize::try_from(seq).unwrap_or(usize::MAX).min(state.records.len()))
            }
            // From another journal: by time, as journalctl does.
            (.., Some(realtime)) => {
                let at = i64::try_from(realtime).unwrap_or(i64::MAX);
                Some(state.records.partition_point(|record| record.realtime <= at))
            }
            (Some(_), Some(_), ..) | (_, _, Some(_), Some(_), _) => Some(state.records.len()),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Format {
    Short,
    ShortIso,
    Cat,
    Json,
}

struct Query {
    units: Vec<String>,
    identifiers: Vec<String>,
    priority: u8,
    grep: Option<regex::bytes::Regex>,
    /// 0 is the present one, -1 the one before it; none: all.
    boot: Option<i64>,
    format: Format,
    fields: Option<Vec<String>>,
    all: bool,
    quiet: bool,
    follow: bool,
    lines: Option<usize>,
    after: Option<String>,
    /// The entry of the cursor is shown too.
    inclusive: bool,
    since: Option<i64>,
    until: Option<i64>,
    show_cursor: bool,
    reverse: bool,
}

fn query(words: Vec<String>, journal: &Journal) -> Result<Query, String> {
    let mut query = Query {
        units: Vec::new(),
        identifiers: Vec::new(),
        priority: 7,
        grep: None,
        boot: None,
        format: Format::Short,
        fields: None,
        all: false,
        quiet: false,
        follow: false,
        lines: None,
        after: None,
        inclusive: false,
        since: None,
        until: None,
        show_cursor: false,
        reverse: false,
    };
    let mut tail = true;
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        // Short flags may stand together (`-qfb`), the last one with its value attached (`-n5`).
        let mut options: Vec<(String, Option<String>)> = Vec::new();
        if let Some(long) = word.strip_prefix("--") {
            let (name, value) =
                long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value.to_owned())));
            options.push((name.to_owned(), value));
        } else if let Some(short) = word.strip_prefix('-') {
            for (at, letter) in short.char_indices() {
                let rest = short.get(at + letter.len_utf8()..).unwrap_or_default();
                if "unotpgSUcMDb".contains(letter) {
                    options.push((letter.to_string(), (!rest.is_empty()).then(|| rest.to_owned())));
                    break;
                }
                options.push((letter.to_string(), None));
            }
        } else {
            return Err(format!("Failed to add match '{word}': Invalid argument"));
        }
        for (name, value) in options {
            let mut need = || {
                value
                    .clone()
                    .or_else(|| words.next())
                    .ok_or_else(|| format!("journalctl: option requires an argument -- '{name}'"))
            };
            match name.as_str() {
                "no-pager" | "utc" | "no-hostname" | "x" | "catalog" | "m" | "merge" | "system" | "full" | "l"
                | "no-full" => {}
                "q" | "quiet" => query.quiet = true,
                "a" | "all" => query.all = true,
                "f" | "follow" => query.follow = true,
                "no-tail" => tail = false,
                "r" | "reverse" => query.reverse = true,
                "e" | "pager-end" => query.lines = query.lines.or(Some(1000)),
                "show-cursor" => query.show_cursor = true,
                "k" | "dmesg" => query.units.push("kernel".to_owned()),
                "b" | "boot" => {
                    let number =
                        |word: &String| word.parse::<i64>().is_ok() || word.len() == 32 && !word.starts_with('-');
                    let boot = value.clone().or_else(|| if name == "b" { words.next_if(number) } else { None });
                    query.boot = Some(journal.place_of(boot.as_deref().unwrap_or("0")));
                }
                "u" | "unit" => {
                    let unit = need()?;
                    query.units.push(if unit.contains('.') { unit } else { format!("{unit}.service") });
                }
                "t" | "identifier" => query.identifiers.push(need()?),
                "p" | "priority" => {
                    let text = need()?;
                    let names = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
                    let highest = text.rsplit("..").next().unwrap_or_default();
                    let level = names.iter().position(|name| *name == highest).or_else(|| highest.parse().ok());
                    query.priority = match level {
                        Some(level) if level <= 7 => level as u8,
                        _ => return Err(format!("Unknown log level {text}")),
                    };
                }
                "g" | "grep" => {
                    query.grep = Some(regex::bytes::Regex::new(&need()?).map_err(|_| "Bad pattern".to_owned())?)
                }
                "n" | "lines" => {
                    let number = |word: &String| word == "all" || word.parse::<usize>().is_ok();
                    let count = value.clone().or_else(|| if name == "n" { words.next_if(number) } else { None });
                    query.lines = match count.as_deref() {
                        None => Some(10),
                        Some("all") => {
                            tail = false;
                            None
                        }
                        Some(count) => Some(count.parse().map_err(|_| format!("Failed to parse lines '{count}'"))?),
                    };
                }
                "o" | "output" => {
                    let format = need()?;
                    query.format = match format.as_str() {
                        "short" | "short-precise" | "short-full" | "with-unit" => Format::Short,
                        "short-iso" | "short-iso-precise" => Format::ShortIso,
                        "cat" => Format::Cat,
                        "json" => Format::Json,
                        _ => return Err(format!("Unknown output format '{format}'.")),
                    };
                }
                "output-fields" => query.fields = Some(need()?.split(',').map(str::to_owned).collect()),
                "after-cursor" => query.after = Some(need()?),
                "c" | "cursor" => {
                    query.after = Some(need()?);
                    query.inclusive = true;
                }
                "S" | "since" | "U" | "until" => {
                    let text = need()?;
                    let at = fraction(&text).or_else(|| moment(&text).map(|at| at.as_microsecond()));
                    let at = Some(at.ok_or_else(|| format!("Failed to parse timestamp: {text}"))?);
                    if matches!(name.as_str(), "S" | "since") {
                        query.since = at;
                    } else {
                        query.until = at;
                    }
                }
                name => return Err(format!("journalctl: unrecognized option '{name}'")),
            }
        }
    }
    if query.follow {
        // Following shows the present boot only.
        query.boot = query.boot.or(Some(0));
    }
    if query.follow && tail && query.lines.is_none() && query.since.is_none() && query.after.is_none() {
        query.lines = Some(10);
    }
    Ok(query)
}

/// `@seconds.micros`
fn fraction(text: &str) -> Option<i64> {
    let (seconds, micros) = text.strip_prefix('@')?.split_once('.')?;
    let micros: String = micros.chars().chain("000000".chars()).take(6).collect();
    seconds.parse::<i64>().ok()?.checked_mul(1_000_000)?.checked_add(micros.parse().ok()?)
}

impl Query {
    /// `boots`: how many there were.
    fn wants(&self, record: &Record, boots: usize) -> bool {
        let entry = &record.entry;
        let unit = entry.about_unit.as_ref().unwrap_or(&entry.unit);
        let named = |wanted: &String| match wanted.contains(['*', '?', '[']) {
            true => super::shell::pattern::Pattern::new(wanted).matches(unit),
            false => wanted == unit || *wanted == entry.unit,
        };
        let present = |wanted: i64| wanted == record.boot as i64 + 1 - boots as i64;
        self.boot.is_none_or(present)
            && (self.units.is_empty() || self.units.iter().any(named))
            && (self.identifiers.is_empty() || self.identifiers.contains(&entry.identifier))
            && entry.priority <= self.priority
            && self.since.is_none_or(|since| record.realtime >= since)
            && self.until.is_none_or(|until| record.realtime <= until)
            && self.grep.as_ref().is_none_or(|regex| regex.is_match(&entry.message))
    }

    fn show(&self, journal: &Journal, host: &str, record: &Record) -> Vec<u8> {
        let entry = &record.entry;
        let first = entry.message.split(|byte| *byte == SEVERAL).next().unwrap_or_default();
        match self.format {
            Format::Cat => [first, b"\n"].concat(),
            Format::Json => {
                let mut line = serde_json::to_vec(&self.fields_of(journal, host, record)).unwrap_or_default();
                line.push(b'\n');
                line
            }
            Format::Short | Format::ShortIso => {
                let at = Timestamp::from_microsecond(record.realtime).unwrap_or_default().to_zoned(TimeZone::UTC);
                let form = if self.format == Format::Short { "%b %d %H:%M:%S" } else { "%Y-%m-%dT%H:%M:%S+0000" };
                let text = match std::str::from_utf8(first) {
                    Ok(text) if self.all || printable(text) => text.to_owned(),
                    _ => format!("[{}B blob data]", first.len()),
                };
                let (at, name, pid) = (at.strftime(form), &entry.identifier, entry.pid);
                format!("{at} {host} {name}[{pid}]: {text}\n").into_bytes()
            }
        }
    }

    fn fields_of(&self, journal: &Journal, host: &str, record: &Record) -> Map<String, Value> {
        let entry = &record.entry;
        let mut fields = Map::new();
        let mut values: Vec<Value> =
            entry.message.split(|byte| *byte == SEVERAL).map(|text| self.message(text)).collect();
        let message = if values.len() > 1 { Value::Array(values) } else { values.pop().unwrap_or(Value::Null) };
        fields.insert("MESSAGE".to_owned(), message);
        let unit = if entry.about_unit.is_some() { "init.scope" } else { &entry.unit };
        let pid = if entry.about_unit.is_some() { 1 } else { entry.pid };
        for (name, value) in [
            ("PRIORITY", entry.priority.to_string()),
            ("SYSLOG_IDENTIFIER", entry.identifier.clone()),
            ("_PID", pid.to_string()),
            ("_SYSTEMD_UNIT", unit.to_owned()),
            ("_HOSTNAME", host.to_owned()),
            ("_MACHINE_ID", journal.ids.machine.clone()),
            ("_TRANSPORT", if entry.about_unit.is_some() { "journal" } else { "stdout" }.to_owned()),
            ("_COMM", entry.identifier.chars().take(15).collect()),
        ] {
            fields.insert(name.to_owned(), json!(value));
        }
        if let Some(unit) = &entry.about_unit {
            fields.insert("UNIT".to_owned(), json!(unit));
        }
        if let Some(container) = &entry.container {
            fields.insert("CONTAINER_NAME".to_owned(), json!(container));
        }
        if let Some(wanted) = &self.fields {
            fields.retain(|name, _| wanted.contains(name));
        }
        fields.insert("__CURSOR".to_owned(), json!(journal.cursor(record)));
        fields.insert("__REALTIME_TIMESTAMP".to_owned(), json!(record.realtime.to_string()));
        fields.insert("__MONOTONIC_TIMESTAMP".to_owned(), json!(journal.monotonic(record).to_string()));
        fields.insert("_BOOT_ID".to_owned(), json!(journal.boot(record.boot).id));
        fields
    }

    fn message(&self, text: &[u8]) -> Value {
        // The field's name counts too.
        if !self.all && text.len() + "MESSAGE=".len() > THRESHOLD {
            return Value::Null;
        }
        match std::str::from_utf8(text) {
            Ok(text) if printable(text) => json!(text),
            _ => json!(text),
        }
    }
}

fn printable(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t')
}

pub(super) async fn journalctl(cx: &mut Cx) -> io::Result<i32> {
    use tokio::io::AsyncWriteExt;
    let machine = cx.machine.clone();
    let journal = machine.journal();
    if cx.words().iter().any(|word| word == "--list-boots") {
        return cx.out(journal.boots()).await.map(|()| 0);
    }
    let query = match query(cx.words(), journal) {
        Ok(query) => query,
        Err(why) => {
            cx.fd(2).write_all(format!("{why}\n").as_bytes()).await?;
            return Ok(1);
        }
    };
    let from = match query.after.as_ref().map(|cursor| journal.seek(cursor)) {
        None => 0,
        Some(Some(from)) => from.saturating_sub(usize::from(query.inclusive)),
        Some(None) => {
            cx.fd(2).write_all(b"Failed to seek to cursor: Invalid argument\n").await?;
            return Ok(1);
        }
    };
    let mut arrivals = journal.length.subscribe();
    let records = journal.since(from);
    let mut seen = from + records.len();
    let mut chosen: Vec<&Arc<Record>> =
        records.iter().filter(|record| query.wants(record, journal.ids.boots.len())).collect();
    if let Some(lines) = query.lines.filter(|_| !(query.follow && query.after.is_some())) {
        if query.after.is_some() || query.since.is_some() {
            chosen.truncate(lines);
        } else {
            chosen.drain(..chosen.len().saturating_sub(lines));
        }
    }
    if query.reverse {
        chosen.reverse();
    }
    let none = chosen.is_empty();
    let last = chosen.last().map(|record| journal.cursor(record));
    for group in chosen.chunks(256) {
        let text: Vec<u8> = group.iter().flat_map(|record| query.show(journal, &machine.name, record)).collect();
        cx.out(text).await?;
    }
    if !query.follow {
        if none && !query.quiet && query.format != Format::Json {
            cx.out("-- No entries --\n").await?;
        }
        if let Some(cursor) = last.filter(|_| query.show_cursor) {
            cx.out(format!("-- cursor: {cursor}\n")).await?;
        }
        return Ok(0);
    }
    drop(records);
    loop {
        // The journal lives as long as its machine, and this ends with the machine.
        let _ = arrivals.changed().await;
        let records = journal.since(seen);
        seen += records.len();
        let text: Vec<u8> = records
            .iter()
            .filter(|record| query.wants(record, journal.ids.boots.len()))
            .flat_map(|record| query.show(journal, &machine.name, record))
            .collect();
        cx.out(text).await?;
    }
}
