//! Which answer belongs to which address. Paths never reach the file system: they name a camera and a sequence, and the
//! store says where that verdict's evidence lies.

use hyper::StatusCode;

use super::View;
use super::answer::{Answer, JSON};
use super::{evidence, metrics, ready, state};
use crate::frame::CameraId;
use crate::store::Query;
use crate::telemetry::chain;
use crate::verdict::Verdict;

/// Verdicts that one request gets unless it asks for another number, and at most.
const VERDICTS: usize = 50;
const MOST_VERDICTS: usize = 1000;

/// The metrics' type.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is asked for.
#[derive(Debug, PartialEq)]
pub(super) enum Route {
    Page,
    Style,
    Script,
    Metrics,
    Health,
    Ready,
    State,
    Verdicts { camera: Option<CameraId>, limit: usize },
    Evidence(evidence::Asked),
}

impl Route {
    /// The route to `path`, or what is wrong with it.
    pub(super) fn of(path: &str, query: Option<&str>) -> Result<Self, Answer> {
        let unknown = || {
            Answer::not_found(
                "there is no such page; there is /, /metrics, /healthz, /readyz, /api/state and /api/verdicts",
            )
        };
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        Ok(match parts.as_slice() {
            [""] => Self::Page,
            ["page.css"] => Self::Style,
            ["page.js"] => Self::Script,
            ["metrics"] => Self::Metrics,
            ["healthz"] => Self::Health,
            ["readyz"] => Self::Ready,
            ["api", "state"] => Self::State,
            ["api", "verdicts"] => verdicts(query.unwrap_or_default())?,
            ["evidence", camera, sequence, kind, rest @ ..] => {
                let camera = camera.parse().map_err(|_| unknown())?;
                let sequence = sequence.parse().map_err(|_| unknown())?;
                let kind = evidence::Kind::of(kind).ok_or_else(unknown)?;
                let small = match rest {
                    [] => false,
                    ["small"] => true,
                    _ => return Err(unknown()),
                };
                let id = match query.filter(|query| !query.is_empty()) {
                    None => None,
                    Some(query) => {
                        let id = query.strip_prefix("id=").and_then(|id| id.parse().ok());
                        Some(id.ok_or_else(unknown)?)
                    }
                };
                Self::Evidence(evidence::Asked { camera, sequence, kind, small, id })
            }
            _ => return Err(unknown()),
        })
    }

    /// Whether its answer may take a while.
    pub(super) fn reads_disk(&self) -> bool {
        matches!(self, Self::Metrics | Self::State | Self::Verdicts { .. } | Self::Evidence(_))
    }

    pub(super) fn answer(self, view: &View) -> Answer {
        match self {
            Self::Page => Answer::new("text/html; charset=utf-8", include_str!("page/index.html")),
            Self::Style => Answer::new("text/css; charset=utf-8", include_str!("page/page.css")),
            Self::Script => Answer::new("text/javascript; charset=utf-8", include_str!("page/page.js")),
            Self::Metrics => Answer::new(PROMETHEUS, metrics::text(view)),
            Self::Health => ready::health(view).answer(),
            Self::Ready => ready::readiness(view).answer(),
            Self::State => Answer::json(&state::state(view)),
            Self::Verdicts { camera, limit } => history(view, camera, limit),
            Self::Evidence(asked) => evidence::answer(view, &asked),
        }
    }
}

fn verdicts(query: &str) -> Result<Route, Answer> {
    let wrong = |what: String| Answer::text(StatusCode::BAD_REQUEST, what);
    let (mut camera, mut limit) = (None, VERDICTS);
    for (key, value) in query.split('&').filter(|pair| !pair.is_empty()).filter_map(|p| p.split_once('=')) {
        match key {
            "camera" => {
                let name = value.parse().map_err(|_| wrong("camera= is no camera's name".into()))?;
                camera = Some(name);
            }
            "limit" => match value.parse() {
                Ok(wanted) if wanted <= MOST_VERDICTS => limit = wanted,
                _ => return Err(wrong(format!("limit= is to be 0 to {MOST_VERDICTS}"))),
            },
            _ => return Err(wrong("there is camera= and limit=, and nothing else".into())),
        }
    }
    Ok(Route::Verdicts { camera, limit })
}

fn history(view: &View, camera: Option<CameraId>, limit: usize) -> Answer {
    let query = Query { camera, limit, ..Query::default() };
    match view.watched.store.history(&query) {
        Ok(verdicts) => Answer::new(JSON, json_lines(&verdicts)),
        Err(error) => Answer::text(StatusCode::INTERNAL_SERVER_ERROR, chain(&error)),
    }
}

/// A JSON array with one verdict a line.
fn json_lines(verdicts: &[Verdict]) -> String {
    let lines: Vec<_> = verdicts.iter().filter_map(|verdict| serde_json::to_string(verdict).ok()).collect();
    format!("[{}]\n", lines.join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &str, query: &str) -> Option<Route> {
        Route::of(path, Some(query)).ok()
    }

    #[test]
    fn evidence_is_named_by_camera_and_sequence_only() {
        let camera: CameraId = "top".parse().unwrap();
        let (kind, id) = (evidence::Kind::Heatmap, uuid::Uuid::from_u128(7));
        let heatmap = |id| {
            Some(Route::Evidence(evidence::Asked {
                camera: camera.clone(),
                sequence: 7,
                kind,
                small: true,
                id,
            }))
        };
        assert_eq!(route("/evidence/top/7/heatmap/small", ""), heatmap(None));
        assert_eq!(route("/evidence/top/7/heatmap/small", &format!("id={id}")), heatmap(Some(id)));
        assert_eq!(route("/evidence/top/7/heatmap/small", "id=7"), None);
        for bad in [
            "/evidence/../7/picture",
            "/evidence/top/-1/picture",
            "/evidence/top/7/verdict.json",
            "/evidence/top/7/picture/../../x",
            "/evidence/top/..%2f/picture",
            "/evidence/top/7",
            "/etc/passwd",
        ] {
            assert_eq!(route(bad, ""), None, "{bad}");
        }
    }

    #[test]
    fn what_is_asked_for_is_bounded() {
        let all = Route::Verdicts { camera: None, limit: VERDICTS };
        assert_eq!(route("/api/verdicts", ""), Some(all));
        let some = Route::Verdicts { camera: Some("top".parse().unwrap()), limit: 3 };
        assert_eq!(route("/api/verdicts", "camera=top&limit=3"), Some(some));
        for bad in ["limit=1001", "limit=-1", "camera=a/b", "since=1"] {
            assert_eq!(route("/api/verdicts", bad), None, "{bad}");
        }
    }
}
