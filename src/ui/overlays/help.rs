//! The keys that work here, from the command and key tables.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use crate::ui::command::{Command, Context, TABLE};
use crate::ui::glyph::Mark;
use crate::ui::layout::PaneId;
use crate::ui::panes::Cx;
use crate::ui::theme::Token;
use crate::ui::verbs;

pub fn draw(cx: &Cx, scroll: usize, sought: &str, typing: bool, area: Rect, buf: &mut Buffer) {
    let pane = cx.screen.pane(cx.model);
    let dot = cx.glyphs.dot;
    let mut title = format!("Help {dot} keys in {}", pane.name());
    if typing || !sought.is_empty() {
        title.push_str(&format!(" {dot} /{sought}{}", if typing { "_" } else { "" }));
    }
    let lines = lines(cx, sought, usize::from(area.width.min(96)).saturating_sub(4));
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX);
    let inner = super::dialog(cx, area, 96, height, &title, buf);
    scrolled_inside(&lines, scroll, inner, buf);
}

fn scrolled_inside(lines: &[Line], scroll: usize, inner: Rect, buf: &mut Buffer) {
    let inner = Rect { x: inner.x + u16::from(inner.width > 1), width: inner.width.saturating_sub(2), ..inner };
    super::scrolled(lines, scroll, inner, buf);
}

/// Keys or words of a command that have `sought` in them.
fn wanted(sought: &str, keys: &[String], command: &Command) -> bool {
    let sought = sought.to_lowercase();
    let has = |text: &str| text.to_lowercase().contains(&sought);
    keys.iter().any(|key| has(key)) || has(command.id) || has(command.title) || has(command.doc)
}

fn lines(cx: &Cx, sought: &str, width: usize) -> Vec<Line<'static>> {
    let contexts = cx.screen.contexts(cx.model);
    let mut out = Vec::new();
    for context in &contexts {
        let bound = cx.screen.keymap.bindings(*context);
        let commands: Vec<(Vec<String>, &Command)> = TABLE
            .iter()
            .filter(|command| bound.iter().any(|(_, verb)| *verb == command.verb))
            // A nearer context may have taken all of its keys for something else.
            .filter(|command| !cx.screen.keymap.keys_of(&contexts, command.verb).is_empty())
            .map(|command| (cx.screen.keymap.keys_of(&[*context], command.verb), command))
            .filter(|(keys, command)| wanted(sought, keys, command))
            .collect();
        if commands.is_empty() {
            continue;
        }
        let title = match context {
            Context::Global => "everywhere",
            Context::Timeline => "while the timeline is open",
            Context::Pane(pane) => pane.name(),
        };
        out.push(Line::styled(title, cx.style(Token::Title)));
        for (keys, command) in commands {
            let row = cx.row(width).cell(&keys.join("  "), 18, cx.style(Token::Key));
            let row = match verbs::enabled(command.verb, cx.screen, cx.model) {
                Ok(()) => row.text(command.doc, cx.style(Token::Text)),
                Err(why) => row.text(&format!("{} ({why})", command.doc), cx.style(Token::Muted)),
            };
            out.push(row.line());
        }
        out.push(Line::default());
    }
    if !sought.is_empty() {
        if out.is_empty() {
            out.push(Line::styled(
                "no command has this in it; the palette knows those of other panes",
                cx.style(Token::Muted),
            ));
        }
        return out;
    }
    out.push(Line::styled("marks", cx.style(Token::Title)));
    let mut legend = cx.row(width);
    for mark in Mark::ALL {
        legend = legend
            .text(cx.glyphs.mark(mark), cx.style(mark.token()))
            .text(&format!(" {}   ", mark.word()), cx.style(Token::Text));
    }
    out.push(legend.line());
    if cx.screen.pane(cx.model) == PaneId::Sync {
        out.push(Line::styled(
            "present: in the mirror before; mounted: shared with another repository",
            cx.style(Token::Muted),
        ));
    }
    out
}
