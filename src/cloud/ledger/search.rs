//! Finding what a dead process or a lost answer left: by its tags, for as long as it may still come to light, and never two
//! of the same.

use jiff::Timestamp;

use super::{Ledger, LedgerError};
use crate::cloud::{Kind, Resource, Tags, describe};
use crate::model::event::{Data, Level, Object};

/// Neither a client token nor a name that may be there once keeps the API from making a second one.
pub(super) fn can_double(kind: Kind) -> bool {
    matches!(kind, Kind::Vpc | Kind::InternetGateway | Kind::ElasticIp)
}

/// A double of it holds nothing that anybody could miss, and EC2 refuses to delete it while something uses it.
fn is_expendable(kind: Kind) -> bool {
    use Kind::*;
    matches!(
        kind,
        Vpc | InternetGateway | Subnet | RouteTable | SecurityGroup | VpcEndpoint | ElasticIp | NatGateway | KeyPair
    )
}

/// When to stop looking for something that is not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cloud) enum Look {
    /// One look tells.
    Once,
    /// Until what was asked for would have come to light.
    UntilSettled,
}

impl Ledger {
    /// The object that carries this run's tags. Of several the recorded one is kept, else any one, and the others are
    /// deleted: nothing was ever put into them.
    pub(in crate::cloud) async fn find(
        &self,
        object: &Object,
        kind: Kind,
        look: Look,
    ) -> Result<Option<Resource>, LedgerError> {
        match self.search(object, kind, look).await? {
            found if found.is_empty() => Ok(None),
            found => self.the_one(object, found).await.map(Some),
        }
    }

    /// All that can be used and carry this run's tags and the object's name.
    pub(in crate::cloud) async fn search(
        &self,
        object: &Object,
        kind: Kind,
        look: Look,
    ) -> Result<Vec<Resource>, LedgerError> {
        self.tagged(object, kind, look, |resource| !resource.is_over()).await
    }

    /// All that are to be taken away and carry them: also what failed, and stands in the way all the same.
    pub(super) async fn remains(&self, object: &Object, kind: Kind, look: Look) -> Result<Vec<Resource>, LedgerError> {
        self.tagged(object, kind, look, |resource| !resource.is_gone() && !resource.is_leaving()).await
    }

    async fn tagged(
        &self,
        object: &Object,
        kind: Kind,
        look: Look,
        counts: fn(&Resource) -> bool,
    ) -> Result<Vec<Resource>, LedgerError> {
        // It has no tags.
        if kind == Kind::RouteTableAssociation {
            return Ok(Vec::new());
        }
        let tags =
            Tags::from([("Name".to_owned(), object.name.clone()), ("bartizan.run".to_owned(), self.run.clone())]);
        let mut pause = self.caller.patience.first;
        loop {
            let mut found = self.caller.find(kind, &tags).await?;
            found.retain(counts);
            if !found.is_empty() || look == Look::Once || self.is_settled(object) {
                return Ok(found);
            }
            let what = format!("{} {}", object.kind, object.name);
            self.progress(0, None, format!("{what} may have been made by a call that was not answered: looking")).await;
            self.caller.pause(&mut pause).await?;
        }
    }

    /// Whatever was asked for would be seen by now.
    pub(super) fn is_settled(&self, object: &Object) -> bool {
        let asked = self.record(object).and_then(|record| record.asked);
        let settle = self.caller.patience.settle;
        asked.is_none_or(|asked| {
            let age = Timestamp::now().duration_since(asked);
            // A clock that was set back tells nothing.
            age.is_negative() || age.unsigned_abs() >= settle
        })
    }

    /// Of several with the same tags, one; the others are deleted.
    async fn the_one(&self, object: &Object, mut found: Vec<Resource>) -> Result<Resource, LedgerError> {
        let recorded = self.record(object).and_then(|record| record.id);
        found.sort_by_key(|resource| (recorded.as_ref() != Some(&resource.id), resource.id.clone()));
        let mut found = found.into_iter();
        let what = format!("{} {}", object.kind, object.name);
        let Some(kept) = found.next() else {
            return Err(LedgerError::Unfit(format!("{what} is not there")));
        };
        let others: Vec<Resource> = found.collect();
        let ambiguous = || {
            let ids: Vec<&str> = std::iter::once(&kept).chain(&others).map(|resource| resource.id.as_str()).collect();
            LedgerError::Ambiguous { what: what.clone(), ids: ids.join(", ") }
        };
        if !others.is_empty() && !is_expendable(kept.kind) {
            return Err(ambiguous());
        }
        for other in &others {
            let call = format!("{} {}", describe::delete_name(other.kind), other.id);
            match self.retrying(&call, || self.cloud.delete(other.kind, &other.id)).await {
                Ok(()) => {}
                Err(error) if error.is_not_found() => {}
                // Somebody has begun to use it: a person has to say which one is right.
                Err(LedgerError::Cloud { source, .. }) if source.is_in_use() => return Err(ambiguous()),
                Err(error) => return Err(error),
            }
            let text = format!(
                "{what} was made twice because an answer was lost: {} is kept, {} is deleted",
                kept.id, other.id
            );
            self.sink.commit(Data::Note { level: Level::Warn, text }).await;
        }
        Ok(kept)
    }
}
