//! A request as the SDK sends it: which service and action it is, and what a refusal of it looks like.

use std::collections::BTreeMap;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::Answer;
use crate::trouble::REQUEST;

#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// Of a body in the Query protocol.
    form: BTreeMap<String, String>,
}

/// By the way that it words its errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Ec2,
    Iam,
    Sts,
    S3,
    Route53,
    Elb,
    Quotas,
    Other,
}

impl Request {
    /// The next one of a connection; `None` at its end.
    pub async fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut bytes = Vec::new();
        let head = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            let mut more = [0; 16 * 1024];
            match stream.read(&mut more).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => bytes.extend_from_slice(more.get(..count)?),
            }
        };
        let text = String::from_utf8_lossy(bytes.get(..head)?).into_owned();
        let mut body = bytes.split_off(head + 4);
        let mut lines = text.lines();
        let mut first = lines.next()?.split(' ');
        let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
        let headers: BTreeMap<String, String> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let length: usize = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let have = body.len();
        body.resize(length, 0);
        stream.read_exact(body.get_mut(have..)?).await.ok()?;
        let form = fields(&String::from_utf8_lossy(&body));
        Some(Self { method, target, headers, body, form })
    }

    /// From the credential scope: `Credential=AK/20260101/us-east-2/ec2/aws4_request`.
    pub fn service(&self) -> Service {
        let scope = self.headers.get("authorization").and_then(|text| text.split_once("Credential="));
        match scope.and_then(|(_, scope)| scope.split('/').nth(3)) {
            Some("ec2") => Service::Ec2,
            Some("iam") => Service::Iam,
            Some("sts") => Service::Sts,
            Some("s3") => Service::S3,
            Some("route53") => Service::Route53,
            Some("elasticloadbalancing") => Service::Elb,
            Some("servicequotas") => Service::Quotas,
            _ => Service::Other,
        }
    }

    /// `ec2:CreateVpc`, `s3:PUT bucket`, `route53:POST hostedzone/*/rrset`.
    pub fn action(&self) -> String {
        let service = self.service();
        match service {
            Service::Ec2 | Service::Iam | Service::Sts | Service::Elb => {
                format!("{}:{}", service.name(), self.field("Action"))
            }
            Service::S3 | Service::Route53 => {
                let path = self.target.split('?').next().unwrap_or_default().trim_start_matches("/2013-04-01/");
                let known =
                    |part: &&str| matches!(*part, "hostedzone" | "rrset" | "hostedzonesbyvpc" | "tags" | "change");
                let parts: Vec<&str> = path
                    .split('/')
                    .filter(|part| !part.is_empty())
                    .map(|part| if service == Service::S3 || known(&part) { part } else { "*" })
                    .collect();
                format!("{}:{} {}", service.name(), self.method, parts.join("/"))
            }
            Service::Quotas | Service::Other => {
                let target = self.headers.get("x-amz-target").unwrap_or(&self.target);
                format!("{}:{}", service.name(), target.rsplit('.').next().unwrap_or(target))
            }
        }
    }

    /// It changes something.
    pub fn changes(&self) -> bool {
        match self.service() {
            Service::Ec2 | Service::Iam | Service::Elb => {
                !["Describe", "Get", "List", "Simulate"].iter().any(|verb| self.field("Action").starts_with(verb))
                    && self.field("DryRun") != "true"
            }
            Service::Sts | Service::Quotas | Service::Other => false,
            Service::S3 | Service::Route53 => matches!(self.method.as_str(), "POST" | "PUT" | "DELETE"),
        }
    }

    /// A field of the form; empty when it is not there.
    pub fn field(&self, name: &str) -> &str {
        self.form.get(name).map_or("", String::as_str)
    }

    /// The values of all fields whose name holds `part`: `SecurityGroupId` of `NetworkInterface.1.SecurityGroupId.2`.
    pub fn fields(&self, part: &str) -> Vec<&str> {
        let named = |name: &str| name.split('.').any(|piece| piece == part);
        self.form.iter().filter(|(name, _)| named(name)).map(|(_, value)| value.as_str()).collect()
    }

    /// That makes a repetition of the same call the same thing.
    pub fn token(&self) -> Option<String> {
        match self.service() {
            Service::Ec2 => self.form.get("ClientToken").filter(|token| !token.is_empty()).cloned(),
            Service::Route53 if self.method == "POST" => {
                let body = String::from_utf8_lossy(&self.body).into_owned();
                let (_, rest) = body.split_once("<CallerReference>")?;
                Some(rest.split_once('<')?.0.to_owned())
            }
            _ => None,
        }
    }

    /// What two requests with one token have to have in common.
    pub fn substance(&self) -> String {
        if self.form.is_empty() { String::from_utf8_lossy(&self.body).into_owned() } else { format!("{:?}", self.form) }
    }
}

fn fields(body: &str) -> BTreeMap<String, String> {
    if !body.contains("Action=") {
        return BTreeMap::new();
    }
    body.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

/// Percent-decoded.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex = |byte: Option<u8>| {
            char::from(byte.unwrap_or_default()).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
        };
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let (high, low) = (hex(rest.next()), hex(rest.next()));
                bytes.push(high.unwrap_or_default() * 16 + low.unwrap_or_default());
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Service {
    pub fn name(self) -> &'static str {
        match self {
            Service::Ec2 => "ec2",
            Service::Iam => "iam",
            Service::Sts => "sts",
            Service::S3 => "s3",
            Service::Route53 => "route53",
            Service::Elb => "elasticloadbalancing",
            Service::Quotas => "servicequotas",
            Service::Other => "other",
        }
    }

    /// A refusal as this service words it.
    pub fn error(self, code: &str, why: &str) -> Answer {
        let status = match code {
            "RequestLimitExceeded" | "SlowDown" | "Unavailable" => 503,
            "InsufficientInstanceCapacity" | "InsufficientHostCapacity" | "InternalError" => 500,
            "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException" => 403,
            "AuthFailure" => 401,
            "InvalidClientTokenId" | "SignatureDoesNotMatch" | "ExpiredToken" => 403,
            "HostedZoneAlreadyExists" => 409,
            _ => 400,
        };
        let headers = format!("x-amzn-requestid: {REQUEST}\r\n");
        if self == Service::Quotas {
            let body = format!("{{\"__type\": \"{code}\", \"message\": \"{why}\"}}");
            return Answer { status, kind: "application/x-amz-json-1.1".into(), body, headers };
        }
        let error = format!("<Code>{code}</Code><Message>{why}</Message>");
        let body = match self {
            Service::Ec2 => {
                format!("<Response><Errors><Error>{error}</Error></Errors><RequestID>{REQUEST}</RequestID></Response>")
            }
            Service::S3 => format!("<Error>{error}<RequestId>{REQUEST}</RequestId></Error>"),
            Service::Iam | Service::Sts | Service::Route53 | Service::Elb | Service::Quotas | Service::Other => {
                format!(
                    "<ErrorResponse><Error><Type>Sender</Type>{error}</Error><RequestId>{REQUEST}</RequestId></ErrorResponse>"
                )
            }
        };
        Answer { status, kind: "text/xml".into(), body, headers }
    }
}
