//! Reading files: `cat`, `head`, `tail`, `wc`, `tee`, checksums.

use std::io;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::files::pour;
use super::options;
use crate::lab::machines::fs::Open;
use crate::lab::machines::program::Cx;

/// How often a followed file is looked at.
const LOOK: Duration = Duration::from_millis(100);

fn or_stdin(names: &[String]) -> Vec<String> {
    if names.is_empty() { vec!["-".to_owned()] } else { names.to_vec() }
}

pub(super) async fn cat(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "n u v A", "");
    let mut status = 0;
    for name in or_stdin(&args.rest) {
        match cx.open(&name) {
            Ok(mut file) if args.has("n") => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).await?;
                for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
                    cx.out([format!("{:6}\t", number + 1).as_bytes(), line].concat()).await?;
                }
            }
            Ok(mut file) => drop(pour(&mut file, &mut cx.fd(1)).await?),
            Err(error) => status = cx.fail(&name, &error).await,
        }
    }
    Ok(status)
}

pub(super) async fn tee(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "a i append", "");
    let how = if args.has("a append") { Open::Append } else { Open::Write };
    let mut outputs = vec![cx.fd(1)];
    let mut status = 0;
    for name in &args.rest {
        match cx.machine.fs().open(&cx.path(name), how, 0o666 & !cx.umask) {
            Ok(file) => outputs.push(file),
            Err(error) => status = cx.fail(name, &error).await,
        }
    }
    let mut input = cx.fd(0);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = input.read(&mut buffer).await?;
        if count == 0 {
            return Ok(status);
        }
        for output in &mut outputs {
            if let Err(error) = output.write_all(buffer.get(..count).unwrap_or_default()).await {
                status = cx.fail("write error", &error).await;
            }
        }
    }
}

/// `-5` for `-n 5`.
fn old_style(words: Vec<String>) -> Vec<String> {
    let number =
        |word: &String| word.strip_prefix('-').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    words.into_iter().map(|word| if number(&word) { word.replacen('-', "-n", 1) } else { word }).collect()
}

pub(super) async fn head(cx: &mut Cx) -> io::Result<i32> {
    cx.args = [vec!["head".to_owned()], old_style(cx.words())].concat();
    let args = options!(cx, "q v quiet", "n lines c bytes");
    let bytes = args.value("c bytes");
    let text = bytes.or(args.value("n lines")).unwrap_or("10");
    let Some(count) = super::size(text.trim_start_matches('-')) else {
        cx.complain(format!("invalid number: '{text}'")).await;
        return Ok(1);
    };
    let mut status = 0;
    for name in or_stdin(&args.rest) {
        let mut input = match cx.open(&name) {
            Ok(input) => input,
            Err(error) => {
                status = cx.fail(&format!("cannot open '{name}' for reading"), &error).await;
                continue;
            }
        };
        if args.rest.len() > 1 && !args.has("q quiet") {
            cx.out(format!("==> {name} <==\n")).await?;
        }
        if text.starts_with('-') {
            let mut all = Vec::new();
            input.read_to_end(&mut all).await?;
            let keep = if bytes.is_some() {
                all.len().saturating_sub(count as usize)
            } else {
                let lines: Vec<_> = all.split_inclusive(|byte| *byte == b'\n').collect();
                lines.iter().take(lines.len().saturating_sub(count as usize)).map(|line| line.len()).sum()
            };
            cx.out(all.get(..keep).unwrap_or_default()).await?;
            continue;
        }
        let mut left = count;
        let mut buffer = vec![0; 32 * 1024];
        while left > 0 {
            let most = if bytes.is_some() { left.min(buffer.len() as u64) as usize } else { buffer.len() };
            let got = input.read(buffer.get_mut(..most).unwrap_or_default()).await?;
            let mut part = buffer.get(..got).unwrap_or_default();
            if got == 0 {
                break;
            }
            if bytes.is_some() {
                left -= got as u64;
            } else {
                let newlines = part.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
                match newlines.clone().nth(left as usize - 1) {
                    Some((at, _)) => {
                        part = part.get(..=at).unwrap_or_default();
                        left = 0;
                    }
                    None => left -= newlines.count() as u64,
                }
            }
            cx.out(part).await?;
        }
    }
    Ok(status)
}

pub(super) async fn tail(cx: &mut Cx) -> io::Result<i32> {
    cx.args = [vec!["tail".to_owned()], old_style(cx.words())].concat();
    let args = options!(cx, "f F q v quiet follow retry", "n lines c bytes s sleep-interval pid");
    let bytes = args.value("c bytes");
    let text = bytes.or(args.value("n lines")).unwrap_or("10");
    let Some(count) = super::size(text.trim_start_matches(['+', '-'])) else {
        cx.complain(format!("invalid number: '{text}'")).await;
        return Ok(1);
    };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let mut status = 0;
    let names = or_stdin(&args.rest);
    for name in &names {
        let mut input = match cx.open(name) {
            Ok(input) => input,
            Err(error) => {
                status = cx.fail(&format!("cannot open '{name}' for reading"), &error).await;
                continue;
            }
        };
        if names.len() > 1 && !args.has("q quiet") {
            cx.out(format!("==> {name} <==\n")).await?;
        }
        let mut all = Vec::new();
        input.read_to_end(&mut all).await?;
        let from = match (bytes.is_some(), text.starts_with('+')) {
            (true, true) => count.saturating_sub(1),
            (true, false) => all.len().saturating_sub(count),
            (false, true) => {
                let lines = all.split_inclusive(|byte| *byte == b'\n').take(count.saturating_sub(1));
                lines.map(<[u8]>::len).sum()
            }
            (false, false) => {
                let lines: Vec<_> = all.split_inclusive(|byte| *byte == b'\n').collect();
                lines.iter().take(lines.len().saturating_sub(count)).map(|line| line.len()).sum()
            }
        };
        cx.out(all.get(from..).unwrap_or_default()).await?;
        drop(all);
        if !args.has("f F follow") {
            continue;
        }
        // The last file is followed; a script that follows several uses several tails.
        loop {
            tokio::time::sleep(LOOK).await;
            pour(&mut input, &mut cx.fd(1)).await?;
            // A truncated or replaced file starts again (`-F`).
            if args.has("F") && replaced(cx, name, &input) {
                input = cx.open(name)?;
            }
        }
    }
    Ok(status)
}

fn replaced(cx: &Cx, name: &str, input: &crate::lab::machines::io::Fd) -> bool {
    use std::os::unix::fs::MetadataExt;
    let crate::lab::machines::io::Fd::File(file) = input else { return false };
    let open = crate::lab::machines::io::lock(&file.file).metadata().map(|meta| meta.ino());
    let named = cx.machine.fs().meta(&cx.path(name), true).map(|meta| meta.inode);
    matches!((open, named), (Ok(open), Ok(named)) if open != named)
}

pub(super) async fn wc(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "l w c m L lines words bytes chars", "");
    let wanted = [args.has("l lines"), args.has("w words"), args.has("c bytes m chars")];
    let wanted = if wanted.iter().any(|on| *on) { wanted } else { [true; 3] };
    let single = wanted.iter().filter(|on| **on).count() == 1 && args.rest.len() < 2;
    let mut total = [0usize; 3];
    let mut status = 0;
    let show = |counts: [usize; 3], name: &str| {
        let numbers: Vec<String> = counts
            .iter()
            .zip(wanted)
            .filter(|(_, on)| *on)
            .map(|(count, _)| if single { count.to_string() } else { format!("{count:7}") })
            .collect();
        let name = if name == "-" { String::new() } else { format!(" {name}") };
        format!("{}{name}\n", numbers.join(" "))
    };
    for name in or_stdin(&args.rest) {
        let mut input = match cx.open(&name) {
            Ok(input) => input,
            Err(error) => {
                status = cx.fail(&name, &error).await;
                continue;
            }
        };
        let (mut counts, mut inside) = ([0usize; 3], false);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let got = input.read(&mut buffer).await?;
            if got == 0 {
                break;
            }
            counts[2] += got;
            for byte in buffer.get(..got).unwrap_or_default() {
                counts[0] += usize::from(*byte == b'\n');
                let space = byte.is_ascii_whitespace();
                counts[1] += usize::from(!space && !inside);
                inside = !space;
            }
            tokio::task::yield_now().await;
        }
        for (sum, count) in total.iter_mut().zip(counts) {
            *sum += count;
        }
        cx.out(show(counts, &name)).await?;
    }
    if args.rest.len() > 1 {
        cx.out(show(total, "total")).await?;
    }
    Ok(status)
}

async fn sha256(cx: &Cx, name: &str) -> io::Result<String> {
    let mut input = cx.open(name)?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let got = input.read(&mut buffer).await?;
        if got == 0 {
            break;
        }
        context.update(buffer.get(..got).unwrap_or_default());
        tokio::task::yield_now().await;
    }
    Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

pub(super) async fn sha256sum(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "c b t quiet status check ignore-missing strict warn", "");
    let mut status = 0;
    for name in or_stdin(&args.rest) {
        if !args.has("c check") {
            match sha256(cx, &name).await {
                Ok(sum) => cx.out(format!("{sum}  {name}\n")).await?,
                Err(error) => status = cx.fail(&name, &error).await,
            }
            continue;
        }
        let list = match cx.read_all(&name).await {
            Ok(list) => String::from_utf8_lossy(&list).into_owned(),
            Err(error) => {
                status = cx.fail(&name, &error).await;
                continue;
            }
        };
        for line in list.lines() {
            let Some((sum, file)) = line.split_once(' ') else { continue };
            let file = file.trim_start_matches([' ', '*']);
            let verdict = match sha256(cx, file).await {
                Ok(found) if found.eq_ignore_ascii_case(sum) => "OK",
                Ok(_) => "FAILED",
                Err(error) if error.kind() == io::ErrorKind::NotFound && args.has("ignore-missing") => continue,
                Err(error) => {
                    cx.fail(file, &error).await;
                    "FAILED open or read"
                }
            };
            if verdict != "OK" {
                status = 1;
            }
            if !(args.has("status") || args.has("quiet") && verdict == "OK") {
                cx.out(format!("{file}: {verdict}\n")).await?;
            }
        }
        if status != 0 && !args.has("status") {
            cx.complain("WARNING: computed checksums did NOT match").await;
        }
    }
    Ok(status)
}

pub(super) async fn base64(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "d i decode ignore-garbage", "w wrap");
    let name = args.rest.first().map_or("-", String::as_str).to_owned();
    let bytes = match cx.read_all(&name).await {
        Ok(bytes) => bytes,
        Err(error) => return Ok(cx.fail(&name, &error).await),
    };
    if args.has("d decode") {
        let text: Vec<u8> = bytes.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let Ok(decoded) = STANDARD.decode(text) else {
            cx.complain("invalid input").await;
            return Ok(1);
        };
        return cx.out(decoded).await.map(|()| 0);
    }
    let text = STANDARD.encode(bytes);
    let width = args.value("w wrap").and_then(|width| width.parse().ok()).unwrap_or(76);
    if width == 0 {
        return cx.out(text).await.map(|()| 0);
    }
    let lines: Vec<_> = text.as_bytes().chunks(width).map(|line| [line, b"\n"].concat()).collect();
    cx.out(lines.concat()).await.map(|()| 0)
}

/// Whether two files differ; the difference itself is not worked out.
pub(super) async fn diff(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "q s u r N brief silent quiet", "");
    let [left, right] = args.rest.as_slice() else {
        cx.complain("two files are needed").await;
        return Ok(2);
    };
    let mut both = Vec::new();
    for name in [left, right] {
        match cx.read_all(name).await {
            Ok(bytes) => both.push(bytes),
            Err(error) => {
                cx.fail(name, &error).await;
                return Ok(2);
            }
        }
    }
    if both.first() == both.last() {
        return Ok(0);
    }
    if !args.has("s silent quiet") {
        cx.out(format!("Files {left} and {right} differ\n")).await?;
    }
    Ok(1)
}
