//! Text in, text out: `echo`, `printf`, `grep`, `cut`, `tr`, `sort`, `uniq`.

use std::io;

use regex::bytes::RegexBuilder;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::options;
use crate::lab::machines::program::Cx;
use crate::lab::machines::shell::ansi_c;

/// `echo` as bash does it: backslashes only with `-e`.
pub(crate) fn echo(words: &[&str]) -> String {
    let flag =
        |word: &&&str| word.len() > 1 && word.starts_with('-') && word.chars().skip(1).all(|c| "neE".contains(c));
    let flags: String = words.iter().take_while(flag).flat_map(|word| word.chars()).collect();
    let rest: Vec<&str> = words.iter().skip_while(flag).copied().collect();
    let text = rest.join(" ");
    let text = if flags.contains('e') { ansi_c(&text) } else { text };
    if flags.contains('n') { text } else { text + "\n" }
}

/// `printf`, its format used again while arguments are left.
pub(crate) fn format_printf(words: &[&str]) -> Result<String, String> {
    let words = if words.first() == Some(&"--") { words.get(1..).unwrap_or_default() } else { words };
    let Some((format, args)) = words.split_first() else { return Err("usage: printf format [arguments]".to_owned()) };
    let mut args = args.iter();
    let mut out = String::new();
    loop {
        let before = args.len();
        one_format(format, &mut args, &mut out)?;
        if args.len() == 0 || args.len() == before {
            return Ok(out);
        }
    }
}

fn one_format(format: &str, args: &mut std::slice::Iter<'_, &str>, out: &mut String) -> Result<(), String> {
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&ansi_c(rest.get(..at).unwrap_or_default()));
        rest = rest.get(at + 1..).unwrap_or_default();
        let end = rest.find(|c: char| !"-+ #0123456789.*l".contains(c)).unwrap_or(rest.len());
        let Some(kind) = rest.get(end..).and_then(|text| text.chars().next()) else {
            return Err("missing format character".to_owned());
        };
        let mut spec = rest.get(..end).unwrap_or_default().replace('l', "");
        rest = rest.get(end + kind.len_utf8()..).unwrap_or_default();
        while spec.contains('*') {
            spec = spec.replacen('*', args.next().copied().unwrap_or("0"), 1);
        }
        let (flags, spec) = spec.split_at(spec.find(|c: char| !"-+ #0".contains(c)).unwrap_or(spec.len()));
        let (width, precision) =
            spec.split_once('.').map_or((spec, None), |(width, precision)| (width, Some(precision)));
        // Nobody lines up columns wider than this.
        let width = width.parse::<usize>().unwrap_or(0).min(10_000);
        let precision = precision.map(|text| text.parse::<usize>().unwrap_or(0).min(10_000));
        let mut number = || {
            let text = args.next().copied().unwrap_or("0").trim();
            if let Some(quoted) = text.strip_prefix(['\'', '"']) {
                return Ok(quoted.chars().next().map_or(0, |c| i64::from(u32::from(c))));
            }
            let parsed = match text.strip_prefix("0x") {
                Some(hex) => i64::from_str_radix(hex, 16),
                None if text.is_empty() => Ok(0),
                None => text.parse(),
            };
            parsed.map_err(|_| format!("{text}: invalid number"))
        };
        let text = match kind {
            '%' => "%".to_owned(),
            's' => {
                let text = args.next().copied().unwrap_or_default();
                text.chars().take(precision.unwrap_or(usize::MAX)).collect()
            }
            'b' => ansi_c(args.next().copied().unwrap_or_default()),
            'q' => format!("'{}'", args.next().copied().unwrap_or_default().replace('\'', r"'\''")),
            'c' => args.next().copied().unwrap_or_default().chars().take(1).collect(),
            'd' | 'i' | 'u' => {
                let value = number()?;
                let digits = format!("{:0>1$}", value.unsigned_abs(), precision.unwrap_or(1));
                let sign = if value < 0 {
                    "-"
                } else if flags.contains('+') {
                    "+"
                } else {
                    ""
                };
                format!("{sign}{digits}")
            }
            'x' => format!("{:x}", number()?),
            'X' => format!("{:X}", number()?),
            'o' => format!("{:o}", number()?),
            'f' | 'e' | 'g' => {
                let value: f64 = args.next().copied().unwrap_or("0").parse().map_err(|_| "invalid number")?;
                format!("{value:.0$}", precision.unwrap_or(6))
            }
            kind => return Err(format!("%{kind}: invalid directive")),
        };
        let pad = width.saturating_sub(text.chars().count());
        if flags.contains('-') {
            out.push_str(&text);
            out.extend(std::iter::repeat_n(' ', pad));
        } else if flags.contains('0') && "dixXouf".contains(kind) {
            let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |digits| ("-", digits));
            out.push_str(sign);
            out.extend(std::iter::repeat_n('0', pad));
            out.push_str(digits);
        } else {
            out.extend(std::iter::repeat_n(' ', pad));
            out.push_str(&text);
        }
    }
    out.push_str(&ansi_c(rest));
    Ok(())
}

/// A basic regular expression in the notation of the regex crate.
pub(super) fn basic(pattern: &str) -> String {
    let mut out = String::new();
    let mut chars = pattern.chars().peekable();
    let mut in_set = false;
    let mut start = true;
    while let Some(c) = chars.next() {
        match c {
            '[' if !in_set => {
                in_set = true;
                out.push('[');
                if chars.peek() == Some(&'^') {
                    out.extend(chars.next());
                }
                if chars.peek() == Some(&']') {
                    chars.next();
                    out.push_str("\\]");
                }
            }
            ']' if in_set => {
                in_set = false;
                out.push(']');
            }
            '[' if chars.peek() == Some(&':') => {
                out.push('[');
                for c in chars.by_ref() {
                    out.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            c if in_set => {
                if matches!(c, '\\' | '&' | '~' | '[') {
                    out.push('\\');
                }
                out.push(c);
            }
            '\\' => match chars.next() {
                Some(c @ ('(' | ')' | '{' | '}' | '+' | '?' | '|')) => out.push(c),
                Some(c) => out.extend(['\\', c]),
                None => out.push_str("\\\\"),
            },
            '(' | ')' | '{' | '}' | '+' | '?' | '|' => out.extend(['\\', c]),
            '*' if start => out.push_str("\\*"),
            c => out.push(c),
        }
        start = out.ends_with('(') || out == "^";
    }
    out
}

pub(super) async fn grep(cx: &mut Cx) -> io::Result<i32> {
    let flags = "q v i E F o c n l L w x s h H r R a quiet invert-match ignore-case silent extended-regexp fixed-strings \
                 only-matching count line-number line-buffered no-messages text word-regexp line-regexp color";
    let mut args = options!(cx, flags, "e regexp m max-count A B C");
    let mut patterns: Vec<String> = args.all("e regexp").iter().map(|text| (*text).to_owned()).collect();
    if patterns.is_empty() {
        if args.rest.is_empty() {
            cx.complain("usage: grep [OPTION]... PATTERNS [FILE]...").await;
            return Ok(2);
        }
        patterns.push(args.rest.remove(0));
    }
    let patterns: Vec<String> = patterns
        .iter()
        .flat_map(|text| text.split('\n'))
        .map(|text| match (args.has("F fixed-strings"), args.has("E extended-regexp")) {
            (true, _) => regex::escape(text),
            (_, true) => text.to_owned(),
            _ => basic(text),
        })
        .collect();
    let mut pattern = format!("(?:{})", patterns.join("|"));
    if args.has("w word-regexp") {
        pattern = format!(r"\b{pattern}\b");
    }
    if args.has("x line-regexp") {
        pattern = format!("^{pattern}$");
    }
    let Ok(regex) = RegexBuilder::new(&pattern).case_insensitive(args.has("i ignore-case")).unicode(false).build()
    else {
        cx.complain("Invalid regular expression").await;
        return Ok(2);
    };
    let most = args.value("m max-count").and_then(|count| count.parse().ok()).unwrap_or(usize::MAX);
    let context: usize = ["A", "C"].iter().filter_map(|name| args.value(name)?.parse().ok()).max().unwrap_or(0);
    let mut names = args.rest.clone();
    if args.has("r R") {
        let mut todo = if names.is_empty() { vec![".".to_owned()] } else { std::mem::take(&mut names) };
        while let Some(name) = todo.pop() {
            let path = cx.path(&name);
            if cx.machine.fs().is_dir(&path) {
                let children = cx.machine.fs().list(&path).unwrap_or_default();
                todo.extend(children.iter().rev().map(|child| format!("{}/{child}", name.trim_end_matches('/'))));
            } else {
                names.push(name);
            }
        }
    } else if names.is_empty() {
        names.push("-".to_owned());
    }
    let label = (names.len() > 1 || args.has("H r R")) && !args.has("h");
    let (mut found, mut status) = (false, 1);
    for name in names {
        let prefix = if label { format!("{name}:") } else { String::new() };
        let mut lines = match cx.open(&name) {
            Ok(file) => BufReader::with_capacity(64 * 1024, file),
            Err(error) => {
                if !args.has("s no-messages q quiet silent") {
                    cx.fail(&name, &error).await;
                }
                status = 2;
                continue;
            }
        };
        let (mut count, mut number, mut after) = (0, 0, 0);
        let mut line = Vec::new();
        while count < most {
            line.clear();
            if lines.read_until(b'\n', &mut line).await? == 0 {
                break;
            }
            number += 1;
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            let hit = regex.is_match(text) != args.has("v invert-match");
            if !hit && after == 0 {
                continue;
            }
            after = if hit { context } else { after - 1 };
            count += usize::from(hit);
            found |= hit;
            if args.has("q quiet silent") {
                return Ok(0);
            }
            if args.has("c count l L") {
                continue;
            }
            let number = if args.has("n line-number") { format!("{number}:") } else { String::new() };
            let head = format!("{prefix}{number}");
            if args.has("o only-matching") {
                for found in regex.find_iter(text).filter(|found| !found.is_empty()) {
                    cx.out([head.as_bytes(), found.as_bytes(), b"\n"].concat()).await?;
                }
            } else {
                cx.out([head.as_bytes(), text, b"\n"].concat()).await?;
            }
        }
        if args.has("c count") {
            cx.out(format!("{prefix}{count}\n")).await?;
        } else if args.has("l") && count > 0 || args.has("L") && count == 0 {
            cx.out(format!("{name}\n")).await?;
        }
    }
    Ok(if found && status != 2 { 0 } else { status })
}

/// The numbers of `1,3-5,7-`: from and to, from 1.
fn ranges(list: &str) -> Option<Vec<(usize, usize)>> {
    list.split(',')
        .map(|part| match part.split_once('-') {
            None => part.parse().ok().map(|at| (at, at)),
            Some((from, to)) => {
                let from = if from.is_empty() { 1 } else { from.parse().ok()? };
                Some((from, if to.is_empty() { usize::MAX } else { to.parse().ok()? }))
            }
        })
        .collect()
}

async fn lines(cx: &Cx, names: &[String]) -> Result<Vec<String>, i32> {
    let stdin = ["-".to_owned()];
    let mut lines = Vec::new();
    for name in if names.is_empty() { &stdin } else { names } {
        match cx.read_all(name).await {
            Ok(bytes) => lines.extend(String::from_utf8_lossy(&bytes).lines().map(str::to_owned)),
            Err(error) => {
                cx.fail(name, &error).await;
                return Err(2);
            }
        }
    }
    Ok(lines)
}

pub(super) async fn cut(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "s only-delimited", "d delimiter f fields c characters b bytes output-delimiter");
    let list = args.value("f fields").or(args.value("c characters b bytes"));
    let Some(ranges) = list.and_then(ranges) else {
        cx.complain("you must specify a list of bytes, characters, or fields").await;
        return Ok(1);
    };
    let wanted = |at: usize| ranges.iter().any(|(from, to)| (*from..=*to).contains(&(at + 1)));
    let delimiter = args.value("d delimiter").unwrap_or("\t").to_owned();
    let lines = match lines(cx, &args.rest).await {
        Ok(lines) => lines,
        Err(status) => return Ok(status),
    };
    for line in lines {
        let kept: String = if args.value("f fields").is_none() {
            line.chars().enumerate().filter(|(at, _)| wanted(*at)).map(|(_, c)| c).collect()
        } else if !line.contains(&delimiter) {
            if args.has("s only-delimited") {
                continue;
            }
            line
        } else {
            let fields = line.split(&delimiter).enumerate().filter(|(at, _)| wanted(*at)).map(|(_, field)| field);
            fields.collect::<Vec<_>>().join(args.value("output-delimiter").unwrap_or(&delimiter))
        };
        cx.out(kept + "\n").await?;
    }
    Ok(0)
}

/// The characters of `a-z`, `\n`, `[:upper:]`.
fn char_set(text: &str) -> Vec<char> {
    let mut text = ansi_c(text);
    for (class, range) in [
        ("[:upper:]", "A-Z"),
        ("[:lower:]", "a-z"),
        ("[:digit:]", "0-9"),
        ("[:alpha:]", "A-Za-z"),
        ("[:alnum:]", "A-Za-z0-9"),
        ("[:space:]", " \t\n\r\u{b}\u{c}"),
    ] {
        text = text.replace(class, range);
    }
    let chars: Vec<char> = text.chars().collect();
    let mut set = Vec::new();
    let mut at = 0;
    while let Some(c) = chars.get(at) {
        match (chars.get(at + 1), chars.get(at + 2)) {
            (Some('-'), Some(to)) if c <= to => {
                set.extend(*c..=*to);
                at += 3;
            }
            _ => {
                set.push(*c);
                at += 1;
            }
        }
    }
    set
}

pub(super) async fn tr(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "d s c C delete squeeze-repeats complement", "");
    let bytes = cx.read_all("-").await?;
    let text = String::from_utf8_lossy(&bytes);
    let from = char_set(args.rest.first().map_or("", String::as_str));
    let to = args.rest.get(1).map(|text| char_set(text)).unwrap_or_default();
    let listed = |c: char| from.contains(&c) != args.has("c C complement");
    let mut out = String::new();
    let squeeze = |c: char| if to.is_empty() { listed(c) } else { to.contains(&c) };
    for c in text.chars() {
        let c = match listed(c) {
            true if args.has("d delete") => continue,
            true if !to.is_empty() => {
                let at = from.iter().position(|known| *known == c).unwrap_or(usize::MAX);
                to.get(at).or(to.last()).copied().unwrap_or(c)
            }
            _ => c,
        };
        if args.has("s squeeze-repeats") && out.ends_with(c) && squeeze(c) {
            continue;
        }
        out.push(c);
    }
    cx.out(out).await.map(|()| 0)
}

pub(super) async fn sort(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "u r n V h f b s unique reverse numeric-sort", "k key t field-separator o output");
    let mut lines = match lines(cx, &args.rest).await {
        Ok(lines) => lines,
        Err(status) => return Ok(status),
    };
    let separator = args.value("t field-separator").and_then(|text| text.chars().next());
    let key_spec = args.value("k key").unwrap_or_default();
    let column: usize = key_spec.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let single = key_spec.contains(',');
    let numeric = args.has("n h numeric-sort") || key_spec.contains('n');
    let reverse = args.has("r reverse") || key_spec.contains('r');
    let key = |line: &str| -> String {
        let fields: Vec<&str> = match separator {
            Some(separator) => line.split(separator).collect(),
            None => line.split_whitespace().collect(),
        };
        match column {
            0 => line.to_owned(),
            n if single => fields.get(n - 1).copied().unwrap_or_default().to_owned(),
            n => fields.get(n - 1..).unwrap_or_default().join(" "),
        }
    };
    let value = |text: &str| {
        let text = text.trim_start();
        let end = text.find(|c: char| !(c.is_ascii_digit() || "-.".contains(c))).unwrap_or(text.len());
        text.get(..end).and_then(|digits| digits.parse::<f64>().ok()).unwrap_or(0.0)
    };
    let version = |text: &str| -> Vec<(String, u64)> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let (word, tail) = rest.split_at(digits);
            let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
            let (number, tail) = tail.split_at(end);
            parts.push((word.to_owned(), number.parse().unwrap_or(0)));
            rest = tail;
        }
        parts
    };
    lines.sort_by(|left, right| {
        let (a, b) = (key(left), key(right));
        let order = if numeric {
            value(&a).total_cmp(&value(&b))
        } else if args.has("V") {
            version(&a).cmp(&version(&b))
        } else {
            a.cmp(&b)
        };
        let order = if args.has("s u") { order } else { order.then_with(|| left.cmp(right)) };
        if reverse { order.reverse() } else { order }
    });
    if args.has("u unique") {
        lines.dedup_by(|a, b| if numeric { value(&key(a)) == value(&key(b)) } else { key(a) == key(b) });
    }
    let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
    match args.value("o output") {
        None => cx.out(text).await.map(|()| 0),
        Some(name) => match cx.machine.fs().write(&cx.path(name), text.as_bytes()) {
            Ok(()) => Ok(0),
            Err(error) => Ok(cx.fail(name, &error).await),
        },
    }
}

pub(super) async fn uniq(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "c d u i count repeated unique", "");
    let lines = match lines(cx, &args.rest).await {
        Ok(lines) => lines,
        Err(status) => return Ok(status),
    };
    for group in lines.chunk_by(|a, b| a == b) {
        let Some(line) = group.first() else { continue };
        if args.has("d repeated") && group.len() < 2 || args.has("u unique") && group.len() > 1 {
            continue;
        }
        let count = if args.has("c count") { format!("{:7} ", group.len()) } else { String::new() };
        cx.out(format!("{count}{line}\n")).await?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printf_formats() {
        for (words, text) in [
            (&["%s-%s\\n", "a", "b", "c"][..], "a-b\nc-\n"),
            (&["%05d|%-4s|%3s", "-42", "x", "y"], "-0042|x   |  y"),
            (&["%%%c%b", "xyz", "a\\tb"], "%xa\tb"),
            (&["plain\\n"], "plain\n"),
        ] {
            assert_eq!(format_printf(words).as_deref(), Ok(text));
        }
        assert!(format_printf(&["%d", "x"]).is_err());
    }

    #[test]
    fn basic_expressions_translate() {
        assert_eq!(basic(r"a\(b\)*c+"), r"a(b)*c\+");
        assert_eq!(basic("^*x[]a]"), r"^\*x[\]a]");
    }
}
