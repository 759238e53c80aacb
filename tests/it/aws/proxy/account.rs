//! What AWS tells of an account and moto does not: IAM's simulator, the quotas of EC2 and of the load balancers, and what
//! STS makes of an encoded refusal. Formats: the API references of IAM, Service Quotas and STS.

use std::collections::{BTreeMap, BTreeSet};

use super::Answer;
use super::request::Request;

/// How many decisions the simulator gives at once.
const PAGE: usize = 20;

#[derive(Debug, Default, Clone)]
pub struct Told {
    /// Actions with what denies them: `implicitDeny`, `explicitDeny`, `organization`, `boundary`. `None`: nobody may ask.
    pub simulator: Option<BTreeMap<String, &'static str>>,
    /// `ec2/L-1216C47A` to its value; others have AWS's default of 5. `None`: nobody may ask.
    pub quotas: Option<BTreeMap<String, f64>>,
    /// What an encoded message hides.
    pub decoded: Option<&'static str>,
    /// How often the simulator was asked for another page.
    pub pages: usize,
    /// Actions that were simulated.
    pub simulated: BTreeSet<String>,
}

impl Told {
    pub fn answer(&mut self, action: &str, request: &Request) -> Option<Answer> {
        match action {
            "iam:SimulatePrincipalPolicy" => self.decisions(request),
            "servicequotas:GetServiceQuota" => self.quota(request, false),
            "servicequotas:GetAWSDefaultServiceQuota" => self.quota(request, true),
            "sts:DecodeAuthorizationMessage" => self.decoded.map(|text| {
                let text = text.replace('"', "&quot;");
                xml(&format!(
                    "<DecodeAuthorizationMessageResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
                     <DecodeAuthorizationMessageResult><DecodedMessage>{text}</DecodedMessage>\
                     </DecodeAuthorizationMessageResult></DecodeAuthorizationMessageResponse>"
                ))
            }),
            _ => None,
        }
    }

    fn decisions(&mut self, request: &Request) -> Option<Answer> {
        let denied = self.simulator.clone()?;
        let named = |number: usize| request.field(&format!("ActionNames.member.{number}")).to_owned();
        let names: Vec<String> = (1..).map(named).take_while(|name| !name.is_empty()).collect();
        let from: usize = request.field("Marker").parse().unwrap_or(0);
        self.pages += usize::from(from > 0);
        self.simulated.extend(names.iter().cloned());
        let members: String = names
            .iter()
            .skip(from)
            .take(PAGE)
            .map(|name| {
                let (decision, detail) = match denied.get(name).copied() {
                    None => ("allowed", ""),
                    Some("organization") => (
                        "implicitDeny",
                        "<OrganizationsDecisionDetail><AllowedByOrganizations>false</AllowedByOrganizations>\
                         </OrganizationsDecisionDetail>",
                    ),
                    Some("boundary") => (
                        "implicitDeny",
                        "<PermissionsBoundaryDecisionDetail><AllowedByPermissionsBoundary>false\
                         </AllowedByPermissionsBoundary></PermissionsBoundaryDecisionDetail>",
                    ),
                    Some(decision) => (decision, ""),
                };
                format!(
                    "<member><EvalActionName>{name}</EvalActionName><EvalResourceName>*</EvalResourceName>\
                     <EvalDecision>{decision}</EvalDecision><MatchedStatements/><MissingContextValues/>{detail}</member>"
                )
            })
            .collect();
        let more = from + PAGE < names.len();
        let marker = if more { format!("<Marker>{}</Marker>", from + PAGE) } else { String::new() };
        Some(xml(&format!(
            "<SimulatePrincipalPolicyResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\">\
             <SimulatePrincipalPolicyResult><IsTruncated>{more}</IsTruncated>{marker}\
             <EvaluationResults>{members}</EvaluationResults></SimulatePrincipalPolicyResult>\
             </SimulatePrincipalPolicyResponse>"
        )))
    }

    /// Of a quota that nobody has raised only the default is known.
    fn quota(&self, request: &Request, default: bool) -> Option<Answer> {
        let quotas = self.quotas.as_ref()?;
        let asked: serde_json::Value = serde_json::from_slice(&request.body).ok()?;
        let (service, code) = (asked["ServiceCode"].as_str()?, asked["QuotaCode"].as_str()?);
        let value = match (quotas.get(&format!("{service}/{code}")), default) {
            (Some(value), false) => *value,
            (None, false) => return Some(request.service().error("NoSuchResourceException", "it has its default")),
            (_, true) => 5.0,
        };
        let body = format!(
            "{{\"Quota\": {{\"ServiceCode\": \"{service}\", \"QuotaCode\": \"{code}\", \"Value\": {value:.1}, \
             \"Unit\": \"None\", \"Adjustable\": true, \"GlobalQuota\": false}}}}"
        );
        Some(Answer { status: 200, kind: "application/x-amz-json-1.1".into(), body, headers: String::new() })
    }
}

fn xml(body: &str) -> Answer {
    Answer { status: 200, kind: "text/xml".into(), body: body.to_owned(), headers: String::new() }
}

impl Answer {
    /// By a clock that is so many minutes ahead.
    pub fn dated(mut self, minutes: i64) -> Self {
        let then = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(minutes);
        let date = then.to_zoned(jiff::tz::TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        self.headers.push_str(&format!("Date: {date}\r\n"));
        self
    }

    /// What `ec2:DeleteVpcEndpoints` answers when it did not delete.
    pub fn unsuccessful(action: &str, code: &str, words: &str) -> Self {
        let name = action.trim_start_matches("ec2:");
        xml(&format!(
            "<{name}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>request</requestId>\
             <unsuccessful><item><resourceId>vpce-1</resourceId><error><code>{code}</code><message>{words}</message></error>\
             </item></unsuccessful></{name}Response>"
        ))
    }
}
