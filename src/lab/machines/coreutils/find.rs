//! `find` with `-name -iname -path -type -maxdepth -mindepth -newer -empty -size -mtime -mmin -print -print0 -delete -exec` and `!`.

use std::io;
use std::time::SystemTime;

use crate::lab::machines::fs::{Kind, Meta};
use crate::lab::machines::program::Cx;
use crate::lab::machines::shell::pattern::Pattern;

enum Test {
    Name(Pattern),
    Path(Pattern),
    Type(char),
    Newer(SystemTime),
    /// Seconds since the last change: more (`+`) or less.
    Age {
        seconds: u64,
        more: bool,
    },
    Bytes {
        bytes: u64,
        order: std::cmp::Ordering,
    },
    Empty,
}

pub(super) async fn find(cx: &mut Cx) -> io::Result<i32> {
    let words = cx.words();
    let mut words = words.into_iter().peekable();
    let mut starts = Vec::new();
    while let Some(word) = words.next_if(|word| !word.starts_with('-') && word != "!") {
        starts.push(word);
    }
    if starts.is_empty() {
        starts.push(".".to_owned());
    }
    let fs = cx.machine.fs().clone();
    let (mut tests, mut exec, mut delete, mut end) = (Vec::new(), None, false, "\n");
    let (mut least, mut most) = (0, usize::MAX);
    let mut negated = false;
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("missing argument to `{word}'"));
        let test = match word.as_str() {
            "!" | "-not" => {
                negated = true;
                continue;
            }
            "-print" | "-a" | "-xdev" | "-depth" => Ok(None),
            "-print0" => {
                end = "\0";
                Ok(None)
            }
            "-delete" => {
                delete = true;
                Ok(None)
            }
            "-name" => value().map(|text| Some(Test::Name(Pattern::new(&text)))),
            "-path" => value().map(|text| Some(Test::Path(Pattern::new(&text)))),
            "-type" => value().map(|text| text.chars().next().map(Test::Type)),
            "-empty" => Ok(Some(Test::Empty)),
            "-newer" => value().and_then(|name| {
                let meta =
                    fs.meta(&cx.path(&name), true).map_err(|_| format!("'{name}': No such file or directory"))?;
                Ok(Some(Test::Newer(meta.modified)))
            }),
            "-mmin" | "-mtime" => {
                let unit = if word == "-mmin" { 60 } else { 86_400 };
                value().and_then(|text| {
                    let count: u64 = text.trim_start_matches(['+', '-']).parse().map_err(|_| "invalid argument")?;
                    Ok(Some(Test::Age { seconds: count.saturating_mul(unit), more: text.starts_with('+') }))
                })
            }
            "-size" => value().and_then(|text| {
                let number = text.trim_start_matches(['+', '-']).trim_end_matches('c');
                let bytes = super::size(&number.to_uppercase()).ok_or("invalid -size")?;
                let order = match text.chars().next() {
                    Some('+') => std::cmp::Ordering::Greater,
                    Some('-') => std::cmp::Ordering::Less,
                    _ => std::cmp::Ordering::Equal,
                };
                Ok(Some(Test::Bytes { bytes, order }))
            }),
            "-maxdepth" | "-mindepth" => {
                let depth = value().and_then(|text| text.parse().map_err(|_| "invalid depth".to_owned()));
                depth.map(|depth: usize| {
                    if word == "-maxdepth" {
                        most = depth;
                    } else {
                        least = depth;
                    }
                    None
                })
            }
            "-exec" => {
                let mut command: Vec<String> = words.by_ref().take_while(|word| word != ";").collect();
                let together = command.last().is_some_and(|word| word == "+");
                if together {
                    command.pop();
                }
                exec = Some((command, together));
                Ok(None)
            }
            word => Err(format!("unknown predicate `{word}'")),
        };
        match test {
            Ok(Some(test)) => {
                tests.push((test, negated));
                negated = false;
            }
            Ok(None) => {}
            Err(why) => {
                cx.complain(why).await;
                return Ok(1);
            }
        }
    }
    let mut status = 0;
    let mut found = Vec::new();
    let mut todo: Vec<(String, usize)> = starts.into_iter().rev().map(|start| (start, 0)).collect();
    while let Some((name, depth)) = todo.pop() {
        let path = cx.path(&name);
        let meta = match fs.meta(&path, false) {
            Ok(meta) => meta,
            Err(error) => {
                status = cx.fail(&format!("'{name}'"), &error).await;
                continue;
            }
        };
        if meta.kind == Kind::Dir && depth < most {
            let children = fs.list(&path).unwrap_or_default();
            let base = name.trim_end_matches('/');
            todo.extend(children.iter().rev().map(|child| (format!("{base}/{child}"), depth + 1)));
        }
        let base = name.rsplit('/').next().unwrap_or_default();
        let empty = || match meta.kind {
            Kind::Dir => fs.list(&path).is_ok_and(|names| names.is_empty()),
            _ => meta.len == 0,
        };
        if depth >= least && tests.iter().all(|(test, negated)| test.holds(&name, base, &meta, empty) != *negated) {
            found.push(name);
        }
    }
    if delete {
        for name in found.iter().rev() {
            let path = cx.path(name);
            let gone = if fs.is_dir(&path) { fs.remove_dir(&path) } else { fs.remove(&path) };
            if let Err(error) = gone {
                status = cx.fail(&format!("cannot delete '{name}'"), &error).await;
            }
        }
        return Ok(status);
    }
    match exec {
        None => {
            let text: String = found.iter().flat_map(|name| [name.as_str(), end]).collect();
            cx.out(text).await?;
        }
        Some((command, true)) => {
            let command: Vec<String> = command.into_iter().filter(|word| word != "{}").chain(found).collect();
            status = cx.spawn(command).await.min(1);
        }
        Some((command, false)) => {
            for name in found {
                cx.spawn(command.iter().map(|word| word.replace("{}", &name)).collect()).await;
            }
        }
    }
    Ok(status)
}

impl Test {
    fn holds(&self, path: &str, base: &str, meta: &Meta, empty: impl Fn() -> bool) -> bool {
        match self {
            Test::Name(pattern) => pattern.matches(base),
            Test::Path(pattern) => pattern.matches(path),
            Test::Type(letter) => {
                let kind = match meta.kind {
                    Kind::File => 'f',
                    Kind::Dir => 'd',
                    Kind::Link(_) => 'l',
                    Kind::Device => 'c',
                };
                kind == *letter
            }
            Test::Newer(than) => meta.modified > *than,
            Test::Age { seconds, more } => {
                let age = meta.modified.elapsed().map_or(0, |age| age.as_secs());
                if *more { age > *seconds } else { age < *seconds }
            }
            Test::Bytes { bytes, order } => meta.len.cmp(bytes) == *order,
            Test::Empty => empty(),
        }
    }
}
