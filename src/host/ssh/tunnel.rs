//! A loopback port of this machine that leads to a port as the host sees it.
//!
//! `ssh` cannot pick a free port for a local forward, so it forwards a socket file in our private directory, and we
//! listen. That also lets the tunnel live on over a new control connection.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use openssh::{ForwardType, Socket};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::Reach;
use super::link::Connection;
use crate::host::{HostError, Tunnel};

/// For a waiting client, a lost connection to be made again.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct SshTunnel {
    local: SocketAddr,
    _serving: AbortOnDropHandle<()>,
}

impl Tunnel for SshTunnel {
    fn local(&self) -> SocketAddr {
        self.local
    }
}

pub(super) async fn open(reach: Arc<Reach>, host: &str, port: u16) -> Result<SshTunnel, HostError> {
    let other = |why: std::io::Error| HostError::Other {
        host: "local".to_owned(),
        what: "opening a port for a tunnel".to_owned(),
        why: why.to_string(),
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(other)?;
    let local = listener.local_addr().map_err(other)?;
    let mut forward = Forward { reach, target: (host.to_owned(), port), name: local.port(), made: None };
    // A host that cannot be reached or does not forward is better known now.
    forward.ready().await?;
    let serving = tokio::spawn(async move {
        let mut clients = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            while clients.try_join_next().is_some() {}
            match forward.connect().await {
                Ok(stream) => drop(clients.spawn(relay(client, stream))),
                Err(why) => tracing::warn!(%why, "a tunnel is down"),
            }
        }
    });
    Ok(SshTunnel { local, _serving: AbortOnDropHandle::new(serving) })
}

/// Until both sides have closed; how either ended is its own affair.
async fn relay(mut client: TcpStream, mut stream: UnixStream) {
    let _ended = copy_bidirectional(&mut client, &mut stream).await;
}

/// A forwarded socket file, made again on every new control connection.
struct Forward {
    reach: Arc<Reach>,
    target: (String, u16),
    name: u16,
    made: Option<Arc<Connection>>,
}

impl Forward {
    async fn connect(&mut self) -> Result<UnixStream, HostError> {
        let path = self.ready().await?;
        if let Ok(stream) = UnixStream::connect(&path).await {
            return Ok(stream);
        }
        // The connection has just died: once more over a new one.
        if let Some(made) = self.made.take() {
            self.reach.broken(&made, "the connection closed").await;
        }
        let path = self.ready().await?;
        let connected = UnixStream::connect(&path).await;
        connected.map_err(|why| HostError::Link { host: self.reach.way.name.clone(), why: why.to_string() })
    }

    async fn ready(&mut self) -> Result<std::path::PathBuf, HostError> {
        let connection = self.reach.connection(Instant::now() + PATIENCE).await?;
        let path = connection.socket.with_extension(format!("t{}", self.name));
        if !self.made.as_ref().is_some_and(|made| Arc::ptr_eq(made, &connection)) {
            let listen = Socket::UnixSocket { path: path.clone().into() };
            let (host, port) = &self.target;
            let to = Socket::new(host.as_str(), *port);
            let asked = connection.session.request_port_forward(ForwardType::Local, listen, to);
            match timeout(PATIENCE, asked).await {
                Ok(Ok(())) => self.made = Some(connection),
                Ok(Err(why)) => {
                    return Err(self.reach.failed(&connection, "opening a tunnel", &super::chain(&why)).await);
                }
                Err(_) => return Err(self.reach.broken(&connection, "it did not open a tunnel in time").await),
            }
        }
        Ok(path)
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let Some(connection) = self.made.take() else { return };
        let path = connection.socket.with_extension(format!("t{}", self.name));
        // Nobody can reach the forward once its file is gone; ssh forgets it with the connection.
        let _gone = std::fs::remove_file(path);
    }
}
