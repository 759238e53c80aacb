//! Signatures → findings → checklists → recovery plans. Knows nothing of where lines come from.
//!
//! What is known about failures is data: `assets/signatures/*.toml` (which lines, from where, and what explains what),
//! `assets/checklists/*.toml` (read-only probes in the order an engineer would make them) and
//! `assets/recoveries.toml` (what puts it right, and what that costs). This folder reads that data ([`signature`],
//! [`checklist`], [`recovery`]), holds it against lines and observed states ([`matcher`], [`rank`]) and against files
//! ([`offline`]). It may use hosts to run probes; it starts nothing that changes anything.

pub mod checklist;
mod line;
mod literal;
pub mod matcher;
mod observed;
pub mod offline;
mod open;
mod ordinary;
mod parallel;
mod pattern;
mod place;
mod prefilter;
pub mod proof;
pub mod rank;
pub mod recovery;
mod said;
pub mod signature;
pub mod template;

pub use checklist::Checklists;
pub use matcher::Matcher;
pub use recovery::Recovery;
pub use signature::{Catalogue, CatalogueError};
