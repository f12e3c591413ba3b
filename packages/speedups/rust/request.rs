//! Plain HTTP requests: a POST that came whole, with a length and nothing that changes how its connection goes on. Source:
//! RFC 9112. Whatever else there is, is left to the parser that knows all of HTTP: this one never refuses, and what
//! it takes the other would have taken for the same.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use crate::sockets::{Got, receive};

const METHOD: &[u8] = b"POST ";
const VERSION: &[u8] = b" HTTP/1.1";
const MOST_HEADERS: usize = 64;
/// More digits than these are no length of a body that is taken.
const MOST_DIGITS: usize = 9;

/// (path, query, headers by lower-case name, body)
type Request<'py> = (Bound<'py, PyString>, Bound<'py, PyBytes>, Bound<'py, PyDict>, Bound<'py, PyBytes>);

/// (requests, what follows them, bytes that were read)
type Received<'py> = (Vec<Request<'py>>, Bound<'py, PyBytes>, usize);

/// Read once from a non-blocking socket, at most `size` bytes, and return the plain requests to one of `paths` that
/// they begin with; None if there is nothing now, no bytes at all if the peer has ended or is lost.
#[pyfunction]
pub fn receive_requests<'py>(
    py: Python<'py>,
    descriptor: i32,
    size: usize,
    paths: &Bound<'py, PyDict>,
    most: usize,
) -> PyResult<Option<Received<'py>>> {
    receive(descriptor, size, |got| {
        let Got::Bytes(data) = got else { return Ok(None) };
        let (mut requests, mut at) = (Vec::new(), 0);
        while let Some((head, body, end)) = whole(data, at, most) {
            if !paths.contains(head.path)? {
                break;
            }
            requests.push(head.request(py, body)?);
            at = end;
        }
        Ok(Some((requests, PyBytes::new(py, &data[at..]), data.len())))
    })
}

/// Return the head and the body of the plain request that begins at `start`, and where it ends.
fn whole(data: &[u8], start: usize, most: usize) -> Option<(Head<'_>, &[u8], usize)> {
    let (head, rest) = Head::read(data.get(start..)?)?;
    let body = rest.get(..head.length).filter(|body| body.len() <= most)?;
    let end = data.len() - rest.len() + head.length;
    Some((head, body, end))
}

struct Head<'a> {
    path: &'a str,
    query: &'a [u8],
    headers: Vec<(String, &'a str)>,
    length: usize,
}

impl<'a> Head<'a> {
    fn request<'py>(&self, py: Python<'py>, body: &[u8]) -> PyResult<Request<'py>> {
        let headers = PyDict::new(py);
        for (name, value) in &self.headers {
            headers.set_item(name.as_str(), *value)?;
        }
        let (path, query) = (PyString::new(py, self.path), PyBytes::new(py, self.query));
        Ok((path, query, headers, PyBytes::new(py, body)))
    }

    /// Return the head, and what follows it.
    fn read(data: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (first, mut rest) = line(data.strip_prefix(METHOD)?)?;
        let target = first.strip_suffix(VERSION)?;
        let (path, query) = match target.iter().position(|&byte| byte == b'?') {
            Some(at) => (&target[..at], &target[at + 1..]),
            None => (target, &target[target.len()..]),
        };
        if path.first() != Some(&b'/')
            || !path.iter().all(|&byte| is_plain(byte))
            || !query.iter().all(|&byte| is_query(byte))
        {
            return None;
        }
        let mut head =
            Head { path: std::str::from_utf8(path).ok()?, query, headers: Vec::with_capacity(12), length: 0 };
        let mut is_long = false;
        loop {
            let (text, after) = line(rest)?;
            rest = after;
            if text.is_empty() {
                return is_long.then_some((head, rest));
            }
            let (name, value) = header(text)?;
            match name.as_str() {
                "content-length" if is_long => return None,
                "content-length" => {
                    head.length = length(value)?;
                    is_long = true;
                }
                "connection" if !value.eq_ignore_ascii_case("keep-alive") => return None,
                "transfer-encoding" | "upgrade" | "expect" | "proxy-connection" => return None,
                _ => {}
            }
            head.headers.push((name, value));
            if head.headers.len() > MOST_HEADERS {
                return None;
            }
        }
    }
}

/// Return a line without its end, and what follows.
fn line(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = data.iter().position(|&byte| byte == b'\r' || byte == b'\n')?;
    Some((&data[..at], data[at..].strip_prefix(b"\r\n")?))
}

fn header(text: &[u8]) -> Option<(String, &str)> {
    let colon = text.iter().position(|&byte| byte == b':')?;
    let name = &text[..colon];
    if name.is_empty() || !name.iter().all(|&byte| is_plain(byte) && byte != b'/') {
        return None;
    }
    let spaces = text[colon + 1..].iter().take_while(|&&byte| byte == b' ').count();
    let value = &text[colon + 1 + spaces..];
    if value.is_empty() || value.ends_with(b" ") || !value.iter().all(|byte| (0x20..0x7F).contains(byte)) {
        return None;
    }
    let name = name.iter().map(|byte| byte.to_ascii_lowercase() as char).collect();
    Some((name, std::str::from_utf8(value).ok()?))
}

fn length(value: &str) -> Option<usize> {
    let is_number = value.len() <= MOST_DIGITS && value.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { value.parse().ok() } else { None }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'-')
}

fn is_query(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'#'
}
