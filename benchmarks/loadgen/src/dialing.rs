//! Logging in.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::engine::{Engine, Event, Id};
use crate::histogram::Histogram;
use crate::peer::{Peer, Stranger, text};
use crate::wire::Wrong;

const POLL: Duration = Duration::from_millis(100);
/// Connections of a crowd from one source address, and the first port of each address. These ports lie below those that
/// Linux gives out (`net.ipv4.ip_local_port_range`): to look for a free one among thousands that are taken would take
/// 3 ms for each connection, and whoever else connects would not find any.
const PER_ADDRESS: usize = 20_000;
const FIRST_PORT: u16 = 12_000;
/// What the first 20,000 of a crowd come from.
const FIRST_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);

/// Where and how clients log in.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    pub address: SocketAddrV4,
    pub is_web: bool,
    /// The number of the first connection of a crowd, whose numbers decide on the addresses that they come from.
    pub first: Option<usize>,
    /// Log-ins at a time.
    pub parallel: usize,
    /// Longest time for all.
    pub limit: Duration,
}

/// How logging in went.
pub struct Dialing {
    pub seconds: f64,
    pub latency: Histogram,
    /// Connections that the server closed, so that they were made again.
    pub repeated: u64,
}

impl Engine {
    /// Log in everybody, at most `gate.parallel` at a time; ids are given in their order. A connection that is closed before it is accepted is made
    /// again; one that is refused is an error.
    pub fn dial(&mut self, strangers: Vec<Stranger>, gate: &Gate) -> Result<Dialing, Wrong> {
        let (count, mut strangers) = (strangers.len(), strangers.into_iter());
        let mut found = Dialing { seconds: 0.0, latency: Histogram::default(), repeated: 0 };
        let (start, mut done, mut busy, mut events) = (Instant::now(), 0, 0, Vec::new());
        while done < count {
            for stranger in strangers.by_ref().take(gate.parallel - busy) {
                self.open(stranger, gate)?;
                busy += 1;
            }
            if start.elapsed() > gate.limit {
                return Err(format!("{done} of {count} were logged in after {} seconds", gate.limit.as_secs()));
            }
            self.wait(POLL, &mut events)?;
            for event in &events {
                match *event {
                    Event::Ready(id) => {
                        found.latency.add(self.peers[id as usize].dialed.elapsed().as_nanos() as u64);
                        (done, busy) = (done + 1, busy - 1);
                    }
                    Event::Lost(id) => {
                        found.repeated += 1;
                        if found.repeated > count as u64 {
                            return Err(format!("{done} of {count} were logged in, {count} connections were closed"));
                        }
                        self.dial_again(id, gate)?;
                    }
                    _ => {}
                }
            }
        }
        found.seconds = start.elapsed().as_secs_f64();
        Ok(found)
    }

    fn open(&mut self, stranger: Stranger, gate: &Gate) -> Result<(), Wrong> {
        let id = self.peers.len();
        let peer = Peer::new(stranger, connecting(id, gate)?, gate.is_web);
        self.register(&peer.socket, id)?;
        self.peers.push(peer);
        Ok(())
    }

    fn dial_again(&mut self, id: Id, gate: &Gate) -> Result<(), Wrong> {
        let socket = connecting(id as usize, gate)?;
        self.register(&socket, id as usize)?;
        self.peers[id as usize].begin_again(socket);
        Ok(())
    }

    fn register(&self, socket: &OwnedFd, id: usize) -> Result<(), Wrong> {
        let interest = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&self.epoll, socket, epoll::EventData::new_u64(id as u64), interest).map_err(text)
    }
}

/// Begin a connection.
fn connecting(id: usize, gate: &Gate) -> Result<OwnedFd, Wrong> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
        .map_err(|error| format!("no socket for connection {id}: {error}"))?;
    if let Some(first) = gate.first {
        bind(&socket, source(first + id))?;
    }
    match rustix::net::connect(&socket, &gate.address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(format!("no connection to {}: {error}", gate.address)),
    }
}

/// Return the address that a connection of a crowd comes from.
fn source(number: usize) -> SocketAddrV4 {
    let host = Ipv4Addr::from_bits(FIRST_SOURCE.to_bits() + (number / PER_ADDRESS) as u32);
    SocketAddrV4::new(host, FIRST_PORT + (number % PER_ADDRESS) as u16)
}

/// Bind an address, also one that a connection had that is over; where somebody else has its port, any port.
fn bind(socket: &OwnedFd, address: SocketAddrV4) -> Result<(), Wrong> {
    rustix::net::sockopt::set_socket_reuseaddr(socket, true).map_err(text)?;
    match rustix::net::bind(socket, &address) {
        Err(Errno::ADDRINUSE) => rustix::net::bind(socket, &SocketAddrV4::new(*address.ip(), 0)).map_err(text),
        done => done.map_err(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_comes_from_several_addresses() {
        assert_eq!(source(0), "127.0.1.1:12000".parse().unwrap());
        assert_eq!(source(19_999), "127.0.1.1:31999".parse().unwrap());
        assert_eq!(source(20_000), "127.0.1.2:12000".parse().unwrap());
        assert_eq!(source(99_999), "127.0.1.5:31999".parse().unwrap());
    }
}
