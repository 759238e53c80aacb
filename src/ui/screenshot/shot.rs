//! A screenshot of the running cockpit, in the forms in which it is kept.

use std::path::Path;

use jiff::Timestamp;
use ratatui::buffer::Buffer;

use crate::model::run::RunModel;
use crate::spec::secret::redact;

use super::super::theme::Theme;

/// One screen in the forms in which it is kept; secrets that are known do not leave with it.
pub struct Shot {
    plain: String,
    ansi: String,
    svg: String,
}

impl Shot {
    pub fn of(cells: &Buffer, model: &RunModel, theme: &Theme) -> Self {
        let title = format!("bartizan: {} at {}", model.cluster.name, model.now.unwrap_or(Timestamp::UNIX_EPOCH));
        let [plain, ansi, svg] =
            [super::plain(cells), super::ansi(cells), super::svg(cells, &title, theme.name == "light")]
                .map(|text| redact(&text));
        Self { plain, ansi, svg }
    }

    /// The text at `path`, styles and picture beside it.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, &self.plain)?;
        std::fs::write(path.with_extension("ans"), &self.ansi)?;
        std::fs::write(path.with_extension("svg"), &self.svg)
    }
}
