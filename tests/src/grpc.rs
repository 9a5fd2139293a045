//! A gRPC server with the health service.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tonic::codegen::Service;
use tonic_health::ServingStatus;
use xtask::lab::Namespace;

use crate::identity::Identity;

/// A server; it ends when dropped, with all of its connections.
#[derive(Debug)]
pub struct GrpcServer {
    address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl GrpcServer {
    /// Starts a server on a port of its own, which says this of its services; by TLS with an identity.
    pub fn start(
        namespace: &Namespace,
        address: IpAddr,
        identity: Option<&Identity>,
        services: &'static [(&'static str, ServingStatus)],
    ) -> Result<Self> {
        let listener = namespace
            .run(|| TcpListener::bind((address, 0)))
            .with_context(|| format!("cannot listen on {address}"))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let acceptor = identity.map(|identity| TlsAcceptor::from(identity.config()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (end, ended) = oneshot::channel();
        let thread = namespace.thread("grpc", move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, acceptor, services) => {}
                    _ = ended => {}
                }
            });
        })?;
        Ok(Self {
            address,
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for GrpcServer {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // What panicked there has been printed.
            let _ = thread.join();
        }
    }
}

async fn serve(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    services: &[(&str, ServingStatus)],
) {
    let (reporter, health) = tonic_health::server::health_reporter();
    for (name, status) in services {
        reporter.set_service_status(*name, *status).await;
    }
    let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime");
    while let Ok((stream, _)) = listener.accept().await {
        let (health, acceptor) = (health.clone(), acceptor.clone());
        tokio::spawn(async move {
            match acceptor {
                None => serve_connection(stream, health).await,
                Some(acceptor) => {
                    // Clients that take no such certificate break off.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve_connection(stream, health).await;
                    }
                }
            }
        });
    }
}

async fn serve_connection<S>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    health: S,
) where
    S: Service<
            hyper::Request<hyper::body::Incoming>,
            Response = hyper::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
        > + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    // Checks close by RST.
    let _ = http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(health))
        .await;
}
