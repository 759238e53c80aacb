//! Between those who see things happen and those who show them: number, write, fold, pass on.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;

use crate::model::event::{Data, SyncEvent};
use crate::model::{RunModel, Seq};

use super::recorder::{RecordError, Recorder};
use super::sink::{Entry, Recorded, Sink};
use super::tail::Tail;

/// How often at most one progress counter is recorded.
const PROGRESS_EVERY: Duration = Duration::from_millis(400);
/// Events that a follower may be behind before it has to read them from the file.
const BACKLOG: usize = 4096;
/// Entries on their way to the recorder; one may hold some hundred lines.
const QUEUE: usize = 128;

/// The recorder at work in a task of its own.
#[derive(Debug)]
pub struct Hub {
    sink: Sink,
    events: broadcast::Sender<Recorded>,
    dir: PathBuf,
    task: JoinHandle<Result<(), RecordError>>,
}

/// Follows the events of a run; never loses one: when it was too slow it reads the file, a piece at a time.
#[derive(Debug)]
pub struct Follower {
    events: broadcast::Receiver<Recorded>,
    dir: PathBuf,
    last: Seq,
    /// The file, once it was needed, and what was read of it.
    tail: Option<Tail>,
    behind: VecDeque<Recorded>,
}

impl Hub {
    pub fn start(recorder: Recorder) -> Self {
        let (sink, entries) = Sink::channel(QUEUE);
        let (events, _) = broadcast::channel(BACKLOG);
        let dir = recorder.dir().to_owned();
        let task = tokio::spawn(work(recorder, entries, events.clone()));
        Self { sink, events, dir, task }
    }

    pub fn sink(&self) -> Sink {
        self.sink.clone()
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The model as it is now, and everything that happens from here on.
    pub async fn follow(&self) -> (RunModel, Follower) {
        let events = self.events.subscribe();
        let model = self.sink.model().await;
        let follower = Follower { events, dir: self.dir.clone(), last: model.seq, tail: None, behind: VecDeque::new() };
        (RunModel::clone(&model), follower)
    }

    /// Comes back only when the record can no longer be written (a full disk), with the reason. Nobody hears of anything
    /// any more then: whoever waits for events of the run has to wait for this too.
    pub async fn broken(&mut self) -> RecordError {
        match self.ended().await {
            Ok(()) => std::future::pending().await,
            Err(error) => error,
        }
    }

    /// Waits until everything handed over so far is on disk, and ends.
    ///
    /// # Errors
    /// When the record could not be written.
    pub async fn close(mut self) -> Result<(), RecordError> {
        self.sink.finish().await;
        self.ended().await
    }

    /// How the recorder's task ended.
    async fn ended(&mut self) -> Result<(), RecordError> {
        match (&mut self.task).await {
            Ok(result) => result,
            Err(error) => Err(RecordError::Io {
                what: "writing the record in",
                path: self.dir.clone(),
                source: std::io::Error::other(error.to_string()),
            }),
        }
    }
}

impl Follower {
    /// The next event, or `None` when the run is no longer written.
    pub async fn next(&mut self) -> Option<Recorded> {
        loop {
            if let Some(event) = self.behind.pop_front() {
                self.last = event.seq;
                return Some(event);
            }
            match self.events.recv().await {
                Ok(event) if event.seq <= self.last => {}
                // Where some are missing they stand in the file, and this one with them.
                Ok(event) if event.seq == self.last + 1 || !self.catch_up() => {
                    self.last = event.seq;
                    return Some(event);
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    self.catch_up();
                }
                Err(broadcast::error::RecvError::Closed) => {
                    if self.tail.is_none() || !self.catch_up() {
                        return None;
                    }
                }
            }
        }
    }

    /// Read on in the file. False when it has nothing new.
    fn catch_up(&mut self) -> bool {
        let tail = self.tail.get_or_insert_with(|| Tail::new(&self.dir));
        loop {
            let events = tail.read().unwrap_or_default();
            if events.is_empty() {
                return false;
            }
            self.behind.extend(events.into_iter().filter(|event| event.seq > self.last).map(Recorded::new));
            if !self.behind.is_empty() {
                return true;
            }
        }
    }

    /// Into a bounded queue, for a front end that has its own loop.
    pub fn into_queue(mut self, capacity: usize) -> mpsc::Receiver<Recorded> {
        let (sender, receiver) = mpsc::channel(capacity);
        tokio::spawn(async move {
            while let Some(event) = self.next().await {
                if sender.send(event).await.is_err() {
                    break;
                }
            }
        });
        receiver
    }
}

/// What makes two progress events replace each other.
fn progress_key(data: &Data) -> Option<String> {
    match data {
        Data::StepProgress { step, .. } => Some(format!("step {step}")),
        Data::Sync(SyncEvent::Progress { image, .. }) => Some(format!("image {image}")),
        Data::Sync(SyncEvent::Moved { .. }) => Some("moved".to_owned()),
        _ => None,
    }
}

async fn work(
    mut recorder: Recorder,
    mut entries: mpsc::Receiver<Entry>,
    events: broadcast::Sender<Recorded>,
) -> Result<(), RecordError> {
    let mut waiting: BTreeMap<String, Data> = BTreeMap::new();
    let mut tick = tokio::time::interval(PROGRESS_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let entry = tokio::select! {
            entry = entries.recv() => entry,
            _ = tick.tick(), if !waiting.is_empty() => {
                for (_, data) in std::mem::take(&mut waiting) {
                    // Nobody following is no error.
                    let _nobody = events.send(Recorded::new(recorder.append(Timestamp::now(), data)?));
                }
                continue;
            }
        };
        match entry {
            Some(Entry::Event(data, done)) => {
                match progress_key(&data) {
                    Some(key) => {
                        waiting.insert(key, *data);
                    }
                    None => {
                        // A fact must not overtake the progress that led to it.
                        for (_, data) in std::mem::take(&mut waiting) {
                            let _nobody = events.send(Recorded::new(recorder.append(Timestamp::now(), data)?));
                        }
                        let _nobody = events.send(Recorded::new(recorder.append(Timestamp::now(), *data)?));
                    }
                }
                if let Some(done) = done {
                    recorder.sync()?;
                    let _gave_up = done.send(());
                }
            }
            Some(Entry::Lines { source, lines }) => {
                let _nobody = events.send(Recorded::new(recorder.append_lines(Timestamp::now(), &source, &lines)?));
            }
            Some(Entry::Model(answer)) => {
                let _gave_up = answer.send(recorder.model().clone().into());
            }
            Some(Entry::Finish) | None => return recorder.sync(),
        }
    }
}
