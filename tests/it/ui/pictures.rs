//! Pictures of every pane and every overlay in five sizes, from a recorded run: the text, and below it which token each
//! cell has.
//!
//! A picture is drawn with a theme in which every token has a colour of its own, so it holds for all themes; equal rows
//! in a row are counted. At its end stands a number for each of four real themes: when only such a number changes, what
//! changed is that theme's file.

use std::collections::BTreeMap;
use std::fmt::Write;

use bartizan::diagnose::Checklists;
use bartizan::diagnose::checklist::Checklist;
use bartizan::model::run::RunModel;
use bartizan::ui::history::History;
use bartizan::ui::layout::PaneId;
use bartizan::ui::theme::{Depth, Theme, Themes, Token};
use bartizan::ui::{Input, screenshot};
use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

use super::Cockpit;
use super::recorded::{self, Moment};

const SIZES: [(u16, u16); 5] = [(40, 10), (60, 16), (80, 24), (120, 40), (200, 60)];
const THEMES: [(&str, Depth); 4] =
    [("dark", Depth::True), ("light", Depth::True), ("high-contrast", Depth::Indexed), ("dark", Depth::Mono)];

/// Token number n has the colour n; the selection is reversed as in all themes.
fn probe() -> Theme {
    let colours = Token::ALL.iter().enumerate().map(|(place, token)| match token {
        Token::Text => "text = \"plain\"\n".to_owned(),
        Token::Selection => "selection = \"reverse\"\n".to_owned(),
        token => format!("\"{}\" = \"#0000{place:02x}\"\n", token.name()),
    });
    let mut themes = Themes::default();
    themes.add("probe", &format!("[tokens]\n{}", colours.collect::<String>())).unwrap();
    themes.load("probe", Depth::True).unwrap()
}

fn token(cell: &Cell) -> String {
    let mut name = match cell.fg {
        Color::Rgb(0, 0, place) => Token::ALL[usize::from(place)].name().to_owned(),
        Color::Reset => String::new(),
        other => panic!("{other:?} is of no token"),
    };
    assert_eq!(cell.bg, Color::Reset);
    for (modifier, sign) in [(Modifier::REVERSED, "selection"), (Modifier::DIM, "dim")] {
        if cell.modifier.contains(modifier) {
            name = if name.is_empty() { sign.to_owned() } else { format!("{name}+{sign}") };
        }
    }
    name
}

/// Rows, equal ones that follow each other counted.
fn folded(rows: &[String]) -> String {
    rows.chunk_by(|one, next| one == next).fold(String::new(), |mut out, same| {
        match same.len() {
            1 => writeln!(out, "{}", same[0]).unwrap(),
            count => writeln!(out, "{}\n  the same, {count} in all", same[0]).unwrap(),
        }
        out
    })
}

fn picture(buf: &Buffer) -> String {
    let mut letters: BTreeMap<String, char> = BTreeMap::new();
    let rows: Vec<String> = (0..buf.area.height)
        .map(|y| {
            let names: Vec<String> = (0..buf.area.width).map(|x| token(&buf[(x, y)])).collect();
            let runs = names.chunk_by(|one, next| one == next).map(|run| {
                let next = char::from(b'a' + u8::try_from(letters.len()).unwrap());
                let letter = if run[0].is_empty() { '.' } else { *letters.entry(run[0].clone()).or_insert(next) };
                format!("{letter}{}", run.len())
            });
            runs.collect::<Vec<_>>().join(" ")
        })
        .collect();
    let legend: Vec<String> = letters.iter().map(|(name, letter)| format!("{letter}={name}")).collect();
    let text: Vec<String> = screenshot::plain(buf).lines().map(str::to_owned).collect();
    format!("{}{}\n{}", folded(&text), legend.join(" "), folded(&rows))
}

/// One number for all cells and their styles: FNV-1a of 64 bits, the same in every build.
fn number(buf: &Buffer) -> u64 {
    let styled = |cell: &Cell| format!("{}{:?}{:?}{:?}", cell.symbol(), cell.fg, cell.bg, cell.modifier).into_bytes();
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    buf.content.iter().flat_map(styled).fold(0xcbf2_9ce4_8422_2325, step)
}

fn album(moment: Moment, keys: &str) -> String {
    let mut out = String::new();
    let titled = |list: &Checklist| -> Vec<_> {
        list.checks.iter().map(|check| ((list.id.clone(), check.id.clone()), check.title.clone())).collect()
    };
    let titles: BTreeMap<_, _> = Checklists::builtin().unwrap().iter().flat_map(titled).collect();
    for (width, height) in SIZES {
        let mut cockpit = Cockpit::new(recorded::at(moment), width, height);
        cockpit.screen.texts.checks.clone_from(&titles);
        cockpit.keys(keys);
        cockpit.tell(Input::Moved(History::new(cockpit.run.events.clone(), RunModel::default()).place()));
        cockpit.theme = probe();
        write!(out, "{width}x{height}\n{}", picture(&cockpit.cells())).unwrap();
        for (name, depth) in THEMES {
            cockpit.theme = Theme::load(name, depth).unwrap();
            writeln!(out, "{} {:016x}", cockpit.theme.name, number(&cockpit.cells())).unwrap();
        }
        out.push('\n');
    }
    out
}

#[test]
fn every_pane_and_every_overlay_in_five_sizes_and_four_themes() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../../snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for pane in PaneId::ALL {
            let moment = match pane {
                PaneId::Sync => Moment::Sync,
                PaneId::Resources => Moment::Teardown,
                PaneId::Bootkube => Moment::Bootkube,
                PaneId::Operators => Moment::Operators,
                _ => Moment::Failed,
            };
            let name = pane.name().to_lowercase().replace(' ', "-");
            insta::assert_snapshot!(format!("pane-{name}"), album(moment, &format!("{} z", pane.number())));
        }
        for (name, keys) in [
            ("help", "6 z ?"),
            ("help-search", "6 z ? / t i m e"),
            ("palette", "6 z : s t"),
            ("change", "6 z g r"),
            ("recover", "6 z g a"),
            ("destroy", "6 z j j j j j j j g a"),
            ("leave", "6 z q"),
            ("detail", "6 z enter"),
            ("keys", "6 z g"),
            ("timeline", "6 z g ."),
            ("filter", "3 z f w a i t"),
            ("search", "3 z / c e r t"),
            ("all-logs", "3 z M"),
        ] {
            insta::assert_snapshot!(format!("over-{name}"), album(Moment::Failed, keys));
        }
    });
}
