//! What was mirrored, from where, by whom, and whether it is all there.

use serde::Serialize;

use crate::model::event::ImageState;
use crate::model::run::SyncModel;

/// For programs; [`Report::markdown`] for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub release: String,
    pub digest: String,
    /// `host:port`
    pub mirror: String,
    pub engines: Vec<String>,
    /// Digests and signatures that answered, and those that did not.
    pub proven: u64,
    pub missing: Vec<String>,
    /// Of the missing ones, those that the operator does without.
    pub left_out: Vec<String>,
    pub bytes: u64,
    pub bytes_were_there: u64,
    pub images: Vec<Image>,
    /// Files that belong to it.
    pub files: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Image {
    pub name: String,
    pub digest: String,
    pub repository: String,
    /// Of all its blobs; 0 when the engine does not tell.
    pub bytes: u64,
    pub state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Report {
    pub fn new(release: &str, digest: &str, mirror: &str, sync: &SyncModel, files: Vec<String>) -> Self {
        let mut engines: Vec<String> =
            sync.images.iter().map(|record| record.engine.clone().unwrap_or_else(|| "bartizan".into())).collect();
        engines.sort_unstable();
        engines.dedup();
        let image = |record: &crate::model::run::ImageRecord| {
            let (state, why) = match &record.state {
                ImageState::Waiting => ("waiting", None),
                ImageState::Present => ("present", None),
                ImageState::Copying => ("copying", None),
                ImageState::Mounted => ("mounted", None),
                ImageState::Done => ("done", None),
                ImageState::Skipped => ("skipped", Some("left out by the operator".to_owned())),
                ImageState::Failed { side, class, why } => ("failed", Some(format!("{side}: {class}: {why}"))),
            };
            Image {
                name: record.image.name.clone(),
                digest: record.image.digest.clone(),
                repository: record.image.repository.clone(),
                bytes: record.image.bytes,
                state: state.to_owned(),
                why,
            }
        };
        let (proven, missing) = sync.proven.clone().unwrap_or_default();
        Self {
            release: release.to_owned(),
            digest: digest.to_owned(),
            mirror: mirror.to_owned(),
            engines,
            proven,
            missing,
            left_out: sync.left_out.clone(),
            bytes: sync.bytes,
            bytes_were_there: sync.present_bytes,
            images: sync.images.iter().map(image).collect(),
            files,
        }
    }

    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    pub fn markdown(&self) -> String {
        let verdict = match (self.proven, self.missing.len()) {
            (0, 0) => "nothing was proven".to_owned(),
            (proven, 0) if !self.left_out.is_empty() => format!(
                "{proven} digests and signatures answer in the mirror; {} were left out and do not",
                self.left_out.len()
            ),
            (proven, 0) => format!("all {proven} digests and signatures answer in the mirror"),
            (_, missing) => format!("{missing} digests or signatures are missing in the mirror"),
        };
        let mut text = format!(
            "# Mirror of {}\n\n- digest: `{}`\n- mirror: `{}`\n- copied by: {}\n- images: {}\n- bytes: {} ({} were there)\n- proof: {verdict}\n",
            self.release,
            self.digest,
            self.mirror,
            self.engines.join(", "),
            self.images.len(),
            self.bytes,
            self.bytes_were_there,
        );
        for (head, list) in [("Missing", &self.missing), ("Left out", &self.left_out), ("Files", &self.files)] {
            if !list.is_empty() {
                text.push_str(&format!("\n## {head}\n\n"));
                list.iter().for_each(|one| text.push_str(&format!("- `{one}`\n")));
            }
        }
        text.push_str("\n## Images\n\n| image | state | bytes | repository | digest |\n|---|---|---|---|---|\n");
        for image in &self.images {
            let state = image.why.as_ref().map_or_else(|| image.state.clone(), |why| format!("{}: {why}", image.state));
            let cells =
                [&image.name, &state.replace('|', "\\|"), &image.bytes.to_string(), &image.repository, &image.digest];
            text.push_str(&format!("| {} |\n", cells.map(String::as_str).join(" | ")));
        }
        text
    }
}
