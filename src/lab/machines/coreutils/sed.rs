//! `sed`, the part that scripts use: `s///gpi`, `p`, `d`, `q`, `a`, `i`, `c`, `=` with line, `$` and `/re/` addresses and ranges.

use std::io;

use regex::Regex;

use super::options;
use super::text::basic;
use crate::lab::machines::program::Cx;

enum Address {
    Line(usize),
    Last,
    Match(Regex),
}

enum Action {
    Substitute { regex: Regex, with: String, global: bool, nth: usize, print: bool },
    Print,
    Delete,
    Quit,
    Append(String),
    Insert(String),
    Change(String),
    Number,
}

struct Command {
    from: Option<Address>,
    to: Option<Address>,
    negated: bool,
    inside: bool,
    action: Action,
}

pub(super) async fn sed(cx: &mut Cx) -> io::Result<i32> {
    // `-i.bak` keeps its suffix in the same word.
    let words: Vec<String> = cx.words();
    let in_place = words.iter().find_map(|word| {
        word.strip_prefix("--in-place")
            .or_else(|| word.strip_prefix("-i"))
            .map(|suffix| suffix.trim_start_matches('=').to_owned())
    });
    let words: Vec<String> =
        words.into_iter().filter(|word| !word.starts_with("-i") && !word.starts_with("--in-place")).collect();
    cx.args.truncate(1);
    cx.args.extend(words);
    let mut args = options!(cx, "n E r u s quiet silent regexp-extended", "e expression");
    let mut script: Vec<String> = args.all("e expression").iter().map(|text| (*text).to_owned()).collect();
    if script.is_empty() {
        if args.rest.is_empty() {
            cx.complain("no script").await;
            return Ok(1);
        }
        script.push(args.rest.remove(0));
    }
    let extended = args.has("E r regexp-extended");
    let mut commands = match parse(&script.join("\n"), extended) {
        Ok(commands) => commands,
        Err(why) => {
            cx.complain(format!("-e expression #1: {why}")).await;
            return Ok(1);
        }
    };
    let quiet = args.has("n quiet silent");
    let names = if args.rest.is_empty() { vec!["-".to_owned()] } else { args.rest.clone() };
    let mut input = String::new();
    for name in &names {
        let text = match cx.read_all(name).await {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => {
                cx.fail(&format!("can't read {name}"), &error).await;
                return Ok(2);
            }
        };
        match &in_place {
            Some(suffix) => {
                let path = cx.path(name);
                let done = if suffix.is_empty() {
                    Ok(())
                } else {
                    cx.machine.fs().write(&format!("{path}{suffix}"), text.as_bytes())
                };
                let done =
                    done.and_then(|()| cx.machine.fs().write(&path, run(&mut commands, &text, quiet).as_bytes()));
                if let Err(error) = done {
                    return Ok(cx.fail(name, &error).await);
                }
            }
            None => input.push_str(&text),
        }
    }
    if in_place.is_none() {
        cx.out(run(&mut commands, &input, quiet)).await?;
    }
    Ok(0)
}

fn run(commands: &mut [Command], input: &str, quiet: bool) -> String {
    let lines: Vec<&str> = input.lines().collect();
    let mut out = String::new();
    let emit = |out: &mut String, line: &str| {
        out.push_str(line);
        out.push('\n');
    };
    'lines: for (at, line) in lines.iter().enumerate() {
        let last = at + 1 == lines.len();
        let mut line = (*line).to_owned();
        let mut after = String::new();
        let mut quit = false;
        for command in commands.iter_mut() {
            if !command.applies(at + 1, last, &line) {
                continue;
            }
            match &command.action {
                Action::Substitute { regex, with, global, nth, print } => {
                    let mut count = 0;
                    let new = regex.replacen(&line, 0, |found: &regex::Captures<'_>| {
                        count += 1;
                        let mut text = String::new();
                        if count < *nth || (!*global && count > *nth) {
                            return found.get(0).map_or(String::new(), |whole| whole.as_str().to_owned());
                        }
                        found.expand(with, &mut text);
                        text
                    });
                    if count >= *nth {
                        line = new.into_owned();
                        if *print {
                            emit(&mut out, &line);
                        }
                    }
                }
                Action::Print => emit(&mut out, &line),
                Action::Delete => {
                    continue 'lines;
                }
                Action::Quit => {
                    quit = true;
                    break;
                }
                Action::Append(text) => emit(&mut after, text),
                Action::Insert(text) => emit(&mut out, text),
                Action::Change(text) => {
                    emit(&mut out, text);
                    continue 'lines;
                }
                Action::Number => emit(&mut out, &(at + 1).to_string()),
            }
        }
        if !quiet {
            emit(&mut out, &line);
        }
        out.push_str(&after);
        if quit {
            break;
        }
    }
    if !input.ends_with('\n') && out.ends_with('\n') {
        out.pop();
    }
    out
}

impl Address {
    fn hits(&self, number: usize, last: bool, line: &str) -> bool {
        match self {
            Address::Line(wanted) => *wanted == number,
            Address::Last => last,
            Address::Match(regex) => regex.is_match(line),
        }
    }
}

impl Command {
    fn applies(&mut self, number: usize, last: bool, line: &str) -> bool {
        let hit = match (&self.from, &self.to) {
            (None, _) => true,
            (Some(from), None) => from.hits(number, last, line),
            (Some(from), Some(to)) => {
                if self.inside {
                    let over = matches!(to, Address::Line(end) if number >= *end) || to.hits(number, last, line);
                    self.inside = !over;
                    !matches!(to, Address::Line(end) if number > *end)
                } else {
                    let starts = from.hits(number, last, line);
                    self.inside = starts && !matches!(to, Address::Line(end) if *end <= number);
                    starts
                }
            }
        };
        hit != self.negated
    }
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn parse(script: &str, extended: bool) -> Result<Vec<Command>, String> {
    let mut chars = script.chars().peekable();
    let mut commands = Vec::new();
    loop {
        while chars.next_if(|c| c.is_whitespace() || *c == ';').is_some() {}
        if chars.peek().is_none() {
            return Ok(commands);
        }
        let from = address(&mut chars, extended)?;
        let to = match chars.next_if_eq(&',') {
            Some(_) => address(&mut chars, extended)?,
            None => None,
        };
        while chars.next_if_eq(&' ').is_some() {}
        let negated = chars.next_if_eq(&'!').is_some();
        let action = match chars.next() {
            Some('s') => substitute(&mut chars, extended)?,
            Some('p') => Action::Print,
            Some('d') => Action::Delete,
            Some('q') => Action::Quit,
            Some('=') => Action::Number,
            Some(letter @ ('a' | 'i' | 'c')) => {
                let text: String = chars.by_ref().take_while(|c| *c != '\n').collect();
                let text = text.trim_start().trim_start_matches('\\').trim_start().to_owned();
                match letter {
                    'a' => Action::Append(text),
                    'i' => Action::Insert(text),
                    _ => Action::Change(text),
                }
            }
            Some(letter) => return Err(format!("unknown command: `{letter}'")),
            None => return Err("missing command".to_owned()),
        };
        commands.push(Command { from, to, negated, inside: false, action });
    }
}

fn address(chars: &mut Chars<'_>, extended: bool) -> Result<Option<Address>, String> {
    match chars.peek() {
        Some('$') => {
            chars.next();
            Ok(Some(Address::Last))
        }
        Some('/') => {
            chars.next();
            let text = until(chars, '/')?;
            Ok(Some(Address::Match(regex(&text, extended, false)?)))
        }
        Some(c) if c.is_ascii_digit() => {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            digits.parse().map(|line| Some(Address::Line(line))).map_err(|_| "line number too large".to_owned())
        }
        _ => Ok(None),
    }
}

/// The text up to the delimiter, in which `\` keeps its place before anything else.
fn until(chars: &mut Chars<'_>, delimiter: char) -> Result<String, String> {
    let mut text = String::new();
    loop {
        match chars.next() {
            None => return Err("unterminated expression".to_owned()),
            Some(c) if c == delimiter => return Ok(text),
            Some('\\') => match chars.next() {
                Some(c) if c == delimiter => text.push(c),
                Some(c) => text.extend(['\\', c]),
                None => return Err("unterminated expression".to_owned()),
            },
            Some(c) => text.push(c),
        }
    }
}

fn regex(text: &str, extended: bool, ignore_case: bool) -> Result<Regex, String> {
    let text = if extended { text.to_owned() } else { basic(text) };
    let built = regex::RegexBuilder::new(&text).case_insensitive(ignore_case).build();
    built.map_err(|_| "invalid regular expression".to_owned())
}

fn substitute(chars: &mut Chars<'_>, extended: bool) -> Result<Action, String> {
    let delimiter = chars.next().ok_or("unterminated `s' command")?;
    let pattern = until(chars, delimiter)?;
    let replacement = until(chars, delimiter)?;
    let (mut global, mut print, mut ignore_case, mut nth) = (false, false, false, 1);
    while let Some(flag) = chars.next_if(|c| !matches!(c, ';' | '\n' | '}' | ' ')) {
        match flag {
            'g' => global = true,
            'p' => print = true,
            'i' | 'I' => ignore_case = true,
            digit if digit.is_ascii_digit() => nth = digit.to_digit(10).map_or(1, |digit| digit.max(1) as usize),
            _ => return Err("unknown option to `s'".to_owned()),
        }
    }
    // `&` and `\1` in the regex crate's notation.
    let mut with = String::new();
    let mut chars = replacement.chars();
    while let Some(c) = chars.next() {
        match c {
            '$' => with.push_str("$$"),
            '&' => with.push_str("${0}"),
            '\\' => match chars.next() {
                Some(digit) if digit.is_ascii_digit() => with.push_str(&format!("${{{digit}}}")),
                Some('n') => with.push('\n'),
                Some('t') => with.push('\t'),
                Some('$') => with.push_str("$$"),
                Some(c) => with.push(c),
                None => {}
            },
            c => with.push(c),
        }
    }
    Ok(Action::Substitute { regex: regex(&pattern, extended, ignore_case)?, with, global, nth, print })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_do_what_gnu_sed_does() {
        for (script, input, output) in [
            ("s/a/b/", "aa\n", "ba\n"),
            ("s/a/b/g", "aa\n", "bb\n"),
            (r"s|\(x*\)y|[\1]&|", "xxy\n", "[xx]xxy\n"),
            ("2d", "1\n2\n3\n", "1\n3\n"),
            ("2,3d", "1\n2\n3\n4\n", "1\n4\n"),
            ("/b/,$d", "a\nb\nc\n", "a\n"),
            ("$!d", "a\nb\n", "b\n"),
            ("2q", "1\n2\n3\n", "1\n2\n"),
            ("s/$/!/", "no newline", "no newline!"),
        ] {
            let mut commands = parse(script, false).unwrap_or_else(|why| panic!("{script}: {why}"));
            assert_eq!(run(&mut commands, input, false), output, "{script}");
        }
    }
}
