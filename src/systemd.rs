//! What the service manager is told: ready, status, signs of life, stopping. Outside systemd nothing happens.
//!
//! The watchdog is to be fed by whoever sees the lines make progress, never by a timer of its own: a daemon that hangs
//! is to be restarted. Not here: judging that progress (`pipeline`), the unit itself (`systemd/inspectord.service`).

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

use crate::telemetry::chain;

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
        let microseconds = u32::try_from(longest.as_micros()).unwrap_or(u32::MAX);
        self.tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(microseconds)]);
    }

    fn tell(&self, state: &[NotifyState<'_>]) {
        // A service manager that does not listen is no reason to stop inspecting.
        if let Err(e) = sd_notify::notify(state) {
            warn!(error = %chain(&e), "the service manager cannot be told");
        }
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
