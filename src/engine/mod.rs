//! Running a plan: probe → run → verify, with attempts, back-off, cancel, skip and resume. It knows nothing of what a
//! stage does.

pub mod command;
pub mod step;
