//! Redirections.

use brush_parser::ast::{IoFileRedirectKind, IoFileRedirectTarget, IoRedirect};

use super::super::fs::Open;
use super::super::io::{Fd, bytes, reason};
use super::super::program::Fds;
use super::{Shell, Stop};

impl Shell {
    /// The descriptors after redirections; none when a file could not be opened, which is said.
    pub(super) async fn redirect(&mut self, redirects: &[&IoRedirect]) -> Result<Option<Fds>, Stop> {
        let mut fds = self.cx.fds.clone();
        for redirect in redirects {
            let done = match redirect {
                IoRedirect::File(fd, kind, target) => self.redirect_file(&mut fds, *fd, kind, target).await?,
                IoRedirect::OutputAndError(word, append) => {
                    let path = self.text(&word.value).await?;
                    let how = if *append { Open::Append } else { Open::Write };
                    let opened = self.open(&fds, &path, how);
                    opened.map(|file| {
                        fds.insert(1, file.clone());
                        fds.insert(2, file);
                    })
                }
                IoRedirect::HereString(fd, word) => {
                    let text = self.text(&word.value).await?;
                    fds.insert(fd.unwrap_or(0), bytes(format!("{text}\n").into_bytes()));
                    Ok(())
                }
                IoRedirect::HereDocument(fd, doc) => {
                    let mut text = doc.doc.value.clone();
                    if doc.remove_tabs {
                        text = text.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect();
                    }
                    if doc.requires_expansion {
                        text = self.heredoc(&text).await?;
                    }
                    fds.insert(fd.unwrap_or(0), bytes(text.into_bytes()));
                    Ok(())
                }
            };
            if let Err(why) = done {
                self.say(why).await;
                return Ok(None);
            }
        }
        Ok(Some(fds))
    }

    pub(super) async fn redirect_file(
        &mut self,
        fds: &mut Fds,
        fd: Option<i32>,
        kind: &IoFileRedirectKind,
        target: &IoFileRedirectTarget,
    ) -> Result<Result<(), String>, Stop> {
        let reads = matches!(
            kind,
            IoFileRedirectKind::Read | IoFileRedirectKind::ReadAndWrite | IoFileRedirectKind::DuplicateInput
        );
        let number = fd.unwrap_or(i32::from(!reads));
        let word = match target {
            IoFileRedirectTarget::Fd(from) => from.to_string(),
            IoFileRedirectTarget::Filename(word) | IoFileRedirectTarget::Duplicate(word) => {
                self.text(&word.value).await?
            }
            IoFileRedirectTarget::ProcessSubstitution(..) => {
                return Err(self.unsupported("process substitution").await);
            }
        };
        let how = match kind {
            IoFileRedirectKind::Read => Open::Read,
            IoFileRedirectKind::Write | IoFileRedirectKind::Clobber => Open::Write,
            IoFileRedirectKind::Append => Open::Append,
            IoFileRedirectKind::ReadAndWrite => Open::Both,
            IoFileRedirectKind::DuplicateInput | IoFileRedirectKind::DuplicateOutput => {
                if word == "-" {
                    fds.remove(&number);
                    return Ok(Ok(()));
                }
                let source = word.trim_end_matches('-').parse().ok().and_then(|from: i32| fds.get(&from).cloned());
                return Ok(match source {
                    Some(source) => {
                        fds.insert(number, source);
                        Ok(())
                    }
                    None if word.parse::<i32>().is_err() && fd.is_none() && !reads => {
                        self.open(fds, &word, Open::Write).map(|file| {
                            fds.insert(1, file.clone());
                            fds.insert(2, file);
                        })
                    }
                    None => Err(format!("{word}: Bad file descriptor")),
                });
            }
        };
        Ok(self.open(fds, &word, how).map(|file| {
            fds.insert(number, file);
        }))
    }

    pub(super) fn open(&self, fds: &Fds, path: &str, how: Open) -> Result<Fd, String> {
        let number = match path {
            "/dev/stdin" => Some(0),
            "/dev/stdout" => Some(1),
            "/dev/stderr" => Some(2),
            path => path.strip_prefix("/dev/fd/").and_then(|number| number.parse().ok()),
        };
        if let Some(number) = number {
            return fds.get(&number).cloned().ok_or_else(|| format!("{path}: Bad file descriptor"));
        }
        let opened = match path {
            "" => Err(std::io::ErrorKind::NotFound.into()),
            path => self.cx.machine.fs().open(&self.cx.path(path), how, 0o666 & !self.cx.umask),
        };
        opened.map_err(|error| format!("{path}: {}", reason(&error)))
    }
}
