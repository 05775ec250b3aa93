//! What the service manager is told: ready, status, signs of life, stopping. Outside systemd nothing happens.
//!
//! The watchdog is to be fed by whoever sees the lines make progress, never by a timer of its own: a daemon that hangs
//! is to be restarted. Not here: judging that progress (`pipeline`), the unit itself (`systemd/inspectord.service`).

use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tracing::warn;

use crate::shutdown::Shutdown;
use crate::telemetry::chain;

/// How often more time is asked for while the daemon starts; a third of what is asked for.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// A disk that reads a damaged journal for longer than this is given up.
const LONGEST_START: Duration = Duration::from_secs(1800);

/// The service manager, if there is one.
#[derive(Debug, Clone)]
pub struct Systemd {
    watchdog: Option<Duration>,
}

impl Systemd {
    /// What the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`.
    pub fn from_environment() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) }
    }

    /// Does `work`, which belongs to the start, and for half an hour has nobody take its length for a fault.
    pub fn patiently<T>(&self, work: impl FnOnce() -> T) -> T {
        let over = Shutdown::new();
        let began = Instant::now();
        std::thread::scope(|scope| {
            let ask = || {
                while !over.sleep(ASK_EVERY) && began.elapsed() < LONGEST_START {
                    self.tell(&[extension(3 * ASK_EVERY)]);
                }
            };
            // Without it the start must be over in time, as most are.
            let _asking = std::thread::Builder::new().name("starting".into()).spawn_scoped(scope, ask);
            let _ends = Requested(&over);
            work()
        })
    }

    /// The daemon is ready: its cameras' lines run and it listens for triggers.
    pub fn notify_ready(&self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// One line for `systemctl status`.
    pub fn status(&self, line: &str) {
        let line = line.replace('\n', " ");
        self.tell(&[NotifyState::Status(&line)]);
    }

    /// How often [`Systemd::feed`] is to be called at least, half of what the unit allows; none without a watchdog.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    /// A sign of life.
    pub fn feed(&self) {
        if self.watchdog.is_some() {
            self.tell(&[NotifyState::Watchdog]);
        }
    }

    /// The daemon is stopping and may take `longest` to bring its work to an end.
    pub fn stopping(&self, longest: Duration) {
        self.tell(&[NotifyState::Stopping, extension(longest)]);
    }

    fn tell(&self, state: &[NotifyState<'_>]) {
        // A service manager that does not listen is no reason to stop inspecting.
        if let Err(e) = sd_notify::notify(state) {
            warn!(error = %chain(&e), "the service manager cannot be told");
        }
    }
}

fn extension(time: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(time.as_micros()).unwrap_or(u32::MAX))
}

/// Requests when it is dropped, also by a panic.
struct Requested<'a>(&'a Shutdown);

impl Drop for Requested<'_> {
    fn drop(&mut self) {
        self.0.request();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_fed_twice_as_often_as_it_must_be() {
        assert_eq!(Systemd { watchdog: None }.watchdog_interval(), None);
        let limit = Some(Duration::from_secs(20));
        assert_eq!(Systemd { watchdog: limit }.watchdog_interval(), Some(Duration::from_secs(10)));
    }

    #[test]
    fn outside_systemd_nothing_happens() {
        let systemd = Systemd { watchdog: None };
        systemd.notify_ready();
        systemd.feed();
        systemd.status("one\ntwo");
        systemd.stopping(Duration::from_secs(10));
        assert_eq!(systemd.patiently(|| 7), 7);
    }

    #[test]
    fn a_start_that_panics_ends() {
        let systemd = Systemd { watchdog: None };
        let ended = std::panic::catch_unwind(|| systemd.patiently(|| panic!("at once")));
        assert!(ended.is_err());
    }

    #[test]
    fn the_unit_lets_cameras_be_found_and_outlives_a_retraining_that_the_kernel_takes() {
        let unit = include_str!("../systemd/inspectord.service");
        let has = |key: &str, value: &str| {
            let of = |line: &&str| line.strip_prefix(key).is_some_and(|rest| rest.starts_with('='));
            unit.lines().filter(of).any(|line| line.split(['=', ' ']).any(|word| word == value))
        };
        assert!(has("RestrictAddressFamilies", "AF_NETLINK"), "networks cannot be listed");
        assert!(has("IPAddressAllow", "255.255.255.255"), "GigE cameras cannot be called out to");
        assert!(has("OOMPolicy", "continue"));
    }
}
