//! WebSocket frames of binary messages, many at a time; everything else about WebSocket is in Python.
//! Source: RFC 6455, section 5.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::read::body;

/// A whole message of bytes in one frame, without reserved bits.
const WHOLE_BINARY: u8 = 0x82;
const MASKED: u8 = 0x80;
const SHORT: u8 = 126;
const MASK_BYTES: usize = 4;
/// Packets without a length.
const PING: u8 = 7;
const PONG: u8 = 8;

/// A frame of a client: its mask, and what is masked.
struct Frame<'a> {
    mask: [u8; MASK_BYTES],
    payload: &'a [u8],
}

/// Read binary messages of a client, each in one frame, of at most `limit` bytes; stop at whatever else comes, is
/// broken or not all there. Returns what they hold, joined, and the offset of what follows them.
#[pyfunction]
pub fn read_messages<'py>(
    py: Python<'py>,
    buffer: &[u8],
    offset: usize,
    limit: usize,
) -> PyResult<(Bound<'py, PyBytes>, usize)> {
    let mut end = offset;
    let mut found = Vec::new();
    while let Some((frame, next)) = read(buffer, end, limit) {
        found.push(frame);
        end = next;
    }
    let size = found.iter().map(|frame| frame.payload.len()).sum();
    let joined = PyBytes::new_with(py, size, |mut out| {
        for frame in &found {
            let (here, rest) = out.split_at_mut(frame.payload.len());
            here.copy_from_slice(frame.payload);
            unmask(here, frame.mask);
            out = rest;
        }
        Ok(())
    })?;
    Ok((joined, end))
}

/// Return a frame of each packet: `joined` are bytes that hold whole packets. What is no packet is one message.
#[pyfunction]
pub fn write_messages<'py>(py: Python<'py>, joined: Vec<Bound<'py, PyBytes>>) -> Bound<'py, PyBytes> {
    let mut out = Vec::with_capacity(joined.iter().map(|each| each.as_bytes().len() * 9 / 8 + 8).sum());
    for each in &joined {
        let mut rest = each.as_bytes();
        while !rest.is_empty() {
            let (packet, behind) = rest.split_at(packet_size(rest));
            put_head(packet.len(), &mut out);
            out.extend_from_slice(packet);
            rest = behind;
        }
    }
    PyBytes::new(py, &out)
}

fn read(buffer: &[u8], offset: usize, limit: usize) -> Option<(Frame<'_>, usize)> {
    let rest = buffer.get(offset..)?;
    let (&[first, second], after) = rest.split_first_chunk()?;
    if first != WHOLE_BINARY || second & MASKED == 0 {
        return None;
    }
    let (length, after) = match second & !MASKED {
        short if short < SHORT => (u64::from(short), after),
        SHORT => {
            let (length, after) = after.split_first_chunk()?;
            let length = u64::from(u16::from_be_bytes(*length));
            (length >= u64::from(SHORT)).then_some((length, after))?
        }
        _ => {
            let (length, after) = after.split_first_chunk()?;
            let length = u64::from_be_bytes(*length);
            (length > u64::from(u16::MAX)).then_some((length, after))?
        }
    };
    let length = usize::try_from(length).ok().filter(|&length| length <= limit)?;
    let (&mask, after) = after.split_first_chunk()?;
    let payload = after.get(..length)?;
    Some((Frame { mask, payload }, buffer.len() - after.len() + length))
}

fn unmask(data: &mut [u8], mask: [u8; MASK_BYTES]) {
    let mut fours = data.chunks_exact_mut(MASK_BYTES);
    for four in &mut fours {
        four.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }
    fours.into_remainder().iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}

/// Return the length of the packet that bytes begin with, of all if there is none.
fn packet_size(bytes: &[u8]) -> usize {
    if matches!(bytes[0] >> 4, PING | PONG) {
        return 1;
    }
    match body(bytes, 1) {
        Some((start, length)) if start + length <= bytes.len() => start + length,
        _ => bytes.len(),
    }
}

fn put_head(size: usize, out: &mut Vec<u8>) {
    out.push(WHOLE_BINARY);
    match size {
        0..126 => out.push(size as u8),
        126..=0xFFFF => {
            out.push(SHORT);
            out.extend_from_slice(&(size as u16).to_be_bytes());
        }
        _ => {
            out.push(SHORT + 1);
            out.extend_from_slice(&(size as u64).to_be_bytes());
        }
    }
}
