//! The copier: from a plan to a full mirror.
//!
//! Each digest is moved once and mounted wherever else it is needed; the largest go first, with a lane of their own for
//! the small ones; manifests follow their blobs, children before lists, and the release's tag comes last, so that a
//! mirror that has the tag is complete. Nothing has to be kept: a second run finds by HEAD what the first one did, and a
//! journal only spares it what is there of large blobs.

mod tell;

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::blob::{BlobReader, OnRetry};
use super::chunk::Chunks;
use super::client::{Client, Repo};
use super::error::{Class, RegistryError, Side};
use super::journal::Journal;
use super::plan::{Image, Plan, PlannedBlob, RELEASE};
use super::upload::Mount;
use crate::model::event::{ImageState, SyncEvent};

/// Blobs below this many bytes have a lane of their own.
const SMALL: u64 = 1 << 20;
const SMALL_LANES: usize = 2;

/// How it went.
#[derive(Debug, Default)]
pub struct Copied {
    /// Bytes that went from the source to the mirror.
    pub moved: u64,
    /// How often the mirror took a blob over from another of its repositories.
    pub mounted: u64,
    /// Images that are not complete, with the reason.
    pub failed: Vec<(String, RegistryError)>,
    /// What made everything stop.
    pub stopped: Option<RegistryError>,
    pub cancelled: bool,
}

impl Copied {
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.stopped.is_none() && !self.cancelled
    }
}

/// Do what the plan says, from the source to the mirror, with `jobs` blobs in flight. Images that are called by one of
/// `skips` are left, also in the middle. Progress may be dropped when nobody reads `events`; states are not.
pub async fn copy(
    (source, mirror): (&Client, &Client),
    plan: Arc<Plan>,
    jobs: usize,
    journal: Journal,
    skips: watch::Receiver<BTreeSet<String>>,
    events: mpsc::Sender<SyncEvent>,
    cancel: &CancellationToken,
) -> Copied {
    let work = Arc::new(Work::new((source.clone(), mirror.clone()), plan, journal, events, cancel.child_token()));
    work.announce().await;
    let leaver = AbortOnDropHandle::new(tokio::spawn({
        let work = Arc::clone(&work);
        async move { work.leave(skips).await }
    }));
    let mut workers = JoinSet::new();
    for lane in std::iter::repeat_n(Lane::Any, jobs.max(1)).chain(std::iter::repeat_n(Lane::Small, SMALL_LANES)) {
        let work = Arc::clone(&work);
        workers.spawn(async move { work.run(lane).await });
    }
    let reporter = AbortOnDropHandle::new(tokio::spawn({
        let work = Arc::clone(&work);
        async move { work.report().await }
    }));
    // Dropping this future ends them all: nobody may hold the journal after us.
    while workers.join_next().await.is_some() {}
    if !work.stop.is_cancelled() {
        work.write_release().await;
    }
    drop((reporter, leaver));
    work.settle().await;
    let mut state = work.lock();
    let failed = std::mem::take(&mut state.images)
        .into_iter()
        .zip(&work.plan.images)
        .filter_map(|(progress, image)| progress.error.map(|error| (image.wanted.name.clone(), error)));
    Copied {
        failed: failed.collect(),
        stopped: state.fault.take(),
        moved: state.moved,
        mounted: state.mounted,
        cancelled: cancel.is_cancelled(),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Lane {
    Any,
    Small,
}

enum Job {
    Blob(usize),
    Write(usize),
}

struct Work {
    source: Client,
    mirror: Client,
    plan: Arc<Plan>,
    events: mpsc::Sender<SyncEvent>,
    stop: CancellationToken,
    chunks: Chunks,
    journal: Journal,
    /// Some image is not wanted any more.
    fewer: Notify,
    /// Bytes of each blob that came from the source.
    arrived: Vec<Arc<AtomicU64>>,
    state: Mutex<State>,
}

struct State {
    /// Blobs still to be taken, largest first.
    blobs: VecDeque<usize>,
    /// Images whose blobs are all there.
    ready: VecDeque<usize>,
    images: Vec<Progress>,
    moved: u64,
    mounted: u64,
    fault: Option<RegistryError>,
}

#[derive(Default)]
struct Progress {
    /// Blobs that are not in their place yet.
    open: usize,
    started: bool,
    /// Some of it had to be moved, not only mounted.
    moved: bool,
    mounted: bool,
    done: bool,
    left_out: bool,
    error: Option<RegistryError>,
    reported: u64,
}

impl Progress {
    /// There may be something to do for it.
    fn is_open(&self) -> bool {
        !self.done && !self.left_out && self.error.is_none()
    }
}

impl Work {
    fn new(
        (source, mirror): (Client, Client),
        plan: Arc<Plan>,
        journal: Journal,
        events: mpsc::Sender<SyncEvent>,
        stop: CancellationToken,
    ) -> Self {
        let mut images: Vec<Progress> = plan.images.iter().map(|_| Progress::default()).collect();
        let open: Vec<usize> =
            (0..plan.blobs.len()).filter(|at| plan.blobs.get(*at).is_some_and(|blob| !blob.is_placed())).collect();
        for at in &open {
            for image in plan.blobs.get(*at).map(|blob| blob.images.as_slice()).unwrap_or_default() {
                if let Some(progress) = images.get_mut(*image) {
                    progress.open += 1;
                }
            }
        }
        for (progress, image) in images.iter_mut().zip(&plan.images) {
            progress.done = image.is_present();
            progress.left_out = image.left_out;
            progress.error = image.broken.clone();
        }
        let mut blobs = open;
        blobs.sort_by_key(|at| std::cmp::Reverse(plan.blobs.get(*at).map(|blob| blob.blob.size)));
        let arrived = plan.blobs.iter().map(|blob| if blob.is_stored() { blob.blob.size } else { 0 });
        let arrived = arrived.map(|bytes| Arc::new(AtomicU64::new(bytes))).collect();
        let ready = (0..plan.images.len())
            .filter(|at| images.get(*at).is_some_and(|image| image.open == 0 && image.is_open()))
            .filter(|at| !is_release(&plan, *at))
            .collect();
        let state = State { blobs: blobs.into(), ready, images, moved: 0, mounted: 0, fault: None };
        Self {
            source,
            mirror,
            plan,
            events,
            stop,
            chunks: Chunks::new(),
            journal,
            fewer: Notify::new(),
            arrived,
            state: Mutex::new(state),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self, image: usize) -> String {
        self.plan.images.get(image).map(|image| image.wanted.name.clone()).unwrap_or_default()
    }

    async fn run(&self, lane: Lane) {
        while let Some(job) = self.take(lane) {
            let work = async {
                match job {
                    Job::Blob(at) => self.blob(at).await,
                    Job::Write(at) => self.write(at, false).await,
                }
            };
            tokio::select! {
                () = work => {}
                () = self.not_wanted(&job) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Returns when nobody wants any more what a job brings.
    async fn not_wanted(&self, job: &Job) {
        loop {
            let fewer = self.fewer.notified();
            let mut fewer = std::pin::pin!(fewer);
            fewer.as_mut().enable();
            let left_out = {
                let state = self.lock();
                let left_out = |image: &usize| state.images.get(*image).is_some_and(|progress| progress.left_out);
                match job {
                    Job::Blob(at) => self.plan.blobs.get(*at).is_some_and(|blob| blob.images.iter().all(left_out)),
                    Job::Write(at) => left_out(at),
                }
            };
            if left_out {
                return;
            }
            fewer.await;
        }
    }

    /// Leaves the images that the operator wants to do without, as they become known.
    async fn leave(&self, mut skips: watch::Receiver<BTreeSet<String>>) {
        loop {
            let names = skips.borrow_and_update().clone();
            let mut left = Vec::new();
            {
                let mut state = self.lock();
                for (at, (progress, image)) in state.images.iter_mut().zip(&self.plan.images).enumerate() {
                    let is = image.wanted.name != RELEASE && names.iter().any(|name| image.wanted.is_called(name));
                    if is && !progress.done && !progress.left_out {
                        progress.left_out = true;
                        progress.error = None;
                        left.push(at);
                    }
                }
            }
            for at in left {
                self.tell(at, ImageState::Skipped, 1).await;
            }
            self.fewer.notify_waiters();
            if skips.changed().await.is_err() {
                return;
            }
        }
    }

    fn take(&self, lane: Lane) -> Option<Job> {
        let mut state = self.lock();
        if self.stop.is_cancelled() {
            return None;
        }
        if let Some(image) = state.ready.pop_front() {
            return Some(Job::Write(image));
        }
        loop {
            let at = match lane {
                Lane::Any => state.blobs.pop_front()?,
                Lane::Small => {
                    let last = *state.blobs.back()?;
                    self.plan.blobs.get(last).filter(|blob| blob.blob.size < SMALL)?;
                    state.blobs.pop_back()?
                }
            };
            let needed = |image: &usize| state.images.get(*image).is_some_and(Progress::is_open);
            if self.plan.blobs.get(at).is_some_and(|blob| blob.images.iter().any(needed)) {
                return Some(Job::Blob(at));
            }
        }
    }

    async fn blob(&self, at: usize) {
        let Some(planned) = self.plan.blobs.get(at) else { return };
        // Base layers belong to everybody; only the first image is said to be copied by them.
        let owner = planned.images.iter().copied().find(|image| {
            let mut state = self.lock();
            let progress = state.images.get_mut(*image).filter(|progress| progress.is_open());
            progress.map(|progress| progress.started = true).is_some()
        });
        if let Some(owner) = owner {
            self.tell(owner, ImageState::Copying, 1).await;
        }
        let mut attempt = 1;
        let on_retry = self.on_retry(owner);
        let result = loop {
            match self.place(at, planned, &on_retry, attempt > 1).await {
                Ok(moved) => break Ok(moved),
                // The reader was patient with the source already; only wrong content is worth reading again.
                Err(error) if error.side == Side::Source && error.kind() != Class::Digest => break Err(error),
                Err(error) => match self.mirror.retry().pause(attempt, &error) {
                    Some(pause) => {
                        on_retry(&error);
                        tokio::time::sleep(pause).await;
                    }
                    None => break Err(error),
                },
            }
            attempt += 1;
            if let Some(owner) = owner {
                self.tell(owner, ImageState::Copying, u32::try_from(attempt).unwrap_or(u32::MAX)).await;
            }
        };
        match result {
            Ok(moved) => self.placed(planned, moved),
            Err(error) => {
                for image in &planned.images {
                    self.fail(*image, &error).await;
                }
            }
        }
    }

    /// Bring a blob to every repository that needs it; `true` when its bytes had to be moved.
    async fn place(
        &self,
        at: usize,
        planned: &PlannedBlob,
        on_retry: &OnRetry,
        again: bool,
    ) -> Result<bool, RegistryError> {
        let digest = &planned.blob.digest;
        let mut have: Option<&Repo> = planned.places.iter().find(|(_, present)| **present).map(|(repo, _)| repo);
        let mut moved = false;
        for repo in planned.places.iter().filter(|(_, present)| !**present).map(|(repo, _)| repo) {
            // An earlier attempt may have got through without our hearing of it.
            if again && self.mirror.has_blob(repo, digest).await? {
                have = Some(repo);
                continue;
            }
            let mut session = self.mirror.resume_upload(repo, &planned.blob, &self.journal).await?;
            if let (None, Some(from)) = (&session, have) {
                match self.mirror.mount(repo, &from.name, digest).await? {
                    Mount::Mounted => {
                        self.lock().mounted += 1;
                        continue;
                    }
                    Mount::Session(open) => session = Some(open),
                    Mount::Refused => {}
                }
            }
            let begin = session.as_ref().map_or(0, |session| session.offset);
            let reader = BlobReader::new(&self.source, &planned.source, &planned.blob).from(begin);
            let arrived = self.arrived.get(at).map(Arc::clone).unwrap_or_default();
            let reader = reader.watched(arrived, Arc::clone(on_retry));
            self.mirror.upload(repo, &planned.blob, reader, session, &self.chunks, &self.journal).await?;
            self.lock().moved += planned.blob.size - begin;
            (have, moved) = (Some(repo), true);
        }
        Ok(moved)
    }

    fn placed(&self, planned: &PlannedBlob, moved: bool) {
        let mut state = self.lock();
        let state = &mut *state;
        for image in &planned.images {
            if let Some(progress) = state.images.get_mut(*image) {
                progress.open = progress.open.saturating_sub(1);
                progress.moved |= moved;
                progress.mounted |= !moved;
                if progress.open == 0 && progress.is_open() && !is_release(&self.plan, *image) {
                    state.ready.push_back(*image);
                }
            }
        }
    }

    /// Write the manifests of an image whose blobs are all there.
    async fn write(&self, at: usize, untagged: bool) {
        let Some(image) = self.plan.images.get(at) else { return };
        let first = self.lock().images.get_mut(at).is_some_and(|image| !std::mem::replace(&mut image.started, true));
        if first {
            self.tell(at, ImageState::Copying, 1).await;
        }
        for write in &image.writes {
            let tags = write.reference == image.wanted.tag;
            let reference = if tags && untagged { &write.manifest.digest } else { &write.reference };
            if let Err(error) = self.mirror.put_manifest(&image.wanted.target, reference, &write.manifest).await {
                return self.fail(at, &error).await;
            }
        }
        let state = {
            let mut state = self.lock();
            let Some(progress) = state.images.get_mut(at).filter(|progress| !progress.left_out) else { return };
            progress.done = true;
            if progress.mounted && !progress.moved { ImageState::Mounted } else { ImageState::Done }
        };
        let progress = SyncEvent::Progress { image: self.name(at), bytes: image.bytes, rate: None };
        let _nobody_listens = self.events.send(progress).await;
        self.tell(at, state, 1).await;
    }

    /// The release image, when all else is done. While something is missing it gets no tag.
    async fn write_release(&self) {
        for at in (0..self.plan.images.len()).filter(|at| is_release(&self.plan, *at)) {
            let (due, incomplete) = {
                let state = self.lock();
                let due = state.images.get(at).is_some_and(|it| it.open == 0 && it.is_open());
                let lacking = |(progress, image): (&Progress, &Image)| {
                    progress.error.is_some() || (progress.left_out && image.wanted.of_release)
                };
                (due, state.images.iter().zip(&self.plan.images).any(lacking))
            };
            if due {
                self.write(at, incomplete).await;
            }
        }
    }

    async fn fail(&self, image: usize, error: &RegistryError) {
        let news = {
            let mut state = self.lock();
            let news = match state.images.get_mut(image) {
                Some(progress) if progress.is_open() => {
                    progress.error = Some(error.clone());
                    true
                }
                _ => false,
            };
            if error.side == Side::Mirror && error.is_fatal_for_registry() {
                state.fault.get_or_insert_with(|| error.clone());
            }
            news
        };
        if news {
            self.tell(image, failed(error), 1).await;
        }
        if error.side == Side::Mirror && error.is_fatal_for_registry() {
            self.stop.cancel();
        }
    }
}

fn is_release(plan: &Plan, image: usize) -> bool {
    plan.images.get(image).is_some_and(|image| image.wanted.name == RELEASE)
}

fn failed(error: &RegistryError) -> ImageState {
    ImageState::Failed {
        side: error.side.as_str().to_owned(),
        class: error.class().to_owned(),
        why: format!("{}: {}", error.what, error.why),
    }
}
