//! Pictures over ranks, compared with those of one rank.

use std::time::Duration;

use xdit_kernels::{DType, Device};
use xdit_models::{Degrees, Parallel, PipeFusion, Request};

use crate::golden_run::load;
use crate::goldens::max_abs;

/// Of pixels in [0, 1]: f32 in other orders of sums, through a transformer and a decoder with random weights.
pub const SAME: f64 = 1e-4;

/// How long a rank may wait for another one. An interpreter of GPU kernels on a busy machine is slow, but not stuck.
const LONG: Duration = Duration::from_secs(3600);

/// The values of the pictures that ranks of these degrees draw with a golden pipeline.
///
/// # Panics
/// If the plan is not legal, or the call fails.
pub fn pictures(
    pipeline: &str,
    device: &Device,
    request: &Request,
    degrees: Degrees,
    options: PipeFusion,
    bands: bool,
) -> Vec<f32> {
    let parallel = Parallel::threads(degrees).pipefusion(options).vae(bands);
    let parallel = parallel.deadline(LONG);
    let (pipe, _) = load(pipeline, DType::F32, device);
    let pipe = pipe.parallel(parallel).expect("a legal plan");
    let output = pipe.generate(request, &mut ());
    let output =
        output.unwrap_or_else(|error| panic!("{pipeline}, {degrees} on {device}: {error}"));
    output
        .float
        .expect("pictures")
        .to_vec_blocking::<f32>()
        .expect("values")
}

/// Draws pictures over ranks of these degrees and by one rank, with the same patches; only `bands` decode by bands.
///
/// # Panics
/// If they differ.
pub fn same_as_one_rank(
    pipeline: &str,
    device: &Device,
    request: &Request,
    degrees: Degrees,
    options: PipeFusion,
    bands: bool,
) {
    let one = Degrees::default();
    let alone = pictures(pipeline, device, request, one, options.clone(), false);
    let spread = alone
        .iter()
        .fold([1.0f32, 0.0], |[low, high], x| [low.min(*x), high.max(*x)]);
    assert!(
        spread[1] - spread[0] >= 0.1,
        "there is something in them: {spread:?}"
    );
    let over = pictures(pipeline, device, request, degrees, options, bands);
    let off = max_abs(&over, &alone);
    println!("{off:9.2e} {pipeline}, {degrees} on {device}");
    assert!(off <= SAME, "{pipeline}, {degrees} on {device}: {off:e}");
}
