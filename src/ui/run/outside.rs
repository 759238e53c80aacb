//! What the screen has done outside of it: files, sequences for the terminal, other programs, the engine's queue.

use std::ffi::OsString;
use std::process::Stdio;

use futures::FutureExt;
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::model::event::Level;
use crate::spec::secret::redact;
use crate::ui::doors::Door;
use crate::ui::logs::Ask;
use crate::ui::notify::Way;
use crate::ui::screen::{Effect, Input};
use crate::ui::signals::Signals;
use crate::ui::{Exit, UiError, logs, notify, terminal, text};

use super::Runner;

impl Runner {
    /// Do one thing outside; what came of it.
    pub(super) fn effect(&mut self, effect: Effect) -> Option<Input> {
        let told = |level, text: &str| Some(Input::Told(level, text.to_owned()));
        match effect {
            Effect::Send(command) => {
                let name = format!("{command:?}").split(['(', ' ']).next().unwrap_or_default().to_lowercase();
                match self.commands.try_send(command) {
                    Ok(()) => told(Level::Info, &format!("{name}: asked for")),
                    Err(mpsc::error::TrySendError::Full(_)) => told(Level::Warn, "the engine is busy; try again"),
                    Err(mpsc::error::TrySendError::Closed(_)) => {
                        told(Level::Error, "the engine has ended; `bartizan run --resume` goes on")
                    }
                }
            }
            Effect::Log(ask) => {
                let known = logs::known(self.history.model());
                // When the reader is busy the next tick asks again for what the view lacks.
                let busy = self.wanted.try_send((ask, known)).err().map(mpsc::error::TrySendError::into_inner);
                match busy {
                    None | Some((Ask::Read { .. }, _)) => None,
                    Some(_) => told(Level::Warn, "the logs are being read; try again"),
                }
            }
            Effect::Copy(text) => match notify::clipboard(&text, self.tmux) {
                Some(sequence) => {
                    let lines = text.lines().count();
                    self.send(&sequence);
                    told(Level::Info, &format!("copied {lines} line{} (OSC 52)", if lines == 1 { "" } else { "s" }))
                }
                // Terminals cut what is too long, and say nothing.
                None => Some(self.save("copied", &text)),
            },
            Effect::Save { name, text } => Some(self.save(&name, &text)),
            Effect::Mouse(ours) => {
                let _gone = self.guard.mouse(ours);
                None
            }
            Effect::Screenshot => {
                self.shot = true;
                self.dirty = true;
                None
            }
            Effect::NextTheme => {
                let names = self.themes.names();
                let place = names.iter().position(|name| *name == self.theme.name).map_or(0, |place| place + 1);
                let name = names.get(place % names.len().max(1)).copied().unwrap_or("dark").to_owned();
                match self.themes.load(&name, self.theme.depth) {
                    Ok(theme) if theme.name == self.theme.name => told(Level::Info, "this terminal has one theme only"),
                    Ok(theme) => {
                        self.theme = theme;
                        self.switched = Some(name.clone());
                        told(Level::Info, &format!("theme {name}"))
                    }
                    Err(error) => told(Level::Error, &error.to_string()),
                }
            }
            Effect::Notify { title, body } => self.call(&title, &body),
            Effect::Progress(progress) => {
                if self.taskbar {
                    self.guard.taskbar(progress);
                }
                None
            }
            Effect::Title(title) => {
                self.send(&notify::title(&title));
                None
            }
            Effect::Seek(seek) => {
                self.history.seek(seek);
                self.dirty = true;
                Some(Input::Moved(self.history.place()))
            }
            // These need the loop; `input` has taken them out.
            Effect::Exit | Effect::Suspend | Effect::Redraw | Effect::Visit(_) => None,
        }
    }

    /// Write a text to a file beside the screenshots, and say where.
    pub(super) fn save(&self, name: &str, text: &str) -> Input {
        let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%S");
        let path = self.screenshots.join(format!("{name}-{stamp}.txt"));
        let clean: Vec<_> = text.lines().map(text::printable).collect();
        let clean = redact(&format!("{}\n", clean.join("\n")));
        match std::fs::create_dir_all(&self.screenshots).and_then(|()| std::fs::write(&path, clean)) {
            Ok(()) => Input::Told(Level::Info, format!("written to {}", path.display())),
            Err(error) => Input::Told(Level::Error, format!("{}: {error}", path.display())),
        }
    }

    pub(super) fn send(&mut self, sequence: &str) {
        // A terminal that is gone shows itself at the next read.
        let _gone = self.guard.send(sequence);
    }

    /// Tell a person who may be elsewhere.
    pub(super) fn call(&mut self, title: &str, body: &str) -> Option<Input> {
        let Way::Command(words) = &self.way else {
            let sequence = notify::notification(&self.way, title, body, self.tmux);
            self.send(&sequence);
            return None;
        };
        let (program, arguments) = words.split_first()?;
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).args([&*text::printable(title), &*text::printable(body)]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match command.spawn() {
            Ok(mut child) => {
                tokio::spawn(async move { child.wait().await });
                None
            }
            Err(error) => Some(Input::Told(Level::Warn, format!("notifying by {program}: {error}"))),
        }
    }

    /// Find the way to a program; the loop goes there.
    pub(super) fn open(&mut self, door: &Door) -> Option<Input> {
        let way = match &self.doors {
            Some(doors) => doors.way(door, self.history.model()),
            None => Err("there is no way out of here".to_owned()),
        };
        match way {
            Ok(command) => {
                self.visiting = Some(command);
                None
            }
            Err(why) => Some(Input::Told(Level::Warn, why)),
        }
    }

    /// Leave the terminal to a program until it ends; a signal to us ends both.
    pub(super) async fn visit(&mut self, command: &[OsString], signals: &mut Signals) -> Result<Option<Exit>, UiError> {
        let Some((program, arguments)) = command.split_first() else { return Ok(None) };
        terminal::restore();
        let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
        println!("bartizan: {}", words.join(" "));
        let told = match tokio::process::Command::new(program).args(arguments).spawn() {
            Ok(mut child) => tokio::select! {
                ended = child.wait() => match ended {
                    Ok(status) if status.success() => None,
                    Ok(status) => Some(format!("{} ended with {status}", program.to_string_lossy())),
                    Err(error) => Some(error.to_string()),
                },
                exit = signals.leave() => {
                    let _ended = child.kill().await;
                    return Ok(Some(exit));
                }
            },
            Err(error) => Some(format!("{}: {error}", program.to_string_lossy())),
        };
        // What was typed there was not meant for us.
        while signals.int.recv().now_or_never().flatten().is_some() {}
        self.back()?;
        if let Some(text) = told {
            self.tell(Input::Told(Level::Warn, text));
        }
        Ok(None)
    }

    /// The terminal is ours again, and its contents are anybody's.
    pub(super) fn back(&mut self) -> Result<(), UiError> {
        self.guard.back()?;
        self.looked()
    }

    pub(super) fn suspend(&mut self) -> Result<(), UiError> {
        self.guard.suspend()?;
        self.looked()
    }

    pub(super) fn looked(&mut self) -> Result<(), UiError> {
        if self.screen.mouse {
            self.guard.mouse(true)?;
        }
        let (width, height) = self.guard.size()?;
        self.tell(Input::Resize(width, height));
        (self.dirty, self.asked) = (true, true);
        Ok(())
    }
}
