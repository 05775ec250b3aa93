//! A test chart, and how a sensor would send it: every layout written down bit by bit, from the GenICam Pixel Format Naming
//! Convention and without any of the program's own tables.

/// The chart's colour: alike in pairs of columns, so that chroma which two pixels share is that of both.
pub(crate) fn colour(x: u32, y: u32) -> [u8; 3] {
    let pair = x / 2;
    [(40 + pair * 5 % 160) as u8, (60 + y * 7 % 130) as u8, (90 + (pair * 3 + y * 11) % 90) as u8]
}

/// How samples of more than 8 bits lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Whole bytes, little endian.
    Wide,
    /// `…p`: one stream of bits, lowest first.
    Stream,
    /// `…Packed`: two samples in three bytes, low bits in the middle.
    Middle,
}

/// A layout, as its name says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    Mono(u32, Packing),
    /// The colours of the upper left two by two pixels, row by row: 0 red, 1 green, 2 blue.
    Bayer([usize; 4], u32, Packing),
    Rgb,
    Bgr,
    /// Y U Y V.
    Yuyv,
    /// U Y V Y.
    Uyvy,
}

impl Layout {
    /// By its name in the Convention.
    pub(crate) fn named(name: &str) -> Self {
        let (packing, rest) = match name {
            _ if name.ends_with("Packed") => (Packing::Middle, name.trim_end_matches("Packed")),
            _ if name.ends_with('p') => (Packing::Stream, name.trim_end_matches('p')),
            _ => (Packing::Wide, name),
        };
        let digits = rest.trim_start_matches(|c: char| !c.is_ascii_digit());
        match name {
            "RGB8" => Self::Rgb,
            "BGR8" => Self::Bgr,
            "YUV422_8" => Self::Yuyv,
            "YUV422_8_UYVY" => Self::Uyvy,
            _ if name.starts_with("Mono") => Self::Mono(digits.parse().unwrap(), packing),
            _ => {
                let pattern = match &rest[5..7] {
                    "RG" => [0, 1, 1, 2],
                    "BG" => [2, 1, 1, 0],
                    "GR" => [1, 0, 2, 1],
                    "GB" => [1, 2, 0, 1],
                    other => panic!("{other} is no Bayer pattern"),
                };
                Self::Bayer(pattern, digits.parse().unwrap(), packing)
            }
        }
    }

    /// The picture of `size` whose colours `pixel` gives, as this layout has it.
    #[cfg(feature = "genicam")]
    pub(crate) fn write(self, size: (u32, u32), pixel: impl Fn(u32, u32) -> [u8; 3]) -> Vec<u8> {
        let places = || (0..size.1).flat_map(|y| (0..size.0).map(move |x| (x, y)));
        match self {
            Self::Rgb => places().flat_map(|(x, y)| pixel(x, y)).collect(),
            Self::Bgr => places()
                .flat_map(|(x, y)| {
                    let [r, g, b] = pixel(x, y);
                    [b, g, r]
                })
                .collect(),
            Self::Yuyv | Self::Uyvy => places()
                .flat_map(|(x, y)| {
                    let [luma, u, v] = yuv(pixel(x, y));
                    let chroma = if x % 2 == 0 { u } else { v };
                    if self == Self::Yuyv { [luma, chroma] } else { [chroma, luma] }
                })
                .collect(),
            Self::Mono(bits, packing) => {
                pack(places().map(|(x, y)| deep(pixel(x, y)[1], bits, x + y)), bits, packing)
            }
            Self::Bayer(pattern, bits, packing) => {
                let sample = |(x, y): (u32, u32)| {
                    let own = pattern[(y % 2 * 2 + x % 2) as usize];
                    deep(pixel(x, y)[own], bits, x + y)
                };
                pack(places().map(sample), bits, packing)
            }
        }
    }
}

/// A sample of `bits` whose upper eight are `value`; what is below them must not matter.
#[cfg(feature = "genicam")]
fn deep(value: u8, bits: u32, noise: u32) -> u16 {
    let low = bits - 8;
    u16::from(value) << low | (noise * 5 % (1 << low)) as u16
}

#[cfg(feature = "genicam")]
fn pack(samples: impl Iterator<Item = u16>, bits: u32, packing: Packing) -> Vec<u8> {
    let samples: Vec<u16> = samples.collect();
    match packing {
        Packing::Wide if bits == 8 => samples.iter().map(|s| *s as u8).collect(),
        Packing::Wide => samples.iter().flat_map(|s| s.to_le_bytes()).collect(),
        Packing::Middle => samples
            .chunks_exact(2)
            .flat_map(|pair| {
                let low = bits - 8;
                let rest = |s: u16| (s & ((1 << low) - 1)) as u8;
                [(pair[0] >> low) as u8, rest(pair[0]) | rest(pair[1]) << 4, (pair[1] >> low) as u8]
            })
            .collect(),
        Packing::Stream => {
            let mut bytes = vec![0u8; (samples.len() * bits as usize).div_ceil(8)];
            for (i, sample) in samples.iter().enumerate() {
                for bit in 0..bits as usize {
                    let at = i * bits as usize + bit;
                    bytes[at / 8] |= ((sample >> bit & 1) as u8) << (at % 8);
                }
            }
            bytes
        }
    }
}

/// ITU-R BT.601, full range.
#[cfg(feature = "genicam")]
fn yuv([r, g, b]: [u8; 3]) -> [u8; 3] {
    let [r, g, b] = [r, g, b].map(|v| f64::from(v) / 255.0);
    let luma = 0.299 * r + 0.587 * g + 0.114 * b;
    let (u, v) = ((b - luma) / 1.772, (r - luma) / 1.402);
    [255.0 * luma, 128.0 + 255.0 * u, 128.0 + 255.0 * v].map(|v| v.round() as u8)
}
