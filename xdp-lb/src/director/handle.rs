//! How others talk to the director.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use futures_util::future::try_join_all;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::{
    Change, ChangeError,
    flows::FlowFilter,
    health_view::Pending,
    sweep::Sweep,
    view::{
        BackendView, ChangeView, CheckedView, FlowCountView, FlowsView, ForgottenView, HealthView,
        ServiceView, StatsView, StatusView,
    },
};
use crate::{
    config::{self, Config},
    dataplane::Removed,
    vrrp::Vrrp,
};

/// After flows were counted for metrics, they are not counted again for so many times as long as it took: however
/// large the table is, and whoever asks how often, that takes 2 % of a processor at the most.
const REST: u32 = 50;

type Reply<T> = oneshot::Sender<Result<T, ChangeError>>;

/// What the director can be asked.
pub(super) enum Request {
    Status(Reply<StatusView>),
    Services(Reply<Vec<ServiceView>>),
    Backends {
        service: Option<String>,
        reply: Reply<Vec<BackendView>>,
    },
    Stats(Reply<StatsView>),
    Health {
        service: Option<String>,
        reply: Reply<Vec<HealthView>>,
    },
    CheckHealth {
        service: Option<String>,
        backend: IpAddr,
        now: bool,
        reply: Reply<Vec<Pending>>,
    },
    /// The next part of the flow table.
    Flows {
        sweep: Box<Sweep>,
        reply: Reply<Box<Sweep>>,
    },
    Change {
        service: String,
        address: IpAddr,
        change: Change,
        reply: Reply<ChangeView>,
    },
    Reload {
        config: Box<Config>,
        reply: Reply<ChangeView>,
    },
    Detach(Reply<Removed>),
}

/// Asks the director. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DirectorHandle {
    requests: mpsc::Sender<Request>,
    config: Arc<Path>,
    vrrp: Vrrp,
    counted: Arc<Mutex<Option<Counted>>>,
}

/// Flows that were counted for metrics.
#[derive(Debug)]
struct Counted {
    flows: Arc<FlowCountView>,
    holds_until: Instant,
}

impl DirectorHandle {
    pub(super) fn new(requests: mpsc::Sender<Request>, config: PathBuf, vrrp: Vrrp) -> Self {
        Self {
            requests,
            config: config.into(),
            vrrp,
            counted: Arc::default(),
        }
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, ChangeError> {
        let gone = || ChangeError::Refused("the daemon is stopping".into());
        let (reply, answer) = oneshot::channel();
        self.requests
            .send(request(reply))
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// What runs, and where.
    ///
    /// # Errors
    ///
    /// If the daemon is stopping.
    pub async fn status(&self) -> Result<StatusView, ChangeError> {
        self.ask(Request::Status).await
    }

    /// All services.
    ///
    /// # Errors
    ///
    /// If counters cannot be read.
    pub async fn services(&self) -> Result<Vec<ServiceView>, ChangeError> {
        self.ask(Request::Services).await
    }

    /// The backends of a service, or of all.
    ///
    /// # Errors
    ///
    /// If there is no such service, or counters cannot be read.
    pub async fn backends(&self, service: Option<String>) -> Result<Vec<BackendView>, ChangeError> {
        self.ask(|reply| Request::Backends { service, reply }).await
    }

    /// All counters.
    ///
    /// # Errors
    ///
    /// If counters cannot be read.
    pub async fn stats(&self) -> Result<StatsView, ChangeError> {
        self.ask(Request::Stats).await
    }

    /// What health checks tell of the backends of a service, or of all.
    ///
    /// # Errors
    ///
    /// If there is no such service.
    pub async fn health(&self, service: Option<String>) -> Result<Vec<HealthView>, ChangeError> {
        self.ask(|reply| Request::Health { service, reply }).await
    }

    /// Waits for the next results of a backend's health checks, those of one service or of all; they are
    /// run at once if `now`.
    ///
    /// # Errors
    ///
    /// If there is no such service or check, or if no result comes in time.
    pub async fn check_health(
        &self,
        service: Option<String>,
        backend: IpAddr,
        now: bool,
    ) -> Result<Vec<CheckedView>, ChangeError> {
        let pending = self
            .ask(|reply| Request::CheckHealth {
                service,
                backend,
                now,
                reply,
            })
            .await?;
        try_join_all(pending.into_iter().map(Pending::result)).await
    }

    /// The first of the remembered flows that `filter` means, and how many there are.
    ///
    /// # Errors
    ///
    /// If the filter makes no sense, or there is no such service or backend.
    pub async fn flows(&self, filter: FlowFilter) -> Result<FlowsView, ChangeError> {
        Ok(self.sweep(Sweep::to_list(filter)?).await?.into_list())
    }

    /// How many remembered flows `filter` means, by backend.
    ///
    /// # Errors
    ///
    /// As [`flows`](Self::flows).
    pub async fn count_flows(&self, filter: FlowFilter) -> Result<FlowCountView, ChangeError> {
        Ok(self.sweep(Sweep::to_count(filter)?).await?.into_counts())
    }

    /// How many remembered flows there are, lately: for those who ask often.
    ///
    /// # Errors
    ///
    /// If the daemon is stopping.
    pub async fn flows_lately(&self) -> Result<Arc<FlowCountView>, ChangeError> {
        let mut counted = self.counted.lock().await;
        let begun = Instant::now();
        if let Some(known) = counted.as_ref().filter(|it| begun < it.holds_until) {
            return Ok(Arc::clone(&known.flows));
        }
        let flows = Arc::new(self.count_flows(FlowFilter::default()).await?);
        *counted = Some(Counted {
            flows: Arc::clone(&flows),
            holds_until: Instant::now() + begun.elapsed() * REST,
        });
        Ok(flows)
    }

    /// Forgets the flows that `filter` means: their next packets go by slot. Without any filter, only if `all`.
    ///
    /// # Errors
    ///
    /// As [`flows`](Self::flows).
    pub async fn forget_flows(
        &self,
        filter: FlowFilter,
        all: bool,
    ) -> Result<ForgottenView, ChangeError> {
        let sweep = self.sweep(Sweep::to_flush(filter, all)?).await?;
        Ok(sweep.into_forgotten())
    }

    /// Goes through the flow table, part by part, so that the director does other things in between.
    async fn sweep(&self, sweep: Sweep) -> Result<Sweep, ChangeError> {
        let mut sweep = Box::new(sweep);
        while !sweep.is_done() {
            sweep = self.ask(|reply| Request::Flows { sweep, reply }).await?;
        }
        Ok(*sweep)
    }

    /// Changes a backend; in force when this returns, and after a restart.
    ///
    /// # Errors
    ///
    /// If it is refused or fails; then nothing has changed.
    pub async fn change(
        &self,
        service: String,
        address: IpAddr,
        change: Change,
    ) -> Result<ChangeView, ChangeError> {
        self.ask(|reply| Request::Change {
            service,
            address,
            change,
            reply,
        })
        .await
    }

    /// Reads the config file again.
    ///
    /// # Errors
    ///
    /// If it is refused or fails; then nothing has changed.
    pub async fn reload(&self) -> Result<ChangeView, ChangeError> {
        let path = Arc::clone(&self.config);
        // A file of the largest size keeps a processor busy for a second.
        let config = tokio::task::spawn_blocking(move || config::load(&path))
            .await
            .map_err(|error| ChangeError::Refused(error.to_string()))??;
        self.ask(|reply| Request::Reload {
            config: Box::new(config),
            reply,
        })
        .await
    }

    /// VRRP, which answers by itself: whatever the director is at.
    #[must_use]
    pub fn vrrp(&self) -> &Vrrp {
        &self.vrrp
    }

    /// Takes program and pins away and ends the director.
    ///
    /// # Errors
    ///
    /// If a pin cannot be removed.
    pub async fn detach(&self) -> Result<Removed, ChangeError> {
        self.ask(Request::Detach).await
    }
}
