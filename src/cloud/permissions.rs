//! What the operator's account must be allowed to do, for a given spec: `assets/permissions.toml`, as IAM policies to hand
//! to whoever gives permissions, and as a list to ask IAM about. Pure.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use serde::Deserialize;

use super::policy::{Effect, LONGEST, Policy, Statement};
use crate::spec::{CredentialsMode, MirrorKind, NetworkVariant, Spec};

const PERMISSIONS: &str = include_str!("../../assets/permissions.toml");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    group: Vec<Group>,
}

/// Actions that are needed for one reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    pub of: Needer,
    pub when: When,
    /// For a person.
    pub why: String,
    /// `service:Action` as IAM has them.
    pub actions: Vec<String>,
    /// What they may be limited to; empty: IAM or the installer wants `*`.
    #[serde(default)]
    pub resources: Vec<String>,
}

/// Whose calls these are; both run with the same credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Needer {
    Bartizan,
    Installer,
}

/// For which specs a group counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    Always,
    /// The network is made.
    Network,
    /// With NAT gateways.
    Nat,
    /// The bastion is made.
    Bastion,
    /// The mirror's name gets a private zone.
    RegistryZone,
    /// The users of the cluster's operators are made.
    Identities,
    /// `*.apps` is written from outside.
    AppsRecord,
    Mint,
    Passthrough,
}

impl When {
    fn holds(self, spec: &Spec) -> bool {
        let makes_bastion = spec.bastion.host.is_none();
        let makes_network = spec.network.existing.is_none() && makes_bastion;
        let mode = spec.credentials_mode();
        match self {
            When::Always => true,
            When::Network => makes_network,
            When::Nat => makes_network && spec.network.variant == NetworkVariant::Private,
            When::Bastion => makes_bastion,
            When::RegistryZone => makes_bastion && spec.mirror.kind == MirrorKind::Managed,
            When::Identities => mode == CredentialsMode::Manual && spec.credentials.manifests.is_none(),
            When::AppsRecord => spec.writes_apps_record(),
            When::Mint => mode == CredentialsMode::Mint,
            When::Passthrough => mode == CredentialsMode::Passthrough,
        }
    }
}

/// Every group of the file. A test rules out that the file built in is broken; none then.
pub fn groups() -> &'static [Group] {
    static GROUPS: OnceLock<Vec<Group>> = OnceLock::new();
    GROUPS.get_or_init(|| toml::from_str::<File>(PERMISSIONS).map(|file| file.group).unwrap_or_default())
}

/// The groups that count for a spec.
pub fn needed(spec: &Spec) -> impl Iterator<Item = &'static Group> {
    groups().iter().filter(|group| group.when.holds(spec))
}

/// Every action that this program, or the installer with the same credentials, may call for a spec; sorted, each once.
/// Some are only needed on certain resources: see [`statements`].
pub fn needed_actions(spec: &Spec) -> Vec<&'static str> {
    let all: BTreeSet<&str> = needed(spec).flat_map(|group| group.actions.iter().map(String::as_str)).collect();
    all.into_iter().collect()
}

/// `aws`, `aws-us-gov`, `aws-cn`: the second part of every ARN of a region.
pub fn partition(region: &str) -> &'static str {
    match region {
        region if region.starts_with("us-gov-") => "aws-us-gov",
        region if region.starts_with("cn-") => "aws-cn",
        _ => "aws",
    }
}

/// The domain of a region's services: `sts.<region>.<domain>`.
pub fn domain(region: &str) -> &'static str {
    if partition(region) == "aws-cn" { "amazonaws.com.cn" } else { "amazonaws.com" }
}

/// What an action is to be asked about when it may be allowed on some resources only: an ARN that those match.
pub fn resource_of(action: &str, region: &str, account: &str) -> Option<String> {
    let limited = groups()
        .iter()
        .find(|group| !group.resources.is_empty() && group.actions.iter().any(|other| other == action))?;
    let of_policy = action.contains("Policy") && !action.contains("User");
    let kind = if of_policy { ":policy/" } else { ":user/" };
    let template = limited.resources.iter().find(|resource| resource.contains(kind))?;
    let arn = template.replace("{partition}", partition(region)).replace("::*:", &format!("::{account}:"));
    Some(arn.replace('*', "any"))
}

/// What has to be allowed: one statement per set of resources, each action once.
pub fn statements(spec: &Spec, of: Needer) -> Vec<Statement> {
    let partition = partition(&spec.aws.region);
    let mut statements: Vec<Statement> = Vec::new();
    for group in needed(spec).filter(|group| group.of == of) {
        let resource: Vec<String> = match group.resources.as_slice() {
            [] => vec!["*".into()],
            limited => limited.iter().map(|one| one.replace("{partition}", partition)).collect(),
        };
        let at = statements.iter().position(|statement| statement.resource == resource).unwrap_or_else(|| {
            let (effect, action) = (Effect::Allow, Vec::new());
            statements.push(Statement { sid: None, effect, action, resource, condition: serde_json::Map::new() });
            statements.len() - 1
        });
        if let Some(statement) = statements.get_mut(at) {
            statement.action.extend(group.actions.iter().cloned());
            statement.action.sort_unstable();
            statement.action.dedup();
        }
    }
    statements
}

/// The policies to attach to the operator's user or role, by name; each within IAM's limit.
pub fn policies(spec: &Spec) -> Vec<(String, Policy)> {
    let mut policies = Vec::new();
    for (of, name) in [(Needer::Bartizan, "bartizan"), (Needer::Installer, "openshift-install")] {
        let parts = split(statements(spec, of));
        let many = parts.len() > 1;
        policies.extend(parts.into_iter().enumerate().map(|(index, policy)| {
            let name = if many { format!("{name}-{}", index + 1) } else { name.to_owned() };
            (name, policy)
        }));
    }
    policies
}

/// As few policies as hold all statements.
fn split(statements: Vec<Statement>) -> Vec<Policy> {
    let mut parts: Vec<Policy> = Vec::new();
    for statement in statements {
        for action in &statement.action {
            let one = Statement { action: vec![action.clone()], ..statement.clone() };
            let fits = parts.last().is_some_and(|last| last.size() + Policy::new(vec![one.clone()]).size() < LONGEST);
            if !fits {
                parts.push(Policy::new(Vec::new()));
            }
            let Some(last) = parts.last_mut() else { continue };
            match last.statement.last_mut().filter(|open| open.resource == statement.resource) {
                Some(open) => open.action.push(action.clone()),
                None => last.statement.push(one),
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_limited_is_asked_about_there() {
        let of = |action| resource_of(action, "us-gov-west-1", "123456789012");
        assert_eq!(of("iam:CreateUser").as_deref(), Some("arn:aws-us-gov:iam::123456789012:user/bartizan/any"));
        assert_eq!(of("iam:AttachUserPolicy"), of("iam:CreateUser"));
        assert_eq!(of("iam:DeletePolicy").as_deref(), Some("arn:aws-us-gov:iam::123456789012:policy/bartizan/any"));
        assert_eq!(of("ec2:CreateVpc"), None);
    }

    #[test]
    fn the_file_is_whole() {
        let file: File = toml::from_str(PERMISSIONS).unwrap();
        for group in &file.group {
            assert!(!group.why.is_empty() && !group.actions.is_empty());
            for action in &group.actions {
                let (service, name) = action.split_once(':').unwrap();
                assert!(service.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()), "{action}");
                assert!(name.starts_with(|c: char| c.is_ascii_uppercase()), "{action}");
                assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{action}");
            }
            let mut once = group.actions.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once.len(), group.actions.len(), "an action twice in: {}", group.why);
        }
        let mut spec = crate::spec::parse(crate::spec::example(), "cluster.toml").unwrap();
        for (variant, mode) in [
            (NetworkVariant::Disconnected, CredentialsMode::Manual),
            (NetworkVariant::Private, CredentialsMode::Mint),
            (NetworkVariant::Proxy, CredentialsMode::Passthrough),
        ] {
            spec.network.variant = variant;
            spec.credentials.mode = Some(mode);
            let here: Vec<When> = needed(&spec).map(|group| group.when).collect();
            assert_eq!(here.contains(&When::Nat), variant == NetworkVariant::Private);
            assert_eq!(here.contains(&When::AppsRecord), variant == NetworkVariant::Disconnected);
            assert_eq!(here.contains(&When::Identities), mode == CredentialsMode::Manual);
            assert_eq!(here.contains(&When::Mint), mode == CredentialsMode::Mint);
            assert_eq!(here.contains(&When::Passthrough), mode == CredentialsMode::Passthrough);
        }
    }
}
