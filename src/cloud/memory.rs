//! A cloud in a file, for the lab and for tests: several processes may open the same file. It keeps what matters of EC2:
//! states take their time, what is in use cannot be deleted, client tokens work only where the real API has them.

mod rules;
mod state;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use super::{
    AccessKey, Blocker, Class, Cloud, CloudError, Create, Denial, Image, ImageQuery, Kind, Offering, Resource, Tags,
    describe,
};
pub use state::{Fault, Settings, State, Stored};

/// A handle on the file; cheap to clone.
#[derive(Debug, Clone)]
pub struct MemoryCloud {
    path: Arc<PathBuf>,
}

impl MemoryCloud {
    /// Open the file, or make a new one (0600) with an empty account in it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, CloudError> {
        let cloud = Self { path: Arc::new(path.into()) };
        cloud.with_state(|_| ())?;
        Ok(cloud)
    }

    /// Read and change the whole account at once. Objects whose time has come are in their next state already.
    pub fn with_state<R>(&self, change: impl FnOnce(&mut State) -> R) -> Result<R, CloudError> {
        let broken = |why: String| CloudError::of(Class::Other, format!("memory cloud {}", self.path.display()), why);
        let io = |error: std::io::Error| broken(error.to_string());
        let private = |path: &Path| OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
        let lock: File = private(&self.beside("lock")).map_err(io)?;
        lock.lock().map_err(io)?;
        let mut state = match std::fs::read(self.path.as_ref()) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => State::default(),
            Err(error) => return Err(io(error)),
        };
        state.settle(jiff::Timestamp::now().as_millisecond());
        let result = change(&mut state);
        let bytes = serde_json::to_vec_pretty(&state).map_err(|error| broken(error.to_string()))?;
        let next = self.beside("next");
        let mut file = private(&next).map_err(io)?;
        file.set_len(0).and_then(|()| file.write_all(&bytes)).map_err(io)?;
        std::fs::rename(&next, self.path.as_ref()).map_err(io)?;
        Ok(result)
    }

    /// What the serial console of an instance shows from now on.
    pub fn set_console_output(&self, instance: &str, text: &str) -> Result<(), CloudError> {
        self.with_object(instance, |stored| text.clone_into(&mut stored.console))
    }

    /// Change a property behind the API's back.
    pub fn set_property(&self, id: &str, name: &str, value: &str) -> Result<(), CloudError> {
        self.with_object(id, |stored| {
            stored.resource.properties.insert(name.to_owned(), value.to_owned());
        })
    }

    fn with_object(&self, id: &str, change: impl FnOnce(&mut Stored)) -> Result<(), CloudError> {
        self.with_state(|state| state.objects.get_mut(id).map(change))?
            .ok_or_else(|| CloudError::of(Class::NotFound, "memory cloud", format!("there is no {id}")))
    }

    fn beside(&self, extension: &str) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".");
        name.push(extension);
        name.into()
    }

    /// The file may be locked by another process for a moment: not on the async threads.
    async fn off<R: Send + 'static>(
        &self,
        call: impl FnOnce(&mut State) -> Result<R, CloudError> + Send + 'static,
    ) -> Result<R, CloudError> {
        let cloud = self.clone();
        let ended = tokio::task::spawn_blocking(move || cloud.with_state(call)).await;
        ended.map_err(|error| CloudError::of(Class::Other, "memory cloud", error.to_string()))??
    }
}

#[async_trait]
impl Cloud for MemoryCloud {
    async fn whoami(&self) -> Result<String, CloudError> {
        self.off(|state| Ok(format!("arn:aws:iam::{}:user/bartizan", state.settings.account))).await
    }

    async fn zones(&self) -> Result<Vec<String>, CloudError> {
        self.off(|state| Ok(state.settings.zones())).await
    }

    async fn endpoint_services(&self) -> Result<Vec<String>, CloudError> {
        const SERVICES: [&str; 9] =
            ["ec2", "elasticfilesystem", "elasticloadbalancing", "kms", "logs", "s3", "ssm", "ssmmessages", "sts"];
        self.off(|state| {
            Ok(SERVICES.map(|service| format!("com.amazonaws.{}.{service}", state.settings.region)).to_vec())
        })
        .await
    }

    async fn create(&self, create: &Create) -> Result<Resource, CloudError> {
        let create = create.clone();
        self.off(move |state| {
            let fault = state.next_call(describe::create_name(create.kind))?;
            let made = state.create(&create)?;
            fault.map(|()| made)
        })
        .await
    }

    async fn get(&self, kind: Kind, id: &str) -> Result<Resource, CloudError> {
        let id = id.to_owned();
        self.off(move |state| {
            let volume = state.volumes().find(|volume| kind == Kind::Volume && volume.id == id);
            volume.map_or_else(|| state.get(kind, &id).map(|stored| stored.resource.clone()), Ok)
        })
        .await
    }

    async fn find(&self, kind: Kind, tags: &Tags) -> Result<Vec<Resource>, CloudError> {
        let tags = tags.clone();
        self.off(move |state| {
            let mut found: Vec<&Stored> = state
                .objects
                .values()
                .filter(|stored| stored.resource.kind == kind && !stored.resource.is_gone() && state.is_visible(stored))
                .filter(|stored| tags.iter().all(|(name, value)| stored.resource.tags.get(name) == Some(value)))
                .collect();
            found.sort_by_key(|stored| (stored.born_ms, stored.number));
            let found = found.into_iter().map(|stored| stored.resource.clone());
            let volumes = state.volumes().filter(|volume| {
                kind == Kind::Volume && tags.iter().all(|(name, value)| volume.tags.get(name) == Some(value))
            });
            Ok(found.chain(volumes).collect())
        })
        .await
    }

    async fn modify(&self, kind: Kind, id: &str, properties: &BTreeMap<String, String>) -> Result<(), CloudError> {
        let (id, properties) = (id.to_owned(), properties.clone());
        self.off(move |state| {
            for (name, value) in &properties {
                let call = describe::modify_name(kind, name, value.is_empty());
                let fault = state.next_call(call)?;
                state.modify(kind, &id, name, value, call)?;
                fault?;
            }
            Ok(())
        })
        .await
    }

    async fn delete(&self, kind: Kind, id: &str) -> Result<(), CloudError> {
        let id = id.to_owned();
        self.off(move |state| {
            let fault = state.next_call(describe::delete_name(kind))?;
            state.delete(kind, &id)?;
            fault
        })
        .await
    }

    async fn console_output(&self, instance: &str) -> Result<String, CloudError> {
        let id = instance.to_owned();
        self.off(move |state| state.get(Kind::Instance, &id).map(|stored| stored.console.clone())).await
    }

    async fn quota(&self, service: &str, code: &str) -> Result<Option<f64>, CloudError> {
        let quota = format!("{service}/{code}");
        self.off(move |state| Ok(state.settings.quotas.get(&quota).copied())).await
    }

    async fn offering(&self, instance_type: &str) -> Result<Offering, CloudError> {
        let instance_type = instance_type.to_owned();
        self.off(move |state| {
            let usual = || Offering {
                zones: state.settings.zones(),
                vcpus: 4,
                memory_mib: 16 * 1024,
                architectures: vec!["x86_64".into(), "arm64".into()],
            };
            Ok(state.settings.offerings.get(&instance_type).cloned().unwrap_or_else(usual))
        })
        .await
    }

    async fn image(&self, query: &ImageQuery) -> Result<Image, CloudError> {
        let image = |id: &str, name: &str, owner: &str, architecture: &str| Image {
            id: id.to_owned(),
            name: name.to_owned(),
            owner: owner.to_owned(),
            architecture: architecture.to_owned(),
            root_device: "/dev/xvda".into(),
            root_gib: 8,
        };
        Ok(match query {
            ImageQuery::Id(id) => image(id, id, "123456789012", "x86_64"),
            ImageQuery::Newest { owner, name, architecture } => {
                image("ami-0123456789abcdef0", &name.replace('*', "0"), owner, architecture)
            }
        })
    }

    async fn denied(&self, actions: &[&str]) -> Result<Vec<Denial>, CloudError> {
        let actions: Vec<String> = actions.iter().map(|action| (*action).to_owned()).collect();
        self.off(move |state| {
            let denied = actions.into_iter().filter(|action| state.settings.denied.contains(action));
            Ok(denied.map(|action| Denial { action, why: "no policy allows it".into() }).collect())
        })
        .await
    }

    async fn blockers(&self, vpc: &str) -> Result<Vec<Blocker>, CloudError> {
        let vpc = vpc.to_owned();
        self.off(move |state| {
            let all = state.objects.values().map(|stored| &stored.resource);
            let inside = all.filter(|resource| resource.property("VpcId") == Some(&vpc) && !resource.is_gone());
            let blocker = |resource: &Resource| Blocker {
                what: resource.kind.as_str().to_owned(),
                id: resource.id.clone(),
                name: resource.tags.get("Name").cloned().unwrap_or_default(),
            };
            Ok(inside.filter(|resource| resource.kind != Kind::HostedZone).map(blocker).collect())
        })
        .await
    }

    async fn create_access_key(&self, user: &str) -> Result<AccessKey, CloudError> {
        let user = user.to_owned();
        self.off(move |state| {
            let fault = state.next_call("iam:CreateAccessKey")?;
            let key = state.create_access_key(&user)?;
            fault.map(|()| key)
        })
        .await
    }

    async fn delete_access_key(&self, user: &str, id: &str) -> Result<(), CloudError> {
        let (user, id) = (user.to_owned(), id.to_owned());
        self.off(move |state| {
            let fault = state.next_call("iam:DeleteAccessKey")?;
            state.delete_access_key(&user, &id)?;
            fault
        })
        .await
    }
}
