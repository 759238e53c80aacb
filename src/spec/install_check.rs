//! The classic mistakes in an `install-config.yaml`, found before the installer sees it: it only warns of unknown keys
//! and then ignores them, and it consumes the file. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use super::cidr::Cidr;
use super::install_fields::unknown;
use super::problem::{Problem, nearest, shown};
use super::validate::{is_aws_id, is_domain, is_label};

const FILE: &str = "install-config.yaml";
/// An infraID is the name, cut to this, and five random characters (openshift/installer `pkg/asset/installconfig/
/// clusterid.go`).
const LONGEST_NAME: usize = 27;
/// OpenShiftSDN is no choice for new clusters any more.
const NO_SDN: u32 = 15;
/// openshift/installer `pkg/types/aws/platform.go`.
const ROLES: &[&str] = &[
    "ClusterNode",
    "EdgeNode",
    "BootstrapNode",
    "IngressControllerLB",
    "ControlPlaneExternalLB",
    "ControlPlaneInternalLB",
];
/// openshift/installer `pkg/types/aws/validation/platform.go`.
pub(super) const SERVICES: &[&str] =
    &["autoscaling", "ec2", "elasticloadbalancing", "iam", "kms", "route53", "s3", "servicequotas", "sts", "tagging"];

/// Everything that is wrong with the text for an installer of 4.`minor`, in the order of the file. No secret is in a
/// problem.
pub fn check(text: &str, minor: u32) -> Vec<Problem> {
    let mut check = Check { text, minor, problems: Vec::new() };
    match yaml_serde::from_str::<Value>(text) {
        Ok(root @ Value::Object(_)) => check.all(&root),
        Ok(_) => check.fail("", "is no YAML mapping", "an install-config starts with apiVersion: v1"),
        Err(error) => {
            let last = text.lines().count().max(1);
            let line = error.location().map_or(1, |location| location.line().clamp(1, last));
            let want = "mind indentation and quotes".to_owned();
            let found = "this is not YAML".to_owned();
            check.problems.push(Problem { file: FILE.into(), line, key: String::new(), found, want });
        }
    }
    check.problems.sort_by_key(|problem| problem.line);
    check.problems
}

struct Check<'a> {
    text: &'a str,
    minor: u32,
    problems: Vec<Problem>,
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

fn list<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn names(value: &Value) -> impl Iterator<Item = &str> {
    value.as_object().into_iter().flat_map(|map| map.keys().map(String::as_str))
}

impl Check<'_> {
    fn fail(&mut self, key: &str, found: impl Into<String>, want: impl Into<String>) {
        let line = self.line(key);
        let (key, found, want) = (key.to_owned(), found.into(), want.into());
        self.problems.push(Problem { file: FILE.into(), line, key, found, want });
    }

    /// Where a dotted key stands: each part is looked for below the one before it.
    fn line(&self, key: &str) -> usize {
        let mut at = 0;
        for part in key.split('.') {
            let below = self.text.lines().enumerate().skip(at);
            let hit = below.into_iter().find(|(_, line)| {
                let line = line.trim_start().trim_start_matches("- ");
                line.strip_prefix(part).is_some_and(|rest| rest.starts_with(':'))
            });
            match hit {
                Some((index, _)) => at = index + 1,
                None => break,
            }
        }
        at.max(1)
    }

    fn all(&mut self, root: &Value) {
        self.unknown(root);
        self.basics(root);
        self.pools(root);
        self.network(root);
        self.subnets(root);
        self.endpoints(root);
        self.mirrors(root);
        self.proxy(root);
    }

    fn unknown(&mut self, root: &Value) {
        for one in unknown(root, self.minor) {
            let name = one.key.rsplit('.').next().unwrap_or_default();
            let want = if name == "privateLink" || name == "private" {
                "the installer ignores it; a private cluster is publish: Internal".to_owned()
            } else if let Some(since) = one.since {
                format!("the installer has it from 4.{since} on, and this one is 4.{}", self.minor)
            } else if let Some(meant) = nearest(name, one.known.iter().copied()) {
                format!("the installer would ignore it; did you mean {meant}?")
            } else {
                "the installer would ignore it; take it out".to_owned()
            };
            self.fail(&one.key, "is not known", want);
        }
    }

    fn basics(&mut self, root: &Value) {
        if text(root, "/apiVersion") != "v1" {
            self.fail("apiVersion", format!("is {}", shown(text(root, "/apiVersion"))), "give v1");
        }
        let name = text(root, "/metadata/name");
        if !is_label(name) {
            let want = "lower-case letters, digits and -, for example edge-lab";
            self.fail("metadata.name", format!("is {}", shown(name)), want);
        } else if name.len() > LONGEST_NAME {
            let want = format!(
                "it has {} characters; the installer cuts it to {LONGEST_NAME} for the names of AWS objects, and two \
                 clusters may then be told apart by five random ones",
                name.len()
            );
            self.fail("metadata.name", format!("is {}", shown(name)), want);
        }
        let base = text(root, "/baseDomain");
        if !is_domain(base) {
            self.fail("baseDomain", format!("is {}", shown(base)), "give a DNS domain, for example example.com");
        }
        match text(root, "/publish") {
            "Internal" | "External" => {}
            "" => {
                let want = "External is assumed, and then public subnets and a public zone are required; \
                            give Internal or External";
                self.fail("publish", "is missing", want);
            }
            other => self.fail("publish", format!("is {}", shown(other)), "AWS knows Internal and External"),
        }
        let fips = root.get("fips").and_then(Value::as_bool).unwrap_or(false);
        if fips && text(root, "/sshKey").starts_with("ssh-ed25519") {
            self.fail("sshKey", "is an ed25519 key", "FIPS clusters refuse it; use an ecdsa or rsa key");
        }
        if text(root, "/platform/aws/region").is_empty() {
            self.fail("platform.aws.region", "is missing", "give the region, for example us-east-2");
        }
    }

    /// The forms that a cluster may have: one node, three, or three with machines for the work.
    fn pools(&mut self, root: &Value) {
        let masters = root.pointer("/controlPlane/replicas").and_then(Value::as_u64);
        if !matches!(masters, None | Some(1 | 3 | 4 | 5)) {
            let want = "etcd wants 1 or 3 members";
            self.fail("controlPlane.replicas", format!("is {}", masters.unwrap_or(0)), want);
        }
        if list(root, "/compute").is_empty() && root.pointer("/controlPlane").is_some() {
            let want = "three workers are assumed; give the pool worker with its replicas, 0 for none";
            self.fail("compute", "is missing", want);
        }
        for (key, pool) in std::iter::once(("controlPlane", root.pointer("/controlPlane").unwrap_or(&Value::Null)))
            .chain(list(root, "/compute").iter().map(|pool| ("compute", pool)))
        {
            let architecture = text(pool, "/architecture");
            if !["", "amd64", "arm64"].contains(&architecture) {
                self.fail(
                    &format!("{key}.architecture"),
                    format!("is {}", shown(architecture)),
                    "AWS has amd64 and arm64",
                );
            }
        }
        if root.get("bootstrapInPlace").is_some() {
            let want = "a single node on AWS is installed with a bootstrap machine; take it out";
            self.fail("bootstrapInPlace", "is set", want);
        }
        let mode = text(root, "/credentialsMode");
        if !["", "Mint", "Passthrough", "Manual"].contains(&mode) {
            let want = "AWS knows Mint, Passthrough and Manual";
            self.fail("credentialsMode", format!("is {}", shown(mode)), want);
        }
    }

    fn network(&mut self, root: &Value) {
        let mut blocks: Vec<(&str, Cidr)> = Vec::new();
        let entries = [
            ("networking.machineNetwork", "/networking/machineNetwork", "/cidr", "10.0.0.0/16"),
            ("networking.clusterNetwork", "/networking/clusterNetwork", "/cidr", "10.128.0.0/14"),
            ("networking.serviceNetwork", "/networking/serviceNetwork", "", "172.30.0.0/16"),
        ];
        for (key, pointer, inner, example) in entries {
            if list(root, pointer).is_empty() {
                self.fail(key, "is missing", format!("give the network, for example {example}"));
            }
            for entry in list(root, pointer) {
                match text(entry, inner).parse::<Cidr>() {
                    Ok(block) => {
                        if let Some((other, _)) = blocks.iter().find(|(at, have)| *at != key && have.overlaps(&block)) {
                            self.fail(key, format!("is {block}"), format!("it overlaps {other}"));
                        }
                        blocks.push((key, block));
                    }
                    Err(error) => self.fail(key, format!("has {}", shown(text(entry, inner))), error.to_string()),
                }
            }
        }
        if text(root, "/networking/networkType") == "OpenShiftSDN" && self.minor >= NO_SDN {
            let want = format!("from 4.{NO_SDN} on new clusters take OVNKubernetes");
            self.fail("networking.networkType", "is OpenShiftSDN", want);
        }
    }

    fn subnets(&mut self, root: &Value) {
        let old = list(root, "/platform/aws/subnets");
        let new = list(root, "/platform/aws/vpc/subnets");
        if !old.is_empty() && !new.is_empty() {
            let want = "it is there as vpc.subnets too; keep one (vpc.subnets from 4.19 on)";
            self.fail("platform.aws.subnets", "is set twice", want);
        }
        let (key, ids): (&str, Vec<&str>) = if new.is_empty() {
            ("platform.aws.subnets", old.iter().map(|id| id.as_str().unwrap_or("")).collect())
        } else {
            ("platform.aws.vpc.subnets", new.iter().map(|subnet| text(subnet, "/id")).collect())
        };
        let mut seen = BTreeSet::new();
        for id in &ids {
            if !is_aws_id(id, "subnet-") {
                self.fail(key, format!("has {}", shown(id)), "give ids, for example subnet-0123456789abcdef0");
            } else if !seen.insert(*id) {
                self.fail(key, format!("has {id} twice"), "name each subnet once");
            }
        }
        let with_roles = new.iter().filter(|subnet| !list(subnet, "/roles").is_empty()).count();
        if with_roles > 0 && with_roles < new.len() {
            let found = format!("has roles on {with_roles} of {} subnets", new.len());
            self.fail(key, found, "either all have roles or none");
        }
        for role in new.iter().flat_map(|subnet| list(subnet, "/roles")).map(|role| text(role, "/type")) {
            if !ROLES.contains(&role) {
                self.fail(key, format!("has the role {}", shown(role)), format!("the roles are {}", ROLES.join(", ")));
            } else if role == "ControlPlaneExternalLB" && text(root, "/publish") == "Internal" {
                self.fail(key, format!("has the role {role}"), "publish is Internal; take the role out");
            }
        }
        if with_roles == new.len() && with_roles > 0 {
            let has = |role: &str| {
                new.iter().any(|subnet| list(subnet, "/roles").iter().any(|one| text(one, "/type") == role))
            };
            let needed = ["ClusterNode", "BootstrapNode", "IngressControllerLB", "ControlPlaneInternalLB"];
            if let Some(missing) = needed.into_iter().find(|role| !has(role)) {
                self.fail(key, format!("gives no subnet the role {missing}"), "one at least has to have it");
            }
        }
        if !text(root, "/platform/aws/hostedZone").is_empty() && ids.is_empty() {
            self.fail(
                "platform.aws.hostedZone",
                "is set",
                "the installer takes it only with subnets of an existing VPC",
            );
        }
    }

    fn endpoints(&mut self, root: &Value) {
        let key = "platform.aws.serviceEndpoints";
        let mut seen = BTreeSet::new();
        for endpoint in list(root, "/platform/aws/serviceEndpoints") {
            let (name, url) = (text(endpoint, "/name"), text(endpoint, "/url"));
            if !SERVICES.contains(&name) {
                let want = format!("the services are {}", SERVICES.join(", "));
                self.fail(key, format!("has the name {}", shown(name)), want);
            } else if !seen.insert(name) {
                self.fail(key, format!("has {name} twice"), "name each service once");
            }
            let host = url.strip_prefix("https://").map(|rest| rest.trim_end_matches('/'));
            if !host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@', ' '])) {
                let want = "give https:// and the host alone; the installer asks it from where it runs";
                self.fail(key, format!("has {} for {name}", shown(url)), want);
            }
        }
    }

    fn mirrors(&mut self, root: &Value) {
        let digest = list(root, "/imageDigestSources");
        let content = list(root, "/imageContentSources");
        if !digest.is_empty() && !content.is_empty() {
            let want = "imageDigestSources is set as well, and the installer refuses both; keep imageDigestSources";
            self.fail("imageContentSources", "is set", want);
        }
        let secret: Value = serde_json::from_str(text(root, "/pullSecret")).unwrap_or_default();
        let known: BTreeSet<&str> = names(secret.get("auths").unwrap_or(&Value::Null)).collect();
        if known.is_empty() {
            let want = "give the JSON of a pull secret with the mirror's entry";
            self.fail("pullSecret", "has no \"auths\"", want);
        }
        let key = if digest.is_empty() { "imageContentSources" } else { "imageDigestSources" };
        let mirrors = digest.iter().chain(content).flat_map(|entry| list(entry, "/mirrors"));
        let mirrors: BTreeSet<&str> = mirrors.filter_map(Value::as_str).collect();
        let hosts: BTreeSet<&str> = mirrors.iter().map(|mirror| mirror.split('/').next().unwrap_or("")).collect();
        for mirror in &mirrors {
            let last = mirror.rsplit('/').next().unwrap_or("");
            if mirror.contains('@') || (mirror.contains('/') && last.contains(':')) {
                let want = "give the repository alone, without tag and digest";
                self.fail(key, format!("has the mirror {}", shown(mirror)), want);
            }
        }
        for host in &hosts {
            if host.starts_with("localhost") || host.starts_with("127.") || host.starts_with("[::1]") {
                let want = "on a node that is the node itself; give the name of the mirror";
                self.fail(key, format!("has the mirror {}", shown(host)), want);
            } else if !known.is_empty() && !known.contains(host) {
                let want = format!("{key} points there, and the nodes would get 401; add it exactly so");
                self.fail("pullSecret", format!("has no entry for {}", shown(host)), want);
            }
        }
        for source in digest.iter().chain(content).map(|entry| text(entry, "/source")) {
            if source.is_empty() || source.contains('@') || source.rsplit('/').next().unwrap_or("").contains(':') {
                let want = "give the source repository without tag and digest, for example \
                            quay.io/openshift-release-dev/ocp-release";
                self.fail(key, format!("has the source {}", shown(source)), want);
            }
        }
        self.trust(root);
    }

    fn trust(&mut self, root: &Value) {
        let bundle = text(root, "/additionalTrustBundle");
        if bundle.contains("PRIVATE KEY") {
            let want = "it goes to every node; give the certificates alone";
            self.fail("additionalTrustBundle", "holds a private key", want);
        } else if !bundle.is_empty() {
            let (mut count, mut authority) = (0, false);
            let good = x509_parser::pem::Pem::iter_from_buffer(bundle.as_bytes()).all(|pem| {
                count += 1;
                let Ok(pem) = pem else { return false };
                let Ok(certificate) = pem.parse_x509() else { return false };
                // A self-signed server certificate is its own anchor.
                authority |= certificate.is_ca() || certificate.issuer() == certificate.subject();
                pem.label == "CERTIFICATE"
            });
            if !good || count == 0 {
                self.fail("additionalTrustBundle", "holds no certificate", "give PEM: -----BEGIN CERTIFICATE-----");
            } else if !authority {
                let want = "nodes trust a certificate of a server by the one that signed it; give the CA's";
                self.fail("additionalTrustBundle", "holds no CA", want);
            }
        }
        let policy = text(root, "/additionalTrustBundlePolicy");
        if !["", "Always", "Proxyonly"].contains(&policy) {
            self.fail("additionalTrustBundlePolicy", format!("is {}", shown(policy)), "give Always or Proxyonly");
        }
    }

    fn proxy(&mut self, root: &Value) {
        if root.get("proxy").is_none() {
            return;
        }
        if !text(root, "/proxy/httpProxy").is_empty() && !text(root, "/proxy/httpProxy").starts_with("http://") {
            self.fail("proxy.httpProxy", "is no http:// address", "the scheme must be http");
        }
        let region = text(root, "/platform/aws/region");
        let no_proxy: Vec<&str> = text(root, "/proxy/noProxy").split(',').map(str::trim).collect();
        for service in ["ec2", "elasticloadbalancing", "s3"] {
            let host = format!("{service}.{region}.{}", super::install_config::amazon(region));
            let covers = |entry: &str| host == entry || (entry.starts_with('.') && host.ends_with(entry));
            if !no_proxy.iter().any(|entry| covers(entry)) {
                self.fail(
                    "proxy.noProxy",
                    format!("lacks {host}"),
                    "its endpoint in the VPC would not be used; add it",
                );
            }
        }
    }
}
