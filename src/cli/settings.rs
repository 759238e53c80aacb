//! `config.toml` of the operator, and where every setting has its value from: a flag, the environment, that file, the
//! screen as it was left, or nobody.

use crate::spec::problem::nearest;
use crate::ui::UiOptions;
use crate::ui::memory::Memory;
use crate::ui::notify::{WAYS, Way};
use crate::ui::theme::Themes;

/// The file with all settings and what they mean.
pub const EXAMPLE: &str = include_str!("../../assets/settings.toml");

/// Settings by name: the variable that has them, and what is so when nobody says anything.
const ALL: [(&str, &str, &str); 5] = [
    ("theme", "BARTIZAN_THEME", "as the terminal is"),
    ("ascii", "", "as the terminal is"),
    ("notify", "BARTIZAN_NOTIFY", "auto"),
    ("read_only", "BARTIZAN_READ_ONLY", "false"),
    ("reduced_motion", "BARTIZAN_REDUCED_MOTION", "false"),
];

/// What an operator's file says. What it does not say is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    pub theme: Option<String>,
    pub ascii: Option<bool>,
    pub notify: Option<Way>,
    pub read_only: Option<ReadOnly>,
    pub reduced_motion: Option<bool>,
}

/// What screens may not change.
#[derive(Debug, Clone, PartialEq)]
pub enum ReadOnly {
    All(bool),
    /// The runs of these clusters.
    Clusters(Vec<String>),
}

impl ReadOnly {
    fn read(value: &toml::Value) -> Result<Self, String> {
        let names = |list: &Vec<toml::Value>| list.iter().map(|name| name.as_str().map(str::to_owned)).collect();
        match value {
            toml::Value::Boolean(all) => Some(Self::All(*all)),
            toml::Value::Array(list) => Option::<Vec<String>>::map(names(list), Self::Clusters),
            _ => None,
        }
        .ok_or_else(|| "give true, false, or a list of names of clusters".to_owned())
    }
}

impl Settings {
    /// The settings of a file, and what is wrong with it: the rest of it counts all the same.
    pub fn parse(file: &str, text: &str) -> (Self, Vec<String>) {
        let mut out = Self::default();
        let table = match text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(error) => return (out, vec![format!("{file}: {error}")]),
        };
        let mut wrong = Vec::new();
        for (key, value) in table {
            let problem = match key.as_str() {
                "theme" => string(&value, &mut out.theme),
                "ascii" => boolean(&value, &mut out.ascii),
                "read_only" => ReadOnly::read(&value).map(|what| out.read_only = Some(what)),
                "reduced_motion" => boolean(&value, &mut out.reduced_motion),
                "notify" => value.as_str().ok_or_else(|| format!("give {WAYS}")).and_then(Way::parse).map(|way| {
                    out.notify = Some(way);
                }),
                _ => Err(match nearest(&key, ALL.iter().map(|(name, ..)| *name)) {
                    Some(near) => format!("there is no such setting; did you mean {near}?"),
                    None => format!("there is no such setting; there are {}", ALL.map(|(name, ..)| name).join(", ")),
                }),
            };
            wrong.extend(problem.err().map(|why| format!("{file}: {key}: {why}")));
        }
        (out, wrong)
    }

    /// Put them where no flag and no variable has said anything.
    pub fn apply(self, options: &mut UiOptions, silent_on_notify: bool) {
        options.theme = options.theme.take().or(self.theme);
        options.ascii = options.ascii.or(self.ascii);
        match self.read_only {
            Some(ReadOnly::All(all)) => options.read_only |= all,
            Some(ReadOnly::Clusters(names)) => options.sealed = names,
            None => {}
        }
        options.reduced_motion |= self.reduced_motion.unwrap_or(false) || no_motion();
        if let Some(way) = self.notify.filter(|_| silent_on_notify) {
            options.notify = way;
        }
    }

    /// Every setting, its value, and where that comes from, for a process that no flag was given to.
    pub fn origins(&self, memory: &Memory) -> Vec<[String; 3]> {
        ALL.iter()
            .map(|(name, variable, default)| {
                let set = Some(*variable).filter(|variable| !variable.is_empty());
                let set = set.and_then(|variable| Some((variable, std::env::var(variable).ok()?)));
                let set = set.filter(|(_, value)| !value.is_empty());
                let (value, origin) = match (set, self.value(name)) {
                    (Some((variable, value)), _) => (value, format!("the variable {variable}")),
                    (None, Some(value)) => (value, "config.toml".to_owned()),
                    (None, None) if *name == "reduced_motion" && no_motion() => {
                        ("true".to_owned(), "the variable NO_MOTION".to_owned())
                    }
                    (None, None) => match memory.theme.clone().filter(|_| *name == "theme") {
                        Some(theme) => (theme, "the screen as it was left (screen.toml)".to_owned()),
                        None => ((*default).to_owned(), "default".to_owned()),
                    },
                };
                [(*name).to_owned(), value, origin]
            })
            .collect()
    }

    fn value(&self, name: &str) -> Option<String> {
        match name {
            "theme" => self.theme.clone(),
            "ascii" => self.ascii.map(|on| on.to_string()),
            "notify" => self.notify.as_ref().map(Way::to_string),
            "read_only" => self.read_only.as_ref().map(|what| match what {
                ReadOnly::All(on) => on.to_string(),
                ReadOnly::Clusters(names) => names.join(", "),
            }),
            "reduced_motion" => self.reduced_motion.map(|on| on.to_string()),
            _ => None,
        }
    }

    /// A theme that is not there, by the name that the file gives.
    pub fn missing_theme(&self, file: &str, themes: &Themes) -> Option<String> {
        let names = themes.names();
        let theme = self.theme.as_deref().filter(|theme| !names.contains(theme))?;
        let hint =
            nearest(theme, names.iter().copied()).map_or_else(String::new, |near| format!("; did you mean {near}?"));
        Some(format!("{file}: theme: there is no theme {theme:?}{hint}"))
    }
}

/// As `NO_COLOR`: present and not empty.
fn no_motion() -> bool {
    std::env::var("NO_MOTION").is_ok_and(|value| !value.is_empty())
}

fn string(value: &toml::Value, out: &mut Option<String>) -> Result<(), String> {
    *out = Some(value.as_str().ok_or("give a name in quotation marks")?.to_owned());
    Ok(())
}

fn boolean(value: &toml::Value, out: &mut Option<bool>) -> Result<(), String> {
    *out = Some(value.as_bool().ok_or("give true or false")?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_has_every_setting_and_only_those() {
        let used: String = EXAMPLE
            .lines()
            .filter_map(|line| line.strip_prefix('#'))
            .fold(String::new(), |out, line| if line.starts_with(' ') { out } else { out + line + "\n" });
        let (settings, wrong) = Settings::parse("settings.toml", &used);
        assert!(wrong.is_empty(), "{wrong:?}");
        assert!(ALL.iter().all(|(name, ..)| settings.value(name).is_some()), "{settings:?}");
        assert_eq!(Settings::parse("settings.toml", EXAMPLE), (Settings::default(), vec![]));
    }

    #[test]
    fn what_is_wrong_is_said_and_the_rest_counts() {
        let (settings, wrong) = Settings::parse(
            "my.toml",
            "reduced_moton = true\nascii = 1\ntheme = \"light\"\nread_only = [\"edge-lab\"]\n",
        );
        assert_eq!(settings.theme.as_deref(), Some("light"));
        assert_eq!(settings.read_only, Some(ReadOnly::Clusters(vec!["edge-lab".into()])));
        assert_eq!(
            wrong,
            [
                "my.toml: ascii: give true or false",
                "my.toml: reduced_moton: there is no such setting; did you mean reduced_motion?"
            ]
        );
    }
}
