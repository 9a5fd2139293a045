//! Servers of UDP and ICMP in a network namespace that answer as a test wants.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use socket2::{Domain, Protocol, Socket, Type};
use xdp_lb_common::checksum;
use xtask::lab::Namespace;

/// How often servers look whether they are to end.
const TURN: Duration = Duration::from_millis(20);

/// A thread in a namespace that answers what comes to a socket; ends when dropped.
#[derive(Debug)]
pub struct Responder<T> {
    address: SocketAddr,
    received: Arc<Mutex<Vec<T>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A datagram that came, and from whom.
pub type Datagram = (Vec<u8>, SocketAddr);

impl Responder<Datagram> {
    /// A UDP server on a port of its own; `answer` gets its socket, and each datagram with its sender.
    pub fn udp(
        namespace: &Namespace,
        address: IpAddr,
        mut answer: impl FnMut(&UdpSocket, &[u8], SocketAddr) + Send + 'static,
    ) -> Result<Self> {
        let socket = namespace.run(|| UdpSocket::bind((address, 0)))?;
        let address = socket.local_addr()?;
        socket.set_read_timeout(Some(TURN))?;
        Self::start(namespace, address, move || {
            let mut buffer = [0; 2048];
            let (length, from) = socket.recv_from(&mut buffer).ok()?;
            answer(&socket, &buffer[..length], from);
            Some((buffer[..length].to_vec(), from))
        })
    }

    /// A UDP server that answers each datagram with all of these.
    pub fn udp_saying(namespace: &Namespace, address: IpAddr, answers: &[&[u8]]) -> Result<Self> {
        let answers: Vec<Vec<u8>> = answers.iter().map(|answer| answer.to_vec()).collect();
        Self::udp(namespace, address, move |socket, _, from| {
            for answer in &answers {
                // A refusal means that whoever asked has heard enough.
                let _ = socket.send_to(answer, from);
            }
        })
    }
}

/// An echo request that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Who sent it.
    pub from: IpAddr,
    /// Whether the packet may not be fragmented; always so for IPv6.
    pub is_whole: bool,
    /// The ICMP message.
    pub message: Vec<u8>,
}

impl Ping {
    /// Takes a packet as raw sockets receive it apart; None: it is something else.
    fn parse(packet: &[u8], address: IpAddr) -> Option<Self> {
        let (from, is_whole, message, request) = match address {
            IpAddr::V4(_) => {
                let header = usize::from(packet.first()? & 0xf) * 4;
                let from: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
                let is_whole = packet.get(6)? & 0x40 != 0;
                (from.into(), is_whole, packet.get(header..)?, 8)
            }
            // Raw sockets of IPv6 are not told of the header; whoever asks has the same address.
            IpAddr::V6(_) => (address, true, packet, 128),
        };
        (*message.first()? == request).then(|| Self {
            from,
            is_whole,
            message: message.to_vec(),
        })
    }

    /// The right answer to it.
    #[must_use]
    pub fn answer(&self) -> Vec<u8> {
        let mut answer = self.message.clone();
        answer[0] = if self.from.is_ipv4() { 0 } else { 129 };
        answer
    }
}

impl Responder<Ping> {
    /// Answers echo requests to `address` in place of the kernel, whose own answers must be switched off.
    /// `answer` gets what sends ICMP messages (of which it makes the checksum), and each request.
    pub fn icmp(
        namespace: &Namespace,
        address: IpAddr,
        mut answer: impl FnMut(&dyn Fn(&[u8]), &Ping) + Send + 'static,
    ) -> Result<Self> {
        let bound = SocketAddr::new(address, 0);
        let protocol = match address {
            IpAddr::V4(_) => Protocol::ICMPV4,
            IpAddr::V6(_) => Protocol::ICMPV6,
        };
        let socket =
            namespace.run(|| Socket::new(Domain::for_address(bound), Type::RAW, Some(protocol)))?;
        socket.bind(&bound.into())?;
        socket.set_read_timeout(Some(TURN))?;
        Self::start(namespace, bound, move || {
            let mut buffer = [0; 4096];
            let length = (&socket).read(&mut buffer).ok()?;
            let ping = Ping::parse(&buffer[..length], address)?;
            let send = |message: &[u8]| {
                let mut message = message.to_vec();
                // The kernel does it for IPv6.
                if address.is_ipv4() {
                    message[2..4].fill(0);
                    let checksum = checksum::of(&message);
                    message[2..4].copy_from_slice(&checksum);
                }
                // Whoever asked may be gone; the test shows what that means.
                let _ = socket.send_to(&message, &SocketAddr::new(ping.from, 0).into());
            };
            answer(&send, &ping);
            Some(ping)
        })
    }
}

impl<T: Send + 'static> Responder<T> {
    /// Lets `turn` receive and answer again and again; it returns what came, and does not wait for long.
    fn start(
        namespace: &Namespace,
        address: SocketAddr,
        mut turn: impl FnMut() -> Option<T> + Send + 'static,
    ) -> Result<Self> {
        let received = Arc::new(Mutex::new(Vec::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let (log, end) = (Arc::clone(&received), Arc::clone(&is_over));
        let thread = namespace.thread("responder", move || {
            while !end.load(Ordering::Relaxed) {
                if let Some(came) = turn() {
                    log.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(came);
                }
            }
        })?;
        Ok(Self {
            address,
            received,
            is_over,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it. Returns what came.
    #[must_use]
    pub fn end(self) -> Vec<T> {
        let received = Arc::clone(&self.received);
        drop(self);
        let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *received)
    }
}

impl<T> Drop for Responder<T> {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What panicked there has been printed.
            let _ = thread.join();
        }
    }
}
