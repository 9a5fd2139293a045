//! Answers to questions: the director's state in the shapes of [`view`](super::view).

use std::{collections::BTreeMap, sync::Arc};

use xdp_lb_common::{
    abi::{ABI_VERSION, Slot},
    counters::Counter,
};

use super::{
    ChangeError, Director,
    desired::{DesiredBackend, DesiredService, Health, Origin},
    selection::Standing,
    tables::{Fingerprint, Moved, Tables},
    view::{
        BackendView, ChangeView, CounterView, InterfaceView, LimitsView, MovedView, ServiceView,
        StatsView, StatusView, TrafficView,
    },
};
use crate::{
    config::Service,
    dataplane::{self, Traffic},
    health::Check,
    vrrp::Share,
};

impl Director {
    pub(super) fn find_service(&self, name: &str) -> Result<&Service, ChangeError> {
        let services = &self.config.services;
        services
            .iter()
            .find(|service| service.name == name)
            .ok_or_else(|| {
                let known: Vec<_> = services
                    .iter()
                    .map(|service| service.name.as_str())
                    .collect();
                let known = if known.is_empty() {
                    "none".into()
                } else {
                    known.join(", ")
                };
                ChangeError::NoService {
                    name: name.to_owned(),
                    known,
                }
            })
    }

    pub(super) fn status(&self) -> Result<StatusView, ChangeError> {
        let desired = &self.applied;
        let sizes = self.dataplane.sizes();
        let interfaces = self.interfaces.attached().map(|attached| InterfaceView {
            name: attached.interface.clone(),
            ifindex: attached.ifindex,
            mode: attached.mode.to_string(),
            fallback: attached.fallback.clone(),
        });
        let fingerprints = self.fingerprints();
        let all = fingerprints.iter().map(|(name, &one)| (*name, one));
        Ok(StatusView {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            config: self.paths.config.display().to_string(),
            pin_directory: self.paths.pins.path().display().to_string(),
            maps: match self.origin {
                dataplane::Origin::New => "new".into(),
                dataplane::Origin::Adopted => "adopted".into(),
            },
            abi_version: ABI_VERSION,
            interfaces: interfaces.collect(),
            missing_interfaces: self
                .interfaces
                .missing()
                .map(|(name, reason)| (name.to_owned(), reason.to_owned()))
                .collect(),
            ready: self.fresh.is_ready(),
            waits_for: self.awaited.iter().map(ToString::to_string).collect(),
            services: desired.len(),
            backends: desired.iter().map(|service| service.backends.len()).sum(),
            active_backends: desired.iter().map(active).sum(),
            runtime_changes: self.overrides.len(),
            fingerprint: Fingerprint::of_all(all).to_string(),
            fingerprints: fingerprints
                .iter()
                .map(|(&name, one)| (name.to_owned(), one.to_string()))
                .collect(),
            limits: LimitsView {
                services: sizes.services,
                backends: sizes.backends.saturating_sub(1),
                slots: sizes.slots,
                flows: sizes.flows,
            },
        })
    }

    /// The fingerprint of each service's table, as the maps hold it.
    fn fingerprints(&self) -> BTreeMap<&str, Fingerprint> {
        let services = self.config.services.iter();
        let fingerprint = |service: &'_ Service| {
            let (_, table) = self.tables.find(&service.name)?;
            let slots = self.dataplane.slots(table.region());
            Some(self.tables.fingerprint(table, &slots))
        };
        services
            .filter_map(|service| Some((service.name.as_str(), fingerprint(service)?)))
            .collect()
    }

    pub(super) fn services(&self) -> Result<Vec<ServiceView>, ChangeError> {
        self.config
            .services
            .iter()
            .zip(&self.applied)
            .map(|(service, desired)| self.service_view(service, desired))
            .collect()
    }

    fn service_view(
        &self,
        service: &Service,
        desired: &DesiredService,
    ) -> Result<ServiceView, ChangeError> {
        let mut forwarded = Traffic::default();
        let (mut moving_slots, mut mixed_slots, mut at_rest) = (0, 0, false);
        let mut fingerprint = String::new();
        if let Some((id, table)) = self.tables.find(&service.name) {
            let members = table.members.values().copied();
            forwarded = self.dataplane.service_traffic(id, members);
            let slots = self.dataplane.slots(table.region());
            let count = |is_meant: fn(&Slot) -> bool| {
                let count = slots.iter().filter(|slot| is_meant(slot)).count();
                u32::try_from(count).unwrap_or(u32::MAX)
            };
            moving_slots = count(|slot| slot.moving_from().is_some());
            mixed_slots = count(|slot| slot.previous == Slot::MIXED);
            at_rest = table.is_at_rest();
            fingerprint = self.tables.fingerprint(table, &slots).to_string();
        }
        Ok(ServiceView {
            name: service.name.clone(),
            vips: service.vips.iter().map(ToString::to_string).collect(),
            protocol: service.protocol.name().into(),
            ports: service.ports.clone(),
            scheduler: service.scheduler.name().into(),
            forwarding: service.forwarding.name().into(),
            affinity: match service.affinity {
                xdp_lb_common::hash::Affinity::Flow => "flow".into(),
                xdp_lb_common::hash::Affinity::Source => "source".into(),
            },
            connection_tracking: service.connection_tracking.name().into(),
            table_size: service.table_size,
            moving_slots,
            mixed_slots,
            at_rest,
            fingerprint,
            backends: desired.backends.len(),
            active_backends: active(desired),
            panic: desired.is_panicking,
            forwarded: forwarded.into(),
        })
    }

    pub(super) fn backends(&self, only: Option<&str>) -> Result<Vec<BackendView>, ChangeError> {
        if let Some(name) = only {
            self.find_service(name)?;
        }
        let mut views = Vec::new();
        for (service, applied) in self.config.services.iter().zip(&self.applied) {
            if only.is_none_or(|name| name == service.name) {
                self.backend_views(service, applied, &mut views)?;
            }
        }
        Ok(views)
    }

    fn backend_views(
        &self,
        config: &Service,
        service: &DesiredService,
        views: &mut Vec<BackendView>,
    ) -> Result<(), ChangeError> {
        let Some((_, table)) = self.tables.find(&service.name) else {
            return Ok(());
        };
        let shares = Tables::shares(&self.dataplane, table);
        let total: u32 = shares.values().sum();
        for (&address, backend) in &service.backends {
            let index = table.members.get(&address).copied();
            let slots = index
                .and_then(|index| shares.get(&index).copied())
                .unwrap_or(0);
            let forwarded = match index {
                Some(index) => self.dataplane.backend_traffic(index),
                None => Traffic::default(),
            };
            views.push(BackendView {
                service: service.name.clone(),
                address,
                weight: backend.weight,
                weight_in_force: backend.weight_in_force,
                tier: backend.tier,
                state: state(backend).into(),
                reason: reason(backend, self.health.check_of(config, address)),
                slots,
                share: if total == 0 {
                    0.0
                } else {
                    f64::from(slots) / f64::from(total)
                },
                mac: backend.way.as_ref().ok().map(|way| mac(way.mac)),
                origin: match backend.origin {
                    Origin::Config => "config".into(),
                    Origin::Changed => "changed".into(),
                    Origin::Runtime => "runtime".into(),
                },
                forwarded: forwarded.into(),
            });
        }
        Ok(())
    }

    pub(super) fn stats(&self) -> Result<StatsView, ChangeError> {
        let counters = self.dataplane.counters()?;
        let view = |&counter: &Counter| {
            let traffic = counters.get(counter);
            CounterView {
                name: counter.name().into(),
                kind: counter.kind().name().into(),
                text: counter.text().into(),
                packets: traffic.packets,
                bytes: traffic.bytes,
            }
        };
        Ok(StatsView {
            counters: Counter::ALL.iter().map(view).collect(),
        })
    }
}

/// What a change did.
pub(super) fn change(report: BTreeMap<String, Moved>) -> ChangeView {
    let services = report
        .into_iter()
        .filter(|(_, moved)| moved.slots_moved > 0)
        .map(
            |(
                name,
                Moved {
                    slots_moved,
                    table_size,
                },
            )| {
                (
                    name,
                    MovedView {
                        slots_moved,
                        table_size,
                    },
                )
            },
        )
        .collect();
    ChangeView {
        services,
        notes: Vec::new(),
    }
}

/// How many backends of each service are to serve, and how many can.
pub(super) fn shares(desired: &[DesiredService]) -> BTreeMap<String, Share> {
    let share = |service: &DesiredService| {
        let wanted = service.backends.values().filter(|it| it.is_wanted());
        wanted.fold(Share::default(), |sum, backend| {
            let can_serve = backend.way.is_ok() && backend.health.is_up();
            sum.and(Share {
                healthy: u32::from(can_serve),
                wanted: 1,
            })
        })
    };
    let services = desired.iter();
    services
        .map(|service| (service.name.clone(), share(service)))
        .collect()
}

fn active(service: &DesiredService) -> usize {
    service.candidates().len()
}

fn state(backend: &DesiredBackend) -> &'static str {
    if backend.way.is_err() {
        "unreachable"
    } else if !backend.is_wanted() {
        "draining"
    } else {
        match backend.standing {
            Standing::InUse | Standing::InUseThoughDown => "active",
            Standing::Standby => "standby",
            Standing::Down if matches!(backend.health, Health::Undecided { .. }) => "checking",
            Standing::Down => "down",
        }
    }
}

/// Why a backend is not used, or used though it is down.
///
/// Tables follow the state of a check, not each of its words.
fn reason(backend: &DesiredBackend, check: Option<&Arc<Check>>) -> Option<String> {
    let now = check
        .filter(|check| !check.is_up())
        .map(|check| check.reason());
    match (&backend.way, &backend.health) {
        (Err(reason), _) => Some(reason.clone()),
        (Ok(_), Health::Down { reason, .. }) if backend.standing.is_in_use() => {
            let reason = now.as_ref().unwrap_or(reason);
            Some(format!("though down, since too many are: {reason}"))
        }
        (Ok(_), Health::Down { reason, .. } | Health::Undecided { reason, .. }) => {
            Some(now.unwrap_or_else(|| reason.clone()))
        }
        (Ok(_), _) => None,
    }
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

impl From<Traffic> for TrafficView {
    fn from(traffic: Traffic) -> Self {
        Self {
            packets: traffic.packets,
            bytes: traffic.bytes,
        }
    }
}
