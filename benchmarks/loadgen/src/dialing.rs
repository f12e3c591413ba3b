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
/// Connections from one source address: fewer than there are ports for them.
const PER_ADDRESS: usize = 20_000;

/// Where and how clients log in.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    pub address: SocketAddrV4,
    pub is_web: bool,
    /// The number of the first connection, which decides on the address that it comes from.
    pub first: usize,
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
        let peer = Peer::new(stranger, connecting(gate.first + id, gate.address)?, gate.is_web);
        self.register(&peer.socket, id)?;
        self.peers.push(peer);
        Ok(())
    }

    fn dial_again(&mut self, id: Id, gate: &Gate) -> Result<(), Wrong> {
        let socket = connecting(gate.first + id as usize, gate.address)?;
        self.register(&socket, id as usize)?;
        self.peers[id as usize].begin_again(socket);
        Ok(())
    }

    fn register(&self, socket: &OwnedFd, id: usize) -> Result<(), Wrong> {
        let interest = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&self.epoll, socket, epoll::EventData::new_u64(id as u64), interest).map_err(text)
    }
}

/// Begin a connection from the loopback address that number `number` has.
fn connecting(number: usize, address: SocketAddrV4) -> Result<OwnedFd, Wrong> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
        .map_err(|error| format!("no socket for connection {number}: {error}"))?;
    if number >= PER_ADDRESS {
        let source = Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + (number / PER_ADDRESS) as u32);
        rustix::net::bind(&socket, &SocketAddrV4::new(source, 0)).map_err(text)?;
    }
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(format!("no connection to {address}: {error}")),
    }
}
