//! Rows of samples of any depth, as bytes: the eight highest bits of each.
//!
//! The networks read eight bits, and monotonic cutting keeps a part's look the same whatever depth its camera is set to.

use std::borrow::Cow;

use crate::frame::Samples;

/// The samples of one row. `row` has whole groups, as [`Samples::group`] counts them.
pub(super) fn row(row: &[u8], samples: Samples) -> Cow<'_, [u8]> {
    let wide = |shift: u32| {
        row.chunks_exact(2).map(|b| (u16::from_le_bytes([b[0], b[1]]) >> shift).min(255) as u8).collect()
    };
    match samples {
        Samples::U8 => Cow::Borrowed(row),
        Samples::U10 => wide(2),
        Samples::U12 => wide(4),
        Samples::U16 => wide(8),
        Samples::U10Packed | Samples::U12Packed => row.chunks_exact(3).flat_map(|b| [b[0], b[2]]).collect(),
        Samples::U12p => row.chunks_exact(3).flat_map(|b| [b[0] >> 4 | b[1] << 4, b[2]]).collect(),
        Samples::U10p => row
            .chunks_exact(5)
            .flat_map(|b| [b[0] >> 2 | b[1] << 6, b[1] >> 4 | b[2] << 4, b[2] >> 6 | b[3] << 2, b[4]])
            .collect(),
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
            assert_eq!(*row(&bytes, samples), expected, "{samples:?}");
        }
        // Bits beyond the depth that a camera claims are clipped, not wrapped.
        assert_eq!(*row(&[0xff, 0xff], Samples::U10), [255]);
    }
}
