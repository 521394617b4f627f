//! What a PNG says about the run that made it: a text for people and their tools, and a record to repeat it from.
//!
//! The text is AUTOMATIC1111's `parameters` (prompt, `Negative prompt: …`, one line of settings); the record is one
//! JSON object under the key `xdit`.

use serde::{Deserialize, Serialize};
use xdit_comm::Degrees;
use xdit_models::{Parallel, PipeFusion, RunPlan};

use crate::pipefusion::PipeFusionRecord;

/// The version of the record that this program writes.
pub(crate) const FORMAT: u32 = 1;

/// Everything that decides the pixels of one image.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct RunRecord {
    /// [`FORMAT`].
    pub format: u32,
    /// The program and its version.
    pub version: String,
    /// The pipeline.
    pub model: ModelRecord,
    /// diffusers' call arguments, as they were used (no default left open).
    pub request: RequestRecord,
    /// Of weights and activations.
    pub dtype: String,
    /// `cpu`.
    pub device: String,
    /// The instruction tier; others differ in the last bits.
    pub tier: String,
    /// How each image was shared out among ranks, if it was: sums in another order differ in the last bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<ParallelRecord>,
    /// Which image of the batch this is, from 0.
    pub image: usize,
    /// Images in the batch.
    pub images: usize,
}

/// Which pipeline made an image.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct ModelRecord {
    /// As `--model` was given: a folder, a hub id, or `demo`.
    pub name: String,
    /// The hub's commit, or the branch or tag that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// `--variant`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Whether the optional T5 was left out (`--no-t5`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_t5: bool,
    /// The pipeline's class in diffusers.
    pub class: String,
    /// [`crate::digest`] of its files.
    pub digest: String,
}

/// The ranks that made an image together, and how. Replicas do not matter: they change no byte.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct ParallelRecord {
    pub ulysses_degree: usize,
    pub ring_degree: usize,
    /// Ranks that guidance's branches were shared out to.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub cfg_degree: usize,
    pub parallel_vae: bool,
    /// Stages and patches, if there were several of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipefusion: Option<PipeFusionRecord>,
}

impl ParallelRecord {
    /// What `parallel` shares out, and `plan` foretold; none if an image has one rank and one patch.
    pub(crate) fn of(parallel: &Parallel, plan: &RunPlan) -> Option<Self> {
        let degrees = parallel.degrees;
        let pipefusion = PipeFusionRecord::of(parallel, plan);
        (degrees.ulysses * degrees.ring * degrees.cfg > 1 || pipefusion.is_some()).then_some(Self {
            ulysses_degree: degrees.ulysses,
            ring_degree: degrees.ring,
            cfg_degree: degrees.cfg,
            parallel_vae: parallel.vae,
            pipefusion,
        })
    }

    /// The ranks that it was taken from.
    pub(crate) fn parallel(&self) -> Parallel {
        let mut degrees = Degrees {
            ulysses: self.ulysses_degree,
            ring: self.ring_degree,
            cfg: self.cfg_degree,
            ..Degrees::default()
        };
        let mut options = PipeFusion::default();
        if let Some(record) = &self.pipefusion {
            degrees.pipe = record.pipefusion_parallel_degree;
            options = record.options();
        }
        Parallel::threads(degrees)
            .vae(self.parallel_vae)
            .pipefusion(options)
    }
}

/// diffusers' call arguments.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct RequestRecord {
    pub prompt: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompt_2: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub negative_prompt: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub negative_prompt_2: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompt_3: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub negative_prompt_3: Vec<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub clip_skip: usize,
    /// diffusers' name of the sampler's class; of flow matching, which has one, it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub guidance_rescale: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_resolution_binning: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_size: Option<[usize; 2]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_size: Option<[usize; 2]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crops_coords_top_left: Option<[usize; 2]>,
    /// There if several prompts had several images each ([`RunRecord::exact_diffusers`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact_diffusers: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skip_guidance_layers: Vec<usize>,
    /// This and the next two are there if blocks are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_layer_guidance_scale: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_layer_guidance_start: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_layer_guidance_stop: Option<f64>,
    pub true_cfg_scale: f64,
    pub height: usize,
    pub width: usize,
    pub num_inference_steps: usize,
    pub guidance_scale: f64,
    pub max_sequence_length: usize,
    pub num_images_per_prompt: usize,
    /// Whether the picture was decoded in blended tiles.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub vae_tiling: bool,
    /// Whether NaN and infinity were allowed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_non_finite: bool,
    /// One for the whole batch, or one for each image.
    pub seed: Vec<i128>,
}

impl RunRecord {
    /// The record in `json`.
    ///
    /// # Errors
    /// One line that says which field is missing or wrong, or that a newer version wrote it.
    pub(crate) fn parse(json: &str) -> Result<Self, String> {
        let record: Self =
            serde_json::from_str(json).map_err(|e| format!("damaged record: {e}"))?;
        if record.format != FORMAT {
            let found = record.format;
            return Err(format!(
                "the record is of format {found}; this version reads format {FORMAT}"
            ));
        }
        if record.image >= record.images {
            return Err(format!(
                "damaged record: image {} of {}",
                record.image, record.images
            ));
        }
        Ok(record)
    }

    /// Whether images read the masks of other prompts, as in diffusers. HunyuanDiT's always did before records said so.
    pub(crate) fn exact_diffusers(&self) -> bool {
        let request = &self.request;
        let several = request.prompt.len() > 1 && request.num_images_per_prompt > 1;
        let before = several && self.model.class == "HunyuanDiTPipeline";
        request.exact_diffusers.unwrap_or(before)
    }

    /// The record as one line of JSON.
    pub(crate) fn to_json(&self) -> String {
        // A structure of strings and numbers always has a JSON form: seeds fit 64 bits, scales are finite.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// AUTOMATIC1111's `parameters`.
    pub(crate) fn parameters(&self) -> String {
        let request = &self.request;
        let prompt_index = self.image / request.num_images_per_prompt.max(1);
        let prompt = pick(&request.prompt, prompt_index).map_or("", String::as_str);
        let mut text = format!("{prompt}\n");
        // The others have no other guidance than this; Flux is told its own beside it.
        let (cfg_scale, told) = match self.model.class.as_str() {
            "StableDiffusion3Pipeline" | "HunyuanDiTPipeline" => (request.guidance_scale, None),
            _ => (request.true_cfg_scale, Some(request.guidance_scale)),
        };
        if cfg_scale > 1.
            && let Some(negative) = pick(&request.negative_prompt, prompt_index)
        {
            text += &format!("Negative prompt: {negative}\n");
        }
        let several_seeds = request.seed.len() > 1;
        let seed = pick(&request.seed, if several_seeds { self.image } else { 0 })
            .copied()
            .unwrap_or_default();
        text += &format!(
            "Steps: {}, Sampler: {}, CFG scale: {cfg_scale}, ",
            request.num_inference_steps,
            sampler(request.scheduler.as_deref()),
        );
        if let Some(guidance) = told {
            text += &format!("Guidance: {guidance}, ");
        }
        text += &format!("Seed: {seed}, Size: {}x{}, ", request.width, request.height);
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

/// Records without a degree are of one.
fn one() -> usize {
    1
}

fn is_one(degree: &usize) -> bool {
    *degree == 1
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
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
pub(crate) mod tests;
