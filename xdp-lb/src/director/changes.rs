//! Changes while it runs: of one backend, and of the whole config.

use std::{net::IpAddr, time::Duration};

use tracing::{info, warn};

use super::{Change, ChangeError, Director, chain, overrides::Overrides, report, view::ChangeView};
use crate::{
    config::{self, Config, DEFAULT_WEIGHT, Service},
    dataplane,
    netlink::HopState,
};

/// How long a change waits for the next hop of a new backend, so that the answer can tell what it
/// moved. On a local network it is known after a few milliseconds.
const NEW_HOP: Duration = Duration::from_millis(300);

impl Director {
    pub(super) async fn change(
        &mut self,
        service: &str,
        address: IpAddr,
        change: Change,
    ) -> Result<ChangeView, ChangeError> {
        let found = self.find_service(service)?;
        self.allow(found, address, change)?;
        let mut overrides = self.overrides.clone();
        overrides.change(found, address, change)?;
        let before = std::mem::replace(&mut self.overrides, overrides);
        self.wait_for_hops(NEW_HOP).await;
        let done = self.save().and_then(|()| self.apply());
        match done {
            Ok(report) => {
                info!(service, %address, %change, "changed at run time");
                Ok(ChangeView {
                    notes: self.note_on(service, address, change),
                    ..report::change(report)
                })
            }
            Err(error) => {
                self.overrides = before;
                self.go_back();
                Err(error)
            }
        }
    }

    /// Puts things back as they were before a change that failed on its way.
    fn go_back(&mut self) {
        self.tell_wanted();
        if let Err(error) = self.save() {
            warn!(error = %chain(&error), "the state file is not as it was");
        }
        if let Err(error) = self.apply() {
            warn!(error = %chain(&error), "the tables are not as they were");
        }
    }

    fn save(&self) -> Result<(), ChangeError> {
        self.store
            .save(&self.overrides)
            .map_err(|source| ChangeError::State {
                path: self.store.path().to_owned(),
                source,
            })
    }

    /// Takes another config. One that cannot be taken whole changes nothing.
    pub(super) async fn reload(&mut self, mut config: Config) -> Result<ChangeView, ChangeError> {
        self.health.intern(&mut config);
        let mut notes = self.needs_restart(&config)?;
        let ports = dataplane::ports(&config.interfaces);
        let mut overrides = self.overrides.clone();
        notes.extend(forget_services(&mut overrides, &config));
        let before = (
            std::mem::replace(&mut self.config, config),
            std::mem::replace(&mut self.overrides, overrides),
            std::mem::replace(&mut self.ports, ports),
        );
        self.wait_for_hops(NEW_HOP).await;
        let done = self.apply().and_then(|report| {
            self.attach_all()?;
            self.save()?;
            Ok(report)
        });
        match done {
            Ok(report) => {
                info!(config = %self.paths.config.display(), "read again");
                self.fresh.set_timeout(self.config.ready_timeout);
                let missing = self.interfaces.missing();
                notes.extend(missing.map(|(_, reason)| format!("{reason}; it is waited for")));
                self.tell_obstacle();
                self.vrrp.want(self.config.vrrp.clone()).await;
                Ok(ChangeView {
                    notes,
                    ..report::change(report)
                })
            }
            Err(error) => {
                (self.config, self.overrides, self.ports) = before;
                self.go_back();
                if let Err(error) = self.attach_all() {
                    warn!(error = %chain(&error), "interfaces are not as they were");
                }
                self.tell_obstacle();
                Err(error)
            }
        }
    }

    /// What a new config asks for that only a new start can do.
    fn needs_restart(&self, config: &Config) -> Result<Vec<String>, ChangeError> {
        if config.hash_key != self.config.hash_key {
            return Err(ChangeError::Refused(
                "hash_key differs from the one in force: it cannot change under traffic; put the old \
                 one back, or run `xdp-lb detach` and start again"
                    .into(),
            ));
        }
        if config.tunnel.gue_port != self.config.tunnel.gue_port {
            return Err(ChangeError::Refused(format!(
                "tunnel.gue_port is {} now, and the program was loaded with {}: put the old one \
                 back, or restart the daemon, which takes the new one (packets go on meanwhile)",
                config.tunnel.gue_port, self.config.tunnel.gue_port
            )));
        }
        let mut notes = Vec::new();
        if config.limits != self.config.limits {
            notes.push(
                "limits changed: the maps keep their sizes until `xdp-lb detach` and a new start"
                    .into(),
            );
        }
        if config.metrics != self.config.metrics {
            notes.push("metrics.address changed: it is taken at the next start".into());
        }
        Ok(notes)
    }

    /// What else to know of a new backend.
    fn note_on(&self, service: &str, address: IpAddr, change: Change) -> Vec<String> {
        match (change, self.resolver.hops.borrow().get(&address)) {
            (Change::Add { .. }, Some(HopState::Unknown { reason, .. })) => {
                vec![format!(
                    "{address} gets connections once it can be reached: {reason}"
                )]
            }
            (Change::Add { .. }, _) if self.is_down(service, address) => {
                vec![format!(
                    "{address} gets connections once its health check succeeds"
                )]
            }
            _ => Vec::new(),
        }
    }

    /// True if a health check keeps the backend from being used.
    fn is_down(&self, service: &str, address: IpAddr) -> bool {
        let service = self.find_service(service).ok();
        let check = service.and_then(|service| self.health.check_of(service, address));
        check.is_some_and(|check| !check.is_up())
    }

    /// Holds a change at run time to the rules of the config file.
    fn allow(&self, service: &Service, address: IpAddr, change: Change) -> Result<(), ChangeError> {
        let weight = match change {
            Change::Add { weight } => weight.unwrap_or(DEFAULT_WEIGHT),
            Change::SetWeight(weight) => weight,
            Change::Drain | Change::Enable | Change::Remove => return Ok(()),
        };
        config::validate_backend(service, address, weight)
            .map_err(|error| ChangeError::Refused(error.to_string()))?;
        match self
            .config
            .services
            .iter()
            .find(|other| other.vips.contains(&address.into()))
        {
            Some(other) => Err(ChangeError::Refused(format!(
                "{address} is a VIP of service `{}`; give the backend's own address",
                other.name
            ))),
            None => Ok(()),
        }
    }
}

/// Forgets the run-time changes to services that `config` does not have, and says so.
pub(super) fn forget_services(overrides: &mut Overrides, config: &Config) -> Vec<String> {
    let forgotten = overrides.retain_services(&config.services);
    forgotten
        .into_iter()
        .map(|name| {
            let note = format!(
                "run-time changes to `{name}` are forgotten: the config has no such service"
            );
            warn!("{note}");
            note
        })
        .collect()
}
