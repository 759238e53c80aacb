//! Looking at files: `ls`, `stat`, `readlink`, `df`, `du`.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{options, size};
use crate::lab::machines::fs::{Kind, Meta, join, tree_bytes};
use crate::lab::machines::program::Cx;

fn seconds(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).ok().and_then(|age| i64::try_from(age.as_secs()).ok()).unwrap_or(0)
}

fn letters(meta: &Meta) -> String {
    let first = match meta.kind {
        Kind::Dir => 'd',
        Kind::Link(_) => 'l',
        Kind::Device => 'c',
        Kind::File => '-',
    };
    let bits = (0..9).map(|at| if meta.mode >> (8 - at) & 1 == 1 { b"rwx"[at as usize % 3] as char } else { '-' });
    let mut text: String = std::iter::once(first).chain(bits).collect();
    if meta.mode & 0o1000 != 0 && meta.kind == Kind::Dir {
        text.pop();
        text.push('t');
    }
    text
}

pub(super) async fn ls(cx: &mut Cx) -> io::Result<i32> {
    let flags = "l a A 1 d h t r S F p R n i Z s c u all almost-all color human-readable directory full-time";
    let args = options!(cx, flags, "");
    let fs = cx.machine.fs().clone();
    let names = if args.rest.is_empty() { vec![".".to_owned()] } else { args.rest.clone() };
    let mut status = 0;
    let (mut plain, mut dirs) = (Vec::new(), Vec::new());
    for name in names {
        match fs.meta(&cx.path(&name), !args.has("l") || name.ends_with('/')) {
            Ok(meta) if meta.kind == Kind::Dir && !args.has("d directory") => dirs.push(name),
            Ok(meta) => plain.push((name, meta)),
            // A link to nothing is still a file.
            Err(error) => match fs.meta(&cx.path(&name), false) {
                Ok(meta) => plain.push((name, meta)),
                Err(_) => {
                    cx.fail(&format!("cannot access '{name}'"), &error).await;
                    status = 2;
                }
            },
        }
    }
    let show = |mut entries: Vec<(String, Meta)>| {
        if args.has("t") {
            entries.sort_by_key(|(_, meta)| std::cmp::Reverse(meta.modified));
        } else if args.has("S") {
            entries.sort_by_key(|(_, meta)| std::cmp::Reverse(meta.len));
        }
        if args.has("r") {
            entries.reverse();
        }
        let line = |(name, meta): (String, Meta)| {
            let inode = if args.has("i") { format!("{} ", meta.inode) } else { String::new() };
            let slash = if args.has("F p") && meta.kind == Kind::Dir { "/" } else { "" };
            if !args.has("l n full-time") {
                return format!("{inode}{name}{slash}\n");
            }
            let target = if let Kind::Link(target) = &meta.kind { format!(" -> {target}") } else { String::new() };
            let at = Timestamp::from_second(seconds(meta.modified)).unwrap_or_default().to_zoned(TimeZone::UTC);
            let at = at.strftime("%b %e %H:%M");
            let (letters, links, owner) = (letters(&meta), meta.links, &meta.owner);
            let len = if args.has("h human-readable") { human(meta.len) } else { meta.len.to_string() };
            format!("{inode}{letters} {links} {owner} {owner} {len:>8} {at} {name}{slash}{target}\n")
        };
        entries.into_iter().map(line).collect::<String>()
    };
    let heading = dirs.len() > 1 || !plain.is_empty() || args.has("R");
    cx.out(show(plain)).await?;
    let mut first = true;
    let mut todo: Vec<String> = dirs.into_iter().rev().collect();
    while let Some(dir) = todo.pop() {
        if heading {
            cx.out(format!("{}{dir}:\n", if first { "" } else { "\n" })).await?;
        }
        first = false;
        let path = cx.path(&dir);
        let mut names = match fs.list(&path) {
            Ok(names) => names,
            Err(error) => {
                status = cx.fail(&format!("cannot open directory '{dir}'"), &error).await;
                continue;
            }
        };
        if args.has("a all") {
            names.splice(0..0, [".".to_owned(), "..".to_owned()]);
        } else if !args.has("A almost-all") {
            names.retain(|name| !name.starts_with('.'));
        }
        let entries: Vec<_> = names
            .into_iter()
            .filter_map(|name| Some((name.clone(), fs.meta(&join(&path, &name), false).ok()?)))
            .collect();
        if args.has("l") {
            let total: u64 = entries.iter().map(|(_, meta)| meta.len.div_ceil(1024)).sum();
            cx.out(format!("total {total}\n")).await?;
        }
        if args.has("R") {
            let below = entries.iter().filter(|(name, meta)| meta.kind == Kind::Dir && name != "." && name != "..");
            todo.extend(below.rev().map(|(name, _)| join(&dir, name)));
        }
        cx.out(show(entries)).await?;
    }
    Ok(status)
}

pub(super) async fn stat(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "L t f dereference", "c format printf");
    let mut status = 0;
    for name in &args.rest {
        let meta = match cx.machine.fs().meta(&cx.path(name), args.has("L dereference")) {
            Ok(meta) => meta,
            Err(error) => {
                status = cx.fail(&format!("cannot stat '{name}'"), &error).await;
                continue;
            }
        };
        let format =
            args.value("c format printf").unwrap_or("  File: %n\n  Size: %s\tInode: %i\tMode: %a\tUid: %U\nModify: %y");
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            match chars.next() {
                Some('i') => out.push_str(&meta.inode.to_string()),
                Some('Y' | 'X' | 'Z' | 'W') => out.push_str(&seconds(meta.modified).to_string()),
                Some('y') => {
                    let at = Timestamp::from_second(seconds(meta.modified)).unwrap_or_default();
                    out.push_str(&at.strftime("%Y-%m-%d %H:%M:%S.000000000 +0000").to_string());
                }
                Some('s') => out.push_str(&meta.len.to_string()),
                Some('b') => out.push_str(&meta.len.div_ceil(512).to_string()),
                Some('B') => out.push_str("512"),
                Some('a') => out.push_str(&format!("{:o}", meta.mode)),
                Some('A') => out.push_str(&letters(&meta)),
                Some('n') => out.push_str(name),
                Some('U' | 'G') => out.push_str(&meta.owner),
                Some('u' | 'g') => out.push_str(if meta.owner == "root" { "0" } else { "1000" }),
                Some('h') => out.push_str(&meta.links.to_string()),
                Some('F') => out.push_str(match &meta.kind {
                    Kind::Dir => "directory",
                    Kind::Link(_) => "symbolic link",
                    Kind::Device => "character special file",
                    Kind::File if meta.len == 0 => "regular empty file",
                    Kind::File => "regular file",
                }),
                Some('%') | None => out.push('%'),
                Some(c) => out.extend(['%', c]),
            }
        }
        cx.out(if args.value("printf").is_some() { crate::lab::machines::shell::ansi_c(&out) } else { out + "\n" })
            .await?;
    }
    Ok(status)
}

/// `readlink` (`-f`, `-e`) and `realpath`.
pub(super) async fn readlink(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "f e m n s q canonicalize", "");
    let fs = cx.machine.fs().clone();
    let resolve = cx.name() == "realpath" || args.has("f e m canonicalize");
    let mut status = 0;
    for name in &args.rest {
        let path = cx.path(name);
        let text = if resolve {
            fs.canonical(&path).and_then(|found| {
                if args.has("e") && !fs.exists(&found) { Err(io::ErrorKind::NotFound.into()) } else { Ok(found) }
            })
        } else {
            fs.meta(&path, false).and_then(|meta| match meta.kind {
                Kind::Link(target) => Ok(target),
                _ => Err(io::ErrorKind::InvalidInput.into()),
            })
        };
        match text {
            Ok(text) => cx.out(format!("{text}{}", if args.has("n") { "" } else { "\n" })).await?,
            Err(_) if !resolve => status = 1,
            Err(error) => status = cx.fail(name, &error).await,
        }
    }
    Ok(status)
}

fn human(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "";
    for next in ["K", "M", "G", "T"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    match unit {
        "" => bytes.to_string(),
        unit if value < 10.0 => format!("{:.1}{unit}", (value * 10.0).ceil() / 10.0),
        unit => format!("{:.0}{unit}", value.ceil()),
    }
}

pub(super) async fn df(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "k P h H m a l T portability human-readable", "output B block-size t x");
    for name in &args.rest {
        if let Err(error) = cx.machine.fs().meta(&cx.path(name), true) {
            return Ok(cx.fail(name, &error).await);
        }
    }
    let fs = cx.machine.fs();
    let (limit, used) = (fs.limit(), fs.used_bytes());
    let free = limit.saturating_sub(used);
    let unit = match args.value("B block-size") {
        Some(text) if text.starts_with(|c: char| c.is_ascii_alphabetic()) => size(&format!("1{text}")).unwrap_or(1024),
        Some(text) => size(text).unwrap_or(1024).max(1),
        None if args.has("m") => 1 << 20,
        None => 1024,
    };
    let show = |bytes: u64| match args.has("h H human-readable") {
        true => human(bytes),
        false => bytes.div_ceil(unit).to_string(),
    };
    let percent = format!("{}%", (used.saturating_mul(100)).div_ceil(limit.max(1)).min(100));
    let column = |name: &str| match name {
        "source" => Some(("Filesystem", "/dev/nvme0n1p4".to_owned())),
        "fstype" => Some(("Type", "xfs".to_owned())),
        "size" => Some(("1K-blocks", show(limit))),
        "used" => Some(("Used", show(used))),
        // Rounded down: nobody can write the rest of a block.
        "avail" if !args.has("h H human-readable") => Some(("Avail", (free / unit).to_string())),
        "avail" => Some(("Avail", show(free))),
        "pcent" => Some(("Use%", percent.clone())),
        "target" => Some(("Mounted on", "/".to_owned())),
        "itotal" => Some(("Inodes", "10000000".to_owned())),
        "iavail" => Some(("IFree", "9900000".to_owned())),
        _ => None,
    };
    let names = args.value("output").unwrap_or("source,size,used,avail,pcent,target");
    let Some(columns) = names.split(',').map(column).collect::<Option<Vec<_>>>() else {
        cx.complain(format!("option --output: field unknown in '{names}'")).await;
        return Ok(1);
    };
    let (head, row): (Vec<&str>, Vec<String>) = columns.into_iter().unzip();
    let head =
        if args.value("output").is_none() { head.join(" ").replace("Avail", "Available") } else { head.join(" ") };
    cx.out(format!("{head}\n{}\n", row.join(" "))).await.map(|()| 0)
}

pub(super) async fn du(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "s k b h m c x a summarize apparent-size human-readable", "d max-depth B");
    let names = if args.rest.is_empty() { vec![".".to_owned()] } else { args.rest.clone() };
    let mut status = 0;
    for name in names {
        let path = cx.path(&name);
        let place = match cx.machine.fs().meta(&path, true).and_then(|_| cx.machine.fs().real(&path)) {
            Ok(place) => place,
            Err(error) => {
                status = cx.fail(&format!("cannot access '{name}'"), &error).await;
                continue;
            }
        };
        let bytes = tree_bytes(&place);
        let text = match () {
            () if args.has("b") => bytes.to_string(),
            () if args.has("h human-readable") => human(bytes),
            () if args.has("m") => bytes.div_ceil(1 << 20).to_string(),
            () => bytes.div_ceil(1024).to_string(),
        };
        cx.out(format!("{text}\t{name}\n")).await?;
    }
    Ok(status)
}
