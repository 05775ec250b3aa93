//! Pixel formats: between the numbers and names of the GenICam Pixel Format Naming Convention and ours. Pure.

use crate::frame::Mosaic::{BgGr, GbRg, GrBg, RgGb};
use crate::frame::PixelFormat::{self, Bayer, Bgr8, Mono, Rgb8, Uyvy, Yuyv};
use crate::frame::Range::{Full, Limited};
use crate::frame::Samples::{U8, U10, U10Packed, U10p, U12, U12Packed, U12p, U16};

/// What can be read: number, name, layout; of what a camera offers the first is taken when the settings leave it open.
/// Eight bits come first, since the networks see no more and the cable has room for more frames; colour before brightness,
/// and brightness before YUV, which many monochrome cameras offer too, with colours that mean nothing. Only the formats with a
/// standard's number in their names have its limited range.
const FORMATS: [(u32, &str, PixelFormat); 42] = [
    (0x0108_0009, "BayerRG8", Bayer(RgGb, U8)),
    (0x0108_000b, "BayerBG8", Bayer(BgGr, U8)),
    (0x0108_0008, "BayerGR8", Bayer(GrBg, U8)),
    (0x0108_000a, "BayerGB8", Bayer(GbRg, U8)),
    (0x0218_0014, "RGB8", Rgb8),
    (0x0218_0015, "BGR8", Bgr8),
    (0x0108_0001, "Mono8", Mono(U8)),
    (0x0210_0032, "YUV422_8", Yuyv(Full)),
    (0x0210_001f, "YUV422_8_UYVY", Uyvy(Full)),
    (0x0210_003e, "YCbCr601_422_8", Yuyv(Limited)),
    (0x0210_003b, "YCbCr422_8", Yuyv(Full)),
    (0x010a_0058, "BayerRG10p", Bayer(RgGb, U10p)),
    (0x010a_0052, "BayerBG10p", Bayer(BgGr, U10p)),
    (0x010a_0056, "BayerGR10p", Bayer(GrBg, U10p)),
    (0x010a_0054, "BayerGB10p", Bayer(GbRg, U10p)),
    (0x010c_0027, "BayerRG10Packed", Bayer(RgGb, U10Packed)),
    (0x010c_0029, "BayerBG10Packed", Bayer(BgGr, U10Packed)),
    (0x010c_0026, "BayerGR10Packed", Bayer(GrBg, U10Packed)),
    (0x010c_0028, "BayerGB10Packed", Bayer(GbRg, U10Packed)),
    (0x0110_000d, "BayerRG10", Bayer(RgGb, U10)),
    (0x0110_000f, "BayerBG10", Bayer(BgGr, U10)),
    (0x0110_000c, "BayerGR10", Bayer(GrBg, U10)),
    (0x0110_000e, "BayerGB10", Bayer(GbRg, U10)),
    (0x010c_0059, "BayerRG12p", Bayer(RgGb, U12p)),
    (0x010c_0053, "BayerBG12p", Bayer(BgGr, U12p)),
    (0x010c_0057, "BayerGR12p", Bayer(GrBg, U12p)),
    (0x010c_0055, "BayerGB12p", Bayer(GbRg, U12p)),
    (0x010c_002b, "BayerRG12Packed", Bayer(RgGb, U12Packed)),
    (0x010c_002d, "BayerBG12Packed", Bayer(BgGr, U12Packed)),
    (0x010c_002a, "BayerGR12Packed", Bayer(GrBg, U12Packed)),
    (0x010c_002c, "BayerGB12Packed", Bayer(GbRg, U12Packed)),
    (0x0110_0011, "BayerRG12", Bayer(RgGb, U12)),
    (0x0110_0013, "BayerBG12", Bayer(BgGr, U12)),
    (0x0110_0010, "BayerGR12", Bayer(GrBg, U12)),
    (0x0110_0012, "BayerGB12", Bayer(GbRg, U12)),
    (0x010a_0046, "Mono10p", Mono(U10p)),
    (0x010c_0004, "Mono10Packed", Mono(U10Packed)),
    (0x0110_0003, "Mono10", Mono(U10)),
    (0x010c_0047, "Mono12p", Mono(U12p)),
    (0x010c_0006, "Mono12Packed", Mono(U12Packed)),
    (0x0110_0005, "Mono12", Mono(U12)),
    (0x0110_0007, "Mono16", Mono(U16)),
];

/// The layout behind a format's number.
pub(super) fn layout(number: u32) -> Option<PixelFormat> {
    FORMATS.iter().find(|(known, ..)| *known == number).map(|(.., layout)| *layout)
}

/// A format's name.
pub(super) fn name(number: u32) -> Option<&'static str> {
    FORMATS.iter().find(|(known, ..)| *known == number).map(|(_, name, _)| *name)
}

/// The number of the format that is wished for, `auto` for the best, out of those that a camera offers.
///
/// # Errors
/// What it offers instead.
pub(super) fn choose(offered: &[u32], wish: &str) -> Result<u32, String> {
    let readable = || FORMATS.iter().filter(|(number, ..)| offered.contains(number));
    let found =
        if wish == "auto" { readable().next() } else { readable().find(|(_, name, _)| *name == wish) };
    found.map(|(number, ..)| *number).ok_or_else(|| {
        let names: Vec<_> = readable().map(|(_, name, _)| *name).collect();
        match (names.is_empty(), wish) {
            (true, _) => {
                "offers no pixel format that can be read: Mono, Bayer, RGB8, BGR8 or YUV422 is needed".into()
            }
            (false, _) => format!("does not offer `format` = \"{wish}\", only {}", names.join(", ")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_carry_the_bits_that_their_layouts_need() {
        for (number, name, layout) in FORMATS {
            let bits = (number >> 16 & 0xff) as usize;
            // 40 pixels fill every group.
            assert_eq!(layout.row_bytes(40), Some(40 * bits / 8), "{name}");
        }
    }

    // What monochrome cameras of Basler's ace series list: Mono8, Mono16, Mono12, Mono12Packed, YUV422Packed, YUV422_YUYV_Packed.
    #[test]
    fn a_monochrome_camera_that_offers_yuv_too_is_read_as_monochrome() {
        let offered = [0x0108_0001, 0x0110_0007, 0x0110_0005, 0x010c_0006, 0x0210_001f, 0x0210_0032];
        assert_eq!(choose(&offered, "auto").map(name), Ok(Some("Mono8")));
        let colour = [&offered[..], &[0x0108_0009]].concat();
        assert_eq!(choose(&colour, "auto").map(name), Ok(Some("BayerRG8")));
        assert_eq!(choose(&offered[4..], "auto").map(name), Ok(Some("YUV422_8")));
    }

    #[test]
    fn only_what_names_a_standard_has_its_limited_range() {
        for (_, name, format) in FORMATS {
            if let Yuyv(range) | Uyvy(range) = format {
                assert_eq!(range == Limited, name.contains("601"), "{name}");
            }
        }
    }

    #[test]
    fn a_wish_that_cannot_be_had_is_answered_with_what_can() {
        let offered = [0x0108_0001, 0x0110_0005, 0x0218_0014, 0x9999_9999];
        assert_eq!(choose(&offered, "auto"), Ok(0x0218_0014));
        assert_eq!(choose(&offered, "Mono12"), Ok(0x0110_0005));
        assert!(choose(&offered, "BayerRG8").unwrap_err().contains("RGB8, Mono8, Mono12"));
        assert!(choose(&[1], "auto").unwrap_err().contains("no pixel format"));
    }
}
