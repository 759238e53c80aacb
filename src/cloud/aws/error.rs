//! What an SDK error is to us.

use std::error::Error;
use std::time::SystemTime;

use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::RequestId;
use aws_sdk_ec2::primitives::{DateTime, DateTimeFormat};

use super::Aws;
use crate::cloud::{Class, CloudError};

/// From where on a wrong clock, not a wrong key, is what AWS minds. It refuses signatures from 5 minutes on.
const SKEW_SECONDS: i64 = 4 * 60;

/// The error of a call, for `map_err`.
pub(super) fn failed<E>(call: &str) -> impl FnOnce(SdkError<E, HttpResponse>) -> CloudError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let call = call.to_owned();
    move |error| {
        let request_id = error.request_id().map(Box::from);
        let mut ours = match &error {
            SdkError::ServiceError(context) => {
                let status = context.raw().status().as_u16().to_string();
                let meta = context.err().meta();
                let code = meta.code().filter(|code| !code.is_empty()).unwrap_or(&status);
                let answer = CloudError::new(call, code, clean(meta.message().unwrap_or_default()));
                off_the_clock(answer, context.raw())
            }
            // The answer came and cannot be read: a proxy's page, half an answer.
            SdkError::ResponseError(context) => {
                let status = context.raw().status().as_u16().to_string();
                let mut answer = CloudError::new(call, status, chain(&error));
                if answer.class == Class::Other {
                    answer.class = Class::Unreachable;
                }
                answer
            }
            SdkError::ConstructionFailure(_) => CloudError::of(Class::Input, call, chain(&error)),
            SdkError::DispatchFailure(failure) if !(failure.is_io() || failure.is_timeout()) => {
                let why = chain(&error);
                // The SDK has no class of its own for credentials that it could not get.
                let word = ["credential", "token", "identity", "profile"].iter().any(|word| why.contains(word));
                CloudError::of(if word { Class::Credentials } else { Class::Unreachable }, call, why)
            }
            _ => CloudError::of(Class::Unreachable, call, chain(&error)),
        };
        ours.request_id = request_id;
        ours
    }
}

/// Keys are good and the time is not: EC2 says the same to both.
fn off_the_clock(mut error: CloudError, response: &HttpResponse) -> CloudError {
    if !matches!(error.class, Class::Credentials | Class::Clock) {
        return error;
    }
    let date = response.headers().get("date").and_then(|date| DateTime::from_str(date, DateTimeFormat::HttpDate).ok());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok();
    let (Some(date), Some(now)) = (date, now.and_then(|now| i64::try_from(now.as_secs()).ok())) else { return error };
    let ahead = now - date.secs();
    if ahead.abs() >= SKEW_SECONDS {
        let side = if ahead > 0 { "ahead of" } else { "behind" };
        error.class = Class::Clock;
        error.message = format!("{} (this machine's clock is {} min {side} AWS)", error.message, ahead.abs() / 60);
    }
    error
}

/// All reasons in one line, the outermost first.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = clean(&error.to_string());
        // Many say again what they wrap.
        if !text.is_empty() && !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    parts.join(": ")
}

fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl Aws {
    /// A refusal with what it hides: EC2 encodes which action and which policy, and STS tells those who may ask.
    pub(super) async fn explained(&self, mut error: CloudError) -> CloudError {
        const MARK: &str = "Encoded authorization failure message:";
        let Some((plain, encoded)) = error.message.split_once(MARK) else { return error };
        let (plain, encoded) = (plain.trim().to_owned(), encoded.trim().to_owned());
        let decoded = self.sts.decode_authorization_message().encoded_message(encoded).send().await.ok();
        let told = decoded.and_then(|decoded| missing(decoded.decoded_message()?));
        error.message = match told {
            Some(told) => format!("{plain} {told}"),
            None => format!("{plain} (sts:DecodeAuthorizationMessage would tell why; it is not allowed either)"),
        };
        error
    }
}

/// `ec2:CreateVpc on arn:…: an explicit deny`, from what STS decodes.
fn missing(decoded: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(decoded).ok()?;
    let action = value.pointer("/context/action")?.as_str()?;
    let resource = value.pointer("/context/resource").and_then(serde_json::Value::as_str).unwrap_or("*");
    let denied = value.get("explicitDeny").and_then(serde_json::Value::as_bool).unwrap_or(false);
    Some(format!("{action} on {resource}: {}", if denied { "a policy denies it" } else { "no policy allows it" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sts_decodes_names_the_action() {
        let decoded = r#"{"allowed":false,"explicitDeny":false,"matchedStatements":{"items":[]},
            "context":{"principal":{"id":"AIDA"},"action":"ec2:CreateVpc","resource":"arn:aws:ec2:us-east-2:1:vpc/*"}}"#;
        let text = "ec2:CreateVpc on arn:aws:ec2:us-east-2:1:vpc/*: no policy allows it";
        assert_eq!(missing(decoded).as_deref(), Some(text));
        assert_eq!(missing("{}"), None);
    }
}
