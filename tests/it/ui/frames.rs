//! What is drawn: text and styles at the sizes of the trade, every small size, hostile text, no colour.

use std::collections::BTreeMap;
use std::fmt::Write;

use bartizan::model::event::{Data, Level, Outcome};
use bartizan::model::plan::StepId;
use bartizan::ui::glyph::Glyphs;
use bartizan::ui::layout::PaneId;
use bartizan::ui::theme::{Depth, Theme};
use bartizan::ui::{Input, screenshot, text};
use proptest::prelude::*;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};

use super::Cockpit;
use super::fixture::{self, Builder};

/// Text, and below it the styles: one letter per cell, runs counted, with a legend.
fn picture(buf: &Buffer) -> String {
    let mut letters: BTreeMap<String, char> = BTreeMap::new();
    let mut styles = String::new();
    for y in 0..buf.area.height {
        let mut runs: Vec<(char, usize)> = Vec::new();
        for x in 0..buf.area.width {
            let cell = &buf[(x, y)];
            let name = match (cell.fg, cell.bg, cell.modifier) {
                (Color::Reset, Color::Reset, modifier) if modifier.is_empty() => String::new(),
                (fg, bg, modifier) => {
                    let bg = if bg == Color::Reset { String::new() } else { format!(" on {bg}") };
                    format!("{fg}{bg}{}", if modifier.is_empty() { String::new() } else { format!(" {modifier:?}") })
                }
            };
            let next = char::from(b'a' + u8::try_from(letters.len()).unwrap());
            let letter = if name.is_empty() { '.' } else { *letters.entry(name).or_insert(next) };
            match runs.last_mut() {
                Some((last, count)) if *last == letter => *count += 1,
                _ => runs.push((letter, 1)),
            }
        }
        let row: Vec<String> = runs.iter().map(|(letter, count)| format!("{letter}{count}")).collect();
        writeln!(styles, "{y:3} {}", row.join(" ")).unwrap();
    }
    let legend: String = letters.iter().map(|(name, letter)| format!("{letter} = {name}\n")).collect();
    format!("{}\n{legend}\n{styles}", screenshot::plain(buf))
}

#[test]
fn the_screen_at_the_sizes_of_the_trade() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../../snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for (name, make) in [
            ("network", fixture::network_making as fn() -> Builder),
            ("teardown", fixture::teardown_running),
            ("sync", fixture::sync_running),
            ("install", fixture::install_running),
            ("failed", fixture::install_failed),
        ] {
            for (width, height) in [(80, 24), (120, 40), (200, 60)] {
                let cockpit = Cockpit::new(make(), width, height);
                insta::assert_snapshot!(format!("{name}-{width}x{height}"), picture(&cockpit.cells()));
            }
        }
        let mut ascii = Cockpit::new(fixture::install_failed(), 80, 24);
        ascii.screen.glyphs = Glyphs::ASCII;
        ascii.theme = Theme::load("dark", Depth::Mono).unwrap();
        insta::assert_snapshot!("failed-80x24-ascii-mono", picture(&ascii.cells()));
    });
}

#[test]
fn ascii_means_ascii() {
    for run in [fixture::sync_running(), fixture::install_failed()] {
        let mut cockpit = Cockpit::new(run, 200, 60);
        cockpit.screen.glyphs = Glyphs::ASCII;
        for open in ["?", "esc", ":", "esc", "g ."] {
            cockpit.keys(open);
            let text = cockpit.text();
            let strange: String = text.lines().filter(|line| !line.contains("404") && !line.is_ascii()).collect();
            assert!(strange.is_empty(), "{strange}");
        }
    }
}

#[test]
fn every_layout_is_drawn_from_one_cell_to_three_hundred_by_a_hundred() {
    for run in [fixture::teardown_running, fixture::sync_running, fixture::hostile, Builder::new] {
        let mut cockpit = Cockpit::new(run(), 1, 1);
        cockpit.screen.timeline = true;
        for width in (1..=300).step_by(23) {
            for height in (1..=100).step_by(11) {
                cockpit.tell(Input::Resize(width, height));
                cockpit.cells();
            }
        }
    }
}

#[test]
fn no_size_panics_and_every_pane_has_its_place() {
    for run in [fixture::network_making, fixture::sync_running, fixture::install_failed, fixture::hostile, Builder::new]
    {
        let mut cockpit = Cockpit::new(run(), 1, 1);
        for width in 1..=30 {
            for height in 1..=10 {
                cockpit.tell(Input::Resize(width, height));
                cockpit.cells();
            }
        }
        for (width, height) in
            [(39, 9), (41, 11), (79, 24), (80, 24), (110, 30), (160, 45), (201, 61), (300, 2), (3, 90)]
        {
            cockpit.tell(Input::Resize(width, height));
            for keys in [
                "1", "2", "3", "w", "4", "5", "6", "7", "8", "z", "?", "esc", ":", "esc", "enter", "esc", "z", "g .",
                "q", "esc", "esc",
            ] {
                cockpit.keys(keys);
                cockpit.cells();
            }
        }
    }
}

/// Borders of a pane stand where the arrangement puts them, whatever is inside.
fn borders_are_whole(cockpit: &Cockpit) {
    let buf = cockpit.cells();
    let arranged = cockpit.screen.arrange(cockpit.model());
    for (pane, rect) in &arranged.panes {
        for y in rect.top() + 1..rect.bottom() - 1 {
            for x in [rect.left(), rect.right() - 1] {
                assert_eq!(buf[(x, y)].symbol(), "│", "{pane:?} {x},{y}\n{}", cockpit.text());
            }
        }
    }
    for cell in &buf.content {
        let symbol = cell.symbol();
        assert_eq!(text::printable(symbol), symbol, "{symbol:?}");
        assert!(!symbol.chars().any(char::is_control), "{symbol:?}");
    }
    for row in screenshot::plain(&buf).lines() {
        assert!(text::width(row) <= usize::from(buf.area.width), "{row}");
    }
}

#[test]
fn hostile_text_breaks_nothing() {
    for (width, height) in [(80, 24), (81, 25), (120, 40), (160, 45), (200, 60)] {
        let mut cockpit = Cockpit::new(fixture::hostile(), width, height);
        for pane in PaneId::ALL {
            cockpit.keys(&pane.number().to_string());
            borders_are_whole(&cockpit);
            cockpit.keys("enter");
            let buf = cockpit.cells();
            assert!(buf.content.iter().all(|cell| text::printable(cell.symbol()) == cell.symbol()));
            cockpit.keys("esc");
        }
        cockpit.keys("3 w");
        borders_are_whole(&cockpit);
    }
}

#[test]
fn without_colour_no_cell_has_one_and_the_chosen_row_still_shows() {
    let mut cockpit = Cockpit::new(fixture::install_failed(), 120, 40);
    cockpit.theme = Theme::load("deuteranopia", Depth::Mono).unwrap();
    cockpit.keys("6 j");
    for keys in ["esc", "?", "esc", ":", "esc"] {
        let buf = cockpit.cells();
        assert!(buf.content.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
        if cockpit.screen.overlay.is_none() && keys != "esc" {
            assert!(buf.content.iter().any(|cell| cell.modifier.contains(Modifier::REVERSED)));
        }
        cockpit.keys(keys);
    }
}

#[test]
fn the_same_frame_twice_is_the_same() {
    let cockpit = Cockpit::new(fixture::install_running(), 200, 60);
    assert_eq!(cockpit.cells(), cockpit.cells());
}

#[test]
fn a_glance_tells_what_moves_and_what_waits() {
    let cockpit = Cockpit::new(fixture::install_running(), 200, 60);
    for text in [
        "▶ 08 install",
        "api ◐ 6m",
        "ssh ●",
        "2 of 5 available",
        "CVO 76%",
        "nodes 2/3",
        "1 CSR waits",
        "×31",
        "wait-for-etcd",
    ] {
        cockpit.shows(text);
    }
    let cockpit = Cockpit::new(fixture::sync_running(), 200, 60);
    for text in ["3 of 12 images", "1 failed", "ETA", "of 3,632,345,678 bytes", "mounted", "×3 source manifest-unknown"]
    {
        cockpit.shows(text);
    }
    let mut quiet = fixture::sync_running();
    quiet.wait(30);
    let cockpit = Cockpit::new(quiet, 200, 60);
    cockpit.shows("stalled 0:30");
    cockpit.hides("ETA");
}

#[test]
fn what_is_made_and_taken_away_shows_its_id_state_time_and_cost() {
    let mut cockpit = Cockpit::new(fixture::network_making(), 120, 40);
    for text in ["vpc-0f3c1a9e5b7d20486", "available", "pending", "0:50", "asked for", "10 stand", "~$0.02/h"] {
        cockpit.shows(text);
    }
    cockpit.keys("8 home enter");
    cockpit.shows("state     available");
    let cockpit = Cockpit::new(fixture::teardown_running(), 80, 24);
    for text in ["gone: ec2:DescribeInstances i-0", "waits: network interface", "2 gone", "1 waiting", "so far"] {
        cockpit.shows(text);
    }
    // What is gone costs no more, and says what it has cost.
    let model = cockpit.model();
    let cost = model.cost(cockpit.now);
    assert_eq!(cost.hourly, 0);
    assert!(cost.so_far > 30_000, "{cost:?}");
}

fn any_data() -> impl Strategy<Value = Data> {
    let step = prop_oneof![Just("06-image-sync/copy"), Just("08-install/bootstrap"), Just("99-other/none"), Just("")];
    let text = ".{0,40}";
    let outcome = prop_oneof![
        Just(Outcome::Success),
        Just(Outcome::Cancelled),
        text.prop_map(|why| Outcome::Skipped { why }),
        text.prop_map(|message| Outcome::Warning { message }),
        text.prop_map(|why| Outcome::Failed { causes: vec![why] }),
    ];
    prop_oneof![
        (step.clone(), 0..4u32).prop_map(|(step, attempt)| Data::StepStarted {
            step: StepId::new(step),
            attempt,
            host: None
        }),
        (step.clone(), outcome).prop_map(|(step, outcome)| Data::StepEnded {
            step: StepId::new(step),
            attempt: 1,
            outcome,
            elapsed_ms: 1,
            evidence: vec![]
        }),
        (step, any::<u64>(), text).prop_map(|(step, after_ms, why)| Data::StepRetry {
            step: StepId::new(step),
            next_attempt: 2,
            after_ms,
            why
        }),
        (text, any::<u64>(), any::<u64>()).prop_map(|(source, first, count)| Data::Lines {
            source: format!("journal:{source}"),
            first,
            count,
            bytes: 1
        }),
        text.prop_map(|text| Data::Note { level: Level::Error, text }),
        (0..11usize).prop_map(|place| {
            let stages = Builder::new().model.plan.stages;
            let stage = stages.get(place).map_or_else(|| bartizan::model::StageId::new("x"), |stage| stage.id.clone());
            Data::Rewound { stage, because: "again".into() }
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_run_and_no_size_panics(
        events in proptest::collection::vec((any_data(), 0..400i64), 0..40),
        width in 1u16..210,
        height in 1u16..70,
        pane in 0usize..8,
    ) {
        let mut run = fixture::sync_running();
        for (data, seconds) in events {
            run.wait(seconds).add(data);
        }
        let mut cockpit = Cockpit::new(run, width, height);
        cockpit.cells();
        cockpit.keys(&(pane + 1).to_string());
        cockpit.keys("j j enter");
        cockpit.cells();
    }
}
