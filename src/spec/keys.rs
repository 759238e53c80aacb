//! The keys of `cluster.toml` as a table: what each may hold. It finds the place of every mistake; the typed
//! [`super::Spec`] is made only of what passed. A test holds the two together.

use std::collections::BTreeMap;

use toml::de::{DeInteger, DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::problem::{Problem, nearest, shown};

/// What a key may hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    Text,
    Whole(i64, i64),
    Truth,
    Texts,
    TextMap,
    Choice(&'static [&'static str]),
}

#[derive(Debug, Clone, Copy)]
pub struct Key {
    pub path: &'static str,
    pub shape: Shape,
    /// It must be there whenever its section is needed (top sections always, nested ones when they are there).
    pub required: bool,
    /// A right value as it stands in the file.
    pub example: &'static str,
}

const fn key(path: &'static str, shape: Shape, example: &'static str) -> Key {
    Key { path, shape, required: false, example }
}
const fn required(path: &'static str, example: &'static str) -> Key {
    Key { path, shape: Shape::Text, required: true, example }
}

use Shape::{Choice, Text, TextMap, Texts, Truth, Whole};

pub const KEYS: &[Key] = &[
    required("cluster.name", "\"edge-lab\""),
    required("cluster.base_domain", "\"example.com\""),
    required("release.version", "\"4.18.12\""),
    key("release.arch", Text, "\"x86_64\""),
    key("release.pull_spec", Text, "\"quay.io/openshift-release-dev/ocp-release:4.18.12-x86_64\""),
    key("release.ca_file", Text, "\"source-ca.pem\""),
    required("aws.region", "\"us-east-2\""),
    key("aws.profile", Text, "\"default\""),
    key("aws.tags", TextMap, "{ team = \"edge\" }"),
    key("network.variant", Choice(&["disconnected", "private", "proxy"]), "\"disconnected\""),
    key("network.vpc_cidr", Text, "\"10.0.0.0/16\""),
    key("network.zones", Whole(1, 3), "1"),
    key("network.nat", Choice(&["zone", "one"]), "\"zone\""),
    key("network.extra_endpoints", Texts, "[\"ssm\"]"),
    Key { path: "network.existing.vpc_id", shape: Text, required: true, example: "\"vpc-0123456789abcdef0\"" },
    Key {
        path: "network.existing.private_subnets",
        shape: Texts,
        required: true,
        example: "[\"subnet-0123456789abcdef0\"]",
    },
    key("network.existing.public_subnets", Texts, "[\"subnet-0123456789abcdef1\"]"),
    key("network.existing.add_endpoints", Texts, "[\"s3\", \"ec2\"]"),
    key("network.cluster_cidr", Text, "\"10.128.0.0/14\""),
    key("network.host_prefix", Whole(8, 28), "23"),
    key("network.service_cidr", Text, "\"172.30.0.0/16\""),
    key("bastion.host", Text, "\"ec2-user@bastion.example.com\""),
    key("bastion.port", Whole(1, 65535), "22"),
    key("bastion.identity_file", Text, "\"~/.ssh/id_ed25519\""),
    key("bastion.host_key", Text, "\"ssh-ed25519 AAAA…\""),
    key("bastion.os", Choice(&["rhel9", "al2023", "fcos", "rhcos"]), "\"rhel9\""),
    key("bastion.user", Text, "\"ec2-user\""),
    key("bastion.instance_type", Text, "\"m6i.large\""),
    key("bastion.ami", Text, "\"ami-0123456789abcdef0\""),
    key("bastion.disk_gib", Whole(20, 16384), "120"),
    key("bastion.operator_cidr", Text, "\"198.51.100.7/32\""),
    key("bastion.elastic_ip", Truth, "false"),
    key("bastion.pull_through", Truth, "false"),
    key("bastion.proxy", Truth, "false"),
    key("bastion.workdir", Text, "\"bartizan\""),
    required("credentials.pull_secret", "\"pull-secret.json\""),
    required("credentials.ssh_public_key", "\"~/.ssh/id_ed25519.pub\""),
    key("credentials.ssh_private_key", Text, "\"~/.ssh/id_ed25519\""),
    key("credentials.mode", Choice(&["Mint", "Passthrough", "Manual"]), "\"Manual\""),
    key("credentials.manifests", Text, "\"ccoctl/manifests\""),
    key("tools.source", Choice(&["download", "directory", "present"]), "\"download\""),
    key("tools.directory", Text, "\"clients\""),
    key("tools.url", Text, "\"https://mirror.openshift.com/pub/openshift-v4/clients/ocp\""),
    required("mirror.host", "\"registry.edge-lab.example.com\""),
    key("mirror.port", Whole(1, 65535), "5000"),
    key("mirror.release_repository", Text, "\"openshift/release-images\""),
    key("mirror.component_repository", Text, "\"openshift/release\""),
    key("mirror.kind", Choice(&["managed", "existing"]), "\"managed\""),
    key("mirror.user", Text, "\"bartizan\""),
    key("mirror.password_file", Text, "\"mirror-password\""),
    key("mirror.ca_file", Text, "\"mirror-ca.pem\""),
    key("mirror.runtime", Choice(&["auto", "podman", "binary"]), "\"auto\""),
    key("mirror.storage", Text, "\"bartizan/registry\""),
    key("mirror.registry", Choice(&["distribution", "quay"]), "\"distribution\""),
    key("mirror.image", Text, "\"docker.io/library/registry:2\""),
    key("mirror.engine", Choice(&["bartizan", "oc-mirror", "oc-adm"]), "\"bartizan\""),
    key("mirror.workflow", Choice(&["direct", "via-disk", "from-disk"]), "\"direct\""),
    key("mirror.archive", Text, "\"/mnt/archive\""),
    key("mirror.jobs", Whole(1, 32), "6"),
    key("mirror.bandwidth", Text, "\"20M\""),
    key("mirror.subset", Choice(&["all", "core-21"]), "\"all\""),
    key("mirror.additional_images", Texts, "[\"registry.redhat.io/ubi9/ubi:latest\"]"),
    key(
        "mirror.operators",
        Texts,
        "[\"registry.redhat.io/redhat/redhat-operator-index:v4.18 odf-operator:stable-4.18 web-terminal\"]",
    ),
    key("install.control_plane_replicas", Whole(1, 3), "3"),
    key("install.control_plane_type", Text, "\"m6i.xlarge\""),
    key("install.compute_replicas", Whole(0, 255), "2"),
    key("install.compute_type", Text, "\"m6i.large\""),
    key("install.publish", Choice(&["Internal", "External"]), "\"Internal\""),
    key("install.fips", Truth, "false"),
    key("install.service_endpoints", TextMap, "{ ec2 = \"https://ec2.example.com\" }"),
    key("install.manifests", Text, "\"manifests\""),
    key("install.update_service", Text, "\"https://osus.example.com/api/upgrades_info/v1/graph\""),
];

/// The good part of a file, where its keys stand, and what is wrong with the rest.
pub struct Walked {
    /// Only known keys with values of the right shape; required ones that are missing or wrong hold their example.
    pub table: Table,
    /// Line of each key and section that is there.
    pub lines: BTreeMap<String, usize>,
    pub problems: Vec<Problem>,
}

/// Walk the whole text. Total: whatever the text, there is a table from which a spec can be made.
pub fn walk(text: &str, file: &str) -> Walked {
    let mut walk = Walk {
        file,
        starts: std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect(),
        last: text.lines().count().max(1),
        found: Walked { table: Table::new(), lines: BTreeMap::new(), problems: Vec::new() },
    };
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let line = walk.line(error.span().map_or(0, |span| span.start));
        let reason = error.message().lines().map(str::trim).collect::<Vec<_>>().join(", ");
        let found = format!("this is not TOML ({reason})");
        walk.say(line, "", found, "write sections as [section] and values as key = \"value\"".into());
    }
    // After a syntax error whatever follows may be read amiss: complaints about it would be noise.
    if errors.is_empty() {
        walk.section(root.get_ref(), "");
    }
    walk.fill(errors.is_empty());
    walk.found
}

struct Walk<'a> {
    file: &'a str,
    /// Byte offsets at which lines start.
    starts: Vec<usize>,
    last: usize,
    found: Walked,
}

impl Walk<'_> {
    fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset).clamp(1, self.last)
    }

    fn say(&mut self, line: usize, key: &str, found: String, want: String) {
        self.found.problems.push(Problem { file: self.file.to_owned(), line, key: key.to_owned(), found, want });
    }

    fn section(&mut self, table: &DeTable<'_>, at: &str) {
        for (name, value) in table {
            let path = if at.is_empty() { name.get_ref().to_string() } else { format!("{at}.{}", name.get_ref()) };
            let line = self.line(name.span().start);
            let prefix = format!("{path}.");
            if let Some(key) = KEYS.iter().find(|key| key.path == path) {
                self.found.lines.insert(path, line);
                self.value(key, value, line);
            } else if KEYS.iter().any(|key| key.path.starts_with(&prefix)) {
                match value.get_ref() {
                    DeValue::Table(inner) => {
                        self.found.lines.insert(path.clone(), line);
                        self.section(inner, &path);
                    }
                    other => {
                        let want = format!("make it a section: [{path}] on a line of its own, its keys below");
                        self.say(line, &path, format!("is {}", described(other)), want);
                    }
                }
            } else {
                self.unknown(&path, at, line);
            }
        }
    }

    fn unknown(&mut self, path: &str, at: &str, line: usize) {
        let prefix = if at.is_empty() { String::new() } else { format!("{at}.") };
        let siblings = KEYS.iter().filter_map(|key| key.path.strip_prefix(&prefix)?.split('.').next());
        let name = path.strip_prefix(&prefix).unwrap_or(path);
        let elsewhere = || KEYS.iter().map(|key| key.path).find(|known| known.rsplit('.').next() == Some(name));
        let known: Vec<&str> = siblings.clone().collect::<std::collections::BTreeSet<_>>().into_iter().collect();
        let want = match nearest(name, siblings) {
            Some(meant) => format!("did you mean {prefix}{meant}?"),
            None => match elsewhere() {
                Some(other) => format!("did you mean {other}?"),
                None if at.is_empty() => format!("the sections are {}", known.join(", ")),
                None => format!("the keys of [{at}] are {}", known.join(", ")),
            },
        };
        let shown_path: String = path.chars().filter(|c| !c.is_control()).take(80).collect();
        self.say(line, &shown_path, "is not known".into(), want);
    }

    fn value(&mut self, key: &Key, value: &Spanned<DeValue<'_>>, line: usize) {
        match read(key.shape, value.get_ref()) {
            Ok(value) => put(&mut self.found.table, key.path, value),
            Err(found) => {
                let want = match key.shape {
                    Choice(choices) => {
                        let all = choices.iter().map(|choice| format!("\"{choice}\"")).collect::<Vec<_>>().join(" or ");
                        format!("give {all}")
                    }
                    Whole(least, most) => {
                        format!("give a whole number from {least} to {most}, for example {}", key.example)
                    }
                    Text => format!("give a text, for example {}", key.example),
                    Truth => "give true or false".into(),
                    Texts => format!("give a list of texts, for example {}", key.example),
                    TextMap => format!("give texts by name, for example {}", key.example),
                };
                self.say(line, key.path, format!("is {found}"), want);
            }
        }
    }

    /// Put the examples of required keys where nothing usable stands, so that the rest can be checked as well.
    fn fill(&mut self, complain: bool) {
        for key in KEYS.iter().filter(|key| key.required) {
            let (section, _) = key.path.rsplit_once('.').unwrap_or(("", key.path));
            let nested = section.contains('.');
            if has(&self.found.table, key.path) || (nested && !self.found.lines.contains_key(section)) {
                continue;
            }
            if complain && !self.found.lines.contains_key(key.path) {
                let line = self.found.lines.get(section).copied().unwrap_or(self.last);
                let want = format!("add it to [{section}], for example {}", tail(key));
                self.say(line, key.path, "is missing".into(), want);
            }
            let text = key.example.trim_matches(['[', ']', '"']).to_owned();
            let value = match key.shape {
                Texts => Value::Array(vec![Value::String(text)]),
                _ => Value::String(text),
            };
            put(&mut self.found.table, key.path, value);
        }
    }
}

fn tail(key: &Key) -> String {
    format!("{} = {}", key.path.rsplit('.').next().unwrap_or(key.path), key.example)
}

fn whole(integer: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// The value, or what stands there instead.
fn read(shape: Shape, value: &DeValue<'_>) -> Result<Value, String> {
    let text = |value: &DeValue<'_>| value.as_str().map(|text| Value::String(text.to_owned()));
    let good = match (shape, value) {
        (Text, value) => text(value),
        (Choice(choices), DeValue::String(have)) => {
            choices.contains(&have.as_ref()).then(|| Value::String(have.to_string()))
        }
        (Whole(least, most), DeValue::Integer(have)) => {
            whole(have).filter(|have| (least..=most).contains(have)).map(Value::Integer)
        }
        (Truth, DeValue::Boolean(have)) => Some(Value::Boolean(*have)),
        (Texts, DeValue::Array(have)) => {
            have.iter().map(|one| text(one.get_ref())).collect::<Option<Vec<_>>>().map(Value::Array)
        }
        (TextMap, DeValue::Table(have)) => have
            .iter()
            .map(|(name, one)| Some((name.get_ref().to_string(), text(one.get_ref())?)))
            .collect::<Option<Table>>()
            .map(Value::Table),
        _ => None,
    };
    good.ok_or_else(|| described(value))
}

fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => shown(text),
        DeValue::Integer(number) => number.to_string().chars().take(24).collect(),
        DeValue::Float(number) => number.to_string().chars().take(24).collect(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(list) if list.iter().all(|one| one.get_ref().is_str()) => "a list of texts".into(),
        DeValue::Array(_) => "a list that holds other things than texts".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

fn has(table: &Table, path: &str) -> bool {
    let mut names = path.split('.');
    let last = names.next_back().unwrap_or(path);
    let mut here = table;
    for name in names {
        match here.get(name) {
            Some(Value::Table(inner)) => here = inner,
            _ => return false,
        }
    }
    here.contains_key(last)
}

fn put(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}
