//! What machines will be told at their first boot: the installer's Ignition configs, read before anything is made with them.
//! Pure. Paths are those of openshift/installer `pkg/asset/ignition/bootstrap/common.go` and `data/data/bootstrap`.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde_json::Value;
use x509_parser::pem::Pem;

use crate::model::event::Evidence;
use crate::registry::outputs::DigestSource;
use crate::spec::manifests::ignition;

const TRUST: &str = "/etc/pki/ca-trust/source/anchors/ca.crt";
const REGISTRIES: &str = "/etc/containers/registries.conf";
const AUTH: &str = "/root/.docker/config.json";
const TLS: &str = "/opt/openshift/tls/";
const MANIFESTS: &str = "/opt/openshift/";
/// Port of the machine config server.
const MCS: u16 = 22623;

/// What has to be in the configs.
pub struct Wanted<'a> {
    /// `<name>.<base_domain>`
    pub domain: &'a str,
    /// `host:port`
    pub registry: &'a str,
    /// PEM; may be empty when the mirror's CA is a public one.
    pub trust: &'a str,
    pub sources: &'a [DigestSource],
    /// Authorized key of `core`.
    pub ssh_key: &'a str,
}

/// The three files that `create ignition-configs` writes.
pub struct Configs<'a> {
    pub bootstrap: &'a [u8],
    pub master: &'a [u8],
    pub worker: &'a [u8],
}

/// What was found in them.
#[derive(Debug)]
pub struct Found {
    pub evidence: Vec<Evidence>,
    /// When the first of the certificates ends; the installer makes them for a day.
    pub until: Option<Timestamp>,
}

/// Everything that is wrong, or what was seen.
///
/// # Errors
/// One sentence for each thing that would keep a machine from booting into the cluster.
pub fn examine(configs: &Configs<'_>, wanted: &Wanted<'_>, now: Timestamp) -> Result<Found, Vec<String>> {
    let mut look = Look { wrong: Vec::new(), evidence: Vec::new(), wanted };
    let until = look.bootstrap(configs.bootstrap, now);
    look.pointer("master", configs.master, now);
    look.pointer("worker", configs.worker, now);
    if look.wrong.is_empty() { Ok(Found { evidence: look.evidence, until }) } else { Err(look.wrong) }
}

struct Look<'a> {
    wrong: Vec<String>,
    evidence: Vec<Evidence>,
    wanted: &'a Wanted<'a>,
}

impl Look<'_> {
    fn saw(&mut self, what: impl Into<String>, said: impl Into<String>) {
        self.evidence.push(Evidence::new(what, said));
    }

    fn read(&mut self, name: &str, bytes: &[u8]) -> Option<Value> {
        let text = String::from_utf8_lossy(bytes);
        ignition(&text).map_err(|why| self.wrong.push(format!("{name}.ign: {why}"))).ok()
    }

    fn bootstrap(&mut self, bytes: &[u8], now: Timestamp) -> Option<Timestamp> {
        let config = self.read("bootstrap", bytes)?;
        let files = files(&config);
        self.trust(&files);
        self.mirrors(&files);
        self.auth(&files);
        self.key(&config);
        self.certificates(&files, now)
    }

    fn trust(&mut self, files: &BTreeMap<String, Vec<u8>>) {
        let wanted = blocks(self.wanted.trust.as_bytes());
        if wanted.is_empty() {
            return;
        }
        let have = files.get(TRUST).map(|bytes| blocks(bytes)).unwrap_or_default();
        if wanted.is_subset(&have) {
            self.saw(format!("bootstrap.ign {TRUST}"), format!("has the mirror's CA ({} in all)", have.len()));
        } else {
            self.wrong.push(format!("bootstrap.ign: {TRUST} lacks the mirror's CA: every pull would end with x509"));
        }
    }

    fn mirrors(&mut self, files: &BTreeMap<String, Vec<u8>>) {
        if self.wanted.sources.is_empty() {
            return;
        }
        let text = files.get(REGISTRIES).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default();
        let rules = match registries(&text) {
            Ok(rules) => rules,
            Err(why) => return self.wrong.push(format!("bootstrap.ign: {REGISTRIES}: {why}")),
        };
        for source in self.wanted.sources {
            let have = rules.get(&source.source).cloned().unwrap_or_default();
            if let Some(missing) = source.mirrors.iter().find(|mirror| !have.contains(*mirror)) {
                self.wrong.push(format!("bootstrap.ign: {REGISTRIES} has no mirror {missing} for {}", source.source));
            } else {
                self.saw(format!("bootstrap.ign {REGISTRIES}"), format!("{} → {}", source.source, have.join(", ")));
            }
        }
        // The nodes get theirs from the cluster, which has it from an object among the manifests.
        let kinds = ["ImageDigestMirrorSet", "ImageContentSourcePolicy"];
        let named = files.iter().filter(|(path, _)| path.starts_with(MANIFESTS)).find_map(|(path, bytes)| {
            let text = String::from_utf8_lossy(bytes);
            let kind = kinds.iter().find(|kind| text.contains(&format!("kind: {kind}")))?;
            text.contains(&format!("{}/", self.wanted.registry)).then(|| (path.clone(), (*kind).to_owned()))
        });
        match named {
            Some((path, kind)) => self.saw(format!("bootstrap.ign {path}"), kind),
            None => self.wrong.push(format!(
                "bootstrap.ign: no manifest sends the nodes to {}; only the bootstrap machine would use the mirror",
                self.wanted.registry
            )),
        }
    }

    fn auth(&mut self, files: &BTreeMap<String, Vec<u8>>) {
        let config: Option<Value> = files.get(AUTH).and_then(|bytes| serde_json::from_slice(bytes).ok());
        let known = config.as_ref().and_then(|config| config.get("auths")?.get(self.wanted.registry)).is_some();
        if known {
            self.saw(format!("bootstrap.ign {AUTH}"), format!("has an account at {}", self.wanted.registry));
        } else {
            self.wrong.push(format!("bootstrap.ign: {AUTH} has no entry for {}: 401", self.wanted.registry));
        }
    }

    fn key(&mut self, config: &Value) {
        let users = config.pointer("/passwd/users").and_then(Value::as_array).cloned().unwrap_or_default();
        let core = users.iter().find(|user| user["name"] == "core");
        let keys = core.and_then(|user| user["sshAuthorizedKeys"].as_array()).cloned().unwrap_or_default();
        let wanted = words(self.wanted.ssh_key);
        if keys.iter().filter_map(Value::as_str).any(|key| words(key) == wanted) {
            self.saw("bootstrap.ign passwd.users core", "our key may log in");
        } else {
            self.wrong.push("bootstrap.ign: core has not our key: nobody could look at the bootstrap machine".into());
        }
    }

    fn certificates(&mut self, files: &BTreeMap<String, Vec<u8>>, now: Timestamp) -> Option<Timestamp> {
        let ends = files.iter().filter(|(path, _)| path.starts_with(TLS) && path.ends_with(".crt"));
        let first = ends.flat_map(|(path, bytes)| ends_of(bytes).into_iter().map(move |end| (end, path))).min()?;
        let (until, path) = first;
        if until <= now {
            self.wrong.push(format!("bootstrap.ign: {path} ended at {until}: the files are older than a day"));
        } else {
            let hours = until.duration_since(now).as_hours();
            self.saw(format!("bootstrap.ign {path}"), format!("is the first to end, at {until}, in {hours} h"));
        }
        Some(until)
    }

    /// Masters and workers are told to ask the machine config server, and whom to trust in that.
    fn pointer(&mut self, role: &str, bytes: &[u8], now: Timestamp) {
        let Some(config) = self.read(role, bytes) else { return };
        let wanted = format!("https://api-int.{}:{MCS}/config/{role}", self.wanted.domain);
        let source = config.pointer("/ignition/config/merge/0/source").and_then(Value::as_str).unwrap_or_default();
        if source != wanted {
            self.wrong.push(format!("{role}.ign: it asks {source:?} and not {wanted}"));
            return;
        }
        let authority = config.pointer("/ignition/security/tls/certificateAuthorities/0/source");
        let ends = ends_of(&authority.and_then(Value::as_str).and_then(data).unwrap_or_default());
        match ends.iter().min() {
            None => self.wrong.push(format!("{role}.ign: it trusts no CA, and {wanted} has a certificate of its own")),
            Some(end) if *end <= now => self.wrong.push(format!("{role}.ign: the CA it trusts ended at {end}")),
            Some(_) => self.saw(format!("{role}.ign"), format!("asks {wanted}")),
        }
    }
}

fn words(key: &str) -> Vec<&str> {
    key.split_whitespace().take(2).collect()
}

/// Files of a config by path, decoded.
fn files(config: &Value) -> BTreeMap<String, Vec<u8>> {
    let list = config.pointer("/storage/files").and_then(Value::as_array).cloned().unwrap_or_default();
    let one = |file: &Value| {
        let contents = file.get("contents")?;
        let bytes = data(contents.get("source")?.as_str()?)?;
        let bytes = match contents.get("compression").and_then(Value::as_str) {
            Some("gzip") => gunzip(&bytes)?,
            _ => bytes,
        };
        Some((file.get("path")?.as_str()?.to_owned(), bytes))
    };
    list.iter().filter_map(one).collect()
}

fn gunzip(bytes: &[u8]) -> Option<Vec<u8>> {
    use std::io::Read as _;
    /// No file of a config is near this.
    const MOST: u64 = 64 << 20;
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).take(MOST).read_to_end(&mut plain).ok()?;
    Some(plain)
}

/// The content of a `data:` URL (RFC 2397).
pub(super) fn data(url: &str) -> Option<Vec<u8>> {
    let (kind, content) = url.strip_prefix("data:")?.split_once(',')?;
    if kind.ends_with(";base64") {
        return BASE64_STANDARD.decode(content).ok();
    }
    let mut bytes = Vec::new();
    let mut rest = content.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let value = digit(rest.next())? * 16 + digit(rest.next())?;
        bytes.push(u8::try_from(value).ok()?);
    }
    Some(bytes)
}

/// The certificates of a PEM text, as they are.
fn blocks(pem: &[u8]) -> BTreeSet<Vec<u8>> {
    Pem::iter_from_buffer(pem).filter_map(|pem| Some(pem.ok()?.contents)).collect()
}

fn ends_of(pem: &[u8]) -> Vec<Timestamp> {
    let end = |pem: Pem| Timestamp::from_second(pem.parse_x509().ok()?.validity().not_after.timestamp()).ok();
    Pem::iter_from_buffer(pem).filter_map(|pem| end(pem.ok()?)).collect()
}

/// Mirrors by source, of a `registries.conf` (containers/image, `containers-registries.conf(5)`).
fn registries(text: &str) -> Result<BTreeMap<String, Vec<String>>, String> {
    let table: toml::Table = toml::from_str(text).map_err(|error| format!("it is no TOML: {}", error.message()))?;
    let field = |table: &toml::Value, key: &str| table.get(key).and_then(toml::Value::as_str).map(str::to_owned);
    let mut rules: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for registry in table.get("registry").and_then(toml::Value::as_array).into_iter().flatten() {
        let prefix = field(registry, "prefix").filter(|prefix| !prefix.is_empty());
        let Some(source) = prefix.or_else(|| field(registry, "location")) else { continue };
        let mirrors = registry.get("mirror").and_then(toml::Value::as_array).into_iter().flatten();
        rules.entry(source).or_default().extend(mirrors.filter_map(|mirror| field(mirror, "location")));
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_urls_and_mirror_rules() {
        assert_eq!(data("data:,a%20b%2F").unwrap(), b"a b/");
        assert_eq!(data("data:text/plain;charset=utf-8;base64,YQ==").unwrap(), b"a");
        assert_eq!(data("https://x"), None);
        let text = "unqualified-search-registries = []\n[[registry]]\n  prefix = \"\"\n  location = \"quay.io/a\"\n  \
                    mirror-by-digest-only = true\n  [[registry.mirror]]\n    location = \"reg:5000/a\"\n";
        assert_eq!(registries(text).unwrap()["quay.io/a"], ["reg:5000/a"]);
        assert!(registries("[[registry").is_err());
    }
}
