//! Verdicts: the one answer that every inspected part gets, and its form on the wire and in the journal.
//!
//! [`Judgement`] is what the pipeline concluded; the store turns it into a [`Verdict`] by giving it an `id` and a
//! gap-free `sequence`. Not here: how a score comes about (`detector`), topics (`publish`), files (`store`).

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::frame::{CameraId, SourceRef};

/// The version of the verdict's JSON form.
pub const VERDICT_SCHEMA: u32 = 1;

/// How anomalous a picture is: the maximum of its combined anomaly map; higher is worse, unbounded.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Score(pub f32);

/// Scores above it are anomalous.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Threshold(pub f32);

/// The three ways an inspection can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// The score does not exceed the threshold.
    Ok,
    /// The score exceeds the threshold.
    Anomalous,
    /// No score could be had, for a stated reason; a PLC should treat the part as rejected.
    Uninspected,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Anomalous => "anomalous",
            Self::Uninspected => "uninspected",
        })
    }
}

/// Why a part was not inspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// The camera gave no frame, or one that cannot be decoded.
    Camera,
    /// More came than can be inspected.
    Overload,
    /// The answer would have come, or came, after the trigger's deadline.
    Deadline,
    /// The model could not be run.
    Model,
    /// Anything else, such as a restart while the part was under inspection.
    Internal,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Camera => "camera",
            Self::Overload => "overload",
            Self::Deadline => "deadline",
            Self::Model => "model",
            Self::Internal => "internal",
        })
    }
}

/// A connected area of the picture whose anomaly map exceeds the threshold, in pixels of the upright picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnomalousRegion {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// The map's maximum inside it.
    pub score: Score,
}

/// Which model judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRef {
    /// The bundle's name.
    pub name: String,
    /// Its version: the first 12 hexadecimal digits of its tensors' digest.
    pub version: String,
}

/// What the detector measured on one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The picture's score.
    pub score: Score,
    /// What it was held against.
    pub threshold: Threshold,
    /// Where the map is highest, `[x, y]` in pixels of the upright picture.
    pub peak: [u32; 2],
    /// The areas above the threshold, worst first, at most 32; empty exactly when the part is `ok`.
    pub regions: Vec<AnomalousRegion>,
    /// Who judged.
    pub model: ModelRef,
}

/// How an inspection ended. `Ok` and `Anomalous` have a finding, `Uninspected` has a reason, and nothing has both.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Inspected; whether it is `ok` or `anomalous` follows from the finding.
    Inspected(Finding),
    /// Not inspected.
    Uninspected {
        /// Why, in a word for machines.
        reason: Reason,
        /// Why, in words for people.
        detail: String,
    },
}

impl Outcome {
    /// The decision that follows.
    pub fn decision(&self) -> Decision {
        match self {
            // Written so that a score that is not a number is never `ok`.
            Self::Inspected(f) if f.score.0 <= f.threshold.0 => Decision::Ok,
            Self::Inspected(_) => Decision::Anomalous,
            Self::Uninspected { .. } => Decision::Uninspected,
        }
    }
}

/// Where the time went, in milliseconds; stages that were not reached are zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// The camera: from asking it, or from the exposure where that came later, until all of the part's frames were there.
    pub capture: f32,
    /// Waiting: for the camera to be free, and between the stages.
    pub queue: f32,
    /// Decoding, cutting out, resizing.
    pub prepare: f32,
    /// The networks, the map and the score.
    pub infer: f32,
    /// From exposure to judgement.
    pub total: f32,
}

/// A trigger's own fields, echoed in its verdict.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Trigger {
    /// The part under the camera.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part_id: Option<String>,
    /// Milliseconds from its arrival within which the verdict is worth having.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Every further field, as it came.
    #[serde(flatten)]
    pub fields: serde_json::Map<String, serde_json::Value>,
}

/// The views of a part that was judged by several pictures together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Views {
    /// How many there were.
    pub count: u32,
    /// Which of them, from 1, score, places, time and evidence belong to: the worst.
    pub shown: u32,
}

/// What the pipeline concluded about one part, before it has a place in the record.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// Which camera saw it.
    pub camera: CameraId,
    /// When it was exposed, or should have been.
    pub captured_at: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// Where the time went.
    pub timings: Timings,
    /// The trigger that asked for it, if one did.
    pub trigger: Option<Trigger>,
    /// Its views, where it was judged by more than one.
    pub views: Option<Views>,
    /// Where the frame can be met again, if it can.
    pub source: Option<SourceRef>,
    /// The same of the part's other frames.
    pub other_sources: Vec<SourceRef>,
}

impl Judgement {
    /// Every file that this settles.
    pub fn sources(&self) -> impl Iterator<Item = &SourceRef> {
        self.source.iter().chain(&self.other_sources)
    }
}

/// A recorded judgement: what is on disk, on the wire, and in the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "WireVerdict", into = "WireVerdict")]
pub struct Verdict {
    /// Unique for ever; a repeat carries the same one.
    pub id: Uuid,
    /// The box that judged.
    pub box_name: String,
    /// Rises by one per camera, from 1, without gaps, across restarts.
    pub sequence: u64,
    /// What was concluded.
    pub judgement: Judgement,
    /// The evidence folder, relative to the store, if evidence was kept.
    pub evidence: Option<String>,
}

impl Verdict {
    /// Its decision.
    pub fn decision(&self) -> Decision {
        self.judgement.outcome.decision()
    }

    /// The camera that saw the part.
    pub fn camera(&self) -> &CameraId {
        &self.judgement.camera
    }
}

/// The flat JSON form of a [`Verdict`]; the order of fields here is the order on the wire.
#[derive(Clone, Serialize, Deserialize)]
struct WireVerdict {
    schema: u32,
    id: Uuid,
    #[serde(rename = "box")]
    box_name: String,
    camera: CameraId,
    sequence: u64,
    part_id: Option<String>,
    captured_at: Timestamp,
    decision: Decision,
    reason: Option<Reason>,
    detail: Option<String>,
    score: Option<Score>,
    threshold: Option<Threshold>,
    model: Option<ModelRef>,
    peak: Option<[u32; 2]>,
    regions: Vec<AnomalousRegion>,
    evidence: Option<String>,
    timings_ms: Timings,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trigger: Option<Trigger>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    views: Option<Views>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<SourceRef>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    other_sources: Vec<SourceRef>,
}

impl From<Verdict> for WireVerdict {
    fn from(v: Verdict) -> Self {
        let decision = v.decision();
        let j = v.judgement;
        let part_id = j.trigger.as_ref().and_then(|t| t.part_id.clone());
        let (finding, reason, detail) = match j.outcome {
            Outcome::Inspected(f) => (Some(f), None, None),
            Outcome::Uninspected { reason, detail } => (None, Some(reason), Some(detail)),
        };
        let mut wire = Self {
            schema: VERDICT_SCHEMA,
            id: v.id,
            box_name: v.box_name,
            camera: j.camera,
            sequence: v.sequence,
            part_id,
            captured_at: j.captured_at,
            decision,
            reason,
            detail,
            score: None,
            threshold: None,
            model: None,
            peak: None,
            regions: Vec::new(),
            evidence: v.evidence,
            timings_ms: j.timings,
            trigger: j.trigger,
            views: j.views,
            source: j.source,
            other_sources: j.other_sources,
        };
        if let Some(f) = finding {
            wire.score = Some(f.score);
            wire.threshold = Some(f.threshold);
            wire.model = Some(f.model);
            wire.peak = Some(f.peak);
            wire.regions = f.regions;
        }
        wire
    }
}

impl TryFrom<WireVerdict> for Verdict {
    type Error = String;

    fn try_from(w: WireVerdict) -> Result<Self, Self::Error> {
        if w.schema != VERDICT_SCHEMA {
            return Err(format!(
                "verdict schema {} is not {VERDICT_SCHEMA}, the one this program knows",
                w.schema
            ));
        }
        let outcome = match (w.decision, w.score, w.threshold, w.model, w.peak, w.reason) {
            (Decision::Uninspected, None, None, None, None, Some(reason)) => {
                Outcome::Uninspected { reason, detail: w.detail.unwrap_or_default() }
            }
            (
                Decision::Ok | Decision::Anomalous,
                Some(score),
                Some(threshold),
                Some(model),
                Some(peak),
                None,
            ) => Outcome::Inspected(Finding { score, threshold, peak, regions: w.regions, model }),
            _ => return Err(format!("verdict {} has fields that contradict its decision", w.id)),
        };
        if outcome.decision() != w.decision {
            return Err(format!("verdict {} says {} but its score says otherwise", w.id, w.decision));
        }
        let judgement = Judgement {
            camera: w.camera,
            captured_at: w.captured_at,
            outcome,
            timings: w.timings_ms,
            trigger: w.trigger,
            views: w.views,
            source: w.source,
            other_sources: w.other_sources,
        };
        Ok(Self { id: w.id, box_name: w.box_name, sequence: w.sequence, judgement, evidence: w.evidence })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A judgement as a camera named `camera` would get it, for the tests of every room.
    pub(crate) fn judgement(camera: &str, score: f32) -> Judgement {
        Judgement {
            camera: camera.parse().unwrap(),
            captured_at: "2026-01-02T03:04:05.678Z".parse().unwrap(),
            outcome: Outcome::Inspected(Finding {
                score: Score(score),
                threshold: Threshold(0.5),
                peak: [3, 4],
                regions: Vec::new(),
                model: ModelRef { name: "bottle".into(), version: "0123456789ab".into() },
            }),
            timings: Timings::default(),
            trigger: None,
            views: None,
            source: None,
            other_sources: Vec::new(),
        }
    }

    fn verdict(outcome: Outcome) -> Verdict {
        let judgement = Judgement { outcome, ..judgement("top", 0.0) };
        Verdict { id: Uuid::nil(), box_name: "box".into(), sequence: 7, judgement, evidence: None }
    }

    #[test]
    fn a_verdict_survives_the_wire() {
        for outcome in [
            judgement("top", 0.25).outcome,
            judgement("top", 0.75).outcome,
            Outcome::Uninspected { reason: Reason::Deadline, detail: "12 ms late".into() },
        ] {
            let verdict = verdict(outcome);
            let json = serde_json::to_string(&verdict).unwrap();
            assert_eq!(serde_json::from_str::<Verdict>(&json).unwrap(), verdict, "{json}");
        }
    }

    #[test]
    fn views_stand_on_the_wire_only_where_there_are_several() {
        let mut burst = verdict(judgement("top", 0.75).outcome);
        assert!(!serde_json::to_string(&burst).unwrap().contains("views"));
        burst.judgement.views = Some(Views { count: 3, shown: 2 });
        let json = serde_json::to_string(&burst).unwrap();
        assert!(json.contains(r#""views":{"count":3,"shown":2}"#), "{json}");
        assert_eq!(serde_json::from_str::<Verdict>(&json).unwrap(), burst);
    }

    #[test]
    fn files_of_other_views_stand_on_the_wire_only_where_there_are_some() {
        let file = |name: &str| SourceRef { name: name.into(), bytes: 1, modified_ns: 2 };
        let mut burst = verdict(judgement("top", 0.75).outcome);
        burst.judgement.source = Some(file("2.png"));
        assert!(!serde_json::to_string(&burst).unwrap().contains("other_sources"));
        burst.judgement.other_sources = vec![file("1.png"), file("3.png")];
        let json = serde_json::to_string(&burst).unwrap();
        assert_eq!(serde_json::from_str::<Verdict>(&json).unwrap(), burst);
        let names: Vec<_> = burst.judgement.sources().map(|source| source.name.as_str()).collect();
        assert_eq!(names, ["2.png", "1.png", "3.png"]);
    }

    #[test]
    fn a_score_that_is_no_number_is_never_ok() {
        assert_eq!(judgement("top", f32::NAN).outcome.decision(), Decision::Anomalous);
    }

    #[test]
    fn a_verdict_that_contradicts_itself_is_refused() {
        let json = serde_json::to_string(&verdict(judgement("top", 0.75).outcome)).unwrap();
        let lie = json.replace("\"anomalous\"", "\"ok\"");
        assert!(
            serde_json::from_str::<Verdict>(&lie).unwrap_err().to_string().contains("score says otherwise")
        );
    }
}
