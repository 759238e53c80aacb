//! The bastion: made from its blueprint, with its host keys read from the console so that nobody has to trust the first
//! answer on port 22.

use std::collections::BTreeMap;

pub use super::blueprint::BastionInputs;
use super::blueprint::{self, Made, bastion_address_name, bastion_name, image_query};
use super::ledger::{Ledger, LedgerError};
use super::survey::Survey;
use super::userdata::{self, FirstBoot, HostKeyPair};
use super::vpc::Network;
use super::{Image, ImageQuery, Kind, ingress};
use crate::model::event::{Action, Object};
use crate::spec::Spec;
use crate::spec::validate::is_graviton;

/// A bastion that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bastion {
    pub instance: String,
    pub private_ip: String,
    pub public_ip: Option<String>,
    /// Of the private zone that holds the mirror's name, for a managed mirror.
    pub hosted_zone: Option<String>,
}

impl Bastion {
    /// Where the operator reaches it.
    pub fn address(&self) -> &str {
        self.public_ip.as_deref().unwrap_or(&self.private_ip)
    }
}

/// Its machine in the record.
pub fn object(spec: &Spec) -> Object {
    Object { kind: Kind::Instance.as_str().to_owned(), name: bastion_name(spec) }
}

/// The recorded bastion, running again if somebody has stopped it; `None` when it is not there any more.
///
/// # Errors
/// When the cloud cannot be asked, or the machine does not come up.
pub async fn wake(ledger: &Ledger, spec: &Spec) -> Result<Option<Bastion>, LedgerError> {
    let Some(machine) = ledger.wake(&object(spec)).await? else { return Ok(None) };
    let mut made = Made::from([(bastion_name(spec), machine)]);
    let name = bastion_address_name(spec);
    let address = Object { kind: Kind::ElasticIp.as_str().to_owned(), name: name.clone() };
    if let Some(id) = ledger.record(&address).filter(|record| record.gone.is_none()).and_then(|record| record.id) {
        made.insert(name, ledger.look_once(Kind::ElasticIp, &id).await?);
    }
    Ok(bastion_of(spec, &made))
}

impl BastionInputs {
    /// In the first public subnet, or in the first private one where there is none.
    pub fn new(network: &Network, operator_cidr: &str, public_key: &str) -> Result<Self, LedgerError> {
        let public = network.public_subnets.first();
        let (subnet, _) = public
            .or(network.private_subnets.first())
            .ok_or_else(|| LedgerError::Unfit(format!("{} has no subnet for the bastion", network.vpc)))?;
        Ok(Self {
            operator_cidr: operator_cidr.to_owned(),
            public_key: public_key.trim().to_owned(),
            vpc: network.vpc.clone(),
            vpc_cidr: network.vpc_cidr.clone(),
            subnet: subnet.clone(),
            public: public.is_some(),
            image: None,
            user_data: None,
        })
    }

    /// What the machine is told at its first boot.
    ///
    /// # Errors
    /// When EC2 would not take it.
    pub fn tell(mut self, spec: &Spec, host_key: Option<&HostKeyPair>) -> Result<Self, LedgerError> {
        let boot = FirstBoot { user: spec.bastion_user(), authorized_key: &self.public_key, host_key };
        let text = userdata::render(spec.bastion.os, &boot).map_err(|error| LedgerError::Unfit(error.to_string()))?;
        self.user_data = Some(text);
        Ok(self)
    }
}

/// The calls that [`ensure_bastion`] would make; nothing for a bastion that is there.
pub fn preview(spec: &Spec) -> Vec<Action> {
    if spec.bastion.host.is_some() {
        return Vec::new();
    }
    let looks = std::iter::once(Action::Api { call: format!("ec2:DescribeImages {}", asked(&image_query(spec))) });
    looks.chain(blueprint::preview(&blueprint::bastion(spec, &BastionInputs::assumed(spec)))).collect()
}

fn asked(query: &ImageQuery) -> String {
    match query {
        ImageQuery::Id(id) => id.clone(),
        ImageQuery::Newest { owner, name, .. } => format!("Owner={owner} Name={name}"),
    }
}

/// The image that the spec asks for.
///
/// # Errors
/// When there is none, or when the machine could not run it.
pub async fn image(ledger: &Ledger, spec: &Spec) -> Result<Image, LedgerError> {
    let query = image_query(spec);
    let call = format!("ec2:DescribeImages {}", asked(&query));
    let image = ledger.quietly(&call, || ledger.cloud.image(&query)).await?;
    let wanted = if is_graviton(&spec.bastion.instance_type) { "arm64" } else { "x86_64" };
    if image.architecture != wanted {
        let (id, has, machine) = (&image.id, &image.architecture, &spec.bastion.instance_type);
        return Err(LedgerError::Unfit(format!("{id} is for {has}, and bastion.instance_type {machine} is {wanted}")));
    }
    Ok(image)
}

/// Make what is missing of the bastion and wait until it runs. That it answers on port 22 is not known yet.
pub async fn ensure_bastion(ledger: &Ledger, spec: &Spec, inputs: &BastionInputs) -> Result<Bastion, LedgerError> {
    let mut inputs = inputs.clone();
    if inputs.image.is_none() {
        inputs.image = Some(image(ledger, spec).await?);
    }
    if inputs.user_data.is_none() {
        inputs = inputs.tell(spec, None)?;
    }
    let mut made = Made::new();
    ledger.apply(&blueprint::bastion(spec, &inputs), &mut made).await?;
    shut_behind_the_operator(ledger, &made, &inputs.operator_cidr).await?;
    let name = bastion_name(spec);
    bastion_of(spec, &made).ok_or_else(|| LedgerError::Unfit(format!("{name} is not there")))
}

/// Where the operator was before, port 22 is open no more. Rules of others stay.
async fn shut_behind_the_operator(ledger: &Ledger, made: &Made, operator_cidr: &str) -> Result<(), LedgerError> {
    let now = ingress("tcp", 22, operator_cidr);
    for group in made.values().filter(|resource| resource.kind == Kind::SecurityGroup) {
        let past = |(name, words): &(&String, &String)| {
            **name != now && name.starts_with("Ingress tcp/22 ") && *words == blueprint::FROM_THE_OPERATOR
        };
        let past: BTreeMap<_, _> =
            group.properties.iter().filter(past).map(|(name, _)| (name.clone(), String::new())).collect();
        if !past.is_empty() {
            ledger.change(group.kind, &group.id, &past).await?;
        }
    }
    Ok(())
}

/// What is there of the bastion; the bastion itself when that is all of it. Changes nothing.
pub async fn survey_bastion(
    ledger: &Ledger,
    spec: &Spec,
    inputs: &BastionInputs,
) -> Result<(Option<Bastion>, Survey), LedgerError> {
    let survey = ledger.survey(&blueprint::bastion(spec, inputs)).await?;
    let bastion = if survey.is_complete() { bastion_of(spec, &survey.made) } else { None };
    Ok((bastion, survey))
}

fn bastion_of(spec: &Spec, made: &Made) -> Option<Bastion> {
    let name = bastion_name(spec);
    let instance = made.get(&name)?;
    let elastic = made.get(&bastion_address_name(spec)).and_then(|address| address.property("PublicIpAddress"));
    Some(Bastion {
        instance: instance.id.clone(),
        private_ip: instance.property("PrivateIpAddress").unwrap_or_default().to_owned(),
        public_ip: elastic.or(instance.property("PublicIpAddress")).map(str::to_owned),
        hosted_zone: made.get(&format!("{name}-zone")).map(|zone| zone.id.clone()),
    })
}

/// The host keys that cloud-init prints on the console, as `ssh-ed25519 AAAA…`, the newest boot's last. Empty until they are
/// there.
///
/// They stand between `-----BEGIN SSH HOST KEY KEYS-----` and `-----END SSH HOST KEY KEYS-----`
/// (cloud-init, `cloudinit/config/cc_ssh_authkey_fingerprints.py` and `tools/write-ssh-key-fingerprints`), with what the
/// console puts before each line.
pub fn host_keys_from_console(console: &str) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    let mut inside = false;
    for line in console.lines() {
        if line.contains("-----BEGIN SSH HOST KEY KEYS-----") {
            // Another boot: the keys of the one before may be out of date.
            keys.clear();
            inside = true;
        } else if line.contains("-----END SSH HOST KEY KEYS-----") {
            inside = false;
        } else if inside {
            let words: Vec<&str> = line.split_whitespace().collect();
            let key =
                words.windows(2).map(|pair| pair.join(" ")).find(|key| ssh_key::PublicKey::from_openssh(key).is_ok());
            keys.extend(key);
        }
    }
    keys
}
