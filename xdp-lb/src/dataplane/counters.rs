//! Reading the counters.

use std::sync::atomic::{AtomicU64, Ordering};

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

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.packets = self.packets.wrapping_add(other.packets);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }
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

/// Words of a [`Count`]: packets, and bytes.
const COUNT: usize = size_of::<Count>() / 8;

impl Dataplane {
    /// Reads the program's counters.
    ///
    /// # Errors
    ///
    /// If the kernel does not let the map be read.
    pub fn counters(&self) -> Result<Counters, DataplaneError> {
        let read = |counter: &Counter| sum(map::COUNTERS, &self.counters, *counter as u32);
        let counters: Result<Vec<_>, _> = Counter::ALL.iter().map(read).collect();
        let mut counters = Counters(counters?);
        let mut forwarded = Count::default();
        for counts in [&self.service_counters, &self.backend_counters] {
            counts
                .words()
                .chunks_exact(COUNT)
                .for_each(|words| forwarded += count(words));
        }
        if let Ok(index) = usize::try_from(Counter::Forwarded as u32) {
            counters.0[index] += forwarded.into();
        }
        Ok(counters)
    }

    /// What was forwarded for the service with this id, which has these backends now.
    #[must_use]
    pub fn service_traffic(&self, id: u32, backends: impl IntoIterator<Item = u16>) -> Traffic {
        let gone = at(self.service_counters.words(), u64::from(id)).map_or(Count::default(), count);
        let mut traffic = Traffic::from(gone);
        for index in backends {
            traffic += self.backend_traffic(index);
        }
        traffic
    }

    /// What was forwarded to the backend with this index.
    #[must_use]
    pub fn backend_traffic(&self, index: u16) -> Traffic {
        let mut traffic = Count::default();
        self.each_cpu(index, |words| traffic += count(words));
        traffic.into()
    }

    /// Adds what was forwarded to a backend that is gone to what was forwarded for its service.
    pub fn retire_backend(&mut self, index: u16, service: u32) {
        let mut left = Count::default();
        self.each_cpu(index, |words| left += take(words));
        if let Some(words) = at(self.service_counters.words(), u64::from(service)) {
            for (word, more) in words.iter().zip([left.packets, left.bytes]) {
                word.fetch_add(more, Ordering::Relaxed);
            }
        }
    }

    /// Sets the backend's counters to zero, for an index that gets a new owner.
    pub(super) fn clear_backend_traffic(&mut self, index: u16) {
        self.each_cpu(index, |words| {
            take(words);
        });
    }

    /// Adds what was forwarded for a service that is gone to what was forwarded at all, for an id that gets a new
    /// owner.
    pub(super) fn retire_service(&mut self, id: u32) -> Result<(), DataplaneError> {
        let left = at(self.service_counters.words(), u64::from(id)).map_or(Count::default(), take);
        if left == Count::default() {
            return Ok(());
        }
        let failed = |source| DataplaneError::map(map::COUNTERS, source);
        let index = Counter::Forwarded as u32;
        // The program does not write this one.
        let mut values: Vec<Count> = self.counters.get(&index, 0).map_err(failed)?.to_vec();
        if let Some(first) = values.first_mut() {
            *first += left;
        }
        let values = PerCpuValues::try_from(values).map_err(|source| DataplaneError::Mapping {
            name: map::COUNTERS,
            source,
        })?;
        self.counters.set(index, values, 0).map_err(failed)
    }

    /// Calls `look` with each CPU's words of a backend.
    fn each_cpu(&self, index: u16, mut look: impl FnMut(&[AtomicU64])) {
        let all = self.backend_counters.words();
        let stride = u64::from(self.sizes.backends);
        let mut place = u64::from(index);
        while u64::from(index) < stride
            && let Some(words) = at(all, place)
        {
            look(words);
            place += stride;
        }
    }
}

/// The words of the count at a place of an array.
fn at(all: &[AtomicU64], place: u64) -> Option<&[AtomicU64]> {
    let start = usize::try_from(place).ok()?.checked_mul(COUNT)?;
    all.get(start..start + COUNT)
}

fn count(words: &[AtomicU64]) -> Count {
    Count {
        packets: words[0].load(Ordering::Relaxed),
        bytes: words[1].load(Ordering::Relaxed),
    }
}

/// Reads a count and leaves zero.
fn take(words: &[AtomicU64]) -> Count {
    Count {
        packets: words[0].swap(0, Ordering::Relaxed),
        bytes: words[1].swap(0, Ordering::Relaxed),
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
