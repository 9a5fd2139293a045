//! The gRPC health service says SERVING.

use std::{
    error::Error,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use hyper::{
    Request, Response, Uri,
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
};
use tonic::{
    Code, Status,
    body::Body,
    codegen::Service,
    metadata::{MetadataMap, MetadataValue},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{Stage, Target, socket, tcp, tls};
use crate::{
    config::{Grpc, HealthCheck},
    health::{Cause, Kind},
};

/// Bytes of an answer at most: it has a few.
const ANSWER: usize = 4096;

/// Bytes of the headers of an answer at most.
const HEADERS: u32 = 16 * 1024;

/// Bytes of a request's padding at most, however large packets may be.
const PADDING: u16 = 7 * 1024;

/// Calls `grpc.health.v1.Health/Check`.
pub(super) async fn ask(
    check: &HealthCheck,
    grpc: &Grpc,
    target: &Target,
    stage: &Stage,
) -> Result<(), Cause> {
    let full_size = socket::segment(target).filter(|_| check.full_size);
    let stream = tcp::connect(target, stage).await?;
    match &grpc.tls {
        None => call(stream, grpc, full_size, target, stage).await,
        Some(settings) => {
            let stream = tls::handshake(stream, settings, None, &[b"h2"], target, stage).await?;
            call(stream, grpc, full_size, target, stage).await
        }
    }
}

async fn call(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    grpc: &Grpc,
    full_size: Option<u16>,
    target: &Target,
    stage: &Stage,
) -> Result<(), Cause> {
    stage.set("waiting for the answer");
    let tasks = Tasks::default();
    let (sender, connection) = http2::Builder::new(tasks.executor())
        .max_header_list_size(HEADERS)
        .initial_stream_window_size(HEADERS)
        .initial_connection_window_size(HEADERS)
        .handshake::<_, Body>(TokioIo::new(stream))
        .await
        .map_err(|error| {
            let unknown = || Cause::new(Kind::Answer, format!("grpc: {error}"));
            broken(&error).unwrap_or_else(unknown)
        })?;
    // What it has to say, it says to the sender.
    let driven = async {
        let _ = connection.await;
        std::future::pending().await
    };
    let mut client = HealthClient::with_origin(Sender(sender), origin(grpc, target))
        .max_decoding_message_size(ANSWER);
    let mut request = tonic::Request::new(HealthCheckRequest {
        service: grpc.service.clone(),
    });
    fill_up(request.metadata_mut(), full_size);
    let answered = async {
        match client.check(request).await {
            Ok(answer) => match answer.into_inner().status() {
                ServingStatus::Serving => Ok(()),
                status => Err(Cause::new(
                    Kind::Answer,
                    format!("grpc: {}", status.as_str_name()),
                )),
            },
            Err(status) => Err(cause(&status)),
        }
    };
    tokio::select! {
        result = answered => result,
        result = driven => result,
    }
}

fn origin(grpc: &Grpc, target: &Target) -> Uri {
    let scheme = if grpc.tls.is_some() { "https" } else { "http" };
    let asked = std::net::SocketAddr::new(target.asked(), target.address.port());
    // An address and a port make a URI.
    format!("{scheme}://{asked}").parse().unwrap_or_default()
}

/// Makes the headers larger than a packet. The letter has eight bits in HPACK's Huffman code (RFC 7541,
/// appendix B).
fn fill_up(metadata: &mut MetadataMap, full_size: Option<u16>) {
    let Some(size) = full_size else {
        return;
    };
    let padding = "X".repeat(size.min(PADDING).into());
    if let Ok(padding) = MetadataValue::try_from(padding) {
        metadata.insert("x-padding", padding);
    }
}

/// Says in a few words what went wrong with the connection; None: nothing did.
fn broken(error: &(dyn Error + 'static)) -> Option<Cause> {
    let causes = || std::iter::successors(Some(error), |&error| error.source());
    let reason = causes().find_map(|error| {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(Cause::io("grpc", io));
        }
        let error = error.downcast_ref::<h2::Error>()?;
        let text = match error.reason() {
            Some(reason) if error.is_remote() => format!("grpc: the server gives up: {reason:?}"),
            _ => "grpc: the answer is not HTTP/2".into(),
        };
        Some(Cause::new(Kind::Answer, text))
    });
    reason.or_else(|| {
        let closed = causes()
            .filter_map(|error| error.downcast_ref::<hyper::Error>())
            .any(|error| error.is_canceled() || error.is_closed());
        let text = "grpc: closed before the request was sent";
        closed.then(|| Cause::new(Kind::Reset, text))
    })
}

fn cause(status: &Status) -> Cause {
    if let Some(cause) = status.source().and_then(broken) {
        return cause;
    }
    let text = match (status.code(), status.message()) {
        (Code::NotFound, _) => "grpc: the health service does not know this service".into(),
        (Code::Unimplemented, _) => "grpc: the server has no health service".into(),
        (code, "") => format!("grpc: {code:?}"),
        (code, message) => format!("grpc: {code:?}: {}", short(message)),
    };
    Cause::new(Kind::Answer, text)
}

/// The beginning of a text that a backend chose.
pub(super) fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars()
        .filter(|it| !it.is_control())
        .take(100)
        .collect()
}

/// The tasks of a connection, which end with this, whatever they are waiting for: a server that never reads
/// keeps an orderly end waiting for ever.
#[derive(Default)]
struct Tasks(Executor);

impl Tasks {
    fn executor(&self) -> Executor {
        self.0.clone()
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.tasks().abort_all();
    }
}

#[derive(Clone, Default)]
struct Executor(Arc<Mutex<JoinSet<()>>>);

impl Executor {
    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Future<Output = ()> + Send + 'static> hyper::rt::Executor<T> for Executor {
    fn execute(&self, task: T) {
        self.tasks().spawn(task);
    }
}

/// An HTTP/2 connection as gRPC calls it.
struct Sender(SendRequest<Body>);

impl Service<Request<Body>> for Sender {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
