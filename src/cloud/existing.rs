//! A network that is somebody else's. It is looked at with everything that the installer, the nodes and the bastion will
//! need of it, and all that is wrong is said at once. Nothing of it is changed; endpoints are made in it only when the
//! spec names them.

use std::collections::BTreeMap;

use super::blueprint::{Item, Place, endpoints, interface_endpoints, service_name};
use super::ledger::{Ledger, LedgerError};
use super::vpc::Network;
use super::{Kind, Resource, Tags, describe, route};
use crate::spec::cidr::Cidr;
use crate::spec::subnets::{free, needed};
use crate::spec::{ExistingNetwork, NetworkVariant, Spec};

/// From this minor version on the installer minds the other subnets of a VPC.
const MINDS_OTHERS: u32 = 19;
const CLUSTER_TAG: &str = "kubernetes.io/cluster/";

/// What was seen of an existing VPC.
#[derive(Debug, Clone)]
pub struct Seen {
    pub vpc: Resource,
    /// All subnets of the VPC, by id.
    pub subnets: BTreeMap<String, Resource>,
    pub tables: Vec<Resource>,
    pub associations: Vec<Resource>,
    /// Those that are not on their way out.
    pub endpoints: Vec<Resource>,
}

impl Seen {
    /// Look at the VPC and at what is in it.
    ///
    /// # Errors
    /// When the cloud cannot be asked, or there is no such VPC.
    pub async fn look(ledger: &Ledger, existing: &ExistingNetwork) -> Result<Self, LedgerError> {
        let vpc = ledger.look_once(Kind::Vpc, &existing.vpc_id).await?;
        let all = |kind: Kind| {
            ledger.quietly(describe::get_name(kind), move || async move { ledger.cloud.find(kind, &Tags::new()).await })
        };
        let inside = |found: Vec<Resource>| {
            found.into_iter().filter(|one| one.property("VpcId") == Some(&existing.vpc_id) && !one.is_over())
        };
        let subnets = inside(all(Kind::Subnet).await?).map(|subnet| (subnet.id.clone(), subnet)).collect();
        let tables = inside(all(Kind::RouteTable).await?).collect();
        let endpoints = inside(all(Kind::VpcEndpoint).await?).collect();
        let associations = all(Kind::RouteTableAssociation).await?;
        Ok(Self { vpc, subnets, tables, associations, endpoints })
    }

    /// The table that decides for a subnet: its own, else the VPC's main one.
    pub fn table_of(&self, subnet: &str) -> Option<&Resource> {
        let own = self.associations.iter().find(|one| one.property("SubnetId") == Some(subnet));
        let own = own.and_then(|one| one.property("RouteTableId"));
        self.tables.iter().find(|table| match own {
            Some(id) => table.id == id,
            None => table.property("Main") == Some("true"),
        })
    }

    fn default_route(&self, subnet: &str) -> Option<&str> {
        self.table_of(subnet)?.property(&route("0.0.0.0/0"))
    }

    fn endpoint(&self, spec: &Spec, service: &str) -> Option<&Resource> {
        let name = service_name(spec, service);
        // Between several, one that does what is needed counts.
        let fits = |one: &&Resource| (one.property("VpcEndpointType") == Some("Gateway")) == (service == "s3");
        let mut all = self.endpoints.iter().filter(|one| one.property("ServiceName") == Some(&name));
        all.clone().find(fits).or_else(|| all.next())
    }

    fn zone(&self, subnet: &str) -> &str {
        self.subnets.get(subnet).and_then(|subnet| subnet.property("AvailabilityZone")).unwrap_or_default()
    }

    /// The network for the later stages.
    pub fn network(&self, existing: &ExistingNetwork) -> Network {
        let placed = |ids: &[String]| ids.iter().map(|id| (id.clone(), self.zone(id).to_owned())).collect();
        Network {
            vpc: self.vpc.id.clone(),
            vpc_cidr: self.vpc.property("CidrBlock").unwrap_or_default().to_owned(),
            private_subnets: placed(&existing.private_subnets),
            public_subnets: placed(&existing.public_subnets),
        }
    }

    /// Everything that stands in the way of an installation, one sentence each.
    pub fn complaints(&self, spec: &Spec, existing: &ExistingNetwork) -> Vec<String> {
        let mut complaints = Vec::new();
        self.attributes(spec, &mut complaints);
        self.placement(spec, existing, &mut complaints);
        self.routes(spec, existing, &mut complaints);
        self.services(spec, existing, &mut complaints);
        self.tags(spec, existing, &mut complaints);
        complaints
    }

    fn attributes(&self, spec: &Spec, complaints: &mut Vec<String>) {
        for attribute in ["EnableDnsSupport", "EnableDnsHostnames"] {
            if self.vpc.property(attribute) == Some("false") {
                let id = &self.vpc.id;
                complaints.push(format!(
                    "{id} has {attribute}=false: names of endpoints and of the cluster would not resolve"
                ));
            }
        }
        let Some(block) = block(&self.vpc) else { return };
        for (key, text) in
            [("network.cluster_cidr", &spec.network.cluster_cidr), ("network.service_cidr", &spec.network.service_cidr)]
        {
            if text.parse::<Cidr>().is_ok_and(|other| other.overlaps(&block)) {
                complaints.push(format!("{key} {text} overlaps {} ({block})", self.vpc.id));
            }
        }
    }

    fn placement(&self, spec: &Spec, existing: &ExistingNetwork, complaints: &mut Vec<String>) {
        let vpc_block = block(&self.vpc);
        let mut zones: BTreeMap<&str, &str> = BTreeMap::new();
        for id in existing.private_subnets.iter().chain(&existing.public_subnets) {
            let Some(subnet) = self.subnets.get(id) else {
                complaints.push(format!("{id} is not in {}", self.vpc.id));
                continue;
            };
            let own = block(subnet);
            if let (Some(vpc), Some(own)) = (vpc_block, own)
                && !vpc.contains(own.first())
            {
                complaints.push(format!("{id} ({own}) lies outside of the machine network, which is {vpc}"));
            }
            if !existing.private_subnets.contains(id) {
                continue;
            }
            let zone = self.zone(id);
            if let Some(other) = zones.insert(zone, id) {
                complaints.push(format!(
                    "{other} and {id} are both in {zone}: the installer takes one private subnet of a zone"
                ));
            }
            if let Some(own) = own.filter(|own| free(own) < needed(spec)) {
                let (have, want) = (free(&own), needed(spec));
                complaints.push(format!(
                    "{id} ({own}) has {have} addresses, and its machines, endpoints and load balancers need {want}"
                ));
            }
        }
    }

    fn routes(&self, spec: &Spec, existing: &ExistingNetwork, complaints: &mut Vec<String>) {
        for id in existing.private_subnets.iter().filter(|id| self.subnets.contains_key(*id)) {
            let Some(table) = self.table_of(id) else {
                complaints.push(format!("the route table of {id} was not found"));
                continue;
            };
            match (spec.network.variant, self.default_route(id)) {
                (NetworkVariant::Private, None) => {
                    complaints.push(format!("{id} has no way out ({} has no default route), and network.variant is \"private\"", table.id));
                }
                (NetworkVariant::Private, Some(gateway)) if gateway.starts_with("igw-") => {
                    complaints.push(format!("{id} is a public subnet ({} leads to {gateway})", table.id));
                }
                (NetworkVariant::Disconnected | NetworkVariant::Proxy, Some(gateway)) => complaints.push(format!(
                    "{id} is not disconnected: {} has a default route to {gateway}; remove it, or set network.variant = \
                     \"private\"",
                    table.id
                )),
                _ => {}
            }
        }
        if spec.bastion.host.is_some() {
            return;
        }
        for id in existing.public_subnets.iter().filter(|id| self.subnets.contains_key(*id)) {
            if !self.default_route(id).is_some_and(|gateway| gateway.starts_with("igw-")) {
                complaints.push(format!("{id} is not public: its default route leads to no internet gateway"));
            }
        }
    }

    fn services(&self, spec: &Spec, existing: &ExistingNetwork, complaints: &mut Vec<String>) {
        let wanted = std::iter::once("s3").chain(interface_endpoints(spec));
        for service in wanted.filter(|service| !existing.add_endpoints.iter().any(|added| added == service)) {
            let Some(endpoint) = self.endpoint(spec, service) else {
                complaints.push(format!(
                    "{} has no endpoint {}; make one, or name \"{service}\" in network.existing.add_endpoints",
                    self.vpc.id,
                    service_name(spec, service)
                ));
                continue;
            };
            if service == "s3" {
                self.gateway(endpoint, existing, complaints);
            } else if endpoint.property("PrivateDnsEnabled") == Some("false") {
                complaints.push(format!(
                    "{} ({service}) has no private DNS: nodes would ask for the public name",
                    endpoint.id
                ));
            }
        }
    }

    fn gateway(&self, endpoint: &Resource, existing: &ExistingNetwork, complaints: &mut Vec<String>) {
        let id = &endpoint.id;
        if endpoint.property("VpcEndpointType") != Some("Gateway") {
            complaints.push(format!("{id} for S3 is no gateway: bootstrap nodes would not get their ignition"));
            return;
        }
        let tables: Vec<&str> = endpoint.property("RouteTableIds").unwrap_or_default().split(',').collect();
        for subnet in &existing.private_subnets {
            if let Some(table) = self.table_of(subnet).filter(|table| !tables.contains(&table.id.as_str())) {
                complaints.push(format!("{id} for S3 is not in {}, the route table of {subnet}", table.id));
            }
        }
    }

    fn tags(&self, spec: &Spec, existing: &ExistingNetwork, complaints: &mut Vec<String>) {
        let named = existing.private_subnets.iter().chain(&existing.public_subnets);
        for resource in named.filter_map(|id| self.subnets.get(id)).chain([&self.vpc]) {
            let owned = resource.tags.iter().find(|(name, value)| name.starts_with(CLUSTER_TAG) && *value == "owned");
            if let Some((name, _)) = owned {
                let id = &resource.id;
                complaints
                    .push(format!("{id} carries {name}=owned: another cluster's destroy would delete what is in it"));
            }
        }
        if spec.minor() < MINDS_OTHERS {
            return;
        }
        let untagged: Vec<&str> = self
            .subnets
            .values()
            .filter(|subnet| !existing.private_subnets.contains(&subnet.id))
            .filter(|subnet| !subnet.tags.keys().any(|name| name.starts_with(CLUSTER_TAG)))
            .map(|subnet| subnet.id.as_str())
            .collect();
        if !untagged.is_empty() {
            complaints.push(format!(
                "from 4.{MINDS_OTHERS} on the installer refuses a VPC whose other subnets have no {CLUSTER_TAG} tag: aws ec2 \
                 create-tags --resources {} --tags Key={CLUSTER_TAG}unmanaged,Value=true",
                untagged.join(" ")
            ));
        }
    }

    /// The endpoints to be made: those that the spec names and nobody else has made.
    pub fn missing(&self, spec: &Spec, existing: &ExistingNetwork, run: &str) -> Vec<Item> {
        let foreign = |service: &str| {
            self.endpoint(spec, service)
                .is_some_and(|endpoint| endpoint.tags.get("bartizan.run").is_none_or(|other| other != run))
        };
        let services: Vec<&str> =
            existing.add_endpoints.iter().map(String::as_str).filter(|service| !foreign(service)).collect();
        let mut tables: Vec<String> = existing
            .private_subnets
            .iter()
            .chain(&existing.public_subnets)
            .filter_map(|subnet| self.table_of(subnet).map(|table| table.id.clone()))
            .collect();
        tables.sort();
        tables.dedup();
        let place = Place {
            vpc: self.vpc.id.clone(),
            vpc_cidr: self.vpc.property("CidrBlock").unwrap_or_default().to_owned(),
            tables,
            subnets: existing.private_subnets.clone(),
        };
        endpoints(spec, &place, &services)
    }
}

fn block(resource: &Resource) -> Option<Cidr> {
    resource.property("CidrBlock")?.parse().ok()
}
