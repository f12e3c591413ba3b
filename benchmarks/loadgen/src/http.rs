//! HTTP as little as can measure: keep-alive connections, one request at a time on each.

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::epoll;

use crate::engine::text;
use crate::histogram::Histogram;
use crate::wire::Wrong;

const TIMEOUT: Duration = Duration::from_secs(30);
const READ_SIZE: usize = 64 << 10;
const MAX_ANSWER: usize = 16 << 20;

/// One connection.
pub struct Caller {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Caller {
    pub fn open(address: SocketAddrV4) -> Result<Self, Wrong> {
        let stream = TcpStream::connect_timeout(&address.into(), TIMEOUT).map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        stream.set_read_timeout(Some(TIMEOUT)).map_err(text)?;
        stream.set_write_timeout(Some(TIMEOUT)).map_err(text)?;
        Ok(Caller { stream, answer: Vec::new() })
    }

    /// Ask and wait for the answer; returns its body.
    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<String, Wrong> {
        self.begin(&request(method, path, body))?;
        while !self.read()? {}
        Ok(String::from_utf8_lossy(self.body()).into_owned())
    }

    fn begin(&mut self, request: &[u8]) -> Result<(), Wrong> {
        self.answer.clear();
        self.stream.write_all(request).map_err(text)
    }

    /// Read once; true if the answer is whole, which has to be a success.
    fn read(&mut self) -> Result<bool, Wrong> {
        let start = self.answer.len();
        self.answer.resize(start + READ_SIZE, 0);
        let got = self.stream.read(&mut self.answer[start..]).map_err(text)?;
        self.answer.truncate(start + got);
        match self.length()? {
            Some(length) => Ok(self.answer.len() >= length),
            None if got == 0 || start > MAX_ANSWER => Err("half of an HTTP answer".into()),
            None => Ok(false),
        }
    }

    /// Return where the body begins, if the head is whole.
    fn head(&self) -> Option<usize> {
        self.answer.windows(4).position(|each| each == b"\r\n\r\n").map(|at| at + 4)
    }

    fn body(&self) -> &[u8] {
        &self.answer[self.head().unwrap_or(0)..]
    }

    /// Return the length of the whole answer, if the head is there.
    fn length(&self) -> Result<Option<usize>, Wrong> {
        let Some(end) = self.head() else { return Ok(None) };
        let head = String::from_utf8_lossy(&self.answer[..end]).to_ascii_lowercase();
        if !head.starts_with("http/1.1 200") {
            return Err(format!("{}: {}", head.lines().next().unwrap_or(""), String::from_utf8_lossy(self.body())));
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        length.map(|length| Some(end + length)).ok_or_else(|| "an HTTP answer without a length".into())
    }
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
            found.bytes += caller.answer.len() as u64;
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
