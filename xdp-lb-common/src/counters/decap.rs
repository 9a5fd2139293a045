//! Every counter of the decapsulating program.

pub use super::Kind;

counters! {
    verdicts {}
    "Why a packet was left to the kernel." PassReason {
        Decapsulated "decapsulated" "The outer headers were removed, and the inner packet went to the kernel.",
        NotIp "not_ip" "Neither IPv4 nor IPv6: ARP, more than two VLAN tags, anything else.",
        NotTunnel "not_tunnel" "Not in a tunnel: another protocol, or UDP to another port.",
        OuterFragment "outer_fragment" "A fragment that may be of a packet in a tunnel; only whole packets are decapsulated.",
        OuterTruncated "outer_truncated" "The outer header is cut off or its length is wrong; not known to be in a tunnel.",
    }
    "Why a packet was dropped." DropReason {
        UnknownSource "unknown_source" "In a tunnel, from an address that is not among those given by --from.",
        BadUdpHeader "bad_udp_header" "For the GUE port, with a UDP header whose length is wrong.",
        BadInnerVersion "bad_inner_version" "The inner packet is not of the IP version that the tunnel says; behind the GUE port: neither IPv4 nor IPv6.",
        BadInnerHeader "bad_inner_header" "The inner header is cut off or shorter than it may be.",
        BadInnerLength "bad_inner_length" "The inner packet is longer than the outer one has room for, or shorter than its own header.",
        NotRemoved "not_removed" "The kernel did not let the outer headers be removed.",
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::HashSet;

    use super::*;

    #[test]
    fn indices_are_positions_and_names_differ() {
        let indices = Counter::ALL.iter().map(|&counter| counter as u32);
        assert!(indices.eq(0..Counter::COUNT));
        let names: HashSet<_> = Counter::ALL.iter().map(|counter| counter.name()).collect();
        assert_eq!(names.len(), Counter::ALL.len());
    }

    #[test]
    fn reasons_have_the_indices_of_their_counters() {
        assert_eq!(PassReason::NotIp as u32, Counter::NotIp as u32);
        assert_eq!(DropReason::NotRemoved as u32, Counter::NotRemoved as u32);
        assert_eq!(Counter::NotIp.kind(), Kind::Pass);
        assert_eq!(Counter::NotRemoved.kind(), Kind::Drop);
    }
}
