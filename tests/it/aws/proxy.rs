//! What AWS does and its stand-in does not: an HTTP proxy between the SDK and moto that throttles, loses answers, takes its
//! time, enforces the order of a teardown, honours client tokens, and kills whoever drives it at a chosen call.

mod account;
mod itself;
mod order;
mod request;
mod rewrite;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use order::Order;
use request::{Request, Service};

/// Everything that bartizan may ask of AWS. Whatever else it asks is refused and remembered.
const KNOWN: [&str; 7] = ["ec2", "iam", "sts", "s3", "route53", "elasticloadbalancing", "servicequotas"];

/// What moto cannot do: here the identity may not ask for it.
const DENIED: [&str; 3] =
    ["iam:SimulatePrincipalPolicy", "servicequotas:GetServiceQuota", "servicequotas:GetAWSDefaultServiceQuota"];

/// An answer: status, content type, body.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub kind: String,
    pub body: String,
    /// More headers, each with its end of line.
    pub headers: String,
}

/// What goes wrong with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is refused with this code, in the service's own format.
    Code(&'static str),
    /// The same, in AWS's own words.
    Says(&'static str, &'static str),
    /// The same, by a server whose clock is so many minutes ahead of ours.
    Later(&'static str, i64),
    /// It says yes, and that this was not done.
    Unsuccessful(&'static str, &'static str),
    /// It takes effect, and the connection ends without an answer.
    LostAnswer,
    /// It never arrives.
    LostRequest,
}

/// When the driving process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Before,
    After,
}

#[derive(Debug, Default)]
struct State {
    /// What was asked, as `ec2:CreateVpc`, the changing ones only.
    changes: Vec<String>,
    refused: BTreeSet<String>,
    faults: Vec<(String, Fault, usize)>,
    /// For how many looks a new or deleted endpoint, gateway or instance is on its way.
    polls: u32,
    looks: BTreeMap<(String, &'static str), u32>,
    order: Order,
    /// The first answer by action and token, with the request that it was given to.
    tokens: BTreeMap<String, (String, Answer)>,
    /// Names of endpoint services never change and are half a second's work.
    services: Option<Answer>,
    /// Host keys that every console shows; instances are then on loopback.
    host_keys: Option<String>,
    /// What the newest machine was told at its first boot.
    user_data: Option<String>,
    /// What moto cannot tell, as AWS would.
    told: account::Told,
    pid: Option<u32>,
    /// Of the driving process alone.
    made: usize,
    kill: Option<(usize, Moment)>,
    killed_at: Option<String>,
}

pub struct Proxy {
    url: String,
    state: Arc<Mutex<State>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// How a driven process ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub output: String,
    /// The call at which it was killed.
    pub killed_at: Option<String>,
    /// The changing calls that it made.
    pub changes: Vec<String>,
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// In front of `moto` (`http://127.0.0.1:5000`), in an account of its own: moto keeps accounts apart.
    pub async fn start(moto: &str, account: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let state = Arc::new(Mutex::new(State { polls: 1, ..State::default() }));
        let (shared, upstream, owner) = (state.clone(), moto.to_owned(), account.to_owned());
        let client = super::census::client();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let one = Connection {
                    state: shared.clone(),
                    moto: upstream.clone(),
                    account: owner.clone(),
                    client: client.clone(),
                };
                tokio::spawn(one.serve(stream));
            }
        });
        Self { url, state, server }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The next `times` calls of `action` (`ec2:CreateVpc`) go wrong.
    pub fn fault(&self, action: &str, fault: Fault, times: usize) {
        locked(&self.state).faults.push((action.to_owned(), fault, times));
    }

    /// New and deleted things are on their way for so many looks.
    pub fn slow(&self, polls: u32) {
        locked(&self.state).polls = polls;
    }

    /// Instances answer on loopback, and their consoles show this host key.
    pub fn on_loopback(&self, host_key: &str) {
        locked(&self.state).host_keys = Some(host_key.to_owned());
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        locked(&self.state).faults.clear();
    }

    /// What it tells of the account.
    pub fn told<R>(&self, change: impl FnOnce(&mut account::Told) -> R) -> R {
        change(&mut locked(&self.state).told)
    }

    /// The user data of the machine that was made last.
    pub fn user_data(&self) -> Option<String> {
        locked(&self.state).user_data.clone()
    }

    /// The changing calls so far, in order.
    pub fn changes(&self) -> Vec<String> {
        locked(&self.state).changes.clone()
    }

    /// Actions that nobody should have asked for.
    pub fn refused(&self) -> BTreeSet<String> {
        locked(&self.state).refused.clone()
    }

    /// Run a process to its end, or until it is killed at its `n`th changing call (from 1).
    pub async fn drive(&self, command: &mut tokio::process::Command, kill: Option<(usize, Moment)>) -> Ended {
        use std::process::Stdio;
        let before = self.changes().len();
        let child = {
            // It makes no call until its pid is known here.
            let mut state = locked(&self.state);
            (state.made, state.kill, state.killed_at) = (0, kill, None);
            let child = command
                .env("AWS_ENDPOINT_URL", &self.url)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .expect("the process");
            state.pid = child.id();
            child
        };
        let output = child.wait_with_output().await.expect("its end");
        let mut state = locked(&self.state);
        state.pid = None;
        state.kill = None;
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ended {
            status: output.status,
            output: text.join("\n"),
            killed_at: state.killed_at.take(),
            changes: state.changes.get(before..).unwrap_or_default().to_vec(),
        }
    }
}

/// What is to be done with a call before moto sees it.
enum Plan {
    Answer(Answer),
    Silence,
    Forward { lose_answer: bool, die_after: bool },
}

struct Connection {
    state: Arc<Mutex<State>>,
    moto: String,
    account: String,
    client: reqwest::Client,
}

impl Connection {
    async fn serve(self, mut stream: TcpStream) {
        while let Some(request) = Request::read(&mut stream).await {
            let Some(answer) = self.answer(&request).await else { return };
            // A body in an answer to HEAD would be taken for the next answer.
            let body = if request.method == "HEAD" { "" } else { &answer.body };
            let head = format!(
                "HTTP/1.1 {} X\r\nContent-Type: {}\r\n{}Content-Length: {}\r\n\r\n",
                answer.status,
                answer.kind,
                answer.headers,
                body.len()
            );
            if stream.write_all(head.as_bytes()).await.is_err() || stream.write_all(body.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    /// `None`: the connection ends without one.
    async fn answer(&self, request: &Request) -> Option<Answer> {
        let action = request.action();
        let (lose_answer, die_after) = match self.plan(request, &action) {
            Plan::Answer(answer) => return Some(answer),
            Plan::Silence => return None,
            Plan::Forward { lose_answer, die_after } => (lose_answer, die_after),
        };
        let answer = self.forward(request).await?;
        let mut state = locked(&self.state);
        if answer.status < 300 {
            state.order.happened(&action, request, &answer.body);
            if action == "ec2:RunInstances" {
                let told = STANDARD.decode(request.field("UserData")).unwrap_or_default();
                state.user_data = Some(String::from_utf8_lossy(&told).into_owned());
            }
            if let Some(token) = request.token() {
                state.tokens.insert(format!("{action} {token}"), (request.substance(), answer.clone()));
            }
            if action == "ec2:DescribeVpcEndpointServices" && request.field("NextToken").is_empty() {
                state.services = Some(answer.clone());
            }
        }
        if die_after {
            state.kill(&action);
            return None;
        }
        if lose_answer {
            return None;
        }
        Some(state.rewritten(&action, answer))
    }

    fn plan(&self, request: &Request, action: &str) -> Plan {
        let mut state = locked(&self.state);
        let service = request.service();
        if !KNOWN.contains(&service.name()) {
            state.refused.insert(action.to_owned());
            return Plan::Answer(service.error("InvalidAction", &format!("{action} is not known here")));
        }
        if let Some(answer) = state.told.answer(action, request) {
            return Plan::Answer(answer);
        }
        if DENIED.contains(&action) {
            return Plan::Answer(service.error("AccessDeniedException", "no policy allows it"));
        }
        let mut die_after = false;
        if request.changes() {
            state.changes.push(action.to_owned());
            state.made += 1;
            match state.kill {
                Some((at, Moment::Before)) if at == state.made => {
                    state.kill(action);
                    return Plan::Silence;
                }
                Some((at, Moment::After)) => die_after = at == state.made,
                _ => {}
            }
        }
        let mut lose_answer = false;
        let fault = state.faults.iter_mut().find(|(name, _, times)| name == action && *times > 0);
        if let Some((_, fault, times)) = fault {
            *times -= 1;
            match fault {
                Fault::Code(code) => return Plan::Answer(service.error(code, "as the test wants it")),
                Fault::Says(code, words) => return Plan::Answer(service.error(code, words)),
                Fault::Later(code, minutes) => return Plan::Answer(service.error(code, "").dated(*minutes)),
                Fault::Unsuccessful(code, words) => return Plan::Answer(Answer::unsuccessful(action, code, words)),
                Fault::LostRequest => return Plan::Silence,
                Fault::LostAnswer => lose_answer = true,
            }
        }
        let earlier = request.token().and_then(|token| state.tokens.get(&format!("{action} {token}")).cloned());
        if let Some((first, answer)) = earlier {
            let same = first == request.substance();
            return Plan::Answer(match service {
                Service::Route53 => service.error("HostedZoneAlreadyExists", "the caller reference was used"),
                _ if same => state.rewritten(action, answer),
                _ => service.error("IdempotentParameterMismatch", "the token was used with other parameters"),
            });
        }
        if let Some((code, why)) = state.order.forbids(action, request) {
            return Plan::Answer(service.error(code, &why));
        }
        match &state.services {
            Some(answer) if action == "ec2:DescribeVpcEndpointServices" && request.field("NextToken").is_empty() => {
                Plan::Answer(answer.clone())
            }
            _ => Plan::Forward { lose_answer, die_after },
        }
    }

    /// As moto wants it.
    fn body(&self, request: &Request) -> Vec<u8> {
        let id = request.field("KeyPairId");
        match locked(&self.state).order.key(id) {
            Some(name) if request.field("Action") == "DeleteKeyPair" => {
                let body = String::from_utf8_lossy(&request.body);
                body.replace(&format!("KeyPairId={id}"), &format!("KeyName={name}")).into_bytes()
            }
            _ => request.body.clone(),
        }
    }

    async fn forward(&self, request: &Request) -> Option<Answer> {
        let method = request.method.parse::<reqwest::Method>().ok()?;
        let mut forward = self.client.request(method, format!("{}{}", self.moto, request.target));
        for (name, value) in
            request.headers.iter().filter(|(name, _)| !matches!(name.as_str(), "host" | "content-length"))
        {
            forward = forward.header(name, value);
        }
        let answer = forward.header("x-moto-account-id", &self.account).body(self.body(request)).send().await.ok()?;
        let kind = answer.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or("text/xml");
        let (status, kind) = (answer.status().as_u16(), kind.to_owned());
        Some(Answer { status, kind, body: answer.text().await.ok()?, headers: String::new() })
    }
}

impl State {
    fn kill(&mut self, action: &str) {
        self.killed_at = Some(action.to_owned());
        let pid = self.pid.and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid {
            // It may have ended by itself a moment ago.
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}
