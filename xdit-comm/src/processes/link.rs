//! Connections: how they are made, and what is heard on them.

use super::wire::{Frame, FrameDecoder};
use crate::{Error, Result};
use std::{
    io::{self, ErrorKind, Read},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

/// What has been heard on a connection.
#[derive(Debug)]
pub(super) enum Heard {
    Frame(Frame),
    /// No whole frame for a short time.
    Nothing,
    /// Nothing for the whole limit.
    Silence,
    /// The other side has closed the connection, or it is broken.
    End,
    /// Bytes that are no frame.
    Nonsense(String),
}

/// The receiving end of a connection.
#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    decoder: FrameDecoder,
    chunk: Vec<u8>,
    tick: Duration,
    limit: Duration,
    silent: Duration,
    last: Instant,
}

impl Link {
    /// `limit` is how long the other side may say nothing; a reader looks up every `tick`.
    pub(super) fn new(
        stream: TcpStream,
        decoder: FrameDecoder,
        tick: Duration,
        limit: Duration,
    ) -> io::Result<Self> {
        stream.set_read_timeout(Some(tick))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            decoder,
            chunk: vec![0; 16 << 10],
            tick,
            limit,
            silent: Duration::ZERO,
            last: Instant::now(),
        })
    }

    /// Waits for the next frame, for two ticks at most.
    pub(super) fn hear(&mut self) -> Heard {
        let began = Instant::now();
        loop {
            match self.decoder.next() {
                Ok(Some(frame)) => return Heard::Frame(frame),
                // A frame that arrives slowly must not keep the caller from its beats and from its end.
                Ok(None) if began.elapsed() >= self.tick => return Heard::Nothing,
                Ok(None) => {}
                Err(reason) => return Heard::Nonsense(reason),
            }
            match self.stream.read(&mut self.chunk) {
                Ok(0) => return Heard::End,
                Ok(read) => {
                    self.silent = Duration::ZERO;
                    self.last = Instant::now();
                    self.decoder.push(&self.chunk[..read]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    // While this process did not run, it could not hear: a gap counts as two ticks at most.
                    self.silent += self.last.elapsed().min(2 * self.tick);
                    self.last = Instant::now();
                    return match self.silent >= self.limit {
                        true => Heard::Silence,
                        false => Heard::Nothing,
                    };
                }
                Err(_) => return Heard::End,
            }
        }
    }

    /// Waits for bytes, for one tick at most, and keeps none. Returns false at the end of the connection.
    pub(super) fn discard(&mut self) -> bool {
        match self.stream.read(&mut self.chunk) {
            Ok(read) => read > 0,
            Err(error) => matches!(
                error.kind(),
                ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut
            ),
        }
    }
}

/// The port of a `host:port`.
fn port_of(rendezvous: &str) -> Result<u16> {
    let port = rendezvous.rsplit_once(':');
    let port = port.filter(|(host, _)| !host.is_empty());
    port.and_then(|(_, port)| port.parse().ok()).ok_or_else(|| {
        Error::Rendezvous(format!(
            "the rendezvous address is {rendezvous}; expected host:port, such as node1:29501 or [fd00::1]:29501"
        ))
    })
}

/// Whether only processes of this host can mean this host by that name.
fn is_local(rendezvous: &str) -> bool {
    let host = rendezvous.rsplit_once(':').map_or("", |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let ip = host.parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

/// Listens for the other ranks: on all interfaces, or on the loopback interface if that is the rendezvous.
pub(super) fn listen(rendezvous: &str) -> Result<TcpListener> {
    let port = port_of(rendezvous)?;
    let addresses: Vec<SocketAddr> = match is_local(rendezvous) {
        true => match rendezvous.to_socket_addrs() {
            Ok(addresses) => addresses.collect(),
            Err(_) => vec![(Ipv4Addr::LOCALHOST, port).into()],
        },
        false => {
            let mut all: Vec<SocketAddr> = vec![
                (Ipv6Addr::UNSPECIFIED, port).into(),
                (Ipv4Addr::UNSPECIFIED, port).into(),
            ];
            // Where interfaces have no addresses of IPv6, as in many containers, the first can be bound all the same.
            if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
                all.reverse();
            }
            all
        }
    };
    let mut last = None;
    for address in addresses {
        match TcpListener::bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                return Err(Error::CannotListen(format!(
                    "rank 0 cannot listen on port {port}: another program uses it. Choose another port for the rendezvous"
                )));
            }
            Err(error) => last = Some(error),
        }
    }
    let reason = last.map_or_else(|| "it has no address".to_owned(), |e| e.to_string());
    Err(Error::CannotListen(format!(
        "rank 0 cannot listen at {rendezvous}: {reason}"
    )))
}

/// Connects to rank 0, which may start later. Returns the last reason if it could not within `limit`.
pub(super) fn connect(
    rendezvous: impl ToSocketAddrs,
    limit: Duration,
) -> Result<TcpStream, String> {
    let began = Instant::now();
    let mut pause = Duration::from_millis(10);
    loop {
        let left = |most: Duration| {
            let left = limit.saturating_sub(began.elapsed());
            left.clamp(Duration::from_millis(1), most)
        };
        let mut reason = "it has no address".to_owned();
        match rendezvous.to_socket_addrs() {
            Ok(addresses) => {
                for address in addresses {
                    match TcpStream::connect_timeout(&address, left(Duration::from_secs(3))) {
                        // Where nobody listens, a port of this host may be given to this connection itself.
                        Ok(stream) if stream.local_addr().ok() == Some(address) => {
                            reason = "nobody listens".to_owned();
                        }
                        Ok(stream) => return Ok(stream),
                        Err(error) => reason = error.to_string(),
                    }
                }
            }
            Err(error) => reason = error.to_string(),
        }
        if began.elapsed() >= limit {
            return Err(reason);
        }
        std::thread::sleep(left(pause));
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

/// Checks the form of a rendezvous address.
pub(super) fn check_address(rendezvous: &str) -> Result<()> {
    port_of(rendezvous).map(drop)
}
