//! Making and taking away one thing at a time, so that `kill -9` at any moment leaves nothing unknown: the intent is on
//! disk before the call, the id after it, and whatever a dead process left is found by its tags and adopted.

mod arrival;
mod removal;
mod search;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::blueprint::{Item, Made, answer, fill, references};
pub use super::retry::Patience;
use super::retry::{Caller, Repeat};
use super::{Class, Cloud, CloudError, Create, Kind, Resource, Tags, cost, describe};
use crate::model::event::{Action, Data, Level, Object, Observed, Standing, Unit};
use crate::model::plan::StepId;
use crate::model::run::{ObjectRecord, RunModel};
use crate::record::Sink;
use crate::spec::Spec;
use arrival::Coming;
pub use arrival::Lost;
pub(super) use removal::Until;
pub(super) use search::Look;
use search::can_double;

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

    /// The cloud does not know what was asked for.
    pub fn is_not_found(&self) -> bool {
        matches!(self, LedgerError::Cloud { source, .. } if source.is_not_found())
    }
}

/// The record of what one run makes in one cloud.
pub struct Ledger {
    pub(super) cloud: Arc<dyn Cloud>,
    pub(super) caller: Caller,
    pub(super) sink: Sink,
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
            caller: Caller::new(cloud.clone(), cancel, cloud.patience()),
            cloud,
            sink,
            step,
            run: model.run.clone(),
            region: spec.aws.region.clone(),
            tags,
            objects: Mutex::new(model.objects.clone()),
        }
    }

    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.caller.patience = patience;
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
    /// What takes minutes is waited for when somebody needs it, so that several take them together.
    pub async fn apply(&self, items: &[Item], made: &mut Made) -> Result<(), LedgerError> {
        let mut coming: BTreeMap<String, Coming> = BTreeMap::new();
        for (done, item) in items.iter().enumerate() {
            self.progress(done, Some(items.len()), format!("{} {}", item.kind.as_str(), item.name)).await;
            for name in references(item) {
                if let Some(needed) = coming.remove(name) {
                    made.insert(name.to_owned(), self.ready(needed).await?);
                }
            }
            let filled = |properties: &BTreeMap<String, String>| {
                properties
                    .iter()
                    .map(|(name, value)| Ok((name.clone(), fill(value, |name| answer(made, name))?)))
                    .collect::<Result<BTreeMap<String, String>, String>>()
                    .map_err(|name| LedgerError::Unfit(format!("{} needs {name}, which is not there", item.name)))
            };
            let mut there = self.ensure(item, filled(&item.properties)?).await?;
            let then = filled(&item.then)?;
            if then.is_empty() && !there.resource.is_ready() {
                made.insert(item.name.clone(), there.resource.clone());
                coming.insert(item.name.clone(), there);
                continue;
            }
            there.resource = self.ready(there.clone()).await?;
            self.amend(&mut there.resource, &then).await?;
            made.insert(item.name.clone(), there.resource);
        }
        for (name, last) in coming {
            made.insert(name, self.ready(last).await?);
        }
        self.progress(items.len(), Some(items.len()), "all there".into()).await;
        Ok(())
    }

    /// The object itself: adopted when it is there, else made. It may still be on its way.
    async fn ensure(&self, item: &Item, properties: BTreeMap<String, String>) -> Result<Coming, LedgerError> {
        let object = Object { kind: item.kind.as_str().to_owned(), name: item.name.clone() };
        let hourly = cost::hourly(&self.region, item.kind, &properties);
        let record = self.record(&object);
        let known = record.as_ref().filter(|record| record.gone.is_none()).and_then(|record| record.id.clone());
        if let Some(id) = &known {
            match self.look(&object, item.kind, id).await {
                Ok(resource) if !resource.is_over() => {
                    if can_double(item.kind) {
                        // A lost answer may have left another one, which came to light later than the recorded one.
                        self.find(&object, item.kind, Look::Once).await?;
                    }
                    return Ok(Coming { object, resource, hourly });
                }
                Ok(resource) => self.vanished(&object, id, &resource.state).await,
                Err(error) if error.is_not_found() => self.vanished(&object, id, "not there").await,
                Err(error) => return Err(error),
            }
        }
        // An intent without its answer: a process died between the two. The object may be there and not yet be seen.
        let intended = record.is_some_and(|record| record.gone.is_none());
        let look = if intended && can_double(item.kind) { Look::UntilSettled } else { Look::Once };
        let resource = match self.find(&object, item.kind, look).await? {
            Some(resource) => resource,
            None => self.make(&object, item, properties).await?,
        };
        self.adopt(&object, &resource.id).await;
        self.show(&object, &resource.id, &resource.state, Standing::Making, None, hourly).await;
        Ok(Coming { object, resource, hourly })
    }

    /// Ask for a new one. When the answer is lost, what it may have made is looked for before anything is asked again.
    async fn make(
        &self,
        object: &Object,
        item: &Item,
        properties: BTreeMap<String, String>,
    ) -> Result<Resource, LedgerError> {
        const LOST: u32 = 3;
        let before = self.record(object).and_then(|record| record.id).unwrap_or_default();
        let mut tags = self.tags.clone();
        tags.extend(item.tags.clone());
        tags.insert("Name".into(), item.name.clone());
        let token = self.token(object, &before, &properties);
        let create = Create { kind: item.kind, tags, properties, token };
        let repeat = if can_double(item.kind) { Repeat::MakesAnother } else { Repeat::Harmless };
        let call = self.cloud.describe(&create);
        let mut lost = 0;
        loop {
            self.intend(object).await;
            // What it refers to was made a moment ago and may not be seen everywhere yet.
            match self.patiently(&call, repeat, || self.cloud.create(&create)).await {
                Err(LedgerError::Cloud { source, .. })
                    if source.class == Class::Unreachable && repeat == Repeat::MakesAnother && lost < LOST =>
                {
                    lost += 1;
                    if let Some(resource) = self.find(object, item.kind, Look::UntilSettled).await? {
                        return Ok(resource);
                    }
                }
                other => return other,
            }
        }
    }

    /// Set the properties that differ, one call each.
    pub(super) async fn amend(
        &self,
        resource: &mut Resource,
        then: &BTreeMap<String, String>,
    ) -> Result<(), LedgerError> {
        for (name, value) in then.iter().filter(|(name, value)| resource.property(name) != Some(value.as_str())) {
            let one = BTreeMap::from([(name.clone(), value.clone())]);
            let call = describe::modify(resource.kind, &resource.id, &one).join("; ");
            self.patiently(&call, Repeat::Harmless, || self.cloud.modify(resource.kind, &resource.id, &one)).await?;
        }
        resource.properties.extend(then.clone());
        Ok(())
    }

    /// Set properties of an object, one call each.
    pub(super) async fn change(
        &self,
        kind: Kind,
        id: &str,
        properties: &BTreeMap<String, String>,
    ) -> Result<(), LedgerError> {
        let call = describe::modify(kind, id, properties).join("; ");
        self.recorded(&call, Repeat::Harmless, || self.cloud.modify(kind, id, properties)).await
    }

    fn tags_of(&self, object: &Object) -> String {
        format!("Tag:Name={} Tag:bartizan.run={}", object.name, self.run)
    }

    /// Look at an object that should be there. A miss is believed after a few tries, and not while it is new.
    pub(super) async fn look(&self, object: &Object, kind: Kind, id: &str) -> Result<Resource, LedgerError> {
        let mut pause = self.caller.patience.first;
        let mut tries = 0;
        loop {
            match self.look_once(kind, id).await {
                Err(error) if error.is_not_found() && (tries < 3 || !self.is_settled(object)) => tries += 1,
                other => return other,
            }
            self.caller.pause(&mut pause).await?;
        }
    }

    pub(super) async fn look_once(&self, kind: Kind, id: &str) -> Result<Resource, LedgerError> {
        self.caller.get(kind, id).await
    }

    /// A changing call; what it refers to may not be seen yet, so a miss is tried again for a while.
    pub(super) async fn patiently<T, F: Future<Output = Result<T, CloudError>>>(
        &self,
        call: &str,
        repeat: Repeat,
        make: impl Fn() -> F,
    ) -> Result<T, LedgerError> {
        let started = Instant::now();
        let mut pause = self.caller.patience.first;
        loop {
            match self.recorded(call, repeat, &make).await {
                Err(error) if error.is_not_found() && started.elapsed() < self.caller.patience.appear => {}
                other => return other,
            }
            self.caller.pause(&mut pause).await?;
        }
    }

    /// A changing call that is not made again when its answer is lost, recorded as an action of the step.
    pub(super) async fn retrying<T, F: Future<Output = Result<T, CloudError>>>(
        &self,
        call: &str,
        make: impl Fn() -> F,
    ) -> Result<T, LedgerError> {
        self.recorded(call, Repeat::MakesAnother, make).await
    }

    /// A changing call, recorded as an action of the step.
    async fn recorded<T, F: Future<Output = Result<T, CloudError>>>(
        &self,
        call: &str,
        repeat: Repeat,
        make: impl Fn() -> F,
    ) -> Result<T, LedgerError> {
        let started = Instant::now();
        let result = self.caller.call(call, repeat, make).await;
        let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let exit = Some(i32::from(result.is_err()));
        let action = Action::Api { call: call.to_owned() };
        self.sink.emit(Data::StepAction { step: self.step.clone(), action, exit, elapsed_ms }).await;
        result
    }

    /// A call that only looks.
    pub(super) async fn quietly<T, F: Future<Output = Result<T, CloudError>>>(
        &self,
        call: &str,
        make: impl Fn() -> F,
    ) -> Result<T, LedgerError> {
        self.caller.call(call, Repeat::Harmless, make).await
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
        self.note(object, |record| {
            record.id = Some(id.to_owned()).filter(|id| !id.is_empty()).or(record.id.take());
            record.gone = Some(proof.to_owned());
        });
        let (object, id, proof) = (object.clone(), id.to_owned(), proof.to_owned());
        self.sink.commit(Data::Gone { object, id, proof }).await;
    }

    /// On disk before the call: whatever happens to it, somebody will look for the object.
    pub(super) async fn intend(&self, object: &Object) {
        self.note(object, |record| {
            record.gone = None;
            record.asked = Some(Timestamp::now());
        });
        self.sink.commit(Data::Intent { object: object.clone() }).await;
    }

    /// The object is there, by this id.
    pub(super) async fn adopt(&self, object: &Object, id: &str) {
        self.note(object, |record| {
            record.id = Some(id.to_owned());
            record.gone = None;
        });
        self.sink.commit(Data::Created { object: object.clone(), id: id.to_owned() }).await;
    }

    fn note(&self, object: &Object, change: impl FnOnce(&mut ObjectRecord)) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        change(objects.entry(object.clone()).or_default());
    }

    /// The same for the same request of the same run; another one once its predecessor is gone, as EC2 would give that one
    /// back, and for another request, as EC2 would refuse that.
    fn token(&self, object: &Object, before: &str, properties: &BTreeMap<String, String>) -> String {
        let text = format!("{}\n{}\n{}\n{before}\n{properties:?}", self.run, object.kind, object.name);
        // EC2 takes up to 64 characters.
        crate::spec::digest(&text).trim_start_matches("sha256:").chars().take(48).collect()
    }
}

fn slow(what: &str, state: &str, waited: Duration) -> LedgerError {
    LedgerError::Slow { what: what.to_owned(), state: state.to_owned(), seconds: waited.as_secs() }
}
