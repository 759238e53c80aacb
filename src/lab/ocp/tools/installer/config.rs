//! The install config, as far as the installer of the lab looks at it.

use serde_json::Value;

use super::{CONFIG, Fatal};
use crate::lab::ocp::pull::PullConfig;

/// What the installer needs of install-config.yaml.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub raw: Value,
    pub name: String,
    pub base_domain: String,
    pub region: String,
    pub subnets: Vec<String>,
    pub masters: usize,
    pub workers: usize,
}

pub(super) fn invalid(why: &str) -> Fatal {
    Fatal(
        CONFIG,
        format!(
            "failed to fetch Metadata: failed to load asset \"Install Config\": failed to create install config: {why}"
        ),
    )
}

impl Config {
    pub(super) fn parse(text: &str) -> Result<Self, Fatal> {
        let raw: Value = yaml_serde::from_str(text).map_err(|why| {
            invalid(&format!("failed to unmarshal install-config.yaml: error converting YAML to JSON: yaml: {why}"))
        })?;
        Self::from_value(raw)
    }

    pub(super) fn from_value(raw: Value) -> Result<Self, Fatal> {
        let text = |pointer: &str| raw.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let need = |pointer: &str, key: &str| {
            text(pointer)
                .filter(|value| !value.is_empty())
                .ok_or_else(|| invalid(&format!("invalid \"install-config.yaml\" file: {key}: Required value")))
        };
        if raw["apiVersion"] != "v1" {
            return Err(invalid(
                "invalid \"install-config.yaml\" file: apiVersion: Required value: install-config version required",
            ));
        }
        let secret = need("/pullSecret", "pullSecret")?;
        if serde_json::from_str::<Value>(&secret).map_or(true, |secret| !secret["auths"].is_object()) {
            return Err(invalid(
                "invalid \"install-config.yaml\" file: pullSecret: Invalid value: \"\": auths required",
            ));
        }
        if raw.get("imageContentSources").is_some() && raw.get("imageDigestSources").is_some() {
            return Err(invalid(
                "invalid \"install-config.yaml\" file: imageContentSources: Invalid value: cannot set imageContentSources and imageDigestSources at the same time",
            ));
        }
        if let Some(trust) = text("/additionalTrustBundle")
            && crate::lab::ocp::tls::roots(trust.as_bytes()).map_or(true, |roots| roots.is_empty())
        {
            return Err(invalid(
                "invalid \"install-config.yaml\" file: additionalTrustBundle: Invalid value: invalid block",
            ));
        }
        let subnets = raw
            .pointer("/platform/aws/subnets")
            .or_else(|| raw.pointer("/platform/aws/vpc/subnets"))
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|subnet| subnet.as_str().or_else(|| subnet["id"].as_str()).map(str::to_owned))
            .collect();
        let count =
            |pointer: &str, default: u64| raw.pointer(pointer).and_then(Value::as_u64).unwrap_or(default) as usize;
        Ok(Self {
            name: need("/metadata/name", "metadata.name")?,
            base_domain: need("/baseDomain", "baseDomain")?,
            region: need("/platform/aws/region", "platform.aws.region")?,
            subnets,
            masters: count("/controlPlane/replicas", 3).min(5),
            workers: count("/compute/0/replicas", 3).min(10),
            raw,
        })
    }

    /// The first machine network: what the rules of the security groups let in.
    pub(super) fn machine_network(&self) -> String {
        let cidr = self.raw.pointer("/networking/machineNetwork/0/cidr").and_then(Value::as_str);
        cidr.unwrap_or("10.0.0.0/16").to_owned()
    }

    pub(super) fn pull(&self) -> PullConfig {
        let rules = self.raw.get("imageDigestSources").or_else(|| self.raw.get("imageContentSources"));
        let mirrors = rules
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|rule| {
                let mirrors =
                    rule["mirrors"].as_array()?.iter().filter_map(|mirror| mirror.as_str().map(str::to_owned));
                Some((rule["source"].as_str()?.to_owned(), mirrors.collect()))
            })
            .collect();
        let text = |key: &str| self.raw[key].as_str().unwrap_or_default().to_owned();
        PullConfig { mirrors, trust: text("additionalTrustBundle"), pull_secret: text("pullSecret") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_without_a_pull_secret_is_refused_with_the_installers_words() {
        let Err(Fatal(code, why)) = Config::parse("apiVersion: v1\nbaseDomain: example.com\nmetadata: {name: a}\n")
        else {
            panic!("it was taken");
        };
        assert_eq!(code, CONFIG);
        assert!(why.contains("pullSecret: Required value"), "{why}");
    }
}
