//! The way to AWS: credentials, region, proxy, TLS, timeouts. The SDK makes every call once: the ledger decides about
//! another try.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};

use super::Aws;
use crate::cloud::{Class, CloudError, Patience};
use crate::spec::AwsSpec;

/// Chain of credentials and endpoints as every AWS tool has it: environment, profile (SSO, process, role), instance.
/// `AWS_ENDPOINT_URL`, `HTTPS_PROXY` with `NO_PROXY`, and `AWS_CA_BUNDLE` are honoured. No call is made.
///
/// # Errors
/// When `AWS_CA_BUNDLE` cannot be read.
pub async fn connect(spec: &AwsSpec) -> Result<Aws, CloudError> {
    Ok(Aws::new(&loader(spec)?.load().await, spec))
}

/// What [`connect`] loads, for who wants to say more: other credentials, another endpoint.
///
/// # Errors
/// As [`connect`].
pub fn loader(spec: &AwsSpec) -> Result<ConfigLoader, CloudError> {
    let tls = trust()?;
    let http = Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder()
            .proxy_config(ProxyConfig::from_env())
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(tls.clone());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector.build()
    });
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(Duration::from_secs(60))
        .operation_attempt_timeout(Duration::from_secs(90))
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(spec.region.clone()))
        .http_client(http)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::disabled());
    if let Some(profile) = &spec.profile {
        loader = loader.profile_name(profile);
    }
    Ok(loader)
}

/// Whom the machine trusts, and who stands in `AWS_CA_BUNDLE` (a proxy that looks into TLS).
fn trust() -> Result<TlsContext, CloudError> {
    let wrong = |why: String| CloudError::of(Class::Input, "AWS_CA_BUNDLE", why);
    let mut store = TrustStore::default();
    if let Some(file) = std::env::var_os("AWS_CA_BUNDLE").filter(|file| !file.is_empty()) {
        let pem = std::fs::read(&file).map_err(|error| wrong(format!("{}: {error}", file.display())))?;
        store.add_pem_certificate(pem);
    }
    TlsContext::builder().with_trust_store(store).build().map_err(|error| wrong(error.to_string()))
}

impl Aws {
    /// The clients of all services that are used.
    pub fn new(config: &SdkConfig, spec: &AwsSpec) -> Self {
        let elsewhere = config.endpoint_url().is_some();
        // Names of buckets are no names of hosts where the endpoint is not AWS's own.
        let s3 = aws_sdk_s3::config::Builder::from(config).force_path_style(elsewhere).build();
        Self {
            region: spec.region.clone(),
            patience: Patience::default(),
            elsewhere,
            ec2: aws_sdk_ec2::Client::new(config),
            elb: aws_sdk_elasticloadbalancing::Client::new(config),
            elb2: aws_sdk_elasticloadbalancingv2::Client::new(config),
            iam: aws_sdk_iam::Client::new(config),
            quotas: aws_sdk_servicequotas::Client::new(config),
            route53: aws_sdk_route53::Client::new(config),
            s3: aws_sdk_s3::Client::from_conf(s3),
            sts: aws_sdk_sts::Client::new(config),
        }
    }
}
