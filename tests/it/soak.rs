//! The rig: a real daemon, a real broker, two cameras and a subscriber that counts, while everything around them fails by
//! a seed. Whatever was injected, every file and every answered trigger has exactly one verdict, and none is missing.
//!
//! `cargo test --test it whatever_fails -- --ignored --nocapture` injects each kind of failure once, in the order of `SOAK_SEED`;
//! `SOAK_SEED=7 SOAK_HOURS=8 cargo test --test it for_hours -- --ignored --nocapture` goes on.
//!
//! Where a small file system or a false clock cannot be had, the rig says so and injects the rest.

#![expect(clippy::print_stdout, reason = "whoever waits for hours wants to see what happens")]

mod balance;
mod heard;
mod inject;
mod plant;

use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use self::inject::Injection;
use self::plant::Plant;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants the machine to itself; `.ci/run` runs it after the others"]
async fn nothing_is_lost_whatever_fails() {
    run(seed(20_261_124), Endurance::Rounds(Injection::KINDS)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs for SOAK_HOURS, by default one"]
async fn nothing_is_lost_for_hours() {
    let hours = std::env::var("SOAK_HOURS").ok().and_then(|hours| hours.parse().ok()).unwrap_or(1.0);
    let seed = seed(jiff::Timestamp::now().as_second().cast_unsigned());
    run(seed, Endurance::Time(Duration::from_secs_f64(hours * 3600.0))).await;
}

fn seed(default: u64) -> u64 {
    std::env::var("SOAK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(default)
}

#[derive(Clone, Copy)]
enum Endurance {
    /// Every kind of injection once, in an order of the seed's, and further ones up to so many.
    Rounds(usize),
    /// Injections until the time is over.
    Time(Duration),
}

async fn run(seed: u64, endurance: Endurance) {
    println!("soak: seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut plant = Plant::start().await;
    let began = Instant::now();
    let mut order = Injection::shuffled(&mut random);
    for round in 1.. {
        let over = match endurance {
            Endurance::Rounds(rounds) => round > rounds,
            Endurance::Time(time) => began.elapsed() > time,
        };
        if over {
            break;
        }
        if order.is_empty() {
            order = Injection::shuffled(&mut random);
        }
        let injection = order.pop().unwrap();
        let done = plant.inject(injection, &mut random).await;
        println!("soak: {:>6.1} s  {round:>4}  {done}", began.elapsed().as_secs_f64());
        plant.sees_progress().await;
        if matches!(injection, Injection::BrokerKill) {
            // What came while the box had not subscribed again.
            plant.risk_what_is_open();
        }
    }
    let balance = plant.settle().await;
    println!("soak: {balance}");
    balance.assert_nothing_lost();
}
