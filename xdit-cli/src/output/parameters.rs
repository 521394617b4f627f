//! The text about a run in its PNG for people and their tools: AUTOMATIC1111's `parameters` (prompt, `Negative prompt: …`, one
//! line of settings).

use crate::output::record::RunRecord;

impl RunRecord {
    /// AUTOMATIC1111's `parameters`.
    pub(crate) fn parameters(&self) -> String {
        let request = &self.request;
        let prompt_index = self.image / request.num_images_per_prompt.max(1);
        let prompt = pick(&request.prompt, prompt_index).map_or("", String::as_str);
        let mut text = format!("{prompt}\n");
        // The others have no other guidance than this; Flux is told its own beside it.
        let guidance_scale = request.guidance_scale.unwrap_or_default();
        let (cfg_scale, told) = match self.model.class.as_str() {
            "StableDiffusion3Pipeline" | "HunyuanDiTPipeline" => (guidance_scale, None),
            _ => (request.true_cfg_scale, Some(guidance_scale)),
        };
        if cfg_scale > 1.
            && let Some(negative) = request.negative_prompt.as_ref()
            && let Some(negative) = pick(negative, prompt_index)
        {
            text += &format!("Negative prompt: {negative}\n");
        }
        let several_seeds = request.seeds.len() > 1;
        let seed = pick(&request.seeds, if several_seeds { self.image } else { 0 })
            .copied()
            .unwrap_or_default();
        text += &format!(
            "Steps: {}, Sampler: {}, CFG scale: {cfg_scale}, ",
            request.num_inference_steps.unwrap_or_default(),
            sampler(request.scheduler.as_deref()),
        );
        if let Some(guidance) = told {
            text += &format!("Guidance: {guidance}, ");
        }
        let [width, height] = [request.width, request.height].map(Option::unwrap_or_default);
        text += &format!("Seed: {seed}, Size: {width}x{height}, ");
        if request.clip_skip > 0 {
            // There the last layer that is always left out counts too.
            text += &format!("Clip skip: {}, ", request.clip_skip + 1);
        }
        if self.images > 1 && !several_seeds {
            text += &format!("Batch size: {}, Batch pos: {}, ", self.images, self.image);
        }
        let digest = self.model.digest.get(..10).unwrap_or(&self.model.digest);
        text += &format!(
            "Model hash: {digest}, Model: {}, Version: {}",
            short_name(&self.model.name),
            self.version
        );
        text
    }
}

/// What others call a sampler.
fn sampler(scheduler: Option<&str>) -> &str {
    match scheduler {
        Some("DDPMScheduler") => "DDPM",
        Some("DDIMScheduler") => "DDIM",
        Some("DPMSolverMultistepScheduler") => "DPM++ 2M",
        Some("EulerDiscreteScheduler") | None => "Euler",
        Some(other) => other,
    }
}

/// The item of one for all, or of one for each.
fn pick<T>(items: &[T], index: usize) -> Option<&T> {
    items.get(if items.len() == 1 { 0 } else { index })
}

/// The last part of a path or hub id, without what would break the line of settings.
fn short_name(model: &str) -> String {
    let name = model
        .trim_end_matches(['/', '\\'])
        .rsplit(['/', '\\'])
        .next();
    name.unwrap_or(model).replace([',', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use crate::output::record::tests::record;

    #[test]
    fn parameters_as_others_read_them() {
        let mut record = record();
        assert_eq!(
            record.parameters(),
            "b\nNegative prompt: blurry\nSteps: 28, Sampler: Euler, CFG scale: 1.5, Guidance: 3.5, \
             Seed: 18446744073709551615, Size: 1024x512, Batch size: 4, Batch pos: 2, Model hash: 0123456789, \
             Model: FLUX.1-dev, Version: xdit-rs 0.1.0"
        );
        record.request.seeds = vec![1, 2, 3, 4];
        record.request.true_cfg_scale = 1.;
        let text = record.parameters();
        assert!(
            text.contains("Seed: 3,") && !text.contains("Batch") && !text.contains("Negative"),
            "{text}"
        );
        record.model.class = "StableDiffusion3Pipeline".into();
        record.request.clip_skip = 1;
        let text = record.parameters();
        let told = "\nNegative prompt: blurry\nSteps: 28, Sampler: Euler, CFG scale: 3.5, Seed: 3, Size: 1024x512, Clip skip: 2, ";
        assert!(text.contains(told), "{text}");
        record.model.class = "HunyuanDiTPipeline".into();
        record.request.scheduler = Some("DPMSolverMultistepScheduler".into());
        let text = record.parameters();
        assert!(
            text.contains("Sampler: DPM++ 2M, CFG scale: 3.5, Seed: 3,"),
            "{text}"
        );
    }
}
