//! Payload encryption and message keys: wire-protocol.md, section 4.

use aes::cipher::{BlockCipherEncrypt, BlockModeDecrypt, InnerIvInit, KeyInit};
use aes::{Aes128Dec, Aes128Enc, Block};
use cbc::cipher::block_padding::Pkcs7;

use crate::base64;
use crate::md5::{LANES, hex_digests};

pub const BLOCK: usize = 16;
pub type MsgKey = [u8; 32];

/// Key and IV of one connection; the IV is the same for every message.
///
/// Schedules are made anew for each batch: that takes 23 ns with the processor's AES instructions, where keeping them
/// takes 1.4 KB of each connection.
pub struct Keys {
    key: Block,
    iv: Block,
}

impl Keys {
    pub fn new(key: [u8; BLOCK], iv: [u8; BLOCK]) -> Self {
        Keys { key: key.into(), iv: iv.into() }
    }

    pub fn encryptor(&self) -> Encryptor {
        Encryptor { cipher: Aes128Enc::new(&self.key), iv: self.iv }
    }

    pub fn decryptor(&self) -> Decryptor {
        Decryptor { cipher: Aes128Dec::new(&self.key), iv: self.iv }
    }
}

/// What encrypts for one connection.
pub struct Encryptor {
    cipher: Aes128Enc,
    iv: Block,
}

/// What decrypts for one connection.
pub struct Decryptor {
    cipher: Aes128Dec,
    iv: Block,
}

impl Decryptor {
    /// Decrypt the text of a payload into `out`, which is overwritten. None if it is not base64, not whole blocks or
    /// not padded as PKCS7 demands.
    pub fn decrypt<'a>(&self, text: &[u8], out: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        out.clear();
        if !base64::decode(text, out) {
            return None;
        }
        cbc::Decryptor::inner_iv_init(&self.cipher, &self.iv).decrypt_padded::<Pkcs7>(out).ok()
    }
}

/// Work space for `LANES` texts.
#[derive(Default)]
pub struct Lanes {
    /// What is to be encrypted; overwritten by it.
    pub plain: [Vec<u8>; LANES],
    /// The texts of what was encrypted last.
    pub text: [Vec<u8>; LANES],
}

impl Lanes {
    /// Pad and encrypt what is in `plain`, a lane with each of `encryptors`.
    pub fn encrypt(&mut self, encryptors: &[&Encryptor]) {
        for plain in &mut self.plain[..encryptors.len()] {
            let padding = BLOCK - plain.len() % BLOCK;
            plain.resize(plain.len() + padding, padding as u8);
        }
        cbc_encrypt(encryptors, &mut self.plain);
        for (plain, text) in self.plain.iter().zip(&mut self.text).take(encryptors.len()) {
            text.clear();
            base64::encode(plain, text);
        }
    }

    /// Return the message keys of the sign texts in `plain`.
    pub fn msg_keys(&mut self, encryptors: &[&Encryptor]) -> [MsgKey; LANES] {
        self.encrypt(encryptors);
        hex_digests(&self.text.each_ref().map(Vec::as_slice)[..encryptors.len()])
    }
}

/// Encrypt in place, block by block of all lanes: one lane alone would wait for each block.
fn cbc_encrypt(encryptors: &[&Encryptor], lanes: &mut [Vec<u8>; LANES]) {
    let mut last: [Block; LANES] =
        std::array::from_fn(|lane| encryptors.get(lane).map_or_else(Block::default, |each| each.iv));
    let size = lanes.iter().take(encryptors.len()).map(Vec::len).max().unwrap_or(0);
    for at in (0..size).step_by(BLOCK) {
        for ((encryptor, lane), last) in encryptors.iter().zip(lanes.iter_mut()).zip(&mut last) {
            if let Some(block) = lane.get_mut(at..at + BLOCK) {
                last.iter_mut().zip(&*block).for_each(|(old, new)| *old ^= new);
                encryptor.cipher.encrypt_block(last);
                block.copy_from_slice(last);
            }
        }
    }
}
