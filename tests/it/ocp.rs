//! The lab's OpenShift side: a whole installation without the product, and real clients against its servers.

use std::path::Path;
use std::time::Duration;

use bartizan::cloud::{Cloud, Create, Kind};
use bartizan::lab::machines::Machine;
use bartizan::lab::ocp::ca::Ca;
use bartizan::lab::ocp::journal;
use bartizan::lab::ocp::scenario::Scenario;
use bartizan::lab::world::{Lab, LabOptions};
use serde_json::{Value, json};

const MIRROR: &str = "registry.edge-lab.example.com";

async fn lab(dir: &Path, scenario: &str) -> Lab {
    let options = LabOptions { dir: dir.to_path_buf(), scenario: scenario.into(), speed: 200.0, payload_mb: 8 };
    Lab::start(options).await.unwrap()
}

fn port(lab: &Lab) -> String {
    let spec: toml::Value = toml::from_str(&lab.spec_toml()).unwrap();
    spec["mirror"]["port"].as_integer().unwrap().to_string()
}

/// What stages 01 and 02 do, as short as can be; gives the subnet.
async fn bastion(lab: &Lab) -> (std::sync::Arc<Machine>, String) {
    let cloud = &lab.scene().cloud;
    let make = |kind: Kind, name: &str, properties: &[(&str, &str)]| Create {
        kind,
        tags: [("Name".to_owned(), name.to_owned())].into(),
        properties: properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        token: name.into(),
    };
    let vpc = cloud.create(&make(Kind::Vpc, "vpc", &[("CidrBlock", "10.0.0.0/16")])).await.unwrap();
    let subnet = make(Kind::Subnet, "subnet", &[("CidrBlock", "10.0.0.0/20"), ("VpcId", &vpc.id)]);
    let subnet = cloud.create(&subnet).await.unwrap();
    let key = std::fs::read_to_string(lab.scene().dir.join("id_ed25519.pub")).unwrap();
    cloud.create(&make(Kind::KeyPair, "key", &[("KeyName", "key"), ("PublicKeyMaterial", key.trim())])).await.unwrap();
    let instance = make(
        Kind::Instance,
        "edge-lab-bastion",
        &[
            ("SubnetId", &subnet.id),
            ("KeyName", "key"),
            ("RootVolumeSize", "120"),
            ("AssociatePublicIpAddress", "true"),
        ],
    );
    cloud.create(&instance).await.unwrap();
    for _ in 0..200 {
        if let Some(machine) = lab.scene().machines.machine("bastion") {
            return (machine, subnet.id);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no bastion");
}

/// What stage 05 does; gives the CA.
async fn registry(lab: &Lab, bastion: &Machine) -> String {
    let ca = Ca::make("edge-lab mirror CA").unwrap();
    let leaf = ca.server(&[MIRROR]).unwrap();
    let fs = bastion.fs();
    fs.write("/home/ec2-user/reg/tls.crt", leaf.certificate.as_bytes()).unwrap();
    fs.write("/home/ec2-user/reg/tls.key", leaf.key.as_bytes()).unwrap();
    fs.write("/home/ec2-user/reg/ca.crt", ca.pem().as_bytes()).unwrap();
    let hash = bcrypt::hash("geheim", 4).unwrap();
    fs.write("/home/ec2-user/reg/htpasswd", format!("bartizan:{hash}\n").as_bytes()).unwrap();
    fs.mkdir_p("/home/ec2-user/data").unwrap();
    fs.write("/etc/pki/ca-trust/source/anchors/mirror.crt", ca.pem().as_bytes()).unwrap();
    let port = port(lab);
    let (code, _, why) = bastion
        .run(&format!(
            "podman run -d --name mirror -p {port}:5000 -v /home/ec2-user/reg:/certs:Z -v /home/ec2-user/data:/var/lib/registry:Z \
             -e REGISTRY_HTTP_TLS_CERTIFICATE=/certs/tls.crt -e REGISTRY_HTTP_TLS_KEY=/certs/tls.key \
             -e REGISTRY_AUTH_HTPASSWD_PATH=/certs/htpasswd docker.io/library/registry:2"
        ))
        .await;
    assert_eq!(code, 0, "{why}");
    ca.pem().to_owned()
}

/// The pull secret with the mirror in it.
fn secret(lab: &Lab) -> Value {
    use base64::Engine;
    let text = std::fs::read_to_string(lab.scene().dir.join("pull-secret.json")).unwrap();
    let mut secret: Value = serde_json::from_str(&text).unwrap();
    let auth = base64::engine::general_purpose::STANDARD.encode("bartizan:geheim");
    secret["auths"][format!("{MIRROR}:{}", port(lab))] = json!({ "auth": auth });
    secret
}

async fn sync(lab: &Lab, bastion: &Machine) -> (i32, String) {
    let fs = bastion.fs();
    fs.write("/home/ec2-user/auth.json", secret(lab).to_string().as_bytes()).unwrap();
    fs.write("/home/ec2-user/isc.yaml", b"kind: ImageSetConfiguration\n").unwrap();
    let port = port(lab);
    let (code, text, why) = bastion
        .run(&format!(
            "oc-mirror --v2 -c /home/ec2-user/isc.yaml --workspace file:///home/ec2-user/ws --authfile /home/ec2-user/auth.json docker://{MIRROR}:{port}"
        ))
        .await;
    (code, text + &why)
}

fn install_config(lab: &Lab, bastion: &Machine, subnet: &str, trust: &str) {
    let key = std::fs::read_to_string(lab.scene().dir.join("id_ed25519.pub")).unwrap();
    let at = format!("{MIRROR}:{}/openshift", port(lab));
    let config = json!({
        "apiVersion": "v1",
        "baseDomain": "example.com",
        "metadata": { "name": "edge-lab" },
        "controlPlane": { "name": "master", "replicas": 3 },
        "compute": [{ "name": "worker", "replicas": 2 }],
        "platform": { "aws": { "region": "us-east-2", "subnets": [subnet] } },
        "publish": "Internal",
        "pullSecret": secret(lab).to_string(),
        "sshKey": key.trim(),
        "additionalTrustBundle": trust,
        "imageDigestSources": [
            { "source": "quay.io/openshift-release-dev/ocp-release", "mirrors": [format!("{at}/release-images")] },
            { "source": "quay.io/openshift-release-dev/ocp-v4.0-art-dev", "mirrors": [format!("{at}/release")] },
        ],
    });
    // JSON is YAML.
    bastion.fs().write("/home/ec2-user/install/install-config.yaml", config.to_string().as_bytes()).unwrap();
}

async fn install(bastion: &Machine) -> (i32, String) {
    let (code, _, _) = bastion.run("openshift-install create cluster --dir /home/ec2-user/install").await;
    let log = bastion.fs().read("/home/ec2-user/install/.openshift_install.log").unwrap();
    (code, String::from_utf8(log).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_mirrored_and_a_cluster_is_installed_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path(), "happy").await;
    let (bastion, subnet) = bastion(&lab).await;
    let ca = registry(&lab, &bastion).await;
    let (code, said) = sync(&lab, &bastion).await;
    assert_eq!(code, 0, "{said}");
    install_config(&lab, &bastion, &subnet, &ca);
    let (code, log) = install(&bastion).await;
    assert_eq!(code, 0, "{log}");
    for text in
        ["Creating infrastructure resources", "API v1.31.7 up", "Bootstrap status: complete", "Install complete!"]
    {
        assert!(log.contains(text), "{text} is not in\n{log}");
    }
    let (code, operators, _) =
        bastion.run("oc --kubeconfig /home/ec2-user/install/auth/kubeconfig get co -o json").await;
    assert_eq!(code, 0);
    let operators: Value = serde_json::from_str(&operators).unwrap();
    assert!(operators["items"].as_array().unwrap().len() > 30);
    let (_, nodes, _) = bastion.run("oc --kubeconfig /home/ec2-user/install/auth/kubeconfig get nodes").await;
    assert_eq!(nodes.matches(" Ready ").count(), 5, "{nodes}");
    // The bootstrap machine is gone, and its disk tells what happened.
    assert!(lab.scene().machines.machine("bootstrap").is_none());
    let (code, _, why) = bastion.run("openshift-install destroy cluster --dir /home/ec2-user/install").await;
    assert_eq!(code, 0, "{why}");
    assert!(lab.scene().machines.machine("master-0").is_none());
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_stops_bootkube_where_it_is_needed_and_a_full_disk_stops_the_sync() {
    let dir = tempfile::tempdir().unwrap();
    let missing = lab(dir.path(), "missing-image").await;
    let (machine, subnet) = bastion(&missing).await;
    let ca = registry(&missing, &machine).await;
    assert_eq!(sync(&missing, &machine).await.0, 0);
    install_config(&missing, &machine, &subnet, &ca);
    let (code, log) = install(&machine).await;
    assert_eq!(code, 5, "{log}");
    assert!(log.contains("Failed waiting for Kubernetes API."), "{log}");
    let bootstrap = missing.scene().machines.machine("bootstrap").unwrap();
    let records = bootstrap.fs().read("/var/log/openshift/bootkube.json").unwrap();
    let records: Vec<Value> = serde_json::from_slice(&records).unwrap();
    let failed = records.iter().find(|record| record["phase"] == "stage end" && record["result"] == "failure").unwrap();
    assert_eq!(failed["stage"], "config-bootstrap");
    assert!(failed["errorMessage"].as_str().unwrap().contains("manifest unknown]"), "{failed}");
    missing.stop().await;

    let dir = tempfile::tempdir().unwrap();
    let full = lab(dir.path(), "disk-full").await;
    let (machine, _) = bastion(&full).await;
    registry(&full, &machine).await;
    let (code, said) = sync(&full, &machine).await;
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("no space left on device"), "{said}");
    full.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_of_another_authority_is_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path(), "mirror-ca").await;
    let (machine, subnet) = bastion(&lab).await;
    let old = registry(&lab, &machine).await;
    assert_eq!(sync(&lab, &machine).await.0, 0);
    install_config(&lab, &machine, &subnet, &old);
    let (code, log) = install(&machine).await;
    assert_eq!(code, 5, "{log}");
    let bootstrap = lab.scene().machines.machine("bootstrap").unwrap();
    let records = bootstrap.fs().read("/var/log/openshift/release-image.json").unwrap();
    assert!(String::from_utf8_lossy(&records).contains("certificate signed by unknown authority"));
    // What a recovery does: the right CA, no cluster, a new directory.
    let new = String::from_utf8(machine.fs().read("/home/ec2-user/reg/ca.crt").unwrap()).unwrap();
    assert_ne!(new, old);
    let (code, _, why) = machine.run("openshift-install destroy cluster --dir /home/ec2-user/install").await;
    assert_eq!(code, 0, "{why}");
    machine.fs().remove("/home/ec2-user/install").unwrap();
    install_config(&lab, &machine, &subnet, &new);
    let (code, log) = install(&machine).await;
    assert_eq!(code, 0, "{log}");
    lab.stop().await;
}

#[test]
fn the_scenarios_say_what_to_expect() {
    let exits: Vec<(u8, u8)> = Scenario::names()
        .map(|name| Scenario::named(name).unwrap())
        .map(|scenario| (scenario.exit(false), scenario.exit(true)))
        .collect();
    assert_eq!(exits, [(0, 0), (5, 0), (5, 0), (9, 0), (0, 0), (5, 5), (6, 6)]);
    assert_eq!(journal::number("x lab#000007"), Some(7));
}
