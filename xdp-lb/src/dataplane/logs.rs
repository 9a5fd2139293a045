//! What the program logs (rare events, never one a packet) goes to the daemon's log.

use std::io;

use aya_log::EbpfLogger;
use tokio::io::unix::AsyncFd;
use tracing::warn;

use super::Dataplane;

type Logger = AsyncFd<EbpfLogger<&'static dyn log::Log>>;

impl Dataplane {
    /// Begins to hand on what the program logs, on a task of its own. Without it everything works,
    /// so its failure is only told.
    ///
    /// # Panics
    ///
    /// If there is no tokio runtime.
    pub fn follow_logs(&mut self) {
        let follow = EbpfLogger::init(&mut self.ebpf)
            .map_err(io::Error::other)
            .and_then(|logger| {
                // SAFETY: the logger owns the ring buffer's file descriptor and keeps it open for as
                // long as it lives, and it is handed over whole.
                unsafe { AsyncFd::register(logger) }
                    .map_err(|error| io::Error::other(error.to_string()))
            });
        match follow {
            Ok(logger) => drop(tokio::spawn(hand_on(logger))),
            Err(error) => warn!(%error, "what the XDP program logs is not shown"),
        }
    }
}

async fn hand_on(mut logger: Logger) {
    while let Ok(mut ready) = logger.readable_mut().await {
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}
