//! Stages 01 to 06 by the program itself, from a real registry over a real sshd into a real registry.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use bartizan::model::event::{Data, LinkName, LinkState};
use bartizan::record::read_events;
use bartizan::registry::agent::Message;

use super::canary::{Watch, unpacked};
use super::site::{Site, alive};
use crate::registry::Recipe;

fn moved(site: &Site) -> u64 {
    match site.sync().last() {
        Some(Message::Done { moved, exit: 0, .. }) => *moved,
        other => panic!("the sync ended with {other:?}"),
    }
}

#[track_caller]
fn good(output: &std::process::Output) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}\n{err}");
}

#[test]
fn a_mirror_is_made_and_filled_once_and_nobody_tells_a_secret() {
    let site = Site::new(&Recipe::default(), 6);
    let watch = Watch::start();
    let plain = site.bartizan(&["run", "cluster.toml", "--until", "06", "--plain"]);
    good(&plain);
    assert_eq!(moved(&site), site.release.bytes(), "each blob moves once");
    let (dir, model) = site.run();
    let proven = model.sync.proven.clone().expect("a proof");
    assert!(proven.1.is_empty(), "{proven:?}");
    assert_eq!(site.judge(), site.release.components.len() + 1);

    // Gone on with, nothing is left to do: the same registry, the same sync.
    let registry = site.job("bartizan-registry", "pid");
    let place = site.workdir().join("jobs/bartizan-registry");
    assert!(alive(&place).is_some());
    let (log, started) = (site.job("sync", "log"), site.job("sync", "started"));
    let run = dir.file_name().unwrap().to_string_lossy().into_owned();
    let json = site.bartizan(&["run", "cluster.toml", "--resume", &run, "--until", "06", "--json"]);
    good(&json);
    assert_eq!(site.job("bartizan-registry", "pid"), registry);
    assert_eq!((site.job("sync", "log"), site.job("sync", "started")), (log, started));

    // Another run finds it all there.
    let again = site.bartizan(&["run", "cluster.toml", "--until", "06", "--json"]);
    good(&again);
    assert_eq!((moved(&site), site.job("bartizan-registry", "pid")), (0, registry));
    assert!(alive(&place).is_some());
    assert_eq!(site.judge(), site.release.components.len() + 1);

    let bundle = site.path("bundle.tar.gz");
    good(&site.bartizan(&["export", &run, "--output", &bundle.to_string_lossy()]));

    let finder = site.canaries.finder();
    let (argvs, leaks) = watch.end().into_iter().partition::<Vec<_>, _>(|argv| !finder.is_match(argv.as_bytes()));
    assert!(argvs.len() > 50 && leaks.is_empty(), "{} argument lists: {leaks:?}", argvs.len());
    for (name, output) in [("plain", &plain), ("json", &json), ("again", &again)] {
        for text in [&output.stdout, &output.stderr] {
            assert!(!finder.is_match(text), "{name} tells a secret: {}", String::from_utf8_lossy(text));
        }
    }
    assert!(String::from_utf8_lossy(&json.stdout).contains("Client Version: 4.18.12 [redacted]"), "oc was asked");
    assert!(!finder.is_match(&unpacked(&bundle)));
    assert_eq!(site.canaries.files(&site.state()), Vec::<std::path::PathBuf>::new());

    // On the bastion they are where stage 03 puts them, for their owner alone.
    let mut holding = site.canaries.files(&site.path("bastion"));
    holding.sort();
    assert_eq!(holding, [site.workdir().join("auth.json"), site.workdir().join("aws-credentials")]);
    let htpasswd = site.storage().join("auth/htpasswd");
    for file in holding.iter().chain([&htpasswd, &site.storage().join("certs/tls.key")]) {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    assert_eq!((mode(&dir), mode(&dir.join("run.jsonl"))), (0o700, 0o600));
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(180);
    while !holds() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_sync_goes_on_while_the_line_is_cut() {
    let mut site = Site::new(&Recipe { large: 250 << 20, ..Recipe::default() }, 1);
    let mut run = site.start(&["run", "cluster.toml", "--until", "06", "--plain"], "output");
    let said = |site: &Site| std::fs::read_to_string(site.path("output")).unwrap();
    // Nearly all is to be copied still, one blob after the other.
    wait("the copier knows what to move", || {
        assert!(run.try_wait().unwrap().is_none(), "{}", said(&site));
        site.job("sync", "log").contains(r#""sync":"planned""#)
    });
    site.hold_source(true);
    let sync = site.workdir().join("jobs/sync");
    let links = |site: &Site| -> Vec<LinkState> {
        let ssh = |event: bartizan::model::event::Event| match event.data {
            Data::Link { link: LinkName::Ssh, state } => Some(state),
            _ => None,
        };
        read_events(&site.run().0.join("run.jsonl")).unwrap().into_iter().filter_map(ssh).collect()
    };
    let down = |site: &mut Site| {
        let before = links(site).len();
        site.sshd.stop_listening();
        assert!(site.sshd.cut() > 0);
        wait("the line is known to be down", || {
            links(site).iter().skip(before).any(|state| !matches!(state, LinkState::Up))
        });
        assert!(alive(&sync).is_some(), "the copier works on");
    };
    let up = |site: &mut Site| {
        site.sshd.resume();
        wait("the line is up again", || matches!(links(site).last(), Some(LinkState::Up)));
    };
    down(&mut site);
    up(&mut site);
    down(&mut site);
    assert!(run.try_wait().unwrap().is_none(), "{}", said(&site));
    // The copier goes on by itself.
    let so_far = site.job("sync", "log").len();
    site.hold_source(false);
    wait("the copier says more", || site.job("sync", "log").len() > so_far);
    up(&mut site);
    assert_eq!(run.wait().unwrap().code(), Some(0), "{}", said(&site));
    assert!(!sync.join("log.old").exists(), "it was started once");
    let (done, all) = site.run().1.sync.done();
    assert_eq!((done, all), (site.release.components.len() + 1, site.release.components.len() + 1));
    assert_eq!(moved(&site), site.release.bytes(), "each blob moves once");
    assert_eq!(site.judge(), site.release.components.len() + 1);
}

#[test]
fn a_registry_with_another_configuration_starts_again_with_the_same_certificate() {
    let site = Site::new(&Recipe { more: &[], ..Recipe::default() }, 2);
    good(&site.bartizan(&["run", "cluster.toml", "--until", "05", "--plain"]));
    let certificates =
        || ["ca.crt", "tls.crt", "tls.key"].map(|name| std::fs::read(site.storage().join("certs").join(name)).unwrap());
    let (before, pid) = (certificates(), site.job("bartizan-registry", "pid"));
    let config = site.storage().join("config.yml");
    let wanted = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{wanted}# somebody was here\n")).unwrap();
    good(&site.bartizan(&["run", "cluster.toml", "--until", "05", "--plain"]));
    assert_eq!(std::fs::read_to_string(&config).unwrap(), wanted);
    assert_ne!(site.job("bartizan-registry", "pid"), pid, "it reads its configuration when it starts");
    assert!(certificates() == before, "nodes may trust the certificate already");
}

/// What the installer of Red Hat's registry left running.
struct Quay<'a>(&'a Site);

impl Drop for Quay<'_> {
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(self.0.path("quay.pid")).ok().and_then(|pid| pid.trim().parse().ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

#[test]
fn red_hats_registry_is_made_by_its_own_installer() {
    let site = Site::new(&Recipe { more: &[], ..Recipe::default() }, 2);
    let quay = Quay(&site);
    site.mirror_key("registry = \"quay\"");
    // It makes units, starts containers, and shows the password in its last line.
    let installer = format!(
        r#"here={here}
while [ $# -gt 0 ]; do
  case $1 in
    --quayHostname) port=${{2#*:}} ;; --quayStorage) data=$2 ;; --sslCert) cert=$2 ;; --sslKey) key=$2 ;;
    --initUser) user=$2 ;; --initPassword) password=$2 ;;
  esac
  shift
done
echo installed >>"$here/installed"
[ "$password" = "$(cat "$here/mirror-password")" ] || exit 3
mkdir -p "$HOME/.config/systemd/user"; : >"$HOME/.config/systemd/user/quay-app.service"
cat >"$here/quay.yml" <<END
version: 0.1
storage: {{filesystem: {{rootdirectory: $data}}}}
http: {{addr: "127.0.0.1:$port", tls: {{certificate: $cert, key: $key}}}}
auth: {{htpasswd: {{realm: quay, path: {storage}/auth/htpasswd}}}}
END
setsid docker-registry serve "$here/quay.yml" </dev/null >/dev/null 2>&1 &
echo $! >"$here/quay.pid"
echo "Quay is available at https://{mirror} with credentials ($user, $password)""#,
        here = site.path("").display(),
        storage = site.storage().display(),
        mirror = site.mirror().0,
    );
    site.tool("mirror-registry", &installer);
    good(&site.bartizan(&["run", "cluster.toml", "--until", "06", "--plain"]));
    assert_eq!(site.judge(), site.release.components.len() + 1);
    let log = site.job("mirror-registry-install", "log");
    assert!(log.contains("with credentials (…)"), "{log}");
    assert_eq!(site.canaries.files(&site.workdir().join("jobs")), Vec::<std::path::PathBuf>::new());
    assert!(!site.storage().join("quay-password").exists());
    good(&site.bartizan(&["run", "cluster.toml", "--until", "06", "--plain"]));
    assert_eq!(std::fs::read_to_string(site.path("installed")).unwrap(), "installed\n", "once");
    drop(quay);
}
