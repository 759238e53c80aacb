//! The program itself in a pseudo-terminal.
#![allow(dead_code, reason = "no bench needs all of it")]

use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

pub type Failed = Box<dyn std::error::Error>;

/// The program in a terminal of 160×45 or another size.
pub struct Program {
    child: Box<dyn Child + Send + Sync>,
    seen: Arc<Mutex<Vec<u8>>>,
    begun: Instant,
    _master: Box<dyn MasterPty + Send>,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

impl Program {
    pub fn start(state: &Path, args: &[&str]) -> Result<Self, Failed> {
        Self::start_in((160, 45), state, args)
    }

    /// In a terminal of so many columns and rows.
    pub fn start_in((cols, rows): (u16, u16), state: &Path, args: &[&str]) -> Result<Self, Failed> {
        let pair = native_pty_system().openpty(PtySize { rows, cols, pixel_width: 0, pixel_height: 0 })?;
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_bartizan"));
        command.arg("--state");
        command.arg(state);
        command.args(args);
        command.env("TERM", "xterm-256color");
        command.env("LC_ALL", "C.UTF-8");
        command.env_remove("SSH_TTY");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (kept, mut reader) = (seen.clone(), pair.master.try_clone_reader()?);
        let begun = Instant::now();
        let child = pair.slave.spawn_command(command)?;
        std::thread::spawn(move || {
            let mut bytes = [0; 65536];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                if let Ok(mut kept) = kept.lock() {
                    kept.extend_from_slice(bytes.get(..count).unwrap_or_default());
                }
            }
        });
        Ok(Self { child, seen, begun, _master: pair.master })
    }

    pub fn bytes(&self) -> usize {
        self.seen.lock().map_or(0, |seen| seen.len())
    }

    /// What it wrote after the first `count` bytes.
    pub fn after(&self, count: usize) -> Vec<u8> {
        self.seen.lock().map_or_else(|_| Vec::new(), |seen| seen.get(count..).unwrap_or_default().to_vec())
    }

    /// Until `text` is on the screen.
    pub fn until(&self, text: &str) -> Result<Duration, Failed> {
        loop {
            let found = self.seen.lock().is_ok_and(|seen| String::from_utf8_lossy(&seen).contains(text));
            let passed = self.begun.elapsed();
            if found {
                return Ok(passed);
            }
            if passed > Duration::from_secs(30) {
                return Err(format!("{text:?} is not on the screen").into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Seconds of a core that it has used, and the memory that it has, in MiB.
    pub fn used(&self) -> Result<(f64, f64), Failed> {
        let pid = self.child.process_id().ok_or("no process")?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let field = |number: usize| fields.get(number).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        // Linux counts them in hundredths of a second; pages have 4 KiB on the machines that this runs on.
        Ok(((field(11) + field(12)) / 100.0, field(21) * 4096.0 / f64::from(1 << 20)))
    }
}
