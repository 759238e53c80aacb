//! A site without a helper machine: what `[edge]` may say. The nodes themselves serve names and images.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::cidr::Cidr;

/// `[edge]`: what is rendered to MachineConfigs for nodes that have no DHCP, no DNS and no registry beside them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EdgeSpec {
    /// One or three, each `NAME MAC ADDRESS/PREFIX`.
    pub nodes: Vec<String>,
    pub gateway: Option<String>,
    /// Servers for all other names; none where there is no other network.
    pub nameservers: Vec<String>,
    /// Serve names from the nodes.
    pub dns: bool,
    /// Serve images from the nodes.
    pub registry: bool,
    pub registry_port: u16,
    /// The registry takes no more pushes: what it has was put there before.
    pub registry_readonly: bool,
    pub registry_image: String,
    pub dns_image: String,
    pub recursor_image: String,
}

impl Default for EdgeSpec {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            gateway: None,
            nameservers: Vec::new(),
            dns: true,
            registry: true,
            registry_port: 8443,
            registry_readonly: false,
            registry_image: "docker.io/library/registry:2".into(),
            dns_image: "docker.io/powerdns/pdns-auth-49:latest".into(),
            recursor_image: "docker.io/powerdns/pdns-recursor-51:latest".into(),
        }
    }
}

/// A node of the site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    /// `52:54:00:aa:bb:01`
    pub mac: String,
    pub address: Ipv4Addr,
    pub prefix: u8,
}

impl Node {
    /// # Errors
    /// What to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let want = "write NAME MAC ADDRESS/PREFIX, for example \"master-0 52:54:00:aa:bb:01 192.0.2.11/24\"";
        let words: Vec<&str> = text.split_whitespace().collect();
        let [name, mac, place] = words.as_slice() else { return Err(want.into()) };
        let hex = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        let (address, prefix) = place.split_once('/').ok_or(want)?;
        let address: Ipv4Addr = address.parse().map_err(|_| want)?;
        let prefix: u8 = prefix.parse().ok().filter(|prefix| (8..=30).contains(prefix)).ok_or(want)?;
        if !super::validate::is_label(name) || mac.split(':').count() != 6 || !mac.split(':').all(hex) {
            return Err(want.into());
        }
        Ok(Self { name: (*name).to_owned(), mac: mac.to_lowercase(), address, prefix })
    }

    /// The network that it is in.
    pub fn network(&self) -> Option<Cidr> {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix))?;
        format!("{}/{}", Ipv4Addr::from(u32::from(self.address) & mask), self.prefix).parse().ok()
    }
}

impl EdgeSpec {
    /// The nodes, once the spec is valid.
    pub fn nodes(&self) -> Vec<Node> {
        self.nodes.iter().filter_map(|text| Node::parse(text).ok()).collect()
    }

    /// Key and sentence of everything that is wrong.
    pub(super) fn problems(&self) -> Vec<(&'static str, String, String)> {
        let mut wrong = Vec::new();
        let mut nodes: Vec<Node> = Vec::new();
        for text in &self.nodes {
            match Node::parse(text) {
                Err(want) => wrong.push(("edge.nodes", format!("has {}", super::problem::shown(text)), want)),
                Ok(node) => {
                    let same = |other: &&Node| {
                        other.name == node.name || other.mac == node.mac || other.address == node.address
                    };
                    if let Some(other) = nodes.iter().find(same) {
                        let found = format!("has {} and {}", other.name, node.name);
                        wrong.push(("edge.nodes", found, "name, card and address belong to one node each".into()));
                    }
                    nodes.push(node);
                }
            }
        }
        if !matches!(self.nodes.len(), 1 | 3) {
            let found = format!("has {} nodes", self.nodes.len());
            wrong.push(("edge.nodes", found, "a site has one node, or three for etcd".into()));
        }
        let networks: Vec<Cidr> = nodes.iter().filter_map(Node::network).collect();
        if networks.windows(2).any(|pair| pair.first() != pair.get(1)) {
            wrong.push(("edge.nodes", "has different networks".into(), "the nodes of a site share one".into()));
        }
        if let Some(gateway) = &self.gateway {
            let inside = |gateway: Ipv4Addr| networks.iter().all(|network| network.contains(gateway));
            if !gateway.parse::<Ipv4Addr>().is_ok_and(inside) {
                let found = format!("is {}", super::problem::shown(gateway));
                wrong.push(("edge.gateway", found, "give an address in the network of the nodes".into()));
            }
        }
        for server in &self.nameservers {
            if server.parse::<Ipv4Addr>().is_err() {
                let found = format!("has {}", super::problem::shown(server));
                wrong.push(("edge.nameservers", found, "give IPv4 addresses".into()));
            }
        }
        for (key, image) in [
            ("edge.registry_image", &self.registry_image),
            ("edge.dns_image", &self.dns_image),
            ("edge.recursor_image", &self.recursor_image),
        ] {
            if !super::validate::is_pull_spec(image) {
                let found = format!("is {}", super::problem::shown(image));
                wrong.push((key, found, "give a whole pull spec".into()));
            }
        }
        wrong
    }
}
