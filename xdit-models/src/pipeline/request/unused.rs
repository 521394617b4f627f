//! Arguments that are given and change nothing: diffusers ignores them in silence; here a warning names each.

use super::fields::{OutputType, Request};

/// A warning for each argument that is given; none of them has an effect, because of `why`.
pub(crate) fn unused(given: &[(&str, bool)], why: &str) -> Vec<String> {
    let given = given.iter().filter(|(_, given)| *given);
    given
        .map(|(argument, _)| format!("`{argument}` has no effect: {why}"))
        .collect()
}

impl Request {
    /// The arguments that have no effect on any model.
    pub(crate) fn unused_everywhere(&self) -> Vec<String> {
        let steps = self.sigmas.as_ref().map(Vec::len);
        let other = self.num_inference_steps.is_some() && self.num_inference_steps != steps;
        let mut warnings = unused(
            &[("num_inference_steps", steps.is_some() && other)],
            "there are as many steps as `sigmas`",
        );
        warnings.extend(unused(
            &[(
                "vae_tiling",
                self.vae_tiling && self.output == OutputType::Latent,
            )],
            "latents are not decoded",
        ));
        warnings
    }

    /// The arguments that only classifier-free guidance by `guidance_scale` uses, for a call without it.
    pub(crate) fn unused_without_guidance(&self) -> Vec<String> {
        unused(
            &[
                ("negative_prompt", self.negative_prompt.is_some()),
                ("negative_prompt_2", self.negative_prompt_2.is_some()),
                ("negative_prompt_3", self.negative_prompt_3.is_some()),
                ("guidance_rescale", self.guidance_rescale != 0.0),
                (
                    "skip_guidance_layers",
                    !self.skip_guidance_layers.is_empty(),
                ),
            ],
            "there is no guidance, which needs a `guidance_scale` above 1",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::source::ModelSource;
    use crate::pipeline::options::LoadOptions;
    use crate::ranks::parallel::Parallel;

    fn golden(name: &str) -> ModelSource {
        let pipelines = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/pipelines");
        ModelSource::folder(format!("{pipelines}/{name}")).unwrap()
    }

    fn warnings(source: &ModelSource, request: &Request) -> Vec<String> {
        let options = LoadOptions {
            memory_limit: Some(u64::MAX),
            ..LoadOptions::default()
        };
        let plan = crate::Pipeline::plan(source, &options, request, &Parallel::default());
        plan.unwrap().warnings
    }

    /// The arguments that the plan's warnings name.
    fn named(source: &ModelSource, request: &Request) -> Vec<String> {
        let warnings = warnings(source, request);
        let named = warnings
            .iter()
            .map(|text| text.split('`').nth(1).unwrap_or(text));
        named.map(str::to_owned).collect()
    }

    fn small() -> Request {
        Request::new("a")
            .height(64)
            .width(64)
            .num_inference_steps(2)
    }

    #[test]
    fn each_is_named_where_it_has_no_effect_and_nowhere_else() {
        let negative = || small().negative_prompt(["b"]);
        let rescaled = negative().guidance_rescale(0.5);
        let skipping = small().skip_guidance_layers([1]);
        let [dev, schnell, sd3, hunyuan] =
            ["flux-dev", "flux-schnell", "sd35-medium", "hunyuan-v1.2"].map(golden);
        let nothing: &[&str] = &[];
        for (source, request, expected) in [
            (&dev, small().guidance_scale(7.0), nothing),
            (&schnell, small().guidance_scale(7.0), &["guidance_scale"]),
            (&schnell, small().guidance_scale(0.0), nothing),
            (&schnell, small(), nothing),
            (&dev, negative(), &["negative_prompt"]),
            (&dev, negative().true_cfg_scale(2.0), nothing),
            (&dev, small().true_cfg_scale(2.0), &["true_cfg_scale"]),
            (
                &dev,
                small().sigmas([1.0, 0.5, 0.2]),
                &["num_inference_steps"],
            ),
            (&dev, small().sigmas([1.0, 0.5]), nothing),
            (&sd3, negative(), nothing),
            (&sd3, negative().guidance_scale(1.0), &["negative_prompt"]),
            (
                &sd3,
                skipping.clone().guidance_scale(0.0),
                &["skip_guidance_layers"],
            ),
            // Of 2 steps none is in the first fifth.
            (&sd3, skipping.clone(), &["skip_guidance_layers"]),
            (&sd3, skipping.skip_layer_guidance(2.8, 0.0, 0.9), nothing),
            (&sd3, small().prompt_3(["c"]), nothing),
            (
                &sd3.clone().without_t5().unwrap(),
                small().prompt_3(["c"]),
                &["prompt_3"],
            ),
            (
                &hunyuan,
                rescaled.clone().use_resolution_binning(false),
                nothing,
            ),
            (
                &hunyuan,
                rescaled.guidance_scale(1.0).use_resolution_binning(false),
                &["negative_prompt", "guidance_rescale"],
            ),
            (
                &dev,
                small().vae_tiling(true).output(OutputType::Latent),
                &["vae_tiling"],
            ),
        ] {
            assert_eq!(named(source, &request), expected, "{request:?}");
        }
    }

    #[cfg(feature = "demo")]
    #[test]
    fn the_demo_says_what_it_was_not_made_for() {
        let demo = ModelSource::demo();
        let told = |request: &Request| warnings(&demo, request);
        let whole = || Request::new("a small red circle on a striped blue background");
        assert!(told(&whole()).is_empty());
        assert!(told(&whole().height(256).width(256)).is_empty());
        assert!(told(&whole().width(512))[0].contains("256 × 512"));
        assert!(told(&Request::new("a red circle, a Circle"))[0].contains("Circle"));
        let strange = Request::new(["a cat", "a red star"]).prompt_2(["a fluffy dog, a cat"]);
        assert!(
            told(&strange)[0].ends_with("cat, fluffy, dog"),
            "{:?}",
            told(&strange)
        );
        assert!(named(&golden("flux-dev"), &strange.height(64).width(64)).is_empty());
    }
}
