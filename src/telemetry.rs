//! Where the program's own log goes: a file in the run directory and the activity pane. Never stdout.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::spec::secret::redact;

/// Writes whole lines, cleaned of secrets.
struct CleanFile(std::fs::File);

impl io::Write for CleanFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(redact(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Starts logging for this process. `BARTIZAN_LOG` filters as `RUST_LOG` does (default `info`, libraries `warn`).
///
/// # Errors
/// When the log file cannot be made.
pub fn start(run_dir: &Path) -> io::Result<()> {
    let path = run_dir.join("bartizan.log");
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let filter =
        EnvFilter::try_from_env("BARTIZAN_LOG").unwrap_or_else(|_| EnvFilter::new("warn,russh=error,bartizan=info"));
    let to_file = fmt::layer().with_ansi(false).with_writer(Mutex::new(CleanFile(file)));
    // No `init_logger`: it would take the libraries' records away from the file. The layer feeds the pane by itself.
    let to_pane = tui_logger::TuiTracingSubscriberLayer.with_filter(EnvFilter::new("off,bartizan=info"));
    // A second run in one process (tests) keeps the first subscriber.
    let _already_set = tracing_subscriber::registry().with(filter).with(to_file).with(to_pane).try_init();
    Ok(())
}
