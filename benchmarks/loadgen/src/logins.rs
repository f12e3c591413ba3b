//! Rows about connections: log-ins, and those that are only there.

use std::io::{Write, stdin, stdout};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::dialing::Gate;
use crate::engine::{Engine, Event, Id};
use crate::histogram::Histogram;
use crate::meter::{Meter, Report};
use crate::options::Options;
use crate::peer::{strangers, text};
use crate::wire::Wrong;

/// How long the server may settle before its memory is read.
const SETTLE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(100);

/// Log in `count` clients, `parallel` at a time. All must be accepted; each gets key pairs before the clock runs.
pub fn handshakes(options: &Options) -> Result<Report, Wrong> {
    let mut engine = Engine::new(options.size)?;
    let count = options.count.max(1);
    let everybody = strangers((0..count).map(|n| format!("h{n}")))?;
    let (meter, mut report) = (Meter::start(options.server()), Report::default());
    let found = engine.dial(everybody, &options.gate()?)?;
    meter.stop(count, found.seconds, &mut report);
    report.latency("", &found.latency);
    report.number("repeated", found.repeated as f64, 0);
    Ok(report)
}

/// Hold `idle` clients that do nothing, then let each send a PING, which all have to be answered.
pub fn idle(options: &Options) -> Result<Report, Wrong> {
    let (server, count) = (options.server(), options.idle);
    let mut engine = Engine::new(options.size)?;
    let before = server.rss_kb();
    let dialed = engine.dial(strangers((0..count).map(|n| format!("i{n}")))?, &options.gate()?)?;
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

/// Hold `idle` clients from number `first` on, each of which sends a PING once in `ping` seconds, until the standard
/// input ends. Prints a line of JSON when all are logged in. What comes in at the standard input is where the clock
/// starts anew, since others log in before that. In the end all have to answer.
pub fn hold(options: &Options) -> Result<Report, Wrong> {
    let mut engine = Engine::new(options.size)?;
    let uids = (0..options.idle).map(|n| format!("i{}", options.first + n));
    let gate = Gate { first: Some(options.first), ..options.gate()? };
    let dialed = engine.dial(strangers(uids)?, &gate)?;
    let mut logged_in = Report::default();
    logged_in.number("idle", options.idle as f64, 0);
    logged_in.number("login_seconds", dialed.seconds, 3);
    println!("{}", logged_in.text());
    stdout().flush().map_err(text)?;
    let mut report = Report::default();
    let (meter, to_pong) = ping_in_turn(&mut engine, options)?;
    meter.stop(to_pong.count(), meter.seconds(), &mut report);
    report.latency("pong", &to_pong);
    ping_all(&mut engine, options.limit())?;
    report.number("held", engine.peers.len() as f64, 0);
    report.number("repeated", dialed.repeated as f64, 0);
    Ok(report)
}

/// Let one after another send a PING, at even distances; returns how long the answers took, and since when.
fn ping_in_turn(engine: &mut Engine, options: &Options) -> Result<(Meter, Histogram), Wrong> {
    let (mut meter, mut found) = (Meter::start(options.server()), Histogram::default());
    let (mut events, mut sent, mut answered) = (Vec::new(), 0u64, 0u64);
    let (start, count) = (engine.now(), engine.peers.len());
    let step = options.ping * 1e9 / count.max(1) as f64;
    loop {
        match asked()? {
            Asked::Nothing => {}
            Asked::Anew => (meter, found) = (Meter::start(options.server()), Histogram::default()),
            Asked::End => break,
        }
        let mut pause = POLL;
        if step > 0.0 && count > 0 {
            let (now, at) = (engine.now(), start + (sent as f64 * step) as u64);
            if now >= at {
                engine.ping((sent % count as u64) as Id)?;
                sent += 1;
                pause = Duration::ZERO;
            } else {
                pause = Duration::from_nanos(at - now).min(POLL);
            }
        }
        engine.wait(pause, &mut events)?;
        answered += note_pongs(&events, &mut found);
    }
    let ended = Instant::now();
    while answered < sent {
        if ended.elapsed() > options.limit() {
            return Err(format!("{answered} of {sent} PINGs were answered"));
        }
        engine.wait(POLL, &mut events)?;
        answered += note_pongs(&events, &mut found);
    }
    Ok((meter, found))
}

/// Take note of answers; returns how many.
fn note_pongs(events: &[Event], found: &mut Histogram) -> u64 {
    let before = found.count();
    for event in events {
        if let Event::Answered { nanos } = event {
            found.add(*nanos);
        }
    }
    found.count() - before
}

/// What whoever started this process wants.
enum Asked {
    Nothing,
    Anew,
    End,
}

/// Look at the standard input.
fn asked() -> Result<Asked, Wrong> {
    let stdin = stdin();
    let mut waiting = [PollFd::new(&stdin, PollFlags::IN)];
    if poll(&mut waiting, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).map_err(text)? == 0 {
        return Ok(Asked::Nothing);
    }
    let got = rustix::io::read(&stdin, &mut [0; 64]).map_err(text)?;
    Ok(if got == 0 { Asked::End } else { Asked::Anew })
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
        engine.wait(POLL, &mut events)?;
        answered += events.iter().filter(|event| matches!(event, Event::Answered { .. })).count();
    }
    Ok(())
}
