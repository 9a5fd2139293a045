//! The client side of the HTTP interface.

use std::{io, path::PathBuf};

use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, StatusCode, body::Bytes, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use crate::director::view::ErrorView;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum ClientError {
    #[error(
        "no daemon answers on {} (is `xdp-lb run` running, and with this --socket?)",
        socket.display()
    )]
    NoDaemon { socket: PathBuf, source: io::Error },
    #[error("the socket {} is for root alone: run this as root, or through sudo", socket.display())]
    NotRoot { socket: PathBuf },
    #[error("{message}")]
    Refused { status: StatusCode, message: String },
    #[error("the daemon's answer makes no sense")]
    Answer(#[source] serde_json::Error),
    #[error("talking to the daemon")]
    Http(#[from] hyper::Error),
    #[error("making the request")]
    Request(#[from] hyper::http::Error),
}

/// Talks to the daemon behind a socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the daemon behind `socket`. Connects with each call.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Asks for something.
    ///
    /// # Errors
    ///
    /// If there is no daemon, or it refuses.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, None::<&()>).await
    }

    /// Makes a call, with `body` as JSON where there is one.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let (status, answer) = self.exchange(method, path, body).await?;
        if status.is_success() {
            return serde_json::from_slice(&answer).map_err(ClientError::Answer);
        }
        let message = match serde_json::from_slice::<ErrorView>(&answer) {
            Ok(view) => view.error,
            Err(_) => format!("{status}: {}", String::from_utf8_lossy(&answer).trim()),
        };
        Err(ClientError::Refused { status, message })
    }

    fn unreachable(&self, source: io::Error) -> ClientError {
        let socket = self.socket.clone();
        match source.kind() {
            io::ErrorKind::PermissionDenied => ClientError::NotRoot { socket },
            _ => ClientError::NoDaemon { socket, source },
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| self.unreachable(source))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(ClientError::Answer)?,
            None => Vec::new(),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "xdp-lb")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}
