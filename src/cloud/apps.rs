//! The record `*.apps` in the cluster's private zone. An ingress operator without a way to Route 53 cannot write it, so it
//! is written from outside as soon as the router's load balancer has a name, and taken away before the cluster is
//! destroyed. (openshift/release does the same in `ipi-install-install-aws`.)

use std::collections::BTreeMap;

use super::ledger::{Ledger, LedgerError};
use super::permissions::partition;
use super::{Kind, Resource, Tags, alias, cname, describe};
use crate::model::event::{Data, Evidence, Object};
use crate::spec::Spec;

/// The wildcard of a cluster.
pub fn name(spec: &Spec) -> String {
    format!("*.apps.{}", spec.domain())
}

/// As the record of the run has it: each cluster has its own zone.
pub fn object(spec: &Spec, infra_id: &str) -> Object {
    Object { kind: "dns-record".into(), name: format!("{} of {infra_id}", name(spec)) }
}

fn owned(infra_id: &str) -> Tags {
    Tags::from([(format!("kubernetes.io/cluster/{infra_id}"), "owned".to_owned())])
}

/// Names of hosts have no case, zones may end in a dot, and the record of a balancer may say that it has two families.
fn same_host(one: &str, other: &str) -> bool {
    let plain = |text: &str| {
        let text = text.trim_end_matches('.').to_ascii_lowercase();
        text.strip_prefix("dualstack.").map_or(text.clone(), str::to_owned)
    };
    plain(one) == plain(other)
}

impl Ledger {
    /// The private zone that the installer made, if it stands.
    async fn zone(&self, spec: &Spec, infra_id: &str) -> Result<Option<Resource>, LedgerError> {
        let call = format!("{} Tag:kubernetes.io/cluster/{infra_id}=owned", describe::get_name(Kind::HostedZone));
        let tags = owned(infra_id);
        let zones = self.quietly(&call, || self.caller.cloud.find(Kind::HostedZone, &tags)).await?;
        let domain = spec.domain();
        Ok(zones.into_iter().find(|zone| zone.property("Name").is_some_and(|name| same_host(name, &domain))))
    }

    /// The record for a load balancer: one that follows its addresses where AWS offers that for private zones, else a name
    /// for its name.
    async fn record_for(&self, spec: &Spec, infra_id: &str, host: &str) -> Result<(String, String), LedgerError> {
        let name = name(spec);
        if partition(&spec.aws.region) != "aws-us-gov" {
            let call = format!("{} Tag:kubernetes.io/cluster/{infra_id}", describe::get_name(Kind::LoadBalancer));
            let tags = owned(infra_id);
            let found = self.quietly(&call, || self.caller.cloud.find(Kind::LoadBalancer, &tags)).await?;
            let balancer = found.iter().find(|one| one.property("DNSName").is_some_and(|dns| same_host(dns, host)));
            if let Some(zone) = balancer.and_then(|balancer| balancer.property("CanonicalHostedZoneId")) {
                return Ok((alias(&name), format!("{zone} {}", host.to_ascii_lowercase())));
            }
        }
        Ok((cname(&name), host.to_owned()))
    }

    /// Let `*.apps` lead to the router's load balancer.
    ///
    /// # Errors
    /// When the zone is not there, or Route 53 refuses.
    pub async fn write_apps(&self, spec: &Spec, infra_id: &str, host: &str) -> Result<(), LedgerError> {
        let object = object(spec, infra_id);
        let mut zone = self.zone(spec, infra_id).await?.ok_or_else(|| {
            LedgerError::Unfit(format!("there is no private zone {} that belongs to {infra_id}", spec.domain()))
        })?;
        let (property, value) = self.record_for(spec, infra_id, host).await?;
        self.sink.commit(Data::Intent { object: object.clone() }).await;
        let stale: Vec<String> =
            records(&zone, spec).filter(|(other, _)| *other != property).map(|(other, _)| other.to_owned()).collect();
        if !stale.is_empty() {
            // A name has a CNAME or an A record, never both.
            let undone: BTreeMap<String, String> = stale.into_iter().map(|other| (other, String::new())).collect();
            let call = describe::modify(Kind::HostedZone, &zone.id, &undone).join("; ");
            self.retrying(&call, || self.caller.cloud.modify(Kind::HostedZone, &zone.id, &undone)).await?;
        }
        self.amend(&mut zone, &BTreeMap::from([(property.clone(), value)])).await?;
        self.sink.commit(Data::Created { object, id: format!("{}/{}", zone.id, name(spec)) }).await;
        Ok(())
    }

    /// What Route 53 has for `*.apps`; nothing when it is not there, or leads elsewhere than to `host`.
    ///
    /// # Errors
    /// When Route 53 could not be asked.
    pub async fn read_apps(&self, spec: &Spec, infra_id: &str, host: &str) -> Result<Option<Evidence>, LedgerError> {
        let Some(zone) = self.zone(spec, infra_id).await? else { return Ok(None) };
        let found = records(&zone, spec).find(|(_, value)| {
            // An alias has the balancer's zone before its name.
            value.rsplit(' ').next().is_some_and(|target| same_host(target, host))
        });
        let asked = format!("route53:ListResourceRecordSets {} {}", zone.id, name(spec));
        Ok(found.map(|(property, value)| Evidence::new(asked, format!("{property} → {value}"))))
    }

    /// Take the record away, and say how that is known.
    ///
    /// # Errors
    /// When Route 53 could not be asked, or refuses.
    pub async fn remove_apps(&self, spec: &Spec, infra_id: &str) -> Result<String, LedgerError> {
        let object = object(spec, infra_id);
        let mut proof = format!("there is no private zone {} of {infra_id}", spec.domain());
        if let Some(zone) = self.zone(spec, infra_id).await? {
            let undone: BTreeMap<String, String> =
                records(&zone, spec).map(|(property, _)| (property.to_owned(), String::new())).collect();
            if !undone.is_empty() {
                let call = describe::modify(Kind::HostedZone, &zone.id, &undone).join("; ");
                self.retrying(&call, || self.caller.cloud.modify(Kind::HostedZone, &zone.id, &undone)).await?;
            }
            let left = self.look_once(Kind::HostedZone, &zone.id).await?;
            if records(&left, spec).next().is_some() {
                let why = format!("{} still has {}", zone.id, name(spec));
                return Err(LedgerError::Blocked { what: object.name, why });
            }
            proof = format!("{} has no {}", zone.id, name(spec));
        }
        let id = self.record(&object).and_then(|record| record.id).unwrap_or_default();
        self.sink.commit(Data::Gone { object, id, proof: proof.clone() }).await;
        Ok(proof)
    }
}

/// What a zone has for `*.apps`: property and value.
fn records<'z>(zone: &'z Resource, spec: &Spec) -> impl Iterator<Item = (&'z str, &'z str)> {
    let names = [super::record(&name(spec)), alias(&name(spec)), cname(&name(spec))];
    zone.properties
        .iter()
        .filter(move |(property, _)| names.contains(property))
        .map(|(property, value)| (property.as_str(), value.as_str()))
}
