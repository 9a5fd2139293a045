//! What was changed at run time, laid over the config file, and shown as such. [`store`](super::store)
//! keeps it.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::{desired::Origin, error::ChangeError};
use crate::config::{DEFAULT_WEIGHT, Service};

/// What was changed of one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Override {
    /// It is not in the config file.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    added: bool,
    /// It is in the config file, but taken away.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    removed: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    draining: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
}

/// All run-time changes: service name → backend address → change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Overrides(BTreeMap<String, BTreeMap<IpAddr, Override>>);

/// A backend with the run-time changes taken into account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Effective {
    pub(super) weight: u32,
    pub(super) draining: bool,
    pub(super) tier: u8,
    pub(super) origin: Origin,
}

/// A change to one backend of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new backend; None: the default weight, or the one in the config file.
    Add {
        /// Its weight.
        weight: Option<u32>,
    },
    /// Another weight.
    SetWeight(u32),
    /// No new connections.
    Drain,
    /// New connections again.
    Enable,
    /// Away with it; its connections break.
    Remove,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add {
                weight: Some(weight),
            } => write!(f, "add with weight {weight}"),
            Self::Add { weight: None } => f.write_str("add"),
            Self::SetWeight(weight) => write!(f, "set weight {weight}"),
            Self::Drain => f.write_str("drain"),
            Self::Enable => f.write_str("enable"),
            Self::Remove => f.write_str("remove"),
        }
    }
}

impl Overrides {
    /// The backends of `service` that are in force.
    pub(super) fn effective(&self, service: &Service) -> impl Iterator<Item = (IpAddr, Effective)> {
        let overrides = self.0.get(&service.name);
        let of = move |address: &IpAddr| overrides.and_then(|changes| changes.get(address));
        let configured = service.backends.iter().filter_map(move |backend| {
            let change = of(&backend.address);
            if change.is_some_and(|change| change.removed) {
                return None;
            }
            let effective = Effective {
                weight: change
                    .and_then(|change| change.weight)
                    .unwrap_or(backend.weight),
                draining: change.is_some_and(|change| change.draining),
                tier: backend.tier,
                origin: if change.is_some() {
                    Origin::Changed
                } else {
                    Origin::Config
                },
            };
            Some((backend.address, effective))
        });
        let in_config = |address: &IpAddr| service.backends.iter().any(|b| b.address == *address);
        let added: Vec<_> = overrides
            .into_iter()
            .flatten()
            .filter(|(address, change)| change.added && !in_config(address))
            .map(|(&address, change)| {
                let effective = Effective {
                    weight: change.weight.unwrap_or(DEFAULT_WEIGHT),
                    draining: change.draining,
                    tier: 0,
                    origin: Origin::Runtime,
                };
                (address, effective)
            })
            .collect();
        configured.chain(added)
    }

    /// Makes a change.
    ///
    /// # Errors
    ///
    /// If the backend is there already, or is not there.
    pub(super) fn change(
        &mut self,
        service: &Service,
        address: IpAddr,
        change: Change,
    ) -> Result<(), ChangeError> {
        let configured = service
            .backends
            .iter()
            .any(|backend| backend.address == address);
        let present = self.effective(service).any(|(found, _)| found == address);
        match (change, present) {
            (Change::Add { .. }, true) => {
                return Err(ChangeError::Exists {
                    service: service.name.clone(),
                    address,
                });
            }
            (Change::Add { .. }, false) | (_, true) => {}
            (_, false) => {
                return Err(ChangeError::NoBackend {
                    service: service.name.clone(),
                    address,
                });
            }
        }
        let changes = self.0.entry(service.name.clone()).or_default();
        let entry = changes.entry(address).or_default();
        match change {
            Change::Add { weight } => {
                *entry = Override {
                    added: !configured,
                    weight,
                    ..Override::default()
                }
            }
            Change::SetWeight(weight) => entry.weight = Some(weight),
            Change::Drain => entry.draining = true,
            Change::Enable => entry.draining = false,
            Change::Remove => {
                *entry = Override {
                    removed: configured,
                    ..Override::default()
                }
            }
        }
        if *entry == Override::default() {
            changes.remove(&address);
        }
        if changes.is_empty() {
            self.0.remove(&service.name);
        }
        Ok(())
    }

    /// Forgets changes to services that are no longer there. Returns their names.
    pub(super) fn retain_services(&mut self, services: &[Service]) -> Vec<String> {
        let known = |name: &String| services.iter().any(|service| service.name == *name);
        let forgotten = self.0.keys().filter(|name| !known(name)).cloned().collect();
        self.0.retain(|name, _| known(name));
        forgotten
    }

    /// How many backends differ from the config file.
    pub(super) fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn service() -> Service {
        let text = "interfaces: [eth0]\nservices:\n- { name: web, vip: 192.0.2.10, protocol: tcp, port: 80, \
                    backends: [10.0.0.1, { address: 10.0.0.2, weight: 50 }] }\n";
        config::parse(text, "test").unwrap().services.remove(0)
    }

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    /// Weight, draining and origin of a backend after some changes.
    fn after(changes: &[(u8, Change)], of: u8) -> Option<(u32, bool, Origin)> {
        let mut overrides = Overrides::default();
        for &(last, change) in changes {
            overrides.change(&service(), address(last), change).unwrap();
        }
        let service = service();
        let mut found = overrides
            .effective(&service)
            .filter(|(found, _)| *found == address(of));
        found
            .next()
            .map(|(_, backend)| (backend.weight, backend.draining, backend.origin))
    }

    #[test]
    fn changes_are_laid_over_the_config() {
        let none = Change::Add { weight: None };
        let some = Change::Add { weight: Some(7) };
        assert_eq!(after(&[], 2), Some((50, false, Origin::Config)));
        assert_eq!(after(&[], 3), None);
        assert_eq!(after(&[(3, none)], 3), Some((100, false, Origin::Runtime)));
        assert_eq!(after(&[(3, some)], 3), Some((7, false, Origin::Runtime)));
        assert_eq!(
            after(&[(3, some), (3, Change::Drain)], 3),
            Some((7, true, Origin::Runtime))
        );
        assert_eq!(after(&[(3, none), (3, Change::Remove)], 3), None);
        assert_eq!(
            after(&[(2, Change::SetWeight(9))], 2),
            Some((9, false, Origin::Changed))
        );
        assert_eq!(
            after(&[(2, Change::Drain)], 2),
            Some((50, true, Origin::Changed))
        );
        assert_eq!(
            after(&[(2, Change::Drain), (2, Change::Enable)], 2),
            Some((50, false, Origin::Config)),
            "a change that is undone is none"
        );
        assert_eq!(after(&[(2, Change::Remove)], 2), None);
        assert_eq!(
            after(
                &[(2, Change::SetWeight(9)), (2, Change::Remove), (2, none)],
                2
            ),
            Some((50, false, Origin::Config)),
            "added again it is as configured"
        );
        assert_eq!(
            after(&[(2, Change::Remove), (2, some)], 2),
            Some((7, false, Origin::Changed))
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let mut overrides = Overrides::default();
        let mut change = |last, change| overrides.change(&service(), address(last), change);
        let exists = |result| matches!(result, Err(ChangeError::Exists { .. }));
        let missing = |result| matches!(result, Err(ChangeError::NoBackend { .. }));
        assert!(exists(change(1, Change::Add { weight: None })));
        change(3, Change::Add { weight: None }).unwrap();
        assert!(exists(change(3, Change::Add { weight: None })));
        for wrong in [
            Change::Drain,
            Change::Enable,
            Change::Remove,
            Change::SetWeight(1),
        ] {
            assert!(missing(change(9, wrong)), "{wrong:?}");
        }
        change(1, Change::Remove).unwrap();
        assert!(missing(change(1, Change::Remove)));
    }

    #[test]
    fn a_backend_that_the_config_has_by_now_is_there_once() {
        let mut overrides = Overrides::default();
        overrides
            .change(&service(), address(3), Change::Add { weight: Some(7) })
            .unwrap();
        let mut service = service();
        service.backends.push(config::Backend {
            address: address(3),
            weight: 20,
            tier: 0,
        });
        let found: Vec<_> = overrides
            .effective(&service)
            .filter(|(found, _)| *found == address(3))
            .collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1.weight, 7, "what was said at run time holds");
    }

    #[test]
    fn changes_to_a_service_that_is_gone_are_forgotten() {
        let mut overrides = Overrides::default();
        overrides
            .change(&service(), address(1), Change::Drain)
            .unwrap();
        assert_eq!(overrides.len(), 1);
        assert_eq!(
            overrides.retain_services(&[service()]),
            Vec::<String>::new()
        );
        assert_eq!(overrides.retain_services(&[]), ["web"]);
        assert_eq!(overrides.len(), 0);
    }
}
