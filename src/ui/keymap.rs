//! Keys to verbs, from `assets/keymap.toml` and the operator's own file over it.
//!
//! A file has one section per context and in it `command = ["key", "another key"]`. A key is a character, a name
//! (`enter`, `pageup`, `f1`), either with `ctrl-`, `alt-` or `shift-` before it; several with blanks between are a sequence.
//! An empty list takes a command off the keyboard.

use std::collections::BTreeMap;
use std::fmt;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::command::{self, Context, Verb};
use super::verbs::MAY_DESTROY;

/// One press of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub code: KeyCode,
    pub modifiers: KeyModifiers,
}

const NAMES: [(&str, KeyCode); 14] = [
    ("enter", KeyCode::Enter),
    ("esc", KeyCode::Esc),
    ("tab", KeyCode::Tab),
    ("space", KeyCode::Char(' ')),
    ("backspace", KeyCode::Backspace),
    ("delete", KeyCode::Delete),
    ("up", KeyCode::Up),
    ("down", KeyCode::Down),
    ("left", KeyCode::Left),
    ("right", KeyCode::Right),
    ("home", KeyCode::Home),
    ("end", KeyCode::End),
    ("pageup", KeyCode::PageUp),
    ("pagedown", KeyCode::PageDown),
];

impl Key {
    pub fn char(c: char) -> Key {
        Key { code: KeyCode::Char(c), modifiers: KeyModifiers::NONE }
    }

    /// `ctrl-c`, `shift-tab`, `G`, `f1`.
    pub fn parse(text: &str) -> Option<Key> {
        let mut rest = text;
        let mut modifiers = KeyModifiers::NONE;
        for (name, modifier) in
            [("ctrl-", KeyModifiers::CONTROL), ("alt-", KeyModifiers::ALT), ("shift-", KeyModifiers::SHIFT)]
        {
            if let Some(after) = rest.strip_prefix(name) {
                modifiers |= modifier;
                rest = after;
            }
        }
        let mut chars = rest.chars();
        let code = match (chars.next(), chars.next()) {
            (Some(c), None) => KeyCode::Char(c),
            _ => match NAMES.iter().find(|(name, _)| *name == rest) {
                Some((_, code)) => *code,
                None => KeyCode::F(rest.strip_prefix('f')?.parse().ok().filter(|number| (1..=12).contains(number))?),
            },
        };
        Some(Key { code, modifiers }.normal())
    }

    /// Terminals disagree on whether a capital letter comes with shift, and on what shift-tab is.
    fn normal(mut self) -> Key {
        match self.code {
            KeyCode::Char(_) => self.modifiers.remove(KeyModifiers::SHIFT),
            KeyCode::BackTab => {
                self.code = KeyCode::Tab;
                self.modifiers.insert(KeyModifiers::SHIFT);
            }
            _ => {}
        }
        self
    }
}

impl From<KeyEvent> for Key {
    fn from(event: KeyEvent) -> Self {
        let known = KeyModifiers::CONTROL | KeyModifiers::ALT | KeyModifiers::SHIFT;
        Key { code: event.code, modifiers: event.modifiers & known }.normal()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, modifier) in
            [("ctrl-", KeyModifiers::CONTROL), ("alt-", KeyModifiers::ALT), ("shift-", KeyModifiers::SHIFT)]
        {
            if self.modifiers.contains(modifier) {
                f.write_str(name)?;
            }
        }
        match (NAMES.iter().find(|(_, code)| *code == self.code), self.code) {
            (Some((name, _)), _) => f.write_str(name),
            (None, KeyCode::Char(c)) => write!(f, "{c}"),
            (None, KeyCode::F(number)) => write!(f, "f{number}"),
            (None, code) => write!(f, "{code:?}"),
        }
    }
}

/// What is wrong with a key table, and in which file and section.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {why}")]
pub struct KeymapError {
    place: String,
    why: String,
}

type File = BTreeMap<String, BTreeMap<String, Vec<String>>>;
type Bindings = Vec<(Vec<Key>, Verb)>;

/// What keys mean, by context.
#[derive(Debug, Clone, PartialEq)]
pub struct Keymap {
    contexts: BTreeMap<Context, Bindings>,
}

/// What a sequence of keys is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    Verb(Verb),
    /// More keys may follow.
    Prefix,
    Nothing,
}

impl Keymap {
    /// The file that comes with the program.
    pub const EMBEDDED: &str = include_str!("../../assets/keymap.toml");

    /// The key table that comes with the program, with the operator's own (name of the file, text) over it.
    pub fn load(own: Option<(&str, &str)>) -> Result<Self, KeymapError> {
        let mut map = Keymap { contexts: BTreeMap::new() };
        map.add("assets/keymap.toml", Self::EMBEDDED)?;
        if let Some((file, text)) = own {
            map.add(file, text)?;
        }
        Ok(map)
    }

    fn add(&mut self, file: &str, text: &str) -> Result<(), KeymapError> {
        let wrong = |place: &str, why: String| KeymapError { place: place.to_owned(), why };
        let parsed: File = toml::from_str(text).map_err(|error| wrong(file, error.to_string()))?;
        for (name, commands) in parsed {
            let Some(context) = Context::ALL.into_iter().find(|context| context.name() == name) else {
                let known: Vec<_> = Context::ALL.iter().map(|context| context.name()).collect();
                return Err(wrong(file, format!("there is no context {name:?}; there are {}", known.join(", "))));
            };
            let place = format!("{file} [{name}]");
            let bindings = self.contexts.entry(context).or_default();
            for (id, keys) in commands {
                let Some(command) = command::by_id(&id) else {
                    let near = command::TABLE
                        .iter()
                        .map(|command| (strsim::jaro_winkler(command.id, &id), command.id))
                        .max_by(|one, other| one.0.total_cmp(&other.0))
                        .filter(|(near, _)| *near > 0.8);
                    let hint = near.map_or(String::new(), |(_, id)| format!("; is {id:?} meant?"));
                    return Err(wrong(&place, format!("there is no command {id:?}{hint}")));
                };
                bindings.retain(|(_, verb)| *verb != command.verb);
                for text in keys {
                    let keys: Option<Vec<Key>> = text.split(' ').map(Key::parse).collect();
                    let keys = keys.ok_or_else(|| {
                        let forms = "a key is a character or a name such as enter, ctrl-d, f1";
                        wrong(&place, format!("{id}: {text:?} is no key; {forms}"))
                    })?;
                    if keys.len() < 2 && MAY_DESTROY.contains(&command.verb) {
                        let why = format!("{id} may destroy: give it a sequence of keys, such as \"g d\"");
                        return Err(wrong(&place, why));
                    }
                    bindings.push((keys, command.verb));
                }
            }
            conflict(bindings).map_or(Ok(()), |why| Err(wrong(&place, why)))?;
        }
        Ok(())
    }

    /// The first of `contexts` that knows these keys decides; a beginning of a sequence waits for the rest.
    pub fn meaning(&self, contexts: &[Context], keys: &[Key]) -> Meaning {
        for context in contexts {
            for (sequence, verb) in self.bindings(*context) {
                if sequence.as_slice() == keys {
                    return Meaning::Verb(*verb);
                }
                if sequence.starts_with(keys) {
                    return Meaning::Prefix;
                }
            }
        }
        Meaning::Nothing
    }

    /// Keys of one context, as they are in the table.
    pub fn bindings(&self, context: Context) -> &[(Vec<Key>, Verb)] {
        self.contexts.get(&context).map_or(&[], Vec::as_slice)
    }

    /// How a verb is typed in these contexts: every way that no nearer context has taken.
    pub fn keys_of(&self, contexts: &[Context], verb: Verb) -> Vec<String> {
        contexts
            .iter()
            .flat_map(|context| self.bindings(*context))
            .filter(|(keys, known)| *known == verb && self.meaning(contexts, keys) == Meaning::Verb(verb))
            .map(|(keys, _)| show(keys))
            .collect()
    }

    /// What can follow after these keys.
    pub fn following(&self, contexts: &[Context], keys: &[Key]) -> Vec<(String, Verb)> {
        contexts
            .iter()
            .flat_map(|context| self.bindings(*context))
            .filter(|(sequence, _)| sequence.len() > keys.len() && sequence.starts_with(keys))
            .map(|(sequence, verb)| (show(sequence.get(keys.len()..).unwrap_or_default()), *verb))
            .collect()
    }
}

fn show(keys: &[Key]) -> String {
    keys.iter().map(Key::to_string).collect::<Vec<_>>().join(" ")
}

/// Two commands that want the same keys, or keys of which one begins the other.
fn conflict(bindings: &Bindings) -> Option<String> {
    for (place, (keys, verb)) in bindings.iter().enumerate() {
        for (others, other) in bindings.iter().skip(place + 1) {
            if keys == others {
                let (one, other) = (verb.command().id, other.command().id);
                return Some(format!("{:?} is given to both {one} and {other}", show(keys)));
            }
            let pair = [(keys, verb), (others, other)];
            let [(short, one), (long, other)] = if keys.len() < others.len() { pair } else { [pair[1], pair[0]] };
            if long.starts_with(short) {
                let (one, other) = (one.command().id, other.command().id);
                return Some(format!("{:?} of {one} hides {:?} of {other}", show(short), show(long)));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::layout::PaneId;

    #[test]
    fn the_table_is_valid_and_every_command_has_a_key() {
        let map = Keymap::load(None).unwrap();
        for command in command::TABLE {
            let bound =
                Context::ALL.iter().any(|context| map.bindings(*context).iter().any(|(_, verb)| *verb == command.verb));
            assert!(bound, "{} has no key", command.id);
        }
        // No pane may take a key that begins a sequence everywhere else.
        for context in Context::ALL {
            for (keys, _) in map.bindings(context) {
                if context != Context::Global && keys.len() == 1 {
                    assert_ne!(map.meaning(&[Context::Global], keys), Meaning::Prefix, "{}", show(keys));
                }
            }
        }
    }

    #[test]
    fn no_dangerous_verb_sits_on_a_single_key_everywhere() {
        let map = Keymap::load(None).unwrap();
        for (keys, verb) in map.bindings(Context::Global) {
            assert!(verb.command().danger == command::Danger::Safe || keys.len() > 1, "{verb:?}");
        }
        // What may destroy is a sequence wherever it is bound, and asks for a name besides.
        for context in Context::ALL {
            for (keys, verb) in map.bindings(context) {
                assert!(!crate::ui::verbs::MAY_DESTROY.contains(verb) || keys.len() > 1, "{context:?} {verb:?}");
            }
        }
    }

    #[test]
    fn a_file_of_ones_own_replaces_removes_and_is_checked() {
        let own = |text: &str| Keymap::load(Some(("my.toml", text)));
        let map = own("[global]\nzoom = [\"Z\"]\nscreenshot = []\n").unwrap();
        let contexts = [Context::Pane(PaneId::Journal), Context::Global];
        assert_eq!(map.meaning(&contexts, &[Key::char('Z')]), Meaning::Verb(Verb::Zoom));
        assert_eq!(map.meaning(&contexts, &[Key::char('z')]), Meaning::Nothing);
        assert_eq!(map.meaning(&contexts, &[Key::char('g')]), Meaning::Prefix);
        for (text, expected) in [
            ("[global]\nzom = [\"Z\"]", "my.toml [global]: there is no command \"zom\"; is \"zoom\" meant?"),
            ("[global]\nzoom = [\"?\"]", "my.toml [global]: \"?\" is given to both help and zoom"),
            ("[global]\nzoom = [\"g\"]", "hides"),
            ("[global]\nzoom = [\"meta-x\"]", "\"meta-x\" is no key"),
            ("[golbal]\nzoom = [\"Z\"]", "there is no context \"golbal\""),
            ("zoom", "my.toml: "),
        ] {
            let error = own(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        for text in ["ctrl-c", "shift-tab", "G", "?", "f5", "pageup", "alt-x", "space", "ctrl-left"] {
            assert_eq!(Key::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Key::from(KeyEvent::new(KeyCode::BackTab, KeyModifiers::SHIFT)), Key::parse("shift-tab").unwrap());
        assert_eq!(Key::from(KeyEvent::new(KeyCode::Char('G'), KeyModifiers::SHIFT)), Key::parse("G").unwrap());
    }
}
