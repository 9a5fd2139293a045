//! Reading the counters.

use aya::maps::{MapData, PerCpuArray, PerCpuValues};
use serde::Serialize;
use xdp_lb_common::{
    abi::{Count, map},
    counters::Counter,
};

use super::{Dataplane, DataplaneError};

/// Packets and bytes, summed over the CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes of whole frames.
    pub bytes: u64,
}

impl From<Count> for Traffic {
    fn from(count: Count) -> Self {
        Self {
            packets: count.packets,
            bytes: count.bytes,
        }
    }
}

/// All counters of the program, by [`Counter`].
#[derive(Clone, Debug, Default)]
pub struct Counters(Vec<Traffic>);

impl Counters {
    /// What `counter` stands at.
    #[must_use]
    pub fn get(&self, counter: Counter) -> Traffic {
        let index = usize::try_from(counter as u32).unwrap_or(usize::MAX);
        self.0.get(index).copied().unwrap_or_default()
    }
}

impl Dataplane {
    /// Reads the program's counters.
    ///
    /// # Errors
    ///
    /// If the kernel does not let the map be read.
    pub fn counters(&self) -> Result<Counters, DataplaneError> {
        let read = |counter: &Counter| sum(map::COUNTERS, &self.counters, *counter as u32);
        Counter::ALL
            .iter()
            .map(read)
            .collect::<Result<_, _>>()
            .map(Counters)
    }

    /// Reads what was forwarded for the service with this id.
    ///
    /// # Errors
    ///
    /// As [`counters`](Self::counters), or if the id is beyond the map.
    pub fn service_traffic(&self, id: u32) -> Result<Traffic, DataplaneError> {
        sum(map::SERVICE_COUNTERS, &self.service_counters, id)
    }

    /// Reads what was forwarded to the backend with this index.
    ///
    /// # Errors
    ///
    /// As [`counters`](Self::counters), or if the index is beyond the map.
    pub fn backend_traffic(&self, index: u16) -> Result<Traffic, DataplaneError> {
        sum(
            map::BACKEND_COUNTERS,
            &self.backend_counters,
            u32::from(index),
        )
    }

    /// Sets the service's counters to zero, for an id that gets a new owner.
    pub(super) fn clear_service_traffic(&mut self, id: u32) -> Result<(), DataplaneError> {
        clear(map::SERVICE_COUNTERS, &mut self.service_counters, id)
    }

    /// Sets the backend's counters to zero, for an index that gets a new owner.
    pub(super) fn clear_backend_traffic(&mut self, index: u16) -> Result<(), DataplaneError> {
        clear(
            map::BACKEND_COUNTERS,
            &mut self.backend_counters,
            u32::from(index),
        )
    }
}

pub(super) fn sum(
    name: &'static str,
    counters: &PerCpuArray<MapData, Count>,
    index: u32,
) -> Result<Traffic, DataplaneError> {
    let values = counters
        .get(&index, 0)
        .map_err(|source| DataplaneError::map(name, source))?;
    let mut total = Count::default();
    for &count in values.iter() {
        total += count;
    }
    Ok(total.into())
}

fn clear(
    name: &'static str,
    counters: &mut PerCpuArray<MapData, Count>,
    index: u32,
) -> Result<(), DataplaneError> {
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| DataplaneError::Mapping {
        name,
        source: error,
    })?;
    let zeros = PerCpuValues::try_from(vec![Count::default(); cpus]).map_err(|error| {
        DataplaneError::Mapping {
            name,
            source: error,
        }
    })?;
    counters
        .set(index, zeros, 0)
        .map_err(|source| DataplaneError::map(name, source))
}
