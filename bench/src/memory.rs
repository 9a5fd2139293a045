//! How long a read of memory takes: it tells how much of the caches others leave on a machine that is shared.

use std::hint::black_box;

use anyhow::Result;
use xtask::bench::report::MemoryTimes;

use crate::{abi::drawn, wrapper::processor_time};

/// How much memory is read from, in MiB. What packets of 100,000 connections need is between the first ones.
const SIZES: [u32; 4] = [2, 4, 8, 16];
/// Bytes of a cache line.
const LINE: usize = 64;
/// Reads that are timed.
const READS: u32 = 200_000;

/// Memory to read from.
pub struct Memory {
    bytes: Vec<u8>,
    times: Vec<MemoryTimes>,
}

impl Memory {
    /// Takes the memory.
    #[must_use]
    pub fn new() -> Self {
        let times = |mebibytes| MemoryTimes {
            mebibytes,
            nanoseconds: Vec::new(),
        };
        Self {
            bytes: vec![0; bytes(SIZES[SIZES.len() - 1])],
            times: SIZES.map(times).to_vec(),
        }
    }

    /// Measures once.
    ///
    /// # Errors
    ///
    /// If there is no clock.
    pub fn measure(&mut self) -> Result<()> {
        for times in &mut self.times {
            let part = &mut self.bytes[..bytes(times.mebibytes)];
            times.nanoseconds.push(read(part)?);
        }
        Ok(())
    }

    /// What was measured.
    #[must_use]
    pub fn into_times(self) -> Vec<MemoryTimes> {
        self.times
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

const fn bytes(mebibytes: u32) -> usize {
    (mebibytes as usize) << 20
}

/// Nanoseconds for a read of any byte, by processor time.
fn read(memory: &mut [u8]) -> Result<f64> {
    // Into the caches, as far as there is room.
    for line in memory.chunks_mut(LINE) {
        line[0] = 0;
    }
    let lines = u32::try_from(memory.len() / LINE)?;
    let before = processor_time()?;
    let mut step = 0;
    for _ in 0..READS {
        let line = usize::try_from(drawn(step, lines))?;
        // What is read says where to read next, so that one read waits for the other.
        step += 1 + u64::from(memory[line * LINE]);
    }
    black_box(step);
    let spent = processor_time()?.saturating_sub(before);
    Ok(spent.as_secs_f64() * 1e9 / f64::from(READS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_has_a_time_for_each_time_it_was_measured() {
        let mut memory = Memory::new();
        memory.measure().unwrap();
        memory.measure().unwrap();
        let times = memory.into_times();
        let sizes: Vec<u32> = times.iter().map(|times| times.mebibytes).collect();
        assert_eq!(sizes, SIZES);
        for times in times {
            assert_eq!(times.nanoseconds.len(), 2);
            assert!(
                times.nanoseconds.iter().all(|&time| time > 0.0),
                "{times:?}"
            );
        }
    }
}
