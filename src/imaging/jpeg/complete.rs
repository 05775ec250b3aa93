//! Whether a JPEG is all there.
//!
//! Decoders resynchronise after lost bytes and fill the rest with grey, which is right for browsers and wrong for
//! inspection. So the stream is measured before it is decoded: its markers must lead to the end marker, and every
//! baseline scan must hold exactly the blocks that the header promises, counted by their Huffman codes, with its
//! restart markers in order. What stays invisible, for want of any checksum in JPEG, is damage that keeps every
//! count. Progressive scans are only followed from marker to marker; cameras do not send them.
//!
//! In: bytes. Out: what the header says, or what is wrong. Not here: pixels.

use super::damaged;
use super::huffman::{Huffman, STANDARD_AC, STANDARD_DC};
use super::scan::{Block, Scan};
use crate::frame::{Size, check_picture_size};
use crate::imaging::error::DecodeError;
use crate::imaging::format::Format;

const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const DHT: u8 = 0xc4;
const DRI: u8 = 0xdd;

/// A component of the frame, as its header says.
struct Component {
    id: u8,
    horizontal: u32,
    vertical: u32,
    scanned: bool,
}

struct Frame {
    size: Size,
    progressive: bool,
    components: Vec<Component>,
}

/// What has been learned of a stream so far.
struct Stream<'a> {
    bytes: &'a [u8],
    at: usize,
    frame: Option<Frame>,
    dc: [Option<Huffman>; 4],
    ac: [Option<Huffman>; 4],
    restart_interval: u32,
    has_tables: bool,
}

/// What a complete JPEG says of itself.
pub(super) struct Header {
    pub(super) size: Size,
    /// Whether it brings its Huffman tables, which MJPEG may leave out.
    pub(super) has_tables: bool,
}

/// Reads the whole of a JPEG, short of decoding it.
///
/// # Errors
/// What is missing, damaged or not read; a size beyond the limits before anything else.
pub(super) fn check(bytes: &[u8]) -> Result<Header, DecodeError> {
    let standard = |tables: &[([u8; 16], &[u8]); 2]| {
        let [luma, chroma] = tables.each_ref().map(|(counts, symbols)| Huffman::new(counts, symbols));
        [luma, chroma, None, None]
    };
    let mut stream = Stream {
        bytes,
        at: 2,
        frame: None,
        dc: standard(&STANDARD_DC),
        ac: standard(&STANDARD_AC),
        restart_interval: 0,
        has_tables: false,
    };
    while stream.segment()? {}
    let frame = stream.frame.ok_or_else(|| damaged("it has no frame header"))?;
    if !frame.components.iter().all(|c| c.scanned) {
        return Err(damaged("its scans are missing"));
    }
    Ok(Header { size: frame.size, has_tables: stream.has_tables })
}

impl<'a> Stream<'a> {
    /// Reads one segment; tells whether more should follow.
    fn segment(&mut self) -> Result<bool, DecodeError> {
        let marker = self.marker().map_err(damaged)?;
        if marker == EOI {
            return Ok(false);
        }
        if matches!(marker, 0x00 | 0x01 | 0xd0..=SOI) {
            return Err(damaged(format!("marker {marker:02x} stands where none may")));
        }
        let body = self.body().ok_or_else(|| damaged("it ends inside its header"))?;
        match marker {
            DHT => self.tables(body).ok_or_else(|| damaged("its Huffman tables are malformed"))?,
            0xc0..=0xc2 => self.frame = Some(frame(marker, body)?),
            0xc3..=0xcf => return Err(unsupported("lossless, hierarchical or arithmetic coding")),
            DRI => match body {
                [a, b] => self.restart_interval = u16::from_be_bytes([*a, *b]).into(),
                _ => return Err(damaged("its restart interval is malformed")),
            },
            SOS => self.scan(body).map_err(damaged)?,
            _ => {}
        }
        Ok(true)
    }

    fn marker(&mut self) -> Result<u8, String> {
        let missing = || "its end is missing".to_owned();
        if *self.bytes.get(self.at).ok_or_else(missing)? != 0xff {
            return Err("garbage stands where a marker should".into());
        }
        let fill = self.bytes[self.at..].iter().take_while(|&&b| b == 0xff).count();
        self.at += fill + 1;
        self.bytes.get(self.at - 1).copied().ok_or_else(missing)
    }

    fn body(&mut self) -> Option<&'a [u8]> {
        let length = self.bytes.get(self.at..self.at + 2)?;
        let end = self.at + usize::from(u16::from_be_bytes([length[0], length[1]]));
        let body = self.bytes.get(self.at + 2..end)?;
        self.at = end;
        Some(body)
    }

    fn tables(&mut self, mut body: &[u8]) -> Option<()> {
        while let Some((&class_and_slot, rest)) = body.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>()?;
            let total = counts.iter().map(|&c| usize::from(c)).sum();
            let symbols = rest.get(..total)?;
            body = &rest[total..];
            let tables = if class_and_slot >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            *tables.get_mut(usize::from(class_and_slot & 15))? = Some(Huffman::new(counts, symbols)?);
        }
        self.has_tables = true;
        Some(())
    }

    fn scan(&mut self, body: &[u8]) -> Result<(), String> {
        let frame = self.frame.as_mut().ok_or("a scan precedes the frame header")?;
        let malformed = || "its scan header is malformed".to_owned();
        let (&count, rest) = body.split_first().ok_or_else(malformed)?;
        let selectors = rest.get(..2 * usize::from(count)).ok_or_else(malformed)?;
        if !(1..=4).contains(&count) || rest.len() != selectors.len() + 3 {
            return Err(malformed());
        }
        let mut blocks = Vec::new();
        let mut last = (1, 1);
        for selector in selectors.chunks_exact(2) {
            let component =
                frame.components.iter_mut().find(|c| c.id == selector[0]).ok_or_else(malformed)?;
            component.scanned = true;
            last = (component.horizontal, component.vertical);
            let tables = (usize::from(selector[1] >> 4), usize::from(selector[1] & 15));
            let copies = if count == 1 { 1 } else { component.horizontal * component.vertical };
            blocks.extend(std::iter::repeat_n(tables, copies as usize));
        }
        let mut scan = Scan::new(&self.bytes[self.at..]);
        if frame.progressive {
            self.at += scan.skip()?;
            return Ok(());
        }
        let units = frame.units((count == 1).then_some(last));
        let mut coded = Vec::with_capacity(blocks.len());
        for (dc, ac) in blocks {
            let dc = self.dc.get(dc).and_then(Option::as_ref).ok_or_else(malformed)?;
            let ac = self.ac.get(ac).and_then(Option::as_ref).ok_or_else(malformed)?;
            coded.push(Block { dc, ac });
        }
        self.at += scan.measure(&coded, units, self.restart_interval)?;
        Ok(())
    }
}

impl Frame {
    /// How many coded units a scan has: of one component alone, its own blocks; of several, whole groups.
    fn units(&self, alone: Option<(u32, u32)>) -> u64 {
        let most = |of: fn(&Component) -> u32| self.components.iter().map(of).max().unwrap_or(1);
        let (horizontal, vertical) = (most(|c| c.horizontal), most(|c| c.vertical));
        let (columns, rows) = match alone {
            Some((h, v)) => (
                (self.size.width * h).div_ceil(horizontal).div_ceil(8),
                (self.size.height * v).div_ceil(vertical).div_ceil(8),
            ),
            None => (self.size.width.div_ceil(8 * horizontal), self.size.height.div_ceil(8 * vertical)),
        };
        u64::from(columns) * u64::from(rows)
    }
}

fn unsupported(what: &str) -> DecodeError {
    DecodeError::Unsupported { format: Format::Jpeg, what: what.into() }
}

fn frame(marker: u8, body: &[u8]) -> Result<Frame, DecodeError> {
    let malformed = || damaged("its frame header is malformed");
    let (head, rest) = body.split_first_chunk::<6>().ok_or_else(malformed)?;
    let side = |i: usize| u32::from(u16::from_be_bytes([head[i], head[i + 1]]));
    let size = Size::new(side(3), side(1));
    check_picture_size(size)?;
    if rest.len() != 3 * usize::from(head[5]) {
        return Err(malformed());
    }
    match (head[0], head[5]) {
        (8, 1 | 3) => {}
        (8, 4) => return Err(unsupported("CMYK colours")),
        (8, channels) => return Err(unsupported(&format!("{channels} colour channels"))),
        (bits, _) => return Err(unsupported(&format!("{bits} bits a channel"))),
    }
    let component = |c: &[u8]| {
        let (horizontal, vertical) = (u32::from(c[1] >> 4), u32::from(c[1] & 15));
        let legal = (1..=4).contains(&horizontal) && (1..=4).contains(&vertical);
        legal.then_some(Component { id: c[0], horizontal, vertical, scanned: false })
    };
    let components = rest.chunks_exact(3).map(component).collect::<Option<_>>().ok_or_else(malformed)?;
    Ok(Frame { size, progressive: marker == 0xc2, components })
}
