//! Topics: where each payload goes, and what an incoming topic means. Pure.
//!
//! Not here: payloads (`payload`, `request`), and whether a camera exists (`inbox`).

use crate::frame::CameraId;

/// The topics of one box.
#[derive(Debug, Clone)]
pub struct Topics {
    prefix: String,
}

/// What an incoming topic asks for. The camera's name is as it came, not yet checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inbound<'a> {
    /// The box's own status, come back.
    Status,
    /// A trigger for the camera of this name.
    Trigger(&'a str),
    /// A command for the camera of this name.
    Command(&'a str),
}

impl Topics {
    /// The topics below `prefix`, which has no `/` at its end.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// What they all begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether the box is there; retained, and the session's will.
    pub fn status(&self) -> String {
        format!("{}/status", self.prefix)
    }

    /// A camera's state; retained.
    pub fn state(&self, camera: &CameraId) -> String {
        self.below(camera, "state")
    }

    /// Every verdict of a camera.
    pub fn verdict(&self, camera: &CameraId) -> String {
        self.below(camera, "verdict")
    }

    /// Its verdicts that are not `ok`.
    pub fn alarm(&self, camera: &CameraId) -> String {
        self.below(camera, "alarm")
    }

    /// Where parts are announced to it.
    pub fn trigger(&self, camera: &CameraId) -> String {
        self.below(camera, "trigger")
    }

    /// Where it is told what to do.
    pub fn command(&self, camera: &CameraId) -> String {
        self.below(camera, "command")
    }

    /// Its answers to commands and to triggers that cannot be used.
    pub fn reply(&self, camera: &CameraId) -> String {
        self.below(camera, "reply")
    }

    /// What the session subscribes to: its own status, so that the order of a trigger and a new beginning is known, and
    /// the triggers and commands of all cameras, known or not, so that a wrong name gets an answer.
    pub(super) fn subscriptions(&self) -> [String; 3] {
        [self.status(), format!("{}/+/trigger", self.prefix), format!("{}/+/command", self.prefix)]
    }

    /// What a message on `topic` asks for; `None` for a topic that is none of ours.
    pub(super) fn parse<'a>(&self, topic: &'a str) -> Option<Inbound<'a>> {
        let rest = topic.strip_prefix(self.prefix.as_str())?.strip_prefix('/')?;
        match rest.split_once('/') {
            None if rest == "status" => Some(Inbound::Status),
            Some((camera, "trigger")) => Some(Inbound::Trigger(camera)),
            Some((camera, "command")) => Some(Inbound::Command(camera)),
            _ => None,
        }
    }

    fn below(&self, camera: &CameraId, leaf: &str) -> String {
        format!("{}/{camera}/{leaf}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_those_that_other_programs_rely_on() {
        let topics = Topics::new("inspectord/box-1");
        let camera = "top".parse().unwrap();
        assert_eq!(topics.status(), "inspectord/box-1/status");
        assert_eq!(topics.state(&camera), "inspectord/box-1/top/state");
        assert_eq!(topics.verdict(&camera), "inspectord/box-1/top/verdict");
        assert_eq!(topics.alarm(&camera), "inspectord/box-1/top/alarm");
        assert_eq!(topics.trigger(&camera), "inspectord/box-1/top/trigger");
        assert_eq!(topics.command(&camera), "inspectord/box-1/top/command");
        assert_eq!(topics.reply(&camera), "inspectord/box-1/top/reply");
    }

    #[test]
    fn an_incoming_topic_is_ours_only_as_a_whole() {
        let topics = Topics::new("a/b");
        assert_eq!(topics.parse("a/b/top/trigger"), Some(Inbound::Trigger("top")));
        assert_eq!(topics.parse("a/b/top/command"), Some(Inbound::Command("top")));
        assert_eq!(topics.parse("a/b//trigger"), Some(Inbound::Trigger("")));
        assert_eq!(topics.parse("a/b/status"), Some(Inbound::Status));
        for other in ["a/b", "a/bc/status", "a/b/top/trigger/x", "a/b/top", "x/a/b/status", "a/b/top/verdict"]
        {
            assert_eq!(topics.parse(other), None, "{other}");
        }
    }
}
