//! One scan's compressed data, measured: as many blocks as promised, and then its end.
//!
//! In: the bytes behind a scan header. Out: how many of them are the scan's. Not here: headers (`complete`), pixels.

use super::huffman::Huffman;

/// Bytes that may stand between the last block and the marker behind it. Some webcams pad every frame so, and what
/// is shorter than this is padding rather than a lost piece.
const PADDING: usize = 32;

/// Zero bytes in a row that no picture has, where zero bits are not the code of an empty block: a driver's cleared
/// memory in place of a lost piece.
const ZEROS: u32 = 16;

/// The codes of one 8×8 block.
pub(super) struct Block<'a> {
    pub(super) dc: &'a Huffman,
    pub(super) ac: &'a Huffman,
}

/// A reader of compressed bits.
pub(super) struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Bits not yet taken, the next one uppermost.
    bits: u64,
    count: u32,
    /// Zero bytes in a row, most recently read.
    zeros: u32,
}

/// The symbol that leaves the rest of a block zero.
const END_OF_BLOCK: u8 = 0;

const ENDS_EARLY: &str = "its compressed data ends early";

impl<'a> Scan<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, bits: 0, count: 0, zeros: 0 }
    }

    /// Skips to the next marker that is no restart; tells how many bytes that took.
    pub(super) fn skip(&mut self) -> Result<usize, String> {
        loop {
            match self.bytes.get(self.at..self.at + 2) {
                Some([0xff, 0x00 | 0xd0..=0xd7]) => self.at += 2,
                Some([0xff, 0xff]) => self.at += 1,
                Some([0xff, _]) => return Ok(self.at),
                Some(_) => self.at += 1,
                None => return Err("its end is missing".into()),
            }
        }
    }

    /// Counts `units` times the blocks of one unit; tells how many bytes that took, up to the marker behind.
    pub(super) fn measure(
        &mut self,
        blocks: &[Block<'_>],
        units: u64,
        restart_interval: u32,
    ) -> Result<usize, String> {
        let interval = if restart_interval == 0 { units } else { restart_interval.into() };
        let mut left = units;
        for restart in (0..8).cycle() {
            for _ in 0..interval.min(left) {
                for block in blocks {
                    self.block(block)?;
                }
            }
            left -= interval.min(left);
            if left == 0 {
                break;
            }
            self.restart(restart)?;
        }
        self.end(restart_interval > 0)
    }

    fn block(&mut self, block: &Block<'_>) -> Result<(), String> {
        let length = u32::from(self.symbol(block.dc)?);
        if length > 15 {
            return Err("a coefficient is impossible".into());
        }
        self.take(length)?;
        if self.zeros >= ZEROS && !block.ac.zeros_mean(END_OF_BLOCK) {
            return Err("a piece of it is zeros".into());
        }
        let mut place = 1;
        while place < 64 {
            let symbol = self.symbol(block.ac)?;
            let (zeros, length) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            match (zeros, length) {
                (15, 0) => place += 16,
                (_, 0) => return Ok(()),
                _ => place += zeros + 1,
            }
            if place > 64 {
                return Err("a block has too many coefficients".into());
            }
            self.take(length)?;
        }
        Ok(())
    }

    fn symbol(&mut self, table: &Huffman) -> Result<u8, String> {
        if self.count < 32 {
            self.refill();
        }
        let (length, symbol) = table.look_up((self.bits >> 48) as u32).ok_or_else(|| {
            if self.count < 16 { ENDS_EARLY.to_owned() } else { "a code is impossible".to_owned() }
        })?;
        self.take(length)?;
        Ok(symbol)
    }

    /// Takes `length` bits, at most 16 of the 32 that [`Self::symbol`] saw to.
    fn take(&mut self, length: u32) -> Result<(), String> {
        if length > self.count {
            return Err(ENDS_EARLY.into());
        }
        self.bits <<= length;
        self.count -= length;
        Ok(())
    }

    /// Reads on, up to a marker or the end.
    fn refill(&mut self) {
        while self.count <= 56 {
            match self.bytes.get(self.at..) {
                Some([0xff, 0x00, ..]) => self.push(0xff, 2),
                Some([0xff, ..]) | Some([]) | None => return,
                Some([byte, ..]) => self.push(*byte, 1),
            }
        }
    }

    fn push(&mut self, byte: u8, from: usize) {
        self.bits |= u64::from(byte) << (56 - self.count);
        self.count += 8;
        self.zeros = if byte == 0 { self.zeros + 1 } else { 0 };
        self.at += from;
    }

    fn restart(&mut self, expected: u8) -> Result<(), String> {
        self.refill();
        let marker = 0xd0 + expected;
        let bytes = &self.bytes[self.at..];
        let fill = bytes.iter().take_while(|&&b| b == 0xff).count();
        if self.count >= 8 || fill == 0 || bytes.get(fill) != Some(&marker) {
            return Err(format!("restart marker {expected} is not where it should be"));
        }
        self.at += fill + 1;
        (self.bits, self.count) = (0, 0);
        Ok(())
    }

    /// Behind the last block: at most padding, perhaps one last restart marker, and then another marker.
    fn end(&mut self, restarts: bool) -> Result<usize, String> {
        let unread = self.count as usize / 8;
        let last_block = self.at;
        loop {
            match self.bytes.get(self.at..self.at + 2) {
                None => return Err("its end is missing".into()),
                Some([0xff, 0xd0..=0xd7]) if restarts => self.at += 2,
                Some([0xff, 0x00]) => self.at += 2,
                Some([0xff, 0xff]) => self.at += 1,
                Some([0xff, _]) => break,
                Some(_) => self.at += 1,
            }
            if self.at - last_block + unread > PADDING {
                return Err("its compressed data does not end with the last block".into());
            }
        }
        if unread > PADDING {
            return Err("its compressed data does not end with the last block".into());
        }
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_markers_count_from_zero_again_however_many_there_are() {
        // One code of one bit: no difference, and an empty block.
        let mut counts = [0; 16];
        counts[0] = 1;
        let (dc, ac) =
            (Huffman::new(&counts, &[0]).unwrap(), Huffman::new(&counts, &[END_OF_BLOCK]).unwrap());
        let blocks = [Block { dc: &dc, ac: &ac }];
        for units in [8, 256, 257, 600] {
            // Each block is two zero bits, filled up with ones.
            let mut bytes: Vec<u8> = (0..units).flat_map(|n| [0x3f, 0xff, 0xd0 + (n % 8) as u8]).collect();
            let last = bytes.len() - 1;
            bytes[last] = 0xd9;
            let measured = Scan::new(&bytes).measure(&blocks, units, 1);
            assert_eq!(measured, Ok(bytes.len() - 2), "{units}");
        }
    }
}
