//! The account in the file, and what the calls do to it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::rules;
use crate::cloud::{AccessKey, Class, CloudError, Create, Kind, Offering, Resource, describe};
use crate::spec::Secret;
use crate::spec::cidr::Cidr;

/// Everything that is in the account.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct State {
    pub settings: Settings,
    /// How many objects were ever made.
    pub made: u64,
    /// How many changing calls were made.
    pub calls: u64,
    /// By the number of the changing call that they hit, from 1.
    pub faults: BTreeMap<u64, Fault>,
    /// By id.
    pub objects: BTreeMap<String, Stored>,
    /// Time of the call at hand, milliseconds since 1970.
    #[serde(default)]
    pub now_ms: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    pub account: String,
    pub region: String,
    /// What instances get as their public address; `None`: one of TEST-NET-3.
    pub public_ip: Option<String>,
    /// How long a quick change of state takes; slow ones (NAT gateways, endpoints) take three times as long.
    pub pace_ms: u64,
    /// New objects are not seen by `get` and `find` for so long.
    pub visible_after_ms: u64,
    /// What the quotas allow, by `vpc/L-F678F1CE`; those that do not stand here are not told.
    pub quotas: BTreeMap<String, f64>,
    /// Where instance types are to be had; those that do not stand here: everywhere, with 4 vCPUs and 16 GiB.
    pub offerings: BTreeMap<String, Offering>,
    /// Actions that the identity may not do.
    pub denied: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            account: "123456789012".into(),
            region: "us-east-2".into(),
            public_ip: None,
            pace_ms: 300,
            visible_after_ms: 0,
            quotas: BTreeMap::new(),
            offerings: BTreeMap::new(),
            denied: Vec::new(),
        }
    }
}

/// What goes wrong with one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// It took effect, but the answer never came.
    LostResponse,
    /// It never arrived.
    LostRequest,
    Throttle,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stored {
    pub resource: Resource,
    pub token: String,
    pub number: u64,
    pub born_ms: i64,
    /// The state to come, and when; an empty one means that the object leaves the lists.
    pub next: Option<(i64, String)>,
    pub console: String,
}

/// The answer never came.
fn unreachable(call: &str, why: &str) -> CloudError {
    CloudError::of(Class::Unreachable, call, why)
}

impl Settings {
    pub(super) fn zones(&self) -> Vec<String> {
        ["a", "b", "c"].map(|zone| format!("{}{zone}", self.region)).to_vec()
    }
}

impl State {
    /// Let the time pass until `now_ms`.
    pub(super) fn settle(&mut self, now_ms: i64) {
        self.now_ms = now_ms.max(self.now_ms);
        let now = self.now_ms;
        self.objects.retain(|_, stored| match &stored.next {
            Some((due, state)) if *due <= now => {
                let stays = !state.is_empty();
                stored.resource.state.clone_from(state);
                stored.next = None;
                stays
            }
            _ => true,
        });
    }

    /// Count a changing call. The outer error: it does not happen. The inner one: it happens, but says this.
    pub(super) fn next_call(&mut self, call: &str) -> Result<Result<(), CloudError>, CloudError> {
        self.calls += 1;
        match self.faults.get(&self.calls) {
            Some(Fault::LostResponse) => Ok(Err(unreachable(call, "the connection was reset before the answer"))),
            Some(Fault::LostRequest) => Err(unreachable(call, "the connection was refused")),
            Some(Fault::Throttle) => Err(CloudError::new(call, "RequestLimitExceeded", "")),
            None => Ok(Ok(())),
        }
    }

    pub(super) fn is_visible(&self, stored: &Stored) -> bool {
        let after = i64::try_from(self.settings.visible_after_ms).unwrap_or(i64::MAX);
        self.now_ms.saturating_sub(stored.born_ms) >= after
    }

    pub(super) fn get(&self, kind: Kind, id: &str) -> Result<&Stored, CloudError> {
        self.objects
            .get(id)
            .filter(|stored| stored.resource.kind == kind && self.is_visible(stored))
            .ok_or_else(|| rules::not_found(describe::get_name(kind), kind, id))
    }

    pub(super) fn create(&mut self, create: &Create) -> Result<Resource, CloudError> {
        let call = describe::create_name(create.kind);
        let earlier = self.objects.values().find(|stored| {
            let same = stored.resource.kind == create.kind;
            let token = create.kind.has_token() && !create.token.is_empty() && stored.token == create.token;
            let pair = create.kind == Kind::RouteTableAssociation && stored.resource.properties == create.properties;
            same && (token || pair)
        });
        if let Some(earlier) = earlier {
            return Ok(earlier.resource.clone());
        }
        match rules::may_create(self, create, call) {
            Err(error) if error.class == Class::Exists => {
                let ours = self.objects.values().map(|stored| &stored.resource).find(|resource| create.is(resource));
                return ours.cloned().ok_or(error);
            }
            other => other?,
        }
        self.made += 1;
        let mut resource = Resource {
            kind: create.kind,
            id: self.new_id(create),
            state: "available".into(),
            tags: if create.kind == Kind::RouteTableAssociation { BTreeMap::new() } else { create.tags.clone() },
            properties: create.properties.clone(),
        };
        let next = match create.kind {
            Kind::Vpc | Kind::Subnet | Kind::Volume => Some(("pending", 1, "available")),
            Kind::VpcEndpoint | Kind::NatGateway | Kind::LoadBalancer => Some(("pending", 3, "available")),
            Kind::Instance => Some(("pending", 2, "running")),
            _ => None,
        };
        let subnet = create.properties.get("SubnetId").and_then(|id| self.objects.get(id));
        if let Some(vpc) = subnet.and_then(|subnet| subnet.resource.property("VpcId"))
            && create.kind != Kind::RouteTableAssociation
        {
            resource.properties.insert("VpcId".into(), vpc.to_owned());
        }
        if create.kind == Kind::Instance {
            self.address(&mut resource, call)?;
        }
        if create.kind == Kind::ElasticIp {
            resource.properties.insert("PublicIpAddress".into(), self.public_address());
        }
        let next = next.map(|(first, paces, then)| {
            first.clone_into(&mut resource.state);
            (self.in_paces(paces), then.to_owned())
        });
        let stored = Stored {
            resource: resource.clone(),
            token: create.token.clone(),
            number: self.made,
            born_ms: self.now_ms,
            next,
            console: String::new(),
        };
        self.objects.insert(resource.id.clone(), stored);
        Ok(resource)
    }

    /// Give an instance its addresses.
    fn address(&self, instance: &mut Resource, call: &str) -> Result<(), CloudError> {
        let subnet_id = instance.property("SubnetId").unwrap_or_default().to_owned();
        let subnet = self.objects.get(&subnet_id).map(|stored| &stored.resource.properties);
        let block = subnet.and_then(|properties| properties.get("CidrBlock")?.parse::<Cidr>().ok());
        let taken: Vec<&str> =
            self.objects.values().filter_map(|stored| stored.resource.property("PrivateIpAddress")).collect();
        // AWS keeps the first four addresses of a subnet.
        let address = block
            .and_then(|block| {
                (10..).map_while(|index| block.address(index)).find(|ip| !taken.contains(&&*ip.to_string()))
            })
            .ok_or_else(|| CloudError::new(call, "InsufficientFreeAddressesInSubnet", &subnet_id))?;
        let properties = &mut instance.properties;
        let dns = format!("ip-{}.{}.compute.internal", address.to_string().replace('.', "-"), self.settings.region);
        properties.insert("PrivateIpAddress".into(), address.to_string());
        properties.insert("PrivateDnsName".into(), dns);
        if properties.get("AssociatePublicIpAddress").is_some_and(|wanted| wanted == "true") {
            properties.insert("PublicIpAddress".into(), self.public_address());
        }
        Ok(())
    }

    fn public_address(&self) -> String {
        self.settings.public_ip.clone().unwrap_or_else(|| format!("203.0.113.{}", 1 + self.made % 250))
    }

    pub(super) fn modify(
        &mut self,
        kind: Kind,
        id: &str,
        name: &str,
        value: &str,
        call: &str,
    ) -> Result<(), CloudError> {
        if kind == Kind::Volume {
            return self.resize(id, name, value, call);
        }
        self.get(kind, id)?;
        rules::may_modify(self, kind, id, name, value, call)?;
        if kind == Kind::Instance && name == "State" {
            return self.switch(id, value);
        }
        if let Some(stored) = self.objects.get_mut(id) {
            if value.is_empty() {
                stored.resource.properties.remove(name);
            } else {
                stored.resource.properties.insert(name.to_owned(), value.to_owned());
            }
        }
        Ok(())
    }

    /// Volumes that come and go with their instances.
    pub(super) fn volumes(&self) -> impl Iterator<Item = Resource> {
        let instances = self.objects.values().map(|stored| &stored.resource);
        instances.filter(|resource| resource.kind == Kind::Instance && !resource.is_gone()).filter_map(|instance| {
            let size = instance.property("RootVolumeSize")?;
            let properties = [("Size", size), ("InstanceId", instance.id.as_str())];
            Some(Resource {
                kind: Kind::Volume,
                id: volume_of(&instance.id),
                state: "in-use".into(),
                tags: instance.tags.clone(),
                properties: properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            })
        })
    }

    /// A volume can only become larger.
    fn resize(&mut self, id: &str, name: &str, value: &str, call: &str) -> Result<(), CloudError> {
        let instances = self.objects.values_mut().map(|stored| &mut stored.resource);
        let instance = instances.into_iter().find(|one| one.kind == Kind::Instance && volume_of(&one.id) == id);
        let instance = instance.ok_or_else(|| rules::not_found(call, Kind::Volume, id))?;
        let gib = |text: &str| text.parse::<u64>().ok();
        let now = instance.property("RootVolumeSize").and_then(gib).unwrap_or(0);
        if name != "Size" || gib(value).is_none_or(|next| next < now) {
            return Err(CloudError::new(call, "InvalidParameterValue", format!("{name}={value}")));
        }
        instance.properties.insert("RootVolumeSize".into(), value.to_owned());
        Ok(())
    }

    /// Starts, stops, or starts again. A machine that starts again stays `running`; how often is counted. One that was
    /// stopped has another public address afterwards.
    fn switch(&mut self, id: &str, to: &str) -> Result<(), CloudError> {
        let (due, public) = (self.in_paces(2), self.public_address());
        let Some(stored) = self.objects.get_mut(id) else { return Ok(()) };
        let (now, next) = match to {
            "rebooting" => {
                let times =
                    stored.resource.property("Reboots").and_then(|times| times.parse::<u64>().ok()).unwrap_or(0);
                stored.resource.properties.insert("Reboots".into(), (times + 1).to_string());
                return Ok(());
            }
            "running" => ("pending", "running"),
            _ => ("stopping", "stopped"),
        };
        let properties = &mut stored.resource.properties;
        if next == "stopped" {
            properties.remove("PublicIpAddress");
        } else if properties.get("AssociatePublicIpAddress").is_some_and(|wanted| wanted == "true") {
            properties.insert("PublicIpAddress".into(), public);
        }
        now.clone_into(&mut stored.resource.state);
        stored.next = Some((due, next.to_owned()));
        Ok(())
    }

    pub(super) fn delete(&mut self, kind: Kind, id: &str) -> Result<(), CloudError> {
        let call = describe::delete_name(kind);
        let stored = self.objects.get(id).filter(|stored| stored.resource.kind == kind);
        let stored = stored.ok_or_else(|| rules::not_found(call, kind, id))?;
        if stored.resource.is_gone() || matches!(stored.resource.state.as_str(), "deleting" | "shutting-down") {
            return Ok(());
        }
        rules::may_delete(self, &stored.resource, call)?;
        let next = match kind {
            Kind::Instance => Some(("shutting-down", 2, "terminated")),
            Kind::NatGateway => Some(("deleting", 3, "deleted")),
            Kind::VpcEndpoint | Kind::LoadBalancer => Some(("deleting", 3, "")),
            _ => None,
        };
        let Some((first, paces, then)) = next else {
            self.objects.remove(id);
            // A subnet's association goes with it.
            self.objects.retain(|_, other| {
                other.resource.kind != Kind::RouteTableAssociation || other.resource.property("SubnetId") != Some(id)
            });
            return Ok(());
        };
        let due = self.in_paces(paces);
        if let Some(stored) = self.objects.get_mut(id) {
            first.clone_into(&mut stored.resource.state);
            stored.next = Some((due, then.to_owned()));
        }
        Ok(())
    }

    pub(super) fn create_access_key(&mut self, user: &str) -> Result<AccessKey, CloudError> {
        let call = "iam:CreateAccessKey";
        self.made += 1;
        let id = format!("AKIA{:016X}", self.made.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let stored = self.objects.get_mut(user).filter(|stored| stored.resource.kind == Kind::User);
        let stored = stored.ok_or_else(|| rules::not_found(call, Kind::User, user))?;
        let keys = stored.resource.properties.entry("AccessKeyIds".into()).or_default();
        if keys.split(',').filter(|key| !key.is_empty()).count() >= 2 {
            return Err(CloudError::new(call, "LimitExceeded", "Cannot exceed quota for AccessKeysPerUser: 2"));
        }
        *keys = [keys.as_str(), &id].iter().filter(|key| !key.is_empty()).copied().collect::<Vec<_>>().join(",");
        // Nothing takes it, so it need not be kept.
        Ok(AccessKey { secret: Secret::new(format!("{id}/secret/of/{user}")), id })
    }

    pub(super) fn delete_access_key(&mut self, user: &str, id: &str) -> Result<(), CloudError> {
        let stored = self.objects.get_mut(user).filter(|stored| stored.resource.kind == Kind::User);
        let stored = stored.ok_or_else(|| rules::not_found("iam:DeleteAccessKey", Kind::User, user))?;
        if let Some(keys) = stored.resource.properties.get_mut("AccessKeyIds") {
            *keys = keys.split(',').filter(|key| *key != id).collect::<Vec<_>>().join(",");
        }
        Ok(())
    }

    fn in_paces(&self, paces: u64) -> i64 {
        let wait = i64::try_from(self.settings.pace_ms.saturating_mul(paces)).unwrap_or(i64::MAX);
        self.now_ms.saturating_add(wait)
    }

    fn new_id(&self, create: &Create) -> String {
        // Spread over all digits, as real ids are.
        let digits = self.made.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let prefix = match create.kind {
            Kind::Bucket => return create.properties.get("Bucket").cloned().unwrap_or_default(),
            Kind::User => return create.properties.get("UserName").cloned().unwrap_or_default(),
            Kind::Policy => {
                let part = |name: &str| create.properties.get(name).map_or("", String::as_str);
                let account = &self.settings.account;
                return format!("arn:aws:iam::{account}:policy{}{}", part("Path"), part("PolicyName"));
            }
            Kind::HostedZone => return format!("Z0{digits:016X}"),
            kind => rules::id_prefix(kind),
        };
        format!("{prefix}0{digits:016x}")
    }
}

fn volume_of(instance: &str) -> String {
    instance.replacen("i-", "vol-", 1)
}
