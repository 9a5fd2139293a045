//! How long lookup tables take: to be built, and until the daemon has one in force after a backend has come or gone.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use anyhow::Result;
use xdp_lb::{
    config::ConnectionTracking,
    director::simulation::{Backend, Service, Simulation},
    lookup::{Candidate, Scheduler, build},
};
use xdp_lb_common::hash::{Affinity, HashKey};
use xtask::bench::report::TableTimes;

/// Numbers of backends.
const BACKENDS: [u16; 3] = [10, 100, 1000];

/// Every case has one of these names.
#[must_use]
pub fn names() -> Vec<String> {
    cases()
        .map(|(scheduler, backends)| name(scheduler, backends))
        .collect()
}

fn cases() -> impl Iterator<Item = (Scheduler, u16)> {
    let all = [Scheduler::Maglev, Scheduler::Ring, Scheduler::Modulo].into_iter();
    all.flat_map(|scheduler| BACKENDS.map(|backends| (scheduler, backends)))
}

fn name(scheduler: Scheduler, backends: u16) -> String {
    format!("tables/{}/{backends}", scheduler.name())
}

/// Measures those whose names are wanted.
///
/// # Errors
///
/// If a table cannot be built.
pub fn measure(
    table_size: u32,
    rounds: u32,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<Vec<TableTimes>> {
    let wanted = cases().filter(|&(scheduler, backends)| is_wanted(&name(scheduler, backends)));
    wanted
        .map(|(scheduler, backends)| one(scheduler, backends, table_size, rounds))
        .collect()
}

fn one(scheduler: Scheduler, backends: u16, table_size: u32, rounds: u32) -> Result<TableTimes> {
    let addresses: Vec<IpAddr> = (0..u32::from(backends))
        .map(|number| Ipv4Addr::from_bits(0x0a00_0001 + number).into())
        .collect();
    let candidates: Vec<Candidate> = addresses
        .iter()
        .map(|&address| Candidate {
            address,
            weight: 100,
        })
        .collect();
    let all: BTreeMap<IpAddr, Backend> = addresses.iter().map(|&it| (it, Backend::NEW)).collect();
    let mut fewer = all.clone();
    fewer.pop_last();
    let service = |backends: &BTreeMap<IpAddr, Backend>| Service {
        tracking: ConnectionTracking::Adaptive,
        affinity: Affinity::Flow,
        idle_timeout: Duration::from_secs(900),
        scheduler,
        table_size,
        backends: backends.clone(),
    };
    let mut simulation = Simulation::new(service(&all), 4)?;
    let mut times = TableTimes {
        scheduler: scheduler.name().to_owned(),
        backends: backends.into(),
        table_size,
        build: Vec::new(),
        update: Vec::new(),
    };
    for _ in 0..rounds {
        times.build.push(milliseconds(|| {
            std::hint::black_box(build(scheduler, table_size, HashKey::DEFAULT, &candidates));
            Ok(())
        })?);
        for next in [&fewer, &all] {
            let next = service(next);
            times.update.push(milliseconds(|| {
                simulation.change(next)?;
                Ok(())
            })?);
        }
    }
    Ok(times)
}

/// How long something takes.
///
/// # Errors
///
/// If it fails.
pub fn milliseconds(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_of_the_cases_that_are_wanted_is_there() {
        let found = measure(251, 3, |name| name.starts_with("tables/ring")).unwrap();
        assert_eq!(found.len(), BACKENDS.len());
        for times in found {
            assert_eq!((times.build.len(), times.update.len()), (3, 6));
            assert!(times.build.iter().chain(&times.update).all(|it| *it > 0.0));
        }
        assert!(names().contains(&"tables/maglev/100".to_owned()));
    }
}
