//! The mouse, when it is ours: the wheel scrolls what is under it, a click chooses it, and the lines between panes can be
//! dragged.

use ratatui::layout::{Position, Rect};

use crate::model::run::RunModel;
use crate::ui::history::Seek;
use crate::ui::layout::PaneId;
use crate::ui::panes;
use crate::ui::screen::{Effect, Overlay, Pointer, Screen};

use super::move_by;

/// Rows that one notch of the wheel moves.
const NOTCH: isize = 3;

pub(super) fn act(screen: &mut Screen, model: &RunModel, pointer: Pointer) -> Vec<Effect> {
    let (x, y) = match pointer {
        Pointer::Click { x, y } | Pointer::Wheel { x, y, .. } => (x, y),
        Pointer::Drag { x, y } => {
            drag(screen, model, x, y);
            return Vec::new();
        }
        Pointer::Release => {
            screen.grip = None;
            return Vec::new();
        }
    };
    if let Some(overlay) = &mut screen.overlay {
        if let (Pointer::Wheel { down, .. }, Overlay::Help { scroll, .. } | Overlay::Detail { scroll, .. }) =
            (pointer, overlay)
        {
            *scroll = scroll.saturating_add_signed(if down { NOTCH } else { -NOTCH });
        }
        return Vec::new();
    }
    let arranged = screen.arrange(model);
    let under = |rect: &Rect| rect.contains(Position { x, y });
    if let Some(slider) = arranged.timeline.filter(under) {
        let share = u32::from(x - slider.x) * 1000 / u32::from(slider.width.max(1));
        return vec![Effect::Seek(Seek::Share(u16::try_from(share).unwrap_or(0)))];
    }
    let Some((pane, rect)) = arranged.panes.into_iter().find(|(_, rect)| under(rect)) else { return Vec::new() };
    let height = usize::from(rect.height.saturating_sub(2)).max(1);
    match pointer {
        Pointer::Wheel { down, .. } => move_by(screen, model, pane, if down { NOTCH } else { -NOTCH }, height),
        Pointer::Drag { .. } | Pointer::Release => {}
        Pointer::Click { .. } => {
            screen.grip = screen.seams(model).into_iter().find(|seam| seam.holds(x, y));
            screen.focus = Some(pane);
            choose(screen, model, pane, rect, y);
        }
    }
    Vec::new()
}

/// The line that is held goes where the pointer is.
fn drag(screen: &mut Screen, model: &RunModel, x: u16, y: u16) {
    let Some(held) = &screen.grip else { return };
    let now = screen.seams(model).into_iter().find(|seam| seam.is(held));
    if let Some(seam) = now {
        let to = if seam.upright { x } else { y };
        seam.shift(i32::from(to) - i32::from(seam.at()), &mut screen.shape);
    }
}

/// The row of the pane that is drawn at `y`.
fn choose(screen: &mut Screen, model: &RunModel, pane: PaneId, rect: Rect, y: u16) {
    let inner =
        Rect { y: rect.y + 1, height: rect.height.saturating_sub(2), width: rect.width.saturating_sub(2), ..rect };
    if pane == PaneId::Journal {
        let height = usize::from(inner.height);
        if let Some(number) = y.checked_sub(inner.y).and_then(|row| {
            panes::journal::at(screen, usize::from(inner.width).saturating_sub(1), height, usize::from(row))
        }) {
            screen.log.go(number, height);
        }
        return;
    }
    let list = panes::rows(pane, model, inner);
    let targets = panes::targets(pane, model);
    let first = panes::first(screen, model, pane, &targets, usize::from(list.height));
    let Some(row) = y.checked_sub(list.y).filter(|_| y < list.bottom()) else { return };
    if let Some(target) = targets.get(first + usize::from(row)) {
        screen.cursors.insert(pane, target.clone());
    }
}
