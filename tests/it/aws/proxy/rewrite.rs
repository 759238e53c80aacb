//! Answers of moto as AWS would give them: what is made or deleted is on its way for a while, and machines are on loopback.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Answer, State};

/// Where the state of a thing stands in an answer, after its id: what stands for "there", "coming", "gone", "going".
struct Slow {
    calls: [&'static str; 2],
    id: &'static str,
    states: [(&'static str, &'static str); 2],
}

const SLOW: [Slow; 3] = [
    Slow {
        calls: ["ec2:DescribeVpcEndpoints", "ec2:CreateVpcEndpoint"],
        id: "vpcEndpointId",
        states: [
            ("<state>available</state>", "<state>pending</state>"),
            ("<state>deleted</state>", "<state>deleting</state>"),
        ],
    },
    Slow {
        calls: ["ec2:DescribeNatGateways", "ec2:CreateNatGateway"],
        id: "natGatewayId",
        states: [
            ("<state>available</state>", "<state>pending</state>"),
            ("<state>deleted</state>", "<state>deleting</state>"),
        ],
    },
    Slow {
        calls: ["ec2:DescribeInstances", "ec2:RunInstances"],
        id: "instanceId",
        states: [
            (
                "<instanceState><code>16</code><name>running</name></instanceState>",
                "<instanceState><code>0</code><name>pending</name></instanceState>",
            ),
            (
                "<instanceState><code>48</code><name>terminated</name></instanceState>",
                "<instanceState><code>32</code><name>shutting-down</name></instanceState>",
            ),
        ],
    },
];

impl State {
    pub(super) fn rewritten(&mut self, action: &str, answer: Answer) -> Answer {
        if answer.status >= 300 {
            return answer;
        }
        let polls = self.polls;
        let mut body = answer.body;
        for slow in SLOW.iter().filter(|slow| slow.calls.contains(&action)) {
            let open = format!("<{}>", slow.id);
            let mut pieces = body.split(&open).map(str::to_owned).collect::<Vec<_>>().into_iter();
            let mut text = pieces.next().unwrap_or_default();
            for piece in pieces {
                let id = piece.split('<').next().unwrap_or_default().to_owned();
                text.push_str(&open);
                let at = slow.states.iter().filter_map(|state| Some((piece.find(state.0)?, state))).min();
                match at {
                    Some((_, (there, coming))) if self.look(&id, there) <= polls => {
                        text.push_str(&piece.replacen(there, coming, 1));
                    }
                    Some((_, (there, _))) => {
                        if there.contains("deleted") || there.contains("terminated") {
                            self.order.over(&id);
                        }
                        text.push_str(&piece);
                    }
                    None => text.push_str(&piece),
                }
            }
            body = text;
        }
        if let Some(keys) = &self.host_keys {
            match action {
                "ec2:RunInstances" | "ec2:DescribeInstances" | "ec2:AllocateAddress" | "ec2:DescribeAddresses" => {
                    body = with_content(&body, "publicIp", "127.0.0.1");
                    body = with_content(&body, "ipAddress", "127.0.0.1");
                }
                "ec2:GetConsoleOutput" => {
                    let console = format!(
                        "[    9.1] cloud-init[812]: -----BEGIN SSH HOST KEY KEYS-----\r\n{keys}\r\n\
                         -----END SSH HOST KEY KEYS-----\r\n"
                    );
                    body = with_content(&body, "output", &STANDARD.encode(console));
                }
                _ => {}
            }
        }
        Answer { body, ..answer }
    }

    /// How often this thing was seen in this state, this time included.
    fn look(&mut self, id: &str, state: &'static str) -> u32 {
        let looks = self.looks.entry((id.to_owned(), state)).or_default();
        *looks += 1;
        *looks
    }
}

/// With this text in every element of that name.
fn with_content(body: &str, element: &str, content: &str) -> String {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let mut pieces = body.split(&open);
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let rest = piece.split_once(&close).map_or(piece, |(_, rest)| rest);
        text.push_str(&format!("{open}{content}{close}{rest}"));
    }
    text
}
