//! What others may send: triggers and commands, read from payloads that may be anything. Pure.
//!
//! Every bound on input from the network stands here. Not here: whether the camera exists (`inbox`), and carrying a
//! command out (`pipeline`).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::verdict::Trigger;

use super::excerpt::excerpt;

/// The largest trigger or command, in bytes.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;
/// The deepest nesting of a trigger's or command's JSON.
pub const MAX_DEPTH: usize = 8;
/// The most values in a trigger or command, at any depth; each takes far more memory than its bytes on the wire.
pub const MAX_VALUES: usize = 1024;
/// The most further fields of a trigger.
pub const MAX_FIELDS: usize = 64;
/// The longest part id, in bytes.
pub const MAX_PART_ID_BYTES: usize = 256;
/// The longest request id, in bytes.
pub const MAX_REQUEST_ID_BYTES: usize = 128;
/// The longest deadline, in milliseconds: ten minutes.
pub const MAX_DEADLINE_MS: u64 = 600_000;
/// The most verdicts that one replay may ask for.
pub const MAX_REPLAY: u64 = 100_000;
/// The longest name of a model version, in bytes.
const MAX_MODEL_NAME_BYTES: usize = 128;

/// Why a payload is refused; the text goes to whoever sent it.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RequestError {
    /// Nothing in it.
    #[error("the payload is empty: send a JSON object, {{}} at least")]
    Empty,
    /// Too large.
    #[error("the payload has {0} bytes, more than {MAX_REQUEST_BYTES}")]
    TooLarge(usize),
    /// No JSON.
    #[error("the payload is no JSON: {0}")]
    NotJson(String),
    /// JSON, but no object.
    #[error("the payload must be a JSON object")]
    NotAnObject,
    /// Nested too deeply.
    #[error("the payload is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// Too many values.
    #[error("the payload holds {0} values, more than {MAX_VALUES}")]
    TooManyValues(usize),
    /// Too many fields.
    #[error("the trigger has {0} further fields, more than {MAX_FIELDS}")]
    TooManyFields(usize),
    /// One field is not what it must be.
    #[error("`{field}` {must}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it must be.
        must: String,
    },
}

fn field(field: &'static str, must: impl Into<String>) -> RequestError {
    RequestError::Field { field, must: must.into() }
}

/// The id that a command came with and its reply carries: 1 to 128 bytes without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestId(String);

impl RequestId {
    /// An id, if `text` can be one.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        ((1..=MAX_REQUEST_ID_BYTES).contains(&text.len()) && !text.contains(char::is_control))
            .then_some(Self(text))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RequestId {
    type Error = RequestError;

    fn try_from(text: String) -> Result<Self, RequestError> {
        Self::new(text).ok_or_else(bad_id)
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> Self {
        id.0
    }
}

fn bad_id() -> RequestError {
    field("id", format!("must be a string of 1 to {MAX_REQUEST_ID_BYTES} bytes; the reply carries it"))
}

/// What a camera is told to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub enum Command {
    /// Publish the recorded verdicts of these sequence numbers again, both ends included; at most [`MAX_REPLAY`].
    Replay {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// Hold scores against another value.
    Threshold {
        /// The new threshold, finite; `null` for that of the settings or, where they have none, the model's own. A
        /// command without it is refused: it would undo what was set unasked.
        #[serde(deserialize_with = "Option::deserialize")]
        value: Option<f32>,
    },
    /// Train on the samples that have come in.
    Retrain {},
    /// Use this version of the model.
    Activate {
        /// Its name: 1 to 128 of `a–z A–Z 0–9 . _ -`, not beginning with a dot, so that it is safe as a folder name.
        name: String,
    },
    /// Go back to the version before.
    Rollback {},
}

/// A trigger that cannot be used, with as much of it as could be read.
#[derive(Debug, PartialEq)]
pub(super) struct BadTrigger {
    pub(super) part_id: Option<String>,
    pub(super) error: RequestError,
}

/// A command that cannot be used, with as much of it as could be read.
#[derive(Debug, PartialEq)]
pub(super) struct BadCommand {
    pub(super) id: Option<RequestId>,
    pub(super) error: RequestError,
}

/// Reads a trigger's payload as the session does.
///
/// # Errors
/// What is wrong with it.
pub fn read_trigger(payload: &[u8]) -> Result<Trigger, RequestError> {
    trigger(payload).map_err(|bad| bad.error)
}

/// Reads a command's payload as the session does.
///
/// # Errors
/// What is wrong with it.
pub fn read_command(payload: &[u8]) -> Result<(RequestId, Command), RequestError> {
    command(payload).map_err(|bad| bad.error)
}

/// Reads a trigger.
pub(super) fn trigger(payload: &[u8]) -> Result<Trigger, BadTrigger> {
    let mut fields = object(payload).map_err(|error| BadTrigger { part_id: None, error })?;
    let part_id = part_id(fields.remove("part_id")).map_err(|error| BadTrigger { part_id: None, error })?;
    let deadline = deadline(fields.remove("deadline_ms"));
    match deadline {
        Ok(_) if fields.len() > MAX_FIELDS => {
            Err(BadTrigger { part_id, error: RequestError::TooManyFields(fields.len()) })
        }
        Ok(deadline_ms) => Ok(Trigger { part_id, deadline_ms, fields }),
        Err(error) => Err(BadTrigger { part_id, error }),
    }
}

fn part_id(value: Option<Value>) -> Result<Option<String>, RequestError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id))
            if (1..=MAX_PART_ID_BYTES).contains(&id.len()) && !id.contains(char::is_control) =>
        {
            Ok(Some(id))
        }
        Some(_) => Err(field(
            "part_id",
            format!(
                "must be a string of 1 to {MAX_PART_ID_BYTES} bytes without control characters, or absent"
            ),
        )),
    }
}

fn deadline(value: Option<Value>) -> Result<Option<u64>, RequestError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(ms @ 1..=MAX_DEADLINE_MS) => Ok(Some(ms)),
            _ => Err(field(
                "deadline_ms",
                format!("must be a whole number of milliseconds from 1 to {MAX_DEADLINE_MS}, or absent"),
            )),
        },
    }
}

/// Reads a command and its request's id.
pub(super) fn command(payload: &[u8]) -> Result<(RequestId, Command), BadCommand> {
    let mut fields = object(payload).map_err(|error| BadCommand { id: None, error })?;
    let id = match fields.remove("id") {
        Some(Value::String(id)) => RequestId::new(id),
        _ => None,
    };
    let Some(id) = id else {
        return Err(BadCommand { id: None, error: bad_id() });
    };
    match checked(fields) {
        Ok(command) => Ok((id, command)),
        Err(error) => Err(BadCommand { id: Some(id), error }),
    }
}

fn checked(fields: Map<String, Value>) -> Result<Command, RequestError> {
    const KNOWN: &str = "replay (from, to), threshold (value), retrain, activate (name) or rollback";
    let command: Command = serde_json::from_value(Value::Object(fields))
        .map_err(|e| field("command", format!("must be one of {KNOWN}: {}", brief(&e.to_string()))))?;
    match &command {
        Command::Replay { from, to } if *from == 0 || to < from => {
            Err(field("from", "must be at least 1 and at most `to`"))
        }
        Command::Replay { from, to } if to - from >= MAX_REPLAY => Err(field(
            "to",
            format!("must be less than {MAX_REPLAY} after `from`: ask for the rest in further replays"),
        )),
        Command::Threshold { value: Some(value) } if !value.is_finite() => {
            Err(field("value", "must be a finite number, or null for that of the settings or the model"))
        }
        Command::Activate { name } if !is_model_name(name) => Err(field(
            "name",
            format!("must be 1 to {MAX_MODEL_NAME_BYTES} of a-z A-Z 0-9 . _ - and not begin with a dot"),
        )),
        _ => Ok(command),
    }
}

fn is_model_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
    (1..=MAX_MODEL_NAME_BYTES).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(legal)
}

fn object(payload: &[u8]) -> Result<Map<String, Value>, RequestError> {
    if payload.is_empty() {
        return Err(RequestError::Empty);
    }
    if payload.len() > MAX_REQUEST_BYTES {
        return Err(RequestError::TooLarge(payload.len()));
    }
    let value: Value =
        serde_json::from_slice(payload).map_err(|e| RequestError::NotJson(brief(&e.to_string())))?;
    if depth(&value) > MAX_DEPTH {
        return Err(RequestError::TooDeep);
    }
    let values = count(&value);
    if values > MAX_VALUES {
        return Err(RequestError::TooManyValues(values));
    }
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err(RequestError::NotAnObject),
    }
}

/// Levels of arrays and objects; the parser's own limit of 128 bounds the recursion.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Object(fields) => 1 + fields.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

/// A parser's message without the input that it may quote at length.
fn brief(message: &str) -> String {
    excerpt(message, 160).escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_trigger_keeps_every_field() {
        let read = trigger(br#"{"part_id":"p-1","deadline_ms":250,"lot":{"no":7},"tags":[1,"a"]}"#).unwrap();
        assert_eq!(read.part_id.as_deref(), Some("p-1"));
        assert_eq!(read.deadline_ms, Some(250));
        assert_eq!(Value::Object(read.fields), json!({"lot": {"no": 7}, "tags": [1, "a"]}));
        assert_eq!(trigger(b"{}").unwrap(), Trigger::default());
        assert_eq!(trigger(br#"{"part_id":null,"deadline_ms":null}"#).unwrap(), Trigger::default());
    }

    #[test]
    fn numbers_keep_their_last_digit() {
        for number in ["0.1", "2.2250738585072014e-308", "118.48105899999999", "18446744073709551615"] {
            let read = trigger(format!(r#"{{"n":{number}}}"#).as_bytes()).unwrap();
            assert_eq!(serde_json::to_string(&read.fields["n"]).unwrap(), number);
        }
    }

    #[test]
    fn a_bad_trigger_is_told_what_is_wrong() {
        let error = |payload: &[u8]| trigger(payload).unwrap_err().error.to_string();
        assert!(error(b"").contains("empty"));
        assert!(error(b"part 7").contains("no JSON"));
        assert!(error(b"\xff\xfe").contains("no JSON"));
        assert!(error(b"[1]").contains("object"));
        assert!(error(br#"{"part_id":7}"#).contains("`part_id` must be a string"));
        assert!(error(br#"{"part_id":""}"#).contains("`part_id`"));
        assert!(error(b"{\"part_id\":\"a\\u0000\"}").contains("control"));
        for deadline in ["0", "-1", "1.5", "600001", "\"5\"", "1e400"] {
            let text = error(format!("{{\"deadline_ms\":{deadline}}}").as_bytes());
            assert!(text.contains("deadline_ms") || text.contains("no JSON"), "{text}");
        }
        assert!(error(&vec![b' '; MAX_REQUEST_BYTES + 1]).contains("65537 bytes"));
        assert!(
            error(format!("{{\"x\":{}1{}}}", "[".repeat(9), "]".repeat(9)).as_bytes()).contains("nested")
        );
        assert!(
            error(format!("{{\"x\":{}1{}}}", "[".repeat(5000), "]".repeat(5000)).as_bytes()).contains("JSON")
        );
        assert!(error(format!("{{\"x\":{:?}}}", vec![0; 1023]).as_bytes()).contains("1025 values"));
        let many: Map<String, Value> = (0..65).map(|i| (i.to_string(), Value::Null)).collect();
        assert!(error(Value::Object(many).to_string().as_bytes()).contains("65 further fields"));
    }

    #[test]
    fn a_bad_trigger_still_names_its_part() {
        let bad = trigger(br#"{"part_id":"p-1","deadline_ms":0}"#).unwrap_err();
        assert_eq!(bad.part_id.as_deref(), Some("p-1"));
    }

    #[test]
    fn every_command_is_understood() {
        let read = |body: Value| command(body.to_string().as_bytes()).map(|(_, command)| command).unwrap();
        let replay = json!({"id": "1", "command": "replay", "from": 3, "to": 5});
        assert_eq!(read(replay), Command::Replay { from: 3, to: 5 });
        let threshold = json!({"id": "1", "command": "threshold", "value": 0.5});
        assert_eq!(read(threshold), Command::Threshold { value: Some(0.5) });
        let own = json!({"id": "1", "command": "threshold", "value": null});
        assert_eq!(read(own), Command::Threshold { value: None });
        assert_eq!(read(json!({"id": "1", "command": "retrain"})), Command::Retrain {});
        let activate = json!({"id": "1", "command": "activate", "name": "bottle-2"});
        assert_eq!(read(activate), Command::Activate { name: "bottle-2".into() });
        assert_eq!(read(json!({"id": "1", "command": "rollback"})), Command::Rollback {});
    }

    #[test]
    fn a_bad_command_is_told_what_is_wrong() {
        let error = |body: Value| command(body.to_string().as_bytes()).unwrap_err();
        assert!(error(json!({"command": "retrain"})).error.to_string().contains("`id`"));
        assert!(error(json!({"id": 7, "command": "retrain"})).error.to_string().contains("`id`"));
        let unknown = error(json!({"id": "7", "command": "explode"}));
        assert_eq!(unknown.id.unwrap().as_str(), "7");
        assert!(unknown.error.to_string().contains("replay"));
        for (body, about) in [
            (json!({"id": "1", "command": "replay", "from": 0, "to": 5}), "from"),
            (json!({"id": "1", "command": "replay", "from": 6, "to": 5}), "from"),
            (json!({"id": "1", "command": "replay", "from": 1, "to": u64::MAX}), "to"),
            (json!({"id": "1", "command": "replay", "from": -1, "to": 5}), "command"),
            (json!({"id": "1", "command": "retrain", "now": true}), "command"),
            (json!({"id": "1", "command": "activate", "name": "../../etc"}), "name"),
            (json!({"id": "1", "command": "activate", "name": ".."}), "name"),
            (json!({"id": "1", "command": "threshold", "value": 1e300}), "value"),
            (json!({"id": "1", "command": "threshold"}), "command"),
        ] {
            let text = error(body).error.to_string();
            assert!(text.starts_with(&format!("`{about}`")), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_payload_makes_it_panic(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = trigger(&payload);
            let _ = command(&payload);
        }

        #[test]
        fn errors_stay_short_whatever_they_quote(name in "\\PC{0,2000}") {
            let body = json!({"id": "1", "command": name}).to_string();
            if let Err(bad) = command(body.as_bytes()) {
                prop_assert!(bad.error.to_string().len() < 2000);
            }
        }
    }
}
