//! Keys and news to a new view and effects. Pure: what must happen outside is returned, not done.

mod dialog;
mod pointer;

use crossterm::event::{KeyCode, KeyModifiers};
use jiff::SignedDuration;

use crate::model::event::Level;
use crate::model::run::RunModel;

use super::attention;
use super::command::Verb;
use super::doors::Door;
use super::history::Seek;
use super::keymap::{Key, Meaning};
use super::layout::{PaneId, Shape};
use super::logs::{ALL, Ask, LogView, Mode};
use super::overlays::detail;
use super::panes;
use super::screen::{Access, Confirm, Effect, Input, Lock, Overlay, PromptKind, Screen, Target, Then};
use super::text;
use super::verbs;

/// Two Ctrl-C within this time leave.
const TWICE: SignedDuration = SignedDuration::from_secs(3);

/// Columns that a pane grows by at a time; rows are more precious, and come one at a time.
const COLUMNS: i32 = 2;

/// Change the view; return what is to be done outside.
pub fn update(screen: &mut Screen, model: &RunModel, input: Input) -> Vec<Effect> {
    let mut effects = match input {
        Input::Key(key, at) => {
            screen.now = at;
            on_key(screen, model, key)
        }
        Input::Paste(text) => {
            for c in text::printable(&text).chars().take(200) {
                dialog::type_char(screen, model, c);
            }
            Vec::new()
        }
        Input::Resize(width, height) => {
            screen.size = (width, height);
            Vec::new()
        }
        Input::Focus(focused) => {
            screen.terminal_focused = focused;
            Vec::new()
        }
        Input::Tick(at) => {
            screen.now = at;
            screen.log.ask_again();
            if screen.place.back {
                screen.trend.forget();
            } else {
                let (source, total) = (screen.log.source(), screen.log.total());
                screen.trend.sample(at, model.sync.moved(), source, total);
            }
            if screen.toast.as_ref().is_some_and(|toast| toast.until <= at) {
                screen.toast = None;
            }
            attention::turn(screen, at)
        }
        Input::Lines { source, first, lines } => {
            screen.log.add(&source, first, lines);
            look_further(screen, model);
            Vec::new()
        }
        Input::Found { source, number, merged } => {
            let height = screen.rows_in(model, PaneId::Journal);
            screen.focus = Some(PaneId::Journal);
            match screen.log.source() {
                ALL => screen.log.show(ALL, merged, height),
                _ => screen.log.show(&source, number, height),
            }
            Vec::new()
        }
        Input::Mouse(pointer) => pointer::act(screen, model, pointer),
        Input::Recorded(event) => attention::notice(screen, model, &event.data, event.at),
        Input::Moved(place) => {
            screen.place = place;
            Vec::new()
        }
        Input::Told(level, text) => {
            screen.tell(level, text);
            Vec::new()
        }
    };
    effects.extend(screen.log.want(model).into_iter().map(Effect::Log));
    let title = attention::window_title(model);
    if title != screen.title {
        screen.title.clone_from(&title);
        effects.push(Effect::Title(title));
    }
    let progress = attention::progress(model);
    if screen.progress != Some(progress) && screen.access != Access::Replay && !effects.contains(&Effect::Exit) {
        screen.progress = Some(progress);
        effects.push(Effect::Progress(progress));
    }
    effects
}

fn on_key(screen: &mut Screen, model: &RunModel, key: Key) -> Vec<Effect> {
    let ctrl_c = Key { code: KeyCode::Char('c'), modifiers: KeyModifiers::CONTROL };
    if screen.overlay.is_some() && key != ctrl_c {
        return dialog::key(screen, model, key);
    }
    screen.pending.push(key);
    match screen.keymap.meaning(&screen.contexts(model), &screen.pending) {
        Meaning::Verb(verb) => {
            screen.pending.clear();
            act(screen, model, verb)
        }
        Meaning::Prefix => Vec::new(),
        Meaning::Nothing => {
            let begun = screen.pending.len() > 1;
            screen.pending.clear();
            if begun && key.code != KeyCode::Esc {
                screen.tell(Level::Info, "no command has these keys; ? shows those that work here");
            }
            Vec::new()
        }
    }
}

/// Do a verb, or say why not.
pub fn act(screen: &mut Screen, model: &RunModel, verb: Verb) -> Vec<Effect> {
    if let Err(why) = verbs::enabled(verb, screen, model) {
        screen.tell(Level::Warn, format!("{}: {why}", verb.command().title));
        return Vec::new();
    }
    let pane = screen.pane(model);
    let height = screen.rows_in(model, pane);
    let seek = |seek| vec![Effect::Seek(seek)];
    match verb {
        Verb::Help => {
            screen.overlay = Some(Overlay::Help { scroll: 0, text: String::new(), typing: false });
        }
        Verb::Palette => screen.overlay = Some(Overlay::Palette { text: String::new(), selected: 0 }),
        Verb::Open if show_evidence(screen, model) => {}
        Verb::Open => {
            screen.overlay =
                screen.target(model, pane).map(|target| Overlay::Detail { target, scroll: 0, field: None });
        }
        Verb::Back => {
            if screen.timeline {
                screen.timeline = false;
            } else if pane == PaneId::Journal && screen.log.clear(height) {
            } else if screen.zoom {
                screen.zoom = false;
            } else if screen.cursors.remove(&pane).is_none() {
                screen.focus = None;
            }
        }
        Verb::Quit => return quit(screen, model),
        Verb::Interrupt => {
            let again = screen.interrupted.is_some_and(|before| screen.now.duration_since(before) <= TWICE);
            if again {
                return vec![Effect::Exit];
            }
            screen.interrupted = Some(screen.now);
            screen.tell(Level::Warn, "Ctrl-C once more leaves this screen; the work goes on");
        }
        Verb::Suspend => return vec![Effect::Suspend],
        Verb::Shell => return vec![Effect::Visit(Door::Shell)],
        Verb::Edit => {
            let line = match screen.target(model, pane) {
                Some(Target::Line(number)) if pane == PaneId::Journal => {
                    screen.log.home(number).map(|(source, number)| (source.to_string(), number))
                }
                _ => None,
            };
            return vec![Effect::Visit(Door::Editor(line))];
        }
        Verb::Redraw => return vec![Effect::Redraw],
        Verb::Screenshot => return vec![Effect::Screenshot],
        Verb::Save => return save(screen, model, pane),
        Verb::Mouse => {
            screen.mouse = !screen.mouse;
            let on = "the wheel scrolls, a click chooses; shift-drag selects text; the same key gives the mouse back";
            screen.tell(Level::Info, if screen.mouse { on } else { "the mouse is the terminal's" });
            return vec![Effect::Mouse(screen.mouse)];
        }
        Verb::Lock => {
            screen.lock = if screen.lock == Lock::Open { Lock::Locked } else { Lock::Open };
            let locked = screen.lock == Lock::Locked;
            screen.tell(Level::Info, if locked { "this screen changes nothing now" } else { "changes are possible" });
        }
        Verb::Hide => {
            screen.shape.hidden.insert(pane);
            (screen.focus, screen.zoom) = (None, false);
            let back = format!("{} is hidden; {} shows it for once", pane.name(), pane.number());
            screen.tell(Level::Info, back);
        }
        Verb::ShowAll => screen.shape = Shape::default(),
        Verb::MovePane => {
            let shown = screen.arrange(model).panes;
            let here = shown.iter().position(|(known, _)| *known == pane).unwrap_or(0);
            if let Some((other, _)) = shown.get((here + 1) % shown.len().max(1)) {
                screen.shape.swap(pane, *other);
                screen.focus = Some(pane);
            }
        }
        Verb::Wider => resize(screen, model, true, COLUMNS),
        Verb::Narrower => resize(screen, model, true, -COLUMNS),
        Verb::Taller => resize(screen, model, false, 1),
        Verb::Shorter => resize(screen, model, false, -1),
        Verb::NextTheme => return vec![Effect::NextTheme],
        Verb::NextPane | Verb::PreviousPane => {
            let here = pane.number() - 1;
            let count = PaneId::ALL.len();
            let next = if verb == Verb::NextPane { here + 1 } else { here + count - 1 } % count;
            screen.focus = PaneId::ALL.get(next).copied();
        }
        Verb::Pane(pane) => {
            screen.shape.hidden.remove(&pane);
            screen.focus = Some(pane);
        }
        Verb::Zoom => {
            screen.focus = Some(pane);
            screen.zoom = !screen.zoom;
        }
        Verb::Up => move_by(screen, model, pane, -1, height),
        Verb::Down => move_by(screen, model, pane, 1, height),
        Verb::PageUp => move_by(screen, model, pane, -page(height), height),
        Verb::PageDown => move_by(screen, model, pane, page(height), height),
        Verb::Top => move_by(screen, model, pane, isize::MIN / 2, height),
        Verb::Bottom if pane == PaneId::Journal => screen.log.follow(),
        Verb::Bottom => move_by(screen, model, pane, isize::MAX / 2, height),
        Verb::Copy if pane == PaneId::Journal => {
            let text = screen.log.copied();
            screen.log.mark = None;
            return copy_or_say(screen, text, "there is nothing to copy here");
        }
        Verb::Copy => {
            let line =
                screen.target(model, pane).and_then(|target| detail::text(model, screen, &target).into_iter().next());
            return copy_or_say(screen, line, "there is nothing to copy here");
        }
        Verb::CopyCommand => {
            let command = screen.target(model, pane).and_then(|target| panes::command_of(screen, model, &target));
            return copy_or_say(screen, command, "there is no command here");
        }
        Verb::Timeline => screen.timeline = !screen.timeline,
        Verb::Retry
        | Verb::Skip
        | Verb::Cancel
        | Verb::StopAfter
        | Verb::RunChecks
        | Verb::Recover
        | Verb::Resync
        | Verb::LeaveOut
        | Verb::ApproveCsr
        | Verb::AcceptHostKey => {
            let Some(order) = verbs::order(verb, screen, model) else { return Vec::new() };
            if !order.asks(screen.agreed) {
                return vec![Effect::Send(order.command)];
            }
            screen.overlay = Some(Overlay::Confirm(Confirm {
                title: order.title,
                body: order.body,
                name: order.name,
                then: Then::Send(order.command),
                quiet_since: screen.now,
                typed: String::new(),
                yes: false,
            }));
        }
        Verb::Search | Verb::Filter => {
            screen.log.set_anchor();
            let (kind, text) = if verb == Verb::Search {
                (PromptKind::Search, String::new())
            } else {
                (PromptKind::Filter, screen.log.filter.as_ref().map_or(String::new(), |filter| filter.text.clone()))
            };
            screen.overlay = Some(Overlay::Prompt { kind, text });
        }
        Verb::FindNext | Verb::FindPrevious => {
            if !screen.log.find(verb == Verb::FindNext, height) {
                match screen.log.seen() {
                    Some(seen) => {
                        screen.tell(Level::Info, format!("no match yet; {seen}% of the log is looked through"))
                    }
                    None => screen.tell(Level::Warn, "no match"),
                }
            }
        }
        Verb::Context => {
            let home = screen.log.current().and_then(|(entry, _)| screen.log.home(entry.last));
            match home {
                Some((source, number)) if screen.log.source() == ALL => screen.log.show(&source, number, height),
                _ => screen.log.unfilter(height),
            }
        }
        Verb::Mark => {
            let here = screen.log.current().map(|(entry, _)| entry.first);
            screen.log.pause(height);
            screen.log.mark = if screen.log.mark.is_some() { None } else { here };
        }
        Verb::Merge => {
            let one = screen.log.source() == ALL;
            screen.log.choose((!one).then(|| ALL.to_owned()));
        }
        Verb::Follow if screen.log.mode == Mode::Following => screen.log.pause(height),
        Verb::Follow => screen.log.follow(),
        Verb::Wrap => screen.log.wrap = !screen.log.wrap,
        Verb::Times => screen.log.times = !screen.log.times,
        Verb::NextError => return next_of(screen, Level::Error, true),
        Verb::PreviousError => return next_of(screen, Level::Error, false),
        Verb::NextWarning => return next_of(screen, Level::Warn, true),
        Verb::PreviousWarning => return next_of(screen, Level::Warn, false),
        Verb::NextSource | Verb::PreviousSource => screen.log.switch(model, verb == Verb::NextSource),
        Verb::Left => screen.log.skip = screen.log.skip.saturating_sub(16),
        Verb::Right => screen.log.skip = (screen.log.skip + 16).min(16 * 1024),
        Verb::StepForward => return seek(Seek::By(1)),
        Verb::StepBack => return seek(Seek::By(-1)),
        Verb::JumpForward => return seek(Seek::Jump(1)),
        Verb::JumpBack => return seek(Seek::Jump(-1)),
        Verb::Play => return seek(Seek::Play),
        Verb::Faster => return seek(Seek::Faster),
        Verb::Slower => return seek(Seek::Slower),
        Verb::NextFailure => return seek(Seek::NextFailure),
        Verb::NextStage => return seek(Seek::NextStage),
        Verb::PreviousStage => return seek(Seek::PreviousStage),
        Verb::Beginning => return seek(Seek::Beginning),
        Verb::Now => return seek(Seek::Now),
    }
    Vec::new()
}

/// A search that had nothing at hand goes to its first match when that comes, and says so when none does.
fn look_further(screen: &mut Screen, model: &RunModel) {
    let Some(search) = screen.log.search.as_ref().filter(|search| search.waits) else { return };
    let (found, over) = (!search.matches.is_empty(), screen.log.seen().is_none());
    let text = search.text.clone();
    if found {
        let height = screen.rows_in(model, PaneId::Journal);
        screen.log.find(false, height);
    } else if over {
        screen
            .tell(Level::Warn, format!("{text:?} is not in the {} lines of this log", text::exact(screen.log.total())));
    }
    if let Some(search) = screen.log.search.as_mut().filter(|_| found || over) {
        search.waits = false;
    }
}

/// To the next line of a level in any log, from the chosen one on.
fn next_of(screen: &mut Screen, level: Level, forward: bool) -> Vec<Effect> {
    let number = match screen.log.mode {
        Mode::Following => screen.log.total() + 1,
        Mode::Paused { cursor, .. } => cursor,
    };
    vec![Effect::Log(Ask::Level { source: screen.log.source().to_owned(), number, level, forward })]
}

/// All of a log as it is filtered, or all rows of a pane.
fn save(screen: &Screen, model: &RunModel, pane: PaneId) -> Vec<Effect> {
    if pane == PaneId::Journal {
        let filter = screen.log.filter.as_ref().map_or_else(String::new, |filter| filter.text.clone());
        let (source, directory) = (screen.log.source().to_owned(), screen.saves.clone());
        return vec![Effect::Log(Ask::Save { source, filter, directory })];
    }
    let rows = panes::targets(pane, model);
    let text: Vec<String> = rows.iter().map(|target| detail::text(model, screen, target).join("\n")).collect();
    let name = pane.name().to_lowercase().replace(' ', "-");
    vec![Effect::Save { name, text: text.join("\n\n") }]
}

/// Give the focused pane more room, or less.
fn resize(screen: &mut Screen, model: &RunModel, upright: bool, by: i32) {
    let Some((seam, back)) = screen.seam(model, upright) else { return };
    if !seam.shift(if back { -by } else { by }, &mut screen.shape) {
        screen.tell(Level::Info, if by > 0 { "its neighbour cannot give more" } else { "it cannot be smaller" });
    }
}

fn page(height: usize) -> isize {
    isize::try_from(height.saturating_sub(1).max(1)).unwrap_or(1)
}

fn copy_or_say(screen: &mut Screen, text: Option<String>, nothing: &str) -> Vec<Effect> {
    match text {
        Some(text) => vec![Effect::Copy(text)],
        None => {
            screen.tell(Level::Info, nothing);
            Vec::new()
        }
    }
}

fn move_by(screen: &mut Screen, model: &RunModel, pane: PaneId, by: isize, height: usize) {
    if pane == PaneId::Journal {
        screen.log.step(by, height, true);
        return;
    }
    let targets = panes::targets(pane, model);
    let here =
        screen.target(model, pane).and_then(|target| targets.iter().position(|known| *known == target)).unwrap_or(0);
    let next = here.saturating_add_signed(by).min(targets.len().saturating_sub(1));
    if let Some(target) = targets.get(next) {
        screen.cursors.insert(pane, target.clone());
    }
}

fn quit(screen: &mut Screen, model: &RunModel) -> Vec<Effect> {
    if screen.access != Access::Full || model.closed.is_some() {
        return vec![Effect::Exit];
    }
    screen.overlay = Some(Overlay::Confirm(Confirm {
        title: "Leave this screen?".into(),
        body: vec![
            "The work goes on: jobs on the bastion and on the nodes do not need this screen.".into(),
            format!("`bartizan run --resume {}` comes back to it.", model.run),
        ],
        name: None,
        then: Then::Leave,
        quiet_since: screen.now,
        typed: String::new(),
        yes: false,
    }));
    Vec::new()
}

/// From a finding's evidence to the line in its log. False when the chosen row is no such thing.
fn show_evidence(screen: &mut Screen, model: &RunModel) -> bool {
    let Some(Target::Evidence(id)) = chosen(screen, model) else { return false };
    let Some(finding) = panes::checks::record(model, &id).map(|record| &record.finding) else { return false };
    let Some(number) = finding.line_number.filter(|_| LogView::sources(model).contains(&finding.source)) else {
        return false;
    };
    let height = screen.rows_in(model, PaneId::Journal);
    screen.log.show(&finding.source, number, height);
    screen.focus = Some(PaneId::Journal);
    true
}

/// The row that a pane has chosen is there for verbs too.
pub(super) fn chosen(screen: &Screen, model: &RunModel) -> Option<Target> {
    screen.target(model, screen.pane(model))
}
