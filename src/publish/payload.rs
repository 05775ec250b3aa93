//! Payloads that go out, and how they are kept within the packet size. Pure.
//!
//! Not here: what comes in (`request`), topics, and the verdict's own form (`verdict`).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::frame::CameraId;
use crate::health::Retraining;
use crate::verdict::{ModelRef, Threshold, VERDICT_SCHEMA, Verdict};

use super::excerpt::excerpt;
use super::receipt::Receipt;
use super::request::RequestId;

/// The longest `detail` of a verdict that had to be shortened, in bytes.
const SHORT_DETAIL_BYTES: usize = 512;

/// Whether the box is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// It is connected.
    Online,
    /// It was stopped on purpose.
    Stopped,
    /// It was lost; the broker says so in its place.
    Offline,
}

/// The payload of the status topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether the box is there.
    pub state: Presence,
    /// Since when; for `offline` the beginning of the connection that was lost, since nobody can tell when it broke.
    pub since: Timestamp,
    /// The program's version.
    pub version: String,
}

impl Status {
    /// The status of this program.
    pub(super) fn new(state: Presence, since: Timestamp) -> Self {
        Self { state, since, version: env!("CARGO_PKG_VERSION").into() }
    }

    /// Its payload.
    pub(super) fn encode(&self) -> Vec<u8> {
        encode(self)
    }
}

/// Whether a camera delivers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Availability {
    /// It does.
    Up,
    /// It does not.
    Down {
        /// Why, in words for people.
        reason: String,
    },
}

/// What became of a camera's parts since the program started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CameraCounters {
    /// Triggers that were taken.
    pub triggers: u64,
    /// Parts that were taken up with their pictures, or with spoiled ones: one for a part of several views, none for a frame that was
    /// skipped or for a trigger that got no picture.
    pub frames: u64,
    /// Verdicts that were `ok`.
    pub ok: u64,
    /// Verdicts that were `anomalous`.
    pub anomalous: u64,
    /// Verdicts that were `uninspected`.
    pub uninspected: u64,
    /// Frames that the camera counted and that never arrived.
    #[serde(default)]
    pub missed_frames: u64,
    /// Frames that arrived in part.
    #[serde(default)]
    pub incomplete_frames: u64,
    /// Network packets of the camera that never arrived.
    #[serde(default)]
    pub missing_packets: u64,
}

/// The payload of a camera's state topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CameraState {
    /// Whether it delivers, and why not.
    #[serde(flatten)]
    pub availability: Availability,
    /// Since when.
    pub since: Timestamp,
    /// The model that judges its pictures.
    pub model: Option<ModelRef>,
    /// What scores are held against.
    pub threshold: Option<Threshold>,
    /// What became of its parts.
    pub counters: CameraCounters,
    /// When its last frame was exposed.
    pub last_frame_at: Option<Timestamp>,
    /// How the retraining of its model fares, where samples have come.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retraining: Option<Retraining>,
    /// What somebody should look into before it becomes false alarms.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub warnings: Vec<String>,
}

impl CameraState {
    /// Whether `self` differs from `other` in more than its counters and its last frame.
    pub(super) fn differs_in_kind(&self, other: &Self) -> bool {
        let kind = |s: &Self| {
            let phase = s.retraining.as_ref().map(|r| (r.phase.clone(), r.version.clone()));
            (s.availability.clone(), s.since, s.model.clone(), s.threshold, phase, s.warnings.clone())
        };
        kind(self) != kind(other)
    }

    /// Its payload, with what is said in words cut short where it would not fit.
    pub(super) fn encode(&self, limit: usize) -> Vec<u8> {
        let bytes = encode(self);
        if bytes.len() <= limit {
            return bytes;
        }
        let mut short = self.clone();
        if let Availability::Down { reason } = &mut short.availability {
            *reason = shortened(reason).to_owned();
        }
        if let Some(detail) = short.retraining.as_mut().and_then(|r| r.detail.as_mut()) {
            *detail = shortened(detail).to_owned();
        }
        short.warnings.truncate(4);
        short.warnings.iter_mut().for_each(|warning| *warning = shortened(warning).to_owned());
        encode(&short)
    }
}

/// What a reply answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// A trigger that could not be used.
    Trigger {
        /// Its part, if that could be read.
        part_id: Option<String>,
    },
    /// A command.
    Command {
        /// Its id, if that could be read.
        id: Option<RequestId>,
    },
}

/// An answer on a camera's reply topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The camera that was asked.
    pub camera: CameraId,
    /// What is answered.
    pub asked: Asked,
    /// What came of it: anything worth telling, or why not, in words for people.
    pub outcome: Result<Value, String>,
    /// Given when the broker has acknowledged the answer: that of the message that is answered.
    pub receipt: Option<Receipt>,
}

impl Reply {
    /// The command was carried out, or taken on; `result` says what that means.
    pub fn done(camera: CameraId, id: RequestId, result: Value) -> Self {
        Self { camera, asked: Asked::Command { id: Some(id) }, outcome: Ok(result), receipt: None }
    }

    /// The command was not carried out.
    pub fn failed(camera: CameraId, id: RequestId, why: impl Into<String>) -> Self {
        Self { camera, asked: Asked::Command { id: Some(id) }, outcome: Err(why.into()), receipt: None }
    }

    /// The trigger is not taken, and gets no verdict.
    pub fn refused(camera: CameraId, part_id: Option<String>, why: impl Into<String>) -> Self {
        Self { camera, asked: Asked::Trigger { part_id }, outcome: Err(why.into()), receipt: None }
    }

    /// This answer, whose acknowledgement gives `receipt`.
    pub fn settling(self, receipt: Receipt) -> Self {
        Self { receipt: Some(receipt), ..self }
    }

    /// Its payload; a result that does not fit becomes an error that says so.
    pub(super) fn encode(&self, limit: usize) -> Vec<u8> {
        let form = |outcome: Result<&Value, &str>| {
            let mut reply = match &self.asked {
                Asked::Trigger { part_id } => json!({"to": "trigger", "part_id": part_id}),
                Asked::Command { id } => json!({"to": "command", "id": id}),
            };
            match outcome {
                Ok(result) => {
                    reply["ok"] = true.into();
                    reply["result"] = result.clone();
                }
                Err(why) => {
                    reply["ok"] = false.into();
                    reply["error"] = why.into();
                }
            }
            encode(&reply)
        };
        let bytes = form(self.outcome.as_ref().map_err(String::as_str));
        if bytes.len() <= limit {
            return bytes;
        }
        match &self.outcome {
            Ok(_) => form(Err(&format!(
                "done, but the result has {} bytes and a packet may have {limit}: raise mqtt.max_packet_kilobytes",
                bytes.len()
            ))),
            Err(why) => form(Err(shortened(why))),
        }
    }
}

/// A verdict's payload within `limit` bytes, and whether something was left out for that.
///
/// Left out are, as far as needed and in this order: the regions, the trigger's further fields, most of the detail, and
/// at last everything but what identifies the verdict and says how it ended. `truncated` in the payload lists them.
pub(super) fn verdict(verdict: &Verdict, limit: usize) -> (Vec<u8>, bool) {
    let bytes = encode(verdict);
    if bytes.len() <= limit {
        return (bytes, false);
    }
    let mut slim = serde_json::to_value(verdict).expect("a verdict is plain data: this is a bug");
    let mut left_out = Vec::new();
    type Cut = (&'static str, fn(&mut Value));
    let cuts: [Cut; 3] = [
        ("regions", |v| v["regions"] = json!([])),
        ("trigger", |v| v["trigger"] = json!({})),
        ("detail", |v| v["detail"] = v["detail"].as_str().map(shortened).into()),
    ];
    for (name, cut) in cuts {
        cut(&mut slim);
        left_out.push(name);
        slim["truncated"] = json!(left_out);
        let bytes = encode(&slim);
        if bytes.len() <= limit {
            return (bytes, true);
        }
    }
    let least = json!({
        "schema": VERDICT_SCHEMA,
        "id": verdict.id,
        "box": shortened(&verdict.box_name),
        "camera": verdict.camera(),
        "sequence": verdict.sequence,
        "captured_at": verdict.judgement.captured_at,
        "decision": verdict.decision(),
        "truncated": ["all"],
    });
    (encode(&least), true)
}

fn encode(payload: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(payload).expect("a payload is plain data: this is a bug")
}

/// The beginning of `text`, at most [`SHORT_DETAIL_BYTES`] long.
fn shortened(text: &str) -> &str {
    excerpt(text, SHORT_DETAIL_BYTES)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::verdict::{AnomalousRegion, Outcome, Reason, Score, Trigger};

    fn sample(regions: usize, detail: Option<usize>) -> Verdict {
        let mut judgement = crate::verdict::tests::judgement("top", 0.75);
        if let Outcome::Inspected(finding) = &mut judgement.outcome {
            let region = AnomalousRegion { x: 1, y: 2, width: 3, height: 4, score: Score(0.7) };
            finding.regions = vec![region; regions];
        }
        if let Some(bytes) = detail {
            judgement.outcome =
                Outcome::Uninspected { reason: Reason::Internal, detail: "ä".repeat(bytes / 2) };
        }
        Verdict { id: Uuid::nil(), box_name: "box".into(), sequence: 7, judgement, evidence: None }
    }

    fn cut(verdict_: &Verdict, limit: usize) -> Value {
        let (bytes, trimmed) = verdict(verdict_, limit);
        assert!(trimmed && bytes.len() <= limit, "{} bytes", bytes.len());
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn a_verdict_that_fits_goes_out_whole() {
        let whole = sample(2, None);
        let (bytes, trimmed) = verdict(&whole, 8192);
        assert!(!trimmed);
        assert_eq!(serde_json::from_slice::<Verdict>(&bytes).unwrap(), whole);
    }

    #[test]
    fn a_verdict_that_is_too_large_says_what_it_left_out() {
        let value = cut(&sample(1000, None), 8192);
        assert_eq!(value["truncated"], json!(["regions"]));
        assert_eq!(value["decision"], "anomalous");

        let mut loaded = sample(1000, None);
        let fields = [("note".to_owned(), Value::from("x".repeat(10_000)))].into_iter().collect();
        loaded.judgement.trigger = Some(Trigger { part_id: Some("p1".into()), deadline_ms: None, fields });
        let value = cut(&loaded, 8192);
        assert_eq!(value["truncated"], json!(["regions", "trigger"]));
        assert_eq!(value["part_id"], "p1");

        assert_eq!(cut(&sample(0, Some(10_000)), 8192)["truncated"], json!(["regions", "trigger", "detail"]));

        let mut odd = sample(0, None);
        odd.evidence = Some("e".repeat(10_000));
        let value = cut(&odd, 8192);
        assert_eq!((&value["truncated"], &value["sequence"]), (&json!(["all"]), &json!(7)));
    }

    #[test]
    fn a_shortened_verdict_can_still_be_read() {
        let (bytes, _) = verdict(&sample(1000, None), 8192);
        assert_eq!(serde_json::from_slice::<Verdict>(&bytes).unwrap(), sample(0, None));
    }

    #[test]
    fn states_and_status_have_their_documented_form() {
        let since: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let mut state = CameraState {
            availability: Availability::Down { reason: "unplugged".into() },
            since,
            model: Some(ModelRef { name: "bottle".into(), version: "0123456789ab".into() }),
            threshold: Some(Threshold(0.5)),
            counters: CameraCounters { ok: 3, ..CameraCounters::default() },
            last_frame_at: None,
            retraining: None,
            warnings: Vec::new(),
        };
        let json = String::from_utf8(state.encode(8192)).unwrap();
        assert_eq!(
            json,
            r#"{"state":"down","reason":"unplugged","since":"2026-01-02T03:04:05Z","model":{"name":"bottle","version":"0123456789ab"},"threshold":0.5,"counters":{"triggers":0,"frames":0,"ok":3,"anomalous":0,"uninspected":0,"missed_frames":0,"incomplete_frames":0,"missing_packets":0},"last_frame_at":null}"#
        );
        assert_eq!(serde_json::from_str::<CameraState>(&json).unwrap(), state);
        state.availability = Availability::Down { reason: "x".repeat(20_000) };
        assert!(state.encode(8192).len() <= 8192);

        let status = Status::new(Presence::Online, since).encode();
        let expected = format!(
            r#"{{"state":"online","since":"2026-01-02T03:04:05Z","version":"{}"}}"#,
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(String::from_utf8(status).unwrap(), expected);
    }

    #[test]
    fn a_reply_carries_the_requests_id() {
        let camera: CameraId = "top".parse().unwrap();
        let id = RequestId::new("r-1").unwrap();
        let reply = Reply::done(camera.clone(), id.clone(), json!({"replayed": 3}));
        assert_eq!(
            serde_json::from_slice::<Value>(&reply.encode(8192)).unwrap(),
            json!({"to": "command", "id": "r-1", "ok": true, "result": {"replayed": 3}})
        );
        let reply = Reply::done(camera.clone(), id.clone(), "x".repeat(9000).into());
        let value: Value = serde_json::from_slice(&reply.encode(8192)).unwrap();
        assert_eq!((&value["ok"], &value["id"]), (&json!(false), &json!("r-1")));
        let reply = Reply::failed(camera, id, "x".repeat(9000));
        assert!(reply.encode(8192).len() <= 8192);
    }
}
