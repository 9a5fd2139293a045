//! A datagram is answered as expected.

use std::io;

use tokio::net::UdpSocket;

use super::{Stage, Target, socket};
use crate::{
    config::Udp,
    health::{Cause, Kind},
};

/// Bytes of an answer that are looked at; the kernel throws the rest away.
const ANSWER: usize = 4096;

/// Sends a datagram, and looks at the first one that comes back.
pub(super) async fn ask(udp: &Udp, target: &Target, stage: &Stage) -> Result<(), Cause> {
    let socket = connect(target)?;
    let sent = socket.send(&udp.send.0).await;
    sent.map_err(|error| cause("send", &error))?;
    stage.set("waiting for an answer");
    let mut answer = [0; ANSWER];
    let length = receive(&socket, &mut answer).await?;
    match &udp.expect {
        Some(pattern) if !pattern.is_in(&answer[..length]) => {
            let text = if length == ANSWER {
                "answer: the pattern is not in its first 4 KiB".into()
            } else {
                format!("answer: the pattern is not in its {length} bytes")
            };
            Err(Cause::new(Kind::Answer, text))
        }
        _ => Ok(()),
    }
}

pub(super) fn connect(target: &Target) -> Result<UdpSocket, Cause> {
    socket::connect_udp(target).map_err(|error| cause("send", &error))
}

/// Waits for a datagram from the target.
pub(super) async fn receive(socket: &UdpSocket, into: &mut [u8]) -> Result<usize, Cause> {
    let received = socket.recv(into).await;
    received.map_err(|error| cause("receive", &error))
}

/// A refusal is an ICMP message: nobody has the port.
pub(super) fn cause(doing: &str, error: &io::Error) -> Cause {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        return Cause::new(Kind::Refused, "port unreachable");
    }
    Cause::io(doing, error)
}
