//! Records: how one journal entry and a segment's header look in bytes. Pure; no files here.
//!
//! A record is `marker[4] length[4] durable[4] crc[4] kind[1] body`, integers little endian, the CRC-32C over everything
//! but marker and itself. `durable` is how much of the segment was known to be on disk when the record was written: bad
//! bytes below some later record's `durable` are damage to what was promised, bad bytes above it are a torn tail.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

use crate::delivery::{Deliveries, Delivery};
use crate::frame::CameraId;
use crate::verdict::{Trigger, Verdict};

use super::{Position, Ticket};

/// The format of segments that this program writes, and the newest that it reads.
pub(super) const FORMAT: u32 = 1;
/// Bytes of a segment's header.
pub(super) const SEGMENT_HEADER: usize = 56;
/// Bytes before a record's kind.
pub(super) const RECORD_HEADER: usize = 16;
/// The most bytes of kind and body that a record may have; a verdict with the largest trigger has a tenth of it.
pub(super) const MAX_RECORD: usize = 1 << 20;
/// Starts every record. Its bytes cannot stand in JSON, so it is met by chance in binary fields only.
pub(super) const MARKER: [u8; 4] = [0x1e, 0xf1, 0x0d, 0x1e];

const MAGIC: &[u8; 8] = b"inspjrnl";

/// The start of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// The segment's number; rises.
    pub(super) number: u64,
    /// Which store it belongs to.
    pub(super) store: Uuid,
    /// The position that the first verdict in it has, or will have.
    pub(super) first: Position,
    /// When it was begun, nanoseconds since 1970.
    pub(super) created_ns: i64,
}

/// What stands where a segment's header should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderRead {
    Good(SegmentHeader),
    Newer(u32),
    Bad,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.number.to_le_bytes());
        bytes[20..36].copy_from_slice(self.store.as_bytes());
        bytes[36..44].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[44..52].copy_from_slice(&self.created_ns.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..52]);
        bytes[52..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> HeaderRead {
        if bytes.len() < 12 || &bytes[..8] != MAGIC {
            return HeaderRead::Bad;
        }
        // Asked before the checksum, which a later format may well have elsewhere.
        let format = u32_at(bytes, 8);
        if format > FORMAT {
            return HeaderRead::Newer(format);
        }
        if bytes.len() < SEGMENT_HEADER || u32_at(bytes, 52) != crc32c::crc32c(&bytes[..52]) {
            return HeaderRead::Bad;
        }
        let mut store = [0; 16];
        store.copy_from_slice(&bytes[20..36]);
        HeaderRead::Good(Self {
            number: u64_at(bytes, 12),
            store: Uuid::from_bytes(store),
            first: Position(u64_at(bytes, 36)),
            created_ns: u64_at(bytes, 44).cast_signed(),
        })
    }
}

/// A trigger that was accepted and has no verdict yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Accepted {
    pub(super) camera: CameraId,
    pub(super) trigger: Trigger,
    pub(super) captured_at: Timestamp,
    /// The message that it came in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) delivery: Option<Delivery>,
}

/// Everything that later segments need to know of earlier ones, so that those can be deleted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    /// The newest verdict's position.
    pub(super) tip: Position,
    /// Everything up to it was acknowledged by the broker.
    pub(super) published: Position,
    /// The newest ticket.
    pub(super) ticket: u64,
    /// Each camera's last sequence.
    pub(super) sequences: BTreeMap<CameraId, u64>,
    /// What the last sequence of any other camera may have been, where that is lost in damage.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) unknown: u64,
    /// The latest `captured_at` of all verdicts so far.
    pub(super) latest: Option<Timestamp>,
    /// The messages that the newest triggers came in.
    #[serde(default, skip_serializing_if = "Deliveries::is_empty")]
    pub(super) deliveries: Deliveries,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// One journal entry.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Record {
    Verdict { position: Position, ticket: Option<Ticket>, verdict: Box<Verdict> },
    Accepted { ticket: Ticket, accepted: Box<Accepted> },
    Published { upto: Position },
    Checkpoint(Checkpoint),
}

const KIND_VERDICT: u8 = 1;
const KIND_ACCEPTED: u8 = 2;
const KIND_PUBLISHED: u8 = 3;
const KIND_CHECKPOINT: u8 = 4;

impl Record {
    /// Kind and body.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1024);
        match self {
            Self::Verdict { position, ticket, verdict } => {
                bytes.push(KIND_VERDICT);
                bytes.extend(position.0.to_le_bytes());
                bytes.extend(ticket.map_or(0, |t| t.0).to_le_bytes());
                json(&mut bytes, verdict);
            }
            Self::Accepted { ticket, accepted } => {
                bytes.push(KIND_ACCEPTED);
                bytes.extend(ticket.0.to_le_bytes());
                json(&mut bytes, accepted);
            }
            Self::Published { upto } => {
                bytes.push(KIND_PUBLISHED);
                bytes.extend(upto.0.to_le_bytes());
            }
            Self::Checkpoint(checkpoint) => {
                bytes.push(KIND_CHECKPOINT);
                json(&mut bytes, checkpoint);
            }
        }
        bytes
    }

    /// The record of which `payload` is kind and body.
    pub(super) fn decode(payload: &[u8]) -> Result<Self, String> {
        let said = |e: serde_json::Error| e.to_string();
        match payload {
            [KIND_VERDICT, body @ ..] if body.len() > 16 => Ok(Self::Verdict {
                position: Position(u64_at(body, 0)),
                ticket: Some(Ticket(u64_at(body, 8))).filter(|t| t.0 != 0),
                verdict: serde_json::from_slice(&body[16..]).map_err(said)?,
            }),
            [KIND_ACCEPTED, body @ ..] if body.len() > 8 => Ok(Self::Accepted {
                ticket: Ticket(u64_at(body, 0)),
                accepted: serde_json::from_slice(&body[8..]).map_err(said)?,
            }),
            [KIND_PUBLISHED, body @ ..] if body.len() == 8 => {
                Ok(Self::Published { upto: Position(u64_at(body, 0)) })
            }
            [KIND_CHECKPOINT, body @ ..] => Ok(Self::Checkpoint(serde_json::from_slice(body).map_err(said)?)),
            _ => Err(format!("unknown kind {:?} with {} bytes", payload.first(), payload.len())),
        }
    }
}

/// A verdict's position, if `payload` is a verdict's; without reading the verdict.
pub(super) fn position_of(payload: &[u8]) -> Option<Position> {
    match payload {
        [KIND_VERDICT, body @ ..] if body.len() > 16 => Some(Position(u64_at(body, 0))),
        _ => None,
    }
}

/// Appends the record of which `payload` is kind and body to `bytes`.
pub(super) fn frame(bytes: &mut Vec<u8>, payload: &[u8], durable: u32) {
    let length = u32::try_from(payload.len()).expect("a record is below MAX_RECORD: this is a bug");
    bytes.extend(MARKER);
    bytes.extend(length.to_le_bytes());
    bytes.extend(durable.to_le_bytes());
    bytes.extend(checksum(length, durable, payload).to_le_bytes());
    bytes.extend(payload);
}

/// The fields before a record's kind.
pub(super) struct RecordHeader {
    pub(super) length: usize,
    pub(super) durable: u32,
    crc: u32,
}

impl RecordHeader {
    /// The header at the start of `bytes`, if one can stand there.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < RECORD_HEADER || bytes[..4] != MARKER {
            return None;
        }
        let length = u32_at(bytes, 4) as usize;
        (1..=MAX_RECORD).contains(&length).then(|| Self {
            length,
            durable: u32_at(bytes, 8),
            crc: u32_at(bytes, 12),
        })
    }

    /// Whether `payload` is what was written.
    pub(super) fn fits(&self, payload: &[u8]) -> bool {
        payload.len() == self.length && checksum(self.length as u32, self.durable, payload) == self.crc
    }
}

fn checksum(length: u32, durable: u32, payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&length.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &durable.to_le_bytes());
    crc32c::crc32c_append(crc, payload)
}

fn json(bytes: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(bytes, value).expect("plain data has a JSON form: this is a bug");
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes: this is a bug"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes: this is a bug"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::verdict::tests::judgement;

    fn records() -> Vec<Record> {
        let verdict = Verdict {
            id: Uuid::now_v7(),
            box_name: "box".into(),
            sequence: 3,
            judgement: judgement("top", 0.7),
            evidence: Some("top/2026-01-02/3-x".into()),
        };
        let accepted = Accepted {
            camera: "top".parse().unwrap(),
            trigger: serde_json::from_str(r#"{"part_id":"p","lot":[1,{"a":null}]}"#).unwrap(),
            captured_at: Timestamp::now(),
            delivery: Some(Delivery { session: 1, packet: 2, digest: u64::MAX }),
        };
        let sequences = [("top".parse().unwrap(), 3)].into();
        vec![
            Record::Verdict { position: Position(9), ticket: Some(Ticket(4)), verdict: Box::new(verdict) },
            Record::Accepted { ticket: Ticket(5), accepted: Box::new(accepted) },
            Record::Published { upto: Position(8) },
            Record::Checkpoint(Checkpoint { sequences, tip: Position(9), ..Checkpoint::default() }),
        ]
    }

    #[test]
    fn every_record_survives_its_bytes() {
        for record in records() {
            let payload = record.encode();
            assert_eq!(Record::decode(&payload).unwrap(), record);
            let mut bytes = Vec::new();
            frame(&mut bytes, &payload, 77);
            let header = RecordHeader::decode(&bytes).unwrap();
            assert_eq!((header.length, header.durable), (payload.len(), 77));
            assert!(header.fits(&bytes[RECORD_HEADER..]));
        }
    }

    #[test]
    fn a_segment_header_tells_a_newer_format_from_damage() {
        let header = SegmentHeader { number: 1, store: Uuid::now_v7(), first: Position(2), created_ns: -3 };
        let mut bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), HeaderRead::Good(header));
        bytes[40] ^= 1;
        assert_eq!(SegmentHeader::decode(&bytes), HeaderRead::Bad);
        bytes[8..12].copy_from_slice(&9u32.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes[..20]), HeaderRead::Newer(9));
    }

    proptest! {
        #[test]
        fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _may_fail = Record::decode(&bytes);
            let _may_fail = RecordHeader::decode(&bytes);
            let _may_fail = SegmentHeader::decode(&bytes);
        }

        #[test]
        fn no_flipped_bit_passes(bit in 0usize..8 * 400) {
            let mut bytes = Vec::new();
            frame(&mut bytes, &records()[0].encode(), 77);
            let bit = bit % (8 * bytes.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
            let fits = RecordHeader::decode(&bytes).is_some_and(|h| h.fits(&bytes[RECORD_HEADER..]));
            prop_assert!(!fits);
        }
    }
}
