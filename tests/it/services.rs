//! What runs on a bastion beside the mirror, as its steps start it: Debian's squid and Debian's registry, with exactly the
//! configuration that is written for them.

#[cfg(feature = "lab")]
use std::collections::BTreeMap;
use std::net::TcpListener;
#[cfg(feature = "lab")]
use std::path::Path;
use std::process::Command;

use bartizan::spec::{Secret, Spec, example, parse};
#[cfg(feature = "lab")]
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::host::{Sshd, argvs_with_pid};
#[cfg(feature = "lab")]
use crate::registry::{Ca, Server, answer, word};
use crate::stage::Stage;

/// A bastion that is there. What was started on it ends with it.
struct Bastion {
    sshd: Sshd,
    home: tempfile::TempDir,
}

impl Bastion {
    fn new(environment: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let own = [("HOME", home.path().to_str().unwrap())];
        let sshd = Sshd::with_environment(&[&own, environment].concat());
        Self { sshd, home }
    }

    fn spec(&self, network: &str, bastion: &str, mirror: &str) -> Spec {
        let text = example()
            .replace("[network]", &format!("[network]\n{network}"))
            .replace("[bastion]", &format!("[bastion]\n{bastion}"))
            .replace("[mirror]", &format!("[mirror]\n{mirror}"));
        let mut spec = parse(&text, "cluster.toml").unwrap_or_else(|errors| panic!("{errors}"));
        spec.bastion.port = self.sshd.port();
        spec.bastion.user = Some(crate::host::user());
        spec.bastion.identity_file = Some(self.sshd.identity());
        spec
    }

    /// What stages 01 and 02 would have said of it.
    async fn is_known_to(&self, stage: &Stage) {
        let home = self.home.path().to_str().unwrap();
        let workdir = format!("{home}/bartizan");
        std::fs::create_dir_all(format!("{workdir}/jobs")).unwrap();
        stage
            .know(&[
                ("network.machine-network", "10.0.0.0/16"),
                ("bastion.instance", "i-0123456789abcdef0"),
                ("bastion.address", "127.0.0.1"),
                ("bastion.private-ip", "127.0.0.1"),
                ("bastion.host-keys", &self.sshd.host_key()),
                ("bastion.home", home),
                ("bastion.workdir", &workdir),
            ])
            .await;
    }
}

impl Drop for Bastion {
    fn drop(&mut self) {
        let here = self.home.path().to_string_lossy().into_owned();
        for (pid, _) in argvs_with_pid().filter(|(_, argv)| argv.contains(&here)) {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                // It may have ended by itself.
                let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// Where AWS is in the network that this test has to itself.
const AWS: &str = "198.51.100.10";
const INSIDE: &str = "BARTIZAN_TEST_INSIDE";

/// Nothing on loopback is let through by the proxy, so AWS has to be elsewhere: the test runs itself in a network of its own.
/// `None` where nobody may make one.
fn in_a_network_of_its_own(test: &str) -> Option<bool> {
    let hosts = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&hosts, format!("127.0.0.1 localhost\n{AWS} sts.us-east-2.amazonaws.com\n")).unwrap();
    // squid is somebody else when this is root.
    std::fs::set_permissions(&hosts, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let way: &[&str] = match rustix::process::getuid().is_root() {
        true => &["-n", "-m"],
        false => &["--map-current-user", "--keep-caps", "-n", "-m"],
    };
    let script =
        "ip link set lo up && ip addr add \"$1\"/32 dev lo && mount --bind \"$2\" /etc/hosts && shift 2 && exec \"$@\"";
    let inside = |command: &[&str]| {
        let mut unshare = Command::new("unshare");
        unshare.args(way).args(["sh", "-c", script, "sh", AWS]).arg(hosts.path()).args(command).env(INSIDE, "1");
        unshare
    };
    if !inside(&["true"]).output().is_ok_and(|output| output.status.success()) {
        return None;
    }
    let me = std::env::current_exe().unwrap();
    let status = inside(&[me.to_str().unwrap(), "--exact", test, "--nocapture"]).status().unwrap();
    Some(status.success())
}

#[test]
fn squid_lets_the_vpc_out_with_its_account_and_nobody_else() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if std::env::var_os(INSIDE).is_some() {
        return runtime.block_on(squid(true));
    }
    match in_a_network_of_its_own("services::squid_lets_the_vpc_out_with_its_account_and_nobody_else") {
        Some(well) => assert!(well, "see above"),
        None => {
            println!("no network of its own: what squid lets through goes nowhere here");
            runtime.block_on(squid(false));
        }
    }
}

/// The first line of the proxy's answer, and the rest.
async fn ask(request: &str, account: Option<&str>) -> (u16, String) {
    use base64::Engine as _;
    let mut stream = tokio::net::TcpStream::connect("127.0.0.1:3128").await.unwrap();
    let account = account.map_or_else(String::new, |pair| {
        format!("Proxy-Authorization: Basic {}\r\n", base64::prelude::BASE64_STANDARD.encode(pair))
    });
    let head = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{account}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = vec![0; 4096];
    let count = stream.read(&mut text).await.unwrap();
    let text = String::from_utf8_lossy(&text[..count]).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("{text:?}")), text)
}

/// `reaches`: AWS is there.
async fn squid(reaches: bool) {
    let fakes = tempfile::tempdir().unwrap();
    if rustix::process::getuid().is_root() {
        // No bastion's login is root, and squid does not want to be.
        let script = "#!/bin/sh\ndir=$(dirname \"$3\")\nchown -R nobody \"$dir\"\nup=$dir\n\
                      while [ \"$up\" != \"$(dirname \"$HOME\")\" ]; do chmod o+x \"$up\"; up=$(dirname \"$up\"); done\n\
                      exec setpriv --reuid=nobody --regid=nogroup --clear-groups /usr/sbin/squid \"$@\"\n";
        let file = fakes.path().join("squid");
        std::fs::write(&file, script).unwrap();
        std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:/usr/bin:/bin", fakes.path().display());
    let bastion = Bastion::new(&[("PATH", &path)]);
    let spec = bastion.spec("variant = \"proxy\"", "", "");
    let stage = Stage::new(spec, None, |world| world.proxy_password = Some(Secret::new("kept-from-strangers"))).await;
    bastion.is_known_to(&stage).await;
    let aws = reaches.then(|| (TcpListener::bind((AWS, 443)).unwrap(), TcpListener::bind((AWS, 80)).unwrap()));
    if let Some((_, web)) = &aws {
        let web = web.try_clone().unwrap();
        std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            for mut stream in web.incoming().flatten() {
                let mut asked = [0; 2048];
                let count = stream.read(&mut asked).unwrap_or(0);
                let asked = String::from_utf8_lossy(&asked[..count]).into_owned();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", asked.len());
                let _gone = stream.write_all(format!("{head}{asked}").as_bytes());
            }
        });
    }
    const STEP: &str = "02-bastion/proxy";
    let started = stage.once(STEP).await;
    if reaches {
        let evidence = started.unwrap_or_else(|error| panic!("{:?}", error.causes));
        let answers: Vec<&str> = evidence.iter().map(|one| one.answer.as_str()).collect();
        assert_eq!(answers, ["407", "200", "403"], "{evidence:?}");
        assert!(stage.probe(STEP).await.is_ok_and(|probe| matches!(probe, bartizan::engine::Probe::True(_))));
    } else {
        let causes = started.expect_err("AWS is not there").causes;
        assert!(
            causes.iter().any(|cause| cause.contains("answers 503 for sts.us-east-2.amazonaws.com:443")),
            "{causes:?}"
        );
    }

    // 503: it would go, and there is nothing there.
    let through = if reaches { 200 } else { 503 };
    let (own, wrong) = (Some("bartizan:kept-from-strangers"), Some("bartizan:kept-from-stranger"));
    let sts = "sts.us-east-2.amazonaws.com";
    for (request, account, status) in [
        (format!("CONNECT {sts}:443"), None, 407),
        (format!("CONNECT {sts}:443"), wrong, 407),
        (format!("CONNECT {sts}:443"), own, through),
        (format!("CONNECT {sts}:22"), own, 403),
        (format!("CONNECT {sts}:80"), own, 403),
        ("CONNECT 127.0.0.1:443".into(), own, 403),
        ("CONNECT localhost:443".into(), own, 403),
        ("CONNECT [::1]:443".into(), own, 403),
        ("CONNECT 169.254.169.254:443".into(), own, 403),
        ("GET http://169.254.169.254/latest/meta-data/".into(), own, 403),
        (format!("GET http://{sts}/"), None, 407),
        (format!("GET http://{sts}/"), own, through),
    ] {
        let (answer, text) = ask(&request, account).await;
        let same = if status == 500 { answer >= 500 } else { answer == status };
        assert!(same, "{request} as {account:?}: {answer} instead of {status}: {text}");
    }
    if reaches {
        // Whoever is asked learns nothing of the VPC, nor of the account.
        let (_, text) = ask(&format!("GET http://{sts}/"), own).await;
        let lower = text.to_lowercase();
        for header in ["x-forwarded-for", "proxy-authorization", "via:"] {
            assert!(!lower.contains(header), "{text}");
        }
    }
    assert!(
        crate::host::argvs().all(|argv| !argv.contains("kept-from-strangers")),
        "the password is in no argument list"
    );
    let accounts = std::fs::read_to_string(bastion.home.path().join("bartizan/squid/passwd")).unwrap();
    assert!(accounts.starts_with("bartizan:$2"), "{accounts}");
}

/// Leads `names:443` to where the upstream is, and nobody anywhere else. Gives its address.
#[cfg(feature = "lab")]
fn way_out(names: &'static [&str], port: u16) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || tunnel(client, names, port));
        }
    });
    address
}

#[cfg(feature = "lab")]
fn tunnel(mut client: std::net::TcpStream, names: &[&str], port: u16) -> Option<()> {
    use std::io::{BufRead as _, BufReader, Write as _};
    let mut lines = BufReader::new(client.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    while !lines.next()?.ok()?.is_empty() {}
    let target = first.split(' ').nth(1)?.trim_end_matches(":443");
    if !names.contains(&target) {
        return client.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").ok();
    }
    let mut server = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
    let (mut back, mut to) = (server.try_clone().ok()?, client.try_clone().ok()?);
    std::thread::spawn(move || {
        let _ended = std::io::copy(&mut back, &mut to);
        let _gone = to.shutdown(std::net::Shutdown::Both);
    });
    let _ended = std::io::copy(&mut client, &mut server);
    server.shutdown(std::net::Shutdown::Both).ok()
}

#[cfg(feature = "lab")]
fn skopeo(authfile: &Path, certificates: &Path, image: &str) -> Result<Vec<u8>, String> {
    let mut command = Command::new("skopeo");
    command.args(["inspect", "--raw", "--authfile"]).arg(authfile).arg("--cert-dir").arg(certificates);
    let output = command.arg(format!("docker://{image}")).output().expect("skopeo (Debian package skopeo)");
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// As quay.io and registry.redhat.io do it: a token for the account of the pull secret, and images for the token. Gives
/// what it was asked for.
#[cfg(feature = "lab")]
fn upstream(ca: &Ca, names: &'static [&'static str], account: &str, image: &'static [u8]) -> Server {
    use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, WWW_AUTHENTICATE};
    let account = format!("Basic {}", base64::Engine::encode(&base64::prelude::BASE64_STANDARD, account));
    let digest = bartizan::registry::digest::of(image);
    Server::with_certificate(ca.issue(names), move |parts, _| {
        let (host, path) = (word(parts, HOST), parts.uri.path());
        let authorization = word(parts, AUTHORIZATION);
        if path == "/v2/auth" {
            let body = if authorization == account { r#"{"token": "good", "expires_in": 300}"# } else { "{}" };
            return answer(
                if authorization == account { 200 } else { 401 },
                &[(CONTENT_TYPE, "application/json")],
                body,
            );
        }
        if authorization != "Bearer good" {
            let challenge = format!("Bearer realm=\"https://{host}/v2/auth\",service=\"{host}\"");
            return answer(401, &[(WWW_AUTHENTICATE, &challenge)], "");
        }
        match path.strip_prefix("/v2/openshift-release-dev/ocp-release/manifests/") {
            Some(wanted) if wanted == digest || wanted == "latest" => {
                let headers = [
                    (CONTENT_TYPE, "application/vnd.oci.image.index.v1+json"),
                    (HeaderName::from_static("docker-content-digest"), digest.as_str()),
                ];
                answer(200, &headers, image)
            }
            _ => answer(404, &[], ""),
        }
    })
}

#[cfg(feature = "lab")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pull_through_registries_fetch_what_they_are_asked_for() {
    const NAMES: &[&str] = &["quay.io", "registry.redhat.io"];
    const STEP: &str = "05-mirror-registry/pull-through";
    const IMAGE: &[u8] =
        br#"{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}"#;
    let ca = Ca::new();
    let upstream = upstream(&ca, NAMES, "pull:secret", IMAGE);
    let way = way_out(NAMES, upstream.port);
    let files = tempfile::tempdir().unwrap();
    let trusted = files.path().join("upstream.pem");
    std::fs::write(&trusted, &ca.pem).unwrap();
    let bastion = Bastion::new(&[("HTTPS_PROXY", &way), ("SSL_CERT_FILE", trusted.to_str().unwrap())]);
    let spec = bastion.spec("", "pull_through = true", "runtime = \"binary\"");
    let auth = |pair: &str| json!({ "auth": base64::Engine::encode(&base64::prelude::BASE64_STANDARD, pair) });
    let pull_secret =
        json!({"auths": NAMES.iter().map(|name| (*name, auth("pull:secret"))).collect::<BTreeMap<_, _>>()});
    let stage = Stage::new(spec, None, |world| world.secrets.pull_secret = Secret::new(pull_secret.to_string())).await;
    bastion.is_known_to(&stage).await;
    for step in ["05-mirror-registry/identity", STEP] {
        stage.once(step).await.unwrap_or_else(|error| panic!("{step}: {:?}", error.causes));
    }
    assert!(stage.probe(STEP).await.is_ok_and(|probe| matches!(probe, bartizan::engine::Probe::True(_))));

    let mirror = stage.cx(STEP).await.world.spec.mirror.clone();
    let certificates = files.path().join("certs");
    std::fs::create_dir(&certificates).unwrap();
    let made = bastion.home.path().join(&mirror.storage).join("certs/ca.crt");
    std::fs::copy(made, certificates.join("ca.crt")).unwrap();
    let authfile = |name: &str, password: &str| {
        let entry = auth(&format!("{}:{password}", mirror.user));
        let auths: BTreeMap<String, _> = [6001, 6002].map(|port| (format!("127.0.0.1:{port}"), entry.clone())).into();
        let file = files.path().join(name);
        std::fs::write(&file, json!({ "auths": auths }).to_string()).unwrap();
        file
    };
    let (own, wrong) = (authfile("own.json", "the-mirrors-password"), authfile("wrong.json", "guessed"));
    let image = |port: u16| {
        let digest = bartizan::registry::digest::of(IMAGE);
        format!("127.0.0.1:{port}/openshift-release-dev/ocp-release@{digest}")
    };
    for port in [6001, 6002] {
        let manifest = skopeo(&own, &certificates, &image(port)).unwrap_or_else(|error| panic!("{port}: {error}"));
        assert_eq!(manifest, IMAGE, "byte for byte what upstream has");
        let refused = skopeo(&wrong, &certificates, &image(port)).unwrap_err();
        assert!(refused.contains("unauthorized") || refused.contains("authentication"), "{refused}");
    }
    let asked: std::collections::BTreeSet<String> =
        upstream.seen().iter().map(|parts| word(parts, axum::http::header::HOST)).collect();
    assert_eq!(asked.into_iter().collect::<Vec<_>>(), NAMES, "each fetches from its own");
    // It is kept: what was fetched answers when the way out is gone.
    drop(upstream);
    skopeo(&own, &certificates, &image(6001)).unwrap_or_else(|error| panic!("without upstream: {error}"));
}
