//! The run on disk: the event log, the log lines, redaction and the store of runs.
//!
//! An event has its number and is on disk before anybody sees it.

pub mod segments;
pub mod sink;

pub use sink::{Recorded, Sink};
