//! One step of the pipeline at a time, with a real record: for what a whole run would be too long a way to.

use std::sync::Arc;

use bartizan::cloud::Cloud;
use bartizan::engine::{Probe, StepCx, StepError};
use bartizan::host::ssh::SshPool;
use bartizan::model::RunModel;
use bartizan::model::event::{ClusterName, Data, Evidence, FORMAT};
use bartizan::model::plan::StepId;
use bartizan::record::{Follower, Hub, Recorder};
use bartizan::registry::Net;
use bartizan::spec::secrets::Secrets;
use bartizan::spec::{Secret, Spec};
use bartizan::stages::{World, plan, steps};
use tokio_util::sync::CancellationToken;

pub struct Stage {
    world: Arc<World>,
    hub: Hub,
    _dir: tempfile::TempDir,
}

impl Stage {
    /// A run that has just begun. `change`: what else is to be in its world.
    pub async fn new(spec: Spec, cloud: Option<Arc<dyn Cloud>>, change: impl FnOnce(&mut World)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let hub = Hub::start(Recorder::open(dir.path()).expect("a record"));
        let cluster = ClusterName {
            name: spec.cluster.name.clone(),
            base_domain: spec.cluster.base_domain.clone(),
            version: spec.release.version.clone(),
            region: spec.aws.region.clone(),
        };
        let opened = Data::RunOpened {
            format: FORMAT,
            run: "20261121-090000-1a2b".into(),
            bartizan: "0".into(),
            cluster,
            spec_digest: String::new(),
            plan: plan().expect("the plan"),
            operator: "test".into(),
        };
        hub.sink().commit(opened).await;
        let mut world = World {
            spec,
            secrets: Secrets { pull_secret: Secret::new("{}"), mirror_password: None },
            mirror_password: Secret::new("the-mirrors-password"),
            mirror_ca_key: bartizan::stages::certificate::new_ca_key().expect("a key"),
            proxy_password: None,
            host_key: None,
            run_dir: dir.path().to_owned(),
            cloud,
            ssh: SshPool::new(&dir.path().join("ssh")).expect("a pool"),
            net: Net::default(),
            tap: tokio::sync::mpsc::channel(64).0,
            live: tokio::sync::Mutex::new(None),
        };
        change(&mut world);
        Self { world: Arc::new(world), hub, _dir: dir }
    }

    pub async fn record(&self, data: Data) {
        self.hub.sink().commit(data).await;
    }

    /// Everything that is recorded, from now on too.
    pub async fn follow(&self) -> (RunModel, Follower) {
        self.hub.follow().await
    }

    pub async fn know(&self, facts: &[(&str, &str)]) {
        for (key, value) in facts {
            self.record(Data::Fact { key: (*key).to_owned(), value: (*value).to_owned() }).await;
        }
    }

    pub async fn model(&self) -> Arc<RunModel> {
        self.hub.sink().model().await
    }

    pub async fn cx(&self, step: &str) -> StepCx<World> {
        StepCx {
            world: self.world.clone(),
            step: StepId::new(step),
            attempt: 1,
            sink: self.hub.sink(),
            cancel: CancellationToken::new(),
            model: self.model().await,
        }
    }

    pub async fn probe(&self, step: &str) -> Result<Probe, StepError> {
        steps()[&StepId::new(step)].probe(&self.cx(step).await).await
    }

    /// As the engine does: probe, run, verify.
    pub async fn once(&self, step: &str) -> Result<Vec<Evidence>, StepError> {
        match self.probe(step).await? {
            Probe::True(evidence) => return Ok(evidence),
            Probe::NotApplicable(why) => panic!("{step}: {why}"),
            Probe::Missing(_) => {}
        }
        let one = &steps()[&StepId::new(step)];
        one.run(&self.cx(step).await).await?;
        one.verify(&self.cx(step).await).await
    }
}
