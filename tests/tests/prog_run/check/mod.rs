//! The programs that steer health checks: what becomes of marked packets, and of their answers.

mod answers;
mod questions;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use xdp_lb::dataplane::check::Way;
use xdp_lb_common::check::Target;
use xdp_lb_tests::{
    check::{Expected, Packet, Steerer, entropy, mapped},
    packet::Frame,
    tunnel::{GUE_PORT, gue, ipip},
};

/// Addresses of one family.
#[derive(Clone, Copy, Debug)]
struct Family {
    /// The director's own address, and its port or identifier.
    director: SocketAddr,
    /// The backend's own address, and the port that is checked.
    backend: SocketAddr,
    vip: SocketAddr,
    /// The source of outer headers, which is another one than the director's.
    tunnel_source: IpAddr,
}

const V4: Family = Family {
    director: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 40_001),
    backend: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 11)), 80),
    vip: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)), 80),
    tunnel_source: IpAddr::V4(Ipv4Addr::new(10, 0, 1, 2)),
};
const V6: Family = Family {
    director: SocketAddr::new(
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 2)),
        40_001,
    ),
    backend: SocketAddr::new(
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x11)),
        80,
    ),
    vip: SocketAddr::new(
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x10, 0, 0, 0, 0, 0x10)),
        80,
    ),
    tunnel_source: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 2)),
};
const FAMILIES: [Family; 2] = [V4, V6];

/// The flags of each forwarding mode.
const MODES: [u16; 3] = [0, Target::FLAG_IPIP, Target::FLAG_GUE];

const MARK: u32 = 0x00ab_0001;

impl Family {
    fn target(&self, flags: u16) -> Target {
        Target {
            vip: mapped(self.vip.ip()),
            backend: mapped(self.backend.ip()),
            tunnel_source: mapped(self.tunnel_source),
            flags,
            gue_port_be: GUE_PORT.to_be_bytes(),
            ..Target::default()
        }
    }

    /// What a packet to the backend becomes.
    fn steered(&self, packet: &Packet, flags: u16) -> Frame {
        self.wrapped(packet, packet.clone().to(self.vip).into(), flags)
    }

    /// What the packet for the VIP, `frame`, becomes; it has the traffic class 0 and may not be fragmented.
    fn wrapped(&self, packet: &Packet, frame: Frame, flags: u16) -> Frame {
        let (port, label) = entropy(&packet.flow(self.vip.ip()));
        let (source, backend) = (self.tunnel_source, self.backend.ip());
        let tunnel = match flags {
            Target::FLAG_IPIP => ipip(source, backend, frame),
            Target::FLAG_GUE => gue(source, backend, frame).ports(port, GUE_PORT),
            _ => return frame,
        };
        tunnel.flow_label(label).into()
    }
}

/// A packet, by which way it goes, and what should become of it.
struct Case {
    what: String,
    way: Way,
    mark: u32,
    frame: Frame,
    expected: Expected,
}

/// A packet with [`MARK`] on its way out.
fn out(what: impl Into<String>, frame: impl Into<Frame>, expected: Expected) -> Case {
    Case {
        what: what.into(),
        way: Way::Out,
        mark: MARK,
        frame: frame.into(),
        expected,
    }
}

/// A packet on its way in.
fn come(what: impl Into<String>, frame: impl Into<Frame>, expected: Expected) -> Case {
    Case {
        way: Way::In,
        mark: 0,
        ..out(what, frame, expected)
    }
}

/// Runs all of them and names those that came out otherwise.
#[track_caller]
fn check(steerer: &mut Steerer, cases: &[Case]) {
    assert!(!cases.is_empty());
    let failed = cases.iter().filter_map(|case| {
        let differences = steerer.differences(case.way, case.mark, &case.frame, &case.expected);
        (!differences.is_empty()).then(|| format!("\n{}: {differences}", case.what))
    });
    let failed: Vec<_> = failed.collect();
    assert!(failed.is_empty(), "{}", failed.concat());
}
