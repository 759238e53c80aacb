//! Keys and news to a new view and effects. Pure: what must happen outside is returned, not done.

use crossterm::event::{KeyCode, KeyModifiers};
use jiff::{SignedDuration, Timestamp};

use crate::model::event::{Data, Level, Outcome, RunOutcome};
use crate::model::run::RunModel;

use super::command::{Danger, Verb};
use super::history::Seek;
use super::keymap::{Key, Meaning};
use super::layout::PaneId;
use super::logs::{LogView, Mode};
use super::overlays::detail;
use super::panes;
use super::screen::{Access, Confirm, Effect, Input, Overlay, PromptKind, Screen, Target, Then};
use super::text;
use super::verbs;

/// The keyboard must have been quiet for this long before an answer counts.
const QUIET: SignedDuration = SignedDuration::from_millis(300);
/// Two Ctrl-C within this time leave.
const TWICE: SignedDuration = SignedDuration::from_secs(3);
/// At most one notification in this time.
const NOTIFY_PAUSE: SignedDuration = SignedDuration::from_secs(5);

/// Change the view; return what is to be done outside.
pub fn update(screen: &mut Screen, model: &RunModel, input: Input) -> Vec<Effect> {
    let mut effects = match input {
        Input::Key(key, at) => {
            screen.now = at;
            on_key(screen, model, key)
        }
        Input::Paste(text) => {
            for c in text::printable(&text).chars().take(200) {
                type_char(screen, model, c);
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
            if screen.toast.as_ref().is_some_and(|toast| toast.until <= at) {
                screen.toast = None;
            }
            Vec::new()
        }
        Input::Lines { source, first, lines } => {
            screen.log.add(&source, first, lines);
            Vec::new()
        }
        Input::Recorded(event) => notice(screen, model, &event.data, event.at),
        Input::Moved(place) => {
            screen.place = place;
            Vec::new()
        }
        Input::Told(level, text) => {
            screen.tell(level, text);
            Vec::new()
        }
    };
    if let Some((source, first, count)) = screen.log.want(model) {
        effects.push(Effect::ReadLog { source, first, count });
    }
    let title = window_title(model);
    if title != screen.title {
        screen.title.clone_from(&title);
        effects.push(Effect::Title(title));
    }
    effects
}

fn window_title(model: &RunModel) -> String {
    let place = match (&model.closed, model.current_stage()) {
        (Some((RunOutcome::Done, ..)), _) => "done".to_owned(),
        (Some((RunOutcome::Failed, ..)), Some(stage)) => format!("FAILED at {stage}"),
        (_, Some(stage)) => stage.to_string(),
        _ => "…".to_owned(),
    };
    format!("bartizan {}: {place}", model.cluster.name)
}

fn on_key(screen: &mut Screen, model: &RunModel, key: Key) -> Vec<Effect> {
    let ctrl_c = Key { code: KeyCode::Char('c'), modifiers: KeyModifiers::CONTROL };
    if screen.overlay.is_some() && key != ctrl_c {
        return overlay_key(screen, model, key);
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

fn quiet(since: Timestamp, now: Timestamp) -> bool {
    now.duration_since(since) >= QUIET
}

fn overlay_key(screen: &mut Screen, model: &RunModel, key: Key) -> Vec<Effect> {
    let Some(overlay) = screen.overlay.take() else { return Vec::new() };
    let page = usize::from(screen.size.1 / 2).max(1);
    match overlay {
        Overlay::Help { scroll } => {
            screen.overlay = scrolled(key, scroll, page).map(|scroll| Overlay::Help { scroll });
            Vec::new()
        }
        Overlay::Detail { target, scroll } => match key.code {
            KeyCode::Char('y') => {
                let text = detail::text(model, screen, &target).join("\n");
                screen.overlay = Some(Overlay::Detail { target, scroll });
                vec![Effect::Copy(text)]
            }
            KeyCode::Char('Y') => {
                let command = panes::command_of(model, &target);
                screen.overlay = Some(Overlay::Detail { target, scroll });
                copy_or_say(screen, command, "there is no command here")
            }
            _ => {
                screen.overlay = scrolled(key, scroll, page).map(|scroll| Overlay::Detail { target, scroll });
                Vec::new()
            }
        },
        Overlay::Palette { mut text, selected } => {
            let found = screen.palette(&text);
            let selected = match key.code {
                KeyCode::Esc => return Vec::new(),
                KeyCode::Enter => {
                    return found.get(selected).map_or_else(Vec::new, |verb| act(screen, model, *verb));
                }
                KeyCode::Up => selected.saturating_sub(1),
                KeyCode::Down | KeyCode::Tab => (selected + 1).min(found.len().saturating_sub(1)),
                _ => {
                    edit(&mut text, key);
                    0
                }
            };
            screen.overlay = Some(Overlay::Palette { text, selected });
            Vec::new()
        }
        Overlay::Prompt { kind, mut text } => {
            match key.code {
                KeyCode::Esc => {
                    screen.log.clear();
                    return Vec::new();
                }
                KeyCode::Enter => {
                    let height = screen.rows_in(model, PaneId::Journal);
                    if kind == PromptKind::Search && !text.is_empty() && !screen.log.find(false, height) {
                        screen.tell(
                            Level::Warn,
                            format!("{text:?} is not in the {} lines at hand", screen.log.entries().len()),
                        );
                    }
                    return Vec::new();
                }
                _ => edit(&mut text, key),
            }
            apply_prompt(screen, kind, &text);
            screen.overlay = Some(Overlay::Prompt { kind, text });
            Vec::new()
        }
        Overlay::Confirm(confirm) => confirm_key(screen, confirm, key),
    }
}

fn apply_prompt(screen: &mut Screen, kind: PromptKind, text: &str) {
    match kind {
        PromptKind::Search => screen.log.set_search(text),
        PromptKind::Filter => screen.log.set_filter(text),
    }
}

/// The new scroll of a text, or none when the key closes it.
fn scrolled(key: Key, scroll: usize, page: usize) -> Option<usize> {
    Some(match key.code {
        KeyCode::Char('j') | KeyCode::Down => scroll + 1,
        KeyCode::Char('k') | KeyCode::Up => scroll.saturating_sub(1),
        KeyCode::PageDown | KeyCode::Char(' ') => scroll + page,
        KeyCode::PageUp => scroll.saturating_sub(page),
        KeyCode::Home => 0,
        KeyCode::End | KeyCode::Char('G') => usize::MAX / 2,
        KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q' | '?') => return None,
        _ => scroll,
    })
}

fn edit(text: &mut String, key: Key) {
    match key.code {
        KeyCode::Backspace => {
            text.pop();
        }
        KeyCode::Char('u' | 'w') if key.modifiers.contains(KeyModifiers::CONTROL) => text.clear(),
        KeyCode::Char(c) if !key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => text.push(c),
        _ => {}
    }
}

fn type_char(screen: &mut Screen, model: &RunModel, c: char) {
    // A name is typed, not pasted: the hand must know what it destroys.
    if matches!(screen.overlay, Some(Overlay::Palette { .. } | Overlay::Prompt { .. })) {
        overlay_key(screen, model, Key::char(c));
    }
}

fn confirm_key(screen: &mut Screen, mut confirm: Confirm, key: Key) -> Vec<Effect> {
    let now = screen.now;
    let armed = quiet(confirm.quiet_since, now);
    let mut agreed = false;
    if confirm.danger == Danger::Destroy {
        match key.code {
            KeyCode::Esc => return Vec::new(),
            KeyCode::Enter => {
                agreed = armed && !confirm.typed.is_empty() && confirm.body.last() == Some(&confirm.typed)
            }
            _ => edit(&mut confirm.typed, key),
        }
    } else {
        match key.code {
            KeyCode::Esc | KeyCode::Char('n' | 'N' | 'q') => return Vec::new(),
            KeyCode::Left | KeyCode::Right | KeyCode::Tab => confirm.yes = !confirm.yes,
            KeyCode::Char('y' | 'Y') => agreed = armed,
            KeyCode::Enter if armed && !confirm.yes => return Vec::new(),
            KeyCode::Enter => agreed = armed && confirm.yes,
            _ => {}
        }
    }
    if !agreed {
        if !armed {
            confirm.quiet_since = now;
        }
        screen.overlay = Some(Overlay::Confirm(confirm));
        return Vec::new();
    }
    match confirm.then {
        Then::Leave => vec![Effect::Exit],
        Then::Send(command) => vec![Effect::Send(command)],
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
        Verb::Help => screen.overlay = Some(Overlay::Help { scroll: 0 }),
        Verb::Palette => screen.overlay = Some(Overlay::Palette { text: String::new(), selected: 0 }),
        Verb::Open if show_evidence(screen, model) => {}
        Verb::Open => {
            screen.overlay = screen.target(model, pane).map(|target| Overlay::Detail { target, scroll: 0 });
        }
        Verb::Back => {
            if screen.timeline {
                screen.timeline = false;
            } else if pane == PaneId::Journal && screen.log.clear() {
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
        Verb::Redraw => return vec![Effect::Redraw],
        Verb::Screenshot => return vec![Effect::Screenshot],
        Verb::NextTheme => return vec![Effect::NextTheme],
        Verb::NextPane | Verb::PreviousPane => {
            let here = pane.number() - 1;
            let count = PaneId::ALL.len();
            let next = if verb == Verb::NextPane { here + 1 } else { here + count - 1 } % count;
            screen.focus = PaneId::ALL.get(next).copied();
        }
        Verb::Pane(pane) => screen.focus = Some(pane),
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
        Verb::Copy => {
            let line =
                screen.target(model, pane).and_then(|target| detail::text(model, screen, &target).into_iter().next());
            return copy_or_say(screen, line, "there is nothing to copy here");
        }
        Verb::CopyCommand => {
            let command = screen.target(model, pane).and_then(|target| panes::command_of(model, &target));
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
            if order.danger == Danger::Safe {
                return vec![Effect::Send(order.command)];
            }
            screen.overlay = Some(Overlay::Confirm(Confirm {
                title: order.title,
                body: order.body,
                danger: order.danger,
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
                screen.tell(Level::Warn, "no match");
            }
        }
        Verb::Context => screen.log.unfilter(height),
        Verb::Follow if screen.log.mode == Mode::Following => screen.log.pause(height),
        Verb::Follow => screen.log.follow(),
        Verb::Wrap => screen.log.wrap = !screen.log.wrap,
        Verb::Times => screen.log.times = !screen.log.times,
        Verb::NextError | Verb::PreviousError => {
            if !screen.log.find_error(verb == Verb::NextError, height) {
                screen.tell(Level::Info, "no error in that direction");
            }
        }
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
        danger: Danger::Change,
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
    let Some(number) = finding.line_number.filter(|_| LogView::sources(model).contains(&finding.source.as_str()))
    else {
        return false;
    };
    screen.log.show(&finding.source, number);
    screen.focus = Some(PaneId::Journal);
    true
}

/// Tell a person who is looking elsewhere.
fn notice(screen: &mut Screen, model: &RunModel, data: &Data, at: Timestamp) -> Vec<Effect> {
    let told = match data {
        Data::StepEnded { step, outcome: Outcome::Failed { causes }, .. } => {
            Some((Level::Error, format!("{step} failed"), causes.first().cloned().unwrap_or_default()))
        }
        Data::FindingOpened { finding } if finding.severity >= Level::Warn => {
            let seen = model.findings.iter().any(|record| record.finding.id == finding.id && record.count > 1);
            (!seen).then(|| (finding.severity, format!("finding {}", finding.signature), finding.title.clone()))
        }
        Data::RunClosed { outcome, summary, .. } => {
            let level = if *outcome == RunOutcome::Failed { Level::Error } else { Level::Info };
            Some((level, "run ended".to_owned(), summary.clone()))
        }
        _ => None,
    };
    let Some((level, title, body)) = told else { return Vec::new() };
    screen.tell(level, if body.is_empty() { title.clone() } else { format!("{title}: {body}") });
    let soon = screen.notified.is_some_and(|before| at.duration_since(before) < NOTIFY_PAUSE);
    if screen.terminal_focused || !screen.notify || soon || screen.access == Access::Replay {
        return Vec::new();
    }
    screen.notified = Some(at);
    vec![Effect::Notify { title: format!("bartizan {}: {title}", model.cluster.name), body }]
}

/// The row that a pane has chosen is there for verbs too.
pub(super) fn chosen(screen: &Screen, model: &RunModel) -> Option<Target> {
    screen.target(model, screen.pane(model))
}
