//! The screen as the operator wants it: panes, mouse, lock, files of one's own, and the same again the next time.

use bartizan::model::event::{Action, Data, LinkName, LinkState};
use bartizan::model::plan::StepId;
use bartizan::ui::command::{Context, TABLE, Verb};
use bartizan::ui::history::Seek;
use bartizan::ui::keymap::Keymap;
use bartizan::ui::layout::{Layouts, PaneId};
use bartizan::ui::logs::Mode;
use bartizan::ui::memory::Memory;
use bartizan::ui::screen::{Lock, Overlay, Pointer};
use bartizan::ui::{Effect, Input};

use super::Cockpit;
use super::fixture;

fn panes(cockpit: &Cockpit) -> Vec<PaneId> {
    cockpit.screen.arrange(cockpit.model()).panes.into_iter().map(|(pane, _)| pane).collect()
}

#[test]
fn panes_are_hidden_moved_and_brought_back() {
    let mut cockpit = Cockpit::new(fixture::install_running(), 200, 60);
    let before = panes(&cockpit);
    cockpit.keys("7 g h");
    assert!(!panes(&cockpit).contains(&PaneId::Activity));
    assert_eq!(panes(&cockpit).len(), before.len() - 1);
    // Its number shows it again.
    cockpit.keys("7");
    assert!(panes(&cockpit).contains(&PaneId::Activity));
    cockpit.keys("1 g m");
    let moved = panes(&cockpit);
    assert_eq!((moved[0], moved[1]), (before[1], before[0]));
    cockpit.keys("g H");
    assert_eq!(panes(&cockpit), before);
    // Whatever is hidden, something is there.
    for pane in PaneId::ALL {
        cockpit.keys(&format!("{} g h", pane.number()));
        assert!(!panes(&cockpit).is_empty());
        cockpit.cells();
    }
}

#[test]
fn panes_are_made_larger_by_keys_and_stay_so_at_other_sizes_and_the_next_time() {
    let mut cockpit = Cockpit::new(fixture::install_running(), 200, 60);
    let rect = |cockpit: &Cockpit, pane| cockpit.screen.arrange(cockpit.model()).rect(pane).unwrap();
    let before = rect(&cockpit, PaneId::Pipeline);
    cockpit.keys("1 ctrl-right ctrl-right g >");
    let wider = rect(&cockpit, PaneId::Pipeline);
    assert_eq!(wider.width, before.width + 6);
    assert_eq!(rect(&cockpit, PaneId::Bootkube).x, wider.right());
    cockpit.keys("ctrl-left");
    assert_eq!(rect(&cockpit, PaneId::Pipeline).width, before.width + 4);
    // The last of a row grows to the left; rows are moved as well.
    let (bootkube, operators) = (rect(&cockpit, PaneId::Bootkube), rect(&cockpit, PaneId::Operators));
    cockpit.keys("5 ctrl-right g +");
    assert_eq!(rect(&cockpit, PaneId::Operators).width, operators.width + 2);
    assert_eq!(rect(&cockpit, PaneId::Bootkube).width, bootkube.width - 2);
    assert_eq!(rect(&cockpit, PaneId::Bootkube).height, bootkube.height + 1);
    let small = rect(&cockpit, PaneId::Journal).height;
    for _ in 0..80 {
        cockpit.keys("3 ctrl-down");
        cockpit.cells();
    }
    cockpit.shows("it cannot be smaller");
    assert!(rect(&cockpit, PaneId::Journal).height < small);
    // No pane is ever without room, in proportion at another size of the same layout, and hidden ones come back.
    cockpit.tell(Input::Resize(240, 80));
    assert!(rect(&cockpit, PaneId::Pipeline).width > before.width + 4);
    cockpit.keys("4 g h 3 ctrl-up 4");
    assert!(rect(&cockpit, PaneId::Bootkube).width > 10);
    cockpit.tell(Input::Resize(200, 60));
    let kept = Memory::of(&cockpit.screen, cockpit.model(), None).write().unwrap();
    let mut next = Cockpit::new(fixture::install_running(), 200, 60);
    Memory::parse(&kept).unwrap().restore(&mut next.screen, &next.run.model);
    assert_eq!(rect(&next, PaneId::Pipeline), rect(&cockpit, PaneId::Pipeline));
    cockpit.keys("g H");
    assert_eq!(rect(&cockpit, PaneId::Pipeline), before);
    cockpit.keys("1 g +");
    cockpit.keys("z ctrl-right");
    cockpit.shows("wider: the pane has all of the screen");
    let mut small = Cockpit::new(fixture::install_running(), 80, 24);
    small.keys("g >");
    small.shows("wider: no pane stands beside it");
}

#[test]
fn lines_between_panes_are_dragged_with_the_mouse() {
    let mut cockpit = Cockpit::new(fixture::install_running(), 200, 60);
    cockpit.keys("m");
    let rect = |cockpit: &Cockpit, pane| cockpit.screen.arrange(cockpit.model()).rect(pane).unwrap();
    let journal = rect(&cockpit, PaneId::Journal);
    let x = journal.x + 10;
    cockpit.tell(Input::Mouse(Pointer::Click { x, y: journal.y }));
    for y in [journal.y - 2, journal.y - 5, journal.y - 9] {
        cockpit.tell(Input::Mouse(Pointer::Drag { x, y }));
    }
    assert_eq!(rect(&cockpit, PaneId::Journal).y, journal.y - 9);
    // No farther than there is room, and not after the button is up.
    cockpit.tell(Input::Mouse(Pointer::Drag { x, y: 0 }));
    assert!(rect(&cockpit, PaneId::Bootkube).height >= 3);
    cockpit.tell(Input::Mouse(Pointer::Drag { x, y: journal.y }));
    cockpit.tell(Input::Mouse(Pointer::Release));
    cockpit.tell(Input::Mouse(Pointer::Drag { x, y: 4 }));
    assert_eq!(rect(&cockpit, PaneId::Journal).y, journal.y);
    let pipeline = rect(&cockpit, PaneId::Pipeline);
    cockpit.tell(Input::Mouse(Pointer::Click { x: pipeline.right() - 1, y: pipeline.y + 4 }));
    cockpit.tell(Input::Mouse(Pointer::Drag { x: pipeline.right() + 11, y: pipeline.y + 4 }));
    assert!(rect(&cockpit, PaneId::Pipeline).width > pipeline.width + 9);
}

#[test]
fn the_header_counts_down_to_the_next_attempt_of_a_step_and_of_a_link() {
    let mut run = fixture::install_running();
    let step = StepId::new("08-install/bootstrap");
    run.add(Data::StepRetry { step, next_attempt: 2, after_ms: 30_000, why: "the API refused".into() });
    run.link(LinkName::Registry, LinkState::Retrying { in_ms: 20_000, attempt: 4, why: "no route to host".into() });
    let mut cockpit = Cockpit::new(run, 200, 60);
    cockpit.shows("attempt 2 of 3 in 0:30");
    cockpit.shows("registry ◐ <1m retry 20s");
    cockpit.run.wait(12);
    cockpit.shows("attempt 2 of 3 in 0:18");
    cockpit.shows("registry ◐ <1m retry 8s");
    cockpit.run.wait(10);
    cockpit.shows("registry ◐ <1m retry");
}

#[test]
fn a_stage_of_the_bootstrap_node_is_measured_by_what_was_usual() {
    let mut run = fixture::install_running();
    run.model.plan.usual_boot_s.insert("wait-for-etcd".into(), (60, 600));
    let mut cockpit = Cockpit::new(run, 200, 60);
    cockpit.shows("usual 1–10m  ");
    cockpit.run.wait(600);
    cockpit.shows("usual 1–10m, late  ");
    cockpit.keys("4 enter");
    cockpit.shows("usual     1:00–10:00, by earlier runs here");
}

#[test]
fn the_footer_says_why_not() {
    let mut cockpit = Cockpit::new(fixture::sync_running(), 200, 60);
    let footer = |cockpit: &Cockpit| cockpit.text().lines().last().unwrap().to_owned();
    cockpit.keys("1");
    assert!(footer(&cockpit).contains("g r retry: no step has failed"), "{}", footer(&cockpit));
    cockpit.screen.access = bartizan::ui::Access::ReadOnly;
    cockpit.keys("2");
    assert!(footer(&cockpit).contains("r copy again: this screen only watches"), "{}", footer(&cockpit));
}

/// Cells that differ between two frames.
fn changed(one: &ratatui::buffer::Buffer, other: &ratatui::buffer::Buffer) -> usize {
    one.content.iter().zip(&other.content).filter(|(one, other)| one != other).count()
}

#[test]
fn nothing_moves_by_itself_where_motion_is_reduced_and_else_only_the_clock() {
    let mut cockpit = Cockpit::new(fixture::install_running(), 200, 60);
    for calm in [false, true] {
        cockpit.screen.calm = calm;
        let mut most = 0;
        let mut all = 0;
        for _ in 0..50 {
            let before = cockpit.cells();
            cockpit.run.wait(1);
            cockpit.tell(Input::Tick(cockpit.run.now()));
            let after = cockpit.cells();
            let count = changed(&before, &after);
            (most, all) = (most.max(count), all + count);
        }
        // A minute ends within them, and then some clocks move.
        assert!(if calm { all <= 40 } else { most <= 40 && all < 150 }, "calm {calm}: most {most}, all {all}");
    }
}

#[test]
fn what_was_agreed_to_is_not_asked_about_and_what_destroys_is() {
    let mut cockpit = Cockpit::new(fixture::install_failed(), 120, 40);
    cockpit.screen.agreed = true;
    assert!(matches!(&cockpit.keys("g r")[..], [Effect::Send(_)]));
    assert_eq!(cockpit.keys("6 g a"), []);
    cockpit.shows("Type edge-lab");
}

#[test]
fn the_next_screen_is_as_the_last_one_was() {
    let mut cockpit = Cockpit::new(fixture::install_failed(), 200, 60);
    cockpit.keys("7 g h 3 w t [ f");
    cockpit.typed("wait");
    cockpit.keys("enter z");
    let text = Memory::of(&cockpit.screen, cockpit.model(), Some("light".into())).write().unwrap();
    let memory = Memory::parse(&text).unwrap();
    assert_eq!(memory.theme.as_deref(), Some("light"));
    let mut next = Cockpit::new(fixture::install_failed(), 200, 60);
    memory.clone().restore(&mut next.screen, &next.run.model);
    next.tell(Input::Tick(next.now));
    assert_eq!(next.screen.focus, Some(PaneId::Journal));
    assert!(next.screen.zoom && next.screen.log.wrap && !next.screen.log.times);
    next.shows("filter wait");
    assert_eq!(next.screen.log.source(), cockpit.screen.log.source());
    // The line that was read, and the mark.
    let mut reader = Cockpit::new(fixture::install_failed(), 200, 60);
    reader.keys("3 k k v k");
    let read = reader.screen.log.current().unwrap().1.clone();
    let mut again = Cockpit::new(fixture::install_failed(), 200, 60);
    Memory::of(&reader.screen, reader.model(), None).restore(&mut again.screen, &again.run.model);
    again.tell(Input::Tick(again.now));
    assert_eq!(again.screen.log.current().unwrap().1, &read);
    assert_eq!(again.screen.log.mark, reader.screen.log.mark);
    // Of another run only the form counts.
    let mut other = Cockpit::new(fixture::sync_running(), 200, 60);
    other.run.model.run = "0000".into();
    memory.restore(&mut other.screen, &other.run.model);
    assert!(other.screen.focus.is_none() && other.screen.log.filter.is_none());
    assert!(other.screen.shape.hidden.contains(&PaneId::Activity));
    assert!(Memory::parse("colour = 3").is_err());
}

#[test]
fn the_mouse_is_the_terminals_until_it_is_asked_for() {
    let mut cockpit = Cockpit::new(fixture::install_running(), 200, 60);
    assert!(!cockpit.screen.mouse);
    assert_eq!(cockpit.keys("m"), [Effect::Mouse(true)]);
    cockpit.shows("shift-drag selects");
    let rect = |cockpit: &Cockpit, pane| cockpit.screen.arrange(cockpit.model()).rect(pane).unwrap();
    // The row under the pointer is the one that is chosen.
    let operators = rect(&cockpit, PaneId::Operators);
    let text = cockpit.text();
    let row = text.lines().position(|line| line.contains("authentication")).unwrap();
    let y = u16::try_from(row).unwrap();
    cockpit.tell(Input::Mouse(Pointer::Click { x: operators.x + 9, y }));
    let chosen = cockpit.screen.target(cockpit.model(), PaneId::Operators);
    assert_eq!(format!("{chosen:?}"), "Some(Operator(\"authentication\"))");
    assert_eq!(cockpit.screen.focus, Some(PaneId::Operators));
    let journal = rect(&cockpit, PaneId::Journal);
    cockpit.tell(Input::Mouse(Pointer::Wheel { x: journal.x + 3, y: journal.y + 2, down: false }));
    assert!(matches!(cockpit.screen.log.mode, Mode::Paused { .. }));
    let row = cockpit.text().lines().position(|line| line.contains("Started kubelet")).unwrap();
    cockpit.tell(Input::Mouse(Pointer::Click { x: journal.x + 3, y: u16::try_from(row).unwrap() }));
    assert_eq!(cockpit.screen.log.current().unwrap().1.text, "Started kubelet");
    cockpit.keys("g .");
    let slider = cockpit.screen.arrange(cockpit.model()).timeline.unwrap();
    let told = cockpit.tell(Input::Mouse(Pointer::Click { x: slider.width / 2, y: slider.y }));
    assert_eq!(told, [Effect::Seek(Seek::Share(500))]);
    assert_eq!(cockpit.keys("m"), [Effect::Mouse(false)]);
    cockpit.hides("shift-drag selects");
}

#[test]
fn a_locked_screen_says_why_nothing_changes() {
    let mut cockpit = Cockpit::new(fixture::install_failed(), 120, 40);
    cockpit.keys("g l");
    cockpit.shows("read-only");
    assert_eq!(cockpit.keys("g r"), []);
    cockpit.shows("retry: this screen is locked");
    cockpit.keys("g l g r");
    cockpit.shows("Try 08-install/bootstrap again?");
    cockpit.keys("esc");
    cockpit.screen.lock = Lock::Sealed;
    assert_eq!(cockpit.keys("g l"), []);
    cockpit.shows("lock: this screen was started with --read-only");
    cockpit.keys(":");
    cockpit.typed("retry");
    cockpit.shows("not now: this screen was started with --read-only");
}

#[test]
fn what_will_run_can_be_seen_and_copied_before_it_does() {
    let mut cockpit = Cockpit::new(fixture::install_failed(), 120, 40);
    let exec = |command: &str| Action::Exec { host: "bastion".into(), command: command.into() };
    for step in ["08-install/bootstrap", "08-install/operators"] {
        let commands = vec![exec("openshift-install wait-for install-complete"), exec("oc get clusteroperators")];
        cockpit.screen.texts.plans.insert(StepId::new(step), commands);
    }
    cockpit.keys("1 j enter");
    cockpit.shows("Will run:");
    cockpit.shows("bastion: oc get clusteroperators");
    let copied = cockpit.keys("Y");
    assert!(matches!(&copied[..], [Effect::Copy(text)] if text.lines().count() == 2), "{copied:?}");
    // What failed will run again; and in the question before it.
    cockpit.keys("esc k enter");
    cockpit.shows("Will run:");
    cockpit.keys("esc g r");
    cockpit.shows("bastion: openshift-install wait-for install-complete");
}

#[test]
fn one_field_of_a_row_is_copied_alone() {
    let mut cockpit = Cockpit::new(fixture::network_making(), 120, 40);
    cockpit.keys("8 home enter");
    let copied = |effects: Vec<Effect>| match effects.into_iter().next() {
        Some(Effect::Copy(text)) => text,
        other => panic!("{other:?}"),
    };
    let all = copied(cockpit.keys("y"));
    let id = all.lines().position(|line| line.starts_with("state ")).unwrap();
    let tabs = vec!["tab"; id].join(" ");
    assert_eq!(copied(cockpit.keys(&format!("{tabs} y"))), "available");
    cockpit.keys("shift-tab");
    assert_ne!(copied(cockpit.keys("y")), "available");
}

#[test]
fn help_is_searched_by_key_and_by_word() {
    let mut cockpit = Cockpit::new(fixture::install_failed(), 120, 40);
    cockpit.keys("3 ? /");
    cockpit.typed("error");
    cockpit.shows("To the next error in any log");
    cockpit.hides("Wrap long lines");
    cockpit.keys("enter esc");
    cockpit.shows("Wrap long lines");
    cockpit.keys("/");
    cockpit.typed("zebra");
    cockpit.shows("no command has this in it");
    cockpit.keys("esc esc");
    assert!(cockpit.screen.overlay.is_none());
}

/// Every command bound to a sequence that nothing else has.
fn keys_of_ones_own() -> (String, Vec<(Context, Verb, String)>) {
    let built_in = Keymap::load(None).unwrap();
    let (mut text, mut all) = (String::new(), Vec::new());
    for context in Context::ALL {
        text.push_str(&format!("[{}]\n", context.name()));
        for (place, command) in TABLE.iter().enumerate() {
            if built_in.bindings(context).iter().any(|(_, verb)| *verb == command.verb) {
                let letter = |number: usize| char::from(b'a' + u8::try_from(number).unwrap());
                let keys = format!("f12 {} {}", letter(place / 26), letter(place % 26));
                text.push_str(&format!("{} = [\"{keys}\"]\n", command.id));
                all.push((context, command.verb, keys));
            }
        }
    }
    (text, all)
}

#[test]
fn help_and_palette_show_the_keys_that_the_operator_gave() {
    let (text, all) = keys_of_ones_own();
    let mut cockpit = Cockpit::new(fixture::install_failed(), 120, 160);
    cockpit.screen.keymap = Keymap::load(Some(("my.toml", &text))).unwrap();
    for verb in TABLE {
        assert!(all.iter().any(|(_, known, _)| *known == verb.verb), "{} has no key", verb.id);
    }
    for (context, verb, keys) in &all {
        match context {
            Context::Pane(pane) => cockpit.screen.focus = Some(*pane),
            Context::Timeline => cockpit.screen.timeline = true,
            Context::Global => {}
        }
        cockpit.screen.overlay = Some(Overlay::Help { scroll: 0, text: String::new(), typing: false });
        let help = cockpit.text();
        let row = help.lines().find(|line| line.contains(verb.command().doc));
        assert!(row.is_some_and(|row| row.contains(keys.as_str())), "{context:?} {verb:?} {keys}\n{help}");
        cockpit.screen.overlay = None;
        cockpit.screen.timeline = false;
        let text = verb.command().id.to_owned();
        cockpit.screen.overlay = Some(Overlay::Palette { text: text.clone(), selected: 0 });
        let palette = cockpit.text();
        let row = palette.lines().find(|line| line.contains(&format!(">{text} ")));
        assert!(row.is_some_and(|row| row.contains("f12 ")), "{text}\n{palette}");
        cockpit.screen.overlay = None;
    }
}

#[test]
fn layouts_of_ones_own_come_first_and_are_checked() {
    let text = "[[layout]]\nname = \"mine\"\nmin = [80, 24]\nphase = \"any\"\n\
                body = { rows = [{ pane = \"journal\", main = true }, { size = 5, pane = \"activity\" }] }\n";
    let mut cockpit = Cockpit::new(fixture::install_running(), 200, 60);
    cockpit.keys("3");
    cockpit.screen.layouts = Layouts::embedded().unwrap().with("layouts.toml", text).unwrap();
    assert_eq!(panes(&cockpit), [PaneId::Journal, PaneId::Activity]);
    cockpit.tell(Input::Resize(60, 12));
    assert_eq!(panes(&cockpit), [PaneId::Journal], "smaller ones are still built in");
    let wrong = Layouts::embedded().unwrap().with("layouts.toml", &text.replace("journal", "activity"));
    assert_eq!(wrong.unwrap_err().to_string(), "layouts: layouts.toml: mine: Activity stands twice");
}

#[test]
fn what_comes_over_a_lost_link_is_dim_and_has_an_age() {
    let cockpit = Cockpit::new(fixture::install_running(), 200, 60);
    cockpit.shows("Operators · 6m old · 2 of 5 available");
    let buf = cockpit.cells();
    let inside = |pane| {
        let rect = cockpit.screen.arrange(cockpit.model()).rect(pane).unwrap();
        buf[(rect.x + 3, rect.y + 2)].modifier.contains(ratatui::style::Modifier::DIM)
    };
    assert!(inside(PaneId::Operators) && !inside(PaneId::Bootkube));
}
