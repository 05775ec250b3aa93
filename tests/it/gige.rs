//! A GigE Vision camera that is really there: a process of its own that serves drawn pictures over UDP, counts frames, and is
//! killed, paused and unplugged by the tests that look through it.
//!
//! In: what it is to look at and what is to go wrong. Out: packets on port 3956, and what was written into its registers. It
//! stands on the loopback address, of which there is one, so that tests take turns; or at the far end of a cable, in a network
//! namespace of its own. Where it cannot be had the test is skipped, saying why.

pub(crate) mod chart;
#[cfg(feature = "genicam")]
mod serve;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use inspectord::camera;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::inspectord::PATIENCE;

const LOOPBACK: &str = "127.0.0.1";
/// The camera process's orders.
const ORDERS: &str = "INSPECTORD_TEST_GIGE";
/// What its answers begin with; the test harness writes, too.
const ANSWER: &str = "gige> ";

static TURN: Mutex<()> = Mutex::new(());

/// What stands in front of the camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Scene {
    /// Parts of the simulated line, one after the other, as bright as the exposure time makes them.
    Line,
    /// The same part again and again, without noise.
    Frozen,
    /// [`chart::colour`].
    Chart,
}

/// How a camera comes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) serial: String,
    pub(crate) user_name: String,
    pub(crate) scene: Scene,
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Of a thousand packets, so many get lost.
    pub(crate) lost: u32,
    /// Where it answers, and its own folder: [`Gige`] knows.
    pub(crate) address: String,
    pub(crate) folder: String,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            serial: "LINE01".into(),
            user_name: String::new(),
            scene: Scene::Line,
            width: 320,
            height: 240,
            lost: 0,
            address: LOOPBACK.into(),
            folder: String::new(),
        }
    }
}

/// The camera; killed when dropped.
pub(crate) struct Gige {
    order: Order,
    process: Option<Child>,
    answers: Receiver<String>,
    cable: Option<Cable>,
    _turn: Option<MutexGuard<'static, ()>>,
    _folder: TempDir,
}

impl Gige {
    /// On the loopback address; none, with the reason printed, where it cannot be had.
    pub(crate) fn start(order: Order) -> Option<Self> {
        available()?;
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Self::place(order, None, Some(turn)))
    }

    /// At the far end of a cable.
    #[expect(clippy::print_stderr, reason = "a skipped test says why")]
    pub(crate) fn behind_cable(order: Order) -> Option<Self> {
        available()?;
        match Cable::lay() {
            Ok(cable) => Some(Self::place(Order { address: cable.far.clone(), ..order }, Some(cable), None)),
            Err(why) => {
                eprintln!("skipped: network namespaces cannot be had here: {why}");
                None
            }
        }
    }

    fn place(order: Order, cable: Option<Cable>, turn: Option<MutexGuard<'static, ()>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let order = Order { folder: folder.path().to_str().unwrap().to_owned(), ..order };
        let answers = channel().1;
        let mut camera = Self { order, process: None, answers, cable, _turn: turn, _folder: folder };
        camera.run();
        camera
    }

    pub(crate) fn address(&self) -> &str {
        &self.order.address
    }

    /// Powers it on, with everything forgotten that was written into it, and waits until it answers.
    pub(crate) fn run(&mut self) {
        let this = std::env::current_exe().unwrap();
        let mut command = match &self.cable {
            Some(cable) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &cable.namespace]).arg(this);
                command
            }
            None => Command::new(this),
        };
        command
            .args(["gige::serve::a_process_that_is_a_camera", "--exact", "--ignored", "--nocapture"])
            .env(ORDERS, serde_json::to_string(&self.order).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let (answer, answers) = channel();
        let told = BufReader::new(process.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in told.lines().map_while(Result::ok) {
                if let Some((_, text)) = line.split_once(ANSWER) {
                    let _nobody_asks_any_more = answer.send(text.to_owned());
                }
            }
        });
        (self.process, self.answers) = (Some(process), answers);
        assert_eq!(self.answer(), "serving");
    }

    /// Cuts its power.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// `STOP` has its firmware hang, `CONT` has it go on.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Counts `frames` that it never sends.
    pub(crate) fn skip(&mut self, frames: u32) {
        assert_eq!(self.ask(&format!("skip {frames}")), "done");
    }

    /// A signal on its line `Line1`.
    pub(crate) fn pulse(&mut self) {
        assert_eq!(self.ask("pulse"), "done");
    }

    /// Has it look at something else from the next frame on.
    pub(crate) fn show(&mut self, scene: Scene) {
        assert_eq!(self.ask(&format!("show {}", serde_json::to_string(&scene).unwrap())), "done");
    }

    /// What stands in a register.
    pub(crate) fn register(&mut self, address: u32) -> u32 {
        self.ask(&format!("read {address}")).parse().unwrap()
    }

    /// Pulls the cable, or plugs it in again.
    pub(crate) fn plug(&self, plugged: bool) {
        let cable = self.cable.as_ref().unwrap();
        ip(&["link", "set", &cable.near_end, if plugged { "up" } else { "down" }]).unwrap();
    }

    fn ask(&mut self, what: &str) -> String {
        let to = self.process.as_mut().unwrap().stdin.as_mut().unwrap();
        writeln!(to, "{what}").unwrap();
        self.answer()
    }

    fn answer(&self) -> String {
        self.answers.recv_timeout(PATIENCE).expect("the camera process answers")
    }
}

impl Drop for Gige {
    fn drop(&mut self) {
        self.kill();
    }
}

#[expect(clippy::print_stderr, reason = "a skipped test says why")]
fn available() -> Option<()> {
    if camera::HARDWARE.contains(&"genicam") {
        return Some(());
    }
    eprintln!("skipped: built without the feature `genicam`");
    None
}

/// A pair of network devices, one of them in a namespace of its own; removed when dropped.
struct Cable {
    namespace: String,
    near_end: String,
    /// The address at the far end.
    far: String,
}

impl Cable {
    fn lay() -> Result<Self, String> {
        static LAID: AtomicU32 = AtomicU32::new(0);
        // Test binaries of several checkouts may run at once: the process's number keeps their names and networks apart.
        let (process, cable) = (std::process::id(), LAID.fetch_add(1, Ordering::Relaxed));
        let network = format!("10.{}.{}", 64 + process / 60 % 60, (process % 60) * 4 + cable % 4);
        let (namespace, near_end) = (format!("gige-{process}-{cable}"), format!("gv{process}-{cable}"));
        let far_end = format!("{near_end}f");
        ip(&["netns", "add", &namespace])?;
        let laid = Self { namespace, near_end, far: format!("{network}.2") };
        let inside = |arguments: &[&str]| ip(&[&["-n", &laid.namespace], arguments].concat());
        ip(&["link", "add", &laid.near_end, "mtu", "9000", "type", "veth", "peer", "name", &far_end])?;
        ip(&["link", "set", &far_end, "mtu", "9000", "netns", &laid.namespace])?;
        ip(&["address", "add", &format!("{network}.1/24"), "dev", &laid.near_end])?;
        ip(&["link", "set", &laid.near_end, "up"])?;
        inside(&["address", "add", &format!("{}/24", laid.far), "dev", &far_end])?;
        inside(&["link", "set", "lo", "up"])?;
        inside(&["link", "set", &far_end, "up"])?;
        Ok(laid)
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // Its end goes with the namespace, and the near one with it.
        let _gone_already = ip(&["netns", "delete", &self.namespace]);
        let _gone_already = ip(&["link", "delete", &self.near_end]);
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let ran = Command::new("ip").args(arguments).stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
    if ran.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&ran.stderr).trim()))
}
