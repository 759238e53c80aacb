//! One way to call the cloud: what is throttled is asked again with jitter, what had no answer is asked again where that
//! cannot make a second thing, few calls are under way at once, and every wait ends with the run.

use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::ledger::LedgerError;
use super::{Class, Cloud, CloudError, Kind, Resource, Tags, describe};

/// How long to wait for the cloud.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Between two looks, at first; it grows to `slowest`.
    pub first: Duration,
    pub slowest: Duration,
    /// Until a new object is seen by everybody (EC2 is eventually consistent).
    pub appear: Duration,
    /// Until a call that a dead process may have made would show by its tags. What comes still later is found as a double.
    pub settle: Duration,
    pub ready: Duration,
    pub gone: Duration,
    /// Until nothing blocks a deletion any more.
    pub unblocked: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        Self {
            first: Duration::from_millis(200),
            slowest: Duration::from_secs(10),
            appear: minutes(2),
            settle: Duration::from_secs(30),
            ready: minutes(10),
            gone: minutes(15),
            unblocked: minutes(10),
        }
    }
}

/// May a call whose answer never came be made again as it is?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// It only looks, or the second time finds the first one's work done.
    Harmless,
    /// It might make a second thing.
    MakesAnother,
}

/// Who calls the cloud, and how patiently.
pub struct Caller {
    pub cloud: Arc<dyn Cloud>,
    pub cancel: CancellationToken,
    pub patience: Patience,
    slots: Semaphore,
}

impl Caller {
    pub fn new(cloud: Arc<dyn Cloud>, cancel: CancellationToken, patience: Patience) -> Self {
        /// EC2 counts requests of an account against a bucket that refills slowly.
        const AT_ONCE: usize = 4;
        Self { cloud, cancel, patience, slots: Semaphore::new(AT_ONCE) }
    }

    /// A call, again as long as that may help.
    pub async fn call<T, F: Future<Output = Result<T, CloudError>>>(
        &self,
        call: &str,
        repeat: Repeat,
        make: impl Fn() -> F,
    ) -> Result<T, LedgerError> {
        let retry = ExponentialBuilder::default()
            .with_min_delay(self.patience.first)
            .with_max_delay(self.patience.slowest * 2)
            .with_max_times(8)
            .with_jitter();
        let one = || async {
            // It is never closed.
            let _slot = self.slots.acquire().await;
            make().await
        };
        let tried = one.retry(retry).when(|error: &CloudError| {
            error.is_throttled() || (repeat == Repeat::Harmless && error.class == Class::Unreachable)
        });
        let result = tokio::select! {
            result = tried => result,
            () = self.cancel.cancelled() => return Err(LedgerError::Cancelled),
        };
        result.map_err(|source| LedgerError::Cloud { what: call.to_owned(), source })
    }

    pub async fn get(&self, kind: Kind, id: &str) -> Result<Resource, LedgerError> {
        let call = format!("{} {id}", describe::get_name(kind));
        self.call(&call, Repeat::Harmless, || self.cloud.get(kind, id)).await
    }

    /// What stands or is gone; `None` when the cloud does not know it, or only as something that was.
    pub async fn alive(&self, kind: Kind, id: &str) -> Result<Option<Resource>, LedgerError> {
        match self.get(kind, id).await {
            Ok(resource) => Ok(Some(resource).filter(|resource| !resource.is_over())),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub async fn find(&self, kind: Kind, tags: &Tags) -> Result<Vec<Resource>, LedgerError> {
        let words: Vec<String> = tags.iter().map(|(name, value)| format!("Tag:{name}={value}")).collect();
        let call = format!("{} {}", describe::get_name(kind), words.join(" "));
        self.call(&call, Repeat::Harmless, || self.cloud.find(kind, tags)).await
    }

    /// Wait a little, longer each time.
    pub async fn pause(&self, pause: &mut Duration) -> Result<(), LedgerError> {
        let wait = *pause;
        *pause = (wait * 3 / 2).min(self.patience.slowest);
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            () = self.cancel.cancelled() => Err(LedgerError::Cancelled),
        }
    }
}
