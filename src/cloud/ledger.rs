//! Making and taking away one thing at a time, so that `kill -9` at any moment leaves nothing unknown: the intent is on
//! disk before the call, the id after it, and whatever a dead process left is found by its tags and adopted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable};
use tokio_util::sync::CancellationToken;

use super::blueprint::{Item, Made, answer, fill};
use super::{Cloud, CloudError, Create, Kind, Resource, Tags, cost, describe};
use crate::model::event::{Action, Data, Level, Object, Observed, Standing, Unit};
use crate::model::plan::StepId;
use crate::model::run::{ObjectRecord, RunModel};
use crate::record::Sink;
use crate::spec::Spec;

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("{what}: {source}")]
    Cloud { what: String, source: CloudError },
    #[error("{what} is {state}; it was to be ready")]
    Failed { what: String, state: String },
    #[error("{what} is still {state} after {seconds} s")]
    Slow { what: String, state: String, seconds: u64 },
    /// More than one object carries the tags of a thing that may be there once.
    #[error("{what} is there more than once: {ids}; delete all but one of them")]
    Ambiguous { what: String, ids: String },
    #[error("{what} cannot be deleted: {why}")]
    Blocked { what: String, why: String },
    /// The spec asks for what this account or region cannot give.
    #[error("{0}")]
    Unfit(String),
    #[error("cancelled")]
    Cancelled,
}

impl LedgerError {
    /// Another attempt may go better.
    pub fn is_transient(&self) -> bool {
        match self {
            LedgerError::Cloud { source, .. } => source.is_transient(),
            LedgerError::Slow { .. } | LedgerError::Blocked { .. } | LedgerError::Failed { .. } => true,
            LedgerError::Ambiguous { .. } | LedgerError::Unfit(_) | LedgerError::Cancelled => false,
        }
    }
}

/// How long to wait for the cloud.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Between two looks, at first; it grows to `slowest`.
    pub first: Duration,
    pub slowest: Duration,
    /// Until a new object is seen by others (EC2 is eventually consistent).
    pub appear: Duration,
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
            ready: minutes(10),
            gone: minutes(15),
            unblocked: minutes(10),
        }
    }
}

/// The record of what one run makes in one cloud.
pub struct Ledger {
    pub(super) cloud: Arc<dyn Cloud>,
    pub(super) cancel: CancellationToken,
    pub(super) patience: Patience,
    sink: Sink,
    /// Whose actions and progress these are.
    step: StepId,
    run: String,
    /// Whose prices count.
    region: String,
    tags: Tags,
    /// As the run's model had it, and what was recorded since.
    objects: Mutex<BTreeMap<Object, ObjectRecord>>,
}

impl Ledger {
    pub fn new(
        cloud: Arc<dyn Cloud>,
        sink: Sink,
        cancel: CancellationToken,
        step: StepId,
        spec: &Spec,
        model: &RunModel,
    ) -> Self {
        let mut tags = spec.aws.tags.clone();
        tags.insert("bartizan.run".into(), model.run.clone());
        tags.insert("bartizan.cluster".into(), spec.domain());
        Self {
            cloud,
            cancel,
            patience: Patience::default(),
            sink,
            step,
            run: model.run.clone(),
            region: spec.aws.region.clone(),
            tags,
            objects: Mutex::new(model.objects.clone()),
        }
    }

    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// The run whose record this is; the tag `bartizan.run`.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// What the record says of an object.
    pub fn record(&self, object: &Object) -> Option<ObjectRecord> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).get(object).cloned()
    }

    /// Objects of the cloud that stand as far as the record knows, in no order.
    pub fn standing(&self) -> Vec<(Kind, Object, ObjectRecord)> {
        let objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects
            .iter()
            .filter(|(_, record)| record.gone.is_none())
            .filter_map(|(object, record)| Some((Kind::parse(&object.kind)?, object.clone(), record.clone())))
            .collect()
    }

    /// Make every item that is not there, in order. References are answered from `made`, and what is made is added to it.
    pub async fn apply(&self, items: &[Item], made: &mut Made) -> Result<(), LedgerError> {
        for (done, item) in items.iter().enumerate() {
            self.progress(done, Some(items.len()), format!("{} {}", item.kind.as_str(), item.name)).await;
            let filled = |properties: &BTreeMap<String, String>| {
                properties
                    .iter()
                    .map(|(name, value)| Ok((name.clone(), fill(value, |name| answer(made, name))?)))
                    .collect::<Result<BTreeMap<String, String>, String>>()
                    .map_err(|name| LedgerError::Unfit(format!("{} needs {name}, which is not there", item.name)))
            };
            let properties = filled(&item.properties)?;
            let mut resource = self.ensure(item, properties).await?;
            let then = filled(&item.then)?;
            self.amend(&mut resource, &then).await?;
            made.insert(item.name.clone(), resource);
        }
        self.progress(items.len(), Some(items.len()), "all there".into()).await;
        Ok(())
    }

    /// The object itself, ready for use: adopted when it is there, else made.
    async fn ensure(&self, item: &Item, properties: BTreeMap<String, String>) -> Result<Resource, LedgerError> {
        let object = Object { kind: item.kind.as_str().to_owned(), name: item.name.clone() };
        let hourly = cost::hourly(&self.region, item.kind, &properties);
        let record = self.record(&object);
        let known = record.as_ref().filter(|record| record.gone.is_none()).and_then(|record| record.id.clone());
        if let Some(id) = &known {
            match self.look(item.kind, id).await {
                Ok(resource) if !resource.is_over() => return self.ready(&object, resource, hourly).await,
                Ok(resource) => self.vanished(&object, id, &resource.state).await,
                Err(LedgerError::Cloud { source, .. }) if source.is_not_found() => {
                    self.vanished(&object, id, "not there").await;
                }
                Err(error) => return Err(error),
            }
        }
        // An intent without its answer: a process died between the two. The object may be there and not yet be seen.
        let intended = record.is_some_and(|record| record.gone.is_none());
        if let Some(resource) = self.find(&object, item.kind, intended && !item.kind.has_token()).await? {
            self.note(&object, Some(resource.id.clone()), None);
            self.sink.commit(Data::Created { object: object.clone(), id: resource.id.clone() }).await;
            return self.ready(&object, resource, hourly).await;
        }
        let before = self.record(&object).and_then(|record| record.id).unwrap_or_default();
        let mut tags = self.tags.clone();
        tags.extend(item.tags.clone());
        tags.insert("Name".into(), item.name.clone());
        let create = Create { kind: item.kind, tags, properties, token: self.token(&object, &before) };
        self.sink.commit(Data::Intent { object: object.clone() }).await;
        let call = self.cloud.describe(&create);
        // What it refers to was made a moment ago and may not be seen everywhere yet.
        let resource = self.patiently(&call, || self.cloud.create(&create)).await?;
        self.note(&object, Some(resource.id.clone()), None);
        self.sink.commit(Data::Created { object: object.clone(), id: resource.id.clone() }).await;
        self.ready(&object, resource, hourly).await
    }

    /// Set the properties that differ, one call each.
    async fn amend(&self, resource: &mut Resource, then: &BTreeMap<String, String>) -> Result<(), LedgerError> {
        for (name, value) in then.iter().filter(|(name, value)| resource.property(name) != Some(value.as_str())) {
            let one = BTreeMap::from([(name.clone(), value.clone())]);
            let call = describe::modify(resource.kind, &resource.id, &one).join("; ");
            self.patiently(&call, || self.cloud.modify(resource.kind, &resource.id, &one)).await?;
        }
        resource.properties.extend(then.clone());
        Ok(())
    }

    /// Take an object away and prove it. The proof is what the cloud answered.
    pub async fn remove(&self, object: &Object) -> Result<(String, String), LedgerError> {
        let what = format!("{} {}", object.kind, object.name);
        let kind = Kind::parse(&object.kind)
            .ok_or_else(|| LedgerError::Unfit(format!("{what} is not an object of the cloud")))?;
        let record = self.record(object);
        let known = record.as_ref().and_then(|record| record.id.clone());
        let mut last = None;
        if let Some(id) = &known {
            self.release(kind, id, object).await?;
            last = Some((id.clone(), self.until_gone(kind, id, object).await?));
        }
        // The record may not know the newest: a process that died between intent and answer left only the tags.
        let unsure = record.is_some() && known.is_none();
        while let Some(resource) = self.find(object, kind, unsure && last.is_none()).await? {
            self.release(kind, &resource.id, object).await?;
            let proof = self.until_gone(kind, &resource.id, object).await?;
            last = Some((resource.id, proof));
        }
        let (id, proof) = last.unwrap_or_else(|| {
            let proof = match kind {
                // It has no tags by which it could be found.
                Kind::RouteTableAssociation => "its id was never known; it goes with its subnet".to_owned(),
                _ => format!("{}: nothing has {}", describe::get_name(kind), self.tags_of(object)),
            };
            (String::new(), proof)
        });
        self.went(object, &id, &proof).await;
        Ok((id, proof))
    }

    /// Undo what of the object itself stands in the way, and ask for its deletion until nothing else does.
    async fn release(&self, kind: Kind, id: &str, object: &Object) -> Result<(), LedgerError> {
        let what = format!("{} {}", object.kind, object.name);
        let started = Instant::now();
        let mut waited_for = String::new();
        self.show(object, id, "leaving", Standing::Leaving, None, None).await;
        let mut pause = self.patience.first;
        loop {
            match self.release_once(kind, id).await {
                Ok(()) => return Ok(()),
                Err(LedgerError::Cloud { source, .. }) if source.is_not_found() => return Ok(()),
                Err(LedgerError::Cloud { source, .. }) if source.is_in_use() => {
                    if started.elapsed() >= self.patience.unblocked {
                        return Err(LedgerError::Blocked { what, why: source.why() });
                    }
                    let why = source.why();
                    self.progress(0, None, format!("{what} waits: {why}")).await;
                    if waited_for != why {
                        self.show(object, id, "in use", Standing::Leaving, Some(&why), None).await;
                        waited_for = why;
                    }
                }
                Err(error) => return Err(error),
            }
            self.pause(&mut pause).await?;
        }
    }

    async fn release_once(&self, kind: Kind, id: &str) -> Result<(), LedgerError> {
        let resource = match self.look_once(kind, id).await {
            Ok(resource) if resource.is_gone() => return Ok(()),
            Ok(resource) if matches!(resource.state.as_str(), "deleting" | "shutting-down") => return Ok(()),
            Ok(resource) => Some(resource),
            // It may just not be seen yet: the answer to the deletion tells.
            Err(LedgerError::Cloud { source, .. }) if source.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let in_the_way = |name: &&String| match kind {
            Kind::InternetGateway => *name == "VpcId",
            Kind::HostedZone => name.starts_with("A "),
            // Groups that refer to each other could never be deleted.
            Kind::SecurityGroup => name.starts_with("Ingress ") && name.contains(" sg-"),
            _ => false,
        };
        let names = resource.iter().flat_map(|resource| resource.properties.keys());
        let undone: BTreeMap<String, String> =
            names.filter(in_the_way).map(|name| (name.clone(), String::new())).collect();
        if !undone.is_empty() {
            let call = describe::modify(kind, id, &undone).join("; ");
            self.retrying(&call, || self.cloud.modify(kind, id, &undone)).await?;
        }
        let call = format!("{} {id}", describe::delete_name(kind));
        self.retrying(&call, || self.cloud.delete(kind, id)).await
    }

    async fn until_gone(&self, kind: Kind, id: &str, object: &Object) -> Result<String, LedgerError> {
        let what = format!("{} {}", object.kind, object.name);
        let started = Instant::now();
        let mut pause = self.patience.first;
        let asked = format!("{} {id}", describe::get_name(kind));
        let mut shown = String::new();
        loop {
            let state = match self.look_once(kind, id).await {
                Ok(resource) if resource.is_gone() => return Ok(format!("{asked}: {}", resource.state)),
                Ok(resource) => resource.state,
                Err(LedgerError::Cloud { source, .. }) if source.is_not_found() => {
                    return Ok(format!("{asked}: {}", source.why()));
                }
                Err(error) => return Err(error),
            };
            if started.elapsed() >= self.patience.gone {
                return Err(slow(&what, &state, self.patience.gone));
            }
            if shown != state {
                self.progress(0, None, format!("{what} ({id}) is {state}")).await;
                self.show(object, id, &state, Standing::Leaving, None, None).await;
                shown = state;
            }
            self.pause(&mut pause).await?;
        }
    }

    /// Wait until a new object can be used.
    async fn ready(&self, object: &Object, first: Resource, hourly: Option<u64>) -> Result<Resource, LedgerError> {
        let what = format!("{} {}", object.kind, object.name);
        let started = Instant::now();
        let mut pause = self.patience.first;
        let mut resource = first;
        let mut shown = String::new();
        // The answer to the creation tells less than a look does.
        loop {
            if shown != resource.state && resource.kind == Kind::Instance {
                let address = resource.property("PublicIpAddress").or(resource.property("PrivateIpAddress"));
                let observed = Observed::Instance {
                    name: object.name.clone(),
                    id: resource.id.clone(),
                    state: resource.state.clone(),
                    address: address.map(str::to_owned),
                };
                self.sink.emit(Data::Observed(observed)).await;
            }
            if shown != resource.state {
                let standing = if resource.is_ready() { Standing::Ready } else { Standing::Making };
                self.show(object, &resource.id, &resource.state, standing, None, hourly).await;
            }
            if resource.is_ready() {
                return Ok(resource);
            }
            if resource.is_over() {
                return Err(LedgerError::Failed { what, state: resource.state });
            }
            if started.elapsed() >= self.patience.ready {
                return Err(slow(&what, &resource.state, self.patience.ready));
            }
            if shown != resource.state {
                self.progress(0, None, format!("{what} ({}) is {}", resource.id, resource.state)).await;
                shown.clone_from(&resource.state);
            }
            self.pause(&mut pause).await?;
            resource = self.look(resource.kind, &resource.id).await?;
        }
    }

    /// An object that carries this run's tags. With `wait`, look several times: it may not be seen yet.
    pub(super) async fn find(&self, object: &Object, kind: Kind, wait: bool) -> Result<Option<Resource>, LedgerError> {
        if kind == Kind::RouteTableAssociation {
            return Ok(None);
        }
        const LOOKS: u32 = 6;
        let tags =
            Tags::from([("Name".to_owned(), object.name.clone()), ("bartizan.run".to_owned(), self.run.clone())]);
        let mut pause = self.patience.first;
        for look in 1..=LOOKS {
            let call = format!("{} {}", describe::get_name(kind), self.tags_of(object));
            let found = self.quietly(&call, || self.cloud.find(kind, &tags)).await?;
            let mut alive = found.into_iter().filter(|resource| !resource.is_over());
            if let Some(first) = alive.next() {
                let others: Vec<String> = alive.map(|resource| resource.id).collect();
                if others.is_empty() {
                    return Ok(Some(first));
                }
                let what = format!("{} {}", object.kind, object.name);
                return Err(LedgerError::Ambiguous { what, ids: format!("{}, {}", first.id, others.join(", ")) });
            }
            if !wait || look == LOOKS {
                break;
            }
            self.pause(&mut pause).await?;
        }
        Ok(None)
    }

    fn tags_of(&self, object: &Object) -> String {
        format!("Tag:Name={} Tag:bartizan.run={}", object.name, self.run)
    }

    /// Look at an object that should be there; a miss is believed only after a few tries.
    async fn look(&self, kind: Kind, id: &str) -> Result<Resource, LedgerError> {
        let mut pause = self.patience.first;
        let mut tries = 0;
        loop {
            match self.look_once(kind, id).await {
                Err(LedgerError::Cloud { source, .. }) if source.is_not_found() && tries < 3 => tries += 1,
                other => return other,
            }
            self.pause(&mut pause).await?;
        }
    }

    pub(super) async fn look_once(&self, kind: Kind, id: &str) -> Result<Resource, LedgerError> {
        self.quietly(&format!("{} {id}", describe::get_name(kind)), || self.cloud.get(kind, id)).await
    }

    /// A changing call; what it refers to may not be seen yet, so a miss is tried again for a while.
    async fn patiently<T, F: Future<Output = Result<T, CloudError>>>(
        &self,
        call: &str,
        make: impl Fn() -> F,
    ) -> Result<T, LedgerError> {
        let started = Instant::now();
        let mut pause = self.patience.first;
        loop {
            match self.retrying(call, &make).await {
                Err(LedgerError::Cloud { source, .. })
                    if source.is_not_found() && started.elapsed() < self.patience.appear => {}
                other => return other,
            }
            self.pause(&mut pause).await?;
        }
    }

    /// A changing call, recorded as an action of the step.
    async fn retrying<T, F: Future<Output = Result<T, CloudError>>>(
        &self,
        call: &str,
        make: impl Fn() -> F,
    ) -> Result<T, LedgerError> {
        let started = Instant::now();
        let result = self.quietly(call, make).await;
        let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let exit = Some(i32::from(result.is_err()));
        let action = Action::Api { call: call.to_owned() };
        self.sink.emit(Data::StepAction { step: self.step.clone(), action, exit, elapsed_ms }).await;
        result
    }

    /// A call that is tried again while the cloud throttles us.
    pub(super) async fn quietly<T, F: Future<Output = Result<T, CloudError>>>(
        &self,
        call: &str,
        make: impl Fn() -> F,
    ) -> Result<T, LedgerError> {
        let retry = ExponentialBuilder::default()
            .with_min_delay(self.patience.first)
            .with_max_delay(Duration::from_secs(20))
            .with_max_times(8)
            .with_jitter();
        let tried = make.retry(retry).when(CloudError::is_throttled);
        let result = tokio::select! {
            result = tried => result,
            () = self.cancel.cancelled() => return Err(LedgerError::Cancelled),
        };
        result.map_err(|source| LedgerError::Cloud { what: call.to_owned(), source })
    }

    async fn pause(&self, pause: &mut Duration) -> Result<(), LedgerError> {
        let wait = *pause;
        *pause = (wait * 3 / 2).min(self.patience.slowest);
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            () = self.cancel.cancelled() => Err(LedgerError::Cancelled),
        }
    }

    pub(super) async fn progress(&self, done: usize, total: Option<usize>, note: String) {
        let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let (done, total) = (wide(done), total.map(wide));
        let step = self.step.clone();
        self.sink.emit(Data::StepProgress { step, done, total, unit: Unit::Count, note: Some(note) }).await;
    }

    /// For whoever watches: what the object is now.
    async fn show(
        &self,
        object: &Object,
        id: &str,
        state: &str,
        standing: Standing,
        waits_for: Option<&str>,
        hourly: Option<u64>,
    ) {
        let resource = Observed::Resource {
            resource: object.clone(),
            id: id.to_owned(),
            state: state.to_owned(),
            standing,
            waits_for: waits_for.map(str::to_owned),
            hourly,
        };
        self.sink.emit(Data::Observed(resource)).await;
    }

    async fn vanished(&self, object: &Object, id: &str, state: &str) {
        let text =
            format!("{} {} ({id}) is {state} though the record has it: it is made again", object.kind, object.name);
        self.sink.emit(Data::Note { level: Level::Warn, text }).await;
    }

    async fn went(&self, object: &Object, id: &str, proof: &str) {
        self.note(object, Some(id.to_owned()).filter(|id| !id.is_empty()), Some(proof.to_owned()));
        let (object, id, proof) = (object.clone(), id.to_owned(), proof.to_owned());
        self.sink.commit(Data::Gone { object, id, proof }).await;
    }

    fn note(&self, object: &Object, id: Option<String>, gone: Option<String>) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let record = objects.entry(object.clone()).or_default();
        record.id = id.or(record.id.take());
        record.gone = gone;
    }

    /// The same for the same object of the same run; another one once its predecessor is gone, as EC2 would give that one
    /// back.
    fn token(&self, object: &Object, before: &str) -> String {
        let text = format!("{}\n{}\n{}\n{before}", self.run, object.kind, object.name);
        // EC2 takes up to 64 characters.
        crate::spec::digest(&text).trim_start_matches("sha256:").chars().take(48).collect()
    }
}

fn slow(what: &str, state: &str, waited: Duration) -> LedgerError {
    LedgerError::Slow { what: what.to_owned(), state: state.to_owned(), seconds: waited.as_secs() }
}
