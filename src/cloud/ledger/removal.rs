//! Taking one thing away: what of itself stands in the way first, then again until nothing else does, then until it is
//! seen to be gone. What the cloud answers last is the proof.

use std::collections::BTreeMap;
use std::time::Instant;

use super::search::Look;
use super::{Ledger, LedgerError, slow};
use crate::cloud::retry::Repeat;
use crate::cloud::{Class, Kind, Resource, describe};
use crate::model::event::{Object, Standing};

impl Ledger {
    /// Take an object away and prove it: its id and what the cloud answered.
    pub async fn remove(&self, object: &Object) -> Result<(String, String), LedgerError> {
        let what = format!("{} {}", object.kind, object.name);
        let kind = Kind::parse(&object.kind)
            .ok_or_else(|| LedgerError::Unfit(format!("{what} is not an object of the cloud")))?;
        let record = self.record(object);
        let known = record.as_ref().and_then(|record| record.id.clone());
        let mut last = None;
        if let Some(id) = &known {
            last = Some((id.clone(), self.take_away(kind, id, object).await?));
        }
        // The record may not know the newest: a process that died between intent and answer left only the tags.
        let look = if record.is_some() && known.is_none() { Look::UntilSettled } else { Look::Once };
        let mut others = self.search(object, kind, look).await?;
        while let Some(other) = others.pop() {
            last = Some((other.id.clone(), self.take_away(kind, &other.id, object).await?));
            if others.is_empty() {
                others = self.search(object, kind, Look::Once).await?;
            }
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

    /// Ask something that takes minutes to go, without waiting for it: others go meanwhile.
    pub(in crate::cloud) async fn begin_removal(&self, kind: Kind, id: &str) -> Result<(), LedgerError> {
        self.release_once(kind, id).await
    }

    /// Delete by id and wait for the proof.
    pub(in crate::cloud) async fn take_away(
        &self,
        kind: Kind,
        id: &str,
        object: &Object,
    ) -> Result<String, LedgerError> {
        self.show(object, id, "leaving", Standing::Leaving, None, None).await;
        self.release(kind, id, object).await?;
        self.until_gone(kind, id, object).await
    }

    /// Undo what of the object itself stands in the way, and ask for its deletion until nothing else does.
    async fn release(&self, kind: Kind, id: &str, object: &Object) -> Result<(), LedgerError> {
        let what = format!("{} {}", object.kind, object.name);
        let started = Instant::now();
        let mut waits_for = String::new();
        let mut pause = self.caller.patience.first;
        loop {
            match self.release_once(kind, id).await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_not_found() => return Ok(()),
                Err(LedgerError::Cloud { source, .. }) if source.is_in_use() => {
                    if started.elapsed() >= self.caller.patience.unblocked {
                        return Err(LedgerError::Blocked { what, why: source.why() });
                    }
                    if waits_for != source.why() {
                        waits_for = source.why();
                        self.progress(0, None, format!("{what} waits: {waits_for}")).await;
                        self.show(object, id, "in use", Standing::Leaving, Some(&waits_for), None).await;
                    }
                }
                Err(error) => return Err(error),
            }
            self.caller.pause(&mut pause).await?;
        }
    }

    async fn release_once(&self, kind: Kind, id: &str) -> Result<(), LedgerError> {
        let resource = match self.caller.get(kind, id).await {
            Ok(resource) if resource.is_gone() || resource.is_leaving() => return Ok(()),
            Ok(resource) => Some(resource),
            // It may just not be seen yet: the answer to the deletion tells.
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let undone = resource.as_ref().map(in_the_way).unwrap_or_default();
        if !undone.is_empty() {
            self.change(kind, id, &undone).await?;
        }
        match self.delete_once(kind, id).await {
            Err(LedgerError::Cloud { source, .. }) if kind == Kind::Instance && source.class == Class::Forbidden => {
                // Protected against termination. Whoever cleans up has typed the cluster's name.
                let unprotected = BTreeMap::from([("DisableApiTermination".to_owned(), "false".to_owned())]);
                self.change(kind, id, &unprotected).await?;
                self.delete_once(kind, id).await
            }
            other => other,
        }
    }

    async fn delete_once(&self, kind: Kind, id: &str) -> Result<(), LedgerError> {
        let call = format!("{} {id}", describe::delete_name(kind));
        self.recorded(&call, Repeat::Harmless, || self.cloud.delete(kind, id)).await
    }

    async fn until_gone(&self, kind: Kind, id: &str, object: &Object) -> Result<String, LedgerError> {
        let what = format!("{} {}", object.kind, object.name);
        let started = Instant::now();
        let mut pause = self.caller.patience.first;
        let asked = format!("{} {id}", describe::get_name(kind));
        let mut shown = String::new();
        loop {
            let state = match self.caller.get(kind, id).await {
                Ok(resource) if resource.is_gone() => return Ok(format!("{asked}: {}", resource.state)),
                Ok(resource) => resource.state,
                Err(LedgerError::Cloud { source, .. }) if source.is_not_found() => {
                    return Ok(format!("{asked}: {}", source.why()));
                }
                Err(error) => return Err(error),
            };
            if started.elapsed() >= self.caller.patience.gone {
                return Err(slow(&what, &state, self.caller.patience.gone));
            }
            if shown != state {
                self.progress(0, None, format!("{what} ({id}) is {state}")).await;
                self.show(object, id, &state, Standing::Leaving, None, None).await;
                shown = state;
            }
            self.caller.pause(&mut pause).await?;
        }
    }
}

/// Properties that keep a thing from being deleted, to be taken away first.
fn in_the_way(resource: &Resource) -> BTreeMap<String, String> {
    let blocks = |name: &&String| match resource.kind {
        Kind::InternetGateway => *name == "VpcId",
        Kind::HostedZone => ["A ", "Alias ", "CNAME "].iter().any(|record| name.starts_with(record)),
        Kind::User => *name == "PolicyArn",
        // Groups that refer to each other could never be deleted.
        Kind::SecurityGroup => name.starts_with("Ingress ") && name.contains(" sg-"),
        _ => false,
    };
    resource.properties.keys().filter(blocks).map(|name| (name.clone(), String::new())).collect()
}
