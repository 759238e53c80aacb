//! Programs that the operator goes to and comes back from: a shell on a host of the run, an editor.

use std::ffi::OsString;

use crate::model::RunModel;

/// Where to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Door {
    /// A shell on the host of the running step, else on the bastion.
    Shell,
    /// The log at this line, else the spec of the run.
    Editor(Option<(String, u64)>),
}

/// Who knows the way: program and arguments, or why there is none.
pub trait Doors: std::fmt::Debug + Send {
    fn way(&self, door: &Door, model: &RunModel) -> Result<Vec<OsString>, String>;
}
