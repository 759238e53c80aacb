//! The terminal while the cockpit has it, and its return to what it was: after an error, a panic or a signal.

use std::io::{self, BufWriter, Stdout, Write};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::event::{
    DisableBracketedPaste, DisableFocusChange, DisableMouseCapture, EnableBracketedPaste, EnableFocusChange,
    EnableMouseCapture,
};
use crossterm::terminal::{
    BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
    enable_raw_mode,
};
use crossterm::{cursor, execute, queue};
use ratatui::Terminal;
use ratatui::backend::{Backend, CrosstermBackend};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::attention::Progress;
use super::notify;

/// The terminal is ours now.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// The taskbar shows our progress.
static PROGRESS: AtomicBool = AtomicBool::new(false);

/// One write per frame.
type Out = BufWriter<Stdout>;

/// Raw mode and the alternate screen, for as long as this lives.
pub struct Guard {
    terminal: Terminal<CrosstermBackend<Out>>,
}

impl Guard {
    /// Take the terminal.
    pub fn enter() -> io::Result<Self> {
        hook_panics();
        let terminal = Terminal::new(CrosstermBackend::new(BufWriter::with_capacity(1 << 16, io::stdout())))?;
        // On an error below, the drop of the guard undoes what was done.
        let mut guard = Self { terminal };
        guard.take()?;
        Ok(guard)
    }

    fn take(&mut self) -> io::Result<()> {
        TAKEN.store(true, Ordering::SeqCst);
        enable_raw_mode()?;
        let out = self.terminal.backend_mut();
        // The old window title is pushed (XTWINOPS 22) and comes back on leaving.
        out.write_all(b"\x1b[22;0t")?;
        execute!(out, EnterAlternateScreen, EnableBracketedPaste, EnableFocusChange, cursor::Hide)
    }

    /// Draw a frame in one write, and give the finished cells to `look`.
    pub fn draw(&mut self, render: impl FnOnce(&mut ratatui::Frame), look: impl FnOnce(&Buffer)) -> io::Result<()> {
        queue!(self.terminal.backend_mut(), BeginSynchronizedUpdate)?;
        look(self.terminal.draw(render)?.buffer);
        execute!(self.terminal.backend_mut(), EndSynchronizedUpdate)
    }

    /// Take the mouse, or leave it to the terminal, which selects text with it.
    pub fn mouse(&mut self, ours: bool) -> io::Result<()> {
        let out = self.terminal.backend_mut();
        if ours { execute!(out, EnableMouseCapture) } else { execute!(out, DisableMouseCapture) }
    }

    /// Send a sequence that is no cell.
    pub fn send(&mut self, sequence: &str) -> io::Result<()> {
        let out = self.terminal.backend_mut();
        out.write_all(sequence.as_bytes())?;
        Write::flush(out)
    }

    /// Everything is drawn anew by the next frame.
    pub fn clear(&mut self) -> io::Result<()> {
        // Not `Terminal::clear`: that one asks the terminal where the cursor is, and the answer goes to the key stream.
        let (width, height) = self.size()?;
        self.terminal.resize(Rect::new(0, 0, width, height))
    }

    pub fn size(&self) -> io::Result<(u16, u16)> {
        let size = self.terminal.backend().size()?;
        Ok((size.width, size.height))
    }

    /// Back to the shell until somebody says `fg`.
    pub fn suspend(&mut self) -> io::Result<()> {
        restore();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP)?;
        self.back()
    }

    /// Take the terminal again after somebody else had it, and draw all of it anew.
    pub fn back(&mut self) -> io::Result<()> {
        if !TAKEN.load(Ordering::SeqCst) {
            self.take()?;
        } else {
            // Stopped from outside: the shell may have changed the mode without our giving it back.
            disable_raw_mode()?;
            enable_raw_mode()?;
            execute!(self.terminal.backend_mut(), EnterAlternateScreen, cursor::Hide)?;
        }
        self.clear()
    }

    /// Show in the taskbar how far the run is.
    pub fn taskbar(&mut self, progress: Progress) {
        PROGRESS.store(progress != Progress::Nothing, Ordering::SeqCst);
        // A terminal that is gone shows itself at the next read.
        let _gone = self.send(&notify::taskbar(progress));
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        restore();
    }
}

/// Give the terminal back. Does nothing when it is not taken.
pub fn restore() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let mut out = io::stdout();
        if PROGRESS.swap(false, Ordering::SeqCst) {
            let _gone = out.write_all(notify::taskbar(Progress::Nothing).as_bytes());
        }
        // Nothing can be done about a terminal that is gone.
        let _gone = execute!(out, DisableMouseCapture, DisableFocusChange, DisableBracketedPaste);
        let _gone = execute!(out, LeaveAlternateScreen, cursor::Show);
        let _gone = out.write_all(b"\x1b[23;0t").and_then(|()| out.flush());
        let _gone = disable_raw_mode();
    }
}

/// A panic's message must be readable, on the screen from which the program was started.
fn hook_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            before(info);
        }));
    });
}
