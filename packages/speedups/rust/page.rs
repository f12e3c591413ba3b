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
const MESSAGE_ID: &[u8] = b",\"message_id\":";

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
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let (key, value): (Bound<PyBytes>, Bound<PyBytes>) = row.extract()?;
        let Some(seq) = seq_of(key.as_bytes(), prefix) else { break };
        found.push((seq, value));
    }
    let found = found.iter().map(|(seq, value)| (*seq, value.as_bytes()));
    Ok(text_of(py, found, (channel_id, channel_type), between, limit))
}

/// Do the same for records without their keys: messages that follow each other without a gap, the first of them `first`.
#[pyfunction]
#[pyo3(signature = (records, first, channel_id, channel_type, *, upwards, between, limit))]
#[allow(clippy::too_many_arguments)] // they are Python's, by name
pub fn run_text<'py>(
    py: Python<'py>,
    records: &Bound<'py, PyList>,
    first: u64,
    channel_id: &str,
    channel_type: u8,
    upwards: bool,
    between: (u64, u64),
    limit: usize,
) -> PyResult<Option<Page<'py>>> {
    let records: Vec<Bound<PyBytes>> = records.extract()?;
    let found = (0..).zip(&records).map(|(place, record)| {
        let seq = if upwards { first + place } else { first - place };
        (seq, record.as_bytes())
    });
    Ok(text_of(py, found, (channel_id, channel_type), between, limit))
}

fn text_of<'py, 'a>(
    py: Python<'py>,
    rows: impl Iterator<Item = (u64, &'a [u8])>,
    channel: (&str, u8),
    between: (u64, u64),
    limit: usize,
) -> Option<Page<'py>> {
    let mut found = Vec::with_capacity(rows.size_hint().0);
    for (seq, value) in rows {
        if seq < between.0 || seq > between.1 {
            break;
        }
        let record = Record::new(value)?;
        if record.expire != 0 || record.flags & MARKS != 0 {
            return None;
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
    let channel = Channel::new(channel.0, channel.1);
    let room = found.iter().map(|(_, record)| record.room()).sum::<usize>() + found.len() * channel.room + 2;
    let mut out = Vec::with_capacity(room);
    out.push(b'[');
    for (number, (seq, record)) in found.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        record.write(*seq, &channel, &mut out);
    }
    out.push(b']');
    Some((PyBytes::new(py, &out), more))
}

/// A channel as its messages show it.
struct Channel<'a> {
    id: &'a str,
    kind: u8,
    /// The members from `channel_id` to `channel_type`, unless they depend on the sender.
    shown: Option<Vec<u8>>,
    room: usize,
}

impl<'a> Channel<'a> {
    fn new(id: &'a str, kind: u8) -> Self {
        let id = id.strip_suffix(COMMAND_SUFFIX).unwrap_or(id);
        let shown = (kind != PERSON && kind != AGENT).then(|| {
            let mut shown = Vec::with_capacity(id.len() + 64);
            Self::write(id, kind, &mut shown);
            shown
        });
        Channel { id, kind, shown, room: id.len() * 6 + 64 }
    }

    fn write(id: &str, kind: u8, out: &mut Vec<u8>) {
        string(b",\"channel_id\":", id, out);
        number(b",\"channel_type\":", kind.into(), out);
    }
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

    /// Most bytes of its object, but for the channel.
    fn room(&self) -> usize {
        let texts = self.sender.len() + self.client_msg_no.len() + self.topic.len();
        texts * 6 + self.payload.len() * 4 / 3 + 384
    }

    fn write(&self, seq: u64, channel: &Channel, out: &mut Vec<u8>) {
        let flag = |bit: u8| if self.flags & bit != 0 { b'1' } else { b'0' };
        let mut header = *b"{\"header\":{\"no_persist\":0,\"red_dot\":0,\"sync_once\":0},\"setting\":";
        header[24] = flag(NO_PERSIST);
        header[36] = flag(RED_DOT);
        header[50] = flag(SYNC_ONCE);
        number(&header, self.setting.into(), out);
        let start = out.len() + MESSAGE_ID.len();
        number(MESSAGE_ID, self.message_id, out);
        let digits = start..out.len();
        out.extend_from_slice(b",\"message_idstr\":\"");
        out.extend_from_within(digits);
        string(b"\",\"client_msg_no\":", self.client_msg_no, out);
        number(b",\"message_seq\":", seq, out);
        string(b",\"from_uid\":", if self.sender == SYSTEM_UID { "" } else { self.sender }, out);
        match &channel.shown {
            Some(shown) => out.extend_from_slice(shown),
            None => Channel::write(self.other_end(channel.id), channel.kind, out),
        }
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
    fn other_end<'b>(&self, channel_id: &'b str) -> &'b str {
        let (first, second) = channel_id.split_once('@').unwrap_or((channel_id, ""));
        if self.sender == first { second } else { first }
    }
}

fn text(rest: &[u8], length: usize) -> Option<(&str, &[u8])> {
    let (bytes, rest) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(bytes).ok()?, rest))
}

/// Append `head` and a number, two digits at a time.
#[inline(always)] // so that the head, which is known, is copied without a call
fn number(head: &[u8], mut value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(head);
    if value < 10 {
        out.push(b'0' + value as u8);
        return;
    }
    let mut digits = [0; 20];
    let mut at = digits.len();
    while value >= 10 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[(value % 100) as usize]);
        value /= 100;
    }
    if value > 0 {
        at -= 1;
        digits[at] = b'0' + value as u8;
    }
    out.extend_from_slice(&digits[at..]);
}

static PAIRS: [[u8; 2]; 100] = pairs();

const fn pairs() -> [[u8; 2]; 100] {
    let mut table = [[0; 2]; 100];
    let mut n = 0;
    while n < table.len() {
        table[n] = [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8];
        n += 1;
    }
    table
}

/// Append `head` and a string with its quotes; only what must be escaped is.
#[inline(always)]
fn string(head: &[u8], value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(head);
    out.push(b'"');
    let bytes = value.as_bytes();
    if bytes.iter().fold(true, |plain, &byte| plain & (byte >= 0x20) & (byte != b'"') & (byte != b'\\')) {
        out.extend_from_slice(bytes);
    } else {
        escape(bytes, out);
    }
    out.push(b'"');
}

fn escape(bytes: &[u8], out: &mut Vec<u8>) {
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
}
