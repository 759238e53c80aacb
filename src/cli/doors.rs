//! The ways out of the cockpit of a run: `ssh` as the run itself uses it, and the operator's editor.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::model::RunModel;
use crate::model::text::strip_control;
use crate::record::SegmentReader;
use crate::ui::doors::{Door, Doors};

/// Lines of a log before and after the one that is wanted; an editor is no pager.
const AROUND: u64 = 100_000;

/// Doors of the run in a folder.
#[derive(Debug)]
pub struct RunDoors {
    dir: PathBuf,
}

impl RunDoors {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The hosts that the run's own ssh configuration knows.
    fn shell(&self, model: &RunModel) -> Result<Vec<OsString>, String> {
        let config = self.dir.join("ssh/config");
        let text = std::fs::read_to_string(&config).map_err(|_| "this run has no ssh connection yet".to_owned())?;
        let known: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("Host ")).collect();
        let at_work = model.current_step().and_then(|(_, record)| record.host.as_deref());
        let host = at_work
            .filter(|host| known.contains(host))
            .or_else(|| known.contains(&"bastion").then_some("bastion"))
            .ok_or("this run knows no host to go to yet")?;
        Ok(["ssh".into(), "-F".into(), config.into_os_string(), host.into()].to_vec())
    }

    fn editor(&self, log: Option<&(String, u64)>) -> Result<Vec<OsString>, String> {
        let chosen = ["VISUAL", "EDITOR"]
            .iter()
            .find_map(|name| std::env::var(name).ok().filter(|text| !text.trim().is_empty()));
        let mut command: Vec<OsString> =
            chosen.as_deref().unwrap_or("vi").split_whitespace().map(OsString::from).collect();
        match log {
            Some((source, line)) => {
                let (path, row) = self.copy(source, *line).map_err(|error| format!("copying {source}: {error}"))?;
                command.push(format!("+{row}").into());
                command.push(path.into_os_string());
            }
            None => command.push(self.dir.join("cluster.toml").into_os_string()),
        }
        Ok(command)
    }

    /// The log as plain text in a file of its own, and the row at which the wanted line is.
    fn copy(&self, source: &str, line: u64) -> std::io::Result<(PathBuf, u64)> {
        let place = self.dir.join("view");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&place)?;
        let name: String = source.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let path = place.join(format!("{name}.log"));
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        let mut file = std::io::BufWriter::new(file);
        let first = line.saturating_sub(AROUND).max(1);
        let mut next = first;
        let mut reader = SegmentReader::new(&self.dir);
        while next < line + AROUND {
            let lines = reader.read(source, next, 2000)?;
            if lines.is_empty() {
                break;
            }
            next += lines.len() as u64;
            for line in lines {
                writeln!(
                    file,
                    "{} {} {}",
                    line.at.strftime("%H:%M:%S"),
                    line.unit,
                    strip_control(&line.text).replace('\n', " ")
                )?;
            }
        }
        file.flush()?;
        Ok((path, line.max(first) - first + 1))
    }
}

impl Doors for RunDoors {
    fn way(&self, door: &Door, model: &RunModel) -> Result<Vec<OsString>, String> {
        match door {
            Door::Shell => self.shell(model),
            Door::Editor(log) => self.editor(log.as_ref()),
        }
    }
}
