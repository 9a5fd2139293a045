//! Gaps in forwarding, as a client sees them: a datagram a millisecond to a VIP, echoed by the backends.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::host::Host;

/// Time between two datagrams.
const PACE: Duration = Duration::from_millis(1);
/// How long a socket waits before it looks whether it is over.
const TURN: Duration = Duration::from_millis(20);
/// How long the last answers are waited for.
const LAST_ANSWERS: Duration = Duration::from_millis(200);
/// It ends by itself after so many datagrams.
const MOST: usize = 120_000;

/// Sends a host's datagrams back, until it is dropped.
#[derive(Debug)]
pub struct Echo {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Echo {
    /// Begins, on an address of the host.
    pub fn start(host: &Host, at: SocketAddr) -> Result<Self> {
        let socket = bind(host, at)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = host.namespace().thread("echo", move || {
            let mut buffer = [0; 64];
            while !over.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    // Who cannot be answered now asks again.
                    let _ = socket.send_to(&buffer[..length], from);
                }
            }
            Ok(())
        })?;
        Ok(Self {
            is_over,
            thread: Some(thread),
        })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A client that measures.
#[derive(Debug)]
pub struct Meter {
    is_over: Arc<AtomicBool>,
    sent: Arc<Mutex<Vec<Instant>>>,
    answered: Arc<Mutex<Vec<usize>>>,
    threads: Vec<JoinHandle<Result<()>>>,
}

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Datagrams sent.
    pub sent: usize,
    /// Of those, the ones that were answered.
    pub answered: usize,
    /// Times between two answered datagrams, of which none between was answered, longest first.
    pub gaps: Vec<Duration>,
}

impl Gaps {
    /// The longest one; zero if there was none.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.gaps.first().copied().unwrap_or_default()
    }
}

impl Meter {
    /// Begins to send from a host to an echo.
    pub fn start(host: &Host, to: SocketAddr) -> Result<Self> {
        let any = SocketAddr::new(
            match to {
                SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
            },
            0,
        );
        let socket = bind(host, any)?;
        host.run(|| socket.connect(to))?;
        let socket = Arc::new(socket);
        let is_over = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(Mutex::new(Vec::new()));
        let answered = Arc::new(Mutex::new(Vec::new()));
        let sender = {
            let (socket, sent, is_over) = (socket.clone(), sent.clone(), is_over.clone());
            host.namespace()
                .thread("meter", move || send(&socket, &sent, &is_over))?
        };
        let receiver = {
            let (answered, is_over) = (answered.clone(), is_over.clone());
            host.namespace()
                .thread("answers", move || receive(&socket, &answered, &is_over))?
        };
        Ok(Self {
            is_over,
            sent,
            answered,
            threads: vec![sender, receiver],
        })
    }

    /// How many datagrams were answered so far.
    #[must_use]
    pub fn answered(&self) -> usize {
        lock(&self.answered).len()
    }

    /// Stops, and says what there was.
    pub fn finish(mut self) -> Result<Gaps> {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread
                .join()
                .map_err(|_| anyhow!("a meter's thread failed"))??;
        }
        Ok(gaps(&lock(&self.sent), &lock(&self.answered)))
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

fn bind(host: &Host, at: SocketAddr) -> Result<UdpSocket> {
    let socket = host
        .run(|| UdpSocket::bind(at))
        .with_context(|| format!("cannot listen on {at} of {}", host.name()))?;
    socket.set_read_timeout(Some(TURN))?;
    Ok(socket)
}

fn send(socket: &UdpSocket, sent: &Mutex<Vec<Instant>>, is_over: &AtomicBool) -> Result<()> {
    let begin = Instant::now();
    for number in 0..MOST {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let due = begin + PACE * u32::try_from(number)?;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        lock(sent).push(Instant::now());
        // An ICMP error for an earlier one: this one was not sent, and is not answered.
        let _ = socket.send(&(number as u64).to_be_bytes());
    }
    Ok(())
}

fn receive(socket: &UdpSocket, answered: &Mutex<Vec<usize>>, is_over: &AtomicBool) -> Result<()> {
    let mut buffer = [0; 64];
    let mut until = None;
    loop {
        if let Ok(length) = socket.recv(&mut buffer)
            && let Some(number) = buffer[..length].first_chunk::<8>()
        {
            lock(answered).push(usize::try_from(u64::from_be_bytes(*number))?);
        }
        if is_over.load(Ordering::Relaxed) {
            let until = *until.get_or_insert_with(|| Instant::now() + LAST_ANSWERS);
            if Instant::now() >= until {
                return Ok(());
            }
        }
    }
}

fn gaps(sent: &[Instant], answered: &[usize]) -> Gaps {
    let mut numbers = answered.to_vec();
    numbers.sort_unstable();
    numbers.dedup();
    let mut gaps: Vec<Duration> = numbers
        .windows(2)
        .filter(|pair| pair[1] > pair[0] + 1)
        .map(|pair| sent[pair[1]] - sent[pair[0]])
        .collect();
    gaps.sort_unstable_by(|a, b| b.cmp(a));
    Gaps {
        sent: sent.len(),
        answered: numbers.len(),
        gaps,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_between_answers_that_have_others_missing_between() {
        let begin = Instant::now();
        let sent: Vec<_> = (0..10).map(|number| begin + PACE * number).collect();
        // In another order, one twice; the last two are not answered, which is no gap yet.
        let found = gaps(&sent, &[0, 2, 1, 2, 5, 7]);
        assert_eq!((found.sent, found.answered), (10, 5));
        assert_eq!(found.gaps, [PACE * 3, PACE * 2]);
        assert_eq!(gaps(&sent, &[]).longest(), Duration::ZERO);
    }
}
