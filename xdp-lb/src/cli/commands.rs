//! What the commands do: one call of the API each, and its answer shown.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    time::Duration,
};

use hyper::Method;
use serde::Serialize;

use super::{
    Backend, BackendOf, Command, Health, Service, Vrrp,
    flows::{self, Flow},
    health, tables, vrrp,
};
use crate::{
    api::{
        AddBackend, ChangeBackend, CheckHealth, Detached, ForgetFlows,
        client::{Client, ClientError},
    },
    dataplane::{PinDirectory, User},
    director::view::{
        BackendView, ChangeView, CheckedView, FlowCountView, FlowsView, ForgottenView, HealthView,
        ServiceView, StatsView, StatusView,
    },
    vrrp::{Change, view::VrrpView},
};

/// How often `stats --watch` looks.
const WATCH: Duration = Duration::from_secs(1);

/// A daemon to talk to, and the way its answers are shown.
pub(super) struct Session {
    client: Client,
    json: bool,
}

impl Session {
    pub(super) fn new(socket: PathBuf, json: bool) -> Self {
        Self {
            client: Client::new(socket),
            json,
        }
    }

    pub(super) async fn run(&self, command: Command) -> anyhow::Result<()> {
        match command {
            Command::Status => {
                self.show(&self.get::<StatusView>("/v1/status").await?, tables::status)
            }
            Command::Service(Service::List) => self.show(
                &self.get::<Vec<ServiceView>>("/v1/services").await?,
                |views| tables::services(views),
            ),
            Command::Service(Service::Show { name }) => self.service(&name).await,
            Command::Backend(command) => self.backend(command).await,
            Command::Health(command) => self.health(command).await,
            Command::Flow(command) => self.flow(command).await,
            Command::Vrrp(command) => self.vrrp(command).await,
            Command::Stats { watch: true, all } => self.watch(all).await,
            Command::Stats { watch: false, all } => {
                let stats: StatsView = self.get("/v1/stats").await?;
                self.show(&stats, |stats| tables::stats(stats, all))
            }
            Command::Config(_) => {
                let change: ChangeView = self.post("/v1/config/reload", &()).await?;
                self.show(&change, |change| {
                    tables::change("config read again", change)
                })
            }
            Command::Detach { pin_dir } => self.detach(pin_dir).await,
            Command::Run(_) | Command::Decap(_) | Command::Completions { .. } => Ok(()),
        }
    }

    async fn service(&self, name: &str) -> anyhow::Result<()> {
        // Fails with a list of the services where there is none of this name.
        let backends: Vec<BackendView> = self.get(&of("backends", Some(name))).await?;
        let services: Vec<ServiceView> = self.get("/v1/services").await?;
        let service = services
            .into_iter()
            .find(|service| service.name == name)
            .ok_or_else(|| anyhow::anyhow!("service `{name}` has just gone"))?;
        self.show(&ServiceWithBackends { service, backends }, |view| {
            format!(
                "{}\n\n{}",
                tables::service(&view.service),
                tables::backends(&view.backends)
            )
        })
    }

    async fn backend(&self, command: Backend) -> anyhow::Result<()> {
        let changed = |of: &BackendOf, what: &str| format!("{}: {} {what}", of.service, of.address);
        let (done, change): (String, ChangeView) = match command {
            Backend::List { service } => {
                let views: Vec<BackendView> = self.get(&of("backends", service.as_deref())).await?;
                return self.show(&views, |views| tables::backends(views));
            }
            Backend::Add { of, weight } => {
                let path = format!("/v1/services/{}/backends", escaped(&of.service));
                let body = AddBackend {
                    address: of.address,
                    weight,
                };
                (changed(&of, "added"), self.post(&path, &body).await?)
            }
            Backend::Set { of, weight } => {
                let body = ChangeBackend {
                    weight: Some(weight),
                    draining: None,
                };
                (
                    changed(&of, &format!("has weight {weight}")),
                    self.patch(&of, &body).await?,
                )
            }
            Backend::Drain(of) => {
                let body = ChangeBackend {
                    weight: None,
                    draining: Some(true),
                };
                (
                    changed(&of, "drains: no new connections"),
                    self.patch(&of, &body).await?,
                )
            }
            Backend::Enable(of) => {
                let body = ChangeBackend {
                    weight: None,
                    draining: Some(false),
                };
                (
                    changed(&of, "gets new connections"),
                    self.patch(&of, &body).await?,
                )
            }
            Backend::Remove(of) => {
                let change = self
                    .client
                    .call(Method::DELETE, &path_of(&of), None::<&()>)
                    .await?;
                (changed(&of, "removed"), change)
            }
        };
        self.show(&change, |change| tables::change(&done, change))
    }

    async fn health(&self, command: Health) -> anyhow::Result<()> {
        match command {
            Health::List { service } => {
                let views: Vec<HealthView> = self.get(&of("health", service.as_deref())).await?;
                self.show(&views, |views| health::list(views))
            }
            Health::Show { backend } => {
                let mut views: Vec<HealthView> = self.get(&of("health", None)).await?;
                views.retain(|view| view.backend == backend);
                anyhow::ensure!(
                    !views.is_empty(),
                    "no health check asks {backend}; `xdp-lb health list` shows those there are"
                );
                self.show(&views, |views| health::show(views))
            }
            Health::Check {
                backend,
                service,
                now,
            } => {
                let body = CheckHealth {
                    backend,
                    service,
                    now,
                };
                let views: Vec<CheckedView> = self.post("/v1/health/check", &body).await?;
                self.show(&views, |views| health::checked(views))?;
                let failed = views.iter().filter(|view| !view.result.passed).count();
                anyhow::ensure!(failed == 0, "{failed} of {} checks failed", views.len());
                Ok(())
            }
        }
    }

    async fn flow(&self, command: Flow) -> anyhow::Result<()> {
        match command {
            Flow::List(list) => {
                let path = flows::query("/v1/flows", &list.filter()?);
                self.show(&self.get::<FlowsView>(&path).await?, flows::text::list)
            }
            Flow::Count(of) => {
                let path = flows::query("/v1/flows/count", &of.filter()?);
                self.show(&self.get::<FlowCountView>(&path).await?, flows::text::count)
            }
            Flow::Flush(flush) => {
                let (filter, all) = flush.filter()?;
                let body = ForgetFlows { filter, all };
                let view: ForgottenView = self.post("/v1/flows/flush", &body).await?;
                self.show(&view, flows::text::forgotten)
            }
        }
    }

    async fn vrrp(&self, command: Vrrp) -> anyhow::Result<()> {
        let (name, change, done) = match command {
            Vrrp::List => {
                let views: Vec<VrrpView> = self.get("/v1/vrrp").await?;
                return self.show(&views, |views| vrrp::list(views));
            }
            Vrrp::Show { name } => {
                let mut views: Vec<VrrpView> = self.get("/v1/vrrp").await?;
                views.retain(|view| view.name == name);
                anyhow::ensure!(
                    !views.is_empty(),
                    "no virtual router `{name}`; `xdp-lb vrrp list` shows those there are"
                );
                return self.show(&views, |views| vrrp::show(views));
            }
            Vrrp::Demote { name, by } => (name, Change::Demote { by }, "demoted"),
            Vrrp::Pause { name } => (name, Change::Pause, "paused"),
            Vrrp::Promote { name } => (name, Change::Promote, "promoted"),
        };
        let path = format!("/v1/vrrp/{name}");
        let views: Vec<VrrpView> = self.post(&path, &change).await?;
        self.show(&views, |views| format!("{done}\n{}", vrrp::list(views)))
    }

    async fn detach(&self, pin_dir: PathBuf) -> anyhow::Result<()> {
        let detached: Detached = match self.post("/v1/detach", &()).await {
            Err(ClientError::NoDaemon { .. }) => PinDirectory::new(pin_dir)
                .remove_unused(User::Daemon)?
                .into(),
            detached => detached?,
        };
        self.show(&detached, |detached| {
            let done = match detached.pins_removed {
                0 => "nothing was attached".into(),
                pins => {
                    format!("detached ({pins} pins removed); traffic to VIPs goes to the kernel")
                }
            };
            if detached.left.is_empty() {
                return done;
            }
            let left = detached.left.join(", ");
            format!("{done}\nleft in place, since it is not of xdp-lb: {left}")
        })
    }

    async fn watch(&self, all: bool) -> anyhow::Result<()> {
        let mut before: StatsView = self.get("/v1/stats").await?;
        let clear = if io::stdout().is_terminal() {
            "\x1b[H\x1b[2J"
        } else {
            ""
        };
        loop {
            tokio::time::sleep(WATCH).await;
            let now: StatsView = self.get("/v1/stats").await?;
            let text = tables::rates(&before, &now, WATCH, all);
            writeln!(io::stdout().lock(), "{clear}{text}")?;
            before = now;
        }
    }

    /// Prints an answer, for programs or for people.
    fn show<T: Serialize>(
        &self,
        view: &T,
        to_text: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        show(self.json, view, to_text)
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.client.get(path).await
    }

    async fn post<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.client.call(Method::POST, path, Some(body)).await
    }

    async fn patch(&self, of: &BackendOf, body: &ChangeBackend) -> Result<ChangeView, ClientError> {
        self.client
            .call(Method::PATCH, &path_of(of), Some(body))
            .await
    }
}

#[derive(Serialize)]
struct ServiceWithBackends {
    #[serde(flatten)]
    service: ServiceView,
    #[serde(rename = "backend_list")]
    backends: Vec<BackendView>,
}

/// Prints an answer, for programs or for people.
pub(super) fn show<T: Serialize>(
    json: bool,
    view: &T,
    to_text: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    let text = if json {
        serde_json::to_string_pretty(view)?
    } else {
        to_text(view)
    };
    writeln!(io::stdout().lock(), "{text}")?;
    Ok(())
}

fn path_of(of: &BackendOf) -> String {
    format!(
        "/v1/services/{}/backends/{}",
        escaped(&of.service),
        of.address
    )
}

/// The call for `what` of a service, or of all.
fn of(what: &str, service: Option<&str>) -> String {
    match service {
        Some(name) => format!("/v1/{what}?service={}", escaped(name)),
        None => format!("/v1/{what}"),
    }
}

/// A name as part of a URI. Names of services need no escaping; other words that somebody types
/// must not become another call.
pub(super) fn escaped(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
            b'.' if name.len() > 2 => ".".into(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_one_segment_of_a_path() {
        assert_eq!(escaped("web-1.example_com"), "web-1.example_com");
        assert_eq!(escaped("a/b?c d"), "a%2Fb%3Fc%20d");
        assert_eq!(escaped(".."), "%2E%2E");
    }
}
