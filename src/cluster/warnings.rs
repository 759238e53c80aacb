//! Events of type Warning, as `oc get events` shows them.
//!
//! core/v1 Events count in `count` or, when a controller uses events.k8s.io, in `series.count`; either time may be missing.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::model::event::Warning;
use crate::model::text::one_line;

use super::{MESSAGE_LIMIT, ParseError, view};

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct EventObject {
    involved_object: About,
    reason: Option<String>,
    message: Option<String>,
    count: Option<u32>,
    series: Option<Series>,
    last_timestamp: Option<Timestamp>,
    event_time: Option<Timestamp>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct About {
    kind: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Series {
    count: u32,
    last_observed_time: Option<Timestamp>,
}

/// Read an Event.
///
/// # Errors
/// When it has not that shape.
pub fn warning(object: &Value) -> Result<Warning, ParseError> {
    let (_, event): (_, EventObject) = view("event", object)?;
    let About { kind, namespace, name } = event.involved_object;
    let series = event.series.unwrap_or_default();
    Ok(Warning {
        namespace: one_line(&namespace, 100),
        about: one_line(&format!("{}/{name}", kind.to_lowercase()), 300),
        reason: one_line(event.reason.as_deref().unwrap_or_default(), 200),
        message: one_line(event.message.as_deref().unwrap_or_default(), MESSAGE_LIMIT),
        count: event.count.unwrap_or(0).max(series.count).max(1),
        last: series.last_observed_time.or(event.last_timestamp).or(event.event_time),
    })
}
