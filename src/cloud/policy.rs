//! IAM policy documents as they are written (IAM user guide, "IAM JSON policy elements reference"). Pure.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A customer-managed policy may have this many characters; IAM does not count white space (IAM user guide, "IAM and STS
/// quotas").
pub const LONGEST: usize = 6144;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Policy {
    /// `2012-10-17`, the only current one.
    pub version: String,
    pub statement: Vec<Statement>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Statement {
    /// Letters and digits, unique in the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    pub effect: Effect,
    pub action: Vec<String>,
    pub resource: Vec<String>,
    /// Operator → key → value or values.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub condition: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    Allow,
    Deny,
}

impl Policy {
    pub fn new(statement: Vec<Statement>) -> Self {
        Self { version: "2012-10-17".into(), statement }
    }

    /// Characters as IAM counts them.
    pub fn size(&self) -> usize {
        self.text().chars().filter(|c| !c.is_whitespace()).count()
    }

    /// Compact JSON.
    pub fn text(&self) -> String {
        // Texts and JSON values only: there is nothing in it that could not be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}
