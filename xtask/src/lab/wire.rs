//! What is special about a director's cables.
//!
//! **Far ends that take what XDP transmits.** A driver's `XDP_TX` needs a partner on the wire. Between
//! two veths that is a native XDP program on the peer: without one the kernel puts the frames into the
//! peer's ring and never looks there (`veth_xdp_flush` asks for the peer's program; GRO on the peer
//! helps redirected frames only). So a program that passes everything goes there.
//!
//! **Tags on the wire.** Not every kernel can make VLAN devices, and a fabric would need one a port. So
//! tc programs at both ends of the cable push a tag on what leaves, and pop it from what
//! arrives. Both kernels see packets without tags; XDP, which comes before tc, sees the tags.

use std::os::fd::OwnedFd;

use anyhow::Result;

use super::bpf::{self, Instruction, Kind};
use super::{Host, Lab};
use crate::setup::Tools;

/// `r0 = XDP_PASS; exit`.
const PASS_ALL: [Instruction; 2] = [[0xb7, 0, 0, 0, 2, 0, 0, 0], EXIT];
/// `r0 = 0`, which is `TC_ACT_OK`.
const RETURN_OK: Instruction = [0xb7, 0, 0, 0, 0, 0, 0, 0];
const EXIT: Instruction = [0x95, 0, 0, 0, 0, 0, 0, 0];
/// `bpf_skb_vlan_push(skb, protocol, tag)`
const CALL_VLAN_PUSH: Instruction = [0x85, 0, 0, 0, 18, 0, 0, 0];
/// `bpf_skb_vlan_pop(skb)`, which leaves a packet without a tag as it is.
const CALL_VLAN_POP: Instruction = [0x85, 0, 0, 0, 19, 0, 0, 0];
/// The EtherType of a tag, as it is in memory.
const TPID: u16 = u16::from_ne_bytes([0x81, 0x00]);

/// The programs on the far ends of a director's cables; taken away when dropped.
#[derive(Debug)]
pub(super) struct Wires {
    _links: Vec<OwnedFd>,
}

impl Wires {
    /// Prepares the cables of a lab's `director`; what is on its `eth0` bears the tag.
    pub(super) fn prepare(lab: &Lab, director: &Host, tag: Option<u16>) -> Result<Self> {
        let program = bpf::load(Kind::Xdp, &PASS_ALL)?;
        let links = director
            .interfaces()
            .iter()
            .map(|it| {
                let (host, port) = lab.far_end(director, &it.name);
                bpf::attach_xdp(host, &port, &program)
            })
            .collect::<Result<_>>()?;
        if let Some(tag) = tag {
            let (host, port) = lab.far_end(director, "eth0");
            tag_packets(host, &port, tag)?;
            tag_packets(director, "eth0", tag)?;
        }
        Ok(Self { _links: links })
    }
}

/// Has one end of a cable tag what it sends, and take the tag from what it receives.
fn tag_packets(host: &Host, interface: &str, tag: u16) -> Result<()> {
    // Else the tag is handed on beside the packet, where XDP does not see it.
    host.offloads(interface, &["txvlan", "off", "rxvlan", "off"])?;
    let push = [
        set_register(2, i32::from(TPID)),
        set_register(3, i32::from(tag)),
        CALL_VLAN_PUSH,
        RETURN_OK,
        EXIT,
    ];
    let pop = [CALL_VLAN_POP, RETURN_OK, EXIT];
    let tc = |words: &[&str]| {
        host.namespace()
            .check(Tools::new()?.command("tc")?.args(words))
    };
    tc(&["qdisc", "add", "dev", interface, "clsact"])?;
    for (way, program) in [("egress", &push[..]), ("ingress", &pop)] {
        let pinned = format!("/sys/fs/bpf/{interface}-{way}");
        bpf::pin(host, &bpf::load(Kind::SchedCls, program)?, &pinned)?;
        let filter = ["filter", "add", "dev", interface, way, "bpf"];
        tc(&[&filter[..], &["direct-action", "object-pinned", &pinned]].concat())?;
    }
    Ok(())
}

/// `rN = value`
fn set_register(number: u8, value: i32) -> Instruction {
    let mut instruction = [0xb7, number, 0, 0, 0, 0, 0, 0];
    instruction[4..].copy_from_slice(&value.to_ne_bytes());
    instruction
}
