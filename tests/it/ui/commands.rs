//! Every command, as somebody meets it who knows none of them.

use bartizan::diagnose::Checklists;
use bartizan::engine::{Command, Hands};
use bartizan::headless::Ask;
use bartizan::model::event::Finding;
use bartizan::stages::{Alone, Repair};
use bartizan::ui::attention::{Progress, progress, window_title};
use bartizan::ui::command::{Context, Danger, TABLE, Verb};
use bartizan::ui::keymap::{Key, Keymap};
use bartizan::ui::layout::PaneId;
use bartizan::ui::screen::Overlay;
use bartizan::ui::verbs::{MAY_DESTROY, enabled, order};
use bartizan::ui::{Effect, Input};

use super::Cockpit;
use super::recorded::{Moment, at};

const MOMENTS: [Moment; 5] = [Moment::Sync, Moment::Bootstrap, Moment::Failed, Moment::Operators, Moment::Teardown];

/// What may leave everything as it is: there is nothing farther up, or nothing to close.
const MOVES: [Verb; 14] = [
    Verb::Up,
    Verb::Down,
    Verb::PageUp,
    Verb::PageDown,
    Verb::Top,
    Verb::Bottom,
    Verb::Left,
    Verb::Back,
    Verb::FindNext,
    Verb::NextSource,
    Verb::PreviousSource,
    Verb::Pane(PaneId::Checks),
    Verb::Follow,
    Verb::Merge,
];

#[test]
fn every_command_is_reached_by_the_palette_and_answers() {
    let saves = tempfile::tempdir().unwrap();
    for moment in MOMENTS {
        for command in TABLE {
            let mut cockpit = Cockpit::new(at(moment), 120, 40);
            cockpit.screen.saves = saves.path().to_owned();
            let pane = Context::ALL.iter().find_map(|context| match context {
                Context::Pane(pane) if own(*context, command.verb) => Some(*pane),
                _ => None,
            });
            cockpit.screen.focus = pane;
            cockpit.keys(":");
            cockpit.typed(command.id);
            assert_eq!(cockpit.screen.palette(command.id).first(), Some(&command.verb));
            cockpit.screen.toast = None;
            let mut before = cockpit.screen.clone();
            before.overlay = None;
            let effects = cockpit.keys("enter");
            let said = cockpit.screen.toast.is_some();
            before.now = cockpit.screen.now;
            let moved = format!("{:?}", cockpit.screen) != format!("{before:?}");
            assert!(
                !effects.is_empty() || said || moved || MOVES.contains(&command.verb),
                "{moment:?}: {} does nothing and says nothing",
                command.id
            );
            if enabled(command.verb, &cockpit.screen, cockpit.model()).is_err() && cockpit.screen.overlay.is_none() {
                assert!(said || !effects.is_empty() || moved, "{}", command.id);
            }
        }
    }
}

fn own(context: Context, verb: Verb) -> bool {
    Keymap::load(None).unwrap().bindings(context).iter().any(|(_, known)| *known == verb)
}

#[test]
fn no_single_key_destroys_or_even_asks_to_and_none_changes_without_a_question() {
    let map = Keymap::load(None).unwrap();
    let saves = tempfile::tempdir().unwrap();
    let mut asked = 0;
    for moment in MOMENTS {
        for pane in PaneId::ALL {
            let contexts = [Context::Pane(pane), Context::Global];
            let keys: Vec<Key> = contexts
                .iter()
                .flat_map(|context| map.bindings(*context))
                .filter_map(|(keys, _)| if let [key] = keys[..] { Some(key) } else { None })
                .collect();
            for key in keys {
                let mut cockpit = Cockpit::new(at(moment), 120, 40);
                cockpit.screen.saves = saves.path().to_owned();
                cockpit.screen.focus = Some(pane);
                let effects = cockpit.tell(Input::Key(key, cockpit.now));
                if let Some(Overlay::Confirm(confirm)) = &cockpit.screen.overlay {
                    assert_eq!(confirm.name, None, "{key} in {pane:?} at {moment:?} asks to destroy");
                    asked += 1;
                }
                for effect in effects {
                    if let Effect::Send(command) = effect {
                        let safe = TABLE.iter().filter(|known| known.danger == Danger::Safe).any(|known| {
                            order(known.verb, &cockpit.screen, cockpit.model())
                                .is_some_and(|order| order.command == command && order.danger == Danger::Safe)
                        });
                        assert!(safe, "{key} in {pane:?} at {moment:?} sends {command:?} at once");
                    }
                }
            }
        }
    }
    assert!(asked > 0, "nothing was ever asked");
    // Nor can anybody give one of them to what may destroy.
    for verb in MAY_DESTROY {
        let text = format!("[global]\n{} = [\"ctrl-d\"]\n", verb.command().id);
        let error = Keymap::load(Some(("my.toml", &text))).unwrap_err().to_string();
        assert!(error.contains("may destroy: give it a sequence of keys, such as \"g d\""), "{error}");
    }
}

#[test]
fn in_lines_a_change_is_asked_about_once_and_what_destroys_wants_its_name() {
    let model = at(Moment::Failed).model;
    for agreed in [false, true] {
        let mut ask = Ask::new(agreed).unwrap();
        let lines = ask.begin(&model);
        let number = |what: &str| lines.iter().find(|line| line.contains(what)).unwrap().trim().chars().next().unwrap();
        let retry = number("Try 08-install/bootstrap again?").to_string();
        let (said, asked) = ask.answer(&retry, &model);
        let said = said.join("\n");
        match agreed {
            true => assert!(matches!(asked, Some(Command::Retry(Some(_)))), "{said}"),
            false => {
                assert!(asked.is_none() && said.ends_with("yes or no [no]:"), "{said}");
                assert!(matches!(ask.answer("yes", &model).1, Some(Command::Retry(Some(_)))));
            }
        }
    }
    // A step of the cleanup takes things away.
    let mut run = at(Moment::Teardown);
    let step = run.model.current_step().unwrap().0.clone();
    run.add(bartizan::model::event::Data::StepEnded {
        step: step.clone(),
        attempt: 3,
        outcome: bartizan::model::event::Outcome::Failed { causes: vec!["the API said no".into()] },
        elapsed_ms: 1,
        evidence: Vec::new(),
    });
    let mut ask = Ask::new(true).unwrap();
    let lines = ask.begin(&run.model);
    let line = lines.iter().find(|line| line.contains(&format!("Try {step} again?"))).unwrap();
    let (said, asked) = ask.answer(&line.trim()[..1], &run.model);
    assert!(asked.is_none() && said.join("\n").contains("This destroys. Type edge-lab"), "{said:?}");
    assert!(ask.answer("yes", &run.model).1.is_none(), "a yes is no name");
    ask.answer(&line.trim()[..1], &run.model);
    assert_eq!(ask.answer("edge-lab", &run.model).1, Some(Command::Retry(Some(step))));
}

#[test]
fn what_is_done_without_a_person_is_what_was_agreed_to() {
    let model = at(Moment::Failed).model;
    let finding: Finding = model.open_findings().first().unwrap().finding.clone();
    let alone = |alone| {
        let repair = Repair { checklists: Checklists::builtin().unwrap(), alone };
        let recoveries = repair.recoveries(&finding).into_iter();
        recoveries.map(|recovery| (recovery.id, recovery.automatic)).collect::<Vec<_>>()
    };
    let pair = |certificate, ca| [("registry-certificate".to_owned(), certificate), ("trust-mirror-ca".to_owned(), ca)];
    assert_eq!(alone(Alone::Nothing), pair(false, false));
    assert_eq!(alone(Alone::Changes), pair(true, false));
    assert_eq!(alone(Alone::Automatic), pair(true, true));
}

#[test]
fn the_windows_title_and_the_taskbar_tell_how_far_it_is() {
    let told = |moment| {
        let model = at(moment).model;
        (window_title(&model), progress(&model))
    };
    let (title, part) = told(Moment::Sync);
    assert!(title.starts_with("bartizan edge-lab: 06/10 image-sync ") && title.ends_with(" %"), "{title}");
    assert!(matches!(part, Progress::Going(30..70)), "{part:?}");
    assert!(matches!(told(Moment::Failed).1, Progress::Waiting(_)), "it waits for somebody");
    assert_eq!(told(Moment::End), ("bartizan edge-lab: done".to_owned(), Progress::Nothing));
}
