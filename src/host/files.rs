//! Whole files through a shell: no sftp subsystem is asked for, `sudo` is not in the way, and it is the same on every host.

use std::time::Duration;

use super::pump::clean;
use super::{Cmd, Host, HostError, Stdin};

/// `$1` path, `$2` its directory, `$3` mode, `$4` size. The size proves that nothing cut the content short. The part goes
/// before anything is said, because with the connection gone, saying it ends the script.
const PUT: &str = r#"umask 077
if [ -d "$1" ]; then echo "$1 is a directory" >&2; exit 1; fi
mkdir -p "$2" || exit 1
part="$1.part.$$"
if cat >"$part" && [ "$(wc -c <"$part")" -eq "$4" ] && chmod "$3" "$part" && mv -f "$part" "$1"; then exit 0; fi
rm -f "$part"
echo "$1 was not written whole" >&2
exit 1"#;

/// `$1` path, `$2` its directory. A file in a directory that we may not look into is not called absent.
const GET: &str = r#"if [ -e "$1" ]; then exec cat "$1"; fi
if [ -d "$2" ] && [ ! -x "$2" ]; then echo "may not look into $2" >&2; exit 1; fi
exit 44"#;
/// How `GET` says that there is no such file.
const ABSENT: i32 = 44;

/// See [`Host::put`]. Missing directories are made, for the user alone.
pub(super) async fn put<H: Host + ?Sized>(host: &H, path: &str, content: Stdin, mode: u32) -> Result<(), HostError> {
    let content = match content {
        Stdin::Empty => Stdin::Bytes([].into()),
        content => content,
    };
    let size = content.content().map_or(0, <[u8]>::len);
    // At least 100 kB/s.
    let timeout = Duration::from_secs(60 + size as u64 / 100_000);
    let (path, directory) = place(path);
    let cmd = Cmd::sh(PUT).args([path.clone(), directory, format!("{mode:o}"), size.to_string()]);
    let output = host.exec(&cmd.stdin(content).timeout(Some(timeout))).await?;
    if output.ok() { Ok(()) } else { Err(failed(host, format!("writing {path}"), &output)) }
}

/// See [`Host::get`].
pub(super) async fn get<H: Host + ?Sized>(host: &H, path: &str) -> Result<Option<Vec<u8>>, HostError> {
    let (path, directory) = place(path);
    let cmd = Cmd::sh(GET).args([path.clone(), directory]).timeout(Some(Duration::from_secs(600)));
    let output = host.exec(&cmd).await?;
    match output.status {
        0 => Ok(Some(output.stdout)),
        ABSENT => Ok(None),
        _ => Err(failed(host, format!("reading {path}"), &output)),
    }
}

/// The path so that no tool takes it for an option, and its directory.
fn place(path: &str) -> (String, String) {
    let path = if path.starts_with('-') { format!("./{path}") } else { path.to_owned() };
    let directory = match path.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((directory, _)) => directory,
        None => ".",
    };
    let directory = directory.to_owned();
    (path, directory)
}

pub(super) fn failed<H: Host + ?Sized>(host: &H, command: String, output: &super::Output) -> HostError {
    HostError::Failed {
        host: host.name().to_owned(),
        command,
        status: output.status,
        stderr: clean(&output.error_text()),
    }
}
