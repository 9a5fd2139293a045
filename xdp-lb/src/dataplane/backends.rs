//! Backends' entries, which the maps have in parts.

use std::sync::atomic::Ordering;

use xdp_lb_common::abi::{BackendEntry, BackendOwner, BackendWay, NextHop, TunnelEnds, map};

use super::{
    Dataplane, DataplaneError,
    mapping::Mapping,
    state::{read_words, words},
};

const WAY_WORDS: usize = size_of::<BackendWay>() / 8;
const ENDS_WORDS: usize = size_of::<TunnelEnds>() / 8;

/// The maps with the parts.
pub(super) struct Backends {
    ways: Mapping,
    owners: Mapping,
    ends: Mapping,
}

impl Backends {
    /// Those that `map` opens: by name, and with the bytes of an element.
    pub(super) fn open(
        mut map: impl FnMut(&'static str, usize) -> Result<Mapping, DataplaneError>,
    ) -> Result<Self, DataplaneError> {
        Ok(Self {
            ways: map(map::BACKENDS, 8 * WAY_WORDS)?,
            owners: map(map::BACKEND_OWNERS, 8)?,
            ends: map(map::TUNNEL_ENDS, 8 * ENDS_WORDS)?,
        })
    }

    fn read(&self, index: u16) -> BackendEntry {
        let index = u32::from(index);
        let [next_hop, link, source, ends] = read_words(self.ways.words(), index);
        let way = BackendWay {
            next_hop,
            link,
            source,
            ends,
        };
        let [owner] = read_words(self.owners.words(), index);
        let ends: [u64; ENDS_WORDS] = read_words(self.ends.words(), index);
        // SAFETY: both are made of integers and arrays of them, without padding, so that any words are one.
        let ends = unsafe { std::mem::transmute::<[u64; ENDS_WORDS], TunnelEnds>(ends) };
        BackendEntry::join(&way, BackendOwner::unpack(owner), &ends)
    }

    /// From here on the backend is not sent packets.
    fn take_out_of_use(&self, index: u16) {
        words::<WAY_WORDS>(self.ways.words(), index.into())[0].store(0, Ordering::SeqCst);
    }

    /// Writes an entry, the word with the flag that allows its use last.
    fn write(&self, index: u16, entry: &BackendEntry) {
        let index = u32::from(index);
        let (way, owner, ends) = entry.split();
        // SAFETY: as in `read`.
        let ends = unsafe { std::mem::transmute::<TunnelEnds, [u64; ENDS_WORDS]>(ends) };
        for (word, new) in words::<ENDS_WORDS>(self.ends.words(), index)
            .iter()
            .zip(ends)
        {
            word.store(new, Ordering::Release);
        }
        words::<1>(self.owners.words(), index)[0].store(owner.pack(), Ordering::Release);
        let [next_hop, rest @ ..] = words::<WAY_WORDS>(self.ways.words(), index) else {
            unreachable!("an entry of several words");
        };
        for (word, new) in rest.iter().zip([way.link, way.source, way.ends]) {
            word.store(new, Ordering::Release);
        }
        next_hop.store(way.next_hop, Ordering::SeqCst);
    }
}

impl Dataplane {
    /// Reads a backend's entry.
    #[must_use]
    pub fn backend(&self, index: u16) -> BackendEntry {
        self.backends.read(index)
    }

    /// Writes backends' entries. Packets see the old entry, then one that may not be used, then the
    /// new one; where only the next hop and the MTU differ, the old and the new.
    ///
    /// # Errors
    ///
    /// As [`wait_for_packets_in_flight`](Self::wait_for_packets_in_flight), which it calls once where
    /// entries in use change in more than that.
    pub fn set_backends(&mut self, changes: &[(u16, BackendEntry)]) -> Result<(), DataplaneError> {
        let mut has_waiting = false;
        for (index, entry) in changes {
            let held = self.backend(*index);
            if !is_safe_in_use(&held, entry) {
                self.backends.take_out_of_use(*index);
                has_waiting |= NextHop::unpack(held.next_hop).is_serving();
            }
        }
        if has_waiting {
            self.wait_for_packets_in_flight()?;
        }
        for (index, entry) in changes {
            self.backends.write(*index, entry);
        }
        Ok(())
    }

    /// [`set_backends`](Self::set_backends) for one.
    ///
    /// # Errors
    ///
    /// As `set_backends`.
    pub fn set_backend(&mut self, index: u16, entry: &BackendEntry) -> Result<(), DataplaneError> {
        self.set_backends(&[(index, *entry)])
    }
}

/// True if a packet that reads some words of the one entry and some of the other does nothing wrong:
/// they differ in the next hop and in the MTU only, each within one word.
fn is_safe_in_use(held: &BackendEntry, new: &BackendEntry) -> bool {
    let is_same_tunnel = NextHop::unpack(held.next_hop).flags & NextHop::TUNNEL_FLAGS
        == NextHop::unpack(new.next_hop).flags & NextHop::TUNNEL_FLAGS
        || new.next_hop == 0;
    let same = BackendEntry {
        next_hop: new.next_hop,
        mtu: new.mtu,
        ..*held
    };
    same == *new && is_same_tunnel
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_next_hop_and_mtu_change_under_packets() {
        let entry = |mac, flags, mtu, ifindex| BackendEntry {
            next_hop: NextHop {
                mac: [mac; 6],
                flags,
            }
            .pack(),
            ifindex,
            mtu,
            generation: 3,
            ..BackendEntry::default()
        };
        let held = entry(1, NextHop::FLAG_SERVING, 1500, 2);
        assert!(is_safe_in_use(
            &held,
            &entry(2, NextHop::FLAG_SERVING, 1400, 2)
        ));
        assert!(is_safe_in_use(
            &held,
            &BackendEntry {
                next_hop: 0,
                ..held
            }
        ));
        assert!(!is_safe_in_use(
            &held,
            &entry(1, NextHop::FLAG_SERVING, 1500, 3)
        ));
        let tunnel = NextHop::FLAG_SERVING | NextHop::FLAG_IPIP;
        assert!(!is_safe_in_use(&held, &entry(1, tunnel, 1500, 2)));
        let others = [
            BackendEntry {
                outer_tag: 1,
                ..held
            },
            BackendEntry {
                source_mac: [9; 6],
                ..held
            },
            BackendEntry {
                tunnel_source: [9; 16],
                ..held
            },
        ];
        assert!(others.iter().all(|other| !is_safe_in_use(&held, other)));
    }
}
