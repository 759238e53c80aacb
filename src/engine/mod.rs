//! Running a plan: probe → run → verify, with attempts, back-off, cancel, skip, recovery and resume. It knows nothing
//! of what a stage does.

mod attempts;
pub mod command;
pub mod hands;
pub mod recover;
pub mod retry;
pub mod runner;
pub mod step;

pub use command::Command;
pub use hands::{Hands, Recovery, Resume};
pub use recover::First;
pub use runner::{Ending, Options, Runner};
pub use step::{Probe, Ran, Step, StepCx, StepError};
