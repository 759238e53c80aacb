//! What a node reaches in the pretended VPC: names by the records of the cluster's private zone, ports by the rules of its
//! security groups. Both stand in the cloud and are looked at each time, so that what is put right there is felt here.

use super::OcpError;
use super::cluster::{Cluster, Scene};
use crate::cloud::{Cloud, Kind, alias, cname, record};

/// Where the internal load balancer is.
pub const BALANCER: &str = "10.0.5.9";
/// The resolver of the VPC.
pub const RESOLVER: &str = "10.0.0.2";
/// Where nodes get their Ignition config.
pub const MACHINE_CONFIG_SERVER: u16 = 22623;

impl Scene {
    /// The address that a name has in the cluster's private zone.
    pub async fn lookup(&self, cluster: &Cluster, name: &str) -> Result<Option<String>, OcpError> {
        let owned = cluster.owned();
        let zones = self.cloud.find(Kind::HostedZone, &owned).await?;
        let property = |key: &str| zones.iter().find_map(|zone| zone.property(key)).map(str::to_owned);
        if let Some(address) = property(&record(name)) {
            return Ok(Some(address));
        }
        let Some(target) = property(&alias(name)).or_else(|| property(&cname(name))) else { return Ok(None) };
        // An alias has the balancer's zone before its name.
        let host = target.rsplit(' ').next().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
        let host = host.strip_prefix("dualstack.").unwrap_or(&host);
        let balancers = self.cloud.find(Kind::LoadBalancer, &owned).await?;
        let stands =
            balancers.iter().any(|one| one.property("DNSName").is_some_and(|dns| dns.eq_ignore_ascii_case(host)));
        Ok(stands.then(|| BALANCER.to_owned()))
    }

    /// Why a node cannot connect to a name of the cluster, in the words of Go's net package; none when it can.
    pub async fn in_the_way(&self, cluster: &Cluster, name: &str, port: u16) -> Result<Option<String>, OcpError> {
        let Some(address) = self.lookup(cluster, name).await? else {
            return Ok(Some(format!("dial tcp: lookup {name} on {RESOLVER}:53: no such host")));
        };
        let open = address == BALANCER && self.lets_in(cluster, port).await?;
        Ok((!open).then(|| format!("dial tcp {address}:{port}: i/o timeout")))
    }

    /// Whether the control plane's security group has a rule for a port.
    async fn lets_in(&self, cluster: &Cluster, port: u16) -> Result<bool, OcpError> {
        let name = format!("{}-controlplane", cluster.assets.infra_id);
        let groups = self.cloud.find(Kind::SecurityGroup, &cluster.owned()).await?;
        let wanted = [format!("Ingress tcp/{port} "), "Ingress all ".to_owned()];
        Ok(groups.iter().filter(|group| group.property("GroupName") == Some(&name)).any(|group| {
            group.properties.keys().any(|rule| wanted.iter().any(|wanted| rule.starts_with(wanted.as_str())))
        }))
    }
}
