//! What became of a bastion that nobody reaches any more: the cloud knows, and whoever watches is told while the run still
//! tries. Looks only; a stopped one is started by the step that makes it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::cloud::{Cloud, CloudError, Kind, Resource};
use crate::model::RunModel;
use crate::model::event::{Data, Level, LinkName, LinkState};
use crate::model::plan::StepId;
use crate::record::{Follower, Sink};

use super::world::fact;

/// Whose record a bastion is.
const STEP: &str = "02-bastion/machine";
/// What its findings are called.
const SIGNATURES: &str = "BASTION-";

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    /// Until a link that is down is worth a question.
    pub grace: Duration,
    /// Between two questions while it is down.
    pub every: Duration,
}

impl Default for Watch {
    fn default() -> Self {
        Self { grace: Duration::from_secs(20), every: Duration::from_secs(60) }
    }
}

/// What is known of the bastion and of the way to it.
#[derive(Default)]
struct Known {
    instance: Option<String>,
    address: Option<String>,
    /// Since when nobody reaches it.
    down: Option<Instant>,
    asked: Option<Instant>,
    /// What was said last.
    said: Option<String>,
    /// Findings of ours that are open.
    open: Vec<String>,
}

/// Starts the task. It ends when the run is no longer written.
pub fn start(
    cloud: Arc<dyn Cloud>,
    model: &RunModel,
    mut events: Follower,
    sink: Sink,
    watch: Watch,
) -> JoinHandle<()> {
    let text = |key: &str| model.fact(key).map(str::to_owned);
    let open = model.open_findings().into_iter().map(|record| &record.finding);
    let mut known = Known {
        instance: text(fact::BASTION_INSTANCE),
        address: text(fact::BASTION_ADDRESS),
        open: open.filter(|one| one.signature.starts_with(SIGNATURES)).map(|one| one.id.clone()).collect(),
        ..Known::default()
    };
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(watch.grace.min(watch.every).div_f32(4.0).max(Duration::from_millis(10)));
        loop {
            tokio::select! {
                event = events.next() => match event {
                    None => return,
                    Some(event) => match &event.data {
                        Data::RunClosed { .. } => return,
                        data => for told in known.hear(data) {
                            sink.emit(told).await;
                        },
                    },
                },
                _ = tick.tick() => if let Some(instance) = known.due(&watch) {
                    let found = cloud.get(Kind::Instance, &instance).await;
                    if let Some(told) = known.learn(&instance, found) {
                        sink.emit(told).await;
                    }
                },
            }
        }
    })
}

impl Known {
    /// What is to be said at once.
    fn hear(&mut self, data: &Data) -> Vec<Data> {
        match data {
            Data::Fact { key, value } if key == fact::BASTION_INSTANCE => self.instance = Some(value.clone()),
            Data::Fact { key, value } if key == fact::BASTION_ADDRESS => self.address = Some(value.clone()),
            Data::FindingOpened { finding } if finding.signature.starts_with(SIGNATURES) => {
                self.open.push(finding.id.clone());
            }
            Data::FindingCleared { finding, .. } => self.open.retain(|open| open != finding),
            Data::Link { link: LinkName::Ssh, state: LinkState::Down { .. } | LinkState::Retrying { .. } } => {
                self.down.get_or_insert_with(Instant::now);
            }
            Data::Link { link: LinkName::Ssh, state: LinkState::Up } => {
                (self.down, self.asked, self.said) = (None, None, None);
                let over = |finding: String| Data::FindingCleared { finding, because: "the bastion answers".into() };
                return self.open.drain(..).map(over).collect();
            }
            _ => {}
        }
        Vec::new()
    }

    /// The instance, when it is time to ask what became of it.
    fn due(&mut self, watch: &Watch) -> Option<String> {
        let long = self.down.is_some_and(|since| since.elapsed() >= watch.grace);
        let again = self.asked.is_none_or(|asked| asked.elapsed() >= watch.every);
        let instance = self.instance.clone().filter(|_| long && again)?;
        self.asked = Some(Instant::now());
        Some(instance)
    }

    /// What the cloud's answer is to whoever watches; the same is said once.
    fn learn(&mut self, instance: &str, found: Result<Resource, CloudError>) -> Option<Data> {
        let drift = |world_says: String| {
            let (step, record_says) = (StepId::new(STEP), "running".to_owned());
            Data::Drift { step, record_says, world_says }
        };
        let told = match found {
            Err(error) if error.is_not_found() => drift(format!("instance bastion ({instance}) is not there")),
            // The way to AWS may be down, too.
            Err(_) => return None,
            Ok(found) if !found.is_ready() => {
                let why = found.property("FailureReason").map_or_else(String::new, |why| format!(" ({why})"));
                drift(format!("instance bastion ({instance}) is {}{why}", found.state))
            }
            Ok(found) => {
                let now = found.property("PublicIpAddress").or(found.property("PrivateIpAddress")).unwrap_or_default();
                match self.address.as_deref() {
                    Some(was) if was != now && Some(was) != found.property("PrivateIpAddress") => {
                        drift(format!("{} was {was} and is {now}", fact::BASTION_ADDRESS))
                    }
                    _ => {
                        let text = format!(
                            "the bastion {instance} runs, and does not answer: look at its security group (is port 22 open \
                             to where you are now?), at the route of its subnet, and at its console"
                        );
                        Data::Note { level: Level::Warn, text }
                    }
                }
            }
        };
        let text = format!("{told:?}");
        (self.said.as_ref() != Some(&text)).then(|| {
            self.said = Some(text);
            told
        })
    }
}
