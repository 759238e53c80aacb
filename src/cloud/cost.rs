//! What things cost by list price, so that nobody forgets what stands. Estimates from `assets/prices.toml`. Pure.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use super::Kind;
use super::blueprint::Item;
use crate::model::run::HOURS_OF_A_MONTH;
use crate::model::text::dollars;
use crate::spec::Spec;

const PRICES: &str = include_str!("../../assets/prices.toml");

/// Root disk that the installer gives each node (openshift/installer, `pkg/types/aws/defaults`).
const NODE_DISK_GIB: u32 = 120;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Prices {
    as_of: String,
    hourly: Hourly,
    monthly: Monthly,
    large: BTreeMap<String, f64>,
    size: BTreeMap<String, f64>,
    region: Vec<Region>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Hourly {
    nat_gateway: f64,
    interface_endpoint: f64,
    public_address: f64,
    load_balancer: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Monthly {
    hosted_zone: f64,
    gp3_gib: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Region {
    factor: f64,
    names: Vec<String>,
}

// Without prices everything is of an unknown price; the test below rules that out for the table that is built in.
static TABLE: LazyLock<Option<Prices>> = LazyLock::new(|| toml::from_str(PRICES).ok());

impl Prices {
    fn factor(&self, region: &str) -> f64 {
        let group = self.region.iter().find(|group| group.names.iter().any(|name| name == region));
        group.or(self.region.last()).map_or(1.0, |group| group.factor)
    }

    fn machine(&self, instance_type: &str) -> Option<f64> {
        let (family, size) = instance_type.split_once('.')?;
        Some(self.large.get(family)? * self.size.get(size)?)
    }

    fn disk(&self, gib: f64) -> f64 {
        gib * self.monthly.gp3_gib / HOURS_OF_A_MONTH as f64
    }

    /// Dollars per hour in the cheapest region.
    fn of(&self, kind: Kind, properties: &BTreeMap<String, String>) -> Option<f64> {
        let text = |name: &str| properties.get(name).map(String::as_str);
        let number = |name: &str| text(name).and_then(|value| value.parse::<f64>().ok());
        Some(match kind {
            Kind::Instance => {
                let address = if text("AssociatePublicIpAddress") == Some("true") { 1.0 } else { 0.0 };
                self.machine(text("InstanceType")?)?
                    + self.disk(number("RootVolumeSize").unwrap_or(0.0))
                    + address * self.hourly.public_address
            }
            Kind::VpcEndpoint if text("VpcEndpointType") == Some("Interface") => {
                let zones = text("SubnetIds").unwrap_or_default().split(',').count();
                self.hourly.interface_endpoint * zones as f64
            }
            Kind::ElasticIp => self.hourly.public_address,
            Kind::NatGateway => self.hourly.nat_gateway,
            Kind::LoadBalancer => self.hourly.load_balancer,
            Kind::HostedZone => self.monthly.hosted_zone / HOURS_OF_A_MONTH as f64,
            Kind::Volume => self.disk(number("Size")?),
            // What a bucket costs is what is put in.
            _ => 0.0,
        })
    }
}

/// Millionths of a dollar.
fn micro(dollars: f64) -> u64 {
    (dollars * 1e6).round().max(0.0) as u64
}

/// What a thing of these properties costs per hour, in millionths of a US dollar. `None`: its price is not known.
pub fn hourly(region: &str, kind: Kind, properties: &BTreeMap<String, String>) -> Option<u64> {
    let prices = TABLE.as_ref()?;
    Some(micro(prices.of(kind, properties)? * prices.factor(region)))
}

/// The month of which the prices are.
pub fn as_of() -> &'static str {
    TABLE.as_ref().map_or("", |prices| &prices.as_of)
}

/// A line of an estimate: so many of a kind, together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// `subnet`, `instance m6i.large (bastion)` …
    pub what: String,
    pub count: u64,
    /// Of all of them, in millionths of a US dollar; `None` when it is not known.
    pub hourly: Option<u64>,
}

/// How much a month of something is, for a glance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Free,
    /// Up to 10 dollars.
    Small,
    /// Up to 100.
    Medium,
    /// Up to 1000.
    Large,
    Huge,
    Unknown,
}

impl Class {
    pub fn of(hourly: Option<u64>) -> Self {
        match hourly.map(|hourly| monthly(hourly) / 1_000_000) {
            None => Class::Unknown,
            Some(_) if hourly == Some(0) => Class::Free,
            Some(0..10) => Class::Small,
            Some(10..100) => Class::Medium,
            Some(100..1000) => Class::Large,
            Some(_) => Class::Huge,
        }
    }

    pub fn words(self) -> &'static str {
        match self {
            Class::Free => "free",
            Class::Small => "under $10",
            Class::Medium => "$10 to $100",
            Class::Large => "$100 to $1000",
            Class::Huge => "over $1000",
            Class::Unknown => "price not known",
        }
    }
}

/// Millionths of a dollar for a month of it.
pub fn monthly(hourly: u64) -> u64 {
    hourly.saturating_mul(HOURS_OF_A_MONTH)
}

/// What the nodes of a cluster cost per hour once its bootstrap machine is gone: machines with their disks, the internal
/// load balancer of the API and the one of the ingress, the private zone.
pub fn cluster(spec: &Spec) -> Option<u64> {
    cluster_lines(spec).into_iter().map(|line| line.hourly).sum()
}

fn cluster_lines(spec: &Spec) -> Vec<Line> {
    let region = &spec.aws.region;
    let machine = |role: &str, instance_type: &str, count: u8| {
        let properties = BTreeMap::from([
            ("InstanceType".to_owned(), instance_type.to_owned()),
            ("RootVolumeSize".to_owned(), NODE_DISK_GIB.to_string()),
        ]);
        let each = hourly(region, Kind::Instance, &properties);
        let count = u64::from(count);
        Line {
            what: format!("{} {instance_type} ({role})", Kind::Instance.as_str()),
            count,
            hourly: each.map(|each| each.saturating_mul(count)),
        }
    };
    let plain = |kind: Kind, what: &str, count: u64| Line {
        what: format!("{} ({what})", kind.as_str()),
        count,
        hourly: hourly(region, kind, &BTreeMap::new()).map(|each| each.saturating_mul(count)),
    };
    let install = &spec.install;
    let mut lines = vec![machine("control plane", &install.control_plane_type, install.control_plane_replicas)];
    if install.compute_replicas > 0 {
        lines.push(machine("compute", &install.compute_type, install.compute_replicas));
    }
    lines.push(plain(Kind::LoadBalancer, "API and ingress", 2));
    lines.push(plain(Kind::HostedZone, "cluster", 1));
    lines
}

/// What would be made for a spec, in the order of creation: what bartizan makes, counted by kind, then what the installer
/// makes of lasting things.
pub fn estimate(spec: &Spec, items: &[Item]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for item in items {
        let mut what = item.kind.as_str().to_owned();
        if let Some(instance_type) = item.properties.get("InstanceType") {
            what = format!("{what} {instance_type} (bastion)");
        }
        let price = hourly(&spec.aws.region, item.kind, &item.properties);
        match lines.iter_mut().find(|line| line.what == what) {
            Some(line) => {
                line.count += 1;
                line.hourly = line.hourly.zip(price).map(|(one, other)| one + other);
            }
            None => lines.push(Line { what, count: 1, hourly: price }),
        }
    }
    lines.extend(cluster_lines(spec));
    lines
}

/// The sentence below an estimate.
pub fn total(lines: &[Line]) -> String {
    let hourly: u64 = lines.iter().filter_map(|line| line.hourly).sum();
    let unknown = lines.iter().filter(|line| line.hourly.is_none()).count();
    let least = if unknown > 0 { "at least " } else { "about " };
    format!(
        "{least}{} per hour, {} per month: list prices of {}, without traffic; an estimate, no bill",
        dollars(hourly),
        dollars(monthly(hourly)),
        as_of()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_price_table_is_valid_and_has_every_region_once() {
        let prices: Prices = toml::from_str(PRICES).unwrap();
        let mut names: Vec<&String> = prices.region.iter().flat_map(|group| &group.names).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
        let figures = prices.large.values().chain(prices.size.values());
        assert!(figures.chain(prices.region.iter().map(|group| &group.factor)).all(|figure| *figure > 0.0));
        assert!(prices.region.is_sorted_by(|one, other| one.factor <= other.factor));
    }

    #[test]
    fn a_machine_costs_its_size_its_disk_its_address_and_its_region() {
        let bastion = properties(&[
            ("InstanceType", "m6i.xlarge"),
            ("RootVolumeSize", "730"),
            ("AssociatePublicIpAddress", "true"),
        ]);
        assert_eq!(hourly("us-east-2", Kind::Instance, &bastion), Some(192_000 + 80_000 + 5_000));
        let dear = hourly("sa-east-1", Kind::Instance, &bastion);
        assert_eq!(dear, Some((277_000.0 * 1.6) as u64));
        assert_eq!(hourly("us-moon-1", Kind::Instance, &bastion), dear, "an unknown region counts as the dearest");
        assert_eq!(hourly("us-east-2", Kind::Instance, &properties(&[("InstanceType", "z9.large")])), None);
    }

    #[test]
    fn an_interface_endpoint_costs_in_each_zone_and_a_gateway_nothing() {
        let interface = properties(&[("VpcEndpointType", "Interface"), ("SubnetIds", "a,b,c")]);
        assert_eq!(hourly("us-east-1", Kind::VpcEndpoint, &interface), Some(30_000));
        let gateway = properties(&[("VpcEndpointType", "Gateway")]);
        assert_eq!(hourly("us-east-1", Kind::VpcEndpoint, &gateway), Some(0));
    }

    #[test]
    fn an_unknown_price_is_never_shown_as_nothing() {
        let line = |hourly| Line { what: "x".into(), count: 1, hourly };
        assert!(total(&[line(Some(1_000_000)), line(None)]).starts_with("at least $1.00 per hour, $730.00 per month"));
        assert_eq!(Class::of(None), Class::Unknown);
        assert_eq!(Class::of(Some(0)), Class::Free);
        assert_eq!(Class::of(Some(100)), Class::Small);
        assert_eq!(Class::of(Some(100_000)), Class::Medium);
        assert_eq!(Class::of(Some(10_000_000)), Class::Huge);
    }
}
