//! Rows in which one client sends to a group.

use std::time::Duration;

use crate::engine::{Engine, Event, Id};
use crate::histogram::Histogram;
use crate::http::Caller;
use crate::meter::{Meter, Report};
use crate::options::Options;
use crate::pairs::last_seq;
use crate::peer::strangers;
use crate::wire::Wrong;

const GROUP: u8 = 2;
const CHANNEL: &str = "group";
const SENDER: Id = 0;
const NAMES_AT_ONCE: usize = 5000;
const POLL: Duration = Duration::from_millis(100);

/// A group whose members are logged in, and what they found.
struct Group {
    engine: Engine,
    online: usize,
    /// For each message how many members do not have it yet.
    missing: Vec<u32>,
    /// Messages that all members have.
    complete: u64,
    to_ack: Histogram,
    to_member: Histogram,
    to_last: Histogram,
}

/// Keep `window` messages in flight until their SENDACK, or with `window` 0 send the next when the last member has the
/// one before. `online` of the `members` are connected; 0: all.
pub fn group(options: &Options) -> Result<Report, Wrong> {
    let mut api = Caller::open(options.api()?)?;
    let mut group = Group::gather(options, &mut api)?;
    let (mut events, mut report) = (Vec::new(), Report::default());
    let most = if options.count == 0 { u64::MAX } else { options.count };
    let deadline = options.seconds + options.limit as f64;
    let meter = Meter::start(options.server());
    loop {
        if meter.seconds() < options.seconds && group.engine.sent < most {
            let free = if options.window == 0 {
                u64::from(group.complete == group.engine.sent)
            } else {
                options.window as u64 - (group.engine.sent - group.engine.acked)
            };
            group.send(free.min(most - group.engine.sent))?;
        } else if group.is_done() {
            break;
        } else if meter.seconds() > deadline {
            return Err(group.lost());
        }
        group.engine.wait(POLL, &mut events)?;
        for event in &events {
            group.note(event)?;
        }
    }
    let seconds = meter.seconds();
    meter.stop(group.engine.received, seconds, &mut report);
    report.number("messages", group.engine.sent as f64, 0);
    report.number("messages_per_second", group.engine.sent as f64 / seconds, 2);
    group.conclude(last_seq(&mut api, CHANNEL, GROUP, "sender")?, &mut report);
    Ok(report)
}

impl Group {
    /// Log in the sender and those who are online, and make the group.
    fn gather(options: &Options, api: &mut Caller) -> Result<Self, Wrong> {
        let online = if options.online == 0 { options.members } else { options.online };
        let mut engine = Engine::new(options.size)?;
        let member = |n: usize| format!("m{n}");
        let uids = std::iter::once("sender".to_owned()).chain((0..online).map(member));
        engine.dial(strangers(uids)?, &options.gate()?)?;
        make_group(api, (0..options.members).map(member))?;
        engine.aim(SENDER, CHANNEL, GROUP);
        (1..=online).for_each(|id| engine.prepare(id as Id));
        Ok(Group {
            engine,
            online,
            missing: Vec::new(),
            complete: 0,
            to_ack: Histogram::default(),
            to_member: Histogram::default(),
            to_last: Histogram::default(),
        })
    }

    /// True if nothing is on its way.
    fn is_done(&self) -> bool {
        self.complete == self.engine.sent && self.engine.acked == self.engine.sent
    }

    fn send(&mut self, count: u64) -> Result<(), Wrong> {
        if count == 0 {
            return Ok(());
        }
        let times = vec![self.engine.now(); count as usize];
        self.missing.resize(self.missing.len() + times.len(), self.online as u32);
        self.engine.send(SENDER, &times)
    }

    fn note(&mut self, event: &Event) -> Result<(), Wrong> {
        match *event {
            Event::Acked { nanos, .. } => self.to_ack.add(nanos),
            Event::Received { seq, nanos } => {
                self.to_member.add(nanos);
                let Some(missing) = self.missing.get_mut(seq as usize - 1).filter(|missing| **missing > 0) else {
                    return Err(format!("message {seq} came to more members than there are"));
                };
                *missing -= 1;
                if *missing == 0 {
                    self.to_last.add(nanos);
                    self.complete += 1;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn conclude(&self, stored: u64, report: &mut Report) {
        report.latency("ack", &self.to_ack);
        report.latency("recv", &self.to_member);
        report.latency("last_member", &self.to_last);
        report.number("repeated", self.engine.repeated as f64, 0);
        report.number("decrypted", self.engine.checked as f64, 0);
        let everybody = self.engine.peers[1..].iter().all(|peer| peer.received == self.engine.sent);
        report.flag("verified", stored == self.engine.sent && everybody);
    }

    fn lost(&self) -> Wrong {
        let fewest = self.engine.peers[1..].iter().map(|peer| peer.received).min().unwrap_or(0);
        let Engine { sent, acked, received, .. } = self.engine;
        let online = self.online;
        format!(
            "{sent} messages to {online} members, {acked} acknowledged, {received} deliveries, {fewest} to one of them"
        )
    }
}

/// Make the group, in lists that a server takes.
fn make_group(api: &mut Caller, members: impl Iterator<Item = String>) -> Result<(), Wrong> {
    let names: Vec<String> = std::iter::once("sender".to_owned()).chain(members).collect();
    for (n, some) in names.chunks(NAMES_AT_ONCE).enumerate() {
        let path = if n == 0 { "/channel" } else { "/channel/subscriber_add" };
        let body =
            format!(r#"{{"channel_id":"{CHANNEL}","channel_type":{GROUP},"subscribers":["{}"]}}"#, some.join(r#"",""#));
        api.ask("POST", path, &body)?;
    }
    Ok(())
}
