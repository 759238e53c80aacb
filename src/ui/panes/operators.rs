//! Cluster operators as `oc get co` shows them, the worst first; nodes, certificate requests and the cluster version.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use crate::model::event::{CsrState, Operator, Tri};
use crate::model::progress::percent;
use crate::model::run::{PoolRecord, RunModel};
use crate::ui::glyph::Mark;
use crate::ui::layout::PaneId;
use crate::ui::screen::Target;
use crate::ui::text;
use crate::ui::theme::Token;

use super::Cx;

/// 0 is worst.
fn severity(operator: &Operator) -> u8 {
    match (operator.degraded, operator.available, operator.progressing) {
        (Tri::True, ..) => 0,
        (_, Tri::False, _) => 1,
        (_, Tri::Unknown | Tri::Absent, _) => 2,
        (_, Tri::True, Tri::True) => 3,
        _ => 4,
    }
}

fn mark(operator: &Operator) -> Mark {
    match severity(operator) {
        0 => Mark::Fail,
        1 if operator.progressing == Tri::True => Mark::Run,
        1 => Mark::Warn,
        2 => Mark::Unknown,
        3 => Mark::Run,
        _ => Mark::Ok,
    }
}

pub fn targets(model: &RunModel) -> Vec<Target> {
    let state = &model.cluster_state;
    let mut rows: Vec<(u8, Target)> = Vec::new();
    if state.version.as_ref().is_some_and(|version| version.failing == Tri::True) {
        rows.push((0, Target::ClusterVersion));
    } else if state.version.is_some() {
        rows.push((3, Target::ClusterVersion));
    }
    let pending = state.csrs.iter().filter(|(_, csr)| csr.state == CsrState::Pending);
    rows.extend(pending.map(|(name, _)| (0, Target::Csr(name.clone()))));
    for (name, node) in &state.nodes {
        rows.push((if node.ready { 5 } else { 2 }, Target::Node(name.clone())));
    }
    for (name, machine) in state.machines.iter().filter(|(_, machine)| machine.phase != "Running") {
        rows.push((if machine.phase == "Failed" { 0 } else { 3 }, Target::Machine(name.clone())));
    }
    for (name, pool) in &state.pools {
        let severity = match pool {
            PoolRecord { degraded: 1.., .. } => 1,
            PoolRecord { machines, updated, .. } if updated < machines => 3,
            _ => 5,
        };
        rows.push((severity, Target::Pool(name.clone())));
    }
    for (name, record) in &state.operators {
        rows.push((severity(&record.operator), Target::Operator(name.clone())));
    }
    rows.sort_by_key(|(severity, _)| *severity);
    rows.into_iter().map(|(_, target)| target).collect()
}

pub fn title(cx: &Cx) -> String {
    let dot = cx.glyphs.dot;
    let state = &cx.model.cluster_state;
    if state.operators.is_empty() && state.nodes.is_empty() && state.version.is_none() {
        return "Operators".to_owned();
    }
    let available = state.operators.values().filter(|record| record.operator.available == Tri::True).count();
    let ready = state.nodes.values().filter(|node| node.ready).count();
    let pending = state.csrs.values().filter(|csr| csr.state == CsrState::Pending).count();
    let done = state
        .version
        .as_ref()
        .and_then(|version| version.done)
        .map_or(String::new(), |(done, all)| format!(" {dot} CVO {}%", percent(done.into(), all.into())));
    let waits = match pending {
        0 => String::new(),
        1 => format!(" {dot} 1 CSR waits"),
        _ => format!(" {dot} {pending} CSRs wait"),
    };
    format!(
        "Operators {dot} {available} of {} available{done} {dot} nodes {ready}/{}{waits}",
        state.operators.len(),
        state.nodes.len(),
    )
}

/// Rows above the list: the heads of the columns.
pub fn above(model: &RunModel, inner: Rect) -> u16 {
    u16::from(inner.height >= 3 && !targets(model).is_empty())
}

pub fn draw(cx: &Cx, area: Rect, focused: bool, buf: &mut Buffer) {
    if above(cx.model, area) == 0 {
        super::list(cx, PaneId::Operators, area, focused, buf);
        return;
    }
    let muted = cx.style(Token::Muted);
    let head = cx
        .row(usize::from(area.width).saturating_sub(1))
        .cell("", cx.mark_width(), muted)
        .cell("NAME", 26, muted)
        .cell("VERSION", 9, muted)
        .cell("A", cx.mark_width(), muted)
        .cell("P", cx.mark_width(), muted)
        .cell("D", cx.mark_width(), muted)
        .number("SINCE", 5, muted)
        .rest("MESSAGE", muted);
    buf.set_line(area.x + 1, area.y, &head.line(), area.width.saturating_sub(1));
    super::list(cx, PaneId::Operators, super::rows(PaneId::Operators, cx.model, area), focused, buf);
}

/// A condition in one cell: good, bad or neither, by shape and colour.
fn tri(cx: &Cx, row: crate::ui::widgets::Row, value: Tri, good: Tri, active: Mark) -> crate::ui::widgets::Row {
    let mark = match value {
        Tri::Unknown => Some(Mark::Unknown),
        Tri::Absent => None,
        value if value == good && good == Tri::True => Some(Mark::Ok),
        value if value == good => None,
        _ => Some(active),
    };
    match mark {
        Some(mark) => cx.mark(row, mark),
        None => row.cell(cx.glyphs.dot, cx.mark_width(), cx.style(Token::Muted)),
    }
}

pub fn line(cx: &Cx, target: &Target, width: usize) -> Line<'static> {
    let state = &cx.model.cluster_state;
    let muted = cx.style(Token::Muted);
    let tone = |mark: Mark| if mark == Mark::Ok { cx.style(Token::Text) } else { cx.style(mark.token()) };
    match target {
        Target::Operator(name) => {
            let Some(record) = state.operators.get(name) else { return Line::default() };
            let operator = &record.operator;
            let mark = mark(operator);
            let row = cx.mark(cx.row(width), mark).cell(name, 26, tone(mark)).cell(
                operator.version.as_deref().unwrap_or(""),
                9,
                muted,
            );
            let row = tri(cx, row, operator.available, Tri::True, Mark::Fail);
            let row = tri(cx, row, operator.progressing, Tri::False, Mark::Run);
            let row = tri(cx, row, operator.degraded, Tri::False, Mark::Fail);
            let since = operator.since.map_or(String::new(), |since| text::since(text::seconds(since, cx.now)));
            let silent = operator.message.is_empty() && mark == Mark::Unknown;
            let message = operator.message.replace('\n', " ");
            let message = if silent { "has not reported yet" } else { message.as_str() };
            row.number(&since, 5, muted).rest(message, muted).line()
        }
        Target::Node(name) => {
            let Some(node) = state.nodes.get(name) else { return Line::default() };
            let mark = if node.ready { Mark::Ok } else { Mark::Warn };
            let word = if node.ready { "Ready" } else { "NotReady" };
            cx.mark(cx.row(width), mark)
                .cell(&format!("node {name}"), 36, tone(mark))
                .cell(word, 8, tone(mark))
                .cell(&node.role, 13, muted)
                .rest(&format!("{} {}", node.version, node.message), muted)
                .line()
        }
        Target::Csr(name) => {
            let Some(csr) = state.csrs.get(name) else { return Line::default() };
            let mark = Mark::Warn;
            cx.mark(cx.row(width), mark)
                .cell(&format!("csr {name}"), 26, tone(mark))
                .cell("Pending", 9, tone(mark))
                .rest(&format!("{} {} {}", csr.requester, cx.glyphs.dot, csr.signer), muted)
                .line()
        }
        Target::Machine(name) => {
            let Some(machine) = state.machines.get(name) else { return Line::default() };
            let mark = if machine.phase == "Failed" { Mark::Fail } else { Mark::Run };
            let phase = if machine.phase.is_empty() { "no phase" } else { &machine.phase };
            cx.mark(cx.row(width), mark)
                .cell(&format!("machine {name}"), 36, tone(mark))
                .cell(phase, 12, tone(mark))
                .rest(&format!("{} {}", machine.role, machine.message), muted)
                .line()
        }
        Target::Pool(name) => {
            let Some(pool) = state.pools.get(name) else { return Line::default() };
            let mark = match pool {
                PoolRecord { degraded: 1.., .. } => Mark::Fail,
                PoolRecord { machines, updated, .. } if updated < machines => Mark::Run,
                _ => Mark::Ok,
            };
            cx.mark(cx.row(width), mark)
                .cell(&format!("pool {name}"), 26, tone(mark))
                .cell(&format!("{}/{}", pool.updated, pool.machines), 9, tone(mark))
                .rest(&pool.message, muted)
                .line()
        }
        Target::ClusterVersion => {
            let Some(version) = &state.version else { return Line::default() };
            let (mark, message) = match (version.failing, version.progressing) {
                (Tri::True, _) => (Mark::Fail, &version.failing_message),
                (_, Tri::True) => (Mark::Run, &version.message),
                _ => (Mark::Ok, &version.message),
            };
            cx.mark(cx.row(width), mark)
                .cell("cluster version", 26, tone(mark))
                .cell(&version.desired, 9, muted)
                .rest(message, muted)
                .line()
        }
        _ => Line::default(),
    }
}
