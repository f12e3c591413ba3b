//! MD5 of several texts at once, a lane of the processor's vectors each: eight take little longer than two.

use md5::{Digest, Md5};

pub const LANES: usize = 8;
/// Fewer texts than this are faster one at a time.
const FEW: usize = 3;

/// Return the digests of at most `LANES` texts as hex digits.
pub fn hex_digests(texts: &[&[u8]]) -> [[u8; 32]; LANES] {
    let mut out = [[0; 32]; LANES];
    #[cfg(target_arch = "x86_64")]
    if texts.len() >= FEW && std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        let digests = unsafe { avx2::digests(texts) };
        out.iter_mut().zip(&digests).for_each(|(digits, digest)| *digits = hex(digest));
        return out;
    }
    for (digits, text) in out.iter_mut().zip(texts) {
        *digits = hex(&Md5::digest(text).into());
    }
    out
}

fn hex(digest: &[u8; 16]) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|n| DIGITS[(digest[n / 2] >> (4 - 4 * (n % 2)) & 15) as usize])
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi32, _mm256_and_si256, _mm256_andnot_si256, _mm256_blendv_epi8, _mm256_or_si256,
        _mm256_set1_epi32, _mm256_slli_epi32, _mm256_srli_epi32, _mm256_xor_si256,
    };
    use std::mem::transmute;

    use super::LANES;

    const BLOCK: usize = 64;
    const START: [u32; 4] = [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476];
    /// One word of each lane.
    type Words = [u32; LANES];

    /// floor(2^32 * |sin(n + 1)|), RFC 1321 section 3.4.
#[rustfmt::skip]
const SINES: [u32; 64] = [
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
];

    /// Return the digests of at most `LANES` texts.
    #[target_feature(enable = "avx2")]
    pub fn digests(texts: &[&[u8]]) -> [[u8; 16]; LANES] {
        let blocks: [usize; LANES] =
            std::array::from_fn(|lane| texts.get(lane).map_or(0, |text| (text.len() + 8) / BLOCK + 1));
        let mut state = START.map(|word| _mm256_set1_epi32(word as i32));
        for at in 0..blocks.iter().copied().max().unwrap_or(0) {
            let mut words = [[0; LANES]; 16];
            for (lane, text) in texts.iter().enumerate() {
                load(text, at, blocks[lane], lane, &mut words);
            }
            let next = compress(state, &words);
            let goes_on = vector(blocks.map(|count| if at < count { u32::MAX } else { 0 }));
            for (old, new) in state.iter_mut().zip(next) {
                *old = _mm256_blendv_epi8(*old, new, goes_on);
            }
        }
        // SAFETY: both are 32 bytes in which every pattern is a value.
        let words = state.map(|each| unsafe { transmute::<__m256i, Words>(each) });
        let mut digests = [[0; 16]; LANES];
        for (lane, digest) in digests.iter_mut().enumerate() {
            for (bytes, word) in digest.chunks_exact_mut(4).zip(&words) {
                bytes.copy_from_slice(&word[lane].to_le_bytes());
            }
        }
        digests
    }

    /// Put block `at` of a text, with its padding, into one lane.
    fn load(text: &[u8], at: usize, blocks: usize, lane: usize, words: &mut [Words; 16]) {
        let start = at * BLOCK;
        if let Some(block) = text.get(start..start + BLOCK) {
            for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
                word[lane] = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
            return;
        }
        let mut block = [0; BLOCK];
        if start <= text.len() {
            let rest = &text[start..];
            block[..rest.len()].copy_from_slice(rest);
            block[rest.len()] = 0x80;
        }
        if at + 1 == blocks {
            block[BLOCK - 8..].copy_from_slice(&(text.len() as u64 * 8).to_le_bytes());
        }
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            word[lane] = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
    }

    fn vector(words: Words) -> __m256i {
        // SAFETY: both are 32 bytes in which every pattern is a value.
        unsafe { transmute(words) }
    }

    #[target_feature(enable = "avx2")]
    fn compress(state: [__m256i; 4], words: &[Words; 16]) -> [__m256i; 4] {
        let [mut a, mut b, mut c, mut d] = state;
        macro_rules! step {
            ($mix:ident, $a:ident, $b:ident, $c:ident, $d:ident, $word:expr, $sine:expr, $shift:literal) => {
                let sine = _mm256_set1_epi32(SINES[$sine] as i32);
                let given = _mm256_add_epi32(_mm256_add_epi32($a, sine), vector(words[($word) % 16]));
                let sum = _mm256_add_epi32(given, $mix!($b, $c, $d));
                let turned =
                    _mm256_or_si256(_mm256_slli_epi32::<$shift>(sum), _mm256_srli_epi32::<{ 32 - $shift }>(sum));
                $a = _mm256_add_epi32($b, turned);
            };
        }
        macro_rules! round {
            ($mix:ident, $sine:literal, $from:literal, $stride:literal, $s0:literal, $s1:literal, $s2:literal, $s3:literal) => {
                round!(@four $mix, $sine, $from, $stride, $s0, $s1, $s2, $s3, 0);
                round!(@four $mix, $sine, $from, $stride, $s0, $s1, $s2, $s3, 4);
                round!(@four $mix, $sine, $from, $stride, $s0, $s1, $s2, $s3, 8);
                round!(@four $mix, $sine, $from, $stride, $s0, $s1, $s2, $s3, 12);
            };
            (@four $mix:ident, $sine:literal, $from:literal, $stride:literal, $s0:literal, $s1:literal, $s2:literal, $s3:literal, $n:literal) => {
                step!($mix, a, b, c, d, $from + $stride * $n, $sine + $n, $s0);
                step!($mix, d, a, b, c, $from + $stride * ($n + 1), $sine + $n + 1, $s1);
                step!($mix, c, d, a, b, $from + $stride * ($n + 2), $sine + $n + 2, $s2);
                step!($mix, b, c, d, a, $from + $stride * ($n + 3), $sine + $n + 3, $s3);
            };
        }
        macro_rules! choose {
            ($x:ident, $y:ident, $z:ident) => {
                _mm256_or_si256(_mm256_and_si256($x, $y), _mm256_andnot_si256($x, $z))
            };
        }
        macro_rules! choose_by_last {
            ($x:ident, $y:ident, $z:ident) => {
                _mm256_or_si256(_mm256_and_si256($z, $x), _mm256_andnot_si256($z, $y))
            };
        }
        macro_rules! parity {
            ($x:ident, $y:ident, $z:ident) => {
                _mm256_xor_si256($x, _mm256_xor_si256($y, $z))
            };
        }
        macro_rules! last {
            ($x:ident, $y:ident, $z:ident) => {
                _mm256_xor_si256($y, _mm256_or_si256($x, _mm256_xor_si256($z, _mm256_set1_epi32(-1))))
            };
        }
        round!(choose, 0, 0, 1, 7, 12, 17, 22);
        round!(choose_by_last, 16, 1, 5, 5, 9, 14, 20);
        round!(parity, 32, 5, 3, 4, 11, 16, 23);
        round!(last, 48, 0, 7, 6, 10, 15, 21);
        let [a0, b0, c0, d0] = state;
        [_mm256_add_epi32(a0, a), _mm256_add_epi32(b0, b), _mm256_add_epi32(c0, c), _mm256_add_epi32(d0, d)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_agree_with_one_at_a_time() {
        let data: Vec<u8> = (0..1000u32).map(|n| (n * 7) as u8).collect();
        for base in 0..200 {
            let texts: Vec<&[u8]> = (0..LANES).map(|lane| &data[..base + lane * (base % 40)]).collect();
            for count in 1..=LANES {
                let found = hex_digests(&texts[..count]);
                for (text, digits) in texts.iter().zip(&found[..count]) {
                    assert_eq!(*digits, hex(&Md5::digest(text).into()));
                }
            }
        }
    }
}
