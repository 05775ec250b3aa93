//! The program under test: run to its end, or started and watched; never left behind.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long anything may take before the test fails; generous, since it is never waited for in full.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code; none when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Asserts the exit code, and that standard error names all of `parts`.
    #[track_caller]
    pub(crate) fn refuses(&self, code: i32, parts: &[&str]) {
        let told = format!("{}{}", self.stdout, self.stderr);
        assert_eq!(self.code, Some(code), "{told}");
        for part in parts {
            assert!(told.contains(part), "`{part}` is not in\n{told}");
        }
        assert!(!told.contains("panicked") && !told.contains("has a bug"), "{told}");
    }
}

/// The program, not yet started, without settings from this process's environment.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inspectord"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("INSPECTORD") || name == "NOTIFY_SOCKET" {
            command.env_remove(name);
        }
    }
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Has `wrapper` run what `command` would, with its environment and outputs.
pub(crate) fn wrapped(mut wrapper: Command, command: &Command) -> Command {
    wrapper.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapper.env(name, value),
            None => wrapper.env_remove(name),
        };
    }
    wrapper.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    wrapper
}

/// Runs the program to its end.
#[track_caller]
pub(crate) fn run(args: &[&str]) -> Ended {
    Running::start(command(args)).ended()
}

/// The program, running; killed when dropped.
pub(crate) struct Running {
    child: Child,
    stdout: Arc<Told>,
    stderr: Arc<Told>,
}

/// What the program has told so far on one of its outputs.
#[derive(Default)]
struct Told {
    state: Mutex<(String, bool)>,
    more: Condvar,
}

impl Told {
    fn listen(from: impl Read + Send + 'static) -> Arc<Self> {
        let told = Arc::new(Self::default());
        let teller = told.clone();
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while from.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                teller.state.lock().unwrap().0 += &String::from_utf8_lossy(&line);
                teller.more.notify_all();
                line.clear();
            }
            teller.state.lock().unwrap().1 = true;
            teller.more.notify_all();
        });
        told
    }

    fn text(&self) -> String {
        self.state.lock().unwrap().0.clone()
    }

    /// Waits until `found` finds something in what was told, or nothing more will come.
    fn wait<T>(&self, found: impl Fn(&str) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state.lock().unwrap();
        loop {
            if let Some(answer) = found(&state.0) {
                return Some(answer);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.1 || left.is_zero() {
                return None;
            }
            state = self.more.wait_timeout(state, left).unwrap().0;
        }
    }
}

impl Running {
    /// Starts the program.
    #[track_caller]
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = Told::listen(child.stdout.take().unwrap());
        let stderr = Told::listen(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    /// Waits for a line with `part` in the log.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, part: &str) -> String {
        let line = |text: &str| text.lines().find(|line| line.contains(part)).map(str::to_owned);
        let log = self.stderr.wait(line);
        log.unwrap_or_else(|| panic!("`{part}` was never logged:\n{}", self.stderr.text()))
    }

    /// Waits for a line with `part` on standard output.
    #[track_caller]
    pub(crate) fn wait_for_output(&self, part: &str) -> String {
        let line = |text: &str| text.lines().find(|line| line.contains(part)).map(str::to_owned);
        let output = self.stdout.wait(line);
        output.unwrap_or_else(|| panic!("`{part}` was never printed:\n{}", self.stdout.text()))
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, `TERM` or `KILL`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Tells the program to stop, and it does in order.
    #[track_caller]
    pub(crate) fn stops(self) {
        self.signal("TERM");
        assert_eq!(self.ended().code, Some(0));
    }

    /// Waits for the program's end.
    #[track_caller]
    pub(crate) fn ended(mut self) -> Ended {
        let status = self.wait();
        // The outputs end a moment after the program.
        for output in [&self.stdout, &self.stderr] {
            output.wait(|_| None::<()>);
        }
        Ended { code: status.code(), stdout: self.stdout.text(), stderr: self.stderr.text() }
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "still running after {PATIENCE:?}:\n{}", self.stderr.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _has_ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// `path` as an argument.
pub(crate) fn arg(path: &Path) -> &str {
    path.to_str().unwrap()
}
