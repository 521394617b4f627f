//! Counts the host reads in a denoising step, with every strategy: only those that the README of `xdit-models` lists.
//!
//! Each call adds the same number of reads outside its steps, so a call of more steps is compared with a call of fewer.

use xdit_kernels::{DType, Device};
use xdit_models::{Degrees, LoadOptions, OutputType, Parallel, PipeFusion, Pipeline, Request};

use crate::engine::{draw, options, pipefusion, request, source};

/// Pipelines of the three families, with a request that is guided by a negative prompt.
fn families() -> [(&'static str, Request); 3] {
    [
        (
            "flux-dev",
            request().negative_prompt(["green"]).true_cfg_scale(2.0),
        ),
        (
            "sd35-medium",
            request().negative_prompt(["green"]).guidance_scale(3.0),
        ),
        (
            "hunyuan-v1.2",
            Request::new(["一个红色的圆"])
                .negative_prompt(["green"])
                .guidance_scale(3.0)
                .height(144)
                .width(80)
                .use_resolution_binning(false)
                .output(OutputType::Latent),
        ),
    ]
}

/// A pipeline whose tensors are all on one device, and that device.
struct Counted {
    pipeline: Option<Pipeline>,
    device: Device,
}

impl Counted {
    fn load(name: &str, dtype: DType) -> Self {
        let device = Device::cpu();
        let options = LoadOptions {
            device: device.clone(),
            dtype,
            ..options()
        };
        let pipeline = Pipeline::load(&source(name), &options, &mut ()).expect("a pipeline");
        Self {
            pipeline: Some(pipeline),
            device,
        }
    }

    fn reads(&self, request: &Request) -> u64 {
        let before = self.device.host_reads();
        draw(self.pipeline.as_ref().expect("a pipeline"), request);
        self.device.host_reads() - before
    }

    /// Reads that a step adds over these ranks, when all but the first step are like it.
    fn reads_per_step(&mut self, degrees: Degrees, options: PipeFusion, request: &Request) -> u64 {
        let parallel = Parallel::threads(degrees).pipefusion(options);
        let pipeline = self.pipeline.take().expect("a pipeline");
        self.pipeline = Some(pipeline.parallel(parallel).expect("a legal plan"));
        let [few, many] = [3, 5].map(|steps| {
            let request = request.clone().num_inference_steps(steps);
            self.reads(&request)
        });
        let added = many - few;
        assert!(
            added.is_multiple_of(2),
            "two steps like each other add {added} reads"
        );
        added / 2
    }
}

/// One read of each rank that steps latents: whether all of a step's numbers are finite.
#[test]
fn steps_read_whether_all_is_finite_and_nothing_else() {
    for (name, request) in families() {
        let mut counted = Counted::load(name, DType::F32);
        let one = Degrees::default();
        for (strategy, degrees, options, samplers) in [
            ("one rank", one, pipefusion(1, 1), 1),
            (
                "Ulysses",
                Degrees { ulysses: 2, ..one },
                pipefusion(1, 1),
                2,
            ),
            ("Ring", Degrees { ring: 2, ..one }, pipefusion(1, 1), 2),
            (
                "PipeFusion",
                Degrees { pipe: 2, ..one },
                pipefusion(3, 1),
                1,
            ),
            ("CFG", Degrees { cfg: 2, ..one }, pipefusion(1, 1), 2),
        ] {
            let reads = counted.reads_per_step(degrees, options, &request);
            assert_eq!(reads, samplers, "{name}, {strategy}");
        }
    }
}

/// With a limit of drift each rank reads its drift at the end of a step.
#[test]
fn a_limit_of_drift_is_one_read_more_on_each_rank() {
    let [_, (name, request), _] = families();
    let degrees = Degrees {
        pipe: 2,
        ..Degrees::default()
    };
    let options = pipefusion(3, 1).max_drift(1e9);
    let reads = Counted::load(name, DType::F32).reads_per_step(degrees, options, &request);
    assert_eq!(reads, 1 + 2);
}

/// The rescale of guidance divides by a deviation over the whole image: the sums of each patch are read.
#[test]
fn the_rescale_of_guidance_is_one_read_more_for_each_patch() {
    let [.., (name, request)] = families();
    let request = request.guidance_rescale(0.7);
    let mut counted = Counted::load(name, DType::F32);
    for (patches, more) in [(1, 1), (3, 3)] {
        let reads = counted.reads_per_step(Degrees::default(), pipefusion(patches, 1), &request);
        assert_eq!(reads, 1 + more, "{patches} patches");
    }
}

/// Histories, fresh noise and inputs that are divided stay on the device; so do limits of f16.
#[test]
fn no_scheduler_and_no_dtype_reads_more() {
    let [(flux, of_flux), _, (hunyuan, of_hunyuan)] = families();
    let mut counted = Counted::load(hunyuan, DType::F32);
    for scheduler in [
        "DDPMScheduler",
        "DDIMScheduler",
        "DPMSolverMultistepScheduler",
        "EulerDiscreteScheduler",
    ] {
        let request = of_hunyuan.clone().scheduler(scheduler);
        let reads = counted.reads_per_step(Degrees::default(), pipefusion(1, 1), &request);
        assert_eq!(reads, 1, "{scheduler}");
    }
    let mut halves = Counted::load(flux, DType::F16);
    let reads = halves.reads_per_step(Degrees::default(), pipefusion(1, 1), &of_flux);
    assert_eq!(reads, 1, "f16");
}
