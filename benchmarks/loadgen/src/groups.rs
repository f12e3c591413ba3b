//! Rows in which one client sends to a group.

use std::time::{Duration, Instant};

use crate::engine::{Engine, Event, Id};
use crate::histogram::Histogram;
use crate::http::Caller;
use crate::meter::{Meter, Report};
use crate::options::Options;
use crate::pairs::last_seq;
use crate::wire::Wrong;

const GROUP: u8 = 2;
const CHANNEL: &str = "group";
const SENDER: Id = 0;
const NAMES_AT_ONCE: usize = 5000;
const POLL: Duration = Duration::from_millis(100);

/// For each message the members that do not have it yet, and when it was sent.
#[derive(Default)]
struct Outstanding(Vec<(u32, u64)>);

/// Keep `window` messages in flight until their SENDACK, or with `window` 0 send the next when the last member has the
/// one before. `online` of the `members` are connected; 0: all.
pub fn group(options: &Options) -> Result<Report, Wrong> {
    let (address, is_web) = options.gate()?;
    let online = if options.online == 0 { options.members } else { options.online };
    let mut engine = Engine::new(options.size)?;
    let member = |n: usize| format!("m{n}");
    let uids = std::iter::once("sender".to_owned()).chain((0..online).map(member));
    engine.dial(uids, address, is_web, options.parallel, options.limit())?;
    let mut api = Caller::open(options.api()?)?;
    make_group(&mut api, (0..options.members).map(member))?;
    engine.aim(SENDER, CHANNEL, GROUP);
    (1..=online).for_each(|id| engine.prepare(id as Id));

    let most = if options.count == 0 { u64::MAX } else { options.count };
    let (mut events, mut report, mut outstanding) = (Vec::new(), Report::default(), Outstanding::default());
    let (mut to_ack, mut to_member, mut to_last) = (Histogram::default(), Histogram::default(), Histogram::default());
    let (waits_for_all, mut complete) = (options.window == 0, 0);
    let meter = Meter::start(options.server());
    let mut quiet = Instant::now();
    let mut credit = options.window.max(1);
    let mut times = Vec::new();
    loop {
        let wanted = if meter.seconds() < options.seconds { (most - engine.sent).min(credit as u64) } else { 0 };
        if wanted > 0 {
            let now = engine.now();
            times.clear();
            times.resize(wanted as usize, now);
            outstanding.0.resize(outstanding.0.len() + wanted as usize, (online as u32, now));
            engine.send(SENDER, &times)?;
            credit = 0;
        }
        if complete == engine.sent && engine.acked == engine.sent {
            break;
        }
        engine.wait(POLL, &mut events)?;
        if !events.is_empty() {
            quiet = Instant::now();
        } else if quiet.elapsed() > options.limit() {
            return Err(lost(&engine, online));
        }
        for event in &events {
            match *event {
                Event::Acked { nanos, .. } => {
                    to_ack.add(nanos);
                    credit += usize::from(!waits_for_all);
                }
                Event::Received { seq, nanos, .. } => {
                    to_member.add(nanos);
                    let Some((left, _)) = outstanding.0.get_mut(seq as usize - 1).filter(|each| each.0 > 0) else {
                        return Err(format!("message {seq} came to more members than there are"));
                    };
                    *left -= 1;
                    if *left == 0 {
                        to_last.add(nanos);
                        complete += 1;
                        credit += usize::from(waits_for_all);
                    }
                }
                _ => {}
            }
        }
    }
    let seconds = meter.seconds();
    meter.stop(engine.received, seconds, &mut report);
    report.number("messages", engine.sent as f64, 0);
    report.number("messages_per_second", engine.sent as f64 / seconds, 2);
    report.latency("ack", &to_ack);
    report.latency("recv", &to_member);
    report.latency("last_member", &to_last);
    report.number("repeated", engine.repeated as f64, 0);
    report.number("decrypted", engine.checked as f64, 0);
    let stored = last_seq(&mut api, CHANNEL, GROUP, "sender")?;
    let everybody = engine.peers[1..].iter().all(|peer| peer.received == engine.sent);
    report.flag("verified", stored == engine.sent && everybody);
    Ok(report)
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

fn lost(engine: &Engine, online: usize) -> Wrong {
    let members = &engine.peers[1..];
    let fewest = members.iter().map(|peer| peer.received).min().unwrap_or(0);
    format!(
        "{} messages sent to {online} members, {} acknowledged, {} deliveries, {fewest} to one member; no more came",
        engine.sent, engine.acked, engine.received
    )
}
