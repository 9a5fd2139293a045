//! The maps and the constants set at load. Sizes are those of the config's `limits`, set by the
//! daemon when it loads the program; the ones here serve where nobody sets them.

use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray},
};
use xdp_lb_common::{
    abi::{
        self, BUCKET, BackendWay, Budget, Count, FragmentEntry, FragmentKey, INDEX_WORDS, Meta,
        PortMacs, PrefixKey, RestingSlots, ServiceEntry, ServiceKey, ServiceMembers, SlotPair,
        Timing, TokenBucket, TunnelEnds,
    },
    counters::Counter,
    hash::HashKey,
};

use crate::packet::Packet;

/// Set at load.
#[unsafe(no_mangle)]
pub(crate) static HASH_KEY: Global<HashKey> = Global::new(HashKey::DEFAULT);

/// Set at load.
#[unsafe(no_mangle)]
pub(crate) static TIMING: Global<Timing> = Global::new(Timing {
    tokens_per_tick: [400; Budget::COUNT as usize],
    burst: [4000; Budget::COUNT as usize],
    closing_ticks: 60 * 250,
    opening_ticks: 60 * 250,
    period_shift: 6,
    bucket_bits: 13,
    index_bits: 15,
    backends: 4096,
    fragment_ticks: 30 * 250,
    warning_ticks: 10 * 250,
});

/// One field of [`TIMING`], which as a whole would be read as a whole.
macro_rules! timing {
    ($field:ident) => {{
        let timing = (&raw const $crate::maps::TIMING).cast::<xdp_lb_common::abi::Timing>();
        // SAFETY: a `Global` is what is in it, and whoever loads the program writes nothing after that.
        unsafe { core::ptr::read_volatile(&raw const (*timing).$field) }
    }};
}
pub(crate) use timing;

/// Set at load.
#[unsafe(no_mangle)]
pub(crate) static GUE_PORT: Global<[u8; 2]> = Global::new(6080_u16.to_be_bytes());

/// For the daemon only: the program does not read it.
#[map]
pub(crate) static META: Array<Meta> = Array::with_max_entries(1, 0);

#[map]
pub(crate) static PROGRAMS: ProgramArray = ProgramArray::with_max_entries(1, 0);

#[map]
pub(crate) static SERVICES: HashMap<ServiceKey, u32> =
    HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

#[map]
pub(crate) static PREFIXES: LpmTrie<PrefixKey, u32> = LpmTrie::with_max_entries(4096, 0);

#[map]
pub(crate) static INDEX: Array<[u64; INDEX_WORDS]> =
    Array::with_max_entries(1 + (1 << 15), BPF_F_MMAPABLE);

#[map]
pub(crate) static SERVICE_TABLE: Array<ServiceEntry> =
    Array::with_max_entries(4096, BPF_F_MMAPABLE);

#[map]
pub(crate) static SLOTS: Array<SlotPair> = Array::with_max_entries(1 << 20, BPF_F_MMAPABLE);

#[map]
pub(crate) static RESTING: Array<RestingSlots> = Array::with_max_entries(1 << 18, BPF_F_MMAPABLE);

#[map]
pub(crate) static MEMBERS: Array<ServiceMembers> = Array::with_max_entries(4096, BPF_F_MMAPABLE);

#[map]
pub(crate) static BACKENDS: Array<BackendWay> = Array::with_max_entries(4096, BPF_F_MMAPABLE);

#[map]
pub(crate) static BACKEND_OWNERS: Array<u64> = Array::with_max_entries(4096, BPF_F_MMAPABLE);

#[map]
pub(crate) static TUNNEL_ENDS: Array<TunnelEnds> = Array::with_max_entries(4096, BPF_F_MMAPABLE);

#[map]
pub(crate) static FLOWS: Array<[u64; BUCKET]> = Array::with_max_entries(1 << 13, BPF_F_MMAPABLE);

#[map]
pub(crate) static CLOCK: Array<u64> = Array::with_max_entries(abi::CLOCK_WORDS, BPF_F_MMAPABLE);

#[map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, FragmentEntry> =
    LruHashMap::with_max_entries(1 << 14, 0);

#[map]
pub(crate) static BUDGETS: PerCpuArray<TokenBucket> =
    PerCpuArray::with_max_entries(Budget::COUNT, 0);

#[map]
pub(crate) static COUNTERS: PerCpuArray<Count> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

/// For the daemon only: the program does not touch it.
#[map]
pub(crate) static SERVICE_COUNTERS: Array<Count> = Array::with_max_entries(4096, BPF_F_MMAPABLE);

#[map]
pub(crate) static BACKEND_COUNTERS: Array<Count> = Array::with_max_entries(4096, BPF_F_MMAPABLE);

#[map]
pub(crate) static PORTS: Array<PortMacs> = Array::with_max_entries(abi::PORTS, BPF_F_MMAPABLE);

#[map]
pub(crate) static SCRATCH: PerCpuArray<Packet> = PerCpuArray::with_max_entries(1, 0);
