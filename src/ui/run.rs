//! The thin part that touches the world: terminal, signals, clock, channels. Everything it decides, it asks [`update`].

mod outside;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossterm::event::{Event, EventStream, KeyEventKind, MouseButton, MouseEvent, MouseEventKind};
use futures::StreamExt;
use jiff::Timestamp;
use tokio::signal::unix::SignalKind;
use tokio::sync::mpsc;

use crate::engine::command::Command;
use crate::model::event::{Data, Level};
use crate::model::run::RunModel;
use crate::record::Recorded;

use super::background::{self, Background};
use super::doors::Doors;
use super::draw::draw;
use super::history::History;
use super::keymap::Keymap;
use super::layout::Layouts;
use super::logs::library::Known;
use super::logs::{Ask, Library};
use super::memory::Memory;
use super::notify::Way;
use super::screen::{Access, Effect, Input, Lock, Pointer, Screen};
use super::screenshot::Shot;
use super::signals::{JobControl, Signals};
use super::terminal::Guard;
use super::theme::{Theme, Themes};
use super::update::update;
use super::{Exit, Logs, UiError, UiOptions};

/// Shortest time between two frames, here and over SSH.
const FRAME: Duration = Duration::from_millis(33);
const FRAME_SSH: Duration = Duration::from_millis(100);
/// How long the terminal may think about the colour of its background, here and over SSH.
const ANSWER: Duration = Duration::from_millis(100);
const ANSWER_SSH: Duration = Duration::from_millis(500);
/// The same where nothing is to move by itself; what the operator does is shown at once.
const FRAME_CALM: Duration = Duration::from_secs(1);
/// How often a replay moves on.
const PLAY: Duration = Duration::from_millis(100);
/// Events folded before the next look at the keyboard.
const BATCH: usize = 2000;

/// What is asked of the logs, and which logs there are.
type Wanted = (Ask, Known);

/// Show a run until the operator leaves or a signal ends it.
///
/// `model` is the fold of all events that `events` will not bring; `commands` takes what the operator asks for.
pub async fn run(
    mut options: UiOptions,
    model: RunModel,
    events: mpsc::Receiver<Recorded>,
    commands: mpsc::Sender<Command>,
    logs: Box<dyn Logs>,
) -> Result<Exit, UiError> {
    let signals = match options.signals.take() {
        Some(signals) => signals,
        None => Signals::listen()?,
    };
    options.read_only |= options.sealed.contains(&model.cluster.name);
    let mut screen = screen(&mut options)?;
    let way = options.notify.clone().resolved(&options.terminal.kind);
    screen.notify = way != Way::Off;
    let memory = options.memory.as_deref().and_then(|file| remembered(file, &mut options.problems)).unwrap_or_default();
    // What the command line says counts more than what was.
    let switched =
        memory.theme.clone().filter(|name| options.theme.is_none() && options.themes.names().contains(&name.as_str()));
    options.theme = options.theme.take().or_else(|| switched.clone());
    let history = match options.replay.take() {
        Some(events) => {
            screen.access = Access::Replay;
            screen.timeline = true;
            History::replay(events)
        }
        None => History::new(std::mem::take(&mut options.past), model),
    };
    memory.restore(&mut screen, history.newest());
    let mut theme = options.themes.load(options.theme(), options.depth())?;
    let mut guard = Guard::enter()?;
    if options.asks() {
        let said = background::ask(if options.terminal.ssh { ANSWER_SSH } else { ANSWER })?;
        if said != Background::Unknown {
            options.terminal.background = said;
            theme = options.themes.load(options.theme(), options.depth())?;
        }
    }
    if screen.mouse {
        guard.mouse(true)?;
    }
    if let Some(problem) = options.problems.first() {
        let more = options.problems.len() - 1;
        let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
        screen.now = Timestamp::now();
        screen.warn(format!("{problem}{more}; `bartizan config` tells all"));
    }
    let (wanted, answers) = read_logs(logs);
    let runner = Runner {
        guard,
        screen,
        theme,
        themes: options.themes,
        switched,
        memory: options.memory,
        history,
        commands,
        wanted,
        tmux: options.terminal.tmux,
        taskbar: options.terminal.kind.has_taskbar() && !options.terminal.tmux,
        way,
        doors: options.doors,
        visiting: None,
        screenshots: options.screenshots,
        dirty: true,
        asked: true,
        shot: false,
    };
    runner.run(signals, events, answers, if options.terminal.ssh { FRAME_SSH } else { FRAME }).await
}

/// A test asks for a panic, to see what becomes of the terminal. No release has this.
fn panic_when_asked() {
    #[cfg(debug_assertions)]
    if std::env::var_os("BARTIZAN_PANIC").is_some() {
        panic!("BARTIZAN_PANIC asked for this");
    }
}

/// The screen as the options have it. A file of the operator's own that is wrong is left out, and said.
fn screen(options: &mut UiOptions) -> Result<Screen, UiError> {
    let own = options.keymap.as_ref().map(|(file, text)| (file.as_str(), text.as_str()));
    let keymap = Keymap::load(own).or_else(|error| {
        options.problems.push(error.to_string());
        Keymap::load(None)
    })?;
    let mut layouts = Layouts::embedded()?;
    if let Some((file, text)) = &options.layouts {
        match layouts.clone().with(file, text) {
            Ok(own) => layouts = own,
            Err(error) => options.problems.push(error.to_string()),
        }
    }
    let mut screen = Screen::new(keymap, layouts, options.glyphs());
    screen.access = options.access;
    screen.calm = options.reduced_motion;
    screen.agreed = options.agreed;
    screen.lock = if options.read_only { Lock::Sealed } else { Lock::Open };
    screen.saves.clone_from(&options.screenshots);
    screen.texts = std::mem::take(&mut options.texts);
    Ok(screen)
}

/// The screen as it was left; a file of another version is no harm.
fn remembered(file: &Path, problems: &mut Vec<String>) -> Option<Memory> {
    let text = std::fs::read_to_string(file).ok()?;
    Memory::parse(&text).map_err(|error| problems.push(format!("{}: {error}", file.display()))).ok()
}

fn read_logs(logs: Box<dyn Logs>) -> (mpsc::Sender<Wanted>, mpsc::Receiver<Input>) {
    let (wanted, mut requests) = mpsc::channel::<Wanted>(8);
    let (answers, told) = mpsc::channel(8);
    // Ends when the runner drops its side.
    tokio::task::spawn_blocking(move || {
        let mut library = Library::new(logs);
        while let Some((ask, known)) = requests.blocking_recv() {
            if answers.blocking_send(library.answer(ask, &known)).is_err() {
                break;
            }
        }
    });
    (wanted, told)
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
    /// The operator has done something that is not on the screen yet.
    asked: bool,
    shot: bool,
}

/// What a mouse event means here.
fn pointer(event: MouseEvent) -> Option<Pointer> {
    let (x, y) = (event.column, event.row);
    match event.kind {
        MouseEventKind::Down(MouseButton::Left) => Some(Pointer::Click { x, y }),
        MouseEventKind::Drag(MouseButton::Left) => Some(Pointer::Drag { x, y }),
        MouseEventKind::Up(MouseButton::Left) => Some(Pointer::Release),
        MouseEventKind::ScrollDown => Some(Pointer::Wheel { x, y, down: true }),
        MouseEventKind::ScrollUp => Some(Pointer::Wheel { x, y, down: false }),
        _ => None,
    }
}

impl Runner {
    async fn run(
        mut self,
        mut signals: Signals,
        mut events: mpsc::Receiver<Recorded>,
        mut answers: mpsc::Receiver<Input>,
        frame: Duration,
    ) -> Result<Exit, UiError> {
        let mut jobs = JobControl::listen()?;
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
            let apart = if self.screen.calm && !self.asked { frame.max(FRAME_CALM) } else { frame };
            if self.dirty {
                deadline = deadline.min(drawn + apart);
            }
            if self.history.playing() {
                deadline = deadline.min(played + PLAY);
            }
            let leave = tokio::select! {
                biased;
                _ = signals.term.recv() => Some(Exit::Signal(SignalKind::terminate().as_raw_value())),
                _ = signals.hup.recv() => Some(Exit::Signal(SignalKind::hangup().as_raw_value())),
                _ = signals.int.recv() => Some(Exit::Signal(SignalKind::interrupt().as_raw_value())),
                _ = jobs.stop.recv() => { self.suspend()?; None }
                _ = jobs.cont.recv() => { self.back()?; None }
                input = keys.next() => match input {
                    Some(Ok(event)) => self.input(event)?,
                    // The terminal is gone.
                    Some(Err(_)) | None => Some(Exit::Signal(SignalKind::hangup().as_raw_value())),
                },
                () = tokio::time::sleep_until(deadline.into()) => None,
                Some(answer) = answers.recv() => {
                    (self.dirty, self.asked) = (true, true);
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
            let apart = if self.asked { frame } else { apart };
            if self.dirty && now >= drawn + apart {
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
        (self.dirty, self.asked) = (true, true);
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
        (self.dirty, self.asked) = (false, false);
        let now = self.now();
        let (model, screen, theme) = (self.history.model(), &self.screen, &self.theme);
        let mut shot = None;
        let wanted = std::mem::take(&mut self.shot);
        self.guard.draw(
            |frame| draw(model, screen, theme, frame, now),
            |cells| shot = wanted.then(|| Shot::of(cells, model, theme)),
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
