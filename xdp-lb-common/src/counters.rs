//! Every counter of the data plane, named once: the program counts by these, and the command line,
//! the metrics and the documentation read their names and texts from here.
//!
//! Here are those of the director's program; [`decap`] has those of the backends'.

/// What a counter tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The packet was sent on to a backend.
    Forward,
    /// The packet was left to the kernel.
    Pass,
    /// The packet was dropped.
    Drop,
    /// Something worth counting happened on a packet's way; not a verdict.
    Event,
}

impl Kind {
    /// Lower-case name, as in the metrics' `verdict` label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Event => "event",
        }
    }
}

macro_rules! counters {
    (
        verdicts { $($forward:ident $forward_name:literal $forward_text:literal,)* }
        $reason_doc:literal $pass_enum:ident { $($pass:ident $pass_name:literal $pass_text:literal,)* }
        $drop_doc:literal $drop_enum:ident { $($drop:ident $drop_name:literal $drop_text:literal,)* }
        $($event_doc:literal $event_enum:ident { $($event:ident $event_name:literal $event_text:literal,)* })?
    ) => {
        /// An index into the counters' map. Each packet adds to exactly one that is a verdict.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Counter {
            $(#[doc = $forward_text] $forward,)*
            $(#[doc = $pass_text] $pass,)*
            $(#[doc = $drop_text] $drop,)*
            $($(#[doc = $event_text] $event,)*)?
        }

        impl Counter {
            /// All of them, in the order of their indices.
            pub const ALL: &[Self] = &[
                $(Self::$forward,)* $(Self::$pass,)* $(Self::$drop,)* $($(Self::$event,)*)?
            ];

            /// How many there are.
            pub const COUNT: u32 = Self::ALL.len() as u32;

            /// Name, as the command line and the metrics show it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$forward => $forward_name,)* $(Self::$pass => $pass_name,)*
                    $(Self::$drop => $drop_name,)* $($(Self::$event => $event_name,)*)?
                }
            }

            /// One sentence that explains it.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$forward => $forward_text,)* $(Self::$pass => $pass_text,)*
                    $(Self::$drop => $drop_text,)* $($(Self::$event => $event_text,)*)?
                }
            }

            /// What it tells.
            #[must_use]
            pub const fn kind(self) -> Kind {
                match self {
                    $(Self::$forward => Kind::Forward,)* $(Self::$pass => Kind::Pass,)*
                    $(Self::$drop => Kind::Drop,)* $($(Self::$event => Kind::Event,)*)?
                }
            }
        }

        counters!(@reasons $reason_doc $pass_enum { $($pass $pass_text,)* });
        counters!(@reasons $drop_doc $drop_enum { $($drop $drop_text,)* });
        $(counters!(@reasons $event_doc $event_enum { $($event $event_text,)* });)?
    };
    (@reasons $doc:literal $enum:ident { $($variant:ident $text:literal,)* }) => {
        #[doc = $doc]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum $enum {
            $(#[doc = $text] $variant = Counter::$variant as u32,)*
        }
    };
}

pub mod decap;

counters! {
    verdicts {
        Forwarded "forwarded" "Sent on to a backend.",
    }
    "Why a packet was left to the kernel." PassReason {
        OtherHost "other_host" "To another host's MAC address, or a group's: flooded by a switch, or seen since the card is promiscuous.",
        NotIp "not_ip" "Neither IPv4 nor IPv6: ARP, more than two VLAN tags, anything else.",
        OtherProtocol "other_protocol" "Neither TCP nor UDP, nor an ICMP error about them: ping, neighbour discovery, VRRP, anything else.",
        NoService "no_service" "Not for a service.",
        LaterFragment "later_fragment" "A later fragment, which carries no ports, of a packet that is not for a service.",
        TunnelError "tunnel_error" "An ICMP error about a packet in a tunnel: it is for the director, not for a flow.",
        Truncated "truncated" "A header is cut off or its length is wrong; not known to be for a service.",
        TooManyHeaders "too_many_headers" "IPv6 with more extension headers than the program reads.",
        NoBackend "no_backend" "For a service that has no backend left; the kernel refuses it.",
    }
    "Why a packet was dropped." DropReason {
        FirstFragment "first_fragment" "The first fragment of a packet for a service that could not be remembered for the later ones.",
        EarlyFragment "early_fragment" "A later fragment of a packet for a VIP that came before its first, or long after it.",
        BadTcpHeader "bad_tcp_header" "For a service, with a TCP header that is cut off or shorter than it may be.",
        BadUdpHeader "bad_udp_header" "For a service, with a UDP header that is cut off or whose length is wrong.",
        BadSource "bad_source" "For a service, from an address that is nobody's: unspecified, loopback, multicast, reserved, or the VIP itself.",
        HopsExpired "hops_expired" "For a service, with a time to live, or hop limit, of 1 or 0: forwarding takes one.",
        TooBig "too_big" "Larger than what fits the way to its backend; the client is told by ICMP.",
        NoRoom "no_room" "The network driver left no room in front of the frame for another header.",
        BackendGone "backend_gone" "Its backend went away this very moment; the client will try again.",
    }
    "What may happen on a packet's way." Event {
        FlowCreated "flow_created" "A flow was remembered.",
        FlowNotCreated "flow_not_created" "A flow was not remembered, since new ones came too fast; it goes by its slot.",
        FlowExpired "flow_expired" "A packet came for a flow that had been silent for longer than its time.",
        FlowReopened "flow_reopened" "A SYN replaced a flow that had ended.",
        FlowFollowedPrevious "flow_followed_previous" "A flow that nobody remembered went to its slot's previous backend.",
        IcmpError "icmp_error" "An ICMP error about a packet of a flow went to the flow's backend.",
        OpeningCreated "opening_created" "A connection that opened on a moving slot was remembered.",
        OpeningNotCreated "opening_not_created" "A connection that opened on a moving slot was not remembered and went to the previous backend.",
        TooBigSent "too_big_sent" "A client was told by ICMP that its packet is too big.",
        TooBigNotSent "too_big_not_sent" "A client was not told that its packet is too big, by rate or since it cannot be.",
    }
}

impl Event {
    /// Name, as that of its counter.
    #[must_use]
    pub fn name(self) -> &'static str {
        Counter::ALL[self as usize].name()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::HashSet;

    use super::*;

    #[test]
    fn indices_are_positions() {
        for (position, &counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(
                usize::try_from(counter as u32).unwrap(),
                position,
                "{}",
                counter.name()
            );
        }
    }

    #[test]
    fn names_differ() {
        let names: HashSet<_> = Counter::ALL.iter().map(|counter| counter.name()).collect();
        assert_eq!(names.len(), Counter::ALL.len());
    }

    #[test]
    fn reasons_have_the_indices_of_their_counters() {
        assert_eq!(DropReason::BackendGone as u32, Counter::BackendGone as u32);
        assert_eq!(PassReason::NotIp as u32, Counter::NotIp as u32);
        assert_eq!(Event::FlowCreated as u32, Counter::FlowCreated as u32);
    }
}
