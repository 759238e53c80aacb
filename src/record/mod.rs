//! The run on disk: the event log, the log lines and the store of runs.
//!
//! ```text
//! <state>/runs/<run>/            0700
//!   run.jsonl                    one event a line, appended, never rewritten
//!   logs/<source>.log|.idx       log lines as JSON, and the byte at which each ends
//!   lock                         held by the one writer, who notes in it who it is
//! ```
//!
//! An event has its number and is on disk before anybody sees it, and what it says about log lines is true of the
//! files: `kill -9` leaves at most a torn last line, which the next writer cuts off.

pub mod bundle;
pub mod hub;
pub mod lease;
pub mod recorder;
pub mod scrub;
pub mod segments;
pub mod sink;
pub mod store;
pub mod tail;

pub use hub::{Follower, Hub};
pub use recorder::{RecordError, Recorder, read_events};
pub use segments::SegmentReader;
pub use sink::{Recorded, Sink};
pub use store::Store;
pub use tail::Tail;
