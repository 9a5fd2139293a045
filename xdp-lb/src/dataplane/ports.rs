//! Which frames are for this host: the MAC addresses of the interfaces that packets come in by.

use std::sync::atomic::Ordering;

use xdp_lb_common::abi::{PORT_WORDS, PORTS, port_place, port_word};

use super::{Dataplane, state::words};

impl Dataplane {
    /// From here on frames that come in by interfaces are for this host where they have one of these MAC
    /// addresses, and pass otherwise. Frames of other interfaces are taken whomever they are for. The first address of
    /// each is found at once, the others take longer.
    ///
    /// Returns the interfaces for which there is no room, by their number of addresses or by another interface with the same
    /// place; they take all frames.
    pub fn set_port_macs(&mut self, ports: &[(u32, Vec<[u8; 6]>)]) -> Vec<u32> {
        let mut crowded = Vec::new();
        for place in 0..PORTS {
            let here = ports
                .iter()
                .filter(|(ifindex, _)| port_place(*ifindex) == place);
            let wanted: Vec<u64> = here
                .clone()
                .flat_map(|(ifindex, macs)| macs.iter().map(|&mac| port_word(mac, *ifindex)))
                .collect();
            let mut entry = [0; PORT_WORDS];
            if wanted.len() <= PORT_WORDS && here.clone().count() <= 1 {
                entry[..wanted.len()].copy_from_slice(&wanted);
            } else {
                crowded.extend(here.map(|(ifindex, _)| *ifindex));
            }
            let held: &[_] = words::<PORT_WORDS>(self.ports.words(), place);
            // The first says whether the others count: it is written last, where it is new.
            for (held, word) in held.iter().zip(entry).rev() {
                held.store(word, Ordering::SeqCst);
            }
        }
        crowded
    }
}
