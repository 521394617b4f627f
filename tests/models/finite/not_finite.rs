//! Results that are not finite end a call, and the message names where they begin.

use xdit_kernels::{DType, Device, Tensor};
use xdit_models::Degrees;
use xdit_models::{Error, ErrorCategory, OutputType, Parallel, Request};
use xdit_tests::changed::{Files, files, huge, scaled, with_text};

use super::{call, load, run};

/// Pipelines, each with a part that gives NaN or infinity, and how the message names it.
fn broken() -> Vec<(Files, Request, &'static str)> {
    let scale = |model: &str, component: &str, ending: &str| {
        let request = call(model, "square").num_inference_steps(2);
        (huge(files(model), component, ending), request)
    };
    let named = |(files, request), named| (files, request, named);
    let transformer = "transformer, step 1 of 2 (timestep 1000), in the prediction";
    vec![
        named(
            scale("flux-dev", "text_encoder", "layers.0.mlp.fc2.weight"),
            "text_encoder, in the embeddings",
        ),
        named(
            scale(
                "flux-dev",
                "text_encoder_2",
                "block.0.layer.1.DenseReluDense.wo.weight",
            ),
            "text_encoder_2, in the embeddings",
        ),
        named(
            scale(
                "flux-dev",
                "transformer",
                "transformer_blocks.1.ff.net.2.weight",
            ),
            transformer,
        ),
        named(
            scale("flux-dev", "vae", "decoder.conv_out.weight"),
            "vae, in the pixels",
        ),
        named(
            scale("sd35-medium", "text_encoder_2", "layers.0.mlp.fc2.weight"),
            "text_encoder_2, in the embeddings",
        ),
        named(
            scale(
                "sd35-medium",
                "text_encoder_3",
                "block.0.layer.1.DenseReluDense.wo.weight",
            ),
            "text_encoder_3, in the embeddings",
        ),
        named(
            scale(
                "sd35-medium",
                "transformer",
                "transformer_blocks.0.ff.net.2.weight",
            ),
            transformer,
        ),
        named(
            scale(
                "hunyuan-v1.2",
                "text_encoder",
                "layer.0.output.dense.weight",
            ),
            "text_encoder, in the embeddings",
        ),
        named(
            scale(
                "hunyuan-v1.2",
                "text_encoder_2",
                "block.0.layer.1.DenseReluDense.wo.weight",
            ),
            "text_encoder_2, in the embeddings",
        ),
        named(
            scale("hunyuan-v1.2", "vae", "decoder.conv_out.weight"),
            "vae, in the pixels",
        ),
        // A prediction of 1e37 is multiplied by the noise level, 45.
        (
            with_text(
                scaled(
                    files("hunyuan-v1.2"),
                    "transformer",
                    "proj_out.weight",
                    1e37,
                ),
                "scheduler/scheduler_config.json",
                r#"{"_class_name": "DDPMScheduler", "beta_start": 0.00085, "beta_end": 0.018, "clip_sample": false,
                    "beta_schedule": "scaled_linear", "timestep_spacing": "trailing", "prediction_type": "epsilon"}"#,
            ),
            call("hunyuan-v1.2", "square")
                .num_inference_steps(2)
                .guidance_scale(1.0)
                .scheduler("EulerDiscreteScheduler"),
            "scheduler, step 1 of 2 (timestep 999), in the latents",
        ),
    ]
}

#[test]
fn the_component_where_it_begins_is_named() {
    for (files, request, named) in broken() {
        let (drawn, _) = run(&files, DType::F32, &request);
        let error = drawn.map(drop).expect_err(named);
        let message = error.to_string();
        assert_eq!(error.category(), ErrorCategory::NotFinite, "{message}");
        assert!(
            message.contains(&format!("begins in {named}; no dtype")),
            "{named}: {message}"
        );
        // The same for latents, but for what only pixels have.
        let (latents, _) = run(
            &files,
            DType::F32,
            &request.clone().output(OutputType::Latent),
        );
        assert_eq!(latents.is_ok(), named.starts_with("vae"), "{named}");
        // Who asks for it has the picture, and is told once.
        let (drawn, seen) = run(&files, DType::F32, &request.allow_non_finite(true));
        assert_eq!(drawn.expect(named).images.len(), 1);
        let told = seen
            .warnings
            .iter()
            .filter(|text| text.contains("not finite"));
        let told: Vec<_> = told.collect();
        assert!(
            told.len() == 1 && told[0].contains(named),
            "{named}: {told:?}"
        );
    }
}

#[test]
fn ranks_tell_the_same_cause() {
    let degrees = Degrees::default();
    for (model, degrees) in [
        (
            "flux-dev",
            Degrees {
                ulysses: 2,
                ..degrees
            },
        ),
        ("flux-dev", Degrees { pipe: 2, ..degrees }),
        ("hunyuan-v1.2", Degrees { cfg: 2, ..degrees }),
        ("flux-dev", Degrees { data: 2, ..degrees }),
    ] {
        let ending = match model {
            "flux-dev" => "transformer_blocks.1.ff.net.2.weight",
            _ => "blocks.0.ff.net.2.weight",
        };
        let images = degrees.data;
        let request = call(model, "square")
            .num_inference_steps(2)
            .num_images_per_prompt(images);
        for (component, ending, named) in [
            ("transformer", ending, "transformer, step 1 of 2"),
            ("vae", "decoder.conv_out.weight", "vae, in the pixels"),
        ] {
            let files = huge(files(model), component, ending);
            let pipe = load(&files, DType::F32, Parallel::threads(degrees));
            let error = pipe.generate(&request, &mut ()).map(drop).expect_err(named);
            let message = error.to_string();
            assert_eq!(error.category(), ErrorCategory::NotFinite, "{message}");
            assert!(message.contains(named), "{message}");
            assert!(images == 1 || message.contains("image "), "{message}");
            assert!(matches!(error, Error::Rank { .. }), "{message}");
        }
    }
}

#[test]
fn the_image_is_named() {
    let request = call("hunyuan-v1.2", "square").num_images_per_prompt(3);
    let (drawn, seen) = run(&files("hunyuan-v1.2"), DType::F32, &request);
    drawn.expect("a picture");
    let latents = &seen.tensors["latents"];
    let mut values = latents.to_vec_blocking::<f32>().unwrap();
    let one = values.len() / 3;
    values[one + 5] = f32::NAN;
    let request =
        request.latents(Tensor::from_slice(&values, latents.shape(), &Device::cpu()).unwrap());
    let (drawn, _) = run(&files("hunyuan-v1.2"), DType::F32, &request);
    let message = drawn.map(drop).expect_err("NaN").to_string();
    assert!(
        message.contains("begins in the given latents of image 2 of 3;"),
        "{message}"
    );
}
