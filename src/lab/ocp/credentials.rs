//! What the operators of the lab's release ask to be allowed, and what they do without the secrets that they asked for.

/// Files of the release's manifests.
pub const REQUESTS: &[(&str, &str)] = &[
    (
        "0000_30_cluster-api_01_credentials-request.yaml",
        include_str!("../../../assets/credentials-requests/0000_30_cluster-api_01_credentials-request.yaml"),
    ),
    (
        "0000_30_machine-api-operator_00_credentials-request.yaml",
        include_str!("../../../assets/credentials-requests/0000_30_machine-api-operator_00_credentials-request.yaml"),
    ),
    (
        "0000_50_cloud-credential-operator_05-iam-ro-credentialsrequest.yaml",
        include_str!(
            "../../../assets/credentials-requests/0000_50_cloud-credential-operator_05-iam-ro-credentialsrequest.yaml"
        ),
    ),
    (
        "0000_50_cluster-image-registry-operator_01-registry-credentials-request.yaml",
        include_str!(
            "../../../assets/credentials-requests/0000_50_cluster-image-registry-operator_01-registry-credentials-request.yaml"
        ),
    ),
    (
        "0000_50_cluster-ingress-operator_00-ingress-credentials-request.yaml",
        include_str!(
            "../../../assets/credentials-requests/0000_50_cluster-ingress-operator_00-ingress-credentials-request.yaml"
        ),
    ),
    (
        "0000_50_cluster-network-operator_02-cncc-credentials.yaml",
        include_str!("../../../assets/credentials-requests/0000_50_cluster-network-operator_02-cncc-credentials.yaml"),
    ),
    (
        "0000_50_cluster-storage-operator_03_credentials_request_aws.yaml",
        include_str!(
            "../../../assets/credentials-requests/0000_50_cluster-storage-operator_03_credentials_request_aws.yaml"
        ),
    ),
];

/// Cluster operator → the secret without which it does not work.
const WANTED: &[(&str, &str)] = &[
    ("network", "openshift-cloud-network-config-controller/cloud-credentials"),
    ("machine-api", "openshift-machine-api/aws-cloud-credentials"),
    ("storage", "openshift-cluster-csi-drivers/ebs-cloud-credentials"),
    ("image-registry", "openshift-image-registry/installer-cloud-credentials"),
    ("ingress", "openshift-ingress-operator/cloud-credentials"),
];

/// What `oc adm release extract --credentials-requests` writes: the documents of each file that are for `cloud` (of all
/// clouds without one), and with `included` those of the default features only.
pub fn extract(cloud: Option<&str>, included: bool) -> Vec<(&'static str, String)> {
    let for_cloud = |document: &&str| cloud.is_none_or(|cloud| cloud != "aws" || document.contains("AWSProviderSpec"));
    let default = |document: &&str| !included || !document.contains("release.openshift.io/feature-set");
    let file = |(name, text): &(&'static str, &str)| {
        let documents: Vec<&str> = text.split("\n---\n").filter(for_cloud).filter(default).map(str::trim_end).collect();
        (!documents.is_empty()).then(|| (*name, format!("---\n{}\n", documents.join("\n---\n"))))
    };
    REQUESTS.iter().filter_map(file).collect()
}

/// The secret that an operator misses, of those that the manifests had.
pub fn missing(operator: &str, secrets: &[String]) -> Option<&'static str> {
    let wanted = WANTED.iter().find(|(name, _)| *name == operator).map(|(_, secret)| *secret)?;
    (!secrets.iter().any(|secret| secret == wanted)).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::identity::{Request, parse};

    #[test]
    fn the_requests_are_those_of_the_operators() {
        let requests = |cloud, included| -> Vec<Request> {
            extract(cloud, included).iter().flat_map(|(name, text)| parse(name, text).unwrap()).collect()
        };
        let secrets: Vec<String> =
            requests(Some("aws"), true).iter().map(|one| format!("{}/{}", one.namespace, one.secret)).collect();
        for (operator, secret) in WANTED {
            assert_eq!(missing(operator, &secrets), None, "{secret}");
            assert_eq!(missing(operator, &[]), Some(*secret));
        }
        assert_eq!(missing("console", &[]), None);
        assert_eq!(REQUESTS.len(), extract(None, false).len());
        // Without --included there is one for a namespace that this cluster never has.
        assert_eq!(extract(Some("aws"), false).len(), secrets.len() + 1);
        assert_eq!(requests(None, false), requests(Some("aws"), true));
    }
}
