//! What the run makes and takes away: each thing with its id, its state, how long that takes, and what it costs.

use ratatui::text::Line;

use crate::model::event::Object;
use crate::model::run::{ObjectRecord, RunModel};
use crate::model::text::dollars;
use crate::ui::glyph::Mark;
use crate::ui::screen::Target;
use crate::ui::text;
use crate::ui::theme::Token;

use super::Cx;

/// Cells of the columns: `security-group`, a state, a clock, a price. Name and id share the rest.
const KIND: usize = 14;
const STATE: usize = 10;
const CLOCK: usize = 5;
const PRICE: usize = 6;

/// In the order of creation.
pub fn targets(model: &RunModel) -> Vec<Target> {
    let mut objects: Vec<(&Object, &ObjectRecord)> = model.objects.iter().collect();
    objects.sort_by_key(|(_, record)| record.order);
    objects.into_iter().map(|(object, _)| Target::Resource(object.clone())).collect()
}

/// What is being taken away, else what is being made, else the newest.
pub fn resting(model: &RunModel, targets: &[Target]) -> usize {
    let of = |wanted: fn(&ObjectRecord) -> bool| {
        targets.iter().rposition(|target| match target {
            Target::Resource(object) => model.objects.get(object).is_some_and(wanted),
            _ => false,
        })
    };
    of(|record| record.gone.is_none() && record.leaving.is_some())
        .or_else(|| of(|record| record.gone.is_none() && record.ready.is_none() && !record.state.is_empty()))
        .or_else(|| of(|record| record.gone.is_none()))
        .unwrap_or(0)
}

pub fn title(cx: &Cx) -> String {
    let dot = cx.glyphs.dot;
    let records = || cx.model.objects.values();
    let count = |wanted: fn(&ObjectRecord) -> bool| records().filter(|record| wanted(record)).count();
    let mut parts = vec!["Resources".to_owned()];
    let standing = count(|record| record.gone.is_none());
    if standing > 0 {
        parts.push(format!("{standing} stand"));
    }
    for (number, word) in [
        (count(|record| record.gone.is_some()), "gone"),
        (count(|record| record.gone.is_none() && record.waits_for.is_some()), "waiting"),
    ] {
        if number > 0 {
            parts.push(format!("{number} {word}"));
        }
    }
    parts.extend(cost(cx));
    parts.join(&format!(" {dot} "))
}

/// `~$0.43/h, ~$0.02 so far`, once something has a price.
fn cost(cx: &Cx) -> Option<String> {
    let cost = cx.model.cost(cx.now);
    (cost.so_far > 0).then(|| {
        let now = hourly(cx).map_or(String::new(), |hourly| format!("{hourly}, "));
        format!("{now}{}{} so far", sign(cost.unknown), dollars(cost.so_far))
    })
}

/// `~$0.43/h` while something stands that costs; `>` when not every price is known.
pub fn hourly(cx: &Cx) -> Option<String> {
    let cost = cx.model.cost(cx.now);
    (cost.hourly > 0).then(|| format!("{}{}/h", sign(cost.unknown), dollars(cost.hourly)))
}

fn sign(unknown: usize) -> &'static str {
    if unknown > 0 { ">" } else { "~" }
}

fn mark(record: &ObjectRecord) -> Mark {
    match record {
        ObjectRecord { gone: Some(_), .. } => Mark::Skip,
        ObjectRecord { waits_for: Some(_), .. } => Mark::Warn,
        ObjectRecord { leaving: Some(_), .. } => Mark::Run,
        ObjectRecord { ready: Some(_), .. } => Mark::Ok,
        // Of what lives on a host nobody tells a state.
        ObjectRecord { id: Some(_), state, .. } if state.is_empty() => Mark::Ok,
        _ => Mark::Run,
    }
}

/// Seconds that the newest thing done to it took, or takes.
pub fn took(cx: &Cx, record: &ObjectRecord) -> Option<u64> {
    let from = record.leaving.or(record.asked);
    let to = if record.leaving.is_some() || record.gone.is_some() { record.ended } else { record.ready };
    let settled = record.state.is_empty() && record.id.is_some() && record.gone.is_none();
    if settled { None } else { cx.span(from, to) }
}

pub fn line(cx: &Cx, target: &Target, width: usize) -> Line<'static> {
    let Target::Resource(object) = target else { return Line::default() };
    let Some(record) = cx.model.objects.get(object) else { return Line::default() };
    let mark = mark(record);
    let muted = cx.style(Token::Muted);
    let style = match mark {
        Mark::Ok => cx.style(Token::Text),
        Mark::Skip => muted,
        mark => cx.style(mark.token()),
    };
    let clock = took(cx, record).map(text::clock).unwrap_or_default();
    let row = cx.mark(cx.row(width), mark).cell(&object.kind, KIND, muted);
    // Four columns are right of the name, with a blank before each.
    let rest = row.left().saturating_sub(STATE + CLOCK + PRICE + 4);
    // `eipalloc-` and seventeen digits.
    let id = (rest / 2).min(26);
    // All of them begin with the cluster's name, which the header has.
    let prefix = format!("{}-", cx.model.cluster.name);
    let name = object.name.strip_prefix(&prefix).unwrap_or(&object.name);
    let row = row.cell(name, (rest - id).min(40), style);
    // Once it is on its way out, what counts is the proof, or what is in the way.
    if let Some(proof) = &record.gone {
        return row.number(&clock, CLOCK, muted).rest(&format!("gone: {proof}"), muted).line();
    }
    if let Some(blocker) = &record.waits_for {
        return row.number(&clock, CLOCK, style).rest(&format!("waits: {blocker}"), style).line();
    }
    let state = match (&record.id, record.state.as_str()) {
        (_, state) if !state.is_empty() => state,
        (None, _) => "asked for",
        (Some(_), _) => "made",
    };
    let price = match record.hourly {
        Some(0) => String::new(),
        Some(hourly) => dollars(hourly),
        None if record.state.is_empty() => String::new(),
        None => "?".to_owned(),
    };
    row.cell(record.id.as_deref().unwrap_or_default(), id, muted)
        .cell(state, STATE, style)
        .number(&clock, CLOCK, style)
        .number(&price, PRICE, muted)
        .line()
}
