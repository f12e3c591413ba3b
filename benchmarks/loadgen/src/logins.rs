//! Rows about connections: log-ins, and those that are only there.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::engine::{Engine, Event, Id};
use crate::meter::{Meter, Report};
use crate::options::Options;
use crate::wire::Wrong;

/// How long the server may settle before its memory is read.
const SETTLE: Duration = Duration::from_secs(1);

/// Log in `count` clients, `parallel` at a time. All must be accepted; each gets key pairs before the clock runs.
pub fn handshakes(options: &Options) -> Result<Report, Wrong> {
    let (address, is_web) = options.gate()?;
    let mut engine = Engine::new(options.size)?;
    let uids: Vec<String> = (0..options.count.max(1)).map(|n| format!("h{n}")).collect();
    let count = uids.len() as u64;
    let (meter, mut report) = (Meter::start(options.server()), Report::default());
    let found = engine.dial(uids, address, is_web, options.parallel, options.limit())?;
    meter.stop(count, found.seconds, &mut report);
    report.latency("", &found.latency);
    report.number("repeated", found.repeated as f64, 0);
    Ok(report)
}

/// Hold `idle` clients that do nothing, then let each send a PING, which all have to be answered.
pub fn idle(options: &Options) -> Result<Report, Wrong> {
    let (address, is_web) = options.gate()?;
    let (server, count) = (options.server(), options.idle);
    let mut engine = Engine::new(options.size)?;
    let before = server.rss_kb();
    let uids = (0..count).map(|n| format!("i{n}"));
    let dialed = engine.dial(uids, address, is_web, options.parallel, options.limit())?;
    sleep(SETTLE);
    let held = server.rss_kb();
    let (meter, mut report) = (Meter::start(server), Report::default());
    sleep(Duration::from_secs_f64(options.seconds));
    let seconds = meter.seconds();
    meter.stop(count as u64, seconds, &mut report);
    ping_all(&mut engine, options.limit())?;
    report.number("rss_kb_before", before, 0);
    report.number("kb_per_connection", (held - before) / count as f64, 2);
    report.number("kb_per_connection_after_ping", (server.rss_kb() - before) / count as f64, 2);
    report.number("logins_per_second", count as f64 / dialed.seconds, 1);
    report.number("repeated", dialed.repeated as f64, 0);
    Ok(report)
}

/// Let everybody send a PING and wait for all answers.
pub fn ping_all(engine: &mut Engine, limit: Duration) -> Result<(), Wrong> {
    let (start, mut events, mut answered) = (Instant::now(), Vec::new(), 0);
    for id in 0..engine.peers.len() {
        engine.ping(id as Id)?;
    }
    while answered < engine.peers.len() {
        if start.elapsed() > limit {
            return Err(format!("{answered} of {} answered a PING", engine.peers.len()));
        }
        engine.wait(Duration::from_millis(100), &mut events)?;
        answered += events.iter().filter(|event| matches!(event, Event::Answered)).count();
    }
    Ok(())
}
