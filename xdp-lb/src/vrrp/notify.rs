//! Telling others of a change of state, by a program of theirs.

use std::{process::Stdio, sync::Arc, time::Duration};

use tokio::{process::Command, sync::watch, time::timeout};
use tracing::{debug, warn};

use super::machine::State;

/// How long a program may take; it is killed then.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    /// The program and its arguments.
    pub(super) command: Vec<String>,
    /// Of which entry.
    pub(super) name: String,
    pub(super) is_ipv6: bool,
    pub(super) state: State,
    /// The priority in force.
    pub(super) priority: u8,
}

/// Starts a program for each change, one after another. Where states change faster than programs end, those
/// between are left out: the last one that is told is the one in force.
#[derive(Debug)]
pub(super) struct Notifier(watch::Sender<Option<Arc<Notice>>>);

impl Notifier {
    /// Begins, on a task that ends with what is returned.
    pub(super) fn start() -> Self {
        let (sender, mut notices) = watch::channel(None::<Arc<Notice>>);
        tokio::spawn(async move {
            while notices.changed().await.is_ok() {
                let notice = notices.borrow_and_update().clone();
                if let Some(notice) = notice {
                    run(&notice).await;
                }
            }
        });
        Self(sender)
    }

    pub(super) fn tell(&self, notice: Notice) {
        self.0.send_replace(Some(Arc::new(notice)));
    }
}

async fn run(notice: &Notice) {
    let Some((program, arguments)) = notice.command.split_first() else {
        return;
    };
    let started = Command::new(program)
        .args(arguments)
        .env("XDP_LB_VRRP_NAME", &notice.name)
        .env("XDP_LB_VRRP_FAMILY", family(notice.is_ipv6))
        .env("XDP_LB_VRRP_STATE", notice.state.name())
        .env("XDP_LB_VRRP_PRIORITY", notice.priority.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let name = &notice.name;
    let mut child = match started {
        Ok(child) => child,
        Err(error) => return warn!(name, program, %error, "notify: the program does not start"),
    };
    match timeout(PATIENCE, child.wait()).await {
        Ok(Ok(status)) if status.success() => debug!(name, program, "notified"),
        Ok(Ok(status)) => warn!(name, program, %status, "notify: the program failed"),
        Ok(Err(error)) => warn!(name, program, %error, "notify"),
        Err(_) => warn!(
            name,
            program, "notify: the program did not end within 30 s and was killed"
        ),
    }
}

/// The word for an address family.
pub(super) const fn family(is_ipv6: bool) -> &'static str {
    if is_ipv6 { "ipv6" } else { "ipv4" }
}
