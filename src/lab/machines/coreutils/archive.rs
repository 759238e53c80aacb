//! `tar` (create, extract, list; gzip) and `gzip`.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use tar::{Archive, Builder, EntryType, Header};

use super::{Args, options};
use crate::lab::machines::fs::{Fs, Kind, Open, join};
use crate::lab::machines::io::reason;
use crate::lab::machines::program::Cx;

const GZIP: [u8; 2] = [0x1f, 0x8b];

pub(super) async fn tar(cx: &mut Cx) -> io::Result<i32> {
    let mut words = cx.words();
    // `tar xzf FILE`
    if let Some(first) = words.first_mut()
        && !first.starts_with('-')
    {
        first.insert(0, '-');
    }
    let flags = "x c t v z p k m P h a gzip extract create list verbose no-same-owner no-same-permissions overwrite \
                 same-permissions preserve-permissions no-selinux keep-newer-files";
    let args = match Args::parse(&words, flags, "f file C directory strip-components exclude T") {
        Ok(args) => args,
        Err(why) => {
            cx.complain(why).await;
            return Ok(64);
        }
    };
    let base = args.value("C directory").map_or(cx.cwd.clone(), |dir| cx.path(dir));
    let name = args.value("f file").unwrap_or("-").to_owned();
    let fs = cx.machine.fs().clone();
    if !fs.is_dir(&base) {
        cx.complain(format!("{base}: Cannot open: No such file or directory")).await;
        return Ok(2);
    }
    let result = if args.has("c create") {
        let packed = pack(&fs, &base, &args);
        match packed {
            Ok(bytes) if name == "-" => cx.out(bytes).await,
            Ok(bytes) => put(&fs, &cx.path(&name), &bytes, 0o666 & !cx.umask),
            Err(error) => Err(error),
        }
    } else {
        match cx.read_all(&name).await {
            Ok(bytes) => {
                let (lines, result) = unpack(&fs, &base, &args, &bytes);
                cx.out(lines).await?;
                result
            }
            Err(error) => Err(error),
        }
    };
    match result {
        Ok(()) => Ok(0),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(error),
        Err(error) => {
            cx.complain(reason(&error)).await;
            cx.complain("Error is not recoverable: exiting now").await;
            Ok(2)
        }
    }
}

fn put(fs: &Fs, path: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    // Through the open file, so that the limit of the disk counts.
    drop(fs.open(path, Open::Write, mode)?);
    fs.append(path, bytes)
}

fn pack(fs: &Fs, base: &str, args: &Args) -> io::Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    let mut todo: Vec<String> = args.rest.iter().rev().cloned().collect();
    while let Some(name) = todo.pop() {
        if args
            .all("exclude")
            .iter()
            .any(|pattern| crate::lab::machines::shell::pattern::Pattern::new(pattern).matches(&name))
        {
            continue;
        }
        let path = join(base, &name);
        let meta = fs.meta(&path, false)?;
        let mut header = Header::new_gnu();
        header.set_mode(meta.mode & 0o7777);
        header.set_mtime(meta.modified.duration_since(std::time::UNIX_EPOCH).map_or(0, |age| age.as_secs()));
        let stored = name.trim_start_matches('/');
        let stored = if stored.is_empty() { "." } else { stored };
        match &meta.kind {
            Kind::Dir => {
                header.set_entry_type(EntryType::Directory);
                header.set_size(0);
                builder.append_data(&mut header, format!("{}/", stored.trim_end_matches('/')), io::empty())?;
                todo.extend(
                    fs.list(&path)?.iter().rev().map(|child| format!("{}/{child}", name.trim_end_matches('/'))),
                );
            }
            Kind::Link(target) => {
                header.set_entry_type(EntryType::Symlink);
                header.set_size(0);
                builder.append_link(&mut header, stored, target)?;
            }
            Kind::File | Kind::Device => {
                let bytes = fs.read(&path)?;
                header.set_size(bytes.len() as u64);
                builder.append_data(&mut header, stored, bytes.as_slice())?;
            }
        }
    }
    let bytes = builder.into_inner()?;
    let named_gzip = args.has("a") && args.value("f file").is_some_and(|name| name.ends_with("gz"));
    if !args.has("z gzip") && !named_gzip {
        return Ok(bytes);
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&bytes)?;
    encoder.finish()
}

/// The lines that `-t` and `-v` print, and whether all went well.
fn unpack(fs: &Fs, base: &str, args: &Args, bytes: &[u8]) -> (String, io::Result<()>) {
    let mut lines = String::new();
    let result = unpack_into(fs, base, args, bytes, &mut lines);
    (lines, result)
}

fn unpack_into(fs: &Fs, base: &str, args: &Args, bytes: &[u8], lines: &mut String) -> io::Result<()> {
    let reader: Box<dyn Read + '_> =
        if bytes.starts_with(&GZIP) { Box::new(MultiGzDecoder::new(bytes)) } else { Box::new(bytes) };
    let strip: usize = args.value("strip-components").and_then(|count| count.parse().ok()).unwrap_or(0);
    let mut found = vec![false; args.rest.len()];
    for entry in Archive::new(reader).entries()? {
        let mut entry = entry?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let plain = name.trim_end_matches('/').trim_start_matches("./").to_owned();
        if !args.rest.is_empty() {
            let wanted = args.rest.iter().position(|wanted| {
                let wanted = wanted.trim_end_matches('/').trim_start_matches("./");
                plain == wanted || plain.starts_with(&format!("{wanted}/"))
            });
            match wanted.and_then(|at| found.get_mut(at)) {
                Some(found) => *found = true,
                None => continue,
            }
        }
        if args.has("t list v verbose") {
            lines.push_str(&name);
            lines.push('\n');
        }
        if args.has("t list") {
            continue;
        }
        // As GNU tar: no absolute names, nothing above the directory.
        let parts: Vec<&str> = plain.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if parts.contains(&"..") {
            return Err(io::Error::other(format!("{name}: Member name contains '..'")));
        }
        let parts = parts.get(strip..).unwrap_or_default();
        if parts.is_empty() {
            continue;
        }
        let path = join(base, &parts.join("/"));
        let mode = entry.header().mode().unwrap_or(0o644);
        match entry.header().entry_type() {
            EntryType::Directory => {
                fs.mkdir_p(&path)?;
                fs.set_mode(&path, mode)?;
            }
            EntryType::Symlink | EntryType::Link => {
                let target = entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned());
                let target = target.unwrap_or_default();
                parent(fs, &path)?;
                if fs.meta(&path, false).is_ok() {
                    fs.remove(&path)?;
                }
                if entry.header().entry_type() == EntryType::Symlink {
                    fs.symlink(&target, &path)?;
                } else {
                    fs.hard_link(&join(base, &target), &path)?;
                }
            }
            EntryType::Regular | EntryType::Continuous => {
                parent(fs, &path)?;
                // Not into a file that is being run or read.
                if fs.meta(&path, false).is_ok_and(|meta| meta.kind != Kind::Dir) {
                    fs.remove(&path)?;
                }
                let mut content = Vec::new();
                entry.read_to_end(&mut content)?;
                put(fs, &path, &content, mode)?;
                fs.set_mode(&path, mode)?;
            }
            _ => {}
        }
    }
    match found.iter().position(|found| !found) {
        Some(at) => {
            let name = args.rest.get(at).map_or("", String::as_str);
            Err(io::Error::other(format!("{name}: Not found in archive")))
        }
        None => Ok(()),
    }
}

fn parent(fs: &Fs, path: &str) -> io::Result<()> {
    path.rsplit_once('/').map_or(Ok(()), |(parent, _)| fs.mkdir_p(parent))
}

/// `gzip`, `gzip -d`, `gunzip`, `-c`, `-k`.
pub(super) async fn gzip(cx: &mut Cx) -> io::Result<i32> {
    let args = options!(cx, "d c k f t q n 1 2 3 4 5 6 7 8 9 decompress stdout keep force test", "");
    let expand = args.has("d t decompress test") || cx.name() == "gunzip";
    let names = if args.rest.is_empty() { vec!["-".to_owned()] } else { args.rest.clone() };
    for name in names {
        let bytes = match cx.read_all(&name).await {
            Ok(bytes) => bytes,
            Err(error) => return Ok(cx.fail(&name, &error).await),
        };
        let result = if expand {
            let mut out = Vec::new();
            MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut out).map(|_| out)
        } else {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&bytes).and_then(|()| encoder.finish())
        };
        let Ok(result) = result else {
            cx.complain(format!("{name}: not in gzip format")).await;
            return Ok(1);
        };
        if args.has("t test") {
            continue;
        }
        if args.has("c stdout") || name == "-" {
            cx.out(result).await?;
            continue;
        }
        let target = match (expand, name.strip_suffix(".gz")) {
            (true, Some(target)) => target.to_owned(),
            (true, None) => {
                cx.complain(format!("{name}: unknown suffix -- ignored")).await;
                return Ok(2);
            }
            (false, _) => format!("{name}.gz"),
        };
        let fs = cx.machine.fs();
        if let Err(error) = put(fs, &cx.path(&target), &result, 0o666 & !cx.umask) {
            return Ok(cx.fail(&target, &error).await);
        }
        if !args.has("k keep") {
            fs.remove(&cx.path(&name))?;
        }
    }
    Ok(0)
}
