//! Colours and attributes by meaning, from `themes/*.toml`.
//!
//! A theme names tokens, not places. A token that a theme leaves out is looked for in the theme that it inherits, then
//! under the shorter name (`status.ok`, then `status`), and is plain text in the end. Text and background are the
//! terminal's own. Under `NO_COLOR` the theme is `mono`, which has attributes only: with crossterm 0.29 a coloured cell
//! would then emit an empty SGR sequence, and that resets bold and reverse.

use std::collections::BTreeMap;
use std::str::FromStr;

use ratatui::style::{Color, Modifier, Style};
use serde::Deserialize;

/// Everything that can have a style of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Token {
    Text,
    Muted,
    Title,
    Border,
    BorderFocus,
    Selection,
    Key,
    Ok,
    Run,
    Wait,
    Warn,
    Fail,
    Skip,
    Unknown,
    Stale,
    LogError,
    LogWarn,
    LogInfo,
    LogDebug,
    LogTime,
    LogUnit,
    LinkUp,
    LinkRetry,
    LinkDown,
    Bar,
    BarRest,
    Stalled,
    Danger,
    Match,
    MatchCurrent,
}

impl Token {
    pub const ALL: [Token; 30] = [
        Token::Text,
        Token::Muted,
        Token::Title,
        Token::Border,
        Token::BorderFocus,
        Token::Selection,
        Token::Key,
        Token::Ok,
        Token::Run,
        Token::Wait,
        Token::Warn,
        Token::Fail,
        Token::Skip,
        Token::Unknown,
        Token::Stale,
        Token::LogError,
        Token::LogWarn,
        Token::LogInfo,
        Token::LogDebug,
        Token::LogTime,
        Token::LogUnit,
        Token::LinkUp,
        Token::LinkRetry,
        Token::LinkDown,
        Token::Bar,
        Token::BarRest,
        Token::Stalled,
        Token::Danger,
        Token::Match,
        Token::MatchCurrent,
    ];

    /// Its name in a theme file.
    pub fn name(self) -> &'static str {
        match self {
            Token::Text => "text",
            Token::Muted => "muted",
            Token::Title => "title",
            Token::Border => "border",
            Token::BorderFocus => "border.focus",
            Token::Selection => "selection",
            Token::Key => "key",
            Token::Ok => "status.ok",
            Token::Run => "status.run",
            Token::Wait => "status.wait",
            Token::Warn => "status.warn",
            Token::Fail => "status.fail",
            Token::Skip => "status.skip",
            Token::Unknown => "status.unknown",
            Token::Stale => "status.stale",
            Token::LogError => "log.error",
            Token::LogWarn => "log.warn",
            Token::LogInfo => "log.info",
            Token::LogDebug => "log.debug",
            Token::LogTime => "log.time",
            Token::LogUnit => "log.unit",
            Token::LinkUp => "link.up",
            Token::LinkRetry => "link.retry",
            Token::LinkDown => "link.down",
            Token::Bar => "progress.bar",
            Token::BarRest => "progress.rest",
            Token::Stalled => "progress.stalled",
            Token::Danger => "danger",
            Token::Match => "match",
            Token::MatchCurrent => "match.current",
        }
    }
}

/// How many colours the terminal has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    Mono,
    Ansi16,
    Indexed,
    True,
}

impl Depth {
    /// From the variables by which terminals tell: `NO_COLOR`, `COLORTERM` and `TERM`.
    pub fn detect(no_color: bool, colorterm: &str, term: &str) -> Depth {
        if no_color || term == "dumb" || term.starts_with("vt") {
            Depth::Mono
        } else if matches!(colorterm, "truecolor" | "24bit") || term.ends_with("-direct") {
            Depth::True
        } else if term.contains("256color") {
            Depth::Indexed
        } else {
            Depth::Ansi16
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ThemeError {
    #[error("there is no theme {name:?}; there are {known}")]
    NoSuch { name: String, known: String },
    #[error("theme {name}: {why}")]
    Bad { name: String, why: String },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    inherits: Option<String>,
    #[serde(default)]
    tokens: BTreeMap<String, String>,
}

const EMBEDDED: [(&str, &str); 8] = [
    ("dark", include_str!("../../themes/dark.toml")),
    ("neutral", include_str!("../../themes/neutral.toml")),
    ("light", include_str!("../../themes/light.toml")),
    ("high-contrast", include_str!("../../themes/high-contrast.toml")),
    ("deuteranopia", include_str!("../../themes/deuteranopia.toml")),
    ("tritanopia", include_str!("../../themes/tritanopia.toml")),
    ("ansi16", include_str!("../../themes/ansi16.toml")),
    ("mono", include_str!("../../themes/mono.toml")),
];

/// Styles of all tokens, resolved once.
#[derive(Debug, Clone, PartialEq)]
pub struct Theme {
    pub name: String,
    pub depth: Depth,
    styles: BTreeMap<Token, Style>,
}

impl Theme {
    /// A theme that comes with the program.
    pub fn load(name: &str, depth: Depth) -> Result<Theme, ThemeError> {
        Themes::default().load(name, depth)
    }

    /// Names of the themes that come with the program.
    pub fn names() -> impl Iterator<Item = &'static str> {
        EMBEDDED.iter().map(|(name, _)| *name)
    }

    /// The file of a theme that comes with the program.
    pub fn text(name: &str) -> Option<&'static str> {
        EMBEDDED.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
    }

    pub fn style(&self, token: Token) -> Style {
        self.styles.get(&token).copied().unwrap_or_default()
    }
}

/// The themes that come with the program, and the operator's own over them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Themes {
    own: BTreeMap<String, String>,
}

impl Themes {
    /// With one more; it takes the place of one of the same name.
    ///
    /// # Errors
    /// When its text is no theme.
    pub fn add(&mut self, name: &str, text: &str) -> Result<(), ThemeError> {
        let before = self.own.insert(name.to_owned(), text.to_owned());
        self.resolve(name, Depth::True).map(drop).inspect_err(|_| match before {
            Some(before) => drop(self.own.insert(name.to_owned(), before)),
            None => drop(self.own.remove(name)),
        })
    }

    pub fn names(&self) -> Vec<&str> {
        let own = self.own.keys().map(String::as_str);
        let builtin = EMBEDDED.iter().map(|(name, _)| -> &str { name });
        builtin.chain(own.filter(|name| Theme::text(name).is_none())).collect()
    }

    /// A theme for a terminal of this depth. Terminals of 16 colours and of none get the themes made for them.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn load(&self, name: &str, depth: Depth) -> Result<Theme, ThemeError> {
        self.find(name)?;
        let name = match depth {
            Depth::Mono => "mono",
            Depth::Ansi16 => "ansi16",
            _ => name,
        };
        self.resolve(name, depth)
    }

    fn resolve(&self, name: &str, depth: Depth) -> Result<Theme, ThemeError> {
        let mut chain: Vec<(String, File)> = Vec::new();
        let mut next = Some(name.to_owned());
        while let Some(name) = next {
            // A theme of one's own may inherit from the one whose name it has.
            let again = chain.iter().any(|(known, _)| *known == name);
            let text = if again { Theme::text(&name) } else { Some(self.find(&name)?) };
            let text = text.filter(|_| chain.len() <= EMBEDDED.len() + self.own.len());
            let text =
                text.ok_or_else(|| ThemeError::Bad { name: name.clone(), why: "it inherits from itself".into() })?;
            let file: File =
                toml::from_str(text).map_err(|error| ThemeError::Bad { name: name.clone(), why: error.to_string() })?;
            for token in file.tokens.keys() {
                let part = format!("{token}.");
                if !Token::ALL.iter().any(|known| known.name() == token || known.name().starts_with(&part)) {
                    return Err(ThemeError::Bad { name, why: format!("there is no token {token:?}") });
                }
            }
            next = file.inherits.clone();
            chain.push((name, file));
        }
        let mut styles = BTreeMap::new();
        for token in Token::ALL {
            let mut style = Style::new();
            if let Some((owner, text)) = lookup(&chain, token.name()) {
                style = parse(text).map_err(|why| ThemeError::Bad { name: owner.clone(), why })?;
            }
            styles.insert(token, reduce_depth(style, depth));
        }
        Ok(Theme { name: name.to_owned(), depth, styles })
    }

    fn find(&self, name: &str) -> Result<&str, ThemeError> {
        self.own
            .get(name)
            .map(String::as_str)
            .or_else(|| Theme::text(name))
            .ok_or_else(|| ThemeError::NoSuch { name: name.to_owned(), known: self.names().join(", ") })
    }
}

fn lookup<'a>(chain: &'a [(String, File)], token: &str) -> Option<(&'a String, &'a String)> {
    let mut name = token;
    loop {
        for (owner, file) in chain {
            if let Some(text) = file.tokens.get(name) {
                return Some((owner, text));
            }
        }
        name = name.rsplit_once('.')?.0;
    }
}

/// `#8fbf4d bold`, `on blue`, `reverse`: a foreground, `on` a background, attributes.
fn parse(text: &str) -> Result<Style, String> {
    let mut style = Style::new();
    let mut background = false;
    for word in text.split_whitespace() {
        let attribute = match word {
            "bold" => Some(Modifier::BOLD),
            "dim" => Some(Modifier::DIM),
            "italic" => Some(Modifier::ITALIC),
            "underline" => Some(Modifier::UNDERLINED),
            "reverse" => Some(Modifier::REVERSED),
            _ => None,
        };
        if let Some(attribute) = attribute {
            style = style.add_modifier(attribute);
        } else if word == "on" {
            background = true;
        } else if word != "plain" {
            let color = Color::from_str(word).map_err(|_| format!("{word:?} is no colour and no attribute"))?;
            style = if std::mem::take(&mut background) { style.bg(color) } else { style.fg(color) };
        }
    }
    Ok(style)
}

fn reduce_depth(mut style: Style, depth: Depth) -> Style {
    match depth {
        Depth::True | Depth::Ansi16 => style,
        Depth::Indexed => {
            style.fg = style.fg.map(indexed);
            style.bg = style.bg.map(indexed);
            style
        }
        Depth::Mono => {
            style.fg = None;
            style.bg = None;
            style
        }
    }
}

/// The nearest colour of the 6×6×6 cube of xterm.
fn indexed(color: Color) -> Color {
    let Color::Rgb(red, green, blue) = color else { return color };
    let step = |value: u8| -> u8 {
        if value < 48 {
            0
        } else if value < 115 {
            1
        } else {
            (value - 35) / 40
        }
    };
    Color::Indexed(16 + 36 * step(red) + 6 * step(green) + step(blue))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_theme_is_valid_at_every_depth() {
        for name in Theme::names() {
            for depth in [Depth::Mono, Depth::Ansi16, Depth::Indexed, Depth::True] {
                let theme = Theme::load(name, depth).unwrap();
                assert!(theme.style(Token::Selection).add_modifier.contains(Modifier::REVERSED), "{name}");
            }
        }
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/themes")).unwrap();
        let mut names: Vec<String> =
            files.map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect();
        names.sort();
        let mut known: Vec<_> = Theme::names().collect();
        known.sort();
        assert_eq!(names, known, "a theme file that is not embedded");
    }

    #[test]
    fn without_colour_the_failure_and_the_match_still_stand_out() {
        let theme = Theme::load("dark", Depth::Mono).unwrap();
        for token in Token::ALL {
            let style = theme.style(token);
            assert_eq!((style.fg, style.bg), (None, None), "{token:?}");
        }
        for token in [Token::Fail, Token::MatchCurrent, Token::Danger, Token::BorderFocus] {
            assert!(!theme.style(token).add_modifier.is_empty(), "{token:?}");
        }
    }

    #[test]
    fn ok_warn_and_fail_differ_in_every_coloured_theme() {
        for name in Theme::names().filter(|name| *name != "mono") {
            let depth = if name == "ansi16" { Depth::Ansi16 } else { Depth::True };
            let theme = Theme::load(name, depth).unwrap();
            let colors = [Token::Ok, Token::Warn, Token::Fail].map(|token| theme.style(token).fg);
            assert!(colors.iter().all(Option::is_some), "{name}");
            assert!(colors[0] != colors[1] && colors[1] != colors[2] && colors[0] != colors[2], "{name}");
            assert_eq!((theme.style(Token::Text).fg, theme.style(Token::Text).bg), (None, None), "{name}");
        }
    }

    /// Relative luminance as WCAG 2.1 defines it.
    fn luminance(color: Color) -> f64 {
        let Color::Rgb(red, green, blue) = color else { panic!("{color:?}") };
        let part = |value: u8| {
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(red) + 0.7152 * part(green) + 0.0722 * part(blue)
    }

    #[test]
    fn colours_can_be_read_on_the_backgrounds_they_are_made_for() {
        let on = |name: &str, ground: f64, least: f64| {
            let theme = Theme::load(name, Depth::True).unwrap();
            for token in Token::ALL {
                let style = theme.style(token);
                if let (Some(color @ Color::Rgb(..)), None) = (style.fg, style.bg) {
                    let (one, two) = (luminance(color) + 0.05, ground + 0.05);
                    let contrast = one.max(two) / one.min(two);
                    let least = if matches!(token, Token::Border | Token::BarRest) { 1.5 } else { least };
                    assert!(contrast >= least, "{name} {} {contrast:.1}", token.name());
                }
            }
        };
        for name in ["dark", "deuteranopia", "tritanopia"] {
            on(name, 0.0, 4.5);
        }
        on("high-contrast", 0.0, 7.0);
        on("light", 1.0, 4.5);
        // Where nobody knows what the background is.
        on("neutral", 0.0, 4.4);
        on("neutral", 1.0, 4.4);
    }

    /// Linear parts of a colour, from 0 to 1.
    fn linear(color: Color) -> [f64; 3] {
        let Color::Rgb(red, green, blue) = color else { panic!("{color:?}") };
        [red, green, blue].map(|value| {
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        })
    }

    /// CIE L*a*b* of linear sRGB, D65.
    fn lab(rgb: [f64; 3]) -> [f64; 3] {
        let xyz = product([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], rgb);
        let f = |t: f64| if t > 0.008_856 { t.cbrt() } else { 7.787 * t + 16.0 / 116.0 };
        let [x, y, z] = [f(xyz[0] / 0.9505), f(xyz[1]), f(xyz[2] / 1.089)];
        [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
    }

    fn product(matrix: [[f64; 3]; 3], v: [f64; 3]) -> [f64; 3] {
        matrix.map(|row| (row[0] * v[0] + row[1] * v[1] + row[2] * v[2]).clamp(0.0, 1.1))
    }

    /// Machado, Oliveira and Fernandes 2009, severity 1.0, on linear sRGB.
    const DEUTERANOPIA: [[f64; 3]; 3] =
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]];
    const TRITANOPIA: [[f64; 3]; 3] =
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]];

    #[test]
    fn ok_warn_and_fail_stay_apart_for_eyes_that_see_fewer_colours() {
        for (name, sight) in [("deuteranopia", DEUTERANOPIA), ("tritanopia", TRITANOPIA)] {
            let theme = Theme::load(name, Depth::True).unwrap();
            let seen = [Token::Ok, Token::Warn, Token::Fail]
                .map(|token| lab(product(sight, linear(theme.style(token).fg.unwrap()))));
            for (one, other) in [(0, 1), (1, 2), (0, 2)] {
                let apart: f64 = (0..3).map(|at| (seen[one][at] - seen[other][at]).powi(2)).sum::<f64>().sqrt();
                assert!(apart >= 20.0, "{name}: {one} and {other} are {apart:.0} apart");
            }
        }
    }

    #[test]
    fn a_theme_of_ones_own_inherits_replaces_and_is_checked() {
        let mut themes = Themes::default();
        themes.add("mine", "inherits = \"dark\"\n[tokens]\n\"status.ok\" = \"#00ff00\"\n").unwrap();
        let mine = themes.load("mine", Depth::True).unwrap();
        assert_eq!(mine.style(Token::Ok).fg, Some(Color::Rgb(0, 255, 0)));
        assert_eq!(mine.style(Token::Fail), Theme::load("dark", Depth::True).unwrap().style(Token::Fail));
        themes.add("dark", "inherits = \"dark\"\n[tokens]\ntitle = \"underline\"\n").unwrap();
        let dark = themes.load("dark", Depth::True).unwrap();
        assert_eq!(dark.style(Token::Title).add_modifier, Modifier::UNDERLINED);
        assert!(dark.style(Token::Fail).fg.is_some());
        assert!(themes.names().contains(&"mine"));
        for (text, why) in [
            ("[tokens]\ntitel = \"bold\"", "no token"),
            ("[tokens]\ntitle = \"boldish\"", "boldish"),
            ("inherits = \"nowhere\"", "nowhere"),
            ("inherits = \"bad\"", "inherits from itself"),
        ] {
            let error = themes.add("bad", text).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(themes.load("bad", Depth::True).is_err());
    }

    #[test]
    fn a_wrong_name_says_which_are_right() {
        let error = Theme::load("drak", Depth::True).unwrap_err().to_string();
        assert!(error.contains("drak") && error.contains("deuteranopia"), "{error}");
    }
}
