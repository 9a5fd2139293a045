//! Clients that a failover must not harm: connections that are held, and connections that are opened all
//! the time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::client::{backend_of, new_runtime};
use super::host::Host;

/// How long an answer may take: what is lost is sent again after twice the time, each time.
const PATIENCE: Duration = Duration::from_secs(30);

/// Idle connections, each of which has been answered once.
#[derive(Debug)]
pub struct Held {
    ask: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<Vec<Result<()>>>>>,
}

impl Held {
    /// Opens `count` connections from a host, and waits until each has been answered.
    pub fn open(host: &Host, to: SocketAddr, count: usize) -> Result<Self> {
        let (ask, asked) = oneshot::channel();
        let (opened, is_open) = std::sync::mpsc::channel();
        let thread = host.namespace().thread("held", move || {
            new_runtime()?.block_on(async {
                let mut connections = Vec::new();
                for _ in 0..count {
                    let mut sender = connect(to).await?;
                    let backend = get(&mut sender, to).await?;
                    connections.push((sender, backend));
                }
                opened.send(())?;
                asked.await?;
                let mut results = Vec::new();
                for (mut sender, before) in connections {
                    results.push(match get(&mut sender, to).await {
                        Ok(now) if now == before => Ok(()),
                        Ok(now) => Err(anyhow!("{now} answers for {before}")),
                        Err(error) => Err(error),
                    });
                }
                Ok(results)
            })
        })?;
        let held = Self {
            ask: Some(ask),
            thread: Some(thread),
        };
        match is_open.recv_timeout(PATIENCE * 2) {
            Ok(()) => Ok(held),
            // The thread knows more.
            Err(_) => held.check().and(Err(anyhow!("connections take too long"))),
        }
    }

    /// Asks once more over each of them: how many there are. Fails unless the same backend answers each.
    pub fn check(mut self) -> Result<usize> {
        let _ = self.ask.take().map(|ask| ask.send(()));
        let thread = self.thread.take().context("asked twice")?;
        let results = thread.join().map_err(|_| anyhow!("the thread failed"))??;
        let count = results.len();
        let broken: Vec<_> = results.into_iter().filter_map(Result::err).collect();
        let example = broken.first().map(ToString::to_string).unwrap_or_default();
        ensure!(
            broken.is_empty(),
            "{} of {count} connections broke, say by: {example}",
            broken.len()
        );
        Ok(count)
    }
}

/// What has become of connections that were opened all the time.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// How many.
    pub count: usize,
    /// Why some failed.
    pub failures: Vec<String>,
    /// The longest time until an answer was whole.
    pub longest: Duration,
}

/// A client that opens connections all the time.
#[derive(Debug)]
pub struct Opener {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Opened>>>,
}

impl Opener {
    /// Opens so many connections a second from a host, and asks once over each.
    pub fn start(host: &Host, to: SocketAddr, per_second: u32) -> Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = host.namespace().thread("opener", move || {
            new_runtime()?.block_on(async {
                let mut pace = interval(Duration::from_secs(1) / per_second);
                pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
                let mut tasks = JoinSet::new();
                while !over.load(Ordering::Relaxed) {
                    pace.tick().await;
                    tasks.spawn(async move {
                        let begun = Instant::now();
                        let asked = async { get(&mut connect(to).await?, to).await };
                        (asked.await, begun.elapsed())
                    });
                }
                let mut opened = Opened::default();
                for (result, took) in tasks.join_all().await {
                    opened.count += 1;
                    opened.longest = opened.longest.max(took);
                    opened
                        .failures
                        .extend(result.err().map(|error| format!("{error:#}")));
                }
                Ok(opened)
            })
        })?;
        Ok(Self {
            is_over,
            thread: Some(thread),
        })
    }

    /// Stops, and waits for the last answers.
    pub fn finish(mut self) -> Result<Opened> {
        self.is_over.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("finished twice")?;
        thread.join().map_err(|_| anyhow!("the thread failed"))?
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

type Sender = SendRequest<Empty<Bytes>>;

async fn connect(to: SocketAddr) -> Result<Sender> {
    let stream = timeout(PATIENCE, TcpStream::connect(to))
        .await
        .context("connecting took too long")??;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its errors come out at the request.
    tokio::spawn(connection);
    Ok(sender)
}

/// Who answers.
async fn get(sender: &mut Sender, to: SocketAddr) -> Result<String> {
    let request = hyper::Request::get("/")
        .header("Host", to.to_string())
        .body(Empty::new())?;
    let asked = async {
        let response = sender.send_request(request).await?;
        ensure!(response.status() == 200, "status {}", response.status());
        let backend = backend_of(&response).context("no backend named")?;
        response.into_body().collect().await?;
        Ok(backend)
    };
    timeout(PATIENCE, asked).await.context("no answer")?
}
