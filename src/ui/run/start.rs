//! Before the loop: the screen as the options, the operator's own files and the last time have it.

use super::*;

/// How long the terminal may think about the colour of its background, here and over SSH.
const ANSWER: Duration = Duration::from_millis(100);
const ANSWER_SSH: Duration = Duration::from_millis(500);

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
        shot: false,
    };
    runner.run(events, answers, if options.terminal.ssh { FRAME_SSH } else { FRAME }).await
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
