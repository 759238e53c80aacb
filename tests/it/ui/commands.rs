//! Every command, as somebody meets it who knows none of them.

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
