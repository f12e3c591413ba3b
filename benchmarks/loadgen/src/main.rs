//! The load generator of triolet's benchmarks: one row on one thread, over loopback; prints one JSON object.

mod dialing;
mod engine;
mod groups;
mod histogram;
mod http;
mod logins;
mod meter;
mod options;
mod pairs;
mod peer;
mod requests;
mod sends;
mod websocket;
mod wire;

/// The server's own code for what both sides compute. Not all of it is needed here.
#[allow(dead_code)]
#[path = "../../../packages/speedups/rust/base64.rs"]
mod base64;
#[allow(dead_code)]
#[path = "../../../packages/speedups/rust/keys.rs"]
mod keys;
#[allow(dead_code)]
#[path = "../../../packages/speedups/rust/md5.rs"]
mod md5;

use std::num::NonZeroU64;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use meter::Report;
use options::{Options, USAGE};
use wire::Wrong;

fn main() -> ExitCode {
    match run() {
        Ok(report) => {
            println!("{}", report.text());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Report, Wrong> {
    let options = Options::read(std::env::args().skip(1))?;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).map_err(peer::text)?;
    // An open loop sends when it is time, not 50 µs later.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).map_err(peer::text)?;
    let row = match options.row.as_str() {
        "handshakes" => logins::handshakes,
        "idle" => logins::idle,
        "hold" => logins::hold,
        "pairs" => pairs::closed_loop,
        "open_loop" => pairs::open_loop,
        "group" => groups::group,
        "http_send" => requests::http_send,
        "history" => requests::history,
        other => return Err(format!("{other} is no row\n{USAGE}")),
    };
    row(&options)
}
