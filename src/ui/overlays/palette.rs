//! Every command by its name, found by typing a part of it.

use nucleo_matcher::pattern::{CaseMatching, Normalization, Pattern};
use nucleo_matcher::{Config, Matcher, Utf32Str};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::ui::command::{Context, TABLE, Verb};
use crate::ui::panes::{self, Cx};
use crate::ui::theme::Token;
use crate::ui::verbs;

/// Verbs whose name, title or description match, best first; all of them for an empty text.
pub fn matches(text: &str) -> Vec<Verb> {
    let pattern = Pattern::parse(text, CaseMatching::Smart, Normalization::Smart);
    let mut matcher = Matcher::new(Config::DEFAULT);
    let mut buffer = Vec::new();
    let mut found: Vec<(u32, Verb)> = TABLE
        .iter()
        .filter_map(|command| {
            let mut score = |text: &str| pattern.score(Utf32Str::new(text, &mut buffer), &mut matcher);
            // The name counts for more than the description.
            let name = score(&format!("{} {}", command.id, command.title)).map(|score| score.saturating_mul(2));
            let whole = u32::from(command.id == text) * 10_000;
            name.max(score(command.doc)).map(|score| (score.saturating_add(whole), command.verb))
        })
        .collect();
    found.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    found.into_iter().map(|(_, verb)| verb).collect()
}

pub fn draw(cx: &Cx, typed: &str, selected: usize, area: Rect, buf: &mut Buffer) {
    let found = matches(typed);
    let title = format!("Commands {} {} of {}", cx.glyphs.dot, found.len(), TABLE.len());
    let inner = super::dialog(cx, area, 90, 18, &title, buf);
    if inner.is_empty() {
        return;
    }
    let width = usize::from(inner.width).saturating_sub(1);
    let prompt = cx.row(width).text(":", cx.style(Token::Key)).text(typed, cx.style(Token::Text));
    let prompt = prompt.text("_", cx.style(Token::Key)).line();
    buf.set_line(inner.x + u16::from(inner.width > 1), inner.y, &prompt, inner.width.saturating_sub(1));
    let rest = Rect { y: inner.y + 1, height: inner.height - 1, ..inner };
    let height = usize::from(rest.height);
    let first = (selected + 1).saturating_sub(height);
    let mut contexts = cx.screen.contexts(cx.model);
    contexts.extend(Context::ALL);
    for ((place, verb), y) in found.iter().enumerate().skip(first).zip(rest.top()..rest.bottom()) {
        let command = verb.command();
        let keys = contexts.iter().find_map(|context| cx.screen.keymap.keys_of(&[*context], *verb).into_iter().next());
        let row = cx.row(width).cell(command.id, 18, cx.style(Token::Text)).cell(
            keys.as_deref().unwrap_or(""),
            9,
            cx.style(Token::Key),
        );
        let row = match verbs::enabled(*verb, cx.screen, cx.model) {
            Ok(()) => row.text(command.doc, cx.style(Token::Text)),
            Err(why) => row.text(&format!("not now: {why}"), cx.style(Token::Muted)),
        };
        panes::put(cx, rest, y, &row.line(), place == selected, buf);
    }
}
