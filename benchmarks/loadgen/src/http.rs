//! HTTP as little as can measure: keep-alive connections, one request at a time on each.

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::epoll;

use crate::histogram::Histogram;
use crate::peer::text;
use crate::wire::Wrong;

const TIMEOUT: Duration = Duration::from_secs(30);
const READ_SIZE: usize = 64 << 10;
const LENGTH: &str = "content-length";
const MAX_ANSWER: usize = 16 << 20;

/// One connection.
pub struct Caller {
    stream: TcpStream,
    /// Space for an answer, which grows as needed.
    space: Vec<u8>,
    got: usize,
    /// Where the body of the answer begins and ends, once that is known.
    body: Option<(usize, usize)>,
}

impl Caller {
    pub fn open(address: SocketAddrV4) -> Result<Self, Wrong> {
        let stream = TcpStream::connect_timeout(&address.into(), TIMEOUT).map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        stream.set_read_timeout(Some(TIMEOUT)).map_err(text)?;
        stream.set_write_timeout(Some(TIMEOUT)).map_err(text)?;
        Ok(Caller { stream, space: vec![0; READ_SIZE], got: 0, body: None })
    }

    /// Ask and wait for the answer; returns its body.
    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<String, Wrong> {
        self.begin(&request(method, path, body))?;
        while !self.read()? {}
        Ok(String::from_utf8_lossy(self.body()).into_owned())
    }

    fn begin(&mut self, request: &[u8]) -> Result<(), Wrong> {
        (self.got, self.body) = (0, None);
        self.stream.write_all(request).map_err(text)
    }

    /// Read once; true if the answer is whole, which has to be a success.
    fn read(&mut self) -> Result<bool, Wrong> {
        if self.space.len() - self.got < READ_SIZE {
            self.space.resize(self.got + READ_SIZE, 0);
        }
        let more = self.stream.read(&mut self.space[self.got..]).map_err(text)?;
        self.got += more;
        if more == 0 || self.got > MAX_ANSWER {
            return Err("half of an HTTP answer, or an endless one".into());
        }
        if self.body.is_none() {
            self.body = bounds(&self.space[..self.got])?;
        }
        Ok(self.body.is_some_and(|(_, end)| self.got >= end))
    }

    fn body(&self) -> &[u8] {
        self.body.map_or(&[], |(start, end)| &self.space[start..end])
    }
}

/// Return where the body of an answer begins and ends; None if the head is not whole.
fn bounds(answer: &[u8]) -> Result<Option<(usize, usize)>, Wrong> {
    let Some(end) = answer.windows(4).position(|each| each == b"\r\n\r\n") else { return Ok(None) };
    let (head, start) = (String::from_utf8_lossy(&answer[..end]), end + 4);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or("");
    if !status.starts_with("HTTP/1.1 200") {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&answer[start..])));
    }
    let lengths = lines.filter_map(|line| line.split_once(':')).filter(|line| line.0.eq_ignore_ascii_case(LENGTH));
    let length = lengths.last().and_then(|line| line.1.trim().parse::<usize>().ok());
    length.map(|length| Some((start, start + length))).ok_or_else(|| format!("an HTTP answer without {LENGTH}"))
}

/// A whole request.
pub fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// What closed-loop callers found.
pub struct Calls {
    pub seconds: f64,
    pub latency: Histogram,
    pub bytes: u64,
}

/// Let `count` connections ask, each one request after the other, for as long as `lasting` or until `most` requests.
/// `make` gets the connection's number and the request's; `check` the body of every answer.
pub fn closed_loop(
    address: SocketAddrV4,
    count: usize,
    lasting: Duration,
    most: u64,
    mut make: impl FnMut(usize, u64) -> Vec<u8>,
    mut check: impl FnMut(u64, &[u8]) -> Result<(), Wrong>,
) -> Result<Calls, Wrong> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(text)?;
    let mut callers: Vec<Caller> = (0..count).map(|_| Caller::open(address)).collect::<Result<_, _>>()?;
    for (number, caller) in callers.iter().enumerate() {
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&epoll, &caller.stream, data, epoll::EventFlags::IN).map_err(text)?;
    }
    let mut found = Calls { seconds: 0.0, latency: Histogram::default(), bytes: 0 };
    let (start, mut asked, mut busy) = (Instant::now(), 0, 0);
    let mut began = vec![start; count];
    for (number, caller) in callers.iter_mut().enumerate() {
        caller.begin(&make(number, asked))?;
        (asked, busy) = (asked + 1, busy + 1);
    }
    let mut ready: Vec<epoll::Event> = Vec::with_capacity(count);
    let limit = TIMEOUT.try_into().map_err(text)?;
    while busy > 0 {
        ready.clear();
        let woken = epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut ready), Some(&limit)).map_err(text)?;
        if woken == 0 {
            return Err(format!("no HTTP answer within {} seconds", TIMEOUT.as_secs()));
        }
        for event in &ready {
            let data = event.data;
            let number = data.u64() as usize;
            let caller = &mut callers[number];
            if !caller.read()? {
                continue;
            }
            let now = Instant::now();
            found.latency.add((now - began[number]).as_nanos() as u64);
            found.bytes += caller.got as u64;
            check(found.latency.count() - 1, caller.body())?;
            if now - start < lasting && asked < most {
                began[number] = Instant::now();
                caller.begin(&make(number, asked))?;
                asked += 1;
            } else {
                busy -= 1;
            }
        }
    }
    found.seconds = start.elapsed().as_secs_f64();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found_at_every_split() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        let start = answer.len() - 3;
        for cut in 0..start {
            assert_eq!(bounds(&answer[..cut]), Ok(None));
        }
        assert_eq!(bounds(&answer[..start]), Ok(Some((start, start + 3))));
    }

    #[test]
    fn what_is_no_success_is_an_error() {
        assert!(bounds(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").is_err());
        assert!(bounds(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
