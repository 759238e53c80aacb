//! MachineConfigs for a site without a helper machine: a registry, names with health checks, and static addresses, on the
//! nodes themselves. Pure; the templates are in `assets/edge`. Zone files with `LUA` records and `ifportup`: PowerDNS
//! Authoritative Server, `docs/lua-records`; keyfiles: NetworkManager, `nm-settings-keyfile(5)`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ignition_config::v3_2::{Config, Dropin, File, Resource, Storage, Systemd, Unit};
use serde_json::{Value, json};

use crate::engine::StepError;
use crate::spec::edge::{EdgeSpec, Node};
use crate::spec::manifests::objects;
use crate::spec::{Secret, Spec};

use super::certificate::{issue, new_ca_key};

/// What the operator has to know before any of this is used.
pub const WARNING: &str = "Services on the nodes' own operating system are no part of what Red Hat supports on RHCOS: a \
                           support case may ask to take them away. An upgrade restarts the nodes with them, so the \
                           registry and the names have to be there without any other machine.";

/// A file for the installer's `manifests` folder.
pub struct Rendered {
    pub name: String,
    /// It may hold a private key.
    pub text: Secret,
}

const REGISTRY_UNIT: &str = include_str!("../../assets/edge/registry.service");
const REGISTRY_CONFIG: &str = include_str!("../../assets/edge/registry.yml");
const DNS_UNIT: &str = include_str!("../../assets/edge/dns.service");
const PDNS: &str = include_str!("../../assets/edge/pdns.conf");
const NAMED: &str = include_str!("../../assets/edge/named.conf");
const RECURSOR: &str = include_str!("../../assets/edge/recursor.conf");
const HOSTNAME_UNIT: &str = include_str!("../../assets/edge/hostname.service");

/// Ports behind which a name's service is, as health checks knock at them.
const API: u16 = 6443;
const ROUTER: u16 = 443;

/// Everything that `[edge]` asks for, checked as the machine-config operator would; and the registry's CA, for
/// `additionalTrustBundle`.
///
/// # Errors
/// When there is no such section, or what was rendered is not valid.
pub fn render(spec: &Spec) -> Result<(Vec<Rendered>, Option<String>), StepError> {
    let edge = spec.edge.as_ref().ok_or_else(|| {
        StepError::fatal("cluster.toml has no section [edge]").hint("name the nodes of the site in edge.nodes")
    })?;
    let nodes = edge.nodes();
    let domain = spec.domain();
    let mut rendered = vec![machine_config("99-master-edge-network", &network(edge, &nodes, &domain))?];
    if edge.dns {
        rendered.push(machine_config("99-master-edge-dns", &names(edge, &nodes, &domain))?);
    }
    let mut ca = None;
    if edge.registry {
        let (config, pem) = registry(edge, &nodes, &domain)?;
        rendered.push(machine_config("99-master-edge-registry", &config)?);
        ca = Some(pem);
    }
    Ok((rendered, ca))
}

fn machine_config(name: &str, config: &Config) -> Result<Rendered, StepError> {
    let broken = |why: String| StepError::fatal(why).during(format!("rendering {name}"));
    let config: Value = serde_json::to_value(config).map_err(|error| broken(error.to_string()))?;
    let object = json!({
        "apiVersion": "machineconfiguration.openshift.io/v1",
        "kind": "MachineConfig",
        "metadata": { "name": name, "labels": { "machineconfiguration.openshift.io/role": "master" } },
        "spec": { "config": config },
    });
    let text = yaml_serde::to_string(&object).map_err(|error| broken(error.to_string()))?;
    objects(&text).map_err(broken)?;
    Ok(Rendered { name: format!("{name}.yaml"), text: Secret::holding(text) })
}

fn file(path: &str, text: &str, mode: i64) -> File {
    let mut file = File::new(path.to_owned());
    file.mode = Some(mode);
    file.overwrite = Some(true);
    let source = format!("data:text/plain;charset=utf-8;base64,{}", BASE64_STANDARD.encode(text));
    file.contents = Some(Resource { source: Some(source), ..Resource::default() });
    file
}

fn unit(name: &str, text: String) -> Unit {
    let mut unit = Unit::new(name.to_owned());
    unit.enabled = Some(true);
    unit.contents = Some(text);
    unit
}

/// The kubelet starts after what its pods need; without it it starts all the same.
fn before_kubelet(services: &[&str], name: &str) -> Unit {
    let services = services.join(" ");
    let mut dropin = Dropin::new(format!("{name}.conf"));
    dropin.contents = Some(format!("[Unit]\nWants={services}\nAfter={services}\n"));
    let mut kubelet = Unit::new("kubelet.service".into());
    kubelet.dropins = Some(vec![dropin]);
    kubelet
}

fn config(files: Vec<File>, units: Vec<Unit>) -> Config {
    Config {
        storage: Some(Storage { files: Some(files), ..Storage::default() }),
        systemd: Some(Systemd { units: Some(units) }),
        ..Config::default()
    }
}

/// A MachineConfig is for all nodes of a role: each profile names the card that it is for.
fn network(edge: &EdgeSpec, nodes: &[Node], domain: &str) -> Config {
    let own = edge.dns.then(|| nodes.iter().map(|node| node.address.to_string())).into_iter().flatten();
    let servers: Vec<String> = own.chain(edge.nameservers.iter().filter(|_| !edge.dns).cloned()).collect();
    let profile = |node: &Node| {
        let mut text = format!(
            "[connection]\nid=edge-{0}\ntype=ethernet\nautoconnect=true\nautoconnect-priority=100\n\n[ethernet]\n\
             mac-address={1}\n\n[ipv4]\nmethod=manual\naddress1={2}/{3}",
            node.name, node.mac, node.address, node.prefix
        );
        if let Some(gateway) = &edge.gateway {
            text.push_str(&format!(",{gateway}"));
        }
        text.push_str(&format!("\ndns={};\ndns-search={domain};\n\n[ipv6]\nmethod=disabled\n", servers.join(";")));
        // NetworkManager reads no profile that others may read.
        file(&format!("/etc/NetworkManager/system-connections/edge-{}.nmconnection", node.name), &text, 0o600)
    };
    let mut files: Vec<File> = nodes.iter().map(profile).collect();
    let names: String = nodes.iter().map(|node| format!("{} {}.{domain}\n", node.mac, node.name)).collect();
    files.push(file("/etc/edge/names", &names, 0o644));
    config(files, vec![unit("edge-hostname.service", HOSTNAME_UNIT.to_owned())])
}

/// The zone of the cluster: a name leads to the nodes whose service answers, and to all of them when none does.
fn zone(edge: &EdgeSpec, nodes: &[Node], domain: &str) -> String {
    let quoted: Vec<String> = nodes.iter().map(|node| format!("'{}'", node.address)).collect();
    let healthy = |port: u16| format!("\"ifportup({port}, {{{}}})\"", quoted.join(", "));
    let mut text = format!(
        "$ORIGIN {domain}.\n$TTL 5\n@ IN SOA {0} hostmaster 1 3600 600 86400 5\n@ IN NS {0}\n",
        nodes.first().map_or("ns", |node| node.name.as_str())
    );
    for (name, port) in [("api", API), ("api-int", API), ("*.apps", ROUTER)] {
        text.push_str(&format!("{name} IN LUA A {}\n", healthy(port)));
    }
    if edge.registry {
        text.push_str(&format!("registry IN LUA A {}\n", healthy(edge.registry_port)));
    }
    text.extend(nodes.iter().map(|node| format!("{} IN A {}\n", node.name, node.address)));
    text
}

fn names(edge: &EdgeSpec, nodes: &[Node], domain: &str) -> Config {
    let networks: Vec<String> = nodes.iter().filter_map(Node::network).map(|block| block.to_string()).take(1).collect();
    let upstream = match edge.nameservers.is_empty() {
        // Nothing else has a name here: asking the roots would only take time.
        true => "forward-zones-recurse=.=127.0.0.1:9".to_owned(),
        false => format!("forward-zones-recurse=.={}", edge.nameservers.join(";")),
    };
    let recursor = RECURSOR
        .replace("@NETWORKS@", &networks.join(", "))
        .replace("@DOMAIN@", domain)
        .replace("@UPSTREAM@", &upstream);
    let service = |name: &str, program: &str, image: &str| {
        let text = DNS_UNIT.replace("@NAME@", name).replace("@PROGRAM@", program).replace("@IMAGE@", image);
        unit(&format!("{name}.service"), text)
    };
    let at = |name: &str| format!("/etc/edge/dns/{name}");
    let files = vec![
        file(&at("edge-dns/pdns.conf"), PDNS, 0o644),
        file(&at("edge-dns/named.conf"), &NAMED.replace("@DOMAIN@", domain), 0o644),
        file(&at("edge-dns/zone"), &zone(edge, nodes, domain), 0o644),
        file(&at("edge-recursor/recursor.conf"), &recursor, 0o644),
    ];
    let units = vec![
        service("edge-dns", "pdns_server", &edge.dns_image),
        service("edge-recursor", "pdns_recursor", &edge.recursor_image),
        before_kubelet(&["edge-dns.service", "edge-recursor.service"], "10-edge-dns"),
    ];
    config(files, units)
}

fn registry(edge: &EdgeSpec, nodes: &[Node], domain: &str) -> Result<(Config, String), StepError> {
    let host = format!("registry.{domain}");
    let addresses: Vec<String> = nodes.iter().map(|node| node.address.to_string()).collect();
    let ca_key =
        new_ca_key().map_err(|error| StepError::fatal(format!("making a key for the CA of {host}: {error}")))?;
    let issued = issue(domain, &host, &addresses, &ca_key)?;
    let settings = REGISTRY_CONFIG
        .replace("@PORT@", &edge.registry_port.to_string())
        .replace("@READONLY@", &edge.registry_readonly.to_string());
    let files = vec![
        file("/etc/edge/registry/config.yml", &settings, 0o644),
        file("/etc/edge/registry/tls.crt", &issued.certificate, 0o644),
        file("/etc/edge/registry/tls.key", issued.key.reveal(), 0o600),
        file("/etc/pki/ca-trust/source/anchors/edge-registry.crt", &issued.ca, 0o644),
    ];
    let units = vec![
        unit("edge-registry.service", REGISTRY_UNIT.replace("@IMAGE@", &edge.registry_image)),
        before_kubelet(&["edge-registry.service"], "10-edge-registry"),
    ];
    Ok((config(files, units), issued.ca))
}
