//! A bastion behind a real sshd, a source registry with a release, and what the operator has: a spec and secrets.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use bartizan::model::RunModel;
use bartizan::record::Store;
use bartizan::registry::agent::{Line, Message};
use bartizan::registry::digest;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::json;

use super::canary::Canaries;
use crate::host::{Sshd, user};
use crate::ports::free_port;
use crate::registry::{DockerRegistry, Recipe, SyntheticRelease};

pub const MIRROR: &str = "registry.real.test";

/// Everything of one run. What jobs it left on the "bastion" end with it.
pub struct Site {
    dir: tempfile::TempDir,
    pub source: DockerRegistry,
    pub release: SyntheticRelease,
    pub sshd: Sshd,
    mirror_port: u16,
    pub canaries: Canaries,
}

impl Site {
    pub fn new(recipe: &Recipe, jobs: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = DockerRegistry::start(&[]);
        let release = SyntheticRelease::build(&source.host(), recipe);
        release.install(&source);
        let mut canaries = Canaries::default();
        let token = canaries.add("pull-secret", &format!("b3BlbnNoaWZ0-{:032x}", fastrand::u128(..)));
        let key = canaries.add("aws-key", &format!("AKIA{:016X}", fastrand::u64(..)));
        let secret = canaries.add("aws-secret", &format!("w/J+{:032x}", fastrand::u128(..)));
        // All that a password file may hold, also what JSON and shells write in another way.
        let password = canaries.add("registry", &format!("\"mi\\rr$or'{:016x}`#", fastrand::u64(..)));
        canaries.add("source", &source.password);
        let bin = dir.path().join("bin");
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", bin.display());
        // Of the developer's home directory nothing is touched.
        let home = dir.path().join("bastion");
        std::fs::create_dir(&home).unwrap();
        let environment = [("PATH", path.as_str()), ("HOME", &home.to_string_lossy())];
        let site = Self {
            sshd: Sshd::with_environment(&environment),
            dir,
            source,
            release,
            mirror_port: free_port(),
            canaries,
        };

        let quay = json!({"auth": BASE64_STANDARD.encode(format!("openshift-release-dev+real:{token}"))});
        let auths = json!({"auths": {"quay.io": quay, site.source.host(): site.source.auth()}});
        site.write("pull-secret.json", &auths.to_string());
        site.write(
            "credentials",
            &format!("[default]\nregion = x\n[static]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"),
        );
        site.write("mirror-password", &format!("{password}\n"));
        let mirror = json!({"auth": BASE64_STANDARD.encode(format!("bartizan:{password}"))});
        site.write(
            "skopeo-auth.json",
            &json!({"auths": {format!("127.0.0.1:{}", site.mirror_port): mirror}}).to_string(),
        );
        site.write("cluster.toml", &site.spec(jobs));
        site.tools();
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn spec(&self, jobs: u8) -> String {
        let Self { release, source, sshd, mirror_port, .. } = self;
        format!(
            "[cluster]\nname = \"real\"\nbase_domain = \"lab.test\"\n\
             [release]\nversion = \"{}\"\npull_spec = \"{}\"\nca_file = {:?}\n\
             [aws]\nregion = \"us-east-2\"\nprofile = \"static\"\n\
             [bastion]\nhost = \"{}@127.0.0.1\"\nport = {}\nidentity_file = {:?}\nhost_key = {:?}\nworkdir = \"work\"\n\
             [credentials]\npull_secret = \"pull-secret.json\"\nssh_public_key = {:?}\n\
             [tools]\nsource = \"present\"\n\
             [mirror]\nhost = \"{MIRROR}\"\nport = {mirror_port}\nruntime = \"binary\"\nstorage = \"registry\"\njobs = {jobs}\n\
             password_file = \"mirror-password\"\n",
            release.version,
            release.pull_spec,
            source.ca_file(),
            user(),
            sshd.port(),
            sshd.identity(),
            sshd.host_key(),
            sshd.identity().with_extension("pub"),
        )
    }

    /// What the bastion has on its PATH. Its `oc` is careless with secrets that it found; its systemd, if there is one,
    /// is not the developer's.
    fn tools(&self) {
        self.write("said", &self.canaries.all().collect::<Vec<_>>().join(" "));
        let said = self.path("said");
        let oc = format!("printf 'Client Version: {} %s\\n' \"$(cat {})\"", self.release.version, said.display());
        let install = format!("echo openshift-install {}", self.release.version);
        let aws =
            "[ \"$(stat -c %a \"$AWS_SHARED_CREDENTIALS_FILE\")\" = 600 ] && echo arn:aws:iam::123456789012:user/real";
        let none = "exit 1";
        let tools = [
            ("oc", oc.as_str()),
            ("openshift-install", &install),
            ("aws", aws),
            ("systemctl", none),
            ("systemd-run", none),
        ];
        for (name, script) in tools {
            self.tool(name, script);
        }
    }

    /// One more program on the bastion's PATH, or another one by that name.
    pub fn tool(&self, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let name = format!("bin/{name}");
        self.write(&name, &format!("#!/bin/sh\n{script}\n"));
        std::fs::set_permissions(self.path(&name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// One more key of `[mirror]`.
    pub fn mirror_key(&self, line: &str) {
        let spec = std::fs::read_to_string(self.path("cluster.toml")).unwrap();
        self.write("cluster.toml", &spec.replace("[mirror]\n", &format!("[mirror]\n{line}\n")));
    }

    /// `registry.real.test:PORT`, and where that is.
    pub fn mirror(&self) -> (String, String) {
        (format!("{MIRROR}:{}", self.mirror_port), format!("127.0.0.1:{}", self.mirror_port))
    }

    /// The bastion's.
    pub fn workdir(&self) -> PathBuf {
        self.path("bastion/work")
    }

    pub fn storage(&self) -> PathBuf {
        self.path("bastion/registry")
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bartizan"));
        command.arg("--state").arg(self.state()).args(arguments).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env("AWS_SHARED_CREDENTIALS_FILE", self.path("credentials")).env("BARTIZAN_LOG", "debug");
        command
    }

    /// The program, to its end.
    pub fn bartizan(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The program, with its output in a file.
    pub fn start(&self, arguments: &[&str], output: &str) -> Child {
        let file = std::fs::File::create(self.path(output)).unwrap();
        self.command(arguments).stderr(file.try_clone().unwrap()).stdout(file).spawn().unwrap()
    }

    /// The newest run.
    pub fn run(&self) -> (PathBuf, RunModel) {
        let run = Store::open(Some(&self.state())).unwrap().newest(|_| true).unwrap().expect("a run");
        (run.dir, run.model)
    }

    /// A file of a job on the bastion.
    pub fn job(&self, job: &str, file: &str) -> String {
        std::fs::read_to_string(self.workdir().join("jobs").join(job).join(file)).unwrap_or_default()
    }

    /// What the last sync said.
    pub fn sync(&self) -> Vec<Message> {
        self.job("sync", "log").lines().map(|line| serde_json::from_str::<Line>(line).expect(line).message).collect()
    }

    /// How many digests of the release `skopeo` finds in the mirror, which must be all.
    pub fn judge(&self) -> usize {
        let components = self.release.components.values().map(|digest| ("openshift/release", digest));
        let all: Vec<_> = components.chain([("openshift/release-images", &self.release.digest)]).collect();
        for (repository, digest) in &all {
            let found = self.skopeo(&format!("{repository}@{digest}"));
            assert_eq!(digest::of(&found), **digest, "{repository}");
        }
        let tagged = self.skopeo(&format!("openshift/release-images:{}-x86_64", self.release.version));
        assert_eq!(digest::of(&tagged), self.release.digest);
        all.len()
    }

    /// `skopeo` cannot be told where a name is, and the certificate is for the name; the digests are what it judges.
    fn skopeo(&self, reference: &str) -> Vec<u8> {
        let output = Command::new("skopeo")
            .args(["inspect", "--raw", "--tls-verify=false", "--authfile"])
            .arg(self.path("skopeo-auth.json"))
            .arg(format!("docker://127.0.0.1:{}/{reference}", self.mirror_port))
            .output()
            .expect("skopeo (Debian package skopeo)");
        assert!(output.status.success(), "{reference}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Hold the source still, or let it go on: then a sync is surely in the middle.
    pub fn hold_source(&self, still: bool) {
        let pid = Pid::from_raw(self.source.pid() as i32).unwrap();
        kill_process(pid, if still { Signal::STOP } else { Signal::CONT }).unwrap();
    }
}

/// Whether the process group leader of a job is there and is that job's.
pub fn alive(place: &Path) -> Option<Pid> {
    let pid = std::fs::read_to_string(place.join("pid")).ok()?.trim().parse().ok()?;
    let argv = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let ours = String::from_utf8_lossy(&argv).contains(&*place.to_string_lossy());
    if ours { Pid::from_raw(pid) } else { None }
}

impl Drop for Site {
    fn drop(&mut self) {
        let jobs = std::fs::read_dir(self.workdir().join("jobs")).into_iter().flatten().flatten();
        for pid in jobs.filter_map(|job| alive(&job.path())) {
            // It may just have ended by itself.
            let _gone = kill_process_group(pid, Signal::KILL);
        }
    }
}
