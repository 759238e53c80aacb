//! Keys while a dialog is open: help, palette, prompt, detail, question.

use crossterm::event::{KeyCode, KeyModifiers};
use jiff::{SignedDuration, Timestamp};

use crate::model::run::RunModel;
use crate::ui::keymap::Key;
use crate::ui::layout::PaneId;
use crate::ui::overlays::detail;
use crate::ui::panes;
use crate::ui::screen::{Confirm, Effect, Overlay, PromptKind, Screen, Then};

use super::{act, copy_or_say, look_further};

/// The keyboard must have been quiet for this long before an answer counts.
const QUIET: SignedDuration = SignedDuration::from_millis(300);

/// A key while something stands in front of the panes.
pub(super) fn key(screen: &mut Screen, model: &RunModel, key: Key) -> Vec<Effect> {
    let Some(overlay) = screen.overlay.take() else { return Vec::new() };
    let page = usize::from(screen.size.1 / 2).max(1);
    match overlay {
        Overlay::Help { scroll, mut text, typing } => {
            screen.overlay = match key.code {
                KeyCode::Enter if typing => Some(Overlay::Help { scroll, text, typing: false }),
                KeyCode::Esc if typing || !text.is_empty() => {
                    Some(Overlay::Help { scroll: 0, text: String::new(), typing: false })
                }
                _ if typing => {
                    edit(&mut text, key);
                    Some(Overlay::Help { scroll: 0, text, typing })
                }
                KeyCode::Char('/') => Some(Overlay::Help { scroll: 0, text, typing: true }),
                _ => scrolled(key, scroll, page).map(|scroll| Overlay::Help { scroll, text, typing }),
            };
            Vec::new()
        }
        Overlay::Detail { target, scroll, field } => match key.code {
            KeyCode::Char('y') => {
                let text = detail::text(model, screen, &target);
                let chosen = field.and_then(|field| text.get(field)).map(|paragraph| detail::value(paragraph));
                let text = chosen.unwrap_or_else(|| text.join("\n"));
                screen.overlay = Some(Overlay::Detail { target, scroll, field });
                vec![Effect::Copy(text)]
            }
            KeyCode::Char('Y') => {
                let command = panes::command_of(screen, model, &target);
                screen.overlay = Some(Overlay::Detail { target, scroll, field });
                copy_or_say(screen, command, "there is no command here")
            }
            KeyCode::Tab => {
                let back = key.modifiers.contains(KeyModifiers::SHIFT);
                let field = detail::next_field(&detail::text(model, screen, &target), field, back);
                screen.overlay = Some(Overlay::Detail { target, scroll, field });
                Vec::new()
            }
            _ => {
                screen.overlay = scrolled(key, scroll, page).map(|scroll| Overlay::Detail { target, scroll, field });
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
                    let height = screen.rows_in(model, PaneId::Journal);
                    screen.log.clear(height);
                    return Vec::new();
                }
                KeyCode::Enter => {
                    let height = screen.rows_in(model, PaneId::Journal);
                    if kind == PromptKind::Search && !text.is_empty() && !screen.log.find(false, height) {
                        if let Some(search) = &mut screen.log.search {
                            search.waits = true;
                        }
                        look_further(screen, model);
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

/// One character of what was pasted.
pub(super) fn type_char(screen: &mut Screen, model: &RunModel, c: char) {
    // A name is typed, not pasted: the hand must know what it destroys.
    if matches!(
        screen.overlay,
        Some(Overlay::Palette { .. } | Overlay::Prompt { .. } | Overlay::Help { typing: true, .. })
    ) {
        self::key(screen, model, Key::char(c));
    }
}

fn confirm_key(screen: &mut Screen, mut confirm: Confirm, key: Key) -> Vec<Effect> {
    let now = screen.now;
    let armed = quiet(confirm.quiet_since, now);
    let mut agreed = false;
    if confirm.name.is_some() {
        match key.code {
            KeyCode::Esc => return Vec::new(),
            KeyCode::Enter => agreed = armed && confirm.name.as_ref().is_some_and(|name| *name == confirm.typed),
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

fn quiet(since: Timestamp, now: Timestamp) -> bool {
    now.duration_since(since) >= QUIET
}
