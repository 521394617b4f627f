//! The configurations of a Stable Diffusion 3 pipeline, which describe it without its weights.

use xdit_cfg::{Branch, GuidancePlan, SkipLayers};

use super::Sd3Config;
use crate::error::{Error, Result};
use crate::files::config::ConfigFile;
use crate::files::model_index::{ModelIndex, PipelineClass};
use crate::files::source::ModelSource;
use crate::models::dit::Guide;
use crate::pipeline::configurations::{Configurations, TransformerFacts};
use crate::pipeline::fits;
use crate::pipeline::request::{Defaults, Request, unused};
use crate::pipeline::resolve::{ResolvedRequest, Rules};
use crate::schedulers::{FlowMatchEulerConfig, SchedulerConfig};
use crate::text::prompts::CLIP_LENGTH;
use crate::text::tokenizers::model_max_length;
use crate::text::{ClipTextConfig, T5Config};
use crate::vae::VaeConfig;

/// The largest number of T5 tokens in diffusers.
pub(super) const MAX_SEQUENCE_LENGTH: usize = 512;

/// The configurations of all components, checked against each other.
#[derive(Debug)]
pub(crate) struct Configs {
    pub(crate) index: ModelIndex,
    pub(crate) clip: ClipTextConfig,
    pub(crate) clip_2: ClipTextConfig,
    /// `None` where the pipeline has no third text encoder.
    pub(crate) t5: Option<T5Config>,
    pub(crate) sd3: Sd3Config,
    pub(crate) vae: VaeConfig,
    pub(crate) scheduler: FlowMatchEulerConfig,
    /// The number of tokens of each CLIP.
    pub(crate) clip_length: usize,
}

impl Configurations for Configs {
    const CLASS: PipelineClass = PipelineClass::Sd3;
    const TRANSFORMER: &'static str = "SD3Transformer2DModel";

    fn facts(config: &ConfigFile) -> Result<TransformerFacts> {
        let config = Sd3Config::read(config)?;
        let dual = config.dual_attention_layers.len();
        Ok(TransformerFacts {
            heads: config.num_attention_heads,
            head_dim: config.attention_head_dim,
            blocks: vec![
                ("transformer_blocks", config.num_layers - dual),
                ("dual_attention_blocks", dual),
            ],
        })
    }

    fn read(source: &ModelSource) -> Result<Self> {
        let index = ModelIndex::read(source)?;
        for name in ["text_encoder", "text_encoder_2"] {
            index.expect(name, &["CLIPTextModelWithProjection"])?;
        }
        index.expect("transformer", &[Self::TRANSFORMER])?;
        index.expect("vae", &["AutoencoderKL"])?;
        index.expect("scheduler", SchedulerConfig::FLOW_MATCHING)?;
        let t5 = match index.components.contains_key("text_encoder_3") {
            false => None,
            true => {
                index.expect("text_encoder_3", &["T5EncoderModel"])?;
                Some(T5Config::read(&fits::component(source, "text_encoder_3")?)?)
            }
        };
        // One length for both, as in diffusers.
        let clip_length = model_max_length(source, "tokenizer")?.unwrap_or(CLIP_LENGTH);
        let clip = |folder| {
            let file = fits::component(source, folder)?;
            let clip = ClipTextConfig::read(&file)?;
            fits::positions(&file, clip.max_position_embeddings, clip_length)?;
            Ok::<_, Error>(clip)
        };
        let sd3_file = fits::component(source, "transformer")?;
        let configs = Self {
            index,
            clip: clip("text_encoder")?,
            clip_2: clip("text_encoder_2")?,
            t5,
            sd3: Sd3Config::read(&sd3_file)?,
            vae: fits::vae(&fits::component(source, "vae")?)?,
            scheduler: FlowMatchEulerConfig::read(
                &source.config("scheduler/scheduler_config.json")?,
            )?,
            clip_length,
        };
        configs.check_widths(&sd3_file)?;
        Ok(configs)
    }

    /// The defaults of diffusers (`StableDiffusion3Pipeline.__call__`).
    fn defaults(&self, _: &ModelSource) -> Defaults {
        let side = self.sd3.sample_size * self.vae.scale_factor();
        Defaults {
            height: side,
            width: side,
            num_inference_steps: 28,
            guidance_scale: 7.0,
            max_sequence_length: 256,
            scheduler: SchedulerConfig::FLOW_MATCHING[0],
        }
    }

    fn rules(&self) -> Rules {
        Rules {
            max_sequence_length: MAX_SEQUENCE_LENGTH,
            clip_tokens: self.clip_length,
            patch: self.sd3.patch_size,
            cuts_sizes: false,
            standard_size: None,
            max_tokens: Some(self.sd3.pos_embed_max_size),
            even_sigmas: false,
        }
    }

    fn scheduler(&self, _: &Request) -> Result<SchedulerConfig> {
        Ok(SchedulerConfig::FlowMatchEuler(self.scheduler.clone()))
    }

    /// Returns the guidance, and the blocks that its third branch leaves out.
    fn guide(&self, request: &Request, defaults: &Defaults) -> Result<Guide> {
        request.refuse_conditions(SchedulerConfig::FLOW_MATCHING)?;
        request.refuse(&[("true_cfg_scale", request.true_cfg_scale != 1.0)])?;
        let skipped = &request.skip_guidance_layers;
        let count = self.sd3.block_count();
        if let Some(block) = skipped.iter().find(|block| **block >= count) {
            let allowed = format!("below {count}, the blocks of the model");
            return Err(Error::invalid("skip_guidance_layers", block, allowed));
        }
        let layers = self
            .clip
            .num_hidden_layers
            .min(self.clip_2.num_hidden_layers);
        if request.clip_skip >= layers {
            let allowed = format!("below {layers}, the layers of CLIP");
            return Err(Error::invalid("clip_skip", request.clip_skip, allowed));
        }
        let guidance_scale = request.guidance_scale.unwrap_or(defaults.guidance_scale) as f32;
        Ok(Guide {
            embedded: 0.0,
            plan: GuidancePlan {
                guidance_scale,
                guidance_rescale: 0.0,
                skip_layers: request
                    .skip_layers()
                    .map(|[scale, start, stop]| SkipLayers {
                        scale: scale as f32,
                        start,
                        stop,
                    }),
            },
            skipped: skipped.clone(),
        })
    }

    fn warnings(&self, request: &Request, resolved: &ResolvedRequest) -> Vec<String> {
        let negative_3 = request.negative_prompt_3.is_some();
        let guided = resolved.guide.plan.guidance_scale > 1.0;
        let mut warnings = match guided {
            true => Vec::new(),
            false => request.unused_without_guidance(),
        };
        if self.t5.is_none() {
            let of_t5 = [
                ("prompt_3", request.prompt_3.is_some()),
                // Without guidance it is named above.
                ("negative_prompt_3", negative_3 && guided),
            ];
            warnings.extend(unused(&of_t5, "there is no T5, which reads it"));
        }
        let skips = !request.skip_guidance_layers.is_empty();
        let branches = resolved.guide.branches(resolved.steps);
        warnings.extend(unused(
            &[(
                "skip_guidance_layers",
                guided && skips && !branches.contains(&Branch::SkipLayers),
            )],
            "no step is between `skip_layer_guidance_start` and `skip_layer_guidance_stop`",
        ));
        warnings
    }

    fn noise_channels(&self) -> usize {
        self.sd3.in_channels
    }
}

impl Configs {
    /// Checks that the width of each component is the input width of the next.
    fn check_widths(&self, config: &ConfigFile) -> Result<()> {
        let sd3 = &self.sd3;
        fits::sample_size(
            config,
            sd3.sample_size,
            sd3.patch_size,
            self.vae.scale_factor(),
        )?;
        let pooled = self.clip.projection_dim + self.clip_2.projection_dim;
        if self.sd3.pooled_projection_dim != pooled {
            let expected = format!("{pooled}, the projection_dim of both CLIP encoders");
            return Err(config.bad("pooled_projection_dim", expected));
        }
        let joint = self.sd3.joint_attention_dim;
        let clip = self.clip.hidden_size + self.clip_2.hidden_size;
        if clip > joint {
            let expected = format!("at least {clip}, the hidden_size of both CLIP encoders");
            return Err(config.bad("joint_attention_dim", expected));
        }
        if let Some(t5) = self.t5.as_ref().filter(|t5| t5.d_model != joint) {
            let expected = format!("{}, text_encoder_3's d_model", t5.d_model);
            return Err(config.bad("joint_attention_dim", expected));
        }
        for (field, channels) in [
            ("in_channels", self.sd3.in_channels),
            ("out_channels", self.sd3.out_channels),
        ] {
            if channels != self.vae.latent_channels {
                let expected = format!("{}, the vae's latent_channels", self.vae.latent_channels);
                return Err(config.bad(field, expected));
            }
        }
        Ok(())
    }
}
