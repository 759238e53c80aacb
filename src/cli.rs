//! Arguments, exit codes, choosing a front end.

mod bastion;
mod bundle;
mod cloud;
mod config;
mod copy;
mod demo;
mod diagnose;
mod doctor;
mod doors;
mod edge;
mod export;
mod first;
mod init;
mod look;
mod man;
mod mirror;
mod opened;
mod recover;
mod session;
mod settings;
mod status;
mod upgrade;
mod verify;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::headless::Format;
use crate::ui::notify::Way;

/// Exit codes, by class of failure. 3 to 8 as `openshift-install` has them.
pub mod exit {
    pub const DONE: u8 = 0;
    pub const OTHER: u8 = 1;
    /// Wrong arguments or an invalid cluster.toml.
    pub const USAGE: u8 = 2;
    /// The account, the network or the machines.
    pub const INFRASTRUCTURE: u8 = 4;
    pub const INTERRUPTED: u8 = 8;
}

/// What the top of the program says when it cannot go on.
#[derive(Debug)]
pub struct Failure {
    pub exit: u8,
    pub text: String,
}

impl Failure {
    pub fn usage(text: impl Into<String>) -> Self {
        Self { exit: exit::USAGE, text: text.into() }
    }
    pub fn other(text: impl std::fmt::Display) -> Self {
        Self { exit: exit::OTHER, text: text.to_string() }
    }
}

#[derive(Debug, Parser)]
#[command(
    name = "bartizan",
    version,
    about = "Drives, watches and repairs a disconnected OpenShift installation on AWS",
    after_help = "Exit codes: 0 done, 1 other, 2 usage or invalid spec, 3 install-config, 4 infrastructure, 5 bootstrap, \
                  6 install, 7 operators not stable, 8 interrupted, 9 mirror or sync, 10 verify, 11 cleanup incomplete."
)]
struct Args {
    /// Where runs are kept; default $XDG_STATE_HOME/bartizan.
    #[arg(long, global = true, env = "BARTIZAN_STATE", value_name = "DIR")]
    state: Option<PathBuf>,
    /// None shows what can be done here.
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// How a run is shown.
#[derive(Debug, Clone, Default, clap::Args)]
struct Front {
    /// One line per change, no screen (also a screen reader's mode).
    #[arg(long, conflicts_with = "json")]
    plain: bool,
    /// The events as JSON lines, no screen. The first has `format`, the last `outcome`.
    #[arg(long)]
    json: bool,
    /// As --plain, but nothing is asked, even at a terminal: a failure ends the run.
    #[arg(long)]
    headless: bool,
    /// Theme of the screen: dark, light, high-contrast, deuteranopia, tritanopia, ansi16, mono.
    #[arg(long, env = "BARTIZAN_THEME")]
    theme: Option<String>,
    /// Marks in ASCII only.
    #[arg(long)]
    ascii: bool,
    /// The screen shows the run and cannot change it.
    #[arg(long, env = "BARTIZAN_READ_ONLY", num_args = 0, default_value_t = false)]
    read_only: bool,
    /// How a failure, a question or the end calls you: auto, osc9, osc777, osc99, bell, off, or command:PROGRAM.
    /// [default: auto]
    #[arg(long, env = "BARTIZAN_NOTIFY", value_name = "WAY", value_parser = Way::parse)]
    notify: Option<Way>,
    /// Nothing moves by itself: clocks show minutes, news is drawn once a second. Also NO_MOTION in the environment.
    #[arg(long, env = "BARTIZAN_REDUCED_MOTION", num_args = 0, default_value_t = false)]
    reduced_motion: bool,
}

impl Front {
    /// `None` is the screen.
    fn format(&self) -> Option<Format> {
        use std::io::IsTerminal;
        let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb")
            || std::env::var("ACCESSIBLE").is_ok_and(|v| v == "1");
        match (self.json, self.plain || self.headless || dumb || !std::io::stdout().is_terminal()) {
            (true, _) => Some(Format::Json),
            (false, true) => Some(Format::Plain),
            (false, false) => None,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write a commented cluster.toml: asks for what it needs, or takes --set KEY=VALUE.
    Init(init::InitArgs),
    /// Print every stage and step with the commands and API calls it would make; touches nothing.
    Plan {
        #[arg(default_value = "cluster.toml")]
        file: PathBuf,
        #[arg(long)]
        json: bool,
        /// Print instead the IAM policies that the account needs, one JSON document after the other.
        #[arg(long, conflicts_with = "json")]
        permissions: bool,
    },
    /// Install: run the stages, or go on with a run.
    Run(session::RunArgs),
    /// List what can be done about a run's failure, or apply it and go on.
    Recover(recover::RecoverArgs),
    /// Take down what a run made, in order, with proof.
    Cleanup {
        /// The run: its name, the end of its name, or `last`.
        #[arg(default_value = "last")]
        run: String,
        /// The cluster's name, typed: this destroys it.
        #[arg(long, value_name = "NAME")]
        confirm: String,
        #[command(flatten)]
        front: Front,
        /// Use the cloud kept in this file (a lab's).
        #[cfg(feature = "lab")]
        #[arg(long, value_name = "FILE")]
        cloud: Option<PathBuf>,
    },
    /// Bring a cluster that a run installed to another release: mirror first, then by digest, watched as an installation.
    Upgrade(upgrade::UpgradeArgs),
    /// The whole pipeline in an embedded lab: no account, no cluster, nothing outside a directory.
    #[cfg(feature = "lab")]
    Demo(demo::DemoArgs),
    /// Only the embedded lab, until it is interrupted: another bartizan can install into it.
    #[cfg(feature = "lab")]
    Lab(demo::LabArgs),
    /// Mirror a release from this machine: registry to registry, nothing on disk, resumable, proven.
    Mirror(mirror::MirrorArgs),
    /// Ask a mirror for every digest and required signature of a release; whoever filled it.
    VerifyMirror(verify::VerifyArgs),
    /// Render the MachineConfigs of a site whose nodes serve names and images themselves, from [edge] in the spec.
    Edge(edge::EdgeArgs),
    /// Follow a run that another bartizan drives, or an installation that something else started; changes nothing.
    Watch(watch::WatchArgs),
    /// Show a recorded run in the same screen, with a slider.
    Replay {
        #[arg(default_value = "last")]
        run: String,
        #[command(flatten)]
        front: Front,
    },
    /// Look for known failures in logs, directories, a log bundle, a must-gather, a run, or standard input.
    Diagnose {
        /// Files and directories; `-` is standard input.
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// One object for a finding on a line of its own, the most likely cause first.
        #[arg(long)]
        json: bool,
        /// Only what is about this part of the installation: aws, ssh, registry, mirror, config …
        #[arg(long, value_name = "PHASE")]
        phase: Option<String>,
    },
    /// Signatures of failures.
    #[command(subcommand)]
    Signature(SignatureVerb),
    /// Where a run stands.
    Status {
        #[arg(default_value = "last")]
        run: String,
        #[arg(long)]
        json: bool,
        /// Compare the record with the cloud: what is gone, changed, or there without a record. Exit code 1 when they differ.
        #[arg(long)]
        cloud: bool,
        /// The cloud kept in this file (a lab's), for --cloud.
        #[cfg(feature = "lab")]
        #[arg(long, value_name = "FILE", requires = "cloud")]
        cloud_file: Option<PathBuf>,
    },
    /// List the runs.
    Runs,
    /// Make something to hand on of a run: a bundle (the default), a film, a page, a picture. All are redacted.
    Export(export::ExportArgs),
    /// What this machine, the spec and the account have and lack for an installation; makes nothing.
    Doctor(doctor::DoctorArgs),
    /// Your settings, keys, layouts and themes: every value with where it comes from, what is wrong; or a built-in file.
    Config {
        /// settings, keymap, layouts, or the name of a theme.
        file: Option<String>,
    },
    /// Completions for a shell.
    Completions { shell: clap_complete::Shell },
    /// Manual pages.
    Man {
        /// Where to write all of them; without it the first one goes to standard output.
        dir: Option<PathBuf>,
    },
    /// The copier; bartizan starts it on the bastion.
    #[command(hide = true)]
    Agent { request: PathBuf },
    /// Takes a registry's notifications; bartizan starts it on the bastion.
    #[command(hide = true)]
    Listen {
        #[arg(long, value_name = "IP:PORT")]
        address: std::net::SocketAddr,
        #[arg(long, value_name = "FILE")]
        token_file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum SignatureVerb {
    /// Print a signature made out of a log line, for a file of signatures/ in the configuration directory.
    New {
        /// The line; `-` takes it from standard input.
        line: String,
        #[arg(long, default_value = "MY-FAILURE")]
        id: String,
    },
    /// Hold signatures against their own examples: yours of the configuration directory, or those of these files.
    Check {
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

/// Runs the program.
pub fn main() -> ExitCode {
    let args = Args::parse();
    // Whoever was first has set the same provider.
    let _already_set = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure::other(format!("starting: {error}"))),
    };
    let code = match runtime.block_on(dispatch(args)) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => fail(&failure),
    };
    // Reads of the terminal may still block a thread.
    runtime.shutdown_background();
    code
}

fn fail(failure: &Failure) -> ExitCode {
    eprintln!("bartizan: {}", crate::spec::secret::redact(&failure.text));
    ExitCode::from(failure.exit)
}

async fn dispatch(args: Args) -> Result<u8, Failure> {
    let state = args.state.as_deref();
    let Some(verb) = args.verb else { return first::first(state) };
    match verb {
        Verb::Init(args) => init::init(&args),
        Verb::Plan { file, permissions: true, .. } => look::permissions(&file),
        Verb::Plan { file, json, .. } => look::plan(&file, json),
        Verb::Run(run) => session::run(state, run).await,
        Verb::Recover(args) => recover::recover(state, args).await,
        #[cfg(feature = "lab")]
        Verb::Cleanup { run, confirm, front, cloud } => session::cleanup(state, &run, &confirm, front, cloud).await,
        #[cfg(not(feature = "lab"))]
        Verb::Cleanup { run, confirm, front } => session::cleanup(state, &run, &confirm, front, None).await,
        #[cfg(feature = "lab")]
        Verb::Demo(demo) => demo::demo(state, demo).await,
        #[cfg(feature = "lab")]
        Verb::Lab(lab) => demo::lab(lab).await,
        Verb::Mirror(args) => mirror::mirror(state, args).await,
        Verb::Watch(args) => watch::watch(state, args).await,
        Verb::Replay { run, front } => look::replay(state, &run, &front).await,
        Verb::Diagnose { paths, json, phase } => diagnose::diagnose(&paths, json, phase.as_deref()),
        Verb::Signature(SignatureVerb::New { line, id }) => diagnose::new_signature(&line, &id),
        Verb::Signature(SignatureVerb::Check { files }) => diagnose::check_signatures(files),
        #[cfg(feature = "lab")]
        Verb::Status { run, json, cloud: true, cloud_file } => {
            status::with_cloud(state, &run, json, cloud_file.as_deref()).await
        }
        #[cfg(not(feature = "lab"))]
        Verb::Status { run, json, cloud: true } => status::with_cloud(state, &run, json, None).await,
        Verb::Status { run, json, .. } => look::status(state, &run, json),
        Verb::Runs => look::runs(state),
        Verb::Export(args) => export::export(state, args).await,
        Verb::Doctor(args) => doctor::doctor(state, args).await,
        Verb::Config { file } => config::show(state, file.as_deref()),
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "bartizan", &mut std::io::stdout());
            Ok(exit::DONE)
        }
        Verb::Man { dir } => man::man(Args::command(), dir.as_deref()),
        Verb::Agent { request } => look::agent(&request).await,
        Verb::Listen { address, token_file } => verify::listen(address, &token_file).await,
        Verb::VerifyMirror(args) => verify::verify_mirror(args).await,
        Verb::Upgrade(args) => upgrade::run(state, args).await,
        Verb::Edge(args) => edge::run(&args),
    }
}
