//! All connections of the clients, on one thread and one epoll descriptor.
//!
//! Readiness is edge-triggered, so that a connection is registered once; a read that did not fill its space has
//! emptied the socket. What a read brings is acknowledged in one write, then given to the row as events.

use std::collections::VecDeque;
use std::mem::take;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

use crate::histogram::Histogram;
use crate::keys::Keys;
use crate::websocket;
use crate::wire::{self, Frame, Message, Recv, Work, Wrong};

const READ_SIZE: usize = 256 << 10;
/// A read, and what was kept of a frame that may be 1 MiB.
const INPUT_SIZE: usize = READ_SIZE + (2 << 20);
const READY_AT_ONCE: usize = 1024;
const MAX_UNSENT: usize = 64 << 20;
/// Connections from one source address: fewer than there are ports for them.
const PER_ADDRESS: usize = 20_000;
/// Of the RECVs of a connection, the first and then one of so many is decrypted.
const CHECK_EVERY: u64 = 1000;

pub type Id = u32;

/// What happened on a connection.
#[derive(Debug)]
pub enum Event {
    Ready(Id),
    /// It was closed before it was ready.
    Lost(Id),
    Acked {
        peer: Id,
        nanos: u64,
    },
    /// A member got message number `seq` of its sender.
    Received {
        seq: u32,
        nanos: u64,
    },
    /// A PING was answered.
    Answered,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Connecting,
    Upgrading,
    Greeting,
    Ready,
    Lost,
}

/// One client.
pub struct Peer {
    pub uid: String,
    /// Messages that it was sent, without repeats.
    pub received: u64,
    socket: OwnedFd,
    state: State,
    is_web: bool,
    private_key: [u8; 32],
    public_key: [u8; 32],
    accepted: Option<wire::Accepted>,
    keys: Option<Keys>,
    channel: (String, u8),
    sent: u32,
    /// When each message was sent that is not acknowledged, 0 for those that are; the last is number `sent`.
    waiting: VecDeque<u64>,
    last_seq: u32,
    rest: Vec<u8>,
    unsent: Vec<u8>,
    dialed: Instant,
}

/// How logging in went.
pub struct Dialing {
    pub seconds: f64,
    pub latency: Histogram,
    /// Connections that the server closed, so that they were made again.
    pub repeated: u64,
}

/// All connections.
pub struct Engine {
    pub peers: Vec<Peer>,
    pub sent: u64,
    pub acked: u64,
    pub received: u64,
    pub repeated: u64,
    pub checked: u64,
    size: usize,
    epoll: OwnedFd,
    ready: Vec<epoll::Event>,
    input: Vec<u8>,
    output: Vec<u8>,
    work: Work,
    began: Instant,
    random: u32,
}

impl Engine {
    /// Make one whose messages have payloads of `size` bytes.
    pub fn new(size: usize) -> Result<Self, Wrong> {
        Ok(Engine {
            peers: Vec::new(),
            sent: 0,
            acked: 0,
            received: 0,
            repeated: 0,
            checked: 0,
            size,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(text)?,
            ready: Vec::with_capacity(READY_AT_ONCE),
            input: vec![0; INPUT_SIZE],
            output: Vec::new(),
            work: Work::default(),
            began: Instant::now(),
            random: 0x9E37_79B9,
        })
    }

    /// Nanoseconds since the start, never 0.
    pub fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64 + 1
    }

    /// Log in everybody, at most `parallel` at a time. A connection that is closed before it is accepted is made
    /// again; one that is refused is an error.
    pub fn dial(
        &mut self,
        uids: impl IntoIterator<Item = String>,
        address: SocketAddrV4,
        is_web: bool,
        parallel: usize,
        limit: Duration,
    ) -> Result<Dialing, Wrong> {
        let strangers: Vec<_> = uids.into_iter().map(|uid| Ok((uid, key_pair()?))).collect::<Result<_, Wrong>>()?;
        let (count, mut strangers) = (strangers.len(), strangers.into_iter());
        let mut found = Dialing { seconds: 0.0, latency: Histogram::default(), repeated: 0 };
        let (start, mut done, mut busy, mut events) = (Instant::now(), 0, 0, Vec::new());
        while done < count {
            for (uid, keys) in strangers.by_ref().take(parallel - busy) {
                self.open(uid, keys, address, is_web)?;
                busy += 1;
            }
            if start.elapsed() > limit {
                return Err(format!("{done} of {count} were logged in after {} seconds", limit.as_secs()));
            }
            self.wait(Duration::from_millis(100), &mut events)?;
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
                        self.dial_again(id, address)?;
                    }
                    _ => {}
                }
            }
        }
        found.seconds = start.elapsed().as_secs_f64();
        Ok(found)
    }

    fn open(&mut self, uid: String, keys: KeyPair, address: SocketAddrV4, is_web: bool) -> Result<(), Wrong> {
        let id = self.peers.len();
        let peer = Peer {
            uid,
            received: 0,
            socket: connecting(id, address)?,
            state: State::Connecting,
            is_web,
            private_key: keys.0,
            public_key: keys.1,
            accepted: None,
            keys: None,
            channel: (String::new(), 0),
            sent: 0,
            waiting: VecDeque::new(),
            last_seq: 0,
            rest: Vec::new(),
            unsent: Vec::new(),
            dialed: Instant::now(),
        };
        self.register(&peer.socket, id)?;
        self.peers.push(peer);
        Ok(())
    }

    fn dial_again(&mut self, id: Id, address: SocketAddrV4) -> Result<(), Wrong> {
        let socket = connecting(id as usize, address)?;
        self.register(&socket, id as usize)?;
        let peer = &mut self.peers[id as usize];
        (peer.socket, peer.state, peer.rest) = (socket, State::Connecting, Vec::new());
        Ok(())
    }

    fn register(&self, socket: &OwnedFd, id: usize) -> Result<(), Wrong> {
        let interest = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&self.epoll, socket, epoll::EventData::new_u64(id as u64), interest).map_err(text)
    }

    /// Say where what a client sends goes, and make its keys, which takes 50 µs.
    pub fn aim(&mut self, id: Id, channel_id: &str, channel_type: u8) {
        self.peers[id as usize].channel = (channel_id.to_owned(), channel_type);
        self.prepare(id);
    }

    /// Make the keys of a client, so that it does not happen while the clock runs.
    pub fn prepare(&mut self, id: Id) {
        self.peers[id as usize].make_keys();
    }

    /// Send messages that were due at `times`, in one write.
    pub fn send(&mut self, id: Id, times: &[u64]) -> Result<(), Wrong> {
        let Engine { peers, work, output, random, size, .. } = self;
        let peer = &mut peers[id as usize];
        peer.make_keys();
        let Some(keys) = &peer.keys else { return Err(format!("{} is not logged in", peer.uid)) };
        let (channel_id, channel_type) = (peer.channel.0.as_str(), peer.channel.1);
        let message = Message { keys, sender: id, channel_id, channel_type, size: *size };
        output.clear();
        let is_web = peer.is_web;
        message.sends(peer.sent + 1, times, work, |packet| wrap(is_web, packet, random, output));
        peer.sent += times.len() as u32;
        peer.waiting.extend(times);
        self.sent += times.len() as u64;
        peer.write(output)
    }

    /// Send a PING.
    pub fn ping(&mut self, id: Id) -> Result<(), Wrong> {
        self.output.clear();
        let peer = &mut self.peers[id as usize];
        wrap(peer.is_web, wire::PING, &mut self.random, &mut self.output);
        peer.write(&self.output)
    }

    /// Wait until something happens, at most `limit`; `events` is what did.
    pub fn wait(&mut self, limit: Duration, events: &mut Vec<Event>) -> Result<(), Wrong> {
        events.clear();
        let mut ready = take(&mut self.ready);
        ready.clear();
        let limit = limit.try_into().map_err(text)?;
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(text(error)),
        }
        for each in &ready {
            let (flags, data) = (each.flags, each.data);
            self.turn(data.u64() as usize, flags, events)?;
        }
        self.ready = ready;
        Ok(())
    }

    fn turn(&mut self, id: usize, flags: epoll::EventFlags, events: &mut Vec<Event>) -> Result<(), Wrong> {
        let peer = &mut self.peers[id];
        if peer.state == State::Connecting {
            if rustix::net::sockopt::socket_error(&peer.socket).map_err(text)?.is_err() {
                return Err(format!("nobody takes the connection of {}", peer.uid));
            }
            if !flags.contains(epoll::EventFlags::OUT) {
                return Ok(());
            }
            peer.greet(&mut self.random)?;
        }
        if flags.contains(epoll::EventFlags::OUT) && !peer.unsent.is_empty() {
            let unsent = take(&mut peer.unsent);
            peer.write(&unsent)?;
        }
        let readable = epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        while flags.intersects(readable) && self.peers[id].state != State::Lost {
            if !self.read(id, events)? {
                break;
            }
        }
        Ok(())
    }

    /// Read once; False if there is no more.
    fn read(&mut self, id: usize, events: &mut Vec<Event>) -> Result<bool, Wrong> {
        let peer = &mut self.peers[id];
        let kept = peer.rest.len();
        if kept + READ_SIZE > INPUT_SIZE {
            return Err(format!("{} got a frame that is too long", peer.uid));
        }
        let space = &mut self.input[kept..kept + READ_SIZE];
        let got = match rustix::io::read(&peer.socket, space) {
            Ok(0) => return peer.lose(id, "was closed", events).map(|()| false),
            Ok(got) => got,
            Err(Errno::AGAIN) => return Ok(false),
            Err(error) => return peer.lose(id, &error.to_string(), events).map(|()| false),
        };
        self.input[..kept].copy_from_slice(&peer.rest);
        let now = self.now();
        self.output.clear();
        let input = take(&mut self.input);
        let used = self.understand(id, &input[..kept + got], now, events)?;
        let peer = &mut self.peers[id];
        peer.rest.clear();
        peer.rest.extend_from_slice(&input[used..kept + got]);
        self.input = input;
        if !self.output.is_empty() {
            peer.write(&self.output)?;
        }
        Ok(got == READ_SIZE)
    }

    /// Take whole frames from a buffer; returns how much that was. Answers are left in `output`.
    fn understand(&mut self, id: usize, buffer: &[u8], now: u64, events: &mut Vec<Event>) -> Result<usize, Wrong> {
        let mut at = 0;
        if self.peers[id].state == State::Upgrading {
            let Some(end) = websocket::consent(buffer)? else { return Ok(0) };
            let peer = &mut self.peers[id];
            peer.state = State::Greeting;
            let mut packet = Vec::new();
            wire::connect(&peer.uid, &peer.public_key, &mut packet);
            wrap(true, &packet, &mut self.random, &mut self.output);
            at = end;
        }
        if self.peers[id].is_web {
            while let Some(message) = websocket::message(buffer, at)? {
                let content = &buffer[message.start..message.end];
                match message.opcode {
                    websocket::BINARY => self.one_packet(id, content, now, events)?,
                    websocket::PING => {
                        websocket::wrap(websocket::PONG, content, next(&mut self.random), &mut self.output)
                    }
                    websocket::CLOSE => return self.peers[id].lose(id, "was closed", events).map(|()| buffer.len()),
                    other => return Err(format!("a WebSocket message with opcode {other}")),
                }
                at = message.end;
            }
        } else {
            while let Some(frame) = wire::frame(buffer, at)? {
                self.packet(id, &frame, buffer, now, events)?;
                at = frame.end;
            }
        }
        Ok(at)
    }

    /// Take the content of a WebSocket message, which is one packet: the older SDKs read no more.
    fn one_packet(&mut self, id: usize, content: &[u8], now: u64, events: &mut Vec<Event>) -> Result<(), Wrong> {
        match wire::frame(content, 0)? {
            Some(frame) if frame.end == content.len() => self.packet(id, &frame, content, now, events),
            _ => Err("a WebSocket message that is not one packet".into()),
        }
    }

    fn packet(
        &mut self,
        id: usize,
        frame: &Frame,
        buffer: &[u8],
        now: u64,
        events: &mut Vec<Event>,
    ) -> Result<(), Wrong> {
        let body = &buffer[frame.start..frame.end];
        match (frame.kind(), self.peers[id].state) {
            (wire::RECV, State::Ready) => self.recv(id, frame.head, body, now, events),
            (wire::SENDACK, State::Ready) => self.sendack(id, body, now, events),
            (wire::PONG, State::Ready) => {
                events.push(Event::Answered);
                Ok(())
            }
            (wire::CONNACK, State::Greeting) => self.connack(id, frame.head, body, events),
            (kind, state) => Err(format!("{} got a packet of type {kind} while {state:?}", self.peers[id].uid)),
        }
    }

    fn connack(&mut self, id: usize, head: u8, body: &[u8], events: &mut Vec<Event>) -> Result<(), Wrong> {
        let peer = &mut self.peers[id];
        match wire::connack(head, body)? {
            Ok(accepted) => (peer.accepted, peer.state) = (Some(accepted), State::Ready),
            Err(reason) => return Err(format!("{} was refused for reason {reason}", peer.uid)),
        }
        events.push(Event::Ready(id as Id));
        Ok(())
    }

    fn sendack(&mut self, id: usize, body: &[u8], now: u64, events: &mut Vec<Event>) -> Result<(), Wrong> {
        let ack = wire::sendack(body)?;
        let peer = &mut self.peers[id];
        if ack.reason != wire::ACCEPTED {
            return Err(format!("a message of {} was refused for reason {}", peer.uid, ack.reason));
        }
        let Some(sent) = peer.answered(ack.client_seq) else {
            return Err(format!("{} got a SENDACK for {} again, or before it was sent", peer.uid, ack.client_seq));
        };
        self.acked += 1;
        events.push(Event::Acked { peer: id as Id, nanos: now.saturating_sub(sent) });
        Ok(())
    }

    fn recv(&mut self, id: usize, head: u8, body: &[u8], now: u64, events: &mut Vec<Event>) -> Result<(), Wrong> {
        let recv = Recv::read(head, body)?;
        let peer = &mut self.peers[id];
        if peer.is_web {
            let mut packet = Vec::with_capacity(wire::RECVACK_SIZE);
            recv.acknowledge(&mut packet);
            wrap(true, &packet, &mut self.random, &mut self.output);
        } else {
            recv.acknowledge(&mut self.output);
        }
        if recv.seq() <= peer.last_seq {
            self.repeated += 1;
            return Ok(());
        }
        peer.last_seq = recv.seq();
        let Some((_, seq, sent)) = wire::parts(recv.number) else {
            return Err(format!("{} got a message that nobody sent", peer.uid));
        };
        if peer.received % CHECK_EVERY == 0 {
            peer.make_keys();
            let is_genuine = peer.keys.as_ref().is_some_and(|keys| recv.is_genuine(keys, self.size, &mut self.work));
            if !is_genuine {
                return Err(format!("{} got a message with a wrong signature or payload", peer.uid));
            }
            self.checked += 1;
        }
        peer.received += 1;
        self.received += 1;
        events.push(Event::Received { seq, nanos: now.saturating_sub(sent) });
        Ok(())
    }
}

impl Peer {
    fn make_keys(&mut self) {
        if self.keys.is_none() {
            self.keys = self.accepted.as_ref().map(|accepted| wire::keys(&self.private_key, accepted));
        }
    }

    fn greet(&mut self, random: &mut u32) -> Result<(), Wrong> {
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
    fn lose(&mut self, id: usize, why: &str, events: &mut Vec<Event>) -> Result<(), Wrong> {
        if self.state == State::Ready {
            return Err(format!("the connection of {} {why}", self.uid));
        }
        self.state = State::Lost;
        events.push(Event::Lost(id as Id));
        Ok(())
    }

    /// Return when a message was sent, once.
    fn answered(&mut self, seq: u32) -> Option<u64> {
        let first = self.sent.wrapping_sub(self.waiting.len() as u32).wrapping_add(1);
        let sent = take(self.waiting.get_mut(seq.wrapping_sub(first) as usize)?);
        while self.waiting.front() == Some(&0) {
            self.waiting.pop_front();
        }
        (sent != 0).then_some(sent)
    }

    /// Write what the socket takes and keep the rest until it takes more.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Wrong> {
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
fn wrap(is_web: bool, packet: &[u8], random: &mut u32, out: &mut Vec<u8>) {
    if is_web {
        websocket::wrap(websocket::BINARY, packet, next(random), out);
    } else {
        out.extend_from_slice(packet);
    }
}

/// The next mask; nobody needs to be kept from guessing it here. Source: Marsaglia, Xorshift RNGs (2003).
fn next(random: &mut u32) -> u32 {
    *random ^= *random << 13;
    *random ^= *random >> 17;
    *random ^= *random << 5;
    *random
}

/// A private key and its public one.
type KeyPair = ([u8; 32], [u8; 32]);

fn key_pair() -> Result<KeyPair, Wrong> {
    let mut private_key = [0; 32];
    rustix::rand::getrandom(&mut private_key, rustix::rand::GetRandomFlags::empty()).map_err(text)?;
    Ok((private_key, wire::public_key(&private_key)))
}

/// Begin a connection from the loopback address that number `id` has.
fn connecting(id: usize, address: SocketAddrV4) -> Result<OwnedFd, Wrong> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
        .map_err(|error| format!("no socket for connection {id}: {error}"))?;
    if id >= PER_ADDRESS {
        let source = Ipv4Addr::new(127, 0, 0, 1 + (id / PER_ADDRESS) as u8);
        rustix::net::bind(&socket, &SocketAddrV4::new(source, 0)).map_err(text)?;
    }
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(format!("no connection to {address}: {error}")),
    }
}

pub fn text(error: impl std::fmt::Display) -> Wrong {
    error.to_string()
}
