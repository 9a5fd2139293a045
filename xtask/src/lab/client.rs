//! An HTTP client that runs inside a host of the lab: single requests, many at once, `wrk`.
//!
//! Each request has a connection of its own, and with it a source port of its own.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full};
use hyper::Method;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::{self, Runtime};
use tokio::task::JoinSet;

use super::dns;
use super::download::Downloads;
use super::host::Host;
use crate::setup::Tools;

/// How long one request may take, if not told otherwise.
const PATIENCE: Duration = Duration::from_secs(5);

/// The client's side of HTTP, from one host of the lab.
#[derive(Clone, Debug)]
pub struct Client {
    host: Arc<Host>,
    patience: Duration,
}

/// What is asked, and of whom.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) to: SocketAddr,
    pub(super) path: String,
    /// Without one it is a GET, with one a POST.
    pub(super) body: Option<Bytes>,
}

/// An answer that has come in whole.
#[derive(Clone, Debug)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The backend that answered, by the header `X-Backend`.
    pub backend: Option<String>,
    /// The client's end of the connection.
    pub local: SocketAddr,
    /// The body.
    pub body: String,
}

/// What `wrk` measured.
#[derive(Clone, Debug)]
pub struct Load {
    /// Answers a second.
    pub requests_per_second: f64,
    /// All that wrk printed, with latencies and errors.
    pub report: String,
}

impl Client {
    /// A client on `host`; requests may take five seconds.
    pub fn new(host: &Arc<Host>) -> Self {
        Self {
            host: Arc::clone(host),
            patience: PATIENCE,
        }
    }

    /// The same client with another limit on the time of one request.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The host that it runs on.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Asks `to` for `path` over a new connection.
    pub fn get(&self, to: SocketAddr, path: &str) -> Result<Response> {
        self.get_many(to, path, 1, 1)
            .pop()
            .context("the request's thread ended early")?
    }

    /// Asks `to` for `path` `count` times, at most `concurrency` at once, each on a new connection.
    ///
    /// There are `count` results, in the order in which they came.
    pub fn get_many(
        &self,
        to: SocketAddr,
        path: &str,
        count: usize,
        concurrency: usize,
    ) -> Vec<Result<Response>> {
        let question = Question {
            to,
            path: path.to_owned(),
            body: None,
        };
        self.fetch(question, count, concurrency)
    }

    /// Sends `body` to `path` at `to` over a new connection.
    pub fn post(&self, to: SocketAddr, path: &str, body: Vec<u8>) -> Result<Response> {
        let question = Question {
            to,
            path: path.to_owned(),
            body: Some(body.into()),
        };
        self.fetch(question, 1, 1)
            .pop()
            .context("the request's thread ended early")?
    }

    fn fetch(&self, question: Question, count: usize, concurrency: usize) -> Vec<Result<Response>> {
        let patience = self.patience;
        let work = move || {
            new_runtime().map(|it| it.block_on(fetch_many(question, count, concurrency, patience)))
        };
        // A thread of its own, so that the namespace stays free for other jobs.
        let joined = self
            .host
            .namespace()
            .thread("get", work)
            .map(std::thread::JoinHandle::join);
        match joined {
            Ok(Ok(Ok(responses))) => responses,
            Ok(Ok(Err(error))) | Err(error) => vec![Err(error)],
            Ok(Err(payload)) => std::panic::resume_unwind(payload),
        }
    }

    /// Asks the DNS server at `to` `count` times by UDP, each from a source port of its own, who it is.
    pub fn ask_dns(&self, to: IpAddr, count: usize) -> Result<Vec<String>> {
        dns::ask(&self.host, to, count, self.patience)
    }

    /// Starts `count` downloads of `path` in the background.
    pub fn download(&self, to: SocketAddr, path: &str, count: usize) -> Result<Downloads> {
        Downloads::start(&self.host, to, path, count)
    }

    /// Loads `http://TO/` with `connections` kept-alive connections of wrk for whole seconds.
    pub fn wrk(&self, to: SocketAddr, connections: usize, duration: Duration) -> Result<Load> {
        let mut command = Tools::new()?.command("wrk")?;
        command.args(["--threads", "1", "--latency"]);
        command.arg(format!("--connections={connections}"));
        command.arg(format!("--duration={}s", duration.as_secs().max(1)));
        command.arg(format!("http://{to}/"));
        let report = self.host.namespace().check(&mut command)?;
        let requests_per_second = parse_rate(&report)
            .with_context(|| format!("wrk printed no requests per second:\n{report}"))?;
        Ok(Load {
            requests_per_second,
            report,
        })
    }
}

fn parse_rate(report: &str) -> Option<f64> {
    report
        .lines()
        .find_map(|line| line.strip_prefix("Requests/sec:"))?
        .trim()
        .parse()
        .ok()
}

/// A runtime for the calling thread; its sockets are in that thread's namespace.
pub(super) fn new_runtime() -> Result<Runtime> {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start tokio")
}

/// Connects, asks, and returns the answer's head with its body still to come.
pub(super) async fn request(
    question: &Question,
) -> Result<(SocketAddr, hyper::Response<Incoming>)> {
    let Question { to, path, body } = question;
    let stream = TcpStream::connect(to)
        .await
        .with_context(|| format!("cannot connect to {to}"))?;
    let local = stream
        .local_addr()
        .context("a connection without an address")?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its errors come out at the request and its body.
    tokio::spawn(connection);
    let method = if body.is_some() {
        Method::POST
    } else {
        Method::GET
    };
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, to.to_string())
        .header(CONNECTION, "close")
        .body(Full::new(body.clone().unwrap_or_default()))
        .with_context(|| format!("{path} is no path"))?;
    let response = sender
        .send_request(request)
        .await
        .with_context(|| format!("no answer from {to} to {local}"))?;
    Ok((local, response))
}

/// The backend that says to have sent an answer.
pub(super) fn backend_of<B>(response: &hyper::Response<B>) -> Option<String> {
    Some(
        response
            .headers()
            .get("x-backend")?
            .to_str()
            .ok()?
            .to_owned(),
    )
}

async fn fetch_many(
    question: Question,
    count: usize,
    concurrency: usize,
    patience: Duration,
) -> Vec<Result<Response>> {
    let (to, question) = (question.to, Arc::new(question));
    let taken = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..concurrency.clamp(1, count.max(1)) {
        let (question, taken) = (Arc::clone(&question), Arc::clone(&taken));
        workers.spawn(async move {
            let mut responses = Vec::new();
            while taken.fetch_add(1, Ordering::Relaxed) < count {
                let outcome = tokio::time::timeout(patience, fetch(&question)).await;
                responses.push(outcome.unwrap_or_else(|_| {
                    Err(anyhow::anyhow!(
                        "no whole answer from {to} within {patience:?}"
                    ))
                }));
            }
            responses
        });
    }
    workers.join_all().await.into_iter().flatten().collect()
}

async fn fetch(question: &Question) -> Result<Response> {
    let to = question.to;
    let (local, response) = request(question).await?;
    let (status, backend) = (response.status().as_u16(), backend_of(&response));
    let body = response
        .into_body()
        .collect()
        .await
        .with_context(|| format!("the answer from {to} to {local} broke off"))?;
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    Ok(Response {
        status,
        backend,
        local,
        body,
    })
}

#[cfg(test)]
mod tests {
    use super::parse_rate;

    #[test]
    fn the_rate_is_read_from_what_wrk_prints() {
        let report = "  2 requests in 1.00s\nRequests/sec:  61234.56\nTransfer/sec: 9.99MB\n";
        assert_eq!(parse_rate(report), Some(61234.56));
        assert_eq!(parse_rate("unable to connect"), None);
    }
}
