//! The record of a run in a PNG, with which it can be repeated: one JSON object under the key `xdit`.

use serde::{Deserialize, Serialize};
use xdit_kernels::DType;
use xdit_models::Degrees;
use xdit_models::{MeshOrder, Parallel, PipeFusion, Request, RunPlan, quote};

use crate::report::failure::Failure;
use crate::report::pipefusion::PipeFusionRecord;

/// The longest path on any system.
const LONGEST_NAME: usize = 4096;

/// The version of the record that this program writes.
pub(crate) const FORMAT: u32 = 1;

/// Everything that determines the pixels of one image.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct RunRecord {
    /// [`FORMAT`].
    pub format: u32,
    /// The program and its version.
    pub version: String,
    /// The pipeline.
    pub model: ModelRecord,
    /// diffusers' call arguments, with all defaults filled in.
    pub request: Request,
    /// The dtype of weights and activations.
    pub dtype: String,
    /// `cpu`, or a GPU as `--device` names it.
    pub device: String,
    /// The processor's instruction tier. Other tiers change the last bits.
    pub tier: String,
    /// Whether a GPU could round the operands of products in f32 to TF32.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_tf32: bool,
    /// The ranks of each image, if there were several. Another order of sums changes the last bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<ParallelRecord>,
    /// The ranks that continued the image, each time that a rank was lost, with `--on-rank-loss replan`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub continued: Vec<ContinuedRecord>,
    /// The index of this image in the batch.
    pub image: usize,
    /// The number of images in the batch.
    pub images: usize,
}

/// The pipeline of an image.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct ModelRecord {
    /// The value of `--model`: a folder, a hub id, or `demo`.
    pub name: String,
    /// The hub's commit, or the requested branch or tag.
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
    /// [`crate::run::digest`] of its files.
    pub digest: String,
}

/// The ranks of the rest of an image, after others.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct ContinuedRecord {
    /// The number of steps that were finished before.
    pub first_step: usize,
    /// The ranks, if there were several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<ParallelRecord>,
}

/// The ranks of an image. Replicas are not recorded, because they change no byte.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct ParallelRecord {
    pub ulysses_degree: usize,
    pub ring_degree: usize,
    /// The number of ranks that divided the branches of guidance.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub cfg_degree: usize,
    pub parallel_vae: bool,
    /// The order of the axes, if it was not the usual one. It changes no byte.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub mesh_order: MeshOrder,
    /// Stages and patches, if there were several of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipefusion: Option<PipeFusionRecord>,
}

impl ParallelRecord {
    /// Returns the ranks of `parallel` and `plan`, or `None` if an image has one rank and one patch.
    pub(crate) fn of(parallel: &Parallel, plan: &RunPlan) -> Option<Self> {
        let degrees = plan.degrees;
        let pipefusion = PipeFusionRecord::of(parallel, plan);
        (degrees.ulysses * degrees.ring * degrees.cfg > 1 || pipefusion.is_some()).then_some(Self {
            ulysses_degree: degrees.ulysses,
            ring_degree: degrees.ring,
            cfg_degree: degrees.cfg,
            parallel_vae: parallel.vae,
            mesh_order: degrees.order,
            pipefusion,
        })
    }

    /// The ranks that it was taken from.
    pub(crate) fn parallel(&self) -> Parallel {
        let mut degrees = Degrees {
            ulysses: self.ulysses_degree,
            ring: self.ring_degree,
            cfg: self.cfg_degree,
            order: self.mesh_order,
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

impl RunRecord {
    /// Returns the ranks of the image in order, each with the number of steps that were finished before. Ranks that finished no step
    /// of the image are left out, and those that only decoded it, which changes nothing.
    pub(crate) fn parts(&self) -> Vec<(usize, Parallel)> {
        let steps = self.request.num_inference_steps.unwrap_or(usize::MAX);
        let ranks = |record: &Option<ParallelRecord>| {
            record
                .as_ref()
                .map_or_else(Parallel::default, ParallelRecord::parallel)
        };
        let mut parts = vec![(0, ranks(&self.parallel))];
        for next in self.continued.iter().filter(|next| next.first_step < steps) {
            parts.retain(|(first, _)| *first < next.first_step);
            parts.push((next.first_step, ranks(&next.parallel)));
        }
        parts
    }

    /// Reads the record in `json`.
    ///
    /// # Errors
    /// One line that names a missing or wrong field, or says that a newer version wrote the record.
    pub(crate) fn parse(json: &str) -> Result<Self, String> {
        let record: Self = serde_json::from_str(json)
            .map_err(|e| format!("damaged record: {}", quote::reason(&e.to_string())))?;
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

    /// Whether images read the masks of other prompts, as in diffusers. Those of HunyuanDiT always did before records contained
    /// this field.
    pub(crate) fn exact_diffusers(&self) -> bool {
        let request = &self.request;
        let several = request.prompt.len() > 1 && request.num_images_per_prompt > 1;
        let before = several && self.model.class == "HunyuanDiTPipeline";
        request.exact_diffusers.unwrap_or(before)
    }

    /// Returns the request of the run, checked like that of flags.
    ///
    /// # Errors
    /// [`Failure::Usage`], which names the flag of the value.
    pub(crate) fn checked(&self) -> Result<Request, Failure> {
        let request = self.request.clone();
        request.check()?;
        let images = request.image_count();
        if self.images != images {
            return Err(Failure::usage(format!(
                "images {}: must be {images}, by its prompts and --num-images-per-prompt",
                self.images
            )));
        }
        if self.model.name.len() > LONGEST_NAME {
            let name = quote::shorten(&self.model.name);
            return Err(Failure::usage(format!(
                "--model {name}: is no name of a model"
            )));
        }
        Ok(request)
    }

    /// Returns the dtype of the run.
    ///
    /// # Errors
    /// [`Failure::Usage`] if the dtype is unknown.
    pub(crate) fn dtype(&self) -> Result<DType, Failure> {
        let mut dtypes = [DType::F32, DType::BF16, DType::F16].into_iter();
        let found = dtypes.find(|dtype| dtype.to_string() == self.dtype);
        found.ok_or_else(|| {
            let given = quote::shorten(&self.dtype);
            Failure::usage(format!("--dtype {given}: must be f32, bf16 or f16"))
        })
    }

    /// Returns the record as one line of JSON.
    pub(crate) fn to_json(&self) -> String {
        // A struct of strings and numbers always has a JSON form: seeds fit 64 bits, and scales are finite.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Records without a degree are of one.
fn one() -> usize {
    1
}

fn is_one(degree: &usize) -> bool {
    *degree == 1
}

fn is_usual(order: &MeshOrder) -> bool {
    *order == MeshOrder::USUAL
}

#[cfg(test)]
pub(crate) mod tests;
