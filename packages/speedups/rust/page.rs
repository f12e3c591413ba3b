//! A page of history: records of the store to the JSON text of message objects. Source: http-api.md, section 3.4; the
//! form of keys and records is that of `triolet_core.store`.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::base64;

const PERSON: u8 = 1;
const AGENT: u8 = 11;
const SYSTEM_UID: &str = "____system";
const COMMAND_SUFFIX: &str = "____cmd";
const NO_PERSIST: u8 = 0x01;
const RED_DOT: u8 = 0x02;
const SYNC_ONCE: u8 = 0x04;
/// What happened to a message after it was sent is kept elsewhere.
const MARKS: u8 = 0xF0;
const SEQ_AT: usize = 7;

/// (JSON array, rising by seq; whether more lie beyond)
type Page<'py> = (Bound<'py, PyBytes>, bool);

/// A message as it lies in its record.
struct Record<'a> {
    message_id: u64,
    timestamp: u32,
    flags: u8,
    setting: u8,
    expire: u32,
    sender: &'a str,
    client_msg_no: &'a str,
    topic: &'a str,
    payload: &'a [u8],
}

/// Return the message objects of rows as JSON, None if Python has to look at one of them.
///
/// Rows are (key, record) in the order of reading, one more than the limit if there are as many; those that do not
/// begin with `prefix` or lie outside of `between` (inclusive) end the page. Python looks at messages that may have expired,
/// that were changed after they were sent, and at what is no record.
#[pyfunction]
#[pyo3(signature = (rows, prefix, channel_id, channel_type, *, between, limit))]
pub fn page_text<'py>(
    py: Python<'py>,
    rows: &Bound<'py, PyList>,
    prefix: &[u8],
    channel_id: &str,
    channel_type: u8,
    between: (u64, u64),
    limit: usize,
) -> PyResult<Option<Page<'py>>> {
    let rows: Vec<(Bound<PyBytes>, Bound<PyBytes>)> = rows.extract()?;
    let mut found = Vec::with_capacity(rows.len());
    for (key, value) in &rows {
        let Some(seq) = seq_of(key.as_bytes(), prefix) else { break };
        if seq < between.0 || seq > between.1 {
            break;
        }
        let Some(record) = Record::new(value.as_bytes()) else { return Ok(None) };
        if record.expire != 0 || record.flags & MARKS != 0 {
            return Ok(None);
        }
        found.push((seq, record));
    }
    let more = found.len() > limit;
    found.truncate(limit);
    if let [(first, _), .., (last, _)] = found.as_slice() {
        if first > last {
            found.reverse();
        }
    }
    let channel_id = channel_id.strip_suffix(COMMAND_SUFFIX).unwrap_or(channel_id);
    let mut out = Vec::with_capacity(found.iter().map(|(_, record)| record.payload.len() * 4 / 3 + 512).sum());
    out.push(b'[');
    for (number, (seq, record)) in found.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        record.write(*seq, channel_id, channel_type, &mut out);
    }
    out.push(b']');
    Ok(Some((PyBytes::new(py, &out), more)))
}

fn seq_of(key: &[u8], prefix: &[u8]) -> Option<u64> {
    if !key.starts_with(prefix) {
        return None;
    }
    key.get(SEQ_AT..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

impl<'a> Record<'a> {
    fn new(value: &'a [u8]) -> Option<Self> {
        let (message_id, rest) = value.split_first_chunk()?;
        let (timestamp, rest) = rest.split_first_chunk()?;
        let ([flags, setting], rest) = rest.split_first_chunk()?;
        let (expire, rest) = rest.split_first_chunk()?;
        let (lengths, rest) = rest.split_first_chunk::<6>()?;
        let [sender, number, topic] = [0, 2, 4].map(|at| u16::from_be_bytes([lengths[at], lengths[at + 1]]) as usize);
        let (sender, rest) = text(rest, sender)?;
        let (client_msg_no, rest) = text(rest, number)?;
        let (topic, payload) = text(rest, topic)?;
        Some(Record {
            message_id: u64::from_be_bytes(*message_id),
            timestamp: u32::from_be_bytes(*timestamp),
            flags: *flags,
            setting: *setting,
            expire: u32::from_be_bytes(*expire),
            sender,
            client_msg_no,
            topic,
            payload,
        })
    }

    fn write(&self, seq: u64, channel_id: &str, channel_type: u8, out: &mut Vec<u8>) {
        let flag = |bit: u8| u64::from(self.flags & bit != 0);
        number(b"{\"header\":{\"no_persist\":", flag(NO_PERSIST), out);
        number(b",\"red_dot\":", flag(RED_DOT), out);
        number(b",\"sync_once\":", flag(SYNC_ONCE), out);
        number(b"},\"setting\":", self.setting.into(), out);
        number(b",\"message_id\":", self.message_id, out);
        number(b",\"message_idstr\":\"", self.message_id, out);
        string(b"\",\"client_msg_no\":", self.client_msg_no, out);
        number(b",\"message_seq\":", seq, out);
        string(b",\"from_uid\":", if self.sender == SYSTEM_UID { "" } else { self.sender }, out);
        string(b",\"channel_id\":", self.shown_channel(channel_id, channel_type), out);
        number(b",\"channel_type\":", channel_type.into(), out);
        number(b",\"expire\":", self.expire.into(), out);
        number(b",\"timestamp\":", self.timestamp.into(), out);
        out.extend_from_slice(b",\"payload\":\"");
        base64::encode(self.payload, out);
        out.push(b'"');
        if !self.topic.is_empty() {
            string(b",\"topic\":", self.topic, out);
        }
        out.push(b'}');
    }

    /// A channel of two is shown as the end that is not the sender.
    fn shown_channel<'b>(&self, channel_id: &'b str, channel_type: u8) -> &'b str {
        if channel_type != PERSON && channel_type != AGENT {
            return channel_id;
        }
        let (first, second) = channel_id.split_once('@').unwrap_or((channel_id, ""));
        if self.sender == first { second } else { first }
    }
}

fn text(rest: &[u8], length: usize) -> Option<(&str, &[u8])> {
    let (bytes, rest) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(bytes).ok()?, rest))
}

/// Append `head` and a number.
fn number(head: &[u8], mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(head);
    out.extend_from_slice(&digits[at..]);
}

/// Append `head` and a string with its quotes; only what must be escaped is.
fn string(head: &[u8], value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(head);
    out.push(b'"');
    let bytes = value.as_bytes();
    let mut start = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[start..at]);
        start = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0x08 => out.extend_from_slice(b"\\b"),
            0x09 => out.extend_from_slice(b"\\t"),
            0x0A => out.extend_from_slice(b"\\n"),
            0x0C => out.extend_from_slice(b"\\f"),
            0x0D => out.extend_from_slice(b"\\r"),
            _ => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
        }
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}
