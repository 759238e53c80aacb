//! Where the panes stand, from `assets/layouts.toml`.

mod seams;

use std::collections::{BTreeMap, BTreeSet};

use ratatui::layout::{Constraint, Layout as Split, Rect};
use serde::{Deserialize, Serialize};

use crate::model::event::RunOutcome;
use crate::model::run::RunModel;

pub use seams::Seam;

/// One of the eight panes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PaneId {
    Pipeline,
    Sync,
    Journal,
    Bootkube,
    Operators,
    Checks,
    Activity,
    Resources,
}

impl PaneId {
    pub const ALL: [PaneId; 8] = [
        PaneId::Pipeline,
        PaneId::Sync,
        PaneId::Journal,
        PaneId::Bootkube,
        PaneId::Operators,
        PaneId::Checks,
        PaneId::Activity,
        PaneId::Resources,
    ];

    /// From 1: the key that goes there.
    pub fn number(self) -> usize {
        Self::ALL.iter().position(|pane| *pane == self).map_or(0, |place| place + 1)
    }

    pub fn name(self) -> &'static str {
        match self {
            PaneId::Pipeline => "Pipeline",
            PaneId::Sync => "Image sync",
            PaneId::Journal => "Journal",
            PaneId::Bootkube => "Bootkube",
            PaneId::Operators => "Operators",
            PaneId::Checks => "Checks",
            PaneId::Activity => "Activity",
            PaneId::Resources => "Resources",
        }
    }
}

/// What the run is doing, as far as the layout cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    Any,
    /// Things are made or taken away: stages 01, 02 and 10.
    Resources,
    Sync,
    Install,
}

impl Phase {
    pub fn of(model: &RunModel) -> Phase {
        // What was built stays on the screen.
        if model.closed.as_ref().is_some_and(|(outcome, ..)| *outcome == RunOutcome::Done) {
            return Phase::Install;
        }
        match model.current_stage().map(|stage| stage.number().to_owned()).as_deref() {
            Some("01" | "02" | "10") if !model.objects.is_empty() => Phase::Resources,
            Some("06") => Phase::Sync,
            Some("08" | "09") => Phase::Install,
            None if !model.plan.stages.is_empty() => Phase::Install,
            _ => Phase::Any,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum Size {
    Cells(u16),
    Percent(String),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    size: Option<Size>,
    #[serde(default)]
    rows: Vec<Node>,
    #[serde(default)]
    columns: Vec<Node>,
    pane: Option<PaneId>,
    #[serde(default)]
    main: bool,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    min: (u16, u16),
    phase: Phase,
    #[serde(default = "yes")]
    header: bool,
    #[serde(default = "yes")]
    footer: bool,
    #[serde(default)]
    strip: bool,
    body: Option<Node>,
}

fn yes() -> bool {
    true
}

/// All layouts, the roomiest first.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layouts {
    layout: Vec<Entry>,
}

#[derive(Debug, thiserror::Error)]
#[error("layouts: {0}")]
pub struct LayoutError(String);

/// What the operator has changed about all layouts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shape {
    pub hidden: BTreeSet<PaneId>,
    /// Whose box it is, and who stands there instead.
    pub places: BTreeMap<PaneId, PaneId>,
    /// By box of a layout, as [`Layouts`] names it: the sizes that its parts were given, as parts of their sum.
    pub sizes: BTreeMap<String, Vec<u16>>,
}

impl Shape {
    /// Who stands in the box of this pane.
    fn stands_in(&self, owner: PaneId) -> PaneId {
        self.places.get(&owner).copied().unwrap_or(owner)
    }

    /// Let two panes change places.
    pub fn swap(&mut self, one: PaneId, other: PaneId) {
        let of = |pane: PaneId| PaneId::ALL.into_iter().find(|owner| self.stands_in(*owner) == pane).unwrap_or(pane);
        let (first, second) = (of(one), of(other));
        self.places.insert(first, other);
        self.places.insert(second, one);
        self.places.retain(|owner, pane| owner != pane);
    }
}

/// The rectangles of one frame.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Arrangement {
    pub name: String,
    pub header: Option<Rect>,
    pub strip: Option<Rect>,
    pub timeline: Option<Rect>,
    pub footer: Option<Rect>,
    pub panes: Vec<(PaneId, Rect)>,
}

impl Arrangement {
    pub fn rect(&self, pane: PaneId) -> Option<Rect> {
        self.panes.iter().find(|(id, _)| *id == pane).map(|(_, rect)| *rect)
    }
}

impl Layouts {
    /// The file that comes with the program.
    pub const EMBEDDED: &str = include_str!("../../assets/layouts.toml");

    pub fn embedded() -> Result<Self, LayoutError> {
        Self::parse(Self::EMBEDDED)
    }

    /// With the operator's own (name of the file, text) before them; one of the same name takes its place.
    pub fn with(mut self, file: &str, text: &str) -> Result<Self, LayoutError> {
        let own = Self::read(text).map_err(|LayoutError(why)| LayoutError(format!("{file}: {why}")))?;
        self.layout.retain(|entry| own.layout.iter().all(|mine| mine.name != entry.name));
        self.layout.splice(..0, own.layout);
        self.fits_everywhere().map_err(|LayoutError(why)| LayoutError(format!("{file}: {why}")))?;
        Ok(self)
    }

    pub fn parse(text: &str) -> Result<Self, LayoutError> {
        let layouts = Self::read(text)?;
        layouts.fits_everywhere()?;
        Ok(layouts)
    }

    fn read(text: &str) -> Result<Self, LayoutError> {
        let layouts: Layouts = toml::from_str(text).map_err(|error| LayoutError(error.to_string()))?;
        for entry in &layouts.layout {
            let mut mains = 0;
            let mut seen = Vec::new();
            if let Some(body) = &entry.body {
                check(body, &mut mains, &mut seen).map_err(|why| LayoutError(format!("{}: {why}", entry.name)))?;
                if mains != 1 {
                    return Err(LayoutError(format!("{}: one box must be `main`, not {mains}", entry.name)));
                }
            }
        }
        Ok(layouts)
    }

    fn fits_everywhere(&self) -> Result<(), LayoutError> {
        let fits = self.layout.iter().any(|entry| entry.min == (0, 0) && entry.phase == Phase::Any);
        let why = "one layout must fit everywhere: min = [0, 0], phase = \"any\"";
        fits.then_some(()).ok_or_else(|| LayoutError(why.into()))
    }

    fn pick(&self, area: Rect, phase: Phase) -> Option<&Entry> {
        self.layout.iter().find(|entry| {
            area.width >= entry.min.0
                && area.height >= entry.min.1
                && (entry.phase == Phase::Any || entry.phase == phase)
        })
    }

    /// Take the rows around the panes off `area`: what they are, and what is left.
    fn surround(&self, area: Rect, phase: Phase, timeline: bool) -> Option<(&Entry, Arrangement, Rect)> {
        let entry = self.pick(area, phase)?;
        let mut out = Arrangement { name: entry.name.clone(), ..Arrangement::default() };
        let mut rest = area;
        let mut take_top = |wanted: bool| -> Option<Rect> {
            (wanted && rest.height > 0).then(|| {
                let row = Rect { height: 1, ..rest };
                rest = Rect { y: rest.y + 1, height: rest.height - 1, ..rest };
                row
            })
        };
        out.header = take_top(entry.header);
        out.strip = take_top(entry.strip);
        let mut take_bottom = |wanted: bool| -> Option<Rect> {
            (wanted && rest.height > 0).then(|| {
                rest.height -= 1;
                Rect { y: rest.y + rest.height, height: 1, ..rest }
            })
        };
        out.footer = take_bottom(entry.footer);
        out.timeline = take_bottom(timeline && entry.body.is_some());
        Some((entry, out, rest))
    }

    /// Divide `area`. `focus` always gets a place: its own, or the main one.
    pub fn arrange(
        &self,
        area: Rect,
        phase: Phase,
        focus: PaneId,
        zoom: bool,
        timeline: bool,
        shape: &Shape,
    ) -> Arrangement {
        let Some((entry, mut out, rest)) = self.surround(area, phase, timeline) else { return Arrangement::default() };
        if let Some(body) = &entry.body {
            if zoom {
                out.panes.push((focus, rest));
            } else {
                let mut placed = Vec::new();
                place(body, rest, shape, &entry.name, &mut placed);
                let homeless = !placed.iter().any(|(pane, _, _)| *pane == focus);
                // Its own box, else the main one, else the first, else all there is.
                if placed.is_empty() {
                    placed.push((focus, rest, true));
                }
                let main = placed.iter().position(|(_, _, main)| *main).unwrap_or(0);
                if let Some((pane, _, _)) = placed.get_mut(main).filter(|_| homeless) {
                    *pane = focus;
                }
                out.panes = placed.into_iter().map(|(pane, rect, _)| (pane, rect)).collect();
            }
        }
        out
    }
}

fn check(node: &Node, mains: &mut usize, seen: &mut Vec<PaneId>) -> Result<(), String> {
    let kinds = [!node.rows.is_empty(), !node.columns.is_empty(), node.pane.is_some()];
    if kinds.iter().filter(|is| **is).count() != 1 {
        return Err("a box has `rows`, `columns` or a `pane`, and only one of them".into());
    }
    if let Some(Size::Percent(text)) = &node.size
        && text.strip_suffix('%').and_then(|number| number.parse::<u16>().ok()).is_none_or(|number| number > 100)
    {
        return Err(format!("size {text:?} is neither a number of cells nor a percentage"));
    }
    *mains += usize::from(node.main);
    if let Some(pane) = node.pane {
        if seen.contains(&pane) {
            return Err(format!("{} stands twice", pane.name()));
        }
        seen.push(pane);
    }
    node.rows.iter().chain(&node.columns).try_for_each(|child| check(child, mains, seen))
}

/// Something in this box is to be seen.
fn visible(node: &Node, shape: &Shape) -> bool {
    match node.pane {
        Some(pane) => !shape.hidden.contains(&shape.stands_in(pane)),
        None => node.rows.iter().chain(&node.columns).any(|child| visible(child, shape)),
    }
}

fn place(node: &Node, area: Rect, shape: &Shape, name: &str, out: &mut Vec<(PaneId, Rect, bool)>) {
    if let Some(pane) = node.pane {
        if visible(node, shape) {
            out.push((shape.stands_in(pane), area, node.main));
        }
        return;
    }
    for (at, child, area) in divide(node, area, shape, name) {
        place(child, area, shape, &format!("{name}.{at}"), out);
    }
}

/// The parts of a box that are to be seen: their numbers and areas. `name` is that of the box among all layouts.
fn divide<'a>(node: &'a Node, area: Rect, shape: &Shape, name: &str) -> Vec<(usize, &'a Node, Rect)> {
    let (all, split) = if node.rows.is_empty() {
        (&node.columns, Split::horizontal([] as [Constraint; 0]))
    } else {
        (&node.rows, Split::vertical([] as [Constraint; 0]))
    };
    let children: Vec<(usize, &Node)> = all.iter().enumerate().filter(|(_, child)| visible(child, shape)).collect();
    // Sizes of a layout that has other parts now say nothing.
    let given = shape.sizes.get(name).filter(|sizes| sizes.len() == all.len());
    let sizes: Vec<Constraint> = match given {
        Some(sizes) => {
            // What was hidden while the others were given theirs gets a fair share.
            let fair = sizes.iter().sum::<u16>() / u16::try_from(sizes.len()).unwrap_or(1).max(1);
            let of = |at: usize| sizes.get(at).copied().filter(|size| *size > 0).unwrap_or(fair.max(1));
            children.iter().map(|(at, _)| Constraint::Fill(of(*at))).collect()
        }
        None => {
            // When all that took the rest is hidden, the last one takes it.
            let fills = children.iter().any(|(_, child)| child.size.is_none());
            let last = children.last().map(|(at, _)| *at);
            let size = |(at, child): &(usize, &Node)| match &child.size {
                _ if !fills && Some(*at) == last => Constraint::Fill(1),
                Some(Size::Cells(cells)) => Constraint::Length(*cells),
                Some(Size::Percent(text)) => Constraint::Percentage(text.trim_end_matches('%').parse().unwrap_or(50)),
                None => Constraint::Fill(1),
            };
            children.iter().map(size).collect()
        }
    };
    let areas = split.constraints(sizes).split(area);
    children.into_iter().zip(areas.iter()).map(|((at, child), area)| (at, child, *area)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_is_valid_and_is_used() {
        let layouts = Layouts::embedded().unwrap();
        let mut used = std::collections::BTreeSet::new();
        for (width, height) in [(1, 1), (39, 9), (40, 10), (80, 24), (110, 30), (160, 45), (300, 100)] {
            for phase in [Phase::Any, Phase::Resources, Phase::Sync, Phase::Install] {
                let area = Rect::new(0, 0, width, height);
                used.insert(layouts.arrange(area, phase, PaneId::Pipeline, false, false, &Shape::default()).name);
                for pane in PaneId::ALL {
                    let arranged = layouts.arrange(area, phase, pane, false, true, &Shape::default());
                    assert!(arranged.panes.is_empty() || arranged.rect(pane).is_some(), "{} {pane:?}", arranged.name);
                    assert!(arranged.panes.iter().all(|(_, rect)| area.union(*rect) == area));
                }
            }
        }
        assert_eq!(used.len(), layouts.layout.len(), "{used:?}");
    }

    #[test]
    fn the_wide_layouts_show_most_panes_at_once() {
        let layouts = Layouts::embedded().unwrap();
        for phase in [Phase::Any, Phase::Resources, Phase::Sync, Phase::Install] {
            let wide =
                layouts.arrange(Rect::new(0, 0, 200, 60), phase, PaneId::Pipeline, false, false, &Shape::default());
            assert!(wide.panes.len() >= 5, "{phase:?} {}", wide.panes.len());
        }
    }

    #[test]
    fn a_wrong_layout_names_itself() {
        let text = "[[layout]]\nname = \"x\"\nmin = [0, 0]\nphase = \"any\"\nbody = { pane = \"sync\" }\n";
        assert_eq!(Layouts::parse(text).unwrap_err().to_string(), "layouts: x: one box must be `main`, not 0");
    }
}
