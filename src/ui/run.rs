//! The thin part that touches the world: terminal, signals, clock, channels. Everything it decides, it asks [`update`].

mod hands;
mod start;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crossterm::event::{Event, EventStream, KeyEventKind, MouseButton, MouseEvent, MouseEventKind};
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::engine::command::Command;
use crate::model::event::{Data, Level};
use crate::model::run::RunModel;
use crate::record::Recorded;
use crate::spec::secret::redact;

use super::background::{self, Background};
use super::doors::{Door, Doors};
use super::draw::draw;
use super::history::History;
use super::keymap::Keymap;
use super::layout::Layouts;
use super::logs::library::Known;
use super::logs::{Ask, Library};
use super::memory::Memory;
use super::notify::Way;
use super::screen::{Access, Effect, Input, Lock, Pointer, Screen};
use super::terminal::{self, Guard};
use super::theme::{Theme, Themes};
use super::update::update;
use super::{Exit, Logs, UiError, UiOptions, logs, notify, screenshot, text};

pub use start::run;

/// Shortest time between two frames, here and over SSH.
const FRAME: Duration = Duration::from_millis(33);
const FRAME_SSH: Duration = Duration::from_millis(100);
/// How often a replay moves on.
const PLAY: Duration = Duration::from_millis(100);
/// Events folded before the next look at the keyboard.
const BATCH: usize = 2000;

/// What is asked of the logs, and which logs there are.
type Wanted = (Ask, Known);

/// A test asks for a panic, to see what becomes of the terminal. No release has this.
fn panic_when_asked() {
    #[cfg(debug_assertions)]
    if std::env::var_os("BARTIZAN_PANIC").is_some() {
        panic!("BARTIZAN_PANIC asked for this");
    }
}

struct Runner {
    guard: Guard,
    screen: Screen,
    theme: Theme,
    themes: Themes,
    /// The theme that the operator switched to, now or the last time.
    switched: Option<String>,
    memory: Option<PathBuf>,
    history: History,
    commands: mpsc::Sender<Command>,
    wanted: mpsc::Sender<Wanted>,
    tmux: bool,
    taskbar: bool,
    way: Way,
    doors: Option<Box<dyn Doors>>,
    /// The program that the terminal is to be left to.
    visiting: Option<Vec<OsString>>,
    screenshots: PathBuf,
    dirty: bool,
    shot: bool,
}

/// What a mouse event means here.
fn pointer(event: MouseEvent) -> Option<Pointer> {
    let (x, y) = (event.column, event.row);
    match event.kind {
        MouseEventKind::Down(MouseButton::Left) => Some(Pointer::Click { x, y }),
        MouseEventKind::ScrollDown => Some(Pointer::Wheel { x, y, down: true }),
        MouseEventKind::ScrollUp => Some(Pointer::Wheel { x, y, down: false }),
        _ => None,
    }
}

struct Signals {
    term: Signal,
    hup: Signal,
    int: Signal,
    stop: Signal,
    /// Somebody else stopped us, and now it goes on: the terminal may have been used meanwhile.
    cont: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
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
    async fn leave(&mut self) -> Exit {
        let kind = tokio::select! {
            _ = self.term.recv() => SignalKind::terminate(),
            _ = self.hup.recv() => SignalKind::hangup(),
        };
        Exit::Signal(kind.as_raw_value())
    }
}

impl Runner {
    async fn run(
        mut self,
        mut events: mpsc::Receiver<Recorded>,
        mut answers: mpsc::Receiver<Input>,
        frame: Duration,
    ) -> Result<Exit, UiError> {
        let mut signals = Signals::new()?;
        let mut keys = EventStream::new();
        let mut alive = true;
        let (width, height) = self.guard.size()?;
        self.tell(Input::Resize(width, height));
        self.moved();
        self.dirty = true;
        let mut drawn = Instant::now().checked_sub(frame).unwrap_or_else(Instant::now);
        let mut ticked = Instant::now();
        let mut played = Instant::now();
        loop {
            let mut deadline = ticked + Duration::from_secs(1);
            if self.dirty {
                deadline = deadline.min(drawn + frame);
            }
            if self.history.playing() {
                deadline = deadline.min(played + PLAY);
            }
            let leave = tokio::select! {
                biased;
                _ = signals.term.recv() => Some(Exit::Signal(SignalKind::terminate().as_raw_value())),
                _ = signals.hup.recv() => Some(Exit::Signal(SignalKind::hangup().as_raw_value())),
                _ = signals.int.recv() => Some(Exit::Signal(SignalKind::interrupt().as_raw_value())),
                _ = signals.stop.recv() => { self.suspend()?; None }
                _ = signals.cont.recv() => { self.back()?; None }
                input = keys.next() => match input {
                    Some(Ok(event)) => self.input(event)?,
                    // The terminal is gone.
                    Some(Err(_)) | None => Some(Exit::Signal(SignalKind::hangup().as_raw_value())),
                },
                () = tokio::time::sleep_until(deadline.into()) => None,
                Some(answer) = answers.recv() => {
                    self.dirty = true;
                    self.tell(answer)
                }
                event = events.recv(), if alive => match event {
                    Some(event) => self.recorded(event, &mut events),
                    None => { alive = false; None }
                },
            };
            if let Some(exit) = leave {
                return Ok(self.leave(exit));
            }
            if let Some(command) = self.visiting.take() {
                // Nobody else may read the keyboard meanwhile.
                drop(keys);
                let leave = self.visit(&command, &mut signals).await?;
                keys = EventStream::new();
                if let Some(exit) = leave {
                    return Ok(self.leave(exit));
                }
            }
            let now = Instant::now();
            if self.history.playing() && now >= played + PLAY {
                let passed = now.duration_since(played).min(Duration::from_secs(1));
                if self.history.play(passed) {
                    self.moved();
                }
            }
            if !self.history.playing() || now >= played + PLAY {
                played = now;
            }
            if now >= ticked + Duration::from_secs(1) {
                ticked = now;
                panic_when_asked();
                tui_logger::move_events();
                let at = Timestamp::now();
                self.tell(Input::Tick(at));
                self.dirty = true;
            }
            if self.dirty && now >= drawn + frame {
                self.draw()?;
                drawn = Instant::now();
            }
        }
    }

    /// Fold in what has come, without keeping the keyboard waiting.
    fn recorded(&mut self, first: Recorded, events: &mut mpsc::Receiver<Recorded>) -> Option<Exit> {
        let mut next = Some(first);
        let mut count = 0;
        while let Some(event) = next {
            self.history.push(event.clone());
            if matches!(
                event.data,
                Data::StepEnded { .. }
                    | Data::FindingOpened { .. }
                    | Data::RunClosed { .. }
                    | Data::Note { level: Level::Warn, .. }
            ) {
                self.tell(Input::Recorded(event));
            }
            count += 1;
            next = if count < BATCH { events.try_recv().ok() } else { None };
        }
        self.moved();
        None
    }

    fn moved(&mut self) {
        self.dirty = true;
        self.tell(Input::Moved(self.history.place()));
    }

    fn input(&mut self, event: Event) -> Result<Option<Exit>, UiError> {
        self.dirty = true;
        let input = match event {
            Event::Key(key) if key.kind == KeyEventKind::Press => Input::Key(key.into(), Timestamp::now()),
            Event::Paste(text) => Input::Paste(text),
            Event::Resize(width, height) => {
                self.guard.clear()?;
                Input::Resize(width, height)
            }
            Event::FocusGained => Input::Focus(true),
            Event::FocusLost => Input::Focus(false),
            Event::Mouse(event) => match pointer(event) {
                Some(pointer) => Input::Mouse(pointer),
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        let mut queue = vec![input];
        while let Some(input) = queue.pop() {
            for effect in update(&mut self.screen, self.history.model(), input) {
                match effect {
                    Effect::Exit => return Ok(Some(self.exit())),
                    Effect::Suspend => self.suspend()?,
                    Effect::Redraw => self.guard.clear()?,
                    Effect::Visit(door) => queue.extend(self.open(&door)),
                    effect => queue.extend(self.effect(effect)),
                }
            }
        }
        Ok(None)
    }

    /// News that can ask for nothing but ordinary effects.
    fn tell(&mut self, input: Input) -> Option<Exit> {
        let mut queue = vec![input];
        while let Some(input) = queue.pop() {
            for effect in update(&mut self.screen, self.history.model(), input) {
                queue.extend(self.effect(effect));
            }
        }
        None
    }

    fn now(&self) -> Timestamp {
        let model = self.history.model();
        match (self.history.clock(), model.now, &model.closed) {
            (Some(clock), ..) => clock,
            // Nothing of a record gets older.
            (None, Some(end), _) if self.screen.access == Access::Replay => end,
            (None, Some(end), Some(_)) => end,
            // A clock that runs faster than ours is the run's own.
            (None, Some(newest), None) => newest.max(Timestamp::now()),
            _ => Timestamp::now(),
        }
    }

    fn draw(&mut self) -> Result<(), UiError> {
        self.dirty = false;
        let now = self.now();
        let (model, screen, theme) = (self.history.model(), &self.screen, &self.theme);
        let mut shot = None;
        let wanted = std::mem::take(&mut self.shot);
        self.guard.draw(
            |frame| draw(model, screen, theme, frame, now),
            |cells| shot = wanted.then(|| screenshot::Shot::of(cells, model, theme)),
        )?;
        if let Some(shot) = shot {
            let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%S");
            let path = self.screenshots.join(format!("bartizan-{stamp}.txt"));
            let (level, text) = match shot.write(&path) {
                Ok(()) => (Level::Info, format!("written to {} (and .svg, .ans)", path.display())),
                Err(error) => (Level::Error, format!("{}: {error}", path.display())),
            };
            self.tell(Input::Told(level, text));
            self.dirty = true;
        }
        Ok(())
    }

    fn exit(&self) -> Exit {
        if self.screen.access == Access::Full && self.history.newest().closed.is_none() {
            Exit::Detached
        } else {
            Exit::Closed
        }
    }

    /// Keep the screen as it is for the next time. What cannot be kept is no loss.
    fn remember(&self) {
        let memory = Memory::of(&self.screen, self.history.newest(), self.switched.clone());
        if let (Some(file), Ok(text)) = (&self.memory, memory.write()) {
            let new = file.with_extension("new");
            let _lost = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, file));
        }
    }

    fn leave(self, exit: Exit) -> Exit {
        self.remember();
        if exit != Exit::Closed && self.screen.access == Access::Full {
            // An engine that has ended already needs no telling.
            let _ended = self.commands.try_send(Command::Detach);
        }
        exit
    }
}
