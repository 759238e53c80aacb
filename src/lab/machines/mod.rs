//! The machines of the lab: virtual hosts that a real `ssh` client reaches over loopback.
//!
//! A machine is a directory for its files, a journal, a process table and an SSH server. Command lines are parsed and
//! interpreted by the lab's own shell over that directory. Nothing here starts a process of the operating system,
//! follows a path out of the lab's directory, or connects to an address that is not in the lab's map.

mod clock;
mod coreutils;
mod fs;
mod io;
mod journal;
mod proc;
mod program;
mod shell;
mod ssh_server;
mod system;
mod tool;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use tokio::io::AsyncReadExt;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

pub use clock::{Clock, Skew};
pub use fs::{Fs, Kind, Meta};
pub use journal::{Entry, Journal};
pub use tool::{Tool, ToolCx, marker};

use io::{Fd, lock, pipe};
use program::{Cx, Fds, PATH, supervise};
use shell::Shell;

/// The interpreter recurses; debug builds need room for it.
const STACK: usize = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum LabError {
    #[error("lab: {what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("lab: host key of {host}: {why}")]
    HostKey { host: String, why: String },
    #[error("lab: {text:?} is not a name for a machine (letters, digits, - and .)")]
    Name { text: String },
    #[error("lab: machine {host} has an authorized key that cannot be read: {why}")]
    AuthorizedKey { host: String, why: String },
    #[error("lab: machine {host} is running already")]
    Running { host: String },
    #[error("lab: the lab has stopped")]
    Stopped,
}

fn io_error(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> LabError {
    let what = what.into();
    move |source| LabError::Io { what, source }
}

/// A machine to boot.
#[derive(Debug, Clone)]
pub struct MachineSpec {
    pub name: String,
    /// Its address in the pretended network; other machines reach it there by `direct-tcpip`.
    pub address: String,
    /// Who logs in.
    pub user: String,
    /// Lines as in `~/.ssh/authorized_keys`.
    pub authorized_keys: Vec<String>,
    /// The size of its disk, in bytes.
    pub disk_bytes: u64,
}

/// What the machines of one lab share.
struct World {
    dir: PathBuf,
    clock: Clock,
    tools: Mutex<BTreeMap<&'static str, Arc<dyn Tool>>>,
    routes: Mutex<BTreeMap<(String, Option<u16>), SocketAddr>>,
    machines: Mutex<BTreeMap<String, Arc<Machine>>>,
    /// Names and ports that nobody reaches, with what a dialler says of them.
    troubles: Mutex<BTreeMap<(String, u16), String>>,
    /// Clocks that go wrong, also of machines that do not run yet.
    skews: Mutex<BTreeMap<String, Skew>>,
}

/// All machines of a lab. They run on threads of their own; dropping this ends them.
pub struct Machines {
    world: Arc<World>,
    runtime: Mutex<Option<Runtime>>,
}

impl Machines {
    /// An empty lab that keeps everything under `dir`.
    pub async fn start(dir: PathBuf, clock: Clock) -> Result<Arc<Self>, LabError> {
        std::fs::create_dir_all(&dir).map_err(io_error(format!("create {}", dir.display())))?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("lab")
            .thread_stack_size(STACK)
            .enable_all()
            .build()
            .map_err(io_error("start its threads"))?;
        let world = World {
            dir,
            clock,
            tools: Mutex::default(),
            routes: Mutex::default(),
            machines: Mutex::default(),
            troubles: Mutex::default(),
            skews: Mutex::default(),
        };
        Ok(Arc::new(Self { world: Arc::new(world), runtime: Mutex::new(Some(runtime)) }))
    }

    pub fn clock(&self) -> &Clock {
        &self.world.clock
    }

    /// Make a program known, and put it on the machines that have it.
    pub fn add_tool(&self, tool: Arc<dyn Tool>) {
        lock(&self.world.tools).insert(tool.name(), tool.clone());
        let machines: Vec<_> = lock(&self.world.machines).values().cloned().collect();
        for machine in machines {
            machine.install(&tool);
        }
    }

    /// Start a machine. Files that an earlier one of the same name left are still there.
    pub async fn boot(&self, spec: MachineSpec) -> Result<Arc<Machine>, LabError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
        for text in [&spec.name, &spec.user] {
            if text.is_empty() || text.starts_with('.') || !text.chars().all(plain) {
                return Err(LabError::Name { text: text.clone() });
            }
        }
        if lock(&self.world.machines).contains_key(&spec.name) {
            return Err(LabError::Running { host: spec.name });
        }
        let handle = match &*lock(&self.runtime) {
            Some(runtime) => runtime.handle().clone(),
            None => return Err(LabError::Stopped),
        };
        let host = spec.name.clone();
        let dir = self.world.dir.join("hosts").join(&spec.name);
        let fs = Fs::new(dir.join("root"), spec.disk_bytes).map_err(io_error(format!("files of {host}")))?;
        let skew = self.skew(&spec.name);
        let journal =
            Journal::open(&dir.join("journal"), skew.clone()).map_err(io_error(format!("journal of {host}")))?;
        let key = ssh_server::host_key(&dir, &host)?;
        let authorized = ssh_server::authorized(&host, &spec.authorized_keys)?;
        let _ = fs.remove("/proc");
        furnish(&fs, &journal, &spec).map_err(io_error(format!("files of {host}")))?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.map_err(io_error(format!("listen for {host}")))?;
        let ssh = listener.local_addr().map_err(io_error(format!("listen for {host}")))?;
        let listener = listener.into_std().map_err(io_error(format!("listen for {host}")))?;
        let machine = Arc::new_cyclic(|me| Machine {
            name: spec.name.clone(),
            address: spec.address.clone(),
            user: spec.user,
            host_key: key.public_key().to_openssh().unwrap_or_default(),
            procs: proc::Procs::new(fs.clone()),
            units: system::Units::default(),
            fs,
            journal,
            skew,
            ssh,
            link: ssh_server::Link::default(),
            ports: Mutex::new(BTreeSet::from([22])),
            down: CancellationToken::new(),
            world: self.world.clone(),
            handle,
            me: me.clone(),
        });
        let tools: Vec<_> = lock(&self.world.tools).values().cloned().collect();
        for tool in tools {
            machine.install(&tool);
        }
        machine.spawn(ssh_server::serve(machine.clone(), listener, key, authorized));
        self.route(&spec.address, Some(22), ssh);
        self.route(&spec.name, Some(22), ssh);
        lock(&self.world.machines).insert(host, machine.clone());
        system::start_enabled(&machine);
        Ok(machine)
    }

    /// Power off: every process ends, every connection drops, the address answers no more. The disk stays.
    pub async fn shut_down(&self, name: &str) {
        let machine = lock(&self.world.machines).remove(name);
        if let Some(machine) = machine {
            machine.down.cancel();
            lock(&self.world.routes).retain(|_, to| *to != machine.ssh);
        }
    }

    /// Power off a machine that will boot again: its journal has a new boot then.
    pub async fn reset(&self, name: &str) -> Result<(), LabError> {
        self.shut_down(name).await;
        let dir = self.world.dir.join("hosts").join(name).join("journal");
        Journal::next_boot(&dir).map_err(io_error(format!("journal of {name}")))
    }

    /// The clock of a machine, whether it runs or not.
    pub fn skew(&self, name: &str) -> Skew {
        lock(&self.world.skews).entry(name.to_owned()).or_default().clone()
    }

    pub fn machine(&self, name: &str) -> Option<Arc<Machine>> {
        lock(&self.world.machines).get(name).cloned()
    }

    /// Where connections from the machines to `host` and `port` (every port when none) really go. Only loopback
    /// addresses are taken.
    pub fn route(&self, host: &str, port: Option<u16>, to: SocketAddr) {
        if to.ip().is_loopback() {
            lock(&self.world.routes).insert((host.to_ascii_lowercase(), port), to);
        }
    }
    pub fn unroute(&self, host: &str) {
        let host = host.to_ascii_lowercase();
        lock(&self.world.routes).retain(|(name, _), _| *name != host);
    }
    pub fn resolve(&self, host: &str, port: u16) -> Option<SocketAddr> {
        self.world.resolve(host, port)
    }

    /// Let nodes have trouble with a name and port, or no longer.
    pub fn set_trouble(&self, host: &str, port: u16, trouble: Option<String>) {
        let mut troubles = lock(&self.world.troubles);
        match trouble {
            Some(trouble) => troubles.insert((host.to_owned(), port), trouble),
            None => troubles.remove(&(host.to_owned(), port)),
        };
    }

    /// Cut or mend the network of a machine. Cutting drops its connections at once; new ones are accepted by nobody.
    pub async fn link(&self, name: &str, up: bool) {
        if let Some(machine) = self.machine(name) {
            machine.link.set(up);
        }
    }

    /// Power off everything.
    pub async fn stop(&self) {
        let names: Vec<_> = lock(&self.world.machines).keys().cloned().collect();
        for name in names {
            self.shut_down(&name).await;
        }
        if let Some(runtime) = lock(&self.runtime).take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for machine in lock(&self.world.machines).values() {
            machine.down.cancel();
        }
        // Machines and their world point at each other.
        lock(&self.world.machines).clear();
        lock(&self.world.tools).clear();
        if let Some(runtime) = lock(&self.runtime).take() {
            runtime.shutdown_background();
        }
    }
}

impl World {
    fn resolve(&self, host: &str, port: u16) -> Option<SocketAddr> {
        let host = host.to_ascii_lowercase();
        let routes = lock(&self.routes);
        routes.get(&(host.clone(), Some(port))).or_else(|| routes.get(&(host, None))).copied()
    }
}

/// One machine that is running.
pub struct Machine {
    pub name: String,
    pub address: String,
    pub user: String,
    host_key: String,
    fs: Fs,
    journal: Journal,
    skew: Skew,
    procs: Arc<proc::Procs>,
    units: system::Units,
    ssh: SocketAddr,
    link: ssh_server::Link,
    ports: Mutex<BTreeSet<u16>>,
    down: CancellationToken,
    world: Arc<World>,
    handle: tokio::runtime::Handle,
    me: Weak<Machine>,
}

impl Machine {
    /// Where its SSH server really listens.
    pub fn ssh(&self) -> SocketAddr {
        self.ssh
    }
    /// `ssh-ed25519 AAAA…`, the same for as long as the lab's directory is kept.
    pub fn host_key(&self) -> String {
        self.host_key.clone()
    }
    pub fn fs(&self) -> &Fs {
        &self.fs
    }
    pub fn journal(&self) -> &Journal {
        &self.journal
    }
    pub fn clock(&self) -> &Clock {
        &self.world.clock
    }
    /// How far its clock is from the right time.
    pub fn skew(&self) -> &Skew {
        &self.skew
    }
    /// Send SIGKILL to every process whose command line `is` accepts, as the kernel does when memory is short. Whether
    /// there was one.
    pub fn kill(&self, is: impl Fn(&str) -> bool) -> bool {
        let found: Vec<_> = self.procs.all().into_iter().filter(|proc| is(&proc.command())).collect();
        for proc in &found {
            proc.signal(proc::KILL);
        }
        !found.is_empty()
    }
    /// What is in the way to a name and port.
    pub fn trouble(&self, host: &str, port: u16) -> Option<String> {
        lock(&self.world.troubles).get(&(host.to_owned(), port)).cloned()
    }
    /// Where a connection from this machine really goes; none: refused.
    pub fn resolve(&self, host: &str, port: u16) -> Option<SocketAddr> {
        self.world.resolve(host, port)
    }
    /// A unit that systemd has given up. The token is cancelled when somebody starts it again.
    pub fn fail_unit(&self, name: &str) -> CancellationToken {
        self.units.fail(name)
    }
    /// Whether a port shows in `ss -ltn`.
    pub fn listen(&self, port: u16, on: bool) {
        let mut ports = lock(&self.ports);
        if on {
            ports.insert(port);
        } else {
            ports.remove(&port);
        }
    }
    fn ports(&self) -> Vec<u16> {
        lock(&self.ports).iter().copied().collect()
    }

    /// Run a command line as if over SSH, with nothing on standard input: status, output, errors.
    pub async fn run(&self, line: &str) -> (i32, String, String) {
        let Some(machine) = self.me.upgrade() else { return (255, String::new(), String::new()) };
        let line = line.to_owned();
        let task = async move {
            let ((mut out, out_writer), (mut err, err_writer)) = (reading(), reading());
            let fds = Fds::from([(0, Fd::Null), (1, out_writer), (2, err_writer)]);
            let (_, run) = machine.login(&line, BTreeMap::new(), fds);
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            let (status, _, _) = tokio::join!(run, out.read_to_end(&mut stdout), err.read_to_end(&mut stderr));
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            (status, text(stdout), text(stderr))
        };
        let gone = (255, String::new(), "the machine is down\n".to_owned());
        let (down, mut task) = (self.down.clone(), self.handle.spawn(task));
        tokio::select! {
            done = &mut task => done.unwrap_or(gone),
            () = down.cancelled() => {
                task.abort();
                gone
            }
        }
    }

    /// A login shell for one command line: its process, and the run that gives its status.
    fn login(
        self: &Arc<Self>,
        line: &str,
        env: BTreeMap<String, String>,
        fds: Fds,
    ) -> (Arc<proc::Proc>, impl Future<Output = i32> + Send + 'static) {
        let guard = self.procs.start(None, &format!("bash -c {line}"), &self.user);
        let proc = guard.proc.clone();
        let cx = self.context(proc.clone(), env, fds);
        let line = line.to_owned();
        let run = async move {
            let shell = Shell::new(cx, vec!["bash".to_owned()]);
            supervise(guard, Box::pin(async move { shell.command_line(&line).await })).await
        };
        (proc, run)
    }

    fn context(self: &Arc<Self>, proc: Arc<proc::Proc>, env: BTreeMap<String, String>, fds: Fds) -> Cx {
        let user = proc.user();
        let home = home_of(&user);
        let mut all = BTreeMap::from(
            [("HOME", home.as_str()), ("USER", &user), ("LOGNAME", &user), ("SHELL", "/bin/bash"), ("PATH", PATH)]
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        all.insert("LANG".to_owned(), "C.UTF-8".to_owned());
        all.extend(env);
        Cx { machine: self.clone(), proc, args: Vec::new(), env: all, cwd: home, user, umask: 0o022, fds, depth: 0 }
    }

    /// The address of a machine of the lab by name.
    fn address_of(&self, name: &str) -> Option<String> {
        if name == self.name || name == "localhost" {
            return Some(if name == "localhost" { "127.0.0.1".to_owned() } else { self.address.clone() });
        }
        lock(&self.world.machines).get(name).map(|machine| machine.address.clone())
    }

    fn tool(&self, name: &str) -> Option<Arc<dyn Tool>> {
        lock(&self.world.tools).get(name).cloned()
    }

    fn install(&self, tool: &Arc<dyn Tool>) {
        let path = format!("/usr/local/bin/{}", tool.name());
        if tool.on(&self.name) && !self.fs.exists(&path) {
            // A disk that is full already has no room for programs.
            let _ = self.fs.write(&path, marker(tool.name()).as_bytes());
            let _ = self.fs.set_mode(&path, 0o755);
        }
    }

    fn procs(&self) -> &Arc<proc::Procs> {
        &self.procs
    }

    /// A task that ends with the machine.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let down = self.down.clone();
        self.handle.spawn(async move {
            tokio::select! {
                () = task => {}
                () = down.cancelled() => {}
            }
        });
    }
}

fn reading() -> (Fd, Fd) {
    let (reader, writer) = pipe();
    (Fd::In(reader), Fd::Out(writer))
}

fn home_of(user: &str) -> String {
    if user == "root" { "/root".to_owned() } else { format!("/home/{user}") }
}

/// What every machine has on its disk.
fn furnish(fs: &Fs, journal: &Journal, spec: &MachineSpec) -> std::io::Result<()> {
    let limit = fs.limit();
    // A machine whose disk is full still boots.
    fs.set_limit(u64::MAX);
    let home = home_of(&spec.user);
    let dirs = [
        "/tmp",
        "/var/tmp",
        "/var/log",
        "/var/lib",
        "/opt",
        "/root",
        "/run/systemd/system",
        "/dev",
        "/mnt",
        "/srv",
        "/usr/bin",
    ];
    let more = ["/usr/local/bin", "/etc/systemd/system", "/etc/pki/ca-trust/source/anchors", "/proc/sys/kernel/random"];
    for dir in dirs.iter().chain(&more).copied().chain([home.as_str(), &format!("{home}/.ssh")]) {
        fs.mkdir_p(dir)?;
    }
    fs.set_mode("/tmp", 0o1777)?;
    fs.set_mode(&home, 0o700)?;
    fs.set_mode(&format!("{home}/.ssh"), 0o700)?;
    for (link, target) in [("/bin", "usr/bin"), ("/sbin", "usr/bin"), ("/usr/sbin", "bin")] {
        if !fs.exists(link) {
            fs.symlink(target, link)?;
        }
    }
    for device in ["null", "zero", "full", "random", "urandom", "tty", "stdin", "stdout", "stderr"] {
        let place = fs.real("/dev")?.join(device);
        std::fs::write(place, b"")?;
        fs.set_mode(&format!("/dev/{device}"), 0o666)?;
    }
    let user = &spec.user;
    let files = [
        ("/etc/hostname", format!("{}\n", spec.name)),
        ("/etc/hosts", format!("127.0.0.1 localhost\n{} {}\n", spec.address, spec.name)),
        ("/etc/passwd", format!("root:x:0:0:root:/root:/bin/bash\n{user}:x:1000:1000::{home}:/bin/bash\n")),
        ("/etc/group", format!("root:x:0:\nwheel:x:10:{user}\nsystemd-journal:x:190:{user}\n{user}:x:1000:\n")),
        (
            "/etc/os-release",
            "NAME=\"Red Hat Enterprise Linux\"\nVERSION=\"9.6 (Plow)\"\nID=\"rhel\"\nID_LIKE=\"fedora\"\n\
             VERSION_ID=\"9.6\"\nPLATFORM_ID=\"platform:el9\"\nPRETTY_NAME=\"Red Hat Enterprise Linux 9.6 (Plow)\"\n"
                .to_owned(),
        ),
        ("/etc/redhat-release", "Red Hat Enterprise Linux release 9.6 (Plow)\n".to_owned()),
        ("/etc/machine-id", format!("{}\n", journal.machine_id())),
        ("/proc/sys/kernel/random/boot_id", format!("{}\n", journal.boot_uuid())),
        (
            "/proc/meminfo",
            "MemTotal:       16207396 kB\nMemFree:        12010240 kB\nMemAvailable:   14100000 kB\n".into(),
        ),
        ("/proc/loadavg", "0.10 0.08 0.05 1/120 4242\n".to_owned()),
        ("/proc/mounts", "/dev/nvme0n1p4 / xfs rw,seclabel,relatime 0 0\n".to_owned()),
    ];
    for (path, text) in files {
        fs.write(path, text.as_bytes())?;
    }
    let keys = spec.authorized_keys.join("\n") + "\n";
    fs.write(&format!("{home}/.ssh/authorized_keys"), keys.as_bytes())?;
    fs.set_mode(&format!("{home}/.ssh/authorized_keys"), 0o600)?;
    for name in coreutils::names() {
        let path = format!("/usr/bin/{name}");
        if !fs.exists(&path) {
            fs.write(&path, marker(name).as_bytes())?;
            fs.set_mode(&path, 0o755)?;
        }
    }
    fs.set_limit(limit);
    Ok(())
}

static BOOTED: OnceLock<std::time::Instant> = OnceLock::new();

/// Since the first machine of this program booted: the lab's monotonic time.
fn uptime() -> std::time::Duration {
    BOOTED.get_or_init(std::time::Instant::now).elapsed()
}
