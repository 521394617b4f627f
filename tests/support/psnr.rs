//! How near two images are, and how near those in bf16 must be to those that diffusers draws in f32.

use xdit_kernels::{DType, Device};
use xdit_models::Image;

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

/// Peak signal to noise ratio in dB, of values in [0, 1] whose differences have this sum of squares.
fn decibels(squares: f64, count: usize) -> f64 {
    -10.0 * (squares / count as f64).log10()
}

fn squares(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
    a.iter().zip(b).map(square).sum()
}

/// Peak signal to noise ratio of values in [0, 1] in dB, infinite for equal ones.
///
/// # Panics
/// If there are not as many on both sides.
pub fn psnr(a: &[f32], b: &[f32]) -> f64 {
    decibels(squares(a, b), a.len())
}

/// The same of 8-bit images.
///
/// # Panics
/// If their sizes differ.
pub fn psnr_of_images(a: &Image, b: &Image) -> f64 {
    let [a, b] = [a, b].map(|image| -> Vec<f32> {
        let levels = image.rgb.iter();
        levels.map(|level| f32::from(*level) / 255.0).collect()
    });
    psnr(&a, &b)
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
        let squares = squares(&got, &want);
        let near = decibels(squares, got.len());
        println!("{near:.1} dB {pipeline} {case} on {device}");
        assert!(
            near >= NEAR_EACH,
            "{pipeline} {case} on {device}: {near:.1} dB"
        );
        (all, count) = (all + squares, count + got.len());
    }
    let near = decibels(all, count);
    println!("{near:.1} dB {pipeline} on {device}");
    assert!(
        near >= NEAR || cases.len() == 1,
        "{pipeline} on {device}: {near:.1} dB"
    );
}
