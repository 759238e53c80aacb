//! Signals that the screen answers to.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Exit;

/// One stream for each.
pub struct Signals {
    pub term: Signal,
    pub hup: Signal,
    pub int: Signal,
    pub stop: Signal,
    /// Somebody else stopped us, and now it goes on: the terminal may have been used meanwhile.
    pub cont: Signal,
}

impl Signals {
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            hup: signal(SignalKind::hangup())?,
            int: signal(SignalKind::interrupt())?,
            stop: signal(SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw()))?,
            cont: signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))?,
        })
    }
}

impl Signals {
    /// The next signal that ends the screen, but not the one that Ctrl-C sends to whoever has the terminal.
    pub async fn leave(&mut self) -> Exit {
        let kind = tokio::select! {
            _ = self.term.recv() => SignalKind::terminate(),
            _ = self.hup.recv() => SignalKind::hangup(),
        };
        Exit::Signal(kind.as_raw_value())
    }
}
