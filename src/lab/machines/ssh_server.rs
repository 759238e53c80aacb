//! The SSH server of a machine: public keys only, commands for the lab's shell, forwards by the lab's map.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::Shutdown;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::ssh_key::{LineEnding, PrivateKey, PublicKey};
use russh::server::{
    Auth, ChannelOpenHandle, Config, Handle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{
    Channel, ChannelMsg, ChannelOpenFailure, ChannelReadHalf, ChannelWriteHalf, MethodKind, MethodSet, Sig, SshId,
};
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::io::{Fd, lock, pipe, pipe_of};
use super::proc::{HUP, Proc, TERM, signal_number};
use super::program::Fds;
use super::{LabError, Machine, io_error};

/// sshd's `MaxSessions`.
const MAX_SESSIONS: usize = 10;
/// What a client may send ahead of a command that does not read; then the whole connection waits.
const AHEAD: usize = 64 << 20;
/// What a command may print before the client takes it.
const PACKET: usize = 32 * 1024;

/// The key of a host, made once and kept in its directory.
pub(super) fn host_key(dir: &Path, host: &str) -> Result<PrivateKey, LabError> {
    let path = dir.join("ssh_host_ed25519_key");
    let broken = |why: String| LabError::HostKey { host: host.to_owned(), why };
    if let Ok(text) = std::fs::read_to_string(&path) {
        return PrivateKey::from_openssh(text).map_err(|error| broken(error.to_string()));
    }
    let seed: [u8; 32] = ring::rand::generate(&ring::rand::SystemRandom::new())
        .map_err(|_| broken("no random numbers".to_owned()))?
        .expose();
    let pair = KeypairData::from(Ed25519Keypair::from_seed(&seed));
    let key = PrivateKey::new(pair, host).map_err(|error| broken(error.to_string()))?;
    let text = key.to_openssh(LineEnding::LF).map_err(|error| broken(error.to_string()))?;
    std::fs::create_dir_all(dir).map_err(io_error(format!("host key of {host}")))?;
    std::fs::write(&path, text.as_bytes()).map_err(io_error(format!("host key of {host}")))?;
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
        .map_err(io_error(format!("host key of {host}")))?;
    Ok(key)
}

/// The keys that may log in.
pub(super) fn authorized(host: &str, lines: &[String]) -> Result<Vec<PublicKey>, LabError> {
    let lines = lines.iter().map(|line| line.trim()).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            PublicKey::from_openssh(line)
                .map_err(|error| LabError::AuthorizedKey { host: host.to_owned(), why: error.to_string() })
        })
        .collect()
}

/// The network of one machine: up or cut, and the connections to cut.
#[derive(Default)]
pub(super) struct Link(Mutex<LinkState>);

#[derive(Default)]
struct LinkState {
    down: bool,
    cut: CancellationToken,
}

impl Link {
    pub fn set(&self, up: bool) {
        let mut state = lock(&self.0);
        state.down = !up;
        if state.down {
            std::mem::take(&mut state.cut).cancel();
        }
    }
    /// What ends a new connection; none while the link is down.
    fn connect(&self) -> Option<CancellationToken> {
        let state = lock(&self.0);
        (!state.down).then(|| state.cut.clone())
    }
}

/// Accept connections for as long as the machine runs.
pub(super) async fn serve(
    machine: Arc<Machine>,
    listener: std::net::TcpListener,
    key: PrivateKey,
    authorized: Vec<PublicKey>,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(host = machine.name, %error, "the lab's SSH server did not start");
            return;
        }
    };
    let mut methods = MethodSet::empty();
    methods.push(MethodKind::PublicKey);
    let config = Arc::new(Config {
        server_id: SshId::Standard(Cow::Borrowed("SSH-2.0-OpenSSH_8.7")),
        methods,
        auth_rejection_time: Duration::from_millis(50),
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![key],
        inactivity_timeout: None,
        keepalive_interval: Some(Duration::from_secs(15)),
        nodelay: true,
        ..Config::default()
    });
    let authorized = Arc::new(authorized);
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // A machine without a network: the connection ends before anything was said.
        let Some(cut) = machine.link.connect() else { continue };
        let Ok((socket, handle)) = socket.into_std().and_then(|socket| Ok((socket.try_clone()?, socket))) else {
            continue;
        };
        let Ok(socket) = TcpStream::from_std(socket) else { continue };
        let connection = Connection {
            machine: machine.clone(),
            authorized: authorized.clone(),
            sessions: Arc::new(AtomicUsize::new(0)),
        };
        let (config, down) = (config.clone(), machine.down.clone());
        machine.handle.spawn(async move {
            let session = async {
                if let Ok(session) = russh::server::run_stream(config, socket, connection).await {
                    // How a connection ended is the client's business.
                    let _ = session.await;
                }
            };
            tokio::select! {
                () = session => {}
                () = cut.cancelled() => {}
                () = down.cancelled() => {}
            }
            // The session runs in a task of russh; without its socket it ends.
            let _ = handle.shutdown(Shutdown::Both);
        });
    }
}

struct Connection {
    machine: Arc<Machine>,
    authorized: Arc<Vec<PublicKey>>,
    sessions: Arc<AtomicUsize>,
}

impl Connection {
    fn judge(&self, user: &str, key: &PublicKey) -> Auth {
        if user == self.machine.user && self.authorized.iter().any(|known| known.key_data() == key.key_data()) {
            Auth::Accept
        } else {
            Auth::reject()
        }
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        Ok(self.judge(user, offer.public_key))
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(self.judge(user, key.public_key))
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let place = Place::take(&self.sessions);
        let Some(place) = place else {
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
            return Ok(());
        };
        reply.accept().await;
        let (machine, handle) = (self.machine.clone(), session.handle());
        self.machine.spawn(async move {
            let (read, write) = channel.split();
            talk(machine, handle, read, write).await;
            drop(place);
        });
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let machine = &self.machine;
        let to = u16::try_from(port).ok().and_then(|port| {
            let own = matches!(host, "localhost" | "127.0.0.1" | "::1");
            let named = machine.resolve(host, port);
            named.or_else(|| machine.resolve(&machine.address, port).filter(|_| own))
        });
        // Only what the lab knows: nothing of the operator's network is reachable.
        let Some(to) = to else {
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
            return Ok(());
        };
        self.machine.spawn(async move {
            match TcpStream::connect(to).await {
                Ok(mut socket) => {
                    reply.accept().await;
                    // Either side may go away at any time.
                    let _ = copy_bidirectional(&mut channel.into_stream(), &mut socket).await;
                }
                Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
            }
        });
        Ok(())
    }
}

/// One of the sessions that a connection may have.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(sessions: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(sessions.clone());
        (sessions.fetch_add(1, Ordering::SeqCst) < MAX_SESSIONS).then_some(place)
    }
}
impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The life of one session channel.
async fn talk(machine: Arc<Machine>, handle: Handle, mut read: ChannelReadHalf, write: ChannelWriteHalf<Msg>) {
    let mut env = BTreeMap::new();
    let id = write.id();
    let command = loop {
        match read.wait().await {
            None | Some(ChannelMsg::Close) => return,
            Some(ChannelMsg::SetEnv { variable_name, variable_value, .. }) => {
                // As sshd's `AcceptEnv LANG LC_*`.
                if variable_name == "LANG" || variable_name.starts_with("LC_") {
                    env.insert(variable_name, variable_value);
                }
                let _ = handle.channel_success(id).await;
            }
            Some(ChannelMsg::RequestPty { .. }) => drop(handle.channel_success(id).await),
            Some(
                ChannelMsg::RequestSubsystem { .. } | ChannelMsg::AgentForward { .. } | ChannelMsg::RequestX11 { .. },
            ) => {
                let _ = handle.channel_failure(id).await;
            }
            Some(ChannelMsg::Exec { command, .. }) => break String::from_utf8_lossy(&command).into_owned(),
            // A login without a command reads one script.
            Some(ChannelMsg::RequestShell { .. }) => break "bash -s".to_owned(),
            Some(_) => {}
        }
    };
    let _ = handle.channel_success(id).await;
    let (stdin, feed) = pipe_of(AHEAD);
    let mut feed = Some(Fd::Out(feed));
    let ((out, out_writer), (err, err_writer)) = (pipe(), pipe());
    let fds = Fds::from([(0, Fd::In(stdin)), (1, Fd::Out(out_writer)), (2, Fd::Out(err_writer))]);
    let (proc, run) = machine.login(&command, env, fds);
    // In a task of its own: what a signal does to it is its own affair, also after the connection is gone.
    let (done, ended) = tokio::sync::oneshot::channel();
    machine.spawn(async move {
        let _ = done.send(run.await);
    });
    let mut hang_up = HangUp { machine: machine.clone(), proc: Some(proc.clone()) };
    let (mut stdout, mut stderr) = (write.make_writer(), write.make_writer_ext(Some(1)));
    let work = async {
        let pump_out = async {
            let mut out = Fd::In(out);
            forward(&mut out, &mut stdout).await;
        };
        let pump_err = async {
            let mut err = Fd::In(err);
            forward(&mut err, &mut stderr).await;
        };
        let (status, (), ()) = tokio::join!(ended, pump_out, pump_err);
        status.unwrap_or(255)
    };
    let input = async {
        loop {
            match read.wait().await {
                None | Some(ChannelMsg::Close) => return,
                Some(ChannelMsg::Data { data }) => {
                    if let Some(writer) = &mut feed
                        && writer.write_all(&data).await.is_err()
                    {
                        // Nobody reads any more.
                        feed = None;
                    }
                }
                Some(ChannelMsg::Eof) => feed = None,
                Some(ChannelMsg::Signal { signal }) => {
                    let signal = match signal {
                        Sig::Custom(name) => signal_number(&name),
                        Sig::HUP => Some(HUP),
                        Sig::INT => Some(super::proc::INT),
                        Sig::KILL => Some(super::proc::KILL),
                        _ => Some(TERM),
                    };
                    machine.procs().signal_group(proc.group(), signal.unwrap_or(TERM));
                }
                Some(_) => {}
            }
        }
    };
    tokio::select! {
        status = work => {
            hang_up.proc = None;
            // The client may be gone already.
            let _ = write.exit_status(u32::try_from(status).unwrap_or(255)).await;
            let _ = write.eof().await;
            let _ = write.close().await;
        }
        () = input => {}
    }
}

/// Copies until one of both ends; what cannot be written any more is thrown away.
async fn forward(from: &mut Fd, to: &mut (impl AsyncWriteExt + Unpin)) {
    use tokio::io::AsyncReadExt;
    let mut buffer = vec![0; PACKET];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                if to.write_all(buffer.get(..count).unwrap_or_default()).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Tells the foreground group when the connection went away before the command ended.
struct HangUp {
    machine: Arc<Machine>,
    proc: Option<Arc<Proc>>,
}

impl Drop for HangUp {
    fn drop(&mut self) {
        if let Some(proc) = self.proc.take() {
            self.machine.procs().signal_group(proc.group(), HUP);
        }
    }
}
