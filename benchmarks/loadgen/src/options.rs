//! The command line: `triolet-loadgen ROW --tcp 127.0.0.1:5100 --seconds 15 ...`.

use std::net::SocketAddrV4;
use std::time::Duration;

use crate::dialing::Gate;
use crate::meter::Server;
use crate::wire::Wrong;

pub const USAGE: &str = "usage: triolet-loadgen ROW --tcp ADDRESS [--ws ADDRESS] [--http ADDRESS] [--pid SERVER] \
[--OPTION NUMBER ...]
rows: handshakes idle hold pairs open_loop group http_send history
options: seconds count pairs window rate members online idle first ping connections parallel size messages limit websocket";

/// What to do; a row takes what it needs. The defaults are those of the rows' smallest sensible run.
#[derive(Clone, Debug)]
pub struct Options {
    pub row: String,
    pub tcp: Option<SocketAddrV4>,
    pub ws: Option<SocketAddrV4>,
    pub http: Option<SocketAddrV4>,
    pub server: u32,
    /// How long a row sends.
    pub seconds: f64,
    /// Most messages, requests or log-ins; 0: only the time counts.
    pub count: u64,
    pub pairs: usize,
    /// Messages in flight of each sender; 0 in a group: the next one when the last member has the one before.
    pub window: usize,
    /// Messages a second of an open loop.
    pub rate: f64,
    /// Members of a group besides its sender, and how many of them are online.
    pub members: usize,
    pub online: usize,
    /// Connections that are only there.
    pub idle: usize,
    /// The number of the first of them; others have those below, in a process of their own.
    pub first: usize,
    /// Each of them sends a PING once in so many seconds; 0: none does.
    pub ping: f64,
    /// HTTP connections.
    pub connections: usize,
    /// Log-ins at a time.
    pub parallel: usize,
    /// Bytes of a payload.
    pub size: usize,
    /// Messages of a channel before its history is read.
    pub messages: u64,
    /// Longest time for everything that is not sending, in seconds.
    pub limit: u64,
    /// 1: clients come through WebSocket.
    pub websocket: u8,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            row: String::new(),
            tcp: None,
            ws: None,
            http: None,
            server: 0,
            seconds: 3.0,
            count: 0,
            pairs: 10,
            window: 1,
            rate: 900.0,
            members: 100,
            online: 0,
            idle: 0,
            first: 0,
            ping: 0.0,
            connections: 16,
            parallel: 32,
            size: 64,
            messages: 1000,
            limit: 60,
            websocket: 0,
        }
    }
}

impl Options {
    pub fn read(mut args: impl Iterator<Item = String>) -> Result<Self, Wrong> {
        let mut found = Options { row: args.next().ok_or(USAGE)?, ..Options::default() };
        while let Some(name) = args.next() {
            let value = args.next().ok_or_else(|| format!("{name} needs a value\n{USAGE}"))?;
            found.set(&name, &value)?;
        }
        Ok(found)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Wrong> {
        match name {
            "--tcp" => self.tcp = Some(loopback(value)?),
            "--ws" => self.ws = Some(loopback(value)?),
            "--http" => self.http = Some(loopback(value)?),
            "--pid" => self.server = number(name, value)?,
            "--seconds" => self.seconds = number(name, value)?,
            "--count" => self.count = number(name, value)?,
            "--pairs" => self.pairs = number(name, value)?,
            "--window" => self.window = number(name, value)?,
            "--rate" => self.rate = number(name, value)?,
            "--members" => self.members = number(name, value)?,
            "--online" => self.online = number(name, value)?,
            "--idle" => self.idle = number(name, value)?,
            "--first" => self.first = number(name, value)?,
            "--ping" => self.ping = number(name, value)?,
            "--connections" => self.connections = number(name, value)?,
            "--parallel" => self.parallel = number(name, value)?,
            "--size" => self.size = number(name, value)?,
            "--messages" => self.messages = number(name, value)?,
            "--limit" => self.limit = number(name, value)?,
            "--websocket" => self.websocket = number(name, value)?,
            _ => return Err(format!("{name} is no option\n{USAGE}")),
        }
        Ok(())
    }

    pub fn server(&self) -> Server {
        Server(self.server)
    }

    /// Longest wait for what is not sending.
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.limit)
    }

    /// Where and how clients log in.
    pub fn gate(&self) -> Result<Gate, Wrong> {
        let is_web = self.websocket != 0;
        let (address, name) = if is_web { (self.ws, "ws") } else { (self.tcp, "tcp") };
        let address = address.ok_or_else(|| format!("this row needs --{name}"))?;
        Ok(Gate { address, is_web, first: None, parallel: self.parallel, limit: self.limit() })
    }

    pub fn api(&self) -> Result<SocketAddrV4, Wrong> {
        self.http.ok_or_else(|| "this row needs --http".into())
    }
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, Wrong> {
    value.parse().map_err(|_| format!("{name} {value} is no number"))
}

fn loopback(value: &str) -> Result<SocketAddrV4, Wrong> {
    let address: SocketAddrV4 = value.parse().map_err(|_| format!("{value} is no IPv4 address with a port"))?;
    if address.ip().is_loopback() { Ok(address) } else { Err(format!("{value} is not a loopback address")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Options, Wrong> {
        Options::read(text.split_whitespace().map(String::from))
    }

    #[test]
    fn options_are_read() {
        let found = read("pairs --tcp 127.0.0.1:5100 --window 32 --seconds 0.5").unwrap();
        assert_eq!((found.row.as_str(), found.window, found.seconds), ("pairs", 32, 0.5));
        assert_eq!(found.gate().map(|gate| gate.address), Ok("127.0.0.1:5100".parse().unwrap()));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for wrong in ["", "pairs --tcp", "pairs --tcp 192.0.2.1:5100", "pairs --window many", "pairs --wind 1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read("pairs").unwrap().gate().is_err());
    }
}
