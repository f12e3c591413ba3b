//! All connections of the clients, on one thread and one epoll descriptor.
//!
//! Readiness is edge-triggered, so that a connection is registered once; a read that did not fill its space has
//! emptied the socket. What a read brings is acknowledged in one write, then given to the row as events.

use std::mem::take;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;

use crate::peer::{Peer, State, next, text, wrap};
use crate::sends::{Message, Work};
use crate::websocket;
use crate::wire::{self, Frame, Recv, Wrong};

const READ_SIZE: usize = 256 << 10;
/// A read, and what was kept of a frame that may be 1 MiB.
const INPUT_SIZE: usize = READ_SIZE + (2 << 20);
const READY_AT_ONCE: usize = 1024;
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
    Answered {
        nanos: u64,
    },
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
    pub(crate) epoll: OwnedFd,
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
        let now = self.now();
        let peer = &mut self.peers[id as usize];
        peer.pinged = now;
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
        if flags.contains(epoll::EventFlags::OUT) {
            peer.write_unsent()?;
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
                events.push(Event::Answered { nanos: now - self.peers[id].pinged });
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
