//! The virtual root of a machine: one directory of the lab, out of which no path leads.
//!
//! Every path is resolved here, component by component, and `..` stops at the root. Symbolic links of the virtual
//! machine are small marked files that only this module follows, so there is no real link in the directory that the
//! operating system could follow out of it; a real link that someone put there is refused.

use std::collections::BTreeMap;
use std::fs as real;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use super::io::{Fd, OpenFile, lock};

/// The sticky bit on a plain file marks a link; the text makes sure.
const LINK_BIT: u32 = 0o1000;
const LINK_TEXT: &[u8] = b"bartizan-lab-link\0";
/// As many links as Linux follows.
const MAX_LINKS: u32 = 40;
/// Tools may write through [`Fs::real`] behind our back: count again when the last count is older.
const RECOUNT: Duration = Duration::from_secs(2);

/// What a path names.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    File,
    Dir,
    Link(String),
    Device,
}

/// What `stat` tells.
#[derive(Debug, Clone)]
pub struct Meta {
    pub kind: Kind,
    pub len: u64,
    /// Permission bits only.
    pub mode: u32,
    pub modified: SystemTime,
    pub inode: u64,
    pub links: u64,
    pub owner: String,
}

struct Inner {
    root: PathBuf,
    limit: AtomicU64,
    device: AtomicU64,
    used: AtomicU64,
    counted: Mutex<Option<Instant>>,
    owners: Mutex<BTreeMap<String, String>>,
}

/// The file system of one machine. Paths are absolute in the virtual machine (a relative one starts at `/`).
#[derive(Clone)]
pub struct Fs(Arc<Inner>);

/// How to open.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Open {
    Read,
    Write,
    Append,
    /// `<>`
    Both,
}

fn full() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}

/// Too many links, or a real one.
fn refused() -> io::Error {
    io::Error::other("Too many levels of symbolic links")
}

impl Fs {
    pub(super) fn new(root: PathBuf, limit: u64) -> io::Result<Self> {
        real::create_dir_all(&root)?;
        let root = root.canonicalize()?;
        let fs = Self(Arc::new(Inner {
            root,
            limit: AtomicU64::new(limit),
            device: AtomicU64::new(limit),
            used: AtomicU64::new(0),
            counted: Mutex::new(None),
            owners: Mutex::new(BTreeMap::new()),
        }));
        fs.used_bytes();
        Ok(fs)
    }

    /// The real path and the virtual one, links followed. The last component need not exist.
    fn resolve(&self, path: &str, follow: bool) -> io::Result<(PathBuf, String)> {
        let mut todo: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut at: Vec<String> = Vec::new();
        let mut links = 0;
        let dir_wanted = path.ends_with('/') || path.ends_with("/.");
        while let Some(part) = todo.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    at.pop();
                    continue;
                }
                name if name.contains('\0') => return Err(io::ErrorKind::InvalidInput.into()),
                _ => {}
            }
            at.push(part);
            let here = self.place(&at);
            let last = todo.iter().all(|part| part.is_empty() || part == ".");
            match real::symlink_metadata(&here) {
                Ok(meta) if meta.is_symlink() => return Err(refused()),
                Ok(meta) if meta.is_dir() => {}
                Ok(meta) => {
                    let target = if meta.mode() & LINK_BIT != 0 { link_target(&here)? } else { None };
                    match target {
                        Some(target) if !last || follow || dir_wanted => {
                            links += 1;
                            if links > MAX_LINKS {
                                return Err(refused());
                            }
                            at.pop();
                            if target.starts_with('/') {
                                at.clear();
                            }
                            todo.extend(target.split('/').rev().map(str::to_owned));
                        }
                        None if !last || dir_wanted => return Err(io::ErrorKind::NotADirectory.into()),
                        _ => {}
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && last => {}
                Err(error) => return Err(error),
            }
        }
        Ok((self.place(&at), format!("/{}", at.join("/"))))
    }

    fn place(&self, parts: &[String]) -> PathBuf {
        let mut path = self.0.root.clone();
        path.extend(parts);
        path
    }

    /// The path with links, `.` and `..` resolved.
    pub fn canonical(&self, path: &str) -> io::Result<String> {
        Ok(self.resolve(path, true)?.1)
    }

    /// Where the file really is. It lies inside the lab's directory, and no component is a link.
    pub fn real(&self, path: &str) -> io::Result<PathBuf> {
        Ok(self.resolve(path, true)?.0)
    }

    pub fn meta(&self, path: &str, follow: bool) -> io::Result<Meta> {
        let (place, name) = self.resolve(path, follow)?;
        let meta = real::symlink_metadata(&place)?;
        let kind = if meta.is_dir() {
            Kind::Dir
        } else if let Some(target) = (meta.mode() & LINK_BIT != 0).then(|| link_target(&place)).transpose()?.flatten() {
            Kind::Link(target)
        } else if name.starts_with("/dev/") {
            Kind::Device
        } else {
            Kind::File
        };
        let mode = if matches!(kind, Kind::Link(_)) { 0o777 } else { meta.mode() & 0o7777 };
        let len = if let Kind::Link(target) = &kind { target.len() as u64 } else { meta.len() };
        let modified = meta.modified()?;
        Ok(Meta { kind, len, mode, modified, inode: meta.ino(), links: meta.nlink(), owner: self.owner(&name) })
    }

    fn owner(&self, name: &str) -> String {
        if let Some(owner) = lock(&self.0.owners).get(name) {
            return owner.clone();
        }
        match name.strip_prefix("/home/").and_then(|rest| rest.split('/').next()) {
            Some(user) if !user.is_empty() => user.to_owned(),
            _ => "root".to_owned(),
        }
    }

    /// Record an owner. Nothing is enforced by it.
    pub(super) fn set_owner(&self, path: &str, owner: &str) -> io::Result<()> {
        let (place, name) = self.resolve(path, true)?;
        real::symlink_metadata(place)?;
        lock(&self.0.owners).insert(name, owner.to_owned());
        Ok(())
    }

    pub fn exists(&self, path: &str) -> bool {
        self.resolve(path, true).is_ok_and(|(place, _)| place.exists())
    }
    pub fn is_dir(&self, path: &str) -> bool {
        self.resolve(path, true).is_ok_and(|(place, _)| place.is_dir())
    }

    /// The names in a directory, in order.
    pub fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let place = self.real(path)?;
        let mut names: Vec<String> = real::read_dir(place)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<_>>()?;
        names.sort();
        Ok(names)
    }

    pub fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let place = self.real(path)?;
        if place.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        real::read(place)
    }

    /// Replace or create a file, with the directories above it.
    pub fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.put(path, bytes, Open::Write)
    }
    pub fn append(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.put(path, bytes, Open::Append)
    }
    fn put(&self, path: &str, bytes: &[u8], how: Open) -> io::Result<()> {
        if let Some((parent, _)) = path.trim_end_matches('/').rsplit_once('/') {
            self.mkdir_p(parent)?;
        }
        let file = self.open_file(path, how, 0o644)?;
        self.grow(bytes.len() as u64)?;
        let mut file = lock(&file.file);
        file.write_all(bytes)
    }

    pub(super) fn open(&self, path: &str, how: Open, mode: u32) -> io::Result<Fd> {
        Ok(match self.canonical(path)?.as_str() {
            "/dev/null" => Fd::Null,
            "/dev/zero" => Fd::Zero,
            "/dev/urandom" | "/dev/random" => Fd::Random,
            "/dev/tty" => return Err(io::Error::other("No such device or address")),
            "/dev/full" if how != Open::Read => return Err(full()),
            _ => Fd::File(Arc::new(self.open_file(path, how, mode)?)),
        })
    }

    fn open_file(&self, path: &str, how: Open, mode: u32) -> io::Result<OpenFile> {
        let (place, name) = self.resolve(path, true)?;
        if place.is_dir() && how != Open::Read {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if name.starts_with("/dev/") && how != Open::Read {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut options = real::OpenOptions::new();
        // Never through a link, even if one appeared since we looked.
        options.mode(mode & 0o777 | 0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
        match how {
            Open::Read => options.read(true),
            Open::Write => options.write(true).create(true),
            Open::Append => options.append(true).create(true),
            Open::Both => options.read(true).write(true).create(true),
        };
        let before = real::symlink_metadata(&place).ok();
        if before.is_none() && how != Open::Read {
            // A full disk cannot take one more file either.
            self.grow(0)?;
        }
        let file = match options.open(&place) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && before.is_some() => {
                // The lab's users may do everything in their jail; the bits are for `stat` to show.
                let bits = before.as_ref().map_or(0o644, |meta| meta.mode() & 0o7777);
                real::set_permissions(&place, real::Permissions::from_mode(bits | 0o600))?;
                let file = options.open(&place);
                real::set_permissions(&place, real::Permissions::from_mode(bits))?;
                file?
            }
            other => other?,
        };
        if how == Open::Write {
            if let Some(meta) = &before {
                self.shrink(meta.len());
            }
            file.set_len(0)?;
        }
        if before.is_none() && how != Open::Read {
            // What the operator's own umask took away.
            file.set_permissions(real::Permissions::from_mode(mode & 0o777))?;
        }
        Ok(OpenFile { file: Mutex::new(file), fs: self.clone(), append: how == Open::Append })
    }

    /// Set the length; what is added reads as zeros and counts as used.
    pub(super) fn set_len(&self, path: &str, len: u64) -> io::Result<()> {
        let file = self.open_file(path, Open::Both, 0o644)?;
        let file = lock(&file.file);
        let before = file.metadata()?.len();
        self.grow(len.saturating_sub(before))?;
        self.shrink(before.saturating_sub(len));
        file.set_len(len)
    }

    pub(super) fn mkdir(&self, path: &str, mode: u32) -> io::Result<()> {
        let place = self.resolve(path.trim_end_matches('/'), true)?.0;
        real::create_dir(&place)?;
        real::set_permissions(place, real::Permissions::from_mode(mode & 0o7777 | 0o700))
    }

    pub fn mkdir_p(&self, path: &str) -> io::Result<()> {
        let mut at = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            at.push('/');
            at.push_str(part);
            match self.meta(&at, true) {
                Ok(meta) if meta.kind == Kind::Dir => {}
                Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
                // Somebody else may make it in the same moment.
                Err(_) => match self.mkdir(&at, 0o755) {
                    Err(why) if why.kind() != io::ErrorKind::AlreadyExists => return Err(why),
                    _ => {}
                },
            }
        }
        Ok(())
    }

    /// Remove a file, a link, or a directory with what is in it. The root itself stays.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        let (place, name) = self.resolve(path, false)?;
        if name == "/" {
            return Err(io::Error::other("Device or resource busy"));
        }
        let meta = real::symlink_metadata(&place)?;
        if meta.is_dir() {
            self.shrink(tree_bytes(&place));
            real::remove_dir_all(place)?;
        } else {
            real::remove_file(place)?;
            self.shrink(meta.len());
        }
        let below = format!("{name}/");
        lock(&self.0.owners).retain(|path, _| *path != name && !path.starts_with(&below));
        Ok(())
    }

    pub(super) fn remove_dir(&self, path: &str) -> io::Result<()> {
        real::remove_dir(self.resolve(path, false)?.0)
    }

    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, old) = self.resolve(from, false)?;
        let (to, new) = self.resolve(to, false)?;
        let replaced = real::symlink_metadata(&to).map_or(0, |meta| if meta.is_dir() { 0 } else { meta.len() });
        if from == to {
            return Ok(());
        }
        real::rename(from, to)?;
        self.shrink(replaced);
        let mut owners = lock(&self.0.owners);
        if let Some(owner) = owners.remove(&old) {
            owners.insert(new, owner);
        }
        Ok(())
    }

    pub fn set_mode(&self, path: &str, mode: u32) -> io::Result<()> {
        let place = self.real(path)?;
        // A directory that we could not enter would be a hole in the lab; the sticky bit on files means a link.
        let mode = if place.is_dir() { mode & 0o7777 | 0o700 } else { mode & 0o777 };
        real::set_permissions(place, real::Permissions::from_mode(mode))
    }

    pub(super) fn touch(&self, path: &str, at: SystemTime) -> io::Result<()> {
        let place = self.real(path)?;
        real::File::open(place)?.set_modified(at)
    }

    pub(super) fn symlink(&self, target: &str, path: &str) -> io::Result<()> {
        let place = self.resolve(path, false)?.0;
        let mut file = real::OpenOptions::new().write(true).create_new(true).mode(0o644).open(place)?;
        file.write_all(&[LINK_TEXT, target.as_bytes()].concat())?;
        file.set_permissions(real::Permissions::from_mode(0o644 | LINK_BIT))
    }

    pub(super) fn hard_link(&self, from: &str, to: &str) -> io::Result<()> {
        real::hard_link(self.real(from)?, self.resolve(to, false)?.0)
    }

    /// Room for `bytes` more, or "No space left on device".
    pub(super) fn grow(&self, bytes: u64) -> io::Result<()> {
        self.recount();
        let used = self.0.used.load(Ordering::Relaxed);
        if used.saturating_add(bytes.max(1)) > self.limit() {
            return Err(full());
        }
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
    fn shrink(&self, bytes: u64) {
        let _ = self.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| Some(used.saturating_sub(bytes)));
    }
    fn recount(&self) {
        let mut counted = lock(&self.0.counted);
        if counted.is_none_or(|at| at.elapsed() > RECOUNT) {
            *counted = Some(Instant::now());
            self.0.used.store(tree_bytes(&self.0.root), Ordering::Relaxed);
        }
    }

    /// Bytes in files, at most two seconds old.
    pub fn used_bytes(&self) -> u64 {
        self.recount();
        self.0.used.load(Ordering::Relaxed)
    }
    /// The size of the file system: writes beyond it fail.
    pub fn limit(&self) -> u64 {
        self.0.limit.load(Ordering::Relaxed)
    }
    pub fn set_limit(&self, bytes: u64) {
        self.0.limit.store(bytes, Ordering::Relaxed);
    }
    /// The size of the disk below, to which `xfs_growfs` extends the file system.
    pub fn device_bytes(&self) -> u64 {
        self.0.device.load(Ordering::Relaxed)
    }
    pub fn set_device_bytes(&self, bytes: u64) {
        self.0.device.store(bytes, Ordering::Relaxed);
    }
}

fn link_target(place: &Path) -> io::Result<Option<String>> {
    let mut text = Vec::new();
    real::File::open(place)?.take(8192).read_to_end(&mut text)?;
    Ok(text.strip_prefix(LINK_TEXT).map(|target| String::from_utf8_lossy(target).into_owned()))
}

/// The bytes of the files below, without following anything.
pub(super) fn tree_bytes(place: &Path) -> u64 {
    let Ok(meta) = real::symlink_metadata(place) else { return 0 };
    if !meta.is_dir() {
        return meta.len();
    }
    let Ok(entries) = real::read_dir(place) else { return 0 };
    entries.flatten().map(|entry| tree_bytes(&entry.path())).sum()
}

/// An absolute path: `path` seen from `cwd`, with `.` and `..` taken as text (what a shell shows in `$PWD`).
pub(super) fn join(cwd: &str, path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", cwd.trim_end_matches('/')) }
}

/// The path as text without `.`, `..` and doubled slashes.
pub(super) fn tidy(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
