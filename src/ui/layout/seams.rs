//! The lines between panes, which an operator moves: by keys for the focused pane, or with the mouse.

use ratatui::layout::{Position, Rect};

use super::{Layouts, Node, Phase, Shape, divide};

/// Less than this nothing is shown in: columns and rows of a pane with its borders.
const LEAST: (u16, u16) = (12, 3);

/// A line between two neighbours of the same box.
#[derive(Debug, Clone, PartialEq)]
pub struct Seam {
    /// The box, as the layouts name it, and which of its parts stand before and behind the line.
    name: String,
    before: usize,
    behind: usize,
    /// Sizes of all parts of the box as they are drawn; of a hidden one 0.
    sizes: Vec<u16>,
    /// It stands upright, between columns.
    pub upright: bool,
    /// Where both neighbours are.
    pub areas: [Rect; 2],
}

impl Layouts {
    /// All lines that can be moved.
    pub fn seams(&self, area: Rect, phase: Phase, timeline: bool, shape: &Shape) -> Vec<Seam> {
        let mut out = Vec::new();
        if let Some((entry, _, rest)) = self.surround(area, phase, timeline)
            && let Some(body) = &entry.body
        {
            collect(body, rest, shape, &entry.name, &mut out);
        }
        out
    }
}

fn collect(node: &Node, area: Rect, shape: &Shape, name: &str, out: &mut Vec<Seam>) {
    let parts = divide(node, area, shape, name);
    let upright = node.rows.is_empty();
    let mut sizes = vec![0; node.rows.len().max(node.columns.len())];
    for (at, _, area) in &parts {
        if let Some(size) = sizes.get_mut(*at) {
            *size = if upright { area.width } else { area.height };
        }
    }
    for pair in parts.windows(2) {
        if let [(before, _, one), (behind, _, other)] = pair {
            let (name, sizes) = (name.to_owned(), sizes.clone());
            out.push(Seam { name, before: *before, behind: *behind, sizes, upright, areas: [*one, *other] });
        }
    }
    for (at, child, area) in parts {
        collect(child, area, shape, &format!("{name}.{at}"), out);
    }
}

impl Seam {
    /// The line that makes a pane at `rect` wider or higher, and whether it moves back for that: the nearest one, and
    /// of two the one behind the pane.
    pub fn of(seams: Vec<Seam>, rect: Rect, upright: bool) -> Option<(Seam, bool)> {
        let around = |seam: &Seam| seam.areas[0].union(seam.areas[1]).area();
        let within = |area: Rect| area.intersection(rect) == rect;
        let mine = seams.into_iter().filter(|seam| seam.upright == upright);
        let mine = mine.filter(|seam| seam.areas.into_iter().any(within));
        let back = |seam: &Seam| within(seam.areas[1]);
        // A line of an outer box is farther away than any of an inner one.
        mine.min_by_key(|seam| (around(seam), back(seam))).map(|seam| {
            let back = back(&seam);
            (seam, back)
        })
    }

    /// The first cell behind the line.
    pub fn at(&self) -> u16 {
        if self.upright { self.areas[1].x } else { self.areas[1].y }
    }

    /// The pointer is on one of the two borders that meet here.
    pub fn holds(&self, x: u16, y: u16) -> bool {
        let [one, other] = self.areas;
        let here = if self.upright { x } else { y };
        one.union(other).contains(Position { x, y }) && (here == self.at() || here + 1 == self.at())
    }

    /// The same line, after others have been drawn.
    pub fn is(&self, other: &Seam) -> bool {
        (&self.name, self.before) == (&other.name, other.before)
    }

    /// Move it by so many cells, as far as there is room. False when it stays.
    pub fn shift(&self, by: i32, shape: &mut Shape) -> bool {
        let least = if self.upright { LEAST.0 } else { LEAST.1 };
        let size = |at: usize| self.sizes.get(at).copied().unwrap_or(0);
        let room = |at: usize| i32::from(size(at).saturating_sub(least));
        let by = by.clamp(-room(self.before), room(self.behind));
        if by == 0 {
            return false;
        }
        let hidden = shape.sizes.get(&self.name).cloned().unwrap_or_default();
        let changed = self.sizes.iter().enumerate().map(|(at, size)| match at {
            at if at == self.before => size.saturating_add_signed(i16::try_from(by).unwrap_or(0)),
            at if at == self.behind => size.saturating_add_signed(i16::try_from(-by).unwrap_or(0)),
            at if *size == 0 => hidden.get(at).copied().unwrap_or(0),
            _ => *size,
        });
        let changed = changed.collect();
        shape.sizes.insert(self.name.clone(), changed);
        true
    }
}
