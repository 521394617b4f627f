//! f16 with values above 65504: the guards of transformers and diffusers.

use xdit_kernels::DType;
use xdit_models::Request;
use xdit_tests::changed::{Files, files, scaled};
use xdit_tests::goldens::Recorder;
use xdit_tests::psnr::{psnr, psnr_of_images};

use super::{call, run};

/// The largest magnitude among tensors whose names contain `part`.
fn largest(seen: &Recorder, part: &str) -> f32 {
    let tensors = seen.tensors.iter().filter(|(name, _)| name.contains(part));
    let values = tensors.flat_map(|(_, tensor)| tensor.to_vec_blocking::<f32>().unwrap());
    values.fold(0.0, |largest, value| value.abs().max(largest))
}

/// The pipeline with the tensors of this ending multiplied by the power of two with which what is called `shown` passes 7e4 in
/// f32, but not 1e6.
fn overflowing(
    model: &str,
    component: &str,
    ending: &str,
    shown: &str,
    request: &Request,
) -> Files {
    for power in 4..40 {
        let files = scaled(files(model), component, ending, 2.0_f32.powi(power));
        let (drawn, seen) = run(&files, DType::F32, request);
        drawn.expect("a picture in f32");
        let largest = largest(&seen, shown);
        if largest > 7e4 {
            assert!(largest < 1e6, "{model}: {largest}");
            return files;
        }
    }
    panic!("{model}: {shown} stays below 7e4");
}

/// transformers keeps `wo` of T5 and mT5 in f32 and clamps the stream: the picture is that of f32.
#[test]
fn a_t5_beyond_f16_draws_the_picture_of_f32() {
    for (model, t5, case) in [
        ("flux-dev", "text_encoder_2", "square"),
        ("sd35-medium", "text_encoder_3", "square"),
        ("hunyuan-v1.2", "text_encoder_2", "square"),
    ] {
        let request = call(model, case);
        let short = request.clone().num_inference_steps(1);
        let ending = "DenseReluDense.wo.weight";
        let files = overflowing(model, t5, ending, "t5.hidden_states", &short);
        let draw = |dtype| {
            let (drawn, seen) = run(&files, dtype, &request);
            let drawn = drawn.unwrap_or_else(|e| panic!("{model}, {dtype}: {e}"));
            let largest = largest(&seen, "t5.hidden_states");
            assert!(
                largest > 7e4 && largest.is_finite(),
                "{model}, {dtype}: {largest}"
            );
            (
                drawn
                    .float
                    .expect("a picture")
                    .to_vec_blocking::<f32>()
                    .unwrap(),
                drawn.images,
            )
        };
        let ((exact, bytes), (half, half_bytes)) = (draw(DType::F32), draw(DType::F16));
        let floats = psnr(&half, &exact);
        let bytes = psnr_of_images(&half_bytes[0], &bytes[0]);
        println!("{model}: {floats:.1} dB, {bytes:.1} dB between bytes");
        assert!(floats >= 60.0, "{model}: {floats:.1} dB from f32");
    }
}

/// diffusers clips Flux's text stream after its double blocks, and the joint stream after its single ones.
#[test]
fn flux_streams_beyond_f16_are_clipped() {
    for (ending, shown) in [
        (
            "transformer_blocks.0.ff_context.net.2.weight",
            "transformer_blocks.0.encoder_hidden_states",
        ),
        (
            "single_transformer_blocks.0.proj_out.weight",
            "single_transformer_blocks.0.",
        ),
    ] {
        let request = call("flux-dev", "blocks").num_inference_steps(1);
        let files = overflowing("flux-dev", "transformer", ending, shown, &request);
        let (drawn, seen) = run(&files, DType::F16, &request);
        drawn.unwrap_or_else(|e| panic!("{ending}: {e}"));
        assert_eq!(largest(&seen, shown), 65504.0, "{ending}");
    }
}
