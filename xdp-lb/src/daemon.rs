//! `xdp-lb run`: starts everything, waits for signals, and leaves packets flowing when it stops.

use std::path::PathBuf;

use anyhow::Context as _;
use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::geteuid,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use crate::{
    api::{self, Socket},
    config::Config,
    director::{Director, DirectorHandle, Ended, Paths, chain},
};

/// What `xdp-lb run` is told on the command line.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Config file, pin directory, state directory.
    pub paths: Paths,
    /// The UNIX socket.
    pub socket: PathBuf,
    /// Take program and pins away when stopping.
    pub detach_on_exit: bool,
}

/// Runs until SIGTERM or SIGINT, or until asked to detach.
///
/// # Errors
///
/// If it cannot start.
pub async fn run(options: RunOptions, config: Config) -> anyhow::Result<()> {
    std::fs::create_dir_all(&options.paths.state)
        .with_context(|| format!("state directory {}", options.paths.state.display()))?;
    lift_file_limit();
    let mut socket = Socket::open(&options.socket)?;
    let metrics = config.metrics;
    let director = Director::start(options.paths.clone(), config)
        .await
        .map_err(needs_root)?;
    let (handle, mut task) = director.spawn();
    if let Some(address) = metrics {
        api::serve_tcp(address, api::metrics_router(handle.clone())).await?;
    }
    info!(socket = %options.socket.display(), "listening");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut serving = Box::pin(socket.serve(api::router(handle.clone())));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload(&handle).await,
            ended = &mut task => {
                // The answer to the one who asked is still on its way.
                let grace = std::time::Duration::from_millis(200);
                let _ = tokio::time::timeout(grace, &mut serving).await;
                return finish(ended);
            }
            served = &mut serving => served.context("serving the socket")?,
        }
    }
    if options.detach_on_exit {
        handle.detach().await?;
        info!("detached; traffic to VIPs goes to the kernel");
    } else {
        // Packets that still come are forwarded, so nobody has to wait for the successor.
        handle.vrrp().leave(false).await;
        info!(
            pins = %options.paths.pins.path().display(),
            "stopping; packets go on flowing, `xdp-lb detach` ends that"
        );
    }
    Ok(())
}

/// Each health check that is under way is an open file. Where the limit cannot be lifted, there are fewer
/// at once.
fn lift_file_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Says so where the likely reason of a failure is that this is not root.
pub(crate) fn needs_root(error: anyhow::Error) -> anyhow::Error {
    if geteuid().is_root() {
        return error;
    }
    error.context("not running as root, which loading and attaching an XDP program takes")
}

fn finish(ended: Result<Ended, tokio::task::JoinError>) -> anyhow::Result<()> {
    match ended {
        Ok(Ended::Detached) => info!("detached; traffic to VIPs goes to the kernel"),
        Ok(Ended::Abandoned) => {}
        Err(error) => return Err(error).context("the director's task"),
    }
    Ok(())
}

async fn reload(handle: &DirectorHandle) {
    match handle.reload().await {
        Ok(change) => change.notes.iter().for_each(|note| warn!("{note}")),
        Err(error) => error!("config not taken: {}", chain(&error)),
    }
}
