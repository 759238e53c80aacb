//! Looking at what a blueprint asks for without changing anything: the evidence of a probe or of a verification.

use super::blueprint::{Item, Made, answer, fill};
use super::ledger::{Ledger, LedgerError, Look};
use super::{Kind, Resource, describe};
use crate::model::event::{Evidence, Object};

/// What is there of a blueprint, and what is not.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Survey {
    /// Items that are there, by name.
    pub made: Made,
    /// What the cloud answered for each of them.
    pub evidence: Vec<Evidence>,
    /// What is not there, not ready or not as it should be: one phrase each.
    pub missing: Vec<String>,
}

impl Survey {
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// What another look saw as well.
    pub fn join(&mut self, other: Survey) {
        self.made.extend(other.made);
        self.evidence.extend(other.evidence);
        self.missing.extend(other.missing);
    }

    fn saw(&mut self, resource: &Resource) {
        let asked = format!("{} {}", describe::get_name(resource.kind), resource.id);
        self.evidence.push(Evidence::new(asked, resource.state.clone()));
    }
}

impl Ledger {
    /// Look at every item, by its recorded id or by its tags. Changes nothing, records nothing.
    pub async fn survey(&self, items: &[Item]) -> Result<Survey, LedgerError> {
        let mut survey = Survey::default();
        for item in items {
            let what = format!("{} {}", item.kind.as_str(), item.name);
            let resource = match self.seen(item).await? {
                Ok(resource) => resource,
                Err(known) => {
                    survey.missing.push(format!("{what}{known} is not there"));
                    continue;
                }
            };
            if !resource.is_ready() {
                survey.missing.push(format!("{what} ({}) is {}", resource.id, resource.state));
                continue;
            }
            for (name, template) in &item.then {
                let wanted = fill(template, |reference| answer(&survey.made, reference));
                if wanted.is_ok_and(|wanted| resource.property(name) != Some(wanted.as_str())) {
                    survey.missing.push(format!("{what} ({}) lacks {name}", resource.id));
                }
            }
            survey.saw(&resource);
            survey.made.insert(item.name.clone(), resource);
        }
        Ok(survey)
    }

    /// Whatever became of it; where there is nothing: the id that is recorded, in brackets.
    async fn seen(&self, item: &Item) -> Result<Result<Resource, String>, LedgerError> {
        let object = Object { kind: item.kind.as_str().to_owned(), name: item.name.clone() };
        let record = self.record(&object).filter(|record| record.gone.is_none());
        let Some(id) = record.and_then(|record| record.id) else {
            // Of doubles the next creation keeps one.
            let found = self.search(&object, item.kind, Look::Once).await?.into_iter().next();
            return Ok(found.ok_or_else(String::new));
        };
        match self.caller.get(item.kind, &id).await {
            Ok(resource) => Ok(Ok(resource)),
            Err(error) if error.is_not_found() => Ok(Err(format!(" ({id})"))),
            Err(error) => Err(error),
        }
    }

    /// Objects that are nobody's blueprint (an existing network): all there, or not.
    pub(super) async fn survey_ids(&self, ids: &[(Kind, &str)]) -> Result<Survey, LedgerError> {
        let mut survey = Survey::default();
        for (kind, id) in ids {
            match self.caller.alive(*kind, id).await? {
                Some(resource) => {
                    survey.saw(&resource);
                    survey.made.insert((*id).to_owned(), resource);
                }
                None => survey.missing.push(format!("{} {id} is not there", kind.as_str())),
            }
        }
        Ok(survey)
    }
}
