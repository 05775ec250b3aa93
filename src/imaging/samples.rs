//! Rows of samples of any depth, as bytes: the eight highest bits of each.
//!
//! The networks read eight bits, and monotonic cutting keeps a part's look the same whatever depth its camera is set to.

use super::blocks::{self, BLOCK, Kernel};
use crate::frame::Samples;

/// Writes the samples of one row to `out`, a byte each. `row` has whole groups, as [`Samples::group`] counts them, of as many
/// samples as `out` has bytes.
pub(super) fn unpack(row: &[u8], samples: Samples, out: &mut [u8]) {
    match samples {
        Samples::U8 => out.copy_from_slice(row),
        Samples::U10 => blocks::each(row, out, Wide(2)),
        Samples::U12 => blocks::each(row, out, Wide(4)),
        Samples::U16 => blocks::each(row, out, Wide(8)),
        Samples::U10Packed | Samples::U12Packed => blocks::each(row, out, Packed),
        Samples::U12p => blocks::each(row, out, TwelveBits),
        Samples::U10p => blocks::each(row, out, TenBits),
    }
}

/// Two bytes a sample, of which so many lowest bits are cut off.
struct Wide(u32);

impl Kernel<{ 2 * BLOCK }, BLOCK> for Wide {
    #[inline(always)]
    fn block(&mut self, from: &[u8; 2 * BLOCK], out: &mut [u8; BLOCK]) {
        for (to, pair) in out.iter_mut().zip(from.as_chunks().0) {
            *to = (u16::from_le_bytes(*pair) >> self.0).min(255) as u8;
        }
    }
}

/// Three bytes for two samples, with their high bits outside.
struct Packed;

impl Kernel<{ BLOCK / 2 * 3 }, BLOCK> for Packed {
    #[inline(always)]
    fn block(&mut self, from: &[u8; BLOCK / 2 * 3], out: &mut [u8; BLOCK]) {
        for (to, [first, _, second]) in out.as_chunks_mut().0.iter_mut().zip(from.as_chunks().0) {
            *to = [*first, *second];
        }
    }
}

/// Two samples in three bytes, lowest bits first.
struct TwelveBits;

impl Kernel<{ BLOCK / 2 * 3 }, BLOCK> for TwelveBits {
    #[inline(always)]
    fn block(&mut self, from: &[u8; BLOCK / 2 * 3], out: &mut [u8; BLOCK]) {
        for (to, [a, b, c]) in out.as_chunks_mut().0.iter_mut().zip(from.as_chunks().0) {
            *to = [a >> 4 | b << 4, *c];
        }
    }
}

/// Four samples in five bytes, lowest bits first.
struct TenBits;

impl Kernel<{ BLOCK / 4 * 5 }, BLOCK> for TenBits {
    #[inline(always)]
    fn block(&mut self, from: &[u8; BLOCK / 4 * 5], out: &mut [u8; BLOCK]) {
        for (to, [a, b, c, d, e]) in out.as_chunks_mut().0.iter_mut().zip(from.as_chunks().0) {
            *to = [a >> 2 | b << 6, b >> 4 | c << 4, c >> 6 | d << 2, *e];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packs `values` of `bits` bits as one stream, lowest bit first.
    fn stream(values: &[u16], bits: usize) -> Vec<u8> {
        let mut bytes = vec![0; (values.len() * bits).div_ceil(8)];
        for (i, value) in values.iter().enumerate() {
            for bit in 0..bits {
                let at = i * bits + bit;
                bytes[at / 8] |= ((value >> bit & 1) as u8) << (at % 8);
            }
        }
        bytes
    }

    /// Two samples in three bytes: the high bytes outside, the low bits within.
    fn packed(values: &[u16], bits: u32) -> Vec<u8> {
        let low = bits - 8;
        let pair = |p: &[u16]| {
            let within = |v: u16| v & ((1 << low) - 1);
            [(p[0] >> low) as u8, (within(p[0]) | within(p[1]) << 4) as u8, (p[1] >> low) as u8]
        };
        values.chunks_exact(2).flat_map(pair).collect()
    }

    fn wide(values: &[u16]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    fn row(bytes: &[u8], samples: Samples) -> Vec<u8> {
        let (count, size) = samples.group();
        let mut out = vec![0; bytes.len() / size * count];
        unpack(bytes, samples, &mut out);
        out
    }

    #[test]
    fn every_packing_yields_the_high_bits_of_its_samples() {
        let deep: Vec<u16> = (0..4096).collect();
        let ten: Vec<u16> = (0..1024).collect();
        let high = |values: &[u16], shift: u32| values.iter().map(|v| (v >> shift) as u8).collect::<Vec<_>>();
        for (bytes, samples, expected) in [
            (wide(&deep), Samples::U12, high(&deep, 4)),
            (packed(&deep, 12), Samples::U12Packed, high(&deep, 4)),
            (stream(&deep, 12), Samples::U12p, high(&deep, 4)),
            (wide(&ten), Samples::U10, high(&ten, 2)),
            (packed(&ten, 10), Samples::U10Packed, high(&ten, 2)),
            (stream(&ten, 10), Samples::U10p, high(&ten, 2)),
            (wide(&[0xabcd]), Samples::U16, vec![0xab]),
            (vec![1, 2, 3], Samples::U8, vec![1, 2, 3]),
        ] {
            assert_eq!(row(&bytes, samples), expected, "{samples:?}");
        }
        // Rows that do not fill their last block.
        for count in [2, 62, 66, 190] {
            let some = &deep[4096 - count..];
            assert_eq!(row(&stream(some, 12), Samples::U12p), high(some, 4), "{count}");
        }
        // Bits beyond the depth that a camera claims are clipped, not wrapped.
        assert_eq!(row(&[0xff, 0xff], Samples::U10), [255]);
    }
}
