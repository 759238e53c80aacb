//! The way into the record, for everything that sees something happen.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::model::RunModel;
use crate::model::event::{Data, Event, LogLine};

/// What reaches the recorder.
#[derive(Debug)]
pub enum Entry {
    Event(Box<Data>, Option<oneshot::Sender<()>>),
    /// Lines of a log, to be kept in its segments; the recorder numbers them and makes the event.
    Lines {
        source: String,
        lines: Vec<LogLine>,
    },
    /// Asks for the fold of everything handed over before.
    Model(oneshot::Sender<Arc<RunModel>>),
    /// Nothing more is to be recorded.
    Finish,
}

/// A recorded event, shared by all who follow the run.
pub type Recorded = Arc<Event>;

/// Cloneable, bounded: a producer that outruns the disk waits.
#[derive(Debug, Clone)]
pub struct Sink {
    sender: mpsc::Sender<Entry>,
}

impl Sink {
    /// A sink and what comes out of it; the queue holds at most `capacity` entries.
    pub fn channel(capacity: usize) -> (Self, mpsc::Receiver<Entry>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (Self { sender }, receiver)
    }

    /// Hand over a fact. When the recorder is gone the run is over and there is nobody left to tell.
    pub async fn emit(&self, data: Data) {
        let _closed = self.sender.send(Entry::Event(Box::new(data), None)).await;
    }

    /// Hand over a fact and wait until it is on disk: what must be known after `kill -9`.
    pub async fn commit(&self, data: Data) {
        let (done, wait) = oneshot::channel();
        if self.sender.send(Entry::Event(Box::new(data), Some(done))).await.is_ok() {
            let _closed = wait.await;
        }
    }

    pub async fn lines(&self, source: &str, lines: Vec<LogLine>) {
        if !lines.is_empty() {
            let _closed = self.sender.send(Entry::Lines { source: source.to_owned(), lines }).await;
        }
    }

    /// The run as it is after everything that this sink was given before.
    pub async fn model(&self) -> Arc<RunModel> {
        let (answer, wait) = oneshot::channel();
        match self.sender.send(Entry::Model(answer)).await {
            Ok(()) => wait.await.unwrap_or_default(),
            Err(_) => Arc::default(),
        }
    }

    pub(super) async fn finish(&self) {
        let _closed = self.sender.send(Entry::Finish).await;
    }
}
