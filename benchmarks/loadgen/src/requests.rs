//! Rows over HTTP.

use std::time::Duration;

use crate::base64;
use crate::engine::Engine;
use crate::http::{self, Caller, Calls};
use crate::meter::{Meter, Report};
use crate::options::Options;
use crate::pairs::last_seq;
use crate::wire::Wrong;

const PERSON: u8 = 1;
const GROUP: u8 = 2;
const CHANNEL: &str = "history";
const PAGE: u64 = 100;
/// SENDs in flight while a channel is filled.
const FILL_WINDOW: u64 = 256;
/// Of the answers, the first and then one of so many is looked at.
const CHECK_EVERY: u64 = 1000;
const POLL: Duration = Duration::from_millis(100);

/// `POST /message/send` from `connections` connections into as many channels, whose receivers are offline.
pub fn http_send(options: &Options) -> Result<Report, Wrong> {
    let api = options.api()?;
    let mut payload = Vec::new();
    base64::encode(&vec![b'x'; options.size], &mut payload);
    let payload = String::from_utf8_lossy(&payload).into_owned();
    let make = |number: usize, _| {
        let body = format!(
            r#"{{"from_uid":"a{number}","channel_id":"b{number}","channel_type":{PERSON},"payload":"{payload}"}}"#
        );
        http::request("POST", "/message/send", &body)
    };
    let (meter, mut report) = (Meter::start(options.server()), Report::default());
    let calls = run(options, make, |_, _| Ok(()))?;
    let sent = calls.latency.count();
    conclude(&meter, &calls, &mut report);
    let mut caller = Caller::open(api)?;
    let mut stored = 0;
    for number in 0..options.connections {
        stored += last_seq(&mut caller, &format!("b{number}"), PERSON, &format!("a{number}"))?;
    }
    report.number("stored", stored as f64, 0);
    report.flag("verified", stored == sent);
    Ok(report)
}

/// `POST /channel/messagesync` for pages of 100 that begin anywhere among `messages` messages of one channel.
pub fn history(options: &Options) -> Result<Report, Wrong> {
    let filled = fill(options)?;
    let pages = options.messages.saturating_sub(PAGE).max(1);
    let expected = PAGE.min(options.messages);
    let make = |_, n: u64| {
        let start = 1 + n * 7919 % pages;
        let body = format!(
            r#"{{"login_uid":"writer","channel_id":"{CHANNEL}","channel_type":{GROUP},"limit":{PAGE},"pull_mode":1,"start_message_seq":{start}}}"#
        );
        http::request("POST", "/channel/messagesync", &body)
    };
    let check = |n: u64, body: &[u8]| {
        if n % CHECK_EVERY != 0 {
            return Ok(());
        }
        let found = body.windows(14).filter(|each| each == b"\"message_seq\":").count() as u64;
        if found == expected { Ok(()) } else { Err(format!("a page of {found} messages instead of {expected}")) }
    };
    let (meter, mut report) = (Meter::start(options.server()), Report::default());
    let calls = run(options, make, check)?;
    conclude(&meter, &calls, &mut report);
    report.number("messages", options.messages as f64, 0);
    report.number("fill_per_second", options.messages as f64 / filled, 1);
    report.number("bytes_each", calls.bytes as f64 / calls.latency.count() as f64, 0);
    report.flag("verified", true);
    Ok(report)
}

fn run(
    options: &Options,
    make: impl FnMut(usize, u64) -> Vec<u8>,
    check: impl FnMut(u64, &[u8]) -> Result<(), Wrong>,
) -> Result<Calls, Wrong> {
    let most = if options.count == 0 { u64::MAX } else { options.count };
    let lasting = Duration::from_secs_f64(options.seconds);
    http::closed_loop(options.api()?, options.connections, lasting, most, make, check)
}

fn conclude(meter: &Meter, calls: &Calls, report: &mut Report) {
    meter.stop(calls.latency.count(), calls.seconds, report);
    report.latency("", &calls.latency);
}

/// Put `messages` into the channel; returns seconds.
fn fill(options: &Options) -> Result<f64, Wrong> {
    let (address, is_web) = options.gate()?;
    let mut engine = Engine::new(options.size)?;
    engine.dial(["writer".to_owned()], address, is_web, 1, options.limit())?;
    let body = format!(r#"{{"channel_id":"{CHANNEL}","channel_type":{GROUP},"subscribers":["writer"]}}"#);
    Caller::open(options.api()?)?.ask("POST", "/channel", &body)?;
    engine.aim(0, CHANNEL, GROUP);
    let (mut events, mut times, start) = (Vec::new(), Vec::new(), std::time::Instant::now());
    while engine.acked < options.messages {
        if start.elapsed() > options.limit() {
            return Err(format!("{} of {} messages were stored in time", engine.acked, options.messages));
        }
        let free = FILL_WINDOW - (engine.sent - engine.acked);
        times.clear();
        times.resize(free.min(options.messages - engine.sent) as usize, engine.now());
        if !times.is_empty() {
            engine.send(0, &times)?;
        }
        engine.wait(POLL, &mut events)?;
    }
    Ok(start.elapsed().as_secs_f64())
}
