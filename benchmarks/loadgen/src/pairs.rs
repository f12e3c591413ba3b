//! Rows in which one client of each pair sends to the other.

use std::time::Duration;

use crate::engine::{Engine, Event, Id};
use crate::histogram::Histogram;
use crate::http::Caller;
use crate::meter::{Meter, Report};
use crate::options::Options;
use crate::peer::strangers;
use crate::wire::Wrong;

const PERSON: u8 = 1;
const POLL: Duration = Duration::from_millis(100);

/// What the clients of a row found.
#[derive(Default)]
struct Found {
    to_ack: Histogram,
    to_receiver: Histogram,
    last_ack: f64,
}

impl Found {
    fn note(&mut self, event: &Event, meter: &Meter) {
        match event {
            Event::Acked { nanos, .. } => {
                self.to_ack.add(*nanos);
                self.last_ack = meter.seconds();
            }
            Event::Received { nanos, .. } => self.to_receiver.add(*nanos),
            _ => {}
        }
    }
}

/// Log in senders (even ids) and receivers (odd ids) and aim the first at the second.
fn log_in(engine: &mut Engine, options: &Options) -> Result<(), Wrong> {
    let uids = (0..options.pairs).flat_map(|n| [format!("s{n}"), format!("r{n}")]);
    engine.dial(strangers(uids)?, &options.gate()?)?;
    for n in 0..options.pairs {
        engine.aim(2 * n as Id, &format!("r{n}"), PERSON);
        engine.prepare(2 * n as Id + 1);
    }
    Ok(())
}

/// Keep `window` messages of each pair in flight.
pub fn closed_loop(options: &Options) -> Result<Report, Wrong> {
    let mut engine = Engine::new(options.size)?;
    log_in(&mut engine, options)?;
    let most = if options.count == 0 { u64::MAX } else { options.count };
    let (mut events, mut found, mut report) = (Vec::new(), Found::default(), Report::default());
    let mut acks = vec![0usize; engine.peers.len()];
    let mut acked = Vec::new();
    let mut times = Vec::new();
    let deadline = options.seconds + options.limit as f64;
    let meter = Meter::start(options.server());
    for n in 0..options.pairs {
        times.clear();
        times.resize(options.window.min((most - engine.sent).min(usize::MAX as u64) as usize), engine.now());
        engine.send(2 * n as Id, &times)?;
    }
    while engine.acked < engine.sent || engine.received < engine.acked {
        engine.wait(POLL, &mut events)?;
        if meter.seconds() > deadline {
            return Err(lost(&engine));
        }
        for event in &events {
            found.note(event, &meter);
            if let Event::Acked { peer, .. } = *event {
                if acks[peer as usize] == 0 {
                    acked.push(peer);
                }
                acks[peer as usize] += 1;
            }
        }
        let goes_on = meter.seconds() < options.seconds;
        for peer in acked.drain(..) {
            let count = std::mem::take(&mut acks[peer as usize]);
            if goes_on && engine.sent < most {
                times.clear();
                times.resize(count.min((most - engine.sent).min(usize::MAX as u64) as usize), engine.now());
                engine.send(peer, &times)?;
            }
        }
    }
    meter.stop(engine.acked, found.last_ack, &mut report);
    finish(&engine, &found, options, &mut report)?;
    Ok(report)
}

/// Send `rate` messages a second, whether or not the server keeps up; latencies count from when each was due.
pub fn open_loop(options: &Options) -> Result<Report, Wrong> {
    let mut engine = Engine::new(options.size)?;
    log_in(&mut engine, options)?;
    let mut report = Report::default();
    let pairs = options.pairs as u64;
    let total = (options.rate * options.seconds) as u64;
    let (mut events, mut found) = (Vec::new(), Found::default());
    let mut late = Histogram::default();
    let deadline = options.seconds + options.limit as f64;
    let meter = Meter::start(options.server());
    let (start, step) = (engine.now(), 1e9 / options.rate);
    let due = |n: u64| start + (n as f64 * step) as u64;
    while engine.sent < total || engine.acked < engine.sent || engine.received < engine.acked {
        let mut pause = POLL;
        if engine.sent < total {
            let (now, at) = (engine.now(), due(engine.sent));
            if now >= at {
                late.add(now - at);
                engine.send(2 * (engine.sent % pairs) as Id, &[at])?;
                pause = Duration::ZERO;
            } else {
                pause = Duration::from_nanos(at - now).min(POLL);
            }
        }
        engine.wait(pause, &mut events)?;
        if meter.seconds() > deadline {
            return Err(lost(&engine));
        }
        events.iter().for_each(|event| found.note(event, &meter));
    }
    meter.stop(engine.acked, found.last_ack, &mut report);
    report.latency("late", &late);
    finish(&engine, &found, options, &mut report)?;
    Ok(report)
}

fn lost(engine: &Engine) -> Wrong {
    format!("{} messages sent, {} acknowledged, {} received; no more came", engine.sent, engine.acked, engine.received)
}

/// Compare what was sent with what arrived and what is stored.
fn finish(engine: &Engine, found: &Found, options: &Options, report: &mut Report) -> Result<(), Wrong> {
    report.latency("ack", &found.to_ack);
    report.latency("recv", &found.to_receiver);
    report.number("sent", engine.sent as f64, 0);
    report.number("received", engine.received as f64, 0);
    report.number("repeated", engine.repeated as f64, 0);
    report.number("decrypted", engine.checked as f64, 0);
    if let Some(api) = options.http {
        let mut caller = Caller::open(api)?;
        let mut stored = 0;
        for n in 0..options.pairs {
            stored += last_seq(&mut caller, &format!("r{n}"), PERSON, &format!("s{n}"))?;
        }
        report.number("stored", stored as f64, 0);
        report.flag("verified", stored == engine.sent && engine.received == engine.sent);
    }
    Ok(())
}

/// Ask the server for the last sequence number of a channel.
pub fn last_seq(caller: &mut Caller, channel_id: &str, channel_type: u8, uid: &str) -> Result<u64, Wrong> {
    let path = format!("/channel/max_message_seq?channel_id={channel_id}&channel_type={channel_type}&login_uid={uid}");
    let body = caller.ask("GET", &path, "")?;
    let digits: String = body.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().map_err(|_| format!("no sequence number in the answer to {path}"))
}
