//! What health checks tell, in the shapes of [`view`](super::view).

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{sync::oneshot, time::timeout};

use super::{
    ChangeError, Director,
    view::{CheckedView, EventView, FailureView, HealthView, ResultView},
};
use crate::health::{Check, Kind, Outcome, State, Status};

/// Beyond the time that a check takes, how long its result is waited for: it may wait for others.
const PATIENCE: Duration = Duration::from_secs(5);

/// The state of a backend whose tables do not follow its check yet.
const PENDING: &str = "pending";

/// A check whose next result was asked for.
pub(super) struct Pending {
    service: String,
    backend: IpAddr,
    check: Arc<Check>,
    now: bool,
    outcome: oneshot::Receiver<Outcome>,
}

impl Director {
    /// What is known of the backends of a service, or of all, that have a check.
    pub(super) fn health(&self, only: Option<&str>) -> Result<Vec<HealthView>, ChangeError> {
        if let Some(name) = only {
            self.find_service(name)?;
        }
        let checks = self.checks_of(only, None);
        Ok(checks
            .map(|(service, backend, check)| {
                let mut view = view(service, backend, &check);
                if self.is_up_in_tables(service, backend) != Some(check.is_up()) {
                    view.state = PENDING.into();
                }
                view
            })
            .collect())
    }

    /// Whether the tables have the backend as one that can serve; None where they do not know it yet.
    fn is_up_in_tables(&self, service: &str, backend: IpAddr) -> Option<bool> {
        let mut services = self.applied.iter();
        let service = services.find(|it| it.name == service)?;
        let backend = service.backends.get(&backend)?;
        Some(backend.health.is_up())
    }

    /// Asks for the next result of all checks of a backend, at once if `now`.
    pub(super) fn check_health(
        &self,
        only: Option<&str>,
        backend: IpAddr,
        now: bool,
    ) -> Result<Vec<Pending>, ChangeError> {
        if let Some(name) = only {
            self.find_service(name)?;
        }
        let checks = self.checks_of(only, Some(backend));
        let pending: Vec<_> = checks
            .filter_map(|(service, backend, check)| {
                Some(Pending {
                    service: service.to_owned(),
                    backend,
                    outcome: self.health.report(check.key(), now)?,
                    check,
                    now,
                })
            })
            .collect();
        if pending.is_empty() {
            let of = only.map_or_else(|| "any service".into(), |name| format!("service `{name}`"));
            return Err(ChangeError::NoCheck { of, backend });
        }
        Ok(pending)
    }

    /// The checks with the services and backends that they tell about.
    fn checks_of(
        &self,
        service: Option<&str>,
        backend: Option<IpAddr>,
    ) -> impl Iterator<Item = (&str, IpAddr, Arc<Check>)> {
        let services = self.config.services.iter();
        let services = services.filter(move |it| service.is_none_or(|name| name == it.name));
        services.flat_map(move |service| {
            let backends = self
                .overrides
                .effective(service)
                .map(|(address, _)| address);
            let mut backends: Vec<_> = backends
                .filter(|address| backend.is_none_or(|only| only == *address))
                .collect();
            backends.sort_unstable();
            backends.into_iter().filter_map(|address| {
                let check = self.health.check_of(service, address)?;
                Some((service.name.as_str(), address, Arc::clone(check)))
            })
        })
    }
}

impl Pending {
    /// Waits for the result.
    pub(super) async fn result(self) -> Result<CheckedView, ChangeError> {
        let pace = self.check.key().check.pace;
        let turn = if self.now {
            Duration::ZERO
        } else {
            pace.interval * 2
        };
        let outcome = timeout(turn + pace.timeout + PATIENCE, self.outcome).await;
        let backend = self.backend;
        let outcome = outcome
            .map_err(|_| {
                ChangeError::Refused(format!(
                    "the check of {backend} has not ended in time: too many checks are waiting; \
                     `xdp-lb health list` shows the last results"
                ))
            })?
            .map_err(|_| {
                ChangeError::Refused(format!("the check of {backend} has just been taken away"))
            })?;
        Ok(CheckedView {
            service: self.service,
            backend,
            check: self.check.key().to_string(),
            result: result(&outcome),
            state: state(&self.check.status()).into(),
        })
    }
}

fn view(service: &str, backend: IpAddr, check: &Check) -> HealthView {
    let status = check.status();
    let now = Instant::now();
    let failed: BTreeMap<_, _> = Kind::ALL
        .iter()
        .zip(status.failed)
        .filter(|(_, count)| *count > 0)
        .map(|(kind, count)| (kind.name().to_owned(), count))
        .collect();
    HealthView {
        service: service.to_owned(),
        backend,
        check: check.key().to_string(),
        state: state(&status).into(),
        since_seconds: status
            .since
            .map(|since| now.saturating_duration_since(since).as_secs()),
        held_seconds: held(&status).map(|until| until.saturating_duration_since(now).as_secs()),
        last: status.last.as_ref().map(result),
        last_failure: status.last_failure.as_ref().map(|(at, cause)| FailureView {
            at: unix(*at),
            cause: cause.to_string(),
        }),
        passed: status.passed,
        failed,
        history: status
            .history
            .iter()
            .map(|event| EventView {
                at: unix(event.at),
                to: event.to.name().into(),
                cause: event.cause.as_ref().map(ToString::to_string),
            })
            .collect(),
    }
}

fn state(status: &Status) -> &'static str {
    match status.state {
        State::Up => "up",
        State::Down if status.last.is_none() => "unchecked",
        State::Down if !status.is_decided => "checking",
        State::Down if held(status).is_some() => "held",
        State::Down => "down",
    }
}

/// Until when it is held down, if it is.
fn held(status: &Status) -> Option<Instant> {
    status
        .held_until
        .filter(|until| status.state == State::Down && *until > Instant::now())
}

fn result(outcome: &Outcome) -> ResultView {
    ResultView {
        passed: outcome.result.is_ok(),
        cause: outcome.result.as_ref().err().map(ToString::to_string),
        took_microseconds: u64::try_from(outcome.took.as_micros()).unwrap_or(u64::MAX),
        ago_milliseconds: u64::try_from(outcome.at.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

/// Seconds since 1970.
fn unix(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
