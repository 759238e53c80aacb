//! From asked-for to usable: what takes its time is waited for, and shown as it comes.

use std::time::Instant;

use super::{Ledger, LedgerError, slow};
use crate::cloud::{Kind, Resource};
use crate::model::event::{Data, Level, Object, Observed, Standing};

/// An object that is asked for and may not be ready.
#[derive(Clone)]
pub(super) struct Coming {
    pub object: Object,
    pub resource: Resource,
    /// What it costs while it stands, in millionths of a US dollar an hour.
    pub hourly: Option<u64>,
}

impl Ledger {
    /// Wait until an object can be used; a machine that somebody has stopped is started again.
    pub(super) async fn ready(&self, coming: Coming) -> Result<Resource, LedgerError> {
        let Coming { object, mut resource, hourly } = coming;
        let what = format!("{} {}", object.kind, object.name);
        let patience = self.caller.patience;
        let started = Instant::now();
        let mut pause = patience.first;
        let mut shown = String::new();
        let mut started_again = false;
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
                self.show(&object, &resource.id, &resource.state, standing, None, hourly).await;
            }
            if resource.is_ready() {
                return Ok(resource);
            }
            if resource.is_over() {
                let why = resource.property("FailureReason").map_or_else(String::new, |why| format!(" ({why})"));
                return Err(LedgerError::Failed { what, state: resource.state + &why });
            }
            if resource.state == "stopped" && !started_again {
                started_again = true;
                let text = format!("{what} ({}) was stopped, and not by this run: it is started again", resource.id);
                self.sink.emit(Data::Note { level: Level::Warn, text }).await;
                self.change(resource.kind, &resource.id, &[("State".to_owned(), "running".to_owned())].into()).await?;
            }
            if started.elapsed() >= patience.ready {
                return Err(slow(&what, &resource.state, patience.ready));
            }
            if shown != resource.state {
                self.progress(0, None, format!("{what} ({}) is {}", resource.id, resource.state)).await;
                shown.clone_from(&resource.state);
            }
            self.caller.pause(&mut pause).await?;
            resource = self.look(&object, resource.kind, &resource.id).await?;
        }
    }

    /// The recorded machine, running again if somebody has stopped it; `None` when it is not there any more.
    pub async fn wake(&self, object: &Object) -> Result<Option<Resource>, LedgerError> {
        let Some(id) = self.record(object).filter(|record| record.gone.is_none()).and_then(|record| record.id) else {
            return Ok(None);
        };
        let Some(resource) = self.caller.alive(Kind::Instance, &id).await? else { return Ok(None) };
        let hourly = None;
        self.ready(Coming { object: object.clone(), resource, hourly }).await.map(Some)
    }

    /// What became of a recorded object that is not there any more; `None` while it is, or when none was recorded.
    pub async fn lost(&self, object: &Object) -> Result<Option<Lost>, LedgerError> {
        let Some(record) = self.record(object).filter(|record| record.gone.is_none()) else { return Ok(None) };
        let (Some(id), Some(kind)) = (record.id, Kind::parse(&object.kind)) else { return Ok(None) };
        match self.look(object, kind, &id).await {
            Ok(resource) if resource.is_over() => {
                let why = resource.property("FailureReason").map_or_else(String::new, |why| format!(" ({why})"));
                Ok(Some(Lost { id, how: format!("{}{why}", resource.state) }))
            }
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => Ok(Some(Lost { id, how: "not there any more".into() })),
            Err(error) => Err(error),
        }
    }
}

/// Something that went behind our back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    pub id: String,
    /// `terminated (Client.UserInitiatedShutdown: …)`
    pub how: String,
}
