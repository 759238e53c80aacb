//! Making, moving and removing files.

use std::io;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;

use super::{Args, options, size};
use crate::lab::machines::fs::{Fs, Kind, Open, join};
use crate::lab::machines::io::Fd;
use crate::lab::machines::program::Cx;

pub(super) async fn mkdir(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "p parents v verbose Z", "m mode");
    let mode = match args.value("m mode") {
        None => 0o777 & !cx.umask,
        Some(text) => match mode(text, 0o777) {
            Some(mode) => mode,
            None => {
                cx.complain(format!("invalid mode: '{text}'")).await;
                return Ok(1);
            }
        },
    };
    let fs = cx.machine.fs().clone();
    let mut status = 0;
    for name in &args.rest {
        let path = cx.path(name);
        let made = if args.has("p parents") {
            match path.trim_end_matches('/').rsplit_once('/') {
                _ if fs.is_dir(&path) => Ok(()),
                Some((parent, _)) => fs.mkdir_p(parent).and_then(|()| fs.mkdir(&path, mode)),
                None => Ok(()),
            }
        } else {
            fs.mkdir(&path, mode)
        };
        if let Err(error) = made {
            status = cx.fail(&format!("cannot create directory '{name}'"), &error).await;
        }
    }
    Ok(status)
}

pub(super) async fn rm(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "r R f i v d recursive force preserve-root one-file-system", "");
    let fs = cx.machine.fs().clone();
    let (recursive, force) = (args.has("r R recursive"), args.has("f force"));
    let mut status = 0;
    for name in &args.rest {
        let path = cx.path(name);
        match fs.meta(&path, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && force => {}
            Err(error) => status = cx.fail(&format!("cannot remove '{name}'"), &error).await,
            Ok(meta) if meta.kind == Kind::Dir && !recursive => {
                status = cx.fail(&format!("cannot remove '{name}'"), &io::ErrorKind::IsADirectory.into()).await;
            }
            Ok(_) if recursive && fs.canonical(&path).is_ok_and(|path| path == "/") => {
                cx.complain("it is dangerous to operate recursively on '/'").await;
                status = 1;
            }
            Ok(_) => {
                if let Err(error) = fs.remove(&path) {
                    status = cx.fail(&format!("cannot remove '{name}'"), &error).await;
                }
            }
        }
    }
    if args.rest.is_empty() && !force {
        cx.complain("missing operand").await;
        status = 1;
    }
    Ok(status)
}

pub(super) async fn rmdir(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "p ignore-fail-on-non-empty", "");
    let mut status = 0;
    for name in &args.rest {
        if let Err(error) = cx.machine.fs().remove_dir(&cx.path(name))
            && !args.has("ignore-fail-on-non-empty")
        {
            status = cx.fail(&format!("failed to remove '{name}'"), &error).await;
        }
    }
    Ok(status)
}

/// Sources, and the path of each in the destination.
fn targets(fs: &Fs, cx: &Cx, args: &Args, into: Option<&str>) -> Result<Vec<(String, String)>, String> {
    let mut names = args.rest.clone();
    let to = match into {
        Some(dir) => dir.to_owned(),
        None => names.pop().ok_or("missing file operand")?,
    };
    if names.is_empty() {
        return Err(format!("missing destination file operand after '{to}'"));
    }
    let dest = cx.path(&to);
    let inside = !args.has("T no-target-directory") && fs.is_dir(&dest);
    if !inside && names.len() > 1 {
        return Err(format!("target '{to}' is not a directory"));
    }
    Ok(names
        .into_iter()
        .map(|name| {
            let base = name.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
            let base = if base == "." { String::new() } else { base };
            (name, if inside { join(&dest, &base) } else { dest.clone() })
        })
        .collect())
}

pub(super) async fn mv(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "f n v T Z no-target-directory force", "t target-directory");
    let fs = cx.machine.fs().clone();
    let pairs = match targets(&fs, cx, &args, args.value("t target-directory")) {
        Ok(pairs) => pairs,
        Err(why) => {
            cx.complain(why).await;
            return Ok(1);
        }
    };
    let mut status = 0;
    for (name, to) in pairs {
        if args.has("n") && fs.exists(&to) {
            continue;
        }
        if let Err(error) = fs.rename(&cx.path(&name), &to) {
            status = cx.fail(&format!("cannot move '{name}' to '{to}'"), &error).await;
        }
    }
    Ok(status)
}

pub(super) async fn cp(cx: &mut Cx) -> io::Result<i32> {
    let flags = "r R a p f n v T L P d Z no-target-directory recursive archive preserve force";
    let args = options!(cx, flags, "t target-directory");
    let fs = cx.machine.fs().clone();
    let pairs = match targets(&fs, cx, &args, args.value("t target-directory")) {
        Ok(pairs) => pairs,
        Err(why) => {
            cx.complain(why).await;
            return Ok(1);
        }
    };
    let (deep, keep) = (args.has("r R a recursive archive"), args.has("a p archive preserve"));
    let mut status = 0;
    for (name, to) in pairs {
        if args.has("n") && fs.exists(&to) {
            continue;
        }
        let from = cx.path(&name);
        if fs.is_dir(&from) && !deep {
            cx.complain(format!("-r not specified; omitting directory '{name}'")).await;
            status = 1;
            continue;
        }
        let base = fs.canonical(&from).unwrap_or_default();
        if deep
            && fs
                .canonical(&to)
                .is_ok_and(|to| to == base || to.starts_with(&format!("{}/", base.trim_end_matches('/'))))
        {
            cx.complain(format!("cannot copy a directory, '{name}', into itself, '{to}'")).await;
            status = 1;
            continue;
        }
        if let Err(error) = copy(&fs, from, to, deep, keep, cx.umask).await {
            status = cx.fail(&format!("cannot copy '{name}'"), &error).await;
        }
    }
    Ok(status)
}

fn copy(fs: &Fs, from: String, to: String, deep: bool, keep: bool, umask: u32) -> BoxFuture<'_, io::Result<()>> {
    Box::pin(async move {
        let meta = fs.meta(&from, !deep)?;
        match &meta.kind {
            Kind::Dir => {
                if !fs.is_dir(&to) {
                    fs.mkdir(&to, meta.mode)?;
                }
                for name in fs.list(&from)? {
                    copy(fs, join(&from, &name), join(&to, &name), deep, keep, umask).await?;
                }
            }
            Kind::Link(target) => {
                if fs.meta(&to, false).is_ok() {
                    fs.remove(&to)?;
                }
                fs.symlink(target, &to)?;
                return Ok(());
            }
            Kind::File | Kind::Device => {
                if fs.canonical(&from)? == fs.canonical(&to)? {
                    return Err(io::Error::other("source and destination are the same file"));
                }
                let mut source = fs.open(&from, Open::Read, 0)?;
                let mut target = fs.open(&to, Open::Write, if keep { meta.mode } else { meta.mode & !umask })?;
                pour(&mut source, &mut target).await?;
            }
        }
        if keep {
            fs.set_mode(&to, meta.mode)?;
            fs.touch(&to, meta.modified)?;
        }
        Ok(())
    })
}

/// Copy to the end, leaving room for others now and then.
pub(super) async fn pour(from: &mut Fd, to: &mut Fd) -> io::Result<u64> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0;
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(total);
        }
        to.write_all(buffer.get(..count).unwrap_or_default()).await?;
        total += count as u64;
        tokio::task::yield_now().await;
    }
}

pub(super) async fn ln(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "s f n T v r symbolic force no-dereference no-target-directory", "");
    let fs = cx.machine.fs().clone();
    let (target, name) = match args.rest.as_slice() {
        [target] => (target.clone(), target.rsplit('/').next().unwrap_or_default().to_owned()),
        [target, name] => (target.clone(), name.clone()),
        _ => {
            cx.complain("missing file operand").await;
            return Ok(1);
        }
    };
    let mut path = cx.path(&name);
    if fs.is_dir(&path) && !args.has("n T no-dereference no-target-directory") {
        path = join(&path, target.rsplit('/').next().unwrap_or_default());
    }
    if args.has("f force") && fs.meta(&path, false).is_ok_and(|meta| meta.kind != Kind::Dir) {
        fs.remove(&path)?;
    }
    let made = match args.has("s symbolic") {
        true => fs.symlink(&target, &path),
        false => fs.hard_link(&cx.path(&target), &path),
    };
    match made {
        Ok(()) => Ok(0),
        Err(error) => Ok(cx.fail(&format!("failed to create link '{name}'"), &error).await),
    }
}

/// `755`, `u+x`, `go-rwx`, `a=r,u+w`.
pub(super) fn mode(text: &str, before: u32) -> Option<u32> {
    if let Ok(mode) = u32::from_str_radix(text, 8) {
        return (mode <= 0o7777).then_some(mode);
    }
    let mut mode = before;
    for clause in text.split(',') {
        let at = clause.find(['+', '-', '='])?;
        let (who, rest) = clause.split_at(at);
        let all = who.is_empty() || who.contains('a');
        let who = [('u', 0o700), ('g', 0o070), ('o', 0o007)]
            .iter()
            .filter(|(letter, _)| all || who.contains(*letter))
            .fold(0, |mask, (_, bits)| mask | bits);
        let (op, perms) = rest.split_at(1);
        let mut bits = 0;
        for letter in perms.chars() {
            bits |= match letter {
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                'X' if before & 0o111 != 0 => 0o111,
                'X' | 's' | 't' => 0,
                _ => return None,
            };
        }
        mode = match op {
            "+" => mode | (bits & who),
            "-" => mode & !(bits & who),
            _ => (mode & !who) | (bits & who),
        };
    }
    Some(mode)
}

pub(super) async fn chmod(cx: &mut Cx) -> io::Result<i32> {
    let words = cx.words();
    // A mode may start with `-`.
    let (flags, words): (Vec<_>, Vec<_>) =
        words.into_iter().partition(|word| matches!(word.as_str(), "-R" | "-f" | "-v" | "-c" | "--recursive" | "--"));
    let Some((text, names)) = words.split_first() else {
        cx.complain("missing operand").await;
        return Ok(1);
    };
    let fs = cx.machine.fs().clone();
    let deep = flags.iter().any(|flag| matches!(flag.as_str(), "-R" | "--recursive"));
    let mut todo: Vec<String> = names.to_vec();
    let mut status = 0;
    while let Some(name) = todo.pop() {
        let path = cx.path(&name);
        let done = fs.meta(&path, true).and_then(|meta| match mode(text, meta.mode) {
            Some(mode) => fs.set_mode(&path, mode).map(|()| meta.kind),
            None => Err(io::Error::other(format!("invalid mode: '{text}'"))),
        });
        match done {
            Ok(Kind::Dir) if deep => todo.extend(fs.list(&path)?.iter().map(|child| join(&name, child))),
            Ok(_) => {}
            Err(error) => status = cx.fail(&format!("cannot access '{name}'"), &error).await,
        }
    }
    Ok(status)
}

/// Records the owner for `stat`; groups are not kept.
pub(super) async fn chown(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "R f v h recursive", "");
    let Some((owner, names)) = args.rest.split_first() else {
        cx.complain("missing operand").await;
        return Ok(1);
    };
    let owner = owner.split(':').next().unwrap_or_default();
    let owner = if owner == "0" { "root" } else { owner };
    let fs = cx.machine.fs().clone();
    let mut todo: Vec<String> = names.to_vec();
    let mut status = 0;
    while let Some(name) = todo.pop() {
        let path = cx.path(&name);
        let done = if owner.is_empty() || cx.name() == "chgrp" {
            fs.meta(&path, true).map(|_| ())
        } else {
            fs.set_owner(&path, owner)
        };
        match done {
            Ok(()) if args.has("R recursive") && fs.is_dir(&path) => {
                todo.extend(fs.list(&path)?.iter().map(|child| join(&name, child)));
            }
            Ok(()) => {}
            Err(error) => status = cx.fail(&format!("cannot access '{name}'"), &error).await,
        }
    }
    Ok(status)
}

pub(super) async fn touch(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "c a m no-create", "d date r reference");
    let fs = cx.machine.fs().clone();
    let at = match args.value("d date") {
        None => SystemTime::now(),
        Some(text) => match super::info::moment(text) {
            Some(at) => SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(0)),
            None => {
                cx.complain(format!("invalid date format '{text}'")).await;
                return Ok(1);
            }
        },
    };
    let mut status = 0;
    for name in &args.rest {
        let path = cx.path(name);
        if !fs.exists(&path) {
            if args.has("c no-create") {
                continue;
            }
            if let Err(error) = fs.open(&path, Open::Append, 0o666 & !cx.umask) {
                status = cx.fail(&format!("cannot touch '{name}'"), &error).await;
                continue;
            }
        }
        if let Err(error) = fs.touch(&path, at) {
            status = cx.fail(&format!("cannot touch '{name}'"), &error).await;
        }
    }
    Ok(status)
}

/// `truncate -s`, and `fallocate -l`.
pub(super) async fn truncate(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "c", "s size l length o offset");
    let Some(len) = args.value("s size l length").and_then(size) else {
        cx.complain("invalid or missing size").await;
        return Ok(1);
    };
    let mut status = 0;
    for name in &args.rest {
        if let Err(error) = cx.machine.fs().set_len(&cx.path(name), len) {
            status = cx.fail(name, &error).await;
        }
    }
    Ok(status)
}

pub(super) async fn mktemp(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "d t q u directory", "p tmpdir suffix");
    let fs = cx.machine.fs().clone();
    let template = args.rest.first().cloned().unwrap_or_else(|| "tmp.XXXXXXXXXX".to_owned());
    let stem = template.trim_end_matches('X');
    let count = template.len() - stem.len();
    if count < 3 {
        cx.complain(format!("too few X's in template '{template}'")).await;
        return Ok(1);
    }
    let random: String = std::iter::repeat_with(fastrand::alphanumeric).take(count).collect();
    let name = format!("{stem}{random}{}", args.value("suffix").unwrap_or_default());
    let dir = match args.value("p tmpdir") {
        Some(dir) => Some(dir.to_owned()),
        None if args.rest.is_empty() || args.has("t") => {
            Some(cx.env.get("TMPDIR").cloned().unwrap_or_else(|| "/tmp".to_owned()))
        }
        None => None,
    };
    let name = dir.map_or(name.clone(), |dir| format!("{}/{name}", dir.trim_end_matches('/')));
    let path = cx.path(&name);
    let made =
        if args.has("d directory") { fs.mkdir(&path, 0o700) } else { fs.open(&path, Open::Write, 0o600).map(drop) };
    match made {
        Ok(()) => cx.out(format!("{name}\n")).await.map(|()| 0),
        Err(error) => Ok(cx.fail(&format!("failed to create file via template '{template}'"), &error).await),
    }
}

pub(super) async fn install(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "d D v p c T Z", "m mode o owner g group t");
    let fs = cx.machine.fs().clone();
    let Some(mode) = mode(args.value("m mode").unwrap_or("755"), 0) else {
        cx.complain("invalid mode").await;
        return Ok(1);
    };
    if args.has("d") {
        for name in &args.rest {
            let path = cx.path(name);
            if let Err(error) = fs.mkdir_p(&path).and_then(|()| fs.set_mode(&path, mode)) {
                return Ok(cx.fail(&format!("cannot create directory '{name}'"), &error).await);
            }
        }
        return Ok(0);
    }
    if args.has("D")
        && let Some(to) = args.rest.last()
        && let Some((parent, _)) = cx.path(to).rsplit_once('/')
    {
        fs.mkdir_p(parent)?;
    }
    let pairs = match targets(&fs, cx, &args, args.value("t")) {
        Ok(pairs) => pairs,
        Err(why) => {
            cx.complain(why).await;
            return Ok(1);
        }
    };
    for (name, to) in pairs {
        let mut source = match cx.open(&name) {
            Ok(source) => source,
            Err(error) => return Ok(cx.fail(&format!("cannot stat '{name}'"), &error).await),
        };
        if fs.meta(&to, false).is_ok() {
            fs.remove(&to)?;
        }
        let made = fs.open(&to, Open::Write, 0o600);
        let done = match made {
            Ok(mut target) => pour(&mut source, &mut target).await.and_then(|_| fs.set_mode(&to, mode)),
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            return Ok(cx.fail(&format!("cannot create regular file '{to}'"), &error).await);
        }
        if let Some(owner) = args.value("o owner") {
            fs.set_owner(&to, owner)?;
        }
    }
    Ok(0)
}
