//! TLS servers on loopback whose certificate can be exchanged while they run.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use axum_server::accept::{Accept, DefaultAcceptor};
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::OcpError;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// It showed a client certificate of the CA that the server asks for.
    pub certified: bool,
}

type Stream = <RustlsAcceptor as Accept<TcpStream, ()>>::Stream;

/// Connections whose handshake is done.
struct Ready {
    connections: mpsc::Receiver<(Stream, Peer)>,
    address: SocketAddr,
}

impl axum::serve::Listener for Ready {
    type Io = Stream;
    type Addr = Peer;

    async fn accept(&mut self) -> (Stream, Peer) {
        match self.connections.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Peer> {
        let _ = self.address;
        Ok(Peer { certified: false })
    }
}

impl Connected<IncomingStream<'_, Ready>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Ready>) -> Self {
        stream.remote_addr().clone()
    }
}

pub fn config(certificate: &[u8], key: &[u8], clients: Option<&str>) -> Result<Arc<ServerConfig>, OcpError> {
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>().map_err(OcpError::pem)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(OcpError::pem)?;
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(
                Arc::new(roots(ca.as_bytes())?),
                Arc::new(rustls::crypto::ring::default_provider()),
            )
            .allow_unauthenticated()
            .build()
            .map_err(|why| OcpError::Tls(why.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

pub fn roots(pem: &[u8]) -> Result<RootCertStore, OcpError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.map_err(OcpError::pem)?)?;
    }
    Ok(roots)
}

/// Serve until `cancel`. The address is that of `listener`; `tls` may be reloaded at any time.
pub fn serve(
    listener: std::net::TcpListener,
    tls: RustlsConfig,
    router: Router,
    cancel: CancellationToken,
) -> Result<SocketAddr, OcpError> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let address = listener.local_addr()?;
    let acceptor = RustlsAcceptor::<DefaultAcceptor>::new(tls);
    let (ready, connections) = mpsc::channel(64);
    let stop = cancel.clone();
    tokio::spawn(async move {
        loop {
            let stream = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = stream else { continue };
            let (acceptor, ready) = (acceptor.clone(), ready.clone());
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                if let Ok((stream, ())) = acceptor.accept(stream, ()).await {
                    let certified = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
                    // The server may have stopped meanwhile; then the connection just closes.
                    let _ = ready.send((stream, Peer { certified })).await;
                }
            });
        }
    });
    tokio::spawn(async move {
        let service = router.into_make_service_with_connect_info::<Peer>();
        let server = axum::serve(Ready { connections, address }, service);
        tokio::select! {
            () = cancel.cancelled() => {}
            _ = server => {}
        }
    });
    Ok(address)
}
