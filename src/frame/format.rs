//! How a camera lays out pixels that it did not compress.
//!
//! Names follow the GenICam Pixel Format Naming Convention, where that has one. Not here: reading them (`imaging`).

/// A layout of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// Brightness.
    Mono(Samples),
    /// One colour a pixel, in a pattern of two by two.
    Bayer(Mosaic, Samples),
    /// R, G, B bytes.
    Rgb8,
    /// B, G, R bytes.
    Bgr8,
    /// Y0 U Y1 V, two pixels in four bytes.
    Yuyv(Range),
    /// U Y0 V Y1, two pixels in four bytes.
    Uyvy(Range),
    /// A full plane of Y, then a half-size plane of interleaved U V; limited range.
    Nv12,
}

/// Which values of brightness and colour a camera uses, of the 256 that a byte has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Range {
    /// All of them: black is 0 and white 255, as in JPEG files.
    Full,
    /// As television does: black is 16 and white 235, and colours take 16 to 240.
    Limited,
}

/// How the samples of a row are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Samples {
    /// 8 bits, a byte each.
    U8,
    /// 10 bits in the lower end of two bytes, little endian.
    U10,
    /// 12 bits in the lower end of two bytes, little endian.
    U12,
    /// 16 bits, little endian.
    U16,
    /// 10 bits, two samples in three bytes with the low bits in the middle one, as GigE Vision packs them.
    U10Packed,
    /// 12 bits, packed in the same way.
    U12Packed,
    /// 10 bits as one stream, lowest bit first: four samples in five bytes, as USB3 Vision packs them.
    U10p,
    /// 12 bits as one stream: two samples in three bytes.
    U12p,
}

impl Samples {
    /// How many samples share bytes, and how many bytes these are.
    pub fn group(self) -> (usize, usize) {
        match self {
            Self::U8 => (1, 1),
            Self::U10 | Self::U12 | Self::U16 => (1, 2),
            Self::U10Packed | Self::U12Packed | Self::U12p => (2, 3),
            Self::U10p => (4, 5),
        }
    }
}

/// The colours of the upper left two by two pixels: the first two letters are the first row's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mosaic {
    /// Red, green; green, blue.
    RgGb,
    /// Blue, green; green, red.
    BgGr,
    /// Green, red; blue, green.
    GrBg,
    /// Green, blue; red, green.
    GbRg,
}

impl Mosaic {
    /// Whether the green pixels of the first row come first.
    pub fn green_first(self) -> bool {
        matches!(self, Self::GrBg | Self::GbRg)
    }

    /// Whether the first row's other colour is red.
    pub fn red_first(self) -> bool {
        matches!(self, Self::RgGb | Self::GrBg)
    }
}

impl PixelFormat {
    /// Bytes that a row of `width` pixels takes without padding, in the first plane; none where rows of that width
    /// cannot be.
    pub fn row_bytes(self, width: usize) -> Option<usize> {
        let pairs = width.is_multiple_of(2);
        match self {
            Self::Mono(samples) | Self::Bayer(_, samples) => {
                let (count, bytes) = samples.group();
                width.is_multiple_of(count).then(|| width / count * bytes)
            }
            Self::Rgb8 | Self::Bgr8 => Some(3 * width),
            Self::Yuyv(_) | Self::Uyvy(_) => pairs.then_some(2 * width),
            Self::Nv12 => pairs.then_some(width),
        }
    }
}
