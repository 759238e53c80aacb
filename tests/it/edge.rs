//! A site without a helper machine: what is rendered is what a node can boot with.

use std::process::Command;

use bartizan::spec::manifests::objects;
use bartizan::spec::{Spec, parse};
use bartizan::stages::edge::render;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

const ONE: &str = "nodes = [\"master-0 52:54:00:AA:bb:01 192.0.2.11/24\"]";
const THREE: &str = "nodes = [\"master-0 52:54:00:aa:bb:01 192.0.2.11/24\", \"master-1 52:54:00:aa:bb:02 192.0.2.12/24\", \
                     \"master-2 52:54:00:aa:bb:03 192.0.2.13/24\"]\ngateway = \"192.0.2.1\"\nnameservers = [\"198.51.100.53\"]";

fn text(edge: &str) -> String {
    format!(
        "[cluster]\nname = \"site-7\"\nbase_domain = \"example.com\"\n[release]\nversion = \"4.18.9\"\n[aws]\nregion = \
         \"us-east-2\"\n[credentials]\npull_secret = \"pull-secret.json\"\nssh_public_key = \"id.pub\"\n[mirror]\nhost = \
         \"registry.site-7.example.com\"\n[edge]\n{edge}\n"
    )
}

fn spec(edge: &str) -> Spec {
    parse(&text(edge), "cluster.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

/// Content of a file in a MachineConfig, and its mode.
fn file(config: &Value, path: &str) -> (String, u64) {
    let files = config.pointer("/spec/config/storage/files").unwrap().as_array().unwrap();
    let file = files.iter().find(|file| file["path"] == path).unwrap_or_else(|| panic!("{path} is not in {files:#?}"));
    let source = file["contents"]["source"].as_str().unwrap();
    let bytes = BASE64_STANDARD.decode(source.rsplit(',').next().unwrap()).unwrap();
    (String::from_utf8(bytes).unwrap(), file["mode"].as_u64().unwrap())
}

fn rendered(edge: &str) -> Vec<Value> {
    let (all, ca) = render(&spec(edge)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(ca.is_some(), all.iter().any(|one| one.name.contains("registry")));
    let read = |text: &str| {
        // As the machine config operator would read it.
        let found = objects(text).unwrap_or_else(|why| panic!("{why}\n{text}"));
        assert_eq!(found[0].kind, "MachineConfig");
        yaml_serde::from_str::<Value>(text).unwrap()
    };
    all.iter().map(|one| read(one.text.reveal())).collect()
}

#[test]
fn three_nodes_serve_names_that_follow_what_answers() {
    let all = rendered(THREE);
    let [network, dns, registry] = all.as_slice() else { panic!("{} files", all.len()) };
    let (zone, _) = file(dns, "/etc/edge/dns/edge-dns/zone");
    for line in [
        "api IN LUA A \"ifportup(6443, {'192.0.2.11', '192.0.2.12', '192.0.2.13'})\"",
        "*.apps IN LUA A \"ifportup(443, {'192.0.2.11', '192.0.2.12', '192.0.2.13'})\"",
        "registry IN LUA A \"ifportup(8443, {'192.0.2.11', '192.0.2.12', '192.0.2.13'})\"",
        "master-1 IN A 192.0.2.12",
    ] {
        assert!(zone.lines().any(|have| have == line), "{line}\n{zone}");
    }
    let (recursor, _) = file(dns, "/etc/edge/dns/edge-recursor/recursor.conf");
    assert!(recursor.contains("allow-from=127.0.0.0/8, 192.0.2.0/24\n"), "{recursor}");
    assert!(recursor.contains("forward-zones-recurse=.=198.51.100.53\n"), "{recursor}");
    let path = "/etc/NetworkManager/system-connections/edge-master-1.nmconnection";
    let (profile, mode) = file(network, path);
    assert!(
        profile.contains("mac-address=52:54:00:aa:bb:02\n") && profile.contains("address1=192.0.2.12/24,192.0.2.1\n")
    );
    assert!(profile.contains("dns=192.0.2.11;192.0.2.12;192.0.2.13;\n"), "{profile}");
    assert_eq!(mode, 0o600, "NetworkManager reads no other");
    assert_eq!(file(registry, "/etc/edge/registry/tls.key").1, 0o600);
    let units = registry.pointer("/spec/config/systemd/units").unwrap().as_array().unwrap();
    let unit = units.iter().find(|unit| unit["name"] == "edge-registry.service").unwrap();
    assert!(unit["contents"].as_str().unwrap().contains("--root /var/lib/edge/containers"), "crio may wipe the other");
    let kubelet = units.iter().find(|unit| unit["name"] == "kubelet.service").unwrap();
    assert_eq!(kubelet["dropins"][0]["contents"], "[Unit]\nWants=edge-registry.service\nAfter=edge-registry.service\n");
    let left: Vec<&Value> = all.iter().filter(|one| one.to_string().contains("@IMAGE@")).collect();
    assert!(left.is_empty(), "a template that was not filled in: {left:#?}");
}

#[test]
fn one_node_asks_itself_and_parts_can_be_left_out() {
    let all = rendered(&format!("{ONE}\nregistry = false"));
    assert_eq!(all.len(), 2);
    let (profile, _) = file(&all[0], "/etc/NetworkManager/system-connections/edge-master-0.nmconnection");
    assert!(profile.contains("address1=192.0.2.11/24\n") && profile.contains("dns=192.0.2.11;\n"), "{profile}");
    assert_eq!(file(&all[0], "/etc/edge/names").0, "52:54:00:aa:bb:01 master-0.site-7.example.com\n");
    for (edge, sentence) in [
        ("dns = true", "edge.nodes has 0 nodes: a site has one node, or three"),
        ("nodes = [\"master-0\"]", "write NAME MAC ADDRESS/PREFIX"),
        (&format!("{ONE}\ngateway = \"10.0.0.1\""), "give an address in the network of the nodes"),
        (&THREE.replace("192.0.2.13", "192.0.2.12"), "name, card and address belong to one node each"),
        (&THREE.replace("192.0.2.13/24", "192.0.3.13/24"), "the nodes of a site share one"),
    ] {
        let said = parse(&text(edge), "cluster.toml").map(drop).unwrap_err().to_string();
        assert!(said.contains(sentence), "wanted {sentence}, got {said}");
    }
}

#[test]
fn the_command_writes_a_folder_for_the_installer_and_warns() {
    let folder = tempfile::tempdir().unwrap();
    let public = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEkp6pYb2xSgVjgSRVmtqcYHVL6CZsA1k0mmLnL1lvQj";
    std::fs::write(folder.path().join("id.pub"), public).unwrap();
    std::fs::write(folder.path().join("pull-secret.json"), r#"{"auths": {"quay.io": {"auth": "bGFiOmxhYg=="}}}"#)
        .unwrap();
    std::fs::write(folder.path().join("cluster.toml"), text(THREE)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_bartizan"))
        .args(["edge", "cluster.toml", "--output", "more"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("no part of what Red Hat supports"), "{said}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("PRIVATE KEY"));
    let files = bartizan::spec::manifests::folder(&folder.path().join("more")).unwrap();
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["99-master-edge-dns.yaml", "99-master-edge-network.yaml", "99-master-edge-registry.yaml"]);
}
