use super::*;
use crate::files::config::ConfigFile;
use crate::models::flux::RULES;
use xdit_cfg::GuidancePlan;

fn plan(request: &Request) -> Result<ResolvedRequest> {
    let config = |json: &str| ConfigFile::parse("config.json", json.as_bytes()).unwrap();
    let blocks = |block: &str| format!("[{}]", [block; 4].join(","));
    let vae = format!(
        r#"{{"block_out_channels": [128, 256, 512, 512], "latent_channels": 16, "down_block_types": {},
            "up_block_types": {}}}"#,
        blocks("\"DownEncoderBlock2D\""),
        blocks("\"UpDecoderBlock2D\"")
    );
    let defaults = Defaults {
        height: 1024,
        width: 1024,
        num_inference_steps: 28,
        guidance_scale: 3.5,
        max_sequence_length: 512,
        scheduler: "FlowMatchEulerDiscreteScheduler",
    };
    let guide = Guide {
        embedded: 3.5,
        plan: GuidancePlan::default(),
        skipped: Vec::new(),
    };
    ResolvedRequest::new(
        request,
        &defaults,
        RULES,
        guide,
        &VaeConfig::read(&config(&vae))?,
    )
}

#[test]
fn sizes_are_floored_to_whole_tokens() {
    let plan = plan(&Request::new(["a"]).height(70).width(100)).unwrap();
    assert_eq!((plan.height, plan.width), (64, 96));
    assert_eq!((plan.tokens, plan.latent_size), ([4, 6], [8, 12]));
    assert!(plan.warnings[0].contains("70") && plan.warnings[0].contains("64 x 96"));
}

#[test]
fn sigmas_are_numpys_linspace() {
    let plan = plan(&Request::new(["a"]).num_inference_steps(3)).unwrap();
    let sigmas = vec![1.0, 1.0 + (1.0 / 3.0 - 1.0) / 2.0, 1.0 / 3.0];
    assert_eq!((plan.steps, plan.sigmas), (3, Some(sigmas)));
    let one = super::tests::plan(&Request::new(["a"]).num_inference_steps(1)).unwrap();
    assert_eq!(one.sigmas, Some(vec![1.0]));
}

#[test]
fn what_cannot_be_done_names_its_argument() {
    let base = || Request::new(["a"]);
    for (request, argument) in [
        (base().height(0), "height"),
        (base().height(15), "height"),
        (base().width(1_000_000), "width"),
        (base().width(usize::MAX), "width"),
        (base().num_inference_steps(0), "num_inference_steps"),
        (
            base().num_inference_steps(usize::MAX),
            "num_inference_steps",
        ),
        (base().sigmas([]), "sigmas"),
        (base().sigmas([f64::NAN]), "sigmas"),
        (base().num_images_per_prompt(0), "num_images_per_prompt"),
        (
            base().num_images_per_prompt(usize::MAX),
            "num_images_per_prompt",
        ),
        (base().seeds([1, 2]), "seed"),
        (base().seeds::<i128>([]), "seed"),
        (base().max_sequence_length(0), "max_sequence_length"),
        (base().max_sequence_length(513), "max_sequence_length"),
        (base().guidance_scale(f64::NAN), "guidance_scale"),
        (base().true_cfg_scale(f64::INFINITY), "true_cfg_scale"),
        (Request::new(["a".repeat(9 << 20)]), "prompt"),
        (base().prompt_2(["a".repeat(9 << 20)]), "prompt_2"),
        (base().prompt_3(["a".repeat(9 << 20)]), "prompt_3"),
    ] {
        let message = match plan(&request) {
            Ok(_) => panic!("{argument} was let through"),
            Err(error) => error.to_string(),
        };
        assert!(
            message.starts_with(&format!("`{argument}` = ")),
            "{message}"
        );
        assert!(message.len() < 300, "{message}");
    }
}
