//! Base64 with padding, as the clients write it.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const INVALID: u8 = 0xFF;

/// Two characters for each 12 bits, so that three bytes take two look-ups.
static PAIRS: [[u8; 2]; 4096] = pairs();
static VALUES: [u8; 256] = values();

const fn pairs() -> [[u8; 2]; 4096] {
    let mut table = [[0; 2]; 4096];
    let mut n = 0;
    while n < table.len() {
        table[n] = [ALPHABET[n >> 6], ALPHABET[n & 63]];
        n += 1;
    }
    table
}

const fn values() -> [u8; 256] {
    let mut table = [INVALID; 256];
    let mut n = 0;
    while n < ALPHABET.len() {
        table[ALPHABET[n] as usize] = n as u8;
        n += 1;
    }
    table
}

/// Length of the text of `size` bytes.
pub fn encoded_len(size: usize) -> usize {
    size.div_ceil(3) * 4
}

/// Append the text of `data` to `out`.
pub fn encode(data: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + encoded_len(data.len()), b'=');
    let (mut data, mut out) = (data, &mut out[start..]);
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        let done = unsafe { avx2::encode(data, out) };
        (data, out) = (&data[done / 4 * 3..], &mut out[done..]);
    }
    let mut groups = data.chunks_exact(3);
    let mut places = out.chunks_exact_mut(4);
    for (group, place) in (&mut groups).zip(&mut places) {
        let bits = (group[0] as usize) << 16 | (group[1] as usize) << 8 | group[2] as usize;
        place[..2].copy_from_slice(&PAIRS[bits >> 12]);
        place[2..].copy_from_slice(&PAIRS[bits & 0xFFF]);
    }
    if let Some(place) = places.next() {
        let bits = groups.remainder().iter().fold(0, |bits, &byte| bits << 8 | byte as usize);
        if groups.remainder().len() == 1 {
            place[..2].copy_from_slice(&PAIRS[bits << 4]);
        } else {
            place[..2].copy_from_slice(&PAIRS[bits >> 4]);
            place[2] = PAIRS[bits << 8 & 0xFFF][0];
        }
    }
}

/// Append the bytes of `text` to `out`. False if it is no base64: other characters, or padding that is not as it
/// should be; bits that are left over in the last character are not looked at.
pub fn decode(text: &[u8], out: &mut Vec<u8>) -> bool {
    if text.len() % 4 != 0 {
        return false;
    }
    let padding = text.iter().rev().take(2).take_while(|&&c| c == b'=').count();
    let (text, start) = (&text[..text.len() - padding], out.len());
    out.resize(start + text.len() * 3 / 4, 0);
    let mut groups = text.chunks_exact(4);
    let mut places = out[start..].chunks_exact_mut(3);
    let mut seen = 0;
    for (group, place) in (&mut groups).zip(&mut places) {
        let [a, b, c, d] = [group[0], group[1], group[2], group[3]].map(|c| VALUES[c as usize]);
        seen |= a | b | c | d;
        place.copy_from_slice(&[a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d]);
    }
    if let [a, b, rest @ ..] = groups.remainder() {
        let [a, b, c] = [a, b, rest.first().unwrap_or(&b'A')].map(|&c| VALUES[c as usize]);
        seen |= a | b | c;
        let last = [a << 2 | b >> 4, b << 4 | c >> 2];
        let place = places.into_remainder();
        place.copy_from_slice(&last[..place.len()]);
    }
    seen < 64
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    const IN: usize = 24;
    const OUT: usize = 32;

    /// Write the text of as many groups of 24 bytes as `data` has; returns how many characters that were.
    ///
    /// Each 128-bit half holds 12 bytes: a shuffle puts the three bytes of a group where shifts by multiplication
    /// can move its four parts of 6 bits into a byte each; what is added to a part depends on its range only.
    /// Source: W. Mula, D. Lemire, Faster Base64 Encoding and Decoding using AVX2 Instructions (2018), section 3.
    #[target_feature(enable = "avx2")]
    pub fn encode(data: &[u8], out: &mut [u8]) -> usize {
        let order = _mm_setr_epi8(1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10);
        let spread = _mm256_broadcastsi128_si256(order);
        // Offsets from a part to its character: 0 to 25, 26 to 51, each digit, '+', '/'.
        let letters = _mm_setr_epi8(71, -4, -4, -4, -4, -4, -4, -4, -4, -4, -4, -19, -16, 65, 0, 0);
        let offsets = _mm256_broadcastsi128_si256(letters);
        let mut done = 0;
        for (block, place) in data.chunks_exact(IN).zip(out.chunks_exact_mut(OUT)) {
            let (low, high) = block.split_at(IN / 2);
            let bytes = _mm256_set_m128i(half(high), half(low));
            let bytes = _mm256_shuffle_epi8(bytes, spread);
            let first = _mm256_mulhi_epu16(
                _mm256_and_si256(bytes, _mm256_set1_epi32(0x0FC0_FC00)),
                _mm256_set1_epi32(0x0400_0040),
            );
            let second = _mm256_mullo_epi16(
                _mm256_and_si256(bytes, _mm256_set1_epi32(0x003F_03F0)),
                _mm256_set1_epi32(0x0100_0010),
            );
            let parts = _mm256_or_si256(first, second);
            // 0 for 26 to 51, 1 to 10 for digits, 11 for '+', 12 for '/'; 13 for 0 to 25.
            let range = _mm256_subs_epu8(parts, _mm256_set1_epi8(51));
            let is_upper = _mm256_cmpgt_epi8(_mm256_set1_epi8(26), parts);
            let range = _mm256_or_si256(range, _mm256_and_si256(is_upper, _mm256_set1_epi8(13)));
            let text = _mm256_add_epi8(parts, _mm256_shuffle_epi8(offsets, range));
            // SAFETY: `place` has 32 bytes.
            unsafe { _mm256_storeu_si256(place.as_mut_ptr().cast(), text) };
            done += OUT;
        }
        done
    }

    #[target_feature(enable = "avx2")]
    fn half(bytes: &[u8]) -> __m128i {
        let mut padded = [0; 16];
        padded[..IN / 2].copy_from_slice(bytes);
        // SAFETY: 16 bytes are read from an array of 16.
        unsafe { _mm_loadu_si128(padded.as_ptr().cast()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(data, &mut out);
        out
    }

    fn bytes(text: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(text, &mut out).then_some(out)
    }

    #[test]
    fn the_vectors_of_rfc_4648() {
        let pairs: [(&[u8], &[u8]); 7] = [
            (b"", b""),
            (b"f", b"Zg=="),
            (b"fo", b"Zm8="),
            (b"foo", b"Zm9v"),
            (b"foob", b"Zm9vYg=="),
            (b"fooba", b"Zm9vYmE="),
            (b"foobar", b"Zm9vYmFy"),
        ];
        for (plain, coded) in pairs {
            assert_eq!(text(plain), coded);
            assert_eq!(bytes(coded).as_deref(), Some(plain));
        }
    }

    #[test]
    fn every_length_comes_back() {
        let data: Vec<u8> = (0..300u32).map(|n| (n * n * 31) as u8).collect();
        for size in 0..data.len() {
            let coded = text(&data[..size]);
            assert!(coded.iter().all(|&c| c == b'=' || VALUES[c as usize] != INVALID));
            assert_eq!(bytes(&coded).as_deref(), Some(&data[..size]));
        }
    }

    #[test]
    fn what_is_no_base64() {
        for wrong in
            [&b"Z"[..], b"Zg", b"Zg=", b"Z===", b"====", b"Zg==Zg==", b"Zg=a", b"Z\xff==", b"Zm9v====", b"Zm 9"]
        {
            assert_eq!(bytes(wrong), None);
        }
    }
}
