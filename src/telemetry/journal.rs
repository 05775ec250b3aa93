//! Log lines as journald wants them: the line as people read it, and each field again under a name of its own, so that
//! `journalctl -u inspectord CAMERA=top -p warning` finds them.
//!
//! One datagram per line, in journald's native protocol. A line that the journal does not take goes to standard error.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

const SOCKET: &str = "/run/systemd/journal/socket";
/// The longest value of a field; datagrams have a bound, and so has a reader's patience.
const MAX_VALUE: usize = 8 << 10;

/// A way to the journal.
#[derive(Debug)]
pub(super) struct Journal(UnixDatagram);

impl Journal {
    /// The journal, where standard error leads there anyway: systemd says so in `JOURNAL_STREAM`.
    pub(super) fn behind_stderr() -> Option<Self> {
        let stream = std::env::var("JOURNAL_STREAM").ok()?;
        let own = std::fs::metadata("/proc/self/fd/2").ok()?;
        if stream != format!("{}:{}", own.dev(), own.ino()) {
            return None;
        }
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect(SOCKET).ok()?;
        Some(Self(socket))
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let entry = line.entry(*event.metadata().level());
        if self.0.send(&entry).is_err() {
            let _nobody_reads = writeln!(std::io::stderr(), "{}", line.text());
        }
    }
}

/// What one event says.
#[derive(Default)]
struct Line {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Line {
    /// As people read it.
    fn text(&self) -> String {
        let mut text = self.message.clone();
        for (name, value) in &self.fields {
            let _infallible = write!(text, " {name}={value}");
        }
        text
    }

    /// As the journal takes it.
    fn entry(&self, level: Level) -> Vec<u8> {
        let priority = match level {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "6",
            Level::DEBUG | Level::TRACE => "7",
        };
        let mut entry = Vec::new();
        put(&mut entry, "PRIORITY", priority);
        put(&mut entry, "SYSLOG_IDENTIFIER", "inspectord");
        put(&mut entry, "MESSAGE", &self.text());
        for (name, value) in &self.fields {
            put(&mut entry, &field_name(name), value);
        }
        entry
    }

    fn add(&mut self, field: &Field, mut value: String) {
        value.truncate(value.floor_char_boundary(MAX_VALUE));
        match field.name() {
            "message" => self.message = value,
            name => self.fields.push((name, value)),
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }
}

/// Capital letters, digits and `_`, as journald allows.
fn field_name(name: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    name.chars().map(legal).collect::<String>().trim_start_matches('_').to_owned()
}

/// Adds a field; the length stands before the value, so that it may hold anything.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend(name.as_bytes());
    entry.push(b'\n');
    entry.extend((value.len() as u64).to_le_bytes());
    entry.extend(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn a_line_carries_its_fields_under_their_names() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let subscriber = tracing_subscriber::registry().with(Journal(ours));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(camera = %"top", error = "two\nlines", retry_in_ms = 5, "camera failed");
        });
        let mut entry = [0; 1024];
        let length = theirs.recv(&mut entry).unwrap();
        let mut expected = Vec::new();
        put(&mut expected, "PRIORITY", "4");
        put(&mut expected, "SYSLOG_IDENTIFIER", "inspectord");
        put(&mut expected, "MESSAGE", "camera failed camera=top error=two\nlines retry_in_ms=5");
        put(&mut expected, "CAMERA", "top");
        put(&mut expected, "ERROR", "two\nlines");
        put(&mut expected, "RETRY_IN_MS", "5");
        assert_eq!(String::from_utf8_lossy(&entry[..length]), String::from_utf8_lossy(&expected));
    }
}
