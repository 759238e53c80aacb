//! What went wrong in the cloud, by the class that decides what is done about it. The classes of AWS's codes are data:
//! `assets/aws-errors.toml`. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use serde::Deserialize;

/// What kind of trouble: it decides whether a call is made again, and what the operator is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Too many calls at once.
    Throttled,
    /// The object is not there (or not yet).
    NotFound,
    /// Something else still uses the object, or it is still changing.
    InUse,
    /// One of that name, block or pair is there already.
    Exists,
    Denied,
    Credentials,
    /// Requests are signed with a time that AWS does not take.
    Clock,
    /// The account is not verified, not subscribed or blocked.
    Account,
    Quota,
    /// AWS has no machine of that type free, or none in that zone.
    Capacity,
    /// The network is too small.
    Sizing,
    /// A value that AWS does not take.
    Input,
    /// Not in the state that the object is in, however often it is tried.
    Forbidden,
    /// The token was used for another request.
    Mismatch,
    /// No answer, or none that AWS meant: the call may have taken effect.
    Unreachable,
    Other,
}

impl Class {
    pub const ALL: [Class; 16] = [
        Class::Throttled,
        Class::NotFound,
        Class::InUse,
        Class::Exists,
        Class::Denied,
        Class::Credentials,
        Class::Clock,
        Class::Account,
        Class::Quota,
        Class::Capacity,
        Class::Sizing,
        Class::Input,
        Class::Forbidden,
        Class::Mismatch,
        Class::Unreachable,
        Class::Other,
    ];

    /// Another attempt may go better without anybody doing anything.
    pub fn is_transient(self) -> bool {
        use Class::*;
        matches!(self, Throttled | NotFound | InUse | Capacity | Unreachable | Other)
    }
}

/// A call that the cloud did not carry out, or whose answer never came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudError {
    /// `ec2:CreateVpc`
    pub call: String,
    /// `VpcLimitExceeded`; empty when no answer came.
    pub code: String,
    pub class: Class,
    /// What the cloud says besides the code.
    pub message: String,
    /// For AWS Support.
    pub request_id: Option<Box<str>>,
}

impl CloudError {
    /// An answer of the API; the code tells its class.
    pub fn new(call: impl Into<String>, code: impl Into<String>, message: impl Into<String>) -> Self {
        let (code, message) = (code.into(), message.into());
        let class = entry(&code, &message).map_or(Class::Other, |entry| entry.class);
        Self { call: call.into(), code, class, message, request_id: None }
    }

    /// Trouble that is no answer of the API.
    pub fn of(class: Class, call: impl Into<String>, message: impl Into<String>) -> Self {
        Self { call: call.into(), code: String::new(), class, message: message.into(), request_id: None }
    }

    /// The same call may do better in a moment.
    pub fn is_throttled(&self) -> bool {
        self.class == Class::Throttled
    }
    pub fn is_not_found(&self) -> bool {
        self.class == Class::NotFound
    }
    pub fn is_in_use(&self) -> bool {
        self.class == Class::InUse
    }
    /// See [`Class::is_transient`].
    pub fn is_transient(&self) -> bool {
        self.class.is_transient()
    }

    /// The cloud's reason alone: code and message.
    pub fn why(&self) -> String {
        match (self.code.as_str(), self.message.as_str()) {
            ("", message) => message.to_owned(),
            (code, "") => code.to_owned(),
            (code, message) => format!("{code}: {message}"),
        }
    }

    /// One line: what to do, and whom to ask.
    pub fn advice(&self) -> &'static str {
        let own = entry(&self.code, &self.message).filter(|entry| entry.class == self.class);
        own.and_then(|entry| entry.advice.as_deref())
            .or_else(|| TABLE.advice.get(&self.class).map(String::as_str))
            .unwrap_or_default()
    }

    /// The quota that was reached, `vpc/L-F678F1CE`.
    pub fn quota(&self) -> Option<&'static str> {
        entry(&self.code, &self.message)?.quota.as_deref()
    }
}

impl fmt::Display for CloudError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.why())?;
        self.request_id.as_ref().map_or(Ok(()), |id| write!(f, " (request id {id})"))
    }
}

impl std::error::Error for CloudError {}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    advice: BTreeMap<Class, String>,
    error: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    codes: Vec<String>,
    /// Only when the message contains one of these.
    #[serde(default)]
    says: Vec<String>,
    class: Class,
    advice: Option<String>,
    quota: Option<String>,
}

// A table that cannot be read would leave everything in the class `Other`; a test reads it.
static TABLE: LazyLock<Table> =
    LazyLock::new(|| toml::from_str(include_str!("../../assets/aws-errors.toml")).unwrap_or_default());

fn entry(code: &str, message: &str) -> Option<&'static Entry> {
    let says = |entry: &&Entry| entry.says.is_empty() || entry.says.iter().any(|text| message.contains(text.as_str()));
    let ends = |pattern: &String| pattern.strip_prefix('*').is_some_and(|end| code.ends_with(end));
    let mut exact = TABLE.error.iter().filter(|entry| entry.codes.iter().any(|other| other == code));
    exact.find(says).or_else(|| TABLE.error.iter().filter(|entry| entry.codes.iter().any(ends)).find(says))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_valid_and_reached() {
        let table: Table = toml::from_str(include_str!("../../assets/aws-errors.toml")).unwrap();
        for class in Class::ALL {
            assert!(table.advice.get(&class).is_some_and(|text| !text.is_empty()), "{class:?} says what to do");
        }
        for (number, wanted) in table.error.iter().enumerate() {
            assert!(!wanted.codes.is_empty());
            let message = wanted.says.first().map_or("", String::as_str);
            for code in &wanted.codes {
                let found = entry(&code.replace('*', "Something"), message).unwrap();
                assert_eq!(found.codes, wanted.codes, "{code} of entry {number} is hidden by an earlier one");
                let error = CloudError::new("ec2:Something", code.replace('*', "Something"), message);
                assert_eq!(error.class, wanted.class);
                assert!(!error.advice().is_empty());
            }
            if wanted.class == Class::Quota {
                let known = wanted.quota.as_ref().is_none_or(|quota| {
                    quota.split_once("/L-").is_some_and(|(service, code)| !service.is_empty() && code.len() == 8)
                });
                assert!(known, "{:?}", wanted.quota);
            }
        }
    }

    #[test]
    fn a_code_tells_what_to_do() {
        let class = |code: &str, message: &str| CloudError::new("ec2:Call", code, message).class;
        assert_eq!(class("InvalidVpcID.NotFound", ""), Class::NotFound);
        assert_eq!(class("InvalidAMIID.NotFound", ""), Class::Input);
        assert_eq!(class("InvalidAssociationID.NotFound", ""), Class::NotFound);
        assert_eq!(class("SomethingNewLimitExceeded", ""), Class::Quota);
        assert_eq!(class("InvalidParameterValue", "Invalid IAM Instance Profile name"), Class::NotFound);
        assert_eq!(class("InvalidParameterValue", "CidrBlock"), Class::Input);
        assert_eq!(class("SignatureDoesNotMatch", "Signature expired: 2026…"), Class::Clock);
        assert_eq!(class("NobodyKnows", ""), Class::Other);
        let denied = CloudError::new(
            "ec2:CreateVpc",
            "UnauthorizedOperation",
            "with an explicit deny in a service control policy",
        );
        assert!(denied.advice().contains("organization"));
        assert_eq!(CloudError::new("ec2:CreateVpc", "VpcLimitExceeded", "").quota(), Some("vpc/L-F678F1CE"));
    }
}
