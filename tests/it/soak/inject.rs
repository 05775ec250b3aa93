//! What goes wrong: the kinds of injection, and carrying one out.

use std::time::Duration;

use rand::Rng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use tokio::time::sleep;

use super::plant::Plant;
use crate::proxy::Mode;

#[derive(Debug, Clone, Copy)]
pub(super) enum Injection {
    /// SIGKILL, and another start.
    Kill,
    /// SIGTERM, and another start.
    Restart,
    /// SIGSTOP for a while, then SIGCONT.
    Freeze,
    /// The broker is killed and comes back.
    BrokerKill,
    /// The network between box and broker is cut.
    NetworkCut,
    /// The network swallows what it is given.
    NetworkSwallow,
    /// The network is slow.
    NetworkDelay,
    /// The store's disk has no byte left.
    DiskFull,
    /// The same, and SIGKILL meanwhile.
    DiskFullKill,
    /// The camera's folder is away.
    CameraLoss,
    /// UTC jumps.
    ClockJump,
}

impl Injection {
    /// How many kinds there are.
    pub(super) const KINDS: usize = Self::ALL.len();
    const ALL: [Self; 11] = [
        Self::Kill,
        Self::Restart,
        Self::Freeze,
        Self::BrokerKill,
        Self::NetworkCut,
        Self::NetworkSwallow,
        Self::NetworkDelay,
        Self::DiskFull,
        Self::DiskFullKill,
        Self::CameraLoss,
        Self::ClockJump,
    ];

    /// One of each, in an order of `random`'s.
    pub(super) fn shuffled(random: &mut ChaCha8Rng) -> Vec<Self> {
        let mut all = Self::ALL.to_vec();
        all.shuffle(random);
        all
    }
}

impl Plant {
    /// Makes it happen, and undoes it; tells what was done.
    pub(super) async fn inject(&mut self, injection: Injection, random: &mut ChaCha8Rng) -> String {
        let milliseconds: u64 = random.random_range(50..1500);
        let while_it_lasts = Duration::from_millis(milliseconds);
        match injection {
            Injection::Kill => {
                // At any instant, so from the seed too.
                sleep(while_it_lasts / 8).await;
                self.kill();
                self.start_daemon().await;
                "the daemon was killed".into()
            }
            Injection::Restart => {
                self.stop_daemon();
                self.start_daemon().await;
                "the daemon was restarted".into()
            }
            Injection::Freeze => {
                self.daemon().signal("STOP");
                sleep(while_it_lasts).await;
                self.daemon().signal("CONT");
                format!("the daemon was frozen for {milliseconds} ms")
            }
            Injection::BrokerKill => {
                self.risk_what_is_open();
                self.broker.kill();
                sleep(while_it_lasts).await;
                self.broker.run().await;
                format!("the broker was killed and away for {milliseconds} ms")
            }
            Injection::NetworkCut => self.network(Mode::Cut, while_it_lasts).await,
            Injection::NetworkSwallow => {
                let done = self.network(Mode::Swallow, while_it_lasts).await;
                // What was swallowed is missing from the stream: nobody may go on with it.
                self.proxy.sever();
                done
            }
            Injection::NetworkDelay => {
                let delay = Duration::from_millis(random.random_range(20..300));
                self.network(Mode::Pass(delay), while_it_lasts).await
            }
            Injection::DiskFull | Injection::DiskFullKill => {
                let Some(filled) = self.disk.fill() else {
                    return format!(
                        "{injection:?} was left out: {}",
                        self.disk.why_not().unwrap_or_default()
                    );
                };
                sleep(while_it_lasts).await;
                let killed = matches!(injection, Injection::DiskFullKill);
                if killed {
                    self.kill();
                }
                self.disk.make_room();
                if killed {
                    self.start_daemon().await;
                }
                let and = if killed { ", and the daemon killed" } else { "" };
                format!("the disk was full for {milliseconds} ms by {} KiB{and}", filled >> 10)
            }
            Injection::CameraLoss => {
                self.take_camera_away();
                sleep(while_it_lasts).await;
                self.bring_camera_back();
                format!("the camera was lost for {milliseconds} ms")
            }
            Injection::ClockJump => {
                let hours: i64 = random.random_range(-72..=72);
                match self.jump_clock(hours) {
                    Ok(()) => format!("the clock jumped to {hours} h from now"),
                    Err(why) => format!("ClockJump was left out: {why}"),
                }
            }
        }
    }

    async fn network(&mut self, mode: Mode, while_it_lasts: Duration) -> String {
        self.proxy.set(mode);
        sleep(while_it_lasts).await;
        self.proxy.set(Mode::Pass(Duration::ZERO));
        format!("the network was {mode:?} for {} ms", while_it_lasts.as_millis())
    }
}
