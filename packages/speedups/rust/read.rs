//! One read of a connection: SENDs checked and decrypted, RECVACKs, PINGs. Source: wire-protocol.md, sections 2 and 3.

use std::io::Write;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

use crate::DETACH_BYTES;
use crate::keys::{Keys, Lanes};
use crate::md5::LANES;
use crate::peer::Peer;

const SEND: u8 = 3;
const RECVACK: u8 = 6;
const RECVACK_BODY: u8 = 12;
const PING: u8 = 7;
/// Topic and both stream bits: fields that are left to the Python codec.
const UNUSUAL_SETTING: u8 = 0x0E;
const NO_PERSIST: u8 = 0x01;
const MAX_STRING: usize = 0x7FFF;
const RECV_OVERHEAD: usize = 640;
const PAYLOAD_DECODE_ERROR: u8 = 9;

/// A SEND as it lies in the buffer.
struct Send<'a> {
    flags: u8,
    setting: u8,
    client_seq: u32,
    client_msg_no: &'a str,
    channel_id: &'a str,
    channel_type: u8,
    expire: u32,
    msg_key: &'a str,
    payload: &'a [u8],
    is_too_long: bool,
}

/// What becomes of a payload.
enum Opened<'a> {
    Plain(&'a [u8]),
    Decrypted(Vec<u8>),
    Refused(&'a [u8]),
}

#[derive(Default)]
struct Frames<'a> {
    used: usize,
    sends: Vec<Send<'a>>,
    acked: Vec<i64>,
    recvacks: usize,
    pings: usize,
}

/// (offset of the first byte not read, SENDs, marks, acknowledged message ids, number of RECVACKs, number of PINGs)
type Read<'py> = (usize, Bound<'py, PyList>, Bound<'py, PyList>, Bound<'py, PyList>, usize, usize);

/// Read SENDs, RECVACKs and PINGs; stop at whatever else comes, is unusual, broken or not all there.
#[pyfunction]
pub fn read_batch<'py>(
    py: Python<'py>,
    peer: &Bound<'py, Peer>,
    buffer: &[u8],
    offset: usize,
    max_frame: usize,
) -> PyResult<Read<'py>> {
    let peer = peer.get();
    let frames = scan(buffer, offset, peer.version, max_frame);
    let opened = match &peer.keys {
        None => frames.sends.iter().map(unencrypted).collect(),
        Some(keys) if buffer.len() < DETACH_BYTES => open(&frames.sends, keys),
        Some(keys) => py.detach(|| open(&frames.sends, keys)),
    };
    let sends = PyList::empty(py);
    let marks = PyList::empty(py);
    let topic = PyString::new(py, "");
    let mut last: Option<(&str, Bound<'py, PyString>)> = None;
    for (send, opened) in frames.sends.iter().zip(&opened) {
        let channel_id = match &last {
            Some((text, object)) if *text == send.channel_id => object.clone(),
            _ => PyString::new(py, send.channel_id),
        };
        last = Some((send.channel_id, channel_id.clone()));
        let (payload, refusal) = match opened {
            Opened::Plain(bytes) => (*bytes, 0),
            Opened::Decrypted(bytes) => (bytes.as_slice(), 0),
            Opened::Refused(bytes) => (*bytes, PAYLOAD_DECODE_ERROR),
        };
        sends.append((
            channel_id,
            send.channel_type,
            PyBytes::new(py, payload),
            send.client_msg_no,
            send.flags,
            send.setting,
            send.expire,
            &topic,
            refusal,
        ))?;
        marks.append((send.client_seq, send.flags))?;
    }
    Ok((frames.used, sends, marks, PyList::new(py, frames.acked)?, frames.recvacks, frames.pings))
}

/// Read RECVACKs for as long as they confirm the messages `ids` from the one at `start` on, in order.
#[pyfunction]
pub fn match_recvacks(buffer: &[u8], offset: usize, ids: &[u8], start: usize) -> (usize, usize) {
    let expected = ids.chunks_exact(8).skip(start);
    let found = buffer.get(offset..).unwrap_or_default().chunks_exact(2 + RECVACK_BODY as usize);
    let count = found
        .zip(expected)
        .take_while(|(frame, id)| {
            frame[0] >> 4 == RECVACK && frame[0] & NO_PERSIST == 0 && frame[1] == RECVACK_BODY && frame[2..10] == **id
        })
        .count();
    (count, offset + count * (2 + RECVACK_BODY as usize))
}

fn scan(buffer: &[u8], offset: usize, version: u8, max_frame: usize) -> Frames<'_> {
    let mut frames = Frames { used: offset, ..Frames::default() };
    while let Some(&head) = buffer.get(frames.used) {
        let (kind, flags) = (head >> 4, head & 0x0F);
        if kind == PING {
            frames.pings += 1;
            frames.used += 1;
            continue;
        }
        if kind != SEND && kind != RECVACK {
            break;
        }
        let Some((start, length)) = body(buffer, frames.used + 1) else { break };
        if length > max_frame {
            break;
        }
        let Some(body) = buffer.get(start..start + length) else { break };
        if kind == RECVACK {
            let (Some(id), true) = (body.first_chunk(), length >= 12) else { break };
            frames.recvacks += 1;
            if flags & NO_PERSIST == 0 {
                frames.acked.push(i64::from_be_bytes(*id));
            }
        } else {
            let is_too_long = length + RECV_OVERHEAD > max_frame;
            let Some(send) = parse(body, flags, version, is_too_long) else { break };
            frames.sends.push(send);
        }
        frames.used = start + length;
    }
    frames
}

/// Return where the body of a frame starts and its length; None if the length is incomplete or broken.
pub(crate) fn body(buffer: &[u8], at: usize) -> Option<(usize, usize)> {
    let mut length = 0;
    for used in 0..4 {
        let byte = *buffer.get(at + used)?;
        length |= ((byte & 0x7F) as usize) << (7 * used);
        if byte < 0x80 {
            return Some((at + used + 1, length));
        }
    }
    None
}

/// Decode the body of an ordinary SEND.
fn parse(body: &[u8], flags: u8, version: u8, is_too_long: bool) -> Option<Send<'_>> {
    let (&setting, rest) = body.split_first()?;
    if setting & UNUSUAL_SETTING != 0 {
        return None;
    }
    let (client_seq, rest) = rest.split_first_chunk()?;
    let (client_msg_no, rest) = text(rest)?;
    let (channel_id, rest) = text(rest)?;
    let (&channel_type, mut rest) = rest.split_first()?;
    let mut expire = 0;
    if version >= 3 {
        let (bytes, after) = rest.split_first_chunk()?;
        expire = u32::from_be_bytes(*bytes);
        rest = after;
    }
    let (msg_key, payload) = text(rest)?;
    let client_seq = u32::from_be_bytes(*client_seq);
    Some(Send {
        flags,
        setting,
        client_seq,
        client_msg_no,
        channel_id,
        channel_type,
        expire,
        msg_key,
        payload,
        is_too_long,
    })
}

fn text(rest: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = rest.split_first_chunk()?;
    let length = u16::from_be_bytes(*length) as usize;
    if length > MAX_STRING {
        return None;
    }
    let (bytes, rest) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(bytes).ok()?, rest))
}

fn unencrypted<'a>(send: &Send<'a>) -> Opened<'a> {
    if send.is_too_long { Opened::Refused(b"") } else { Opened::Plain(send.payload) }
}

/// Check the message keys of SENDs and decrypt their payloads.
fn open<'a>(sends: &[Send<'a>], keys: &Keys) -> Vec<Opened<'a>> {
    let (encryptor, decryptor) = (keys.encryptor(), keys.decryptor());
    let mut lanes = Lanes::default();
    let mut opened = Vec::with_capacity(sends.len());
    for some in sends.chunks(LANES) {
        for (send, sign) in some.iter().zip(&mut lanes.plain) {
            sign.clear();
            if !send.is_too_long {
                // Writing to a Vec does not fail.
                let _ =
                    write!(sign, "{}{}{}{}", send.client_seq, send.client_msg_no, send.channel_id, send.channel_type);
                sign.extend_from_slice(send.payload);
            }
        }
        let found = lanes.msg_keys(&[&encryptor; LANES][..some.len()]);
        for (send, msg_key) in some.iter().zip(&found) {
            opened.push(if send.is_too_long {
                Opened::Refused(b"")
            } else if send.msg_key.as_bytes() != msg_key {
                Opened::Refused(send.payload)
            } else {
                let mut space = Vec::new();
                match decryptor.decrypt(send.payload, &mut space).map(<[u8]>::len) {
                    Some(size) => {
                        space.truncate(size);
                        Opened::Decrypted(space)
                    }
                    None => Opened::Refused(send.payload),
                }
            });
        }
    }
    opened
}
