//! The eight panes: each turns the model into rows; drawing the list, its title and its selection is common to all.

pub mod activity;
pub mod bootkube;
pub mod checks;
pub mod journal;
pub mod operators;
pub mod pipeline;
pub mod resources;
pub mod sync;

use jiff::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Widget};

use crate::model::event::{Action, LinkName, LinkState};
use crate::model::run::RunModel;

use super::glyph::{Glyphs, Mark};
use super::layout::PaneId;
use super::screen::{Screen, Target};
use super::text;
use super::theme::{Theme, Token};
use super::widgets::Row;

/// What every drawing function sees.
#[derive(Clone, Copy)]
pub struct Cx<'a> {
    pub model: &'a RunModel,
    pub screen: &'a Screen,
    pub theme: &'a Theme,
    pub glyphs: &'a Glyphs,
    pub now: Timestamp,
}

impl Cx<'_> {
    pub fn style(&self, token: Token) -> Style {
        self.theme.style(token)
    }
    pub fn row(&self, width: usize) -> Row {
        Row::new(width, self.glyphs.ellipsis)
    }
    /// Cells that a status glyph takes.
    pub fn mark_width(&self) -> usize {
        if self.glyphs.ascii { 4 } else { 1 }
    }
    /// Time from `from` until `to` or now.
    pub fn span(&self, from: Option<Timestamp>, to: Option<Timestamp>) -> Option<u64> {
        from.map(|from| text::seconds(from, to.unwrap_or(self.now)))
    }
    /// The clock of something: exact when it is over, in minutes while it runs.
    pub fn clock(&self, from: Option<Timestamp>, to: Option<Timestamp>) -> String {
        let show = if to.is_some() { text::clock } else { text::running };
        self.span(from, to).map(show).unwrap_or_default()
    }
    /// A time that changes while one looks at it: in seconds, unless nothing is to move by itself.
    pub fn ticking(&self, seconds: u64) -> String {
        if self.screen.calm || seconds >= 60 { text::running(seconds) } else { text::clock(seconds) }
    }
    pub fn mark(&self, row: Row, mark: Mark) -> Row {
        row.cell(self.glyphs.mark(mark), self.mark_width(), self.style(mark.token()))
    }
}

/// How long something takes as a rule: `12–40s`, `1–3m`.
pub fn usual(cx: &Cx, (low, high): (u64, u64)) -> String {
    match high {
        ..90 => format!("{low}{}{high}s", cx.glyphs.dash),
        _ => format!("{}{}{}m", low / 60, cx.glyphs.dash, high.div_ceil(60)),
    }
}

/// Rows of a pane, from the top. The journal has rows of its own kind.
pub fn targets(pane: PaneId, model: &RunModel) -> Vec<Target> {
    match pane {
        PaneId::Pipeline => pipeline::targets(model),
        PaneId::Sync => sync::targets(model),
        PaneId::Journal => Vec::new(),
        PaneId::Bootkube => bootkube::targets(model),
        PaneId::Operators => operators::targets(model),
        PaneId::Checks => checks::targets(model),
        PaneId::Activity => activity::targets(model),
        PaneId::Resources => resources::targets(model),
    }
}

/// The row that matters when the operator has chosen none.
pub fn resting(pane: PaneId, model: &RunModel, targets: &[Target]) -> usize {
    match pane {
        PaneId::Pipeline => pipeline::resting(model, targets),
        PaneId::Bootkube => bootkube::resting(model, targets),
        PaneId::Activity => targets.len().saturating_sub(1),
        PaneId::Resources => resources::resting(model, targets),
        _ => 0,
    }
}

/// The command that made a row what it is, as an operator could type it; of a step that has made none, those that it
/// will make.
pub fn command_of(screen: &Screen, model: &RunModel, target: &Target) -> Option<String> {
    match target {
        Target::Step(id) => {
            let last = model.step(id).and_then(|record| record.actions.last());
            let planned = || {
                let actions = screen.texts.plans.get(id).filter(|actions| !actions.is_empty())?;
                Some(actions.iter().map(typed).collect::<Vec<_>>().join("\n"))
            };
            last.map(|action| typed(&action.action)).or_else(planned)
        }
        Target::Stage(id) => {
            let stage = model.plan.stage(id)?;
            let actions = stage.steps.iter().filter_map(|step| model.step(&step.id)).flat_map(|step| &step.actions);
            actions.max_by_key(|action| action.at).map(|action| typed(&action.action))
        }
        Target::Check(finding, check) => {
            let record = model.findings.iter().rfind(|record| record.finding.id == *finding)?;
            record.checks.iter().find(|known| known.check == *check)?.action.as_ref().map(typed)
        }
        Target::Csr(name) => Some(format!("oc adm certificate approve {}", text::printable(name))),
        Target::Operator(name) => Some(format!("oc describe clusteroperator {}", text::printable(name))),
        Target::Node(name) => Some(format!("oc describe node {}", text::printable(name))),
        Target::Machine(name) => {
            Some(format!("oc -n openshift-machine-api describe machine {}", text::printable(name)))
        }
        Target::Pool(name) => Some(format!("oc describe machineconfigpool {}", text::printable(name))),
        Target::ClusterVersion => Some("oc describe clusterversion version".to_owned()),
        _ => None,
    }
}

/// Where an action happens.
pub fn place(action: &Action) -> &str {
    match action {
        Action::Exec { host, .. } | Action::File { host, .. } => host,
        Action::Api { .. } => "aws",
        Action::Http { .. } => "http",
    }
}

/// An action without the place where it runs.
pub fn typed(action: &Action) -> String {
    match action {
        Action::Exec { command, .. } => command.clone(),
        Action::Api { call } => call.clone(),
        Action::Http { request } => request.clone(),
        Action::File { path, mode, .. } => format!("install -m {mode} /dev/stdin {path}"),
    }
}

/// Since when what a pane shows is not fresh: the link over which it comes is lost.
fn stale(cx: &Cx, pane: PaneId) -> Option<u64> {
    let link = match pane {
        PaneId::Operators => LinkName::Api,
        PaneId::Sync | PaneId::Bootkube => LinkName::Ssh,
        PaneId::Resources => LinkName::Aws,
        PaneId::Pipeline | PaneId::Journal | PaneId::Checks | PaneId::Activity => return None,
    };
    let record = cx.model.links.get(&link).filter(|_| cx.model.closed.is_none())?;
    let lost = matches!(record.state, LinkState::Retrying { .. } | LinkState::Down { .. });
    lost.then(|| text::seconds(record.since, cx.now))
}

/// Draw a pane into its rectangle.
pub fn draw(cx: &Cx, pane: PaneId, area: Rect, focused: bool, buf: &mut Buffer) {
    let title = match pane {
        PaneId::Pipeline => pipeline::title(cx),
        PaneId::Sync => sync::title(cx),
        PaneId::Journal => journal::title(cx),
        PaneId::Bootkube => bootkube::title(cx),
        PaneId::Operators => operators::title(cx),
        PaneId::Checks => checks::title(cx),
        PaneId::Activity => activity::title(cx),
        PaneId::Resources => resources::title(cx),
    };
    let stale = stale(cx, pane).filter(|_| !targets(pane, cx.model).is_empty());
    let title = match stale {
        Some(age) => {
            title.replacen(pane.name(), &format!("{} {} {} old", pane.name(), cx.glyphs.dot, text::since(age)), 1)
        }
        None => title,
    };
    let inner = frame(cx, area, focused, &title, buf);
    if inner.is_empty() {
        return;
    }
    match pane {
        PaneId::Journal => journal::draw(cx, inner, focused, buf),
        PaneId::Sync => sync::draw(cx, inner, focused, buf),
        PaneId::Operators => operators::draw(cx, inner, focused, buf),
        PaneId::Activity => activity::draw(cx, inner, focused, buf),
        _ => list(cx, pane, inner, focused, buf),
    }
    if stale.is_some() {
        buf.set_style(inner, Style::new().add_modifier(Modifier::DIM));
    }
}

/// Borders and title; what is inside.
pub fn frame(cx: &Cx, area: Rect, focused: bool, title: &str, buf: &mut Buffer) -> Rect {
    let style = cx.style(if focused { Token::BorderFocus } else { Token::Border });
    // A title is data; it must not take the colour of the border.
    let tone = if focused { style } else { Style::new().fg(Color::Reset).patch(cx.style(Token::Title)) };
    let title = text::cut(title, usize::from(area.width.saturating_sub(4)), cx.glyphs.ellipsis);
    let block = Block::new()
        .borders(Borders::ALL)
        .border_set(cx.glyphs.border)
        .border_style(style)
        .title(Line::styled(format!(" {title} "), tone));
    let inner = block.inner(area);
    block.render(area, buf);
    inner
}

/// Where the rows of a list stand inside the borders: below what the pane says of them all.
pub fn rows(pane: PaneId, model: &RunModel, inner: Rect) -> Rect {
    let above = match pane {
        PaneId::Sync => sync::above(model, inner),
        PaneId::Operators => operators::above(model, inner),
        _ => 0,
    };
    let below = if pane == PaneId::Activity { activity::below(inner) } else { 0 };
    let above = above.min(inner.height);
    Rect { y: inner.y + above, height: (inner.height - above).saturating_sub(below), ..inner }
}

/// The first row in sight of a list of this height, such that the chosen one is.
pub fn first(screen: &Screen, model: &RunModel, pane: PaneId, targets: &[Target], height: usize) -> usize {
    let chosen = screen.cursors.get(&pane).and_then(|chosen| targets.iter().position(|target| target == chosen));
    let selected = chosen.unwrap_or_else(|| resting(pane, model, targets));
    selected.saturating_sub(height / 2).min(targets.len().saturating_sub(height))
}

/// The rows of a pane around the chosen one.
pub fn list(cx: &Cx, pane: PaneId, area: Rect, focused: bool, buf: &mut Buffer) {
    let targets = targets(pane, cx.model);
    if targets.is_empty() {
        let hint = cx.row(usize::from(area.width)).text(empty(pane), cx.style(Token::Muted)).line();
        buf.set_line(area.x, area.y, &hint, area.width);
        return;
    }
    let chosen = cx.screen.cursors.get(&pane).and_then(|chosen| targets.iter().position(|target| target == chosen));
    let selected = chosen.unwrap_or_else(|| resting(pane, cx.model, &targets));
    let height = usize::from(area.height);
    let first = first(cx.screen, cx.model, pane, &targets, height);
    for (place, target) in targets.iter().enumerate().skip(first).take(height) {
        let width = usize::from(area.width).saturating_sub(1);
        let line = match pane {
            PaneId::Pipeline => pipeline::line(cx, target, width),
            PaneId::Sync => sync::line(cx, target, width),
            PaneId::Bootkube => bootkube::line(cx, target, width),
            PaneId::Operators => operators::line(cx, target, width),
            PaneId::Checks => checks::line(cx, target, width),
            PaneId::Activity => activity::line(cx, target, width),
            PaneId::Resources => resources::line(cx, target, width),
            PaneId::Journal => Line::default(),
        };
        let y = area.y + u16::try_from(place - first).unwrap_or(0);
        put(cx, area, y, &line, focused && place == selected, buf);
    }
}

/// One row with its selection: reversed, and `>` before it.
pub fn put(cx: &Cx, area: Rect, y: u16, line: &Line, selected: bool, buf: &mut Buffer) {
    if selected {
        buf.set_string(area.x, y, ">", cx.style(Token::Selection));
    }
    if area.width > 1 {
        buf.set_line(area.x + 1, y, line, area.width - 1);
    }
    if selected {
        // One bar: in reverse every colour of the row would be a patch of background.
        let plain = Style::new().fg(Color::Reset).bg(Color::Reset);
        buf.set_style(Rect { y, height: 1, ..area }, plain.patch(cx.style(Token::Selection)));
    }
}

fn empty(pane: PaneId) -> &'static str {
    match pane {
        PaneId::Pipeline => "no plan yet",
        PaneId::Sync => "no image is planned yet; stage 06 makes the plan",
        PaneId::Journal => "no line yet",
        PaneId::Bootkube => "the bootstrap node has said nothing yet",
        PaneId::Operators => "the cluster's API has not answered yet",
        PaneId::Checks => "no finding is open",
        PaneId::Activity => "nothing has happened yet",
        PaneId::Resources => "nothing has been made yet",
    }
}
