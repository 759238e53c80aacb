//! A run to hand on: a bundle, a film, a page, a picture. Everything passes the scrubber, and what it took out is said.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::diagnose::Checklists;
use crate::export::{self, Look, Recording, cast, report};
use crate::record::scrub::{Removal, Scrub};
use crate::record::{SegmentReader, bundle};
use crate::ui::{Texts, screenshot};

use super::opened::{Opened, open, remember_secrets};
use super::session::{SegmentLogs, texts};
use super::{Failure, doctor, exit};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ExportArgs {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    bundle: BundleArgs,
}

/// Which run, to where, and how much of it.
#[derive(Debug, clap::Args)]
struct Common {
    /// The run: its name, the end of its name, `last`, a folder or a bundle.
    #[arg(default_value = "last")]
    run: String,
    /// The file to write; `-` is standard output (not for a bundle). Default: named after the run, here.
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// Hide IP addresses and account numbers too.
    #[arg(long)]
    hide_addresses: bool,
}

#[derive(Debug, clap::Args)]
struct BundleArgs {
    #[command(flatten)]
    common: Common,
}

/// How the screen looks.
#[derive(Debug, clap::Args)]
struct LookArgs {
    /// Columns and rows.
    #[arg(long, default_value = "120x40", value_parser = size)]
    size: (u16, u16),
    #[arg(long, default_value = "dark")]
    theme: String,
    /// Marks in ASCII only.
    #[arg(long)]
    ascii: bool,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The record, its logs, the spec and the state of this machine in one redacted file; `replay FILE` opens it.
    Bundle(BundleArgs),
    /// A film of the run for asciinema (asciicast v2).
    Cast {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        look: LookArgs,
        /// The longest that the film may be; the run is sped up to fit.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
        seconds: u32,
    },
    /// One page (HTML) with stage times, findings, decisions and versions; it needs nothing but itself.
    Report {
        #[command(flatten)]
        common: Common,
    },
    /// The screen at one moment, as a picture (SVG) and as text beside it.
    Screen {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        look: LookArgs,
        /// The moment: the number of an event, a part of the run as `40%`, `end`, or `failure` (the end if there was none).
        #[arg(long, default_value = "failure")]
        at: String,
    },
}

fn size(text: &str) -> Result<(u16, u16), String> {
    let parsed = text.split_once('x').and_then(|(columns, rows)| Some((columns.parse().ok()?, rows.parse().ok()?)));
    parsed
        .filter(|(columns, rows)| (10..=500).contains(columns) && (3..=200).contains(rows))
        .ok_or_else(|| "give columns and rows as 120x40, from 10x3 to 500x200".to_owned())
}

impl LookArgs {
    fn look(&self) -> Look {
        let (columns, rows) = self.size;
        Look { columns, rows, theme: self.theme.clone(), ascii: self.ascii }
    }
}

pub async fn export(state: Option<&Path>, args: ExportArgs) -> Result<u8, Failure> {
    match args.what.unwrap_or(What::Bundle(args.bundle)) {
        What::Bundle(BundleArgs { common }) => pack(state, &common).await,
        What::Cast { common, look, seconds } => {
            let (mut recording, name, _opened) = recording(state, &common)?;
            let mut film = Vec::new();
            let made = cast::write(&mut recording, &look.look(), checks()?, f64::from(seconds), &mut film)
                .map_err(Failure::other)?;
            let to = target(&common, &name, "cast");
            write(&to, &film)?;
            eprintln!(
                "{}: {:.0} s at {:.0} times life, {} frames; `asciinema play` shows it",
                to.display(),
                made.seconds,
                made.speed,
                made.frames
            );
            say_removed(&recording.removed());
            Ok(exit::DONE)
        }
        What::Report { common } => {
            let (recording, name, _opened) = recording(state, &common)?;
            let to = target(&common, &name, "html");
            write(&to, report::html(&recording, &checks()?).as_bytes())?;
            eprintln!("{}", to.display());
            say_removed(&recording.removed());
            Ok(exit::DONE)
        }
        What::Screen { common, look, at } => {
            let (mut recording, name, _opened) = recording(state, &common)?;
            let count = moment(&recording, &at)?;
            let light = look.theme == "light";
            let cells = export::screen(&mut recording, &look.look(), checks()?, count).map_err(Failure::other)?;
            let title = format!("bartizan, run {name}, after event {count}");
            let to = target(&common, &name, "svg");
            write(&to, screenshot::svg(&cells, &title, light).as_bytes())?;
            if to != Path::new("-") {
                let beside = to.with_extension("txt");
                write(&beside, screenshot::plain(&cells).as_bytes())?;
                eprintln!("{}, {}", to.display(), beside.display());
            }
            say_removed(&recording.removed());
            Ok(exit::DONE)
        }
    }
}

async fn pack(state: Option<&Path>, common: &Common) -> Result<u8, Failure> {
    let opened = open(state, &common.run)?;
    remember_secrets(state, &opened);
    let mut scrub = Scrub::new(common.hide_addresses).map_err(Failure::other)?;
    let to = target(common, &opened.run(), "tar.gz");
    let checks = doctor::of_this_machine(state).await?;
    let checks = serde_json::to_string_pretty(&checks).map_err(Failure::other)?;
    let versions = versions(&opened);
    let more = [("doctor.json".to_owned(), checks), ("versions.txt".to_owned(), versions)];
    let contents = bundle::export(&opened.dir, &to, &mut scrub, &more).map_err(Failure::other)?;
    let names: Vec<&str> = contents.files.iter().map(|(name, _)| name.as_str()).collect();
    println!("{}: {}", to.display(), names.join(", "));
    say_removed(&contents.removed);
    for (name, why) in &contents.left_out {
        eprintln!("  left out: {name} ({why})");
    }
    Ok(exit::DONE)
}

fn versions(opened: &Opened) -> String {
    let model = opened.model();
    let recorded = opened.events.iter().find_map(|event| match &event.data {
        crate::model::event::Data::RunOpened { bartizan, format, .. } => Some((bartizan.clone(), *format)),
        _ => None,
    });
    let (of_run, format) = recorded.unwrap_or_else(|| ("unknown".to_owned(), 0));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "OpenShift {}\nbartizan {} (the run: {of_run}, format {format})\n{} {} {}\n",
        model.cluster.version,
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        kernel.trim(),
        std::env::consts::ARCH,
    )
}

/// The recording, its name, and the run itself: a bundle is there only as long as that.
fn recording(state: Option<&Path>, common: &Common) -> Result<(Recording, String, Opened), Failure> {
    let mut opened = open(state, &common.run)?;
    remember_secrets(state, &opened);
    let scrub = Scrub::new(common.hide_addresses).map_err(Failure::other)?;
    let name = opened.run();
    let logs = Box::new(SegmentLogs(SegmentReader::new(&opened.dir)));
    let events = std::mem::take(&mut opened.events);
    Ok((Recording::new(events, logs, scrub), name, opened))
}

fn checks() -> Result<Texts, Failure> {
    Ok(texts(&Checklists::builtin().map_err(Failure::other)?))
}

fn target(common: &Common, name: &str, extension: &str) -> PathBuf {
    common.output.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.{extension}")))
}

fn write(to: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error| Failure::other(format!("writing {}: {error}", to.display()));
    if to == Path::new("-") {
        return std::io::stdout().write_all(bytes).map_err(failed);
    }
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(to).map_err(failed)?;
    file.write_all(bytes).map_err(failed)
}

/// To standard error: the data may be on standard output.
fn say_removed(removed: &[Removal]) {
    for Removal { kind, file, count } in removed {
        eprintln!("  removed: {count} × {kind} in {file}");
    }
    if removed.is_empty() {
        eprintln!("  removed: nothing, no secret was found in it");
    }
}

/// How many events have happened at the moment that is meant.
fn moment(recording: &Recording, at: &str) -> Result<usize, Failure> {
    let all = recording.events.len();
    let part =
        |text: &str| text.parse::<usize>().ok().filter(|part| *part <= 100).map(|part| (all * part).div_ceil(100));
    let found = match (at, at.strip_suffix('%')) {
        ("failure", _) => Some(recording.telling()),
        ("end", _) => Some(all),
        (_, Some(percent)) => part(percent),
        (number, None) => number.parse().ok().filter(|number| (1..=all).contains(number)),
    };
    found.ok_or_else(|| {
        Failure::usage(format!("--at {at}: give failure, end, a part as 40%, or an event from 1 to {all}"))
    })
}
