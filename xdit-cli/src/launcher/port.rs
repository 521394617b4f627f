//! The port of the rendezvous.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::{self, AddressFamily, SocketType, sockopt};

/// A port of this host that nobody gets by chance while this value lives.
///
/// Its socket is bound and does not listen. On Linux, another socket that asks for this very port gets it, because both allow
/// addresses to be used again; one that asks for any free port, or connects, gets another. On other systems the port is only free
/// at the moment of the choice.
#[derive(Debug)]
pub(crate) struct ReservedPort {
    pub(crate) number: u16,
    _socket: Option<OwnedFd>,
}

impl ReservedPort {
    /// Reserves a free port.
    pub(crate) fn any() -> io::Result<Self> {
        let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
        let address = SocketAddrV4::try_from(net::getsockname(&socket)?)?;
        Ok(Self {
            number: address.port(),
            _socket: cfg!(target_os = "linux").then_some(socket),
        })
    }
}

/// A port of another host, on which nothing can be reserved: any below those that systems give to connections.
pub(super) fn of_another_host() -> u16 {
    let drawn = RandomState::new().build_hasher().finish();
    20_000 + (drawn % 12_000) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::net::{TcpListener, TcpStream};

    #[cfg(target_os = "linux")]
    #[test]
    fn who_asks_for_the_port_gets_it_and_nobody_else() {
        let port = ReservedPort::any().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number)).unwrap();
        TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_ne!(ReservedPort::any().unwrap().number, port.number);
        drop(listener);
        let others: Vec<_> = (0..200)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
            .collect();
        let others = others.iter().map(|it| it.local_addr().unwrap().port());
        assert!(!others.collect::<BTreeSet<_>>().contains(&port.number));
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port.number)).unwrap();
    }

    #[test]
    fn ports_of_other_hosts_are_below_those_of_connections() {
        for _ in 0..1000 {
            assert!((20_000..32_000).contains(&of_another_host()));
        }
    }
}
