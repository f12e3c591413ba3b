//! The client's side of WebSocket, as much as a server of this protocol needs. Source: RFC 6455.

use crate::wire::Wrong;

pub const PING: u8 = 9;
pub const PONG: u8 = 10;
pub const CLOSE: u8 = 8;
pub const BINARY: u8 = 2;

/// The key of RFC 6455, section 1.3, and the answer that is due: nothing here needs a secret one.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ANSWER: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const MAX_HEAD: usize = 16 << 10;

/// The request that opens a connection.
pub fn request() -> Vec<u8> {
    format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// Return where the server's consent ends; None if it is not whole.
pub fn consent(buffer: &[u8]) -> Result<Option<usize>, Wrong> {
    let Some(end) = buffer.windows(4).position(|each| each == b"\r\n\r\n") else {
        return if buffer.len() < MAX_HEAD { Ok(None) } else { Err("an endless answer to an upgrade".into()) };
    };
    let head = String::from_utf8_lossy(&buffer[..end]);
    let agrees = head.starts_with("HTTP/1.1 101 ") && head.lines().any(|line| line.ends_with(ANSWER));
    if agrees {
        Ok(Some(end + 4))
    } else {
        Err(format!("no consent to an upgrade: {}", head.lines().next().unwrap_or("")))
    }
}

/// Append a message of one frame, masked.
pub fn wrap(opcode: u8, content: &[u8], mask: u32, out: &mut Vec<u8>) {
    out.push(FINAL | opcode);
    match content.len() {
        length @ ..126 => out.push(MASKED | length as u8),
        length @ ..0x1_0000 => {
            out.push(MASKED | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(MASKED | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    let mask = mask.to_ne_bytes();
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(content);
    let wide = u64::from_ne_bytes(std::array::from_fn(|n| mask[n % 4]));
    let mut words = out[start..].chunks_exact_mut(8);
    for word in &mut words {
        let masked = u64::from_ne_bytes(std::array::from_fn(|n| word[n])) ^ wide;
        word.copy_from_slice(&masked.to_ne_bytes());
    }
    words.into_remainder().iter_mut().enumerate().for_each(|(n, byte)| *byte ^= mask[n % 4]);
}

/// A frame in a buffer: where its content begins and ends.
#[derive(Debug, PartialEq)]
pub struct Message {
    pub opcode: u8,
    pub start: usize,
    pub end: usize,
}

/// Find the message at `at`; None if it is not whole. The server sends each in one frame.
pub fn message(buffer: &[u8], at: usize) -> Result<Option<Message>, Wrong> {
    let [first, second, rest @ ..] = &buffer[at..] else { return Ok(None) };
    if first & 0xF0 != FINAL || second & MASKED != 0 {
        return Err("a WebSocket frame in pieces, with reserved bits or masked".into());
    }
    let extra = match second {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let Some(field) = rest.get(..extra) else { return Ok(None) };
    let length =
        if extra == 0 { *second as usize } else { field.iter().fold(0, |length, &byte| length << 8 | byte as usize) };
    let start = at + 2 + extra;
    if length > buffer.len().saturating_sub(start) {
        return Ok(None);
    }
    Ok(Some(Message { opcode: first & 0x0F, start, end: start + length }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_masked_twice_is_what_it_was() {
        for (size, head) in [(0, 2), (13, 2), (125, 2), (126, 4), (70_000, 10)] {
            let content: Vec<u8> = (0..size).map(|n| n as u8).collect();
            let mut out = Vec::new();
            wrap(BINARY, &content, 0x1234_5678, &mut out);
            assert_eq!(out.len(), head + 4 + size);
            let mask = 0x1234_5678u32.to_ne_bytes();
            let plain: Vec<u8> = out[head + 4..].iter().enumerate().map(|(n, byte)| byte ^ mask[n % 4]).collect();
            assert_eq!(plain, content);
        }
    }

    #[test]
    fn messages_are_found_at_every_split() {
        let mut bytes = vec![0x82, 126, 1, 0];
        bytes.extend_from_slice(&[7; 256]);
        for cut in 0..bytes.len() {
            assert_eq!(message(&bytes[..cut], 0), Ok(None));
        }
        assert_eq!(message(&bytes, 0), Ok(Some(Message { opcode: BINARY, start: 4, end: 260 })));
        assert!(message(&[0x02, 1, 1], 0).is_err());
        assert!(message(&[0x82, 0x81, 0, 0, 0, 0, 1], 0).is_err());
    }

    #[test]
    fn only_the_right_answer_is_consent() {
        let good = format!("HTTP/1.1 101 Switching\r\nsec-websocket-accept: {ANSWER}\r\n\r\nrest");
        assert_eq!(consent(good.as_bytes()), Ok(Some(good.len() - 4)));
        assert_eq!(consent(&good.as_bytes()[..40]), Ok(None));
        assert!(consent(b"HTTP/1.1 403 Forbidden\r\n\r\n").is_err());
    }
}
