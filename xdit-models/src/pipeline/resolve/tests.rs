use super::*;
use crate::files::config::ConfigFile;
use crate::models::flux::RULES;
use xdit_cfg::GuidancePlan;

fn defaults() -> Defaults {
    Defaults {
        height: 1024,
        width: 1024,
        num_inference_steps: 28,
        guidance_scale: 3.5,
        max_sequence_length: 512,
        scheduler: "FlowMatchEulerDiscreteScheduler",
    }
}

fn plan(request: &Request) -> Result<ResolvedRequest> {
    let config = |json: &str| ConfigFile::parse("config.json", json.as_bytes()).unwrap();
    let blocks = |block: &str| format!("[{}]", [block; 4].join(","));
    let vae = format!(
        r#"{{"block_out_channels": [128, 256, 512, 512], "latent_channels": 16, "down_block_types": {},
            "up_block_types": {}}}"#,
        blocks("\"DownEncoderBlock2D\""),
        blocks("\"UpDecoderBlock2D\"")
    );
    let defaults = defaults();
    let guide = Guide {
        embedded: 3.5,
        plan: GuidancePlan::default(),
        skipped: Vec::new(),
    };
    request.check()?;
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
    let plan = plan(&Request::new("a").height(70).width(100)).unwrap();
    assert_eq!((plan.height, plan.width), (64, 96));
    assert_eq!((plan.tokens, plan.latent_size), ([4, 6], [8, 12]));
    assert!(plan.warnings[0].contains("70") && plan.warnings[0].contains("64 × 96"));
}

#[test]
fn sigmas_are_numpys_linspace() {
    let plan = plan(&Request::new("a").num_inference_steps(3)).unwrap();
    let sigmas = vec![1.0, 1.0 + (1.0 / 3.0 - 1.0) / 2.0, 1.0 / 3.0];
    assert_eq!((plan.steps, plan.sigmas), (3, Some(sigmas)));
    let one = super::tests::plan(&Request::new("a").num_inference_steps(1)).unwrap();
    assert_eq!(one.sigmas, Some(vec![1.0]));
}

#[test]
fn what_cannot_be_done_names_its_argument() {
    let base = || Request::new("a");
    for (request, argument) in [
        (base().height(15), "height"),
        (base().max_sequence_length(513), "max_sequence_length"),
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

#[test]
fn a_completed_request_resolves_to_itself() {
    let request = Request::new(["a", "b"])
        .num_images_per_prompt(2)
        .height(70)
        .width(100);
    let resolved = plan(&request).unwrap();
    let defaults = defaults();
    let completed = resolved.completed(&request, &defaults);
    assert_eq!((completed.height, completed.width), (Some(64), Some(96)));
    assert_eq!(completed.exact_diffusers, Some(false));
    assert_eq!(completed.num_inference_steps, Some(28));
    let again = plan(&completed).unwrap();
    let twice = again.completed(&completed, &defaults);
    assert_eq!(format!("{twice:?}"), format!("{completed:?}"));
    assert!(again.warnings.is_empty());
}
