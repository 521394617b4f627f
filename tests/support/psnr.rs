//! Images in bf16, and how near they must be to those that diffusers draws in f32.

use xdit_kernels::{DType, Device};

use crate::golden_run::load;
use crate::goldens::Golden;

/// dB of all values of a pipeline's recorded images together. In bf16 every activation is rounded to 8 bits (4e-3 of its
/// size), which goes through up to five blocks, six steps and the decoder; at 40 dB the mean error is 1 % of the range, where
/// a difference is hard to see. It is what the project promises for the demo in bf16.
const NEAR: f64 = 40.0;
/// dB of a single one. Guidance multiplies rounding with what it multiplies, and random weights damp nothing: diffusers' own
/// bf16, which also rounds latents after every step, is at 38.0 dB for `skip_window` of SD3.5. How roundings add up there is
/// luck. In the four tiers of x86-64 this case is at 36.3 to 42.3 dB, and the worst, `square` of HunyuanDiT 1.1, at 35.7 to 38.8.
const NEAR_EACH: f64 = 34.0;

/// In dB, of values in [0, 1].
fn psnr(squares: f64, count: usize) -> f64 {
    -10.0 * (squares / count as f64).log10()
}

/// Draws recorded calls of a pipeline in bf16.
///
/// # Panics
/// If one fails, or an image is not near enough: a single one, or all together where there are several.
pub fn near_in_bf16(pipeline: &str, device: &Device, cases: &[(String, Golden)]) {
    let (pipe, family) = load(pipeline, DType::BF16, device);
    let (mut all, mut count) = (0.0, 0);
    for (case, golden) in cases {
        let output = pipe.generate(&family.request(golden), &mut ());
        let output =
            output.unwrap_or_else(|error| panic!("{pipeline} {case} on {device}: {error}"));
        let (_, want) = golden.f32("image");
        let got = output.float.expect("an image");
        let got = got.to_vec_blocking::<f32>().expect("values");
        assert_eq!(got.len(), want.len());
        let squares = got.iter().zip(&want).map(|(g, w)| f64::from(g - w).powi(2));
        let squares: f64 = squares.sum();
        let near = psnr(squares, got.len());
        println!("{near:.1} dB {pipeline} {case} on {device}");
        assert!(
            near >= NEAR_EACH,
            "{pipeline} {case} on {device}: {near:.1} dB"
        );
        (all, count) = (all + squares, count + got.len());
    }
    let near = psnr(all, count);
    println!("{near:.1} dB {pipeline} on {device}");
    assert!(
        near >= NEAR || cases.len() == 1,
        "{pipeline} on {device}: {near:.1} dB"
    );
}
