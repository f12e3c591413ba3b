//! SENDs, encrypted and signed several at a time: one alone would wait for each block of the cipher.

use crate::keys::{Encryptor, Keys, Lanes};
use crate::md5::LANES;
use crate::wire::{NUMBER_SIZE, number, payload, put, put_head};

/// SEND of a message that counts as unread: what the SDKs send.
const SEND: u8 = 3 << 4 | RED_DOT;
const RED_DOT: u8 = 0x02;
const MSG_KEY_SIZE: usize = 32;

/// Work space of `sends` and of `Recv::is_genuine`.
#[derive(Default)]
pub struct Work {
    pub lanes: Lanes,
    pub space: Vec<u8>,
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
            let length = 1 + 4 + 2 + NUMBER_SIZE + 2 + self.channel_id.len() + 1 + 4 + 2 + MSG_KEY_SIZE + payload.len();
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
