//! The lab's machines as the real `ssh` client sees them, and proof that the operator's computer stays out of reach.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bartizan::host::job::{Job, JobSpec, JobStatus, Started};
use bartizan::host::ssh::{SshPool, SshTarget};
use bartizan::host::tail::TailItem;
use bartizan::host::{Cmd, Host, Stdin};
use bartizan::lab::machines::{Clock, Entry, Machine, MachineSpec, Machines, Tool, ToolCx};
use futures::StreamExt;
use proptest::strategy::{Strategy, ValueTree};
use serde_json::Value;

/// A lab with `bastion` and, behind it, `bootstrap` at 10.0.48.17; a key that may log in to both.
struct Lab {
    dir: tempfile::TempDir,
    machines: Arc<Machines>,
    bastion: Arc<Machine>,
    bootstrap: Arc<Machine>,
}

async fn lab() -> Lab {
    let dir = tempfile::Builder::new().prefix("lab").tempdir().unwrap();
    let key = dir.path().join("id");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status().unwrap();
    assert!(made.success());
    let public = std::fs::read_to_string(dir.path().join("id.pub")).unwrap();
    let machines = Machines::start(dir.path().join("lab"), Clock::new(10.0)).await.unwrap();
    let spec = |name: &str, address: &str, user: &str| MachineSpec {
        name: name.into(),
        address: address.into(),
        user: user.into(),
        authorized_keys: vec![public.clone()],
        disk_bytes: 200 << 20,
    };
    let bastion = machines.boot(spec("bastion", "10.0.0.5", "ec2-user")).await.unwrap();
    let bootstrap = machines.boot(spec("bootstrap", "10.0.48.17", "core")).await.unwrap();
    let known: String = [&bastion, &bootstrap]
        .iter()
        .map(|machine| format!("{0},[127.0.0.1]:{1} {2}\n", machine.address, machine.ssh().port(), machine.host_key()))
        .collect();
    std::fs::write(dir.path().join("known_hosts"), known).unwrap();
    let config = format!(
        "Host *\n  IdentityFile {0}/id\n  IdentitiesOnly yes\n  UserKnownHostsFile {0}/known_hosts\n  \
         GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  BatchMode yes\n  LogLevel ERROR\n\
         Host bastion\n  HostName 127.0.0.1\n  Port {1}\n  User ec2-user\n\
         Host bootstrap\n  HostName 10.0.48.17\n  User core\n  ProxyJump bastion\n",
        dir.path().display(),
        bastion.ssh().port(),
    );
    std::fs::write(dir.path().join("config"), config).unwrap();
    Lab { dir, machines, bastion, bootstrap }
}

impl Lab {
    fn ssh(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(self.dir.path().join("config")).args(args).stdin(Stdio::null());
        command
    }
    async fn output(&self, args: &[&str]) -> Output {
        let mut command = self.ssh(args);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }
    async fn text(&self, args: &[&str]) -> String {
        let output = self.output(args).await;
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "never: {what}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_runs_commands_pipes_and_puts() {
    let lab = lab().await;
    assert_eq!(lab.text(&["bastion", "echo \"$USER@$(hostname)\"; seq 3 | tail -n 1"]).await, "ec2-user@bastion\n3\n");
    let failed = lab.output(&["bastion", "echo out; echo err >&2; exit 7"]).await;
    assert_eq!((failed.status.code(), &failed.stdout[..], &failed.stderr[..]), (Some(7), &b"out\n"[..], &b"err\n"[..]));

    // A put of 20 MB, whole and unharmed.
    let bytes: Vec<u8> = (0..20u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut put = lab.ssh(&["bastion", "umask 077; cat > big && sha256sum big | cut -d' ' -f1 && stat -c '%a %s' big"]);
    let mut put = put.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = put.stdin.take().unwrap();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent));
    let output = tokio::task::spawn_blocking(move || put.wait_with_output().unwrap()).await.unwrap();
    writer.join().unwrap().unwrap();
    let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{digest}\n600 20971520\n"));
    // And back.
    let back = lab.output(&["bastion", "cat big"]).await;
    assert!(back.stdout == bytes);

    // Another key is refused, and so is another user.
    assert_eq!(lab.output(&["-l", "root", "bastion", "true"]).await.status.code(), Some(255));
    lab.machines.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_jumps_and_forwards_by_the_map_only() {
    let lab = lab().await;
    assert_eq!(lab.text(&["bootstrap", "whoami; hostname"]).await, "core\nbootstrap\n");

    // A server of the lab, by the name it has there.
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    lab.machines.route("registry.lab", Some(8443), server.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = server.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, b"hello from the registry\n").await;
        }
    });
    // And a listener of the operator's, which is nobody's business.
    let private = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    private.set_nonblocking(true).unwrap();
    let private_port = private.local_addr().unwrap().port();

    let local = crate::ports::free_port();
    let forward = format!("127.0.0.1:{local}:registry.lab:8443");
    let mut tunnel = lab.ssh(&["-N", "-o", "ExitOnForwardFailure=yes", "-L", &forward, "bastion"]).spawn().unwrap();
    let mut answer = String::new();
    let start = Instant::now();
    while answer.is_empty() && start.elapsed() < Duration::from_secs(10) {
        if let Ok(mut socket) = std::net::TcpStream::connect(("127.0.0.1", local)) {
            let _ = std::io::Read::read_to_string(&mut socket, &mut answer);
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(answer, "hello from the registry\n");
    tunnel.kill().unwrap();
    tunnel.wait().unwrap();

    for host in ["127.0.0.1", "localhost", "::1", "0.0.0.0"] {
        let target =
            if host.contains(':') { format!("[{host}]:{private_port}") } else { format!("{host}:{private_port}") };
        let refused = lab.output(&["-W", &target, "bastion"]).await;
        assert!(!refused.status.success(), "{target}");
    }
    assert!(private.accept().is_err(), "the lab connected to a port that is not its own");
    lab.machines.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn detached_jobs_outlive_the_connection_and_others_do_not() {
    let lab = lab().await;
    let job = "setsid nohup sh -c 'echo $$ > job.pid; while :; do date +%s%N >> beat; sleep 0.1; done' \
               </dev/null >/dev/null 2>&1 & echo $!";
    let pid = lab.text(&["bastion", job]).await.trim().to_owned();
    let fs = lab.bastion.fs().clone();
    eventually("the job wrote its pid", || fs.read("/home/ec2-user/job.pid").is_ok_and(|text| !text.is_empty())).await;
    assert_eq!(String::from_utf8(fs.read("/home/ec2-user/job.pid").unwrap()).unwrap().trim(), pid);

    let mut held = lab.ssh(&["bastion", "while :; do date >> held; sleep 0.1; done"]).spawn().unwrap();
    eventually("the foreground loop runs", || fs.exists("/home/ec2-user/held")).await;
    held.kill().unwrap();
    held.wait().unwrap();
    let beats = || fs.read("/home/ec2-user/beat").unwrap().len();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (before, held_before) = (beats(), fs.read("/home/ec2-user/held").unwrap().len());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(beats() > before, "the detached job goes on");
    assert_eq!(fs.read("/home/ec2-user/held").unwrap().len(), held_before, "the foreground loop got HUP");

    let stop = format!("kill -0 {pid} && kill -TERM -- -{pid} && sleep 0.3; kill -0 {pid} 2>/dev/null; echo $?");
    assert_eq!(lab.text(&["bastion", &stop]).await, "1\n");
    lab.machines.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_link_drops_everything_at_once_and_comes_back() {
    let lab = lab().await;
    let mut held = lab.ssh(&["bootstrap", "sleep 60"]).spawn().unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(held.try_wait().unwrap().is_none());
    lab.machines.link("bootstrap", false).await;
    let start = Instant::now();
    let ended = tokio::task::spawn_blocking(move || held.wait().unwrap()).await.unwrap();
    assert_eq!(ended.code(), Some(255));
    assert!(start.elapsed() < Duration::from_secs(3));
    assert_eq!(lab.output(&["bootstrap", "true"]).await.status.code(), Some(255));
    assert_eq!(lab.text(&["bastion", "echo still here"]).await, "still here\n");
    lab.machines.link("bootstrap", true).await;
    assert_eq!(lab.text(&["bootstrap", "echo back"]).await, "back\n");
    lab.machines.stop().await;
}

/// Every file below, with what is in it.
fn snapshot(dir: &Path) -> BTreeSet<(PathBuf, Vec<u8>)> {
    let mut all = BTreeSet::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(snapshot(&path));
        } else {
            all.insert((path.clone(), std::fs::read(&path).unwrap_or_default()));
        }
    }
    all
}

/// The command names of this process's children.
fn children() -> Vec<String> {
    let me = std::process::id().to_string();
    let mut names = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((head, tail)) = stat.rsplit_once(") ") else { continue };
        if tail.split(' ').nth(1) == Some(me.as_str()) {
            names.push(head.split_once('(').map_or(String::new(), |(_, name)| name.to_owned()));
        }
    }
    names
}

#[test]
fn hostile_commands_stay_in_the_lab() {
    // In a process of its own: the other tests have children too.
    let alone = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "lab::hostile_commands_alone"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&alone.stdout);
    assert!(alone.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&alone.stderr));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test above, in a process of its own"]
async fn hostile_commands_alone() {
    let lab = lab().await;
    let canary = tempfile::Builder::new().prefix("canary").tempdir().unwrap();
    std::fs::write(canary.path().join("secret"), "operator's own\n").unwrap();
    let place = canary.path().to_str().unwrap().to_owned();
    let private = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    private.set_nonblocking(true).unwrap();
    let port = private.local_addr().unwrap().port();
    // A link that someone put into the jail from outside is not followed either.
    std::os::unix::fs::symlink(canary.path(), lab.bastion.fs().real("/home/ec2-user").unwrap().join("planted"))
        .unwrap();
    let before = snapshot(canary.path());
    let shadow = std::fs::read_to_string("/etc/shadow").unwrap_or_default();
    let real_hostname = std::fs::read_to_string("/etc/hostname").unwrap_or_default();

    let up = "../".repeat(40);
    let battery = [
        "cat /etc/shadow".to_owned(),
        "ls ../../../../..; ls -la /; ls /root /home".to_owned(),
        "ln -s / x; cat x/etc/hostname".to_owned(),
        format!("cat {up}{place}/secret"),
        format!("ln -sf {up}{place} up; cat up/secret; echo owned > up/secret; rm -rf up/"),
        "cat planted/secret; echo owned > planted/secret; ls planted; rm -rf planted/secret; cp /etc/passwd planted/"
            .to_owned(),
        format!("cat {place}/secret; echo owned > {place}/secret"),
        format!("sudo sh -c 'echo owned > {place}/secret; rm -rf {place}'"),
        "sudo sh -c 'echo x > /etc/bartizan-escape'".to_owned(),
        format!("/bin/sh -c 'cat {place}/secret'; /bin/bash -c 'cat {place}/secret'; exec /bin/cat {place}/secret"),
        format!("find / -name secret -exec cat {{}} \\; ; find {place} -delete"),
        format!("cd / && cd {up} && cd {place} && cat secret"),
        format!("tar -cf - {place} | tar -xf - -C /tmp; ln {place}/secret hard; cp -r {place} /tmp/copy"),
        format!(
            "mkdir -p /tmp/evil && cd /tmp/evil && ln -s {place} d && tar -cf ../evil.tar d && rm d && tar -xf ../evil.tar && echo owned > d/secret"
        ),
        format!(
            "curl http://127.0.0.1:{port}/; wget http://127.0.0.1:{port}/; nc 127.0.0.1 {port}; ssh localhost true"
        ),
        format!("exec 3<>/dev/tcp/127.0.0.1/{port}; echo hello >&3; echo hello > /dev/tcp/127.0.0.1/{port}"),
        "python3 -c 'import os; os.system(\"id\")'; perl -e 1; gcc x.c; reboot; shutdown -h now; mount; chroot /"
            .to_owned(),
        "cat /proc/self/environ /proc/1/environ /proc/*/cwd/x; ls -l /proc/self/root/ /proc/self/fd".to_owned(),
        format!("mv {place} /tmp/moved; chmod -R 777 {place}; touch {place}/new; truncate -s 0 {place}/secret"),
        format!(
            "systemd-run --wait sh -c 'echo owned > {place}/secret'; sudo -u root tee {place}/secret < /etc/passwd"
        ),
        "sudo rm -rf --no-preserve-root /; rm -rf / ; rm -rf /* ; rm -rf ~ ; rm -rf /../../../*".to_owned(),
    ];
    for line in &battery {
        let (_, out, err) = tokio::time::timeout(Duration::from_secs(20), lab.bastion.run(line)).await.expect(line);
        for text in [&out, &err] {
            assert!(!text.contains("operator's own"), "{line}: {text}");
            assert!(shadow.is_empty() || !text.contains(shadow.lines().next().unwrap()), "{line}");
        }
        assert!(
            !children().iter().any(|name| !["ssh", "ssh-keygen"].contains(&name.as_str())),
            "{line}: {:?}",
            children()
        );
    }
    let hostname = lab.bootstrap.run("ln -s / x; cat x/etc/hostname").await.1;
    assert_eq!(hostname, "bootstrap\n");
    assert_ne!(hostname, real_hostname);
    for target in [format!("127.0.0.1:{port}"), "169.254.169.254:80".to_owned(), "github.com:22".to_owned()] {
        assert!(!lab.output(&["-W", &target, "bastion"]).await.status.success(), "{target}");
    }
    assert!(private.accept().is_err(), "the lab connected to the operator's port");
    assert_eq!(snapshot(canary.path()), before);
    assert!(!Path::new("/etc/bartizan-escape").exists());
    lab.machines.stop().await;
}

struct Greet;

#[async_trait::async_trait]
impl Tool for Greet {
    fn name(&self) -> &'static str {
        "greet"
    }
    fn on(&self, host: &str) -> bool {
        host == "bastion"
    }
    async fn run(&self, mut cx: ToolCx) -> i32 {
        use tokio::io::AsyncWriteExt;
        if cx.args.first().is_some_and(|arg| arg == "wait") {
            cx.cancel.cancelled().await;
            cx.stdout.write_all(b"tidied up\n").await.unwrap();
            return 8;
        }
        let text = format!("hello {} from {}\n", cx.args.join(" "), cx.machine.name);
        cx.stdout.write_all(text.as_bytes()).await.unwrap();
        0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_units_and_disks_behave() {
    let lab = lab().await;
    lab.machines.add_tool(Arc::new(Greet));
    let run = async |line: &str| lab.bastion.run(line).await;
    assert_eq!(
        run("greet you | tr a-z A-Z; command -v greet").await.1,
        "HELLO YOU FROM BASTION\n/usr/local/bin/greet\n"
    );
    assert_eq!(lab.bootstrap.run("greet you").await.0, 127);
    // A tool that is told to end may say so.
    assert_eq!(run("timeout 0.2 greet wait; echo $?").await.1, "tidied up\n124\n");
    // An archive brings a tool to a machine that has none.
    let packed = "mkdir d && cp /usr/local/bin/greet d/ && tar -czf g.tgz -C d greet && base64 -w0 g.tgz";
    let archive = run(packed).await.1;
    let brought = format!("echo '{archive}' | base64 -d | tar -xzf - -C /tmp && /tmp/greet there");
    assert_eq!(lab.bootstrap.run(&brought).await.1, "hello there from bootstrap\n");

    let unit = "sudo tee /etc/systemd/system/beat.service >/dev/null <<'EOF'\n[Unit]\nDescription=Beat\n[Service]\n\
                ExecStart=/bin/sh -c 'echo started; sleep 1000'\nRestart=on-failure\n[Install]\nWantedBy=multi-user.target\nEOF\n\
                sudo systemctl daemon-reload && sudo systemctl enable --now beat 2>/dev/null; systemctl is-active beat; \
                systemctl is-enabled beat; sleep 0.2; journalctl -q -u beat -o cat --no-pager; sudo systemctl stop beat; \
                systemctl is-active beat; systemctl is-active sshd; systemctl status nosuch >/dev/null 2>&1; echo $?";
    assert_eq!(run(unit).await.1, "active\nenabled\nStarted Beat.\nstarted\ninactive\nactive\n4\n");
    assert_eq!(
        run("sudo systemd-run --quiet --wait --collect --setenv=A=b sh -c 'echo $A > /tmp/ran'; cat /tmp/ran").await.1,
        "b\n"
    );

    let full = "fallocate -l 150M ballast && head -c 80000000 /dev/zero > more; echo $?; rm -f ballast more; \
                head -c 1000000 /dev/zero > more && echo fits";
    let (_, out, err) = run(full).await;
    assert_eq!(out, "1\nfits\n");
    assert!(err.contains("No space left on device"), "{err}");
    lab.bastion.fs().set_device_bytes(400 << 20);
    let (_, out, _) = run("df --output=avail -k / | tail -1; sudo growpart /dev/nvme0n1 4 >/dev/null && sudo xfs_growfs / >/dev/null; df --output=avail -k / | tail -1").await;
    let sizes: Vec<u64> = out.lines().map(|line| line.trim().parse().unwrap()).collect();
    assert!(sizes[1] >= sizes[0] + 200 * 1024, "{sizes:?}");
    lab.machines.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn journalctl_speaks_as_systemd_does() {
    let lab = lab().await;
    let entry = |unit: &str, message: &[u8]| Entry {
        unit: unit.into(),
        identifier: "bootkube.sh".into(),
        priority: 6,
        message: message.to_vec(),
        pid: 4242,
        container: None,
        about_unit: None,
    };
    let journal = lab.bootstrap.journal();
    journal.append(entry("bootkube.service", b"plain text"));
    journal.append(entry("bootkube.service", b"\x1b[31mred\x1b[0m"));
    journal.append(entry("kubelet.service", b"not asked for"));
    journal.append(entry("bootkube.service", &[b'x'; 5000]));
    journal.append(entry("bootkube.service", b"one\x1etwo"));
    journal.append(Entry { about_unit: Some("bootkube.service".into()), pid: 1, ..entry("init.scope", b"Started.") });

    let json = async |args: &str| -> Vec<Value> {
        let line = format!("journalctl --no-pager -q -b -o json -u bootkube.service {args}");
        let (status, out, err) = lab.bootstrap.run(&line).await;
        assert_eq!((status, err.as_str()), (0, ""), "{line}");
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let lines = json("").await;
    let messages: Vec<&Value> = lines.iter().map(|line| &line["MESSAGE"]).collect();
    assert_eq!(messages[0], "plain text");
    assert_eq!(messages[1].as_array().unwrap()[0], 27);
    assert!(messages[2].is_null());
    assert_eq!(messages[3], &serde_json::json!(["one", "two"]));
    assert_eq!((&lines[4]["UNIT"], &lines[4]["_PID"]), (&"bootkube.service".into(), &"1".into()));
    assert_eq!(lines[4]["_SYSTEMD_UNIT"], "init.scope");
    assert!(
        lines.iter().all(|line| line
            .as_object()
            .unwrap()
            .iter()
            .all(|(key, value)| key == "MESSAGE" || value.is_string()))
    );
    assert_eq!(json("--all").await[2]["MESSAGE"].as_str().unwrap().len(), 5000);
    let few = json("--output-fields=MESSAGE,_PID -n 1").await;
    let keys: Vec<&String> = few[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["MESSAGE", "_BOOT_ID", "_PID", "__CURSOR", "__MONOTONIC_TIMESTAMP", "__REALTIME_TIMESTAMP"]);

    let cursor = lines[1]["__CURSOR"].as_str().unwrap();
    assert_eq!(json(&format!("--after-cursor='{cursor}'")).await.len(), 3);
    let (status, _, err) = lab.bootstrap.run("journalctl -q --after-cursor=rubbish").await;
    assert_eq!((status, err.as_str()), (1, "Failed to seek to cursor: Invalid argument\n"));
    assert_eq!(lab.bootstrap.run("journalctl -q -u nosuch").await, (0, String::new(), String::new()));

    // Following over ssh: what is there, then what comes; after a cut, the rest by cursor, nothing twice.
    let follow = |line: String| {
        let mut ssh = lab.ssh(&["bootstrap", &line]);
        ssh.stdout(Stdio::piped()).spawn().unwrap()
    };
    let read = |child: &mut std::process::Child, count: usize| -> Vec<Value> {
        let mut reader = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut lines = Vec::new();
        for _ in 0..count {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
            lines.push(serde_json::from_str(&line).unwrap());
        }
        lines
    };
    for number in 0..200 {
        journal.append(entry("approve-csr.service", format!("line {number}").as_bytes()));
    }
    let command = "journalctl --no-pager -q -b -f -o json -u approve-csr.service";
    let mut first = follow(format!("{command} -n all"));
    let got = tokio::task::block_in_place(|| read(&mut first, 120));
    lab.machines.link("bootstrap", false).await;
    first.wait().unwrap();
    for number in 200..300 {
        journal.append(entry("approve-csr.service", format!("line {number}").as_bytes()));
    }
    lab.machines.link("bootstrap", true).await;
    let cursor = got.last().unwrap()["__CURSOR"].as_str().unwrap();
    let mut second = follow(format!("{command} --after-cursor='{cursor}'"));
    let rest = tokio::task::block_in_place(|| read(&mut second, 180));
    second.kill().unwrap();
    second.wait().unwrap();
    let all: Vec<String> = got.iter().chain(&rest).map(|line| line["MESSAGE"].as_str().unwrap().to_owned()).collect();
    assert_eq!(all, (0..300).map(|number| format!("line {number}")).collect::<Vec<_>>());
    lab.machines.stop().await;
}

/// What a script prints and returns must not depend on whose shell runs it.
const SNIPPETS: &[&str] = &[
    "echo hello   world; echo 'a  b' \"c  d\" e\\ f",
    "x=1 y='two words'; echo $x \"$y\" $y; echo ${x}y ${#y}",
    "set -- a 'b c' d; echo $#; for i in \"$@\"; do echo \"<$i>\"; done; for i in $*; do echo \"[$i]\"; done",
    "set -- a b c; echo \"$*\"; shift; echo $1 $2; shift 2; echo $#",
    "f() { echo \"f $1 $#\"; return 3; }; f x y; echo $?",
    "echo ${u:-default} ${u-unset}; u=; echo ${u:-empty}x${u-set}x; echo ${v:=assigned} $v; echo ${v:+alt}",
    "p=/usr/lib/libfoo.so.1; echo ${p##*/} ${p#*/} ${p%.*} ${p%%.*}",
    "echo $((1 + 2 * 3)) $(( (1+2)*3 )) $((7/2)) $((7%3)) $((1<2)) $((2>1 && 0))",
    "i=0; while [ $i -lt 3 ]; do echo $i; i=$((i+1)); done",
    "i=3; until [ $i -eq 0 ]; do i=$((i-1)); [ $i -eq 1 ] && continue; echo $i; done",
    "for i in 1 2 3 4; do if [ $i -eq 3 ]; then break; fi; echo $i; done",
    "for i in a b; do for j in 1 2; do [ $j = 2 ] && continue 2; echo $i$j; done; done",
    "case hello in h*o) echo star;; *) echo other;; esac; case x in [a-c]) echo abc;; [x-z]) echo xyz;; esac",
    "case 'a b' in 'a b'|c) echo yes;; esac; case '*' in '\\*') echo no;; \\*) echo literal;; esac",
    "if false; then echo a; elif true; then echo b; else echo c; fi",
    "true && echo and || echo or; false && echo and || echo or; ! true; echo $?",
    "(exit 3); echo $?; (x=5; echo $x); echo \"[$x]\"",
    "{ echo a; echo b; } | wc -l | tr -d ' '",
    "echo a b c | { read x y; echo \"$y-$x\"; }",
    "printf 'a:b:c\\n' | while IFS=: read -r x y z; do echo $z $y $x; done",
    "echo $(echo nested $(echo deep)); echo `echo back`",
    "x=$(printf 'a\\n\\n\\n'); echo \"[$x]\"",
    "cat <<EOF\nv=$((1+1)) $(echo sub) \\$x \"q\"\nEOF",
    "cat <<'EOF'\n$x $(no) `no`\nEOF",
    "cat <<-EOF\n\tindented\n\tEOF",
    "echo one > f; echo two >> f; cat < f; cat f | sort -r",
    "echo err 1>&2 2>/dev/null; ls nosuch 2>/dev/null; echo $?",
    "{ echo out; echo err >&2; } 2>&1 | sort",
    "exec 3>f3; echo three >&3; exec 3>&-; cat f3",
    "touch a.txt b.txt c.log; echo *.txt; echo '*.txt' \"*.txt\"; echo nosuch*",
    "mkdir -p d/e; touch d/e/f d/e/g; echo d/*/f d/e/?; echo d/e/[fg]",
    "set -e; false; echo never",
    "set -e; false || echo saved; if false; then :; fi; ! true; echo here; (exit 4); echo never",
    "set -e; f() { false; echo after; }; f || echo handled; f; echo never",
    "set -u; echo ${x-ok}; echo \"$#\"",
    "trap 'echo bye' EXIT; echo hi; exit 5",
    "trap 'echo term' TERM; kill -TERM $$; echo after",
    "(trap 'echo inner' EXIT; echo in); echo out",
    "sleep 0.1 & pid=$!; wait $pid; echo $?; (exit 6) & wait $!; echo $?",
    "sh -c 'echo $0 $1 $#' name arg; sh -c 'exit 9'; echo $?",
    "eval 'x=5; echo $x'; eval echo \\$x",
    "readonly r=1; export e=2; sh -c 'echo $e'; y=3 sh -c 'echo $y'; echo \"[$y]\"",
    "unset x; x=1; unset x; echo \"[${x-gone}]\"",
    "IFS=,; v=a,b,,c; for i in $v; do echo \"<$i>\"; done",
    "v=' a  b '; for i in $v; do echo \"<$i>\"; done; echo \"$v\"",
    "set -- ; for i in \"$@\"; do echo never; done; echo \"x$@y\" \"\" | cat",
    "test -d . && test ! -f nosuch && [ a = a ] && [ 3 -gt 2 ] && [ -n x -a -z '' ] && echo tests",
    "[ ]; echo $?; [ -n '' ]; echo $?; [ a != b ]; echo $?",
    "seq 5 | head -n 2; seq 5 | tail -n 2; seq 10 | tail -n +9; printf abcdef | tail -c 3; printf abcdef | head -c 2",
    "printf 'b\\na\\nb\\n' | sort | uniq -c | sed 's/^ *//'",
    "printf '%s-%03d|%-5s|%5s|%x\\n' a 7 b c 255; printf '%s\\n' 1 2 3; printf '%%'",
    "echo a.b.c | cut -d. -f2; echo abcdef | cut -c2-4; echo hello | tr a-y b-z; echo aabb | tr -s ab",
    "printf 'foo\\nbar\\nfoobar\\n' | grep -c foo; printf 'foo\\nbar\\n' | grep -v foo; echo x | grep -q y; echo $?",
    "printf 'a1\\nb22\\n' | grep -E '[0-9]{2}'; printf 'A\\n' | grep -i a; echo 'k=v' | grep -o '[^=]*$'",
    "printf '1\\n2\\n3\\n' | sed -n 2p; echo path/to | sed 's|/|-|g'; printf 'a\\nb\\n' | sed '/a/d'; echo ab | sed 's/\\(a\\)\\(b\\)/\\2\\1/'",
    "basename /a/b.txt .txt; dirname /a/b/c; dirname x; basename /",
    "echo hi | tee t1 t2 >/dev/null; cat t1 t2; wc -c < t1 | tr -d ' '",
    "echo data > s; sha256sum s | cut -c1-8; mv s t; [ -e s ]; echo $?; cp t u; cat u; rm t u; ls",
    "mkdir m && cd m && pwd | sed 's|.*/||'; cd ..; ln -s m l; cd l; cd ..; readlink l; rm l; rmdir m; ls",
    "umask 077; touch priv; stat -c %a priv; umask 022; mkdir pub; stat -c %a pub; chmod 640 priv; stat -c %a priv",
    "echo a b c | xargs -n 1 echo item; printf 'x\\ny\\n' | xargs echo",
    "find . -type f; mkdir q; touch q/z; find q -name 'z'; find q -type d",
    "while :; do echo y; done | head -n 2",
    "x=a; f() { local x=b; echo $x; }; f; echo $x",
    "f() { cat; }; echo piped | f; f <<EOF\ndoc\nEOF",
    "echo \"a\\\"b\" 'it'\\''s' \"$(echo \"q q\")\" a\"b\"'c'",
    "a=1; a=2 true; echo $a; b=$a$a; echo ${b}0; c=\"$(echo x; echo y)\"; echo \"$c\"",
    "kill -0 $$ && echo alive; kill -0 999999 2>/dev/null; echo $?",
    "nosuchcommand 2>/dev/null; echo $?; command -v nosuch || echo none; command -v cd",
    "echo 'echo sourced $1; v=9' > lib; . ./lib; echo $v",
    "date -u -d @0 +%Y-%m-%dT%H:%M:%SZ; [ $(date +%s) -gt 1000000000 ] && echo now",
    "tar -cf t.tar -C . . 2>/dev/null; mkdir in; echo c > in/c; tar -czf i.tgz in; rm -r in; tar -xzf i.tgz; cat in/c; tar -tzf i.tgz",
    "exec echo replaced; echo never",
    "false | true; echo $?; true | false; echo $?",
    "x=5; while [ $x -gt 0 ]; do x=$((x-2)); done; echo $x; : $((x=7)); echo $x",
    "timeout 0.2 sleep 5; echo $?; nohup echo n 2>/dev/null; env -i A=1 sh -c 'echo $A'",
    "echo \"${x:-\"quoted default\"}\" ${y:-a b}; z='a*'; echo \"$z\" ${z%\\*}",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_agrees_with_a_real_one() {
    let lab = lab().await;
    let mut wrong = String::new();
    for (number, snippet) in SNIPPETS.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let mut real = Command::new("/bin/sh");
        real.arg("-c").arg(snippet).current_dir(dir.path()).stdin(Stdio::null());
        let real = real.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").output().unwrap();
        let line =
            format!("mkdir -p /tmp/s{number} && cd /tmp/s{number} && exec sh -c '{}'", snippet.replace('\'', r"'\''"));
        let ours = tokio::time::timeout(Duration::from_secs(20), lab.bastion.run(&line)).await;
        let Ok((status, out, err)) = ours else {
            wrong += &format!("\n{snippet}\n  hangs");
            continue;
        };
        let expected = String::from_utf8_lossy(&real.stdout);
        if (Some(status), out.as_str()) != (real.status.code(), &*expected) {
            let code = real.status.code();
            wrong += &format!("\n{snippet}\n  sh:  {code:?} {expected:?}\n  lab: {status} {out:?} {err:?}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    lab.machines.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_line_brings_the_lab_down() {
    let lab = lab().await;
    let word = proptest::prop_oneof![
        "[ -~]{0,12}",
        "[\\]\\[(){}$`\"'\\\\|&;<>!*?~#= \n]{1,12}",
        proptest::sample::select(vec![
            "if",
            "then",
            "fi",
            "for x in a b",
            "do",
            "done",
            "case x in",
            "esac",
            "while false",
            "$((",
            "))",
            "$(",
            "${x",
            "}",
            "<<EOF\n",
            "EOF\n",
            "((",
            "[[",
            "]]",
            "function f",
            "f() {",
            "echo",
            "cat",
            "x=1",
            "2>&1",
            "|&",
            "&&",
            "~99999999999999999999",
            "{1..99999999999999999999}",
            "$((99999999999999999999))",
            "${x:99999999999999999999}",
            "trap - EXIT",
            "exec",
            "sed s/",
            "grep (",
            "printf %999999999d",
            "é\u{0}\u{1b}",
            "tar xf",
            "find -exec",
            "test (",
            "head -c",
            "date -d",
        ])
        .prop_map(str::to_owned),
    ];
    let lines = proptest::collection::vec(word, 1..8).prop_map(|words| words.join(" "));
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..600 {
        let line = lines.new_tree(&mut runner).unwrap().current();
        // Waiting for input that never ends is no failure; a panic would be status 255 with this message.
        if let Ok((_, _, err)) = tokio::time::timeout(Duration::from_millis(1500), lab.bastion.run(&line)).await {
            assert!(!err.contains("the machine is down"), "panicked on {line:?}");
        }
    }
    let deep =
        ["(".repeat(500), "$(".repeat(300), "{ ".repeat(5000), "if ".repeat(3000), "$((".repeat(50) + &"!".repeat(400)];
    for line in deep.iter().chain(&["f() { f; }; f".to_owned(), "sh -c 'f() { sh -c f; }; f'".to_owned()]) {
        let ran = tokio::time::timeout(Duration::from_secs(20), lab.bastion.run(line)).await;
        assert_ne!(ran.expect("takes too long").0, 0);
    }
    assert_eq!(lab.bastion.run("echo fine").await.1, "fine\n");
    lab.machines.stop().await;
}

/// The product's own hosts, jobs and tails, which elsewhere are tested against a real sshd and a real shell.
#[tokio::test(flavor = "multi_thread")]
async fn the_products_jobs_and_tails_work_across_a_cut() {
    let lab = lab().await;
    let pool = SshPool::new(&lab.dir.path().join("run")).unwrap();
    let target = |name: &str, machine: &Machine| SshTarget {
        identity: Some(lab.dir.path().join("id")),
        host_keys: vec![machine.host_key()],
        ..SshTarget::new(name, &machine.address, &machine.user)
    };
    let port = lab.bastion.ssh().port();
    let bastion = pool.add(SshTarget { address: "127.0.0.1".into(), port, ..target("bastion", &lab.bastion) }).unwrap();
    let through = SshTarget { via: Some("bastion".into()), ..target("bootstrap", &lab.bootstrap) };
    let bootstrap = pool.add(through).unwrap();

    assert_eq!(bootstrap.exec(&Cmd::new("whoami").sudo()).await.unwrap().text(), "root");
    let content: std::sync::Arc<[u8]> = vec![7; 3_000_000].into();
    bastion.put("dir/file", Stdin::Bytes(content.clone()), 0o640).await.unwrap();
    assert_eq!(bastion.get("dir/file").await.unwrap().unwrap(), &*content);
    assert_eq!(bastion.exec(&Cmd::new("stat").args(["-c", "%a", "dir/file"])).await.unwrap().text(), "640");
    assert!(bastion.get("dir/nothing").await.unwrap().is_none());

    for sudo in [false, true] {
        let dir = format!("/home/ec2-user/jobs-{sudo}");
        let count = "n=0; while [ $n -lt 60 ]; do echo line $n; n=$((n+1)); sleep 0.05; done; exit 5";
        let cmd = Cmd { sudo, ..Cmd::sh(count) };
        let job = Job::new(bastion.clone(), JobSpec { name: "sync".into(), cmd, dir: dir.clone() }).unwrap();
        assert!(matches!(job.start().await.unwrap(), Started::New { .. }), "{sudo}");
        assert!(matches!(job.start().await.unwrap(), Started::Adopted { .. }), "{sudo}");
        assert!(matches!(job.status().await.unwrap(), JobStatus::Running { .. }), "{sudo}");
        let mut follow = job.follow(0);
        let mut lines = Vec::new();
        while let Some(item) = tokio::time::timeout(Duration::from_secs(60), follow.next()).await.expect("a line") {
            if let TailItem::Line { text, .. } = item {
                lines.push(text);
            }
            if lines.len() == 10 {
                lab.machines.link("bastion", false).await;
                tokio::time::sleep(Duration::from_millis(400)).await;
                lab.machines.link("bastion", true).await;
            }
        }
        assert_eq!(lines, (0..60).map(|n| format!("line {n}")).collect::<Vec<_>>(), "{sudo}");
        assert_eq!(job.status().await.unwrap(), JobStatus::Ended { status: 5 });

        let long = Cmd { sudo, ..Cmd::new("sleep").arg("600") };
        let job = Job::new(bastion.clone(), JobSpec { name: "long".into(), cmd: long, dir }).unwrap();
        job.start().await.unwrap();
        job.stop(Duration::from_secs(5)).await.unwrap();
        assert!(matches!(job.status().await.unwrap(), JobStatus::Ended { status } if status != 0), "{sudo}");
    }
    pool.host("bastion").unwrap().disconnect().await;
    lab.machines.stop().await;
}
