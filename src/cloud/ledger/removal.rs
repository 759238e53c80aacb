//! Taking one thing away: what of itself stands in the way first, then again until nothing else does, then until it is
//! seen to be gone. What the cloud answers last is the proof.

use std::collections::BTreeMap;
use std::time::Instant;

use super::search::Look;
use super::{Ledger, LedgerError, slow};
use crate::cloud::retry::Repeat;
use crate::cloud::{Class, Kind, Resource, describe};
use crate::model::event::{Object, Standing};

/// How long to ask for a deletion that something is in the way of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cloud) enum Until {
    /// Until nothing is any more, as long as patience lasts.
    Unblocked,
    /// Until the first refusal.
    Refused,
}

impl Ledger {
    /// Take an object away and prove it: its id and what the cloud answered.
    pub async fn remove(&self, object: &Object) -> Result<(String, String), LedgerError> {
        self.remove_until(object, Until::Unblocked).await
    }

    pub(in crate::cloud) async fn remove_until(
        &self,
        object: &Object,
        until: Until,
    ) -> Result<(String, String), LedgerError> {
        let what = format!("{} {}", object.kind, object.name);
        let kind = Kind::parse(&object.kind)
            .ok_or_else(|| LedgerError::Unfit(format!("{what} is not an object of the cloud")))?;
        let record = self.record(object);
        let known = record.as_ref().and_then(|record| record.id.clone());
        let mut last = None;
        if let Some(id) = &known {
            last = Some((id.clone(), self.take_away(kind, id, object, until).await?));
        }
        // The record may not know the newest: a process that died between intent and answer left only the tags.
        let look = if record.is_some() && known.is_none() { Look::UntilSettled } else { Look::Once };
        let mut others = self.remains(object, kind, look).await?;
        while let Some(other) = others.pop() {
            last = Some((other.id.clone(), self.take_away(kind, &other.id, object, until).await?));
            if others.is_empty() {
                others = self.remains(object, kind, Look::Once).await?;
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

    /// Ask something that takes minutes to go, without waiting for it: others go meanwhile. Whatever is in the way now is
    /// for whoever waits.
    pub(in crate::cloud) async fn begin_removal(
        &self,
        kind: Kind,
        id: &str,
        object: &Object,
    ) -> Result<(), LedgerError> {
        self.show(object, id, "leaving", Standing::Leaving, None, None).await;
        match self.release_once(kind, id).await {
            Err(LedgerError::Cancelled) => Err(LedgerError::Cancelled),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Delete by id and wait for the proof.
    pub(in crate::cloud) async fn take_away(
        &self,
        kind: Kind,
        id: &str,
        object: &Object,
        until: Until,
    ) -> Result<String, LedgerError> {
        self.show(object, id, "leaving", Standing::Leaving, None, None).await;
        self.release(kind, id, object, until).await?;
        self.until_gone(kind, id, object).await
    }

    /// Undo what of the object itself stands in the way, and ask for its deletion until nothing else does.
    async fn release(&self, kind: Kind, id: &str, object: &Object, until: Until) -> Result<(), LedgerError> {
        let what = format!("{} {}", object.kind, object.name);
        let started = Instant::now();
        let mut pause = self.caller.patience.first;
        let mut shown = String::new();
        loop {
            let source = match self.release_once(kind, id).await {
                Err(LedgerError::Cloud { source, .. }) if source.is_in_use() => source,
                Err(error) if !error.is_not_found() => return Err(error),
                Ok(()) | Err(_) => return Ok(()),
            };
            let why = self.what_blocks(kind, id, source.why()).await;
            if until == Until::Refused || started.elapsed() >= self.caller.patience.unblocked {
                let request = source.request_id.as_ref().map_or_else(String::new, |id| format!(" (request id {id})"));
                return Err(LedgerError::Blocked { what, why: why + &request });
            }
            if shown != why {
                self.progress(0, None, format!("{what} waits: {why}")).await;
                self.show(object, id, "in use", Standing::Leaving, Some(&why), None).await;
                shown = why;
            }
            self.caller.pause(&mut pause).await?;
        }
    }

    /// The cloud's reason, and what of its network is still there: EC2 says that something is in use, not by what.
    async fn what_blocks(&self, kind: Kind, id: &str, why: String) -> String {
        const SHOWN: usize = 6;
        let vpc = match kind {
            Kind::Vpc => Some(id.to_owned()),
            Kind::Subnet | Kind::SecurityGroup | Kind::InternetGateway => {
                let resource = self.caller.get(kind, id).await.ok();
                resource.and_then(|resource| resource.property("VpcId").map(str::to_owned))
            }
            _ => None,
        };
        let Some(vpc) = vpc else { return why };
        let call = format!("what uses {vpc}");
        // It only says more: without it the reason stands.
        let found = self.quietly(&call, || self.cloud.blockers(&vpc)).await.unwrap_or_default();
        let bare = ["subnet", "security-group", "route-table", "internet-gateway"];
        let mut blockers: Vec<String> = found
            .iter()
            // What is empty itself holds the VPC and nothing else.
            .filter(|blocker| blocker.id != id && (kind == Kind::Vpc || !bare.contains(&blocker.what.as_str())))
            .map(ToString::to_string)
            .collect();
        let more = blockers.len().saturating_sub(SHOWN);
        blockers.truncate(SHOWN);
        if more > 0 {
            blockers.push(format!("{more} more"));
        }
        if blockers.is_empty() { why } else { format!("{why}; in {vpc}: {}", blockers.join(", ")) }
    }

    async fn release_once(&self, kind: Kind, id: &str) -> Result<(), LedgerError> {
        let resource = match self.caller.get(kind, id).await {
            Ok(resource) if resource.is_gone() || resource.is_leaving() => return Ok(()),
            Ok(resource) => Some(resource),
            // It may just not be seen yet: the answer to the deletion tells.
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        if let Some(other) = resource.as_ref().and_then(|resource| resource.tags.get("bartizan.run"))
            && *other != self.run
        {
            return Err(LedgerError::Unfit(format!("{id} carries the tag of another run, {other}: it is left alone")));
        }
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
