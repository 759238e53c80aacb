//! Signals that whoever drives a run answers to. They are listened to before the run is taken hold of: whoever asks it to
//! leave in its first moment must find somebody who leaves, not a process that dies.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Exit;

/// One stream for each; what comes before anybody looks waits there.
#[derive(Debug)]
pub struct Signals {
    pub term: Signal,
    pub hup: Signal,
    pub int: Signal,
}

/// Those that a screen answers to besides.
pub struct JobControl {
    pub stop: Signal,
    /// Somebody else stopped us, and now it goes on: the terminal may have been used meanwhile.
    pub cont: Signal,
}

impl JobControl {
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            stop: signal(SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw()))?,
            cont: signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))?,
        })
    }
}

impl Signals {
    /// # Errors
    /// When the system lets none be listened to.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            hup: signal(SignalKind::hangup())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    /// The next one of them.
    pub async fn any(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.hup.recv() => {}
            _ = self.int.recv() => {}
        }
    }

    /// The next signal that ends the screen, but not the one that Ctrl-C sends to whoever has the terminal.
    pub async fn leave(&mut self) -> Exit {
        let kind = tokio::select! {
            _ = self.term.recv() => SignalKind::terminate(),
            _ = self.hup.recv() => SignalKind::hangup(),
        };
        Exit::Signal(kind.as_raw_value())
    }
}
