//! Segment files: their names, and reading them record by record, through damage.
//!
//! Used by whoever reads the journal, on that one's thread, also while the segment is being written. Not here: what
//! records mean (`state`, `reader`), writing (`journal`).

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use tracing::error;

use super::StoreError;
use super::record::{
    FORMAT, HeaderRead, MARKER, MAX_RECORD, RECORD_HEADER, RecordHeader, SEGMENT_HEADER, SegmentHeader,
};

/// How much is read from disk at once.
const CHUNK: usize = 256 << 10;
/// What is passed over where the disk cannot read; twice as much each time that the next cannot be read either.
const BLOCK: u64 = 4096;
/// How long a disk that cannot read is given before it is asked once more.
const RETRY: Duration = Duration::from_millis(100);

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
    let Some(file) = open(&path(folder, number))? else { return Ok(None) };
    let mut header = [0; RECORD_HEADER];
    let read = |bytes: &mut [u8], offset| match file.read_exact_at(bytes, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof || is_unreadable(&error) => Ok(false),
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

/// A segment's file, to be read; none where the disk cannot even open it.
pub(super) fn open(path: &Path) -> io::Result<Option<File>> {
    let file = File::open(path);
    #[cfg(test)]
    let file = file.and_then(|file| super::simulated::openable(path).map(|()| file));
    match file {
        Err(error) if is_unreadable(&error) => Ok(None),
        file => file.map(Some),
    }
}

/// The file's bytes, zeros where the disk cannot read.
pub(super) fn all_that_can_be_read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    for (block, at) in bytes.chunks_mut(BLOCK as usize).zip((0..).step_by(BLOCK as usize)) {
        match file.read_exact_at(block, at) {
            Err(error) if is_unreadable(&error) => block.fill(0),
            read => read?,
        }
    }
    Ok(bytes)
}

/// Whether the disk says that it cannot read what it holds there.
fn is_unreadable(error: &io::Error) -> bool {
    let damage = [Errno::IO, Errno::UCLEAN, Errno::BADMSG];
    damage.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// One step of a [`Scanner`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A sound record; `payload` is kind and body.
    Record { offset: u64, durable: u64, payload: Vec<u8> },
    /// Bytes that are no record, with sound records after them, or some that the disk cannot read.
    Damage { from: u64, to: u64, unreadable: bool },
    /// Bytes that are no record up to the end: torn, or still being written.
    Tail { from: u64 },
    /// The end of the file, so far.
    End,
}

/// Reads a segment from its first record on. After `Tail` or `End` it may be asked again, should the file have grown.
#[derive(Debug)]
pub(super) struct Scanner {
    /// An empty one where the disk cannot even open the segment's.
    file: File,
    path: PathBuf,
    opens: bool,
    /// `None` where the header itself is damaged.
    header: Option<SegmentHeader>,
    /// Where the next record should start.
    offset: u64,
    /// Bytes of the file from `start` on.
    buffer: Vec<u8>,
    start: u64,
    /// What the disk could not read.
    unreadable: Vec<Range<u64>>,
}

impl Scanner {
    /// Opens segment `number`; a damaged header is reported by [`Scanner::header`] being `None`.
    pub(super) fn open(folder: &Path, number: u64) -> Result<Self, StoreError> {
        let path = path(folder, number);
        let opened = open(&path).map_err(StoreError::file("open", &path))?;
        let (opens, nothing) = (opened.is_some(), Path::new("/dev/null"));
        let file =
            opened.map_or_else(|| File::open(nothing), Ok).map_err(StoreError::file("open", nothing))?;
        let (offset, buffer, unreadable) = (SEGMENT_HEADER as u64, Vec::new(), Vec::new());
        let mut scanner = Self { file, path, opens, header: None, offset, buffer, start: 0, unreadable };
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

    /// Whether the disk could not read some of what was read so far.
    pub(super) fn met_unreadable(&self) -> bool {
        !self.opens || !self.unreadable.is_empty()
    }

    /// The segment's header, if it is sound.
    pub(super) fn header(&self) -> Option<&SegmentHeader> {
        self.header.as_ref()
    }

    /// Up to `length` bytes at `offset`; fewer only at the end of the file. Where the disk cannot read, zeros, of which no
    /// record is made.
    fn at(&mut self, offset: u64, length: usize) -> Result<&[u8], StoreError> {
        let held = self.start..self.start + self.buffer.len() as u64;
        if !held.contains(&offset) || offset + length as u64 > held.end {
            self.buffer.clear();
            self.buffer.resize(CHUNK.max(length), 0);
            self.start = offset;
            let filled = self.fill();
            self.buffer.truncate(*filled.as_ref().unwrap_or(&0));
            filled.map_err(StoreError::file("read", &self.path))?;
        }
        let from = (offset - self.start) as usize;
        let to = self.buffer.len().min(from + length);
        Ok(&self.buffer[from..to])
    }

    /// Fills the buffer, which holds zeros; tells how much the file has of it.
    fn fill(&mut self) -> io::Result<usize> {
        let (mut filled, mut skip) = (0, BLOCK);
        while filled < self.buffer.len() {
            let at = self.start + filled as u64;
            let known = self.unreadable.iter().find(|range| range.contains(&at)).map(|range| range.end);
            let next = self.unreadable.iter().map(|range| range.start).filter(|start| *start > at).min();
            let wanted = next.map_or(usize::MAX, |next| (next - at) as usize).min(self.buffer.len() - filled);
            let step = match known {
                Some(end) => (end - at) as usize,
                None => match read_at(&self.file, &self.path, &mut self.buffer[filled..][..wanted], at) {
                    Ok(0) => break,
                    Ok(read) => {
                        skip = BLOCK;
                        read
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                    Err(error) if is_unreadable(&error) => match self.ask_again(filled, skip, &error)? {
                        0 => break,
                        step => {
                            skip = (2 * skip).min(CHUNK as u64);
                            step
                        }
                    },
                    Err(error) => return Err(error),
                },
            };
            filled += step.min(self.buffer.len() - filled);
        }
        Ok(filled)
    }

    /// Asks once more for a block that the disk could not read, then takes `skip` bytes for lost.
    fn ask_again(&mut self, filled: usize, skip: u64, said: &io::Error) -> io::Result<usize> {
        std::thread::sleep(RETRY);
        let at = self.start + filled as u64;
        let end = (at / BLOCK + 1) * BLOCK;
        let block = (self.buffer.len() - filled).min((end - at) as usize);
        match read_at(&self.file, &self.path, &mut self.buffer[filled..][..block], at) {
            Err(error) if is_unreadable(&error) => {}
            read => return read,
        }
        let end = (end + skip - BLOCK).min(self.file.metadata()?.len());
        if end > at {
            error!(file = %self.path.display(), from = at, to = end, error = %said, "the disk cannot read part of the journal");
            self.unreadable.push(at..end);
        }
        Ok(end.saturating_sub(at) as usize)
    }

    /// Whether some of the bytes `from` to `to` cannot be read.
    fn is_unreadable(&self, from: u64, to: u64) -> bool {
        self.unreadable.iter().any(|range| range.start < to && from < range.end)
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
                Ok(Step::Damage { from: offset, to, unreadable: self.is_unreadable(offset, to) })
            }
            // No torn tail, which can be read.
            None if self.is_unreadable(offset, u64::MAX) => {
                let length = self.file.metadata().map_err(StoreError::file("read", &self.path))?.len();
                self.offset = length;
                Ok(Step::Damage { from: offset, to: length, unreadable: true })
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

fn read_at(file: &File, path: &Path, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    #[cfg(test)]
    let buffer = super::simulated::readable(path, buffer, offset)?;
    #[cfg(not(test))]
    let _only_for_messages = path;
    file.read_at(buffer, offset)
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

    #[test]
    fn what_the_disk_cannot_read_costs_the_records_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let (bytes, starts) = segment(200);
        let file = path(folder.path(), 1);
        fs::write(&file, &bytes).unwrap();
        for (bad, lost_tail) in [(4096..8192, false), (23_000..23_001, true)] {
            super::super::simulated::make_unreadable(&file, bad.clone());
            let mut scanner = Scanner::open(folder.path(), 1).unwrap();
            let (mut sound, mut damage) = (Vec::new(), Vec::new());
            loop {
                match scanner.next().unwrap() {
                    Step::Record { offset, .. } => sound.push(offset),
                    Step::Damage { from, to, unreadable } => damage.push((from, to, unreadable)),
                    Step::Tail { .. } => panic!("nothing is torn"),
                    Step::End => break,
                }
            }
            let block = bad.start / BLOCK * BLOCK..(bad.end - 1) / BLOCK * BLOCK + BLOCK;
            let length = |n: usize| (RECORD_HEADER + n + 1) as u64;
            let whole = |n: &usize| starts[*n] + length(*n) <= block.start || starts[*n] >= block.end;
            let expected: Vec<_> = (0..200).filter(whole).map(|n| starts[n]).collect();
            assert_eq!(sound, expected);
            assert_eq!(damage.len(), 1);
            assert!(damage[0].2);
            assert_eq!(damage[0].1 == bytes.len() as u64, lost_tail);
        }
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
                let damage = Step::Damage { from: starts[hit], to: starts[hit + 1], unreadable: false };
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
