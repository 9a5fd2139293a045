//! TCP servers that answer as no server should.

use std::io::{self, Read as _, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use socket2::SockRef;
use tokio_rustls::rustls::{ServerConnection, StreamOwned};
use xtask::lab::Namespace;

use crate::identity::Identity;

/// How long a server waits for a client that says nothing, and between two looks whether it is to end.
const TURN: Duration = Duration::from_millis(20);

/// A good answer of a web server.
pub const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";

/// What a server does with each connection.
#[derive(Clone, Debug)]
pub enum Manner {
    /// It accepts, and never says anything.
    Hangs,
    /// It resets the connection at once: the client may learn of it as soon as it is connected, or later.
    Resets,
    /// It resets the connection when it has read the request.
    ResetsRequests,
    /// It closes the connection when it has read the request.
    Closes,
    /// It sends its answer a byte at a time, with a pause before each.
    Slow(Duration),
    /// It sends headers without an end.
    EndlessHeaders,
    /// It sends one interim answer after another.
    EndlessInterim,
    /// It sends a body without an end, which does not have what is looked for.
    EndlessBody,
    /// It sends this, whatever it is asked, and closes when the client has.
    Says(&'static [u8]),
    /// Once it is asked, it sends the first of these and then the second without an end, and reads nothing.
    Floods(&'static [u8], &'static [u8]),
    /// It speaks TLS with this certificate, and answers well.
    Tls(Identity),
}

/// A server; it ends when dropped, with all of its connections.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
    is_over: Arc<AtomicBool>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Server {
    /// Starts a server in a namespace; port 0: any.
    pub fn start(
        namespace: &Namespace,
        address: IpAddr,
        port: u16,
        manner: Manner,
    ) -> Result<Self> {
        let listener = namespace
            .run(|| TcpListener::bind((address, port)))
            .with_context(|| format!("cannot listen on {address} port {port}"))?;
        listener.set_nonblocking(true)?;
        let server = Self {
            address: listener.local_addr()?,
            accepted: Arc::default(),
            requests: Arc::default(),
            is_over: Arc::default(),
            threads: Arc::default(),
        };
        let accepted = Arc::clone(&server.accepted);
        let requests = Arc::clone(&server.requests);
        let is_over = Arc::clone(&server.is_over);
        let threads = Arc::clone(&server.threads);
        let accepting = thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    thread::sleep(TURN / 4);
                    continue;
                };
                accepted.fetch_add(1, Ordering::Relaxed);
                let (manner, is_over) = (manner.clone(), Arc::clone(&is_over));
                let requests = Arc::clone(&requests);
                let thread = thread::spawn(move || {
                    // Clients break off, which is what is to be tested.
                    let _ = serve(stream, &manner, &requests, &is_over);
                });
                let mut threads = lock(&threads);
                threads.retain(|thread| !thread.is_finished());
                threads.push(thread);
            }
        });
        lock(&server.threads).push(accepting);
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Whether all connections so far have ended.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let threads = lock(&self.threads);
        // The first one accepts.
        threads.iter().skip(1).all(JoinHandle::is_finished)
    }

    /// What clients have sent, as far as it was read: up to an empty line, or until they were silent.
    #[must_use]
    pub fn requests(&self) -> Vec<Vec<u8>> {
        lock(&self.requests).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        loop {
            let Some(thread) = lock(&self.threads).pop() else {
                return;
            };
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(
    mut stream: TcpStream,
    manner: &Manner,
    requests: &Mutex<Vec<Vec<u8>>>,
    is_over: &AtomicBool,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(TURN))?;
    stream.set_read_timeout(Some(TURN))?;
    if matches!(manner, Manner::Resets) {
        return SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
    if let Manner::Floods(first, then) = manner {
        // So that it is soon full.
        SockRef::from(&stream).set_recv_buffer_size(4096)?;
        // An answer to nothing would be another fault, where it comes before the request is sent.
        wait_for_request(&stream, is_over)?;
        stream.write_all(first)?;
        return forever(&mut stream, &then.repeat(1000), is_over);
    }
    if let Manner::Tls(identity) = manner {
        let connection = ServerConnection::new(identity.config());
        let mut stream = StreamOwned::new(connection.map_err(io::Error::other)?, stream);
        let request = read_request(&mut stream, is_over)?;
        lock(requests).push(request);
        stream.write_all(GOOD)?;
        return wait_for_end(&mut stream.sock, is_over);
    }
    let request = read_request(&mut stream, is_over)?;
    lock(requests).push(request);
    match manner {
        Manner::ResetsRequests => {
            SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        }
        Manner::Slow(pause) => {
            for byte in GOOD {
                thread::sleep(*pause);
                if is_over.load(Ordering::Relaxed) {
                    return Ok(());
                }
                stream.write_all(&[*byte])?;
            }
        }
        Manner::EndlessHeaders => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
            let line = format!("X-Endless: {}\r\n", "x".repeat(500));
            forever(&mut stream, line.as_bytes(), is_over)?;
        }
        Manner::EndlessInterim => {
            forever(
                &mut stream,
                b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
                is_over,
            )?;
        }
        Manner::EndlessBody => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            forever(&mut stream, &[b'x'; 8192], is_over)?;
        }
        Manner::Says(answer) => {
            stream.write_all(answer)?;
            // To close with something unread would take the answer back.
            stream.shutdown(Shutdown::Write)?;
            wait_for_end(&mut stream, is_over)?;
        }
        Manner::Hangs => wait_for_end(&mut stream, is_over)?,
        Manner::Closes | Manner::Resets | Manner::Floods(..) | Manner::Tls(_) => {}
    }
    Ok(())
}

/// Reads until an empty line, or until the client is silent.
fn read_request(stream: &mut impl io::Read, is_over: &AtomicBool) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    while !is_over.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => read.extend_from_slice(&buffer[..length]),
            Err(error) if is_late(&error) && read.is_empty() => {}
            Err(error) if is_late(&error) => break,
            Err(error) => return Err(error),
        }
        if read.windows(4).any(|end| end == b"\r\n\r\n") {
            break;
        }
    }
    Ok(read)
}

/// Waits for the first byte, and leaves it unread.
fn wait_for_request(stream: &TcpStream, is_over: &AtomicBool) -> io::Result<()> {
    while !is_over.load(Ordering::Relaxed) {
        match stream.peek(&mut [0]) {
            Err(error) if is_late(&error) => {}
            other => return other.map(drop),
        }
    }
    Ok(())
}

/// Writes the same again and again, until the client has gone.
fn forever(stream: &mut impl Write, bytes: &[u8], is_over: &AtomicBool) -> io::Result<()> {
    let mut rest = bytes;
    while !is_over.load(Ordering::Relaxed) {
        match stream.write(rest) {
            Ok(length) => rest = &rest[length..],
            Err(error) if is_late(&error) => {}
            Err(error) => return Err(error),
        }
        if rest.is_empty() {
            rest = bytes;
        }
    }
    Ok(())
}

fn wait_for_end(stream: &mut TcpStream, is_over: &AtomicBool) -> io::Result<()> {
    let mut buffer = [0; 64];
    while !is_over.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Err(error) if !is_late(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn is_late(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}
