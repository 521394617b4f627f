//! Seeded random numbers.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// splitmix64 (Steele et al., "Fast Splittable Pseudorandom Number Generators", 2014).
#[derive(Debug)]
pub(super) struct Dice {
    state: AtomicU64,
    delay: Duration,
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Dice {
    pub(super) fn new(seed: u64, stream: usize, delay: Duration) -> Self {
        Self {
            state: AtomicU64::new(mix(seed ^ ODD.wrapping_mul(stream as u64 + 1))),
            delay,
        }
    }

    pub(super) fn roll(&self) -> u64 {
        mix(self.state.fetch_add(ODD, Ordering::Relaxed))
    }

    /// Two times of three nothing; else for up to the delay, so that others overtake.
    pub(super) fn pause(&self) {
        let (roll, most) = (self.roll(), self.delay.as_nanos() as u64);
        if roll % 3 == 0 && most > 0 {
            std::thread::sleep(Duration::from_nanos((roll >> 8) % most));
        }
    }

    /// The numbers below `n` in some order.
    pub(super) fn order(&self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, (self.roll() % (i as u64 + 1)) as usize);
        }
        order
    }
}
