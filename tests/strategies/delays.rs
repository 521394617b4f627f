//! Random delays at every send, receive and collective change nothing and block no rank.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use xdit_comm::{Backend, Call, Group, Result, Ticket, threads};
use xdit_kernels::Device;
use xdit_models::{Parallel, Pipeline};

use crate::engine::{
    SAME, apart, degrees, draw, golden, options, over, pipefusion, request, source,
};
use crate::hunyuandit;

/// A group whose every call starts late, and whose every wait does.
#[derive(Debug)]
struct Late {
    group: Group,
    seed: AtomicU64,
    most_us: u64,
}

impl Late {
    fn new(group: Group, seed: u64, most_us: u64) -> Self {
        Self {
            group,
            seed: AtomicU64::new(seed | 1),
            most_us,
        }
    }

    /// Sleeps for up to the limit, half of the time not at all.
    fn dawdle(&self) -> Duration {
        let mut x = self.seed.load(Ordering::Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.seed.store(x, Ordering::Relaxed);
        Duration::from_micros(if x & 64 == 0 {
            0
        } else {
            (x >> 8) % self.most_us
        })
    }
}

#[derive(Debug)]
struct LateTicket<T>(Box<dyn Ticket<T>>, Duration);

impl<T: std::fmt::Debug> Ticket<T> for LateTicket<T> {
    fn wait(self: Box<Self>) -> Result<T> {
        std::thread::sleep(self.1);
        self.0.wait()
    }
}

impl Backend for Late {
    fn rank(&self) -> usize {
        self.group.rank()
    }

    fn world_size(&self) -> usize {
        self.group.world_size()
    }

    fn device(&self) -> Option<&Device> {
        self.group.device()
    }

    fn receives_ahead(&self) -> bool {
        self.group.receives_ahead()
    }

    fn start(&self, batch: Vec<Call>) -> Result<Box<dyn Ticket>> {
        std::thread::sleep(self.dawdle());
        let ticket = self.group.backend().start(batch)?;
        Ok(Box::new(LateTicket(ticket, self.dawdle())))
    }

    fn start_control(
        &self,
        bytes: Vec<u8>,
        deadline: Option<Duration>,
    ) -> Result<Box<dyn Ticket<Vec<Vec<u8>>>>> {
        std::thread::sleep(self.dawdle());
        let ticket = self.group.backend().start_control(bytes, deadline)?;
        Ok(Box::new(LateTicket(ticket, self.dawdle())))
    }

    fn fail(&self, reason: &str) {
        self.group.backend().fail(reason);
    }

    fn progress(&self) -> Result<()> {
        self.group.progress()
    }

    fn split(&self, color: usize, key: usize) -> Result<Box<dyn Backend>> {
        let seed = self
            .seed
            .load(Ordering::Relaxed)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let group = self.group.split(color, key)?;
        Ok(Box::new(Self::new(group, seed ^ key as u64, self.most_us)))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn nothing_waits_for_ever(
        stages in 1usize..=4, ring in 1usize..=2, ulysses in 1usize..=2, patches in 1usize..=6,
        warmup in 0usize..3, steps in 1usize..5, refresh in any::<bool>(), seed in any::<u64>(),
        folded in any::<bool>(),
    ) {
        let mut parts = pipefusion(patches, warmup);
        if refresh {
            parts = parts.max_drift(0.05);
        }
        let (model, request) = match folded {
            true => (hunyuandit::MODEL, hunyuandit::request(hunyuandit::DPM, steps)),
            false => ("flux-dev", request().num_inference_steps(steps)),
        };
        let request = request.height(96);
        let axes = [1, stages, ring, ulysses];
        let prompt = draw(&over(golden(model), axes, parts.clone()), &request);
        let options_of_threads = threads::Options::deadline(Duration::from_secs(20));
        let outputs = threads::run_each(stages * ring * ulysses, options_of_threads, move |group| {
            let seed = seed.wrapping_add(group.rank() as u64 * 7919);
            let late = Group::new(Box::new(Late::new(group, seed, 400)));
            let parallel = Parallel::group(degrees(axes), late).pipefusion(parts.clone());
            let mut one = options();
            one.threads = Some(1);
            let told = |error: xdit_models::Error| xdit_comm::Error::Kernel(error.to_string());
            let pipe = Pipeline::load_over(&source(model), &one, parallel, &mut ()).map_err(told)?;
            pipe.generate(&request, &mut ()).map_err(told)
        });
        for output in outputs {
            let output = output.expect("no rank is lost");
            prop_assert!(apart(&output.latents.to_vec_blocking::<f32>().unwrap(), &prompt.latents.to_vec_blocking::<f32>().unwrap()) <= SAME);
            prop_assert_eq!(&output.pipefusion[0].whole, &prompt.pipefusion[0].whole);
        }
    }
}
