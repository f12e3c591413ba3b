//! One client and its connection.

use std::collections::VecDeque;
use std::mem::take;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::engine::{Event, Id};
use crate::keys::Keys;
use crate::websocket;
use crate::wire::{self, Wrong};

const MAX_UNSENT: usize = 64 << 20;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum State {
    Connecting,
    Upgrading,
    Greeting,
    Ready,
    Lost,
}

/// One who is to log in.
pub struct Stranger {
    uid: String,
    private_key: [u8; 32],
    public_key: [u8; 32],
}

/// Make the key pairs of those who are to log in, so that it does not happen while the clock runs.
pub fn strangers(uids: impl IntoIterator<Item = String>) -> Result<Vec<Stranger>, Wrong> {
    uids.into_iter().map(Stranger::new).collect()
}

impl Stranger {
    fn new(uid: String) -> Result<Self, Wrong> {
        let mut private_key = [0; 32];
        rustix::rand::getrandom(&mut private_key, rustix::rand::GetRandomFlags::empty()).map_err(text)?;
        Ok(Stranger { uid, private_key, public_key: wire::public_key(&private_key) })
    }
}

/// One client.
pub struct Peer {
    pub uid: String,
    /// Messages that it was sent, without repeats.
    pub received: u64,
    pub(crate) socket: OwnedFd,
    pub(crate) state: State,
    pub(crate) is_web: bool,
    private_key: [u8; 32],
    pub(crate) public_key: [u8; 32],
    pub(crate) accepted: Option<wire::Accepted>,
    pub(crate) keys: Option<Keys>,
    pub(crate) channel: (String, u8),
    pub(crate) sent: u32,
    /// When each message was sent that is not acknowledged, 0 for those that are; the last is number `sent`.
    pub(crate) waiting: VecDeque<u64>,
    pub(crate) last_seq: u32,
    /// When it sent its last PING.
    pub(crate) pinged: u64,
    pub(crate) rest: Vec<u8>,
    unsent: Vec<u8>,
    pub(crate) dialed: Instant,
}

impl Peer {
    /// Make one whose connection has begun.
    pub fn new(stranger: Stranger, socket: OwnedFd, is_web: bool) -> Self {
        Peer {
            uid: stranger.uid,
            received: 0,
            socket,
            state: State::Connecting,
            is_web,
            private_key: stranger.private_key,
            public_key: stranger.public_key,
            accepted: None,
            keys: None,
            channel: (String::new(), 0),
            sent: 0,
            waiting: VecDeque::new(),
            last_seq: 0,
            pinged: 0,
            rest: Vec::new(),
            unsent: Vec::new(),
            dialed: Instant::now(),
        }
    }

    /// Take a new connection for one that was lost before it was ready.
    pub fn begin_again(&mut self, socket: OwnedFd) {
        (self.socket, self.state) = (socket, State::Connecting);
        self.rest.clear();
        self.unsent.clear();
    }

    /// Make the keys of what was agreed on, once; that takes 50 µs.
    pub fn make_keys(&mut self) {
        if self.keys.is_none() {
            self.keys = self.accepted.as_ref().map(|accepted| wire::keys(&self.private_key, accepted));
        }
    }

    /// Say what a new connection says first.
    pub fn greet(&mut self, random: &mut u32) -> Result<(), Wrong> {
        rustix::net::sockopt::set_tcp_nodelay(&self.socket, true).map_err(text)?;
        let mut packet = Vec::new();
        if self.is_web {
            self.state = State::Upgrading;
            return self.write(&websocket::request());
        }
        self.state = State::Greeting;
        wire::connect(&self.uid, &self.public_key, &mut packet);
        let mut out = Vec::new();
        wrap(false, &packet, random, &mut out);
        self.write(&out)
    }

    /// Note that the connection is gone, which is an error if it was ready.
    pub fn lose(&mut self, id: usize, why: &str, events: &mut Vec<Event>) -> Result<(), Wrong> {
        if self.state == State::Ready {
            return Err(format!("the connection of {} {why}", self.uid));
        }
        self.state = State::Lost;
        events.push(Event::Lost(id as Id));
        Ok(())
    }

    /// Return when a message was sent, once.
    pub fn answered(&mut self, seq: u32) -> Option<u64> {
        let first = self.sent.wrapping_sub(self.waiting.len() as u32).wrapping_add(1);
        let sent = take(self.waiting.get_mut(seq.wrapping_sub(first) as usize)?);
        while self.waiting.front() == Some(&0) {
            self.waiting.pop_front();
        }
        (sent != 0).then_some(sent)
    }

    /// Write what the socket did not take before.
    pub fn write_unsent(&mut self) -> Result<(), Wrong> {
        let unsent = take(&mut self.unsent);
        if unsent.is_empty() { Ok(()) } else { self.write(&unsent) }
    }

    /// Write what the socket takes and keep the rest until it takes more.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Wrong> {
        let mut taken = 0;
        if self.unsent.is_empty() {
            taken = match rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(taken) => taken,
                Err(Errno::AGAIN) => 0,
                Err(error) => return Err(format!("the connection of {} broke: {error}", self.uid)),
            };
        }
        self.unsent.extend_from_slice(&bytes[taken..]);
        if self.unsent.len() > MAX_UNSENT {
            return Err(format!("{} does not get rid of what it has to send", self.uid));
        }
        Ok(())
    }
}

/// Append a packet as its connection wants it: as it is, or as a WebSocket message of its own, as the SDKs send it.
pub fn wrap(is_web: bool, packet: &[u8], random: &mut u32, out: &mut Vec<u8>) {
    if is_web {
        websocket::wrap(websocket::BINARY, packet, next(random), out);
    } else {
        out.extend_from_slice(packet);
    }
}

/// The next mask; nobody needs to be kept from guessing it here. Source: Marsaglia, Xorshift RNGs (2003).
pub fn next(random: &mut u32) -> u32 {
    *random ^= *random << 13;
    *random ^= *random >> 17;
    *random ^= *random << 5;
    *random
}

pub fn text(error: impl std::fmt::Display) -> Wrong {
    error.to_string()
}
