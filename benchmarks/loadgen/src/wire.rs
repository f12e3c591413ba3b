//! The client's side of the wire protocol, version 5. Source: wire-protocol.md, sections 2 to 4.

use md5::{Digest, Md5};

use crate::base64;
use crate::keys::{BLOCK, Encryptor, Keys, Lanes};
use crate::md5::LANES;

pub const VERSION: u8 = 5;
pub const CONNACK: u8 = 2;
pub const SENDACK: u8 = 4;
pub const RECV: u8 = 5;
pub const PONG: u8 = 8;
pub const PING: &[u8] = &[0x70];
pub const ACCEPTED: u8 = 1;
/// Length of a RECVACK.
pub const RECVACK_SIZE: usize = 14;
/// Characters of a client message number, as the SDKs have it without their suffix.
pub const NUMBER_SIZE: usize = 32;

const CONNECT: u8 = 1 << 4;
/// SEND of a message that counts as unread: what the SDKs send.
const SEND: u8 = 3 << 4 | RED_DOT;
const RECVACK: u8 = 6 << 4;
const RED_DOT: u8 = 0x02;
const HAS_VERSION: u8 = 0x01;
const MAX_LENGTH: usize = 1 << 20;
const KEY_TEXT: usize = 44;

/// What the server did that no server should.
pub type Wrong = String;

/// A frame in a buffer: its first byte, where its body begins and ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frame {
    pub head: u8,
    pub start: usize,
    pub end: usize,
}

impl Frame {
    pub fn kind(&self) -> u8 {
        self.head >> 4
    }
}

/// Find the frame at `at`; None if it is not whole.
pub fn frame(buffer: &[u8], at: usize) -> Result<Option<Frame>, Wrong> {
    let Some(&head) = buffer.get(at) else { return Ok(None) };
    if matches!(head >> 4, 7 | PONG) {
        return Ok(Some(Frame { head, start: at + 1, end: at + 1 }));
    }
    let mut length = 0;
    for used in 0..4 {
        let Some(&byte) = buffer.get(at + 1 + used) else { return Ok(None) };
        length |= ((byte & 0x7F) as usize) << (7 * used);
        if byte < 0x80 {
            let start = at + 2 + used;
            if length > MAX_LENGTH {
                break;
            }
            return Ok((start + length <= buffer.len()).then_some(Frame { head, start, end: start + length }));
        }
    }
    Err(format!("a frame of type {} is longer than {MAX_LENGTH} bytes", head >> 4))
}

fn put(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text);
}

fn put_head(head: u8, mut length: usize, out: &mut Vec<u8>) {
    out.push(head);
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// Append a CONNECT without a token.
pub fn connect(uid: &str, public_key: &[u8; 32], out: &mut Vec<u8>) {
    let mut key = Vec::with_capacity(KEY_TEXT);
    base64::encode(public_key, &mut key);
    put_head(CONNECT, 2 + 2 * (2 + uid.len()) + 2 + 8 + 2 + key.len(), out);
    out.extend_from_slice(&[VERSION, 0]);
    put(uid.as_bytes(), out); // the device has the user's name
    put(uid.as_bytes(), out);
    put(b"", out);
    out.extend_from_slice(&[0; 8]);
    put(&key, out);
}

/// What an accepted CONNECT brought.
pub struct Accepted {
    pub server_key: [u8; 32],
    pub salt: [u8; BLOCK],
}

/// Read a CONNACK; its reason if that is not success.
pub fn connack(head: u8, body: &[u8]) -> Result<Result<Accepted, u8>, Wrong> {
    let mut reader = Reader(body);
    let found = (|| {
        if head & HAS_VERSION != 0 {
            reader.take(1)?;
        }
        reader.take(8)?;
        let reason = reader.take(1)?[0];
        Some((reason, reader.text()?, reader.text()?))
    })();
    let Some((reason, key, salt)) = found else { return Err("a CONNACK is too short".into()) };
    if reason != ACCEPTED {
        return Ok(Err(reason));
    }
    let mut raw = Vec::new();
    let known = base64::decode(key, &mut raw);
    match (known, raw.try_into(), salt.try_into()) {
        (true, Ok(server_key), Ok(salt)) => Ok(Ok(Accepted { server_key, salt })),
        _ => Err("a CONNACK without a key of 32 bytes and a salt of 16".into()),
    }
}

/// Make the keys of a connection from what was agreed on.
pub fn keys(private_key: &[u8; 32], accepted: &Accepted) -> Keys {
    let shared = x25519_dalek::x25519(*private_key, accepted.server_key);
    let mut text = Vec::with_capacity(KEY_TEXT);
    base64::encode(&shared, &mut text);
    let digest = Md5::digest(&text);
    let key = std::array::from_fn(|n| HEX[(digest[n / 2] >> (4 - 4 * (n % 2)) & 15) as usize]);
    Keys::new(key, accepted.salt)
}

pub fn public_key(private_key: &[u8; 32]) -> [u8; 32] {
    x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(*private_key)).to_bytes()
}

/// A SENDACK.
pub struct Ack {
    pub client_seq: u32,
    pub reason: u8,
}

pub fn sendack(body: &[u8]) -> Result<Ack, Wrong> {
    let [_, _, _, _, _, _, _, _, a, b, c, d, _, _, _, _, reason, ..] = *body else {
        return Err(format!("a SENDACK of {} bytes", body.len()));
    };
    Ok(Ack { client_seq: u32::from_be_bytes([a, b, c, d]), reason })
}

/// A RECV, still encrypted.
pub struct Recv<'a> {
    flags: u8,
    msg_key: &'a [u8],
    from_uid: &'a [u8],
    channel_id: &'a [u8],
    channel_type: u8,
    pub number: &'a [u8],
    message_id: [u8; 8],
    seq: [u8; 4],
    timestamp: [u8; 4],
    payload: &'a [u8],
}

impl<'a> Recv<'a> {
    pub fn read(head: u8, body: &'a [u8]) -> Result<Self, Wrong> {
        Self::fields(head, body).ok_or_else(|| format!("a RECV of {} bytes cannot be read", body.len()))
    }

    fn fields(head: u8, body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(body);
        if reader.take(1)?[0] != 0 {
            return None; // a topic or a stream, which nobody here sends
        }
        let (msg_key, from_uid, channel_id) = (reader.text()?, reader.text()?, reader.text()?);
        let channel_type = reader.take(1)?[0];
        reader.take(4)?;
        Some(Recv {
            flags: head & 0x0F,
            msg_key,
            from_uid,
            channel_id,
            channel_type,
            number: reader.text()?,
            message_id: reader.take(8)?.try_into().ok()?,
            seq: reader.take(4)?.try_into().ok()?,
            timestamp: reader.take(4)?.try_into().ok()?,
            payload: reader.0,
        })
    }

    pub fn seq(&self) -> u32 {
        u32::from_be_bytes(self.seq)
    }

    /// Append its RECVACK.
    pub fn acknowledge(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[RECVACK | self.flags & 0x07, 12]);
        out.extend_from_slice(&self.message_id);
        out.extend_from_slice(&self.seq);
    }

    /// True if the signature is right and the payload is that of its number.
    pub fn is_genuine(&self, keys: &Keys, size: usize, work: &mut Work) -> bool {
        let sign = &mut work.lanes.plain[0];
        sign.clear();
        sign.extend_from_slice(i64::from_be_bytes(self.message_id).to_string().as_bytes());
        sign.extend_from_slice(self.seq().to_string().as_bytes());
        sign.extend_from_slice(self.number);
        sign.extend_from_slice(i32::from_be_bytes(self.timestamp).to_string().as_bytes());
        sign.extend_from_slice(self.from_uid);
        sign.extend_from_slice(self.channel_id);
        sign.extend_from_slice(self.channel_type.to_string().as_bytes());
        sign.extend_from_slice(self.payload);
        let [expected, ..] = work.lanes.msg_keys(&[&keys.encryptor()]);
        let mut wanted = Vec::with_capacity(size);
        payload(self.number, size, &mut wanted);
        let decryptor = keys.decryptor();
        self.msg_key == expected && decryptor.decrypt(self.payload, &mut work.space) == Some(wanted.as_slice())
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let size = self.take(2)?;
        self.take(u16::from_be_bytes([size[0], size[1]]) as usize)
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Return the client message number of a message: who sent it (8 digits), its number there (8) and when (16).
pub fn number(peer: u32, seq: u32, at: u64) -> [u8; NUMBER_SIZE] {
    let bits = (peer as u128) << 96 | (seq as u128) << 64 | at as u128;
    std::array::from_fn(|n| HEX[(bits >> (124 - 4 * n)) as usize & 15])
}

/// Return (sender, seq, when) of a client message number; None if no `number` made it.
pub fn parts(number: &[u8]) -> Option<(u32, u32, u64)> {
    let mut bits = 0u128;
    for &digit in number {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        bits = bits << 4 | value as u128;
    }
    (number.len() == NUMBER_SIZE).then_some(((bits >> 96) as u32, (bits >> 64) as u32, bits as u64))
}

/// Append the payload of a message: its number, over and over.
fn payload(number: &[u8], size: usize, out: &mut Vec<u8>) {
    out.extend(number.iter().cycle().take(size));
}

/// Work space of `sends` and of `Recv::is_genuine`.
#[derive(Default)]
pub struct Work {
    lanes: Lanes,
    space: Vec<u8>,
    payloads: [Vec<u8>; LANES],
}

/// Who sends what to whom.
pub struct Message<'a> {
    pub keys: &'a Keys,
    pub sender: u32,
    pub channel_id: &'a str,
    pub channel_type: u8,
    pub size: usize,
}

impl Message<'_> {
    /// Give the SENDs of `times.len()` messages to `done`, one after the other; the first has the number `first`.
    pub fn sends(&self, first: u32, times: &[u64], work: &mut Work, mut done: impl FnMut(&[u8])) {
        let encryptor = self.keys.encryptor();
        for (batch, times) in times.chunks(LANES).enumerate() {
            self.batch(&encryptor, first + (batch * LANES) as u32, times, work, &mut done);
        }
    }

    fn batch(&self, encryptor: &Encryptor, first: u32, times: &[u64], work: &mut Work, done: &mut impl FnMut(&[u8])) {
        let encryptors = &[encryptor; LANES][..times.len()];
        let mut numbers = [[0; NUMBER_SIZE]; LANES];
        for (n, (at, plain)) in times.iter().zip(&mut work.lanes.plain).enumerate() {
            numbers[n] = number(self.sender, first + n as u32, *at);
            plain.clear();
            payload(&numbers[n], self.size, plain);
        }
        work.lanes.encrypt(encryptors);
        std::mem::swap(&mut work.lanes.text, &mut work.payloads);
        for (n, plain) in work.lanes.plain.iter_mut().enumerate().take(times.len()) {
            plain.clear();
            decimal(first + n as u32, plain);
            plain.extend_from_slice(&numbers[n]);
            plain.extend_from_slice(self.channel_id.as_bytes());
            decimal(self.channel_type as u32, plain);
            plain.extend_from_slice(&work.payloads[n]);
        }
        let msg_keys = work.lanes.msg_keys(encryptors);
        for n in 0..times.len() {
            let (payload, out) = (&work.payloads[n], &mut work.space);
            out.clear();
            let length = 1 + 4 + 2 + NUMBER_SIZE + 2 + self.channel_id.len() + 1 + 4 + 2 + 32 + payload.len();
            put_head(SEND, length, out);
            out.push(0);
            out.extend_from_slice(&(first + n as u32).to_be_bytes());
            put(&numbers[n], out);
            put(self.channel_id.as_bytes(), out);
            out.push(self.channel_type);
            out.extend_from_slice(&[0; 4]);
            put(&msg_keys[n], out);
            out.extend_from_slice(payload);
            done(out);
        }
    }
}

/// Append a number in decimal digits.
fn decimal(mut value: u32, out: &mut Vec<u8>) {
    let mut digits = [0; 10];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The session `rfc7748-alice-bob` of wire-protocol.md, section 10.1.
    fn session() -> Keys {
        Keys::new(*b"0c15fdbf4d09bc6c", *b"A7DFJg6Q2IccyRQj")
    }

    #[test]
    fn the_keys_of_the_worked_example() {
        let private_key = [
            0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66, 0x45, 0xdf, 0x4c,
            0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9, 0x2c, 0x2a,
        ];
        let server_key = [
            0xde, 0x9e, 0xdb, 0x7d, 0x7b, 0x7d, 0xc1, 0xb4, 0xd3, 0x5b, 0x61, 0xc2, 0xec, 0xe4, 0x35, 0x37, 0x3f, 0x83,
            0x43, 0xc8, 0x5b, 0x78, 0x67, 0x4d, 0xad, 0xfc, 0x7e, 0x14, 0x6f, 0x88, 0x2b, 0x4f,
        ];
        let made = keys(&private_key, &Accepted { server_key, salt: *b"A7DFJg6Q2IccyRQj" });
        let text = b"iI4GouhE7/FlIWVP1LiSigkMa9NO6FkWiiXV2BgCF74=";
        let mut space = Vec::new();
        assert_eq!(made.decryptor().decrypt(text, &mut space), Some(&br#"{"type":1,"content":"hi"}"#[..]));
    }

    #[test]
    fn a_number_comes_back() {
        let made = number(7, 0xFFFF_FFFE, 1 << 40);
        assert_eq!(parts(&made), Some((7, 0xFFFF_FFFE, 1 << 40)));
        assert_eq!(parts(b"0123"), None);
        assert_eq!(parts(&[b'G'; NUMBER_SIZE]), None);
    }

    #[test]
    fn frames_are_found_at_every_split() {
        let mut bytes = vec![0x80];
        put_head(RECV << 4, 200, &mut bytes);
        bytes.extend_from_slice(&[0; 200]);
        assert_eq!(frame(&bytes, 0), Ok(Some(Frame { head: 0x80, start: 1, end: 1 })));
        for cut in 1..bytes.len() {
            assert_eq!(frame(&bytes[..cut], 1), Ok(None));
        }
        assert_eq!(frame(&bytes, 1), Ok(Some(Frame { head: 0x50, start: 4, end: 204 })));
        assert!(frame(&[0x50, 0xFF, 0xFF, 0xFF, 0x7F], 0).is_err());
    }

    #[test]
    fn what_was_changed_is_not_genuine() {
        let keys = session();
        let made = number(1, 2, 3);
        let mut plain = Vec::new();
        payload(&made, 64, &mut plain);
        let mut lanes = Lanes::default();
        lanes.plain[0] = plain;
        lanes.encrypt(&[&keys.encryptor()]);
        let text = lanes.text[0].clone();
        lanes.plain[0] = [b"17", &made[..], b"9", b"s", b"s", b"1", &text].concat();
        let [msg_key, ..] = lanes.msg_keys(&[&keys.encryptor()]);
        let mut body = vec![0];
        put(&msg_key, &mut body);
        put(b"s", &mut body);
        put(b"s", &mut body);
        body.extend_from_slice(&[1, 0, 0, 0, 0]);
        put(&made, &mut body);
        body.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 9]);
        body.extend_from_slice(&text);
        let mut work = Work::default();
        let recv = Recv::read(0x52, &body).unwrap();
        assert!(recv.is_genuine(&keys, 64, &mut work));
        let mut ack = Vec::new();
        recv.acknowledge(&mut ack);
        assert_eq!(ack, [0x62, 12, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 7]);
        for at in [3, body.len() - 1] {
            let mut changed = body.clone();
            changed[at] ^= 1;
            assert!(!Recv::read(0x52, &changed).unwrap().is_genuine(&keys, 64, &mut work));
        }
    }
}
