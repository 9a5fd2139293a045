//! Long downloads in the background: which backend serves each, and whether it ran to its end.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::client::{Question, backend_of, new_runtime, request};
use super::host::Host;
use super::process::wait_for;

/// A connection on which nothing comes for so long counts as broken.
const STALL: Duration = Duration::from_secs(30);

/// One download, as far as it has come.
#[derive(Clone, Debug, Default)]
pub struct Download {
    /// The backend that serves it; `None` until its answer begins.
    pub backend: Option<String>,
    /// The client's end of the connection.
    pub local: Option<SocketAddr>,
    /// The bytes of the body received so far.
    pub received: u64,
    /// The bytes that the answer promised.
    pub expected: Option<u64>,
    /// How it ended; `None` while it runs.
    pub end: Option<End>,
}

/// How a download ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Every promised byte came.
    Complete,
    /// It broke, for this reason.
    Broken(String),
}

impl Download {
    /// Whether every promised byte came.
    pub fn is_complete(&self) -> bool {
        self.end == Some(End::Complete)
    }
}

/// Downloads that run on a thread of their own; dropping it breaks them off.
#[derive(Debug)]
pub struct Downloads {
    board: Board,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Downloads {
    pub(super) fn start(host: &Host, to: SocketAddr, path: &str, count: usize) -> Result<Self> {
        let board = Board(Arc::new(Mutex::new(vec![Download::default(); count])));
        let (stop, stopped) = oneshot::channel();
        let (shared, path) = (board.clone(), path.to_owned());
        let thread = host.namespace().thread("download", move || {
            new_runtime()?.block_on(async {
                let mut tasks = JoinSet::new();
                for index in 0..count {
                    tasks.spawn(follow(shared.clone(), index, to, path.clone()));
                }
                tokio::select! {
                    _ = tasks.join_all() => {}
                    _ = stopped => {}
                }
            });
            Ok(())
        })?;
        Ok(Self {
            board,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// How far each download has come.
    pub fn progress(&self) -> Vec<Download> {
        self.board.all()
    }

    /// Waits until every download has received part of its body; fails if one ends before that.
    pub fn wait_until_running(&self, patience: Duration) -> Result<()> {
        wait_for("all downloads to run", patience, || {
            let all = self.progress();
            if let Some(broken) = all.iter().find(|it| it.end.is_some() && !it.is_complete()) {
                bail!("a download broke at once: {broken:?}");
            }
            Ok(all.iter().all(|it| it.received > 0).then_some(()))
        })
    }

    /// Waits until all downloads have ended; those still running after `patience` are broken off.
    pub fn wait(mut self, patience: Duration) -> Result<Vec<Download>> {
        let deadline = Instant::now() + patience;
        while self.thread.as_ref().is_some_and(|it| !it.is_finished()) && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.finish()?;
        let mut all = self.board.all();
        for download in all.iter_mut().filter(|it| it.end.is_none()) {
            download.end = Some(End::Broken(format!("not done within {patience:?}")));
        }
        Ok(all)
    }

    fn finish(&mut self) -> Result<()> {
        // The thread does not listen any more when all downloads have ended.
        let _ = self.stop.take().map(|stop| stop.send(()));
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(payload)) => std::panic::resume_unwind(payload),
            Some(Ok(outcome)) => outcome,
            None => Ok(()),
        }
    }
}

impl Drop for Downloads {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // Errors have been reported by `wait`, or nobody asked.
            let _ = self.finish();
        }
    }
}

/// Where the downloads write down how far they have come.
#[derive(Clone, Debug)]
struct Board(Arc<Mutex<Vec<Download>>>);

impl Board {
    fn all(&self) -> Vec<Download> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn update(&self, index: usize, change: impl FnOnce(&mut Download)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner)[index]);
    }
}

async fn follow(board: Board, index: usize, to: SocketAddr, path: String) {
    let end = match receive(&board, index, to, &path).await {
        Ok(()) => End::Complete,
        Err(error) => End::Broken(format!("{error:#}")),
    };
    board.update(index, |download| download.end = Some(end));
}

async fn receive(board: &Board, index: usize, to: SocketAddr, path: &str) -> Result<()> {
    let question = Question {
        to,
        path: path.to_owned(),
        body: None,
    };
    let (local, response) = timeout(STALL, request(&question))
        .await
        .context("no answer")??;
    let (status, backend) = (response.status(), backend_of(&response));
    let mut body = response.into_body();
    let expected = body.size_hint().exact();
    board.update(index, |download| {
        (download.local, download.backend, download.expected) = (Some(local), backend, expected);
    });
    if !status.is_success() {
        bail!("{to} answered {path} with {status}");
    }
    let mut received = 0u64;
    while let Some(frame) = timeout(STALL, body.frame()).await.context("stalled")? {
        let frame = frame.context("the connection broke")?;
        received += frame.data_ref().map_or(0, |data| data.len() as u64);
        board.update(index, |download| download.received = received);
    }
    match expected {
        Some(expected) if expected != received => bail!("{received} of {expected} bytes"),
        _ => Ok(()),
    }
}
