//! Lines of a job's output, each kept once: a process before this one may have kept the first of them.

use crate::host::job::{Job, Started};
use crate::model::event::{Level, LogLine};

use super::live;
use super::world::Cx;

/// The log that they belong to.
const SOURCE: &str = "sync";

pub(super) struct Keeper {
    /// Job and process: a job that is started again has a new output.
    job: String,
    unit: &'static str,
    /// Up to this byte.
    kept: u64,
}

impl Keeper {
    /// Goes on behind the last line that is kept, when it is of the same process. Cursors are `JOB.PID#OFFSET`.
    pub(super) fn new(cx: &Cx, job: &Job, unit: &'static str, started: Started) -> Self {
        let (Started::New { pid } | Started::Adopted { pid }) = started;
        let job = format!("{}.{pid}", job.name());
        let cursor = live::last_line(&cx.world.run_dir, &cx.model, SOURCE).and_then(|line| line.cursor);
        let kept = cursor.and_then(|cursor| cursor.strip_prefix(&job)?.strip_prefix('#')?.parse().ok());
        Self { job, unit, kept: kept.unwrap_or(0) }
    }

    pub(super) async fn keep(&self, cx: &Cx, level: Level, text: String, offset: u64) {
        if offset <= self.kept {
            return;
        }
        let cursor = Some(format!("{}#{offset}", self.job));
        let line = LogLine { at: jiff::Timestamp::now(), unit: self.unit.into(), level, text, cursor };
        cx.sink.lines(SOURCE, vec![line.clone()]).await;
        // All of them, since the matcher counts lines to know where one is. Nobody matching is no reason to stop copying.
        let _unmatched = cx.world.tap.send((SOURCE.into(), vec![line])).await;
    }
}
