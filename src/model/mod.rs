//! What a run is: events, the plan, and the fold that turns one into a picture of the other.
//!
//! This floor is pure. It knows no clock, no file, no socket and no runtime; everything here can be
//! replayed from a file, and [`reduce`] is total: an event it does not know changes nothing.

pub mod cause;
pub mod entry;
pub mod event;
pub mod fact;
pub mod plan;
pub mod progress;
mod reduce;
pub mod run;
pub mod text;

pub use event::{Data, Event, Seq};
pub use plan::{Plan, StageId, StepId};
pub use reduce::reduce;
pub use run::RunModel;
