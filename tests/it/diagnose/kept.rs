//! Logs in the forms in which people keep them, and what the program says of them.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const CA: &str = "Error: initializing source docker://mirror.c1.ex.com:5000/openshift/release@sha256:6d: pinging container registry mirror.c1.ex.com:5000: Get \"https://mirror.c1.ex.com:5000/v2/\": x509: certificate signed by unknown authority";

fn bartizan(config: &Path, args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_bartizan"))
        .args(args)
        .env("BARTIZAN_CONFIG", config)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bartizan runs");
    // Wrong arguments end it before it reads.
    let _unread = child.stdin.take().expect("a pipe").write_all(stdin.as_bytes());
    child.wait_with_output().expect("bartizan ends")
}

fn objects(output: &Output) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect()
}

fn ids(objects: &[Value]) -> Vec<&str> {
    objects.iter().filter_map(|object| object["signature"].as_str()).collect()
}

#[test]
fn a_line_is_known_in_every_form_that_it_is_kept_in() {
    let config = tempfile::tempdir().expect("a directory");
    let escaped = CA.replace('"', "\\\"");
    let bytes: Vec<String> = CA.bytes().map(|byte| byte.to_string()).collect();
    for text in [
        format!("Mar 01 10:00:01 ip-10-0-0-8 bootkube.sh[123]: {CA}\n"),
        format!("2025-03-01T10:00:01+0000 ip-10-0-0-8 bootkube.sh[123]: {CA}\r\n"),
        format!("Mar 01 10:00:01 bootkube.sh[123]: {CA}\n"),
        format!(" 6월 24 06:22:35 bootstrap.ex.com release-image-download.sh[52391]: {CA}"),
        format!(
            "{{\"MESSAGE\":\"{escaped}\",\"_SYSTEMD_UNIT\":\"bootkube.service\",\"__REALTIME_TIMESTAMP\":\"1740823201000000\"}}"
        ),
        format!("{{\"_SYSTEMD_UNIT\":\"bootkube.service\",\"MESSAGE\":[{}]}}", bytes.join(",")),
        format!("time=\"2025-03-01T10:00:00Z\" level=debug msg=\"{escaped}\""),
        format!(
            "time=\"2025-03-01T10:00:00Z\" level=fatal msg=\"copying: \\\\\\\"{}\\\\\\\"\"",
            escaped.replace("\\\"", "\\\\\\\"")
        ),
        format!("2025-03-01T10:00:01.000000000Z stderr F {CA}"),
        format!("2025/03/01 10:00:01  [ERROR]  : {CA}"),
        format!("FATA[0004] {CA}"),
        CA.to_owned(),
    ] {
        let output = bartizan(config.path(), &["diagnose", "-", "--json"], &text);
        assert_eq!(ids(&objects(&output)), ["REG-CA"], "{text}");
    }
}

/// A console prints the program's name before its words, a journal keeps it apart.
#[test]
fn a_message_that_whoever_quoted_it_broke_is_read_as_one() {
    let config = tempfile::tempdir().expect("a directory");
    let line = format!("Mar 01 10:00:01 ip-10-0-0-8 bootkube.sh[123]: {CA}");
    let chars: Vec<char> = line.chars().collect();
    let by_a_terminal = |width| chars.chunks(width).map(String::from_iter).collect::<Vec<String>>().join("\n");
    for text in
        [by_a_terminal(80), by_a_terminal(120), line.replace(": x509: ", ":\nx509: ").replace(": Get ", ": Get\n")]
    {
        let output = bartizan(config.path(), &["diagnose", "-", "--json"], &text);
        let found = objects(&output);
        assert_eq!(ids(&found), ["REG-CA"], "{text}");
        assert_eq!(found[0]["evidence"][0]["line"], 1, "{text}");
    }
}

#[test]
fn a_short_log_in_which_all_is_over_says_so() {
    let config = tempfile::tempdir().expect("a directory");
    let said = |lines: &str| objects(&bartizan(config.path(), &["diagnose", "-", "--json"], lines));
    let refused = "Feb 19 23:04:11 sno bootkube.sh[1978]: Unable to validate. https://api.c1.ex.com:6443/version is currently unreachable.\n";
    let over = "Feb 19 23:04:11 sno bootkube.sh[1978]: bootkube.service complete\n";
    let found = said(&format!("{refused}{over}"));
    assert_eq!(found[0]["severity"], "info");
    let cause = found[0]["cause"].as_str().expect("a sentence");
    assert!(cause.contains("api.c1.ex.com") && cause.contains("is over: bootkube.service complete"), "{cause}");
    let ordinary =
        "Feb 19 23:04:00 sno bootkube.sh[1978]: Rendering Cluster Version Operator Manifests...\n".repeat(70);
    assert_eq!(said(&format!("{ordinary}{refused}{over}")), [] as [Value; 0]);
}

#[test]
fn of_an_excerpt_what_is_normal_and_what_nobody_knows_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let said = |text: &str| objects(&bartizan(dir.path(), &["diagnose", "--json", "-"], text));
    let normal = "Unable to retrieve available updates: Get \"https://api.openshift.com/api/upgrades_info/v1/graph\": dial tcp: i/o timeout\n";
    let found = said(normal);
    assert_eq!(ids(&found), ["CV-UPDATES"]);
    assert_eq!(found[0]["severity"], "info");
    assert_eq!(said(&format!("{normal}{}", "the tide comes in\n".repeat(70))), [] as [Value; 0]);
    let found = said("the harbour is too small for the ferry\nthe ferry has forty metres\n");
    let cause = found[0]["cause"].as_str().unwrap_or("");
    assert!(cause.ends_with("words: the harbour is too small for the ferry; the ferry has forty metres"), "{cause}");
    let known = "assisted-service: failed to connect to DB: dial tcp 127.0.0.1:5432: connect: connection refused\n";
    let found = said(&format!("$ podman logs db\n{known}The ferry cannot land\nThe quay belongs to the whales\n"));
    assert_eq!(ids(&found), ["NET-REFUSED", "UNKNOWN"]);
    let beside = "No signature knows what else is said: The ferry cannot land; The quay belongs to the whales";
    assert_eq!(found[1]["cause"], beside);
}

#[test]
fn a_try_that_is_put_off_is_said_by_the_line_with_its_reason() {
    let dir = tempfile::tempdir().expect("a directory");
    let attach = |why: &str| {
        format!("AttachVolume.Attach failed for volume \"pvc-1\" : rpc error: code = InvalidArgument desc = {why}\n")
    };
    let (off, reason) =
        ("ControllerPublish not permitted on node \"worker-0\" due to backoff condition", "no such disk");
    let found = objects(&bartizan(dir.path(), &["diagnose", "--json", "-"], &(attach(off) + &attach(reason))));
    assert_eq!(ids(&found), ["POD-VOLUME"], "{found:#?}");
    assert!(found[0]["cause"].as_str().is_some_and(|cause| cause.contains(reason)), "{found:#?}");
}

#[test]
fn many_pods_that_end_leave_room_for_one_that_finds_no_node() {
    let dir = tempfile::tempdir().expect("a directory");
    let pods: String = (0..5).map(|pod| format!("web-{pod}   0/1   CrashLoopBackOff   9   2d\n")).collect();
    let text =
        format!("{pods}6m  Warning  FailedScheduling  pod/db-0  0/9 nodes are available: 9 Insufficient memory.\n");
    let found = objects(&bartizan(dir.path(), &["diagnose", "--json", "-"], &text));
    assert!(ids(&found).iter().take(3).any(|id| *id == "POD-UNSCHEDULABLE"), "{found:#?}");
}

#[test]
fn words_of_a_named_program_are_known_in_a_journal_too() {
    let config = tempfile::tempdir().expect("a directory");
    let words = "ignition[886]: error at line 1, column 12409";
    for text in [format!("[   12.345678] {words}"), format!("Mar 01 10:00:01 localhost {words}")] {
        let found = objects(&bartizan(config.path(), &["diagnose", "-", "--json"], &text));
        assert_eq!(ids(&found), ["IGN-CONFIG"], "{text}");
    }
    let other = format!("Mar 01 10:00:01 localhost {}", words.replace("ignition", "other"));
    let found = objects(&bartizan(config.path(), &["diagnose", "-", "--json"], &other));
    assert!(!ids(&found).contains(&"IGN-CONFIG"), "{found:#?}");
}

/// Others say `Error: ` too.
#[test]
fn what_terraform_tells_the_installer_is_no_word_of_others() {
    let config = tempfile::tempdir().expect("a directory");
    let error = "Error: the moon is full of holes";
    for (text, wanted) in [
        (format!("ERROR {error}"), "TF-ERROR"),
        (format!("level=error msg={error}"), "TF-ERROR"),
        (format!("2025/03/01 10:00:00  [ERROR]  : {error}"), "UNKNOWN"),
    ] {
        let found = objects(&bartizan(config.path(), &["diagnose", "-", "--json"], &text));
        assert_eq!(ids(&found), [wanted], "{text}");
    }
}

#[test]
fn what_is_found_is_one_object_a_line_and_the_exit_code_says_the_rest() {
    let config = tempfile::tempdir().expect("a directory");
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("bootkube.log");
    let stopped = "bootkube.service: Main process exited, code=exited, status=125/n/a";
    std::fs::write(&log, format!("{CA}\n{stopped}\n")).expect("written");
    let path = log.to_str().expect("a path");
    let found = objects(&bartizan(config.path(), &["diagnose", path, "--json"], ""));
    assert_eq!(ids(&found), ["REG-CA", "BK-PULL"]);
    let first = found[0].as_object().expect("an object");
    let fields: Vec<&str> = first.keys().map(String::as_str).collect();
    let mut wanted =
        ["rank", "signature", "phase", "severity", "confidence", "cause", "evidence", "checks", "fix", "resume_from"];
    let mut there = fields.clone();
    there.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(there, wanted);
    assert_eq!(
        (&found[0]["rank"], &found[0]["severity"], &found[0]["phase"]),
        (&1.into(), &"error".into(), &"registry".into())
    );
    assert_eq!((&found[0]["evidence"][0]["line"], &found[0]["evidence"][0]["text"]), (&1.into(), &CA.into()));
    assert!(found[0]["cause"].as_str().is_some_and(|cause| cause.contains("mirror.c1.ex.com:5000")));
    assert!(found[0]["checks"][0]["command"].as_str().is_some_and(|command| command.contains("mirror.c1.ex.com:5000")));
    let confidence = |place: usize| found[place]["confidence"].as_f64().expect("a number");
    assert!(confidence(0) > 0.8 && confidence(1) < confidence(0) && confidence(1) > 0.0);
    let registry = objects(&bartizan(config.path(), &["diagnose", path, "--json", "--phase", "bootkube"], ""));
    assert_eq!((ids(&registry), &registry[0]["rank"]), (vec!["BK-PULL"], &1.into()));

    let quiet = bartizan(config.path(), &["diagnose", "-", "--json"], "nothing to see\n");
    assert_eq!((quiet.status.code(), quiet.stdout.len()), (Some(0), 0));
    let binary = dir.path().join("binary");
    std::fs::write(&binary, [0u8; 1000]).expect("written");
    let broken = dir.path().join("broken.tar.gz");
    std::fs::write(&broken, b"\x1f\x8bno gzip").expect("written");
    for unreadable in [dir.path().join("nowhere"), binary, broken] {
        let output = bartizan(config.path(), &["diagnose", unreadable.to_str().expect("a path"), "--json"], "");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{}", unreadable.display());
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("bartizan: "));
    }
    let nonsense = bartizan(config.path(), &["diagnose", path, "--phase", "nonsense"], "");
    assert_eq!(nonsense.status.code(), Some(2));
}

#[test]
fn objects_of_the_cluster_are_read_as_a_bundle_and_as_a_must_gather_keep_them() {
    let config = tempfile::tempdir().expect("a directory");
    let dir = tempfile::tempdir().expect("a directory");
    let message = "ReadyIngressNodesAvailable: Authentication requires functional ingress which requires at least one schedulable and ready node. Got 0 worker nodes, 3 master nodes, 0 custom target nodes (none are schedulable or ready for ingress pods).";
    let operator = format!(
        "apiVersion: config.openshift.io/v1\nkind: ClusterOperator\nmetadata:\n  name: authentication\nstatus:\n  conditions:\n  - lastTransitionTime: \"2025-03-01T10:00:00Z\"\n    message: '{message}'\n    reason: ReadyIngressNodes_NoReadyIngressNodes\n    status: \"False\"\n    type: Available\n  - lastTransitionTime: \"2025-03-01T11:00:00Z\"\n    status: \"False\"\n    type: Degraded\n"
    );
    let folder = dir.path().join("must-gather/cluster-scoped-resources/config.openshift.io/clusteroperators");
    std::fs::create_dir_all(&folder).expect("made");
    std::fs::write(folder.join("authentication.yaml"), operator).expect("written");
    let pods = r#"{"kind":"List","items":[{"kind":"Pod","metadata":{"name":"etcd-x","namespace":"openshift-etcd","creationTimestamp":"2025-03-01T10:00:00Z"},"status":{"startTime":"2025-03-01T11:00:00Z","containerStatuses":[{"state":{"waiting":{"reason":"ImagePullBackOff","message":"Back-off pulling image \"mirror.c1.ex.com:5000/openshift/release@sha256:9c\": manifest unknown"}}}]}}]}"#;
    let resources = dir.path().join("must-gather/resources");
    std::fs::create_dir_all(&resources).expect("made");
    std::fs::write(resources.join("pods.json"), pods).expect("written");
    let found = objects(&bartizan(config.path(), &["diagnose", dir.path().to_str().expect("a path"), "--json"], ""));
    assert_eq!(ids(&found), ["MIR-MANIFEST", "WORKERS-NONE"], "{found:#?}");
}

#[test]
fn what_objects_of_any_kind_say_of_themselves_is_read() {
    let config = tempfile::tempdir().expect("a directory");
    let dir = tempfile::tempdir().expect("a directory");
    let keep = |path: &str, kind: &str, name: &str, status: &str| {
        let path = dir.path().join("must-gather").join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, format!("kind: {kind}\nmetadata:\n  name: {name}\nstatus:\n{status}")).expect("written");
    };
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        format!(
            "  conditions:\n  - type: {kind}\n    status: \"{status}\"\n    reason: {reason}\n    lastTransitionTime: \
             \"2025-03-01T10:00:00Z\"\n    message: '{message}'\n"
        )
    };
    keep(
        "cluster-scoped-resources/config.openshift.io/clusterversions/version.yaml",
        "ClusterVersion",
        "version",
        &condition(
            "ReleaseAccepted",
            "False",
            "RetrievePayload",
            "Retrieving payload failed version=\"4.18.3\" image=\"quay.io/a/b@sha256:9c\" failure: The update cannot be \
             verified: unable to verify sha256:9c against keyrings: verifier-public-key-redhat",
        ),
    );
    keep(
        "namespaces/openshift-operators/operators.coreos.com/subscriptions/cert-manager.yaml",
        "Subscription",
        "cert-manager",
        &condition(
            "ResolutionFailed",
            "True",
            "ConstraintsNotSatisfiable",
            "constraints not satisfiable: no operators found in package cert-manager-operator in the catalog referenced by \
             subscription cert-manager-operator, subscription cert-manager-operator exists",
        ),
    );
    keep(
        "namespaces/openshift-marketplace/operators.coreos.com/catalogsources/redhat-operators.yaml",
        "CatalogSource",
        "redhat-operators",
        "  connectionState:\n    lastObservedState: TRANSIENT_FAILURE\n",
    );
    // What is as it should be is not told.
    keep(
        "cluster-scoped-resources/operator.openshift.io/etcds/cluster.yaml",
        "Etcd",
        "cluster",
        &condition("NodeInstallerDegraded", "False", "AsExpected", "Back-off pulling image x: manifest unknown"),
    );
    let found = objects(&bartizan(config.path(), &["diagnose", dir.path().to_str().expect("a path"), "--json"], ""));
    assert_eq!(ids(&found), ["CV-SIGNATURE", "OLM-SOURCE", "OLM-RESOLVE"], "{found:#?}");
}

/// PowerShell writes UTF-16, and journald what it does not think printable as numbers.
#[test]
fn words_are_found_in_other_spellings() {
    let config = tempfile::tempdir().expect("a directory");
    let dir = tempfile::tempdir().expect("a directory");
    let line = "Error: initializing source docker://mirror.c1.ex.com:8443/a/b:1: reading manifest 1 in \
                mirror.c1.ex.com:8443/a/b: unauthorized: access to the requested resource is not authorized";
    let plain = objects(&bartizan(config.path(), &["diagnose", "-", "--json"], line));
    assert_eq!(plain.len(), 1, "{plain:#?}");
    let wide: Vec<u8> = format!("\u{feff}{line}\r\n").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let coloured = line.replace("unauthorized", "\u{1b}[31munauth\u{1b}[0morized");
    let entry = serde_json::json!({"__REALTIME_TIMESTAMP": "1740823200000000", "MESSAGE": coloured.as_bytes()});
    for (name, bytes) in [
        ("wide.log", wide),
        ("coloured.log", coloured.clone().into_bytes()),
        ("journal.json", entry.to_string().into_bytes()),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        let found = objects(&bartizan(config.path(), &["diagnose", path.to_str().expect("a path"), "--json"], ""));
        assert_eq!((ids(&found), &found[0]["cause"]), (ids(&plain), &plain[0]["cause"]), "{name}");
    }
    let zip = dir.path().join("logs.zip");
    std::fs::write(&zip, b"PK\x03\x04 and so on").expect("written");
    let output = bartizan(config.path(), &["diagnose", zip.to_str().expect("a path")], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("`unzip`"));
}

#[test]
fn the_users_own_signatures_are_known_too() {
    let config = tempfile::tempdir().expect("a directory");
    let line = "frobnicator[77]: cannot frobnicate 10.0.0.8:5000 of sha256:0123456789abcdef";
    let text = bartizan(config.path(), &["signature", "new", line, "--id", "FROB"], "");
    assert_eq!(text.status.code(), Some(0), "{}", String::from_utf8_lossy(&text.stderr));
    std::fs::create_dir(config.path().join("signatures")).expect("made");
    std::fs::write(config.path().join("signatures/mine.toml"), &text.stdout).expect("written");
    let other = "frobnicator[78]: cannot frobnicate 10.1.2.3:8443 of sha256:fedcba9876543210";
    let found = objects(&bartizan(config.path(), &["diagnose", "-", "--json"], other));
    assert_eq!(ids(&found), ["FROB"]);
    // Its own example holds, until a line is said to be another one that is not.
    let check = || bartizan(config.path(), &["signature", "check"], "");
    assert_eq!((check().status.code(), String::from_utf8_lossy(&check().stdout).trim()), (Some(0), "FROB: good"));
    let text = String::from_utf8_lossy(&text.stdout);
    let mine = text.replace("counter_examples = []", &format!("counter_examples = [{other:?}, 'something else']"));
    std::fs::write(config.path().join("signatures/mine.toml"), mine).expect("written");
    let said = String::from_utf8_lossy(&check().stdout).into_owned();
    assert_eq!(check().status.code(), Some(2));
    assert!(
        said.contains(&format!("this counter example is taken for it: {other}")) && !said.contains("else"),
        "{said}"
    );
    // One that cannot be read is said, not passed over.
    std::fs::write(config.path().join("signatures/mine.toml"), "nonsense").expect("written");
    assert_eq!(bartizan(config.path(), &["diagnose", "-"], other).status.code(), Some(2));
}

#[test]
fn of_what_nobody_knows_the_first_error_and_the_failed_units_are_shown() {
    let config = tempfile::tempdir().expect("a directory");
    let log = "Mar 01 10:00:00 host thing.sh[1]: going\nMar 01 10:00:01 host thing.sh[1]: error: the flux is low\nMar 01 10:00:02 host systemd[1]: thing.service: Failed with result 'exit-code'.\n";
    let output = bartizan(config.path(), &["diagnose", "-"], log);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("failed unit: thing") && text.contains("the flux is low"), "{text}");
}

/// What `oc get -o yaml` breaks into lines, and a name that stands in a line before.
#[test]
fn what_a_line_leaves_open_is_looked_for_around_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let said = |text: &str| objects(&bartizan(dir.path(), &["diagnose", "--json", "-"], text));
    let broken =
        "  - message: 'Node a is reporting: \"failed\n      to retrieve UserID for username: whale\"'\n    reason: x\n";
    let found = said(broken);
    assert!(found[0]["cause"].as_str().is_some_and(|cause| cause.contains("username: whale")), "{found:#?}");
    // The same words behind another name are not the same.
    let refused = "Error: error resolving name : unexpected status code [manifests v1]: 401 Unauthorized\n";
    let of = |host: &str| format!("INFO[0000] Pulling previous image {host}/a/index:v1 to get metadata\n{refused}");
    let found = said(&[of("one.ex.com:8443"), of("two.ex.com:8443")].concat());
    let causes: Vec<_> = found.iter().filter_map(|one| one["cause"].as_str()).collect();
    for host in ["one.ex.com:8443", "two.ex.com:8443"] {
        assert!(causes.iter().any(|cause| cause.contains(host)), "{host}: {causes:#?}");
    }
    let alone = said(refused);
    assert!(alone[0]["cause"].as_str().is_some_and(|cause| cause.starts_with("The registry does not")), "{alone:#?}");
}

/// `oc describe` says the class of a failure before the failure.
#[test]
fn a_line_that_says_more_speaks_for_its_finding() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = "  Reason: ConstraintsNotSatisfiable\n  Message: constraints not satisfiable: no operators found in package \
                cert-manager-operator in the catalog referenced by subscription cert-manager-operator\n";
    let found = objects(&bartizan(dir.path(), &["diagnose", "--json", "-"], text));
    assert!(found[0]["cause"].as_str().is_some_and(|cause| cause.contains("cert-manager-operator")), "{found:#?}");
    assert_eq!(found[0]["evidence"][0]["line"], 2);
}

#[test]
fn what_is_wrong_with_many_does_not_hide_what_else_is_wrong() {
    let dir = tempfile::tempdir().expect("a directory");
    let refused = |host: u8| {
        format!(
            "level=warning msg=\"control-plane 10.0.1.{host} access error: ssh: connect to host 10.0.1.{host} port 22: Connection refused\"\n"
        )
    };
    let over = "level=error msg=\"Bootstrap failed to complete: timed out waiting for the condition\"\n";
    let text = format!("{}{}{}{over}", refused(1), refused(2), refused(3));
    let found = objects(&bartizan(dir.path(), &["diagnose", "--json", "-"], &text));
    assert_eq!(ids(&found), ["SSH-REFUSED", "BOOTSTRAP-TIMEOUT", "SSH-REFUSED", "SSH-REFUSED"], "{found:#?}");
}

/// The installer adds to the log of the directory each time that it is run.
#[test]
fn what_an_earlier_run_of_the_installer_failed_with_is_over_when_a_later_one_gets_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = |lines: &[(&str, &str)]| {
        let line =
            |(level, text): &(&str, &str)| format!("time=\"2025-03-01T10:00:00Z\" level={level} msg=\"{text}\"\n");
        let text: String = lines.iter().map(line).collect();
        let file = dir.path().join(".openshift_install.log");
        std::fs::write(&file, text).expect("a log");
        objects(&bartizan(dir.path(), &["diagnose", "--json", &file.to_string_lossy()], ""))
    };
    let begins = ("debug", "OpenShift Installer 4.18.1");
    let config = (
        "fatal",
        "failed to fetch Metadata: failed to load asset \\\"Install Config\\\": failed to create install config: invalid \\\"install-config.yaml\\\" file: baseDomain: Required value",
    );
    let strange = ("fatal", "the ferry of the islands carries no whales on sundays");
    let timeout = ("fatal", "failed to wait for bootstrapping to complete: timed out waiting for the condition");
    assert_eq!(ids(&log(&[begins, config])), ["CFG-INVALID"]);
    assert_eq!(
        ids(&log(&[begins, config, begins, ("info", "Consuming Install Config from target directory")])),
        Vec::<&str>::new()
    );
    // Logs are gathered, and the bootstrap has failed all the same; nor is it known what a strange word belongs to.
    assert_eq!(
        ids(&log(&[begins, timeout, begins, ("info", "Pulling debug logs from the bootstrap machine")])),
        ["BOOTSTRAP-TIMEOUT"]
    );
    assert_eq!(
        ids(&log(&[begins, strange, begins, ("info", "Pulling debug logs from the bootstrap machine")])),
        ["UNKNOWN"]
    );
    assert_eq!(ids(&log(&[begins, strange, begins, ("info", "Install complete!")])), Vec::<&str>::new());
}

/// The decisive words of a long list stand in its middle.
#[test]
fn a_long_list_is_quoted_without_what_it_repeats() {
    let dir = tempfile::tempdir().expect("a directory");
    let closed = |name: &str| {
        format!("harbour \"{name}\": closed to everybody who sails under that flag and to all of their friends")
    };
    let names = ["north", "south", "east", "west", "upper", "lower", "inner", "outer", "old", "new"];
    let list: Vec<String> = names.iter().map(|name| closed(name)).collect();
    let text = format!(
        "FATAL the ferry cannot land: [{}, harbour \"new\": the tide is out, {}]\n",
        list[..5].join(", "),
        list[5..].join(", ")
    );
    let found = objects(&bartizan(dir.path(), &["diagnose", "--json", "-"], &text));
    let cause = found[0]["cause"].as_str().unwrap_or("");
    assert!(cause.contains("the tide is out") && cause.contains("north") && !cause.contains("west"), "{cause}");
}

#[test]
fn a_program_that_gives_up_is_quoted_where_no_signature_knows_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let said = |text: &str| objects(&bartizan(dir.path(), &["diagnose", "--json", "-"], text));
    let quoted = |text: &str| {
        let found = said(text);
        assert_eq!(ids(&found), ["UNKNOWN"], "{text}");
        (found[0]["severity"].to_string(), found[0]["cause"].to_string(), found[0]["evidence"][0]["line"].to_string())
    };
    // The installer: the fatal line and not the errors before it.
    let (severity, cause, line) = quoted(
        "time=\"2025-03-01T10:00:00Z\" level=debug msg=\"Fetching Moon...\"\n\
         time=\"2025-03-01T10:00:01Z\" level=error msg=\"the tide is out\"\n\
         time=\"2025-03-01T10:00:02Z\" level=fatal msg=\"moving the harbour: asking the moon: the third phase of the moon has been moved into the next month by the astronomers of the old tower on the hill, who did not ask the harbour whether it minds, nor the ferry that goes to the islands on sundays, nor the whales that rest in its shadow at noon, nor the keeper of the light who has counted every tide since the year of the great storm and writes each of them into a book that nobody reads\"\n",
    );
    assert_eq!((severity.as_str(), line.as_str()), ("\"error\"", "3"));
    let end = "in its own words: moving the harbour: asking the moon: the third phase of the moon has been moved into the next month by the astronomers of the old tower on the hill, who did not ask the harbour whether it minds, nor the ferry that goes to the islands on sundays, nor the whales that rest in its shadow at noon, nor the keeper of the light who has counted every tide since the year of the great storm and writes each of them into a book that nobody reads\"";
    assert!(cause.ends_with(end), "{cause}");
    // Of a chain that is too long for a sentence, its innermost parts.
    let wrapped = format!(
        "FATAL {}the ferry of the islands carries no whales, {}",
        "moving the harbour: ".repeat(30),
        "ever ".repeat(40)
    );
    let (_, cause, _) = quoted(&wrapped);
    assert!(cause.contains("words: the ferry of the islands") && !cause.contains("harbour"), "{cause}");
    // A sentence that breaks off goes on in the next line.
    let (_, cause, _) = quoted("Error: the ferry carries no whales, \nand no ponies either\n");
    assert!(cause.contains("no whales, and no ponies either"), "{cause}");
    // A fatal line that says nothing: the first error before it. Another program: its error, which is not sure to be one.
    let (_, cause, line) = quoted("ERROR the whale has taken all of the buoys\nERROR x\nFATAL moving: exit status 1\n");
    assert!(cause.contains("the whale has taken all of the buoys") && line == "1", "{cause} {line}");
    let (severity, ..) = quoted("copying\nerror: the ferry carries no whales on sundays\n");
    assert_eq!(severity, "\"info\"");
    // What goes on for long after an error was not ended by it.
    let long = format!("error: the ferry carries no whales on sundays\n{}", "copying\n".repeat(70));
    assert_eq!(ids(&said(&long)), Vec::<&str>::new());
    // A journal complains all the time; who shows a few lines of it means them.
    let journal = "Mar 01 10:00:00 host bootkube.sh[1]: failed to sail\n\
                   Mar 01 10:00:00 host bootkube.sh[1]: failed: the ferry cannot carry whales on sundays\n";
    let (severity, cause, line) = quoted(journal);
    assert_eq!((severity.as_str(), line.as_str()), ("\"info\"", "2"));
    assert!(cause.contains("the ferry cannot carry whales on sundays"), "{cause}");
    let long = format!("{journal}{}", "Mar 01 10:00:01 host bootkube.sh[1]: sailing\n".repeat(70));
    assert_eq!(ids(&said(&long)), Vec::<&str>::new());
    // So it stands beside what is known, but not where it says the same.
    assert_eq!(ids(&said(&format!("{CA}\n{journal}"))), ["REG-CA", "UNKNOWN"]);
    assert_eq!(ids(&said("error: x509: certificate signed by unknown authority")), ["TLS-UNTRUSTED"]);
    let moved = format!("{CA}\nFATAL the third phase of the moon has been moved\n");
    assert_eq!(ids(&said(&moved)), ["REG-CA", "UNKNOWN"]);
    assert_eq!(ids(&said(&format!("{moved}{}", "leaving\n".repeat(70)))), ["REG-CA"]);
    // What only says that it is over stands behind words that say why, however long the log.
    let over = "ERROR failed to sail: the ferry cannot carry whales on sundays\n\
                ERROR failed to fetch Cluster: failed to generate asset \"Cluster\": failed to apply Terraform: exit status 1\n";
    for text in [over.to_owned(), format!("{}{over}", "INFO sailing\n".repeat(70))] {
        let found = said(&text);
        assert_eq!(ids(&found), ["UNKNOWN", "INST-APPLY"]);
        assert!(found[0]["cause"].as_str().is_some_and(|cause| cause.contains("whales on sundays")), "{found:#?}");
    }
}

/// Signatures that say `words`, with their rank and what explains them.
fn own_signatures(config: &Path, signatures: &[(&str, u32, &str)]) {
    let one = |(id, rank, cause): &(&str, u32, &str)| {
        format!(
            "[[signature]]\nid = \"{id}\"\ntitle = \"{id}\"\npatterns = ['the trouble called {id}']\nscope = [\"step\"]\n\
             rank = {rank}\nexplained_by = [\"{cause}\"]\nfix = \"x\"\nchecklist = \"bootstrap\"\nrefs = [\"x\"]\n\
             examples = ['the trouble called {id}', 'again the trouble called {id}']\ncounter_examples = ['x']\n"
        )
    };
    std::fs::create_dir_all(config.join("signatures")).expect("made");
    let text: Vec<String> = signatures.iter().map(one).collect();
    std::fs::write(config.join("signatures/mine.toml"), text.join("\n")).expect("written");
}

#[test]
fn a_named_cause_comes_first_whatever_its_rank_and_nothing_explains_itself() {
    let config = tempfile::tempdir().expect("a directory");
    let first = |signatures: &[(&str, u32, &str)]| {
        own_signatures(config.path(), signatures);
        let text: String = signatures.iter().map(|(id, ..)| format!("the trouble called {id}\n")).collect();
        let found = objects(&bartizan(config.path(), &["diagnose", "-", "--json"], &text));
        ids(&found).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(first(&[("OWN-SYMPTOM", 60, "OWN-CAUSE"), ("OWN-CAUSE", 70, "MIR-NAME")]), ["OWN-CAUSE", "OWN-SYMPTOM"]);
    assert_eq!(first(&[("OWN-SYMPTOM", 70, "OWN-CAUSE"), ("OWN-CAUSE", 60, "OWN-SYMPTOM")])[0], "OWN-CAUSE");
    // In a ring one is left over: what was said first.
    let ring = [("OWN-B", 61, "OWN-A"), ("OWN-C", 62, "OWN-B"), ("OWN-A", 60, "OWN-C")];
    for begin in 0..3 {
        let told: Vec<_> = ring.iter().cycle().skip(begin).take(3).copied().collect();
        assert_eq!(first(&told)[0], told[0].0);
    }
}
