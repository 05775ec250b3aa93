//! Segment files: their names, and reading them record by record, through damage.
//!
//! Used by whoever reads the journal, on that one's thread, also while the segment is being written. Not here: what
//! records mean (`state`, `reader`), writing (`journal`).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::StoreError;
use super::record::{
    FORMAT, HeaderRead, MARKER, MAX_RECORD, RECORD_HEADER, RecordHeader, SEGMENT_HEADER, SegmentHeader,
};

/// How much is read from disk at once.
const CHUNK: usize = 256 << 10;

/// The file of segment `number`.
pub(super) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016}.journal"))
}

/// The name that segment `number` has until its start is on disk.
pub(super) fn unfinished(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016}.partial"))
}

/// Removes segments that never got their name.
pub(super) fn remove_unfinished(folder: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(folder).map_err(StoreError::file("list", folder))? {
        let path = entry.map_err(StoreError::file("list", folder))?.path();
        if path.extension().is_some_and(|e| e == "partial") {
            fs::remove_file(&path).map_err(StoreError::file("remove", &path))?;
        }
    }
    Ok(())
}

/// The numbers of the segments in `folder`, oldest first.
pub(super) fn list(folder: &Path) -> Result<Vec<u64>, StoreError> {
    let entries = fs::read_dir(folder).map_err(StoreError::file("list", folder))?;
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry.map_err(StoreError::file("list", folder))?.file_name();
        let number: Option<u64> =
            name.to_str().and_then(|n| n.strip_suffix(".journal")).and_then(|n| n.parse().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes creations, renames and deletions in `folder` durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Kind and body of the sound record at `offset` of segment `number`, if one is there.
pub(super) fn read_record(folder: &Path, number: u64, offset: u64) -> io::Result<Option<Vec<u8>>> {
    let file = File::open(path(folder, number))?;
    let mut header = [0; RECORD_HEADER];
    let read = |bytes: &mut [u8], offset| match file.read_exact_at(bytes, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    };
    if !read(&mut header, offset)? {
        return Ok(None);
    }
    let Some(header) = RecordHeader::decode(&header) else { return Ok(None) };
    let mut payload = vec![0; header.length];
    let whole = read(&mut payload, offset + RECORD_HEADER as u64)? && header.fits(&payload);
    Ok(whole.then_some(payload))
}

/// One step of a [`Scanner`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A sound record; `payload` is kind and body.
    Record { offset: u64, durable: u64, payload: Vec<u8> },
    /// Bytes that are no record, with sound records after them.
    Damage { from: u64, to: u64 },
    /// Bytes that are no record up to the end: torn, or still being written.
    Tail { from: u64 },
    /// The end of the file, so far.
    End,
}

/// Reads a segment from its first record on. After `Tail` or `End` it may be asked again, should the file have grown.
#[derive(Debug)]
pub(super) struct Scanner {
    file: File,
    path: PathBuf,
    /// `None` where the header itself is damaged.
    header: Option<SegmentHeader>,
    /// Where the next record should start.
    offset: u64,
    /// Bytes of the file from `start` on.
    buffer: Vec<u8>,
    start: u64,
}

impl Scanner {
    /// Opens segment `number`; a damaged header is reported by [`Scanner::header`] being `None`.
    pub(super) fn open(folder: &Path, number: u64) -> Result<Self, StoreError> {
        let path = path(folder, number);
        let file = File::open(&path).map_err(StoreError::file("open", &path))?;
        let mut scanner =
            Self { file, path, header: None, offset: SEGMENT_HEADER as u64, buffer: Vec::new(), start: 0 };
        let bytes = scanner.at(0, SEGMENT_HEADER)?;
        match SegmentHeader::decode(bytes) {
            HeaderRead::Good(header) if header.number == number => scanner.header = Some(header),
            HeaderRead::Newer(got) => {
                return Err(StoreError::NewerFormat { path: scanner.path, got, known: FORMAT });
            }
            _ => {}
        }
        Ok(scanner)
    }

    /// The segment's header, if it is sound.
    pub(super) fn header(&self) -> Option<&SegmentHeader> {
        self.header.as_ref()
    }

    /// Up to `length` bytes at `offset`; fewer only at the end of the file.
    fn at(&mut self, offset: u64, length: usize) -> Result<&[u8], StoreError> {
        let held = self.start..self.start + self.buffer.len() as u64;
        if !held.contains(&offset) || offset + length as u64 > held.end {
            self.buffer.resize(CHUNK.max(length), 0);
            self.start = offset;
            let mut filled = 0;
            while filled < self.buffer.len() {
                match self.file.read_at(&mut self.buffer[filled..], offset + filled as u64) {
                    Ok(0) => break,
                    Ok(n) => filled += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => {
                        self.buffer.clear();
                        return Err(StoreError::file("read", &self.path)(e));
                    }
                }
            }
            self.buffer.truncate(filled);
        }
        let from = (offset - self.start) as usize;
        let to = self.buffer.len().min(from + length);
        Ok(&self.buffer[from..to])
    }

    /// The sound record at `offset`, if there is one.
    fn record_at(&mut self, offset: u64) -> Result<Option<Step>, StoreError> {
        let Some(header) = RecordHeader::decode(self.at(offset, RECORD_HEADER)?) else { return Ok(None) };
        let payload = self.at(offset + RECORD_HEADER as u64, header.length)?;
        if !header.fits(payload) {
            return Ok(None);
        }
        let (durable, payload) = (u64::from(header.durable), payload.to_vec());
        Ok(Some(Step::Record { offset, durable, payload }))
    }

    /// The next thing in the segment.
    pub(super) fn next(&mut self) -> Result<Step, StoreError> {
        let offset = self.offset;
        if let Some(step) = self.record_at(offset)? {
            if let Step::Record { payload, .. } = &step {
                self.offset += (RECORD_HEADER + payload.len()) as u64;
            }
            return Ok(step);
        }
        if self.at(offset, 1)?.is_empty() {
            self.forget();
            return Ok(Step::End);
        }
        match self.next_sound(offset + 1)? {
            Some(to) => {
                self.offset = to;
                Ok(Step::Damage { from: offset, to })
            }
            None => {
                self.forget();
                Ok(Step::Tail { from: offset })
            }
        }
    }

    /// Where the first sound record at or after `offset` starts.
    fn next_sound(&mut self, mut offset: u64) -> Result<Option<u64>, StoreError> {
        loop {
            let bytes = self.at(offset, MAX_RECORD)?;
            if bytes.len() < MARKER.len() {
                return Ok(None);
            }
            match bytes.windows(MARKER.len()).position(|window| window == MARKER) {
                Some(at) => {
                    offset += at as u64;
                    if self.record_at(offset)?.is_some() {
                        return Ok(Some(offset));
                    }
                    offset += 1;
                }
                None => offset += (bytes.len() - MARKER.len() + 1) as u64,
            }
        }
    }

    /// Drops what was read ahead: a file that is being written changes beyond its last sound record.
    fn forget(&mut self) {
        self.buffer.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::super::Position;
    use super::super::record::frame;
    use super::*;

    /// A segment with records of 1, 2, 3… bytes, and where each starts.
    fn segment(records: usize) -> (Vec<u8>, Vec<u64>) {
        let header = SegmentHeader { number: 1, store: Uuid::nil(), first: Position(1), created_ns: 0 };
        let mut bytes = header.encode().to_vec();
        let mut starts = Vec::new();
        for n in 0..records {
            starts.push(bytes.len() as u64);
            let durable = bytes.len() as u32;
            frame(&mut bytes, &vec![n as u8; n + 1], durable);
        }
        (bytes, starts)
    }

    fn steps(bytes: &[u8]) -> Vec<Step> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(path(folder.path(), 1), bytes).unwrap();
        let mut scanner = Scanner::open(folder.path(), 1).unwrap();
        let mut steps = Vec::new();
        loop {
            let step = scanner.next().unwrap();
            let done = matches!(step, Step::End | Step::Tail { .. });
            steps.push(step);
            if done {
                return steps;
            }
        }
    }

    #[test]
    fn a_scanner_sees_what_is_appended_later() {
        let folder = tempfile::tempdir().unwrap();
        let (bytes, starts) = segment(3);
        let file = path(folder.path(), 1);
        fs::write(&file, &bytes[..starts[2] as usize + 5]).unwrap();
        let mut scanner = Scanner::open(folder.path(), 1).unwrap();
        assert!(matches!(scanner.next().unwrap(), Step::Record { .. }));
        assert!(matches!(scanner.next().unwrap(), Step::Record { .. }));
        assert_eq!(scanner.next().unwrap(), Step::Tail { from: starts[2] });
        fs::write(&file, &bytes).unwrap();
        assert!(matches!(scanner.next().unwrap(), Step::Record { .. }));
        assert_eq!(scanner.next().unwrap(), Step::End);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn damage_costs_only_the_record_it_hits(hit in 0usize..8, at in 0usize..16, value in 1u8..) {
            let (mut bytes, starts) = segment(8);
            bytes[starts[hit] as usize + at] ^= value;
            let steps = steps(&bytes);
            let sound = steps.iter().filter(|s| matches!(s, Step::Record { .. })).count();
            prop_assert_eq!(sound, 7);
            if hit < 7 {
                let damage = Step::Damage { from: starts[hit], to: starts[hit + 1] };
                prop_assert!(steps.contains(&damage));
            } else {
                let tail = Step::Tail { from: starts[hit] };
                prop_assert!(steps.contains(&tail));
            }
        }

        #[test]
        fn a_cut_leaves_every_whole_record(cut in 0usize..300) {
            let (bytes, starts) = segment(8);
            let cut = SEGMENT_HEADER + cut % (bytes.len() - SEGMENT_HEADER);
            let whole = starts.iter().skip(1).filter(|s| **s as usize <= cut).count();
            let sound = steps(&bytes[..cut]).iter().filter(|s| matches!(s, Step::Record { .. })).count();
            prop_assert_eq!(sound, whole);
        }
    }
}
