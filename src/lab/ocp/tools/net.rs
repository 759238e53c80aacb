//! Looking at the network from a machine of the lab: `curl`, `dig`, `getent`, `nc`, `openssl s_client`, `crictl`. They
//! reach what the lab routes, and nothing else.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Words, err, out, path};
use crate::lab::machines::{Machine, Tool, ToolCx};
use crate::lab::ocp::cluster::Scene;
use crate::lab::ocp::network::BALANCER;
use crate::lab::ocp::tls;

/// Where `host:port` is, as a machine of the lab sees it.
pub fn resolve(scene: &Scene, host: &str, port: u16) -> Option<SocketAddr> {
    match host {
        "quay.io" if port == 443 => Some(scene.source),
        "localhost" | "127.0.0.1" => {
            // The registry is the only thing that listens on the bastion.
            scene.containers.address(port)
        }
        _ => scene.machines.resolve(host, port),
    }
}

/// A machine of the cluster, in subnets without a way out.
pub fn is_node(machine: &Machine) -> bool {
    ["bootstrap", "master-", "worker-"].iter().any(|name| machine.name.starts_with(name))
}

/// What a machine trusts: its anchors, and the lab's source as if it were public.
pub fn anchors(scene: &Scene, machine: &Machine) -> String {
    const FOLDERS: &[&str] = &["/etc/pki/ca-trust/source/anchors", "/usr/local/share/ca-certificates"];
    let mut pem = scene.source_ca.pem().to_owned();
    for folder in FOLDERS {
        for file in machine.fs().list(folder).unwrap_or_default() {
            let bytes = machine.fs().read(&format!("{folder}/{file}")).unwrap_or_default();
            pem.push_str(&String::from_utf8_lossy(&bytes));
            pem.push('\n');
        }
    }
    pem
}

pub struct Asked<'a> {
    pub method: &'a str,
    pub url: &'a str,
    pub headers: Vec<(String, String)>,
    pub user: Option<(String, String)>,
    /// PEM that is trusted besides.
    pub ca: Option<String>,
    pub insecure: bool,
    pub timeout: Duration,
}

/// An answer, or curl's exit code and message.
pub async fn ask(scene: &Scene, machine: &Machine, asked: &Asked<'_>) -> Result<reqwest::Response, (i32, String)> {
    let url =
        reqwest::Url::parse(asked.url).map_err(|_| (3, "URL using bad/illegal format or missing URL".to_owned()))?;
    let host = url.host_str().unwrap_or_default().to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    if host == "quay.io" && is_node(machine) {
        return Err((28, format!("Failed to connect to {host} port {port}: Connection timed out")));
    }
    let Some(address) = resolve(scene, &host, port) else {
        return Err(match host.parse::<std::net::IpAddr>().is_ok() || host == "localhost" {
            true => (7, format!("Failed to connect to {host} port {port} after 0 ms: Connection refused")),
            false => (6, format!("Could not resolve host: {host}")),
        });
    };
    let mut pem = anchors(scene, machine);
    pem.push_str(asked.ca.as_deref().unwrap_or_default());
    let roots = tls::roots(pem.as_bytes()).map_err(|why| (77, why.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|why| (35, why.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let builder = reqwest::Client::builder().no_proxy().resolve(&host, address).timeout(asked.timeout);
    let builder = match asked.insecure {
        true => builder.tls_danger_accept_invalid_certs(true),
        false => builder.tls_backend_preconfigured(config),
    };
    let client = builder.build().map_err(|why| (35, why.to_string()))?;
    let mut there = url.clone();
    // The port that the name has in the lab, not the one in the URL.
    let _ = there.set_port(Some(address.port()));
    let method = asked.method.parse().unwrap_or(reqwest::Method::GET);
    let mut request = client.request(method, there);
    for (name, value) in &asked.headers {
        request = request.header(name, value);
    }
    if let Some((user, password)) = &asked.user {
        request = request.basic_auth(user, Some(password));
    }
    request.send().await.map_err(|why| {
        let mut chain = String::new();
        let mut cause: Option<&dyn Error> = Some(&why);
        while let Some(error) = cause {
            chain.push_str(&format!("{error:?}\n"));
            cause = error.source();
        }
        if chain.contains("UnknownIssuer") || chain.contains("BadSignature") {
            (60, "SSL certificate problem: unable to get local issuer certificate".to_owned())
        } else if chain.contains("NotValidForName") {
            (60, format!("SSL: no alternative certificate subject name matches target host name '{host}'"))
        } else if chain.contains("ConnectionRefused") {
            (7, format!("Failed to connect to {host} port {port} after 0 ms: Connection refused"))
        } else if why.is_timeout() {
            (28, "Operation timed out".to_owned())
        } else {
            (56, "Recv failure: Connection reset by peer".to_owned())
        }
    })
}

pub struct Curl(pub Arc<Scene>);

#[async_trait]
impl Tool for Curl {
    fn name(&self) -> &'static str {
        "curl"
    }

    async fn run(&self, mut cx: ToolCx) -> i32 {
        if cx.args.first().is_some_and(|arg| arg == "--version" || arg == "-V") {
            out(&mut cx, "curl 7.76.1 (x86_64-redhat-linux-gnu) libcurl/7.76.1 OpenSSL/3.2.2\n").await;
            return 0;
        }
        // Clustered one-letter options are taken apart first: `-sk`, `-fsSLo FILE`.
        let mut args = Vec::new();
        for arg in &cx.args {
            match arg.strip_prefix('-').filter(|rest| !rest.starts_with('-') && rest.len() > 1) {
                Some(letters) if letters.chars().all(|c| c.is_ascii_alphabetic()) => {
                    args.extend(letters.chars().map(|letter| format!("-{letter}")));
                }
                _ => args.push(arg.clone()),
            }
        }
        let valued = [
            "o",
            "output",
            "w",
            "write-out",
            "cacert",
            "u",
            "user",
            "H",
            "header",
            "X",
            "request",
            "connect-timeout",
            "m",
            "max-time",
            "K",
            "config",
            "retry",
            "resolve",
            "netrc-file",
        ];
        let words = Words::parse(&args, &valued);
        let headers = words
            .all(&["H", "header"])
            .iter()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect();
        let mut user = words.get(&["u", "user"]).map(str::to_owned);
        if let Some(file) = words.get(&["K", "config"]) {
            let text =
                if file == "-" { super::input(&mut cx).await } else { super::read(&cx, file).unwrap_or_default() };
            user = text
                .lines()
                .find_map(|line| line.trim().strip_prefix("user"))
                .map(|rest| rest.trim_start_matches([' ', '=', ':']).trim_matches('"').to_owned())
                .or(user);
        }
        let head = words.has(&["I", "head"]);
        let asked = Asked {
            method: words.get(&["X", "request"]).unwrap_or(if head { "HEAD" } else { "GET" }),
            url: words.plain.first().map_or("", String::as_str),
            headers,
            user: user
                .as_deref()
                .and_then(|user| user.split_once(':'))
                .map(|(user, password)| (user.to_owned(), password.to_owned())),
            ca: words.get(&["cacert"]).and_then(|file| super::read(&cx, file)),
            insecure: words.has(&["k", "insecure"]),
            timeout: Duration::from_secs(
                words.get(&["m", "max-time"]).and_then(|text| text.parse().ok()).unwrap_or(30),
            ),
        };
        let silent = words.has(&["s", "silent"]);
        let answer = match ask(&self.0, &cx.machine, &asked).await {
            Ok(answer) => answer,
            Err((code, why)) => {
                if let Some(format) = words.get(&["w", "write-out"]) {
                    out(
                        &mut cx,
                        format.replace("%{http_code}", "000").replace("%{response_code}", "000").replace("\\n", "\n"),
                    )
                    .await;
                }
                if !silent || words.has(&["S", "show-error"]) {
                    err(&mut cx, format!("curl: ({code}) {why}\n")).await;
                }
                return code;
            }
        };
        let status = answer.status();
        if words.has(&["f", "fail"]) && !status.is_success() {
            if !silent || words.has(&["S", "show-error"]) {
                err(&mut cx, format!("curl: (22) The requested URL returned error: {}\n", status.as_u16())).await;
            }
            return 22;
        }
        let shown = words.get(&["o", "output"]) != Some("/dev/null");
        if shown && (head || words.has(&["i", "include"])) {
            let mut text = format!("HTTP/1.1 {status}\r\n");
            for (name, value) in answer.headers() {
                text.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
            }
            out(&mut cx, text + "\r\n").await;
        }
        let body = answer.bytes().await.unwrap_or_default();
        match words.get(&["o", "output"]) {
            Some("/dev/null") => {}
            Some(file) => {
                let file = path(&cx, file);
                if cx.machine.fs().write(&file, &body).is_err() {
                    err(&mut cx, "curl: (23) Failure writing output to destination\n").await;
                    return 23;
                }
            }
            None => out(&mut cx, String::from_utf8_lossy(&body)).await,
        }
        if let Some(format) = words.get(&["w", "write-out"]) {
            let code = status.as_u16().to_string();
            out(&mut cx, format.replace("%{http_code}", &code).replace("%{response_code}", &code).replace("\\n", "\n"))
                .await;
        }
        0
    }
}

/// The address that a name of the lab has inside the pretended VPC.
async fn address_of(scene: &Scene, machine: &Machine, name: &str) -> Option<String> {
    let name = name.trim_end_matches('.');
    if name == "quay.io" {
        return Some("34.225.41.113".into());
    }
    if name == "localhost" {
        return Some("127.0.0.1".into());
    }
    if let Some(cluster) = scene.any_cluster() {
        let domain = &cluster.assets.domain;
        if name == format!("api.{domain}") || name == format!("api-int.{domain}") {
            return scene.lookup(&cluster, name).await.ok().flatten();
        }
        if name.ends_with(&format!(".apps.{domain}")) {
            return Some(BALANCER.into());
        }
        if let Some(node) = cluster.assets.nodes.iter().find(|node| node.node == name || node.name == name) {
            return Some(node.address.clone());
        }
    }
    let known = scene.containers.names().into_iter().any(|known| known == name);
    if known || hosts(machine).iter().any(|(_, host)| host == name) {
        return Some(
            scene.machines.machine("bastion").map_or_else(|| "10.0.0.10".into(), |bastion| bastion.address.clone()),
        );
    }
    None
}

fn hosts(machine: &Machine) -> Vec<(String, String)> {
    let text = machine.fs().read("/etc/hosts").unwrap_or_default();
    String::from_utf8_lossy(&text)
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(|line| {
            let mut words = line.split_whitespace().map(str::to_owned);
            let address = words.next().unwrap_or_default();
            words.map(move |name| (address.clone(), name)).collect::<Vec<_>>()
        })
        .collect()
}

pub struct Dig(pub Arc<Scene>);

#[async_trait]
impl Tool for Dig {
    fn name(&self) -> &'static str {
        "dig"
    }

    async fn run(&self, mut cx: ToolCx) -> i32 {
        let name = cx.args.iter().find(|arg| !arg.starts_with(['+', '-', '@'])).cloned().unwrap_or_default();
        let found = address_of(&self.0, &cx.machine, &name).await;
        let text = match (found, cx.args.iter().any(|arg| arg == "+short")) {
            (Some(address), true) => format!("{address}\n"),
            (Some(address), false) => format!(";; ANSWER SECTION:\n{name}.\t60\tIN\tA\t{address}\n"),
            (None, true) => String::new(),
            (None, false) => {
                format!(";; ->>HEADER<<- opcode: QUERY, status: NXDOMAIN\n;; QUESTION SECTION:\n;{name}.\tIN\tA\n")
            }
        };
        out(&mut cx, text).await;
        0
    }
}

pub struct Getent(pub Arc<Scene>);

#[async_trait]
impl Tool for Getent {
    fn name(&self) -> &'static str {
        "getent"
    }

    async fn run(&self, mut cx: ToolCx) -> i32 {
        let (database, name) =
            (cx.args.first().cloned().unwrap_or_default(), cx.args.get(1).cloned().unwrap_or_default());
        let line = match database.as_str() {
            "hosts" | "ahosts" | "ahostsv4" => {
                address_of(&self.0, &cx.machine, &name).await.map(|address| format!("{address:<15} {name}\n"))
            }
            "passwd" => Some(format!("{0}:x:1000:1000::/home/{0}:/bin/bash\n", cx.user)),
            _ => None,
        };
        match line {
            Some(line) => {
                out(&mut cx, line).await;
                0
            }
            None => 2,
        }
    }
}

pub struct Nc(pub Arc<Scene>);

#[async_trait]
impl Tool for Nc {
    fn name(&self) -> &'static str {
        "nc"
    }

    async fn run(&self, mut cx: ToolCx) -> i32 {
        let words = Words::parse(&cx.args, &["w", "i"]);
        let (host, port) = (words.word(0).to_owned(), words.word(1).to_owned());
        let there = port.parse().ok().and_then(|port| resolve(&self.0, &host, port));
        let open = match there {
            Some(address) => tokio::net::TcpStream::connect(address).await.is_ok(),
            None => false,
        };
        let text = match open {
            true => format!("Ncat: Connected to {host}:{port}.\n"),
            false if address_of(&self.0, &cx.machine, &host).await.is_none() => {
                format!("Ncat: Could not resolve hostname \"{host}\": Name or service not known. QUITTING.\n")
            }
            false => "Ncat: Connection refused.\n".to_owned(),
        };
        if words.plain.len() == 2 {
            err(&mut cx, text).await;
        }
        i32::from(!open)
    }
}

/// `openssl s_client` shows the chain; `openssl x509` the subject, issuer, dates and fingerprint.
pub struct Openssl(pub Arc<Scene>);

#[async_trait]
impl Tool for Openssl {
    fn name(&self) -> &'static str {
        "openssl"
    }

    async fn run(&self, mut cx: ToolCx) -> i32 {
        let words = Words::parse(&cx.args, &["connect", "servername", "in", "CAfile", "out", "ext"]);
        match words.word(0) {
            "version" | "" => {
                out(&mut cx, "OpenSSL 3.2.2 4 Jun 2024 (Library: OpenSSL 3.2.2 4 Jun 2024)\n").await;
                0
            }
            "s_client" => {
                let target = words.get(&["connect"]).unwrap_or_default().to_owned();
                let (host, port) = target.rsplit_once(':').unwrap_or((target.as_str(), "443"));
                let served = self.0.containers.served();
                let there = port.parse().ok().and_then(|port| resolve(&self.0, host, port));
                let served = served.into_iter().find(|served| there.is_some() && served.port.to_string() == port);
                let Some(served) = served else {
                    err(&mut cx, format!("connect:errno=111\n{target}: Connection refused\n")).await;
                    return 1;
                };
                let chain = served.machine.fs().read(&served.certificate).unwrap_or_default();
                let text =
                    format!("CONNECTED(00000003)\n---\nCertificate chain\n{}---\n", String::from_utf8_lossy(&chain));
                out(&mut cx, text).await;
                0
            }
            "x509" => self.x509(&mut cx, &words).await,
            other => {
                err(&mut cx, format!("Invalid command '{other}'; type \"help\" for a list.\n")).await;
                1
            }
        }
    }
}

impl Openssl {
    async fn x509(&self, cx: &mut ToolCx, words: &Words) -> i32 {
        use x509_parser::prelude::FromDer;
        let text = match words.get(&["in"]) {
            Some(file) => super::read(cx, file).unwrap_or_default(),
            None => super::input(cx).await,
        };
        let start = text.find("-----BEGIN CERTIFICATE").and_then(|at| text.get(at..)).unwrap_or_default().to_owned();
        let block = x509_parser::pem::parse_x509_pem(start.as_bytes()).map(|(_, block)| block.contents);
        let Ok(der) = block else {
            err(cx, "Could not read certificate from <stdin>\nUnable to load certificate\n").await;
            return 1;
        };
        let Ok((_, certificate)) = x509_parser::prelude::X509Certificate::from_der(&der) else { return 1 };
        let mut lines = Vec::new();
        if words.has(&["subject", "text"]) {
            lines.push(format!("subject={}", certificate.subject()));
        }
        if words.has(&["issuer", "text"]) {
            lines.push(format!("issuer={}", certificate.issuer()));
        }
        if words.has(&["dates", "startdate", "text"]) {
            lines.push(format!("notBefore={}", certificate.validity().not_before));
        }
        if words.has(&["dates", "enddate", "text"]) {
            lines.push(format!("notAfter={}", certificate.validity().not_after));
        }
        if words.has(&["fingerprint"]) {
            let hash = ring::digest::digest(&ring::digest::SHA256, &der);
            let hex: Vec<String> = hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
            lines.push(format!("sha256 Fingerprint={}", hex.join(":")));
        }
        if words.has(&["ext", "text"])
            && let Ok(Some(names)) = certificate.subject_alternative_name()
        {
            let names: Vec<String> = names
                .value
                .general_names
                .iter()
                .map(|name| match name {
                    x509_parser::extensions::GeneralName::DNSName(name) => format!("DNS:{name}"),
                    other => format!("{other}"),
                })
                .collect();
            lines.push(format!("X509v3 Subject Alternative Name: \n    {}", names.join(", ")));
        }
        if !words.has(&["noout"]) {
            lines.push(start);
        }
        out(cx, lines.join("\n") + "\n").await;
        0
    }
}

/// `crictl ps` on a node.
pub struct Crictl(pub Arc<Scene>);

#[async_trait]
impl Tool for Crictl {
    fn name(&self) -> &'static str {
        "crictl"
    }

    fn on(&self, host: &str) -> bool {
        host != "bastion"
    }

    async fn run(&self, mut cx: ToolCx) -> i32 {
        let marks = self.0.any_cluster().map(|cluster| cluster.marks()).unwrap_or_default();
        let mut rows = vec![
            ["CONTAINER", "IMAGE", "CREATED", "STATE", "NAME", "ATTEMPT", "POD ID", "POD"].map(str::to_owned).to_vec(),
        ];
        let mut add = |name: &str, pod: &str| {
            let id: String = crate::lab::ocp::payload::digest(pod.as_bytes()).chars().skip(7).take(13).collect();
            rows.push(
                [
                    id.as_str(),
                    "quay.io/openshift-release-dev/ocp-v4.0-art-dev",
                    "2 minutes ago",
                    "Running",
                    name,
                    "0",
                    id.as_str(),
                    pod,
                ]
                .map(str::to_owned)
                .to_vec(),
            );
        };
        if marks.serves_ignition && !marks.bootkube && cx.machine.name == "bootstrap" {
            add("machine-config-server", "bootstrap-machine-config-operator");
            add("etcd", "etcd-bootstrap-member");
        }
        if marks.api && cx.machine.name == "bootstrap" {
            for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "cluster-version-operator"] {
                add(name, &format!("bootstrap-{name}"));
            }
        }
        if marks.control_plane && cx.machine.name.starts_with("master") {
            for name in ["kube-apiserver", "etcd", "kube-controller-manager", "kube-scheduler"] {
                add(name, &format!("{name}-{}", cx.machine.name));
            }
        }
        out(&mut cx, super::table(&rows)).await;
        0
    }
}
