//! System calls that come late or fail, since the test says so: strace tampers with the program's own and lets go of it again.
//! Where there is no strace or it may not trace, what needs it is left out and says so.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::inspectord::{Running, wrapped};

/// strace, attached to a process; lets go of it when dropped.
pub(crate) struct Tampering(Child);

impl Tampering {
    /// Tampers with `calls` of the daemon as strace's `how` says.
    pub(crate) fn with(daemon: &Running, calls: &str, how: &str) -> Result<Self, String> {
        let mut command = strace(calls, how);
        command.args(["-p", &daemon.id().to_string()]).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("there is no strace: {error}"))?;
        let mut said = String::new();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let _ended = stderr.read_line(&mut said);
        // It goes on telling of threads that come and go.
        std::thread::spawn(move || stderr.lines().for_each(drop));
        if !said.contains("attached") {
            let _has_ended = child.kill();
            let _reaped = child.wait();
            return Err(format!("strace may not attach: {said}"));
        }
        Ok(Self(child))
    }
}

impl Drop for Tampering {
    fn drop(&mut self) {
        // Killed otherwise, it would leave the daemon stopped.
        let _ended = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        let _reaped = self.0.wait();
    }
}

/// `command`, with `calls` of its process tampered with from its first one on.
pub(crate) fn from_the_start(command: &Command, calls: &str, how: &str) -> Result<Command, String> {
    let works = strace(calls, how).arg("true").stdin(Stdio::null()).stderr(Stdio::null()).status();
    if !works.map_err(|error| format!("there is no strace: {error}"))?.success() {
        return Err("strace may not trace".into());
    }
    let mut tampered = strace(calls, how);
    // As a grandchild: the process that the test starts, signals and waits for is the program.
    tampered.arg("--daemonize=grandchild");
    Ok(wrapped(tampered, command))
}

fn strace(calls: &str, how: &str) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-o", "/dev/null"]);
    command.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{how}")]);
    command
}
