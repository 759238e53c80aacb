//! The lab's OpenShift side: a whole installation without the product, and real clients against its servers.

#![allow(clippy::unwrap_used, reason = "a test ends where something is wrong")]

use std::path::Path;
use std::time::Duration;

use bartizan::cloud::{Cloud, Create, Kind, Tags, alias, ingress};
use bartizan::lab::machines::Machine;
use bartizan::lab::ocp::ca::Ca;
use bartizan::lab::ocp::journal;
use bartizan::lab::ocp::scenario::Scenario;
use bartizan::lab::world::{Lab, LabOptions};
use serde_json::{Value, json};

const MIRROR: &str = "registry.edge-lab.example.com";

async fn lab(dir: &Path, scenario: &str) -> Lab {
    fast(dir, scenario, 200.0).await
}

async fn fast(dir: &Path, scenario: &str, speed: f64) -> Lab {
    let options = LabOptions { dir: dir.to_path_buf(), scenario: scenario.into(), speed, payload_mb: 8 };
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

#[tokio::test(flavor = "multi_thread")]
async fn etcd_that_never_forms_ends_the_bootstrap_and_every_numbered_line_is_there_once() {
    let dir = tempfile::tempdir().unwrap();
    let lab = fast(dir.path(), "etcd-stuck", 600.0).await;
    let (machine, subnet) = bastion(&lab).await;
    let ca = registry(&lab, &machine).await;
    assert_eq!(sync(&lab, &machine).await.0, 0);
    install_config(&lab, &machine, &subnet, &ca);
    let (code, log) = install(&machine).await;
    assert_eq!(code, 5, "{log}");
    assert!(log.contains("Cluster operator etcd Degraded is True"), "{log}");
    let bootstrap = lab.scene().machines.machine("bootstrap").unwrap();
    let (_, lines, _) = bootstrap.run("journalctl --no-pager -q -b -o json --all").await;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let text = |line: &Value| line["MESSAGE"].as_str().unwrap_or_default().to_owned();
    assert!(lines.iter().any(|line| text(line).contains("waiting on condition EtcdRunningInCluster")));
    let own = lines.iter().filter(|line| line["CONTAINER_NAME"].is_null());
    let mut numbers: Vec<u64> = own.filter_map(|line| journal::number(&text(line))).collect();
    numbers.sort_unstable();
    assert!(numbers.len() > 100);
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_wait_for_somebody_to_approve_them() {
    let dir = tempfile::tempdir().unwrap();
    let lab = fast(dir.path(), "csr-pending", 600.0).await;
    let (machine, subnet) = bastion(&lab).await;
    let ca = registry(&lab, &machine).await;
    assert_eq!(sync(&lab, &machine).await.0, 0);
    install_config(&lab, &machine, &subnet, &ca);
    let (code, log) = install(&machine).await;
    assert_eq!(code, 6, "{log}");
    assert!(log.contains("NoReadyIngressNodes"), "{log}");
    let oc = "oc --kubeconfig /home/ec2-user/install/auth/kubeconfig";
    for _ in 0..100 {
        let (_, csrs, _) = machine.run(&format!("{oc} get csr --no-headers")).await;
        for csr in csrs.lines().filter(|line| line.ends_with("Pending")) {
            let name = csr.split_whitespace().next().unwrap();
            assert_eq!(machine.run(&format!("{oc} adm certificate approve {name}")).await.0, 0);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (code, _, why) = machine.run("openshift-install wait-for install-complete --dir /home/ec2-user/install").await;
    assert_eq!(code, 0, "{why}");
    lab.stop().await;
}

/// A lab in which a cluster is installed as far as it goes: exit code and log.
struct Installed {
    dir: tempfile::TempDir,
    lab: Lab,
    bastion: std::sync::Arc<Machine>,
    code: i32,
    log: String,
}

impl Installed {
    async fn new(scenario: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lab = fast(dir.path(), scenario, 600.0).await;
        let (bastion, subnet) = bastion(&lab).await;
        let ca = registry(&lab, &bastion).await;
        assert_eq!(sync(&lab, &bastion).await.0, 0);
        install_config(&lab, &bastion, &subnet, &ca);
        let (code, log) = install(&bastion).await;
        Self { dir, lab, bastion, code, log }
    }

    fn failed(&self, code: i32, text: &str) {
        assert_eq!(self.code, code, "{}", self.log);
        assert!(self.log.contains(text), "{text} is not in\n{}", self.log);
    }

    async fn console(&self, name: &str) -> String {
        let cloud = &self.lab.scene().cloud;
        let all = cloud.find(Kind::Instance, &Tags::new()).await.unwrap();
        let found = all.iter().find(|one| one.tags.get("Name").is_some_and(|full| full.ends_with(name))).unwrap();
        cloud.console_output(&found.id).await.unwrap()
    }

    async fn oc(&self, command: &str) -> String {
        let line = format!("oc --kubeconfig /home/ec2-user/install/auth/kubeconfig {command}");
        let (code, text, why) = self.bastion.run(&line).await;
        assert_eq!(code, 0, "{line}: {why}");
        text
    }

    /// What the installer's documentation says of an installation that stopped half-way.
    async fn goes_on(&self, parts: &[&str]) {
        for part in parts {
            let line = format!("openshift-install {part} --dir /home/ec2-user/install");
            let (code, _, why) = self.bastion.run(&line).await;
            assert_eq!(code, 0, "{line}: {why}");
        }
        self.lab.stop().await;
    }
}

const FROM_THE_BOOTSTRAP: [&str; 3] = ["wait-for bootstrap-complete", "destroy bootstrap", "wait-for install-complete"];

#[tokio::test(flavor = "multi_thread")]
async fn masters_wait_for_port_22623_and_boot_when_it_is_open() {
    let lab = Installed::new("mcs-unreachable").await;
    lab.failed(5, "Failed to wait for bootstrapping to complete");
    let console = lab.console("master-1").await;
    assert!(console.contains(":22623/config/master\": dial tcp 10.0.5.9:22623: i/o timeout"), "{console}");
    let cloud = &lab.lab.scene().cloud;
    let groups = cloud.find(Kind::SecurityGroup, &Tags::new()).await.unwrap();
    let group = groups.iter().find(|one| one.property("GroupName").is_some_and(|name| name.ends_with("-controlplane")));
    let rule = [(ingress("tcp", 22623, "10.0.0.0/16"), "MCS".to_owned())].into();
    cloud.modify(Kind::SecurityGroup, &group.unwrap().id, &rule).await.unwrap();
    lab.goes_on(&FROM_THE_BOOTSTRAP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn masters_wait_for_the_name_api_int_and_boot_when_it_resolves() {
    let lab = Installed::new("dns-api-int").await;
    lab.failed(5, "Failed to wait for bootstrapping to complete");
    let bootstrap = lab.lab.scene().machines.machine("bootstrap").unwrap();
    let (_, journal, _) = bootstrap.run("journalctl -q -o cat -u bootkube").await;
    assert!(journal.contains("Unable to resolve API_INT_URL api-int.edge-lab.example.com"), "{journal}");
    let (_, answer, _) = bootstrap.run("dig +short api-int.edge-lab.example.com").await;
    assert_eq!(answer, "");
    let cloud = &lab.lab.scene().cloud;
    let zones = cloud.find(Kind::HostedZone, &Tags::new()).await.unwrap();
    let zone = zones.iter().find(|zone| zone.property("Name") == Some("edge-lab.example.com")).unwrap();
    let target = zone.property(&alias("api.edge-lab.example.com")).unwrap().to_owned();
    let record = [(alias("api-int.edge-lab.example.com"), target)].into();
    cloud.modify(Kind::HostedZone, &zone.id, &record).await.unwrap();
    let (_, answer, _) = bootstrap.run("dig +short api-int.edge-lab.example.com").await;
    assert_eq!(answer, "10.0.5.9\n");
    lab.goes_on(&FROM_THE_BOOTSTRAP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_behind_finds_the_mirrors_certificate_not_yet_valid() {
    let lab = Installed::new("clock-skew").await;
    lab.failed(5, "Failed waiting for Kubernetes API.");
    let bootstrap = lab.lab.scene().machines.machine("bootstrap").unwrap();
    let (_, journal, _) = bootstrap.run("journalctl -q -o cat -u release-image").await;
    assert!(journal.contains("x509: certificate has expired or is not yet valid: current time "), "{journal}");
    let (_, tracking, _) = bootstrap.run("chronyc tracking").await;
    assert!(tracking.contains("259200.000000 seconds slow of NTP time"), "{tracking}");
    assert_eq!(bootstrap.run("chronyc makestep").await.0, 1);
    assert_eq!(bootstrap.run("sudo -n chronyc makestep").await.0, 0);
    lab.goes_on(&FROM_THE_BOOTSTRAP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_registry_without_its_bucket_is_degraded_until_it_needs_none() {
    let lab = Installed::new("operator-degraded").await;
    lab.failed(6, "Cluster operator image-registry Degraded is True with Error: Unable to apply resources");
    assert!(lab.log.contains("Cluster operators image-registry are not available"), "{}", lab.log);
    let removed = r#"--type merge -p '{"spec":{"managementState":"Removed"}}'"#;
    lab.oc(&format!("patch configs.imageregistry.operator.openshift.io cluster {removed}")).await;
    lab.goes_on(&["wait-for install-complete"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_exceed_the_quota_are_made_again_when_their_machines_are_deleted() {
    let lab = Installed::new("worker-never-joins").await;
    lab.failed(6, "NoReadyIngressNodes");
    let machines = lab.oc("get machines -n openshift-machine-api -o json").await;
    let machines: Value = serde_json::from_str(&machines).unwrap();
    let failed: Vec<&Value> =
        machines["items"].as_array().unwrap().iter().filter(|one| one["status"]["phase"] == "Failed").collect();
    assert_eq!(failed.len(), 2);
    assert!(failed[0]["status"]["errorMessage"].as_str().unwrap().contains("vCPU limit of 16"), "{}", failed[0]);
    lab.lab.scene().cloud.with_state(|state| state.settings.quotas.clear()).unwrap();
    for machine in failed {
        let name = machine["metadata"]["name"].as_str().unwrap();
        lab.oc(&format!("delete machine {name} -n openshift-machine-api")).await;
    }
    lab.goes_on(&["wait-for install-complete"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installer_that_was_killed_is_followed_by_the_other_commands() {
    let lab = Installed::new("installer-killed").await;
    assert_eq!(lab.code, 137, "{}", lab.log);
    lab.goes_on(&FROM_THE_BOOTSTRAP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bootstrap_that_reboots_goes_on_where_it_was() {
    let lab = Installed::new("bootstrap-reboot").await;
    assert_eq!(lab.code, 0, "{}", lab.log);
    let text = std::fs::read_to_string(lab.dir.path().join("machines/hosts/bootstrap/journal/entries.jsonl")).unwrap();
    let entries: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let boots: Vec<u64> = entries.iter().map(|entry| entry["boot"].as_u64().unwrap()).collect();
    assert_eq!((boots.first(), boots.last()), (Some(&0), Some(&1)));
    let file = lab.dir.path().join("machines/hosts/bootstrap/root/var/log/openshift/bootkube.json");
    let records: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let starts = |stage: &str| {
        records.iter().filter(|record| record["phase"] == "stage start" && record["stage"] == stage).count()
    };
    assert_eq!((starts("config-bootstrap"), starts("etcd-bootstrap")), (1, 2));
    lab.goes_on(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_copies_between_the_two_registries() {
    if std::process::Command::new("skopeo").arg("--version").output().is_err() {
        eprintln!("skopeo is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let lab = lab(dir.path(), "happy").await;
    let (machine, _) = bastion(&lab).await;
    registry(&lab, &machine).await;
    let pull: Value = serde_json::from_slice(&std::fs::read(dir.path().join("pull-secret.json")).unwrap()).unwrap();
    let source = format!("127.0.0.1:{}", lab.scene().source.port());
    let mirror = format!("127.0.0.1:{}", port(&lab));
    let mut auths = json!({ "auths": {} });
    auths["auths"][&source] = pull["auths"]["quay.io"].clone();
    auths["auths"][&mirror] = secret(&lab)["auths"][format!("{MIRROR}:{}", port(&lab))].clone();
    let authfile = dir.path().join("auth.json");
    std::fs::write(&authfile, auths.to_string()).unwrap();
    let skopeo = async |args: &[&str]| {
        let mut command = tokio::process::Command::new("skopeo");
        command.args(args).arg("--authfile").arg(&authfile);
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let from = format!("docker://{source}/openshift-release-dev/ocp-release:4.18.12-x86_64");
    let to = format!("docker://{mirror}/openshift/release-images:4.18.12-x86_64");
    skopeo(&["copy", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false", &from, &to]).await;
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &to]).await;
    assert_eq!(raw.as_bytes(), lab.scene().payload.release.manifest);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kube_client_lists_watches_and_lists_again_when_it_is_too_late() {
    use bartizan::lab::ocp::kube_store::{Resource, Store};
    use futures::StreamExt;
    use kube::runtime::watcher;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("kube.json"));
    store.set_up(true);
    let ca = Ca::make("kube-ca").unwrap();
    let server = ca.server(&["localhost", "127.0.0.1"]).unwrap();
    let cancel = tokio_util::sync::CancellationToken::new();
    let at = bartizan::lab::ocp::kube_api::start(store.clone(), &server, ca.pem(), "v1.31.7", cancel.clone()).unwrap();
    let admin = ca.client("system:admin", "system:masters").unwrap();
    let encode = |text: &str| {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    let config: kube::config::Kubeconfig = serde_json::from_value(json!({
        "clusters": [{ "name": "c", "cluster": { "server": format!("https://{at}"), "certificate-authority-data": encode(ca.pem()) } }],
        "users": [{ "name": "u", "user": { "client-certificate-data": encode(&admin.certificate), "client-key-data": encode(&admin.key) } }],
        "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u" } }],
        "current-context": "x",
    }))
    .unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await.unwrap();
    let client = kube::Client::try_from(config).unwrap();
    assert_eq!(client.apiserver_version().await.unwrap().git_version, "v1.31.7");
    let nodes = Resource::named("nodes").unwrap();
    let node = |ready: &str| json!({ "metadata": { "name": "a" }, "status": { "conditions": [{ "type": "Ready", "status": ready }] } });
    store.put(nodes, node("False"));
    let api: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(client.clone());
    let mut events = std::pin::pin!(watcher::watcher(api.clone(), watcher::Config::default()));
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let event = tokio::time::timeout(Duration::from_secs(10), events.next()).await.unwrap().unwrap().unwrap();
        let found = match event {
            watcher::Event::InitApply(node) | watcher::Event::Apply(node) => node,
            watcher::Event::InitDone => {
                store.put(nodes, node("True"));
                continue;
            }
            _ => continue,
        };
        seen.push(found.status.unwrap().conditions.unwrap()[0].status.clone());
    }
    assert_eq!(seen, ["False", "True"]);
    let late = api.watch(&kube::api::WatchParams::default(), "99999").await.unwrap().boxed().next().await;
    assert!(matches!(late, Some(Ok(kube::api::WatchEvent::Error(status))) if status.code == 410));
    // Without a certificate there is nothing but the version.
    let stranger = reqwest::Client::builder().danger_accept_invalid_certs(true).build().unwrap();
    let answer = stranger.get(format!("https://{at}/api/v1/nodes")).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    cancel.cancel();
}

#[test]
fn the_scenarios_say_what_to_expect() {
    let exits: Vec<(u8, u8)> = Scenario::names()
        .map(|name| Scenario::named(name).unwrap())
        .map(|scenario| (scenario.exit(false), scenario.exit(true)))
        .collect();
    assert_eq!(exits[..7], [(0, 0), (5, 0), (5, 0), (9, 0), (0, 0), (5, 5), (6, 6)]);
    let left_alone = [
        ("mcs-unreachable", 5),
        ("dns-api-int", 5),
        ("clock-skew", 5),
        ("operator-degraded", 6),
        ("worker-never-joins", 6),
        ("installer-killed", 0),
        ("bootstrap-reboot", 0),
    ];
    for (name, exit) in left_alone {
        assert_eq!(Scenario::named(name).unwrap().exit(false), exit, "{name}");
    }
    // A recovery that is applied without a person ends well.
    assert!(exits.iter().all(|(alone, recovered)| *recovered == 0 || recovered == alone), "{exits:?}");
    assert_eq!(journal::number("x lab#000007"), Some(7));
}

/// Names of all files of the bastion's home but the installer's own.
fn home(lab: &Path) -> Vec<std::path::PathBuf> {
    let root = lab.join("machines/hosts/bastion/root/home/ec2-user");
    let (mut found, mut dirs) = (Vec::new(), vec![root.clone()]);
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() && path != root.join("install") {
                dirs.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    found
}

/// An engineer typed `openshift-install create cluster`; another one watches.
#[tokio::test(flavor = "multi_thread")]
async fn an_installation_that_somebody_typed_is_watched_to_its_end() {
    use bartizan::model::event::{BootStage, Event, RunOutcome};
    use bartizan::model::run::Status;
    let dir = tempfile::tempdir().unwrap();
    let lab = fast(dir.path(), "happy", 100.0).await;
    let (bastion, subnet) = bastion(&lab).await;
    let ca = registry(&lab, &bastion).await;
    let (code, said) = sync(&lab, &bastion).await;
    assert_eq!(code, 0, "{said}");
    install_config(&lab, &bastion, &subnet, &ca);
    let before = home(dir.path());

    let spec: toml::Value = toml::from_str(&lab.spec_toml()).unwrap();
    let address = format!("ec2-user@127.0.0.1:{}", spec["bastion"]["port"].as_integer().unwrap());
    let mut watch = tokio::process::Command::new(env!("CARGO_BIN_EXE_bartizan"));
    watch.arg("--state").arg(dir.path().join("state")).args(["watch", "--json", "--bastion", &address]);
    watch.args(["--dir", "/home/ec2-user/install", "--host-key", &bastion.host_key()]);
    watch.arg("--identity-file").arg(lab.scene().dir.join("id_ed25519")).stdin(std::process::Stdio::null());
    watch.kill_on_drop(true);
    let (watched, (code, log)) = tokio::join!(watch.output(), install(&bastion));
    assert_eq!(code, 0, "{log}");
    let watched = watched.unwrap();
    assert_eq!(watched.status.code(), Some(0), "{}", String::from_utf8_lossy(&watched.stderr));
    let mut model = bartizan::model::RunModel::default();
    for line in String::from_utf8(watched.stdout).unwrap().lines() {
        bartizan::model::reduce(&mut model, &serde_json::from_str::<Event>(line).unwrap());
    }
    assert_eq!(model.closed.as_ref().unwrap().0, RunOutcome::Done);
    assert_eq!(model.cluster.name, "edge-lab");
    assert!(model.plan.steps().all(|step| model.steps[&step.id].status == Status::Done), "{:?}", model.steps);
    let done = model.bootkube.iter().filter(|stage| stage.state == BootStage::Done).count();
    assert!(done > 10, "{:?}", model.bootkube);
    assert!(model.cluster_state.operators.len() > 30 && model.cluster_state.nodes.len() > 2);
    assert!(model.open_findings().is_empty(), "{:?}", model.open_findings());
    assert_eq!(home(dir.path()), before);
    lab.stop().await;
}
