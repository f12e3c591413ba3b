//! Key agreements of several clients with one key of ours: X25519 (RFC 7748) in the lanes of AVX-512 IFMA.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::base64;
use crate::md5::hex_digests;

/// Characters of the hex digest that are the AES key.
const AES_KEY: usize = 16;

/// Return the AES keys of several clients, b"" for each whose shared secret is zero (wire-protocol.md, section 4).
///
/// None if this processor cannot do several at once: one at a time `cryptography` is faster.
#[pyfunction]
#[pyo3(signature = (private, publics, /))]
pub fn aes_keys<'py>(
    py: Python<'py>,
    private: &[u8],
    publics: Vec<[u8; 32]>,
) -> PyResult<Option<Vec<Bound<'py, PyBytes>>>> {
    let private = private.try_into().map_err(|_| PyValueError::new_err("a private key has 32 bytes"))?;
    let keys = py.detach(|| keys(private, &publics));
    Ok(keys.map(|keys| keys.iter().map(|key| PyBytes::new(py, key.as_ref().map_or(&[], |key| &key[..]))).collect()))
}

#[cfg(all(target_arch = "x86_64", avx512))]
fn keys(private: [u8; 32], publics: &[[u8; 32]]) -> Option<Vec<Option<[u8; AES_KEY]>>> {
    use std::arch::is_x86_feature_detected as has;
    if !(has!("avx512f") && has!("avx512dq") && has!("avx512ifma")) {
        return None;
    }
    let mut keys = Vec::with_capacity(publics.len());
    for some in publics.chunks(ifma::LANES) {
        // SAFETY: the processor has what is asked for above.
        let secrets = unsafe { ifma::x25519(private, some) };
        keys.extend(keys_of(&secrets[..some.len()]));
    }
    Some(keys)
}

/// Without the instructions, or built by a compiler that does not know them.
#[cfg(not(all(target_arch = "x86_64", avx512)))]
fn keys(_private: [u8; 32], _publics: &[[u8; 32]]) -> Option<Vec<Option<[u8; AES_KEY]>>> {
    None
}

/// Turn at most `LANES` shared secrets into AES keys: the hex MD5 of their base64, the first half.
#[cfg_attr(not(all(target_arch = "x86_64", avx512)), allow(dead_code))]
fn keys_of(secrets: &[[u8; 32]]) -> impl Iterator<Item = Option<[u8; AES_KEY]>> {
    let mut texts: [Vec<u8>; crate::md5::LANES] = Default::default();
    texts.iter_mut().zip(secrets).for_each(|(text, secret)| base64::encode(secret, text));
    let digests = hex_digests(&texts.each_ref().map(Vec::as_slice)[..secrets.len()]);
    secrets.iter().zip(digests).map(|(secret, digest)| {
        let is_usable = secret.iter().fold(0, |bits, byte| bits | byte) != 0;
        is_usable.then(|| std::array::from_fn(|n| digest[n]))
    })
}

/// Theory of operation. A number modulo p = 2^255 - 19 is five digits of 51 bits, and a vector holds the same digit of
/// eight numbers. Digits may be a little longer than 51 bits, but below 2^52, since that is what the instructions
/// multiply; so every function takes such digits and gives such digits (`carry`). The private key is the same in all
/// lanes. No branch and no address depends on it.
#[cfg(all(target_arch = "x86_64", avx512))]
#[allow(clippy::incompatible_msrv, reason = "left out where the compiler is older, see build.rs")]
mod ifma {
    use std::arch::x86_64::{
        __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64,
        _mm512_mask_blend_epi64, _mm512_mullo_epi64, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_slli_epi64,
        _mm512_srli_epi64, _mm512_sub_epi64,
    };
    use std::hint::black_box;
    use std::mem::transmute;

    pub const LANES: usize = 8;
    const BITS: u32 = 51;
    const LOW: u64 = (1 << BITS) - 1;
    /// (486662 - 2) / 4, RFC 7748 section 5.
    const A24: u64 = 121_665;
    /// 4 p, digit by digit: more than any digit that is subtracted.
    const FOUR_P: [u64; 5] = [4 * (LOW - 18), 4 * LOW, 4 * LOW, 4 * LOW, 4 * LOW];

    /// Eight numbers.
    type Field = [__m512i; 5];

    /// Multiply eight points by one number: the function X25519.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub fn x25519(mut private: [u8; 32], publics: &[[u8; 32]]) -> [[u8; 32]; LANES] {
        private[0] &= 248;
        private[31] = private[31] & 127 | 64;
        let x1 = load(publics);
        let (mut x2, mut z2, mut x3, mut z3) = (constant(1), constant(0), x1, constant(1));
        let mut swapped = 0;
        for at in (0..255).rev() {
            let bit = private[at / 8] >> (at % 8) & 1;
            let mask = black_box(0u8.wrapping_sub(bit ^ swapped));
            swapped = bit;
            (x2, x3) = swap(mask, x2, x3);
            (z2, z3) = swap(mask, z2, z3);
            let (a, b, c, d) = (add(x2, z2), subtract(x2, z2), add(x3, z3), subtract(x3, z3));
            let (aa, bb, da, cb) = (square(a), square(b), multiply(d, a), multiply(c, b));
            let e = subtract(aa, bb);
            x3 = square(add(da, cb));
            z3 = multiply(x1, square(subtract(da, cb)));
            x2 = multiply(aa, bb);
            z2 = multiply(e, add_a24(aa, e));
        }
        let mask = black_box(0u8.wrapping_sub(swapped));
        (x2, _) = swap(mask, x2, x3);
        (z2, _) = swap(mask, z2, z3);
        store(multiply(x2, invert(z2)))
    }

    #[target_feature(enable = "avx512f")]
    fn constant(value: i64) -> Field {
        let zero = _mm512_setzero_si512();
        [_mm512_set1_epi64(value), zero, zero, zero, zero]
    }

    /// Swap where `mask` is all ones, not where it is zero.
    #[target_feature(enable = "avx512f")]
    fn swap(mask: u8, a: Field, b: Field) -> (Field, Field) {
        let (mut left, mut right) = (a, b);
        for n in 0..5 {
            left[n] = _mm512_mask_blend_epi64(mask, a[n], b[n]);
            right[n] = _mm512_mask_blend_epi64(mask, b[n], a[n]);
        }
        (left, right)
    }

    /// Bring digits below 2^62 below 2^51 + 2^16.
    #[target_feature(enable = "avx512f,avx512dq")]
    fn carry(mut digits: Field) -> Field {
        let low = _mm512_set1_epi64(LOW as i64);
        let over = digits.map(|digit| _mm512_srli_epi64::<BITS>(digit));
        for n in 0..5 {
            let carried = if n == 0 { times_19(over[4]) } else { over[n - 1] };
            digits[n] = _mm512_add_epi64(_mm512_and_si512(digits[n], low), carried);
        }
        digits
    }

    #[target_feature(enable = "avx512f,avx512dq")]
    fn times_19(digit: __m512i) -> __m512i {
        _mm512_mullo_epi64(digit, _mm512_set1_epi64(19))
    }

    #[target_feature(enable = "avx512f,avx512dq")]
    fn add(mut a: Field, b: Field) -> Field {
        for n in 0..5 {
            a[n] = _mm512_add_epi64(a[n], b[n]);
        }
        carry(a)
    }

    #[target_feature(enable = "avx512f,avx512dq")]
    fn subtract(mut a: Field, b: Field) -> Field {
        for n in 0..5 {
            let more = _mm512_add_epi64(a[n], _mm512_set1_epi64(FOUR_P[n] as i64));
            a[n] = _mm512_sub_epi64(more, b[n]);
        }
        carry(a)
    }

    /// Return aa + 121665 e.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn add_a24(aa: Field, e: Field) -> Field {
        let (zero, factor) = (_mm512_setzero_si512(), _mm512_set1_epi64(A24 as i64));
        let mut sum = aa;
        for n in 0..5 {
            sum[n] = _mm512_madd52lo_epu64(sum[n], e[n], factor);
        }
        for n in 0..5 {
            let high = _mm512_slli_epi64::<1>(_mm512_madd52hi_epu64(zero, e[n], factor));
            let high = if n == 4 { times_19(high) } else { high };
            sum[(n + 1) % 5] = _mm512_add_epi64(sum[(n + 1) % 5], high);
        }
        carry(sum)
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn multiply(a: Field, b: Field) -> Field {
        let zero = _mm512_setzero_si512();
        let (mut low, mut high) = ([zero; 9], [zero; 9]);
        for n in 0..5 {
            for m in 0..5 {
                low[n + m] = _mm512_madd52lo_epu64(low[n + m], a[n], b[m]);
                high[n + m] = _mm512_madd52hi_epu64(high[n + m], a[n], b[m]);
            }
        }
        fold(low, high)
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn square(a: Field) -> Field {
        let zero = _mm512_setzero_si512();
        let (mut low, mut high) = ([zero; 9], [zero; 9]);
        for n in 0..5 {
            for m in n + 1..5 {
                low[n + m] = _mm512_madd52lo_epu64(low[n + m], a[n], a[m]);
                high[n + m] = _mm512_madd52hi_epu64(high[n + m], a[n], a[m]);
            }
        }
        low = low.map(|sum| _mm512_slli_epi64::<1>(sum));
        high = high.map(|sum| _mm512_slli_epi64::<1>(sum));
        for n in 0..5 {
            low[2 * n] = _mm512_madd52lo_epu64(low[2 * n], a[n], a[n]);
            high[2 * n] = _mm512_madd52hi_epu64(high[2 * n], a[n], a[n]);
        }
        fold(low, high)
    }

    /// Add up the halves of products, of which the high ones begin at bit 52, and take 2^255 for 19.
    ///
    /// Up to five halves below 2^52 each make up a sum, so digits are below 15 * 2^52 and what is carried below 2^61.
    #[target_feature(enable = "avx512f,avx512dq")]
    fn fold(low: [__m512i; 9], high: [__m512i; 9]) -> Field {
        let mut digits = [_mm512_setzero_si512(); 10];
        for n in 0..9 {
            digits[n] = _mm512_add_epi64(digits[n], low[n]);
            digits[n + 1] = _mm512_slli_epi64::<1>(high[n]);
        }
        carry(std::array::from_fn(|n| _mm512_add_epi64(digits[n], times_19(digits[n + 5]))))
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn square_often(mut a: Field, times: u32) -> Field {
        for _ in 0..times {
            a = square(a);
        }
        a
    }

    /// Return a^(p - 2), which is 0 for 0.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn invert(a: Field) -> Field {
        let a2 = square(a);
        let a9 = multiply(a, square_often(a2, 2));
        let a11 = multiply(a9, a2);
        let ones_5 = multiply(square(a11), a9); // a to so many ones in binary
        let ones_10 = multiply(square_often(ones_5, 5), ones_5);
        let ones_20 = multiply(square_often(ones_10, 10), ones_10);
        let ones_40 = multiply(square_often(ones_20, 20), ones_20);
        let ones_50 = multiply(square_often(ones_40, 10), ones_10);
        let ones_100 = multiply(square_often(ones_50, 50), ones_50);
        let ones_200 = multiply(square_often(ones_100, 100), ones_100);
        let ones_250 = multiply(square_often(ones_200, 50), ones_50);
        multiply(square_often(ones_250, 5), a11)
    }

    /// Put each key into a lane, without its topmost bit; lanes that are left over hold 0.
    fn load(publics: &[[u8; 32]]) -> Field {
        let mut digits = [[0u64; LANES]; 5];
        for (lane, key) in publics.iter().enumerate() {
            let word = |n: usize| u64::from_le_bytes(std::array::from_fn(|byte| key[8 * n + byte]));
            let [a, b, c, d] = [word(0), word(1), word(2), word(3)];
            digits[0][lane] = a & LOW;
            digits[1][lane] = (a >> 51 | b << 13) & LOW;
            digits[2][lane] = (b >> 38 | c << 26) & LOW;
            digits[3][lane] = (c >> 25 | d << 39) & LOW;
            digits[4][lane] = d >> 12 & LOW;
        }
        // SAFETY: both are 64 bytes in which every pattern is a value.
        digits.map(|lanes| unsafe { transmute::<[u64; LANES], __m512i>(lanes) })
    }

    /// Return the number of each lane in its one form.
    fn store(field: Field) -> [[u8; 32]; LANES] {
        // SAFETY: both are 64 bytes in which every pattern is a value.
        let digits = field.map(|vector| unsafe { transmute::<__m512i, [u64; LANES]>(vector) });
        std::array::from_fn(|lane| to_bytes(digits.map(|lanes| lanes[lane])))
    }

    fn to_bytes(mut digits: [u64; 5]) -> [u8; 32] {
        for _ in 0..2 {
            digits[0] += 19 * carry_up(&mut digits); // twice: the lowest digit may be too long after the first
        }
        // Now it is below 2^255; p is to be subtracted if adding 19 reaches 2^255.
        let over = digits[1..].iter().fold((digits[0] + 19) >> BITS, |over, digit| (digit + over) >> BITS);
        digits[0] += 19 * over;
        carry_up(&mut digits);
        let [a, b, c, d, e] = digits;
        let words = [a | b << 51, b >> 13 | c << 38, c >> 26 | d << 25, d >> 39 | e << 12];
        let mut bytes = [0; 32];
        for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Bring digits to 51 bits, from the lowest to the highest; returns what leaves that.
    fn carry_up(digits: &mut [u64; 5]) -> u64 {
        digits.iter_mut().fold(0, |over, digit| {
            let sum = *digit + over;
            *digit = sum & LOW;
            sum >> BITS
        })
    }
}

#[cfg(all(test, target_arch = "x86_64", avx512))]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> [u8; 32] {
        std::array::from_fn(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap())
    }

    fn secrets(private: &str, publics: &[[u8; 32]]) -> Option<[[u8; 32]; ifma::LANES]> {
        keys([0; 32], &[])?; // the processor has no such instructions
        // SAFETY: it has.
        Some(unsafe { ifma::x25519(bytes(private), publics) })
    }

    /// Source: RFC 7748, section 5.2; the second public key has its topmost bit set.
    #[test]
    fn known_products() {
        for (private, public, expected) in [
            (
                "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
                "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
                "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
            ),
            (
                "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
                "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
                "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
            ),
        ] {
            let lanes = [bytes(public), [9; 32], bytes(public), bytes(public)];
            let Some(found) = secrets(private, &lanes) else { return };
            assert_eq!([found[0], found[2], found[3]], [bytes(expected); 3]);
            assert_ne!(found[1], found[0]);
            assert_eq!(found[4..], [[0; 32]; 4]);
        }
    }

    /// Source: RFC 7748, section 5.2: what comes out goes in again, a thousand times.
    #[test]
    fn a_thousand_times() {
        let (mut private, mut public) = ([0; 32], [0; 32]);
        (private[0], public[0]) = (9, 9);
        if keys(private, &[]).is_none() {
            return;
        }
        for _ in 0..1000 {
            // SAFETY: the processor has the instructions.
            let [.., secret] = unsafe { ifma::x25519(private, &[public; ifma::LANES]) };
            (private, public) = (secret, private);
        }
        assert_eq!(private, bytes("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"));
    }

    /// Points of low order, and numbers that are not below p: 0, 1, p - 1, p, p + 1, 2^255 - 1.
    #[test]
    fn no_secret_comes_of_points_of_low_order() {
        let mut low = [[0; 32], [0; 32], [255; 32], [255; 32], [255; 32]];
        low[1][0] = 1;
        for (key, lowest) in low[2..].iter_mut().zip([0xec, 0xed, 0xee]) {
            (key[0], key[31]) = (lowest, 127);
        }
        let Some(found) = keys([7; 32], &low) else { return };
        assert_eq!(found, [None; 5]);
        assert!(keys([7; 32], &[[255; 32]]).unwrap()[0].is_some());
    }
}
