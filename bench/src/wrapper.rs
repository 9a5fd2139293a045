//! The wrapper: runs a program many times in one call of the kernel, each time on another packet.
//!
//! How it works is told in `bench-ebpf/src/main.rs`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, Map, MapData, MapError, ProgramArray},
    programs::{ProgramFd, TestRun as _, TestRunOptions, Xdp, XdpMode},
};
use nix::time::{ClockId, clock_gettime};

use crate::{
    abi::{CONNECTIONS, FRAME, Listed, SlotLine, State, StatelessBackend, Template, drawn},
    packets::{self, Family, Packets},
    plane::Scale,
    random::Random,
};

/// The programs to measure with. Empty where the build had no BPF toolchain.
pub static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xdp-lb-bench-ebpf"));

/// Slots in one element of the map.
const LINE: u32 = size_of::<SlotLine>() as u32;

/// `XDP_PASS`.
pub const PASS: u32 = 2;
/// `XDP_TX`.
pub const TX: u32 = 3;

// SAFETY: `repr(C)`, made of integers, for which every bit pattern is valid, and without padding.
unsafe impl aya::Pod for State {}

/// Programs that are loaded with the wrapper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// Sends each frame back as it is.
    FloorTx,
    /// Reads headers and ports, swaps the MAC addresses, sends the frame back.
    FloorParse,
    /// Hash, slot, backend and counter, and nothing else: sends the frame back with the backend's MAC addresses.
    FloorStateless,
    /// Changes the length of each frame at its head: see [`Wrapper::set_growth`].
    Grow,
}

impl Own {
    const ALL: [Self; 4] = [
        Self::FloorTx,
        Self::FloorParse,
        Self::FloorStateless,
        Self::Grow,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::FloorTx => "floor_tx",
            Self::FloorParse => "floor_parse",
            Self::FloorStateless => "floor_stateless",
            Self::Grow => "grow",
        }
    }
}

/// The order in which packets come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// A connection is drawn for each: one does not come again after the same time each time. With such a rule, memory that is a little
    /// more than a cache would find nothing in it, and a little less everything.
    Drawn,
    /// Each connection comes once before any comes again, and far from those with the numbers beside it.
    Scattered,
}

impl Order {
    /// How far apart connections are that follow each other. It has no divisor in common with their
    /// number, so that each is used once before any is used again. 0: they are drawn.
    fn stride(self, connections: u32) -> u32 {
        if self == Self::Drawn {
            return 0;
        }
        // Near the golden section, so that neighbours are far apart in time, too.
        let near = u64::from(connections) * 618 / 1000;
        let near = u32::try_from(near).unwrap_or(u32::MAX);
        (near.max(1)..=connections)
            .find(|&stride| coprime(stride, connections))
            .unwrap_or(1)
    }

    /// The connection that a run of so many packets ends with, of so many connections.
    #[must_use]
    pub fn last_of(self, packets: u32, connections: u32) -> u32 {
        let steps = u64::from(packets.saturating_sub(1));
        if self == Self::Drawn {
            return drawn(steps, connections);
        }
        let steps = steps * u64::from(self.stride(connections));
        u32::try_from(steps % u64::from(connections.max(1))).unwrap_or(0)
    }
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Time per packet, of program and wrapper together.
    pub nanoseconds: f64,
    /// The action that the last packet's program asked for; [`TX`] where there was no program.
    pub action: u32,
    /// The last frame, as the program left it.
    pub frame: Vec<u8>,
}

/// The loaded wrapper with its maps.
pub struct Wrapper {
    ebpf: Ebpf,
    state: Array<MapData, State>,
    program: ProgramArray<MapData>,
    list: Array<MapData, Listed>,
    /// Of the packets in the list: the first one, services, and how many they are.
    listed: (Template, u32, u32),
    /// Of the packets.
    family: Family,
    /// Of [`Own::FloorStateless`].
    scale: Scale,
}

impl Wrapper {
    /// Loads the wrapper and its programs. The floor that balances has as many slots and backends as `scale` says. It goes to the loopback of the caller's network namespace,
    /// which should be of the caller's own and down.
    ///
    /// # Errors
    ///
    /// If the build had no BPF toolchain, or the kernel refuses a program.
    pub fn open(scale: Scale) -> Result<Self> {
        ensure!(
            !OBJECT.is_empty(),
            "built without the wrapper program; `cargo xtask setup` gets what is missing"
        );
        let services = u32::from(scale.services);
        let backends = services * u32::from(scale.backends);
        let lines = (services * scale.table_size).div_ceil(LINE);
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("SLOTS", lines)
            .map_max_entries("BACKENDS", backends)
            .map_max_entries("COUNTS", backends)
            .map_max_entries("LIST", scale.listed.max(1))
            .load(OBJECT)
            .context("cannot load the wrapper's object")?;
        for own in Own::ALL {
            xdp(&mut ebpf, own.name())?.load()?;
        }
        let wrapper = xdp(&mut ebpf, "wrapper")?;
        wrapper.load().context("the kernel refuses the wrapper")?;
        // The kernel patches its code before and after each run of a program that is attached nowhere.
        wrapper
            .attach("lo", XdpMode::Skb)
            .context("cannot attach the wrapper to the loopback")?;
        fill(&mut ebpf, scale, lines, backends)?;
        Ok(Self {
            state: take(&mut ebpf, "STATE")?,
            program: take(&mut ebpf, "PROGRAM")?,
            list: take(&mut ebpf, "LIST")?,
            listed: (Template::default(), 0, 0),
            family: Family::V4,
            scale,
            ebpf,
        })
    }

    /// Sets the packets that runs go through.
    ///
    /// # Errors
    ///
    /// If there is none, or more than [`CONNECTIONS`], or if the kernel does not let the map be written.
    pub fn set_packets(&mut self, packets: &Packets) -> Result<()> {
        ensure!(
            (1..=CONNECTIONS).contains(&packets.connections) && packets.services > 0,
            "packets of {} connections to {} services, where there may be 1 to {CONNECTIONS}, to one at the least",
            packets.connections,
            packets.services
        );
        let state = State {
            base: packets.base,
            connections: packets.connections,
            services: packets.services,
            frame: u32::try_from(packets.family.frame())?,
            table_size: self.scale.table_size,
            backends: self.scale.backends.into(),
            listed: packets.connections.min(self.scale.listed),
            ..State::default()
        };
        self.family = packets.family;
        self.list(packets, state.listed)?;
        Ok(self.state.set(0, state, 0)?)
    }

    /// Puts the packets of the first connections into the list, as far as they are not there.
    fn list(&mut self, packets: &Packets, count: u32) -> Result<()> {
        let (base, services, listed) = self.listed;
        let begin = if (base, services) == (packets.base, packets.services) {
            listed
        } else {
            0
        };
        self.listed = (packets.base, packets.services, begin);
        for connection in begin..count {
            let mut entry = Listed::default();
            let packet = packets.get(connection);
            entry[..packet.len()].copy_from_slice(&packet);
            self.list.set(connection, entry, 0)?;
        }
        self.listed.2 = begin.max(count);
        Ok(())
    }

    /// Sets what [`Own::Grow`] adds to the head of each frame, in bytes; negative: takes away.
    ///
    /// # Errors
    ///
    /// If the kernel does not let the map be written.
    pub fn set_growth(&mut self, growth: i32) -> Result<()> {
        let state = self.state.get(&0, 0)?;
        Ok(self.state.set(0, State { growth, ..state }, 0)?)
    }

    /// Sets the program under test; without one, runs are of the wrapper alone.
    ///
    /// # Errors
    ///
    /// If the kernel does not let the wrapper call the program.
    pub fn select(&mut self, program: Option<&ProgramFd>) -> Result<()> {
        match program {
            Some(program) => self.program.set(0, program, 0)?,
            None => match self.program.clear_index(&0) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                // It is empty already.
                Err(MapError::SyscallError(error))
                    if error.io_error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            },
        }
        Ok(())
    }

    /// Sets one of the wrapper's own programs under test.
    ///
    /// # Errors
    ///
    /// As [`select`](Self::select).
    pub fn select_own(&mut self, own: Own) -> Result<()> {
        let program = xdp(&mut self.ebpf, own.name())?.fd()?.try_clone()?;
        self.select(Some(&program))
    }

    /// Has the program under test process so many packets, from the first one of the order on.
    ///
    /// # Errors
    ///
    /// If the kernel does not run it, or if the wrapper could not give it each packet as it should be.
    pub fn run(&mut self, packets: u32, order: Order) -> Result<Run> {
        let state = self.state.get(&0, 0)?;
        let state = State {
            stride: order.stride(state.connections),
            next: 0,
            packets: 0,
            failures: 0,
            ..state
        };
        self.state.set(0, state, 0)?;
        let mut output = vec![0; FRAME + 256];
        let input = vec![0; self.family.frame()];
        let wrapper = xdp(&mut self.ebpf, "wrapper")?;
        let before = processor_time()?;
        let result = wrapper
            .test_run(TestRunOptions {
                data_in: Some(&input),
                data_out: Some(&mut output),
                repeat: packets,
                ..TestRunOptions::default()
            })
            .context("the kernel does not run the wrapper")?;
        let spent = processor_time()?.saturating_sub(before);
        let state = self.state.get(&0, 0)?;
        ensure!(
            state.packets == u64::from(packets) && state.failures == 0,
            "of {packets} packets, {} were handed on and {} could not be written or changed",
            state.packets,
            state.failures
        );
        output.truncate(usize::try_from(result.data_size_out)?);
        Ok(Run {
            nanoseconds: spent.as_secs_f64() * 1e9 / f64::from(packets),
            action: result.return_value,
            frame: output,
        })
    }

    /// Has one of the wrapper's own programs process one packet, without the wrapper; returns how long
    /// that took.
    ///
    /// # Errors
    ///
    /// If the kernel does not run it.
    pub fn run_once(&mut self, own: Own, packet: &Template) -> Result<Duration> {
        let family = self.family;
        let program = xdp(&mut self.ebpf, own.name())?;
        Ok(once(program, family, packet)?.0)
    }
}

/// Has a program process one packet, without the wrapper; returns how long that took, by the kernel's
/// clock, and the frame that left.
///
/// # Errors
///
/// If the kernel does not run it.
pub fn once(program: &Xdp, family: Family, packet: &Template) -> Result<(Duration, Vec<u8>)> {
    let mut output = vec![0; FRAME + 256];
    let result = program.test_run(TestRunOptions {
        data_in: Some(&packets::bytes(family, packet)),
        data_out: Some(&mut output),
        ..TestRunOptions::default()
    })?;
    output.truncate(usize::try_from(result.data_size_out)?);
    Ok((result.duration, output))
}

/// Fills the maps of [`Own::FloorStateless`]: each slot with one of its service's backends, at random.
fn fill(ebpf: &mut Ebpf, scale: Scale, lines: u32, backends: u32) -> Result<()> {
    let mut random = Random::new(1);
    let mut slots: Array<MapData, SlotLine> = take(ebpf, "SLOTS")?;
    for line in 0..lines {
        slots.set(line, slot_line(&mut random, scale.backends), 0)?;
    }
    let mut entries: Array<MapData, StatelessBackend> = take(ebpf, "BACKENDS")?;
    for backend in 0..backends {
        let mac = backend_mac(backend);
        entries.set(backend, [mac, mac, 0, 0], 0)?;
    }
    Ok(())
}

fn slot_line(random: &mut Random, backends: u8) -> SlotLine {
    let mut member = || u8::try_from(random.below(backends.into())).unwrap_or(0);
    std::array::from_fn(|_| member())
}

/// The word that stands for the MAC address of the backend with this number, of those of all services.
fn backend_mac(backend: u32) -> u64 {
    let [a, b, c, d] = backend.to_be_bytes();
    u64::from_ne_bytes([0x02, 1, a, b, c, d, 0, 0])
}

/// The number of the backend that [`Own::FloorStateless`] has given a frame to; `None` where the frame's addresses are
/// of no backend.
#[must_use]
pub fn backend_of(frame: &[u8]) -> Option<u32> {
    let (macs, _) = frame.split_first_chunk::<12>()?;
    match *macs {
        [0x02, 1, a, b, c, d, 0x02, 1, e, f, g, h] if [a, b, c, d] == [e, f, g, h] => {
            Some(u32::from_be_bytes([a, b, c, d]))
        }
        _ => None,
    }
}

fn coprime(mut a: u32, mut b: u32) -> bool {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a == 1
}

/// What this thread has had of its processor. Finer than the kernel's own figure, which is rounded down
/// to whole nanoseconds a packet, and free of the time that others had the processor.
pub(crate) fn processor_time() -> Result<Duration> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    Ok(time
        .context("no clock of the thread's processor time")?
        .into())
}

fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf.program_mut(name);
    let program = program.with_context(|| format!("the object holds no program `{name}`"))?;
    Ok(program.try_into()?)
}

fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<M> {
    let map = ebpf.take_map(name);
    let map = map.with_context(|| format!("the object holds no map `{name}`"))?;
    M::try_from(map).with_context(|| format!("map `{name}`"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const MANY: u32 = 1_000_000;

    #[test]
    fn each_connection_comes_once_before_any_comes_again() {
        for connections in [1, 2, 3, 10, 1000, MANY] {
            let stride = Order::Scattered.stride(connections);
            assert!((1..=connections).contains(&stride), "{connections}");
            let seen: HashSet<u32> = (1..=connections)
                .map(|packets| Order::Scattered.last_of(packets, connections))
                .collect();
            assert_eq!(seen.len(), usize::try_from(connections).unwrap());
            assert_eq!(Order::Scattered.last_of(connections + 1, connections), 0);
        }
    }

    #[test]
    fn scattered_connections_are_far_from_their_neighbours() {
        let stride = Order::Scattered.stride(MANY);
        assert!((MANY / 4..MANY / 4 * 3).contains(&stride));
    }

    /// So often as of numbers drawn at random: of as many draws as connections, a share of 1/e is of none.
    #[test]
    fn connections_that_are_drawn_are_any() {
        let connections = 100_000;
        let mut times = vec![0_u32; 100_000];
        for packets in 1..=connections {
            let connection = Order::Drawn.last_of(packets, connections);
            times[usize::try_from(connection).unwrap()] += 1;
        }
        let never = times.iter().filter(|&&times| times == 0).count();
        assert!((36_200..37_400).contains(&never), "{never}");
        assert!(times.iter().all(|&times| times < 12));
        let lower: u32 = times[..50_000].iter().sum();
        assert!((49_000..51_000).contains(&lower), "{lower}");
        assert_eq!(Order::Drawn.last_of(77, 1), 0);
    }
}
