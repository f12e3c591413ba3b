//! Plain HTTP requests: a POST that came whole, with a length and nothing that changes how its connection goes on. Source:
//! RFC 9112. Whatever else there is, is left to the parser that knows all of HTTP: this one never refuses, and what
//! it takes the other would have taken for the same.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

const METHOD: &[u8] = b"POST ";
const VERSION: &[u8] = b" HTTP/1.1";
const MOST_HEADERS: usize = 64;
/// More digits than these are no length of a body that is taken.
const MOST_DIGITS: usize = 9;

/// (path, query, headers by lower-case name, body, where the next request begins)
type Request<'py> = (Bound<'py, PyString>, Bound<'py, PyBytes>, Bound<'py, PyDict>, Bound<'py, PyBytes>, usize);

/// Return the request that begins at `start`, None if it is no plain one, is not there in whole, or its body is longer
/// than `most`.
#[pyfunction]
pub fn read_request<'py>(py: Python<'py>, data: &[u8], start: usize, most: usize) -> PyResult<Option<Request<'py>>> {
    let Some((head, rest)) = data.get(start..).and_then(Head::read) else { return Ok(None) };
    if head.length > most || head.length > rest.len() {
        return Ok(None);
    }
    let headers = PyDict::new(py);
    for (name, value) in &head.headers {
        headers.set_item(name.as_str(), *value)?;
    }
    let end = data.len() - rest.len() + head.length;
    let body = PyBytes::new(py, &rest[..head.length]);
    Ok(Some((PyString::new(py, head.path), PyBytes::new(py, head.query), headers, body, end)))
}

struct Head<'a> {
    path: &'a str,
    query: &'a [u8],
    headers: Vec<(String, &'a str)>,
    length: usize,
}

impl<'a> Head<'a> {
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
